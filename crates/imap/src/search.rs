//! SEARCH: the keys as a tree, and whether a message matches (RFC 3501 §6.4.4).
//!
//! Evaluation is a pure function over a view of one message. The view may not know everything yet
//! (reading a message costs); then the answer may be "not known", and the caller loads more.

use crate::flag::Flag;
use crate::sequence::{MessageSet, SeqNum};
use mail::{Timestamp, Uid};

/// A day, counted from 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Date(pub i64);

impl Date {
    /// Reads `1-Feb-1994` (RFC 3501 §9 `date-text`).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let date = civil_date(
            parts.next()?,
            parts.next()?,
            parts.next().filter(|y| y.len() == 4)?,
        );
        date.filter(|_| parts.next().is_none())
    }

    /// The day in UTC of a point in time.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        Self(at.secs().div_euclid(86_400))
    }

    /// The day that a Date field names, without regard to its time and zone, as SENTON wants it.
    #[must_use]
    pub fn of_header(value: &str) -> Option<Self> {
        let text = value.split_once(',').map_or(value, |(_, rest)| rest);
        let mut words = text.split_ascii_whitespace();
        let (day, month, year) = (words.next()?, words.next()?, words.next()?);
        match year.len() {
            4 => civil_date(day, month, year),
            _ => mail::date::parse_rfc5322(value).map(Self::of),
        }
    }
}

fn civil_date(day: &str, month: &str, year: &str) -> Option<Date> {
    let day: u8 = day.parse().ok().filter(|d| (1..=31).contains(d))?;
    let month = mail::date::month_number(month)?;
    let year: i64 = year.parse().ok()?;
    Some(Date(mail::date::days_from_civil(year, month, day)))
}

/// A text that is sought, in any case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Needle(String);

impl Needle {
    /// A text to seek.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_lowercase())
    }

    /// Whether it occurs in a text that is in lower case already (`str::to_lowercase`).
    #[must_use]
    pub fn is_in_lowercase(&self, text: &str) -> bool {
        memchr::memmem::find(text.as_bytes(), self.0.as_bytes()).is_some()
    }
}

/// What is sought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SearchKey {
    /// Every message.
    All,
    /// All of these.
    And(Vec<SearchKey>),
    /// One or both.
    Or(Box<SearchKey>, Box<SearchKey>),
    /// Not this.
    Not(Box<SearchKey>),
    /// Messages of a set, as the client wrote it.
    Set(MessageSet),
    /// Messages whose sequence number lies in one of these ascending ranges.
    SeqIn(Vec<(u32, u32)>),
    /// Messages whose UID lies in one of these ascending ranges.
    UidIn(Vec<(u32, u32)>),
    /// A flag or keyword is set.
    Flag(Flag),
    /// The session was the first to see the message.
    Recent,
    /// A header field of this name holds the text; an empty text matches any such field.
    Header(String, Needle),
    /// The text of the body.
    Body(Needle),
    /// The text of header or body.
    Text(Needle),
    /// More octets than this.
    Larger(u32),
    /// Fewer octets than this.
    Smaller(u32),
    /// Internal date before this day.
    Before(Date),
    /// Internal date on this day.
    On(Date),
    /// Internal date on or after this day.
    Since(Date),
    /// Date field before this day.
    SentBefore(Date),
    /// Date field on this day.
    SentOn(Date),
    /// Date field on or after this day.
    SentSince(Date),
}

/// One message as SEARCH sees it. What needs the message's bytes may be unknown: `None`.
pub trait MessageView {
    /// Its sequence number.
    fn seq(&self) -> SeqNum;
    /// Its UID.
    fn uid(&self) -> Uid;
    /// The largest sequence number and the largest UID of the mailbox.
    fn largest(&self) -> (SeqNum, Uid);
    /// Whether it has this flag (see [`Flag::same`]).
    fn has_flag(&self, flag: &Flag) -> bool;
    /// Whether this session was the first to see it.
    fn is_recent(&self) -> bool;
    /// Its length in octets.
    fn octets(&self) -> u64;
    /// When it came.
    fn internal_date(&self) -> Timestamp;
    /// The day its Date field names; the inner `None` when it has none that can be read.
    fn sent_date(&self) -> Option<Option<Date>>;
    /// Whether a field of this name holds the text, encoded-words decoded.
    fn header_has(&self, name: &str, needle: &Needle) -> Option<bool>;
    /// Whether the decoded text of the body holds the text.
    fn body_has(&self, needle: &Needle) -> Option<bool>;
    /// Whether the decoded text of header or body holds the text.
    fn text_has(&self, needle: &Needle) -> Option<bool>;
}

impl SearchKey {
    /// Whether the message matches; `None` when more must be known of it. Once the view knows the
    /// message, the answer is never `None`.
    #[must_use]
    pub fn matches(&self, m: &dyn MessageView) -> Option<bool> {
        Some(match self {
            SearchKey::All => true,
            SearchKey::And(keys) => return all(keys.iter().map(|k| k.matches(m))),
            SearchKey::Or(a, b) => return any(a.matches(m), || b.matches(m)),
            SearchKey::Not(key) => return key.matches(m).map(|yes| !yes),
            SearchKey::Set(set) => {
                let (seq, uid) = m.largest();
                match set {
                    MessageSet::Seq(s) => contains(&s.resolve(seq.0), m.seq().0),
                    MessageSet::Uid(s) => contains(&s.resolve(uid.0), m.uid().0),
                }
            }
            SearchKey::SeqIn(ranges) => contains(ranges, m.seq().0),
            SearchKey::UidIn(ranges) => contains(ranges, m.uid().0),
            SearchKey::Flag(flag) => m.has_flag(flag),
            SearchKey::Recent => m.is_recent(),
            SearchKey::Header(name, needle) => return m.header_has(name, needle),
            SearchKey::Body(needle) => return m.body_has(needle),
            SearchKey::Text(needle) => return m.text_has(needle),
            SearchKey::Larger(n) => m.octets() > u64::from(*n),
            SearchKey::Smaller(n) => m.octets() < u64::from(*n),
            SearchKey::Before(day) => Date::of(m.internal_date()) < *day,
            SearchKey::On(day) => Date::of(m.internal_date()) == *day,
            SearchKey::Since(day) => Date::of(m.internal_date()) >= *day,
            SearchKey::SentBefore(day) => return m.sent_date().map(|d| d.is_some_and(|d| d < *day)),
            SearchKey::SentOn(day) => return m.sent_date().map(|d| d == Some(*day)),
            SearchKey::SentSince(day) => return m.sent_date().map(|d| d.is_some_and(|d| d >= *day)),
        })
    }

    /// Whether the text of bodies can decide, and not just what is known and the header.
    #[must_use]
    pub fn needs_body(&self) -> bool {
        match self {
            SearchKey::And(keys) => keys.iter().any(SearchKey::needs_body),
            SearchKey::Or(a, b) => a.needs_body() || b.needs_body(),
            SearchKey::Not(key) => key.needs_body(),
            SearchKey::Body(_) | SearchKey::Text(_) => true,
            _ => false,
        }
    }

    /// Puts every set of numbers into ascending ranges once, with `*` as it is now, so that a
    /// search of a large mailbox does not do it for each message.
    #[must_use]
    pub fn prepared(self, largest: (SeqNum, Uid)) -> Self {
        match self {
            SearchKey::And(keys) => SearchKey::And(keys.into_iter().map(|k| k.prepared(largest)).collect()),
            SearchKey::Or(a, b) => {
                SearchKey::Or(Box::new(a.prepared(largest)), Box::new(b.prepared(largest)))
            }
            SearchKey::Not(key) => SearchKey::Not(Box::new(key.prepared(largest))),
            SearchKey::Set(MessageSet::Seq(set)) => SearchKey::SeqIn(set.resolve(largest.0.0)),
            SearchKey::Set(MessageSet::Uid(set)) => SearchKey::UidIn(set.resolve(largest.1.0)),
            other => other,
        }
    }
}

fn contains(ranges: &[(u32, u32)], n: u32) -> bool {
    let i = ranges.partition_point(|(_, last)| *last < n);
    ranges.get(i).is_some_and(|(first, _)| *first <= n)
}

/// One certain "no" decides; otherwise one unknown leaves it open.
fn all(answers: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut known = Some(true);
    for answer in answers {
        match answer {
            Some(false) => return Some(false),
            Some(true) => {}
            None => known = None,
        }
    }
    known
}

fn any(a: Option<bool>, b: impl FnOnce() -> Option<bool>) -> Option<bool> {
    match (a, if a == Some(true) { Some(true) } else { b() }) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}
