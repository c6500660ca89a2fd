//! The loop that accepts connections, contains their panics and lets them end.

use crate::listener::{Listener, origin};
use crate::peer::Peer;
use crate::stream::Io;
use futures_util::FutureExt;
use std::any::Any;
use std::io;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long to wait after the system refused to accept (for example out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections and runs a `session` for each, until `shutdown` turns true or its sender is
/// gone. Then no more are accepted, and what runs has `grace` to end before it is cut.
///
/// How many run at once is not bounded here: a session asks a [`crate::Gate`] first. `service` is
/// the name for the log.
pub async fn serve<S, F>(
    service: &'static str,
    listener: impl Into<Listener>,
    grace: Duration,
    mut shutdown: watch::Receiver<bool>,
    session: S,
) where
    S: Fn(Box<dyn Io>, Peer) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = listener.into();
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((io, peer)) if listener.is_proxy(peer) => {
                    let session = proxied(service, io, peer, session.clone());
                    sessions.spawn(contain(service, peer, session));
                }
                Ok((io, peer)) => {
                    sessions.spawn(contain(service, peer, session(io, peer)));
                }
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    tracing::warn!(service, %error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let end_all = async { while sessions.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, end_all).await.is_err() {
        tracing::info!(service, connections = sessions.len(), "cut at shutdown");
        sessions.abort_all();
    }
}

/// Runs the session of the client that a balancer tells of. Without a good header there is none, and
/// nothing is said: whoever is at the other end, it is not a client that could read it.
async fn proxied<S, F>(service: &'static str, mut io: Box<dyn Io>, proxy: Peer, session: S)
where
    S: Fn(Box<dyn Io>, Peer) -> F + Send,
    F: Future<Output = ()> + Send,
{
    match origin(&mut io, proxy).await {
        Ok(peer) => session(io, peer).await,
        Err(why) => tracing::warn!(service, %proxy, %why, "a connection from listen.proxy_from was closed"),
    }
}

/// Waits for the order to stop, or for the end of whoever could give it. Cancel-safe. Answers
/// nothing, so that no lock of the channel is held while its arm of a `select!` waits for something
/// else.
pub async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Whether it was the peer who broke off: nothing to wait for.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// A panic in a session is our bug: it is told, and only that session ends. (No `async fn`: that would
/// hold room for the session twice.)
fn contain(service: &'static str, peer: Peer, session: impl Future<Output = ()>) -> impl Future<Output = ()> {
    AssertUnwindSafe(session).catch_unwind().map(move |ended| {
        if let Err(panic) = ended {
            let why = words(&*panic);
            tracing::error!(service, %peer, why, "a session ended by a panic: a fault of ours");
        }
    })
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without words")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn a_panic_leaves_the_others_and_the_loop() {
        let (listener, address) = listening().await;
        let (stop, stopped) = watch::channel(false);
        let grace = Duration::from_secs(10);
        let served = serve("test", listener, grace, stopped, |mut io, _| async move {
            let octet = io.read_u8().await.unwrap();
            assert!(octet != b'!', "this panic is part of the test");
            io.write_u8(octet).await.unwrap();
        });
        let clients = async {
            let mut bystander = TcpStream::connect(address).await.unwrap();
            let mut victim = TcpStream::connect(address).await.unwrap();
            victim.write_u8(b'!').await.unwrap();
            assert!(victim.read_u8().await.is_err());
            bystander.write_u8(b'a').await.unwrap();
            assert_eq!(bystander.read_u8().await.unwrap(), b'a');
            stop.send_replace(true);
        };
        tokio::join!(served, clients);
    }

    #[tokio::test]
    async fn at_the_end_sessions_have_their_grace_and_are_cut() {
        let (listener, address) = listening().await;
        let (stop, stopped) = watch::channel(false);
        let served = serve(
            "test",
            listener,
            Duration::ZERO,
            stopped,
            |mut io, _| async move {
                io.write_u8(b'h').await.unwrap();
                std::future::pending::<()>().await;
            },
        );
        let client = async {
            let mut client = TcpStream::connect(address).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'h');
            // Whoever could give the order is gone: as good as the order.
            drop(stop);
            client
        };
        let ((), mut client) = tokio::join!(served, client);
        assert!(client.read_u8().await.is_err(), "cut");
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
    }

    #[test]
    fn the_words_of_a_panic() {
        assert_eq!(words(&"plain"), "plain");
        assert_eq!(words(&"made".to_owned()), "made");
        assert_eq!(words(&7), "without words");
    }
}
