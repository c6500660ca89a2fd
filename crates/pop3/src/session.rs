//! The session: AUTHORIZATION, TRANSACTION, UPDATE (RFC 1939 §3) as a machine that is fed.
//!
//! The driver calls [`Session::receive`] with what it read, then [`Session::step`] until that says
//! [`Step::NeedInput`], and writes [`Session::take_output`] out before it waits for anything. A
//! [`Question`] carries a token; its answer takes the token back, so no answer can go astray.

use crate::Options;
use crate::body::MessageWriter;
use crate::command::{self, Command, CommandError};
use crate::line::{Framer, Line};
use crate::maildrop::{Listing, Maildrop, OpenDrop};
use crate::reply::Reply;
use mail::Secret;
use sasl::{Answer, Channel, Credentials, Fault, Mechanism, Mechanisms, Request, Unseen, Why};
use std::time::Duration;

type Exchange = sasl::Exchange<Maildrop, LoginRefusal>;
type Asking = sasl::Asking<Maildrop, LoginRefusal>;

/// Octets of output at which a session wants them written before it goes on.
const OUTPUT_OCTETS_SOFT_MAX: usize = 16 * 1024;

/// Octets of a reason at most that the driver gives for a refusal.
const REASON_OCTETS_MAX: usize = 400;

/// What the session wants next.
#[must_use]
#[derive(Debug)]
pub enum Step {
    /// All input is used up.
    NeedInput,
    /// Write the output, then call `step` again.
    Flush,
    /// Answer, then call `step` again.
    Ask(Question),
    /// Write the output, do the handshake, call [`Session::tls_started`].
    StartTls,
    /// Write the output and close.
    Close,
}

/// What only the driver can answer.
#[derive(Debug)]
pub enum Question {
    /// What a login must know of accounts. Answer with [`Session::login`].
    Login {
        /// For the answer.
        token: LoginToken,
        /// How it came; USER and PASS count as the mechanism LOGIN.
        mechanism: Mechanism,
        /// What is asked: whether a login is good, or what comes before.
        request: Request,
    },
    /// Send this message. Answer with [`Session::begin_message`], or [`Session::refuse_message`].
    Message {
        /// For the answer.
        token: MessageToken,
        /// Index into the maildrop's entries.
        index: usize,
    },
    /// Remove these messages for good, durably. Answer with [`Session::committed`]. Comes even when
    /// there is nothing to remove, so that the lock can be released before the farewell.
    Commit {
        /// For the answer.
        token: CommitToken,
        /// Indices into the maildrop's entries, rising.
        deleted: Vec<usize>,
    },
}

/// Belongs to [`Question::Login`].
#[must_use]
#[derive(Debug)]
pub struct LoginToken {
    /// `None` for USER and PASS.
    asking: Option<Box<Asking>>,
    mechanism: Mechanism,
}

/// Belongs to [`Question::Message`].
#[must_use]
#[derive(Debug)]
pub struct MessageToken {
    octets: u64,
    body_lines: Option<u32>,
}

impl MessageToken {
    /// Whether all of the message is asked for (RETR), and not just its top.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.body_lines.is_none()
    }
}

/// Belongs to [`Question::Commit`].
#[must_use]
#[derive(Debug)]
pub struct CommitToken(());

/// Why a login is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LoginRefusal {
    /// Wrong name or wrong password; never told apart.
    WrongCredentials,
    /// The main password was right, but the account has a second factor: an app password is needed.
    NeedsAppPassword,
    /// Right, but not allowed; the reason, one printable line, is shown.
    Forbidden(String),
    /// Another session holds the maildrop (RFC 2449 §8.1.2).
    InUse,
    /// It could not be found out; a fault on our side.
    Unavailable,
}

#[derive(Debug)]
enum State {
    Authorization {
        user: Option<String>,
    },
    /// AUTH goes on and a response is awaited.
    Sasl(Mechanism, Box<Exchange>),
    /// A question is with the driver.
    LoginAsked,
    TlsOffered,
    Transaction(OpenDrop),
    /// A message is being sent by the driver.
    MessageAsked(OpenDrop),
    /// A multi-line listing is being written.
    Listing {
        drop: OpenDrop,
        kind: Listing,
        next: usize,
    },
    CommitAsked,
    /// The login has ended; the next command is told so.
    LoginOver,
    Closed,
}

/// One POP3 session, from the greeting to the farewell.
#[derive(Debug)]
pub struct Session {
    options: Options,
    tls: bool,
    state: State,
    input: Framer,
    output: Vec<u8>,
    bad_commands: u32,
    login_failures: u32,
    channel: Option<Box<Channel>>,
    unseen: Option<Box<Unseen>>,
}

impl Session {
    /// A new session; its greeting is in the output. `tls` tells whether TLS runs already.
    #[must_use]
    pub fn new(options: Options, tls: bool) -> Self {
        let mut session = Self {
            options,
            tls,
            state: State::Authorization { user: None },
            input: Framer::default(),
            output: Vec::new(),
            bad_commands: 0,
            login_failures: 0,
            channel: None,
            unseen: None,
        };
        let host_name = session.options.host_name.clone();
        session.say(Reply::Greeting { host_name });
        session
    }

    /// Takes what was read. Give at most some KiB at a time and only after [`Step::NeedInput`].
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.push(bytes);
    }

    /// What shall be written now.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// How long the client may be silent now. When that has passed, close without a word and without
    /// removing anything (RFC 1939 §3).
    #[must_use]
    pub fn timeout(&self) -> Duration {
        match self.is_logged_in() {
            true => self.options.idle_timeout,
            false => self.options.login_timeout,
        }
    }

    /// Whether a login has succeeded.
    #[must_use]
    pub fn is_logged_in(&self) -> bool {
        matches!(
            self.state,
            State::Transaction(_)
                | State::MessageAsked(_)
                | State::Listing { .. }
                | State::CommitAsked
                | State::LoginOver
        )
    }

    /// Goes on as far as it can without the driver.
    pub fn step(&mut self) -> Step {
        loop {
            if self.output.len() >= OUTPUT_OCTETS_SOFT_MAX {
                return Step::Flush;
            }
            match &self.state {
                State::Closed => return Step::Close,
                State::TlsOffered => return Step::StartTls,
                State::Listing { .. } => {
                    self.continue_listing();
                    continue;
                }
                // The driver asked for a step before it answered: there is nothing to say yet.
                State::LoginAsked | State::MessageAsked(_) | State::CommitAsked => return Step::NeedInput,
                State::Authorization { .. } | State::Sasl(..) | State::Transaction(_) | State::LoginOver => {}
            }
            let limit = match self.state {
                State::Sasl(..) => self.options.sasl_line_octets_max,
                _ => self.options.line_octets_max,
            };
            let Some(line) = self.input.next(limit) else {
                return Step::NeedInput;
            };
            if let Some(question) = self.take_line(line) {
                return Step::Ask(question);
            }
        }
    }

    /// TLS runs: what was said before it is forgotten (RFC 2595 §4).
    pub fn tls_started(&mut self) {
        self.tls = true;
        self.input.clear();
        self.channel = None;
        self.state = State::Authorization { user: None };
    }

    /// The login has ended: the command that is asked about, or else the next one, is refused, and
    /// the session closes without removing anything (RFC 1939 §3: only QUIT does, by UPDATE). The
    /// token of an open question may be dropped. Call it where [`Session::step`] has answered.
    pub fn login_ended(&mut self) {
        match self.state {
            State::Transaction(_) => self.state = State::LoginOver,
            State::MessageAsked(_) | State::CommitAsked => {
                self.state = State::Closed;
                self.say(Reply::LoginOver);
            }
            // Within a listing an end of the connection is the only thing that cannot be misread.
            State::Listing { .. } => self.state = State::Closed,
            _ => {}
        }
    }

    /// Names the connection, so that mechanisms can be bound to it. Call it right after the
    /// handshake.
    pub fn name_channel(&mut self, channel: Channel) {
        self.channel = Some(Box::new(channel));
    }

    /// The last login that the driver was not asked about, for the record.
    pub fn take_unseen(&mut self) -> Option<Unseen> {
        self.unseen.take().map(|unseen| *unseen)
    }

    /// Answers [`Question::Login`].
    pub fn login(&mut self, token: LoginToken, answer: Answer<Maildrop, LoginRefusal>) {
        match (token.asking, answer) {
            (Some(asking), answer) => {
                // An answer leads to no further question.
                self.sasl_goes_on(token.mechanism, asking.answer(answer));
            }
            (None, Answer::Accepted(maildrop, _)) => self.logged_in(maildrop),
            (None, Answer::Refused(refusal)) => self.login_refused(refusal),
            (None, Answer::Salted(_)) => self.login_refused(LoginRefusal::Unavailable),
        }
    }

    fn logged_in(&mut self, maildrop: Maildrop) {
        let drop = OpenDrop::new(maildrop);
        let (messages, octets) = drop.totals();
        self.state = State::Transaction(drop);
        self.say(Reply::LoggedIn { messages, octets });
    }

    fn login_refused(&mut self, refusal: LoginRefusal) {
        self.state = State::Authorization { user: None };
        let (counts, reply) = match refusal {
            LoginRefusal::WrongCredentials => (true, Reply::WrongCredentials),
            LoginRefusal::NeedsAppPassword => (true, Reply::NeedsAppPassword),
            LoginRefusal::Forbidden(why) => (true, Reply::LoginForbidden(one_short_line(&why))),
            LoginRefusal::InUse => (false, Reply::InUse),
            LoginRefusal::Unavailable => (false, Reply::LoginUnavailable),
        };
        self.login_failures += u32::from(counts);
        if self.login_failures >= self.options.login_failures_max {
            // The last refusal still says why; the close says the rest.
            self.state = State::Closed;
            if matches!(reply, Reply::WrongCredentials) {
                return self.say(Reply::TooManyFailures);
            }
        }
        self.say(reply);
    }

    /// Answers [`Question::Message`]: the message follows. Write its octets with
    /// [`Session::message_piece`], then end it with [`Session::end_message`].
    pub fn begin_message(&mut self, token: MessageToken) -> MessageWriter {
        match token.body_lines {
            None => self.say(Reply::Message { octets: token.octets }),
            Some(_) => self.say(Reply::Top),
        }
        MessageWriter::new(token.body_lines)
    }

    /// Adds octets of the message to the output. Write that out between pieces.
    pub fn message_piece(&mut self, writer: &mut MessageWriter, piece: &[u8]) {
        writer.write(piece, &mut self.output);
    }

    /// The message is complete. When it cannot be completed, close the connection instead: only that
    /// tells the client that what it has is not the message.
    pub fn end_message(&mut self, writer: MessageWriter) {
        writer.finish(&mut self.output);
        self.resume();
    }

    /// Answers [`Question::Message`]: it cannot be read.
    pub fn refuse_message(&mut self, token: MessageToken) {
        let MessageToken { .. } = token;
        self.say(Reply::MessageUnavailable);
        self.resume();
    }

    /// Answers [`Question::Commit`]: whether all of it is removed, durably.
    pub fn committed(&mut self, token: CommitToken, removed: bool) {
        let CommitToken(()) = token;
        self.state = State::Closed;
        if removed {
            self.farewell();
        } else {
            self.say(Reply::FarewellUncommitted);
        }
    }

    fn resume(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::MessageAsked(drop) => State::Transaction(drop),
            other => other,
        };
    }

    fn say(&mut self, reply: Reply) {
        reply.write(&mut self.output);
    }

    fn farewell(&mut self) {
        let host_name = self.options.host_name.clone();
        self.say(Reply::Farewell { host_name });
    }

    fn login_allowed(&self) -> bool {
        self.tls || self.options.login_without_tls
    }

    fn take_line(&mut self, line: Line) -> Option<Question> {
        if let State::LoginOver = self.state {
            self.state = State::Closed;
            self.say(Reply::LoginOver);
            return None;
        }
        let text = match line {
            Line::Whole(text) => text,
            Line::TooLong => return self.bad(Reply::LineTooLong),
            Line::Malformed => return self.bad(Reply::LineMalformed),
        };
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Sasl(mechanism, exchange) => {
                return self.sasl_goes_on(mechanism, exchange.line(&text));
            }
            other => self.state = other,
        }
        let command = match command::parse(&text) {
            Ok(command) => command,
            Err(CommandError::Unknown) => return self.bad(Reply::UnknownCommand),
            Err(CommandError::Usage(usage)) => return self.bad(Reply::Usage(usage)),
        };
        self.bad_commands = 0;
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Authorization { user } => self.in_authorization(command, user),
            State::Transaction(drop) => self.in_transaction(command, drop),
            other => {
                self.state = other;
                None
            }
        }
    }

    fn bad(&mut self, reply: Reply) -> Option<Question> {
        if let State::Sasl(..) = self.state {
            self.state = State::Authorization { user: None };
        }
        self.bad_commands += 1;
        if self.bad_commands >= self.options.bad_commands_max {
            self.state = State::Closed;
            self.say(Reply::TooManyBadCommands);
        } else {
            self.say(reply);
        }
        None
    }

    fn in_authorization(&mut self, command: Command, user: Option<String>) -> Option<Question> {
        self.state = State::Authorization { user: None };
        let stls_offered = self.options.stls_offered && !self.tls;
        match command {
            Command::Quit => {
                self.state = State::Closed;
                self.farewell();
            }
            Command::Capa => self.capabilities(),
            Command::Stls => self.stls(),
            Command::User(_) | Command::Pass(_) | Command::Auth { .. } if !self.login_allowed() => {
                self.note_before_tls(&command);
                self.say(Reply::LoginNeedsTls { stls_offered });
            }
            Command::User(name) => {
                self.state = State::Authorization { user: Some(name) };
                // Whether there is such a user is not told (RFC 1939 §13).
                self.say(Reply::SendPassword);
            }
            Command::Pass(password) => match user {
                Some(user) => return Some(self.ask_login(user, password)),
                None => self.say(Reply::NotNow("USER first")),
            },
            Command::Auth { mechanism, initial } => return self.auth(&mechanism, initial),
            _ => self.say(Reply::NotNow("log in first")),
        }
        None
    }

    fn stls(&mut self) {
        if self.tls {
            self.say(Reply::TlsActive);
        } else if !self.options.stls_offered {
            self.say(Reply::TlsNotOffered);
        } else if !self.input.is_empty() {
            // What stands here in clear could be taken for something said inside TLS.
            self.state = State::Closed;
            self.say(Reply::TlsPipelined);
        } else {
            self.state = State::TlsOffered;
            self.say(Reply::BeginTls);
        }
    }

    fn ask_login(&mut self, user: String, password: Secret) -> Question {
        self.state = State::LoginAsked;
        Question::Login {
            token: LoginToken {
                asking: None,
                mechanism: Mechanism::Login,
            },
            mechanism: Mechanism::Login,
            request: Request::Password(Credentials {
                authorization: None,
                login: user,
                password,
            }),
        }
    }

    fn mechanisms(&self) -> Mechanisms {
        match &self.channel {
            Some(channel) => self.options.mechanisms.on(channel),
            None => self.options.mechanisms.on(&Channel::default()),
        }
    }

    fn note_unseen(&mut self, mechanism: &str, user: Option<String>, why: Why) {
        self.unseen = Some(Box::new(Unseen::new(mechanism, user, why)));
    }

    /// A login before TLS, whose name is told if it was sent.
    fn note_before_tls(&mut self, command: &Command) {
        let (mechanism, user) = match command {
            Command::User(name) => (Mechanism::Login.name(), Some(name.clone())),
            Command::Auth { mechanism, initial } => {
                let shown = initial.as_ref().filter(|_| mechanism == Mechanism::Plain.name());
                let user = shown.and_then(|text| sasl::plain_name(text.expose().as_bytes()));
                (mechanism.as_str(), user)
            }
            // What USER has told already.
            _ => return,
        };
        self.note_unseen(mechanism, user, Why::BeforeTls);
    }

    fn auth(&mut self, name: &str, initial: Option<Secret>) -> Option<Question> {
        let offered = self.mechanisms();
        let Some(mechanism) = Mechanism::parse(name).filter(|m| offered.has(*m)) else {
            self.note_unseen(name, None, Why::NotOffered);
            self.say(Reply::UnknownMechanism {
                offered: offered.to_string(),
            });
            return None;
        };
        let none = Channel::default();
        let channel = self.channel.as_deref().unwrap_or(&none);
        let (exchange, prompt) = Exchange::start(mechanism, offered, channel);
        let step = match initial {
            Some(initial) => exchange.initial(initial.expose().as_bytes()),
            None => sasl::Step::Challenge(exchange, prompt.to_vec()),
        };
        self.sasl_goes_on(mechanism, step)
    }

    fn sasl_goes_on(
        &mut self,
        mechanism: Mechanism,
        step: sasl::Step<Maildrop, LoginRefusal>,
    ) -> Option<Question> {
        self.state = State::Authorization { user: None };
        match step {
            sasl::Step::Challenge(exchange, octets) => {
                self.say(Reply::Challenge(sasl::encode(octets)));
                self.state = State::Sasl(mechanism, Box::new(exchange));
            }
            sasl::Step::Ask(asking, request) => {
                self.state = State::LoginAsked;
                return Some(Question::Login {
                    token: LoginToken {
                        asking: Some(Box::new(asking)),
                        mechanism,
                    },
                    mechanism,
                    request,
                });
            }
            sasl::Step::Accepted(maildrop) => self.logged_in(maildrop),
            sasl::Step::Refused(refusal) => self.login_refused(refusal),
            sasl::Step::Failed(fault, user) => {
                self.note_unseen(mechanism.name(), user, Why::Fault(fault));
                match fault {
                    // RFC 5034 §4: a lone star cancels.
                    Fault::Cancelled => self.say(Reply::Cancelled),
                    Fault::NotBase64 | Fault::Malformed => return self.bad(Reply::BadResponse),
                    Fault::Downgrade | Fault::Channel => {
                        self.login_failures += 1;
                        self.say(Reply::OtherChannel);
                    }
                    Fault::Nonce => self.login_refused(LoginRefusal::WrongCredentials),
                    Fault::Internal => self.login_refused(LoginRefusal::Unavailable),
                }
            }
        }
        None
    }

    fn capabilities(&mut self) {
        self.say(Reply::Capabilities);
        let sasl = format!("SASL {}", self.mechanisms());
        let mut lines = vec![
            "TOP",
            "UIDL",
            "RESP-CODES",
            "AUTH-RESP-CODE",
            "PIPELINING",
            "EXPIRE NEVER",
        ];
        if self.login_allowed() {
            lines.push("USER");
            if self.mechanisms() != Mechanisms::NONE {
                lines.push(&sasl);
            }
        }
        // RFC 2595 §4: not once TLS is active.
        if self.options.stls_offered && !self.tls {
            lines.push("STLS");
        }
        lines.push("IMPLEMENTATION Posthaste");
        for line in lines.into_iter().chain(["."]) {
            self.output.extend_from_slice(line.as_bytes());
            self.output.extend_from_slice(b"\r\n");
        }
    }

    fn in_transaction(&mut self, command: Command, mut drop: OpenDrop) -> Option<Question> {
        let (messages, octets) = match command {
            Command::Stat | Command::Rset | Command::List(None) | Command::Uidl(None) => drop.totals(),
            _ => (0, 0),
        };
        match command {
            Command::Noop => self.say(Reply::Ok),
            Command::Stat => self.say(Reply::DropListing { messages, octets }),
            Command::Capa => self.capabilities(),
            Command::Rset => {
                drop.deleted.fill(false);
                let (messages, octets) = drop.totals();
                self.say(Reply::Reset { messages, octets });
            }
            Command::List(None) => return self.begin_listing(drop, Listing::Sizes, messages),
            Command::Uidl(None) => return self.begin_listing(drop, Listing::UniqueIds, messages),
            Command::List(Some(message)) => self.list_one(&drop, Listing::Sizes, message),
            Command::Uidl(Some(message)) => self.list_one(&drop, Listing::UniqueIds, message),
            Command::Dele(message) => match drop.find(message) {
                Ok(index) => {
                    drop.deleted[index] = true;
                    self.say(Reply::Deleted { message });
                }
                Err(reply) => self.say(reply),
            },
            Command::Retr(message) => return self.ask_message(drop, message, None),
            Command::Top(message, lines) => return self.ask_message(drop, message, Some(lines)),
            Command::Quit => {
                let deleted = (0..drop.deleted.len()).filter(|i| drop.deleted[*i]).collect();
                self.state = State::CommitAsked;
                return Some(Question::Commit {
                    token: CommitToken(()),
                    deleted,
                });
            }
            Command::User(_) | Command::Pass(_) | Command::Auth { .. } | Command::Stls => {
                self.say(Reply::NotNow("you are logged in"));
            }
        }
        self.state = State::Transaction(drop);
        None
    }

    fn list_one(&mut self, drop: &OpenDrop, kind: Listing, message: u32) {
        match drop.find(message) {
            Ok(index) => self.say(Reply::ListingOne {
                message,
                text: drop.listed(kind, index),
            }),
            Err(reply) => self.say(reply),
        }
    }

    fn begin_listing(&mut self, drop: OpenDrop, kind: Listing, messages: usize) -> Option<Question> {
        self.say(Reply::Listing { messages });
        self.state = State::Listing { drop, kind, next: 0 };
        None
    }

    /// Writes listing lines until the output is full or all are written.
    fn continue_listing(&mut self) {
        let State::Listing { drop, kind, next } = &mut self.state else {
            return;
        };
        while *next < drop.deleted.len() && self.output.len() < OUTPUT_OCTETS_SOFT_MAX {
            if !drop.deleted[*next] {
                let line = format!("{} {}\r\n", *next + 1, drop.listed(*kind, *next));
                self.output.extend_from_slice(line.as_bytes());
            }
            *next += 1;
        }
        if *next < drop.deleted.len() {
            return;
        }
        self.output.extend_from_slice(b".\r\n");
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Listing { drop, .. } => State::Transaction(drop),
            other => other,
        };
    }

    fn ask_message(&mut self, drop: OpenDrop, message: u32, body_lines: Option<u32>) -> Option<Question> {
        match drop.find(message) {
            Ok(index) => {
                let octets = drop.maildrop.entries[index].octets;
                self.state = State::MessageAsked(drop);
                Some(Question::Message {
                    token: MessageToken { octets, body_lines },
                    index,
                })
            }
            Err(reply) => {
                self.state = State::Transaction(drop);
                self.say(reply);
                None
            }
        }
    }
}

/// A text fit to stand in a reply: RFC 2449 §4 gives a reply 512 octets at most.
fn one_short_line(text: &str) -> String {
    let mut line = mail::trace::printable(text);
    line.truncate(line.floor_char_boundary(REASON_OCTETS_MAX));
    line
}
