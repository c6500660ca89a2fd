//! What an attempt says of the site: is it there, and does it ask for less? Pure.
//!
//! Promises: what concerns one mailbox says nothing against the site; greylisting neither.

use crate::control::Heard;
use crate::conversation::Broken;
use crate::failure::Failure;
use crate::heard::{failure_of, of_peer, session_failure, session_stage};
use crate::plan::Hop;
use smtp::client::{Failure as SessionFailure, Outcome, ServerReply, Stage, Verdict};

/// What was met so far.
#[derive(Default, Debug)]
pub(crate) struct Health {
    /// A server spoke with us about the message.
    answered: bool,
    trouble: Option<Failure>,
    unreachable: Option<Failure>,
}

impl Health {
    /// The whole of it. A site of several servers is well when one of them is.
    pub(crate) fn heard(&self) -> Heard {
        match (self.answered, &self.trouble, &self.unreachable) {
            (true, ..) => Heard::Well,
            (false, Some(why), _) => Heard::Trouble(why.clone()),
            (false, None, Some(why)) => Heard::Unreachable(why.clone()),
            (false, None, None) => Heard::Nothing,
        }
    }

    /// Something that asks for less.
    pub(crate) fn trouble(&mut self, why: Failure) {
        self.trouble.get_or_insert(why);
    }

    /// One conversation with one server.
    pub(crate) fn hear(&mut self, hop: &Hop, result: &Result<Outcome, Broken>) {
        match result {
            Ok(outcome) => outcome
                .recipients
                .iter()
                .for_each(|verdict| self.hear_verdict(hop, verdict)),
            Err(broken @ (Broken::Connect(_) | Broken::ConnectTimeout(_))) => {
                self.unreachable.get_or_insert_with(|| failure_of(hop, broken));
            }
            // A login or a certificate that does not do, or a message that cannot go: not the site's load.
            Err(
                Broken::Handshake(_)
                | Broken::Resumption(_)
                | Broken::Cannot(_)
                | Broken::Blob(_)
                | Broken::Unsafe(_)
                | Broken::Session(
                    SessionFailure::TlsNotOffered
                    | SessionFailure::AuthNotOffered
                    | SessionFailure::AuthNeedsTls
                    | SessionFailure::Miscounted,
                ),
            ) => self.answered = true,
            Err(broken @ Broken::Session(SessionFailure::Refused { stage, .. })) => match stage {
                Stage::Auth | Stage::StartTls => self.answered = true,
                // 421 or 554 in place of a greeting.
                _ => self.trouble(failure_of(hop, broken)),
            },
            Err(broken @ Broken::Session(_)) => {
                self.unreachable.get_or_insert_with(|| failure_of(hop, broken));
            }
        }
    }

    fn hear_verdict(&mut self, hop: &Hop, verdict: &Verdict) {
        match verdict {
            Verdict::Transient { stage, reply } if is_trouble(*stage, reply) => {
                self.trouble(of_peer(&hop.host.to_string(), reply));
            }
            Verdict::Unanswered(failure) if session_stage(failure).is_some() => {
                self.trouble(session_failure(hop, failure));
            }
            Verdict::Accepted(_)
            | Verdict::Permanent { .. }
            | Verdict::Transient { .. }
            | Verdict::Unanswered(_) => self.answered = true,
        }
    }
}

/// Whether a 4xx asks us for less: 421, and what is said of the system, the network or a policy (RFC 3463 §3).
fn is_trouble(stage: Stage, reply: &ServerReply) -> bool {
    if reply.code == 421 {
        return true;
    }
    let words = reply.lines.join(" ").to_ascii_lowercase();
    let is_greylisting = ["greylist", "graylist", "grey-list", "grey list"]
        .iter()
        .any(|word| words.contains(word));
    if is_greylisting {
        return false;
    }
    match (reply.status, stage) {
        (Some(status), _) => matches!(status.subject, 3 | 4 | 7),
        (None, Stage::RcptTo) => reply.code == 451,
        (None, _) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::EnhancedStatus;

    #[test]
    fn what_asks_for_less() {
        let reply = |code, status: Option<(u16, u16)>, words: &str| ServerReply {
            code,
            status: status.map(|(subject, detail)| EnhancedStatus::new(4, subject, detail)),
            lines: vec![words.to_owned()],
        };
        for (stage, reply, wanted) in [
            (Stage::RcptTo, reply(421, None, "closing"), true),
            (Stage::MailFrom, reply(450, None, "busy"), true),
            (Stage::RcptTo, reply(450, None, "mailbox busy"), false),
            (Stage::RcptTo, reply(451, None, "try later"), true),
            (
                Stage::RcptTo,
                reply(451, Some((7, 1)), "Greylisted, come back"),
                false,
            ),
            (
                Stage::RcptTo,
                reply(450, Some((2, 1)), "receiving too fast"),
                false,
            ),
            (
                Stage::RcptTo,
                reply(452, Some((5, 3)), "too many recipients"),
                false,
            ),
            (
                Stage::EndOfMessage,
                reply(421, Some((7, 28)), "unusual rate"),
                true,
            ),
            (Stage::EndOfMessage, reply(452, Some((3, 1)), "no space"), true),
            (Stage::Data, reply(451, Some((4, 5)), "busy"), true),
        ] {
            assert_eq!(is_trouble(stage, &reply), wanted, "{stage} {reply:?}");
        }
    }
}
