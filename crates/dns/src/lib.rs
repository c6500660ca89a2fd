//! The questions that mail asks of the DNS, behind one trait.
//!
//! Promises: every answer tells apart "there is none" (final) from "could not find out" (try later),
//! because the first may bounce a message and the second never may.

use futures_util::future::BoxFuture;
use mail::Domain;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What DNSSEC says of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub enum Dnssec {
    /// Validated.
    Secure,
    /// Not signed, or not checked.
    Insecure,
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
}
