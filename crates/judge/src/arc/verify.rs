//! A chain checked (RFC 8617 §5.2).

use super::set::{self, Set};
use super::{ArcOutcome, ArcResult, ArcSetOutcome};
use crate::dkim::DkimProblem;
use crate::dkim::canon::{self, Canon};
use crate::dkim::hash::{BodyHashes, FieldIndex, holds};
use crate::dkim::key::{self, Algorithm};
use crate::dkim::signature::{self, Kind, Signature};
use crate::tags::{Tags, base64};
use dns::Resolver;
use futures_util::future::join_all;
use mail::header;
use mail::{Domain, Timestamp};

/// What a check of one signature came to.
enum Verdict {
    Holds,
    Broken(String),
    Unknown(String),
}

impl From<DkimProblem> for Verdict {
    fn from(problem: DkimProblem) -> Self {
        match problem {
            DkimProblem::KeyUnavailable(_) => Verdict::Unknown(problem.to_string()),
            _ => Verdict::Broken(problem.to_string()),
        }
    }
}

impl Verdict {
    fn holds(&self) -> Option<bool> {
        match self {
            Verdict::Holds => Some(true),
            Verdict::Broken(_) => Some(false),
            Verdict::Unknown(_) => None,
        }
    }

    fn words(&self) -> String {
        match self {
            Verdict::Holds => "holds".to_owned(),
            Verdict::Broken(why) => format!("is broken: {why}"),
            Verdict::Unknown(why) => format!("could not be checked: {why}"),
        }
    }
}

/// Checks the ARC chain of a message with CRLF line endings.
pub async fn verify(resolver: &dyn Resolver, message: &[u8], now: Timestamp) -> ArcOutcome {
    let index = FieldIndex::new(message);
    let mut outcome = ArcOutcome {
        result: ArcResult::None,
        sets: Vec::new(),
        oldest_pass: None,
        problem: None,
        steps: Vec::new(),
    };
    let sets = match set::sets(&index) {
        Ok(sets) => sets,
        Err(problem) => {
            outcome.steps.push(problem.clone());
            return failed(outcome, problem);
        }
    };
    if sets.is_empty() {
        return outcome;
    }
    outcome.sets = sets.iter().map(what_it_says).collect();
    if let Some(problem) = structure(&sets) {
        outcome.steps.push(problem.clone());
        return failed(outcome, problem);
    }
    let mut hashes = BodyHashes::new(&message[header::body_offset(message)..]);
    outcome.result = ArcResult::Pass;
    check_signatures(resolver, &index, &mut hashes, &sets, now, &mut outcome).await;
    outcome
}

fn failed(mut outcome: ArcOutcome, problem: String) -> ArcOutcome {
    outcome.result = ArcResult::Fail;
    outcome.problem = Some(problem);
    outcome
}

fn what_it_says(set: &Set<'_>) -> ArcSetOutcome {
    let tags = signature::text(&set.seal).ok().and_then(|t| Tags::parse(t).ok());
    let get = |name: &str| tags.as_ref().and_then(|t| t.get(name));
    ArcSetOutcome {
        instance: set.instance,
        sealer: get("d").and_then(|d| Domain::parse(d).ok()),
        chain_validation: get("cv").map(str::to_owned),
        authentication_results: set::results_without_instance(&set.authentication_results),
        message_signature_holds: None,
        seal_holds: None,
    }
}

/// What is wrong with the chain before any signature is looked at (RFC 8617 §5.2 steps 2 and 3).
fn structure(sets: &[Set<'_>]) -> Option<String> {
    for set in sets {
        let n = set.instance;
        let tags = match signature::text(&set.seal)
            .map_err(|e| e.to_string())
            .and_then(Tags::parse)
        {
            Ok(tags) => tags,
            Err(why) => return Some(format!("the seal i={n} cannot be read: {why}")),
        };
        // RFC 8617 §4.1.3: a seal covers fixed fields and has no h=.
        if tags.get("h").is_some() {
            return Some(format!("the seal i={n} has a tag h="));
        }
        match (n, tags.get("cv").map(str::to_ascii_lowercase).as_deref()) {
            (_, Some("fail")) => return Some(format!("the sealer i={n} found the chain broken (cv=fail)")),
            (1, Some("none")) => {}
            (1, _) => return Some("the first seal does not say cv=none".to_owned()),
            (_, Some("pass")) => {}
            (_, _) => return Some(format!("the seal i={n} does not say cv=pass")),
        }
    }
    None
}

async fn check_signatures(
    resolver: &dyn Resolver,
    index: &FieldIndex<'_>,
    hashes: &mut BodyHashes<'_>,
    sets: &[Set<'_>],
    now: Timestamp,
    outcome: &mut ArcOutcome,
) {
    // RFC 8617 §5.2 step 4: the newest message signature must hold; the older ones only show how
    // far back the message is unchanged, so the first that is broken ends the looking.
    let mut oldest_pass = 0;
    for set in sets.iter().rev() {
        let verdict = match message_signature(set, hashes, now) {
            Ok(signature) => check_message(resolver, index, set, &signature).await,
            Err(problem) => problem.into(),
        };
        let newest = set.instance as usize == sets.len();
        note(outcome, set.instance, "message signature", &verdict, newest);
        if !matches!(verdict, Verdict::Holds) {
            oldest_pass = set.instance + 1;
            break;
        }
    }
    if outcome.result == ArcResult::Fail {
        return;
    }
    // Step 6: every seal must hold.
    let seals = join_all((1..=sets.len()).map(|upto| check_seal(resolver, &sets[..upto]))).await;
    for (set, verdict) in sets.iter().zip(&seals) {
        note(outcome, set.instance, "seal", verdict, true);
    }
    if outcome.result == ArcResult::Pass {
        outcome.oldest_pass = Some(oldest_pass);
    }
}

/// Keeps what a check came to. A broken link that is `needed` breaks the chain; one that could not
/// be checked leaves it open.
fn note(outcome: &mut ArcOutcome, instance: u32, what: &str, verdict: &Verdict, needed: bool) {
    outcome
        .steps
        .push(format!("the {what} i={instance} {}", verdict.words()));
    if let Some(set) = outcome.sets.iter_mut().find(|s| s.instance == instance) {
        if what == "seal" {
            set.seal_holds = verdict.holds();
        } else {
            set.message_signature_holds = verdict.holds();
        }
    }
    let result = match verdict {
        Verdict::Holds => return,
        Verdict::Broken(_) => ArcResult::Fail,
        Verdict::Unknown(_) => ArcResult::TempError,
    };
    if needed && outcome.result != ArcResult::Fail {
        outcome.result = result;
        outcome.problem = Some(format!("the {what} i={instance} {}", verdict.words()));
    }
}

/// Reads a message signature and checks its body hash.
fn message_signature(
    set: &Set<'_>,
    hashes: &mut BodyHashes<'_>,
    now: Timestamp,
) -> Result<Signature, DkimProblem> {
    let signature = Signature::parse(&set.message_signature, Kind::ArcMessage)?;
    if let Some(expires) = signature.expires_at_secs {
        let expires = i64::try_from(expires).unwrap_or(i64::MAX);
        if now.secs() > expires {
            return Err(DkimProblem::Expired(now.secs() - expires));
        }
    }
    let hash = hashes.of(signature.canon.body, signature.body_length);
    match signature.body_length {
        Some(wanted) if wanted > hash.octets => Err(DkimProblem::BodyTooShort {
            wanted,
            present: hash.octets,
        }),
        _ if hash.sha256.as_slice() != signature.body_hash => Err(DkimProblem::BodyHash),
        _ => Ok(signature),
    }
}

async fn check_message(
    resolver: &dyn Resolver,
    index: &FieldIndex<'_>,
    set: &Set<'_>,
    signature: &Signature,
) -> Verdict {
    let data = index.signed_data(
        &signature.signed_headers,
        &set.message_signature,
        signature.canon.header,
    );
    let Signature {
        selector,
        domain,
        algorithm,
        signature,
        ..
    } = signature;
    check(resolver, selector, domain, *algorithm, &data, signature).await
}

/// Checks the seal of the last of `sets`, which covers all of them.
async fn check_seal(resolver: &dyn Resolver, sets: &[Set<'_>]) -> Verdict {
    match seal(sets) {
        Ok((selector, domain, algorithm, value)) => {
            check(
                resolver,
                &selector,
                &domain,
                algorithm,
                &sealed_data(sets),
                &value,
            )
            .await
        }
        Err(problem) => problem.into(),
    }
}

type Seal = (String, Domain, Algorithm, Vec<u8>);

fn seal(sets: &[Set<'_>]) -> Result<Seal, DkimProblem> {
    let malformed = DkimProblem::Malformed;
    let set = sets
        .last()
        .ok_or_else(|| malformed("there is no seal".to_owned()))?;
    let tags = Tags::parse(signature::text(&set.seal)?).map_err(malformed)?;
    let require = |name| tags.require(name).map_err(malformed);
    let algorithm = require("a")?;
    let domain = require("d")?;
    Ok((
        signature::selector(require("s")?)?,
        Domain::parse(domain).map_err(|e| malformed(format!("d= is no domain: {e}")))?,
        Algorithm::parse(algorithm).ok_or_else(|| DkimProblem::Algorithm(algorithm.to_owned()))?,
        base64(require("b")?).ok_or_else(|| malformed("b= is not base64".to_owned()))?,
    ))
}

/// What a seal signs (RFC 8617 §5.1.1): all sets in order, each as results, message signature,
/// seal; the last seal without its signature.
pub(crate) fn sealed_data(sets: &[Set<'_>]) -> Vec<u8> {
    let mut data = Vec::new();
    for (i, set) in sets.iter().enumerate() {
        canon::field(&set.authentication_results, Canon::Relaxed, &mut data);
        canon::field(&set.message_signature, Canon::Relaxed, &mut data);
        if i + 1 == sets.len() {
            canon::signature_field(&set.seal, Canon::Relaxed, &mut data);
        } else {
            canon::field(&set.seal, Canon::Relaxed, &mut data);
        }
    }
    data
}

async fn check(
    resolver: &dyn Resolver,
    selector: &str,
    domain: &Domain,
    algorithm: Algorithm,
    data: &[u8],
    value: &[u8],
) -> Verdict {
    let mut steps = Vec::new();
    match key::fetch(resolver, selector, domain, algorithm, &mut steps).await {
        Ok(keys) if keys.iter().any(|k| holds(&k.key, data, value)) => Verdict::Holds,
        Ok(_) => DkimProblem::Signature.into(),
        Err(problem) => problem.into(),
    }
}
