//! What a conversation came to as far as TLS goes, for TLS reports (RFC 8460 §4.3), and under whose policy
//! it was held (§4.4). Pure.
//!
//! The policy is the one that decided: DANE where the server has TLSA records that count, otherwise MTA-STS
//! where a policy holds, enforced or only tested, otherwise none. Under a policy a conversation is a success
//! when it had the TLS that the policy asks for, whether mail would have gone without it or not; without one
//! any TLS is a success, because nobody asked for a certificate that verifies. A conversation that never came
//! to STARTTLS (no connection, a refusal in the greeting) says nothing.
//!
//! Counted without a conversation: a server that a policy keeps from being used, when its turn comes, and an
//! MTA-STS policy that could not be had, once for each attempt.
//!
//! Reasons come from what the verifier of certificates and the policies say in types; words only go with them.

use crate::conversation::{Broken, Held};
use crate::heard::{session_stage, told};
use crate::plan::{By, Hop, Plan};
use crate::route::{Action, Route, ServerName, route_for};
use crate::security::{AskedBy, Cause, Level, Refused, TlsaFound};
use mail::{Domain, Host, Timestamp};
use mtasts::FaultKind;
use smtp::client::{Failure as SessionFailure, Stage, TlsWish};
use std::net::IpAddr;
use std::sync::Arc;
use tls::Flaw;
use tlsrpt::{Collector, Failure, Policy, PolicyType, ResultType, Session};

/// By which policy of a domain a server was judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Under {
    /// None: TLS is opportunistic.
    Nothing,
    /// The domain's MTA-STS policy.
    Sts,
    /// TLSA records.
    Tlsa,
}

/// What one conversation came to, or why it was not held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsResult {
    /// By which policy it was judged.
    pub under: Under,
    /// With which server.
    pub host: String,
    /// At which address; `None`: it was not even called.
    pub ip: Option<IpAddr>,
    /// From which address of ours, where it is known.
    pub sending_ip: Option<IpAddr>,
    /// Whether it had the TLS that the policy asks for, and why not.
    pub result: Result<(), Failure>,
}

/// What a conversation came to that was begun with this wish, from this address of ours; `None` when it says
/// nothing about TLS.
pub(crate) fn of(
    plan: &Plan,
    (hop, from): (&Hop, Option<IpAddr>),
    level: &Level,
    wish: TlsWish,
    held: &Held,
) -> Option<TlsResult> {
    let under = under(plan, hop, level);
    let result = match reached(wish, held)? {
        // In mode enforce it is not even called.
        _ if under == Under::Sts && !is_named(plan, hop) => Err(not_named(hop)),
        Err(failure) => Err(failure),
        Ok(()) => match (under, &held.flaw) {
            (Under::Sts, Some((flaw, why))) => Err(Failure::because(of_flaw(*flaw), why)),
            (Under::Tlsa, _) if !matches!(level, Level::Dane(_)) => Err(Failure::because(
                ResultType::TlsaInvalid,
                "none of the TLSA records can be used (RFC 7672 section 3.1)",
            )),
            _ => Ok(()),
        },
    };
    Some(TlsResult {
        under,
        host: hop.host.to_string(),
        ip: Some(hop.address.ip()),
        sending_ip: from,
        result,
    })
}

/// What it says of a server that it may not be used; `None` when the domain's policy is not the reason.
pub(crate) fn of_refused(hop: &Hop, refused: &Refused) -> Option<TlsResult> {
    let because = |result| Failure::because(result, refused.failure.words.as_str());
    let (under, failure) = match refused.cause {
        Cause::Unprotected => return None,
        Cause::TlsaUnknown => (Under::Tlsa, because(ResultType::DnssecInvalid)),
        Cause::DaneRequired => (Under::Tlsa, because(ResultType::DaneRequired)),
        Cause::NotNamed => (Under::Sts, not_named(hop)),
    };
    Some(not_called(under, hop, failure))
}

/// What it says of servers that an enforced MTA-STS policy left out: each once, whatever its addresses.
pub(crate) fn of_left_out(plan: &Plan, hops: &[&Hop]) -> Vec<TlsResult> {
    let mut hosts: Vec<&Hop> = Vec::new();
    for hop in hops.iter().filter(|hop| !is_named(plan, hop)) {
        if hosts.iter().all(|known| known.host != hop.host) {
            hosts.push(hop);
        }
    }
    let result = |hop: &Hop| not_called(Under::Sts, hop, not_named(hop));
    hosts.into_iter().map(result).collect()
}

fn not_called(under: Under, hop: &Hop, failure: Failure) -> TlsResult {
    TlsResult {
        under,
        host: hop.host.to_string(),
        ip: None,
        sending_ip: None,
        result: Err(failure),
    }
}

/// The policy that a server of the plan was judged by.
fn under(plan: &Plan, hop: &Hop, level: &Level) -> Under {
    let has_tlsa = match &hop.host {
        ServerName::Name(name) => {
            matches!(plan.evidence.hosts.get(name), Some(TlsaFound::Records { .. }))
        }
        ServerName::Ip(_) | ServerName::Socket(_) => false,
    };
    match level {
        Level::Dane(_) => Under::Tlsa,
        Level::WebPki(AskedBy::Sts) => Under::Sts,
        // Records that cannot be used still mean: never in clear.
        _ if has_tlsa => Under::Tlsa,
        _ if plan.mta_sts.applied.is_some() => Under::Sts,
        _ => Under::Nothing,
    }
}

fn is_named(plan: &Plan, hop: &Hop) -> bool {
    match (&plan.mta_sts.applied, &hop.host) {
        (Some(applied), ServerName::Name(name)) => applied.matches(name),
        _ => false,
    }
}

/// RFC 8460 has no word for it: certificate-host-mismatch is said of a certificate, and none was seen.
fn not_named(hop: &Hop) -> Failure {
    let words = format!("the MTA-STS policy does not name {}", hop.host);
    Failure::because(ResultType::ValidationFailure, words)
}

fn of_flaw(flaw: Flaw) -> ResultType {
    match flaw {
        Flaw::NotInItsTime => ResultType::CertificateExpired,
        Flaw::OtherName => ResultType::CertificateHostMismatch,
        Flaw::UnknownIssuer => ResultType::CertificateNotTrusted,
        Flaw::NoTlsaMatches => ResultType::TlsaInvalid,
        Flaw::Other => ResultType::ValidationFailure,
    }
}

/// Whether a conversation came to TLS, whatever the certificate; `None` when it never came so far.
fn reached(wish: TlsWish, held: &Held) -> Option<Result<(), Failure>> {
    if wish == TlsWish::Never {
        return None;
    }
    if held.tls.is_some() {
        return Some(Ok(()));
    }
    let not_supported = || Some(Err(Failure::new(ResultType::StarttlsNotSupported)));
    match &held.result {
        // It went on in clear.
        Ok(_) | Err(Broken::Cannot(_) | Broken::Blob(_)) => not_supported(),
        Err(Broken::Connect(_) | Broken::ConnectTimeout(_) | Broken::Unsafe(_)) => None,
        Err(Broken::Handshake(unshaken)) => {
            let result = unshaken.flaw.map_or(ResultType::ValidationFailure, of_flaw);
            Some(Err(Failure::because(result, unshaken.words.as_str())))
        }
        // It is spoken to once more; that conversation counts.
        Err(Broken::Resumption(_)) => None,
        Err(Broken::Session(SessionFailure::TlsNotOffered)) => not_supported(),
        Err(Broken::Session(failure)) => match (failure, session_stage(failure)) {
            (_, None | Some(Stage::Greeting | Stage::Ehlo)) => None,
            (SessionFailure::Refused { reply, .. }, Some(Stage::StartTls)) => {
                let said = told(reply);
                let words = format!("{} {}", said.code, said.text);
                Some(Err(Failure::because(ResultType::StarttlsNotSupported, words)))
            }
            (_, Some(Stage::StartTls)) => {
                let why = failure.to_string();
                Some(Err(Failure::because(ResultType::ValidationFailure, why)))
            }
            _ => not_supported(),
        },
    }
}

/// The domain whose servers a plan leads to, when they are those that the DNS names for it. What a route
/// or an address literal names is no business of the recipients' domain; but a route may lead to the
/// domain's own mail exchangers, to ask more of them.
pub(crate) fn policy_domain<'a>(plan: &Plan, host: &'a Host, routes: &[Route]) -> Option<&'a Domain> {
    let domain = host.domain()?;
    match plan.by {
        By::Mx | By::AddressFallback => Some(domain),
        By::Route(_) => match &route_for(routes, Some(domain))?.action {
            Action::MxOf { domain: of, .. } if of == domain => Some(domain),
            _ => None,
        },
        By::Literal | By::Order => None,
    }
}

/// Counts the conversations about one message.
pub(crate) struct TlsTally<'a>(Option<Counting<'a>>);

/// Where, and the policies of the plan.
struct Counting<'a> {
    collector: &'a Collector,
    nothing: Arc<Policy>,
    sts: Arc<Policy>,
    tlsa: Arc<Policy>,
}

impl<'a> TlsTally<'a> {
    pub(crate) fn new(collector: Option<&'a Collector>, domain: Option<&Domain>, plan: &Plan) -> Self {
        let both = collector.zip(domain);
        Self(both.map(|(collector, domain)| Counting {
            collector,
            nothing: Arc::new(Policy::none(domain)),
            sts: Arc::new(sts_policy(plan, domain)),
            tlsa: Arc::new(Policy::of(PolicyType::Tlsa, domain, tlsa_lines(plan), Vec::new())),
        }))
    }

    /// Counts what conversations came to.
    pub(crate) fn count(&self, results: Vec<TlsResult>, now: Timestamp) {
        let Some(counting) = &self.0 else {
            return;
        };
        for one in results {
            let policy = match one.under {
                Under::Nothing => &counting.nothing,
                Under::Sts => &counting.sts,
                Under::Tlsa => &counting.tlsa,
            };
            let session = Session {
                policy: Arc::clone(policy),
                host: Some(one.host),
                ip: one.ip,
                sending_ip: one.sending_ip,
                result: one.result,
            };
            counting.collector.record(&session, now);
        }
    }

    /// Counts that the domain's MTA-STS policy could not be had, if it could not.
    pub(crate) fn count_fault(&self, plan: &Plan, now: Timestamp) {
        let (Some(counting), Some(fault)) = (&self.0, &plan.mta_sts.fault) else {
            return;
        };
        let result = match fault.kind {
            FaultKind::Fetch => ResultType::StsPolicyFetchError,
            FaultKind::Certificate => ResultType::StsWebpkiInvalid,
            FaultKind::Policy => ResultType::StsPolicyInvalid,
        };
        let session = Session {
            policy: Arc::clone(&counting.sts),
            host: None,
            ip: None,
            sending_ip: None,
            result: Err(Failure::because(result, fault.words.as_str())),
        };
        counting.collector.record(&session, now);
    }
}

/// The MTA-STS policy that holds; without lines when none could be had.
fn sts_policy(plan: &Plan, domain: &Domain) -> Policy {
    let (lines, patterns) = match &plan.mta_sts.applied {
        Some(applied) => {
            let patterns = applied.policy.mx.iter().map(ToString::to_string);
            (applied.policy.lines(), patterns.collect())
        }
        None => (Vec::new(), Vec::new()),
    };
    Policy::of(PolicyType::Sts, domain, lines, patterns)
}

/// The TLSA records of the plan's servers, as in a zone file (RFC 6698 §2.3).
fn tlsa_lines(plan: &Plan) -> Vec<String> {
    let port_of = |host: &Domain| {
        let is_it = |hop: &&Hop| matches!(&hop.host, ServerName::Name(name) if name == host);
        plan.hops.iter().find(is_it).map(|hop| hop.address.port())
    };
    let mut lines = Vec::new();
    for (host, found) in &plan.evidence.hosts {
        if let (TlsaFound::Records { base, records }, Some(port)) = (found, port_of(host)) {
            let line = |record| format!("_{port}._tcp.{base}. IN TLSA {record}");
            lines.extend(records.iter().map(line));
        }
    }
    lines.sort();
    lines.dedup();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::Unshaken;
    use smtp::client::{CannotSend, ServerReply};

    fn seen(wish: TlsWish, tls: bool, broken: Broken) -> Option<Result<(), (ResultType, Option<String>)>> {
        let held = Held {
            flaw: None,
            tls: tls.then(|| journey::TlsUsed {
                version: "TLSv1.3".to_owned(),
                cipher: "x".to_owned(),
                verified: None,
                resumed: false,
            }),
            result: Err(broken),
        };
        let result = reached(wish, &held)?;
        Some(result.map_err(|failure| (failure.result, failure.reason)))
    }

    #[test]
    fn each_end_of_a_conversation() {
        use SessionFailure as S;
        let reply = || ServerReply {
            code: 454,
            status: None,
            lines: vec!["not now".to_owned()],
        };
        let refused = |stage| {
            Broken::Session(S::Refused {
                stage,
                reply: reply(),
            })
        };
        let lost = |stage| Broken::Session(S::Lost { stage });
        let none = |reason: Option<&str>| {
            let reason = reason.map(str::to_owned);
            Some(Err((ResultType::StarttlsNotSupported, reason)))
        };
        let invalid = |reason: &str| Some(Err((ResultType::ValidationFailure, Some(reason.to_owned()))));
        let offered = TlsWish::IfOffered;
        let connect = Broken::Connect(std::io::ErrorKind::ConnectionRefused.into());
        assert_eq!(seen(offered, false, connect), None);
        assert_eq!(seen(offered, false, lost(Stage::Greeting)), None);
        assert_eq!(seen(offered, false, refused(Stage::Ehlo)), None);
        assert_eq!(seen(TlsWish::Never, false, lost(Stage::MailFrom)), None);
        assert_eq!(seen(offered, true, lost(Stage::MailFrom)), Some(Ok(())));
        assert_eq!(seen(offered, false, lost(Stage::MailFrom)), none(None));
        let cannot = Broken::Cannot(CannotSend::NeedsSmtpUtf8);
        assert_eq!(seen(offered, false, cannot), none(None));
        assert_eq!(
            seen(TlsWish::Required, false, Broken::Session(S::TlsNotOffered)),
            none(None)
        );
        assert_eq!(
            seen(offered, false, refused(Stage::StartTls)),
            none(Some("454 not now"))
        );
        let handshake = |flaw| {
            let words = "no cipher".to_owned();
            Broken::Handshake(Unshaken { words, flaw })
        };
        assert_eq!(seen(offered, false, handshake(None)), invalid("no cipher"));
        for (flaw, wanted) in [
            (Flaw::NotInItsTime, ResultType::CertificateExpired),
            (Flaw::OtherName, ResultType::CertificateHostMismatch),
            (Flaw::UnknownIssuer, ResultType::CertificateNotTrusted),
            (Flaw::NoTlsaMatches, ResultType::TlsaInvalid),
            (Flaw::Other, ResultType::ValidationFailure),
        ] {
            let told = seen(TlsWish::Required, false, handshake(Some(flaw)));
            assert_eq!(told, Some(Err((wanted, Some("no cipher".to_owned())))));
        }
        let injected = S::DataBehindStartTls;
        let words = injected.to_string();
        assert_eq!(seen(offered, false, Broken::Session(injected)), invalid(&words));
    }
}
