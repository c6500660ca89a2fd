//! What each command does, given the state: "may it?" first, then "do it".

use super::state::{
    BeginToken, Envelope, Greeted, MailGiven, RcptGiven, RecipientToken, SenderToken, State, XclientToken,
};
use super::{Question, Role, Server, Step};
use crate::command::{Command, MailFrom, RcptTo};
use crate::replies;
use crate::reply::Reply;
use crate::xclient::{Attributes, Told};

impl Server {
    /// Does one command. `more_waits` tells whether the client sent further octets already.
    pub(super) fn command(&mut self, command: Command, more_waits: bool) -> Option<Step<'static>> {
        let goes_on = matches!(command, Command::Rcpt(_) | Command::Data | Command::Bdat(_));
        self.behind_refused_mail &= goes_on;
        if let Command::Bdat(size) = command {
            self.data_was_refused(false);
            return self.bdat(size);
        }
        self.chunk_refused = false;
        if let Err(reply) = self.may(&command, more_waits) {
            if reply.code == 421 {
                self.drop_transaction(Some(&reply));
            }
            self.data_was_refused(matches!(command, Command::Data));
            self.refuse(&reply);
            self.behind_refused_mail |= matches!(command, Command::Mail(_));
            return None;
        }
        self.data_was_refused(false);
        match command {
            Command::Ehlo(name) | Command::Lhlo(name) => self.hello(name, true),
            Command::Helo(name) => self.hello(name, false),
            Command::Mail(mail) => return self.mail(mail),
            Command::Rcpt(rcpt) => return self.rcpt(rcpt),
            Command::Data => return self.data(),
            Command::Bdat(_) => {}
            Command::StartTls => {
                self.drop_transaction(None);
                self.say(&replies::READY_FOR_TLS);
                self.state = State::Handshake;
            }
            Command::Auth { mechanism, initial } => return self.auth(&mechanism, initial),
            Command::Xclient(attributes) => return self.told(attributes),
            Command::Rset => self.reset(),
            Command::Noop => self.say(&replies::NOOP),
            Command::Vrfy => self.say(&replies::VRFY_UNTOLD),
            Command::Expn => self.refuse(&replies::EXPN_UNKNOWN),
            Command::Etrn => self.refuse(&replies::ETRN_REFUSED),
            Command::Help => self.say(&replies::HELP),
            Command::Quit => {
                self.drop_transaction(None);
                self.say_and_close(&replies::BYE);
            }
        }
        None
    }

    /// Whether the command is allowed in this state, on this connection.
    fn may(&mut self, command: &Command, more_waits: bool) -> Result<(), Reply> {
        self.count_idle(command)?;
        match command {
            Command::Mail(mail) => self.may_mail(mail),
            Command::Rcpt(_) | Command::Data => self.may_go_on(command, more_waits),
            Command::StartTls => self.may_start_tls(more_waits),
            Command::Xclient(_) => self.may_tell(),
            Command::Auth { mechanism, initial } => self.may_auth(mechanism, initial.as_ref()),
            Command::Ehlo(_) | Command::Helo(_) if self.role == Role::Lmtp => Err(replies::LHLO_HERE),
            Command::Lhlo(_) if self.role != Role::Lmtp => Err(replies::EHLO_HERE),
            Command::Etrn => self.may_etrn(),
            _ => Ok(()),
        }
    }

    /// What to say before the client has said its name.
    pub(super) fn hello_first(&self) -> Reply {
        match self.role {
            Role::Lmtp => replies::LHLO_FIRST,
            _ => replies::EHLO_FIRST,
        }
    }

    /// RFC 1985 §5: like MAIL, outside a transaction.
    fn may_etrn(&self) -> Result<(), Reply> {
        match &self.state {
            State::Greeted(greeted) if greeted.extended => Ok(()),
            State::Fresh | State::Greeted(_) => Err(self.hello_first()),
            _ => Err(replies::MAIL_TWICE),
        }
    }

    fn count_idle(&mut self, command: &Command) -> Result<(), Reply> {
        if !matches!(command, Command::Rcpt(_) | Command::Quit) {
            self.idle_commands += 1;
        }
        if self.idle_commands > self.options.idle_commands_max {
            return Err(replies::TOO_MUCH_IDLE_TALK);
        }
        Ok(())
    }

    fn may_mail(&self, mail: &MailFrom) -> Result<(), Reply> {
        let greeted = match &self.state {
            State::Greeted(greeted) => greeted,
            State::MailGiven(_) | State::RcptGiven(_) | State::BetweenChunks(_) => {
                return Err(replies::MAIL_TWICE);
            }
            _ => return Err(self.hello_first()),
        };
        if self.role.is_submission() && self.options.auth_required && self.login.is_none() {
            return Err(if self.may_show_password() {
                replies::AUTH_REQUIRED
            } else {
                replies::TLS_FIRST
            });
        }
        if self.messages >= self.options.messages_max {
            return Err(replies::TOO_MANY_MESSAGES);
        }
        if mail.has_parameters && !greeted.extended {
            return Err(replies::UNKNOWN_PARAMETER);
        }
        if mail.path_is_utf8 && !mail.smtputf8 {
            return Err(replies::NEEDS_SMTPUTF8);
        }
        let size_max = self.options.size_max_octets;
        if mail.size_octets.is_some_and(|n| n > size_max) {
            return Err(replies::size_declared_too_large(size_max));
        }
        self.may_wish(mail)
    }

    /// RCPT and DATA.
    fn may_go_on(&self, command: &Command, more_waits: bool) -> Result<(), Reply> {
        let is_data = matches!(command, Command::Data);
        let (MailGiven { greeted, mail }, recipients) = match &self.state {
            State::MailGiven(given) => (given, 0),
            State::RcptGiven(given) => (&given.given, given.recipients.len()),
            State::Greeted(_) => return Err(replies::MAIL_FIRST),
            State::BetweenChunks(_) if is_data && more_waits && self.options.refuse_early_data => {
                return Err(replies::DATA_TOO_EARLY);
            }
            State::BetweenChunks(_) => return Err(replies::CHUNKS_BEGUN),
            _ => return Err(self.hello_first()),
        };
        match command {
            Command::Rcpt(_) if recipients >= self.options.recipients_max => {
                Err(replies::TOO_MANY_RECIPIENTS)
            }
            Command::Rcpt(rcpt) => Self::may_wish_for(rcpt, mail, greeted.extended),
            // RFC 2920 §3.1: DATA ends a group. A client that goes on does not read replies, and
            // what it sends next must not be taken for commands, whatever the reply is.
            _ if more_waits && self.options.refuse_early_data => Err(replies::DATA_TOO_EARLY),
            _ if recipients == 0 => Err(replies::RCPT_FIRST),
            _ if mail.body.is_binary() => Err(replies::BINARY_NEEDS_BDAT),
            _ => Ok(()),
        }
    }

    fn may_start_tls(&self, more_waits: bool) -> Result<(), Reply> {
        if self.tls {
            return Err(replies::TLS_ALREADY);
        }
        if !self.options.offer_starttls {
            return Err(replies::TLS_UNAVAILABLE);
        }
        // RFC 3207 asks for no EHLO before it, and there are clients that say none. Whatever was said in
        // clear is forgotten anyway. RFC 3207 §4.2: what came in clear must never be taken for what came inside TLS.
        if more_waits {
            return Err(replies::DATA_BEHIND_STARTTLS);
        }
        Ok(())
    }

    fn may_tell(&self) -> Result<(), Reply> {
        match &self.state {
            _ if !self.options.xclient || self.was_told => Err(replies::XCLIENT_DENIED),
            State::MailGiven(_) | State::RcptGiven(_) | State::BetweenChunks(_) => {
                Err(replies::XCLIENT_IN_TRANSACTION)
            }
            _ => Ok(()),
        }
    }

    /// XCLIENT. With a HELO among the attributes the client need not say its own again.
    fn told(&mut self, attributes: Box<Attributes>) -> Option<Step<'static>> {
        let before = match std::mem::replace(&mut self.state, State::Asking) {
            State::Greeted(greeted) => Some(greeted),
            _ => None,
        };
        let helo = attributes.helo.clone().and_then(Told::known);
        let after = helo.map(|helo| Greeted {
            helo,
            extended: attributes.extended.unwrap_or(true),
        });
        let token = XclientToken { before, after };
        Some(Step::Ask(Question::Xclient { token, attributes }))
    }

    fn hello(&mut self, helo: String, extended: bool) {
        self.drop_transaction(None);
        self.state = State::Greeted(Greeted { helo, extended });
        let reply = if extended {
            replies::ehlo(&self.options.hostname, &self.extensions())
        } else {
            replies::helo(&self.options.hostname)
        };
        self.say(&reply);
    }

    fn reset(&mut self) {
        self.drop_transaction(None);
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::MailGiven(given) => State::Greeted(given.greeted),
            State::RcptGiven(given) => State::Greeted(given.given.greeted),
            State::BetweenChunks(chunks) => State::Greeted(chunks.greeted),
            other => other,
        };
        self.say(&replies::RESET);
    }

    fn mail(&mut self, mail: MailFrom) -> Option<Step<'static>> {
        let State::Greeted(greeted) = std::mem::replace(&mut self.state, State::Asking) else {
            return None;
        };
        Some(Step::Ask(Question::Sender {
            helo: greeted.helo.clone(),
            mail: mail.clone(),
            token: SenderToken { greeted, mail },
        }))
    }

    fn rcpt(&mut self, rcpt: RcptTo) -> Option<Step<'static>> {
        let given = match std::mem::replace(&mut self.state, State::Asking) {
            State::MailGiven(given) => RcptGiven {
                given,
                recipients: Vec::new(),
            },
            State::RcptGiven(given) => given,
            _ => return None,
        };
        Some(Step::Ask(Question::Recipient {
            rcpt: rcpt.clone(),
            token: RecipientToken { given, rcpt },
        }))
    }

    fn data(&mut self) -> Option<Step<'static>> {
        let State::RcptGiven(given) = std::mem::replace(&mut self.state, State::Asking) else {
            return None;
        };
        let envelope = self.envelope(&given);
        Some(Step::Ask(Question::Begin {
            token: BeginToken { given, chunk: None },
            envelope,
        }))
    }

    pub(super) fn envelope(&self, given: &RcptGiven) -> Envelope {
        let MailGiven { greeted, mail } = &given.given;
        Envelope {
            helo: greeted.helo.clone(),
            protocol: self.protocol(greeted.extended, mail.smtputf8),
            mail: mail.clone(),
            recipients: given.recipients.clone(),
        }
    }

    /// RFC 3848 and RFC 6531 §4.3.
    fn protocol(&self, extended: bool, utf8: bool) -> &'static str {
        match (utf8, self.tls, self.login.is_some()) {
            _ if !extended => "SMTP",
            (false, false, false) if self.role == Role::Lmtp => "LMTP",
            (false, true, false) if self.role == Role::Lmtp => "LMTPS",
            (false, false, true) if self.role == Role::Lmtp => "LMTPA",
            (false, true, true) if self.role == Role::Lmtp => "LMTPSA",
            (true, false, false) if self.role == Role::Lmtp => "UTF8LMTP",
            (true, true, false) if self.role == Role::Lmtp => "UTF8LMTPS",
            (true, false, true) if self.role == Role::Lmtp => "UTF8LMTPA",
            (true, true, true) if self.role == Role::Lmtp => "UTF8LMTPSA",
            (false, false, false) => "ESMTP",
            (false, true, false) => "ESMTPS",
            (false, false, true) => "ESMTPA",
            (false, true, true) => "ESMTPSA",
            (true, false, false) => "UTF8SMTP",
            (true, true, false) => "UTF8SMTPS",
            (true, false, true) => "UTF8SMTPA",
            (true, true, true) => "UTF8SMTPSA",
        }
    }
}
