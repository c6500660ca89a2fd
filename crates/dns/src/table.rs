//! A resolver that answers from a table: for tests, and for programs that bring their own DNS.
//!
//! Promises: answers like a server that is authoritative for everything. A name that is in the
//! table, or has names below it, exists; every other does not; a name told to fail is unavailable.
//! CNAMEs are followed, at most [`CNAMES_MAX`] of them. Answers are insecure but in the zones that were
//! said to be signed. Never: any I/O.

use crate::{Answer, DnsError, Dnssec, Mx, Name, NamedMx, Resolver, Result, Tlsa, reverse_name};
use futures_util::future::{BoxFuture, ready};
use mail::Domain;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many CNAMEs are followed for one question; more is "could not find out".
pub const CNAMES_MAX: usize = 16;
/// The time to live of every answer, in seconds.
pub const TTL_SECS: u32 = 300;

#[derive(Clone, Debug, Default)]
struct Node {
    mx: Vec<NamedMx>,
    txt: Vec<Vec<u8>>,
    a: Vec<Ipv4Addr>,
    aaaa: Vec<Ipv6Addr>,
    ptr: Vec<Domain>,
    tlsa: Vec<Tlsa>,
    cname: Option<String>,
}

/// A table of records. Built with its `with_…` methods; names are dotted and case does not matter.
#[derive(Clone, Debug, Default)]
pub struct TableResolver {
    nodes: BTreeMap<String, Node>,
    failing: BTreeMap<String, String>,
    /// Zones whose answers are secure.
    signed: BTreeSet<String>,
    parents: BTreeSet<String>,
}

fn key(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

impl TableResolver {
    /// An empty table: no name exists.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn node(&mut self, name: &str) -> &mut Node {
        let key = key(name);
        let mut rest = key.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            self.parents.insert(parent.to_owned());
            rest = parent;
        }
        self.nodes.entry(key).or_default()
    }

    /// Adds a text, in one piece.
    #[must_use]
    pub fn with_txt(mut self, name: &str, text: impl AsRef<[u8]>) -> Self {
        self.node(name).txt.push(text.as_ref().to_vec());
        self
    }

    /// Adds an address, v4 or v6.
    #[must_use]
    pub fn with_address(mut self, name: &str, ip: impl Into<IpAddr>) -> Self {
        match ip.into() {
            IpAddr::V4(v4) => self.node(name).a.push(v4),
            IpAddr::V6(v6) => self.node(name).aaaa.push(v6),
        }
        self
    }

    /// Adds a mail exchanger; `None` is the null MX (RFC 7505).
    #[must_use]
    pub fn with_mx(mut self, name: &str, preference: u16, exchange: Option<Domain>) -> Self {
        let mx = Mx { preference, exchange };
        self.node(name).mx.push(mx.into());
        self
    }

    /// Adds a mail exchanger whose name need not be a host name.
    #[must_use]
    pub fn with_named_mx(mut self, name: &str, mx: NamedMx) -> Self {
        self.node(name).mx.push(mx);
        self
    }

    /// Adds a name for an address.
    #[must_use]
    pub fn with_ptr(mut self, ip: impl Into<IpAddr>, name: Domain) -> Self {
        self.node(&reverse_name(ip.into())).ptr.push(name);
        self
    }

    /// Adds a name under a reverse name that is given in full (`1.2.0.192.in-addr.arpa`).
    #[must_use]
    pub fn with_ptr_name(mut self, reverse_name: &str, name: Domain) -> Self {
        self.node(reverse_name).ptr.push(name);
        self
    }

    /// Adds a TLSA record; the name in full (`_25._tcp.mx.example.com`).
    #[must_use]
    pub fn with_tlsa(mut self, name: &str, record: Tlsa) -> Self {
        self.node(name).tlsa.push(record);
        self
    }

    /// Makes the answers about this name and all below it secure.
    #[must_use]
    pub fn with_signed_zone(mut self, name: &str) -> Self {
        self.signed.insert(key(name));
        self
    }

    /// Makes every question about this name fail validation.
    #[must_use]
    pub fn with_bogus(self, name: &str) -> Self {
        self.with_failure(name, "its DNSSEC signatures do not verify")
    }

    fn is_signed(&self, name: &str) -> bool {
        let mut above = std::iter::successors(Some(name), |n| n.split_once('.').map(|(_, up)| up));
        above.any(|n| self.signed.contains(n))
    }

    /// Makes `name` another name of `target`.
    #[must_use]
    pub fn with_cname(mut self, name: &str, target: &str) -> Self {
        self.node(name).cname = Some(key(target));
        self
    }

    /// Makes a name exist without records.
    #[must_use]
    pub fn with_empty(mut self, name: &str) -> Self {
        self.node(name);
        self
    }

    /// Makes every question about this name time out.
    #[must_use]
    pub fn with_timeout(self, name: &str) -> Self {
        self.with_failure(name, "no answer in time")
    }

    /// Makes every question about this name fail for a passing reason.
    #[must_use]
    pub fn with_failure(mut self, name: &str, reason: &str) -> Self {
        self.failing.insert(key(name), reason.to_owned());
        self
    }

    fn ask<T: Clone>(&self, name: &str, take: impl Fn(&Node) -> &Vec<T>) -> Result<T> {
        let unavailable = |reason: &str| DnsError::Unavailable {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        let mut at = key(name);
        let mut dnssec = Dnssec::Secure;
        for turn in 0..=CNAMES_MAX {
            if !self.is_signed(&at) {
                dnssec = Dnssec::Insecure;
            }
            if let Some(reason) = self.failing.get(&at) {
                return Err(unavailable(reason));
            }
            let records = match self.nodes.get(&at) {
                Some(Node {
                    cname: Some(target), ..
                }) => {
                    at.clone_from(target);
                    continue;
                }
                Some(node) => take(node).clone(),
                None if self.parents.contains(&at) => Vec::new(),
                None => return Err(DnsError::NoSuchName(name.to_owned())),
            };
            return Ok(Answer {
                records,
                ttl_secs: TTL_SECS,
                dnssec,
                alias_of: Name::parse(&at).ok().filter(|_| turn > 0),
            });
        }
        Err(unavailable("too many CNAMEs follow each other"))
    }
}

impl Resolver for TableResolver {
    fn mx<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Mx>> {
        let answer = self.ask(name.as_str(), |n| &n.mx);
        let answer = answer.map(|a| a.filter_map(|mx| Some(mx.to_mx())));
        Box::pin(ready(answer.and_then(|a| crate::usable(name, a))))
    }
    fn txt<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(ready(self.ask(name.as_str(), |n| &n.txt)))
    }
    fn a<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Ipv4Addr>> {
        Box::pin(ready(self.ask(name.as_str(), |n| &n.a)))
    }
    fn aaaa<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Ipv6Addr>> {
        Box::pin(ready(self.ask(name.as_str(), |n| &n.aaaa)))
    }
    fn ptr(&self, ip: IpAddr) -> BoxFuture<'_, Result<Domain>> {
        Box::pin(ready(self.ask(&reverse_name(ip), |n| &n.ptr)))
    }
    fn tlsa<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Tlsa>> {
        Box::pin(ready(self.ask(name.as_str(), |n| &n.tlsa)))
    }
    fn mx_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<NamedMx>> {
        Box::pin(ready(self.ask(name.as_str(), |n| &n.mx)))
    }
    fn txt_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(ready(self.ask(name.as_str(), |n| &n.txt)))
    }
    fn a_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Ipv4Addr>> {
        Box::pin(ready(self.ask(name.as_str(), |n| &n.a)))
    }
    fn aaaa_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Ipv6Addr>> {
        Box::pin(ready(self.ask(name.as_str(), |n| &n.aaaa)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn now<T>(future: BoxFuture<'_, Result<T>>) -> Result<T> {
        future.now_or_never().expect("a table answers at once")
    }

    /// A name that the DNS can hold and no host can have.
    fn odd_mx() -> NamedMx {
        NamedMx {
            preference: 10,
            exchange: Name::parse("-mx-.example").ok(),
        }
    }

    #[test]
    fn none_nothing_and_unknown_stay_apart() {
        let ip: Ipv4Addr = "192.0.2.1".parse().unwrap();
        let d = |s: &str| Domain::parse(s).unwrap();
        let table = TableResolver::new()
            .with_address("Host.example.com", ip)
            .with_cname("alias.example.com", "host.example.com")
            .with_cname("loop.example.com", "loop.example.com")
            .with_mx("null.example", 0, None)
            .with_named_mx("odd.example", odd_mx())
            .with_named_mx("half.example", odd_mx())
            .with_mx("half.example", 20, Some(d("mx.example")))
            .with_ptr(ip, d("host.example.com"))
            .with_timeout("slow.example.com");
        assert_eq!(now(table.a(&d("host.example.com"))).unwrap().records, vec![ip]);
        assert_eq!(now(table.a(&d("alias.example.com"))).unwrap().records, vec![ip]);
        assert!(now(table.txt(&d("host.example.com"))).unwrap().records.is_empty());
        assert!(
            now(table.txt(&d("example.com"))).unwrap().records.is_empty(),
            "an empty name between"
        );
        assert_eq!(
            now(table.a(&d("no.example.com"))),
            Err(DnsError::NoSuchName("no.example.com".into()))
        );
        assert!(now(table.a(&d("slow.example.com"))).unwrap_err().is_temporary());
        assert!(now(table.a(&d("loop.example.com"))).unwrap_err().is_temporary());
        assert_eq!(
            now(table.mx(&d("null.example"))).unwrap().records[0].exchange,
            None
        );
        // RFC 5321 §5.1: what cannot be used is not what is not there.
        assert!(now(table.mx(&d("odd.example"))).unwrap_err().is_temporary());
        assert_eq!(now(table.mx(&d("half.example"))).unwrap().records.len(), 1);
        assert_eq!(
            now(table.ptr(ip.into())).unwrap().records,
            vec![d("host.example.com")]
        );
    }
    #[test]
    fn signed_zones_and_what_aliases_make_of_them() {
        let ip: Ipv4Addr = "192.0.2.1".parse().unwrap();
        let d = |s: &str| Domain::parse(s).unwrap();
        let record = Tlsa {
            usage: 3,
            selector: 1,
            matching: 1,
            data: vec![1; 32],
        };
        let table = TableResolver::new()
            .with_signed_zone("example.com")
            .with_address("mx.example.com", ip)
            .with_address("mx.example.net", ip)
            .with_cname("here.example.com", "mx.example.com")
            .with_cname("away.example.com", "mx.example.net")
            .with_cname("back.example.net", "mx.example.com")
            .with_tlsa("_25._tcp.mx.example.com", record.clone())
            .with_bogus("_25._tcp.bad.example.com");
        for (name, secure, alias_of) in [
            ("mx.example.com", true, None),
            ("mx.example.net", false, None),
            ("here.example.com", true, Some("mx.example.com")),
            ("away.example.com", false, Some("mx.example.net")),
            ("back.example.net", false, Some("mx.example.com")),
        ] {
            let answer = now(table.a(&d(name))).unwrap();
            assert_eq!(answer.dnssec.is_secure(), secure, "{name}");
            assert_eq!(answer.alias_of.as_ref().map(Name::as_str), alias_of, "{name}");
        }
        let name = crate::tlsa_name(25, &d("mx.example.com")).unwrap();
        assert_eq!(now(table.tlsa(&name)).unwrap().records, [record]);
        let bogus = crate::tlsa_name(25, &d("bad.example.com")).unwrap();
        assert!(now(table.tlsa(&bogus)).unwrap_err().is_temporary());
    }
}
