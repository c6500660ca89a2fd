//! The two mechanisms that carry a password: PLAIN (RFC 4616) and LOGIN.
//!
//! Promises: what is decoded is UTF-8 without NUL; passwords are [`Secret`]s. Never: whether a
//! password is right.

use mail::Secret;

/// Who says to be whom, with a password.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Act for this identity instead of one's own; `None` when nothing or the same was asked.
    pub authorization: Option<String>,
    /// The login name.
    pub login: String,
    /// The password.
    pub password: Secret,
}

/// Takes a PLAIN message apart: `[authzid] NUL authcid NUL passwd`.
#[must_use]
pub fn plain(message: &[u8]) -> Option<Credentials> {
    let message = std::str::from_utf8(message).ok()?;
    let mut parts = message.split('\0');
    let (authorization, login, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || login.is_empty() {
        return None;
    }
    Some(Credentials {
        authorization: (!authorization.is_empty() && !authorization.eq_ignore_ascii_case(login))
            .then(|| authorization.to_owned()),
        login: login.to_owned(),
        password: Secret::new(password),
    })
}

/// The login name alone of an initial response of PLAIN in base64, for the record of a login that is
/// refused unseen.
#[must_use]
pub fn plain_name(initial: &[u8]) -> Option<String> {
    Some(plain(&crate::decode(initial)?)?.login)
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
        let got = plain(sent.expose().as_bytes()).unwrap();
        assert_eq!(
            (got.login.as_str(), got.password.expose(), got.authorization),
            ("alice", "geheim", None)
        );
        assert_eq!(plain(b"bob\0alice\0x").unwrap().authorization.unwrap(), "bob");
        for bad in ["", "a", "\0a", "\0\0p", "\0a\0b\0c"] {
            assert!(plain(bad.as_bytes()).is_none(), "{bad:?}");
        }
        assert!(plain(b"\0a\0\xff").is_none(), "not UTF-8");
        let initial = crate::encode("\0alice\0x");
        assert_eq!(plain_name(initial.as_bytes()).as_deref(), Some("alice"));
    }
}
