//! The engine against a model: random batches, with clean ends, kills and power losses between.
#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use store::simulated::SimDisk;
use store::{
    Batch, BlobError, BlobId, Blobs, CommitError, Key, KeyRange, LogStore, Options, Require, Tables,
};

const KEYS: u64 = 6;

#[derive(Clone, Debug)]
enum Change {
    Put { key: u64, len: usize, refs: Vec<usize> },
    PutBlob { key: u64, len: usize },
    Delete(u64),
    Add(u64, i64),
    Alloc(u64, u64),
}

#[derive(Clone, Debug)]
enum Guard {
    Absent(u64),
    Present(u64),
    VersionOf(u64, bool),
    AtMost(u64, i64),
}

#[derive(Clone, Debug)]
enum End {
    Closed,
    Killed,
    PowerLost(u64),
}

#[derive(Clone, Debug)]
enum Act {
    Commit(Vec<Guard>, Vec<Change>),
    Reopen { end: End, eager: bool },
    Scan { from: u64, to: u64, limit: usize },
}

fn change() -> impl Strategy<Value = Change> {
    let lens = prop_oneof![4 => 0usize..200, 1 => Just(70_000), 1 => Just(1_100_000)];
    prop_oneof![
        3 => (0..KEYS, 0usize..300, vec(any::<usize>(), 0..3)).prop_map(|(key, len, refs)| Change::Put { key, len, refs }),
        3 => (0..KEYS, lens).prop_map(|(key, len)| Change::PutBlob { key, len }),
        2 => (0..KEYS).prop_map(Change::Delete),
        1 => (0..KEYS, -5i64..9).prop_map(|(key, n)| Change::Add(key, n)),
        1 => (0..KEYS, 1u64..4).prop_map(|(key, n)| Change::Alloc(key + KEYS, n)),
    ]
}

fn guard() -> impl Strategy<Value = Guard> {
    prop_oneof![
        (0..KEYS).prop_map(Guard::Absent),
        (0..KEYS).prop_map(Guard::Present),
        (0..KEYS, any::<bool>()).prop_map(|(key, right)| Guard::VersionOf(key, right)),
        (0..KEYS, 0i64..20).prop_map(|(key, n)| Guard::AtMost(key, n)),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let end = prop_oneof![
        Just(End::Closed),
        Just(End::Killed),
        any::<u64>().prop_map(End::PowerLost)
    ];
    prop_oneof![
        8 => (vec(guard(), 0..2), vec(change(), 0..4)).prop_map(|(guards, changes)| Act::Commit(guards, changes)),
        2 => (end, any::<bool>()).prop_map(|(end, eager)| Act::Reopen { end, eager }),
        2 => (0..KEYS, 0..KEYS + 1, 0usize..8).prop_map(|(from, to, limit)| Act::Scan { from, to, limit }),
    ]
}

#[derive(Clone, Default)]
struct Model {
    entries: BTreeMap<Key, (Vec<u8>, u64, Vec<BlobId>)>,
    counters: BTreeMap<u64, i64>,
    blobs: BTreeMap<BlobId, Vec<u8>>,
    seq: u64,
}

impl Model {
    /// Blobs that something refers to; the others are forgotten.
    fn sweep(&mut self) {
        let living: BTreeSet<BlobId> = self
            .entries
            .values()
            .flat_map(|(_, _, refs)| refs.clone())
            .collect();
        self.blobs.retain(|id, _| living.contains(id));
    }

    fn holds(&self, guard: &Guard, after: &Model) -> bool {
        match guard {
            Guard::Absent(k) => !self.entries.contains_key(&key(*k)),
            Guard::Present(k) => self.entries.contains_key(&key(*k)),
            Guard::VersionOf(k, right) => *right && self.entries.contains_key(&key(*k)),
            Guard::AtMost(k, n) => after.counters.get(k).copied().unwrap_or(0) <= *n,
        }
    }

    fn require(&self, guard: &Guard) -> Require {
        match guard {
            Guard::Absent(k) => Require::KeyAbsent(key(*k)),
            Guard::Present(k) => Require::KeyPresent(key(*k)),
            Guard::VersionOf(k, right) => {
                let version = self.entries.get(&key(*k)).map_or(0, |e| e.1);
                Require::VersionIs(key(*k), if *right { version } else { version + 1 })
            }
            Guard::AtMost(k, n) => Require::AtMost(key(*k), *n),
        }
    }
}

struct World {
    disk: SimDisk,
    store: Arc<LogStore>,
    model: Model,
}

fn options(eagerly: bool) -> Options {
    Options {
        segment_octets: 4096,
        index_cache_octets: 1 << 20,
        ..if eagerly { eager() } else { lazy() }
    }
}

fn open_sim(disk: &SimDisk, eagerly: bool) -> Arc<LogStore> {
    LogStore::open_on(Arc::new(disk.clone()), Path::new("/mail"), options(eagerly)).unwrap()
}

impl World {
    fn commit(&mut self, guards: &[Guard], changes: &[Change]) {
        let mut batch = Batch::new();
        let mut after = self.model.clone();
        let seq = after.seq + 1;
        let mut writes = false;
        let mut allocated = Vec::new();
        for guard in guards {
            batch.require(self.model.require(guard));
        }
        // Allocations come before operations.
        for change in changes {
            if let Change::Alloc(k, n) = change {
                batch.alloc(key(*k), *n);
                let counter = after.counters.entry(*k).or_default();
                allocated.push(*counter as u64 + 1);
                *counter += *n as i64;
                writes = true;
            }
        }
        for change in changes {
            writes = true;
            match change {
                Change::Put { key: k, len, refs } => {
                    let known: Vec<BlobId> = self.model.blobs.keys().copied().collect();
                    let refs: Vec<BlobId> = refs
                        .iter()
                        .filter_map(|n| known.get(n % known.len().max(1)).copied())
                        .collect();
                    let value = pattern(*len, seq);
                    batch.put_ref(key(*k), value.clone(), refs.clone());
                    after.entries.insert(key(*k), (value, seq, refs));
                }
                Change::PutBlob { key: k, len } => {
                    let bytes = pattern(*len, seq ^ k);
                    let staged = stage(&*self.store, &bytes);
                    batch.put_ref(key(*k), vec![], vec![staged.id]);
                    after.blobs.insert(staged.id, bytes);
                    after.entries.insert(key(*k), (vec![], seq, vec![staged.id]));
                    batch.blob(staged);
                }
                Change::Delete(k) => {
                    batch.delete(key(*k));
                    after.entries.remove(&key(*k));
                    after.counters.remove(k);
                }
                Change::Add(k, n) => {
                    batch.add(key(*k), *n);
                    *after.counters.entry(*k).or_default() += n;
                }
                Change::Alloc(..) => {}
            }
        }
        after.sweep();
        let failing = |at_most: bool| {
            let of_kind = |g: &Guard| matches!(g, Guard::AtMost(..)) == at_most;
            guards
                .iter()
                .position(|g| of_kind(g) && !self.model.holds(g, &after))
        };
        let expected = match failing(false).or_else(|| failing(true)) {
            Some(index) => Err(CommitError::Conflict { index }),
            None => Ok(()),
        };
        let result = commit(&*self.store, batch);
        assert_eq!(result.as_ref().map(|_| ()).map_err(Clone::clone), expected);
        if let Ok(receipt) = result {
            assert_eq!(receipt.allocated, allocated);
            // The engine's own batches, which move blobs, take their places between ours.
            assert!(receipt.seq.0 >= seq || !writes);
            after.seq = receipt.seq.0;
            for (_, version, _) in after.entries.values_mut().filter(|e| e.1 == seq) {
                *version = receipt.seq.0;
            }
            self.model = after;
        }
    }

    fn reopen(&mut self, end: &End, eagerly: bool) {
        self.disk = match end {
            End::Closed => {
                self.store.close();
                self.disk.clone()
            }
            End::Killed => self.disk.after_kill(),
            End::PowerLost(seed) => self.disk.after_power_loss(*seed),
        };
        self.store = open_sim(&self.disk, eagerly);
        assert_eq!(self.store.damage(), []);
    }

    fn scan(&self, from: u64, to: u64, limit: usize) {
        let range = KeyRange {
            start: key(from),
            end: key(to),
        };
        let view = wait(self.store.snapshot()).unwrap();
        let inside = self.model.entries.iter().filter(|(k, _)| range.contains(k));
        let expected: Vec<_> = inside.map(|(k, e)| (k.clone(), e.0.clone(), e.1)).collect();
        let flat = |found: Vec<(Key, store::Versioned)>| -> Vec<_> {
            found
                .into_iter()
                .map(|(k, v)| (k, v.value.to_vec(), v.version))
                .collect()
        };
        let forward = flat(wait(view.scan(&range, limit)).unwrap());
        assert_eq!(forward, expected.iter().take(limit).cloned().collect::<Vec<_>>());
        let backward = flat(wait(view.scan_back(&range, limit)).unwrap());
        assert_eq!(
            backward,
            expected.iter().rev().take(limit).cloned().collect::<Vec<_>>()
        );
    }

    fn check(&self, all_blobs: &mut BTreeSet<BlobId>) {
        self.scan(0, KEYS * 2, usize::MAX);
        for k in 0..KEYS * 2 {
            let expected = self.model.counters.get(&k).copied().unwrap_or(0);
            assert_eq!(counter(&*self.store, &key(k)), expected);
        }
        all_blobs.extend(self.model.blobs.keys());
        for id in all_blobs.iter() {
            let expected = self
                .model
                .blobs
                .get(id)
                .map(|b| b.clone().into())
                .ok_or(BlobError::NotFound(*id));
            assert!(wait(self.store.read(*id, 0..u64::MAX)) == expected, "blob {id}");
        }
        assert!(wait(self.store.snapshot()).unwrap().seq().0 >= self.model.seq);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_what_the_model_says(acts in vec(act(), 1..40), eagerly in any::<bool>()) {
        let disk = SimDisk::default();
        let store = open_sim(&disk, eagerly);
        let mut world = World { disk, store, model: Model::default() };
        let mut all_blobs = BTreeSet::new();
        for act in &acts {
            match act {
                Act::Commit(guards, changes) => world.commit(guards, changes),
                Act::Reopen { end, eager } => world.reopen(end, *eager),
                Act::Scan { from, to, limit } => world.scan(*from, *to, *limit),
            }
            world.check(&mut all_blobs);
        }
    }
}
