//! TLS sessions that are resumed when mail leaves: for whom, and what the journey says of them.
#![allow(clippy::unwrap_used)]

mod common;

use common::stage::{FIRST, Stage, fates, tries};
use common::world::domain;
use common::{Script, Server, StartTls};
use deliver::TlsPolicy;
use deliver::attempt::Attempted;
use deliver::security::{Evidence, TlsaFound};
use dns::{Dnssec, Tlsa};
use journey::Event;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A stage whose server's certificate is known; each attempt makes a new connection.
async fn stage() -> (Stage, Arc<Server>) {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    let roots = tls::Roots::public()
        .with_file(&stage.dir.path().join("certificate.pem"))
        .unwrap();
    stage.courier.tls = tls::Client::new(&roots).unwrap();
    stage.plan.hops.truncate(1);
    let script = Script {
        starttls: stage.tls(),
        ..Script::default()
    };
    let server = stage.net.put(FIRST, script);
    (stage, server)
}

/// What the journey says: by what it was verified, and whether the session was resumed.
fn said(attempted: &Attempted) -> (Option<String>, bool) {
    match &attempted.events[..] {
        [Event::Attempt { tls: Some(tls), .. }] => (tls.verified.clone(), tls.resumed),
        other => panic!("one attempt with TLS: {other:?}"),
    }
}

fn evidence(records: Vec<Tlsa>) -> Evidence {
    let host = domain("mx.example.com");
    let found = TlsaFound::Records {
        base: host.clone(),
        records,
    };
    Evidence {
        mx: Some(Dnssec::Secure),
        domain: Some(domain("example.com")),
        hosts: BTreeMap::from([(host, found)]),
        sts: None,
        sts_unknown: None,
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_connection_resumes_what_asks_the_same_and_the_journey_keeps_the_verdict() {
    let (mut stage, server) = stage().await;
    let policies = [
        (TlsPolicy::Opportunistic, "WebPKI"),
        (TlsPolicy::Required, "WebPKI"),
    ];
    for (round, (policy, by)) in policies.into_iter().enumerate() {
        stage.plan.tls = policy;
        let before = server.resumed();
        assert_eq!(before, round * 2, "another requirement shares nothing");
        for n in 0..3 {
            let attempted = stage.attempt().await;
            assert_eq!(said(&attempted), (Some(by.to_owned()), n > 0), "{policy:?}");
            assert_eq!(server.resumed(), before + n);
        }
    }
    assert_eq!((server.connections(), server.messages().len()), (6, 6));
    // After an hour the certificate is looked at again.
    tokio::time::sleep(tls::sessions::KEPT_FOR).await;
    assert_eq!(said(&stage.attempt().await), (Some("WebPKI".to_owned()), false));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(said(&stage.attempt().await), (Some("WebPKI".to_owned()), true));
}

#[tokio::test(start_paused = true)]
async fn under_new_tlsa_records_nothing_is_resumed() {
    let (mut stage, server) = stage().await;
    let right = stage.certificates.tlsa(&domain("mx.example.com")).unwrap();
    let wrong = Tlsa {
        data: vec![7; 32],
        ..right.clone()
    };
    stage.plan.evidence = evidence(vec![right.clone()]);
    for n in 0..2 {
        assert_eq!(said(&stage.attempt().await), (Some("DANE-EE".to_owned()), n > 0));
    }
    stage.plan.evidence = evidence(vec![wrong.clone()]);
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["4.7.5"]);
    assert_eq!(
        tries(&attempted),
        ["mx.example.com clear failed at TLS handshake"]
    );
    assert_eq!((server.resumed(), server.messages().len()), (1, 2));
    // One record more is another requirement too.
    stage.plan.evidence = evidence(vec![wrong, right]);
    assert_eq!(said(&stage.attempt().await), (Some("DANE-EE".to_owned()), false));
}

/// A server that gets on badly with its own sessions is spoken to once more without one, and never in
/// clear because of that.
#[tokio::test(start_paused = true)]
async fn a_resumption_that_fails_is_no_failure_of_tls() {
    let (stage, _) = stage().await;
    let broken = Arc::new(AtomicBool::new(false));
    let script = Script {
        starttls: StartTls::Moody(stage.certificates.server_config(), Arc::clone(&broken)),
        ..Script::default()
    };
    let server = stage.net.put(FIRST, script);
    stage.attempt().await;
    broken.store(true, Ordering::Relaxed);
    let attempted = stage.attempt().await;
    assert_eq!(tries(&attempted), ["mx.example.com TLS accepted 250"]);
    assert_eq!(said(&attempted), (Some("WebPKI".to_owned()), false));
    assert_eq!((server.connections(), server.resumed()), (3, 0));
    // Without a session to blame it is the server's TLS that is broken.
    let (stage, _) = self::stage().await;
    let broken = Arc::new(AtomicBool::new(true));
    let script = Script {
        starttls: StartTls::Moody(stage.certificates.server_config(), broken),
        ..Script::default()
    };
    let server = stage.net.put(FIRST, script);
    let attempted = stage.attempt().await;
    let clear = [
        "mx.example.com clear failed at TLS handshake",
        "mx.example.com clear accepted 250",
    ];
    assert_eq!(
        (tries(&attempted), server.connections()),
        (clear.map(str::to_owned).to_vec(), 2)
    );
}
