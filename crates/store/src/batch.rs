//! A batch: everything that must become true together, as a value.

use crate::blob::{BlobId, StagedBlob, StagedBody};
use crate::key::Key;
use crate::relocate::Move;
use crate::tables::Topic;

/// Operations in one batch at most.
pub const BATCH_OPS_MAX: usize = 100_000;
/// How far back [`Batch::recent_put`] looks, in operations.
const RECENT_OPS: usize = 64;

/// Names a batch, so that asking again after an unknown outcome applies it once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CommitId(pub u128);

/// What must hold at the moment of commit, or nothing of the batch happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Require {
    /// No value stands under this key.
    KeyAbsent(Key),
    /// Some value stands under this key.
    KeyPresent(Key),
    /// The value under this key has this version (see [`crate::Versioned`]).
    VersionIs(Key, u64),
    /// The lease record under this key (a value that begins with the epoch, 8 octets big-endian)
    /// still has this epoch.
    LeaseHeld(Key, u64),
    /// The counter under this key, after this batch's own additions, is at most this.
    AtMost(Key, i64),
}

/// A number to be assigned at commit: `count` consecutive values of the counter under `counter`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alloc {
    /// The counter's key. A counter that was never used starts so that its first value is 1; the
    /// counter itself reads as the last number given out. Counters and values don't meet: the same
    /// key may hold both, and scans show values only.
    pub counter: Key,
    /// How many consecutive values. The slot stands for the first.
    pub count: u64,
}

/// Refers to an allocation of the same batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(pub(crate) usize);

/// Where an allocated number goes: written big-endian over the octets at `offset`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patch {
    /// Which allocation.
    pub slot: Slot,
    /// Added to the slot's first value.
    pub plus: u64,
    /// Offset in the key or the value.
    pub offset: usize,
    /// 4 or 8 octets.
    pub width: u8,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Sets the value under a key, with numbers patched in and blobs referred to.
    Put {
        /// The key; octets at the patches' offsets are placeholders.
        key: Key,
        /// The value; likewise.
        value: Vec<u8>,
        /// Allocated numbers that go into the key.
        key_patches: Vec<Patch>,
        /// Allocated numbers that go into the value.
        value_patches: Vec<Patch>,
        /// The caller knows that nothing stands under the key, so nobody looks.
        fresh: bool,
        /// Blobs that this entry refers to. A blob lives as long as some entry refers to it; a
        /// reference to a blob that is gone makes the batch `Invalid` (guard a copy with
        /// [`Require::VersionIs`] on the entry it was taken from to get `Conflict` instead).
        refs: Vec<BlobId>,
    },
    /// Removes the value under a key, its references, and the counter under the key. Removing what
    /// is not there is no error.
    Delete(Key),
    /// Adds to a counter (a signed 64-bit number, 0 when absent). A counter at 0 takes no room.
    Add(Key, i64),
}

/// Everything that must become true together. Built with the methods, then given to
/// [`crate::Tables::commit`].
#[derive(Default, Debug)]
pub struct Batch {
    pub(crate) commit_id: Option<CommitId>,
    pub(crate) require: Vec<Require>,
    pub(crate) alloc: Vec<Alloc>,
    pub(crate) ops: Vec<Op>,
    pub(crate) blobs: Vec<StagedBlob>,
    pub(crate) topics: Vec<Topic>,
    /// The engine's own: blobs that get another place. Such a batch asks for nothing else.
    pub(crate) moves: Vec<Move>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the batch, for callers that may have to ask again.
    pub fn name(&mut self, id: CommitId) {
        self.commit_id = Some(id);
    }

    /// Adds a precondition.
    pub fn require(&mut self, r: Require) {
        self.require.push(r);
    }

    /// Asks for `count` consecutive numbers of a counter; see [`Alloc`].
    pub fn alloc(&mut self, counter: Key, count: u64) -> Slot {
        self.alloc.push(Alloc { counter, count });
        Slot(self.alloc.len() - 1)
    }

    /// Sets a value.
    pub fn put(&mut self, key: Key, value: Vec<u8>) {
        self.put_with(key, value, Vec::new(), Vec::new(), Vec::new());
    }

    /// The value of the latest put, among the last few operations, whose key passes the test: for
    /// adding to it instead of putting another.
    pub fn recent_put(&mut self, mut test: impl FnMut(&Key) -> bool) -> Option<&mut Vec<u8>> {
        let recent = self.ops.iter_mut().rev().take(RECENT_OPS);
        recent
            .filter_map(|op| match op {
                Op::Put { key, value, .. } if test(key) => Some(value),
                _ => None,
            })
            .next()
    }

    /// Every value that is put so far, with its key, for changing how it is written.
    pub fn puts(&mut self) -> impl Iterator<Item = (&Key, &mut Vec<u8>)> {
        self.ops.iter_mut().filter_map(|op| match op {
            // Where numbers go into a value was said by offset.
            Op::Put {
                key,
                value,
                value_patches,
                ..
            } if value_patches.is_empty() => Some((&*key, value)),
            _ => None,
        })
    }

    /// Sets a value that refers to blobs.
    pub fn put_ref(&mut self, key: Key, value: Vec<u8>, refs: Vec<BlobId>) {
        self.put_with(key, value, Vec::new(), Vec::new(), refs);
    }

    /// Sets a value with allocated numbers patched into key and value. A key that holds a number
    /// allocated by this batch is taken to be new: see [`Batch::put_fresh`].
    pub fn put_with(
        &mut self,
        key: Key,
        value: Vec<u8>,
        key_patches: Vec<Patch>,
        value_patches: Vec<Patch>,
        refs: Vec<BlobId>,
    ) {
        self.ops.push(Op::Put {
            key,
            value,
            fresh: !key_patches.is_empty(),
            key_patches,
            value_patches,
            refs,
        });
    }

    /// Sets a value under a key that was never used: it holds a number that is given out once. What
    /// stands under the key is not looked up, which spares the committer a read of the index for
    /// every new row. If something stood there after all, it is replaced, blobs that it refers to are
    /// never reclaimed, and it may be there again when the new row goes.
    pub fn put_fresh(&mut self, key: Key, value: Vec<u8>) {
        self.ops.push(Op::Put {
            key,
            value,
            fresh: true,
            key_patches: Vec::new(),
            value_patches: Vec::new(),
            refs: Vec::new(),
        });
    }

    /// Removes a key, with its entry and its counter. An entry that is damaged goes too, and is told
    /// in the log: the blobs it referred to can't be known and stay in the store. (To put something
    /// else in the place of a damaged entry, delete it first: a put alone is refused.)
    pub fn delete(&mut self, key: Key) {
        self.ops.push(Op::Delete(key));
    }

    /// Adds to a counter.
    pub fn add(&mut self, key: Key, n: i64) {
        self.ops.push(Op::Add(key, n));
    }

    /// Makes a staged blob part of the batch: durable with it, readable after it. The caller must
    /// also refer to it in some put, or it may be reclaimed at once.
    pub fn blob(&mut self, staged: StagedBlob) {
        self.blobs.push(staged);
    }

    /// Wakes those who watch this topic, after the commit.
    pub fn notify(&mut self, topic: Topic) {
        self.topics.push(topic);
    }

    /// Whether nothing was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.alloc.is_empty() && self.blobs.is_empty() && self.require.is_empty()
    }

    /// Whether the batch brings octets of blobs.
    pub(crate) fn brings_blobs(&self) -> bool {
        !self.blobs.is_empty() || !self.moves.is_empty()
    }

    /// Octets that the batch brings: keys, values and blobs that stand in memory.
    pub(crate) fn octets(&self) -> usize {
        let ops = self.ops.iter().map(|op| match op {
            Op::Put { key, value, refs, .. } => key.len() + value.len() + refs.len() * 16,
            Op::Delete(key) | Op::Add(key, _) => key.len(),
        });
        let moved = self.moves.iter().map(|one| &one.blob);
        let blobs = self.blobs.iter().chain(moved).map(|blob| match &blob.body {
            StagedBody::Inline(bytes) => bytes.len(),
            StagedBody::File(_) => 0,
        });
        ops.sum::<usize>() + blobs.sum::<usize>()
    }
}
