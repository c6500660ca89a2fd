//! How a message comes into a mailbox and how it is read: delivery, append, entries, bytes.

use crate::{Entry, Error, Flags, Keyword, Mailboxes, Place, Status};
use mail::{ModSeq, QueueId, Timestamp, Uid, UidValidity};
use std::ops::Range;
use store::{Batch, BlobId, Slot, StagedBlob, Watch};

/// Octets of the prefix of one message at most.
pub const PREFIX_OCTETS_MAX: usize = 32 * 1024;

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

/// Where the numbers of a delivery will be found in the commit's receipt.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    /// The message's UID.
    pub uid: Slot,
    /// Its modification sequence.
    pub modseq: Slot,
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
    /// exists, so on [`store::CommitError::Conflict`] look the mailbox up again.
    ///
    /// # Errors
    /// [`Error::Limit`] when prefix or keywords are over their limits; the batch is unchanged then.
    pub fn deliver(&self, batch: &mut Batch, place: Place, delivery: Delivery) -> Result<Delivered, Error> {
        let _ = (batch, place, delivery);
        todo!()
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
        let _ = (place, staged, delivery);
        todo!()
    }

    /// At most `limit` entries with a UID of at least `from`, in the order of their UIDs.
    /// To go on, ask again from the last UID and 1. Damaged entries are left out.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn entries(&self, place: Place, from: Uid, limit: usize) -> Result<Vec<Entry>, Error> {
        let _ = (place, from, limit);
        todo!()
    }

    /// One entry.
    ///
    /// # Errors
    /// When the store cannot be read or the entry is damaged.
    pub async fn entry(&self, place: Place, uid: Uid) -> Result<Option<Entry>, Error> {
        let _ = (place, uid);
        todo!()
    }

    /// Octets of a message: its prefix and then its blob. A range beyond the end is cut.
    ///
    /// # Errors
    /// When the blob cannot be read.
    pub async fn read(&self, entry: &Entry, range: Range<u64>) -> Result<bytes::Bytes, Error> {
        let _ = (entry, range);
        todo!()
    }

    /// The numbers of a mailbox, all of one moment.
    ///
    /// # Errors
    /// [`Error::NoSuchMailbox`]; otherwise what the store says.
    pub async fn status(&self, place: Place) -> Result<Status, Error> {
        let _ = place;
        todo!()
    }

    /// Takes the `\Recent` flag of all messages that no session was told of: every message with a
    /// UID of at least the answer is recent in the calling session and in no later one.
    ///
    /// # Errors
    /// What the store says.
    pub async fn claim_recent(&self, place: Place) -> Result<Uid, Error> {
        let _ = place;
        todo!()
    }

    /// Adds to a batch that a message's text was handed to a client. A conflict of the commit means
    /// that the entry changed since it was read, and can be ignored.
    pub fn mark_fetched(&self, batch: &mut Batch, place: Place, entry: &Entry) {
        let _ = (batch, place, entry);
        todo!()
    }

    /// Wakes at every change of one mailbox's messages.
    #[must_use]
    pub fn watch(&self, place: Place) -> Watch {
        let _ = place;
        todo!()
    }

    /// Wakes at every change of any mailbox of an account, and of their names.
    #[must_use]
    pub fn watch_account(&self, account: mail::AccountId) -> Watch {
        let _ = account;
        todo!()
    }
}
