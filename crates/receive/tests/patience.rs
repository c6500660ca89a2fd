//! Time limits, on a clock that is moved: RFC 5321 §4.5.3.2.7 and those who send just fast enough.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Setup, World};
use smtp::Role;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

/// Runs a client against one session, on paused time.
fn with_client<F: Future<Output = ()>>(setup: Setup, client: impl FnOnce(DuplexStream) -> F) {
    let world = World::new();
    world.account("bob@example.com", None);
    let resolver = Arc::new(setup.resolver.clone());
    let ctx = world.context(setup, resolver);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let peer: std::net::SocketAddr = "192.0.2.1:1025".parse().unwrap();
        let session = receive::serve_connection(ctx, Box::new(theirs), peer, Role::Mta, stopped);
        tokio::join!(session, client(ours));
    });
}

/// Reads until a line with this code has come, and gives it.
async fn until(io: &mut DuplexStream, code: &str) -> String {
    let mut all = String::new();
    let mut chunk = [0u8; 1_024];
    loop {
        if let Some(line) = all.lines().find(|l| l.starts_with(code)) {
            return line.to_owned();
        }
        let n = io.read(&mut chunk).await.unwrap();
        assert!(n > 0, "the end, and no {code} in {all:?}");
        all.push_str(std::str::from_utf8(&chunk[..n]).unwrap());
    }
}

#[test]
fn silence_ends_after_five_minutes() {
    with_client(Setup::default(), |mut io| async move {
        until(&mut io, "220 ").await;
        let began = Instant::now();
        assert!(until(&mut io, "421 ").await.starts_with("421 4.4.2 "));
        assert_eq!(began.elapsed().as_secs(), 300);
    });
}

#[test]
fn half_a_command_is_no_progress() {
    with_client(Setup::default(), |mut io| async move {
        until(&mut io, "220 ").await;
        let began = Instant::now();
        for octet in b"EHLO" {
            tokio::time::sleep(Duration::from_secs(60)).await;
            io.write_all(&[*octet]).await.unwrap();
        }
        until(&mut io, "421 ").await;
        assert_eq!(began.elapsed().as_secs(), 300);
    });
}

#[test]
fn a_message_may_be_slow_but_not_for_ever() {
    let mut setup = Setup::default();
    setup.options.message_time_max = Duration::from_secs(1_000);
    setup.options.message_octets_per_second_min = 0;
    with_client(setup, |mut io| async move {
        until(&mut io, "220 ").await;
        io.write_all(b"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n")
            .await
            .unwrap();
        until(&mut io, "354 ").await;
        let began = Instant::now();
        let (mut reader, mut writer) = tokio::io::split(io);
        let trickle = async {
            for _ in 0..30 {
                tokio::time::sleep(Duration::from_secs(100)).await;
                if writer.write_all(b"x").await.is_err() {
                    break;
                }
            }
        };
        let read = async {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).await.unwrap();
            (String::from_utf8(all).unwrap(), began.elapsed().as_secs())
        };
        tokio::select! {
            () = trickle => panic!("the server went without a word"),
            (said, secs) = read => {
                assert!(said.starts_with("421 4.4.2 "), "{said}");
                assert!((1_000..=1_002).contains(&secs), "{secs}");
            }
        }
    });
}

#[test]
fn a_silent_message_ends_after_three_minutes() {
    with_client(Setup::default(), |mut io| async move {
        until(&mut io, "220 ").await;
        io.write_all(b"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n")
            .await
            .unwrap();
        until(&mut io, "354 ").await;
        let began = Instant::now();
        until(&mut io, "421 ").await;
        assert_eq!(began.elapsed().as_secs(), 180);
    });
}

/// Sends a message in pieces of `octets` each ten seconds; what the server said and after how long.
fn dripped(octets: usize, pieces: usize) -> (String, u64) {
    let said = Arc::new(std::sync::Mutex::new((String::new(), 0)));
    let heard = said.clone();
    with_client(Setup::default(), |mut io| async move {
        until(&mut io, "220 ").await;
        io.write_all(b"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n")
            .await
            .unwrap();
        until(&mut io, "354 ").await;
        let began = Instant::now();
        let (mut reader, mut writer) = tokio::io::split(io);
        let write = async {
            let piece = [vec![b'x'; octets - 2], b"\r\n".to_vec()].concat();
            for _ in 0..pieces {
                tokio::time::sleep(Duration::from_secs(10)).await;
                if writer.write_all(&piece).await.is_err() {
                    break;
                }
            }
            let _ = writer.write_all(b".\r\nQUIT\r\n").await;
            std::future::pending::<()>().await;
        };
        let read = async {
            let mut line = [0u8; 256];
            let n = reader.read(&mut line).await.unwrap();
            *heard.lock().unwrap() = (
                String::from_utf8_lossy(&line[..n]).into_owned(),
                began.elapsed().as_secs(),
            );
        };
        tokio::select! {
            () = write => {}
            () = read => {}
        }
    });
    let said = said.lock().unwrap();
    (said.0.clone(), said.1)
}

#[test]
fn a_message_must_come_at_the_least_rate() {
    // 20 octets a second are too few, in each stretch of three minutes.
    let (said, secs) = dripped(200, 100);
    assert!(said.starts_with("421 4.4.2 "), "{said}");
    assert!(said.contains("50 octets"), "{said}");
    assert_eq!(secs, 180);
    // 60 are enough, for as long as it takes.
    let (said, secs) = dripped(600, 100);
    assert!(said.starts_with("250 "), "{said}");
    assert_eq!(secs, 1_000);
}

#[test]
fn a_slow_reader_is_left() {
    let mut setup = Setup::default();
    setup.options.smtp.timeouts.write = Duration::from_secs(100);
    let world = World::new();
    let resolver = Arc::new(setup.resolver.clone());
    let ctx = world.context(setup, resolver);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        // Room for a few octets only: the client reads one of them each ten seconds.
        let (mut ours, theirs) = tokio::io::duplex(8);
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let peer = "192.0.2.1:1025".parse::<std::net::SocketAddr>().unwrap();
        let began = Instant::now();
        let session = receive::serve_connection(ctx, Box::new(theirs), peer, Role::Mta, stopped);
        let drip = async {
            loop {
                tokio::time::sleep(Duration::from_secs(10)).await;
                if ours.read_u8().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = session => {}
            () = drip => {}
        }
        // The greeting does not come through in time; the end is given its two seconds.
        let secs = began.elapsed().as_secs();
        assert!((100..=110).contains(&secs), "{secs}");
    });
}

#[test]
fn a_slow_handshake_ends_after_a_minute() {
    let setup = Setup {
        role: Role::Submissions,
        ..Setup::default()
    };
    let world = World::new();
    let resolver = Arc::new(setup.resolver.clone());
    let ctx = world.context(setup, resolver);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut ours, theirs) = tokio::io::duplex(1_024);
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let peer = "192.0.2.1:1025".parse::<std::net::SocketAddr>().unwrap();
        let began = Instant::now();
        let session = receive::serve_connection(ctx, Box::new(theirs), peer, Role::Submissions, stopped);
        let drip = async {
            // The head of a record of 512 octets, and then an octet now and then.
            let head = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc];
            ours.write_all(&head).await.unwrap();
            loop {
                tokio::time::sleep(Duration::from_secs(7)).await;
                let _ = ours.write_all(&[0]).await;
            }
        };
        tokio::select! {
            () = session => {}
            () = drip => {}
        }
        let secs = began.elapsed().as_secs();
        assert!((60..=63).contains(&secs), "{secs}");
    });
}

#[test]
fn a_plain_login_is_for_this_machine_alone() {
    let mut setup = Setup::default();
    setup.options.smtp.allow_plaintext_auth = true;
    setup.role = Role::Submission;
    let world = World::new();
    let resolver = Arc::new(setup.resolver.clone());
    let ctx = world.context(setup, resolver);
    for (peer, offered) in [("127.0.0.1:9", true), ("[::1]:9", true), ("192.0.2.1:9", false)] {
        let ctx = ctx.clone();
        world.runtime.block_on(async move {
            let (mut io, theirs) = tokio::io::duplex(4_096);
            let (_stop, stopped) = tokio::sync::watch::channel(false);
            let peer: std::net::SocketAddr = peer.parse().unwrap();
            let session = receive::serve_connection(ctx, Box::new(theirs), peer, Role::Submission, stopped);
            let client = async {
                until(&mut io, "220 ").await;
                io.write_all(b"EHLO x\r\nAUTH LOGIN\r\n*\r\nQUIT\r\n")
                    .await
                    .unwrap();
                let mut all = String::new();
                io.read_to_string(&mut all).await.unwrap();
                assert_eq!(
                    all.contains("250-AUTH SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN"),
                    offered,
                    "{peer}: {all}"
                );
                assert_eq!(all.contains("538 5.7.11 "), !offered, "{peer}: {all}");
                drop(io);
            };
            tokio::join!(session, client);
        });
    }
}

/// Octets of a session's own state at most: what an idle connection costs before its socket and TLS.
const SESSION_OCTETS_MAX: usize = 4 * 1024;

#[test]
fn a_waiting_session_is_small() {
    let world = World::new();
    let setup = Setup::default();
    let resolver = Arc::new(setup.resolver.clone());
    let ctx = world.context(setup, resolver);
    let (_ours, theirs) = tokio::io::duplex(8);
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let peer = "192.0.2.1:1025".parse::<std::net::SocketAddr>().unwrap();
    let session = receive::serve_connection(ctx, Box::new(theirs), peer, Role::Mta, stopped);
    let octets = size_of_val(&session);
    assert!(octets <= SESSION_OCTETS_MAX, "{octets}");
}
