//! The keys of this crate's tables, 0x40 to 0x4f.
//!
//! | table | key | value |
//! |---|---|---|
//! | 0x40 | queue id, time, tiebreak | events that became true together, and the texts under which 0x41 has it |
//! | 0x41 | kind, text, queue id | found by: empty |

use mail::{QueueId, Timestamp};
use store::Key;

/// By what a message is found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    MessageId = 1,
    Address = 2,
}

pub(crate) fn events() -> Key {
    Key::table(0x40)
}

pub(crate) fn events_of(id: QueueId) -> Key {
    events().u64(id.0)
}

pub(crate) fn event(id: QueueId, at: Timestamp, tiebreak: u32) -> Key {
    events_of(id).u64(at.micros()).u32(tiebreak)
}

pub(crate) fn found_by(kind: Kind, text: &str) -> Key {
    Key::table(0x41).u8(kind as u8).text(text)
}

pub(crate) fn found_as(kind: Kind, text: &str, id: QueueId) -> Key {
    found_by(kind, text).u64(id.0)
}
