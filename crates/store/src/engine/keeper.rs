//! The keeper: the thread that looks after the files of the log, so that no commit waits for it.
//!
//! It makes the next segment ready before the log needs it, and removes dead segments that are not
//! kept to become the next ones. Promises: a segment that could not be made durable stops the
//! store, as it would if the log had made it itself. Never: in the way of a commit.

use super::shared::{KeeperInbox, Shared};
use crate::file::{is_full, is_out_of_descriptors};
use std::sync::{Arc, PoisonError};

/// The keeper's own state.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
}

impl Keeper {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Runs until the committer has ended.
    pub(crate) fn run(self) {
        while let Some(turn) = self.wait() {
            self.take_turn(&turn);
        }
    }

    /// Does what there is to do now, on the caller's thread. Answers whether there was anything.
    #[cfg(feature = "simulated-disk")]
    pub(crate) fn step(&mut self) -> bool {
        let turn = take(&mut self.shared.keeper());
        turn.inspect(|turn| self.take_turn(turn)).is_some()
    }

    fn take_turn(&self, turn: &KeeperInbox) {
        if let Some(number) = turn.wanted {
            self.make_ahead(number);
        }
        if let Err(error) = self.shared.supply.remove_surplus(turn.full) {
            self.shared
                .stop(format!("removing dead segments failed: {error}"));
        }
    }

    fn wait(&self) -> Option<KeeperInbox> {
        let mut inbox = self.shared.keeper();
        loop {
            if inbox.closing {
                return None;
            }
            if let Some(turn) = take(&mut inbox) {
                return Some(turn);
            }
            inbox = self
                .shared
                .keeper_changed
                .wait(inbox)
                .unwrap_or_else(PoisonError::into_inner);
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
    let is_there = inbox.wanted.is_some() || inbox.surplus || inbox.full;
    is_there.then(|| std::mem::take(inbox))
}
