//! From transactions to judgements: DMARC tables, the policy's choices, the header fields, and
//! what stands in the replies.
#![allow(clippy::unwrap_used)]

use dns::table::TableResolver;
use futures_util::FutureExt;
use judge::dkim::{KeyKind, Signer, SigningKey};
use judge::dmarc::{DmarcResult, Mechanism, Request};
use judge::dnsbl::{self, DnsblResult};
use judge::evidence::gather_connection;
use judge::headers;
use judge::iprev::{self, IprevResult};
use judge::judgement::{Action, Rule, TEXT_OCTETS_MAX, judge_connection};
use judge::{Disposition, Evidence, Inputs, Judgement, Policy, gather, judge};
use mail::{Domain, EmailAddress, ReversePath, Timestamp};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

static KEY: LazyLock<Arc<SigningKey>> =
    LazyLock::new(|| Arc::new(SigningKey::generate(KeyKind::Ed25519).unwrap()));

const GOOD: &str = "192.0.2.1";
const BAD: &str = "203.0.113.66";

fn d(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A transaction: who connects, who says to send, who is said to write, who signs.
#[derive(Clone, Copy)]
struct Case<'a> {
    client: &'a str,
    mail_from: &'a str,
    from: &'a str,
    signed_by: Option<&'a str>,
}

const FORGED: Case<'_> = Case {
    client: BAD,
    mail_from: "alice@gmail.com",
    from: "Alice <alice@gmail.com>",
    signed_by: None,
};

const HONEST: Case<'_> = Case {
    client: GOOD,
    mail_from: "alice@gmail.com",
    from: "Alice <alice@gmail.com>",
    signed_by: Some("gmail.com"),
};

fn zone(dmarc: &str) -> TableResolver {
    let table = TableResolver::new()
        .with_txt("gmail.com", format!("v=spf1 ip4:{GOOD} -all"))
        .with_txt("bounce.gmail.com", format!("v=spf1 ip4:{GOOD} -all"))
        .with_txt("other.example", format!("v=spf1 ip4:{GOOD} ip4:{BAD} -all"))
        .with_address("gmail.com", ip(GOOD))
        .with_address("news.gmail.com", ip(GOOD))
        .with_ptr(ip(GOOD), d("out.gmail.com"))
        .with_address("out.gmail.com", ip(GOOD));
    let key = KEY.dns_record_value().unwrap();
    let table = ["gmail.com", "sub.gmail.com", "other.example"]
        .iter()
        .fold(table, |t, domain| {
            t.with_txt(&format!("s1._domainkey.{domain}"), &key)
        });
    if dmarc.is_empty() {
        return table;
    }
    table.with_txt("_dmarc.gmail.com", format!("v=DMARC1; {dmarc}"))
}

fn message(case: Case<'_>) -> Vec<u8> {
    let plain = format!("From: {}\r\nSubject: hello\r\n\r\nbody\r\n", case.from);
    let Some(domain) = case.signed_by else {
        return plain.into_bytes();
    };
    let signer = Signer::new(d(domain), "s1", KEY.clone()).unwrap();
    let field = signer
        .sign(plain.as_bytes(), Timestamp::from_secs(1_700_000_000))
        .unwrap();
    format!("{field}{plain}").into_bytes()
}

fn evidence(table: &TableResolver, case: Case<'_>) -> Evidence {
    let reverse_path = match case.mail_from {
        "" => ReversePath::Null,
        address => ReversePath::Address(EmailAddress::parse(address).unwrap()),
    };
    let message = message(case);
    let inputs = Inputs {
        ip: ip(case.client),
        helo: "mail.gmail.com",
        reverse_path: &reverse_path,
        message: &message,
        receiver: "mx.example.com",
        now: Timestamp::from_secs(1_700_000_000),
        connection: None,
        dnsbl_zones: &[d("list.example")],
    };
    gather(table, &inputs)
        .now_or_never()
        .expect("a table answers at once")
}

fn judged(table: &TableResolver, case: Case<'_>, policy: &Policy) -> Judgement {
    judge(&evidence(table, case), policy)
}

fn short(judgement: &Judgement) -> String {
    match &judgement.disposition {
        Disposition::Accept => "accept".to_owned(),
        Disposition::Junk => "junk".to_owned(),
        Disposition::Refuse { code, status, .. } | Disposition::Defer { code, status, .. } => {
            format!("{code} {status}")
        }
    }
}

#[test]
fn identifiers_and_alignment() {
    use DmarcResult::{Fail, Pass};
    let spf_only = |mail_from| Case {
        mail_from,
        signed_by: None,
        ..HONEST
    };
    let dkim_only = |signed_by| Case {
        client: BAD,
        signed_by: Some(signed_by),
        ..HONEST
    };
    for (record, case, expected) in [
        ("p=reject", HONEST, Pass),
        ("p=reject", FORGED, Fail),
        ("p=reject", spf_only("x@gmail.com"), Pass),
        ("p=reject", spf_only("x@bounce.gmail.com"), Pass),
        ("p=reject; aspf=s", spf_only("x@bounce.gmail.com"), Fail),
        ("p=reject; aspf=s", spf_only("x@gmail.com"), Pass),
        ("p=reject", spf_only("x@other.example"), Fail),
        ("p=reject", dkim_only("gmail.com"), Pass),
        ("p=reject", dkim_only("sub.gmail.com"), Pass),
        ("p=reject; adkim=s", dkim_only("sub.gmail.com"), Fail),
        ("p=reject", dkim_only("other.example"), Fail),
    ] {
        let outcome = evidence(&zone(record), case).dmarc;
        assert_eq!(
            outcome.result,
            expected,
            "{record} {} {:?}: {:#?}",
            case.mail_from,
            case.signed_by,
            outcome.explain()
        );
    }
    // A subdomain that calls itself its own organisation is not aligned with its parent.
    let apart = zone("p=reject").with_txt("_dmarc.sub.gmail.com", "v=DMARC1; psd=n");
    assert_eq!(evidence(&apart, dkim_only("sub.gmail.com")).dmarc.result, Fail);
}

#[test]
fn what_is_asked_for() {
    use Request::{None as Nothing, Quarantine, Reject};
    let from = |from| Case { from, ..FORGED };
    for (record, author, request, tag) in [
        ("p=reject", "a@gmail.com", Reject, "p"),
        ("p=Quarantine", "a@gmail.com", Quarantine, "p"),
        ("p=reject; t=y", "a@gmail.com", Quarantine, "p"),
        ("p=quarantine; t=y", "a@gmail.com", Nothing, "p"),
        ("p=reject; pct=0", "a@gmail.com", Reject, "p"),
        ("p=reject; sp=none", "a@gmail.com", Reject, "p"),
        ("p=reject; sp=none", "a@news.gmail.com", Nothing, "sp"),
        (
            "p=reject; sp=none; np=quarantine",
            "a@news.gmail.com",
            Nothing,
            "sp",
        ),
        (
            "p=reject; sp=none; np=quarantine",
            "a@nowhere.gmail.com",
            Quarantine,
            "np",
        ),
        ("p=none; np=reject", "a@news.gmail.com", Nothing, "p"),
        ("p=none; np=reject", "a@nowhere.gmail.com", Reject, "np"),
        ("p=refuse; rua=mailto:x@gmail.com", "a@gmail.com", Nothing, "p"),
        ("rua=mailto:x@gmail.com", "a@gmail.com", Nothing, "p"),
    ] {
        let outcome = evidence(&zone(record), from(author)).dmarc;
        assert_eq!(outcome.result, DmarcResult::Fail, "{record} {author}");
        assert_eq!(
            (outcome.request, outcome.request_tag),
            (Some(request), Some(tag)),
            "{record} {author}"
        );
    }
    let unusable = evidence(&zone("p=refuse"), FORGED).dmarc;
    assert_eq!(
        (unusable.result, unusable.request),
        (DmarcResult::PermError, None)
    );
    let none = evidence(&zone(""), FORGED).dmarc;
    assert_eq!(none.result, DmarcResult::None);
}

#[test]
fn dispositions() {
    let slow_policy = || zone("").with_timeout("_dmarc.gmail.com");
    let slow_spf = |record: &str| zone(record).with_timeout("slow.example");
    let slow_key = |record: &str| zone(record).with_timeout("s1._domainkey.gmail.com");
    let with_spf = Case {
        mail_from: "a@slow.example",
        from: "a@slow.example",
        ..FORGED
    };
    let slow_own = |record: &str| slow_spf("").with_txt("_dmarc.slow.example", format!("v=DMARC1; {record}"));
    let signed_from_elsewhere = Case {
        client: BAD,
        ..HONEST
    };
    let policy = Policy::default();
    for (name, table, case, expected, rule) in [
        ("honest", zone("p=reject"), HONEST, "accept", Rule::DmarcPass),
        (
            "forged, reject",
            zone("p=reject"),
            FORGED,
            "550 5.7.26",
            Rule::DmarcReject,
        ),
        (
            "forged, quarantine",
            zone("p=quarantine"),
            FORGED,
            "junk",
            Rule::DmarcQuarantine,
        ),
        (
            "forged, testing",
            zone("p=reject; t=y"),
            FORGED,
            "junk",
            Rule::DmarcQuarantine,
        ),
        ("forged, none", zone("p=none"), FORGED, "accept", Rule::DmarcNone),
        ("forged, no policy", zone(""), FORGED, "accept", Rule::Nothing),
        (
            "policy unknown",
            slow_policy(),
            FORGED,
            "451 4.4.3",
            Rule::DnsTrouble,
        ),
        (
            "policy unknown, but it would pass",
            slow_policy(),
            HONEST,
            "accept",
            Rule::Nothing,
        ),
        (
            "SPF unknown",
            slow_own("p=reject"),
            with_spf,
            "451 4.7.24",
            Rule::DnsTrouble,
        ),
        (
            "SPF unknown, nothing asked",
            slow_own("p=none"),
            with_spf,
            "accept",
            Rule::Nothing,
        ),
        (
            "SPF unknown, no policy",
            slow_spf(""),
            with_spf,
            "accept",
            Rule::Nothing,
        ),
        (
            "key unknown",
            slow_key("p=reject"),
            signed_from_elsewhere,
            "451 4.7.5",
            Rule::DnsTrouble,
        ),
        (
            "key unknown, SPF passes",
            slow_key("p=reject"),
            HONEST,
            "accept",
            Rule::DmarcPass,
        ),
        (
            "two authors",
            zone("p=reject"),
            Case {
                from: "a@gmail.com, b@other.example",
                ..HONEST
            },
            "550 5.6.0",
            Rule::NoAuthor,
        ),
        (
            "two From fields",
            zone("p=reject"),
            Case {
                from: "a@gmail.com\r\nFrom: b@gmail.com",
                ..HONEST
            },
            "550 5.6.0",
            Rule::NoAuthor,
        ),
        (
            "nobody",
            zone("p=reject"),
            Case {
                from: "MAILER-DAEMON",
                ..FORGED
            },
            "550 5.6.0",
            Rule::NoAuthor,
        ),
        (
            "a report of nobody",
            zone("p=reject"),
            Case {
                from: "<>",
                mail_from: "",
                ..FORGED
            },
            "accept",
            Rule::Nothing,
        ),
    ] {
        let judgement = judged(&table, case, &policy);
        assert_eq!(
            (short(&judgement).as_str(), judgement.rule),
            (expected, rule),
            "{name}: {:#?}",
            judgement.explain()
        );
        assert_eq!(judgement.checks.len(), 6);
    }
}

#[test]
fn what_the_operator_may_choose() {
    let lax = Policy {
        enforce_dmarc: false,
        ..Policy::default()
    };
    assert_eq!(short(&judged(&zone("p=reject"), FORGED, &lax)), "accept");
    for (action, spf, iprev) in [
        (Action::Accept, "accept", "accept"),
        (Action::Junk, "junk", "junk"),
        (Action::Refuse, "550 5.7.23", "550 5.7.25"),
    ] {
        let policy = Policy {
            spf_fail: action,
            ..Policy::default()
        };
        assert_eq!(short(&judged(&zone(""), FORGED, &policy)), spf);
        assert_eq!(short(&judged(&zone(""), HONEST, &policy)), "accept");
        let policy = Policy {
            iprev_fail: action,
            ..Policy::default()
        };
        assert_eq!(short(&judged(&zone(""), FORGED, &policy)), iprev);
        assert_eq!(short(&judged(&zone(""), HONEST, &policy)), "accept");
    }
    let strict = Policy {
        spf_fail: Action::Refuse,
        ..Policy::default()
    };
    let slow = zone("").with_timeout("slow.example");
    let case = Case {
        mail_from: "a@slow.example",
        ..FORGED
    };
    assert_eq!(short(&judged(&slow, case, &strict)), "451 4.7.24");
    let strict = Policy {
        iprev_fail: Action::Refuse,
        ..Policy::default()
    };
    let slow = zone("").with_timeout("66.113.0.203.in-addr.arpa");
    assert_eq!(short(&judged(&slow, FORGED, &strict)), "451 4.7.25");
}

#[test]
fn a_refusal_says_why_and_what_to_change() {
    let judgement = judged(&zone("p=reject"), FORGED, &Policy::default());
    let Disposition::Refuse { text, .. } = &judgement.disposition else {
        panic!("{judgement:?}");
    };
    assert_eq!(
        text,
        "gmail.com asks that mail which it does not vouch for be refused (DMARC p=reject): SPF: gmail.com does not \
         let 203.0.113.66 send its mail (-all); DKIM: the message is not signed. Send through a server that gmail.com \
         allows in its SPF record, or sign with a DKIM key of gmail.com"
    );
    assert!(text.len() <= TEXT_OCTETS_MAX);
    // Whatever a sender writes, the text is one line of printable ASCII.
    let odd = Case {
        mail_from: "\"x\u{e9} y\"@gmail.com",
        ..FORGED
    };
    let judgement = judged(&zone("p=reject"), odd, &Policy::default());
    let Disposition::Refuse { text, .. } = judgement.disposition else {
        panic!("not refused");
    };
    assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)) && text.len() <= TEXT_OCTETS_MAX);
}

#[test]
fn a_trusted_sealer_is_believed() {
    use judge::arc::Sealer;
    let key = KEY.dns_record_value().unwrap();
    let table = zone("p=reject").with_txt("arc._domainkey.list.org", key);
    let original = message(HONEST);
    let at_the_list = evidence(&table, HONEST);
    let changed = String::from_utf8(original)
        .unwrap()
        .replace("hello", "[list] hello");
    let sealer = Sealer::new(d("list.org"), "arc", KEY.clone()).unwrap();
    let set = sealer
        .seal(
            changed.as_bytes(),
            &at_the_list,
            "mx.list.org",
            Timestamp::from_secs(1_700_000_000),
        )
        .unwrap();
    let forwarded = format!("{set}{changed}");
    let reverse_path = ReversePath::Address(EmailAddress::parse("bounces@list.org").unwrap());
    let inputs = Inputs {
        ip: ip(BAD),
        helo: "mail.list.org",
        reverse_path: &reverse_path,
        message: forwarded.as_bytes(),
        receiver: "mx.example.com",
        now: Timestamp::from_secs(1_700_000_000),
        connection: None,
        dnsbl_zones: &[],
    };
    let here = gather(&table, &inputs).now_or_never().unwrap();
    assert_eq!(here.dmarc.result, DmarcResult::Fail);
    assert_eq!(short(&judge(&here, &Policy::default())), "550 5.7.26");
    let trusting = Policy {
        trusted_sealers: vec![d("list.org")],
        ..Policy::default()
    };
    let judgement = judge(&here, &trusting);
    assert_eq!(
        (short(&judgement).as_str(), judgement.rule),
        ("accept", Rule::TrustedArc)
    );
}

#[test]
fn blocklists() {
    let name = |ip_labels: &str| format!("{ip_labels}.list.example");
    let bad = name("66.113.0.203");
    for (answers, result) in [
        (&[][..], DnsblResult::NotListed),
        (&["127.0.0.2"], DnsblResult::Listed),
        (&["127.0.0.2", "127.0.0.10"], DnsblResult::Listed),
        (&["127.255.255.254"], DnsblResult::Refused),
        (&["127.0.0.2", "127.255.255.252"], DnsblResult::Refused),
        (&["192.0.2.7"], DnsblResult::TempError),
    ] {
        let table = answers
            .iter()
            .fold(zone(""), |t, a| t.with_address(&bad, ip(a)))
            .with_txt(&bad, "see\r\nhttps://l");
        let outcome = dnsbl::check(&table, &d("list.example"), ip(BAD))
            .now_or_never()
            .unwrap();
        assert_eq!(outcome.result, result, "{answers:?}");
        let judgement = judged(&table, FORGED, &Policy::default());
        let expected = if result == DnsblResult::Listed {
            "550 5.7.1"
        } else {
            "accept"
        };
        assert_eq!(short(&judgement), expected, "{answers:?}");
    }
    let slow = zone("").with_timeout(&bad);
    assert_eq!(
        dnsbl::check(&slow, &d("list.example"), ip(BAD))
            .now_or_never()
            .unwrap()
            .result,
        DnsblResult::TempError
    );
    let v6 = name("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2");
    let table = zone("")
        .with_address(&v6, ip("127.0.0.3"))
        .with_address(&bad, ip("127.0.0.2"))
        .with_txt(&bad, "spam seen");
    let outcome = dnsbl::check(&table, &d("list.example"), ip("2001:db8::1"))
        .now_or_never()
        .unwrap();
    assert_eq!((outcome.result, outcome.reason), (DnsblResult::Listed, None));
    let connection = gather_connection(&table, ip(BAD), &[d("list.example")])
        .now_or_never()
        .unwrap();
    let judgement = judge_connection(&connection, &Policy::default()).unwrap();
    assert_eq!(
        judgement.because,
        "Your address 203.0.113.66 is on the blocklist list.example: spam seen"
    );
    let only_junk = Policy {
        listed: Action::Junk,
        ..Policy::default()
    };
    assert!(judge_connection(&connection, &only_junk).is_none());
    assert_eq!(short(&judged(&table, HONEST, &only_junk)), "accept");
    assert_eq!(short(&judged(&table, FORGED, &only_junk)), "junk");
}

#[test]
fn names_of_addresses() {
    let table = TableResolver::new()
        .with_ptr(ip("192.0.2.1"), d("liar.example"))
        .with_ptr(ip("192.0.2.1"), d("mail.example"))
        .with_address("mail.example", ip("192.0.2.1"))
        .with_ptr(ip("192.0.2.2"), d("liar.example"))
        .with_ptr(ip("192.0.2.3"), d("slow.example"))
        .with_timeout("slow.example")
        .with_timeout("4.2.0.192.in-addr.arpa")
        .with_ptr(ip("2001:db8::1"), d("six.example"))
        .with_address("six.example", ip("2001:db8::1"));
    for (client, result, name) in [
        ("192.0.2.1", IprevResult::Pass, Some("mail.example")),
        ("::ffff:192.0.2.1", IprevResult::Pass, Some("mail.example")),
        ("192.0.2.2", IprevResult::Fail, None),
        ("192.0.2.3", IprevResult::TempError, None),
        ("192.0.2.4", IprevResult::TempError, None),
        ("192.0.2.5", IprevResult::PermError, None),
        ("2001:db8::1", IprevResult::Pass, Some("six.example")),
    ] {
        let outcome = iprev::check(&table, ip(client)).now_or_never().unwrap();
        assert_eq!((outcome.result, outcome.name), (result, name.map(d)), "{client}");
    }
}

#[test]
fn header_fields() {
    let honest = evidence(&zone("p=reject"), HONEST);
    let field = headers::authentication_results(&honest, "mx.example.com");
    let prefix = &honest.dkim.signatures[0].signature_prefix;
    // A slash may not stand in a token.
    let header_b = if prefix.contains('/') {
        format!("\"{prefix}\"")
    } else {
        prefix.clone()
    };
    assert_eq!(
        field,
        format!(
            "Authentication-Results: mx.example.com;\r\n\
             \tiprev=pass (out.gmail.com) policy.iprev=192.0.2.1;\r\n\
             \tspf=pass smtp.mailfrom=alice@gmail.com;\r\n\
             \tdkim=pass header.d=gmail.com header.s=s1 header.a=ed25519-sha256\r\n\
             \theader.b={header_b};\r\n\
             \tdmarc=pass (p=reject) header.from=gmail.com\r\n"
        )
    );
    assert_eq!(
        headers::received_spf(&honest.spf, "alice@gmail.com", "mx.example.com"),
        "Received-SPF: pass\r\n\
         \t(mx.example.com: gmail.com lets 192.0.2.1 send its mail [ip4:192.0.2.1])\r\n\
         \tclient-ip=192.0.2.1; envelope-from=\"alice@gmail.com\";\r\n\
         \thelo=mail.gmail.com; receiver=mx.example.com; identity=mailfrom;\r\n\
         \tmechanism=\"ip4:192.0.2.1\"\r\n"
    );
    let bounce = Case {
        mail_from: "",
        ..FORGED
    };
    let field = headers::authentication_results(&evidence(&zone(""), bounce), "mx.example.com");
    assert!(
        field.contains("spf=none") && field.contains("smtp.helo=mail.gmail.com"),
        "{field}"
    );
    assert!(
        field.contains("dkim=none") && field.contains("dmarc=none"),
        "{field}"
    );
    assert_eq!(headers::forged(field.as_bytes(), "mx.example.com").len(), 1);
}

#[test]
fn a_strangers_words_cannot_break_a_field() {
    for local in [
        "\"; dmarc=pass header.from=bank.example; x\"",
        "\"a\\\\\\\" ( )\"",
        "\"x\u{e9}\"",
    ] {
        let mail_from = format!("{local}@gmail.com");
        let case = Case {
            mail_from: &mail_from,
            ..FORGED
        };
        let evidence = evidence(&zone("p=none"), case);
        for field in [
            headers::authentication_results(&evidence, "mx.example.com"),
            headers::received_spf(&evidence.spf, &mail_from, "mx.example.com"),
        ] {
            assert_eq!(mail::header::fields(field.as_bytes()).count(), 1, "{field}");
            assert!(
                !field.contains("; dmarc=pass header.from=bank.example; x@"),
                "{field}"
            );
            assert_eq!(field.matches('\n').count(), field.matches("\r\n").count());
        }
    }
}

#[test]
fn who_a_report_would_wrong() {
    // SPF says that the client does not send for the domain, and nothing else speaks for it.
    let table = zone("p=none");
    assert!(evidence(&table, FORGED).denies_reverse_path());
    let null = Case {
        mail_from: "",
        ..FORGED
    };
    let signed = Case {
        signed_by: Some("gmail.com"),
        ..FORGED
    };
    let signed_by_another = Case {
        signed_by: Some("other.example"),
        ..FORGED
    };
    assert!(evidence(&table, signed_by_another).denies_reverse_path());
    for case in [null, signed, HONEST] {
        assert!(!evidence(&table, case).denies_reverse_path());
    }
}

#[test]
fn everything_is_told_in_words_and_in_json() {
    let evidence = evidence(&zone("p=reject"), FORGED);
    let lines = evidence.explain();
    for part in [
        "iprev: permerror",
        "SPF of alice@gmail.com",
        "DKIM: none",
        "DMARC of gmail.com: fail",
        "ARC: none",
    ] {
        assert!(lines.iter().any(|l| l.contains(part)), "{part}: {lines:#?}");
    }
    let spf = evidence
        .dmarc
        .identifiers
        .iter()
        .find(|i| i.mechanism == Mechanism::Spf)
        .unwrap();
    assert_eq!(spf.aligned, Some(true));
    let json = serde_json::to_value(&evidence).unwrap();
    assert_eq!(json["dmarc"]["result"], "fail");
    assert_eq!(json["dkim"]["result"], "none");
    let json = serde_json::to_value(judge(&evidence, &Policy::default())).unwrap();
    assert_eq!(json["disposition"]["refuse"]["status"], "5.7.26");
    assert_eq!(json["rule"], "dmarc-reject");
}
