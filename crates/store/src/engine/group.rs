//! A group: batches that became durable by one sync, as they stand in the log.
//!
//! header (64 octets) | blobs | rows | zeros up to a multiple of 512. All numbers big-endian; the
//! layout to the octet is in docs/STORE-FORMAT.md. Reading is total: any octets give a group or
//! `None`. Never: I/O, a decision about what to do with a damaged group.

use super::check;
use crate::rows::{BlobRow, Place, blob_of_key};
use bytes::Bytes;

/// Groups begin at multiples of this, the unit that disks write whole.
pub(crate) const ALIGN: u64 = 512;
/// Octets of a header.
pub(crate) const HEADER: usize = 64;
/// First octets of every group; the last one is the version of the format.
const MAGIC: [u8; 8] = *b"PHGROUP\x01";
/// In place of a row's length: the row is removed.
const REMOVED: u32 = u32::MAX;
/// Octets of a group at most: what recovery reads into memory. More than the largest batch can
/// come to behind a group that was just below its cap.
pub(crate) const GROUP_OCTETS_MAX: usize = 256 * 1024 * 1024;

/// A place in the log, with what links the group that stands there to the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    /// Segment number.
    pub(crate) segment: u64,
    /// Offset in the segment.
    pub(crate) offset: u64,
    /// The place in the order of commits that comes next.
    pub(crate) next_seq: u64,
    /// The header checksum of the group before; 0 for the first ever.
    pub(crate) chain: u32,
}

impl Position {
    /// Where an empty store begins.
    pub(crate) const START: Self = Self {
        segment: 1,
        offset: 0,
        next_seq: 1,
        chain: 0,
    };
}

/// A group's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) first_seq: u64,
    pub(crate) batches: u32,
    pub(crate) blob_octets: u32,
    pub(crate) row_octets: u32,
    pub(crate) row_crc: u32,
    pub(crate) chain: u32,
    pub(crate) store: u64,
    pub(crate) crc: u32,
}

impl Header {
    /// Reads a header; `None` when it is not one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.first_chunk()?;
        let u64_at = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let crc = u32_at(60)?;
        if bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..60]) != crc {
            return None;
        }
        let header = Self {
            segment: u64_at(8)?,
            offset: u64_at(16)?,
            first_seq: u64_at(24)?,
            batches: u32_at(32)?,
            blob_octets: u32_at(36)?,
            row_octets: u32_at(40)?,
            row_crc: u32_at(44)?,
            chain: u32_at(48)?,
            store: u64_at(52)?,
            crc,
        };
        (header.padded() <= GROUP_OCTETS_MAX as u64).then_some(header)
    }

    fn write(&mut self, out: &mut [u8]) {
        out[..8].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.segment.to_be_bytes());
        out[16..24].copy_from_slice(&self.offset.to_be_bytes());
        out[24..32].copy_from_slice(&self.first_seq.to_be_bytes());
        out[32..36].copy_from_slice(&self.batches.to_be_bytes());
        out[36..40].copy_from_slice(&self.blob_octets.to_be_bytes());
        out[40..44].copy_from_slice(&self.row_octets.to_be_bytes());
        out[44..48].copy_from_slice(&self.row_crc.to_be_bytes());
        out[48..52].copy_from_slice(&self.chain.to_be_bytes());
        out[52..60].copy_from_slice(&self.store.to_be_bytes());
        self.crc = crc32c::crc32c(&out[..60]);
        out[60..64].copy_from_slice(&self.crc.to_be_bytes());
    }

    /// Octets that the group takes in the log, with its padding.
    pub(crate) fn padded(&self) -> u64 {
        let octets = HEADER as u64 + u64::from(self.blob_octets) + u64::from(self.row_octets);
        octets.next_multiple_of(ALIGN)
    }

    /// Whether this is the group that belongs at `at`.
    pub(crate) fn follows(&self, at: &Position, store: u64) -> bool {
        self.stands_at(at.segment, at.offset, store)
            && self.first_seq == at.next_seq
            && self.chain == at.chain
    }

    /// Whether this header was written for this place of this store.
    pub(crate) fn stands_at(&self, segment: u64, offset: u64, store: u64) -> bool {
        self.segment == segment && self.offset == offset && self.store == store
    }

    /// The position behind the group.
    pub(crate) fn end(&self) -> Position {
        Position {
            segment: self.segment,
            offset: self.offset + self.padded(),
            next_seq: self.first_seq + u64::from(self.batches),
            chain: self.crc,
        }
    }
}

/// Memory in which groups are put together; used again, because fresh memory costs page faults.
#[derive(Default)]
pub(crate) struct Buffers {
    body: Vec<u8>,
    rows: Vec<u8>,
}

impl Buffers {
    /// Buffers larger than this, in octets, are not kept for the next group.
    const KEPT_MAX: usize = 4 * 1024 * 1024;

    /// The group's octets.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.body
    }

    /// Gives back what an unusually large group took.
    pub(crate) fn shrink(&mut self) {
        for buffer in [&mut self.body, &mut self.rows] {
            buffer.clear();
            buffer.shrink_to(Self::KEPT_MAX);
        }
    }
}

/// A group being put together.
pub(crate) struct Builder {
    at: Position,
    store: u64,
    batches: u32,
    /// Header space and blobs.
    body: Vec<u8>,
    rows: Vec<u8>,
}

impl Builder {
    /// Begins a group at `at`, with buffers to use again.
    pub(crate) fn new(at: Position, store: u64, buffers: Buffers) -> Self {
        let Buffers { mut body, mut rows } = buffers;
        body.clear();
        body.resize(HEADER, 0);
        rows.clear();
        Self {
            at,
            store,
            batches: 0,
            body,
            rows,
        }
    }

    /// Where the next batch will stand in the order of commits.
    pub(crate) fn next_seq(&self) -> u64 {
        self.at.next_seq + u64::from(self.batches)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches == 0
    }

    /// The segment in which the group will stand.
    pub(crate) fn segment(&self) -> u64 {
        self.at.segment
    }

    /// Octets so far.
    pub(crate) fn octets(&self) -> usize {
        self.body.len() + self.rows.len()
    }

    /// Adds a blob with its table. Answers its place and word.
    pub(crate) fn blob(&mut self, bytes: &[u8]) -> (Place, u32) {
        let offset = self.at.offset + self.body.len() as u64;
        let (table, word) = check::sum(bytes);
        self.body.extend_from_slice(bytes);
        self.body.extend_from_slice(&table);
        let segment = self.at.segment;
        (Place::Log { segment, offset }, word)
    }

    /// Adds a batch's rows.
    pub(crate) fn batch(&mut self, writes: &[(Bytes, Option<Bytes>)]) {
        self.batches += 1;
        self.rows.extend_from_slice(&(writes.len() as u32).to_be_bytes());
        for (key, row) in writes {
            let len = row.as_ref().map_or(REMOVED, |row| row.len() as u32);
            self.rows.extend_from_slice(&(key.len() as u16).to_be_bytes());
            self.rows.extend_from_slice(&len.to_be_bytes());
            self.rows.extend_from_slice(key);
            self.rows.extend_from_slice(row.as_deref().unwrap_or_default());
        }
    }

    /// The group, as [`Buffers::octets`], and the position behind it.
    pub(crate) fn finish(self) -> (Buffers, Position) {
        let mut header = Header {
            segment: self.at.segment,
            offset: self.at.offset,
            first_seq: self.at.next_seq,
            batches: self.batches,
            blob_octets: (self.body.len() - HEADER) as u32,
            row_octets: self.rows.len() as u32,
            row_crc: crc32c::crc32c(&self.rows),
            chain: self.at.chain,
            store: self.store,
            crc: 0,
        };
        let Self { mut body, rows, .. } = self;
        header.write(&mut body[..HEADER]);
        body.extend_from_slice(&rows);
        body.resize(header.padded() as usize, 0);
        (Buffers { body, rows }, header.end())
    }
}

/// A group read back: its rows in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Rows of all batches, in order; a later one replaces an earlier one.
    pub(crate) rows: Vec<(Bytes, Option<Bytes>)>,
    /// Whether every blob in it is what was written.
    pub(crate) blobs_good: bool,
}

impl Group {
    /// Reads the rows of this header's group from their octets. `None` when they are damaged.
    pub(crate) fn rows(header: &Header, rows: Bytes) -> Option<Vec<(Bytes, Option<Bytes>)>> {
        if rows.len() != header.row_octets as usize || crc32c::crc32c(&rows) != header.row_crc {
            return None;
        }
        parse_rows(rows, header.batches)
    }

    /// Reads the group of this header from its octets. `None` when its rows are damaged.
    pub(crate) fn parse(header: &Header, bytes: &Bytes) -> Option<Self> {
        let rows_at = HEADER + header.blob_octets as usize;
        let rows_end = rows_at + header.row_octets as usize;
        if bytes.len() < rows_end {
            return None;
        }
        let rows = Self::rows(header, bytes.slice(rows_at..rows_end))?;
        let blobs_good = rows.iter().all(|(key, row)| match row {
            Some(row) if blob_of_key(key).is_some() => blob_is_good(header, bytes, row),
            _ => true,
        });
        Some(Self { rows, blobs_good })
    }
}

fn parse_rows(mut rest: Bytes, batches: u32) -> Option<Vec<(Bytes, Option<Bytes>)>> {
    let mut rows = Vec::new();
    for _ in 0..batches {
        let count = u32::from_be_bytes(rest.split_to_checked(4)?.as_ref().try_into().ok()?);
        for _ in 0..count {
            let head = rest.split_to_checked(6)?;
            let key_len = u16::from_be_bytes(head[..2].try_into().ok()?);
            let row_len = u32::from_be_bytes(head[2..6].try_into().ok()?);
            let key = rest.split_to_checked(usize::from(key_len))?;
            let row = match row_len {
                REMOVED => None,
                len => Some(rest.split_to_checked(len as usize)?),
            };
            rows.push((key, row));
        }
    }
    rest.is_empty().then_some(rows)
}

trait SplitToChecked: Sized {
    fn split_to_checked(&mut self, at: usize) -> Option<Self>;
}

impl SplitToChecked for Bytes {
    fn split_to_checked(&mut self, at: usize) -> Option<Self> {
        (at <= self.len()).then(|| self.split_to(at))
    }
}

/// Whether a blob row that points into this group is borne out by its octets. Rows of blobs that
/// stand elsewhere say nothing about this group.
fn blob_is_good(header: &Header, bytes: &[u8], row: &[u8]) -> bool {
    let Some(blob) = BlobRow::decode(row) else {
        return false;
    };
    let Place::Log { segment, offset } = blob.place else {
        return true;
    };
    if segment != header.segment || offset < header.offset {
        return true;
    }
    let octets = blob.len.saturating_add(check::table_octets(blob.len));
    let from = (offset - header.offset) as usize;
    let to = usize::try_from(octets).ok().and_then(|n| from.checked_add(n));
    let Some(blob_bytes) = to.and_then(|to| bytes.get(from..to)) else {
        return false;
    };
    check::whole_is_good(blob_bytes, blob.len as usize, blob.check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BlobId;
    use crate::rows;
    use proptest::prelude::*;

    fn sample() -> (Vec<u8>, Position) {
        let mut builder = Builder::new(Position::START, 7, Buffers::default());
        let (place, check) = builder.blob(b"hello");
        let blob = BlobRow {
            refs: 1,
            len: 5,
            check,
            place,
        };
        builder.batch(&[
            (Bytes::from(rows::blob_key(BlobId([3; 16]))), Some(blob.encode())),
            (Bytes::from_static(b"\x01gone"), None),
        ]);
        let (buffers, end) = builder.finish();
        (buffers.body, end)
    }

    #[test]
    fn a_group_comes_back_and_every_flipped_bit_is_seen() {
        let (bytes, end) = sample();
        assert_eq!(end.offset % ALIGN, 0);
        let header = Header::parse(&bytes).unwrap();
        assert!(header.follows(&Position::START, 7));
        assert_eq!(header.end(), end);
        let used = HEADER + header.blob_octets as usize + header.row_octets as usize;
        let good = Group::parse(&header, &Bytes::from(bytes.clone())).unwrap();
        assert!(good.blobs_good && good.rows.len() == 2);
        for bit in 0..used * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let parsed = Header::parse(&bad).and_then(|h| Group::parse(&h, &Bytes::from(bad)));
            assert!(parsed.is_none_or(|group| !group.blobs_good), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_panic(rows in proptest::collection::vec(any::<u8>(), 0..200), batches in 0u32..5) {
            let mut builder = Builder::new(Position::START, 7, Buffers::default());
            builder.rows = rows;
            builder.batches = batches;
            let (buffers, _) = builder.finish();
            let header = Header::parse(&buffers.body).unwrap();
            let _ = Group::parse(&header, &Bytes::from(buffers.body));
        }
    }
}
