//! What strangers meet on port 25: judgement, headers, limits, journeys, and a server that stays up.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Setup, Talker, World, address, domain};
use dns::table::TableResolver;
use futures_util::future::BoxFuture;
use journey::Event;
use mail::QueueId;
use mailbox::Role as Folder;
use std::net::IpAddr;
use std::time::Duration;

const US: &str = "127.0.0.1";

fn strict(resolver: TableResolver) -> Setup {
    Setup {
        resolver,
        policy: judge::Policy::default(),
        ..Setup::default()
    }
}

/// EHLO to the end of the message; gives the last reply.
fn send(talker: &mut Talker, from: &str, to: &str, message: &str) -> String {
    talker.ask("EHLO client.example.net");
    assert!(talker.ask(&format!("MAIL FROM:<{from}>")).starts_with("250 "));
    let said = talker.ask(&format!("RCPT TO:<{to}>"));
    if !said.starts_with("250 ") {
        return said;
    }
    assert!(talker.ask("DATA").starts_with("354 "));
    talker.ask(&format!("{}\r\n.", message.replace('\n', "\r\n")))
}

fn greeted(server: &common::Serving) -> Talker {
    let mut talker = Talker::connect(server.address);
    assert_eq!(talker.reply(), "220 mail.example.com ESMTP ready");
    talker
}

/// The queue id that a reply ends with or names.
fn id_in(reply: &str) -> QueueId {
    reply
        .split(|c: char| !c.is_ascii_alphanumeric())
        .rev()
        .find_map(QueueId::parse)
        .unwrap_or_else(|| panic!("no id in {reply}"))
}

fn events(world: &World, id: QueueId) -> Vec<Event> {
    let records = world.runtime.block_on(world.journey.events(id)).unwrap();
    records.into_iter().map(|r| r.event).collect()
}

#[test]
fn a_delivered_message_carries_its_trace_and_its_journey() {
    let world = World::new();
    let bob = world.account("bob@example.com", None);
    let ip: IpAddr = US.parse().unwrap();
    let resolver = TableResolver::new()
        .with_txt("gmail.com", "v=spf1 ip4:127.0.0.1 -all")
        .with_txt("_dmarc.gmail.com", "v=DMARC1; p=reject")
        .with_ptr(ip, domain("mail.gmail.com"))
        .with_address("mail.gmail.com", ip);
    let server = world.serve(strict(resolver));
    let mut talker = greeted(&server);
    let message = "Return-Path: <old@x.y>\nAuthentication-Results: mail.example.com; dmarc=pass (forged)\n\
        Authentication-Results: elsewhere.example; spf=pass\nFrom: alice@gmail.com\n\
        Message-ID: <1@gmail.com>\nSubject: hi\n\nhello";
    let reply = send(&mut talker, "alice@gmail.com", "bob@example.com", message);
    assert!(reply.starts_with("250 2.0.0 OK, message queued as "), "{reply}");

    let stored = world.messages(bob, Folder::Inbox);
    let text = String::from_utf8(stored[0].clone()).unwrap();
    assert!(text.starts_with("Return-Path: <alice@gmail.com>\r\n"), "{text}");
    assert!(!text.contains("forged") && !text.contains("old@x.y"), "{text}");
    assert!(
        text.contains("Authentication-Results: elsewhere.example; spf=pass\r\n"),
        "{text}"
    );
    let fields: Vec<String> = mail::header::fields(&stored[0])
        .map(|f| String::from_utf8_lossy(f.name).into_owned())
        .collect();
    assert_eq!(
        fields[..4],
        [
            "Return-Path",
            "Authentication-Results",
            "Received-SPF",
            "Received"
        ]
    );
    let results = mail::header::first(&stored[0], "Authentication-Results")
        .unwrap()
        .value();
    for expected in ["spf=pass", "dmarc=pass", "iprev=pass"] {
        assert!(results.contains(expected), "{expected} in {results}");
    }
    let received = mail::header::first(&stored[0], "Received").unwrap().value();
    for expected in [
        "from client.example.net (mail.gmail.com [127.0.0.1])",
        "by mail.example.com with ESMTP id ",
        "for <bob@example.com>",
    ] {
        assert!(received.contains(expected), "{expected} in {received}");
    }

    let events = events(&world, id_in(&reply));
    assert!(
        matches!(&events[0], Event::Received { size, message_id, peer_ip: Some(_), .. }
            if *size as usize == message.replace('\n', "\r\n").len() + 2 && message_id.as_deref() == Some("1@gmail.com")),
        "{events:#?}"
    );
    assert!(matches!(&events[1], Event::Judged { disposition, .. } if disposition == "accept"));
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Accepted { local: 1, queued: 0 }))
    );
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::DeliveredLocal { mailbox_name, .. } if mailbox_name == "INBOX"))
    );
}

#[test]
fn a_forged_author_is_refused_by_dmarc_and_told_why() {
    let world = World::new();
    let bob = world.account("bob@example.com", None);
    let resolver = TableResolver::new()
        .with_txt("gmail.com", "v=spf1 ip4:192.0.2.1 -all")
        .with_txt("_dmarc.gmail.com", "v=DMARC1; p=reject");
    let server = world.serve(strict(resolver));
    let mut talker = greeted(&server);
    let reply = send(
        &mut talker,
        "alice@gmail.com",
        "bob@example.com",
        "From: alice@gmail.com\nMessage-ID: <forged@gmail.com>\n\nhello",
    );
    assert!(
        reply.starts_with("550-5.7.26 ") || reply.starts_with("550 5.7.26 "),
        "{reply}"
    );
    assert!(reply.contains("SPF") && reply.contains("DMARC"), "{reply}");
    assert!(world.messages(bob, Folder::Inbox).is_empty());
    let events = events(&world, id_in(&reply));
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Judged { disposition, .. } if disposition == "refuse"))
    );
    assert!(
        events.iter().any(
            |e| matches!(e, Event::Refused { stage, reply, .. } if stage == "DATA" && reply.code == 550)
        )
    );
    assert!(talker.ask("QUIT").starts_with("221 "), "the session goes on");
}

#[test]
fn what_our_own_gateway_brings_was_judged_before() {
    let world = World::new();
    let bob = world.account("bob@example.com", None);
    let resolver = TableResolver::new()
        .with_txt("gmail.com", "v=spf1 ip4:192.0.2.1 -all")
        .with_txt("_dmarc.gmail.com", "v=DMARC1; p=reject");
    let mut setup = strict(resolver);
    setup.options.unjudged_from = vec!["127.0.0.0/8".parse().unwrap()];
    let server = world.serve(setup);
    let mut talker = greeted(&server);
    let text = "Authentication-Results: gateway.example.com; spf=pass\nFrom: alice@gmail.com\n\nhello";
    let reply = send(&mut talker, "alice@gmail.com", "bob@example.com", text);
    assert!(reply.starts_with("250 "), "{reply}");
    let kept = String::from_utf8(world.messages(bob, Folder::Inbox).remove(0)).unwrap();
    assert!(kept.contains("Authentication-Results: gateway.example.com; spf=pass\r\n"));
    assert_eq!(kept.matches("Authentication-Results:").count(), 1);
    talker.ask("MAIL FROM:<alice@gmail.com>");
    let reply = talker.ask("RCPT TO:<carol@elsewhere.example>");
    assert!(reply.starts_with("550 5.7.1 Relaying denied"), "{reply}");
}

#[test]
fn quarantine_goes_to_junk() {
    let world = World::new();
    let bob = world.account("bob@example.com", None);
    let resolver = TableResolver::new()
        .with_txt("gmail.com", "v=spf1 -all")
        .with_txt("_dmarc.gmail.com", "v=DMARC1; p=quarantine");
    let server = world.serve(strict(resolver));
    let reply = send(
        &mut greeted(&server),
        "alice@gmail.com",
        "bob@example.com",
        "From: alice@gmail.com\n\nhello",
    );
    assert!(reply.starts_with("250 "), "{reply}");
    assert!(world.messages(bob, Folder::Inbox).is_empty());
    assert_eq!(world.messages(bob, Folder::Junk).len(), 1);
}

#[test]
fn trouble_with_the_dns_is_a_4xx() {
    let world = World::new();
    world.account("bob@example.com", None);
    let resolver = TableResolver::new().with_failure("_dmarc.gmail.com", "SERVFAIL");
    let server = world.serve(strict(resolver));
    let reply = send(
        &mut greeted(&server),
        "alice@gmail.com",
        "bob@example.com",
        "From: alice@gmail.com\n\nhello",
    );
    assert!(reply.starts_with("451"), "{reply}");
    assert!(
        reply.contains(" 4.4.3 ") || reply.contains("-4.4.3 ") || reply.contains("4.7."),
        "{reply}"
    );
}

#[test]
fn a_listed_client_is_refused_at_rcpt_with_the_lists_words() {
    let world = World::new();
    world.account("bob@example.com", None);
    let ip: IpAddr = "127.0.0.2".parse().unwrap();
    let resolver = TableResolver::new()
        .with_address("1.0.0.127.bl.example", ip)
        .with_txt("1.0.0.127.bl.example", "sent spam on Tuesday");
    let setup = Setup {
        blocklists: vec![domain("bl.example")],
        ..strict(resolver)
    };
    let server = world.serve(setup);
    let mut talker = greeted(&server);
    let reply = send(&mut talker, "alice@gmail.com", "bob@example.com", "");
    assert!(reply.starts_with("550"), "{reply}");
    assert!(
        reply.contains("5.7.1") && reply.contains("bl.example") && reply.contains("sent spam on Tuesday"),
        "{reply}"
    );
    assert!(talker.ask("QUIT").starts_with("221 "));
    // The refusal is recorded when the transaction ends, which the end of the session waits for.
    let id = id_in(&reply);
    server.end(&world);
    assert!(
        events(&world, id).iter().any(
            |e| matches!(e, Event::Refused { stage, rule, .. } if stage == "RCPT" && rule == "blocklist")
        )
    );
}

#[test]
fn a_message_that_goes_in_a_circle_ends() {
    let world = World::new();
    world.account("bob@example.com", None);
    let server = world.serve(Setup::default());
    let mut talker = greeted(&server);
    let hops = |n: usize| format!("{}From: a@b.c\n\nx", "Received: by x\n".repeat(n));
    assert!(send(&mut talker, "a@b.c", "bob@example.com", &hops(50)).starts_with("250 "));
    let reply = send(&mut talker, "a@b.c", "bob@example.com", &hops(51));
    assert!(reply.starts_with("554 5.4.6 "), "{reply}");
}

#[test]
fn a_message_of_nothing_but_header_fields_is_refused() {
    let world = World::new();
    world.account("bob@example.com", None);
    let server = world.serve(Setup::default());
    let mut talker = greeted(&server);
    let fields = |n: usize| format!("From: a@b.c\n{}\nx", "X:\n".repeat(n - 1));
    assert!(send(&mut talker, "a@b.c", "bob@example.com", &fields(2_000)).starts_with("250 "));
    let reply = send(&mut talker, "a@b.c", "bob@example.com", &fields(2_001));
    assert!(reply.starts_with("552 5.3.4 "), "{reply}");
}

#[test]
fn one_account_under_two_names_gets_one_copy() {
    let world = World::new();
    let bob = world.account("bob@example.com", None);
    let alias = address("info@example.com");
    world
        .runtime
        .block_on(world.directory.set_alias(&alias, &[bob]))
        .unwrap();
    let server = world.serve(Setup::default());
    let mut talker = greeted(&server);
    talker.ask("EHLO x");
    talker.ask("MAIL FROM:<a@b.c>");
    for to in ["bob@example.com", "info@example.com", "bob+tag@example.com"] {
        assert!(talker.ask(&format!("RCPT TO:<{to}>")).starts_with("250 "));
    }
    talker.ask("DATA");
    assert!(talker.ask("From: a@b.c\r\n\r\nx\r\n.").starts_with("250 "));
    let stored = world.messages(bob, Folder::Inbox);
    assert_eq!(stored.len(), 1);
    let received = mail::header::first(&stored[0], "Received").unwrap().value();
    assert!(
        !received.contains(" for "),
        "others must not learn of each other: {received}"
    );
}

#[test]
fn an_account_that_goes_before_the_message_ends_gets_none() {
    let world = World::new();
    let bob = world.account("bob@example.com", None);
    let server = world.serve(Setup::default());
    let mut talker = greeted(&server);
    talker.ask("EHLO x");
    talker.ask("MAIL FROM:<a@b.c>");
    assert!(talker.ask("RCPT TO:<bob@example.com>").starts_with("250 "));
    talker.ask("DATA");
    world
        .runtime
        .block_on(world.directory.remove_account(bob))
        .unwrap();
    let reply = talker.ask("From: a@b.c\r\n\r\nx\r\n.");
    assert!(reply.starts_with("451 4.3.0 "), "{reply}");
    assert_eq!(world.messages(bob, Folder::Inbox), Vec::<Vec<u8>>::new());
    talker.ask("MAIL FROM:<a@b.c>");
    assert!(talker.ask("RCPT TO:<bob@example.com>").starts_with("550 5.1.1 "));
}

#[test]
fn memory_for_messages_is_bounded() {
    let world = World::new();
    world.account("bob@example.com", None);
    let mut setup = Setup::default();
    setup.options.memory_max_octets = 256 * 1024;
    let server = world.serve(setup);
    let mut talker = greeted(&server);
    let large = format!("From: a@b.c\n\n{}", "0123456789abcdef\n".repeat(30_000));
    let reply = send(&mut talker, "a@b.c", "bob@example.com", &large);
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    // What it held is given back.
    assert!(send(&mut talker, "a@b.c", "bob@example.com", "From: a@b.c\n\nx").starts_with("250 "));
}

#[test]
fn connections_are_counted() {
    let world = World::new();
    let mut setup = Setup::default();
    setup.options.connections_per_address_max = 1;
    let server = world.serve(setup);
    let mut first = greeted(&server);
    let mut second = Talker::connect(server.address);
    assert!(second.reply().starts_with("421 4.7.0 "));
    assert_eq!(second.line(), Ok(None));
    assert!(first.ask("NOOP").starts_with("250 "));
}

#[test]
fn who_speaks_first_is_refused() {
    let world = World::new();
    let mut setup = Setup::default();
    setup.options.greeting_delay = Duration::from_secs(10);
    let server = world.serve(setup);
    let mut talker = Talker::connect(server.address);
    talker.send(b"EHLO spam.example\r\n");
    assert!(talker.reply().starts_with("554 5.7.0 "));
    assert_eq!(talker.line(), Ok(None));
}

#[test]
fn shutdown_tells_the_idle_and_lets_a_message_finish() {
    let world = World::new();
    let bob = world.account("bob@example.com", None);
    let server = world.serve(Setup::default());
    let mut idle = greeted(&server);
    let mut busy = greeted(&server);
    busy.ask("EHLO x");
    busy.ask("MAIL FROM:<a@b.c>");
    busy.ask("RCPT TO:<bob@example.com>");
    assert!(busy.ask("DATA").starts_with("354 "));
    busy.send(b"From: a@b.c\r\n");
    server.stop.send(true).unwrap();
    assert!(idle.reply().starts_with("421 4.3.2 "));
    assert_eq!(idle.line(), Ok(None));
    assert!(busy.ask("\r\nthe rest\r\n.").starts_with("250 "));
    assert!(busy.reply().starts_with("421 4.3.2 "));
    drop(busy);
    server.end(&world);
    assert_eq!(world.messages(bob, Folder::Inbox).len(), 1);
}

/// A resolver with a fault of ours in it.
struct Panics;

impl dns::Resolver for Panics {
    fn mx<'a>(&'a self, _: &'a mail::Domain) -> BoxFuture<'a, dns::Result<dns::Mx>> {
        panic!("mx")
    }
    fn txt<'a>(&'a self, _: &'a mail::Domain) -> BoxFuture<'a, dns::Result<Vec<u8>>> {
        panic!("txt")
    }
    fn a<'a>(&'a self, _: &'a mail::Domain) -> BoxFuture<'a, dns::Result<std::net::Ipv4Addr>> {
        panic!("a")
    }
    fn aaaa<'a>(&'a self, _: &'a mail::Domain) -> BoxFuture<'a, dns::Result<std::net::Ipv6Addr>> {
        panic!("aaaa")
    }
    fn ptr(&self, _: IpAddr) -> BoxFuture<'_, dns::Result<mail::Domain>> {
        panic!("ptr")
    }
    fn tlsa<'a>(&'a self, _: &'a dns::Name) -> BoxFuture<'a, dns::Result<dns::Tlsa>> {
        panic!("tlsa")
    }
}

#[test]
fn a_panic_is_421_and_ends_its_own_connection_only() {
    let world = World::new();
    world.account("bob@example.com", None);
    let server = world.serve_with(Setup::default(), std::sync::Arc::new(Panics));
    let mut other = greeted(&server);
    let mut talker = greeted(&server);
    talker.ask("EHLO x");
    assert!(talker.ask("MAIL FROM:<a@b.c>").starts_with("421 4.3.0 "));
    assert_eq!(talker.line(), Ok(None));
    assert!(other.ask("NOOP").starts_with("250 "));
    assert!(greeted(&server).ask("NOOP").starts_with("250 "));
}

#[test]
fn a_full_disk_puts_mail_off_until_there_is_room() {
    let world = World::new();
    let bob = world.account("bob@example.com", None);
    let server = world.serve(Setup::default());
    let mut talker = greeted(&server);
    world.disk.full.store(true, std::sync::atomic::Ordering::Relaxed);
    let reply = send(&mut talker, "a@b.c", "bob@example.com", "From: a@b.c\n\nx");
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    assert!(world.messages(bob, Folder::Inbox).is_empty());
    world.disk.full.store(false, std::sync::atomic::Ordering::Relaxed);
    let reply = send(&mut talker, "a@b.c", "bob@example.com", "From: a@b.c\n\nx");
    assert!(reply.starts_with("250 "), "{reply}");
    assert_eq!(world.messages(bob, Folder::Inbox).len(), 1, "once");
}
