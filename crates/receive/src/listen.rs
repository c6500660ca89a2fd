//! Accepting connections: the loop, its limits, and what contains a panic.

use crate::Context;
use crate::session::Session;
use smtp::{Role, replies};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// How long to wait after the system refused to accept (for example out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a refused connection may take to read why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// What a session can run over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Accepts and serves connections until `shutdown` turns true, then lets them end.
pub async fn serve(
    ctx: Arc<Context>,
    listener: TcpListener,
    role: Role,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut sessions = JoinSet::new();
    let for_sessions = shutdown.clone();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(ended) = sessions.join_next(), if !sessions.is_empty() => note_end(&ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Replies are small and wait for nobody.
                    let _ = stream.set_nodelay(true);
                    let ctx = Arc::clone(&ctx);
                    sessions.spawn(serve_connection(ctx, Box::new(stream), peer, role, for_sessions.clone()));
                }
                Err(error) => {
                    tracing::warn!(?role, %error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let end_all = async {
        while let Some(ended) = sessions.join_next().await {
            note_end(&ended);
        }
    };
    if tokio::time::timeout(ctx.options.shutdown_grace, end_all)
        .await
        .is_err()
    {
        sessions.abort_all();
    }
}

/// Waits for the order to stop, or for the end of whoever could give it. Answers nothing, so that no
/// lock of the channel is held while its arm of a `select!` waits for something else.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Serves one connection to its end. Connections over the limits are told so and closed.
pub async fn serve_connection(
    ctx: Arc<Context>,
    mut io: Box<dyn Io>,
    peer: SocketAddr,
    role: Role,
    shutdown: watch::Receiver<bool>,
) {
    let gate = Arc::clone(&ctx.gate);
    let _seat = match gate.enter(peer.ip()) {
        Ok(seat) => seat,
        Err(full) => {
            tracing::info!(%peer, ?role, ?full, "connection refused");
            // Before the handshake of 465 there is no way to say why.
            if role != Role::Submissions {
                let reply = match full {
                    Full::Total => replies::TOO_MANY_CONNECTIONS,
                    Full::Address => replies::TOO_MANY_CONNECTIONS_FROM_YOU,
                };
                let mut out = Vec::new();
                reply.write(&mut out);
                let _ = tokio::time::timeout(REFUSAL_TIMEOUT, io.write_all(&out)).await;
            }
            return;
        }
    };
    Session::new(ctx, peer, role).run(io, shutdown).await;
}

/// A panic in a session is our bug: it is told, and only that session ends.
fn note_end(ended: &Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("an SMTP session ended by a panic: {error}");
    }
}

/// Counts connections, in all and per address.
pub(crate) struct Gate {
    max: usize,
    per_address_max: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_network: HashMap<IpAddr, usize>,
}

/// Which limit refuses a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Full {
    /// The one for all connections.
    Total,
    /// The one for an address.
    Address,
}

/// A counted connection, until it is dropped.
pub(crate) struct Seat<'a> {
    gate: &'a Gate,
    network: IpAddr,
}

impl Gate {
    pub(crate) fn new(max: usize, per_address_max: usize) -> Self {
        Self {
            max,
            per_address_max,
            open: Mutex::default(),
        }
    }

    pub(crate) fn enter(&self, ip: IpAddr) -> Result<Seat<'_>, Full> {
        let network = network_of(ip);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let here = open.by_network.get(&network).copied().unwrap_or(0);
        if open.total >= self.max {
            return Err(Full::Total);
        }
        if here >= self.per_address_max {
            return Err(Full::Address);
        }
        open.total += 1;
        open.by_network.insert(network, here + 1);
        Ok(Seat { gate: self, network })
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut open = self.gate.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        if let Some(count) = open.by_network.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.by_network.remove(&self.network);
            }
        }
    }
}

/// What counts as one address: an IPv6 subscriber has a /64 at least.
pub(crate) fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_and_given_back() {
        let gate = Gate::new(3, 2);
        let (one, two): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = gate.enter(one).unwrap();
        let _second = gate.enter(one).unwrap();
        assert_eq!(gate.enter(one).err(), Some(Full::Address));
        let _third = gate.enter(two).unwrap();
        assert_eq!(gate.enter(two).err(), Some(Full::Total));
        drop(first);
        assert!(gate.enter(one).is_ok());
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let near: IpAddr = "2001:db8::1".parse().unwrap();
        let same: IpAddr = "2001:db8::ffff".parse().unwrap();
        let other: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        assert_eq!(network_of(near), network_of(same));
        assert_ne!(network_of(near), network_of(other));
    }
}
