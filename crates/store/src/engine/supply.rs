//! The supply of segments: the next one, made before the log needs it, and dead ones that are
//! kept to become the next.
//!
//! Promises: a segment that is taken is on stable storage, name and length, before a group goes
//! into it; a dead segment is overwritten or removed only while nobody has pinned the log.
//! Never: deciding what is dead (see `applier`), a stall of the log for the removal of a file.

use super::log::Segments;
use crate::blob::BlobId;
use crate::file::DiskFile;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Inner {
    /// The newest segment that the log has: groups stand in it.
    newest: u64,
    /// The next segment, ready for its first group.
    ahead: Option<(u64, Arc<dyn DiskFile>)>,
    /// Dead segments; their files still have their old numbers.
    dead: BTreeSet<u64>,
    /// How many want every file to stay what it is.
    pins: usize,
    /// Large blobs that were dropped while they did.
    dropped: Vec<BlobId>,
}

/// Figures of the supply.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) recycled: AtomicU64,
    pub(crate) removed: AtomicU64,
    pub(crate) waited_for: AtomicU64,
}

/// The supply of one store.
pub(crate) struct Supply {
    segments: Arc<Segments>,
    segment_octets: u64,
    /// Dead segments kept at most.
    spares_max: usize,
    inner: Mutex<Inner>,
    /// Held by whoever removes files or copies blobs, so that a pin can wait for its end.
    at_work: Mutex<()>,
    pub(crate) figures: Figures,
}

impl Supply {
    /// `newest` is the segment in which the log goes on.
    pub(crate) fn new(segments: Arc<Segments>, newest: u64, segment_octets: u64, spares_max: usize) -> Self {
        Self {
            segments,
            segment_octets,
            spares_max,
            inner: Mutex::new(Inner {
                newest,
                ..Inner::default()
            }),
            at_work: Mutex::default(),
            figures: Figures::default(),
        }
    }

    /// The files.
    pub(crate) fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment `number`, empty: the one made ahead, or else one made now.
    pub(crate) fn take(&self, number: u64) -> io::Result<Arc<dyn DiskFile>> {
        // Waits while it is being made ahead: that is sooner than making it here.
        let mut inner = self.inner();
        let file = match inner.ahead.take_if(|(n, _)| *n == number) {
            Some((_, file)) => file,
            None => {
                self.figures.waited_for.fetch_add(1, Ordering::Relaxed);
                self.make(&mut inner, number)?
            }
        };
        inner.newest = number;
        Ok(file)
    }

    /// Makes the segment `number` ready before it is taken, unless the log has it already.
    pub(crate) fn make_ahead(&self, number: u64) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.ahead.is_none() && number > inner.newest {
            let file = self.make(&mut inner, number)?;
            inner.ahead = Some((number, file));
        }
        Ok(())
    }

    fn make(&self, inner: &mut Inner, number: u64) -> io::Result<Arc<dyn DiskFile>> {
        while let Some(old) = inner.dead.first().copied().filter(|_| inner.pins == 0) {
            let recycled = self.segments.recycle(old, number, self.segment_octets);
            match recycled {
                Ok(file) => {
                    inner.dead.remove(&old);
                    self.figures.recycled.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(old, number, "a dead segment becomes the next");
                    return Ok(file);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => inner.dead.remove(&old),
                Err(error) => return Err(error),
            };
        }
        self.segments.prepare(number, 0, self.segment_octets)
    }

    /// Takes segments that have died: nothing in them is needed, not even after a power loss.
    pub(crate) fn bury(&self, segments: impl Iterator<Item = u64>) {
        self.inner().dead.extend(segments);
    }

    /// Removes the dead segments that are more than the log is likely to need. `none`: keeps none,
    /// and has the disk make their room free at once. An error is that of a sync.
    pub(crate) fn remove_surplus(&self, none: bool) -> io::Result<()> {
        let keep = if none { 0 } else { self.spares_max };
        let mut removed = false;
        while let Some(_at_work) = self.work() {
            let surplus = {
                let mut inner = self.inner();
                match inner.dead.len() > keep {
                    true => inner.dead.pop_last(),
                    false => None,
                }
            };
            // Outside of the lock: the log may be waiting for a segment.
            let Some(segment) = surplus else { break };
            self.remove(segment);
            removed = true;
        }
        match removed && none {
            true => self.segments.sync_names(),
            false => Ok(()),
        }
    }

    fn remove(&self, segment: u64) {
        match self.segments.remove(segment) {
            Ok(()) => {
                self.figures.removed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(segment, "removed a segment without live blobs");
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // Found again at the next opening.
            Err(error) => tracing::warn!(segment, %error, "can't remove a dead segment"),
        }
    }

    /// Gives back all that is spare, at a clean end.
    pub(crate) fn give_back(&self) {
        let ahead = self.inner().ahead.take();
        if let Some((segment, _)) = ahead {
            self.remove(segment);
        }
        if let Err(error) = self.remove_surplus(true) {
            tracing::warn!(%error, "dead segments may come back");
        }
    }

    /// Held during work that must not happen while the log is pinned; `None`: it is pinned.
    pub(crate) fn work(&self) -> Option<MutexGuard<'_, ()>> {
        let at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        (self.inner().pins == 0).then_some(at_work)
    }

    /// From now on every file of the log stays what it is, but for groups appended to the newest.
    pub(crate) fn pin(&self) {
        self.inner().pins += 1;
        // What is under way comes to its end.
        drop(self.at_work.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether the log is pinned.
    pub(crate) fn is_pinned(&self) -> bool {
        self.inner().pins > 0
    }

    /// Takes back one [`Supply::pin`]. Behind the last one: the large blobs that were dropped
    /// meanwhile, whose files are to go now.
    pub(crate) fn unpin(&self) -> Vec<BlobId> {
        let mut inner = self.inner();
        inner.pins = inner.pins.saturating_sub(1);
        match inner.pins {
            0 => std::mem::take(&mut inner.dropped),
            _ => Vec::new(),
        }
    }

    /// Which files of dropped large blobs may go now; the others are kept in mind.
    pub(crate) fn may_go(&self, dropped: Vec<BlobId>) -> Vec<BlobId> {
        let mut inner = self.inner();
        if inner.pins == 0 {
            return dropped;
        }
        inner.dropped.extend(dropped);
        Vec::new()
    }
}
