//! The names of the client's address, confirmed forwards (RFC 8601 §3, "iprev").
//!
//! Promises: a name is believed only when it resolves back to the address. At most
//! [`NAMES_MAX`] names are tried.

use dns::Resolver;
use mail::Domain;
use std::fmt;
use std::net::IpAddr;

/// Names of one address that are tried (RFC 8601 §3 advises a limit).
pub const NAMES_MAX: usize = 10;

/// A result of iprev (RFC 8601 §2.7.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IprevResult {
    /// The address has a name that resolves back to it.
    Pass,
    /// It has names, and none of them does.
    Fail,
    /// The DNS could not be asked; trying later can help.
    TempError,
    /// The address has no name.
    PermError,
}

impl IprevResult {
    /// The name of the result in header fields.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            IprevResult::Pass => "pass",
            IprevResult::Fail => "fail",
            IprevResult::TempError => "temperror",
            IprevResult::PermError => "permerror",
        }
    }
}

impl fmt::Display for IprevResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A result and why.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct IprevOutcome {
    /// The result.
    pub result: IprevResult,
    /// The client's address.
    pub ip: IpAddr,
    /// The first name that resolves back.
    pub name: Option<Domain>,
    /// Why the result is what it is, as one sentence without a full stop.
    pub because: String,
}

/// Asks for the names of an address, and whether one resolves back to it.
pub async fn check(resolver: &dyn Resolver, ip: IpAddr) -> IprevOutcome {
    let ip = ip.to_canonical();
    let outcome = |result, name, because| IprevOutcome {
        result,
        ip,
        name,
        because,
    };
    let names = match resolver.ptr(ip).await {
        Ok(answer) => answer.records,
        Err(error) if error.is_temporary() => {
            return outcome(IprevResult::TempError, None, error.to_string());
        }
        Err(_) => Vec::new(),
    };
    if names.is_empty() {
        let because = format!("{ip} has no name in the DNS");
        return outcome(IprevResult::PermError, None, because);
    }
    let mut trouble = None;
    for name in names.iter().take(NAMES_MAX) {
        match resolves_to(resolver, name, ip).await {
            Ok(true) => {
                let because = format!("{ip} is called {name}, and {name} has the address {ip}");
                return outcome(IprevResult::Pass, Some(name.clone()), because);
            }
            Ok(false) => {}
            Err(error) => trouble = Some(error),
        }
    }
    match trouble {
        Some(error) => outcome(IprevResult::TempError, None, error.to_string()),
        None => {
            let because = format!("{ip} is called {}, but that name has other addresses", names[0]);
            outcome(IprevResult::Fail, None, because)
        }
    }
}

/// Whether a name has this address; an error only when the DNS could not be asked.
pub(crate) async fn resolves_to(
    resolver: &dyn Resolver,
    name: &Domain,
    ip: IpAddr,
) -> Result<bool, dns::DnsError> {
    let found = match ip {
        IpAddr::V4(v4) => resolver.a(name).await.map(|a| a.records.contains(&v4)),
        IpAddr::V6(v6) => resolver.aaaa(name).await.map(|a| a.records.contains(&v6)),
    };
    match found {
        Err(error) if !error.is_temporary() => Ok(false),
        other => other,
    }
}
