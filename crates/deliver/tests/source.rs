//! From which address of ours connections are made, and what the journey says of it.
#![allow(clippy::unwrap_used)]

mod common;

use common::stage::{FIRST, Stage, fates};
use common::{Net, Script};
use deliver::dial::Dialing;
use deliver::plan::{Hop, Plan};
use deliver::source::{Choice, Source, Sources};
use deliver::{Dialer, RouteFor, ServerName};
use journey::Event;
use mail::Domain;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

fn source(address: &str, domains: &[&str]) -> Source {
    Source {
        address: address.parse().unwrap(),
        helo: format!("out{}.gmail.com", address.len()),
        weight: 1,
        domains: domains.iter().map(|d| RouteFor::parse(d).unwrap()).collect(),
    }
}

fn sources(all: &[Source]) -> Sources {
    Sources {
        all: all.to_vec(),
        choice: Choice::Site,
    }
}

fn depart(sources: &Sources, plan: Plan, sender: &str) -> Result<Plan, deliver::Failure> {
    let sender = Domain::parse(sender).ok();
    sources.depart(plan, sender.as_ref(), &mut |_| 0)
}

fn departure(plan: &Plan) -> Option<String> {
    plan.departures.v4.as_ref().map(|d| d.address.to_string())
}

#[tokio::test]
async fn senders_have_their_own_pool_and_the_others_the_common_one() {
    let stage = Stage::new(&["bob@example.com"]).await;
    let pools = sources(&[
        source("198.51.100.1", &["gmail.com"]),
        source("198.51.100.22", &[]),
        source("198.51.100.133", &[".gmail.com"]),
    ]);
    for (sender, wanted) in [
        ("gmail.com", "198.51.100.1"),
        ("news.gmail.com", "198.51.100.133"),
        ("example.org", "198.51.100.22"),
        // Of a report nobody is the sender.
        ("", "198.51.100.22"),
    ] {
        let plan = depart(&pools, stage.plan.clone(), sender).unwrap();
        assert_eq!(departure(&plan).as_deref(), Some(wanted), "{sender}");
    }
    let none = depart(&Sources::default(), stage.plan.clone(), "gmail.com").unwrap();
    assert_eq!(departure(&none), None, "the system chooses");
}

#[tokio::test]
async fn the_order_of_equal_hosts_does_not_change_the_source() {
    let stage = Stage::new(&["bob@example.com"]).await;
    let pool: Vec<Source> = (1..=9).map(|n| source(&format!("198.51.100.{n}"), &[])).collect();
    let pool = sources(&pool);
    let mut turned = stage.plan.clone();
    turned.hops.reverse();
    let (a, b) = (
        depart(&pool, stage.plan.clone(), "a.example").unwrap(),
        depart(&pool, turned, "a.example").unwrap(),
    );
    assert_eq!(a.departures, b.departures);
}

#[tokio::test]
async fn a_family_without_a_source_is_left_out() {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    stage.plan.hops.push(Hop {
        host: ServerName::parse("mx.example.com").unwrap(),
        address: "[2001:db8::1]:25".parse().unwrap(),
        preference: Some(10),
    });
    let v4 = sources(&[source("198.51.100.1", &[])]);
    let plan = depart(&v4, stage.plan.clone(), "gmail.com").unwrap();
    assert!(plan.hops.iter().all(|hop| hop.address.is_ipv4()));
    assert!(
        plan.reason().contains("1 IPv6 addresses left out"),
        "{}",
        plan.reason()
    );
    let both = sources(&[source("198.51.100.1", &[]), source("2001:db8::aa", &[])]);
    assert_eq!(
        depart(&both, stage.plan.clone(), "gmail.com").unwrap().hops.len(),
        3
    );

    let v6 = sources(&[source("2001:db8::aa", &[])]);
    stage.plan.hops.pop();
    let failure = depart(&v6, stage.plan.clone(), "gmail.com").unwrap_err();
    assert_eq!(failure.status.to_string(), "4.4.4");
}

/// A network that notes from where it was called.
struct Noting {
    net: Arc<Net>,
    from: Mutex<Vec<Option<IpAddr>>>,
}

impl Dialer for Noting {
    fn dial(&self, to: SocketAddr) -> Dialing<'_> {
        self.dial_from(to, None)
    }

    fn dial_from(&self, to: SocketAddr, from: Option<IpAddr>) -> Dialing<'_> {
        self.from.lock().unwrap().push(from);
        self.net.dial(to)
    }
}

#[tokio::test(start_paused = true)]
async fn the_source_is_used_and_told() {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    let noting = Arc::new(Noting {
        net: stage.net.clone(),
        from: Mutex::default(),
    });
    stage.courier.dialer = noting.clone();
    let server = stage.net.put(FIRST, Script::default());
    let pool = sources(&[source("198.51.100.1", &[])]);
    stage.plan = depart(&pool, stage.plan.clone(), "gmail.com").unwrap();
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["taken"]);
    let ours: IpAddr = "198.51.100.1".parse().unwrap();
    assert_eq!(*noting.from.lock().unwrap(), [Some(ours)]);
    assert!(server.said("EHLO out12.gmail.com"));
    let Event::Attempt { source, helo, .. } = &attempted.events[0] else {
        panic!("{attempted:?}");
    };
    assert_eq!((*source, helo.as_deref()), (Some(ours), Some("out12.gmail.com")));
}
