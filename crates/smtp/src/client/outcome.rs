//! What became of a session and of a message: who said what, and what that allows.

use super::reply::{ReplyError, ServerReply};
use super::wishes::PassedOn;
use std::fmt;

/// What the server was asked when something happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It had to greet.
    Greeting,
    /// EHLO or HELO.
    Ehlo,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth,
    /// MAIL FROM.
    MailFrom,
    /// RCPT TO.
    RcptTo,
    /// DATA, before the message.
    Data,
    /// The message, whose end mark was not sent yet.
    Body,
    /// The end of the message: it may have been accepted (RFC 1047).
    EndOfMessage,
    /// RSET.
    Reset,
    /// QUIT.
    Quit,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Greeting => "the greeting",
            Stage::Ehlo => "EHLO",
            Stage::StartTls => "STARTTLS",
            Stage::Auth => "AUTH",
            Stage::MailFrom => "MAIL FROM",
            Stage::RcptTo => "RCPT TO",
            Stage::Data => "DATA",
            Stage::Body => "the message",
            Stage::EndOfMessage => "the end of the message",
            Stage::Reset => "RSET",
            Stage::Quit => "QUIT",
        })
    }
}

/// What became of one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The server took the message for this recipient; it is responsible now.
    Accepted(ServerReply),
    /// 4xx: try later.
    Transient {
        /// What was refused.
        stage: Stage,
        /// The exact words.
        reply: ServerReply,
    },
    /// 5xx: trying again cannot help.
    Permanent {
        /// What was refused.
        stage: Stage,
        /// The exact words.
        reply: ServerReply,
    },
    /// No answer: the session broke. At [`Stage::EndOfMessage`] the message may have been taken.
    /// Try later.
    Unanswered(Failure),
}

impl Verdict {
    /// The verdict that a final reply at `stage` stands for.
    #[must_use]
    pub fn of(stage: Stage, reply: ServerReply) -> Self {
        if reply.is_positive() {
            Verdict::Accepted(reply)
        } else if reply.is_permanent() {
            Verdict::Permanent { stage, reply }
        } else {
            Verdict::Transient { stage, reply }
        }
    }

    /// Whether the server took responsibility.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        matches!(self, Verdict::Accepted(_))
    }
}

/// What became of a message: one verdict for each recipient, in the order of the envelope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The verdicts.
    pub recipients: Vec<Verdict>,
    /// What of the sender's wishes the server was told.
    pub passed_on: PassedOn,
    /// Whether it went, or was to go, by BDAT.
    pub by_chunks: bool,
}

impl Outcome {
    /// The server's words, when it offers CHUNKING and refused the command itself: whoever has no
    /// verdict may be sent to over a new connection, by DATA.
    #[must_use]
    pub fn chunking_denied(&self) -> Option<&ServerReply> {
        self.recipients.iter().find_map(|verdict| match verdict {
            Verdict::Unanswered(Failure::ChunkingDenied { reply }) => Some(reply),
            _ => None,
        })
    }

    /// Whether it was on its way by BDAT when the session broke. A session that broke before the first
    /// chunk says nothing about BDAT.
    #[must_use]
    pub fn broke_in_chunks(&self) -> bool {
        let in_chunks = |verdict: &Verdict| match verdict {
            Verdict::Unanswered(
                Failure::Lost { stage }
                | Failure::TimedOut { stage }
                | Failure::Protocol { stage, .. }
                | Failure::Unexpected { stage, .. }
                | Failure::Refused { stage, .. },
            ) => matches!(stage, Stage::Body | Stage::EndOfMessage),
            _ => false,
        };
        self.by_chunks && self.recipients.iter().any(in_chunks)
    }
}

/// Why a session came to nothing. Only [`Failure::Refused`] with a 5xx reply is final, and even
/// that only for this host (RFC 5321 §3.1: 554 in the greeting).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server refused a step that the session cannot do without.
    #[error("at {stage} the server said: {reply}")]
    Refused {
        /// The step.
        stage: Stage,
        /// The exact words.
        reply: ServerReply,
    },
    /// TLS is a must and the server does not offer it.
    #[error("TLS is required and the server does not offer STARTTLS")]
    TlsNotOffered,
    /// A login is configured and the server offers no mechanism that we have.
    #[error("the server offers no login that we can use (AUTH PLAIN or LOGIN)")]
    AuthNotOffered,
    /// A login is configured and the connection is not inside TLS.
    #[error("the password is not sent because the connection is not inside TLS")]
    AuthNeedsTls,
    /// What came is no reply.
    #[error("at {stage}: {error}")]
    Protocol {
        /// The step.
        stage: Stage,
        /// What was wrong.
        error: ReplyError,
    },
    /// A well-formed reply that makes no sense at this step.
    #[error("at {stage} the server gave an answer that does not belong there: {reply}")]
    Unexpected {
        /// The step.
        stage: Stage,
        /// The exact words.
        reply: ServerReply,
    },
    /// The server sent more behind its answer to STARTTLS (an attempt to slip in words in clear).
    #[error("the server sent data in clear behind its answer to STARTTLS")]
    DataBehindStartTls,
    /// The server offers CHUNKING and does not know BDAT. The connection is of no use any more: the
    /// two sides may not agree about where commands begin.
    #[error("the server offers CHUNKING and refused BDAT, so the message is to go by DATA: {reply}")]
    ChunkingDenied {
        /// The exact words.
        reply: ServerReply,
    },
    /// The caller gave another number of octets than it had announced: a fault of the caller. The
    /// session ends before the server could take half a message for a whole one.
    #[error("the message does not have the size that was announced for it")]
    Miscounted,
    /// The connection was lost.
    #[error("the connection was lost at {stage}")]
    Lost {
        /// The step.
        stage: Stage,
    },
    /// The server was silent for too long.
    #[error("the server did not answer in time at {stage}")]
    TimedOut {
        /// The step.
        stage: Stage,
    },
}

/// Why a message cannot be sent through this session. Another server may be able to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotSend {
    /// An address or header beyond ASCII, and no SMTPUTF8 (RFC 6531 §3.2). Permanent: 5.6.7.
    #[error("the message needs SMTPUTF8, which the server does not offer")]
    NeedsSmtpUtf8,
    /// Larger than the server's SIZE (RFC 1870). Permanent: 5.3.4.
    #[error("the message is larger than the {max_octets} octets that the server takes")]
    TooLarge {
        /// What the server offered.
        max_octets: u64,
    },
    /// A binary body, and no BINARYMIME with CHUNKING (RFC 3030 §3). Permanent: 5.6.3.
    #[error("the message has a binary body, and the server does not offer BINARYMIME and CHUNKING")]
    NeedsBinaryMime,
    /// The sender requires TLS and the connection has none (RFC 8689). Permanent: 5.7.10.
    #[error("the sender requires TLS, and the server does not offer STARTTLS")]
    NeedsTls,
    /// The sender requires TLS all the way, and the server does not promise that (RFC 8689).
    /// Permanent: 5.7.30.
    #[error("the sender requires TLS all the way, and the server does not offer REQUIRETLS")]
    NeedsRequireTls,
    /// The message is to come back when it is late, and the server knows no deadlines (RFC 2852
    /// §4.1.4). Permanent: 5.4.7.
    #[error("the sender set a deadline for the message, and the server does not offer DELIVERBY")]
    NeedsDeliverBy,
    /// The message is to come back when it is late, and the server cannot make it in time (RFC 2852).
    /// Permanent: 5.4.7.
    #[error("the sender set a deadline for the message, and the server does not take one as near")]
    TooLate,
    /// The session is not ready for a message: a fault of the caller.
    #[error("the session is not ready for a message")]
    NotReady,
}
