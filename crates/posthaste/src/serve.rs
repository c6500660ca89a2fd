//! `posthaste serve`: binds the listeners, starts the services, and ends cleanly.

mod contexts;
pub mod doors;
mod scrub;
mod tls_reports;
#[cfg(test)]
mod two_servers;
mod upkeep;
pub mod ways;
pub mod webhooks;

use crate::cli::Failure;
use crate::settings::Settings;
use crate::world::{self, World};
use doors::Listeners;
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Open files that are asked for at most; more would serve nobody.
const DESCRIPTORS_MAX: u64 = 1 << 20;

/// What watches a server from outside, in the demo and in tests.
#[derive(Default)]
pub struct Hooks {
    /// Sees every line of SMTP, in and out.
    pub smtp_tap: Option<Arc<dyn smtp::Tap>>,
}

/// A running server.
pub struct Server {
    pub world: World,
    /// The addresses that were bound, by service.
    pub bound: BTreeMap<&'static str, Vec<SocketAddr>>,
    /// The Unix sockets that were bound, by service.
    pub sockets: Vec<(&'static str, PathBuf)>,
    pub certificates: Arc<tls::Certificates>,
    logins: Arc<listen::Logins>,
    login_settings: crate::settings::Login,
    stop: watch::Sender<bool>,
    services: JoinSet<()>,
}

/// Runs the server in the foreground until SIGTERM or SIGINT. `skip_damage`: also on a store whose log
/// is damaged, without what can't be read.
pub fn run(settings: &Settings, skip_damage: bool) -> Result<ExitCode, Failure> {
    start_log(settings)?;
    raise_descriptor_limit(settings.smtp.connections_max);
    world::block_on(async {
        let world = World::open_store(settings, skip_damage)?;
        let mut server = Server::start_on(world, settings, Hooks::default()).await?;
        for (service, addresses) in &server.bound {
            for address in addresses {
                println!("{service} {address}");
            }
        }
        for (service, path) in &server.sockets {
            println!("{service} unix:{}", path.display());
        }
        println!("ready");
        let told = server.until_told_to_stop().await;
        server.shutdown().await;
        told.map(|()| ExitCode::SUCCESS)
    })
}

impl Server {
    /// Binds everything, then starts everything: after this every listener answers.
    pub async fn start(settings: &Settings, hooks: Hooks) -> Result<Self, Failure> {
        Self::start_on(World::open(settings)?, settings, hooks).await
    }

    async fn start_on(mut world: World, settings: &Settings, hooks: Hooks) -> Result<Self, Failure> {
        let certificates = Arc::new(world::tls_certificates(settings, world.clock.as_ref())?);
        for warning in certificates.warnings(world.clock.now()) {
            tracing::warn!("certificate: {warning}");
        }
        world.office.own_tlsa = Some(contexts::own_tlsa(&certificates, world.office.hostname.clone()));
        let resolver = world::resolver(&settings.dns.servers, settings)?;
        tokio::spawn(contexts::tell_dnssec(resolver.clone(), settings.dns.dnssec));
        let resolver: Arc<dyn dns::Resolver> = Arc::new(resolver);
        let policies = world::mta_sts(settings, &world, &resolver)?;
        world.office.policies = Some(policies.clone());
        let teller = webhook_sender(settings, &world)?;
        world.office.webhooks = Some(teller.clone());
        let listeners = Listeners::bind_all(settings).await?;
        let senders = doors::local_senders(settings)?;
        let control = control_listener(settings)?;

        let (stop, stopped) = watch::channel(false);
        let mut services = JoinSet::new();
        // One for all protocols: who guesses has no second go at another port.
        let limits = &world.office.limits;
        limits
            .load(world.clock.now())
            .await
            .map_err(|e| Failure::store(format!("the blocks: {e}")))?;
        let logins = listen::Logins::new(listen::LoginLimits::default())
            .with_limits(limits.clone())
            .with_log(world.office.directory.clone());
        let logins = Arc::new(logins);
        logins.trust(settings.login.issuers().map_err(Failure::Settings)?);
        let receive = contexts::receive(settings, &world, &certificates, &resolver, &logins, &hooks)?;
        for (role, listener) in listeners.smtp {
            services.spawn(receive::serve(receive.clone(), listener, role, stopped.clone()));
        }
        services.spawn(receive::serve_local(
            receive,
            listeners.sendmail,
            senders,
            stopped.clone(),
        ));
        let retrieve = contexts::retrieve(settings, &world, &certificates, &logins)?;
        for (protocol, listener) in listeners.retrieval {
            services.spawn(retrieve::serve(
                retrieve.clone(),
                listener,
                protocol,
                stopped.clone(),
            ));
        }
        let policy_host = web::PolicyHost::new(
            world.office.directory.clone(),
            world::hostname(settings)?,
            certificates.clone(),
        );
        let policy_host = Arc::new(policy_host);
        for listener in listeners.https {
            services.spawn(web::serve(policy_host.clone(), listener, stopped.clone()));
        }
        let own = listeners.bound.get("smtp").map_or(&[][..], Vec::as_slice);
        let deliver = contexts::deliver(settings, &world, &resolver, &hooks, ways::listening(own))?;
        services.spawn(ways::start(settings, &world, &deliver, stopped.clone()).await?);
        if settings.tls_reports.send {
            let reports = contexts::tls_reports(settings, &world, &deliver)?;
            services.spawn(deliver::tls_reports::run(reports, stopped.clone()));
        }
        services.spawn(deliver::run(deliver, stopped.clone()));
        services.spawn(admin::control::serve(
            control,
            Arc::new(world.office.clone()),
            stopped.clone(),
        ));
        services.spawn(teller.run(stopped.clone()));
        services.spawn(scrub::run(
            world.office.clone(),
            settings.data.join("store"),
            settings.store.scrub_days,
            stopped.clone(),
        ));
        services.spawn(upkeep::keep_fresh(policies, stopped.clone()));
        services.spawn(upkeep::run(world.office.clone(), certificates.clone(), stopped));
        Ok(Self {
            world,
            bound: listeners.bound,
            sockets: listeners.sockets,
            certificates,
            logins,
            login_settings: settings.login.clone(),
            stop,
            services,
        })
    }

    /// Waits for the order to stop; SIGHUP reads the certificate anew meanwhile. A service that ends
    /// by itself, or a store that has stopped, is a failure: a server that only looks alive is worse
    /// than one that is started anew.
    async fn until_told_to_stop(&mut self) -> Result<(), Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut reload = signal(SignalKind::hangup())?;
        let stop = world::stop_signal();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                ended = &mut stop => return Ok(ended?),
                Some(ended) = self.services.join_next() => {
                    let why = ended.err().map_or_else(|| "for no reason it told".to_owned(), |e| e.to_string());
                    tracing::error!("a service ended while the server runs: {why}");
                    return Err(Failure::Broken(format!("a service ended while the server ran: {why}")));
                }
                why = self.world.store.failed() => {
                    return Err(Failure::Broken(format!("the store has stopped, start the server anew: {why}")));
                }
                _ = reload.recv() => self.reload(),
            }
        }
    }

    /// Reads certificates and the keys of token issuers anew; what cannot be used stays the old one.
    fn reload(&self) {
        match self.certificates.reload(self.world.clock.now()) {
            Ok(()) => tracing::info!("the certificate was read anew"),
            Err(error) => tracing::error!("the certificate stays the old one: {error}"),
        }
        match self.login_settings.issuers() {
            Ok(issuers) => self.logins.trust(issuers),
            Err(error) => tracing::error!("the keys of token issuers stay the old ones: {error}"),
        }
    }

    /// Stops taking work, lets what is in flight end (each service has its bound), closes the store.
    pub async fn shutdown(mut self) {
        tracing::info!("stopping");
        let _ = self.stop.send(true);
        while let Some(ended) = self.services.join_next().await {
            if let Err(error) = ended {
                tracing::error!("a service ended badly: {error}");
            }
        }
        self.logins.write_log().await;
        if let Err(error) = self.world.tls_results.flush().await {
            tracing::warn!(%error, "the last results of TLS could not be written down");
        }
        self.world.close().await;
        tracing::info!("stopped");
    }
}

/// Who tells webhooks what happens to mail.
fn webhook_sender(settings: &Settings, world: &World) -> Result<webhook::Sender, Failure> {
    let office = &world.office;
    let poster = webhooks::Poster::new(world::web_client(settings)?);
    Ok(webhook::Sender::new(
        office.outbox.clone(),
        office.journey.clone(),
        Arc::new(poster),
        world.clock.clone(),
        webhook::Options::default(),
    ))
}

fn cannot_bind(name: &str, address: SocketAddr, error: &std::io::Error) -> Failure {
    let hint = match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need root or: sudo setcap cap_net_bind_service=+ep <the posthaste program>"
        }
        std::io::ErrorKind::AddrInUse => "; another program listens there: stop it, or choose another port",
        std::io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    };
    Failure::Settings(format!("listen.{name} = {address}: {error}{hint}"))
}

fn control_listener(settings: &Settings) -> Result<tokio::net::UnixListener, Failure> {
    let path = admin::control::socket_path(&settings.data, &std::env::temp_dir());
    admin::control::bind(&path)
        .map_err(|e| Failure::store(format!("the control socket {}: {e}", path.display())))
}

/// Lets the process open as many files as the system allows it: each connection takes one, and the
/// usual soft limit of 1,024 is reached long before any limit of ours.
fn raise_descriptor_limit(connections_max: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit
        .maximum
        .map_or(DESCRIPTORS_MAX, |most| most.min(DESCRIPTORS_MAX));
    if limit.current.is_some_and(|now| now < allowed) {
        let raised = Rlimit {
            current: Some(allowed),
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
    let now = getrlimit(Resource::Nofile).current;
    if now.is_some_and(|now| now <= connections_max as u64) {
        tracing::warn!(
            open_files = now,
            connections_max,
            "the system allows fewer open files than there may be connections: raise LimitNOFILE"
        );
    }
}

/// Starts the log on standard error, with colour only for a person to see.
fn start_log(settings: &Settings) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(&settings.log.level)
        .map_err(|e| Failure::Settings(format!("log.level = \"{}\": {e}", settings.log.level)))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if settings.log.json {
        log.json().init();
    } else {
        log.init();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_raised_to_what_is_allowed() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let before = getrlimit(Resource::Nofile);
        let low = Rlimit {
            current: Some(256),
            maximum: before.maximum,
        };
        setrlimit(Resource::Nofile, low).unwrap();
        raise_descriptor_limit(10_000);
        let allowed = before
            .maximum
            .map_or(DESCRIPTORS_MAX, |most| most.min(DESCRIPTORS_MAX));
        assert_eq!(getrlimit(Resource::Nofile).current, Some(allowed));
    }

    #[tokio::test]
    async fn a_service_that_ends_by_itself_ends_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let here = |name: &str| format!("listen.{name}=[\"127.0.0.1:0\"]");
        let names = [
            "smtp",
            "submission",
            "submissions",
            "imap",
            "imaps",
            "pop3",
            "pop3s",
        ];
        let mut orders: Vec<String> = names.iter().map(|name| here(name)).collect();
        orders.push("dns.servers=[\"127.0.0.1:9\"]".to_owned());
        let mut settings = Settings::default().with_orders(&orders).unwrap();
        settings.data = folder.path().join("data");
        let mut server = Server::start(&settings, Hooks::default()).await.unwrap();
        server.services.spawn(async { panic!("a bug") });
        let told = server.until_told_to_stop().await;
        assert!(matches!(told, Err(Failure::Broken(_))));
        server.shutdown().await;
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&settings.data).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "the data folder is its owner's alone");
    }
}
