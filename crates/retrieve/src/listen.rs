//! Accepting connections: the loop, its limits, and what contains a panic.

use crate::connection::{Connection, Io};
use crate::{Context, Options, Protocol, imap, pop3};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long to wait after the system refused to accept (for example out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts and serves connections until `shutdown` turns true, then lets them end.
pub async fn serve(
    ctx: Arc<Context>,
    listener: TcpListener,
    protocol: Protocol,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut sessions = JoinSet::new();
    let for_sessions = shutdown.clone();
    loop {
        tokio::select! {
            biased;
            () = told(&mut shutdown) => break,
            Some(ended) = sessions.join_next(), if !sessions.is_empty() => note_end(protocol, ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Answers are small and wait for nobody.
                    let _ = stream.set_nodelay(true);
                    let session = serve_connection(Arc::clone(&ctx), Box::new(stream), peer, protocol, for_sessions.clone());
                    sessions.spawn(session);
                }
                Err(error) => {
                    tracing::warn!(protocol = protocol.name(), %error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let end_all = async {
        while let Some(ended) = sessions.join_next().await {
            note_end(protocol, ended);
        }
    };
    if tokio::time::timeout(ctx.options.shutdown_grace, end_all)
        .await
        .is_err()
    {
        sessions.abort_all();
    }
}

/// Serves one connection to its end. Connections over the limits are told so and closed.
pub async fn serve_connection(
    ctx: Arc<Context>,
    io: Box<dyn Io>,
    peer: SocketAddr,
    protocol: Protocol,
    shutdown: watch::Receiver<bool>,
) {
    let mut connection = Connection::new(Arc::clone(&ctx), io, peer, protocol);
    let Some(_seat) = ctx.gate.enter(peer.ip()) else {
        tracing::info!(protocol = protocol.name(), %peer, "too many connections");
        let reply: &[u8] = match protocol {
            Protocol::Imap => b"* BYE [UNAVAILABLE] Too many connections, try again later\r\n",
            Protocol::Pop3 => b"-ERR [SYS/TEMP] Too many connections, try again later\r\n",
            Protocol::Imaps | Protocol::Pop3s => b"",
        };
        let _ = connection.write(reply).await;
        return connection.close().await;
    };
    if protocol.is_implicit_tls() {
        connection = match connection.start_tls(ctx.options.login_timeout).await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(protocol = protocol.name(), %peer, %error, "no TLS");
                return;
            }
        };
    }
    match protocol {
        Protocol::Imap | Protocol::Imaps => imap::run(Arc::clone(&ctx), connection, shutdown).await,
        Protocol::Pop3 | Protocol::Pop3s => pop3::run(Arc::clone(&ctx), connection, shutdown).await,
    }
}

/// A panic in a session is our bug: it is told, and only that session ends.
fn note_end(protocol: Protocol, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(protocol = protocol.name(), "a session ended by a panic: {error}");
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
    by_address: HashMap<IpAddr, usize>,
}

/// A counted connection, until it is dropped.
pub(crate) struct Seat<'a> {
    gate: &'a Gate,
    address: IpAddr,
}

impl Gate {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            max: options.connections_max,
            per_address_max: options.connections_per_address_max,
            open: Mutex::default(),
        }
    }

    fn enter(&self, ip: IpAddr) -> Option<Seat<'_>> {
        let address = network_of(ip);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let here = open.by_address.get(&address).copied().unwrap_or(0);
        if open.total >= self.max || here >= self.per_address_max {
            return None;
        }
        open.total += 1;
        open.by_address.insert(address, here + 1);
        Some(Seat { gate: self, address })
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut open = self.gate.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
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

/// Waits for the order to stop.
async fn told(shutdown: &mut watch::Receiver<bool>) {
    // Within a function of its own, so that the guard it answers is dropped at once.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted() {
        let gate = Gate::new(&Options {
            connections_max: 3,
            connections_per_address_max: 2,
            ..Options::default()
        });
        let ip = |t: &str| t.parse::<IpAddr>().unwrap();
        let a = gate.enter(ip("2001:db8::1")).unwrap();
        let _b = gate.enter(ip("2001:db8::ffff")).unwrap();
        assert!(gate.enter(ip("2001:db8::2")).is_none(), "one network");
        let _c = gate.enter(ip("192.0.2.1")).unwrap();
        assert!(gate.enter(ip("192.0.2.2")).is_none(), "all seats taken");
        drop(a);
        assert!(gate.enter(ip("::ffff:192.0.2.1")).is_some());
    }
}
