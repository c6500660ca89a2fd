//! The segment files of the log: appending groups, and finding them again after a crash.
//!
//! Promises: a group is acknowledged to the caller only behind its sync; recovery takes groups in
//! order up to the first one that was never acknowledged, and tells a torn tail (normal after a
//! crash) from damage in front of acknowledged groups. Never: knowing what rows mean.

use super::group::{ALIGN, Group, HEADER, Header, Position};
use super::supply::Supply;
use super::{Damage, OpenError};
use crate::file::{Disk, DiskFile, Open, is_full, is_out_of_descriptors};
use bytes::Bytes;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Segment files held open for reading at most.
const OPEN_SEGMENTS_MAX: usize = 128;

/// The folder of segments.
#[derive(Debug)]
pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    open: Mutex<HashMap<u64, Arc<dyn DiskFile>>>,
    /// How many files have been given another number, so that they may be overwritten.
    recycled: AtomicU64,
}

impl Segments {
    pub(crate) fn new(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Self {
            disk,
            folder,
            open: Mutex::default(),
            recycled: AtomicU64::new(0),
        }
    }

    /// How many files were recycled so far. Who finds the same number before it looks a place up
    /// and after it has read there knows that no octet of it was overwritten meanwhile.
    pub(crate) fn recycled(&self) -> u64 {
        self.recycled.load(Ordering::SeqCst)
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.folder.join(format!("{segment:016x}.log"))
    }

    /// The numbers of the segments that exist, in order.
    pub(crate) fn list(&self) -> io::Result<Vec<u64>> {
        let names = self.disk.list(&self.folder)?;
        let numbers = names.iter().filter_map(|name| {
            let digits = name.strip_suffix(".log").filter(|d| d.len() == 16)?;
            u64::from_str_radix(digits, 16).ok()
        });
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// A segment for reading.
    pub(crate) fn read(&self, segment: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&segment) {
            return Ok(file.clone());
        }
        let file = self.disk.open(&self.path(segment), Open::Read)?;
        if open.len() >= OPEN_SEGMENTS_MAX
            && let Some(any) = open.keys().next().copied()
        {
            open.remove(&any);
        }
        open.insert(segment, file.clone());
        Ok(file)
    }

    /// Removes a segment's file. Readers that hold it open may go on.
    pub(crate) fn remove(&self, segment: u64) -> io::Result<()> {
        self.forget(segment);
        self.disk.remove(&self.path(segment))
    }

    /// Octets of room that are left on the log's disk.
    pub(crate) fn room(&self) -> io::Result<u64> {
        self.disk.room(&self.folder)
    }

    fn forget(&self, segment: u64) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&segment);
    }

    /// Opens a segment for appending at `offset`: what lies behind is cut off, room up to
    /// `octets` is set aside (as far as the file system does that for a longer file), and file,
    /// length and name are on stable storage when this returns.
    pub(crate) fn prepare(&self, segment: u64, offset: u64, octets: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(&self.path(segment), Open::Write)?;
        file.set_len(offset)?;
        file.set_len(octets.max(offset))?;
        file.sync()?;
        self.sync_names()?;
        Ok(file)
    }

    /// Makes the file of the dead segment `old` the empty segment `new`, whose octets are written
    /// over the old ones: a sync of blocks that were written before is the cheapest there is. The
    /// groups that stand in it bear the old number, so they are none of the new segment's.
    /// `NotFound` when the old one is gone.
    pub(crate) fn recycle(&self, old: u64, new: u64, octets: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(&self.path(old), Open::Write)?;
        self.recycled.fetch_add(1, Ordering::SeqCst);
        self.disk.rename(&self.path(old), &self.path(new))?;
        // Behind the rename: who opens the old number from now on finds nothing.
        self.forget(old);
        let len = file.len()?;
        if len < octets || len / 2 > octets {
            file.set_len(octets)?;
        }
        file.sync()?;
        self.sync_names()?;
        Ok(file)
    }

    /// A name that is not durable would take acknowledged groups along, and a second attempt could
    /// claim what the first one lost: this must not look like a disk that is merely full.
    pub(crate) fn sync_names(&self) -> io::Result<()> {
        let synced = self.disk.sync_dir(&self.folder);
        synced.map_err(|error| io::Error::other(format!("syncing the log's folder failed: {error}")))
    }
}

/// Why a group was not written.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// No room; nothing of it will be seen again.
    Full,
    /// The log can't be trusted any more.
    Fatal(io::Error),
}

/// The end of the log, where groups are appended. One thread owns it.
pub(crate) struct Writer {
    supply: Arc<Supply>,
    segment_octets: u64,
    file: Arc<dyn DiskFile>,
    at: Position,
    /// The newest segment that was asked for ahead of time.
    wanted: u64,
}

impl Writer {
    /// Makes the log ready for appending at `at`.
    pub(crate) fn open(
        segments: &Segments,
        supply: Arc<Supply>,
        at: Position,
        segment_octets: u64,
    ) -> io::Result<Self> {
        let file = segments.prepare(at.segment, at.offset, segment_octets)?;
        Ok(Self {
            supply,
            segment_octets,
            file,
            at,
            wanted: at.segment,
        })
    }

    /// Where the next group will stand.
    pub(crate) fn position(&self) -> Position {
        self.at
    }

    /// The next segment, told once, when it is time to prepare it: a quarter of this one is full.
    pub(crate) fn wants(&mut self) -> Option<u64> {
        let next = self.at.segment + 1;
        if self.wanted == next || self.at.offset < self.segment_octets / 4 {
            return None;
        }
        self.wanted = next;
        Some(next)
    }

    /// Goes on to the next segment when this one is full. To be called between groups; a group
    /// may reach beyond a segment's nominal size, so that it never has to be split, and so may
    /// groups while the system has no descriptor to give.
    pub(crate) fn rotate(&mut self) -> Result<(), AppendError> {
        if self.at.offset < self.segment_octets {
            return Ok(());
        }
        let next = self.at.segment + 1;
        match self.supply.take(next) {
            Ok(file) => self.file = file,
            Err(error) if is_full(&error) => return Err(AppendError::Full),
            // A crowd of connections must not stop the store: this segment grows until there is one.
            Err(error) if is_out_of_descriptors(&error) => {
                tracing::warn!(%error, "no descriptor for the next segment; going on in this one");
                return Ok(());
            }
            Err(error) => return Err(AppendError::Fatal(error)),
        }
        (self.at.segment, self.at.offset) = (next, 0);
        Ok(())
    }

    /// Writes a group at the position and syncs. `end` is the position behind it.
    pub(crate) fn append(&mut self, group: &[u8], end: Position) -> Result<(), AppendError> {
        match self.file.write_all_at(group, self.at.offset) {
            Ok(()) => {}
            Err(error) if is_full(&error) => return Err(AppendError::Full),
            Err(error) => return Err(AppendError::Fatal(error)),
        }
        self.file.sync().map_err(AppendError::Fatal)?;
        self.at = end;
        Ok(())
    }

    /// Gives back the room set aside behind the last group; for a clean end.
    pub(crate) fn trim(&self) -> io::Result<()> {
        self.file.set_len(self.at.offset)
    }
}

/// Reads groups in order, for recovery.
pub(crate) struct Replay<'a> {
    segments: &'a Segments,
    store: u64,
    at: Position,
    /// Go on behind damage instead of answering an error.
    skip_damage: bool,
    /// Groups that were skipped, or whose blobs are damaged.
    pub(crate) damage: Vec<Damage>,
    /// Octets of the groups that were taken.
    pub(crate) octets: u64,
    /// The last group that was answered, and its octets.
    last: Option<(Position, u64)>,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(segments: &'a Segments, store: u64, at: Position, skip_damage: bool) -> Self {
        Self {
            segments,
            store,
            at,
            skip_damage,
            damage: Vec::new(),
            octets: 0,
            last: None,
        }
    }

    /// Where the next group is looked for; after the last one, the end of the log.
    pub(crate) fn position(&self) -> Position {
        self.at
    }

    /// The next acknowledged group; `None` at the end of the log.
    pub(crate) fn next_group(&mut self) -> Result<Option<Group>, OpenError> {
        loop {
            let next_segment = Position {
                segment: self.at.segment + 1,
                offset: 0,
                ..self.at
            };
            for at in [self.at, next_segment] {
                let Some((header, group)) = self.group_at(at.segment, at.offset)? else {
                    continue;
                };
                if !header.follows(&at, self.store) {
                    continue;
                }
                if !group.blobs_good {
                    // With a later group behind it this one was acknowledged; without one it is
                    // the torn end of a crash.
                    if self.later_group(&header.end())?.is_none() {
                        return Ok(None);
                    }
                    self.damage.push(Damage {
                        segment: at.segment,
                        offset: at.offset,
                        what: "a blob in this group is damaged",
                    });
                }
                self.last = Some((at, header.padded()));
                self.at = header.end();
                self.octets += header.padded();
                return Ok(Some(group));
            }
            let Some(later) = self.later_group(&self.at)? else {
                return Ok(None);
            };
            let damage = Damage {
                segment: self.at.segment,
                offset: self.at.offset,
                what: "acknowledged groups are unreadable from here",
            };
            if !self.skip_damage {
                return Err(OpenError::Damaged(damage));
            }
            self.damage.push(damage);
            self.at = later;
        }
    }

    /// At the end of the log: how many batches the group has that was begun here and is not whole.
    pub(crate) fn begun(&self) -> Result<Option<u32>, OpenError> {
        let Some(file) = self.open(self.at.segment)? else {
            return Ok(None);
        };
        let mut head = [0; HEADER];
        if !read_up_to(&*file, &mut head, self.at.offset)? {
            return Ok(None);
        }
        let header =
            Header::parse(&head).filter(|h| h.stands_at(self.at.segment, self.at.offset, self.store));
        Ok(header
            .filter(|h| h.follows(&self.at, self.store))
            .map(|h| h.batches))
    }

    /// Makes sure that the last group is on the disk: alone of all, its own sync may have failed,
    /// and then its octets may be in memory only.
    pub(crate) fn write_last_again(&self) -> io::Result<()> {
        let Some((at, octets)) = self.last else {
            return Ok(());
        };
        let file = self
            .segments
            .disk
            .open(&self.segments.path(at.segment), Open::Write)?;
        write_again(&*file, at.offset, octets as usize)
    }

    fn open(&self, segment: u64) -> Result<Option<Arc<dyn DiskFile>>, OpenError> {
        match self.segments.read(segment) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The group at a place, when header and rows are whole.
    fn group_at(&self, segment: u64, offset: u64) -> Result<Option<(Header, Group)>, OpenError> {
        let Some(file) = self.open(segment)? else {
            return Ok(None);
        };
        let mut head = [0; HEADER];
        if !read_up_to(&*file, &mut head, offset)? {
            return Ok(None);
        }
        let Some(header) = Header::parse(&head).filter(|h| h.stands_at(segment, offset, self.store)) else {
            return Ok(None);
        };
        let mut bytes = vec![0; header.padded() as usize];
        if !read_up_to(&*file, &mut bytes, offset)? {
            return Ok(None);
        }
        Ok(Group::parse(&header, &Bytes::from(bytes)).map(|group| (header, group)))
    }

    /// The first whole group at or behind `from` that is not older than what `from` expects.
    /// Since one group is written and synced before the next is begun, whatever stands in front
    /// of it was acknowledged. The store's number in the header keeps octets that a stranger put
    /// into a message from being taken for a group.
    fn later_group(&self, from: &Position) -> Result<Option<Position>, OpenError> {
        let numbers = self.segments.list()?;
        for segment in numbers.into_iter().filter(|n| *n >= from.segment) {
            let Some(file) = self.open(segment)? else { continue };
            let start = if segment == from.segment { from.offset } else { 0 };
            let ours = |header: &Header, at| header.stands_at(segment, at, self.store);
            for offset in header_places(&*file, start, ours)? {
                let Some((header, _)) = self.group_at(segment, offset)? else {
                    continue;
                };
                if header.first_seq >= from.next_seq {
                    return Ok(Some(Position {
                        segment,
                        offset,
                        next_seq: header.first_seq,
                        chain: header.chain,
                    }));
                }
            }
        }
        Ok(None)
    }
}

/// Fills `buf` from `offset`; `false` when the file ends before.
pub(crate) fn read_up_to(file: &dyn DiskFile, buf: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(buf, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Offsets from `start` at which a header stands that is `ours`.
pub(crate) fn header_places(
    file: &dyn DiskFile,
    start: u64,
    ours: impl Fn(&Header, u64) -> bool,
) -> io::Result<Vec<u64>> {
    const WINDOW: usize = 1024 * 1024;
    let mut places = Vec::new();
    let mut window = vec![0; WINDOW];
    let mut offset = start.next_multiple_of(ALIGN);
    loop {
        let mut filled = 0;
        while filled < WINDOW {
            match file.read_at(&mut window[filled..], offset + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        for (i, block) in window[..filled].chunks(ALIGN as usize).enumerate() {
            let at = offset + i as u64 * ALIGN;
            if Header::parse(block).is_some_and(|header| ours(&header, at)) {
                places.push(at);
            }
        }
        if filled < WINDOW {
            return Ok(places);
        }
        offset += WINDOW as u64;
    }
}

/// Writes octets once more as they are, and syncs. After a sync that failed, the system may count
/// octets as written that are only in its memory, and no later sync alone would put them on the
/// disk. On a full disk whose file system never writes in place the sync has to do.
pub(crate) fn write_again(file: &dyn DiskFile, offset: u64, octets: usize) -> io::Result<()> {
    let mut bytes = vec![0; octets];
    file.read_exact_at(&mut bytes, offset)?;
    match file.write_all_at(&bytes, offset) {
        Err(error) if is_full(&error) => {}
        written => written?,
    }
    file.sync()
}

/// Makes what was replayed durable: after a mere crash of the process the octets may still be in
/// the page cache only.
pub(crate) fn sync_replayed(segments: &Segments, folder: &Path, from: u64, to: u64) -> io::Result<()> {
    for segment in from..=to {
        match segments.disk.open(&segments.path(segment), Open::Read) {
            Ok(file) => file.sync()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    segments.disk.sync_dir(folder)
}
