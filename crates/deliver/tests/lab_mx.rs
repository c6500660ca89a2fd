//! What the DNS may say of a destination, case by case, through the whole service: who is connected to,
//! in which order, and what the sender is told. Time is tokio's paused clock.
//!
//! The table of all cases is docs/OUTBOUND-CASES.md.
#![allow(clippy::unwrap_used)]

mod common;

use common::Script;
use common::world::{World, domain};
use dns::table::TableResolver;
use journey::Event;
use mail::QueueId;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, n)
}

fn mx(zones: TableResolver, preference: u16, host: &str) -> TableResolver {
    zones.with_mx("example.com", preference, Some(domain(host)))
}

/// Three hosts with an address each.
fn zones() -> TableResolver {
    TableResolver::new()
        .with_address("a.example", ip(1))
        .with_address("b.example", ip(2))
        .with_address("c.example", ip(3))
}

/// Addresses that were connected to, in order.
async fn tried(world: &World, id: QueueId) -> Vec<String> {
    let told = world.told(id).await;
    let address = |event: Event| match event {
        Event::Attempt { ip: Some(ip), .. } => Some(ip.to_string()),
        _ => None,
    };
    told.into_iter().filter_map(address).collect()
}

/// What was said of the route.
async fn route(world: &World, id: QueueId) -> String {
    let told = world.told(id).await;
    let why = |event: Event| match event {
        Event::Route { why, .. } => Some(why),
        _ => None,
    };
    told.into_iter().find_map(why).unwrap_or_default()
}

/// Cases that end with delivery: zones, recipient, the servers that are up (by the last octet of their
/// address), the addresses that are tried, words of the route.
#[tokio::test(start_paused = true)]
async fn destinations_that_are_reached() {
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    let to = "bob@example.com";
    for (what, zones, to, up, addresses, words) in [
        (
            "the lowest preference first",
            mx(mx(mx(zones(), 30, "c.example"), 10, "a.example"), 20, "b.example"),
            to,
            "123",
            &["192.0.2.1"][..],
            "MX records",
        ),
        (
            "one is dead",
            mx(mx(zones(), 10, "a.example"), 20, "b.example"),
            to,
            "23",
            &["192.0.2.1", "192.0.2.2"],
            "MX records",
        ),
        (
            "two are dead",
            mx(mx(mx(zones(), 10, "a.example"), 20, "b.example"), 30, "c.example"),
            to,
            "3",
            &["192.0.2.1", "192.0.2.2", "192.0.2.3"],
            "MX records",
        ),
        (
            "no MX: the domain's own address",
            zones().with_address("example.com", ip(1)),
            to,
            "1",
            &["192.0.2.1"],
            "the domain's own address",
        ),
        (
            "no MX: its IPv6 address",
            zones().with_address("example.com", v6),
            to,
            "6",
            &["2001:db8::1"],
            "the domain's own address",
        ),
        (
            "no MX, and the domain is a CNAME",
            zones().with_cname("example.com", "a.example"),
            to,
            "1",
            &["192.0.2.1"],
            "the domain's own address",
        ),
        (
            "an MX that is a CNAME (RFC 2181 §10.3 forbids it, and it works)",
            mx(
                zones().with_cname("mail.example", "b.example"),
                10,
                "mail.example",
            ),
            to,
            "2",
            &["192.0.2.2"],
            "MX records",
        ),
        (
            "the first MX has no address",
            mx(
                mx(zones().with_empty("none.example"), 10, "none.example"),
                20,
                "b.example",
            ),
            to,
            "2",
            &["192.0.2.2"],
            "none.example has no address",
        ),
        (
            "the first MX does not exist",
            mx(mx(zones(), 10, "gone.example"), 20, "b.example"),
            to,
            "2",
            &["192.0.2.2"],
            "gone.example has no address",
        ),
        (
            "the first MX cannot be looked up",
            mx(
                mx(zones().with_timeout("slow.example"), 10, "slow.example"),
                20,
                "b.example",
            ),
            to,
            "2",
            &["192.0.2.2"],
            "no answer in time",
        ),
        (
            "two MX that are one machine",
            mx(
                mx(zones().with_address("also-a.example", ip(1)), 10, "a.example"),
                20,
                "also-a.example",
            ),
            to,
            "1",
            &["192.0.2.1"],
            "MX records",
        ),
        (
            "we are the second MX: those behind us are left out",
            mx(
                mx(mx(zones(), 10, "a.example"), 20, "mail.gmail.com"),
                30,
                "c.example",
            ),
            to,
            "1",
            &["192.0.2.1"],
            "mail.gmail.com is this server",
        ),
        (
            "a null MX beside another does not count",
            mx(zones().with_mx("example.com", 0, None), 10, "a.example"),
            to,
            "1",
            &["192.0.2.1"],
            "MX records",
        ),
        (
            "an address literal",
            zones(),
            "bob@[192.0.2.3]",
            "3",
            &["192.0.2.3"],
            "the address that the recipient's address names",
        ),
        (
            "an IPv6 literal",
            zones(),
            "bob@[IPv6:2001:db8::1]",
            "6",
            &["2001:db8::1"],
            "the address that the recipient's address names",
        ),
    ] {
        let world = World::new(zones).await;
        for n in up.chars() {
            match n {
                '6' => world.net.put("[2001:db8::1]:25", Script::default()),
                n => world.net.put(&format!("192.0.2.{n}:25"), Script::default()),
            };
        }
        let id = world.submit("alice@gmail.com", &[to]).await;
        world.until_gone(id).await;
        assert!(
            world.names(id).await.contains(&"relayed"),
            "{what}: {:?}",
            world.told(id).await
        );
        assert_eq!(tried(&world, id).await, addresses, "{what}");
        let said = route(&world, id).await;
        assert!(said.contains(words), "{what}: {said}");
        assert!(world.inbox().await.is_empty(), "{what}");
    }
}

/// Cases that end with a report at once: nobody is connected to, and the sender learns why.
#[tokio::test(start_paused = true)]
async fn destinations_that_take_no_mail() {
    let none = || zones().with_empty("none.example");
    for (what, zones, status, words) in [
        (
            "a null MX",
            zones().with_mx("example.com", 0, None),
            "5.1.10",
            "556",
        ),
        ("no such domain", zones(), "5.1.2", "does not exist"),
        (
            "neither MX nor address",
            zones().with_txt("example.com", "x"),
            "5.1.2",
            "neither MX nor address",
        ),
        (
            "an MX without an address",
            mx(none(), 10, "none.example"),
            "5.4.4",
            "none.example",
        ),
        (
            "we are the only MX",
            mx(zones(), 10, "mail.gmail.com"),
            "5.4.6",
            "the mail would loop",
        ),
        (
            "we are the first MX",
            mx(mx(zones(), 10, "mail.gmail.com"), 20, "a.example"),
            "5.4.6",
            "the mail would loop",
        ),
    ] {
        let world = World::new(zones).await;
        let servers = [1, 2, 3].map(|n| world.net.put(&format!("192.0.2.{n}:25"), Script::default()));
        let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
        world.until_gone(id).await;
        assert_eq!(world.names(id).await, ["route", "bounced", "report"], "{what}");
        let inbox = world.inbox().await;
        let report = inbox[0].replace("\r\n ", " ");
        assert_eq!(inbox.len(), 1, "{what}");
        assert!(
            report.contains(&format!("Status: {status}\r\n")),
            "{what}: {report}"
        );
        assert!(report.contains(words), "{what}: {report}");
        assert_eq!(servers.map(|server| server.connections()), [0; 3], "{what}");
    }
}

/// DNS trouble is a reason to wait, whichever question it is about.
#[tokio::test(start_paused = true)]
async fn dns_trouble_never_bounces() {
    for (what, zones) in [
        ("the MX", zones().with_timeout("example.com")),
        (
            "the only host",
            mx(zones().with_timeout("slow.example"), 10, "slow.example"),
        ),
        (
            "a server failure",
            zones().with_failure("example.com", "SERVFAIL"),
        ),
        (
            "a circle of CNAMEs",
            mx(zones().with_cname("x.example", "x.example"), 10, "x.example"),
        ),
        (
            "one host has no address, of the other we cannot know",
            mx(
                mx(
                    zones().with_timeout("slow.example").with_empty("none.example"),
                    10,
                    "none.example",
                ),
                20,
                "slow.example",
            ),
        ),
    ] {
        let world = World::new(zones).await;
        let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
        world
            .until("a deferral", || async {
                world.names(id).await.contains(&"deferred")
            })
            .await;
        let errand = world.show(id).await.unwrap().errands.remove(0);
        let last = errand.last.unwrap();
        assert_eq!(
            last.status.unwrap().to_string(),
            "4.4.3",
            "{what}: {}",
            last.reply
        );
        assert!(world.inbox().await.is_empty(), "{what}");
    }
}

/// Equal preferences share the load: over some messages each of three is first now and then.
#[tokio::test(start_paused = true)]
async fn equal_preferences_are_shuffled() {
    let three = mx(mx(mx(zones(), 10, "a.example"), 10, "b.example"), 10, "c.example");
    let world = World::new(three).await;
    // All put it off, so that every try asks all of them.
    for n in 1..=3 {
        let later = common::Script {
            replies: vec![("RCPT", "450 4.2.1 the mailbox is busy")],
            ..common::Script::default()
        };
        world.net.put(&format!("192.0.2.{n}:25"), later);
    }
    let mut first = BTreeSet::new();
    for _ in 0..40 {
        let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
        world
            .until("a deferral", || async {
                world.names(id).await.contains(&"deferred")
            })
            .await;
        let tried = tried(&world, id).await;
        assert_eq!(tried.iter().collect::<BTreeSet<_>>().len(), 3);
        first.insert(tried[0].clone());
    }
    // That one of three is never first in 40 shuffles has a chance of one in three million.
    assert_eq!(first.len(), 3, "{first:?}");
}
