//! Reception: listeners for SMTP (25) and submission (587, 465) that drive `smtp` server sessions.
//!
//! Promises: a positive reply to a message comes after one durable commit of the bytes and of all
//! they cause; there is one path for every accepted message; what a client can make us hold, wait
//! for or write has a limit; a panic ends its own connection only.
//!
//! The end of a message is three steps: `gather` (asks the DNS), `judge::judge` (pure), `commit`
//! (one batch). Never: a rule of SMTP's grammar, a route, a decision about when to try again.

mod accept;
mod asked;
mod author;
mod commit;
mod filter;
mod gather;
mod header;
mod leads;
mod limit;
mod lmtp;
mod local;
mod login;
mod mail_in;
mod pace;
mod record;
mod refused;
mod serve;
mod session;
mod sign;
mod spill;
mod tls_report;
mod transaction;
mod wire;
mod xclient;

pub use filter::{
    Filter, FilterAddress, FilterDialer, FilterDialing, FilterIo, OnFailure, SocketDialer, When,
};
pub use local::{LocalSender, LocalSenders, SendAs, SenderPattern};
pub use serve::{serve, serve_connection, serve_local};
pub use spill::Spilling;

use directory::Directory;
use dns::Resolver;
use journey::Journey;
use mail::{Clock, Domain};
use mailbox::Mailboxes;
use queue::{IdSource, Queue};
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::sync::Semaphore;

/// The unit in which memory for messages is counted, in octets.
const MEMORY_UNIT: usize = 1024;

/// Limits and switches; the same for all listeners.
#[derive(Clone, Debug)]
pub struct Options {
    /// The protocol's limits, and our name.
    pub smtp: smtp::Options,
    /// Connections of all roles together. Default 10,000.
    pub connections_max: usize,
    /// Connections from one address (one /64 of IPv6). Default 100.
    pub connections_per_address_max: usize,
    /// Connections from one network. Default 1,000 from a /24 of IPv4 or a /48 of IPv6.
    pub connections_per_network: Option<listen::Networks>,
    /// Octets of messages that are being received, all sessions together. Default 256 MiB; beyond it
    /// 452 is answered.
    pub memory_max_octets: usize,
    /// Where large messages go while they come in; `None`: all stay in memory. Default `None`.
    pub spill: Option<Spilling>,
    /// Received fields at most before a message is taken to be looping (RFC 5321 §6.3). Default 50.
    pub received_max: usize,
    /// How long gathering evidence may take before the message is deferred. Default 60 seconds
    /// (RFC 7208 §4.6.4 asks for at least 20).
    pub gather_timeout: Duration,
    /// How long a client is watched before it is greeted; one that speaks first is refused. Default
    /// zero: only what has come already counts, and honest clients lose no time.
    pub greeting_delay: Duration,
    /// How long one message may take to come in, however steadily it does. Default 1 hour.
    pub message_time_max: Duration,
    /// Octets a second that a message must bring in every stretch of the time-out for its next octets
    /// (`smtp.timeouts.data`); 0: no such limit. Default 50.
    pub message_octets_per_second_min: u32,
    /// The wait before a failed login is answered; doubles with each failure of the session.
    /// Default 1 second.
    pub auth_failure_delay: Duration,
    /// Messages signed at the same time; and passwords verified, which count for themselves.
    /// Default 4.
    pub cpu_at_once_max: usize,
    /// Failed logins from one address within [`Options::login_failures_window`] after which more are
    /// refused unseen. Default 100.
    pub login_failures_per_address_max: u32,
    /// How long failed logins are remembered. Default 10 minutes.
    pub login_failures_window: Duration,
    /// Refusals, of transactions and of sessions, whose journey is recorded, a second at most; the others are only logged,
    /// so that nobody can fill the disk by being refused. Default 20.
    pub refusals_recorded_per_second: u32,
    /// Networks whose clients may say XCLIENT: proxies that tell whom they speak for. Default none.
    pub xclient_from: Vec<limits::Network>,
    /// Networks whose mail is not judged: servers of the same operator, which judged it. They may relay no
    /// more than strangers. Default none.
    pub unjudged_from: Vec<limits::Network>,
    /// Whether TLS reports (RFC 8460) to the address that our domains name for them are read. Default
    /// true.
    pub read_tls_reports: bool,
    /// How long connections may take to end at shutdown before they are cut. Default 10 seconds.
    pub shutdown_grace: Duration,
}

impl Options {
    /// The defaults, for a server of that name.
    #[must_use]
    pub fn new(hostname: &Domain) -> Self {
        Self {
            smtp: smtp::Options::new(hostname.as_str()),
            connections_max: 10_000,
            connections_per_address_max: 100,
            connections_per_network: Some(listen::Networks {
                connections_max: 1_000,
                ipv4_prefix: 24,
                ipv6_prefix: 48,
            }),
            memory_max_octets: 256 * 1024 * 1024,
            spill: None,
            received_max: 50,
            gather_timeout: Duration::from_secs(60),
            greeting_delay: Duration::ZERO,
            message_time_max: Duration::from_secs(3_600),
            message_octets_per_second_min: 50,
            auth_failure_delay: Duration::from_secs(1),
            cpu_at_once_max: 4,
            login_failures_per_address_max: 100,
            login_failures_window: Duration::from_secs(600),
            refusals_recorded_per_second: 20,
            xclient_from: Vec::new(),
            unjudged_from: Vec::new(),
            read_tls_reports: true,
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

/// The parts of the house that reception works with.
#[derive(Clone)]
pub struct Parts {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// Who is served here.
    pub directory: Directory,
    /// Their mailboxes.
    pub mailboxes: Mailboxes,
    /// What goes elsewhere.
    pub queue: Queue,
    /// What happened.
    pub journey: Journey,
    /// Asks the DNS.
    pub resolver: Arc<dyn Resolver>,
    /// Our certificate; without one no TLS is offered and 465 closes every connection at once.
    pub certificates: Option<Arc<tls::Certificates>>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Names transactions; one for the whole process.
    pub ids: Arc<IdSource>,
}

/// What the sessions work with; one for all listeners.
pub struct Context {
    parts: Parts,
    hostname: Domain,
    options: Options,
    smtp_options: Arc<smtp::Options>,
    policy: judge::Policy,
    blocklists: Vec<Domain>,
    tap: Option<Arc<dyn smtp::Tap>>,
    gate: listen::Gate,
    memory: Arc<Semaphore>,
    spill: Option<spill::Room>,
    cpu: Semaphore,
    logins: Arc<listen::Logins>,
    limits: limits::Limits,
    signers: sign::Signers,
    refusals: record::RefusalBudget,
    filters: Vec<Arc<Filter>>,
    filter_dialer: Arc<dyn FilterDialer>,
}

impl Context {
    /// A context for a server of that name.
    #[must_use]
    pub fn new(
        parts: Parts,
        hostname: Domain,
        options: Options,
        policy: judge::Policy,
        blocklists: Vec<Domain>,
    ) -> Self {
        let smtp_options = smtp::Options {
            offer_starttls: parts.certificates.is_some(),
            ..options.smtp.clone()
        };
        Self {
            gate: listen::Gate::new(options.connections_max, options.connections_per_address_max)
                .with_networks(options.connections_per_network),
            limits: limits::Limits::new(parts.store.clone(), limits::Options::off()),
            spill: options.spill.clone().map(spill::Room::new),
            memory: Arc::new(Semaphore::new(options.memory_max_octets / MEMORY_UNIT)),
            cpu: Semaphore::new(options.cpu_at_once_max.max(1)),
            logins: Arc::new(listen::Logins::new(listen::LoginLimits {
                at_once_max: options.cpu_at_once_max,
                failures_per_address_max: options.login_failures_per_address_max,
                failures_window: options.login_failures_window,
                ..listen::LoginLimits::default()
            })),
            signers: sign::Signers::default(),
            refusals: record::RefusalBudget::new(options.refusals_recorded_per_second),
            smtp_options: Arc::new(smtp_options),
            parts,
            hostname,
            options,
            policy,
            blocklists,
            tap: None,
            filters: Vec::new(),
            filter_dialer: Arc::new(SocketDialer),
        }
    }

    /// Counts logins together with those of other services. The limits are then the ones that
    /// `logins` was made with, and not those of the [`Options`].
    #[must_use]
    pub fn with_logins(mut self, logins: Arc<listen::Logins>) -> Self {
        self.logins = logins;
        self
    }

    /// Asks these limits, which other services share. Without them nothing is limited but what the
    /// [`Options`] say.
    #[must_use]
    pub fn with_limits(mut self, limits: limits::Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Asks these content filters, in this order.
    #[must_use]
    pub fn with_filters(mut self, filters: Vec<Filter>, dialer: Arc<dyn FilterDialer>) -> Self {
        self.filters = filters.into_iter().map(Arc::new).collect();
        self.filter_dialer = dialer;
        self
    }

    /// Shows every line of every session to `tap`, for the demonstration and for tests.
    #[must_use]
    pub fn with_tap(mut self, tap: Arc<dyn smtp::Tap>) -> Self {
        self.tap = Some(tap);
        self
    }
}
