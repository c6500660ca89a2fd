//! The store as the server sees it here: its commits are done by a task of the same thread, in
//! turns that the dice decide.
//!
//! Never: a change to what the engine does, only when. (`Hasty` is the exception: it is there to be
//! found out.)

use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use store::engine::Stepper;
use store::simulated::Dice;
use store::{
    Batch, BlobError, BlobId, BlobWriter, Blobs, BoxFuture, CommitError, LogStore, ReadError, Receipt, Seq,
    Snapshot, StagedBlob, Tables, Topic, Watch,
};
use tokio::sync::Notify;
use tokio::task::yield_now;

/// Yields of the engine at most between the first batch that comes and the commit of the group.
const PILE_UP: u64 = 12;
/// The index follows after this long without commits at the latest.
const IDLE: Duration = Duration::from_millis(40);

/// A store whose commits wait for [`drive`].
pub struct Driven {
    inner: Arc<LogStore>,
    wake: Notify,
}

impl Driven {
    /// Over an engine that is stepped.
    #[must_use]
    pub fn new(inner: Arc<LogStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            wake: Notify::new(),
        })
    }
}

/// Steps of the index at most until batches are looked for again; one that fails is a step, too.
const APPLY_STEPS: usize = 4;

/// Commits what waits, and lets the index follow, until it is dropped.
pub async fn drive(store: Arc<Driven>, stepper: &mut Stepper, mut dice: Dice) {
    // Whether the index may have something to do.
    let mut follows = true;
    loop {
        let woken = store.wake.notified();
        let idle = match follows {
            true => tokio::time::timeout(IDLE, woken).await.is_err(),
            false => {
                woken.await;
                false
            }
        };
        follows = true;
        for _ in 0..dice.below(PILE_UP) {
            yield_now().await;
        }
        while stepper.commit() {}
        if idle || dice.chance(1, 4) {
            follows = false;
            for _ in 0..APPLY_STEPS {
                if !stepper.apply() {
                    break;
                }
                follows = true;
                yield_now().await;
                while stepper.commit() {}
            }
            follows |= !idle;
        }
        // What waits for room above the index is not told of again.
        if store.inner.stats().batches_waiting > 0 {
            stepper.apply();
            store.wake.notify_one();
        }
    }
}

impl Tables for Driven {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        let answer = self.inner.commit(batch);
        self.wake.notify_one();
        answer
    }
    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, ReadError>> {
        self.inner.snapshot()
    }
    fn watch(&self, topic: &Topic) -> Watch {
        self.inner.watch(topic)
    }
}

impl Blobs for Driven {
    fn stage(&self, len_hint: u64) -> BoxFuture<'_, Result<Box<dyn BlobWriter>, BlobError>> {
        Box::pin(async move {
            let inner = self.inner.stage(len_hint).await?;
            Ok(Box::new(Unhurried(inner)) as Box<dyn BlobWriter>)
        })
    }
    fn read(&self, id: BlobId, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, BlobError>> {
        self.inner.read(id, range)
    }
}

/// Lets others go first between the pieces of a blob.
struct Unhurried(Box<dyn BlobWriter>);

impl BlobWriter for Unhurried {
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), BlobError>> {
        Box::pin(async move {
            yield_now().await;
            self.0.write(bytes).await
        })
    }
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<StagedBlob, BlobError>> {
        Box::pin(async move {
            yield_now().await;
            let staged = self.0.finish().await;
            yield_now().await;
            staged
        })
    }
}

/// Sabotage: answers commits that nobody may read numbers from before they are durable.
pub struct Hasty(pub Arc<Driven>);

impl Tables for Hasty {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        drop(self.0.commit(batch));
        let receipt = Receipt {
            seq: Seq(0),
            allocated: Vec::new(),
        };
        Box::pin(async move { Ok(receipt) })
    }
    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, ReadError>> {
        self.0.snapshot()
    }
    fn watch(&self, topic: &Topic) -> Watch {
        self.0.watch(topic)
    }
}

impl Blobs for Hasty {
    fn stage(&self, len_hint: u64) -> BoxFuture<'_, Result<Box<dyn BlobWriter>, BlobError>> {
        self.0.stage(len_hint)
    }
    fn read(&self, id: BlobId, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, BlobError>> {
        self.0.read(id, range)
    }
}
