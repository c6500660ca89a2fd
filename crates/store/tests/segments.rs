//! The life of the log's segments: made ahead, ended, dead, made the next again. Power cuts at
//! every operation of it, and stale groups that must never be taken for living ones.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::file::Disk as _;
use store::simulated::{Fault, SimDisk};
use store::{Batch, BlobError, BlobId, Blobs, LogStore, OpenError, Options, Store};

const FOLDER: &str = "/mail";
/// Steps of the workload.
const STEPS: u64 = 24;
/// Each step's blob, in octets.
const OCTETS: usize = 1500;

/// Segments of two groups, and the index right behind the log, so that segments die at once.
fn options() -> Options {
    Options {
        segment_octets: 4096,
        spare_segments: 2,
        index_cache_octets: 1 << 20,
        ..eager()
    }
}

fn open_sim(disk: &SimDisk, options: Options) -> Result<Arc<LogStore>, OpenError> {
    LogStore::open_on(Arc::new(disk.clone()), Path::new(FOLDER), options)
}

fn segment(n: u64) -> PathBuf {
    Path::new(FOLDER).join(format!("log/{n:016x}.log"))
}

fn segments(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.list(&Path::new(FOLDER).join("log")).unwrap();
    names.sort();
    names
}

/// Tries until it succeeds: the store does this work behind the commits.
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

/// One message in, another one out: what a relay does all day. Of the first hundred every eighth
/// stays.
fn step(store: &dyn Store, n: u64) -> Option<(BlobId, bool)> {
    let mut writer = wait(store.stage(0)).ok()?;
    wait(writer.write(&pattern(OCTETS, n))).ok()?;
    let staged = wait(writer.finish()).ok()?;
    let id = staged.id;
    let mut batch = Batch::new();
    batch.put_ref(key(n), vec![], vec![id]);
    batch.blob(staged);
    batch.put(key(1_000_000 + n), vec![1]);
    if n >= 2 && !stays(n - 2) {
        batch.delete(key(n - 2));
    }
    Some((id, commit(store, batch).is_ok()))
}

fn stays(n: u64) -> bool {
    n < 100 && n % 8 == 5
}

/// Steps, each behind the index of the one before it, as long as there is power.
fn workload(store: &LogStore, has_power: impl Fn() -> bool) -> Vec<(BlobId, bool)> {
    let one = |n| {
        let done = step(store, n);
        while store.stats().batches_unindexed > 0 && has_power() {
            std::thread::yield_now();
        }
        done
    };
    (0..STEPS).map_while(one).collect()
}

fn happened(store: &dyn Store, n: u64) -> bool {
    get(store, &key(1_000_000 + n)).is_some()
}

/// What was acknowledged is there, whole; every step happened as a whole or not at all.
fn check(store: &dyn Store, steps: &[(BlobId, bool)], about: &str) {
    for (n, (id, acknowledged)) in steps.iter().enumerate() {
        let n = n as u64;
        let there = happened(store, n);
        assert!(there || !acknowledged, "{about}: step {n} is lost");
        let lives = there && (stays(n) || !happened(store, n + 2));
        assert_eq!(get(store, &key(n)).is_some(), lives, "{about}: step {n}");
        let read = wait(store.read(*id, 0..u64::MAX));
        match lives {
            true => assert_eq!(read.unwrap(), pattern(OCTETS, n), "{about}: step {n}"),
            false => assert_eq!(read, Err(BlobError::NotFound(*id)), "{about}: step {n}"),
        }
    }
}

#[test]
fn dead_segments_become_the_next_ones() {
    let disk = SimDisk::default();
    let store = open_sim(&disk, options()).unwrap();
    let mut n = 0;
    until("segments are recycled", || {
        assert!(step(&*store, n).unwrap().1);
        n += 1;
        (store.stats().segments_recycled > 20).then_some(())
    });
    let living = (0..n).filter(|n| stays(*n)).count();
    until("what is more than the spares goes", || {
        // Those that live, the newest and the one ahead, the spares.
        (segments(&disk).len() <= living + 2 + 2 + 2).then_some(())
    });
    store.close();
    // A clean end gives back what is spare, and the room behind the last group.
    let left = segments(&disk);
    assert!(left.len() <= living + 2, "{left:?}");
    let last = disk.read(&Path::new(FOLDER).join("log").join(left.last().unwrap()));
    assert!(!last.is_empty() && last[last.len() - 512..].iter().any(|b| *b != 0));
    let store = open_sim(&disk, options()).unwrap();
    assert!((0..n).all(|n| happened(&*store, n)));
    assert!(step(&*store, n).unwrap().1);
}

#[test]
fn the_next_segment_is_there_before_it_is_needed() {
    let disk = SimDisk::default();
    let wide = Options {
        segment_octets: 1 << 20,
        ..options()
    };
    let store = open_sim(&disk, wide).unwrap();
    for n in 0..2500 {
        step(&*store, n).unwrap();
        if n % 20 != 0 {
            continue;
        }
        let (newest, end) = newest_with_groups(&disk).unwrap();
        if end > 300_000 {
            // Until it stands there the log writes no further, as with a disk that keeps up.
            until("the next segment", || {
                let next = segment(newest + 1);
                segments(&disk)
                    .iter()
                    .any(|name| next.ends_with(name))
                    .then_some(())
            });
        }
    }
    assert!(newest_with_groups(&disk).unwrap().0 > 4);
    assert_eq!(store.stats().segments_waited_for, 0, "no commit has waited");
}

#[test]
fn power_loss_at_any_operation_of_recycling_loses_nothing() {
    let disk = SimDisk::default();
    let store = open_sim(&disk, options()).unwrap();
    assert_eq!(workload(&store, || true).len() as u64, STEPS);
    let recycled = store.stats().segments_recycled;
    store.close();
    let all = disk.operations();
    assert!(all > 100 && recycled > 0, "{all} operations, {recycled} recycled");
    let mut recycled = 0;
    for at in 1..=all {
        let disk = SimDisk::default();
        disk.fail_at(at, Fault::PowerLoss);
        let steps = match open_sim(&disk, options()) {
            Ok(store) => {
                let steps = workload(&store, || disk.operations() < at);
                recycled += store.stats().segments_recycled;
                steps
            }
            Err(_) => Vec::new(),
        };
        let about = format!("power lost at operation {at}");
        let after = disk.after_power_loss(at * 2 + 1);
        let store = open_sim(&after, options()).unwrap_or_else(|e| panic!("{about}: {e}"));
        assert_eq!(LogStore::damage(&store), [], "{about}");
        check(&*store, &steps, &about);
        // And it goes on, through segments that the first run left dead or half made.
        let more = steps.len() as u64 + 2;
        let ids: Vec<_> = (more..more + 6).map(|n| step(&*store, n).unwrap()).collect();
        assert!(ids.iter().all(|(_, acknowledged)| *acknowledged), "{about}");
        let store =
            open_sim(&after.after_power_loss(at), options()).unwrap_or_else(|e| panic!("{about}: {e}"));
        assert!((more..more + 6).all(|n| happened(&*store, n)), "{about}");
        for (n, (id, _)) in (more..).zip(ids).skip(4) {
            assert_eq!(
                wait(store.read(id, 0..u64::MAX)).unwrap(),
                pattern(OCTETS, n),
                "{about}"
            );
        }
    }
    assert!(recycled > all, "{recycled}");
}

/// A store whose newest segment was recycled, with groups in it that the index does not have, and
/// stale groups behind them. Answers the disk as after a kill, the segment and its end.
fn with_stale_groups() -> (SimDisk, u64, u64) {
    let disk = SimDisk::default();
    // The index takes about fifteen steps at a time, a segment about thirty.
    let roomy = Options {
        segment_octets: 64 * 1024,
        apply_octets: 40_000,
        ..options()
    };
    let store = open_sim(&disk, roomy).unwrap();
    let mut n = 1000;
    until("groups in a segment that was another before", || {
        assert!(step(&*store, n).unwrap().1);
        n += 1;
        let stats = store.stats();
        let (_, end) = newest_with_groups(&disk)?;
        let inside = (24 * 1024..40 * 1024).contains(&end);
        (stats.segments_recycled > 3 && inside && (5..9).contains(&stats.batches_unindexed)).then_some(())
    });
    let crashed = disk.after_kill();
    let (number, end) = newest_with_groups(&crashed).unwrap();
    let bytes = crashed.read(&segment(number));
    let stale = bytes[end as usize..]
        .chunks(512)
        .filter(|b| b.starts_with(b"PHGROUP"));
    assert!(stale.count() > 5, "there must be something to be confused by");
    (crashed, number, end)
}

/// The newest segment with groups of its own, and where the last of them ends.
fn newest_with_groups(disk: &SimDisk) -> Option<(u64, u64)> {
    let names = segments(disk);
    let numbers = names
        .iter()
        .rev()
        .map(|name| u64::from_str_radix(&name[..16], 16).unwrap());
    numbers.into_iter().find_map(|number| {
        let bytes = disk.read(&segment(number));
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + 64)
            && head.starts_with(b"PHGROUP")
            && head[8..16] == number.to_be_bytes()
        {
            let u32_at = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap()) as usize;
            at += (64 + u32_at(36) + u32_at(40)).next_multiple_of(512);
        }
        (at > 0).then_some((number, at as u64))
    })
}

#[test]
fn stale_groups_behind_the_end_are_no_groups() {
    let (disk, number, end) = with_stale_groups();
    let store = open_sim(&disk.after_kill(), options()).unwrap();
    let seq = wait(store::Tables::snapshot(&*store)).unwrap().seq().0;
    assert_eq!(LogStore::damage(&store), []);
    drop(store);
    // The last group torn at each of its sectors: what was there before shows through.
    let whole = disk.read(&segment(number));
    let mut last = end as usize - 512;
    while !whole[last..].starts_with(b"PHGROUP") {
        last -= 512;
    }
    let stale = {
        // What a recycled file holds in a place: groups of another segment, at their own places.
        let mut stale = whole[last..end as usize].to_vec();
        stale[8..16].copy_from_slice(&(number - 1).to_be_bytes());
        let sum = crc32c::crc32c(&stale[..60]);
        stale[60..64].copy_from_slice(&sum.to_be_bytes());
        stale
    };
    for kept in 0..(end as usize - last) / 512 {
        let torn = disk.after_kill();
        let mut bytes = whole.clone();
        let from = kept * 512;
        bytes[last + from..end as usize].copy_from_slice(&stale[from..]);
        // Nothing of the group's second half survives as it was.
        bytes[last + from.max(512)..end as usize].fill(0x55);
        torn.write(&segment(number), &bytes);
        let store = open_sim(&torn, options()).unwrap();
        let now = wait(store::Tables::snapshot(&*store)).unwrap().seq().0;
        assert_eq!(now, seq - 1, "{kept} sectors of the last group");
        assert_eq!(LogStore::damage(&store), []);
    }
}

#[test]
fn damage_in_front_of_acknowledged_groups_is_seen_in_a_recycled_segment() {
    let (disk, number, end) = with_stale_groups();
    let bytes = disk.read(&segment(number));
    let mut places: Vec<usize> = (0..end as usize)
        .step_by(512)
        .filter(|at| bytes[*at..].starts_with(b"PHGROUP"))
        .collect();
    let last = places.pop().unwrap();
    for at in places.into_iter().rev().take(3) {
        let damaged = disk.after_kill();
        let mut bad = bytes.clone();
        bad[at + 30] ^= 1;
        damaged.write(&segment(number), &bad);
        let Err(OpenError::Damaged(damage)) = open_sim(&damaged, options()) else {
            panic!("damage at {at} must be told, the last group is at {last}");
        };
        assert_eq!((damage.segment, damage.offset), (number, at as u64));
    }
}

#[test]
fn a_pinned_log_keeps_every_file() {
    let disk = SimDisk::default();
    let store = open_sim(&disk, options()).unwrap();
    for n in 0..20 {
        step(&*store, n).unwrap();
    }
    let large = put_blob(&*store, key(500), &pattern(1_200_000, 1));
    let pin = store.pin_segments();
    let second = store.pin_segments();
    let (newest, _) = newest_with_groups(&disk).unwrap();
    let mut before = segments(&disk);
    before.retain(|name| !segment(newest).ends_with(name) && *name < format!("{newest:016x}"));
    let contents: Vec<Vec<u8>> = before
        .iter()
        .map(|n| disk.read(&Path::new(FOLDER).join("log").join(n)))
        .collect();
    let stats = store.stats();
    drop(second);
    for n in 20..120 {
        step(&*store, n).unwrap();
    }
    let mut batch = Batch::new();
    batch.delete(key(500));
    commit(&*store, batch).unwrap();
    for (name, old) in before.iter().zip(&contents) {
        let now = disk.read(&Path::new(FOLDER).join("log").join(name));
        assert!(now == *old, "{name} has changed");
    }
    let now = store.stats();
    assert_eq!(now.segments_removed, stats.segments_removed);
    let file = Path::new(FOLDER).join(format!("large/{large}.blob"));
    assert_eq!(disk.read(&file).len(), 1_200_000 + 19 * 4);
    assert!(segments(&disk).len() > 50, "what died is kept");
    drop(pin);
    until("the dead go when the pin is gone", || {
        (segments(&disk).len() < 30 && disk.list(&Path::new(FOLDER).join("large")).unwrap().is_empty())
            .then_some(())
    });
    assert!((0..120).all(|n| happened(&*store, n)));
}

#[test]
fn a_full_disk_takes_the_spares_first() {
    let disk = SimDisk::default();
    let many = Options {
        spare_segments: 1000,
        segment_octets: 16 * 1024,
        ..options()
    };
    let store = open_sim(&disk, many).unwrap();
    let pin = store.pin_segments();
    for n in 0..400 {
        step(&*store, n).unwrap();
    }
    let dead = segments(&disk).len();
    drop(pin);
    disk.set_room(Some(disk.used()));
    // The dead segments' room is enough to go on with new mail for ever.
    for n in 1400..1600 {
        until("there is room", || step(&*store, n)?.1.then_some(()));
    }
    assert!(segments(&disk).len() < dead, "{dead} before");
}

#[test]
fn what_dies_while_the_disk_is_full_makes_room() {
    let disk = SimDisk::default();
    let many = Options {
        spare_segments: 1000,
        segment_octets: 16 * 1024,
        reserve_octets: 64 * 1024,
        ..options()
    };
    let store = open_sim(&disk, many).unwrap();
    let take = |n: u64| {
        let staged = stage(&*store, &pattern(OCTETS, n));
        let mut batch = Batch::new();
        batch.put_ref(key(n), Vec::new(), vec![staged.id]);
        batch.blob(staged);
        commit(&*store, batch)
    };
    disk.set_room(Some(disk.used() + 512 * 1024));
    let taken = (0..).find(|n| take(*n).is_err()).unwrap();
    assert!(taken > 100, "{taken}");
    let mut gone = Batch::new();
    (0..taken).for_each(|n| gone.delete(key(n)));
    commit(&*store, gone).unwrap();
    // None of the segments that died just now may stay as a spare.
    until("there is room", || take(taken).ok());
}

#[test]
fn readers_never_take_another_segment_for_theirs() {
    let disk = SimDisk::default();
    let store = open_sim(&disk, options()).unwrap();
    let (told, heard) = std::sync::mpsc::channel::<(u64, BlobId)>();
    let reader = store.clone();
    let readers = std::thread::spawn(move || {
        let mut seen = [0u64; 2];
        for (n, id) in heard {
            match wait(reader.read(id, 0..u64::MAX)) {
                Ok(bytes) => {
                    assert_eq!(bytes, pattern(OCTETS, n));
                    seen[0] += 1;
                }
                Err(error) => {
                    assert_eq!(error, BlobError::NotFound(id));
                    seen[1] += 1;
                }
            }
        }
        seen
    });
    let mut ids: Vec<BlobId> = Vec::new();
    for n in 0..1500u64 {
        let (id, _) = step(&*store, n).unwrap();
        ids.push(id);
        // Young ones and ones that are just dying.
        for back in [0, 1, 2, 3] {
            if let Some(id) = ids.get((n.saturating_sub(back)) as usize) {
                told.send((n.saturating_sub(back), *id)).unwrap();
            }
        }
    }
    drop(told);
    let [living, gone] = readers.join().unwrap();
    assert!(living > 0 && gone > 0, "{living} read, {gone} gone");
    assert!(store.stats().segments_recycled > 10);
}
