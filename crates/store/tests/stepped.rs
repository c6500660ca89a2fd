//! The engine in steps: the same steps do the same operations, and a cut loses nothing acknowledged.
#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use store::engine::Stepper;
use store::simulated::{Fault, SimDisk};
use store::{Batch, CommitError, LogStore, OpenError, Options, Receipt, Tables};

fn open_stepped(disk: &SimDisk) -> Result<(Arc<LogStore>, Stepper), OpenError> {
    let options = Options {
        segment_octets: 16 * 1024,
        apply_octets: 3000,
        index_cache_octets: 1 << 20,
        ..lazy()
    };
    LogStore::open_stepped(Arc::new(disk.clone()), Path::new("/mail"), options)
}

/// Commits with the steps that it takes.
fn commit_in_steps(
    store: &LogStore,
    stepper: &mut Stepper,
    batch: Batch,
) -> Option<Result<Receipt, CommitError>> {
    let mut commit = pin!(store.commit(batch));
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(answer) = commit.as_mut().poll(&mut context) {
            return Some(answer);
        }
        if !stepper.commit() {
            return None;
        }
    }
}

/// Numbers whose batches were acknowledged.
fn workload(store: &LogStore, stepper: &mut Stepper) -> Vec<u64> {
    let mut done = Vec::new();
    for n in 0..40 {
        let mut batch = Batch::new();
        batch.put(key(n), pattern(700, n));
        if let Some(Ok(_)) = commit_in_steps(store, stepper, batch) {
            done.push(n);
        }
        if n % 3 == 0 {
            stepper.apply();
        }
    }
    done
}

#[test]
fn the_same_steps_do_the_same_operations() {
    let run = || {
        let disk = SimDisk::default();
        let (store, mut stepper) = open_stepped(&disk).unwrap();
        assert_eq!(workload(&store, &mut stepper).len(), 40);
        stepper.close();
        (disk.operations(), disk.trace())
    };
    assert_eq!(run(), run());
}

#[test]
fn nothing_is_committed_between_steps() {
    let disk = SimDisk::default();
    let (store, mut stepper) = open_stepped(&disk).unwrap();
    let mut batch = Batch::new();
    batch.put(key(1), vec![1]);
    let before = disk.operations();
    let answer = store.commit(batch);
    assert_eq!(disk.operations(), before);
    assert!(stepper.commit());
    assert!(wait(answer).is_ok() && disk.operations() > before);
    stepper.close();
}

#[test]
fn a_failed_sync_of_the_index_loses_nothing_at_a_later_cut() {
    let counted = SimDisk::default();
    let (store, mut stepper) = open_stepped(&counted).unwrap();
    workload(&store, &mut stepper);
    stepper.close();
    for at in 1..counted.operations() {
        let disk = SimDisk::default();
        disk.fail_at(at, Fault::Once(std::io::ErrorKind::Other));
        let Ok((store, mut stepper)) = open_stepped(&disk) else {
            continue;
        };
        let done = workload(&store, &mut stepper);
        for seed in [0, at * 2 + 1, at * 2 + 7001] {
            let about = format!("operation {at} failed, then a cut with seed {seed}");
            let opened = open_stepped(&disk.after_power_loss(seed));
            let (after, _stepper) = opened.unwrap_or_else(|error| panic!("{about}: {error}"));
            for n in &done {
                assert_eq!(value(&*after, &key(*n)), Some(pattern(700, *n)), "{about}");
            }
        }
    }
}
