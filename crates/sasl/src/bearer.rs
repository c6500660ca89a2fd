//! Bearer tokens of OAuth 2.0: OAUTHBEARER (RFC 7628) and its older form XOAUTH2.
//!
//! Never: whether a token is good.

use mail::Secret;

/// A token, and the account that it is to open.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// The account as the client names it; a token names one too. RFC 7628 §3.1 lets it be absent.
    pub user: Option<String>,
    /// The token.
    pub token: Secret,
}

/// Which of the two forms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// RFC 7628.
    OAuthBearer,
    /// `user=` in front instead of a GS2 header.
    XOAuth2,
}

/// What parts the fields (RFC 7628 §3.1).
const CONTROL_A: char = '\u{1}';

/// Takes a client's message apart. `None`: it is not one.
pub(crate) fn parse(form: Form, message: &[u8]) -> Option<Bearer> {
    let text = std::str::from_utf8(message).ok()?;
    let (head, fields) = text.split_once(CONTROL_A)?;
    let user = match form {
        Form::OAuthBearer => gs2_user(head)?,
        Form::XOAuth2 => Some(head.strip_prefix("user=")?.to_owned()),
    };
    // Each field ends with ^A, and so does the message.
    let fields = fields.strip_suffix(CONTROL_A)?;
    let fields = fields.strip_suffix(CONTROL_A)?;
    let auth = fields
        .split(CONTROL_A)
        .find_map(|field| field.strip_prefix("auth="))?;
    let (scheme, token) = auth.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Bearer") || token.is_empty() {
        return None;
    }
    Some(Bearer {
        user: user.filter(|u| !u.is_empty()),
        token: Secret::new(token.trim_start_matches(' ')),
    })
}

/// `n,a=user,` or `n,,`; binding is not for these mechanisms (RFC 7628 §3.1), so `y` means the same.
/// The outer `None`: it is no such header.
fn gs2_user(head: &str) -> Option<Option<String>> {
    let rest = head.strip_prefix("n,").or_else(|| head.strip_prefix("y,"))?;
    let user = rest.strip_suffix(',')?;
    match user.strip_prefix("a=") {
        Some(name) => crate::scram::decode_name(name).map(Some),
        None if user.is_empty() => Some(None),
        None => None,
    }
}

/// What is sent when the token is refused (RFC 7628 §3.2.2), before the refusal itself.
pub(crate) fn refused(form: Form) -> &'static [u8] {
    match form {
        Form::OAuthBearer => br#"{"status":"invalid_token"}"#,
        Form::XOAuth2 => br#"{"status":"401","schemes":"bearer"}"#,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let message = "n,a=user@example.com,\u{1}host=server.example.com\u{1}port=143\u{1}\
                       auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\u{1}\u{1}";
        let got = parse(Form::OAuthBearer, message.as_bytes()).unwrap();
        assert_eq!(got.user.as_deref(), Some("user@example.com"));
        assert_eq!(got.token.expose(), "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==");
        let got = parse(Form::OAuthBearer, b"n,,\x01auth=bearer x\x01\x01").unwrap();
        assert_eq!(got.user, None);
        let got = parse(Form::XOAuth2, b"user=a@example.com\x01auth=Bearer x\x01\x01").unwrap();
        assert_eq!(
            (got.user.as_deref(), got.token.expose()),
            (Some("a@example.com"), "x")
        );
        for bad in [
            "",
            "n,,",
            "n,,\u{1}auth=Bearer x",
            "n,,\u{1}auth=Bearer x\u{1}",
            "n,,\u{1}auth=Basic x\u{1}\u{1}",
            "n,,\u{1}auth=Bearer \u{1}\u{1}",
            "p=tls-exporter,,\u{1}auth=Bearer x\u{1}\u{1}",
            "n,b=x,\u{1}auth=Bearer x\u{1}\u{1}",
            "n,a=x=3,\u{1}auth=Bearer x\u{1}\u{1}",
        ] {
            assert!(parse(Form::OAuthBearer, bad.as_bytes()).is_none(), "{bad:?}");
        }
    }
}
