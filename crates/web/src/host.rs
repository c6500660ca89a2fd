//! The listener that serves the MTA-STS policies of our own domains: at `mta-sts.<domain>`, to
//! everybody, and nothing besides.

use bytes::Bytes;
use directory::Directory;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use listen::{Gate, Io, Listener, Peer};
use mail::Domain;
use mtasts::fetch::{POLICY_HOST_LABEL, POLICY_PATH};
use mtasts::hosted;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Connections at the same time at most.
pub const CONNECTIONS_MAX: usize = 1_000;
/// Connections from one address (one /64 of IPv6) at most.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 20;
/// For a connection, from the handshake to its end.
pub const CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// For the TLS handshake, and then for the head of the question.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Octets of a question's head at most; hyper has 8,192 as the least.
const HEAD_OCTETS_MAX: usize = 8 * 1024;
/// How long connections may take to end at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// What the listener works with.
pub struct PolicyHost {
    directory: Directory,
    hostname: Domain,
    certificates: Arc<tls::Certificates>,
    gate: Gate,
}

impl PolicyHost {
    /// A host for the policies of the directory's domains; `hostname` is where their mail goes.
    #[must_use]
    pub fn new(directory: Directory, hostname: Domain, certificates: Arc<tls::Certificates>) -> Self {
        Self {
            directory,
            hostname,
            certificates,
            gate: Gate::new(CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX),
        }
    }

    async fn connection(&self, io: Box<dyn Io>, peer: Peer) {
        // Who comes too often is not told so: it would need a handshake.
        let Ok(_seat) = self.gate.enter(peer.address.ip()) else {
            return;
        };
        let deadline = Instant::now() + HEAD_TIMEOUT;
        let (io, _) = match listen::handshake(io, &self.certificates, deadline).await {
            Ok(shaken) => shaken,
            Err(error) => return tracing::debug!(%peer, %error, "https: no TLS"),
        };
        let answered = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_OCTETS_MAX)
            .keep_alive(false)
            .serve_connection(
                TokioIo::new(io),
                service_fn(|request: Request<Incoming>| {
                    let asked = Asked::in_request(&request);
                    async move { Ok::<_, Infallible>(self.answer(asked).await) }
                }),
            )
            .await;
        if let Err(error) = answered {
            tracing::debug!(%peer, %error, "https: a connection ended early");
        }
    }

    async fn answer(&self, asked: Asked) -> Response<Full<Bytes>> {
        let domain = match asked {
            Asked::Policy(domain) => domain,
            Asked::Nothing => return said(StatusCode::NOT_FOUND, "there is nothing here\n"),
            Asked::Change => {
                let words = "only GET and HEAD are answered here\n";
                let mut answer = said(StatusCode::METHOD_NOT_ALLOWED, words);
                let allowed = HeaderValue::from_static("GET, HEAD");
                answer.headers_mut().insert(ALLOW, allowed);
                return answer;
            }
        };
        let record = match self.directory.domain(&domain).await {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(%domain, %error, "https: the MTA-STS policy could not be read");
                return said(StatusCode::SERVICE_UNAVAILABLE, "try again later\n");
            }
        };
        let settings = record.and_then(|record| record.settings.mta_sts);
        let policy =
            settings.and_then(|s| hosted::policy(s.mode.as_str(), &s.mx, s.max_age_secs, &self.hostname));
        match policy {
            Some(policy) => said(StatusCode::OK, policy.to_body()),
            None => said(StatusCode::NOT_FOUND, "this domain has no MTA-STS policy here\n"),
        }
    }
}

/// What a client wants.
enum Asked {
    /// The policy of that domain.
    Policy(Domain),
    /// Something that is not here.
    Nothing,
    /// To change something.
    Change,
}

impl Asked {
    fn in_request<B>(request: &Request<B>) -> Self {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Self::Change;
        }
        // In the absolute form of a target the host stands there (RFC 9112 §3.2.2).
        let named = request.uri().host();
        let host = named.or_else(|| request.headers().get(HOST)?.to_str().ok());
        match (host.and_then(policy_domain), request.uri().path()) {
            (Some(domain), POLICY_PATH) => Self::Policy(domain),
            _ => Self::Nothing,
        }
    }
}

/// Serves until `shutdown` turns true.
pub async fn serve(host: Arc<PolicyHost>, listener: Listener, shutdown: watch::Receiver<bool>) {
    let session = move |io: Box<dyn Io>, peer: Peer| {
        let host = Arc::clone(&host);
        async move {
            let _ = timeout(CONNECTION_TIME_MAX, host.connection(io, peer)).await;
        }
    };
    listen::serve("https", listener, SHUTDOWN_GRACE, shutdown, session).await;
}

/// `example.com` of `mta-sts.example.com:8443`.
fn policy_domain(host: &str) -> Option<Domain> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = Domain::parse(name).ok()?;
    let domain = name.parent()?;
    let label = name.as_str().split('.').next();
    (label == Some(POLICY_HOST_LABEL)).then_some(domain)
}

fn said(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    // RFC 8461 §3.3: senders must not use caches of HTTP; what lies between is told so.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_of_a_policy_host() {
        for (host, domain) in [
            ("mta-sts.example.com", Some("example.com")),
            ("MTA-STS.Example.com.:8443", Some("example.com")),
            ("mta-sts.mta-sts.example.com", Some("mta-sts.example.com")),
            ("www.example.com", None),
            ("example.com", None),
            ("mta-sts", None),
            ("mta-sts.:1", None),
            ("[::1]:443", None),
            ("", None),
        ] {
            let found = policy_domain(host);
            assert_eq!(found.as_ref().map(Domain::as_str), domain, "{host}");
        }
    }
}
