//! One question to one host over HTTPS: HTTP/1.1, a certificate that verifies for the host's name, no
//! redirects, no reuse.

use bytes::Bytes;
use dns::{DnsError, Resolver};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use mail::Domain;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tls::{Verdict, Verification};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The port of HTTPS.
pub const HTTPS_PORT: u16 = 443;
/// Addresses of a host that are tried at most.
const ADDRESSES_MAX: usize = 4;
/// For each connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Octets of an answer's head at most.
const HEAD_OCTETS_MAX: usize = 16 * 1024;

/// A question.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Whom; its certificate must verify for this name.
    pub host: Domain,
    /// At which port; [`HTTPS_PORT`] but in a laboratory.
    pub port: u16,
    /// For which path, with its query.
    pub path: String,
    /// What is sent, and of which type; `None` makes it a GET, otherwise it is a POST.
    pub body: Option<(String, Vec<u8>)>,
    /// Further header fields.
    pub headers: Vec<(&'static str, String)>,
    /// Octets of the answer's body at most.
    pub answer_octets_max: usize,
    /// For all of it.
    pub within: Duration,
}

/// An answer, of whatever status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The type of the body, lower case without its parameters; empty when the host did not say.
    pub content_type: String,
    /// Where a redirect leads; nobody went there.
    pub location: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AskError {
    /// The host has no address, or it could not be found out.
    #[error("{0}")]
    Dns(String),
    /// No address took a connection.
    #[error("no connection to {0}")]
    Connect(String),
    /// The certificate does not verify.
    #[error("the certificate of {host} does not verify: {why}")]
    Certificate {
        /// Whose.
        host: String,
        /// Why, in words.
        why: String,
    },
    /// TLS failed otherwise.
    #[error("the TLS handshake with {host} failed: {why}")]
    Handshake {
        /// With whom.
        host: String,
        /// Why, in words.
        why: String,
    },
    /// What came is no HTTP, or the connection broke.
    #[error("{host} did not answer as HTTP asks: {why}")]
    Http {
        /// Who.
        host: String,
        /// What is wrong, in words.
        why: String,
    },
    /// The body is longer than [`Ask::answer_octets_max`].
    #[error("the answer of {host} is longer than {max} octets")]
    TooLong {
        /// Whose.
        host: String,
        /// The limit.
        max: usize,
        /// Its status, which came before.
        status: u16,
    },
    /// It took longer than [`Ask::within`].
    #[error("{host} gave no answer within {} seconds", .within.as_secs())]
    TimedOut {
        /// Who.
        host: String,
        /// The limit.
        within: Duration,
    },
}

/// Asks hosts. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    resolver: Arc<dyn Resolver>,
    tls: Arc<tls::Client>,
    name: Arc<str>,
    public_only: bool,
}

impl Client {
    /// A client that finds hosts by this resolver and believes the authorities of `tls`. `name` is
    /// who we say to be (User-Agent); visible ASCII.
    #[must_use]
    pub fn new(resolver: Arc<dyn Resolver>, tls: Arc<tls::Client>, name: &str) -> Self {
        Self {
            resolver,
            tls,
            name: name.into(),
            public_only: false,
        }
    }

    /// The same, which connects to public addresses only: for hosts that strangers name, who could mean
    /// what only we reach.
    #[must_use]
    pub fn public_only(mut self) -> Self {
        self.public_only = true;
        self
    }

    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    /// Why there is none. A status that tells of a failure is an answer.
    pub async fn ask(&self, ask: &Ask) -> Result<Answer, AskError> {
        timeout(ask.within, self.ask_in_time(ask))
            .await
            .unwrap_or_else(|_| {
                Err(AskError::TimedOut {
                    host: ask.host.to_string(),
                    within: ask.within,
                })
            })
    }

    async fn ask_in_time(&self, ask: &Ask) -> Result<Answer, AskError> {
        let tcp = self.connect(ask).await?;
        let host = || ask.host.to_string();
        let handshake = |why: String| AskError::Handshake { host: host(), why };
        let name = tls::server_name(ask.host.as_str()).map_err(|e| handshake(e.to_string()))?;
        let (config, verdict) = self.tls.config(Verification::Required);
        let connector = tokio_rustls::TlsConnector::from(config);
        let stream = connector
            .connect(name, tcp)
            .await
            .map_err(|e| match verdict.verdict() {
                Some(Verdict::Unverified(why)) => AskError::Certificate { host: host(), why },
                _ => handshake(e.to_string()),
            })?;
        let http = |why: String| AskError::Http { host: host(), why };
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(HEAD_OCTETS_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| http(e.to_string()))?;
        let request = self.request(ask).map_err(|e| http(e.to_string()))?;
        let asked = async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(|e| http(e.to_string()))?;
            whole(answer, ask).await
        };
        // The connection works as long as the answer is waited for; its end is told by the answer.
        let served = async {
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = asked => answer,
            () = served => Err(http("the connection ended".to_owned())),
        }
    }

    fn request(&self, ask: &Ask) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let authority = match ask.port {
            HTTPS_PORT => ask.host.to_string(),
            port => format!("{}:{port}", ask.host),
        };
        let mut request = Request::builder()
            .uri(&ask.path)
            .header(HOST, authority)
            .header(USER_AGENT, &*self.name)
            .header(CONNECTION, "close");
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        match &ask.body {
            None => request.method(Method::GET).body(Full::default()),
            Some((content_type, body)) => request
                .method(Method::POST)
                .header(CONTENT_TYPE, content_type)
                .body(Full::from(body.clone())),
        }
    }

    async fn connect(&self, ask: &Ask) -> Result<TcpStream, AskError> {
        let mut last = None;
        for ip in self.addresses(&ask.host).await? {
            let to = SocketAddr::new(ip, ask.port);
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(to)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(e)) => last = Some(format!("{} at {to}: {e}", ask.host)),
                Err(_) => {
                    last = Some(format!(
                        "{} at {to} within {} seconds",
                        ask.host,
                        CONNECT_TIMEOUT.as_secs()
                    ));
                }
            }
        }
        Err(AskError::Connect(last.unwrap_or_else(|| ask.host.to_string())))
    }

    async fn addresses(&self, host: &Domain) -> Result<Vec<IpAddr>, AskError> {
        let (v4, v6) = tokio::join!(self.resolver.a(host), self.resolver.aaaa(host));
        let mut trouble: Option<DnsError> = None;
        let mut found = Vec::new();
        match v4 {
            Ok(answer) => found.extend(answer.records.into_iter().map(IpAddr::V4)),
            Err(e) => trouble = Some(e),
        }
        match v6 {
            Ok(answer) => found.extend(answer.records.into_iter().map(IpAddr::V6)),
            Err(e) if e.is_temporary() => trouble = Some(e),
            Err(_) => {}
        }
        if self.public_only {
            let before = found.len();
            found.retain(|ip| is_public(*ip));
            if found.is_empty() && before > 0 {
                return Err(AskError::Dns(format!("{host} has no public address")));
            }
        }
        found.truncate(ADDRESSES_MAX);
        match trouble {
            Some(e) if found.is_empty() => Err(AskError::Dns(e.to_string())),
            None if found.is_empty() => Err(AskError::Dns(format!("{host} has no address"))),
            _ => Ok(found),
        }
    }
}

/// Whether an address is one of the Internet's: none of those that RFC 6890 and its registries set aside for
/// a host, a network or a purpose, and none that stands for another address.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            let shared = a == 100 && b & 0xc0 == 64;
            let special = a == 0 || a >= 240 || (a, b, c) == (192, 0, 0) || (a == 198 && b & 0xfe == 18);
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_documentation()
                || shared
                || special)
        }
        IpAddr::V6(ip) => {
            let [a, b, ..] = ip.segments();
            // Global unicast, without Teredo and its neighbours, documentation, and 6to4.
            let set_aside = a == 0x2001 && (b < 0x200 || b == 0xdb8) || a == 0x2002 || a == 0x3fff;
            a & 0xe000 == 0x2000 && !set_aside
        }
    }
}

async fn whole(answer: hyper::Response<hyper::body::Incoming>, ask: &Ask) -> Result<Answer, AskError> {
    let (head, body) = answer.into_parts();
    let told = |name| head.headers.get(name).and_then(|v| v.to_str().ok());
    let max = ask.answer_octets_max;
    let body = Limited::new(body, max).collect().await.map_err(|e| {
        let host = ask.host.to_string();
        if e.is::<http_body_util::LengthLimitError>() {
            let status = head.status.as_u16();
            AskError::TooLong { host, max, status }
        } else {
            let why = e.to_string();
            AskError::Http { host, why }
        }
    })?;
    let content_type = told(CONTENT_TYPE).unwrap_or("");
    let content_type = content_type.split(';').next().unwrap_or("").trim();
    Ok(Answer {
        status: head.status.as_u16(),
        content_type: content_type.to_ascii_lowercase(),
        location: told(hyper::header::LOCATION).map(str::to_owned),
        body: body.to_bytes().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_addresses_are_public() {
        for (public, addresses) in [
            (
                true,
                "8.8.8.8 100.128.0.1 172.32.0.1 192.0.1.1 2606:4700::1111 2a00:1450:4001::1",
            ),
            (
                false,
                "0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 169.254.169.254 172.16.0.1 192.0.0.8 192.0.2.1 \
                 192.168.0.1 198.18.0.1 198.51.100.1 224.0.0.1 255.255.255.255 :: ::1 ::ffff:127.0.0.1 \
                 64:ff9b::7f00:1 fc00::1 fd00::1 fe80::1 ff02::1 2001::1 2001:db8::1 2002:7f00:1::1",
            ),
        ] {
            for address in addresses.split_whitespace() {
                assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
            }
        }
    }
}
