//! The edge: the real clock, the runtime, the store and everything that stands on it, opened from
//! the settings. The only place below the demo that knows both settings and crates.

use crate::cli::Failure;
use crate::settings::{self, Dnssec, Settings};
use admin::Office;
use deliver::explain::Replies;
use directory::Directory;
use dns::hickory::Checking;
use journey::Journey;
use mail::{Clock, Domain, Timestamp};
use mailbox::Mailboxes;
use queue::{IdSource, Queue};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::engine::LogStore;

/// The real clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// Runs a future on a runtime of its own.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// Waits for SIGTERM or SIGINT.
pub async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The store and the domains that live in it.
pub struct World {
    pub store: Arc<LogStore>,
    pub clock: Arc<dyn Clock>,
    /// Names transactions; one for the whole process.
    pub ids: Arc<IdSource>,
    pub office: Office,
    /// How conversations with other servers fare with TLS.
    pub tls_results: Arc<tlsrpt::Collector>,
}

impl World {
    /// The same for a command that a person typed: what was found broken is told on standard error,
    /// because this opening is the only one that sees it. Answers also how many places there were.
    pub fn open_told(settings: &Settings) -> Result<(Self, usize), Failure> {
        let world = Self::open(settings)?;
        for damage in world.store.damage() {
            eprintln!("posthaste: the store is damaged: {damage}");
        }
        let places = world.store.damage().len();
        Ok((world, places))
    }

    /// Opens (or makes) the data folder.
    pub fn open(settings: &Settings) -> Result<Self, Failure> {
        Self::open_store(settings, false)
    }

    /// The same; `skip_damage`: even when acknowledged parts of the log can't be read, without them.
    pub fn open_store(settings: &Settings, skip_damage: bool) -> Result<Self, Failure> {
        make_private(&settings.data)
            .map_err(|e| Failure::store(format!("the data folder {}: {e}", settings.data.display())))?;
        let options = store::engine::Options {
            skip_damage,
            ..store::engine::Options::default()
        };
        let store = LogStore::open(&settings.data.join("store"), options)
            .map_err(|e| Failure::store(e.to_string()))?;
        for damage in store.damage() {
            tracing::error!("the store is damaged: {damage}");
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let shared: Arc<dyn store::Store> = store.clone();
        let mut options = directory::Options {
            quota_default_octets: settings.mailbox.quota_default(),
            ..directory::Options::default()
        };
        let offered = settings.mechanisms().map_err(Failure::Settings)?;
        if !offered.iter().any(|mechanism| mechanism.scram().is_some()) {
            // What nobody can use is not kept.
            options.scram_iterations = 0;
        }
        let directory = Directory::new(shared.clone(), options, Arc::new(directory::SystemRandom))
            .map_err(|e| Failure::store(e.to_string()))?;
        let ids = Arc::new(IdSource::new(clock.clone()));
        let endpoints = settings::webhook::endpoints(&settings.webhook).map_err(Failure::Settings)?;
        let outbox = webhook::Outbox::new(shared.clone(), endpoints);
        let office = Office {
            store: store.clone(),
            directory,
            mailboxes: Mailboxes::new(shared.clone()),
            queue: Queue::new(shared.clone(), queue_options(settings)),
            limits: limits::Limits::new(shared.clone(), settings.limits.options()),
            mta_sts: mtasts::Memory::new(shared.clone()),
            policies: None,
            journey: Journey::new(shared.clone()).with_also(Arc::new(outbox.clone())),
            outbox,
            webhooks: None,
            ids: ids.clone(),
            clock: clock.clone(),
            hostname: hostname(settings)?,
            own_tlsa: None,
            auditing: Arc::default(),
        };
        Ok(Self {
            store,
            clock,
            ids,
            office,
            tls_results: Arc::new(tlsrpt::Collector::new(shared)),
        })
    }

    /// The store as the crates above it take it.
    pub fn shared_store(&self) -> Arc<dyn store::Store> {
        self.store.clone()
    }

    /// Closes the store, so that the next start has nothing to recover.
    pub async fn close(self) {
        self.store.close();
    }
}

/// Makes a folder for its owner alone; one that is there keeps the permissions it has.
pub fn make_private(folder: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// What other servers' replies mean: the operator's own patterns, then the program's.
pub fn replies(settings: &Settings) -> Result<Arc<Replies>, Failure> {
    let Some(file) = &settings.deliver.replies else {
        return Ok(Replies::built_in());
    };
    let wrong = |what: String| Failure::Settings(format!("deliver.replies: {}: {what}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
    let replies = Replies::with(&text).map_err(|e| wrong(e.to_string()))?;
    Ok(Arc::new(replies))
}

/// Whether the failures for which lifetimes are set are known; a misspelt one would never count.
pub fn check_lifetimes(settings: &Settings, replies: &Replies) -> Result<(), Failure> {
    let known = |class: &str| replies.classes().any(|known| known.name == class);
    match settings.queue.lifetime.iter().find(|one| !known(&one.class)) {
        None => Ok(()),
        Some(one) => Err(Failure::Settings(format!(
            "queue.lifetime: class = \"{}\" is no class of failures; `posthaste failures` prints them",
            one.class
        ))),
    }
}

/// Our own name; the settings have checked it.
pub fn hostname(settings: &Settings) -> Result<Domain, Failure> {
    Domain::parse(&settings.hostname).map_err(|e| Failure::Settings(format!("hostname: {e}")))
}

fn queue_options(settings: &Settings) -> queue::Options {
    let defaults = queue::Options::default();
    let lifetimes = settings.queue.lifetime.iter();
    let by_class = lifetimes.map(|one| (one.class.clone(), Duration::from_secs(one.expire_secs)));
    queue::Options {
        schedule: queue::Schedule {
            first_retry: Duration::from_secs(settings.queue.retry_first_secs),
            max_interval: Duration::from_secs(settings.queue.retry_max_secs),
            expire_after: Duration::from_secs(settings.queue.expire_secs),
            expire_reports_after: Duration::from_secs(settings.queue.expire_report_secs),
            delay_notice_after: match settings.queue.delay_notice_secs {
                0 => None,
                secs => Some(Duration::from_secs(secs)),
            },
            ..defaults.schedule
        },
        lifetimes: queue::Lifetimes {
            low_priority: Some(Duration::from_secs(settings.queue.expire_low_priority_secs)),
            by_class: by_class.collect(),
        },
        ..defaults
    }
}

/// A resolver as the settings say, that asks these servers, or the system's when none are named.
pub fn resolver(
    servers: &[SocketAddr],
    settings: &Settings,
) -> Result<dns::hickory::HickoryResolver, Failure> {
    let trust_anchors = match &settings.dns.trust_anchors {
        None => None,
        Some(path) => Some(std::fs::read_to_string(path).map_err(|e| {
            Failure::Settings(format!(
                "dns.trust_anchors: {} cannot be read: {e}",
                path.display()
            ))
        })?),
    };
    let options = dns::hickory::Options {
        servers: servers.to_vec(),
        timeout: Duration::from_secs(settings.dns.timeout_secs),
        checking: match settings.dns.dnssec {
            Dnssec::Auto => Checking::Auto,
            Dnssec::Validate => Checking::Validate,
            Dnssec::TrustAd => Checking::TrustAd,
            Dnssec::Off => Checking::Off,
        },
        trust_anchors,
        ..dns::hickory::Options::default()
    };
    dns::hickory::HickoryResolver::new(&options).map_err(|e| Failure::Settings(format!("[dns]: {e}")))
}

/// Asks hosts by HTTPS.
pub fn web_client(settings: &Settings) -> Result<web::Client, Failure> {
    let resolver: Arc<dyn dns::Resolver> = Arc::new(resolver(&settings.dns.servers, settings)?);
    let tls = tls::Client::new(&roots(settings)?).map_err(|e| Failure::Settings(e.to_string()))?;
    Ok(web::Client::new(resolver, Arc::new(tls), "Posthaste"))
}

/// The policies of other domains, fetched by HTTPS and remembered in the store.
pub fn mta_sts(
    settings: &Settings,
    world: &World,
    resolver: &Arc<dyn dns::Resolver>,
) -> Result<mtasts::Policies, Failure> {
    policies(
        settings,
        world.shared_store(),
        world.clock.clone(),
        resolver.clone(),
    )
}

/// The same, remembered in another store.
pub fn policies(
    settings: &Settings,
    store: Arc<dyn store::Store>,
    clock: Arc<dyn Clock>,
    resolver: Arc<dyn dns::Resolver>,
) -> Result<mtasts::Policies, Failure> {
    let tls = tls::Client::new(&roots(settings)?).map_err(|e| Failure::Settings(e.to_string()))?;
    let client = web::Client::new(resolver.clone(), Arc::new(tls), "Posthaste");
    let fetcher = web::PolicyFetcher::new(client).at_port(settings.deliver.mta_sts_port);
    Ok(mtasts::Policies::new(store, resolver, Arc::new(fetcher), clock))
}

/// The authorities by which the certificates of other servers are verified.
pub fn roots(settings: &Settings) -> Result<tls::Roots, Failure> {
    let public = tls::Roots::public();
    match &settings.deliver.extra_roots {
        Some(file) => public
            .with_file(file)
            .map_err(|e| Failure::Settings(e.to_string())),
        None => Ok(public),
    }
}

/// Our certificate: from the files named, or self-signed in the data folder.
pub fn tls_certificates(settings: &Settings, clock: &dyn Clock) -> Result<tls::Certificates, Failure> {
    let source = match (&settings.tls.certificate, &settings.tls.key) {
        (Some(chain), Some(key)) => tls::CertificateSource::Files(vec![tls::CertificateFiles {
            chain: chain.clone(),
            key: key.clone(),
        }]),
        _ => tls::CertificateSource::SelfSigned {
            dir: settings.data.join("tls"),
            host_name: hostname(settings)?,
            addresses: settings.listen.numbered(),
        },
    };
    let client_roots = settings.tls.client_roots.clone();
    tls::Certificates::open_with_client_roots(source, client_roots, clock.now())
        .map_err(|e| Failure::Settings(e.to_string()))
}
