//! The collector: copies what still lives in half-dead segments to the end of the log, so that the
//! segments die and their room comes back.
//!
//! It takes the segment with the fewest living octets first, reads its groups one by one, and hands
//! the living blobs to the committer as batches like any others, no faster than it is allowed.
//! Promises: a blob is moved only when its octets match its checksum; one that doesn't stays where
//! it is, is told, and its segment with it. Never: a copy while the log is pinned, or while there is
//! not room enough to finish the segment; work on the segment that is being written.

use super::Damage;
use super::group::{Group, HEADER, Header};
use super::log;
use super::shared::{Job, Shared};
use crate::batch::Batch;
use crate::blob::{BlobError, BlobId, StagedBlob, StagedBody};
use crate::file::DiskFile;
use crate::overlay::Direction;
use crate::relocate::Move;
use crate::rows::{self, Place, SegmentRow};
use crate::tables::{CommitError, Receipt};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Octets of blobs in one batch of copies, about.
const COPY_OCTETS: usize = 1 << 20;
/// A segment is left alone until this many later ones are ended: what dies soon dies by itself.
const SEGMENTS_BEHIND: u64 = 2;
/// Time until another attempt when there was no room, or when the store was busy.
const RETRY: Duration = Duration::from_secs(1);

/// Figures of the collector.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) segments: AtomicU64,
    pub(crate) blobs: AtomicU64,
    pub(crate) octets: AtomicU64,
    pub(crate) damaged: AtomicU64,
}

/// The segment that is being emptied.
struct Work {
    segment: u64,
    file: Arc<dyn DiskFile>,
    /// Where the next group is looked for; `None` behind the last.
    next: Option<u64>,
    /// Blobs of the group before that are still to be looked at, with their places.
    pending: VecDeque<(BlobId, Place)>,
    /// Something in it could not be copied.
    stuck: bool,
}

/// Copies that were handed to the committer.
struct Copying {
    answer: oneshot::Receiver<Result<Receipt, CommitError>>,
    blobs: u64,
    octets: u64,
}

/// The collector's state.
pub(crate) struct Collector {
    shared: Arc<Shared>,
    store: u64,
    /// Segments below the limit, with their living octets.
    candidates: BTreeMap<u64, u64>,
    /// The segment of the index position: those before it are ended.
    ended_below: u64,
    /// Segments that can't be emptied before the next opening.
    stuck: BTreeSet<u64>,
    work: Option<Work>,
    copying: Option<Copying>,
    not_before: Option<Instant>,
}

impl Collector {
    pub(crate) fn new(shared: Arc<Shared>, store: u64, newest: u64) -> Self {
        Self {
            shared,
            store,
            candidates: BTreeMap::new(),
            ended_below: newest,
            stuck: BTreeSet::new(),
            work: None,
            copying: None,
            not_before: None,
        }
    }

    /// Looks at the figures of all segments. `false`: the index can't be read now.
    pub(crate) fn look_at_all(&mut self) -> bool {
        let view = self.shared.state().index.clone();
        let (start, end) = rows::segment_range();
        let all = match view.layer(&start, &end, Direction::Forward) {
            Ok(all) => all,
            Err(error) => {
                tracing::warn!(%error, "the figures of the segments can't be read");
                return false;
            }
        };
        for row in all {
            // An error may come again and again; it has the same reason as above.
            let Ok((key, row)) = row else { return false };
            if let (Some(segment), Some(row)) = (rows::segment_of_key(&key), row) {
                self.note(segment, SegmentRow::decode(&row));
            }
        }
        true
    }

    /// The index has new figures of segments, and all before `ended_below` are ended.
    pub(crate) fn learn(&mut self, changed: BTreeMap<u64, Option<SegmentRow>>, ended_below: u64) {
        self.ended_below = self.ended_below.max(ended_below);
        for (segment, row) in changed {
            self.note(segment, row);
        }
    }

    fn note(&mut self, segment: u64, row: Option<SegmentRow>) {
        let percent = u64::from(self.shared.options.collect_below_percent);
        let limit = self.shared.options.segment_octets / 100 * percent;
        match row {
            Some(row) if row.octets < limit => self.candidates.insert(segment, row.octets),
            _ => self.candidates.remove(&segment),
        };
        if row.is_none() {
            self.stuck.remove(&segment);
        }
    }

    /// How long until there may be something to do; `None`: not before something changes.
    pub(crate) fn due(&self) -> Option<Duration> {
        if self.shared.stopped().is_some() || self.shared.supply.is_pinned() {
            return None;
        }
        if self.work.is_none() && self.copying.is_none() && self.best().is_none() {
            return None;
        }
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        Some(self.not_before.map_or(Duration::ZERO, left))
    }

    /// The ended segment with the fewest living octets.
    fn best(&self) -> Option<(u64, u64)> {
        let ended = self.ended_below.saturating_sub(SEGMENTS_BEHIND);
        let open = self.candidates.range(..ended);
        open.filter(|(segment, _)| !self.stuck.contains(segment))
            .min_by_key(|(_, living)| **living)
            .map(|(segment, living)| (*segment, *living))
    }

    /// Copies a little, and waits for it. The caller sees to it that nobody has pinned the log.
    pub(crate) fn advance(&mut self) {
        self.hand_over();
        if let Some(copying) = self.copying.take() {
            let Copying {
                answer,
                blobs,
                octets,
            } = copying;
            self.take_answer(answer.blocking_recv().ok(), blobs, octets);
        }
    }

    /// The same without waiting: hands copies over, or looks whether they are answered. Answers
    /// whether there was anything to do.
    #[cfg(feature = "simulated-disk")]
    pub(crate) fn step(&mut self) -> bool {
        let Some(mut copying) = self.copying.take() else {
            let idle = self.due().is_none();
            self.hand_over();
            return !idle && (self.copying.is_some() || self.work.is_some());
        };
        match copying.answer.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => {
                self.copying = Some(copying);
                false
            }
            answer => {
                self.take_answer(answer.ok(), copying.blobs, copying.octets);
                true
            }
        }
    }

    fn hand_over(&mut self) {
        if self.work.is_none() {
            self.begin();
        }
        let Some(mut work) = self.work.take() else { return };
        match self.gather(&mut work) {
            Ok(moves) if !moves.is_empty() => {
                self.enqueue(moves);
                self.work = Some(work);
            }
            Ok(_) => self.finish(&work),
            Err(error) => {
                tracing::warn!(segment = work.segment, %error, "a half-dead segment can't be read now");
                self.not_before = Some(Instant::now() + RETRY);
            }
        }
    }

    /// Opens the next segment to be emptied, when there is one and room for what lives in it.
    fn begin(&mut self) {
        let Some((segment, living)) = self.best() else {
            return;
        };
        let options = &self.shared.options;
        let file = match self.shared.segments.read(segment) {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!(segment, %error, "a half-dead segment can't be opened now");
                self.not_before = Some(Instant::now() + RETRY);
                return;
            }
        };
        let percent = u64::from(options.collect_below_percent);
        if file.len().is_ok_and(|len| living >= len / 100 * percent) {
            // It was made under a smaller setting, or its end was cut.
            self.candidates.remove(&segment);
            return;
        }
        if self.shared.reserve.is_released() || !self.has_room(living) {
            self.not_before = Some(Instant::now() + RETRY);
            return;
        }
        tracing::debug!(segment, living, "a half-dead segment is emptied");
        self.work = Some(Work {
            segment,
            file,
            next: Some(0),
            pending: VecDeque::new(),
            stuck: false,
        });
    }

    /// Whether the copies find room, and then some: on a disk that is nearly full a copy that can't
    /// be finished would only make it fuller.
    fn has_room(&self, living: u64) -> bool {
        let wanted = living + living / 8 + 2 * self.shared.options.reserve_octets;
        match self.shared.segments.room() {
            Ok(room) => room >= wanted,
            Err(error) => {
                tracing::warn!(%error, "can't ask how much room there is");
                false
            }
        }
    }

    /// The next living blobs of the segment, verified. None: it has no more.
    fn gather(&self, work: &mut Work) -> io::Result<Vec<Move>> {
        let mut moves = Vec::new();
        let mut octets = 0;
        while octets < COPY_OCTETS {
            let Some((id, place)) = work.pending.pop_front() else {
                match self.next_group(work)? {
                    true => continue,
                    false => break,
                }
            };
            match self.shared.blob_row(id) {
                Ok(row) if row.place == place => {}
                Ok(_) | Err(BlobError::NotFound(_)) => continue,
                Err(error @ BlobError::Corrupt(_)) => {
                    self.damaged(work, id, place, &error);
                    continue;
                }
                // It passes: the index is opened anew after a write that failed.
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
            match self.shared.read_blob(id, 0..u64::MAX) {
                Ok((bytes, row)) if row.place == place => {
                    octets += bytes.len();
                    moves.push(a_move(id, place, bytes));
                }
                Ok(_) | Err(BlobError::NotFound(_)) => {}
                Err(error @ BlobError::Corrupt(_)) => self.damaged(work, id, place, &error),
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
        Ok(moves)
    }

    /// Lists the blobs of the next group. `false`: there is none.
    fn next_group(&self, work: &mut Work) -> io::Result<bool> {
        let Some(mut offset) = work.next.take() else {
            return Ok(false);
        };
        let mut head = [0; HEADER];
        let here = log::read_up_to(&*work.file, &mut head, offset)?;
        let ours = |header: &Header, at: u64| header.stands_at(work.segment, at, self.store);
        let mut header = Header::parse(&head).filter(|header| here && ours(header, offset));
        if header.is_none() {
            // Damage, or the end: stale groups are not ours.
            let Some(later) = log::header_places(&*work.file, offset, ours)?.first().copied() else {
                return Ok(false);
            };
            work.stuck = true;
            offset = later;
            log::read_up_to(&*work.file, &mut head, offset)?;
            header = Header::parse(&head);
        }
        let Some(header) = header else { return Ok(false) };
        work.next = Some(header.end().offset);
        let mut bytes = vec![0; header.row_octets as usize];
        let blobs = offset + HEADER as u64;
        let rows_at = blobs + u64::from(header.blob_octets);
        let whole = log::read_up_to(&*work.file, &mut bytes, rows_at)?;
        let Some(rows) = Group::rows(&header, Bytes::from(bytes)).filter(|_| whole) else {
            self.tell(work.segment, offset, "the rows of this group are damaged");
            work.stuck = true;
            return Ok(true);
        };
        let mut named = BTreeSet::new();
        for (key, row) in rows {
            let place = row
                .and_then(|row| rows::BlobRow::decode(&row))
                .map(|row| row.place);
            if let (Some(id), Some(place @ Place::Log { segment, offset })) = (rows::blob_of_key(&key), place)
                && segment == work.segment
                && (blobs..rows_at).contains(&offset)
                && named.insert(id)
            {
                work.pending.push_back((id, place));
            }
        }
        Ok(true)
    }

    fn enqueue(&mut self, moves: Vec<Move>) {
        let mut batch = Batch::new();
        let blobs = moves.len() as u64;
        let octets = moves.iter().map(|one| one.blob.len).sum();
        batch.moves = moves;
        let (reply, answer) = oneshot::channel();
        let job = Job {
            octets: batch.octets(),
            batch,
            reply,
        };
        self.copying = Some(Copying {
            answer,
            blobs,
            octets,
        });
        if let Some(refused) = self.shared.enqueue(job) {
            self.copying = None;
            self.give_up(&refused);
        }
    }

    fn take_answer(&mut self, answer: Option<Result<Receipt, CommitError>>, blobs: u64, octets: u64) {
        match answer {
            Some(Ok(_)) => {
                let figures = &self.shared.collected;
                figures.blobs.fetch_add(blobs, Ordering::Relaxed);
                figures.octets.fetch_add(octets, Ordering::Relaxed);
                let rate = self.shared.options.collect_octets_per_second.max(1);
                let pause = Duration::from_micros(octets.saturating_mul(1_000_000) / rate);
                self.not_before = Some(Instant::now() + pause);
            }
            Some(Err(error)) => self.give_up(&error),
            // The store is closing.
            None => self.work = None,
        }
    }

    /// What was copied so far stays copied; the segment is begun anew later.
    fn give_up(&mut self, error: &CommitError) {
        tracing::debug!(%error, "copying is put off");
        self.work = None;
        self.not_before = Some(Instant::now() + RETRY);
    }

    /// The segment was read to its end, and all copies are committed.
    fn finish(&mut self, work: &Work) {
        let row = match self.shared.segment_row(work.segment) {
            Ok(row) => row,
            Err(error) => {
                tracing::warn!(segment = work.segment, %error, "a segment's figures can't be read now");
                self.not_before = Some(Instant::now() + RETRY);
                return;
            }
        };
        self.candidates.remove(&work.segment);
        if row.is_none() {
            self.shared.collected.segments.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(segment = work.segment, "a half-dead segment is empty");
            return;
        }
        // It keeps its room until what is in it is deleted, or until the next opening.
        self.stuck.insert(work.segment);
        if !work.stuck {
            self.tell(
                work.segment,
                0,
                "living blobs of this segment were not found in it",
            );
        }
    }

    fn damaged(&self, work: &mut Work, id: BlobId, place: Place, error: &BlobError) {
        work.stuck = true;
        let Place::Log { segment, offset } = place else {
            return;
        };
        tracing::error!(blob = %id, segment, offset, %error, "a damaged blob stays where it is");
        self.tell(segment, offset, "a blob here is damaged");
    }

    fn tell(&self, segment: u64, offset: u64, what: &'static str) {
        self.shared.collected.damaged.fetch_add(1, Ordering::Relaxed);
        tracing::error!(segment, offset, what, "damage was found while blobs were copied");
        self.shared.found_damage(Damage {
            segment,
            offset,
            what,
        });
    }
}

fn a_move(id: BlobId, from: Place, bytes: Bytes) -> Move {
    let len = bytes.len() as u64;
    let body = StagedBody::Inline(bytes);
    let blob = StagedBlob { id, len, body };
    Move { from, blob }
}
