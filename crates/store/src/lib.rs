//! Durable storage behind two traits, [`Tables`] and [`Blobs`], and their embedded engine.
//!
//! Callers never read-modify-write across an await and never sync. They hand over one [`Batch`], a
//! value: preconditions, allocations, operations and staged blobs. `commit(batch)` answering `Ok`
//! means durable, atomic and visible. Batches compose: several domains add to the same batch, and
//! one commit makes all of it true together.
//!
//! Never: a transaction held open across an await, a flush, a mutable blob, a word of mail.

mod apply;
pub mod backup;
pub mod batch;
pub mod blob;
pub mod engine;
pub mod file;
pub mod finding;
pub mod key;
pub mod memory;
mod overlay;
mod relocate;
mod rows;
#[cfg(feature = "simulated-disk")]
pub mod simulated;
pub mod tables;
mod watches;

pub use apply::{
    BATCH_OCTETS_MAX, COMMIT_IDS_REMEMBERED, REF_CHANGES_MAX, REFS_MAX, TOPIC_OCTETS_MAX, VALUE_OCTETS_MAX,
};

pub use batch::{Alloc, Batch, CommitId, Op, Patch, Require, Slot};
pub use blob::{BlobError, BlobId, BlobWriter, Blobs, StagedBlob};
pub use engine::{
    Damage, LogStore, OpenError, Options, Pin, Progress, Scrubbed, Stats, Still, Verified, VerifyError,
    VerifyOptions, Walk, Walked,
};
pub use finding::{Finding, Severity, Tell, Where};
pub use key::{Key, KeyRange, KeyReader};
pub use memory::MemoryStore;
pub use tables::{CommitError, ReadError, Receipt, Seq, Snapshot, Tables, Topic, Versioned, Watch};

/// A future that can be put behind `dyn`.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Both halves of a store; what the rest of the program holds as `Arc<dyn Store>`.
pub trait Store: Tables + Blobs {}
impl<T: Tables + Blobs> Store for T {}
