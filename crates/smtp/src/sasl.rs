//! The two SASL mechanisms that carry a password: PLAIN (RFC 4616) and LOGIN.
//!
//! Promises: what is decoded is UTF-8 without NUL; passwords are [`Secret`]s. Never: whether a
//! password is right.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail::Secret;

/// A mechanism that the server side offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The older exchange of name and password that some clients still need.
    Login,
}

/// Who says to be whom.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Act for this identity instead of one's own; `None` when nothing or the same was asked.
    pub authorization: Option<String>,
    /// The login name.
    pub login: String,
    /// The password.
    pub password: Secret,
}

/// Decodes one base64 response. `=` stands for the empty one (RFC 4954 §4).
#[must_use]
pub fn decode(text: &str) -> Option<String> {
    if text == "=" {
        return Some(String::new());
    }
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}

/// Encodes a challenge or a response.
#[must_use]
pub fn encode(text: &str) -> String {
    STANDARD.encode(text)
}

/// Takes a PLAIN message apart: `[authzid] NUL authcid NUL passwd`.
#[must_use]
pub fn plain(message: &str) -> Option<Credentials> {
    let mut parts = message.split('\0');
    let (authorization, login, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || login.is_empty() {
        return None;
    }
    Some(Credentials {
        authorization: (!authorization.is_empty() && authorization != login)
            .then(|| authorization.to_owned()),
        login: login.to_owned(),
        password: Secret::new(password),
    })
}

/// Builds the PLAIN message of a client.
#[must_use]
pub fn plain_message(login: &str, password: &Secret) -> Secret {
    Secret::new(format!("\0{login}\0{}", password.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_messages() {
        let sent = plain_message("alice", &Secret::new("geheim"));
        let got = plain(&decode(&encode(sent.expose())).unwrap()).unwrap();
        assert_eq!(
            (got.login.as_str(), got.password.expose(), got.authorization),
            ("alice", "geheim", None)
        );
        assert_eq!(plain("bob\0alice\0x").unwrap().authorization.unwrap(), "bob");
        for bad in ["", "a", "\0a", "\0\0p", "\0a\0b\0c"] {
            assert!(plain(bad).is_none(), "{bad:?}");
        }
        assert_eq!(decode("="), Some(String::new()));
        assert_eq!(decode("!"), None);
        assert_eq!(decode("/w=="), None, "not UTF-8");
    }
}
