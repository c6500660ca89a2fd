//! What the proof can find.

use std::fmt;

/// The kind of a broken promise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Something acknowledged is not there.
    Lost,
    /// Something is there twice.
    Twice,
    /// Something is there in part, or differs from what was sent.
    Half,
    /// Something that was gone is there again.
    CameBack,
    /// UIDs, modification sequences, counters or UIDVALIDITY are wrong.
    Numbers,
    /// The store can't be opened or read.
    Unreadable,
    /// The server did something else that it must not do.
    Misbehaved,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Twice => "twice",
            Self::Half => "half a message",
            Self::CameBack => "came back",
            Self::Numbers => "wrong numbers",
            Self::Unreadable => "unreadable",
            Self::Misbehaved => "misbehaved",
        })
    }
}

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}: {about}")]
pub struct Failure {
    /// Its kind.
    pub what: What,
    /// What exactly.
    pub about: String,
}

impl Failure {
    /// A failure of this kind.
    #[must_use]
    pub fn new(what: What, about: impl Into<String>) -> Self {
        Self {
            what,
            about: about.into(),
        }
    }

    /// A read that the store refused.
    #[must_use]
    pub fn unreadable(about: &str, error: &dyn std::error::Error) -> Self {
        Self::new(What::Unreadable, format!("{about}: {error}"))
    }
}
