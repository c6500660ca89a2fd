//! Where connections come from: a TCP address or a Unix socket; and through whom: a balancer that tells
//! the client's address, or nobody.
//!
//! Promises: who is trusted to tell another's address must tell it, within a time limit, and nobody else
//! can; a Unix socket replaces only a socket that nobody serves, and is removed at the end.

use crate::peer::Peer;
use crate::proxy::{self, Fault, Origin, Progress};
use crate::stream::Io;
use limits::Network;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::timeout;

/// How long a balancer may take for its PROXY header.
pub const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// A bound socket, and who may tell another's address on it.
pub struct Listener {
    socket: Socket,
    proxies: Arc<[Network]>,
}

enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        _file: SocketFile,
    },
}

/// The file of a Unix socket, removed at the end unless somebody else's has taken its place.
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = std::fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Self {
            socket: Socket::Tcp(socket),
            proxies: Arc::default(),
        }
    }
}

impl Listener {
    /// Binds a Unix socket at `path` with the file mode `mode`. What is there is replaced only when it
    /// is a socket that nobody serves.
    ///
    /// # Errors
    /// `AddrInUse` when somebody serves it, `AlreadyExists` when it is no socket, and what the system says.
    pub fn bind_unix(path: &Path, mode: u32) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(file) if !file.file_type().is_socket() => {
                let why = "there is something that is no socket; remove it, or choose another path";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
            }
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
                Err(e) => return Err(e),
                Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        let file = SocketFile {
            path: path.to_owned(),
            identity: identity(path)?,
        };
        Ok(Self {
            socket: Socket::Unix {
                listener,
                _file: file,
            },
            proxies: Arc::default(),
        })
    }

    /// From now on connections from these networks must begin with a PROXY header, and its client is
    /// the one that counts. From elsewhere no header is looked for.
    #[must_use]
    pub fn behind(mut self, proxies: Arc<[Network]>) -> Self {
        self.proxies = proxies;
        self
    }

    /// Waits for a connection. Cancel-safe.
    pub(crate) async fn accept(&self) -> io::Result<(Box<dyn Io>, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Replies are small and wait for nobody.
                let _ = stream.set_nodelay(true);
                Ok((Box::new(stream), address.into()))
            }
            Socket::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred()?.uid();
                Ok((Box::new(stream), Peer::local(user)))
            }
        }
    }

    /// The networks that must begin with a PROXY header, if the peer is in one of them.
    pub(crate) fn is_proxy(&self, peer: Peer) -> bool {
        !self.proxies.is_empty()
            && peer.user.is_none()
            && self
                .proxies
                .iter()
                .any(|network| network.contains(peer.address.ip()))
    }
}

/// Reads a balancer's header, not an octet more, and tells who the client is.
pub(crate) async fn origin(io: &mut Box<dyn Io>, proxy: Peer) -> Result<Peer, Unproxied> {
    match timeout(PROXY_HEADER_TIMEOUT, header(io)).await {
        Err(_) => Err(Unproxied::TimedOut),
        Ok(Err(error)) => Err(error),
        Ok(Ok(Origin::Balancer)) => Ok(proxy),
        Ok(Ok(Origin::Client { source, .. })) => Ok(source.into()),
    }
}

async fn header(io: &mut Box<dyn Io>) -> Result<Origin, Unproxied> {
    let mut octets = Vec::with_capacity(64);
    loop {
        match proxy::parse(&octets)? {
            Progress::Whole { origin, .. } => return Ok(origin),
            Progress::Needs(n) => {
                let had = octets.len();
                octets.resize(n, 0);
                io.read_exact(&mut octets[had..]).await?;
            }
        }
    }
}

/// Why there is no header.
#[derive(Debug)]
pub(crate) enum Unproxied {
    Fault(Fault),
    TimedOut,
    Broken(io::Error),
}

impl From<Fault> for Unproxied {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Unproxied {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl std::fmt::Display for Unproxied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::TimedOut => f.write_str("no PROXY header came in time"),
            Self::Broken(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    fn balancer() -> Peer {
        "10.0.0.1:999".parse::<std::net::SocketAddr>().unwrap().into()
    }

    #[tokio::test]
    async fn the_header_is_taken_and_nothing_behind_it() {
        let (mut client, server) = tokio::io::duplex(1_000);
        client
            .write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 7 25\r\nEHLO")
            .await
            .unwrap();
        let mut io: Box<dyn Io> = Box::new(server);
        let peer = origin(&mut io, balancer()).await.unwrap();
        assert_eq!(peer.to_string(), "192.0.2.1:7");
        let mut behind = [0; 4];
        io.read_exact(&mut behind).await.unwrap();
        assert_eq!(&behind, b"EHLO");
    }

    #[tokio::test(start_paused = true)]
    async fn a_balancer_that_says_nothing_is_left() {
        let (_client, server) = tokio::io::duplex(1_000);
        let mut io: Box<dyn Io> = Box::new(server);
        let told = origin(&mut io, balancer()).await.unwrap_err();
        assert!(matches!(told, Unproxied::TimedOut));
    }

    #[tokio::test]
    async fn only_a_socket_that_nobody_serves_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        let kind = |path: &Path| Listener::bind_unix(path, 0o660).err().map(|e| e.kind());
        assert_eq!(kind(&path), Some(io::ErrorKind::AlreadyExists));
        std::fs::remove_file(&path).unwrap();
        let first = Listener::bind_unix(&path, 0o640).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(kind(&path), Some(io::ErrorKind::AddrInUse));
        drop(first);
        assert!(!path.exists(), "removed at the end");
        // What a server that was killed leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert!(Listener::bind_unix(&path, 0o600).is_ok());
    }

    #[tokio::test]
    async fn the_file_of_somebody_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = Listener::bind_unix(&path, 0o600).unwrap();
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        let second = Listener::bind_unix(&path, 0o600).unwrap();
        drop(first);
        assert!(path.exists(), "it is the second's");
        drop(second);
        assert!(!path.exists());
    }
}
