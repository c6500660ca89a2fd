//! Sync calls, counted by strace from outside: never assumed.
//!
//! Promises: every call of the kinds in [`CALLS`], of every process and thread of the server, counts once.
//! Never: used while something is timed: strace slows what it watches.

use crate::problem::{Outcome, Trying};
use std::path::Path;

/// The calls that make written octets safe.
pub const CALLS: &[&str] = &["fsync", "fdatasync", "sync_file_range", "msync", "sync", "syncfs"];

/// strace's arguments before the program's name. Only the calls of [`CALLS`] stop the program
/// (seccomp-bpf), so that the rest runs at nearly its usual speed.
pub fn strace_arguments(log: &Path) -> Vec<std::ffi::OsString> {
    let calls = format!("trace={}", CALLS.join(","));
    [
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-e",
        "signal=none",
        "-e",
        &calls,
        "-o",
    ]
    .iter()
    .map(Into::into)
    .chain([log.into()])
    .collect()
}

/// How many sync calls the log shows so far.
///
/// # Errors
/// When the log cannot be read.
pub fn counted(log: &Path) -> Outcome<u64> {
    let text = std::fs::read(log).trying(|| log.display().to_string())?;
    Ok(count(&String::from_utf8_lossy(&text)))
}

/// Calls in strace's lines: a call that another interrupts has two lines and counts at its first.
fn count(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(_, rest)| rest.trim_start())
        .filter(|rest| {
            CALLS
                .iter()
                .any(|call| rest.strip_prefix(call).is_some_and(|more| more.starts_with('(')))
        })
        .count() as u64
}

/// Whether strace is there.
pub fn strace_is_there() -> bool {
    std::process::Command::new("strace")
        .arg("-V")
        .output()
        .is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_counts_once() {
        let log = "\
7324  fsync(1)                          = 0
7324  fdatasync(12 <unfinished ...>
7325  fsync(3)                          = 0
7324  <... fdatasync resumed>)          = 0
7325  sync_file_range(3, 0, 0, SYNC_FILE_RANGE_WRITE) = 0
7325  syncfs(4)                         = 0
7325  +++ exited with 0 +++
";
        assert_eq!(count(log), 5);
        assert_eq!(count(""), 0);
    }
}
