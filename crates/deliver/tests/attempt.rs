//! One attempt against scripted servers: what is concluded, what is told.
#![allow(clippy::unwrap_used)]

mod common;

use common::stage::{FIRST, SECOND, Stage, TEXT, fates, tries};
use common::{Script, StartTls};
use deliver::{Login, TlsPolicy};
use journey::Event;
use mail::Secret;

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
        .with_file(&stage.dir.path().join("certificate.pem"))
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
async fn starttls_that_is_refused_never_bounces() {
    for reply in ["502 5.5.1 not implemented", "554 no", "454 4.7.0 no TLS now"] {
        let mut stage = Stage::new(&["bob@example.com"]).await;
        let script = Script {
            starttls: StartTls::Broken,
            replies: vec![("STARTTLS", reply)],
            ..Script::default()
        };
        let first = stage.net.put(FIRST, script.clone());
        stage.net.put(SECOND, script);
        stage.plan.tls = TlsPolicy::Required;
        let attempted = stage.attempt().await;
        assert_eq!(fates(&attempted), ["4.7.5"], "{reply}");
        let failure = attempted.fates[0].as_ref().unwrap_err();
        assert_eq!(failure.reply(), reply, "the server's own words");
        assert!(!failure.is_permanent() && !first.said("MAIL"));

        // Where TLS is taken when offered, it goes in clear.
        stage.plan.tls = TlsPolicy::Opportunistic;
        assert_eq!(fates(&stage.attempt().await), ["taken"], "{reply}");
    }
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
    let again = Script {
        replies: vec![("RCPT", "450 4.7.1 greylisted here too")],
        ..Script::default()
    };
    let second = stage.net.put(SECOND, again);
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
            "mx.example.com clear RCPT TO 450",
            "mx2.example.com clear RCPT TO 450"
        ]
    );
    assert_eq!((server.messages().len(), second.messages().len()), (1, 0));
    assert!(second.said("RCPT TO:<later@") && !second.said("bob@") && !second.said("no@"));
}

#[tokio::test(start_paused = true)]
async fn a_reply_of_several_lines_tells_its_status_once() {
    let stage = Stage::new(&["bob@example.com"]).await;
    let script = Script {
        end: "554-5.7.1 looks like spam\r\n554 5.7.1 second line",
        ..Script::default()
    };
    stage.net.put(FIRST, script);
    let attempted = stage.attempt().await;
    let failure = attempted.fates[0].as_ref().unwrap_err();
    assert_eq!(failure.reply(), "554 5.7.1 looks like spam second line");
    let told = format!("{:?}", attempted.events);
    assert!(told.contains("\"5.7.1 looks like spam second line\""), "{told}");
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
        .with_file(&stage.dir.path().join("certificate.pem"))
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
