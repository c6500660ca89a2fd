//! Web addresses that hear of events: what the operator set. Pure.

use mail::{Domain, Secret};
use std::fmt;
use std::net::IpAddr;

/// Endpoints at most: each event is written down once for each.
pub const ENDPOINTS_MAX: usize = 4;
/// Octets of an endpoint's name at most.
pub const NAME_OCTETS_MAX: usize = 30;
/// Octets of an address at most.
const URL_OCTETS_MAX: usize = 1_000;

/// A kind of event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A message was accepted.
    Received,
    /// It is in a mailbox here.
    Delivered,
    /// The next server took it.
    Relayed,
    /// It failed for now and is tried again.
    Deferred,
    /// It failed for good.
    Bounced,
    /// It could not be done in time.
    Expired,
    /// The operator or a rule dropped it.
    Dropped,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] = [
        Kind::Received,
        Kind::Delivered,
        Kind::Relayed,
        Kind::Deferred,
        Kind::Bounced,
        Kind::Expired,
        Kind::Dropped,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Received => "received",
            Kind::Delivered => "delivered",
            Kind::Relayed => "relayed",
            Kind::Deferred => "deferred",
            Kind::Bounced => "bounced",
            Kind::Expired => "expired",
            Kind::Dropped => "dropped",
        }
    }
}

/// A web address: `https://`, or `http://` to this machine itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// Whether the request goes over TLS.
    pub tls: bool,
    /// A name; without TLS also an address in digits.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path with its query; begins with `/`.
    pub path: String,
}

impl Url {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("\"{text}\": {what}");
        if text.len() > URL_OCTETS_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong("it must be visible ASCII of 1,000 octets at most"));
        }
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(wrong("it must begin with https://")),
        };
        if rest.contains(['#', '\\']) {
            return Err(wrong("it must have no fragment"));
        }
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('/') => (&rest[..at], rest[at..].to_owned()),
            Some(at) => (&rest[..at], format!("/{}", &rest[at..])),
            None => (rest, "/".to_owned()),
        };
        if authority.contains('@') {
            return Err(wrong(
                "a name and password in it would be shown; the signature proves who we are",
            ));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (
                    host,
                    port.ok_or_else(|| wrong("its port is no number from 1 to 65535"))?,
                )
            }
            _ => (authority, if tls { 443 } else { 80 }),
        };
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_ascii_lowercase();
        let ip = host.parse::<IpAddr>().ok();
        if ip.is_none() && Domain::parse(&host).is_err() {
            return Err(wrong("its host is neither a name nor an address"));
        }
        let is_here = host == "localhost" || ip.is_some_and(|ip| ip.is_loopback());
        if !tls && !is_here {
            return Err(wrong("http:// goes to this machine only; write https://"));
        }
        if tls && ip.is_some() {
            return Err(wrong(
                "https:// goes to a name, for which a certificate can be checked",
            ));
        }
        Ok(Self {
            tls,
            host,
            port,
            path,
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let (open, close) = if self.host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        write!(
            f,
            "{scheme}://{open}{}{close}:{}{}",
            self.host, self.port, self.path
        )
    }
}

/// A web address and what it hears of.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its name: lower-case letters, digits and hyphens, [`NAME_OCTETS_MAX`] at most.
    pub name: String,
    /// Where requests go.
    pub url: Url,
    /// By which they are signed.
    pub secret: Secret,
    /// What it hears of.
    pub events: Vec<Kind>,
    /// Only of messages with a reverse-path at one of these; none: of all.
    pub from_domains: Vec<Domain>,
}

impl Endpoint {
    /// What is wrong with a name, when something is.
    #[must_use]
    pub fn name_problem(name: &str) -> Option<String> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let good = (1..=NAME_OCTETS_MAX).contains(&name.len()) && name.bytes().all(fits);
        (!good).then(|| {
            format!("name = \"{name}\": 1 to {NAME_OCTETS_MAX} lower-case letters, digits and hyphens")
        })
    }

    /// Whether it hears of mail from there.
    #[must_use]
    pub fn hears_from(&self, sender: Option<&Domain>) -> bool {
        self.from_domains.is_empty() || sender.is_some_and(|domain| self.from_domains.contains(domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, shown) in [
            ("https://crm.example.com/hook", "https://crm.example.com:443/hook"),
            ("https://CRM.example.com:8443", "https://crm.example.com:8443/"),
            ("https://a.example?x=1", "https://a.example:443/?x=1"),
            ("http://127.0.0.1:9000/x", "http://127.0.0.1:9000/x"),
            ("http://[::1]/", "http://[::1]:80/"),
            ("http://localhost/", "http://localhost:80/"),
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), shown);
        }
        for (text, part) in [
            ("ftp://a.example/", "https://"),
            ("http://a.example/", "this machine"),
            ("http://192.0.2.1/", "this machine"),
            ("https://192.0.2.1/", "goes to a name"),
            ("https://[::1]/", "goes to a name"),
            ("https://u:p@a.example/", "password"),
            ("https://a.example/#x", "fragment"),
            ("https://a.example:0/", "port"),
            ("https:///x", "host"),
            ("https://a.example/ b", "ASCII"),
        ] {
            let why = Url::parse(text).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    #[test]
    fn names() {
        for good in ["crm", "a-1"] {
            assert_eq!(Endpoint::name_problem(good), None);
        }
        for wrong in ["", "CRM", "a b", "a123456789012345678901234567890"] {
            assert!(Endpoint::name_problem(wrong).is_some(), "{wrong}");
        }
    }
}
