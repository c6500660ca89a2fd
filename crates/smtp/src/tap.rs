//! Listening in: each line of a conversation, for people who watch.
//!
//! Promises: secrets never reach a tap; the session blots them out first. Never: a way to change
//! what is said.

use std::sync::Arc;

/// What stands in place of a secret.
pub const BLOTTED: &str = "***";
/// The remark that is shown when the connection turns to TLS. A line in parentheses is a remark;
/// nobody said it.
pub const TLS_REMARK: &str = "(TLS handshake happens)";
/// Octets of one message line that are shown at most; the rest of the line is left out.
pub const SHOWN_OCTETS_MAX: usize = 1_000;

/// Hears every line of a session, without line endings, in the order in which they were said.
pub trait Tap: Send + Sync {
    /// One line. `session` names the conversation; `from_client` tells who spoke.
    fn line(&self, session: &str, from_client: bool, line: &str);
}

/// A tap together with the name of the session that it hears.
#[derive(Clone)]
pub(crate) struct Tapped {
    tap: Arc<dyn Tap>,
    session: String,
    partial: Vec<u8>,
}

impl Tapped {
    pub(crate) fn new(tap: Arc<dyn Tap>, session: String) -> Self {
        Self {
            tap,
            session,
            partial: Vec::new(),
        }
    }

    pub(crate) fn rename(&mut self, session: &str) {
        session.clone_into(&mut self.session);
    }

    pub(crate) fn line(&self, from_client: bool, line: &[u8]) {
        self.tap
            .line(&self.session, from_client, &String::from_utf8_lossy(line));
    }

    /// Hears a piece of a message and tells it line by line.
    pub(crate) fn body(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.hold(&bytes[..end]);
            let line = std::mem::take(&mut self.partial);
            self.line(true, line.strip_suffix(b"\r").unwrap_or(&line));
            bytes = &bytes[end + 1..];
        }
        self.hold(bytes);
    }

    fn hold(&mut self, bytes: &[u8]) {
        let room = SHOWN_OCTETS_MAX.saturating_sub(self.partial.len());
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The message is over, whether or not its last line was complete.
    pub(crate) fn body_end(&mut self) {
        self.partial.clear();
    }
}
