//! MTA-STS policies of other domains, fetched as RFC 8461 §3.3 asks.

use crate::client::{Answer, Ask, AskError, Client, HTTPS_PORT};
use futures_util::future::BoxFuture;
use mail::Domain;
use mtasts::Fault;
use mtasts::fetch::{Fetch, POLICY_HOST_LABEL, POLICY_PATH};
use mtasts::policy::BODY_OCTETS_MAX;
use std::time::Duration;

/// For a policy, all in all (RFC 8461 §3.3 suggests a minute).
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Fetches policies.
#[derive(Clone)]
pub struct PolicyFetcher {
    client: Client,
    port: u16,
}

impl PolicyFetcher {
    /// Fetches with this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            port: HTTPS_PORT,
        }
    }

    /// The same at another port. For laboratories: on the Internet it is [`HTTPS_PORT`].
    #[must_use]
    pub fn at_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    async fn fetch_one(&self, domain: &Domain) -> Result<Vec<u8>, Fault> {
        let host = domain
            .prefixed(POLICY_HOST_LABEL)
            .map_err(|e| Fault::fetch(format!("{POLICY_HOST_LABEL}.{domain} is no name: {e}")))?;
        let ask = Ask {
            host,
            port: self.port,
            path: POLICY_PATH.to_owned(),
            body: None,
            headers: Vec::new(),
            answer_octets_max: BODY_OCTETS_MAX,
            within: FETCH_TIMEOUT,
        };
        let answer = self.client.ask(&ask).await.map_err(|e| match e {
            AskError::Certificate { .. } => Fault::certificate(e),
            _ => Fault::fetch(e),
        })?;
        check(&ask, answer)
    }
}

impl Fetch for PolicyFetcher {
    fn fetch<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>, Fault>> {
        Box::pin(self.fetch_one(domain))
    }
}

/// Only 200 and text/plain are a policy; in particular no redirect is followed (RFC 8461 §3.3).
fn check(ask: &Ask, answer: Answer) -> Result<Vec<u8>, Fault> {
    let url = format!("https://{}{}", ask.host, ask.path);
    match (answer.status, &answer.location) {
        (200, _) if answer.content_type == "text/plain" => Ok(answer.body),
        (200, _) => Err(Fault::fetch(format!(
            "{url} is of type \"{}\", it must be text/plain",
            answer.content_type
        ))),
        (status @ 300..=399, Some(location)) => Err(Fault::fetch(format!(
            "{url} leads on to {location} ({status}), but redirects must not be followed"
        ))),
        (status, _) => Err(Fault::fetch(format!("{url} was answered with {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_a_policy() {
        let ask = Ask {
            host: Domain::parse("mta-sts.example.com").unwrap(),
            port: HTTPS_PORT,
            path: POLICY_PATH.to_owned(),
            body: None,
            headers: Vec::new(),
            answer_octets_max: 1,
            within: FETCH_TIMEOUT,
        };
        let told = |status, content_type: &str, location: Option<&str>| {
            let answer = Answer {
                status,
                content_type: content_type.to_owned(),
                location: location.map(str::to_owned),
                body: b"x".to_vec(),
            };
            check(&ask, answer).map_err(|fault| fault.words)
        };
        assert_eq!(told(200, "text/plain", None), Ok(b"x".to_vec()));
        for (status, content_type, location, part) in [
            (200, "text/html", None, "text/html"),
            (200, "", None, "text/plain"),
            (404, "text/plain", None, "404"),
            (206, "text/plain", None, "206"),
            (301, "text/plain", Some("https://example.com/"), "redirects"),
        ] {
            let words = told(status, content_type, location).unwrap_err();
            assert!(words.contains(part), "{words}");
            assert!(
                words.contains("https://mta-sts.example.com/.well-known/mta-sts.txt"),
                "{words}"
            );
        }
    }
}
