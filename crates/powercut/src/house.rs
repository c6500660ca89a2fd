//! The server of one life: everything but sockets, over one store.

use crate::engine::{Driven, Hasty};
use crate::ledger::Ledger;
use crate::next_server::Net;
use directory::{Argon2Cost, Directory, NewAccount, NoRandomness, Random};
use dns::table::TableResolver;
use journey::Journey;
use mail::{AccountId, Clock, Domain, EmailAddress, Secret, Timestamp};
use mailbox::Mailboxes;
use queue::{IdSource, Queue, Schedule};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::Store;
use store::simulated::Dice;

/// Our name.
pub const HOST: &str = "mx.home.example";
/// Those who live here. The first one sends, too.
pub const PEOPLE: [&str; 4] = [
    "anna@home.example",
    "bert@home.example",
    "cleo@home.example",
    "dora@home.example",
];
/// An alias that leads to two of them.
pub const ALIAS: &str = "both@home.example";
/// To whom the alias leads.
pub const ALIAS_LEADS_TO: [usize; 2] = [1, 2];
/// The password of the first one.
pub const PASSWORD: &str = "geheim";
/// Domains elsewhere, each with the address of its server.
pub const ELSEWHERE: [(&str, Ipv4Addr); 4] = [
    ("good.example", Ipv4Addr::new(192, 0, 2, 1)),
    ("moody.example", Ipv4Addr::new(192, 0, 2, 2)),
    ("grim.example", Ipv4Addr::new(192, 0, 2, 3)),
    ("late.example", Ipv4Addr::new(192, 0, 2, 4)),
];

/// Why the house could not be made ready. While there is power this is a failure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotReady(String);

impl NotReady {
    fn of(what: &str) -> impl FnOnce(&dyn std::fmt::Display) -> Self {
        move |error| Self(format!("{what}: {error}"))
    }
}

/// The time: tokio's, which is paused and moved, on top of the lives before; and a microsecond for
/// every look.
pub struct LifeClock {
    began: Timestamp,
    since: tokio::time::Instant,
    looks: AtomicI64,
}

impl LifeClock {
    /// A clock that begins at this time.
    #[must_use]
    pub fn new(began: Timestamp) -> Self {
        Self {
            began,
            since: tokio::time::Instant::now(),
            looks: AtomicI64::new(0),
        }
    }
}

impl Clock for LifeClock {
    fn now(&self) -> Timestamp {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        let elapsed = self.since.elapsed() + Duration::from_micros(looks.unsigned_abs());
        self.began.plus(elapsed)
    }
}

/// Randomness from the seed.
pub struct DiceRandom(Mutex<Dice>);

impl Random for DiceRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoRandomness> {
        let mut dice = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in out.chunks_mut(8) {
            piece.copy_from_slice(&dice.word().to_le_bytes()[..piece.len()]);
        }
        Ok(())
    }
}

/// What stands on the store.
pub struct House {
    /// The store, as the server sees it.
    pub store: Arc<dyn Store>,
    /// The store, as reception sees it.
    pub reception_store: Arc<dyn Store>,
    /// Who lives here.
    pub directory: Directory,
    /// Their mail.
    pub mailboxes: Mailboxes,
    /// The spool.
    pub queue: Queue,
    /// The record.
    pub journey: Journey,
    /// The time.
    pub clock: Arc<LifeClock>,
    random: Arc<DiceRandom>,
    ids: Arc<IdSource>,
}

impl House {
    /// Everything over this store. `hasty`: reception hears that its batches are durable before
    /// they are.
    ///
    /// # Errors
    /// Never, with the cost of argon2 that is set here.
    pub fn over(driven: &Arc<Driven>, began: Timestamp, dice: Dice, hasty: bool) -> Result<Self, NotReady> {
        let store: Arc<dyn Store> = driven.clone();
        let reception_store: Arc<dyn Store> = match hasty {
            true => Arc::new(Hasty(driven.clone())),
            false => driven.clone(),
        };
        let clock = Arc::new(LifeClock::new(began));
        let random = Arc::new(DiceRandom(Mutex::new(dice)));
        let options = directory::Options {
            argon2: Argon2Cost {
                memory_kib: 8,
                passes: 1,
                lanes: 1,
            },
            ..directory::Options::default()
        };
        let directory = Directory::new(store.clone(), options, random.clone())
            .map_err(|error| NotReady::of("the directory")(&error))?;
        let minute = Duration::from_secs(60);
        let queue_options = queue::Options {
            schedule: Schedule {
                first_retry: minute,
                factor: 2.0,
                expire_after: 30 * minute,
                delay_notice_after: None,
                ..Schedule::default()
            },
            ..queue::Options::default()
        };
        Ok(Self {
            directory,
            mailboxes: Mailboxes::new(store.clone()),
            queue: Queue::new(store.clone(), queue_options),
            journey: Journey::new(store.clone()),
            ids: Arc::new(IdSource::new(clock.clone())),
            clock,
            random,
            store,
            reception_store,
        })
    }

    /// Makes the accounts that are not there yet, and notes those that are.
    ///
    /// # Errors
    /// When the store refuses, as it does without power.
    pub async fn furnish(&self, ledger: &Mutex<Ledger>) -> Result<(), NotReady> {
        let now = self.clock.now();
        let home = domain("home.example")?;
        let failed = |what: &'static str| move |error: directory::Error| NotReady(format!("{what}: {error}"));
        if self
            .directory
            .domain(&home)
            .await
            .map_err(failed("reading the domain"))?
            .is_none()
        {
            let added = self.directory.add_domain(&home, now).await;
            added.map_err(failed("adding the domain"))?;
        }
        let mut ids = Vec::new();
        for name in PEOPLE {
            let id = self.furnish_account(&address(name)?, now).await?;
            ledger
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .lives_here(name, id);
            ids.push(id);
        }
        let targets: Vec<AccountId> = ALIAS_LEADS_TO
            .iter()
            .filter_map(|n| ids.get(*n).copied())
            .collect();
        if self
            .directory
            .aliases()
            .await
            .map_err(failed("reading the aliases"))?
            .is_empty()
        {
            let set = self.directory.set_alias(&address(ALIAS)?, &targets).await;
            set.map_err(failed("setting the alias"))?;
        }
        Ok(())
    }

    async fn furnish_account(&self, address: &EmailAddress, now: Timestamp) -> Result<AccountId, NotReady> {
        let failed = |error: directory::Error| NotReady(format!("making {address}: {error}"));
        if let Some(account) = self.directory.account_by_address(address).await.map_err(failed)? {
            return Ok(account.id);
        }
        let password = self.directory.hash_password(&Secret::new(PASSWORD));
        let new = NewAccount {
            address: address.clone(),
            display_name: String::new(),
            password: Some(password.map_err(failed)?),
        };
        let mailboxes = self.mailboxes.clone();
        let add = move |batch: &mut store::Batch, id| mailboxes.create_defaults(batch, id, now);
        let account = self.directory.add_account(new, now, &add).await;
        Ok(account.map_err(failed)?.id)
    }

    /// What reception's sessions work with.
    ///
    /// # Errors
    /// Never, with the names that are set here.
    pub fn reception(&self) -> Result<Arc<receive::Context>, NotReady> {
        let host = domain(HOST)?;
        let mut options = receive::Options::new(&host);
        options.smtp.allow_plaintext_auth = true;
        let parts = receive::Parts {
            store: self.reception_store.clone(),
            directory: self.directory.clone(),
            mailboxes: self.mailboxes.clone(),
            queue: self.queue.clone(),
            journey: self.journey.clone(),
            resolver: Arc::new(resolver()?),
            certificates: None,
            clock: self.clock.clone(),
            ids: self.ids.clone(),
        };
        let policy = judge::Policy::default();
        Ok(Arc::new(receive::Context::new(
            parts,
            host,
            options,
            policy,
            Vec::new(),
        )))
    }

    /// What the delivery service works with.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub fn delivery(&self, net: Net) -> Result<Arc<deliver::Context>, NotReady> {
        let parts = deliver::Parts {
            store: self.store.clone(),
            queue: self.queue.clone(),
            journey: self.journey.clone(),
            mailboxes: self.mailboxes.clone(),
            directory: self.directory.clone(),
            resolver: Arc::new(resolver()?),
            dialer: Arc::new(net),
            tls: tls::Client::new(&tls::Roots::public()).map_err(|error| NotReady::of("TLS")(&error))?,
            ids: self.ids.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            tap: None,
        };
        let options = deliver::Options::new(domain(HOST)?);
        Ok(Arc::new(deliver::Context::new(parts, options, Vec::new())))
    }
}

/// The DNS: the domains elsewhere with their servers, and those who send to us.
fn resolver() -> Result<TableResolver, NotReady> {
    let mut table = TableResolver::new();
    for (name, ip) in ELSEWHERE {
        let exchange = format!("mx.{name}");
        table = table
            .with_mx(name, 10, Some(domain(&exchange)?))
            .with_address(&exchange, ip);
    }
    Ok(table)
}

fn domain(name: &str) -> Result<Domain, NotReady> {
    Domain::parse(name).map_err(|error| NotReady::of(name)(&error))
}

fn address(text: &str) -> Result<EmailAddress, NotReady> {
    EmailAddress::parse(text).map_err(|error| NotReady::of(text)(&error))
}
