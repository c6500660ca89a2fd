//! What an operator may set about a server session, with the defaults and their reasons.

use std::time::Duration;

/// Whom a session serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Port 25: other servers. No login.
    Mta,
    /// Port 587: our users, who turn on TLS with STARTTLS and log in (RFC 6409).
    Submission,
    /// Port 465: our users, with TLS from the first octet (RFC 8314 §3.3).
    Submissions,
    /// LMTP (RFC 2033): a mail server of the same operator hands over mail for mailboxes here. Each
    /// recipient gets a reply of its own to the message.
    Lmtp,
}

impl Role {
    /// Whether our own users send through it.
    #[must_use]
    pub const fn is_submission(self) -> bool {
        matches!(self, Role::Submission | Role::Submissions)
    }
}

/// The limits and offers of a server session.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name in the greeting and in the answers to EHLO and HELO.
    pub hostname: String,
    /// Octets of a message at most (RFC 1870). Default 35,882,577: 25 MiB after base64.
    pub size_max_octets: u64,
    /// Octets of an oversized message that are read and thrown away, so that the refusal can be
    /// told, before the connection closes. Default 35,882,577.
    pub discard_max_octets: u64,
    /// Octets of a command line at most, CRLF included. RFC 5321 §4.5.3.1.4 asks for 512 and each
    /// extension adds to that. Default 2,048.
    pub command_octets_max: usize,
    /// Octets of a line of an AUTH exchange at most, CRLF included. Default 12,288 (RFC 4954 §4).
    pub auth_octets_max: usize,
    /// Octets of a line of the message at most, CRLF included. RFC 5321 §4.5.3.1.6 binds senders to
    /// 1,000, but honest mail breaks that daily. Default: no limit but the message's size.
    pub data_line_octets_max: Option<usize>,
    /// Recipients of a message at most. RFC 5321 §4.5.3.1.8 asks for at least 100. Default 1,000.
    pub recipients_max: usize,
    /// Refused commands of a session at most. Default 20; the next one gets 421.
    pub errors_max: u32,
    /// Commands of a session that were answered with a 4xx at most. Default 1,000: as many
    /// recipients beyond `recipients_max` may hear 452 as were taken; the next one gets 421.
    pub deferrals_max: usize,
    /// Failed logins of a session at most. Default 3; then 421.
    pub auth_failures_max: u32,
    /// Commands without an accepted message between them at most, so that a session does not idle
    /// on NOOP and RSET for ever. Recipients do not count. Default 200.
    pub idle_commands_max: u32,
    /// Messages of a session at most. Default 10,000.
    pub messages_max: u32,
    /// Whether the submission roles insist on a login. Default true.
    pub auth_required: bool,
    /// Whether the submission roles take logins and mail without TLS. Default false; for loopback
    /// tests only.
    pub allow_plaintext_auth: bool,
    /// The mechanisms of AUTH. What the connection does not allow is left out of the offer; see
    /// [`sasl::Mechanisms::on`]. Default: all that need nothing but an account.
    pub mechanisms: sasl::Mechanisms,
    /// Whether STARTTLS is offered: whether there is a certificate. Default true.
    pub offer_starttls: bool,
    /// Whether the client may say XCLIENT: whether its address is one that may speak for others.
    /// Default false.
    pub xclient: bool,
    /// Whether a client that sends the message before the 354 is cut off. Default true; such
    /// clients do not read replies.
    pub refuse_early_data: bool,
    /// For how long a submitted message may ask to be held (RFC 4865). Default 7 days; zero: the
    /// extension is not offered.
    pub hold_max: Duration,
    /// How long the client may take.
    pub timeouts: Timeouts,
}

/// How long a server waits for its client (RFC 5321 §4.5.3.2.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// For the next whole command. Default 5 minutes.
    pub command: Duration,
    /// For the next octets of a message. Default 3 minutes (RFC 5321 §4.5.3.2.5).
    pub data: Duration,
    /// For the whole TLS handshake. Default 1 minute.
    pub handshake: Duration,
    /// For our replies to be taken. Default 5 minutes.
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(300),
            data: Duration::from_secs(180),
            handshake: Duration::from_secs(60),
            write: Duration::from_secs(300),
        }
    }
}

impl Options {
    /// The defaults, for a server of that name.
    #[must_use]
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            hostname: hostname.into(),
            size_max_octets: 35_882_577,
            discard_max_octets: 35_882_577,
            command_octets_max: 2_048,
            auth_octets_max: 12_288,
            data_line_octets_max: None,
            recipients_max: 1_000,
            errors_max: 20,
            deferrals_max: 1_000,
            auth_failures_max: 3,
            idle_commands_max: 200,
            messages_max: 10_000,
            auth_required: true,
            allow_plaintext_auth: false,
            mechanisms: sasl::Mechanisms::default(),
            offer_starttls: true,
            xclient: false,
            refuse_early_data: true,
            hold_max: Duration::from_secs(7 * 86_400),
            timeouts: Timeouts::default(),
        }
    }
}
