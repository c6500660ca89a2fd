//! A disk in memory that forgets what was not synced, tears what was under way, runs full and
//! fails on request; for tests and for the proof of power loss (docs/DURABILITY.md).
//!
//! The model. What survives a cut of the power:
//! - the octets and the length of a file as they were at its last good `sync`: always;
//! - of everything written since: any subset of its 512-octet sectors, in any order, each in any
//!   version that it had since; a sector is never torn in itself;
//! - a change of a file's length: made or not, whether its octets are kept or not; octets that came
//!   neither way are zeros;
//! - the names in a folder (of files and of folders) as they were at the folder's last `sync_dir`:
//!   always; each change of a name since (made, given to another file, removed): made or not, each
//!   for itself, so that a renamed file may have both names or none;
//! - after a failed `sync`: of what it was asked for any subset, and no later sync repairs that.
//!
//! A failed write leaves any beginning of its octets. A file's last handle keeps its room.
//!
//! Never: a drive that answers a flush without one (but for [`Sabotage`]), octets of one file in
//! another, decay of what was synced, a sector that is half new.

mod content;
mod dice;
mod names;
mod octets;

use crate::file::{Disk, DiskFile, Open};
use content::{Content, Keeping};
pub use dice::Dice;
use names::{Names, Node};
use octets::{Octets, PAGE, SECTOR};
use std::collections::{BTreeMap, HashSet};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What happens at an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// This operation fails once.
    Once(ErrorKind),
    /// The power is gone: this operation and all later ones fail.
    PowerLoss,
}

/// How the disk breaks its promise, so that a proof can be seen to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// `sync` answers well and does nothing.
    DropSync,
    /// `sync_dir` answers well and does nothing.
    DropDirSync,
    /// `sync` answers well when a part has landed; the rest lands with the next one.
    Reorder,
}

type Alarm = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Inner {
    names: Names,
    files: BTreeMap<u64, Content>,
    handles: BTreeMap<u64, usize>,
    next: u64,
    locked: HashSet<PathBuf>,
    /// Operations that change something, so far.
    operations: u64,
    trace: u32,
    fault: Option<(u64, Fault)>,
    fail_syncs: bool,
    fail_writes_to: Option<PathBuf>,
    room: Option<usize>,
    no_descriptors: bool,
    panic_at_write_to: Option<PathBuf>,
    sabotage: Option<Sabotage>,
    alarm: Option<Alarm>,
}

impl Inner {
    /// Counts an operation, and fails it when its time has come.
    fn operation(&mut self, what: &str, about: u64) -> Result<()> {
        self.operations += 1;
        self.trace = crc32c::crc32c_append(self.trace, what.as_bytes());
        self.trace = crc32c::crc32c_append(self.trace, &about.to_be_bytes());
        match self.fault {
            Some((at, Fault::PowerLoss)) if self.operations >= at => {
                if let Some(alarm) = self.alarm.take() {
                    alarm();
                }
                Err(Error::other("no power"))
            }
            Some((at, Fault::Once(kind))) if self.operations == at => Err(kind.into()),
            _ => Ok(()),
        }
    }

    /// Octets of room that files take, holes not counted.
    fn used(&self) -> usize {
        self.files.values().map(|file| file.now.room()).sum()
    }

    /// How much of a write has room.
    fn room_for(&self, id: u64, octets: usize, offset: u64) -> usize {
        let (Some(room), Some(file)) = (self.room, self.files.get(&id)) else {
            return octets;
        };
        let mut free = room.saturating_sub(self.used());
        let (first, end) = (offset as usize / PAGE, (offset as usize + octets).div_ceil(PAGE));
        for page in first..end {
            if file.now.has_page(page) {
                continue;
            }
            if free < PAGE {
                return (page * PAGE).saturating_sub(offset as usize);
            }
            free -= PAGE;
        }
        octets
    }

    /// Forgets files that have no name and no handle, and could not get a name back by a cut.
    fn sweep(&mut self) {
        let named = self.names.files();
        let handles = &self.handles;
        self.files
            .retain(|id, _| named.contains(id) || handles.contains_key(id));
    }

    fn file(&mut self, id: u64) -> Result<&mut Content> {
        self.files.get_mut(&id).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn of_path(&self, path: &Path) -> Option<&Content> {
        match self.names.now(path) {
            Some(Node::File(id)) => self.files.get(&id),
            _ => None,
        }
    }
}

/// The disk. A clone is the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<Inner>>);

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimDisk({} operations)", self.operations())
    }
}

impl SimDisk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Operations so far: writes, changes of length and of names, syncs.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// A checksum over all operations so far with their octets: equal traces, equal runs.
    #[must_use]
    pub fn trace(&self) -> u32 {
        self.inner().trace
    }

    /// Lets the operation with this number, counted from 1, meet a fault.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.inner().fault = Some((operation, fault));
    }

    /// Whether the power is gone.
    #[must_use]
    pub fn has_lost_power(&self) -> bool {
        let inner = self.inner();
        matches!(inner.fault, Some((at, Fault::PowerLoss)) if inner.operations >= at)
    }

    /// Calls this once when the power goes. It must not ask the disk for anything.
    pub fn at_power_loss(&self, alarm: impl Fn() + Send + Sync + 'static) {
        self.inner().alarm = Some(Arc::new(alarm));
    }

    /// Breaks the disk's promise from now on, also behind a cut.
    pub fn sabotage(&self, how: Option<Sabotage>) {
        self.inner().sabotage = how;
    }

    /// Every sync fails, or none does.
    pub fn fail_syncs(&self, fail: bool) {
        self.inner().fail_syncs = fail;
    }

    /// Writes to this file fail.
    pub fn fail_writes_to(&self, path: Option<&Path>) {
        self.inner().fail_writes_to = path.map(Path::to_owned);
    }

    /// Nothing can be opened, as when the process has no descriptor left.
    pub fn withhold_descriptors(&self, withhold: bool) {
        self.inner().no_descriptors = withhold;
    }

    /// The next write to this file panics, as a bug above the disk would.
    pub fn panic_at_write_to(&self, path: &Path) {
        self.inner().panic_at_write_to = Some(path.to_owned());
    }

    /// How many octets may be in use at most.
    pub fn set_room(&self, room: Option<usize>) {
        self.inner().room = room;
    }

    /// How many octets are in use; holes are not.
    #[must_use]
    pub fn used(&self) -> usize {
        self.inner().used()
    }

    /// The disk after a power loss. What is kept of what was not synced, `seed` says; 0 keeps
    /// nothing of it.
    #[must_use]
    pub fn after_power_loss(&self, seed: u64) -> SimDisk {
        let inner = self.inner();
        let mut dice = Dice::new(seed);
        let mut after = Inner {
            next: inner.next,
            sabotage: inner.sabotage,
            ..Inner::default()
        };
        after.names = inner.names.after_cut(Keeping::of(seed, &mut dice), &mut dice);
        for id in after.names.files() {
            if let Some(content) = inner.files.get(&id) {
                let kept = content.after_cut(Keeping::of(seed, &mut dice), &mut dice);
                after.files.insert(id, Content::durable(kept));
            }
        }
        SimDisk(Arc::new(Mutex::new(after)))
    }

    /// A copy of everything as it is now, as after the end of the process without one of the
    /// power: what was not synced still isn't.
    #[must_use]
    pub fn after_kill(&self) -> SimDisk {
        let inner = self.inner();
        let mut after = Inner {
            names: inner.names.clone(),
            files: inner.files.clone(),
            next: inner.next,
            sabotage: inner.sabotage,
            ..Inner::default()
        };
        after.sweep();
        SimDisk(Arc::new(Mutex::new(after)))
    }

    /// The octets of a file; none when it is not there.
    #[must_use]
    pub fn read(&self, path: &Path) -> Vec<u8> {
        let inner = self.inner();
        inner.of_path(path).map(|file| file.now.all()).unwrap_or_default()
    }

    /// Replaces the octets of a file that is there, durably.
    pub fn write(&self, path: &Path, bytes: &[u8]) {
        let mut inner = self.inner();
        if let Some(Node::File(id)) = inner.names.now(path) {
            let mut octets = Octets::default();
            octets.write(bytes, 0);
            inner.files.insert(id, Content::durable(octets));
        }
    }

    /// Every file with its octets, to look at from outside.
    #[must_use]
    pub fn all_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let inner = self.inner();
        let names = inner.names.all().into_iter();
        names
            .filter_map(|path| Some((path.clone(), inner.of_path(&path)?.now.all())))
            .collect()
    }

    /// Whether to panic now; asked apart, so that the panic poisons nothing.
    fn panics(&self, id: u64) -> bool {
        let mut inner = self.inner();
        let now = inner
            .panic_at_write_to
            .as_ref()
            .is_some_and(|path| inner.names.now(path) == Some(Node::File(id)));
        if now {
            inner.panic_at_write_to = None;
        }
        now
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: u64,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut inner = self.disk.inner();
        if let Some(handles) = inner.handles.get_mut(&self.id) {
            *handles -= 1;
            if *handles == 0 {
                inner.handles.remove(&self.id);
                inner.sweep();
            }
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        Ok(self.disk.inner().file(self.id)?.now.read(buf, offset))
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        assert!(!self.disk.panics(self.id), "a bug");
        let mut inner = self.disk.inner();
        let failed = inner.operation("write", self.id ^ offset.rotate_left(32)).err();
        inner.trace = crc32c::crc32c_append(inner.trace, buf);
        if let Some(path) = &inner.fail_writes_to
            && inner.names.now(path) == Some(Node::File(self.id))
        {
            return Err(Error::other("this file can't be written"));
        }
        if let Some(error) = failed {
            // What was written of it before it failed.
            let sectors = buf.len().div_ceil(SECTOR) as u64 + 1;
            let n = (Dice::new(inner.operations).below(sectors) as usize * SECTOR).min(buf.len());
            if n > 0 {
                inner.file(self.id)?.write(&buf[..n], offset);
            }
            return Err(error);
        }
        let room = inner.room_for(self.id, buf.len(), offset);
        if room > 0 {
            inner.file(self.id)?.write(&buf[..room], offset);
        }
        match room < buf.len() {
            true => Err(ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut inner = self.disk.inner();
        inner.operation("set_len", self.id ^ len.rotate_left(32))?;
        inner.file(self.id)?.set_len(len);
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.disk.inner().file(self.id)?.now.len())
    }

    fn sync(&self) -> Result<()> {
        let mut inner = self.disk.inner();
        let done = inner.operation("sync", self.id);
        let power = !matches!(inner.fault, Some((at, Fault::PowerLoss)) if inner.operations >= at);
        let (fails, sabotage) = (inner.fail_syncs, inner.sabotage);
        let mut dice = Dice::new(inner.operations);
        let file = inner.file(self.id)?;
        if power && (fails || done.is_err()) {
            file.fail_sync();
        }
        done?;
        if fails {
            return Err(Error::other("the sync failed"));
        }
        match sabotage {
            Some(Sabotage::DropSync) => {}
            Some(Sabotage::Reorder) => file.sync_in_part(&mut dice),
            _ => file.sync(),
        }
        Ok(())
    }
}

struct Unlock(SimDisk, PathBuf);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.inner().locked.remove(&self.1);
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner();
        if inner.no_descriptors {
            return Err(Error::from_raw_os_error(24));
        }
        let id = match (inner.names.now(path), how) {
            (Some(Node::Folder), _) => return Err(ErrorKind::IsADirectory.into()),
            (Some(_), Open::New) => return Err(ErrorKind::AlreadyExists.into()),
            (Some(Node::File(id)), _) => id,
            (None, Open::Read) => return Err(ErrorKind::NotFound.into()),
            (None, _) => {
                let id = inner.next + 1;
                inner.operation("create", id)?;
                inner.next = id;
                inner.names.change(path, Some(Node::File(id)))?;
                inner.files.insert(id, Content::default());
                id
            }
        };
        *inner.handles.entry(id).or_default() += 1;
        let disk = self.clone();
        Ok(Arc::new(SimFile { disk, id }))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut inner = self.inner();
        inner.operation("remove", 0)?;
        inner.names.now(path).ok_or(ErrorKind::NotFound)?;
        inner.names.change(path, None)?;
        inner.sweep();
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut inner = self.inner();
        inner.operation("rename", 0)?;
        let node = inner.names.now(from).ok_or(ErrorKind::NotFound)?;
        inner.names.change(to, Some(node))?;
        inner.names.change(from, None)?;
        inner.sweep();
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        let mut inner = self.inner();
        let mut missing: Vec<&Path> = path
            .ancestors()
            .take_while(|folder| inner.names.now(folder).is_none())
            .filter(|folder| folder.parent().is_some() && !folder.as_os_str().is_empty())
            .collect();
        while let Some(folder) = missing.pop() {
            inner.operation("create_dir", 0)?;
            inner.names.change(folder, Some(Node::Folder))?;
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        Ok(self.inner().names.list(path))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let mut inner = self.inner();
        inner.operation("sync_dir", 0)?;
        if inner.fail_syncs {
            return Err(Error::other("the sync failed"));
        }
        if inner.sabotage != Some(Sabotage::DropDirSync) && inner.sabotage != Some(Sabotage::DropSync) {
            inner.names.sync(path);
            inner.sweep();
        }
        Ok(())
    }

    fn room(&self, _path: &Path) -> Result<u64> {
        let inner = self.inner();
        let left = |room: usize| room.saturating_sub(inner.used()) as u64;
        Ok(inner.room.map_or(u64::MAX, left))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Send + Sync>> {
        let mut inner = self.inner();
        if !inner.locked.insert(path.to_owned()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Unlock(self.clone(), path.to_owned())))
    }
}
