//! The ledger: how many errands were accepted, and how they ended, for ever.
//!
//! One unit is one errand: one account's mailbox that a message goes into when it is accepted (an
//! alias that leads to two accounts is two units, two addresses of one account are one), or one
//! recipient in the queue. Promises: the counters change in the very batch that accepts or ends an
//! errand, by additions without a precondition, so that at every commit
//! carried over + accepted = delivered + relayed + bounced + expired + dropped + in flight.
//!
//! What is put into a mailbox in the batch that accepts it is accepted and delivered by one counter.
//! Never: a counter that falls; a read on the way of a message.

use crate::{Error, Outcome, Queue, keys};
use mail::Timestamp;
use std::collections::BTreeMap;
use store::{Batch, CommitError, Require, Snapshot};

/// Octets of the name of whoever dropped errands; what is longer is cut.
const BY_OCTETS_MAX: usize = 100;
/// Names of those who dropped errands that are read at most.
const NAMES_MAX: usize = 1_000;

/// The codes in the keys of table 0x36.
mod code {
    pub(super) const BEGUN: u8 = 0;
    pub(super) const AT_ONCE: u8 = 1;
    pub(super) const QUEUED: u8 = 2;
    pub(super) const DELIVERED: u8 = 3;
    pub(super) const RELAYED: u8 = 4;
    pub(super) const BOUNCED: u8 = 5;
    pub(super) const EXPIRED: u8 = 6;
    pub(super) const DROPPED: u8 = 7;
    pub(super) const CARRIED: u8 = 8;
}

/// The ledger at one commit. All counts are of errands.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Ledger {
    /// Since when it is kept; `None`: not yet (the server has not run since it knows of ledgers).
    pub since: Option<Timestamp>,
    /// In the queue already when the ledger began.
    pub carried: i64,
    /// Put into a mailbox in the batch that accepted them.
    pub at_once: i64,
    /// Accepted into the queue.
    pub queued: i64,
    /// From the queue into a mailbox here.
    pub delivered: i64,
    /// Taken by the next server.
    pub relayed: i64,
    /// Failed for good.
    pub bounced: i64,
    /// Given up.
    pub expired: i64,
    /// Dropped, by whom.
    pub dropped: BTreeMap<String, i64>,
    /// Open now.
    pub in_flight: i64,
}

impl Ledger {
    /// All that was accepted, with what was there when the ledger began.
    #[must_use]
    pub fn accepted(&self) -> i64 {
        self.carried + self.at_once + self.queued
    }

    /// All that came into mailboxes.
    #[must_use]
    pub fn delivered_in_all(&self) -> i64 {
        self.at_once + self.delivered
    }

    /// All that was dropped.
    #[must_use]
    pub fn dropped_in_all(&self) -> i64 {
        self.dropped.values().sum()
    }

    /// All that has ended or is still on its way: what was accepted, unless the store is damaged.
    #[must_use]
    pub fn accounted_for(&self) -> i64 {
        self.delivered_in_all()
            + self.relayed
            + self.bounced
            + self.expired
            + self.dropped_in_all()
            + self.in_flight
    }
}

impl Queue {
    /// The ledger as it is now.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn ledger(&self) -> Result<Ledger, Error> {
        let snapshot = self.store.snapshot().await?;
        of(snapshot.as_ref()).await
    }

    /// Adds to a batch that it puts a message into this many mailboxes in the moment of accepting it.
    pub fn settled_at_once(&self, batch: &mut Batch, mailboxes: usize) {
        let count = i64::try_from(mailboxes).unwrap_or(i64::MAX);
        if count != 0 {
            batch.add(keys::ledger_of(code::AT_ONCE), count);
        }
    }

    /// Begins the ledger when there is none, with what is in the queue. Only while nobody else
    /// works on the store.
    pub(crate) async fn begin_ledger(&self, now: Timestamp) -> Result<(), Error> {
        let begun = keys::ledger_of(code::BEGUN);
        let snapshot = self.store.snapshot().await?;
        if snapshot.counter(&begun).await? != 0 {
            return Ok(());
        }
        let known = of(snapshot.as_ref()).await?;
        drop(snapshot);
        let mut batch = Batch::new();
        batch.add(begun.clone(), now.0);
        batch.require(Require::AtMost(begun, now.0));
        let missing = known.accounted_for() - known.accepted();
        if missing != 0 {
            batch.add(keys::ledger_of(code::CARRIED), missing);
        }
        match self.store.commit(batch).await {
            // Someone else was quicker.
            Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Errands that were accepted into the queue.
pub(crate) fn queued(batch: &mut Batch, count: i64) {
    batch.add(keys::ledger_of(code::QUEUED), count);
}

/// An errand that ended.
pub(crate) fn ended_as(batch: &mut Batch, outcome: &Outcome) {
    let which = match outcome {
        Outcome::Delivered(_) => code::DELIVERED,
        Outcome::Relayed(_) => code::RELAYED,
        Outcome::Bounced(_) => code::BOUNCED,
        Outcome::Expired(_) => code::EXPIRED,
        Outcome::Dropped { by, .. } => return dropped(batch, by, 1),
        Outcome::Deferred { .. } => return,
    };
    batch.add(keys::ledger_of(which), 1);
}

/// Errands that were dropped.
pub(crate) fn dropped(batch: &mut Batch, by: &str, count: i64) {
    let by = &by[..by.floor_char_boundary(BY_OCTETS_MAX)];
    batch.add(keys::ledger_of(code::DROPPED).text(by), count);
}

/// The ledger as a snapshot has it.
pub(crate) async fn of(snapshot: &dyn Snapshot) -> Result<Ledger, Error> {
    let mut ledger = Ledger {
        in_flight: snapshot.counter(&keys::errands_open()).await?,
        ..Ledger::default()
    };
    let range = keys::ledger().prefix_range();
    for (key, count) in snapshot.counters(&range, NAMES_MAX).await? {
        let mut parts = key.reader();
        match parts.u8() {
            Some(code::BEGUN) => ledger.since = Some(Timestamp(count)),
            Some(code::AT_ONCE) => ledger.at_once = count,
            Some(code::QUEUED) => ledger.queued = count,
            Some(code::DELIVERED) => ledger.delivered = count,
            Some(code::RELAYED) => ledger.relayed = count,
            Some(code::BOUNCED) => ledger.bounced = count,
            Some(code::EXPIRED) => ledger.expired = count,
            Some(code::CARRIED) => ledger.carried = count,
            Some(code::DROPPED) => {
                let by = parts.text().unwrap_or_default();
                ledger.dropped.insert(by, count);
            }
            _ => {}
        }
    }
    Ok(ledger)
}
