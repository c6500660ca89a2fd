//! The account that a server's processes are booked on: CPU and memory of all of them together.
//!
//! A control group where we may make one (version 1 or 2), else the process tree under /proc, where each
//! parent carries the time of the children it has waited for.
//! Promises: the group is removed when the account is dropped.
//! Never: counts a process that the server did not start.

use crate::procfs;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";

/// How the processes are found.
#[derive(Debug)]
enum Kind {
    V1 { cpu: PathBuf, memory: PathBuf },
    V2 { folder: PathBuf },
    Tree,
}

/// One server's account.
#[derive(Debug)]
pub struct Account {
    kind: Kind,
}

impl Account {
    /// Opens an account of this name, in a control group if that can be had.
    pub fn open(name: &str) -> Self {
        let name = format!("posthaste-bench-{}-{name}", std::process::id());
        let kind = Self::v2(&name).or_else(|| Self::v1(&name)).unwrap_or(Kind::Tree);
        Self { kind }
    }

    /// An account without a control group: nothing stands between the start and the program.
    pub fn tree() -> Self {
        Self { kind: Kind::Tree }
    }

    fn v2(name: &str) -> Option<Kind> {
        let root = Path::new(ROOT);
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
        if !controllers.contains("memory") {
            return None;
        }
        // It may be on already, or not ours to change; the next lines tell.
        let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
        let folder = root.join(name);
        fs::create_dir(&folder).ok()?;
        let kind = Kind::V2 {
            folder: folder.clone(),
        };
        let whole = fs::read_to_string(folder.join("memory.stat")).is_ok();
        let whole = whole
            && fs::OpenOptions::new()
                .write(true)
                .open(folder.join("cgroup.procs"))
                .is_ok();
        if !whole {
            let _ = fs::remove_dir(&folder);
            return None;
        }
        Some(kind)
    }

    fn v1(name: &str) -> Option<Kind> {
        let cpu = Path::new(ROOT).join("cpuacct").join(name);
        let memory = Path::new(ROOT).join("memory").join(name);
        fs::create_dir(&cpu).ok()?;
        if fs::create_dir(&memory).is_err() {
            let _ = fs::remove_dir(&cpu);
            return None;
        }
        Some(Kind::V1 { cpu, memory })
    }

    /// In words, for the foot of the table.
    pub fn words(&self) -> &'static str {
        match self.kind {
            Kind::V1 { .. } => "control group, version 1",
            Kind::V2 { .. } => "control group, version 2",
            Kind::Tree => "process tree under /proc",
        }
    }

    /// A command that runs `program` on this account; arguments are added as usual.
    pub fn command(&self, program: &Path) -> Command {
        let files: Vec<PathBuf> = match &self.kind {
            Kind::V1 { cpu, memory } => vec![cpu.join("cgroup.procs"), memory.join("cgroup.procs")],
            Kind::V2 { folder } => vec![folder.join("cgroup.procs")],
            Kind::Tree => return Command::new(program),
        };
        // The shell enters the group, then becomes the program.
        let mut script = String::new();
        for at in 1..=files.len() {
            script.push_str(&format!("echo $$ > \"${at}\" || exit 125; "));
        }
        script.push_str(&format!("shift {}; exec \"$@\"", files.len()));
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).arg("sh").args(files).arg(program);
        command
    }

    /// CPU time of all processes so far. `root` is the server's first process.
    pub fn cpu(&self, root: u32) -> Duration {
        let read = |file: PathBuf| fs::read_to_string(file).unwrap_or_default();
        match &self.kind {
            Kind::V1 { cpu, .. } => {
                Duration::from_nanos(read(cpu.join("cpuacct.usage")).trim().parse().unwrap_or(0))
            }
            Kind::V2 { folder } => {
                let text = read(folder.join("cpu.stat"));
                Duration::from_micros(procfs::plain_line(&text, "usage_usec").unwrap_or(0))
            }
            Kind::Tree => family(root).iter().map(|s| s.cpu).sum(),
        }
    }

    /// Resident memory of all processes that no file is behind, in octets.
    pub fn memory(&self, root: u32) -> u64 {
        let read = |file: PathBuf| fs::read_to_string(file).unwrap_or_default();
        match &self.kind {
            Kind::V1 { memory, .. } => {
                procfs::plain_line(&read(memory.join("memory.stat")), "total_rss").unwrap_or(0)
            }
            Kind::V2 { folder } => procfs::plain_line(&read(folder.join("memory.stat")), "anon").unwrap_or(0),
            Kind::Tree => family(root)
                .iter()
                .map(|s| {
                    let status = read(format!("/proc/{}/status", s.pid).into());
                    procfs::kib_line(&status, "RssAnon").unwrap_or(0)
                })
                .sum(),
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        match &self.kind {
            Kind::V1 { cpu, memory } => {
                let _ = fs::remove_dir(cpu);
                let _ = fs::remove_dir(memory);
            }
            Kind::V2 { folder } => {
                let _ = fs::remove_dir(folder);
            }
            Kind::Tree => {}
        }
    }
}

/// All living processes under `root`, itself included.
pub fn family(root: u32) -> Vec<procfs::Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let all: Vec<procfs::Stat> = entries
        .flatten()
        .filter(|e| e.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .filter_map(|e| procfs::stat(&fs::read_to_string(e.path().join("stat")).ok()?))
        .collect();
    procfs::family(&all, root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_sees_this_process() {
        let account = Account::tree();
        let me = std::process::id();
        assert!(family(me).iter().any(|s| s.pid == me));
        assert!(account.memory(me) > 0);
    }

    #[test]
    fn a_command_runs_on_whatever_account_there_is() {
        let account = Account::open("test");
        let output = account
            .command(Path::new("/bin/echo"))
            .args(["a b", "c"])
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"a b c\n", "{output:?}");
    }
}
