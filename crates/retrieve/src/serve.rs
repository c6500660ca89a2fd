//! What a listener does with a connection: a seat and a session, or a refusal.

use crate::connection::Connection;
use crate::{Context, Protocol, imap, pop3};
use listen::{Io, Peer};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// Accepts and serves connections until `shutdown` turns true, then lets them end.
pub async fn serve(
    ctx: Arc<Context>,
    listener: impl Into<listen::Listener>,
    protocol: Protocol,
    shutdown: watch::Receiver<bool>,
) {
    let grace = ctx.options.shutdown_grace;
    let for_sessions = shutdown.clone();
    let session =
        move |io, peer: Peer| serve_connection(ctx.clone(), io, peer.address, protocol, for_sessions.clone());
    listen::serve(protocol.name(), listener, grace, shutdown, session).await;
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
    let limits = ctx.limits.as_ref();
    if let Some(block) = limits.and_then(|l| l.blocked(peer.ip(), ctx.clock.now())) {
        let why = block.sentence();
        tracing::info!(protocol = protocol.name(), %peer, why, "connection refused");
        let reply = match protocol {
            Protocol::Imap => format!("* BYE [UNAVAILABLE] Your address is {why}\r\n"),
            Protocol::Pop3 => format!("-ERR [SYS/TEMP] Your address is {why}\r\n"),
            // Before the handshake there is no way to say why.
            Protocol::Imaps | Protocol::Pop3s => String::new(),
        };
        return connection.refuse(reply.as_bytes()).await;
    }
    let seat = ctx.gate.enter(peer.ip());
    if let Err(full) = &seat {
        tracing::info!(protocol = protocol.name(), %peer, ?full, "connection refused");
        let reply: &[u8] = match protocol {
            Protocol::Imap => b"* BYE [UNAVAILABLE] Too many connections, try again later\r\n",
            Protocol::Pop3 => b"-ERR [SYS/TEMP] Too many connections, try again later\r\n",
            // Before the handshake there is no way to say why.
            Protocol::Imaps | Protocol::Pop3s => b"",
        };
        return connection.refuse(reply).await;
    }
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
