//! DANE from the DNS to the dialogue: the way is found with what the DNS says, the attempt is made
//! against scripted servers, and what went over each wire is looked at.
#![allow(clippy::unwrap_used)]

mod common;

use common::stage::{FIRST, SECOND, Stage, fates, tries};
use common::world::{START, World, domain};
use common::{Script, Server, StartTls, certificates};
use deliver::attempt::Attempted;
use deliver::plan::{AddressOrder, Own};
use deliver::{Failure, Route, RouteFor, ServerName, TlsPolicy, way};
use dns::Tlsa;
use dns::table::TableResolver;
use journey::Event;
use mail::{Clock, Host};
use std::net::Ipv4Addr;
use std::sync::Arc;

const TLSA: &str = "_25._tcp.mx.example.com";
const TLSA2: &str = "_25._tcp.mx2.example.com";

/// example.com with two exchangers, all of it signed.
fn signed() -> TableResolver {
    TableResolver::new()
        .with_signed_zone("example.com")
        .with_mx("example.com", 10, Some(domain("mx.example.com")))
        .with_mx("example.com", 20, Some(domain("mx2.example.com")))
        .with_address("mx.example.com", Ipv4Addr::new(192, 0, 2, 1))
        .with_address("mx2.example.com", Ipv4Addr::new(192, 0, 2, 2))
}

fn right(stage: &Stage) -> Tlsa {
    stage.certificates.tlsa(&domain("mx.example.com")).unwrap()
}

fn wrong() -> Tlsa {
    Tlsa {
        usage: 3,
        selector: 1,
        matching: 1,
        data: vec![7; 32],
    }
}

fn unusable() -> Tlsa {
    Tlsa { usage: 1, ..wrong() }
}

async fn stage() -> Stage {
    Stage::new(&["bob@example.com"]).await
}

fn with_tls(stage: &Stage) -> Script {
    Script {
        starttls: stage.tls(),
        ..Script::default()
    }
}

/// Finds the way to example.com.
async fn find(stage: &mut Stage, table: &TableResolver, routes: &[Route]) -> Result<(), Failure> {
    let own = Own {
        names: vec![domain("mail.gmail.com")],
        port: 25,
        order: AddressOrder::V4First,
        listening: deliver::plan::Listening::default(),
    };
    let host = Host::Domain(domain("example.com"));
    stage.plan = way::find(table, routes, &own, &host, &mut |_| 0).await?;
    Ok(())
}

async fn attempt(stage: &mut Stage, table: &TableResolver) -> Attempted {
    find(stage, table, &[]).await.unwrap();
    stage.attempt().await
}

fn verified(attempted: &Attempted) -> Option<String> {
    attempted.events.iter().rev().find_map(|event| match event {
        Event::Attempt { tls: Some(tls), .. } => Some(tls.verified.clone()),
        _ => None,
    })?
}

fn got_nothing(server: &Arc<Server>) -> bool {
    !server.said("MAIL") && server.messages().is_empty()
}

#[tokio::test(start_paused = true)]
async fn a_certificate_as_published_is_taken_and_recorded() {
    let mut stage = stage().await;
    let server = stage.net.put(FIRST, with_tls(&stage));
    let table = signed().with_tlsa(TLSA, wrong()).with_tlsa(TLSA, right(&stage));
    let attempted = attempt(&mut stage, &table).await;
    assert_eq!(fates(&attempted), ["taken"]);
    assert_eq!(tries(&attempted), ["mx.example.com TLS accepted 250"]);
    assert_eq!(verified(&attempted).as_deref(), Some("DANE-EE"));
    assert_eq!(server.messages().len(), 1);
    let reason = stage.plan.reason();
    assert!(
        reason.contains("mx.example.com: DANE, by 2 TLSA records of mx.example.com"),
        "{reason}"
    );
    assert!(
        reason.contains("mx2.example.com: TLS when offered; no DANE: it has no TLSA records"),
        "{reason}"
    );
}

/// A server with another key, one that offers no STARTTLS because somebody between took it away, one
/// that answers the handshake with rubbish: not one octet of the message goes there.
#[tokio::test(start_paused = true)]
async fn nothing_goes_to_a_server_that_does_not_match() {
    let stage_for_keys = stage().await;
    for (what, script, records, status) in [
        ("bad key", with_tls(&stage_for_keys), vec![wrong()], "4.7.5"),
        (
            "STARTTLS stripped",
            Script::default(),
            vec![right(&stage_for_keys)],
            "4.7.10",
        ),
        (
            "STARTTLS stripped, none usable",
            Script::default(),
            vec![unusable()],
            "4.7.10",
        ),
        (
            "rubbish in place of TLS",
            Script {
                starttls: StartTls::Broken,
                ..Script::default()
            },
            vec![right(&stage_for_keys)],
            "4.7.5",
        ),
        (
            "STARTTLS refused",
            Script {
                starttls: StartTls::Broken,
                replies: vec![("STARTTLS", "454 4.7.0 no TLS now")],
                ..Script::default()
            },
            vec![right(&stage_for_keys)],
            "4.7.5",
        ),
    ] {
        let mut stage = stage().await;
        let server = stage.net.put(FIRST, script);
        let mut table = signed();
        for record in records {
            table = table.with_tlsa(TLSA, record);
        }
        find(&mut stage, &table, &[]).await.unwrap();
        stage.plan.hops.truncate(1);
        let attempted = stage.attempt().await;
        assert_eq!(fates(&attempted), [status], "{what}: {:?}", attempted.events);
        assert!(got_nothing(&server), "{what}");
        assert_eq!(server.connections(), 1, "{what}: no second try in clear");
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_exchangers_the_one_that_matches_gets_it() {
    let mut stage = stage().await;
    let first = stage.net.put(FIRST, with_tls(&stage));
    let second = stage.net.put(SECOND, with_tls(&stage));
    let table = signed().with_tlsa(TLSA, wrong()).with_tlsa(TLSA2, right(&stage));
    let attempted = attempt(&mut stage, &table).await;
    assert_eq!(fates(&attempted), ["taken"]);
    assert_eq!(
        tries(&attempted),
        [
            "mx.example.com clear failed at TLS handshake",
            "mx2.example.com TLS accepted 250"
        ]
    );
    assert!(got_nothing(&first));
    assert_eq!(second.messages().len(), 1);
    let told = format!("{:?}", attempted.events);
    assert!(
        told.contains("matches none of the TLSA records of mx.example.com"),
        "{told}"
    );
}

/// Whether there are records cannot be found out: that server is not even dialled.
#[tokio::test(start_paused = true)]
async fn bogus_records_keep_a_server_from_being_used() {
    let mut stage = stage().await;
    let first = stage.net.put(FIRST, with_tls(&stage));
    let table = signed().with_bogus(TLSA);
    let attempted = attempt(&mut stage, &table).await;
    assert_eq!(fates(&attempted), ["4.4.1"], "the other one is down");
    assert_eq!(
        tries(&attempted),
        [
            "mx.example.com clear failed at before connecting",
            "mx2.example.com clear failed at connect"
        ]
    );
    assert_eq!(first.connections(), 0);
    let second = stage.net.put(SECOND, with_tls(&stage));
    let attempted = self::attempt(&mut stage, &table).await;
    assert_eq!(
        (fates(&attempted), second.messages().len()),
        (vec!["taken".to_owned()], 1)
    );

    let nothing_known = signed().with_bogus(TLSA).with_timeout(TLSA2);
    let attempted = self::attempt(&mut stage, &nothing_known).await;
    assert_eq!(fates(&attempted), ["4.4.3"]);
    assert_eq!((first.connections(), second.connections()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn where_dane_does_not_count_any_certificate_will_do() {
    let with_mx = || {
        TableResolver::new()
            .with_mx("example.com", 10, Some(domain("mx.example.com")))
            .with_address("mx.example.com", Ipv4Addr::new(192, 0, 2, 1))
    };
    for (what, table) in [
        ("nothing signed", with_mx().with_tlsa(TLSA, wrong())),
        (
            "MX not signed",
            with_mx()
                .with_signed_zone("mx.example.com")
                .with_tlsa(TLSA, wrong()),
        ),
        // Not asked for, so it harms nobody that name servers of an unsigned zone choke on it.
        ("not signed and choking", with_mx().with_bogus(TLSA)),
        ("signed without records", signed()),
        (
            "host elsewhere, not signed",
            TableResolver::new()
                .with_signed_zone("example.com")
                .with_mx("example.com", 10, Some(domain("mx.example.net")))
                .with_address("mx.example.net", Ipv4Addr::new(192, 0, 2, 1))
                .with_tlsa("_25._tcp.mx.example.net", wrong()),
        ),
    ] {
        let mut stage = stage().await;
        stage.net.put(FIRST, with_tls(&stage));
        let attempted = attempt(&mut stage, &table).await;
        assert_eq!(fates(&attempted), ["taken"], "{what}");
        assert_eq!(verified(&attempted), None, "{what}");
    }
}

/// RFC 7672 §2.2: secure records that cannot be used still mean TLS, with any certificate.
#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_used() {
    let mut stage = stage().await;
    let server = stage.net.put(FIRST, with_tls(&stage));
    let table = signed().with_tlsa(TLSA, unusable());
    let attempted = attempt(&mut stage, &table).await;
    assert_eq!(tries(&attempted), ["mx.example.com TLS accepted 250"]);
    assert_eq!(verified(&attempted), None);
    assert_eq!(server.messages().len(), 1);
}

/// RFC 7672 §2.2.2: the host's name is an alias.
#[tokio::test(start_paused = true)]
async fn an_alias_is_followed_to_where_the_records_are() {
    for at in ["_25._tcp.real.example.com", "_25._tcp.alias.example.com"] {
        let mut stage = stage().await;
        stage.net.put(FIRST, with_tls(&stage));
        let table = TableResolver::new()
            .with_signed_zone("example.com")
            .with_mx("example.com", 10, Some(domain("alias.example.com")))
            .with_cname("alias.example.com", "real.example.com")
            .with_address("real.example.com", Ipv4Addr::new(192, 0, 2, 1))
            .with_tlsa(at, right(&stage));
        let attempted = attempt(&mut stage, &table).await;
        assert_eq!(fates(&attempted), ["taken"], "{at}");
        assert_eq!(verified(&attempted).as_deref(), Some("DANE-EE"), "{at}");
    }
}

/// The domain's own address, for want of MX records, and a smarthost by name: both have records.
#[tokio::test(start_paused = true)]
async fn hosts_that_no_mx_record_names() {
    let mut stage = stage().await;
    stage.net.put(FIRST, with_tls(&stage));
    let table = TableResolver::new()
        .with_signed_zone("example.com")
        .with_address("example.com", Ipv4Addr::new(192, 0, 2, 1))
        .with_tlsa("_25._tcp.example.com", right(&stage));
    let attempted = attempt(&mut stage, &table).await;
    assert_eq!(
        verified(&attempted).as_deref(),
        Some("DANE-EE"),
        "{:?}",
        attempted.events
    );

    stage.net.put("192.0.2.9:587", with_tls(&stage));
    let table = TableResolver::new()
        .with_signed_zone("smart.example.net")
        .with_address("smart.example.net", Ipv4Addr::new(192, 0, 2, 9))
        .with_tlsa("_587._tcp.smart.example.net", right(&stage));
    let smart = ServerName::parse("smart.example.net").unwrap();
    let route = |tls| Route::to(RouteFor::Everything, smart.clone(), 587, tls);
    for (policy, wanted) in [
        (TlsPolicy::Opportunistic, Some("DANE-EE")),
        (TlsPolicy::Required, Some("DANE-EE")),
        (TlsPolicy::Dane, Some("DANE-EE")),
        (TlsPolicy::Unchecked, None),
    ] {
        find(&mut stage, &table, &[route(policy)]).await.unwrap();
        let attempted = stage.attempt().await;
        assert_eq!(fates(&attempted), ["taken"], "{policy}");
        assert_eq!(verified(&attempted).as_deref(), wanted, "{policy}");
    }
    let bare = TableResolver::new().with_address("smart.example.net", Ipv4Addr::new(192, 0, 2, 9));
    find(&mut stage, &bare, &[route(TlsPolicy::Dane)]).await.unwrap();
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["4.7.5"]);
    let failure = attempted.fates[0].as_ref().unwrap_err();
    assert!(
        failure.words.contains("its addresses are not signed"),
        "{failure}"
    );
}

/// RFC 8689 §4.2.1: nobody may have forged which server it is.
#[tokio::test(start_paused = true)]
async fn requiretls_needs_a_signed_mx_answer() {
    let mut stage = stage().await;
    stage.letter.wishes.require_tls = true;
    let script = Script {
        ehlo: vec!["PIPELINING", "REQUIRETLS"],
        ..with_tls(&stage)
    };
    let server = stage.net.put(FIRST, script);
    let unsigned = TableResolver::new()
        .with_mx("example.com", 10, Some(domain("mx.example.com")))
        .with_address("mx.example.com", Ipv4Addr::new(192, 0, 2, 1));
    let attempted = attempt(&mut stage, &unsigned).await;
    assert_eq!(fates(&attempted), ["5.7.10"]);
    assert_eq!(server.connections(), 0);
    let table = signed().with_tlsa(TLSA, right(&stage));
    let attempted = self::attempt(&mut stage, &table).await;
    assert_eq!(fates(&attempted), ["taken"], "{:?}", attempted.events);
    assert!(server.said(" REQUIRETLS"));
    assert_eq!(verified(&attempted).as_deref(), Some("DANE-EE"));
}

/// The whole service: mail waits while the records are bogus, and goes when they are mended; the sender
/// is not told of a failure.
#[tokio::test(start_paused = true)]
async fn mail_waits_for_a_server_that_does_not_match() {
    let dir = tempfile::tempdir().unwrap();
    let shown = certificates(dir.path());
    let table = signed().with_tlsa(TLSA, wrong()).with_bogus(TLSA2);
    let world = World::new(table).await;
    let script = Script {
        starttls: StartTls::Good(shown.server_config()),
        ..Script::default()
    };
    let first = world.net.put(FIRST, script.clone());
    let second = world.net.put(SECOND, script);
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world
        .until("a deferral", || async {
            world.names(id).await.contains(&"deferred")
        })
        .await;
    assert_eq!(world.names(id).await, ["route", "attempt", "attempt", "deferred"]);
    assert!(world.clock.now().since(START) < std::time::Duration::from_secs(60));
    assert!(got_nothing(&first) && second.connections() == 0);
    assert!(world.inbox().await.is_empty(), "nothing failed yet");
}
