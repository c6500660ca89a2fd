//! Frames: how every file of a backup is cut into pieces that vouch for themselves.
//!
//! A file is a preamble (twice, so that one bad octet does not cost the file) and numbered frames,
//! each with a checksum over its header and one over its payload, up to one that says how many
//! there were. Promises of the reader: a flipped bit, a missing piece, a cut end are each told with
//! their place; reading goes on behind damage at the next whole frame; any octets are read without
//! a panic and in bounded memory. The file's salt is part of each header's checksum, so that
//! octets which a stranger mailed to us are never taken for a frame.
//! Never: knowing what a payload means.

use crate::file::DiskFile;
use std::io::{self, Write};
use std::sync::Arc;

/// The version of the whole format of backups that is written. A reader refuses a later one.
pub const BACKUP_VERSION: u32 = 1;
/// Octets of a payload at most: an entry with its longest value and references, and some.
pub(super) const PAYLOAD_OCTETS_MAX: usize = 8 << 20;
/// Octets of a frame's header.
pub(super) const HEADER: usize = 28;
/// Octets of the preamble, which stands twice.
const PREAMBLE: usize = 32;
/// Where the first frame begins.
pub(super) const FIRST: u64 = 2 * PREAMBLE as u64;
const NAME: &[u8; 16] = b"posthaste backup";
const MAGIC: &[u8; 4] = b"PHbk";
/// The kind of the last frame; its payload begins with the number of frames before it (u64) and
/// the checksum over their headers (u32).
pub(super) const END: u32 = 15;
/// Octets of the last frame's own part.
pub(super) const END_OWN: usize = 12;
/// Octets that are read at once while a whole frame is looked for behind damage.
const SEARCH_OCTETS: usize = 64 * 1024;

/// The preamble, for a salt.
fn preamble(salt: u64) -> [u8; PREAMBLE] {
    let mut out = [0; PREAMBLE];
    out[..16].copy_from_slice(NAME);
    out[16..20].copy_from_slice(&BACKUP_VERSION.to_be_bytes());
    out[20..28].copy_from_slice(&salt.to_be_bytes());
    let sum = crc32c::crc32c(&out[..28]);
    out[28..].copy_from_slice(&sum.to_be_bytes());
    out
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    kind: u32,
    number: u64,
    len: u32,
    payload_sum: u32,
    sum: u32,
}

impl Header {
    fn encode(kind: u32, number: u64, payload: &[&[u8]], salt: u64) -> [u8; HEADER] {
        let len: usize = payload.iter().map(|part| part.len()).sum();
        let payload_sum = payload
            .iter()
            .fold(0, |sum, part| crc32c::crc32c_append(sum, part));
        let mut out = [0; HEADER];
        out[..4].copy_from_slice(MAGIC);
        out[4..8].copy_from_slice(&kind.to_be_bytes());
        out[8..16].copy_from_slice(&number.to_be_bytes());
        out[16..20].copy_from_slice(&(len as u32).to_be_bytes());
        out[20..24].copy_from_slice(&payload_sum.to_be_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&salt.to_be_bytes()), &out[..24]);
        out[24..].copy_from_slice(&sum.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8], salt: u64) -> Option<Self> {
        let bytes = bytes.get(..HEADER)?;
        let sum = u32_at(bytes, 24)?;
        let good = crc32c::crc32c_append(crc32c::crc32c(&salt.to_be_bytes()), &bytes[..24]);
        let header = Self {
            kind: u32_at(bytes, 4)?,
            number: u64_at(bytes, 8)?,
            len: u32_at(bytes, 16)?,
            payload_sum: u32_at(bytes, 20)?,
            sum,
        };
        let whole = bytes.starts_with(MAGIC) && sum == good && header.len as usize <= PAYLOAD_OCTETS_MAX;
        whole.then_some(header)
    }
}

/// Writes frames.
pub(super) struct FrameWriter<W: Write> {
    out: W,
    salt: u64,
    frames: u64,
    sums: u32,
    offset: u64,
}

impl<W: Write> FrameWriter<W> {
    /// Begins a file. The salt is to be random.
    pub(super) fn begin(mut out: W, salt: u64) -> io::Result<Self> {
        let preamble = preamble(salt);
        out.write_all(&preamble)?;
        out.write_all(&preamble)?;
        Ok(Self {
            out,
            salt,
            frames: 0,
            sums: 0,
            offset: FIRST,
        })
    }

    /// Octets written so far: where the next frame will stand.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Writes a frame; its payload comes in parts.
    pub(super) fn frame(&mut self, kind: u32, payload: &[&[u8]]) -> io::Result<()> {
        let header = Header::encode(kind, self.frames, payload, self.salt);
        self.out.write_all(&header)?;
        for part in payload {
            self.out.write_all(part)?;
            self.offset += part.len() as u64;
        }
        self.offset += HEADER as u64;
        self.frames += 1;
        self.sums = crc32c::crc32c_append(self.sums, &header);
        Ok(())
    }

    /// Writes the last frame and answers what was written to.
    pub(super) fn end(mut self, counts: &[u8]) -> io::Result<W> {
        let (frames, sums) = (self.frames.to_be_bytes(), self.sums.to_be_bytes());
        self.frame(END, &[&frames, &sums, counts])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// What stands next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole frame.
    Frame {
        /// What it is.
        kind: u32,
        /// What it holds.
        payload: Vec<u8>,
    },
    /// Octets that are no whole frame.
    Damage {
        /// Where it begins.
        offset: u64,
        /// What is wrong, in words.
        what: String,
    },
    /// The end of the file.
    Nothing,
}

/// Why a file can't be read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReadable {
    /// It begins with something else.
    #[error("this is no backup, or its first 64 octets are damaged")]
    NoBackup,
    /// A later version wrote it.
    #[error("format {0} of a later version of posthaste; this one reads formats up to {BACKUP_VERSION}")]
    Newer(u32),
    /// The disk failed.
    #[error("it can't be read: {0}")]
    Io(String),
}

impl From<io::Error> for NotReadable {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// Reads frames in order.
pub(super) struct FrameReader {
    file: Arc<dyn DiskFile>,
    len: u64,
    at: u64,
    salt: u64,
    frames: u64,
    sums: u32,
    /// Whether a piece was skipped, so that counts and sums can't agree any more.
    skipped: bool,
    ended: bool,
    /// Said before the first frame, when one of the preambles is bad.
    first: Option<(u64, String)>,
}

impl FrameReader {
    /// Opens a file. A damaged preamble is told as the first damage when the other one is whole.
    pub(super) fn open(file: Arc<dyn DiskFile>) -> Result<Self, NotReadable> {
        let len = file.len()?;
        let mut bytes = vec![0; len.min(FIRST) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        let copies = [bytes.get(..PREAMBLE), bytes.get(PREAMBLE..2 * PREAMBLE)];
        let good =
            |copy: &&[u8]| copy.starts_with(NAME) && u32_at(copy, 28) == Some(crc32c::crc32c(&copy[..28]));
        let whole: Vec<&[u8]> = copies.into_iter().flatten().filter(good).collect();
        let copy = whole.first().ok_or(NotReadable::NoBackup)?;
        let version = u32_at(copy, 16).unwrap_or(0);
        if version > BACKUP_VERSION {
            return Err(NotReadable::Newer(version));
        }
        let one_is_bad = whole.len() < 2 || whole[0] != whole[1];
        let what = "one of the two preambles is damaged";
        Ok(Self {
            len,
            at: FIRST.min(len),
            salt: u64_at(copy, 20).ok_or(NotReadable::NoBackup)?,
            frames: 0,
            sums: 0,
            skipped: false,
            ended: false,
            first: one_is_bad.then(|| (0, what.to_owned())),
            file,
        })
    }

    /// Octets read so far.
    pub(super) fn offset(&self) -> u64 {
        self.at
    }

    /// Octets of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Goes to a frame that is known to begin at `offset`. Counts and sums are not checked then.
    pub(super) fn seek(&mut self, offset: u64) {
        self.at = offset.min(self.len);
        self.skipped = true;
        self.ended = false;
    }

    /// What stands next. An error means that the disk failed.
    pub(super) fn next(&mut self) -> io::Result<Found> {
        if let Some((offset, what)) = self.first.take() {
            return Ok(Found::Damage { offset, what });
        }
        if self.at >= self.len {
            if self.ended {
                return Ok(Found::Nothing);
            }
            self.ended = true;
            return Ok(damage(self.len, "the file is cut off: its end is missing"));
        }
        if self.ended {
            let from = std::mem::replace(&mut self.at, self.len);
            return Ok(damage(from, "there are octets behind the end"));
        }
        let Some((header, bytes)) = self.header_at(self.at)? else {
            return self.search();
        };
        let from = self.at;
        if header.number != self.frames && !self.skipped {
            self.skipped = true;
            return Ok(damage(from, "frames are missing in front of this one"));
        }
        let mut payload = vec![0; header.len as usize];
        let body = from + HEADER as u64;
        if body + u64::from(header.len) > self.len {
            self.at = self.len;
            self.ended = true;
            return Ok(damage(from, "the file is cut off within a frame"));
        }
        self.file.read_exact_at(&mut payload, body)?;
        self.at = body + u64::from(header.len);
        self.frames = header.number.saturating_add(1);
        if crc32c::crc32c(&payload) != header.payload_sum {
            self.skipped = true;
            return Ok(damage(from, "the checksum of a frame does not hold"));
        }
        if header.kind == END {
            self.ended = true;
            let told = (u64_at(&payload, 0), u32_at(&payload, 8));
            if told != (Some(header.number), Some(self.sums)) && !self.skipped {
                return Ok(damage(from, "the end tells of other frames than there are"));
            }
        }
        self.sums = crc32c::crc32c_append(self.sums, &bytes);
        Ok(Found::Frame {
            kind: header.kind,
            payload,
        })
    }

    fn header_at(&self, at: u64) -> io::Result<Option<(Header, [u8; HEADER])>> {
        let mut bytes = [0; HEADER];
        if at + HEADER as u64 > self.len {
            return Ok(None);
        }
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(Header::decode(&bytes, self.salt).map(|header| (header, bytes)))
    }

    /// Finds the next whole header behind damage.
    fn search(&mut self) -> io::Result<Found> {
        let from = self.at;
        self.skipped = true;
        let mut at = from + 1;
        let mut window = vec![0; SEARCH_OCTETS];
        while at + (HEADER as u64) <= self.len {
            let n = (self.len - at).min(SEARCH_OCTETS as u64) as usize;
            self.file.read_exact_at(&mut window[..n], at)?;
            let places = window[..n].windows(MAGIC.len()).enumerate();
            let places: Vec<usize> = places.filter(|(_, w)| w == MAGIC).map(|(i, _)| i).collect();
            for place in places {
                let place = at + place as u64;
                if let Some((header, _)) = self.header_at(place)? {
                    self.at = place;
                    self.frames = header.number;
                    return Ok(damage(from, "octets that are no frame"));
                }
            }
            // A magic word may stand across the border of two windows.
            at += (n - (MAGIC.len() - 1).min(n - 1)) as u64;
        }
        self.at = self.len;
        self.ended = true;
        Ok(damage(from, "octets that are no frame, up to the end"))
    }

    /// The payload of the last frame, found from behind, when it has this many octets.
    pub(super) fn last(&self, octets: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(at) = self.len.checked_sub((HEADER + octets) as u64) else {
            return Ok(None);
        };
        let Some((header, _)) = self.header_at(at)? else {
            return Ok(None);
        };
        let mut payload = vec![0; octets];
        self.file.read_exact_at(&mut payload, at + HEADER as u64)?;
        let whole = header.kind == END
            && header.len as usize == octets
            && crc32c::crc32c(&payload) == header.payload_sum;
        Ok(whole.then_some(payload))
    }
}

fn damage(offset: u64, what: &str) -> Found {
    Found::Damage {
        offset,
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug)]
    struct InMemory(Vec<u8>);

    impl DiskFile for InMemory {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            let from = self.0.get(offset as usize..).unwrap_or_default();
            let n = from.len().min(buf.len());
            buf[..n].copy_from_slice(&from[..n]);
            Ok(n)
        }
        fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn sample(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut writer = FrameWriter::begin(Vec::new(), 0x5a17).unwrap();
        for (kind, payload) in payloads.iter().enumerate() {
            let (a, b) = payload.split_at(payload.len() / 2);
            writer.frame(kind as u32 % 9, &[a, b]).unwrap();
        }
        assert_eq!(
            writer.offset() as usize,
            64 + payloads.iter().map(|p| p.len() + 28).sum::<usize>()
        );
        writer.end(b"counts").unwrap()
    }

    /// Everything that a file holds: frames, and how many places of damage.
    fn read(bytes: Vec<u8>) -> Option<(Vec<Vec<u8>>, usize)> {
        let mut reader = FrameReader::open(Arc::new(InMemory(bytes))).ok()?;
        let (mut frames, mut damaged) = (Vec::new(), 0);
        loop {
            match reader.next().unwrap() {
                Found::Frame { payload, .. } => frames.push(payload),
                Found::Damage { .. } => damaged += 1,
                Found::Nothing => return Some((frames, damaged)),
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen_and_costs_one_frame() {
        let payloads: Vec<Vec<u8>> = (0..5u8).map(|n| vec![n; 20 + usize::from(n)]).collect();
        let bytes = sample(&payloads);
        let (frames, damaged) = read(bytes.clone()).unwrap();
        assert_eq!((&frames[..5], frames.len(), damaged), (&payloads[..], 6, 0));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let (frames, damaged) = read(bad).unwrap();
            assert!(damaged > 0, "bit {bit}");
            assert!(frames.len() >= 5, "bit {bit}: {} frames", frames.len());
        }
        for len in 0..bytes.len() {
            let cut = read(bytes[..len].to_vec());
            assert!(cut.is_none_or(|(_, damaged)| damaged > 0), "cut at {len}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(read(longer).unwrap().1, 1);
    }

    #[test]
    fn a_frame_that_is_missing_twice_or_out_of_order_is_seen() {
        let payloads: Vec<Vec<u8>> = (0..4u8).map(|n| vec![n; 8]).collect();
        let bytes = sample(&payloads);
        let frame = |n: usize| bytes[64 + 36 * n..64 + 36 * (n + 1)].to_vec();
        let (head, end) = (bytes[..64].to_vec(), bytes[64 + 36 * 4..].to_vec());
        for order in [vec![0, 1, 3], vec![0, 1, 1, 2, 3], vec![1, 0, 2, 3], vec![]] {
            let middle: Vec<u8> = order.iter().flat_map(|n| frame(*n)).collect();
            let (_, damaged) = read([head.clone(), middle, end.clone()].concat()).unwrap();
            assert!(damaged > 0, "{order:?}");
        }
    }

    #[test]
    fn a_frame_of_another_file_that_is_carried_along_is_no_frame() {
        let foreign = sample(&[b"from a stranger".to_vec()]);
        let mut writer = FrameWriter::begin(Vec::new(), 9).unwrap();
        writer.frame(2, &[&foreign]).unwrap();
        let mut bytes = writer.end(b"").unwrap();
        bytes[70] ^= 1; // the header of the frame that carries it
        let (frames, damaged) = read(bytes).unwrap();
        assert_eq!((frames.len(), damaged), (1, 1), "only the end is left");
    }

    #[test]
    fn a_later_version_is_told_as_such() {
        let mut bytes = sample(&[]);
        for at in [0, PREAMBLE] {
            bytes[at + 19] = 2;
            let sum = crc32c::crc32c(&bytes[at..at + 28]);
            bytes[at + 28..at + 32].copy_from_slice(&sum.to_be_bytes());
        }
        let opened = FrameReader::open(Arc::new(InMemory(bytes)));
        assert_eq!(opened.err(), Some(NotReadable::Newer(2)));
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_panic(rest in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..200, bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut file = sample(&[bytes]);
            file.truncate(FIRST as usize + cut.min(file.len() - FIRST as usize));
            file.extend_from_slice(&rest);
            prop_assert!(read(file).is_some());
            let _ = read(rest);
        }
    }
}
