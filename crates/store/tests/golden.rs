//! Stores that earlier programs wrote: each version's is kept, opened and read.
//!
//! The kept folder holds the superblock and the log after a clean end; the index, which is too
//! large to keep, is rebuilt from them. `POSTHASTE_KEEP_GOLDEN=1` writes it anew, for the day on which
//! a new version needs one.
#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use std::path::{Path, PathBuf};
use store::{Batch, BlobId, Blobs, CommitId, KeyRange, LogStore, Store};

/// The format is the same in both. The first writes a removed counter with each row that is removed, the second
/// only where there is one.
const KEPT: [&str; 2] = ["version-1", "version-1-leaner"];

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn today() -> PathBuf {
    kept(KEPT[1])
}

const LOG: &str = "log/0000000000000001.log";

/// The steps that wrote it: each group by itself, so that the octets are always the same.
fn write(store: &dyn Store) {
    put(store, key(1), b"a value");
    put(store, key(2), b"will be replaced");
    put(store, key(3), b"will be removed");
    put_blob(store, key(10), b"a short blob");
    put_blob(store, key(11), &pattern(66_000, 7));
    put_blob(store, key(12), b"a blob that goes");
    let mut batch = Batch::new();
    batch.name(CommitId(0xfeed));
    batch.alloc(key(20), 3);
    batch.add(key(21), -5);
    batch.put(key(2), b"replaced".to_vec());
    batch.delete(key(3));
    batch.delete(key(12));
    commit(store, batch).unwrap();
}

fn id(n: u64) -> BlobId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&1u64.to_be_bytes());
    id[8..].copy_from_slice(&n.to_be_bytes());
    BlobId(id)
}

#[test]
fn a_store_of_version_1_is_read() {
    KEPT.into_iter().for_each(is_read);
}

fn is_read(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    copy(&kept(name), folder.path());
    let store = open(folder.path(), lazy());
    assert_eq!(LogStore::damage(&store), []);
    let all = KeyRange {
        start: key(0),
        end: key(100),
    };
    let found = scan(&*store, &all);
    let flat: Vec<_> = found
        .iter()
        .map(|(k, v)| (k.clone(), v.value.to_vec(), v.version))
        .collect();
    let blob = b"has a blob".to_vec();
    let expected = [
        (key(1), b"a value".to_vec(), 1),
        (key(2), b"replaced".to_vec(), 7),
        (key(10), blob.clone(), 4),
        (key(11), blob, 5),
    ];
    assert_eq!(flat, expected);
    assert_eq!((counter(&*store, &key(20)), counter(&*store, &key(21))), (3, -5));
    assert_eq!(wait(store.read(id(0), 0..99)).unwrap(), &b"a short blob"[..]);
    assert_eq!(wait(store.read(id(1), 0..99_999)).unwrap(), pattern(66_000, 7));
    assert_eq!(
        wait(store.read(id(1), 65_530..65_540)).unwrap(),
        pattern(66_000, 7)[65_530..65_540]
    );
    assert!(wait(store.read(id(2), 0..99)).is_err(), "the third is gone");
    let mut again = Batch::new();
    again.name(CommitId(0xfeed));
    again.alloc(key(20), 3);
    let receipt = commit(&*store, again).unwrap();
    assert_eq!((receipt.seq.0, receipt.allocated), (7, vec![1]));
    let new = put_blob(&*store, key(13), b"new");
    assert!(new > id(2), "names of blobs are never used again");
    store.close();
    let store = open(folder.path(), lazy());
    assert_eq!(wait(store.read(new, 0..9)).unwrap(), &b"new"[..]);
    assert_eq!(wait(store.read(id(0), 0..99)).unwrap(), &b"a short blob"[..]);
}

#[test]
fn today_the_same_octets_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), lazy());
    write(&*store);
    store.close();
    if std::env::var_os("POSTHASTE_KEEP_GOLDEN").is_some() {
        std::fs::create_dir_all(today().join("log")).unwrap();
        for name in ["store", LOG] {
            std::fs::copy(folder.path().join(name), today().join(name)).unwrap();
        }
    }
    for name in ["store", LOG] {
        let (now, then) = (folder.path().join(name), today().join(name));
        let (now, then) = (std::fs::read(now).unwrap(), std::fs::read(then).unwrap());
        let differs = now.iter().zip(&then).position(|(a, b)| a != b);
        assert!(
            differs.is_none() && now.len() == then.len(),
            "{name} differs from version 1 at octet {differs:?}: this is a new version of the format"
        );
    }
}
