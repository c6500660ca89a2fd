//! One attempt against scripted servers: who is tried, what is concluded, what is told.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Net, Script, Server, StartTls, certificates, put_blob};
use deliver::attempt::{Attempted, Courier, Letter, Options};
use deliver::plan::{By, Hop, Plan};
use deliver::{Login, ServerName, TlsPolicy};
use journey::{AttemptOutcome, Event};
use mail::{EmailAddress, ReversePath, Secret};
use std::sync::Arc;
use store::MemoryStore;

const TEXT: &str = "From: alice@gmail.com\r\nSubject: Hello!\r\n\r\nHi Bob,\r\n.how are you?\r\n";
const FIRST: &str = "192.0.2.1:25";
const SECOND: &str = "192.0.2.2:25";

struct Stage {
    net: Arc<Net>,
    courier: Courier,
    plan: Plan,
    letter: Letter,
    _dir: tempfile::TempDir,
    certificates: tls::Certificates,
}

impl Stage {
    async fn new(recipients: &[&str]) -> Self {
        let net = Arc::new(Net::default());
        let store = MemoryStore::new();
        let (blob, blob_len) = put_blob(&store, TEXT).await;
        let dir = tempfile::tempdir().unwrap();
        let address = |text: &&str| EmailAddress::parse(text).unwrap();
        Self {
            certificates: certificates(dir.path()),
            courier: Courier {
                dialer: net.clone(),
                tls: tls::Client::new(&tls::Roots::public()).unwrap(),
                store,
                tap: None,
                options: Options::new("mail.gmail.com"),
            },
            net,
            plan: Plan {
                by: By::Mx,
                hops: [("mx.example.com", FIRST), ("mx2.example.com", SECOND)]
                    .map(|(host, at)| Hop {
                        host: ServerName::parse(host).unwrap(),
                        address: at.parse().unwrap(),
                        preference: Some(10),
                    })
                    .into(),
                tls: TlsPolicy::Opportunistic,
                login: None,
                notes: Vec::new(),
            },
            letter: Letter {
                name: "test".to_owned(),
                sender: ReversePath::Address(address(&"alice@gmail.com")),
                recipients: recipients.iter().map(address).collect(),
                prefix: b"Received: by us\r\n".to_vec(),
                blob,
                blob_len,
                eight_bit: false,
                smtputf8: false,
            },
            _dir: dir,
        }
    }

    async fn attempt(&self) -> Attempted {
        self.courier.attempt(&self.plan, &self.letter).await
    }

    fn tls(&self) -> StartTls {
        StartTls::Good(self.certificates.server_config())
    }
}

/// The fates in short: `taken`, or the status.
fn fates(attempted: &Attempted) -> Vec<String> {
    let short = |fate: &deliver::attempt::Fate| match fate {
        Ok(_) => "taken".to_owned(),
        Err(failure) => failure.status.to_string(),
    };
    attempted.fates.iter().map(short).collect()
}

/// What was tried, in short: host, whether there was TLS, and the outcome.
fn tries(attempted: &Attempted) -> Vec<String> {
    let short = |event: &Event| match event {
        Event::Attempt {
            host, tls, outcome, ..
        } => {
            let outcome = match outcome {
                AttemptOutcome::Accepted { reply } => format!("accepted {}", reply.code),
                AttemptOutcome::Refused { stage, reply } => format!("{stage} {}", reply.code),
                AttemptOutcome::Failed { stage, .. } => format!("failed at {stage}"),
                AttemptOutcome::Unknown => "unknown".to_owned(),
            };
            let tls = if tls.is_some() { "TLS" } else { "clear" };
            format!("{host} {tls} {outcome}")
        }
        other => format!("{other:?}"),
    };
    attempted.events.iter().map(short).collect()
}

#[tokio::test(start_paused = true)]
async fn delivered_inside_tls_with_a_certificate_that_nobody_knows() {
    let stage = Stage::new(&["bob@example.com"]).await;
    let server = stage.net.put(
        FIRST,
        Script {
            starttls: stage.tls(),
            ..Script::default()
        },
    );
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["taken"]);
    assert_eq!(tries(&attempted), ["mx.example.com TLS accepted 250"]);
    let Event::Attempt { tls: Some(tls), .. } = &attempted.events[0] else {
        panic!("an attempt with TLS");
    };
    assert_eq!((tls.version.as_str(), tls.verified.as_deref()), ("TLSv1.3", None));
    let wire = format!("Received: by us\r\n{}", TEXT.replace("\r\n.how", "\r\n..how"));
    assert_eq!(server.messages(), [wire]);
    assert!(server.said("MAIL FROM:<alice@gmail.com> SIZE=") && server.said("EHLO mail.gmail.com"));
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_fails_is_followed_by_an_attempt_in_clear() {
    let stage = Stage::new(&["bob@example.com"]).await;
    let server = stage.net.put(
        FIRST,
        Script {
            starttls: StartTls::Broken,
            ..Script::default()
        },
    );
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["taken"]);
    assert_eq!(
        tries(&attempted),
        [
            "mx.example.com clear failed at TLS handshake",
            "mx.example.com clear accepted 250"
        ]
    );
    assert_eq!((server.connections(), server.messages().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn where_tls_is_required_nothing_goes_without_a_verified_certificate() {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    stage.plan.tls = TlsPolicy::Required;
    let unverified = Script {
        starttls: stage.tls(),
        ..Script::default()
    };
    let first = stage.net.put(FIRST, unverified);
    let second = stage.net.put(SECOND, Script::default());
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["4.7.10"]);
    assert_eq!(
        tries(&attempted),
        [
            "mx.example.com clear failed at TLS handshake",
            "mx2.example.com clear failed at EHLO"
        ]
    );
    assert!(!first.said("MAIL") && !second.said("MAIL"));

    // With its authority known, it goes.
    let roots = tls::Roots::public()
        .with_file(&stage._dir.path().join("certificate.pem"))
        .unwrap();
    stage.courier.tls = tls::Client::new(&roots).unwrap();
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["taken"]);
    let Event::Attempt { tls: Some(tls), .. } = &attempted.events[0] else {
        panic!("an attempt with TLS");
    };
    assert_eq!(tls.verified.as_deref(), Some("WebPKI"));
}

#[tokio::test(start_paused = true)]
async fn each_recipient_has_its_own_fate() {
    let stage = Stage::new(&["bob@example.com", "no@example.com", "later@example.com"]).await;
    let server = stage.net.put(
        FIRST,
        Script {
            replies: vec![
                ("RCPT TO:<no@", "550 5.1.1 nobody of that name"),
                ("RCPT TO:<later@", "450 4.2.1 greylisted"),
            ],
            ..Script::default()
        },
    );
    let second = stage.net.put(SECOND, Script::default());
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["taken", "5.1.1", "4.2.1"]);
    let failure = attempted.fates[1].as_ref().unwrap_err();
    assert_eq!(
        failure.to_string(),
        "mx.example.com said: 550 5.1.1 nobody of that name"
    );
    assert_eq!(
        tries(&attempted),
        [
            "mx.example.com clear accepted 250",
            "mx.example.com clear RCPT TO 550",
            "mx.example.com clear RCPT TO 450"
        ]
    );
    assert_eq!(
        (server.messages().len(), second.connections()),
        (1, 0),
        "a server that answers has answered"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_of_a_talkative_server_is_bounded() {
    let stage = Stage::new(&["bob@example.com"]).await;
    let line = "z".repeat(3_000);
    let long = format!("550-{line}\r\n").repeat(100) + "550 " + &line;
    let script = Script {
        replies: vec![("RCPT TO:", String::leak(long))],
        ..Script::default()
    };
    stage.net.put(FIRST, script);
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["5.2.0"]);
    let failure = attempted.fates[0].as_ref().unwrap_err();
    assert_eq!(failure.words.len(), queue::REPLY_OCTETS_MAX);
    assert!(format!("{:?}", attempted.events).len() < 3_000);
}

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
            "4.7.1",
            false,
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
            Some(good()),
            "4.3.1",
            false,
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

#[tokio::test(start_paused = true)]
async fn what_a_server_cannot_carry() {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    let small = Script {
        ehlo: vec!["SIZE 10"],
        ..Script::default()
    };
    let first = stage.net.put(FIRST, small.clone());
    stage.net.put(SECOND, small);
    assert_eq!(fates(&stage.attempt().await), ["5.3.4"]);
    stage.letter.smtputf8 = true;
    assert_eq!(fates(&stage.attempt().await), ["5.6.7"]);
    assert!(!first.said("MAIL"));

    // A body beyond ASCII goes to a server without 8BITMIME as it is.
    stage.letter.smtputf8 = false;
    stage.letter.eight_bit = true;
    let old = stage.net.put(
        FIRST,
        Script {
            ehlo: vec![],
            ..Script::default()
        },
    );
    assert_eq!(fates(&stage.attempt().await), ["taken"]);
    assert!(!old.said("BODY=8BITMIME"));
    let new = stage.net.put(FIRST, Script::default());
    assert_eq!(fates(&stage.attempt().await), ["taken"]);
    assert!(new.said("BODY=8BITMIME"));
}

#[tokio::test(start_paused = true)]
async fn a_password_goes_only_to_a_server_that_proved_its_name() {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    stage.plan.hops.truncate(1);
    stage.plan.login = Some(Login {
        user: "us".to_owned(),
        password: Secret::new("secret"),
    });
    let mut script = Script {
        ehlo: vec!["AUTH PLAIN"],
        ..Script::default()
    };
    let server = stage.net.put(FIRST, script.clone());
    assert_eq!(fates(&stage.attempt().await), ["4.7.10"], "no TLS");
    script.starttls = stage.tls();
    let unproved = stage.net.put(FIRST, script.clone());
    assert_eq!(fates(&stage.attempt().await), ["4.7.5"], "an unknown certificate");
    assert!(!server.said("AUTH") && !unproved.said("AUTH"));

    let roots = tls::Roots::public()
        .with_file(&stage._dir.path().join("certificate.pem"))
        .unwrap();
    stage.courier.tls = tls::Client::new(&roots).unwrap();
    script.replies = vec![("AUTH PLAIN", "535 5.7.8 wrong password")];
    stage.net.put(FIRST, script.clone());
    assert_eq!(
        fates(&stage.attempt().await),
        ["4.7.8"],
        "our settings are wrong, the mail waits"
    );
    script.replies = vec![("AUTH PLAIN", "235 2.7.0 welcome")];
    let server = stage.net.put(FIRST, script);
    assert_eq!(fates(&stage.attempt().await), ["taken"]);
    assert!(server.said("AUTH PLAIN AHVzAHNlY3JldA=="));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_ends_in_bounded_time() {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    stage
        .net
        .black_holes
        .lock()
        .unwrap()
        .push(SECOND.parse().unwrap());
    stage.net.put(
        FIRST,
        Script {
            silent_at: Some("MAIL"),
            ..Script::default()
        },
    );
    let started = tokio::time::Instant::now();
    assert_eq!(fates(&stage.attempt().await), ["4.4.1"]);
    assert_eq!(
        started.elapsed().as_secs(),
        300 + 30,
        "MAIL has 5 minutes, a connection 30 seconds"
    );

    stage.courier.options.attempt_time_max = std::time::Duration::from_secs(60);
    let started = tokio::time::Instant::now();
    assert_eq!(fates(&stage.attempt().await), ["4.4.2"]);
    assert_eq!(started.elapsed().as_secs(), 60);
}
