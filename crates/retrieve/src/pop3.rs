//! The POP3 driver: one account's INBOX as a maildrop, locked for one session at a time.
//!
//! Promises: what a session sees is the INBOX of the moment of its login; a deletion happens at QUIT
//! alone and is on stable storage before `+OK`; a message that breaks off ends the connection, so
//! that half of it is never taken for the whole.

use crate::pop3_tap::ClientLines;
use crate::{Connection, Context, fetched};
use ::pop3::{Entry, LoginRefusal, Maildrop, MessageToken, Question, Session, Step};
use directory::Credential;
use listen::{Asked, Asker, FailureDelay, Login, Standing, unsettled};
use mail::{AccountId, EmailAddress, Uid};
use mailbox::{ExpungeWhich, Place, Role};
use sasl::{Answer, Request};
use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Messages of a maildrop at most; newer ones are shown once older ones are gone.
const MESSAGES_MAX: usize = 1_000_000;
/// Entries that are read from the store at once.
const ENTRIES_AT_ONCE: usize = 1_000;
/// Octets of a message that are in memory at once.
const PIECE_OCTETS: u64 = 64 * 1024;

/// The maildrops that are open, by account (RFC 1939 §4: an exclusive lock).
#[derive(Default)]
pub(crate) struct Maildrops(Arc<Mutex<HashSet<AccountId>>>);

/// An open maildrop, until it is dropped.
struct Lock {
    open: Arc<Mutex<HashSet<AccountId>>>,
    account: AccountId,
}

impl Maildrops {
    fn lock(&self, account: AccountId) -> Option<Lock> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(account).then(|| Lock {
            open: Arc::clone(&self.0),
            account,
        })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.account);
    }
}

/// What a login opened.
struct Opened {
    account: AccountId,
    address: EmailAddress,
    place: Place,
    /// By the maildrop's index.
    uids: Vec<Uid>,
    standing: Standing,
    _lock: Lock,
}

/// Serves one connection.
pub(crate) async fn run(ctx: Arc<Context>, connection: Connection, shutdown: watch::Receiver<bool>) {
    let options = ::pop3::Options {
        host_name: ctx.options.hostname.clone(),
        mechanisms: ctx.options.mechanisms,
        stls_offered: ctx.tls.is_some(),
        login_without_tls: ctx.may_log_in_plain(connection.peer()),
        login_timeout: ctx.options.login_timeout,
        idle_timeout: ctx.options.pop3_idle_timeout,
        ..::pop3::Options::default()
    };
    let mut session = Session::new(options, connection.tls().is_some());
    if let Some(channel) = connection.channel() {
        session.name_channel(channel);
    }
    let peer = connection.peer();
    let driver = Driver {
        login_by: connection.opened() + ctx.options.login_timeout,
        failure_delay: FailureDelay::new(ctx.options.auth_failure_delay),
        ctx,
        session,
        opened: None,
        lines: ClientLines::default(),
    };
    if let Err(error) = driver.drive(connection, shutdown).await {
        tracing::debug!(%peer, %error, "a POP3 connection broke");
    }
}

struct Driver {
    ctx: Arc<Context>,
    session: Session,
    opened: Option<Opened>,
    lines: ClientLines,
    login_by: Instant,
    failure_delay: FailureDelay,
}

impl Driver {
    async fn drive(
        mut self,
        mut connection: Connection,
        mut shutdown: watch::Receiver<bool>,
    ) -> io::Result<()> {
        loop {
            let step = self.session.step();
            if let Some(unseen) = self.session.take_unseen() {
                self.ctx
                    .note_unseen(&connection, directory::Protocol::Pop3, unseen);
            }
            match step {
                Step::Flush => self.flush(&mut connection).await?,
                Step::NeedInput => {
                    self.flush(&mut connection).await?;
                    let read_by = self.read_by();
                    let standing = self.opened.as_mut().map(|o| &mut o.standing);
                    let read = tokio::select! {
                        biased;
                        () = listen::stopped(&mut shutdown) => None,
                        () = unsettled(standing) => {
                            self.end_login_if_over().await;
                            continue;
                        }
                        read = timeout_at(read_by, connection.read()) => read.ok(),
                    };
                    // At shutdown and after silence: without a word, and without removing anything
                    // (RFC 1939 §3).
                    let Some(read) = read else { break };
                    let octets = read?;
                    if octets.is_empty() {
                        break;
                    }
                    self.lines.show(&connection, &octets);
                    self.session.receive(&octets);
                }
                Step::StartTls => {
                    self.flush(&mut connection).await?;
                    let within = self.login_by.saturating_duration_since(Instant::now());
                    connection = connection.start_tls(within).await.map_err(io::Error::other)?;
                    self.session.tls_started();
                    if let Some(channel) = connection.channel() {
                        self.session.name_channel(channel);
                    }
                }
                Step::Close => {
                    self.flush(&mut connection).await?;
                    break;
                }
                // Of commands that came in one go, those behind the end of the login are refused.
                Step::Ask(_) if self.end_login_if_over().await => {}
                Step::Ask(question) => self.answer(question, &mut connection).await?,
            }
        }
        // Not kept while the client's end is waited for.
        self.opened = None;
        connection.close().await;
        Ok(())
    }

    fn read_by(&self) -> Instant {
        if self.session.is_logged_in() {
            Instant::now() + self.session.timeout()
        } else {
            self.login_by
        }
    }

    /// Tells the session when its login has ended; whether it has. The maildrop is given back.
    async fn end_login_if_over(&mut self) -> bool {
        let Some(opened) = &mut self.opened else {
            return false;
        };
        if !opened.standing.is_over(&self.ctx.directory).await {
            return false;
        }
        self.opened = None;
        self.session.login_ended();
        true
    }

    async fn flush(&mut self, connection: &mut Connection) -> io::Result<()> {
        let output = self.session.take_output();
        connection.write(&output).await
    }

    async fn answer(&mut self, question: Question, connection: &mut Connection) -> io::Result<()> {
        match question {
            Question::Login {
                token,
                mechanism,
                request,
            } => {
                let asker = connection.asker(directory::Protocol::Pop3, mechanism);
                let answer = self.log_in(asker, request).await;
                self.session.login(token, answer);
            }
            Question::Message { token, index } => self.send(token, index, connection).await?,
            Question::Commit { token, deleted } => {
                let removed = self.remove(&deleted).await;
                // The lock goes first: whoever reads the farewell may log in again at once.
                self.opened = None;
                self.session.committed(token, removed);
            }
        }
        Ok(())
    }

    async fn log_in(&mut self, asker: Asker, request: Request) -> Answer<Maildrop, LoginRefusal> {
        // Of an exchange that the client broke off at its end.
        self.opened = None;
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
            } => match self.open_maildrop(account, address, credential).await {
                Ok(maildrop) => return Answer::Accepted(maildrop, signature),
                Err(refusal) => refusal,
            },
            Login::AppPasswordRequired => LoginRefusal::NeedsAppPassword,
            Login::Rejected => LoginRefusal::WrongCredentials,
            Login::TooManyFailures => {
                let why = "too many failed logins from your address; wait some minutes";
                LoginRefusal::Forbidden(why.to_owned())
            }
            Login::Unavailable => LoginRefusal::Unavailable,
        })
    }

    async fn open_maildrop(
        &mut self,
        account: AccountId,
        address: EmailAddress,
        credential: Credential,
    ) -> Result<Maildrop, LoginRefusal> {
        let lock = self.ctx.maildrops.lock(account).ok_or(LoginRefusal::InUse)?;
        match open(&self.ctx, account).await {
            Ok((place, maildrop)) => {
                self.opened = Some(Opened {
                    account,
                    address,
                    place,
                    uids: maildrop.entries.iter().map(|e| e.uid).collect(),
                    standing: Standing::new(&self.ctx.directory, account, credential),
                    _lock: lock,
                });
                Ok(maildrop)
            }
            Err(error) => {
                tracing::error!(%address, %error, "the INBOX could not be read");
                Err(LoginRefusal::Unavailable)
            }
        }
    }

    async fn send(
        &mut self,
        token: MessageToken,
        index: usize,
        connection: &mut Connection,
    ) -> io::Result<()> {
        let Some(opened) = &self.opened else {
            self.session.refuse_message(token);
            return Ok(());
        };
        let Some(uid) = opened.uids.get(index).copied() else {
            self.session.refuse_message(token);
            return Ok(());
        };
        let whole = token.is_whole();
        let mailboxes = &self.ctx.mailboxes;
        let first = async {
            let entry = mailboxes.entry(opened.place, uid).await?;
            let entry = entry.ok_or(mailbox::Error::NoSuchMailbox)?;
            let piece = mailboxes.read(&entry, 0..PIECE_OCTETS).await?;
            Ok::<_, mailbox::Error>((entry, piece))
        };
        let (entry, mut piece) = match first.await {
            Ok(first) => first,
            Err(error) => {
                // Gone by another session's hand, or damaged: the rest stays served.
                match &error {
                    mailbox::Error::NoSuchMailbox => {}
                    _ => {
                        tracing::error!(address = %opened.address, %uid, %error, "a message could not be read")
                    }
                }
                self.session.refuse_message(token);
                return Ok(());
            }
        };
        let mut writer = self.session.begin_message(token);
        let mut at = 0;
        loop {
            self.session.message_piece(&mut writer, &piece);
            let output = self.session.take_output();
            connection.write(&output).await?;
            at += piece.len() as u64;
            if at >= entry.size() || piece.is_empty() || writer.is_satisfied() {
                break;
            }
            let read = mailboxes.read(&entry, at..at + PIECE_OCTETS).await;
            piece = read.map_err(|error| {
                // It has begun: all that is left is to end the connection in the middle of it.
                tracing::error!(address = %opened.address, %uid, %error, "a message could not be read to its end");
                io::Error::other(error)
            })?;
        }
        if at < entry.size() && !writer.is_satisfied() {
            return Err(io::Error::other("the message is shorter than its entry says"));
        }
        self.session.end_message(writer);
        if whole {
            let Opened {
                account,
                address,
                place,
                ..
            } = opened;
            fetched::note(&self.ctx, *place, *account, address, "pop3", &[&entry]).await;
        }
        Ok(())
    }

    /// Removes messages durably; whether all of them are gone.
    async fn remove(&self, deleted: &[usize]) -> bool {
        let Some(opened) = &self.opened else {
            return deleted.is_empty();
        };
        let uids: Vec<Uid> = deleted
            .iter()
            .filter_map(|i| opened.uids.get(*i).copied())
            .collect();
        if uids.is_empty() {
            return true;
        }
        let removed = self
            .ctx
            .mailboxes
            .expunge(opened.place, &uids, ExpungeWhich::All)
            .await;
        match removed {
            Ok(expunged) => {
                tracing::info!(address = %opened.address, messages = expunged.uids.len(), "removed by POP3");
                true
            }
            Err(error) => {
                tracing::error!(address = %opened.address, %error, "messages could not be removed");
                false
            }
        }
    }
}

/// The INBOX as it is now.
async fn open(ctx: &Context, account: AccountId) -> Result<(Place, Maildrop), mailbox::Error> {
    let now = ctx.clock.now();
    let inbox = ctx.mailboxes.find_or_create(account, Role::Inbox, now).await?;
    let place = inbox.place();
    let mut entries: Vec<Entry> = Vec::new();
    let mut from = Uid(1);
    loop {
        let page = ctx.mailboxes.entries(place, from, ENTRIES_AT_ONCE).await?;
        let next = page.last().and_then(|e| e.uid.0.checked_add(1));
        entries.extend(page.iter().map(|e| Entry {
            uid: e.uid,
            octets: e.size(),
        }));
        match next {
            Some(next) if entries.len() < MESSAGES_MAX => from = Uid(next),
            _ => break,
        }
    }
    entries.truncate(MESSAGES_MAX);
    Ok((
        place,
        Maildrop {
            uid_validity: inbox.uid_validity,
            entries,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maildrop_is_open_once() {
        let maildrops = Maildrops::default();
        let first = maildrops.lock(AccountId(1)).unwrap();
        assert!(maildrops.lock(AccountId(1)).is_none());
        assert!(maildrops.lock(AccountId(2)).is_some());
        drop(first);
        assert!(maildrops.lock(AccountId(1)).is_some());
    }
}
