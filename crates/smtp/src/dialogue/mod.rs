//! Dialogue files: conversations that can be read aloud, and that are run against a server.
//!
//! One line is one thing:
//!
//! | line | meaning |
//! |---|---|
//! | `# words` | a comment |
//! | `given fact` | prepared before the conversation; the peer knows the facts |
//! | `S: pattern` | the server's next line; `*` stands for any run of characters |
//! | `S*: pattern` | any number of lines that match, also none; an `S:` line must follow |
//! | `C: text` | the client's line, sent with CRLF |
//! | `C*100: text` | the same line 100 times |
//! | `C! text` | raw octets, nothing added: `\r \n \0 \t \\ \xNN`, and `\{ab*300}` for 300 × `ab` |
//! | `(TLS handshake happens)` | it does |
//! | `meanwhile event` | something happens on the side; the peer knows the events |
//! | `(login by M as A with P)` | AUTH with a mechanism of RFC 5802, up to its last reply, which an |
//! |  | `S:` line tells; behind `P`: `, bound elsewhere` or `, unaware of binding` |
//! | `then fact` | must hold now; `then the connection is closed` is known everywhere |
//!
//! Client lines without a server line between them travel together, as pipelining clients do.
//! Never: a socket. A [`Peer`] is the machine alone ([`MachinePeer`]) or a real server.

mod login;
mod machine;
mod parse;

pub use login::ScriptedLogin;
pub use machine::MachinePeer;
pub use parse::{Line, parse};

use std::fmt;

/// The fact that every peer can be asked by the runner itself.
pub const CLOSED_FACT: &str = "the connection is closed";

/// The other side of a dialogue.
pub trait Peer {
    /// Prepares a fact; called before anything is said.
    ///
    /// # Errors
    /// When the fact is not known, or cannot be brought about.
    fn given(&mut self, fact: &str) -> Result<(), String>;

    /// Sends octets to the server.
    ///
    /// # Errors
    /// When the connection is gone.
    fn send(&mut self, octets: &[u8]) -> Result<(), String>;

    /// The server's next line without its CRLF; `None` when it has closed.
    ///
    /// # Errors
    /// When nothing comes, or something that is no line.
    fn line(&mut self) -> Result<Option<String>, String>;

    /// Does the TLS handshake.
    ///
    /// # Errors
    /// When it fails.
    fn tls(&mut self) -> Result<(), String>;

    /// Lets something happen in the middle of the conversation.
    ///
    /// # Errors
    /// When the event is not known, or cannot be brought about.
    fn meanwhile(&mut self, event: &str) -> Result<(), String> {
        Err(format!("unknown event: {event}"))
    }

    /// The connection as the client sees it, for mechanisms that are bound to it.
    fn channel(&self) -> sasl::Channel {
        sasl::Channel::default()
    }

    /// Checks a fact.
    ///
    /// # Errors
    /// When it does not hold, or is not known.
    fn then(&mut self, fact: &str) -> Result<(), String>;
}

/// Where a dialogue went another way than its file says.
#[derive(Debug)]
pub struct Mismatch {
    /// The line of the file, from 1; 0 when the file itself is at fault.
    pub line: usize,
    /// What happened.
    pub what: String,
    /// All that was said before.
    pub heard: Vec<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "line {}: {}; before it:", self.line, self.what)?;
        self.heard.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Runs the text of a dialogue file against a peer.
///
/// # Errors
/// At the first line that is not as the file says.
pub fn run(text: &str, peer: &mut dyn Peer) -> Result<(), Mismatch> {
    let mut runner = Runner {
        peer,
        ahead: None,
        unsent: Vec::new(),
        heard: Vec::new(),
    };
    let lines = parse(text).map_err(|(line, what)| Mismatch {
        line,
        what,
        heard: Vec::new(),
    })?;
    for (number, line) in lines {
        if let Err(what) = runner.line(&line) {
            return Err(Mismatch {
                line: number,
                what,
                heard: runner.heard,
            });
        }
    }
    Ok(())
}

struct Runner<'a> {
    peer: &'a mut dyn Peer,
    /// A line that was read to see whether it still belongs to `S*:`.
    ahead: Option<String>,
    unsent: Vec<u8>,
    heard: Vec<String>,
}

impl Runner<'_> {
    fn line(&mut self, line: &Line) -> Result<(), String> {
        if let Line::Client(octets) = line {
            self.unsent.extend_from_slice(octets);
            return Ok(());
        }
        self.flush()?;
        match line {
            Line::Given(fact) => self.peer.given(fact),
            Line::Server(pattern) => {
                let said = self.next()?.ok_or("the server closed the connection")?;
                if !matches(pattern, &said) {
                    return Err(format!("expected {pattern:?}, the server said {said:?}"));
                }
                Ok(())
            }
            Line::ServerMany(pattern) => {
                while let Some(said) = self.next()? {
                    if !matches(pattern, &said) {
                        self.ahead = Some(said);
                        break;
                    }
                }
                Ok(())
            }
            Line::Tls => self.peer.tls(),
            Line::Meanwhile(event) => self.peer.meanwhile(event),
            Line::Login(login) => self.log_in(login),
            Line::Then(fact) if fact == CLOSED_FACT => match self.next()? {
                None => Ok(()),
                Some(said) => Err(format!("expected the connection's end, the server said {said:?}")),
            },
            Line::Then(fact) => self.peer.then(fact),
            Line::Client(_) => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let shown = self.unsent.escape_ascii().to_string();
        self.heard.push(format!("C: {}", cut(&shown)));
        self.peer.send(&std::mem::take(&mut self.unsent))
    }

    fn next(&mut self) -> Result<Option<String>, String> {
        if let Some(line) = self.ahead.take() {
            return Ok(Some(line));
        }
        let line = self.peer.line()?;
        if let Some(line) = &line {
            self.heard.push(format!("S: {}", cut(line)));
        }
        Ok(line)
    }
}

fn cut(text: &str) -> &str {
    text.get(..200).unwrap_or(text)
}

/// Whether `text` is what `pattern` says; `*` stands for any run of characters, and a reference at the
/// end of the text may go without saying: the machine alone gives none, a whole server does.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let text = match text.rsplit_once(" (reference ") {
        Some((words, _)) if !pattern.contains("(reference ") => words,
        _ => text,
    };
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("250 OK", "250 OK", true),
            ("250 OK", "250 OK ", false),
            ("250 *", "250 2.1.0 OK", true),
            ("250 *OK*", "250 2.0.0 OK, message queued", true),
            ("250-*", "250 x", false),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyb", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
