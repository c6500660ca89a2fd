//! Those who send: other servers on port 25, and our own people who log in.
//!
//! A letter is in the ledger before its last octet is sent; a 250 goes into the ledger when it is
//! read, as long as there is power.

use crate::house::{ALIAS, ALIAS_LEADS_TO, PASSWORD, PEOPLE};
use crate::letter::{self, Size};
use crate::life::Scene;
use crate::next_server::{NEIGHBOURS, PIPE_OCTETS};
use smtp::Role;
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use store::simulated::Dice;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};

/// A connection to our server.
pub struct Client {
    io: BufReader<DuplexStream>,
    /// Whether it has logged in as the first of our people.
    ours: bool,
}

/// A letter with its recipients.
struct Errand {
    from: &'static str,
    to: Vec<String>,
    here: BTreeSet<usize>,
    there: BTreeSet<String>,
}

impl Errand {
    fn draw(ours: bool, dice: &mut Dice) -> Self {
        let mut errand = Self {
            from: if ours {
                PEOPLE[0]
            } else {
                "stranger@outside.example"
            },
            to: Vec::new(),
            here: BTreeSet::new(),
            there: BTreeSet::new(),
        };
        for _ in 0..1 + dice.below(3) {
            match dice.below(if ours { 8 } else { 4 }) {
                0 => {
                    errand.to.push(ALIAS.to_owned());
                    errand.here.extend(ALIAS_LEADS_TO);
                }
                1..=3 => {
                    let person = dice.below(PEOPLE.len() as u64) as usize;
                    errand.to.push(PEOPLE[person].to_owned());
                    errand.here.insert(person);
                }
                _ => {
                    let to = dice.pick(&NEIGHBOURS).copied().unwrap_or_default();
                    if errand.there.insert(to.to_owned()) {
                        errand.to.push(to.to_owned());
                    }
                }
            }
        }
        errand
    }
}

impl Client {
    /// Connects; the server's side runs among `sessions`.
    pub fn connect(
        reception: &Arc<receive::Context>,
        ours: bool,
        sessions: &mut JoinSet<()>,
        stopped: &watch::Receiver<bool>,
    ) -> Self {
        let (near, far) = tokio::io::duplex(PIPE_OCTETS);
        let (role, ip) = match ours {
            true => (Role::Submission, Ipv4Addr::LOCALHOST),
            false => (Role::Mta, Ipv4Addr::new(198, 51, 100, 7)),
        };
        let peer = SocketAddr::from((ip, 50_000));
        sessions.spawn(receive::serve_connection(
            reception.clone(),
            Box::new(far),
            peer,
            role,
            stopped.clone(),
        ));
        Self {
            io: BufReader::new(near),
            ours,
        }
    }

    /// A whole reply, its last line.
    async fn reply(&mut self) -> io::Result<String> {
        loop {
            let mut line = String::new();
            if self.io.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line);
            }
        }
    }

    async fn ask(&mut self, line: &str) -> io::Result<String> {
        self.io.write_all(line.as_bytes()).await?;
        self.io.write_all(b"\r\n").await?;
        self.io.flush().await?;
        self.reply().await
    }

    /// Reads the greeting, and logs in when this is one of ours.
    ///
    /// # Errors
    /// When the server refuses or hangs up.
    pub async fn greet(&mut self) -> io::Result<()> {
        self.reply().await?;
        self.ask("EHLO client.example").await?;
        if self.ours {
            let proof = smtp::sasl::encode(format!("\0{}\0{PASSWORD}", PEOPLE[0]));
            let answer = self.ask(&format!("AUTH PLAIN {proof}")).await?;
            if !answer.starts_with("235 ") {
                return Err(io::Error::other(format!("the login was refused: {answer}")));
            }
        }
        Ok(())
    }

    /// Sends one letter. Answers the reply to its end.
    ///
    /// # Errors
    /// When the server hangs up.
    pub async fn send(&mut self, scene: &Scene, size: Option<Size>, dice: &mut Dice) -> io::Result<String> {
        let errand = Errand::draw(self.ours, dice);
        let size = size.unwrap_or_else(|| Size::draw(dice));
        let id = scene
            .note(|ledger| ledger.next_letter())
            .ok_or(io::ErrorKind::BrokenPipe)?;
        let octets = letter::write(id, errand.from, &errand.to.join(", "), size, dice);
        let stuffed = letter::stuffed(&octets);
        let said = self.ask(&format!("MAIL FROM:<{}>", errand.from)).await?;
        let mut refused = (!said.starts_with("250 ")).then_some(said);
        for to in &errand.to {
            if refused.is_none() {
                let said = self.ask(&format!("RCPT TO:<{to}>")).await?;
                refused = (!said.starts_with("250 ")).then_some(said);
            }
        }
        if refused.is_none() {
            let said = self.ask("DATA").await?;
            refused = (!said.starts_with("354 ")).then_some(said);
        }
        if let Some(said) = refused {
            self.ask("RSET").await?;
            return Ok(said);
        }
        scene.note(|ledger| ledger.sending(id, octets, errand.here, errand.there));
        // In pieces, so that others come between.
        for piece in stuffed.chunks(1 + dice.below(200_000) as usize) {
            self.io.write_all(piece).await?;
            yield_now().await;
        }
        self.io.flush().await?;
        let said = self.reply().await?;
        if said.starts_with("250 ") {
            scene.note(|ledger| ledger.acknowledged(id));
        }
        Ok(said)
    }

    /// Sends some letters, with pauses, and hangs up.
    pub async fn work(mut self, scene: Arc<Scene>, mut dice: Dice) {
        for _ in 0..1 + dice.below(5) {
            for _ in 0..dice.below(30) {
                yield_now().await;
            }
            if self.send(&scene, None, &mut dice).await.is_err() {
                return;
            }
        }
        // Whether the goodbye is heard does not matter.
        let _ = self.ask("QUIT").await;
    }
}
