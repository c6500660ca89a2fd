//! Recording: events join the batch of what they tell of.

use crate::{Error, Event, Journey};
use mail::{EmailAddress, QueueId, Timestamp};
use serde::{Deserialize, Serialize};
use store::Batch;

/// Events of one message that are read at most.
pub const EVENTS_READ_MAX: usize = 10_000;

/// One event and its moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

impl Journey {
    /// Adds an event to a batch.
    pub fn record(&self, batch: &mut Batch, id: QueueId, at: Timestamp, event: &Event) {
        let _ = (batch, id, at, event);
        todo!()
    }

    /// Adds to a batch by what a message can be found: its Message-ID (without brackets) and the
    /// addresses of its envelope. Call it once per message.
    pub fn index(
        &self,
        batch: &mut Batch,
        id: QueueId,
        message_id: Option<&str>,
        addresses: &[&EmailAddress],
    ) {
        let _ = (batch, id, message_id, addresses);
        todo!()
    }

    /// The events of a message in order, [`EVENTS_READ_MAX`] at most.
    ///
    /// # Errors
    /// When the store cannot be read. Damaged records are left out.
    pub async fn events(&self, id: QueueId) -> Result<Vec<Record>, Error> {
        let _ = id;
        todo!()
    }

    /// Forgets messages whose last event is before `before`, `limit` messages at most. Answers how
    /// many were forgotten; call again until it answers 0.
    ///
    /// # Errors
    /// What the store says.
    pub async fn prune(&self, before: Timestamp, limit: usize) -> Result<usize, Error> {
        let _ = (before, limit);
        todo!()
    }
}
