//! LOGIN and AUTHENTICATE (RFC 3501 §6.2, RFC 4959), and what is offered when.

use super::{Doing, Event, Info, Session, State, Ticket, ask};
use crate::command::Tag;
use crate::response::{Code, Refusal, put};
use mail::Secret;
use sasl::{Answer, Channel, Credentials, Fault, Mechanism, Mechanisms, Request, Step, Unseen, Why};

pub(super) type Exchange = sasl::Exchange<(), Refusal>;
pub(super) type Asking = sasl::Asking<(), Refusal>;

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
        if self.may_log_in() {
            for mechanism in self.mechanisms().iter() {
                all.push_str(" AUTH=");
                all.push_str(mechanism.name());
            }
        } else {
            // RFC 3501 §6.2.3
            all.push_str(" LOGINDISABLED");
        }
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

    /// Names the connection, so that mechanisms can be bound to it. Call it right after the
    /// handshake.
    pub fn name_channel(&mut self, channel: Channel) {
        self.channel = Some(Box::new(channel));
    }

    /// The last login that the driver was not asked about, for the record.
    pub fn take_unseen(&mut self) -> Option<Unseen> {
        self.unseen.take().map(|unseen| *unseen)
    }

    fn mechanisms(&self) -> Mechanisms {
        match &self.channel {
            Some(channel) => self.options.mechanisms.on(channel),
            None => self.options.mechanisms.on(&Channel::default()),
        }
    }

    /// Remembers a login that was refused unseen.
    pub(super) fn note_unseen(&mut self, mechanism: &str, user: Option<String>, why: Why) {
        self.unseen = Some(Box::new(Unseen::new(mechanism, user, why)));
    }

    pub(super) fn authenticate(
        &mut self,
        tag: Tag,
        mechanism: Result<Mechanism, String>,
        initial: Option<Secret>,
    ) -> Option<Event> {
        let name = match &mechanism {
            Ok(mechanism) => mechanism.name().to_owned(),
            Err(name) => name.clone(),
        };
        if !self.may_log_in() {
            let shown = initial.filter(|_| name == Mechanism::Plain.name());
            let user = shown.and_then(|text| sasl::plain_name(text.expose().as_bytes()));
            self.note_unseen(&name, user, Why::BeforeTls);
            self.privacy_required(&tag);
            return None;
        }
        let offered = self.mechanisms();
        let Some(mechanism) = mechanism.ok().filter(|m| offered.has(*m)) else {
            self.note_unseen(&name, None, Why::NotOffered);
            let text = format!("This way to authenticate is not offered here; use one of: {offered}");
            self.no(&tag, Code::Cannot, &text);
            return None;
        };
        let none = Channel::default();
        let channel = self.channel.as_deref().unwrap_or(&none);
        let (exchange, prompt) = Exchange::start(mechanism, offered, channel);
        match initial {
            Some(initial) => {
                let step = exchange.initial(initial.expose().as_bytes());
                self.sasl_goes_on(tag, mechanism, step)
            }
            None => self.sasl_goes_on(tag, mechanism, Step::Challenge(exchange, prompt.to_vec())),
        }
    }

    pub(super) fn sasl_line(
        &mut self,
        tag: Tag,
        mechanism: Mechanism,
        exchange: Exchange,
        text: &[u8],
    ) -> Option<Event> {
        if let Some(kept) = &mut self.transcript {
            put(kept, "…\r\n");
        }
        self.sasl_goes_on(tag, mechanism, exchange.line(text))
    }

    fn sasl_goes_on(&mut self, tag: Tag, mechanism: Mechanism, step: Step<(), Refusal>) -> Option<Event> {
        match step {
            Step::Challenge(exchange, octets) => {
                put(&mut self.output, "+ ");
                put(&mut self.output, &sasl::encode(octets));
                put(&mut self.output, "\r\n");
                self.doing = Doing::Sasl(tag, mechanism, Box::new(exchange));
            }
            Step::Ask(asking, request) => {
                self.doing = Doing::SaslAsked(mechanism, Box::new(asking));
                return Some(Event::Login {
                    ticket: Ticket::new(tag, Info::default()),
                    mechanism,
                    request,
                });
            }
            Step::Accepted(()) => self.logged_in(&tag),
            Step::Refused(refusal) => self.refuse_login(&tag, &refusal),
            Step::Failed(fault, user) => {
                self.note_unseen(mechanism.name(), user, Why::Fault(fault));
                self.sasl_failed(&tag, mechanism, fault);
            }
        }
        None
    }

    fn sasl_failed(&mut self, tag: &Tag, mechanism: Mechanism, fault: Fault) {
        let refusal = |text| Refusal::new(Code::AuthenticationFailed, text);
        match fault {
            // RFC 3501 §6.2.2: the client gives up.
            Fault::Cancelled => self.bad(Some(tag), "Authentication cancelled"),
            Fault::NotBase64 => self.bad(Some(tag), "The response is not valid base64"),
            Fault::Malformed => {
                self.bad(Some(tag), &format!("The response is not one of {mechanism}"));
            }
            Fault::Downgrade | Fault::Channel => {
                let text = "Your program sees another TLS connection than we do: somebody may stand between";
                self.refuse_login(tag, &refusal(text));
            }
            Fault::Nonce => self.refuse_login(tag, &refusal("Wrong user name or password")),
            Fault::Internal => self.bye("A fault of ours, try again"),
        }
    }

    /// The command LOGIN.
    pub(super) fn ask_login(&mut self, tag: Tag, user: String, password: Secret) -> Event {
        self.doing = Doing::Waiting;
        Event::Login {
            ticket: Ticket::new(tag, Info::default()),
            mechanism: Mechanism::Login,
            request: Request::Password(Credentials {
                authorization: None,
                login: user,
                password,
            }),
        }
    }

    /// Answers [`Event::Login`].
    pub fn login(&mut self, ticket: Ticket<ask::Login>, answer: Answer<(), Refusal>) {
        let doing = std::mem::replace(&mut self.doing, Doing::Commands);
        match (doing, answer) {
            (Doing::Closed, _) => self.doing = Doing::Closed,
            (Doing::SaslAsked(mechanism, asking), answer) => {
                // An answer leads to no further question.
                self.sasl_goes_on(ticket.tag, mechanism, asking.answer(answer));
            }
            (_, Answer::Accepted((), _)) => self.logged_in(&ticket.tag),
            (_, Answer::Refused(refusal)) => self.refuse_login(&ticket.tag, &refusal),
            (_, Answer::Salted(_)) => self.bye("A fault of ours, try again"),
        }
    }

    /// The login is accepted.
    fn logged_in(&mut self, tag: &Tag) {
        self.state = State::Authenticated;
        self.resume();
        self.framer.set_line_octets_max(self.options.line_octets_max);
        let capability = Code::Capability(self.capabilities());
        self.ok(tag, Some(&capability), "Logged in");
    }

    /// The login is refused. After [`crate::Options::login_failures_max`] the session ends.
    fn refuse_login(&mut self, tag: &Tag, refusal: &Refusal) {
        self.resume();
        self.login_failures += 1;
        self.say_refusal(Some(tag), refusal);
        if self.login_failures >= self.options.login_failures_max {
            self.bye("Too many failed logins");
        }
    }
}
