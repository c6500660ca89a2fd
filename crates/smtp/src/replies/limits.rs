//! The part of the table about limits: who comes too often, is blocked, or has sent enough for today.
//! Each says when to come again.

use super::s;
use crate::reply::Reply;
use mail::{Timestamp, date};
use std::fmt::Display;

/// The client is blocked for a time. The connection closes.
#[must_use]
pub fn blocked(until: Timestamp, why: impl Display) -> Reply {
    Reply::made(
        421,
        s(4, 7, 0),
        format!(
            "Your address is blocked until {}: {why}; closing",
            date::iso8601(until)
        ),
    )
}

/// Too many connections in a short time from `whose` ("your address").
#[must_use]
pub fn connections_too_often(whose: &str, until: Timestamp) -> Reply {
    Reply::made(
        421,
        s(4, 7, 0),
        format!(
            "Too many connections from {whose} in a short time; connect again after {}; closing",
            date::iso8601(until)
        ),
    )
}

/// One network has too many connections.
pub const TOO_MANY_CONNECTIONS_FROM_YOUR_NETWORK: Reply = Reply::fixed(
    421,
    s(4, 7, 0),
    "Too many connections from your network; close some; closing",
);

/// Too many messages in a short time.
#[must_use]
pub fn messages_too_often(whose: &str, max: u32, until: Timestamp) -> Reply {
    Reply::made(
        450,
        s(4, 7, 0),
        format!(
            "Too many messages from {whose} in a short time (at most {max}); send the next one after {}",
            date::iso8601(until)
        ),
    )
}

/// Too many recipients in a short time.
#[must_use]
pub fn recipients_too_often(whose: &str, max: u32, until: Timestamp) -> Reply {
    Reply::made(
        452,
        s(4, 5, 3),
        format!(
            "Too many recipients from {whose} in a short time (at most {max}); name the next one after {}",
            date::iso8601(until)
        ),
    )
}

/// The account has sent its messages of the day.
#[must_use]
pub fn account_messages_per_day(login: impl Display, max: u32, until: Timestamp) -> Reply {
    Reply::made(
        452,
        s(4, 7, 1),
        format!(
            "{login} has sent its {max} messages of today; more can go from {} on. \
             The operator can raise the limit: posthaste account limit {login} --messages N",
            date::iso8601(until)
        ),
    )
}

/// The address was refused as unknown, and is not tried again for this sender.
#[must_use]
pub fn suppressed(address: impl Display, host: &str, from: Timestamp, until: Timestamp) -> Reply {
    Reply::made(
        550,
        s(5, 1, 1),
        format!(
            "{address} does not exist, {host} said on {}; it is not tried again for you until {}. \
             If it exists now, the operator can end that: posthaste suppression remove {address}",
            date::iso8601(from),
            date::iso8601(until)
        ),
    )
}

/// The account has written to its new recipients of the day.
#[must_use]
pub fn account_first_recipients_per_day(login: impl Display, max: u32, until: Timestamp) -> Reply {
    Reply::made(
        452,
        s(4, 7, 1),
        format!(
            "{login} has written to its {max} new recipients of today; further new ones can be written to \
             from {} on. The operator can raise the limit: posthaste account limit {login} --recipients N",
            date::iso8601(until)
        ),
    )
}

/// The message comes in more slowly than the least rate.
#[must_use]
pub fn message_too_slow(octets_per_second: u32) -> Reply {
    Reply::made(
        421,
        s(4, 4, 2),
        format!("The message comes in too slowly (less than {octets_per_second} octets a second); closing"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_for_now_and_says_until_when() {
        let until = Timestamp::from_secs(1_795_439_053);
        for reply in [
            blocked(until, "too many failed logins"),
            connections_too_often("your address", until),
            messages_too_often("your login", 10, until),
            recipients_too_often("your network", 10, until),
            account_messages_per_day("mia@example.com", 1_000, until),
            account_first_recipients_per_day("mia@example.com", 200, until),
        ] {
            assert_eq!(reply.code / 100, 4, "{reply}");
            assert_eq!(u16::from(reply.status.unwrap().class), 4, "{reply}");
            assert!(reply.text.contains("2026-11-23T"), "{reply}");
        }
        let reply = suppressed("bob@example.com", "mx.example.com", until, until);
        assert_eq!((reply.code, reply.status), (550, Some(s(5, 1, 1))));
        assert!(message_too_slow(50).text.contains("50 octets"));
    }
}
