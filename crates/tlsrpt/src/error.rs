//! Why something about TLS reports could not be read or stored.

use store::{CommitError, Key, ReadError};

/// Why something about TLS reports could not be read or stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store did not commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A stored value is not one of ours.
    #[error("the value under {0:?} cannot be understood: {1}")]
    Damaged(Key, String),
}
