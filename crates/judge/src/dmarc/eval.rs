//! DMARC evaluated: policy, alignment, result (RFC 9989 §5.3).

use super::author::AuthorProblem;
use super::record::{Alignment, Record};
use super::walk::{Place, Policy, Walker};
use super::{DmarcOutcome, DmarcResult, IdentifierOutcome, Mechanism, Request};
use crate::dkim::{DkimOutcome, DkimResult};
use crate::spf::{Identity, SpfOutcome, SpfResult};
use dns::Resolver;
use mail::Domain;

/// Judges a message by its author domain and the outcomes of SPF and DKIM.
pub async fn evaluate(
    resolver: &dyn Resolver,
    author: &Result<Domain, AuthorProblem>,
    spf: &SpfOutcome,
    dkim: &DkimOutcome,
) -> DmarcOutcome {
    let author = match author {
        Ok(author) => author,
        Err(problem) => {
            return DmarcOutcome {
                author_problem: Some(problem.clone()),
                ..empty(None, DmarcResult::PermError, problem.to_string())
            };
        }
    };
    let mut evaluation = Evaluation {
        walker: Walker::new(resolver),
        author,
        organizational: None,
    };
    let identifiers = candidates(spf, dkim);
    let mut outcome = match evaluation.walker.policy(author).await {
        Ok(Some(policy)) => evaluation.with_policy(resolver, policy, identifiers).await,
        Ok(None) => {
            let because = format!("{author} publishes no DMARC policy, and nobody does for it");
            evaluation.without_policy(identifiers, DmarcResult::None, because)
        }
        Err(problem) => {
            let because = format!("the DMARC policy of {author} could not be fetched: {problem}");
            evaluation.without_policy(identifiers, DmarcResult::TempError, because)
        }
    };
    outcome.steps = evaluation.walker.steps;
    outcome.organizational_domain = evaluation.organizational;
    outcome
}

fn empty(author: Option<Domain>, result: DmarcResult, because: String) -> DmarcOutcome {
    DmarcOutcome {
        result,
        author_domain: author,
        author_problem: None,
        organizational_domain: None,
        policy_domain: None,
        record: None,
        published: None,
        request: None,
        request_tag: None,
        identifiers: Vec::new(),
        because,
        steps: Vec::new(),
    }
}

/// What the check of an identifier found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Authenticated {
    Pass,
    Unknown,
    No,
}

/// An identifier before its alignment is known.
struct Candidate {
    mechanism: Mechanism,
    domain: String,
    result: String,
    authenticated: Authenticated,
    /// What its own check says.
    because: String,
}

fn candidates(spf: &SpfOutcome, dkim: &DkimOutcome) -> Vec<Candidate> {
    let from_spf = Candidate {
        mechanism: Mechanism::Spf,
        domain: spf.domain.clone(),
        result: spf.result.to_string(),
        authenticated: match spf.result {
            SpfResult::Pass => Authenticated::Pass,
            SpfResult::TempError => Authenticated::Unknown,
            _ => Authenticated::No,
        },
        because: match spf.identity {
            Identity::MailFrom => spf.because(),
            Identity::Helo => format!("{} (checked by the HELO name)", spf.because()),
        },
    };
    let from_dkim = dkim.signatures.iter().map(|s| Candidate {
        mechanism: Mechanism::Dkim,
        domain: s.domain.as_ref().map(ToString::to_string).unwrap_or_default(),
        result: s.result.to_string(),
        authenticated: match s.result {
            DkimResult::Pass => Authenticated::Pass,
            DkimResult::TempError => Authenticated::Unknown,
            _ => Authenticated::No,
        },
        because: s.because(),
    });
    std::iter::once(from_spf).chain(from_dkim).collect()
}

struct Evaluation<'a> {
    walker: Walker<'a>,
    author: &'a Domain,
    organizational: Option<Domain>,
}

impl Evaluation<'_> {
    fn without_policy(
        &self,
        candidates: Vec<Candidate>,
        result: DmarcResult,
        because: String,
    ) -> DmarcOutcome {
        let mut outcome = empty(Some(self.author.clone()), result, because);
        for candidate in candidates {
            // The same domain is aligned under every policy.
            let aligned = (candidate.domain == self.author.as_str()).then_some(true);
            outcome.identifiers.push(candidate.settled(aligned, None));
        }
        outcome
    }

    async fn with_policy(
        &mut self,
        resolver: &dyn Resolver,
        policy: Policy,
        candidates: Vec<Candidate>,
    ) -> DmarcOutcome {
        let record = &policy.record;
        if !record.has_valid_requests() && record.rua.is_empty() {
            // RFC 9989 §4.10.1: no DMARC processing.
            let because = format!(
                "the DMARC record of {} holds a request that is none of none, quarantine, reject",
                policy.domain
            );
            let mut outcome = self.without_policy(candidates, DmarcResult::PermError, because);
            outcome.policy_domain = Some(policy.domain);
            outcome.record = Some(policy.record);
            return outcome;
        }
        let (published, tag) = self.request(resolver, &policy).await;
        let mut identifiers = Vec::new();
        for candidate in candidates {
            identifiers.push(self.align(candidate, record).await);
        }
        let (result, because) = conclude(self.author, &identifiers);
        let request = if record.testing {
            published.milder()
        } else {
            published
        };
        DmarcOutcome {
            policy_domain: Some(policy.domain),
            published: Some(published),
            request: Some(request),
            request_tag: Some(tag),
            identifiers,
            record: Some(policy.record),
            ..empty(Some(self.author.clone()), result, because)
        }
    }

    /// What the policy asks for this author, and by which tag (RFC 9989 §4.10.1).
    async fn request(&mut self, resolver: &dyn Resolver, policy: &Policy) -> (Request, &'static str) {
        let record = &policy.record;
        if !record.has_valid_requests() {
            return (Request::None, "p");
        }
        let p = record.p.unwrap_or(Request::None);
        if policy.place == Place::Author {
            return (p, "p");
        }
        let sp = record.sp.map_or((p, "p"), |sp| (sp, "sp"));
        match record.np {
            Some(np) if !exists(resolver, self.author).await => {
                let step = format!("{} does not exist: no A, AAAA or MX", self.author);
                self.walker.steps.push(step);
                (np, "np")
            }
            _ => sp,
        }
    }

    async fn align(&mut self, candidate: Candidate, record: &Record) -> IdentifierOutcome {
        let mode = match candidate.mechanism {
            Mechanism::Spf => record.aspf,
            Mechanism::Dkim => record.adkim,
        };
        if candidate.domain == self.author.as_str() {
            return candidate.settled(Some(true), None);
        }
        if candidate.authenticated == Authenticated::No {
            return candidate.settled(None, None);
        }
        let author = self.author;
        if mode == Alignment::Strict {
            let why = format!("which is not {author}, and {author} asks for strict alignment");
            return candidate.settled(Some(false), Some(why));
        }
        match self.same_organization(&candidate.domain).await {
            Ok(Some(shared)) => {
                let why = format!("which is of the same organisation as {author} ({shared})");
                candidate.settled(Some(true), Some(why))
            }
            Ok(None) => {
                let why = format!("which is not of the same organisation as {author}");
                candidate.settled(Some(false), Some(why))
            }
            Err(problem) => {
                let why = format!("whose organisation could not be found out: {problem}");
                candidate.settled(None, Some(why))
            }
        }
    }

    /// The organisational domain that a domain shares with the author, if it does.
    async fn same_organization(&mut self, domain: &str) -> Result<Option<Domain>, String> {
        let top = |d: &str| d.rsplit('.').next().map(str::to_owned);
        let domain = match Domain::parse(domain) {
            // Names with nothing in common share no organisation: no need to ask.
            Ok(domain) if top(domain.as_str()) == top(self.author.as_str()) => domain,
            _ => return Ok(None),
        };
        let of_author = match self.organizational.clone() {
            Some(known) => known,
            None => self.walker.organizational_domain(self.author).await?,
        };
        self.organizational = Some(of_author.clone());
        let of_domain = self.walker.organizational_domain(&domain).await?;
        Ok((of_author == of_domain).then_some(of_author))
    }
}

impl Candidate {
    fn settled(self, aligned: Option<bool>, why: Option<String>) -> IdentifierOutcome {
        let name = match self.mechanism {
            Mechanism::Spf => "SPF",
            Mechanism::Dkim => "DKIM",
        };
        let because = match (self.authenticated, why) {
            (Authenticated::Pass, Some(why)) => format!("{name} passes for {}, {why}", self.domain),
            (Authenticated::Pass, None) if aligned == Some(true) => {
                format!("{name} passes for {}, the author's own domain", self.domain)
            }
            _ => self.because,
        };
        IdentifierOutcome {
            mechanism: self.mechanism,
            domain: self.domain,
            authenticated: self.result,
            aligned,
            because,
        }
    }
}

fn conclude(author: &Domain, identifiers: &[IdentifierOutcome]) -> (DmarcResult, String) {
    let passed = |i: &&IdentifierOutcome| i.authenticated == "pass";
    if let Some(good) = identifiers
        .iter()
        .filter(passed)
        .find(|i| i.aligned == Some(true))
    {
        return (DmarcResult::Pass, good.because.clone());
    }
    // RFC 9989 §5.3.6: what could still turn out well is no fail.
    let open = |i: &&IdentifierOutcome| match i.authenticated.as_str() {
        "pass" => i.aligned.is_none(),
        "temperror" => i.aligned != Some(false),
        _ => false,
    };
    if let Some(unknown) = identifiers.iter().find(open) {
        return (DmarcResult::TempError, unknown.because.clone());
    }
    let because = format!("neither SPF nor DKIM vouches for {author}");
    (DmarcResult::Fail, because)
}

/// Whether a domain exists: it has an address or a mail exchanger (RFC 9989 §3.2.13). What could
/// not be asked is taken to exist.
async fn exists(resolver: &dyn Resolver, domain: &Domain) -> bool {
    fn has<T>(answer: dns::Result<T>) -> bool {
        match answer {
            Ok(answer) => !answer.records.is_empty(),
            Err(error) => error.is_temporary(),
        }
    }
    has(resolver.a(domain).await) || has(resolver.aaaa(domain).await) || has(resolver.mx(domain).await)
}
