//! Checking the signatures of a message (RFC 6376 §6).

use super::canon::Canonicalization;
use super::hash::{BodyHashes, FieldIndex, holds};
use super::key::{self, KeyRecord};
use super::signature::{self, Kind, Signature};
use super::{DkimOutcome, DkimProblem, DkimResult, SIGNATURES_MAX_DEFAULT, SignatureOutcome};
use crate::tags::{Tags, compact};
use dns::Resolver;
use futures_util::future::join_all;
use mail::header::{self, Field};
use mail::{Domain, Timestamp};

/// How signatures are checked.
#[derive(Clone, Copy, Debug)]
pub struct VerifyOptions {
    /// Signatures of one message that are looked at. Default [`SIGNATURES_MAX_DEFAULT`].
    pub signatures_max: usize,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            signatures_max: SIGNATURES_MAX_DEFAULT,
        }
    }
}

/// Checks all signatures of a message with CRLF line endings.
pub async fn verify(resolver: &dyn Resolver, message: &[u8], now: Timestamp) -> DkimOutcome {
    verify_with(resolver, message, now, VerifyOptions::default()).await
}

/// Checks the signatures of a message with CRLF line endings.
pub async fn verify_with(
    resolver: &dyn Resolver,
    message: &[u8],
    now: Timestamp,
    options: VerifyOptions,
) -> DkimOutcome {
    let index = FieldIndex::new(message);
    let fields = index.named("dkim-signature");
    let mut hashes = BodyHashes::new(&message[header::body_offset(message)..]);
    let checked: Vec<Started<'_>> = fields
        .iter()
        .take(options.signatures_max)
        .map(|field| start(&index, &mut hashes, *field, now))
        .collect();
    DkimOutcome {
        signatures: join_all(checked.into_iter().map(|s| finish(resolver, &index, s))).await,
        ignored: fields.len().saturating_sub(options.signatures_max),
    }
}

/// A signature whose body has been checked and whose key has not.
struct Started<'m> {
    field: Field<'m>,
    signature: Result<Signature, DkimProblem>,
    /// What is wrong already, before the key is known.
    problem: Option<DkimProblem>,
    outcome: SignatureOutcome,
}

fn start<'m>(
    index: &FieldIndex<'m>,
    hashes: &mut BodyHashes<'_>,
    field: Field<'m>,
    now: Timestamp,
) -> Started<'m> {
    let mut outcome = what_it_says(&field);
    let signature = Signature::parse(&field, Kind::Dkim);
    let mut problem = None;
    if let Ok(s) = &signature {
        let present: Vec<&str> = s
            .signed_headers
            .iter()
            .map(String::as_str)
            .filter(|name| !index.named(name).is_empty())
            .collect();
        outcome.steps.push(format!(
            "signs the fields {} and the body, in the form {}",
            present.join(", "),
            s.canon
        ));
        problem = check_expiry(s, now).or_else(|| check_body(s, hashes, &mut outcome));
    }
    Started {
        field,
        signature,
        problem,
        outcome,
    }
}

/// What a field says, as far as it can be read, for showing.
fn what_it_says(field: &Field<'_>) -> SignatureOutcome {
    let tags = signature::text(field)
        .ok()
        .and_then(|text| Tags::parse(text).ok());
    let get = |name: &str| tags.as_ref().and_then(|t| t.get(name)).map(compact);
    let number = |name: &str| get(name).and_then(|v| v.parse().ok());
    let domain = get("d").and_then(|d| Domain::parse(&d).ok());
    SignatureOutcome {
        result: DkimResult::Neutral,
        problem: None,
        identity: get("i").or_else(|| domain.as_ref().map(|d| format!("@{d}"))),
        domain,
        selector: get("s"),
        algorithm: get("a"),
        canonicalization: Canonicalization::parse(&get("c").unwrap_or_else(|| "simple".to_owned())),
        signed_headers: get("h")
            .map(|h| h.split(':').map(str::to_ascii_lowercase).collect())
            .unwrap_or_default(),
        signature_prefix: get("b").map(|b| b.chars().take(8).collect()).unwrap_or_default(),
        unsigned_body_octets: 0,
        testing: false,
        key_bits: None,
        signed_at_secs: number("t"),
        expires_at_secs: number("x"),
        steps: Vec::new(),
    }
}

fn check_expiry(signature: &Signature, now: Timestamp) -> Option<DkimProblem> {
    let expires = i64::try_from(signature.expires_at_secs?).unwrap_or(i64::MAX);
    (now.secs() > expires).then(|| DkimProblem::Expired(now.secs() - expires))
}

fn check_body(
    signature: &Signature,
    hashes: &mut BodyHashes<'_>,
    outcome: &mut SignatureOutcome,
) -> Option<DkimProblem> {
    let hash = hashes.of(signature.canon.body, signature.body_length);
    if let Some(length) = signature.body_length {
        if length > hash.octets {
            return Some(DkimProblem::BodyTooShort {
                wanted: length,
                present: hash.octets,
            });
        }
        outcome.unsigned_body_octets = hash.octets - length;
        outcome.steps.push(format!(
            "covers {length} of the {} octets of the body (l=)",
            hash.octets
        ));
    }
    let same = hash.sha256.as_slice() == signature.body_hash;
    outcome.steps.push(format!(
        "hash of the body: {}, bh= {}",
        crate::tags::to_base64(&hash.sha256),
        if same { "is the same" } else { "is another" }
    ));
    (!same).then_some(DkimProblem::BodyHash)
}

async fn finish(resolver: &dyn Resolver, index: &FieldIndex<'_>, started: Started<'_>) -> SignatureOutcome {
    let Started {
        field,
        signature,
        mut problem,
        mut outcome,
    } = started;
    let verdict = match &signature {
        Ok(s) => check_signature(resolver, index, &field, s, &mut outcome).await,
        Err(error) => Err(error.clone()),
    };
    // A body that was changed decides, whatever the key says; the rest is told as a step.
    if problem.is_none() {
        problem = verdict.err();
    }
    outcome.result = problem.as_ref().map_or(DkimResult::Pass, DkimProblem::result);
    outcome.problem = problem.map(|p| p.to_string());
    outcome
}

async fn check_signature(
    resolver: &dyn Resolver,
    index: &FieldIndex<'_>,
    field: &Field<'_>,
    signature: &Signature,
    outcome: &mut SignatureOutcome,
) -> Result<(), DkimProblem> {
    let (selector, domain) = (&signature.selector, &signature.domain);
    let keys = key::fetch(
        resolver,
        selector,
        domain,
        signature.algorithm,
        &mut outcome.steps,
    )
    .await?;
    let data = index.signed_data(&signature.signed_headers, field, signature.canon.header);
    let fits = |k: &&KeyRecord| holds(&k.key, &data, &signature.signature);
    let fitting = keys.iter().find(fits);
    if let Some(record) = fitting.or(keys.first()) {
        outcome.testing = record.testing;
        outcome.key_bits = Some(record.key.bits());
    }
    let Some(record) = fitting else {
        outcome
            .steps
            .push("the signature over the header fields does not fit the key".to_owned());
        return Err(DkimProblem::Signature);
    };
    outcome
        .steps
        .push("the signature over the header fields fits the key".to_owned());
    if record.strict_identity && signature.identity_domain != signature.domain {
        return Err(DkimProblem::Identity {
            identity: outcome.identity.clone().unwrap_or_default(),
            domain: format!("{} (the key's t=s allows no subdomain)", signature.domain),
        });
    }
    Ok(())
}
