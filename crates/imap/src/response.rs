//! What the server says: status lines with their codes, strings, lists.

use crate::flag::Flag;
use mail::{Uid, UidValidity};

use crate::sequence::write_set;

/// Octets of a string that is still written in quotes; longer ones are literals.
const QUOTED_OCTETS_MAX: usize = 1_000;

/// A response code in brackets (RFC 3501 §7.1, RFC 4315, RFC 5530).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Code {
    /// `ALERT`: the text must be shown to the user.
    Alert,
    /// `ALREADYEXISTS`
    AlreadyExists,
    /// `APPENDUID`
    AppendUid(UidValidity, Uid),
    /// `AUTHENTICATIONFAILED`
    AuthenticationFailed,
    /// `BADCHARSET` with the charsets that we know.
    BadCharset,
    /// `CANNOT`
    Cannot,
    /// `CAPABILITY`; the session knows which.
    Capability(String),
    /// `CLOSED`: the mailbox that was selected is not any more (RFC 7162 §3.2.11).
    Closed,
    /// `CONTACTADMIN`
    ContactAdmin,
    /// `COPYUID`: validity, then source and destination in the same order.
    CopyUid(UidValidity, Vec<Uid>, Vec<Uid>),
    /// `EXPUNGEISSUED`
    ExpungeIssued,
    /// `INUSE`
    InUse,
    /// `LIMIT`
    Limit,
    /// `NONEXISTENT`
    NonExistent,
    /// `OVERQUOTA`
    OverQuota,
    /// `PERMANENTFLAGS`
    PermanentFlags(Vec<String>),
    /// `PRIVACYREQUIRED`
    PrivacyRequired,
    /// `READ-ONLY`
    ReadOnly,
    /// `READ-WRITE`
    ReadWrite,
    /// `SERVERBUG`
    ServerBug,
    /// `TOOBIG` (RFC 4469)
    TooBig,
    /// `TRYCREATE`
    TryCreate,
    /// `UIDNEXT`
    UidNext(Uid),
    /// `UIDVALIDITY`
    UidValidity(UidValidity),
    /// `UNAVAILABLE`
    Unavailable,
    /// `UNSEEN`
    Unseen(crate::SeqNum),
}

impl Code {
    fn write(&self, out: &mut Vec<u8>) {
        let simple = match self {
            Code::AppendUid(validity, uid) => {
                return put(out, &format!("APPENDUID {validity} {uid}"));
            }
            Code::BadCharset => "BADCHARSET (US-ASCII UTF-8)",
            Code::Capability(all) => return put(out, &format!("CAPABILITY {all}")),
            Code::CopyUid(validity, from, to) => {
                put(out, &format!("COPYUID {validity} "));
                write_set(out, from);
                out.push(b' ');
                return write_set(out, to);
            }
            Code::PermanentFlags(flags) => return put(out, &format!("PERMANENTFLAGS ({})", flags.join(" "))),
            Code::UidNext(uid) => return put(out, &format!("UIDNEXT {uid}")),
            Code::UidValidity(validity) => return put(out, &format!("UIDVALIDITY {validity}")),
            Code::Unseen(seq) => return put(out, &format!("UNSEEN {seq}")),
            Code::Alert => "ALERT",
            Code::AlreadyExists => "ALREADYEXISTS",
            Code::AuthenticationFailed => "AUTHENTICATIONFAILED",
            Code::Cannot => "CANNOT",
            Code::Closed => "CLOSED",
            Code::ContactAdmin => "CONTACTADMIN",
            Code::ExpungeIssued => "EXPUNGEISSUED",
            Code::InUse => "INUSE",
            Code::Limit => "LIMIT",
            Code::NonExistent => "NONEXISTENT",
            Code::OverQuota => "OVERQUOTA",
            Code::PrivacyRequired => "PRIVACYREQUIRED",
            Code::ReadOnly => "READ-ONLY",
            Code::ReadWrite => "READ-WRITE",
            Code::ServerBug => "SERVERBUG",
            Code::TooBig => "TOOBIG",
            Code::TryCreate => "TRYCREATE",
            Code::Unavailable => "UNAVAILABLE",
        };
        put(out, simple);
    }
}

/// Why the driver does not do what was asked. Said as a tagged NO.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The code, when one fits.
    pub code: Option<Code>,
    /// The words; what cannot stand in a line is replaced.
    pub text: String,
}

impl Refusal {
    /// A refusal with a code.
    #[must_use]
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code: Some(code),
            text: text.into(),
        }
    }

    /// No mailbox of that name.
    #[must_use]
    pub fn no_such_mailbox() -> Self {
        Self::new(Code::NonExistent, "No such mailbox")
    }

    /// No mailbox of that name, but CREATE could make it (COPY and APPEND must say so).
    #[must_use]
    pub fn try_create() -> Self {
        Self::new(Code::TryCreate, "No such mailbox")
    }

    /// The account has no room for it (RFC 9208 §4.1.3).
    #[must_use]
    pub fn over_quota() -> Self {
        Self::new(Code::OverQuota, "No room left: delete mail first")
    }

    /// The server cannot do it now.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::new(Code::Unavailable, "Temporary failure, try again later")
    }
}

/// The word of a status line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// `OK`
    Ok,
    /// `NO`
    No,
    /// `BAD`
    Bad,
    /// `BYE`
    Bye,
}

/// Writes a status line; `tag` is `*` when the line belongs to no command.
pub fn status(out: &mut Vec<u8>, tag: &str, status: Status, code: Option<&Code>, text: &str) {
    put(out, tag);
    put(
        out,
        match status {
            Status::Ok => " OK ",
            Status::No => " NO ",
            Status::Bad => " BAD ",
            Status::Bye => " BYE ",
        },
    );
    if let Some(code) = code {
        out.push(b'[');
        code.write(out);
        put(out, "] ");
    }
    out.extend(text.bytes().map(|b| match b {
        b' '..=b'~' => b,
        _ => b'?',
    }));
    // RFC 3501 §9 `resp-text`: the words are never empty.
    if text.is_empty() {
        out.push(b'.');
    }
    put(out, "\r\n");
}

/// Appends text as it is.
pub fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Writes a string: quoted when it can be, else as a literal.
pub fn string(out: &mut Vec<u8>, text: &[u8]) {
    // NUL may stand in neither form (RFC 3501 §9).
    let quotable =
        text.len() <= QUOTED_OCTETS_MAX && text.iter().all(|b| matches!(b, 1..=127) && !b"\r\n".contains(b));
    if quotable {
        out.push(b'"');
        for b in text {
            if matches!(b, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*b);
        }
        out.push(b'"');
    } else {
        put(out, &format!("{{{}}}\r\n", text.len()));
        out.extend(text.iter().map(|b| if *b == 0 { b'?' } else { *b }));
    }
}

/// Writes a string, or NIL.
pub fn nstring(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => string(out, text),
        None => put(out, "NIL"),
    }
}

/// Writes `FLAGS (…)`.
pub fn flags(out: &mut Vec<u8>, flags: &[Flag], recent: bool) {
    put(out, "FLAGS (");
    let mut first = true;
    for flag in flags {
        if !first {
            out.push(b' ');
        }
        first = false;
        put(out, &flag.to_string());
    }
    if recent {
        put(out, if first { "\\Recent" } else { " \\Recent" });
    }
    out.push(b')');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(f: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        f(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings() {
        for (text, expected) in [
            ("", "\"\""),
            ("a\"b\\", "\"a\\\"b\\\\\""),
            ("a\r\nb", "{4}\r\na\r\nb"),
            ("ü", "{2}\r\nü"),
            ("a\0", "{2}\r\na?"),
        ] {
            assert_eq!(written(|out| string(out, text.as_bytes())), expected);
        }
    }

    #[test]
    fn lines() {
        let code = Code::CopyUid(
            UidValidity(7),
            vec![Uid(1), Uid(2), Uid(5)],
            vec![Uid(8), Uid(9), Uid(10)],
        );
        assert_eq!(
            written(|out| status(out, "a", Status::Ok, Some(&code), "Done\r\nb")),
            "a OK [COPYUID 7 1:2,5 8:10] Done??b\r\n"
        );
        assert_eq!(
            written(|out| status(out, "*", Status::Bye, None, "")),
            "* BYE .\r\n"
        );
    }
}
