//! How much goes to a site at a time: slow start, trouble, death and recovery, rates, turns of senders.
#![allow(clippy::unwrap_used)]

mod common;

use common::world::{START, World, domain};
use common::{Script, Server};
use deliver::control::Limits;
use deliver::{Dialer as _, RouteFor, SiteLimit};
use dns::table::TableResolver;
use journey::Event;
use mail::{Clock, QueueId};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

const MX: &str = "192.0.2.1:25";
const OTHER: &str = "192.0.2.7:25";

/// A hundred domains at one provider, and one that is somewhere else.
fn zones() -> TableResolver {
    let mut zones = TableResolver::new()
        .with_address("mx.provider.example", Ipv4Addr::new(192, 0, 2, 1))
        .with_mx("quick.example", 10, Some(domain("mx.quick.example")))
        .with_address("mx.quick.example", Ipv4Addr::new(192, 0, 2, 7));
    for n in 0..100 {
        zones = zones.with_mx(&format!("d{n}.example"), 10, Some(domain("mx.provider.example")));
    }
    zones
}

fn silent() -> Script {
    Script {
        silent_at: Some("MAIL"),
        ..Script::default()
    }
}

async fn gone(world: &World) {
    world
        .until("an empty queue", || async {
            world.queue.stats().await.unwrap().messages == 0
        })
        .await;
}

/// The deferrals of a message, in words.
async fn deferrals(world: &World, id: QueueId) -> Vec<String> {
    let told = world.told(id).await;
    let words = told.into_iter().filter_map(|event| match event {
        Event::Deferred { reply, .. } => Some(reply.text),
        _ => None,
    });
    words.collect()
}

async fn tried(world: &World, id: QueueId) -> usize {
    world
        .names(id)
        .await
        .iter()
        .filter(|name| **name == "attempt")
        .count()
}

#[tokio::test(start_paused = true)]
async fn domains_of_one_provider_are_one_site() {
    let world = World::new(zones()).await;
    let slow = world.net.put(MX, silent());
    for n in 0..100 {
        let to = format!("bob@d{n}.example");
        world.submit("alice@gmail.com", &[to.as_str()]).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(slow.connections(), 2, "it never took one, so it gets 2 at a time");
}

#[tokio::test(start_paused = true)]
async fn a_site_that_takes_much_gets_more_at_a_time() {
    let world = World::with(zones(), Vec::new(), |options| options.attempts_per_domain_max = 6).await;
    let server = world.net.put(MX, Script::default());
    for n in 0..400 {
        let to = format!("bob@d{}.example", n % 100);
        world.submit("alice@gmail.com", &[to.as_str()]).await;
    }
    gone(&world).await;
    assert_eq!(server.messages().len(), 400);
    assert!(
        (3..=12).contains(&server.connections()),
        "{}",
        server.connections()
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_site_costs_probes_and_the_others_nothing() {
    let world = World::new(zones()).await;
    let quick = world.net.put(OTHER, Script::default());
    let mut dials = world.net.tried();
    let mut dead = Vec::new();
    for n in 0..3_000 {
        let to = format!("bob@d{}.example", n % 100);
        dead.push(world.submit("alice@gmail.com", &[to.as_str()]).await);
    }
    let mut delays = Vec::new();
    for _ in 0..20 {
        let since = world.clock.now();
        let id = world.submit("alice@gmail.com", &["eve@quick.example"]).await;
        world.until_gone(id).await;
        delays.push(world.clock.now().since(since));
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(quick.messages().len(), 20);
    let longest = delays.iter().max().unwrap();
    assert!(*longest < Duration::from_secs(2), "{longest:?}");
    let to_the_dead = *dials.borrow_and_update() - quick.connections();
    // Two found it down, and probes at 30, 90 and 210 seconds.
    assert!((3..=8).contains(&to_the_dead), "{to_the_dead}");

    // All of them were put off, and say why.
    let mut counted = (0, 0);
    for id in &dead {
        let [first, ..] = &deferrals(&world, *id).await[..] else {
            panic!("{id} was not put off");
        };
        match tried(&world, *id).await {
            0 => {
                assert!(
                    first.starts_with("not tried: the servers have not been reached for"),
                    "{first}"
                );
                assert!(
                    first.contains("connection refused by mx.provider.example"),
                    "{first}"
                );
                counted.0 += 1;
            }
            _ => counted.1 += 1,
        }
    }
    assert!(counted.0 > 2_900 && counted.1 < 10, "{counted:?}");

    // When it is back, all of them arrive.
    let server = world.net.put(MX, Script::default());
    gone(&world).await;
    assert_eq!(server.messages().len(), 3_000);
    assert!(world.clock.now().since(START) < Duration::from_secs(3600));
    assert!(world.inbox().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_put_off_expires_and_is_told() {
    let world = World::new(zones()).await;
    for _ in 0..20 {
        world.submit("alice@gmail.com", &["bob@d1.example"]).await;
    }
    let report = world.submit("", &["bob@d2.example"]).await;
    world.until_gone(report).await;
    let days = world.clock.now().since(START).as_secs() / 86_400;
    assert_eq!(days, 2, "a report is given up earlier");
    gone(&world).await;
    let days = world.clock.now().since(START).as_secs() / 86_400;
    assert_eq!(days, 5);
    assert_eq!(
        world.inbox().await.len(),
        40,
        "a notice of each delay, and of each end"
    );
}

#[tokio::test(start_paused = true)]
async fn storms_of_421_are_answered_with_patience() {
    let world = World::new(zones()).await;
    let storm = Script {
        greeting: "421 4.7.0 too many connections from you",
        ..Script::default()
    };
    let server = world.net.put(MX, storm);
    for _ in 0..500 {
        world.submit("alice@gmail.com", &["bob@d1.example"]).await;
    }
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(server.connections() <= 10, "{}", server.connections());
    *server.script.lock().unwrap() = Script::default();
    gone(&world).await;
    assert_eq!(server.messages().len(), 500);
}

#[tokio::test(start_paused = true)]
async fn rates_of_the_settings_are_kept() {
    let limit = |of: &str, messages, connections| SiteLimit {
        of: RouteFor::parse(of).unwrap(),
        limits: Limits {
            connections_max: 5,
            messages_per_minute: messages,
            connections_per_minute: connections,
        },
    };
    let world = World::with(zones(), Vec::new(), |options| {
        // By the recipients' domain, and by the name of the exchanger.
        options.site_limits = vec![
            limit("*", Some(10_000), None),
            limit(".provider.example", Some(30), None),
            limit("quick.example", None, Some(2)),
        ];
        options.attempt.keep.messages_max = 10;
    })
    .await;
    let server = world.net.put(MX, Script::default());
    let quick = world.net.put(OTHER, Script::default());
    for _ in 0..100 {
        world.submit("alice@gmail.com", &["bob@d1.example"]).await;
        world.submit("alice@gmail.com", &["bob@quick.example"]).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let first = server.messages().len();
    assert!((28..=36).contains(&first), "{first}");
    assert!((1..=4).contains(&quick.connections()), "{}", quick.connections());
    gone(&world).await;
    let minutes = world.clock.now().since(START).as_secs() / 60;
    assert!((2..=7).contains(&minutes), "{minutes}");
    assert_eq!((server.messages().len(), quick.messages().len()), (100, 100));
}

#[tokio::test(start_paused = true)]
async fn a_sender_with_thousands_does_not_hold_up_another() {
    let mut world = World::with(zones(), Vec::new(), |options| options.attempts_per_domain_max = 1).await;
    world.stop().await;
    let server: Arc<Server> = world.net.put(MX, Script::default());
    for _ in 0..2_000 {
        world.submit("list@many.example", &["bob@d1.example"]).await;
    }
    world.submit("carol@few.example", &["bob@d1.example"]).await;
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let service = tokio::spawn(deliver::run(world.ctx.clone(), stopped));
    gone(&world).await;
    let messages = server.messages();
    let before = messages
        .iter()
        .position(|m| m.contains("From: carol@few.example"));
    assert!(
        before.unwrap() < 200,
        "{before:?} of {} went before it",
        messages.len()
    );
    assert_eq!(messages.len(), 2_001);
    service.abort();
}

/// Must show 5: a worker dies between claim and settlement, half of the message sent, and nobody closes its
/// connection. Another worker takes the errand up when the lease ends, not before, and it arrives once.
#[tokio::test(start_paused = true)]
async fn what_a_dead_worker_held_is_taken_up_when_its_lease_ends_and_arrives_once() {
    let mut world = World::with(zones(), Vec::new(), |options| options.sole_worker = false).await;
    world.stop().await;
    let server = world.net.put(MX, Script::default());
    let id = world.submit("alice@gmail.com", &["bob@d1.example"]).await;
    let claimed_at = world.clock.now();
    let due = world.queue.due(claimed_at, 10).await.unwrap();
    let claims = world.queue.claim(&due, claimed_at).await.unwrap();
    let lease = world.queue.options().lease_for;
    assert_eq!((claims.len(), claims[0].until), (1, claimed_at.plus(lease)));
    let mut held_open = world.net.dial(MX.parse().unwrap()).await.unwrap();
    let dialogue =
        "EHLO us\r\nMAIL FROM:<alice@gmail.com>\r\nRCPT TO:<bob@d1.example>\r\nDATA\r\nSubject: Hel";
    held_open.write_all(dialogue.as_bytes()).await.unwrap();

    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let other = tokio::spawn(deliver::run(world.ctx.clone(), stopped));
    let mut taken_up = world.net.tried();
    taken_up.mark_unchanged();
    let before = lease - Duration::from_millis(1);
    assert!(
        tokio::time::timeout(before, taken_up.changed()).await.is_err(),
        "not before"
    );
    assert!(server.said("DATA") && server.messages().is_empty());
    taken_up.changed().await.unwrap();
    let late = world.clock.now().since(claimed_at.plus(lease));
    assert!(
        late <= Duration::from_millis(10),
        "{late:?} after the end of the lease"
    );
    gone(&world).await;
    assert_eq!((server.connections(), server.messages().len()), (2, 1));

    // The first one wakes up: it can settle nothing any more, and nothing is said twice.
    let renewed = world.queue.release(&claims[0], world.clock.now()).await;
    assert!(matches!(renewed, Err(queue::Error::ClaimLost)), "{renewed:?}");
    drop(held_open);
    tokio::time::sleep(lease * 2).await;
    assert_eq!(server.messages().len(), 1);
    let relayed = world.names(id).await.iter().filter(|n| **n == "relayed").count();
    assert_eq!(relayed, 1);
    other.abort();
}

/// A site that was wide goes down, and the first that is heard of it again is that it is busy.
#[tokio::test(start_paused = true)]
async fn a_site_that_comes_back_busy_is_asked_again() {
    let world = World::with(zones(), Vec::new(), |_| {}).await;
    let server = world.net.put(MX, Script::default());
    for _ in 0..200 {
        world.submit("alice@gmail.com", &["bob@d1.example"]).await;
    }
    gone(&world).await;
    assert_eq!(server.messages().len(), 200);
    world.net.remove(MX);
    // Kept connections are gone, and each message finds nobody there.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let first = world.submit("alice@gmail.com", &["bob@d1.example"]).await;
    let second = world.submit("alice@gmail.com", &["bob@d1.example"]).await;
    world
        .until("two attempts in vain", || async {
            tried(&world, first).await + tried(&world, second).await == 2
        })
        .await;
    let busy = Script {
        greeting: "421 4.3.2 busy",
        ..Script::default()
    };
    let server = world.net.put(MX, busy);
    let third = world.submit("alice@gmail.com", &["bob@d1.example"]).await;
    world
        .until("a probe that meets 421", || async { server.connections() > 0 })
        .await;
    *server.script.lock().unwrap() = Script::default();
    let began = world.clock.now();
    world.until_gone(third).await;
    let waited = world.clock.now().since(began);
    assert!(waited < Duration::from_secs(2 * 3_600), "{waited:?}");
    gone(&world).await;
    assert_eq!(server.messages().len(), 3);
}

/// Claiming that breaks off leaves the sites as they were.
#[tokio::test(start_paused = true)]
async fn claiming_that_panics_holds_no_site_up() {
    let world = World::with(zones(), Vec::new(), |_| {}).await;
    let server = world.net.put(MX, Script::default());
    world.submit("alice@gmail.com", &["bob@d1.example"]).await;
    gone(&world).await;
    for _ in 0..3 {
        let began = world.clock.now();
        world.moody.panics_next.store(true, Ordering::Relaxed);
        world.submit("alice@gmail.com", &["bob@d1.example"]).await;
        gone(&world).await;
        assert!(world.clock.now().since(began) < Duration::from_secs(60));
    }
    assert_eq!(server.messages().len(), 4);
}

/// A worker that dies in the middle of an attempt: nothing is held longer than its lease, and nothing is lost.
#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_holds_nothing_longer_than_its_lease() {
    let mut world = World::with(zones(), Vec::new(), |options| options.sole_worker = false).await;
    let server = world.net.put(MX, silent());
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(world.submit("alice@gmail.com", &["bob@d1.example"]).await);
    }
    world
        .until("it is in the middle", || async { server.said("MAIL") })
        .await;
    // It dies: no farewell, no lease given back.
    world.service.take().unwrap().abort();
    let died = world.clock.now();
    *server.script.lock().unwrap() = Script::default();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let other = tokio::spawn(deliver::run(world.ctx.clone(), stopped));
    gone(&world).await;
    let waited = world.clock.now().since(died);
    let lease = world.queue.options().lease_for;
    assert!(waited <= lease + Duration::from_secs(120), "{waited:?}");
    for id in ids {
        assert!(world.names(id).await.contains(&"relayed"));
    }
    assert_eq!(server.messages().len(), 10, "each once");
    other.abort();
}
