//! MTA-STS (RFC 8461): a domain says over HTTPS which hosts take its mail, and that their TLS
//! certificates must verify.
//!
//! Promises: a policy that was fetched holds until its age is over, across restarts, whoever takes
//! the DNS record away or blocks the policy host; a fetch that fails never lets a policy end early
//! and is not repeated at once; what strangers serve is read within limits.
//!
//! Never: a socket, a clock of its own, a decision about one delivery (`deliver` makes it).

pub mod cache;
pub mod fetch;
pub mod hosted;
mod keys;
pub mod memory;
pub mod policies;
pub mod policy;
pub mod record;

pub use cache::Entry;
pub use fetch::{Fault, FaultKind, Fetch};
pub use memory::{Error, Memory};
pub use policies::{Applied, Found, Policies};
pub use policy::{Mode, Pattern, Policy};
pub use record::Id;

/// Reads arbitrary octets as a record and as a policy; what is read must be written and read back as
/// the same.
///
/// # Panics
/// When it is not.
pub fn fuzz(data: &[u8]) {
    let texts: Vec<&[u8]> = data.split(|b| *b == 0).collect();
    if let Ok(Some(id)) = record::find(&texts) {
        assert_eq!(Id::parse(id.as_str()), Ok(id));
    }
    if let Ok(policy) = Policy::parse(data) {
        let body = policy.to_body();
        // Short line ends and names beyond ASCII grow when they are written.
        if body.len() <= policy::BODY_OCTETS_MAX {
            assert_eq!(Policy::parse(body.as_bytes()).as_ref(), Ok(&policy));
        }
        assert!(policy.mx.len() <= policy::PATTERNS_MAX);
        let record = hosted::record_of(&policy);
        assert_eq!(record::find(&[record]), Ok(Some(hosted::id_of(&policy))));
    }
}
