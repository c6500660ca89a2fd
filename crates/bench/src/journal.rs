//! The one file that the bare receiver and the disk probe write to.
//!
//! Promises: after [`Journal::commit`] the octets have been handed to the device with one fdatasync.
//! Never: anything a store would need to read them again; this measures the way to the disk, no more.

use crate::problem::{Outcome, Trying};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// How the file grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// Each write makes the file longer, so each sync also writes the file system's journal.
    Append,
    /// The file has its length and its blocks from the start and is written over round and round.
    Recycle {
        /// Octets of the file.
        octets: u64,
    },
}

/// The open file.
#[derive(Debug)]
pub struct Journal {
    file: File,
    at: u64,
    growth: Growth,
}

impl Journal {
    /// Makes the file anew at `path`.
    ///
    /// # Errors
    /// When it cannot be made, filled or synced.
    pub fn create(path: &Path, growth: Growth) -> Outcome<Self> {
        let what = || path.display().to_string();
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(path)
            .trying(what)?;
        if let Growth::Recycle { octets } = growth {
            let zeros = vec![0; 1 << 20];
            let mut at = 0;
            while at < octets {
                let part = zeros.len().min((octets - at) as usize);
                file.write_all_at(&zeros[..part], at).trying(what)?;
                at += part as u64;
            }
        }
        file.sync_all().trying(what)?;
        Ok(Self { file, at: 0, growth })
    }

    /// Writes `octets` and syncs once.
    ///
    /// # Errors
    /// When the disk refuses: the octets are then not safe.
    pub fn commit(&mut self, mut octets: &[u8]) -> std::io::Result<()> {
        while !octets.is_empty() {
            let mut part = octets.len();
            if let Growth::Recycle { octets: length } = self.growth {
                if self.at >= length {
                    self.at = 0;
                }
                part = part.min((length - self.at) as usize);
            }
            self.file.write_all_at(&octets[..part], self.at)?;
            self.at += part as u64;
            octets = &octets[part..];
        }
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appending_grows_and_recycling_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let grown = folder.path().join("grown");
        let mut journal = Journal::create(&grown, Growth::Append).unwrap();
        journal.commit(b"one").unwrap();
        journal.commit(b"two").unwrap();
        assert_eq!(std::fs::read(&grown).unwrap(), b"onetwo");

        let round = folder.path().join("round");
        let mut journal = Journal::create(&round, Growth::Recycle { octets: 4 }).unwrap();
        journal.commit(b"abc").unwrap();
        journal.commit(b"def").unwrap();
        assert_eq!(std::fs::read(&round).unwrap(), b"efcd");
    }
}
