//! Rates: connections, messages, recipients, unknown recipients and failed logins, each counted by
//! address, by network and by login within its window.

use crate::counters::{Counters, Who};
use crate::network::{Network, Subject};
use crate::options::{Options, Rate};
use mail::Timestamp;
use std::net::IpAddr;
use std::time::Duration;

/// By whom a count goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// One address.
    Address,
    /// One network.
    Network,
    /// One login.
    Login,
}

impl Scope {
    /// For replies.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Scope::Address => "your address",
            Scope::Network => "your network",
            Scope::Login => "your login",
        }
    }
}

/// A rate that is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Over {
    /// Whose.
    pub scope: Scope,
    /// How many the window allows.
    pub max: u32,
    /// When it ends: the time to come again.
    pub until: Timestamp,
}

/// All counts.
#[derive(Default)]
pub(crate) struct Rates {
    pub(crate) connections: Counters,
    pub(crate) messages: Counters,
    pub(crate) recipients: Counters,
    pub(crate) unknown_recipients: Counters,
    pub(crate) failed_logins: Counters,
}

/// Whom an event is counted for.
#[derive(Clone, Copy)]
pub(crate) struct Client<'a> {
    pub(crate) ip: IpAddr,
    pub(crate) login: Option<&'a str>,
}

impl Client<'_> {
    /// Each count that is on: by whom, its entry, its limit.
    fn counts(self, options: &Options, rate: Rate) -> impl Iterator<Item = (Scope, Who, u32)> {
        let login = self.login.unwrap_or_default();
        let by_login = if login.is_empty() { 0 } else { rate.per_login };
        let (address, network) = if options.trusts(self.ip) {
            (0, 0)
        } else {
            (rate.per_address, rate.per_network)
        };
        let entries = [
            (address > 0).then(|| {
                (
                    Scope::Address,
                    Who::Network(Network::one_address(self.ip)),
                    address,
                )
            }),
            (network > 0).then(|| (Scope::Network, Who::Network(options.network_of(self.ip)), network)),
            (by_login > 0).then(|| (Scope::Login, Who::Login(login.to_lowercase().into()), by_login)),
        ];
        entries.into_iter().flatten()
    }
}

/// Counts an event that may be refused.
pub(crate) fn admit(
    counters: &Counters,
    rate: Rate,
    options: &Options,
    client: Client<'_>,
    now: Timestamp,
) -> Result<(), Over> {
    for (scope, who, max) in client.counts(options, rate) {
        counters
            .admit(who, max, rate.window, now)
            .map_err(|until| Over { scope, max, until })?;
    }
    Ok(())
}

/// Counts an event that has happened. The subjects that have now reached their limit.
pub(crate) fn note(
    counters: &Counters,
    rate: Rate,
    options: &Options,
    client: Client<'_>,
    now: Timestamp,
) -> Vec<(Scope, Subject)> {
    let mut reached = Vec::new();
    for (scope, who, max) in client.counts(options, rate) {
        let subject = match &who {
            Who::Network(network) => Subject::Network(*network),
            Who::Login(login) => Subject::Login(login.to_string()),
        };
        if counters.note(who, rate.window, now) >= max {
            reached.push((scope, subject));
        }
    }
    reached
}

/// How many events an address has had within the window.
pub(crate) fn of_address(counters: &Counters, window: Duration, ip: IpAddr, now: Timestamp) -> u32 {
    counters.now(&Who::Network(Network::one_address(ip)), window, now)
}
