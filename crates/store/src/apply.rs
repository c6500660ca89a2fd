//! What a batch does, as a pure function: state and batch in, rows to write out.
//!
//! Both engines use it, so that preconditions, allocations, references and remembered names mean
//! the same everywhere. It reads through [`View`] and writes nothing.
//! Never: I/O of its own, a clock, a partial result (an error means that nothing is to happen).

use crate::batch::{BATCH_OPS_MAX, Batch, Op, Patch, Require};
use crate::blob::{BlobId, StagedBlob};
use crate::key::{KEY_OCTETS_MAX, Key};
use crate::rows::{self, BlobRow, Entry, Place, SegmentRow};
use crate::tables::{CommitError, ReadError, Receipt, Seq};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Octets of a value at most.
pub const VALUE_OCTETS_MAX: usize = 4 * 1024 * 1024;
/// Octets of all keys and values of a batch at most (blobs not counted).
pub const BATCH_OCTETS_MAX: usize = 32 * 1024 * 1024;
/// Octets of a topic at most.
pub const TOPIC_OCTETS_MAX: usize = 32;
/// Blobs that one entry refers to at most.
pub const REFS_MAX: usize = 4096;
/// How many names of batches are remembered, newest first. Asking again under a name that was
/// pushed out by this many later ones commits anew.
pub const COMMIT_IDS_REMEMBERED: u32 = 65_536;

/// Blobs whose references one batch can change at most, those of entries that it replaces included.
pub const REF_CHANGES_MAX: usize = 500_000;

/// The rows as they stand before the batch.
pub(crate) trait View {
    /// A row by its key.
    fn row(&self, row_key: &[u8]) -> Result<Option<Bytes>, ReadError>;
}

/// What a batch comes to.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The answer.
    pub(crate) receipt: Receipt,
    /// Rows to set (`Some`) or remove (`None`), each key once, in key order.
    pub(crate) writes: Vec<(Bytes, Option<Bytes>)>,
    /// Which of them are set and certainly not there before, in key order.
    pub(crate) new: Vec<Bytes>,
    /// Blobs outside the log that nothing refers to any more.
    pub(crate) dropped: Vec<BlobId>,
    /// Staged blobs that became part of the store.
    pub(crate) taken: Vec<BlobId>,
    /// Whether this is the remembered answer to a name that was committed before.
    pub(crate) repeated: bool,
}

/// Decides where staged blobs will stay.
pub(crate) trait Placer {
    /// The log segment into which [`Placer::place`] may put blobs of this batch.
    fn segment(&self) -> Option<u64>;
    /// Puts a blob's octets where they will stay; says where that is, and the check word.
    fn place(&mut self, staged: &StagedBlob) -> (Place, u32);
}

/// Resolves a batch. `seq` is the place it gets if it writes anything; a batch that writes nothing
/// (preconditions only, or a name that was committed before) leaves `writes` empty.
/// `placer` is asked to place only when nothing can fail any more, once for each blob referred to.
pub(crate) fn apply<V: View + ?Sized>(
    view: &V,
    batch: &Batch,
    seq: Seq,
    placer: &mut dyn Placer,
) -> Result<Resolved, CommitError> {
    validate(batch)?;
    let mut work = Work {
        view,
        changed: BTreeMap::new(),
        refs: BTreeMap::new(),
    };
    if let Some(id) = batch.commit_id
        && let Some(row) = work.row(&rows::receipt_key(id))?
    {
        let receipt = rows::decode_receipt(&row).ok_or(DAMAGED)?;
        return Ok(Resolved {
            receipt,
            writes: Vec::new(),
            new: Vec::new(),
            dropped: Vec::new(),
            taken: Vec::new(),
            repeated: true,
        });
    }
    for (index, require) in batch.require.iter().enumerate() {
        if !work.holds(require)? {
            return Err(CommitError::Conflict { index });
        }
    }
    let allocated = work.allocate(batch)?;
    for op in &batch.ops {
        work.op(op, seq, &allocated)?;
    }
    for (index, require) in batch.require.iter().enumerate() {
        if let Require::AtMost(key, most) = require
            && work.counter(key)? > *most
        {
            return Err(CommitError::Conflict { index });
        }
    }
    work.finish(batch, seq, allocated, placer)
}

const DAMAGED: CommitError = CommitError::Invalid("a stored row that the batch touches is damaged");
const OVERFLOW: CommitError = CommitError::Invalid("a counter would overflow");

fn validate(batch: &Batch) -> Result<(), CommitError> {
    let invalid = |why| Err(CommitError::Invalid(why));
    if batch.ops.len() + batch.require.len() + batch.alloc.len() + batch.blobs.len() > BATCH_OPS_MAX {
        return invalid("too many operations");
    }
    let mut octets = 0usize;
    for op in &batch.ops {
        let (Op::Put { key, .. } | Op::Delete(key) | Op::Add(key, _)) = op;
        check_key(key)?;
        octets += key.len();
        if let Op::Put { value, refs, .. } = op {
            octets += value.len() + refs.len() * 16;
            if value.len() > VALUE_OCTETS_MAX {
                return invalid("a value is too long");
            }
            if refs.len() > REFS_MAX {
                return invalid("an entry refers to too many blobs");
            }
        }
    }
    if octets > BATCH_OCTETS_MAX {
        return invalid("keys and values are too long together");
    }
    for alloc in &batch.alloc {
        check_key(&alloc.counter)?;
    }
    if batch
        .topics
        .iter()
        .any(|t| t.0.is_empty() || t.0.len() > TOPIC_OCTETS_MAX)
    {
        return invalid("a topic has 1 to 32 octets");
    }
    Ok(())
}

fn check_key(key: &Key) -> Result<(), CommitError> {
    match key.len() {
        1..=KEY_OCTETS_MAX => Ok(()),
        0 => Err(CommitError::Invalid("a key is empty")),
        _ => Err(CommitError::Invalid("a key is too long")),
    }
}

fn patch(bytes: &mut [u8], patches: &[Patch], allocated: &[u64]) -> Result<(), CommitError> {
    for p in patches {
        let first = allocated
            .get(p.slot.0)
            .ok_or(CommitError::Invalid("a patch names no allocation"))?;
        let n = first.checked_add(p.plus).ok_or(OVERFLOW)?;
        let width = usize::from(p.width);
        let end = p.offset.checked_add(width);
        let target = end
            .and_then(|end| bytes.get_mut(p.offset..end))
            .ok_or(CommitError::Invalid("a patch lies outside of what it patches"))?;
        match width {
            8 => target.copy_from_slice(&n.to_be_bytes()),
            4 => {
                let n = u32::try_from(n);
                let n =
                    n.map_err(|_| CommitError::Invalid("an allocated number needs more than 4 octets"))?;
                target.copy_from_slice(&n.to_be_bytes());
            }
            _ => return Err(CommitError::Invalid("a patch is 4 or 8 octets wide")),
        }
    }
    Ok(())
}

/// The blobs that an entry refers to; none when there is no such entry. A damaged one is
/// [`CommitError::Invalid`].
fn refs_in(row: Option<Bytes>) -> Result<Vec<BlobId>, CommitError> {
    match row {
        Some(row) => Ok(Entry::decode(&row).ok_or(DAMAGED)?.refs),
        None => Ok(Vec::new()),
    }
}

/// What becomes of a row.
struct Change {
    row: Option<Bytes>,
    /// Whether nothing stood there before the batch.
    is_new: bool,
}

/// The state during one batch: the view, with the batch's own changes above it.
struct Work<'a, V: View + ?Sized> {
    view: &'a V,
    changed: BTreeMap<Vec<u8>, Change>,
    /// By how much the number of references to each blob changes.
    refs: BTreeMap<BlobId, i64>,
}

impl<V: View + ?Sized> Work<'_, V> {
    fn row(&self, row_key: &[u8]) -> Result<Option<Bytes>, CommitError> {
        if let Some(change) = self.changed.get(row_key) {
            return Ok(change.row.clone());
        }
        self.view.row(row_key).map_err(|error| match error {
            ReadError::Corrupt(_) => DAMAGED,
            ReadError::Io(_) => CommitError::Busy,
        })
    }

    fn set(&mut self, row_key: Vec<u8>, row: Option<Bytes>) {
        let is_new = self.changed.get(&row_key).is_some_and(|before| before.is_new);
        self.changed.insert(row_key, Change { row, is_new });
    }

    fn entry(&self, key: &Key) -> Result<Option<Entry>, CommitError> {
        let row = self.row(&rows::entry_key(key))?;
        row.map(|row| Entry::decode(&row).ok_or(DAMAGED)).transpose()
    }

    fn counter(&self, key: &Key) -> Result<i64, CommitError> {
        match self.row(&rows::counter_key(key))? {
            Some(row) => rows::decode_counter(&row).ok_or(DAMAGED),
            None => Ok(0),
        }
    }

    fn set_counter(&mut self, key: &Key, n: i64) {
        let row = (n != 0).then(|| rows::encode_counter(n));
        self.set(rows::counter_key(key), row);
    }

    /// Whether a precondition holds before the batch. `AtMost` is looked at after it.
    fn holds(&self, require: &Require) -> Result<bool, CommitError> {
        Ok(match require {
            Require::KeyAbsent(key) => self.row(&rows::entry_key(key))?.is_none(),
            Require::KeyPresent(key) => self.row(&rows::entry_key(key))?.is_some(),
            Require::VersionIs(key, version) => self.entry(key)?.is_some_and(|e| e.version == *version),
            Require::LeaseHeld(key, epoch) => {
                let entry = self.entry(key)?;
                entry.is_some_and(|e| e.value.first_chunk::<8>() == Some(&epoch.to_be_bytes()))
            }
            Require::AtMost(..) => true,
        })
    }

    fn allocate(&mut self, batch: &Batch) -> Result<Vec<u64>, CommitError> {
        let mut firsts = Vec::with_capacity(batch.alloc.len());
        for alloc in &batch.alloc {
            let last = self.counter(&alloc.counter)?;
            let first = last.checked_add(1).ok_or(OVERFLOW)?;
            let first = u64::try_from(first);
            firsts.push(first.map_err(|_| CommitError::Invalid("a negative counter can't allocate"))?);
            let count = i64::try_from(alloc.count).map_err(|_| OVERFLOW)?;
            self.set_counter(&alloc.counter, last.checked_add(count).ok_or(OVERFLOW)?);
        }
        Ok(firsts)
    }

    fn op(&mut self, op: &Op, seq: Seq, allocated: &[u64]) -> Result<(), CommitError> {
        match op {
            Op::Put {
                key,
                value,
                fresh,
                key_patches,
                value_patches,
                refs,
            } => {
                let mut row_key = rows::entry_key(key);
                // The row key has one octet before the caller's key.
                patch(&mut row_key[1..], key_patches, allocated)?;
                // What this batch put there itself is always known.
                let known = self.changed.get(&row_key).map(|before| before.is_new);
                let is_new = if *fresh && known.is_none() {
                    true
                } else {
                    let before = self.row(&row_key)?;
                    let is_absent = before.is_none();
                    self.drop_refs(refs_in(before)?)?;
                    known.unwrap_or(is_absent)
                };
                for id in refs {
                    *self.refs.entry(*id).or_default() += 1;
                }
                let row = if value_patches.is_empty() {
                    Entry::encode(seq.0, refs, value)
                } else {
                    let mut value = value.clone();
                    patch(&mut value, value_patches, allocated)?;
                    Entry::encode(seq.0, refs, &value)
                };
                let row = Some(row);
                self.changed.insert(row_key, Change { row, is_new });
            }
            Op::Delete(key) => {
                let row_key = rows::entry_key(key);
                let refs = match self.row(&row_key).and_then(refs_in) {
                    // It must be possible to get rid of it. What it referred to is unknown and stays:
                    // a blob that is kept too long costs room, one that goes too early is lost.
                    Err(CommitError::Invalid(_)) => {
                        tracing::error!(
                            ?key,
                            "a damaged row is removed; blobs it referred to stay in the store"
                        );
                        Vec::new()
                    }
                    refs => refs?,
                };
                self.drop_refs(refs)?;
                self.set(row_key, None);
                let counter = rows::counter_key(key);
                if self.row(&counter)?.is_some() {
                    self.set(counter, None);
                }
            }
            Op::Add(key, n) => {
                let sum = self.counter(key)?.checked_add(*n).ok_or(OVERFLOW)?;
                self.set_counter(key, sum);
            }
        }
        Ok(())
    }

    /// Gives back the references of the entry that is about to go.
    fn drop_refs(&mut self, refs: Vec<BlobId>) -> Result<(), CommitError> {
        for id in refs {
            *self.refs.entry(id).or_default() -= 1;
        }
        if self.refs.len() > REF_CHANGES_MAX {
            return Err(CommitError::Invalid(
                "the batch changes references to too many blobs",
            ));
        }
        Ok(())
    }

    fn finish(
        mut self,
        batch: &Batch,
        seq: Seq,
        allocated: Vec<u64>,
        placer: &mut dyn Placer,
    ) -> Result<Resolved, CommitError> {
        let receipt = Receipt { seq, allocated };
        if let Some(id) = batch.commit_id {
            self.remember(id, &receipt)?;
        }
        let mut kept = Vec::new();
        let mut dropped = Vec::new();
        for (id, delta) in std::mem::take(&mut self.refs) {
            let row_key = rows::blob_key(id);
            let row = self.row(&row_key)?;
            let staged = batch.blobs.iter().find(|b| b.id == id);
            match (row, staged) {
                (Some(_), Some(_)) => return Err(CommitError::Invalid("a staged blob was committed before")),
                (Some(row), None) => {
                    let blob = BlobRow::decode(&row).ok_or(DAMAGED)?;
                    dropped.extend(self.recount(id, row_key, blob, delta)?);
                }
                // Put and replaced within the same batch; or an entry goes whose blob was lost before.
                (None, _) if delta <= 0 => {}
                (None, Some(staged)) => kept.push((staged, delta.unsigned_abs())),
                (None, None) => {
                    return Err(CommitError::Invalid(
                        "a blob that is referred to is not in the store",
                    ));
                }
            }
        }
        // Read before the first blob is placed: nothing may fail behind that.
        let segment_key = placer.segment().map(rows::segment_key);
        let mut figures = match &segment_key {
            Some(key) if !kept.is_empty() => self.segment(key)?,
            _ => SegmentRow::default(),
        };
        let mut taken = Vec::with_capacity(kept.len());
        let mut in_log = false;
        for (staged, refs) in kept {
            let (place, check) = placer.place(staged);
            taken.push(staged.id);
            if matches!(place, Place::Log { .. }) {
                in_log = true;
                figures.blobs += 1;
                figures.octets += staged.len;
            }
            let blob = BlobRow {
                refs,
                len: staged.len,
                check,
                place,
            };
            self.set(rows::blob_key(staged.id), Some(blob.encode()));
        }
        if let Some(key) = segment_key.filter(|_| in_log) {
            self.set(key, Some(figures.encode()));
        }
        let mut writes = Vec::with_capacity(self.changed.len());
        let mut new = Vec::new();
        for (key, change) in self.changed {
            let key = Bytes::from(key);
            if change.is_new && change.row.is_some() {
                new.push(key.clone());
            }
            writes.push((key, change.row));
        }
        Ok(Resolved {
            receipt,
            writes,
            new,
            dropped,
            taken,
            repeated: false,
        })
    }

    fn segment(&self, row_key: &[u8]) -> Result<SegmentRow, CommitError> {
        match self.row(row_key)? {
            Some(row) => SegmentRow::decode(&row).ok_or(DAMAGED),
            None => Ok(SegmentRow::default()),
        }
    }

    /// Changes the count of references of a stored blob. Answers the blob's name when its own file
    /// is to go.
    fn recount(
        &mut self,
        id: BlobId,
        row_key: Vec<u8>,
        mut blob: BlobRow,
        delta: i64,
    ) -> Result<Option<BlobId>, CommitError> {
        blob.refs = blob.refs.checked_add_signed(delta).ok_or(DAMAGED)?;
        if delta == 0 {
            return Ok(None);
        }
        if blob.refs > 0 {
            self.set(row_key, Some(blob.encode()));
            return Ok(None);
        }
        self.set(row_key, None);
        match blob.place {
            Place::Own => Ok(Some(id)),
            Place::Log { segment, .. } => {
                let segment_key = rows::segment_key(segment);
                let mut figures = self.segment(&segment_key)?;
                figures.blobs = figures.blobs.saturating_sub(1);
                figures.octets = figures.octets.saturating_sub(blob.len);
                let row = (figures.blobs > 0).then(|| figures.encode());
                self.set(segment_key, row);
                Ok(None)
            }
        }
    }

    /// Remembers a named batch in a ring of [`COMMIT_IDS_REMEMBERED`] places.
    fn remember(&mut self, id: crate::CommitId, receipt: &Receipt) -> Result<(), CommitError> {
        let next = match self.row(&rows::ring_next_key())? {
            Some(row) => rows::decode_counter(&row).ok_or(DAMAGED)?,
            None => 0,
        };
        let slot = next.rem_euclid(i64::from(COMMIT_IDS_REMEMBERED)) as u32;
        if let Some(old) = self.row(&rows::ring_key(slot))? {
            let old: [u8; 16] = old.as_ref().try_into().map_err(|_| DAMAGED)?;
            let old = crate::CommitId(u128::from_be_bytes(old));
            self.set(rows::receipt_key(old), None);
        }
        let name = Bytes::copy_from_slice(&id.0.to_be_bytes());
        self.set(rows::ring_key(slot), Some(name));
        let next = rows::encode_counter(next.wrapping_add(1));
        self.set(rows::ring_next_key(), Some(next));
        self.set(rows::receipt_key(id), Some(rows::encode_receipt(receipt)));
        Ok(())
    }
}
