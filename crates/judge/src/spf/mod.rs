//! Sender Policy Framework (RFC 7208): may this address send for this domain?
//!
//! Promises: the whole of `check_host()` with macros, modifiers and limits; each term that was
//! evaluated is kept as a step, with what the DNS said. Never: more than [`LOOKUPS_MAX`] terms that
//! ask the DNS, a type SPF question, a result other than temperror when the DNS could not be asked.

mod asking;
mod eval;
mod macros;
mod record;

use dns::Resolver;
use mail::{ReversePath, Timestamp};
use std::fmt;
use std::net::IpAddr;

/// Terms that ask the DNS, at most (RFC 7208 §4.6.4).
pub const LOOKUPS_MAX: u32 = 10;
/// Questions answered with "there is none", at most (RFC 7208 §4.6.4).
pub const VOID_LOOKUPS_MAX: u32 = 2;
/// Mail exchangers of one `mx` term, at most (RFC 7208 §4.6.4).
pub const MX_NAMES_MAX: usize = 10;
/// Names of the client's address that are looked at for `ptr` and `%{p}` (RFC 7208 §4.6.4).
pub const PTR_NAMES_MAX: usize = 10;
/// Octets of an explanation that are kept.
pub const EXPLANATION_OCTETS_MAX: usize = 400;

/// A result of SPF (RFC 7208 §2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SpfResult {
    /// Nothing is published, or the identity is no domain.
    None,
    /// The domain says nothing about the address.
    Neutral,
    /// The address may send for the domain.
    Pass,
    /// The address may not send for the domain.
    Fail,
    /// The address probably may not.
    SoftFail,
    /// The DNS could not be asked; trying later can help.
    TempError,
    /// What is published cannot be evaluated.
    PermError,
}

impl SpfResult {
    /// The name of the result in header fields.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SpfResult::None => "none",
            SpfResult::Neutral => "neutral",
            SpfResult::Pass => "pass",
            SpfResult::Fail => "fail",
            SpfResult::SoftFail => "softfail",
            SpfResult::TempError => "temperror",
            SpfResult::PermError => "permerror",
        }
    }
}

impl fmt::Display for SpfResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which identity was checked (RFC 7208 §2.3, §2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// The reverse-path.
    MailFrom,
    /// The HELO name; used for the null reverse-path.
    Helo,
}

impl Identity {
    /// The name of the identity in header fields (RFC 7208 §9.1).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Identity::MailFrom => "mailfrom",
            Identity::Helo => "helo",
        }
    }
}

/// What is checked.
#[derive(Clone, Copy, Debug)]
pub struct SpfQuery<'a> {
    /// The client's address. An IPv4 address mapped into IPv6 is taken as IPv4 (RFC 7208 §5).
    pub ip: IpAddr,
    /// The name that the client gave in HELO or EHLO.
    pub helo: &'a str,
    /// The reverse-path without brackets; empty for the null path, which checks the HELO name.
    pub mail_from: &'a str,
    /// Our own host name, for `%{r}`.
    pub receiver: &'a str,
    /// The time now, for `%{t}`.
    pub now: Timestamp,
}

/// One term that was evaluated.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct SpfStep {
    /// How many includes deep; 0 is the domain itself.
    pub depth: u32,
    /// The domain whose record holds the term.
    pub domain: String,
    /// The term as it is written, or `record` for the finding of the record.
    pub term: String,
    /// What was asked and what the DNS said, in words.
    pub dns: Vec<String>,
    /// Whether a mechanism matched; `None` for everything else.
    pub matched: Option<bool>,
    /// What came of it, in words.
    pub note: String,
}

/// The term that gave the result.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct SpfDecision {
    /// The domain whose record holds it.
    pub domain: String,
    /// The term as it is written.
    pub term: String,
}

/// A result and all that led to it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct SpfOutcome {
    /// The result.
    pub result: SpfResult,
    /// Which identity was checked.
    pub identity: Identity,
    /// The identity in full: `local-part@domain`.
    pub sender: String,
    /// The domain that was checked, in lower case.
    pub domain: String,
    /// The client's address.
    pub ip: IpAddr,
    /// The HELO name.
    pub helo: String,
    /// The mechanism that matched, if one did.
    pub decided_by: Option<SpfDecision>,
    /// What the domain's owner says about a `fail` (`exp=`), printable ASCII, cut at
    /// [`EXPLANATION_OCTETS_MAX`].
    pub explanation: Option<String>,
    /// For none, temperror and permerror: what stood in the way.
    pub problem: Option<String>,
    /// Terms that asked the DNS.
    pub lookups: u32,
    /// Questions that were answered with "there is none".
    pub void_lookups: u32,
    /// Every term that was looked at, in order.
    pub steps: Vec<SpfStep>,
}

/// Checks the identity of a transaction: the reverse-path or, when that is null, the HELO name.
pub async fn check(resolver: &dyn Resolver, query: &SpfQuery<'_>) -> SpfOutcome {
    eval::check(resolver, query).await
}

/// The reverse-path in the form that [`SpfQuery::mail_from`] takes.
#[must_use]
pub fn mail_from_text(reverse_path: &ReversePath) -> String {
    reverse_path
        .address()
        .map(ToString::to_string)
        .unwrap_or_default()
}

impl SpfOutcome {
    /// Why the result is what it is, as one sentence without a full stop.
    #[must_use]
    pub fn because(&self) -> String {
        let ip = self.ip;
        let domain = crate::words::printable(&self.domain);
        let by = match &self.decided_by {
            Some(d) if d.domain.eq_ignore_ascii_case(&self.domain) => format!(" ({})", d.term),
            Some(d) => format!(" ({} in the record of {})", d.term, d.domain),
            None => String::new(),
        };
        let by = crate::words::printable(&by);
        let problem = || crate::words::printable(self.problem.as_deref().unwrap_or("no reason is known"));
        match self.result {
            SpfResult::Pass => format!("{domain} lets {ip} send its mail{by}"),
            SpfResult::Fail => format!("{domain} does not let {ip} send its mail{by}"),
            SpfResult::SoftFail => format!("{domain} says that {ip} probably may not send its mail{by}"),
            SpfResult::Neutral => format!("{domain} says nothing about {ip}{by}"),
            SpfResult::None | SpfResult::TempError | SpfResult::PermError => problem(),
        }
    }

    /// The whole way to the result, in lines for people.
    #[must_use]
    pub fn explain(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "SPF of {} ({} identity) for client {}: {}",
            crate::words::printable(&self.sender),
            self.identity.as_str(),
            self.ip,
            self.result
        )];
        for step in &self.steps {
            let indent = "  ".repeat(step.depth as usize + 1);
            lines.push(crate::words::printable(&format!(
                "{indent}{}: {}: {}",
                step.domain, step.term, step.note
            )));
            for answer in &step.dns {
                lines.push(crate::words::printable(&format!("{indent}  DNS: {answer}")));
            }
        }
        lines.push(format!("  {} because {}", self.result, self.because()));
        if let Some(explanation) = &self.explanation {
            lines.push(format!("  the domain says: {explanation}"));
        }
        lines.push(format!(
            "  {} of {LOOKUPS_MAX} lookups, {} of {VOID_LOOKUPS_MAX} void lookups",
            self.lookups, self.void_lookups
        ));
        lines
    }
}
