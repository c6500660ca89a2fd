//! The client side of a session, as a value that is fed with bytes.
//!
//! The driver owns the connection and writes [`Client::take_output`] before it waits. [`Client::step`]
//! says what to do next; when it is [`Step::Ready`], [`Client::send`] begins a message.
//!
//! Promises: every reply is attributed to its command; a password is sent only inside TLS (unless
//! the options say otherwise); nothing that came in clear is taken for what came inside TLS.
//! Never: a retry, a route, a clock.

mod chunks;
mod options;
mod outcome;
mod reply;
mod transaction;
mod wishes;

pub use chunks::{CHUNK_OCTETS, CHUNKS_OUTSTANDING_MAX, TOGETHER_OCTETS_MAX};
pub use options::{Capabilities, Options, Timeouts, TlsWish};
pub use outcome::{CannotSend, Failure, Outcome, Stage, Verdict};
pub use reply::{LINE_OCTETS_MAX, LINES_MAX, Replies, ReplyError, ServerReply};
pub use transaction::{OUTSTANDING_MAX, Outgoing};
pub use wishes::{PassedOn, RecipientWishes, Wishes};

use crate::framer::Stuffer;
use crate::sasl;
use crate::tap::{BLOTTED, TLS_REMARK, Tap, Tapped};
use chunks::Chunks;
use std::sync::Arc;
use std::time::Duration;
use transaction::{Carriage, Progress, Transaction};

/// What the driver is to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Write the output out, read more, call again.
    Read,
    /// Write the output out, do the TLS handshake, call [`Client::tls_started`].
    StartTls,
    /// Call [`Client::send`] or [`Client::quit`].
    Ready,
    /// Call [`Client::body`] with the next piece of the message, or [`Client::body_end`] behind the last
    /// one, and then this again. (All pieces at once are taken too, but then they wait in the output.)
    Body,
    /// The message is dealt with. Told once.
    Sent(Outcome),
    /// The session is of no use (any more). Close.
    Failed(Failure),
    /// QUIT is done. Close.
    Closed,
}

#[derive(Debug)]
enum State {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Handshake,
    AuthPlain,
    AuthLoginName,
    AuthLoginPassword,
    AuthDone,
    Ready,
    Transaction(Box<Transaction>),
    Body(Box<Transaction>),
    /// The outcome is to be told, then comes the next state.
    Tell(Outcome, Option<Failure>),
    Quit,
    /// While a reply is worked on; never seen from outside.
    Between,
    Closed,
    Failed(Failure),
}

/// A client session.
pub struct Client {
    options: Options,
    tls: bool,
    state: State,
    capabilities: Capabilities,
    greeting: Option<ServerReply>,
    replies: Replies,
    stuffer: Stuffer,
    /// A message that goes by BDAT.
    chunks: Option<Chunks>,
    /// Whether the connection lay idle before the next message.
    rested: bool,
    /// Commands that stand in `output`: no reply can be to them yet.
    unsent: usize,
    output: Vec<u8>,
    tap: Option<Tapped>,
}

impl Client {
    /// A session that waits for the greeting. `tls` tells whether the connection is inside TLS
    /// already.
    #[must_use]
    pub fn new(options: Options, tls: bool, tap: Option<(Arc<dyn Tap>, String)>) -> Self {
        Self {
            options,
            tls,
            state: State::Greeting,
            capabilities: Capabilities::default(),
            greeting: None,
            replies: Replies::default(),
            stuffer: Stuffer::default(),
            chunks: None,
            rested: false,
            unsent: 0,
            output: Vec::new(),
            tap: tap.map(|(tap, name)| Tapped::new(tap, name)),
        }
    }

    /// Names what follows, for the tap: a session may carry messages of many names.
    pub fn rename(&mut self, name: &str) {
        if let Some(tap) = &mut self.tap {
            tap.rename(name);
        }
    }

    /// Goes on until something has to be done outside. Takes what it uses off `input`.
    pub fn step(&mut self, input: &mut &[u8]) -> Step {
        loop {
            match &self.state {
                State::Handshake => return Step::StartTls,
                State::Ready => return Step::Ready,
                State::Closed => return Step::Closed,
                State::Failed(failure) => return Step::Failed(failure.clone()),
                State::Tell(..) => return self.tell(),
                _ => {}
            }
            let tap = &self.tap;
            let hear = |line: &[u8]| {
                if let Some(tap) = tap {
                    tap.line(false, line);
                }
            };
            match self.replies.next(input, hear) {
                Ok(Some(reply)) if self.is_early(&reply) => {
                    let stage = self.stage_if_lost();
                    self.fail(Failure::Unexpected { stage, reply });
                }
                Ok(Some(reply)) => self.reply(reply, !input.is_empty()),
                Ok(None) if matches!(&self.state, State::Body(t) if t.has_room()) => return Step::Body,
                Ok(None) => return Step::Read,
                Err(error) => {
                    let stage = self.stage_if_lost();
                    self.fail(Failure::Protocol { stage, error });
                }
            }
        }
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// Takes the bytes that wait to be written.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        self.unsent = 0;
        std::mem::take(&mut self.output)
    }

    /// The handshake is done; EHLO is said again (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        if matches!(self.state, State::Handshake) {
            self.tls = true;
            self.capabilities = Capabilities::default();
            self.replies = Replies::default();
            if let Some(tap) = &self.tap {
                tap.line(true, TLS_REMARK.as_bytes());
            }
            self.say_ehlo();
        }
    }

    /// Begins a message. Allowed when the last step was [`Step::Ready`].
    ///
    /// # Errors
    /// When this server cannot carry it; nothing was sent then.
    pub fn send(&mut self, outgoing: Outgoing) -> Result<(), CannotSend> {
        self.begin(outgoing, false)
    }

    fn begin(&mut self, outgoing: Outgoing, is_question: bool) -> Result<(), CannotSend> {
        if !matches!(self.state, State::Ready) || outgoing.recipients.is_empty() {
            return Err(CannotSend::NotReady);
        }
        let offered = &self.capabilities;
        let parameters = wishes::mail_parameters(&outgoing, offered, self.tls)?;
        let passed_on = PassedOn {
            dsn: offered.dsn,
            deliver_by: offered.deliver_by.is_some(),
        };
        let pipelining = self.options.pipelining && offered.pipelining;
        let lmtp = self.options.lmtp;
        // By LMTP only what has no other way: RFC 2033 §4.3 says too little about chunks that fail.
        let by_chunks = outgoing.binary || (self.options.chunking && offered.chunking && !lmtp);
        let by_chunks = by_chunks && !is_question;
        let rested = std::mem::take(&mut self.rested);
        let carriage = match by_chunks {
            true if pipelining && !rested && !lmtp && transaction::is_small(&outgoing) => Carriage::Together,
            true => Carriage::Chunks,
            false => Carriage::Data,
        };
        self.chunks = by_chunks.then(|| match outgoing.binary {
            true => Chunks::of_octets(outgoing.size_octets),
            false => Chunks::of_lines(),
        });
        let transaction = Transaction::new(outgoing, parameters, passed_on, pipelining, carriage);
        let transaction = match lmtp {
            true => transaction.into_lmtp(),
            false => transaction,
        };
        self.go_on(Box::new(match is_question {
            true => transaction.into_question(),
            false => transaction,
        }));
        Ok(())
    }

    /// Asks whether the server takes mail for these recipients, and takes the question back (RSET): no
    /// message follows. The answers come as [`Step::Sent`]. Allowed when the last step was
    /// [`Step::Ready`].
    ///
    /// # Errors
    /// When this server could not carry such a message; nothing was said then.
    pub fn ask(&mut self, question: Outgoing) -> Result<(), CannotSend> {
        self.begin(question, true)
    }

    /// The connection lay idle, so whether it still stands is not known: nothing of the next message
    /// leaves before its envelope is answered.
    pub fn rested(&mut self) {
        self.rested = true;
    }

    /// The next octets of the message. Line endings become CRLF, and by DATA dots are stuffed, so that
    /// nothing in it can end it early; a binary message goes as it is. By BDAT at least
    /// [`CHUNK_OCTETS`] are gathered before they leave.
    pub fn body(&mut self, octets: &[u8]) {
        if !matches!(self.state, State::Body(_)) {
            return;
        }
        if self.chunks.as_ref().is_some_and(Chunks::is_full) {
            self.say_chunk(false);
        }
        match &mut self.chunks {
            Some(chunks) => {
                if !chunks.push(octets) {
                    self.fail(Failure::Miscounted);
                }
            }
            None => {
                self.stuffer.push(octets, &mut self.output);
                if let Some(tap) = &mut self.tap {
                    tap.body(octets);
                }
            }
        }
    }

    /// The message is whole.
    pub fn body_end(&mut self) {
        if !matches!(self.state, State::Body(_)) {
            return;
        }
        match self.chunks.as_mut().map(Chunks::finish) {
            Some(false) => return self.fail(Failure::Miscounted),
            Some(true) => self.say_chunk(true),
            None => {
                self.stuffer.finish(&mut self.output);
                self.unsent += 1;
            }
        }
        if let Some(tap) = &mut self.tap {
            tap.body_end();
            if self.chunks.is_none() {
                tap.line(true, b".");
            }
        }
        if let State::Body(mut transaction) = std::mem::replace(&mut self.state, State::Closed) {
            let replies = transaction.body_sent();
            // Each is one that cannot have come yet.
            self.unsent += replies.saturating_sub(1);
            self.state = State::Transaction(transaction);
        }
    }

    fn say_chunk(&mut self, last: bool) {
        let Some(chunk) = self.chunks.as_mut().map(Chunks::take) else {
            return;
        };
        let last_word = if last { " LAST" } else { "" };
        self.say(&format!("BDAT {}{last_word}", chunk.len()));
        self.output.extend_from_slice(&chunk);
        if let Some(tap) = &mut self.tap {
            tap.body(&chunk);
        }
        if let (Some(chunks), false) = (&mut self.chunks, last) {
            chunks.reuse(chunk);
        }
        if let (State::Body(transaction), false) = (&mut self.state, last) {
            transaction.chunk_sent();
        }
    }

    /// Says QUIT, if the session is ready for it.
    pub fn quit(&mut self) {
        if matches!(self.state, State::Ready) {
            self.say("QUIT");
            self.state = State::Quit;
        }
    }

    /// Not all of the output could be written: whatever comes now, the end of a message did not leave,
    /// and nobody can have taken it.
    pub fn unwritten(&mut self) {
        if let State::Transaction(transaction) = &mut self.state {
            transaction.unwritten();
        }
    }

    /// The connection was lost.
    pub fn lost(&mut self) {
        let stage = self.stage_if_lost();
        self.fail(Failure::Lost { stage });
    }

    /// The time is over ([`Client::timeout`] has passed without a step forward).
    pub fn timed_out(&mut self) {
        let stage = self.stage_if_lost();
        self.fail(Failure::TimedOut { stage });
    }

    /// How long to wait for the server now.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        let timeouts = &self.options.timeouts;
        match self.stage() {
            Stage::Greeting => timeouts.greeting,
            Stage::Data => timeouts.data,
            Stage::Body => timeouts.block,
            Stage::EndOfMessage => timeouts.end_of_message,
            Stage::Quit => timeouts.quit,
            _ => timeouts.command,
        }
    }

    /// What the server was asked last.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match &self.state {
            State::Greeting => Stage::Greeting,
            State::Ehlo | State::Helo | State::Ready => Stage::Ehlo,
            State::StartTls | State::Handshake => Stage::StartTls,
            State::AuthPlain | State::AuthLoginName | State::AuthLoginPassword | State::AuthDone => {
                Stage::Auth
            }
            State::Transaction(transaction) => transaction.stage(),
            State::Body(_) => Stage::Body,
            State::Tell(..) => Stage::EndOfMessage,
            State::Quit | State::Between | State::Closed | State::Failed(_) => Stage::Quit,
        }
    }

    /// What was under way if the session ends now: [`Stage::EndOfMessage`] as soon as the whole message
    /// left, whatever replies are awaited before the one to it.
    fn stage_if_lost(&self) -> Stage {
        match &self.state {
            State::Transaction(transaction) => transaction.stage_if_lost(),
            _ => self.stage(),
        }
    }

    /// What the server can do.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The server's greeting.
    #[must_use]
    pub fn greeting(&self) -> Option<&ServerReply> {
        self.greeting.as_ref()
    }

    /// Whether the connection is inside TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether a reply came before any command left that it could answer. Taken for the next answer it
    /// would shift all that follow, and a refused message could pass for an accepted one. (421 may come
    /// at any time: RFC 5321 §3.8.)
    fn is_early(&self, reply: &ServerReply) -> bool {
        let awaited = match &self.state {
            State::Greeting => return false,
            State::Transaction(transaction) | State::Body(transaction) => transaction.awaited(),
            _ => 1,
        };
        reply.code != 421 && awaited > 0 && awaited <= self.unsent
    }

    fn reply(&mut self, reply: ServerReply, more_waits: bool) {
        match std::mem::replace(&mut self.state, State::Between) {
            State::Greeting => {
                if reply.is_positive() {
                    self.greeting = Some(reply);
                    self.say_ehlo();
                } else {
                    self.refused(Stage::Greeting, reply);
                }
            }
            State::Ehlo => self.ehlo_reply(reply),
            State::Helo if reply.is_positive() => self.hello_done(),
            State::Helo => self.refused(Stage::Ehlo, reply),
            State::StartTls => self.starttls_reply(reply, more_waits),
            State::AuthPlain | State::AuthLoginName | State::AuthLoginPassword | State::AuthDone
                if !reply.is_positive() && !reply.is_intermediate() =>
            {
                self.refused(Stage::Auth, reply);
            }
            State::AuthPlain if reply.code == 334 => {
                self.say_plain("");
            }
            State::AuthLoginName if reply.code == 334 => {
                let name = self.login_name();
                self.say_secret("", &sasl::encode(&name), State::AuthLoginPassword);
            }
            State::AuthLoginPassword if reply.code == 334 => {
                let password = self.login_password();
                self.say_secret("", &sasl::encode(&password), State::AuthDone);
            }
            State::AuthPlain | State::AuthDone if reply.code == 235 => self.state = State::Ready,
            State::AuthPlain | State::AuthLoginName | State::AuthLoginPassword | State::AuthDone => {
                self.fail(Failure::Unexpected {
                    stage: Stage::Auth,
                    reply,
                });
            }
            State::Transaction(transaction) | State::Body(transaction) => {
                self.transaction_reply(transaction, reply);
            }
            State::Quit => self.state = State::Closed,
            // Not asked here: step() returns before it reads.
            other => self.state = other,
        }
    }

    fn ehlo_reply(&mut self, reply: ServerReply) {
        if reply.is_positive() {
            self.capabilities = Capabilities::of(&reply);
            self.hello_done();
        } else if matches!(reply.code, 500..=504) && self.options.tls == TlsWish::Required && !self.tls {
            // It knows no EHLO, so it has no STARTTLS: that says nothing about the mail.
            self.fail(Failure::TlsNotOffered);
        } else if reply.is_permanent() && self.options.tls != TlsWish::Required && !self.options.lmtp {
            // RFC 5321 §3.2: a server that does not know EHLO gets HELO.
            let line = format!("HELO {}", self.options.helo);
            self.say(&line);
            self.state = State::Helo;
        } else {
            self.refused(Stage::Ehlo, reply);
        }
    }

    fn hello_done(&mut self) {
        let offered = self.capabilities.starttls;
        match self.options.tls {
            TlsWish::Required if !self.tls && !offered => self.fail(Failure::TlsNotOffered),
            TlsWish::Required | TlsWish::IfOffered if !self.tls && offered => {
                self.say("STARTTLS");
                self.state = State::StartTls;
            }
            _ => self.begin_auth(),
        }
    }

    fn starttls_reply(&mut self, reply: ServerReply, more_waits: bool) {
        if reply.is_positive() && more_waits {
            self.fail(Failure::DataBehindStartTls);
        } else if reply.is_positive() {
            self.state = State::Handshake;
        } else if self.options.tls == TlsWish::Required || reply.code == 421 {
            self.refused(Stage::StartTls, reply);
        } else {
            self.begin_auth();
        }
    }

    fn begin_auth(&mut self) {
        if self.options.login.is_none() {
            self.state = State::Ready;
            return;
        }
        if !self.tls && !self.options.allow_plaintext_auth {
            self.fail(Failure::AuthNeedsTls);
            return;
        }
        let offers = |name: &str| self.capabilities.auth.iter().any(|m| m == name);
        if offers("PLAIN") {
            self.say_plain("AUTH PLAIN ");
        } else if offers("LOGIN") {
            self.say("AUTH LOGIN");
            self.state = State::AuthLoginName;
        } else {
            self.fail(Failure::AuthNotOffered);
        }
    }

    fn say_plain(&mut self, before: &str) {
        let Some((name, password)) = &self.options.login else {
            return;
        };
        let message = sasl::encode(sasl::plain_message(name, password).expose());
        let next = if before.is_empty() {
            State::AuthDone
        } else {
            State::AuthPlain
        };
        self.say_secret(before, &message, next);
    }

    fn login_name(&self) -> String {
        self.options
            .login
            .as_ref()
            .map(|(name, _)| name.clone())
            .unwrap_or_default()
    }

    fn login_password(&self) -> String {
        self.options
            .login
            .as_ref()
            .map(|(_, p)| p.expose().to_owned())
            .unwrap_or_default()
    }

    fn transaction_reply(&mut self, mut transaction: Box<Transaction>, reply: ServerReply) {
        let mut further = Vec::new();
        let progress = transaction.reply(reply, |line| further.push(line.to_owned()));
        for line in further {
            self.say(&line);
        }
        match progress {
            Progress::Going => self.go_on(transaction),
            Progress::Over => self.state = State::Tell(transaction.outcome(), None),
            Progress::Broken(failure) => self.state = State::Tell(transaction.outcome(), Some(failure)),
        }
    }

    /// Says what can be said now.
    fn go_on(&mut self, mut transaction: Box<Transaction>) {
        while let Some(line) = transaction.next_command() {
            self.say(&line);
        }
        self.state = match transaction.wants_body() {
            true => State::Body(transaction),
            false => State::Transaction(transaction),
        };
    }

    fn tell(&mut self) -> Step {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Tell(outcome, then) => {
                self.chunks = None;
                self.state = then.map_or(State::Ready, State::Failed);
                Step::Sent(outcome)
            }
            other => {
                self.state = other;
                Step::Read
            }
        }
    }

    fn refused(&mut self, stage: Stage, reply: ServerReply) {
        self.fail(Failure::Refused { stage, reply });
    }

    /// Ends the session; a message that is under way is told of first.
    fn fail(&mut self, failure: Failure) {
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Transaction(mut transaction) | State::Body(mut transaction) => {
                let _ = transaction.broken(failure.clone());
                State::Tell(transaction.outcome(), Some(failure))
            }
            State::Tell(outcome, None) => State::Tell(outcome, Some(failure)),
            // What is over cannot fail any more.
            State::Quit | State::Closed => State::Closed,
            State::Failed(first) => State::Failed(first),
            State::Tell(outcome, first) => State::Tell(outcome, first),
            _ => State::Failed(failure),
        };
    }

    fn say_ehlo(&mut self) {
        // RFC 2033 §4.1: LHLO in place of EHLO.
        let verb = if self.options.lmtp { "LHLO" } else { "EHLO" };
        let line = format!("{verb} {}", self.options.helo);
        self.say(&line);
        self.state = State::Ehlo;
    }

    fn say(&mut self, line: &str) {
        self.unsent += 1;
        self.output.extend_from_slice(line.as_bytes());
        self.output.extend_from_slice(b"\r\n");
        if let Some(tap) = &self.tap {
            tap.line(true, line.as_bytes());
        }
    }

    fn say_secret(&mut self, before: &str, secret: &str, next: State) {
        self.unsent += 1;
        self.output.extend_from_slice(before.as_bytes());
        self.output.extend_from_slice(secret.as_bytes());
        self.output.extend_from_slice(b"\r\n");
        if let Some(tap) = &self.tap {
            tap.line(true, format!("{before}{BLOTTED}").as_bytes());
        }
        self.state = next;
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("tls", &self.tls)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
