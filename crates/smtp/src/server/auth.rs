//! AUTH: what is offered, when it is allowed, and the exchange between client and driver.

use super::state::{AuthToken, Exchange, Greeted, State};
use super::{Question, Server, Step};
use crate::replies;
use crate::reply::Reply;
use mail::Secret;
use sasl::{Answer, Channel, Fault, Mechanism, Mechanisms, Unseen, Why};

impl Server {
    /// Names the connection, so that mechanisms can be bound to it. Call it right after the
    /// handshake: behind [`Server::tls_started`], or behind [`Server::new`] inside TLS.
    pub fn name_channel(&mut self, channel: Channel) {
        self.channel = Some(Box::new(channel));
    }

    /// The last login that the driver was not asked about, for the record.
    pub fn take_unseen(&mut self) -> Option<Unseen> {
        self.unseen.take().map(|unseen| *unseen)
    }

    /// What is offered on this connection.
    fn mechanisms(&self) -> Mechanisms {
        match &self.channel {
            Some(channel) => self.options.mechanisms.on(channel),
            None => self.options.mechanisms.on(&Channel::default()),
        }
    }

    /// The line of EHLO that offers AUTH, if it may be used.
    pub(super) fn auth_offered(&self) -> Option<String> {
        // RFC 4954 §4: not offered any more after a login.
        let offered = self.role.is_submission() && self.may_show_password() && self.login.is_none();
        let mechanisms = self.mechanisms();
        (offered && mechanisms != Mechanisms::NONE).then(|| format!("AUTH {mechanisms}"))
    }

    /// Whether AUTH with this mechanism is allowed now.
    pub(super) fn may_auth(&mut self, name: &str, initial: Option<&Secret>) -> Result<(), Reply> {
        if !self.role.is_submission() {
            return Err(replies::AUTH_NOT_HERE);
        }
        match &self.state {
            State::MailGiven(_) | State::RcptGiven(_) | State::BetweenChunks(_) => {
                return Err(replies::AUTH_IN_TRANSACTION);
            }
            State::Greeted(greeted) if greeted.extended => {}
            _ => return Err(replies::EHLO_FIRST),
        }
        if !self.may_show_password() {
            let shown = initial.filter(|_| name == Mechanism::Plain.name());
            let user = shown.and_then(|text| sasl::plain_name(text.expose().as_bytes()));
            self.note_unseen(name, user, Why::BeforeTls);
            return Err(replies::AUTH_NEEDS_TLS);
        }
        if self.login.is_some() {
            return Err(replies::AUTH_TWICE);
        }
        let offered = self.mechanisms();
        if !Mechanism::parse(name).is_some_and(|mechanism| offered.has(mechanism)) {
            self.note_unseen(name, None, Why::NotOffered);
            return Err(replies::auth_mechanism(&offered.to_string()));
        }
        Ok(())
    }

    fn note_unseen(&mut self, mechanism: &str, user: Option<String>, why: Why) {
        self.unseen = Some(Box::new(Unseen::new(mechanism, user, why)));
    }

    /// Whether a password may come on this connection.
    pub(super) fn may_show_password(&self) -> bool {
        self.tls || self.options.allow_plaintext_auth
    }

    /// Begins an exchange.
    pub(super) fn auth(&mut self, name: &str, initial: Option<Secret>) -> Option<Step<'static>> {
        let mechanism = Mechanism::parse(name)?;
        let State::Greeted(greeted) = std::mem::replace(&mut self.state, State::Asking) else {
            return None;
        };
        let none = Channel::default();
        let channel = self.channel.as_deref().unwrap_or(&none);
        let (exchange, prompt) = Exchange::start(mechanism, self.mechanisms(), channel);
        match initial {
            Some(initial) => {
                let step = exchange.initial(initial.expose().as_bytes());
                self.auth_goes_on(greeted, mechanism, step)
            }
            None => {
                self.say(&replies::auth_prompt(sasl::encode(prompt)));
                self.state = State::Auth(greeted, mechanism, Box::new(exchange));
                None
            }
        }
    }

    /// One response of the client within AUTH.
    pub(super) fn auth_response(&mut self, line: &[u8]) -> Option<Step<'static>> {
        let State::Auth(greeted, mechanism, exchange) = std::mem::replace(&mut self.state, State::Asking)
        else {
            return None;
        };
        self.auth_goes_on(greeted, mechanism, exchange.line(line))
    }

    /// Answers [`Question::Authenticate`]: the login's name, or the refusal, or what comes before.
    pub fn authenticated(&mut self, token: AuthToken, answer: Answer<String, Reply>) {
        let AuthToken {
            greeted,
            asking,
            mechanism,
        } = token;
        // An answer leads to no further question.
        self.auth_goes_on(greeted, mechanism, asking.answer(answer));
    }

    fn auth_goes_on(
        &mut self,
        greeted: Greeted,
        mechanism: Mechanism,
        step: sasl::Step<String, Reply>,
    ) -> Option<Step<'static>> {
        match step {
            sasl::Step::Challenge(exchange, octets) => {
                self.say(&replies::auth_prompt(sasl::encode(octets)));
                self.state = State::Auth(greeted, mechanism, Box::new(exchange));
            }
            sasl::Step::Ask(asking, request) => {
                self.state = State::Asking;
                return Some(Step::Ask(Question::Authenticate {
                    token: AuthToken {
                        greeted,
                        asking,
                        mechanism,
                    },
                    mechanism,
                    request,
                }));
            }
            sasl::Step::Accepted(login) => {
                self.state = State::Greeted(greeted);
                self.login = Some(login);
                self.say(&replies::AUTH_OK);
            }
            sasl::Step::Refused(reply) => {
                self.state = State::Greeted(greeted);
                self.refuse_login(&reply);
            }
            sasl::Step::Failed(fault, user) => {
                self.state = State::Greeted(greeted);
                self.note_unseen(mechanism.name(), user, Why::Fault(fault));
                match fault {
                    Fault::Cancelled => self.refuse(&replies::AUTH_CANCELLED),
                    Fault::NotBase64 | Fault::Malformed => self.refuse(&replies::AUTH_MALFORMED),
                    Fault::Downgrade | Fault::Channel => self.refuse_login(&replies::AUTH_CHANNEL),
                    Fault::Nonce => self.refuse_login(&replies::AUTH_FAILED),
                    Fault::Internal => self.say_and_close(&replies::INTERNAL_ERROR),
                }
            }
        }
        None
    }

    fn refuse_login(&mut self, reply: &Reply) {
        self.refuse(reply);
        // Only a wrong password counts; a directory that is down is not the client's fault.
        if reply.is_permanent() {
            self.auth_failures += 1;
        }
        if self.auth_failures >= self.options.auth_failures_max && !self.is_closed() {
            self.say_and_close(&replies::AUTH_TOO_MANY);
        }
    }
}
