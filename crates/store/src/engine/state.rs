//! What readers see: one immutable value that is replaced as a whole after each group.
//!
//! Three layers: rows committed since the last hand-over (active), rows that the applier is
//! putting into the index now (frozen), and the index. Taking the state is one short lock, so
//! readers never wait for a disk or for the writer. Never: a change in place.

use super::index::IndexView;
use crate::BoxFuture;
use crate::apply::View;
use crate::key::{Key, KeyRange};
use crate::overlay::{self, Direction, Overlay};
use crate::rows::{self, Entry};
use crate::tables::{ReadError, Seq, Snapshot, Versioned};
use bytes::Bytes;
use std::sync::Arc;

/// All that is committed.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) seq: Seq,
    pub(crate) active: Overlay,
    pub(crate) frozen: Option<Overlay>,
    pub(crate) index: IndexView,
}

impl State {
    /// How many rows there are, about: a row that is in several layers counts in each.
    pub(crate) fn rows_about(&self) -> u64 {
        let above = self.active.size() + self.frozen.as_ref().map_or(0, Overlay::size);
        self.index.len() + above as u64
    }
}

impl View for State {
    fn row(&self, row_key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        for overlay in [Some(&self.active), self.frozen.as_ref()].into_iter().flatten() {
            if let Some(row) = overlay.get(row_key) {
                return Ok(row.clone());
            }
        }
        self.index.row(row_key)
    }
}

/// A snapshot is a handle on a state.
pub(crate) struct StateView(pub(crate) Arc<State>);

impl StateView {
    fn get_now(&self, key: &Key) -> Result<Option<Versioned>, ReadError> {
        let row = self.0.row(&rows::entry_key(key))?;
        row.map(|row| Entry::versioned(&row).ok_or_else(|| ReadError::Corrupt(key.clone())))
            .transpose()
    }

    fn counter_now(&self, key: &Key) -> Result<i64, ReadError> {
        match self.0.row(&rows::counter_key(key))? {
            Some(row) => rows::decode_counter(&row).ok_or_else(|| ReadError::Corrupt(key.clone())),
            None => Ok(0),
        }
    }

    fn scan_now(
        &self,
        range: &KeyRange,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<(Key, Versioned)>, ReadError> {
        let (start, end) = rows::entry_range(range);
        overlay::entries(self.layers(&start, &end, direction)?, direction, limit)
    }

    fn counters_now(&self, range: &KeyRange, limit: usize) -> Result<Vec<(Key, i64)>, ReadError> {
        let (start, end) = rows::counter_range(range);
        overlay::counters(self.layers(&start, &end, Direction::Forward)?, limit)
    }

    fn layers<'a>(
        &'a self,
        start: &'a [u8],
        end: &'a [u8],
        direction: Direction,
    ) -> Result<Vec<overlay::Layer<'a>>, ReadError> {
        let mut layers = vec![overlay::layer(&self.0.active, start, end, direction)];
        if let Some(frozen) = &self.0.frozen {
            layers.push(overlay::layer(frozen, start, end, direction));
        }
        layers.push(self.0.index.layer(start, end, direction)?);
        Ok(layers)
    }
}

impl Snapshot for StateView {
    fn seq(&self) -> Seq {
        self.0.seq
    }

    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Versioned>, ReadError>> {
        Box::pin(async move { self.get_now(key) })
    }

    fn counter<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<i64, ReadError>> {
        Box::pin(async move { self.counter_now(key) })
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
        Box::pin(async move { self.scan_now(range, limit, Direction::Forward) })
    }

    fn scan_back<'a>(
        &'a self,
        range: &'a KeyRange,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Key, Versioned)>, ReadError>> {
        Box::pin(async move { self.scan_now(range, limit, Direction::Backward) })
    }
}
