//! How a message comes into a mailbox and how it is read: delivery, append, entries, bytes.

use crate::codec::{self, ARRIVED_OFFSET, MODSEQ_OFFSET};
use crate::keys::{self, COUNTERS, Counter};
use crate::types::KEYWORDS_PER_MESSAGE_MAX;
use crate::{CONFLICT_RETRIES_MAX, Entry, Error, Flags, Keyword, Mailboxes, Place, Status};
use bytes::{Bytes, BytesMut};
use mail::{AccountId, ModSeq, QueueId, Timestamp, Uid, UidValidity};
use std::ops::Range;
use store::{
    Batch, BlobId, CommitError, KeyRange, Patch, Receipt, Require, Slot, Snapshot, StagedBlob, Watch,
};

/// Octets of the prefix of one message at most.
pub const PREFIX_OCTETS_MAX: usize = 32 * 1024;

/// A modification sequence is this much above its allocation, so that an empty mailbox has a
/// HIGHESTMODSEQ of 1 (RFC 7162 §3.1.1: never 0) and its first message comes after that.
pub(crate) const MODSEQ_ABOVE: u64 = 1;

/// A message on its way into a mailbox.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message's bytes; part of the same batch, or committed before.
    pub blob: BlobId,
    /// Their number.
    pub blob_len: u64,
    /// Header octets put before the blob for this recipient, e.g. Return-Path; may be empty.
    pub prefix: Vec<u8>,
    /// System flags it starts with.
    pub flags: Flags,
    /// Keywords it starts with.
    pub keywords: Vec<Keyword>,
    /// When it arrived.
    pub internal_date: Timestamp,
    /// The transaction it came with.
    pub queue_id: Option<QueueId>,
}

/// A delivery in a batch: its numbers stand in the commit's receipt.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    uid: Slot,
    modseq: Slot,
}

impl Delivered {
    /// The message's UID.
    #[must_use]
    pub fn uid(&self, receipt: &Receipt) -> Uid {
        // The commit refuses numbers beyond 32 bits, so this loses nothing.
        Uid(u32::try_from(receipt.value(self.uid)).unwrap_or(u32::MAX))
    }

    /// The message's modification sequence.
    #[must_use]
    pub fn modseq(&self, receipt: &Receipt) -> ModSeq {
        ModSeq(receipt.value(self.modseq) + MODSEQ_ABOVE)
    }
}

/// What an append answers (RFC 4315 APPENDUID).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// The mailbox's UIDVALIDITY.
    pub uid_validity: UidValidity,
    /// The message's UID.
    pub uid: Uid,
    /// Its modification sequence.
    pub modseq: ModSeq,
}

impl Mailboxes {
    /// Adds a delivery to a batch. Nothing is read; the one precondition is that the mailbox still
    /// exists, so on [`CommitError::Conflict`] look the mailbox up again.
    ///
    /// # Errors
    /// [`Error::Limit`] when prefix or keywords are over their limits; the batch is unchanged then.
    pub fn deliver(&self, batch: &mut Batch, place: Place, delivery: Delivery) -> Result<Delivered, Error> {
        if delivery.prefix.len() > PREFIX_OCTETS_MAX {
            return Err(Error::Limit {
                what: "octets of prefix",
                max: PREFIX_OCTETS_MAX,
            });
        }
        let mut keywords: Vec<Keyword> = Vec::with_capacity(delivery.keywords.len());
        for k in delivery.keywords {
            if !keywords.contains(&k) {
                keywords.push(k);
            }
        }
        check_keywords(&keywords)?;
        let entry = Entry {
            uid: Uid(0),
            modseq: ModSeq(0),
            arrived_modseq: ModSeq(0),
            flags: delivery.flags,
            keywords,
            blob_len: delivery.blob_len,
            internal_date: delivery.internal_date,
            blob: delivery.blob,
            prefix: delivery.prefix,
            queue_id: delivery.queue_id,
            fetched: false,
            version: 0,
        };
        batch.require(Require::KeyPresent(keys::mailbox(place.account, place.mailbox)));
        let delivered = Delivered {
            uid: batch.alloc(keys::counter(place.mailbox, Counter::Uid), 1),
            modseq: batch.alloc(keys::counter(place.mailbox, Counter::ModSeq), 1),
        };
        put_new(batch, place, &entry, delivered.uid, 0, delivered.modseq);
        let mut tally = Tally::default();
        tally.came(&entry);
        tally.add_to(batch, place);
        wake(batch, place);
        Ok(delivered)
    }

    /// Puts a client's message into a mailbox and commits.
    ///
    /// # Errors
    /// [`Error::NoSuchMailbox`] when it is gone; otherwise what the store says.
    pub async fn append(
        &self,
        place: Place,
        staged: StagedBlob,
        delivery: Delivery,
    ) -> Result<Appended, Error> {
        let mailbox = self.by_id(place.account, place.mailbox).await?;
        let uid_validity = mailbox.ok_or(Error::NoSuchMailbox)?.uid_validity;
        let mut batch = Batch::new();
        let delivered = self.deliver(&mut batch, place, delivery)?;
        batch.blob(staged);
        let receipt = match self.store.commit(batch).await {
            // The one precondition is that the mailbox exists.
            Err(CommitError::Conflict { .. }) => return Err(Error::NoSuchMailbox),
            other => other?,
        };
        Ok(Appended {
            uid_validity,
            uid: delivered.uid(&receipt),
            modseq: delivered.modseq(&receipt),
        })
    }

    /// Adds to a batch that the account holds at most so many octets once it is committed; a
    /// [`CommitError::Conflict`] otherwise.
    pub fn require_room(&self, batch: &mut Batch, account: AccountId, quota_octets: u64) {
        let most = i64::try_from(quota_octets).unwrap_or(i64::MAX);
        batch.require(Require::AtMost(keys::usage(account), most));
    }

    /// At most `limit` entries with a UID of at least `from`, in the order of their UIDs; fewer
    /// only at the end. To go on, ask again from the last UID and 1. Damaged entries are reported
    /// in the log and left out.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn entries(&self, place: Place, from: Uid, limit: usize) -> Result<Vec<Entry>, Error> {
        let snapshot = self.store.snapshot().await?;
        let mut range = KeyRange {
            start: keys::entry(place.mailbox, from),
            end: keys::entries_of(place.mailbox).prefix_range().end,
        };
        let mut entries = Vec::new();
        while entries.len() < limit {
            let wanted = limit - entries.len();
            let rows = snapshot.scan(&range, wanted).await?;
            let Some((last, _)) = rows.last() else { break };
            range = range.after(last);
            let at_end = rows.len() < wanted;
            entries.extend(rows.iter().filter_map(|(k, v)| decoded_or_logged(k, v)));
            if at_end {
                break;
            }
        }
        Ok(entries)
    }

    /// One entry.
    ///
    /// # Errors
    /// When the store cannot be read or the entry is damaged.
    pub async fn entry(&self, place: Place, uid: Uid) -> Result<Option<Entry>, Error> {
        let snapshot = self.store.snapshot().await?;
        entry_in(snapshot.as_ref(), place, uid).await
    }

    /// Octets of a message: its prefix and then its blob. A range beyond the end is cut.
    ///
    /// # Errors
    /// When the blob cannot be read.
    pub async fn read(&self, entry: &Entry, range: Range<u64>) -> Result<Bytes, Error> {
        let prefix_len = entry.prefix.len() as u64;
        let end = range.end.min(entry.size());
        let start = range.start.min(end);
        // Both are at most the prefix's length, so they fit.
        let from_prefix = &entry.prefix[start.min(prefix_len) as usize..end.min(prefix_len) as usize];
        if end <= prefix_len {
            return Ok(Bytes::copy_from_slice(from_prefix));
        }
        let blob_range = start.saturating_sub(prefix_len)..end - prefix_len;
        let from_blob = self.store.read(entry.blob, blob_range).await?;
        if from_prefix.is_empty() {
            return Ok(from_blob);
        }
        let mut whole = BytesMut::with_capacity(from_prefix.len() + from_blob.len());
        whole.extend_from_slice(from_prefix);
        whole.extend_from_slice(&from_blob);
        Ok(whole.freeze())
    }

    /// The numbers of a mailbox, all of one moment.
    ///
    /// # Errors
    /// [`Error::NoSuchMailbox`]; otherwise what the store says.
    pub async fn status(&self, place: Place) -> Result<Status, Error> {
        let snapshot = self.store.snapshot().await?;
        let key = keys::mailbox(place.account, place.mailbox);
        let stored = snapshot.get(&key).await?.ok_or(Error::NoSuchMailbox)?;
        let (_, record) = codec::decode_mailbox(&key, &stored.value)?;
        let mut numbers = [0u64; COUNTERS.len()];
        for (slot, which) in numbers.iter_mut().zip(COUNTERS) {
            let n = snapshot.counter(&keys::counter(place.mailbox, which)).await?;
            *slot = u64::try_from(n).unwrap_or(0);
        }
        let [last_uid, last_modseq, messages, unseen, octets] = numbers;
        Ok(Status {
            messages,
            unseen,
            octets,
            uid_next: after_uid(last_uid),
            uid_validity: record.uid_validity,
            highest_modseq: ModSeq(last_modseq + MODSEQ_ABOVE),
            first_recent: first_recent(snapshot.as_ref(), place).await?.0,
        })
    }

    /// Takes the `\Recent` flag of all messages that no session was told of: the messages whose UIDs
    /// lie in the answer are recent in the calling session and in no other.
    ///
    /// # Errors
    /// [`Error::Contended`]; otherwise what the store says.
    pub async fn claim_recent(&self, place: Place) -> Result<Range<Uid>, Error> {
        let key = keys::recent(place.mailbox);
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let (first, version) = first_recent(snapshot.as_ref(), place).await?;
            let last = snapshot
                .counter(&keys::counter(place.mailbox, Counter::Uid))
                .await?;
            let next = after_uid(u64::try_from(last).unwrap_or(0));
            drop(snapshot);
            if first >= next {
                return Ok(first..first);
            }
            let mut batch = Batch::new();
            batch.require(match version {
                Some(v) => Require::VersionIs(key.clone(), v),
                None => Require::KeyAbsent(key.clone()),
            });
            batch.require(Require::KeyPresent(keys::mailbox(place.account, place.mailbox)));
            batch.put(key.clone(), codec::encode_u64(u64::from(next.0)));
            match self.store.commit(batch).await {
                Ok(_) => return Ok(first..next),
                Err(CommitError::Conflict { index: 0 }) => {}
                Err(CommitError::Conflict { .. }) => return Err(Error::NoSuchMailbox),
                Err(e) => return Err(e.into()),
            }
        }
        Err(Error::Contended)
    }

    /// Adds to a batch that a message's text was handed to a client. A conflict of the commit means
    /// that the entry changed since it was read, and can be ignored.
    pub fn mark_fetched(&self, batch: &mut Batch, place: Place, entry: &Entry) {
        let key = keys::entry(place.mailbox, entry.uid);
        batch.require(Require::VersionIs(key.clone(), entry.version));
        let fetched = Entry {
            fetched: true,
            ..entry.clone()
        };
        batch.put_ref(key, codec::encode_entry(&fetched), vec![entry.blob]);
    }

    /// Wakes at every change of one mailbox's messages.
    #[must_use]
    pub fn watch(&self, place: Place) -> Watch {
        self.store.watch(&keys::mailbox_topic(place.mailbox))
    }

    /// Wakes at every change of any mailbox of an account, and of their names.
    #[must_use]
    pub fn watch_account(&self, account: AccountId) -> Watch {
        self.store.watch(&keys::account_topic(account))
    }
}

/// How the counters of a mailbox change with a batch.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) messages: i64,
    pub(crate) unseen: i64,
    pub(crate) octets: i64,
}

impl Tally {
    pub(crate) fn came(&mut self, entry: &Entry) {
        self.count(entry, 1);
    }

    pub(crate) fn went(&mut self, entry: &Entry) {
        self.count(entry, -1);
    }

    fn count(&mut self, entry: &Entry, sign: i64) {
        self.messages += sign;
        self.unseen += if entry.flags.has(Flags::SEEN) { 0 } else { sign };
        self.octets += sign * i64::try_from(entry.size()).unwrap_or(i64::MAX);
    }

    /// Only counters that change are touched.
    pub(crate) fn add_to(&self, batch: &mut Batch, place: Place) {
        let changes = [
            (keys::counter(place.mailbox, Counter::Messages), self.messages),
            (keys::counter(place.mailbox, Counter::Unseen), self.unseen),
            (keys::counter(place.mailbox, Counter::Octets), self.octets),
            (keys::usage(place.account), self.octets),
        ];
        for (key, n) in changes.into_iter().filter(|(_, n)| *n != 0) {
            batch.add(key, n);
        }
    }
}

/// Puts an entry that is new in its mailbox under the UID `slot + plus`.
pub(crate) fn put_new(batch: &mut Batch, place: Place, entry: &Entry, uid: Slot, plus: u64, modseq: Slot) {
    let uid_patch = Patch {
        slot: uid,
        plus,
        offset: keys::ENTRY_UID_OFFSET,
        width: 4,
    };
    batch.put_with(
        keys::entry(place.mailbox, Uid(0)),
        codec::encode_entry(entry),
        vec![uid_patch],
        vec![
            modseq_patch(modseq, MODSEQ_OFFSET),
            modseq_patch(modseq, ARRIVED_OFFSET),
        ],
        vec![entry.blob],
    );
}

pub(crate) fn modseq_patch(slot: Slot, offset: usize) -> Patch {
    Patch {
        slot,
        plus: MODSEQ_ABOVE,
        offset,
        width: 8,
    }
}

pub(crate) fn wake(batch: &mut Batch, place: Place) {
    batch.notify(keys::mailbox_topic(place.mailbox));
    batch.notify(keys::account_topic(place.account));
}

pub(crate) fn check_keywords(keywords: &[Keyword]) -> Result<(), Error> {
    if keywords.len() > KEYWORDS_PER_MESSAGE_MAX {
        return Err(Error::Limit {
            what: "keywords on one message",
            max: KEYWORDS_PER_MESSAGE_MAX,
        });
    }
    Ok(())
}

pub(crate) async fn entry_in(
    snapshot: &dyn Snapshot,
    place: Place,
    uid: Uid,
) -> Result<Option<Entry>, Error> {
    let key = keys::entry(place.mailbox, uid);
    let stored = snapshot.get(&key).await?;
    stored.map(|s| codec::decode_entry(&key, &s)).transpose()
}

/// A damaged entry must not take the rest of the mailbox with it (it is reported and passed over).
pub(crate) fn decoded_or_logged(key: &store::Key, stored: &store::Versioned) -> Option<Entry> {
    codec::decode_entry(key, stored)
        .inspect_err(|error| tracing::error!(%error, "a message is left out of its mailbox"))
        .ok()
}

pub(crate) fn after_uid(last: u64) -> Uid {
    Uid(u32::try_from(last + 1).unwrap_or(u32::MAX))
}

async fn first_recent(snapshot: &dyn Snapshot, place: Place) -> Result<(Uid, Option<u64>), Error> {
    let key = keys::recent(place.mailbox);
    match snapshot.get(&key).await? {
        Some(stored) => {
            let n = codec::decode_u64(&key, &stored.value)?;
            Ok((Uid(u32::try_from(n).unwrap_or(u32::MAX)), Some(stored.version)))
        }
        None => Ok((Uid(1), None)),
    }
}
