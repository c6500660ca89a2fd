//! Retrieval: listeners for IMAP and POP3 that drive the sans-IO sessions of `imap` and `pop3`.
//!
//! Promises: whatever changes a mailbox is durable before the client is told; every connection has
//! limits of time, memory and number; a panic ends its own connection only. Never: a rule of a
//! protocol's grammar, a decision about where mail goes.

mod connection;
mod fetched;
mod imap;
mod pop3;
mod pop3_tap;
mod serve;
mod tap;

pub use connection::{Connection, TlsFailed};
pub use listen::Io;
pub use serve::{serve, serve_connection};
pub use tap::{Direction, Tap};

use directory::Directory;
use journey::Journey;
use mail::Clock;
use mailbox::Mailboxes;
use std::net::SocketAddr;
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
    /// Logins without TLS, for programs on this machine alone; from elsewhere they are refused all
    /// the same. Default no.
    pub allow_plaintext_auth: bool,
    /// The mechanisms of AUTHENTICATE and AUTH; what a connection does not allow is left out there.
    /// Default: all that need nothing but an account.
    pub mechanisms: sasl::Mechanisms,
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
    /// The wait before a failed login is answered; doubles with each failure of the session.
    /// Default 1 second.
    pub auth_failure_delay: Duration,
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
            mechanisms: sasl::Mechanisms::default(),
            message_octets_max: 50 * 1024 * 1024,
            logins_at_once_max: 4,
            login_failures_per_address_max: 100,
            login_failures_window: Duration::from_secs(600),
            auth_failure_delay: Duration::from_secs(1),
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
    pub(crate) logins: Arc<listen::Logins>,
    pub(crate) maildrops: pop3::Maildrops,
    pub(crate) limits: Option<limits::Limits>,
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
            gate: listen::Gate::new(options.connections_max, options.connections_per_address_max),
            logins: Arc::new(listen::Logins::new(listen::LoginLimits {
                at_once_max: options.logins_at_once_max,
                failures_per_address_max: options.login_failures_per_address_max,
                failures_window: options.login_failures_window,
                ..listen::LoginLimits::default()
            })),
            maildrops: pop3::Maildrops::default(),
            limits: None,
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

    /// Counts logins together with those of other services. The limits are then the ones that
    /// `logins` was made with, and not those of the [`Options`].
    #[must_use]
    pub fn with_logins(mut self, logins: Arc<listen::Logins>) -> Self {
        self.logins = logins;
        self
    }

    /// Refuses whom these limits block.
    #[must_use]
    pub fn with_limits(mut self, limits: limits::Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Whether that client may log in without TLS.
    pub(crate) fn may_log_in_plain(&self, peer: SocketAddr) -> bool {
        self.options.allow_plaintext_auth && listen::is_this_machine(peer.ip())
    }

    /// Asks the directory about a login.
    pub(crate) async fn ask(&self, asker: listen::Asker, request: sasl::Request) -> listen::Asked {
        self.logins
            .ask(&self.directory, self.clock.as_ref(), asker, request)
            .await
    }

    /// Records a login that nobody was asked about.
    pub(crate) fn note_unseen(
        &self,
        connection: &Connection,
        protocol: directory::Protocol,
        unseen: sasl::Unseen,
    ) {
        self.logins
            .note_unseen(self.clock.as_ref(), connection.peer(), protocol, unseen);
    }

    /// Shows every line of every session to `tap`; for the demonstration and for tests.
    #[must_use]
    pub fn with_tap(mut self, tap: Arc<dyn Tap>) -> Self {
        self.tap = Some(tap);
        self
    }
}
