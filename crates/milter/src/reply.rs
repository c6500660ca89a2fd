//! The reply that a filter wants said to the client, cleaned.

use crate::Fault;
use mail::EnhancedStatus;

/// Octets of a reply's words at most; what is longer is cut.
const WORDS_OCTETS_MAX: usize = 2_048;

/// A refusal in a filter's words: 4xx or 5xx, printable ASCII, line feeds between lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FilterReply {
    /// 400 to 599.
    pub code: u16,
    /// The enhanced status; one of the code's own class.
    pub status: EnhancedStatus,
    /// The words.
    pub text: String,
}

impl FilterReply {
    /// Reads a reply, of one line or of many.
    ///
    /// # Errors
    /// It does not begin with a code from 400 to 599.
    pub fn parse(octets: &[u8]) -> Result<Self, Fault> {
        let text = String::from_utf8_lossy(octets);
        let code: u16 = text
            .get(..3)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|code| (400..600).contains(code))
            .ok_or(Fault::BadReply)?;
        if !matches!(text.as_bytes().get(3), None | Some(b' ' | b'-' | b'\r' | b'\n')) {
            return Err(Fault::BadReply);
        }
        let class = if code < 500 { 4 } else { 5 };
        let (mut status, mut lines) = (None, Vec::new());
        for line in text.split('\n') {
            let line = line.strip_suffix('\r').unwrap_or(line);
            let line = without_code(line, code);
            let line = match EnhancedStatus::parse_prefix(line) {
                Some((told, rest)) => {
                    status = status.or(Some(told));
                    rest.trim_start()
                }
                None => line,
            };
            if !line.is_empty() {
                lines.push(clean(line));
            }
        }
        let mut words = lines.join("\n");
        words.truncate(WORDS_OCTETS_MAX);
        Ok(Self {
            code,
            status: status
                .filter(|s| s.class == class)
                .unwrap_or(EnhancedStatus::new(class, 7, 1)),
            text: words,
        })
    }
}

fn without_code(line: &str, code: u16) -> &str {
    match line.strip_prefix(&code.to_string()) {
        Some("") => "",
        Some(rest) => rest.strip_prefix([' ', '-']).unwrap_or(line),
        None => line,
    }
}

/// Printable ASCII; a doubled `%` is one, because the protocol's first speakers doubled it.
fn clean(line: &str) -> String {
    line.replace("%%", "%")
        .chars()
        .map(|c| if matches!(c, ' '..='~') { c } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<String> {
        let reply = FilterReply::parse(text.as_bytes()).ok()?;
        Some(format!("{} {} {}", reply.code, reply.status, reply.text))
    }

    #[test]
    fn replies_of_filters() {
        for (text, expected) in [
            (
                "550 5.7.1 Spam message rejected",
                Some("550 5.7.1 Spam message rejected"),
            ),
            ("451 4.7.1 Try again later", Some("451 4.7.1 Try again later")),
            ("550-5.7.1 one\r\n550 5.7.1 two", Some("550 5.7.1 one\ntwo")),
            ("554 100%% spam", Some("554 5.7.1 100% spam")),
            ("550 4.7.1 of another class", Some("550 5.7.1 of another class")),
            ("550", Some("550 5.7.1 ")),
            ("550 a\r250 b\u{e9}\u{1b}[2J", Some("550 5.7.1 a?250 b??[2J")),
            ("250 fine", None),
            ("350 go on", None),
            ("600 x", None),
            ("55", None),
            ("5501 x", None),
            ("", None),
        ] {
            assert_eq!(parsed(text).as_deref(), expected, "{text:?}");
        }
    }
}
