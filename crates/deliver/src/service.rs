//! The service: finds due errands, claims them, attempts them, settles them.
//!
//! Strategies: the longest due goes first, and senders take turns; errands of one message to one domain
//! share a transaction, and messages to one server a connection (see `pool`); a site gets as much at a time
//! as it bears (see `control`), so that one that is slow or dead never holds the others, however many errands
//! of it are due (see `work`); memory does not grow with the queue; a claim is a lease, so that what a dead
//! process held comes back by itself.

use crate::attempt::{self, Courier};
use crate::dial::Dialer;
use crate::explain::Replies;
use crate::plan::{AddressOrder, Listening, Own, Plan};
use crate::pool::Pool;
use crate::route::Route;
use crate::sites::SiteLimit;
use crate::source::Sources;
use crate::tls_result::{self, TlsTally};
use crate::work::{PAUSE, Work};
use directory::{Directory, Random};
use dns::Resolver;
use journey::Journey;
use letterbox::{Letterbox, Reporter};
use mail::{Clock, Domain, Host};
use mailbox::Mailboxes;
use queue::{IdSource, Queue};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use store::Store;
use tlsrpt::Collector;
use tokio::sync::{Notify, watch};

/// How the service behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Our name: in EHLO, in reports, and as an MX host that is us.
    pub host_name: Domain,
    /// Further names by which MX records may call this server.
    pub own_names: Vec<Domain>,
    /// The port of servers found by MX. Default 25.
    pub port: u16,
    /// Which addresses are tried first. Default IPv4.
    pub order: AddressOrder,
    /// Where this server takes mail from others, so that mail does not go in circles. Default nowhere.
    pub listening: Listening,
    /// From which addresses of ours. Default none: the system chooses.
    pub sources: Sources,
    /// How attempts are made.
    pub attempt: attempt::Options,
    /// Attempts at the same time. Default 200.
    pub attempts_max: usize,
    /// Attempts at the same time to one site at most, where no limit says otherwise; it begins with 2.
    /// Default 20.
    pub attempts_per_domain_max: usize,
    /// What is allowed for some sites. The one that says most of a domain or its exchangers counts.
    pub site_limits: Vec<SiteLimit>,
    /// How long attempts may go on at shutdown. Default 30 seconds; what is cut off then is tried
    /// again at the next start.
    pub shutdown_grace: Duration,
    /// What servers' replies mean. Default: what the program knows.
    pub replies: Arc<Replies>,
    /// Whether no other process delivers from this store; then leases that an earlier run left
    /// are ended at the start. Default true.
    pub sole_worker: bool,
}

impl Options {
    /// The defaults, for a host of that name.
    #[must_use]
    pub fn new(host_name: Domain) -> Self {
        Self {
            attempt: attempt::Options::new(host_name.as_str()),
            host_name,
            own_names: Vec::new(),
            port: crate::route::SMTP_PORT,
            order: AddressOrder::default(),
            listening: Listening::default(),
            sources: Sources::default(),
            attempts_max: 200,
            attempts_per_domain_max: 20,
            site_limits: Vec::new(),
            shutdown_grace: Duration::from_secs(30),
            replies: Replies::built_in(),
            sole_worker: true,
        }
    }
}

/// What the service works with, handed in.
pub struct Parts {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// The spool.
    pub queue: Queue,
    /// The record.
    pub journey: Journey,
    /// Where reports to local senders go.
    pub mailboxes: Mailboxes,
    /// Who is local.
    pub directory: Directory,
    /// The DNS.
    pub resolver: Arc<dyn Resolver>,
    /// Connections.
    pub dialer: Arc<dyn Dialer>,
    /// TLS towards others.
    pub tls: tls::Client,
    /// Names for our reports; the process's one source.
    pub ids: Arc<IdSource>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// For shuffling and jitter.
    pub random: Arc<dyn Random>,
    /// Hears the conversations.
    pub tap: Option<Arc<dyn smtp::Tap>>,
}

/// The service's state, shared by its tasks.
pub struct Context {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) queue: Queue,
    pub(crate) journey: Journey,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) directory: Directory,
    pub(crate) ids: Arc<IdSource>,
    pub(crate) options: Options,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) courier: Courier,
    pub(crate) clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    pub(crate) own: Own,
    pub(crate) mta_sts: Option<mtasts::Policies>,
    routes: RwLock<Arc<[Route]>>,
    wake: Notify,
    /// Where addresses that were refused as unknown are suppressed, if anywhere.
    pub(crate) limits: Option<limits::Limits>,
    tls_results: Option<Arc<Collector>>,
}

impl Context {
    /// The service over these parts.
    #[must_use]
    pub fn new(parts: Parts, options: Options, routes: Vec<Route>) -> Self {
        let mut names = vec![options.host_name.clone()];
        names.extend(options.own_names.iter().cloned());
        Self {
            own: Own {
                names,
                port: options.port,
                order: options.order,
                listening: options.listening.clone(),
            },
            courier: Courier {
                dialer: parts.dialer,
                tls: parts.tls,
                store: Arc::clone(&parts.store),
                tap: parts.tap,
                chunking: crate::chunking::Chunking::default(),
                pool: Pool::new(options.attempt.keep),
                families: crate::race::Families::default(),
                options: options.attempt.clone(),
            },
            store: parts.store,
            queue: parts.queue,
            journey: parts.journey,
            mailboxes: parts.mailboxes,
            directory: parts.directory,
            ids: parts.ids,
            resolver: parts.resolver,
            clock: parts.clock,
            random: parts.random,
            options,
            mta_sts: None,
            routes: RwLock::new(routes.into()),
            wake: Notify::new(),
            limits: None,
            tls_results: None,
        }
    }

    /// Heeds the MTA-STS policies of the domains that mail goes to; without them nobody's.
    #[must_use]
    pub fn with_mta_sts(mut self, policies: Option<mtasts::Policies>) -> Self {
        self.mta_sts = policies;
        self
    }

    /// The same, which suppresses addresses for the senders that these limits name.
    #[must_use]
    pub fn with_limits(mut self, limits: limits::Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Counts there how conversations with the servers of other domains fare with TLS.
    #[must_use]
    pub fn with_tls_results(mut self, collector: Arc<Collector>) -> Self {
        self.tls_results = Some(collector);
        self
    }

    /// Where the conversations about one message are counted, if they are to be counted at all: for the
    /// domain whose servers they are with.
    pub(crate) fn tls_tally(&self, plan: &Plan, host: &Host, message: &queue::Message) -> TlsTally<'_> {
        // RFC 8460 §3: reports are not reported about, or two servers would do so for ever.
        let is_report = message.login.is_none()
            && message.reverse_path.is_null()
            && message
                .message_id
                .as_deref()
                .is_some_and(tlsrpt::message::is_ours);
        let collector = self.tls_results.as_deref().filter(|_| !is_report);
        let domain = tls_result::policy_domain(plan, host, &self.routes());
        TlsTally::new(collector, domain, plan)
    }

    /// The way into mailboxes here.
    pub(crate) fn letterbox(&self) -> Letterbox<'_> {
        Letterbox {
            directory: &self.directory,
            mailboxes: &self.mailboxes,
            queue: &self.queue,
            journey: &self.journey,
        }
    }

    /// The way of reports to their senders.
    pub(crate) fn reporter(&self) -> Reporter<'_> {
        Reporter {
            letterbox: self.letterbox(),
            store: self.store.as_ref(),
            ids: &self.ids,
            host_name: &self.options.host_name,
        }
    }

    /// Takes other routes; attempts that begin after this use them.
    pub fn set_routes(&self, routes: Vec<Route>) {
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes.into();
        self.wake();
    }

    /// Ends the connections that wait for a next message.
    pub fn close_idle_connections(&self) {
        self.courier.pool.clear();
    }

    /// Looks at the queue now. For those who move the clock.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    pub(crate) fn routes(&self) -> Arc<[Route]> {
        Arc::clone(&self.routes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number below `n`. Nothing secret hangs on it, so a source that fails gives 0.
    pub(crate) fn below(&self, n: usize) -> usize {
        let mut octets = [0u8; 8];
        match self.random.fill(&mut octets) {
            Ok(()) if n > 0 => (u64::from_le_bytes(octets) % n as u64) as usize,
            _ => 0,
        }
    }

    /// A number from 0 to 1.
    pub(crate) fn jitter(&self) -> f64 {
        self.below(1 << 20) as f64 / f64::from(1 << 20)
    }
}

/// Delivers until `shutdown` turns true; then lets running attempts end.
pub async fn run(ctx: Arc<Context>, mut shutdown: watch::Receiver<bool>) {
    if ctx.options.sole_worker
        && let Err(error) = ctx.queue.recover(ctx.clock.now()).await
    {
        tracing::error!(%error, "leases of an earlier run could not be ended; they end by themselves");
    }
    let mut changed = ctx.queue.watch();
    let mut work = Work::new();
    loop {
        let wait = match work.fill(&ctx).await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::error!(%error, "the queue could not be read");
                PAUSE
            }
        };
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            () = work.next(&ctx) => {}
            open = changed.changed() => match open {
                true => work.hear_news(),
                false => break,
            },
            () = ctx.wake.notified() => work.hear_news(),
            () = tokio::time::sleep(wait) => {}
        }
    }
    let ended = tokio::time::timeout(ctx.options.shutdown_grace, work.all_ended(&ctx)).await;
    if ended.is_err() {
        tracing::warn!(
            attempts = work.running.len(),
            "attempts were cut off at shutdown; they are made again at the next start"
        );
        work.running.shutdown().await;
    }
    ctx.courier.pool.clear();
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone can never say stop otherwise.
    let _ = shutdown.wait_for(|stop| *stop).await;
}
