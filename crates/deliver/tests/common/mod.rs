//! A network in memory with scripted SMTP servers.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

pub mod player;
pub mod stage;
pub mod world;

use deliver::dial::Dialing;
use deliver::{Dialer, Stream};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use store::{Batch, BlobId, Key, MemoryStore, Store};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::watch;

/// How a server takes STARTTLS.
#[derive(Clone)]
pub enum StartTls {
    NotOffered,
    Good(Arc<rustls::ServerConfig>),
    /// Says 220 and then no TLS.
    Broken,
    /// Good, but broken for the next handshake when this is set.
    Moody(Arc<rustls::ServerConfig>, Arc<AtomicBool>),
}

/// What a server says, and where it misbehaves.
#[derive(Clone)]
pub struct Script {
    pub greeting: &'static str,
    pub ehlo: Vec<&'static str>,
    pub starttls: StartTls,
    /// By a part of the command line; the first that fits. Otherwise 250.
    pub replies: Vec<(&'static str, &'static str)>,
    /// The reply to the end of the message.
    pub end: &'static str,
    /// Closes without a word when a command line begins so; `.` is the end of the message.
    pub hangs_up_at: Option<&'static str>,
    /// Says nothing any more from there on.
    pub silent_at: Option<&'static str>,
    /// Closes without a word after so many messages.
    pub hangs_up_after: Option<usize>,
    /// The reply to the second MAIL of a connection and later ones; it closes then.
    pub second_mail: Option<&'static str>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            greeting: "220 mx.example.com ESMTP",
            ehlo: vec!["PIPELINING", "8BITMIME", "SIZE 1000000", "ENHANCEDSTATUSCODES"],
            starttls: StartTls::NotOffered,
            replies: Vec::new(),
            end: "250 2.0.0 taken",
            hangs_up_at: None,
            silent_at: None,
            hangs_up_after: None,
            second_mail: None,
        }
    }
}

/// A server of the network.
pub struct Server {
    pub script: Mutex<Script>,
    pub lines: Mutex<Vec<String>>,
    pub messages: Mutex<Vec<String>>,
    pub connections: Mutex<usize>,
    /// TLS sessions that were resumed.
    pub resumed: Mutex<usize>,
}

impl Server {
    pub fn said(&self, what: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|l| l.contains(what))
    }

    pub fn messages(&self) -> Vec<String> {
        self.messages.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    pub fn resumed(&self) -> usize {
        *self.resumed.lock().unwrap()
    }

    async fn serve(self: Arc<Self>, mut io: Box<dyn Stream>) -> io::Result<()> {
        *self.connections.lock().unwrap() += 1;
        let script = self.script.lock().unwrap().clone();
        say(&mut io, script.greeting).await?;
        let mut inside = false;
        let (mut mails, mut taken) = (0, 0);
        loop {
            if script.hangs_up_after.is_some_and(|most| taken >= most) {
                return Ok(());
            }
            let mut reader = BufReader::with_capacity(1, io);
            let mut line = String::new();
            if reader.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            io = reader.into_inner();
            let line = line.trim_end().to_owned();
            self.lines.lock().unwrap().push(line.clone());
            if script.hangs_up_at.is_some_and(|at| line.starts_with(at)) {
                return Ok(());
            }
            if script.silent_at.is_some_and(|at| line.starts_with(at)) {
                std::future::pending::<()>().await;
            }
            mails += usize::from(line.starts_with("MAIL"));
            if let Some(reply) = script.second_mail.filter(|_| mails > 1) {
                return say(&mut io, reply).await;
            }
            let scripted = script.replies.iter().find(|(part, _)| line.contains(part));
            match line.split(' ').next().unwrap_or("") {
                _ if scripted.is_some() => say(&mut io, scripted.unwrap().1).await?,
                "EHLO" => {
                    let mut lines = vec!["mx.example.com"];
                    lines.extend(&script.ehlo);
                    if !inside && !matches!(script.starttls, StartTls::NotOffered) {
                        lines.push("STARTTLS");
                    }
                    let last = lines.len() - 1;
                    for (i, l) in lines.iter().enumerate() {
                        let dash = if i == last { ' ' } else { '-' };
                        say(&mut io, &format!("250{dash}{l}")).await?;
                    }
                }
                "STARTTLS" => {
                    say(&mut io, "220 go ahead").await?;
                    let config = match &script.starttls {
                        StartTls::Good(config) => Some(config),
                        StartTls::Moody(config, broken) => {
                            (!broken.swap(false, Ordering::Relaxed)).then_some(config)
                        }
                        StartTls::Broken | StartTls::NotOffered => None,
                    };
                    match config {
                        Some(config) => {
                            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(config));
                            let stream = acceptor.accept(io).await?;
                            let kind = stream.get_ref().1.handshake_kind();
                            let resumed = kind == Some(rustls::HandshakeKind::Resumed);
                            *self.resumed.lock().unwrap() += usize::from(resumed);
                            io = Box::new(stream);
                            inside = true;
                        }
                        None => {
                            // Not before the client's hello: that would be data behind the 220.
                            io.read_exact(&mut [0u8; 5]).await?;
                            io.write_all(b"this is no TLS at all\r\n").await?;
                            return Ok(());
                        }
                    }
                }
                "DATA" => {
                    say(&mut io, "354 go ahead").await?;
                    let mut text = Vec::new();
                    // RFC 2920 §3.1: whose recipients were all refused sends an end mark alone.
                    while text != b".\r\n" && !text.ends_with(b"\r\n.\r\n") {
                        let mut byte = [0u8];
                        if io.read(&mut byte).await? == 0 {
                            return Ok(());
                        }
                        text.push(byte[0]);
                    }
                    if script.hangs_up_at == Some(".") {
                        return Ok(());
                    }
                    text.truncate(text.len() - 3);
                    if !text.is_empty() {
                        self.messages
                            .lock()
                            .unwrap()
                            .push(String::from_utf8(text).unwrap());
                        taken += 1;
                    }
                    say(&mut io, script.end).await?;
                }
                "BDAT" => {
                    let octets: usize = line.split(' ').nth(1).unwrap().parse().unwrap();
                    let mut text = vec![0; octets];
                    io.read_exact(&mut text).await?;
                    let text = String::from_utf8(text).unwrap();
                    self.messages.lock().unwrap().push(text);
                    say(&mut io, script.end).await?;
                }
                "QUIT" => return say(&mut io, "221 2.0.0 bye").await,
                _ => say(&mut io, "250 2.0.0 ok").await?,
            }
        }
    }
}

async fn say(io: &mut Box<dyn Stream>, line: &str) -> io::Result<()> {
    io.write_all(format!("{line}\r\n").as_bytes()).await?;
    io.flush().await
}

/// The network: servers by address; every other address refuses the connection.
#[derive(Default)]
pub struct Net {
    servers: Mutex<HashMap<SocketAddr, Arc<Server>>>,
    players: Mutex<HashMap<SocketAddr, Arc<player::Player>>>,
    /// Addresses where nothing answers at all.
    pub black_holes: Mutex<Vec<SocketAddr>>,
    /// Called at every dialling.
    pub at_dial: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
    tried: watch::Sender<usize>,
}

impl Net {
    pub fn put(&self, address: &str, script: Script) -> Arc<Server> {
        let server = Arc::new(Server {
            script: Mutex::new(script),
            lines: Mutex::default(),
            messages: Mutex::default(),
            connections: Mutex::default(),
            resumed: Mutex::default(),
        });
        let address = address.parse().unwrap();
        self.servers.lock().unwrap().insert(address, Arc::clone(&server));
        server
    }

    /// A server that plays transcripts.
    pub fn play(&self, address: &str, transcripts: &[&str]) -> Arc<player::Player> {
        let player = player::Player::new(transcripts);
        let address = address.parse().unwrap();
        self.players.lock().unwrap().insert(address, Arc::clone(&player));
        player
    }

    pub fn remove(&self, address: &str) {
        self.servers.lock().unwrap().remove(&address.parse().unwrap());
    }

    pub fn remove_player(&self, address: &str) {
        self.players.lock().unwrap().remove(&address.parse().unwrap());
    }

    /// Hears of every connection that is tried.
    pub fn tried(&self) -> watch::Receiver<usize> {
        self.tried.subscribe()
    }
}

impl Dialer for Net {
    fn dial(&self, to: SocketAddr) -> Dialing<'_> {
        Box::pin(async move {
            self.tried.send_modify(|n| *n += 1);
            if let Some(hook) = self.at_dial.lock().unwrap().as_ref() {
                hook();
            }
            if self.black_holes.lock().unwrap().contains(&to) {
                std::future::pending::<()>().await;
            }
            let player = self.players.lock().unwrap().get(&to).cloned();
            if let Some(player) = player {
                let (ours, theirs) = tokio::io::duplex(4096);
                tokio::spawn(player.serve(Box::new(theirs)));
                return Ok(Box::new(ours) as Box<dyn Stream>);
            }
            let server = self.servers.lock().unwrap().get(&to).cloned();
            let server = server.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (ours, theirs) = tokio::io::duplex(4096);
            tokio::spawn(server.serve(Box::new(theirs)));
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }

    /// Every socket leads to what was put at [`deliver::plan::NO_ADDRESS`].
    fn dial_socket<'a>(&'a self, _: &'a str) -> Dialing<'a> {
        self.dial(deliver::plan::NO_ADDRESS)
    }
}

/// Certificates that no public authority knows, for `mx.example.com` and `localhost`.
pub fn certificates(dir: &std::path::Path) -> tls::Certificates {
    let source = tls::CertificateSource::SelfSigned {
        dir: dir.to_owned(),
        host_name: mail::Domain::parse("mx.example.com").unwrap(),
        addresses: Vec::new(),
    };
    let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    tls::Certificates::open(source, mail::Timestamp::from_secs(since as i64)).unwrap()
}

/// Puts a message into a store.
pub async fn put_blob(store: &MemoryStore, text: &str) -> (BlobId, u64) {
    let store: &dyn Store = store;
    let mut writer = store.stage(text.len() as u64).await.unwrap();
    writer.write(text.as_bytes()).await.unwrap();
    let staged = writer.finish().await.unwrap();
    let (id, len) = (staged.id, staged.len);
    let mut batch = Batch::new();
    batch.blob(staged);
    batch.put_ref(Key::table(0xee).text(&id.to_string()), Vec::new(), vec![id]);
    store.commit(batch).await.unwrap();
    (id, len)
}
