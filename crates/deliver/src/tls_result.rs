//! What a conversation came to as far as TLS goes, for TLS reports (RFC 8460 §4.3). Pure.
//!
//! Without a policy of the domain any TLS is a success: nobody asked for a certificate that verifies. A
//! conversation that never came to STARTTLS (no connection, a refusal in the greeting) says nothing.

use crate::conversation::{Broken, Held};
use crate::heard::{session_stage, told};
use crate::plan::{By, Hop, Plan};
use mail::{Domain, Host, Timestamp};
use smtp::client::{Failure as SessionFailure, Stage, TlsWish};
use std::net::IpAddr;
use std::sync::Arc;
use tlsrpt::{Collector, Failure, Policy, ResultType, Session};

/// What one conversation came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsResult {
    /// With which server.
    pub host: String,
    /// At which address.
    pub ip: IpAddr,
    /// Whether it had TLS, and why not.
    pub result: Result<(), Failure>,
}

/// What a conversation came to that was begun with this wish; `None` when it says nothing about TLS.
pub(crate) fn of(hop: &Hop, wish: TlsWish, held: &Held) -> Option<TlsResult> {
    let result = failure(wish, held)?;
    Some(TlsResult {
        host: hop.host.to_string(),
        ip: hop.address.ip(),
        result,
    })
}

fn failure(wish: TlsWish, held: &Held) -> Option<Result<(), Failure>> {
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
        Err(Broken::Handshake(why) | Broken::Resumption(why)) => {
            Some(Err(Failure::because(ResultType::ValidationFailure, why)))
        }
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
/// or an address literal names is no business of the recipients' domain.
pub(crate) fn policy_domain<'a>(plan: &Plan, host: &'a Host) -> Option<&'a Domain> {
    match plan.by {
        By::Mx | By::AddressFallback => host.domain(),
        By::Literal | By::Order | By::Route(_) => None,
    }
}

/// Counts the conversations about one message.
pub(crate) struct TlsTally<'a>(Option<(&'a Collector, Arc<Policy>)>);

impl<'a> TlsTally<'a> {
    pub(crate) fn new(collector: Option<&'a Collector>, domain: Option<&Domain>) -> Self {
        let both = collector.zip(domain);
        Self(both.map(|(collector, domain)| (collector, Arc::new(Policy::none(domain)))))
    }

    pub(crate) fn count(&self, results: Vec<TlsResult>, now: Timestamp) {
        let Some((collector, policy)) = &self.0 else {
            return;
        };
        for one in results {
            let session = Session {
                policy: policy.clone(),
                host: Some(one.host),
                ip: Some(one.ip),
                sending_ip: None,
                result: one.result,
            };
            collector.record(&session, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::ServerName;
    use smtp::client::{CannotSend, ServerReply};

    fn hop() -> Hop {
        Hop {
            host: ServerName::parse("mx.example.org").unwrap(),
            address: "192.0.2.1:25".parse().unwrap(),
            preference: None,
        }
    }

    fn seen(wish: TlsWish, tls: bool, broken: Broken) -> Option<Result<(), (ResultType, Option<String>)>> {
        let held = Held {
            tls: tls.then(|| journey::TlsUsed {
                version: "TLSv1.3".to_owned(),
                cipher: "x".to_owned(),
                verified: None,
                resumed: false,
            }),
            result: Err(broken),
        };
        let result = of(&hop(), wish, &held)?.result;
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
        let handshake = Broken::Handshake("no cipher".to_owned());
        assert_eq!(seen(offered, false, handshake), invalid("no cipher"));
        let injected = S::DataBehindStartTls;
        let words = injected.to_string();
        assert_eq!(seen(offered, false, Broken::Session(injected)), invalid(&words));
    }
}
