//! Reads dialogue files. Never: what a fact means.

/// One line of a dialogue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// `given …`
    Given(String),
    /// `S: …`
    Server(String),
    /// `S*: …`
    ServerMany(String),
    /// `C: …`, `C*n: …`, `C! …`: the octets to send.
    Client(Vec<u8>),
    /// `(TLS handshake happens)`
    Tls,
    /// `(login by …)`
    Login(super::ScriptedLogin),
    /// `then …`
    Then(String),
    /// `meanwhile …`
    Meanwhile(String),
}

/// Times that a `C*n:` line or a `\{…*n}` piece may be repeated at most.
const REPEAT_MAX: usize = 1_000_000;

/// Reads a file: each line with its number, from 1.
///
/// # Errors
/// Number and fault of the first line that is none of the kinds that exist.
pub fn parse(text: &str) -> Result<Vec<(usize, Line)>, (usize, String)> {
    let mut lines = Vec::new();
    for (i, text) in text.lines().enumerate() {
        let number = i + 1;
        if text.trim().is_empty() || text.starts_with('#') {
            continue;
        }
        let line = line(text).ok_or((number, format!("not a line of a dialogue: {text:?}")))?;
        lines.push((number, line));
    }
    Ok(lines)
}

fn line(text: &str) -> Option<Line> {
    if text == crate::tap::TLS_REMARK {
        return Some(Line::Tls);
    }
    if let Some(login) = text.strip_prefix("(login by ") {
        return super::ScriptedLogin::parse(login.strip_suffix(')')?).map(Line::Login);
    }
    if let Some(fact) = text.strip_prefix("given ") {
        return Some(Line::Given(fact.trim().to_owned()));
    }
    if let Some(fact) = text.strip_prefix("then ") {
        return Some(Line::Then(fact.trim().to_owned()));
    }
    if let Some(event) = text.strip_prefix("meanwhile ") {
        return Some(Line::Meanwhile(event.trim().to_owned()));
    }
    if let Some(raw) = text.strip_prefix("C! ") {
        return unescape(raw).map(Line::Client);
    }
    let (mark, words) = text.split_once(':')?;
    let words = words.strip_prefix(' ').unwrap_or(words);
    match mark {
        "S" => Some(Line::Server(words.to_owned())),
        "S*" => Some(Line::ServerMany(words.to_owned())),
        "C" => Some(Line::Client(format!("{words}\r\n").into_bytes())),
        _ => {
            let times = repeat(mark.strip_prefix("C*")?)?;
            Some(Line::Client(format!("{words}\r\n").repeat(times).into_bytes()))
        }
    }
}

fn repeat(digits: &str) -> Option<usize> {
    digits.parse().ok().filter(|n| *n <= REPEAT_MAX)
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let kind = rest.chars().next()?;
        rest = &rest[kind.len_utf8()..];
        match kind {
            'r' => out.push(b'\r'),
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            '0' => out.push(0),
            '\\' => out.push(b'\\'),
            'x' => {
                out.push(u8::from_str_radix(rest.get(..2)?, 16).ok()?);
                rest = &rest[2..];
            }
            '{' => {
                let (piece, behind) = rest.split_once('}')?;
                let (what, times) = piece.rsplit_once('*')?;
                out.extend_from_slice(unescape(what)?.repeat(repeat(times)?).as_slice());
                rest = behind;
            }
            _ => return None,
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_lines() {
        let text = "# x\ngiven a\nS: 220 *\nS*: 250-*\nC: a: b\nC:\nC*2: x\nC! a\\{bc*2}\\r\\n\\x00\n(TLS handshake happens)\nmeanwhile y\nthen z\n";
        let lines: Vec<Line> = parse(text).unwrap().into_iter().map(|(_, l)| l).collect();
        assert_eq!(
            lines,
            [
                Line::Given("a".into()),
                Line::Server("220 *".into()),
                Line::ServerMany("250-*".into()),
                Line::Client(b"a: b\r\n".to_vec()),
                Line::Client(b"\r\n".to_vec()),
                Line::Client(b"x\r\nx\r\n".to_vec()),
                Line::Client(b"abcbc\r\n\0".to_vec()),
                Line::Tls,
                Line::Meanwhile("y".into()),
                Line::Then("z".into()),
            ]
        );
        assert_eq!(parse("S 220").unwrap_err().0, 1);
        assert!(parse("C! \\q").is_err());
        assert!(parse("C*9999999999: x").is_err());
    }
}
