//! POP3 against mailboxes in memory: what a session sees, what it removes, who may open it.
#![allow(clippy::unwrap_used)]

use directory::{Argon2Cost, Directory, NewAccount, Scopes, SystemRandom};
use mail::{AccountId, Clock, Domain, EmailAddress, Secret, Timestamp, Uid};
use mailbox::{Delivery, Flags, Mailboxes, Place, Role};
use retrieve::{Context, Io, Options, Protocol};
use std::sync::Arc;
use store::{Batch, MemoryStore, Store};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const NOW: Timestamp = Timestamp::from_secs(1_795_439_053);

struct Fixed;
impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        NOW
    }
}

struct World {
    ctx: Arc<Context>,
    store: Arc<dyn Store>,
    directory: Directory,
    mailboxes: Mailboxes,
    bob: AccountId,
    inbox: Place,
    stop: watch::Sender<bool>,
}

impl World {
    async fn new(change: impl FnOnce(&mut Options)) -> Self {
        Self::with_tls(None, change).await
    }

    async fn with_tls(tls: Option<Arc<tls::Certificates>>, change: impl FnOnce(&mut Options)) -> Self {
        let store: Arc<dyn Store> = MemoryStore::new();
        let cheap = directory::Options {
            argon2: Argon2Cost {
                memory_kib: 8,
                passes: 1,
                lanes: 1,
            },
            ..directory::Options::default()
        };
        let directory = Directory::new(store.clone(), cheap, Arc::new(SystemRandom)).unwrap();
        let mailboxes = Mailboxes::new(store.clone());
        let domain = Domain::parse("example.com").unwrap();
        directory.add_domain(&domain, NOW).await.unwrap();
        let new = NewAccount {
            address: EmailAddress::parse("bob@example.com").unwrap(),
            display_name: String::new(),
            password: Some(directory.hash_password(&Secret::new("secret word")).unwrap()),
        };
        let boxes = mailboxes.clone();
        let add = move |batch: &mut Batch, id| boxes.create_defaults(batch, id, NOW);
        let bob = directory.add_account(new, NOW, &add).await.unwrap().id;
        let inbox = mailboxes.find(bob, Role::Inbox).await.unwrap().unwrap().place();
        let mut options = Options {
            allow_plaintext_auth: true,
            auth_failure_delay: std::time::Duration::ZERO,
            ..Options::default()
        };
        change(&mut options);
        let ctx = Context::new(
            store.clone(),
            directory.clone(),
            mailboxes.clone(),
            journey::Journey::new(store.clone()),
            tls,
            Arc::new(Fixed),
            options,
        );
        Self {
            ctx: Arc::new(ctx),
            store,
            directory,
            mailboxes,
            bob,
            inbox,
            stop: watch::channel(false).0,
        }
    }

    async fn deliver(&self, text: &str) {
        let mut writer = self.store.stage(text.len() as u64).await.unwrap();
        writer.write(text.as_bytes()).await.unwrap();
        let staged = writer.finish().await.unwrap();
        let delivery = Delivery {
            blob: staged.id,
            blob_len: staged.len,
            prefix: b"Return-Path: <alice@gmail.com>\r\n".to_vec(),
            flags: Flags::NONE,
            keywords: Vec::new(),
            internal_date: NOW,
            queue_id: None,
        };
        self.mailboxes.append(self.inbox, staged, delivery).await.unwrap();
    }

    async fn uids(&self) -> Vec<u32> {
        let entries = self.mailboxes.entries(self.inbox, Uid(1), 100).await.unwrap();
        entries.iter().map(|e| e.uid.0).collect()
    }

    fn connect(&self) -> Client {
        self.connect_from("127.0.0.1:4321")
    }

    fn connect_from(&self, peer: &str) -> Client {
        let (ours, theirs) = tokio::io::duplex(4096);
        let peer = peer.parse().unwrap();
        let session = retrieve::serve_connection(
            self.ctx.clone(),
            Box::new(theirs),
            peer,
            Protocol::Pop3,
            self.stop.subscribe(),
        );
        Client {
            io: BufReader::new(Box::new(ours)),
            session: tokio::spawn(session),
        }
    }

    async fn log_in(&self) -> Client {
        let mut client = self.connect();
        assert!(client.line().await.starts_with("+OK"));
        assert_eq!(client.ask("USER bob@example.com").await, "+OK now the password");
        let welcome = client.ask("PASS secret word").await;
        assert!(welcome.starts_with("+OK the maildrop has"), "{welcome}");
        client
    }
}

struct Client {
    io: BufReader<Box<dyn Io>>,
    session: JoinHandle<()>,
}

impl Client {
    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.io.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    async fn say(&mut self, line: &str) {
        let octets = format!("{line}\r\n");
        self.io.get_mut().write_all(octets.as_bytes()).await.unwrap();
        self.io.get_mut().flush().await.unwrap();
    }

    async fn ask(&mut self, line: &str) -> String {
        self.say(line).await;
        self.line().await
    }

    /// The lines of a multi-line response, dots unstuffed.
    async fn rest(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await;
            match line.strip_prefix('.') {
                Some("") => return lines,
                Some(stuffed) => lines.push(stuffed.to_owned()),
                None => lines.push(line),
            }
        }
    }

    async fn ended(mut self) {
        assert_eq!(self.line().await, "", "the server should have closed");
        // The server waits a little for the client's end too.
        drop(self.io);
        self.session.await.unwrap();
    }
}

#[tokio::test]
async fn messages_are_listed_and_fetched_as_they_are() {
    let world = World::new(|_| {}).await;
    let long = format!(
        "Subject: long\r\n\r\n{}",
        ".a line that begins with a dot\r\n".repeat(9_000)
    );
    world.deliver("Subject: Hello!\r\n\r\nHi Bob\r\n").await;
    world.deliver(&long).await;
    let mut client = world.log_in().await;
    let first = 32 + 27;
    let second = 32 + long.len();
    assert_eq!(client.ask("STAT").await, format!("+OK 2 {}", first + second));
    assert_eq!(client.ask("LIST 2").await, format!("+OK 2 {second}"));
    assert_eq!(client.ask("UIDL").await, "+OK 2 messages");
    let ids = client.rest().await;
    assert!(ids[0].starts_with("1 ") && ids[0].ends_with(".1") && ids[1].ends_with(".2"));
    assert_eq!(client.ask("RETR 1").await, format!("+OK {first} octets"));
    assert_eq!(
        client.rest().await,
        ["Return-Path: <alice@gmail.com>", "Subject: Hello!", "", "Hi Bob"]
    );
    assert_eq!(client.ask("RETR 2").await, format!("+OK {second} octets"));
    let lines = client.rest().await;
    assert_eq!(lines[1..].join("\r\n") + "\r\n", long);
    assert!(client.ask("TOP 2 1").await.starts_with("+OK"));
    assert_eq!(client.rest().await.len(), 4);
    let entry = world.mailboxes.entry(world.inbox, Uid(1)).await.unwrap().unwrap();
    assert!(entry.fetched, "RETR is noted");
}

#[tokio::test]
async fn only_quit_removes_and_it_is_done_before_the_farewell() {
    let world = World::new(|_| {}).await;
    for n in 0..3 {
        world.deliver(&format!("Subject: {n}\r\n\r\n")).await;
    }
    let mut client = world.log_in().await;
    assert!(client.ask("DELE 1").await.starts_with("+OK"));
    drop(client.io);
    client.session.await.unwrap();
    assert_eq!(
        world.uids().await,
        [1, 2, 3],
        "a connection that broke removes nothing"
    );

    let mut client = world.log_in().await;
    assert!(client.ask("DELE 1").await.starts_with("+OK"));
    assert!(client.ask("DELE 3").await.starts_with("+OK"));
    assert_eq!(world.uids().await, [1, 2, 3]);
    // What arrives during the session is not in it, and not removed by it.
    world.deliver("Subject: new\r\n\r\n").await;
    assert!(client.ask("LIST 4").await.starts_with("-ERR no such message"));
    assert!(client.ask("QUIT").await.starts_with("+OK"));
    assert_eq!(world.uids().await, [2, 4]);
    client.ended().await;
}

#[tokio::test]
async fn a_message_that_another_session_removed_is_refused_and_the_rest_served() {
    let world = World::new(|_| {}).await;
    world.deliver("Subject: 1\r\n\r\n").await;
    world.deliver("Subject: 2\r\n\r\n").await;
    let mut client = world.log_in().await;
    let gone = world
        .mailboxes
        .expunge(world.inbox, &[Uid(1)], mailbox::ExpungeWhich::All);
    gone.await.unwrap();
    assert!(client.ask("RETR 1").await.starts_with("-ERR [SYS/TEMP]"));
    assert!(client.ask("RETR 2").await.starts_with("+OK"));
    assert_eq!(client.rest().await.len(), 3);
    assert!(client.ask("DELE 1").await.starts_with("+OK"));
    assert!(client.ask("QUIT").await.starts_with("+OK"));
}

#[tokio::test]
async fn one_session_at_a_time() {
    let world = World::new(|_| {}).await;
    let mut first = world.log_in().await;
    let mut second = world.connect();
    second.line().await;
    second.ask("USER bob@example.com").await;
    let refusal = second.ask("PASS secret word").await;
    assert!(refusal.starts_with("-ERR [IN-USE]"), "{refusal}");
    assert!(first.ask("QUIT").await.starts_with("+OK"));
    second.ask("USER bob@example.com").await;
    assert!(
        second.ask("PASS secret word").await.starts_with("+OK"),
        "free at the farewell"
    );
}

const LOGIN_OVER: &str = "-ERR [AUTH] this login has ended; nothing was removed; log in again";

#[tokio::test]
async fn a_login_that_is_taken_away_ends_the_session_and_removes_nothing() {
    for (change, command) in [
        ("suspension", "QUIT"),
        ("password", "QUIT"),
        ("second factor", "RETR 2"),
        ("removal", "NOOP"),
    ] {
        let world = World::new(|_| {}).await;
        world.deliver("Subject: 1\r\n\r\n").await;
        world.deliver("Subject: 2\r\n\r\n").await;
        let mut client = world.log_in().await;
        assert!(client.ask("DELE 1").await.starts_with("+OK"));
        let (d, bob) = (&world.directory, world.bob);
        d.set_display_name(bob, "Bob").await.unwrap();
        assert_eq!(client.ask("NOOP").await, "+OK", "not for a name");
        let done = match change {
            "suspension" => d.suspend(bob).await,
            "password" => {
                let hash = d.hash_password(&Secret::new("secret word")).unwrap();
                d.set_password(bob, Some(hash)).await
            }
            "second factor" => {
                let secret = d.new_totp_secret().unwrap();
                d.set_second_factor(bob, Some(secret)).await
            }
            _ => d.remove_account(bob).await,
        };
        done.unwrap();
        assert_eq!(client.ask(command).await, LOGIN_OVER, "{change}");
        client.ended().await;
        assert_eq!(world.uids().await, [1, 2], "{change}");
    }
}

#[tokio::test]
async fn commands_sent_ahead_end_with_the_login() {
    let world = World::new(|_| {}).await;
    world.deliver("Subject: 1\r\n\r\n").await;
    let long = "Subject: long\r\n\r\n".to_owned() + &"0123456789abcde\r\n".repeat(9_000);
    world.deliver(&long).await;
    let mut client = world.log_in().await;
    client.say("DELE 1\r\nRETR 2\r\nQUIT").await;
    assert!(client.line().await.starts_with("+OK"));
    // The message is far more than the pipe holds, so QUIT waits.
    assert!(client.line().await.ends_with(" octets"));
    world.directory.suspend(world.bob).await.unwrap();
    client.rest().await;
    assert_eq!(client.line().await, LOGIN_OVER);
    client.ended().await;
    assert_eq!(world.uids().await, [1, 2]);
}

#[tokio::test]
async fn a_login_that_has_ended_gives_the_maildrop_back() {
    let world = World::new(|_| {}).await;
    let d = &world.directory;
    let app = d.add_app_password(world.bob, "phone", Scopes::ALL, NOW);
    let app = app.await.unwrap();
    let mut old = world.connect();
    old.line().await;
    old.ask("USER bob@example.com").await;
    let welcome = old.ask(&format!("PASS {}", app.password.expose())).await;
    assert!(welcome.starts_with("+OK"), "{welcome}");
    d.revoke_app_password(world.bob, app.record.id).await.unwrap();
    // The old session says nothing, but it hears of it.
    let mut is_free = false;
    for _ in 0..100 {
        let mut new = world.connect();
        new.line().await;
        new.ask("USER bob@example.com").await;
        is_free = new.ask("PASS secret word").await.starts_with("+OK");
        if is_free {
            break;
        }
    }
    assert!(is_free);
    assert_eq!(old.ask("STAT").await, LOGIN_OVER);
}

#[tokio::test]
async fn with_a_second_factor_only_app_passwords_open_the_maildrop() {
    let world = World::new(|_| {}).await;
    let secret = world.directory.new_totp_secret().unwrap();
    world
        .directory
        .set_second_factor(world.bob, Some(secret))
        .await
        .unwrap();
    let app = world
        .directory
        .add_app_password(world.bob, "phone", Scopes::ALL, NOW)
        .await
        .unwrap();
    let mut client = world.connect();
    client.line().await;
    client.ask("USER bob@example.com").await;
    assert_eq!(
        client.ask("PASS wrong").await,
        "-ERR [AUTH] user name or password is wrong"
    );
    client.ask("USER bob@example.com").await;
    let refusal = client.ask("PASS secret word").await;
    assert!(
        refusal.starts_with("-ERR [AUTH]") && refusal.contains("app password"),
        "{refusal}"
    );
    client.ask("USER bob@example.com").await;
    let pass = format!("PASS {}", app.password.expose());
    assert!(client.ask(&pass).await.starts_with("+OK"));
}

#[tokio::test]
async fn a_password_only_inside_tls() {
    let dir = tempfile::tempdir().unwrap();
    let source = tls::CertificateSource::SelfSigned {
        dir: dir.path().to_owned(),
        host_name: Domain::parse("mail.example.com").unwrap(),
        addresses: Vec::new(),
    };
    let certificates = tls::Certificates::open(source, NOW).unwrap();
    let world = World::with_tls(Some(Arc::new(certificates)), |o| o.allow_plaintext_auth = false).await;
    let mut client = world.connect();
    client.line().await;
    assert!(
        client
            .ask("USER bob@example.com")
            .await
            .starts_with("-ERR login only inside TLS")
    );
    assert!(client.ask("STLS").await.starts_with("+OK"));
    let Client { io, session } = client;
    assert!(io.buffer().is_empty());
    let (config, _) = tls::Client::new(&tls::Roots::public())
        .unwrap()
        .config(tls::Verification::Opportunistic);
    let name = tls::server_name("mail.example.com").unwrap();
    let connector = tokio_rustls::TlsConnector::from(config);
    let stream = connector.connect(name, io.into_inner()).await.unwrap();
    let mut client = Client {
        io: BufReader::new(Box::new(stream)),
        session,
    };
    assert!(client.ask("USER bob@example.com").await.starts_with("+OK"));
    assert!(client.ask("PASS secret word").await.starts_with("+OK"));
}

#[tokio::test]
async fn a_shutdown_ends_the_session_and_removes_nothing() {
    let world = World::new(|_| {}).await;
    world.deliver("Subject: 1\r\n\r\n").await;
    let mut client = world.log_in().await;
    assert!(client.ask("DELE 1").await.starts_with("+OK"));
    world.stop.send_replace(true);
    client.ended().await;
    assert_eq!(world.uids().await, [1]);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_session_after_its_time() {
    let world = World::new(|_| {}).await;
    let started = tokio::time::Instant::now();
    let mut client = world.connect();
    client.line().await;
    client.ended().await;
    assert_eq!(started.elapsed().as_secs(), 60, "until the login");
}

#[tokio::test]
async fn a_plain_login_is_for_this_machine_alone() {
    let world = World::new(|_| {}).await;
    for (peer, answer) in [
        ("[::1]:9", "+OK"),
        ("192.0.2.1:9", "-ERR login only inside TLS"),
        ("[2001:db8::1]:9", "-ERR login only inside TLS"),
    ] {
        let mut client = world.connect_from(peer);
        client.line().await;
        let said = client.ask("USER bob@example.com").await;
        assert!(said.starts_with(answer), "{peer}: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_failed_login_takes_longer() {
    let world = World::new(|o| o.auth_failure_delay = std::time::Duration::from_secs(1)).await;
    let mut client = world.connect();
    client.line().await;
    for secs in [1, 2] {
        client.ask("USER bob@example.com").await;
        let began = tokio::time::Instant::now();
        assert!(client.ask("PASS wrong").await.starts_with("-ERR [AUTH]"));
        assert_eq!(began.elapsed().as_secs(), secs);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_over_the_limit_is_told_and_does_not_stay() {
    let world = World::new(|o| o.connections_per_address_max = 1).await;
    let mut first = world.connect();
    first.line().await;
    let mut second = world.connect();
    assert!(second.line().await.starts_with("-ERR [SYS/TEMP] Too many"));
    second.ended().await;
    // Its seat is free once it has gone.
    assert!(first.ask("QUIT").await.starts_with("+OK"));
    first.ended().await;
    assert!(world.connect().line().await.starts_with("+OK"));
}
