//! What the operator asks of the queue and orders it to do.

use crate::codec::{decode_message, encode_errand};
use crate::due::{message_in, put_waiting, sender_of};
use crate::filter::{ClassOf, Filter, Looked};
use crate::orders::{decoded_or_logged, end_wait};
use crate::settle::{errand_keys, remove_message};
use crate::{
    CONFLICT_RETRIES_MAX, ERRANDS_PER_MESSAGE_MAX, Errand, ErrandState, Error, Message, Queue, keys, ledger,
};
use mail::{QueueId, Timestamp};
use store::{Batch, CommitError, Key, KeyRange, ReadError, Require, Snapshot, Versioned};

/// Messages that a listing reads at once.
const LIST_PAGE: usize = 256;
/// Messages that a page of a listing looks at at most, fitting or not.
const LOOKED_AT_MAX: usize = 10_000;
/// A page ends when so many errands are read.
const PAGE_ERRANDS: usize = 10_000;

/// A message with its errands.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Listed {
    /// The message.
    pub message: Message,
    /// All its errands, also the ended ones.
    pub errands: Vec<Errand>,
    /// The numbers of those that are being attempted.
    pub attempting: Vec<u32>,
}

/// A part of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// The messages.
    pub listed: Vec<Listed>,
    /// Where to go on ([`Filter::after`]); `None` at the end.
    pub next: Option<QueueId>,
}

/// How much is queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Stats {
    /// Messages.
    pub messages: u64,
    /// Open errands.
    pub errands: u64,
    /// Of these, held by the operator.
    pub held: u64,
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
    /// Nothing has a class here: see [`Queue::list_page_by`].
    ///
    /// # Errors
    /// When the store cannot be read. Damaged messages are left out.
    pub async fn list_page(&self, filter: &Filter, limit: usize) -> Result<Page, Error> {
        self.list_page_by(filter, &|_| String::new(), Timestamp(i64::MAX), limit)
            .await
    }

    /// The same for filters that ask for a class or for how errands stand at a time.
    ///
    /// # Errors
    /// As [`Queue::list_page`].
    pub async fn list_page_by(
        &self,
        filter: &Filter,
        class_of: ClassOf<'_>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Page, Error> {
        let snapshot = self.store.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let mut range = keys::messages().prefix_range();
        if let Some(after) = filter.after {
            range = range.after(&keys::message(after));
        }
        let (mut listed, mut last) = (Vec::new(), None);
        let (mut looked_at, mut errands_read) = (0, 0);
        while listed.len() < limit && looked_at < LOOKED_AT_MAX && errands_read < PAGE_ERRANDS {
            let rows = messages_in(snapshot, filter, &range, LIST_PAGE.min(limit)).await?;
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
                if !filter.message_fits(&message) {
                    continue;
                }
                let one = listed_in(snapshot, message).await?;
                errands_read += one.errands.len();
                if one.fits(filter, class_of, now) {
                    listed.push(one);
                }
                if listed.len() == limit || errands_read >= PAGE_ERRANDS {
                    break;
                }
            }
        }
        let more = !messages_in(snapshot, filter, &range, 1).await?.is_empty();
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
        match message_in(snapshot.as_ref(), id).await? {
            Some(message) => Ok(Some(listed_in(snapshot.as_ref(), message).await?)),
            None => Ok(None),
        }
    }

    /// A message without its errands.
    ///
    /// # Errors
    /// When the store cannot be read or the message is damaged.
    pub async fn message(&self, id: QueueId) -> Result<Option<Message>, Error> {
        message_in(self.store.snapshot().await?.as_ref(), id).await
    }

    /// How much is queued; costs three reads.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn stats(&self) -> Result<Stats, Error> {
        let snapshot = self.store.snapshot().await?;
        let messages = snapshot.counter(&keys::messages_queued()).await?;
        let errands = snapshot.counter(&keys::errands_open()).await?;
        let held = snapshot.counter(&keys::errands_held()).await?;
        Ok(Stats {
            messages: u64::try_from(messages).unwrap_or(0),
            errands: u64::try_from(errands).unwrap_or(0),
            held: u64::try_from(held).unwrap_or(0),
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
            let sender = sender_of(snapshot.as_ref(), id).await;
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
                errand.sender = sender;
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

impl Listed {
    fn fits(&self, filter: &Filter, class_of: ClassOf<'_>, now: Timestamp) -> bool {
        let looked = |errand| Looked {
            errand,
            message: Some(&self.message),
            attempting: self.attempting.contains(&errand.no),
            now,
        };
        !filter.asks_of_errands() || self.errands.iter().any(|e| filter.fits(looked(e), class_of))
    }
}

async fn listed_in(snapshot: &dyn Snapshot, message: Message) -> Result<Listed, Error> {
    Ok(Listed {
        errands: errands_in(snapshot, message.id).await?,
        attempting: attempting_of(snapshot, message.id).await?,
        message,
    })
}

/// The next messages of a range: all, or those that the filter names.
async fn messages_in(
    snapshot: &dyn Snapshot,
    filter: &Filter,
    range: &KeyRange,
    limit: usize,
) -> Result<Vec<(Key, Versioned)>, Error> {
    if filter.ids.is_empty() {
        return Ok(snapshot.scan(range, limit).await?);
    }
    let mut named: Vec<Key> = filter.ids.iter().map(|id| keys::message(*id)).collect();
    named.sort_unstable();
    named.dedup();
    let mut rows = Vec::new();
    for key in named.into_iter().filter(|key| range.contains(key)) {
        if rows.len() == limit {
            break;
        }
        match snapshot.get(&key).await {
            Ok(stored) => rows.extend(stored.map(|stored| (key, stored))),
            // As a scan passes over it.
            Err(ReadError::Corrupt(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(rows)
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

/// Those of a message's errands that are being attempted, by number.
async fn attempting_of(snapshot: &dyn Snapshot, id: QueueId) -> Result<Vec<u32>, Error> {
    let range = keys::lease_of(id).prefix_range();
    let rows = snapshot.scan(&range, ERRANDS_PER_MESSAGE_MAX).await?;
    let number = |(key, _): &(Key, _)| {
        let mut parts = key.reader();
        parts.u64()?;
        parts.u32()
    };
    Ok(rows.iter().filter_map(number).collect())
}
