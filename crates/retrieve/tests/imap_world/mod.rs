//! An account with mailboxes in memory, and clients that talk IMAP to the real driver.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use directory::{Argon2Cost, Directory, NewAccount, SystemRandom};
use mail::{AccountId, Clock, Domain, EmailAddress, QueueId, Secret, Timestamp, Uid};
use mailbox::{Delivery, ExpungeWhich, FlagChange, FlagOp, Flags, Mailboxes, Place, Role};
use retrieve::{Context, Options, Protocol};
use std::sync::Arc;
use std::time::Duration;
use store::{Batch, MemoryStore, Store};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub const NOW: Timestamp = Timestamp::from_secs(1_795_439_053);

pub const HELLO: &str = "From: alice@gmail.com\r\nTo: bob@example.com\r\nSubject: Hello!\r\n\
Date: Mon, 23 Nov 2026 13:04:13 +0000\r\nMessage-ID: <1@gmail.com>\r\n\r\nHi Bob, how are you?\r\n";

pub const NESTED: &str = "From: =?utf-8?Q?J=C3=BCrg?= <juerg@example.net>\r\nSubject: =?utf-8?B?R3LDvMOfZQ==?=\r\n\
Date: Tue, 24 Nov 2026 01:00:00 +0200\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b1\r\n\r\n\
--b1\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
Sch=F6n\r\n--b1\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ndeep\r\n--b1--\r\n";

pub struct Fixed;
impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        NOW
    }
}

pub struct World {
    pub ctx: Arc<Context>,
    pub store: Arc<dyn Store>,
    pub directory: Directory,
    pub mailboxes: Mailboxes,
    pub journey: journey::Journey,
    pub bob: AccountId,
    pub stop: watch::Sender<bool>,
}

impl World {
    pub async fn new(change: impl FnOnce(&mut Options)) -> Self {
        Self::on(MemoryStore::new(), change).await
    }

    pub async fn on(store: Arc<dyn Store>, change: impl FnOnce(&mut Options)) -> Self {
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
        let journey = journey::Journey::new(store.clone());
        let domain = Domain::parse("example.com").unwrap();
        directory.add_domain(&domain, NOW).await.unwrap();
        let new = NewAccount {
            address: EmailAddress::parse("bob@example.com").unwrap(),
            display_name: String::new(),
            password: Some(directory.hash_password(&Secret::new("secret")).unwrap()),
        };
        let boxes = mailboxes.clone();
        let add = move |batch: &mut Batch, id| boxes.create_defaults(batch, id, NOW);
        let bob = directory.add_account(new, NOW, &add).await.unwrap().id;
        let mut options = Options {
            hostname: "mail.example.com".to_owned(),
            allow_plaintext_auth: true,
            message_octets_max: 1_000_000,
            auth_failure_delay: Duration::ZERO,
            ..Options::default()
        };
        change(&mut options);
        let ctx = Context::new(
            store.clone(),
            directory.clone(),
            mailboxes.clone(),
            journey.clone(),
            None,
            Arc::new(Fixed),
            options,
        );
        Self {
            ctx: Arc::new(ctx),
            store,
            directory,
            mailboxes,
            journey,
            bob,
            stop: watch::channel(false).0,
        }
    }

    /// Another context over the same mailboxes.
    pub fn context(&self, tls: Option<Arc<tls::Certificates>>, options: Options) -> Context {
        Context::new(
            self.store.clone(),
            self.directory.clone(),
            self.mailboxes.clone(),
            self.journey.clone(),
            tls,
            Arc::new(Fixed),
            options,
        )
    }

    pub async fn inbox(&self) -> Place {
        let inbox = self.mailboxes.find(self.bob, Role::Inbox).await.unwrap();
        inbox.unwrap().place()
    }

    pub async fn deliver(&self, text: &str, flags: Flags, queue_id: Option<QueueId>) -> Uid {
        let mut writer = self.store.stage(text.len() as u64).await.unwrap();
        writer.write(text.as_bytes()).await.unwrap();
        let staged = writer.finish().await.unwrap();
        let delivery = Delivery {
            blob: staged.id,
            blob_len: staged.len,
            prefix: Vec::new(),
            flags,
            keywords: Vec::new(),
            internal_date: NOW,
            queue_id,
        };
        let appended = self.mailboxes.append(self.inbox().await, staged, delivery).await;
        appended.unwrap().uid
    }

    /// What another session does.
    pub async fn expunge(&self, uid: u32) {
        let place = self.inbox().await;
        self.mailboxes
            .expunge(place, &[Uid(uid)], ExpungeWhich::All)
            .await
            .unwrap();
    }

    pub async fn flag(&self, uid: u32) {
        let change = FlagChange {
            op: FlagOp::Add,
            flags: Flags::FLAGGED,
            keywords: Vec::new(),
            unchanged_since: None,
        };
        let place = self.inbox().await;
        self.mailboxes
            .store_flags(place, &[Uid(uid)], &change)
            .await
            .unwrap();
    }

    pub fn connect(&self) -> Client {
        self.connect_from("127.0.0.1:4321")
    }

    pub fn connect_from(&self, peer: &str) -> Client {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let peer = peer.parse().unwrap();
        let session = retrieve::serve_connection(
            self.ctx.clone(),
            Box::new(theirs),
            peer,
            Protocol::Imap,
            self.stop.subscribe(),
        );
        Client {
            io: BufReader::new(ours),
            session: tokio::spawn(session),
        }
    }

    pub async fn log_in(&self) -> Client {
        let mut client = self.connect();
        client.line().await;
        let answer = client.ask("a0", "LOGIN bob@example.com secret").await;
        assert!(answer[0].starts_with("a0 OK"), "{answer:?}");
        client
    }
}

pub struct Client {
    pub io: BufReader<DuplexStream>,
    pub session: JoinHandle<()>,
}

const PATIENCE: Duration = Duration::from_secs(20);

impl Client {
    /// The next line without its line ending; `None` at the end of the connection.
    pub async fn try_line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let n = timeout(PATIENCE, self.io.read_until(b'\n', &mut line))
            .await
            .expect("an answer")
            .unwrap();
        let text = String::from_utf8_lossy(&line).into_owned();
        (n > 0).then(|| text.trim_end_matches(['\r', '\n']).to_owned())
    }

    pub async fn line(&mut self) -> String {
        self.try_line().await.expect("a line, not the end")
    }

    pub async fn send(&mut self, octets: &[u8]) {
        self.io.get_mut().write_all(octets).await.unwrap();
    }

    /// Sends a command and collects all lines up to its tagged answer.
    pub async fn ask(&mut self, tag: &str, command: &str) -> Vec<String> {
        self.send(format!("{tag} {command}\r\n").as_bytes()).await;
        let mut lines = Vec::new();
        loop {
            let line = self.line().await;
            let is_last = line.starts_with(&format!("{tag} "));
            lines.push(line);
            if is_last {
                return lines;
            }
        }
    }

    pub async fn octets(&mut self, n: usize) -> Vec<u8> {
        let mut octets = vec![0; n];
        timeout(PATIENCE, self.io.read_exact(&mut octets))
            .await
            .expect("octets")
            .unwrap();
        octets
    }
}
