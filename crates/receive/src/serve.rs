//! What a listener does with a connection: a seat and a session, or a refusal.

use crate::session::{Session, role_name};
use crate::{Context, limit};
use listen::{Io, Peer};
use smtp::{Reply, Role};
use std::sync::Arc;
use tokio::sync::watch;

/// Accepts and serves connections until `shutdown` turns true, then lets them end.
pub async fn serve(
    ctx: Arc<Context>,
    listener: impl Into<listen::Listener>,
    role: Role,
    shutdown: watch::Receiver<bool>,
) {
    let grace = ctx.options.shutdown_grace;
    let for_sessions = shutdown.clone();
    let session = move |io, peer: Peer| serve_connection(ctx.clone(), io, peer, role, for_sessions.clone());
    listen::serve(role_name(role), listener, grace, shutdown, session).await;
}

/// Serves one connection to its end. Connections over the limits are told so and closed.
pub async fn serve_connection(
    ctx: Arc<Context>,
    io: Box<dyn Io>,
    peer: impl Into<Peer>,
    role: Role,
    shutdown: watch::Receiver<bool>,
) {
    let peer = peer.into();
    let _seat = match limit::enter(&ctx, peer.address.ip()) {
        Ok(seat) => seat,
        Err(reply) => {
            return refuse(&ctx, io, peer, role, &reply).await;
        }
    };
    Session::new(Arc::clone(&ctx), peer, role).run(io, shutdown).await;
}

/// Tells a client that gets no session why, with a reference under which it is recorded.
pub(crate) async fn refuse(ctx: &Arc<Context>, io: Box<dyn Io>, peer: Peer, role: Role, reply: &Reply) {
    let said = Session::new(Arc::clone(ctx), peer, role)
        .refuse_connection("connect", reply)
        .await;
    // Before the handshake of 465 there is no way to say why.
    let said = if role == Role::Submissions { &[][..] } else { &said };
    listen::refuse(io, said).await;
}
