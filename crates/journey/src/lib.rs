//! The record of each message's way, and its telling in words.
//!
//! Promises: a record joins the batch of what it tells of, so that both are true or neither; old
//! records stay readable (fields are only added, with defaults); what is told never holds a
//! message's text or subject, nor a password.
//!
//! Never: a decision, a socket, the wall clock.

pub mod audit;
mod error;
mod event;
mod find;
mod keys;
mod packed;
mod record;
mod tell;
mod words;

pub use error::Error;
pub use event::{AttemptOutcome, Cause, Check, Event, MxHost, Reply, TlsUsed};
pub use find::{FIND_MAX, Query};
pub use record::{EVENTS_READ_MAX, INDEXED_ADDRESSES_MAX, Record};
pub use tell::{Step, Story, tell};

use mail::{QueueId, Timestamp};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use store::Batch;

/// Hears of every event as it joins a batch, and adds to the batch what must be true together with it.
pub trait Also: Send + Sync {
    /// An event of a message was added. `tiebreak` orders events of the same microsecond.
    fn recorded(&self, batch: &mut Batch, id: QueueId, at: Timestamp, tiebreak: u32, event: &Event);
}

/// The journeys of a store. Cheap to clone; clones share the tiebreak.
#[derive(Clone)]
pub struct Journey {
    store: Arc<dyn store::Store>,
    /// Orders events of the same microsecond as they were recorded.
    tiebreak: Arc<AtomicU32>,
    also: Option<Arc<dyn Also>>,
}

impl Journey {
    /// The journeys that live in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn store::Store>) -> Self {
        Self {
            store,
            tiebreak: Arc::new(AtomicU32::new(0)),
            also: None,
        }
    }

    /// The same, and somebody else hears of every event.
    #[must_use]
    pub fn with_also(mut self, also: Arc<dyn Also>) -> Self {
        self.also = Some(also);
        self
    }
}
