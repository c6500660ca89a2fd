//! What a listener does with a connection: a seat and a session, or a refusal.

use crate::local::{LocalSender, LocalSenders};
use crate::session::{Session, role_name};
use crate::{Context, limit};
use listen::{Io, Peer};
use smtp::{Reply, Role, replies};
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

/// The same for programs of this machine that send without a login, over a Unix socket. Who is not among
/// `senders` is refused, and told so.
pub async fn serve_local(
    ctx: Arc<Context>,
    listener: impl Into<listen::Listener>,
    senders: LocalSenders,
    shutdown: watch::Receiver<bool>,
) {
    let grace = ctx.options.shutdown_grace;
    let (for_sessions, senders) = (shutdown.clone(), Arc::new(senders));
    let session = move |io, peer: Peer| {
        let sender = peer.user.and_then(|user| senders.users.get(&user).cloned());
        let (ctx, shutdown) = (ctx.clone(), for_sessions.clone());
        async move {
            let role = Role::Submission;
            match sender {
                Some(sender) => serve_sender(ctx, io, peer, role, Some(sender), shutdown).await,
                None => refuse(&ctx, io, peer, role, &replies::NO_LOCAL_SENDER).await,
            }
        }
    };
    listen::serve("sendmail", listener, grace, shutdown, session).await;
}

/// Serves one connection to its end. Connections over the limits are told so and closed.
pub async fn serve_connection(
    ctx: Arc<Context>,
    io: Box<dyn Io>,
    peer: impl Into<Peer>,
    role: Role,
    shutdown: watch::Receiver<bool>,
) {
    serve_sender(ctx, io, peer.into(), role, None, shutdown).await;
}

async fn serve_sender(
    ctx: Arc<Context>,
    io: Box<dyn Io>,
    peer: Peer,
    role: Role,
    local: Option<Arc<LocalSender>>,
    shutdown: watch::Receiver<bool>,
) {
    let _seat = match limit::enter(&ctx, peer) {
        Ok(seat) => seat,
        Err(reply) => {
            return Box::pin(refuse(&ctx, io, peer, role, &reply)).await;
        }
    };
    let mut session = Box::new(Session::new(Arc::clone(&ctx), peer, role));
    session.local = local;
    session.run(io, shutdown).await;
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
