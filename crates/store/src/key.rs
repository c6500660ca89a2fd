//! Keys: typed, order-preserving byte strings. The first byte names the table.
//!
//! Numbers are big-endian, texts end with 0x00 0x00 (a 0x00 inside becomes 0x00 0x01), so that
//! comparing bytes compares the parts in order.

use std::fmt;

/// Octets of a key at most.
pub const KEY_OCTETS_MAX: usize = 1024;

/// A key of a table.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Vec<u8>);

impl Key {
    /// The first part: which table. Each domain crate owns its table numbers (docs/STORE-FORMAT.md).
    #[must_use]
    pub fn table(table: u8) -> Self {
        Self(vec![table])
    }

    /// Appends a byte.
    #[must_use]
    pub fn u8(mut self, n: u8) -> Self {
        self.0.push(n);
        self
    }

    /// Appends a 32-bit number.
    #[must_use]
    pub fn u32(mut self, n: u32) -> Self {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }

    /// Appends a 64-bit number.
    #[must_use]
    pub fn u64(mut self, n: u64) -> Self {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }

    /// Appends a text, terminated so that no text is a prefix of another.
    #[must_use]
    pub fn text(mut self, s: &str) -> Self {
        for b in s.bytes() {
            self.0.push(b);
            if b == 0 {
                self.0.push(1);
            }
        }
        self.0.extend_from_slice(&[0, 0]);
        self
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A key from bytes that an engine stored.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Length in octets: the offset at which the next part will stand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing, not even the table, was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every key that begins with this one.
    #[must_use]
    pub fn prefix_range(&self) -> KeyRange {
        let mut end = self.0.clone();
        while let Some(last) = end.pop() {
            if last != 0xff {
                end.push(last + 1);
                break;
            }
        }
        KeyRange {
            start: self.clone(),
            end: Key(end),
        }
    }

    /// Takes the parts apart again, from behind the table byte.
    #[must_use]
    pub fn reader(&self) -> KeyReader<'_> {
        KeyReader {
            rest: self.0.get(1..).unwrap_or(&[]),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}

/// Keys from `start` (inclusive) to `end` (exclusive; empty means no end).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRange {
    /// First key that belongs to the range.
    pub start: Key,
    /// First key behind it; the empty key means that there is no end.
    pub end: Key,
}

impl KeyRange {
    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        *key >= self.start && (self.end.is_empty() || *key < self.end)
    }

    /// The part of this range behind `key`: where a scan goes on.
    #[must_use]
    pub fn after(&self, key: &Key) -> KeyRange {
        let mut next = key.0.clone();
        next.push(0);
        KeyRange {
            start: Key(next).max(self.start.clone()),
            end: self.end.clone(),
        }
    }

    /// The part of this range before `key`: where a backward scan goes on.
    #[must_use]
    pub fn before(&self, key: &Key) -> KeyRange {
        let end = if self.end.is_empty() || *key < self.end {
            key.clone()
        } else {
            self.end.clone()
        };
        KeyRange {
            start: self.start.clone(),
            end,
        }
    }
}

/// Reads the parts of a key in the order in which they were appended. `None` when they don't fit.
#[derive(Clone, Debug)]
pub struct KeyReader<'a> {
    rest: &'a [u8],
}

impl KeyReader<'_> {
    /// The next byte.
    pub fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// The next 32-bit number.
    pub fn u32(&mut self) -> Option<u32> {
        let (first, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        Some(u32::from_be_bytes(*first))
    }

    /// The next 64-bit number.
    pub fn u64(&mut self) -> Option<u64> {
        let (first, rest) = self.rest.split_first_chunk::<8>()?;
        self.rest = rest;
        Some(u64::from_be_bytes(*first))
    }

    /// The next text.
    pub fn text(&mut self) -> Option<String> {
        let mut out = Vec::new();
        let mut i = 0;
        loop {
            match self.rest.get(i..)? {
                [0, 0, ..] => break,
                [0, 1, ..] => {
                    out.push(0);
                    i += 2;
                }
                [b, ..] => {
                    out.push(*b);
                    i += 1;
                }
                [] => return None,
            }
        }
        self.rest = &self.rest[i + 2..];
        String::from_utf8(out).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn texts_keep_their_order(a in any::<String>(), b in any::<String>()) {
            let (ka, kb) = (Key::table(1).text(&a).u64(9), Key::table(1).text(&b).u64(1));
            prop_assert_eq!(a.cmp(&b).then(9.cmp(&1)), ka.cmp(&kb));
            prop_assert_eq!(ka.reader().text(), Some(a));
        }

        #[test]
        fn prefix_ranges_hold_what_begins_with_them(p in proptest::collection::vec(any::<u8>(), 1..6), s in proptest::collection::vec(any::<u8>(), 0..6)) {
            let prefix = Key(p.clone());
            let mut whole = p.clone();
            whole.extend(&s);
            prop_assert!(prefix.prefix_range().contains(&Key(whole)));
            let other = Key(s);
            prop_assert_eq!(prefix.prefix_range().contains(&other), other.as_bytes().starts_with(&p));
        }
    }
}
