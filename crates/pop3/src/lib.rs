//! The language of POP3 as a state machine without I/O: bytes in; replies and questions out.
//!
//! RFC 1939 with CAPA, TOP, UIDL, PIPELINING and RESP-CODES (RFC 2449), AUTH-RESP-CODE (RFC 3206),
//! STLS (RFC 2595) and AUTH (RFC 5034).
//!
//! Promises: bounded memory whatever the client sends or refuses to read; a deletion is asked for
//! only at QUIT; passwords are taken only inside TLS unless the options allow otherwise. Never: a
//! socket, a clock, a task, a message held whole.

mod body;
mod command;
pub mod fuzz;
mod line;
mod maildrop;
mod reply;
mod session;

pub use body::MessageWriter;
pub use maildrop::{Entry, Maildrop};
pub use session::{CommitToken, LoginRefusal, LoginToken, MessageToken, Question, Session, Step};

use std::time::Duration;

/// How a session behaves. Every field has a default.
#[derive(Clone, Debug)]
pub struct Options {
    /// Shown in the greeting and the farewell.
    pub host_name: String,
    /// Whether STLS can be offered: a certificate is there. Default true.
    pub stls_offered: bool,
    /// Whether USER, PASS and AUTH are taken outside TLS. Default false; for loopback tests.
    pub login_without_tls: bool,
    /// The mechanisms of AUTH. What the connection does not allow is left out of the offer; see
    /// [`sasl::Mechanisms::on`]. Default: all that need nothing but an account.
    pub mechanisms: sasl::Mechanisms,
    /// Octets of a command line at most, CR LF included. RFC 2449 §4 asks for 255; default 512,
    /// because long user names and passwords are worth more than the rule.
    pub line_octets_max: usize,
    /// Octets of a SASL response line at most. Default 12,288 (RFC 4954 §4), for the longest tokens.
    pub sasl_line_octets_max: usize,
    /// Lines in a row that are no command before the connection is closed. Default 10.
    pub bad_commands_max: u32,
    /// Refused logins before the connection is closed. Default 3.
    pub login_failures_max: u32,
    /// How long a client may take until it is logged in. Default 3 minutes, far less than the 10 of
    /// RFC 1939 §3, because until then it is a stranger.
    pub login_timeout: Duration,
    /// How long a logged-in client may be silent. Default 10 minutes, the least that RFC 1939 §3 allows.
    pub idle_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host_name: "localhost".to_owned(),
            stls_offered: true,
            login_without_tls: false,
            mechanisms: sasl::Mechanisms::default(),
            line_octets_max: 512,
            sasl_line_octets_max: 12_288,
            bad_commands_max: 10,
            login_failures_max: 3,
            login_timeout: Duration::from_secs(180),
            idle_timeout: Duration::from_secs(600),
        }
    }
}
