//! The keys of this crate's tables, 0x50 to 0x5f.
//!
//! | table | key | value |
//! |---|---|---|
//! | 0x50 | subject: an address, a network or a login | block: from, until, why, by whom |
//! | 0x51 | day (days since 1970, UTC), account id, what (1 messages, 2 first-time recipients) | counter: recipients elsewhere that took a message that day |
//! | 0x52 | account id, folded address | recipient to whom the account has written: the day of the first time, 4 octets |
//! | 0x53 | account id | the account's own daily limits |
//! | 0x54 | sender: a login or `@domain`, folded address | address that is not written to: from, until, which server refused it, its words |

use crate::network::Subject;
use mail::AccountId;
use store::Key;

/// What a daily counter counts.
#[derive(Clone, Copy)]
pub(crate) enum What {
    Messages = 1,
    FirstRecipients = 2,
}

pub(crate) fn blocks() -> Key {
    Key::table(0x50)
}

pub(crate) fn block(subject: &Subject) -> Key {
    blocks().text(&subject.to_string())
}

pub(crate) fn days() -> Key {
    Key::table(0x51)
}

pub(crate) fn day(day: u32, account: AccountId, what: What) -> Key {
    days().u32(day).u64(account.0).u8(what as u8)
}

pub(crate) fn known() -> Key {
    Key::table(0x52)
}

pub(crate) fn known_recipient(account: AccountId, folded: &str) -> Key {
    known().u64(account.0).text(folded)
}

pub(crate) fn account(account: AccountId) -> Key {
    Key::table(0x53).u64(account.0)
}

pub(crate) fn suppressions() -> Key {
    Key::table(0x54)
}

pub(crate) fn suppressed(sender: &str, folded: &str) -> Key {
    suppressions().text(sender).text(folded)
}
