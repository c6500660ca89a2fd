//! The states of a server session. Each owns what it may know; going on consumes it, so that "DATA
//! before RCPT" has nowhere to hide.

use crate::command::{ChunkSize, MailFrom, RcptTo};
use crate::framer;
use crate::reply::Reply;
use mail::Recipient;

/// The client said its name.
#[derive(Debug, Clone)]
pub(crate) struct Greeted {
    pub(crate) helo: String,
    /// EHLO rather than HELO.
    pub(crate) extended: bool,
}

/// MAIL was accepted.
#[derive(Debug)]
pub(crate) struct MailGiven {
    pub(crate) greeted: Greeted,
    pub(crate) mail: MailFrom,
}

/// At least one RCPT was accepted.
#[derive(Debug)]
pub(crate) struct RcptGiven {
    pub(crate) given: MailGiven,
    pub(crate) recipients: Vec<Recipient>,
}

/// The message is coming in.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) greeted: Greeted,
    /// How many there are.
    pub(crate) recipients: usize,
    pub(crate) framer: framer::Data,
    /// Octets of the message so far, dots unstuffed.
    pub(crate) octets: u64,
    /// Octets that came in for it, whether used or thrown away.
    pub(crate) wire_octets: u64,
    /// What will be said at the end instead of asking the driver.
    pub(crate) refusal: Option<Reply>,
}

/// The message is coming in, in chunks (RFC 3030).
#[derive(Debug)]
pub(crate) struct Chunks {
    pub(crate) greeted: Greeted,
    /// How many there are.
    pub(crate) recipients: usize,
    pub(crate) framer: framer::Chunked,
    /// Octets of the message so far.
    pub(crate) octets: u64,
    /// The chunk that came last or is coming.
    pub(crate) size: ChunkSize,
    /// Octets of it that are still to come.
    pub(crate) left: u64,
    /// What the driver wants said instead of going on.
    pub(crate) refusal: Option<Reply>,
}

/// A chunk is thrown away.
#[derive(Debug)]
pub(crate) struct Swallow {
    /// Octets of it that are still to come.
    pub(crate) left: u64,
    /// What is said then.
    pub(crate) reply: Reply,
    /// How many times.
    pub(crate) times: usize,
    /// Whether that counts as an error.
    pub(crate) counts: bool,
    /// Whether it ends the transaction.
    pub(crate) drops: bool,
    /// How the session goes on.
    pub(crate) then: State,
}

/// An AUTH exchange: what it comes to is the login's name or the refusal.
pub(crate) type Exchange = sasl::Exchange<String, Reply>;

#[derive(Debug)]
pub(crate) enum State {
    /// Nothing was said since the greeting or since TLS began.
    Fresh,
    Greeted(Greeted),
    MailGiven(MailGiven),
    RcptGiven(RcptGiven),
    Body(Box<Body>),
    Chunk(Box<Chunks>),
    /// A chunk came, and another one will.
    BetweenChunks(Box<Chunks>),
    Swallow(Box<Swallow>),
    Auth(Greeted, sasl::Mechanism, Box<Exchange>),
    /// A question is out; its token holds the state.
    Asking,
    /// 220 was said to STARTTLS.
    Handshake,
    Closed,
}

/// The envelope of a message (RFC 5321 §2.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The name in EHLO or HELO; nobody has checked it.
    pub helo: String,
    /// How it came, for Received: ESMTPS and the like (RFC 3848, RFC 6531 §4.3).
    pub protocol: &'static str,
    /// MAIL FROM and its parameters.
    pub mail: MailFrom,
    /// The accepted recipients, in the order in which they came.
    pub recipients: Vec<Recipient>,
}

/// The right to answer [`super::Question::Authenticate`].
#[must_use = "the session waits for the answer"]
#[derive(Debug)]
pub struct AuthToken {
    pub(crate) greeted: Greeted,
    pub(crate) asking: sasl::Asking<String, Reply>,
    pub(crate) mechanism: sasl::Mechanism,
}

/// The right to answer [`super::Question::Xclient`].
#[must_use = "the session waits for the answer"]
#[derive(Debug)]
pub struct XclientToken {
    pub(crate) before: Option<Greeted>,
    /// The state that the attributes lead to.
    pub(crate) after: Option<Greeted>,
}

/// The right to answer [`super::Question::Sender`].
#[must_use = "the session waits for the answer"]
#[derive(Debug)]
pub struct SenderToken {
    pub(crate) greeted: Greeted,
    pub(crate) mail: MailFrom,
}

/// The right to answer [`super::Question::Recipient`].
#[must_use = "the session waits for the answer"]
#[derive(Debug)]
pub struct RecipientToken {
    pub(crate) given: RcptGiven,
    pub(crate) rcpt: RcptTo,
}

/// The right to answer [`super::Question::Begin`].
#[must_use = "the session waits for the answer"]
#[derive(Debug)]
pub struct BeginToken {
    pub(crate) given: RcptGiven,
    /// The first chunk, when the message comes by BDAT.
    pub(crate) chunk: Option<ChunkSize>,
}

/// The right to answer [`super::Question::Message`].
#[must_use = "the session waits for the answer"]
#[derive(Debug)]
pub struct MessageToken {
    pub(crate) greeted: Greeted,
    pub(crate) recipients: usize,
}

impl RcptGiven {
    /// Back to the state that fits the number of recipients.
    pub(crate) fn settle(self) -> State {
        if self.recipients.is_empty() {
            State::MailGiven(self.given)
        } else {
            State::RcptGiven(self)
        }
    }
}
