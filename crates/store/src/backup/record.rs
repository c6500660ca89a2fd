//! What the frames of a backup hold, to the byte (docs/BACKUP.md). Decoding is total: octets that
//! are no record give `None`. Never: I/O.

use crate::blob::BlobId;
use bytes::Bytes;

/// Kinds of frames.
pub(super) const HEAD: u32 = 1;
pub(super) const BLOB: u32 = 2;
pub(super) const MORE: u32 = 3;
pub(super) const INDEX: u32 = 4;
pub(super) const CATALOGUE: u32 = 5;
pub(super) const ENTRIES: u32 = 6;
pub(super) const COUNTERS: u32 = 7;
pub(super) const FILE: u32 = 8;
pub(super) const DAMAGE: u32 = 9;

/// A frame of rows is ended when it has reached this many octets.
pub(super) const FRAME_OCTETS: usize = 256 * 1024;
/// Octets of a blob in one frame at most; a longer blob goes on in frames of kind `MORE`.
pub(super) const PIECE_OCTETS: usize = 1 << 20;
/// Octets of the name of a file at most.
pub(super) const PATH_OCTETS_MAX: usize = 1024;

/// What a file of a backup is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// Blobs.
    Pack = 1,
    /// The rows of one state.
    Rows = 2,
    /// Both, one behind the other.
    Whole = 3,
}

/// The first frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) what: What,
    /// The number of the store.
    pub(super) store: u64,
    /// The commit up to which the rows see; 0 in a pack.
    pub(super) seq: u64,
    /// When it was begun, microseconds since 1970.
    pub(super) time: i64,
    /// The program that wrote it.
    pub(super) program: String,
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.what as u8];
        out.extend_from_slice(&self.store.to_be_bytes());
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.time.to_be_bytes());
        out.extend_from_slice(self.program.as_bytes());
        out
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let mut r = Reader(payload);
        let what = match r.take(1)? {
            [1] => What::Pack,
            [2] => What::Rows,
            [3] => What::Whole,
            _ => return None,
        };
        Some(Self {
            what,
            store: r.u64()?,
            seq: r.u64()?,
            time: r.u64()?.cast_signed(),
            program: String::from_utf8_lossy(r.0).into_owned(),
        })
    }
}

/// What the last frame counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Totals {
    /// Blobs in the catalogue; in a pack, blobs in it.
    pub(super) blobs: u64,
    /// Their octets.
    pub(super) blob_octets: u64,
    pub(super) entries: u64,
    pub(super) counters: u64,
    pub(super) files: u64,
    /// Things that were damaged in the store and are not in the backup.
    pub(super) damaged: u64,
    /// In a pack: where the first frame of its index stands.
    pub(super) index_at: u64,
    /// The commit up to which the rows see (a stream's head can't know it yet); 0 in a pack.
    pub(super) seq: u64,
}

/// Octets of [`Totals`].
pub(super) const TOTALS_OCTETS: usize = 64;

impl Totals {
    pub(super) fn encode(&self) -> Vec<u8> {
        let all = [
            self.blobs,
            self.blob_octets,
            self.entries,
            self.counters,
            self.files,
            self.damaged,
            self.index_at,
            self.seq,
        ];
        all.iter().flat_map(|n| n.to_be_bytes()).collect()
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let mut r = Reader(payload);
        Some(Self {
            blobs: r.u64()?,
            blob_octets: r.u64()?,
            entries: r.u64()?,
            counters: r.u64()?,
            files: r.u64()?,
            damaged: r.u64()?,
            index_at: r.u64()?,
            seq: r.u64()?,
        })
    }
}

/// What precedes a blob's octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BlobHead {
    pub(super) id: BlobId,
    pub(super) len: u64,
    /// The check word of the store (docs/STORE-FORMAT.md).
    pub(super) check: u32,
}

/// Octets of a [`BlobHead`].
pub(super) const BLOB_HEAD_OCTETS: usize = 28;

impl BlobHead {
    pub(super) fn encode(&self) -> [u8; BLOB_HEAD_OCTETS] {
        let mut out = [0; BLOB_HEAD_OCTETS];
        out[..16].copy_from_slice(&self.id.0);
        out[16..24].copy_from_slice(&self.len.to_be_bytes());
        out[24..].copy_from_slice(&self.check.to_be_bytes());
        out
    }

    fn read(r: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            id: r.id()?,
            len: r.u64()?,
            check: r.u32()?,
        })
    }

    /// The head, and the octets behind it.
    pub(super) fn decode(payload: &[u8]) -> Option<(Self, &[u8])> {
        let mut r = Reader(payload);
        let head = Self::read(&mut r)?;
        (r.0.len() as u64 <= head.len).then_some((head, r.0))
    }
}

/// What precedes the octets of a frame that goes on with a blob: its id, and from where.
pub(super) fn more_head(id: BlobId, offset: u64) -> [u8; 24] {
    let mut out = [0; 24];
    out[..16].copy_from_slice(&id.0);
    out[16..].copy_from_slice(&offset.to_be_bytes());
    out
}

/// Reads a frame that goes on with a blob.
pub(super) fn decode_more(payload: &[u8]) -> Option<(BlobId, u64, &[u8])> {
    let mut r = Reader(payload);
    Some((r.id()?, r.u64()?, r.0))
}

/// One blob of a pack's index: which, and its octets.
pub(super) fn decode_index(payload: &[u8]) -> Option<Vec<(BlobId, u64)>> {
    let (items, rest) = payload.as_chunks::<24>();
    let item = |item: &[u8; 24]| {
        let mut r = Reader(item);
        Some((r.id()?, r.u64()?))
    };
    rest.is_empty().then(|| items.iter().map(item).collect())?
}

/// Octets of an item of the catalogue.
pub(super) const CATALOGUE_ITEM: usize = BLOB_HEAD_OCTETS;

/// The blobs that a backup needs.
pub(super) fn decode_catalogue(payload: &[u8]) -> Option<Vec<BlobHead>> {
    let (items, rest) = payload.as_chunks::<CATALOGUE_ITEM>();
    let item = |item: &[u8; CATALOGUE_ITEM]| BlobHead::read(&mut Reader(item));
    rest.is_empty().then(|| items.iter().map(item).collect())?
}

/// Adds a row to a frame of rows: length of the key (u16), length of the row (u32), key, row.
pub(super) fn add_row(frame: &mut Vec<u8>, key: &[u8], row: &[u8]) {
    frame.extend_from_slice(&(key.len() as u16).to_be_bytes());
    frame.extend_from_slice(&(row.len() as u32).to_be_bytes());
    frame.extend_from_slice(key);
    frame.extend_from_slice(row);
}

/// The rows of a frame.
pub(super) fn decode_rows(payload: &Bytes) -> Option<Vec<(Bytes, Bytes)>> {
    let mut out = Vec::new();
    let mut at = 0;
    let mut take = |n: usize| {
        let end = at + n;
        let part = (end <= payload.len()).then(|| payload.slice(at..end))?;
        at = end;
        Some(part)
    };
    loop {
        let Some(lengths) = take(6) else { break };
        let key = usize::from(u16::from_be_bytes([lengths[0], lengths[1]]));
        let row = u32::from_be_bytes([lengths[2], lengths[3], lengths[4], lengths[5]]);
        out.push((take(key)?, take(row as usize)?));
    }
    (at == payload.len()).then_some(out)
}

/// A file of the data folder: its path below that folder, and its octets.
pub(super) fn encode_file(path: &str) -> Vec<u8> {
    let mut out = (path.len() as u16).to_be_bytes().to_vec();
    out.extend_from_slice(path.as_bytes());
    out
}

/// Reads a file of the data folder. A path that leads out of the folder is no path.
pub(super) fn decode_file(payload: &[u8]) -> Option<(&str, &[u8])> {
    let mut r = Reader(payload);
    let len = r.take(2)?;
    let path = r.take(usize::from(u16::from_be_bytes([len[0], len[1]])))?;
    let path = std::str::from_utf8(path).ok().filter(|path| is_safe_path(path))?;
    Some((path, r.0))
}

/// Whether a path is made of plain names only.
pub(super) fn is_safe_path(path: &str) -> bool {
    let plain = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains('\0');
    path.len() <= PATH_OCTETS_MAX && path.split('/').all(plain)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn id(&mut self) -> Option<BlobId> {
        Some(BlobId(self.take(16)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_back(n in any::<[u64; 7]>(), id in any::<[u8; 16]>(), check in any::<u32>(), program in "[ -~]{0,20}", rows in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..30), proptest::collection::vec(any::<u8>(), 0..30)), 0..5)) {
            let head = Head { what: What::Whole, store: n[0], seq: n[1], time: n[2].cast_signed(), program };
            prop_assert_eq!(Head::decode(&head.encode()), Some(head));
            let totals = Totals { blobs: n[0], blob_octets: n[1], entries: n[2], counters: n[3], files: n[4], damaged: n[5], index_at: n[6], seq: n[0] };
            prop_assert_eq!(totals.encode().len(), TOTALS_OCTETS);
            prop_assert_eq!(Totals::decode(&totals.encode()), Some(totals));
            let blob = BlobHead { id: BlobId(id), len: 3, check };
            let with = [&blob.encode()[..], b"abc"].concat();
            prop_assert_eq!(BlobHead::decode(&with), Some((blob, &b"abc"[..])));
            prop_assert_eq!(decode_catalogue(&blob.encode()), Some(vec![blob]));
            let more = [&more_head(BlobId(id), n[0])[..], b"xy"].concat();
            prop_assert_eq!(decode_more(&more), Some((BlobId(id), n[0], &b"xy"[..])));
            prop_assert_eq!(decode_index(&more_head(BlobId(id), n[0])), Some(vec![(BlobId(id), n[0])]));
            let mut frame = Vec::new();
            rows.iter().for_each(|(key, row)| add_row(&mut frame, key, row));
            let back: Vec<_> = decode_rows(&frame.into()).unwrap().into_iter().map(|(k, r)| (k.to_vec(), r.to_vec())).collect();
            prop_assert_eq!(back, rows);
        }

        #[test]
        fn any_octets_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Head::decode(&bytes), Totals::decode(&bytes), BlobHead::decode(&bytes), decode_more(&bytes));
            let _ = (decode_index(&bytes), decode_catalogue(&bytes), decode_rows(&bytes.clone().into()));
            let _ = decode_file(&bytes);
        }
    }

    #[test]
    fn a_path_that_leads_out_of_the_folder_is_no_path() {
        for path in ["../x", "/etc/passwd", "a//b", "a/../b", "", ".", "a/./b", "a\0b"] {
            assert!(decode_file(&encode_file(path)).is_none(), "{path:?}");
        }
        let file = [encode_file("tls/cert.pem"), b"pem".to_vec()].concat();
        assert_eq!(decode_file(&file), Some(("tls/cert.pem", &b"pem"[..])));
    }
}
