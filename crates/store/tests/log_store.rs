//! What only the embedded engine promises: durability, recovery, and honesty about damage.
#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use std::path::{Path, PathBuf};
use store::{
    Batch, BlobError, CommitError, CommitId, Key, LogStore, OpenError, Options, ReadError, Require, Store,
    Tables,
};

fn segment(path: &Path, n: u64) -> PathBuf {
    path.join(format!("log/{n:016x}.log"))
}

fn segments(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn larges(path: &Path) -> usize {
    std::fs::read_dir(path.join("large")).unwrap().count()
}

#[test]
fn reopening_shows_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut ids = Vec::new();
    for (round, options) in [lazy(), eager(), lazy(), eager()].into_iter().enumerate() {
        let store = open(folder.path(), options);
        for n in 0..30 {
            let at = round as u64 * 30 + n;
            let len = if n == 7 { 1_500_000 } else { 3000 };
            ids.push((at, len, put_blob(&*store, key(at), &pattern(len, at))));
            let mut batch = Batch::new();
            batch.name(CommitId(u128::from(at)));
            batch.alloc(key(1000), 1);
            assert_eq!(commit(&*store, batch).unwrap().allocated, [at + 1]);
        }
        for (at, len, id) in &ids {
            assert_eq!(
                wait(store::Blobs::read(&*store, *id, 0..u64::MAX)).unwrap(),
                pattern(*len, *at)
            );
        }
        let mut again = Batch::new();
        again.name(CommitId(0));
        again.alloc(key(1000), 1);
        assert_eq!(commit(&*store, again).unwrap().allocated, [1]);
        store.close();
        let refused = commit(&*store, Batch::new());
        assert!(matches!(refused, Err(CommitError::Fatal(_))));
        let view = wait(store.snapshot()).unwrap();
        assert!(matches!(
            wait(view.get(&key(0))),
            Ok(Some(_)) | Err(ReadError::Io(_))
        ));
    }
}

/// Rows that come and go before the index hears of them leave nothing to hide; those of which it knows must stay
/// hidden. `+` puts, `-` deletes, `.` opens anew, with all before it in the index.
#[test]
fn a_row_is_as_the_last_batch_left_it_whoever_knows_of_it() {
    let all = store::KeyRange {
        start: key(0),
        end: key(100),
    };
    let tales = [
        "+-", "+-.", "+-+", "+-+-.", "+.-", "+.-+-", "+.-+-.", "+.-.+-", "+-.+-+.", "+.-+.-",
    ];
    for tale in tales {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path(), lazy());
        let mut is_there = false;
        for op in tale.chars() {
            let mut batch = Batch::new();
            match op {
                '+' => batch.put(key(1), vec![7]),
                '-' => batch.delete(key(1)),
                _ => {
                    store.close();
                    store = open(folder.path(), lazy());
                }
            }
            if op != '.' {
                commit(&*store, batch).unwrap();
                is_there = op == '+';
            }
            assert_eq!(get(&*store, &key(1)).is_some(), is_there, "{op} in {tale}");
            assert_eq!(scan(&*store, &all).len(), usize::from(is_there), "{op} in {tale}");
        }
    }
}

#[test]
fn a_second_opening_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), lazy());
    let second = LogStore::open(folder.path(), lazy()).err().unwrap();
    assert_eq!(second, OpenError::Locked(folder.path().to_owned()));
    assert!(second.to_string().contains("another process"));
    store.close();
    open(folder.path(), lazy());
}

#[test]
fn a_crash_at_any_moment_keeps_what_was_acknowledged() {
    for options in [lazy(), eager()] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), options.clone());
        for n in 0..40u64 {
            put_blob(&*store, key(n), &pattern(500, n));
            let mut batch = Batch::new();
            batch.add(key(100), 1);
            batch.add(key(101), -1);
            commit(&*store, batch).unwrap();
            if n % 4 != 0 {
                continue;
            }
            // Log last: a copy is no instant, and the index must not be newer than the log.
            let crashed = tempfile::tempdir().unwrap();
            copy_index_first(folder.path(), crashed.path());
            let after = open(crashed.path(), options.clone());
            for old in 0..=n {
                assert!(get(&*after, &key(old)).is_some(), "{old} of {n}");
            }
            assert_eq!(counter(&*after, &key(100)), n as i64 + 1);
            assert_eq!(counter(&*after, &key(101)), -(n as i64) - 1);
            put(&*after, key(500), b"goes on");
        }
    }
}

fn copy_index_first(from: &Path, to: &Path) {
    // The applier may be at work, so a torn index copy is possible here that no crash leaves:
    // copy until the file stands still.
    loop {
        let name = "index.redb";
        let before = std::fs::read(from.join(name)).unwrap();
        std::fs::write(to.join(name), &before).unwrap();
        if std::fs::read(from.join(name)).unwrap() == before {
            break;
        }
    }
    std::fs::copy(from.join("store"), to.join("store")).unwrap();
    copy(&from.join("log"), &to.join("log"));
    copy(&from.join("large"), &to.join("large"));
}

#[test]
fn damage_in_front_of_acknowledged_groups_is_an_error() {
    let live = tempfile::tempdir().unwrap();
    let store = open(live.path(), lazy());
    let mut ends = vec![0];
    for n in 0..3 {
        put(&*store, key(n), b"value");
        ends.push(store.stats().log_octets);
    }
    let folder = tempfile::tempdir().unwrap();
    copy_index_first(live.path(), folder.path());
    let mut bytes = std::fs::read(segment(folder.path(), 1)).unwrap();
    bytes[ends[1] as usize + 70] ^= 1;
    std::fs::write(segment(folder.path(), 1), bytes).unwrap();
    let Err(OpenError::Damaged(damage)) = LogStore::open(folder.path(), lazy()) else {
        panic!("damage must be reported");
    };
    assert_eq!((damage.segment, damage.offset), (1, ends[1]));
    let skipping = Options {
        skip_damage: true,
        ..lazy()
    };
    let store = open(folder.path(), skipping);
    assert_eq!(store.damage(), [damage]);
    let there: Vec<bool> = (0..3).map(|n| get(&*store, &key(n)).is_some()).collect();
    assert_eq!(there, [true, false, true]);
}

#[test]
fn a_flipped_bit_in_a_row_hides_that_row_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), lazy());
    for n in 0..3 {
        put(&*store, key(n), &pattern(64, n));
    }
    store.close();
    let path = folder.path().join("index.redb");
    let mut file = std::fs::read(&path).unwrap();
    let bad = pattern(64, 1);
    let places = (0..file.len() - 64).filter(|i| file[*i..*i + 64] == bad[..]);
    for at in places.collect::<Vec<_>>() {
        file[at] ^= 1;
    }
    std::fs::write(&path, file).unwrap();
    let store = open(folder.path(), lazy());
    let snapshot = wait(store.snapshot()).unwrap();
    assert_eq!(wait(snapshot.get(&key(1))), Err(ReadError::Corrupt(key(1))));
    let range = store::KeyRange {
        start: key(0),
        end: key(3),
    };
    for found in [
        wait(snapshot.scan(&range, 10)).unwrap(),
        wait(snapshot.scan_back(&range, 10)).unwrap(),
    ] {
        let mut keys: Vec<Key> = found.into_iter().map(|(key, _)| key).collect();
        keys.sort();
        assert_eq!(keys, [key(0), key(2)]);
    }
}

#[test]
fn a_damaged_page_of_the_index_is_refused_and_panics_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), lazy());
    for n in 0..200 {
        put(&*store, key(n), &pattern(64, n));
    }
    store.close();
    let path = folder.path().join("index.redb");
    let good = std::fs::read(&path).unwrap();
    let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    let mut refused = 0;
    for at in used.iter().step_by(used.len() / 60) {
        let mut bytes = good.clone();
        bytes[*at] ^= 0x80;
        std::fs::write(&path, bytes).unwrap();
        let store = match LogStore::open(folder.path(), lazy()) {
            Ok(store) => store,
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("restore a backup"), "{at}: {error}");
                continue;
            }
        };
        let view = wait(store.snapshot()).unwrap();
        let range = store::KeyRange {
            start: key(0),
            end: key(200),
        };
        for n in 0..200 {
            if let Ok(Some(found)) = wait(view.get(&key(n))) {
                assert_eq!(found.value, pattern(64, n), "{at}");
            }
        }
        if let Ok(found) = wait(view.scan(&range, usize::MAX)) {
            found
                .iter()
                .for_each(|(_, found)| assert_eq!(found.value.len(), 64));
        }
        // Whether it can go on writing depends on where the damage is; it answers in any case.
        let mut batch = Batch::new();
        batch.put(key(500), b"more".to_vec());
        let _ = commit(&*store, batch);
        drop(view);
        store.close();
    }
    assert!(refused > 0, "no page was needed for opening?");
    // What the refusal advises: the log makes a new one.
    std::fs::remove_file(&path).unwrap();
    let store = open(folder.path(), lazy());
    (0..200).for_each(|n| assert_eq!(value(&*store, &key(n)).unwrap(), pattern(64, n)));
}

#[test]
fn a_segment_that_was_cut_short_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), lazy());
    let whole = put_blob(&*store, key(1), &pattern(3000, 1));
    let end = store.stats().log_octets;
    let gone = put_blob(&*store, key(2), &pattern(3000, 2));
    let known = store.stats().log_octets;
    store.close();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(segment(folder.path(), 1))
        .unwrap();
    file.set_len(end).unwrap();
    let store = open(folder.path(), lazy());
    assert_eq!(store.damage().len(), 1);
    assert_eq!((store.damage()[0].segment, store.damage()[0].offset), (1, known));
    assert_eq!(
        wait(store::Blobs::read(&*store, whole, 0..u64::MAX)).unwrap(),
        pattern(3000, 1)
    );
    let found = wait(store::Blobs::read(&*store, gone, 0..u64::MAX));
    assert_eq!(found, Err(BlobError::Corrupt(gone)));
}

#[test]
fn a_flipped_bit_in_a_blob_is_found() {
    for (len, flip) in [(3000, 1500), (200_000, 150_000), (2_000_000, 1_900_000)] {
        let folder = tempfile::tempdir().unwrap();
        let bytes = pattern(len, 1);
        let store = open(folder.path(), lazy());
        let id = put_blob(&*store, key(1), &bytes);
        let good = put_blob(&*store, key(2), b"another");
        store.close();
        let path = if len > 1_000_000 {
            folder.path().join(format!("large/{id}.blob"))
        } else {
            segment(folder.path(), 1)
        };
        let mut file = std::fs::read(&path).unwrap();
        let at = file
            .windows(32)
            .position(|w| w == &bytes[flip..flip + 32])
            .unwrap();
        file[at] ^= 0x40;
        std::fs::write(&path, file).unwrap();
        let store = open(folder.path(), lazy());
        let read = |range| wait(store::Blobs::read(&*store, id, range));
        assert_eq!(read(0..u64::MAX), Err(BlobError::Corrupt(id)));
        assert_eq!(read(flip as u64..flip as u64 + 1), Err(BlobError::Corrupt(id)));
        if len > 64 * 1024 {
            assert_eq!(
                read(0..100).unwrap(),
                &bytes[..100],
                "other chunks are still served"
            );
        }
        assert_eq!(
            wait(store::Blobs::read(&*store, good, 0..9)).unwrap(),
            &b"another"[..]
        );
    }
}

#[test]
fn dead_segments_and_dropped_files_go() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        segment_octets: 4096,
        ..eager()
    };
    let store = open(folder.path(), options.clone());
    let kept = put_blob(&*store, key(0), &pattern(3000, 0));
    for n in 1..40 {
        put_blob(&*store, key(n), &pattern(3000, n));
    }
    put_blob(&*store, key(100), &pattern(2_000_000, 1));
    assert_eq!(larges(folder.path()), 1);
    store.close();
    let full = segments(folder.path()).len();
    assert!(full > 15, "{full} segments");
    let store = open(folder.path(), options.clone());
    for n in (1..40).chain([100]) {
        let mut batch = Batch::new();
        batch.delete(key(n));
        commit(&*store, batch).unwrap();
    }
    store.close();
    drop(store);
    let store = open(folder.path(), options);
    store.close();
    let left = segments(folder.path());
    assert!(left.len() <= 3, "{left:?}");
    assert!(
        left.contains(&"0000000000000001.log".to_owned()),
        "the segment of the living blob stays"
    );
    let store = open(folder.path(), eager());
    assert_eq!(
        wait(store::Blobs::read(&*store, kept, 0..9999)).unwrap(),
        pattern(3000, 0)
    );
}

#[test]
fn files_of_large_blobs_that_nothing_took_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), lazy());
    let dropped = stage(&*store, &pattern(2_000_000, 1));
    assert_eq!(larges(folder.path()), 1);
    let mut batch = Batch::new();
    batch.require(Require::KeyPresent(key(1)));
    batch.put_ref(key(2), vec![], vec![dropped.id]);
    batch.blob(dropped);
    commit(&*store, batch).unwrap_err();
    assert_eq!(larges(folder.path()), 0, "a refused batch takes its file along");
    let living = put_blob(&*store, key(3), &pattern(2_000_000, 2));
    let staged = stage(&*store, &pattern(2_000_000, 3));
    std::mem::forget(staged);
    store.close();
    drop(store);
    assert_eq!(larges(folder.path()), 2);
    let store = open(folder.path(), lazy());
    store.close();
    assert_eq!(larges(folder.path()), 1, "the orphan of the crash is gone");
    drop(store);
    let store = open(folder.path(), lazy());
    assert_eq!(
        wait(store::Blobs::read(&*store, living, 0..4)).unwrap(),
        &pattern(4, 2)[..]
    );
}

#[test]
fn waiting_batches_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(
        folder.path(),
        Options {
            queue_batches: 4,
            ..lazy()
        },
    );
    let waiting: Vec<_> = (0..5000)
        .map(|n| {
            let mut batch = Batch::new();
            batch.put(key(n), vec![0; 64]);
            store.commit(batch)
        })
        .collect();
    let results: Vec<_> = waiting.into_iter().map(wait).collect();
    assert!(results.iter().any(Result::is_ok));
    assert!(results.contains(&Err(CommitError::Busy)));
    for (n, result) in results.iter().enumerate() {
        assert_eq!(
            get(&*store, &key(n as u64)).is_some(),
            result.is_ok(),
            "busy means: nothing happened"
        );
    }
}

#[test]
fn one_sync_serves_all_who_wait() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), lazy());
    let waiting: Vec<_> = (0..4000)
        .map(|n| {
            let mut batch = Batch::new();
            batch.put(key(n), vec![0; 64]);
            store.commit(batch)
        })
        .collect();
    for one in waiting {
        wait(one).unwrap();
    }
    let stats = store.stats();
    assert_eq!(stats.batches, 4000);
    assert!(stats.groups < 400, "{stats:?}");
}

#[test]
fn dropping_the_future_undoes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), lazy());
    let mut batch = Batch::new();
    batch.put(key(1), b"still happens".to_vec());
    drop(store.commit(batch));
    // Batches are taken in order, so when the next is done the first is too.
    put(&*store, key(2), b"");
    assert!(get(&*store, &key(1)).is_some());
}

#[test]
fn a_strange_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), lazy());
    put(&*store, key(1), b"v");
    store.close();
    std::fs::write(
        folder.path().join("store"),
        "posthaste store 9\nwhatever stands here by then\n",
    )
    .unwrap();
    let refused = LogStore::open(folder.path(), lazy()).err().unwrap().to_string();
    assert!(
        refused.contains("version 9") && refused.contains("version 1"),
        "{refused}"
    );
    let superblock = std::fs::read_to_string(folder.path().join("store")).unwrap();
    assert!(
        superblock.starts_with("posthaste store 9"),
        "it is left as it was"
    );
    std::fs::write(folder.path().join("store"), "").unwrap();
    assert!(matches!(
        LogStore::open(folder.path(), lazy()),
        Err(OpenError::Format(_))
    ));
    std::fs::write(
        folder.path().join("store"),
        "posthaste store 1\n0000000000005eee\n",
    )
    .unwrap();
    assert!(matches!(
        LogStore::open(folder.path(), lazy()),
        Err(OpenError::Format(_))
    ));
    std::fs::write(
        folder.path().join("store"),
        "posthaste store 1\n0000000000005eed\n",
    )
    .unwrap();
    assert!(get(&*open(folder.path(), lazy()), &key(1)).is_some());
}

#[test]
fn a_lost_index_is_rebuilt_from_a_whole_log() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), lazy());
    let id = put_blob(&*store, key(1), b"text");
    store.close();
    std::fs::remove_file(folder.path().join("index.redb")).unwrap();
    let store = open(folder.path(), lazy());
    assert_eq!(wait(store::Blobs::read(&*store, id, 0..9)).unwrap(), &b"text"[..]);
    let new = put_blob(&*store, key(2), b"new");
    assert_ne!(new, id, "names of blobs are never used again");
    let both: &dyn Store = &*store;
    assert_eq!(scan(both, &Key::table(9).prefix_range()).len(), 2);
}
