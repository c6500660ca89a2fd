//! What follows from a recipient's fate: the new state of the errand, what the journey is told, and
//! whether the sender gets a report. Pure; the clock and the jitter come in.

use crate::attempt::{Fate, Taken};
use crate::dsn::Kind;
use crate::explain::{Explanation, Replies};
use crate::failure::Failure;
use crate::route::Route;
use journey::{Cause, Event, Reply};
use mail::delivery::{ByMode, Notify};
use mail::{EnhancedStatus, Timestamp, date};
use queue::{Deadline, Errand, LastOutcome, Message, Next, Outcome, Schedule};

/// A decision about one errand.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// For the queue.
    pub outcome: Outcome,
    /// For the journey.
    pub event: Event,
    /// The report that the sender gets.
    pub report: Option<Told>,
}

/// What a sender is told of one errand.
#[derive(Clone, PartialEq, Debug)]
pub struct Told {
    /// What happened.
    pub kind: Kind,
    /// Why, when it is a failure, and what that means.
    pub failure: Option<(Failure, Explanation)>,
}

/// Decides. The jitter is a random number from 0 to 1.
#[must_use]
pub fn decide(
    fate: &Fate,
    errand: &Errand,
    message: &Message,
    schedule: &Schedule,
    replies: &Replies,
    (now, jitter): (Timestamp, f64),
) -> Decision {
    let ended = |failure: &Failure, bounced| ended(failure, errand, message, replies, now, bounced);
    let failure = match fate {
        Ok(taken) => return relayed(taken, errand, message, now),
        Err(failure) => failure,
    };
    if failure.is_permanent() {
        return ended(failure, true);
    }
    if let Some(deadline) = passed(message, now) {
        return ended(&too_late(deadline, Some(failure)), false);
    }
    let attempts = errand.attempts.saturating_add(1);
    match schedule.next(attempts, errand.first_queued, now, jitter) {
        Next::Expire => ended(failure, false),
        Next::Retry(next) => {
            // The last try is at the deadline, or the word that it passed comes then.
            let deadline = message.deliver_by.map(|by| by.at).filter(|at| *at > now);
            let next = deadline.map_or(next, |at| next.min(at));
            let explanation = replies.explain(failure);
            deferred((failure, explanation), errand, message, schedule, now, next)
        }
    }
}

/// The fate of an errand whose deadline has passed, when its message is to come back then
/// (RFC 2852 §4.1.2): it is not tried any more.
#[must_use]
pub fn overdue(message: &Message, now: Timestamp) -> Option<Fate> {
    passed(message, now).map(|deadline| Err(too_late(deadline, None)))
}

/// By what the ledger counts errands that a route threw away.
const BY_ROUTE: &str = "route";

/// The end of an errand that a route throws away: nobody is told, but the journey.
#[must_use]
pub fn discarded(errand: &Errand, route: &Route, now: Timestamp) -> Decision {
    let by = format!("the route for {}", route.named());
    Decision {
        outcome: Outcome::Dropped {
            last: LastOutcome {
                class: None,
                at: now,
                host: None,
                reply: format!("250 2.0.0 thrown away by {by}"),
                status: Some(EnhancedStatus::new(2, 0, 0)),
            },
            by: BY_ROUTE,
        },
        event: Event::Dropped {
            recipient: Some(errand.recipient.clone()),
            by,
        },
        report: None,
    }
}

fn passed(message: &Message, now: Timestamp) -> Option<Deadline> {
    message
        .deliver_by
        .filter(|by| by.mode == ByMode::Return && now >= by.at)
}

fn too_late(deadline: Deadline, last: Option<&Failure>) -> Failure {
    let at = date::iso8601(deadline.at);
    let mut words = format!("the sender's deadline for the message, {at}, has passed");
    if let Some(last) = last {
        words.push_str(&format!("; the last try: {last}"));
    }
    Failure::ours(554, EnhancedStatus::new(5, 4, 7), words)
}

fn relayed(taken: &Taken, errand: &Errand, message: &Message, now: Timestamp) -> Decision {
    let last = LastOutcome {
        at: now,
        host: Some(taken.host.clone()),
        reply: format!("{} {}", taken.reply.code, taken.reply.text),
        status: taken.reply.status,
        class: None,
    };
    // RFC 3461 §5.2.2: who reports from here on, when the next server cannot.
    let success = !taken.passed_on.dsn && errand.notify.is_some_and(|notify| notify.success);
    // RFC 2852 §4.1: a trace tells of each hand-over, and the last server that knows of the deadline
    // tells that the next one does not.
    let deadline = message
        .deliver_by
        .is_some_and(|by| by.trace || (by.mode == ByMode::Notify && !taken.passed_on.deliver_by));
    let tell = success || (deadline && errand.notify != Some(Notify::NEVER));
    Decision {
        outcome: Outcome::Relayed(last),
        event: Event::Relayed {
            recipient: errand.recipient.clone(),
            host: taken.host.clone(),
            reply: taken.reply.clone(),
        },
        report: (tell && !message.reverse_path.is_null()).then_some(Told {
            // RFC 3464 §2.3.3: "delivered" is for a mailbox, "relayed" for a server that goes on.
            kind: match taken.by_lmtp {
                true => Kind::Delivered,
                false => Kind::Relayed,
            },
            failure: None,
        }),
    }
}

fn ended(
    failure: &Failure,
    errand: &Errand,
    message: &Message,
    replies: &Replies,
    now: Timestamp,
    bounced: bool,
) -> Decision {
    let recipient = errand.recipient.clone();
    let explanation = replies.explain(failure);
    let (reply, remedy) = (reply_of(failure), Some(explanation.remedy()));
    let cause = Some(cause(&explanation));
    let last = last_of(failure, &explanation, now);
    let (outcome, event) = if bounced {
        let event = Event::Bounced {
            recipient,
            reply,
            cause,
            remedy,
        };
        (Outcome::Bounced(last), event)
    } else {
        let event = Event::Expired {
            recipient,
            attempts: errand.attempts.saturating_add(1),
            reply,
            cause,
            remedy,
        };
        (Outcome::Expired(last), event)
    };
    Decision {
        outcome,
        event,
        report: wants(errand, message, |n| n.failure).then(|| Told {
            kind: Kind::Failed,
            failure: Some((failure.clone(), explanation)),
        }),
    }
}

fn deferred(
    (failure, explanation): (&Failure, Explanation),
    errand: &Errand,
    message: &Message,
    schedule: &Schedule,
    now: Timestamp,
    next: Timestamp,
) -> Decision {
    let expires = schedule.expires(errand.first_queued);
    let wanted = wants(errand, message, |n| n.delay);
    let delay_told = wanted && schedule.delay_notice_due(errand.first_queued, now, errand.delay_told);
    // RFC 2852 §4.1.2, mode N: the sender is told when the deadline passes, and it goes on.
    let late = message
        .deliver_by
        .is_some_and(|by| by.mode == ByMode::Notify && now >= by.at);
    let deadline_told = wanted && late && !errand.deadline_told;
    Decision {
        outcome: Outcome::Deferred {
            next,
            last: last_of(failure, &explanation, now),
            delay_told,
            deadline_told,
        },
        event: Event::Deferred {
            recipient: errand.recipient.clone(),
            reply: reply_of(failure),
            next_attempt: next,
            expires,
            cause: Some(cause(&explanation)),
            remedy: Some(explanation.remedy()),
        },
        report: (delay_told || deadline_told).then(|| Told {
            kind: Kind::Delayed { until: expires },
            failure: Some((failure.clone(), explanation)),
        }),
    }
}

/// Whether the sender is to be told. Never without a reverse-path (RFC 5321 §6.1); otherwise as it
/// asked (RFC 3461 §4.1), and when it did not ask, of failures and delays.
fn wants(errand: &Errand, message: &Message, what: impl Fn(Notify) -> bool) -> bool {
    !message.reverse_path.is_null() && errand.notify.is_none_or(what)
}

fn last_of(failure: &Failure, explanation: &Explanation, now: Timestamp) -> LastOutcome {
    LastOutcome {
        at: now,
        host: failure.host().map(str::to_owned),
        reply: failure.reply(),
        status: Some(failure.status),
        class: Some(explanation.class.name.clone()),
    }
}

fn cause(explanation: &Explanation) -> Cause {
    Cause {
        class: explanation.class.name.clone(),
        side: explanation.class.side.words().to_owned(),
        problem: explanation.problem().to_owned(),
    }
}

fn reply_of(failure: &Failure) -> Reply {
    Reply {
        code: failure.code,
        status: Some(failure.status),
        text: failure.words.clone(),
    }
}
