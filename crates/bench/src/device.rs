//! The device under a folder: what was written to it and how often it was told to flush.
//!
//! Promises: [`Device::settled`] first syncs the file system, so that nothing waits in memory uncounted.
//! Never: tells whose octets they were: on a shared device everybody's count.

use crate::problem::{Outcome, Problem, Trying};
use crate::procfs::{DeviceCount, diskstats};
use std::fs::File;
use std::path::Path;

/// One block device and a folder on it.
#[derive(Debug)]
pub struct Device {
    folder: File,
    major: u32,
    minor: u32,
}

impl Device {
    /// The device that holds `folder`.
    ///
    /// # Errors
    /// When the folder cannot be read, or the kernel keeps no count of its device (a network or memory
    /// file system).
    pub fn under(folder: &Path) -> Outcome<Self> {
        let what = || folder.display().to_string();
        let stat = rustix::fs::stat(folder).trying(what)?;
        let device = Self {
            folder: File::open(folder).trying(what)?,
            major: rustix::fs::major(stat.st_dev),
            minor: rustix::fs::minor(stat.st_dev),
        };
        device.count()?;
        Ok(device)
    }

    /// Syncs the file system, then reads the counts.
    ///
    /// # Errors
    /// When the sync fails or the device is gone.
    pub fn settled(&self) -> Outcome<DeviceCount> {
        rustix::fs::syncfs(&self.folder).trying(|| "syncfs".into())?;
        self.count()
    }

    fn count(&self) -> Outcome<DeviceCount> {
        let text = std::fs::read_to_string("/proc/diskstats").trying(|| "/proc/diskstats".into())?;
        diskstats(&text, self.major, self.minor).ok_or_else(|| {
            Problem(format!(
                "/proc/diskstats has no device {}:{}: octets written cannot be counted on this file system",
                self.major, self.minor
            ))
        })
    }
}
