//! One exchange, from the choice of a mechanism to its end.

use crate::bearer::{self, Form};
use crate::scram::{Bind, ClientFirst, Final};
use crate::{Bearer, Channel, Credentials, Hash, Mechanism, Mechanisms, Proof, Salted, ServerSignature};
use mail::Secret;
use std::fmt;
use std::marker::PhantomData;

/// Octets of a login name at most.
const NAME_OCTETS_MAX: usize = 1_024;

/// A server's side of an exchange that waits for the client. `A` is what comes of a login that is
/// accepted, `E` why one is refused; both are the caller's.
#[derive(Debug)]
pub struct Exchange<A, E>(State<A, E>);

#[derive(Debug)]
enum State<A, E> {
    Plain,
    LoginName,
    LoginPassword {
        name: String,
    },
    External,
    Bearer(Form),
    ScramFirst(Box<ScramFirst>),
    ScramFinal(Box<Final>),
    /// The server's signature was sent; the client has only to nod.
    Farewell(A),
    /// The refusal of a token was explained; the client has only to nod.
    Explained(E),
}

#[derive(Debug)]
struct ScramFirst {
    hash: Hash,
    /// The mechanism is one with binding.
    bound: bool,
    /// One with binding was offered as well.
    could_bind: bool,
    channel: Channel,
}

/// What comes next.
// A step is looked at once and at once; a box for each request would cost more than its size.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Step<A, E> {
    /// Send this, and give the exchange the response.
    Challenge(Exchange<A, E>, Vec<u8>),
    /// Find the answer to the request, and give it to [`Asking::answer`].
    Ask(Asking<A, E>, Request),
    /// Welcome.
    Accepted(A),
    /// The answer was no.
    Refused(E),
    /// The exchange itself went wrong; with the name that the client gave, as far as it is known.
    Failed(Fault, Option<String>),
}

/// What must be known of accounts to go on.
#[derive(Clone, Debug)]
pub enum Request {
    /// Is this the password? Answer [`Answer::Accepted`] without a signature.
    Password(Credentials),
    /// Salt and iteration count of this name, whether or not it exists. Answer [`Answer::Salted`].
    Salt {
        /// The login name.
        user: String,
        /// For this hash function.
        hash: Hash,
    },
    /// Does the client know the password? Answer [`Answer::Accepted`] with the signature.
    Proof {
        /// Act for this identity; `None` when nothing or the same was asked.
        authorization: Option<String>,
        /// The login name.
        user: String,
        /// What it claims.
        proof: Proof,
    },
    /// Is this token good?
    Token(Bearer),
    /// Whom does the client's certificate name?
    Certificate {
        /// The account that is to be opened; `None`: the one that the certificate names.
        authorization: Option<String>,
    },
}

impl Request {
    /// The name that the client gave, if it gave one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Request::Password(credentials) => Some(&credentials.login),
            Request::Salt { user, .. } | Request::Proof { user, .. } => Some(user),
            Request::Token(bearer) => bearer.user.as_deref(),
            Request::Certificate { authorization } => authorization.as_deref(),
        }
    }
}

/// The answer to a [`Request`].
#[derive(Debug)]
pub enum Answer<A, E> {
    /// To [`Request::Salt`].
    Salted(Salted),
    /// Yes; the signature comes from [`Proof::verify`].
    Accepted(A, Option<ServerSignature>),
    /// No, or not now.
    Refused(E),
}

/// Without a signature.
impl<A, E> From<Result<A, E>> for Answer<A, E> {
    fn from(verdict: Result<A, E>) -> Self {
        match verdict {
            Ok(accepted) => Answer::Accepted(accepted, None),
            Err(why) => Answer::Refused(why),
        }
    }
}

/// A login that nobody was asked about, for the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unseen {
    /// The mechanism as the client named it, at most 32 octets of it.
    pub mechanism: String,
    /// The name that the client gave, as far as it is known.
    pub user: Option<String>,
    /// Why.
    pub why: Why,
}

/// Why nobody was asked about a login.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It came before TLS.
    BeforeTls,
    /// The mechanism is not offered here.
    NotOffered,
    /// The exchange failed.
    Fault(Fault),
}

/// Octets that are kept of a mechanism's name that nobody knows.
const UNKNOWN_NAME_OCTETS_MAX: usize = 32;

impl Unseen {
    /// A login by the mechanism of that name.
    #[must_use]
    pub fn new(mechanism: &str, user: Option<String>, why: Why) -> Self {
        let mut mechanism = mechanism.to_owned();
        mechanism.truncate(mechanism.floor_char_boundary(UNKNOWN_NAME_OCTETS_MAX));
        let user = user.map(|mut user| {
            user.truncate(user.floor_char_boundary(NAME_OCTETS_MAX));
            user
        });
        Self { mechanism, user, why }
    }
}

/// What the exchange itself can fail by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The client gave up (`*`).
    Cancelled,
    /// The line is not base64.
    NotBase64,
    /// The message is not one of the mechanism.
    Malformed,
    /// RFC 5802 §6: the client believes that no binding was offered, but it was. Somebody between
    /// may have taken it out of the offer.
    Downgrade,
    /// The client is bound to another channel than ours, or by a kind that we don't have.
    Channel,
    /// The nonce is not the one that we gave.
    Nonce,
    /// An answer does not fit its request: a fault of ours.
    Internal,
}

impl Fault {
    /// Whether it may be an attack and not just a poor client.
    #[must_use]
    pub const fn is_suspicious(self) -> bool {
        matches!(self, Fault::Downgrade | Fault::Channel | Fault::Nonce)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Cancelled => "the client gave up",
            Fault::NotBase64 => "the response is not base64",
            Fault::Malformed => "the response does not have the form of the mechanism",
            Fault::Downgrade => "the client was not shown the offer of channel binding",
            Fault::Channel => "the client is bound to another channel",
            Fault::Nonce => "the nonce is not the one of this exchange",
            Fault::Internal => "a fault of ours",
        })
    }
}

impl<A, E> Exchange<A, E> {
    /// Begins. The octets are the first challenge; it is sent only when the client gave no initial
    /// response. `offered` are the mechanisms that the client was shown; `mechanism` is one of them.
    #[must_use]
    pub fn start(mechanism: Mechanism, offered: Mechanisms, channel: &Channel) -> (Self, &'static [u8]) {
        let state = match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::Login => return (Self(State::LoginName), b"Username:"),
            Mechanism::External => State::External,
            Mechanism::OAuthBearer => State::Bearer(Form::OAuthBearer),
            Mechanism::XOAuth2 => State::Bearer(Form::XOAuth2),
            Mechanism::ScramSha1 | Mechanism::ScramSha1Plus => {
                let could_bind = offered.has(Mechanism::ScramSha1Plus);
                let bound = mechanism == Mechanism::ScramSha1Plus;
                State::scram(Hash::Sha1, bound, could_bind, channel)
            }
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => {
                let could_bind = offered.has(Mechanism::ScramSha256Plus);
                let bound = mechanism == Mechanism::ScramSha256Plus;
                State::scram(Hash::Sha256, bound, could_bind, channel)
            }
        };
        (Self(state), b"")
    }

    /// The initial response as it stands in the command: base64, or `=` for the empty one.
    #[must_use]
    pub fn initial(self, text: &[u8]) -> Step<A, E> {
        self.line(if text == b"=" { b"" } else { text })
    }

    /// A line of the client: base64, or `*` to give up.
    #[must_use]
    pub fn line(self, text: &[u8]) -> Step<A, E> {
        // RFC 7628 §3.2.3: after the refusal of a token whatever comes is a nod.
        if let State::Explained(why) = self.0 {
            return Step::Refused(why);
        }
        if text == b"*" {
            return Step::Failed(Fault::Cancelled, None);
        }
        match crate::decode(text) {
            Some(response) => self.response(&response),
            None => Step::Failed(Fault::NotBase64, None),
        }
    }

    /// A response of the client.
    #[must_use]
    pub fn response(self, response: &[u8]) -> Step<A, E> {
        match self.0 {
            State::Plain => match crate::plain(response) {
                Some(credentials) => Step::verdict(Request::Password(credentials)),
                None => Step::Failed(Fault::Malformed, None),
            },
            State::LoginName => match name(response) {
                Some(name) => Step::challenge(State::LoginPassword { name }, b"Password:"),
                None => Step::Failed(Fault::Malformed, None),
            },
            State::LoginPassword { name } => match std::str::from_utf8(response) {
                Ok(password) => Step::verdict(Request::Password(Credentials {
                    authorization: None,
                    login: name,
                    password: Secret::new(password),
                })),
                Err(_) => Step::Failed(Fault::Malformed, None),
            },
            State::External => match response {
                b"" => Step::verdict(Request::Certificate { authorization: None }),
                response => match name(response) {
                    Some(name) => Step::verdict(Request::Certificate {
                        authorization: Some(name),
                    }),
                    None => Step::Failed(Fault::Malformed, None),
                },
            },
            State::Bearer(form) => match bearer::parse(form, response) {
                Some(bearer) => Step::Ask(Asking::new(Waiting::Token(form)), Request::Token(bearer)),
                None => Step::Failed(Fault::Malformed, None),
            },
            State::ScramFirst(begun) => begun.take(response),
            State::ScramFinal(waiting) => match waiting.proof(response) {
                Ok(proof) => {
                    let request = Request::Proof {
                        authorization: waiting.authorization,
                        user: waiting.user,
                        proof,
                    };
                    Step::Ask(Asking::new(Waiting::Signature), request)
                }
                Err(fault) => Step::Failed(fault, Some(waiting.user)),
            },
            State::Farewell(accepted) if response.is_empty() => Step::Accepted(accepted),
            State::Farewell(_) => Step::Failed(Fault::Malformed, None),
            State::Explained(why) => Step::Refused(why),
        }
    }
}

impl<A, E> State<A, E> {
    fn scram(hash: Hash, bound: bool, could_bind: bool, channel: &Channel) -> Self {
        State::ScramFirst(Box::new(ScramFirst {
            hash,
            bound,
            could_bind,
            channel: channel.clone(),
        }))
    }
}

impl ScramFirst {
    fn take<A, E>(self: Box<Self>, response: &[u8]) -> Step<A, E> {
        let Some(first) = ClientFirst::parse(response) else {
            return Step::Failed(Fault::Malformed, None);
        };
        let fault = match &first.bind {
            Bind::Unoffered if self.could_bind => Some(Fault::Downgrade),
            Bind::By(name) if !self.bound || self.channel.data(name).is_none() => Some(Fault::Channel),
            Bind::Cannot | Bind::Unoffered if self.bound => Some(Fault::Channel),
            _ if first.user.len() > NAME_OCTETS_MAX => Some(Fault::Malformed),
            _ => None,
        };
        if let Some(fault) = fault {
            return Step::Failed(fault, Some(first.user));
        }
        let request = Request::Salt {
            user: first.user.clone(),
            hash: self.hash,
        };
        Step::Ask(Asking::new(Waiting::Salt(self, first)), request)
    }
}

impl<A, E> Step<A, E> {
    fn challenge(state: State<A, E>, octets: impl Into<Vec<u8>>) -> Self {
        Step::Challenge(Exchange(state), octets.into())
    }

    fn verdict(request: Request) -> Self {
        Step::Ask(Asking::new(Waiting::Verdict), request)
    }
}

/// An exchange that waits for an [`Answer`].
#[must_use = "the exchange waits for the answer"]
pub struct Asking<A, E> {
    waiting: Waiting,
    outcome: PhantomData<fn() -> (A, E)>,
}

#[derive(Debug)]
enum Waiting {
    Verdict,
    Token(Form),
    Salt(Box<ScramFirst>, ClientFirst),
    Signature,
}

impl<A, E> fmt::Debug for Asking<A, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Asking").field(&self.waiting).finish()
    }
}

impl<A, E> Asking<A, E> {
    const fn new(waiting: Waiting) -> Self {
        Self {
            waiting,
            outcome: PhantomData,
        }
    }

    /// Goes on.
    #[must_use]
    pub fn answer(self, answer: Answer<A, E>) -> Step<A, E> {
        match (self.waiting, answer) {
            (Waiting::Token(form), Answer::Refused(why)) => {
                Step::challenge(State::Explained(why), bearer::refused(form))
            }
            (_, Answer::Refused(why)) => Step::Refused(why),
            (Waiting::Verdict | Waiting::Token(_), Answer::Accepted(accepted, None)) => {
                Step::Accepted(accepted)
            }
            (Waiting::Signature, Answer::Accepted(accepted, Some(signature))) => {
                let last = format!("v={}", crate::encode(&signature.0));
                Step::challenge(State::Farewell(accepted), last)
            }
            (Waiting::Salt(begun, first), Answer::Salted(salted)) => {
                let (waiting, ours) = first.answer(begun.hash, &salted, &begun.channel);
                Step::challenge(State::ScramFinal(Box::new(waiting)), ours)
            }
            _ => Step::Failed(Fault::Internal, None),
        }
    }
}

/// A login name: UTF-8 without NUL, not empty.
fn name(response: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(response).ok()?;
    let fits = !text.is_empty() && text.len() <= NAME_OCTETS_MAX && !text.contains('\0');
    fits.then(|| text.to_owned())
}
