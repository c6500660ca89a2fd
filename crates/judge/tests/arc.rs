//! ARC: chains that are sealed here hold, and break as RFC 8617 §5.2 says.
#![allow(clippy::unwrap_used)]

use dns::table::TableResolver;
use futures_util::FutureExt;
use judge::arc::{self, ArcOutcome, ArcResult, SealError, Sealer};
use judge::dkim::{KeyKind, SigningKey};
use judge::{Evidence, Inputs, gather};
use mail::{Domain, ReversePath, Timestamp};
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};

static KEYS: LazyLock<[Arc<SigningKey>; 2]> = LazyLock::new(|| {
    [KeyKind::Rsa2048, KeyKind::Ed25519].map(|kind| Arc::new(SigningKey::generate(kind).unwrap()))
});

const MESSAGE: &str = "From: a@example.com\r\nSubject: hello\r\n\r\nbody\r\n";
const DOMAINS: [&str; 2] = ["list.example", "forwarder.example"];

fn now() -> Timestamp {
    Timestamp::from_secs(1_700_000_000)
}

fn table() -> TableResolver {
    (0..2).fold(TableResolver::new(), |t, i| {
        let place = format!("arc._domainkey.{}", DOMAINS[i]);
        t.with_txt(&place, KEYS[i].dns_record_value().unwrap())
    })
}

fn verify(message: &str) -> ArcOutcome {
    arc::verify(&table(), message.as_bytes(), now())
        .now_or_never()
        .expect("at once")
}

fn evidence(message: &str) -> Evidence {
    let inputs = Inputs {
        ip: "192.0.2.1".parse().unwrap(),
        helo: "mail.example.com",
        reverse_path: &ReversePath::Null,
        message: message.as_bytes(),
        receiver: "mx.list.example",
        now: now(),
        connection: None,
        dnsbl_zones: &[],
    };
    gather(&table(), &inputs).now_or_never().expect("at once")
}

fn seal(who: usize, message: &str) -> Result<String, SealError> {
    let domain = Domain::parse(DOMAINS[who]).unwrap();
    let sealer = Sealer::new(domain, "arc", KEYS[who].clone()).unwrap();
    let set = sealer.seal(message.as_bytes(), &evidence(message), "mx.list.example", now())?;
    Ok(format!("{set}{message}"))
}

#[test]
fn a_chain_of_three() {
    assert_eq!(verify(MESSAGE).result, ArcResult::None);
    let one = seal(0, MESSAGE).unwrap();
    let two = seal(1, &one).unwrap();
    let three = seal(0, &two).unwrap();
    for (message, length) in [(&one, 1), (&two, 2), (&three, 3)] {
        let outcome = verify(message);
        assert_eq!(
            outcome.result,
            ArcResult::Pass,
            "{:#?}\n{message}",
            outcome.explain()
        );
        assert_eq!((outcome.sets.len(), outcome.oldest_pass), (length, Some(0)));
    }
    let outcome = verify(&three);
    assert_eq!(outcome.last_sealer().unwrap().as_str(), "list.example");
    let said: Vec<_> = outcome
        .sets
        .iter()
        .map(|s| s.chain_validation.clone().unwrap())
        .collect();
    assert_eq!(said, ["none", "pass", "pass"]);
    assert!(
        outcome.sets[0]
            .authentication_results
            .starts_with("mx.list.example;")
    );
    assert!(outcome.sets[1].authentication_results.contains("arc=pass"));
    for line in three.lines() {
        assert!(line.len() < 998);
    }
}

#[test]
fn a_list_may_change_the_message_between_seals() {
    let one = seal(0, MESSAGE).unwrap();
    let changed = one.replace("Subject: hello", "Subject: [list] hello");
    assert_eq!(
        verify(&changed).result,
        ArcResult::Fail,
        "the newest message signature broke"
    );
    // The list saw the chain hold before it changed the message, and says so.
    let domain = Domain::parse(DOMAINS[1]).unwrap();
    let sealer = Sealer::new(domain, "arc", KEYS[1].clone()).unwrap();
    let set = sealer
        .seal(changed.as_bytes(), &evidence(&one), "mx", now())
        .unwrap();
    let outcome = verify(&format!("{set}{changed}"));
    assert_eq!(outcome.result, ArcResult::Pass, "{:#?}", outcome.explain());
    assert_eq!(outcome.oldest_pass, Some(2));
    assert_eq!(outcome.sets[0].message_signature_holds, Some(false));
}

#[test]
fn what_breaks_a_chain() {
    let two = seal(1, &seal(0, MESSAGE).unwrap()).unwrap();
    for (from, to, part) in [
        (
            "Subject: hello",
            "Subject: hullo",
            "message signature i=2 is broken",
        ),
        (
            "\r\n\r\nbody",
            "\r\n\r\nbodies",
            "message signature i=2 is broken: the body",
        ),
        ("ARC-Seal: i=2", "X-Seal: i=2", "no ARC-Seal with i=2"),
        (
            "ARC-Message-Signature: i=1",
            "X: i=1",
            "no ARC-Message-Signature with i=1",
        ),
        (
            "ARC-Authentication-Results: i=1",
            "ARC-Authentication-Results: i=2",
            "no ARC-Authentication-Results with i=1",
        ),
        (
            "ARC-Authentication-Results: i=1",
            "ARC-Authentication-Results: x",
            "no instance tag",
        ),
        ("ARC-Seal: i=2", "ARC-Seal: i=51", "not 1 to 50"),
        ("ARC-Seal: i=2", "ARC-Seal: i=0", "not 1 to 50"),
        ("cv=none", "cv=pass", "first seal does not say cv=none"),
        ("cv=pass", "cv=none", "does not say cv=pass"),
        ("cv=pass", "cv=fail", "found the chain broken"),
        ("cv=pass", "cv=pass; h=from", "has a tag h="),
        (
            "ARC-Authentication-Results: i=1; mx.list.example",
            "ARC-Authentication-Results: i=1; mx.evil.example",
            "seal i=1 is broken",
        ),
    ] {
        assert!(two.contains(from), "{from}");
        let outcome = verify(&two.replacen(from, to, 1));
        assert_eq!(outcome.result, ArcResult::Fail, "{from} {to}");
        assert!(outcome.because().contains(part), "{to}: {}", outcome.because());
    }
}

#[test]
fn a_key_that_cannot_be_fetched_is_no_fail() {
    let one = seal(0, MESSAGE).unwrap();
    let slow = TableResolver::new().with_timeout("arc._domainkey.list.example");
    let outcome = arc::verify(&slow, one.as_bytes(), now()).now_or_never().unwrap();
    assert_eq!(outcome.result, ArcResult::TempError);
}

#[test]
fn a_broken_chain_is_closed_once() {
    let broken = seal(0, MESSAGE).unwrap().replace("hello", "changed");
    let closed = seal(1, &broken).unwrap();
    let outcome = verify(&closed);
    assert_eq!(outcome.result, ArcResult::Fail);
    assert_eq!(outcome.sets[1].chain_validation.as_deref(), Some("fail"));
    assert_eq!(seal(0, &closed), Err(SealError::ChainBroken));
}

#[test]
fn a_chain_has_fifty_sets_at_most() {
    let mut message = MESSAGE.to_owned();
    for i in 0..50 {
        message = seal(i % 2, &message).unwrap();
    }
    assert_eq!(verify(&message).result, ArcResult::Pass);
    assert_eq!(seal(0, &message), Err(SealError::ChainFull));
}

proptest! {
    #[test]
    fn any_message_is_answered(text in "(ARC-(Seal|Message-Signature|Authentication-Results): ?[ -~]{0,60}\r\n){0,9}\r\n") {
        let _ = verify(&text);
    }
}
