//! Making a store out of rows and blobs that come in any order: the engine's side of a restore.
//!
//! It writes what a store writes: groups into segments of the log, and the same rows into the
//! index. The superblock comes last, under its name only when all else is on stable storage; until
//! then one stands there that says what this is, and the store does not open.
//! Never: an existing store touched; a row that was not asked for, but for the bookkeeping that
//! follows from the others (blobs, segments).

use super::blobs::{INLINE_OCTETS_MAX, LargeFiles};
use super::check::Summer;
use super::group::{Buffers, Builder, Position};
use super::index::Index;
use super::opening_of;
use super::recovery::{RESTORING, SUPERBLOCK};
use crate::blob::BlobId;
use crate::file::{Disk, DiskFile, Open, sync_folder};
use crate::overlay::Overlay;
use crate::rows::{self, BlobRow, Place, SegmentRow};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A group is written when it has reached this many octets.
const GROUP_OCTETS: usize = 4 << 20;
/// A segment is ended when it has reached this many octets.
const SEGMENT_OCTETS: u64 = 64 << 20;
/// Rows go into the index when they have reached about this many octets.
const INDEX_OCTETS: usize = 16 << 20;
/// Memory for the index's pages, in octets.
const INDEX_CACHE_OCTETS: usize = 64 << 20;

/// A large blob on its way into its file.
struct Large {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    summer: Summer,
    at: u64,
}

/// A store that is being made.
pub(crate) struct Restorer {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    identity: u64,
    at: Position,
    file: Arc<dyn DiskFile>,
    builder: Builder,
    writes: Vec<(Bytes, Option<Bytes>)>,
    writes_octets: usize,
    index: Index,
    rows: Overlay,
    rows_octets: usize,
    segments: BTreeMap<u64, SegmentRow>,
    /// The newest opening in which one of the blobs was staged.
    opening: u64,
    large: Option<Large>,
}

fn index_error(error: &redb::Error) -> io::Error {
    io::Error::other(error.to_string())
}

impl Restorer {
    /// Begins a store in an empty folder. Its commits go on behind `seq`.
    pub(crate) fn begin(disk: &Arc<dyn Disk>, path: &Path, identity: u64, seq: u64) -> io::Result<Self> {
        disk.create_dir(&path.join("log"))?;
        disk.create_dir(&path.join("large"))?;
        let mark = disk.open(&path.join("store"), Open::New)?;
        mark.write_all_at(RESTORING.as_bytes(), 0)?;
        mark.sync()?;
        sync_folder(&**disk, path)?;
        let at = Position {
            next_seq: seq + 1,
            ..Position::START
        };
        let index = Index::open(disk.clone(), path, INDEX_CACHE_OCTETS).map_err(|e| index_error(&e))?;
        Ok(Self {
            file: segment(&**disk, path, at.segment)?,
            disk: disk.clone(),
            path: path.to_owned(),
            identity,
            at,
            builder: Builder::new(at, identity, Buffers::default()),
            writes: Vec::new(),
            writes_octets: 0,
            index,
            rows: Overlay::new_sync(),
            rows_octets: 0,
            segments: BTreeMap::new(),
            opening: 0,
            large: None,
        })
    }

    /// Sets a row of the entries' or the counters' space.
    pub(crate) fn row(&mut self, space: u8, key: &[u8], row: Bytes) -> io::Result<()> {
        let mut row_key = Vec::with_capacity(1 + key.len());
        row_key.push(space);
        row_key.extend_from_slice(key);
        self.write(row_key, row)
    }

    fn write(&mut self, key: Vec<u8>, row: Bytes) -> io::Result<()> {
        self.writes_octets += key.len() + row.len();
        self.writes.push((key.into(), Some(row)));
        if self.writes_octets + self.builder.octets() >= GROUP_OCTETS {
            self.end_group()?;
        }
        Ok(())
    }

    /// Adds a blob of at most [`INLINE_OCTETS_MAX`] octets.
    pub(crate) fn short_blob(&mut self, id: BlobId, octets: &[u8], refs: u64) -> io::Result<()> {
        let (place, check) = self.builder.blob(octets);
        let figures = self.segments.entry(self.at.segment).or_default();
        figures.blobs += 1;
        figures.octets += octets.len() as u64;
        let len = octets.len() as u64;
        self.blob_row(
            id,
            BlobRow {
                refs,
                len,
                check,
                place,
            },
        )
    }

    fn blob_row(&mut self, id: BlobId, row: BlobRow) -> io::Result<()> {
        self.opening = self.opening.max(opening_of(id));
        self.write(rows::blob_key(id), row.encode())
    }

    /// Begins a blob. A long one comes in pieces, into a file of its own.
    pub(crate) fn begin_blob(&mut self, id: BlobId, len: u64) -> io::Result<()> {
        if len <= INLINE_OCTETS_MAX {
            return Ok(());
        }
        let path = LargeFiles::new(self.disk.clone(), self.path.join("large")).path(id);
        let file = self.disk.open(&path, Open::Write)?;
        file.set_len(0)?;
        self.large = Some(Large {
            path,
            file,
            summer: Summer::default(),
            at: 0,
        });
        Ok(())
    }

    /// Whether a long blob was begun and has not ended.
    pub(crate) fn is_in_large_blob(&self) -> bool {
        self.large.is_some()
    }

    /// The next octets of the long blob.
    pub(crate) fn large_piece(&mut self, octets: &[u8]) -> io::Result<()> {
        let Some(large) = &mut self.large else {
            return Ok(());
        };
        large.file.write_all_at(octets, large.at)?;
        large.summer.add(octets);
        large.at += octets.len() as u64;
        Ok(())
    }

    /// Ends the long blob; one that is not whole is removed.
    pub(crate) fn end_large(&mut self, id: BlobId, len: u64, refs: u64, whole: bool) -> io::Result<()> {
        let Some(large) = self.large.take() else {
            return Ok(());
        };
        if !whole {
            return self.disk.remove(&large.path);
        }
        let (table, check) = large.summer.finish();
        large.file.write_all_at(&table, large.at)?;
        large.file.sync()?;
        let place = Place::Own;
        self.blob_row(
            id,
            BlobRow {
                refs,
                len,
                check,
                place,
            },
        )
    }

    fn end_group(&mut self) -> io::Result<()> {
        if self.writes.is_empty() {
            return Ok(());
        }
        self.builder.batch(&self.writes);
        let done = std::mem::replace(
            &mut self.builder,
            Builder::new(self.at, self.identity, Buffers::default()),
        );
        let (buffers, end) = done.finish();
        self.file.write_all_at(buffers.octets(), self.at.offset)?;
        self.at = end;
        for (key, row) in self.writes.drain(..) {
            self.rows_octets += key.len() + row.as_ref().map_or(0, |row| row.len());
            self.rows.insert_mut(key, row);
        }
        self.writes_octets = 0;
        if self.rows_octets >= INDEX_OCTETS {
            self.apply_rows()?;
        }
        if self.at.offset >= SEGMENT_OCTETS {
            self.file.sync()?;
            (self.at.segment, self.at.offset) = (self.at.segment + 1, 0);
            self.file = segment(&*self.disk, &self.path, self.at.segment)?;
        }
        self.builder = Builder::new(self.at, self.identity, buffers);
        Ok(())
    }

    fn apply_rows(&mut self) -> io::Result<()> {
        self.index
            .apply_to(self.rows.iter(), self.at)
            .map_err(|error| index_error(&error))?;
        (self.rows, self.rows_octets) = (Overlay::new_sync(), 0);
        Ok(())
    }

    /// Writes what is left, and makes the store one that opens.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        for (segment, figures) in std::mem::take(&mut self.segments) {
            self.write(rows::segment_key(segment), figures.encode())?;
        }
        self.end_group()?;
        self.file.sync()?;
        self.disk.sync_dir(&self.path.join("log"))?;
        self.disk.sync_dir(&self.path.join("large"))?;
        self.apply_rows()?;
        self.index
            .apply(
                std::iter::empty(),
                &[("store", self.identity), ("opening", self.opening)],
            )
            .map_err(|error| index_error(&error))?;
        self.index.close();
        let new = self.path.join("store.new");
        let file = self.disk.open(&new, Open::Write)?;
        file.set_len(0)?;
        file.write_all_at(format!("{SUPERBLOCK}\n{:016x}\n", self.identity).as_bytes(), 0)?;
        file.sync()?;
        self.disk.rename(&new, &self.path.join("store"))?;
        self.disk.sync_dir(&self.path)
    }
}

/// Makes the file of a segment.
fn segment(disk: &dyn Disk, path: &Path, number: u64) -> io::Result<Arc<dyn DiskFile>> {
    disk.open(&path.join("log").join(format!("{number:016x}.log")), Open::New)
}
