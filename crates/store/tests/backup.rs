//! Backups: what is in them, what survives what, and what is found.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use store::backup::{
    BackupError, DataFile, NotReadable, Plan, Report, RestoreError, RestoreOptions, Restored, restore,
    to_folder, to_stream, verify,
};
use store::file::{Disk, RealDisk};
use store::simulated::{Fault, SimDisk};
use store::{Batch, Blobs as _, Key, LogStore, OpenError, Tables as _, Walked};

fn plan(n: i64) -> Plan {
    Plan {
        time: n,
        label: format!("label{n}"),
        program: "a test".to_owned(),
        keep: 7,
        files: vec![DataFile {
            path: "tls/key.pem".to_owned(),
            octets: b"a key".to_vec(),
        }],
    }
}

fn backup(store: &LogStore, disk: &dyn Disk, n: i64) -> Result<Report, BackupError> {
    to_folder(store, disk, Path::new("/b"), &plan(n), &mut |_| true)
}

fn found(disk: &dyn Disk, path: &Path) -> Result<Vec<String>, NotReadable> {
    verify(disk, path, &mut |_, _| true).map(|survey| survey.findings.named)
}

fn restore_from(disk: &SimDisk, skip_damage: bool) -> Result<Restored, RestoreError> {
    let options = RestoreOptions {
        skip_damage,
        identity: Some(77),
    };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    restore(&disk, Path::new("/b"), Path::new("/new"), options, &mut |_, _| {
        true
    })
}

/// An entry: version, value, and the octets of its blobs (`None`: not readable).
type Content = BTreeMap<Key, (u64, Vec<u8>, Vec<Option<Vec<u8>>>)>;

/// All entries, and all counters that are not 0.
fn contents(store: &LogStore) -> (Content, BTreeMap<Key, i64>) {
    let (mut entries, mut counters) = (BTreeMap::new(), BTreeMap::new());
    let mut walk = store.walk();
    loop {
        let page = walk.page(1000).unwrap();
        if page.is_empty() {
            return (entries, counters);
        }
        for row in page {
            match row {
                Walked::Entry {
                    key,
                    version,
                    refs,
                    value,
                } => {
                    let blobs = refs.iter().map(|id| wait(store.read(*id, 0..u64::MAX)).ok());
                    let blobs = blobs.map(|bytes| bytes.map(|b| b.to_vec())).collect();
                    entries.insert(key, (version, value.to_vec(), blobs));
                }
                Walked::Counter { key, count } => {
                    counters.insert(key, count);
                }
                _ => {}
            }
        }
    }
}

fn open_on(disk: &SimDisk, path: &str) -> Result<Arc<LogStore>, OpenError> {
    LogStore::open_on(Arc::new(disk.clone()), Path::new(path), lazy())
}

/// A store with blobs of all sizes, shared references and counters.
fn sample(disk: &SimDisk) -> Arc<LogStore> {
    let store = open_on(disk, "/s").unwrap();
    for (n, len) in [
        (1, 0),
        (2, 1),
        (3, 700),
        (4, 65_536),
        (5, 70_000),
        (6, 1_048_577),
        (7, 900),
    ] {
        put_blob(&*store, key(n), &pattern(len, n));
    }
    let shared = put_blob(&*store, key(8), &pattern(5000, 8));
    let mut batch = Batch::new();
    batch.put_ref(key(9), b"the same blob".to_vec(), vec![shared, shared]);
    batch.put(key(10), b"no blob".to_vec());
    batch.add(key(11), -42);
    batch.alloc(key(12), 5);
    commit(&*store, batch).unwrap();
    let mut batch = Batch::new();
    batch.delete(key(7));
    commit(&*store, batch).unwrap();
    store
}

#[test]
fn a_restored_store_is_the_same_and_goes_on() {
    let disk = SimDisk::default();
    let store = sample(&disk);
    let report = backup(&store, &disk, 1).unwrap();
    assert_eq!((report.entries, report.counters, report.blobs), (9, 2, 7));
    assert!(report.damage.is_empty() && report.notes.is_empty(), "{report:?}");
    assert_eq!(found(&disk, Path::new("/b")).unwrap(), Vec::<String>::new());
    let restored = restore_from(&disk, false).unwrap();
    assert_eq!(restored.files, plan(1).files);
    assert_eq!(restored.blobs, 7);
    let new = open_on(&disk, "/new").unwrap();
    assert_eq!(contents(&new), contents(&store));
    assert_ne!(new.identity(), store.identity());
    assert!(wait(new.snapshot()).unwrap().seq() >= wait(store.snapshot()).unwrap().seq());
    // Counters go on, blobs get names of their own, references are counted.
    let mut batch = Batch::new();
    let slot = batch.alloc(key(12), 1);
    assert_eq!(commit(&*new, batch).unwrap().value(slot), 6);
    let id = put_blob(&*new, key(13), b"new");
    assert!(
        wait(store.read(id, 0..9)).is_err(),
        "the old store has no such blob"
    );
    for n in [8, 9, 6] {
        let mut batch = Batch::new();
        batch.delete(key(n));
        commit(&*new, batch).unwrap();
    }
    new.close();
    let again = open_on(&disk, "/new").unwrap();
    let blobs = |store: &LogStore| {
        let mut walk = store.walk();
        let mut n = 0;
        while let page @ [_, ..] = &walk.page(100).unwrap()[..] {
            n += page
                .iter()
                .filter(|row| matches!(row, Walked::Blob { .. }))
                .count();
        }
        n
    };
    assert_eq!(blobs(&again), 6, "five old ones and the new one");
    assert_eq!(disk.list(Path::new("/new/large")).unwrap(), Vec::<String>::new());
}

#[test]
fn the_second_backup_writes_what_is_new() {
    let disk = SimDisk::default();
    let store = sample(&disk);
    let first = backup(&store, &disk, 1).unwrap();
    assert!(first.octets_written > first.blob_octets && first.blobs_new == 7);
    put_blob(&*store, key(20), &pattern(3000, 20));
    let second = backup(&store, &disk, 2).unwrap();
    assert_eq!((second.blobs, second.blobs_new), (8, 1));
    assert!(
        second.octets_written < 3000 + 4000,
        "{} octets",
        second.octets_written
    );
    assert_eq!(found(&disk, Path::new("/b")).unwrap(), Vec::<String>::new());
    let third = backup(&store, &disk, 3).unwrap();
    assert_eq!(third.blobs_new, 0);
    assert_eq!(restore_from(&disk, false).unwrap().survey.time, 3);
    // An older one can be named.
    let old = first.file.unwrap();
    assert_eq!(verify(&disk, &old, &mut |_, _| true).unwrap().blobs, 7);
}

#[test]
fn old_backups_go_and_what_only_they_needed() {
    let disk = SimDisk::default();
    let store = sample(&disk);
    let small = Plan { keep: 2, ..plan(1) };
    let run = |n| {
        let plan = Plan {
            time: n,
            ..small.clone()
        };
        to_folder(&store, &disk, Path::new("/b"), &plan, &mut |_| true).unwrap()
    };
    run(1);
    let mut batch = Batch::new();
    (2..=8).for_each(|n| batch.delete(key(n)));
    commit(&*store, batch).unwrap();
    put_blob(&*store, key(30), &pattern(100, 30));
    let octets = || -> usize {
        let packs = disk.list(Path::new("/b/packs")).unwrap();
        packs
            .iter()
            .map(|name| disk.read(&Path::new("/b/packs").join(name)).len())
            .sum()
    };
    let full = octets();
    assert_eq!(run(2).removed, 0);
    assert!(octets() > full, "nothing goes while the first backup needs it");
    assert_eq!(run(3).removed, 1);
    assert!(octets() < 8000, "{} octets", octets());
    assert_eq!(disk.list(Path::new("/b/rows")).unwrap().len(), 2);
    assert_eq!(found(&disk, Path::new("/b")).unwrap(), Vec::<String>::new());
    restore_from(&disk, false).unwrap();
    assert_eq!(contents(&open_on(&disk, "/new").unwrap()), contents(&store));
}

#[test]
fn many_small_packs_become_one() {
    let disk = SimDisk::default();
    let store = open_on(&disk, "/s").unwrap();
    for n in 0..20 {
        put_blob(&*store, key(n), &pattern(100, n));
        backup(&store, &disk, n as i64).unwrap();
    }
    assert!(disk.list(Path::new("/b/packs")).unwrap().len() < 16);
    assert_eq!(found(&disk, Path::new("/b")).unwrap(), Vec::<String>::new());
}

#[test]
fn a_stream_holds_everything() {
    let disk = SimDisk::default();
    let store = sample(&disk);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stream");
    let (bytes, report) = to_stream(&store, Vec::new(), &path, &plan(1), &mut |_| true).unwrap();
    assert_eq!(report.blobs, 7);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(found(&RealDisk, &path).unwrap(), Vec::<String>::new());
    let real: Arc<dyn Disk> = Arc::new(RealDisk);
    let new = folder.path().join("new");
    let restored = restore(&real, &path, &new, RestoreOptions::default(), &mut |_, _| true).unwrap();
    assert_eq!(restored.survey.seq, report.seq);
    assert_eq!(contents(&open(&new, lazy())), contents(&store));
    let again = restore(&real, &path, &new, RestoreOptions::default(), &mut |_, _| true);
    assert!(matches!(again, Err(RestoreError::NotEmpty(_))));
    for cut in (0..bytes.len())
        .step_by(9973)
        .chain(bytes.len() - 30..bytes.len())
    {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let verified = found(&RealDisk, &path);
        assert!(verified.is_err() || !verified.unwrap().is_empty(), "cut at {cut}");
    }
}

/// Every file of the backup, in order.
fn files(disk: &SimDisk) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = ["/b/packs", "/b/rows"]
        .iter()
        .flat_map(|folder| {
            disk.list(Path::new(folder))
                .unwrap()
                .into_iter()
                .map(move |n| Path::new(folder).join(n))
        })
        .collect();
    out.sort();
    out
}

#[test]
fn every_flipped_bit_and_every_cut_is_found_and_nothing_panics() {
    let disk = SimDisk::default();
    let store = open_on(&disk, "/s").unwrap();
    for n in 0..6 {
        put_blob(&*store, key(n), &pattern(300, n));
    }
    let mut batch = Batch::new();
    batch.add(key(9), 3);
    commit(&*store, batch).unwrap();
    backup(&store, &disk, 1).unwrap();
    let whole = contents(&store);
    for path in files(&disk) {
        let good = disk.read(&path);
        let spots = (0..good.len())
            .map(|at| (at, true))
            .chain((0..good.len()).step_by(37).map(|at| (at, false)));
        for (at, flip) in spots {
            let mut bad = good.clone();
            if flip {
                bad[at] ^= 1 << (at % 8);
            } else {
                bad.truncate(at);
            }
            let broken = disk.after_kill();
            broken.write(&path, &bad);
            let again = broken.after_kill();
            let place = format!("{} at {at}, flip: {flip}", path.display());
            let verified = found(&broken, Path::new("/b"));
            assert!(
                verified.as_ref().map_or(true, |found| !found.is_empty()),
                "{place}"
            );
            // Restored either whole, or refused.
            match restore_from(&broken, false) {
                Ok(_) => assert!(contents(&open_on(&broken, "/new").unwrap()) == whole, "{place}"),
                Err(RestoreError::Damaged(_) | RestoreError::NotReadable { .. }) => {}
                Err(other) => panic!("{place}: {other}"),
            }
            if at % 7 > 0 {
                continue;
            }
            // Told to go on, it restores what is whole and nothing else.
            if let Ok(restored) = restore_from(&again, true) {
                let (entries, _) = contents(&open_on(&again, "/new").unwrap());
                for (key, (version, value, blobs)) in &entries {
                    let (was_version, was, had) = &whole.0[key];
                    assert_eq!((version, value), (was_version, was), "{place}");
                    assert!(blobs[0].is_none() || blobs == had, "{place}");
                }
                let all = entries == whole.0;
                assert!(all || !restored.survey.findings.is_empty(), "{place}");
            }
        }
    }
}

#[test]
fn an_interrupted_backup_leaves_the_one_before_whole() {
    let source = SimDisk::default();
    let store = sample(&source);
    let disk = SimDisk::default();
    let keep_one = |n| Plan { keep: 1, ..plan(n) };
    let run = |disk: &SimDisk, n| to_folder(&store, disk, Path::new("/b"), &keep_one(n), &mut |_| true);
    run(&disk, 1).unwrap();
    let before = contents(&store);
    // Most of the first backup's blobs go, so that its packs are written anew too.
    let mut batch = Batch::new();
    (3..=6).for_each(|n| batch.delete(key(n)));
    commit(&*store, batch).unwrap();
    put_blob(&*store, key(40), &pattern(2_000_000, 40));
    let after = contents(&store);
    let mut interrupted = 0;
    for n in 1.. {
        let trial = disk.after_kill();
        trial.fail_at(n, Fault::PowerLoss);
        let made = run(&trial, 2);
        let over = trial.operations() < n;
        for seed in [0, n, !n] {
            let left = trial.after_power_loss(seed);
            let restored = restore_from(&left, false).unwrap();
            let new = contents(&open_on(&left, "/new").unwrap());
            match restored.survey.time {
                1 => assert!(new == before && made.is_err(), "operation {n}, seed {seed}"),
                _ => assert!(new == after, "operation {n}, seed {seed}"),
            }
            if seed == 0 {
                let next = run(&left, 3).unwrap();
                assert!(next.notes.is_empty(), "{:?}", next.notes);
                assert_eq!(found(&left, Path::new("/b")).unwrap(), Vec::<String>::new());
            }
        }
        if over {
            break;
        }
        interrupted += 1;
    }
    assert!(interrupted > 20, "{interrupted} operations");
}

#[test]
fn an_interrupted_restore_is_told_and_never_opens() {
    let disk = SimDisk::default();
    let store = sample(&disk);
    backup(&store, &disk, 1).unwrap();
    let whole = contents(&store);
    for n in 1.. {
        let trial = disk.after_kill();
        trial.fail_at(n, Fault::PowerLoss);
        let restored = restore_from(&trial, false);
        let over = trial.operations() < n;
        for seed in [0, n] {
            let left = trial.after_power_loss(seed);
            let begun = left.list(Path::new("/new")).is_ok_and(|names| !names.is_empty());
            match open_on(&left, "/new") {
                Ok(new) if restored.is_ok() => assert!(contents(&new) == whole, "operation {n}"),
                Ok(new) => {
                    // Before the mark was durable there was nothing; behind the last rename, all.
                    let now = contents(&new);
                    assert!(
                        now == whole || now.0.is_empty() && now.1.is_empty(),
                        "operation {n}"
                    );
                }
                Err(OpenError::Format(why)) => assert!(begun && why.contains("restor"), "{why}"),
                Err(other) => panic!("operation {n}: {other}"),
            }
        }
        if over {
            break;
        }
    }
}

#[test]
fn what_is_damaged_in_the_store_is_named_and_the_rest_is_saved() {
    let disk = SimDisk::default();
    let store = sample(&disk);
    store.close();
    let log = Path::new("/s/log/0000000000000001.log");
    let mut bytes = disk.read(log);
    let octets = pattern(700, 3);
    let at = bytes.windows(700).position(|w| w == octets).unwrap();
    bytes[at + 350] ^= 4;
    disk.write(log, &bytes);
    let store = open_on(&disk, "/s").unwrap();
    let report = backup(&store, &disk, 1).unwrap();
    assert_eq!(
        (report.blobs, report.entries, report.damage.count),
        (6, 9, 1),
        "{report:?}"
    );
    assert!(report.damage.named[0].contains("damaged"), "{:?}", report.damage);
    let survey = verify(&disk, Path::new("/b"), &mut |_, _| true).unwrap();
    assert!(
        survey.findings.is_empty(),
        "the backup itself is whole: {:?}",
        survey.findings
    );
    assert_eq!(survey.store_damage, report.damage);
    restore_from(&disk, false).unwrap();
    let (new, _) = contents(&open_on(&disk, "/new").unwrap());
    let (mut old, _) = contents(&store);
    assert_eq!(old[&key(3)].2, vec![None]);
    old.retain(|_, _| true);
    assert_eq!(new, old);
}

#[test]
fn one_backup_at_a_time_and_none_without_room() {
    let disk = SimDisk::default();
    let store = sample(&disk);
    let lock = disk.lock(Path::new("/b/lock")).unwrap();
    assert!(matches!(backup(&store, &disk, 1), Err(BackupError::Busy(_))));
    drop(lock);
    disk.set_room(Some(disk.used() + 100_000));
    assert!(matches!(backup(&store, &disk, 1), Err(BackupError::Full(_))));
    disk.set_room(None);
    let mut calls = 0;
    let stopped = to_folder(&store, &disk, Path::new("/b"), &plan(1), &mut |_| {
        calls += 1;
        calls < 3
    });
    assert!(matches!(stopped, Err(BackupError::Stopped)));
    assert!(found(&disk, Path::new("/b")).is_err(), "there is no backup yet");
    backup(&store, &disk, 1).unwrap();
}

#[test]
fn a_busy_store_is_saved_as_it_was_after_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    let options = store::Options {
        segment_octets: 256 * 1024,
        apply_octets: 1,
        ..lazy()
    };
    let store = open(&folder.path().join("store"), options);
    const WRITERS: u64 = 3;
    // Acknowledged before the backup and never deleted.
    for n in 0..200 {
        put_blob(&*store, key(n), &pattern(2000 + n as usize, n));
    }
    let before = contents(&store).0;
    let stop = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for writer in 1..=WRITERS {
            let (store, stop, rounds) = (&store, &stop, &rounds);
            scope.spawn(move || {
                let base = writer * 1_000_000;
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    // The entry, a counter of entries, and the one ten rounds ago gone: as one.
                    let staged = stage(&**store, &pattern(3000, base + n));
                    let mut batch = Batch::new();
                    batch.put_ref(key(base + n), b"x".to_vec(), vec![staged.id]);
                    batch.blob(staged);
                    batch.add(Key::table(8).u64(writer), 1);
                    if n >= 10 {
                        batch.delete(key(base + n - 10));
                        batch.add(Key::table(8).u64(writer), -1);
                    }
                    commit(&**store, batch).unwrap();
                    n += 1;
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for n in 0..4 {
            let so_far = rounds.load(Ordering::Relaxed);
            while rounds.load(Ordering::Relaxed) < so_far + 50 {
                std::thread::yield_now();
            }
            let report = to_folder(&store, &RealDisk, &folder.path().join("b"), &plan(n), &mut |_| {
                true
            })
            .unwrap();
            assert!(report.damage.is_empty(), "{:?}", report.damage);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let rows: BTreeSet<PathBuf> = std::fs::read_dir(folder.path().join("b/rows"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(rows.len(), 4);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    for (n, path) in rows.iter().enumerate() {
        assert_eq!(found(&RealDisk, path).unwrap(), Vec::<String>::new());
        let new = folder.path().join(format!("new{n}"));
        restore(&disk, path, &new, RestoreOptions::default(), &mut |_, _| true).unwrap();
        let (entries, counters) = contents(&open(&new, lazy()));
        for (key, content) in &before {
            assert_eq!(entries.get(key), Some(content));
        }
        assert!(
            entries
                .values()
                .all(|(_, _, blobs)| blobs.iter().all(Option::is_some))
        );
        for writer in 1..=WRITERS {
            let range = key(writer * 1_000_000)..key((writer + 1) * 1_000_000);
            let there = entries.range(range).count() as i64;
            assert_eq!(
                counters.get(&Key::table(8).u64(writer)).copied().unwrap_or(0),
                there
            );
        }
    }
}
