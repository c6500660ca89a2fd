//! Connections that carry several messages: when one is kept, for whom, and when it is not.
#![allow(clippy::unwrap_used)]

mod common;

use common::stage::{FIRST, SECOND, Stage, fates, tries};
use common::world::{World, domain};
use common::{Script, StartTls};
use deliver::pool::{Keep, Pool};
use deliver::{Login, TlsPolicy};
use dns::table::TableResolver;
use mail::Secret;
use std::net::Ipv4Addr;
use std::time::Duration;

async fn stage() -> Stage {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    stage.courier.pool = Pool::new(Keep::default());
    stage
}

#[tokio::test(start_paused = true)]
async fn messages_share_a_connection_and_then_quit() {
    let stage = stage().await;
    let server = stage.net.put(FIRST, Script::default());
    for _ in 0..3 {
        assert_eq!(fates(&stage.attempt().await), ["taken"]);
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    assert_eq!((server.connections(), server.messages().len()), (1, 3));
    assert!(!server.said("RSET") && !server.said("QUIT"));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(
        server.said("QUIT") && stage.courier.pool.is_empty(),
        "idle for too long"
    );
    assert_eq!(fates(&stage.attempt().await), ["taken"]);
    assert_eq!(server.connections(), 2);
    stage.courier.pool.clear();
    assert!(stage.courier.pool.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_connection_carries_only_so_many_and_only_so_long() {
    let mut stage = stage().await;
    let server = stage.net.put(FIRST, Script::default());
    stage.courier.pool = Pool::new(Keep {
        messages_max: 2,
        ..Keep::default()
    });
    for _ in 0..4 {
        stage.attempt().await;
    }
    assert_eq!((server.connections(), server.messages().len()), (2, 4));
    stage.courier.pool = Pool::new(Keep {
        age_max: Duration::from_secs(10),
        ..Keep::default()
    });
    for _ in 0..6 {
        stage.attempt().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    assert_eq!((server.connections(), server.messages().len()), (4, 10));
    stage.courier.pool = Pool::new(Keep {
        idle_connections_max: 0,
        ..Keep::default()
    });
    stage.attempt().await;
    assert!(stage.courier.pool.is_empty());
}

/// The server may close what waits, or answer MAIL by closing: the message goes over a new connection,
/// and nothing of it is told as a failure.
#[tokio::test(start_paused = true)]
async fn a_kept_connection_that_is_of_no_use_is_no_failure() {
    let closing = Script {
        hangs_up_after: Some(1),
        ..Script::default()
    };
    let tired = Script {
        second_mail: Some("421 4.7.0 enough from you"),
        ..Script::default()
    };
    for script in [closing, tired] {
        let stage = stage().await;
        let server = stage.net.put(FIRST, script);
        for _ in 0..3 {
            let attempted = stage.attempt().await;
            assert_eq!(tries(&attempted), ["mx.example.com clear accepted 250"]);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!((server.connections(), server.messages().len()), (3, 3));
    }
    // A new connection that says so has said so.
    let mut stage = stage().await;
    let refusing = Script {
        replies: vec![("MAIL", "421 4.7.0 not now")],
        ..Script::default()
    };
    stage.net.put(FIRST, refusing);
    stage.net.put(SECOND, Script::default());
    stage.plan.hops.truncate(1);
    assert_eq!(fates(&stage.attempt().await), ["4.7.0"]);
}

/// What was refused leaves the connection as good as it was; what broke does not.
#[tokio::test(start_paused = true)]
async fn after_a_refusal_it_is_kept_and_after_a_break_it_is_not() {
    for (script, kept) in [
        (("RCPT", "550 5.1.1 nobody"), 1),
        (("DATA", "451 4.3.0 disk"), 1),
        (("MAIL", "550 5.7.1 not you"), 1),
        (("RSET", "500 5.5.1 what"), 1),
        (("DATA", "250 2.0.0 what"), 0),
    ] {
        let stage = stage().await;
        stage.net.put(
            FIRST,
            Script {
                replies: vec![script],
                ..Script::default()
            },
        );
        stage.attempt().await;
        assert_eq!(stage.courier.pool.len(), kept, "{script:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_same_terms_share() {
    let mut stage = stage().await;
    let roots = tls::Roots::public()
        .with_file(&stage.dir.path().join("certificate.pem"))
        .unwrap();
    stage.courier.tls = tls::Client::new(&roots).unwrap();
    let script = Script {
        starttls: StartTls::Good(stage.certificates.server_config()),
        ehlo: vec!["PIPELINING", "AUTH PLAIN"],
        replies: vec![("AUTH PLAIN", "235 2.7.0 welcome")],
        ..Script::default()
    };
    let server = stage.net.put(FIRST, script);
    let login = |user: &str, password: &str| Login {
        user: user.to_owned(),
        password: Secret::new(password),
    };
    let terms = [
        (TlsPolicy::Opportunistic, "mail.gmail.com", None),
        (TlsPolicy::Required, "mail.gmail.com", None),
        (TlsPolicy::Off, "mail.gmail.com", None),
        (TlsPolicy::Off, "other.gmail.com", None),
        (TlsPolicy::Required, "mail.gmail.com", Some(login("alice", "one"))),
        (TlsPolicy::Required, "mail.gmail.com", Some(login("alice", "two"))),
        (TlsPolicy::Required, "mail.gmail.com", Some(login("bob", "two"))),
    ];
    let count = terms.len();
    for round in 1..=2 {
        for (tls, helo, login) in terms.clone() {
            (stage.plan.tls, stage.plan.login) = (tls, login);
            stage.courier.options.helo = helo.to_owned();
            assert_eq!(fates(&stage.attempt().await), ["taken"]);
        }
        assert_eq!(server.connections(), count, "round {round}");
        assert_eq!(stage.courier.pool.len(), count);
    }
    assert_eq!(server.messages().len(), 2 * count);
}

/// Of exchangers that are equally preferred the one with a kept connection goes first.
#[tokio::test(start_paused = true)]
async fn a_kept_connection_goes_before_an_equal_exchanger() {
    let mut stage = stage().await;
    let first = stage.net.put(FIRST, Script::default());
    let second = stage.net.put(SECOND, Script::default());
    stage.attempt().await;
    stage.plan.hops.reverse();
    stage.attempt().await;
    assert_eq!((first.messages().len(), second.messages().len()), (2, 0));
    stage.plan.hops[0].preference = Some(5);
    stage.attempt().await;
    assert_eq!((first.messages().len(), second.messages().len()), (2, 1));
}

/// The whole service: a hundred messages for one domain need no more connections than go at a time.
#[tokio::test(start_paused = true)]
async fn the_next_due_message_takes_the_connection_at_once() {
    let zones = TableResolver::new()
        .with_mx("example.com", 10, Some(domain("mx.example.com")))
        .with_address("mx.example.com", Ipv4Addr::new(192, 0, 2, 1));
    let mut world = World::with(zones, Vec::new(), |options| options.attempts_per_domain_max = 2).await;
    let server = world.net.put(FIRST, Script::default());
    for _ in 0..100 {
        world.submit("alice@gmail.com", &["bob@example.com"]).await;
    }
    world
        .until("an empty queue", || async {
            world.queue.stats().await.unwrap().messages == 0
        })
        .await;
    assert_eq!(server.messages().len(), 100);
    assert!(server.connections() <= 2, "{} connections", server.connections());
    world.stop().await;
    world
        .until("the farewell", || async { server.said("QUIT") })
        .await;
}

/// A connection counts once for the TLS reports, however many messages it carries.
#[tokio::test(start_paused = true)]
async fn tls_is_counted_once_for_a_connection() {
    let stage = stage().await;
    let script = Script {
        starttls: stage.tls(),
        ..Script::default()
    };
    let server = stage.net.put(FIRST, script);
    for wanted in [1, 0, 0] {
        let mut under_way = stage.courier.begin(&stage.plan, &stage.letter);
        while under_way.next().await.is_some() {}
        assert_eq!(under_way.take_tls_results().len(), wanted);
    }
    assert_eq!((server.connections(), server.messages().len()), (1, 3));
}

/// A kept connection that broke before a chunk left says nothing about BDAT.
#[tokio::test(start_paused = true)]
async fn a_stale_connection_does_not_switch_chunking_off() {
    let stage = stage().await;
    let script = Script {
        ehlo: vec!["PIPELINING", "CHUNKING"],
        second_mail: Some("no reply at all"),
        ..Script::default()
    };
    let server = stage.net.put(FIRST, script);
    for _ in 0..3 {
        assert_eq!(fates(&stage.attempt().await), ["taken"]);
    }
    assert_eq!((server.connections(), server.messages().len()), (3, 3));
    assert!(!server.said("DATA"), "{:?}", server.lines.lock().unwrap());
}
