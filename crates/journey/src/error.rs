//! Why a journey could not be read or pruned.

use store::{CommitError, Key, ReadError};

/// Why a journey could not be read or pruned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
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
