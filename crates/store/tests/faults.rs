//! The engine on a disk that fails: power loss and errors at every operation, a full disk, a
//! failed sync. What was acknowledged must be there, whole; what was not may be, whole, or not.
#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::file::Disk as _;
use store::simulated::{Fault, SimDisk};
use store::{Batch, BlobError, BlobId, Blobs, CommitError, LogStore, OpenError, Options, Store, Tables};

const FOLDER: &str = "/mail";

fn options() -> Options {
    Options {
        segment_octets: 16 * 1024,
        index_cache_octets: 1 << 20,
        ..eager()
    }
}

fn open_sim(disk: &SimDisk, options: Options) -> Result<Arc<LogStore>, OpenError> {
    LogStore::open_on(Arc::new(disk.clone()), Path::new(FOLDER), options)
}

/// What one step of the workload was promised.
struct Step {
    n: u64,
    blob: BlobId,
    acknowledged: bool,
}

fn length_of(n: u64) -> usize {
    if n % 7 == 3 { 1_100_000 } else { 2000 }
}

/// Entry, counter and blob in one batch; every third step also removes an older one.
fn step(store: &dyn Store, n: u64) -> Option<Step> {
    let mut writer = wait(store.stage(0)).ok()?;
    wait(writer.write(&pattern(length_of(n), n))).ok()?;
    let staged = wait(writer.finish()).ok()?;
    let blob = staged.id;
    let mut batch = Batch::new();
    batch.put_ref(key(n), n.to_be_bytes().to_vec(), vec![blob]);
    batch.blob(staged);
    batch.put(key(1000 + n), vec![1; 100]);
    batch.add(key(5000), 1);
    if n % 3 == 2 {
        batch.delete(key(n - 2));
    }
    let acknowledged = commit(store, batch).is_ok();
    Some(Step {
        n,
        blob,
        acknowledged,
    })
}

const STEPS: u64 = 9;

fn workload(store: &dyn Store) -> Vec<Step> {
    (0..STEPS).map_while(|n| step(store, n)).collect()
}

/// Checks a reopened store against what was promised.
fn check(store: &dyn Store, steps: &[Step], about: &str) {
    let there: Vec<bool> = steps
        .iter()
        .map(|s| get(store, &key(1000 + s.n)).is_some())
        .collect();
    for (step, there) in steps.iter().zip(&there) {
        assert!(
            *there || !step.acknowledged,
            "{about}: step {} was acknowledged and is lost",
            step.n
        );
        let removed = steps
            .iter()
            .zip(&there_of(store, steps))
            .any(|(s, t)| s.n == step.n + 2 && s.n % 3 == 2 && *t);
        let entry = get(store, &key(step.n)).is_some();
        assert_eq!(
            entry,
            *there && !removed,
            "{about}: step {} is half there",
            step.n
        );
        let read = wait(store.read(step.blob, 0..u64::MAX));
        if entry {
            assert_eq!(
                read.unwrap(),
                pattern(length_of(step.n), step.n),
                "{about}: step {}",
                step.n
            );
        } else {
            assert_eq!(
                read,
                Err(BlobError::NotFound(step.blob)),
                "{about}: step {}",
                step.n
            );
        }
    }
    let count = there.iter().filter(|t| **t).count() as i64;
    assert_eq!(
        counter(store, &key(5000)),
        count,
        "{about}: the counter disagrees"
    );
}

fn there_of(store: &dyn Store, steps: &[Step]) -> Vec<bool> {
    steps
        .iter()
        .map(|s| get(store, &key(1000 + s.n)).is_some())
        .collect()
}

fn operations_of_a_whole_run() -> u64 {
    let disk = SimDisk::default();
    let store = open_sim(&disk, options()).unwrap();
    let steps = workload(&*store);
    assert!(steps.len() as u64 == STEPS && steps.iter().all(|s| s.acknowledged));
    store.close();
    disk.operations()
}

#[test]
fn power_loss_at_any_operation_loses_nothing_acknowledged() {
    let all = operations_of_a_whole_run();
    assert!(all > 100, "{all}");
    for at in 1..=all {
        let disk = SimDisk::default();
        disk.fail_at(at, Fault::PowerLoss);
        let steps = match open_sim(&disk, options()) {
            Ok(store) => workload(&*store),
            Err(_) => Vec::new(),
        };
        for seed in [0, at * 2 + 1, at * 2 + 7001, at * 2 + 9001] {
            let about = format!("power lost at operation {at}, seed {seed}");
            let after = disk.after_power_loss(seed);
            let store = open_sim(&after, options()).unwrap_or_else(|e| panic!("{about}: {e}"));
            check(&*store, &steps, &about);
            let next = step(&*store, 100).unwrap();
            assert!(next.acknowledged, "{about}: the store must go on");
        }
    }
}

#[test]
fn power_loss_during_recovery_loses_nothing_either() {
    let disk = SimDisk::default();
    let store = open_sim(&disk, lazy_small()).unwrap();
    let steps = workload(&*store);
    assert!(steps.iter().all(|s| s.acknowledged));
    let crashed = disk.after_power_loss(3);
    drop(store);
    let opened = crashed.after_kill();
    drop(open_sim(&opened, lazy_small()).unwrap());
    let all = opened.operations();
    assert!(all > 10, "{all}");
    for at in 1..=all {
        let disk = crashed.after_kill();
        disk.fail_at(at, Fault::PowerLoss);
        drop(open_sim(&disk, lazy_small()));
        for seed in [0, at * 2 + 1] {
            let about = format!("power lost at operation {at} of recovery, seed {seed}");
            let after = disk.after_power_loss(seed);
            let store = open_sim(&after, options()).unwrap_or_else(|e| panic!("{about}: {e}"));
            check(&*store, &steps, &about);
        }
    }
}

#[test]
fn what_recovery_has_shown_survives_a_power_loss() {
    let all = operations_of_a_whole_run();
    for at in 1..=all {
        let disk = SimDisk::default();
        disk.fail_at(at, Fault::PowerLoss);
        let steps = match open_sim(&disk, options()) {
            Ok(store) => workload(&*store),
            Err(_) => Vec::new(),
        };
        // Only the process ends: what it wrote is still in the page cache, synced or not.
        let disk = disk.after_kill();
        let store = open_sim(&disk, lazy_small()).unwrap();
        let shown = there_of(&*store, &steps);
        let after = open_sim(&disk.after_power_loss(at * 2 + 1), lazy_small()).unwrap();
        assert_eq!(there_of(&*after, &steps), shown, "killed at operation {at}");
        check(
            &*after,
            &steps,
            &format!("killed at operation {at}, then without power"),
        );
    }
}

#[test]
fn an_error_at_any_operation_loses_nothing_acknowledged() {
    let all = operations_of_a_whole_run();
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        for at in 1..=all {
            let disk = SimDisk::default();
            disk.fail_at(at, Fault::Once(kind));
            let steps = match open_sim(&disk, options()) {
                Ok(store) => {
                    let steps = workload(&*store);
                    // Whatever happened, what is visible now is what was promised.
                    check(&*store, &steps, &format!("{kind} at operation {at}, still open"));
                    steps
                }
                Err(_) => Vec::new(),
            };
            let about = format!("{kind} at operation {at}");
            let store = open_sim(&disk.after_kill(), options()).unwrap_or_else(|e| panic!("{about}: {e}"));
            check(&*store, &steps, &about);
        }
    }
}

#[test]
fn a_torn_tail_is_cut_at_every_octet() {
    let disk = SimDisk::default();
    let store = open_sim(&disk, lazy_small()).unwrap();
    put_blob(&*store, key(1), b"acknowledged");
    let before = store.stats().log_octets as usize;
    let staged = stage(&*store, b"the last message");
    let mut batch = Batch::new();
    batch.put_ref(key(2), b"last".to_vec(), vec![staged.id]);
    batch.blob(staged);
    batch.add(key(3), 1);
    commit(&*store, batch).unwrap();
    let after = store.stats().log_octets as usize;
    let crashed = disk.after_kill();
    let segment = Path::new(FOLDER).join("log/0000000000000001.log");
    let whole = crashed.read(&segment);
    let mut seen = [0, 0];
    for cut in before..=after {
        let disk = crashed.after_kill();
        // Half of the cuts end the file there, the others leave zeros as preallocation does.
        let mut torn = whole[..cut].to_vec();
        if cut % 2 == 0 {
            torn.resize(after + 4096, 0);
        }
        disk.write(&segment, &torn);
        let store = open_sim(&disk, lazy_small()).unwrap();
        assert!(get(&*store, &key(1)).is_some(), "cut at {cut}");
        let last = get(&*store, &key(2)).is_some();
        assert_eq!(counter(&*store, &key(3)), i64::from(last), "cut at {cut}");
        assert_eq!(wait(store.snapshot()).unwrap().seq().0, 1 + u64::from(last));
        assert!(last || cut < after, "the whole group must be there");
        seen[usize::from(last)] += 1;
        put(&*store, key(4), b"new");
        store.close();
        let again = open_sim(&disk, lazy_small()).unwrap();
        assert_eq!(value(&*again, &key(4)).unwrap(), b"new");
        assert_eq!(get(&*again, &key(2)).is_some(), last, "nothing comes back later");
    }
    assert!(seen[0] > 100 && seen[1] > 0, "{seen:?}");
}

fn lazy_small() -> Options {
    Options {
        segment_octets: 16 * 1024,
        index_cache_octets: 1 << 20,
        ..lazy()
    }
}

#[test]
fn a_failed_sync_stops_the_store_for_good() {
    let disk = SimDisk::default();
    let store = open_sim(&disk, lazy_small()).unwrap();
    put(&*store, key(1), b"before");
    let mut watch = store.watch(&store::Topic(vec![1]));
    disk.fail_syncs(true);
    let mut batch = Batch::new();
    batch.put(key(2), b"doubtful".to_vec());
    assert!(matches!(commit(&*store, batch), Err(CommitError::Fatal(_))));
    assert!(
        !wait(store.failed()).is_empty(),
        "who waits for the failure is told why"
    );
    disk.fail_syncs(false);
    let mut batch = Batch::new();
    batch.put(key(3), b"too late".to_vec());
    assert!(matches!(commit(&*store, batch), Err(CommitError::Fatal(_))));
    assert_eq!(
        get(&*store, &key(2)),
        None,
        "what was not acknowledged is not visible"
    );
    assert_eq!(value(&*store, &key(1)).unwrap(), b"before");
    store.close();
    assert!(!wait(watch.changed()), "a closed store ends watches");
    let store = open_sim(&disk.after_power_loss(0), lazy_small()).unwrap();
    assert_eq!(value(&*store, &key(1)).unwrap(), b"before");
    assert_eq!((get(&*store, &key(2)), get(&*store, &key(3))), (None, None));
}

/// Tries until it succeeds; the store looks for returned room only now and then.
fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_full_disk_refuses_mail_and_recovers_by_itself() {
    let disk = SimDisk::default();
    let options = Options {
        reserve_octets: 256 * 1024,
        ..options()
    };
    let store = open_sim(&disk, options.clone()).unwrap();
    put_blob(&*store, key(0), &pattern(2000, 0));
    until("the reserve is filled", || {
        (disk.used() > 256 * 1024).then_some(())
    });
    disk.set_room(Some(disk.used() + 2_000_000));
    let mut kept = vec![0];
    let full = (1..10_000).find_map(|n| {
        let staged = stage(&*store, &pattern(2000, n));
        let mut batch = Batch::new();
        batch.put_ref(key(n), vec![], vec![staged.id]);
        batch.blob(staged);
        match commit(&*store, batch) {
            Ok(_) => kept.push(n),
            Err(error) => return Some(error),
        }
        None
    });
    assert_eq!(full, Some(CommitError::Full));
    assert!(kept.len() > 20, "{}", kept.len());
    // Reading and deleting go on.
    let gone = kept.split_off(kept.len() - 3);
    for n in &gone {
        until("deleting on a full disk", || {
            let mut batch = Batch::new();
            batch.delete(key(*n));
            match commit(&*store, batch) {
                Ok(_) => Some(()),
                Err(CommitError::Busy) => None,
                Err(error) => panic!("deleting on a full disk: {error}"),
            }
        });
    }
    for n in &kept {
        until("reading on a full disk", || {
            wait(wait(store.snapshot()).unwrap().get(&key(*n)))
                .ok()
                .map(|found| assert!(found.is_some()))
        });
    }
    // A large blob can't even be staged.
    let mut writer = wait(store.stage(2_000_000)).unwrap();
    assert_eq!(wait(writer.write(&pattern(2_000_000, 1))), Err(BlobError::Full));
    drop(writer);
    disk.set_room(None);
    until("recovery when room has returned", || {
        let staged = stage(&*store, b"new mail");
        let mut batch = Batch::new();
        batch.put_ref(key(20_000), vec![], vec![staged.id]);
        batch.blob(staged);
        commit(&*store, batch).ok()
    });
    store.close();
    let store = open_sim(&disk, options).unwrap();
    for n in kept.iter().chain([&20_000]) {
        assert!(get(&*store, &key(*n)).is_some());
    }
    for n in gone {
        assert_eq!(get(&*store, &key(n)), None);
    }
}

#[test]
fn a_store_without_descriptors_goes_on_in_the_segment_that_it_has() {
    let disk = SimDisk::default();
    let store = open_sim(&disk, lazy_small()).unwrap();
    let write = |from: u64| {
        for n in from..from + 10 {
            let mut batch = Batch::new();
            batch.put(key(n), vec![7; 4_000]);
            commit(&*store, batch).unwrap();
        }
    };
    disk.withhold_descriptors(true);
    write(0);
    assert_eq!(disk.list(&Path::new(FOLDER).join("log")).unwrap().len(), 1);
    disk.withhold_descriptors(false);
    write(10);
    assert!(disk.list(&Path::new(FOLDER).join("log")).unwrap().len() > 1);
    drop(store);
    let store = open_sim(&disk, lazy_small()).unwrap();
    assert!((0..20).all(|n| get(&*store, &key(n)).is_some()));
}

#[test]
fn an_index_that_can_not_be_written_is_survived() {
    let disk = SimDisk::default();
    let options = Options {
        overlay_octets: 20_000,
        ..options()
    };
    let store = open_sim(&disk, options).unwrap();
    put(&*store, key(0), b"before");
    disk.fail_writes_to(Some(&Path::new(FOLDER).join("index.redb")));
    let mut kept = Vec::new();
    // Memory is bounded: in the end batches are refused, and nothing hangs.
    let refused = (1..10_000).find_map(|n| {
        let mut batch = Batch::new();
        batch.put(key(n), pattern(100, n));
        match commit(&*store, batch) {
            Ok(_) => kept.push(n),
            Err(error) if kept.len() < 50 => assert_eq!(error, CommitError::Busy),
            Err(error) => return Some(error),
        }
        None
    });
    assert_eq!(refused, Some(CommitError::Busy));
    let all_there = |store: &dyn Store| kept.iter().all(|n| get(store, &key(*n)).is_some());
    until("a view of the index opened anew", || {
        let view = wait(store.snapshot()).unwrap();
        wait(view.get(&key(0))).ok().map(|found| assert!(found.is_some()))
    });
    let crashed = open_sim(&disk.after_kill(), lazy_small());
    disk.fail_writes_to(None);
    until("commits when the index works again", || {
        let mut batch = Batch::new();
        batch.put(key(20_000), b"after".to_vec());
        commit(&*store, batch).ok()
    });
    assert!(all_there(&*store) && all_there(&*crashed.unwrap()));
    store.close();
    let store = open_sim(&disk, lazy_small()).unwrap();
    assert!(all_there(&*store) && get(&*store, &key(20_000)).is_some());
}

#[test]
fn a_bug_behind_the_log_is_told_and_nobody_waits_for_ever() {
    let disk = SimDisk::default();
    let options = Options {
        overlay_octets: 20_000,
        reserve_octets: 1_000,
        ..options()
    };
    // The thread that fills the reserve is the one that brings the index up behind the log.
    disk.panic_at_write_to(&Path::new(FOLDER).join("reserve"));
    let store = open_sim(&disk, options).unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    let writer = store.clone();
    std::thread::spawn(move || {
        let mut kept = 0;
        let error = loop {
            let mut batch = Batch::new();
            batch.put(key(kept), pattern(100, kept));
            match commit(&*writer, batch) {
                Ok(_) => kept += 1,
                Err(error) => break error,
            }
        };
        drop(writer);
        told.send((kept, error)).unwrap();
    });
    let (kept, error) = heard.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(matches!(error, CommitError::Fatal(_)), "{error}");
    store.close();
    let store = open_sim(&disk, lazy_small()).unwrap();
    assert!((0..kept).all(|n| get(&*store, &key(n)).is_some()));
}
