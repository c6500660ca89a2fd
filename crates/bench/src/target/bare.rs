//! The bare receiver as a process of its own: this program again.
//!
//! Promises: a fresh file for each start. Never: more than `bench bare` does.

use super::{Launch, Running, Stop, Target, start_until_ready};
use crate::problem::Outcome;
use std::path::{Path, PathBuf};

/// `bench bare`.
#[derive(Debug)]
pub struct Bare {
    program: PathBuf,
}

impl Bare {
    /// The bare receiver of this `bench` program.
    pub fn of(program: PathBuf) -> Self {
        Self { program }
    }
}

impl Target for Bare {
    fn name(&self) -> &str {
        "bare"
    }

    fn describe(&self) -> String {
        format!(
            "bare: `bench bare`, the same bytes read from loopback, one fdatasync a group into one file of {} MiB \
             that is written over; nothing is judged, parsed or delivered.",
            crate::bare::FILE_OCTETS >> 20
        )
    }

    fn start(&self, folder: &Path, launch: &Launch<'_>) -> Outcome<Running> {
        let mut command = launch.command(&self.program);
        command.args(["bare", "--dir"]).arg(folder);
        let started = start_until_ready(&mut command, &folder.join("stderr.log"))?;
        let address = started.address("smtp")?;
        Ok(Running::new(address, started.after, started.child, Stop::Term))
    }
}
