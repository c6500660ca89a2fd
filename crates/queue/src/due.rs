//! Finding work and claiming it: the due index and the leases.
//!
//! A waiting errand has exactly one line in the due index: at its next attempt, or, while it is
//! claimed, at the end of the lease. So a claim whose holder died comes due by itself.

use crate::codec::{decode_errand, decode_message, encode_errand};
use crate::{CONFLICT_RETRIES_MAX, Errand, ErrandState, Error, Message, Queue, keys};
use mail::delivery::Priority;
use mail::{QueueId, Timestamp};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use store::{Batch, CommitError, Key, KeyRange, Require, Snapshot};

const VERSION: u8 = 1;
/// A line in the due index that holds a priority, as one signed octet before the domain.
const VERSION_PRIORITY: u8 = 2;
/// The same with the sender's number behind the priority.
const VERSION_SENDER: u8 = 3;
/// Leases that are ended in one commit at start.
const RECOVER_ROWS: usize = 1_000;
/// When a damaged errand is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

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
    /// What goes first among those that are due (RFC 6710).
    pub priority: Priority,
    /// Who sends; see [`Message::sender`]. 0 for reports, and for lines that an older version wrote.
    pub sender: u32,
}

/// An errand that this caller holds: nobody else attempts it until the claim ends or lapses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The message to carry.
    pub message: Arc<Message>,
    /// The errand to do.
    pub errand: Errand,
    /// When the claim lapses.
    pub until: Timestamp,
    pub(crate) epoch: u64,
    pub(crate) errand_version: u64,
}

/// A lease as it is stored: epoch, version byte, end.
#[derive(Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) epoch: u64,
    pub(crate) until: Timestamp,
}

impl Queue {
    /// At most `limit` errands that are due, the longest due first. Claimed ones are not shown.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Due>, Error> {
        self.due_behind(None, now, limit).await
    }

    /// The same, from behind an errand of an earlier answer: to look through more of what is due
    /// than one wants to hold. What came due before that errand meanwhile is not seen.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn due_behind(
        &self,
        behind: Option<&Due>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, Error> {
        let mut range = KeyRange {
            start: keys::due_all(),
            end: keys::due_after(now),
        };
        if let Some(due) = behind {
            range = range.after(&keys::due(due.at, due.message, due.no));
        }
        let snapshot = self.store.snapshot().await?;
        let rows = snapshot.scan(&range, limit).await?;
        Ok(rows.iter().filter_map(|(k, v)| decode_due(k, &v.value)).collect())
    }

    /// The errands that came due last: at most `limit`, the latest first. Behind a long backlog
    /// this is where new ones stand.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn due_latest(&self, now: Timestamp, limit: usize) -> Result<Vec<Due>, Error> {
        let range = KeyRange {
            start: keys::due_all(),
            end: keys::due_after(now),
        };
        let snapshot = self.store.snapshot().await?;
        let rows = snapshot.scan_back(&range, limit).await?;
        Ok(rows.iter().filter_map(|(k, v)| decode_due(k, &v.value)).collect())
    }

    /// When the next errand is due (or a claim lapses); `None` when the queue is empty.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, Error> {
        self.first_due_in(keys::due_all().prefix_range()).await
    }

    /// The same of what is due after `now` only: it passes over all that is due already, and over
    /// the traces of what was until a moment ago.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn next_due_after(&self, now: Timestamp) -> Result<Option<Timestamp>, Error> {
        let range = KeyRange {
            start: keys::due_after(now),
            end: keys::due_all().prefix_range().end,
        };
        self.first_due_in(range).await
    }

    async fn first_due_in(&self, range: KeyRange) -> Result<Option<Timestamp>, Error> {
        let snapshot = self.store.snapshot().await?;
        let rows = snapshot.scan(&range, 1).await?;
        Ok(rows
            .first()
            .and_then(|(k, v)| decode_due(k, &v.value))
            .map(|due| due.at))
    }

    /// Claims errands, all in one commit; those that another holds or that ended meanwhile are left
    /// out. Settle each claim, or [`Queue::release`] it. Claims of one message share its record.
    ///
    /// # Errors
    /// [`Error::Contended`]; otherwise what the store says.
    pub async fn claim(&self, due: &[Due], now: Timestamp) -> Result<Vec<Claim>, Error> {
        let until = now.plus(self.options.lease_for);
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let mut messages = HashMap::new();
            let mut batch = Batch::new();
            let mut claims = Vec::with_capacity(due.len());
            let mut seen = HashSet::new();
            for d in due.iter().filter(|d| seen.insert((d.message, d.no))) {
                let claim = self.claim_one(snapshot.as_ref(), &mut batch, &mut messages, d, now, until);
                match claim.await {
                    Ok(claim) => claims.extend(claim),
                    Err(error @ Error::Damaged { .. }) => {
                        // It stays for the operator to see, but must not come up again and again.
                        tracing::error!(%error, "an errand cannot be claimed; looked at again in an hour");
                        batch.delete(keys::due(d.at, d.message, d.no));
                        put_due_line(
                            &mut batch,
                            now.plus(LOOK_AGAIN),
                            d.message,
                            d.no,
                            (&d.domain, d.priority, d.sender),
                        );
                    }
                    Err(error) => return Err(error),
                }
            }
            drop(snapshot);
            if batch.is_empty() {
                return Ok(claims);
            }
            match self.store.commit(batch).await {
                Ok(_) => return Ok(claims),
                Err(CommitError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(Error::Contended)
    }

    /// Holds a claim for longer.
    ///
    /// # Errors
    /// [`Error::ClaimLost`]; otherwise what the store says.
    pub async fn renew(&self, claim: &mut Claim, now: Timestamp) -> Result<(), Error> {
        let until = now.plus(self.options.lease_for);
        let mut batch = Batch::new();
        claim.require_held(&mut batch);
        let Errand { message, no, .. } = &claim.errand;
        batch.delete(keys::due(claim.until, *message, *no));
        let lease = Lease {
            epoch: claim.epoch,
            until,
        };
        put_lease(&mut batch, *message, *no, lease);
        put_due(&mut batch, until, &claim.errand);
        self.commit_held(batch).await?;
        claim.until = until;
        Ok(())
    }

    /// Gives a claim back without an attempt having been made; the errand is due at `next`.
    ///
    /// # Errors
    /// [`Error::ClaimLost`]; otherwise what the store says.
    pub async fn release(&self, claim: &Claim, next: Timestamp) -> Result<(), Error> {
        let mut errand = claim.errand.clone();
        errand.epoch = claim.epoch;
        errand.state = ErrandState::Waiting { next_attempt: next };
        let value = encode_errand(&errand);
        let mut batch = Batch::new();
        claim.require_held(&mut batch);
        claim.end_lease(&mut batch);
        put_waiting(&mut batch, &errand, value, next);
        self.commit_held(batch).await
    }

    /// Ends all leases, so that what a stopped process held is due at once, and begins the ledger of
    /// a queue that has none yet. Call it at start, only
    /// when no other process works on the same store. Answers how many there were.
    ///
    /// # Errors
    /// What the store says.
    pub async fn recover(&self, now: Timestamp) -> Result<usize, Error> {
        self.begin_ledger(now).await?;
        let mut range = keys::leases().prefix_range();
        let mut ended = 0;
        loop {
            let snapshot = self.store.snapshot().await?;
            let rows = snapshot.scan(&range, RECOVER_ROWS).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(ended);
            };
            range = range.after(last);
            let mut batch = Batch::new();
            for (key, stored) in &rows {
                match recover_one(snapshot.as_ref(), &mut batch, key, &stored.value, now).await {
                    Ok(()) => ended += 1,
                    Err(error @ Error::Damaged { .. }) => tracing::error!(%error, "a lease is left as it is"),
                    Err(error) => return Err(error),
                }
            }
            drop(snapshot);
            batch.notify(crate::topic());
            self.store.commit(batch).await?;
        }
    }

    async fn claim_one(
        &self,
        snapshot: &dyn Snapshot,
        batch: &mut Batch,
        messages: &mut HashMap<QueueId, Arc<Message>>,
        due: &Due,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Claim>, Error> {
        let errand_key = keys::errand(due.message, due.no);
        let Some((mut errand, errand_version)) = errand_in(snapshot, due.message, due.no).await? else {
            // The line names nothing (it was just dropped, or its errand was damaged before).
            batch.require(Require::KeyAbsent(errand_key));
            batch.delete(keys::due(due.at, due.message, due.no));
            return Ok(None);
        };
        // One that is held has no line: this is an old one.
        let ErrandState::Waiting { next_attempt } = errand.state else {
            batch.require(Require::VersionIs(errand_key, errand_version));
            batch.delete(keys::due(due.at, due.message, due.no));
            return Ok(None);
        };
        let lease_key = keys::lease(due.message, due.no);
        let stored_lease = snapshot.get(&lease_key).await?;
        let lease = stored_lease
            .as_ref()
            .map(|s| decode_lease(&lease_key, &s.value))
            .transpose()?;
        // What was found due may have been claimed or postponed since.
        let due_at = lease.map_or(next_attempt, |l| l.until);
        if due_at > now {
            return Ok(None);
        }
        let message = match messages.get(&due.message) {
            Some(known) => Arc::clone(known),
            None => {
                let read = message_in(snapshot, due.message).await?;
                let read = Arc::new(read.ok_or_else(|| Error::Damaged {
                    key: keys::message(due.message),
                    what: "an errand is left without its message".to_owned(),
                })?);
                messages.insert(due.message, Arc::clone(&read));
                read
            }
        };
        errand.sender = message.sender();
        batch.require(Require::VersionIs(errand_key, errand_version));
        batch.require(match &stored_lease {
            Some(s) => Require::VersionIs(lease_key, s.version),
            None => Require::KeyAbsent(lease_key),
        });
        let epoch = errand.epoch.max(lease.map_or(0, |l| l.epoch)) + 1;
        batch.delete(keys::due(due_at, due.message, due.no));
        batch.delete(keys::due(due.at, due.message, due.no));
        put_lease(batch, due.message, due.no, Lease { epoch, until });
        put_due(batch, until, &errand);
        Ok(Some(Claim {
            message,
            errand,
            until,
            epoch,
            errand_version,
        }))
    }

    async fn commit_held(&self, batch: Batch) -> Result<(), Error> {
        match self.store.commit(batch).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict { .. }) => Err(Error::ClaimLost),
            Err(e) => Err(e.into()),
        }
    }
}

impl Claim {
    pub(crate) fn require_held(&self, batch: &mut Batch) {
        let (id, no) = (self.errand.message, self.errand.no);
        batch.require(Require::LeaseHeld(keys::lease(id, no), self.epoch));
        batch.require(Require::VersionIs(keys::errand(id, no), self.errand_version));
    }

    pub(crate) fn end_lease(&self, batch: &mut Batch) {
        let (id, no) = (self.errand.message, self.errand.no);
        batch.delete(keys::lease(id, no));
        batch.delete(keys::due(self.until, id, no));
    }
}

/// Stores an errand that waits, with its line in the due index, and wakes the deliverer.
pub(crate) fn put_waiting(batch: &mut Batch, errand: &Errand, value: Vec<u8>, next: Timestamp) {
    batch.put(keys::errand(errand.message, errand.no), value);
    put_due(batch, next, errand);
    batch.notify(crate::topic());
}

pub(crate) fn put_due(batch: &mut Batch, at: Timestamp, errand: &Errand) {
    let domain = errand.recipient.host().to_string();
    let about = (domain.as_str(), errand.priority, errand.sender);
    put_due_line(batch, at, errand.message, errand.no, about);
}

fn put_due_line(
    batch: &mut Batch,
    at: Timestamp,
    id: QueueId,
    no: u32,
    (domain, priority, sender): (&str, Priority, u32),
) {
    let mut value = Vec::with_capacity(6 + domain.len());
    match (priority, sender) {
        (Priority::NORMAL, 0) => value.push(VERSION),
        (other, 0) => value.extend([VERSION_PRIORITY, other.value() as u8]),
        (priority, sender) => {
            value.extend([VERSION_SENDER, priority.value() as u8]);
            value.extend(sender.to_be_bytes());
        }
    }
    value.extend_from_slice(domain.as_bytes());
    batch.put(keys::due(at, id, no), value);
}

fn put_lease(batch: &mut Batch, id: QueueId, no: u32, lease: Lease) {
    let mut value = lease.epoch.to_be_bytes().to_vec();
    value.push(VERSION);
    value.extend_from_slice(&lease.until.0.to_be_bytes());
    batch.put(keys::lease(id, no), value);
}

pub(crate) fn decode_lease(key: &Key, value: &[u8]) -> Result<Lease, Error> {
    let decode = || {
        let (epoch, rest) = value.split_first_chunk::<8>()?;
        let [VERSION, rest @ ..] = rest else { return None };
        let until: [u8; 8] = rest.try_into().ok()?;
        Some(Lease {
            epoch: u64::from_be_bytes(*epoch),
            until: Timestamp(i64::from_be_bytes(until)),
        })
    };
    decode().ok_or_else(|| Error::Damaged {
        key: key.clone(),
        what: "it is not a lease".to_owned(),
    })
}

pub(crate) fn decode_due(key: &Key, value: &[u8]) -> Option<Due> {
    let mut parts = key.reader();
    let (priority, sender, domain) = match value {
        [VERSION_SENDER, priority, a, b, c, d, domain @ ..] => {
            let sender = u32::from_be_bytes([*a, *b, *c, *d]);
            (Priority::new(*priority as i8)?, sender, domain)
        }
        [VERSION_PRIORITY, priority, domain @ ..] => (Priority::new(*priority as i8)?, 0, domain),
        [VERSION_SENDER, ..] => return None,
        [_, domain @ ..] => (Priority::NORMAL, 0, domain),
        [] => return None,
    };
    let due = Due {
        at: Timestamp(i64::try_from(parts.u64()?).unwrap_or(i64::MAX)),
        message: QueueId(parts.u64()?),
        no: parts.u32()?,
        domain: String::from_utf8_lossy(domain).into_owned(),
        priority,
        sender,
    };
    Some(due)
}

/// An errand and its version.
pub(crate) async fn errand_in(
    snapshot: &dyn Snapshot,
    id: QueueId,
    no: u32,
) -> Result<Option<(Errand, u64)>, Error> {
    let key = keys::errand(id, no);
    match snapshot.get(&key).await? {
        Some(s) => Ok(Some((decode_errand(&key, &s.value)?, s.version))),
        None => Ok(None),
    }
}

pub(crate) async fn message_in(snapshot: &dyn Snapshot, id: QueueId) -> Result<Option<Message>, Error> {
    let key = keys::message(id);
    match snapshot.get(&key).await? {
        Some(s) => Ok(Some(decode_message(&key, &s.value)?)),
        None => Ok(None),
    }
}

async fn recover_one(
    snapshot: &dyn Snapshot,
    batch: &mut Batch,
    key: &Key,
    value: &[u8],
    now: Timestamp,
) -> Result<(), Error> {
    let lease = decode_lease(key, value)?;
    let mut parts = key.reader();
    let (Some(id), Some(no)) = (parts.u64().map(QueueId), parts.u32()) else {
        return Err(Error::Damaged {
            key: key.clone(),
            what: "the key holds no errand".to_owned(),
        });
    };
    // Read before anything is changed: a damaged errand keeps its lease, and so its line.
    let errand = errand_in(snapshot, id, no).await?;
    batch.delete(key.clone());
    batch.delete(keys::due(lease.until, id, no));
    if let Some((mut errand, _)) = errand
        && matches!(errand.state, ErrandState::Waiting { .. })
    {
        // The epoch goes on, so that a holder that still lives is fenced off.
        errand.epoch = lease.epoch.max(errand.epoch);
        errand.state = ErrandState::Waiting { next_attempt: now };
        errand.sender = sender_of(snapshot, id).await;
        let value = encode_errand(&errand);
        put_waiting(batch, &errand, value, now);
    }
    Ok(())
}

/// The sender's number of a queued message; 0 when it cannot be read, which costs a turn and no more.
pub(crate) async fn sender_of(snapshot: &dyn Snapshot, id: QueueId) -> u32 {
    match message_in(snapshot, id).await {
        Ok(Some(message)) => message.sender(),
        _ => 0,
    }
}
