//! The servers of the domains elsewhere, each with its own temper, over streams in memory.
//!
//! Whatever they take is compared with what was sent and goes into the ledger, before they say 250.

use crate::failure::{Failure, What};
use crate::house::ELSEWHERE;
use crate::letter;
use crate::life::Scene;
use crate::sight;
use deliver::dial::Dialing;
use deliver::{Dialer, Stream};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use store::simulated::Dice;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::task::JoinSet;

/// Octets that a stream in memory holds.
pub const PIPE_OCTETS: usize = 64 * 1024;

/// How a server takes mail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Temper {
    /// Takes all.
    Good,
    /// Now and then says later, or hangs up, also behind the message.
    Moody,
    /// Refuses those whose name begins with `no`.
    Grim,
    /// Always says later.
    Late,
}

const TEMPERS: [Temper; 4] = [Temper::Good, Temper::Moody, Temper::Grim, Temper::Late];

/// Everybody elsewhere to whom letters go.
pub const NEIGHBOURS: [&str; 7] = [
    "gerd@good.example",
    "gwen@good.example",
    "mona@moody.example",
    "milo@moody.example",
    "nobody@grim.example",
    "greta@grim.example",
    "lars@late.example",
];

/// The network. A clone is the same network.
#[derive(Clone)]
pub struct Net {
    scene: Arc<Scene>,
    dice: Arc<Mutex<Dice>>,
    servers: Arc<Mutex<JoinSet<()>>>,
}

impl Net {
    /// A network whose servers report to this scene.
    #[must_use]
    pub fn new(scene: Arc<Scene>, dice: Dice) -> Self {
        Self {
            scene,
            dice: Arc::new(Mutex::new(dice)),
            servers: Arc::default(),
        }
    }

    fn chance(&self, n: u64, of: u64) -> bool {
        self.dice
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .chance(n, of)
    }
}

impl Dialer for Net {
    fn dial(&self, to: SocketAddr) -> Dialing<'_> {
        Box::pin(async move {
            let server = ELSEWHERE.iter().position(|(_, ip)| to.ip() == *ip);
            let temper = server.and_then(|n| TEMPERS.get(n)).copied();
            let temper = temper.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (ours, theirs) = tokio::io::duplex(PIPE_OCTETS);
            let net = self.clone();
            let session = async move {
                // An error is an end of the connection, and those are expected.
                let _ = Session::new(net, temper, theirs).converse().await;
            };
            self.servers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .spawn(session);
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }
}

/// One connection to a server.
struct Session {
    net: Net,
    temper: Temper,
    io: BufReader<DuplexStream>,
    recipients: Vec<String>,
}

impl Session {
    fn new(net: Net, temper: Temper, io: DuplexStream) -> Self {
        Self {
            net,
            temper,
            io: BufReader::new(io),
            recipients: Vec::new(),
        }
    }

    async fn say(&mut self, reply: &str) -> io::Result<()> {
        self.io.write_all(reply.as_bytes()).await?;
        self.io.write_all(b"\r\n").await?;
        self.io.flush().await
    }

    async fn converse(mut self) -> io::Result<()> {
        self.say("220 next ESMTP").await?;
        loop {
            let mut line = String::new();
            if self.io.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            match line.split(' ').next().map(str::trim_end).unwrap_or_default() {
                "EHLO" => self.say("250-next\r\n250-PIPELINING\r\n250 8BITMIME").await?,
                "MAIL" => {
                    self.recipients.clear();
                    self.say("250 2.1.0 ok").await?;
                }
                "RCPT" => {
                    let reply = self.recipient(line.trim_end());
                    self.say(reply).await?;
                }
                "DATA" if self.recipients.is_empty() => self.say("503 5.5.1 nobody wants it").await?,
                "DATA" => {
                    self.say("354 go ahead").await?;
                    if !self.message().await? {
                        return Ok(());
                    }
                }
                "QUIT" => return self.say("221 2.0.0 bye").await,
                _ => self.say("250 2.0.0 ok").await?,
            }
        }
    }

    fn recipient(&mut self, line: &str) -> &'static str {
        let address = line.split(['<', '>']).nth(1).unwrap_or_default();
        match self.temper {
            Temper::Late => return "451 4.2.1 later",
            Temper::Moody if self.net.chance(1, 5) => return "451 4.2.1 not in the mood",
            Temper::Grim if address.starts_with("no") => return "550 5.1.1 no such user",
            _ => {}
        }
        self.recipients.push(address.to_owned());
        "250 2.1.5 ok"
    }

    /// Takes a message. Answers whether the connection goes on.
    async fn message(&mut self) -> io::Result<bool> {
        let mut octets = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            if (&mut self.io).take(1 << 20).read_until(b'\n', &mut line).await? == 0 {
                return Ok(false);
            }
            if line == b".\r\n" {
                break;
            }
            let text = if line.starts_with(b".") {
                &line[1..]
            } else {
                &line[..]
            };
            octets.extend_from_slice(text);
        }
        if self.temper == Temper::Moody && self.net.chance(1, 12) {
            // Before it took it.
            return Ok(false);
        }
        let unsure = self.temper == Temper::Moody && self.net.chance(1, 12);
        self.take(&octets, unsure);
        if !unsure {
            self.say("250 2.0.0 taken").await?;
        }
        Ok(!unsure)
    }

    fn take(&self, octets: &[u8], unsure: bool) {
        let scene = &self.net.scene;
        if !scene.has_power() {
            return;
        }
        let Some(id) = letter::named_in(octets) else {
            return scene.fail(Failure::new(What::Half, "the next server got no letter"));
        };
        if let Err(why) = sight::whole(&scene.ledger, id, octets) {
            scene.fail(Failure::new(What::Half, format!("the next server got it: {why}")));
        }
        for recipient in &self.recipients {
            scene.note(|ledger| ledger.taken(id, recipient, scene.life, unsure));
        }
    }
}
