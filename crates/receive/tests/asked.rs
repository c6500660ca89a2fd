//! What a sender asks of the delivery arrives in the queue, and local mail waits where it is asked to.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Serving, Setup, Talker, World};
use mail::delivery::{ByMode, Notify, Priority, Ret};
use mailbox::Role as Folder;
use queue::{Body, Filter, Listed};
use smtp::{Role, sasl};
use std::time::Duration;

/// A client that logged in.
fn alice(world: &World) -> (Serving, Talker) {
    world.account("alice@example.com", Some("geheim"));
    let server = world.serve(Setup {
        role: Role::Submission,
        ..Setup::default()
    });
    let mut talker = Talker::connect(server.address).into_tls();
    let login = format!("AUTH PLAIN {}", sasl::encode("\0alice@example.com\0geheim"));
    assert!(talker.ask(&login).starts_with("235 "));
    (server, talker)
}

/// Sends one message; every reply must be good.
fn send(talker: &mut Talker, mail: &str, rcpts: &[&str]) {
    let good = |said: String| assert!(said.starts_with("250 "), "{said}");
    good(talker.ask(&format!("MAIL FROM:{mail}")));
    for rcpt in rcpts {
        good(talker.ask(&format!("RCPT TO:{rcpt}")));
    }
    assert!(talker.ask("DATA").starts_with("354 "));
    good(talker.ask("From: alice@example.com\r\n\r\nhi\r\n."));
}

fn listed(world: &World) -> Vec<Listed> {
    let all = Filter::default();
    let listing = world.queue.list(&all, 100);
    world.runtime.block_on(listing).unwrap()
}

#[test]
fn every_wish_is_kept() {
    let world = World::new();
    let (server, mut talker) = alice(&world);
    send(
        &mut talker,
        "<alice@example.com> RET=HDRS ENVID=a+2Bb REQUIRETLS BY=120;RT MT-PRIORITY=4",
        &[
            "<carol@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Carol+40home@example.org",
            "<dave@example.org> NOTIFY=NEVER",
            "<erin@example.org>",
        ],
    );
    let [Listed { message, errands, .. }] = &listed(&world)[..] else {
        panic!("one message");
    };
    assert_eq!(
        (message.ret, message.envid.as_deref()),
        (Some(Ret::Headers), Some("a+b"))
    );
    assert!(message.require_tls);
    assert_eq!(message.priority, Priority::new(4).unwrap());
    let deadline = message.deliver_by.unwrap();
    assert_eq!((deadline.mode, deadline.trace), (ByMode::Return, true));
    let left = deadline.at.since(message.received_at);
    assert!(
        (Duration::from_secs(119)..=Duration::from_secs(120)).contains(&left),
        "{left:?}"
    );
    assert_eq!(message.body, Body::SevenBit);
    let wishes: Vec<_> = errands.iter().map(|e| e.notify).collect();
    let success = Notify {
        success: true,
        delay: true,
        failure: false,
    };
    assert_eq!(wishes, [Some(success), Some(Notify::NEVER), None]);
    let original = errands[0].original_recipient.as_ref().unwrap();
    assert_eq!(original.address, "Carol@home@example.org");
    assert!(errands[1].original_recipient.is_none());
    server.end(&world);
}

#[test]
fn a_held_message_waits_also_for_a_mailbox_here() {
    let world = World::new();
    let bob = world.account("bob@example.com", None);
    let (server, mut talker) = alice(&world);
    send(
        &mut talker,
        "<alice@example.com> HOLDFOR=3600",
        &["<bob@example.com>", "<carol@example.org>"],
    );
    assert!(world.messages(bob, Folder::Inbox).is_empty());
    let [Listed { message, errands, .. }] = &listed(&world)[..] else {
        panic!("one message");
    };
    assert_eq!(errands.len(), 2);
    for errand in errands {
        let until = errand.held_until(message.received_at).unwrap();
        let wait = until.since(message.received_at);
        assert!(
            (Duration::from_secs(3_599)..=Duration::from_secs(3_600)).contains(&wait),
            "{wait:?}"
        );
    }
    // One whose time has come already is not held.
    send(
        &mut talker,
        "<alice@example.com> HOLDUNTIL=2001-01-01T00:00:00Z",
        &["<bob@example.com>"],
    );
    assert_eq!(world.messages(bob, Folder::Inbox).len(), 1);
    server.end(&world);
}

#[test]
fn who_wants_to_hear_of_success_gets_it_where_errands_end() {
    let world = World::new();
    let bob = world.account("bob@example.com", None);
    let (server, mut talker) = alice(&world);
    send(
        &mut talker,
        "<alice@example.com>",
        &["<bob@example.com> NOTIFY=FAILURE"],
    );
    assert_eq!(world.messages(bob, Folder::Inbox).len(), 1);
    send(
        &mut talker,
        "<alice@example.com> ENVID=x",
        &["<bob@example.com> NOTIFY=SUCCESS"],
    );
    let [Listed { message, errands, .. }] = &listed(&world)[..] else {
        panic!("one message");
    };
    assert_eq!(message.envid.as_deref(), Some("x"));
    assert_eq!(errands[0].recipient.to_string(), "bob@example.com");
    assert!(errands[0].notify.unwrap().success);
    server.end(&world);
}

#[test]
fn a_binary_message_is_known_as_one() {
    let world = World::new();
    let (server, mut talker) = alice(&world);
    let good = |said: String| assert!(said.starts_with("250 "), "{said}");
    good(talker.ask("MAIL FROM:<alice@example.com> BODY=BINARYMIME"));
    good(talker.ask("RCPT TO:<carol@example.org>"));
    let message = b"From: alice@example.com\r\n\r\na\nb\0c\r.";
    talker.send(format!("BDAT {} LAST\r\n", message.len()).as_bytes());
    talker.send(message);
    good(talker.reply());
    assert_eq!(listed(&world)[0].message.body, Body::Binary);
    let (_, bytes) = world.queued().remove(0);
    assert!(bytes.ends_with(b"\r\n\r\na\nb\0c\r."), "{}", bytes.escape_ascii());
    server.end(&world);
}
