//! Packs: files of blobs. A pack is written under another name, ended with an index of what is in
//! it, synced, and only then gets its name; from then on it never changes.
//!
//! Never: a pack with its name that is not whole.

use super::frame::{END_OWN, FIRST, Found, FrameReader, FrameWriter, NotReadable};
use super::record::{self, BlobHead, Head, TOTALS_OCTETS, Totals, What};
use crate::blob::BlobId;
use crate::file::{Disk, DiskFile, Open};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A pack is ended when it has reached this many octets.
const PACK_OCTETS: u64 = 256 << 20;
/// Octets that are collected before they are written to a file.
const BUFFER_OCTETS: usize = 1 << 20;
/// How a file ends that has not got its name yet.
pub(super) const NEW: &str = ".new";
const PACK: &str = ".pack";

/// A file on a [`Disk`], written from front to end.
pub(super) struct DiskOut {
    file: Arc<dyn DiskFile>,
    offset: u64,
    buffer: Vec<u8>,
}

impl DiskOut {
    /// Begins a file anew, in the place of one that was left behind.
    pub(super) fn create(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let file = disk.open(path, Open::Write)?;
        file.set_len(0)?;
        Ok(Self {
            file,
            offset: 0,
            buffer: Vec::with_capacity(BUFFER_OCTETS),
        })
    }

    /// Everything reaches stable storage.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync()
    }
}

impl Write for DiskOut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_OCTETS {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Where blobs are put.
pub(super) trait BlobOut {
    /// Begins a blob with its first octets, and its end if these are all.
    fn blob(&mut self, head: BlobHead, first: &[u8]) -> io::Result<()>;
    /// Goes on with the blob begun last.
    fn more(&mut self, id: BlobId, offset: u64, piece: &[u8]) -> io::Result<()>;
    /// The blob begun last is whole.
    fn done(&mut self, head: BlobHead);
}

impl<W: Write> BlobOut for FrameWriter<W> {
    fn blob(&mut self, head: BlobHead, first: &[u8]) -> io::Result<()> {
        self.frame(record::BLOB, &[&head.encode(), first])
    }

    fn more(&mut self, id: BlobId, offset: u64, piece: &[u8]) -> io::Result<()> {
        self.frame(record::MORE, &[&record::more_head(id, offset), piece])
    }

    fn done(&mut self, _head: BlobHead) {}
}

/// The pack that is being written.
struct Current {
    frames: FrameWriter<DiskOut>,
    path: PathBuf,
    index: Vec<(BlobId, u64)>,
}

/// Writes as many packs as it takes.
pub(super) struct PackSet<'a> {
    disk: &'a dyn Disk,
    folder: PathBuf,
    head: Head,
    next: u32,
    current: Option<Current>,
    /// Octets of the packs that were finished.
    pub(super) octets: u64,
    /// How many were finished.
    pub(super) packs: u64,
}

impl<'a> PackSet<'a> {
    /// Packs of the store `store` in `folder`; `next` is the first number to use.
    pub(super) fn new(disk: &'a dyn Disk, folder: PathBuf, store: u64, time: i64, next: u32) -> Self {
        Self {
            disk,
            folder,
            head: Head {
                what: What::Pack,
                store,
                seq: 0,
                time,
                program: String::new(),
            },
            next,
            current: None,
            octets: 0,
            packs: 0,
        }
    }

    fn current(&mut self) -> io::Result<&mut Current> {
        let full = self
            .current
            .as_ref()
            .is_some_and(|c| c.frames.offset() >= PACK_OCTETS);
        if full {
            self.finish()?;
        }
        match &mut self.current {
            Some(current) => Ok(current),
            slot @ None => {
                let name = format!("{:016x}-{:08x}{PACK}", self.head.store, self.next);
                self.next += 1;
                let path = self.folder.join(name);
                let out = DiskOut::create(self.disk, &with_new(&path))?;
                let mut frames = FrameWriter::begin(out, random())?;
                frames.frame(record::HEAD, &[&self.head.encode()])?;
                Ok(slot.insert(Current {
                    frames,
                    path,
                    index: Vec::new(),
                }))
            }
        }
    }

    /// Ends the pack that is being written: it is on stable storage, under its name.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let Some(mut current) = self.current.take() else {
            return Ok(());
        };
        let totals = Totals {
            blobs: current.index.len() as u64,
            blob_octets: current.index.iter().map(|(_, len)| len).sum(),
            index_at: current.frames.offset(),
            ..Totals::default()
        };
        for items in current.index.chunks(record::FRAME_OCTETS / 24) {
            let payload: Vec<u8> = items
                .iter()
                .flat_map(|(id, len)| record::more_head(*id, *len))
                .collect();
            current.frames.frame(record::INDEX, &[&payload])?;
        }
        let mut out = current.frames.end(&totals.encode())?;
        out.sync()?;
        self.disk.rename(&with_new(&current.path), &current.path)?;
        self.disk.sync_dir(&self.folder)?;
        self.octets += out.offset;
        self.packs += 1;
        Ok(())
    }
}

impl BlobOut for PackSet<'_> {
    fn blob(&mut self, head: BlobHead, first: &[u8]) -> io::Result<()> {
        self.current()?.frames.blob(head, first)
    }

    fn more(&mut self, id: BlobId, offset: u64, piece: &[u8]) -> io::Result<()> {
        match &mut self.current {
            Some(current) => current.frames.more(id, offset, piece),
            None => Err(io::Error::other("no blob was begun")),
        }
    }

    fn done(&mut self, head: BlobHead) {
        if let Some(current) = &mut self.current {
            current.index.push((head.id, head.len));
        }
    }
}

/// The name that a file has until it is whole.
pub(super) fn with_new(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(NEW);
    name.into()
}

/// A salt, from the operating system's randomness by way of the standard library's hash keys.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

/// A pack in a folder.
#[derive(Clone, Debug)]
pub(super) struct PackFile {
    pub(super) store: u64,
    pub(super) number: u32,
    pub(super) path: PathBuf,
}

/// The packs of a folder, in the order of their numbers.
pub(super) fn list(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<PackFile>> {
    let names = disk.list(folder)?;
    let pack = |name: &String| {
        let (store, number) = name.strip_suffix(PACK)?.split_once('-')?;
        Some(PackFile {
            store: u64::from_str_radix(store, 16).ok()?,
            number: u32::from_str_radix(number, 16).ok()?,
            path: folder.join(name),
        })
    };
    let mut packs: Vec<PackFile> = names.iter().filter_map(pack).collect();
    packs.sort_unstable_by_key(|pack| (pack.store, pack.number));
    Ok(packs)
}

/// The blobs of a pack with their octets, and the octets of its file.
pub(super) type Contents = (Vec<(BlobId, u64)>, u64);

/// What the index of a pack says is in it, and the octets of the file. `None` when the index can't
/// be read: the pack then counts for nothing.
pub(super) fn index(disk: &dyn Disk, pack: &PackFile) -> io::Result<Option<Contents>> {
    let opened = FrameReader::open(disk.open(&pack.path, Open::Read)?);
    let mut frames = match opened {
        Ok(frames) => frames,
        Err(NotReadable::Io(why)) => return Err(io::Error::other(why)),
        Err(_) => return Ok(None),
    };
    let end = frames.last(END_OWN + TOTALS_OCTETS)?;
    let Some(totals) = end.and_then(|end| Totals::decode(end.get(END_OWN..)?)) else {
        return Ok(None);
    };
    frames.seek(FIRST);
    match frames.next()? {
        Found::Frame {
            kind: record::HEAD,
            payload,
        } if Head::decode(&payload)
            .is_some_and(|head| head.what == What::Pack && head.store == pack.store) => {}
        _ => return Ok(None),
    }
    frames.seek(totals.index_at);
    let mut items = Vec::new();
    while let Found::Frame {
        kind: record::INDEX,
        payload,
    } = frames.next()?
    {
        match record::decode_index(&payload) {
            Some(more) => items.extend(more),
            None => return Ok(None),
        }
    }
    Ok((items.len() as u64 == totals.blobs).then(|| (items, frames.len())))
}
