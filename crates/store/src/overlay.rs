//! Ordered rows in memory, and the merging of layers of rows into one scan.
//!
//! An [`Overlay`] is a persistent map: a clone is a handle, cheap and unaffected by later changes.
//! In a layer, `None` under a key hides what lower layers say. Never: I/O.

use crate::key::Key;
use crate::rows::{self, Entry};
use crate::tables::{ReadError, Versioned};
use bytes::Bytes;
use rpds::RedBlackTreeMapSync;
use std::cmp::Ordering;
use std::ops::Bound;

/// Rows changed but not yet in the layer below.
pub(crate) type Overlay = RedBlackTreeMapSync<Bytes, Option<Bytes>>;

/// A row of a layer.
pub(crate) type LayerRow = Result<(Bytes, Option<Bytes>), ReadError>;

/// A layer during a scan, its rows in the direction of the scan.
pub(crate) type Layer<'a> = Box<dyn Iterator<Item = LayerRow> + 'a>;

/// Which way a scan goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

/// An overlay's rows from `start` (inclusive) to `end` (exclusive).
pub(crate) fn layer<'a>(
    overlay: &'a Overlay,
    start: &'a [u8],
    end: &'a [u8],
    direction: Direction,
) -> Layer<'a> {
    if start >= end {
        return Box::new(std::iter::empty());
    }
    let rows = overlay.range::<[u8], _>((Bound::Included(start), Bound::Excluded(end)));
    let rows = rows.map(|(k, v)| Ok((k.clone(), v.clone())));
    match direction {
        Direction::Forward => Box::new(rows),
        Direction::Backward => Box::new(rows.rev()),
    }
}

/// Merges layers of entry rows, the uppermost first, into at most `limit` entries.
pub(crate) fn entries(
    layers: Vec<Layer<'_>>,
    direction: Direction,
    limit: usize,
) -> Result<Vec<(Key, Versioned)>, ReadError> {
    let found = merge(layers, direction, limit)?;
    let entry = |(key, row): (Bytes, Bytes)| {
        let key = rows::key_of_entry(&key);
        match Entry::versioned(&row) {
            Some(value) => Ok((key, value)),
            None => Err(ReadError::Corrupt(key)),
        }
    };
    found.into_iter().map(entry).collect()
}

/// Merges layers of counter rows, the uppermost first, into at most `limit` counters.
pub(crate) fn counters(layers: Vec<Layer<'_>>, limit: usize) -> Result<Vec<(Key, i64)>, ReadError> {
    let found = merge(layers, Direction::Forward, limit)?;
    let counter = |(key, row): (Bytes, Bytes)| {
        let key = rows::key_of_entry(&key);
        match rows::decode_counter(&row) {
            Some(count) => Ok((key, count)),
            None => Err(ReadError::Corrupt(key)),
        }
    };
    found.into_iter().map(counter).collect()
}

/// Merges layers, the uppermost first, into at most `limit` rows.
fn merge(
    layers: Vec<Layer<'_>>,
    direction: Direction,
    limit: usize,
) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
    let mut heads = Vec::with_capacity(layers.len());
    for mut layer in layers {
        let head = layer.next().transpose()?;
        heads.push((head, layer));
    }
    let mut out = Vec::new();
    while out.len() < limit {
        // The uppermost layer wins among equal keys, since `min_by` keeps the first.
        let next = heads.iter().filter_map(|(head, _)| head.as_ref()).min_by(|a, b| {
            let order: Ordering = a.0.cmp(&b.0);
            if direction == Direction::Forward {
                order
            } else {
                order.reverse()
            }
        });
        let Some((key, row)) = next.cloned() else { break };
        for (head, layer) in &mut heads {
            if head.as_ref().is_some_and(|(k, _)| *k == key) {
                *head = layer.next().transpose()?;
            }
        }
        if let Some(row) = row {
            out.push((key, row));
        }
    }
    Ok(out)
}
