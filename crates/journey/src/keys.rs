//! The keys of this crate's tables, 0x40 to 0x4f.
//!
//! | table | key | value |
//! |---|---|---|
//! | 0x40 | queue id, time, tiebreak | events that became true together, and the addresses under which 0x41 has it |
//! | 0x41 | address, queue id | found by: empty |
//! | 0x42 | queue id | hash of the Message-ID, 8 octets |

use mail::{QueueId, Timestamp};
use store::Key;

pub(crate) fn events() -> Key {
    Key::table(0x40)
}

pub(crate) fn events_of(id: QueueId) -> Key {
    events().u64(id.0)
}

pub(crate) fn event(id: QueueId, at: Timestamp, tiebreak: u32) -> Key {
    events_of(id).u64(at.micros()).u32(tiebreak)
}

pub(crate) fn found_by(address: &str) -> Key {
    Key::table(0x41).text(address)
}

pub(crate) fn found_as(address: &str, id: QueueId) -> Key {
    found_by(address).u64(id.0)
}

pub(crate) fn message_ids() -> Key {
    Key::table(0x42)
}

pub(crate) fn message_id(id: QueueId) -> Key {
    message_ids().u64(id.0)
}
