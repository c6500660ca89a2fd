//! Why an operation on the queue did not happen, said by what the caller can do about it.

use store::{CommitError, Key, ReadError};

/// Why an operation on the queue did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No message of that id is in the queue (any more).
    #[error("no such message is in the queue")]
    NotQueued,
    /// The claim does not hold any more: it lapsed and was taken over, or the errand was dropped.
    #[error("the claim on this errand does not hold any more")]
    ClaimLost,
    /// Over a limit of this crate.
    #[error("over the limit of {max} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        max: usize,
    },
    /// The queue changed again and again while this was decided. Try later.
    #[error("the queue is too busy; try again")]
    Contended,
    /// A stored value cannot be read. The rest of the queue stays served.
    #[error("the value under {key:?} is damaged: {what}")]
    Damaged {
        /// Where it stands.
        key: Key,
        /// What is wrong with it.
        what: String,
    },
    /// The store could not be read.
    #[error(transparent)]
    Read(ReadError),
    /// The store did not commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            // One bad row is passed over like one that cannot be decoded.
            ReadError::Corrupt(key) => Error::Damaged {
                key,
                what: "its checksum is wrong".to_owned(),
            },
            ReadError::Io(_) => Error::Read(error),
        }
    }
}
