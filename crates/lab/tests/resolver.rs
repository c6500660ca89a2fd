//! The DNS server asked by the resolver that the mail server uses.
#![allow(clippy::unwrap_used)]

use dns::hickory::{HickoryResolver, Options};
use dns::{DnsError, Resolver};
use lab::dns::{DnsServer, Fault, Zones};
use mail::Domain;
use std::time::Duration;

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

async fn lab(text: &str) -> (DnsServer, HickoryResolver) {
    let zones = Zones::parse(text).unwrap();
    let server = DnsServer::start("127.0.0.1:0".parse().unwrap(), zones, None)
        .await
        .unwrap();
    let options = Options {
        servers: vec![server.addr()],
        timeout: Duration::from_millis(300),
        ..Options::default()
    };
    (server, HickoryResolver::new(&options).unwrap())
}

#[tokio::test]
async fn what_is_there_and_what_is_not() {
    let key = "k".repeat(1500);
    let (_server, resolver) = lab(&format!(
        "$ORIGIN example.com.\n@ MX 10 mail\n@ MX 20 backup\nmail A 127.0.2.1\nmail AAAA ::1\n\
         null MX 0 .\nkey TXT \"{key}\"\n$ORIGIN 2.0.192.in-addr.arpa.\n1 PTR mail.example.com.\n"
    ))
    .await;
    let mx = resolver.mx(&domain("example.com")).await.unwrap();
    assert_eq!(mx.records.len(), 2);
    let null = resolver.mx(&domain("null.example.com")).await.unwrap();
    assert_eq!(null.records[0].exchange, None, "RFC 7505");
    let a = resolver.a(&domain("mail.example.com")).await.unwrap();
    assert_eq!(a.records, ["127.0.2.1".parse::<std::net::Ipv4Addr>().unwrap()]);
    // Not of 127.0.0.0/8: hickory answers that by itself, with localhost.
    let ptr = resolver.ptr("192.0.2.1".parse().unwrap()).await.unwrap();
    assert_eq!(ptr.records, [domain("mail.example.com")]);
    // Longer than a UDP answer: it comes over TCP, its strings joined.
    let txt = resolver.txt(&domain("key.example.com")).await.unwrap();
    assert_eq!(txt.records, [key.into_bytes()]);

    let nodata = resolver.txt(&domain("mail.example.com")).await.unwrap();
    assert!(nodata.records.is_empty());
    let error = resolver.a(&domain("no.example.com")).await.unwrap_err();
    assert!(matches!(error, DnsError::NoSuchName(_)), "{error}");
}

#[tokio::test]
async fn failures_are_never_final() {
    let (server, resolver) =
        lab("$ORIGIN example.com.\n@ A 192.0.2.1\nsilent A 192.0.2.2\nbad A 192.0.2.3\n").await;
    server.change(|zones| {
        zones.break_name("silent.example.com", Fault::Silence);
        zones.break_name("bad.example.com", Fault::ServFail);
    });
    for name in ["silent.example.com", "bad.example.com", "other.test"] {
        let error = resolver.a(&domain(name)).await.unwrap_err();
        assert!(error.is_temporary(), "{name}: {error}");
    }
    server.change(|zones| {
        zones.mend_name("silent.example.com");
    });
    let mended = resolver.a(&domain("silent.example.com")).await.unwrap();
    assert_eq!(mended.records.len(), 1);
}
