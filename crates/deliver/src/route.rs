//! Routes: what an operator sets in place of what the DNS says. A smarthost is the route for `*`.

use directory::RouteSpec;
use mail::{Domain, EnhancedStatus, Secret};
use std::fmt;
use std::net::IpAddr;

/// The port of mail between servers (RFC 5321 §4.5.4.2).
pub const SMTP_PORT: u16 = 25;
/// The port of LMTP servers for which a route names none. No port is registered for LMTP; 24, "any
/// private mail system", is what its servers use. Never 25 (RFC 2033 §5).
pub const LMTP_PORT: u16 = 24;

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
    /// Reads the policy's name in the settings.
    ///
    /// # Errors
    /// When the text is none of them.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "opportunistic" => Ok(TlsPolicy::Opportunistic),
            "encrypted" => Ok(TlsPolicy::Encrypted),
            "required" => Ok(TlsPolicy::Required),
            "dane" => Ok(TlsPolicy::Dane),
            "unchecked" => Ok(TlsPolicy::Unchecked),
            "off" => Ok(TlsPolicy::Off),
            _ => Err(format!(
                "tls \"{text}\": write opportunistic, encrypted, required, dane, unchecked or off"
            )),
        }
    }

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

    /// Whether a domain (`None`: an address literal) is one of them.
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

/// A server by name, by address, or by a socket of this machine.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ServerName {
    /// A name, whose addresses the DNS has.
    Name(Domain),
    /// An address.
    Ip(IpAddr),
    /// The path of a Unix socket, which begins with a slash. Only LMTP goes there.
    Socket(String),
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
            ServerName::Socket(path) => f.write_str(path),
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

/// A server that a route names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The lowest is tried first; equal ones in random order.
    pub preference: u16,
    /// The server.
    pub host: ServerName,
    /// Its port.
    pub port: u16,
}

impl Target {
    /// Reads `mx.example.net`, `mx.example.net:2525`, `10 mx.example.net` or `[2001:db8::1]:25`: an
    /// optional preference (0 without one), a server, and a port unless it is `port`.
    ///
    /// # Errors
    /// What is wrong with the text, in words.
    pub fn parse(text: &str, port: u16) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "\"{text}\": {why}; write it so: mx.example.net, mx.example.net:2525 or \"10 mx.example.net\""
            )
        };
        let (preference, place) = match text.trim().split_once(' ') {
            None => (0, text.trim()),
            Some((digits, place)) => {
                let preference = digits.parse();
                (
                    preference.map_err(|_| wrong("a preference is a number from 0 to 65535"))?,
                    place.trim(),
                )
            }
        };
        let (host, own_port) = match place.rsplit_once(':') {
            // A colon inside brackets, or one of several without brackets, belongs to an IPv6 address.
            Some((host, digits)) if host.ends_with(']') || !host.contains(':') => (host, Some(digits)),
            _ => (place, None),
        };
        let port = match own_port {
            None => port,
            Some(digits) => match digits.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(wrong("a port is a number from 1 to 65535")),
            },
        };
        Ok(Self {
            preference,
            host: ServerName::parse(host).map_err(|e| wrong(&e.to_string()))?,
            port,
        })
    }
}

impl Target {
    /// Reads where an LMTP server is: `box.example.net:24`, `192.0.2.1`, `[2001:db8::1]:24` or
    /// `/run/dovecot/lmtp`. Postfix's ways to write it (`inet:box.example.net:24`, `unix:/run/lmtp`, both
    /// also behind `lmtp:`) are understood.
    ///
    /// # Errors
    /// What is wrong with the text, in words.
    pub fn parse_lmtp(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "lmtp \"{text}\": {why}; write it so: /run/dovecot/lmtp, box.example.net or box.example.net:24"
            )
        };
        let place = text.trim();
        let place = place.strip_prefix("lmtp:").unwrap_or(place);
        let path = place.strip_prefix("unix:").unwrap_or(place);
        if path.starts_with('/') {
            let host = ServerName::Socket(path.to_owned());
            return Ok(Self {
                preference: 0,
                host,
                port: 0,
            });
        }
        if path.len() != place.len() {
            return Err(wrong("the path of a socket begins with a slash"));
        }
        let place = place.strip_prefix("inet:").unwrap_or(place);
        if place.contains(' ') {
            return Err(wrong("it names one server"));
        }
        let target = Self::parse(place, LMTP_PORT).map_err(|e| format!("lmtp {e}"))?;
        match target.port {
            SMTP_PORT => Err(wrong("LMTP is never spoken on port 25 (RFC 2033)")),
            _ => Ok(target),
        }
    }

    /// `host:port`, or the path of a socket.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.host {
            ServerName::Socket(path) => path.clone(),
            host => format!("{host}:{}", self.port),
        }
    }
}

/// The failure that a route stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// 400 to 599.
    pub code: u16,
    /// Of the code's class.
    pub status: EnhancedStatus,
    /// The words.
    pub words: String,
}

impl Refusal {
    /// Reads `550 5.1.1 nobody is here any more`; the enhanced status may be missing (X.7.1 then,
    /// RFC 3463: not allowed by policy).
    ///
    /// # Errors
    /// What is wrong with the text, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            |why: &str| format!("\"{text}\": {why}; write it so: \"550 5.1.1 nobody is here any more\"");
        let (code, rest) = text
            .trim()
            .split_once(' ')
            .ok_or_else(|| wrong("it has no words"))?;
        let code: u16 = match code.parse() {
            Ok(code) if code / 100 == 4 || code / 100 == 5 => code,
            _ => return Err(wrong("the code is a number from 400 to 599")),
        };
        let class = if code / 100 == 5 { 5 } else { 4 };
        let (status, words) = match EnhancedStatus::parse_prefix(rest.trim_start()) {
            Some((status, words)) if status.class == class => (status, words),
            Some(_) => return Err(wrong("the enhanced status is of another class than the code")),
            None => (EnhancedStatus::new(class, 7, 1), rest),
        };
        let words = words.trim();
        if words.is_empty() {
            return Err(wrong("it has no words"));
        }
        Ok(Self {
            code,
            status,
            words: words.to_owned(),
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.code, self.status, self.words)
    }
}

/// What a route does with the mail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// It goes to one of these servers.
    Relay(Vec<Target>),
    /// It goes to this server by LMTP (RFC 2033), with an answer for each recipient.
    Lmtp(Target),
    /// It goes to the mail exchangers of another domain.
    MxOf {
        /// Which domain.
        domain: Domain,
        /// Their port.
        port: u16,
    },
    /// It is thrown away; its journey says so, its sender is not told.
    Discard,
    /// It fails in these words: at once (5xx), or until it expires (4xx).
    Fail(Refusal),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Relay(targets) => {
                f.write_str("to")?;
                for (i, target) in targets.iter().enumerate() {
                    let before = if i == 0 { " " } else { ", " };
                    write!(f, "{before}{}:{}", target.host, target.port)?;
                    if targets.len() > 1 {
                        write!(f, " (preference {})", target.preference)?;
                    }
                }
                Ok(())
            }
            Action::Lmtp(target) => write!(f, "by LMTP to {}", target.place()),
            Action::MxOf { domain, port } => write!(f, "to the mail exchangers of {domain}, port {port}"),
            Action::Discard => f.write_str("discard"),
            Action::Fail(refusal) => write!(f, "fail: {refusal}"),
        }
    }
}

/// Where a route was written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// `[[deliver.route]]`.
    Settings,
    /// `posthaste route add`.
    Store,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Settings => "settings",
            Origin::Store => "store",
        })
    }
}

/// What is done with mail for some domains, whatever the DNS says of them.
#[derive(Clone, Debug)]
pub struct Route {
    /// For which domains.
    pub for_domains: RouteFor,
    /// What is done.
    pub action: Action,
    /// What is asked of TLS.
    pub tls: TlsPolicy,
    /// The login there, if one is needed.
    pub login: Option<Login>,
    /// Where it was written down.
    pub origin: Origin,
}

impl Route {
    /// A route of the settings to one server.
    #[must_use]
    pub fn to(for_domains: RouteFor, host: ServerName, port: u16, tls: TlsPolicy) -> Self {
        Self {
            for_domains,
            action: Action::Relay(vec![Target {
                preference: 0,
                host,
                port,
            }]),
            tls,
            login: None,
            origin: Origin::Settings,
        }
    }

    /// Reads what an operator wrote. The login's password comes from whoever may read its file.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn read(
        pattern: &str,
        spec: &RouteSpec,
        login: Option<Login>,
        origin: Origin,
    ) -> Result<Self, String> {
        let for_domains = RouteFor::parse(pattern)
            .map_err(|e| format!("\"{pattern}\": {e}; write example.com, .example.com or *"))?;
        let port = spec.port.unwrap_or(SMTP_PORT);
        if port == 0 {
            return Err("port is a number from 1 to 65535".to_owned());
        }
        spec.check()?;
        let action = if let Some(text) = &spec.fail {
            Action::Fail(Refusal::parse(text)?)
        } else if spec.discard {
            Action::Discard
        } else if let Some(place) = &spec.lmtp {
            Action::Lmtp(Target::parse_lmtp(place)?)
        } else if let Some(name) = &spec.mx {
            let domain = Domain::parse(name).map_err(|e| format!("mx \"{name}\": {e}"))?;
            Action::MxOf { domain, port }
        } else {
            let targets = spec.hosts.iter().map(|text| Target::parse(text, port));
            Action::Relay(targets.collect::<Result<_, _>>()?)
        };
        let is_socket =
            matches!(&action, Action::Lmtp(target) if matches!(target.host, ServerName::Socket(_)));
        let tls = match &spec.tls {
            Some(text) => TlsPolicy::parse(text)?,
            None => TlsPolicy::default(),
        };
        if is_socket && spec.tls.is_some() && tls != TlsPolicy::Off {
            return Err("a socket of this machine has no TLS: leave tls out".to_owned());
        }
        Ok(Self {
            for_domains,
            action,
            tls: if is_socket { TlsPolicy::Off } else { tls },
            login,
            origin,
        })
    }

    /// The route in words: for whom, and where it was written down.
    #[must_use]
    pub fn named(&self) -> String {
        format!("{} in the {}", self.for_domains, self.origin)
    }
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
        let route = |text: &str, port| {
            let host = ServerName::parse("192.0.2.1").unwrap();
            Route::to(RouteFor::parse(text).unwrap(), host, port, TlsPolicy::Off)
        };
        let port_of = |route: &Route| match &route.action {
            Action::Relay(targets) => targets[0].port,
            other => panic!("{other}"),
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
                route_for(&routes, Some(&domain)).map(port_of),
                Some(port),
                "{domain}"
            );
        }
        assert_eq!(route_for(&routes, None).map(port_of), Some(1));
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

    #[test]
    fn targets() {
        for (text, shown) in [
            ("mx.example.net", "0 mx.example.net 25"),
            (" mx.example.net:2525", "0 mx.example.net 2525"),
            ("10 mx.example.net", "10 mx.example.net 25"),
            ("65535 192.0.2.1:587", "65535 [192.0.2.1] 587"),
            ("2001:db8::1", "0 [2001:db8::1] 25"),
            ("[2001:db8::1]", "0 [2001:db8::1] 25"),
            ("20 [2001:db8::1]:26", "20 [2001:db8::1] 26"),
        ] {
            let t = Target::parse(text, 25).unwrap();
            assert_eq!(format!("{} {} {}", t.preference, t.host, t.port), shown);
        }
        for wrong in [
            "",
            "a b",
            "65536 a.example",
            "a.example:0",
            "a.example:x",
            "a..b",
            "10 a b",
        ] {
            assert!(Target::parse(wrong, 25).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lmtp_servers() {
        for (text, shown) in [
            ("box.example.net:2424", "box.example.net:2424"),
            ("box.example.net", "box.example.net:24"),
            ("[2001:db8::1]", "[2001:db8::1]:24"),
            ("/run/dovecot/lmtp", "/run/dovecot/lmtp"),
            ("unix:/run/lmtp", "/run/lmtp"),
            ("lmtp:unix:/run/lmtp", "/run/lmtp"),
            ("inet:127.0.0.1:24", "[127.0.0.1]:24"),
            ("lmtp:inet:box.example.net", "box.example.net:24"),
        ] {
            assert_eq!(Target::parse_lmtp(text).unwrap().place(), shown, "{text}");
        }
        for wrong in [
            "",
            "unix:run/lmtp",
            "box.example.net:25",
            "10 box.example.net",
            "a..b",
        ] {
            assert!(Target::parse_lmtp(wrong).is_err(), "{wrong}");
        }
        let spec = |place: &str, tls: Option<&str>| RouteSpec {
            lmtp: Some(place.to_owned()),
            tls: tls.map(str::to_owned),
            ..RouteSpec::default()
        };
        let read = |spec| Route::read("*", &spec, None, Origin::Store);
        let route = read(spec("/run/lmtp", None)).unwrap();
        assert_eq!(route.action.to_string(), "by LMTP to /run/lmtp");
        assert_eq!(route.tls, TlsPolicy::Off);
        assert_eq!(
            read(spec("a.example", Some("required"))).unwrap().tls,
            TlsPolicy::Required
        );
        assert!(read(spec("/run/lmtp", Some("required"))).is_err());
    }

    #[test]
    fn refusals() {
        for (text, shown) in [
            ("550 5.1.1 nobody", "550 5.1.1 nobody"),
            ("451 not today", "451 4.7.1 not today"),
            ("554 5.7.26  x y ", "554 5.7.26 x y"),
        ] {
            assert_eq!(Refusal::parse(text).unwrap().to_string(), shown);
        }
        for wrong in [
            "",
            "550",
            "550 ",
            "250 2.0.0 ok",
            "550 4.1.1 mixed",
            "550 5.1.1",
            "x y",
        ] {
            assert!(Refusal::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_an_operator_writes() {
        let text = |text: &str| Some(text.to_owned());
        let spec = RouteSpec {
            hosts: vec!["10 a.example".to_owned(), "20 b.example:26".to_owned()],
            port: Some(2525),
            tls: text("required"),
            ..RouteSpec::default()
        };
        let route = Route::read(".example.com", &spec, None, Origin::Store).unwrap();
        assert_eq!(route.named(), ".example.com in the store");
        assert_eq!(
            route.action.to_string(),
            "to a.example:2525 (preference 10), b.example:26 (preference 20)"
        );
        assert_eq!(route.tls, TlsPolicy::Required);
        let mx = RouteSpec {
            mx: text("example.net"),
            ..RouteSpec::default()
        };
        let fail = RouteSpec {
            fail: text("550 gone"),
            ..RouteSpec::default()
        };
        let discard = RouteSpec {
            discard: true,
            ..RouteSpec::default()
        };
        for (spec, shown) in [
            (&mx, "to the mail exchangers of example.net, port 25"),
            (&fail, "fail: 550 5.7.1 gone"),
            (&discard, "discard"),
        ] {
            let route = Route::read("*", spec, None, Origin::Settings).unwrap();
            assert_eq!(route.action.to_string(), shown);
        }
        let both = RouteSpec {
            discard: true,
            ..mx.clone()
        };
        let odd = RouteSpec {
            tls: text("maybe"),
            ..mx
        };
        for (pattern, spec) in [
            ("*", &both),
            ("*", &odd),
            ("a..b", &fail),
            ("*", &RouteSpec::default()),
        ] {
            assert!(
                Route::read(pattern, spec, None, Origin::Store).is_err(),
                "{pattern}"
            );
        }
    }
}
