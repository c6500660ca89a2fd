//! What a line asks for (RFC 1939 §3: a keyword, case ignored, and arguments parted by one space).

use mail::Secret;

/// A command with its arguments read.
#[derive(Debug)]
pub(crate) enum Command {
    User(String),
    Pass(Secret),
    Auth {
        mechanism: String,
        initial: Option<Secret>,
    },
    Stls,
    Capa,
    Quit,
    Noop,
    Stat,
    List(Option<u32>),
    Uidl(Option<u32>),
    Retr(u32),
    Top(u32, u32),
    Dele(u32),
    Rset,
}

/// Why a line is no command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CommandError {
    /// No such keyword.
    Unknown,
    /// The arguments do not fit; what would.
    Usage(&'static str),
}

use CommandError::Usage;

/// Reads one line.
pub(crate) fn parse(line: &[u8]) -> Result<Command, CommandError> {
    let text = std::str::from_utf8(line).map_err(|_| CommandError::Unknown)?;
    let (keyword, rest) = match text.split_once(' ') {
        Some((keyword, rest)) => (keyword, Some(rest)),
        None => (text, None),
    };
    match keyword.to_ascii_uppercase().as_str() {
        "USER" => match rest {
            Some(name) if !name.is_empty() => Ok(Command::User(name.to_owned())),
            _ => Err(Usage("USER name")),
        },
        // RFC 1939 §7: the password is all the rest, spaces included.
        "PASS" => match rest {
            Some(password) => Ok(Command::Pass(Secret::new(password))),
            None => Err(Usage("PASS password")),
        },
        "AUTH" => auth(rest),
        "STLS" => alone(rest, Command::Stls, "STLS"),
        "CAPA" => alone(rest, Command::Capa, "CAPA"),
        "QUIT" => alone(rest, Command::Quit, "QUIT"),
        "NOOP" => alone(rest, Command::Noop, "NOOP"),
        "STAT" => alone(rest, Command::Stat, "STAT"),
        "RSET" => alone(rest, Command::Rset, "RSET"),
        "LIST" => Ok(Command::List(optional_number(rest, "LIST [message]")?)),
        "UIDL" => Ok(Command::Uidl(optional_number(rest, "UIDL [message]")?)),
        "RETR" => Ok(Command::Retr(number(rest, "RETR message")?)),
        "DELE" => Ok(Command::Dele(number(rest, "DELE message")?)),
        "TOP" => {
            const USAGE: &str = "TOP message lines";
            let (message, lines) = rest.and_then(|r| r.split_once(' ')).ok_or(Usage(USAGE))?;
            Ok(Command::Top(
                number(Some(message), USAGE)?,
                number(Some(lines), USAGE)?,
            ))
        }
        _ => Err(CommandError::Unknown),
    }
}

fn auth(rest: Option<&str>) -> Result<Command, CommandError> {
    let rest = rest
        .filter(|r| !r.is_empty())
        .ok_or(Usage("AUTH mechanism [initial-response]"))?;
    let (mechanism, initial) = match rest.split_once(' ') {
        Some((mechanism, initial)) => (mechanism, Some(Secret::new(initial))),
        None => (rest, None),
    };
    Ok(Command::Auth {
        mechanism: mechanism.to_ascii_uppercase(),
        initial,
    })
}

// Trailing spaces after a lone keyword come from real clients and mean nothing.
fn alone(rest: Option<&str>, command: Command, usage: &'static str) -> Result<Command, CommandError> {
    match rest.map(str::trim) {
        None | Some("") => Ok(command),
        Some(_) => Err(Usage(usage)),
    }
}

fn optional_number(rest: Option<&str>, usage: &'static str) -> Result<Option<u32>, CommandError> {
    match rest.map(str::trim) {
        None | Some("") => Ok(None),
        rest => number(rest, usage).map(Some),
    }
}

fn number(text: Option<&str>, usage: &'static str) -> Result<u32, CommandError> {
    let text = text.unwrap_or("").trim();
    // `parse` alone would take a sign.
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Usage(usage));
    }
    text.parse().map_err(|_| Usage(usage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_strict() {
        for (line, usage) in [
            ("RETR", "RETR message"),
            ("RETR x", "RETR message"),
            ("RETR +1", "RETR message"),
            ("RETR 99999999999", "RETR message"),
            ("TOP 1", "TOP message lines"),
            ("TOP 1 -1", "TOP message lines"),
            ("QUIT now", "QUIT"),
            ("USER ", "USER name"),
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap_err(), Usage(usage), "{line}");
        }
        for line in ["", "XYZZY", " NOOP", "\u{fc}"] {
            assert_eq!(
                parse(line.as_bytes()).unwrap_err(),
                CommandError::Unknown,
                "{line}"
            );
        }
        assert_eq!(parse(b"\xff\xfe").unwrap_err(), CommandError::Unknown);
        assert!(matches!(parse(b"pass a b  c"), Ok(Command::Pass(p)) if p.expose() == "a b  c"));
        assert!(matches!(parse(b"list "), Ok(Command::List(None))));
        assert!(matches!(parse(b"Top 1 0"), Ok(Command::Top(1, 0))));
    }
}
