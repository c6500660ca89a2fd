//! Recording: events join the batch of what they tell of. Pruning: they are forgotten by message.

use crate::find::normal_message_id;
use crate::keys::{self, Kind};
use crate::{Error, Event, Journey};
use mail::{EmailAddress, QueueId, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use store::{Batch, CommitError, Key, KeyRange, Snapshot};

const VERSION: u8 = 1;

/// Events of one message that are read at most.
pub const EVENTS_READ_MAX: usize = 10_000;
/// Addresses under which one message is found at most; further ones are not indexed.
pub const INDEXED_ADDRESSES_MAX: usize = 1_000;
/// Rows that are removed in one commit.
const PRUNE_ROWS: usize = 1_000;

/// One event and its moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// The texts under which a message is found, kept so that they can be removed with it.
#[derive(Serialize, Deserialize, Default)]
struct Texts {
    #[serde(default)]
    message_id: Option<String>,
    #[serde(default)]
    addresses: Vec<String>,
}

impl Journey {
    /// Adds an event to a batch. Events of one moment keep the order in which they were recorded
    /// by this process.
    pub fn record(&self, batch: &mut Batch, id: QueueId, at: Timestamp, event: &Event) {
        let tiebreak = self.tiebreak.fetch_add(1, Ordering::Relaxed);
        match encode(event) {
            Ok(value) => batch.put(keys::event(id, at, tiebreak), value),
            // Cannot happen with these types; the mail is worth more than its record.
            Err(error) => tracing::error!(%id, %error, "an event cannot be written"),
        }
    }

    /// Adds to a batch by what a message can be found: its Message-ID (with or without brackets)
    /// and the addresses of its envelope, [`INDEXED_ADDRESSES_MAX`] at most. Call it once per
    /// message.
    pub fn index(
        &self,
        batch: &mut Batch,
        id: QueueId,
        message_id: Option<&str>,
        addresses: &[&EmailAddress],
    ) {
        let mut texts = Texts {
            message_id: message_id.map(normal_message_id).filter(|m| !m.is_empty()),
            addresses: addresses
                .iter()
                .take(INDEXED_ADDRESSES_MAX)
                .map(|a| a.folded())
                .collect(),
        };
        texts.addresses.sort_unstable();
        texts.addresses.dedup();
        for key in texts.keys(id) {
            batch.put(key, vec![VERSION]);
        }
        match encode(&texts) {
            Ok(value) => batch.put(keys::texts(id), value),
            Err(error) => tracing::error!(%id, %error, "an index cannot be written"),
        }
    }

    /// The events of a message in order, [`EVENTS_READ_MAX`] at most. Damaged ones are reported in
    /// the log and left out.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn events(&self, id: QueueId) -> Result<Vec<Record>, Error> {
        let snapshot = self.store.snapshot().await?;
        let range = keys::events_of(id).prefix_range();
        let rows = snapshot.scan(&range, EVENTS_READ_MAX).await?;
        let decoded = rows.iter().map(|(key, stored)| decode_record(key, &stored.value));
        Ok(decoded
            .filter_map(|r| {
                r.inspect_err(|error| tracing::error!(%error, "an event is left out"))
                    .ok()
            })
            .collect())
    }

    /// Forgets messages whose last event is before `before`; looks at `limit` messages at most,
    /// oldest first, from `after` on. Answers where to go on, or `None` at the end. Messages that
    /// still have newer events (a long stay in the queue) are passed over.
    ///
    /// # Errors
    /// What the store says.
    pub async fn prune(
        &self,
        before: Timestamp,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Option<QueueId>, Error> {
        let mut position = after;
        for _ in 0..limit {
            let snapshot = self.store.snapshot().await?;
            let Some(id) = next_message(snapshot.as_ref(), position, before).await? else {
                return Ok(None);
            };
            position = Some(id);
            if last_event(snapshot.as_ref(), id).await? < Some(before) {
                drop(snapshot);
                self.forget(id).await?;
            }
        }
        Ok(position)
    }

    /// Removes all that is known of a message.
    async fn forget(&self, id: QueueId) -> Result<(), Error> {
        loop {
            let snapshot = self.store.snapshot().await?;
            let rows = snapshot
                .scan(&keys::events_of(id).prefix_range(), PRUNE_ROWS)
                .await?;
            let key = keys::texts(id);
            let texts = snapshot.get(&key).await?;
            drop(snapshot);
            let mut batch = Batch::new();
            if let Some(stored) = texts {
                let texts: Texts = decode(&key, &stored.value)?;
                for found_as in texts.keys(id) {
                    batch.delete(found_as);
                }
                batch.delete(key);
            }
            let at_end = rows.len() < PRUNE_ROWS;
            for (key, _) in rows {
                batch.delete(key);
            }
            match self.store.commit(batch).await {
                Ok(_) if at_end => return Ok(()),
                Ok(_) | Err(CommitError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Texts {
    fn keys(&self, id: QueueId) -> impl Iterator<Item = Key> {
        let message_id = self
            .message_id
            .iter()
            .map(move |m| keys::found_as(Kind::MessageId, m, id));
        let addresses = self
            .addresses
            .iter()
            .map(move |a| keys::found_as(Kind::Address, a, id));
        message_id.chain(addresses)
    }
}

/// The first message behind `position` whose id is from before `before`.
async fn next_message(
    snapshot: &dyn Snapshot,
    position: Option<QueueId>,
    before: Timestamp,
) -> Result<Option<QueueId>, Error> {
    let range = KeyRange {
        start: match position {
            Some(id) => keys::events_of(id).prefix_range().end,
            None => keys::events(),
        },
        // Ids sort by time, and no event of a message is older than its id.
        end: keys::events_of(QueueId::from_parts(before.micros(), 0)),
    };
    let rows = snapshot.scan(&range, 1).await?;
    Ok(rows.first().and_then(|(key, _)| key.reader().u64()).map(QueueId))
}

async fn last_event(snapshot: &dyn Snapshot, id: QueueId) -> Result<Option<Timestamp>, Error> {
    let rows = snapshot.scan_back(&keys::events_of(id).prefix_range(), 1).await?;
    Ok(rows.first().and_then(|(key, _)| time_of(key)))
}

fn time_of(key: &Key) -> Option<Timestamp> {
    let mut parts = key.reader();
    let micros = parts.u64().and_then(|_| parts.u64())?;
    Some(Timestamp(i64::try_from(micros).unwrap_or(i64::MAX)))
}

fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = vec![VERSION];
    serde_json::to_writer(&mut out, record)?;
    Ok(out)
}

fn decode<T: serde::de::DeserializeOwned>(key: &Key, value: &[u8]) -> Result<T, Error> {
    let damaged = |what| Error::Damaged {
        key: key.clone(),
        what,
    };
    match value {
        [VERSION, json @ ..] => serde_json::from_slice(json).map_err(|e| damaged(e.to_string())),
        _ => Err(damaged("its version is unknown".to_owned())),
    }
}

fn decode_record(key: &Key, value: &[u8]) -> Result<Record, Error> {
    let at = time_of(key).ok_or_else(|| Error::Damaged {
        key: key.clone(),
        what: "the key holds no time".to_owned(),
    })?;
    Ok(Record {
        at,
        event: decode(key, value)?,
    })
}
