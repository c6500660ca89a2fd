//! Delivery by LMTP (RFC 2033): each recipient has its own fate, connections are kept, a socket of this
//! machine is a server too, and the journey says so.
#![allow(clippy::unwrap_used)]

mod common;

use common::stage::{FIRST, Stage, fates, tries};
use common::world::World;
use deliver::attempt::Attempted;
use deliver::plan::{Hop, NO_ADDRESS};
use deliver::pool::{Keep, Pool};
use deliver::{Action, Origin, Route, ServerName, TlsPolicy};
use directory::RouteSpec;
use journey::Event;

const THREE: [&str; 3] = ["bob@example.com", "eve@example.com", "zoe@example.com"];
/// Three recipients, the second of whom is not known, up to the end of the message.
const TOLD: &str = "S: 220 box LMTP\nC: LHLO mail.gmail.com\nS: 250-box\nS: 250-PIPELINING\nS: 250 CHUNKING\n\
     C: MAIL FROM:<alice@gmail.com>\nC: RCPT TO:<bob@\nC: RCPT TO:<eve@\nC: RCPT TO:<zoe@\nC: DATA\n\
     S: 250 ok\nS: 250 ok\nS: 550 5.1.1 nobody\nS: 250 ok\nS: 354 go on\nC.\n";

async fn stage(recipients: &[&str]) -> Stage {
    let mut stage = Stage::new(recipients).await;
    stage.plan.lmtp = true;
    // A second server, that nobody is to ask once the message has left.
    stage.plan.hops.truncate(2);
    stage
}

fn words(attempted: &Attempted, i: usize) -> String {
    match &attempted.fates[i] {
        Ok(taken) => taken.reply.text.clone(),
        Err(failure) => failure.to_string(),
    }
}

#[tokio::test(start_paused = true)]
async fn each_recipient_has_its_own_fate() {
    let stage = stage(&THREE).await;
    let transcript = format!("{TOLD}S: 250 2.0.0 for bob\nS: 552 5.2.2 zoe's mailbox is full\n");
    let player = stage.net.play(FIRST, &[&transcript]);
    let attempted = stage.attempt().await;
    assert_eq!(player.faults(), Vec::<String>::new());
    assert_eq!(fates(&attempted), ["taken", "5.1.1", "5.2.2"]);
    assert!(words(&attempted, 0).contains("for bob"), "{attempted:?}");
    assert!(words(&attempted, 2).contains("full"), "{attempted:?}");
    assert_eq!(
        tries(&attempted),
        [
            "mx.example.com clear accepted 250",
            "mx.example.com clear RCPT TO 550",
            "mx.example.com clear the end of the message 552"
        ]
    );
    assert_eq!(player.messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_between_the_answers_leaves_only_the_others_unknown() {
    let stage = stage(&THREE).await;
    let transcript = format!("{TOLD}S: 250 2.0.0 for bob\n(closes)\n");
    let player = stage.net.play(FIRST, &[&transcript]);
    let attempted = stage.attempt().await;
    assert_eq!(player.faults(), Vec::<String>::new());
    assert_eq!(fates(&attempted), ["taken", "5.1.1", "4.4.2"]);
    assert!(
        words(&attempted, 2).contains("lost at the end of the message"),
        "{attempted:?}"
    );
    assert_eq!(
        player.connections(),
        1,
        "the second server is not asked: the first may have taken it (RFC 1047)"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_answering_leaves_the_others_unknown() {
    let stage = stage(&THREE).await;
    let transcript = format!("{TOLD}S: 250 2.0.0 for bob\n(silent)\n");
    stage.net.play(FIRST, &[&transcript]);
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["taken", "5.1.1", "4.4.2"]);
}

#[tokio::test(start_paused = true)]
async fn connections_are_kept_and_never_shared_with_smtp() {
    let mut stage = stage(&["bob@example.com"]).await;
    stage.courier.pool = Pool::new(Keep::default());
    let message = "C: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go on\nC.\nS: 250 taken\n";
    let by_lmtp = format!("S: 220 box\nC: LHLO\nS: 250 box\n{message}{message}");
    let by_smtp = format!("S: 220 box\nC: EHLO\nS: 250 box\n{message}");
    let player = stage.net.play(FIRST, &[&by_lmtp, &by_smtp]);
    for _ in 0..2 {
        assert_eq!(fates(&stage.attempt().await), ["taken"]);
    }
    assert_eq!((player.connections(), player.messages().len()), (1, 2));
    stage.plan.lmtp = false;
    assert_eq!(fates(&stage.attempt().await), ["taken"]);
    assert_eq!(player.connections(), 2, "another protocol, another connection");
    assert_eq!(player.faults(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_socket_of_this_machine_takes_mail_in_clear() {
    let mut stage = stage(&["bob@example.com"]).await;
    stage.plan.hops = vec![Hop {
        host: ServerName::Socket("/run/dovecot/lmtp".to_owned()),
        address: NO_ADDRESS,
        preference: None,
    }];
    stage.plan.tls = TlsPolicy::Off;
    // STARTTLS is left aside there.
    let transcript = "S: 220 box\nC: LHLO\nS: 250-box\nS: 250 STARTTLS\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\n\
         C: DATA\nS: 354 go on\nC.\nS: 250 taken\n";
    let player = stage.net.play(&NO_ADDRESS.to_string(), &[transcript]);
    let attempted = stage.attempt().await;
    assert_eq!(player.faults(), Vec::<String>::new());
    assert_eq!(tries(&attempted), ["/run/dovecot/lmtp clear accepted 250"]);
    assert!(matches!(&attempted.events[0], Event::Attempt { ip: None, .. }));
    stage.net.remove_player(&NO_ADDRESS.to_string());
    let refused = stage.attempt().await;
    assert!(
        words(&refused, 0).contains("connection refused by /run/dovecot/lmtp at a socket of this machine"),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_route_leads_there_and_the_journey_says_so() {
    let spec = RouteSpec {
        lmtp: Some("/run/dovecot/lmtp".to_owned()),
        ..RouteSpec::default()
    };
    let route = Route::read("example.com", &spec, None, Origin::Store).unwrap();
    assert!(matches!(&route.action, Action::Lmtp(_)));
    let world = World::with(dns::table::TableResolver::default(), vec![route], |_| {}).await;
    let transcript = "S: 220 box\nC: LHLO\nS: 250-box\nS: 250 PIPELINING\nC: MAIL\nC: RCPT TO:<bob@\nC: RCPT TO:<eve@\n\
         C: DATA\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go on\nC.\nS: 250 2.0.0 bob has it\nS: 550 5.7.1 eve wants none\n";
    let player = world.net.play(&NO_ADDRESS.to_string(), &[transcript]);
    let id = world
        .submit("alice@gmail.com", &["bob@example.com", "eve@example.com"])
        .await;
    world.until_gone(id).await;
    assert_eq!(player.faults(), Vec::<String>::new());
    let told = world.told(id).await;
    let Some(Event::Route { hosts, why, .. }) = told.first() else {
        panic!("{told:?}");
    };
    assert_eq!(
        (hosts[0].host.as_str(), hosts[0].addresses.len()),
        ("/run/dovecot/lmtp", 0)
    );
    assert!(
        why.starts_with("the route for example.com in the store, by LMTP; no TLS"),
        "{why}"
    );
    let relayed = |event: &Event| match event {
        Event::Relayed { recipient, .. } => Some(format!("relayed {recipient}")),
        Event::Bounced { recipient, .. } => Some(format!("bounced {recipient}")),
        _ => None,
    };
    let ends: Vec<String> = told.iter().filter_map(relayed).collect();
    assert_eq!(ends, ["relayed bob@example.com", "bounced eve@example.com"]);
    assert!(world.inbox().await.concat().contains("eve wants none"));
}
