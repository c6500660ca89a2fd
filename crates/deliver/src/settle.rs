//! What follows from a recipient's fate: the new state of the errand, what the journey is told, and
//! whether the sender gets a report. Pure; the clock and the jitter come in.

use crate::attempt::{Fate, Taken};
use crate::dsn::Kind;
use crate::explain::explain;
use crate::failure::Failure;
use journey::{Event, Reply};
use mail::delivery::Notify;
use mail::{ReversePath, Timestamp};
use queue::{Errand, LastOutcome, Next, Outcome, Schedule};

/// A decision about one errand.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// For the queue.
    pub outcome: Outcome,
    /// For the journey.
    pub event: Event,
    /// The report that the sender gets, and why.
    pub report: Option<(Kind, Failure)>,
}

/// Decides. `jitter` is a random number from 0 to 1.
#[must_use]
pub fn decide(
    fate: &Fate,
    errand: &Errand,
    sender: &ReversePath,
    schedule: &Schedule,
    now: Timestamp,
    jitter: f64,
) -> Decision {
    match fate {
        Ok(taken) => relayed(taken, errand, now),
        Err(failure) if failure.is_permanent() => ended(failure, errand, sender, now, true),
        Err(failure) => {
            let attempts = errand.attempts.saturating_add(1);
            match schedule.next(attempts, errand.first_queued, now, jitter) {
                Next::Expire => ended(failure, errand, sender, now, false),
                Next::Retry(next) => deferred(failure, errand, sender, schedule, now, next),
            }
        }
    }
}

fn relayed(taken: &Taken, errand: &Errand, now: Timestamp) -> Decision {
    let last = LastOutcome {
        at: now,
        host: Some(taken.host.clone()),
        reply: format!("{} {}", taken.reply.code, taken.reply.text),
        status: taken.reply.status,
    };
    Decision {
        outcome: Outcome::Relayed(last),
        event: Event::Relayed {
            recipient: errand.recipient.clone(),
            host: taken.host.clone(),
            reply: taken.reply.clone(),
        },
        report: None,
    }
}

fn ended(
    failure: &Failure,
    errand: &Errand,
    sender: &ReversePath,
    now: Timestamp,
    bounced: bool,
) -> Decision {
    let recipient = errand.recipient.clone();
    let (reply, remedy) = (reply_of(failure), Some(explain(failure).remedy.to_owned()));
    let (outcome, event) = if bounced {
        let event = Event::Bounced {
            recipient,
            reply,
            remedy,
        };
        (Outcome::Bounced(last_of(failure, now)), event)
    } else {
        let event = Event::Expired {
            recipient,
            attempts: errand.attempts.saturating_add(1),
            reply,
            remedy,
        };
        (Outcome::Expired(last_of(failure, now)), event)
    };
    Decision {
        outcome,
        event,
        report: wants(errand, sender, |n| n.failure).then(|| (Kind::Failed, failure.clone())),
    }
}

fn deferred(
    failure: &Failure,
    errand: &Errand,
    sender: &ReversePath,
    schedule: &Schedule,
    now: Timestamp,
    next: Timestamp,
) -> Decision {
    let expires = schedule.expires(errand.first_queued);
    let tell = schedule.delay_notice_due(errand.first_queued, now, errand.delay_told)
        && wants(errand, sender, |n| n.delay);
    Decision {
        outcome: Outcome::Deferred {
            next,
            last: last_of(failure, now),
            delay_told: tell,
        },
        event: Event::Deferred {
            recipient: errand.recipient.clone(),
            reply: reply_of(failure),
            next_attempt: next,
            expires,
            remedy: Some(explain(failure).remedy.to_owned()),
        },
        report: tell.then(|| (Kind::Delayed { until: expires }, failure.clone())),
    }
}

/// Whether the sender is to be told. Never without a reverse-path (RFC 5321 §6.1); otherwise as it
/// asked (RFC 3461 §4.1), and when it did not ask, of failures and delays.
fn wants(errand: &Errand, sender: &ReversePath, what: impl Fn(Notify) -> bool) -> bool {
    !sender.is_null() && errand.notify.is_none_or(what)
}

fn last_of(failure: &Failure, now: Timestamp) -> LastOutcome {
    LastOutcome {
        at: now,
        host: failure.host().map(str::to_owned),
        reply: failure.reply(),
        status: Some(failure.status),
    }
}

fn reply_of(failure: &Failure) -> Reply {
    Reply {
        code: failure.code,
        status: Some(failure.status),
        text: failure.words.clone(),
    }
}
