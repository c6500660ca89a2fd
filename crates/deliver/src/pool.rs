//! Connections that ended a message well, kept for the next one.
//!
//! Promises: a kept connection is taken up only for the same address, host name, source address,
//! EHLO name, protocol, TLS requirement and login; how many are kept, how long, and for how many messages is bounded; each that is not
//! taken up ends with QUIT.
//! Never: a connection on which the server said something that was not asked.

use crate::conversation::{Connection, Manner};
use crate::lanes::Site;
use crate::plan::Hop;
use crate::route::ServerName;
use mail::secret::constant_time_eq;
use smtp::client::TlsWish;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tls::Verification;
use tokio::time::Instant;

/// How long connections are kept, and for how much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// Messages on one connection. Default 100; 1: every message has its own.
    pub messages_max: usize,
    /// How long a connection waits for the next message. Default 5 seconds: others want the server's
    /// room too.
    pub idle_max: Duration,
    /// From connecting to the last message's beginning. Default 5 minutes, so that what the DNS says of
    /// the host counts again.
    pub age_max: Duration,
    /// Idle connections in all. Default 200.
    pub idle_connections_max: usize,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            messages_max: 100,
            idle_max: Duration::from_secs(5),
            age_max: Duration::from_secs(5 * 60),
            idle_connections_max: 200,
        }
    }
}

/// What two messages must have in common to share a connection, beside the address.
pub(crate) struct Terms {
    /// Whose room it takes; not compared.
    site: Option<Site>,
    host: ServerName,
    source: Option<IpAddr>,
    helo: String,
    lmtp: bool,
    tls: TlsWish,
    verification: Verification,
    verified_as: &'static str,
    allow_plaintext_auth: bool,
    chunking: bool,
    login: Option<(String, mail::Secret)>,
}

impl Terms {
    pub(crate) fn of(hop: &Hop, manner: &Manner) -> Self {
        Self {
            site: manner.site.clone(),
            host: hop.host.clone(),
            source: manner.source,
            helo: manner.client.helo.clone(),
            lmtp: manner.client.lmtp,
            tls: manner.client.tls,
            verification: manner.verification.clone(),
            verified_as: manner.verified_as,
            allow_plaintext_auth: manner.client.allow_plaintext_auth,
            chunking: manner.client.chunking,
            login: manner.client.login.clone(),
        }
    }

    fn are_those_of(&self, hop: &Hop, manner: &Manner) -> bool {
        let client = &manner.client;
        let login = match (&self.login, &client.login) {
            (None, None) => true,
            (Some((user, password)), Some((other, others))) => {
                user == other && constant_time_eq(password.expose().as_bytes(), others.expose().as_bytes())
            }
            _ => false,
        };
        login
            && self.host == hop.host
            && self.source == manner.source
            && self.helo == client.helo
            && self.lmtp == client.lmtp
            && self.tls == client.tls
            && self.verification == manner.verification
            && self.verified_as == manner.verified_as
            && self.allow_plaintext_auth == client.allow_plaintext_auth
            && self.chunking == client.chunking
    }
}

struct Kept {
    connection: Connection,
    terms: Terms,
    since: Instant,
}

#[derive(Default)]
struct Inside {
    /// By address; the one that was used last is last.
    kept: BTreeMap<SocketAddr, Vec<Kept>>,
    by_site: HashMap<Site, usize>,
    count: usize,
    /// Whether somebody looks after those that nobody takes up.
    watched: bool,
}

impl Inside {
    /// A kept one is kept no longer.
    fn left(&mut self, kept: &Kept) {
        if let Some(site) = &kept.terms.site
            && let Some(count) = self.by_site.get_mut(site)
        {
            *count -= 1;
            if *count == 0 {
                self.by_site.remove(site);
            }
        }
    }
}

/// The connections that are kept.
pub struct Pool {
    keep: Keep,
    inside: Mutex<Inside>,
    this: Weak<Pool>,
}

impl Pool {
    /// An empty one.
    #[must_use]
    pub fn new(keep: Keep) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            keep,
            inside: Mutex::default(),
            this: this.clone(),
        })
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inside().count
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends all of them. What is under way comes to its end and may be kept after that.
    pub fn clear(&self) {
        let kept = {
            let mut inside = self.inside();
            inside.count = 0;
            inside.by_site.clear();
            std::mem::take(&mut inside.kept)
        };
        for kept in kept.into_values().flatten() {
            kept.connection.leave();
        }
    }

    /// How many are kept to a site.
    pub(crate) fn idle_to(&self, site: &str) -> usize {
        self.inside().by_site.get(site).copied().unwrap_or(0)
    }

    /// Whether there is one to this address, whatever its terms.
    pub(crate) fn has(&self, address: SocketAddr) -> bool {
        self.inside().kept.contains_key(&address)
    }

    /// One that can be used, the one that was used last.
    pub(crate) fn take(&self, hop: &Hop, manner: &Manner) -> Option<Connection> {
        let now = Instant::now();
        loop {
            let mut kept = self.take_one(hop, manner)?;
            if now - kept.since > self.keep.idle_max || now - kept.connection.began() > self.keep.age_max {
                kept.connection.leave();
            } else if kept.connection.is_silent() {
                return Some(kept.connection);
            }
        }
    }

    fn take_one(&self, hop: &Hop, manner: &Manner) -> Option<Kept> {
        let mut inside = self.inside();
        let there = inside.kept.get_mut(&hop.address)?;
        let place = there
            .iter()
            .rposition(|kept| kept.terms.are_those_of(hop, manner))?;
        let kept = there.remove(place);
        if there.is_empty() {
            inside.kept.remove(&hop.address);
        }
        inside.count -= 1;
        inside.left(&kept);
        Some(kept)
    }

    /// Keeps a connection, or ends it.
    pub(crate) fn put(&self, address: SocketAddr, mut connection: Connection, terms: Terms) {
        if !connection.is_ready() {
            // What is left of it answers nothing any more, but for a server that waits for QUIT.
            return connection.leave();
        }
        let now = Instant::now();
        let is_worn = connection.messages() >= self.keep.messages_max
            || now - connection.began() > self.keep.age_max
            || self.keep.idle_max.is_zero();
        let mut inside = self.inside();
        if is_worn || inside.count >= self.keep.idle_connections_max {
            drop(inside);
            return connection.leave();
        }
        if let Some(site) = &terms.site {
            *inside.by_site.entry(site.clone()).or_default() += 1;
        }
        inside.kept.entry(address).or_default().push(Kept {
            connection,
            terms,
            since: now,
        });
        inside.count += 1;
        if !std::mem::replace(&mut inside.watched, true) {
            tokio::spawn(watch(self.this.clone(), self.keep.idle_max));
        }
    }

    /// Ends those that nobody took up. Answers whether any are left.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut over = Vec::new();
        let mut inside = self.inside();
        inside.kept.retain(|_, there| {
            over.extend(there.extract_if(.., |kept| now - kept.since >= self.keep.idle_max));
            !there.is_empty()
        });
        inside.count -= over.len();
        over.iter().for_each(|kept| inside.left(kept));
        let any = inside.count > 0;
        inside.watched = any;
        drop(inside);
        over.into_iter().for_each(|kept| kept.connection.leave());
        any
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks after idle connections as long as there are any.
async fn watch(pool: Weak<Pool>, idle_max: Duration) {
    let step = (idle_max / 4).max(Duration::from_millis(100));
    loop {
        tokio::time::sleep(step).await;
        match pool.upgrade() {
            Some(pool) if pool.sweep() => {}
            _ => return,
        }
    }
}
