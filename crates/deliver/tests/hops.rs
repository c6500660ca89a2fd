//! Which hops of a plan are tried for whom, against scripted servers.
#![allow(clippy::unwrap_used)]

mod common;

use common::stage::{FIRST, SECOND, Stage, fates, tries};
use common::{Script, Server, StartTls};
use deliver::TlsPolicy;
use deliver::plan::Hop;
use std::sync::Arc;

/// Which hop is tried next, and what it comes to when all fail.
#[tokio::test(start_paused = true)]
async fn the_next_hop_and_what_follows_from_all() {
    let good = Script::default;
    let greets = |greeting| Script { greeting, ..good() };
    let hangs_up = |at| Script {
        hangs_up_at: Some(at),
        ..good()
    };
    let silent = |at| Script {
        silent_at: Some(at),
        ..good()
    };
    let ends = |end| Script { end, ..good() };
    let replies = |part, reply| Script {
        replies: vec![(part, reply)],
        ..good()
    };
    for (what, first, second, fate, second_tried) in [
        ("refused connection", None, Some(good()), "taken", true),
        (
            "4xx greeting",
            Some(greets("421 busy")),
            Some(good()),
            "taken",
            true,
        ),
        (
            "5xx greeting",
            Some(greets("554 no")),
            Some(good()),
            "taken",
            true,
        ),
        (
            "EHLO and HELO refused",
            Some(replies("LO ", "502 no")),
            Some(good()),
            "taken",
            true,
        ),
        (
            "421 to MAIL",
            Some(replies("MAIL", "421 4.3.2 closing")),
            Some(good()),
            "taken",
            true,
        ),
        (
            "hangs up at MAIL",
            Some(hangs_up("MAIL")),
            Some(good()),
            "taken",
            true,
        ),
        (
            "silent at EHLO",
            Some(silent("EHLO")),
            Some(good()),
            "taken",
            true,
        ),
        (
            "4xx to MAIL",
            Some(replies("MAIL", "451 4.7.1 later")),
            Some(good()),
            "taken",
            true,
        ),
        (
            "4xx to RCPT",
            Some(replies("RCPT", "450 4.2.0 greylisted")),
            Some(good()),
            "taken",
            true,
        ),
        (
            "4xx to DATA",
            Some(replies("DATA", "451 4.3.0 disk")),
            Some(good()),
            "taken",
            true,
        ),
        (
            "4xx everywhere",
            Some(replies("RCPT", "450 4.2.0 greylisted")),
            Some(replies("RCPT", "451 4.3.0 disk")),
            "4.2.0",
            true,
        ),
        (
            "4xx, then 5xx before MAIL",
            Some(replies("RCPT", "450 4.2.0 greylisted")),
            Some(greets("554 5.7.1 listed")),
            "4.2.0",
            true,
        ),
        (
            "5xx to MAIL",
            Some(replies("MAIL", "550 5.7.1 spam")),
            Some(good()),
            "5.7.1",
            false,
        ),
        (
            "5xx to DATA",
            Some(replies("DATA", "554 5.6.0 no")),
            Some(good()),
            "5.6.0",
            false,
        ),
        (
            "5xx to the message",
            Some(ends("554 5.7.26 DMARC")),
            Some(good()),
            "5.7.26",
            false,
        ),
        (
            "4xx without a status",
            Some(ends("452 full")),
            None,
            "4.3.1",
            true,
        ),
        (
            "4xx to the message",
            Some(ends("452 full")),
            Some(good()),
            "taken",
            true,
        ),
        (
            "lost after the message",
            Some(hangs_up(".")),
            Some(good()),
            "4.4.2",
            false,
        ),
        ("all refuse the connection", None, None, "4.4.1", true),
        (
            "all greet with 5xx",
            Some(greets("554 5.7.1 listed")),
            Some(greets("554 5.7.1 listed")),
            "5.7.1",
            true,
        ),
        (
            "one greets with 5xx, one is down",
            Some(greets("554 5.7.1 listed")),
            None,
            "4.4.1",
            true,
        ),
        (
            "no reply at all",
            Some(greets("hello there")),
            None,
            "4.4.1",
            true,
        ),
    ] {
        let stage = Stage::new(&["bob@example.com"]).await;
        let _first: Option<Arc<Server>> = first.map(|script| stage.net.put(FIRST, script));
        let second = second.map(|script| stage.net.put(SECOND, script));
        let attempted = stage.attempt().await;
        assert_eq!(fates(&attempted), [fate], "{what}: {:?}", tries(&attempted));
        let tried = tries(&attempted).iter().any(|t| t.starts_with("mx2"));
        assert_eq!(tried, second_tried, "{what}");
        if let Some(second) = second {
            let got = second.messages().len();
            assert_eq!(got, usize::from(fate == "taken"), "{what}");
        }
    }
}

/// Three recipients; the first exchanger puts the last one off at RCPT, so that it alone goes on.
#[tokio::test(start_paused = true)]
async fn only_who_was_put_off_goes_on_to_the_next_hop() {
    let recipients = ["bob@example.com", "no@example.com", "later@example.com"];
    let first = |end, hangs_up_at| Script {
        replies: vec![
            ("RCPT TO:<no@", "550 5.1.1 no"),
            ("RCPT TO:<later@", "450 4.2.1 later"),
        ],
        end,
        hangs_up_at,
        ..Script::default()
    };
    let second = |reply| Script {
        replies: vec![("RCPT", reply)],
        ..Script::default()
    };
    let (taken, ok) = ("250 2.0.0 taken", "250 2.1.5 ok");
    for (what, first, second, wanted, sent) in [
        (
            "taken",
            first(taken, None),
            Some(second(ok)),
            ["taken", "5.1.1", "taken"],
            "later",
        ),
        (
            "refused for good",
            first(taken, None),
            Some(second("550 5.1.1 nobody")),
            ["taken", "5.1.1", "5.1.1"],
            "",
        ),
        (
            "no second server: the first one's words stay",
            first(taken, None),
            None,
            ["taken", "5.1.1", "4.2.1"],
            "",
        ),
        (
            "4xx to the message",
            first("451 4.3.0 disk", None),
            Some(second(ok)),
            ["taken", "5.1.1", "taken"],
            "bob later",
        ),
        (
            "lost behind the end mark: who may have it is not sent to again",
            first(taken, Some(".")),
            Some(second(ok)),
            ["4.4.2", "5.1.1", "taken"],
            "later",
        ),
    ] {
        let stage = Stage::new(&recipients).await;
        stage.net.put(FIRST, first);
        let second = second.map(|script| stage.net.put(SECOND, script));
        let attempted = stage.attempt().await;
        assert_eq!(fates(&attempted), wanted, "{what}: {:?}", tries(&attempted));
        if let Some(second) = second {
            let asked = if sent.is_empty() { "later" } else { sent };
            for recipient in ["bob", "no", "later"] {
                let here = second.said(&format!("RCPT TO:<{recipient}@"));
                assert_eq!(here, asked.contains(recipient), "{what}: {recipient}");
            }
            assert_eq!(second.messages().len(), usize::from(!sent.is_empty()), "{what}");
        }
    }
}

/// Six exchangers put everything off, one of them is down: how many are asked.
#[tokio::test(start_paused = true)]
async fn hops_after_a_deferral_are_bounded() {
    for (hops_after_deferral_max, wanted) in [(0, "1"), (1, "13"), (2, "134"), (9, "13456")] {
        let mut stage = Stage::new(&["bob@example.com"]).await;
        stage.courier.options.hops_after_deferral_max = hops_after_deferral_max;
        let hop = stage.plan.hops[0].clone();
        stage.plan.hops.clear();
        let mut servers = Vec::new();
        for n in 1..=6 {
            let at = format!("192.0.2.{n}:25");
            stage.plan.hops.push(Hop {
                address: at.parse().unwrap(),
                ..hop.clone()
            });
            if n != 2 {
                let later = Script {
                    replies: vec![("MAIL", "451 4.7.1 later")],
                    ..Script::default()
                };
                servers.push((n, stage.net.put(&at, later)));
            }
        }
        let attempted = stage.attempt().await;
        assert_eq!(fates(&attempted), ["4.7.1"], "{:?}", tries(&attempted));
        let asked = servers.iter().filter(|(_, server)| server.said("MAIL"));
        let asked: String = asked.map(|(n, _)| n.to_string()).collect();
        assert_eq!(asked, wanted, "{hops_after_deferral_max} {:?}", attempted.events);
    }
}

/// One server whose STARTTLS is broken and that knows no BDAT although it offers it: one attempt finds the
/// way that is left.
#[tokio::test(start_paused = true)]
async fn in_clear_and_by_data_in_one_attempt() {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    stage.plan.hops.truncate(1);
    let script = Script {
        ehlo: vec!["PIPELINING", "CHUNKING"],
        starttls: StartTls::Broken,
        replies: vec![("BDAT", "502 5.5.1 what")],
        ..Script::default()
    };
    let server = stage.net.put(FIRST, script);
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["taken"], "{:?}", tries(&attempted));
    assert_eq!((server.connections(), server.messages().len()), (3, 1));
}

/// Where TLS is a must, a server that knows no EHLO lacks it: the mail waits, it does not come back.
#[tokio::test(start_paused = true)]
async fn without_ehlo_there_is_no_tls_and_no_bounce() {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    stage.plan.tls = TlsPolicy::Encrypted;
    for reply in ["500 what", "502 5.5.1 not implemented"] {
        for at in [FIRST, SECOND] {
            let old = Script {
                replies: vec![("EHLO", reply)],
                ..Script::default()
            };
            stage.net.put(at, old);
        }
        let attempted = stage.attempt().await;
        assert_eq!(fates(&attempted), ["4.7.10"], "{:?}", tries(&attempted));
    }
}

/// Two names of one machine: its certificate is for the second. The first fails, the second does not.
#[tokio::test(start_paused = true)]
async fn a_machine_that_fails_under_one_name_is_tried_under_the_other() {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    let roots = tls::Roots::public()
        .with_file(&stage.dir.path().join("certificate.pem"))
        .unwrap();
    stage.courier.tls = tls::Client::new(&roots).unwrap();
    stage.plan.tls = TlsPolicy::Required;
    stage.plan.hops[1].address = stage.plan.hops[0].address;
    stage.plan.hops.reverse();
    let script = Script {
        starttls: stage.tls(),
        ..Script::default()
    };
    let server = stage.net.put(FIRST, script.clone());
    let attempted = stage.attempt().await;
    assert_eq!(
        tries(&attempted),
        [
            "mx2.example.com clear failed at TLS handshake",
            "mx.example.com TLS accepted 250"
        ]
    );
    // What is not its name's fault is not better under another one.
    let greeting = "421 4.3.2 not now";
    *server.script.lock().unwrap() = Script { greeting, ..script };
    let attempted = stage.attempt().await;
    assert_eq!(tries(&attempted).len(), 1, "{:?}", tries(&attempted));
}
