//! DKIM: the signed messages of RFC 6376 and RFC 8463, tables of what breaks a signature, and
//! signing against verifying.
#![allow(clippy::unwrap_used)]

use dns::table::TableResolver;
use futures_util::FutureExt;
use judge::dkim::{self, Canonicalization, DkimOutcome, DkimResult, KeyKind, Signer, SigningKey};
use mail::{Domain, Timestamp};
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};

const NOW_SECS: i64 = 1_700_000_000;

fn verify(table: &TableResolver, message: &[u8]) -> DkimOutcome {
    verify_at(table, message, NOW_SECS)
}

fn verify_at(table: &TableResolver, message: &[u8], secs: i64) -> DkimOutcome {
    dkim::verify(table, message, Timestamp::from_secs(secs))
        .now_or_never()
        .expect("a table answers at once")
}

fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

const JOE: &str = "\
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
";

/// RFC 8463 Appendix A: one message, two signatures.
const RFC_8463: &str = "\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
";

/// RFC 6376 Appendix A.2.
const RFC_6376: &str = "\
DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
";

fn rfc_keys() -> TableResolver {
    TableResolver::new()
        .with_txt(
            "brisbane._domainkey.football.example.com",
            "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        )
        .with_txt(
            "test._domainkey.football.example.com",
            "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2\
             jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3\
             Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
        )
        .with_txt(
            "brisbane._domainkey.example.com",
            "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYt\
             IxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhi\
             tdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB",
        )
}

#[test]
fn the_signed_messages_of_the_rfcs() {
    let outcome = verify(&rfc_keys(), &crlf(&format!("{RFC_8463}{JOE}")));
    let results: Vec<_> = outcome
        .signatures
        .iter()
        .map(|s| (s.result, s.key_bits))
        .collect();
    assert_eq!(
        results,
        [(DkimResult::Pass, Some(256)), (DkimResult::Pass, Some(1024))],
        "{:#?}",
        outcome.explain()
    );
    let outcome = verify(&rfc_keys(), &crlf(&format!("{RFC_6376}{JOE}")));
    assert_eq!(outcome.result(), DkimResult::Pass, "{:#?}", outcome.explain());
    assert_eq!(
        outcome.signatures[0].identity.as_deref(),
        Some("joe@football.example.com")
    );
    assert_eq!(outcome.signatures[0].signature_prefix, "AuUoFEfD");
}

static KEYS: LazyLock<[Arc<SigningKey>; 2]> = LazyLock::new(|| {
    [KeyKind::Rsa2048, KeyKind::Ed25519].map(|kind| Arc::new(SigningKey::generate(kind).unwrap()))
});

const PLACE: &str = "s1._domainkey.example.com";

fn signer(key: usize) -> Signer {
    Signer::new(Domain::parse("example.com").unwrap(), "s1", KEYS[key].clone()).unwrap()
}

fn published(key: usize) -> TableResolver {
    TableResolver::new().with_txt(PLACE, KEYS[key].dns_record_value().unwrap())
}

fn signed(signer: &Signer, message: &[u8]) -> Vec<u8> {
    let mut out = signer
        .sign(message, Timestamp::from_secs(NOW_SECS))
        .unwrap()
        .into_bytes();
    out.extend_from_slice(message);
    out
}

fn replaced(message: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(message.to_vec()).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn what_breaks_a_signature_and_what_does_not() {
    use DkimResult::{Fail, Pass};
    let good = signed(&signer(0), &crlf(JOE));
    let simple = {
        let mut signer = signer(0);
        signer.canonicalization = Canonicalization::parse("simple/simple").unwrap();
        signed(&signer, &crlf(JOE))
    };
    for (from, to, relaxed, strict) in [
        ("From: ", "From: ", Pass, Pass),
        ("From: ", "from:   ", Pass, Fail),
        ("Subject: Is dinner", "Subject: Is\r\n dinner", Pass, Fail),
        ("Hi.\r\n", "Hi. \t\r\n", Pass, Fail),
        ("Joe.\r\n", "Joe.\r\n\r\n\r\n", Pass, Pass),
        ("Joe.\r\n", "Joe.\r\n \r\n", Pass, Fail),
        ("Joe.\r\n", "Joe.", Pass, Pass),
        ("Subject: Is", "Subject: is", Fail, Fail),
        ("game. Are", "game.Are", Fail, Fail),
        ("Hi.\r\n", " Hi.\r\n", Fail, Fail),
        ("From: Joe", "From: eve@example.org\r\nFrom: Joe", Fail, Fail),
        ("From: Joe", "Reply-To: eve@example.org\r\nFrom: Joe", Fail, Fail),
        ("From: Joe", "X-Other: added\r\nFrom: Joe", Pass, Pass),
        ("s=s1;", "s=s1; z=x;", Fail, Fail),
    ] {
        for (message, expected) in [(&good, relaxed), (&simple, strict)] {
            let outcome = verify(&published(0), &replaced(message, from, to));
            assert_eq!(
                outcome.result(),
                expected,
                "{from:?} {to:?} {:#?}",
                outcome.explain()
            );
        }
    }
}

#[test]
fn keys_that_are_missing_or_unfit() {
    use DkimResult::{Fail, PermError, Policy, TempError};
    let message = signed(&signer(0), &crlf(JOE));
    let value = KEYS[0].dns_record_value().unwrap();
    let p = KEYS[0].public_key_base64().unwrap();
    // An RSA key of 512 bits.
    let short = "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBANmBe10IgY+u7h3enWTukkqtUD5PR52Tb/mPfjC0QJTocVBq6Za/PlzfV+Py92VaCak19F4WrbVTK5Gg5tW220MCAwEAAQ==";
    for (texts, result, part) in [
        (vec![], PermError, "no key at s1._domainkey.example.com"),
        (vec!["v=DKIM1; p=".to_owned()], PermError, "revoked"),
        (vec!["v=spf1 -all".to_owned()], PermError, "cannot be used"),
        (
            vec![format!("v=DKIM1; h=sha1; p={p}")],
            PermError,
            "does not allow sha256",
        ),
        (
            vec![format!("v=DKIM1; s=other; p={p}")],
            PermError,
            "does not allow email",
        ),
        (
            vec![KEYS[1].dns_record_value().unwrap()],
            PermError,
            "its type is ed25519",
        ),
        (vec![format!("p={short}")], Policy, "512 bits"),
        (
            vec![
                SigningKey::generate(KeyKind::Rsa2048)
                    .unwrap()
                    .dns_record_value()
                    .unwrap(),
            ],
            Fail,
            "does not fit",
        ),
    ] {
        let table = texts
            .iter()
            .fold(TableResolver::new(), |t, text| t.with_txt(PLACE, text));
        let outcome = verify(&table, &message);
        assert_eq!(outcome.result(), result, "{texts:?}");
        assert!(outcome.because().contains(part), "{}", outcome.because());
    }
    let slow = verify(&TableResolver::new().with_timeout(PLACE), &message);
    assert_eq!(slow.result(), TempError);
    let with_others = TableResolver::new()
        .with_txt(PLACE, "noise")
        .with_txt(PLACE, value);
    assert_eq!(verify(&with_others, &message).result(), DkimResult::Pass);
}

#[test]
fn times_identities_and_lengths() {
    use DkimResult::{Fail, Pass, PermError};
    let mut expiring = signer(1);
    expiring.valid_secs = Some(60);
    let message = signed(&expiring, &crlf(JOE));
    assert_eq!(verify_at(&published(1), &message, NOW_SECS + 60).result(), Pass);
    let late = verify_at(&published(1), &message, NOW_SECS + 61);
    assert_eq!(late.result(), Fail);
    assert!(late.because().contains("expired 1 seconds ago"));

    let message = signed(&signer(1), &crlf(JOE));
    let bad = |from: &str, to: &str| {
        let outcome = verify(&published(1), &replaced(&message, from, to));
        (outcome.result(), outcome.because())
    };
    for (from, to, part) in [
        ("v=1;", "v=2;", "version"),
        ("a=ed25519-sha256", "a=rsa-sha1", "not accepted"),
        ("d=example.com;", "d=example.com; i=@example.org;", "not within"),
        ("h=from:", "h=x-from:", "a signed header field was changed"),
        ("c=relaxed/relaxed", "c=other", "canonical form"),
        ("v=1;", "v=1; l=999999;", "which has only"),
        ("v=1;", "v=1; q=x;", "no way"),
        ("v=1;", "v=1 v=1;", "version"),
        ("v=1;", "v=1;;", "no tag=value"),
    ] {
        let (result, because) = bad(from, to);
        let expected = if from.starts_with("h=") { Fail } else { PermError };
        assert_eq!(result, expected, "{from} {to} {because}");
        assert!(because.contains(part), "{to}: {because}");
    }
}

#[test]
fn a_strict_key_binds_the_identity() {
    let value = KEYS[1].dns_record_value().unwrap();
    let lax = TableResolver::new().with_txt(PLACE, format!("{value}; t=y"));
    let strict = TableResolver::new().with_txt(PLACE, format!("{value}; t=y:s"));
    for (identity, lax_result, strict_result) in [
        (None, DkimResult::Pass, DkimResult::Pass),
        (Some("example.com"), DkimResult::Pass, DkimResult::Pass),
        (Some("sub.example.com"), DkimResult::Pass, DkimResult::PermError),
        (Some("example.org"), DkimResult::PermError, DkimResult::PermError),
    ] {
        let mut signer = signer(1);
        signer.identity_domain = identity.map(|d| Domain::parse(d).unwrap());
        let message = signed(&signer, &crlf(JOE));
        assert_eq!(verify(&lax, &message).result(), lax_result, "{identity:?}");
        let outcome = verify(&strict, &message);
        assert_eq!(outcome.result(), strict_result, "{identity:?}");
        assert!(outcome.signatures[0].testing || identity == Some("example.org"));
    }
}

#[test]
fn many_signatures() {
    let mut message = crlf(JOE);
    for key in [0, 1, 0] {
        message = signed(&signer(key), &message);
    }
    let table = published(0).with_txt(PLACE, KEYS[1].dns_record_value().unwrap());
    let outcome = verify(&table, &message);
    assert_eq!(outcome.signatures.len(), 3);
    assert!(
        outcome.signatures.iter().all(|s| s.result == DkimResult::Pass),
        "{:#?}",
        outcome.explain()
    );
    for _ in 0..10 {
        message = signed(&signer(1), &message);
    }
    let outcome = verify(&table, &message);
    assert_eq!((outcome.signatures.len(), outcome.ignored), (10, 3));
    assert!(outcome.explain().last().unwrap().contains("3 more signatures"));
    let none = verify(&table, &crlf(JOE));
    assert_eq!(
        (none.result(), none.because().as_str()),
        (DkimResult::None, "the message is not signed")
    );
}

#[test]
fn the_signature_field_is_well_formed() {
    let field = signer(0)
        .sign(&crlf(JOE), Timestamp::from_secs(NOW_SECS))
        .unwrap();
    assert!(field.starts_with("DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com;"));
    assert!(field.ends_with("\r\n"));
    assert!(field.lines().all(|line| line.len() <= 78), "{field}");
    assert_eq!(mail::header::fields(field.as_bytes()).count(), 1);
    assert!(matches!(
        signer(0).sign(b"To: x\r\n\r\n", Timestamp::default()),
        Err(dkim::SignError::NoFrom)
    ));
    let domain = Domain::parse("example.com").unwrap();
    assert!(Signer::new(domain, "not a label", KEYS[0].clone()).is_err());
}

/// A body is hashed only to `l=`, and what lies behind it is told.
#[test]
fn a_body_signed_in_part() {
    let message = replaced(&crlf(&format!("{RFC_8463}{JOE}")), "v=1;", "v=1; l=5;");
    let outcome = verify(&rfc_keys(), &message);
    let first = &outcome.signatures[0];
    assert_eq!(first.result, DkimResult::Fail);
    assert_eq!(first.unsigned_body_octets, 49);
    assert_eq!(outcome.signatures[1].result, DkimResult::Pass);
}

fn header_lines() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("From: a@example.com\r\n".to_owned()),
        "(Subject|TO|x-y|Date|Reply-To):[ -~]{0,20}\r\n",
        "(Cc|References): [a-z]{1,5},\r\n[ \t]+[a-z]{1,9}[ \t]*\r\n",
    ];
    proptest::collection::vec(line, 0..8)
        .prop_map(|lines| format!("From: b@example.com\r\n{}", lines.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn what_is_signed_verifies(
        head in header_lines(),
        body in "([ \ta-z.]{0,9}\r\n){0,9}[ a-z]{0,3}",
        key in 0usize..2,
        canon in prop_oneof![
            Just("simple/simple"), Just("simple/relaxed"), Just("relaxed/simple"), Just("relaxed/relaxed")
        ],
        flip in any::<prop::sample::Index>(),
    ) {
        let mut signer = signer(key);
        signer.canonicalization = Canonicalization::parse(canon).unwrap();
        let message = format!("{head}\r\n{body}").into_bytes();
        let whole = signed(&signer, &message);
        let outcome = verify(&published(key), &whole);
        prop_assert_eq!(outcome.result(), DkimResult::Pass, "{:#?}", outcome.explain());
        // A letter of the body changed is always found.
        let start = whole.len() - body.len();
        let letters: Vec<usize> = (start..whole.len()).filter(|i| whole[*i].is_ascii_alphabetic()).collect();
        if !letters.is_empty() {
            let mut changed = whole.clone();
            changed[letters[flip.index(letters.len())]] ^= 0x20;
            prop_assert_eq!(verify(&published(key), &changed).result(), DkimResult::Fail);
        }
    }

    #[test]
    fn any_message_is_answered(message in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = verify(&TableResolver::new(), &message);
        let mut odd = b"DKIM-Signature: v=1; a=rsa-sha256; b=AA; bh=AA; d=x.y; s=z; h=from:;".to_vec();
        odd.extend(message);
        let _ = verify(&TableResolver::new(), &odd);
    }
}
