//! How long messages are tried, by their kind and by what they fail of, on the moved clock.
#![allow(clippy::unwrap_used)]

mod common;

use common::Script;
use common::stage::FIRST;
use common::world::{Over, World, domain};
use dns::table::TableResolver;
use mail::Clock;
use mail::delivery::Priority;
use queue::Lifetimes;
use std::net::Ipv4Addr;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);

async fn world(lifetimes: Lifetimes, script: Script) -> World {
    let zones = TableResolver::new()
        .with_mx("example.com", 10, Some(domain("mx.example.com")))
        .with_address("mx.example.com", Ipv4Addr::new(192, 0, 2, 1));
    let over = Over {
        queue: queue::Options {
            lifetimes,
            ..queue::Options::default()
        },
        ..Over::default()
    };
    let world = World::over(zones, Vec::new(), over, |_| {}).await;
    world.net.put(FIRST, script);
    world
}

fn full_for_bob() -> Script {
    Script {
        replies: vec![
            ("RCPT TO:<bob@", "452 4.2.2 mailbox full"),
            ("RCPT TO:<carol@", "450 4.2.1 try again later"),
        ],
        ..Script::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_class_of_failures_is_given_up_earlier_and_the_sender_is_told() {
    let lifetimes = Lifetimes {
        by_class: [("mailbox-full".to_owned(), 6 * HOUR)].into(),
        ..Lifetimes::default()
    };
    let world = world(lifetimes, full_for_bob()).await;
    let began = world.clock.now();
    let bob = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    let carol = world.submit("alice@gmail.com", &["carol@example.com"]).await;
    world.until_gone(bob).await;
    let hours = world.clock.now().since(began).as_secs_f64() / 3600.0;
    assert!((6.0..6.1).contains(&hours), "{hours}");
    let names = world.names(bob).await;
    assert!(
        names.contains(&"expired") && names.contains(&"report"),
        "{names:?}"
    );
    assert!(world.show(carol).await.is_some());
    world.until_gone(carol).await;
    let days = world.clock.now().since(began).as_secs_f64() / 86_400.0;
    assert!((5.0..5.1).contains(&days), "{days}");
    let inbox = world.inbox().await;
    // The delay of both was told after 4 hours, and the end of each.
    assert_eq!(inbox.len(), 4);
    assert!(inbox[2].contains("452 4.2.2 mailbox full"));
}

#[tokio::test(start_paused = true)]
async fn mail_of_low_priority_is_given_up_earlier() {
    let lifetimes = Lifetimes {
        low_priority: Some(24 * HOUR),
        ..Lifetimes::default()
    };
    let world = world(lifetimes, full_for_bob()).await;
    let began = world.clock.now();
    let ask = |message: &mut queue::Message, _: &mut Vec<queue::NewErrand>| {
        message.priority = Priority::new(-4).unwrap();
    };
    let low = world
        .submit_asking("alice@gmail.com", &["bob@example.com"], "Bulk\r\n", ask)
        .await;
    let normal = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world.until_gone(low).await;
    let hours = world.clock.now().since(began).as_secs_f64() / 3600.0;
    assert!((24.0..24.1).contains(&hours), "{hours}");
    assert!(world.show(normal).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn without_delay_notices_only_the_end_is_told() {
    let mut over = Over::default();
    over.queue.schedule.delay_notice_after = None;
    let zones = TableResolver::new()
        .with_mx("example.com", 10, Some(domain("mx.example.com")))
        .with_address("mx.example.com", Ipv4Addr::new(192, 0, 2, 1));
    let world = World::over(zones, Vec::new(), over, |_| {}).await;
    world.net.put(FIRST, full_for_bob());
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world.until_gone(id).await;
    let reports = world.names(id).await;
    assert_eq!(
        reports.iter().filter(|n| **n == "report").count(),
        1,
        "{reports:?}"
    );
}
