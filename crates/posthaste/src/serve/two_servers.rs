//! Two whole servers on loopback and the DNS between them: what the one publishes, the other heeds.

use super::{Hooks, Server};
use crate::settings::Settings;
use admin::words::{MtaStsOrder, MtaStsView};
use admin::{Refusal, Request, Response};
use directory::{MtaSts, MtaStsMode};
use lab::ca::Authority;
use lab::dns::{DnsServer, Zones};
use mail::{Clock as _, Domain};
use mtasts::Mode;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use tempfile::TempDir;

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

/// Settings of a server of the laboratory; every port is free, HTTPS is on.
fn settings(
    folder: &Path,
    authority: &Authority,
    dns: SocketAddr,
    hostname: &str,
    more: &[&str],
) -> Settings {
    std::fs::create_dir_all(folder).unwrap();
    let (chain, key, root) = (
        folder.join("certificate.pem"),
        folder.join("key.pem"),
        folder.join("root.pem"),
    );
    let names: Vec<&str> = [hostname].iter().chain(more).copied().collect();
    authority.issue(&names, &[]).unwrap().write(&chain, &key).unwrap();
    std::fs::write(&root, authority.root_pem()).unwrap();
    let free = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    let mut settings = Settings {
        hostname: hostname.to_owned(),
        data: folder.join("data"),
        ..Settings::default()
    };
    let listen = &mut settings.listen;
    for addresses in [
        &mut listen.smtp,
        &mut listen.submission,
        &mut listen.submissions,
        &mut listen.imap,
        &mut listen.imaps,
        &mut listen.pop3,
        &mut listen.pop3s,
        &mut listen.https,
    ] {
        addresses.clone_from(&free);
    }
    (settings.tls.certificate, settings.tls.key) = (Some(chain), Some(key));
    settings.deliver.extra_roots = Some(root);
    settings.dns.servers = vec![dns];
    settings
}

async fn perform(server: &Server, request: Request) -> Result<Response, Refusal> {
    server.world.office.perform(request).await
}

/// Publishes example.com's policy at its server, and the zone that its operator is told to publish.
async fn publish(example: &Server, dns: &DnsServer, mode: MtaStsMode) {
    let order = admin::addresses::Order::DomainSet {
        domain: domain("example.com"),
        separator: None,
        catch_all: None,
        postmaster: None,
        abuse: None,
        disable: None,
        temporarily: false,
        enable: false,
        alias_of: None,
        mta_sts: Some(Some(MtaSts::new(mode))),
    };
    perform(example, Request::Addresses { order }).await.unwrap();
    let zone = Request::Zone {
        domain: domain("example.com"),
        addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
    };
    let Response::Zone(text) = perform(example, zone).await.unwrap() else {
        panic!("a zone");
    };
    dns.change(|zones| {
        *zones = Zones::parse(&text).unwrap();
    });
}

async fn refresh(server: &Server, name: &str) -> Result<MtaStsView, Refusal> {
    let domain = domain(name);
    match perform(server, Request::MtaSts(MtaStsOrder::Refresh { domain })).await? {
        Response::MtaStsOf(view) => Ok(*view),
        _ => panic!("a policy"),
    }
}

struct Lab {
    dns: DnsServer,
    example: Server,
    /// The settings of the server that sends.
    gmail: Settings,
    _folder: TempDir,
}

impl Lab {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("Lab", crate::world::SystemClock.now()).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let dns = DnsServer::start(any, Zones::new(), None).await.unwrap();
        let settings = |name: &str, hostname: &str, more: &[&str]| {
            settings(&folder.path().join(name), &authority, dns.addr(), hostname, more)
        };
        let of_example = settings("example", "mail.example.com", &["mta-sts.example.com"]);
        let example = Server::start(&of_example, Hooks::default()).await.unwrap();
        let add = Request::DomainAdd {
            domain: domain("example.com"),
        };
        perform(&example, add).await.unwrap();
        let mut gmail = settings("gmail", "mail.gmail.com", &[]);
        gmail.deliver.mta_sts_port = example.bound["https"][0].port();
        gmail.deliver.port = example.bound["smtp"][0].port();
        Self {
            dns,
            example,
            gmail,
            _folder: folder,
        }
    }
}

/// (A server is started anew where the DNS has changed: its resolver keeps answers for an hour.)
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_goes_from_one_server_to_the_other_and_outlives_a_restart() {
    let lab = Lab::new().await;
    publish(&lab.example, &lab.dns, MtaStsMode::Testing).await;
    let gmail = Server::start(&lab.gmail, Hooks::default()).await.unwrap();
    let refused = refresh(&gmail, "www.example.com").await.err().unwrap();
    assert!(refused.text.contains("no MTA-STS record"), "{refused}");
    let testing = refresh(&gmail, "example.com").await.unwrap();
    let held = testing.entry.held.unwrap();
    assert_eq!(held.policy.mode, Mode::Testing);
    assert!(testing.holds && held.policy.matches(&domain("mail.example.com")));
    gmail.shutdown().await;

    publish(&lab.example, &lab.dns, MtaStsMode::Enforce).await;
    let gmail = Server::start(&lab.gmail, Hooks::default()).await.unwrap();
    let list = Request::MtaSts(MtaStsOrder::List { after: None });
    let Response::MtaSts(page) = perform(&gmail, list).await.unwrap() else {
        panic!("a list");
    };
    let known: Vec<_> = page.rows.iter().map(|row| (&row.entry, row.holds)).collect();
    assert!(matches!(known[..], [(entry, true)] if entry.held.as_ref() == Some(&held)));
    let enforced = refresh(&gmail, "example.com").await.unwrap();
    let now = enforced.entry.held.unwrap();
    assert_eq!(now.policy.mode, Mode::Enforce);
    assert_ne!(now.id, held.id, "the id changes with the policy");
    // The policy host goes; what was fetched holds on, and what was wrong is told.
    lab.example.shutdown().await;
    let blocked = refresh(&gmail, "example.com").await.unwrap();
    assert!(blocked.holds && blocked.next_fetch.is_some());
    assert_eq!(blocked.entry.fault().unwrap().kind, mtasts::FaultKind::Fetch);
    gmail.shutdown().await;
}

/// `posthaste route` and `posthaste probe` find what a delivery would.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_that_is_told_heeds_the_policy() {
    use crate::cli::way::{find, level_name};
    let lab = Lab::new().await;
    publish(&lab.example, &lab.dns, MtaStsMode::Enforce).await;
    let bob = mail::EmailAddress::parse("bob@example.com").unwrap();
    let server = crate::args::DnsServer { dns: Vec::new() };
    let nobody = mail::ReversePath::Null;
    let told = |remembered| find(&lab.gmail, &server, &[], &nobody, bob.host(), remembered);
    let level = |plan: &deliver::plan::Plan| {
        let decision = plan.security(&plan.hops[0], false).unwrap();
        assert!(decision.why.contains("MTA-STS"), "{}", decision.why);
        level_name(&decision.level)
    };
    let fetched = told(None).await.unwrap();
    assert!(fetched.policy_from.unwrap().contains("fetched just now"));
    assert_eq!(level(&fetched.plan.unwrap()), "verified");
    // What the server remembers holds on when the policy can't be had any more.
    let gmail = Server::start(&lab.gmail, Hooks::default()).await.unwrap();
    let entry = refresh(&gmail, "example.com").await.unwrap().entry;
    gmail.shutdown().await;
    lab.example.shutdown().await;
    let remembered = told(Some(entry)).await.unwrap();
    assert!(remembered.policy_from.unwrap().contains("the server remembers"));
    assert_eq!(level(&remembered.plan.unwrap()), "verified");
    assert_eq!(
        told(None).await.unwrap().policy_from,
        None,
        "nothing was remembered of the first answer"
    );
}
