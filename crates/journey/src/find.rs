//! Finding a message's queue id by what people know of it.

use crate::keys::{self, Kind};
use crate::{Error, Journey};
use mail::{EmailAddress, QueueId};
use store::Snapshot;

/// Messages that one search answers at most.
pub const FIND_MAX: usize = 1_000;
/// Octets of a Message-ID that count for finding it: RFC 5322 sets no limit of its own, keys do.
const MESSAGE_ID_OCTETS: usize = 250;

/// What people know of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Query {
    /// Its queue id.
    Id(QueueId),
    /// Its Message-ID; brackets do not matter.
    MessageId(String),
    /// An address of its envelope.
    Address(EmailAddress),
}

impl Query {
    /// Reads what an operator types: a queue id, a `<message-id>` in brackets, an address, or
    /// anything else, which can only be a Message-ID. `None` for nothing at all.
    ///
    /// A Message-ID without brackets mostly looks like an address; [`Journey::find`] tries both.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        if let Some(id) = QueueId::parse(text) {
            return Some(Query::Id(id));
        }
        if !text.starts_with('<')
            && let Ok(address) = EmailAddress::parse(text)
        {
            return Some(Query::Address(address));
        }
        Some(Query::MessageId(normal_message_id(text)))
    }
}

impl Journey {
    /// The messages that a query names, newest first, at most `limit` (and [`FIND_MAX`]). An
    /// address that finds nothing is tried as a Message-ID, and the other way round.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn find(&self, query: &Query, limit: usize) -> Result<Vec<QueueId>, Error> {
        let snapshot = self.store.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let limit = limit.min(FIND_MAX);
        match query {
            Query::Id(id) => {
                let events = keys::events_of(*id).prefix_range();
                let known = !snapshot.scan(&events, 1).await?.is_empty();
                Ok(known.then_some(*id).into_iter().take(limit).collect())
            }
            Query::Address(address) => {
                let found = found_in(snapshot, Kind::Address, &address.folded(), limit).await?;
                if !found.is_empty() {
                    return Ok(found);
                }
                let as_id = normal_message_id(&address.to_string());
                found_in(snapshot, Kind::MessageId, &as_id, limit).await
            }
            Query::MessageId(text) => {
                let text = normal_message_id(text);
                let found = found_in(snapshot, Kind::MessageId, &text, limit).await?;
                match EmailAddress::parse(&text) {
                    Ok(address) if found.is_empty() => {
                        found_in(snapshot, Kind::Address, &address.folded(), limit).await
                    }
                    _ => Ok(found),
                }
            }
        }
    }
}

async fn found_in(
    snapshot: &dyn Snapshot,
    kind: Kind,
    text: &str,
    limit: usize,
) -> Result<Vec<QueueId>, Error> {
    let range = keys::found_by(kind, text).prefix_range();
    let rows = snapshot.scan_back(&range, limit).await?;
    Ok(rows
        .iter()
        .filter_map(|(key, _)| {
            let mut parts = key.reader();
            parts.u8()?;
            parts.text()?;
            parts.u64().map(QueueId)
        })
        .collect())
}

/// The form under which a Message-ID is looked up: no brackets, its domain in lower case, cut.
pub(crate) fn normal_message_id(text: &str) -> String {
    let text = text.trim();
    let text = text.strip_prefix('<').unwrap_or(text);
    let text = text.strip_suffix('>').unwrap_or(text);
    let text = match text.rsplit_once('@') {
        Some((left, domain)) => format!("{left}@{}", domain.to_ascii_lowercase()),
        None => text.to_owned(),
    };
    let end = text.floor_char_boundary(MESSAGE_ID_OCTETS);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_types() {
        let id = QueueId::from_parts(1_800_000_000_000_000, 7);
        let address = |t: &str| Query::Address(EmailAddress::parse(t).unwrap());
        let message_id = |t: &str| Query::MessageId(t.to_owned());
        for (text, expected) in [
            (id.to_string(), Some(Query::Id(id))),
            (
                format!(" {} ", id.to_string().to_lowercase()),
                Some(Query::Id(id)),
            ),
            ("bob@Example.com".into(), Some(address("bob@example.com"))),
            (
                "<CAF+x@Mail.Gmail.com>".into(),
                Some(message_id("CAF+x@mail.gmail.com")),
            ),
            ("no-at-sign".into(), Some(message_id("no-at-sign"))),
            ("x".repeat(400), Some(Query::MessageId("x".repeat(250)))),
            ("  ".into(), None),
        ] {
            assert_eq!(Query::parse(&text), expected, "{text}");
        }
    }
}
