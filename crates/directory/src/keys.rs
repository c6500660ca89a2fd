//! The keys of this crate's tables, 0x10 to 0x1f.
//!
//! | table | key | value |
//! |---|---|---|
//! | 0x10 | domain | domain record with signing keys |
//! | 0x11 | account id | account record |
//! | 0x12 | folded address | owner: an account's primary address, or an alias |
//! | 0x13 | account id, app password id | app password |
//! | 0x14 | account id, app password id (0: main password) | last use |
//! | 0x15 | which | counters: account ids, app password ids |
//! | 0x16 | domain, account id | account of a domain, empty |
//! | 0x17 | account id | last TOTP step that was used |

use mail::{AccountId, Domain};
use store::{Key, Topic};

pub(crate) fn domains() -> Key {
    Key::table(0x10)
}

pub(crate) fn domain(domain: &Domain) -> Key {
    domains().text(domain.as_str())
}

pub(crate) fn accounts() -> Key {
    Key::table(0x11)
}

pub(crate) fn account(id: AccountId) -> Key {
    accounts().u64(id.0)
}

pub(crate) fn addresses() -> Key {
    Key::table(0x12)
}

pub(crate) fn address(folded: &str) -> Key {
    addresses().text(folded)
}

pub(crate) fn app_passwords_of(id: AccountId) -> Key {
    Key::table(0x13).u64(id.0)
}

pub(crate) fn app_password(id: AccountId, app: u64) -> Key {
    app_passwords_of(id).u64(app)
}

pub(crate) fn last_uses_of(id: AccountId) -> Key {
    Key::table(0x14).u64(id.0)
}

pub(crate) fn last_use(id: AccountId, app: u64) -> Key {
    last_uses_of(id).u64(app)
}

pub(crate) fn account_ids() -> Key {
    Key::table(0x15).u8(1)
}

pub(crate) fn app_password_ids() -> Key {
    Key::table(0x15).u8(2)
}

pub(crate) fn accounts_of(domain: &Domain) -> Key {
    Key::table(0x16).text(domain.as_str())
}

pub(crate) fn account_of(domain: &Domain, id: AccountId) -> Key {
    accounts_of(domain).u64(id.0)
}

pub(crate) fn totp_step(id: AccountId) -> Key {
    Key::table(0x17).u64(id.0)
}

/// Topic: logins of the account may have ended.
pub(crate) fn logins_topic(id: AccountId) -> Topic {
    Topic(account(id).as_bytes().to_vec())
}

/// The tables whose rows belong to an account: app passwords, last uses, the list of a domain's
/// accounts, TOTP steps.
pub(crate) const BELONGINGS: [u8; 4] = [0x13, 0x14, LISTING, 0x17];

/// The table that lists a domain's accounts.
pub(crate) const LISTING: u8 = 0x16;
