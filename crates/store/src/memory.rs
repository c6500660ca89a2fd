//! A store in memory, for tests of what stands above.
//!
//! It keeps every promise of the traits but durability: batches are atomic and ordered, snapshots
//! consistent, names remembered, unreferenced blobs gone. Never: a disk, a thread.

use crate::BoxFuture;
use crate::apply::{self, Placer, View};
use crate::batch::Batch;
use crate::blob::{BlobError, BlobId, BlobWriter, Blobs, StagedBlob, StagedBody};
use crate::key::{Key, KeyRange};
use crate::overlay::{self, Direction, Overlay};
use crate::rows::{self, Entry, Place};
use crate::tables::{CommitError, ReadError, Receipt, Seq, Snapshot, Tables, Topic, Versioned, Watch};
use crate::watches::Watches;
use bytes::Bytes;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct State {
    rows: Overlay,
    blobs: HashMap<BlobId, Bytes>,
    seq: u64,
    next_blob: u128,
}

/// A store in memory.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    watches: Watches,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A batch is applied only after it was resolved as a whole, so the state is never half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit_now(&self, batch: &Batch) -> Result<Receipt, CommitError> {
        let mut state = self.lock();
        let seq = Seq(state.seq + 1);
        let resolved = apply::apply(&RowsOf(&state.rows), batch, seq, &mut InMap)?;
        let mut receipt = resolved.receipt;
        if resolved.writes.is_empty() {
            receipt.seq = receipt.seq.min(Seq(state.seq));
            drop(state);
            if !resolved.repeated {
                self.watches.wake(&batch.topics);
            }
            return Ok(receipt);
        }
        state.seq = seq.0;
        for (key, row) in resolved.writes {
            match row {
                Some(row) => state.rows.insert_mut(key, Some(row)),
                None => drop(state.rows.remove_mut(&key)),
            }
        }
        for id in resolved.dropped {
            state.blobs.remove(&id);
        }
        for staged in &batch.blobs {
            if let StagedBody::Inline(bytes) = &staged.body
                && resolved.taken.contains(&staged.id)
            {
                state.blobs.insert(staged.id, bytes.clone());
            }
        }
        drop(state);
        self.watches.wake(&batch.topics);
        Ok(receipt)
    }
}

/// Blobs stay in a map beside the rows.
struct InMap;

impl Placer for InMap {
    fn segment(&self) -> Option<u64> {
        None
    }

    fn place(&mut self, _staged: &StagedBlob) -> (Place, u32) {
        (Place::Own, 0)
    }
}

struct RowsOf<'a>(&'a Overlay);

impl View for RowsOf<'_> {
    fn row(&self, row_key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        Ok(self.0.get(row_key).cloned().flatten())
    }
}

impl Tables for MemoryStore {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        // Done before the first poll, as in the real engine: dropping the future undoes nothing.
        let result = self.commit_now(&batch);
        Box::pin(async move { result })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, ReadError>> {
        let state = self.lock();
        let view: Box<dyn Snapshot> = Box::new(MemoryView {
            rows: state.rows.clone(),
            seq: Seq(state.seq),
        });
        Box::pin(async move { Ok(view) })
    }

    fn watch(&self, topic: &Topic) -> Watch {
        self.watches.watch(topic)
    }
}

struct MemoryView {
    rows: Overlay,
    seq: Seq,
}

impl MemoryView {
    fn scan_in(
        &self,
        range: &KeyRange,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<(Key, Versioned)>, ReadError> {
        let (start, end) = rows::entry_range(range);
        let layers = vec![overlay::layer(&self.rows, &start, &end, direction)];
        overlay::entries(layers, direction, limit)
    }
}

impl MemoryView {
    fn counters_now(&self, range: &KeyRange, limit: usize) -> Result<Vec<(Key, i64)>, ReadError> {
        let (start, end) = rows::counter_range(range);
        overlay::counters(
            vec![overlay::layer(&self.rows, &start, &end, Direction::Forward)],
            limit,
        )
    }
}

impl Snapshot for MemoryView {
    fn seq(&self) -> Seq {
        self.seq
    }

    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Versioned>, ReadError>> {
        let row = self.rows.get(rows::entry_key(key).as_slice()).cloned().flatten();
        let found = row.map(|row| Entry::versioned(&row).ok_or_else(|| ReadError::Corrupt(key.clone())));
        Box::pin(async move { found.transpose() })
    }

    fn counter<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<i64, ReadError>> {
        let row = self
            .rows
            .get(rows::counter_key(key).as_slice())
            .cloned()
            .flatten();
        let n = row.map_or(Some(0), |row| rows::decode_counter(&row));
        Box::pin(async move { n.ok_or_else(|| ReadError::Corrupt(key.clone())) })
    }

    fn counters<'a>(
        &'a self,
        range: &'a KeyRange,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Key, i64)>, ReadError>> {
        Box::pin(async move { self.counters_now(range, limit) })
    }

    fn scan<'a>(
        &'a self,
        range: &'a KeyRange,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Key, Versioned)>, ReadError>> {
        Box::pin(async move { self.scan_in(range, limit, Direction::Forward) })
    }

    fn scan_back<'a>(
        &'a self,
        range: &'a KeyRange,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Key, Versioned)>, ReadError>> {
        Box::pin(async move { self.scan_in(range, limit, Direction::Backward) })
    }
}

struct MemoryWriter {
    id: BlobId,
    bytes: Vec<u8>,
}

impl BlobWriter for MemoryWriter {
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), BlobError>> {
        self.bytes.extend_from_slice(bytes);
        Box::pin(async { Ok(()) })
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<StagedBlob, BlobError>> {
        let staged = StagedBlob {
            id: self.id,
            len: self.bytes.len() as u64,
            body: StagedBody::Inline(self.bytes.into()),
        };
        Box::pin(async move { Ok(staged) })
    }
}

impl Blobs for MemoryStore {
    fn stage(&self, _len_hint: u64) -> BoxFuture<'_, Result<Box<dyn BlobWriter>, BlobError>> {
        let mut state = self.lock();
        state.next_blob += 1;
        let writer: Box<dyn BlobWriter> = Box::new(MemoryWriter {
            id: BlobId(state.next_blob.to_be_bytes()),
            bytes: Vec::new(),
        });
        Box::pin(async move { Ok(writer) })
    }

    fn read(&self, id: BlobId, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, BlobError>> {
        let found = self.lock().blobs.get(&id).map(|bytes| {
            let cut = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
            let end = cut(range.end);
            bytes.slice(cut(range.start).min(end)..end)
        });
        Box::pin(async move { found.ok_or(BlobError::NotFound(id)) })
    }
}
