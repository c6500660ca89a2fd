//! One connection: reads, steps the session machine, answers its questions, writes.
//!
//! A short loop on purpose; what a question means stands in `login`, `mail_in` and `accept`.

use crate::Context;
use crate::listen::Io;
use crate::transaction::Transaction;
use judge::evidence::ConnectionEvidence;
use mail::{AccountId, EmailAddress};
use smtp::{Question, Role, Server, Step, replies};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// Octets read at once.
const READ_OCTETS: usize = 16 * 1024;
/// How long the end of a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Who logged in.
#[derive(Clone, Debug)]
pub(crate) struct LoggedIn {
    pub(crate) account: AccountId,
    pub(crate) address: EmailAddress,
}

/// A connection's own state.
pub(crate) struct Session {
    pub(crate) ctx: Arc<Context>,
    pub(crate) peer: SocketAddr,
    pub(crate) role: Role,
    pub(crate) tls: Option<tls::TlsInfo>,
    pub(crate) login: Option<LoggedIn>,
    pub(crate) auth_failures: u32,
    /// What the address alone tells; asked once, at the first sender.
    pub(crate) connection: Option<Arc<ConnectionEvidence>>,
    pub(crate) transaction: Option<Transaction>,
}

/// Why the loop goes round.
enum Heard {
    Octets(usize),
    End,
    TimeOut,
    Shutdown,
}

impl Session {
    pub(crate) fn new(ctx: Arc<Context>, peer: SocketAddr, role: Role) -> Self {
        Self {
            ctx,
            peer,
            role,
            tls: None,
            login: None,
            auth_failures: 0,
            connection: None,
            transaction: None,
        }
    }

    /// The client's address, as IPv4 where it is one.
    pub(crate) fn ip(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// Serves the connection to its end.
    pub(crate) async fn run(mut self, mut io: Box<dyn Io>, shutdown: watch::Receiver<bool>) {
        if self.role == Role::Submissions {
            match self.handshake(io).await {
                Ok(stream) => io = stream,
                Err(error) => return tracing::debug!(peer = %self.peer, %error, "no TLS"),
            }
        }
        let name = format!("{} {}", role_name(self.role), self.peer);
        let tap = self.ctx.tap.clone().map(|tap| (tap, name));
        let server = Server::new(self.ctx.smtp_options.clone(), self.role, self.tls.is_some(), tap);
        if let Err(error) = self.converse(server, io, shutdown).await {
            tracing::debug!(peer = %self.peer, %error, "the connection broke");
        }
        self.end_transaction("the client went away").await;
    }

    async fn converse(
        &mut self,
        mut server: Server,
        mut io: Box<dyn Io>,
        mut shutdown: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let mut buffer = vec![0u8; READ_OCTETS];
        let mut filled = 0;
        let mut stopping = false;
        let mut clock = (server.progress(), Instant::now() + server.timeout());
        loop {
            let mut input = &buffer[..filled];
            loop {
                match server.step(&mut input) {
                    Step::Read => break,
                    Step::Ask(question) => self.answer(&mut server, question).await,
                    Step::Chunk(octets) => self.take_chunk(&mut server, octets),
                    Step::Dropped(reply) => self.dropped(reply).await,
                    Step::StartTls => {
                        self.write(&mut io, &mut server).await?;
                        io = self.handshake(io).await?;
                        self.login = None;
                        server.tls_started();
                    }
                    Step::Close => {
                        self.write(&mut io, &mut server).await?;
                        let _ = timeout(CLOSE_TIMEOUT, io.shutdown()).await;
                        return Ok(());
                    }
                }
            }
            self.write(&mut io, &mut server).await?;
            if server.progress() != clock.0 {
                clock = (server.progress(), Instant::now() + server.timeout());
            }
            if stopping && !server.is_receiving() {
                server.close_with(&replies::SHUTTING_DOWN);
                filled = 0;
                continue;
            }
            filled = match hear(&mut io, &mut buffer, clock.1, &mut shutdown, stopping).await? {
                Heard::Octets(n) => n,
                Heard::End => return Ok(()),
                Heard::TimeOut => {
                    server.close_with(&replies::TIMED_OUT);
                    0
                }
                Heard::Shutdown => {
                    stopping = true;
                    0
                }
            };
        }
    }

    /// Answers a question of the machine.
    async fn answer(&mut self, server: &mut Server, question: Question) {
        match question {
            Question::Authenticate {
                token, credentials, ..
            } => {
                let verdict = self.authenticate(credentials).await;
                server.authenticated(token, verdict);
            }
            Question::Sender { token, helo, mail } => {
                let verdict = self.sender(&helo, &mail).await;
                server.sender(token, verdict);
            }
            Question::Recipient { token, rcpt } => {
                let verdict = self.recipient(&rcpt).await;
                server.recipient(token, verdict);
            }
            Question::Begin { token, envelope } => {
                let verdict = self.begin(envelope);
                server.begin(token, verdict);
            }
            Question::Message { token, .. } => {
                let reply = self.accept().await;
                server.message(token, &reply);
            }
        }
    }

    async fn handshake(&mut self, io: Box<dyn Io>) -> io::Result<Box<dyn Io>> {
        let certificates = self.ctx.parts.certificates.as_ref();
        let certificates = certificates.ok_or_else(|| io::Error::other("there is no certificate"))?;
        let acceptor = tokio_rustls::TlsAcceptor::from(certificates.server_config());
        let limit = self.ctx.options.smtp.timeouts.handshake;
        let stream = timeout(limit, acceptor.accept(io))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.tls = Some(tls::describe(stream.get_ref().1));
        Ok(Box::new(stream))
    }

    async fn write(&self, io: &mut Box<dyn Io>, server: &mut Server) -> io::Result<()> {
        let output = server.take_output();
        if output.is_empty() {
            return Ok(());
        }
        let write = async {
            io.write_all(&output).await?;
            io.flush().await
        };
        let limit = self.ctx.options.smtp.timeouts.write;
        timeout(limit, write)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

/// Waits for octets, the deadline or the shutdown, whichever comes first.
async fn hear(
    io: &mut Box<dyn Io>,
    buffer: &mut [u8],
    deadline: Instant,
    shutdown: &mut watch::Receiver<bool>,
    stopping: bool,
) -> io::Result<Heard> {
    tokio::select! {
        biased;
        _ = shutdown.wait_for(|stop| *stop), if !stopping => Ok(Heard::Shutdown),
        read = timeout_at(deadline, io.read(buffer)) => match read {
            Err(_) => Ok(Heard::TimeOut),
            Ok(Ok(0)) => Ok(Heard::End),
            Ok(Ok(n)) => Ok(Heard::Octets(n)),
            // A peer that closes without close_notify has ended all the same.
            Ok(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(Heard::End),
            Ok(Err(e)) => Err(e),
        },
    }
}

/// The service's name in logs and journeys.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Mta => "smtp",
        Role::Submission => "submission",
        Role::Submissions => "submissions",
    }
}
