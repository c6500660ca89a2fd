//! The keys of this crate's tables, 0x30 to 0x3f.
//!
//! | table | key | value |
//! |---|---|---|
//! | 0x30 | queue id | message; refers to its blob |
//! | 0x31 | queue id, errand no | errand |
//! | 0x32 | due time, queue id, errand no | 1, recipient's domain; or 2, priority, recipient's domain; or 3, priority, sender's number (4), recipient's domain |
//! | 0x33 | queue id, errand no | lease: epoch, version byte, end |
//! | 0x34 | queue id | counter: minus the number of open errands, where there were several |
//! | 0x35 | which | counters: queued messages, open errands, held errands |
//! | 0x36 | which, for drops: by whom | the ledger: counters of errands accepted and ended, for ever; 0: when it began |
//! | 0x37 | what (1 destination, 2 sender), its name | suspension: since, until, by whom, why |

use mail::{QueueId, Timestamp};
use store::Key;

pub(crate) fn messages() -> Key {
    Key::table(0x30)
}

pub(crate) fn message(id: QueueId) -> Key {
    messages().u64(id.0)
}

pub(crate) fn errands() -> Key {
    Key::table(0x31)
}

pub(crate) fn errands_of(id: QueueId) -> Key {
    errands().u64(id.0)
}

pub(crate) fn errand(id: QueueId, no: u32) -> Key {
    errands_of(id).u32(no)
}

pub(crate) fn due_all() -> Key {
    Key::table(0x32)
}

pub(crate) fn due(at: Timestamp, id: QueueId, no: u32) -> Key {
    due_all().u64(at.micros()).u64(id.0).u32(no)
}

/// First key behind everything due at `now` or before.
pub(crate) fn due_after(now: Timestamp) -> Key {
    due_all().u64(now.micros().saturating_add(1))
}

pub(crate) fn leases() -> Key {
    Key::table(0x33)
}

pub(crate) fn lease_of(id: QueueId) -> Key {
    leases().u64(id.0)
}

pub(crate) fn lease(id: QueueId, no: u32) -> Key {
    lease_of(id).u32(no)
}

/// Counts from minus the number of errands up to 0, so that "another errand is still open" can be
/// said as a precondition: `AtMost(-1)`. A message with one errand has none: one row less to write and to
/// remove, and 0 says the same as -1, since a queued message has an open errand.
pub(crate) fn open(id: QueueId) -> Key {
    open_all().u64(id.0)
}

pub(crate) fn messages_queued() -> Key {
    Key::table(0x35).u8(1)
}

pub(crate) fn errands_open() -> Key {
    Key::table(0x35).u8(2)
}

/// Of the open errands, those that the operator holds.
pub(crate) fn errands_held() -> Key {
    Key::table(0x35).u8(3)
}

pub(crate) fn ledger() -> Key {
    Key::table(0x36)
}

pub(crate) fn ledger_of(which: u8) -> Key {
    ledger().u8(which)
}

pub(crate) fn open_all() -> Key {
    Key::table(0x34)
}

pub(crate) fn suspensions() -> Key {
    Key::table(0x37)
}

pub(crate) fn suspension(what: u8, name: &str) -> Key {
    suspensions().u8(what).text(name)
}
