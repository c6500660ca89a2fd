//! Sync calls, counted by the kernel's own tracing while the load runs.
//!
//! A tracing instance of our own counts the entries into the sync calls of the server's threads and of all
//! that they start. Unlike strace it does not stop anything, so the timed run itself can be counted.
//! Promises: the instance (and the mount, where we made one) is gone when the tracer is dropped.
//! Never: touches the tracing that somebody else may have on.

use crate::problem::{Outcome, Problem, Trying};
use crate::syncs::CALLS;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const USUAL_PLACE: &str = "/sys/kernel/tracing";

/// A tracing instance.
#[derive(Debug)]
pub struct Tracer {
    instance: PathBuf,
    mounted: Option<PathBuf>,
}

impl Tracer {
    /// Makes an instance, and mounts the tracing file system in `folder` if it is nowhere yet.
    ///
    /// # Errors
    /// Without root, or with a kernel that does not trace system calls.
    pub fn open(folder: &Path) -> Outcome<Self> {
        let usual = PathBuf::from(USUAL_PLACE);
        let (place, mounted) = if usual.join("instances").is_dir() {
            (usual, None)
        } else {
            let place = folder.join("tracing");
            std::fs::create_dir_all(&place).trying(|| place.display().to_string())?;
            let status = Command::new("mount")
                .args(["-t", "tracefs", "tracefs"])
                .arg(&place)
                .output()
                .trying(|| "mount".into())?;
            if !status.status.success() {
                return Err(Problem("the kernel's tracing cannot be mounted".into()));
            }
            (place.clone(), Some(place))
        };
        let tracer = Self {
            instance: place.join(format!("instances/posthaste-bench-{}", std::process::id())),
            mounted,
        };
        std::fs::create_dir(&tracer.instance).trying(|| tracer.instance.display().to_string())?;
        tracer.write("options/event-fork", "1")?;
        Ok(tracer)
    }

    /// Counts from now on for the processes `members` (all their threads) and what they start.
    ///
    /// # Errors
    /// When the kernel does not let us.
    pub fn begin(&self, members: &[u32]) -> Outcome<()> {
        let mut threads = String::new();
        for pid in members {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
            for task in tasks.into_iter().flatten().flatten() {
                // Writing to a String cannot fail.
                let _ = write!(threads, "{} ", task.file_name().to_string_lossy());
            }
        }
        self.write("set_event_pid", &threads)?;
        for call in CALLS {
            self.write(&format!("events/syscalls/sys_enter_{call}/enable"), "1")?;
        }
        Ok(())
    }

    /// Calls counted since the instance was made.
    ///
    /// # Errors
    /// When the kernel's figures cannot be read.
    pub fn counted(&self) -> Outcome<u64> {
        let place = self.instance.join("per_cpu");
        let mut sum = 0;
        for cpu in std::fs::read_dir(&place).trying(|| place.display().to_string())? {
            let file = cpu.trying(|| place.display().to_string())?.path().join("stats");
            let text = std::fs::read_to_string(&file).trying(|| file.display().to_string())?;
            sum += events(&text).ok_or_else(|| Problem(format!("{}: not understood", file.display())))?;
        }
        Ok(sum)
    }

    fn write(&self, name: &str, text: &str) -> Outcome<()> {
        let file = self.instance.join(name);
        std::fs::write(&file, text).trying(|| file.display().to_string())
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.write("events/enable", "0");
        let _ = std::fs::remove_dir(&self.instance);
        if let Some(place) = &self.mounted {
            let _ = Command::new("umount").arg(place).status();
        }
    }
}

/// Events of one processor's buffer: those in it and those that newer ones have pushed out.
fn events(stats: &str) -> Option<u64> {
    let of = |name: &str| -> Option<u64> {
        stats
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
    };
    Some(of("entries")? + of("overrun")? + of("dropped events")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_were_pushed_out_count_too() {
        let stats = "entries: 129\noverrun: 1000\ncommit overrun: 5\nbytes: 4\noldest event ts: 1.5\n\
                     now ts: 2.5\ndropped events: 3\nread events: 0\n";
        assert_eq!(events(stats), Some(1132));
        assert_eq!(events("nothing"), None);
    }
}
