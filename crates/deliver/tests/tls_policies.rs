//! TLS reports under the policies of the receiving domain, MTA-STS and DANE: what a conversation is counted
//! as, and what the report says in the end. Time is tokio's, paused and moved.
#![allow(clippy::unwrap_used)]

mod common;

use common::world::{Over, START, World, domain};
use common::{Script, Server, StartTls};
use deliver::route::Origin;
use deliver::source::{Choice, Source, Sources};
use deliver::{Action, Post, Route, RouteFor, TlsPolicy, TlsReportOptions, TlsReports};
use dns::Tlsa;
use dns::table::TableResolver;
use futures_util::future::BoxFuture;
use lab::ca::Authority;
use mail::{Domain, Timestamp};
use mtasts::{Fault, Fetch};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tlsrpt::{Day, PolicyResults};
use tokio::sync::watch;

const MX: &str = "192.0.2.1:25";
const MX2: &str = "192.0.2.2:25";
const TLSA: &str = "_25._tcp.mx.example.com";
const ENFORCE: &str = "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 604800\n";
const YEAR: i64 = 365 * 86_400;

struct PolicyHost(Result<String, Fault>);

impl Fetch for PolicyHost {
    fn fetch<'a>(&'a self, _: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>, Fault>> {
        let answer = self.0.clone().map(String::into_bytes);
        Box::pin(async { answer })
    }
}

/// What a server shows in its handshake.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Shows {
    Good,
    OtherName,
    OtherIssuer,
    Expired,
    Nothing,
    Rubbish,
}

/// An authority that we believe, one that we believed years ago, and a stranger.
struct Ca {
    folder: tempfile::TempDir,
    good: Authority,
    old: Authority,
    stranger: Authority,
}

impl Ca {
    fn new() -> Self {
        let now = Self::now();
        let authority = |name, at| Authority::new(name, at).unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            good: authority("Good", now),
            old: authority("Old", Timestamp::from_secs(now.secs() - 20 * YEAR)),
            stranger: authority("Stranger", now),
        }
    }

    fn now() -> Timestamp {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        Timestamp::from_secs(i64::try_from(since).unwrap())
    }

    fn roots(&self) -> tls::Roots {
        let file = self.folder.path().join("roots.pem");
        let both = format!("{}{}", self.good.root_pem(), self.old.root_pem());
        std::fs::write(&file, both).unwrap();
        tls::Roots::public().with_file(&file).unwrap()
    }

    fn certificates(&self, shows: Shows) -> tls::Certificates {
        let (authority, name, now) = match shows {
            Shows::OtherName => (&self.good, "other.example.com", Self::now()),
            Shows::OtherIssuer => (&self.stranger, "mx.example.com", Self::now()),
            Shows::Expired => {
                let then = Timestamp::from_secs(Self::now().secs() - 20 * YEAR);
                (&self.old, "mx.example.com", then)
            }
            _ => (&self.good, "mx.example.com", Self::now()),
        };
        let (chain, key) = (
            self.folder.path().join("chain.pem"),
            self.folder.path().join("key.pem"),
        );
        authority
            .issue(&[name], &[])
            .unwrap()
            .write(&chain, &key)
            .unwrap();
        let files = vec![tls::CertificateFiles { chain, key }];
        tls::Certificates::open(tls::CertificateSource::Files(files), now).unwrap()
    }

    fn script(&self, shows: Shows) -> Script {
        let starttls = match shows {
            Shows::Nothing => StartTls::NotOffered,
            Shows::Rubbish => StartTls::Broken,
            _ => StartTls::Good(self.certificates(shows).server_config()),
        };
        Script {
            starttls,
            ..Script::default()
        }
    }
}

/// example.com with one exchanger.
fn zone() -> TableResolver {
    TableResolver::new()
        .with_mx("example.com", 10, Some(domain("mx.example.com")))
        .with_address("mx.example.com", Ipv4Addr::new(192, 0, 2, 1))
}

/// The same with a second one, at these preferences.
fn two(first: u16, second: u16) -> TableResolver {
    TableResolver::new()
        .with_mx("example.com", first, Some(domain("mx.example.com")))
        .with_mx("example.com", second, Some(domain("mx2.example.com")))
        .with_address("mx.example.com", Ipv4Addr::new(192, 0, 2, 1))
        .with_address("mx2.example.com", Ipv4Addr::new(192, 0, 2, 2))
}

fn with_sts(zone: TableResolver) -> TableResolver {
    zone.with_txt("_mta-sts.example.com", "v=STSv1; id=1;")
}

fn wrong() -> Tlsa {
    Tlsa {
        usage: 3,
        selector: 1,
        matching: 1,
        data: vec![7; 32],
    }
}

async fn world(zone: TableResolver, policy: Result<&str, Fault>, ca: &Ca) -> World {
    let fetch = Arc::new(PolicyHost(policy.map(str::to_owned)));
    let over = Over::default();
    World::made(zone, Vec::new(), over, |_| {}, &ca.roots(), Some(fetch)).await
}

/// Submits a message and waits for the end of its first attempt.
async fn attempt(world: &World) {
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world
        .until("an end", || async {
            let names = world.names(id).await;
            names.contains(&"deferred") || names.contains(&"relayed")
        })
        .await;
}

async fn policies(world: &World) -> Vec<PolicyResults> {
    world.tls_results.flush().await.unwrap();
    let rows = tlsrpt::outgoing(world.store.as_ref(), Day(u32::MAX), None, 100).await;
    let rows = rows.unwrap().rows;
    rows.into_iter().flat_map(|row| row.results.policies).collect()
}

/// What was counted, in short: the policy, successes and failures; and the failures.
async fn counted(world: &World) -> Vec<String> {
    let mut lines = Vec::new();
    for one in policies(world).await {
        let (ok, failed) = (one.summary.successful, one.summary.failed);
        lines.push(format!("{} {ok}+{failed}", one.policy.kind.as_str()));
        for detail in one.details {
            let host = detail.receiving_host.as_deref().unwrap_or("-");
            let ip = detail.receiving_ip.map_or("-".to_owned(), |ip| ip.to_string());
            lines.push(format!(
                "{} {host} {ip} x{}",
                detail.result.as_str(),
                detail.failed
            ));
        }
    }
    lines
}

fn is_empty(server: &Server) -> bool {
    !server.said("MAIL") && server.messages().is_empty()
}

#[tokio::test(start_paused = true)]
async fn an_enforced_policy_and_each_certificate() {
    let ca = Ca::new();
    for (shows, wanted) in [
        (Shows::Good, None),
        (Shows::OtherName, Some("certificate-host-mismatch")),
        (Shows::OtherIssuer, Some("certificate-not-trusted")),
        (Shows::Expired, Some("certificate-expired")),
        (Shows::Nothing, Some("starttls-not-supported")),
        (Shows::Rubbish, Some("validation-failure")),
    ] {
        let world = world(with_sts(zone()), Ok(ENFORCE), &ca).await;
        let server = world.net.put(MX, ca.script(shows));
        attempt(&world).await;
        let told = counted(&world).await;
        match wanted {
            None => assert_eq!(told, ["sts 1+0"]),
            Some(reason) => {
                let line = format!("{reason} mx.example.com 192.0.2.1 x1");
                assert_eq!(told, ["sts 0+1", line.as_str()], "{shows:?}");
            }
        }
        assert_eq!(is_empty(&server), wanted.is_some(), "{shows:?}");
        let policy = policies(&world).await.remove(0).policy;
        let lines = [
            "version: STSv1",
            "mode: enforce",
            "mx: mx.example.com",
            "max_age: 604800",
        ];
        assert_eq!(
            (policy.domain.as_str(), policy.strings),
            ("example.com", lines.map(str::to_owned).to_vec())
        );
        assert_eq!(policy.mx_hosts, ["mx.example.com"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_only_tested_counts_and_mail_goes() {
    let ca = Ca::new();
    let testing = ENFORCE.replace("enforce", "testing");
    let unnamed = testing.replace("mx: mx.", "mx: other.");
    for (policy, shows, wanted) in [
        (&testing, Shows::Good, None),
        (&testing, Shows::OtherName, Some("certificate-host-mismatch")),
        (&testing, Shows::OtherIssuer, Some("certificate-not-trusted")),
        (&testing, Shows::Expired, Some("certificate-expired")),
        (&testing, Shows::Nothing, Some("starttls-not-supported")),
        (&testing, Shows::Rubbish, Some("validation-failure")),
        (&unnamed, Shows::Good, Some("validation-failure")),
    ] {
        let world = world(with_sts(zone()), Ok(policy), &ca).await;
        let server = world.net.put(MX, ca.script(shows));
        attempt(&world).await;
        let told = counted(&world).await;
        match wanted {
            None => assert_eq!(told, ["sts 1+0"]),
            Some(reason) => {
                let line = format!("{reason} mx.example.com 192.0.2.1 x1");
                assert_eq!(told, ["sts 0+1", line.as_str()], "{shows:?}");
            }
        }
        assert_eq!(server.messages().len(), 1, "{shows:?}");
    }
    // In mode none there is no policy.
    let none = ENFORCE.replace("enforce", "none");
    let world = world(with_sts(zone()), Ok(&none), &ca).await;
    world.net.put(MX, ca.script(Shows::OtherIssuer));
    attempt(&world).await;
    assert_eq!(counted(&world).await, ["no-policy-found 1+0"]);
}

#[tokio::test(start_paused = true)]
async fn servers_that_an_enforced_policy_does_not_name() {
    let ca = Ca::new();
    let nobody = ENFORCE.replace("mx.example.com", "other.example.com");
    for (what, zone, policy, wanted) in [
        (
            "the only one",
            zone(),
            nobody.as_str(),
            &["sts 0+1", "validation-failure mx.example.com - x1"][..],
        ),
        (
            "both",
            two(10, 20),
            &nobody,
            &[
                "sts 0+2",
                "validation-failure mx.example.com - x1",
                "validation-failure mx2.example.com - x1",
            ],
        ),
        (
            "the preferred one",
            two(20, 10),
            ENFORCE,
            &["sts 1+1", "validation-failure mx2.example.com - x1"],
        ),
        (
            "the other one, whose turn never came",
            two(10, 20),
            ENFORCE,
            &["sts 1+0"],
        ),
    ] {
        let world = world(with_sts(zone), Ok(policy), &ca).await;
        world.net.put(MX, ca.script(Shows::Good));
        let second = world.net.put(MX2, ca.script(Shows::Good));
        attempt(&world).await;
        assert_eq!(counted(&world).await, wanted, "{what}");
        assert_eq!(second.connections(), 0, "{what}");
    }
    // Its turn comes when the other one does not take the mail.
    let world = world(with_sts(two(10, 20)), Ok(ENFORCE), &ca).await;
    world.net.put(MX, ca.script(Shows::Expired));
    attempt(&world).await;
    assert_eq!(
        counted(&world).await,
        [
            "sts 0+2",
            "certificate-expired mx.example.com 192.0.2.1 x1",
            "validation-failure mx2.example.com - x1"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_cannot_be_had_counts_beside_the_conversation() {
    let ca = Ca::new();
    for (fault, reason) in [
        (Err(Fault::fetch("connection refused")), "sts-policy-fetch-error"),
        (Err(Fault::certificate("it has expired")), "sts-webpki-invalid"),
        (Ok("<html>no policy</html>"), "sts-policy-invalid"),
    ] {
        let world = world(with_sts(zone()), fault, &ca).await;
        world.net.put(MX, ca.script(Shows::OtherIssuer));
        attempt(&world).await;
        let line = format!("{reason} - - x1");
        assert_eq!(
            counted(&world).await,
            ["sts 0+1", line.as_str(), "no-policy-found 1+0"]
        );
        let all = policies(&world).await;
        assert!(all[0].policy.strings.is_empty());
        assert!(all[0].details[0].reason.is_some(), "{all:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn dane_and_each_certificate() {
    let ca = Ca::new();
    let signed = || zone().with_signed_zone("example.com");
    let unusable = Tlsa { usage: 1, ..wrong() };
    for (what, zone, shows, wanted) in [
        (
            "another key",
            signed().with_tlsa(TLSA, wrong()),
            Shows::Good,
            "tlsa-invalid mx.example.com 192.0.2.1 x1",
        ),
        (
            "no STARTTLS",
            signed().with_tlsa(TLSA, wrong()),
            Shows::Nothing,
            "starttls-not-supported mx.example.com 192.0.2.1 x1",
        ),
        (
            "no TLS",
            signed().with_tlsa(TLSA, wrong()),
            Shows::Rubbish,
            "validation-failure mx.example.com 192.0.2.1 x1",
        ),
        (
            "bogus",
            signed().with_bogus(TLSA),
            Shows::Good,
            "dnssec-invalid mx.example.com - x1",
        ),
    ] {
        // DANE goes before MTA-STS, whatever that says.
        let world = world(with_sts(zone), Ok(ENFORCE), &ca).await;
        let server = world.net.put(MX, ca.script(shows));
        attempt(&world).await;
        assert_eq!(counted(&world).await, ["tlsa 0+1", wanted], "{what}");
        assert!(is_empty(&server), "{what}");
    }
    let certificates = ca.certificates(Shows::OtherIssuer);
    let right = certificates.tlsa(&domain("mx.example.com")).unwrap();
    let script = Script {
        starttls: StartTls::Good(certificates.server_config()),
        ..Script::default()
    };
    let good = world(
        signed().with_tlsa(TLSA, right.clone()),
        Err(Fault::fetch("")),
        &ca,
    )
    .await;
    good.net.put(MX, script.clone());
    attempt(&good).await;
    assert_eq!(counted(&good).await, ["tlsa 1+0"]);
    let line = format!("_25._tcp.mx.example.com. IN TLSA {right}");
    assert_eq!(policies(&good).await[0].policy.strings, [line]);
    // Records that cannot be used ask for TLS, and are told of though mail goes.
    let poor = world(signed().with_tlsa(TLSA, unusable), Err(Fault::fetch("")), &ca).await;
    let server = poor.net.put(MX, script);
    attempt(&poor).await;
    assert_eq!(
        counted(&poor).await,
        ["tlsa 0+1", "tlsa-invalid mx.example.com 192.0.2.1 x1"]
    );
    assert_eq!(server.messages().len(), 1);
}

/// A route may lead to the domain's own exchangers, to ask DANE of them; one to others' servers says nothing
/// about the domain. Whence we spoke is told where it was chosen.
#[tokio::test(start_paused = true)]
async fn routes_and_source_addresses() {
    let ca = Ca::new();
    let route = |of: &str, tls| Route {
        for_domains: RouteFor::parse("example.com").unwrap(),
        action: Action::MxOf {
            domain: domain(of),
            port: 25,
        },
        tls,
        login: None,
        origin: Origin::Settings,
    };
    let ours = "198.51.100.7".parse().unwrap();
    let sources = Sources {
        all: vec![Source {
            address: ours,
            helo: "out.gmail.com".to_owned(),
            weight: 1,
            domains: Vec::new(),
        }],
        choice: Choice::Site,
    };
    let required = "dane-required mx.example.com - x1";
    let refused = "starttls-not-supported mx.example.com 192.0.2.1 x1";
    let elsewhere = TableResolver::new()
        .with_mx("example.net", 10, Some(domain("mx.example.com")))
        .with_address("mx.example.com", Ipv4Addr::new(192, 0, 2, 1));
    for (zone, route, wanted) in [
        (
            zone(),
            Some(route("example.com", TlsPolicy::Dane)),
            &["tlsa 0+1", required][..],
        ),
        (
            zone(),
            Some(route("example.com", TlsPolicy::Required)),
            &["no-policy-found 0+1", refused],
        ),
        (elsewhere, Some(route("example.net", TlsPolicy::Required)), &[]),
        (zone(), None, &["no-policy-found 0+1", refused]),
    ] {
        let routes: Vec<Route> = route.into_iter().collect();
        let sources = sources.clone();
        let change = |options: &mut deliver::Options| options.sources = sources;
        let world = World::with(zone, routes, change).await;
        world.net.put(MX, ca.script(Shows::Nothing));
        attempt(&world).await;
        assert_eq!(counted(&world).await, wanted);
        for detail in policies(&world).await.iter().flat_map(|one| &one.details) {
            let called = detail.receiving_ip.is_some();
            assert_eq!(detail.sending_ip, called.then_some(ours));
        }
    }
}

/// RFC 8460 §4.4 counts connections: several messages on one are one.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_kept_counts_once() {
    let ca = Ca::new();
    let world = world(with_sts(zone()), Ok(ENFORCE), &ca).await;
    let server = world.net.put(MX, ca.script(Shows::Good));
    for _ in 0..3 {
        attempt(&world).await;
    }
    assert_eq!((server.messages().len(), server.connections()), (3, 1));
    assert_eq!(counted(&world).await, ["sts 1+0"]);
}

/// What was posted.
#[derive(Default)]
struct Posted(Mutex<Vec<Vec<u8>>>);

impl Post for Posted {
    fn post<'a>(&'a self, _: &'a str, _: &'static str, body: Vec<u8>) -> BoxFuture<'a, Result<u16, String>> {
        self.0.lock().unwrap().push(body);
        Box::pin(async { Ok(200) })
    }
}

/// The report of the day on which this world's first attempt was made, as JSON.
async fn report(world: &World) -> serde_json::Value {
    let posted = Arc::new(Posted::default());
    let (stop, stopped) = watch::channel(false);
    let reports = TlsReports {
        deliver: world.ctx.clone(),
        collector: world.tls_results.clone(),
        options: TlsReportOptions::default(),
        post: Some(posted.clone()),
    };
    let running = tokio::spawn(deliver::tls_reports::run(reports, stopped));
    world
        .until("the report", || async { !posted.0.lock().unwrap().is_empty() })
        .await;
    stop.send_replace(true);
    running.await.unwrap();
    let body = posted.0.lock().unwrap().remove(0);
    let json = tlsrpt::gzip::unpack(&body, 1_000_000).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// Issue 5, must show 1: not delivered, and the report of the day says so.
#[tokio::test(start_paused = true)]
async fn what_a_policy_kept_back_stands_in_the_report() {
    let ca = Ca::new();
    let rua = "v=TLSRPTv1; rua=https://reports.example/tls";
    let asks = |zone: TableResolver| zone.with_txt("_smtp._tls.example.com", rua);
    let sts = asks(with_sts(zone()));
    let dane = asks(zone().with_signed_zone("example.com").with_tlsa(TLSA, wrong()));
    let tlsa_line = format!("_25._tcp.mx.example.com. IN TLSA {}", wrong());
    for (zone, shows, policy, reason, said) in [
        (
            sts,
            Shows::OtherIssuer,
            serde_json::json!({
                "policy-type": "sts",
                "policy-string": ["version: STSv1", "mode: enforce", "mx: mx.example.com", "max_age: 604800"],
                "policy-domain": "example.com",
                "mx-host": ["mx.example.com"],
            }),
            "certificate-not-trusted",
            "its issuer is not an authority that we know",
        ),
        (
            dane,
            Shows::Good,
            serde_json::json!({
                "policy-type": "tlsa",
                "policy-string": [tlsa_line],
                "policy-domain": "example.com",
            }),
            "tlsa-invalid",
            "matches none of the TLSA records of mx.example.com",
        ),
    ] {
        let world = world(zone, Ok(ENFORCE), &ca).await;
        let server = world.net.put(MX, ca.script(shows));
        attempt(&world).await;
        // There is more than one try on that day.
        tokio::time::sleep(Duration::from_secs(20 * 60)).await;
        let tries = server.connections();
        let report = report(&world).await;
        assert!(is_empty(&server) && tries > 1, "{tries} tries, nothing delivered");
        let day = Day::of(START);
        assert_eq!(
            report["date-range"]["start-datetime"],
            format!("{}T00:00:00Z", day.date())
        );
        let [one] = report["policies"].as_array().unwrap().as_slice() else {
            panic!("{report}")
        };
        assert_eq!(one["policy"], policy);
        let failed = one["summary"]["total-failure-session-count"].as_u64().unwrap();
        assert!(failed >= tries as u64, "{failed} of {tries}");
        assert_eq!(one["summary"]["total-successful-session-count"], 0);
        let [detail] = one["failure-details"].as_array().unwrap().as_slice() else {
            panic!("{report}")
        };
        assert_eq!(detail["result-type"], reason);
        assert_eq!(detail["receiving-mx-hostname"], "mx.example.com");
        assert_eq!(detail["receiving-ip"], "192.0.2.1");
        assert_eq!(detail["failed-session-count"], failed);
        let told = detail["failure-reason-code"].as_str().unwrap();
        assert!(told.contains(said), "{told}");
    }
}
