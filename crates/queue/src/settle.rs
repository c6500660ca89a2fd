//! Ending or postponing an errand. The last errand to end takes its message with it.

use crate::{Claim, Error, LastOutcome, Queue};
use mail::Timestamp;
use store::Batch;

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
    },
    /// It failed for good; the report is in the same batch.
    Bounced(LastOutcome),
    /// It failed for now, and the time is over; the report is in the same batch.
    Expired(LastOutcome),
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
    /// [`store::CommitError::Conflict`], another errand of the message ended at the same moment, or
    /// the claim was lost: call again with a fresh batch, which tells the two apart.
    ///
    /// # Errors
    /// [`Error::ClaimLost`]; otherwise what the store says. The batch is unchanged then.
    pub async fn settle(
        &self,
        batch: &mut Batch,
        claim: &Claim,
        outcome: &Outcome,
    ) -> Result<Settled, Error> {
        let _ = (batch, claim, outcome);
        todo!()
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
        let _ = (claim, outcome, add);
        todo!()
    }
}
