//! The outbox: an event's line joins the batch that makes the event true.

use crate::entry::{encode, kind_of};
use crate::{Endpoint, keys};
use journey::{Also, Event};
use mail::{QueueId, Timestamp};
use std::sync::Arc;
use store::{Batch, KeyRange, ReadError, Store};

/// Events that are counted at most when it is asked how many wait.
const COUNTED_MAX: usize = 10_000;

/// Writes down what endpoints are to hear of. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) endpoints: Arc<[Endpoint]>,
}

/// What waits for an endpoint, and what became of earlier events.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Waiting {
    /// Events that wait; 10,000 at most are counted.
    pub waiting: usize,
    /// The oldest of them.
    pub oldest: Option<Timestamp>,
    /// Events that it took, ever.
    pub told: i64,
    /// Events that were thrown away because they were too many or too old, ever.
    pub thrown_away: i64,
}

impl Outbox {
    /// An outbox in a store, for these endpoints.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, endpoints: Vec<Endpoint>) -> Self {
        Self {
            store,
            endpoints: endpoints.into(),
        }
    }

    /// The endpoints.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// What waits for an endpoint.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn waiting(&self, endpoint: &str) -> Result<Waiting, ReadError> {
        let snapshot = self.store.snapshot().await?;
        let range = keys::outbox_of(endpoint).prefix_range();
        let rows = snapshot.scan(&range, COUNTED_MAX).await?;
        Ok(Waiting {
            waiting: rows.len(),
            oldest: rows.first().and_then(|(key, _)| place(key)).map(|(at, ..)| at),
            told: snapshot.counter(&keys::told(endpoint)).await?,
            thrown_away: snapshot.counter(&keys::thrown_away(endpoint)).await?,
        })
    }

    /// All lines of an endpoint.
    pub(crate) fn range(endpoint: &str) -> KeyRange {
        keys::outbox_of(endpoint).prefix_range()
    }
}

impl Also for Outbox {
    fn recorded(&self, batch: &mut Batch, id: QueueId, at: Timestamp, tiebreak: u32, event: &Event) {
        let Some(kind) = kind_of(event) else { return };
        let mut row = None;
        for endpoint in self.endpoints.iter().filter(|e| e.events.contains(&kind)) {
            let row = row.get_or_insert_with(|| encode(kind, event));
            batch.put_fresh(keys::event(&endpoint.name, at, id, tiebreak), row.clone());
            batch.notify(keys::topic(&endpoint.name));
        }
    }
}

/// When and of which message an event is, from its key.
pub(crate) fn place(key: &store::Key) -> Option<(Timestamp, QueueId, u32)> {
    let mut parts = key.reader();
    parts.text()?;
    let at = Timestamp(i64::try_from(parts.u64()?).ok()?);
    Some((at, QueueId(parts.u64()?), parts.u32()?))
}
