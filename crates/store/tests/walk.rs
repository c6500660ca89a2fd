//! Walking all rows of one state: every layer, every kind of row, past any damage.
#![allow(clippy::unwrap_used)]

mod common;

use common::{commit, eager, key, lazy, open, put, put_blob};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use store::{Batch, CommitId, Key, LogStore, Options, Walked};

/// All pages of a walk.
fn all(store: &LogStore, rows_max: usize) -> Vec<Walked> {
    let mut walk = store.walk();
    let mut out = Vec::new();
    loop {
        let page = walk.page(rows_max).unwrap();
        if page.is_empty() {
            return out;
        }
        out.extend(page);
    }
}

fn entries(walked: &[Walked]) -> BTreeMap<Key, Vec<u8>> {
    let entry = |row: &Walked| match row {
        Walked::Entry { key, value, .. } => Some((key.clone(), value.to_vec())),
        _ => None,
    };
    walked.iter().filter_map(entry).collect()
}

/// Puts entries with values that can be found again, in one batch.
fn fill(store: &LogStore, count: u64) {
    let mut batch = Batch::new();
    for n in 0..count {
        batch.put(key(n), format!("value {n:05} {}", "x".repeat(100)).into_bytes());
    }
    commit(store, batch).unwrap();
}

/// Changes octets of the index file where `find` stands, at `at` octets from the match.
fn harm(folder: &Path, find: &[u8], change: impl Fn(&mut Vec<u8>, usize)) -> usize {
    let path = folder.join("index.redb");
    let mut file = std::fs::read(&path).unwrap();
    let places: Vec<usize> = (0..file.len() - find.len())
        .filter(|at| file[*at..].starts_with(find))
        .collect();
    places.iter().for_each(|at| change(&mut file, *at));
    // In place, for those who have it open.
    let mut open = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    open.write_all(&file).unwrap();
    places.len()
}

#[test]
fn every_layer_and_every_kind_of_row_is_told_once_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), lazy());
    for n in 0..50 {
        put(&*first, key(n), b"old");
    }
    put_blob(&*first, key(1000), b"a blob");
    first.close();
    // Closing brought all of it into the index. What follows stays in memory.
    let store = open(folder.path(), lazy());
    for n in (0..50).step_by(5) {
        put(&*store, key(n), b"new");
    }
    let mut batch = Batch::new();
    batch.name(CommitId(77));
    (1..50).step_by(5).for_each(|n| {
        batch.delete(key(n));
    });
    batch.add(key(2000), 7);
    commit(&*store, batch).unwrap();
    let mut expected: BTreeMap<Key, Vec<u8>> = (0..50).map(|n| (key(n), b"old".to_vec())).collect();
    (0..50).step_by(5).for_each(|n| {
        expected.insert(key(n), b"new".to_vec());
        expected.remove(&key(n + 1));
    });
    expected.insert(key(1000), b"has a blob".to_vec());
    let whole = all(&store, usize::MAX);
    assert_eq!(entries(&whole), expected);
    for rows_max in [1, 2, 7] {
        assert_eq!(all(&store, rows_max), whole, "pages of {rows_max}");
    }
    let has = |wanted: &dyn Fn(&Walked) -> bool| whole.iter().filter(|row| wanted(row)).count() == 1;
    assert!(has(&|row| matches!(row, Walked::Counter { count: 7, .. })));
    assert!(has(&|row| matches!(row, Walked::Blob { refs: 1, len: 6, .. })));
    assert!(has(&|row| matches!(
        row,
        Walked::Segment {
            segment: 1,
            blobs: 1,
            octets: 6
        }
    )));
    assert!(has(&|row| matches!(row, Walked::Receipt { id: 77, .. })));
    assert!(has(&|row| matches!(row, Walked::Ring { slot: 0, id: 77 })));
    assert!(has(&|row| matches!(row, Walked::RingNext(1))));
}

#[test]
fn a_walk_sees_the_state_in_which_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), eager());
    (0..20).for_each(|n| drop(put(&*store, key(n), b"before")));
    let mut walk = store.walk();
    let mut seen = walk.page(3).unwrap();
    (0..20).for_each(|n| drop(put(&*store, key(n), b"after")));
    (20..40).for_each(|n| drop(put(&*store, key(n), b"after")));
    loop {
        let page = walk.page(3).unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    let seen = entries(&seen);
    assert_eq!(seen.len(), 20);
    assert!(seen.values().all(|value| value == b"before"));
}

#[test]
fn a_damaged_row_is_told_with_its_key_and_the_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), lazy());
    fill(&store, 300);
    store.close();
    assert!(harm(folder.path(), b"value 00123", |file, at| file[at] ^= 0x10) > 0);
    let store = open(folder.path(), lazy());
    for rows_max in [1, 50, 1000] {
        let walked = all(&store, rows_max);
        let bad: Vec<_> = walked
            .iter()
            .filter_map(|row| match row {
                Walked::Damaged { row_key, .. } => Some(row_key.to_vec()),
                _ => None,
            })
            .collect();
        assert_eq!(bad, [[&[1], key(123).as_bytes()].concat()]);
        assert_eq!(entries(&walked).len(), 299);
    }
}

#[test]
fn a_damaged_page_of_the_index_is_a_gap_and_the_walk_goes_on_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), lazy());
    fill(&store, 2000);
    store.close();
    // While it is open, and without a cache: redb looks at its pages when a debug build opens it.
    let options = Options {
        index_cache_octets: 0,
        ..lazy()
    };
    let store = open(folder.path(), options);
    // The octet that says what kind of page it is.
    let harmed = harm(folder.path(), b"value 01000", |file, at| {
        file[at / 4096 * 4096] = 0x77
    });
    assert!(harmed > 0);
    let walked = all(&store, 100);
    let gaps: Vec<_> = walked
        .iter()
        .filter(|row| matches!(row, Walked::Gap { .. }))
        .collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let found = entries(&walked);
    assert!(!found.contains_key(&key(1000)));
    assert!(found.contains_key(&key(0)) && found.contains_key(&key(1999)));
    assert!(found.len() > 1500, "{} of 2000 are left", found.len());
}
