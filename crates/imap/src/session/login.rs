//! LOGIN and AUTHENTICATE (RFC 3501 §6.2, RFC 4616, RFC 4959), and what is offered when.

use super::{Doing, Event, Info, Session, State, Ticket, ask};
use crate::command::{Mechanism, Tag};
use crate::response::{Code, Refusal, put};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use mail::Secret;

/// Padding is right or missing; both mean the same.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How far a SASL exchange has come.
#[derive(Debug)]
pub(super) enum Sasl {
    /// PLAIN waits for its one message.
    Plain,
    /// LOGIN waits for the name.
    User,
    /// LOGIN waits for the password of this name.
    Password(String),
}

impl Session {
    /// The capabilities now, without the word CAPABILITY.
    pub(super) fn capabilities(&self) -> String {
        let mut all = "IMAP4rev1 LITERAL+ SASL-IR ID ENABLE".to_owned();
        if self.is_logged_in() {
            all.push_str(" IDLE NAMESPACE CHILDREN UIDPLUS MOVE UNSELECT SPECIAL-USE");
            return all;
        }
        if self.may_start_tls() {
            all.push_str(" STARTTLS");
        }
        all.push_str(match self.may_log_in() {
            true => " AUTH=PLAIN AUTH=LOGIN",
            // RFC 3501 §6.2.3
            false => " LOGINDISABLED",
        });
        all
    }

    pub(super) fn may_start_tls(&self) -> bool {
        self.options.starttls && !self.tls
    }

    pub(super) fn may_log_in(&self) -> bool {
        self.tls || self.options.allow_plaintext_login
    }

    pub(super) fn privacy_required(&mut self, tag: &Tag) {
        self.no(
            tag,
            Code::PrivacyRequired,
            "Logging in needs TLS: use STARTTLS first",
        );
    }

    pub(super) fn authenticate(
        &mut self,
        tag: Tag,
        mechanism: Option<Mechanism>,
        initial: Option<Secret>,
    ) -> Option<Event> {
        if !self.may_log_in() {
            self.privacy_required(&tag);
            return None;
        }
        let (sasl, prompt) = match mechanism {
            Some(Mechanism::Plain) => (Sasl::Plain, "+ \r\n"),
            // "Username:"
            Some(Mechanism::Login) => (Sasl::User, "+ VXNlcm5hbWU6\r\n"),
            None => {
                self.no(&tag, Code::Cannot, "Only PLAIN and LOGIN are spoken here");
                return None;
            }
        };
        match initial {
            Some(initial) => self.sasl_response(tag, sasl, initial.expose().as_bytes()),
            None => {
                put(&mut self.output, prompt);
                self.doing = Doing::Sasl(tag, sasl);
                None
            }
        }
    }

    pub(super) fn sasl_line(&mut self, tag: Tag, sasl: Sasl, text: &[u8]) -> Option<Event> {
        if let Some(kept) = &mut self.transcript {
            put(kept, "…\r\n");
        }
        if text == b"*" {
            // RFC 3501 §6.2.2: the client gives up.
            self.bad(Some(&tag), "Authentication cancelled");
            return None;
        }
        self.sasl_response(tag, sasl, text)
    }

    fn sasl_response(&mut self, tag: Tag, sasl: Sasl, text: &[u8]) -> Option<Event> {
        let Some(decoded) = BASE64.decode(text).ok().and_then(|d| String::from_utf8(d).ok()) else {
            self.bad(Some(&tag), "The response is not valid base64");
            return None;
        };
        match sasl {
            Sasl::User => {
                // "Password:"
                put(&mut self.output, "+ UGFzc3dvcmQ6\r\n");
                self.doing = Doing::Sasl(tag, Sasl::Password(decoded));
                None
            }
            Sasl::Password(user) => Some(self.ask_login(tag, user, Secret::new(decoded))),
            Sasl::Plain => {
                let mut parts = decoded.split('\0');
                let (Some(authorize_as), Some(user), Some(password), None) =
                    (parts.next(), parts.next(), parts.next(), parts.next())
                else {
                    self.bad(Some(&tag), "The response is not one of PLAIN");
                    return None;
                };
                if !authorize_as.is_empty() && !authorize_as.eq_ignore_ascii_case(user) {
                    self.no(
                        &tag,
                        Code::AuthenticationFailed,
                        "Acting for another user is not possible",
                    );
                    return None;
                }
                Some(self.ask_login(tag, user.to_owned(), Secret::new(password)))
            }
        }
    }

    pub(super) fn ask_login(&mut self, tag: Tag, user: String, password: Secret) -> Event {
        self.doing = Doing::Waiting;
        Event::Login {
            ticket: Ticket::new(tag, Info::default()),
            user,
            password,
        }
    }

    /// The login is accepted.
    pub fn logged_in(&mut self, ticket: Ticket<ask::Login>) {
        self.state = State::Authenticated;
        self.resume();
        self.framer.set_line_octets_max(self.options.line_octets_max);
        let capability = Code::Capability(self.capabilities());
        self.ok(&ticket.tag, Some(&capability), "Logged in");
    }

    /// The login is refused. After [`crate::Options::login_failures_max`] the session ends.
    pub fn refuse_login(&mut self, ticket: Ticket<ask::Login>, refusal: Refusal) {
        self.resume();
        self.login_failures += 1;
        self.say_refusal(Some(&ticket.tag), &refusal);
        if self.login_failures >= self.options.login_failures_max {
            self.bye("Too many failed logins");
        }
    }
}
