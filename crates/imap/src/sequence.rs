//! Message numbers and sets of them (RFC 3501 §9 `sequence-set`).
//!
//! A sequence number and a UID are two types, so that neither can stand in for the other.

use mail::Uid;
use std::fmt;
use std::marker::PhantomData;

/// Ranges in one set at most; a longer set is refused.
pub const SET_RANGES_MAX: usize = 20_000;

/// The place of a message in the session's view of its mailbox, from 1 (RFC 3501 §2.3.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SeqNum(pub u32);

impl fmt::Display for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number that a set can hold.
pub trait Number: Copy {
    /// From a number that is not 0.
    fn from_u32(n: u32) -> Self;
    /// The number.
    fn to_u32(self) -> u32;
}

impl Number for SeqNum {
    fn from_u32(n: u32) -> Self {
        Self(n)
    }
    fn to_u32(self) -> u32 {
        self.0
    }
}

impl Number for Uid {
    fn from_u32(n: u32) -> Self {
        Self(n)
    }
    fn to_u32(self) -> u32 {
        self.0
    }
}

/// A set of numbers as the client wrote it; `*` stands for the largest in use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SequenceSet<N> {
    /// Pairs of bounds in any order; 0 stands for `*`.
    ranges: Vec<(u32, u32)>,
    of: PhantomData<N>,
}

impl<N: Number> SequenceSet<N> {
    /// Reads `1,3:5,7:*`. `None` when it is not a set, holds 0, or is longer than
    /// [`SET_RANGES_MAX`].
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut ranges = Vec::new();
        for piece in text.split(|b| *b == b',') {
            if ranges.len() >= SET_RANGES_MAX {
                return None;
            }
            let mut bounds = piece.splitn(2, |b| *b == b':');
            let first = bound(bounds.next()?)?;
            let last = match bounds.next() {
                Some(b) => bound(b)?,
                None => first,
            };
            ranges.push((first, last));
        }
        Some(Self {
            ranges,
            of: PhantomData,
        })
    }

    /// The set as ascending ranges that do not touch, with `*` put at `largest`.
    #[must_use]
    pub fn resolve(&self, largest: u32) -> Vec<(u32, u32)> {
        let at = |n: u32| if n == 0 { largest } else { n };
        let mut ranges: Vec<(u32, u32)> = self
            .ranges
            .iter()
            .map(|(a, b)| (at(*a).min(at(*b)), at(*a).max(at(*b))))
            .collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(previous) if first <= previous.1.saturating_add(1) => {
                    previous.1 = previous.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        merged
    }

    /// Whether `*` occurs.
    #[must_use]
    pub fn has_star(&self) -> bool {
        self.ranges.iter().any(|(a, b)| *a == 0 || *b == 0)
    }
}

fn bound(text: &[u8]) -> Option<u32> {
    if text == b"*" {
        return Some(0);
    }
    if text.is_empty() || text.len() > 10 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n: u32 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (n != 0).then_some(n)
}

/// Which messages a command is about: by sequence number, or by UID in its UID form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MessageSet {
    /// Sequence numbers.
    Seq(SequenceSet<SeqNum>),
    /// Unique identifiers.
    Uid(SequenceSet<Uid>),
}

impl MessageSet {
    /// Whether the command had the UID form.
    #[must_use]
    pub fn is_uid(&self) -> bool {
        matches!(self, MessageSet::Uid(_))
    }
}

/// Ascending numbers written as a set: `1:3,7`.
pub fn write_set<N: Number>(out: &mut Vec<u8>, numbers: &[N]) {
    let mut i = 0;
    while i < numbers.len() {
        let first = numbers[i].to_u32();
        let mut last = first;
        while let Some(next) = numbers.get(i + 1).map(|n| n.to_u32())
            && last.checked_add(1) == Some(next)
        {
            last = next;
            i += 1;
        }
        i += 1;
        if out.last().is_some_and(u8::is_ascii_digit) {
            out.push(b',');
        }
        out.extend_from_slice(first.to_string().as_bytes());
        if last != first {
            out.push(b':');
            out.extend_from_slice(last.to_string().as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sets() {
        let resolved = |t: &str, n| SequenceSet::<Uid>::parse(t.as_bytes()).map(|s| s.resolve(n));
        assert_eq!(resolved("1,3:5,4:7", 9), Some(vec![(1, 1), (3, 7)]));
        assert_eq!(resolved("*", 9), Some(vec![(9, 9)]));
        assert_eq!(
            resolved("12:*", 9),
            Some(vec![(9, 12)]),
            "RFC 3501 §6.4.8: always holds the last"
        );
        assert_eq!(resolved("5:2,1", 9), Some(vec![(1, 5)]));
        for bad in [
            "",
            "0",
            "1,",
            ",1",
            "1:",
            ":",
            "a",
            "-1",
            "1:2:3",
            "4294967296",
            "**",
        ] {
            assert_eq!(resolved(bad, 9), None, "{bad}");
        }
        assert!(SequenceSet::<Uid>::parse("1,".repeat(SET_RANGES_MAX).as_bytes()).is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(numbers in proptest::collection::btree_set(1u32..300, 1..80)) {
            let numbers: Vec<Uid> = numbers.into_iter().map(Uid).collect();
            let mut text = Vec::new();
            write_set(&mut text, &numbers);
            let ranges = SequenceSet::<Uid>::parse(&text).unwrap().resolve(1);
            let back: Vec<Uid> = ranges.into_iter().flat_map(|(a, b)| a..=b).map(Uid).collect();
            prop_assert_eq!(back, numbers);
        }

        #[test]
        fn any_set_resolves_to_ascending_ranges(text in "[0-9*,:]{0,40}", largest in 1u32..) {
            if let Some(set) = SequenceSet::<SeqNum>::parse(text.as_bytes()) {
                let ranges = set.resolve(largest);
                prop_assert!(ranges.iter().all(|(a, b)| a <= b && *a > 0));
                prop_assert!(ranges.windows(2).all(|w| w[0].1 < w[1].0));
            }
        }
    }
}
