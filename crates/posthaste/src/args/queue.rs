//! `posthaste queue`, as clap reads it.

use super::block::duration;
use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;

#[derive(Subcommand, Debug)]
pub enum Queue {
    /// List what waits, and why: the oldest first.
    List {
        #[command(flatten)]
        which: Which,
        /// Messages to list at most (default: 100; with --json: all).
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        /// Go on behind this message.
        #[arg(long, value_name = "ID")]
        after: Option<mail::QueueId>,
    },
    /// How much waits, since when, for which destinations and for which reasons; what is held and
    /// suspended.
    Status {
        /// Destinations to show, the largest first.
        #[arg(long, value_name = "N", default_value_t = 20)]
        top: usize,
    },
    /// Show one message with all its errands: how each stands, and what comes next and when.
    Show { id: mail::QueueId },
    /// Try again now. What is held stays held.
    Retry {
        #[command(flatten)]
        order: Order,
    },
    /// Keep mail until it is released. What is being attempted is passed over, and told.
    Hold {
        #[command(flatten)]
        order: Order,
    },
    /// Let what is held go again, at once.
    Release {
        #[command(flatten)]
        order: Order,
    },
    /// Remove mail without telling its sender. Its journey says who did it.
    Drop {
        #[command(flatten)]
        order: Order,
    },
    /// Send mail back to its sender now, with a report. What is being attempted is passed over.
    Bounce {
        #[command(flatten)]
        order: Order,
        /// Why, for the sender to read.
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Send mail to another server than the DNS and the routes say, and try it now.
    Reroute {
        #[command(flatten)]
        order: Order,
        /// The server: a host name or an address, with :PORT when it is not 25; `[2001:db8::1]:25`.
        #[arg(long, value_name = "HOST[:PORT]", required_unless_present = "back", value_parser = via)]
        via: Option<::queue::Via>,
        /// Again where the DNS and the routes say.
        #[arg(long, conflicts_with = "via")]
        back: bool,
    },
    /// Let all mail to a domain or from a sender wait, also what comes in later. What is being
    /// attempted at this moment ends as it does.
    Suspend {
        #[command(flatten)]
        what: Whose,
        /// For how long: a number with s, m, h or d behind it (default: until it is resumed).
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        lasts: Option<Duration>,
        /// Why, for the journeys.
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
        /// Who orders it, for the journeys (default: the operator).
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// End a suspension: what waited for it is tried now.
    Resume {
        #[command(flatten)]
        what: Whose,
    },
}

/// A destination or a sender.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Whose {
    /// Mail to recipients at this domain.
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<mail::Domain>,
    /// Mail from this sender: user@example.com, @example.com, <>, or a login (login:user@example.com).
    #[arg(long, value_name = "SENDER", value_parser = sender)]
    pub from: Option<::queue::SenderIs>,
}

impl Whose {
    /// What is suspended or resumed. The command line has one of the two.
    pub fn what(self) -> Option<::queue::Suspended> {
        let domain = self.domain.map(::queue::Suspended::Destination);
        domain.or(self.from.map(::queue::Suspended::Sender))
    }
}

/// Which mail an order is for.
#[derive(Args, Debug)]
pub struct Order {
    #[command(flatten)]
    pub which: Which,
    /// Everything in the queue.
    #[arg(long)]
    pub all: bool,
    /// Only say how much it would be.
    #[arg(long)]
    pub dry_run: bool,
    /// Who orders it, for the journey (default: the operator).
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// Which mail; what is said must all hold.
#[derive(Args, Debug)]
pub struct Which {
    /// Messages by their queue ids.
    #[arg(value_name = "ID")]
    pub ids: Vec<mail::QueueId>,
    /// From this sender: user@example.com, @example.com, <>, or a login (login:user@example.com).
    #[arg(long, value_name = "SENDER", value_parser = sender)]
    pub from: Option<::queue::SenderIs>,
    /// To this recipient.
    #[arg(long, value_name = "ADDRESS")]
    pub to: Option<mail::EmailAddress>,
    /// To recipients at this domain.
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<mail::Domain>,
    /// Accepted longer ago than this: a number with s, m, h or d behind it.
    #[arg(long, value_name = "AGE", value_parser = duration)]
    pub older: Option<Duration>,
    /// Accepted within this time.
    #[arg(long, value_name = "AGE", value_parser = duration)]
    pub newer: Option<Duration>,
    /// Whose last reply holds this text.
    #[arg(long, value_name = "TEXT")]
    pub error: Option<String>,
    /// Whose last reply came from this server, or from one below this domain.
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Whose last failure is of this class, as `queue show --json` names it.
    #[arg(long, value_name = "CLASS")]
    pub class: Option<String>,
    /// That stand so.
    #[arg(long, value_enum)]
    pub state: Option<State>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Waiting,
    Attempting,
    Held,
    Suspended,
}

impl Which {
    /// The filter, at a time.
    pub fn filter(self, now: mail::Timestamp) -> ::queue::Filter {
        let ago = |age: Duration| {
            let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
            mail::Timestamp(now.0.saturating_sub(micros))
        };
        ::queue::Filter {
            ids: self.ids,
            recipient: self.to,
            domain: self.domain,
            sender: self.from,
            received_before: self.older.map(ago),
            received_after: self.newer.map(ago),
            error: self.error,
            host: self.host,
            class: self.class,
            standing: self.state.map(|state| match state {
                State::Waiting => ::queue::Standing::Waiting,
                State::Attempting => ::queue::Standing::Attempting,
                State::Held => ::queue::Standing::Held,
                State::Suspended => ::queue::Standing::Suspended,
            }),
            after: None,
        }
    }
}

fn sender(text: &str) -> Result<::queue::SenderIs, String> {
    ::queue::SenderIs::parse(text)
        .ok_or_else(|| "write user@example.com, @example.com, <> or a login".to_owned())
}

/// Reads `mx.example.com`, `mx.example.com:2525`, `192.0.2.1:25`, `[2001:db8::1]:25`.
fn via(text: &str) -> Result<::queue::Via, String> {
    let wrong = || "write a host name or an address, with :PORT when it is not 25".to_owned();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            let port = match port {
                "" => None,
                _ => Some(port.strip_prefix(':').ok_or_else(wrong)?),
            };
            (host, port)
        }
        None => match text.split_once(':') {
            Some((_, more)) if more.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Ok(25), |port| port.parse().map_err(|_| wrong()))?;
    let is_host = host.parse::<std::net::IpAddr>().is_ok() || mail::Domain::parse(host).is_ok();
    match is_host && port != 0 {
        true => Ok(::queue::Via {
            host: host.to_ascii_lowercase(),
            port,
        }),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        for (text, host, port) in [
            ("mx.example.com", "mx.example.com", 25),
            ("MX.example.com:2525", "mx.example.com", 2525),
            ("192.0.2.1:26", "192.0.2.1", 26),
            ("2001:db8::1", "2001:db8::1", 25),
            ("[2001:db8::1]:587", "2001:db8::1", 587),
            ("[2001:db8::1]", "2001:db8::1", 25),
        ] {
            let host = host.to_owned();
            assert_eq!(via(text), Ok(::queue::Via { host, port }), "{text}");
        }
        for wrong in [
            "",
            ":25",
            "a b",
            "mx.example.com:",
            "mx.example.com:0",
            "mx:70000",
            "[::1",
            "[::1]x",
        ] {
            assert!(via(wrong).is_err(), "{wrong}");
        }
    }
}
