//! The suite that every store passes: what the two traits promise.
#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use std::collections::BTreeSet;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use store::{
    Batch, BlobError, CommitError, CommitId, Key, LogStore, MemoryStore, Patch, Require, Seq, Store, Topic,
};

/// Runs a test against every store.
fn each(test: impl Fn(&dyn Store)) {
    test(&*MemoryStore::new());
    for options in [lazy(), eager()] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), options);
        test(&*store);
        assert_eq!(LogStore::damage(&store), []);
    }
}

#[test]
fn a_batch_happens_as_a_whole_or_not_at_all() {
    each(|store| {
        let first = put(store, key(1), b"one");
        let mut batch = Batch::new();
        batch.put(key(1), b"changed".to_vec());
        batch.put(key(2), b"two".to_vec());
        batch.add(key(3), 5);
        batch.alloc(key(4), 2);
        batch.require(Require::KeyPresent(key(1)));
        batch.require(Require::KeyAbsent(key(1)));
        assert_eq!(commit(store, batch), Err(CommitError::Conflict { index: 1 }));
        let kept = get(store, &key(1)).unwrap();
        assert_eq!((kept.value.as_ref(), kept.version), (&b"one"[..], first.seq.0));
        assert_eq!(get(store, &key(2)), None);
        assert_eq!((counter(store, &key(3)), counter(store, &key(4))), (0, 0));
        assert_eq!(wait(store.snapshot()).unwrap().seq(), first.seq);
    });
}

#[test]
fn every_precondition_is_looked_at() {
    each(|store| {
        let version = put(store, key(1), &[7u64.to_be_bytes().as_slice(), b"rest"].concat())
            .seq
            .0;
        put(store, key(2), b"short");
        let mut batch = Batch::new();
        batch.add(key(3), 10);
        commit(store, batch).unwrap();
        let holds = [
            Require::KeyAbsent(key(9)),
            Require::KeyPresent(key(1)),
            Require::VersionIs(key(1), version),
            Require::LeaseHeld(key(1), 7),
            Require::AtMost(key(3), 10),
            Require::AtMost(key(9), 0),
        ];
        let fails = [
            Require::KeyAbsent(key(1)),
            Require::KeyPresent(key(9)),
            Require::KeyPresent(key(3)),
            Require::VersionIs(key(1), version + 1),
            Require::VersionIs(key(9), 0),
            Require::LeaseHeld(key(1), 8),
            Require::LeaseHeld(key(2), 0),
            Require::LeaseHeld(key(9), 7),
            Require::AtMost(key(3), 9),
            Require::AtMost(key(9), -1),
        ];
        for require in holds {
            let mut batch = Batch::new();
            batch.require(require.clone());
            assert!(commit(store, batch).is_ok(), "{require:?}");
        }
        for require in fails {
            let mut batch = Batch::new();
            batch.require(require.clone());
            batch.put(key(50), b"never".to_vec());
            assert_eq!(
                commit(store, batch),
                Err(CommitError::Conflict { index: 0 }),
                "{require:?}"
            );
        }
        assert_eq!(get(store, &key(50)), None);
    });
}

#[test]
fn a_quota_counts_the_batch_itself() {
    each(|store| {
        let add = |n| {
            let mut batch = Batch::new();
            batch.add(key(1), n);
            batch.require(Require::AtMost(key(1), 10));
            commit(store, batch)
        };
        assert!(add(6).is_ok());
        assert_eq!(add(5), Err(CommitError::Conflict { index: 0 }));
        assert!(add(4).is_ok());
        assert_eq!(counter(store, &key(1)), 10);
        assert!(add(-3).is_ok());
        assert_eq!(counter(store, &key(1)), 7);
    });
}

#[test]
fn numbers_are_allocated_and_patched_in() {
    each(|store| {
        for round in 0..3u64 {
            let mut batch = Batch::new();
            let uid = batch.alloc(key(1), 2);
            let modseq = batch.alloc(key(2), 1);
            let at = Key::table(9).text("m").len();
            let patch = |slot, plus, offset, width| Patch {
                slot,
                plus,
                offset,
                width,
            };
            for n in 0..2 {
                batch.put_with(
                    Key::table(9).text("m").u32(0),
                    vec![0xee; 12],
                    vec![patch(uid, n, at, 4)],
                    vec![patch(modseq, 0, 2, 8)],
                    vec![],
                );
            }
            let receipt = commit(store, batch).unwrap();
            assert_eq!(receipt.allocated, [2 * round + 1, round + 1]);
            assert_eq!(
                (receipt.value(uid), receipt.value(modseq)),
                (2 * round + 1, round + 1)
            );
        }
        let found = scan(store, &Key::table(9).text("m").prefix_range());
        let uids: Vec<u32> = found
            .iter()
            .map(|(k, _)| {
                let mut parts = k.reader();
                parts.text();
                parts.u32().unwrap()
            })
            .collect();
        assert_eq!(uids, [1, 2, 3, 4, 5, 6]);
        let expected = [&[0xee, 0xee][..], &3u64.to_be_bytes(), &[0xee, 0xee]].concat();
        assert_eq!(found[5].1.value, expected);
        assert_eq!(counter(store, &key(1)), 6);
    });
}

#[test]
fn malformed_batches_are_refused() {
    each(|store| {
        let refused = |build: &dyn Fn(&mut Batch)| {
            let mut batch = Batch::new();
            batch.put(key(1), b"never".to_vec());
            build(&mut batch);
            assert!(matches!(commit(store, batch), Err(CommitError::Invalid(_))));
        };
        refused(&|b| b.put(Key::from_bytes(vec![]), vec![]));
        refused(&|b| b.put(Key::from_bytes(vec![1; store::key::KEY_OCTETS_MAX + 1]), vec![]));
        refused(&|b| b.put(key(2), vec![0; store::VALUE_OCTETS_MAX + 1]));
        refused(&|b| b.notify(Topic(vec![])));
        refused(&|b| b.notify(Topic(vec![1; 33])));
        refused(&|b| {
            b.add(key(2), i64::MAX);
            b.add(key(2), 1);
        });
        refused(&|b| {
            b.alloc(key(2), u64::MAX);
        });
        refused(&|b| b.put_ref(key(2), vec![], vec![store::BlobId([9; 16])]));
        for (offset, width) in [(0, 3), (5, 4), (1, 8), (usize::MAX, 8)] {
            refused(&|b| {
                let slot = b.alloc(key(3), 1);
                let patch = Patch {
                    slot,
                    plus: 0,
                    offset,
                    width,
                };
                b.put_with(key(2), vec![0; 8], vec![], vec![patch], vec![]);
            });
        }
        refused(&|b| {
            let slot = b.alloc(key(3), 1);
            let patch = Patch {
                slot,
                plus: u64::from(u32::MAX),
                offset: 0,
                width: 4,
            };
            b.put_with(key(2), vec![0; 8], vec![], vec![patch], vec![]);
        });
        assert_eq!(get(store, &key(1)), None);
        put(store, key(1), b"still works");
    });
}

#[test]
fn a_snapshot_does_not_see_later_commits() {
    each(|store| {
        put(store, key(1), b"old");
        put(store, key(2), b"old");
        let before = wait(store.snapshot()).unwrap();
        for _ in 0..20 {
            put(store, key(1), b"new");
            let mut batch = Batch::new();
            batch.delete(key(2));
            batch.put(key(3), b"new".to_vec());
            batch.add(key(4), 1);
            commit(store, batch).unwrap();
        }
        assert_eq!(wait(before.get(&key(1))).unwrap().unwrap().value, &b"old"[..]);
        assert_eq!(wait(before.counter(&key(4))).unwrap(), 0);
        let seen = wait(before.scan(&Key::table(9).prefix_range(), 10)).unwrap();
        assert_eq!(
            seen.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>(),
            [key(1), key(2)]
        );
        assert_eq!(before.seq(), Seq(2));
        let now = scan(store, &Key::table(9).prefix_range());
        assert_eq!(
            now.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>(),
            [key(1), key(3)]
        );
    });
}

#[test]
fn scans_go_both_ways_in_pages() {
    each(|store| {
        for n in 0..60 {
            put(store, key(n * 7 % 60), &n.to_be_bytes());
        }
        for n in (0..60).step_by(3) {
            let mut batch = Batch::new();
            batch.delete(key(n));
            commit(store, batch).unwrap();
        }
        put(store, Key::table(8), b"before");
        put(store, Key::table(10), b"behind");
        let expected: Vec<Key> = (0..60).filter(|n| n % 3 != 0).map(key).collect();
        let view = wait(store.snapshot()).unwrap();
        let (mut forward, mut range) = (Vec::new(), Key::table(9).prefix_range());
        loop {
            let page = wait(view.scan(&range, 7)).unwrap();
            let Some((last, _)) = page.last() else { break };
            range = range.after(last);
            forward.extend(page.into_iter().map(|(k, _)| k));
        }
        assert_eq!(forward, expected);
        let (mut backward, mut range) = (Vec::new(), Key::table(9).prefix_range());
        loop {
            let page = wait(view.scan_back(&range, 7)).unwrap();
            let Some((last, _)) = page.last() else { break };
            range = range.before(last);
            backward.extend(page.into_iter().map(|(k, _)| k));
        }
        backward.reverse();
        assert_eq!(backward, expected);
        let open_end = store::KeyRange {
            start: key(50),
            end: Key::from_bytes(vec![]),
        };
        assert_eq!(scan(store, &open_end).len(), 8);
        assert_eq!(wait(view.scan(&open_end, 0)).unwrap(), []);
        let backwards = store::KeyRange {
            start: key(5),
            end: key(2),
        };
        assert_eq!(wait(view.scan(&backwards, 9)).unwrap(), []);
    });
}

#[test]
fn deleting_takes_value_and_counter() {
    each(|store| {
        let mut batch = Batch::new();
        batch.put(key(1), b"v".to_vec());
        batch.add(key(1), 4);
        commit(store, batch).unwrap();
        let mut batch = Batch::new();
        batch.delete(key(1));
        batch.delete(key(2));
        commit(store, batch).unwrap();
        assert_eq!((get(store, &key(1)), counter(store, &key(1))), (None, 0));
    });
}

#[test]
fn a_blob_lives_as_long_as_something_refers_to_it() {
    each(|store| {
        for len in [0, 5, 64 * 1024, 64 * 1024 + 1, 3_000_000] {
            let bytes = pattern(len, len as u64);
            let id = put_blob(store, key(1), &bytes);
            let mut copy = Batch::new();
            copy.put_ref(key(2), b"copy".to_vec(), vec![id, id]);
            commit(store, copy).unwrap();
            put(store, key(1), b"overwritten without a reference");
            assert_eq!(wait(store.read(id, 0..u64::MAX)).unwrap(), bytes, "{len}");
            let mut batch = Batch::new();
            batch.delete(key(2));
            commit(store, batch).unwrap();
            assert_eq!(wait(store.read(id, 0..1)), Err(BlobError::NotFound(id)), "{len}");
            let mut batch = Batch::new();
            batch.put_ref(key(3), vec![], vec![id]);
            assert!(matches!(commit(store, batch), Err(CommitError::Invalid(_))));
        }
    });
}

#[test]
fn replacing_an_entry_keeps_a_blob_that_both_refer_to() {
    each(|store| {
        let id = put_blob(store, key(1), b"text");
        let mut batch = Batch::new();
        batch.delete(key(1));
        batch.put_ref(key(1), b"again".to_vec(), vec![id]);
        commit(store, batch).unwrap();
        assert_eq!(wait(store.read(id, 0..9)).unwrap(), &b"text"[..]);
    });
}

#[test]
fn ranges_of_blobs_are_cut_at_the_end() {
    each(|store| {
        for len in [10u64, 200_000, 2_000_000] {
            let bytes = pattern(len as usize, 3);
            let id = put_blob(store, key(len), &bytes);
            let chunk = 64 * 1024;
            let edges = [
                0,
                1,
                9,
                10,
                chunk - 1,
                chunk,
                chunk + 1,
                2 * chunk,
                len - 1,
                len,
                len + 1,
                u64::MAX,
            ];
            for from in edges {
                for to in edges {
                    let (a, b) = (from.min(to).min(len) as usize, to.min(len) as usize);
                    #[allow(clippy::reversed_empty_ranges)]
                    let read = wait(store.read(id, from..to)).unwrap();
                    assert_eq!(read, &bytes[a..b], "{len} {from}..{to}");
                }
            }
        }
    });
}

#[test]
fn a_blob_that_no_batch_takes_is_not_there() {
    each(|store| {
        let staged = stage(store, b"dropped");
        let id = staged.id;
        drop(staged);
        assert_eq!(wait(store.read(id, 0..1)), Err(BlobError::NotFound(id)));
        let unreferred = stage(store, b"in a batch, but nothing refers to it");
        let id = unreferred.id;
        let mut batch = Batch::new();
        batch.blob(unreferred);
        commit(store, batch).unwrap();
        assert_eq!(wait(store.read(id, 0..1)), Err(BlobError::NotFound(id)));
    });
}

#[test]
fn a_named_batch_happens_once() {
    each(|store| {
        let again = || {
            let mut batch = Batch::new();
            batch.name(CommitId(77));
            batch.require(Require::KeyAbsent(key(1)));
            batch.alloc(key(2), 3);
            batch.put(key(1), b"once".to_vec());
            batch.add(key(3), 1);
            commit(store, batch)
        };
        let first = again().unwrap();
        put(store, key(5), b"something between");
        assert_eq!(again().unwrap(), first);
        assert_eq!((counter(store, &key(2)), counter(store, &key(3))), (3, 1));
    });
}

/// Whether a watch has something to tell now.
fn is_woken(watch: &mut store::Watch) -> Option<bool> {
    let mut changed = pin!(watch.changed());
    match changed.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(open) => Some(open),
        Poll::Pending => None,
    }
}

#[test]
fn watches_wake_for_their_topic_only() {
    each(|store| {
        let (mut mine, mut other) = (store.watch(&Topic(vec![1])), store.watch(&Topic(vec![2])));
        assert_eq!(is_woken(&mut mine), None);
        let notify = |require| {
            let mut batch = Batch::new();
            batch.require(require);
            batch.put(key(1), vec![]);
            batch.notify(Topic(vec![1]));
            commit(store, batch)
        };
        notify(Require::KeyPresent(key(2))).unwrap_err();
        assert_eq!(is_woken(&mut mine), None);
        notify(Require::KeyAbsent(key(2))).unwrap();
        notify(Require::KeyAbsent(key(2))).unwrap();
        assert_eq!(is_woken(&mut mine), Some(true));
        assert_eq!((is_woken(&mut mine), is_woken(&mut other)), (None, None));
        let mut batch = Batch::new();
        batch.notify(Topic(vec![2]));
        commit(store, batch).unwrap();
        assert_eq!(is_woken(&mut other), Some(true));
    });
}

#[test]
fn concurrent_commits_get_numbers_of_their_own() {
    each(|store| {
        const THREADS: u64 = 8;
        const EACH: u64 = 50;
        let commits = |thread: u64| {
            let one = |n: u64| {
                let staged = stage(store, &pattern(300, thread * EACH + n));
                let mut batch = Batch::new();
                let uid = batch.alloc(key(1), 1);
                let patch = |offset| Patch {
                    slot: uid,
                    plus: 0,
                    offset,
                    width: 8,
                };
                let name = Key::table(9).u8(1);
                let (at, id) = (name.len(), staged.id);
                batch.put_with(
                    name.u64(0),
                    (thread * EACH + n).to_be_bytes().to_vec(),
                    vec![patch(at)],
                    vec![],
                    vec![id],
                );
                batch.add(key(2), 1);
                batch.blob(staged);
                let receipt = commit(store, batch).unwrap();
                let mine = Key::table(9).u8(1).u64(receipt.value(uid));
                let seen = get(store, &mine).unwrap();
                assert_eq!(seen.value, (thread * EACH + n).to_be_bytes()[..]);
                assert_eq!(
                    wait(store.read(id, 0..300)).unwrap(),
                    pattern(300, thread * EACH + n)
                );
                (receipt.seq, receipt.value(uid))
            };
            (0..EACH).map(one).collect::<Vec<_>>()
        };
        let all: Vec<(Seq, u64)> = std::thread::scope(|scope| {
            let commits = &commits;
            let threads: Vec<_> = (0..THREADS).map(|t| scope.spawn(move || commits(t))).collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        let uids: BTreeSet<u64> = all.iter().map(|(_, uid)| *uid).collect();
        let seqs: BTreeSet<Seq> = all.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(uids, (1..=THREADS * EACH).collect());
        assert_eq!(seqs.len() as u64, THREADS * EACH);
        let mut by_seq = all;
        by_seq.sort();
        assert!(
            by_seq.is_sorted_by_key(|(_, uid)| *uid),
            "numbers rise in the order of commits"
        );
        assert_eq!(counter(store, &key(2)), (THREADS * EACH) as i64);
        assert_eq!(
            scan(store, &Key::table(9).u8(1).prefix_range()).len() as u64,
            THREADS * EACH
        );
    });
}

#[test]
fn of_many_who_want_the_same_key_one_gets_it() {
    each(|store| {
        let winners = std::thread::scope(|scope| {
            let claim = |n: u64| {
                let mut batch = Batch::new();
                batch.require(Require::KeyAbsent(key(1)));
                batch.put(key(1), n.to_be_bytes().to_vec());
                commit(store, batch).is_ok()
            };
            let threads: Vec<_> = (0..16).map(|n| scope.spawn(move || claim(n))).collect();
            threads
                .into_iter()
                .filter(|_| true)
                .map(|t| t.join().unwrap())
                .filter(|won| *won)
                .count()
        });
        assert_eq!(winners, 1);
    });
}
