//! The engine's work in steps, on the thread of whoever takes them.
//!
//! Promises: the same steps on the same disk do the same operations in the same order; nothing
//! happens between steps. Never: a thread, a wait.

use super::LogStore;
use super::applier::Applier;
use super::committer::{Committer, EndGuard, Step};
use super::keeper::Keeper;
use std::sync::Arc;

/// Does what the threads of a store do otherwise. Dropping it ends the store as a crash would:
/// whoever waits hears that the outcome is unknown.
pub struct Stepper {
    store: Arc<LogStore>,
    committer: Committer,
    applier: Applier,
    keeper: Keeper,
    _end: EndGuard,
}

impl Stepper {
    pub(crate) fn new(
        store: Arc<LogStore>,
        (committer, applier, keeper): (Committer, Applier, Keeper),
    ) -> Self {
        Self {
            _end: committer.end_guard(),
            store,
            committer,
            applier,
            keeper,
        }
    }

    /// Commits what waits: writes, syncs, publishes and answers. Answers whether there was anything.
    pub fn commit(&mut self) -> bool {
        matches!(self.committer.step(), Step::Done)
    }

    /// Lets the index follow, and looks after the segments: the dead, the next. Answers whether
    /// there was anything to do; what failed is tried again with the next step.
    pub fn apply(&mut self) -> bool {
        let applied = self.applier.step();
        self.keeper.step() || applied
    }

    /// A clean end: answers what waits, brings the index up to date, unlocks the folder.
    pub fn close(mut self) {
        self.store.shared.queue().closing = true;
        loop {
            match self.committer.step() {
                Step::Done => {}
                Step::Last => break,
                Step::Idle if self.applier.step() => {}
                // Nobody is left who could do anything.
                Step::Idle => break,
            }
        }
        self.committer.end();
        let store = self.store.clone();
        drop(self);
        store.close();
    }
}
