//! What the engine's threads and its callers share: the queue of waiting batches, the published
//! state, and the hand-over between committer and applier.
//!
//! Never: a lock held across a disk operation.

use super::blobs::LargeFiles;
use super::group::Position;
use super::index::IndexView;
use super::log::Segments;
use super::reserve::Reserve;
use super::state::State;
use super::sync_pool::SyncPool;
use super::{Options, Stats};
use crate::batch::Batch;
use crate::overlay::Overlay;
use crate::tables::{CommitError, Receipt};
use crate::watches::Watches;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::oneshot;

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

/// Everything shared.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) segments: Arc<Segments>,
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
    state: Mutex<Arc<State>>,
    /// Why nothing can be committed any more.
    stopped: OnceLock<String>,
    /// Wakes those who wait for that.
    stopping: tokio::sync::Notify,
    groups: AtomicU64,
    batches: AtomicU64,
    octets: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        options: Options,
        segments: Arc<Segments>,
        files: Arc<LargeFiles>,
        reserve: Reserve,
        pool: Arc<SyncPool>,
        state: State,
    ) -> Self {
        Self {
            options,
            segments,
            files,
            reserve,
            watches: Watches::default(),
            pool,
            queue: Mutex::default(),
            queue_changed: Condvar::new(),
            closing_changed: Condvar::new(),
            inbox: Mutex::default(),
            inbox_changed: Condvar::new(),
            state: Mutex::new(Arc::new(state)),
            stopped: OnceLock::new(),
            stopping: tokio::sync::Notify::new(),
            groups: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            octets: AtomicU64::new(0),
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

    /// From now on nothing is committed.
    pub(crate) fn stop(&self, why: String) {
        if self.stopped.set(why).is_ok() {
            tracing::error!(why = self.stopped.get(), "the store has stopped");
            self.stopping.notify_waiters();
        }
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
        drop(queue);
        self.queue_changed.notify_one();
        None
    }

    pub(crate) fn count_group(&self, batches: u64, octets: u64) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.batches.fetch_add(batches, Ordering::Relaxed);
        self.octets.fetch_add(octets, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> Stats {
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
        }
    }
}
