//! The octets of a row of events: lines of JSON, packed or not.
//!
//! A row is a version octet and what it says: 2 is lines as they are, 3 is LZ4 against
//! [`DICTIONARY`], behind the length of the lines (u32). Packing makes a usual row a third as long, in the log and
//! in the index. Reading is total and bounded: any octets give lines or `None`.
//! Never: knowing what stands in a line.

use std::borrow::Cow;

/// What follows is lines.
pub(crate) const PLAIN: u8 = 2;
/// What follows is a length and packed lines.
const PACKED: u8 = 3;
/// Octets of a row's lines at most; what claims to be longer is damaged.
const LINES_OCTETS_MAX: usize = 1024 * 1024;

/// What usual rows have in common. It is part of the format: to change it takes a new version octet.
const DICTIONARY: &[u8] = include_bytes!("packed.dictionary");

/// Packs a row of plain lines. Any other row stays as it is, and so does one that would not shrink.
pub(crate) fn pack(row: &mut Vec<u8>) {
    let [PLAIN, lines @ ..] = row.as_slice() else {
        return;
    };
    let Ok(len) = u32::try_from(lines.len()) else {
        return;
    };
    let packed = lz4_flex::block::compress_with_dict(lines, DICTIONARY);
    if packed.len() + 5 < row.len() {
        row.clear();
        row.push(PACKED);
        row.extend_from_slice(&len.to_be_bytes());
        row.extend_from_slice(&packed);
    }
}

/// The lines of a row.
pub(crate) fn lines(row: &[u8]) -> Option<Cow<'_, [u8]>> {
    match row {
        [PLAIN, lines @ ..] => Some(Cow::Borrowed(lines)),
        [PACKED, rest @ ..] => {
            let (len, packed) = rest.split_first_chunk::<4>()?;
            let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
            if len > LINES_OCTETS_MAX {
                return None;
            }
            let lines = lz4_flex::block::decompress_with_dict(packed, len, DICTIONARY).ok()?;
            (lines.len() == len).then_some(Cow::Owned(lines))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_come_back(text in proptest::collection::vec(any::<u8>(), 0..3_000), repeated in 1usize..20) {
            let mut row = vec![PLAIN];
            row.extend(text.repeat(repeated));
            let plain = row.clone();
            pack(&mut row);
            prop_assert!(row.len() <= plain.len());
            let read = lines(&row).map(Cow::into_owned);
            prop_assert_eq!(read.as_deref(), Some(&plain[1..]));
            let packed = row.clone();
            pack(&mut row);
            prop_assert!(row == packed || row.len() < packed.len());
        }

        #[test]
        fn any_octets_are_read_without_panic(octets in proptest::collection::vec(any::<u8>(), 0..200), len in any::<u32>()) {
            let mut row = vec![PACKED];
            row.extend(len.to_be_bytes());
            row.extend(&octets);
            let _ = lines(&row);
            let _ = lines(&octets);
        }
    }

    /// The dictionary belongs to the format: rows packed with it must stay readable.
    #[test]
    fn the_dictionary_is_the_one_of_this_version() {
        assert_eq!(crc32(DICTIONARY), DICTIONARY_SUM);
        let line = br#"[1795454847669713,1,{"event":"accepted","local":1,"queued":0}]"#;
        let mut row = vec![PLAIN];
        row.extend(line);
        pack(&mut row);
        assert!(row.len() < line.len(), "{} octets", row.len());
        assert_eq!(lines(&row).as_deref(), Some(&line[..]));
    }

    const DICTIONARY_SUM: u32 = 0xa3a6_f134;

    /// CRC-32C, bit by bit: enough for one short file.
    fn crc32(octets: &[u8]) -> u32 {
        !octets.iter().fold(!0u32, |sum, octet| {
            (0..8).fold(sum ^ u32::from(*octet), |s, _| {
                (s >> 1) ^ (0x82F6_3B78 & (s & 1).wrapping_neg())
            })
        })
    }
}
