//! Counts within windows of time, bounded in memory.
//!
//! A window begins with the first event and ends after its length; then the next event begins a new
//! one. So whoever is over a limit can be told when it may come again.

use crate::network::Network;
use mail::Timestamp;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Entries of one kind of count at most; beyond that the expired ones are forgotten, and if that is
/// not enough, the older half.
pub const ENTRIES_MAX: usize = 20_000;

/// Who is counted.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Who {
    Network(Network),
    Login(Box<str>),
}

#[derive(Clone, Copy)]
struct Count {
    since: Timestamp,
    n: u32,
}

/// One kind of count.
#[derive(Default)]
pub(crate) struct Counters {
    counts: Mutex<HashMap<Who, Count>>,
}

impl Counters {
    /// Counts one more unless `max` within the window is reached; then, when the window ends.
    pub(crate) fn admit(
        &self,
        who: Who,
        max: u32,
        window: Duration,
        now: Timestamp,
    ) -> Result<(), Timestamp> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = count_of(&mut counts, who, window, now);
        if count.n >= max {
            return Err(count.since.plus(window));
        }
        count.n += 1;
        Ok(())
    }

    /// Counts one more, and answers how many there are within the window.
    pub(crate) fn note(&self, who: Who, window: Duration, now: Timestamp) -> u32 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = count_of(&mut counts, who, window, now);
        count.n = count.n.saturating_add(1);
        count.n
    }

    /// How many there are within the window.
    pub(crate) fn now(&self, who: &Who, window: Duration, now: Timestamp) -> u32 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(who).filter(|c| now.since(c.since) < window);
        count.map_or(0, |c| c.n)
    }

    /// Forgets what was counted.
    pub(crate) fn forget(&self, matches: impl Fn(&Who) -> bool) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.retain(|who, _| !matches(who));
    }
}

fn count_of(counts: &mut HashMap<Who, Count>, who: Who, window: Duration, now: Timestamp) -> &mut Count {
    if counts.len() >= ENTRIES_MAX && !counts.contains_key(&who) {
        make_room(counts, window, now);
    }
    let fresh = Count { since: now, n: 0 };
    let count = counts.entry(who).or_insert(fresh);
    if now.since(count.since) >= window {
        *count = fresh;
    }
    count
}

/// Seldom enough to cost little, and who comes from very many addresses does not free the others all
/// at once.
fn make_room(counts: &mut HashMap<Who, Count>, window: Duration, now: Timestamp) {
    counts.retain(|_, c| now.since(c.since) < window);
    if counts.len() < ENTRIES_MAX {
        return;
    }
    let mut ages: Vec<Timestamp> = counts.values().map(|c| c.since).collect();
    let half = ages.len() / 2;
    let (_, median, _) = ages.select_nth_unstable(half);
    let median = *median;
    let mut kept = 0;
    counts.retain(|_, c| {
        let keep = c.since > median || (c.since == median && kept < half);
        kept += usize::from(keep);
        keep
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_439_053);
    const MINUTE: Duration = Duration::from_secs(60);

    fn who(n: u32) -> Who {
        Who::Network(Network::new(std::net::Ipv4Addr::from_bits(n).into(), 32))
    }

    #[test]
    fn a_window_fills_and_ends() {
        let counters = Counters::default();
        for _ in 0..3 {
            assert_eq!(counters.admit(who(1), 3, MINUTE, NOW), Ok(()));
        }
        let later = NOW.plus(MINUTE / 2);
        assert_eq!(counters.admit(who(1), 3, MINUTE, later), Err(NOW.plus(MINUTE)));
        assert_eq!(counters.admit(who(2), 3, MINUTE, later), Ok(()));
        assert_eq!(counters.admit(who(1), 3, MINUTE, NOW.plus(MINUTE)), Ok(()));
        assert_eq!(counters.now(&who(1), MINUTE, NOW.plus(MINUTE)), 1);
        assert_eq!(counters.now(&who(9), MINUTE, NOW), 0);
    }

    #[test]
    fn a_flood_of_addresses_takes_bounded_room() {
        let counters = Counters::default();
        for n in 0..100_000 {
            counters.note(who(n), MINUTE, NOW);
        }
        let len = counters.counts.lock().unwrap().len();
        assert!(len <= ENTRIES_MAX, "{len}");
        assert!(len >= ENTRIES_MAX / 2, "{len}");
    }
}
