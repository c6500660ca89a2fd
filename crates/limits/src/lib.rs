//! How often is too often: rates, blocks, and what an account may send in a day.
//!
//! Promises: what a stranger can make us remember is bounded; a block and a day's counts survive a
//! restart; every decision is a function of the options, the counts and the time that is handed in,
//! and every refusal says when to come again.
//!
//! Never: a socket, a word of a protocol, the wall clock; a cost for what is switched off.

mod blocks;
mod counters;
mod error;
mod keys;
mod network;
mod options;
mod rates;
mod suppression;
mod usage;

pub use blocks::{BLOCKS_MAX, BY_LIMITS, Block};
pub use counters::ENTRIES_MAX;
pub use error::Error;
pub use network::{Network, NotASubject, Subject};
pub use options::{Daily, Options, Rate};
pub use rates::{Over, Scope};
pub use suppression::{SUPPRESSED_ROWS_MAX, Suppressed, Suppression};
pub use usage::{Exceeded, Held, KNOWN_DAYS, OwnDaily, Today};

use blocks::Blocks;
use mail::{AccountId, Timestamp};
use rates::{Client, Rates};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use store::{Batch, Store};
use usage::{Usage, decode, encode};

/// Octets of a block's reason, and of a reply that led to a suppression, at most.
const WHY_OCTETS_MAX: usize = 200;
/// Blocks that are read at once.
const PAGE: usize = 1_000;

/// All limits of a server; one for all its services. Cheap to clone; clones share the counts.
#[derive(Clone)]
pub struct Limits {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    options: Options,
    rates: Rates,
    blocks: Blocks,
    usage: Arc<Usage>,
}

/// Why a client is not let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It is blocked.
    Blocked(Block),
    /// It comes too often.
    TooOften(Over),
}

impl Limits {
    /// Limits that remember in `store`. The blocks of an earlier run hold after [`Limits::load`].
    #[must_use]
    pub fn new(store: Arc<dyn Store>, options: Options) -> Self {
        Self {
            shared: Arc::new(Shared {
                usage: Arc::new(Usage::new(store.clone(), options.account)),
                rates: Rates::default(),
                blocks: Blocks::default(),
                store,
                options,
            }),
        }
    }

    /// Puts the stored blocks in force again.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(&self, now: Timestamp) -> Result<(), Error> {
        for block in self.blocks().await? {
            if block.until > now {
                self.shared.blocks.put(block, now);
            }
        }
        Ok(())
    }

    /// The block of an address, or of a network around it.
    #[must_use]
    pub fn blocked(&self, ip: IpAddr, now: Timestamp) -> Option<Block> {
        self.shared.blocks.of_address(ip, now)
    }

    /// The block of a login.
    #[must_use]
    pub fn login_blocked(&self, login: &str, now: Timestamp) -> Option<Block> {
        self.shared.blocks.of_login(login, now)
    }

    /// Counts a connection.
    ///
    /// # Errors
    /// Why it is not let in.
    pub fn connect(&self, ip: IpAddr, now: Timestamp) -> Result<(), Refused> {
        if let Some(block) = self.blocked(ip, now) {
            return Err(Refused::Blocked(block));
        }
        let (rates, options) = (&self.shared.rates, &self.shared.options);
        let client = Client { ip, login: None };
        rates::admit(&rates.connections, options.connections, options, client, now).map_err(Refused::TooOften)
    }

    /// Whether messages are counted at all.
    #[must_use]
    pub fn counts_messages(&self) -> bool {
        !self.shared.options.messages.is_off()
    }

    /// Whether recipients are counted at all.
    #[must_use]
    pub fn counts_recipients(&self) -> bool {
        !self.shared.options.recipients.is_off()
    }

    /// Counts a message that begins.
    ///
    /// # Errors
    /// The rate that is reached.
    pub fn message(&self, ip: IpAddr, login: Option<&str>, now: Timestamp) -> Result<(), Over> {
        let (rates, options) = (&self.shared.rates, &self.shared.options);
        rates::admit(
            &rates.messages,
            options.messages,
            options,
            Client { ip, login },
            now,
        )
    }

    /// Counts a recipient that is named.
    ///
    /// # Errors
    /// The rate that is reached.
    pub fn recipient(&self, ip: IpAddr, login: Option<&str>, now: Timestamp) -> Result<(), Over> {
        let (rates, options) = (&self.shared.rates, &self.shared.options);
        rates::admit(
            &rates.recipients,
            options.recipients,
            options,
            Client { ip, login },
            now,
        )
    }

    /// Counts an unknown recipient. The block that it led to, if it did.
    pub async fn unknown_recipient(&self, ip: IpAddr, now: Timestamp) -> Option<Block> {
        let (rates, options) = (&self.shared.rates, &self.shared.options);
        let client = Client { ip, login: None };
        let rate = options.unknown_recipients;
        let reached = rates::note(&rates.unknown_recipients, rate, options, client, now);
        let why = "too many unknown recipients";
        self.block_all(reached, options.unknown_recipients_block, why, now)
            .await
    }

    /// Counts a failed login. The block that it led to, if it did.
    pub async fn failed_login(&self, ip: IpAddr, login: &str, now: Timestamp) -> Option<Block> {
        let (rates, options) = (&self.shared.rates, &self.shared.options);
        // Logins are addresses; what is none cannot be blocked by name.
        let login = Some(login).filter(|l| l.contains('@') && l.len() <= WHY_OCTETS_MAX);
        let client = Client { ip, login };
        let reached = rates::note(&rates.failed_logins, options.failed_logins, options, client, now);
        let why = "too many failed logins";
        self.block_all(reached, options.failed_logins_block, why, now)
            .await
    }

    /// Failed logins of that address within the window.
    #[must_use]
    pub fn failed_logins_of(&self, ip: IpAddr, now: Timestamp) -> u32 {
        let (rates, window) = (&self.shared.rates, self.shared.options.failed_logins.window);
        rates::of_address(&rates.failed_logins, window, ip, now)
    }

    /// Blocks what has reached its limit; the longest block is answered.
    async fn block_all(
        &self,
        reached: Vec<(Scope, Subject)>,
        lasts: Duration,
        why: &str,
        now: Timestamp,
    ) -> Option<Block> {
        let mut made = None;
        for (_, subject) in reached {
            // The operator's word outlasts ours.
            if let Some(longer) = self.shared.blocks.of_subject(&subject, now.plus(lasts)) {
                made = Some(longer);
                continue;
            }
            let block = Block {
                subject,
                from: now,
                until: now.plus(lasts),
                why: why.to_owned(),
                by: BY_LIMITS.to_owned(),
            };
            tracing::warn!(subject = %block.subject, until = %mail::date::iso8601(block.until), why, "blocked");
            if let Err(error) = self.block(block.clone(), now).await {
                tracing::warn!(subject = %block.subject, %error, "the block is not stored: a restart would lift it");
            }
            made = Some(block);
        }
        made
    }

    /// Puts a block in force, now and after a restart, in place of an earlier one of the subject.
    ///
    /// # Errors
    /// When there are too many, or it could not be stored (then it holds until the restart).
    pub async fn block(&self, mut block: Block, now: Timestamp) -> Result<(), Error> {
        block.why.truncate(block.why.floor_char_boundary(WHY_OCTETS_MAX));
        if !self.shared.blocks.put(block.clone(), now) {
            return Err(Error::TooManyBlocks(BLOCKS_MAX));
        }
        let key = keys::block(&block.subject);
        let mut batch = Batch::new();
        batch.put(key.clone(), encode(&key, &block)?);
        self.shared.store.commit(batch).await?;
        Ok(())
    }

    /// Lifts a block, and forgets what had led to it. `false`: there was none.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn lift(&self, subject: &Subject) -> Result<bool, Error> {
        let key = keys::block(subject);
        let there = self.shared.store.snapshot().await?.get(&key).await?.is_some();
        let mut batch = Batch::new();
        batch.delete(key);
        self.shared.store.commit(batch).await?;
        self.shared.blocks.lift(subject);
        let rates = &self.shared.rates;
        for counters in [&rates.unknown_recipients, &rates.failed_logins] {
            counters.forget(|who| match (who, subject) {
                (counters::Who::Network(one), Subject::Network(lifted)) => one == lifted,
                (counters::Who::Login(one), Subject::Login(lifted)) => **one == **lifted,
                _ => false,
            });
        }
        Ok(there)
    }

    /// All blocks that are stored, those that are over too, by subject.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn blocks(&self) -> Result<Vec<Block>, Error> {
        let snapshot = self.shared.store.snapshot().await?;
        let mut range = keys::blocks().prefix_range();
        let mut all = Vec::new();
        loop {
            let rows = snapshot.scan(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(all);
            };
            range = range.after(last);
            for (key, stored) in &rows {
                all.push(decode(key, &stored.value)?);
            }
        }
    }

    /// Forgets what is over: blocks, days, recipients of long ago, suppressions.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn forget(&self, now: Timestamp) -> Result<(), Error> {
        let mut batch = Batch::new();
        for block in self.blocks().await? {
            if block.until <= now {
                batch.delete(keys::block(&block.subject));
            }
        }
        if !batch.is_empty() {
            self.shared.store.commit(batch).await?;
        }
        self.shared.blocks.forget(now);
        self.forget_suppressed(now).await?;
        self.shared.usage.forget(now).await
    }

    /// Begins to count what a transaction takes of its account's day.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn hold(&self, account: AccountId, now: Timestamp) -> Result<Held, Error> {
        self.shared.usage.begin(account, now).await
    }

    /// What an account has sent today, and may.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn today(&self, account: AccountId, now: Timestamp) -> Result<Today, Error> {
        self.shared.usage.today(account, now).await
    }

    /// Gives an account daily limits of its own.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn set_own(&self, account: AccountId, own: OwnDaily) -> Result<(), Error> {
        self.shared.usage.set_own(account, own).await
    }
}

#[cfg(test)]
mod tests;
