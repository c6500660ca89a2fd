//! What the operator asks of the queue and orders it to do.

use crate::codec::{decode_errand, decode_message, encode_errand};
use crate::due::{decode_lease, message_in, put_waiting};
use crate::settle::{errand_keys, remove_message};
use crate::{
    CONFLICT_RETRIES_MAX, ERRANDS_PER_MESSAGE_MAX, Errand, ErrandState, Error, Message, Queue, keys, ledger,
};
use mail::{Domain, EmailAddress, QueueId, Timestamp};
use store::{Batch, CommitError, Key, Require, Snapshot};

/// Messages that a listing reads at once.
const LIST_PAGE: usize = 256;
/// Messages that a page of a listing looks at at most, fitting or not.
const LOOKED_AT_MAX: usize = 10_000;
/// A page ends when so many errands are read.
const PAGE_ERRANDS: usize = 10_000;
/// Errands that one commit makes due.
const RETRY_ERRANDS: usize = 500;

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

/// A part of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// The messages.
    pub listed: Vec<Listed>,
    /// Where to go on ([`Filter::after`]); `None` at the end.
    pub next: Option<QueueId>,
}

/// What a step of [`Queue::retry_step`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retried {
    /// Errands that are due now, those that were due before included.
    pub errands: usize,
    /// Messages that were met first in this step.
    pub messages: usize,
    /// The last errand that was looked at, where to go on; `None` at the end.
    pub next: Option<(QueueId, u32)>,
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
        let mut filter = filter.clone();
        let mut listed = Vec::new();
        while listed.len() < limit {
            let page = self.list_page(&filter, limit - listed.len()).await?;
            listed.extend(page.listed);
            match page.next {
                Some(next) => filter.after = Some(next),
                None => break,
            }
        }
        Ok(listed)
    }

    /// A part of the listing, at most `limit` messages; fewer when they have many errands, or when
    /// the filter passes over many. What it reads and holds is bounded, however long the queue is.
    ///
    /// # Errors
    /// When the store cannot be read. Damaged messages are left out.
    pub async fn list_page(&self, filter: &Filter, limit: usize) -> Result<Page, Error> {
        let snapshot = self.store.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let mut range = keys::messages().prefix_range();
        if let Some(after) = filter.after {
            range = range.after(&keys::message(after));
        }
        let (mut listed, mut last) = (Vec::new(), None);
        let (mut looked_at, mut errands_read) = (0, 0);
        while listed.len() < limit && looked_at < LOOKED_AT_MAX && errands_read < PAGE_ERRANDS {
            let rows = snapshot.scan(&range, LIST_PAGE.min(limit)).await?;
            if rows.is_empty() {
                return Ok(Page { listed, next: None });
            }
            for (key, stored) in rows {
                range = range.after(&key);
                last = key.reader().u64().map(QueueId).or(last);
                looked_at += 1;
                let message = match decode_message(&key, &stored.value) {
                    Ok(message) => message,
                    Err(error) => {
                        tracing::error!(%error, "a message is left out of the listing");
                        continue;
                    }
                };
                if !filter.sender_fits(&message) {
                    continue;
                }
                let errands = errands_in(snapshot, message.id).await?;
                errands_read += errands.len();
                if filter.recipient_fits(&errands) {
                    listed.push(Listed { message, errands });
                }
                if listed.len() == limit || errands_read >= PAGE_ERRANDS {
                    break;
                }
            }
        }
        let more = !snapshot.scan(&range, 1).await?.is_empty();
        Ok(Page {
            listed,
            next: last.filter(|_| more),
        })
    }

    /// One message with its errands.
    ///
    /// # Errors
    /// When the store cannot be read or the message is damaged.
    pub async fn show(&self, id: QueueId) -> Result<Option<Listed>, Error> {
        let snapshot = self.store.snapshot().await?;
        let Some(message) = message_in(snapshot.as_ref(), id).await? else {
            return Ok(None);
        };
        let errands = errands_in(snapshot.as_ref(), id).await?;
        Ok(Some(Listed { message, errands }))
    }

    /// How much is queued; costs two reads.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn stats(&self) -> Result<Stats, Error> {
        let snapshot = self.store.snapshot().await?;
        let messages = snapshot.counter(&keys::messages_queued()).await?;
        let errands = snapshot.counter(&keys::errands_open()).await?;
        Ok(Stats {
            messages: u64::try_from(messages).unwrap_or(0),
            errands: u64::try_from(errands).unwrap_or(0),
        })
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
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let mut batch = Batch::new();
            let mut due = 0;
            for (mut errand, version) in open_errands(snapshot.as_ref(), id).await? {
                let lease_key = keys::lease(id, errand.no);
                let ErrandState::Waiting { next_attempt } = errand.state else {
                    continue;
                };
                if snapshot.get(&lease_key).await?.is_some() {
                    continue;
                }
                batch.require(Require::VersionIs(keys::errand(id, errand.no), version));
                batch.require(Require::KeyAbsent(lease_key));
                batch.delete(keys::due(next_attempt, id, errand.no));
                errand.state = ErrandState::Waiting { next_attempt: now };
                let value = encode_errand(&errand);
                put_waiting(&mut batch, &errand, value, now);
                due += 1;
            }
            drop(snapshot);
            if due == 0 {
                return Ok(0);
            }
            add(&mut batch);
            match self.store.commit(batch).await {
                Ok(_) => return Ok(due),
                Err(CommitError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(Error::Contended)
    }

    /// One step of making everything due: the waiting errands among the next 500, in one commit.
    /// Errands under way stay as they are, and so does what is due already. `add` puts what belongs
    /// to a message into the batch. Go on behind [`Retried::next`] until there is none.
    ///
    /// # Errors
    /// [`Error::Contended`]; otherwise what the store says.
    pub async fn retry_step(
        &self,
        behind: Option<(QueueId, u32)>,
        now: Timestamp,
        add: &(dyn Fn(&mut Batch, QueueId) + Send + Sync),
    ) -> Result<Retried, Error> {
        for attempt in 0..CONFLICT_RETRIES_MAX {
            // Where many errands are claimed all the time, a smaller commit meets fewer of them.
            let limit = (RETRY_ERRANDS >> (attempt / 4)).max(1);
            let mut batch = Batch::new();
            let retried = self.retry_these(&mut batch, behind, limit, now, add).await?;
            if batch.is_empty() {
                return Ok(retried);
            }
            match self.store.commit(batch).await {
                Ok(_) => return Ok(retried),
                Err(CommitError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(Error::Contended)
    }

    async fn retry_these(
        &self,
        batch: &mut Batch,
        behind: Option<(QueueId, u32)>,
        limit: usize,
        now: Timestamp,
        add: &(dyn Fn(&mut Batch, QueueId) + Send + Sync),
    ) -> Result<Retried, Error> {
        let mut range = keys::errands().prefix_range();
        if let Some((id, no)) = behind {
            range = range.after(&keys::errand(id, no));
        }
        let snapshot = self.store.snapshot().await?;
        let rows = snapshot.scan(&range, limit).await?;
        let mut retried = Retried {
            errands: 0,
            messages: 0,
            next: None,
        };
        // The message that was met last, and the one that `add` was called for last.
        let (mut met, mut added) = (behind.map(|(id, _)| id), None);
        for (key, stored) in &rows {
            let mut parts = key.reader();
            retried.next = parts.u64().map(QueueId).zip(parts.u32()).or(retried.next);
            let Some(mut errand) = decoded_or_logged(key, &stored.value) else {
                continue;
            };
            let (id, no) = (errand.message, errand.no);
            let lease_key = keys::lease(id, no);
            let ErrandState::Waiting { next_attempt } = errand.state else {
                continue;
            };
            if snapshot.get(&lease_key).await?.is_some() {
                continue;
            }
            retried.errands += 1;
            retried.messages += usize::from(met.replace(id) != Some(id));
            if next_attempt > now {
                batch.require(Require::VersionIs(key.clone(), stored.version));
                batch.require(Require::KeyAbsent(lease_key));
                batch.delete(keys::due(next_attempt, id, no));
                errand.state = ErrandState::Waiting { next_attempt: now };
                let value = encode_errand(&errand);
                put_waiting(batch, &errand, value, now);
                if added.replace(id) != Some(id) {
                    add(batch, id);
                }
            }
        }
        if rows.len() < limit {
            retried.next = None;
        }
        Ok(retried)
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
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let mut batch = Batch::new();
            let mut dropped = Vec::new();
            for (mut errand, version) in open_errands(snapshot.as_ref(), id).await? {
                batch.require(Require::VersionIs(keys::errand(id, errand.no), version));
                end_wait(snapshot.as_ref(), &mut batch, &errand).await?;
                errand.state = ErrandState::Dropped {
                    at: now,
                    by: by.to_owned(),
                };
                dropped.push(errand);
            }
            let message_key = keys::message(id);
            batch.require(Require::KeyPresent(message_key));
            // Minus the number of open errands, damaged ones included.
            let open = snapshot.counter(&keys::open(id)).await?.min(-1);
            batch.add(keys::errands_open(), open);
            ledger::dropped(&mut batch, by, -open);
            remove_message(&mut batch, id, errand_keys(snapshot.as_ref(), id).await?);
            drop(snapshot);
            add(&mut batch, &dropped);
            match self.store.commit(batch).await {
                Ok(_) => return Ok(dropped),
                Err(CommitError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(Error::Contended)
    }
}

impl Filter {
    fn sender_fits(&self, message: &Message) -> bool {
        match &self.sender {
            Some(wanted) => message
                .reverse_path
                .address()
                .is_some_and(|a| a.folded() == wanted.folded()),
            None => true,
        }
    }

    fn recipient_fits(&self, errands: &[Errand]) -> bool {
        let fits = |e: &Errand| {
            let address = self
                .recipient
                .as_ref()
                .is_none_or(|wanted| e.recipient.folded() == wanted.folded());
            let domain = self
                .domain
                .as_ref()
                .is_none_or(|wanted| e.recipient.domain() == Some(wanted));
            address && domain && e.state.is_open()
        };
        (self.recipient.is_none() && self.domain.is_none()) || errands.iter().any(fits)
    }
}

/// Removes a waiting errand's lease and its line in the due index.
async fn end_wait(snapshot: &dyn Snapshot, batch: &mut Batch, errand: &Errand) -> Result<(), Error> {
    let (id, no) = (errand.message, errand.no);
    let lease_key = keys::lease(id, no);
    match snapshot.get(&lease_key).await? {
        Some(stored) => {
            let lease = decode_lease(&lease_key, &stored.value)?;
            batch.require(Require::VersionIs(lease_key.clone(), stored.version));
            batch.delete(keys::due(lease.until, id, no));
            batch.delete(lease_key);
        }
        None => batch.require(Require::KeyAbsent(lease_key)),
    }
    if let ErrandState::Waiting { next_attempt } = errand.state {
        batch.delete(keys::due(next_attempt, id, no));
    }
    Ok(())
}

/// The open errands of a queued message with their versions; damaged ones are passed over.
async fn open_errands(snapshot: &dyn Snapshot, id: QueueId) -> Result<Vec<(Errand, u64)>, Error> {
    if snapshot.get(&keys::message(id)).await?.is_none() {
        return Err(Error::NotQueued);
    }
    let range = keys::errands_of(id).prefix_range();
    let rows = snapshot.scan(&range, ERRANDS_PER_MESSAGE_MAX).await?;
    let decoded = rows
        .into_iter()
        .filter_map(|(key, stored)| Some((decoded_or_logged(&key, &stored.value)?, stored.version)));
    Ok(decoded.filter(|(errand, _)| errand.state.is_open()).collect())
}

async fn errands_in(snapshot: &dyn Snapshot, id: QueueId) -> Result<Vec<Errand>, Error> {
    let range = keys::errands_of(id).prefix_range();
    let rows = snapshot.scan(&range, ERRANDS_PER_MESSAGE_MAX).await?;
    Ok(rows
        .iter()
        .filter_map(|(key, stored)| decoded_or_logged(key, &stored.value))
        .collect())
}

fn decoded_or_logged(key: &Key, value: &[u8]) -> Option<Errand> {
    decode_errand(key, value)
        .inspect_err(|error| tracing::error!(%error, "an errand is passed over"))
        .ok()
}
