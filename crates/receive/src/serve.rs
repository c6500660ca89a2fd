//! What a listener does with a connection: a seat and a session, or a refusal.

use crate::Context;
use crate::session::{Session, role_name, written};
use listen::{Full, Io};
use smtp::{Role, replies};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Accepts and serves connections until `shutdown` turns true, then lets them end.
pub async fn serve(ctx: Arc<Context>, listener: TcpListener, role: Role, shutdown: watch::Receiver<bool>) {
    let grace = ctx.options.shutdown_grace;
    let for_sessions = shutdown.clone();
    let session = |io, peer| serve_connection(ctx.clone(), io, peer, role, for_sessions.clone());
    listen::serve(role_name(role), listener, grace, shutdown, session).await;
}

/// Serves one connection to its end. Connections over the limits are told so and closed.
pub async fn serve_connection(
    ctx: Arc<Context>,
    io: Box<dyn Io>,
    peer: SocketAddr,
    role: Role,
    shutdown: watch::Receiver<bool>,
) {
    let _seat = match ctx.gate.enter(peer.ip()) {
        Ok(seat) => seat,
        Err(full) => {
            tracing::info!(%peer, ?role, ?full, "connection refused");
            let reply = match full {
                // Before the handshake of 465 there is no way to say why.
                _ if role == Role::Submissions => Vec::new(),
                Full::Total => written(&replies::TOO_MANY_CONNECTIONS),
                Full::Address => written(&replies::TOO_MANY_CONNECTIONS_FROM_YOU),
            };
            return listen::refuse(io, &reply).await;
        }
    };
    Session::new(Arc::clone(&ctx), peer, role).run(io, shutdown).await;
}
