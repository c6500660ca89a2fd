//! A network that cuts connections, and the servers behind it that write down what they took.
//!
//! A cut loses the octets of one side from a chosen place on: with a reset, with an end of the stream,
//! or in silence. Where, when and how is thrown with dice, so that a seed repeats them.

use super::ledger::{Book, Taken};
use deliver::dial::Dialing;
use deliver::{Dialer, Stream};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, ReadBuf,
};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// How long a server waits for the next octets of a client.
const PATIENCE: Duration = Duration::from_secs(600);

/// A seeded source of numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.throw() % n.max(1)
    }

    pub fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }
}

/// The service's randomness: jitter, shuffling.
pub struct SeededRandom(pub Mutex<Dice>);

impl directory::Random for SeededRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), directory::NoRandomness> {
        let mut dice = self.0.lock().unwrap();
        out.fill_with(|| dice.throw() as u8);
        Ok(())
    }
}

/// Whose octets a cut loses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Whose {
    Ours,
    Theirs,
}

/// How the client notices.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum How {
    /// Both sides hear of it at once, as errors.
    Reset,
    /// The stream ends.
    End,
    /// Octets vanish; only time tells.
    Silence,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    whose: Whose,
    how: How,
    /// Octets of that side which still pass.
    after: u64,
}

#[derive(Default)]
struct Passed {
    /// Octets the client wrote that passed.
    sent: u64,
    /// Octets the server wrote.
    said: u64,
    /// Octets of them that the client read.
    heard: u64,
    planned: Option<Cut>,
    done: Option<Cut>,
    stage: &'static str,
}

/// One connection.
pub struct Wire {
    passed: Mutex<Passed>,
    cuts: Arc<Cuts>,
}

/// What a side may do now.
enum Way {
    /// So many octets may pass.
    Open(usize),
    Cut(Cut),
}

impl Wire {
    /// One on which so many octets of the server were read.
    pub fn with_heard(heard: u64) -> Arc<Self> {
        Arc::new(Self {
            passed: Mutex::new(Passed {
                heard,
                ..Passed::default()
            }),
            cuts: Arc::default(),
        })
    }

    /// Octets of the server that the client has read.
    pub fn heard(&self) -> u64 {
        self.passed.lock().unwrap().heard
    }

    fn said(&self) -> u64 {
        self.passed.lock().unwrap().said
    }

    fn comes_to(&self, stage: &'static str) {
        self.passed.lock().unwrap().stage = stage;
    }

    /// Of what the server says from now on only so much is heard.
    fn cut_after(&self, octets: u64, how: How) {
        let mut passed = self.passed.lock().unwrap();
        if passed.done.is_none() {
            let after = passed.said + octets;
            passed.planned = Some(Cut {
                whose: Whose::Theirs,
                how,
                after,
            });
        }
    }

    fn way(&self, whose: Whose) -> Way {
        let mut passed = self.passed.lock().unwrap();
        if let Some(cut) = passed.done {
            return match (cut.how, cut.whose == whose) {
                (How::Silence, false) => Way::Open(usize::MAX),
                // What the server said before the end of our stream can still be read.
                (How::End, false) if cut.whose == Whose::Ours => Way::Open(usize::MAX),
                _ => Way::Cut(cut),
            };
        }
        let Some(cut) = passed.planned.filter(|cut| cut.whose == whose) else {
            return Way::Open(usize::MAX);
        };
        let so_far = match whose {
            Whose::Ours => passed.sent,
            Whose::Theirs => passed.heard,
        };
        if so_far < cut.after {
            return Way::Open((cut.after - so_far) as usize);
        }
        passed.done = Some(cut);
        self.cuts.count(cut.whose, cut.how, passed.stage);
        Way::Cut(cut)
    }
}

/// The client's end.
struct OurEnd {
    io: Option<DuplexStream>,
    wire: Arc<Wire>,
}

impl AsyncRead for OurEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let room = match this.wire.way(Whose::Theirs) {
            Way::Open(room) => room,
            Way::Cut(cut) => {
                return match cut.how {
                    How::Silence => Poll::Pending,
                    How::Reset => {
                        this.io = None;
                        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
                    }
                    How::End => {
                        this.io = None;
                        Poll::Ready(Ok(()))
                    }
                };
            }
        };
        let Some(io) = &mut this.io else {
            return Poll::Ready(Ok(()));
        };
        let mut piece = [0u8; 4096];
        let room = room.min(piece.len()).min(buf.remaining());
        let mut read = ReadBuf::new(&mut piece[..room]);
        ready!(Pin::new(io).poll_read(cx, &mut read))?;
        this.wire.passed.lock().unwrap().heard += read.filled().len() as u64;
        buf.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for OurEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let room = match this.wire.way(Whose::Ours) {
            Way::Open(room) => room.min(buf.len()),
            Way::Cut(cut) => {
                match (cut.how, cut.whose, &mut this.io) {
                    (How::Silence, ..) => return Poll::Ready(Ok(buf.len())),
                    (How::End, Whose::Ours, Some(io)) => ready!(Pin::new(io).poll_shutdown(cx))?,
                    _ => this.io = None,
                }
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
        };
        let Some(io) = &mut this.io else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let n = ready!(Pin::new(io).poll_write(cx, &buf[..room]))?;
        this.wire.passed.lock().unwrap().sent += n as u64;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Some(io) => Pin::new(io).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// The server's end: counts what is said.
struct TheirEnd {
    io: DuplexStream,
    wire: Arc<Wire>,
}

impl AsyncRead for TheirEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl AsyncWrite for TheirEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.wire.passed.lock().unwrap().said += n as u64;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// What was cut: whose octets, how, and how far the server had come then.
pub type CutCounts = BTreeMap<(Whose, How, &'static str), u64>;

/// The cuts of a network.
#[derive(Default)]
pub struct Cuts {
    counts: Mutex<CutCounts>,
}

impl Cuts {
    fn count(&self, whose: Whose, how: How, stage: &'static str) {
        *self
            .counts
            .lock()
            .unwrap()
            .entry((whose, how, stage))
            .or_default() += 1;
    }

    pub fn counts(&self) -> CutCounts {
        self.counts.lock().unwrap().clone()
    }
}

/// A server: what it offers, and its moods.
pub struct Host {
    pub pipelining: bool,
    pub chunking: bool,
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// The network.
pub struct Cutting {
    hosts: HashMap<SocketAddr, Arc<Host>>,
    dice: Mutex<Dice>,
    pub cuts: Arc<Cuts>,
    pub book: Arc<Book>,
    /// Told when the service is to be killed.
    pub kill: Notify,
    /// From then on nothing goes wrong any more.
    calm_at: Instant,
}

impl Cutting {
    pub fn new(hosts: HashMap<SocketAddr, Arc<Host>>, dice: Dice, book: Arc<Book>, calm_at: Instant) -> Self {
        Self {
            hosts,
            dice: Mutex::new(dice),
            cuts: Arc::default(),
            book,
            kill: Notify::new(),
            calm_at,
        }
    }

    pub fn is_calm(&self) -> bool {
        Instant::now() >= self.calm_at
    }

    fn percent(&self, n: u64) -> bool {
        self.dice.lock().unwrap().percent(n) && !self.is_calm()
    }

    fn below(&self, n: u64) -> u64 {
        self.dice.lock().unwrap().below(n)
    }

    fn how(&self) -> How {
        [How::Reset, How::End, How::Silence][self.below(3) as usize]
    }

    /// A cut somewhere among the octets of a connection.
    fn plan(&self, tls: bool) -> Option<Cut> {
        if !self.percent(55) {
            return None;
        }
        let span = match (tls, self.percent(12)) {
            (_, true) => 60_000,
            (true, _) => 2_200,
            (false, _) => 1_200,
        };
        let whose = [Whose::Ours, Whose::Theirs][self.below(2) as usize];
        Some(Cut {
            whose,
            how: self.how(),
            after: self.below(span),
        })
    }
}

/// Dials into a [`Cutting`] network.
pub struct CuttingDialer(pub Arc<Cutting>);

impl Dialer for CuttingDialer {
    fn dial(&self, to: SocketAddr) -> Dialing<'_> {
        Box::pin(async move {
            let net = &self.0;
            sleep(Duration::from_millis(net.below(200))).await;
            let host = net.hosts.get(&to).cloned();
            let host = host.filter(|_| !net.percent(3));
            let host = host.ok_or(io::ErrorKind::ConnectionRefused)?;
            if net.percent(2) {
                std::future::pending::<()>().await;
            }
            let wire = Arc::new(Wire {
                passed: Mutex::new(Passed {
                    planned: net.plan(host.tls.is_some()),
                    stage: "the greeting",
                    ..Passed::default()
                }),
                cuts: Arc::clone(&net.cuts),
            });
            let (ours, theirs) = tokio::io::duplex(4096);
            let their_end: Box<dyn Stream> = Box::new(TheirEnd {
                io: theirs,
                wire: Arc::clone(&wire),
            });
            let talk = Talk {
                net: Arc::clone(net),
                host,
                wire: Arc::clone(&wire),
                io: BufReader::new(their_end),
                willing: Vec::new(),
                text: Vec::new(),
                inside: false,
            };
            tokio::spawn(talk.run());
            let our_end = OurEnd { io: Some(ours), wire };
            Ok(Box::new(our_end) as Box<dyn Stream>)
        })
    }
}

/// One session of a server.
struct Talk {
    net: Arc<Cutting>,
    host: Arc<Host>,
    wire: Arc<Wire>,
    io: BufReader<Box<dyn Stream>>,
    /// Recipients of the transaction that were accepted.
    willing: Vec<String>,
    text: Vec<u8>,
    inside: bool,
}

impl Talk {
    async fn run(mut self) -> io::Result<()> {
        self.say("220 mx ESMTP").await?;
        loop {
            let line = self.line().await?;
            let line = line.trim_end();
            match line.split(' ').next().unwrap_or("") {
                "EHLO" => {
                    self.wire.comes_to("EHLO");
                    let offers = self.offers();
                    self.say(&offers).await?;
                }
                "STARTTLS" => {
                    self.wire.comes_to("STARTTLS");
                    self = self.start_tls().await?;
                }
                "MAIL" => {
                    self.wire.comes_to("MAIL");
                    self.willing.clear();
                    self.text.clear();
                    self.say("250 2.1.0 ok").await?;
                }
                "RCPT" => {
                    self.wire.comes_to("RCPT");
                    self.recipient(line).await?;
                }
                "DATA" => self.data().await?,
                "BDAT" => self.chunk(line).await?,
                "RSET" => {
                    self.willing.clear();
                    self.say("250 2.0.0 ok").await?;
                }
                "QUIT" => {
                    self.wire.comes_to("QUIT");
                    return self.say("221 2.0.0 bye").await;
                }
                _ => self.say("500 5.5.1 what?").await?,
            }
        }
    }

    fn offers(&self) -> String {
        let mut lines = vec!["mx", "8BITMIME", "SIZE 10000000", "ENHANCEDSTATUSCODES"];
        lines.extend(self.host.pipelining.then_some("PIPELINING"));
        lines.extend(self.host.chunking.then_some("CHUNKING"));
        lines.extend((self.host.tls.is_some() && !self.inside).then_some("STARTTLS"));
        let last = lines.len() - 1;
        let dash = |i| if i == last { ' ' } else { '-' };
        let lines: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(i, l)| format!("250{}{l}", dash(i)))
            .collect();
        lines.join("\r\n")
    }

    async fn start_tls(mut self) -> io::Result<Self> {
        let Some(config) = self.host.tls.clone() else {
            self.say("502 5.5.1 no").await?;
            return Ok(self);
        };
        self.say("220 go ahead").await?;
        assert!(self.io.buffer().is_empty(), "octets in clear behind STARTTLS");
        let acceptor = tokio_rustls::TlsAcceptor::from(config);
        let stream = timeout(PATIENCE, acceptor.accept(self.io.into_inner())).await??;
        Ok(Self {
            io: BufReader::new(Box::new(stream)),
            inside: true,
            ..self
        })
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        timeout(PATIENCE, self.io.read_line(&mut line)).await??;
        // What was cut within a command is no command.
        match line.ends_with('\n') {
            true => Ok(line),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    async fn say(&mut self, words: &str) -> io::Result<()> {
        if self.net.percent(30) {
            sleep(Duration::from_millis(self.net.below(3_000))).await;
        }
        self.io.write_all(format!("{words}\r\n").as_bytes()).await?;
        self.io.flush().await
    }

    /// `no…` is nobody, `later…` is put off twice, every other is taken.
    async fn recipient(&mut self, line: &str) -> io::Result<()> {
        let name = line.trim_start_matches("RCPT TO:<");
        let name = name.split('>').next().unwrap_or("").to_owned();
        if name.starts_with("no") {
            self.say("550 5.1.1 nobody of that name").await
        } else if name.starts_with("later") && self.net.book.asked_for(&name) <= 2 {
            self.say("450 4.2.0 greylisted").await
        } else {
            self.willing.push(name);
            self.say("250 2.1.5 ok").await
        }
    }

    async fn data(&mut self) -> io::Result<()> {
        self.wire.comes_to("DATA");
        if self.willing.is_empty() {
            return self.say("554 5.5.1 no recipients").await;
        }
        self.say("354 go ahead").await?;
        self.wire.comes_to("the message");
        loop {
            let mut line = Vec::new();
            let n = timeout(PATIENCE, self.io.read_until(b'\n', &mut line)).await??;
            if n == 0 || !line.ends_with(b"\r\n") {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line == b".\r\n" {
                return self.end().await;
            }
            let line = line.strip_prefix(b".").unwrap_or(&line);
            self.text.extend_from_slice(line);
        }
    }

    async fn chunk(&mut self, line: &str) -> io::Result<()> {
        self.wire.comes_to("BDAT");
        let mut words = line.split(' ').skip(1);
        let octets: usize = words.next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let mut chunk = vec![0; octets];
        timeout(PATIENCE, self.io.read_exact(&mut chunk)).await??;
        if self.willing.is_empty() {
            return self.say("503 5.5.1 no recipients").await;
        }
        self.text.extend_from_slice(&chunk);
        match words.next() {
            Some("LAST") => self.end().await,
            _ => self.say("250 2.0.0 go on").await,
        }
    }

    /// The message is whole: it is taken (or put off), and then the answer is on its way.
    async fn end(&mut self) -> io::Result<()> {
        self.wire.comes_to("the end");
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.text)).into_owned();
        let willing = std::mem::take(&mut self.willing);
        if self.net.percent(5) {
            return self.say("451 4.3.0 not now").await;
        }
        let taken: Vec<Taken> = self.net.book.take(&willing, &text);
        if self.net.percent(30) {
            self.wire.cut_after(self.net.below(60), self.net.how());
        }
        let kill = self.net.percent(12);
        if kill && self.net.below(2) == 0 {
            self.net.kill.notify_one();
        }
        self.say("250 2.0.0 taken").await?;
        self.net.book.replied(&self.wire, &taken, self.wire.said());
        if kill {
            self.net.kill.notify_one();
        }
        Ok(())
    }
}
