//! Rows: what a store really keeps, one flat map of byte strings.
//!
//! Entries, counters, blob records and bookkeeping share one ordered map, told apart by the first
//! byte of the row's key. The same bytes stand in the log, in the index and in the overlay
//! (docs/STORE-FORMAT.md). Decoding is total: damaged bytes give `None`, never a panic.
//! Never: deciding what a batch does (see `apply`), touching a disk.

use crate::batch::CommitId;
use crate::blob::BlobId;
use crate::key::{Key, KeyRange};
use crate::tables::{Receipt, Seq, Versioned};
use bytes::Bytes;

/// Row spaces: the first byte of a row's key.
pub(crate) const ENTRY: u8 = 1;
pub(crate) const COUNTER: u8 = 2;
pub(crate) const BLOB: u8 = 3;
pub(crate) const SEGMENT: u8 = 4;
pub(crate) const RECEIPT: u8 = 5;
pub(crate) const RING: u8 = 6;
pub(crate) const RING_NEXT: u8 = 7;

fn row_key(space: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(space);
    key.extend_from_slice(rest);
    key
}

/// Row key of an entry.
pub(crate) fn entry_key(key: &Key) -> Vec<u8> {
    row_key(ENTRY, key.as_bytes())
}

/// Row key of a counter.
pub(crate) fn counter_key(key: &Key) -> Vec<u8> {
    row_key(COUNTER, key.as_bytes())
}

/// Row key of a blob.
pub(crate) fn blob_key(id: BlobId) -> Vec<u8> {
    row_key(BLOB, &id.0)
}

/// The blob that a row key of the blob space names.
pub(crate) fn blob_of_key(row_key: &[u8]) -> Option<BlobId> {
    match row_key.split_first()? {
        (&BLOB, rest) => Some(BlobId(rest.try_into().ok()?)),
        _ => None,
    }
}

/// Row key of a log segment's live figures.
pub(crate) fn segment_key(segment: u64) -> Vec<u8> {
    row_key(SEGMENT, &segment.to_be_bytes())
}

/// First row key (inclusive) and last (exclusive) of the segment space.
pub(crate) fn segment_range() -> (Vec<u8>, Vec<u8>) {
    (vec![SEGMENT], vec![SEGMENT + 1])
}

/// The segment that a row key of the segment space names.
pub(crate) fn segment_of_key(row_key: &[u8]) -> Option<u64> {
    match row_key.split_first()? {
        (&SEGMENT, rest) => Some(u64::from_be_bytes(rest.try_into().ok()?)),
        _ => None,
    }
}

/// Row key of the receipt kept for a named batch.
pub(crate) fn receipt_key(id: CommitId) -> Vec<u8> {
    row_key(RECEIPT, &id.0.to_be_bytes())
}

/// Row key of a place in the ring of remembered names.
pub(crate) fn ring_key(slot: u32) -> Vec<u8> {
    row_key(RING, &slot.to_be_bytes())
}

/// Row key of the ring's next place.
pub(crate) fn ring_next_key() -> Vec<u8> {
    row_key(RING_NEXT, &[])
}

/// First row key (inclusive) and last (exclusive) of the entries in a range.
pub(crate) fn entry_range(range: &KeyRange) -> (Vec<u8>, Vec<u8>) {
    let start = entry_key(&range.start);
    let end = if range.end.is_empty() {
        vec![ENTRY + 1]
    } else {
        entry_key(&range.end)
    };
    (start, end)
}

/// The same of the counters in a range.
pub(crate) fn counter_range(range: &KeyRange) -> (Vec<u8>, Vec<u8>) {
    let end = match range.end.is_empty() {
        true => vec![COUNTER + 1],
        false => counter_key(&range.end),
    };
    (counter_key(&range.start), end)
}

/// The caller's key behind an entry's or a counter's row key.
pub(crate) fn key_of_entry(row_key: &[u8]) -> Key {
    Key::from_bytes(row_key.get(1..).unwrap_or(&[]).to_vec())
}

/// An entry: value, version and the blobs that it refers to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) version: u64,
    pub(crate) refs: Vec<BlobId>,
    pub(crate) value: Bytes,
}

impl Entry {
    pub(crate) fn encode(version: u64, refs: &[BlobId], value: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(12 + refs.len() * 16 + value.len());
        out.extend_from_slice(&version.to_be_bytes());
        out.extend_from_slice(&(refs.len() as u32).to_be_bytes());
        refs.iter().for_each(|r| out.extend_from_slice(&r.0));
        out.extend_from_slice(value);
        Bytes::from(out)
    }

    /// Where the value begins and which blobs are referred to.
    fn header(row: &[u8]) -> Option<(u64, usize, &[u8])> {
        let version = u64::from_be_bytes(row.get(..8)?.try_into().ok()?);
        let count = u32::from_be_bytes(row.get(8..12)?.try_into().ok()?) as usize;
        let value_at = count.checked_mul(16)?.checked_add(12)?;
        Some((version, value_at, row.get(12..value_at)?))
    }

    pub(crate) fn decode(row: &Bytes) -> Option<Self> {
        let (version, value_at, refs) = Self::header(row)?;
        let refs = refs
            .chunks_exact(16)
            .filter_map(|c| c.try_into().ok().map(BlobId))
            .collect();
        Some(Self {
            version,
            refs,
            value: row.slice(value_at..),
        })
    }

    /// Value and version only, without copying the references.
    pub(crate) fn versioned(row: &Bytes) -> Option<Versioned> {
        let (version, value_at, _) = Self::header(row)?;
        Some(Versioned {
            value: row.slice(value_at..),
            version,
        })
    }
}

/// A counter's row.
pub(crate) fn encode_counter(n: i64) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

/// Reads a counter's row.
pub(crate) fn decode_counter(row: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(row.try_into().ok()?))
}

/// Where a blob's bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// In a log segment, from this offset.
    Log {
        /// Number of the segment.
        segment: u64,
        /// Offset of the first octet in the segment's file.
        offset: u64,
    },
    /// In a file of its own, named by the blob (or, in the memory store, in a map).
    Own,
}

/// A blob's row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlobRow {
    /// How many references entries hold.
    pub(crate) refs: u64,
    /// Octets.
    pub(crate) len: u64,
    /// The check word: see `engine::check`.
    pub(crate) check: u32,
    /// Where the octets are.
    pub(crate) place: Place,
}

impl BlobRow {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(37);
        out.extend_from_slice(&self.refs.to_be_bytes());
        out.extend_from_slice(&self.len.to_be_bytes());
        out.extend_from_slice(&self.check.to_be_bytes());
        match self.place {
            Place::Log { segment, offset } => {
                out.push(0);
                out.extend_from_slice(&segment.to_be_bytes());
                out.extend_from_slice(&offset.to_be_bytes());
            }
            Place::Own => out.push(1),
        }
        Bytes::from(out)
    }

    pub(crate) fn decode(row: &[u8]) -> Option<Self> {
        let u64_at = |at: usize| Some(u64::from_be_bytes(row.get(at..at + 8)?.try_into().ok()?));
        let place = match row.get(20)? {
            0 => Place::Log {
                segment: u64_at(21)?,
                offset: u64_at(29)?,
            },
            1 => Place::Own,
            _ => return None,
        };
        Some(Self {
            refs: u64_at(0)?,
            len: u64_at(8)?,
            check: u32::from_be_bytes(row.get(16..20)?.try_into().ok()?),
            place,
        })
    }
}

/// How much of a segment is still needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SegmentRow {
    /// Blobs that live in it.
    pub(crate) blobs: u64,
    /// Their octets.
    pub(crate) octets: u64,
}

impl SegmentRow {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(16);
        out.extend_from_slice(&self.blobs.to_be_bytes());
        out.extend_from_slice(&self.octets.to_be_bytes());
        Bytes::from(out)
    }

    pub(crate) fn decode(row: &[u8]) -> Option<Self> {
        let row: &[u8; 16] = row.try_into().ok()?;
        let (blobs, octets) = row.split_at(8);
        Some(Self {
            blobs: u64::from_be_bytes(blobs.try_into().ok()?),
            octets: u64::from_be_bytes(octets.try_into().ok()?),
        })
    }
}

/// A receipt as it is remembered for a named batch.
pub(crate) fn encode_receipt(receipt: &Receipt) -> Bytes {
    let mut out = Vec::with_capacity(8 + 8 * receipt.allocated.len());
    out.extend_from_slice(&receipt.seq.0.to_be_bytes());
    receipt
        .allocated
        .iter()
        .for_each(|n| out.extend_from_slice(&n.to_be_bytes()));
    Bytes::from(out)
}

/// Reads a remembered receipt.
pub(crate) fn decode_receipt(row: &[u8]) -> Option<Receipt> {
    let (words, rest) = row.as_chunks::<8>();
    let mut numbers = words.iter().map(|w| u64::from_be_bytes(*w));
    let seq = Seq(numbers.next()?);
    rest.is_empty().then(|| Receipt {
        seq,
        allocated: numbers.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_come_back(version in any::<u64>(), ids in proptest::collection::vec(any::<[u8; 16]>(), 0..4), value in proptest::collection::vec(any::<u8>(), 0..40), n in any::<[u64; 4]>(), check in any::<u32>(), own in any::<bool>()) {
            let refs: Vec<BlobId> = ids.into_iter().map(BlobId).collect();
            let entry = Entry { version, refs: refs.clone(), value: value.clone().into() };
            prop_assert_eq!(Entry::decode(&Entry::encode(version, &refs, &value)), Some(entry));
            let place = if own { Place::Own } else { Place::Log { segment: n[0], offset: n[1] } };
            let blob = BlobRow { refs: n[2], len: n[3], check, place };
            prop_assert_eq!(BlobRow::decode(&blob.encode()), Some(blob));
            let segment = SegmentRow { blobs: n[0], octets: n[1] };
            prop_assert_eq!(SegmentRow::decode(&segment.encode()), Some(segment));
            let receipt = Receipt { seq: Seq(n[0]), allocated: n[1..].to_vec() };
            prop_assert_eq!(decode_receipt(&encode_receipt(&receipt)), Some(receipt));
        }

        #[test]
        fn damaged_rows_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let row = Bytes::from(bytes);
            if let Some(entry) = Entry::decode(&row) {
                prop_assert_eq!(&Entry::encode(entry.version, &entry.refs, &entry.value), &row);
            }
            if let Some(n) = decode_counter(&row) {
                prop_assert_eq!(&encode_counter(n), &row);
            }
            let _ = (BlobRow::decode(&row), SegmentRow::decode(&row), decode_receipt(&row));
        }
    }
}
