//! The keys of this crate's tables, 0xb0 to 0xbf.
//!
//! | table | key | value |
//! |---|---|---|
//! | 0xb0 | endpoint, time, queue id, tiebreak | an event that the endpoint is still to hear of |
//! | 0xb1 | which (1 told, 2 thrown away), endpoint | counter of events |

use mail::{QueueId, Timestamp};
use store::{Key, Topic};

pub(crate) fn outbox() -> Key {
    Key::table(0xb0)
}

pub(crate) fn outbox_of(endpoint: &str) -> Key {
    outbox().text(endpoint)
}

pub(crate) fn event(endpoint: &str, at: Timestamp, id: QueueId, tiebreak: u32) -> Key {
    outbox_of(endpoint).u64(at.micros()).u64(id.0).u32(tiebreak)
}

/// First key of events from a time on.
pub(crate) fn events_from(endpoint: &str, at: Timestamp) -> Key {
    outbox_of(endpoint).u64(at.micros())
}

pub(crate) fn told(endpoint: &str) -> Key {
    Key::table(0xb1).u8(1).text(endpoint)
}

pub(crate) fn thrown_away(endpoint: &str) -> Key {
    Key::table(0xb1).u8(2).text(endpoint)
}

pub(crate) fn topic(endpoint: &str) -> Topic {
    Topic([&[0xb0], endpoint.as_bytes()].concat())
}
