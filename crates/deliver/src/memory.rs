//! What is known of servers for a while: names, each with an end.
//!
//! Promises: as many as it may have and no more; a table that is full is swept of what is over once in
//! [`SWEEP`], however much comes. Never: the name that was there first pushed out by a later one.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// From one sweep of a full table to the next.
const SWEEP: Duration = Duration::from_secs(10);

/// Names that are remembered.
#[derive(Debug)]
pub(crate) struct Memory<K> {
    until: HashMap<K, Instant>,
    names_max: usize,
    swept: Option<Instant>,
}

impl<K: Hash + Eq> Memory<K> {
    pub(crate) fn new(names_max: usize) -> Self {
        Self {
            until: HashMap::new(),
            names_max,
            swept: None,
        }
    }

    /// Whether a name is remembered.
    pub(crate) fn holds(&self, name: &K) -> bool {
        self.until.get(name).is_some_and(|until| *until > Instant::now())
    }

    /// Remembers a name from now on for a time, where there is room.
    pub(crate) fn learn(&mut self, name: K, time: Duration) {
        let now = Instant::now();
        if self.until.len() >= self.names_max && self.swept.is_none_or(|at| now >= at + SWEEP) {
            self.until.retain(|_, until| *until > now);
            self.swept = Some(now);
        }
        if self.until.len() < self.names_max || self.until.contains_key(&name) {
            self.until.insert(name, now + time);
        }
    }

    pub(crate) fn forget(&mut self, name: &K) {
        self.until.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_over_makes_room() {
        let mut memory = Memory::new(2);
        let time = Duration::from_secs(60);
        for name in [1, 2, 3] {
            memory.learn(name, time);
        }
        memory.learn(2, 2 * time);
        assert_eq!([1, 2, 3].map(|n| memory.holds(&n)), [true, true, false]);
        tokio::time::advance(time).await;
        memory.learn(3, time);
        assert_eq!([1, 2, 3].map(|n| memory.holds(&n)), [false, true, true]);
        memory.forget(&2);
        assert!(!memory.holds(&2));
    }
}
