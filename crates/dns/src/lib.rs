//! The questions that mail asks of the DNS, behind one trait.
//!
//! Promises: every answer tells apart "there is none" (final) from "could not find out" (try later),
//! because the first may bounce a message and the second never may.

pub mod hickory;
pub mod name;
pub mod observe;
pub mod table;
mod tlsa;

pub use name::{Name, NotAName};
pub use tlsa::{Tlsa, tlsa_name};

use futures_util::future::BoxFuture;
use mail::Domain;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What DNSSEC says of an answer. There is no third value for one that fails validation (bogus): that
/// is [`DnsError::Unavailable`], because whoever can forge answers must not be able to take any away
/// (RFC 7672 §2.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub enum Dnssec {
    /// Validated, every alias on the way to it included.
    Secure,
    /// Proved not to be signed, or not checked.
    Insecure,
}

impl Dnssec {
    /// Whether it was validated.
    #[must_use]
    pub fn is_secure(self) -> bool {
        self == Dnssec::Secure
    }
}

/// Records and what is known about them. An empty list is "no such records" (NODATA).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer<T> {
    /// The records, in the order of the answer.
    pub records: Vec<T>,
    /// How long they may be kept, in seconds.
    pub ttl_secs: u32,
    /// What DNSSEC says.
    pub dnssec: Dnssec,
    /// The name that has the records, when the one asked about is an alias (CNAME) that leads there.
    pub alias_of: Option<Name>,
}

impl<T> Answer<T> {
    /// The same answer with each record changed.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Answer<U> {
        Answer {
            records: self.records.into_iter().map(change).collect(),
            ttl_secs: self.ttl_secs,
            dnssec: self.dnssec,
            alias_of: self.alias_of,
        }
    }

    /// The same answer with some records left out.
    pub fn filter_map<U>(self, change: impl FnMut(T) -> Option<U>) -> Answer<U> {
        Answer {
            records: self.records.into_iter().filter_map(change).collect(),
            ttl_secs: self.ttl_secs,
            dnssec: self.dnssec,
            alias_of: self.alias_of,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The name does not exist (NXDOMAIN). Final.
    #[error("the name {0} does not exist in the DNS")]
    NoSuchName(String),
    /// Could not find out: time-out, SERVFAIL, refused, bogus. Never final.
    #[error("the DNS could not be asked about {name}: {reason}")]
    Unavailable {
        /// What was asked about.
        name: String,
        /// What went wrong, for people.
        reason: String,
    },
}

impl DnsError {
    /// Whether trying again later can help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, DnsError::Unavailable { .. })
    }
}

/// A mail exchanger. `exchange` is `None` for the null MX (RFC 7505).
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Mx {
    /// Lower is asked first (RFC 5321 §5.1).
    pub preference: u16,
    /// The host; `None` stands for the root, which means "no mail here".
    pub exchange: Option<Domain>,
}

/// A mail exchanger whose name need not be a host name.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct NamedMx {
    /// Lower is asked first (RFC 5321 §5.1).
    pub preference: u16,
    /// The name; `None` stands for the root.
    pub exchange: Option<Name>,
}

impl From<Mx> for NamedMx {
    fn from(mx: Mx) -> Self {
        Self {
            preference: mx.preference,
            exchange: mx.exchange.as_ref().map(Name::from),
        }
    }
}

impl NamedMx {
    /// The same with a host name; `None` when the exchanger's name is none.
    #[must_use]
    pub fn to_mx(&self) -> Option<Mx> {
        let exchange = match &self.exchange {
            Some(name) => Some(name.to_domain()?),
            None => None,
        };
        Some(Mx {
            preference: self.preference,
            exchange,
        })
    }
}

/// The exchangers that can be hosts. Records of which none can be are not "no records": the domain's own
/// address does not stand in for them (RFC 5321 §5.1).
fn usable(name: &Domain, answer: Answer<Option<Mx>>) -> Result<Mx> {
    let has_records = !answer.records.is_empty();
    let answer = answer.filter_map(|mx| mx);
    if has_records && answer.records.is_empty() {
        return Err(DnsError::Unavailable {
            name: name.to_string(),
            reason: "its MX records name nothing that can be a host".to_owned(),
        });
    }
    Ok(answer)
}

/// An answer to one question.
pub type Result<T> = std::result::Result<Answer<T>, DnsError>;

/// Asks the DNS. CNAMEs are followed. One implementation asks real servers, another is a table.
pub trait Resolver: Send + Sync {
    /// Mail exchangers, unsorted.
    fn mx<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Mx>>;
    /// Texts: each record's strings joined without a space (RFC 7208 §3.3).
    fn txt<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>>>;
    /// IPv4 addresses.
    fn a<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Ipv4Addr>>;
    /// IPv6 addresses.
    fn aaaa<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Ipv6Addr>>;
    /// Names of an address (reverse lookup).
    fn ptr(&self, ip: IpAddr) -> BoxFuture<'_, Result<Domain>>;
    /// What a service's certificate must be (RFC 6698); [`tlsa_name`] makes the name.
    fn tlsa<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Tlsa>>;

    // The same questions of names that need not be host names: what SPF macros expand to
    // (RFC 7208 §7). A resolver that knows only host names answers that there is no such name.

    /// Like [`Resolver::mx`], of any name, and with exchangers that have any name.
    fn mx_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<NamedMx>> {
        Box::pin(async move {
            self.mx(&hostname(name)?)
                .await
                .map(|answer| answer.map(NamedMx::from))
        })
    }
    /// Like [`Resolver::txt`], of any name.
    fn txt_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move { self.txt(&hostname(name)?).await })
    }
    /// Like [`Resolver::a`], of any name.
    fn a_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Ipv4Addr>> {
        Box::pin(async move { self.a(&hostname(name)?).await })
    }
    /// Like [`Resolver::aaaa`], of any name.
    fn aaaa_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Ipv6Addr>> {
        Box::pin(async move { self.aaaa(&hostname(name)?).await })
    }
}

fn hostname(name: &Name) -> std::result::Result<Domain, DnsError> {
    name.to_domain()
        .ok_or_else(|| DnsError::NoSuchName(name.to_string()))
}

/// The name under `in-addr.arpa` or `ip6.arpa` at which an address's names are kept
/// (RFC 1035 §3.5, RFC 3596 §2.5).
#[must_use]
pub fn reverse_name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(_) => format!("{}.in-addr.arpa", reverse_labels(ip)),
        IpAddr::V6(_) => format!("{}.ip6.arpa", reverse_labels(ip)),
    }
}

/// The octets (v4) or nibbles (v6) of an address in reverse, dotted: what `in-addr.arpa`,
/// `ip6.arpa` and DNS lists (RFC 5782 §2.1, §2.4) put before their zone.
#[must_use]
pub fn reverse_labels(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        IpAddr::V6(v6) => {
            let nibbles: Vec<String> = v6
                .octets()
                .iter()
                .rev()
                .flat_map(|o| [format!("{:x}", o & 15), format!("{:x}", o >> 4)])
                .collect();
            nibbles.join(".")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names() {
        assert_eq!(
            reverse_name("192.0.2.5".parse().unwrap()),
            "5.2.0.192.in-addr.arpa"
        );
        assert_eq!(
            reverse_name("2001:db8::567:89ab".parse().unwrap()),
            "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
        );
    }
}
