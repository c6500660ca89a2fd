//! Backups: one consistent state of a store, in a folder that grows by what is new, or as one
//! stream; and the way back.
//!
//! A backup in a folder is packs of blobs, which never change once they have their name, and one
//! file of rows for each backup. A stream holds both, one behind the other. Both are independent of
//! the engine: entries, counters and blobs, and none of its bookkeeping. docs/BACKUP.md has the
//! bytes.
//!
//! Promises: a backup shows the store as it was after one commit, while commits go on; what is
//! damaged in the store is named and does not stop it; whenever it is interrupted, the backups from
//! before stay whole; restoring finds every flipped bit, gap and cut, and names it. Memory grows
//! with the number of blobs (some 50 octets for each), not with their size.
//! Never: a backup that looks whole and is not; a file in place of another that was good.

mod frame;
mod ids;
mod pack;
mod prune;
mod read;
mod record;
mod restore;
mod rows;
mod write;

pub use frame::{BACKUP_VERSION, NotReadable};
pub use read::{OpenedBackup, Survey, verify};
pub use restore::{RestoreError, RestoreOptions, Restored, restore};
pub use write::{BackupError, Plan, Progress, Report, to_folder, to_stream};

/// Findings that a report names at most; the rest is only counted.
pub const FINDINGS_MAX: usize = 1000;

/// A file of the data folder beside the store: a key, a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataFile {
    /// Its path below the data folder, with `/` between names; no `..`.
    pub path: String,
    /// Its octets.
    pub octets: Vec<u8>,
}

/// What is wrong, in words: the first [`FINDINGS_MAX`], and how many in all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// In words, the first of them.
    pub named: Vec<String>,
    /// How many there are.
    pub count: u64,
}

impl Findings {
    pub(crate) fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.named.len() < FINDINGS_MAX {
            self.named.push(what());
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
