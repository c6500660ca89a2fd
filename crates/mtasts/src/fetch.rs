//! How a policy is fetched; handed in, so that tests own the network.

use crate::policy::PolicyFault;
use futures_util::future::BoxFuture;
use mail::Domain;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The label of the host that serves a domain's policy.
pub const POLICY_HOST_LABEL: &str = "mta-sts";
/// Where the policy stands there (RFC 8461 §3.3).
pub const POLICY_PATH: &str = "/.well-known/mta-sts.txt";
/// Octets of a fault's words at most.
pub const WORDS_OCTETS_MAX: usize = 300;

/// Of what kind a fault is. The words are those of TLS reports (RFC 8460 §4.3.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FaultKind {
    /// There was no answer, or another than a policy.
    #[serde(rename = "sts-policy-fetch-error")]
    Fetch,
    /// The policy host's certificate did not verify.
    #[serde(rename = "sts-webpki-invalid")]
    Certificate,
    /// What came is no policy.
    #[serde(rename = "sts-policy-invalid")]
    Policy,
}

impl FaultKind {
    /// The result type of a TLS report (RFC 8460 §4.3.2.2).
    #[must_use]
    pub fn result_type(self) -> &'static str {
        match self {
            FaultKind::Fetch => "sts-policy-fetch-error",
            FaultKind::Certificate => "sts-webpki-invalid",
            FaultKind::Policy => "sts-policy-invalid",
        }
    }
}

/// Why there is no policy where a record promised one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{words}")]
pub struct Fault {
    /// Of what kind.
    pub kind: FaultKind,
    /// What happened, in words; [`WORDS_OCTETS_MAX`] at most.
    pub words: String,
}

impl Fault {
    /// There was no answer, or another than a policy.
    #[must_use]
    pub fn fetch(words: impl fmt::Display) -> Self {
        Self::new(FaultKind::Fetch, words.to_string())
    }

    /// The policy host's certificate did not verify.
    #[must_use]
    pub fn certificate(words: impl fmt::Display) -> Self {
        Self::new(FaultKind::Certificate, words.to_string())
    }

    fn new(kind: FaultKind, mut words: String) -> Self {
        words.truncate(words.floor_char_boundary(WORDS_OCTETS_MAX));
        Self { kind, words }
    }
}

impl From<PolicyFault> for Fault {
    fn from(fault: PolicyFault) -> Self {
        Self::new(FaultKind::Policy, format!("what came is no policy: {fault}"))
    }
}

/// Fetches policies.
pub trait Fetch: Send + Sync {
    /// The body of a domain's policy: by HTTPS from [`POLICY_HOST_LABEL`] below the domain, at
    /// [`POLICY_PATH`], without following redirects, with a certificate that verifies for the policy
    /// host, of the type `text/plain`, of [`crate::policy::BODY_OCTETS_MAX`] at most, within a minute
    /// (RFC 8461 §3.3).
    fn fetch<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>, Fault>>;
}
