//! The spool: messages that still have somewhere to go, and their errands.
//!
//! A message is the bytes, once. An errand is one recipient's delivery with its own state, retries
//! and end. Promises: an accepted errand ends exactly once, as delivered, relayed, bounced, expired
//! or dropped by the operator; until then it is listed; only the near future is read to find work.
//!
//! Never: a socket, a route, the wall clock, a decision whether an outcome is permanent.

mod audit;
mod codec;
mod count;
mod due;
mod error;
mod filter;
mod id;
mod keys;
mod ledger;
mod operate;
mod orders;
mod record;
mod schedule;
mod settle;
mod suspend;

pub use audit::{Audited, OVERDUE_AFTER, OVERSTAY, audit, errands_of, ledger_of, queued_from};
pub use count::{Counted, DestinationTally, LOOKED_AT_MAX, Tally};
pub use due::{Claim, Due};
pub use error::Error;
pub use filter::{ClassOf, FILTER_IDS_MAX, Filter, Looked, SenderIs, Standing, standing};
pub use id::IdSource;
pub use ledger::Ledger;
pub use operate::{Listed, Page, Stats};
pub use orders::{End, Met, Order, Step, Walk, Window};
pub use record::{
    Body, Deadline, ERRANDS_PER_MESSAGE_MAX, Errand, ErrandState, LastOutcome, Message, NewErrand,
    PREFIX_OCTETS_MAX, REPLY_OCTETS_MAX, Via,
};
pub use schedule::{Forecast, Lifetimes, Next, Past, Schedule, Span, TRIES_TOLD_MAX};
pub use settle::{Outcome, Settled};
pub use suspend::{PUT_BACK_FOR, PutBack, SUSPENSIONS_MAX, Suspended, Suspension};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use store::{Batch, Require, Topic, Watch};

/// How often an operator's order is decided anew after the queue changed under it.
pub const CONFLICT_RETRIES_MAX: usize = 32;

/// How the queue behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// When to try again and when to give up.
    pub schedule: Schedule,
    /// What is given up earlier. Default nothing.
    pub lifetimes: Lifetimes,
    /// How long a claim holds unless it is renewed. Default 30 minutes: longer than one attempt may
    /// take by RFC 5321 §4.5.3.2 (greeting, commands and data each have minutes).
    pub lease_for: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schedule: Schedule::default(),
            lifetimes: Lifetimes::default(),
            lease_for: Duration::from_secs(30 * 60),
        }
    }
}

/// The queue of a store. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    store: Arc<dyn store::Store>,
    options: Options,
    /// Shared by the clones, which so see each other's changes.
    suspensions: Arc<suspend::Cache>,
    /// Likewise: how often somebody asked for attempts at once.
    asked_at_once: Arc<AtomicU64>,
}

impl Queue {
    /// The queue that lives in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn store::Store>, options: Options) -> Self {
        Self {
            store,
            options,
            suspensions: Arc::default(),
            asked_at_once: Arc::default(),
        }
    }

    /// How it behaves.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Somebody wants attempts at once: a destination that is down is probed again without waiting. To be
    /// said before errands are made due.
    pub fn ask_at_once(&self) {
        self.asked_at_once.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was asked, by this queue and its clones.
    #[must_use]
    pub fn asked_at_once(&self) -> u64 {
        self.asked_at_once.load(Ordering::Relaxed)
    }

    /// When to try again and when to give up: a message whose last failure is of this class.
    #[must_use]
    pub fn schedule_for(&self, message: &Message, class: Option<&str>) -> Schedule {
        let lifetime = self.options.lifetimes.of(message.priority, class);
        self.options.schedule.of(&message.reverse_path).within(lifetime)
    }

    /// Adds a message and its errands to a batch. Errands that are settled in the same batch (a
    /// mailbox here) are not given; with no errand left, nothing of the message is queued. The
    /// errands are numbered from 0 in the given order.
    ///
    /// # Errors
    /// [`Error::Limit`] beyond [`ERRANDS_PER_MESSAGE_MAX`]; the batch is unchanged then.
    pub fn accept(&self, batch: &mut Batch, message: &Message, errands: &[NewErrand]) -> Result<(), Error> {
        let limit = |what, max| Err(Error::Limit { what, max });
        if errands.len() > ERRANDS_PER_MESSAGE_MAX {
            return limit("errands of one message", ERRANDS_PER_MESSAGE_MAX);
        }
        if message.prefix.len() > PREFIX_OCTETS_MAX {
            return limit("octets of prefix", PREFIX_OCTETS_MAX);
        }
        if errands.is_empty() {
            return Ok(());
        }
        let key = keys::message(message.id);
        let value = codec::encode_message(message);
        // A clock that stepped back must not let one message overwrite another.
        batch.require(Require::KeyAbsent(key.clone()));
        batch.put_ref(key, value, vec![message.blob]);
        for (new, no) in errands.iter().zip(0u32..) {
            let errand = Errand::new(message, no, new);
            batch.put(keys::errand(message.id, no), codec::encode_errand(&errand));
            due::put_due(batch, new.next_attempt, &errand);
        }
        let count = i64::try_from(errands.len()).unwrap_or(i64::MAX);
        if count > 1 {
            batch.add(keys::open(message.id), -count);
        }
        batch.add(keys::messages_queued(), 1);
        batch.add(keys::errands_open(), count);
        ledger::queued(batch, count);
        batch.notify(topic());
        Ok(())
    }

    /// Wakes whenever errands were added or became due earlier.
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.store.watch(&topic())
    }
}

pub(crate) fn topic() -> Topic {
    Topic(vec![0x30])
}
