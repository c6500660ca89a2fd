//! Queue ids from the clock: unique and rising within the process.

use mail::{Clock, QueueId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes queue ids. One per process.
pub struct IdSource {
    clock: Arc<dyn Clock>,
    last: AtomicU64,
}

impl IdSource {
    /// Ids from this clock. When the clock stands still or steps back, ids go on rising from the
    /// last one. Across restarts they are unique as long as the clock does not step back behind
    /// the last run's ids; if it does, [`crate::Queue::accept`] conflicts instead of overwriting.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            last: AtomicU64::new(0),
        }
    }

    /// The next id.
    pub fn next_id(&self) -> QueueId {
        let floor = QueueId::from_parts(self.clock.now().micros(), 0).0;
        let step = |last: u64| floor.max(last.saturating_add(1));
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            let next = step(last);
            match self
                .last
                .compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return QueueId(next),
                Err(other) => last = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::Timestamp;
    use std::sync::atomic::AtomicI64;

    struct Hand(AtomicI64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn rises_even_when_the_clock_does_not() {
        let clock = Arc::new(Hand(AtomicI64::new(1_000_000)));
        let ids = IdSource::new(clock.clone());
        let mut last = ids.next_id();
        assert_eq!(last, QueueId::from_parts(1_000_000, 0));
        for micros in [1_000_000, 1_000_000, 999_000, 1_000_001, 5] {
            clock.0.store(micros, Ordering::Relaxed);
            let next = ids.next_id();
            assert!(next > last);
            last = next;
        }
        clock.0.store(2_000_000, Ordering::Relaxed);
        assert_eq!(ids.next_id(), QueueId::from_parts(2_000_000, 0));
    }

    #[test]
    fn unique_across_threads() {
        let ids = Arc::new(IdSource::new(Arc::new(Hand(AtomicI64::new(7)))));
        let handles: Vec<_> = (0..4)
            .map(|_| {
                let ids = ids.clone();
                std::thread::spawn(move || (0..1000).map(|_| ids.next_id()).collect::<Vec<_>>())
            })
            .collect();
        let mut all: Vec<_> = handles.into_iter().flat_map(|h| h.join().unwrap()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4000);
    }
}
