//! What the machine says of this process: CPU time, memory, octets written, room on disk.

use rustix::time::{ClockId, clock_gettime};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Memory of this process, in octets.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    /// All that is resident.
    pub(crate) resident: u64,
    /// Of it, what is not a mapped file.
    pub(crate) anonymous: u64,
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// CPU time of all threads of this process, so far.
pub(crate) fn cpu_process() -> Duration {
    cpu(ClockId::ProcessCPUTime)
}

/// CPU time of this thread, so far.
pub(crate) fn cpu_thread() -> Duration {
    cpu(ClockId::ThreadCPUTime)
}

/// The number behind a name in one of the kernel's tables.
fn number_in(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Memory now.
pub(crate) fn memory() -> Memory {
    Memory {
        resident: number_in("/proc/self/status", "VmRSS:") << 10,
        anonymous: number_in("/proc/self/status", "RssAnon:") << 10,
    }
}

/// Octets that this process has caused to be written to disk.
pub(crate) fn written() -> u64 {
    number_in("/proc/self/io", "write_bytes:")
}

/// Octets that are free for us on the disk of a folder.
pub(crate) fn disk_free(folder: &Path) -> Result<u64, String> {
    let disk = rustix::fs::statvfs(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(disk.f_bavail * disk.f_frsize)
}

/// Octets on disk of all files in a folder and below.
pub(crate) fn disk_used(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => disk_used(&entry.path()),
        Ok(about) => about.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// Asks the system to forget what it holds in memory of the files in a folder and below.
pub(crate) fn forget(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            forget(&path);
        } else if let Ok(file) = std::fs::File::open(&path) {
            // Only a wish; a file that stays in memory makes the start look faster than cold.
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }
}
