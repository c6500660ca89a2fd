//! Who a report comes from.
#![allow(clippy::unwrap_used)]

mod common;

use common::world::{START, World, domain};
use common::{Script, Server};
use dns::table::TableResolver;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Whoever answers a report reaches somebody: its From is an address of a domain served here.
#[tokio::test(start_paused = true)]
async fn a_report_comes_from_a_postmaster_who_can_be_answered() {
    let zones = TableResolver::new()
        .with_mx("example.com", 10, Some(domain("mx.example.com")))
        .with_address("mx.example.com", Ipv4Addr::new(192, 0, 2, 1))
        .with_mx("example.net", 0, None);
    let world = World::new(zones).await;
    let server = world.net.put("192.0.2.1:25", Script::default());
    let later = START.plus(Duration::from_secs(60));
    world
        .directory
        .add_domain(&domain("also.example"), later)
        .await
        .unwrap();

    let id = world.submit("alice@gmail.com", &["nobody@example.net"]).await;
    world.until_gone(id).await;
    let inbox = world.inbox().await;
    let from = "\r\nFrom: Mail Delivery System <postmaster@gmail.com>\r\n";
    assert!(inbox[0].contains(from) && inbox[0].contains("Reporting-MTA: dns; mail.gmail.com\r\n"));

    let key = judge::dkim::SigningKey::generate(judge::dkim::KeyKind::Ed25519).unwrap();
    let stored = directory::SigningKey {
        selector: "s1".to_owned(),
        algorithm: directory::SigningAlgorithm::Ed25519Sha256,
        pkcs8_pem: key.to_pkcs8_pem().unwrap(),
        created: START,
    };
    let gmail = domain("gmail.com");
    world.directory.add_signing_key(&gmail, stored).await.unwrap();

    let told_elsewhere = |n: usize| {
        let (world, server): (&World, &Server) = (&world, &server);
        async move {
            world.submit("carol@example.com", &["nobody@example.net"]).await;
            world
                .until("the report", || async { server.messages().len() == n })
                .await;
            server.messages()[n - 1].clone()
        }
    };
    let report = told_elsewhere(1).await;
    assert!(report.contains(from), "the domain served longest: {report}");
    let signed = report.starts_with("DKIM-Signature: v=1; a=ed25519-sha256;");
    assert!(
        signed && report.contains("d=gmail.com"),
        "what leaves is signed: {report}"
    );
    world.directory.remove_account(world.alice).await.unwrap();
    world.directory.remove_domain(&domain("gmail.com")).await.unwrap();
    assert!(told_elsewhere(2).await.contains("<postmaster@also.example>\r\n"));
    world
        .directory
        .remove_domain(&domain("also.example"))
        .await
        .unwrap();
    assert!(
        told_elsewhere(3)
            .await
            .contains("<postmaster@mail.gmail.com>\r\n")
    );
}
