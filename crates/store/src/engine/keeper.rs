//! The keeper: the thread that looks after the files of the log, so that no commit waits for it.
//!
//! It makes the next segment ready before the log needs it, removes dead segments that are not
//! kept to become the next ones, and lets the collector empty half-dead ones. Promises: a segment
//! that could not be made durable stops the store, as it would if the log had made it itself.
//! Never: in the way of a commit.

use super::collect::Collector;
use super::shared::{KeeperInbox, Shared};
use crate::file::{is_full, is_out_of_descriptors};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// The keeper's own state.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    collector: Collector,
    /// Whether the figures of all segments were looked at.
    begun: bool,
}

impl Keeper {
    /// `newest` is the segment in which the log goes on.
    pub(crate) fn new(shared: Arc<Shared>, store: u64, newest: u64) -> Self {
        Self {
            collector: Collector::new(shared.clone(), store, newest),
            shared,
            begun: false,
        }
    }

    /// Runs until the committer has ended.
    pub(crate) fn run(mut self) {
        self.begin();
        while let Some(turn) = self.wait() {
            self.begin();
            self.take_turn(turn);
            if self.collector.due() == Some(Duration::ZERO) {
                let supply = self.shared.supply.clone();
                // Held until the copies are committed: who pins the log waits for that.
                if let Some(_at_work) = supply.work() {
                    self.collector.advance();
                }
            }
        }
    }

    /// Does what there is to do now, on the caller's thread. Answers whether there was anything.
    #[cfg(feature = "simulated-disk")]
    pub(crate) fn step(&mut self) -> bool {
        self.begin();
        let turn = take(&mut self.shared.keeper());
        let is_there = turn.is_some();
        if let Some(turn) = turn {
            self.take_turn(turn);
        }
        self.collector.step() || is_there
    }

    fn begin(&mut self) {
        if !self.begun {
            self.begun = self.collector.look_at_all();
        }
    }

    fn take_turn(&mut self, turn: KeeperInbox) {
        if let Some(number) = turn.wanted {
            self.make_ahead(number);
        }
        // What dies while the disk is full is what makes room again: it must not stay as a spare.
        let full = turn.full || self.shared.reserve.is_given_away();
        if let Err(error) = self.shared.supply.remove_surplus(full) {
            self.shared
                .stop(format!("removing dead segments failed: {error}"));
        }
        self.collector.learn(turn.figures, turn.ended_below);
    }

    /// Waits for something in the inbox, or until the collector may go on. `None`: it is over.
    fn wait(&self) -> Option<KeeperInbox> {
        let mut inbox = self.shared.keeper();
        loop {
            if inbox.closing {
                return None;
            }
            if let Some(turn) = take(&mut inbox) {
                return Some(turn);
            }
            let changed = &self.shared.keeper_changed;
            inbox = match self.collector.due() {
                Some(Duration::ZERO) => return Some(KeeperInbox::default()),
                Some(left) => match changed.wait_timeout(inbox, left) {
                    Ok((inbox, _)) => inbox,
                    Err(poisoned) => poisoned.into_inner().0,
                },
                None => changed.wait(inbox).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn make_ahead(&self, number: u64) {
        if self.shared.stopped().is_some() {
            return;
        }
        match self.shared.supply.make_ahead(number) {
            Ok(()) => {}
            // The log tries again when it comes to the end of its segment, and tells the askers.
            Err(error) if is_full(&error) || is_out_of_descriptors(&error) => {
                tracing::warn!(%error, "the next segment can't be made yet");
            }
            Err(error) => self
                .shared
                .stop(format!("making the next segment failed: {error}")),
        }
    }
}

/// What is in the inbox, if there is something.
fn take(inbox: &mut KeeperInbox) -> Option<KeeperInbox> {
    let is_there = inbox.wanted.is_some()
        || inbox.surplus
        || inbox.full
        || !inbox.figures.is_empty()
        || inbox.ended_below > 0;
    is_there.then(|| std::mem::take(inbox))
}
