//! Blobs: immutable byte strings (messages), written once and referred to by entries.

use crate::BoxFuture;
use bytes::Bytes;
use std::fmt;
use std::ops::Range;

/// Names a blob. Assigned when it is staged; never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId(pub [u8; 16]);

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl BlobId {
    /// Reads the 32 hexadecimal digits that `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        let mut id = [0u8; 16];
        for (i, slot) in id.iter_mut().enumerate() {
            *slot = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
        }
        Some(Self(id))
    }
}

/// A blob that was written but is not part of anything yet. It vanishes unless a batch takes it.
pub struct StagedBlob {
    /// The name under which it can be read once committed.
    pub id: BlobId,
    /// Its length in octets.
    pub len: u64,
    pub(crate) body: StagedBody,
}

/// Where a staged blob's bytes are.
pub(crate) enum StagedBody {
    /// In memory; they go into the log with the batch's record.
    Inline(Bytes),
    /// In a file of their own that was synced already; dropped with the file unless committed.
    File(crate::engine::StagedFile),
}

impl fmt::Debug for StagedBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StagedBlob({}, {} octets)", self.id, self.len)
    }
}

/// Why a blob could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// No blob of that name (any more).
    #[error("blob {0} is not in the store")]
    NotFound(BlobId),
    /// The bytes on disk are not the bytes that were written.
    #[error("blob {0} is damaged: its checksum does not match")]
    Corrupt(BlobId),
    /// No room on the disk.
    #[error("the disk is full")]
    Full,
    /// The disk failed.
    #[error("the disk failed: {0}")]
    Io(String),
}

/// Writes one blob piece by piece.
pub trait BlobWriter: Send {
    /// Appends bytes.
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), BlobError>>;
    /// Ends the blob. A large one is on stable storage when this returns.
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<StagedBlob, BlobError>>;
}

/// The blob half of a store.
pub trait Blobs: Send + Sync {
    /// Starts a blob. `len_hint` is what the caller expects, in octets; any length may follow.
    fn stage(&self, len_hint: u64) -> BoxFuture<'_, Result<Box<dyn BlobWriter>, BlobError>>;

    /// Reads octets of a committed blob; a range beyond its end is cut. The checksum is verified.
    fn read(&self, id: BlobId, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, BlobError>>;
}
