//! What the client hears when a mailbox operation did not happen.

use ::imap::{Code, Refusal};
use mailbox::Error;
use store::{BlobError, CommitError};

/// The refusal for an error. What the client can do nothing about is logged here.
pub(super) fn refusal(error: &Error) -> Refusal {
    let code = match error {
        Error::NoSuchMailbox => return Refusal::no_such_mailbox(),
        Error::Exists => Code::AlreadyExists,
        Error::BadName(_) | Error::Forbidden(_) | Error::BadKeyword => Code::Cannot,
        Error::Limit { .. } => Code::Limit,
        Error::Contended => Code::InUse,
        Error::Commit(CommitError::Full) | Error::Blob(BlobError::Full) => {
            return Refusal::new(Code::OverQuota, "The server has no room left, try again later");
        }
        other => {
            tracing::error!(error = %other, "imap: a mailbox operation failed");
            return Refusal::unavailable();
        }
    };
    let mut text = error.to_string();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Refusal::new(code, text)
}
