//! Finding a message's queue id by what people know of it.

use crate::keys::{self, Kind};
use crate::{Error, Journey, record};
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
        let text = text.trim();
        if let Some(inner) = text.strip_prefix('<').and_then(|t| t.strip_suffix('>')) {
            return Some(Self::MessageId(inner.to_owned()));
        }
        if let Some(id) = QueueId::parse(text) {
            return Some(Self::Id(id));
        }
        match EmailAddress::parse(text) {
            Ok(address) => Some(Self::Address(address)),
            Err(_) => text.contains('@').then(|| Self::MessageId(text.to_owned())),
        }
    }

    /// The other way to read the same text, to be tried when the first finds nothing.
    #[must_use]
    pub fn alternative(&self) -> Option<Self> {
        match self {
            Self::Id(_) => None,
            Self::Address(address) => Some(Self::MessageId(address.to_string())),
            Self::MessageId(id) => EmailAddress::parse(id).ok().map(Self::Address),
        }
    }
}

impl Journey {
    /// The messages that a query names, newest first, at most `limit` (and [`FIND_MAX`]). An
    /// address or Message-ID that finds nothing is tried as the other of the two.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn find(&self, query: &Query, limit: usize) -> Result<Vec<QueueId>, Error> {
        let limit = limit.min(FIND_MAX);
        let found = self.find_as(query, limit).await?;
        match query.alternative() {
            Some(other) if found.is_empty() => self.find_as(&other, limit).await,
            _ => Ok(found),
        }
    }

    async fn find_as(&self, query: &Query, limit: usize) -> Result<Vec<QueueId>, Error> {
        let snapshot = self.store.snapshot().await?;
        let range = match query {
            Query::Id(id) => {
                let known = snapshot.scan(&keys::events_of(*id).prefix_range(), 1).await?;
                return Ok(if known.is_empty() { Vec::new() } else { vec![*id] });
            }
            Query::MessageId(id) => keys::found_by(Kind::MessageId, &record::message_id_text(id)),
            Query::Address(address) => keys::found_by(Kind::Address, &record::address_text(address)),
        }
        .prefix_range();
        let rows = snapshot.scan_back(&range, limit).await?;
        Ok(rows.iter().filter_map(|(key, _)| id_behind(key)).collect())
    }
}

fn id_behind(key: &store::Key) -> Option<QueueId> {
    let mut parts = key.reader();
    parts.u8()?;
    parts.text()?;
    parts.u64().map(QueueId)
}
