//! Reading a backup: finding its files, surveying its rows, going through its blobs, verifying it
//! all.
//!
//! Promises: every octet that is read is checked, every blob against its check word too; damage is
//! named and passed over; any octets are read without a panic. Memory: some 50 octets for each blob.
//! Never: trust in a count that was not counted again.

use super::Findings;
use super::frame::{END, END_OWN, Found, FrameReader, NotReadable};
use super::ids::IdSet;
use super::record::{self, BlobHead, Head, Totals, What};
use super::{pack, prune};
use crate::blob::BlobId;
use crate::engine::check::Summer;
use crate::file::{Disk, Open};
use crate::rows::{self, Entry};
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};

/// The files of one backup.
#[derive(Clone, Debug)]
pub struct OpenedBackup {
    /// The file that holds the rows.
    pub rows: PathBuf,
    /// The files that hold the blobs.
    pub packs: Vec<PathBuf>,
    /// Whether both are the same file.
    pub whole: bool,
}

impl OpenedBackup {
    /// Finds the files of a backup: the newest one of a folder, the one whose file of rows is
    /// named, or a stream in a file.
    ///
    /// # Errors
    /// When there is none, or a later version wrote it.
    pub fn find(disk: &dyn Disk, path: &Path) -> Result<Self, NotReadable> {
        let in_folder = disk
            .list(&path.join("rows"))
            .ok()
            .filter(|names| !names.is_empty());
        if in_folder.is_some() {
            let files = prune::rows_files(disk, &path.join("rows"))?;
            let newest = newest(disk, &files)?;
            return Self::in_folder(disk, newest, path);
        }
        let frames = FrameReader::open(disk.open(path, Open::Read)?)?;
        let head = head_of(frames)?;
        if head.what == What::Rows {
            let folder = path.parent().and_then(Path::parent).unwrap_or(Path::new(""));
            return Self::in_folder(disk, path.to_owned(), folder);
        }
        if head.what == What::Pack {
            return Err(NotReadable::NoBackup);
        }
        Ok(Self {
            rows: path.to_owned(),
            packs: vec![path.to_owned()],
            whole: true,
        })
    }

    fn in_folder(disk: &dyn Disk, rows: PathBuf, folder: &Path) -> Result<Self, NotReadable> {
        let head = head_of(FrameReader::open(disk.open(&rows, Open::Read)?)?)?;
        let packs = pack::list(disk, &folder.join("packs"))?;
        let packs = packs.into_iter().filter(|pack| pack.store == head.store);
        Ok(Self {
            rows,
            packs: packs.map(|pack| pack.path).collect(),
            whole: false,
        })
    }
}

/// Of the newest files of rows of each store in a folder, the newest by its time.
fn newest(disk: &dyn Disk, files: &[prune::RowsFile]) -> Result<PathBuf, NotReadable> {
    let mut found: Option<(i64, PathBuf)> = None;
    let mut why = NotReadable::NoBackup;
    for (i, file) in files.iter().enumerate() {
        if files.get(i + 1).is_some_and(|next| next.store == file.store) {
            continue;
        }
        let opened = disk.open(&file.path, Open::Read).map_err(NotReadable::from);
        match opened.and_then(FrameReader::open).and_then(head_of) {
            Ok(head) if found.as_ref().is_none_or(|(time, _)| *time <= head.time) => {
                found = Some((head.time, file.path.clone()));
            }
            Ok(_) => {}
            Err(error) => why = error,
        }
    }
    found.map(|(_, path)| path).ok_or(why)
}

fn head_of(mut frames: FrameReader) -> Result<Head, NotReadable> {
    loop {
        match frames.next()? {
            Found::Frame {
                kind: record::HEAD,
                payload,
            } => {
                return Head::decode(&payload).ok_or(NotReadable::NoBackup);
            }
            Found::Damage { offset: 0, .. } => {}
            _ => return Err(NotReadable::NoBackup),
        }
    }
}

/// A blob that a backup needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) head: BlobHead,
    /// References counted in the entries.
    pub(super) refs: u32,
    /// Whether its octets were found, whole.
    pub(super) found: bool,
}

/// What a backup holds, counted again.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The number of the store.
    pub store: u64,
    /// The commit up to which it sees.
    pub seq: u64,
    /// When it was made, microseconds since 1970.
    pub time: i64,
    /// What made it.
    pub program: String,
    /// Entries.
    pub entries: u64,
    /// Counters.
    pub counters: u64,
    /// Blobs.
    pub blobs: u64,
    /// Their octets.
    pub blob_octets: u64,
    /// Paths of the files of the data folder.
    pub files: Vec<String>,
    /// What was damaged in the store when the backup was made, and so is not in it.
    pub store_damage: Findings,
    /// What is wrong with the backup itself.
    pub findings: Findings,
}

/// Is told octets read of octets to read, and says whether to go on.
pub(super) type Tell<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "stopped before the end")
}

/// The rows, while they are surveyed.
#[derive(Default)]
struct Surveyor {
    survey: Survey,
    wanted: Vec<Wanted>,
    lost: IdSet,
    totals: Option<Totals>,
    is_sorted: bool,
}

/// Reads all rows of a backup, checks and counts them. Answers also what blobs it needs, in order.
pub(super) fn survey_rows(
    disk: &dyn Disk,
    path: &Path,
    tell: Tell<'_>,
) -> Result<(Survey, Vec<Wanted>), NotReadable> {
    let mut frames = FrameReader::open(disk.open(path, Open::Read)?)?;
    let mut s = Surveyor::default();
    loop {
        let place = frames.offset();
        match frames.next()? {
            Found::Frame { kind, payload } => {
                if !s.frame(kind, payload) {
                    s.bad(|| format!("{}: the frame at octet {place} is not understood", path.display()));
                }
            }
            Found::Damage { offset, what } => {
                s.bad(|| format!("{}: octet {offset}: {what}", path.display()));
            }
            Found::Nothing => break,
        }
        if !tell(frames.offset(), frames.len()) {
            return Err(stopped().into());
        }
    }
    s.end(path);
    Ok((s.survey, s.wanted))
}

impl Surveyor {
    fn bad(&mut self, what: impl FnOnce() -> String) {
        self.survey.findings.add(what);
    }

    fn frame(&mut self, kind: u32, payload: Vec<u8>) -> bool {
        match kind {
            record::HEAD => match Head::decode(&payload) {
                Some(head) => {
                    self.survey.store = head.store;
                    self.survey.time = head.time;
                    self.survey.program = head.program;
                }
                None => return false,
            },
            record::CATALOGUE => match record::decode_catalogue(&payload) {
                Some(items) => self.wanted.extend(items.into_iter().map(|head| Wanted {
                    head,
                    refs: 0,
                    found: false,
                })),
                None => return false,
            },
            record::ENTRIES | record::COUNTERS => return self.rows(kind, payload.into()),
            record::FILE => match record::decode_file(&payload) {
                Some((path, _)) => self.survey.files.push(path.to_owned()),
                None => return false,
            },
            record::DAMAGE => match payload.split_first_chunk::<16>() {
                Some((id, what)) => {
                    self.lost.add(BlobId(*id));
                    self.lost.settle();
                    let what = String::from_utf8_lossy(what).into_owned();
                    self.survey.store_damage.add(|| what);
                }
                None => return false,
            },
            END => {
                self.totals = payload.get(END_OWN..).and_then(Totals::decode);
                return self.totals.is_some();
            }
            // Blobs have their own turn.
            record::BLOB | record::MORE => {}
            _ => return false,
        }
        true
    }

    fn rows(&mut self, kind: u32, payload: Bytes) -> bool {
        let Some(rows) = record::decode_rows(&payload) else {
            return false;
        };
        if !self.is_sorted {
            // The whole catalogue stands in front of the rows.
            self.wanted.sort_unstable_by_key(|wanted| wanted.head.id);
            self.is_sorted = true;
        }
        let mut good = true;
        for (key, row) in rows {
            match kind {
                record::ENTRIES => good &= self.entry(&key, &row),
                _ => {
                    good &= rows::decode_counter(&row).is_some();
                    self.survey.counters += 1;
                }
            }
        }
        good
    }

    fn entry(&mut self, key: &Bytes, row: &Bytes) -> bool {
        let Some(entry) = Entry::decode(row) else {
            return false;
        };
        self.survey.entries += 1;
        for id in entry.refs {
            if let Some(wanted) = find(&mut self.wanted, id) {
                wanted.refs = wanted.refs.saturating_add(1);
            } else if !self.lost.contains(id) {
                self.survey
                    .findings
                    .add(|| format!("entry {key:02x?} refers to blob {id}, which is not in the backup"));
            }
        }
        true
    }

    fn end(&mut self, path: &Path) {
        self.wanted.sort_unstable_by_key(|wanted| wanted.head.id);
        self.wanted.dedup_by_key(|wanted| wanted.head.id);
        self.survey.blobs = self.wanted.len() as u64;
        self.survey.blob_octets = self
            .wanted
            .iter()
            .map(|wanted| wanted.head.len)
            .fold(0, u64::saturating_add);
        let Some(totals) = self.totals else {
            // That the end is missing was told with its place.
            return;
        };
        self.survey.seq = totals.seq;
        let s = &self.survey;
        let counted = [
            s.blobs,
            s.entries,
            s.counters,
            s.files.len() as u64,
            s.store_damage.count,
        ];
        let said = [
            totals.blobs,
            totals.entries,
            totals.counters,
            totals.files,
            totals.damaged,
        ];
        if counted != said {
            self.bad(|| {
                format!(
                    "{}: blobs, entries, counters, files, damage: it holds {counted:?} and should hold {said:?}",
                    path.display()
                )
            });
        }
    }
}

fn find(wanted: &mut [Wanted], id: BlobId) -> Option<&mut Wanted> {
    let at = wanted.binary_search_by_key(&id, |wanted| wanted.head.id).ok()?;
    wanted.get_mut(at)
}

/// Where blobs go when they are read.
pub(super) trait BlobSink {
    /// Whether this blob is to be read at all.
    fn wants(&self, wanted: &Wanted) -> bool;
    /// A blob begins.
    fn begin(&mut self, wanted: &Wanted) -> io::Result<()>;
    /// Its next octets.
    fn piece(&mut self, octets: &[u8]) -> io::Result<()>;
    /// It ends. When it is not whole, what came of it is to be forgotten.
    fn end(&mut self, wanted: &Wanted, whole: bool) -> io::Result<()>;
}

/// A blob on its way.
struct Current {
    wanted: Wanted,
    at: u64,
    summer: Summer,
}

/// Goes through the blobs of one file.
struct BlobPass<'a> {
    wanted: &'a mut [Wanted],
    sink: &'a mut dyn BlobSink,
    findings: &'a mut Findings,
    path: &'a Path,
    current: Option<Current>,
}

/// Reads the blobs of a file into a sink and marks those found whole. Damage between blobs is told
/// unless the file's rows were surveyed before.
pub(super) fn read_blobs(
    disk: &dyn Disk,
    path: &Path,
    wanted: &mut [Wanted],
    sink: &mut dyn BlobSink,
    (findings, tell_damage): (&mut Findings, bool),
    tell: Tell<'_>,
) -> Result<(), NotReadable> {
    let mut frames = FrameReader::open(disk.open(path, Open::Read)?)?;
    let mut pass = BlobPass {
        wanted,
        sink,
        findings,
        path,
        current: None,
    };
    loop {
        match frames.next()? {
            Found::Frame {
                kind: record::BLOB,
                payload,
            } => pass.blob(&payload)?,
            Found::Frame {
                kind: record::MORE,
                payload,
            } => pass.more(&payload)?,
            Found::Frame { .. } => pass.stop()?,
            Found::Damage { offset, what } => {
                if tell_damage {
                    pass.findings
                        .add(|| format!("{}: octet {offset}: {what}", path.display()));
                }
            }
            Found::Nothing => break,
        }
        if !tell(frames.offset(), frames.len()) {
            return Err(stopped().into());
        }
    }
    Ok(pass.stop()?)
}

impl BlobPass<'_> {
    fn blob(&mut self, payload: &[u8]) -> io::Result<()> {
        self.stop()?;
        let Some((head, first)) = BlobHead::decode(payload) else {
            let path = self.path.display();
            self.findings
                .add(|| format!("{path}: a blob that is not understood"));
            return Ok(());
        };
        let Some(wanted) = find(self.wanted, head.id).map(|wanted| *wanted) else {
            return Ok(());
        };
        if wanted.found || wanted.head != head || !self.sink.wants(&wanted) {
            return Ok(());
        }
        self.sink.begin(&wanted)?;
        self.current = Some(Current {
            wanted,
            at: 0,
            summer: Summer::default(),
        });
        self.piece(first)
    }

    fn more(&mut self, payload: &[u8]) -> io::Result<()> {
        let Some((id, at, piece)) = record::decode_more(payload) else {
            return self.stop();
        };
        match &self.current {
            Some(current) if current.wanted.head.id == id && current.at == at => self.piece(piece),
            _ => self.stop(),
        }
    }

    fn piece(&mut self, octets: &[u8]) -> io::Result<()> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        current.at = current.at.saturating_add(octets.len() as u64);
        if current.at > current.wanted.head.len {
            return self.stop();
        }
        current.summer.add(octets);
        self.sink.piece(octets)?;
        if current.at < current.wanted.head.len {
            return Ok(());
        }
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let head = current.wanted.head;
        let whole = current.summer.finish().1 == head.check;
        if whole {
            if let Some(wanted) = find(self.wanted, head.id) {
                wanted.found = true;
            }
        } else {
            let path = self.path.display();
            self.findings
                .add(|| format!("{path}: blob {}: its octets are not those of the store", head.id));
        }
        self.sink.end(&current.wanted, whole)
    }

    /// The blob on its way does not go on: it is no whole one.
    fn stop(&mut self) -> io::Result<()> {
        match self.current.take() {
            Some(current) => self.sink.end(&current.wanted, false),
            None => Ok(()),
        }
    }
}

/// Names the blobs that were found nowhere.
pub(super) fn tell_missing(wanted: &[Wanted], findings: &mut Findings) {
    for lost in wanted.iter().filter(|wanted| !wanted.found && wanted.refs > 0) {
        findings.add(|| {
            format!(
                "blob {} of {} octets, which {} entries refer to, is missing or damaged",
                lost.head.id, lost.head.len, lost.refs
            )
        });
    }
}

/// Reads and forgets.
struct Nowhere;

impl BlobSink for Nowhere {
    fn wants(&self, _: &Wanted) -> bool {
        true
    }
    fn begin(&mut self, _: &Wanted) -> io::Result<()> {
        Ok(())
    }
    fn piece(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn end(&mut self, _: &Wanted, _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// Reads all of a backup and checks every checksum and every reference. What is wrong is in the
/// survey's findings. `tell` is told octets read of octets to read in the file that is being read.
///
/// # Errors
/// When there is no backup to read, or the disk fails.
pub fn verify(
    disk: &dyn Disk,
    path: &Path,
    tell: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Survey, NotReadable> {
    let files = OpenedBackup::find(disk, path)?;
    let (mut survey, mut wanted) = survey_rows(disk, &files.rows, tell)?;
    for pack in &files.packs {
        let findings = &mut survey.findings;
        let read = read_blobs(
            disk,
            pack,
            &mut wanted,
            &mut Nowhere,
            (findings, !files.whole),
            tell,
        );
        if let Err(error) = read {
            match error {
                NotReadable::Io(_) => return Err(error),
                other => survey.findings.add(|| format!("{}: {other}", pack.display())),
            }
        }
    }
    for item in &mut wanted {
        // A blob that nothing refers to is needed by nobody, but it was promised.
        item.refs = item.refs.max(1);
    }
    tell_missing(&wanted, &mut survey.findings);
    Ok(survey)
}
