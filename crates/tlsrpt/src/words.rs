//! What results mean, in words: what happened, and what the domain's operator can change.

use crate::report::{Detail, PolicyResults, Report};
use crate::result::{PolicyType, ResultType};
use std::fmt::Write as _;

/// A reason in words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Words {
    /// What happened, as the end of "…: ".
    pub what: &'static str,
    /// What the receiving domain's operator can change.
    pub remedy: &'static str,
}

/// The words for a reason.
#[must_use]
pub fn of(result: &ResultType) -> Words {
    let (what, remedy) = match result {
        ResultType::StarttlsNotSupported => (
            "the server offered no STARTTLS, or refused it",
            "see that the server named there offers STARTTLS on port 25 and has a certificate; if it does, something on the way takes the offer out of its answers",
        ),
        ResultType::CertificateHostMismatch => (
            "the certificate was issued for another name",
            "get a certificate for the server's name as the MX record has it, or correct the MX record",
        ),
        ResultType::CertificateExpired => (
            "the certificate has expired, or is not valid yet",
            "renew the server's certificate, and see that it is renewed by itself from now on",
        ),
        ResultType::CertificateNotTrusted => (
            "the certificate was issued by nobody whom the sender believes",
            "get a certificate of a public authority, and serve it with its intermediate certificates",
        ),
        ResultType::ValidationFailure => (
            "the TLS handshake failed for another reason",
            "look up the reason below; versions and ciphers that are too old or too few are the most frequent one",
        ),
        ResultType::TlsaInvalid => (
            "no TLSA record of the server matches its certificate, or none can be used",
            "publish TLSA records for the certificate that is served, and publish the next one's before it is served (posthaste dns records)",
        ),
        ResultType::DnssecInvalid => (
            "the DNS answers about the server did not validate",
            "repair DNSSEC for the zone: signatures that ran out and a DS record of an old key are the most frequent causes",
        ),
        ResultType::DaneRequired => (
            "the sender delivers with DANE only, and there are no TLSA records that it can use",
            "sign the zone and publish TLSA records, or ask the sender why it requires them",
        ),
        ResultType::StsPolicyFetchError => (
            "the MTA-STS policy could not be fetched",
            "see that https://mta-sts.<domain>/.well-known/mta-sts.txt answers with 200 and no redirect, or take the _mta-sts record out of the DNS",
        ),
        ResultType::StsPolicyInvalid => (
            "the MTA-STS policy cannot be understood",
            "correct the policy file: version, mode, max_age, and an mx line for each server",
        ),
        ResultType::StsWebpkiInvalid => (
            "the certificate of the host that serves the MTA-STS policy is not valid",
            "renew the certificate of mta-sts.<domain>",
        ),
        ResultType::Other(_) => (
            "the sender names a reason that is not in RFC 8460",
            "ask the sender what it means; the report names a contact",
        ),
    };
    Words { what, remedy }
}

/// A policy in words.
#[must_use]
pub fn policy(kind: &PolicyType) -> &'static str {
    match kind {
        PolicyType::Tlsa => "DANE (TLSA records)",
        PolicyType::Sts => "MTA-STS",
        PolicyType::NoPolicyFound => "no policy, so any TLS is enough",
        PolicyType::Other(_) => "another policy",
    }
}

/// A report in words: how many, which failed where, why, and what to change.
#[must_use]
pub fn tell(report: &Report) -> String {
    let mut out = String::new();
    for one in &report.policies {
        tell_policy(&mut out, one);
    }
    if report.policies.is_empty() {
        out.push_str("It says nothing about any policy.\n");
    }
    out
}

fn tell_policy(out: &mut String, one: &PolicyResults) {
    let (good, bad) = (one.summary.successful, one.summary.failed);
    let _ = writeln!(
        out,
        "Mail to {}, {}: {} with TLS as it should be, {} not.",
        one.policy.domain,
        policy(&one.policy.kind),
        conversations(good),
        bad
    );
    if one
        .policy
        .strings
        .iter()
        .any(|line| line.replace(' ', "") == "mode:testing")
        && bad > 0
    {
        out.push_str("  (The policy is in mode testing, so the mail was delivered all the same.)\n");
    }
    let mut details: Vec<&Detail> = one.details.iter().collect();
    details.sort_by_key(|detail| std::cmp::Reverse(detail.failed));
    let mut told: Option<&ResultType> = None;
    for detail in details {
        let words = of(&detail.result);
        let _ = writeln!(
            out,
            "  {}{}: {} ({})",
            times(detail.failed),
            place(detail),
            words.what,
            detail.result.as_str()
        );
        if let Some(reason) = &detail.reason {
            let _ = writeln!(out, "    in the sender's words: {reason}");
        }
        if let Some(more) = &detail.additional {
            let _ = writeln!(out, "    more about it: {more}");
        }
        if told != Some(&detail.result) {
            let _ = writeln!(out, "    what helps: {}", words.remedy);
        }
        told = Some(&detail.result);
    }
}

fn conversations(n: u64) -> String {
    match n {
        1 => "1 conversation".to_owned(),
        _ => format!("{n} conversations"),
    }
}

fn times(n: u64) -> String {
    match n {
        1 => "once".to_owned(),
        _ => format!("{n} times"),
    }
}

/// Where it failed.
fn place(detail: &Detail) -> String {
    let mut out = String::new();
    match (&detail.receiving_host, detail.receiving_ip) {
        (Some(host), Some(ip)) => {
            let _ = write!(out, " at {host} ({ip})");
        }
        (Some(host), None) => {
            let _ = write!(out, " at {host}");
        }
        (None, Some(ip)) => {
            let _ = write!(out, " at {ip}");
        }
        (None, None) => {}
    }
    if let Some(ip) = detail.sending_ip {
        let _ = write!(out, " from {ip}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_in_words() {
        let json = include_bytes!("../tests/data/rfc8460-appendix-b.json");
        let told = tell(&Report::parse(json).unwrap());
        for part in [
            "Mail to company-y.example, MTA-STS: 5326 conversations with TLS as it should be, 303 not.",
            "(The policy is in mode testing, so the mail was delivered all the same.)",
            "  200 times at mx2.mail.company-y.example (203.0.113.56) from 2001:db8:abcd:13::1: the server offered no STARTTLS, or refused it (starttls-not-supported)",
            "    what helps: renew the server's certificate",
            "    in the sender's words: X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
        let first = told.find("200 times").unwrap();
        assert!(first < told.find("100 times").unwrap(), "the most frequent first");
    }

    #[test]
    fn every_reason_has_its_words() {
        for kind in ResultType::all() {
            let words = of(&kind);
            assert!(!words.what.is_empty() && !words.remedy.is_empty());
        }
    }
}
