//! TLS reports: what was counted of conversations reaches those who ask, a day later, once. Time is
//! tokio's, paused and moved.
#![allow(clippy::unwrap_used)]

mod common;

use common::world::{START, World, domain};
use common::{Script, StartTls, certificates};
use deliver::{Post, TlsReportOptions, TlsReports};
use dns::table::TableResolver;
use futures_util::future::BoxFuture;
use mail::{Clock, header};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tlsrpt::{Day, PolicyType, ResultType, Row};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const MX: &str = "192.0.2.1:25";
const REPORTS: &str = "192.0.2.9:25";

/// example.com, and a place for its reports.
fn zones(record: &str) -> TableResolver {
    TableResolver::new()
        .with_mx("example.com", 10, Some(domain("mx.example.com")))
        .with_address("mx.example.com", Ipv4Addr::new(192, 0, 2, 1))
        .with_txt("_smtp._tls.example.com", record)
        .with_mx("reports.example", 10, Some(domain("mx.reports.example")))
        .with_address("mx.reports.example", Ipv4Addr::new(192, 0, 2, 9))
        .with_txt(
            "_smtp._tls.reports.example",
            "v=TLSRPTv1; rua=mailto:all@reports.example",
        )
}

/// A world whose domain can sign, with its reports running.
struct Reporting {
    world: World,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Reporting {
    async fn new(resolver: TableResolver, post: Option<Arc<dyn Post>>) -> Self {
        let world = World::new(resolver).await;
        let key = judge::dkim::SigningKey::generate(judge::dkim::KeyKind::Ed25519).unwrap();
        let stored = directory::SigningKey {
            selector: "s1".to_owned(),
            algorithm: directory::SigningAlgorithm::Ed25519Sha256,
            pkcs8_pem: key.to_pkcs8_pem().unwrap(),
            created: START,
        };
        let gmail = domain("gmail.com");
        world.directory.add_signing_key(&gmail, stored).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let reports = TlsReports {
            deliver: world.ctx.clone(),
            collector: world.tls_results.clone(),
            options: TlsReportOptions {
                organization: Some("Gmail of the tests".to_owned()),
                ..TlsReportOptions::default()
            },
            post,
        };
        let running = tokio::spawn(deliver::tls_reports::run(reports, stopped));
        Self { world, stop, running }
    }

    async fn send(&self, to: &str) {
        let id = self.world.submit("alice@gmail.com", &[to]).await;
        self.world.until_gone(id).await;
        // The next message has a conversation of its own.
        tokio::time::sleep(Duration::from_secs(600)).await;
    }

    async fn rows(&self) -> Vec<Row> {
        let all = tlsrpt::outgoing(self.world.store.as_ref(), Day(u32::MAX), None, 100).await;
        all.unwrap().rows
    }

    async fn until_nothing_is_left(&self) {
        self.world
            .until("the end of the results", || async {
                self.rows().await.is_empty()
            })
            .await;
    }

    async fn end(mut self) {
        self.stop.send_replace(true);
        self.running.await.unwrap();
        self.world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_is_reported_once_by_mail_behind_midnight() {
    let dir = tempfile::tempdir().unwrap();
    let reporting = Reporting::new(zones("v=TLSRPTv1; rua=mailto:tls@reports.example"), None).await;
    let world = &reporting.world;
    let good = Script {
        starttls: StartTls::Good(certificates(dir.path()).server_config()),
        ..Script::default()
    };
    let server = world.net.put(MX, good);
    reporting.send("bob@example.com").await;
    reporting.send("bob@example.com").await;
    *server.script.lock().unwrap() = Script::default();
    reporting.send("bob@example.com").await;
    let place = world.net.put(REPORTS, Script::default());
    tokio::time::sleep(Duration::from_secs(6)).await;
    let rows = reporting.rows().await;
    assert_eq!(rows.len(), 1, "written down within seconds: {rows:?}");
    let today = Day::of(START);

    world
        .until("the report", || async { !place.messages().is_empty() })
        .await;
    let now = world.clock.now();
    let waited = now.since(today.end()).as_secs();
    assert!(
        (60..4 * 3_600 + 1_200).contains(&waited),
        "{waited} s behind midnight"
    );
    let message = place.messages()[0].clone();
    for line in [
        "From: <tlsrpt-noreply@gmail.com>",
        "To: <tls@reports.example>",
        "TLS-Report-Domain: example.com",
        "TLS-Report-Submitter: gmail.com",
        "TLS-Required: No",
    ] {
        assert!(
            message.contains(&format!("{line}\r\n")),
            "{line} is not in\n{message}"
        );
    }
    let signed = message.starts_with("DKIM-Signature: v=1; a=ed25519-sha256;");
    assert!(signed && message.contains("d=gmail.com"), "{message}");
    assert!(place.said("MAIL FROM:<>"));
    let subject = header::first(message.as_bytes(), "Subject").unwrap().value();
    assert!(subject.contains("Report Domain: example.com"), "{subject}");

    let report = tlsrpt::read_message(message.as_bytes()).unwrap().unwrap();
    assert_eq!(report.organization, "Gmail of the tests");
    assert_eq!(report.contact, "postmaster@gmail.com");
    assert_eq!(report.range.start, today.start());
    assert_eq!(report.range.end.secs(), today.end().secs() - 1);
    let [one] = report.policies.as_slice() else {
        panic!("{report:?}")
    };
    assert_eq!(one.policy.kind, PolicyType::NoPolicyFound);
    assert_eq!(one.policy.domain, "example.com");
    assert_eq!((one.summary.successful, one.summary.failed), (2, 1));
    assert_eq!(one.details[0].result, ResultType::StarttlsNotSupported);
    assert_eq!(one.details[0].receiving_host.as_deref(), Some("mx.example.com"));
    assert_eq!(one.details[0].receiving_ip, "192.0.2.1".parse().ok());

    // The conversation with the place for reports was in clear too, and is not reported to it.
    tokio::time::sleep(Duration::from_secs(2 * 86_400)).await;
    assert_eq!(place.messages().len(), 1, "once");
    assert!(reporting.rows().await.is_empty());
    reporting.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_ask_gets_nothing() {
    for record in ["v=TLSRPTv2; rua=mailto:tls@reports.example", "v=spf1 -all"] {
        let reporting = Reporting::new(zones(record), None).await;
        let world = &reporting.world;
        world.net.put(MX, Script::default());
        let place = world.net.put(REPORTS, Script::default());
        reporting.send("bob@example.com").await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(reporting.rows().await.len(), 1);
        reporting.until_nothing_is_left().await;
        assert!(place.messages().is_empty());
        let waited = world.clock.now().since(Day::of(START).end());
        assert!(waited < Duration::from_secs(5 * 3_600), "{waited:?}");
        reporting.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dns_that_does_not_answer_is_asked_again_for_a_day() {
    let zones = zones("v=TLSRPTv1; rua=mailto:tls@reports.example").with_timeout("_smtp._tls.example.com");
    let reporting = Reporting::new(zones, None).await;
    reporting.world.net.put(MX, Script::default());
    reporting.send("bob@example.com").await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    reporting.until_nothing_is_left().await;
    let waited = reporting.world.clock.now().since(Day::of(START).end()).as_secs() / 3_600;
    assert!((24..36).contains(&waited), "{waited} hours behind midnight");
    reporting.end().await;
}

/// What was posted, and when.
#[derive(Default)]
struct Posted {
    refuse: usize,
    seen: Mutex<Vec<(String, &'static str, Vec<u8>)>>,
}

impl Post for Posted {
    fn post<'a>(
        &'a self,
        uri: &'a str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> BoxFuture<'a, Result<u16, String>> {
        let mut seen = self.seen.lock().unwrap();
        seen.push((uri.to_owned(), content_type, body));
        let answer = match seen.len() <= self.refuse {
            true if seen.len() == 1 => Err("no connection".to_owned()),
            true => Ok(503),
            false => Ok(201),
        };
        Box::pin(async { answer })
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_is_posted_again_until_it_is_taken() {
    let posted = Arc::new(Posted {
        refuse: 2,
        ..Posted::default()
    });
    let record = "v=TLSRPTv1; rua=https://reports.example/tls";
    let reporting = Reporting::new(zones(record), Some(posted.clone())).await;
    reporting.world.net.put(MX, Script::default());
    reporting.send("bob@example.com").await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    reporting.until_nothing_is_left().await;
    reporting.end().await;
    let seen = posted.seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    let (uri, content_type, body) = &seen[2];
    assert_eq!(uri, "https://reports.example/tls");
    assert_eq!(*content_type, "application/tlsrpt+gzip");
    let report = tlsrpt::message::read_octets(body).unwrap();
    assert_eq!(report.id, "2026-11-23.example.com@gmail.com");
    assert_eq!(report.totals().failed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_sign_sends_nothing() {
    let world = World::new(zones("v=TLSRPTv1; rua=mailto:tls@reports.example")).await;
    let (stop, stopped) = watch::channel(false);
    let reports = TlsReports {
        deliver: world.ctx.clone(),
        collector: world.tls_results.clone(),
        options: TlsReportOptions::default(),
        post: None,
    };
    let running = tokio::spawn(deliver::tls_reports::run(reports, stopped));
    let reporting = Reporting { world, stop, running };
    reporting.world.net.put(MX, Script::default());
    let place = reporting.world.net.put(REPORTS, Script::default());
    reporting.send("bob@example.com").await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    reporting.until_nothing_is_left().await;
    assert!(place.messages().is_empty());
    reporting.end().await;
}
