//! The response of the mechanism PLAIN (RFC 4616): `[authzid] NUL authcid NUL passwd`, in base64.

use base64::Engine;
use mail::Secret;

/// User and password of a response; `None` when it is none.
pub(crate) fn decode_plain(text: &str) -> Option<(String, Secret)> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let mut parts = text.split('\0');
    let (authzid, authcid, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || authcid.is_empty() {
        return None;
    }
    // Nobody may act for somebody else here, so another authorization identity is refused.
    if !authzid.is_empty() && authzid != authcid {
        return None;
    }
    Some((authcid.to_owned(), Secret::new(password)))
}
