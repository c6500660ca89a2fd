//! Hosts with several addresses: who is dialled when, on the paused clock.
#![allow(clippy::unwrap_used)]

mod common;

use common::Script;
use common::stage::{Stage, fates, tries};
use deliver::ServerName;
use deliver::plan::Hop;
use deliver::race::{REMEMBERED, STAGGER};
use std::time::Duration;
use tokio::time::{Instant, advance};

const V6: &str = "[2001:db8::1]:25";
const V4: &str = "192.0.2.1:25";
const NEXT: &str = "192.0.2.2:25";

/// `mx.example.com` with IPv6 before IPv4, and behind it `mx2.example.com`.
async fn stage() -> Stage {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    let hop = |host, address: &str, preference| Hop {
        host: ServerName::parse(host).unwrap(),
        address: address.parse().unwrap(),
        preference: Some(preference),
    };
    stage.plan.hops = vec![
        hop("mx.example.com", V6, 10),
        hop("mx.example.com", V4, 10),
        hop("mx2.example.com", NEXT, 20),
    ];
    stage
}

fn black_hole(stage: &Stage, address: &str) {
    stage
        .net
        .black_holes
        .lock()
        .unwrap()
        .push(address.parse().unwrap());
}

fn dialled(stage: &Stage) -> usize {
    *stage.net.tried().borrow()
}

#[tokio::test(start_paused = true)]
async fn a_dead_family_costs_a_quarter_of_a_second_and_is_remembered() {
    let stage = stage().await;
    black_hole(&stage, V6);
    stage.net.put(V4, Script::default());
    let began = Instant::now();
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["taken"]);
    assert_eq!(began.elapsed(), STAGGER);
    assert_eq!(tries(&attempted), ["mx.example.com clear accepted 250"]);
    assert_eq!(dialled(&stage), 2);

    // The next attempt goes to the other family at once, and leaves this one alone.
    let began = Instant::now();
    assert_eq!(fates(&stage.attempt().await), ["taken"]);
    assert_eq!((began.elapsed(), dialled(&stage)), (Duration::ZERO, 3));

    // After some minutes it gets another chance.
    advance(REMEMBERED).await;
    let began = Instant::now();
    assert_eq!(fates(&stage.attempt().await), ["taken"]);
    assert_eq!((began.elapsed(), dialled(&stage)), (STAGGER, 5));
}

#[tokio::test(start_paused = true)]
async fn the_first_family_is_spoken_to_when_it_answers() {
    let stage = stage().await;
    let v6 = stage.net.put(V6, Script::default());
    let v4 = stage.net.put(V4, Script::default());
    assert_eq!(fates(&stage.attempt().await), ["taken"]);
    assert_eq!((v6.connections(), v4.connections(), dialled(&stage)), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_the_next_address_is_dialled_at_once() {
    let stage = stage().await;
    stage.net.put(V4, Script::default());
    let began = Instant::now();
    let attempted = stage.attempt().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(
        tries(&attempted),
        [
            "mx.example.com clear failed at connect",
            "mx.example.com clear accepted 250"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn hosts_do_not_race() {
    let stage = stage().await;
    black_hole(&stage, V6);
    black_hole(&stage, V4);
    stage.net.put(NEXT, Script::default());
    let began = Instant::now();
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["taken"]);
    let within = stage.courier.options.connect_timeout;
    assert_eq!(began.elapsed(), within + STAGGER, "both addresses had their time");
    assert_eq!(
        tries(&attempted),
        [
            "mx.example.com clear failed at connect",
            "mx.example.com clear failed at connect",
            "mx2.example.com clear accepted 250"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_address_that_lost_is_not_waited_for_when_the_winner_says_later() {
    let mut stage = stage().await;
    stage.plan.hops.pop();
    black_hole(&stage, V6);
    let later = Script {
        replies: vec![("RCPT", "451 4.7.1 greylisted")],
        ..Script::default()
    };
    stage.net.put(V4, later);
    let began = Instant::now();
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["4.7.1"]);
    assert_eq!(began.elapsed(), STAGGER);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_was_not_dialled_is_tried_after_the_winner_says_later() {
    let stage = stage().await;
    let later = Script {
        replies: vec![("RCPT", "451 4.7.1 greylisted")],
        ..Script::default()
    };
    stage.net.put(V6, later);
    let v4 = stage.net.put(V4, Script::default());
    assert_eq!(fates(&stage.attempt().await), ["taken"]);
    assert_eq!(v4.messages().len(), 1);
}

/// Who lost the race is tried all the same when the winner breaks before it has its say: it may be the one
/// that works.
#[tokio::test(start_paused = true)]
async fn an_address_that_lost_is_tried_when_the_winner_breaks() {
    for greeting in ["421 4.3.2 not here", "554 5.7.1 not from you", "hello?"] {
        let mut stage = stage().await;
        stage.plan.hops.pop();
        black_hole(&stage, V6);
        stage.net.put(
            V4,
            Script {
                greeting,
                ..Script::default()
            },
        );
        let v6 = stage.net.put(V6, Script::default());
        // It answers from the second time on.
        let net = std::sync::Arc::downgrade(&stage.net);
        let dialled = std::sync::atomic::AtomicUsize::new(0);
        let hook = move || {
            if dialled.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 2 {
                net.upgrade().unwrap().black_holes.lock().unwrap().clear();
            }
        };
        *stage.net.at_dial.lock().unwrap() = Some(std::sync::Arc::new(hook));
        let attempted = stage.attempt().await;
        assert_eq!(fates(&attempted), ["taken"], "{:?}", tries(&attempted));
        assert_eq!(v6.messages().len(), 1);
    }
}
