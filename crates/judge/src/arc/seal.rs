//! Sealing: one more set for a message that is handed on changed (RFC 8617 §5.1).

use super::set::{self, AUTHENTICATION_RESULTS, MESSAGE_SIGNATURE, SEAL, Set};
use super::verify::sealed_data;
use super::{ArcOutcome, ArcResult, SETS_MAX};
use crate::dkim::canon::{Canon, Canonicalization};
use crate::dkim::hash::{FieldIndex, hash_body};
use crate::dkim::{self, DEFAULT_HEADERS, KeyError, SigningKey};
use crate::evidence::Evidence;
use crate::headers;
use mail::header::{self, Field};
use mail::{Domain, Timestamp};
use std::sync::Arc;

/// Why a message was not sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The chain was sealed as failed already, or cannot be read: nothing may be added
    /// (RFC 8617 §5.1 step 2).
    #[error("the chain is broken already, and no set may be added to it")]
    ChainBroken,
    /// There are 50 sets.
    #[error("the chain has {SETS_MAX} sets, which is all that there may be")]
    ChainFull,
    /// A key of the chain could not be fetched, so that nobody can say whether it holds.
    #[error("the chain could not be checked: a key could not be fetched")]
    Unknown,
    /// The selector is no DNS name, or makes the key's name too long.
    #[error("the selector cannot be part of a DNS name")]
    Selector,
    /// The key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Seals messages in the name of one domain. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sealer {
    domain: Domain,
    selector: String,
    key: Arc<SigningKey>,
}

impl Sealer {
    /// A sealer; its key is published like a DKIM key.
    ///
    /// # Errors
    /// When `<selector>._domainkey.<domain>` is no DNS name.
    pub fn new(domain: Domain, selector: &str, key: Arc<SigningKey>) -> Result<Self, SealError> {
        if domain.prefixed(&format!("{selector}._domainkey")).is_err() {
            return Err(SealError::Selector);
        }
        Ok(Self {
            domain,
            selector: selector.to_ascii_lowercase(),
            key,
        })
    }

    /// The three fields of the next set with their line endings, to be put before the message.
    /// `evidence` is what was found when the message came in; `message` is what goes out.
    ///
    /// # Errors
    /// When no set may be added, or the key fails.
    pub fn seal(
        &self,
        message: &[u8],
        evidence: &Evidence,
        authserv_id: &str,
        now: Timestamp,
    ) -> Result<String, SealError> {
        let index = FieldIndex::new(message);
        let earlier = set::sets(&index).map_err(|_| SealError::ChainBroken)?;
        let instance = u32::try_from(earlier.len()).unwrap_or(u32::MAX).saturating_add(1);
        if instance > SETS_MAX {
            return Err(SealError::ChainFull);
        }
        let cv = chain_validation(&evidence.arc)?;
        let results = headers::arc_authentication_results(evidence, authserv_id, instance);
        let signature = self.message_signature(message, instance, now)?;
        let seal = self.seal_field(&earlier, &results, &signature, instance, cv, now)?;
        Ok(format!("{seal}{signature}{results}"))
    }

    fn message_signature(&self, message: &[u8], instance: u32, now: Timestamp) -> Result<String, SealError> {
        let fields: Vec<Field<'_>> = header::fields(message).collect();
        let names: Vec<String> = DEFAULT_HEADERS
            .iter()
            .chain(&["dkim-signature"])
            .flat_map(|name| {
                let present = fields.iter().filter(|f| f.is(name)).count();
                std::iter::repeat_n((*name).to_owned(), present)
            })
            .collect();
        let body = &message[header::body_offset(message)..];
        let hash = hash_body(body, Canon::Relaxed, None);
        let mut tags = self.tags(instance, now);
        tags.push(format!("c={}", Canonicalization::RELAXED));
        let start = dkim::unsigned_field("ARC-Message-Signature", &tags, &names, &hash.sha256);
        Ok(dkim::complete(start, &fields, &names, Canon::Relaxed, &self.key)?)
    }

    fn seal_field(
        &self,
        earlier: &[Set<'_>],
        results: &str,
        signature: &str,
        instance: u32,
        cv: &str,
        now: Timestamp,
    ) -> Result<String, SealError> {
        let mut tags = self.tags(instance, now);
        tags.push(format!("cv={cv}"));
        let start = format!("ARC-Seal: {};\r\n\tb=", tags.join("; "));
        let newest = format!("{results}{signature}{start}\r\n\r\n");
        let own = FieldIndex::new(newest.as_bytes());
        let first = |name: &str| own.named(name).into_iter().next().ok_or(SealError::ChainBroken);
        // A failed chain is sealed alone (RFC 8617 §5.1.2).
        let mut sealed = if cv == "fail" {
            Vec::new()
        } else {
            earlier.to_vec()
        };
        sealed.push(Set {
            instance,
            seal: first(SEAL)?,
            message_signature: first(MESSAGE_SIGNATURE)?,
            authentication_results: first(AUTHENTICATION_RESULTS)?,
        });
        let value = self.key.sign(&sealed_data(&sealed))?;
        Ok(dkim::with_signature(start, &value))
    }

    fn tags(&self, instance: u32, now: Timestamp) -> Vec<String> {
        vec![
            format!("i={instance}"),
            format!("a={}", self.key.algorithm()),
            format!("d={}", self.domain),
            format!("s={}", self.selector),
            format!("t={}", u64::try_from(now.secs()).unwrap_or(0)),
        ]
    }
}

fn chain_validation(arc: &ArcOutcome) -> Result<&'static str, SealError> {
    match arc.result {
        ArcResult::None => Ok("none"),
        ArcResult::Pass => Ok("pass"),
        ArcResult::TempError => Err(SealError::Unknown),
        // Once a sealer has said cv=fail, the chain is closed.
        ArcResult::Fail => match arc.sets.last() {
            Some(last) if last.chain_validation.as_deref() != Some("fail") => Ok("fail"),
            _ => Err(SealError::ChainBroken),
        },
    }
}
