//! The keys of this crate's tables, 0xa0 to 0xaf.
//!
//! | table | key | value |
//! |---|---|---|
//! | 0xa0 | day (days since 1970, UTC), policy domain | how conversations with the domain's servers fared with TLS that day |
//! | 0xa1 | domain of ours, day of arrival, number | a report that another server sent about it |

use crate::Day;
use store::{Key, KeyRange};

pub(crate) fn results() -> Key {
    Key::table(0xa0)
}

pub(crate) fn of_day(day: Day) -> Key {
    results().u32(day.0)
}

pub(crate) fn result(day: Day, domain: &str) -> Key {
    of_day(day).text(domain)
}

/// All days before this one.
pub(crate) fn before(day: Day) -> KeyRange {
    KeyRange {
        start: results(),
        end: of_day(day),
    }
}

/// Day and domain of a result's key.
pub(crate) fn parts(key: &Key) -> Option<(Day, String)> {
    let mut parts = key.reader();
    Some((Day(parts.u32()?), parts.text()?))
}

pub(crate) fn all_received() -> Key {
    Key::table(0xa1)
}

pub(crate) fn received_about(domain: &str) -> Key {
    all_received().text(domain)
}

pub(crate) fn received_on(domain: &str, day: Day) -> Key {
    received_about(domain).u32(day.0)
}

/// Domain, day of arrival and number of a received report's key.
pub(crate) fn received_parts(key: &Key) -> Option<(String, Day, u64)> {
    let mut parts = key.reader();
    Some((parts.text()?, Day(parts.u32()?), parts.u64()?))
}
