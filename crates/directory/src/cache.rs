//! Main passwords that were verified, so that argon2 runs once per password and not per login.
//!
//! Kept is a keyed hash under a key that lives only in this process: HMAC-SHA256 over account, PHC
//! hash and password. The PHC hash is part of it, so a changed password forgets the old one.

use crate::{NoRandomness, PasswordHash, Random};
use aws_lc_rs::hmac;
use mail::{AccountId, Secret};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

type Tag = [u8; 32];

/// The remembered verifications, at most one per account and `max` in all; the oldest makes room.
pub(crate) struct Verified {
    key: hmac::Key,
    max: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    tags: HashMap<AccountId, Tag>,
    order: VecDeque<AccountId>,
}

impl Verified {
    pub(crate) fn new(max: usize, random: &dyn Random) -> Result<Self, NoRandomness> {
        let mut key = [0u8; 32];
        random.fill(&mut key)?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            max,
            known: Mutex::default(),
        })
    }

    /// Whether this password was verified against this hash before.
    pub(crate) fn knows(&self, account: AccountId, hash: &PasswordHash, password: &Secret) -> bool {
        let tag = self.tag(account, hash, password);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .tags
            .get(&account)
            .is_some_and(|t| mail::secret::constant_time_eq(t, &tag))
    }

    /// Remembers that this password was verified against this hash.
    pub(crate) fn remember(&self, account: AccountId, hash: &PasswordHash, password: &Secret) {
        if self.max == 0 {
            return;
        }
        let tag = self.tag(account, hash, password);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.tags.insert(account, tag).is_none() {
            known.order.push_back(account);
        }
        while known.order.len() > self.max {
            if let Some(oldest) = known.order.pop_front() {
                known.tags.remove(&oldest);
            }
        }
    }

    fn tag(&self, account: AccountId, hash: &PasswordHash, password: &Secret) -> Tag {
        let mut ctx = hmac::Context::with_key(&self.key);
        ctx.update(&account.0.to_be_bytes());
        // The PHC form has a length of its own in front, so that no two triples look alike.
        ctx.update(&(hash.as_phc().len() as u64).to_be_bytes());
        ctx.update(hash.as_phc().as_bytes());
        ctx.update(password.expose().as_bytes());
        let mut tag = [0u8; 32];
        tag.copy_from_slice(ctx.sign().as_ref());
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Argon2Cost, SystemRandom};

    fn hash() -> PasswordHash {
        PasswordHash::unmatchable(Argon2Cost::default(), &SystemRandom).unwrap()
    }

    #[test]
    fn bounded_and_bound_to_the_hash() {
        let cache = Verified::new(2, &SystemRandom).unwrap();
        let (h, p) = (hash(), Secret::new("correct horse"));
        for n in 1..=3 {
            cache.remember(AccountId(n), &h, &p);
            cache.remember(AccountId(n), &h, &p);
        }
        assert!(!cache.knows(AccountId(1), &h, &p), "the oldest made room");
        assert!(cache.knows(AccountId(2), &h, &p));
        assert!(cache.knows(AccountId(3), &h, &p));
        assert!(!cache.knows(AccountId(3), &hash(), &p), "another hash");
        assert!(!cache.knows(AccountId(3), &h, &Secret::new("wrong")));
        assert_eq!(cache.known.lock().unwrap().tags.len(), 2);
    }

    #[test]
    fn zero_remembers_nothing() {
        let cache = Verified::new(0, &SystemRandom).unwrap();
        let (h, p) = (hash(), Secret::new("x"));
        cache.remember(AccountId(1), &h, &p);
        assert!(!cache.knows(AccountId(1), &h, &p));
    }
}
