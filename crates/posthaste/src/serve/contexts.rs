//! From settings to what each service works with.

use super::{Hooks, ways};
use crate::cli::Failure;
use crate::settings::{Dnssec, Settings, doors};
use crate::world::{self, World};
use directory::SystemRandom;
use mail::Domain;
use std::sync::Arc;
use std::time::Duration;

pub fn receive(
    settings: &Settings,
    world: &World,
    certificates: &Arc<tls::Certificates>,
    resolver: &Arc<dyn dns::Resolver>,
    logins: &Arc<listen::Logins>,
    hooks: &Hooks,
) -> Result<Arc<receive::Context>, Failure> {
    let hostname = world::hostname(settings)?;
    let mut options = receive::Options::new(&hostname);
    options.smtp.size_max_octets = settings.smtp.size_max_octets;
    options.smtp.recipients_max = settings.smtp.recipients_max;
    options.smtp.hold_max = Duration::from_secs(settings.smtp.hold_max_days * 86_400);
    options.smtp.allow_plaintext_auth = settings.login.without_tls_on_loopback;
    options.smtp.mechanisms = settings.mechanisms().map_err(Failure::Settings)?;
    limit_sessions(settings, &mut options);
    options.greeting_delay = std::time::Duration::from_millis(settings.smtp.greeting_delay_ms);
    options.unjudged_from =
        doors::networks("judge.unjudged_from", &settings.judge.unjudged_from).map_err(Failure::Settings)?;
    options.xclient_from =
        doors::networks("smtp.xclient_from", &settings.smtp.xclient_from).map_err(Failure::Settings)?;
    options.spill = spilling(settings)?;
    options.read_tls_reports = settings.tls_reports.read;
    let policy = judge::Policy {
        spf_fail: if settings.judge.refuse_spf_fail {
            judge::judgement::Action::Refuse
        } else {
            judge::judgement::Action::Accept
        },
        ..judge::Policy::default()
    };
    let office = &world.office;
    let parts = receive::Parts {
        store: world.shared_store(),
        directory: office.directory.clone(),
        mailboxes: office.mailboxes.clone(),
        queue: office.queue.clone(),
        journey: office.journey.clone(),
        resolver: resolver.clone(),
        certificates: Some(certificates.clone()),
        clock: world.clock.clone(),
        ids: world.ids.clone(),
    };
    let context = receive::Context::new(parts, hostname, options, policy, blocklists(settings)?)
        .with_logins(logins.clone())
        .with_limits(world.office.limits.clone())
        .with_filters(filters(settings)?, Arc::new(receive::SocketDialer));
    Ok(Arc::new(match &hooks.smtp_tap {
        Some(tap) => context.with_tap(tap.clone()),
        None => context,
    }))
}

/// How much one client, one network and one session may take.
fn limit_sessions(settings: &Settings, options: &mut receive::Options) {
    let smtp = &settings.smtp;
    options.connections_max = smtp.connections_max;
    options.connections_per_address_max = smtp.connections_per_address_max;
    options.connections_per_network = settings.limits.networks(smtp.connections_per_network_max);
    options.received_max = smtp.received_max;
    options.memory_max_octets = smtp.memory_max_octets;
    options.message_time_max = Duration::from_secs(smtp.message_time_max_secs);
    options.message_octets_per_second_min = smtp.message_octets_per_second_min;
    options.smtp.messages_max = smtp.messages_per_session_max;
    options.smtp.errors_max = smtp.errors_per_session_max;
    options.smtp.idle_commands_max = smtp.idle_commands_per_session_max;
    options.smtp.auth_failures_max = smtp.failed_logins_per_session_max;
    options.smtp.timeouts = smtp::server::Timeouts {
        command: Duration::from_secs(smtp.command_timeout_secs),
        data: Duration::from_secs(smtp.data_timeout_secs),
        handshake: Duration::from_secs(smtp.handshake_timeout_secs),
        write: Duration::from_secs(smtp.write_timeout_secs),
    };
}

/// Where large messages go while they come in. What a crash left in the folder goes.
fn spilling(settings: &Settings) -> Result<Option<receive::Spilling>, Failure> {
    let smtp = &settings.smtp;
    if smtp.spill_over_octets == 0 {
        return Ok(None);
    }
    let folder = settings.data.join("incoming");
    let told = |e: std::io::Error| Failure::store(format!("{}: {e}", folder.display()));
    match std::fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(told(e)),
        _ => {}
    }
    world::make_private(&folder).map_err(told)?;
    Ok(Some(receive::Spilling {
        folder,
        over_octets: smtp.spill_over_octets,
        disk_max_octets: smtp.spill_max_octets,
        whole_max_octets: smtp.whole_max_octets,
    }))
}

fn filters(settings: &Settings) -> Result<Vec<receive::Filter>, Failure> {
    let filters = settings.milter.iter().map(|milter| milter.filter());
    filters.collect::<Result<_, _>>().map_err(Failure::Settings)
}

fn blocklists(settings: &Settings) -> Result<Vec<Domain>, Failure> {
    let lists = settings.judge.blocklists.iter();
    lists
        .map(|l| Domain::parse(l).map_err(|e| Failure::Settings(format!("judge.blocklists: {l}: {e}"))))
        .collect()
}

pub fn retrieve(
    settings: &Settings,
    world: &World,
    certificates: &Arc<tls::Certificates>,
    logins: &Arc<listen::Logins>,
) -> Result<Arc<retrieve::Context>, Failure> {
    let options = retrieve::Options {
        hostname: settings.hostname.clone(),
        allow_plaintext_auth: settings.login.without_tls_on_loopback,
        mechanisms: settings.mechanisms().map_err(Failure::Settings)?,
        message_octets_max: settings.smtp.size_max_octets,
        ..retrieve::Options::default()
    };
    let office = &world.office;
    let context = retrieve::Context::new(
        world.shared_store(),
        office.directory.clone(),
        office.mailboxes.clone(),
        office.journey.clone(),
        Some(certificates.clone()),
        world.clock.clone(),
        options,
    );
    Ok(Arc::new(
        context
            .with_logins(logins.clone())
            .with_limits(world.office.limits.clone()),
    ))
}

pub fn deliver(
    settings: &Settings,
    world: &World,
    resolver: &Arc<dyn dns::Resolver>,
    hooks: &Hooks,
    listening: deliver::plan::Listening,
) -> Result<Arc<deliver::Context>, Failure> {
    let site_limits = settings.deliver.limit.iter();
    let site_limits = site_limits.map(|limit| limit.limit(settings.deliver.concurrency_per_domain_max));
    let name = world::hostname(settings)?;
    let attempt = deliver::attempt::Options {
        keep: deliver::pool::Keep {
            messages_max: settings.deliver.messages_per_connection,
            idle_max: Duration::from_secs(settings.deliver.connection_idle_secs),
            ..deliver::pool::Keep::default()
        },
        ..deliver::attempt::Options::new(name.as_str())
    };
    let replies = world::replies(settings)?;
    world::check_lifetimes(settings, &replies)?;
    let options = deliver::Options {
        listening,
        sources: ways::sources(settings)?,
        port: settings.deliver.port,
        site_limits: site_limits.collect::<Result<_, _>>().map_err(Failure::Settings)?,
        attempt,
        attempts_max: settings.deliver.concurrency_max,
        attempts_per_domain_max: settings.deliver.concurrency_per_domain_max,
        replies,
        ..deliver::Options::new(name)
    };
    let office = &world.office;
    let parts = deliver::Parts {
        store: world.shared_store(),
        queue: office.queue.clone(),
        journey: office.journey.clone(),
        mailboxes: office.mailboxes.clone(),
        directory: office.directory.clone(),
        resolver: resolver.clone(),
        dialer: Arc::new(ways::dialer(settings)),
        tls: ways::tls_client(settings)?,
        ids: world.ids.clone(),
        clock: world.clock.clone(),
        random: Arc::new(SystemRandom),
        tap: hooks.smtp_tap.clone(),
    };
    let routes = ways::of_settings(settings)?;
    let policies = world.office.policies.clone().filter(|_| settings.deliver.mta_sts);
    let context = deliver::Context::new(parts, options, routes).with_mta_sts(policies);
    let context = context.with_limits(office.limits.clone());
    Ok(Arc::new(match settings.tls_reports.send {
        true => context.with_tls_results(world.tls_results.clone()),
        false => context,
    }))
}

pub fn tls_reports(
    settings: &Settings,
    world: &World,
    deliver: &Arc<deliver::Context>,
) -> Result<deliver::TlsReports, Failure> {
    Ok(deliver::TlsReports {
        deliver: deliver.clone(),
        collector: world.tls_results.clone(),
        options: settings.tls_reports.options().map_err(Failure::Settings)?,
        post: Some(Arc::new(super::tls_reports::Poster::new(
            world::web_client(settings)?,
            settings.tls_reports.post_anywhere,
        ))),
    })
}

/// The TLSA record of the certificate that is shown when it is asked for.
pub fn own_tlsa(
    certificates: &Arc<tls::Certificates>,
    hostname: mail::Domain,
) -> Arc<dyn Fn() -> Option<admin::zone::OwnTlsa> + Send + Sync> {
    let certificates = Arc::clone(certificates);
    Arc::new(move || {
        Some(admin::zone::OwnTlsa {
            record: certificates.tlsa(&hostname)?,
            keeps_key: certificates.keeps_key(),
        })
    })
}

/// Says in the log whether DNSSEC works, which nobody sees otherwise until mail waits or goes unprotected.
pub async fn tell_dnssec(resolver: dns::hickory::HickoryResolver, dnssec: Dnssec) {
    if dnssec == Dnssec::Off {
        return;
    }
    match (resolver.probe().await, dnssec) {
        (Ok(()), _) => tracing::info!("DNSSEC signatures come through: answers are checked, DANE is used"),
        (Err(why), Dnssec::Validate) => tracing::error!(
            why,
            "no DNSSEC signatures come through the DNS server, and dns.dnssec is \"validate\": mail to others waits; \
             docs/TLS-BETWEEN-SERVERS.md"
        ),
        (Err(why), _) => tracing::warn!(
            why,
            "no DNSSEC signatures come through the DNS server: no DANE for now; docs/TLS-BETWEEN-SERVERS.md"
        ),
    }
}
