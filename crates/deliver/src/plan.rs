//! Where a message goes: from what the DNS and the settings say to an ordered list of addresses.
//!
//! Pure: the answers come in, a [`Plan`] or a [`Failure`] comes out, with the reasons that the journey
//! keeps. Promises: RFC 5321 §5.1 (preference order, equal ones shuffled, address fallback, no
//! delivery to a host of our own or behind it), RFC 7505 (null MX); DNS trouble never bounces.

use crate::failure::Failure;
use crate::route::{Action, Login, Route, ServerName, Target, TlsPolicy};
use crate::security::{self, Asked, Evidence};
use crate::source::Departures;
use dns::{DnsError, Mx};
use mail::{Domain, EnhancedStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Mail exchangers whose addresses are looked up at most; less preferred ones are left out.
pub const HOSTS_MAX: usize = 8;
/// Addresses that one attempt tries at most, so that its time is bounded.
pub const ADDRESSES_MAX: usize = 12;

/// Which of a host's addresses are tried, and in which order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AddressOrder {
    /// IPv4, then IPv6. The default: many receivers are stricter with IPv6 (reverse names).
    #[default]
    V4First,
    /// IPv6, then IPv4.
    V6First,
    /// IPv4 alone.
    V4Only,
    /// IPv6 alone.
    V6Only,
}

/// What the plan must know of ourselves.
#[derive(Clone, Debug)]
pub struct Own {
    /// Names of this host, as MX records may call it.
    pub names: Vec<Domain>,
    /// The port of servers that are found by MX. Default 25.
    pub port: u16,
    /// Which addresses are tried first.
    pub order: AddressOrder,
    /// Where this server takes mail from others.
    pub listening: Listening,
}

/// The addresses at which this server takes mail from others: mail that is sent there comes back.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    /// What was bound; an unspecified address stands for every address of this machine.
    pub addresses: Vec<SocketAddr>,
    /// Whether an address is one of this machine's. Without it only loopback is.
    pub is_here: Option<fn(IpAddr) -> bool>,
}

impl Listening {
    /// Whether whoever connects there is answered by this server.
    #[must_use]
    pub fn is_us(&self, to: SocketAddr) -> bool {
        let is_here = |ip: IpAddr| match self.is_here {
            _ if ip.is_loopback() || ip.is_unspecified() => true,
            Some(is_here) => is_here(ip),
            None => false,
        };
        self.addresses.iter().any(|own| {
            own.port() == to.port()
                && (own.ip() == to.ip() || (own.ip().is_unspecified() && is_here(to.ip())))
        })
    }
}

/// What the DNS says of one host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// Its IPv4 addresses.
    pub v4: Result<Vec<Ipv4Addr>, DnsError>,
    /// Its IPv6 addresses.
    pub v6: Result<Vec<Ipv6Addr>, DnsError>,
}

/// What stands for the address of a server that is a socket of this machine.
pub const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Addresses by host name.
pub type AddressBook = BTreeMap<Domain, Addresses>;

/// One server to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hop {
    /// Its name, for TLS and for people.
    pub host: ServerName,
    /// Where to connect; of a socket [`NO_ADDRESS`].
    pub address: SocketAddr,
    /// Its MX preference, when it was found by MX.
    pub preference: Option<u16>,
}

impl Hop {
    /// Whether both are addresses of one server.
    pub(crate) fn is_beside(&self, other: &Hop) -> bool {
        self.host == other.host && self.address.port() == other.address.port()
    }

    /// The path, where it is a socket of this machine.
    #[must_use]
    pub fn socket(&self) -> Option<&str> {
        match &self.host {
            ServerName::Socket(path) => Some(path),
            ServerName::Name(_) | ServerName::Ip(_) => None,
        }
    }

    /// Its address; a socket has none.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket().is_none().then(|| self.address.ip())
    }

    /// Where it is, in words: an address and port, or a socket.
    #[must_use]
    pub fn place(&self) -> String {
        match self.socket() {
            Some(_) => "a socket of this machine".to_owned(),
            None => self.address.to_string(),
        }
    }
}

/// How the hops were found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum By {
    /// MX records.
    Mx,
    /// The domain's own address, for want of MX records (RFC 5321 §5.1).
    AddressFallback,
    /// An address literal in the recipient's address.
    Literal,
    /// The operator's order for this very errand.
    Order,
    /// A route: for whom, and where it was written down.
    Route(String),
}

/// Servers to try, in this order, until one has answered.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How they were found.
    pub by: By,
    /// The servers; never empty.
    pub hops: Vec<Hop>,
    /// What is asked of TLS.
    pub tls: TlsPolicy,
    /// Whether the servers speak LMTP.
    pub lmtp: bool,
    /// The login there.
    pub login: Option<Login>,
    /// What is known for [`crate::security::decide`]; whoever makes the plan fills it in afterwards.
    pub evidence: Evidence,
    /// What was found of the domain's MTA-STS policy, for the TLS report; likewise.
    pub mta_sts: mtasts::Found,
    /// Servers that were left out because an enforced MTA-STS policy does not name them, for the TLS
    /// report; likewise.
    pub left_out: Vec<Hop>,
    /// Whence connections are made; see [`crate::source::Sources::depart`].
    pub departures: Departures,
    /// What was left out and why, in words.
    pub notes: Vec<String>,
}

impl Plan {
    /// What the connection to one of the servers must have, for a message with or without REQUIRETLS.
    ///
    /// # Errors
    /// Why that server may not be used.
    pub fn security(&self, hop: &Hop, require_tls: bool) -> Result<security::Decision, Failure> {
        self.judge(hop, require_tls).map_err(|refused| refused.failure)
    }

    /// The same, with the cause of a refusal.
    pub(crate) fn judge(
        &self,
        hop: &Hop,
        require_tls: bool,
    ) -> Result<security::Decision, security::Refused> {
        let asked = Asked {
            policy: self.tls,
            login: self.login.is_some(),
            require_tls,
        };
        security::judge(hop, asked, &self.evidence)
    }

    /// The plan in one line, for the journey.
    #[must_use]
    pub fn in_words(&self) -> String {
        let hops = self.hops.iter().map(|hop| {
            let preference = hop
                .preference
                .map(|p| format!(" (preference {p})"))
                .unwrap_or_default();
            format!("{} at {}{preference}", hop.host, hop.place())
        });
        format!("{}: {}", self.reason(), hops.collect::<Vec<_>>().join(", then "))
    }

    /// How the servers were found, what is asked of TLS, and what was left out.
    #[must_use]
    pub fn reason(&self) -> String {
        let by = match &self.by {
            By::Mx => "MX records".to_owned(),
            By::AddressFallback => "no MX records, so the domain's own address".to_owned(),
            By::Literal => "the address that the recipient's address names".to_owned(),
            By::Order => "the operator's order".to_owned(),
            By::Route(pattern) if self.lmtp => format!("the route for {pattern}, by LMTP"),
            By::Route(pattern) => format!("the route for {pattern}"),
        };
        let mut text = format!("{by}; {}", self.security_in_words());
        for note in &self.notes {
            text.push_str("; ");
            text.push_str(note);
        }
        text
    }
}

impl Plan {
    /// What is asked of TLS: once for all servers, where they do not differ.
    #[must_use]
    pub fn security_in_words(&self) -> String {
        let mut hosts: Vec<(&ServerName, String)> = Vec::new();
        for hop in &self.hops {
            if hosts.iter().all(|(host, _)| **host != hop.host) {
                let why = match self.security(hop, false) {
                    Ok(decision) => decision.why,
                    Err(failure) => format!("not to be used now ({})", failure.words),
                };
                hosts.push((&hop.host, why));
            }
        }
        match hosts.split_first() {
            None => self.tls.to_string(),
            Some(((_, why), others)) if others.iter().all(|(_, other)| other == why) => why.clone(),
            Some(_) => {
                let each = hosts.iter().map(|(host, why)| format!("{host}: {why}"));
                each.collect::<Vec<_>>().join("; ")
            }
        }
    }
}

/// The first half: which hosts, before their addresses are known.
#[derive(Clone, Debug)]
pub struct Hosts {
    by: By,
    hosts: Vec<Candidate>,
    tls: TlsPolicy,
    lmtp: bool,
    login: Option<Login>,
    notes: Vec<String>,
}

/// A server, before its addresses are known.
#[derive(Clone, Debug)]
struct Candidate {
    host: ServerName,
    preference: Option<u16>,
    port: u16,
}

impl Hosts {
    /// The names whose addresses are wanted.
    pub fn names(&self) -> impl Iterator<Item = &Domain> {
        self.hosts.iter().filter_map(|c| match &c.host {
            ServerName::Name(name) => Some(name),
            ServerName::Ip(_) | ServerName::Socket(_) => None,
        })
    }
}

/// The servers that a route names. `random` shuffles those of equal preference.
#[must_use]
pub fn hosts_by_route(route: &Route, targets: &[Target], random: &mut dyn FnMut(usize) -> usize) -> Hosts {
    let mut targets = targets.to_vec();
    shuffle(&mut targets, random);
    targets.sort_by_key(|target| target.preference);
    let several = targets.len() > 1;
    let candidates = targets.into_iter().map(|target| Candidate {
        host: target.host,
        preference: several.then_some(target.preference),
        port: target.port,
    });
    Hosts {
        by: By::Route(route.named()),
        hosts: candidates.collect(),
        tls: route.tls,
        lmtp: matches!(route.action, Action::Lmtp(_)),
        login: route.login.clone(),
        notes: Vec::new(),
    }
}

/// The hosts that the DNS names for the domain that a route stands for.
///
/// # Errors
/// What [`hosts_by_mx`] says, but never for good: a route is the operator's to correct.
pub fn hosts_by_mx_of(
    route: &Route,
    domain: &Domain,
    answer: Result<Vec<Mx>, DnsError>,
    own: &Own,
    random: &mut dyn FnMut(usize) -> usize,
) -> Result<Hosts, Failure> {
    let hosts = hosts_by_mx(domain, answer, own, random).map_err(|e| misled(&route.named(), e))?;
    Ok(Hosts {
        notes: [vec![format!("the mail exchangers of {domain}")], hosts.notes].concat(),
        by: By::Route(route.named()),
        tls: route.tls,
        login: route.login.clone(),
        ..hosts
    })
}

/// A setting of ours that leads nowhere is ours to correct; the sender's mail waits for it.
fn misled(route: &str, failure: Failure) -> Failure {
    if !failure.is_permanent() {
        return failure;
    }
    let status = EnhancedStatus::new(4, failure.status.subject, failure.status.detail);
    let words = format!("the route for {route}: {}; correct the route", failure.words);
    Failure::ours(451, status, words)
}

/// The host that an address literal names (RFC 5321 §4.1.3).
#[must_use]
pub fn hosts_by_literal(ip: IpAddr, own: &Own) -> Hosts {
    found(By::Literal, vec![(ServerName::Ip(ip), None)], own)
}

/// The server that the operator ordered for an errand.
///
/// # Errors
/// A temporary failure when the order names no server.
pub fn hosts_by_order(via: &queue::Via, own: &Own) -> Result<Hosts, Failure> {
    let host = ServerName::parse(&via.host).map_err(|e| {
        let words = format!("the operator ordered it to {via}: {e}");
        Failure::ours(451, EnhancedStatus::new(4, 4, 4), words)
    })?;
    let there = Own {
        port: via.port,
        ..own.clone()
    };
    Ok(found(By::Order, vec![(host, None)], &there))
}

fn found(by: By, hosts: Vec<(ServerName, Option<u16>)>, own: &Own) -> Hosts {
    let candidates = hosts.into_iter().map(|(host, preference)| Candidate {
        host,
        preference,
        port: own.port,
    });
    Hosts {
        by,
        hosts: candidates.collect(),
        tls: TlsPolicy::Opportunistic,
        lmtp: false,
        login: None,
        notes: Vec::new(),
    }
}

/// The hosts that the DNS names for a domain. `random` gives numbers below its argument, to shuffle
/// hosts of equal preference.
///
/// # Errors
/// A permanent failure when the domain takes no mail; a temporary one when the DNS could not say.
pub fn hosts_by_mx(
    domain: &Domain,
    answer: Result<Vec<Mx>, DnsError>,
    own: &Own,
    random: &mut dyn FnMut(usize) -> usize,
) -> Result<Hosts, Failure> {
    let records = answer.map_err(|e| dns_failure(domain, &e))?;
    if records.is_empty() {
        return Ok(found(
            By::AddressFallback,
            vec![(ServerName::Name(domain.clone()), None)],
            own,
        ));
    }
    let mut named: Vec<(u16, Domain)> = records
        .into_iter()
        .filter_map(|mx| mx.exchange.map(|host| (mx.preference, host)))
        .collect();
    // RFC 7505 §3: beside a null MX there must be no other; where there is, the other counts.
    if named.is_empty() {
        return Err(Failure::ours(
            556,
            EnhancedStatus::new(5, 1, 10),
            format!("{domain} has a null MX record: it takes no mail (RFC 7505)"),
        ));
    }
    shuffle(&mut named, random);
    named.sort_by_key(|(preference, _)| *preference);
    let notes = cut_loop(domain, &mut named, own)?;
    let left_out = named.len().saturating_sub(HOSTS_MAX);
    named.truncate(HOSTS_MAX);
    let hosts = named
        .into_iter()
        .map(|(preference, host)| (ServerName::Name(host), Some(preference)))
        .collect();
    let mut hosts = found(By::Mx, hosts, own);
    hosts.notes = notes;
    if left_out > 0 {
        hosts
            .notes
            .push(format!("{left_out} less preferred hosts left out"));
    }
    Ok(hosts)
}

/// Fisher and Yates; the sort behind it is stable, so equal preferences stay shuffled.
fn shuffle<T>(items: &mut [T], random: &mut dyn FnMut(usize) -> usize) {
    for i in (1..items.len()).rev() {
        items.swap(i, random(i + 1).min(i));
    }
}

/// RFC 5321 §5.1: where we are an exchanger ourselves, only hosts with a lower preference number than
/// ours may be tried, or mail would go in circles.
fn cut_loop(domain: &Domain, named: &mut Vec<(u16, Domain)>, own: &Own) -> Result<Vec<String>, Failure> {
    let Some((ours, name)) = named.iter().find(|(_, host)| own.names.contains(host)).cloned() else {
        return Ok(Vec::new());
    };
    named.retain(|(preference, _)| *preference < ours);
    if named.is_empty() {
        return Err(Failure::ours(
            550,
            EnhancedStatus::new(5, 4, 6),
            format!(
                "the MX record of {domain} names this server ({name}), but {domain} is not one of its domains: the mail would loop; add the domain here or correct its MX record"
            ),
        ));
    }
    Ok(vec![format!(
        "hosts with preference {ours} and above left out, because {name} is this server"
    )])
}

fn dns_failure(domain: &Domain, e: &DnsError) -> Failure {
    match e {
        DnsError::NoSuchName(_) => Failure::ours(
            550,
            EnhancedStatus::new(5, 1, 2),
            format!("the domain {domain} does not exist"),
        ),
        DnsError::Unavailable { .. } => Failure::ours(451, EnhancedStatus::new(4, 4, 3), e.to_string()),
    }
}

/// The second half: the hosts' addresses make it a plan.
///
/// # Errors
/// When no host has an address: permanent if that is certain, temporary if the DNS could not say. When
/// the way leads to this server itself.
pub fn plan(hosts: Hosts, book: &AddressBook, own: &Own) -> Result<Plan, Failure> {
    let mut notes = hosts.notes;
    let mut hops: Vec<Hop> = Vec::new();
    let mut trouble: Option<DnsError> = None;
    for candidate in &hosts.hosts {
        let host = &candidate.host;
        let ips = match host {
            ServerName::Ip(ip) => vec![*ip],
            ServerName::Socket(_) => vec![NO_ADDRESS.ip()],
            ServerName::Name(name) => match host_addresses(book.get(name), own.order) {
                Ok(ips) => ips,
                Err(None) => {
                    notes.push(format!("{name} has no address"));
                    continue;
                }
                Err(Some(e)) => {
                    notes.push(e.to_string());
                    trouble = Some(e);
                    continue;
                }
            },
        };
        for ip in ips {
            let address = SocketAddr::new(ip, candidate.port);
            let hop = Hop {
                host: host.clone(),
                address,
                preference: candidate.preference,
            };
            // Two names of one machine may differ in what is asked of TLS. They count as one address, and the
            // second is tried only where the first fails for its name's sake.
            let is_another = |h: &Hop| h.address != address;
            let others: BTreeSet<SocketAddr> =
                hops.iter().filter(|h| is_another(h)).map(|h| h.address).collect();
            if others.len() < ADDRESSES_MAX
                && !hops.iter().any(|h| h.host == hop.host && h.address == address)
            {
                hops.push(hop);
            }
        }
    }
    if hops.is_empty() {
        return Err(no_address(&hosts.by, &hosts.hosts, trouble));
    }
    notes.extend(cut_at_us(&hosts.by, &mut hops, own)?);
    Ok(Plan {
        by: hosts.by,
        hops,
        tls: hosts.tls,
        lmtp: hosts.lmtp,
        login: hosts.login,
        evidence: Evidence::default(),
        mta_sts: mtasts::Found::default(),
        left_out: Vec::new(),
        departures: Departures::default(),
        notes,
    })
}

/// Whoever connects to an address at which we listen ourselves gets us again: as where an MX record
/// names us (RFC 5321 §5.1), only hosts that are preferred to that one may be tried.
fn cut_at_us(by: &By, hops: &mut Vec<Hop>, own: &Own) -> Result<Option<String>, Failure> {
    let is_us = |hop: &&Hop| hop.socket().is_none() && own.listening.is_us(hop.address);
    let Some(us) = hops.iter().find(is_us).cloned() else {
        return Ok(None);
    };
    hops.retain(|hop| hop.preference < us.preference);
    if !hops.is_empty() {
        let preference = us.preference.unwrap_or(0);
        return Ok(Some(format!(
            "hosts with preference {preference} and above left out, because {} at {} is this server",
            us.host, us.address
        )));
    }
    let words = format!(
        "{} at {} is this server itself, but the recipient's domain is not one of its own: the mail would loop",
        us.host, us.address
    );
    let failure = Failure::ours(550, EnhancedStatus::new(5, 4, 6), words);
    Err(match by {
        By::Route(route) => misled(route, failure),
        By::Order => Failure {
            code: 451,
            status: EnhancedStatus::new(4, 4, 6),
            words: format!("{}; order another way: posthaste queue reroute", failure.words),
            ..failure
        },
        _ => Failure {
            words: format!(
                "{}; add the domain here or correct its DNS records",
                failure.words
            ),
            ..failure
        },
    })
}

fn no_address(by: &By, hosts: &[Candidate], trouble: Option<DnsError>) -> Failure {
    if let Some(e) = trouble {
        return Failure::ours(451, EnhancedStatus::new(4, 4, 3), e.to_string());
    }
    let names: Vec<String> = hosts.iter().map(|candidate| candidate.host.to_string()).collect();
    let names = names.join(", ");
    match by {
        // An order that leads nowhere is the operator's to correct; the sender's mail waits for it.
        By::Order => Failure::ours(
            451,
            EnhancedStatus::new(4, 4, 4),
            format!(
                "the operator ordered it to {names}, which has no address; order another way: posthaste queue reroute"
            ),
        ),
        By::AddressFallback => Failure::ours(
            550,
            EnhancedStatus::new(5, 1, 2),
            format!("{names} has neither MX nor address records: it takes no mail"),
        ),
        // A setting of ours that leads nowhere is ours to correct; the sender's mail waits for it.
        By::Route(pattern) => Failure::ours(
            451,
            EnhancedStatus::new(4, 4, 4),
            format!("the route for {pattern} names {names}, which has no address; correct the route"),
        ),
        _ => Failure::ours(
            550,
            EnhancedStatus::new(5, 4, 4),
            format!("the MX records name {names}, which have no address"),
        ),
    }
}

/// A host's addresses in the wanted order: the families take turns, so that a dead one is passed by
/// after one address (RFC 8305 §4). `Err(None)`: it has none. `Err(Some)`: could not find out.
fn host_addresses(found: Option<&Addresses>, order: AddressOrder) -> Result<Vec<IpAddr>, Option<DnsError>> {
    let Some(found) = found else { return Err(None) };
    let (use_v4, use_v6) = (order != AddressOrder::V6Only, order != AddressOrder::V4Only);
    let v4 = found.v4.iter().flatten().copied().map(IpAddr::V4);
    let v6 = found.v6.iter().flatten().copied().map(IpAddr::V6);
    let v4: Vec<IpAddr> = v4.filter(|_| use_v4).collect();
    let v6: Vec<IpAddr> = v6.filter(|_| use_v6).collect();
    let ips = match order {
        AddressOrder::V6First => in_turns(v6, v4),
        _ => in_turns(v4, v6),
    };
    if !ips.is_empty() {
        return Ok(ips);
    }
    let errors = [
        found.v4.as_ref().err().filter(|_| use_v4),
        found.v6.as_ref().err().filter(|_| use_v6),
    ];
    Err(errors.into_iter().flatten().find(|e| e.is_temporary()).cloned())
}

fn in_turns(first: Vec<IpAddr>, second: Vec<IpAddr>) -> Vec<IpAddr> {
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ips = Vec::new();
    loop {
        match (first.next(), second.next()) {
            (None, None) => return ips,
            (a, b) => ips.extend(a.into_iter().chain(b)),
        }
    }
}
