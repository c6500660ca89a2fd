//! The keys of this crate's table, 0x90 to 0x9f.
//!
//! | table | key | value |
//! |---|---|---|
//! | 0x90 | domain | MTA-STS policy that holds for mail to the domain, its id, when it was fetched, the last fetch |

use mail::Domain;
use store::Key;

pub(crate) fn policies() -> Key {
    Key::table(0x90)
}

pub(crate) fn policy(domain: &Domain) -> Key {
    policies().text(domain.as_str())
}
