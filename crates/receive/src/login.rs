//! Logging in: so many password checks at a time, off the network threads, and an end to guessing.

use crate::listen::network_of;
use crate::session::{LoggedIn, Session};
use directory::{AuthOutcome, AuthReason, Protocol};
use mail::Timestamp;
use smtp::sasl::Credentials;
use smtp::{Reply, replies};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Networks whose failures are remembered at most; beyond that the expired ones are forgotten, and
/// if that is not enough, all.
const NETWORKS_MAX: usize = 20_000;
/// By how much the delay of a failed login grows at most: 2 to this power.
const DELAY_DOUBLINGS_MAX: u32 = 4;

impl Session {
    /// Answers AUTH: the login's address, or the refusal. The same words after the same time for a
    /// wrong user and a wrong password.
    pub(crate) async fn authenticate(&mut self, credentials: Credentials) -> Result<String, Reply> {
        let verdict = self.check(&credentials).await;
        match &verdict {
            Ok(login) => {
                self.auth_failures = 0;
                self.login = Some(login.clone());
            }
            Err(reply) if reply.is_permanent() => {
                let doublings = self.auth_failures.min(DELAY_DOUBLINGS_MAX);
                self.auth_failures += 1;
                tokio::time::sleep(self.ctx.options.auth_failure_delay * 2u32.pow(doublings)).await;
            }
            Err(_) => {}
        }
        verdict.map(|login| login.address.to_string())
    }

    async fn check(&self, credentials: &Credentials) -> Result<LoggedIn, Reply> {
        let (ctx, peer) = (&self.ctx, self.peer);
        let now = ctx.parts.clock.now();
        if !ctx.logins.may_try(peer.ip(), now) {
            tracing::warn!(%peer, "login refused: too many failures from this address");
            return Err(replies::AUTH_TOO_MANY);
        }
        if credentials
            .authorization
            .as_ref()
            .is_some_and(|other| *other != credentials.login)
        {
            return Err(replies::AUTH_FAILED);
        }
        let Ok(_turn) = ctx.cpu.acquire().await else {
            return Err(replies::AUTH_UNAVAILABLE);
        };
        let candidate = match ctx
            .parts
            .directory
            .candidate(&credentials.login, Protocol::Smtp)
            .await
        {
            Ok(candidate) => candidate,
            Err(error) => {
                tracing::error!(%peer, %error, "login: the directory could not be read");
                return Err(replies::AUTH_UNAVAILABLE);
            }
        };
        let password = credentials.password.clone();
        match tokio::task::spawn_blocking(move || candidate.verify(&password)).await {
            Ok(AuthOutcome::Accepted {
                account,
                address,
                via,
            }) => {
                tracing::info!(%peer, login = %address, ?via, "logged in");
                if let Err(error) = ctx.parts.directory.note_login(account, &via, now).await {
                    tracing::warn!(%error, "the login could not be noted");
                }
                Ok(LoggedIn { account, address })
            }
            Ok(AuthOutcome::Rejected(reason)) => {
                ctx.logins.note(peer.ip(), now);
                tracing::info!(%peer, login = %credentials.login.escape_debug(), ?reason, "login refused");
                Err(match reason {
                    AuthReason::AppPasswordRequired => replies::APP_PASSWORD_NEEDED,
                    _ => replies::AUTH_FAILED,
                })
            }
            Err(error) => {
                tracing::error!(%peer, %error, "login: the password check failed");
                Err(replies::AUTH_UNAVAILABLE)
            }
        }
    }
}

/// Failed logins by network.
pub(crate) struct Failures {
    max: u32,
    window: Duration,
    by_network: Mutex<HashMap<IpAddr, Count>>,
}

#[derive(Clone, Copy)]
struct Count {
    since: Timestamp,
    failures: u32,
}

impl Failures {
    pub(crate) fn new(max: u32, window: Duration) -> Self {
        Self {
            max,
            window,
            by_network: Mutex::default(),
        }
    }

    fn may_try(&self, ip: IpAddr, now: Timestamp) -> bool {
        let counts = self.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .get(&network_of(ip))
            .is_none_or(|c| c.failures < self.max || now.since(c.since) >= self.window)
    }

    fn note(&self, ip: IpAddr, now: Timestamp) {
        let mut counts = self.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= NETWORKS_MAX {
            counts.retain(|_, c| now.since(c.since) < self.window);
            if counts.len() >= NETWORKS_MAX {
                counts.clear();
            }
        }
        let fresh = Count {
            since: now,
            failures: 0,
        };
        let count = counts.entry(network_of(ip)).or_insert(fresh);
        if now.since(count.since) >= self.window {
            *count = fresh;
        }
        count.failures = count.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_ends_and_is_forgiven_with_time() {
        let failures = Failures::new(2, Duration::from_secs(60));
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let at = Timestamp::from_secs;
        failures.note(ip, at(0));
        assert!(failures.may_try(ip, at(1)));
        failures.note(ip, at(1));
        assert!(!failures.may_try(ip, at(2)));
        assert!(failures.may_try("192.0.2.2".parse().unwrap(), at(2)));
        assert!(failures.may_try(ip, at(60)));
        failures.note(ip, at(61));
        assert!(failures.may_try(ip, at(62)), "a new window begins");
    }
}
