//! A disk in memory that forgets what was not synced, tears what was under way, runs full and
//! fails on request.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use store::file::{Disk, DiskFile, Open};

const SECTOR: usize = 512;

#[derive(Default, Clone, Debug)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
}

/// What happens at an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// This operation fails once.
    Once(ErrorKind),
    /// The power is gone: this operation and all later ones fail.
    PowerLoss,
}

#[derive(Default, Debug)]
struct Inner {
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    files: HashMap<u64, Content>,
    next: u64,
    locked: HashSet<PathBuf>,
    /// Operations that change something, so far.
    operations: u64,
    fault: Option<(u64, Fault)>,
    fail_syncs: bool,
    fail_writes_to: Option<PathBuf>,
    room: Option<usize>,
    no_descriptors: bool,
    panic_at_write_to: Option<PathBuf>,
}

impl Inner {
    fn operation(&mut self) -> Result<()> {
        self.operations += 1;
        match self.fault {
            Some((at, Fault::PowerLoss)) if self.operations >= at => Err(Error::other("no power")),
            Some((at, Fault::Once(kind))) if self.operations == at => Err(kind.into()),
            _ => Ok(()),
        }
    }

    /// Octets that are not zero-filled holes, as a file system would count them.
    fn used(&self) -> usize {
        let named: HashSet<u64> = self.names.values().copied().collect();
        let blocks = |content: &Content| {
            let full = |block: &&[u8]| block.iter().any(|b| *b != 0);
            content.now.chunks(SECTOR).filter(full).count() * SECTOR
        };
        named.iter().map(|id| blocks(&self.files[id])).sum()
    }
}

/// The disk. A clone is the same disk.
#[derive(Clone, Default, Debug)]
pub struct SimDisk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: u64,
}

struct Unlock(SimDisk, PathBuf);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.inner().locked.remove(&self.1);
    }
}

impl SimDisk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub fn operations(&self) -> u64 {
        self.inner().operations
    }

    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.inner().fault = Some((operation, fault));
    }

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

    /// Whether to panic now; asked apart, so that the panic poisons nothing.
    fn panics(&self, id: u64) -> bool {
        let mut inner = self.inner();
        let path = inner.panic_at_write_to.clone();
        let now = path.is_some_and(|path| inner.names.get(&path) == Some(&id));
        if now {
            inner.panic_at_write_to = None;
        }
        now
    }

    /// How many octets may be in use at most.
    pub fn set_room(&self, room: Option<usize>) {
        self.inner().room = room;
    }

    pub fn used(&self) -> usize {
        self.inner().used()
    }

    /// The disk after a power loss. Of what was written but not synced, each sector may have made
    /// it or not (by `seed`; 0: none did); the same for names.
    pub fn after_power_loss(&self, seed: u64) -> SimDisk {
        let inner = self.inner();
        let mut word = seed;
        let mut chance = || {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed);
            word >> 63 == 1
        };
        let mut after = Inner {
            next: inner.next,
            ..Inner::default()
        };
        let all: HashSet<&PathBuf> = inner.names.keys().chain(inner.durable_names.keys()).collect();
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort();
        for path in all {
            let (now, durable) = (inner.names.get(path), inner.durable_names.get(path));
            let kept = if now == durable || chance() { now } else { durable };
            if let Some(id) = kept {
                after.names.insert(path.clone(), *id);
            }
        }
        after.durable_names = after.names.clone();
        for id in after.names.values() {
            let content = &inner.files[id];
            let len_from = if chance() {
                content.now.len()
            } else {
                content.durable.len()
            };
            let mut kept = vec![0; len_from];
            for (i, sector) in kept.chunks_mut(SECTOR).enumerate() {
                let source = if chance() { &content.now } else { &content.durable };
                let from = source.get(i * SECTOR..).unwrap_or_default();
                let n = from.len().min(sector.len());
                sector[..n].copy_from_slice(&from[..n]);
            }
            let content = Content {
                now: kept.clone(),
                durable: kept,
            };
            after.files.insert(*id, content);
        }
        SimDisk(Arc::new(Mutex::new(after)))
    }

    /// The octets of a file.
    pub fn read(&self, path: &Path) -> Vec<u8> {
        let inner = self.inner();
        inner.files[&inner.names[path]].now.clone()
    }

    /// Replaces a file, durably.
    pub fn write(&self, path: &Path, bytes: Vec<u8>) {
        let mut inner = self.inner();
        let id = inner.names[path];
        let durable = bytes.clone();
        inner.files.insert(id, Content { now: bytes, durable });
    }

    /// A copy of everything as it is now, as after the kill of the process.
    pub fn after_kill(&self) -> SimDisk {
        let inner = self.inner();
        let mut after = Inner {
            names: inner.names.clone(),
            durable_names: inner.durable_names.clone(),
            files: inner.files.clone(),
            next: inner.next,
            ..Inner::default()
        };
        after.locked.clear();
        SimDisk(Arc::new(Mutex::new(after)))
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let inner = self.disk.inner();
        let from = inner.files[&self.id]
            .now
            .get(offset as usize..)
            .unwrap_or_default();
        let n = from.len().min(buf.len());
        buf[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        assert!(!self.disk.panics(self.id), "a bug");
        let mut inner = self.disk.inner();
        inner.operation()?;
        if let Some(path) = &inner.fail_writes_to
            && inner.names.get(path) == Some(&self.id)
        {
            return Err(Error::other("this file can't be written"));
        }
        if let Some(room) = inner.room
            && inner.used() + buf.len() > room
        {
            return Err(ErrorKind::StorageFull.into());
        }
        let content = inner.files.get_mut(&self.id).unwrap();
        let end = offset as usize + buf.len();
        if content.now.len() < end {
            content.now.resize(end, 0);
        }
        content.now[offset as usize..end].copy_from_slice(buf);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut inner = self.disk.inner();
        inner.operation()?;
        inner.files.get_mut(&self.id).unwrap().now.resize(len as usize, 0);
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.disk.inner().files[&self.id].now.len() as u64)
    }

    fn sync(&self) -> Result<()> {
        let mut inner = self.disk.inner();
        inner.operation()?;
        if inner.fail_syncs {
            return Err(Error::other("the sync failed"));
        }
        let content = inner.files.get_mut(&self.id).unwrap();
        content.durable = content.now.clone();
        Ok(())
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner();
        if inner.no_descriptors {
            return Err(Error::from_raw_os_error(24));
        }
        let id = match (inner.names.get(path), how) {
            (Some(_), Open::New) => return Err(ErrorKind::AlreadyExists.into()),
            (Some(id), _) => *id,
            (None, Open::Read) => return Err(ErrorKind::NotFound.into()),
            (None, _) => {
                inner.operation()?;
                inner.next += 1;
                let id = inner.next;
                inner.files.insert(id, Content::default());
                inner.names.insert(path.to_owned(), id);
                id
            }
        };
        let disk = self.clone();
        Ok(Arc::new(SimFile { disk, id }))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut inner = self.inner();
        inner.operation()?;
        inner
            .names
            .remove(path)
            .map(|_| ())
            .ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut inner = self.inner();
        inner.operation()?;
        let id = inner.names.remove(from).ok_or(ErrorKind::NotFound)?;
        inner.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn create_dir(&self, _path: &Path) -> Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let inner = self.inner();
        let inside = inner.names.keys().filter(|name| name.parent() == Some(path));
        Ok(inside
            .map(|name| name.file_name().unwrap().to_str().unwrap().to_owned())
            .collect())
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let mut inner = self.inner();
        inner.operation()?;
        let inner = &mut *inner;
        inner.durable_names.retain(|name, _| name.parent() != Some(path));
        let inside = inner.names.iter().filter(|(name, _)| name.parent() == Some(path));
        inner
            .durable_names
            .extend(inside.map(|(name, id)| (name.clone(), *id)));
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Send + Sync>> {
        let mut inner = self.inner();
        if !inner.locked.insert(path.to_owned()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Unlock(self.clone(), path.to_owned())))
    }
}
