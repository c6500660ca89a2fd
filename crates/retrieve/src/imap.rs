//! The IMAP driver: reads, writes, and answers the questions of an `imap` session.
//!
//! Promises: what is told as done is durable; a big FETCH is written as fast as the client reads
//! and no faster; a client in IDLE hears of news at once. Never: more than one message in memory.

mod append;
mod fetch;
mod folders;
mod refuse;
mod search;
mod selected;

use crate::connection::Connection;
use crate::{Context, Direction};
use ::imap::session::{Task, ask};
use ::imap::{Code, Event, Refusal, Session, Ticket};
use listen::{Asked, Asker, FailureDelay, Login, Standing};
use mail::{AccountId, EmailAddress};
use sasl::{Answer, Request};
use selected::Selected;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Serves one connection.
pub(crate) async fn run(ctx: Arc<Context>, connection: Connection, shutdown: watch::Receiver<bool>) {
    let options = ::imap::Options {
        hostname: ctx.options.hostname.clone(),
        append_octets_max: ctx.options.message_octets_max,
        allow_plaintext_login: ctx.may_log_in_plain(connection.peer()),
        mechanisms: ctx.options.mechanisms,
        starttls: ctx.tls.is_some(),
        ..::imap::Options::default()
    };
    let mut session = Session::new(options, connection.tls().is_some());
    if let Some(channel) = connection.channel() {
        session.name_channel(channel);
    }
    if ctx.tap.is_some() {
        session.keep_transcript();
    }
    let peer = connection.peer();
    let driver = Driver {
        login_by: connection.opened() + ctx.options.login_timeout,
        failure_delay: FailureDelay::new(ctx.options.auth_failure_delay),
        ctx,
        session,
        shutdown,
        user: None,
        selected: None,
        incoming: None,
    };
    if let Err(error) = driver.run(connection).await {
        tracing::debug!(%peer, %error, "imap: the connection broke");
    }
}

/// The last word to a session whose login has ended.
const LOGIN_OVER: &str = "Your login has ended, log in again";

/// Who is logged in.
struct User {
    account: AccountId,
    address: EmailAddress,
    standing: Standing,
}

struct Driver {
    ctx: Arc<Context>,
    session: Session,
    shutdown: watch::Receiver<bool>,
    /// When a connection that is not logged in ends.
    login_by: Instant,
    failure_delay: FailureDelay,
    user: Option<User>,
    selected: Option<Selected>,
    /// The message of an APPEND that is coming.
    incoming: Option<append::Incoming>,
}

/// Why waiting ended.
enum Woken {
    Input(Vec<u8>),
    News,
    /// Something happened to the account.
    Unsettled,
    Shutdown,
    Timeout,
}

impl Driver {
    async fn run(mut self, mut connection: Connection) -> io::Result<()> {
        loop {
            let event = self.session.step();
            self.show(&connection);
            if let Some(unseen) = self.session.take_unseen() {
                self.ctx
                    .note_unseen(&connection, directory::Protocol::Imap, unseen);
            }
            match event {
                Event::NeedInput => {
                    connection.write(&self.session.take_output()).await?;
                    if !self.wait(&mut connection).await? {
                        break;
                    }
                }
                Event::Flush => connection.write(&self.session.take_output()).await?,
                Event::StartTls => {
                    connection.write(&self.session.take_output()).await?;
                    let within = self.login_by.saturating_duration_since(Instant::now());
                    connection = connection.start_tls(within).await.map_err(io::Error::other)?;
                    self.session.tls_started();
                    if let Some(channel) = connection.channel() {
                        self.session.name_channel(channel);
                    }
                }
                Event::Close | Event::Waiting => {
                    connection.write(&self.session.take_output()).await?;
                    break;
                }
                _ if self.login_is_over().await => self.session.bye(LOGIN_OVER),
                // Boxed, so that a connection that waits does not hold room for all of this.
                event => Box::pin(self.answer(&mut connection, event)).await?,
            }
        }
        connection.close().await;
        Ok(())
    }

    /// Waits for input or for a reason to speak; false when the client has closed.
    async fn wait(&mut self, connection: &mut Connection) -> io::Result<bool> {
        let deadline = match self.session.is_logged_in() {
            true => Instant::now() + self.ctx.options.imap_idle_timeout,
            false => self.login_by,
        };
        let news = async {
            match &mut self.selected {
                Some(selected) if self.session.is_idle() => {
                    if !selected.watch.changed().await {
                        std::future::pending::<()>().await;
                    }
                }
                _ => std::future::pending().await,
            }
        };
        let woken = tokio::select! {
            biased;
            () = listen::stopped(&mut self.shutdown) => Woken::Shutdown,
            () = listen::unsettled(self.user.as_mut().map(|u| &mut u.standing)) => Woken::Unsettled,
            read = connection.read() => Woken::Input(read?),
            () = news => Woken::News,
            () = tokio::time::sleep_until(deadline) => Woken::Timeout,
        };
        match woken {
            Woken::Input(octets) if octets.is_empty() => return Ok(false),
            Woken::Input(octets) => self.session.feed(&octets),
            Woken::News => {
                if let Some(selected) = &mut self.selected {
                    selected.woke();
                }
                Box::pin(self.sync()).await;
                self.session.tell_news();
            }
            Woken::Unsettled => {
                if self.login_is_over().await {
                    self.session.bye(LOGIN_OVER);
                }
            }
            Woken::Shutdown => self.session.bye("The server is going down"),
            Woken::Timeout => self.session.bye("Too long without a word"),
        }
        Ok(true)
    }

    /// Whether the session had a login that has ended.
    async fn login_is_over(&mut self) -> bool {
        match &mut self.user {
            Some(user) => user.standing.is_over(&self.ctx.directory).await,
            None => false,
        }
    }

    /// Shows the tap what the client said.
    fn show(&mut self, connection: &Connection) {
        let lines = self.session.take_transcript();
        if !lines.is_empty() {
            connection.show(Direction::Client, &lines);
        }
    }

    async fn answer(&mut self, connection: &mut Connection, event: Event) -> io::Result<()> {
        match event {
            Event::Login {
                ticket,
                mechanism,
                request,
            } => {
                let asker = connection.asker(directory::Protocol::Imap, mechanism);
                let answer = self.login(asker, request).await;
                self.session.login(ticket, answer);
            }
            Event::Select {
                ticket,
                mailbox,
                read_only,
            } => self.select(ticket, mailbox.as_str(), read_only).await,
            Event::List(ticket) => self.list(ticket).await,
            Event::Status { ticket, mailbox } => self.status(ticket, mailbox.as_str()).await,
            Event::Search { ticket, key } => self.search(ticket, key).await,
            Event::Copy {
                ticket,
                targets,
                mailbox,
                is_move,
            } => {
                self.copy(ticket, targets, mailbox.as_str(), is_move).await;
            }
            Event::Append { ticket, head, octets } => self.append_begins(ticket, head, octets).await,
            Event::AppendChunk(octets) => self.append_goes_on(&octets).await,
            Event::AppendEnd(ticket) => self.append_ends(ticket).await,
            Event::AppendBroken => self.incoming = None,
            Event::Task { ticket, task } => self.task(connection, ticket, task).await?,
            // Handled where it came from.
            Event::NeedInput | Event::Flush | Event::Waiting | Event::StartTls | Event::Close => {}
        }
        Ok(())
    }

    async fn login(&mut self, asker: Asker, request: Request) -> Answer<(), Refusal> {
        let login = match self.ctx.ask(asker, request).await {
            Asked::Salted(salted) => return Answer::Salted(salted),
            Asked::Login(login) => login,
        };
        self.failure_delay.after(&login).await;
        Answer::Refused(match login {
            Login::Accepted {
                account,
                address,
                credential,
                signature,
            } => {
                let standing = Standing::new(&self.ctx.directory, account, credential);
                self.user = Some(User {
                    account,
                    address,
                    standing,
                });
                return Answer::Accepted((), signature);
            }
            Login::AppPasswordRequired => Refusal::new(
                Code::AuthenticationFailed,
                "An app password is needed: this account has a second factor, and the main password does not open mail programs",
            ),
            Login::Rejected => Refusal::new(Code::AuthenticationFailed, "Wrong user name or password"),
            Login::TooManyFailures => {
                Refusal::new(Code::Unavailable, "Too many failed logins, try again later")
            }
            Login::Unavailable => Refusal::unavailable(),
        })
    }

    async fn task(
        &mut self,
        connection: &mut Connection,
        ticket: Ticket<ask::Task>,
        task: Task,
    ) -> io::Result<()> {
        let outcome = match task {
            Task::Sync => Ok(()),
            Task::Fetch {
                targets,
                items,
                may_set_seen,
            } => {
                // What stands before the responses goes out first.
                connection.write(&self.session.take_output()).await?;
                match self.fetch(connection, targets, items, may_set_seen).await? {
                    Ok(fetch::Fetched::All) => Ok(()),
                    Ok(fetch::Fetched::SomeGone) => {
                        self.sync().await;
                        self.session.done_partly(ticket);
                        return Ok(());
                    }
                    Ok(fetch::Fetched::SomeUnreadable) => Err(Refusal::new(
                        Code::ServerBug,
                        "Some of the messages cannot be read",
                    )),
                    Err(refusal) => Err(refusal),
                }
            }
            Task::Store {
                targets,
                mode,
                silent,
                flags,
            } => self.store(targets, mode, silent, &flags).await,
            Task::Expunge(targets) => self.expunge(targets).await,
            Task::Deselect { expunge } => self.deselect(expunge).await,
            other => self.change_folders(other).await,
        };
        match outcome {
            Ok(()) => {
                // NOOP, and every other answer, carries what others changed (RFC 3501 §5.2).
                self.sync().await;
                self.session.done(ticket);
            }
            Err(refusal) => self.session.refuse(ticket, refusal),
        }
        Ok(())
    }
}

/// How long a step may keep the thread to itself before others get a turn.
const TURN: Duration = Duration::from_millis(5);
