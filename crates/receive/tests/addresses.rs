//! Where addresses lead, as a peer meets it: forwards with a rewritten sender, bounces that come back,
//! groups, disabled domains, circles, full mailboxes.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Serving, Setup, Talker, World, address, domain};
use directory::{Disabled, DomainChange, GroupChange, Leads, Posting, Quota};
use journey::Event;
use mail::{EmailAddress, QueueId};
use mailbox::Role as Folder;
use smtp::Role;
use smtp::sasl;

const LETTER: &str = "From: a@far.example\r\nSubject: hello\r\n\r\nx\r\n.";

fn talk(server: &Serving) -> Talker {
    let mut talker = Talker::connect(server.address);
    assert!(talker.reply().starts_with("220 "));
    talker.ask("EHLO client.example.net");
    talker
}

/// From MAIL to the end; the reply that ended it.
fn send(talker: &mut Talker, from: &str, to: &[&str], letter: &str) -> String {
    assert!(talker.ask(&format!("MAIL FROM:<{from}>")).starts_with("250 "));
    for to in to {
        let said = talker.ask(&format!("RCPT TO:<{to}>"));
        if !said.starts_with("250 ") {
            talker.ask("RSET");
            return said;
        }
    }
    assert!(talker.ask("DATA").starts_with("354 "));
    talker.ask(letter)
}

fn leads(addresses: &[&str]) -> Leads {
    Leads {
        accounts: Vec::new(),
        addresses: addresses.iter().map(|a| address(a)).collect(),
    }
}

/// What is queued: reverse-path, recipients, octets.
fn queued(world: &World) -> Vec<(String, Vec<String>, String)> {
    world.runtime.block_on(async {
        let listed = world.queue.list(&queue::Filter::default(), 100).await.unwrap();
        let mut out = Vec::new();
        for one in listed {
            let message = &one.message;
            let blob = store::Blobs::read(world.store.as_ref(), message.blob, 0..message.blob_len);
            let octets = [&message.prefix[..], &blob.await.unwrap()[..]].concat();
            let to = one.errands.iter().map(|e| e.recipient.to_string()).collect();
            out.push((
                message.reverse_path.to_string(),
                to,
                String::from_utf8(octets).unwrap(),
            ));
        }
        out
    })
}

fn rewritten(path: &str) -> EmailAddress {
    let text = path.strip_prefix('<').and_then(|p| p.strip_suffix('>')).unwrap();
    assert!(text.starts_with("SRS0="), "{text}");
    address(text)
}

#[test]
fn a_forward_is_a_message_of_its_own_and_its_bounce_comes_back() {
    let world = World::new();
    let bob = world.account("bob@example.com", None);
    let both = Leads {
        accounts: vec![bob],
        ..leads(&["bob@away.example"])
    };
    world
        .runtime
        .block_on(
            world
                .directory
                .set_alias_to(&address("robert@example.com"), &both),
        )
        .unwrap();
    let server = world.serve(Setup::default());
    let mut talker = talk(&server);
    let reply = send(&mut talker, "a@far.example", &["robert@example.com"], LETTER);
    assert!(reply.starts_with("250 "), "{reply}");
    assert_eq!(world.messages(bob, Folder::Inbox).len(), 1);
    let (path, to, octets) = queued(&world).remove(0);
    assert_eq!(to, ["bob@away.example"]);
    assert!(
        octets.starts_with("Delivered-To: robert@example.com\r\n"),
        "{octets}"
    );
    assert!(octets.ends_with("From: a@far.example\r\nSubject: hello\r\n\r\nx\r\n"));
    let srs = rewritten(&path);
    assert_eq!(srs.domain().unwrap().as_str(), "example.com");

    // Both journeys tell of each other.
    let id = reply.rsplit(' ').next().and_then(QueueId::parse).unwrap();
    let events = |id| world.runtime.block_on(world.journey.events(id)).unwrap();
    let onward = events(id).into_iter().find_map(|r| match r.event {
        Event::SentOn { message, .. } => Some(message),
        _ => None,
    });
    let from = events(onward.unwrap()).into_iter().find_map(|r| match r.event {
        Event::SentOnFrom { message, .. } => Some(message),
        _ => None,
    });
    assert_eq!(from, Some(id));

    // The bounce goes to who sent it first, with the null path; another's tag opens nothing.
    let reply = send(&mut talker, "", &[&srs.to_string()], LETTER);
    assert!(reply.starts_with("250 "), "{reply}");
    let bounce = queued(&world).pop().unwrap();
    assert_eq!(
        (bounce.0.as_str(), &bounce.1[..]),
        ("<>", &["a@far.example".to_owned()][..])
    );
    let forged = srs.to_string().replace("=a@", "=eve@");
    let reply = send(&mut talker, "", &[&forged], LETTER);
    assert!(reply.starts_with("550 5.7.1 "), "{reply}");
    assert!(reply.contains("its tag is wrong"), "{reply}");
}

#[test]
fn what_an_address_forwarded_before_is_not_forwarded_again() {
    let world = World::new();
    let bob = world.account("bob@example.com", None);
    let away = leads(&["bob@away.example"]);
    world
        .runtime
        .block_on(
            world
                .directory
                .set_alias_to(&address("robert@example.com"), &away),
        )
        .unwrap();
    let server = world.serve(Setup::default());
    let mut talker = talk(&server);
    let back = format!("Delivered-To: Robert@example.com\r\n{LETTER}");
    let reply = send(&mut talker, "a@far.example", &["robert@example.com"], &back);
    assert!(reply.starts_with("554 5.4.6 "), "{reply}");
    let reply = send(&mut talker, "a@far.example", &["bob@example.com"], &back);
    assert!(
        reply.starts_with("250 "),
        "delivered here it goes nowhere: {reply}"
    );
    // Whoever else is named gets it.
    let inbox = || world.messages(bob, Folder::Inbox).len();
    let both = ["robert@example.com", "bob@example.com"];
    assert!(send(&mut talker, "a@far.example", &both, &back).starts_with("250 "));
    assert_eq!((inbox(), queued(&world).len()), (2, 0));
    let reply = send(&mut talker, "", &["robert@example.com"], LETTER);
    assert!(reply.starts_with("250 "), "{reply}");
    assert_eq!(queued(&world)[0].0, "<>", "the null path stays null");
}

#[test]
fn a_login_keeps_its_sender_when_it_writes_to_a_forward() {
    let world = World::new();
    world.account("bob@example.com", Some("geheim"));
    let away = leads(&["bob@away.example"]);
    world
        .runtime
        .block_on(
            world
                .directory
                .set_alias_to(&address("robert@example.com"), &away),
        )
        .unwrap();
    let server = world.serve(Setup {
        role: Role::Submission,
        ..Setup::default()
    });
    let mut talker = Talker::connect(server.address).into_tls();
    let login = sasl::encode("\0bob@example.com\0geheim");
    assert!(talker.ask(&format!("AUTH PLAIN {login}")).starts_with("235 "));
    let letter = LETTER.replace("a@far.example", "bob@example.com");
    let reply = send(&mut talker, "bob@example.com", &["robert@example.com"], &letter);
    assert!(reply.starts_with("250 "), "{reply}");
    assert_eq!(queued(&world)[0].0, "<bob@example.com>");
}

#[test]
fn groups_know_who_may_post() {
    let world = World::new();
    let bob = world.account("bob@example.com", Some("geheim"));
    let carol = world.account("carol@example.com", Some("geheim"));
    let team = GroupChange {
        post: Some(Posting::Members),
        more: Leads::to_accounts(&[bob]),
        ..GroupChange::default()
    };
    let all = GroupChange {
        more: Leads {
            accounts: vec![carol],
            ..leads(&["team@example.com"])
        },
        ..GroupChange::default()
    };
    world.runtime.block_on(async {
        let d = &world.directory;
        d.add_group(&address("team@example.com"), &team).await.unwrap();
        d.add_group(&address("all@example.com"), &all).await.unwrap();
    });
    let stranger = world.serve(Setup::default());
    let mut talker = talk(&stranger);
    let reply = send(&mut talker, "bob@example.com", &["team@example.com"], LETTER);
    assert!(
        reply.starts_with("550 5.7.2 "),
        "a name alone proves nothing: {reply}"
    );
    assert!(send(&mut talker, "a@far.example", &["all@example.com"], LETTER).starts_with("250 "));
    assert_eq!(world.messages(bob, Folder::Inbox).len(), 1);
    assert_eq!(world.messages(carol, Folder::Inbox).len(), 1);
    let server = world.serve(Setup {
        role: Role::Submission,
        ..Setup::default()
    });
    for (who, code) in [("bob@example.com", "250 "), ("carol@example.com", "550 5.7.2 ")] {
        let mut talker = Talker::connect(server.address).into_tls();
        let login = sasl::encode(format!("\0{who}\0geheim"));
        assert!(talker.ask(&format!("AUTH PLAIN {login}")).starts_with("235 "));
        let letter = LETTER.replace("a@far.example", who);
        let reply = send(&mut talker, who, &["team@example.com"], &letter);
        assert!(reply.starts_with(code), "{who}: {reply}");
    }
}

#[test]
fn a_disabled_domain_says_why() {
    let world = World::new();
    world.account("bob@example.com", None);
    let server = world.serve(Setup::default());
    let mut talker = talk(&server);
    for (temporary, expected) in [
        (true, "450 4.2.1 We are moving; try tomorrow"),
        (false, "550 5.2.1 We are moving; try tomorrow"),
    ] {
        let change = DomainChange {
            disabled: Some(Some(Disabled {
                temporary,
                words: "We are moving; try tomorrow".to_owned(),
            })),
            ..DomainChange::default()
        };
        world
            .runtime
            .block_on(world.directory.set_domain(&domain("example.com"), &change))
            .unwrap();
        let reply = send(&mut talker, "a@far.example", &["bob@example.com"], LETTER);
        assert!(reply.starts_with(expected), "{reply}");
    }
}

#[test]
fn a_full_mailbox_is_told_at_rcpt_and_never_overrun() {
    let world = World::new();
    let bob = world.account("bob@example.com", None);
    let carol = world.account("carol@example.com", None);
    world
        .runtime
        .block_on(world.directory.set_quota(bob, Some(Quota::Octets(2_000))))
        .unwrap();
    let server = world.serve(Setup::default());
    let mut talker = talk(&server);
    // SIZE tells before the message comes.
    talker.ask("MAIL FROM:<a@far.example> SIZE=5000");
    let reply = talker.ask("RCPT TO:<bob@example.com>");
    assert!(reply.starts_with("452 4.2.2 "), "{reply}");
    assert!(talker.ask("RCPT TO:<carol@example.com>").starts_with("250 "));
    talker.ask("RSET");
    // Without SIZE the end of the message tells; others get it all the same, and it waits for Bob.
    let long = format!("From: a@far.example\r\n\r\n{}.", "word\r\n".repeat(400));
    let reply = send(&mut talker, "a@far.example", &["bob@example.com"], &long);
    assert!(reply.starts_with("452 4.2.2 "), "{reply}");
    let reply = send(
        &mut talker,
        "a@far.example",
        &["bob@example.com", "carol@example.com"],
        &long,
    );
    assert!(reply.starts_with("250 "), "{reply}");
    assert_eq!(world.messages(carol, Folder::Inbox).len(), 1);
    assert_eq!(queued(&world)[0].1, ["bob@example.com"]);
    // Small ones fill it up to the quota and no further.
    let replies: Vec<String> = (0..10)
        .map(|_| send(&mut talker, "a@far.example", &["bob@example.com"], LETTER))
        .collect();
    assert!(
        replies[0].starts_with("250 ") && replies[9].starts_with("452 4.2.2 "),
        "{replies:?}"
    );
    let used = world.runtime.block_on(world.mailboxes.usage(bob)).unwrap();
    assert!(used <= 2_000, "{used}");
    world
        .runtime
        .block_on(world.directory.set_quota(bob, None))
        .unwrap();
    assert!(send(&mut talker, "a@far.example", &["bob@example.com"], LETTER).starts_with("250 "));
}

/// Two servers of two domains, and a third party whose SPF record names neither: the letter passes SPF
/// at its destination only because the sender was rewritten, and what comes back finds its sender.
#[test]
fn a_forward_across_domains_passes_spf_and_its_bounce_finds_home() {
    let records = || {
        dns::table::TableResolver::new()
            .with_txt("far.example", "v=spf1 ip4:127.0.0.1 -all")
            .with_txt("example.com", "v=spf1 ip4:127.0.0.1 -all")
            .with_txt("strict.example", "v=spf1 ip4:192.0.2.1 -all")
    };
    let (here, there) = (World::new(), World::new());
    here.account("bob@example.com", None);
    let carol = there.account("carol@away.example", None);
    let away = leads(&["carol@away.example"]);
    here.runtime
        .block_on(here.directory.set_alias_to(&address("carol@example.com"), &away))
        .unwrap();
    let served = |world: &World| {
        world.serve(Setup {
            resolver: records(),
            ..Setup::default()
        })
    };
    let (first, second) = (served(&here), served(&there));
    let mut talker = talk(&first);
    // It came from a network that the sender's SPF record names at that time, and names no more.
    let reply = send(&mut talker, "dan@strict.example", &["carol@example.com"], LETTER);
    assert!(reply.starts_with("250 "), "{reply}");
    let (path, to, octets) = queued(&here).remove(0);
    let srs = rewritten(&path).to_string();
    let letter = format!("{}.", octets);
    let mut talker = talk(&second);
    for from in [srs.as_str(), "dan@strict.example"] {
        assert!(send(&mut talker, from, &[&to[0]], &letter).starts_with("250 "));
    }
    let got = there.messages(carol, Folder::Inbox);
    let spf = |message: &[u8]| mail::header::first(message, "Received-SPF").unwrap().value();
    assert!(spf(&got[0]).starts_with("pass"), "{}", spf(&got[0]));
    assert!(spf(&got[1]).starts_with("fail"), "{}", spf(&got[1]));
    // Carol's server gives up later, and reports to the reverse-path.
    let mut talker = talk(&first);
    assert!(send(&mut talker, "", &[&srs], LETTER).starts_with("250 "));
    let (path, to, _) = queued(&here).pop().unwrap();
    assert_eq!(
        (path.as_str(), &to[..]),
        ("<>", &["dan@strict.example".to_owned()][..])
    );
}
