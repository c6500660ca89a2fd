//! Logging in: at most so many password checks at a time, off the network threads, and an end to
//! guessing from one address.

use crate::listen::network_of;
use crate::{Context, Options};
use directory::{AuthOutcome, AuthReason, Protocol};
use mail::{AccountId, EmailAddress, Secret, Timestamp};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Addresses whose failures are remembered at most; beyond that the oldest window is forgotten.
const FAILING_ADDRESSES_MAX: usize = 20_000;

/// What a login came to, as the client may know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Login {
    /// Welcome.
    Accepted {
        /// Whose account.
        account: AccountId,
        /// Its primary address.
        address: EmailAddress,
    },
    /// The main password is right, but only app passwords open mail protocols.
    AppPasswordRequired,
    /// Wrong in any other way.
    Rejected,
    /// Too many failures from this address.
    TooManyFailures,
    /// We cannot tell now.
    Unavailable,
}

/// The state that logins share.
pub(crate) struct Logins {
    turns: Semaphore,
    failures_max: u32,
    window: Duration,
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Clone, Copy)]
struct Failures {
    since: Timestamp,
    count: u32,
}

impl Logins {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            turns: Semaphore::new(options.logins_at_once_max.max(1)),
            failures_max: options.login_failures_per_address_max,
            window: options.login_failures_window,
            failures: Mutex::default(),
        }
    }

    fn may_try(&self, ip: IpAddr, now: Timestamp) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get(&network_of(ip)) {
            Some(f) => f.count < self.failures_max || now.since(f.since) >= self.window,
            None => true,
        }
    }

    fn note_failure(&self, ip: IpAddr, now: Timestamp) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= FAILING_ADDRESSES_MAX {
            failures.retain(|_, f| now.since(f.since) < self.window);
            if failures.len() >= FAILING_ADDRESSES_MAX {
                failures.clear();
            }
        }
        let entry = failures
            .entry(network_of(ip))
            .or_insert(Failures { since: now, count: 0 });
        if now.since(entry.since) >= self.window {
            *entry = Failures { since: now, count: 0 };
        }
        entry.count = entry.count.saturating_add(1);
    }
}

/// Asks the directory about a login. The same answer, after the same time, for a wrong user and a
/// wrong password.
pub(crate) async fn login(
    ctx: &Context,
    peer: SocketAddr,
    protocol: Protocol,
    user: &str,
    password: Secret,
) -> Login {
    let now = ctx.clock.now();
    if !ctx.logins.may_try(peer.ip(), now) {
        tracing::warn!(%peer, "login refused: too many failures from this address");
        return Login::TooManyFailures;
    }
    let Ok(_turn) = ctx.logins.turns.acquire().await else {
        return Login::Unavailable;
    };
    let candidate = match ctx.directory.candidate(user, protocol).await {
        Ok(candidate) => candidate,
        Err(error) => {
            tracing::error!(%peer, %error, "login: the directory could not be read");
            return Login::Unavailable;
        }
    };
    let verdict = tokio::task::spawn_blocking(move || candidate.verify(&password)).await;
    match verdict {
        Ok(AuthOutcome::Accepted {
            account,
            address,
            via,
        }) => {
            tracing::info!(%peer, login = %address, ?protocol, ?via, "logged in");
            if let Err(error) = ctx.directory.note_login(account, &via, now).await {
                tracing::warn!(%error, "the login could not be noted");
            }
            Login::Accepted { account, address }
        }
        Ok(AuthOutcome::Rejected(reason)) => {
            ctx.logins.note_failure(peer.ip(), now);
            tracing::info!(%peer, login = user.escape_debug().to_string(), ?protocol, ?reason, "login refused");
            match reason {
                AuthReason::AppPasswordRequired => Login::AppPasswordRequired,
                _ => Login::Rejected,
            }
        }
        Err(error) => {
            tracing::error!(%peer, %error, "login: the password check failed");
            Login::Unavailable
        }
    }
}
