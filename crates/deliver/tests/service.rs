//! The whole service: queue, DNS, servers, reports, journey. Time is tokio's, paused and moved.
#![allow(clippy::unwrap_used)]

mod common;

use common::world::{START, World, domain};
use common::{Script, Server, StartTls, certificates};
use deliver::{Route, RouteFor, ServerName, TlsPolicy};
use dns::table::TableResolver;
use journey::Event;
use mail::Clock;
use queue::ErrandState;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const MX: &str = "192.0.2.1:25";
const MX2: &str = "192.0.2.2:25";

/// example.com with two exchangers, example.net that takes no mail.
fn zones() -> TableResolver {
    TableResolver::new()
        .with_mx("example.com", 10, Some(domain("mx.example.com")))
        .with_mx("example.com", 20, Some(domain("mx2.example.com")))
        .with_address("mx.example.com", Ipv4Addr::new(192, 0, 2, 1))
        .with_address("mx2.example.com", Ipv4Addr::new(192, 0, 2, 2))
        .with_mx("example.net", 0, None)
        .with_timeout("slow.example")
}

fn refusing(part: &'static str, reply: &'static str) -> Script {
    Script {
        replies: vec![(part, reply)],
        ..Script::default()
    }
}

fn set(server: &Arc<Server>, script: Script) {
    *server.script.lock().unwrap() = script;
}

#[tokio::test(start_paused = true)]
async fn relayed_inside_tls_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(zones()).await;
    let script = Script {
        starttls: StartTls::Good(certificates(dir.path()).server_config()),
        ..Script::default()
    };
    let server = world.net.put(MX, script);
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world.until_gone(id).await;
    assert_eq!(server.messages().len(), 1);
    assert!(server.messages()[0].starts_with("Received: by mail.gmail.com\r\nFrom: alice@gmail.com\r\n"));
    let told = world.told(id).await;
    assert_eq!(world.names(id).await, ["route", "attempt", "relayed"]);
    let Event::Route { hosts, .. } = &told[0] else {
        panic!("a route");
    };
    let hosts: Vec<_> = hosts.iter().map(|h| (h.host.as_str(), h.preference)).collect();
    assert_eq!(hosts, [("mx.example.com", 10), ("mx2.example.com", 20)]);
    assert!(matches!(&told[1], Event::Attempt { tls: Some(_), .. }));
    assert!(world.inbox().await.is_empty(), "no report of a success");
}

#[tokio::test(start_paused = true)]
async fn the_second_exchanger_takes_it_when_the_first_is_down() {
    let world = World::new(zones()).await;
    let second = world.net.put(MX2, Script::default());
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world.until_gone(id).await;
    assert_eq!(second.messages().len(), 1);
    assert_eq!(world.names(id).await, ["route", "attempt", "attempt", "relayed"]);
    assert!(
        world.clock.now().since(START) < Duration::from_secs(60),
        "at once"
    );
}

#[tokio::test(start_paused = true)]
async fn down_then_back_then_delivered() {
    let world = World::new(zones()).await;
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world
        .until("a deferral", || async {
            world.names(id).await.contains(&"deferred")
        })
        .await;
    let errand = world.show(id).await.unwrap().errands.remove(0);
    let last = errand.last.unwrap();
    assert!(
        last.reply.contains("connection refused by mx2.example.com"),
        "{}",
        last.reply
    );
    assert_eq!((errand.attempts, errand.delay_told), (1, false));

    let server = world.net.put(MX, Script::default());
    world.until_gone(id).await;
    assert_eq!(server.messages().len(), 1, "once");
    let waited = world.clock.now().since(START).as_secs();
    assert!(
        (270..=400).contains(&waited),
        "about five minutes, not {waited} s"
    );
}

#[tokio::test(start_paused = true)]
async fn refused_for_now_then_taken() {
    let world = World::new(zones()).await;
    let server = world
        .net
        .put(MX, refusing("RCPT", "450 4.7.1 greylisted, come back"));
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world
        .until("a deferral", || async {
            world.names(id).await.contains(&"deferred")
        })
        .await;
    set(&server, Script::default());
    world.until_gone(id).await;
    assert_eq!(server.messages().len(), 1);
    let names = world.names(id).await;
    assert_eq!(
        names,
        [
            "route", "attempt", "attempt", "deferred", "route", "attempt", "relayed"
        ],
        "the second exchanger was asked too; it is down"
    );
    assert!(world.inbox().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn refused_for_good_is_reported_into_the_senders_mailbox() {
    let world = World::new(zones()).await;
    world
        .net
        .put(MX, refusing("RCPT", "550 5.1.1 no user of that name"));
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world.until_gone(id).await;
    let inbox = world.inbox().await;
    let [report] = inbox.as_slice() else {
        panic!("one report, not {}", inbox.len());
    };
    for wanted in [
        "Return-Path: <>\r\n",
        "To: alice@gmail.com\r\n",
        "Content-Type: multipart/report; report-type=delivery-status;",
        "Reporting-MTA: dns; mail.gmail.com\r\n",
        "Final-Recipient: rfc822; bob@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        "Remote-MTA: dns; mx.example.com\r\nDiagnostic-Code: smtp; 550 5.1.1 no user of that name\r\n",
        "In-Reply-To: <1@gmail.com>\r\n",
        "Subject: Hello!\r\n",
        "What helps:",
    ] {
        assert!(report.contains(wanted), "{wanted:?} in\n{report}");
    }
    assert_eq!(world.names(id).await, ["route", "attempt", "bounced", "report"]);
    let told = world.told(id).await;
    let Some(Event::DsnSent {
        report: Some(report), ..
    }) = told.last()
    else {
        panic!("the report's id");
    };
    assert_eq!(world.names(*report).await, ["received", "in the mailbox"]);
    assert_eq!(world.queue.stats().await.unwrap().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn a_report_to_a_sender_elsewhere_goes_through_the_queue() {
    let world = World::new(zones()).await;
    let server = world.net.put(MX, Script::default());
    let id = world.submit("carol@example.com", &["nobody@example.net"]).await;
    world.until_gone(id).await;
    world
        .until("the report", || async {
            world.queue.stats().await.unwrap().messages == 0
        })
        .await;
    assert!(server.said("MAIL FROM:<>") && server.said("RCPT TO:<carol@example.com>"));
    assert!(server.messages()[0].contains("Status: 5.1.10\r\n"));
}

#[tokio::test(start_paused = true)]
async fn failures_that_the_dns_tells() {
    let world = World::new(zones()).await;
    for (to, status, words) in [
        ("bob@example.net", "5.1.10", "null MX"),
        ("bob@nowhere.example", "5.1.2", "does not exist"),
    ] {
        let before = world.inbox().await.len();
        let id = world.submit("alice@gmail.com", &[to]).await;
        world.until_gone(id).await;
        let inbox = world.inbox().await;
        assert_eq!(inbox.len(), before + 1, "{to}");
        let report = inbox.last().unwrap().replace("\r\n ", " ");
        assert!(
            report.contains(&format!("Status: {status}\r\n")) && report.contains(words),
            "{report}"
        );
    }
    // A DNS that does not answer is no reason to bounce.
    let id = world.submit("alice@gmail.com", &["bob@slow.example"]).await;
    world
        .until("a deferral", || async {
            world.names(id).await.contains(&"deferred")
        })
        .await;
    assert_eq!(world.inbox().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_bounce_never_bounces() {
    let world = World::new(zones()).await;
    world.net.put(MX, refusing("RCPT", "550 5.1.1 nobody"));
    let id = world.submit("", &["bob@example.com"]).await;
    world.until_gone(id).await;
    assert_eq!(world.names(id).await, ["route", "attempt", "bounced"]);
    assert!(world.inbox().await.is_empty());
    assert_eq!(world.queue.stats().await.unwrap().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_told_once_and_the_end_too() {
    let world = World::new(zones()).await;
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world.until_gone(id).await;
    let waited = world.clock.now().since(START);
    assert!(waited >= Duration::from_secs(5 * 86_400), "{waited:?}");
    let inbox = world.inbox().await;
    assert_eq!(inbox.len(), 2, "one notice of the delay, one of the end");
    assert!(
        inbox[0].contains("Action: delayed\r\nStatus: 4.4.1\r\n"),
        "{}",
        inbox[0]
    );
    assert!(inbox[0].contains("Will-Retry-Until: Sat, 28 Nov 2026 "));
    assert!(
        inbox[1].contains("Action: failed\r\nStatus: 5.4.1\r\n"),
        "{}",
        inbox[1]
    );
    let names = world.names(id).await;
    assert_eq!(names.iter().filter(|n| **n == "expired").count(), 1);
    assert_eq!(names.iter().filter(|n| **n == "report").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn recipients_of_one_domain_share_a_transaction_and_end_each_for_itself() {
    let world = World::new(zones()).await;
    let server = world.net.put(MX, refusing("RCPT TO:<no@", "550 5.1.1 nobody"));
    let to = [
        "bob@example.com",
        "no@example.com",
        "eve@example.com",
        "alice@gmail.com",
    ];
    let id = world.submit("alice@gmail.com", &to).await;
    world.until_gone(id).await;
    assert_eq!((server.connections(), server.messages().len()), (1, 1));
    let names = world.names(id).await;
    for (what, count) in [
        ("relayed", 2),
        ("bounced", 1),
        ("report", 1),
        ("in the mailbox", 1),
        ("route", 1),
    ] {
        assert_eq!(
            names.iter().filter(|n| **n == what).count(),
            count,
            "{what}: {names:?}"
        );
    }
    let inbox = world.inbox().await;
    assert_eq!(inbox.len(), 2, "the message itself and the report");
    let own = inbox.iter().find(|m| m.contains("Hi Bob")).unwrap();
    assert!(own.starts_with("Return-Path: <alice@gmail.com>\r\nReceived: by mail.gmail.com\r\n"));
}

#[tokio::test(start_paused = true)]
async fn what_a_server_took_is_recorded_before_the_next_is_asked() {
    let mut world = World::new(zones()).await;
    let first = world.net.put(MX, refusing("RCPT TO:<later@", "450 4.2.1 later"));
    let second = world.net.put(
        MX2,
        Script {
            silent_at: Some("MAIL"),
            ..Script::default()
        },
    );
    let to = ["later@example.com", "bob@example.com"];
    let id = world.submit("alice@gmail.com", &to).await;
    world
        .until("the second server is asked", || async { second.said("MAIL") })
        .await;
    assert_eq!(world.names(id).await, ["route", "attempt", "attempt", "relayed"]);

    // So it is not sent again when the attempt is cut off.
    world.stop().await;
    assert_eq!(first.messages().len(), 1);
    let left = world.show(id).await.unwrap();
    let waits = left
        .errands
        .iter()
        .filter(|e| matches!(e.state, ErrandState::Waiting { .. }));
    let waits: Vec<String> = waits.map(|e| e.recipient.to_string()).collect();
    assert_eq!(waits, ["later@example.com"]);
}

#[tokio::test(start_paused = true)]
async fn a_route_in_the_settings_goes_before_the_dns() {
    let smarthost = ServerName::parse("192.0.2.9").unwrap();
    let route = Route::to(RouteFor::Everything, smarthost, 2525, TlsPolicy::Off);
    let world = World::with(zones(), vec![route], |_| {}).await;
    let smarthost = world.net.put("192.0.2.9:2525", Script::default());
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world.until_gone(id).await;
    assert_eq!(smarthost.messages().len(), 1);

    world.ctx.set_routes(Vec::new());
    let direct = world.net.put(MX, Script::default());
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world.until_gone(id).await;
    assert_eq!((smarthost.messages().len(), direct.messages().len()), (1, 1));
}

fn route(pattern: &str, spec: &directory::RouteSpec) -> Route {
    Route::read(pattern, spec, None, deliver::Origin::Store).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_route_discards_and_its_journey_says_so() {
    let discard = directory::RouteSpec {
        discard: true,
        ..directory::RouteSpec::default()
    };
    let world = World::with(zones(), vec![route("example.com", &discard)], |_| {}).await;
    let server = world.net.put(MX, Script::default());
    let to = ["bob@example.com", "eve@example.com"];
    let id = world.submit("alice@gmail.com", &to).await;
    world.until_gone(id).await;
    assert_eq!(server.connections(), 0);
    assert_eq!(world.names(id).await, ["dropped", "dropped"]);
    let told = world.told(id).await;
    assert!(
        matches!(&told[0], Event::Dropped { by, .. } if by == "the route for example.com in the store"),
        "{told:?}"
    );
    assert!(world.inbox().await.is_empty(), "nobody is told");
    let ledger = world.queue.ledger().await.unwrap();
    assert_eq!((ledger.dropped_in_all(), ledger.in_flight), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_route_fails_in_the_operators_words() {
    let fail = |text: &str| directory::RouteSpec {
        fail: Some(text.to_owned()),
        ..directory::RouteSpec::default()
    };
    let gone = route(".example.com", &fail("550 5.1.6 moved to example.net"));
    let world = World::with(zones(), vec![gone], |_| {}).await;
    let id = world.submit("alice@gmail.com", &["bob@old.example.com"]).await;
    world.until_gone(id).await;
    assert_eq!(world.names(id).await, ["route", "bounced", "report"]);
    let report = world.inbox().await.concat();
    assert!(
        report.contains("5.1.6") && report.contains("moved to example.net"),
        "{report}"
    );

    world.ctx.set_routes(vec![route("*", &fail("451 not today"))]);
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world
        .until("the postponement", || async { world.names(id).await.len() > 1 })
        .await;
    assert_eq!(world.names(id).await, ["route", "deferred"]);
}

#[tokio::test(start_paused = true)]
async fn one_slow_domain_does_not_hold_the_others() {
    let zones = zones()
        .with_mx("quick.example", 10, Some(domain("mx.quick.example")))
        .with_address("mx.quick.example", Ipv4Addr::new(192, 0, 2, 7));
    let world = World::with(zones, Vec::new(), |options| {
        options.attempts_max = 4;
        options.attempts_per_domain_max = 2;
    })
    .await;
    let slow = world.net.put(
        MX,
        Script {
            silent_at: Some("MAIL"),
            ..Script::default()
        },
    );
    let quick = world.net.put("192.0.2.7:25", Script::default());
    for _ in 0..6 {
        world.submit("alice@gmail.com", &["bob@example.com"]).await;
    }
    let id = world.submit("alice@gmail.com", &["eve@quick.example"]).await;
    world.until_gone(id).await;
    assert_eq!(quick.messages().len(), 1);
    assert_eq!(slow.connections(), 2, "no more than the limit at a time");
    assert!(world.clock.now().since(START) < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_errands_of_a_slow_domain_do_not_stand_before_another() {
    let zones = zones()
        .with_mx("quick.example", 10, Some(domain("mx.quick.example")))
        .with_address("mx.quick.example", Ipv4Addr::new(192, 0, 2, 7));
    let mut world = World::with(zones, Vec::new(), |_| {}).await;
    world.stop().await;
    let silent = Script {
        silent_at: Some("MAIL"),
        ..Script::default()
    };
    let slow = world.net.put(MX, silent);
    let quick = world.net.put("192.0.2.7:25", Script::default());
    let recipients: Vec<String> = (0..10_000).map(|n| format!("u{n}@example.com")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    for _ in 0..10 {
        world.submit("alice@gmail.com", &recipients).await;
    }
    let behind = world.submit("alice@gmail.com", &["eve@quick.example"]).await;
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let service = tokio::spawn(deliver::run(world.ctx.clone(), stopped));
    let before = world.clock.now();
    world.until_gone(behind).await;
    // While the backlog stands, newcomers and what comes due later get their turn too.
    let newcomer = world.submit("alice@gmail.com", &["eve@quick.example"]).await;
    world.until_gone(newcomer).await;
    assert_eq!(quick.messages().len(), 2);
    assert_eq!(
        slow.connections(),
        2,
        "no more than goes to a site that never answered"
    );
    assert!(world.clock.now().since(before) < Duration::from_secs(10));
    assert_eq!(world.queue.stats().await.unwrap().errands, 100_000);
    service.abort();
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_attempts_end_and_loses_nothing() {
    let mut world = World::new(zones()).await;
    let server = world.net.put(MX, Script::default());
    let mut tried = world.net.tried();
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    tried.wait_for(|n| *n == 1).await.unwrap();
    world.stop().await;
    assert_eq!(server.messages().len(), 1, "what was under way came to its end");
    assert!(world.show(id).await.is_none());

    // One that hangs is cut off, stays queued, and goes out after the next start.
    let mut world = World::new(zones()).await;
    let server = world.net.put(
        MX,
        Script {
            silent_at: Some("MAIL"),
            ..Script::default()
        },
    );
    let mut tried = world.net.tried();
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    tried.wait_for(|n| *n == 1).await.unwrap();
    world.stop().await;
    assert!(world.show(id).await.is_some());
    set(&server, Script::default());
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let again = tokio::spawn(deliver::run(world.ctx.clone(), stopped));
    let before = world.clock.now();
    world.until_gone(id).await;
    assert!(
        world.clock.now().since(before) < Duration::from_secs(60),
        "the lease does not hold it up"
    );
    assert_eq!(server.messages().len(), 1);
    again.abort();
}

#[tokio::test(start_paused = true)]
async fn whoever_moves_the_clock_wakes_the_service() {
    let world = World::new(zones()).await;
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world
        .until("a deferral", || async {
            world.names(id).await.contains(&"deferred")
        })
        .await;
    let server = world.net.put(MX, Script::default());
    let before = tokio::time::Instant::now();
    world.jump(Duration::from_secs(600));
    world.until_gone(id).await;
    assert_eq!(server.messages().len(), 1);
    assert!(before.elapsed() < Duration::from_secs(1), "without waiting");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_for_a_while_does_not_send_anything_twice() {
    let world = World::new(zones()).await;
    let server = world.net.put(MX, refusing("RCPT TO:<no@", "550 5.1.1 nobody"));
    world.moody.refuse_every.store(4, Ordering::Relaxed);
    let to = ["bob@example.com", "no@example.com"];
    let id = world.submit("alice@gmail.com", &to).await;
    world.until_gone(id).await;
    assert_eq!(server.messages().len(), 1, "taken once");
    assert_eq!(world.inbox().await.len(), 1, "reported once");
    let names = world.names(id).await;
    assert_eq!(
        names,
        ["route", "attempt", "attempt", "relayed", "bounced", "report"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_full_for_long_does_not_send_anything_twice() {
    let world = World::new(zones()).await;
    let server = world.net.put(MX, Script::default());
    // From the moment of the attempt on, behind the claim.
    let moody = world.moody.clone();
    let full = move || moody.refuse_every.store(u64::MAX, Ordering::Relaxed);
    *world.net.at_dial.lock().unwrap() = Some(Arc::new(full));
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    tokio::time::sleep(Duration::from_secs(20 * 60)).await;
    assert_eq!(server.messages().len(), 1);
    assert!(world.show(id).await.is_some(), "not recorded yet");
    *world.net.at_dial.lock().unwrap() = None;
    world.moody.refuse_every.store(0, Ordering::Relaxed);
    world.until_gone(id).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(server.messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_drops_during_an_attempt_stays_dropped() {
    let world = World::new(zones()).await;
    let script = Script {
        silent_at: Some("MAIL"),
        ..Script::default()
    };
    world.net.put(MX, script);
    let mut tried = world.net.tried();
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    tried.wait_for(|n| *n == 1).await.unwrap();
    let now = world.clock.now();
    world.queue.drop(id, "operator", now, &|_, _| {}).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(world.show(id).await.is_none());
    assert!(
        world.inbox().await.is_empty(),
        "nobody is told of what was dropped"
    );
    assert!(!world.names(id).await.contains(&"deferred"));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_messages_each_arrive_once() {
    let world = World::with(zones(), Vec::new(), |options| {
        options.attempts_max = 8;
        options.attempts_per_domain_max = 3;
    })
    .await;
    let server = world.net.put(MX, Script::default());
    let mut ids = Vec::new();
    for _ in 0..1_100 {
        ids.push(world.submit("alice@gmail.com", &["bob@example.com"]).await);
    }
    world
        .until("an empty queue", || async {
            world.queue.stats().await.unwrap().messages == 0
        })
        .await;
    assert_eq!(server.messages().len(), ids.len());
    for id in ids {
        assert_eq!(world.names(id).await, ["route", "attempt", "relayed"]);
    }
}

#[tokio::test]
async fn connections_by_tcp_come_from_the_wanted_address() {
    use deliver::{Dialer, TcpDialer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let dialer = TcpDialer {
        sources: vec!["::1".parse().unwrap(), "127.0.0.9".parse().unwrap()],
    };
    let (dialed, accepted) = tokio::join!(dialer.dial(to), listener.accept());
    let (mut theirs, peer) = accepted.unwrap();
    assert_eq!(
        peer.ip().to_string(),
        "127.0.0.9",
        "the source of the right family"
    );
    theirs.write_all(b"220").await.unwrap();
    let mut ours = dialed.unwrap();
    let mut got = [0u8; 3];
    ours.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"220");
    drop(listener);
    assert!(dialer.dial(to).await.is_err());
}
