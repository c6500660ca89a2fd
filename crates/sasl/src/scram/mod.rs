//! SCRAM (RFC 5802) with SHA-1 and SHA-256 (RFC 7677): its messages, and the keys behind them.
//!
//! The server keeps two keys instead of the password; neither lets anybody log in who has it, but
//! both let one guess at the speed of the iteration count.

mod keys;
mod message;

pub(crate) use keys::client_key;
pub use keys::{Hash, Keys, Proof, ServerSignature};
pub(crate) use message::{Bind, ClientFirst, Final, decode_name, encode_name, is_nonce};

/// What the server tells before the client proves that it knows the password: as far as anybody can
/// see, the same for a name that exists and for one that does not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Salted {
    /// At least 8 octets, the same at every login of a name.
    pub salt: Vec<u8>,
    /// How often the hash is iterated. RFC 5802 §5.1 and RFC 7677 §4 ask for 4,096 at least.
    pub iterations: u32,
    /// Our part of the nonce: printable ASCII without commas that was never used before.
    pub nonce: String,
}
