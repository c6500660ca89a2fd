//! A whole reception on loopback: a store in memory, a table in place of the DNS, real sockets and
//! real TLS; and a peer that runs dialogue files against it.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use directory::{Argon2Cost, Directory, NewAccount, SystemRandom};
use dns::table::TableResolver;
use journey::Journey;
use mail::{AccountId, Clock, Domain, EmailAddress, Secret, Timestamp};
use mailbox::{Mailboxes, Role as Folder};
use queue::{IdSource, Queue};
use receive::{Context, Options, Parts};
use smtp::Role;
use smtp::dialogue::Peer;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use store::memory::MemoryStore;
use store::{
    Batch, BlobError, BlobId, BlobWriter, Blobs, BoxFuture, CommitError, ReadError, Receipt, Snapshot,
    Tables, Topic, Watch,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How long a test waits for the server before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A clock that ticks a microsecond with each look, from a fixed day on.
pub struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// A store in memory whose disk can be full.
pub struct Fillable {
    inner: Arc<MemoryStore>,
    pub full: AtomicBool,
}

impl Tables for Fillable {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        if self.full.load(Ordering::Relaxed) {
            return Box::pin(async { Err(CommitError::Full) });
        }
        self.inner.commit(batch)
    }
    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, ReadError>> {
        self.inner.snapshot()
    }
    fn watch(&self, topic: &Topic) -> Watch {
        self.inner.watch(topic)
    }
}

impl Blobs for Fillable {
    fn stage(&self, len_hint: u64) -> BoxFuture<'_, Result<Box<dyn BlobWriter>, BlobError>> {
        self.inner.stage(len_hint)
    }
    fn read(
        &self,
        id: BlobId,
        range: std::ops::Range<u64>,
    ) -> BoxFuture<'_, Result<bytes::Bytes, BlobError>> {
        self.inner.read(id, range)
    }
}

/// What is set up before the server starts.
pub struct Setup {
    pub role: Role,
    pub options: Options,
    pub policy: judge::Policy,
    pub blocklists: Vec<Domain>,
    pub resolver: TableResolver,
    pub certificate: bool,
    pub filters: Vec<receive::Filter>,
}

impl Default for Setup {
    fn default() -> Self {
        let mut options = Options::new(&domain("mail.example.com"));
        options.auth_failure_delay = Duration::from_millis(1);
        Self {
            role: Role::Mta,
            options,
            // Most dialogues send messages without header fields.
            policy: judge::Policy {
                no_author: judge::judgement::Action::Accept,
                ..judge::Policy::default()
            },
            blocklists: Vec::new(),
            resolver: TableResolver::new(),
            certificate: true,
            filters: Vec::new(),
        }
    }
}

pub fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

pub fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).unwrap()
}

/// The domains behind a server, also before and after it runs.
pub struct World {
    pub runtime: Runtime,
    pub disk: Arc<Fillable>,
    pub store: Arc<dyn store::Store>,
    pub directory: Directory,
    pub mailboxes: Mailboxes,
    pub queue: Queue,
    pub journey: Journey,
    pub clock: Arc<dyn Clock>,
    folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let disk = Arc::new(Fillable {
            inner: MemoryStore::new(),
            full: AtomicBool::new(false),
        });
        let store: Arc<dyn store::Store> = disk.clone();
        // As cheap as argon2 allows: what it costs is not what is tested here.
        let argon2 = Argon2Cost {
            memory_kib: 8,
            passes: 1,
            lanes: 1,
        };
        let options = directory::Options {
            argon2,
            scram_iterations: 4_096,
            ..directory::Options::default()
        };
        let directory = Directory::new(store.clone(), options, Arc::new(SystemRandom)).unwrap();
        Self {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
            mailboxes: Mailboxes::new(store.clone()),
            queue: Queue::new(store.clone(), queue::Options::default()),
            journey: Journey::new(store.clone()),
            clock: Arc::new(Ticking(AtomicI64::new(1_795_439_053_000_000))),
            folder: tempfile::tempdir().unwrap(),
            disk,
            store,
            directory,
        }
    }

    /// Makes an account with its mailboxes, and its domain when that is new.
    pub fn account(&self, login: &str, password: Option<&str>) -> AccountId {
        let address = address(login);
        let password = password.map(|p| {
            let secret = Secret::new(p);
            let hash = self.directory.hash_password_of(&address, &secret);
            self.runtime.block_on(hash).unwrap()
        });
        let now = self.clock.now();
        self.runtime.block_on(async {
            let name = address.domain().unwrap();
            if self.directory.domain(name).await.unwrap().is_none() {
                self.directory.add_domain(name, now).await.unwrap();
            }
            let new = NewAccount {
                address: address.clone(),
                display_name: String::new(),
                password,
            };
            let mailboxes = self.mailboxes.clone();
            let add = move |batch: &mut store::Batch, id| mailboxes.create_defaults(batch, id, now);
            self.directory.add_account(new, now, &add).await.unwrap().id
        })
    }

    /// Starts the server. It ends with the world.
    pub fn serve(&self, setup: Setup) -> Serving {
        let resolver = Arc::new(setup.resolver.clone());
        self.serve_with(setup, resolver)
    }

    /// What sessions work with.
    pub fn context(&self, setup: Setup, resolver: Arc<dyn dns::Resolver>) -> Arc<Context> {
        let certificates = setup.certificate.then(|| {
            let source = tls::CertificateSource::SelfSigned {
                dir: self.folder.path().join("tls"),
                host_name: domain("mail.example.com"),
                addresses: Vec::new(),
            };
            // The certificate must be good now by the client's clock, which is the real one.
            let real = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap();
            let now = Timestamp::from_secs(i64::try_from(real.as_secs()).unwrap());
            Arc::new(tls::Certificates::open(source, now).unwrap())
        });
        let parts = Parts {
            store: self.store.clone(),
            directory: self.directory.clone(),
            mailboxes: self.mailboxes.clone(),
            queue: self.queue.clone(),
            journey: self.journey.clone(),
            resolver,
            certificates,
            clock: self.clock.clone(),
            ids: Arc::new(IdSource::new(self.clock.clone())),
        };
        let hostname = domain("mail.example.com");
        let context = Context::new(parts, hostname, setup.options, setup.policy, setup.blocklists);
        Arc::new(context.with_filters(setup.filters, Arc::new(receive::SocketDialer)))
    }

    /// Starts the server with another resolver.
    pub fn serve_with(&self, setup: Setup, resolver: Arc<dyn dns::Resolver>) -> Serving {
        let role = setup.role;
        let ctx = self.context(setup, resolver);
        self.start(ctx, role)
    }

    /// Starts the server with limits.
    pub fn serve_limited(&self, setup: Setup, limits: limits::Limits) -> Serving {
        let role = setup.role;
        let resolver = Arc::new(setup.resolver.clone());
        let ctx = Arc::into_inner(self.context(setup, resolver)).unwrap();
        self.start(Arc::new(ctx.with_limits(limits)), role)
    }

    fn start(&self, ctx: Arc<Context>, role: Role) -> Serving {
        let (stop, stopped) = watch::channel(false);
        let (address, task) = self.runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            (
                address,
                tokio::spawn(receive::serve(ctx, listener, role, stopped)),
            )
        });
        Serving {
            address,
            stop,
            task: Some(task),
        }
    }

    /// The messages of one mailbox, whole.
    pub fn messages(&self, account: AccountId, folder: Folder) -> Vec<Vec<u8>> {
        self.runtime.block_on(async {
            let place = self
                .mailboxes
                .find(account, folder)
                .await
                .unwrap()
                .unwrap()
                .place();
            let entries = self.mailboxes.entries(place, mail::Uid(1), 1_000).await.unwrap();
            let mut out = Vec::new();
            for entry in entries {
                let blob = self.store.read(entry.blob, 0..entry.blob_len).await.unwrap();
                out.push([&entry.prefix[..], &blob[..]].concat());
            }
            out
        })
    }

    /// Every queued message with its recipients.
    pub fn queued(&self) -> Vec<(Vec<String>, Vec<u8>)> {
        self.runtime.block_on(async {
            let mut out = Vec::new();
            for listed in self.queue.list(&queue::Filter::default(), 1_000).await.unwrap() {
                let blob = self
                    .store
                    .read(listed.message.blob, 0..listed.message.blob_len)
                    .await
                    .unwrap();
                let to = listed.errands.iter().map(|e| e.recipient.to_string()).collect();
                out.push((to, [&listed.message.prefix[..], &blob[..]].concat()));
            }
            out
        })
    }
}

/// A running server.
pub struct Serving {
    pub address: SocketAddr,
    pub stop: watch::Sender<bool>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Serving {
    /// Stops the server and waits until it has ended.
    pub fn end(mut self, world: &World) {
        let _ = self.stop.send(true);
        let task = self.task.take().unwrap();
        world
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap() });
    }
}

/// Plain or TLS.
enum Stream {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

/// A client with a socket, that knows lines and TLS.
pub struct Talker {
    stream: Option<Stream>,
    read: Vec<u8>,
}

impl Talker {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: Some(Stream::Plain(stream)),
            read: Vec::new(),
        }
    }

    pub fn start_tls(&mut self) -> Result<(), String> {
        let Some(Stream::Plain(mut socket)) = self.stream.take() else {
            return Err("no plain connection".to_owned());
        };
        let client = tls::Client::new(&tls::Roots::public()).map_err(|e| e.to_string())?;
        let (config, _) = client.config(tls::Verification::Opportunistic);
        let name = tls::server_name("mail.example.com").map_err(|e| e.to_string())?;
        let mut connection = rustls::ClientConnection::new(config, name).map_err(|e| e.to_string())?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).map_err(|e| e.to_string())?;
        }
        self.stream = Some(Stream::Tls(Box::new(rustls::StreamOwned::new(
            connection, socket,
        ))));
        Ok(())
    }

    /// What the client can bind a login to.
    pub fn channel(&self) -> sasl::Channel {
        let Some(Stream::Tls(stream)) = &self.stream else {
            return sasl::Channel::default();
        };
        let label = b"EXPORTER-Channel-Binding";
        let exporter = stream.conn.export_keying_material([0u8; 32], label, Some(&[]));
        let shown = stream.conn.peer_certificates().and_then(|chain| chain.first());
        // Our self-signed certificate has an ECDSA signature with SHA-256.
        let digest = |der: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        sasl::Channel {
            exporter: exporter.ok(),
            end_point: shown.map(|der| digest(der).as_ref().to_vec()),
            has_certificate: false,
        }
    }

    /// Sends octets. Long ones are sent from beside, because the server may answer meanwhile, and
    /// may close before it has read all.
    pub fn send(&mut self, octets: &[u8]) {
        match self.stream.as_mut() {
            Some(Stream::Plain(socket)) if octets.len() > 64 * 1024 => {
                let mut writer = socket.try_clone().unwrap();
                let octets = octets.to_vec();
                std::thread::spawn(move || writer.write_all(&octets));
            }
            Some(Stream::Plain(socket)) => socket.write_all(octets).unwrap_or(()),
            Some(Stream::Tls(stream)) => stream.write_all(octets).unwrap_or(()),
            None => {}
        }
    }

    /// The next line without its ending; `None` at the end of the connection.
    pub fn line(&mut self) -> Result<Option<String>, String> {
        loop {
            if let Some(end) = self.read.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                let line = line.strip_suffix(b"\r\n").ok_or("a line ended without CR")?;
                return Ok(Some(String::from_utf8_lossy(line).into_owned()));
            }
            let mut chunk = [0u8; 4_096];
            let got = match self.stream.as_mut() {
                Some(Stream::Plain(socket)) => socket.read(&mut chunk),
                Some(Stream::Tls(stream)) => stream.read(&mut chunk),
                None => return Ok(None),
            };
            match got {
                Ok(0) => return Ok(None),
                Ok(n) => self.read.extend_from_slice(&chunk[..n]),
                Err(e) => return Err(format!("the connection broke: {e}")),
            }
        }
    }

    /// Sends a line and reads the whole reply to it.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Reads one whole reply.
    pub fn reply(&mut self) -> String {
        let mut all = Vec::new();
        loop {
            let line = self.line().unwrap().expect("a reply, not the end");
            let more = line.as_bytes().get(3) == Some(&b'-');
            all.push(line);
            if !more {
                return all.join("\n");
            }
        }
    }

    /// EHLO, STARTTLS, EHLO.
    pub fn into_tls(mut self) -> Self {
        assert!(self.reply().starts_with("220 "));
        self.ask("EHLO client.example.net");
        assert!(self.ask("STARTTLS").starts_with("220 "));
        self.start_tls().unwrap();
        self.ask("EHLO client.example.net");
        self
    }
}

/// Runs dialogue files against a server over a socket.
pub struct SocketPeer {
    pub world: World,
    setup: Option<Setup>,
    serving: Option<Serving>,
    talker: Option<Talker>,
    accounts: Vec<(String, AccountId)>,
}

impl SocketPeer {
    pub fn new() -> Self {
        Self {
            world: World::new(),
            setup: Some(Setup::default()),
            serving: None,
            talker: None,
            accounts: Vec::new(),
        }
    }

    fn talker(&mut self) -> Result<&mut Talker, String> {
        if self.talker.is_none() {
            let setup = self.setup.take().ok_or("started twice")?;
            let implicit = setup.role == Role::Submissions;
            let serving = self.world.serve(setup);
            let mut talker = Talker::connect(serving.address);
            if implicit {
                talker.start_tls()?;
            }
            self.serving = Some(serving);
            self.talker = Some(talker);
        }
        self.talker.as_mut().ok_or("no connection".to_owned())
    }

    fn add_account(&mut self, login: &str, password: Option<&str>, second_factor: bool) {
        let id = self.world.account(login, password);
        if second_factor {
            let directory = &self.world.directory;
            let secret = directory.new_totp_secret().unwrap();
            self.world
                .runtime
                .block_on(directory.set_second_factor(id, Some(secret)))
                .unwrap();
        }
        self.accounts.push((login.to_owned(), id));
    }

    fn set_up(&mut self, fact: &str) -> Result<(), String> {
        let words: Vec<&str> = fact.split(' ').collect();
        let setup = self
            .setup
            .as_mut()
            .ok_or("everything given must stand before the conversation")?;
        match words[..] {
            ["role", "mta"] => setup.role = Role::Mta,
            ["role", "submission"] => setup.role = Role::Submission,
            ["role", "submissions"] => setup.role = Role::Submissions,
            ["role", "lmtp"] => setup.role = Role::Lmtp,
            ["XCLIENT", "is", "allowed"] => {
                setup.options.xclient_from = vec!["127.0.0.0/8".parse().unwrap()];
            }
            ["messages", "need", "no", "author"] => {}
            ["no", "certificate"] => setup.certificate = false,
            ["mechanisms", ref names @ ..] => {
                let all: Option<_> = names.iter().map(|name| sasl::Mechanism::parse(name)).collect();
                setup.options.smtp.mechanisms = all.ok_or("unknown mechanism")?;
            }
            ["the", "disk", "is", "full"] => self.world.disk.full.store(true, Ordering::Relaxed),
            ["logins", "in", "clear", "are", "allowed"] => setup.options.smtp.allow_plaintext_auth = true,
            ["limit", name, n] => {
                let n: u64 = n.parse().map_err(|_| "not a number")?;
                let limits = &mut setup.options.smtp;
                match name {
                    "size" => limits.size_max_octets = n,
                    "discard" => limits.discard_max_octets = n,
                    "recipients" => limits.recipients_max = n as usize,
                    "commands" => limits.idle_commands_max = n as u32,
                    "messages" => limits.messages_max = n as u32,
                    "patience" => limits.timeouts.command = Duration::from_secs(n),
                    "line" => limits.data_line_octets_max = Some(n as usize),
                    _ => return Err(format!("no limit is called {name}")),
                }
            }
            _ => return Err(format!("unknown fact: {fact}")),
        }
        Ok(())
    }

    /// Everything that was accepted: for whom, and the whole text.
    fn accepted(&self) -> Vec<(Vec<String>, Vec<u8>)> {
        let mut all = self.world.queued();
        for (login, id) in &self.accounts {
            for folder in [Folder::Inbox, Folder::Junk] {
                for message in self.world.messages(*id, folder) {
                    all.push((vec![login.clone()], message));
                }
            }
        }
        all
    }
}

impl Peer for SocketPeer {
    fn given(&mut self, fact: &str) -> Result<(), String> {
        let Some(account) = fact.strip_prefix("account ") else {
            return self.set_up(fact);
        };
        let (account, second_factor) = match account.strip_suffix(" and a second factor") {
            Some(account) => (account, true),
            None => (account, false),
        };
        match account.split_once(" with password ") {
            Some((login, password)) => self.add_account(login, Some(password), second_factor),
            None => self.add_account(account, None, second_factor),
        }
        Ok(())
    }

    fn send(&mut self, octets: &[u8]) -> Result<(), String> {
        self.talker()?.send(octets);
        Ok(())
    }

    fn line(&mut self) -> Result<Option<String>, String> {
        self.talker()?.line()
    }

    fn tls(&mut self) -> Result<(), String> {
        self.talker()?.start_tls()
    }

    fn channel(&self) -> sasl::Channel {
        self.talker.as_ref().map(Talker::channel).unwrap_or_default()
    }

    fn meanwhile(&mut self, event: &str) -> Result<(), String> {
        let words: Vec<&str> = event.split(' ').collect();
        match words[..] {
            ["account", login, "is", "removed"] => {
                let known = self.accounts.iter().find(|(name, _)| name == login);
                let (_, id) = known.ok_or("there is no such account")?;
                let removed = self.world.directory.remove_account(*id);
                self.world.runtime.block_on(removed).map_err(|e| e.to_string())
            }
            // The next line is waited for.
            ["the", "client", "is", "silent", "for", "too", "long"] => Ok(()),
            ["the", "server", "shuts", "down"] => {
                let serving = self.serving.as_ref().ok_or("nothing has begun yet")?;
                serving.stop.send(true).map_err(|e| e.to_string())
            }
            _ => Err(format!("unknown event: {event}")),
        }
    }

    fn then(&mut self, fact: &str) -> Result<(), String> {
        let accepted = self.accepted();
        let holds = |text: &str| {
            accepted
                .iter()
                .any(|(_, m)| m.windows(text.len()).any(|w| w == text.as_bytes()))
        };
        let has = |who: &str| {
            accepted
                .iter()
                .filter(|(to, _)| to.iter().any(|t| t == who))
                .count()
        };
        // The bare postmaster is the first account's here.
        let postmaster = self
            .accounts
            .first()
            .map(|(login, _)| login.clone())
            .unwrap_or_default();
        let words: Vec<&str> = fact.split(' ').collect();
        let true_now = match words[..] {
            ["nothing", "was", "accepted"] => accepted.is_empty(),
            [n, "messages" | "message", "was" | "were", "accepted"] => n.parse() == Ok(accepted.len()),
            ["postmaster", "has", n, "messages" | "message"] => n.parse() == Ok(has(&postmaster)),
            [who, "has", n, "messages" | "message"] => n.parse() == Ok(has(who)),
            ["a", "message", "holds", ..] => holds(&words[3..].join(" ")),
            ["no", "message", "holds", ..] => !holds(&words[3..].join(" ")),
            ["the", "queue", "is", "empty"] => self.world.queued().is_empty(),
            _ => return Err(format!("unknown fact: {fact}")),
        };
        true_now
            .then_some(())
            .ok_or_else(|| format!("it is not true that {fact}"))
    }
}
