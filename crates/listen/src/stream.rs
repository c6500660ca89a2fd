//! What a session runs over: any stream, put inside TLS, refused, or closed in order.

use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

/// How long a refused connection may take to read why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Octets thrown away at once while the client's end is waited for.
const WASTE_OCTETS: usize = 4 * 1024;

/// What a session can run over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Does the server's side of a TLS handshake. What was read from the client before must have been
/// used or refused: octets in clear must not pass for octets inside TLS (RFC 3207 §4.2).
///
/// # Errors
/// What the stream or TLS says; `TimedOut` at the deadline.
pub async fn handshake(
    io: Box<dyn Io>,
    certificates: &tls::Certificates,
    deadline: Instant,
) -> io::Result<(Box<dyn Io>, tls::TlsInfo)> {
    let stream = accept(io, certificates.server_config(), deadline).await?;
    let info = tls::describe(stream.get_ref().1);
    Ok((Box::new(stream), info))
}

/// The same where clients log in: what the connection can be bound to comes with it, and the address
/// that the client's certificate names.
///
/// # Errors
/// As [`handshake`].
pub async fn handshake_for_logins(
    io: Box<dyn Io>,
    certificates: &tls::Certificates,
    deadline: Instant,
) -> io::Result<(Box<dyn Io>, tls::TlsInfo, LoginChannel)> {
    let stream = accept(io, certificates.login_config(), deadline).await?;
    let connection = stream.get_ref().1;
    let info = tls::describe(connection);
    let names = certificates.names_of(connection);
    let channel = LoginChannel {
        channel: sasl::Channel {
            exporter: names.exporter,
            end_point: names.end_point,
            has_certificate: names.client_address.is_some(),
        },
        certificate: names.client_address,
    };
    Ok((Box::new(stream), info, channel))
}

/// What a TLS connection tells to those who log in over it.
#[derive(Clone, Debug, Default)]
pub struct LoginChannel {
    /// What an exchange can be bound to.
    pub channel: sasl::Channel,
    /// The address in the client's certificate, which was verified.
    pub certificate: Option<String>,
}

async fn accept(
    io: Box<dyn Io>,
    config: std::sync::Arc<tls::ServerConfig>,
    deadline: Instant,
) -> io::Result<tokio_rustls::server::TlsStream<Box<dyn Io>>> {
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    timeout_at(deadline, acceptor.accept(io))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Tells a client that has no [`crate::Seat`] why, within 5 seconds, and closes. Nothing is read:
/// who is refused gets no more of us than that.
pub async fn refuse(mut io: Box<dyn Io>, why: &[u8]) {
    let work = async {
        io.write_all(why).await?;
        io.shutdown().await
    };
    let _ = timeout(REFUSAL_TIMEOUT, work).await;
}

/// Ends a connection in order, within 2 seconds: TLS close_notify, FIN, then the client's end is
/// waited for, so that the last word arrives. A socket that is closed with unread input is reset,
/// and a reset throws away what the client has not read yet.
pub async fn close(mut io: Box<dyn Io>) {
    let work = async {
        io.shutdown().await?;
        // On the heap, so that a connection that waits does not hold room for it.
        let mut waste = Vec::with_capacity(WASTE_OCTETS);
        while io.read_buf(&mut waste).await? > 0 {
            waste.clear();
        }
        Ok::<(), io::Error>(())
    };
    let _ = timeout(CLOSE_TIMEOUT, work).await;
}

/// Whether that is a program on this machine. Logins in clear, when the operator allows them at
/// all, are for these alone.
#[must_use]
pub fn is_this_machine(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_is_still_talking_hears_the_last_word() {
        let (mut client, server) = tokio::io::duplex(1_000);
        let server_side = async {
            let mut io: Box<dyn Io> = Box::new(server);
            io.write_all(b"bye\r\n").await.unwrap();
            close(io).await;
        };
        let client_side = async {
            // Would break off at the first piece if the connection were just dropped.
            client.write_all(&[b'c'; 20_000]).await.unwrap();
            client.shutdown().await.unwrap();
            let mut said = Vec::new();
            client.read_to_end(&mut said).await.unwrap();
            said
        };
        let ((), said) = tokio::join!(server_side, client_side);
        assert_eq!(said, b"bye\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_or_go_is_left() {
        let began = Instant::now();
        let (_client, server) = tokio::io::duplex(1);
        refuse(Box::new(server), b"too many").await;
        assert_eq!(began.elapsed(), REFUSAL_TIMEOUT);
        let (_client, server) = tokio::io::duplex(1);
        close(Box::new(server)).await;
        assert_eq!(began.elapsed(), REFUSAL_TIMEOUT + CLOSE_TIMEOUT);
    }

    #[test]
    fn this_machine() {
        for (ip, is) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_this_machine(ip.parse().unwrap()), is, "{ip}");
        }
    }
}
