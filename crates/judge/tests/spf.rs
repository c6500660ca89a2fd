//! SPF against tables written from RFC 7208: mechanisms, modifiers, limits and errors.
#![allow(clippy::unwrap_used)]

use dns::table::TableResolver;
use futures_util::FutureExt;
use judge::spf::{self, SpfOutcome, SpfQuery, SpfResult};
use mail::{Domain, Timestamp};
use std::net::IpAddr;

fn d(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn check(table: &TableResolver, client: &str, helo: &str, mail_from: &str) -> SpfOutcome {
    let query = SpfQuery {
        ip: ip(client),
        helo,
        mail_from,
        receiver: "mx.receiver.example",
        now: Timestamp::from_secs(1_234_567),
    };
    spf::check(table, &query)
        .now_or_never()
        .expect("a table answers at once")
}

fn result(table: &TableResolver, client: &str) -> SpfResult {
    check(table, client, "mail-a.example.com", "someone@example.com").result
}

/// The zone of RFC 7208 Appendix A.
fn appendix_a() -> TableResolver {
    TableResolver::new()
        .with_mx("example.com", 10, Some(d("mail-a.example.com")))
        .with_mx("example.com", 20, Some(d("mail-b.example.com")))
        .with_address("example.com", ip("192.0.2.10"))
        .with_address("example.com", ip("192.0.2.11"))
        .with_address("amy.example.com", ip("192.0.2.65"))
        .with_address("bob.example.com", ip("192.0.2.66"))
        .with_address("mail-a.example.com", ip("192.0.2.129"))
        .with_address("mail-b.example.com", ip("192.0.2.130"))
        .with_mx("example.org", 10, Some(d("mail-c.example.org")))
        .with_address("mail-c.example.org", ip("192.0.2.140"))
        .with_ptr(ip("192.0.2.10"), d("example.com"))
        .with_ptr(ip("192.0.2.11"), d("example.com"))
        .with_ptr(ip("192.0.2.65"), d("amy.example.com"))
        .with_ptr(ip("192.0.2.66"), d("bob.example.com"))
        .with_ptr(ip("192.0.2.129"), d("mail-a.example.com"))
        .with_ptr(ip("10.0.0.4"), d("bob.example.com"))
}

#[test]
fn the_simple_examples_of_the_rfc() {
    use SpfResult::{Fail, Neutral, Pass};
    for (record, client, expected) in [
        ("v=spf1 +all", "203.0.113.9", Pass),
        ("v=spf1 a -all", "192.0.2.10", Pass),
        ("v=spf1 a -all", "192.0.2.65", Fail),
        ("v=spf1 a:example.org -all", "192.0.2.10", Fail),
        ("v=spf1 mx -all", "192.0.2.129", Pass),
        ("v=spf1 mx -all", "192.0.2.130", Pass),
        ("v=spf1 mx -all", "192.0.2.10", Fail),
        ("v=spf1 mx:example.org -all", "192.0.2.140", Pass),
        ("v=spf1 mx mx:example.org -all", "192.0.2.140", Pass),
        ("v=spf1 mx/30 mx:example.org/30 -all", "192.0.2.131", Pass),
        ("v=spf1 mx/30 mx:example.org/30 -all", "192.0.2.143", Pass),
        ("v=spf1 mx/30 mx:example.org/30 -all", "192.0.2.144", Fail),
        ("v=spf1 ptr -all", "192.0.2.65", Pass),
        ("v=spf1 ptr -all", "192.0.2.140", Fail),
        ("v=spf1 ptr -all", "10.0.0.4", Fail),
        ("v=spf1 ip4:192.0.2.128/28 -all", "192.0.2.129", Pass),
        ("v=spf1 ip4:192.0.2.128/28 -all", "192.0.2.65", Fail),
        ("v=spf1", "192.0.2.65", Neutral),
    ] {
        let table = appendix_a().with_txt("example.com", record);
        let outcome = check(&table, client, "mail-a.example.com", "x@example.com");
        assert_eq!(
            outcome.result,
            expected,
            "{record} {client}: {:#?}",
            outcome.explain()
        );
    }
}

/// RFC 7208 A.4: users allowed one by one, with an explanation for the others.
#[test]
fn explanations_and_users() {
    let table = TableResolver::new()
        .with_txt(
            "example.com",
            "v=spf1 mx include:mobile-users._spf.%{d} include:remote-users._spf.%{d} -all exp=why.%{d}",
        )
        .with_mx("example.com", 10, Some(d("mail.example.com")))
        .with_address("mail.example.com", ip("192.0.2.1"))
        .with_txt("mobile-users._spf.example.com", "v=spf1 exists:%{l1r+}.%{d}")
        .with_address("fred.mobile-users._spf.example.com", ip("127.0.0.2"))
        .with_txt(
            "remote-users._spf.example.com",
            "v=spf1 exists:%{ir}.%{l1r+}.%{d} ?all",
        )
        .with_txt(
            "why.example.com",
            "%{c} may not send for %{s} (asked by %{r} at %{t})",
        );
    let of = |sender: &str| check(&table, "203.0.113.9", "h.example", sender);
    assert_eq!(of("fred+folder@example.com").result, SpfResult::Pass);
    let mary = of("mary@example.com");
    assert_eq!(mary.result, SpfResult::Fail);
    assert_eq!(
        mary.explanation.as_deref(),
        Some("203.0.113.9 may not send for mary@example.com (asked by mx.receiver.example at 1234567)")
    );
    assert_eq!(mary.decided_by.unwrap().term, "-all");
    assert_eq!((mary.lookups, mary.void_lookups), (5, 2));
}

#[test]
fn what_an_include_means() {
    use SpfResult::{Neutral, Pass, PermError, TempError};
    for (included, expected) in [
        (Some("v=spf1 +all"), Pass),
        (Some("v=spf1 -all"), Neutral),
        (Some("v=spf1 ~all"), Neutral),
        (Some("v=spf1 ?all"), Neutral),
        (Some("v=spf1 nonsense"), PermError),
        (Some("no spf"), PermError),
        (None, PermError),
    ] {
        let mut table = TableResolver::new().with_txt("example.com", "v=spf1 include:in.example.net");
        if let Some(text) = included {
            table = table.with_txt("in.example.net", text);
        }
        assert_eq!(result(&table, "192.0.2.1"), expected, "{included:?}");
    }
    let slow = TableResolver::new()
        .with_txt("example.com", "v=spf1 include:in.example.net +all")
        .with_timeout("in.example.net");
    assert_eq!(result(&slow, "192.0.2.1"), TempError);
}

#[test]
fn redirects() {
    use SpfResult::{Fail, Neutral, Pass, PermError};
    let table = TableResolver::new()
        .with_txt(
            "example.com",
            "v=spf1 redirect=_spf.example.net exp=never.example.com",
        )
        .with_txt(
            "_spf.example.net",
            "v=spf1 ip4:192.0.2.1 -all exp=why.example.net",
        )
        .with_txt("why.example.net", "see %{d}")
        .with_txt("all.example.com", "v=spf1 ?all redirect=_spf.example.net")
        .with_txt("gone.example.com", "v=spf1 redirect=nowhere.example.net");
    assert_eq!(result(&table, "192.0.2.1"), Pass);
    let fail = check(&table, "192.0.2.2", "h.example", "x@example.com");
    assert_eq!(
        (fail.result, fail.explanation.as_deref()),
        (Fail, Some("see _spf.example.net"))
    );
    assert_eq!(fail.decided_by.as_ref().unwrap().domain, "_spf.example.net");
    assert_eq!(
        fail.because(),
        "example.com does not let 192.0.2.2 send its mail (-all in the record of _spf.example.net)"
    );
    let of = |sender: &str| check(&table, "192.0.2.1", "h.example", sender).result;
    assert_eq!(of("x@all.example.com"), Neutral, "all hides redirect");
    assert_eq!(of("x@gone.example.com"), PermError);
}

#[test]
fn which_identity_is_checked() {
    use SpfResult::{None, Pass};
    let table = TableResolver::new()
        .with_txt("example.com", "v=spf1 exists:%{l}.is.%{o}")
        .with_address("postmaster.is.example.com", ip("127.0.0.1"))
        .with_txt("xn--bcher-kva.example", "v=spf1 +all");
    for (helo, mail_from, expected, sender) in [
        ("Example.COM", "", Pass, "postmaster@example.com"),
        ("x", "@example.com", Pass, "postmaster@example.com"),
        ("x", "example.com", Pass, "postmaster@example.com"),
        ("x", "a@b\u{fc}cher.example", Pass, "a@xn--bcher-kva.example"),
        ("localhost", "", None, "postmaster@localhost"),
        ("[192.0.2.1]", "", None, "postmaster@[192.0.2.1]"),
        ("", "", None, "postmaster@"),
        ("x", "a@b..example", None, "a@b..example"),
        ("x", "a@nowhere.example", None, "a@nowhere.example"),
    ] {
        let outcome = check(&table, "192.0.2.1", helo, mail_from);
        assert_eq!(
            (outcome.result, outcome.sender.as_str()),
            (expected, sender),
            "{helo} {mail_from}"
        );
    }
    let long = format!("a@{}.example.com", "l".repeat(64));
    assert_eq!(check(&table, "192.0.2.1", "x", &long).result, None);
}

#[test]
fn records_found_and_not() {
    use SpfResult::{None, Pass, PermError, TempError};
    let table = |texts: &[&str]| {
        texts
            .iter()
            .fold(TableResolver::new().with_empty("example.com"), |t, text| {
                t.with_txt("example.com", text)
            })
    };
    assert_eq!(result(&TableResolver::new(), "192.0.2.1"), None);
    assert_eq!(result(&table(&[]), "192.0.2.1"), None);
    assert_eq!(result(&table(&["v=spf10 +all", "other"]), "192.0.2.1"), None);
    assert_eq!(result(&table(&["x", "v=spf1 +all"]), "192.0.2.1"), Pass);
    assert_eq!(result(&table(&["v=spf1 +all", "V=SPF1"]), "192.0.2.1"), PermError);
    assert_eq!(
        result(&table(&["v=spf1 +all moo"]), "192.0.2.1"),
        PermError,
        "read before evaluated"
    );
    assert_eq!(
        result(&TableResolver::new().with_timeout("example.com"), "192.0.2.1"),
        TempError
    );
}

/// RFC 7208 §4.6.4.
#[test]
fn limits() {
    use SpfResult::{Neutral, Pass, PermError};
    let with_terms = |n: usize| {
        let terms: Vec<String> = (0..n).map(|i| format!("a:h{i}.example.com")).collect();
        let table =
            TableResolver::new().with_txt("example.com", format!("v=spf1 {} ip4:192.0.2.1", terms.join(" ")));
        (0..n).fold(table, |t, i| {
            t.with_address(&format!("h{i}.example.com"), ip("203.0.113.1"))
        })
    };
    assert_eq!(result(&with_terms(10), "192.0.2.1"), Pass);
    assert_eq!(result(&with_terms(11), "192.0.2.1"), PermError);
    let voids = |n: usize| {
        let terms: Vec<String> = (0..n).map(|i| format!("a:h{i}.example.com")).collect();
        TableResolver::new().with_txt("example.com", format!("v=spf1 {}", terms.join(" ")))
    };
    assert_eq!(result(&voids(2), "192.0.2.1"), Neutral);
    assert_eq!(result(&voids(3), "192.0.2.1"), PermError);
    let exchangers = |n: u16| {
        let table = TableResolver::new().with_txt("example.com", "v=spf1 mx");
        (0..n).fold(table, |t, i| {
            let host = format!("m{i}.example.com");
            t.with_mx("example.com", i, Some(d(&host)))
                .with_address(&host, ip("192.0.2.1"))
        })
    };
    assert_eq!(result(&exchangers(10), "192.0.2.1"), Pass);
    assert_eq!(result(&exchangers(11), "192.0.2.1"), PermError);
    let names = |n: usize| {
        let table = TableResolver::new().with_txt("example.com", "v=spf1 ptr");
        (1..=n).fold(table, |t, i| {
            let host = if i == n {
                "ok.example.com".to_owned()
            } else {
                format!("h{i}.example.org")
            };
            t.with_ptr(ip("192.0.2.1"), d(&host))
                .with_address(&host, ip("192.0.2.1"))
        })
    };
    assert_eq!(result(&names(10), "192.0.2.1"), Pass);
    assert_eq!(
        result(&names(11), "192.0.2.1"),
        Neutral,
        "only the first ten count"
    );
    let itself = TableResolver::new().with_txt("example.com", "v=spf1 include:example.com");
    assert_eq!(result(&itself, "192.0.2.1"), PermError);
    let onwards = TableResolver::new().with_txt("example.com", "v=spf1 redirect=example.com");
    assert_eq!(result(&onwards, "192.0.2.1"), PermError);
}

#[test]
fn trouble_with_the_dns_is_temporary() {
    use SpfResult::{Neutral, Pass, TempError};
    for (record, expected) in [
        ("v=spf1 a:slow.example.com +all", TempError),
        ("v=spf1 exists:slow.example.com +all", TempError),
        ("v=spf1 mx:slow.example.com +all", TempError),
        ("v=spf1 redirect=slow.example.com", TempError),
        ("v=spf1 ptr:slow.example.com", Neutral),
        ("v=spf1 +all exp=slow.example.com", Pass),
    ] {
        let table = TableResolver::new()
            .with_txt("example.com", record)
            .with_timeout("slow.example.com")
            .with_timeout("1.2.0.192.in-addr.arpa");
        assert_eq!(result(&table, "192.0.2.1"), expected, "{record}");
    }
    let table = TableResolver::new()
        .with_txt("example.com", "v=spf1 -all exp=slow.example.com")
        .with_timeout("slow.example.com");
    let fail = check(&table, "192.0.2.1", "x", "a@example.com");
    assert_eq!((fail.result, fail.explanation), (SpfResult::Fail, None));
}

#[test]
fn ipv6_and_mapped_addresses() {
    use SpfResult::{Fail, Pass};
    let table = |record: &str| {
        TableResolver::new()
            .with_txt("example.com", record)
            .with_address("example.com", ip("2001:db8::10"))
            .with_address("example.com", ip("192.0.2.10"))
    };
    for (record, client, expected) in [
        ("v=spf1 a -all", "2001:db8::10", Pass),
        ("v=spf1 a//64 -all", "2001:db8::99", Pass),
        ("v=spf1 a/24//128 -all", "2001:db8::99", Fail),
        ("v=spf1 a/24//64 -all", "192.0.2.99", Pass),
        ("v=spf1 a -all", "::ffff:192.0.2.10", Pass),
        ("v=spf1 ip4:192.0.2.0/24 -all", "::ffff:192.0.2.10", Pass),
        ("v=spf1 ip6:::ffff:192.0.2.0/120 -all", "192.0.2.10", Fail),
        ("v=spf1 ip6:2001:db8::/32 -all", "2001:db8:ffff::1", Pass),
        ("v=spf1 ip6:::/0 -all", "2001:db9::1", Pass),
        ("v=spf1 ip6:::/0 -all", "192.0.2.1", Fail),
        ("v=spf1 ip4:0.0.0.0/0 -all", "192.0.2.1", Pass),
        ("v=spf1 ip4:0.0.0.0/0 -all", "2001:db8::1", Fail),
    ] {
        assert_eq!(result(&table(record), client), expected, "{record} {client}");
    }
}

#[test]
fn names_that_are_no_host_names_are_asked_too() {
    let table = TableResolver::new()
        .with_txt("example.com", "v=spf1 exists:%{l}.%%%_%-.example.com -all")
        .with_address("o'neil\"x.% %20.example.com", ip("127.0.0.1"));
    let of = |sender: &str| check(&table, "192.0.2.1", "x", sender).result;
    assert_eq!(of("O'Neil\"x@example.com"), SpfResult::Pass);
    // RFC 8616 §4
    assert_eq!(of("\u{fc}@example.com"), SpfResult::Fail);
}

#[test]
fn the_validated_name() {
    let table = TableResolver::new()
        .with_txt(
            "example.com",
            "v=spf1 exists:%{p}.ok.example.com -all exp=why.example.com",
        )
        .with_txt("why.example.com", "you are %{p}")
        .with_ptr(ip("192.0.2.1"), d("liar.example.com"))
        .with_ptr(ip("192.0.2.1"), d("host.example.org"))
        .with_ptr(ip("192.0.2.1"), d("host.example.com"))
        .with_address("liar.example.com", ip("192.0.2.9"))
        .with_address("host.example.org", ip("192.0.2.1"))
        .with_address("host.example.com", ip("192.0.2.1"))
        .with_address("host.example.com.ok.example.com", ip("127.0.0.1"));
    let pass = check(&table, "192.0.2.1", "x", "a@example.com");
    assert_eq!((pass.result, pass.lookups), (SpfResult::Pass, 2));
    let fail = check(&table, "192.0.2.2", "x", "a@example.com");
    assert_eq!(fail.explanation.as_deref(), Some("you are unknown"));
}

#[test]
fn steps_tell_the_whole_way() {
    let table = appendix_a()
        .with_txt("example.com", "v=spf1 a include:inner.example.org -all")
        .with_txt("inner.example.org", "v=spf1 ip4:198.51.100.1 mx:example.org ~all");
    let outcome = check(&table, "192.0.2.140", "x", "a@example.com");
    assert_eq!(
        outcome.explain(),
        [
            "SPF of a@example.com (mailfrom identity) for client 192.0.2.140: pass",
            "  example.com: record: found",
            "    DNS: example.com TXT: \"v=spf1 a include:inner.example.org -all\"",
            "  example.com: a: does not match",
            "    DNS: example.com A: 192.0.2.10, 192.0.2.11",
            "  example.com: include:inner.example.org: inner.example.org gives pass, so it matches",
            "    inner.example.org: record: found",
            "      DNS: inner.example.org TXT: \"v=spf1 ip4:198.51.100.1 mx:example.org ~all\"",
            "    inner.example.org: ip4:198.51.100.1: does not match",
            "    inner.example.org: mx:example.org: matches",
            "      DNS: example.org MX: 10 mail-c.example.org",
            "      DNS: mail-c.example.org A: 192.0.2.140",
            "  pass because example.com lets 192.0.2.140 send its mail (include:inner.example.org)",
            "  3 of 10 lookups, 0 of 2 void lookups",
        ]
    );
    assert!(
        serde_json::to_string(&outcome)
            .unwrap()
            .contains("\"result\":\"pass\"")
    );
}
