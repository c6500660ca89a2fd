//! MTA-STS, from the queue to the servers: what is heeded, what is said, and what no attacker can talk
//! away. Time is tokio's, paused and moved.
#![allow(clippy::unwrap_used)]

mod common;

use common::world::{Over, START, World, domain};
use common::{Script, Server, StartTls, certificates};
use dns::table::TableResolver;
use futures_util::future::BoxFuture;
use journey::Event;
use mail::{Clock, Domain, QueueId};
use mtasts::{Entry, Fault, Fetch, Id, Memory, Policy};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

const MX: &str = "192.0.2.1:25";
const MX2: &str = "192.0.2.2:25";
const ENFORCE: &str = "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 604800\n";
const DAY: Duration = Duration::from_secs(86_400);

/// What the policy host answers, and how often it was asked.
struct PolicyHost {
    answer: Mutex<Result<String, Fault>>,
    asked: Mutex<usize>,
}

impl Fetch for PolicyHost {
    fn fetch<'a>(&'a self, _: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>, Fault>> {
        Box::pin(async move {
            *self.asked.lock().unwrap() += 1;
            let answer = self.answer.lock().unwrap().clone();
            answer.map(String::into_bytes)
        })
    }
}

/// example.com with two exchangers; the first has a certificate that we believe, the second none.
struct Scene {
    world: World,
    policy_host: Arc<PolicyHost>,
    first: Arc<Server>,
    second: Arc<Server>,
    good: TempDir,
    bad: TempDir,
}

impl Scene {
    /// With these texts at `_mta-sts.example.com` (an empty one: the DNS gives no answer), and this answer of the policy host.
    async fn new(texts: &[&str], answer: Result<&str, Fault>) -> Self {
        let zone = TableResolver::new()
            .with_mx("example.com", 10, Some(domain("mx.example.com")))
            .with_mx("example.com", 20, Some(domain("mx2.example.com")))
            .with_address("mx.example.com", Ipv4Addr::new(192, 0, 2, 1))
            .with_address("mx2.example.com", Ipv4Addr::new(192, 0, 2, 2));
        let zone = texts.iter().fold(zone, |zone, text| match *text {
            "" => zone.with_timeout("_mta-sts.example.com"),
            text => zone.with_txt("_mta-sts.example.com", text),
        });
        let (good, bad) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let certificate = certificates(good.path());
        let roots = tls::Roots::public()
            .with_file(&good.path().join("certificate.pem"))
            .unwrap();
        let policy_host = Arc::new(PolicyHost {
            answer: Mutex::new(answer.map(str::to_owned)),
            asked: Mutex::default(),
        });
        let world = World::made(
            zone,
            Vec::new(),
            Over::default(),
            |_| {},
            &roots,
            Some(policy_host.clone()),
        )
        .await;
        let first = world.net.put(
            MX,
            Script {
                starttls: StartTls::Good(certificate.server_config()),
                ..Script::default()
            },
        );
        let second = world.net.put(MX2, Script::default());
        Self {
            world,
            policy_host,
            first,
            second,
            good,
            bad,
        }
    }

    fn remember(&self, id: &str, days_ago: u32) -> impl Future<Output = ()> {
        let mut entry = Entry::new(domain("example.com"), START);
        let fetched = mail::Timestamp(START.0 - i64::from(days_ago) * 86_400_000_000);
        let policy = Policy::parse(ENFORCE.as_bytes()).unwrap();
        entry.take(Id::parse(id).unwrap(), Ok(policy), fetched);
        let memory = Memory::new(self.world.store.clone());
        async move { memory.put(&entry).await.unwrap() }
    }

    /// The first server shows another certificate from now on: one that nobody vouches for, or the
    /// good one.
    fn show(&self, certificate: &TempDir) {
        let config = certificates(certificate.path()).server_config();
        self.first.script.lock().unwrap().starttls = StartTls::Good(config);
    }

    async fn submit(&self) -> QueueId {
        self.world.submit("alice@gmail.com", &["bob@example.com"]).await
    }

    /// Waits for the first attempt's end; what stopped it: status and words.
    async fn stopped(&self, id: QueueId) -> (String, String) {
        self.world
            .until("a deferral", || async {
                self.world.names(id).await.contains(&"deferred")
            })
            .await;
        let last = self.world.show(id).await.unwrap().errands.remove(0).last.unwrap();
        (last.status.unwrap().to_string(), last.reply)
    }

    /// What the journey says of the way, and by what the TLS of the attempts was verified.
    async fn told(&self, id: QueueId) -> (String, Vec<Option<String>>) {
        let (mut way, mut verified) = (String::new(), Vec::new());
        for event in self.world.told(id).await {
            match event {
                Event::Route { why, .. } => way = why,
                Event::Attempt { tls, .. } => verified.push(tls.and_then(|tls| tls.verified)),
                _ => {}
            }
        }
        (way, verified)
    }

    fn heard_no_mail(&self) {
        for server in [&self.first, &self.second] {
            assert!(!server.said("MAIL"), "{:?}", server.lines.lock().unwrap());
            assert!(server.messages().is_empty());
        }
    }

    fn asked(&self) -> usize {
        *self.policy_host.asked.lock().unwrap()
    }
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn enforce_and_a_good_certificate() {
    let scene = Scene::new(&["v=STSv1; id=1;"], Ok(ENFORCE)).await;
    let id = scene.submit().await;
    scene.world.until_gone(id).await;
    assert_eq!(scene.first.messages().len(), 1);
    assert!(scene.first.said("STARTTLS"));
    let (way, verified) = scene.told(id).await;
    has(
        &way,
        &["MTA-STS enforce (policy 1 of example.com, until 2026-11-30"],
    );
    assert_eq!(verified, [Some("MTA-STS".to_owned())]);
    let again = scene.submit().await;
    scene.world.until_gone(again).await;
    assert_eq!(scene.asked(), 1, "it is remembered");
}

#[tokio::test(start_paused = true)]
async fn enforce_and_a_bad_certificate_then_a_new_one() {
    let scene = Scene::new(&["v=STSv1; id=1;"], Ok(ENFORCE)).await;
    scene.show(&scene.bad);
    let id = scene.submit().await;
    let (status, words) = scene.stopped(id).await;
    scene.heard_no_mail();
    assert_eq!(status, "4.7.5");
    has(
        &words,
        &[
            "mx.example.com",
            "certificate",
            "MTA-STS enforce",
            "whoever runs example.com",
        ],
    );
    assert_eq!(scene.second.connections(), 0, "the policy does not name it");
    has(&scene.told(id).await.0, &["mx2.example.com left out"]);
    // Its operator mends it; the next attempt goes through.
    scene.show(&scene.good);
    scene.world.until_gone(id).await;
    assert_eq!(scene.first.messages().len(), 1);
}

/// Whoever sits in between takes the offer away.
#[tokio::test(start_paused = true)]
async fn enforce_and_no_starttls() {
    let scene = Scene::new(&["v=STSv1; id=1;"], Ok(ENFORCE)).await;
    scene.first.script.lock().unwrap().starttls = StartTls::NotOffered;
    let id = scene.submit().await;
    let (status, words) = scene.stopped(id).await;
    scene.heard_no_mail();
    assert_eq!(status, "4.7.10");
    has(&words, &["STARTTLS", "MTA-STS", "example.com"]);
}

#[tokio::test(start_paused = true)]
async fn enforce_and_a_handshake_that_fails_never_goes_in_clear() {
    let scene = Scene::new(&["v=STSv1; id=1;"], Ok(ENFORCE)).await;
    scene.first.script.lock().unwrap().starttls = StartTls::Broken;
    let id = scene.submit().await;
    assert_eq!(scene.stopped(id).await.0, "4.7.5");
    scene.heard_no_mail();
    assert_eq!(scene.first.connections(), 1, "not once more in clear");
}

#[tokio::test(start_paused = true)]
async fn testing_and_a_bad_certificate() {
    let testing = ENFORCE.replace("enforce", "testing");
    let scene = Scene::new(&["v=STSv1; id=1;"], Ok(&testing)).await;
    scene.show(&scene.bad);
    let id = scene.submit().await;
    scene.world.until_gone(id).await;
    assert_eq!(scene.first.messages().len(), 1, "delivered all the same");
    let (way, verified) = scene.told(id).await;
    has(&way, &["MTA-STS testing"]);
    assert_eq!(verified, [None], "and told that it was not verified");
}

#[tokio::test(start_paused = true)]
async fn hosts_that_the_policy_does_not_name() {
    let other = ENFORCE.replace("mx.example.com", "*.mail.example.com");
    let scene = Scene::new(&["v=STSv1; id=1;"], Ok(&other)).await;
    let id = scene.submit().await;
    let (status, words) = scene.stopped(id).await;
    assert_eq!(status, "4.7.5");
    has(
        &words,
        &[
            "MTA-STS policy of example.com",
            "does not name",
            "*.mail.example.com",
        ],
    );
    for server in [&scene.first, &scene.second] {
        assert_eq!(server.connections(), 0, "nobody is even called");
    }
    // A host that is named by one label more.
    let wide = ENFORCE.replace("mx.example.com", "*.example.com");
    let scene = Scene::new(&["v=STSv1; id=1;"], Ok(&wide)).await;
    let id = scene.submit().await;
    scene.world.until_gone(id).await;
    assert_eq!(scene.first.messages().len(), 1);
}

/// The record is gone, or there are two, while a policy is remembered: it holds.
#[tokio::test(start_paused = true)]
async fn an_attacker_who_takes_the_record_away_gains_nothing() {
    for texts in [&[][..], &["v=STSv1; id=1;", "v=STSv1; id=2;"], &["v=STSv1;"]] {
        let scene = Scene::new(texts, Err(Fault::fetch("blocked"))).await;
        scene.remember("1", 6).await;
        scene.show(&scene.bad);
        let id = scene.submit().await;
        assert_eq!(scene.stopped(id).await.0, "4.7.5", "{texts:?}");
        scene.heard_no_mail();
        assert_eq!(scene.asked(), 0);
    }
}

/// Another id leads to a policy host that is down: the remembered policy holds on.
#[tokio::test(start_paused = true)]
async fn a_policy_host_that_is_down_changes_nothing() {
    let scene = Scene::new(&["v=STSv1; id=2;"], Err(Fault::fetch("connection refused"))).await;
    scene.remember("1", 6).await;
    scene.show(&scene.bad);
    let id = scene.submit().await;
    assert_eq!(scene.stopped(id).await.0, "4.7.5");
    scene.heard_no_mail();
    let (way, _) = scene.told(id).await;
    has(
        &way,
        &["MTA-STS enforce (policy 1", "connection refused", "holds on"],
    );
}

/// What is over does not hold; and a policy that cannot be fetched keeps no mail back (RFC 8461 §3.3).
#[tokio::test(start_paused = true)]
async fn an_expired_policy_and_a_policy_host_that_is_down() {
    let certificate = Fault::certificate("the certificate of mta-sts.example.com has expired");
    let scene = Scene::new(&["v=STSv1; id=1;"], Err(certificate)).await;
    scene.remember("1", 8).await;
    scene.show(&scene.bad);
    let id = scene.submit().await;
    scene.world.until_gone(id).await;
    assert_eq!(scene.first.messages().len(), 1);
    let (way, _) = scene.told(id).await;
    has(&way, &["has expired", "as to a domain without one"]);
    assert_eq!(scene.asked(), 1);
    let again = scene.submit().await;
    scene.world.until_gone(again).await;
    assert_eq!(scene.asked(), 1, "not tried again at once");
}

/// Five days of waiting: the policy is enforced to the end, and the sender is told why.
#[tokio::test(start_paused = true)]
async fn mail_that_no_good_server_takes_comes_back_with_the_reason() {
    let scene = Scene::new(&["v=STSv1; id=1;"], Ok(ENFORCE)).await;
    scene.show(&scene.bad);
    let id = scene.submit().await;
    scene.world.until_gone(id).await;
    assert!(scene.world.clock.now().since(START) >= DAY * 5);
    scene.heard_no_mail();
    assert!(scene.world.names(id).await.contains(&"expired"));
    let inbox = scene.world.inbox().await;
    let report = inbox.last().unwrap();
    has(report, &["bob@example.com", "MTA-STS"]);
}

/// REQUIRETLS wants the policy to name the server. As long as the policy cannot be had that is no "no": the
/// message waits, and does not come back.
#[tokio::test(start_paused = true)]
async fn requiretls_waits_for_a_policy_that_cannot_be_had() {
    for texts in [[""], ["v=STSv1; id=1;"]] {
        let scene = Scene::new(&texts, Err(Fault::fetch("connection refused"))).await;
        let ask = |message: &mut queue::Message, _: &mut Vec<_>| message.require_tls = true;
        let to = ["bob@example.com"];
        let id = scene
            .world
            .submit_asking("alice@gmail.com", &to, "Hi\r\n", ask)
            .await;
        assert_eq!(scene.stopped(id).await.0, "4.7.10", "{texts:?}");
        scene.heard_no_mail();
    }
    // A domain that has no policy for certain.
    let scene = Scene::new(&[], Err(Fault::fetch("not asked"))).await;
    let ask = |message: &mut queue::Message, _: &mut Vec<_>| message.require_tls = true;
    let to = ["bob@example.com"];
    let id = scene
        .world
        .submit_asking("alice@gmail.com", &to, "Hi\r\n", ask)
        .await;
    scene.world.until_gone(id).await;
    assert!(scene.world.names(id).await.contains(&"bounced"));
}
