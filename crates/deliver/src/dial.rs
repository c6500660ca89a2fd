//! How a connection is made; handed in, so that tests and simulators own the network.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

/// What a conversation runs over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// The future of a connection.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// Makes connections.
pub trait Dialer: Send + Sync {
    /// Connects. Time limits are the caller's; dropping the future gives up.
    fn dial(&self, to: SocketAddr) -> Dialing<'_>;

    /// Connects from an address of ours, where one is given. A network that has no such addresses need
    /// not mind it.
    fn dial_from(&self, to: SocketAddr, from: Option<IpAddr>) -> Dialing<'_> {
        let _ = from;
        self.dial(to)
    }

    /// The address of ours from which [`Dialer::dial_from`] connects; `None`: the system chooses it.
    fn leaves_from(&self, to: SocketAddr, from: Option<IpAddr>) -> Option<IpAddr> {
        let _ = to;
        from
    }

    /// Connects to a Unix socket of this machine. A network need not have any.
    fn dial_socket<'a>(&'a self, path: &'a str) -> Dialing<'a> {
        let _ = path;
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

/// Connections by TCP, and to sockets of this machine.
#[derive(Clone, Debug, Default)]
pub struct TcpDialer {
    /// Addresses of ours to connect from: the first of the right family, or whatever the system
    /// chooses when there is none. SPF and reputation hang on it.
    pub sources: Vec<IpAddr>,
}

impl TcpDialer {
    /// The address of ours from which a connection to there is made; `None`: the system chooses.
    #[must_use]
    pub fn source_for(&self, to: SocketAddr) -> Option<IpAddr> {
        let fits = |ip: &&IpAddr| ip.is_ipv4() == to.is_ipv4();
        self.sources.iter().find(fits).copied()
    }
}

impl Dialer for TcpDialer {
    fn dial(&self, to: SocketAddr) -> Dialing<'_> {
        self.dial_from(to, None)
    }

    fn leaves_from(&self, to: SocketAddr, from: Option<IpAddr>) -> Option<IpAddr> {
        from.or_else(|| self.source_for(to))
    }

    fn dial_from(&self, to: SocketAddr, from: Option<IpAddr>) -> Dialing<'_> {
        let source = self.leaves_from(to, from);
        Box::pin(async move {
            let stream = match source {
                None => TcpStream::connect(to).await?,
                Some(ip) => {
                    let socket = if ip.is_ipv4() {
                        TcpSocket::new_v4()?
                    } else {
                        TcpSocket::new_v6()?
                    };
                    socket.bind(SocketAddr::new(ip, 0))?;
                    socket.connect(to).await?
                }
            };
            // Commands are small and wait for their answers.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn dial_socket<'a>(&'a self, path: &'a str) -> Dialing<'a> {
        Box::pin(async move { Ok(Box::new(UnixStream::connect(path).await?) as Box<dyn Stream>) })
    }
}
