//! What takes hours and days, on the moved clock in seconds: greylisting, storms of 421, five days of
//! retries, the notice of the delay, the report at the end, and no report about a report.
//!
//! The table of all cases is docs/OUTBOUND-CASES.md.
#![allow(clippy::unwrap_used)]

mod common;

use common::Script;
use common::world::{Over, START, World, domain};
use directory::{NoRandomness, Random};
use dns::table::TableResolver;
use journey::Event;
use mail::Clock;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MX: &str = "192.0.2.1:25";
const HOUR: u64 = 3_600;

fn zones() -> TableResolver {
    TableResolver::new()
        .with_mx("example.com", 10, Some(domain("mx.example.com")))
        .with_address("mx.example.com", Ipv4Addr::new(192, 0, 2, 1))
}

fn refusing(part: &'static str, reply: &'static str) -> Script {
    Script {
        replies: vec![(part, reply)],
        ..Script::default()
    }
}

/// Dice that always show the least: every interval is a tenth shorter than the schedule has it.
struct Lowest;

impl Random for Lowest {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoRandomness> {
        out.fill(0);
        Ok(())
    }
}

/// A world without chance.
async fn certain_world() -> World {
    let net = Arc::new(common::Net::default());
    let over = Over {
        dialer: net.clone(),
        net,
        random: Arc::new(Lowest),
        queue: queue::Options::default(),
    };
    World::over(zones(), Vec::new(), over, |_| {}).await
}

/// The moments of every connection from now on, in seconds since the start.
fn moments(world: &World) -> Arc<Mutex<Vec<u64>>> {
    let moments: Arc<Mutex<Vec<u64>>> = Arc::default();
    let (noted, clock) = (Arc::clone(&moments), Arc::clone(&world.clock));
    let note = move || noted.lock().unwrap().push(clock.now().since(START).as_secs());
    *world.net.at_dial.lock().unwrap() = Some(Arc::new(note));
    moments
}

/// RFC 5321 §4.5.4.1: five minutes, then each interval half as long again, at most four hours, for five
/// days; the last try at the very end. (Less a tenth, by the dice.)
#[tokio::test(start_paused = true)]
async fn five_days_of_retries_to_the_second() {
    let world = certain_world().await;
    let moments = moments(&world);
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world.until_gone(id).await;
    let mut wanted = vec![0.0];
    let mut interval = 270.0_f64;
    loop {
        let next = wanted.last().unwrap() + interval.min(0.9 * 4.0 * HOUR as f64);
        if next >= 5.0 * 24.0 * HOUR as f64 {
            break;
        }
        wanted.push(next);
        interval *= 1.5;
    }
    wanted.push(5.0 * 24.0 * HOUR as f64);
    let moments = moments.lock().unwrap().clone();
    assert_eq!(moments.len(), wanted.len(), "{moments:?}");
    assert_eq!(moments.len(), 42);
    for (is, wanted) in moments.iter().zip(&wanted) {
        // A timer may be late by a millisecond each time.
        assert!(
            (*is as f64 - wanted).abs() <= 1.5,
            "{is} s, not {wanted} s: {moments:?}"
        );
    }

    // The sender heard of it twice: when it had waited four hours, and at the end.
    let inbox = world.inbox().await;
    let [delayed, failed] = inbox.as_slice() else {
        panic!("{} reports", inbox.len());
    };
    assert!(
        delayed.contains("Action: delayed\r\nStatus: 4.4.1\r\n"),
        "{delayed}"
    );
    assert!(
        delayed.contains("Will-Retry-Until: Sat, 28 Nov 2026 "),
        "{delayed}"
    );
    assert!(failed.contains("Action: failed\r\nStatus: 5.4.1\r\n"), "{failed}");
    let failed = failed.replace("\r\n ", " ");
    let words = "connection refused by mx.example.com at 192.0.2.1:25";
    assert!(failed.contains(words), "{failed}");
    let told = world.told(id).await;
    let (mut deferred, mut ends) = (Vec::new(), Vec::new());
    for event in &told {
        match event {
            Event::Deferred { expires, .. } => deferred.push(*expires),
            Event::Expired { attempts, reply, .. } => ends.push((*attempts, reply.text.clone())),
            _ => {}
        }
    }
    assert_eq!(deferred.len(), 41);
    assert!(
        deferred
            .iter()
            .all(|expires| expires.since(START).as_secs() == 120 * HOUR)
    );
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].0, 42);
    assert!(ends[0].1.contains("connection refused"), "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn the_notice_of_the_delay_comes_once_and_not_before_its_time() {
    let world = certain_world().await;
    let moments = moments(&world);
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    let first = || async { !world.inbox().await.is_empty() };
    world.until("the notice", first).await;
    let told_at = world.clock.now().since(START).as_secs();
    let tried = moments.lock().unwrap().clone();
    assert!(
        tried[tried.len() - 2] < 4 * HOUR && 4 * HOUR <= told_at,
        "{told_at} s: {tried:?}"
    );
    world.net.put(MX, Script::default());
    world.until_gone(id).await;
    assert_eq!(
        world.inbox().await.len(),
        1,
        "nothing is told of a success that nobody asked for"
    );
    assert_eq!(world.names(id).await.last(), Some(&"relayed"));
}

/// A receiver that takes only who comes again after five minutes: the second try is early enough for
/// that, and nobody is told anything.
#[tokio::test(start_paused = true)]
async fn a_greylisting_receiver() {
    let world = World::new(zones()).await;
    let greylisting = refusing("RCPT TO:<bob@", "450 4.2.0 greylisted, see you in five minutes");
    let server = world.net.put(MX, greylisting);
    let id = world
        .submit("alice@gmail.com", &["bob@example.com", "eve@example.com"])
        .await;
    world
        .until("a deferral", || async {
            world.names(id).await.contains(&"deferred")
        })
        .await;
    // Eve has hers; only bob waits.
    assert_eq!(server.messages().len(), 1);
    let waits = world.show(id).await.unwrap().errands;
    let waits: Vec<_> = waits.iter().filter(|errand| errand.state.is_open()).collect();
    assert_eq!(waits.len(), 1);
    assert!(waits[0].last.as_ref().unwrap().reply.contains("greylisted"));
    *server.script.lock().unwrap() = Script::default();
    world.until_gone(id).await;
    let waited = world.clock.now().since(START).as_secs();
    assert!((270..=400).contains(&waited), "{waited} s");
    assert_eq!(server.messages().len(), 2);
    let asked: Vec<String> = server.lines.lock().unwrap().clone();
    let count = |part: &str| asked.iter().filter(|line| line.contains(part)).count();
    assert_eq!((count("RCPT TO:<bob@"), count("RCPT TO:<eve@")), (2, 1));
    assert!(world.inbox().await.is_empty());
}

/// A whole day of 421 at the greeting, and a hundred messages that wait for it: nothing is lost or told
/// as a failure, connections stay few, and when the storm is over each goes out once.
#[tokio::test(start_paused = true)]
async fn a_storm_of_421() {
    let world = World::new(zones()).await;
    let storm = Script {
        greeting: "421 4.3.2 too busy",
        ..Script::default()
    };
    let server = world.net.put(MX, storm);
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(world.submit("alice@gmail.com", &["bob@example.com"]).await);
    }
    tokio::time::sleep(Duration::from_secs(24 * HOUR)).await;
    let during = server.connections();
    // Each was tried some fifteen times by its own schedule; a scheduler may do with fewer.
    assert!((1..=100 * 20).contains(&during), "{during} connections");
    assert!(server.messages().is_empty());
    let reports = world.inbox().await;
    assert!(
        reports
            .iter()
            .all(|report| report.contains("Action: delayed\r\n"))
    );
    assert_eq!(world.queue.stats().await.unwrap().messages, 100);
    *server.script.lock().unwrap() = Script::default();
    for id in &ids {
        world.until_gone(*id).await;
    }
    assert_eq!(server.messages().len(), 100, "each once");
    assert!(
        world
            .inbox()
            .await
            .iter()
            .all(|report| report.contains("Action: delayed\r\n"))
    );
}

/// A report that cannot be delivered is the end: nobody is told, whatever happens to it.
#[tokio::test(start_paused = true)]
async fn the_report_of_a_report_is_never_made() {
    for (what, refusal) in [
        ("refused at RCPT", refusing("RCPT TO:<carol@", "550 5.1.1 nobody")),
        (
            "refused at MAIL",
            refusing("MAIL FROM:<>", "550 5.7.1 no reports, please"),
        ),
    ] {
        let zones = zones().with_mx("example.net", 0, None);
        let world = World::new(zones).await;
        let server = world.net.put(MX, refusal);
        // The recipient takes no mail, so a report goes to carol, who is elsewhere.
        let id = world.submit("carol@example.com", &["bob@example.net"]).await;
        world.until_gone(id).await;
        world
            .until("an empty queue", || async {
                world.queue.stats().await.unwrap().messages == 0
            })
            .await;
        assert!(server.said("MAIL FROM:<>"), "{what}");
        assert_eq!(server.connections(), 1, "{what}");
        let ledger = world.queue.ledger().await.unwrap();
        assert_eq!(
            (ledger.queued, ledger.bounced),
            (2, 2),
            "{what}: the message and its report"
        );
        assert!(world.inbox().await.is_empty(), "{what}");
        tokio::time::sleep(Duration::from_secs(6 * 24 * HOUR)).await;
        assert_eq!(server.connections(), 1, "{what}");
    }
    // One that expires is no other.
    let world = World::new(zones().with_mx("example.net", 0, None)).await;
    world.submit("carol@example.com", &["bob@example.net"]).await;
    world
        .until("an empty queue", || async {
            world.queue.stats().await.unwrap().messages == 0
        })
        .await;
    let ledger = world.queue.ledger().await.unwrap();
    assert_eq!((ledger.queued, ledger.bounced, ledger.expired), (2, 1, 1));
    assert!(world.inbox().await.is_empty());
}
