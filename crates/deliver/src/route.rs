//! Routes: what an operator sets in place of what the DNS says. A smarthost is the route for `*`.

use mail::{Domain, Secret};
use std::fmt;
use std::net::IpAddr;

/// The port of mail between servers (RFC 5321 §4.5.4.2).
pub const SMTP_PORT: u16 = 25;

/// What is asked of TLS on the way to a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsPolicy {
    /// STARTTLS when it is offered, with any certificate; in clear when not (RFC 7435). More where the
    /// receiving domain asks for it, by DANE or MTA-STS.
    #[default]
    Opportunistic,
    /// The same, but never in clear.
    Encrypted,
    /// STARTTLS with a certificate that verifies, by DANE or for the host's name, or no delivery.
    Required,
    /// STARTTLS with a certificate that verifies by DANE, or no delivery.
    Dane,
    /// STARTTLS when it is offered, with any certificate, whatever DANE and MTA-STS say: for a domain
    /// that got its own protection wrong.
    Unchecked,
    /// In clear, even when STARTTLS is offered. For loopback and for links that are secured otherwise.
    Off,
}

impl TlsPolicy {
    /// The policy in a few words.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            TlsPolicy::Opportunistic => "TLS when offered",
            TlsPolicy::Encrypted => "TLS required",
            TlsPolicy::Required => "verified TLS required",
            TlsPolicy::Dane => "TLS verified by DANE required",
            TlsPolicy::Unchecked => "TLS when offered, DANE and MTA-STS left aside",
            TlsPolicy::Off => "no TLS",
        }
    }
}

impl fmt::Display for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.in_words())
    }
}

/// For which recipients' domains a route is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteFor {
    /// `example.com`: this domain.
    Domain(Domain),
    /// `.example.com`: every domain below it, itself not.
    Below(Domain),
    /// `*`: all that no other route names.
    Everything,
}

impl RouteFor {
    /// Reads `example.com`, `.example.com` or `*`.
    ///
    /// # Errors
    /// When the text is none of them.
    pub fn parse(text: &str) -> Result<Self, mail::DomainError> {
        match (text, text.strip_prefix('.')) {
            ("*", _) => Ok(RouteFor::Everything),
            (_, Some(parent)) => Domain::parse(parent).map(RouteFor::Below),
            (name, None) => Domain::parse(name).map(RouteFor::Domain),
        }
    }

    pub(crate) fn covers(&self, domain: Option<&Domain>) -> bool {
        match (self, domain) {
            (RouteFor::Everything, _) => true,
            (RouteFor::Domain(own), Some(domain)) => own == domain,
            (RouteFor::Below(parent), Some(domain)) => domain != parent && domain.is_at_or_below(parent),
            (_, None) => false,
        }
    }

    /// The more one says, the more it counts: a domain beats what is above it, that beats `*`.
    pub(crate) fn weight(&self) -> usize {
        match self {
            RouteFor::Domain(_) => usize::MAX,
            RouteFor::Below(parent) => parent.as_str().len(),
            RouteFor::Everything => 0,
        }
    }
}

impl fmt::Display for RouteFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteFor::Domain(domain) => write!(f, "{domain}"),
            RouteFor::Below(parent) => write!(f, ".{parent}"),
            RouteFor::Everything => f.write_str("*"),
        }
    }
}

/// A server by name or by address.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ServerName {
    /// A name, whose addresses the DNS has.
    Name(Domain),
    /// An address.
    Ip(IpAddr),
}

impl ServerName {
    /// Reads a host name, an IP address, or an address in brackets.
    ///
    /// # Errors
    /// When the text is none of them.
    pub fn parse(text: &str) -> Result<Self, mail::DomainError> {
        let bare = text
            .strip_prefix('[')
            .and_then(|t| t.strip_suffix(']'))
            .unwrap_or(text);
        match bare.parse() {
            Ok(ip) => Ok(ServerName::Ip(ip)),
            Err(_) => Domain::parse(text).map(ServerName::Name),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerName::Name(name) => write!(f, "{name}"),
            ServerName::Ip(ip) => write!(f, "[{ip}]"),
        }
    }
}

/// A login at a smarthost. Used only inside TLS.
#[derive(Clone, Debug)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// Where mail for some domains goes, whatever the DNS says of them.
#[derive(Clone, Debug)]
pub struct Route {
    /// For which domains.
    pub for_domains: RouteFor,
    /// To which server.
    pub host: ServerName,
    /// Its port.
    pub port: u16,
    /// What is asked of TLS.
    pub tls: TlsPolicy,
    /// The login there, if one is needed.
    pub login: Option<Login>,
}

/// The route for a recipient's domain (`None`: an address literal), if there is one. Of several the
/// one that says most; of equal ones the first.
#[must_use]
pub fn route_for<'a>(routes: &'a [Route], domain: Option<&Domain>) -> Option<&'a Route> {
    let covering = routes.iter().filter(|r| r.for_domains.covers(domain));
    covering.rev().max_by_key(|r| r.for_domains.weight())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_that_says_most_counts() {
        let route = |text: &str, port| Route {
            for_domains: RouteFor::parse(text).unwrap(),
            host: ServerName::parse("192.0.2.1").unwrap(),
            port,
            tls: TlsPolicy::Off,
            login: None,
        };
        let routes = [
            route("*", 1),
            route(".example.com", 2),
            route(".mail.example.com", 3),
            route("mail.example.com", 4),
            route("mail.example.com", 5),
        ];
        for (domain, port) in [
            ("example.com", 1),
            ("example.net", 1),
            ("a.example.com", 2),
            ("a.mail.example.com", 3),
            ("mail.example.com", 4),
        ] {
            let domain = Domain::parse(domain).unwrap();
            assert_eq!(
                route_for(&routes, Some(&domain)).map(|r| r.port),
                Some(port),
                "{domain}"
            );
        }
        assert_eq!(route_for(&routes, None).map(|r| r.port), Some(1));
        assert!(route_for(&routes[1..], None).is_none());
    }

    #[test]
    fn servers_by_name_and_address() {
        for (text, shown) in [
            ("MX.example.com", "mx.example.com"),
            ("192.0.2.1", "[192.0.2.1]"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("2001:db8::1", "[2001:db8::1]"),
        ] {
            assert_eq!(ServerName::parse(text).unwrap().to_string(), shown);
        }
        assert!(ServerName::parse("a b").is_err());
    }
}
