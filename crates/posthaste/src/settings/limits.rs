//! `[limits]`: how often is too often, who is blocked for it, what an account may send in a day.

use super::reference::{Key, key};
use limits::{Daily, Network, Rate};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[limits]`. Every number but a prefix and a time may be 0: no such limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub trusted: Vec<Network>,
    pub ipv4_prefix: u8,
    pub ipv6_prefix: u8,
    pub connections_per_address_minute: u32,
    pub connections_per_network_minute: u32,
    pub messages_per_address_minute: u32,
    pub messages_per_network_minute: u32,
    pub messages_per_login_minute: u32,
    pub recipients_per_address_minute: u32,
    pub recipients_per_network_minute: u32,
    pub recipients_per_login_minute: u32,
    pub unknown_recipients_per_address: u32,
    pub unknown_recipients_per_network: u32,
    pub unknown_recipients_window_secs: u64,
    pub unknown_recipients_block_secs: u64,
    pub failed_logins_per_address: u32,
    pub failed_logins_per_network: u32,
    pub failed_logins_per_login: u32,
    pub failed_logins_window_secs: u64,
    pub failed_logins_block_secs: u64,
    pub account_messages_per_day: u32,
    pub account_first_recipients_per_day: u32,
    pub suppress_for: Vec<String>,
    pub suppress_days: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let o = limits::Options::default();
        Self {
            trusted: o.trusted,
            ipv4_prefix: o.ipv4_prefix,
            ipv6_prefix: o.ipv6_prefix,
            connections_per_address_minute: o.connections.per_address,
            connections_per_network_minute: o.connections.per_network,
            messages_per_address_minute: o.messages.per_address,
            messages_per_network_minute: o.messages.per_network,
            messages_per_login_minute: o.messages.per_login,
            recipients_per_address_minute: o.recipients.per_address,
            recipients_per_network_minute: o.recipients.per_network,
            recipients_per_login_minute: o.recipients.per_login,
            unknown_recipients_per_address: o.unknown_recipients.per_address,
            unknown_recipients_per_network: o.unknown_recipients.per_network,
            unknown_recipients_window_secs: o.unknown_recipients.window.as_secs(),
            unknown_recipients_block_secs: o.unknown_recipients_block.as_secs(),
            failed_logins_per_address: o.failed_logins.per_address,
            failed_logins_per_network: o.failed_logins.per_network,
            failed_logins_per_login: o.failed_logins.per_login,
            failed_logins_window_secs: o.failed_logins.window.as_secs(),
            failed_logins_block_secs: o.failed_logins_block.as_secs(),
            account_messages_per_day: o.account.messages,
            account_first_recipients_per_day: o.account.first_recipients,
            suppress_for: o.suppression.senders,
            suppress_days: o.suppression.lasts.as_secs() / DAY_SECS,
        }
    }
}

impl Limits {
    /// What the crate `limits` works with.
    pub fn options(&self) -> limits::Options {
        let by_the_minute = |per_address, per_network, per_login| Rate {
            per_address,
            per_network,
            per_login,
            ..Rate::OFF
        };
        limits::Options {
            trusted: self.trusted.clone(),
            ipv4_prefix: self.ipv4_prefix,
            ipv6_prefix: self.ipv6_prefix,
            connections: by_the_minute(
                self.connections_per_address_minute,
                self.connections_per_network_minute,
                0,
            ),
            messages: by_the_minute(
                self.messages_per_address_minute,
                self.messages_per_network_minute,
                self.messages_per_login_minute,
            ),
            recipients: by_the_minute(
                self.recipients_per_address_minute,
                self.recipients_per_network_minute,
                self.recipients_per_login_minute,
            ),
            unknown_recipients: Rate {
                per_address: self.unknown_recipients_per_address,
                per_network: self.unknown_recipients_per_network,
                per_login: 0,
                window: Duration::from_secs(self.unknown_recipients_window_secs),
            },
            unknown_recipients_block: Duration::from_secs(self.unknown_recipients_block_secs),
            failed_logins: Rate {
                per_address: self.failed_logins_per_address,
                per_network: self.failed_logins_per_network,
                per_login: self.failed_logins_per_login,
                window: Duration::from_secs(self.failed_logins_window_secs),
            },
            failed_logins_block: Duration::from_secs(self.failed_logins_block_secs),
            account: Daily {
                messages: self.account_messages_per_day,
                first_recipients: self.account_first_recipients_per_day,
            },
            suppression: limits::Suppression {
                senders: self.suppress_for.clone(),
                lasts: Duration::from_secs(self.suppress_days.saturating_mul(DAY_SECS)),
            },
        }
    }

    /// How connections at the same time are counted by network.
    pub fn networks(&self, connections_max: usize) -> Option<listen::Networks> {
        (connections_max > 0).then_some(listen::Networks {
            connections_max,
            ipv4_prefix: self.ipv4_prefix,
            ipv6_prefix: self.ipv6_prefix,
        })
    }

    /// What serde cannot see.
    pub fn check(&self) -> Result<(), String> {
        if self.ipv4_prefix > 32 || self.ipv6_prefix > 128 {
            return Err("limits.ipv4_prefix is at most 32, limits.ipv6_prefix at most 128".to_owned());
        }
        if !(1..=SUPPRESS_DAYS_MAX).contains(&self.suppress_days) {
            return Err(format!(
                "limits.suppress_days must be from 1 to {SUPPRESS_DAYS_MAX}"
            ));
        }
        if let Some(wrong) = self.suppress_for.iter().find(|s| *s != "*" && !s.contains('@')) {
            return Err(format!(
                "limits.suppress_for: \"{wrong}\" is neither a login such as news@example.com, nor @domain, nor *"
            ));
        }
        for (name, secs) in [
            (
                "unknown_recipients_window_secs",
                self.unknown_recipients_window_secs,
            ),
            (
                "unknown_recipients_block_secs",
                self.unknown_recipients_block_secs,
            ),
            ("failed_logins_window_secs", self.failed_logins_window_secs),
            ("failed_logins_block_secs", self.failed_logins_block_secs),
        ] {
            if !(1..=SECS_MAX).contains(&secs) {
                return Err(format!("limits.{name} must be from 1 to {SECS_MAX} (a year)"));
            }
        }
        Ok(())
    }
}

const DAY_SECS: u64 = 86_400;
/// An address is suppressed for ten years at most.
const SUPPRESS_DAYS_MAX: u64 = 3_660;
/// A window or a block lasts a year at most.
const SECS_MAX: u64 = 366 * 86_400;

/// The meaning of each key.
pub const KEYS: &[Key] = &[
    key(
        "limits.trusted",
        "[\"127.0.0.0/8\", \"::1\"]",
        "Addresses and networks that no rate of this section counts and that are never blocked by themselves: your own relays. An operator's block holds for them too.",
    ),
    key(
        "limits.ipv4_prefix",
        "24",
        "Leading bits that make a network of IPv4 addresses, for everything that is counted by network.",
    ),
    key(
        "limits.ipv6_prefix",
        "48",
        "The same for IPv6. What is counted by address counts a /64 as one address already.",
    ),
    key(
        "limits.connections_per_address_minute",
        "600",
        "SMTP connections from one address within a minute; further ones get 421 4.7.0 with the time to come again. In this section 0 means: no such limit.",
    ),
    key(
        "limits.connections_per_network_minute",
        "3000",
        "The same from one network.",
    ),
    key(
        "limits.messages_per_address_minute",
        "0",
        "Messages begun (MAIL) from one address within a minute; further ones get 450 4.7.0. Off, because honest relays send in bursts; 600 is a start for a small server.",
    ),
    key(
        "limits.messages_per_network_minute",
        "0",
        "The same from one network.",
    ),
    key("limits.messages_per_login_minute", "0", "The same by one login."),
    key(
        "limits.recipients_per_address_minute",
        "0",
        "Recipients named (RCPT) from one address within a minute; further ones get 452 4.5.3. Off, as above.",
    ),
    key(
        "limits.recipients_per_network_minute",
        "0",
        "The same from one network.",
    ),
    key(
        "limits.recipients_per_login_minute",
        "0",
        "The same by one login.",
    ),
    key(
        "limits.unknown_recipients_per_address",
        "100",
        "Recipients that do not exist here, named by strangers from one address within the window, that lead to 421 4.7.0 and a block: that is asking for addresses, not sending mail.",
    ),
    key(
        "limits.unknown_recipients_per_network",
        "400",
        "The same from one network, which is then blocked as a whole.",
    ),
    key(
        "limits.unknown_recipients_window_secs",
        "600",
        "Seconds within which unknown recipients are counted.",
    ),
    key(
        "limits.unknown_recipients_block_secs",
        "900",
        "Seconds that the block lasts.",
    ),
    key(
        "limits.failed_logins_per_address",
        "50",
        "Failed logins from one address within the window, over SMTP, IMAP and POP3 together, that lead to a block. Before that each five make the answer wait longer, up to 16 seconds.",
    ),
    key(
        "limits.failed_logins_per_network",
        "200",
        "The same from one network, which is then blocked as a whole.",
    ),
    key(
        "limits.failed_logins_per_login",
        "0",
        "Failed logins under one name, from wherever, that block the name. Off, because anybody could shut anybody out with it.",
    ),
    key(
        "limits.failed_logins_window_secs",
        "600",
        "Seconds within which failed logins are counted.",
    ),
    key(
        "limits.failed_logins_block_secs",
        "3600",
        "Seconds that the block lasts. It survives a restart; `posthaste block list` shows it, `posthaste block remove` lifts it.",
    ),
    key(
        "limits.account_messages_per_day",
        "1000",
        "Messages that an account may send to recipients elsewhere in a day of UTC (one to three recipients counts three); further recipients get 452 4.7.1. `posthaste account limit` gives an account its own.",
    ),
    key(
        "limits.account_first_recipients_per_day",
        "200",
        "Recipients elsewhere to whom an account has not written within a year, in a day of UTC; further ones get 452 4.7.1. So a stolen password does little harm.",
    ),
    key(
        "limits.suppress_for",
        "[]",
        "For bulk senders: logins such as `\"news@example.com\"`, each with a list of its own, domains such as `\"@example.com\"`, whose logins share one, or `\"*\"`. An address that another server refused as unknown is then refused at RCPT for that sender, with 550 5.1.1 and the reason; `posthaste suppression` lists and ends it.",
    ),
    key(
        "limits.suppress_days",
        "30",
        "Days that an address stays suppressed.",
    ),
];
