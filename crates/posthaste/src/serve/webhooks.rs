//! Requests to webhooks: over TLS by the HTTPS client of the house, in clear to this machine only.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use mail::Domain;
use std::time::Duration;
use store::BoxFuture;
use tokio::net::TcpStream;
use web::{Answer, Ask, AskError, Client};
use webhook::{Post, SignedRequest};

/// For one request, all in all.
const WITHIN: Duration = Duration::from_secs(30);
/// For the body of an answer whose status is known.
const REST_WITHIN: Duration = Duration::from_secs(5);
/// Octets of an answer's body that are read; nobody looks at them.
const ANSWER_OCTETS_MAX: usize = 64 * 1024;
/// Who we say to be.
const NAME: &str = "Posthaste";

/// Sends them.
pub struct Poster {
    client: Client,
}

impl Poster {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    async fn secured(&self, request: &SignedRequest) -> Result<u16, String> {
        let host = Domain::parse(&request.url.host)
            .map_err(|_| "https:// goes to a name, for which a certificate can be checked".to_owned())?;
        let ask = Ask {
            host,
            port: request.url.port,
            path: request.url.path.clone(),
            body: Some(("application/json".to_owned(), request.body.clone())),
            headers: extra(request),
            answer_octets_max: ANSWER_OCTETS_MAX,
            within: WITHIN,
        };
        status_of(self.client.ask(&ask).await)
    }
}

/// The status, which counts alone: also where nobody wants the rest of a long answer.
fn status_of(answer: Result<Answer, AskError>) -> Result<u16, String> {
    match answer {
        Ok(Answer { status, .. }) | Err(AskError::TooLong { status, .. }) => Ok(status),
        Err(why) => Err(why.to_string()),
    }
}

/// The fields beside the type of the body.
fn extra(request: &SignedRequest) -> Vec<(&'static str, String)> {
    let fields = request.headers.iter();
    fields
        .filter(|(name, _)| *name != "Content-Type")
        .cloned()
        .collect()
}

impl Post for Poster {
    fn post<'a>(&'a self, request: &'a SignedRequest) -> BoxFuture<'a, Result<u16, String>> {
        Box::pin(async move {
            match request.url.tls {
                true => self.secured(request).await,
                false => match tokio::time::timeout(WITHIN, in_clear(request)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(format!("no answer within {} seconds", WITHIN.as_secs())),
                },
            }
        })
    }
}

/// A request to this machine. The settings let no other address through.
async fn in_clear(request: &SignedRequest) -> Result<u16, String> {
    let url = &request.url;
    let tcp = TcpStream::connect((url.host.as_str(), url.port))
        .await
        .map_err(|e| format!("no connection to {}:{}: {e}", url.host, url.port))?;
    if !tcp.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()) {
        return Err(format!("{} is not this machine: write https://", url.host));
    }
    let broken = |e: hyper::Error| format!("the connection broke: {e}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp))
        .await
        .map_err(broken)?;
    let mut asked = hyper::Request::post(&url.path)
        .header(HOST, format!("{}:{}", url.host, url.port))
        .header(USER_AGENT, NAME)
        .header(CONNECTION, "close");
    for (name, value) in &request.headers {
        asked = asked.header(*name, value);
    }
    let asked = asked
        .body(Full::new(Bytes::from(request.body.clone())))
        .map_err(|e| e.to_string())?;
    let answered = async {
        let answer = sender.send_request(asked).await.map_err(broken)?;
        let status = answer.status().as_u16();
        // Read to the end, so that the other side is not cut off while it writes.
        let rest = Limited::new(answer.into_body(), ANSWER_OCTETS_MAX).collect();
        let _ = tokio::time::timeout(REST_WITHIN, rest).await;
        Ok(status)
    };
    let served = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        status = answered => status,
        () = served => Err("the connection ended".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_still_has_its_status() {
        let (host, max) = ("crm.example.com".to_owned(), ANSWER_OCTETS_MAX);
        let status = 200;
        let long = AskError::TooLong { host, max, status };
        assert_eq!(
            status_of(Err(long)),
            Ok(200),
            "it would be told the same again for ever"
        );
        assert!(status_of(Err(AskError::Dns("no address".to_owned()))).is_err());
    }
}
