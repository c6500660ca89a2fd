//! The wire under the clients: connect, TLS, lines and literals, with limits and an observer.

use super::{BLOTTED, ClientError, Heard, LINE_OCTETS_MAX, Observer, Speaker, WAIT_SECS_MAX};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Which server certificates are believed.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Believes what these roots vouch for, TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// When the crypto provider lacks what TLS needs.
    pub fn roots(roots: RootCertStore) -> Result<Self, ClientError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| ClientError::Tls(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }
}

/// A server to talk to.
#[derive(Clone)]
pub struct Target {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The name its certificate has to hold.
    pub name: String,
    /// Which certificates are believed.
    pub trust: Trust,
    /// The local address to come from; the system chooses when `None`.
    pub from: Option<IpAddr>,
}

/// Under which name a conversation is reported, and to whom.
#[derive(Clone)]
pub struct Watch {
    /// For example `alice → gmail.com`.
    pub conversation: String,
    /// Hears every line.
    pub observer: Option<Observer>,
}

impl Watch {
    /// A conversation that nobody watches.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            conversation: String::new(),
            observer: None,
        }
    }

    fn tell(&self, speaker: Speaker, text: &str) {
        if let Some(observer) = &self.observer {
            observer(&Heard {
                conversation: self.conversation.clone(),
                speaker,
                text: text
                    .chars()
                    .map(|c| {
                        if c.is_control() && c != '\t' {
                            '\u{fffd}'
                        } else {
                            c
                        }
                    })
                    .collect(),
            });
        }
    }
}

/// A connection that speaks in lines.
pub(super) struct Wire {
    stream: BufReader<Box<dyn Stream>>,
    target: Target,
    watch: Watch,
}

async fn in_time<T>(work: impl Future<Output = Result<T, ClientError>> + Send) -> Result<T, ClientError> {
    tokio::time::timeout(Duration::from_secs(WAIT_SECS_MAX), work)
        .await
        .unwrap_or(Err(ClientError::TimedOut))
}

impl Wire {
    /// Connects, with TLS from the first octet when `tls`.
    pub(super) async fn connect(target: &Target, watch: Watch, tls: bool) -> Result<Self, ClientError> {
        let socket = match target.addr {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        if let Some(ip) = target.from {
            socket.bind(SocketAddr::new(ip, 0))?;
        }
        let stream = in_time(async { Ok(socket.connect(target.addr).await?) }).await?;
        stream.set_nodelay(true)?;
        let wire = Self {
            stream: BufReader::new(Box::new(stream)),
            target: target.clone(),
            watch,
        };
        match tls {
            true => wire.start_tls().await,
            false => Ok(wire),
        }
    }

    /// Turns the connection into a TLS one and verifies the server.
    pub(super) async fn start_tls(self) -> Result<Self, ClientError> {
        if !self.stream.buffer().is_empty() {
            // RFC 3207 §4: nothing said before the handshake may count after it.
            return Err(ClientError::Protocol(
                "octets before the TLS handshake".to_owned(),
            ));
        }
        let name = ServerName::try_from(self.target.name.clone())
            .map_err(|e| ClientError::Tls(format!("{}: {e}", self.target.name)))?;
        let connector = TlsConnector::from(Arc::clone(&self.target.trust.0));
        let stream = in_time(async {
            connector
                .connect(name, self.stream.into_inner())
                .await
                .map_err(|e| ClientError::Tls(e.to_string()))
        })
        .await?;
        let (_, session) = stream.get_ref();
        let version = session.protocol_version().and_then(|v| v.as_str());
        let suite = session.negotiated_cipher_suite().and_then(|s| s.suite().as_str());
        self.watch.tell(
            Speaker::Event,
            &format!(
                "TLS handshake: {}, {}, certificate of {} verified",
                version.unwrap_or("TLS").replace('_', "."),
                // rustls marks its TLS 1.3 suites; the RFC names (RFC 8446 §B.4) do not.
                suite.unwrap_or("?").replace("TLS13_", "TLS_"),
                self.target.name
            ),
        );
        Ok(Self {
            stream: BufReader::new(Box::new(stream)),
            target: self.target,
            watch: self.watch,
        })
    }

    /// Sends a line; CR LF is added.
    pub(super) async fn send(&mut self, line: &str) -> Result<(), ClientError> {
        self.send_shown(line, line).await
    }

    /// Sends a line that holds a secret; the observer hears `shown` instead.
    pub(super) async fn send_shown(&mut self, line: &str, shown: &str) -> Result<(), ClientError> {
        self.watch.tell(Speaker::Client, shown);
        self.send_raw(format!("{line}\r\n").as_bytes()).await
    }

    /// Sends a secret alone on its line.
    pub(super) async fn send_blotted(&mut self, line: &str) -> Result<(), ClientError> {
        self.send_shown(line, BLOTTED).await
    }

    /// Sends octets as they are and tells nobody.
    pub(super) async fn send_raw(&mut self, octets: &[u8]) -> Result<(), ClientError> {
        in_time(async {
            self.stream.write_all(octets).await?;
            Ok(self.stream.flush().await?)
        })
        .await
    }

    /// Tells the observer of a line of the client's that goes out another way.
    pub(super) fn tell_client(&self, text: &str) {
        self.watch.tell(Speaker::Client, text);
    }

    /// The next line as octets, without its ending.
    pub(super) async fn read_octets(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut line = Vec::new();
        let limit = LINE_OCTETS_MAX as u64 + 2;
        in_time(async {
            let mut limited = (&mut self.stream).take(limit);
            Ok(limited.read_until(b'\n', &mut line).await?)
        })
        .await?;
        match line.strip_suffix(b"\r\n") {
            Some(text) => {
                self.watch.tell(Speaker::Server, &String::from_utf8_lossy(text));
                Ok(text.to_vec())
            }
            None if line.is_empty() => Err(ClientError::Closed),
            None if line.len() as u64 >= limit => Err(ClientError::Protocol("a line is too long".to_owned())),
            None if line.ends_with(b"\n") => {
                Err(ClientError::Protocol("a line ends in a bare LF".to_owned()))
            }
            None => Err(ClientError::Closed),
        }
    }

    /// The next line as text.
    pub(super) async fn read(&mut self) -> Result<String, ClientError> {
        Ok(String::from_utf8_lossy(&self.read_octets().await?).into_owned())
    }

    /// Exactly this many octets (an IMAP literal); the observer hears them as lines.
    pub(super) async fn read_literal(&mut self, len: usize) -> Result<Vec<u8>, ClientError> {
        let mut octets = vec![0; len];
        in_time(async { Ok(self.stream.read_exact(&mut octets).await.map(|_| ())?) }).await?;
        let text = String::from_utf8_lossy(&octets);
        for line in text.lines() {
            self.watch.tell(Speaker::Server, line);
        }
        Ok(octets)
    }
}
