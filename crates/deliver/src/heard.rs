//! What a conversation said, as failures for the errand and as outcomes for the journey. Pure.
//!
//! Promises: what is kept of a server's words is bounded, and they stay its own words.

use crate::conversation::Broken;
use crate::failure::Failure;
use crate::plan::Hop;
use journey::{AttemptOutcome, Reply};
use mail::EnhancedStatus;
use queue::REPLY_OCTETS_MAX;
use smtp::client::{CannotSend, Failure as SessionFailure, ServerReply, Stage, Verdict};

pub(crate) fn told(reply: &ServerReply) -> Reply {
    Reply {
        code: reply.code,
        status: reply.status,
        text: words(reply),
    }
}

pub(crate) fn of_peer(host: &str, reply: &ServerReply) -> Failure {
    Failure::of_peer(host, reply.code, reply.status, &words(reply))
}

/// A reply's words on one line. A server may say a megabyte, at each hop of each attempt; what is
/// kept, told and logged of it is [`REPLY_OCTETS_MAX`] at most. Many servers repeat the status on
/// each line (RFC 2034 §4); it is told once, as the first line has it.
fn words(reply: &ServerReply) -> String {
    let Some((first, further)) = reply.lines.split_first() else {
        return String::new();
    };
    let status = EnhancedStatus::parse_prefix(first).map(|(status, _)| status);
    let mut text = first.clone();
    for line in further {
        let words = match EnhancedStatus::parse_prefix(line) {
            Some((again, words)) if Some(again) == status => words,
            _ => line,
        };
        if !words.is_empty() {
            text.push(' ');
            text.push_str(words);
        }
    }
    cut(text)
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(REPLY_OCTETS_MAX));
    text
}

pub(crate) fn session_stage(failure: &SessionFailure) -> Option<Stage> {
    match failure {
        SessionFailure::Refused { stage, .. }
        | SessionFailure::Protocol { stage, .. }
        | SessionFailure::Unexpected { stage, .. }
        | SessionFailure::Lost { stage }
        | SessionFailure::TimedOut { stage } => Some(*stage),
        SessionFailure::DataBehindStartTls => Some(Stage::StartTls),
        SessionFailure::Miscounted | SessionFailure::ChunkingDenied { .. } => Some(Stage::Body),
        SessionFailure::TlsNotOffered | SessionFailure::AuthNotOffered | SessionFailure::AuthNeedsTls => None,
    }
}

pub(crate) fn session_failure(hop: &Hop, failure: &SessionFailure) -> Failure {
    let host = hop.host.to_string();
    let ours = |subject, detail| {
        let words = cut(format!("{host} at {}: {failure}", hop.place()));
        Failure::ours(451, EnhancedStatus::new(4, subject, detail), words)
    };
    match failure {
        // Wrong settings of ours must not bounce other people's mail: it waits until they are right.
        SessionFailure::Refused {
            stage: Stage::Auth,
            reply,
        } => Failure {
            status: EnhancedStatus::new(4, 7, 8),
            ..of_peer(&host, reply)
        },
        // Told only where TLS is required. It is refused, not the mail; the next server may differ.
        SessionFailure::Refused {
            stage: Stage::StartTls,
            reply,
        } => Failure {
            status: EnhancedStatus::new(4, 7, 5),
            ..of_peer(&host, reply)
        },
        SessionFailure::Refused { reply, .. } => of_peer(&host, reply),
        SessionFailure::TlsNotOffered => ours(7, 10),
        SessionFailure::AuthNotOffered => ours(7, 8),
        SessionFailure::AuthNeedsTls => ours(7, 11),
        SessionFailure::DataBehindStartTls => ours(7, 5),
        SessionFailure::Protocol { .. }
        | SessionFailure::Unexpected { .. }
        | SessionFailure::ChunkingDenied { .. } => ours(5, 0),
        SessionFailure::Lost { .. } | SessionFailure::TimedOut { .. } => ours(4, 2),
        SessionFailure::Miscounted => ours(3, 0),
    }
}

pub(crate) fn failure_of(hop: &Hop, broken: &Broken) -> Failure {
    let temporary =
        |subject, detail, words: String| Failure::ours(451, EnhancedStatus::new(4, subject, detail), words);
    match broken {
        Broken::Connect(_) | Broken::ConnectTimeout(_) => temporary(4, 1, in_words(hop, broken)),
        Broken::Unsafe(failure) => failure.clone(),
        Broken::Handshake(_) | Broken::Resumption(_) => temporary(7, 5, in_words(hop, broken)),
        Broken::Session(failure) => session_failure(hop, failure),
        Broken::Cannot(CannotSend::NotReady) => temporary(3, 0, in_words(hop, broken)),
        Broken::Cannot(cannot) => {
            let (code, subject, detail) = match cannot {
                CannotSend::NeedsSmtpUtf8 => (553, 6, 7),
                CannotSend::TooLarge { .. } => (552, 3, 4),
                CannotSend::NeedsBinaryMime => (554, 6, 3),
                CannotSend::NeedsTls => (550, 7, 10),
                CannotSend::NeedsRequireTls => (550, 7, 30),
                CannotSend::NeedsDeliverBy | CannotSend::TooLate => (554, 4, 7),
                CannotSend::NotReady => (554, 3, 0),
            };
            Failure::ours(
                code,
                EnhancedStatus::new(5, subject, detail),
                in_words(hop, broken),
            )
        }
        Broken::Blob(_) => temporary(3, 0, in_words(hop, broken)),
    }
}

fn in_words(hop: &Hop, broken: &Broken) -> String {
    let (host, address) = (&hop.host, hop.place());
    match broken {
        Broken::Connect(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            format!("connection refused by {host} at {address}")
        }
        Broken::Connect(e) => format!("no connection to {host} at {address}: {e}"),
        Broken::ConnectTimeout(after) => {
            format!(
                "no connection to {host} at {address} within {} seconds",
                after.as_secs()
            )
        }
        Broken::Handshake(e) | Broken::Resumption(e) => {
            format!("the TLS handshake with {host} at {address} failed: {e}")
        }
        Broken::Session(e) => cut(format!("{host} at {address}: {e}")),
        Broken::Cannot(e) => format!("{host}: {e}"),
        Broken::Unsafe(failure) => failure.words.clone(),
        Broken::Blob(e) => format!("the message could not be read from our own store: {e}"),
    }
}

pub(crate) fn outcome_of(hop: &Hop, verdict: &Verdict) -> AttemptOutcome {
    match verdict {
        Verdict::Accepted(reply) => AttemptOutcome::Accepted { reply: told(reply) },
        Verdict::Transient { stage, reply } | Verdict::Permanent { stage, reply } => {
            AttemptOutcome::Refused {
                stage: stage.to_string(),
                reply: told(reply),
            }
        }
        Verdict::Unanswered(failure) => AttemptOutcome::Failed {
            stage: session_stage(failure).map_or_else(String::new, |s| s.to_string()),
            error: cut(format!("{} at {}: {failure}", hop.host, hop.place())),
        },
    }
}

pub(crate) fn broken_outcome(hop: &Hop, broken: &Broken) -> AttemptOutcome {
    let stage = match broken {
        Broken::Connect(_) | Broken::ConnectTimeout(_) => "connect".to_owned(),
        Broken::Handshake(_) | Broken::Resumption(_) => "TLS handshake".to_owned(),
        Broken::Unsafe(_) => "before connecting".to_owned(),
        Broken::Session(SessionFailure::Refused { stage, reply }) => {
            return AttemptOutcome::Refused {
                stage: stage.to_string(),
                reply: told(reply),
            };
        }
        Broken::Session(failure) => session_stage(failure).map_or("EHLO".to_owned(), |s| s.to_string()),
        Broken::Cannot(_) => "MAIL FROM".to_owned(),
        Broken::Blob(_) => "the message".to_owned(),
    };
    AttemptOutcome::Failed {
        stage,
        error: in_words(hop, broken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_reply_is_told_once() {
        for (lines, wanted) in [
            (
                &["5.7.1 looks like spam", "5.7.1 second line"][..],
                "5.7.1 looks like spam second line",
            ),
            (
                &["5.7.1 one", "two", "5.7.1 three", "5.7.1", ""],
                "5.7.1 one two three",
            ),
            (&["5.7.1 one", "5.7.26 two"], "5.7.1 one 5.7.26 two"),
            (
                &["5.7.1 one", "5.7.10 two", "5.7.1.9 is our version"],
                "5.7.1 one 5.7.10 two 5.7.1.9 is our version",
            ),
            (&["no status", "5.7.1 two"], "no status 5.7.1 two"),
            (&["5.7.1", "5.7.1 x"], "5.7.1 x"),
            (&[""], ""),
            (&[], ""),
        ] {
            let reply = ServerReply {
                code: 554,
                status: None,
                lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            };
            assert_eq!(words(&reply), wanted, "{lines:?}");
        }
    }
}
