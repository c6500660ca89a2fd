//! The keys of this crate's tables, 0x10 to 0x1f.
//!
//! | table | key | value |
//! |---|---|---|
//! | 0x10 | domain | domain record with signing keys |
//! | 0x11 | account id | account record |
//! | 0x12 | folded address | owner: an account's primary address, an alias, or a group |
//! | 0x13 | account id, app password id | app password |
//! | 0x14 | account id, app password id (0: main password) | last use |
//! | 0x15 | which | counters: account ids, app password ids |
//! | 0x16 | domain, account id | account of a domain, empty |
//! | 0x17 | account id | last TOTP step that was used |
//! | 0x18 | account id (0: unknown users), place in the ring | an entry of the login log |
//! | 0x19 | account id, app password id (0: main password) | keys of SCRAM |
//! | 0x19 | 0 | the secret that salts are derived from |
//! | 0x1a | 1 | the secret by which senders of forwarded mail are rewritten |
//! | 0x1a | 2, account id | quota of the account's own |
//! | 0x1a | 3, day, number | a sender that is too long to be written out |
//! | 0x1b | account id, folded address or `@domain` | what the account may send as, empty |
//! | 0x1c | `example.com`, `.example.com` or `*` | route: what is done with mail for these domains |

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

/// The login log of an account; of unknown users when there is none.
pub(crate) fn login_log(id: Option<AccountId>) -> Key {
    Key::table(0x18).u64(id.map_or(0, |id| id.0))
}

pub(crate) fn login_entry(id: Option<AccountId>, place: u64) -> Key {
    login_log(id).u64(place)
}

pub(crate) fn scrams_of(id: AccountId) -> Key {
    Key::table(0x19).u64(id.0)
}

pub(crate) fn scram(id: AccountId, app: u64) -> Key {
    scrams_of(id).u64(app)
}

/// No account has the number 0.
pub(crate) fn scram_secret() -> Key {
    Key::table(0x19).u64(0)
}

pub(crate) fn settings_of_server() -> Key {
    Key::table(0x1a)
}

pub(crate) fn srs_secret() -> Key {
    settings_of_server().u8(1)
}

pub(crate) fn own_quotas() -> Key {
    settings_of_server().u8(2)
}

pub(crate) fn own_quota(id: AccountId) -> Key {
    own_quotas().u64(id.0)
}

pub(crate) fn kept_senders() -> Key {
    settings_of_server().u8(3)
}

pub(crate) fn kept_sender(day: u32, number: u64) -> Key {
    kept_senders().u32(day).u64(number)
}

pub(crate) fn grants_of(id: AccountId) -> Key {
    Key::table(0x1b).u64(id.0)
}

pub(crate) fn grant(id: AccountId, folded: &str) -> Key {
    grants_of(id).text(folded)
}

pub(crate) fn routes() -> Key {
    Key::table(0x1c)
}

pub(crate) fn route(pattern: &str) -> Key {
    routes().text(pattern)
}

/// Topic: the routes have changed.
pub(crate) fn routes_topic() -> Topic {
    Topic(routes().as_bytes().to_vec())
}

/// Topic: logins of the account may have ended.
pub(crate) fn logins_topic(id: AccountId) -> Topic {
    Topic(account(id).as_bytes().to_vec())
}

/// The tables whose rows belong to an account: app passwords, last uses, the list of a domain's
/// accounts, TOTP steps, login logs, keys of SCRAM, grants. What belongs to nobody stands under 0.
pub(crate) const BELONGINGS: [u8; 7] = [0x13, 0x14, LISTING, 0x17, 0x18, 0x19, 0x1b];

/// The table that lists a domain's accounts.
pub(crate) const LISTING: u8 = 0x16;
