//! What one conversation came to: under which policy, at which server, and why it failed.

use crate::clean;
use mail::Domain;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// Lines of a policy at most that are kept.
const LINES_MAX: usize = 50;

/// What kind of policy a domain has (RFC 8460 §4.4, policy-type).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum PolicyType {
    /// DANE (RFC 7672).
    Tlsa,
    /// MTA-STS (RFC 8461).
    Sts,
    /// Neither.
    NoPolicyFound,
    /// One that we don't know, as another server named it.
    Other(String),
}

impl PolicyType {
    /// The word of the RFC.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            PolicyType::Tlsa => "tlsa",
            PolicyType::Sts => "sts",
            PolicyType::NoPolicyFound => "no-policy-found",
            PolicyType::Other(word) => word,
        }
    }
}

impl From<String> for PolicyType {
    fn from(word: String) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "tlsa" => PolicyType::Tlsa,
            "sts" => PolicyType::Sts,
            "no-policy-found" => PolicyType::NoPolicyFound,
            _ => PolicyType::Other(clean(&word)),
        }
    }
}

impl From<PolicyType> for String {
    fn from(kind: PolicyType) -> Self {
        kind.as_str().to_owned()
    }
}

/// Why TLS failed (RFC 8460 §4.3).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ResultType {
    /// The server offers no STARTTLS, or refuses it.
    StarttlsNotSupported,
    /// The certificate was issued for another name.
    CertificateHostMismatch,
    /// The certificate has expired.
    CertificateExpired,
    /// Nobody whom we believe has issued the certificate.
    CertificateNotTrusted,
    /// The handshake failed for another reason.
    ValidationFailure,
    /// The TLSA records are no use, or the certificate is none of theirs.
    TlsaInvalid,
    /// No DNSSEC-valid answer could be had.
    DnssecInvalid,
    /// DANE is a must for the sender, and the domain has none.
    DaneRequired,
    /// The MTA-STS policy could not be fetched.
    StsPolicyFetchError,
    /// The MTA-STS policy cannot be understood.
    StsPolicyInvalid,
    /// The certificate of the host that serves the MTA-STS policy is not valid.
    StsWebpkiInvalid,
    /// One that we don't know, as another server named it.
    Other(String),
}

/// Every reason that the RFC names, with its word.
const RESULT_TYPES: [(ResultType, &str); 11] = [
    (ResultType::StarttlsNotSupported, "starttls-not-supported"),
    (ResultType::CertificateHostMismatch, "certificate-host-mismatch"),
    (ResultType::CertificateExpired, "certificate-expired"),
    (ResultType::CertificateNotTrusted, "certificate-not-trusted"),
    (ResultType::ValidationFailure, "validation-failure"),
    (ResultType::TlsaInvalid, "tlsa-invalid"),
    (ResultType::DnssecInvalid, "dnssec-invalid"),
    (ResultType::DaneRequired, "dane-required"),
    (ResultType::StsPolicyFetchError, "sts-policy-fetch-error"),
    (ResultType::StsPolicyInvalid, "sts-policy-invalid"),
    (ResultType::StsWebpkiInvalid, "sts-webpki-invalid"),
];

impl ResultType {
    /// Every reason that the RFC names.
    pub fn all() -> impl Iterator<Item = ResultType> {
        RESULT_TYPES.into_iter().map(|(kind, _)| kind)
    }

    /// The word of the RFC.
    #[must_use]
    pub fn as_str(&self) -> &str {
        if let ResultType::Other(word) = self {
            return word;
        }
        let known = RESULT_TYPES.iter().find(|(kind, _)| kind == self);
        known.map_or("validation-failure", |(_, word)| word)
    }
}

impl From<String> for ResultType {
    fn from(word: String) -> Self {
        let known = RESULT_TYPES
            .iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(&word));
        known.map_or_else(|| ResultType::Other(clean(&word)), |(kind, _)| kind.clone())
    }
}

impl From<ResultType> for String {
    fn from(kind: ResultType) -> Self {
        kind.as_str().to_owned()
    }
}

/// The policy under which conversations were held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Its kind.
    pub kind: PolicyType,
    /// Its lines: of an MTA-STS policy, or one TLSA record each. None without a policy.
    pub strings: Vec<String>,
    /// The recipients' domain.
    pub domain: String,
    /// Patterns of servers that the policy allows; of MTA-STS.
    pub mx_hosts: Vec<String>,
}

impl Policy {
    /// There is none.
    #[must_use]
    pub fn none(domain: &Domain) -> Self {
        Self::of(PolicyType::NoPolicyFound, domain, Vec::new(), Vec::new())
    }

    /// One of this kind; of its lines and patterns the first fifty are kept.
    #[must_use]
    pub fn of(kind: PolicyType, domain: &Domain, strings: Vec<String>, mx_hosts: Vec<String>) -> Self {
        let kept = |texts: Vec<String>| texts.iter().take(LINES_MAX).map(|text| clean(text)).collect();
        Self {
            kind,
            strings: kept(strings),
            domain: domain.to_string(),
            mx_hosts: kept(mx_hosts),
        }
    }
}

/// Why a conversation did not get the TLS that it should have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The reason, as the RFC names it.
    pub result: ResultType,
    /// The reason in words, when there is more to say (failure-reason-code).
    pub reason: Option<String>,
}

impl Failure {
    /// A failure with nothing more to say.
    #[must_use]
    pub fn new(result: ResultType) -> Self {
        Self { result, reason: None }
    }

    /// A failure with the reason in words.
    #[must_use]
    pub fn because(result: ResultType, reason: impl Into<String>) -> Self {
        Self {
            result,
            reason: Some(reason.into()),
        }
    }
}

/// One conversation with a server of a domain, as far as TLS goes; or a policy that could not be had,
/// which kept it from being held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    /// The policy that was in force. Several conversations share it.
    pub policy: Arc<Policy>,
    /// The server's name.
    pub host: Option<String>,
    /// The server's address.
    pub ip: Option<IpAddr>,
    /// Our address.
    pub sending_ip: Option<IpAddr>,
    /// Whether it had the TLS that the policy asks for. Without a policy any TLS is enough.
    pub result: Result<(), Failure>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for kind in ResultType::all() {
            assert_eq!(ResultType::from(kind.as_str().to_owned()), kind);
            assert_eq!(ResultType::from(kind.as_str().to_uppercase()), kind);
        }
        let other = ResultType::from("new-trouble\u{7}".to_owned());
        assert_eq!(other.as_str(), "new-trouble ");
        for word in ["tlsa", "sts", "no-policy-found", "x"] {
            assert_eq!(PolicyType::from(word.to_owned()).as_str(), word);
        }
    }
}
