//! Why the directory did not do something, said by what the caller can do about it.

use crate::NoRandomness;
use store::{CommitError, Key, ReadError};

/// Why the directory did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The domain is not one of ours.
    #[error("the domain {0} is not served here")]
    NoSuchDomain(String),
    /// There is no such account.
    #[error("there is no such account")]
    NoSuchAccount,
    /// There is no such alias, group, grant, app password or signing key.
    #[error("there is no such {0}")]
    NoSuch(&'static str),
    /// The name is taken.
    #[error("{0} exists already")]
    Exists(String),
    /// It cannot be removed while something depends on it.
    #[error("still in use: {0}")]
    InUse(String),
    /// What was given is not acceptable.
    #[error("not acceptable: {0}")]
    Invalid(&'static str),
    /// Over a limit.
    #[error("over the limit of {max} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        max: usize,
    },
    /// An alias or a group would lead to it, and it is nobody here.
    #[error("{0} is nobody here; make the account or alias first")]
    NoSuchTarget(String),
    /// An alias or a group would lead back to itself.
    #[error("{address} would lead back to itself through {through}")]
    Loop {
        /// The address that was to be changed.
        address: String,
        /// The one that leads back to it.
        through: String,
    },
    /// Others changed the same thing again and again. Try later.
    #[error("the directory is too busy; try again")]
    Contended,
    /// The source of randomness failed.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// A stored value cannot be read.
    #[error("the value under {key:?} is damaged: {what}")]
    Damaged {
        /// Where it stands.
        key: Key,
        /// What is wrong with it.
        what: String,
    },
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store did not commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
}
