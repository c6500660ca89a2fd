//! The messages of RFC 5802 §7, taken apart and put together.

use super::{Hash, Proof, Salted};
use crate::Channel;
use crate::exchange::Fault;
use crate::line::{BASE64, encode};
use base64::Engine as _;
use mail::secret::constant_time_eq;
use std::fmt::Write as _;

/// Octets of a nonce at most; both parts together may have twice as many.
const NONCE_OCTETS_MAX: usize = 512;

/// What a client says of channel binding (RFC 5802 §6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Bind {
    /// `n`: it cannot.
    Cannot,
    /// `y`: it could, but believes that we can't.
    Unoffered,
    /// `p=`: by this one.
    By(String),
}

/// The client's first message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ClientFirst {
    pub(crate) bind: Bind,
    /// The part in front, which comes again in the last message.
    header: String,
    pub(crate) authorization: Option<String>,
    pub(crate) user: String,
    nonce: String,
    /// What goes into the proof.
    bare: String,
}

impl ClientFirst {
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok()?;
        let (flag, rest) = text.split_once(',')?;
        let bind = match flag.strip_prefix("p=") {
            Some(name) if is_binding_name(name) => Bind::By(name.to_owned()),
            None if flag == "n" => Bind::Cannot,
            None if flag == "y" => Bind::Unoffered,
            _ => return None,
        };
        let (authorization, bare) = rest.split_once(',')?;
        let header = &text[..text.len() - bare.len()];
        let authorization = match authorization.strip_prefix("a=") {
            Some(name) => Some(decode_name(name)?),
            None if authorization.is_empty() => None,
            None => return None,
        };
        // "m=" in front would be an extension that must be understood; none is.
        let mut attributes = bare.split(',');
        let user = decode_name(attributes.next()?.strip_prefix("n=")?)?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        if !is_nonce(nonce) || !attributes.all(is_extension) {
            return None;
        }
        Some(Self {
            bind,
            header: header.to_owned(),
            authorization: authorization.filter(|a| *a != user),
            user,
            nonce: nonce.to_owned(),
            bare: bare.to_owned(),
        })
    }

    /// Our first message, and what its answer is checked against.
    pub(crate) fn answer(self, hash: Hash, salted: &Salted, channel: &Channel) -> (Final, String) {
        let nonce = format!("{}{}", self.nonce, salted.nonce);
        let ours = format!("r={nonce},s={},i={}", encode(&salted.salt), salted.iterations);
        let mut bound = self.header.into_bytes();
        if let Bind::By(name) = &self.bind {
            bound.extend_from_slice(channel.data(name).unwrap_or_default());
        }
        let waiting = Final {
            hash,
            user: self.user,
            authorization: self.authorization,
            bound,
            both: format!("{},{ours}", self.bare),
            nonce,
        };
        (waiting, ours)
    }
}

/// What the client's last message is checked against.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Final {
    hash: Hash,
    pub(crate) user: String,
    pub(crate) authorization: Option<String>,
    /// The header and the data of the binding.
    bound: Vec<u8>,
    /// Both first messages.
    both: String,
    nonce: String,
}

impl std::fmt::Debug for Final {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Final")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Final {
    /// The proof in the client's last message.
    pub(crate) fn proof(&self, message: &[u8]) -> Result<Proof, Fault> {
        let text = std::str::from_utf8(message).map_err(|_| Fault::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Fault::Malformed)?;
        let mut attributes = without_proof.split(',');
        let bound = attributes.next().and_then(|a| a.strip_prefix("c="));
        let nonce = attributes.next().and_then(|a| a.strip_prefix("r="));
        let (Some(bound), Some(nonce)) = (bound, nonce) else {
            return Err(Fault::Malformed);
        };
        if !attributes.all(is_extension) {
            return Err(Fault::Malformed);
        }
        let bound = BASE64.decode(bound).map_err(|_| Fault::Malformed)?;
        let proof = BASE64.decode(proof).map_err(|_| Fault::Malformed)?;
        if !constant_time_eq(&bound, &self.bound) {
            return Err(Fault::Channel);
        }
        if !constant_time_eq(nonce.as_bytes(), self.nonce.as_bytes()) {
            return Err(Fault::Nonce);
        }
        Ok(Proof {
            hash: self.hash,
            auth_message: format!("{},{without_proof}", self.both).into_bytes(),
            proof,
        })
    }
}

/// Reads a name: `=2C` is a comma and `=3D` an equals sign, and nothing else may stand behind one.
pub(crate) fn decode_name(text: &str) -> Option<String> {
    if text.is_empty() || text.contains([',', '\0']) {
        return None;
    }
    let mut name = String::with_capacity(text.len());
    let mut parts = text.split('=');
    name.push_str(parts.next()?);
    for part in parts {
        let (c, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return None,
        };
        name.push(c);
        name.push_str(rest);
    }
    Some(name)
}

/// Writes a name so that [`decode_name`] reads it.
pub(crate) fn encode_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        let _ = match c {
            ',' => out.write_str("=2C"),
            '=' => out.write_str("=3D"),
            c => out.write_char(c),
        };
    }
    out
}

pub(crate) fn is_nonce(text: &str) -> bool {
    let printable = |b: u8| matches!(b, 0x21..=0x2b | 0x2d..=0x7e);
    !text.is_empty() && text.len() <= NONCE_OCTETS_MAX && text.bytes().all(printable)
}

fn is_binding_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
}

/// `letter=value`; what is not known is passed over.
fn is_extension(text: &str) -> bool {
    let mut octets = text.bytes();
    matches!(octets.next(), Some(b) if b.is_ascii_alphabetic()) && octets.next() == Some(b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (coded, name) in [("user", "user"), ("a=2Cb=3Dc", "a,b=c"), ("=3D=2C", "=,")] {
            assert_eq!(decode_name(coded).as_deref(), Some(name));
            assert_eq!(encode_name(name), coded);
        }
        for bad in ["", "a=", "a=2c", "a=41", "=", "a\0b", "a,b"] {
            assert_eq!(decode_name(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn first_messages_that_are_none() {
        for bad in [
            "",
            "n",
            "n,,",
            "n,,n=u",
            "n,,n=,r=x",
            "n,,r=x,n=u",
            "n,,m=x,n=u,r=x",
            "n,,n=u,r=",
            "n,,n=u,r=a b",
            "n,,n=u,r=a,,",
            "n,,n=u,r=a,1=x",
            "n,b,n=u,r=a",
            "n,a=,n=u,r=a",
            "x,,n=u,r=a",
            "p=,,n=u,r=a",
            "p=a b,,n=u,r=a",
            "n,,n=u=,r=a",
        ] {
            assert_eq!(ClientFirst::parse(bad.as_bytes()), None, "{bad:?}");
        }
        let first = ClientFirst::parse(b"p=tls-exporter,a=x,n=u,r=a,z=later").unwrap();
        assert_eq!(first.bind, Bind::By("tls-exporter".to_owned()));
        assert_eq!(first.authorization.as_deref(), Some("x"));
        assert_eq!(first.header, "p=tls-exporter,a=x,");
        assert_eq!(ClientFirst::parse(b"n,a=u,n=u,r=a").unwrap().authorization, None);
    }
}
