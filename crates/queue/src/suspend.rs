//! Destinations and senders whose mail waits: the operator's suspensions, and putting back what they mean.
//!
//! A suspension is a row of its own, and holds for mail that comes later too. What is due and suspended
//! is put back untried, some hours ahead; so nothing depends on a resumption that runs to its end: what
//! it did not reach comes due by itself. Promises: nothing that is suspended at that moment is
//! attempted; while nothing is suspended this costs a look at an empty list in memory.

use crate::codec::encode_errand;
use crate::due::{Due, decode_lease, errand_in, message_in, put_waiting};
use crate::filter::SenderIs;
use crate::{Errand, ErrandState, Error, Message, Queue, keys};
use mail::{Domain, QueueId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use store::{Batch, CommitError, Key, Require, Snapshot};

/// Suspensions at the same time at most.
pub const SUSPENSIONS_MAX: usize = 500;
/// How long what is suspended is put back for, unless the suspension ends before.
pub const PUT_BACK_FOR: Duration = Duration::from_secs(4 * 3600);
/// Errands that one commit puts back.
const PUT_BACK_ERRANDS: usize = 500;
const VERSION: u8 = 1;

/// What is suspended.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suspended {
    /// Mail to recipients at this domain.
    Destination(Domain),
    /// Mail from there.
    Sender(SenderIs),
}

/// A suspension.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Suspension {
    /// Of what.
    pub what: Suspended,
    /// Since when.
    pub since: Timestamp,
    /// Until when; without one until it is resumed.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Who says so.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub why: Option<String>,
}

/// Adds to a batch what belongs to errands of a message that are put back by a suspension.
pub type PutBack<'a> = &'a (dyn Fn(&mut Batch, QueueId, &[Errand], &Suspension) + Send + Sync);

/// As it is stored behind the version octet; what is suspended stands in the key.
#[derive(Serialize, Deserialize)]
struct Stored {
    since: Timestamp,
    until: Option<Timestamp>,
    by: String,
    why: Option<String>,
}

/// The suspensions in memory, with the number of changes that they have seen.
#[derive(Default)]
pub(crate) struct Cache(RwLock<(u64, Option<Arc<[Suspension]>>)>);

impl Cache {
    fn read(&self) -> (u64, Option<Arc<[Suspension]>>) {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what was read, unless it changed meanwhile.
    fn keep(&self, seen: u64, list: &Arc<[Suspension]>) {
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if kept.0 == seen {
            kept.1 = Some(list.clone());
        }
    }

    fn changed(&self) {
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *kept = (kept.0 + 1, None);
    }
}

impl fmt::Display for Suspended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Destination(domain) => write!(f, "mail to {domain}"),
            Self::Sender(sender) => write!(f, "mail from {sender}"),
        }
    }
}

impl Suspension {
    /// Whether it still holds at a time.
    #[must_use]
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }

    /// Whether it means mail to this host (a domain, or a literal).
    #[must_use]
    pub fn is_to(&self, host: &str) -> bool {
        matches!(&self.what, Suspended::Destination(domain) if domain.as_str().eq_ignore_ascii_case(host))
    }

    /// Whether it means mail from this message's sender.
    #[must_use]
    pub fn is_from(&self, message: &Message) -> bool {
        matches!(&self.what, Suspended::Sender(sender) if sender.fits(message))
    }
}

impl Queue {
    /// Suspends, or changes a suspension.
    ///
    /// # Errors
    /// [`Error::Limit`] beyond [`SUSPENSIONS_MAX`]; otherwise what the store says.
    pub async fn suspend(&self, suspension: &Suspension) -> Result<(), Error> {
        let now = suspension.since;
        let known = self.suspensions().await?;
        let over = |s: &&Suspension| !s.is_in_force(now) && s.what != suspension.what;
        let left = known
            .iter()
            .filter(|s| !over(s) && s.what != suspension.what)
            .count();
        if left >= SUSPENSIONS_MAX {
            return Err(Error::Limit {
                what: "suspensions",
                max: SUSPENSIONS_MAX,
            });
        }
        let stored = Stored {
            since: suspension.since,
            until: suspension.until,
            by: suspension.by.clone(),
            why: suspension.why.clone(),
        };
        let key = key_of(&suspension.what);
        let mut value = vec![VERSION];
        serde_json::to_writer(&mut value, &stored).map_err(|e| Error::Damaged {
            key: key.clone(),
            what: e.to_string(),
        })?;
        let mut batch = Batch::new();
        known
            .iter()
            .filter(over)
            .for_each(|s| batch.delete(key_of(&s.what)));
        batch.put(key, value);
        batch.notify(crate::topic());
        self.store.commit(batch).await?;
        self.suspensions.changed();
        Ok(())
    }

    /// Ends a suspension. Answers whether there was one. What was put back by it stays so until it is
    /// retried ([`crate::Order::Retry`] for [`crate::Standing::Suspended`]), or comes due.
    ///
    /// # Errors
    /// What the store says.
    pub async fn resume(&self, what: &Suspended) -> Result<bool, Error> {
        let known = self.suspensions().await?;
        let mut batch = Batch::new();
        batch.delete(key_of(what));
        batch.notify(crate::topic());
        self.store.commit(batch).await?;
        self.suspensions.changed();
        Ok(known.iter().any(|s| s.what == *what))
    }

    /// All suspensions, also those that are over but still written down. Costs no read after the first
    /// call, while the clones of one queue make all changes.
    ///
    /// # Errors
    /// When the store cannot be read. Damaged ones are told in the log and left out.
    pub async fn suspensions(&self) -> Result<Arc<[Suspension]>, Error> {
        let (seen, known) = self.suspensions.read();
        if let Some(known) = known {
            return Ok(known);
        }
        let snapshot = self.store.snapshot().await?;
        let range = keys::suspensions().prefix_range();
        let rows = snapshot.scan(&range, SUSPENSIONS_MAX).await?;
        let list: Arc<[Suspension]> = rows
            .iter()
            .filter_map(|(key, stored)| match decode(key, &stored.value) {
                Ok(suspension) => Some(suspension),
                Err(error) => {
                    tracing::error!(%error, "a suspension is passed over");
                    None
                }
            })
            .collect();
        self.suspensions.keep(seen, &list);
        Ok(list)
    }

    /// Puts back what of these is suspended, and answers the rest. `add` puts what belongs to it into
    /// the batch, given the errands of a message that were not put back before. What changed meanwhile
    /// is neither put back nor answered: it is still due.
    ///
    /// # Errors
    /// What the store says.
    pub async fn put_back(&self, due: Vec<Due>, now: Timestamp, add: PutBack<'_>) -> Result<Vec<Due>, Error> {
        let known = self.suspensions().await?;
        let in_force: Vec<&Suspension> = known.iter().filter(|s| s.is_in_force(now)).collect();
        if in_force.is_empty() {
            return Ok(due);
        }
        let mut rest = Vec::new();
        for part in due.chunks(PUT_BACK_ERRANDS) {
            let snapshot = self.store.snapshot().await?;
            let snapshot = snapshot.as_ref();
            let mut batch = Batch::new();
            let mut told: BTreeMap<(QueueId, &Suspended), (Vec<Errand>, &Suspension)> = BTreeMap::new();
            let mut senders = Senders::default();
            for due in part {
                let Some(by) = senders.suspended(snapshot, &in_force, due).await? else {
                    rest.push(due.clone());
                    continue;
                };
                match put_one_back(snapshot, &mut batch, due, by, now).await {
                    Ok(None) => {}
                    Ok(Some(errand)) => {
                        let entry = told.entry((due.message, &by.what));
                        entry.or_insert_with(|| (Vec::new(), by)).0.push(errand);
                    }
                    // A claim tells what is wrong with it, and puts it back too.
                    Err(Error::Damaged { .. }) => rest.push(due.clone()),
                    Err(error) => return Err(error),
                }
            }
            for ((id, _), (errands, by)) in told {
                add(&mut batch, id, &errands, by);
            }
            if batch.is_empty() {
                continue;
            }
            match self.store.commit(batch).await {
                Ok(_) | Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(rest)
    }
}

/// Who sent what is looked at: the message that was read last.
#[derive(Default)]
struct Senders {
    last: Option<(QueueId, Option<Message>)>,
}

impl Senders {
    /// The suspension that means an errand. A message is read only where senders are suspended.
    async fn suspended<'a>(
        &mut self,
        snapshot: &dyn Snapshot,
        in_force: &[&'a Suspension],
        due: &Due,
    ) -> Result<Option<&'a Suspension>, Error> {
        let to = in_force.iter().find(|s| s.is_to(&due.domain)).copied();
        let ask_senders = in_force.iter().any(|s| matches!(s.what, Suspended::Sender(_)));
        if to.is_some() || !ask_senders {
            return Ok(to);
        }
        if self.last.as_ref().is_none_or(|(id, _)| *id != due.message) {
            let message = match message_in(snapshot, due.message).await {
                Err(Error::Damaged { .. }) => None,
                read => read?,
            };
            self.last = Some((due.message, message));
        }
        let message = self.last.as_ref().and_then(|(_, message)| message.as_ref());
        Ok(message.and_then(|message| in_force.iter().find(|s| s.is_from(message)).copied()))
    }
}

/// Adds that a due errand is due later. Answers it when it was not put back before.
async fn put_one_back(
    snapshot: &dyn Snapshot,
    batch: &mut Batch,
    due: &Due,
    by: &Suspension,
    now: Timestamp,
) -> Result<Option<Errand>, Error> {
    let (id, no) = (due.message, due.no);
    let Some((mut errand, version)) = errand_in(snapshot, id, no).await? else {
        return Ok(None);
    };
    let ErrandState::Waiting { next_attempt } = errand.state else {
        return Ok(None);
    };
    let lease_key = keys::lease(id, no);
    match snapshot.get(&lease_key).await? {
        None if next_attempt > now => return Ok(None),
        None => batch.require(Require::KeyAbsent(lease_key)),
        Some(stored) => {
            let lease = decode_lease(&lease_key, &stored.value)?;
            if lease.until > now {
                return Ok(None);
            }
            // The epoch goes on, so that a holder that still lives is fenced off.
            errand.epoch = lease.epoch.max(errand.epoch);
            batch.require(Require::VersionIs(lease_key.clone(), stored.version));
            batch.delete(keys::due(lease.until, id, no));
            batch.delete(lease_key);
        }
    }
    batch.require(Require::VersionIs(keys::errand(id, no), version));
    batch.delete(keys::due(next_attempt, id, no));
    let later = now.plus(PUT_BACK_FOR);
    let later = by.until.map_or(later, |until| until.min(later));
    let is_new = !std::mem::replace(&mut errand.suspended, true);
    errand.state = ErrandState::Waiting { next_attempt: later };
    errand.sender = due.sender;
    let value = encode_errand(&errand);
    put_waiting(batch, &errand, value, later);
    Ok(is_new.then_some(errand))
}

fn key_of(what: &Suspended) -> Key {
    match what {
        Suspended::Destination(domain) => keys::suspension(1, domain.as_str()),
        Suspended::Sender(sender) => keys::suspension(2, &sender.to_string().to_lowercase()),
    }
}

pub(crate) fn decode(key: &Key, value: &[u8]) -> Result<Suspension, Error> {
    let mut parts = key.reader();
    let what = match (parts.u8(), parts.text()) {
        (Some(1), Some(domain)) => Domain::parse(&domain).ok().map(Suspended::Destination),
        (Some(2), Some(sender)) => SenderIs::parse(&sender).map(Suspended::Sender),
        _ => None,
    };
    let stored: Option<Stored> = match value {
        [VERSION, json @ ..] => serde_json::from_slice(json).ok(),
        _ => None,
    };
    match (what, stored) {
        (Some(what), Some(stored)) => Ok(Suspension {
            what,
            since: stored.since,
            until: stored.until,
            by: stored.by,
            why: stored.why,
        }),
        _ => Err(Error::Damaged {
            key: key.clone(),
            what: "it is not a suspension".to_owned(),
        }),
    }
}
