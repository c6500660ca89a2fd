//! What the machine's disk allows: single appends with a sync, and group commit by many producers.
//!
//! Promises: a record counts when the fdatasync that covers it has returned, as a server's 250 would.
//! Never: reads; a file that is left behind.

use crate::corpus::Dice;
use crate::journal::{Growth, Journal};
use crate::problem::{Outcome, Problem, Trying};
use crate::quantile::Latency;
use crate::table::{Table, figure};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Octets of the file that is written over in the recycling runs.
const RECYCLED_OCTETS: u64 = 64 << 20;
/// Octets that one appending run may write at most.
const APPENDED_OCTETS_MAX: u64 = 1 << 30;

/// One measurement of the disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DiskRow {
    /// Threads that each wait for their record before they make the next.
    pub producers: usize,
    /// Octets of a record.
    pub size: usize,
    /// Whether the file's blocks were there already.
    pub recycled: bool,
    /// Records a second.
    pub per_second: f64,
    /// Records to one fdatasync, on average.
    pub per_sync: f64,
    /// From handing a record over to its fdatasync's return.
    pub latency_ms: Option<Latency>,
}

/// The rows for people. One producer that appends is the plain append with a sync.
pub fn table(rows: &[DiskRow]) -> Table {
    let mut table = Table::new(
        1,
        [
            "file",
            "size KiB",
            "producers",
            "records/s",
            "per sync",
            "p50 ms",
            "p99 ms",
        ],
    );
    for row in rows {
        table.row([
            if row.recycled { "written over" } else { "appended" }.to_string(),
            figure(Some(row.size as f64 / 1024.0)),
            row.producers.to_string(),
            figure(Some(row.per_second)),
            figure(Some(row.per_sync)),
            figure(row.latency_ms.map(|l| l.p50)),
            figure(row.latency_ms.map(|l| l.p99)),
        ]);
    }
    table
}

#[derive(Default)]
struct Slate {
    waiting: Vec<u8>,
    records: u64,
    /// The number of the group that is being gathered.
    gathering: u64,
    /// All groups below this are on the disk.
    safe: u64,
    over: bool,
}

#[derive(Default)]
struct Desk {
    slate: Mutex<Slate>,
    work: Condvar,
    news: Condvar,
}

/// One group-commit run of about `time` with `producers` threads and records of `size` octets.
///
/// # Errors
/// When the file cannot be made or written.
pub fn group_commit(
    folder: &Path,
    producers: usize,
    size: usize,
    recycled: bool,
    time: Duration,
) -> Outcome<DiskRow> {
    let path = folder.join("probe.log");
    let growth = if recycled {
        Growth::Recycle {
            octets: RECYCLED_OCTETS,
        }
    } else {
        Growth::Append
    };
    let mut journal = Journal::create(&path, growth)?;
    let record = record(size);
    let desk = Desk::default();
    let start = Instant::now();
    let end = start + time;
    let records_max = APPENDED_OCTETS_MAX / size as u64 / producers as u64;
    let (groups, mut latencies) = std::thread::scope(|scope| {
        let committer = scope.spawn(|| commit_all(&desk, &mut journal));
        let hands: Vec<_> = (0..producers)
            .map(|_| {
                std::thread::Builder::new()
                    .stack_size(128 << 10)
                    .spawn_scoped(scope, || produce(&desk, &record, end, records_max))
            })
            .collect();
        let mut latencies = Vec::new();
        for hand in hands {
            let hand = hand.trying(|| "thread".into())?;
            latencies.extend(hand.join().map_err(|_| Problem("a producer panicked".into()))?);
        }
        lock(&desk.slate).over = true;
        desk.work.notify_one();
        let groups = committer
            .join()
            .map_err(|_| Problem("the committer panicked".into()))?
            .trying(|| path.display().to_string())?;
        Ok::<_, Problem>((groups, latencies))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    std::fs::remove_file(&path).trying(|| path.display().to_string())?;
    Ok(DiskRow {
        producers,
        size,
        recycled,
        per_second: latencies.len() as f64 / seconds,
        per_sync: latencies.len() as f64 / groups.max(1) as f64,
        latency_ms: Latency::of(&mut latencies),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands records over, one after the other, until the time is up.
fn produce(desk: &Desk, record: &[u8], end: Instant, records_max: u64) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while Instant::now() < end && (latencies.len() as u64) < records_max {
        let begun = Instant::now();
        let mut slate = lock(&desk.slate);
        if slate.over {
            break;
        }
        slate.waiting.extend_from_slice(record);
        slate.records += 1;
        let mine = slate.gathering;
        desk.work.notify_one();
        while slate.safe <= mine && !slate.over {
            slate = desk.news.wait(slate).unwrap_or_else(PoisonError::into_inner);
        }
        if slate.safe <= mine {
            break;
        }
        drop(slate);
        latencies.push(begun.elapsed());
    }
    latencies
}

/// Takes what has gathered, writes and syncs it, tells everyone; answers the number of groups.
fn commit_all(desk: &Desk, journal: &mut Journal) -> std::io::Result<u64> {
    let mut octets = Vec::new();
    loop {
        {
            let mut slate = lock(&desk.slate);
            while slate.records == 0 && !slate.over {
                slate = desk.work.wait(slate).unwrap_or_else(PoisonError::into_inner);
            }
            if slate.records == 0 {
                return Ok(slate.safe);
            }
            std::mem::swap(&mut octets, &mut slate.waiting);
            slate.records = 0;
            slate.gathering += 1;
        }
        let done = journal.commit(&octets);
        octets.clear();
        let mut slate = lock(&desk.slate);
        match done {
            Ok(()) => slate.safe += 1,
            Err(error) => {
                slate.over = true;
                desk.news.notify_all();
                return Err(error);
            }
        }
        desk.news.notify_all();
    }
}

fn record(size: usize) -> Vec<u8> {
    let mut dice = Dice::new(7);
    (0..size).map(|_| dice.roll() as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_committed_and_the_file_goes() {
        let folder = tempfile::tempdir().unwrap();
        for recycled in [false, true] {
            let row = group_commit(folder.path(), 4, 1024, recycled, Duration::from_millis(50)).unwrap();
            assert!(
                row.per_second > 0.0 && row.per_sync >= 1.0 && row.per_sync <= 4.0,
                "{row:?}"
            );
            assert!(row.latency_ms.is_some());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
