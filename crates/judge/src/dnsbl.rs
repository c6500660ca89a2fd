//! DNS blocklists (RFC 5782): is the client's address on a list, and for which reason?
//!
//! Promises: only an answer within 127.0.0.0/8 counts as listed, and never one of 127.255.255.0/24,
//! by which list operators say that they do not answer us; trouble with the DNS is never a listing.

use dns::{Resolver, reverse_labels};
use mail::Domain;
use std::net::{IpAddr, Ipv4Addr};

/// Octets of a list's reason that are kept.
pub const REASON_OCTETS_MAX: usize = 200;

/// What a list says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DnsblResult {
    /// The address is on the list.
    Listed,
    /// It is not.
    NotListed,
    /// The list does not answer our questions (wrong resolver, over quota): it says nothing.
    Refused,
    /// The DNS could not be asked, or the answer is no answer of a list: it says nothing.
    TempError,
}

/// What one list says, and why.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct DnsblOutcome {
    /// The list's zone.
    pub zone: Domain,
    /// The client's address.
    pub ip: IpAddr,
    /// What it says.
    pub result: DnsblResult,
    /// The answer's addresses, whose meaning the list defines.
    pub answers: Vec<Ipv4Addr>,
    /// The list's reason (its TXT), printable ASCII, cut at [`REASON_OCTETS_MAX`].
    pub reason: Option<String>,
    /// Why the result is what it is, as one sentence without a full stop.
    pub because: String,
}

/// Asks one list about an address.
pub async fn check(resolver: &dyn Resolver, zone: &Domain, ip: IpAddr) -> DnsblOutcome {
    let ip = ip.to_canonical();
    let mut outcome = DnsblOutcome {
        zone: zone.clone(),
        ip,
        result: DnsblResult::NotListed,
        answers: Vec::new(),
        reason: None,
        because: format!("{ip} is not on {zone}"),
    };
    let Ok(name) = zone.prefixed(&reverse_labels(ip)) else {
        outcome.result = DnsblResult::TempError;
        outcome.because = format!("the name of the list {zone} is too long to ask it");
        return outcome;
    };
    match resolver.a(&name).await {
        Ok(answer) => outcome.answers = answer.records,
        Err(error) if error.is_temporary() => {
            outcome.result = DnsblResult::TempError;
            outcome.because = error.to_string();
        }
        Err(_) => {}
    }
    if outcome.answers.is_empty() {
        return outcome;
    }
    let (result, because) = meaning(zone, ip, &outcome.answers);
    outcome.result = result;
    outcome.because = because;
    if result == DnsblResult::Listed {
        outcome.reason = reason(resolver, &name).await;
    }
    outcome
}

fn meaning(zone: &Domain, ip: IpAddr, answers: &[Ipv4Addr]) -> (DnsblResult, String) {
    // One such answer spoils all: the list does not know who we are.
    let refusal = answers.iter().find(|a| a.octets()[..3] == [127, 255, 255]);
    if let Some(code) = refusal {
        let because = format!("{zone} refuses our questions ({code}), so it says nothing about {ip}");
        return (DnsblResult::Refused, because);
    }
    match answers.iter().find(|a| a.octets()[0] == 127) {
        Some(code) => (DnsblResult::Listed, format!("{ip} is on {zone} ({code})")),
        None => {
            let because = format!(
                "{zone} answers {}, which no list answers (is it gone?)",
                answers[0]
            );
            (DnsblResult::TempError, because)
        }
    }
}

async fn reason(resolver: &dyn Resolver, name: &Domain) -> Option<String> {
    let texts = resolver.txt(name).await.ok()?.records;
    let text = String::from_utf8_lossy(texts.first()?).into_owned();
    Some(crate::words::ascii(&text, REASON_OCTETS_MAX))
}
