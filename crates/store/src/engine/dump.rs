//! What a backup reads of the engine: one state, row by row, and the blobs as they were in it.
//!
//! Promises: as long as the blobs of a [`Held`] state are held, each of them can be read, also when
//! it was deleted, moved or replaced meanwhile; commits go on. Never: a write.

use super::blobs;
use super::shared::Shared;
use super::state::State;
use super::walk::Walk;
use super::{LogStore, Pin};
use crate::blob::{BlobError, BlobId};
use crate::rows::BlobRow;
use crate::tables::Seq;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

impl LogStore {
    /// The number that this store is known by. Blob ids mean something only together with it.
    #[must_use]
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// The rows of one space as they are now.
    pub(crate) fn walk_now(&self, space: u8) -> Walk {
        Walk::between(self.shared.state(), vec![space], vec![space + 1])
    }

    /// Reads a blob as it is now.
    pub(crate) fn blob_now(&self, id: BlobId, range: Range<u64>) -> Result<Bytes, BlobError> {
        self.shared.read_blob(id, range).map(|(bytes, _)| bytes)
    }

    /// Holds the state as it is now, with its blobs.
    pub(crate) fn hold(&self) -> Held<'_> {
        // The pin first: what the state says is alive must not go between the two.
        let pin = self.pin_segments();
        Held {
            store: self,
            shared: self.shared.clone(),
            state: self.shared.state(),
            pin: Some(pin),
        }
    }
}

/// A state that is held.
pub(crate) struct Held<'a> {
    store: &'a LogStore,
    shared: Arc<Shared>,
    state: Arc<State>,
    pin: Option<Pin>,
}

impl Held<'_> {
    /// The commit up to which it sees.
    pub(crate) fn seq(&self) -> Seq {
        self.state.seq
    }

    /// Its rows of one space.
    pub(crate) fn walk(&self, space: u8) -> Walk {
        Walk::between(self.state.clone(), vec![space], vec![space + 1])
    }

    /// Reads a blob whose row in this state is `row`.
    pub(crate) fn blob(&self, id: BlobId, row: &BlobRow, range: Range<u64>) -> Result<Bytes, BlobError> {
        match blobs::read(&self.shared.segments, &self.shared.files, id, row, range.clone()) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => self
                .store
                .blob_now(id, range)
                .map_err(|_| BlobError::NotFound(id)),
            Err(error) => self.store.blob_now(id, range).map_err(|_| error),
        }
    }

    /// Lets the blobs go; the rows stay.
    pub(crate) fn release_blobs(&mut self) {
        self.pin = None;
    }
}
