//! IMAP over mailboxes in memory: time, limits, TLS, the journey, others' deletions.
#![allow(clippy::unwrap_used)]

mod imap_world;

use imap_world::{Client, HELLO, NOW, World};
use mail::QueueId;
use mailbox::Flags;
use retrieve::{Direction, Protocol, Tap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_big_fetch_is_written_as_the_client_reads() {
    let world = World::new(|_| {}).await;
    let body = "0123456789abcde\r\n".repeat(20_000);
    let message = format!("Subject: big\r\n\r\n{body}");
    for _ in 0..3 {
        world.deliver(&message, Flags::NONE, None).await;
    }
    let mut client = world.log_in().await;
    client.ask("a", "SELECT INBOX").await;
    // Far more than the pipe holds; nothing is read until the whole command is answered.
    client.send(b"b FETCH 1:3 BODY[TEXT]\r\nc NOOP\r\n").await;
    for n in 1..=3 {
        assert_eq!(
            client.line().await,
            format!("* {n} FETCH (BODY[TEXT] {{{}}}", body.len())
        );
        assert!(client.octets(body.len()).await == body.as_bytes());
        assert_eq!(client.line().await, " FLAGS (\\Seen \\Recent))");
    }
    assert_eq!(client.line().await, "b OK Fetched");
    assert_eq!(client.line().await, "c OK Done");
}

#[tokio::test]
async fn search_text_is_header_and_body() {
    let world = World::new(|_| {}).await;
    let message = "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX-Foo: bar\r\n\r\nsecond line\r\n";
    world.deliver(message, Flags::NONE, None).await;
    let mut client = world.log_in().await;
    client.ask("a", "SELECT INBOX").await;
    for (n, (key, found)) in [
        ("TEXT \"x-foo: BAR\"", true),
        ("TEXT second", true),
        ("CHARSET UTF-8 TEXT \"subject: grüße\"", true),
        ("TEXT x-bar", false),
        ("BODY x-foo", false),
        ("BODY second", true),
        ("HEADER x-foo \"\"", true),
        ("HEADER x-foo foo", false),
    ]
    .into_iter()
    .enumerate()
    {
        client.send(format!("s{n} SEARCH {key}\r\n").as_bytes()).await;
        let expected = if found { "* SEARCH 1" } else { "* SEARCH" };
        assert_eq!(client.line().await, expected, "{key}");
        assert_eq!(client.line().await, format!("s{n} OK Searched"));
    }
}

#[tokio::test]
async fn a_large_message_is_fetched_in_pieces() {
    let world = World::new(|_| {}).await;
    let body = "0123456789abcde\r\n".repeat(20_000);
    let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n";
    let message = format!("{head}{body}\r\n--b--\r\n");
    world.deliver(&message, Flags::NONE, None).await;
    let mut client = world.log_in().await;
    client.ask("a", "SELECT INBOX").await;
    // The second time only the structure is known, and the octets are read where they stand.
    for _ in 0..2 {
        for (section, whole) in [
            ("1", body.as_str()),
            ("", &message),
            ("TEXT", &message[head.find("--b").unwrap()..]),
        ] {
            let mut got = Vec::new();
            while got.len() < whole.len() {
                let n = 100_000.min(whole.len() - got.len());
                let command = format!("b FETCH 1 BODY.PEEK[{section}]<{}.100000>\r\n", got.len());
                client.send(command.as_bytes()).await;
                let label = format!("* 1 FETCH (BODY[{section}]<{}> {{{n}}}", got.len());
                assert_eq!(client.line().await, label);
                got.extend(client.octets(n).await);
                assert_eq!(client.line().await, ")");
                assert_eq!(client.line().await, "b OK Fetched");
            }
            assert!(got == whole.as_bytes(), "BODY[{section}]");
        }
    }
    let header = client
        .ask("c", "FETCH 1 (BODY.PEEK[HEADER.FIELDS (CONTENT-TYPE)] BODY)")
        .await;
    assert_eq!(header[1], "Content-Type: multipart/mixed; boundary=b");
    assert!(header[3].contains("\"MIXED\""), "{header:?}");
}

#[tokio::test]
async fn the_first_fetch_is_part_of_the_journey() {
    let world = World::new(|_| {}).await;
    let id = QueueId(77);
    world.deliver(HELLO, Flags::NONE, Some(id)).await;
    let mut client = world.log_in().await;
    client.ask("a", "SELECT INBOX").await;
    client.ask("b", "FETCH 1 (ENVELOPE BODY.PEEK[HEADER])").await;
    assert_eq!(
        world.journey.events(id).await.unwrap().len(),
        0,
        "headers are not the message"
    );
    client.ask("c", "FETCH 1 BODY[]").await;
    client.ask("d", "FETCH 1 BODY[]").await;
    let events = world.journey.events(id).await.unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(matches!(&events[0].event, journey::Event::Retrieved { protocol, .. } if protocol == "imap"));
}

#[tokio::test]
async fn shutdown_says_bye_also_to_idle_clients() {
    let world = World::new(|_| {}).await;
    let mut waiting = world.connect();
    waiting.line().await;
    let mut idle = world.log_in().await;
    idle.ask("a", "SELECT INBOX").await;
    idle.send(b"b IDLE\r\n").await;
    assert_eq!(idle.line().await, "+ Idling");
    world.stop.send_replace(true);
    for mut client in [waiting, idle] {
        assert_eq!(client.line().await, "* BYE The server is going down");
        assert_eq!(client.try_line().await, None);
        client.session.await.unwrap();
    }
}

/// The paused clock moves to the next deadline by itself when all tasks wait.
async fn said_at_the_end(client: &mut Client) -> String {
    let mut said = Vec::new();
    client.io.read_to_end(&mut said).await.unwrap();
    String::from_utf8(said).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_logs_in_is_sent_away_after_a_minute() {
    let world = World::new(|_| {}).await;
    let start = tokio::time::Instant::now();
    let mut client = world.connect();
    client.line().await;
    client.send(b"a NOOP\r\n").await;
    assert_eq!(
        said_at_the_end(&mut client).await,
        "a OK Done\r\n* BYE Too long without a word\r\n"
    );
    let passed = start.elapsed();
    assert!(
        passed >= Duration::from_secs(60) && passed < Duration::from_secs(70),
        "{passed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_sent_away_after_half_an_hour() {
    let world = World::new(|_| {}).await;
    let mut client = world.log_in().await;
    client.send(b"a SELECT INBOX\r\nb IDLE\r\n").await;
    while client.line().await != "+ Idling" {}
    let start = tokio::time::Instant::now();
    assert_eq!(
        said_at_the_end(&mut client).await,
        "* BYE Too long without a word\r\n"
    );
    let passed = start.elapsed();
    assert!(
        passed >= Duration::from_secs(1_800) && passed < Duration::from_secs(1_810),
        "{passed:?}"
    );
}

#[tokio::test]
async fn too_many_connections_are_refused() {
    let world = World::new(|o| o.connections_per_address_max = 2).await;
    let (mut a, mut b) = (world.connect(), world.connect());
    a.line().await;
    b.line().await;
    let mut c = world.connect();
    assert!(c.line().await.starts_with("* BYE [UNAVAILABLE]"));
    assert_eq!(c.try_line().await, None);
    drop(a);
    c.session.await.unwrap();
    // The seat is free once the first session has noticed.
    let mut tries = 0;
    loop {
        let mut d = world.connect();
        if d.line().await.starts_with("* OK") {
            break;
        }
        tries += 1;
        assert!(tries < 1_000);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn guessing_from_one_address_ends() {
    let world = World::new(|o| o.login_failures_per_address_max = 2).await;
    let mut client = world.connect();
    client.line().await;
    for _ in 0..2 {
        let no = client.ask("a", "LOGIN bob@example.com wrong").await;
        assert!(no[0].starts_with("a NO [AUTHENTICATIONFAILED]"), "{no:?}");
    }
    let no = client.ask("a", "LOGIN bob@example.com secret").await;
    assert!(no[0].starts_with("a NO [UNAVAILABLE]"), "{no:?}");
}

#[tokio::test]
async fn a_mailbox_deleted_by_another_session_ends_this_one() {
    let world = World::new(|_| {}).await;
    let mut one = world.log_in().await;
    let mut two = world.log_in().await;
    one.ask("a", "CREATE Tmp").await;
    one.ask("b", "SELECT Tmp").await;
    one.send(b"c IDLE\r\n").await;
    assert_eq!(one.line().await, "+ Idling");
    assert_eq!(two.ask("a", "DELETE Tmp").await, ["a OK Deleted"]);
    assert_eq!(one.line().await, "* BYE The selected mailbox was deleted");
    assert_eq!(one.try_line().await, None);
}

#[tokio::test]
async fn a_client_may_delete_what_it_has_selected() {
    let world = World::new(|_| {}).await;
    let mut client = world.log_in().await;
    client.ask("a", "CREATE Tmp").await;
    client.ask("b", "SELECT Tmp").await;
    client.send(b"c APPEND Tmp {3+}\r\na\r\n\r\n").await;
    while !client.line().await.starts_with("c OK [APPENDUID") {}
    assert_eq!(
        client.ask("d", "DELETE Tmp").await,
        ["* 1 EXPUNGE", "d OK Deleted"]
    );
    assert_eq!(client.ask("e", "NOOP").await, ["e OK Done"]);
    assert!(
        client
            .ask("f", "SELECT INBOX")
            .await
            .last()
            .unwrap()
            .starts_with("f OK")
    );
}

#[tokio::test]
async fn two_sessions_see_each_others_changes() {
    let world = World::new(|_| {}).await;
    for _ in 0..3 {
        world.deliver(HELLO, Flags::NONE, None).await;
    }
    let mut one = world.log_in().await;
    let mut two = world.log_in().await;
    one.ask("a", "SELECT INBOX").await;
    two.ask("a", "SELECT INBOX").await;
    one.ask("b", "STORE 2 +FLAGS.SILENT (\\Deleted)").await;
    assert_eq!(
        two.ask("b", "NOOP").await,
        ["* 2 FETCH (FLAGS (\\Deleted))", "b OK Done"]
    );
    assert_eq!(
        one.ask("c", "NOOP").await,
        ["c OK Done"],
        "its own silent change is not told"
    );
    one.ask("d", "EXPUNGE").await;
    assert_eq!(
        two.ask("c", "UID FETCH 2 FLAGS").await,
        ["* 2 EXPUNGE", "c OK Fetched"]
    );
    assert_eq!(
        two.ask("d", "FETCH 2 UID").await,
        ["* 2 FETCH (UID 3)", "d OK Fetched"]
    );
}

#[tokio::test]
async fn an_append_that_breaks_off_leaves_nothing() {
    let world = World::new(|_| {}).await;
    let mut client = world.log_in().await;
    client.send(b"a APPEND INBOX {100}\r\n").await;
    assert!(client.line().await.starts_with("+ "));
    client.send(b"half of it").await;
    drop(client.io);
    client.session.await.unwrap();
    let status = world.mailboxes.status(world.inbox().await).await.unwrap();
    assert_eq!(status.messages, 0);
}

/// What a tap saw of the client.
#[derive(Default)]
struct Seen(Mutex<String>);

impl Tap for Seen {
    fn saw(&self, _: Protocol, _: SocketAddr, direction: Direction, octets: &[u8]) {
        let who = if direction == Direction::Client { "C" } else { "S" };
        for line in String::from_utf8_lossy(octets).lines() {
            self.0.lock().unwrap().push_str(&format!("{who}: {line}\n"));
        }
    }
}

#[tokio::test]
async fn starttls_over_a_socket_and_what_the_tap_sees() {
    let world = World::new(|_| {}).await;
    let folder = tempfile::tempdir().unwrap();
    let source = tls::CertificateSource::SelfSigned {
        dir: folder.path().to_owned(),
        host_name: mail::Domain::parse("mail.example.com").unwrap(),
        addresses: Vec::new(),
    };
    let certificates = Arc::new(tls::Certificates::open(source, NOW).unwrap());
    let seen = Arc::new(Seen::default());
    let ctx = world.context(Some(certificates), retrieve::Options::default());
    let ctx = Arc::new(ctx.with_tap(seen.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(retrieve::serve(
        ctx,
        listener,
        Protocol::Imap,
        world.stop.subscribe(),
    ));

    let mut plain = BufReader::new(TcpStream::connect(address).await.unwrap());
    let mut line = String::new();
    plain.read_line(&mut line).await.unwrap();
    assert!(line.contains("STARTTLS LOGINDISABLED"), "{line}");
    plain.get_mut().write_all(b"a STARTTLS\r\n").await.unwrap();
    line.clear();
    plain.read_line(&mut line).await.unwrap();
    assert_eq!(line, "a OK Begin TLS now\r\n");
    let client = tls::Client::new(&tls::Roots::public()).unwrap();
    let (config, _verdict) = client.config(tls::Verification::Opportunistic);
    let name = tls::server_name("mail.example.com").unwrap();
    let stream = tokio_rustls::TlsConnector::from(config)
        .connect(name, plain.into_inner())
        .await
        .unwrap();
    let mut secure = BufReader::new(stream);
    secure
        .get_mut()
        .write_all(b"b LOGIN bob@example.com secret\r\nc LOGOUT\r\n")
        .await
        .unwrap();
    let mut said = String::new();
    secure.read_to_string(&mut said).await.unwrap();
    assert!(
        said.contains("b OK ") && said.ends_with("c OK Logged out\r\n"),
        "{said}"
    );
    world.stop.send_replace(true);
    server.await.unwrap();

    let seen = seen.0.lock().unwrap().clone();
    assert!(
        seen.contains("C: b LOGIN …\n") && seen.contains("S: b OK"),
        "{seen}"
    );
    assert!(!seen.contains("secret"), "{seen}");
}

/// A bug, on demand.
struct Bomb;

impl Tap for Bomb {
    fn saw(&self, _: Protocol, _: SocketAddr, _: Direction, octets: &[u8]) {
        assert!(!octets.starts_with(b"boom"), "this panic is part of the test");
    }
}

/// A store whose disk can be full to the last octet.
struct FullDisk {
    inner: Arc<store::MemoryStore>,
    full: std::sync::atomic::AtomicBool,
}

impl store::Tables for FullDisk {
    fn commit(
        &self,
        batch: store::Batch,
    ) -> store::BoxFuture<'_, Result<store::Receipt, store::CommitError>> {
        if self.full.load(std::sync::atomic::Ordering::Relaxed) {
            return Box::pin(async { Err(store::CommitError::Full) });
        }
        self.inner.commit(batch)
    }
    fn snapshot(&self) -> store::BoxFuture<'_, Result<Box<dyn store::Snapshot>, store::ReadError>> {
        self.inner.snapshot()
    }
    fn watch(&self, topic: &store::Topic) -> store::Watch {
        self.inner.watch(topic)
    }
}

impl store::Blobs for FullDisk {
    fn stage(
        &self,
        len_hint: u64,
    ) -> store::BoxFuture<'_, Result<Box<dyn store::BlobWriter>, store::BlobError>> {
        self.inner.stage(len_hint)
    }
    fn read(
        &self,
        id: store::BlobId,
        range: std::ops::Range<u64>,
    ) -> store::BoxFuture<'_, Result<bytes::Bytes, store::BlobError>> {
        self.inner.read(id, range)
    }
}

#[tokio::test]
async fn mail_can_be_read_when_nothing_can_be_written() {
    let disk = Arc::new(FullDisk {
        inner: store::MemoryStore::new(),
        full: false.into(),
    });
    let world = World::on(disk.clone(), |_| {}).await;
    world.deliver(HELLO, Flags::NONE, None).await;
    disk.full.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut client = world.log_in().await;
    let selected = client.ask("a", "SELECT INBOX").await.join("\n");
    assert!(selected.contains("* 1 EXISTS"), "{selected}");
    assert!(selected.contains("* 1 RECENT"), "{selected}");
    let fetched = client.ask("b", "FETCH 1 (FLAGS BODY[])").await.join("\n");
    assert!(fetched.contains("Hi Bob, how are you?"), "{fetched}");
    assert!(!fetched.contains("\\Seen"), "{fetched}");
    let refused = client.ask("c", "STORE 1 +FLAGS (\\Flagged)").await.join("\n");
    assert!(refused.contains("NO [OVERQUOTA]"), "{refused}");
    disk.full.store(false, std::sync::atomic::Ordering::Relaxed);
    let fetched = client.ask("d", "FETCH 1 (FLAGS BODY[])").await.join("\n");
    assert!(fetched.contains("\\Seen"), "{fetched}");
    // Nobody was told for good that it is new, so the next session is.
    let mut other = world.log_in().await;
    let selected = other.ask("a", "SELECT INBOX").await.join("\n");
    assert!(selected.contains("* 1 RECENT"), "{selected}");
}

#[tokio::test]
async fn a_panic_ends_its_own_connection_only() {
    let world = World::new(|_| {}).await;
    let ctx = world
        .context(None, retrieve::Options::default())
        .with_tap(Arc::new(Bomb));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(retrieve::serve(
        Arc::new(ctx),
        listener,
        Protocol::Imap,
        world.stop.subscribe(),
    ));
    let mut bystander = BufReader::new(TcpStream::connect(address).await.unwrap());
    let mut line = String::new();
    bystander.read_line(&mut line).await.unwrap();
    let mut victim = TcpStream::connect(address).await.unwrap();
    victim.write_all(b"boom NOOP\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = victim.read_to_end(&mut said).await;
    assert!(!String::from_utf8_lossy(&said).contains("boom OK"));
    bystander.get_mut().write_all(b"a NOOP\r\n").await.unwrap();
    line.clear();
    bystander.read_line(&mut line).await.unwrap();
    assert_eq!(line, "a OK Done\r\n");
    world.stop.send_replace(true);
    server.await.unwrap();
}

#[tokio::test]
async fn a_waiting_connection_is_small() {
    let world = World::new(|_| {}).await;
    let (_ours, theirs) = tokio::io::duplex(64);
    let session = retrieve::serve_connection(
        world.ctx.clone(),
        Box::new(theirs),
        "192.0.2.1:1".parse().unwrap(),
        Protocol::Imap,
        world.stop.subscribe(),
    );
    let octets = std::mem::size_of_val(&session);
    assert!(octets <= 8 * 1024, "{octets} octets a connection");
}

#[tokio::test]
async fn a_plain_login_is_for_this_machine_alone() {
    let world = World::new(|_| {}).await;
    for (peer, answer) in [
        ("127.0.0.1:9", "a OK "),
        ("[::1]:9", "a OK "),
        ("[::ffff:127.0.0.1]:9", "a OK "),
        ("192.0.2.1:9", "a NO [PRIVACYREQUIRED]"),
        ("[2001:db8::1]:9", "a NO [PRIVACYREQUIRED]"),
    ] {
        let mut client = world.connect_from(peer);
        let greeting = client.line().await;
        let is_refused = answer.starts_with("a NO");
        assert_eq!(
            greeting.contains("LOGINDISABLED"),
            is_refused,
            "{peer}: {greeting}"
        );
        let said = client.ask("a", "LOGIN bob@example.com secret").await;
        assert!(said[0].starts_with(answer), "{peer}: {said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_failed_login_takes_longer() {
    let world = World::new(|o| o.auth_failure_delay = Duration::from_secs(1)).await;
    let mut client = world.connect();
    client.line().await;
    for secs in [1, 2] {
        let began = tokio::time::Instant::now();
        let no = client.ask("a", "LOGIN bob@example.com wrong").await;
        assert!(no[0].starts_with("a NO [AUTHENTICATIONFAILED]"), "{no:?}");
        assert_eq!(began.elapsed().as_secs(), secs);
    }
}

#[tokio::test]
async fn services_can_count_failed_logins_together() {
    let world = World::new(|_| {}).await;
    let logins = Arc::new(listen::Logins::new(listen::LoginLimits {
        failures_per_address_max: 1,
        ..listen::LoginLimits::default()
    }));
    let attempt = listen::Attempt {
        peer: "127.0.0.1:9".parse().unwrap(),
        protocol: directory::Protocol::Smtp,
        user: "bob@example.com",
        mechanism: "PLAIN",
        proof: listen::Proof::Password(mail::Secret::new("wrong")),
    };
    let clock = imap_world::Fixed;
    let elsewhere = logins.log_in(&world.directory, &clock, attempt).await;
    assert_eq!(elsewhere, listen::Login::Rejected);
    let mut world = world;
    let ctx = world.context(
        None,
        retrieve::Options {
            allow_plaintext_auth: true,
            ..retrieve::Options::default()
        },
    );
    world.ctx = Arc::new(ctx.with_logins(logins));
    let mut client = world.connect();
    client.line().await;
    let no = client.ask("a", "LOGIN bob@example.com secret").await;
    assert!(no[0].starts_with("a NO [UNAVAILABLE]"), "{no:?}");
}
