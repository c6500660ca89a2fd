//! What an account has sent today, so that a stolen password does little harm.
//!
//! Promises: a recipient is counted when it is taken at RCPT, given back when the message does not
//! come about, and made durable in the batch that accepts the message (one addition a counter, one
//! row for each first-time recipient); a restart forgets nothing that was accepted. The store is
//! asked once a day for each account, and for recipients that memory does not know.
//!
//! Never: anything on the way of mail from strangers.

use crate::Error;
use crate::keys::{self, What};
use crate::options::Daily;
use mail::{AccountId, EmailAddress, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use store::{Batch, Key, Store};

/// Accounts whose day is held in memory at most.
const ACCOUNTS_MAX: usize = 2_000;
/// Recipients of one account that are remembered in memory at most; the others are looked up.
const REMEMBERED_MAX: usize = 1_000;
/// Days after which a recipient is forgotten, and so is a first-time one again.
pub const KNOWN_DAYS: u32 = 365;
const DAY_SECS: i64 = 86_400;
/// Rows that are forgotten in one go.
const AT_ONCE: usize = 500;

/// The day of UTC, counted from 1970.
fn day_of(at: Timestamp) -> u32 {
    u32::try_from(at.secs().div_euclid(DAY_SECS)).unwrap_or(0)
}

/// When a day ends.
fn end_of(day: u32) -> Timestamp {
    Timestamp::from_secs((i64::from(day) + 1) * DAY_SECS)
}

/// An account's own limits; what is `None` is as for everybody, 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OwnDaily {
    /// Messages to recipients elsewhere.
    pub messages: Option<u32>,
    /// First-time recipients elsewhere.
    pub first_recipients: Option<u32>,
}

/// Which daily limit is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exceeded {
    /// Messages.
    Messages {
        /// The limit.
        max: u32,
        /// When more may be sent.
        until: Timestamp,
    },
    /// First-time recipients.
    FirstRecipients {
        /// The limit.
        max: u32,
        /// When more may be written to.
        until: Timestamp,
    },
}

/// What an account has sent today, and may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Today {
    /// Messages so far.
    pub messages: u32,
    /// At most; 0: no limit.
    pub messages_max: u32,
    /// First-time recipients so far.
    pub first_recipients: u32,
    /// At most; 0: no limit.
    pub first_recipients_max: u32,
    /// When the day ends.
    pub until: Timestamp,
    /// The account's own limits.
    pub own: OwnDaily,
}

/// The days of all accounts.
pub(crate) struct Usage {
    store: Arc<dyn Store>,
    everybody: Daily,
    hasher: RandomState,
    accounts: Mutex<HashMap<AccountId, Account>>,
}

struct Account {
    day: u32,
    messages: u32,
    first_recipients: u32,
    own: OwnDaily,
    /// Hashes of recipients that it has written to.
    known: HashSet<u64>,
    /// Transactions that hold something.
    held: u32,
}

/// What one transaction has taken of its account's day. Given back when it is dropped, unless it was
/// kept.
pub struct Held {
    usage: Arc<Usage>,
    account: AccountId,
    day: u32,
    messages: u32,
    first_recipients: Vec<EmailAddress>,
    kept: bool,
}

impl Usage {
    pub(crate) fn new(store: Arc<dyn Store>, everybody: Daily) -> Self {
        Self {
            store,
            everybody,
            hasher: RandomState::new(),
            accounts: Mutex::default(),
        }
    }

    /// Begins to hold for a transaction.
    pub(crate) async fn begin(self: &Arc<Self>, account: AccountId, now: Timestamp) -> Result<Held, Error> {
        let day = day_of(now);
        let known = self.with(account, day, |a| a.held += 1).is_some();
        if !known {
            let read = self.read(account, day).await?;
            let mut accounts = self.lock();
            if accounts.len() >= ACCOUNTS_MAX {
                accounts.retain(|_, a| a.held > 0);
            }
            let entry = match accounts.entry(account) {
                Entry::Vacant(place) => place.insert(read),
                Entry::Occupied(place) => {
                    let entry = place.into_mut();
                    if entry.day < day {
                        // Whoever holds yesterday's takes no more from it.
                        let known = std::mem::take(&mut entry.known);
                        let held = entry.held;
                        *entry = Account { known, held, ..read };
                    }
                    entry
                }
            };
            entry.held += 1;
        }
        Ok(Held {
            usage: self.clone(),
            account,
            day,
            messages: 0,
            first_recipients: Vec::new(),
            kept: false,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<AccountId, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on an account that is in memory with that day.
    fn with<T>(&self, account: AccountId, day: u32, work: impl FnOnce(&mut Account) -> T) -> Option<T> {
        let mut accounts = self.lock();
        accounts.get_mut(&account).filter(|a| a.day == day).map(work)
    }

    async fn read(&self, account: AccountId, day: u32) -> Result<Account, Error> {
        let snapshot = self.store.snapshot().await?;
        let count = async |what| -> Result<u32, Error> {
            let count = snapshot.counter(&keys::day(day, account, what)).await?;
            Ok(u32::try_from(count.max(0)).unwrap_or(u32::MAX))
        };
        let own_key = keys::account(account);
        let own = match snapshot.get(&own_key).await? {
            Some(stored) => decode(&own_key, &stored.value)?,
            None => OwnDaily::default(),
        };
        Ok(Account {
            day,
            messages: count(What::Messages).await?,
            first_recipients: count(What::FirstRecipients).await?,
            own,
            known: HashSet::new(),
            held: 0,
        })
    }

    /// Whether the account has written to that recipient before.
    async fn knows(&self, account: AccountId, day: u32, recipient: &EmailAddress) -> Result<bool, Error> {
        let hash = self.hash(recipient);
        if self.with(account, day, |a| a.known.contains(&hash)) == Some(true) {
            return Ok(true);
        }
        let key = keys::known_recipient(account, &recipient.folded());
        let known = self.store.snapshot().await?.get(&key).await?.is_some();
        if known {
            self.with(account, day, |a| a.remember(hash));
        }
        Ok(known)
    }

    fn hash(&self, recipient: &EmailAddress) -> u64 {
        self.hasher.hash_one(recipient.folded())
    }

    fn limits_of(&self, own: OwnDaily) -> Daily {
        Daily {
            messages: own.messages.unwrap_or(self.everybody.messages),
            first_recipients: own.first_recipients.unwrap_or(self.everybody.first_recipients),
        }
    }

    /// What the account has sent today.
    pub(crate) async fn today(&self, account: AccountId, now: Timestamp) -> Result<Today, Error> {
        let read = self.read(account, day_of(now)).await?;
        let limits = self.limits_of(read.own);
        Ok(Today {
            messages: read.messages,
            messages_max: limits.messages,
            first_recipients: read.first_recipients,
            first_recipients_max: limits.first_recipients,
            until: end_of(read.day),
            own: read.own,
        })
    }

    /// Gives an account limits of its own.
    pub(crate) async fn set_own(&self, account: AccountId, own: OwnDaily) -> Result<(), Error> {
        let key = keys::account(account);
        let mut batch = Batch::new();
        if own == OwnDaily::default() {
            batch.delete(key);
        } else {
            let value = encode(&key, &own)?;
            batch.put(key, value);
        }
        self.store.commit(batch).await?;
        if let Some(entry) = self.lock().get_mut(&account) {
            entry.own = own;
        }
        Ok(())
    }

    /// Forgets days that are over and recipients of long ago.
    pub(crate) async fn forget(&self, now: Timestamp) -> Result<(), Error> {
        let today = day_of(now);
        let mut range = keys::days().prefix_range();
        range.end = keys::days().u32(today);
        loop {
            let rows = self.store.snapshot().await?.counters(&range, AT_ONCE).await?;
            let mut batch = Batch::new();
            rows.iter().for_each(|(key, _)| batch.delete(key.clone()));
            if !batch.is_empty() {
                self.store.commit(batch).await?;
            }
            if rows.len() < AT_ONCE {
                break;
            }
        }
        let mut range = keys::known().prefix_range();
        loop {
            let rows = self.store.snapshot().await?.scan(&range, AT_ONCE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            range = range.after(last);
            let mut batch = Batch::new();
            for (key, stored) in &rows {
                let first = stored.value.first_chunk::<4>().map(|d| u32::from_be_bytes(*d));
                if first.is_none_or(|day| day.saturating_add(KNOWN_DAYS) < today) {
                    batch.delete(key.clone());
                }
            }
            if !batch.is_empty() {
                self.store.commit(batch).await?;
            }
        }
    }
}

impl Account {
    fn remember(&mut self, hash: u64) {
        if self.known.len() >= REMEMBERED_MAX {
            self.known.clear();
        }
        self.known.insert(hash);
    }
}

impl Held {
    /// Takes a recipient elsewhere, or says which limit keeps it out.
    ///
    /// # Errors
    /// When the store could not be read.
    pub async fn take(&mut self, recipient: &EmailAddress) -> Result<Result<(), Exceeded>, Error> {
        let (usage, account, day) = (&self.usage, self.account, self.day);
        let own = usage.with(account, day, |a| a.own).unwrap_or_default();
        let limits = usage.limits_of(own);
        let is_first = limits.first_recipients > 0
            && !self.first_recipients.contains(recipient)
            && !usage.knows(account, day, recipient).await?;
        let until = end_of(day);
        let taken = usage.with(account, day, |a| {
            if limits.messages > 0 && a.messages >= limits.messages {
                return Err(Exceeded::Messages {
                    max: limits.messages,
                    until,
                });
            }
            if is_first && a.first_recipients >= limits.first_recipients {
                return Err(Exceeded::FirstRecipients {
                    max: limits.first_recipients,
                    until,
                });
            }
            a.messages += 1;
            a.first_recipients += u32::from(is_first);
            Ok(())
        });
        // Another day has begun since MAIL: the next transaction is counted there.
        let max = limits.messages;
        if let Err(exceeded) = taken.unwrap_or(Err(Exceeded::Messages { max, until })) {
            return Ok(Err(exceeded));
        }
        self.messages += 1;
        if is_first {
            self.first_recipients.push(recipient.clone());
        }
        Ok(Ok(()))
    }

    /// Adds what was taken to the batch that accepts the message.
    pub fn record(&self, batch: &mut Batch) {
        let count = |what| keys::day(self.day, self.account, what);
        if self.messages > 0 {
            batch.add(count(What::Messages), i64::from(self.messages));
        }
        if !self.first_recipients.is_empty() {
            let n = i64::try_from(self.first_recipients.len()).unwrap_or(i64::MAX);
            batch.add(count(What::FirstRecipients), n);
        }
        for recipient in &self.first_recipients {
            let key = keys::known_recipient(self.account, &recipient.folded());
            batch.put(key, self.day.to_be_bytes().to_vec());
        }
    }

    /// The message is accepted: what was taken stays taken.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let hashes = self.first_recipients.iter().map(|r| self.usage.hash(r));
        let hashes: Vec<u64> = if self.kept { hashes.collect() } else { Vec::new() };
        let mut accounts = self.usage.lock();
        let Some(account) = accounts.get_mut(&self.account) else {
            return;
        };
        account.held = account.held.saturating_sub(1);
        for hash in hashes {
            account.remember(hash);
        }
        if !self.kept && account.day == self.day {
            let first = u32::try_from(self.first_recipients.len()).unwrap_or(u32::MAX);
            account.messages = account.messages.saturating_sub(self.messages);
            account.first_recipients = account.first_recipients.saturating_sub(first);
        }
    }
}

pub(crate) fn encode<T: Serialize>(key: &Key, record: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(record).map_err(|e| Error::Damaged(key.clone(), e.to_string()))
}

pub(crate) fn decode<T: for<'a> Deserialize<'a>>(key: &Key, value: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(value).map_err(|e| Error::Damaged(key.clone(), e.to_string()))
}
