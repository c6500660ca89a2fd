//! The keys of RFC 5802 §3, and the check of a proof.

use aws_lc_rs::{digest, hmac, pbkdf2};
use mail::Secret;
use mail::secret::constant_time_eq;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;

/// The hash function of a mechanism.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hash {
    /// SCRAM-SHA-1. Its weakness against collisions does not matter to HMAC.
    Sha1,
    /// SCRAM-SHA-256.
    Sha256,
}

impl Hash {
    const fn octets(self) -> usize {
        match self {
            Hash::Sha1 => 20,
            Hash::Sha256 => 32,
        }
    }

    fn hmac(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => hmac::HMAC_SHA256,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), text)
            .as_ref()
            .to_vec()
    }

    fn digest(self, text: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &digest::SHA256,
        };
        digest::digest(algorithm, text).as_ref().to_vec()
    }

    /// `Hi(password, salt, iterations)`; slow on purpose.
    fn salted_password(self, password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let algorithm = match self {
            Hash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        };
        let mut out = vec![0u8; self.octets()];
        pbkdf2::derive(algorithm, iterations, salt, password, &mut out);
        out
    }
}

/// The text whose octets are hashed (RFC 4013, as a stored string). A password that the profile
/// does not take is used as it is, as most clients do.
fn prepared(password: &str) -> std::borrow::Cow<'_, str> {
    if password.is_ascii() {
        return password.into();
    }
    stringprep::saslprep(password).unwrap_or_else(|_| password.into())
}

fn salted(hash: Hash, password: &Secret, salt: &[u8], iterations: u32) -> Vec<u8> {
    let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    hash.salted_password(prepared(password.expose()).as_bytes(), salt, iterations)
}

/// The client's key and the signature key of the server, from the password.
pub(crate) fn client_key(
    hash: Hash,
    password: &Secret,
    salt: &[u8],
    iterations: u32,
    auth_message: &[u8],
) -> (Vec<u8>, ServerSignature) {
    let salted = salted(hash, password, salt, iterations);
    let client = hash.hmac(&salted, b"Client Key");
    let signature = hash.hmac(&hash.digest(&client), auth_message);
    let proof = xor(&client, &signature);
    let server = hash.hmac(&salted, b"Server Key");
    (proof, ServerSignature(hash.hmac(&server, auth_message)))
}

/// What the server keeps of a password: StoredKey and ServerKey.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    stored: Vec<u8>,
    server: Vec<u8>,
}

impl Keys {
    /// Derives them; slow on purpose (milliseconds for 10,000 iterations).
    #[must_use]
    pub fn derive(hash: Hash, password: &Secret, salt: &[u8], iterations: u32) -> Self {
        let salted = salted(hash, password, salt, iterations);
        Self {
            stored: hash.digest(&hash.hmac(&salted, b"Client Key")),
            server: hash.hmac(&salted, b"Server Key"),
        }
    }

    /// Keys that no password is known for, for a name that nobody has.
    #[must_use]
    pub fn unmatchable(hash: Hash) -> Self {
        Self {
            stored: vec![0; hash.octets()],
            server: vec![0; hash.octets()],
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// A client's claim to know a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof {
    /// By which hash function.
    pub hash: Hash,
    /// All that both sides have said (RFC 5802 §3).
    pub(crate) auth_message: Vec<u8>,
    pub(crate) proof: Vec<u8>,
}

impl Proof {
    /// Whether who made it knows the password of these keys; then the signature by which the client
    /// can tell that the server knows them too.
    #[must_use]
    pub fn verify(&self, keys: &Keys) -> Option<ServerSignature> {
        let signature = self.hash.hmac(&keys.stored, &self.auth_message);
        let client = xor(&self.proof, &signature);
        let right =
            self.proof.len() == signature.len() && constant_time_eq(&self.hash.digest(&client), &keys.stored);
        right.then(|| ServerSignature(self.hash.hmac(&keys.server, &self.auth_message)))
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// The server's answer to a right proof.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerSignature(pub(crate) Vec<u8>);

impl fmt::Debug for ServerSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerSignature(…)")
    }
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(x, y)| x ^ y).collect()
}
