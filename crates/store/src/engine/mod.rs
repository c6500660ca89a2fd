//! The embedded engine: a segment log that is durable, an index that follows it.
//!
//! Promises: `commit` answers `Ok` when one sync has put the batch on stable storage and it is
//! visible; opening after any crash shows every acknowledged batch whole and no other; memory is
//! bounded by [`Options`]. Layout and order of writes: docs/STORE-FORMAT.md.
//!
//! Reads of tables and blobs read the page cache or the disk on the caller's thread and await
//! nothing. Never: two processes in one folder; a retry of a failed sync.

mod applier;
mod blobs;
pub(crate) mod check;
mod collect;
mod committer;
pub(crate) mod dump;
mod gather;
mod group;
mod index;
mod keeper;
mod log;
mod recovery;
mod reserve;
pub(crate) mod restore;
mod scrub;
mod shared;
mod state;
#[cfg(feature = "simulated-disk")]
mod stepper;
mod supply;
mod sync_pool;
mod verify;
pub(crate) mod walk;

use crate::blob::{BlobError, BlobId, BlobWriter, Blobs};
use crate::file::{Disk, RealDisk};
use crate::finding::Tell;
use crate::tables::{CommitError, ReadError, Receipt, Snapshot, Tables, Topic, Watch};
use crate::{Batch, BoxFuture};
use applier::Applier;
use bytes::Bytes;
use committer::Committer;
use keeper::Keeper;
use shared::{Job, Shared};
use state::StateView;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use sync_pool::SyncPool;

pub use blobs::{INLINE_OCTETS_MAX, StagedFile};
pub use scrub::Scrubbed;
#[cfg(feature = "simulated-disk")]
pub use stepper::Stepper;
pub use verify::{BLOBS_AT_ONCE, Progress, Still, Verified, VerifyError, VerifyOptions};
pub use walk::{Walk, Walked};

/// Octets that one batch brings at most: keys, values and blobs of up to [`INLINE_OCTETS_MAX`].
pub const BATCH_TOTAL_OCTETS_MAX: usize = 128 << 20;
/// Larger settings of [`Options::group_octets`] are cut to this.
const GROUP_OCTETS_CAP: usize = 64 << 20;

/// Settings of the engine. The defaults suit a server of any size.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment of the log is ended when it has reached this many octets (64 MiB).
    pub segment_octets: u64,
    /// Dead segments kept at most, to become the next ones (4): the log writes over blocks that are
    /// on the disk already, which makes its syncs several times cheaper. A clean end, and a disk
    /// that runs full, give them back.
    pub spare_segments: usize,
    /// When less than this part of a segment lives, in percent (50), what lives is copied to the end
    /// of the log and the segment dies. 0: never.
    pub collect_below_percent: u8,
    /// Octets copied for that in a second at most (32 MiB).
    pub collect_octets_per_second: u64,
    /// Batches in one group at most (1024).
    pub group_batches: usize,
    /// A group takes no further batch when it has reached this many octets (8 MiB; 64 at most).
    pub group_octets: usize,
    /// While batches come together, a group waits this long (2 ms) for as many as came lately. Who
    /// commits alone never waits. Zero: never wait.
    pub gather_wait: Duration,
    /// Batches that may wait (16,384); more are answered `Busy`.
    pub queue_batches: usize,
    /// Octets that may wait (128 MiB); more are answered `Busy`.
    pub queue_octets: usize,
    /// Rows are handed to the index when the oldest has waited this long (500 ms)…
    pub apply_interval: Duration,
    /// … or when they have reached this many octets (8 MiB).
    pub apply_octets: usize,
    /// While the index lags, rows of this many octets (64 MiB) are kept above it; then commits wait.
    pub overlay_octets: usize,
    /// Memory that the index may use for its pages, in octets (64 MiB).
    pub index_cache_octets: usize,
    /// Octets kept back so that deletions work on a full disk (8 MiB).
    pub reserve_octets: u64,
    /// Open even though acknowledged groups are damaged, without them (no). What was skipped is
    /// told by [`LogStore::damage`].
    pub skip_damage: bool,
    /// The number that a new store is known by; `None` takes a random one.
    pub identity: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_octets: 64 << 20,
            spare_segments: 4,
            collect_below_percent: 50,
            collect_octets_per_second: 32 << 20,
            group_batches: 1024,
            group_octets: 8 << 20,
            gather_wait: Duration::from_millis(2),
            queue_batches: 16_384,
            queue_octets: 128 << 20,
            apply_interval: Duration::from_millis(500),
            apply_octets: 8 << 20,
            overlay_octets: 64 << 20,
            index_cache_octets: 64 << 20,
            reserve_octets: 8 << 20,
            skip_damage: false,
            identity: None,
        }
    }
}

/// A damaged place in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Number of the segment.
    pub segment: u64,
    /// Offset in the segment's file.
    pub offset: u64,
    /// What was found.
    pub what: &'static str,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (segment, offset) = (self.segment, self.offset);
        write!(f, "log/{segment:016x}.log at offset {offset}: {}", self.what)
    }
}

/// Why a store could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another handle in this one) has it open.
    #[error("another process has the store in {} open; stop it first", .0.display())]
    Locked(PathBuf),
    /// The disk failed, or there is no permission or no room.
    #[error("the store can't be opened: {0}")]
    Io(String),
    /// The folder holds something else, or a store of a later version.
    #[error("the folder does not hold a store that this version can read: {0}")]
    Format(String),
    /// The log is damaged in front of acknowledged batches. A backup has what is missing;
    /// [`Options::skip_damage`] opens without it.
    #[error(
        "the log is damaged: {0}; restore a backup, or run `posthaste serve \
         --skip-damage`, which goes on behind the damage without what stood there"
    )]
    Damaged(Damage),
    /// The index can't be read.
    #[error(
        "the index can't be opened: {0}; restore a backup, or, if log/ still begins with \
         0000000000000001.log, move index.redb away: it is made again from the log, which takes a while"
    )]
    Index(String),
}

impl From<std::io::Error> for OpenError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

impl From<redb::Error> for OpenError {
    fn from(error: redb::Error) -> Self {
        use std::io::ErrorKind;
        match error {
            // What is there is not what was written; anything else is the disk's or the system's word.
            redb::Error::Io(error)
                if !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
            {
                error.into()
            }
            other => Self::Index(other.to_string()),
        }
    }
}

/// Figures since the store was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Groups written, each with one sync.
    pub groups: u64,
    /// Batches in them.
    pub batches: u64,
    /// Octets written to the log.
    pub log_octets: u64,
    /// Batches that wait now.
    pub batches_waiting: usize,
    /// Their octets.
    pub octets_waiting: usize,
    /// Batches that are committed but not yet in the index; opening after a crash replays them.
    pub batches_unindexed: u64,
    /// Octets of the log that the opening replayed into the index.
    pub replayed_octets: u64,
    /// Batches in them.
    pub replayed_batches: u64,
    /// Segments that were not ready when the log came to them, so that a commit waited.
    pub segments_waited_for: u64,
    /// Dead segments that became the next ones.
    pub segments_recycled: u64,
    /// Dead segments that were removed.
    pub segments_removed: u64,
    /// Half-dead segments that were emptied by copying what lived in them.
    pub segments_collected: u64,
    /// Blobs that were copied for that.
    pub blobs_moved: u64,
    /// Their octets.
    pub octets_moved: u64,
    /// Damaged places that copying came upon; [`LogStore::damage_found`] has them.
    pub damage_found: u64,
}

/// The embedded store.
pub struct LogStore {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<Box<dyn Send + Sync>>>,
    damage: Vec<Damage>,
    identity: u64,
    opening: u64,
    blobs_staged: AtomicU64,
}

/// The opening of the store in which a blob was staged.
fn opening_of(id: BlobId) -> u64 {
    id.0.first_chunk()
        .map_or(0, |opening| u64::from_be_bytes(*opening))
}

impl LogStore {
    /// Opens the store in a folder, creating it when it is not there, and recovers what a crash
    /// left. Takes time in proportion to the log behind the last index transaction.
    pub fn open(path: &Path, options: Options) -> Result<Arc<Self>, OpenError> {
        Self::open_on(Arc::new(RealDisk), path, options)
    }

    /// [`LogStore::open`] on a disk of the caller's choice.
    pub fn open_on(disk: Arc<dyn Disk>, path: &Path, options: Options) -> Result<Arc<Self>, OpenError> {
        let (store, threads) = Self::recover(disk, path, options, SyncPool::start()?)?;
        let (committer, applier, keeper) = threads;
        // When a later one can't be started, dropping the store ends the earlier ones.
        store.start("store-commit", move || committer.run())?;
        store.start("store-apply", move || applier.run())?;
        store.start("store-keep", move || keeper.run())?;
        Ok(Arc::new(store))
    }

    /// [`LogStore::open_on`] without a thread: nothing is committed but by the [`Stepper`], on the
    /// thread of its caller. So a test decides what happens when, and can repeat it.
    #[cfg(feature = "simulated-disk")]
    pub fn open_stepped(
        disk: Arc<dyn Disk>,
        path: &Path,
        options: Options,
    ) -> Result<(Arc<Self>, Stepper), OpenError> {
        let (store, threads) = Self::recover(disk, path, options, SyncPool::inline())?;
        let store = Arc::new(store);
        let stepper = Stepper::new(store.clone(), threads);
        Ok((store, stepper))
    }

    fn recover(
        disk: Arc<dyn Disk>,
        path: &Path,
        mut options: Options,
        pool: Arc<SyncPool>,
    ) -> Result<(Self, (Committer, Applier, Keeper)), OpenError> {
        options.group_octets = options.group_octets.min(GROUP_OCTETS_CAP);
        let recovered = recovery::open(disk, path, options, pool)?;
        let store = Self {
            shared: recovered.shared,
            threads: Mutex::default(),
            lock: Mutex::new(Some(recovered.lock)),
            damage: recovered.damage,
            identity: recovered.identity,
            opening: recovered.opening,
            blobs_staged: AtomicU64::new(0),
        };
        let threads = (recovered.committer, recovered.applier, recovered.keeper);
        Ok((store, threads))
    }

    fn start(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        self.threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(thread);
        Ok(())
    }

    /// Damage found while opening: blobs that will read as `Corrupt`, groups that were skipped.
    #[must_use]
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// A walk through every row of the state as it is now.
    #[must_use]
    pub fn walk(&self) -> Walk {
        Walk::new(self.shared.state())
    }

    /// Looks at the rows from a cursor on (a row key; empty: from the beginning) and at every octet
    /// of the blobs among them, about `octets_max` octets of both. Blocks on the disk.
    ///
    /// # Errors
    /// When the index was closed meanwhile.
    pub fn scrub(&self, from: &[u8], octets_max: u64, tell: Tell<'_>) -> Result<Scrubbed, ReadError> {
        scrub::step(&self.shared, from, octets_max, tell)
    }

    /// The state as it is now, held still for reading it whole: to verify it, audit it, copy it.
    #[must_use]
    pub fn still(&self) -> Still {
        Still::new(self.shared.clone(), self.opening)
    }

    /// Waits until the store can promise nothing any more (a sync failed) and tells why; from then
    /// on every commit answers `Fatal`, and only opening it anew helps.
    pub async fn failed(&self) -> String {
        self.shared.until_stopped().await
    }

    /// Figures since the opening.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Answers what is queued, brings the index up to date, ends the threads and unlocks the
    /// folder. Later commits and reads fail. Blocks while it works (an index transaction or two);
    /// closing twice, or dropping the store without closing, does the same.
    pub fn close(&self) {
        self.shared.queue().closing = true;
        self.shared.queue_changed.notify_all();
        self.shared.closing_changed.notify_all();
        // Held to the end, so that nobody who closes at the same time unlocks the folder too soon.
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
        self.shared.pool.close();
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // Once the folder is unlocked its files may be someone else's.
        if lock.is_some() && self.shared.has_ended_well() {
            self.shared.supply.give_back();
        }
        drop(lock.take());
    }

    /// Damage found since the opening, while blobs were copied out of half-dead segments: the first
    /// thousand places. What is damaged stays where it is, and reads as `Corrupt`.
    #[must_use]
    pub fn damage_found(&self) -> Vec<Damage> {
        self.shared.damage()
    }

    /// Keeps every file of the log as it is, until the value is dropped: no segment is removed or
    /// becomes another, no blob is moved, no file of a large blob goes. Groups are still appended
    /// to the newest segment (what stands behind its last group may be changed by that), and new
    /// segments are made. For backups of a running server; what dies meanwhile takes room until
    /// the pin is gone.
    #[must_use]
    pub fn pin_segments(&self) -> Pin {
        self.shared.supply.pin();
        Pin(self.shared.clone())
    }
}

/// Keeps the files of the log as they are; see [`LogStore::pin_segments`].
pub struct Pin(Arc<Shared>);

impl Drop for Pin {
    fn drop(&mut self) {
        let dropped = self.0.supply.unpin();
        if !dropped.is_empty() {
            let files = self.0.files.clone();
            self.0
                .pool
                .give(move || dropped.iter().for_each(|id| files.remove(*id)));
        }
        self.0.tell_keeper(|inbox| inbox.surplus = true);
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pin")
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Tables for LogStore {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        let octets = batch.octets();
        let id = batch.commit_id;
        let (reply, answer) = tokio::sync::oneshot::channel();
        let refused = if octets > BATCH_TOTAL_OCTETS_MAX {
            Some(CommitError::Invalid(
                "keys, values and short blobs are too long together",
            ))
        } else {
            // Queued before the first poll: dropping the future undoes nothing.
            self.shared.enqueue(Job { batch, octets, reply })
        };
        Box::pin(async move {
            match refused {
                Some(error) => Err(error),
                None => answer.await.unwrap_or(Err(CommitError::Unknown(id))),
            }
        })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, ReadError>> {
        let view: Box<dyn Snapshot> = Box::new(StateView(self.shared.state()));
        Box::pin(async move { Ok(view) })
    }

    fn watch(&self, topic: &Topic) -> Watch {
        self.shared.watches.watch(topic)
    }
}

impl Blobs for LogStore {
    fn stage(&self, len_hint: u64) -> BoxFuture<'_, Result<Box<dyn BlobWriter>, BlobError>> {
        let n = self.blobs_staged.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.opening.to_be_bytes());
        id[8..].copy_from_slice(&n.to_be_bytes());
        let (files, pool) = (self.shared.files.clone(), self.shared.pool.clone());
        let writer: Box<dyn BlobWriter> = Box::new(blobs::Writer::new(BlobId(id), files, pool, len_hint));
        Box::pin(async move { Ok(writer) })
    }

    fn read(&self, id: BlobId, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, BlobError>> {
        Box::pin(async move { self.shared.read_blob(id, range).map(|(bytes, _)| bytes) })
    }
}
