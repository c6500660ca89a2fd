//! `check_host()` (RFC 7208 §4): a record evaluated term by term, with the limits of §4.6.4.
//!
//! A void lookup is counted once a term, for the term's own question: an address question about
//! the host of an `mx` term, or the name of a `ptr` term, is not one.

use super::asking::{Check, Stop, at_or_below};
use super::macros::{MacroString, Values};
use super::record::{self, Cidr, Directive, Mechanism, Modifier, Qualifier, Record};
use super::{EXPLANATION_OCTETS_MAX, Identity, MX_NAMES_MAX, SpfDecision, SpfOutcome, SpfQuery, SpfResult};
use dns::{Name, Resolver};
use futures_util::future::BoxFuture;
use mail::Domain;
use std::net::IpAddr;

/// What `check_host()` gives for one domain.
struct Verdict {
    result: SpfResult,
    decided_by: Option<SpfDecision>,
    /// The explanation to fetch for a fail, and the domain whose record names it.
    exp: Option<(MacroString, String)>,
    problem: Option<String>,
}

impl Verdict {
    fn none(problem: String) -> Self {
        Self {
            result: SpfResult::None,
            decided_by: None,
            exp: None,
            problem: Some(problem),
        }
    }
}

pub(super) async fn check(resolver: &dyn Resolver, query: &SpfQuery<'_>) -> SpfOutcome {
    let identity = if query.mail_from.is_empty() {
        Identity::Helo
    } else {
        Identity::MailFrom
    };
    let (local_part, domain) = match (identity, query.mail_from.rsplit_once('@')) {
        (Identity::Helo, _) => ("", query.helo),
        (Identity::MailFrom, Some(parts)) => parts,
        (Identity::MailFrom, None) => ("", query.mail_from),
    };
    let mut check = Check {
        resolver,
        ip: query.ip.to_canonical(),
        helo: query.helo,
        receiver: query.receiver,
        now_secs: query.now.secs(),
        // RFC 7208 §4.3: no local part is "postmaster".
        local_part: if local_part.is_empty() {
            "postmaster"
        } else {
            local_part
        }
        .to_owned(),
        sender_domain: ascii_form(domain),
        lookups: 0,
        void_lookups: 0,
        validated: None,
        steps: Vec::new(),
    };
    let domain = check.sender_domain.clone();
    let verdict = match check.host(domain.clone(), 0).await {
        Ok(verdict) => verdict,
        Err(stop) => stopped(stop),
    };
    let explanation = match &verdict.exp {
        Some((exp, at)) if verdict.result == SpfResult::Fail => check.explanation(exp, at).await,
        _ => None,
    };
    SpfOutcome {
        result: verdict.result,
        identity,
        sender: format!("{}@{domain}", check.local_part),
        domain,
        ip: check.ip,
        helo: query.helo.to_owned(),
        decided_by: verdict.decided_by,
        explanation,
        problem: verdict.problem,
        lookups: check.lookups,
        void_lookups: check.void_lookups,
        steps: check.steps,
    }
}

fn stopped(stop: Stop) -> Verdict {
    let (result, problem) = match stop {
        Stop::Temp(problem) => (SpfResult::TempError, problem),
        Stop::Perm(problem) => (SpfResult::PermError, problem),
    };
    Verdict {
        result,
        decided_by: None,
        exp: None,
        problem: Some(problem),
    }
}

/// A domain in lower case; U-labels as A-labels (RFC 7208 §4.3).
fn ascii_form(domain: &str) -> String {
    if domain.is_ascii() {
        return domain.to_ascii_lowercase();
    }
    Domain::parse(domain).map_or_else(|_| domain.to_lowercase(), |d| d.to_string())
}

impl Check<'_> {
    /// RFC 7208 §4: the recursion of `include` and `redirect` is bounded by the lookup limit.
    fn host<'s>(&'s mut self, domain: String, depth: u32) -> BoxFuture<'s, Result<Verdict, Stop>> {
        Box::pin(async move {
            let step = self.begin(depth, &domain, "record");
            let record = match self.record(&domain, step).await? {
                Ok(record) => record,
                Err(verdict) => return Ok(verdict),
            };
            for directive in &record.directives {
                if self.directive(directive, &domain, depth).await? {
                    return Ok(Verdict {
                        result: result_of(directive.qualifier),
                        decided_by: Some(SpfDecision {
                            domain: domain.clone(),
                            term: directive.text.clone(),
                        }),
                        exp: record.exp.map(|m| (m.domain, domain)),
                        problem: None,
                    });
                }
            }
            match record.redirect {
                Some(redirect) => self.redirect(redirect, domain, depth).await,
                None => Ok(Verdict {
                    result: SpfResult::Neutral,
                    decided_by: None,
                    exp: None,
                    problem: None,
                }),
            }
        })
    }

    /// Finds and reads the record of a domain (RFC 7208 §4.3 to §4.6); the inner error is a verdict.
    async fn record(&mut self, domain: &str, step: usize) -> Result<Result<Record, Verdict>, Stop> {
        let name = Name::parse(domain).ok().filter(|n| n.label_count() > 1);
        let Some(name) = name else {
            let problem = format!("\"{domain}\" is no domain name with at least two labels");
            self.end(step, None, &problem);
            return Ok(Err(Verdict::none(problem)));
        };
        let answer = self.resolver.txt_of(&name).await;
        self.tell(step, &format!("{name} TXT"), &answer, |t| {
            format!("\"{}\"", t.escape_ascii())
        });
        let texts = match answer {
            Ok(answer) => answer.records,
            Err(error) if error.is_temporary() => return Err(self.temporary(step, &error)),
            Err(error) => {
                self.end(step, None, &error);
                return Ok(Err(Verdict::none(error.to_string())));
            }
        };
        let mut records = texts.iter().filter(|t| record::is_record(t));
        let Some(text) = records.next() else {
            let problem = format!("{name} publishes no SPF record");
            self.end(step, None, &problem);
            return Ok(Err(Verdict::none(problem)));
        };
        if records.next().is_some() {
            // RFC 7208 §4.5
            return Err(self.permanent(step, format!("{name} publishes more than one SPF record")));
        }
        match Record::parse(text) {
            Ok(record) => {
                self.end(step, None, &"found");
                Ok(Ok(record))
            }
            Err(why) => Err(self.permanent(step, format!("the SPF record of {name} is not valid: {why}"))),
        }
    }

    /// Whether a mechanism matches.
    async fn directive(&mut self, directive: &Directive, domain: &str, depth: u32) -> Result<bool, Stop> {
        let step = self.begin(depth, domain, &directive.text);
        let outcome = match &directive.mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(net, length) => Ok(within(self.ip, IpAddr::V4(*net), *length)),
            Mechanism::Ip6(net, length) => Ok(within(self.ip, IpAddr::V6(*net), *length)),
            Mechanism::Include(spec) => self.include(spec, domain, depth, step).await,
            Mechanism::A(spec, cidr) => self.a(spec.as_ref(), *cidr, domain, step).await,
            Mechanism::Mx(spec, cidr) => self.mx(spec.as_ref(), *cidr, domain, step).await,
            Mechanism::Ptr(spec) => self.ptr(spec.as_ref(), domain, step).await,
            Mechanism::Exists(spec) => self.exists(spec, domain, step).await,
        };
        let matched = match outcome {
            Ok(matched) => matched,
            Err(stop) => {
                self.end_unless_told(step, "could not be evaluated, which ends the check");
                return Err(stop);
            }
        };
        let note = if matched { "matches" } else { "does not match" };
        self.end_matched(step, matched, note);
        Ok(matched)
    }

    /// RFC 7208 §5.2.
    async fn include(
        &mut self,
        spec: &MacroString,
        domain: &str,
        depth: u32,
        step: usize,
    ) -> Result<bool, Stop> {
        self.count_lookup(step)?;
        let target = self.expand(spec, domain, step).await?;
        let verdict = self.host(target.clone(), depth + 1).await?;
        self.end(step, None, &format!("{target} gives {}", verdict.result));
        match verdict.result {
            SpfResult::Pass => Ok(true),
            SpfResult::None => {
                let why = verdict.problem.unwrap_or_default();
                Err(self.permanent(step, format!("{domain} includes {target}, but {why}")))
            }
            _ => Ok(false),
        }
    }

    /// RFC 7208 §6.1.
    async fn redirect(&mut self, redirect: Modifier, domain: String, depth: u32) -> Result<Verdict, Stop> {
        let step = self.begin(depth, &domain, &redirect.text);
        self.count_lookup(step)?;
        let target = self.expand(&redirect.domain, &domain, step).await?;
        self.end(step, None, &format!("goes on with {target}"));
        let verdict = self.host(target.clone(), depth).await?;
        if verdict.result == SpfResult::None {
            let why = verdict.problem.unwrap_or_default();
            return Err(self.permanent(step, format!("{domain} redirects to {target}, but {why}")));
        }
        Ok(verdict)
    }

    /// RFC 7208 §5.3.
    async fn a(
        &mut self,
        spec: Option<&MacroString>,
        cidr: Cidr,
        domain: &str,
        step: usize,
    ) -> Result<bool, Stop> {
        self.count_lookup(step)?;
        let Some(name) = self.target(spec, domain, step).await? else {
            return Ok(false);
        };
        let addresses = self.addresses(&name, step).await?;
        if addresses.is_empty() {
            self.count_void(step)?;
        }
        Ok(self.any_within(&addresses, cidr))
    }

    /// RFC 7208 §5.4.
    async fn mx(
        &mut self,
        spec: Option<&MacroString>,
        cidr: Cidr,
        domain: &str,
        step: usize,
    ) -> Result<bool, Stop> {
        self.count_lookup(step)?;
        let Some(name) = self.target(spec, domain, step).await? else {
            return Ok(false);
        };
        let answer = self.resolver.mx_of(&name).await;
        self.tell(step, &format!("{name} MX"), &answer, |mx| match &mx.exchange {
            Some(host) => format!("{} {host}", mx.preference),
            None => format!("{} .", mx.preference),
        });
        let mut exchangers = self.records(answer, step)?;
        if exchangers.is_empty() {
            self.count_void(step)?;
        }
        if exchangers.len() > MX_NAMES_MAX {
            let why = format!("{name} has more than {MX_NAMES_MAX} mail exchangers");
            return Err(self.permanent(step, why));
        }
        exchangers.sort_by_key(|mx| mx.preference);
        for host in exchangers.iter().filter_map(|mx| mx.exchange.as_ref()) {
            let addresses = self.addresses(host, step).await?;
            if self.any_within(&addresses, cidr) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// RFC 7208 §5.5.
    async fn ptr(&mut self, spec: Option<&MacroString>, domain: &str, step: usize) -> Result<bool, Stop> {
        self.count_lookup(step)?;
        let Some(target) = self.target(spec, domain, step).await? else {
            return Ok(false);
        };
        self.validate_names(step).await?;
        let names = self.validated.as_deref().unwrap_or_default();
        Ok(names.iter().any(|n| at_or_below(n.as_str(), target.as_str())))
    }

    /// RFC 7208 §5.7: always an A question, also for IPv6 clients.
    async fn exists(&mut self, spec: &MacroString, domain: &str, step: usize) -> Result<bool, Stop> {
        self.count_lookup(step)?;
        let Some(name) = self.target(Some(spec), domain, step).await? else {
            return Ok(false);
        };
        let answer = self.resolver.a_of(&name).await;
        self.tell(step, &format!("{name} A"), &answer, ToString::to_string);
        let found = !self.records(answer, step)?.is_empty();
        if !found {
            self.count_void(step)?;
        }
        Ok(found)
    }

    /// The name that a mechanism asks about; `None` when it cannot be a name, and so cannot match
    /// (RFC 7208 §4.8 leaves this to us).
    async fn target(
        &mut self,
        spec: Option<&MacroString>,
        domain: &str,
        step: usize,
    ) -> Result<Option<Name>, Stop> {
        let text = match spec {
            Some(spec) => self.expand(spec, domain, step).await?,
            None => domain.to_owned(),
        };
        // RFC 8616 §4: a macro that gives more than ASCII never matches.
        let name = Name::parse(&text).ok().filter(|_| text.is_ascii());
        if name.is_none() {
            self.end(step, None, &format!("\"{text}\" cannot be asked of the DNS"));
        }
        Ok(name)
    }

    async fn expand(&mut self, spec: &MacroString, domain: &str, step: usize) -> Result<String, Stop> {
        if spec.needs_validated_name() && self.validated.is_none() {
            // RFC 7208 §4.6.4: the PTR question of %{p} counts as well.
            self.count_lookup(step)?;
            self.validate_names(step).await?;
        }
        Ok(spec.expand_domain(&self.values(domain)))
    }

    fn values<'v>(&'v self, domain: &'v str) -> Values<'v> {
        Values {
            local_part: &self.local_part,
            sender_domain: &self.sender_domain,
            domain,
            ip: self.ip,
            helo: self.helo,
            receiver: self.receiver,
            now_secs: self.now_secs,
            validated_name: self.validated_name(domain),
        }
    }

    fn any_within(&self, addresses: &[IpAddr], cidr: Cidr) -> bool {
        addresses.iter().any(|net| {
            let length = if net.is_ipv4() { cidr.v4 } else { cidr.v6 };
            within(self.ip, *net, length)
        })
    }

    /// RFC 7208 §6.2: any trouble means that there is no explanation.
    async fn explanation(&mut self, exp: &MacroString, domain: &str) -> Option<String> {
        let step = self.begin(0, domain, "exp");
        self.end(step, None, &"the explanation of the fail");
        let name = self.expand(exp, domain, step).await.ok()?;
        let name = Name::parse(&name).ok()?;
        let answer = self.resolver.txt_of(&name).await;
        self.tell(step, &format!("{name} TXT"), &answer, |t| {
            format!("\"{}\"", t.escape_ascii())
        });
        let texts = answer.ok()?.records;
        let [text] = texts.as_slice() else {
            return None;
        };
        let text = std::str::from_utf8(text).ok()?;
        let text = MacroString::parse_explanation(text).ok()?;
        if text.needs_validated_name() {
            self.validate_names(step).await.ok()?;
        }
        let expanded = text.expand(&self.values(domain));
        Some(crate::words::ascii(&expanded, EXPLANATION_OCTETS_MAX)).filter(|t| !t.is_empty())
    }
}

fn result_of(qualifier: Qualifier) -> SpfResult {
    match qualifier {
        Qualifier::Pass => SpfResult::Pass,
        Qualifier::Fail => SpfResult::Fail,
        Qualifier::SoftFail => SpfResult::SoftFail,
        Qualifier::Neutral => SpfResult::Neutral,
    }
}

/// Whether the first `length` bits of both addresses agree. Addresses of different kinds never do.
fn within(ip: IpAddr, net: IpAddr, length: u8) -> bool {
    match (ip, net) {
        (IpAddr::V4(ip), IpAddr::V4(net)) => {
            let differ = u32::from(ip) ^ u32::from(net);
            differ.leading_zeros() >= u32::from(length)
        }
        (IpAddr::V6(ip), IpAddr::V6(net)) => {
            let differ = u128::from(ip) ^ u128::from(net);
            differ.leading_zeros() >= u32::from(length)
        }
        _ => false,
    }
}
