//! DANE with nothing simulated in the DNS: signed zones served on loopback, the validating resolver that the
//! server uses, and servers in memory whose dialogue is looked at.
#![allow(clippy::unwrap_used)]

mod common;

use common::Script;
use common::stage::{FIRST, SECOND, Stage, fates, tries};
use common::world::domain;
use deliver::plan::{AddressOrder, Own};
use deliver::way;
use dns::hickory::{Checking, HickoryResolver, Options};
use journey::Event;
use lab::dns::{DnsServer, Fault, Zones};
use mail::{Host, Timestamp};
use std::time::Duration;

const TLSA: &str = "_25._tcp.mx.example.com";
const TLSA2: &str = "_25._tcp.mx2.example.com";
const WRONG: &str = "3 1 1 0707070707070707070707070707070707070707070707070707070707070707";

const ZONE: &str = "$ORIGIN example.com.\n@ MX 10 mx\n@ MX 20 mx2\nmx A 192.0.2.1\nmx2 A 192.0.2.2\n";

fn now() -> Timestamp {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_secs(since.as_secs() as i64)
}

/// A stage whose way is asked of a name server on loopback.
struct Lab {
    stage: Stage,
    server: DnsServer,
    resolver: HickoryResolver,
}

impl Lab {
    /// The root and `example.com` are signed, then changed as said.
    async fn new(change: impl FnOnce(&mut Zones, &str)) -> Self {
        let stage = Stage::new(&["bob@example.com"]).await;
        let right = stage.certificates.tlsa(&domain("mx.example.com")).unwrap();
        let mut zones = Zones::parse(ZONE).unwrap();
        for zone in ["", "com", "example.com"] {
            zones.sign(zone, now()).unwrap();
        }
        change(&mut zones, &right.to_string());
        let trust_anchors = zones.trust_anchor();
        let server = DnsServer::start("127.0.0.1:0".parse().unwrap(), zones, None)
            .await
            .unwrap();
        let options = Options {
            servers: vec![server.addr()],
            timeout: Duration::from_millis(500),
            checking: Checking::Validate,
            trust_anchors,
            ..Options::default()
        };
        let resolver = HickoryResolver::new(&options).unwrap();
        Self {
            stage,
            server,
            resolver,
        }
    }

    /// Asks the DNS, makes the attempt; the fate, what was tried, and by what the last one was verified.
    async fn attempt(&mut self) -> (String, Vec<String>, Option<String>) {
        let own = Own {
            names: vec![domain("mail.gmail.com")],
            port: 25,
            order: AddressOrder::V4First,
            listening: deliver::plan::Listening::default(),
        };
        let host = Host::Domain(domain("example.com"));
        let found = way::find(&self.resolver, &[], &own, &host, &mut |_| 0).await;
        self.stage.plan = found.unwrap();
        let attempted = self.stage.attempt().await;
        let verified = attempted.events.iter().rev().find_map(|event| match event {
            Event::Attempt { tls: Some(tls), .. } => Some(tls.verified.clone()),
            _ => None,
        });
        let fate = fates(&attempted).remove(0);
        (fate, tries(&attempted), verified.flatten())
    }

    fn with_tls(&self) -> Script {
        Script {
            starttls: self.stage.tls(),
            ..Script::default()
        }
    }
}

fn set(zones: &mut Zones, name: &str, values: &[&str]) {
    zones
        .set(name, hickory_proto::rr::RecordType::TLSA, values)
        .unwrap();
}

#[tokio::test]
async fn good_records_verify_and_bad_ones_keep_mail_back() {
    let mut lab = Lab::new(|zones, right| set(zones, TLSA, &[right])).await;
    let server = lab.stage.net.put(FIRST, lab.with_tls());
    let (fate, tries, verified) = lab.attempt().await;
    assert_eq!((fate.as_str(), verified.as_deref()), ("taken", Some("DANE-EE")));
    assert_eq!(tries, ["mx.example.com TLS accepted 250"]);
    assert_eq!(server.messages().len(), 1);

    let mut lab = Lab::new(|zones, right| {
        set(zones, TLSA, &[WRONG]);
        set(zones, TLSA2, &[WRONG, right]);
    })
    .await;
    let bad = lab.stage.net.put(FIRST, lab.with_tls());
    let good = lab.stage.net.put(SECOND, lab.with_tls());
    let (fate, tries, verified) = lab.attempt().await;
    assert_eq!((fate.as_str(), verified.as_deref()), ("taken", Some("DANE-EE")));
    assert_eq!(
        tries,
        [
            "mx.example.com clear failed at TLS handshake",
            "mx2.example.com TLS accepted 250"
        ]
    );
    assert!(!bad.said("MAIL") && good.messages().len() == 1);
}

#[tokio::test]
async fn absent_records_are_proved_absent() {
    let mut lab = Lab::new(|_, _| {}).await;
    let server = lab.stage.net.put(FIRST, Script::default());
    let (fate, tries, _) = lab.attempt().await;
    assert_eq!(fate, "taken", "in clear: nobody asked for more");
    assert_eq!(tries, ["mx.example.com clear accepted 250"]);
    assert_eq!(server.messages().len(), 1);
}

/// Whoever can change answers, but has no keys, gains nothing by it.
#[tokio::test]
async fn forged_and_stripped_answers_gain_nothing() {
    for what in [
        "wrong signature",
        "no signature",
        "no record",
        "no answer",
        "SERVFAIL",
    ] {
        let mut lab = Lab::new(|zones, right| {
            set(zones, TLSA, &[right]);
            let fault = match what {
                "wrong signature" => Fault::Forged,
                "no answer" => Fault::Silence,
                "SERVFAIL" => Fault::ServFail,
                _ => Fault::Stripped,
            };
            zones.break_name(TLSA, fault);
            if what == "no record" {
                zones.remove(TLSA, hickory_proto::rr::RecordType::TLSA);
            }
        })
        .await;
        // The attacker stands before the first server too, and takes STARTTLS away.
        let first = lab.stage.net.put(FIRST, Script::default());
        let (fate, tries, _) = lab.attempt().await;
        assert_eq!(fate, "4.4.1", "{what}: {tries:?}");
        assert_eq!(
            tries,
            [
                "mx.example.com clear failed at before connecting",
                "mx2.example.com clear failed at connect"
            ],
            "{what}"
        );
        assert_eq!(first.connections(), 0, "{what}");
        // The other server is not concerned.
        let second = lab.stage.net.put(SECOND, lab.with_tls());
        assert_eq!(lab.attempt().await.0, "taken", "{what}");
        assert_eq!(second.messages().len(), 1, "{what}");
    }
}

#[tokio::test]
async fn starttls_taken_away_is_not_followed_into_the_clear() {
    let mut lab = Lab::new(|zones, right| {
        set(zones, TLSA, &[right]);
        set(zones, TLSA2, &[right]);
    })
    .await;
    let first = lab.stage.net.put(FIRST, Script::default());
    let second = lab.stage.net.put(SECOND, Script::default());
    let (fate, tries, _) = lab.attempt().await;
    assert_eq!(fate, "4.7.10", "{tries:?}");
    assert!(!first.said("MAIL") && !second.said("MAIL"));
}

/// Keys that the zone above does not know: not even the MX answer counts, and the mail waits.
#[tokio::test]
async fn a_zone_with_forged_keys_has_no_way_to_it() {
    let lab = Lab::new(|zones, right| {
        set(zones, TLSA, &[right]);
        zones.forge_keys("example.com", now()).unwrap();
    })
    .await;
    let own = Own {
        names: Vec::new(),
        port: 25,
        order: AddressOrder::V4First,
        listening: deliver::plan::Listening::default(),
    };
    let host = Host::Domain(domain("example.com"));
    let failure = way::find(&lab.resolver, &[], &own, &host, &mut |_| 0)
        .await
        .unwrap_err();
    assert_eq!(failure.status.to_string(), "4.4.3", "{failure}");
    assert!(
        failure.words.contains("DNSSEC signatures do not verify"),
        "{failure}"
    );
    drop(lab.server);
}

/// An unsigned zone below a signed one: its TLSA records are worth nothing, and it gets its mail.
#[tokio::test]
async fn a_zone_that_is_not_signed_has_no_dane() {
    let mut lab = Lab::new(|zones, _| {
        let mut unsigned = Zones::parse(ZONE).unwrap();
        for zone in ["", "com"] {
            unsigned.sign(zone, now()).unwrap();
        }
        set(&mut unsigned, TLSA, &[WRONG]);
        *zones = unsigned;
    })
    .await;
    let server = lab.stage.net.put(FIRST, lab.with_tls());
    let (fate, tries, verified) = lab.attempt().await;
    assert_eq!((fate.as_str(), verified), ("taken", None), "{tries:?}");
    assert_eq!(server.messages().len(), 1);
}
