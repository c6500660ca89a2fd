//! Room kept back for the day when the disk is full.
//!
//! A file of real octets that is cut to nothing when the disk runs full, so that deletions can
//! still be logged and the index can still follow. It is filled again when room returns.
//! Never: a promise of room (other programs may take it first).

use crate::file::{Disk, Open};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Time between attempts to fill the reserve again.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Held {
    released: bool,
    tried: Option<Instant>,
}

/// The reserve of one store.
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    octets: u64,
    held: Mutex<Held>,
}

impl Reserve {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf, octets: u64) -> Self {
        Self {
            disk,
            path,
            octets,
            held: Mutex::default(),
        }
    }

    /// Fills the file of a new store. Meanwhile the reserve counts as whole.
    pub(crate) fn fill_first(&self) -> io::Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = self.fill();
        held.released = filled.is_err();
        filled
    }

    /// Fills the file unless it is filled. The caller holds the lock.
    fn fill(&self) -> io::Result<()> {
        let file = self.disk.open(&self.path, Open::Write)?;
        if file.len()? == self.octets {
            return Ok(());
        }
        // Octets that no file system compresses to nothing.
        let mut word = 0x9e37_79b9_7f4a_7c15_u64;
        let mut block = Vec::with_capacity(64 * 1024);
        let mut offset = 0;
        while offset < self.octets {
            block.clear();
            let len = (self.octets - offset).min(64 * 1024) as usize;
            while block.len() < len {
                word ^= word << 13;
                word ^= word >> 7;
                word ^= word << 17;
                block.extend_from_slice(&word.to_be_bytes());
            }
            if let Err(error) = file.write_all_at(&block[..len], offset) {
                // Half a reserve would only look like a whole one.
                file.set_len(0)?;
                return Err(error);
            }
            offset += len as u64;
        }
        file.sync()
    }

    /// Gives the room away.
    pub(crate) fn release(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.released = true;
        held.tried = Some(Instant::now());
        let cut = self
            .disk
            .open(&self.path, Open::Write)
            .and_then(|file| file.set_len(0));
        if let Err(error) = cut {
            tracing::warn!(%error, "can't give the reserve away");
        }
    }

    /// Whether the room was given away and is not back yet.
    pub(crate) fn is_released(&self) -> bool {
        match self.held.try_lock() {
            Ok(held) => held.released,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().released,
            Err(TryLockError::WouldBlock) => false,
        }
    }

    /// Whether the disk was full and the reserve could not be made whole since. Waits while it is
    /// being filled.
    pub(crate) fn is_given_away(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).released
    }

    /// Whether there is room for new mail: the reserve is whole, or was made whole just now.
    pub(crate) fn is_whole(&self) -> bool {
        let mut held = match self.held.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // It is being filled for the first time; commits don't wait for that.
            Err(TryLockError::WouldBlock) => return true,
        };
        if !held.released {
            return true;
        }
        if held.tried.is_some_and(|tried| tried.elapsed() < RETRY) {
            return false;
        }
        held.tried = Some(Instant::now());
        held.released = self.fill().is_err();
        !held.released
    }
}
