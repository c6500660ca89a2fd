//! The policy for mail that goes to a domain: asks the DNS, decides, fetches, remembers.

use crate::cache::{self, Entry, Seen, Step, USE_GRAIN};
use crate::fetch::{Fault, Fetch};
use crate::memory::{Error, Memory};
use crate::policy::{Mode, Policy};
use crate::record::{self, Id, RECORD_LABEL};
use dns::{DnsError, Resolver};
use futures_util::lock::Mutex as AsyncMutex;
use mail::{Clock, Domain, Timestamp, date};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use store::Store;

/// Domains that are read at once in the background.
const PAGE: usize = 200;

/// A policy that holds for mail to a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// Whose policy it is.
    pub domain: Domain,
    /// Its id.
    pub id: Id,
    /// What it says; the mode is never `none`.
    pub policy: Policy,
    /// Until when it holds.
    pub until: Timestamp,
}

impl Applied {
    /// Whether a host may take the domain's mail.
    #[must_use]
    pub fn matches(&self, host: &Domain) -> bool {
        self.policy.matches(host)
    }

    /// Whether mail waits rather than go against the policy.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.policy.mode == Mode::Enforce
    }

    /// The patterns of its hosts, for people.
    #[must_use]
    pub fn patterns(&self) -> String {
        let patterns: Vec<String> = self.policy.mx.iter().map(ToString::to_string).collect();
        patterns.join(", ")
    }

    /// The policy in a few words, for the journey.
    #[must_use]
    pub fn in_words(&self) -> String {
        format!(
            "MTA-STS {} (policy {} of {}, until {})",
            self.policy.mode,
            self.id,
            self.domain,
            date::iso8601(self.until)
        )
    }
}

/// What was found for mail to a domain.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// The policy that holds; `None` where mail goes as to a domain without one.
    pub applied: Option<Applied>,
    /// What is wrong with the domain's policy, for the TLS report (RFC 8460) and the journey. Mail
    /// goes all the same.
    pub fault: Option<Fault>,
    /// Whether the DNS could not say if the domain has a policy, and none that was fetched before holds.
    pub is_unknown: bool,
}

impl Found {
    /// Why it is not known for certain what policy the domain has now, in words.
    #[must_use]
    pub fn uncertain(&self) -> Option<String> {
        match (&self.fault, self.is_unknown) {
            (Some(fault), _) => Some(fault.to_string()),
            (None, true) => Some("the DNS gives no answer about its record".to_owned()),
            (None, false) => None,
        }
    }
}

/// The policies of other domains. Cheap to clone; clones share what is under way.
#[derive(Clone)]
pub struct Policies {
    shared: Arc<Shared>,
}

struct Shared {
    memory: Memory,
    resolver: Arc<dyn Resolver>,
    fetch: Arc<dyn Fetch>,
    clock: Arc<dyn Clock>,
    /// Fetches under way: a domain's next messages wait for the first one's.
    under_way: Mutex<HashMap<Domain, Arc<AsyncMutex<()>>>>,
}

impl Policies {
    /// Policies that are remembered in `store`.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        resolver: Arc<dyn Resolver>,
        fetch: Arc<dyn Fetch>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                memory: Memory::new(store),
                resolver,
                fetch,
                clock,
                under_way: Mutex::default(),
            }),
        }
    }

    /// What is remembered.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// The policy for mail that goes to a domain now; fetched first when that must be.
    ///
    /// # Errors
    /// When the store cannot be read: whether the domain asked for verified TLS is not known then,
    /// and mail has to wait.
    pub async fn look_up(&self, domain: &Domain) -> Result<Found, Error> {
        let seen = self.seen(domain).await;
        let now = self.shared.clock.now();
        let entry = self.shared.memory.entry(domain).await?;
        let entry = match cache::before_mail(entry.as_ref(), &seen, now) {
            Step::Keep => entry,
            Step::Fetch(_) => {
                let step = |entry: Option<&Entry>, now| cache::before_mail(entry, &seen, now);
                Some(self.fetch_one(domain, step).await?)
            }
        };
        let Some(mut entry) = entry else {
            return Ok(Found {
                is_unknown: seen == Seen::Unknown,
                ..Found::default()
            });
        };
        if entry.used.plus(USE_GRAIN) <= now {
            entry.used = now;
            self.remember(&entry).await;
        }
        Ok(found(&entry, &seen, now))
    }

    /// Fetches a domain's policy now, whatever is remembered, and tells what is remembered then.
    /// `None`: the domain has no record, and nothing is remembered of it.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn refresh(&self, domain: &Domain) -> Result<Option<Entry>, Error> {
        let seen = self.seen(domain).await;
        let entry = self.shared.memory.entry(domain).await?;
        let held_id = entry.as_ref().and_then(|e| Some(e.held.as_ref()?.id.clone()));
        let id = match seen {
            Seen::Id(id) => Some(id),
            _ => held_id,
        };
        match id {
            Some(id) => {
                let step = |_: Option<&Entry>, _| Step::Fetch(id.clone());
                self.fetch_one(domain, step).await.map(Some)
            }
            None => Ok(entry),
        }
    }

    /// Fetches anew what grows old and is used, and forgets what is over. One domain after the other.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn upkeep(&self) -> Result<(), Error> {
        let shared = &self.shared;
        shared.memory.forget(shared.clock.now()).await?;
        let mut after = None;
        loop {
            let page = shared.memory.entries(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.domain.clone());
            for entry in page {
                if !cache::is_refresh_due(&entry, shared.clock.now()) {
                    continue;
                }
                let seen = self.seen(&entry.domain).await;
                let step = |entry: Option<&Entry>, now| match entry {
                    Some(entry) => cache::in_background(entry, &seen, now),
                    None => Step::Keep,
                };
                if step(Some(&entry), shared.clock.now()) != Step::Keep {
                    self.fetch_one(&entry.domain, step).await?;
                }
            }
        }
    }

    /// What the DNS says of a domain's record.
    async fn seen(&self, domain: &Domain) -> Seen {
        let Ok(name) = domain.prefixed(RECORD_LABEL) else {
            return Seen::Absent;
        };
        match self.shared.resolver.txt(&name).await {
            Ok(answer) => match record::find(&answer.records) {
                Ok(Some(id)) => Seen::Id(id),
                Ok(None) => Seen::Absent,
                Err(fault) => Seen::Faulty(fault),
            },
            Err(DnsError::NoSuchName(_)) => Seen::Absent,
            Err(DnsError::Unavailable { .. }) => Seen::Unknown,
        }
    }

    /// Fetches a domain's policy, unless another did so meanwhile: what is to be done is decided anew
    /// when it is our turn.
    async fn fetch_one(
        &self,
        domain: &Domain,
        step: impl Fn(Option<&Entry>, Timestamp) -> Step,
    ) -> Result<Entry, Error> {
        let shared = &self.shared;
        let turn = Turn::of(shared, domain);
        let _ours = turn.lock.lock().await;
        let known = shared.memory.entry(domain).await?;
        let now = shared.clock.now();
        let step = step(known.as_ref(), now);
        let mut entry = known.unwrap_or_else(|| Entry::new(domain.clone(), now));
        let Step::Fetch(id) = step else {
            return Ok(entry);
        };
        let body = shared.fetch.fetch(domain).await;
        let fetched = body.and_then(|body| Policy::parse(&body).map_err(Fault::from));
        match &fetched {
            Ok(policy) => {
                tracing::info!(%domain, %id, mode = %policy.mode, max_age_secs = policy.max_age_secs, "MTA-STS policy fetched");
            }
            Err(fault) => tracing::warn!(%domain, %id, %fault, "no MTA-STS policy could be fetched"),
        }
        entry.take(id, fetched, shared.clock.now());
        self.remember(&entry).await;
        Ok(entry)
    }

    /// What could not be stored is known until the next look only; mail goes by it all the same.
    async fn remember(&self, entry: &Entry) {
        if let Err(error) = self.shared.memory.put(entry).await {
            tracing::warn!(domain = %entry.domain, %error, "the MTA-STS policy is not stored: it is fetched again");
        }
    }
}

fn found(entry: &Entry, seen: &Seen, now: Timestamp) -> Found {
    let applied = entry.holding(now).filter(|held| held.policy.mode != Mode::None);
    // A fault of long ago, of a record that is gone, is nobody's concern any more.
    let is_told = matches!(seen, Seen::Id(_)) || applied.is_some();
    Found {
        is_unknown: *seen == Seen::Unknown && entry.holding(now).is_none(),
        applied: applied.map(|held| Applied {
            domain: entry.domain.clone(),
            id: held.id.clone(),
            policy: held.policy.clone(),
            until: held.until(),
        }),
        fault: entry.fault().filter(|_| is_told).cloned(),
    }
}

/// A turn at a domain's fetch; the last one takes the domain off the list.
struct Turn<'a> {
    shared: &'a Shared,
    domain: &'a Domain,
    lock: Arc<AsyncMutex<()>>,
}

impl<'a> Turn<'a> {
    fn of(shared: &'a Shared, domain: &'a Domain) -> Self {
        let mut all = shared.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = Arc::clone(all.entry(domain.clone()).or_default());
        Self { shared, domain, lock }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut all = self
            .shared
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // The list's own, and ours.
        if Arc::strong_count(&self.lock) <= 2 {
            all.remove(self.domain);
        }
    }
}
