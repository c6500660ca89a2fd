//! Many eras on a few threads, and what came of them.
//!
//! Never: anything that decides what happens in a life; two runs differ in their speed only.

use crate::era::{Counts, Era, LIVES, Setting};
use crate::failure::Failure;
use crate::life::End;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use store::simulated::Dice;

/// A broken promise, and where.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// The life in which it showed; in a sweep, the operation of the cut.
    pub life: u64,
    /// What is broken.
    #[serde(serialize_with = "as_text")]
    pub failure: Failure,
}

fn as_text<S: serde::Serializer>(failure: &Failure, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(failure)
}

/// What a run came to.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Outcome {
    /// What was counted.
    pub counts: Counts,
    /// What is broken: nothing, if all is well.
    pub found: Vec<Found>,
}

/// What is shared by the threads of a run.
struct Board<'a> {
    outcome: Mutex<Outcome>,
    done: AtomicU64,
    stop: AtomicBool,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl<'a> Board<'a> {
    fn new(progress: &'a (dyn Fn(u64) + Sync)) -> Self {
        Self {
            outcome: Mutex::default(),
            done: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            progress,
        }
    }

    fn tick(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        (self.progress)(done);
    }

    fn add(&self, counts: &Counts, found: Option<Found>) {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.counts.add(counts);
        // One is enough to know; the others of the same cause would only take time.
        self.stop.fetch_or(found.is_some(), Ordering::Relaxed);
        outcome.found.extend(found);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn into_outcome(self) -> Outcome {
        self.outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs jobs on threads, each job once.
fn share_out<T: Sync>(jobs: &[T], threads: usize, work: impl Fn(&T) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    work(job);
                }
            });
        }
    });
}

/// Cuts at random points, `cuts` in all over these seeds.
pub fn random(
    seeds: RangeInclusive<u64>,
    cuts: u64,
    setting: Setting,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Outcome {
    let count = seeds.clone().count() as u64;
    let per_seed = cuts.div_ceil(count.max(1));
    let mut jobs = Vec::new();
    for first in (1..=per_seed).step_by(LIVES as usize) {
        let last = (first + LIVES - 1).min(per_seed);
        jobs.extend(seeds.clone().map(|seed| (seed, first, last)));
    }
    let board = Board::new(progress);
    share_out(&jobs, threads, |(seed, first, last)| {
        if board.stopped() {
            return;
        }
        let mut era = Era::new(*seed, *first, setting);
        let mut found = None;
        while era.life < *last && found.is_none() && !board.stopped() {
            found = era.next_life().err().map(|failure| Found {
                seed: *seed,
                life: era.life,
                failure,
            });
            board.tick();
        }
        board.add(&era.counts(), found);
    });
    board.into_outcome()
}

/// Lives an era again up to a life. Answers the era before that life, and how it went.
pub fn repeat(seed: u64, life: u64, setting: Setting) -> (Era, Result<End, Failure>) {
    let first = (life.max(1) - 1) / LIVES * LIVES + 1;
    let mut era = Era::new(seed, first, setting);
    while era.life + 1 < life {
        // A failure before the life that was asked for is the one to look at.
        if let Err(failure) = era.next_life() {
            return (era, Err(failure));
        }
    }
    let found = era.disk.after_kill();
    let ended = era.next_life();
    era.disk = found;
    (era, ended)
}

/// Cuts the first life of each seed at every operation, the second at a random point of its
/// recovery, and looks.
pub fn every(
    seeds: RangeInclusive<u64>,
    only: Option<u64>,
    setting: Setting,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Outcome {
    let board = Board::new(progress);
    for seed in seeds {
        let operations: Vec<u64> = match only {
            Some(operation) => vec![operation],
            None => (1..=operations_of(seed)).collect(),
        };
        share_out(&operations, threads, |operation| {
            if board.stopped() {
                return;
            }
            let mut era = Era::new(seed, 1, setting);
            let swept = sweep(&mut era, seed, *operation);
            let found = swept.err().map(|failure| Found {
                seed,
                life: *operation,
                failure,
            });
            board.add(&era.counts(), found);
            board.tick();
        });
    }
    board.into_outcome()
}

/// Operations of the first life of a seed, when nothing cuts it.
#[must_use]
pub fn operations_of(seed: u64) -> u64 {
    let mut era = Era::new(seed, 1, Setting::default());
    // A failure shows in the sweep that follows.
    let _ = era.life_cut_at(u64::MAX);
    era.counts().operations
}

fn sweep(era: &mut Era, seed: u64, operation: u64) -> Result<(), Failure> {
    era.life_cut_at(operation)?;
    let in_recovery = Dice::new(seed ^ operation).below(40);
    era.life_cut_at(1 + in_recovery)?;
    era.look()
}
