//! Verifying a store: whole ones are whole, also while they work; each damage is named.
#![allow(clippy::unwrap_used)]

mod common;

use common::{commit, eager, key, lazy, open, pattern, put, put_blob, value};
use redb::{Database, ReadableDatabase, TableDefinition};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use store::{
    Batch, BlobId, CommitError, CommitId, Finding, LogStore, Severity, Verified, VerifyOptions, Where,
};

const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("rows");

/// Verifies in depth.
fn verify(store: &LogStore) -> (Vec<Finding>, Verified) {
    let mut findings = Vec::new();
    let verified = store
        .still()
        .verify(
            VerifyOptions { deep: true },
            &mut |finding| findings.push(finding),
            &mut |_| ControlFlow::Continue(()),
        )
        .unwrap();
    (findings, verified)
}

fn codes(findings: &[Finding]) -> Vec<&'static str> {
    let mut codes: Vec<_> = findings.iter().map(|finding| finding.code).collect();
    codes.sort_unstable();
    codes
}

/// A store with a bit of everything, closed.
fn sample(folder: &Path) -> Vec<BlobId> {
    let store = open(folder, lazy());
    (0..50).for_each(|n| drop(put(&*store, key(n), b"value")));
    let lengths = [10, 5_000, 70_000, 300_000, 2_000_000];
    let blobs: Vec<BlobId> = (0u64..)
        .zip(lengths)
        .map(|(n, len)| put_blob(&*store, key(100 + n), &pattern(len, n + 1)))
        .collect();
    let mut batch = Batch::new();
    batch.put_ref(key(200), b"a second reference".to_vec(), vec![blobs[1]]);
    batch.add(key(300), 5);
    batch.name(CommitId(7));
    commit(&*store, batch).unwrap();
    store.close();
    blobs
}

/// Changes the index of a closed store. Rows are given and taken without their checksum.
fn alter(folder: &Path, row_key: &[u8], change: impl Fn(&mut Vec<u8>)) {
    let index = Database::open(folder.join("index.redb")).unwrap();
    let stored = {
        let rows = index.begin_read().unwrap().open_table(ROWS).unwrap();
        rows.get(row_key).unwrap().map(|row| row.value().to_vec())
    };
    let mut row = stored.unwrap_or_else(|| vec![0; 4]);
    row.truncate(row.len() - 4);
    change(&mut row);
    let sum = crc32c::crc32c_append(crc32c::crc32c(row_key), &row);
    let writing = index.begin_write().unwrap();
    {
        let mut rows = writing.open_table(ROWS).unwrap();
        match row.is_empty() {
            true => drop(rows.remove(row_key).unwrap()),
            false => {
                row.extend_from_slice(&sum.to_be_bytes());
                rows.insert(row_key, row.as_slice()).unwrap();
            }
        }
    }
    writing.commit().unwrap();
}

fn row_key(space: u8, rest: &[u8]) -> Vec<u8> {
    [&[space], rest].concat()
}

/// Flips a bit in a file where some octets stand.
fn flip(path: &Path, find: &[u8], at: usize) {
    let mut file = std::fs::read(path).unwrap();
    let place = (0..file.len() - find.len())
        .find(|i| file[*i..].starts_with(find))
        .unwrap();
    file[place + at] ^= 0x04;
    std::fs::write(path, file).unwrap();
}

#[test]
fn a_whole_store_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    sample(folder.path());
    let store = open(folder.path(), lazy());
    // Some rows in the index, some only in the log and in memory.
    put_blob(&*store, key(400), b"new");
    let (findings, verified) = verify(&store);
    assert_eq!(findings, []);
    assert_eq!(
        (verified.blobs, verified.blobs_read, verified.entries),
        (6, 6, 57)
    );
    assert_eq!(
        verified.blob_octets,
        10 + 5_000 + 70_000 + 300_000 + 2_000_000 + 3
    );
    assert_eq!(verified.groups, 1, "the group that the index does not have yet");
}

#[test]
fn a_busy_store_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), eager());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    let at = key(thread * 1000 + n % 20);
                    put_blob(&**store, at.clone(), &pattern(3_000, n));
                    let mut batch = Batch::new();
                    batch.name(CommitId(u128::from(thread * 1_000_000 + n)));
                    batch.add(key(7), 1);
                    if n % 3 == 0 {
                        batch.delete(at);
                    }
                    commit(&**store, batch).unwrap();
                }
            });
        }
        for _ in 0..15 {
            let (findings, _) = verify(&store);
            assert_eq!(findings, []);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn rot_in_a_blob_is_named_with_its_place_and_its_entries() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = sample(folder.path());
    let log = folder.path().join("log/0000000000000001.log");
    flip(&log, &pattern(5_000, 2)[..64], 4_000);
    flip(&log, &pattern(300_000, 4)[..64], 200_000);
    let large = folder.path().join(format!("large/{}.blob", blobs[4]));
    flip(&large, &pattern(2_000_000, 5)[..64], 1_999_999);
    let store = open(folder.path(), lazy());
    let (findings, verified) = verify(&store);
    assert_eq!(codes(&findings), ["blob-damaged"; 3]);
    assert_eq!(verified.blobs_read, 2);
    let of = |id| {
        findings
            .iter()
            .find(|f| matches!(f.place, Where::Blob(found, _) if found == id))
    };
    assert_eq!(of(blobs[1]).unwrap().concerns, [key(101), key(200)]);
    assert!(matches!(
        of(blobs[1]).unwrap().place,
        Where::Blob(_, Some((1, _)))
    ));
    assert_eq!(of(blobs[3]).unwrap().concerns, [key(103)]);
    assert!(matches!(of(blobs[4]).unwrap().place, Where::Blob(_, None)));
    // The same is found little by little.
    let mut scrubbed = Vec::new();
    let (mut cursor, mut steps) = (Some(Vec::new()), 0);
    while let Some(from) = cursor {
        let step = store
            .scrub(&from, 100_000, &mut |finding| scrubbed.push(finding))
            .unwrap();
        cursor = step.next;
        steps += 1;
    }
    assert_eq!(codes(&scrubbed), ["blob-damaged"; 3]);
    assert!(steps > 3, "{steps} steps");
}

#[test]
fn what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = sample(folder.path());
    std::fs::remove_file(folder.path().join(format!("large/{}.blob", blobs[4]))).unwrap();
    alter(folder.path(), &row_key(3, &blobs[0].0), Vec::clear);
    let store = open(folder.path(), lazy());
    let (findings, _) = verify(&store);
    assert_eq!(
        codes(&findings),
        ["blob-missing", "blob-missing", "segment-figures-wrong"]
    );
    let concerned: Vec<_> = findings.iter().flat_map(|f| f.concerns.clone()).collect();
    assert_eq!(concerned, [key(100), key(104)]);
}

#[test]
fn a_segment_that_is_gone_is_named_once() {
    let folder = tempfile::tempdir().unwrap();
    sample(folder.path());
    // A later segment, so that the store opens.
    let store = open(folder.path(), eager());
    put_blob(&*store, key(500), &pattern(20_000, 9));
    put(&*store, key(501), b"in the next segment");
    store.close();
    std::fs::remove_file(folder.path().join("log/0000000000000001.log")).unwrap();
    let store = open(folder.path(), lazy());
    let (findings, _) = verify(&store);
    let lost = codes(&findings);
    assert_eq!(
        lost.iter().filter(|code| **code == "segment-missing").count(),
        1,
        "{findings:?}"
    );
    assert!(findings.iter().all(|f| f.severity == Severity::Error));
}

#[test]
fn wrong_counts_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = sample(folder.path());
    alter(folder.path(), &row_key(3, &blobs[2].0), |row| row[7] = 3);
    alter(folder.path(), &row_key(4, &1u64.to_be_bytes()), |row| {
        row[15] ^= 1
    });
    alter(folder.path(), &row_key(6, &0u32.to_be_bytes()), Vec::clear);
    let store = open(folder.path(), lazy());
    let (findings, _) = verify(&store);
    assert_eq!(
        codes(&findings),
        ["receipts-wrong", "references-wrong", "segment-figures-wrong"]
    );
    let references = findings.iter().find(|f| f.code == "references-wrong").unwrap();
    assert_eq!(references.concerns, [key(102)]);
    assert_eq!(references.what, "1 references lead to it, its row says 3");
}

#[test]
fn a_lost_entry_leaves_its_blob_over() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = sample(folder.path());
    alter(folder.path(), &row_key(1, key(103).as_bytes()), Vec::clear);
    let store = open(folder.path(), lazy());
    let (findings, _) = verify(&store);
    assert_eq!(codes(&findings), ["references-wrong"]);
    assert!(matches!(findings[0].place, Where::Blob(id, _) if id == blobs[3]));
}

#[test]
fn a_damaged_row_is_named_and_excuses_the_count_of_its_blob() {
    let folder = tempfile::tempdir().unwrap();
    sample(folder.path());
    alter(folder.path(), &row_key(1, key(103).as_bytes()), |row| {
        row.truncate(9)
    });
    let store = open(folder.path(), lazy());
    let (findings, _) = verify(&store);
    assert_eq!(codes(&findings), ["references-wrong", "row-damaged"]);
    let row = findings.iter().find(|f| f.code == "row-damaged").unwrap();
    assert_eq!(row.place, Where::Entry(key(103)));
    let references = findings.iter().find(|f| f.code == "references-wrong").unwrap();
    assert_eq!(references.severity, Severity::Warning);
}

/// The one way to get rid of a damaged row, so that something whole can take its place.
#[test]
fn a_damaged_row_can_be_deleted_and_takes_no_blob_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = sample(folder.path());
    // One that is no entry, and one that is not what was written.
    alter(folder.path(), &row_key(1, key(103).as_bytes()), |row| {
        row.truncate(9)
    });
    flip(&folder.path().join("index.redb"), b"a second reference", 3);
    let store = open(folder.path(), lazy());
    assert_eq!(
        codes(&verify(&store).0),
        [
            "references-wrong",
            "references-wrong",
            "row-damaged",
            "row-damaged"
        ]
    );
    for damaged in [key(103), key(200)] {
        let mut batch = Batch::new();
        batch.put(damaged, b"over it".to_vec());
        let refused = commit(&*store, batch);
        assert!(matches!(refused, Err(CommitError::Invalid(_))), "{refused:?}");
    }
    let mut batch = Batch::new();
    batch.delete(key(200));
    batch.delete(key(103));
    batch.put(key(103), b"whole".to_vec());
    commit(&*store, batch).unwrap();
    assert_eq!(value(&*store, &key(200)), None);
    store.close();
    let store = open(folder.path(), lazy());
    assert_eq!(value(&*store, &key(103)).unwrap(), b"whole");
    assert_eq!(value(&*store, &key(200)), None);
    let (findings, verified) = verify(&store);
    assert_eq!(codes(&findings), ["references-wrong", "references-wrong"]);
    let expected = [blobs[3], blobs[1]];
    let kept = |id: &BlobId| {
        findings
            .iter()
            .any(|f| matches!(f.place, Where::Blob(blob, _) if blob == *id))
    };
    assert!(expected.iter().all(kept), "{findings:?}");
    assert_eq!(verified.blobs_read, 5, "every blob is still there, and whole");
}

#[test]
fn rot_in_the_log_behind_the_index_is_named_while_the_store_runs() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), lazy());
    put(&*store, key(1), b"the first value");
    put(&*store, key(2), b"the second value");
    let log = folder.path().join("log/0000000000000001.log");
    let mut file = std::fs::read(&log).unwrap();
    let at = (0..file.len())
        .find(|i| file[*i..].starts_with(b"first"))
        .unwrap();
    file[at] ^= 1;
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::OpenOptions::new().write(true).open(&log).unwrap(),
        &file[at..=at],
        at as u64,
    )
    .unwrap();
    let (findings, _) = verify(&store);
    assert_eq!(codes(&findings), ["log-damaged"]);
    assert_eq!(findings[0].place, Where::Log(1, 0));
}

#[test]
fn it_stops_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    sample(folder.path());
    let store = open(folder.path(), lazy());
    let stopped = store
        .still()
        .verify(VerifyOptions::default(), &mut |_| {}, &mut |_| {
            ControlFlow::Break(())
        });
    assert_eq!(stopped, Err(store::VerifyError::Stopped));
}
