//! What the sender asked about the message's delivery, from parameters to what the queue keeps. Pure.

use mail::delivery::{DeliverBy, Notify, OriginalRecipient, Priority, Ret};
use mail::{EmailAddress, Timestamp};
use queue::{Body, Deadline, NewErrand};
use smtp::command::{MailFrom, RcptTo};
use std::time::Duration;

/// What MAIL asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    /// What is told to whoever gets a report (RFC 3461 §4.4).
    pub(crate) envid: Option<String>,
    /// How much of the message a report brings back (RFC 3461 §4.3).
    pub(crate) ret: Option<Ret>,
    /// Whether it may travel by TLS only (RFC 8689).
    pub(crate) require_tls: bool,
    /// Until when it waits here (RFC 4865); only if that lies ahead.
    pub(crate) held_until: Option<Timestamp>,
    /// By when it is to be there (RFC 2852).
    pub(crate) deliver_by: Option<Deadline>,
    /// What goes first (RFC 6710).
    pub(crate) priority: Priority,
    /// Whether its body may hold any octet (RFC 3030).
    pub(crate) binary: bool,
}

impl Asked {
    pub(crate) fn of(mail: &MailFrom, now: Timestamp) -> Self {
        let held_until = mail.hold.map(|hold| hold.release(now)).filter(|at| *at > now);
        Self {
            envid: mail.envid.clone(),
            ret: mail.ret,
            require_tls: mail.require_tls,
            held_until,
            // Who holds a message back does not want it to be late before it may go.
            deliver_by: mail.deliver_by.map(|by| deadline(by, held_until.unwrap_or(now))),
            priority: mail.priority.unwrap_or_default(),
            binary: mail.body.is_binary(),
        }
    }

    /// What the next server must be able to carry.
    pub(crate) fn body(&self, is_ascii: bool) -> Body {
        match is_ascii {
            _ if self.binary => Body::Binary,
            true => Body::SevenBit,
            false => Body::EightBit,
        }
    }
}

fn deadline(by: DeliverBy, from: Timestamp) -> Deadline {
    let time = Duration::from_secs(by.seconds.unsigned_abs());
    let at = if by.seconds < 0 {
        Timestamp(
            from.0
                .saturating_sub(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)),
        )
    } else {
        from.plus(time)
    };
    Deadline {
        at,
        mode: by.mode,
        trace: by.trace,
    }
}

/// What RCPT asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Wishes {
    /// When to report (RFC 3461 §4.1).
    pub(crate) notify: Option<Notify>,
    /// Whom the first sender named (RFC 3461 §4.2).
    pub(crate) original: Option<OriginalRecipient>,
}

impl Wishes {
    pub(crate) fn of(rcpt: &RcptTo) -> Self {
        Self {
            notify: rcpt.notify,
            original: rcpt.orcpt.clone(),
        }
    }

    /// Whether the sender wants to hear that the message arrived.
    pub(crate) fn wants_success(&self) -> bool {
        self.notify.is_some_and(|notify| notify.success)
    }

    /// The recipient's errand.
    pub(crate) fn errand(&self, recipient: &EmailAddress, due: Timestamp) -> NewErrand {
        NewErrand {
            original_recipient: self.original.clone(),
            notify: self.notify,
            ..NewErrand::to(recipient.clone(), due)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::delivery::ByMode;
    use smtp::command::{self, Command};

    fn asked(parameters: &str) -> Asked {
        let line = format!("MAIL FROM:<a@b.c> {parameters}");
        match command::parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) => Asked::of(&mail, Timestamp::from_secs(1_000)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn times_become_moments() {
        let at = |secs| Timestamp::from_secs(secs);
        let by = asked("BY=120;RT").deliver_by.unwrap();
        assert_eq!((by.at, by.mode, by.trace), (at(1_120), ByMode::Return, true));
        assert_eq!(asked("BY=-20;N").deliver_by.unwrap().at, at(980));
        assert_eq!(asked("HOLDFOR=60").held_until, Some(at(1_060)));
        assert_eq!(asked("HOLDUNTIL=1970-01-01T00:00:01Z").held_until, None);
        assert_eq!(asked("HOLDFOR=60 BY=10;N").deliver_by.unwrap().at, at(1_070));
    }

    #[test]
    fn bodies() {
        assert_eq!(asked("BODY=BINARYMIME").body(true), Body::Binary);
        assert_eq!(asked("BODY=8BITMIME").body(true), Body::SevenBit);
        assert_eq!(asked("").body(false), Body::EightBit);
    }
}
