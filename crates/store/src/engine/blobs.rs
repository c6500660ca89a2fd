//! Staging and reading blobs.
//!
//! A blob grows in memory up to [`INLINE_OCTETS_MAX`], and then in a file of its own that is
//! synced before it can be committed; the file vanishes unless a batch takes it. Reads verify what
//! they read. Never: knowing what refers to a blob.

use super::check::{self, CHUNK, Summer};
use super::log::Segments;
use super::sync_pool::SyncPool;
use crate::BoxFuture;
use crate::blob::{BlobError, BlobId, BlobWriter, StagedBlob, StagedBody};
use crate::file::{Disk, DiskFile, Open, is_full};
use crate::rows::{BlobRow, Place};
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Blobs up to this many octets go into the log; longer ones get a file of their own.
pub const INLINE_OCTETS_MAX: u64 = 1024 * 1024;

/// The folder of large blobs.
#[derive(Debug)]
pub(crate) struct LargeFiles {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
}

impl LargeFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Self { disk, folder }
    }

    /// The file of a blob.
    pub(crate) fn path(&self, id: BlobId) -> PathBuf {
        self.folder.join(format!("{id}.blob"))
    }

    pub(crate) fn remove(&self, id: BlobId) {
        if let Err(error) = self.disk.remove(&self.path(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            // Swept at the next opening.
            tracing::warn!(blob = %id, %error, "can't remove the file of a large blob");
        }
    }

    /// Octets of a blob's file with its table; `None` when there is none.
    pub(crate) fn len(&self, id: BlobId) -> io::Result<Option<u64>> {
        match self.disk.open(&self.path(id), Open::Read) {
            Ok(file) => file.len().map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The blobs that have files.
    pub(crate) fn list(&self) -> io::Result<Vec<BlobId>> {
        let names = self.disk.list(&self.folder)?;
        Ok(names
            .iter()
            .filter_map(|name| BlobId::parse(name.strip_suffix(".blob")?))
            .collect())
    }
}

/// A synced file that holds a large staged blob. Dropping it removes the file, unless a commit
/// has taken it.
pub struct StagedFile {
    files: Arc<LargeFiles>,
    id: BlobId,
    check: u32,
    taken: bool,
}

impl StagedFile {
    /// The check word of the blob.
    pub(crate) fn check(&self) -> u32 {
        self.check
    }

    /// The file belongs to the store from now on.
    pub(crate) fn take(&mut self) {
        self.taken = true;
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.taken {
            self.files.remove(self.id);
        }
    }
}

pub(crate) fn blob_error(error: &io::Error) -> BlobError {
    match is_full(error) {
        true => BlobError::Full,
        false => BlobError::Io(error.to_string()),
    }
}

/// A large blob on its way into its file.
struct Growing {
    staged: StagedFile,
    file: Arc<dyn DiskFile>,
    summer: Summer,
    len: u64,
}

impl Growing {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.file
            .write_all_at(bytes, self.len)
            .map_err(|e| blob_error(&e))?;
        self.summer.add(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Writes the table and syncs file and folder.
    fn finish(mut self) -> Result<StagedBlob, BlobError> {
        let (table, word) = self.summer.finish();
        let files = &self.staged.files;
        let write = || {
            self.file.write_all_at(&table, self.len)?;
            self.file.sync()?;
            files.disk.sync_dir(&files.folder)
        };
        write().map_err(|e| blob_error(&e))?;
        self.staged.check = word;
        Ok(StagedBlob {
            id: self.staged.id,
            len: self.len,
            body: StagedBody::File(self.staged),
        })
    }
}

/// Writes one blob.
pub(crate) struct Writer {
    id: BlobId,
    files: Arc<LargeFiles>,
    pool: Arc<SyncPool>,
    short: Vec<u8>,
    long: Option<Growing>,
}

impl Writer {
    pub(crate) fn new(id: BlobId, files: Arc<LargeFiles>, pool: Arc<SyncPool>, len_hint: u64) -> Self {
        let room = if len_hint <= INLINE_OCTETS_MAX {
            len_hint as usize
        } else {
            0
        };
        Self {
            id,
            files,
            pool,
            short: Vec::with_capacity(room),
            long: None,
        }
    }

    fn write_now(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        if let Some(long) = &mut self.long {
            return long.write(bytes);
        }
        if (self.short.len() + bytes.len()) as u64 <= INLINE_OCTETS_MAX {
            self.short.extend_from_slice(bytes);
            return Ok(());
        }
        let file = self.files.disk.open(&self.files.path(self.id), Open::New);
        let file = file.map_err(|e| blob_error(&e))?;
        let long = self.long.insert(Growing {
            staged: StagedFile {
                files: self.files.clone(),
                id: self.id,
                check: 0,
                taken: false,
            },
            file,
            summer: Summer::default(),
            len: 0,
        });
        long.write(&std::mem::take(&mut self.short))?;
        long.write(bytes)
    }
}

impl BlobWriter for Writer {
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), BlobError>> {
        Box::pin(async move { self.write_now(bytes) })
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<StagedBlob, BlobError>> {
        let Some(long) = self.long else {
            let staged = StagedBlob {
                id: self.id,
                len: self.short.len() as u64,
                body: StagedBody::Inline(self.short.into()),
            };
            return Box::pin(async move { Ok(staged) });
        };
        let pool = self.pool;
        Box::pin(async move {
            let done = pool.run(move || long.finish()).await;
            done.unwrap_or_else(|| Err(BlobError::Io("the store is closed".to_owned())))
        })
    }
}

/// Reads a range of a blob. `Ok(None)`: the file is gone, so the blob was dropped meanwhile.
pub(crate) fn read(
    segments: &Segments,
    files: &LargeFiles,
    id: BlobId,
    row: &BlobRow,
    range: Range<u64>,
) -> Result<Option<Bytes>, BlobError> {
    let opened = match row.place {
        Place::Log { segment, offset } => segments.read(segment).map(|file| (file, offset)),
        Place::Own => files.disk.open(&files.path(id), Open::Read).map(|file| (file, 0)),
    };
    let (file, base) = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(blob_error(&error)),
    };
    let end = range.end.min(row.len);
    let start = range.start.min(end);
    if row.len <= CHUNK as u64 {
        let bytes = read_octets(&*file, id, base, row.len)?;
        if crc32c::crc32c(&bytes) != row.check {
            return Err(BlobError::Corrupt(id));
        }
        return Ok(Some(bytes.slice(start as usize..end as usize)));
    }
    let table = read_octets(&*file, id, base + row.len, check::table_octets(row.len))?;
    if crc32c::crc32c(&table) != row.check {
        return Err(BlobError::Corrupt(id));
    }
    let first = start / CHUNK as u64;
    let from = first * CHUNK as u64;
    let to = end.next_multiple_of(CHUNK as u64).min(row.len).max(from);
    let chunks = read_octets(&*file, id, base + from, to - from)?;
    if !check::chunks_are_good(&chunks, first as usize, &table) {
        return Err(BlobError::Corrupt(id));
    }
    Ok(Some(chunks.slice((start - from) as usize..(end - from) as usize)))
}

fn read_octets(file: &dyn DiskFile, id: BlobId, offset: u64, len: u64) -> Result<Bytes, BlobError> {
    let len = usize::try_from(len).map_err(|_| BlobError::Corrupt(id))?;
    let mut bytes = vec![0; len];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(bytes.into()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(BlobError::Corrupt(id)),
        Err(error) => Err(blob_error(&error)),
    }
}
