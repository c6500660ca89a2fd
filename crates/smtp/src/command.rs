//! Commands: one line of a client, taken apart.
//!
//! Promises: addresses are parsed once, here; an unknown or ill-formed line gives the reply that
//! says what is wrong with it. Never: whether the command is allowed now.

use crate::replies;
use crate::reply::Reply;
use crate::xclient::{self, Attributes};
use mail::delivery::{self, DeliverBy, Hold, Notify, OriginalRecipient, Priority, Ret, xtext};
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
    /// LHLO with the client's name (RFC 2033 §4.1).
    Lhlo(String),
    /// MAIL FROM.
    Mail(MailFrom),
    /// RCPT TO.
    Rcpt(RcptTo),
    /// DATA.
    Data,
    /// BDAT (RFC 3030 §2); `None` when it does not say how long its chunk is.
    Bdat(Option<ChunkSize>),
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
    /// ETRN (RFC 1985).
    Etrn,
    /// HELP.
    Help,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// XCLIENT, what a proxy tells.
    Xclient(Box<Attributes>),
    /// AUTH (RFC 4954) with the mechanism's name in upper case and the initial response.
    Auth {
        /// The mechanism.
        mechanism: String,
        /// What came with the command, still in base64.
        initial: Option<Secret>,
    },
}

/// What BDAT says of the octets behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkSize {
    /// How many they are.
    pub octets: u64,
    /// Whether the message ends with them.
    pub last: bool,
}

/// How the message's octets are declared (RFC 6152, RFC 3030 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BodyKind {
    /// Nothing was said, or BODY=7BIT.
    #[default]
    SevenBit,
    /// BODY=8BITMIME.
    EightBitMime,
    /// BODY=BINARYMIME.
    BinaryMime,
}

impl BodyKind {
    /// Whether any octet may stand in the message's body.
    #[must_use]
    pub const fn is_binary(self) -> bool {
        matches!(self, BodyKind::BinaryMime)
    }
}

/// MAIL FROM and its parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailFrom {
    /// The reverse-path.
    pub path: ReversePath,
    /// SIZE= (RFC 1870), in octets.
    pub size_octets: Option<u64>,
    /// BODY= (RFC 6152, RFC 3030).
    pub body: BodyKind,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RET= (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// ENVID= (RFC 3461 §4.4), decoded.
    pub envid: Option<String>,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// HOLDFOR= or HOLDUNTIL= (RFC 4865).
    pub hold: Option<Hold>,
    /// BY= (RFC 2852).
    pub deliver_by: Option<DeliverBy>,
    /// MT-PRIORITY= (RFC 6710).
    pub priority: Option<Priority>,
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
    /// NOTIFY= (RFC 3461 §4.1).
    pub notify: Option<Notify>,
    /// ORCPT= (RFC 3461 §4.2, RFC 6533 §3).
    pub orcpt: Option<OriginalRecipient>,
    /// Whether the path holds anything beyond ASCII.
    pub path_is_utf8: bool,
    /// Whether a parameter holds anything beyond ASCII.
    pub parameters_are_utf8: bool,
    /// Whether any parameter was given; none is allowed after HELO.
    pub has_parameters: bool,
}

/// Reads one line.
///
/// # Errors
/// The reply to give when it is no command or an ill-formed one.
pub fn parse(line: &[u8]) -> Result<Command, Reply> {
    // Whatever is wrong with the line, octets follow it that are no commands.
    if is_bdat(line) {
        return Ok(Command::Bdat(bdat(line)));
    }
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
        "LHLO" => helo_name(rest).map(Command::Lhlo),
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
        "ETRN" if rest.is_empty() => Err(replies::ARGUMENT_MISSING),
        "ETRN" => Ok(Command::Etrn),
        "AUTH" => auth(rest),
        "XCLIENT" => xclient::parse(rest).map(|a| Command::Xclient(Box::new(a))),
        // Browsers can be led to talk to a mail server; what follows is not mail.
        "GET" | "POST" | "PUT" | "HEAD" | "OPTIONS" | "CONNECT" => Err(replies::NOT_HTTP),
        _ => Err(replies::UNKNOWN_COMMAND),
    }
}

/// Whether the line begins with BDAT, whatever follows.
#[must_use]
pub fn is_bdat(line: &[u8]) -> bool {
    line.get(..4)
        .is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT"))
        && line.get(4).is_none_or(|next| !next.is_ascii_alphanumeric())
}

/// RFC 3030 §2: a number, and possibly LAST.
fn bdat(line: &[u8]) -> Option<ChunkSize> {
    let mut words = std::str::from_utf8(line)
        .ok()?
        .split(' ')
        .filter(|w| !w.is_empty());
    let digits = words.nth(1)?;
    let octets = digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse())?
        .ok()?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return None,
    };
    words.next().is_none().then_some(ChunkSize { octets, last })
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
        ret: None,
        envid: None,
        require_tls: false,
        hold: None,
        deliver_by: None,
        priority: None,
        path_is_utf8: !path.is_ascii(),
        has_parameters: !params.is_empty(),
    };
    parameters(params, |key, value| mail_parameter(&mut mail, key, value))?;
    Ok(mail)
}

/// Hands each parameter, with its name in upper case, to `take`.
fn parameters(
    params: &str,
    mut take: impl FnMut(&str, Option<&str>) -> Result<(), Reply>,
) -> Result<(), Reply> {
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
        take(&key, value)?;
        seen.push(key);
    }
    Ok(())
}

/// The value, if there is one and it can be read.
fn read<T>(value: Option<&str>, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Reply> {
    match value.and_then(parse) {
        Some(read) => Ok(Some(read)),
        None => Err(replies::PARAMETER_VALUE),
    }
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
        ("BODY", Some(kind)) if kind.eq_ignore_ascii_case("BINARYMIME") => {
            mail.body = BodyKind::BinaryMime;
        }
        ("SMTPUTF8", None) => mail.smtputf8 = true,
        ("RET", value) => mail.ret = read(value, Ret::parse)?,
        ("ENVID", value) => mail.envid = read(value, delivery::parse_envid)?,
        ("REQUIRETLS", None) => mail.require_tls = true,
        // RFC 4865 §3: one of the two.
        ("HOLDFOR" | "HOLDUNTIL", _) if mail.hold.is_some() => return Err(replies::PARAMETER_TWICE),
        ("HOLDFOR", value) => mail.hold = read(value, Hold::parse_for)?,
        ("HOLDUNTIL", value) => mail.hold = read(value, Hold::parse_until)?,
        ("BY", value) => mail.deliver_by = read(value, DeliverBy::parse)?,
        ("MT-PRIORITY", value) => mail.priority = read(value, Priority::parse)?,
        // RFC 4954 §5: who first submitted the message, by the word of somebody that we need not
        // trust. It must be well-formed and is not kept.
        ("AUTH", Some(text)) if !text.is_empty() && xtext::decode(text).is_some() => {}
        ("SIZE" | "BODY" | "SMTPUTF8" | "REQUIRETLS" | "AUTH", _) => return Err(replies::PARAMETER_VALUE),
        _ => return Err(replies::UNKNOWN_PARAMETER),
    }
    Ok(())
}

fn rcpt_to(rest: &str) -> Result<RcptTo, Reply> {
    let (path, params) = path(rest, "TO:").ok_or(replies::RCPT_SYNTAX)?;
    let recipient = match path {
        "" => return Err(replies::RCPT_SYNTAX),
        // RFC 5321 §4.5.1: the only recipient that needs no domain.
        path if path.eq_ignore_ascii_case("postmaster") => Recipient::Postmaster,
        path => Recipient::Address(address(path)?),
    };
    let mut rcpt = RcptTo {
        recipient,
        notify: None,
        orcpt: None,
        path_is_utf8: !path.is_ascii(),
        parameters_are_utf8: !params.is_ascii(),
        has_parameters: !params.is_empty(),
    };
    parameters(params, |key, value| {
        match key {
            "NOTIFY" => rcpt.notify = read(value, Notify::parse)?,
            "ORCPT" => rcpt.orcpt = read(value, OriginalRecipient::parse)?,
            _ => return Err(replies::UNKNOWN_PARAMETER),
        }
        Ok(())
    })?;
    Ok(rcpt)
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
        let m = mail(
            "MAIL FROM:<a@b.c> RET=hdrs ENVID=QQ+2B1 REQUIRETLS HOLDFOR=60 BY=-5;NT MT-PRIORITY=-3 BODY=BINARYMIME",
        )
        .unwrap();
        assert_eq!((m.ret, m.envid.as_deref()), (Some(Ret::Headers), Some("QQ+1")));
        assert!(m.require_tls && m.body.is_binary());
        assert_eq!((m.hold, m.priority), (Some(Hold::For(60)), Priority::new(-3)));
        assert_eq!(m.deliver_by.unwrap().seconds, -5);
        for (line, code) in [
            ("MAIL", 501),
            ("MAIL FROM:a@b.c", 501),
            ("MAIL FROM:<a@b.c", 501),
            ("MAIL FROM:<a@b.c>SIZE=1", 501),
            ("MAIL FROM:<a@b.c> SIZE=", 501),
            ("MAIL FROM:<a@b.c> SIZE=1 SIZE=1", 501),
            ("MAIL FROM:<a@b.c> SIZE=-1", 501),
            ("MAIL FROM:<a@b.c> BODY=BINARY", 501),
            ("MAIL FROM:<a@b.c> RET=ALL", 501),
            ("MAIL FROM:<a@b.c> RET", 501),
            ("MAIL FROM:<a@b.c> ENVID=a+b", 501),
            ("MAIL FROM:<a@b.c> REQUIRETLS=1", 501),
            ("MAIL FROM:<a@b.c> HOLDFOR=0", 501),
            ("MAIL FROM:<a@b.c> HOLDFOR=1 HOLDUNTIL=2030-01-01T00:00:00Z", 501),
            ("MAIL FROM:<a@b.c> BY=0;R", 501),
            ("MAIL FROM:<a@b.c> MT-PRIORITY=10", 501),
            ("MAIL FROM:<a@b.c> AUTH=", 501),
            ("MAIL FROM:<a@b.c> SUBMITTER=x", 555),
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
            ("RCPT TO:<a@b.c> NOTIFY=NEVER,SUCCESS", 501),
            ("RCPT TO:<a@b.c> NOTIFY=DELAY NOTIFY=DELAY", 501),
            ("RCPT TO:<a@b.c> ORCPT=a@b.c", 501),
            ("RCPT TO:<a@b.c> RET=FULL", 555),
            ("ETRN", 501),
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

    #[test]
    fn bdat_lines() {
        let chunk = |octets, last| Some(ChunkSize { octets, last });
        for (line, expected) in [
            (&b"BDAT 10"[..], chunk(10, false)),
            (b"bdat 0 last", chunk(0, true)),
            (b"BDAT  7  LAST ", chunk(7, true)),
            (b"BDAT", None),
            (b"BDAT -1", None),
            (b"BDAT +1", None),
            (b"BDAT 1x", None),
            (b"BDAT 99999999999999999999", None),
            (b"BDAT 5 FIRST", None),
            (b"BDAT 5 LAST x", None),
            (b"BDAT\t5", None),
            (b"BDAT 5\xff", None),
        ] {
            match parse(line) {
                Ok(Command::Bdat(size)) => assert_eq!(size, expected, "{}", line.escape_ascii()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(parse(b"BDATA 5").unwrap_err().code, 500);
    }

    proptest! {
        #[test]
        fn any_line_is_answered(line in proptest::collection::vec(any::<u8>(), 0..100), verb in 0usize..6) {
            let verb = ["", "MAIL FROM:<", "RCPT TO:<", "EHLO ", "AUTH ", "MAIL FROM:<a@b.c> "][verb];
            let _ = parse(&[verb.as_bytes(), &line].concat());
        }
    }
}
