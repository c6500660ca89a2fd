//! One measurement: a fresh server, a warm-up, the load, and the wait until the server is quiet again.
//!
//! Promises: the CPU figure covers everything the server did because of the load, delivery included; the
//! number of messages follows from the warm-up, within limits that are named here.
//! Never: keeps a server or its folder.

use crate::account::{Account, family};
use crate::device::Device;
use crate::load::{self, Load, LoadReport};
use crate::problem::{Outcome, Trying};
use crate::procfs::DeviceCount;
use crate::syncs;
use crate::target::{Launch, Running, Target};
use crate::tracer::Tracer;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Octets of all messages of one measurement at most: the disk is not to be filled.
const LOAD_OCTETS_MAX: u64 = 512 << 20;
/// Messages of one measurement at most.
const LOAD_MESSAGES_MAX: u64 = 200_000;
/// How long a server may go on working after the load.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(60);
/// Quiet means: for so long ...
const QUIET_TIME: Duration = Duration::from_millis(600);
/// ... no step of 100 ms took more CPU time than this.
const QUIET_CPU_MAX: Duration = Duration::from_millis(3);

/// What is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cell {
    /// Octets of a message.
    pub size: usize,
    /// Sessions at the same time.
    pub sessions: usize,
}

/// How messages are sent in all cells.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Manner {
    /// Messages on one connection; 0: all.
    pub per_connection: u64,
    /// MAIL, RCPT and DATA in one write.
    pub pipelining: bool,
    /// Users that the messages go to.
    pub users: u64,
}

/// What one measurement found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measurement {
    /// The server.
    pub target: String,
    /// The cell.
    pub cell: Cell,
    /// The round, from 1.
    pub round: u16,
    /// What the generator saw.
    pub load: LoadReport,
    /// CPU time of all the server's processes until quiet, for 1,000 accepted messages.
    pub cpu_seconds_per_1000: f64,
    /// From the last reply until the server was quiet.
    pub drain_seconds: f64,
    /// Peak of the resident memory that no file is behind, all processes.
    pub memory_peak_octets: u64,
    /// Sync calls for a message, counted by the kernel's tracing, where that can be had.
    pub syncs_per_message: Option<f64>,
    /// Octets written to the whole device for an octet of message, where it can be counted.
    pub device_per_octet: Option<f64>,
}

/// What the counting runs found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Counts {
    /// The server.
    pub target: String,
    /// The cell.
    pub cell: Cell,
    /// Sync calls for a message, counted by strace, which slows the server.
    pub syncs_per_message: Option<f64>,
    /// Octets written to a private file system for an octet of message.
    pub written_per_octet: Option<f64>,
    /// Cache flushes of that file system's device for a message.
    pub flushes_per_message: Option<f64>,
}

fn order(target: &dyn Target, running: &Running, cell: Cell, manner: Manner, messages: u64) -> Outcome<Load> {
    let mut load = Load {
        to: running.address,
        unix: None,
        sessions: cell.sessions,
        messages,
        size: cell.size,
        per_connection: manner.per_connection,
        recipients: 1,
        from: "load@sender.example".into(),
        rcpt: "user%d@bench.example".into(),
        users: manner.users,
        pipelining: manner.pipelining,
        timeout: Duration::from_secs(60),
        tls: None,
        letters: None,
    };
    target.dress(&mut load)?;
    Ok(load)
}

/// The number of messages that last about `time` at `per_second`, within the limits.
pub fn messages_for(cell: Cell, per_second: f64, time: Duration) -> u64 {
    let most = LOAD_MESSAGES_MAX.min(LOAD_OCTETS_MAX / cell.size.max(1) as u64);
    let least = (cell.sessions as u64 * 4).max(50).min(most);
    ((per_second * time.as_secs_f64()) as u64).clamp(least, most)
}

/// Measures `target` once in `cell`, in a fresh folder below `folder`.
///
/// # Errors
/// When the server does not start or end.
pub fn once(
    target: &dyn Target,
    folder: &Path,
    cell: Cell,
    manner: Manner,
    round: u16,
    time: Duration,
    tracer: Option<&Tracer>,
) -> Outcome<Measurement> {
    let place = fresh(folder)?;
    let account = Account::open(target.name());
    let launch = Launch {
        account: &account,
        strace: None,
    };
    let running = target.start(place.path(), &launch)?;
    let warm = load::run(&order(
        target,
        &running,
        cell,
        manner,
        cell.sessions as u64 * 4 + 200,
    )?)?;
    wait_until_quiet(&account, running.root());
    let messages = messages_for(cell, warm.per_second, time);
    let device = Device::under(place.path()).ok();
    let before = device.as_ref().and_then(|d| d.settled().ok());
    let syncs_before = tracer.map(|t| begin(t, &running)).transpose()?;
    let cpu = account.cpu(running.root());
    let order = order(target, &running, cell, manner, messages);
    let peak = Peak::default();
    let (report, drained) = std::thread::scope(|scope| {
        scope.spawn(|| peak.watch(&account, running.root()));
        let report = order.and_then(|order| load::run(&order));
        let drained = wait_until_quiet(&account, running.root());
        peak.over.store(true, Ordering::SeqCst);
        (report, drained)
    });
    let report = report?;
    let cpu = account.cpu(running.root()).saturating_sub(cpu);
    let syncs = tracer.map(Tracer::counted).transpose()?;
    let after = device.as_ref().and_then(|d| d.settled().ok());
    running.stop()?;
    let octets = report.accepted * cell.size as u64;
    Ok(Measurement {
        target: target.name().to_owned(),
        cell,
        round,
        cpu_seconds_per_1000: cpu.as_secs_f64() * 1000.0 / report.accepted as f64,
        drain_seconds: drained.as_secs_f64(),
        memory_peak_octets: peak.octets.load(Ordering::SeqCst),
        syncs_per_message: syncs_before
            .zip(syncs)
            .map(|(b, a)| (a - b) as f64 / report.accepted as f64),
        device_per_octet: before
            .zip(after)
            .map(|(b, a)| (a.octets - b.octets) as f64 / octets as f64),
        load: report,
    })
}

/// Has the tracer count the server's threads; what it had counted before.
fn begin(tracer: &Tracer, running: &Running) -> Outcome<u64> {
    let members: Vec<u32> = family(running.root()).iter().map(|s| s.pid).collect();
    tracer.begin(&members)?;
    tracer.counted()
}

/// Counts, in runs of their own, what `target` writes and syncs in `cell`: on a private file system (where
/// there is one), then under strace if `strace` says so.
///
/// # Errors
/// When the server does not start or end.
pub fn count(
    target: &dyn Target,
    folder: &Path,
    private: Option<&Path>,
    cell: Cell,
    manner: Manner,
    messages: u64,
    strace: bool,
) -> Outcome<Counts> {
    let mut counts = Counts {
        target: target.name().to_owned(),
        cell,
        syncs_per_message: None,
        written_per_octet: None,
        flushes_per_message: None,
    };
    if let Some(private) = private {
        let (written, accepted) = written(target, private, cell, manner, messages)?;
        counts.written_per_octet = Some(written.octets as f64 / (accepted * cell.size as u64) as f64);
        counts.flushes_per_message = Some(written.flushes as f64 / accepted as f64);
    }
    if strace {
        counts.syncs_per_message = Some(synced(target, folder, cell, manner, messages)?);
    }
    Ok(counts)
}

fn written(
    target: &dyn Target,
    folder: &Path,
    cell: Cell,
    manner: Manner,
    messages: u64,
) -> Outcome<(DeviceCount, u64)> {
    let place = fresh(folder)?;
    let account = Account::open(target.name());
    let launch = Launch {
        account: &account,
        strace: None,
    };
    let running = target.start(place.path(), &launch)?;
    load::run(&order(target, &running, cell, manner, cell.sessions as u64 + 20)?)?;
    wait_until_quiet(&account, running.root());
    let device = Device::under(place.path())?;
    let before = device.settled()?;
    let report = load::run(&order(target, &running, cell, manner, messages)?)?;
    wait_until_quiet(&account, running.root());
    let after = device.settled()?;
    running.stop()?;
    let written = DeviceCount {
        octets: after.octets - before.octets,
        flushes: after.flushes - before.flushes,
    };
    Ok((written, report.accepted))
}

fn synced(target: &dyn Target, folder: &Path, cell: Cell, manner: Manner, messages: u64) -> Outcome<f64> {
    let place = fresh(folder)?;
    let account = Account::open(target.name());
    let log = place.path().join("strace.log");
    let launch = Launch {
        account: &account,
        strace: Some(log.clone()),
    };
    let running = target.start(place.path(), &launch)?;
    load::run(&order(target, &running, cell, manner, cell.sessions as u64 + 20)?)?;
    wait_until_quiet(&account, running.root());
    let before = syncs::counted(&log)?;
    let report = load::run(&order(target, &running, cell, manner, messages)?)?;
    wait_until_quiet(&account, running.root());
    let after = syncs::counted(&log)?;
    running.stop()?;
    Ok((after - before) as f64 / report.accepted as f64)
}

/// A folder of its own for one server.
///
/// # Errors
/// When it cannot be made.
pub fn fresh(folder: &Path) -> Outcome<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt as _;
    tempfile::Builder::new()
        .prefix("run-")
        // Servers that give up their rights must get through.
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir_in(folder)
        .trying(|| folder.display().to_string())
}

/// Waits until the server takes hardly any CPU; how long it went on working.
pub fn wait_until_quiet(account: &Account, root: u32) -> Duration {
    let begun = Instant::now();
    let mut busy_until = begun;
    let mut known = account.cpu(root);
    while begun.elapsed() < DRAIN_TIME_MAX && busy_until.elapsed() < QUIET_TIME {
        std::thread::sleep(Duration::from_millis(100));
        let now = account.cpu(root);
        if now.saturating_sub(known) > QUIET_CPU_MAX {
            busy_until = Instant::now();
        }
        known = now;
    }
    busy_until - begun
}

/// The highest memory figure seen.
#[derive(Default)]
struct Peak {
    octets: AtomicU64,
    over: AtomicBool,
}

impl Peak {
    fn watch(&self, account: &Account, root: u32) {
        while !self.over.load(Ordering::SeqCst) {
            self.octets.fetch_max(account.memory(root), Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_messages_stays_within_its_limits() {
        let cell = |size, sessions| Cell { size, sessions };
        let three = Duration::from_secs(3);
        assert_eq!(messages_for(cell(10_240, 64), 1000.0, three), 3000);
        assert_eq!(messages_for(cell(10_240, 256), 1.0, three), 1024);
        assert_eq!(messages_for(cell(1024, 1), 0.0, three), 50);
        assert_eq!(messages_for(cell(1024, 64), 1e9, three), LOAD_MESSAGES_MAX);
        assert_eq!(
            messages_for(cell(102_400, 64), 1e9, three),
            LOAD_OCTETS_MAX / 102_400
        );
    }
}
