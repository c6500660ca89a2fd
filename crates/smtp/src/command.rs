//! Commands: one line of a client, taken apart.
//!
//! Promises: addresses are parsed once, here; an unknown or ill-formed line gives the reply that
//! says what is wrong with it. Never: whether the command is allowed now.

use crate::replies;
use crate::reply::Reply;
use mail::{EmailAddress, Recipient, ReversePath, Secret};

/// Octets of the name in EHLO or HELO at most.
pub const HELO_OCTETS_MAX: usize = 255;

/// A command that could be read.
#[derive(Clone, Debug)]
pub enum Command {
    /// EHLO (RFC 5321 §4.1.1.1) with the client's name.
    Ehlo(String),
    /// HELO with the client's name.
    Helo(String),
    /// MAIL FROM.
    Mail(MailFrom),
    /// RCPT TO.
    Rcpt(RcptTo),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY.
    Vrfy,
    /// EXPN.
    Expn,
    /// HELP.
    Help,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954) with the mechanism's name in upper case and the initial response.
    Auth {
        /// The mechanism.
        mechanism: String,
        /// What came with the command, still in base64.
        initial: Option<Secret>,
    },
}

/// How the message's octets are declared (RFC 6152).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BodyKind {
    /// Nothing was said, or BODY=7BIT.
    #[default]
    SevenBit,
    /// BODY=8BITMIME.
    EightBitMime,
}

/// MAIL FROM and its parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailFrom {
    /// The reverse-path.
    pub path: ReversePath,
    /// SIZE= (RFC 1870), in octets.
    pub size_octets: Option<u64>,
    /// BODY= (RFC 6152).
    pub body: BodyKind,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// Whether the path holds anything beyond ASCII.
    pub path_is_utf8: bool,
    /// Whether any parameter was given; none is allowed after HELO.
    pub has_parameters: bool,
}

/// RCPT TO.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RcptTo {
    /// The forward-path.
    pub recipient: Recipient,
    /// Whether the path holds anything beyond ASCII.
    pub path_is_utf8: bool,
}

/// Reads one line.
///
/// # Errors
/// The reply to give when it is no command or an ill-formed one.
pub fn parse(line: &[u8]) -> Result<Command, Reply> {
    let line = std::str::from_utf8(line).map_err(|_| replies::NOT_UTF8)?;
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err(replies::CONTROL_CHARACTER);
    }
    let line = line.trim_end_matches([' ', '\t']);
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let bare = |command: Command| {
        if rest.is_empty() {
            Ok(command)
        } else {
            Err(replies::NO_ARGUMENT_ALLOWED)
        }
    };
    match verb.to_ascii_uppercase().as_str() {
        "EHLO" => helo_name(rest).map(Command::Ehlo),
        "HELO" => helo_name(rest).map(Command::Helo),
        "MAIL" => mail_from(rest).map(Command::Mail),
        "RCPT" => rcpt_to(rest).map(Command::Rcpt),
        "DATA" => bare(Command::Data),
        "RSET" => bare(Command::Rset),
        "QUIT" => bare(Command::Quit),
        "STARTTLS" => bare(Command::StartTls),
        "NOOP" => Ok(Command::Noop),
        "HELP" => Ok(Command::Help),
        "VRFY" if rest.is_empty() => Err(replies::ARGUMENT_MISSING),
        "VRFY" => Ok(Command::Vrfy),
        "EXPN" => Ok(Command::Expn),
        "AUTH" => auth(rest),
        // Browsers can be led to talk to a mail server; what follows is not mail.
        "GET" | "POST" | "PUT" | "HEAD" | "OPTIONS" | "CONNECT" => Err(replies::NOT_HTTP),
        _ => Err(replies::UNKNOWN_COMMAND),
    }
}

/// Any printable text without spaces: the name is not trusted, and refusing a badly named client
/// (RFC 5321 §4.1.4) would lose honest mail.
fn helo_name(rest: &str) -> Result<String, Reply> {
    let name = rest.trim();
    if name.is_empty() {
        return Err(replies::HELO_NAME_MISSING);
    }
    if name.len() > HELO_OCTETS_MAX || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(replies::HELO_NAME_BAD);
    }
    Ok(name.to_owned())
}

fn auth(rest: &str) -> Result<Command, Reply> {
    let mut words = rest.split_ascii_whitespace();
    let mechanism = words
        .next()
        .ok_or(replies::ARGUMENT_MISSING)?
        .to_ascii_uppercase();
    let initial = words.next().map(Secret::new);
    if words.next().is_some() {
        return Err(replies::AUTH_SYNTAX);
    }
    Ok(Command::Auth { mechanism, initial })
}

fn mail_from(rest: &str) -> Result<MailFrom, Reply> {
    let (path, params) = path(rest, "FROM:").ok_or(replies::MAIL_SYNTAX)?;
    let reverse = match path {
        "" => ReversePath::Null,
        path => ReversePath::Address(address(path)?),
    };
    let mut mail = MailFrom {
        path: reverse,
        size_octets: None,
        body: BodyKind::SevenBit,
        smtputf8: false,
        path_is_utf8: !path.is_ascii(),
        has_parameters: false,
    };
    let mut seen: Vec<String> = Vec::new();
    for param in params.split_ascii_whitespace() {
        let (key, value) = match param.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (param, None),
        };
        let key = key.to_ascii_uppercase();
        if seen.contains(&key) {
            return Err(replies::PARAMETER_TWICE);
        }
        mail_parameter(&mut mail, &key, value)?;
        mail.has_parameters = true;
        seen.push(key);
    }
    Ok(mail)
}

fn mail_parameter(mail: &mut MailFrom, key: &str, value: Option<&str>) -> Result<(), Reply> {
    match (key, value) {
        ("SIZE", Some(digits)) => {
            // RFC 1870 §3: up to 20 digits; more than fits is more than we take anyway.
            if digits.is_empty() || digits.len() > 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(replies::PARAMETER_VALUE);
            }
            mail.size_octets = Some(digits.parse().unwrap_or(u64::MAX));
        }
        ("BODY", Some(kind)) if kind.eq_ignore_ascii_case("7BIT") => mail.body = BodyKind::SevenBit,
        ("BODY", Some(kind)) if kind.eq_ignore_ascii_case("8BITMIME") => {
            mail.body = BodyKind::EightBitMime;
        }
        ("SMTPUTF8", None) => mail.smtputf8 = true,
        // RFC 4954 §5: who first submitted the message, by the word of somebody that we need not
        // trust. It must be well-formed and is not kept.
        ("AUTH", Some(text)) if is_xtext(text) => {}
        ("SIZE" | "BODY" | "SMTPUTF8" | "AUTH", _) => return Err(replies::PARAMETER_VALUE),
        _ => return Err(replies::UNKNOWN_PARAMETER),
    }
    Ok(())
}

/// RFC 3461 §4: printable ASCII without `=`, and `+` only before two hexadecimal digits.
fn is_xtext(text: &str) -> bool {
    let b = text.as_bytes();
    !b.is_empty()
        && b.iter().enumerate().all(|(i, c)| match c {
            b'+' => {
                b.get(i + 1).is_some_and(u8::is_ascii_hexdigit)
                    && b.get(i + 2).is_some_and(u8::is_ascii_hexdigit)
            }
            b'=' => false,
            c => c.is_ascii_graphic(),
        })
}

fn rcpt_to(rest: &str) -> Result<RcptTo, Reply> {
    let (path, params) = path(rest, "TO:").ok_or(replies::RCPT_SYNTAX)?;
    if !params.is_empty() {
        return Err(replies::UNKNOWN_PARAMETER);
    }
    let recipient = match path {
        "" => return Err(replies::RCPT_SYNTAX),
        // RFC 5321 §4.5.1: the only recipient that needs no domain.
        path if path.eq_ignore_ascii_case("postmaster") => Recipient::Postmaster,
        path => Recipient::Address(address(path)?),
    };
    Ok(RcptTo {
        recipient,
        path_is_utf8: !path.is_ascii(),
    })
}

fn address(path: &str) -> Result<EmailAddress, Reply> {
    EmailAddress::parse(without_route(path)).map_err(|e| replies::bad_address(&e))
}

/// RFC 5321 appendix C: a source route is accepted and ignored.
fn without_route(path: &str) -> &str {
    match path.strip_prefix('@') {
        Some(_) => path.split_once(':').map_or(path, |(_, rest)| rest),
        None => path,
    }
}

/// Cuts `FROM:<path> parameters` into path and parameters. Spaces behind the colon are let pass:
/// many old devices write them and they mean nothing else.
fn path<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let head = rest.get(..keyword.len())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let inner = rest[keyword.len()..].trim_start_matches(' ').strip_prefix('<')?;
    let end = closing_bracket(inner)?;
    let params = &inner[end + 1..];
    if !params.is_empty() && !params.starts_with(' ') {
        return None;
    }
    Some((&inner[..end], params.trim()))
}

/// The first `>` outside a quoted local part.
fn closing_bracket(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => return Some(i),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mail(line: &str) -> Result<MailFrom, u16> {
        match parse(line.as_bytes()) {
            Ok(Command::Mail(m)) => Ok(m),
            Ok(other) => panic!("{other:?}"),
            Err(reply) => Err(reply.code),
        }
    }

    #[test]
    fn mail_lines() {
        for (line, path) in [
            ("MAIL FROM:<alice@gmail.com>", "<alice@gmail.com>"),
            ("mail from:<>", "<>"),
            ("MAIL FROM: <a@b.c>  ", "<a@b.c>"),
            ("MAIL FROM:<@x.y,@z.w:a@b.c>", "<a@b.c>"),
            ("MAIL FROM:<\"a>b\"@c.d> SIZE=1", "<\"a>b\"@c.d>"),
        ] {
            assert_eq!(mail(line).unwrap().path.to_string(), path, "{line}");
        }
        let m = mail("MAIL FROM:<a@b.c> SIZE=100 body=8bitmime SMTPUTF8 AUTH=<>").unwrap();
        assert_eq!(
            (m.size_octets, m.body, m.smtputf8),
            (Some(100), BodyKind::EightBitMime, true)
        );
        for (line, code) in [
            ("MAIL", 501),
            ("MAIL FROM:a@b.c", 501),
            ("MAIL FROM:<a@b.c", 501),
            ("MAIL FROM:<a@b.c>SIZE=1", 501),
            ("MAIL FROM:<a@b.c> SIZE=", 501),
            ("MAIL FROM:<a@b.c> SIZE=1 SIZE=1", 501),
            ("MAIL FROM:<a@b.c> SIZE=-1", 501),
            ("MAIL FROM:<a@b.c> BODY=BINARYMIME", 501),
            ("MAIL FROM:<a@b.c> RET=FULL", 555),
            ("MAIL FROM:<a b@c.d>", 553),
            ("MAIL FROM:<postmaster>", 553),
            ("MAIL TO:<a@b.c>", 501),
        ] {
            assert_eq!(mail(line), Err(code), "{line}");
        }
    }

    #[test]
    fn other_lines() {
        for (line, code) in [
            ("EHLO", 501),
            ("EHLO a b", 501),
            ("DATA now", 501),
            ("STARTTLS foo", 501),
            ("FOO", 500),
            ("", 500),
            ("EHLO a\tb", 501),
            ("RCPT TO:<>", 501),
            ("RCPT TO:<a@b.c> NOTIFY=NEVER", 555),
            ("GET / HTTP/1.1", 421),
            ("VRFY", 501),
            ("AUTH", 501),
            ("AUTH PLAIN a b", 501),
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap_err().code, code, "{line:?}");
        }
        assert!(
            matches!(parse(b"RCPT TO:<PostMaster>"), Ok(Command::Rcpt(r)) if r.recipient == Recipient::Postmaster)
        );
        assert!(parse(b"NOOP \x1b[0m").is_err());
        assert!(parse(b"NOOP \xff").is_err());
    }

    proptest! {
        #[test]
        fn any_line_is_answered(line in proptest::collection::vec(any::<u8>(), 0..100), verb in 0usize..6) {
            let verb = ["", "MAIL FROM:<", "RCPT TO:<", "EHLO ", "AUTH ", "MAIL FROM:<a@b.c> "][verb];
            let _ = parse(&[verb.as_bytes(), &line].concat());
        }
    }
}
