//! Half-dead segments: what lives in them is copied forward, and their room comes back. Nobody
//! loses a message by it, whatever happens meanwhile.
#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::file::Disk as _;
use store::simulated::{Fault, SimDisk};
use store::{Batch, BlobError, BlobId, Blobs, LogStore, OpenError, Options, Store, Tables, VerifyOptions};

const FOLDER: &str = "/mail";
const OCTETS: usize = 1500;

/// Segments of about eight blobs.
fn options() -> Options {
    Options {
        segment_octets: 16 * 1024,
        spare_segments: 2,
        index_cache_octets: 1 << 20,
        collect_octets_per_second: u64::MAX,
        ..eager()
    }
}

fn open_sim(disk: &SimDisk, options: Options) -> Result<Arc<LogStore>, OpenError> {
    LogStore::open_on(Arc::new(disk.clone()), Path::new(FOLDER), options)
}

fn segment(n: u64) -> PathBuf {
    Path::new(FOLDER).join(format!("log/{n:016x}.log"))
}

fn segments(disk: &SimDisk) -> usize {
    disk.list(&Path::new(FOLDER).join("log")).unwrap().len()
}

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

/// A message that is stored; three of four are deleted when `back` later ones are there.
fn step(store: &dyn Store, n: u64, back: u64) -> Option<(BlobId, bool)> {
    let (id, batch) = batch(store, n, back)?;
    Some((id, commit(store, batch).is_ok()))
}

fn batch(store: &dyn Store, n: u64, back: u64) -> Option<(BlobId, Batch)> {
    let mut writer = wait(store.stage(0)).ok()?;
    wait(writer.write(&pattern(OCTETS, n))).ok()?;
    let staged = wait(writer.finish()).ok()?;
    let id = staged.id;
    let mut batch = Batch::new();
    batch.put_ref(key(n), vec![], vec![id]);
    batch.blob(staged);
    batch.put(key(1_000_000 + n), vec![1]);
    if n >= back && !stays(n - back) {
        batch.delete(key(n - back));
    }
    Some((id, batch))
}

fn stays(n: u64) -> bool {
    n % 4 == 1
}

fn happened(store: &dyn Store, n: u64) -> bool {
    get(store, &key(1_000_000 + n)).is_some()
}

fn check(store: &dyn Store, steps: &[(BlobId, bool)], back: u64, about: &str) {
    for (n, (id, acknowledged)) in steps.iter().enumerate() {
        let n = n as u64;
        let there = happened(store, n);
        assert!(there || !acknowledged, "{about}: step {n} is lost");
        let lives = there && (stays(n) || !happened(store, n + back));
        assert_eq!(get(store, &key(n)).is_some(), lives, "{about}: step {n}");
        let read = wait(store.read(*id, 0..u64::MAX));
        match lives {
            true => assert_eq!(read.unwrap(), pattern(OCTETS, n), "{about}: step {n}"),
            false => assert_eq!(read, Err(BlobError::NotFound(*id)), "{about}: step {n}"),
        }
    }
}

/// Counts of references, figures of segments, every octet.
fn is_sound(store: &LogStore, about: &str) {
    let mut found = Vec::new();
    let mut go_on = |_: &store::Progress| std::ops::ControlFlow::Continue(());
    store
        .still()
        .verify(
            VerifyOptions { deep: true },
            &mut |finding| found.push(finding),
            &mut go_on,
        )
        .unwrap();
    assert_eq!(found, [], "{about}");
}

fn fill(store: &dyn Store, steps: u64, back: u64) -> Vec<(BlobId, bool)> {
    (0..steps).map_while(|n| step(store, n, back)).collect()
}

#[test]
fn half_dead_segments_give_their_room_back() {
    let disk = SimDisk::default();
    let store = open_sim(&disk, options()).unwrap();
    let steps = fill(&*store, 400, 20);
    until("half-dead segments are emptied", || {
        (store.stats().segments_collected > 20 && segments(&disk) < 30).then_some(())
    });
    let stats = store.stats();
    assert!(
        stats.blobs_moved > 20 && stats.octets_moved == stats.blobs_moved * OCTETS as u64,
        "{stats:?}"
    );
    assert_eq!((stats.damage_found, store.damage_found()), (0, vec![]));
    check(&*store, &steps, 20, "running");
    is_sound(&store, "running");
    let killed = disk.after_kill();
    store.close();
    drop(store);
    for disk in [disk, killed] {
        let store = open_sim(&disk, options()).unwrap();
        check(&*store, &steps, 20, "opened anew");
        // What was moved dies like any other.
        for n in 0..400 {
            let mut batch = Batch::new();
            batch.delete(key(n));
            commit(&*store, batch).unwrap();
        }
        until("all segments die", || (segments(&disk) <= 6).then_some(()));
    }
}

#[test]
fn power_loss_at_any_operation_of_collecting_loses_nothing() {
    // In steps: the same run up to the cut, every time.
    let run = |disk: &SimDisk| {
        let opened = LogStore::open_stepped(Arc::new(disk.clone()), Path::new(FOLDER), options());
        let Ok((store, mut stepper)) = opened else {
            return (Vec::new(), 0);
        };
        let mut steps = Vec::new();
        for n in 0..36 {
            let Some((id, batch)) = batch(&*store, n, 6) else {
                break;
            };
            let answer = store.commit(batch);
            stepper.commit();
            steps.push((id, wait(answer).is_ok()));
            stepper.apply();
        }
        // Copies are handed over, committed, taken up.
        for _ in 0..12 {
            stepper.apply();
            stepper.commit();
        }
        let moved = store.stats().blobs_moved;
        if !disk.has_lost_power() {
            stepper.close();
        }
        (steps, moved)
    };
    let disk = SimDisk::default();
    let (steps, moved) = run(&disk);
    assert!(steps.iter().all(|s| s.1) && moved > 0, "{moved} moved");
    let all = disk.operations();
    let mut moved_in_all = 0;
    for at in 1..=all {
        let disk = SimDisk::default();
        disk.fail_at(at, Fault::PowerLoss);
        let (steps, moved) = run(&disk);
        moved_in_all += moved;
        let about = format!("power lost at operation {at}");
        let store = open_sim(&disk.after_power_loss(at * 2 + 1), options())
            .unwrap_or_else(|e| panic!("{about}: {e}"));
        assert_eq!(LogStore::damage(&store), [], "{about}");
        check(&*store, &steps, 6, &about);
        is_sound(&store, &about);
    }
    assert!(moved_in_all > 100, "{moved_in_all}");
}

#[test]
fn a_damaged_blob_stays_where_it_is_and_is_told() {
    let disk = SimDisk::default();
    let never = Options {
        collect_below_percent: 0,
        ..options()
    };
    let store = open_sim(&disk, never).unwrap();
    let steps = fill(&*store, 60, 20);
    store.close();
    assert_eq!(store.stats().blobs_moved, 0);
    drop(store);
    let before = segments(&disk);
    let mut file = disk.read(&segment(1));
    let bytes = pattern(OCTETS, 1);
    let at = file.windows(OCTETS).position(|w| w == bytes).unwrap();
    file[at + 700] ^= 1;
    disk.write(&segment(1), &file);
    let store = open_sim(
        &disk,
        Options {
            spare_segments: 0,
            ..options()
        },
    )
    .unwrap();
    until("what is whole is moved", || {
        (store.stats().segments_collected >= 2).then_some(())
    });
    let found = until("the damage is told", || store.damage_found().first().cloned());
    assert_eq!((found.segment, found.offset), (1, at as u64));
    assert_eq!(store.stats().damage_found, 1, "and told once");
    let read = |n: usize| wait(Blobs::read(&*store, steps[n].0, 0..u64::MAX));
    assert_eq!(read(1), Err(BlobError::Corrupt(steps[1].0)));
    assert_eq!(read(5).unwrap(), pattern(OCTETS, 5));
    until("other segments go", || (segments(&disk) < before).then_some(()));
    assert!(!disk.read(&segment(1)).is_empty(), "its segment stays");
    // Gone with its entry, and the segment with it.
    let mut batch = Batch::new();
    batch.delete(key(1));
    commit(&*store, batch).unwrap();
    until("the segment dies at last", || {
        disk.read(&segment(1)).is_empty().then_some(())
    });
}

#[test]
fn nothing_is_copied_without_room_for_the_whole_segment() {
    let disk = SimDisk::default();
    let never = Options {
        collect_below_percent: 0,
        reserve_octets: 64 * 1024,
        ..options()
    };
    let store = open_sim(&disk, never.clone()).unwrap();
    let steps = fill(&*store, 80, 20);
    store.close();
    drop(store);
    // Room for a few commits and for the index, but not for copies and twice the reserve.
    disk.set_room(Some(disk.used() + 100 * 1024));
    let collecting = Options {
        collect_below_percent: 50,
        ..never
    };
    let store = open_sim(&disk, collecting).unwrap();
    for n in 0..10 {
        let mut batch = Batch::new();
        batch.put(key(2_000_000), vec![n]);
        let _ = commit(&*store, batch);
    }
    assert_eq!(store.stats().blobs_moved, 0);
    disk.set_room(None);
    until("copying goes on when there is room", || {
        (store.stats().segments_collected > 2).then_some(())
    });
    check(&*store, &steps, 20, "with room");
}

#[test]
fn nothing_moves_while_the_log_is_pinned() {
    let disk = SimDisk::default();
    let store = open_sim(&disk, options()).unwrap();
    let pin = store.pin_segments();
    let steps = fill(&*store, 100, 20);
    until("the index follows", || {
        (store.stats().batches_unindexed == 0).then_some(())
    });
    assert_eq!(
        (store.stats().blobs_moved, store.stats().segments_recycled),
        (0, 0)
    );
    drop(pin);
    until("then they do", || {
        (store.stats().segments_collected > 2).then_some(())
    });
    check(&*store, &steps, 20, "after the pin");
}

#[test]
fn readers_never_meet_a_blob_on_its_way() {
    let disk = SimDisk::default();
    let store = open_sim(&disk, options()).unwrap();
    let (told, heard) = std::sync::mpsc::channel::<(u64, BlobId)>();
    let reader = store.clone();
    let readers = std::thread::spawn(move || {
        let mut kept: Vec<(u64, BlobId)> = Vec::new();
        let mut read = 0u64;
        for (n, id) in heard {
            kept.push((n, id));
            // Each stays for ever, so each must be read wherever it is by now.
            for (n, id) in kept.iter().rev().take(60) {
                assert_eq!(wait(reader.read(*id, 0..u64::MAX)).unwrap(), pattern(OCTETS, *n));
                read += 1;
            }
        }
        read
    });
    for n in 0..1000 {
        let (id, acknowledged) = step(&*store, n, 6).unwrap();
        if acknowledged && stays(n) {
            told.send((n, id)).unwrap();
        }
    }
    drop(told);
    assert!(readers.join().unwrap() > 1000);
    assert!(store.stats().blobs_moved > 50, "{:?}", store.stats());
}
