//! The committer: the one thread that makes batches durable.
//!
//! It takes whatever is waiting as a group, resolves the batches in order (each sees those before
//! it), writes one group to the log, syncs once, publishes the new state and answers everyone.
//! Promises: nothing is answered `Ok` or becomes visible before the sync; a full disk changes
//! nothing and is survived; a failed sync stops the store for good.
//! Never: a write to the index (see `applier`), a second sync for the same group.

use super::gather::Gather;
use super::group::{Buffers, Builder, Position};
use super::log::{AppendError, Writer};
use super::shared::{Applied, ApplyJob, Job, Queue, Shared};
use super::state::State;
use crate::apply::{self, Placer, Resolved};
use crate::blob::{StagedBlob, StagedBody};
use crate::overlay::Overlay;
use crate::relocate;
use crate::rows::Place;
use crate::tables::{CommitError, Receipt, Seq};
use bytes::Bytes;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a row costs in the overlay beside its octets, about.
const ROW_OVERHEAD: usize = 160;

/// The committer's own state.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    log: Writer,
    store: u64,
    /// What is published, plus the group being put together.
    work: State,
    active_octets: usize,
    active_since: Option<Instant>,
    /// Active rows of which no layer below knows.
    born: HashSet<Bytes>,
    /// The applier could not do its last work and is trying again.
    applier_fails: bool,
    buffers: Buffers,
    gather: Gather,
}

/// What the committer found in its inbox.
struct Turn {
    jobs: VecDeque<Job>,
    applied: Option<Applied>,
    closing: bool,
}

/// What a step did.
#[cfg(feature = "simulated-disk")]
pub(crate) enum Step {
    /// There was nothing to do.
    Idle,
    /// There may be more to do.
    Done,
    /// The store is closed.
    Last,
}

/// A batch of the group, resolved: what to answer when the group is durable.
type Answered = (Job, Result<Resolved, CommitError>);

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, log: Writer, store: u64) -> Self {
        let work = (*shared.state()).clone();
        let gather = Gather::new(shared.options.gather_wait);
        Self {
            gather,
            shared,
            log,
            store,
            work,
            active_octets: 0,
            active_since: None,
            born: HashSet::new(),
            applier_fails: false,
            buffers: Buffers::default(),
        }
    }

    /// Runs until the store is closed and all that was queued is answered.
    pub(crate) fn run(mut self) {
        let _end = self.end_guard();
        loop {
            let turn = self.wait();
            if self.take_turn(turn) {
                break;
            }
        }
        self.end();
    }

    /// What has to be held while the committer runs.
    pub(crate) fn end_guard(&self) -> EndGuard {
        EndGuard(self.shared.clone())
    }

    /// Does one turn's work. Answers whether it was the last.
    fn take_turn(&mut self, turn: Turn) -> bool {
        if let Some(applied) = turn.applied {
            self.take_applied(applied);
        }
        let none_taken = turn.jobs.is_empty();
        self.commit_all(turn.jobs);
        self.hand_over(turn.closing);
        let idle = none_taken && self.shared.queue().jobs.is_empty();
        let applied_all = self.work.active.is_empty() && self.work.frozen.is_none();
        // What is not in the index by now is in the log, and the next opening replays it.
        let gives_up = self.applier_fails || self.shared.stopped().is_some();
        turn.closing && idle && (applied_all || gives_up)
    }

    /// A clean end.
    pub(crate) fn end(&mut self) {
        if self.shared.stopped().is_some() {
            return;
        }
        self.shared.ended_well();
        if let Err(error) = self.log.trim() {
            tracing::warn!(%error, "can't give back the room behind the log");
        }
    }

    /// Whether more rows may be taken in. If not, commits wait for the applier.
    fn has_room(&self) -> bool {
        self.active_octets < self.shared.options.overlay_octets || self.work.frozen.is_none()
    }

    /// Whether waiting batches are to be taken: to be committed, or to be refused.
    fn takes_jobs(&self) -> bool {
        self.has_room() || self.applier_fails || self.shared.stopped().is_some()
    }

    /// Whether there is something to do now; if not, the time after which there may be.
    fn ready(&self, queue: &Queue) -> Result<(), Option<Duration>> {
        let waiting = !queue.jobs.is_empty() && self.takes_jobs();
        let left = match (self.active_since, &self.work.frozen) {
            (Some(since), None) if self.shared.stopped().is_none() => {
                let interval = self.shared.options.apply_interval;
                Some(interval.saturating_sub(since.elapsed()))
            }
            _ => None,
        };
        let due = left.is_some_and(|left| left.is_zero());
        // While the last rows go into the index there is nothing to do but to wait for it.
        let closing = queue.closing && (self.work.frozen.is_none() || self.applier_fails);
        if waiting || due || closing || queue.applied.is_some() {
            return Ok(());
        }
        Err(left)
    }

    /// Does what there is to do now, on the caller's thread and without waiting. Answers whether
    /// there was anything, and whether it was the last.
    #[cfg(feature = "simulated-disk")]
    pub(crate) fn step(&mut self) -> Step {
        let mut queue = self.shared.queue();
        if self.ready(&queue).is_err() {
            return Step::Idle;
        }
        let turn = self.collect(&mut queue);
        drop(queue);
        match self.take_turn(turn) {
            true => Step::Last,
            false => Step::Done,
        }
    }

    fn wait(&mut self) -> Turn {
        let shared = self.shared.clone();
        let mut queue = shared.queue();
        loop {
            let left = match self.ready(&queue) {
                Ok(()) => match self.gathers(&queue) {
                    Some(left) => Some(left),
                    None => break,
                },
                Err(left) => left,
            };
            queue.wanted = self.gather.company();
            let changed = &shared.queue_changed;
            queue = match left {
                Some(left) => match changed.wait_timeout(queue, left) {
                    Ok((queue, _)) => queue,
                    Err(poisoned) => poisoned.into_inner().0,
                },
                None => match changed.wait(queue) {
                    Ok(queue) => queue,
                    Err(poisoned) => poisoned.into_inner(),
                },
            };
        }
        let turn = self.collect(&mut queue);
        drop(queue);
        if !turn.jobs.is_empty() {
            self.gather.went(turn.jobs.len());
        }
        turn
    }

    /// For how long to wait for more batches, when batches are all there is to do.
    fn gathers(&mut self, queue: &Queue) -> Option<Duration> {
        let only_batches = !queue.jobs.is_empty() && queue.applied.is_none() && !queue.closing;
        if !only_batches || self.shared.stopped().is_some() {
            return None;
        }
        self.gather.left(queue.jobs.len(), Instant::now())
    }

    /// Takes what waits, up to a group.
    fn collect(&self, queue: &mut Queue) -> Turn {
        let options = &self.shared.options;
        let mut jobs = VecDeque::new();
        let mut octets = 0;
        while self.takes_jobs() && jobs.len() < options.group_batches && octets < options.group_octets {
            let Some(job) = queue.jobs.pop_front() else { break };
            queue.octets -= job.octets;
            octets += job.octets;
            jobs.push_back(job);
        }
        Turn {
            jobs,
            applied: queue.applied.take(),
            closing: queue.closing,
        }
    }

    fn take_applied(&mut self, applied: Applied) {
        self.applier_fails = !applied.done;
        if applied.done {
            self.work.frozen = None;
        }
        if let Some(index) = applied.index {
            self.work.index = index;
            self.shared.publish(self.work.clone());
        }
    }

    /// Gives the active rows to the applier when it is free and they are many or old.
    fn hand_over(&mut self, closing: bool) {
        let options = &self.shared.options;
        let Some(since) = self.active_since else { return };
        let due = closing
            || self.active_octets >= options.apply_octets
            || since.elapsed() >= options.apply_interval;
        if !due || self.work.frozen.is_some() || self.shared.stopped().is_some() {
            return;
        }
        let rows = std::mem::replace(&mut self.work.active, Overlay::new_sync());
        (self.active_octets, self.active_since) = (0, None);
        self.born.clear();
        self.work.frozen = Some(rows.clone());
        self.shared.publish(self.work.clone());
        let position = self.log.position();
        self.shared.inbox().job = Some(ApplyJob { rows, position });
        self.shared.inbox_changed.notify_one();
    }

    /// Commits jobs, in as many groups as it takes.
    fn commit_all(&mut self, mut jobs: VecDeque<Job>) {
        // First: a full disk may have stopped the index before it stops the log, and new mail is
        // to hear of the disk then, not that the store is busy.
        if !jobs.is_empty() && !self.shared.reserve.is_whole() {
            jobs = refuse_blobs(jobs);
        }
        if !self.has_room() && self.shared.stopped().is_none() {
            answer_all(jobs, &CommitError::Busy);
            return;
        }
        while !jobs.is_empty() {
            if let Some(stopped) = self.shared.stopped() {
                answer_all(jobs, &stopped);
                return;
            }
            let Err(full) = self.commit_group(&mut jobs) else {
                continue;
            };
            // What frees room or needs hardly any gets the reserve; new mail is refused.
            self.shared.disk_is_full();
            let mut small = refuse_blobs(full);
            while !small.is_empty() {
                // A sync on the full disk may have failed: what comes after it must not be answered.
                if let Some(stopped) = self.shared.stopped() {
                    answer_all(small, &stopped);
                    answer_all(jobs, &stopped);
                    return;
                }
                if let Err(refused) = self.commit_group(&mut small) {
                    answer_all(refused, &CommitError::Full);
                }
            }
            jobs = refuse_blobs(jobs);
        }
    }

    /// Commits one group from the front of `jobs`. `Err` gives the group's batches back: there was
    /// no room, and nothing happened.
    fn commit_group(&mut self, jobs: &mut VecDeque<Job>) -> Result<(), VecDeque<Job>> {
        if let Err(error) = self.log.rotate() {
            return self.failed(error, std::mem::take(jobs));
        }
        let before = (self.work.active.clone(), self.active_octets);
        let mut builder = Builder::new(self.log.position(), self.store, std::mem::take(&mut self.buffers));
        let mut group: Vec<Answered> = Vec::new();
        while builder.octets() < self.shared.options.group_octets {
            let Some(job) = jobs.pop_front() else { break };
            let result = self.resolve(&mut builder, &job);
            group.push((job, result));
        }
        if builder.is_empty() {
            self.answer(group);
            return Ok(());
        }
        let (buffers, end) = builder.finish();
        let appended = self.log.append(buffers.octets(), end);
        let octets = buffers.octets().len();
        self.buffers = buffers;
        self.buffers.shrink();
        if let Err(error) = appended {
            (self.work.active, self.active_octets) = before;
            self.born.clear();
            return self.failed(error, group.into_iter().map(|(job, _)| job).collect());
        }
        if let Some(next) = self.log.wants() {
            self.shared.tell_keeper(|inbox| inbox.wanted = Some(next));
        }
        self.active_since.get_or_insert_with(Instant::now);
        self.publish_group(end, octets);
        self.answer(group);
        Ok(())
    }

    fn failed(&self, error: AppendError, mut jobs: VecDeque<Job>) -> Result<(), VecDeque<Job>> {
        match error {
            AppendError::Full => Err(jobs),
            AppendError::Fatal(error) => {
                self.shared.stop(format!("writing the log failed: {error}"));
                // The group may have reached the disk all the same, and then the next opening
                // finds it: the files must still be there. If not, it sweeps them.
                for blob in jobs.iter_mut().flat_map(|job| &mut job.batch.blobs) {
                    if let StagedBody::File(file) = &mut blob.body {
                        file.take();
                    }
                }
                if let Some(stopped) = self.shared.stopped() {
                    answer_all(jobs, &stopped);
                }
                Ok(())
            }
        }
    }

    /// Resolves a batch against what is committed and what stands before it in the group.
    fn resolve(&mut self, builder: &mut Builder, job: &Job) -> Result<Resolved, CommitError> {
        let seq = builder.next_seq();
        let placer = &mut IntoGroup(builder);
        let mut resolved = match job.batch.moves.as_slice() {
            [] => apply::apply(&self.work, &job.batch, Seq(seq), placer),
            moves => relocate::relocate(&self.work, moves, Seq(seq), placer),
        }?;
        if resolved.writes.is_empty() {
            resolved.receipt.seq = resolved.receipt.seq.min(Seq(seq - 1));
            return Ok(resolved);
        }
        builder.batch(&resolved.writes);
        let writes = std::mem::take(&mut resolved.writes);
        self.take_in(writes, &std::mem::take(&mut resolved.new));
        Ok(resolved)
    }

    /// Takes rows into the active ones. Those that come and go again before they are handed over
    /// leave no trace: nothing has to be hidden from readers, and the index never hears of them.
    fn take_in(&mut self, writes: Vec<(Bytes, Option<Bytes>)>, new: &[Bytes]) {
        let mut new = new.iter().peekable();
        for (key, row) in writes {
            if row.is_none() && self.born.remove(&key) {
                let gone = self.work.active.get(&key).map_or(0, |row| octets_of(&key, row));
                self.active_octets = self.active_octets.saturating_sub(gone);
                self.work.active.remove_mut(&key);
                continue;
            }
            // What was removed since the last hand-over may still be in the index.
            if new.next_if(|new| **new == key).is_some() && !self.work.active.contains_key(&key) {
                self.born.insert(key.clone());
            }
            self.active_octets += octets_of(&key, &row);
            self.work.active.insert_mut(key, row);
        }
    }

    fn publish_group(&mut self, end: Position, octets: usize) {
        let batches = end.next_seq - 1 - self.work.seq.0;
        self.work.seq = Seq(end.next_seq - 1);
        self.shared.publish(self.work.clone());
        self.shared.count_group(batches, octets as u64);
    }

    /// Answers a group that is durable and visible.
    fn answer(&self, group: Vec<Answered>) {
        for (mut job, result) in group {
            let answer: Result<Receipt, CommitError> = result.map(|resolved| {
                for blob in &mut job.batch.blobs {
                    if let StagedBody::File(file) = &mut blob.body
                        && resolved.taken.contains(&blob.id)
                    {
                        file.take();
                    }
                }
                if !resolved.repeated {
                    self.shared.watches.wake(&job.batch.topics);
                }
                if !resolved.dropped.is_empty() {
                    let (files, supply) = (self.shared.files.clone(), self.shared.supply.clone());
                    let remove = move || {
                        let gone = supply.may_go(resolved.dropped);
                        gone.into_iter().for_each(|id| files.remove(id));
                    };
                    self.shared.pool.give(remove);
                }
                resolved.receipt
            });
            // Files that were not taken go before the answer. The asker may have gone.
            drop(job.batch);
            let _ = job.reply.send(answer);
        }
    }
}

/// What a row costs in memory, about.
fn octets_of(key: &Bytes, row: &Option<Bytes>) -> usize {
    key.len() + row.as_ref().map_or(0, Bytes::len) + ROW_OVERHEAD
}

/// Answers `Full` to batches that bring blobs; gives the others back.
fn refuse_blobs(jobs: VecDeque<Job>) -> VecDeque<Job> {
    let (large, small): (VecDeque<Job>, VecDeque<Job>) =
        jobs.into_iter().partition(|job| job.batch.brings_blobs());
    answer_all(large, &CommitError::Full);
    small
}

fn answer_all(jobs: VecDeque<Job>, error: &CommitError) {
    for job in jobs {
        drop(job.batch);
        let _ = job.reply.send(Err(error.clone()));
    }
}

/// Puts short blobs into the group; long ones stay in their files.
struct IntoGroup<'a>(&'a mut Builder);

impl Placer for IntoGroup<'_> {
    fn segment(&self) -> Option<u64> {
        Some(self.0.segment())
    }

    fn place(&mut self, staged: &StagedBlob) -> (Place, u32) {
        match &staged.body {
            StagedBody::Inline(bytes) => self.0.blob(bytes),
            StagedBody::File(file) => (Place::Own, file.check()),
        }
    }
}

/// However the committer ends, nobody waits for it for ever, and the applier ends too.
pub(crate) struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.stop_quietly("the store is closed");
        if std::thread::panicking() {
            tracing::error!("the committer panicked; the store must be opened anew");
        }
        let waiting = {
            let mut queue = self.0.queue();
            queue.closing = true;
            std::mem::take(&mut queue.jobs)
        };
        // Without an answer the askers learn that the outcome is unknown.
        drop(waiting);
        self.0.watches.close();
        self.0.inbox().closing = true;
        self.0.inbox_changed.notify_one();
        self.0.tell_keeper(|inbox| inbox.closing = true);
    }
}
