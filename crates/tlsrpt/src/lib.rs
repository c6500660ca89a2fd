//! SMTP TLS Reporting (RFC 8460): how conversations with other servers fared with TLS, counted by
//! day and domain; the reports that are made of it; and the reports that others make of us.
//!
//! Promises: counting an ordinary conversation is one addition in memory; what is kept of a day, of a
//! domain and of a stranger's report is bounded, and what was left out is counted; any octets that
//! come as a report are read in linear time and bounded memory.
//!
//! Never: a socket, a clock, a decision about TLS, a message on its way.

mod bounded;
mod collect;
mod error;
pub mod gzip;
mod keys;
pub mod message;
mod received;
pub mod record;
mod report;
mod result;
mod tally;
pub mod words;

pub use collect::{Collector, DOMAINS_PER_DAY_MAX, Outgoing, Row, forget_before, outgoing, take_out};
pub use error::Error;
pub use message::{Unreadable, read_message};
pub use received::{DAYS_KEPT, Kept, PER_DOMAIN_AND_DAY_MAX, add_received, forget_received, received};
pub use record::{RUA_LOCAL_PART, Record, Rua};
pub use report::{Detail, PolicyResults, Range, Report, Summary, UNPACKED_OCTETS_MAX};
pub use result::{Failure, Policy, PolicyType, ResultType, Session};
pub use tally::{DETAILS_MAX, DayResults, POLICIES_MAX};

use mail::Timestamp;

const DAY_SECS: i64 = 86_400;

/// A day of UTC, counted from 1970: the time that one report is about (RFC 8460 §4.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Day(pub u32);

impl Day {
    /// The day of a moment.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        Self(u32::try_from(at.secs().div_euclid(DAY_SECS)).unwrap_or(0))
    }

    /// Its first second.
    #[must_use]
    pub fn start(self) -> Timestamp {
        Timestamp::from_secs(i64::from(self.0) * DAY_SECS)
    }

    /// The first second behind it.
    #[must_use]
    pub fn end(self) -> Timestamp {
        Timestamp::from_secs((i64::from(self.0) + 1) * DAY_SECS)
    }

    /// `2026-11-23`.
    #[must_use]
    pub fn date(self) -> String {
        let mut text = mail::date::iso8601(self.start());
        text.truncate(10);
        text
    }
}

/// Octets of a text from outside at most that are kept; the rest is cut off.
pub(crate) const TEXT_OCTETS_MAX: usize = 500;

/// A text from outside, fit to be kept and shown: one line, bounded.
pub(crate) fn clean(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_OCTETS_MAX);
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text[..end].chars().map(shown).collect()
}

/// FNV-1a: a number that stays the same across restarts and machines.
pub(crate) fn number_of(parts: &[&str]) -> u64 {
    let octets = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    octets.fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The longest that a report waits behind the end of its day (RFC 8460 §4.1: a random delay, so that
/// not all servers of the world report at midnight).
pub const DELAY_SECS_MAX: u64 = 4 * 3_600;
/// The shortest: what was in memory at midnight is written down by then.
const DELAY_SECS_MIN: u64 = 60;

/// When the report of a day to a domain is due: some time in the four hours behind the day, the same
/// one whenever it is asked. `seed` is our own name, so that servers differ.
#[must_use]
pub fn due(day: Day, domain: &str, seed: &str) -> Timestamp {
    let span = DELAY_SECS_MAX - DELAY_SECS_MIN;
    let hash = number_of(&[seed, domain, &day.0.to_string()]);
    // The low bits of FNV-1a differ least between similar texts.
    let delay = DELAY_SECS_MIN + (hash >> 16) % span;
    day.end().plus(std::time::Duration::from_secs(delay))
}

/// Reads arbitrary octets as everything that comes from strangers: the record, the file, the message.
/// For the fuzzer, and with random octets for a test.
pub fn fuzz(data: &[u8]) {
    if let Some(record) = Record::parse(data) {
        let again = Record::parse(record.to_string().as_bytes());
        assert_eq!(again, Some(record));
    }
    let _ = gzip::unpack(data, 64 * 1024);
    let mut packed = gzip::pack(data);
    assert!(gzip::unpack(&packed, data.len()).is_ok_and(|octets| octets == data));
    packed.truncate(10);
    packed.extend_from_slice(data);
    let _ = gzip::unpack(&packed, 64 * 1024);
    if let Ok(report) = message::read_octets(data) {
        assert!(Report::parse(&report.to_json()).is_ok_and(|again| again == report));
        let _ = words::tell(&report);
    }
    let _ = read_message(data);
    let _ = read_message(&[&b"TLS-Report-Domain: x\r\n"[..], data].concat());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_day_is_one_of_utc() {
        let last = mail::date::parse_rfc3339("2026-11-23T23:59:59Z").unwrap();
        let day = Day::of(last);
        assert_eq!(day.date(), "2026-11-23");
        assert_eq!(Day::of(last.plus(Duration::from_secs(1))), Day(day.0 + 1));
        assert_eq!(day.end(), Day(day.0 + 1).start());
        assert_eq!(Day::of(Timestamp(-1)), Day(0));
    }

    #[test]
    fn reports_are_spread_over_four_hours() {
        let day = Day(20_780);
        let domains: Vec<String> = (0..400).map(|n| format!("d{n}.example")).collect();
        let mut hours = [0; 4];
        for domain in &domains {
            let at = due(day, domain, "mail.example.com");
            assert_eq!(at, due(day, domain, "mail.example.com"));
            let waits = at.since(day.end()).as_secs();
            assert!((DELAY_SECS_MIN..DELAY_SECS_MAX).contains(&waits), "{waits}");
            hours[(waits / 3_600) as usize] += 1;
        }
        assert!(hours.iter().all(|n| (50..150).contains(n)), "{hours:?}");
    }

    #[test]
    fn the_fuzzer_finds_nothing_in_what_is_good() {
        fuzz(include_bytes!("../tests/data/rfc8460-appendix-b.json"));
        fuzz(b"v=TLSRPTv1; rua=mailto:a%21b@b.example");
    }

    #[test]
    fn texts_are_cut_and_made_one_line() {
        assert_eq!(clean("a\r\nb\u{1b}[1m"), "a  b [1m");
        assert_eq!(clean(&"é".repeat(TEXT_OCTETS_MAX)).len(), TEXT_OCTETS_MAX);
    }
}
