//! Ending or postponing an errand. The last errand to end takes its message with it.

use crate::codec::encode_errand;
use crate::due::{decode_lease, put_waiting};
use crate::ledger;
use crate::{
    CONFLICT_RETRIES_MAX, Claim, ERRANDS_PER_MESSAGE_MAX, Errand, ErrandState, Error, LastOutcome, Queue,
    keys,
};
use mail::{QueueId, Timestamp};
use store::{Batch, CommitError, Key, Require, Snapshot};

/// What an attempt came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is in a mailbox here.
    Delivered(LastOutcome),
    /// The next server took it.
    Relayed(LastOutcome),
    /// It failed for now.
    Deferred {
        /// When to try again; see [`crate::Schedule::next`].
        next: Timestamp,
        /// What was said.
        last: LastOutcome,
        /// Whether the sender was told of the delay in the same batch.
        delay_told: bool,
        /// Whether the sender was told in the same batch that its deadline passed (RFC 2852).
        deadline_told: bool,
    },
    /// It failed for good; the report is in the same batch.
    Bounced(LastOutcome),
    /// It failed for now, and the time is over; the report is in the same batch.
    Expired(LastOutcome),
    /// It was thrown away by a rule of the operator; nobody is told.
    Dropped {
        /// What was decided.
        last: LastOutcome,
        /// By what kind of rule; the ledger counts by it, so these are few.
        by: &'static str,
    },
}

/// What settling did to the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// Errands of the message are still open.
    MessageStays,
    /// It was the last errand: message and errands leave the queue with this batch.
    MessageGoes,
}

impl Queue {
    /// Adds the end or the postponement of a claimed errand to a batch. When the commit answers
    /// [`CommitError::Conflict`], another errand of the message ended at the same moment, or the
    /// claim was lost: call again with a fresh batch, which tells the two apart.
    ///
    /// One batch may settle one errand of a message; errands of different messages go together.
    ///
    /// # Errors
    /// [`Error::ClaimLost`]; otherwise what the store says. The batch is unchanged then.
    pub async fn settle(
        &self,
        batch: &mut Batch,
        claim: &Claim,
        outcome: &Outcome,
    ) -> Result<Settled, Error> {
        let snapshot = self.store.snapshot().await?;
        let snapshot = snapshot.as_ref();
        check_held(snapshot, claim).await?;
        let errand = after(claim, outcome);
        if let ErrandState::Waiting { next_attempt } = errand.state {
            let value = encode_errand(&errand);
            claim.require_held(batch);
            claim.end_lease(batch);
            put_waiting(batch, &errand, value, next_attempt);
            return Ok(Settled::MessageStays);
        }
        let open = snapshot.counter(&keys::open(errand.message)).await?;
        // The counter runs from minus the number of errands up to -1; a single errand has none.
        if open < -1 {
            let value = encode_errand(&errand);
            claim.require_held(batch);
            claim.end_lease(batch);
            batch.put(keys::errand(errand.message, errand.no), value);
            batch.add(keys::errands_open(), -1);
            batch.add(keys::open(errand.message), 1);
            ledger::ended_as(batch, outcome);
            // Another one must be left to take the message away.
            batch.require(Require::AtMost(keys::open(errand.message), -1));
            return Ok(Settled::MessageStays);
        }
        let rows = errand_keys(snapshot, errand.message).await?;
        claim.require_held(batch);
        claim.end_lease(batch);
        batch.add(keys::errands_open(), -1);
        ledger::ended_as(batch, outcome);
        remove_message(batch, errand.message, rows);
        Ok(Settled::MessageGoes)
    }

    /// Settles and commits; `add` puts what belongs to it (the journey's record) into each batch
    /// that is tried.
    ///
    /// # Errors
    /// [`Error::ClaimLost`], [`Error::Contended`]; otherwise what the store says.
    pub async fn settle_now(
        &self,
        claim: &Claim,
        outcome: &Outcome,
        add: &(dyn Fn(&mut Batch) + Send + Sync),
    ) -> Result<Settled, Error> {
        for _ in 0..CONFLICT_RETRIES_MAX {
            let mut batch = Batch::new();
            let settled = self.settle(&mut batch, claim, outcome).await?;
            add(&mut batch);
            match self.store.commit(batch).await {
                Ok(_) => return Ok(settled),
                Err(CommitError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(Error::Contended)
    }
}

/// The errand as it stands after an attempt. Pure.
fn after(claim: &Claim, outcome: &Outcome) -> Errand {
    let (Outcome::Delivered(last)
    | Outcome::Relayed(last)
    | Outcome::Deferred { last, .. }
    | Outcome::Bounced(last)
    | Outcome::Expired(last)
    | Outcome::Dropped { last, .. }) = outcome;
    let at = last.at;
    let mut errand = claim.errand.clone();
    errand.epoch = claim.epoch;
    errand.attempts = errand.attempts.saturating_add(1);
    errand.last = Some(last.cut());
    errand.suspended = false;
    errand.state = match outcome {
        Outcome::Delivered(_) => ErrandState::Delivered { at },
        Outcome::Relayed(_) => ErrandState::Relayed { at },
        Outcome::Bounced(_) => ErrandState::Bounced { at },
        Outcome::Expired(_) => ErrandState::Expired { at },
        Outcome::Dropped { by, .. } => ErrandState::Dropped {
            at,
            by: (*by).to_owned(),
        },
        Outcome::Deferred {
            next,
            delay_told,
            deadline_told,
            ..
        } => {
            errand.delay_told |= delay_told;
            errand.deadline_told |= deadline_told;
            ErrandState::Waiting { next_attempt: *next }
        }
    };
    errand
}

async fn check_held(snapshot: &dyn Snapshot, claim: &Claim) -> Result<(), Error> {
    let (id, no) = (claim.errand.message, claim.errand.no);
    let lease_key = keys::lease(id, no);
    let lease = snapshot.get(&lease_key).await?.ok_or(Error::ClaimLost)?;
    let errand = snapshot
        .get(&keys::errand(id, no))
        .await?
        .ok_or(Error::ClaimLost)?;
    let held = decode_lease(&lease_key, &lease.value)?.epoch == claim.epoch;
    if held && errand.version == claim.errand_version {
        Ok(())
    } else {
        Err(Error::ClaimLost)
    }
}

pub(crate) async fn errand_keys(snapshot: &dyn Snapshot, id: QueueId) -> Result<Vec<Key>, Error> {
    let range = keys::errands_of(id).prefix_range();
    let rows = snapshot.scan(&range, ERRANDS_PER_MESSAGE_MAX).await?;
    Ok(rows.into_iter().map(|(key, _)| key).collect())
}

/// The message leaves the queue, and with it the reference to its bytes.
pub(crate) fn remove_message(batch: &mut Batch, id: QueueId, errands: Vec<Key>) {
    for key in errands {
        batch.delete(key);
    }
    batch.delete(keys::open(id));
    batch.delete(keys::message(id));
    batch.add(keys::messages_queued(), -1);
}
