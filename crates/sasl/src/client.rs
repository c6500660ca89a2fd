//! The client's side of SCRAM, for what we send ourselves and for tests against our server.

use crate::line::{BASE64, encode};
use crate::scram::{ServerSignature, client_key, encode_name, is_nonce};
use crate::{Binding, Channel, Hash};
use base64::Engine as _;
use mail::Secret;
use mail::secret::constant_time_eq;

/// Iterations that a client does for a server at most, so that a hostile one cannot keep it busy.
const ITERATIONS_MAX: u32 = 10_000_000;

/// A client that has not heard the server yet.
pub struct Scram {
    hash: Hash,
    user: String,
    password: Secret,
    nonce: String,
    header: String,
    bound: Vec<u8>,
}

/// A client that waits for the server's signature.
pub struct Proven {
    expected: ServerSignature,
}

/// What the client says of binding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bind {
    /// `n`: it cannot.
    Cannot,
    /// `y`: it could, but was not offered it.
    Unoffered,
    /// By this kind.
    By(Binding),
}

impl Scram {
    /// A client. `nonce` is printable ASCII without commas, never used before.
    #[must_use]
    pub fn new(hash: Hash, user: &str, password: Secret, nonce: &str, bind: Bind, channel: &Channel) -> Self {
        let (header, data) = match bind {
            Bind::Cannot => ("n,,".to_owned(), None),
            Bind::Unoffered => ("y,,".to_owned(), None),
            Bind::By(kind) => (format!("p={},,", kind.name()), channel.data(kind.name())),
        };
        let mut bound = header.clone().into_bytes();
        bound.extend_from_slice(data.unwrap_or_default());
        Self {
            hash,
            user: encode_name(user),
            password,
            nonce: nonce.to_owned(),
            header,
            bound,
        }
    }

    /// The first message.
    #[must_use]
    pub fn first(&self) -> String {
        format!("{}n={},r={}", self.header, self.user, self.nonce)
    }

    /// The last message, in answer to the server's first; `None` when that is not one.
    #[must_use]
    pub fn last(self, challenge: &[u8]) -> Option<(Proven, String)> {
        let text = std::str::from_utf8(challenge).ok()?;
        let mut attributes = text.split(',');
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let salt = attributes.next()?.strip_prefix("s=")?;
        let iterations = attributes.next()?.strip_prefix("i=")?;
        if !nonce.strip_prefix(&self.nonce).is_some_and(is_nonce) {
            return None;
        }
        let salt = BASE64.decode(salt).ok()?;
        let iterations = iterations
            .parse()
            .ok()
            .filter(|i| (1..=ITERATIONS_MAX).contains(i))?;
        let without_proof = format!("c={},r={nonce}", encode(&self.bound));
        let auth_message = format!("n={},r={},{text},{without_proof}", self.user, self.nonce);
        let (proof, expected) = client_key(
            self.hash,
            &self.password,
            &salt,
            iterations,
            auth_message.as_bytes(),
        );
        let last = format!("{without_proof},p={}", encode(proof));
        Some((Proven { expected }, last))
    }
}

impl Proven {
    /// Whether the server knows the password too (RFC 5802 §3).
    #[must_use]
    pub fn is_right(&self, challenge: &[u8]) -> bool {
        let signature = challenge.strip_prefix(b"v=").and_then(|v| BASE64.decode(v).ok());
        signature.is_some_and(|s| constant_time_eq(&s, &self.expected.0))
    }
}
