//! Making a backup, into a folder or as a stream.
//!
//! Blobs first, most of them without holding the store to anything: what came and went meanwhile
//! is sorted out by a last pass, for which one state is held with its blobs. So a long backup does
//! not keep what was deleted from giving its room back, and the last pass has little to do.
//! Never: a file of rows before every blob that it needs is on stable storage.

use super::frame::FrameWriter;
use super::ids::IdSet;
use super::pack::{self, BlobOut, DiskOut, PackSet, with_new};
use super::record::{self, BlobHead, Head, PIECE_OCTETS, Totals, What};
use super::rows::{PAGE_ROWS, RowsError, RowsWriter};
use super::{DataFile, Findings, prune};
use crate::blob::{BlobError, BlobId};
use crate::engine::LogStore;
use crate::engine::dump::Held;
use crate::engine::walk::Raw;
use crate::file::{Disk, is_full};
use crate::rows::{self, BlobRow};
use crate::tables::ReadError;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Passes that hold nothing, at most.
const FREE_PASSES_MAX: usize = 4;
/// When such a pass has found no more than this many octets, the last one may come.
const LITTLE: u64 = 32 << 20;

/// What is to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The time now, microseconds since 1970.
    pub time: i64,
    /// The same as part of a file's name: letters, digits and `-` only.
    pub label: String,
    /// The program and its version, for the backup's head.
    pub program: String,
    /// Backups of this store that stay in the folder, this one included; at least 1.
    pub keep: usize,
    /// The other files of the data folder.
    pub files: Vec<DataFile>,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Blobs looked at so far, in all passes.
    pub blobs_seen: u64,
    /// Blobs that were new and are written.
    pub blobs: u64,
    /// Their octets.
    pub octets: u64,
    /// Rows written.
    pub rows: u64,
}

/// What was made.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The file of rows; `None` for a stream.
    pub file: Option<PathBuf>,
    /// The number of the store.
    pub store: u64,
    /// The commit up to which the backup sees.
    pub seq: u64,
    /// Entries in it.
    pub entries: u64,
    /// Counters in it.
    pub counters: u64,
    /// Blobs in it.
    pub blobs: u64,
    /// Their octets.
    pub blob_octets: u64,
    /// Of these, blobs that were not in the folder yet.
    pub blobs_new: u64,
    /// Octets written, all files together.
    pub octets_written: u64,
    /// Files of the data folder in it.
    pub files: u64,
    /// Damage in the store: what is not in the backup.
    pub damage: Findings,
    /// What was found out about the folder: old packs that can't be read, other stores.
    pub notes: Vec<String>,
    /// Older backups that were removed.
    pub removed: u64,
}

/// Why no backup was made. Those from before are whole.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Another backup is being written there.
    #[error("another backup into {} is running", .0.display())]
    Busy(PathBuf),
    /// There is no room for it.
    #[error("no room for the backup in {}", .0.display())]
    Full(PathBuf),
    /// The place can't be written.
    #[error("{}: {why}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The store can't be read any more.
    #[error("the store can't be read: {0}")]
    Store(#[from] ReadError),
    /// The one who asked has gone.
    #[error("stopped before the end; the backups from before are untouched")]
    Stopped,
}

impl BackupError {
    pub(super) fn io(path: &Path, error: &io::Error) -> Self {
        match is_full(error) {
            true => Self::Full(path.to_owned()),
            false => Self::Io {
                path: path.to_owned(),
                why: error.to_string(),
            },
        }
    }

    fn of_rows(path: &Path, error: RowsError) -> Self {
        match error {
            RowsError::Read(error) => Self::Store(error),
            RowsError::Write(error) => Self::io(path, &error),
            RowsError::Stopped => Self::Stopped,
        }
    }
}

/// Is told how far it is, and says whether to go on.
pub(super) type Tell<'a> = &'a mut dyn FnMut(Progress) -> bool;

/// Copies blobs that are not there yet.
struct Copier<'a> {
    store: &'a LogStore,
    have: IdSet,
    damaged: BTreeMap<BlobId, String>,
    findings: Findings,
    progress: Progress,
}

/// How the copying of one blob went.
enum Copied {
    Whole,
    NotReadable(BlobError),
}

impl Copier<'_> {
    /// All that can be had without holding anything, as often as much came meanwhile.
    fn copy_free(&mut self, out: &mut dyn BlobOut, tell: Tell<'_>) -> Result<(), RowsError> {
        for _ in 0..FREE_PASSES_MAX {
            let before = self.progress.octets;
            self.pass(None, out, tell)?;
            if self.progress.octets - before <= LITTLE {
                break;
            }
        }
        Ok(())
    }

    fn pass(
        &mut self,
        held: Option<&Held<'_>>,
        out: &mut dyn BlobOut,
        tell: Tell<'_>,
    ) -> Result<(), RowsError> {
        let mut walk = match held {
            Some(held) => held.walk(rows::BLOB),
            None => self.store.walk_now(rows::BLOB),
        };
        loop {
            let page = walk.raw_page(PAGE_ROWS)?;
            if page.is_empty() {
                break;
            }
            for raw in page {
                self.progress.blobs_seen += 1;
                self.raw(raw, held, out)?;
                if !tell(self.progress) {
                    return Err(RowsError::Stopped);
                }
            }
        }
        self.have.settle();
        Ok(())
    }

    fn raw(&mut self, raw: Raw, held: Option<&Held<'_>>, out: &mut dyn BlobOut) -> Result<(), RowsError> {
        let row_is_damaged = "its row is damaged in the store";
        let (key, row) = match raw {
            Raw::Row(key, row) => (key, row),
            Raw::Damaged(key) => {
                self.is_damaged(held, rows::blob_of_key(&key), row_is_damaged);
                return Ok(());
            }
            // What lies in the gap is missed, and told, by the entries that refer to it.
            Raw::Gap { .. } => return Ok(()),
        };
        let Some(id) = rows::blob_of_key(&key) else {
            return Ok(());
        };
        let Some(row) = BlobRow::decode(&row) else {
            self.is_damaged(held, Some(id), row_is_damaged);
            return Ok(());
        };
        if self.have.contains(id) {
            return Ok(());
        }
        match self.copy(id, &row, held, out)? {
            Copied::Whole => {
                self.have.add(id);
                self.progress.blobs += 1;
                self.progress.octets += row.len;
            }
            Copied::NotReadable(BlobError::Io(why)) if held.is_none() => {
                tracing::warn!(blob = %id, why, "can't be read now; trying again later");
            }
            Copied::NotReadable(error) => self.is_damaged(held, Some(id), &error.to_string()),
        }
        Ok(())
    }

    /// Damage counts only in the state that is held: in any other one it may be gone.
    fn is_damaged(&mut self, held: Option<&Held<'_>>, id: Option<BlobId>, why: &str) {
        match (held, id) {
            (None, _) => {}
            (Some(_), Some(id)) => {
                self.damaged.insert(id, why.to_owned());
            }
            (Some(_), None) => self.findings.add(|| format!("the row of a blob: {why}")),
        }
    }

    fn copy(
        &self,
        id: BlobId,
        row: &BlobRow,
        held: Option<&Held<'_>>,
        out: &mut dyn BlobOut,
    ) -> io::Result<Copied> {
        let read = |from: u64| -> Result<Bytes, BlobError> {
            let range = from..row.len.min(from + PIECE_OCTETS as u64);
            let wanted = range.end - range.start;
            let bytes = match held {
                Some(held) => held.blob(id, row, range),
                None => self.store.blob_now(id, range),
            }?;
            match bytes.len() as u64 == wanted {
                true => Ok(bytes),
                false => Err(BlobError::Corrupt(id)),
            }
        };
        let head = BlobHead {
            id,
            len: row.len,
            check: row.check,
        };
        let mut at = match read(0) {
            Ok(first) => {
                out.blob(head, &first)?;
                first.len() as u64
            }
            Err(error) => return Ok(Copied::NotReadable(error)),
        };
        while at < row.len {
            match read(at) {
                Ok(piece) => {
                    out.more(id, at, &piece)?;
                    at += piece.len() as u64;
                }
                // What was written of it is half a blob, which a reader passes over.
                Err(error) => return Ok(Copied::NotReadable(error)),
            }
        }
        out.done(head);
        Ok(Copied::Whole)
    }
}

/// Makes a backup in a folder, which is made when it is not there; only blobs that are not in it
/// yet are written. Blocks; call it where that is allowed.
///
/// # Errors
/// [`BackupError`]. The backups that were in the folder before are whole all the same.
pub fn to_folder(
    store: &LogStore,
    disk: &dyn Disk,
    folder: &Path,
    plan: &Plan,
    tell: Tell<'_>,
) -> Result<Report, BackupError> {
    let packs_at = folder.join("packs");
    let rows_at = folder.join("rows");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| BackupError::io(&path, &error)
    };
    for path in [&packs_at, &rows_at] {
        disk.create_dir(path).map_err(failed(path))?;
    }
    let lock = disk
        .lock(&folder.join("lock"))
        .map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => BackupError::Busy(folder.to_owned()),
            _ => BackupError::io(folder, &error),
        })?;
    crate::file::sync_folder(disk, folder).map_err(failed(folder))?;
    for path in [&packs_at, &rows_at] {
        prune::remove_unfinished(disk, path).map_err(failed(path))?;
    }
    let mut notes = Vec::new();
    let (have, next_pack) =
        prune::known(disk, &packs_at, store.identity(), &mut notes).map_err(failed(&packs_at))?;
    let mut copier = Copier {
        store,
        have,
        damaged: BTreeMap::new(),
        findings: Findings::default(),
        progress: Progress::default(),
    };
    let mut packs = PackSet::new(disk, packs_at.clone(), store.identity(), plan.time, next_pack);
    let of_packs = |error| BackupError::of_rows(&packs_at, error);
    copier.copy_free(&mut packs, tell).map_err(of_packs)?;
    let mut held = store.hold();
    copier.pass(Some(&held), &mut packs, tell).map_err(of_packs)?;
    packs.finish().map_err(failed(&packs_at))?;
    held.release_blobs();

    let number = prune::next_number(disk, &rows_at, store.identity()).map_err(failed(&rows_at))?;
    let name = format!("{:016x}-{number:08x}-{}.rows", store.identity(), plan.label);
    let path = rows_at.join(name);
    let out = DiskOut::create(disk, &with_new(&path)).map_err(failed(&path))?;
    let (mut out, mut report) = write_rows(&mut copier, &held, out, What::Rows, plan, &path, tell)?;
    drop(held);
    out.sync().map_err(failed(&path))?;
    disk.rename(&with_new(&path), &path).map_err(failed(&path))?;
    disk.sync_dir(&rows_at).map_err(failed(&rows_at))?;
    report.file = Some(path);
    report.octets_written += packs.octets;
    // The new backup is there; what comes now only tidies.
    let tidied = prune::prune(disk, folder, store.identity(), plan, &mut notes);
    match tidied {
        Ok(removed) => report.removed = removed,
        Err(error) => notes.push(format!("old backups stay for now: {error}")),
    }
    report.notes = notes;
    drop(lock);
    Ok(report)
}

/// Writes a backup as one stream. Blocks; call it where that is allowed.
///
/// # Errors
/// [`BackupError`]. What was written until then is recognised as cut off.
pub fn to_stream<W: Write>(
    store: &LogStore,
    out: W,
    name: &Path,
    plan: &Plan,
    tell: Tell<'_>,
) -> Result<(W, Report), BackupError> {
    let failed = |error: io::Error| BackupError::io(name, &error);
    let mut copier = Copier {
        store,
        have: IdSet::default(),
        damaged: BTreeMap::new(),
        findings: Findings::default(),
        progress: Progress::default(),
    };
    let mut frames = FrameWriter::begin(out, pack::random()).map_err(failed)?;
    let head = head(store, What::Whole, 0, plan);
    frames.frame(record::HEAD, &[&head.encode()]).map_err(failed)?;
    let of_blobs = |error| BackupError::of_rows(name, error);
    copier.copy_free(&mut frames, tell).map_err(of_blobs)?;
    let mut held = store.hold();
    copier.pass(Some(&held), &mut frames, tell).map_err(of_blobs)?;
    held.release_blobs();
    finish_rows(&mut copier, &held, frames, plan, name, tell)
}

fn head(store: &LogStore, what: What, seq: u64, plan: &Plan) -> Head {
    Head {
        what,
        store: store.identity(),
        seq,
        time: plan.time,
        program: plan.program.clone(),
    }
}

fn write_rows<W: Write>(
    copier: &mut Copier<'_>,
    held: &Held<'_>,
    out: W,
    what: What,
    plan: &Plan,
    path: &Path,
    tell: Tell<'_>,
) -> Result<(W, Report), BackupError> {
    let failed = |error: io::Error| BackupError::io(path, &error);
    let mut frames = FrameWriter::begin(out, pack::random()).map_err(failed)?;
    let head = head(copier.store, what, held.seq().0, plan);
    frames.frame(record::HEAD, &[&head.encode()]).map_err(failed)?;
    finish_rows(copier, held, frames, plan, path, tell)
}

/// Writes the rows and the end behind what stands in the file already.
fn finish_rows<W: Write>(
    copier: &mut Copier<'_>,
    held: &Held<'_>,
    mut frames: FrameWriter<W>,
    plan: &Plan,
    path: &Path,
    tell: Tell<'_>,
) -> Result<(W, Report), BackupError> {
    let mut progress = copier.progress;
    let mut tell_rows = |rows| {
        progress.rows = rows;
        tell(progress)
    };
    let mut writer = RowsWriter::new(&mut frames, &copier.damaged, &mut copier.findings);
    let written = writer.write(held, &plan.files, &mut tell_rows);
    let seq = held.seq().0;
    let totals = Totals { seq, ..writer.totals };
    written.map_err(|error| BackupError::of_rows(path, error))?;
    let octets = frames.offset();
    let out = frames
        .end(&totals.encode())
        .map_err(|error| BackupError::io(path, &error))?;
    let report = Report {
        file: None,
        store: copier.store.identity(),
        seq,
        entries: totals.entries,
        counters: totals.counters,
        blobs: totals.blobs,
        blob_octets: totals.blob_octets,
        blobs_new: copier.progress.blobs,
        octets_written: octets,
        files: totals.files,
        damage: std::mem::take(&mut copier.findings),
        notes: Vec::new(),
        removed: 0,
    };
    Ok((out, report))
}
