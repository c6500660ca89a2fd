//! Why an operation on mailboxes did not happen, said by what the caller can do about it.

use store::{BlobError, CommitError, Key, ReadError};

/// Why an operation on mailboxes did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No mailbox of that name or id. IMAP says `NO [NONEXISTENT]` or `[TRYCREATE]`.
    #[error("there is no such mailbox")]
    NoSuchMailbox,
    /// The name is taken. IMAP says `NO [ALREADYEXISTS]`.
    #[error("a mailbox of that name exists already")]
    Exists,
    /// The name cannot be a mailbox's name. IMAP says `NO [CANNOT]`.
    #[error("the mailbox name is not acceptable: {0}")]
    BadName(&'static str),
    /// INBOX cannot be deleted, and nothing can be renamed into itself. IMAP says `NO [CANNOT]`.
    #[error("not possible: {0}")]
    Forbidden(&'static str),
    /// A limit of this crate. IMAP says `NO [LIMIT]`.
    #[error("over the limit of {max} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        max: usize,
    },
    /// A keyword that cannot be an IMAP atom (RFC 3501 §9 `flag-keyword`).
    #[error("a keyword must be 1 to 64 characters of an IMAP atom")]
    BadKeyword,
    /// Other sessions changed the same messages again and again. Try later.
    #[error("the mailbox is too busy; try again")]
    Contended,
    /// A stored value cannot be read. The rest of the mailbox stays served.
    #[error("the value under {key:?} is damaged: {what}")]
    Damaged {
        /// Where it stands.
        key: Key,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The store could not be read.
    #[error(transparent)]
    Read(ReadError),
    /// A message's bytes could not be read or written.
    #[error(transparent)]
    Blob(#[from] BlobError),
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
                what: "its checksum is wrong",
            },
            ReadError::Io(_) => Error::Read(error),
        }
    }
}
