//! A snapshot that is read slowly: it counts the rows, tells how far it has come, rests now and
//! then so that mail goes first, and can be stopped. Never: another content than the snapshot's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::{BoxFuture, Key, KeyRange, ReadError, Seq, Snapshot, Versioned};

/// Work is done for at most this long before a rest.
const STRETCH: Duration = Duration::from_millis(20);
/// A rest is at most this long, however long the stretch became.
const REST_MAX: Duration = Duration::from_millis(200);

/// How an audit goes along: where it stands, whether it rests, whether it was stopped. Shared by
/// the one who works and the one who tells.
#[derive(Debug, Default)]
pub struct Pace {
    stage: AtomicU64,
    done: AtomicU64,
    of: AtomicU64,
    gentle: AtomicBool,
    stopped: AtomicBool,
}

/// Where an audit stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Standing {
    /// Which of [`STAGES`].
    pub stage: u64,
    /// How much of it is done.
    pub done: u64,
    /// Of how much; 0 when that is not known.
    pub of: u64,
}

/// What an audit does, in order.
pub const STAGES: [&str; 6] = [
    "rows of the store",
    "octets of the blobs",
    "directory",
    "mailboxes",
    "queue",
    "journeys",
];

impl Pace {
    /// Resting half of the time when `gentle`.
    #[must_use]
    pub fn new(gentle: bool) -> Arc<Self> {
        let pace = Self::default();
        pace.gentle.store(gentle, Ordering::Relaxed);
        Arc::new(pace)
    }

    /// Where it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            stage: self.stage.load(Ordering::Relaxed),
            done: self.done.load(Ordering::Relaxed),
            of: self.of.load(Ordering::Relaxed),
        }
    }

    /// Stops the work at its next step.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether it was stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn at(&self, stage: usize, done: u64, of: u64) {
        self.stage.store(stage as u64, Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
        self.of.store(of, Ordering::Relaxed);
    }

    /// Rests as long as was worked since the last rest, when it is time.
    pub(super) fn rest(&self, since: &mut Instant) {
        let worked = since.elapsed();
        if worked < STRETCH {
            return;
        }
        if self.gentle.load(Ordering::Relaxed) {
            std::thread::sleep(worked.min(REST_MAX));
        }
        *since = Instant::now();
    }
}

/// The snapshot.
pub(super) struct Paced<'a> {
    pub(super) inner: &'a dyn Snapshot,
    pub(super) pace: &'a Pace,
    pub(super) since: std::sync::Mutex<Instant>,
}

impl Paced<'_> {
    fn step(&self, rows: usize) -> Result<(), ReadError> {
        if self.pace.is_stopped() {
            return Err(ReadError::Io("the audit was stopped".to_owned()));
        }
        self.pace.done.fetch_add(rows as u64, Ordering::Relaxed);
        let mut since = self
            .since
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        self.pace.rest(&mut since);
        Ok(())
    }
}

impl Snapshot for Paced<'_> {
    fn seq(&self) -> Seq {
        self.inner.seq()
    }

    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Versioned>, ReadError>> {
        self.inner.get(key)
    }

    fn counter<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<i64, ReadError>> {
        self.inner.counter(key)
    }

    fn counters<'a>(
        &'a self,
        range: &'a KeyRange,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Key, i64)>, ReadError>> {
        Box::pin(async move {
            let rows = self.inner.counters(range, limit).await?;
            self.step(rows.len())?;
            Ok(rows)
        })
    }

    fn scan<'a>(
        &'a self,
        range: &'a KeyRange,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Key, Versioned)>, ReadError>> {
        Box::pin(async move {
            let rows = self.inner.scan(range, limit).await?;
            self.step(rows.len())?;
            Ok(rows)
        })
    }

    fn scan_back<'a>(
        &'a self,
        range: &'a KeyRange,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Key, Versioned)>, ReadError>> {
        self.inner.scan_back(range, limit)
    }
}
