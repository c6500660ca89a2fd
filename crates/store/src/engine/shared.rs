//! What the engine's threads and its callers share: the queue of waiting batches, the published
//! state, and the hand-over between committer and applier.
//!
//! Never: a lock held across a disk operation.

use super::blobs::{self, LargeFiles};
use super::group::Position;
use super::index::IndexView;
use super::log::Segments;
use super::reserve::Reserve;
use super::state::State;
use super::supply::Supply;
use super::sync_pool::SyncPool;
use super::{Damage, Options, Stats, collect};
use crate::apply::View;
use crate::batch::Batch;
use crate::blob::{BlobError, BlobId};
use crate::overlay::Overlay;
use crate::rows::{self, BlobRow, SegmentRow};
use crate::tables::{CommitError, ReadError, Receipt};
use crate::watches::Watches;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::oneshot;

/// Places of damage kept in mind at most.
const DAMAGE_MAX: usize = 1000;

/// A waiting batch.
pub(crate) struct Job {
    pub(crate) batch: Batch,
    pub(crate) octets: usize,
    pub(crate) reply: oneshot::Sender<Result<Receipt, CommitError>>,
}

/// The committer's inbox.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) octets: usize,
    /// The number of jobs at which the committer wants to be woken, beside the first.
    pub(crate) wanted: usize,
    pub(crate) applied: Option<Applied>,
    pub(crate) closing: bool,
}

/// What the applier tells the committer.
pub(crate) struct Applied {
    /// A fresh view of the index, unless it can't be read.
    pub(crate) index: Option<IndexView>,
    /// Whether the rows handed over are in it; otherwise the applier tries again.
    pub(crate) done: bool,
}

/// Rows for the index, and the log position that they lead to.
pub(crate) struct ApplyJob {
    pub(crate) rows: Overlay,
    pub(crate) position: Position,
}

/// The applier's inbox.
#[derive(Default)]
pub(crate) struct ApplierInbox {
    pub(crate) job: Option<ApplyJob>,
    pub(crate) closing: bool,
}

/// The keeper's inbox.
#[derive(Default)]
pub(crate) struct KeeperInbox {
    /// The log will soon need this segment.
    pub(crate) wanted: Option<u64>,
    /// There are segments to remove.
    pub(crate) surplus: bool,
    /// Figures of segments that have changed in the index; `None`: no blob is left.
    pub(crate) figures: BTreeMap<u64, Option<SegmentRow>>,
    /// Segments before this one are ended.
    pub(crate) ended_below: u64,
    /// The disk is full: nothing may be spare.
    pub(crate) full: bool,
    pub(crate) closing: bool,
}

/// Everything shared.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) segments: Arc<Segments>,
    pub(crate) supply: Arc<Supply>,
    pub(crate) files: Arc<LargeFiles>,
    pub(crate) reserve: Reserve,
    pub(crate) watches: Watches,
    pub(crate) pool: Arc<SyncPool>,
    queue: Mutex<Queue>,
    pub(crate) queue_changed: Condvar,
    /// With the queue's lock: wakes the applier from its pause between attempts.
    pub(crate) closing_changed: Condvar,
    inbox: Mutex<ApplierInbox>,
    pub(crate) inbox_changed: Condvar,
    keeper: Mutex<KeeperInbox>,
    pub(crate) keeper_changed: Condvar,
    state: Mutex<Arc<State>>,
    pub(crate) collected: collect::Figures,
    damage: Mutex<Vec<Damage>>,
    /// Why nothing can be committed any more.
    stopped: OnceLock<String>,
    /// Wakes those who wait for that.
    stopping: tokio::sync::Notify,
    groups: AtomicU64,
    batches: AtomicU64,
    octets: AtomicU64,
    /// The newest seq that the index has, and that dead segments were looked for behind.
    indexed: AtomicU64,
    replayed: ReplayFigures,
    ended_well: AtomicBool,
}

/// What the opening replayed.
#[derive(Clone, Copy, Default)]
pub(crate) struct ReplayFigures {
    pub(crate) octets: u64,
    pub(crate) batches: u64,
}

impl Shared {
    pub(crate) fn new(
        options: Options,
        supply: Arc<Supply>,
        files: Arc<LargeFiles>,
        reserve: Reserve,
        pool: Arc<SyncPool>,
        state: State,
        replayed: ReplayFigures,
    ) -> Self {
        let indexed = AtomicU64::new(state.seq.0);
        Self {
            options,
            segments: supply.segments().clone(),
            supply,
            files,
            reserve,
            watches: Watches::default(),
            pool,
            queue: Mutex::default(),
            queue_changed: Condvar::new(),
            closing_changed: Condvar::new(),
            inbox: Mutex::default(),
            inbox_changed: Condvar::new(),
            keeper: Mutex::default(),
            keeper_changed: Condvar::new(),
            state: Mutex::new(Arc::new(state)),
            collected: collect::Figures::default(),
            damage: Mutex::default(),
            stopped: OnceLock::new(),
            stopping: tokio::sync::Notify::new(),
            groups: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            octets: AtomicU64::new(0),
            indexed,
            replayed,
            ended_well: AtomicBool::new(false),
        }
    }

    /// The state as it is now.
    pub(crate) fn state(&self) -> Arc<State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the state.
    pub(crate) fn publish(&self, state: State) {
        let state = Arc::new(state);
        let old = {
            let mut slot = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *slot, state)
        };
        // Freeing a whole overlay takes a moment; not under the lock.
        drop(old);
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn inbox(&self) -> MutexGuard<'_, ApplierInbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keeper(&self) -> MutexGuard<'_, KeeperInbox> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the keeper something.
    pub(crate) fn tell_keeper(&self, tell: impl FnOnce(&mut KeeperInbox)) {
        tell(&mut self.keeper());
        self.keeper_changed.notify_one();
    }

    /// There is no room: what was kept for this day is given away.
    pub(crate) fn disk_is_full(&self) {
        self.reserve.release();
        self.tell_keeper(|inbox| inbox.full = true);
    }

    /// From now on nothing is committed.
    pub(crate) fn stop(&self, why: String) {
        if self.stopped.set(why).is_ok() {
            tracing::error!(why = self.stopped.get(), "the store has stopped");
            self.stopping.notify_waiters();
        }
    }

    /// All that was queued is answered, and the log has its end.
    pub(crate) fn ended_well(&self) {
        self.ended_well.store(true, Ordering::Release);
    }

    pub(crate) fn has_ended_well(&self) -> bool {
        self.ended_well.load(Ordering::Acquire)
    }

    /// The same at a regular end.
    pub(crate) fn stop_quietly(&self, why: &str) {
        let _ = self.stopped.set(why.to_owned());
    }

    /// Waits until the store has stopped, and tells why.
    pub(crate) async fn until_stopped(&self) -> String {
        loop {
            let mut woken = std::pin::pin!(self.stopping.notified());
            // Listening begins before the look, so that nothing is missed between the two.
            woken.as_mut().enable();
            if let Some(why) = self.stopped.get() {
                return why.clone();
            }
            woken.await;
        }
    }

    /// The answer to every commit once the store has stopped.
    pub(crate) fn stopped(&self) -> Option<CommitError> {
        self.stopped.get().map(|why| CommitError::Fatal(why.clone()))
    }

    /// Keeps in mind what was found damaged since the opening, the first thousand.
    pub(crate) fn found_damage(&self, found: Damage) {
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        if damage.len() < DAMAGE_MAX && !damage.contains(&found) {
            damage.push(found);
        }
    }

    /// What was found damaged since the opening.
    pub(crate) fn damage(&self) -> Vec<Damage> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Figures of a segment as they are now; `None` when nothing lives in it.
    pub(crate) fn segment_row(&self, segment: u64) -> Result<Option<SegmentRow>, ReadError> {
        let row = self.state().row(&rows::segment_key(segment))?;
        Ok(row.map(|row| SegmentRow::decode(&row).unwrap_or_default()))
    }

    /// The row of a blob as it is now.
    pub(crate) fn blob_row(&self, id: BlobId) -> Result<BlobRow, BlobError> {
        let row = self.state().row(&rows::blob_key(id));
        let row = row.map_err(|error| match error {
            ReadError::Corrupt(_) => BlobError::Corrupt(id),
            ReadError::Io(why) => BlobError::Io(why),
        })?;
        BlobRow::decode(&row.ok_or(BlobError::NotFound(id))?).ok_or(BlobError::Corrupt(id))
    }

    /// Reads a range of a blob; answers also the row that said where it is.
    ///
    /// Between the look at the row and the reading the blob may be dropped or moved, and its
    /// segment may become another. So what was read counts only if no segment was recycled
    /// meanwhile, or if the row still says the same.
    pub(crate) fn read_blob(&self, id: BlobId, range: Range<u64>) -> Result<(Bytes, BlobRow), BlobError> {
        let mut recycled = self.segments.recycled();
        let mut row = self.blob_row(id)?;
        loop {
            let found = blobs::read(&self.segments, &self.files, id, &row, range.clone());
            let now = self.segments.recycled();
            if matches!(found, Ok(Some(_))) && now == recycled {
                return Ok((found?.unwrap_or_default(), row));
            }
            recycled = now;
            let row_now = self.blob_row(id)?;
            if row_now.place == row.place {
                let bytes = found?.ok_or(BlobError::Corrupt(id))?;
                return Ok((bytes, row));
            }
            row = row_now;
        }
    }

    /// Queues a batch. `None`, or why it can't be.
    pub(crate) fn enqueue(&self, job: Job) -> Option<CommitError> {
        let mut queue = self.queue();
        if let Some(stopped) = self.stopped() {
            return Some(stopped);
        }
        if queue.closing {
            return Some(CommitError::Fatal("the store is closed".to_owned()));
        }
        if queue.jobs.len() >= self.options.queue_batches
            || (queue.octets + job.octets > self.options.queue_octets && !queue.jobs.is_empty())
        {
            return Some(CommitError::Busy);
        }
        queue.octets += job.octets;
        queue.jobs.push_back(job);
        // The committer waits for the first job, and then perhaps for company.
        let jobs = queue.jobs.len();
        let wake = jobs == 1 || jobs == queue.wanted;
        drop(queue);
        if wake {
            self.queue_changed.notify_one();
        }
        None
    }

    pub(crate) fn count_group(&self, batches: u64, octets: u64) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.batches.fetch_add(batches, Ordering::Relaxed);
        self.octets.fetch_add(octets, Ordering::Relaxed);
    }

    /// The index has everything up to this seq.
    pub(crate) fn has_indexed(&self, seq: u64) {
        self.indexed.store(seq, Ordering::Release);
    }

    pub(crate) fn stats(&self) -> Stats {
        let seq = self.state().seq.0;
        let (batches_waiting, octets_waiting) = {
            let queue = self.queue();
            (queue.jobs.len(), queue.octets)
        };
        Stats {
            groups: self.groups.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            log_octets: self.octets.load(Ordering::Relaxed),
            batches_waiting,
            octets_waiting,
            batches_unindexed: seq.saturating_sub(self.indexed.load(Ordering::Acquire)),
            segments_waited_for: self.supply.figures.waited_for.load(Ordering::Relaxed),
            segments_recycled: self.supply.figures.recycled.load(Ordering::Relaxed),
            replayed_octets: self.replayed.octets,
            replayed_batches: self.replayed.batches,
            segments_collected: self.collected.segments.load(Ordering::Relaxed),
            blobs_moved: self.collected.blobs.load(Ordering::Relaxed),
            octets_moved: self.collected.octets.load(Ordering::Relaxed),
            damage_found: self.collected.damaged.load(Ordering::Relaxed),
            segments_removed: self.supply.figures.removed.load(Ordering::Relaxed),
        }
    }
}
