//! Recording: events join the batch of what they tell of.

use crate::keys::{self, Kind};
use crate::{Error, Event, Journey};
use mail::{EmailAddress, QueueId, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use store::{Batch, Key, Versioned};

/// Events of one message that are read at most.
pub const EVENTS_READ_MAX: usize = 10_000;

/// Addresses under which one message is found at most; further ones of its envelope are not indexed.
pub const INDEXED_ADDRESSES_MAX: usize = 1_000;

/// Octets of a text under which a message is found; what is longer is cut, on both sides alike.
const TEXT_OCTETS_MAX: usize = 400;
/// Operations in one batch while forgetting.
const PRUNE_OPS_MAX: usize = 5_000;
/// The version of a stored event: what follows is JSON.
const VERSION: u8 = 1;

/// One event and its moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

impl Journey {
    /// Adds an event to a batch.
    pub fn record(&self, batch: &mut Batch, id: QueueId, at: Timestamp, event: &Event) {
        let tiebreak = self.tiebreak.fetch_add(1, Ordering::Relaxed);
        let mut value = vec![VERSION];
        match serde_json::to_writer(&mut value, event) {
            Ok(()) => batch.put(keys::event(id, at, tiebreak), value),
            // An event is made of texts and numbers only, so this is a bug; the mail is worth more
            // than its record.
            Err(error) => tracing::error!(%id, %error, "an event cannot be written"),
        }
    }

    /// Adds to a batch by what a message can be found: its Message-ID (brackets do not matter) and
    /// the addresses of its envelope, the first [`INDEXED_ADDRESSES_MAX`]. Call it once per message.
    pub fn index(
        &self,
        batch: &mut Batch,
        id: QueueId,
        message_id: Option<&str>,
        addresses: &[&EmailAddress],
    ) {
        let message_id = message_id.map(|m| (Kind::MessageId as u8, message_id_text(m)));
        let addresses = addresses
            .iter()
            .take(INDEXED_ADDRESSES_MAX)
            .map(|a| (Kind::Address as u8, address_text(a)));
        let mut texts: Vec<(u8, String)> = message_id.into_iter().chain(addresses).collect();
        texts.retain(|(_, text)| !text.is_empty());
        texts.sort_unstable();
        texts.dedup();
        let mut value = vec![VERSION];
        if let Err(error) = serde_json::to_writer(&mut value, &texts) {
            tracing::error!(%id, %error, "an index cannot be written");
            return;
        }
        for (kind, text) in &texts {
            batch.put(keys::found_as(kind_of(*kind), text, id), Vec::new());
        }
        batch.put(keys::texts(id), value);
    }

    /// The events of a message in order, [`EVENTS_READ_MAX`] at most.
    ///
    /// # Errors
    /// When the store cannot be read. Damaged records are reported in the log and left out.
    pub async fn events(&self, id: QueueId) -> Result<Vec<Record>, Error> {
        let snapshot = self.store.snapshot().await?;
        let rows = snapshot
            .scan(&keys::events_of(id).prefix_range(), EVENTS_READ_MAX)
            .await?;
        Ok(rows
            .iter()
            .filter_map(|(key, value)| {
                decode(key, value)
                    .inspect_err(|error| tracing::error!(%error, "an event is left out"))
                    .ok()
            })
            .collect())
    }

    /// Forgets messages whose last event is before `before`, `limit` messages at most. Answers how
    /// many were forgotten; call again until it answers 0.
    ///
    /// # Errors
    /// What the store says.
    pub async fn prune(&self, before: Timestamp, limit: usize) -> Result<usize, Error> {
        let snapshot = self.store.snapshot().await?;
        let mut batch = Batch::new();
        let (mut forgotten, mut ops) = (0, 0);
        let mut rest = keys::events().prefix_range();
        while forgotten < limit {
            let Some(id) = snapshot
                .scan(&rest, 1)
                .await?
                .first()
                .and_then(|(key, _)| id_of(key))
            else {
                break;
            };
            // Ids sort by the time of their first event: behind this one all are younger.
            if id >= QueueId::from_parts(before.micros(), 0) {
                break;
            }
            let events = keys::events_of(id).prefix_range();
            let last = snapshot
                .scan_back(&events, 1)
                .await?
                .first()
                .and_then(|(key, _)| time_of(key));
            if last.is_none_or(|at| at < before) {
                let keys = self.keys_of(snapshot.as_ref(), id).await?;
                ops += keys.len();
                keys.into_iter().for_each(|key| batch.delete(key));
                forgotten += 1;
            }
            if ops >= PRUNE_OPS_MAX {
                self.store.commit(std::mem::take(&mut batch)).await?;
                ops = 0;
            }
            rest.start = events.end;
        }
        if !batch.is_empty() {
            self.store.commit(batch).await?;
        }
        Ok(forgotten)
    }

    /// Every key that belongs to a message.
    async fn keys_of(&self, snapshot: &dyn store::Snapshot, id: QueueId) -> Result<Vec<Key>, Error> {
        let texts_key = keys::texts(id);
        let mut found = Vec::new();
        if let Some(value) = snapshot.get(&texts_key).await? {
            let texts: Vec<(u8, String)> = decode_json(&texts_key, &value).unwrap_or_else(|error| {
                tracing::error!(%error, "what a message is found by stays behind");
                Vec::new()
            });
            for (kind, text) in texts {
                found.push(keys::found_as(kind_of(kind), &text, id));
            }
            found.push(texts_key);
        }
        let events = snapshot
            .scan(&keys::events_of(id).prefix_range(), EVENTS_READ_MAX)
            .await?;
        found.extend(events.into_iter().map(|(key, _)| key));
        Ok(found)
    }
}

fn kind_of(code: u8) -> Kind {
    if code == Kind::MessageId as u8 {
        Kind::MessageId
    } else {
        Kind::Address
    }
}

/// The form under which a Message-ID is found: without brackets, and case is ignored, because people
/// retype it.
pub(crate) fn message_id_text(id: &str) -> String {
    let id = id.trim();
    let id = id.strip_prefix('<').unwrap_or(id);
    let id = id.strip_suffix('>').unwrap_or(id);
    cut(id.to_lowercase())
}

/// The form under which an address is found.
pub(crate) fn address_text(address: &EmailAddress) -> String {
    cut(address.folded())
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_OCTETS_MAX));
    text
}

pub(crate) fn id_of(key: &Key) -> Option<QueueId> {
    key.reader().u64().map(QueueId)
}

fn time_of(key: &Key) -> Option<Timestamp> {
    let mut parts = key.reader();
    parts.u64()?;
    Some(Timestamp(i64::try_from(parts.u64()?).ok()?))
}

fn decode(key: &Key, value: &Versioned) -> Result<Record, Error> {
    let at = time_of(key).ok_or_else(|| Error::Damaged {
        key: key.clone(),
        what: "the key holds no time".to_owned(),
    })?;
    let event = decode_json(key, value)?;
    Ok(Record { at, event })
}

fn decode_json<T: serde::de::DeserializeOwned>(key: &Key, stored: &Versioned) -> Result<T, Error> {
    let damaged = |what| Error::Damaged {
        key: key.clone(),
        what,
    };
    match stored.value.strip_prefix(&[VERSION]) {
        Some(json) => serde_json::from_slice(json).map_err(|e| damaged(e.to_string())),
        None => Err(damaged("its version is unknown".to_owned())),
    }
}
