//! DMARC (RFC 9989, and RFC 7489 before it): does the author's domain vouch for the message, and
//! what does its owner ask for when it does not?
//!
//! Promises: the policy and the organisational domains are found by the DNS tree walk of
//! RFC 9989 §4.10, at most [`WALK_QUERIES_MAX`] questions a walk and each name asked once; every
//! identifier is kept with the reason why it counts or not. A message with no usable author
//! domain, or more than one, gives permerror: which policy would hold is for nobody to say.
//! Never: a fail when the DNS could not be asked for what would decide it.

mod author;
mod eval;
mod record;
mod walk;

pub use author::{AuthorProblem, author_domain};
pub use eval::evaluate;
pub use record::{Alignment, Psd, Record};

use mail::Domain;
use std::fmt;

/// Questions of one tree walk at most (RFC 9989 §4.10).
pub const WALK_QUERIES_MAX: usize = 8;

/// A result of DMARC (RFC 9989 §4.1, RFC 7489 §11.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DmarcResult {
    /// The author's domain publishes no policy.
    None,
    /// An authenticated identifier is aligned with the author's domain.
    Pass,
    /// None is.
    Fail,
    /// The DNS could not be asked for what decides; trying later can help.
    TempError,
    /// The message has no single author domain, or the record cannot be used.
    PermError,
}

impl DmarcResult {
    /// The name of the result in header fields.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            DmarcResult::None => "none",
            DmarcResult::Pass => "pass",
            DmarcResult::Fail => "fail",
            DmarcResult::TempError => "temperror",
            DmarcResult::PermError => "permerror",
        }
    }
}

impl fmt::Display for DmarcResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the owner of a domain asks receivers to do with mail that fails (`p=`, `sp=`, `np=`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Nothing.
    None,
    /// Treat it as suspicious.
    Quarantine,
    /// Refuse it.
    Reject,
}

impl Request {
    /// The word in the record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Request::None => "none",
            Request::Quarantine => "quarantine",
            Request::Reject => "reject",
        }
    }

    /// One level milder: what `t=y` turns a request into (RFC 9989 §4.7).
    #[must_use]
    pub const fn milder(self) -> Self {
        match self {
            Request::None | Request::Quarantine => Request::None,
            Request::Reject => Request::Quarantine,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where an identifier comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mechanism {
    /// The domain that SPF checked.
    Spf,
    /// The signing domain of a DKIM signature.
    Dkim,
}

/// One identifier and what it is worth.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct IdentifierOutcome {
    /// Where it comes from.
    pub mechanism: Mechanism,
    /// The domain.
    pub domain: String,
    /// The result of its own check: `pass`, `fail`, `temperror`…
    pub authenticated: String,
    /// Whether the domain is aligned with the author's; `None` when it was not needed to know.
    pub aligned: Option<bool>,
    /// Why, in words.
    pub because: String,
}

/// A result and all that led to it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct DmarcOutcome {
    /// The result.
    pub result: DmarcResult,
    /// The domain of the From field.
    pub author_domain: Option<Domain>,
    /// Why there is no single one.
    pub author_problem: Option<AuthorProblem>,
    /// The organisational domain of the author's domain, when it was needed.
    pub organizational_domain: Option<Domain>,
    /// Where the policy was found.
    pub policy_domain: Option<Domain>,
    /// The record, read.
    pub record: Option<Record>,
    /// What the record asks for this author domain, before `t=`.
    pub published: Option<Request>,
    /// What is to be done if the message fails, after `t=`.
    pub request: Option<Request>,
    /// Which tag the request was taken from: `p`, `sp` or `np`.
    pub request_tag: Option<&'static str>,
    /// Each identifier and what it is worth.
    pub identifiers: Vec<IdentifierOutcome>,
    /// Why the result is what it is, as one sentence without a full stop.
    pub because: String,
    /// What was done, in words and in order.
    pub steps: Vec<String>,
}

impl DmarcOutcome {
    /// The whole way to the result, in lines for people.
    #[must_use]
    pub fn explain(&self) -> Vec<String> {
        let author = self
            .author_domain
            .as_ref()
            .map_or("no single author domain", Domain::as_str);
        let mut lines = vec![format!("DMARC of {author}: {}", self.result)];
        lines.extend(
            self.steps
                .iter()
                .map(|s| format!("  {}", crate::words::printable(s))),
        );
        lines.extend(
            self.identifiers
                .iter()
                .map(|i| format!("  {}", crate::words::printable(&i.because))),
        );
        lines.push(format!(
            "  {} because {}",
            self.result,
            crate::words::printable(&self.because)
        ));
        lines
    }
}
