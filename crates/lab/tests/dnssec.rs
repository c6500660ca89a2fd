//! The validating resolver of the mail server against signed zones: good, unsigned, forged and stripped.
#![allow(clippy::unwrap_used)]

use dns::hickory::{Checking, HickoryResolver, Options, PROBE_EVERY_QUESTIONS};
use dns::{DnsError, Dnssec, Name, Resolver, tlsa_name};
use lab::dns::{DnsServer, Fault, Zones};
use mail::{Domain, Timestamp};
use std::time::Duration;

const ZONES: &str = "$ORIGIN example.com.\n@ MX 10 mx\nmx A 127.0.2.1\n_25._tcp.mx TLSA 3 1 1 00ff\n\
     alias CNAME mx\naway CNAME mx.unsigned.test.\na.b.c A 127.0.2.9\nspf TXT \"v=spf1 -all\"\n\
     $ORIGIN unsigned.test.\n@ MX 10 mx\nmx A 127.0.2.2\n_25._tcp.mx TLSA 3 1 1 00ff\n\
     $ORIGIN forged.test.\n@ MX 10 mx\nmx A 127.0.2.3\n";

fn now() -> Timestamp {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_secs(since.as_secs() as i64)
}

/// The root, `test` and two zones are signed, one of them with keys that its parent does not know.
fn zones() -> Zones {
    let mut zones = Zones::parse(ZONES).unwrap();
    for zone in ["", "test", "example.com", "forged.test"] {
        zones.sign(zone, now()).unwrap();
    }
    zones.forge_keys("forged.test", now()).unwrap();
    zones
}

fn d(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn tlsa_of(host: &str) -> Name {
    tlsa_name(25, &d(host)).unwrap()
}

async fn lab(zones: Zones, checking: Checking) -> (DnsServer, HickoryResolver) {
    let trust_anchors = zones.trust_anchor();
    let server = DnsServer::start("127.0.0.1:0".parse().unwrap(), zones, None)
        .await
        .unwrap();
    let options = Options {
        servers: vec![server.addr()],
        timeout: Duration::from_secs(2),
        checking,
        trust_anchors,
        ..Options::default()
    };
    (server, HickoryResolver::new(&options).unwrap())
}

fn is_bogus<T: std::fmt::Debug>(result: &dns::Result<T>) -> bool {
    matches!(result, Err(DnsError::Unavailable { reason, .. }) if reason.contains("signatures"))
}

#[tokio::test]
async fn signed_answers_are_secure_and_unsigned_ones_insecure() {
    let (_server, r) = lab(zones(), Checking::Validate).await;
    assert_eq!(r.probe().await, Ok(()));
    let mx = r.mx(&d("example.com")).await.unwrap();
    assert_eq!((mx.records.len(), mx.dnssec), (1, Dnssec::Secure));
    let a = r.a(&d("mx.example.com")).await.unwrap();
    assert_eq!((a.records.len(), a.dnssec), (1, Dnssec::Secure));
    let tlsa = r.tlsa(&tlsa_of("mx.example.com")).await.unwrap();
    assert_eq!(tlsa.dnssec, Dnssec::Secure);
    assert_eq!(tlsa.records[0].to_string(), "3 1 1 00ff");

    let mx = r.mx(&d("unsigned.test")).await.unwrap();
    assert_eq!((mx.records.len(), mx.dnssec), (1, Dnssec::Insecure));
    let tlsa = r.tlsa(&tlsa_of("mx.unsigned.test")).await.unwrap();
    assert_eq!((tlsa.records.len(), tlsa.dnssec), (1, Dnssec::Insecure));
}

#[tokio::test]
async fn absence_is_proved_too() {
    let (server, r) = lab(zones(), Checking::Validate).await;
    let none = r.aaaa(&d("mx.example.com")).await.unwrap();
    assert_eq!((none.records.len(), none.dnssec), (0, Dnssec::Secure));
    // No MX records: the domain's own address counts, and that there are none must be sure.
    let between = r.mx(&d("b.c.example.com")).await.unwrap();
    assert_eq!((between.records.len(), between.dnssec), (0, Dnssec::Secure));
    for name in ["no.example.com", "x.y.example.com", "zz.a.b.c.example.com"] {
        let error = r.a(&d(name)).await.unwrap_err();
        assert!(matches!(error, DnsError::NoSuchName(_)), "{name}: {error}");
    }
    let unsigned = r.aaaa(&d("mx.unsigned.test")).await.unwrap();
    assert_eq!((unsigned.records.len(), unsigned.dnssec), (0, Dnssec::Insecure));
    let error = r.a(&d("no.unsigned.test")).await.unwrap_err();
    assert!(matches!(error, DnsError::NoSuchName(_)), "{error}");

    // That there are no TLSA records is kept for a while: no question for each message.
    r.tlsa(&tlsa_of("a.b.c.example.com")).await.unwrap_err();
    server.change(|zones| {
        zones.break_name("example.com", Fault::Silence);
    });
    let kept = r.tlsa(&tlsa_of("a.b.c.example.com")).await.unwrap_err();
    assert!(matches!(kept, DnsError::NoSuchName(_)), "{kept}");
}

#[tokio::test]
async fn what_is_forged_or_stripped_is_no_answer() {
    let (server, r) = lab(zones(), Checking::Validate).await;
    assert!(is_bogus(&r.mx(&d("forged.test")).await));
    assert!(is_bogus(&r.a(&d("mx.forged.test")).await));
    assert!(
        is_bogus(&r.tlsa(&tlsa_of("mx.forged.test")).await),
        "nor is a forged absence"
    );

    for fault in [Fault::Forged, Fault::Stripped] {
        let (server, r) = lab(zones(), Checking::Validate).await;
        server.change(|zones| {
            zones.break_name("_25._tcp.mx.example.com", fault);
        });
        assert!(is_bogus(&r.tlsa(&tlsa_of("mx.example.com")).await), "{fault:?}");
        assert!(r.a(&d("mx.example.com")).await.is_ok(), "{fault:?}");
    }
    // Somebody between says that there are no records, and cannot prove it.
    server.change(|zones| {
        zones.break_name("_25._tcp.mx.example.com", Fault::Stripped);
        zones.remove("_25._tcp.mx.example.com", hickory_proto::rr::RecordType::TLSA);
    });
    assert!(is_bogus(&r.tlsa(&tlsa_of("mx.example.com")).await));
    // Texts are not checked: a zone whose signatures ran out must not fail SPF.
    server.change(|zones| {
        zones.break_name("spf.example.com", Fault::Forged);
    });
    assert_eq!(r.txt(&d("spf.example.com")).await.unwrap().records.len(), 1);
}

#[tokio::test]
async fn aliases() {
    let (_server, r) = lab(zones(), Checking::Validate).await;
    let here = r.a(&d("alias.example.com")).await.unwrap();
    assert_eq!((here.records.len(), here.dnssec), (1, Dnssec::Secure));
    assert_eq!(here.alias_of.unwrap().as_str(), "mx.example.com");
    let away = r.a(&d("away.example.com")).await.unwrap();
    assert_eq!((away.records.len(), away.dnssec), (1, Dnssec::Insecure));
}

/// A name server that passes no signatures on: nothing is believed, where it is to validate.
#[tokio::test]
async fn without_signatures_everything_waits() {
    let signed = zones();
    let anchor = signed.trust_anchor();
    let (server, _) = lab(Zones::parse(ZONES).unwrap(), Checking::Off).await;
    let options = Options {
        servers: vec![server.addr()],
        checking: Checking::Validate,
        trust_anchors: anchor,
        ..Options::default()
    };
    let r = HickoryResolver::new(&options).unwrap();
    assert!(r.mx(&d("example.com")).await.unwrap_err().is_temporary());
    assert!(r.probe().await.is_err());
}

#[tokio::test]
async fn auto_validates_as_soon_as_it_can() {
    let signed = zones();
    let options = |server: &DnsServer| Options {
        servers: vec![server.addr()],
        checking: Checking::Auto,
        trust_anchors: signed.trust_anchor(),
        ..Options::default()
    };
    let (server, _) = lab(Zones::parse(ZONES).unwrap(), Checking::Off).await;
    let r = HickoryResolver::new(&options(&server)).unwrap();
    assert!(!r.is_checking().await);
    assert_eq!(r.mx(&d("example.com")).await.unwrap().dnssec, Dnssec::Insecure);
    // The name server learns to pass signatures on; it is asked again after some questions.
    let now_signed = signed.clone();
    server.change(|zones| *zones = now_signed);
    for _ in 0..PROBE_EVERY_QUESTIONS {
        if r.is_checking().await {
            break;
        }
    }
    assert!(r.is_checking().await);
    assert_eq!(r.mx(&d("example.com")).await.unwrap().dnssec, Dnssec::Secure);
    // And from then on nobody can talk it out of that.
    server.change(|zones| *zones = Zones::parse(ZONES).unwrap());
    assert!(r.is_checking().await);
    assert!(r.a(&d("alias.example.com")).await.unwrap_err().is_temporary());
}

#[tokio::test]
async fn the_word_of_a_name_server_on_loopback() {
    let (server, r) = lab(zones(), Checking::TrustAd).await;
    assert_eq!(r.mx(&d("example.com")).await.unwrap().dnssec, Dnssec::Secure);
    let tlsa = r.tlsa(&tlsa_of("mx.example.com")).await.unwrap();
    assert_eq!((tlsa.records.len(), tlsa.dnssec), (1, Dnssec::Secure));
    let here = r.a(&d("alias.example.com")).await.unwrap();
    assert_eq!((here.records.len(), here.dnssec), (1, Dnssec::Secure));
    assert_eq!(r.mx(&d("unsigned.test")).await.unwrap().dnssec, Dnssec::Insecure);
    let none = r.aaaa(&d("mx.example.com")).await.unwrap();
    assert_eq!(
        (none.records.len(), none.dnssec),
        (0, Dnssec::Insecure),
        "never sure"
    );
    // A server that validates answers SERVFAIL to what is bogus.
    server.change(|zones| {
        zones.break_name("_25._tcp.a.b.c.example.com", Fault::ServFail);
    });
    let error = r.tlsa(&tlsa_of("a.b.c.example.com")).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
}

#[test]
fn trust_anchors_that_cannot_be_read() {
    for text in [
        "",
        "rubbish",
        "example.com. IN DNSKEY 257 3 13 AAAA",
        ". IN A 192.0.2.1",
    ] {
        let options = Options {
            servers: vec!["127.0.0.1:9".parse().unwrap()],
            checking: Checking::Validate,
            trust_anchors: Some(text.to_owned()),
            ..Options::default()
        };
        let said = HickoryResolver::new(&options).err().unwrap().to_string();
        assert!(said.contains("trust anchors cannot be read"), "{text}: {said}");
    }
}
