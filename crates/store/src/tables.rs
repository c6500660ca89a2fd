//! The table half of a store: commits, snapshots and watches.

use crate::BoxFuture;
use crate::batch::{Batch, CommitId, Slot};
use crate::key::{Key, KeyRange};
use bytes::Bytes;

/// A place in the order of commits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Seq(pub u64);

/// A value and the version by which [`crate::Require::VersionIs`] knows it: the `seq` of the commit
/// that last wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// Its version.
    pub version: u64,
}

/// What a commit answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// The commit's place.
    pub seq: Seq,
    /// The first value of each allocation, in the order in which they were asked for.
    pub allocated: Vec<u64>,
}

impl Receipt {
    /// The first number of an allocation.
    #[must_use]
    pub fn value(&self, slot: Slot) -> u64 {
        self.allocated.get(slot.0).copied().unwrap_or(0)
    }
}

/// Why a batch did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold; nothing happened. Read again and decide anew.
    #[error("precondition {index} of the batch does not hold")]
    Conflict {
        /// Which precondition, counted from 0.
        index: usize,
    },
    /// No room; nothing happened. SMTP says 452 4.3.1.
    #[error("the disk is full")]
    Full,
    /// The batch is larger than the limits, or malformed; nothing happened.
    #[error("the batch is not acceptable: {0}")]
    Invalid(&'static str),
    /// Too much is waiting; nothing happened. SMTP says 451 4.3.0.
    #[error("the store is busy")]
    Busy,
    /// It may or may not have happened; asking again under the same name tells.
    #[error("the outcome of the commit is unknown")]
    Unknown(Option<CommitId>),
    /// The store can promise nothing any more (a sync failed); it must be opened anew. A batch that
    /// was in the group of the failed sync may turn out to have happened then.
    #[error("the store has stopped: {0}")]
    Fatal(String),
}

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The disk failed.
    #[error("the disk failed: {0}")]
    Io(String),
    /// A stored value is damaged.
    #[error("the value under {0:?} is damaged")]
    Corrupt(Key),
}

/// What one watches: 1 to 32 octets, by convention a table number and an id.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Topic(pub Vec<u8>);

/// Tells when something was committed under a topic.
pub struct Watch {
    pub(crate) receiver: tokio::sync::watch::Receiver<u64>,
}

impl Watch {
    /// Waits for a commit under the topic since the last call (or since the watch began).
    /// Answers `false` when the store has closed. Cancel-safe.
    pub async fn changed(&mut self) -> bool {
        self.receiver.changed().await.is_ok()
    }
}

/// A consistent view of the tables. It costs memory as long as it is held; hold it briefly.
pub trait Snapshot: Send + Sync {
    /// The commit up to which this view sees.
    fn seq(&self) -> Seq;

    /// The value under a key.
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Versioned>, ReadError>>;

    /// The counter under a key; 0 when it was never used.
    fn counter<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<i64, ReadError>>;

    /// At most `limit` counters of a range that are not 0, in key order. To go on, ask for
    /// `range.after(last key)`. Damaged ones are reported in the log with their key, and left out.
    fn counters<'a>(
        &'a self,
        range: &'a KeyRange,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Key, i64)>, ReadError>>;

    /// At most `limit` entries of a range in key order. To go on, scan `range.after(last key)`.
    /// Entries whose checksum is wrong are reported in the log with their key, and left out.
    fn scan<'a>(
        &'a self,
        range: &'a KeyRange,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Key, Versioned)>, ReadError>>;

    /// Like `scan`, from the end backwards. To go on, scan `range.before(last key)`.
    fn scan_back<'a>(
        &'a self,
        range: &'a KeyRange,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Key, Versioned)>, ReadError>>;
}

/// The table half of a store.
pub trait Tables: Send + Sync {
    /// Makes a batch true: when this answers `Ok`, it is durable, atomic and visible.
    /// Dropping the future does not undo it.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, CommitError>>;

    /// A view of all that is committed now.
    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, ReadError>>;

    /// Watches a topic; see [`crate::Batch::notify`].
    fn watch(&self, topic: &Topic) -> Watch;
}
