//! AUTH: what is offered, when it is allowed, and the exchange up to the question to the driver.

use super::state::{AuthStep, AuthToken, State};
use super::{Question, Server, Step};
use crate::replies;
use crate::reply::Reply;
use crate::sasl::{self, Credentials, Mechanism};
use mail::Secret;

impl Server {
    /// The line of EHLO that offers AUTH, if it may be used.
    pub(super) fn auth_offered(&self) -> Option<String> {
        // RFC 4954 §4: not offered any more after a login.
        let offered = self.role.is_submission() && self.may_show_password() && self.login.is_none();
        offered.then(|| "AUTH PLAIN LOGIN".to_owned())
    }

    /// Whether AUTH with this mechanism is allowed now.
    pub(super) fn may_auth(&self, mechanism: &str) -> Result<(), Reply> {
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
            return Err(replies::AUTH_NEEDS_TLS);
        }
        if self.login.is_some() {
            return Err(replies::AUTH_TWICE);
        }
        if !matches!(mechanism, "PLAIN" | "LOGIN") {
            return Err(replies::AUTH_MECHANISM);
        }
        Ok(())
    }

    /// Whether a password may come on this connection.
    pub(super) fn may_show_password(&self) -> bool {
        self.tls || self.options.allow_plaintext_auth
    }

    /// Begins an exchange.
    pub(super) fn auth(&mut self, mechanism: &str, initial: Option<Secret>) -> Option<Step<'static>> {
        let State::Greeted(greeted) = std::mem::replace(&mut self.state, State::Asking) else {
            return None;
        };
        let (step, prompt) = if mechanism == "PLAIN" {
            (AuthStep::Plain, "")
        } else {
            (AuthStep::LoginName, "Username:")
        };
        self.state = State::Auth(greeted, step);
        if let Some(initial) = initial {
            return self.auth_response(initial.expose().as_bytes());
        }
        self.say(&replies::auth_prompt(sasl::encode(prompt)));
        None
    }

    /// One response of the client within AUTH.
    pub(super) fn auth_response(&mut self, line: &[u8]) -> Option<Step<'static>> {
        let State::Auth(greeted, step) = std::mem::replace(&mut self.state, State::Asking) else {
            return None;
        };
        let fail = |session: &mut Self, greeted, reply: &Reply| {
            session.state = State::Greeted(greeted);
            session.refuse(reply);
            None
        };
        if line == b"*" {
            return fail(self, greeted, &replies::AUTH_CANCELLED);
        }
        let Some(text) = std::str::from_utf8(line).ok().and_then(sasl::decode) else {
            return fail(self, greeted, &replies::AUTH_MALFORMED);
        };
        let (mechanism, credentials) = match step {
            AuthStep::Plain => match sasl::plain(&text) {
                Some(credentials) => (Mechanism::Plain, credentials),
                None => return fail(self, greeted, &replies::AUTH_MALFORMED),
            },
            AuthStep::LoginName if text.is_empty() || text.contains('\0') => {
                return fail(self, greeted, &replies::AUTH_MALFORMED);
            }
            AuthStep::LoginName => {
                self.state = State::Auth(greeted, AuthStep::LoginPassword { name: text });
                self.say(&replies::auth_prompt(sasl::encode("Password:")));
                return None;
            }
            AuthStep::LoginPassword { name } => (
                Mechanism::Login,
                Credentials {
                    authorization: None,
                    login: name,
                    password: Secret::new(text),
                },
            ),
        };
        Some(Step::Ask(Question::Authenticate {
            token: AuthToken(greeted),
            mechanism,
            credentials,
        }))
    }
}
