//! One connection: reads, steps the session machine, answers its questions, writes.
//!
//! A short loop on purpose; what a question means stands in `login`, `mail_in` and `accept`.

use crate::Context;
use crate::local::LocalSender;
use crate::pace::Pace;
use crate::transaction::Transaction;
use crate::wire::Wire;
use futures_util::FutureExt;
use judge::evidence::ConnectionEvidence;
use listen::{FailureDelay, Io, Peer, Standing, stopped, unsettled};
use mail::{AccountId, EmailAddress, QueueId};
use smtp::{Question, Reply, Role, Server, Step, replies};
use std::io;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a last word may take to be written.
const CLOSE_WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Who logged in.
pub(crate) struct LoggedIn {
    pub(crate) account: AccountId,
    pub(crate) address: EmailAddress,
    pub(crate) standing: Standing,
}

/// A connection's own state.
pub(crate) struct Session {
    pub(crate) ctx: Arc<Context>,
    pub(crate) peer: Peer,
    pub(crate) role: Role,
    pub(crate) tls: Option<tls::TlsInfo>,
    /// What the connection can be bound to, until the machine has it.
    channel: Option<sasl::Channel>,
    /// The address in the client's certificate.
    pub(crate) certificate: Option<String>,
    pub(crate) login: Option<LoggedIn>,
    /// Who sends without a login, because the operating system tells whose program it is.
    pub(crate) local: Option<Arc<LocalSender>>,
    pub(crate) failure_delay: FailureDelay,
    /// What the address alone tells; asked once, at the first sender.
    pub(crate) connection: Option<Arc<ConnectionEvidence>>,
    pub(crate) transaction: Option<Transaction>,
    /// The session's own id: what is refused outside a transaction is recorded under it.
    pub(crate) reference: QueueId,
    /// Whether the session's own journey has begun.
    pub(crate) is_recorded: bool,
    /// The content filters, once there was a MAIL that they wanted to know of.
    pub(crate) filters: Option<Box<crate::filter::Chain>>,
}

/// What the machine waits for.
// Looked at once and at once; a box for each question would cost more than its size.
#[allow(clippy::large_enum_variant)]
enum Turn {
    Read,
    Ask(Question),
    Dropped,
    StartTls,
    Close,
}

/// Why the loop goes round.
enum Heard {
    Octets,
    End,
    TimeOut,
    Shutdown,
    /// Something happened to the account.
    Unsettled,
}

impl Session {
    pub(crate) fn new(ctx: Arc<Context>, peer: Peer, role: Role) -> Self {
        Self {
            failure_delay: FailureDelay::new(ctx.options.auth_failure_delay),
            reference: ctx.parts.ids.next_id(),
            is_recorded: false,
            filters: None,
            ctx,
            peer,
            role,
            tls: None,
            channel: None,
            certificate: None,
            login: None,
            local: None,
            connection: None,
            transaction: None,
        }
    }

    /// Whether it is one of our own people who sends.
    pub(crate) fn is_ours(&self) -> bool {
        self.login.is_some() || self.local.is_some()
    }

    /// The name of the one of ours who sends.
    pub(crate) fn sender_name(&self) -> String {
        match (&self.login, &self.local) {
            (Some(login), _) => login.address.to_string(),
            (None, Some(local)) => format!("the user {}", local.name),
            (None, None) => String::new(),
        }
    }

    /// The client's address, as IPv4 where it is one.
    pub(crate) fn ip(&self) -> IpAddr {
        self.peer.address.ip().to_canonical()
    }

    /// Serves the connection to its end. A panic on the way ends this connection only, with 421.
    pub(crate) async fn run(self: Box<Self>, io: Box<dyn Io>, shutdown: watch::Receiver<bool>) {
        let (mut this, mut wire) = (self, Wire::new(io));
        let served = AssertUnwindSafe(this.serve(&mut wire, shutdown))
            .catch_unwind()
            .await;
        match served {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(peer = %this.peer, %error, "the connection broke"),
            Err(_) => {
                tracing::error!(peer = %this.peer, role = ?this.role, "a session ended by a panic: a fault of ours");
                let _ = wire
                    .write(&written(&replies::INTERNAL_ERROR), CLOSE_WRITE_TIMEOUT)
                    .await;
            }
        }
        // What the transaction held is recorded before the client's end is waited for.
        this.end_transaction("the connection ended").await;
        this.filter_close().await;
        wire.close().await;
    }

    async fn serve(&mut self, wire: &mut Wire, shutdown: watch::Receiver<bool>) -> io::Result<()> {
        if self.role == Role::Submissions {
            Box::pin(self.handshake(wire, b"")).await?;
        } else if self.talks_early(wire).await? {
            let reply = Box::pin(self.refuse_connection("connect", &replies::EARLY_TALKER)).await;
            return wire.write(&reply, CLOSE_WRITE_TIMEOUT).await;
        }
        let name = format!("{} {}", role_name(self.role), self.peer);
        let tap = self.ctx.tap.clone().map(|tap| (tap, name));
        let mut server = Server::new(self.smtp_options(), self.role, self.tls.is_some(), tap);
        self.name_channel(&mut server);
        server.begins_at(self.ctx.parts.clock.now());
        self.converse(&mut server, wire, shutdown).await
    }

    /// Whether the client speaks before it is greeted (RFC 5321 §4.3.1 bids it wait).
    async fn talks_early(&self, wire: &mut Wire) -> io::Result<bool> {
        match timeout(self.ctx.options.greeting_delay, wire.read(false)).await {
            Err(_) => Ok(false),
            Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read.map(|_| true),
        }
    }

    /// Logins in clear, when the operator allows them at all, are for this machine alone.
    fn smtp_options(&self) -> Arc<smtp::Options> {
        let options = &self.ctx.smtp_options;
        if self.local.is_some() {
            return Arc::new(smtp::Options {
                auth_required: false,
                offer_starttls: false,
                allow_plaintext_auth: false,
                ..smtp::Options::clone(options)
            });
        }
        if self.may_tell() {
            let here = listen::is_this_machine(self.peer.address.ip());
            return Arc::new(smtp::Options {
                xclient: true,
                allow_plaintext_auth: options.allow_plaintext_auth && here,
                ..smtp::Options::clone(options)
            });
        }
        // What crosses no network needs no TLS.
        if self.peer.user.is_some() && self.role.is_submission() {
            return Arc::new(smtp::Options {
                allow_plaintext_auth: true,
                ..smtp::Options::clone(options)
            });
        }
        if options.allow_plaintext_auth && !listen::is_this_machine(self.peer.address.ip()) {
            return Arc::new(smtp::Options {
                allow_plaintext_auth: false,
                ..smtp::Options::clone(options)
            });
        }
        options.clone()
    }

    async fn converse(
        &mut self,
        server: &mut Server,
        wire: &mut Wire,
        mut shutdown: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let mut stopping = false;
        let mut pace = Pace::of(server);
        loop {
            server.refer_to(self.reference_now());
            let turn = self.turn(server, wire);
            self.hear_refused(server).await;
            self.note_unseen_login(server);
            match turn {
                Turn::Ask(question) => {
                    if takes_long(&question) || !self.ctx.filters.is_empty() {
                        self.flush(server, wire).await?;
                    }
                    self.answer(server, question).await;
                }
                Turn::Dropped => self.dropped().await,
                Turn::StartTls => {
                    let output = server.take_output();
                    Box::pin(self.handshake(wire, &output)).await?;
                    self.login = None;
                    server.tls_started();
                    self.name_channel(server);
                }
                Turn::Close => return self.flush(server, wire).await,
                Turn::Read => {
                    if self.has_to_spill() {
                        Box::pin(self.spill(server)).await;
                    }
                    self.flush(server, wire).await?;
                    if stopping && !server.is_receiving() {
                        server.close_with(&replies::SHUTTING_DOWN);
                        continue;
                    }
                    // A message that is coming in may come to its end.
                    if !server.is_receiving() && self.login_is_over().await {
                        server.refuse_and_close(&replies::LOGIN_OVER);
                        continue;
                    }
                    if !wire.input().is_empty() {
                        // It came in while we wrote.
                        continue;
                    }
                    let deadline = pace.deadline(server, &self.ctx.options);
                    let login = self.login.as_mut().filter(|_| !server.is_receiving());
                    let standing = login.map(|l| &mut l.standing);
                    let heard = hear(wire, server.is_receiving(), deadline, &mut shutdown, stopping);
                    let heard = tokio::select! {
                        biased;
                        () = unsettled(standing) => Heard::Unsettled,
                        heard = heard => heard?,
                    };
                    match heard {
                        Heard::Octets | Heard::Unsettled => {}
                        Heard::End => return Ok(()),
                        Heard::TimeOut => server.close_with(&pace.why_over(&self.ctx.options)),
                        Heard::Shutdown => stopping = true,
                    }
                }
            }
        }
    }

    /// Lets the machine go on with what was read, up to the next thing that has to be waited for.
    fn turn(&mut self, server: &mut Server, wire: &mut Wire) -> Turn {
        loop {
            let mut input = wire.input();
            let before = input.len();
            let turn = match server.step(&mut input) {
                Step::Chunk(octets) => {
                    self.take_chunk(server, octets);
                    None
                }
                Step::Read => Some(Turn::Read),
                Step::Ask(question) => Some(Turn::Ask(question)),
                Step::Dropped(_) => Some(Turn::Dropped),
                Step::StartTls => Some(Turn::StartTls),
                Step::Close => Some(Turn::Close),
            };
            let taken = before - input.len();
            wire.take(taken);
            if let Some(turn) = turn {
                return turn;
            }
        }
    }

    /// Answers a question of the machine. Each answer is on the heap while it is worked on, so that a
    /// session that waits does not hold room for it.
    async fn answer(&mut self, server: &mut Server, question: Question) {
        match question {
            Question::Authenticate {
                token,
                mechanism,
                request,
            } => {
                let answer = Box::pin(self.authenticate(mechanism, request)).await;
                server.authenticated(token, answer);
            }
            Question::Xclient { token, attributes } => {
                let verdict = self.told(&attributes).await;
                server.xclient(token, verdict);
            }
            Question::Sender { token, helo, mail } => {
                let verdict = Box::pin(self.sender(&helo, &mail)).await;
                server.sender(token, verdict);
            }
            Question::Recipient { token, rcpt } => {
                let verdict = Box::pin(self.recipient(&rcpt)).await;
                server.recipient(token, verdict);
            }
            Question::Begin { token, envelope } => {
                let verdict = self.begin(envelope);
                server.begin(token, verdict);
            }
            Question::Message { token, .. } => {
                if self.role == Role::Lmtp {
                    let replies = Box::pin(self.accept_for_each()).await;
                    return server.message_each(token, &replies);
                }
                let reply = Box::pin(self.accept()).await;
                server.message(token, &reply);
            }
        }
    }

    /// Whether the client is a mail server of the same operator, which has judged what it brings.
    pub(crate) fn was_judged_before(&self) -> bool {
        let networks = &self.ctx.options.unjudged_from;
        self.role == Role::Lmtp || networks.iter().any(|n| n.contains(self.ip()))
    }

    /// Whether the session had a login that has ended.
    pub(crate) async fn login_is_over(&mut self) -> bool {
        match &mut self.login {
            Some(login) => login.standing.is_over(&self.ctx.parts.directory).await,
            None => false,
        }
    }

    async fn handshake(&mut self, wire: &mut Wire, octets: &[u8]) -> io::Result<()> {
        let certificates = self.ctx.parts.certificates.as_ref();
        let certificates = certificates.ok_or_else(|| io::Error::other("there is no certificate"))?;
        let within = self.ctx.options.smtp.timeouts.handshake;
        let named = wire.start_tls(octets, certificates, within, self.role.is_submission());
        let (info, channel) = named.await?;
        self.tls = Some(info);
        self.channel = channel.as_ref().map(|c| c.channel.clone());
        self.certificate = channel.and_then(|c| c.certificate);
        Ok(())
    }

    /// Tells the machine what a login over this connection can be bound to.
    fn name_channel(&mut self, server: &mut Server) {
        if let Some(channel) = self.channel.take() {
            server.name_channel(channel);
        }
    }

    async fn flush(&mut self, server: &mut Server, wire: &mut Wire) -> io::Result<()> {
        // What the client reads now can be found from now on.
        self.hear_refused(server).await;
        let output = server.take_output();
        if output.is_empty() {
            return Ok(());
        }
        wire.write(&output, self.ctx.options.smtp.timeouts.write).await
    }
}

/// Whether the replies so far should not wait for the answer.
fn takes_long(question: &Question) -> bool {
    matches!(question, Question::Authenticate { .. } | Question::Message { .. })
}

/// Waits for octets, the deadline or the shutdown, whichever comes first.
async fn hear(
    wire: &mut Wire,
    in_message: bool,
    deadline: Instant,
    shutdown: &mut watch::Receiver<bool>,
    stopping: bool,
) -> io::Result<Heard> {
    tokio::select! {
        biased;
        () = stopped(shutdown), if !stopping => Ok(Heard::Shutdown),
        read = timeout_at(deadline, wire.read(in_message)) => match read {
            Err(_) => Ok(Heard::TimeOut),
            Ok(Ok(0)) => Ok(Heard::End),
            Ok(Ok(_)) => Ok(Heard::Octets),
            Ok(Err(e)) => Err(e),
        },
    }
}

/// A reply as octets.
pub(crate) fn written(reply: &Reply) -> Vec<u8> {
    let mut out = Vec::new();
    reply.write(&mut out);
    out
}

/// The service's name in logs and journeys.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Mta => "smtp",
        Role::Submission => "submission",
        Role::Submissions => "submissions",
        Role::Lmtp => "lmtp",
    }
}
