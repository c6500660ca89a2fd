//! Mail clients that can be watched: small, line by line, over TCP, STARTTLS and TLS.
//!
//! Promises: every line said and heard goes to the observer, secrets as `********`; the server's
//! certificate is verified against the given roots; nothing waits longer than [`WAIT_SECS_MAX`]
//! and no line or literal grows beyond [`LINE_OCTETS_MAX`] and [`LITERAL_OCTETS_MAX`].
//! Never: a client for real use. It knows as much as the demo and the tests ask for.

mod imap;
mod pop3;
mod smtp;
mod wire;

pub use imap::{ImapClient, ImapReply};
pub use pop3::{Pop3Client, Pop3Reply};
pub use smtp::{Login, Reply, SmtpClient};
pub use wire::{Target, Trust, Watch};

use std::sync::Arc;

/// Seconds to wait for a connection, a line or a handshake.
pub const WAIT_SECS_MAX: u64 = 20;
/// Octets of a line at most.
pub const LINE_OCTETS_MAX: usize = 64 * 1024;
/// Octets of an IMAP literal or a multi-line reply at most.
pub const LITERAL_OCTETS_MAX: usize = 64 * 1024 * 1024;

/// What stands in place of a secret.
pub const BLOTTED: &str = "********";

/// Who said a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    /// The client.
    Client,
    /// The server.
    Server,
    /// Nobody: something happened, such as a TLS handshake.
    Event,
}

/// One line of a conversation.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Heard {
    /// The name that the conversation was given, for example `alice → gmail.com`.
    pub conversation: String,
    /// Who said it.
    pub speaker: Speaker,
    /// The line, without its ending, control characters replaced, secrets blotted out.
    pub text: String,
}

/// Hears every line.
pub type Observer = Arc<dyn Fn(&Heard) + Send + Sync>;

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection, or it broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The server said nothing for [`WAIT_SECS_MAX`].
    #[error("the server did not answer within {WAIT_SECS_MAX} seconds")]
    TimedOut,
    /// The server closed the connection where a reply was due.
    #[error("the server closed the connection")]
    Closed,
    /// The server's certificate or handshake was not accepted.
    #[error("TLS: {0}")]
    Tls(String),
    /// The reply is not what the protocol allows.
    #[error("the server's reply breaks the protocol: {0}")]
    Protocol(String),
    /// The reply was understood, but it is a refusal where success was needed.
    #[error("refused: {0}")]
    Refused(String),
}
