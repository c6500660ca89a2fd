//! Finding work and claiming it: the due index and the leases.

use crate::{Errand, Error, Message, Queue};
use mail::{QueueId, Timestamp};

/// An errand that is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Due {
    /// Since when.
    pub at: Timestamp,
    /// Which message.
    pub message: QueueId,
    /// Which of its errands.
    pub no: u32,
    /// The recipient's domain (or address literal), to group attempts by.
    pub domain: String,
}

/// An errand that this caller holds: nobody else attempts it until the claim ends or lapses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The message to carry.
    pub message: std::sync::Arc<Message>,
    /// The errand to do.
    pub errand: Errand,
    /// When the claim lapses.
    pub until: Timestamp,
    pub(crate) epoch: u64,
    pub(crate) errand_version: u64,
}

impl Queue {
    /// At most `limit` errands that are due, the longest due first. Claimed ones are not shown.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Due>, Error> {
        let _ = (now, limit);
        todo!()
    }

    /// When the next errand is due (or a claim lapses); `None` when the queue is empty.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, Error> {
        todo!()
    }

    /// Claims errands, all in one commit; those that another holds or that ended meanwhile are left
    /// out. Settle each claim, or [`Queue::release`] it.
    ///
    /// # Errors
    /// What the store says.
    pub async fn claim(&self, due: &[Due], now: Timestamp) -> Result<Vec<Claim>, Error> {
        let _ = (due, now);
        todo!()
    }

    /// Holds a claim for longer.
    ///
    /// # Errors
    /// [`Error::ClaimLost`]; otherwise what the store says.
    pub async fn renew(&self, claim: &mut Claim, now: Timestamp) -> Result<(), Error> {
        let _ = (claim, now);
        todo!()
    }

    /// Gives a claim back without an attempt having been made; the errand is due at `next`.
    ///
    /// # Errors
    /// [`Error::ClaimLost`]; otherwise what the store says.
    pub async fn release(&self, claim: &Claim, next: Timestamp) -> Result<(), Error> {
        let _ = (claim, next);
        todo!()
    }

    /// Ends all leases, so that what a stopped process held is due at once. Call it at start, only
    /// when no other process works on the same store. Answers how many there were.
    ///
    /// # Errors
    /// What the store says.
    pub async fn recover(&self, now: Timestamp) -> Result<usize, Error> {
        let _ = now;
        todo!()
    }
}
