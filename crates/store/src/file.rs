//! The one file layer: everything that the engine asks of a disk.
//!
//! [`RealDisk`] is the operating system's. A simulated disk implements the same two traits and can
//! forget unsynced data, tear writes, or run full. Promises of an implementation: after
//! [`DiskFile::sync`] the file's octets and length survive power loss; after [`Disk::sync_dir`] so
//! do the names in the folder. Never: a cache, a retry (the caller decides what a failure means).

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// How to open a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// It must exist; for reading.
    Read,
    /// For reading and writing; created empty when absent.
    Write,
    /// It must not exist; for reading and writing.
    New,
}

/// An open file, read and written at offsets.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads at most `buf.len()` octets; 0 at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;
    /// Writes all octets, or fails having written any part of them.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()>;
    /// Cuts or extends with zeros.
    fn set_len(&self, len: u64) -> Result<()>;
    /// Length in octets.
    fn len(&self) -> Result<u64>;
    /// Whether there are no octets.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Octets and length reach stable storage before this returns (fdatasync).
    fn sync(&self) -> Result<()>;

    /// Reads exactly `buf.len()` octets.
    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
        while !buf.is_empty() {
            match self.read_at(buf, offset) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    buf = &mut buf[n..];
                    offset += n as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A disk: files in folders.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn DiskFile>>;
    /// Removes a file's name.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Gives a file another name in the same folder, in the place of the file that had it.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Makes a folder and those above it; no error when it is there.
    fn create_dir(&self, path: &Path) -> Result<()>;
    /// The names in a folder, in no order. Names that are not UTF-8 are left out.
    fn list(&self, path: &Path) -> Result<Vec<String>>;
    /// The names in a folder reach stable storage before this returns.
    fn sync_dir(&self, path: &Path) -> Result<()>;
    /// Octets of room that are left for files in a folder.
    fn room(&self, path: &Path) -> Result<u64>;
    /// Takes the exclusive lock on a file (created when absent), held until the value is dropped.
    /// `WouldBlock` when someone else, in this process or another, holds it.
    fn lock(&self, path: &Path) -> Result<Box<dyn Send + Sync>>;
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl DiskFile for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        FileExt::read_at(self, buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        FileExt::write_all_at(self, buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        File::set_len(self, len)
    }

    fn len(&self) -> Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> Result<()> {
        self.sync_data()
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match how {
            Open::Read => {}
            Open::Write => {
                options.write(true).create(true).truncate(false);
            }
            Open::New => {
                options.write(true).create_new(true);
            }
        }
        private(&mut options);
        Ok(Arc::new(options.open(path)?))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to)
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        File::open(path)?.sync_all()
    }

    fn room(&self, path: &Path) -> Result<u64> {
        let found = rustix::fs::statvfs(path)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Send + Sync>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        private(&mut options);
        let file = options.open(path)?;
        file.try_lock().map_err(Error::from)?;
        Ok(Box::new(file))
    }
}

/// Mail is for its owner: files are not readable by others.
fn private(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

/// Syncs the names in a folder, and the folder's own name above it. A folder above that is not
/// ours was made by someone else.
pub(crate) fn sync_folder(disk: &dyn Disk, path: &Path) -> Result<()> {
    disk.sync_dir(path)?;
    let Some(above) = path.parent() else {
        return Ok(());
    };
    let above = match above.as_os_str().is_empty() {
        true => Path::new("."),
        false => above,
    };
    match disk.sync_dir(above) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        done => done,
    }
}

/// Whether an error says that there is no room.
#[must_use]
pub fn is_full(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Whether an error says that the process or the system has no descriptor left. A sync never fails
/// like this.
#[must_use]
pub fn is_out_of_descriptors(error: &Error) -> bool {
    /// EMFILE and ENFILE, the same numbers on every Unix; the standard library has no kind for them.
    const OUT_OF_DESCRIPTORS: [i32; 2] = [24, 23];
    error
        .raw_os_error()
        .is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code))
}
