//! The index: rows behind the log, in redb, with the log position up to which they are applied.
//!
//! Promises: rows and position change in one durable transaction; each row carries a checksum
//! that is verified when it is read. Never: being ahead of the synced log, or the only copy of
//! anything that the log has not been asked to forget.

use super::group::Position;
use crate::file::{Disk, DiskFile, Open};
use crate::overlay::{Direction, Layer, LayerRow};
use crate::rows;
use crate::tables::ReadError;
use bytes::Bytes;
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTableMetadata, TableDefinition};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("rows");
const META: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("meta");
/// Octets of the checksum behind each row.
const SUM: usize = 4;

/// redb's file, on our file layer. Once revoked it fails everything, so that a handle left over
/// from before a reopening can neither write nor read pages that others have changed since.
#[derive(Debug)]
struct Backend {
    file: Arc<dyn DiskFile>,
    revoked: Arc<AtomicBool>,
    /// Whether redb's syncs are done. Not while a file is made that nothing relies on yet.
    syncs: bool,
}

impl Backend {
    fn file(&self) -> io::Result<&dyn DiskFile> {
        if self.revoked.load(Ordering::Acquire) {
            return Err(io::Error::other("the index was closed; take a new snapshot"));
        }
        Ok(&*self.file)
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file()?.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file()?.read_exact_at(out, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file()?.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        match self.syncs {
            true => self.file()?.sync(),
            false => self.file().map(|_| ()),
        }
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file()?.write_all_at(data, offset)
    }
}

/// The open index.
pub(crate) struct Index {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    cache_octets: usize,
    /// `None` only while it is being reopened, or when that failed.
    database: Option<Database>,
    revoked: Arc<AtomicBool>,
}

impl Index {
    /// Opens `index.redb` in a folder, creating it when it is not there.
    pub(crate) fn open(disk: Arc<dyn Disk>, folder: &Path, cache_octets: usize) -> Result<Self, redb::Error> {
        let path = folder.join("index.redb");
        let mut index = Self {
            disk: disk.clone(),
            path: path.clone(),
            cache_octets,
            database: None,
            revoked: Arc::default(),
        };
        let names = disk.list(folder)?;
        if !names.iter().any(|name| name == "index.redb") {
            // A file that redb was still making when the power went can't be opened. So it is made
            // under another name, which it loses when it is whole, and synced once, at the end.
            index.path = folder.join("index.new");
            if names.iter().any(|name| name == "index.new") {
                disk.remove(&index.path)?;
            }
            index.open_file(false)?;
            index.apply(std::iter::empty(), &[])?;
            index.close();
            disk.open(&index.path, Open::Write)?.sync()?;
            disk.rename(&index.path, &path)?;
            disk.sync_dir(folder)?;
            index.path = path;
        }
        index.reopen()?;
        Ok(index)
    }

    /// Opens the file anew: what redb needs after any failed write. Views from before fail.
    pub(crate) fn reopen(&mut self) -> Result<(), redb::Error> {
        self.open_file(true)
    }

    fn open_file(&mut self, syncs: bool) -> Result<(), redb::Error> {
        self.close();
        self.revoked = Arc::default();
        let file = self.disk.open(&self.path, Open::Write)?;
        let backend = Backend {
            file,
            revoked: self.revoked.clone(),
            syncs,
        };
        let mut builder = Database::builder();
        builder.set_cache_size(self.cache_octets);
        let opened = step(|| Ok(builder.create_with_backend(backend)?))?;
        self.database = Some(opened);
        Ok(())
    }

    /// Closes the file. Views fail from now on.
    pub(crate) fn close(&mut self) {
        // redb says goodbye to its file here, so the revocation comes after. Whether it can does
        // not matter: what it would write can be found again.
        let _ = contained(|| drop(self.database.take()));
        self.revoked.store(true, Ordering::Release);
    }

    fn database(&self) -> Result<&Database, redb::Error> {
        self.database.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    /// Reads a number kept beside the rows.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, redb::Error> {
        step(|| self.number_now(name))
    }

    fn number_now(&self, name: &str) -> Result<Option<u64>, redb::Error> {
        let transaction = self.database()?.begin_read()?;
        let table = match transaction.open_table(META) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let found = table.get(name)?;
        Ok(found.and_then(|n| n.value().try_into().ok().map(u64::from_be_bytes)))
    }

    /// The position up to which the log is applied; the start of the log in a new index.
    pub(crate) fn position(&self) -> Result<Position, redb::Error> {
        let number = |name| self.number(name);
        let start = Position::START;
        Ok(Position {
            segment: number("segment")?.unwrap_or(start.segment),
            offset: number("offset")?.unwrap_or(start.offset),
            next_seq: number("next_seq")?.unwrap_or(start.next_seq),
            chain: number("chain")?.map_or(start.chain, |n| n as u32),
        })
    }

    /// Applies rows and numbers in one durable transaction.
    pub(crate) fn apply<'a>(
        &self,
        rows: impl Iterator<Item = (&'a Bytes, &'a Option<Bytes>)>,
        numbers: &[(&str, u64)],
    ) -> Result<(), redb::Error> {
        step(|| self.apply_now(rows, numbers))
    }

    fn apply_now<'a>(
        &self,
        rows: impl Iterator<Item = (&'a Bytes, &'a Option<Bytes>)>,
        numbers: &[(&str, u64)],
    ) -> Result<(), redb::Error> {
        let mut transaction = self.database()?.begin_write()?;
        // Opening after a crash must not walk the whole file.
        transaction.set_quick_repair(true);
        {
            let mut table = transaction.open_table(ROWS)?;
            let mut summed = Vec::new();
            for (key, row) in rows {
                match row {
                    Some(row) => {
                        summed.clear();
                        summed.extend_from_slice(row);
                        summed.extend_from_slice(&sum(key, row).to_be_bytes());
                        table.insert(key.as_ref(), summed.as_slice())?;
                    }
                    None => drop(table.remove(key.as_ref())?),
                }
            }
            let mut meta = transaction.open_table(META)?;
            for (name, number) in numbers {
                meta.insert(*name, number.to_be_bytes().as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Applies rows together with the position that they lead to.
    pub(crate) fn apply_to<'a>(
        &self,
        rows: impl Iterator<Item = (&'a Bytes, &'a Option<Bytes>)>,
        position: Position,
    ) -> Result<(), redb::Error> {
        let numbers = [
            ("segment", position.segment),
            ("offset", position.offset),
            ("next_seq", position.next_seq),
            ("chain", u64::from(position.chain)),
        ];
        self.apply(rows, &numbers)
    }

    /// A view of the rows as they are now.
    pub(crate) fn view(&self) -> Result<IndexView, redb::Error> {
        step(|| {
            let transaction = self.database()?.begin_read()?;
            Ok(IndexView {
                rows: Arc::new(transaction.open_table(ROWS)?),
                meta: Arc::new(transaction.open_table(META)?),
                revoked: self.revoked.clone(),
            })
        })
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.close();
    }
}

fn sum(key: &[u8], row: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), row)
}

fn read_error(error: &redb::StorageError) -> ReadError {
    ReadError::Io(error.to_string())
}

/// A consistent view of the index.
#[derive(Clone)]
pub(crate) struct IndexView {
    rows: Arc<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    meta: Arc<ReadOnlyTable<&'static str, &'static [u8]>>,
    revoked: Arc<AtomicBool>,
}

/// What a walk meets in the index.
pub(crate) enum IndexRow {
    /// Key and row, the checksum verified.
    Row(Bytes, Bytes),
    /// The row under this key is damaged.
    Damaged(Bytes),
    /// The index's own pages can't be read here; the walk can't go on from this place.
    Unreadable(String),
}

impl IndexView {
    /// A row, its checksum verified.
    pub(crate) fn row(&self, row_key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let read = || {
            let found = self.rows.get(row_key).map_err(|e| read_error(&e))?;
            found.map(|row| verified(row_key, row.value())).transpose()
        };
        contained(read).unwrap_or_else(|why| Err(ReadError::Io(why)))
    }

    /// The log position up to which this view has everything; the start of the log in a new index.
    pub(crate) fn position(&self) -> Position {
        let start = Position::START;
        Position {
            segment: self.number("segment").unwrap_or(start.segment),
            offset: self.number("offset").unwrap_or(start.offset),
            next_seq: self.number("next_seq").unwrap_or(start.next_seq),
            chain: self.number("chain").map_or(start.chain, |n| n as u32),
        }
    }

    /// A number kept beside the rows.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        let read = || {
            let found = self.meta.get(name).ok()??;
            found.value().try_into().ok().map(u64::from_be_bytes)
        };
        contained(read).ok()?
    }

    /// How many rows there are; 0 when that can't be read.
    pub(crate) fn len(&self) -> u64 {
        self.rows.len().unwrap_or(0)
    }

    /// Whether the index was closed since, so that nothing can be read through this view any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// The rows from `start` (inclusive) to `end` (exclusive; empty: no end), damage told. redb
    /// asserts here and there what a damaged page may belie, so its panics are contained.
    pub(crate) fn rows_told(
        &self,
        start: &[u8],
        end: &[u8],
    ) -> Result<Box<dyn Iterator<Item = IndexRow>>, String> {
        if !end.is_empty() && start >= end {
            return Ok(Box::new(std::iter::empty()));
        }
        let rows = contained(|| match end {
            [] => self.rows.range::<&[u8]>(start..),
            end => self.rows.range::<&[u8]>(start..end),
        });
        let mut rows = rows?.map_err(|error| error.to_string())?;
        Ok(Box::new(std::iter::from_fn(move || {
            let next = contained(|| {
                let found = rows.next()?;
                Some(found.map(|(key, row)| row_told(key.value(), row.value())))
            });
            match next {
                Ok(found) => found.map(|row| row.unwrap_or_else(|e| IndexRow::Unreadable(e.to_string()))),
                Err(why) => Some(IndexRow::Unreadable(why)),
            }
        })))
    }

    /// The rows from `start` (inclusive) to `end` (exclusive). Damaged ones are told in the log and
    /// left out: one bad row must not hide all the others of its table.
    pub(crate) fn layer(
        &self,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> Result<Layer<'static>, ReadError> {
        if start >= end {
            return Ok(Box::new(std::iter::empty()));
        }
        let rows = contained(|| self.rows.range::<&[u8]>(start..end));
        let mut rows = rows.map_err(ReadError::Io)?.map_err(|e| read_error(&e))?;
        let mut ended = false;
        let next = move || {
            if ended {
                return None;
            }
            let next = contained(|| match direction {
                Direction::Forward => rows.next().map(layer_row),
                Direction::Backward => rows.next_back().map(layer_row),
            });
            // Behind a page that can't be read there is no going on.
            next.unwrap_or_else(|why| {
                ended = true;
                Some(Err(ReadError::Io(why)))
            })
        };
        // A damaged key leads a search astray; who reads page by page must come further all the same.
        let (start, end) = (start.to_vec(), end.to_vec());
        let belongs = move |row: &LayerRow| match row {
            Ok((key, _)) => {
                let inside = (start.as_slice()..end.as_slice()).contains(&key.as_ref());
                if !inside {
                    let key = rows::key_of_entry(key);
                    tracing::error!(?key, "the index is damaged: a search met a row of another place");
                }
                inside
            }
            Err(_) => is_not_damaged(row),
        };
        Ok(Box::new(std::iter::from_fn(next).filter(belongs)))
    }
}

/// Runs a step of redb's; what to say when it panics. redb trusts what stands in its pages, and
/// panics where damage belies it.
fn contained<T>(step: impl FnOnce() -> T) -> Result<T, String> {
    let step = std::panic::AssertUnwindSafe(step);
    std::panic::catch_unwind(step).map_err(|_| "a page of the index is damaged".to_owned())
}

/// The same, where redb's own errors are told.
fn step<T>(step: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    contained(step).unwrap_or_else(|why| Err(redb::Error::Corrupted(why)))
}

fn row_told(row_key: &[u8], summed: &[u8]) -> IndexRow {
    let key = Bytes::copy_from_slice(row_key);
    match verified(row_key, summed) {
        Ok(row) => IndexRow::Row(key, row),
        Err(_) => IndexRow::Damaged(key),
    }
}

type Found<'a> = (
    redb::AccessGuard<'a, &'static [u8]>,
    redb::AccessGuard<'a, &'static [u8]>,
);

fn layer_row(found: Result<Found<'_>, redb::StorageError>) -> LayerRow {
    let (key, row) = found.map_err(|e| read_error(&e))?;
    let row = verified(key.value(), row.value())?;
    Ok((Bytes::copy_from_slice(key.value()), Some(row)))
}

fn is_not_damaged(row: &LayerRow) -> bool {
    if let Err(error @ ReadError::Corrupt(_)) = row {
        tracing::error!(%error, "a damaged row is left out");
        return false;
    }
    true
}

fn verified(row_key: &[u8], summed: &[u8]) -> Result<Bytes, ReadError> {
    let row = summed.split_last_chunk::<SUM>();
    match row {
        Some((row, check)) if u32::from_be_bytes(*check) == sum(row_key, row) => {
            Ok(Bytes::copy_from_slice(row))
        }
        _ => Err(ReadError::Corrupt(rows::key_of_entry(row_key))),
    }
}
