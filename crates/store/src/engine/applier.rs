//! The applier: the thread that brings the index up behind the log, and clears away what the
//! index has shown to be dead.
//!
//! Promises: a failed index write loses nothing (the rows are in the log and in memory; it opens
//! the index anew and tries again); a segment is called dead only when the index, durably, knows of
//! no blob in it and needs nothing of it for recovery. Never: in the way of a commit.

use super::index::{Index, IndexView};
use super::shared::{Applied, ApplyJob, Shared};
use super::state::State;
use crate::apply::View;
use crate::file::is_full;
use crate::overlay::Overlay;
use crate::rows::{self, SegmentRow};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Time between attempts when the index can't be written.
const RETRY: Duration = Duration::from_millis(500);

/// The applier's own state.
pub(crate) struct Applier {
    shared: Arc<Shared>,
    index: Index,
    /// Segments below this number were looked at since they were full.
    looked_at: u64,
    /// Which opening of the store this is; blobs of earlier ones can't be staged any more.
    opening: u64,
    #[cfg(feature = "simulated-disk")]
    tidied: bool,
    #[cfg(feature = "simulated-disk")]
    unfinished: Option<ApplyJob>,
}

impl Applier {
    pub(crate) fn new(shared: Arc<Shared>, index: Index, segment: u64, opening: u64) -> Self {
        Self {
            shared,
            index,
            looked_at: segment,
            opening,
            #[cfg(feature = "simulated-disk")]
            tidied: false,
            #[cfg(feature = "simulated-disk")]
            unfinished: None,
        }
    }

    /// Runs until the committer has ended.
    pub(crate) fn run(mut self) {
        let _end = EndGuard(self.shared.clone());
        self.tidy();
        while let Some(job) = self.wait() {
            let index = self.apply(&job);
            self.finish(&job, index);
        }
    }

    /// Does what there is to do now, on the caller's thread, without waiting. What fails is tried
    /// again with the next step. Answers whether there was anything.
    #[cfg(feature = "simulated-disk")]
    pub(crate) fn step(&mut self) -> bool {
        if !self.tidied {
            self.tidied = true;
            self.tidy();
            return true;
        }
        let waiting = self.unfinished.take();
        let Some(job) = waiting.or_else(|| self.shared.inbox().job.take()) else {
            return false;
        };
        match self.attempt(&job) {
            Some(index) => self.finish(&job, Some(index)),
            None => self.unfinished = Some(job),
        }
        true
    }

    /// Tells of a view with the rows in it, and clears away what they made superfluous. `None`: the
    /// store is closing.
    fn finish(&mut self, job: &ApplyJob, index: Option<IndexView>) {
        let done = index.is_some();
        self.tell(Applied { index, done });
        if done {
            self.reclaim(job);
            self.shared.has_indexed(job.position.next_seq - 1);
        }
    }

    fn wait(&self) -> Option<ApplyJob> {
        let mut inbox = self.shared.inbox();
        loop {
            if let Some(job) = inbox.job.take() {
                return Some(job);
            }
            if inbox.closing {
                return None;
            }
            inbox = self
                .shared
                .inbox_changed
                .wait(inbox)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn tell(&self, applied: Applied) {
        self.shared.queue().applied = Some(applied);
        self.shared.queue_changed.notify_one();
    }

    /// Applies rows, as often as it takes, and answers a view with them in it. `None`: the store
    /// is closing and they stay in the log.
    fn apply(&mut self, job: &ApplyJob) -> Option<IndexView> {
        loop {
            if let Some(view) = self.attempt(job) {
                return Some(view);
            }
            if self.shared.stopped().is_some() {
                return None;
            }
            let queue = self.shared.queue();
            if queue.closing {
                return None;
            }
            let waited = self
                .shared
                .closing_changed
                .wait_timeout_while(queue, RETRY, |queue| !queue.closing);
            if waited.map_or(true, |(queue, _)| queue.closing) {
                return None;
            }
        }
    }

    /// Applies rows, and answers a view with them in it. A failure is told and leaves the index open
    /// where that is possible.
    fn attempt(&mut self, job: &ApplyJob) -> Option<IndexView> {
        let applied = self.index.apply_to(job.rows.iter(), job.position);
        let error = match applied.and_then(|()| self.index.view()) {
            Ok(view) => return Some(view),
            Err(error) => error,
        };
        if let redb::Error::Corrupted(why) = &error {
            // Trying again would find the same.
            self.shared.stop(format!("the index can't be written: {why}"));
            return None;
        }
        tracing::warn!(%error, "the index can't be written; trying again");
        if matches!(&error, redb::Error::Io(error) if is_full(error)) {
            self.shared.disk_is_full();
        }
        // A failed write closes redb for good, for readers too.
        if let Err(error) = self.index.reopen() {
            tracing::warn!(%error, "the index can't be opened; trying again");
        }
        let index = self.index.view().ok();
        self.tell(Applied { index, done: false });
        None
    }

    /// Looks for segments that have died.
    fn reclaim(&mut self, job: &ApplyJob) {
        let figures = figures_in(&job.rows);
        let ended_below = job.position.segment;
        self.shared.tell_keeper(|inbox| {
            inbox.figures.extend(figures.clone());
            inbox.ended_below = ended_below;
        });
        let mut candidates: BTreeSet<u64> = (self.looked_at..job.position.segment).collect();
        candidates.extend(figures.iter().filter(|(_, row)| row.is_none()).map(|(n, _)| *n));
        self.looked_at = self.looked_at.max(job.position.segment);
        let below = job.position.segment;
        self.bury_dead(candidates.into_iter().filter(|segment| *segment < below));
    }

    /// Gives segments that nothing needs any more to the supply.
    fn bury_dead(&self, candidates: impl Iterator<Item = u64>) {
        // Groups were left out: one of them may have said that a blob still stands in a segment from
        // which a later one moved the rest. Nothing goes while the operator saves what there is.
        if self.shared.options.skip_damage {
            return;
        }
        let Ok(view) = self.index.view() else { return };
        // An error (damage) is no proof of death.
        let dead = candidates.filter(|n| matches!(view.row(&rows::segment_key(*n)), Ok(None)));
        self.shared.supply.bury(dead);
        self.shared.tell_keeper(|inbox| inbox.surplus = true);
    }

    /// What an earlier end left behind: dead segments, files of large blobs that no commit took.
    fn tidy(&self) {
        if let Err(error) = self.shared.reserve.fill_first() {
            tracing::warn!(%error, "no room for the reserve");
        }
        let state: Arc<State> = self.shared.state();
        let opening = self.opening;
        match self.shared.files.list() {
            Ok(ids) => ids
                .into_iter()
                .filter(|id| super::opening_of(*id) < opening)
                .filter(|id| matches!(state.row(&rows::blob_key(*id)), Ok(None)))
                .for_each(|id| self.shared.files.remove(id)),
            Err(error) => tracing::warn!(%error, "can't list the large blobs"),
        }
        match self.shared.segments.list() {
            Ok(segments) => self.bury_dead(segments.into_iter().filter(|n| *n < self.looked_at)),
            Err(error) => tracing::warn!(%error, "can't list the segments"),
        }
    }
}

/// A panic of the applier is told, and the store stops: nobody waits for the index for ever.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .stop("the applier panicked; the store must be opened anew".to_owned());
            self.0.queue().applied = Some(Applied {
                index: None,
                done: false,
            });
            self.0.queue_changed.notify_one();
        }
    }
}

/// Figures of segments among these rows; `None`: the last blob went.
fn figures_in(rows: &Overlay) -> BTreeMap<u64, Option<SegmentRow>> {
    let (start, end) = rows::segment_range();
    let changed = rows.range::<[u8], _>((Bound::Included(&start[..]), Bound::Excluded(&end[..])));
    changed
        .filter_map(|(key, row)| {
            let row = row.as_deref().and_then(SegmentRow::decode);
            Some((rows::segment_of_key(key)?, row))
        })
        .collect()
}
