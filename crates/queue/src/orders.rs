//! What the operator orders for many errands at once: try now, hold, release, send another way, drop,
//! send back. Step by step, so that neither a commit nor the memory grows with the queue.
//!
//! Promises: a step is one commit of some 500 errands; an errand that is being attempted is passed over
//! and counted, but for a drop, which takes it away from its attempt; what belongs to it (the journey,
//! the report) is in the same batch.

use crate::codec::{decode_errand, encode_errand};
use crate::due::{decode_lease, message_in, put_waiting};
use crate::filter::{ClassOf, Filter, Looked};
use crate::settle::{errand_keys, remove_message};
use crate::{
    CONFLICT_RETRIES_MAX, Errand, ErrandState, Error, LastOutcome, Message, Outcome, Queue, Via, keys, ledger,
};
use mail::{QueueId, Timestamp};
use std::sync::Arc;
use store::{Batch, CommitError, Key, Require, Snapshot, Versioned};

/// Errands that one step looks at.
const STEP_ERRANDS: usize = 500;

/// What is to be done with errands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Make them due now. Held ones stay held.
    Retry,
    /// Keep them until they are released.
    Hold {
        /// Who says so.
        by: String,
    },
    /// Let the held ones go, due now.
    Release,
    /// Send them to this server, or again where the DNS and the routes say; due now unless held.
    Reroute {
        /// The server.
        via: Option<Via>,
    },
}

/// Where a walk through the queue is, and whom it means.
#[derive(Clone, Copy)]
pub struct Walk<'a> {
    /// Whom.
    pub filter: &'a Filter,
    /// Names the classes that a filter asks for.
    pub class_of: ClassOf<'a>,
    /// The last errand that was looked at.
    pub behind: Option<(QueueId, u32)>,
    /// The time now.
    pub now: Timestamp,
}

/// What a step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Step {
    /// Errands that stand as ordered now, those that stood so before included.
    pub errands: usize,
    /// Messages of theirs that were met first in this step.
    pub messages: usize,
    /// Errands that are meant but are being attempted, and were passed over.
    pub attempting: usize,
    /// Errands that were looked at.
    pub looked_at: usize,
    /// The last errand that was looked at, where to go on; `None` at the end.
    pub next: Option<(QueueId, u32)>,
}

/// How errands end by an order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Without a word to the sender. Also those that are being attempted: the attempt loses its claim,
    /// and its peer may still have taken the message.
    Dropped {
        /// Who says so.
        by: String,
    },
    /// Back to the sender; the report is the caller's to add.
    Bounced(LastOutcome),
}

/// An errand that a walk came to and that is meant.
#[derive(Clone, Debug)]
pub struct Met {
    /// The errand.
    pub errand: Errand,
    version: u64,
    attempting: bool,
}

/// What a step of a walk came to.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// The errands that are meant, in order; those of one message stand together.
    pub met: Vec<Met>,
    /// Errands that were looked at.
    pub looked_at: usize,
    /// Where to go on; `None` at the end.
    pub next: Option<(QueueId, u32)>,
}

impl Queue {
    /// One step of an order. `add` puts what belongs to it into the batch, given the errands of a
    /// message that it changes, as they stand afterwards. Go on behind [`Step::next`] until there is
    /// none.
    ///
    /// # Errors
    /// [`Error::Contended`]; otherwise what the store says.
    pub async fn order_step(
        &self,
        walk: Walk<'_>,
        order: &Order,
        add: &(dyn Fn(&mut Batch, QueueId, &[Errand]) + Send + Sync),
    ) -> Result<Step, Error> {
        for attempt in 0..CONFLICT_RETRIES_MAX {
            // Where many errands are claimed all the time, a smaller commit meets fewer of them.
            let limit = (STEP_ERRANDS >> (attempt / 4)).max(1);
            let window = self.window(walk, limit).await?;
            let mut batch = Batch::new();
            let step = change(&mut batch, walk, order, &window, add);
            if batch.is_empty() {
                return Ok(step);
            }
            match self.store.commit(batch).await {
                Ok(_) => return Ok(step),
                Err(CommitError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(Error::Contended)
    }

    /// What such a step would do, without doing it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn order_would(&self, walk: Walk<'_>, order: &Order) -> Result<Step, Error> {
        let window = self.window(walk, STEP_ERRANDS).await?;
        Ok(change(&mut Batch::new(), walk, order, &window, &|_, _, _| {}))
    }

    /// What the next step of a walk comes to: the errands that are meant among the next `limit`. The
    /// last message is left for the next step where not all of its errands fit in.
    ///
    /// # Errors
    /// When the store cannot be read. Damaged errands are passed over.
    pub async fn window(&self, walk: Walk<'_>, limit: usize) -> Result<Window, Error> {
        let snapshot = self.store.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let mut rows = rows_behind(snapshot, walk, limit).await?;
        let mut window = Window::default();
        if rows.len() == limit {
            leave_the_last_message(&mut rows);
            window.next = rows.last().and_then(|(key, _)| place(key));
        }
        window.looked_at = rows.len();
        let mut message: Option<(QueueId, Option<Arc<Message>>)> = None;
        for (key, stored) in &rows {
            let Some(errand) = decoded_or_logged(key, &stored.value) else {
                continue;
            };
            if !errand.state.is_open() {
                continue;
            }
            let id = errand.message;
            let is_read = message.as_ref().is_some_and(|(of, _)| *of == id);
            if walk.filter.asks_of_messages() && !is_read {
                message = Some((id, message_or_logged(snapshot, id).await?.map(Arc::new)));
            }
            let lease_key = keys::lease(id, errand.no);
            let attempting = !errand.state.is_held() && snapshot.get(&lease_key).await?.is_some();
            let looked = Looked {
                errand: &errand,
                message: message.as_ref().and_then(|(_, message)| message.as_deref()),
                attempting,
                now: walk.now,
            };
            if walk.filter.fits(looked, walk.class_of) {
                window.met.push(Met {
                    errand,
                    version: stored.version,
                    attempting,
                });
            }
        }
        Ok(window)
    }

    /// Adds to a batch that errands of one message end by an order; those of a window that stand
    /// together. The last errand takes its message with it. Answers the ended ones, none when they ended
    /// otherwise or are being attempted (but see [`End::Dropped`]). On a conflict, look anew.
    ///
    /// # Errors
    /// What the store says.
    pub async fn end(
        &self,
        batch: &mut Batch,
        id: QueueId,
        which: &[Met],
        end: &End,
        now: Timestamp,
    ) -> Result<Vec<Errand>, Error> {
        let snapshot = self.store.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let takes_over = matches!(end, End::Dropped { .. });
        let mut ended = Vec::new();
        for met in which {
            let mut errand = met.errand.clone();
            // Looked at anew: between the window and this, the errand may have been claimed. A claim does
            // not change the errand, so only the lease tells.
            let lease_key = keys::lease(id, errand.no);
            if !takes_over && !errand.state.is_held() && snapshot.get(&lease_key).await?.is_some() {
                continue;
            }
            let key = keys::errand(id, errand.no);
            batch.require(Require::VersionIs(key, met.version));
            end_wait(snapshot, batch, &errand).await?;
            errand.state = match end {
                End::Dropped { by } => ErrandState::Dropped {
                    at: now,
                    by: by.clone(),
                },
                End::Bounced(_) => ErrandState::Bounced { at: now },
            };
            if let End::Bounced(last) = end {
                errand.last = Some(last.cut());
            }
            ended.push(errand);
        }
        let count = i64::try_from(ended.len()).unwrap_or(i64::MAX);
        if count == 0 {
            return Ok(ended);
        }
        batch.require(Require::KeyPresent(keys::message(id)));
        batch.add(keys::errands_open(), -count);
        match end {
            End::Dropped { by } => ledger::dropped(batch, by, count),
            End::Bounced(last) => {
                let outcome = Outcome::Bounced(last.clone());
                ended.iter().for_each(|_| ledger::ended_as(batch, &outcome));
            }
        }
        // Minus the number of open errands; a single one has no counter.
        let open = -snapshot.counter(&keys::open(id)).await?.min(-1);
        if count < open {
            for errand in &ended {
                batch.put(keys::errand(id, errand.no), encode_errand(errand));
            }
            batch.add(keys::open(id), count);
            // Another one must be left to take the message away.
            batch.require(Require::AtMost(keys::open(id), -1));
        } else {
            remove_message(batch, id, errand_keys(snapshot, id).await?);
        }
        Ok(ended)
    }
}

impl Window {
    /// What it is to end them all, in numbers.
    #[must_use]
    pub fn counted(&self, behind: Option<(QueueId, u32)>, takes_over: bool) -> Step {
        let mut step = Step {
            looked_at: self.looked_at,
            next: self.next,
            ..Step::default()
        };
        let mut last = behind.map(|(id, _)| id);
        for met in &self.met {
            if met.attempting && !takes_over {
                step.attempting += 1;
            } else {
                step.errands += 1;
                step.messages += usize::from(last.replace(met.errand.message) != Some(met.errand.message));
            }
        }
        step
    }

    /// The errands that are meant, by message.
    pub fn by_message(&self) -> impl Iterator<Item = (QueueId, &[Met])> {
        let parts = self.met.chunk_by(|a, b| a.errand.message == b.errand.message);
        parts.filter_map(|part| Some((part.first()?.errand.message, part)))
    }
}

/// Adds what a window's errands become. Pure but for `add`.
fn change(
    batch: &mut Batch,
    walk: Walk<'_>,
    order: &Order,
    window: &Window,
    add: &(dyn Fn(&mut Batch, QueueId, &[Errand]) + Send + Sync),
) -> Step {
    let mut step = Step {
        looked_at: window.looked_at,
        next: window.next,
        ..Step::default()
    };
    let mut last = walk.behind.map(|(id, _)| id);
    for (id, of_one) in window.by_message() {
        let mut changed = Vec::new();
        for met in of_one {
            if met.attempting {
                step.attempting += 1;
                continue;
            }
            let Some(errand) = ordered(order, &met.errand, walk.now) else {
                continue;
            };
            step.errands += 1;
            step.messages += usize::from(last.replace(id) != Some(id));
            if errand != met.errand {
                put(batch, met, &errand);
                changed.push(errand);
            }
        }
        if !changed.is_empty() {
            add(batch, id, &changed);
        }
    }
    step
}

/// The errand as it stands after an order; `None` when the order does not concern it. Pure.
fn ordered(order: &Order, errand: &Errand, now: Timestamp) -> Option<Errand> {
    let mut errand = errand.clone();
    let is_held = errand.state.is_held();
    let due_now = match errand.state {
        ErrandState::Waiting { next_attempt } => next_attempt.min(now),
        _ => now,
    };
    match order {
        Order::Retry | Order::Release if is_held != (*order == Order::Release) => return None,
        Order::Retry | Order::Release => {
            errand.suspended = false;
            errand.state = ErrandState::Waiting {
                next_attempt: due_now,
            };
        }
        Order::Hold { .. } if is_held => {}
        Order::Hold { by } => {
            errand.suspended = false;
            errand.state = ErrandState::Held {
                at: now,
                by: by.clone(),
            };
        }
        Order::Reroute { via } if errand.via == *via => {}
        Order::Reroute { via } => {
            errand.via.clone_from(via);
            if !is_held {
                errand.state = ErrandState::Waiting {
                    next_attempt: due_now,
                };
            }
        }
    }
    Some(errand)
}

/// Adds that an errand nobody attempts stands otherwise.
fn put(batch: &mut Batch, before: &Met, errand: &Errand) {
    let (id, no) = (errand.message, errand.no);
    batch.require(Require::VersionIs(keys::errand(id, no), before.version));
    batch.require(Require::KeyAbsent(keys::lease(id, no)));
    if let ErrandState::Waiting { next_attempt } = before.errand.state {
        batch.delete(keys::due(next_attempt, id, no));
    }
    let held = i64::from(errand.state.is_held()) - i64::from(before.errand.state.is_held());
    if held != 0 {
        batch.add(keys::errands_held(), held);
    }
    let value = encode_errand(errand);
    match errand.state {
        ErrandState::Waiting { next_attempt } => put_waiting(batch, errand, value, next_attempt),
        _ => batch.put(keys::errand(id, no), value),
    }
}

/// Removes an open errand's lease, its line in the due index, and its count among the held.
pub(crate) async fn end_wait(
    snapshot: &dyn Snapshot,
    batch: &mut Batch,
    errand: &Errand,
) -> Result<(), Error> {
    let (id, no) = (errand.message, errand.no);
    let lease_key = keys::lease(id, no);
    match snapshot.get(&lease_key).await? {
        Some(stored) => {
            let lease = decode_lease(&lease_key, &stored.value)?;
            batch.require(Require::VersionIs(lease_key.clone(), stored.version));
            batch.delete(keys::due(lease.until, id, no));
            batch.delete(lease_key);
        }
        None => batch.require(Require::KeyAbsent(lease_key)),
    }
    match errand.state {
        ErrandState::Waiting { next_attempt } => batch.delete(keys::due(next_attempt, id, no)),
        ErrandState::Held { .. } => batch.add(keys::errands_held(), -1),
        _ => {}
    }
    Ok(())
}

/// The rows of the next errands: of all messages, or of those that a filter names.
async fn rows_behind(
    snapshot: &dyn Snapshot,
    walk: Walk<'_>,
    limit: usize,
) -> Result<Vec<(Key, Versioned)>, Error> {
    let behind = walk.behind.map(|(id, no)| keys::errand(id, no));
    if walk.filter.ids.is_empty() {
        let range = keys::errands().prefix_range();
        let range = behind.map_or(range.clone(), |key| range.after(&key));
        return Ok(snapshot.scan(&range, limit).await?);
    }
    let mut ids = walk.filter.ids.clone();
    ids.sort_unstable();
    ids.dedup();
    ids.retain(|id| walk.behind.is_none_or(|(behind, _)| *id >= behind));
    let mut rows = Vec::new();
    for id in ids {
        let range = keys::errands_of(id).prefix_range();
        let range = behind.as_ref().map_or(range.clone(), |key| range.after(key));
        rows.extend(snapshot.scan(&range, limit - rows.len()).await?);
        if rows.len() >= limit {
            break;
        }
    }
    Ok(rows)
}

/// Cuts off the last message of a full window, unless it fills the window.
fn leave_the_last_message(rows: &mut Vec<(Key, Versioned)>) {
    let of = |row: &(Key, Versioned)| place(&row.0).map(|(id, _)| id);
    let last = rows.last().and_then(of);
    let begins = rows.iter().position(|row| of(row) == last).unwrap_or(0);
    if begins > 0 {
        rows.truncate(begins);
    }
}

fn place(key: &Key) -> Option<(QueueId, u32)> {
    let mut parts = key.reader();
    parts.u64().map(QueueId).zip(parts.u32())
}

async fn message_or_logged(snapshot: &dyn Snapshot, id: QueueId) -> Result<Option<Message>, Error> {
    match message_in(snapshot, id).await {
        Err(error @ Error::Damaged { .. }) => {
            tracing::error!(%error, "a message is passed over");
            Ok(None)
        }
        read => read,
    }
}

pub(crate) fn decoded_or_logged(key: &Key, value: &[u8]) -> Option<Errand> {
    decode_errand(key, value)
        .inspect_err(|error| tracing::error!(%error, "an errand is passed over"))
        .ok()
}
