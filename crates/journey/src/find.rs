//! Finding a message's queue id by what people know of it.

use crate::{Error, Journey};
use mail::{EmailAddress, QueueId};

/// Messages that one search answers at most.
pub const FIND_MAX: usize = 1_000;

/// What people know of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Query {
    /// Its queue id.
    Id(QueueId),
    /// Its Message-ID, without brackets.
    MessageId(String),
    /// An address of its envelope.
    Address(EmailAddress),
}

impl Query {
    /// Reads what an operator types: a queue id, `<message-id>`, or an address. What could be an
    /// address or a Message-ID without brackets is taken as an address; see [`Query::alternative`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let _ = text;
        todo!()
    }

    /// The other way to read the same text, to be tried when the first finds nothing.
    #[must_use]
    pub fn alternative(&self) -> Option<Self> {
        todo!()
    }
}

impl Journey {
    /// The messages that a query names, newest first, at most `limit` (and [`FIND_MAX`]). An
    /// address or Message-ID that finds nothing is tried as the other of the two.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn find(&self, query: &Query, limit: usize) -> Result<Vec<QueueId>, Error> {
        let _ = (query, limit);
        todo!()
    }
}
