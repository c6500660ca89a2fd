//! Recording: events join the batch of what they tell of.
//!
//! Events of one message that one batch makes true share one row of lines of JSON, each
//! `[time, tiebreak, event]` or `{"found_as": [address, …]}`; `packed` has the octets. One row
//! instead of one an event is a good part of what accepting a message costs.
//!
//! A Message-ID is found by its hash in a table that is in the order of time: an index in the order
//! of Message-IDs would write a page for each message. See docs/decisions/0009.

use crate::keys;
use crate::packed;
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
/// Octets after which a row takes no further event, so that a message to thousands stays readable
/// row by row.
const ROW_OCTETS_MAX: usize = 64 * 1024;

/// One event and its moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// A line of a row.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Event(Timestamp, u32, Box<Event>),
    FoundAs { found_as: Vec<String> },
}

impl Journey {
    /// Adds an event to a batch.
    pub fn record(&self, batch: &mut Batch, id: QueueId, at: Timestamp, event: &Event) {
        let tiebreak = self.tiebreak.fetch_add(1, Ordering::Relaxed);
        let line = serde_json::to_vec(&(at, tiebreak, event));
        add_line(batch, id, (at, tiebreak), line);
        if let Some(also) = &self.also {
            also.recorded(batch, id, at, tiebreak, event);
        }
    }

    /// How a message came in, from the first row of its journey; `None` when that is not known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn birth(&self, id: QueueId) -> Result<Option<Event>, Error> {
        let snapshot = self.store.snapshot().await?;
        let rows = snapshot.scan(&keys::events_of(id).prefix_range(), 1).await?;
        let mut events = rows.iter().flat_map(|(_, stored)| events_in(stored).0);
        Ok(events.find(|event| matches!(event, Event::Received { .. })))
    }

    /// Adds to a batch by what a message can be found: its Message-ID (brackets do not matter) and
    /// the addresses of its envelope, the first [`INDEXED_ADDRESSES_MAX`]. Call it once per message,
    /// together with the first event, whose time `at` is.
    pub fn index(
        &self,
        batch: &mut Batch,
        id: QueueId,
        at: Timestamp,
        message_id: Option<&str>,
        addresses: &[&EmailAddress],
    ) {
        if let Some(text) = message_id.map(message_id_text).filter(|text| !text.is_empty()) {
            let hash = text_hash(&text).to_be_bytes();
            batch.put_fresh(keys::message_id(id), hash.to_vec());
        }
        let addresses = addresses.iter().take(INDEXED_ADDRESSES_MAX);
        let mut texts: Vec<String> = addresses.map(|a| address_text(a)).collect();
        texts.retain(|text| !text.is_empty());
        texts.sort_unstable();
        texts.dedup();
        if texts.is_empty() {
            return;
        }
        let tiebreak = self.tiebreak.fetch_add(1, Ordering::Relaxed);
        for text in &texts {
            batch.put_fresh(keys::found_as(text, id), Vec::new());
        }
        let line = serde_json::to_vec(&FoundAs { found_as: &texts });
        add_line(batch, id, (at, tiebreak), line);
    }

    /// Makes the rows of a batch shorter. Call it when all that is to be recorded is in the batch,
    /// where it pays: on the way of every message.
    pub fn pack(&self, batch: &mut Batch) {
        let table = keys::events();
        let rows = batch
            .puts()
            .filter(|(key, _)| key.as_bytes().starts_with(table.as_bytes()));
        rows.for_each(|(_, value)| packed::pack(value));
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
        let mut events: Vec<(Timestamp, u32, Event)> = Vec::new();
        for (key, stored) in &rows {
            events.extend(lines(key, stored).filter_map(|line| match line {
                Line::Event(at, tiebreak, event) => Some((at, tiebreak, *event)),
                Line::FoundAs { .. } => None,
            }));
        }
        events.sort_by_key(|(at, tiebreak, _)| (*at, *tiebreak));
        events.truncate(EVENTS_READ_MAX);
        Ok(events
            .into_iter()
            .map(|(at, _, event)| Record { at, event })
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
                .and_then(|(key, stored)| last_time(key, stored));
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
        let events = snapshot
            .scan(&keys::events_of(id).prefix_range(), EVENTS_READ_MAX)
            .await?;
        let mut found = vec![keys::message_id(id)];
        for (key, stored) in events {
            for line in lines(&key, &stored) {
                if let Line::FoundAs { found_as } = line {
                    found.extend(found_as.iter().map(|text| keys::found_as(text, id)));
                }
            }
            found.push(key);
        }
        Ok(found)
    }
}

#[derive(Serialize)]
struct FoundAs<'a> {
    found_as: &'a [String],
}

/// Adds a line to the row of its message in the batch, or begins one.
fn add_line(batch: &mut Batch, id: QueueId, at: (Timestamp, u32), line: serde_json::Result<Vec<u8>>) {
    let line = match line {
        Ok(line) => line,
        // An event is made of texts and numbers only, so this is a bug; the mail is worth more than
        // its record.
        Err(error) => return tracing::error!(%id, %error, "an event cannot be written"),
    };
    let row = keys::events_of(id);
    let is_row = |key: &Key| key.as_bytes().starts_with(row.as_bytes());
    if let Some(value) = batch.recent_put(is_row)
        && value.len() < ROW_OCTETS_MAX
    {
        value.push(b'\n');
        return value.extend_from_slice(&line);
    }
    let mut value = Vec::with_capacity(1 + line.len());
    value.push(packed::PLAIN);
    value.extend_from_slice(&line);
    batch.put_fresh(keys::event(id, at.0, at.1), value);
}

/// FNV-1a, 64 bits. Whoever makes two Message-IDs meet gains nothing: what is found is compared.
pub(crate) fn text_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3)
    })
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

/// When the last event of a row was.
fn last_time(key: &Key, stored: &Versioned) -> Option<Timestamp> {
    let times = lines(key, stored).filter_map(|line| match line {
        Line::Event(at, ..) => Some(at),
        Line::FoundAs { .. } => None,
    });
    times.max().or_else(|| time_of(key))
}

/// The lines of a row. Damaged ones are told in the log and left out.
fn lines(key: &Key, stored: &Versioned) -> impl Iterator<Item = Line> + use<> {
    let (lines, damaged) = parsed(stored);
    if damaged {
        tracing::error!(?key, "a part of a journey can't be read and is left out");
    }
    lines.into_iter()
}

/// The lines of a row that can be read, and whether some can't.
fn parsed(stored: &Versioned) -> (Vec<Line>, bool) {
    let Some(text) = packed::lines(&stored.value) else {
        return (Vec::new(), true);
    };
    let all = text.split(|octet| *octet == b'\n');
    let mut damaged = false;
    let read = all.filter_map(|line| {
        let line = serde_json::from_slice(line).ok();
        damaged |= line.is_none();
        line
    });
    (read.collect(), damaged)
}

/// The events of a row, and whether some of it can't be read.
pub(crate) fn events_in(stored: &Versioned) -> (Vec<Event>, bool) {
    let (lines, damaged) = parsed(stored);
    let events = lines.into_iter().filter_map(|line| match line {
        Line::Event(_, _, event) => Some(*event),
        Line::FoundAs { .. } => None,
    });
    (events.collect(), damaged)
}
