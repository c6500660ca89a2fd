//! Why a command failed, and the exit code that says so to scripts.

use crate::settings::problem::Problem;
use admin::{Refusal, RefusalKind};
use std::fmt;
use std::process::ExitCode;

/// A command that was not done.
#[derive(Debug)]
pub enum Failure {
    /// 1: the answer is no.
    No(String),
    /// 2: the command line is wrong.
    Usage(String),
    /// 3: the settings are wrong.
    Settings(String),
    /// 4: the server, the store or the world failed.
    Broken(String),
}

impl Failure {
    /// The store or the world failed.
    pub fn store(text: impl Into<String>) -> Self {
        Self::Broken(text.into())
    }

    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::No(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Settings(_) => 3,
            Failure::Broken(_) => 4,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::No(text) | Failure::Usage(text) | Failure::Settings(text) | Failure::Broken(text) => {
                f.write_str(text)
            }
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Settings(problem.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal.kind {
            RefusalKind::NotFound | RefusalKind::Invalid => Self::No(refusal.text),
            RefusalKind::Failed => Self::Broken(refusal.text),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}
