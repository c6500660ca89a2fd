//! What the operator asks of the queue and orders it to do.

use crate::{Errand, Error, Message, Queue};
use mail::{Domain, EmailAddress, QueueId, Timestamp};
use store::Batch;

/// Which messages to list. Empty fields ask for everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only with an open errand to this address.
    pub recipient: Option<EmailAddress>,
    /// Only with an open errand to this domain.
    pub domain: Option<Domain>,
    /// Only from this reverse-path address.
    pub sender: Option<EmailAddress>,
    /// Only those behind this one: where a listing goes on.
    pub after: Option<QueueId>,
}

/// A message with its errands.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Listed {
    /// The message.
    pub message: Message,
    /// All its errands, also the ended ones.
    pub errands: Vec<Errand>,
}

/// How much is queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Stats {
    /// Messages.
    pub messages: u64,
    /// Open errands.
    pub errands: u64,
}

impl Queue {
    /// At most `limit` messages, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read. Damaged messages are left out.
    pub async fn list(&self, filter: &Filter, limit: usize) -> Result<Vec<Listed>, Error> {
        let _ = (filter, limit);
        todo!()
    }

    /// One message with its errands.
    ///
    /// # Errors
    /// When the store cannot be read or the message is damaged.
    pub async fn show(&self, id: QueueId) -> Result<Option<Listed>, Error> {
        let _ = id;
        todo!()
    }

    /// How much is queued; costs two reads.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn stats(&self) -> Result<Stats, Error> {
        todo!()
    }

    /// Makes all waiting errands of a message due now; those under way stay as they are. `add` puts
    /// what belongs to it into the batch. Answers how many errands became due.
    ///
    /// # Errors
    /// [`Error::NotQueued`], [`Error::Contended`]; otherwise what the store says.
    pub async fn retry(
        &self,
        id: QueueId,
        now: Timestamp,
        add: &(dyn Fn(&mut Batch) + Send + Sync),
    ) -> Result<usize, Error> {
        let _ = (id, now, add);
        todo!()
    }

    /// Drops a message: all its open errands end as dropped, and it leaves the queue. An attempt
    /// that is under way loses its claim; its peer may still have taken the message. `add` puts
    /// what belongs to it into the batch, given the dropped errands. Answers them.
    ///
    /// # Errors
    /// [`Error::NotQueued`], [`Error::Contended`]; otherwise what the store says.
    pub async fn drop(
        &self,
        id: QueueId,
        by: &str,
        now: Timestamp,
        add: &(dyn Fn(&mut Batch, &[Errand]) + Send + Sync),
    ) -> Result<Vec<Errand>, Error> {
        let _ = (id, by, now, add);
        todo!()
    }
}
