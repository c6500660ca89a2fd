//! Finding a message's queue id by what people know of it.

use crate::{Error, Event, Journey, keys, record};
use mail::{EmailAddress, QueueId};
use store::Snapshot;

/// Messages that one search answers at most.
pub const FIND_MAX: usize = 1_000;

/// Rows that are looked at together in a search.
const PAGE: usize = 4_096;

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
    /// address or Message-ID that finds nothing is tried as the other of the two. A Message-ID is
    /// looked for from the newest message backwards: the last ones are found at once, and to know
    /// that there is none takes a look at 8 octets of every message whose journey is kept.
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
            Query::MessageId(id) => return self.with_message_id(snapshot.as_ref(), id, limit).await,
            Query::Address(address) => keys::found_by(&record::address_text(address)).prefix_range(),
        };
        let rows = snapshot.scan_back(&range, limit).await?;
        Ok(rows.iter().filter_map(|(key, _)| id_behind(key)).collect())
    }

    async fn with_message_id(
        &self,
        snapshot: &dyn Snapshot,
        message_id: &str,
        limit: usize,
    ) -> Result<Vec<QueueId>, Error> {
        let text = record::message_id_text(message_id);
        let hash = record::text_hash(&text).to_be_bytes();
        let mut range = keys::message_ids().prefix_range();
        let mut found = Vec::new();
        while found.len() < limit {
            let rows = snapshot.scan_back(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else { break };
            range.end = last.clone();
            let same = rows.iter().filter(|(_, stored)| *stored.value == hash);
            for id in same.filter_map(|(key, _)| record::id_of(key)) {
                if found.len() < limit && self.has_message_id(id, &text).await? {
                    found.push(id);
                }
            }
        }
        Ok(found)
    }

    async fn has_message_id(&self, id: QueueId, text: &str) -> Result<bool, Error> {
        let events = self.events(id).await?;
        Ok(events.iter().any(|record| match &record.event {
            Event::Received {
                message_id: Some(known),
                ..
            } => record::message_id_text(known) == text,
            _ => false,
        }))
    }
}

fn id_behind(key: &store::Key) -> Option<QueueId> {
    let mut parts = key.reader();
    parts.text()?;
    parts.u64().map(QueueId)
}
