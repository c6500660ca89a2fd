//! How safe the way to a server must be: from what is known of it to one level of TLS, or to "this server
//! may not be used now, because". Pure.
//!
//! What is known is [`Evidence`], gathered once for a plan (`way`): what DNSSEC says of the MX answer and
//! of each host's addresses, the TLSA records of each host, and the MTA-STS policy of the domain.
//! [`decide`] makes of it, of the route's [`TlsPolicy`] and of what the sender asks ([`Asked`]) a
//! [`Decision`] for one server:
//!
//! - DANE counts where the MX answer, the host's addresses and its TLSA records are secure (RFC 7672
//!   §2.2), and then before MTA-STS (RFC 8461 §2). Secure records of which none can be used still mean:
//!   never in clear (RFC 7672 §2.2).
//! - TLSA records that could not be asked for keep the server from being used: whoever can break the
//!   question must not be able to take the protection away (RFC 7672 §2.1.2). Another server may do.
//! - MTA-STS in mode `enforce`: only hosts that the policy names, with a certificate that verifies.
//! - A login, REQUIRETLS and the route `required` want a verified certificate, by DANE or by an
//!   authority.
//! - REQUIRETLS wants more: nobody may have forged which host it is (RFC 8689 §4.2.1), so the MX answer
//!   must be secure or the host named by an MTA-STS policy.
//!
//! MTA-STS comes in as [`Sts`]: whoever looks the policy up says its mode and which of the plan's hosts it
//! names, and puts it into [`Evidence::sts`].

use crate::failure::Failure;
use crate::plan::Hop;
use crate::route::{ServerName, TlsPolicy};
use dns::{Dnssec, Tlsa};
use mail::{Domain, EnhancedStatus};
use smtp::client::TlsWish;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tls::{Dane, Verification};

/// What is known of the servers of a plan.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Evidence {
    /// What DNSSEC says of the MX answer (or of "there is none", where the domain's own address counts).
    /// `None`: the DNS was not asked, because a route or an address literal names the server.
    pub mx: Option<Dnssec>,
    /// The recipients' domain; a certificate issued by a DANE-TA anchor may be for it too (RFC 7672
    /// §3.2.2).
    pub domain: Option<Domain>,
    /// By host. One that is not here has no TLSA records as far as is known.
    pub hosts: BTreeMap<Domain, TlsaFound>,
    /// The domain's MTA-STS policy, if it has one.
    pub sts: Option<Sts>,
    /// Why it could not be found out what policy the domain has now, if that is so.
    pub sts_unknown: Option<String>,
}

/// What is known of a host's TLSA records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TlsaFound {
    /// They do not count and were not asked for, and why.
    NotAsked(&'static str),
    /// There are none, or they are not secure.
    None,
    /// Secure records at this TLSA base domain; at least one.
    Records {
        /// Under which they stand: the host, or what its name is an alias of (RFC 7672 §2.2.2).
        base: Domain,
        /// The records, usable or not.
        records: Vec<Tlsa>,
    },
    /// It could not be found out whether there are any.
    Unknown(String),
}

/// What an MTA-STS policy asks (RFC 8461 §5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StsMode {
    /// Only hosts that it names, with verified certificates.
    Enforce,
    /// Nothing is kept back; failures are only reported.
    Testing,
    /// As if there were none.
    None,
}

/// A domain's MTA-STS policy, as far as one plan needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sts {
    /// Its mode.
    pub mode: StsMode,
    /// Those hosts of the plan that it names (RFC 8461 §4.1).
    pub names: BTreeSet<Domain>,
    /// All that it names, in words.
    pub named: String,
}

/// What a message and its route ask of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The route's policy.
    pub policy: TlsPolicy,
    /// Whether we log in there.
    pub login: bool,
    /// Whether the sender asked for REQUIRETLS.
    pub require_tls: bool,
}

/// Who asks for a certificate that an authority vouches for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AskedBy {
    /// The route in the settings.
    Route,
    /// The login: a password goes only to a server that has proved its name.
    Login,
    /// The sender, by REQUIRETLS.
    Sender,
    /// The receiving domain, by MTA-STS.
    Sts,
}

/// The TLS that a connection must have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Level {
    /// None at all, even when it is offered.
    Clear,
    /// When it is offered, with any certificate; in clear when not (RFC 7435).
    Opportunistic,
    /// Always, with any certificate.
    Encrypted,
    /// With a certificate for the host's name by an authority that we believe.
    WebPki(AskedBy),
    /// With a certificate as the TLSA records say.
    Dane(Arc<Dane>),
}

impl Level {
    /// What is asked of STARTTLS.
    #[must_use]
    pub fn wish(&self) -> TlsWish {
        match self {
            Level::Clear => TlsWish::Never,
            Level::Opportunistic => TlsWish::IfOffered,
            Level::Encrypted | Level::WebPki(_) | Level::Dane(_) => TlsWish::Required,
        }
    }

    /// What is asked of the certificate.
    #[must_use]
    pub fn verification(&self) -> Verification {
        match self {
            Level::Clear | Level::Opportunistic | Level::Encrypted => Verification::Opportunistic,
            Level::WebPki(_) => Verification::Required,
            Level::Dane(dane) => Verification::Dane(Arc::clone(dane)),
        }
    }

    /// By what a certificate that an authority vouches for is said to be verified, in the journey.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Level::WebPki(AskedBy::Sts) => "MTA-STS",
            _ => "WebPKI",
        }
    }
}

/// The level for one server, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What the connection must have.
    pub level: Level,
    /// Why, in words.
    pub why: String,
}

/// What keeps a server from being used before it is connected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    /// The sender requires TLS, and nothing protects the choice of the server.
    Unprotected,
    /// Whether it has TLSA records could not be found out.
    TlsaUnknown,
    /// The route asks for DANE, which it has not.
    DaneRequired,
    /// The domain's MTA-STS policy is enforced and does not name it.
    NotNamed,
}

/// A server that may not be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    /// Why.
    pub(crate) cause: Cause,
    /// Why, for the errand: for now, or for good.
    pub(crate) failure: Failure,
}

impl Cause {
    fn so(self, failure: Failure) -> Refused {
        let cause = self;
        Refused { cause, failure }
    }
}

/// Decides the level for one server.
///
/// # Errors
/// Why it may not be used: for now, or, where no time can help (REQUIRETLS), for good.
pub fn decide(hop: &Hop, asked: Asked, evidence: &Evidence) -> Result<Decision, Failure> {
    judge(hop, asked, evidence).map_err(|refused| refused.failure)
}

/// The same, with the cause of a refusal.
pub(crate) fn judge(hop: &Hop, asked: Asked, evidence: &Evidence) -> Result<Decision, Refused> {
    let host = &hop.host;
    if hop.socket().is_some() {
        return Ok(decision(
            Level::Clear,
            &["no TLS: a socket of this machine".to_owned()],
        ));
    }
    if asked.require_tls {
        may_be_named(host, evidence).map_err(|failure| Cause::Unprotected.so(failure))?;
    }
    let checks_domain = !matches!(asked.policy, TlsPolicy::Off | TlsPolicy::Unchecked);
    let mut notes: Vec<String> = Vec::new();
    let mut floor = Level::Opportunistic;
    if checks_domain || asked.require_tls {
        match by_dane(host, evidence).map_err(|failure| Cause::TlsaUnknown.so(failure))? {
            ByDane::Verifies(dane) => {
                let count = dane.records().len();
                let why = format!("DANE, by {count} TLSA records of {}", dane.base());
                return Ok(decision(Level::Dane(dane), &[why]));
            }
            ByDane::NoneUsable => {
                floor = Level::Encrypted;
                notes.push(
                    "its TLSA records cannot be used, so any certificate, but never in clear".to_owned(),
                );
            }
            ByDane::Not(why) => notes.push(format!("no DANE: {why}")),
        }
        if asked.policy == TlsPolicy::Dane {
            return Err(Cause::DaneRequired.so(not_now(format!(
                "the route asks for DANE, and {host} cannot be verified by it ({}); publish TLSA records there or change tls in the route",
                notes.join("; ")
            ))));
        }
        if let Some(sts) = &evidence.sts {
            match (sts.mode, sts.names(host)) {
                (StsMode::Enforce, true) => {
                    notes.insert(0, "the domain's MTA-STS policy".to_owned());
                    return Ok(decision(Level::WebPki(AskedBy::Sts), &notes));
                }
                (StsMode::Enforce, false) => {
                    let domain = of_domain(evidence);
                    return Err(Cause::NotNamed.so(not_now(format!(
                        "the MTA-STS policy of {domain} does not name {host} among its servers ({}): whoever runs {domain} must add it at https://mta-sts.{domain}/.well-known/mta-sts.txt, or correct the MX records",
                        sts.named
                    ))));
                }
                (StsMode::Testing, true) => notes.push("MTA-STS in mode testing".to_owned()),
                (StsMode::Testing, false) => {
                    notes.push("MTA-STS in mode testing, which does not name it".to_owned());
                }
                (StsMode::None, _) => {}
            }
        }
    }
    let level = match asked.policy {
        _ if asked.require_tls => Level::WebPki(AskedBy::Sender),
        TlsPolicy::Off => Level::Clear,
        TlsPolicy::Required => Level::WebPki(AskedBy::Route),
        _ if asked.login => Level::WebPki(AskedBy::Login),
        TlsPolicy::Encrypted => Level::Encrypted,
        TlsPolicy::Opportunistic | TlsPolicy::Unchecked | TlsPolicy::Dane => floor,
    };
    let begins = match level {
        Level::WebPki(AskedBy::Sender) => "the sender's REQUIRETLS",
        Level::WebPki(AskedBy::Login) => "a password goes only to a verified server",
        _ => asked.policy.in_words(),
    };
    notes.insert(0, begins.to_owned());
    Ok(decision(level, &notes))
}

fn decision(level: Level, notes: &[String]) -> Decision {
    let why = notes.join("; ");
    Decision { level, why }
}

/// RFC 8689 §4.2.1: for a message with REQUIRETLS the DNS must not have been the one to choose the host,
/// unless it is known to say the truth.
fn may_be_named(host: &ServerName, evidence: &Evidence) -> Result<(), Failure> {
    let named_by_policy = evidence
        .sts
        .as_ref()
        .is_some_and(|sts| sts.mode != StsMode::None && sts.names(host));
    if evidence.mx != Some(Dnssec::Insecure) || named_by_policy {
        return Ok(());
    }
    let domain = of_domain(evidence);
    // A question that failed is no answer: it is asked again.
    if let Some(why) = &evidence.sts_unknown {
        return Err(Failure::ours(
            451,
            EnhancedStatus::new(4, 7, 10),
            format!(
                "the sender requires TLS all the way, and whether an MTA-STS policy of {domain} names {host} could not be found out, so the mail waits: {why}"
            ),
        ));
    }
    Err(Failure::ours(
        550,
        EnhancedStatus::new(5, 7, 10),
        format!(
            "the sender requires TLS all the way, and nothing protects which server takes the mail of {domain}: its MX records are not signed (DNSSEC), and no MTA-STS policy names {host}"
        ),
    ))
}

enum ByDane {
    Verifies(Arc<Dane>),
    NoneUsable,
    Not(String),
}

fn by_dane(host: &ServerName, evidence: &Evidence) -> Result<ByDane, Failure> {
    let ServerName::Name(name) = host else {
        return Ok(ByDane::Not("it is named by its address".to_owned()));
    };
    match evidence.hosts.get(name) {
        None => Ok(ByDane::Not("its TLSA records were not looked up".to_owned())),
        Some(TlsaFound::NotAsked(why)) => Ok(ByDane::Not((*why).to_owned())),
        Some(TlsaFound::None) => Ok(ByDane::Not("it has no TLSA records".to_owned())),
        Some(TlsaFound::Unknown(why)) => Err(Failure::ours(
            451,
            EnhancedStatus::new(4, 4, 3),
            format!("whether {name} has TLSA records could not be found out, so mail to it waits: {why}"),
        )),
        Some(TlsaFound::Records { base, records }) => {
            // RFC 7672 §3.2.2: the next-hop domain counts as a name too. It is what a secure MX answer
            // vouches for.
            let mut names = vec![name.clone()];
            names.extend(evidence.domain.clone());
            Ok(match Dane::new(records, base.clone(), &names) {
                Some(dane) => ByDane::Verifies(Arc::new(dane)),
                None => ByDane::NoneUsable,
            })
        }
    }
}

fn not_now(words: String) -> Failure {
    Failure::ours(451, EnhancedStatus::new(4, 7, 5), words)
}

fn of_domain(evidence: &Evidence) -> String {
    match &evidence.domain {
        Some(domain) => domain.to_string(),
        None => "the domain".to_owned(),
    }
}

impl Sts {
    fn names(&self, host: &ServerName) -> bool {
        matches!(host, ServerName::Name(name) if self.names.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MX: &str = "mx.example.com";

    fn d(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn hop() -> Hop {
        Hop {
            host: ServerName::parse(MX).unwrap(),
            address: "192.0.2.1:25".parse().unwrap(),
            preference: Some(10),
        }
    }

    fn tlsa(usage: u8) -> Tlsa {
        Tlsa {
            usage,
            selector: 1,
            matching: 1,
            data: vec![7; 32],
        }
    }

    fn records(usages: &[u8]) -> TlsaFound {
        TlsaFound::Records {
            base: d(MX),
            records: usages.iter().copied().map(tlsa).collect(),
        }
    }

    fn sts(mode: StsMode, names: &[&str]) -> Option<Sts> {
        let names = names.iter().map(|name| d(name)).collect();
        let named = "the policy's hosts".to_owned();
        Some(Sts { mode, names, named })
    }

    fn asked(policy: TlsPolicy) -> Asked {
        Asked {
            policy,
            login: false,
            require_tls: false,
        }
    }

    fn evidence(found: TlsaFound, sts: Option<Sts>) -> Evidence {
        Evidence {
            mx: Some(Dnssec::Secure),
            domain: Some(d("example.com")),
            hosts: BTreeMap::from([(d(MX), found)]),
            sts,
            sts_unknown: None,
        }
    }

    fn short(decided: &Result<Decision, Failure>) -> String {
        match decided {
            Ok(decision) => match &decision.level {
                Level::Clear => "clear".to_owned(),
                Level::Opportunistic => "opportunistic".to_owned(),
                Level::Encrypted => "encrypted".to_owned(),
                Level::WebPki(by) => format!("web by {by:?}"),
                Level::Dane(dane) => format!("dane {}", dane.records().len()),
            },
            Err(failure) => failure.status.to_string(),
        }
    }

    #[test]
    fn what_the_receiving_domain_asks() {
        use StsMode::{Enforce, Testing};
        let unknown = || TlsaFound::Unknown("SERVFAIL".to_owned());
        let not_asked = || TlsaFound::NotAsked("its addresses are not signed");
        for (what, found, sts, wanted) in [
            ("nothing known", TlsaFound::None, None, "opportunistic"),
            ("insecure", not_asked(), None, "opportunistic"),
            ("EE", records(&[3]), None, "dane 1"),
            ("TA and EE", records(&[2, 3]), None, "dane 2"),
            ("one of two usable", records(&[0, 3]), None, "dane 1"),
            ("none usable", records(&[0, 1]), None, "encrypted"),
            ("bogus", unknown(), None, "4.4.3"),
            ("DANE before MTA-STS", records(&[3]), sts(Enforce, &[]), "dane 1"),
            ("bogus before MTA-STS", unknown(), sts(Enforce, &[MX]), "4.4.3"),
            ("MTA-STS", TlsaFound::None, sts(Enforce, &[MX]), "web by Sts"),
            (
                "none usable, MTA-STS",
                records(&[1]),
                sts(Enforce, &[MX]),
                "web by Sts",
            ),
            (
                "not named",
                TlsaFound::None,
                sts(Enforce, &["other.example"]),
                "4.7.5",
            ),
            ("testing", TlsaFound::None, sts(Testing, &[]), "opportunistic"),
            (
                "mode none",
                TlsaFound::None,
                sts(StsMode::None, &[]),
                "opportunistic",
            ),
        ] {
            let decided = decide(&hop(), asked(TlsPolicy::Opportunistic), &evidence(found, sts));
            assert_eq!(short(&decided), wanted, "{what}: {decided:?}");
            assert!(
                decided.is_ok_and(|d| !d.why.is_empty()) || wanted.starts_with("4."),
                "{what}"
            );
        }
    }

    #[test]
    fn what_the_route_asks() {
        use StsMode::Enforce;
        use TlsPolicy::{Dane as ByDane, Encrypted, Off, Required, Unchecked};
        let unknown = || TlsaFound::Unknown("SERVFAIL".to_owned());
        for (what, policy, found, sts, wanted) in [
            ("encrypted", Encrypted, TlsaFound::None, None, "encrypted"),
            ("encrypted and DANE", Encrypted, records(&[3]), None, "dane 1"),
            (
                "encrypted and MTA-STS",
                Encrypted,
                TlsaFound::None,
                sts(Enforce, &[MX]),
                "web by Sts",
            ),
            ("required", Required, TlsaFound::None, None, "web by Route"),
            ("required and DANE", Required, records(&[3]), None, "dane 1"),
            (
                "required, none usable",
                Required,
                records(&[0]),
                None,
                "web by Route",
            ),
            ("DANE only", ByDane, records(&[3]), None, "dane 1"),
            ("DANE only, none", ByDane, TlsaFound::None, None, "4.7.5"),
            ("DANE only, none usable", ByDane, records(&[0]), None, "4.7.5"),
            (
                "unchecked",
                Unchecked,
                records(&[3]),
                sts(Enforce, &[]),
                "opportunistic",
            ),
            ("unchecked and bogus", Unchecked, unknown(), None, "opportunistic"),
            ("off", Off, records(&[3]), sts(Enforce, &[MX]), "clear"),
        ] {
            let decided = decide(&hop(), asked(policy), &evidence(found, sts));
            assert_eq!(short(&decided), wanted, "{what}: {decided:?}");
            assert!(
                decided.is_ok_and(|d| !d.why.is_empty()) || wanted.starts_with("4."),
                "{what}"
            );
        }
    }

    #[test]
    fn a_login_and_requiretls_want_a_verified_server() {
        for policy in [
            TlsPolicy::Opportunistic,
            TlsPolicy::Encrypted,
            TlsPolicy::Unchecked,
        ] {
            let login = Asked {
                login: true,
                ..asked(policy)
            };
            let decided = decide(&hop(), login, &evidence(TlsaFound::None, None));
            assert_eq!(short(&decided), "web by Login", "{policy}");
        }
        for policy in [TlsPolicy::Opportunistic, TlsPolicy::Unchecked, TlsPolicy::Off] {
            let require_tls = Asked {
                require_tls: true,
                ..asked(policy)
            };
            for (found, wanted) in [
                (TlsaFound::None, "web by Sender"),
                (records(&[0]), "web by Sender"),
                (records(&[3]), "dane 1"),
            ] {
                let decided = decide(&hop(), require_tls, &evidence(found, None));
                assert_eq!(short(&decided), wanted, "{policy}");
            }
        }
    }

    /// RFC 8689 §4.2.1.
    #[test]
    fn requiretls_wants_to_know_that_the_host_is_the_right_one() {
        let require_tls = Asked {
            require_tls: true,
            ..asked(TlsPolicy::Opportunistic)
        };
        for (mx, sts, wanted) in [
            (Some(Dnssec::Secure), None, "web by Sender"),
            (Some(Dnssec::Insecure), None, "5.7.10"),
            (None, None, "web by Sender"),
            (Some(Dnssec::Insecure), sts(StsMode::Enforce, &[MX]), "web by Sts"),
            (
                Some(Dnssec::Insecure),
                sts(StsMode::Testing, &[MX]),
                "web by Sender",
            ),
            (Some(Dnssec::Insecure), sts(StsMode::Testing, &[]), "5.7.10"),
            (Some(Dnssec::Insecure), sts(StsMode::None, &[MX]), "5.7.10"),
        ] {
            let evidence = Evidence {
                mx,
                ..evidence(TlsaFound::None, sts.clone())
            };
            let decided = decide(&hop(), require_tls, &evidence);
            assert_eq!(short(&decided), wanted, "{mx:?} {sts:?}");
            // Where it could not be asked, nothing is for good.
            let unknown = Evidence {
                sts_unknown: Some("no answer".to_owned()),
                ..evidence
            };
            let decided = decide(&hop(), require_tls, &unknown);
            assert_eq!(short(&decided), wanted.replace("5.7", "4.7"), "{mx:?} {sts:?}");
        }
    }
}
