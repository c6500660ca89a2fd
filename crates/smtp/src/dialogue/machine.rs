//! A peer that is the server session alone, with a small table in place of a directory and a store.
//!
//! Facts that it knows:
//! `given hostname N`, `given role mta|submission|submissions|lmtp`, `given account A`,
//! `given account A with password P`, `given account A with password P and a second factor`,
//! `given limit NAME N` (size, discard, recipients, errors, deferrals, logins, commands, messages,
//! line, patience in seconds), `given mechanisms M …`, `given token T of A`,
//! `given client certificate of A`, `given no certificate`, `given logins in clear are allowed`,
//! `given XCLIENT is allowed`, `given the disk is full`, `given messages need no author`;
//! `meanwhile account A is removed`, `meanwhile the client is silent for too long`,
//! `meanwhile the server shuts down`;
//! `then nothing was accepted`, `then N messages were accepted`, `then A has N messages`,
//! `then a message holds TEXT`, `then no message holds TEXT`, `then the queue is empty`.

use super::Peer;
use crate::command::{MailFrom, RcptTo};
use crate::replies;
use crate::reply::Reply;
use crate::server::{Envelope, Options, Question, Role, Server, Step};
use mail::{QueueId, Recipient, Secret, Timestamp};
use sasl::{Answer, Channel, Keys, Mechanism, Request, Salted, ServerSignature};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The salt of every account.
const SALT: &[u8] = b"sixteen octets..";
/// As few as make a test quick.
const ITERATIONS: u32 = 2;

struct Account {
    password: Option<String>,
    second_factor: bool,
}

/// The session machine with a table-driven driver.
pub struct MachinePeer {
    options: Options,
    role: Role,
    server: Option<Server>,
    accounts: BTreeMap<String, Account>,
    /// Token to account.
    tokens: BTreeMap<String, String>,
    /// Whom the client's certificate names.
    certificate: Option<String>,
    disk_full: bool,
    envelope: Option<Envelope>,
    body: Vec<u8>,
    accepted: Vec<(Envelope, Vec<u8>)>,
    /// Octets that each call of the machine is given at most.
    piece: usize,
    /// What the server said and nobody has read yet.
    said: Vec<u8>,
    handshake: bool,
    closed: bool,
}

impl MachinePeer {
    /// A peer whose machine is given input in pieces of at most `piece` octets.
    #[must_use]
    pub fn new(piece: usize) -> Self {
        Self {
            options: Options::new("mail.example.com"),
            role: Role::Mta,
            server: None,
            accounts: BTreeMap::new(),
            tokens: BTreeMap::new(),
            certificate: None,
            disk_full: false,
            envelope: None,
            body: Vec::new(),
            accepted: Vec::new(),
            piece: piece.max(1),
            said: Vec::new(),
            handshake: false,
            closed: false,
        }
    }

    fn feed(&mut self, mut input: &[u8]) {
        let mut server = self.server.take().unwrap_or_else(|| {
            let tls = self.role == Role::Submissions;
            let mut server = Server::new(Arc::new(self.options.clone()), self.role, tls, None);
            server.begins_at(Timestamp::from_secs(1_700_000_000));
            if tls {
                server.name_channel(self.channel());
            }
            server
        });
        loop {
            match server.step(&mut input) {
                Step::Read => break,
                Step::Ask(question) => self.answer(&mut server, question),
                Step::Chunk(octets) => self.body.extend_from_slice(octets),
                Step::Dropped(_) => {
                    self.envelope = None;
                    self.body.clear();
                }
                Step::StartTls => {
                    self.handshake = true;
                    break;
                }
                Step::Close => {
                    self.closed = true;
                    break;
                }
            }
        }
        self.said.extend(server.take_output());
        self.server = Some(server);
    }

    fn answer(&mut self, server: &mut Server, question: Question) {
        match question {
            Question::Authenticate { token, request, .. } => {
                server.authenticated(token, self.login(request));
            }
            Question::Xclient { token, .. } => server.xclient(token, Ok(None)),
            Question::Sender { token, mail, .. } => {
                let verdict = self.may_send(server.login(), &mail);
                server.sender(token, verdict);
            }
            Question::Recipient { token, rcpt } => {
                let verdict = self.may_receive(server.login(), &rcpt);
                server.recipient(token, verdict);
            }
            Question::Begin { token, envelope } => {
                self.envelope = Some(envelope);
                server.begin(token, Ok(()));
            }
            Question::Message { token, .. } => {
                let body = std::mem::take(&mut self.body);
                match self.envelope.take() {
                    Some(_) if self.disk_full => server.message(token, &replies::DISK_FULL),
                    Some(envelope) if self.role == Role::Lmtp => {
                        server.message_each(token, &self.accept_each(envelope, body));
                    }
                    Some(envelope) => {
                        self.accepted.push((envelope, body));
                        server.message(token, &replies::queued(QueueId(self.accepted.len() as u64)));
                    }
                    None => server.message(token, &replies::INTERNAL_ERROR),
                }
            }
        }
    }

    /// LMTP: takes the message for those who are still there, and answers for each.
    fn accept_each(&mut self, mut envelope: Envelope, body: Vec<u8>) -> Vec<Reply> {
        let id = QueueId(self.accepted.len() as u64 + 1);
        let verdict = |recipient: &Recipient| match recipient {
            Recipient::Address(a) if !self.accounts.contains_key(&a.folded()) => replies::unknown_user(a),
            _ => replies::queued(id),
        };
        let answers: Vec<Reply> = envelope.recipients.iter().map(verdict).collect();
        let mut good = answers.iter().map(Reply::is_positive);
        envelope.recipients.retain(|_| good.next().unwrap_or(false));
        if !envelope.recipients.is_empty() {
            self.accepted.push((envelope, body));
        }
        answers
    }

    fn login(&self, request: Request) -> Answer<String, Reply> {
        match request {
            Request::Password(credentials) => self.open(&credentials.login, |password| {
                (password == credentials.password.expose()).then_some(None)
            }),
            Request::Salt { .. } => Answer::Salted(Salted {
                salt: SALT.to_vec(),
                iterations: ITERATIONS,
                nonce: "theserverspart".to_owned(),
            }),
            Request::Proof { user, proof, .. } => self.open(&user, |password| {
                let keys = Keys::derive(proof.hash, &Secret::new(password), SALT, ITERATIONS);
                proof.verify(&keys).map(Some)
            }),
            Request::Token(bearer) => match self.tokens.get(bearer.token.expose()) {
                Some(account) if bearer.user.as_ref().is_none_or(|user| user == account) => {
                    Answer::Accepted(account.clone(), None)
                }
                _ => Answer::Refused(replies::TOKEN_REFUSED),
            },
            Request::Certificate { authorization } => match &self.certificate {
                Some(account) if authorization.as_ref().is_none_or(|user| user == account) => {
                    Answer::Accepted(account.clone(), None)
                }
                _ => Answer::Refused(replies::AUTH_FAILED),
            },
        }
    }

    fn open(
        &self,
        user: &str,
        is_right: impl Fn(&str) -> Option<Option<ServerSignature>>,
    ) -> Answer<String, Reply> {
        let account = self.accounts.get(user);
        let password = account.and_then(|a| a.password.as_deref());
        match (password.and_then(is_right), account) {
            (Some(_), Some(account)) if account.second_factor => {
                Answer::Refused(replies::APP_PASSWORD_NEEDED)
            }
            (Some(signature), _) => Answer::Accepted(user.to_owned(), signature),
            (None, _) => Answer::Refused(replies::AUTH_FAILED),
        }
    }

    fn may_send(&self, login: Option<&str>, mail: &MailFrom) -> Result<(), Reply> {
        match (login, mail.path.address()) {
            (Some(login), Some(sender)) if sender.folded() != login => {
                Err(replies::sender_not_yours(sender, login))
            }
            _ => Ok(()),
        }
    }

    fn may_receive(&self, login: Option<&str>, rcpt: &RcptTo) -> Result<(), Reply> {
        let Recipient::Address(address) = &rcpt.recipient else {
            return Ok(());
        };
        let folded = address.folded();
        if self.accounts.contains_key(&folded) || login.is_some() {
            return Ok(());
        }
        let suffix = format!("@{}", address.host());
        if self.accounts.keys().any(|a| a.ends_with(&suffix)) {
            Err(replies::unknown_user(address))
        } else {
            Err(replies::relaying_denied(address.host()))
        }
    }

    fn limit(&mut self, name: &str, n: u64) -> Result<(), String> {
        let options = &mut self.options;
        match name {
            "size" => options.size_max_octets = n,
            "discard" => options.discard_max_octets = n,
            "recipients" => options.recipients_max = n as usize,
            "deferrals" => options.deferrals_max = n as usize,
            "errors" => options.errors_max = n as u32,
            "logins" => options.auth_failures_max = n as u32,
            "commands" => options.idle_commands_max = n as u32,
            "messages" => options.messages_max = n as u32,
            "patience" => options.timeouts.command = std::time::Duration::from_secs(n),
            "line" => options.data_line_octets_max = Some(n as usize),
            _ => return Err(format!("no limit is called {name:?}")),
        }
        Ok(())
    }

    fn delivered_to(&self, address: &str) -> usize {
        let is_there = |r: &Recipient| match r {
            Recipient::Address(a) => a.folded() == address,
            Recipient::Postmaster => address == "postmaster",
        };
        self.accepted
            .iter()
            .filter(|(envelope, _)| envelope.recipients.iter().any(is_there))
            .count()
    }
}

impl Peer for MachinePeer {
    fn given(&mut self, fact: &str) -> Result<(), String> {
        if self.server.is_some() {
            return Err("everything given must stand before the conversation".to_owned());
        }
        let words: Vec<&str> = fact.split(' ').collect();
        match words[..] {
            ["hostname", name] => self.options.hostname = name.to_owned(),
            ["role", "mta"] => self.role = Role::Mta,
            ["role", "submission"] => self.role = Role::Submission,
            ["role", "submissions"] => self.role = Role::Submissions,
            ["role", "lmtp"] => self.role = Role::Lmtp,
            ["limit", name, n] => {
                let n = n.parse().map_err(|_| format!("not a number: {n}"))?;
                return self.limit(name, n);
            }
            ["XCLIENT", "is", "allowed"] => self.options.xclient = true,
            // Only a whole server looks at it.
            ["messages", "need", "no", "author"] => {}
            ["no", "certificate"] => self.options.offer_starttls = false,
            ["logins", "in", "clear", "are", "allowed"] => self.options.allow_plaintext_auth = true,
            ["mechanisms", ref names @ ..] => {
                let all = names.iter().map(|name| Mechanism::parse(name));
                let all: Option<_> = all.collect();
                self.options.mechanisms = all.ok_or_else(|| format!("unknown mechanism: {fact}"))?;
            }
            ["token", token, "of", account] => {
                self.tokens.insert(token.to_owned(), account.to_owned());
            }
            ["client", "certificate", "of", account] => self.certificate = Some(account.to_owned()),
            ["the", "disk", "is", "full"] => self.disk_full = true,
            ["account", address, ref rest @ ..] => {
                let (password, second_factor) = match *rest {
                    [] => (None, false),
                    ["with", "password", p] => (Some(p.to_owned()), false),
                    ["with", "password", p, "and", "a", "second", "factor"] => (Some(p.to_owned()), true),
                    _ => return Err(format!("unknown fact: {fact}")),
                };
                let account = Account {
                    password,
                    second_factor,
                };
                self.accounts.insert(address.to_owned(), account);
            }
            _ => return Err(format!("unknown fact: {fact}")),
        }
        Ok(())
    }

    fn send(&mut self, octets: &[u8]) -> Result<(), String> {
        if self.handshake {
            return Err("the server waits for the TLS handshake".to_owned());
        }
        // A driver sees what arrived together together; only then can a client that does not wait
        // be told from one that does. So pieces are cut only where that question is not asked.
        let together = octets.len() <= 4_096 && self.options.refuse_early_data;
        let piece = if together { octets.len().max(1) } else { self.piece };
        for piece in octets.chunks(piece) {
            if self.closed {
                break;
            }
            self.feed(piece);
        }
        Ok(())
    }

    fn line(&mut self) -> Result<Option<String>, String> {
        if self.server.is_none() {
            self.feed(b"");
        }
        match memchr::memchr(b'\n', &self.said) {
            Some(end) => {
                let line: Vec<u8> = self.said.drain(..=end).collect();
                let line = line
                    .strip_suffix(b"\r\n")
                    .ok_or("the server ended a line without CR")?;
                Ok(Some(String::from_utf8_lossy(line).into_owned()))
            }
            None if self.closed => Ok(None),
            None => Err("the server says nothing".to_owned()),
        }
    }

    fn tls(&mut self) -> Result<(), String> {
        if !std::mem::take(&mut self.handshake) {
            return Err("the server does not wait for a handshake".to_owned());
        }
        let channel = self.channel();
        if let Some(server) = &mut self.server {
            server.tls_started();
            server.name_channel(channel);
        }
        Ok(())
    }

    fn meanwhile(&mut self, event: &str) -> Result<(), String> {
        let server = self.server.as_mut().ok_or("nothing has begun yet")?;
        let words: Vec<&str> = event.split(' ').collect();
        match words[..] {
            ["account", address, "is", "removed"] => {
                self.accounts.remove(address).ok_or("there is no such account")?;
                return Ok(());
            }
            ["the", "client", "is", "silent", "for", "too", "long"] => server.close_with(&replies::TIMED_OUT),
            ["the", "server", "shuts", "down"] => server.close_with(&replies::SHUTTING_DOWN),
            _ => return Err(format!("unknown event: {event}")),
        }
        self.feed(b"");
        Ok(())
    }

    fn channel(&self) -> Channel {
        Channel {
            exporter: Some([7; 32]),
            end_point: Some(vec![8; 32]),
            has_certificate: self.certificate.is_some(),
        }
    }

    fn then(&mut self, fact: &str) -> Result<(), String> {
        let holds = |text: &str| {
            self.accepted
                .iter()
                .any(|(_, body)| memchr::memmem::find(body, text.as_bytes()).is_some())
        };
        let local = |r: &Recipient| match r {
            Recipient::Address(a) => self.accounts.contains_key(&a.folded()),
            Recipient::Postmaster => true,
        };
        let words: Vec<&str> = fact.split(' ').collect();
        let true_now = match words[..] {
            ["nothing", "was", "accepted"] => self.accepted.is_empty(),
            [n, "messages" | "message", "was" | "were", "accepted"] => n.parse() == Ok(self.accepted.len()),
            [address, "has", n, "messages" | "message"] => n.parse() == Ok(self.delivered_to(address)),
            ["a", "message", "holds", ..] => holds(&words[3..].join(" ")),
            ["no", "message", "holds", ..] => !holds(&words[3..].join(" ")),
            ["the", "queue", "is", "empty"] => self
                .accepted
                .iter()
                .all(|(envelope, _)| envelope.recipients.iter().all(local)),
            _ => return Err(format!("unknown fact: {fact}")),
        };
        if true_now {
            Ok(())
        } else {
            Err(format!("it is not true that {fact}"))
        }
    }
}
