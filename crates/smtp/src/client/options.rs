//! What a client session should do, how long it waits, and what its server said it can do.

use super::reply::ServerReply;
use mail::Secret;
use std::time::Duration;

/// How much TLS matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsWish {
    /// Not even when it is offered.
    Never,
    /// When it is offered; a refusal of STARTTLS does not end the session (RFC 7435).
    IfOffered,
    /// Or the session ends.
    Required,
}

/// What a client session should do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name for EHLO or LHLO.
    pub helo: String,
    /// Whether the server speaks LMTP (RFC 2033): LHLO, and an answer for each recipient behind the
    /// message. Default false.
    pub lmtp: bool,
    /// Default [`TlsWish::IfOffered`].
    pub tls: TlsWish,
    /// Name and password for AUTH; `None` (default) for no login.
    pub login: Option<(String, Secret)>,
    /// Whether the password may go over a connection in clear. Default false.
    pub allow_plaintext_auth: bool,
    /// Whether PIPELINING is used when it is offered. Default true.
    pub pipelining: bool,
    /// Whether messages go by BDAT when CHUNKING is offered (RFC 3030); binary ones always do, and by
    /// LMTP no others. Default true.
    pub chunking: bool,
    /// How long the server may take.
    pub timeouts: Timeouts,
}

/// How long a client waits (RFC 5321 §4.5.3.2; these are its minimums).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// For the greeting: 5 minutes.
    pub greeting: Duration,
    /// For EHLO, STARTTLS, AUTH, MAIL, RCPT, RSET: 5 minutes.
    pub command: Duration,
    /// For the 354: 2 minutes.
    pub data: Duration,
    /// For a piece of the message to be taken: 3 minutes.
    pub block: Duration,
    /// For the reply to the message: 10 minutes.
    pub end_of_message: Duration,
    /// For the reply to QUIT: 10 seconds; nothing depends on it.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            greeting: Duration::from_secs(300),
            command: Duration::from_secs(300),
            data: Duration::from_secs(120),
            block: Duration::from_secs(180),
            end_of_message: Duration::from_secs(600),
            quit: Duration::from_secs(10),
        }
    }
}

impl Options {
    /// The defaults, for a client of that name.
    #[must_use]
    pub fn new(helo: impl Into<String>) -> Self {
        Self {
            helo: helo.into(),
            lmtp: false,
            tls: TlsWish::IfOffered,
            login: None,
            allow_plaintext_auth: false,
            pipelining: true,
            chunking: true,
            timeouts: Timeouts::default(),
        }
    }
}

/// What the server said it can do, in its last answer to EHLO.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// STARTTLS.
    pub starttls: bool,
    /// PIPELINING.
    pub pipelining: bool,
    /// 8BITMIME.
    pub eight_bit: bool,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// DSN.
    pub dsn: bool,
    /// CHUNKING.
    pub chunking: bool,
    /// BINARYMIME.
    pub binary_mime: bool,
    /// REQUIRETLS.
    pub require_tls: bool,
    /// DELIVERBY, with the fewest seconds that it takes; 0 when it did not say.
    pub deliver_by: Option<u64>,
    /// MT-PRIORITY.
    pub mt_priority: bool,
    /// SIZE, with the most octets that it takes; 0 when it did not say.
    pub size_max_octets: Option<u64>,
    /// The mechanisms of AUTH, in upper case.
    pub auth: Vec<String>,
}

impl Capabilities {
    pub(super) fn of(reply: &ServerReply) -> Self {
        let mut found = Self::default();
        for line in reply.lines.iter().skip(1) {
            // Some old servers write AUTH=LOGIN.
            let line = line.to_ascii_uppercase().replace("AUTH=", "AUTH ");
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("STARTTLS") => found.starttls = true,
                Some("PIPELINING") => found.pipelining = true,
                Some("8BITMIME") => found.eight_bit = true,
                Some("SMTPUTF8") => found.smtputf8 = true,
                Some("DSN") => found.dsn = true,
                Some("CHUNKING") => found.chunking = true,
                Some("BINARYMIME") => found.binary_mime = true,
                Some("REQUIRETLS") => found.require_tls = true,
                Some("DELIVERBY") => {
                    found.deliver_by = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0));
                }
                Some("MT-PRIORITY") => found.mt_priority = true,
                Some("SIZE") => {
                    found.size_max_octets = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0));
                }
                Some("AUTH") => found.auth.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        found
    }
}
