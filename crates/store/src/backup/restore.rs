//! Restoring: a backup becomes a new store.
//!
//! The rows are surveyed first, so that a backup which can't be restored is refused before anything
//! is written; the blobs are checked on their way. The new store has a number of its own: what it
//! will store is never taken for what the old one stored after the backup.
//! Never: a store that opens before all of it is on stable storage; one in place of another.

use super::frame::{Found, FrameReader, NotReadable};
use super::read::{self, BlobSink, OpenedBackup, Survey, Wanted};
use super::record;
use super::{DataFile, Findings};
use crate::engine::restore::Restorer;
use crate::file::{Disk, Open};
use crate::rows;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to restore.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreOptions {
    /// Go on without what is damaged or missing in the backup.
    pub skip_damage: bool,
    /// The new store's number; `None` takes a random one.
    pub identity: Option<u64>,
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the backup holds, and what was wrong with it.
    pub survey: Survey,
    /// Blobs that were restored.
    pub blobs: u64,
    /// The files of the data folder, for the caller to write.
    pub files: Vec<DataFile>,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup can't be read at all.
    #[error("{}: {why}", path.display())]
    NotReadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: NotReadable,
    },
    /// It is damaged, and that was not to be passed over.
    #[error("the backup is damaged in {} places; the first: {}", .0.count, .0.named.first().map_or("", |s| s))]
    Damaged(Findings),
    /// There is something where the store is to be.
    #[error("{} is not empty; a backup is restored into an empty folder only", .0.display())]
    NotEmpty(PathBuf),
    /// The new store can't be written.
    #[error("the new store in {} can't be written: {why}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
}

/// Restores the backup at `from` into a store in the folder `to`, which must not be there or be
/// empty. `tell` is told octets read of octets to read in the file that is being read. Blocks.
///
/// # Errors
/// [`RestoreError`]. A store that was begun is left behind and refuses to open: remove it.
pub fn restore(
    disk: &Arc<dyn Disk>,
    from: &Path,
    to: &Path,
    options: RestoreOptions,
    tell: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Restored, RestoreError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |why: NotReadable| RestoreError::NotReadable { path, why }
    };
    let written = |error: io::Error| RestoreError::Write {
        path: to.to_owned(),
        why: error.to_string(),
    };
    if disk.list(to).is_ok_and(|names| !names.is_empty()) {
        return Err(RestoreError::NotEmpty(to.to_owned()));
    }
    let from_disk = &**disk;
    let files = OpenedBackup::find(from_disk, from).map_err(unreadable(from))?;
    let (mut survey, mut wanted) =
        read::survey_rows(from_disk, &files.rows, tell).map_err(unreadable(&files.rows))?;
    if !survey.findings.is_empty() && !options.skip_damage {
        return Err(RestoreError::Damaged(survey.findings));
    }
    let identity = options.identity.unwrap_or_else(super::pack::random);
    let restorer = Restorer::begin(disk, to, identity, survey.seq).map_err(written)?;
    let mut into = Into {
        restorer,
        blobs: 0,
        short: Vec::new(),
    };
    for pack in &files.packs {
        let findings = (&mut survey.findings, !files.whole);
        match read::read_blobs(from_disk, pack, &mut wanted, &mut into, findings, tell) {
            Ok(()) => {}
            Err(error @ NotReadable::Io(_)) => return Err(unreadable(pack)(error)),
            Err(other) => survey.findings.add(|| format!("{}: {other}", pack.display())),
        }
    }
    // Damage in packs that costs nothing which is needed does not matter here.
    let mut missing = Findings::default();
    read::tell_missing(&wanted, &mut missing);
    if !missing.is_empty() && !options.skip_damage {
        return Err(RestoreError::Damaged(missing));
    }
    survey.findings.count += missing.count;
    survey.findings.named.extend(missing.named);
    let data = rows_into(from_disk, &files.rows, &mut into.restorer, tell)
        .map_err(|error| error.told(&files.rows, to))?;
    into.restorer.finish().map_err(written)?;
    Ok(Restored {
        survey,
        blobs: into.blobs,
        files: data,
    })
}

/// Which side failed.
enum Side {
    From(NotReadable),
    To(io::Error),
}

impl Side {
    fn told(self, from: &Path, to: &Path) -> RestoreError {
        match self {
            Side::From(why) => RestoreError::NotReadable {
                path: from.to_owned(),
                why,
            },
            Side::To(error) => RestoreError::Write {
                path: to.to_owned(),
                why: error.to_string(),
            },
        }
    }
}

fn rows_into(
    disk: &dyn Disk,
    path: &Path,
    restorer: &mut Restorer,
    tell: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Vec<DataFile>, Side> {
    let opened = disk.open(path, Open::Read).map_err(NotReadable::from);
    let mut frames = opened.and_then(FrameReader::open).map_err(Side::From)?;
    let mut files = Vec::new();
    loop {
        let found = frames.next().map_err(|error| Side::From(error.into()))?;
        match found {
            Found::Frame {
                kind: kind @ (record::ENTRIES | record::COUNTERS),
                payload,
            } => {
                let space = if kind == record::ENTRIES {
                    rows::ENTRY
                } else {
                    rows::COUNTER
                };
                for (key, row) in record::decode_rows(&payload.into()).unwrap_or_default() {
                    restorer.row(space, &key, row).map_err(Side::To)?;
                }
            }
            Found::Frame {
                kind: record::FILE,
                payload,
            } => {
                if let Some((path, octets)) = record::decode_file(&payload) {
                    files.push(DataFile {
                        path: path.to_owned(),
                        octets: octets.to_vec(),
                    });
                }
            }
            Found::Nothing => return Ok(files),
            // Told by the survey.
            Found::Frame { .. } | Found::Damage { .. } => {}
        }
        if !tell(frames.offset(), frames.len()) {
            return Err(Side::From(NotReadable::Io("stopped before the end".to_owned())));
        }
    }
}

/// Puts blobs into the new store.
struct Into {
    restorer: Restorer,
    blobs: u64,
    short: Vec<u8>,
}

impl BlobSink for Into {
    fn wants(&self, wanted: &Wanted) -> bool {
        wanted.refs > 0
    }

    fn begin(&mut self, wanted: &Wanted) -> io::Result<()> {
        self.short.clear();
        self.restorer.begin_blob(wanted.head.id, wanted.head.len)
    }

    fn piece(&mut self, octets: &[u8]) -> io::Result<()> {
        if !self.restorer.is_in_large_blob() {
            self.short.extend_from_slice(octets);
            return Ok(());
        }
        self.restorer.large_piece(octets)
    }

    fn end(&mut self, wanted: &Wanted, whole: bool) -> io::Result<()> {
        let head = wanted.head;
        if self.restorer.is_in_large_blob() {
            self.restorer
                .end_large(head.id, head.len, u64::from(wanted.refs), whole)?;
        } else if whole {
            self.restorer
                .short_blob(head.id, &self.short, u64::from(wanted.refs))?;
        }
        self.blobs += u64::from(whole);
        Ok(())
    }
}
