//! The sockets of the lab's DNS server: two loops around [`super::answer()`].
//!
//! Promises: UDP and TCP listen on the same address and port; at most [`TCP_CONNECTIONS_MAX`]
//! connections, each closed after [`TCP_IDLE_SECS_MAX`] without a question. Dropping it ends it.

use super::answer::{Asked, answer};
use super::zone::Zones;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// TCP connections served at once; more wait in the kernel's queue.
pub const TCP_CONNECTIONS_MAX: usize = 64;
/// Seconds that a TCP connection may be silent (RFC 7766 §6.2.3).
pub const TCP_IDLE_SECS_MAX: u64 = 10;
/// Ports tried until one is free for both UDP and TCP.
const PORT_TRIES_MAX: usize = 32;

/// Hears of every question and its answer, and from where it was asked.
pub type DnsObserver = Arc<dyn Fn(SocketAddr, &Asked) + Send + Sync>;

/// A running server.
pub struct DnsServer {
    addr: SocketAddr,
    zones: Arc<RwLock<Zones>>,
    tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Shared {
    zones: Arc<RwLock<Zones>>,
    observer: Option<DnsObserver>,
}

impl Shared {
    fn answer(&self, from: SocketAddr, question: &[u8], over_udp: bool) -> Option<Vec<u8>> {
        // A poisoned lock means that a change panicked; the zones are still whole.
        let zones = self
            .zones
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (reply, asked) = answer(&zones, question, over_udp);
        drop(zones);
        if let (Some(observer), Some(asked)) = (&self.observer, &asked) {
            observer(from, asked);
        }
        reply
    }
}

impl DnsServer {
    /// Listens on `addr` (port 0: a free one) and serves `zones`.
    ///
    /// # Errors
    /// When the address cannot be bound for both UDP and TCP.
    pub async fn start(addr: SocketAddr, zones: Zones, observer: Option<DnsObserver>) -> io::Result<Self> {
        let mut server = Self {
            addr,
            zones: Arc::new(RwLock::new(zones)),
            tasks: JoinSet::new(),
        };
        server.addr = server.listen(addr, observer).await?;
        Ok(server)
    }

    /// Serves the same zones at one more address, watched by its own observer: so that it can be
    /// told who asks when all ask from 127.0.0.1. Answers with the address (port 0: a free one).
    ///
    /// # Errors
    /// When the address cannot be bound for both UDP and TCP.
    pub async fn listen(
        &mut self,
        addr: SocketAddr,
        observer: Option<DnsObserver>,
    ) -> io::Result<SocketAddr> {
        let (udp, tcp) = bind(addr).await?;
        let addr = udp.local_addr()?;
        let shared = Shared {
            zones: Arc::clone(&self.zones),
            observer,
        };
        self.tasks.spawn(serve_udp(udp, shared.clone()));
        self.tasks.spawn(serve_tcp(tcp, shared));
        Ok(addr)
    }

    /// Where it listens first.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes the zones; the next question sees it.
    pub fn change<T>(&self, change: impl FnOnce(&mut Zones) -> T) -> T {
        let mut zones = self
            .zones
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut zones)
    }

    /// Stops; when this returns the port is free again.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn bind(addr: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = 0;
    loop {
        let udp = UdpSocket::bind(addr).await?;
        tries += 1;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(e) if addr.port() != 0 || tries >= PORT_TRIES_MAX => return Err(e),
            Err(_) => {}
        }
    }
}

async fn serve_udp(socket: UdpSocket, shared: Shared) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        // An error here is a peer's unreachable port, told on the next call; go on.
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if let Some(reply) = shared.answer(from, &buffer[..len], true)
            && let Err(error) = socket.send_to(&reply, from).await
        {
            tracing::debug!(%from, %error, "a DNS answer was not sent");
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Shared) {
    let places = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                let shared = shared.clone();
                connections.spawn(async move {
                    let _place = place;
                    if let Err(error) = serve_stream(stream, from, &shared).await {
                        tracing::debug!(%from, %error, "a DNS connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a DNS connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Messages with two octets of length before each (RFC 1035 §4.2.2).
async fn serve_stream(mut stream: TcpStream, from: SocketAddr, shared: &Shared) -> io::Result<()> {
    let idle_max = Duration::from_secs(TCP_IDLE_SECS_MAX);
    loop {
        let question = tokio::time::timeout(idle_max, async {
            let len = stream.read_u16().await?;
            let mut question = vec![0; usize::from(len)];
            stream.read_exact(&mut question).await?;
            io::Result::Ok(question)
        })
        .await??;
        if let Some(reply) = shared.answer(from, &question, false) {
            let len = u16::try_from(reply.len()).map_err(io::Error::other)?;
            let mut framed = len.to_be_bytes().to_vec();
            framed.extend(reply);
            tokio::time::timeout(idle_max, stream.write_all(&framed)).await??;
        }
    }
}
