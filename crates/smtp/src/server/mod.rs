//! The server side of a session, as a value that is fed with bytes.
//!
//! The driver owns the connection. It reads some bytes and calls [`Server::step`] until the answer
//! is [`Step::Read`]; replies gather in [`Server::output`] and are to be written before waiting for
//! anything. Questions carry a token; the answer consumes it. A body is handed out in pieces of the
//! very bytes that came in.
//!
//! Promises: nothing is accepted that the driver did not say yes to; MAIL before login or TLS where
//! these are due never reaches the driver; memory is bounded by [`Options`]. Never: a wait, a clock.

mod auth;
mod chunks;
mod commands;
mod input;
mod offers;
mod options;
mod refused;
mod state;

pub use options::{Options, Role, Timeouts};
pub use refused::Refused;
pub use state::{AuthToken, BeginToken, Envelope, MessageToken, RecipientToken, SenderToken, XclientToken};

use crate::command::{MailFrom, RcptTo};
use crate::framer::Lines;
use crate::replies;
use crate::reply::Reply;
use crate::tap::{TLS_REMARK, Tap, Tapped};
use crate::xclient::Attributes;
use mail::Timestamp;
use sasl::{Mechanism, Request};
use state::{Body, State};
use std::sync::Arc;
use std::time::Duration;

/// What the driver is to do next.
// A step is looked at once and at once; a box for each question would cost more than its size.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Step<'a> {
    /// Write the output out, read more, call again. Also when the input is used up for now.
    Read,
    /// Answer this, then call again.
    Ask(Question),
    /// The next octets of the message that [`Question::Begin`] announced.
    Chunk(&'a [u8]),
    /// The transaction that was open is over without a message: forget it. The reply tells why,
    /// unless the client itself dropped it (RSET, EHLO, QUIT).
    Dropped(Option<Reply>),
    /// Write the output out, do the TLS handshake, call [`Server::tls_started`].
    StartTls,
    /// Write the output out and close.
    Close,
}

/// What the session must know from its driver.
#[derive(Debug)]
pub enum Question {
    /// What AUTH must know of accounts. Answer with [`Server::authenticated`].
    Authenticate {
        /// For the answer.
        token: AuthToken,
        /// How it came.
        mechanism: Mechanism,
        /// What is asked: whether a login is good, or what comes before.
        request: Request,
    },
    /// A proxy that may tells whom it speaks for. Answer with [`Server::xclient`].
    Xclient {
        /// For the answer.
        token: XclientToken,
        /// What it tells.
        attributes: Box<Attributes>,
    },
    /// May this sender? Answer with [`Server::sender`].
    Sender {
        /// For the answer.
        token: SenderToken,
        /// The name in EHLO or HELO; nobody has checked it.
        helo: String,
        /// MAIL FROM and its parameters.
        mail: MailFrom,
    },
    /// May this recipient? Answer with [`Server::recipient`].
    Recipient {
        /// For the answer.
        token: RecipientToken,
        /// RCPT TO.
        rcpt: RcptTo,
    },
    /// May the message come? Answer with [`Server::begin`].
    Begin {
        /// For the answer.
        token: BeginToken,
        /// All that was agreed about it.
        envelope: Envelope,
    },
    /// The message is whole. Answer with [`Server::message`]; a positive reply is a promise.
    Message {
        /// For the answer.
        token: MessageToken,
        /// Its octets, as they were handed out.
        octets: u64,
    },
}

/// A server session.
pub struct Server {
    options: Arc<Options>,
    role: Role,
    tls: bool,
    login: Option<String>,
    /// The connection, as far as it can be named; boxed because most sessions have none.
    channel: Option<Box<sasl::Channel>>,
    unseen: Option<Box<sasl::Unseen>>,
    state: State,
    lines: Lines,
    output: Vec<u8>,
    /// Told before anything else happens.
    dropped: Option<Option<Reply>>,
    errors: u32,
    auth_failures: u32,
    idle_commands: u32,
    messages: u32,
    /// A proxy has told whom it speaks for. It may pass on whatever that client says from now on.
    was_told: bool,
    deferrals: usize,
    /// MAIL was refused, and only what a client sends in one group with it has come since.
    behind_refused_mail: bool,
    progress: u64,
    refused: refused::Refusals,
    /// Octets of refused chunks since the last accepted message.
    swallowed: u64,
    /// The command before was a chunk that ended its message badly.
    chunk_refused: bool,
    /// When the session began, if the driver told.
    began: Option<Timestamp>,
    tap: Option<Tapped>,
}

impl Server {
    /// A session that is about to greet. `tls` tells whether the connection is inside TLS already.
    #[must_use]
    pub fn new(options: Arc<Options>, role: Role, tls: bool, tap: Option<(Arc<dyn Tap>, String)>) -> Self {
        let mut session = Self {
            options,
            role,
            tls,
            login: None,
            channel: None,
            unseen: None,
            state: State::Fresh,
            lines: Lines::default(),
            output: Vec::new(),
            dropped: None,
            errors: 0,
            auth_failures: 0,
            idle_commands: 0,
            messages: 0,
            was_told: false,
            deferrals: 0,
            behind_refused_mail: false,
            progress: 0,
            refused: refused::Refusals::default(),
            swallowed: 0,
            chunk_refused: false,
            began: None,
            tap: tap.map(|(tap, name)| Tapped::new(tap, name)),
        };
        session.greet();
        session
    }

    /// Tells when the session begins. Without it nothing can be held for later (RFC 4865), because the
    /// offer names a date.
    pub fn begins_at(&mut self, now: Timestamp) {
        self.began = Some(now);
    }

    /// Goes on until something has to be done outside. Takes what it uses off `input`.
    pub fn step<'a>(&mut self, input: &mut &'a [u8]) -> Step<'a> {
        loop {
            if let Some(why) = self.dropped.take() {
                return Step::Dropped(why);
            }
            match std::mem::replace(&mut self.state, State::Closed) {
                State::Closed => return Step::Close,
                State::Handshake => {
                    self.state = State::Handshake;
                    return Step::StartTls;
                }
                // Its token is gone, and with it the state: a fault of ours, never a hang.
                State::Asking => self.say_and_close(&replies::INTERNAL_ERROR),
                State::Body(body) => {
                    if let Some(step) = self.body(body, input) {
                        return step;
                    }
                }
                State::Chunk(chunks) => {
                    if let Some(step) = self.chunk(chunks, input) {
                        return step;
                    }
                }
                State::Swallow(swallow) => {
                    if let Some(step) = self.swallowing(swallow, input) {
                        return step;
                    }
                }
                state => {
                    self.state = state;
                    match self.next_line(input) {
                        None => return Step::Read,
                        Some(Some(step)) => return step,
                        Some(None) => {}
                    }
                }
            }
        }
    }

    /// Replies that wait to be written.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// Takes the replies that wait to be written.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// The handshake is done; the session begins anew, without a greeting (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        if matches!(self.state, State::Handshake) {
            self.tls = true;
            self.login = None;
            self.channel = None;
            self.lines = Lines::default();
            self.state = State::Fresh;
            if let Some(tap) = &self.tap {
                tap.line(true, TLS_REMARK.as_bytes());
            }
        }
    }

    /// Says this reply and closes, whatever is going on: a time-out, a shutdown, an early talker.
    pub fn close_with(&mut self, reply: &Reply) {
        if !matches!(self.state, State::Closed | State::Handshake) {
            self.say(reply);
        }
        self.state = State::Closed;
    }

    /// Refuses the client and closes, whatever is going on: [`Server::close_with`] for what is a
    /// refusal, and so ends with a reference and is told by [`Server::take_refused`].
    pub fn refuse_and_close(&mut self, reply: &Reply) {
        let reply = self.referenced(reply);
        self.close_with(&reply);
    }

    /// Refuses the message that is coming in. No more of it is handed out; the reply is told when
    /// it ends, with [`Step::Dropped`].
    pub fn refuse_message(&mut self, reply: Reply) {
        match &mut self.state {
            State::Body(body) => {
                body.refusal.get_or_insert(reply);
            }
            State::Chunk(chunks) | State::BetweenChunks(chunks) => {
                chunks.refusal.get_or_insert(reply);
            }
            _ => {}
        }
    }

    /// How long the client may take from the last [`Server::progress`] on.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        match self.state {
            State::Body(_) | State::Chunk(_) | State::Swallow(_) => self.options.timeouts.data,
            State::Handshake => self.options.timeouts.handshake,
            _ => self.options.timeouts.command,
        }
    }

    /// Rises with every whole command and every octet of a message: with all that counts as the
    /// client getting on. Octets of an unfinished line don't.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.progress
    }

    /// Messages that were accepted.
    #[must_use]
    pub fn accepted(&self) -> u32 {
        self.messages
    }

    /// Whether no transaction is open: a good moment to end the session.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(
            self.state,
            State::Fresh | State::Greeted(_) | State::Auth(..) | State::Closed
        )
    }

    /// Whether a message is coming in, also while its next chunk is waited for.
    #[must_use]
    pub fn is_receiving(&self) -> bool {
        matches!(
            self.state,
            State::Body(_) | State::Chunk(_) | State::BetweenChunks(_) | State::Swallow(_)
        )
    }

    /// Whether the session has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether the connection is inside TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whom the session serves.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The name that logged in.
    #[must_use]
    pub fn login(&self) -> Option<&str> {
        self.login.as_deref()
    }

    /// Answers [`Question::Xclient`]: with the login that the client has from now on, or a refusal. The
    /// session begins anew, with a greeting.
    pub fn xclient(&mut self, token: XclientToken, verdict: Result<Option<String>, Reply>) {
        match verdict {
            Ok(login) => {
                self.login = login;
                self.was_told = true;
                self.state = token.after.map_or(State::Fresh, State::Greeted);
                self.greet();
            }
            Err(reply) => {
                self.state = token.before.map_or(State::Fresh, State::Greeted);
                self.refuse(&reply);
            }
        }
    }

    /// Answers [`Question::Sender`].
    pub fn sender(&mut self, token: SenderToken, verdict: Result<(), Reply>) {
        let SenderToken { greeted, mail } = token;
        match verdict {
            Ok(()) => {
                self.state = State::MailGiven(state::MailGiven { greeted, mail });
                self.say(&replies::SENDER_OK);
            }
            Err(reply) => {
                self.state = State::Greeted(greeted);
                self.refuse(&reply);
                self.behind_refused_mail = true;
            }
        }
    }

    /// Answers [`Question::Recipient`].
    pub fn recipient(&mut self, token: RecipientToken, verdict: Result<(), Reply>) {
        let RecipientToken { mut given, rcpt } = token;
        if verdict.is_ok() {
            given.recipients.push(rcpt.recipient);
        }
        self.state = given.settle();
        match verdict {
            Ok(()) => self.say(&replies::RECIPIENT_OK),
            Err(reply) => self.refuse(&reply),
        }
    }

    /// Answers [`Question::Begin`]. A refusal ends the transaction.
    pub fn begin(&mut self, token: BeginToken, verdict: Result<(), Reply>) {
        let BeginToken { given, chunk } = token;
        if let Some(size) = chunk {
            return self.chunks_begin(given, size, verdict);
        }
        let recipients = given.recipients.len();
        let greeted = given.given.greeted;
        match verdict {
            Ok(()) => {
                let line_max = self.options.data_line_octets_max.unwrap_or(usize::MAX);
                self.state = State::Body(Box::new(Body {
                    greeted,
                    recipients,
                    framer: crate::framer::Data::new(line_max),
                    octets: 0,
                    wire_octets: 0,
                    refusal: None,
                }));
                self.say(&replies::START_MAIL_INPUT);
            }
            Err(reply) => {
                self.state = State::Greeted(greeted);
                self.refuse(&reply);
            }
        }
    }

    /// Answers [`Question::Message`], for all recipients alike. The transaction is over either way.
    pub fn message(&mut self, token: MessageToken, reply: &Reply) {
        let times = self.replies_due(token.recipients);
        self.state = State::Greeted(token.greeted);
        self.conclude(std::iter::repeat_n(reply, times));
    }

    /// Answers [`Question::Message`] in LMTP: one reply for each accepted RCPT, in their order
    /// (RFC 2033 §4.2). Replies that are missing are temporary refusals; in SMTP the first counts.
    pub fn message_each(&mut self, token: MessageToken, replies: &[Reply]) {
        let times = self.replies_due(token.recipients);
        self.state = State::Greeted(token.greeted);
        let missing = replies::STORE_FAILED;
        let replies = replies.iter().chain(std::iter::repeat(&missing));
        self.conclude(replies.take(times));
    }

    /// How many replies the end of a message asks for.
    fn replies_due(&self, recipients: usize) -> usize {
        match self.role {
            Role::Lmtp => recipients.max(1),
            _ => 1,
        }
    }

    /// Says how a message ended.
    fn conclude<'r>(&mut self, replies: impl Iterator<Item = &'r Reply>) {
        let mut refusal = None;
        let mut accepted = false;
        for reply in replies {
            if reply.is_positive() {
                self.say(reply);
                accepted = true;
            } else {
                let said = self.referenced(reply);
                self.say(&said);
                refusal.get_or_insert(reply);
            }
        }
        if accepted {
            self.idle_commands = 0;
            self.swallowed = 0;
            self.messages += 1;
        } else if let Some(refusal) = refusal {
            self.count_refusal(refusal);
        }
    }

    fn greet(&mut self) {
        let greeting = match self.role {
            Role::Lmtp => replies::lmtp_greeting(&self.options.hostname),
            _ => replies::greeting(&self.options.hostname),
        };
        self.say(&greeting);
    }

    /// Says a reply. 421 ends the session (RFC 5321 §3.8).
    fn say(&mut self, reply: &Reply) {
        let start = self.output.len();
        reply.write(&mut self.output);
        if let Some(tap) = &self.tap {
            for line in self.output[start..].split(|b| *b == b'\n') {
                if let Some(line) = line.strip_suffix(b"\r") {
                    tap.line(false, line);
                }
            }
        }
        if reply.code == 421 {
            self.state = State::Closed;
        }
    }

    /// Says a refusal and counts it. One that asks to come again later is no error of the client, nor is
    /// a recipient that it sent in one group with a MAIL that was refused (RFC 2920); but nobody may
    /// collect them without end either.
    fn refuse(&mut self, reply: &Reply) {
        let said = self.referenced(reply);
        self.say(&said);
        self.count_refusal(reply);
    }

    fn count_refusal(&mut self, reply: &Reply) {
        if reply.is_transient() || self.behind_refused_mail {
            self.deferrals += 1;
        } else {
            self.errors += 1;
        }
        let too_many = self.errors > self.options.errors_max || self.deferrals > self.options.deferrals_max;
        if too_many && !self.is_closed() {
            self.drop_transaction(Some(&replies::TOO_MANY_ERRORS));
            self.say_and_close(&replies::TOO_MANY_ERRORS);
        }
    }

    fn say_and_close(&mut self, reply: &Reply) {
        let said = self.referenced(reply);
        self.say(&said);
        self.state = State::Closed;
    }

    /// Remembers to tell the driver that the open transaction, if there is one, is over.
    fn drop_transaction(&mut self, why: Option<&Reply>) {
        if matches!(
            self.state,
            State::MailGiven(_) | State::RcptGiven(_) | State::BetweenChunks(_)
        ) {
            self.dropped = Some(why.cloned());
        }
    }

    fn hear(&self, line: &[u8]) {
        if let Some(tap) = &self.tap {
            tap.line(true, line);
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("role", &self.role)
            .field("tls", &self.tls)
            .field("login", &self.login)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
