//! What an operator may set about rates, blocks and days, with the defaults and their reasons.

use crate::network::Network;
use crate::suppression::Suppression;
use std::net::IpAddr;
use std::time::Duration;

/// How many within a window of time. 0 turns a count off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// From one address (one /64 of IPv6).
    pub per_address: u32,
    /// From one network (see [`Options::ipv4_prefix`]).
    pub per_network: u32,
    /// By one login.
    pub per_login: u32,
    /// The length of the window; it begins with the first event.
    pub window: Duration,
}

impl Rate {
    /// Nothing is counted.
    pub const OFF: Self = Self {
        per_address: 0,
        per_network: 0,
        per_login: 0,
        window: MINUTE,
    };

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.per_address == 0 && self.per_network == 0 && self.per_login == 0
    }
}

/// What an account may send in a day of UTC. 0 turns a limit off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Daily {
    /// Messages to recipients elsewhere; one to three recipients counts three.
    pub messages: u32,
    /// Recipients elsewhere to whom it never wrote before.
    pub first_recipients: u32,
}

/// All limits.
#[derive(Clone, Debug)]
pub struct Options {
    /// Networks that no rate counts and no limit blocks (an operator's block holds for them too).
    /// Default: this machine.
    pub trusted: Vec<Network>,
    /// Leading bits that make a network of IPv4 addresses. Default 24.
    pub ipv4_prefix: u8,
    /// Leading bits that make a network of IPv6 addresses; a /64 counts as one address already.
    /// Default 48: what one site is given.
    pub ipv6_prefix: u8,
    /// SMTP connections. Default 600 a minute from an address, 3,000 from a network.
    pub connections: Rate,
    /// Messages begun (MAIL). Default off: honest relays send in bursts.
    pub messages: Rate,
    /// Recipients named (RCPT). Default off.
    pub recipients: Rate,
    /// Unknown recipients: 100 from an address or 400 from a network within 10 minutes is asking for
    /// addresses, not sending mail; then comes a block.
    pub unknown_recipients: Rate,
    /// How long that block lasts. Default 15 minutes.
    pub unknown_recipients_block: Duration,
    /// Failed logins: 50 from an address or 200 from a network within 10 minutes lead to a block. By
    /// login the default is off: else anybody could shut anybody out.
    pub failed_logins: Rate,
    /// How long that block lasts. Default 1 hour.
    pub failed_logins_block: Duration,
    /// What an account may send in a day. Default 1,000 messages, 200 first-time recipients.
    pub account: Daily,
    /// For whom addresses that were refused as unknown are not tried again. Default: for nobody.
    pub suppression: Suppression,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Default for Options {
    fn default() -> Self {
        let here: [IpAddr; 2] = [
            std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::Ipv6Addr::LOCALHOST.into(),
        ];
        Self {
            trusted: vec![Network::new(here[0], 8), Network::new(here[1], 128)],
            ipv4_prefix: 24,
            ipv6_prefix: 48,
            connections: Rate {
                per_address: 600,
                per_network: 3_000,
                ..Rate::OFF
            },
            messages: Rate::OFF,
            recipients: Rate::OFF,
            unknown_recipients: Rate {
                per_address: 100,
                per_network: 400,
                per_login: 0,
                window: MINUTE * 10,
            },
            unknown_recipients_block: MINUTE * 15,
            failed_logins: Rate {
                per_address: 50,
                per_network: 200,
                per_login: 0,
                window: MINUTE * 10,
            },
            failed_logins_block: MINUTE * 60,
            account: Daily {
                messages: 1_000,
                first_recipients: 200,
            },
            suppression: Suppression::default(),
        }
    }
}

impl Options {
    /// Nothing is limited; operators' blocks still hold.
    #[must_use]
    pub fn off() -> Self {
        Self {
            connections: Rate::OFF,
            unknown_recipients: Rate::OFF,
            failed_logins: Rate::OFF,
            account: Daily {
                messages: 0,
                first_recipients: 0,
            },
            ..Self::default()
        }
    }

    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(ip))
    }

    pub(crate) fn network_of(&self, ip: IpAddr) -> Network {
        let ip = ip.to_canonical();
        Network::new(
            ip,
            if ip.is_ipv4() {
                self.ipv4_prefix
            } else {
                self.ipv6_prefix
            },
        )
    }
}
