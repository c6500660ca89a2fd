//! Where mail goes: tables of DNS answers and what follows from them.
#![allow(clippy::unwrap_used)]

use deliver::plan::{self, AddressBook, AddressOrder, Addresses, By, HOSTS_MAX, Listening, Own, Plan};
use deliver::route::Target;
use deliver::{Action, Failure, Route, RouteFor, ServerName, TlsPolicy};
use dns::{DnsError, Mx};
use mail::Domain;
use std::net::{Ipv4Addr, Ipv6Addr};

fn d(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn mx(preference: u16, host: &str) -> Mx {
    Mx {
        preference,
        exchange: (host != ".").then(|| d(host)),
    }
}

fn own() -> Own {
    Own {
        names: vec![d("mail.ours.example")],
        port: 25,
        order: AddressOrder::V4First,
        listening: Listening::default(),
    }
}

fn unavailable(name: &str) -> DnsError {
    DnsError::Unavailable {
        name: name.to_owned(),
        reason: "no answer in time".to_owned(),
    }
}

/// Every host has one address, `192.0.2.n` by its place among the names.
fn book(names: &[&str]) -> AddressBook {
    let entry = |(i, name): (usize, &&str)| {
        let addresses = Addresses {
            v4: Ok(vec![Ipv4Addr::new(192, 0, 2, i as u8 + 1)]),
            v6: Ok(Vec::new()),
        };
        (d(name), addresses)
    };
    names.iter().enumerate().map(entry).collect()
}

fn planned(answer: Result<Vec<Mx>, DnsError>, book: &AddressBook) -> Result<Plan, Failure> {
    let hosts = plan::hosts_by_mx(&d("example.com"), answer, &own(), &mut |_| 0)?;
    plan::plan(hosts, book, &own())
}

fn hop_names(plan: &Plan) -> Vec<String> {
    plan.hops.iter().map(|h| h.host.to_string()).collect()
}

#[test]
fn failures_by_the_answer() {
    let no_name = || DnsError::NoSuchName("example.com".to_owned());
    let none = || Addresses {
        v4: Ok(Vec::new()),
        v6: Err(no_name()),
    };
    let empty: AddressBook = [(d("example.com"), none()), (d("a.example"), none())].into();
    let slow: AddressBook = [(
        d("a.example"),
        Addresses {
            v4: Err(unavailable("a.example")),
            v6: Ok(Vec::new()),
        },
    )]
    .into();
    for (answer, book, code, status) in [
        (Err(no_name()), &empty, 550, "5.1.2"),
        (Err(unavailable("example.com")), &empty, 451, "4.4.3"),
        (Ok(vec![mx(0, ".")]), &empty, 556, "5.1.10"),
        (Ok(vec![]), &empty, 550, "5.1.2"),
        (Ok(vec![mx(10, "a.example")]), &empty, 550, "5.4.4"),
        (Ok(vec![mx(10, "a.example")]), &slow, 451, "4.4.3"),
        (Ok(vec![mx(10, "mail.ours.example")]), &empty, 550, "5.4.6"),
        (
            Ok(vec![mx(10, "mail.ours.example"), mx(20, "a.example")]),
            &empty,
            550,
            "5.4.6",
        ),
    ] {
        let failure = planned(answer.clone(), book).unwrap_err();
        assert_eq!(
            (failure.code, failure.status.to_string().as_str()),
            (code, status),
            "{answer:?}"
        );
    }
}

#[test]
fn preference_decides_and_a_host_that_fails_in_the_dns_is_passed_over() {
    let mut book = book(&["a.example", "b.example", "c.example"]);
    let answer = vec![mx(30, "c.example"), mx(10, "a.example"), mx(20, "b.example")];
    let plan = planned(Ok(answer.clone()), &book).unwrap();
    assert_eq!(hop_names(&plan), ["a.example", "b.example", "c.example"]);
    assert_eq!(plan.by, By::Mx);
    book.insert(
        d("a.example"),
        Addresses {
            v4: Err(unavailable("a.example")),
            v6: Err(unavailable("a.example")),
        },
    );
    let plan = planned(Ok(answer), &book).unwrap();
    assert_eq!(hop_names(&plan), ["b.example", "c.example"]);
    assert!(plan.in_words().contains("a.example"), "{}", plan.in_words());
}

#[test]
fn equal_preferences_are_shuffled() {
    let names = ["a.example", "b.example", "c.example"];
    let book = book(&names);
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..24usize {
        let answer = names
            .iter()
            .map(|n| mx(10, n))
            .chain([mx(5, "a.example")])
            .collect();
        let mut state = seed;
        let mut random = |n: usize| {
            state = state.wrapping_mul(7).wrapping_add(3);
            state % n
        };
        let hosts = plan::hosts_by_mx(&d("example.com"), Ok(answer), &own(), &mut random).unwrap();
        let plan = plan::plan(hosts, &book, &own()).unwrap();
        let order = hop_names(&plan);
        assert_eq!(order[0], "a.example", "the lower preference stays first");
        seen.insert(order);
    }
    assert_eq!(seen.len(), 2, "b and c come in both orders: {seen:?}");
}

#[test]
fn hosts_behind_ourselves_are_cut() {
    let book = book(&["a.example", "b.example"]);
    let answer = vec![
        mx(10, "a.example"),
        mx(20, "MAIL.ours.example"),
        mx(30, "b.example"),
    ];
    let plan = planned(Ok(answer), &book).unwrap();
    assert_eq!(hop_names(&plan), ["a.example"]);
    assert!(plan.in_words().contains("is this server"));
}

#[test]
fn without_mx_the_domain_itself() {
    let plan = planned(Ok(Vec::new()), &book(&["example.com"])).unwrap();
    assert_eq!(plan.by, By::AddressFallback);
    assert_eq!(plan.hops[0].address.to_string(), "192.0.2.1:25");
}

#[test]
fn a_null_mx_beside_another_does_not_count() {
    let plan = planned(Ok(vec![mx(0, "."), mx(10, "a.example")]), &book(&["a.example"])).unwrap();
    assert_eq!(hop_names(&plan), ["a.example"]);
}

#[test]
fn address_families_in_the_wanted_order() {
    let v6: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let v4 = Ipv4Addr::new(192, 0, 2, 1);
    let book: AddressBook = [(
        d("a.example"),
        Addresses {
            v4: Ok(vec![v4]),
            v6: Ok(vec![v6]),
        },
    )]
    .into();
    for (order, wanted) in [
        (AddressOrder::V4First, vec!["192.0.2.1", "2001:db8::1"]),
        (AddressOrder::V6First, vec!["2001:db8::1", "192.0.2.1"]),
        (AddressOrder::V4Only, vec!["192.0.2.1"]),
        (AddressOrder::V6Only, vec!["2001:db8::1"]),
    ] {
        let hosts = plan::hosts_by_mx(
            &d("example.com"),
            Ok(vec![mx(1, "a.example")]),
            &own(),
            &mut |_| 0,
        )
        .unwrap();
        let plan = plan::plan(hosts, &book, &Own { order, ..own() }).unwrap();
        let got: Vec<String> = plan.hops.iter().map(|h| h.address.ip().to_string()).collect();
        assert_eq!(got, wanted);
    }
}

/// A family that is dead is passed by after one address (RFC 8305 §4).
#[test]
fn the_families_take_turns() {
    let v4 = |n| Ipv4Addr::new(192, 0, 2, n);
    let v6 = |n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n);
    let book: AddressBook = [(
        d("a.example"),
        Addresses {
            v4: Ok(vec![v4(1), v4(2), v4(3)]),
            v6: Ok(vec![v6(1)]),
        },
    )]
    .into();
    for (order, wanted) in [
        (
            AddressOrder::V4First,
            ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"],
        ),
        (
            AddressOrder::V6First,
            ["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"],
        ),
    ] {
        let answer = Ok(vec![mx(1, "a.example")]);
        let hosts = plan::hosts_by_mx(&d("example.com"), answer, &own(), &mut |_| 0).unwrap();
        let plan = plan::plan(hosts, &book, &Own { order, ..own() }).unwrap();
        let got: Vec<String> = plan.hops.iter().map(|h| h.address.ip().to_string()).collect();
        assert_eq!(got, wanted);
    }
}

#[test]
fn many_hosts_are_bounded() {
    let names: Vec<String> = (0..50).map(|i| format!("mx{i}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let answer = names.iter().enumerate().map(|(i, n)| mx(i as u16, n)).collect();
    let plan = planned(Ok(answer), &book(&names)).unwrap();
    assert_eq!(plan.hops.len(), HOSTS_MAX);
    assert_eq!(plan.hops[0].host.to_string(), "mx0.example");
}

#[test]
fn literals_and_routes() {
    let hosts = plan::hosts_by_literal("192.0.2.9".parse().unwrap(), &own());
    let plan = plan::plan(hosts, &AddressBook::new(), &own()).unwrap();
    assert_eq!(plan.hops[0].address.to_string(), "192.0.2.9:25");

    let relay = ServerName::parse("relay.example").unwrap();
    let route = Route::to(RouteFor::Everything, relay, 2525, TlsPolicy::Required);
    let hosts = || plan::hosts_by_route(&route, targets(&route), &mut |_| 0);
    let plan = plan::plan(hosts(), &book(&["relay.example"]), &own()).unwrap();
    assert_eq!(plan.hops[0].address.to_string(), "192.0.2.1:2525");
    assert_eq!((plan.hops[0].preference, plan.tls), (None, TlsPolicy::Required));

    // A route that leads nowhere is the operator's fault: the mail waits.
    let failure = plan::plan(hosts(), &AddressBook::new(), &own()).unwrap_err();
    assert!(!failure.is_permanent());
    assert!(
        failure.words.contains("the route for * in the settings"),
        "{failure}"
    );
}

fn targets(route: &Route) -> &[Target] {
    match &route.action {
        Action::Relay(targets) => targets,
        other => panic!("{other}"),
    }
}

#[test]
fn a_route_with_several_hosts_keeps_their_preference_and_their_ports() {
    let target = |text| Target::parse(text, 25).unwrap();
    let mut route = Route::to(
        RouteFor::Everything,
        ServerName::parse("c.example").unwrap(),
        25,
        TlsPolicy::Off,
    );
    route.action = Action::Relay(vec![
        target("20 c.example"),
        target("10 a.example:26"),
        target("10 b.example"),
    ]);
    let book = book(&["a.example", "b.example", "c.example"]);
    let mut seen = std::collections::BTreeSet::new();
    for pick in 0..3 {
        let hosts = plan::hosts_by_route(&route, targets(&route), &mut |n| pick % n);
        let plan = plan::plan(hosts, &book, &own()).unwrap();
        let hops = plan.hops.iter().map(|hop| hop.address.to_string());
        let hops: Vec<String> = hops.collect();
        assert_eq!(hops[2], "192.0.2.3:25", "the less preferred one is last");
        seen.insert(hops);
    }
    assert_eq!(seen.len(), 2, "a and b come in both orders: {seen:?}");
}

#[test]
fn a_route_to_the_exchangers_of_another_domain() {
    let route = Route::to(
        RouteFor::Everything,
        ServerName::parse("x.example").unwrap(),
        25,
        TlsPolicy::Required,
    );
    let by = |answer| plan::hosts_by_mx_of(&route, &d("example.net"), answer, &own(), &mut |_| 0);
    let hosts = by(Ok(vec![mx(20, "b.example"), mx(10, "a.example")])).unwrap();
    let plan = plan::plan(hosts, &book(&["a.example", "b.example"]), &own()).unwrap();
    assert_eq!(hop_names(&plan), ["a.example", "b.example"]);
    assert_eq!(plan.tls, TlsPolicy::Required);
    let words = plan.in_words();
    assert!(words.contains("the mail exchangers of example.net"), "{words}");

    // What would be for good without a route waits for its correction with one.
    for answer in [
        Ok(vec![mx(0, ".")]),
        Err(DnsError::NoSuchName("example.net".to_owned())),
        Ok(vec![mx(10, "mail.ours.example")]),
    ] {
        let failure = by(answer).unwrap_err();
        assert!(!failure.is_permanent(), "{failure}");
        assert!(failure.words.contains("correct the route"), "{failure}");
    }
}

/// RFC 5321 §5.1, by address: an exchanger under a name that we do not know may still be us.
#[test]
fn an_address_at_which_we_listen_is_us() {
    let listening = |addresses: &[&str]| Own {
        listening: Listening {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            is_here: Some(|ip| ip.to_string() == "192.0.2.2"),
        },
        ..own()
    };
    // a is 192.0.2.1, b is 192.0.2.2, c is 192.0.2.3.
    let book = book(&["a.example", "b.example", "c.example"]);
    let answer = || {
        let all = vec![mx(10, "a.example"), mx(20, "b.example"), mx(20, "c.example")];
        plan::hosts_by_mx(&d("example.com"), Ok(all), &own(), &mut |_| 0).unwrap()
    };
    for ours in [
        listening(&["192.0.2.2:25"]),
        listening(&["0.0.0.0:25"]),
        listening(&["[::]:25"]),
    ] {
        let plan = plan::plan(answer(), &book, &ours).unwrap();
        assert_eq!(
            hop_names(&plan),
            ["a.example"],
            "also those that are as preferred"
        );
        let words = plan.in_words();
        assert!(words.contains("192.0.2.2:25 is this server"), "{words}");
    }
    for elsewhere in [listening(&["192.0.2.2:2525"]), listening(&["198.51.100.1:25"])] {
        assert_eq!(plan::plan(answer(), &book, &elsewhere).unwrap().hops.len(), 3);
    }

    let ours = listening(&["192.0.2.1:25"]);
    let failure = plan::plan(answer(), &book, &ours).unwrap_err();
    assert_eq!(
        (failure.code, failure.status.to_string().as_str()),
        (550, "5.4.6")
    );
    let literal = plan::hosts_by_literal("192.0.2.1".parse().unwrap(), &own());
    assert_eq!(plan::plan(literal, &book, &ours).unwrap_err().code, 550);
    let route = Route::to(
        RouteFor::Everything,
        ServerName::parse("192.0.2.1").unwrap(),
        25,
        TlsPolicy::Off,
    );
    let hosts = plan::hosts_by_route(&route, targets(&route), &mut |_| 0);
    let failure = plan::plan(hosts, &book, &ours).unwrap_err();
    assert_eq!(
        (failure.code, failure.status.to_string().as_str()),
        (451, "4.4.6")
    );
}
