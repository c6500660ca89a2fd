//! Blocks: who is shut out for a time, and why. Held in memory, stored so that a restart forgets none.

use crate::network::{Network, Subject};
use mail::{Timestamp, date};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

/// Blocks at most. Beyond that the operator is told so, and the limits make none of their own.
pub const BLOCKS_MAX: usize = 50_000;

/// Who makes the blocks that no operator made.
pub const BY_LIMITS: &str = "limits";

/// A subject that is shut out for a time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Block {
    /// Who.
    pub subject: Subject,
    /// Since when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Why, in words for the one who is shut out.
    pub why: String,
    /// Who ordered it: [`BY_LIMITS`], or the operator.
    pub by: String,
}

impl Block {
    /// `blocked until 2026-11-23T20:00:00Z: too many failed logins`.
    #[must_use]
    pub fn sentence(&self) -> String {
        format!("blocked until {}: {}", date::iso8601(self.until), self.why)
    }
}

/// The blocks that are in force.
#[derive(Default)]
pub(crate) struct Blocks {
    /// How many there are, so that nobody waits for a lock when there is none.
    len: AtomicUsize,
    all: RwLock<All>,
}

#[derive(Default)]
struct All {
    by_subject: HashMap<Subject, Block>,
    /// The family and the prefix of each network that is blocked (or was).
    prefixes: BTreeSet<(bool, u8)>,
}

impl Blocks {
    /// The block of that address, or of a network around it.
    pub(crate) fn of_address(&self, ip: IpAddr, now: Timestamp) -> Option<Block> {
        if self.len.load(Ordering::Acquire) == 0 {
            return None;
        }
        let ip = ip.to_canonical();
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let prefixes = all.prefixes.iter().filter(|(ipv4, _)| *ipv4 == ip.is_ipv4());
        let found = prefixes.filter_map(|(_, prefix)| {
            let subject = Subject::Network(Network::new(ip, *prefix));
            all.by_subject.get(&subject).filter(|b| b.until > now)
        });
        found.max_by_key(|b| b.until).cloned()
    }

    /// The block of that login.
    pub(crate) fn of_login(&self, login: &str, now: Timestamp) -> Option<Block> {
        if self.len.load(Ordering::Acquire) == 0 {
            return None;
        }
        let subject = Subject::Login(login.trim().to_lowercase());
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.by_subject.get(&subject).filter(|b| b.until > now).cloned()
    }

    /// The block of exactly that subject that still holds at that time.
    pub(crate) fn of_subject(&self, subject: &Subject, at: Timestamp) -> Option<Block> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.by_subject.get(subject).filter(|b| b.until > at).cloned()
    }

    /// Puts a block in force, in place of one of the same subject. `false`: there are too many.
    pub(crate) fn put(&self, block: Block, now: Timestamp) -> bool {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        if all.by_subject.len() >= BLOCKS_MAX && !all.by_subject.contains_key(&block.subject) {
            all.by_subject.retain(|_, b| b.until > now);
        }
        let fits = all.by_subject.len() < BLOCKS_MAX || all.by_subject.contains_key(&block.subject);
        if fits {
            if let Subject::Network(network) = &block.subject {
                all.prefixes.insert((network.is_ipv4(), network.prefix()));
            }
            all.by_subject.insert(block.subject.clone(), block);
        }
        self.len.store(all.by_subject.len(), Ordering::Release);
        fits
    }

    /// Lifts a block.
    pub(crate) fn lift(&self, subject: &Subject) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.by_subject.remove(subject);
        self.len.store(all.by_subject.len(), Ordering::Release);
    }

    /// Lifts what is over.
    pub(crate) fn forget(&self, now: Timestamp) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.by_subject.retain(|_, b| b.until > now);
        let networks = all.by_subject.keys().filter_map(|s| match s {
            Subject::Network(n) => Some((n.is_ipv4(), n.prefix())),
            Subject::Login(_) => None,
        });
        all.prefixes = networks.collect();
        self.len.store(all.by_subject.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_secs(1_795_439_053);

    fn block(subject: &str, secs: u64) -> Block {
        Block {
            subject: subject.parse().unwrap(),
            from: NOW,
            until: NOW.plus(Duration::from_secs(secs)),
            why: "a test".to_owned(),
            by: BY_LIMITS.to_owned(),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_block_around_an_address_counts() {
        let blocks = Blocks::default();
        assert_eq!(blocks.of_address(ip("192.0.2.1"), NOW), None);
        for one in [
            block("192.0.2.1", 60),
            block("192.0.2.0/24", 600),
            block("2001:db8::/32", 60),
        ] {
            assert!(blocks.put(one, NOW));
        }
        let found = blocks.of_address(ip("::ffff:192.0.2.1"), NOW).unwrap();
        assert_eq!(found.subject.to_string(), "192.0.2.0/24");
        assert!(blocks.of_address(ip("192.0.3.1"), NOW).is_none());
        assert!(blocks.of_address(ip("2001:db8:ffff::1"), NOW).is_some());
        let later = NOW.plus(Duration::from_secs(600));
        assert!(blocks.of_address(ip("192.0.2.1"), later).is_none(), "it is over");
        blocks.lift(&"192.0.2.0/24".parse().unwrap());
        assert!(blocks.of_address(ip("192.0.2.2"), NOW).is_none());
        blocks.forget(later);
        assert_eq!(blocks.len.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_login_is_blocked_however_it_is_written() {
        let blocks = Blocks::default();
        assert!(blocks.put(block("mia@example.com", 60), NOW));
        assert!(blocks.of_login("Mia@Example.COM", NOW).is_some());
        assert!(blocks.of_login("bob@example.com", NOW).is_none());
    }
}
