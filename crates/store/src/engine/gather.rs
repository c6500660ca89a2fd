//! How long the committer waits for company before it begins a group.
//!
//! Where a sync is quick, groups that take only what happens to wait stay small, and each costs a
//! sync and several switches between threads. So a group waits for as many batches as came together
//! lately, and not longer than a set time. Promises: who is alone never waits, nor do those who are
//! all there; a wait that was in vain makes the next one shorter.
//! Never: a clock of its own, a thing that durability depends on.

use std::time::{Duration, Instant};

/// What is expected, and since when it is waited for.
pub(crate) struct Gather {
    wait_max: Duration,
    /// Batches that are waited for.
    company: usize,
    until: Option<Instant>,
}

impl Gather {
    pub(crate) fn new(wait_max: Duration) -> Self {
        Self {
            wait_max,
            company: 1,
            until: None,
        }
    }

    /// How many batches are waited for.
    pub(crate) fn company(&self) -> usize {
        self.company
    }

    /// For how long more to wait while this many batches are there; `None` when it is time to go.
    pub(crate) fn left(&mut self, there: usize, now: Instant) -> Option<Duration> {
        if there >= self.company {
            return None;
        }
        let until = *self.until.get_or_insert(now + self.wait_max);
        let left = until.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Learns from a group of this many batches.
    pub(crate) fn went(&mut self, batches: usize) {
        let in_vain = self.until.take().is_some() && batches < self.company;
        self.company = match in_vain {
            true => batches.max(1),
            false => self.company.max(batches),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn who_is_alone_never_waits() {
        let mut gather = Gather::new(2 * MS);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(gather.left(1, now), None);
            gather.went(1);
        }
    }

    #[test]
    fn company_is_waited_for_up_to_the_set_time_and_no_longer() {
        let mut gather = Gather::new(2 * MS);
        let now = Instant::now();
        gather.went(5);
        assert_eq!(gather.left(1, now), Some(2 * MS));
        assert_eq!(gather.left(3, now + MS), Some(MS));
        assert_eq!(gather.left(5, now + MS), None, "all are there");
        gather.went(5);
        assert_eq!(gather.left(2, now), Some(2 * MS));
        assert_eq!(gather.left(3, now + 2 * MS), None, "the time is over");
        gather.went(3);
        assert_eq!(gather.left(3, now), None, "fewer are expected now");
    }

    #[test]
    fn no_time_set_means_no_wait() {
        let mut gather = Gather::new(Duration::ZERO);
        gather.went(5);
        assert_eq!(gather.left(1, Instant::now()), None);
    }
}
