//! One connection's bytes: plain or TLS, with time limits, seen by the tap.

use crate::{Context, Direction, Protocol};
use listen::{Asker, Io};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

/// Octets read at once.
const READ_OCTETS: usize = 8 * 1024;

/// Octets written under one time limit.
const WRITE_OCTETS: usize = 64 * 1024;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsFailed {
    /// No certificate was given to the [`Context`].
    #[error("no certificate")]
    NoCertificate,
    /// The handshake failed, or took too long.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] io::Error),
}

/// A connection to a client.
pub struct Connection {
    io: Box<dyn Io>,
    peer: SocketAddr,
    protocol: Protocol,
    tls: Option<tls::TlsInfo>,
    named: Option<Box<listen::LoginChannel>>,
    opened: Instant,
    context: Arc<Context>,
}

impl Connection {
    /// A connection over an established stream.
    #[must_use]
    pub fn new(context: Arc<Context>, io: Box<dyn Io>, peer: SocketAddr, protocol: Protocol) -> Self {
        Self {
            io,
            peer,
            protocol,
            tls: None,
            named: None,
            opened: Instant::now(),
            context,
        }
    }

    /// The client's address.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// When the connection was accepted, before any TLS handshake.
    #[must_use]
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// What TLS agreed on, once it runs.
    #[must_use]
    pub fn tls(&self) -> Option<&tls::TlsInfo> {
        self.tls.as_ref()
    }

    /// What a login over it can be bound to, once TLS runs.
    pub(crate) fn channel(&self) -> Option<sasl::Channel> {
        self.named.as_ref().map(|named| named.channel.clone())
    }

    /// Who wants to log in over it.
    pub(crate) fn asker(&self, protocol: directory::Protocol, mechanism: sasl::Mechanism) -> Asker {
        Asker {
            peer: self.peer,
            protocol,
            mechanism,
            certificate: self.named.as_ref().and_then(|named| named.certificate.clone()),
        }
    }

    /// Runs the server's side of a TLS handshake over the stream.
    ///
    /// # Errors
    /// See [`TlsFailed`]; the connection is of no use afterwards.
    pub async fn start_tls(self, within: Duration) -> Result<Self, TlsFailed> {
        let certificates = self.context.tls.as_ref().ok_or(TlsFailed::NoCertificate)?;
        let deadline = Instant::now() + within;
        let (io, info, named) = listen::handshake_for_logins(self.io, certificates, deadline).await?;
        Ok(Self {
            io,
            tls: Some(info),
            named: Some(Box::new(named)),
            ..self
        })
    }

    /// Reads some octets, at least one; an empty answer means that the peer has closed.
    /// Cancel-safe.
    ///
    /// # Errors
    /// What the stream says.
    pub async fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut octets = Vec::new();
        // A buffer only once there is something: idle connections hold none.
        let mut first = [0u8; 1];
        if self.io.read(&mut first).await? == 0 {
            return Ok(octets);
        }
        octets.reserve(READ_OCTETS);
        octets.push(first[0]);
        let io = &mut self.io;
        std::future::poll_fn(|cx| {
            let mut chunk = [0u8; READ_OCTETS - 1];
            let mut buffer = tokio::io::ReadBuf::new(&mut chunk);
            // What has arrived already is taken; nothing is waited for.
            if std::pin::Pin::new(&mut *io).poll_read(cx, &mut buffer).is_ready() {
                octets.extend_from_slice(buffer.filled());
            }
            std::task::Poll::Ready(())
        })
        .await;
        Ok(octets)
    }

    /// Writes octets and waits until they are handed to the system.
    ///
    /// # Errors
    /// What the stream says, or that the peer reads too slowly.
    pub async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        if octets.is_empty() {
            return Ok(());
        }
        self.show(Direction::Server, octets);
        let within = self.context.options.write_timeout;
        // In pieces, so that the limit is one of progress and not of size.
        for piece in octets.chunks(WRITE_OCTETS) {
            let written = timeout(within, self.io.write_all(piece)).await;
            written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        }
        let flushed = timeout(within, self.io.flush()).await;
        flushed.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Shows octets to the tap.
    pub fn show(&self, direction: Direction, octets: &[u8]) {
        if let Some(tap) = &self.context.tap {
            tap.saw(self.protocol, self.peer, direction, octets);
        }
    }

    /// Tells a client that is not served why, within 5 seconds, and closes.
    pub(crate) async fn refuse(self, why: &[u8]) {
        if !why.is_empty() {
            self.show(Direction::Server, why);
        }
        listen::refuse(self.io, why).await;
    }

    /// Ends the connection in order, within 2 seconds, so that the last word arrives: TLS
    /// close_notify, FIN, then the client's end is waited for.
    pub async fn close(self) {
        listen::close(self.io).await;
    }
}
