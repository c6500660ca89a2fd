//! Who comes too often, is blocked, or has sent enough for today, over a socket.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Setup, Talker, World};
use limits::{Daily, Limits, Network, Options, OwnDaily, Rate, Suppression};
use mail::EmailAddress;
use smtp::Role;
use store::Batch;

/// Limits that count this machine too.
fn strict() -> Options {
    Options {
        trusted: Vec::new(),
        ..Options::off()
    }
}

fn limits_of(world: &World, options: Options) -> Limits {
    Limits::new(world.store.clone(), options)
}

fn rate(per_address: u32) -> Rate {
    Rate {
        per_address,
        ..Rate::OFF
    }
}

fn hello(talker: &mut Talker) -> String {
    let greeting = talker.reply();
    talker.ask("EHLO client.example.net");
    greeting
}

#[test]
fn connections_and_messages_and_recipients_by_the_minute() {
    let world = World::new();
    world.account("bob@example.com", None);
    let limits = limits_of(
        &world,
        Options {
            connections: rate(2),
            messages: rate(2),
            recipients: rate(2),
            ..strict()
        },
    );
    let serving = world.serve_limited(Setup::default(), limits);
    let mut talker = Talker::connect(serving.address);
    assert!(hello(&mut talker).starts_with("220 "));
    assert!(talker.ask("MAIL FROM:<a@b.example>").starts_with("250 "));
    assert!(talker.ask("RCPT TO:<bob@example.com>").starts_with("250 "));
    assert!(talker.ask("RCPT TO:<bob@example.com>").starts_with("250 "));
    let refused = talker.ask("RCPT TO:<bob@example.com>");
    assert!(
        refused.starts_with("452 4.5.3 Too many recipients from your address"),
        "{refused}"
    );
    talker.ask("RSET");
    assert!(talker.ask("MAIL FROM:<a@b.example>").starts_with("250 "));
    talker.ask("RSET");
    let refused = talker.ask("MAIL FROM:<a@b.example>");
    assert!(
        refused.starts_with("450 4.7.0 Too many messages from your address"),
        "{refused}"
    );
    assert!(Talker::connect(serving.address).reply().starts_with("220 "));
    let refused = Talker::connect(serving.address).reply();
    assert!(
        refused.starts_with("421 4.7.0 Too many connections from your address"),
        "{refused}"
    );
    assert!(talker.ask("NOOP").starts_with("250 "), "who is in stays in");
    serving.end(&world);
}

#[test]
fn who_asks_for_addresses_is_blocked_and_hears_until_when() {
    let world = World::new();
    world.account("bob@example.com", None);
    let limits = limits_of(
        &world,
        Options {
            unknown_recipients: rate(3),
            ..strict()
        },
    );
    let serving = world.serve_limited(Setup::default(), limits.clone());
    let mut talker = Talker::connect(serving.address);
    hello(&mut talker);
    talker.ask("MAIL FROM:<a@b.example>");
    assert!(talker.ask("RCPT TO:<ann@example.com>").starts_with("550 5.1.1 "));
    assert!(talker.ask("RCPT TO:<ben@example.com>").starts_with("550 5.1.1 "));
    let refused = talker.ask("RCPT TO:<cat@example.com>");
    assert!(
        refused.starts_with("421 4.7.0 Your address is blocked until 2026-"),
        "{refused}"
    );
    assert_eq!(talker.line().unwrap(), None, "closed");
    let refused = Talker::connect(serving.address).reply();
    assert!(refused.contains("too many unknown recipients"), "{refused}");
    let here = limits::Subject::Network(Network::new(std::net::Ipv4Addr::LOCALHOST.into(), 32));
    assert!(world.runtime.block_on(limits.lift(&here)).unwrap());
    assert!(Talker::connect(serving.address).reply().starts_with("220 "));
    serving.end(&world);
}

#[test]
fn a_stolen_password_does_little_harm() {
    let world = World::new();
    let mia = world.account("mia@example.com", Some("secret"));
    world.account("bob@example.com", None);
    let limits = limits_of(
        &world,
        Options {
            account: Daily {
                messages: 3,
                first_recipients: 2,
            },
            ..strict()
        },
    );
    let setup = Setup {
        role: Role::Submission,
        ..Setup::default()
    };
    let serving = world.serve_limited(setup, limits.clone());
    let mut talker = Talker::connect(serving.address).into_tls();
    // \0mia@example.com\0secret
    let login = talker.ask("AUTH PLAIN AG1pYUBleGFtcGxlLmNvbQBzZWNyZXQ=");
    assert!(login.starts_with("235 "), "{login}");
    talker.ask("MAIL FROM:<mia@example.com>");
    assert!(talker.ask("RCPT TO:<a@far.example>").starts_with("250 "));
    assert!(talker.ask("RCPT TO:<b@far.example>").starts_with("250 "));
    let refused = talker.ask("RCPT TO:<c@far.example>");
    assert!(
        refused.starts_with("452 4.7.1 mia@example.com has written to its 2 new"),
        "{refused}"
    );
    assert!(
        refused.contains("posthaste account limit mia@example.com --recipients N"),
        "{refused}"
    );
    assert!(
        talker.ask("RCPT TO:<bob@example.com>").starts_with("250 "),
        "who is here does not count"
    );
    assert!(talker.ask("DATA").starts_with("354 "));
    talker.send(b"From: mia@example.com\r\n\r\nhello\r\n.\r\n");
    let taken = talker.reply();
    assert!(taken.starts_with("250 "), "{taken}");
    let today = || {
        world
            .runtime
            .block_on(limits.today(mia, world.clock.now()))
            .unwrap()
    };
    assert_eq!((today().messages, today().first_recipients), (2, 2));

    talker.ask("MAIL FROM:<mia@example.com>");
    assert!(
        talker.ask("RCPT TO:<a@far.example>").starts_with("250 "),
        "written to before"
    );
    let refused = talker.ask("RCPT TO:<b@far.example>");
    assert!(
        refused.starts_with("452 4.7.1 mia@example.com has sent its 3 messages"),
        "{refused}"
    );
    assert!(refused.contains("from 2026-11-24T00:00:00Z on"), "{refused}");
    talker.ask("RSET");
    assert_eq!(today().messages, 2, "nothing was sent");
    let own = OwnDaily {
        messages: Some(10),
        first_recipients: None,
    };
    world.runtime.block_on(limits.set_own(mia, own)).unwrap();
    talker.ask("MAIL FROM:<mia@example.com>");
    for to in ["a@far.example", "b@far.example", "a@far.example"] {
        assert!(talker.ask(&format!("RCPT TO:<{to}>")).starts_with("250 "));
    }
    serving.end(&world);
}

/// An address that its server did not know is refused to the login that wrote to it, and to no other.
#[test]
fn a_suppressed_address_is_refused_with_its_reason() {
    let world = World::new();
    world.account("mia@example.com", Some("secret"));
    world.account("bob@example.com", None);
    let limits = limits_of(
        &world,
        Options {
            suppression: Suppression {
                senders: vec!["mia@example.com".to_owned()],
                ..Suppression::default()
            },
            ..strict()
        },
    );
    let gone = EmailAddress::parse("gone@far.example").unwrap();
    let said = ("mx.far.example", "550 5.1.1 no such user");
    let mut batch = Batch::new();
    let now = world.clock.now();
    limits
        .suppress(&mut batch, "mia@example.com", &gone, said, now)
        .unwrap();
    world.runtime.block_on(world.store.commit(batch)).unwrap();
    let setup = Setup {
        role: Role::Submission,
        ..Setup::default()
    };
    let serving = world.serve_limited(setup, limits.clone());
    let mut talker = Talker::connect(serving.address).into_tls();
    let login = talker.ask("AUTH PLAIN AG1pYUBleGFtcGxlLmNvbQBzZWNyZXQ=");
    assert!(login.starts_with("235 "), "{login}");
    talker.ask("MAIL FROM:<mia@example.com>");
    let refused = talker.ask("RCPT TO:<gone@far.example>");
    for part in [
        "550 5.1.1 gone@far.example does not exist, mx.far.example said on ",
        "posthaste suppression remove gone@far.example",
        "(reference ",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert!(talker.ask("RCPT TO:<there@far.example>").starts_with("250 "));
    let removed = world.runtime.block_on(limits.unsuppress(None, &gone));
    assert_eq!(removed.unwrap(), 1);
    assert!(talker.ask("RCPT TO:<gone@far.example>").starts_with("250 "));
}
