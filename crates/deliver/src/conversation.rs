//! One conversation with one server: drives the client session of `smtp` over a connection, from the
//! greeting through one message after the other.
//!
//! Promises: every wait has a limit; what the server said is heard even when it closed while we were
//! still writing; the caller learns of the server's answer before QUIT is said, because until it is
//! recorded the message could be sent twice (RFC 1047).

use crate::dial::Stream;
use crate::plan::Hop;
use smtp::client::{CannotSend, Client, Failure as SessionFailure, Outcome, Outgoing, Stage, Step};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;
use store::{BlobError, BlobId, Blobs};
use tls::{Flaw, Verdict, VerdictHandle, Verification};
use tokio::io::{AsyncRead as _, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

/// Octets of the message that are in memory at once.
const PIECE_OCTETS: u64 = 64 * 1024;
/// Octets read at once.
const READ_OCTETS: usize = 4 * 1024;
/// How long the server's last words are waited for when it closed while we were writing.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The message's octets: a prefix, then a blob.
#[derive(Clone, Copy)]
pub(crate) struct Text<'a> {
    pub(crate) prefix: &'a [u8],
    pub(crate) blob: BlobId,
    pub(crate) blob_len: u64,
    pub(crate) blobs: &'a dyn Blobs,
}

/// How far a message was given to the session.
struct Sending<'a> {
    text: Text<'a>,
    /// Whether it has the prefix.
    begun: bool,
    /// Octets of the blob that it has.
    at: u64,
}

/// Why there was no answer to the message.
#[derive(Debug)]
pub(crate) enum Broken {
    Connect(io::Error),
    ConnectTimeout(Duration),
    Handshake(Unshaken),
    /// The same, when a session was offered for resumption: without one it may do.
    Resumption(Unshaken),
    Session(SessionFailure),
    Cannot(CannotSend),
    /// The server may not be used now; no connection was made.
    Unsafe(crate::failure::Failure),
    /// Our own store could not give the message.
    Blob(BlobError),
}

/// Why a TLS handshake came to nothing, in words.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
pub(crate) struct Unshaken {
    pub(crate) words: String,
    /// What is wrong with the certificate, where it was that.
    pub(crate) flaw: Option<Flaw>,
}

/// What is wrong with a certificate that was taken all the same, also in words.
pub(crate) type Flawed = Option<(Flaw, String)>;

/// TLS that stands.
pub(crate) struct Shaken {
    pub(crate) tls: journey::TlsUsed,
    pub(crate) flaw: Flawed,
}

/// How one conversation is to be held.
pub(crate) struct Manner {
    pub(crate) client: smtp::client::Options,
    pub(crate) verification: Verification,
    /// By what a certificate that an authority vouches for is said to be verified.
    pub(crate) verified_as: &'static str,
    pub(crate) handshake_timeout: Duration,
    /// Our address, where it was chosen.
    pub(crate) source: Option<std::net::IpAddr>,
    pub(crate) tap: Option<Arc<dyn smtp::Tap>>,
    /// The conversation's name, for the tap.
    pub(crate) name: String,
    /// The site that it counts for.
    pub(crate) site: Option<crate::lanes::Site>,
}

/// What a conversation came to, and the TLS that it had.
pub(crate) struct Held {
    pub(crate) tls: Option<journey::TlsUsed>,
    pub(crate) flaw: Flawed,
    pub(crate) result: Result<Outcome, Broken>,
}

impl Held {
    /// Nothing was said.
    pub(crate) fn not_begun(broken: Broken) -> Self {
        Self {
            tls: None,
            flaw: None,
            result: Err(broken),
        }
    }
}

/// A connection whose server has greeted us: it takes messages, one after the other.
pub(crate) struct Connection {
    talk: Talk,
    tls: Option<Shaken>,
    began: Instant,
    messages: usize,
}

/// The session of `smtp` over a connection.
pub(crate) struct Talk {
    pub(crate) io: Box<dyn Stream>,
    pub(crate) client: Client,
    input: Vec<u8>,
}

/// Greets, and goes as far as the first message. What broke it off comes with the TLS that there was by
/// then.
pub(crate) async fn open(
    io: Box<dyn Stream>,
    tls: &tls::Client,
    hop: &Hop,
    manner: &Manner,
) -> Result<Connection, Box<Held>> {
    let (talk, handshake) = begin(io, tls, hop, manner);
    let mut used = None;
    match talk.greet(&handshake, &mut used).await {
        Ok(talk) => Ok(Connection {
            talk,
            tls: used,
            began: Instant::now(),
            messages: 0,
        }),
        Err(broken) => {
            let (tls, flaw) = parts(used.as_ref());
            let result = Err(broken);
            Err(Box::new(Held { tls, flaw, result }))
        }
    }
}

fn parts(shaken: Option<&Shaken>) -> (Option<journey::TlsUsed>, Flawed) {
    let tls = shaken.map(|shaken| shaken.tls.clone());
    (tls, shaken.and_then(|shaken| shaken.flaw.clone()))
}

/// A talk that waits for the greeting, and how it turns to TLS.
pub(crate) fn begin<'a>(
    io: Box<dyn Stream>,
    tls: &'a tls::Client,
    hop: &Hop,
    manner: &Manner,
) -> (Talk, Handshake<'a>) {
    let tap = manner.tap.clone().map(|tap| (tap, manner.name.clone()));
    let talk = Talk {
        io,
        client: Client::new(manner.client.clone(), false, tap),
        input: Vec::new(),
    };
    let handshake = Handshake {
        tls,
        host: tls_name(hop, &manner.verification),
        address: hop.address,
        verification: manner.verification.clone(),
        verified_as: manner.verified_as,
        within: manner.handshake_timeout,
    };
    (talk, handshake)
}

impl Connection {
    /// Sends one message and hears what becomes of it.
    pub(crate) async fn send(&mut self, outgoing: Outgoing, text: Text<'_>) -> Result<Outcome, Broken> {
        self.messages += 1;
        self.talk.send(outgoing, text).await
    }

    /// The TLS that it has, and what is wrong with the certificate.
    pub(crate) fn tls(&self) -> (Option<journey::TlsUsed>, Flawed) {
        parts(self.tls.as_ref())
    }

    /// Messages that it was given.
    pub(crate) fn messages(&self) -> usize {
        self.messages
    }

    /// Since when it stands.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// It waited, and is taken up for a message: the tap calls it so. Whether it still stands is not
    /// known, so nothing of the message leaves before its envelope is answered.
    pub(crate) fn take_up(&mut self, name: &str) {
        self.talk.client.rename(name);
        self.talk.client.rested();
    }

    /// Whether another message may follow: the last transaction is over, and the server has said
    /// nothing that was not asked.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.talk.input.is_empty() && self.talk.step() == Step::Ready
    }

    /// Whether the server still listens, as far as we know without asking it. One that has closed, or
    /// that said something meanwhile (421 before it closes), is of no use.
    pub(crate) fn is_silent(&mut self) -> bool {
        let mut octets = [0u8; 1];
        let mut buffer = ReadBuf::new(&mut octets);
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut self.talk.io)
            .poll_read(&mut context, &mut buffer)
            .is_pending()
    }

    /// Says QUIT and hears the answer in the background; nothing depends on it.
    pub(crate) fn leave(self) {
        self.talk.leave();
    }
}

/// The name to ask the server for (SNI), and to find in its certificate where that counts.
fn tls_name(hop: &Hop, verification: &Verification) -> String {
    match (verification, &hop.host) {
        (Verification::Dane(dane), _) => dane.base().to_string(),
        (_, crate::route::ServerName::Name(name)) => name.to_string(),
        (_, crate::route::ServerName::Ip(ip)) => ip.to_string(),
        // Not reached: nobody asks for TLS there.
        (_, crate::route::ServerName::Socket(_)) => "localhost".to_owned(),
    }
}

pub(crate) struct Handshake<'a> {
    tls: &'a tls::Client,
    verification: Verification,
    verified_as: &'static str,
    host: String,
    address: std::net::SocketAddr,
    within: Duration,
}

impl Handshake<'_> {
    pub(crate) async fn shake(&self, io: Box<dyn Stream>) -> Result<(Box<dyn Stream>, Shaken), Broken> {
        let now = Instant::now().into_std();
        let verification = self.verification.clone();
        let unshaken = |words, flaw| Broken::Handshake(Unshaken { words, flaw });
        let unresumed = |words| Broken::Resumption(Unshaken { words, flaw: None });
        let meeting = self.tls.meet(verification, &self.host, self.address, now);
        let meeting = meeting.map_err(|e| unshaken(e.to_string(), None))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&meeting.config));
        let connected = timeout(self.within, connector.connect(meeting.name.clone(), io)).await;
        let connected = connected.unwrap_or_else(|_| {
            let why = format!("no end within {} seconds", self.within.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        });
        match connected {
            Err(e) => {
                let resumption = meeting.failed(&e);
                Err(match meeting.verdict.verdict() {
                    Some(Verdict::Unverified(why)) => {
                        let words = format!("its certificate is not taken: {why}");
                        unshaken(words, meeting.verdict.flaw())
                    }
                    _ if resumption => unresumed(e.to_string()),
                    _ => unshaken(e.to_string(), None),
                })
            }
            Ok(stream) => {
                let connection = stream.get_ref().1;
                let resumed = meeting.succeeded(connection);
                let info = tls::describe(connection);
                let tls = tls_used(&info, &meeting.verdict, self.verified_as, resumed);
                let verdict = meeting.verdict.verdict();
                let flaw = match (meeting.verdict.flaw(), &verdict) {
                    (Some(flaw), Some(Verdict::Unverified(why))) => Some((flaw, why.clone())),
                    _ => None,
                };
                let verdict = verdict.map(|v| v.to_string());
                tracing::debug!(host = %self.host, tls = %info, verdict, resumed, "TLS");
                Ok((Box::new(stream), Shaken { tls, flaw }))
            }
        }
    }
}

fn tls_used(
    info: &tls::TlsInfo,
    verdict: &VerdictHandle,
    verified_as: &str,
    resumed: bool,
) -> journey::TlsUsed {
    journey::TlsUsed {
        version: info.version.to_owned(),
        cipher: info.cipher.clone(),
        verified: match verdict.verdict() {
            Some(Verdict::Verified) => Some(verified_as.to_owned()),
            Some(Verdict::Dane(usage)) => Some(usage.to_string()),
            Some(Verdict::Unverified(_)) | None => None,
        },
        resumed,
    }
}

impl Talk {
    /// Up to the first message.
    async fn greet(mut self, handshake: &Handshake<'_>, used: &mut Option<Shaken>) -> Result<Self, Broken> {
        loop {
            match self.step() {
                Step::Ready => return Ok(self),
                Step::Read => self.exchange().await,
                Step::StartTls => {
                    if let Err(e) = self.flush().await {
                        self.lost_while_writing(&e).await;
                        continue;
                    }
                    let (io, tls) = handshake.shake(self.io).await?;
                    (self.io, *used) = (io, Some(tls));
                    self.client.tls_started();
                }
                Step::Failed(failure) => return Err(Broken::Session(failure)),
                // Not reached: no message was begun.
                Step::Body | Step::Sent(_) | Step::Closed => return Err(lost_at(Stage::Ehlo)),
            }
        }
    }

    async fn send(&mut self, outgoing: Outgoing, text: Text<'_>) -> Result<Outcome, Broken> {
        self.client.send(outgoing).map_err(Broken::Cannot)?;
        let mut sending = Sending {
            text,
            begun: false,
            at: 0,
        };
        loop {
            match self.step() {
                Step::Read => self.exchange().await,
                Step::Body => self.send_piece(&mut sending).await.map_err(Broken::Blob)?,
                Step::Sent(outcome) => return Ok(outcome),
                Step::Failed(failure) => return Err(Broken::Session(failure)),
                // Not reached: a message ends by being told of.
                Step::Ready | Step::StartTls | Step::Closed => return Err(lost_at(Stage::MailFrom)),
            }
        }
    }

    pub(crate) fn step(&mut self) -> Step {
        let mut rest = &self.input[..];
        let step = self.client.step(&mut rest);
        let taken = self.input.len() - rest.len();
        self.input.drain(..taken);
        step
    }

    /// Writes what waits and reads what comes; a failure is told to the session.
    pub(crate) async fn exchange(&mut self) {
        if let Err(e) = self.flush().await {
            return self.lost_while_writing(&e).await;
        }
        let within = self.client.timeout();
        match timeout(within, self.read()).await {
            Err(_) => self.client.timed_out(),
            Ok(Ok(n)) if n > 0 => {}
            Ok(_) => self.client.lost(),
        }
    }

    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        let output = self.client.take_output();
        if output.is_empty() {
            return Ok(());
        }
        // The time is for a piece, so that a slow line is not taken for a dead one.
        let within = self.client.timeout();
        for piece in output.chunks(PIECE_OCTETS as usize) {
            timeout(within, self.io.write_all(piece)).await??;
        }
        timeout(within, self.io.flush()).await?
    }

    async fn read(&mut self) -> io::Result<usize> {
        let mut piece = [0u8; READ_OCTETS];
        let n = self.io.read(&mut piece).await?;
        self.input.extend_from_slice(&piece[..n]);
        Ok(n)
    }

    /// A server that refuses may close while we still write. Its reply may wait to be read.
    pub(crate) async fn lost_while_writing(&mut self, e: &io::Error) {
        self.client.unwritten();
        if e.kind() == io::ErrorKind::TimedOut {
            return self.client.timed_out();
        }
        let heard = matches!(timeout(LAST_WORDS, self.read()).await, Ok(Ok(n)) if n > 0);
        if !heard {
            self.client.lost();
        }
    }

    /// Gives the session the next piece of the message. An error of the connection is told to the
    /// session; an error of our own store breaks off without the end of the message, so that the server
    /// does not take half of one.
    async fn send_piece(&mut self, sending: &mut Sending<'_>) -> Result<(), BlobError> {
        if self.client.output().len() as u64 >= PIECE_OCTETS
            && let Err(e) = self.flush().await
        {
            self.lost_while_writing(&e).await;
            return Ok(());
        }
        let text = &sending.text;
        if !std::mem::replace(&mut sending.begun, true) {
            self.client.body(text.prefix);
        }
        let end = text.blob_len.min(sending.at + PIECE_OCTETS);
        if sending.at == end {
            self.client.body_end();
            return Ok(());
        }
        let piece = text.blobs.read(text.blob, sending.at..end).await?;
        if piece.len() as u64 != end - sending.at {
            return Err(BlobError::Corrupt(text.blob));
        }
        self.client.body(&piece);
        sending.at = end;
        Ok(())
    }

    fn leave(mut self) {
        tokio::spawn(async move {
            let within = self.client.timeout().min(Duration::from_secs(30));
            let farewell = async {
                loop {
                    match self.step() {
                        Step::Ready => self.client.quit(),
                        Step::Read => self.exchange().await,
                        _ => break,
                    }
                }
                let _ = self.io.shutdown().await;
            };
            let _ = timeout(within, farewell).await;
        });
    }
}

fn lost_at(stage: Stage) -> Broken {
    Broken::Session(SessionFailure::Lost { stage })
}
