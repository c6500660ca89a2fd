//! DomainKeys Identified Mail (RFC 6376, RFC 8301, RFC 8463): signatures checked and made.
//!
//! Promises: canonical forms exact to the octet; every signature (up to a limit) judged on its own,
//! with the steps and the reason in words; the body hashed once for each way in which signatures
//! want it hashed. Never: rsa-sha1, an RSA key under 1024 bits, a final "no" when the key could not
//! be fetched.

pub(crate) mod canon;
pub(crate) mod hash;
pub(crate) mod key;
mod sign;
pub(crate) mod signature;
mod signing_key;
mod verify;

pub use canon::{Canon, Canonicalization};
pub use sign::{DEFAULT_HEADERS, DEFAULT_OVERSIGNED, SignError, Signer};
pub(crate) use sign::{complete, unsigned_field, with_signature};
pub use signing_key::{KeyError, KeyKind, SigningKey};
pub use verify::{VerifyOptions, verify, verify_with};

use mail::Domain;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::fmt;

/// Signatures of one message that are checked by default; more are counted and left alone
/// (RFC 6376 §6.1 allows a limit).
pub const SIGNATURES_MAX_DEFAULT: usize = 10;
/// Bits of an RSA key at least (RFC 8301 §3.2).
pub const RSA_BITS_MIN: usize = 1024;
/// Bits of an RSA key at most: more would only cost us time.
pub const RSA_BITS_MAX: usize = 8192;
/// Key records of one name that are tried.
pub const KEY_RECORDS_MAX: usize = 4;

/// A result of DKIM (RFC 8601 §2.7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DkimResult {
    /// No signature.
    None,
    /// The signature is right.
    Pass,
    /// The signature could be checked and is wrong, or has expired.
    Fail,
    /// The signature is of a kind that we do not accept (RFC 8301).
    Policy,
    /// The signature cannot be read.
    Neutral,
    /// The key could not be fetched; trying later can help.
    TempError,
    /// The key is missing, revoked or unusable, or the signature asks for what nobody can do.
    PermError,
}

impl DkimResult {
    /// The name of the result in header fields.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            DkimResult::None => "none",
            DkimResult::Pass => "pass",
            DkimResult::Fail => "fail",
            DkimResult::Policy => "policy",
            DkimResult::Neutral => "neutral",
            DkimResult::TempError => "temperror",
            DkimResult::PermError => "permerror",
        }
    }
}

impl fmt::Display for DkimResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a signature did not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DkimProblem {
    /// The field breaks the grammar of RFC 6376 §3.2 and §3.5.
    #[error("the DKIM-Signature field is malformed: {0}")]
    Malformed(String),
    /// `v=` is not 1.
    #[error("the signature has version {0}, not 1")]
    Version(String),
    /// An algorithm that nobody may use any more, or that we do not know.
    #[error("the algorithm {0} is not accepted (RFC 8301); sign with rsa-sha256 or ed25519-sha256")]
    Algorithm(String),
    /// From is not among the signed fields (RFC 6376 §5.4).
    #[error("the From field is not signed")]
    FromNotSigned,
    /// `i=` is not `d=` or below it.
    #[error("the identity {identity} (i=) is not within the signing domain {domain} (d=)")]
    Identity {
        /// The value of `i=`.
        identity: String,
        /// The value of `d=`.
        domain: String,
    },
    /// `x=` is past.
    #[error("the signature expired {0} seconds ago")]
    Expired(i64),
    /// `l=` is more than there is of the body.
    #[error("the signature covers {wanted} octets of the body (l=), which has only {present}")]
    BodyTooShort {
        /// The value of `l=`.
        wanted: u64,
        /// Octets of the canonical body.
        present: u64,
    },
    /// The body is not the one that was signed.
    #[error("the body was changed after signing: its hash differs from bh=")]
    BodyHash,
    /// The signed header fields are not the ones that were signed, or the key is another.
    #[error("the signature does not fit: a signed header field was changed, or the key is not the signer's")]
    Signature,
    /// No key record.
    #[error("there is no key at {0}")]
    NoKey(String),
    /// The DNS could not be asked.
    #[error("the key could not be fetched: {0}")]
    KeyUnavailable(String),
    /// The record is no key record.
    #[error("the key record at {name} cannot be used: {reason}")]
    BadKey {
        /// Where the record is.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `p=` is empty.
    #[error("the key at {0} has been revoked by its owner (p= is empty)")]
    Revoked(String),
    /// Fewer than 1024 bits.
    #[error("the RSA key has {0} bits, fewer than 1024 (RFC 8301)")]
    KeyTooShort(usize),
}

impl DkimProblem {
    /// The result that this problem leads to.
    #[must_use]
    pub fn result(&self) -> DkimResult {
        match self {
            DkimProblem::Expired(_) | DkimProblem::BodyHash | DkimProblem::Signature => DkimResult::Fail,
            DkimProblem::KeyUnavailable(_) => DkimResult::TempError,
            DkimProblem::KeyTooShort(_) => DkimResult::Policy,
            DkimProblem::Malformed(_)
            | DkimProblem::Version(_)
            | DkimProblem::Algorithm(_)
            | DkimProblem::FromNotSigned
            | DkimProblem::Identity { .. }
            | DkimProblem::BodyTooShort { .. }
            | DkimProblem::NoKey(_)
            | DkimProblem::BadKey { .. }
            | DkimProblem::Revoked(_) => DkimResult::PermError,
        }
    }
}

/// What one signature says and whether it is right.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct SignatureOutcome {
    /// The result.
    pub result: DkimResult,
    /// Why it did not pass, in words.
    pub problem: Option<String>,
    /// The signing domain (`d=`), when it can be read.
    pub domain: Option<Domain>,
    /// The selector (`s=`), when it can be read.
    pub selector: Option<String>,
    /// The identity (`i=`), given or implied.
    pub identity: Option<String>,
    /// The algorithm (`a=`) as it is written.
    pub algorithm: Option<String>,
    /// The canonical forms (`c=`).
    pub canonicalization: Option<Canonicalization>,
    /// The names in `h=`, lower case, in order.
    pub signed_headers: Vec<String>,
    /// Enough of `b=` to tell signatures apart (RFC 6008).
    pub signature_prefix: String,
    /// Octets of the canonical body behind the signed part (`l=`); 0 when all of it is signed.
    pub unsigned_body_octets: u64,
    /// The key's owner is still testing (`t=y`).
    pub testing: bool,
    /// Bits of the key that was used.
    pub key_bits: Option<usize>,
    /// When it was signed (`t=`), in seconds since 1970.
    pub signed_at_secs: Option<u64>,
    /// When it expires (`x=`), in seconds since 1970.
    pub expires_at_secs: Option<u64>,
    /// What was done, in words and in order.
    pub steps: Vec<String>,
}

impl SignatureOutcome {
    /// Why the result is what it is, as one sentence without a full stop.
    #[must_use]
    pub fn because(&self) -> String {
        let domain = self.domain.as_ref().map_or("an unknown domain", Domain::as_str);
        match (&self.problem, self.result) {
            (Some(problem), _) => format!("signature of {domain}: {}", crate::words::printable(problem)),
            (None, _) => format!("the signature of {domain} is right"),
        }
    }
}

/// All signatures of a message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DkimOutcome {
    /// Each signature that was checked, from the top of the message.
    pub signatures: Vec<SignatureOutcome>,
    /// Signatures beyond the limit, which were not looked at.
    pub ignored: usize,
}

/// The best result first, then each signature.
impl Serialize for DkimOutcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("DkimOutcome", 3)?;
        out.serialize_field("result", &self.result())?;
        out.serialize_field("signatures", &self.signatures)?;
        out.serialize_field("ignored", &self.ignored)?;
        out.end()
    }
}

impl DkimOutcome {
    /// The best result of all signatures; none when there is no signature.
    #[must_use]
    pub fn result(&self) -> DkimResult {
        let best = [
            DkimResult::Pass,
            DkimResult::TempError,
            DkimResult::Fail,
            DkimResult::Policy,
            DkimResult::PermError,
            DkimResult::Neutral,
        ];
        best.into_iter()
            .find(|r| self.signatures.iter().any(|s| s.result == *r))
            .unwrap_or(DkimResult::None)
    }

    /// Why the result is what it is, as one sentence without a full stop.
    #[must_use]
    pub fn because(&self) -> String {
        if self.signatures.is_empty() {
            return "the message is not signed".to_owned();
        }
        let all: Vec<String> = self.signatures.iter().map(SignatureOutcome::because).collect();
        all.join("; ")
    }

    /// The whole way to the results, in lines for people.
    #[must_use]
    pub fn explain(&self) -> Vec<String> {
        let mut lines = vec![format!("DKIM: {}", self.result())];
        for (i, s) in self.signatures.iter().enumerate() {
            lines.push(format!(
                "  signature {}: d={} s={} a={}: {}",
                i + 1,
                s.domain.as_ref().map_or("?", Domain::as_str),
                crate::words::printable(s.selector.as_deref().unwrap_or("?")),
                crate::words::printable(s.algorithm.as_deref().unwrap_or("?")),
                s.result
            ));
            lines.extend(
                s.steps
                    .iter()
                    .map(|step| format!("    {}", crate::words::printable(step))),
            );
            lines.push(format!("    {} because {}", s.result, s.because()));
        }
        if self.signatures.is_empty() {
            lines.push("  the message is not signed".to_owned());
        }
        if self.ignored > 0 {
            lines.push(format!("  {} more signatures were not looked at", self.ignored));
        }
        lines
    }
}
