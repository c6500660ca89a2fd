//! Moving blobs within the log, as a pure function: which rows change when octets get another place.
//!
//! Promises: only the place changes; a blob that was moved or dropped meanwhile is left alone; a
//! blob keeps the check word that it was accepted with. Never: I/O of its own, a partial result.

use crate::apply::{Placer, Resolved, View};
use crate::blob::StagedBlob;
use crate::rows::{self, BlobRow, Place, SegmentRow};
use crate::tables::{CommitError, ReadError, Receipt, Seq};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A blob that is to get another place in the log.
#[derive(Debug)]
pub(crate) struct Move {
    /// Where it stands. When its row says otherwise by then, nothing happens.
    pub(crate) from: Place,
    /// Its name and its octets.
    pub(crate) blob: StagedBlob,
}

fn row<V: View + ?Sized>(view: &V, key: &[u8]) -> Result<Option<Bytes>, CommitError> {
    view.row(key).map_err(|error| match error {
        ReadError::Corrupt(_) => DAMAGED,
        ReadError::Io(_) => CommitError::Busy,
    })
}

const DAMAGED: CommitError = CommitError::Invalid("a stored row of a blob's or a segment's is damaged");

/// Resolves moves. `seq` is the place they get in the order of commits if there is any left to do.
pub(crate) fn relocate<V: View + ?Sized>(
    view: &V,
    moves: &[Move],
    seq: Seq,
    placer: &mut dyn Placer,
) -> Result<Resolved, CommitError> {
    let mut left: BTreeMap<_, (&Move, u64, BlobRow)> = BTreeMap::new();
    let mut figures: BTreeMap<u64, SegmentRow> = BTreeMap::new();
    let target = placer.segment();
    for one in moves {
        let Place::Log { segment, .. } = one.from else {
            continue;
        };
        let Some(found) = row(view, &rows::blob_key(one.blob.id))? else {
            continue;
        };
        let blob = BlobRow::decode(&found).ok_or(DAMAGED)?;
        if blob.place != one.from || blob.len != one.blob.len {
            continue;
        }
        left.insert(one.blob.id, (one, segment, blob));
    }
    // Read before the first blob is placed: nothing may fail behind that.
    let sources = left.values().map(|(_, segment, _)| *segment);
    for segment in sources.chain(target) {
        let known = match row(view, &rows::segment_key(segment))? {
            Some(found) => SegmentRow::decode(&found).ok_or(DAMAGED)?,
            None => SegmentRow::default(),
        };
        figures.insert(segment, known);
    }
    let mut writes = BTreeMap::new();
    for (id, (one, from, blob)) in left {
        let (place, _) = placer.place(&one.blob);
        if let Some(old) = figures.get_mut(&from) {
            old.blobs = old.blobs.saturating_sub(1);
            old.octets = old.octets.saturating_sub(blob.len);
        }
        if let Some(new) = target.and_then(|segment| figures.get_mut(&segment)) {
            new.blobs += 1;
            new.octets += blob.len;
        }
        writes.insert(rows::blob_key(id), Some(BlobRow { place, ..blob }.encode()));
    }
    if !writes.is_empty() {
        for (segment, row) in figures {
            let row = (row.blobs > 0).then(|| row.encode());
            writes.insert(rows::segment_key(segment), row);
        }
    }
    Ok(Resolved {
        receipt: Receipt {
            seq,
            allocated: Vec::new(),
        },
        writes: writes.into_iter().map(|(k, v)| (Bytes::from(k), v)).collect(),
        new: Vec::new(),
        dropped: Vec::new(),
        taken: Vec::new(),
        repeated: false,
    })
}
