//! Proving that a store is what it says: every row, every count, every place, and in depth every
//! octet of every blob, on one state of a store that may be running.
//!
//! Promises: never stops at the first thing that is wrong; what a commit, the removal of a segment
//! or the moving of a blob changed meanwhile is not called damage; memory is bounded: references
//! are counted for [`BLOBS_AT_ONCE`] blobs at a time, about 50 octets each, and when there are more,
//! the entries are read again for each further share.
//! Never: a write, a lock held while it reads, a repair.
//!
//! It blocks on the disk: run it on a thread that may wait. Pace is the caller's: the progress
//! function is called between pages and may take its time.

use super::blobs;
use super::check;
use super::log::Replay;
use super::shared::Shared;
use super::state::{State, StateView};
use super::walk::{Walk, Walked};
use crate::apply::{COMMIT_IDS_REMEMBERED, View};
use crate::blob::{BlobError, BlobId};
use crate::finding::{Finding, Severity, Tell, Where};
use crate::key::Key;
use crate::rows::{self, BlobRow, Place};
use crate::tables::{ReadError, Seq, Snapshot};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Blobs whose references are counted in one pass over the entries.
pub const BLOBS_AT_ONCE: u64 = 2_000_000;
/// Rows that are read between two calls of the progress function.
const PAGE_ROWS: usize = 2_000;
/// Octets of a blob that are read at once.
const READ_OCTETS: u64 = 1 << 20;
/// Entries that are named with a damaged blob.
const CONCERNS_MAX: usize = 5;
/// Blobs whose entries are named at most.
const NAMED_BLOBS_MAX: usize = 10_000;
/// How often a blob that moved is looked for anew.
const MOVES_MAX: usize = 8;

const RESTORE: &str = "check the disk, then restore what is named from a backup";
const RECOUNT: &str = "the figure itself loses nobody's mail (damage that is told elsewhere may); the room may not come back, or come back too early: make a backup now and restore it into a new store";

/// What to verify.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// Read every blob, and not only the rows that describe them.
    pub deep: bool,
}

/// How far a verification has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Rows read.
    pub rows: u64,
    /// About how many there are to read.
    pub rows_in_all: u64,
    /// Octets of blobs read.
    pub octets: u64,
    /// How many there are to read.
    pub octets_in_all: u64,
}

/// What was verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// Entries that are whole.
    pub entries: u64,
    /// Blobs.
    pub blobs: u64,
    /// Their octets.
    pub blob_octets: u64,
    /// Blobs of which every octet was read and is right.
    pub blobs_read: u64,
    /// Groups of the log behind the index.
    pub groups: u64,
}

/// Why a verification did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The progress function said so.
    #[error("it was stopped")]
    Stopped,
    /// The index was closed under it.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// One state of the store, held still while the store goes on. It costs memory and room in the
/// index file as long as it is held.
pub struct Still {
    shared: Arc<Shared>,
    state: Arc<State>,
    opening: u64,
}

impl Still {
    pub(crate) fn new(shared: Arc<Shared>, opening: u64) -> Self {
        let state = shared.state();
        Self {
            shared,
            state,
            opening,
        }
    }

    /// The commit up to which it sees.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.state.seq
    }

    /// The tables of this state.
    #[must_use]
    pub fn snapshot(&self) -> Box<dyn Snapshot> {
        Box::new(StateView(self.state.clone()))
    }

    /// All rows of this state.
    #[must_use]
    pub fn walk(&self) -> Walk {
        Walk::new(self.state.clone())
    }

    /// Verifies this state. `progress` is called between pages; it may wait, and it may stop the
    /// work. Findings are told as they are made, those about blobs at the end.
    ///
    /// # Errors
    /// [`VerifyError`]; what was found until then was told.
    pub fn verify(
        &self,
        options: VerifyOptions,
        tell: Tell<'_>,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Verified, VerifyError> {
        let mut work = Work::new(self, options, tell, progress);
        work.survey()?;
        work.own_rows()?;
        work.references()?;
        work.log_behind_index();
        work.large_files();
        if options.deep {
            work.octets()?;
        }
        work.name_concerned()?;
        Ok(work.verified)
    }
}

/// What the blobs of one segment come to.
#[derive(Clone, Copy, Default)]
struct Sum {
    blobs: u64,
    octets: u64,
}

struct Work<'a> {
    still: &'a Still,
    options: VerifyOptions,
    tell: Tell<'a>,
    on_progress: &'a mut dyn FnMut(&Progress) -> ControlFlow<()>,
    progress: Progress,
    verified: Verified,
    segments: BTreeMap<u64, Sum>,
    /// Whether entries are damaged, so that references are unknown.
    entries_lost: bool,
    /// Findings about blobs, kept until it is known whom they concern.
    of_blobs: HashMap<BlobId, Vec<Finding>>,
    /// Length of a segment's file; `None`: there is none.
    lengths: HashMap<u64, Option<u64>>,
    lost_segments: HashSet<u64>,
}

impl<'a> Work<'a> {
    fn new(
        still: &'a Still,
        options: VerifyOptions,
        tell: Tell<'a>,
        on_progress: &'a mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Self {
        Self {
            still,
            options,
            tell,
            on_progress,
            progress: Progress::default(),
            verified: Verified::default(),
            segments: BTreeMap::new(),
            entries_lost: false,
            of_blobs: HashMap::new(),
            lengths: HashMap::new(),
            lost_segments: HashSet::new(),
        }
    }

    fn advance(&mut self, rows: usize, octets: u64) -> Result<(), VerifyError> {
        self.progress.rows += rows as u64;
        self.progress.octets += octets;
        match (self.on_progress)(&self.progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(VerifyError::Stopped),
        }
    }

    /// Reads rows in a range of spaces, page by page.
    fn rows(&mut self, from: u8, to: u8, each: &mut dyn FnMut(&mut Self, Walked)) -> Result<(), VerifyError> {
        let mut walk = Walk::between(self.still.state.clone(), vec![from], vec![to + 1]);
        loop {
            let page = walk.page(PAGE_ROWS)?;
            if page.is_empty() {
                return Ok(());
            }
            let rows = page.len();
            page.into_iter().for_each(|row| each(self, row));
            self.advance(rows, 0)?;
        }
    }

    /// The blobs: how many, how long, where, and whether their places lie in files.
    fn survey(&mut self) -> Result<(), VerifyError> {
        self.progress.rows_in_all = self.still.state.rows_about();
        self.rows(rows::BLOB, rows::BLOB, &mut |work, row| match row {
            Walked::Blob { id, len, place, .. } => {
                work.verified.blobs += 1;
                work.verified.blob_octets += len;
                if let Some((segment, _)) = place {
                    let sum = work.segments.entry(segment).or_default();
                    sum.blobs += 1;
                    sum.octets += len;
                }
                work.place(id, len, place);
            }
            damaged => work.damaged(damaged),
        })?;
        if self.options.deep {
            self.progress.octets_in_all = self.verified.blob_octets;
        }
        let passes = self.passes();
        self.progress.rows_in_all += (passes - 1) * self.progress.rows_in_all;
        Ok(())
    }

    fn passes(&self) -> u64 {
        self.verified.blobs.div_ceil(BLOBS_AT_ONCE).max(1)
    }

    /// The blob as it is now, when that is not what this state says: it moved, or it is gone.
    fn moved(&self, id: BlobId, place: Option<(u64, u64)>) -> Option<Option<BlobRow>> {
        let row = match self.still.shared.state().row(&rows::blob_key(id)) {
            Ok(None) => return Some(None),
            Ok(Some(row)) => BlobRow::decode(&row)?,
            Err(_) => return None,
        };
        (in_log(row.place) != place).then_some(Some(row))
    }

    /// Whether a place lies in a file that is there.
    fn place(&mut self, id: BlobId, len: u64, mut place: Option<(u64, u64)>) {
        for _ in 0..MOVES_MAX {
            let Some((what, code)) = self.misplaced(id, len, place) else {
                return;
            };
            match self.moved(id, place) {
                Some(None) => return,
                Some(Some(row)) => {
                    place = in_log(row.place);
                    if let Some((segment, _)) = place {
                        self.lengths.remove(&segment);
                    }
                }
                None => {
                    if let Some((segment, _)) = place
                        && code == "segment-missing"
                        && !self.lost_segments.insert(segment)
                    {
                        return;
                    }
                    let place = Where::Blob(id, place);
                    let finding = Finding::new(Severity::Error, code, place, what, RESTORE);
                    self.of_blobs.entry(id).or_default().push(finding);
                    return;
                }
            }
        }
    }

    fn misplaced(
        &mut self,
        id: BlobId,
        len: u64,
        place: Option<(u64, u64)>,
    ) -> Option<(String, &'static str)> {
        let octets = len.saturating_add(check::table_octets(len));
        let Some((segment, offset)) = place else {
            return match self.still.shared.files.len(id) {
                Ok(Some(there)) if there >= octets => None,
                Ok(Some(there)) => {
                    let what = format!("its file has {there} octets and should have {octets}");
                    Some((what, "blob-cut-off"))
                }
                Ok(None) => Some(("its file is not there".to_owned(), "blob-missing")),
                Err(error) => Some((format!("its file can't be read: {error}"), "blob-unreadable")),
            };
        };
        let segments = &self.still.shared.segments;
        let there = self
            .lengths
            .entry(segment)
            .or_insert_with(|| segments.read(segment).and_then(|file| file.len()).ok());
        match there {
            None => {
                let what =
                    format!("log/{segment:016x}.log is not there, and with it this blob and perhaps others");
                Some((what, "segment-missing"))
            }
            Some(there) if offset.saturating_add(octets) > *there => {
                let what = format!("it ends behind the end of its segment, which has {there} octets");
                Some((what, "blob-cut-off"))
            }
            Some(_) => None,
        }
    }

    /// A row that can't be read.
    fn damaged(&mut self, row: Walked) {
        let finding = match row {
            Walked::Damaged { row_key, what } => {
                self.entries_lost |= row_key.first() == Some(&rows::ENTRY);
                Finding::new(Severity::Error, "row-damaged", place_of(&row_key), what, RESTORE)
            }
            Walked::Gap { behind, until, why } => {
                self.entries_lost |= behind.first() == Some(&rows::ENTRY);
                let until = match until.is_empty() {
                    true => "the end".to_owned(),
                    false => place_of(&until).to_string(),
                };
                let what = format!("nothing can be read from here to {until}: {why}");
                Finding::new(
                    Severity::Error,
                    "index-unreadable",
                    place_of(&behind),
                    what,
                    RESTORE,
                )
            }
            _ => return,
        };
        (self.tell)(finding);
    }

    /// Counters, figures of segments, receipts and the ring.
    fn own_rows(&mut self) -> Result<(), VerifyError> {
        self.rows(0, rows::ENTRY - 1, &mut Self::damaged)?;
        self.rows(rows::COUNTER, rows::COUNTER, &mut Self::damaged)?;
        let mut figures: BTreeMap<u64, Sum> = BTreeMap::new();
        self.rows(rows::SEGMENT, rows::SEGMENT, &mut |work, row| match row {
            Walked::Segment {
                segment,
                blobs,
                octets,
            } => drop(figures.insert(segment, Sum { blobs, octets })),
            damaged => work.damaged(damaged),
        })?;
        self.figures(&figures);
        let (mut receipts, mut ring) = (HashSet::new(), HashMap::new());
        let mut next = 0;
        let mut unreadable = false;
        self.rows(rows::RECEIPT, 0xfe, &mut |work, row| match row {
            Walked::Receipt { id, .. } => drop(receipts.insert(id)),
            Walked::Ring { slot, id } => drop(ring.insert(slot, id)),
            Walked::RingNext(n) => next = n,
            damaged => {
                unreadable = true;
                work.damaged(damaged);
            }
        })?;
        if !unreadable {
            self.ring(&receipts, &ring, next);
        }
        Ok(())
    }

    fn figures(&mut self, figures: &BTreeMap<u64, Sum>) {
        let all: HashSet<u64> = self.segments.keys().chain(figures.keys()).copied().collect();
        let mut all: Vec<u64> = all.into_iter().collect();
        all.sort_unstable();
        for segment in all {
            let is = self.segments.get(&segment).copied().unwrap_or_default();
            let said = figures.get(&segment).copied().unwrap_or_default();
            if (is.blobs, is.octets) != (said.blobs, said.octets) {
                let what = format!(
                    "{} blobs with {} octets live in it, its figures say {} with {}",
                    is.blobs, is.octets, said.blobs, said.octets
                );
                let place = Where::Row(format!("figures of segment {segment:016x}"));
                (self.tell)(Finding::new(
                    Severity::Error,
                    "segment-figures-wrong",
                    place,
                    what,
                    RECOUNT,
                ));
            }
        }
    }

    fn ring(&mut self, receipts: &HashSet<u128>, ring: &HashMap<u32, u128>, next: i64) {
        let taken = u32::try_from(next).unwrap_or(u32::MAX).min(COMMIT_IDS_REMEMBERED);
        let named: HashSet<u128> = ring.values().copied().collect();
        let whole = ring.len() == taken as usize && (0..taken).all(|slot| ring.contains_key(&slot));
        if whole && named == *receipts {
            return;
        }
        let what = format!(
            "{} names are remembered in {} places of the ring, with {} receipts",
            taken,
            ring.len(),
            receipts.len()
        );
        (self.tell)(Finding::new(
            Severity::Warning,
            "receipts-wrong",
            Where::Row("remembered names of batches".to_owned()),
            what,
            "a batch that is asked for twice may happen twice; it heals by itself as new names come",
        ));
    }

    /// Every entry; and every blob's count of references against the entries that refer to it.
    fn references(&mut self) -> Result<(), VerifyError> {
        let passes = self.passes();
        for pass in 0..passes {
            let share = |id: &BlobId| {
                let n = id.0.last_chunk().map_or(0, |n| u64::from_be_bytes(*n));
                n % passes == pass
            };
            let mut counts: HashMap<BlobId, u32> = HashMap::new();
            self.rows(rows::ENTRY, rows::ENTRY, &mut |work, row| match row {
                Walked::Entry { refs, .. } => {
                    work.verified.entries += u64::from(pass == 0);
                    for id in refs.iter().filter(|id| share(id)) {
                        *counts.entry(*id).or_default() += 1;
                    }
                }
                damaged if pass == 0 => work.damaged(damaged),
                _ => {}
            })?;
            self.rows(rows::BLOB, rows::BLOB, &mut |work, row| {
                if let Walked::Blob { id, refs, place, .. } = row
                    && share(&id)
                {
                    let counted = counts.remove(&id).unwrap_or(0);
                    if u64::from(counted) != refs {
                        work.miscounted(id, place, refs, counted);
                    }
                }
            })?;
            for (id, counted) in counts {
                let what = format!("{counted} references lead to it, but it is not in the store");
                let place = Where::Blob(id, None);
                let finding = Finding::new(Severity::Error, "blob-missing", place, what, RESTORE);
                self.of_blobs.entry(id).or_default().push(finding);
            }
        }
        Ok(())
    }

    fn miscounted(&mut self, id: BlobId, place: Option<(u64, u64)>, said: u64, counted: u32) {
        let mut what = format!("{counted} references lead to it, its row says {said}");
        let mut severity = Severity::Error;
        if self.entries_lost && said > u64::from(counted) {
            what.push_str("; the others may stand in the damaged entries");
            severity = Severity::Warning;
        }
        let finding = Finding::new(
            severity,
            "references-wrong",
            Where::Blob(id, place),
            what,
            RECOUNT,
        );
        self.of_blobs.entry(id).or_default().push(finding);
    }

    /// The groups that a start would replay.
    fn log_behind_index(&mut self) {
        let state = &self.still.state;
        let start = state.index.position();
        let Some(store) = state.index.number("store") else {
            return;
        };
        let segments = &self.still.shared.segments;
        let mut replay = Replay::new(segments, store, start, true);
        while replay.position().next_seq <= state.seq.0 {
            let at = replay.position();
            let found = replay.next_group();
            // What the index has taken in meanwhile may be gone from the log.
            let now = self.still.shared.state().index.position();
            if now.next_seq > at.next_seq && !matches!(found, Ok(Some(_))) {
                return;
            }
            let what = match found {
                Ok(Some(_)) => {
                    self.verified.groups += 1;
                    continue;
                }
                Ok(None) => "the log ends here, in front of commits that were acknowledged".to_owned(),
                Err(error) => error.to_string(),
            };
            let place = Where::Log(at.segment, at.offset);
            (self.tell)(Finding::new(
                Severity::Error,
                "log-damaged",
                place,
                what,
                "don't stop the server: make a backup now, then check the disk",
            ));
            break;
        }
        for damage in std::mem::take(&mut replay.damage) {
            let place = Where::Log(damage.segment, damage.offset);
            (self.tell)(Finding::new(
                Severity::Error,
                "log-damaged",
                place,
                damage.what,
                "don't stop the server: make a backup now, then check the disk",
            ));
        }
    }

    /// Files of large blobs that no row knows.
    fn large_files(&mut self) {
        let shared = &self.still.shared;
        let Ok(ids) = shared.files.list() else { return };
        for id in ids {
            // One of this opening may be on its way into a batch.
            let unknown = |state: &State| matches!(state.row(&rows::blob_key(id)), Ok(None));
            if super::opening_of(id) < self.still.opening
                && unknown(&self.still.state)
                && unknown(&shared.state())
            {
                (self.tell)(Finding::new(
                    Severity::Note,
                    "file-left-over",
                    Where::File(format!("large/{id}.blob")),
                    "no row of the store knows this file",
                    "nothing: the next start removes it",
                ));
            }
        }
    }

    /// Every octet of every blob.
    fn octets(&mut self) -> Result<(), VerifyError> {
        let mut walk = Walk::between(self.still.state.clone(), vec![rows::BLOB], vec![rows::BLOB + 1]);
        loop {
            let page = walk.page(PAGE_ROWS)?;
            if page.is_empty() {
                return Ok(());
            }
            for row in page {
                let Walked::Blob { id, len, .. } = row else {
                    continue;
                };
                match read_whole(&self.still.shared, id, &mut |octets| self.advance(0, octets))? {
                    Read::Good => self.verified.blobs_read += 1,
                    Read::Gone => {}
                    // What its place already told is not told again.
                    Read::Bad(..) if self.of_blobs.contains_key(&id) && self.is_misplaced(id) => {}
                    Read::Bad(place, what) => {
                        let what = format!("{what} ({len} octets long)");
                        let place = Where::Blob(id, place);
                        let finding = Finding::new(Severity::Error, "blob-damaged", place, what, RESTORE);
                        self.of_blobs.entry(id).or_default().push(finding);
                    }
                }
            }
        }
    }

    fn is_misplaced(&self, id: BlobId) -> bool {
        let findings = self.of_blobs.get(&id);
        findings.is_some_and(|all| all.iter().any(|f| f.code != "references-wrong"))
    }

    /// Tells what is wrong with blobs, with the entries that refer to them.
    fn name_concerned(&mut self) -> Result<(), VerifyError> {
        let mut of_blobs = std::mem::take(&mut self.of_blobs);
        let mut concerned: HashMap<BlobId, Vec<Key>> = of_blobs
            .keys()
            .take(NAMED_BLOBS_MAX)
            .map(|id| (*id, Vec::new()))
            .collect();
        if !concerned.is_empty() {
            self.rows(rows::ENTRY, rows::ENTRY, &mut |_, row| {
                let Walked::Entry { key, refs, .. } = row else {
                    return;
                };
                for id in refs {
                    if let Some(keys) = concerned.get_mut(&id)
                        && keys.len() < CONCERNS_MAX
                        && !keys.contains(&key)
                    {
                        keys.push(key.clone());
                    }
                }
            })?;
        }
        let mut ids: Vec<BlobId> = of_blobs.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            for mut finding in of_blobs.remove(&id).unwrap_or_default() {
                finding.concerns = concerned.get(&id).cloned().unwrap_or_default();
                (self.tell)(finding);
            }
        }
        Ok(())
    }
}

fn in_log(place: Place) -> Option<(u64, u64)> {
    match place {
        Place::Log { segment, offset } => Some((segment, offset)),
        Place::Own => None,
    }
}

/// A row's key in words.
pub(crate) fn place_of(row_key: &[u8]) -> Where {
    let key = || rows::key_of_entry(row_key);
    match row_key.first() {
        Some(&rows::ENTRY) => Where::Entry(key()),
        Some(&rows::COUNTER) => Where::Counter(key()),
        Some(&rows::BLOB) => match rows::blob_of_key(row_key) {
            Some(id) => Where::Row(format!("row of blob {id}")),
            None => Where::Row("the rows of blobs".to_owned()),
        },
        Some(&rows::SEGMENT) => match rows::segment_of_key(row_key) {
            Some(segment) => Where::Row(format!("figures of segment {segment:016x}")),
            None => Where::Row("the figures of segments".to_owned()),
        },
        Some(&rows::RECEIPT) => Where::Row("a remembered receipt".to_owned()),
        Some(&rows::RING | &rows::RING_NEXT) => Where::Row("the ring of remembered names".to_owned()),
        _ => Where::Row(format!("row {}", row_key.escape_ascii())),
    }
}

/// What reading a whole blob came to.
pub(crate) enum Read {
    Good,
    /// Nothing refers to it any more.
    Gone,
    /// It is damaged: where it stands, and how.
    Bad(Option<(u64, u64)>, String),
}

/// Reads every octet of a blob as it is now, following it when it moves.
pub(crate) fn read_whole<E>(
    shared: &Shared,
    id: BlobId,
    read: &mut dyn FnMut(u64) -> Result<(), E>,
) -> Result<Read, E> {
    let mut last = None;
    for _ in 0..MOVES_MAX {
        let row = match shared.state().row(&rows::blob_key(id)) {
            Ok(Some(row)) => BlobRow::decode(&row),
            Ok(None) => return Ok(Read::Gone),
            // Its row is damaged, which is told where rows are.
            Err(_) => return Ok(Read::Gone),
        };
        let Some(row) = row else { return Ok(Read::Gone) };
        if last.as_ref().is_some_and(|(place, _)| *place == row.place) {
            break;
        }
        let mut from = 0;
        let mut bad = None;
        while bad.is_none() && (from < row.len || from == 0) {
            let to = (from + READ_OCTETS).min(row.len);
            bad = match blobs::read(&shared.segments, &shared.files, id, &row, from..to) {
                Ok(Some(_)) => None,
                Ok(None) => Some("its file is not there".to_owned()),
                Err(BlobError::Corrupt(_)) => {
                    Some(format!("the checksum of octets {from} to {to} does not hold"))
                }
                Err(error) => Some(error.to_string()),
            };
            read(to - from)?;
            from = to.max(1);
        }
        match bad {
            None => return Ok(Read::Good),
            Some(what) => last = Some((row.place, what)),
        }
    }
    Ok(match last {
        Some((place, what)) => Read::Bad(in_log(place), what),
        None => Read::Gone,
    })
}
