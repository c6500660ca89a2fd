//! The judgement: from evidence and policy to what happens with a message, and why.
//!
//! Promises: a pure function; the first rule in the order of [`Rule`] that applies decides; every
//! refusal names the checks that failed, why, and what the sender can change. A message is
//! deferred only when an answer that is missing could change the decision. Never: a final refusal
//! that rests on a question which the DNS did not answer.

use crate::arc::ArcResult;
use crate::dmarc::{AuthorProblem, DmarcResult, IdentifierOutcome, Mechanism, Request};
use crate::dnsbl::{DnsblOutcome, DnsblResult};
use crate::evidence::{ConnectionEvidence, Evidence};
use crate::headers;
use crate::iprev::IprevResult;
use crate::spf::SpfResult;
use crate::words;
use mail::{Domain, EnhancedStatus};

/// Octets of a reply's text at most, so that it fits one line (RFC 5321 §4.5.3.1.5: 512 octets).
pub const TEXT_OCTETS_MAX: usize = 480;

/// What the operator wants done when a check goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Only note it.
    #[default]
    Accept,
    /// Deliver to Junk.
    Junk,
    /// Refuse the message.
    Refuse,
}

/// The operator's choices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Do as the author's domain asks by DMARC. Default true.
    pub enforce_dmarc: bool,
    /// A client that is on a blocklist. Default refuse.
    pub listed: Action,
    /// A message whose From names no domain, or more than one, so that DMARC cannot be asked.
    /// Default refuse. Reports (null reverse-path) that name nobody are exempt.
    pub no_author: Action,
    /// SPF fails and no DMARC policy says anything. Default accept (and mark).
    pub spf_fail: Action,
    /// The client's address has no name that resolves back to it. Default accept (and mark).
    pub iprev_fail: Action,
    /// Sealers of ARC chains that are believed when they say that DMARC passed before they
    /// changed the message. Default none.
    pub trusted_sealers: Vec<Domain>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            enforce_dmarc: true,
            listed: Action::Refuse,
            no_author: Action::Refuse,
            spf_fail: Action::Accept,
            iprev_fail: Action::Accept,
            trusted_sealers: Vec::new(),
        }
    }
}

/// What happens with the message.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposition {
    /// Deliver it as usual.
    Accept,
    /// Deliver it to Junk.
    Junk,
    /// Refuse it for good.
    Refuse {
        /// The reply code: 550.
        code: u16,
        /// The enhanced status (RFC 7372, RFC 3463).
        status: EnhancedStatus,
        /// The reply's text: one line of printable ASCII, at most [`TEXT_OCTETS_MAX`] octets.
        text: String,
    },
    /// Ask the client to come again later.
    Defer {
        /// The reply code: 451.
        code: u16,
        /// The enhanced status.
        status: EnhancedStatus,
        /// The reply's text: one line of printable ASCII, at most [`TEXT_OCTETS_MAX`] octets.
        text: String,
    },
}

/// The rule that decided. They are tried in this order, but for [`Rule::DnsTrouble`], which
/// stands in for a DMARC, SPF or iprev rule whose evidence is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The client's address is on a blocklist.
    Blocklist,
    /// The message has no single author domain.
    NoAuthor,
    /// DMARC passed.
    DmarcPass,
    /// DMARC failed, but a sealer that we trust saw it pass.
    TrustedArc,
    /// DMARC failed and the domain asks to refuse.
    DmarcReject,
    /// DMARC failed and the domain asks to quarantine.
    DmarcQuarantine,
    /// DMARC failed and the domain asks for nothing, or the operator does not enforce DMARC.
    DmarcNone,
    /// An answer that the decision needs is missing.
    DnsTrouble,
    /// SPF failed, and there is no DMARC policy.
    SpfFail,
    /// The client's address has no confirmed name.
    IprevFail,
    /// Nothing speaks against the message.
    Nothing,
}

/// One check and what it found.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Check {
    /// The check: `iprev`, `dnsbl`, `spf`, `dkim`, `dmarc`, `arc`.
    pub name: &'static str,
    /// Its result: `pass`, `fail`…
    pub result: String,
    /// Why, in words.
    pub because: String,
}

/// What happens with a message, and why.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Judgement {
    /// What happens.
    pub disposition: Disposition,
    /// The rule that decided.
    pub rule: Rule,
    /// Why, as one sentence without a full stop.
    pub because: String,
    /// Every check, also those that did not decide.
    pub checks: Vec<Check>,
    /// What the sender, or the operator, could change; `None` when nothing needs to change.
    pub remedy: Option<String>,
}

struct Finding {
    rule: Rule,
    act: Act,
    because: String,
    remedy: Option<String>,
}

enum Act {
    Accept,
    Junk,
    Refuse(EnhancedStatus),
    Defer(EnhancedStatus),
}

/// Judges a client by its address alone, before it says a word: `Some` when it is to be refused.
#[must_use]
pub fn judge_connection(evidence: &ConnectionEvidence, policy: &Policy) -> Option<Judgement> {
    let refuses = |action| action == Action::Refuse;
    let finding = blocklist(evidence, policy).filter(|_| refuses(policy.listed))?;
    Some(finding.into_judgement(connection_checks(evidence)))
}

/// Judges a message.
#[must_use]
pub fn judge(evidence: &Evidence, policy: &Policy) -> Judgement {
    let finding = blocklist(&evidence.connection, policy)
        .or_else(|| no_author(evidence, policy))
        .or_else(|| dmarc(evidence, policy))
        .or_else(|| spf(evidence, policy))
        .or_else(|| iprev(evidence, policy))
        .unwrap_or_else(|| nothing(evidence));
    finding.into_judgement(checks(evidence))
}

impl Finding {
    fn into_judgement(self, checks: Vec<Check>) -> Judgement {
        let mut text = self.because.clone();
        if let Some(remedy) = &self.remedy {
            text = format!("{text}. {remedy}");
        }
        let text = words::ascii(&text, TEXT_OCTETS_MAX);
        let disposition = match self.act {
            Act::Accept => Disposition::Accept,
            Act::Junk => Disposition::Junk,
            Act::Refuse(status) => Disposition::Refuse {
                code: 550,
                status,
                text,
            },
            Act::Defer(status) => Disposition::Defer {
                code: 451,
                status,
                text,
            },
        };
        Judgement {
            disposition,
            rule: self.rule,
            because: words::printable(&self.because),
            checks,
            remedy: self.remedy,
        }
    }
}

fn act(action: Action, status: EnhancedStatus) -> Act {
    match action {
        Action::Accept => Act::Accept,
        Action::Junk => Act::Junk,
        Action::Refuse => Act::Refuse(status),
    }
}

fn blocklist(evidence: &ConnectionEvidence, policy: &Policy) -> Option<Finding> {
    if policy.listed == Action::Accept {
        return None;
    }
    let listed: &DnsblOutcome = evidence.dnsbl.iter().find(|l| l.result == DnsblResult::Listed)?;
    let reason = listed
        .reason
        .as_ref()
        .map(|r| format!(": {r}"))
        .unwrap_or_default();
    Some(Finding {
        rule: Rule::Blocklist,
        act: act(policy.listed, EnhancedStatus::new(5, 7, 1)),
        because: format!(
            "Your address {} is on the blocklist {}{reason}",
            listed.ip, listed.zone
        ),
        remedy: Some(format!(
            "Ask {} how to be taken off its list, or send through another server",
            listed.zone
        )),
    })
}

fn no_author(evidence: &Evidence, policy: &Policy) -> Option<Finding> {
    let problem = evidence.dmarc.author_problem.as_ref()?;
    // Reports of old servers name no author, and what names nobody forges nobody.
    let names_nobody = matches!(problem, AuthorProblem::NoFrom | AuthorProblem::NoAddress);
    if policy.no_author == Action::Accept || (names_nobody && evidence.reverse_path.is_null()) {
        return None;
    }
    Some(Finding {
        rule: Rule::NoAuthor,
        act: act(policy.no_author, EnhancedStatus::new(5, 6, 0)),
        because: evidence.dmarc.because.clone(),
        remedy: Some(
            "Send it with exactly one From field that holds one address (RFC 5322 section 3.6)".into(),
        ),
    })
}

fn dmarc(evidence: &Evidence, policy: &Policy) -> Option<Finding> {
    let outcome = &evidence.dmarc;
    let author = outcome.author_domain.as_ref()?;
    let found = |rule, act| Finding {
        rule,
        act,
        because: outcome.because.clone(),
        remedy: None,
    };
    match outcome.result {
        DmarcResult::None | DmarcResult::PermError => return None,
        DmarcResult::Pass => return Some(found(Rule::DmarcPass, Act::Accept)),
        DmarcResult::TempError => return dmarc_unknown(evidence, policy),
        DmarcResult::Fail => {}
    }
    if !policy.enforce_dmarc {
        return Some(found(Rule::DmarcNone, Act::Accept));
    }
    let rule = match outcome.request {
        None | Some(Request::None) => return Some(found(Rule::DmarcNone, Act::Accept)),
        Some(Request::Quarantine) => Rule::DmarcQuarantine,
        Some(Request::Reject) => Rule::DmarcReject,
    };
    if let Some(because) = trusted_chain(evidence, policy) {
        return Some(Finding {
            because,
            ..found(Rule::TrustedArc, Act::Accept)
        });
    }
    let failed = failed_checks(evidence);
    Some(Finding {
        rule,
        act: if rule == Rule::DmarcReject {
            Act::Refuse(EnhancedStatus::new(5, 7, 26))
        } else {
            Act::Junk
        },
        because: format!(
            "{author} asks that mail which it does not vouch for be {} (DMARC {}={}): {failed}",
            if rule == Rule::DmarcReject {
                "refused"
            } else {
                "put aside"
            },
            outcome.request_tag.unwrap_or("p"),
            outcome.published.map_or("none", Request::as_str),
        ),
        remedy: Some(format!(
            "Send through a server that {author} allows in its SPF record, or sign with a DKIM key of {author}"
        )),
    })
}

/// Which identifiers were no help, and why.
fn failed_checks(evidence: &Evidence) -> String {
    let of = |mechanism| {
        let all: Vec<&str> = evidence
            .dmarc
            .identifiers
            .iter()
            .filter(|i| i.mechanism == mechanism)
            .map(|i| i.because.as_str())
            .collect();
        all.join("; ")
    };
    let dkim = of(Mechanism::Dkim);
    let dkim = if dkim.is_empty() {
        evidence.dkim.because()
    } else {
        dkim
    };
    format!("SPF: {}; DKIM: {dkim}", of(Mechanism::Spf))
}

/// An ARC chain that holds, sealed by one whom we trust, who saw DMARC pass.
fn trusted_chain(evidence: &Evidence, policy: &Policy) -> Option<String> {
    if evidence.arc.result != ArcResult::Pass {
        return None;
    }
    let set = evidence.arc.sets.last()?;
    let sealer = set
        .sealer
        .as_ref()
        .filter(|s| policy.trusted_sealers.contains(s))?;
    if !headers::claims(&set.authentication_results, "dmarc", "pass") {
        return None;
    }
    Some(format!(
        "DMARC fails here, but {sealer}, whom we trust, saw it pass before the message was changed"
    ))
}

fn dmarc_unknown(evidence: &Evidence, policy: &Policy) -> Option<Finding> {
    let outcome = &evidence.dmarc;
    // A policy that asks for nothing decides nothing, whatever the answer would be.
    if !policy.enforce_dmarc || outcome.request == Some(Request::None) {
        return None;
    }
    // With such an identifier it passes, or there is no policy: it is accepted either way.
    let vouched = |i: &IdentifierOutcome| i.authenticated == "pass" && i.aligned == Some(true);
    if outcome.identifiers.iter().any(vouched) {
        return None;
    }
    let trouble_of = |mechanism| {
        outcome
            .identifiers
            .iter()
            .any(|i| i.mechanism == mechanism && i.authenticated == "temperror")
    };
    let status = match (
        outcome.record.is_some(),
        trouble_of(Mechanism::Spf),
        trouble_of(Mechanism::Dkim),
    ) {
        // RFC 7372 §3.2 and §3.3 in their transient class; RFC 6376 §6.1.2 names 4.7.5 for keys.
        (true, true, true) => EnhancedStatus::new(4, 7, 26),
        (true, true, false) => EnhancedStatus::new(4, 7, 24),
        (true, false, true) => EnhancedStatus::new(4, 7, 5),
        // RFC 7208 §8.6 names 4.4.3: a directory server failed.
        _ => EnhancedStatus::new(4, 4, 3),
    };
    Some(Finding {
        rule: Rule::DnsTrouble,
        act: Act::Defer(status),
        because: outcome.because.clone(),
        remedy: Some("Try again later; if it stays so, the domain's name servers need a look".into()),
    })
}

fn spf(evidence: &Evidence, policy: &Policy) -> Option<Finding> {
    if policy.spf_fail == Action::Accept {
        return None;
    }
    let outcome = &evidence.spf;
    match outcome.result {
        SpfResult::Fail => {
            let says = outcome
                .explanation
                .as_ref()
                .map(|e| format!("; the domain says: {e}"))
                .unwrap_or_default();
            Some(Finding {
                rule: Rule::SpfFail,
                act: act(policy.spf_fail, EnhancedStatus::new(5, 7, 23)),
                because: format!("SPF: {}{says}", outcome.because()),
                remedy: Some(format!(
                    "Send through a server that {} allows in its SPF record",
                    outcome.domain
                )),
            })
        }
        SpfResult::TempError => Some(Finding {
            rule: Rule::DnsTrouble,
            act: Act::Defer(EnhancedStatus::new(4, 7, 24)),
            because: format!("SPF: {}", outcome.because()),
            remedy: Some("Try again later".into()),
        }),
        _ => None,
    }
}

fn iprev(evidence: &Evidence, policy: &Policy) -> Option<Finding> {
    if policy.iprev_fail == Action::Accept {
        return None;
    }
    let outcome = &evidence.connection.iprev;
    let (rule, act) = match outcome.result {
        IprevResult::Pass => return None,
        IprevResult::TempError => (Rule::DnsTrouble, Act::Defer(EnhancedStatus::new(4, 7, 25))),
        IprevResult::Fail | IprevResult::PermError => (
            Rule::IprevFail,
            act(policy.iprev_fail, EnhancedStatus::new(5, 7, 25)),
        ),
    };
    Some(Finding {
        rule,
        act,
        because: outcome.because.clone(),
        remedy: Some(format!(
            "Give {} a name in the DNS that resolves back to it",
            outcome.ip
        )),
    })
}

fn nothing(evidence: &Evidence) -> Finding {
    Finding {
        rule: Rule::Nothing,
        act: Act::Accept,
        because: format!("no rule speaks against it; DMARC: {}", evidence.dmarc.because),
        remedy: None,
    }
}

fn connection_checks(evidence: &ConnectionEvidence) -> Vec<Check> {
    let mut checks = vec![Check {
        name: "iprev",
        result: evidence.iprev.result.to_string(),
        because: evidence.iprev.because.clone(),
    }];
    checks.extend(evidence.dnsbl.iter().map(|list| {
        Check {
            name: "dnsbl",
            result: match list.result {
                DnsblResult::Listed => "listed",
                DnsblResult::NotListed => "notlisted",
                DnsblResult::Refused => "refused",
                DnsblResult::TempError => "temperror",
            }
            .to_owned(),
            because: match &list.reason {
                Some(reason) => format!("{}: {reason}", list.because),
                None => list.because.clone(),
            },
        }
    }));
    checks
}

fn checks(evidence: &Evidence) -> Vec<Check> {
    let mut checks = connection_checks(&evidence.connection);
    let mut add = |name, result: &str, because: String| {
        checks.push(Check {
            name,
            result: result.to_owned(),
            because,
        });
    };
    add("spf", evidence.spf.result.as_str(), evidence.spf.because());
    add("dkim", evidence.dkim.result().as_str(), evidence.dkim.because());
    add(
        "dmarc",
        evidence.dmarc.result.as_str(),
        evidence.dmarc.because.clone(),
    );
    add("arc", evidence.arc.result.as_str(), evidence.arc.because());
    checks
}

impl Judgement {
    /// The judgement in lines for people.
    #[must_use]
    pub fn explain(&self) -> Vec<String> {
        let what = match &self.disposition {
            Disposition::Accept => "accepted".to_owned(),
            Disposition::Junk => "put into Junk".to_owned(),
            Disposition::Refuse { code, status, .. } => format!("refused with {code} {status}"),
            Disposition::Defer { code, status, .. } => format!("deferred with {code} {status}"),
        };
        let mut lines = vec![format!("{what} because {}", self.because)];
        for check in &self.checks {
            lines.push(format!("  {}: {}: {}", check.name, check.result, check.because));
        }
        if let Some(remedy) = &self.remedy {
            lines.push(format!("  to change it: {remedy}"));
        }
        lines
    }
}
