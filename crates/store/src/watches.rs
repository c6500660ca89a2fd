//! The registry of watched topics.
//!
//! Promises: a topic that nobody watches any more costs nothing for long; waking is one lock and
//! one map look-up per topic of a batch. Never: a message with content (watchers read the tables).

use crate::tables::{Topic, Watch};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch::Sender;

/// Below this many topics nobody looks for unused ones.
const SWEEP_FLOOR: usize = 64;

#[derive(Default)]
struct Topics {
    senders: HashMap<Topic, Sender<u64>>,
    /// Look for unused topics when there are this many.
    sweep_at: usize,
    closed: bool,
}

/// Who watches what.
#[derive(Default)]
pub(crate) struct Watches {
    topics: Mutex<Topics>,
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, Topics> {
        // Each critical section leaves the map whole, so a poisoned lock is still good.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a watch.
    pub(crate) fn watch(&self, topic: &Topic) -> Watch {
        let mut topics = self.lock();
        if topics.closed {
            let (_, receiver) = tokio::sync::watch::channel(0);
            return Watch { receiver };
        }
        if topics.senders.len() >= topics.sweep_at.max(SWEEP_FLOOR) {
            topics.senders.retain(|_, sender| sender.receiver_count() > 0);
            topics.sweep_at = topics.senders.len() * 2;
        }
        let sender = topics
            .senders
            .entry(topic.clone())
            .or_insert_with(|| Sender::new(0));
        Watch {
            receiver: sender.subscribe(),
        }
    }

    /// Wakes the watchers of some topics.
    pub(crate) fn wake<'a>(&self, woken: impl IntoIterator<Item = &'a Topic>) {
        let mut topics = self.lock();
        for topic in woken {
            if let Some(sender) = topics.senders.get(topic) {
                if sender.receiver_count() == 0 {
                    topics.senders.remove(topic);
                } else {
                    sender.send_modify(|n| *n = n.wrapping_add(1));
                }
            }
        }
    }

    /// Ends every watch.
    pub(crate) fn close(&self) {
        let mut topics = self.lock();
        topics.closed = true;
        topics.senders.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_topics_go() {
        let watches = Watches::default();
        let kept = watches.watch(&Topic(vec![1]));
        for n in 0..100_000u32 {
            drop(watches.watch(&Topic(n.to_be_bytes().to_vec())));
        }
        assert!(watches.lock().senders.len() <= SWEEP_FLOOR + 1);
        assert!(watches.lock().senders.contains_key(&Topic(vec![1])));
        watches.wake([&Topic(vec![1])]);
        assert!(kept.receiver.has_changed().unwrap());
        watches.close();
        assert!(watches.watch(&Topic(vec![1])).receiver.has_changed().is_err());
    }
}
