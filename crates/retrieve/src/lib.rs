//! Retrieval: listeners for IMAP and POP3 that drive the sans-IO sessions of `imap` and `pop3`.
//!
//! Promises: whatever changes a mailbox is durable before the client is told; every connection has
//! limits of time, memory and number; a panic ends its own connection only. Never: a rule of a
//! protocol's grammar, a decision about where mail goes.

mod connection;
mod fetched;
mod imap;
mod listen;
mod login;
mod pop3;
mod pop3_tap;
mod tap;

pub use connection::{Connection, Io, TlsFailed};
pub use listen::{serve, serve_connection};
pub use tap::{Direction, Tap};

use directory::Directory;
use journey::Journey;
use mail::Clock;
use mailbox::Mailboxes;
use std::sync::Arc;
use std::time::Duration;
use store::Store;

/// What a listener speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// IMAP with STARTTLS (port 143).
    Imap,
    /// IMAP inside TLS (port 993, RFC 8314).
    Imaps,
    /// POP3 with STLS (port 110).
    Pop3,
    /// POP3 inside TLS (port 995, RFC 8314).
    Pop3s,
}

impl Protocol {
    /// Whether TLS begins with the connection.
    #[must_use]
    pub const fn is_implicit_tls(self) -> bool {
        matches!(self, Protocol::Imaps | Protocol::Pop3s)
    }

    /// The name, for logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Imap => "imap",
            Protocol::Imaps => "imaps",
            Protocol::Pop3 => "pop3",
            Protocol::Pop3s => "pop3s",
        }
    }
}

/// Limits and switches; the same for all listeners.
#[derive(Clone, Debug)]
pub struct Options {
    /// Our name, shown in greetings.
    pub hostname: String,
    /// Connections of all protocols together. Default 100,000.
    pub connections_max: usize,
    /// Connections from one address (one /64 of IPv6); a whole office may be behind one. Default 1,000.
    pub connections_per_address_max: usize,
    /// Time until a connection must be logged in, TLS handshake included. Default 60 seconds.
    pub login_timeout: Duration,
    /// Silence after which a logged-in IMAP connection ends. Default 30 minutes, the least that
    /// RFC 3501 §5.4 allows.
    pub imap_idle_timeout: Duration,
    /// Silence after which a logged-in POP3 connection ends. Default 10 minutes, the least that
    /// RFC 1939 §3 allows.
    pub pop3_idle_timeout: Duration,
    /// Time that a peer may take to read what we write. Default 2 minutes.
    pub write_timeout: Duration,
    /// Logins without TLS. Default no; for tests on loopback.
    pub allow_plaintext_auth: bool,
    /// Octets of a message that a client appends. Default 52,428,800 (50 MiB).
    pub message_octets_max: u64,
    /// Passwords verified at the same time; each can take tens of milliseconds of a processor.
    /// Default 4.
    pub logins_at_once_max: usize,
    /// Failed logins from one address within [`Options::login_failures_window`] after which more
    /// are refused unseen. Default 100.
    pub login_failures_per_address_max: u32,
    /// How long failed logins are remembered. Default 10 minutes.
    pub login_failures_window: Duration,
    /// How long connections may take to end at shutdown before they are cut. Default 10 seconds.
    pub shutdown_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            connections_max: 100_000,
            connections_per_address_max: 1_000,
            login_timeout: Duration::from_secs(60),
            imap_idle_timeout: Duration::from_secs(30 * 60),
            pop3_idle_timeout: Duration::from_secs(10 * 60),
            write_timeout: Duration::from_secs(120),
            allow_plaintext_auth: false,
            message_octets_max: 50 * 1024 * 1024,
            logins_at_once_max: 4,
            login_failures_per_address_max: 100,
            login_failures_window: Duration::from_secs(600),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

/// What the sessions work with; one for all listeners.
pub struct Context {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) directory: Directory,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) journey: Journey,
    pub(crate) tls: Option<Arc<tls::Certificates>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) tap: Option<Arc<dyn Tap>>,
    pub(crate) gate: listen::Gate,
    pub(crate) logins: login::Logins,
    pub(crate) maildrops: pop3::Maildrops,
}

impl Context {
    /// A context. Without `tls` no TLS is offered, and the listeners of implicit TLS close every
    /// connection at once.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        directory: Directory,
        mailboxes: Mailboxes,
        journey: Journey,
        tls: Option<Arc<tls::Certificates>>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Self {
        Self {
            gate: listen::Gate::new(&options),
            logins: login::Logins::new(&options),
            maildrops: pop3::Maildrops::default(),
            store,
            directory,
            mailboxes,
            journey,
            tls,
            clock,
            options,
            tap: None,
        }
    }

    /// Shows every line of every session to `tap`; for the demonstration and for tests.
    #[must_use]
    pub fn with_tap(mut self, tap: Arc<dyn Tap>) -> Self {
        self.tap = Some(tap);
        self
    }
}
