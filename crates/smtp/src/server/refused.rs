//! The refusals of a session, each with the reference under which the driver records it.
//!
//! The driver says which reference is the one of the moment: the transaction's while one is open, else
//! the session's own. Promises: every refusal that the machine says ends with a reference, once one was
//! given; what waits for the driver is bounded.

use super::Server;
use super::state::{MailGiven, State};
use crate::replies;
use crate::reply::Reply;
use mail::QueueId;

/// Refusals that wait for the driver at most; further ones are said all the same.
const WAITING_MAX: usize = 20;

/// The commands that a refusal can be about, as journeys name them.
const STAGES: [&str; 16] = [
    "EHLO", "HELO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "QUIT", "STARTTLS", "NOOP", "HELP",
    "VRFY", "EXPN", "AUTH", "XCLIENT",
];

/// Something that the machine refused by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Under which id it was told.
    pub reference: QueueId,
    /// At which command.
    pub stage: &'static str,
    /// The reply, as it stands in the table.
    pub reply: Reply,
}

/// What was refused, and what a refusal now would be about.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    reference: Option<QueueId>,
    stage: Option<&'static str>,
    waiting: Vec<Refused>,
    /// The command before was DATA, and it was refused.
    data: bool,
}

impl Refusals {
    /// Notes at which command the session is.
    pub(super) fn at(&mut self, stage: &'static str) {
        self.stage = Some(stage);
    }

    /// The same, for a line whose first word tells it.
    pub(super) fn at_line(&mut self, line: &[u8]) {
        let verb = line.split(|b| *b == b' ').next().unwrap_or_default();
        let known = STAGES.iter().find(|s| verb.eq_ignore_ascii_case(s.as_bytes()));
        self.stage = Some(known.copied().unwrap_or("an unknown command"));
    }
}

impl Server {
    /// Remembers whether the command that was just done was a refused DATA.
    pub(super) fn data_was_refused(&mut self, was: bool) {
        self.refused.data = was;
    }

    /// What is said of a line that is no command: behind a refused DATA it is the first line of a message
    /// whose client does not read replies, and nothing of that message may be taken for commands.
    pub(super) fn about_no_command(&self, reply: Reply) -> Reply {
        if self.refused.data && reply == replies::UNKNOWN_COMMAND {
            return replies::MESSAGE_WITHOUT_DATA;
        }
        reply
    }

    /// From now on refusals end with this reference. A driver sets it at the beginning, and when a
    /// transaction begins and ends. Without one, refusals have none and are not kept.
    pub fn refer_to(&mut self, reference: QueueId) {
        self.refused.reference = Some(reference);
    }

    /// Takes what was refused since the last call; what the driver's own answers refused with a
    /// reference is not among it.
    #[must_use]
    pub fn take_refused(&mut self) -> Vec<Refused> {
        std::mem::take(&mut self.refused.waiting)
    }

    /// The name in EHLO or HELO; empty before.
    #[must_use]
    pub fn helo(&self) -> &str {
        match &self.state {
            State::Greeted(greeted)
            | State::MailGiven(MailGiven { greeted, .. })
            | State::Auth(greeted, ..) => &greeted.helo,
            State::RcptGiven(given) => &given.given.greeted.helo,
            State::Body(body) => &body.greeted.helo,
            State::Chunk(chunks) | State::BetweenChunks(chunks) => &chunks.greeted.helo,
            _ => "",
        }
    }

    /// The reply as it is said: a refusal ends with the reference, and is kept for the driver.
    pub(super) fn referenced(&mut self, reply: &Reply) -> Reply {
        let refuses = reply.is_transient() || reply.is_permanent();
        let Some(reference) = self
            .refused
            .reference
            .filter(|_| refuses && !reply.has_reference())
        else {
            return reply.clone();
        };
        if self.refused.waiting.len() < WAITING_MAX {
            self.refused.waiting.push(Refused {
                reference,
                stage: self.refused.stage.unwrap_or("connect"),
                reply: reply.clone(),
            });
        }
        reply.clone().with_reference(reference)
    }
}
