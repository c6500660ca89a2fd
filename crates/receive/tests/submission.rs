//! What our own people meet on the submission ports: logins, authorship, completed and signed mail.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Setup, Talker, World, domain};
use directory::{SigningAlgorithm, SigningKey as StoredKey};
use dns::table::TableResolver;
use judge::dkim::{DkimResult, KeyKind, SigningKey};
use mail::AccountId;
use mailbox::Role as Folder;
use smtp::{Role, sasl};
use std::time::{Duration, Instant};

fn submission() -> Setup {
    Setup {
        role: Role::Submission,
        ..Setup::default()
    }
}

fn plain(login: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", sasl::encode(format!("\0{login}\0{password}")))
}

/// A logged-in client.
fn alice(world: &World, setup: Setup) -> (common::Serving, Talker) {
    world.account("alice@example.com", Some("geheim"));
    let server = world.serve(setup);
    let mut talker = Talker::connect(server.address).into_tls();
    assert!(
        talker
            .ask(&plain("alice@example.com", "geheim"))
            .starts_with("235 ")
    );
    (server, talker)
}

fn submit(talker: &mut Talker, from: &str, to: &[&str], message: &str) -> String {
    let said = talker.ask(&format!("MAIL FROM:<{from}>"));
    if !said.starts_with("250 ") {
        return said;
    }
    for to in to {
        assert!(talker.ask(&format!("RCPT TO:<{to}>")).starts_with("250 "));
    }
    assert!(talker.ask("DATA").starts_with("354 "));
    talker.ask(&format!("{}\r\n.", message.replace('\n', "\r\n")))
}

#[test]
fn a_message_is_completed_signed_and_queued() {
    let world = World::new();
    let bob = world.account("bob@example.com", None);
    let mut resolver = TableResolver::new();
    for (kind, selector, algorithm) in [
        (KeyKind::Rsa2048, "r1", SigningAlgorithm::RsaSha256),
        (KeyKind::Ed25519, "e1", SigningAlgorithm::Ed25519Sha256),
    ] {
        let key = SigningKey::generate(kind).unwrap();
        let name = format!("{selector}._domainkey.example.com");
        resolver = resolver.with_txt(&name, key.dns_record_value().unwrap());
        let stored = StoredKey {
            selector: selector.to_owned(),
            algorithm,
            pkcs8_pem: key.to_pkcs8_pem().unwrap(),
            created: world.clock.now(),
        };
        world
            .runtime
            .block_on(world.directory.add_signing_key(&domain("example.com"), stored))
            .unwrap();
    }
    let (_server, mut talker) = alice(&world, submission());
    let message = "From: Alice <alice@example.com>\nTo: carol@example.org\nBcc: bob@example.com,\n dave@x.y\nSubject: hi\n\nhello";
    let reply = submit(
        &mut talker,
        "alice@example.com",
        &["carol@example.org", "bob@example.com"],
        message,
    );
    assert!(reply.starts_with("250 2.0.0 OK, message queued as "), "{reply}");

    let queued = world.queued();
    assert_eq!(queued.len(), 1);
    assert_eq!(queued[0].0, ["carol@example.org"]);
    let here = world.messages(bob, Folder::Inbox);
    assert_eq!(here.len(), 1, "the local recipient is settled in the same batch");
    for sent in [&queued[0].1, &here[0]] {
        let text = String::from_utf8_lossy(sent);
        assert!(!text.contains("Bcc") && !text.contains("dave@x.y"), "{text}");
        assert!(mail::header::first(sent, "Date").is_some(), "{text}");
        assert!(text.contains("with ESMTPSA id "), "{text}");
        assert!(!text.contains("Received-SPF"), "{text}");
        let id = mail::header::first(sent, "Message-ID").unwrap().value();
        assert!(id.starts_with('<') && id.ends_with("@example.com>"), "{id}");
        let now = world.clock.now();
        let verified = world.runtime.block_on(judge::dkim::verify(&resolver, sent, now));
        assert_eq!(verified.signatures.len(), 2, "{text}");
        for signature in &verified.signatures {
            assert_eq!(signature.result, DkimResult::Pass, "{signature:?}");
        }
    }
}

#[test]
fn what_is_there_already_is_kept() {
    let world = World::new();
    let (_server, mut talker) = alice(&world, submission());
    let message =
        "Date: Mon, 23 Nov 2026 13:04:13 +0000\nMessage-ID: <mine@example.com>\nFrom: alice@example.com\n\nx";
    assert!(submit(&mut talker, "alice@example.com", &["c@d.e"], message).starts_with("250 "));
    let sent = world.queued().remove(0).1;
    let count = |name: &str| mail::header::fields(&sent).filter(|f| f.is(name)).count();
    assert_eq!((count("Date"), count("Message-ID")), (1, 1));
}

#[test]
fn one_writes_as_oneself() {
    let world = World::new();
    world.account("boss@example.com", None);
    let (_server, mut talker) = alice(&world, submission());
    for (from, status) in [
        ("boss@example.com", "550 5.7.1 "),
        ("alice@example.com, boss@example.com", "550 5.7.1 "),
        ("alice@gmail.com", "550 5.7.1 "),
        ("\"alice@example.com\" <boss@example.com>", "550 5.7.1 "),
        ("nobody", "550 5.6.0 "),
    ] {
        let message = format!("From: {from}\n\nx");
        let reply = submit(&mut talker, "alice@example.com", &["c@d.e"], &message);
        assert!(reply.starts_with(status), "{from}: {reply}");
    }
    for message in [
        "Subject: no author\n\nx",
        "From: alice@example.com\nFrom: boss@example.com\n\nx",
    ] {
        let reply = submit(&mut talker, "alice@example.com", &["c@d.e"], message);
        assert!(reply.starts_with("550 5.6.0 "), "{message}: {reply}");
    }
    let reply = submit(&mut talker, "boss@example.com", &[], "");
    assert!(reply.starts_with("553 5.7.1 "), "{reply}");
    assert!(world.queued().is_empty());
    let reply = submit(
        &mut talker,
        "",
        &["c@d.e"],
        "From: alice+tag@example.com\n\na receipt",
    );
    assert!(reply.starts_with("250 "), "{reply}");
}

#[test]
fn an_app_password_opens_what_the_main_one_may_not() {
    let world = World::new();
    let id = world.account("alice@example.com", Some("geheim"));
    let secret = world.directory.new_totp_secret().unwrap();
    let now = world.clock.now();
    let app = world.runtime.block_on(async {
        world.directory.set_second_factor(id, Some(secret)).await.unwrap();
        let made = world
            .directory
            .add_app_password(id, "laptop", directory::Scopes::ALL, now);
        made.await.unwrap()
    });
    let server = world.serve(submission());
    let mut talker = Talker::connect(server.address).into_tls();
    let reply = talker.ask(&plain("alice@example.com", "geheim"));
    assert!(
        reply.starts_with("534 5.7.9 ") && reply.contains("app password"),
        "{reply}"
    );
    let reply = talker.ask(&plain("alice@example.com", app.password.expose()));
    assert!(reply.starts_with("235 "), "{reply}");
}

#[test]
fn failures_are_answered_later_and_later() {
    let world = World::new();
    world.account("alice@example.com", Some("geheim"));
    let mut setup = submission();
    setup.options.auth_failure_delay = Duration::from_millis(60);
    let server = world.serve(setup);
    let mut talker = Talker::connect(server.address).into_tls();
    let mut took = |login: &str| {
        let began = Instant::now();
        let reply = talker.ask(&plain(login, "wrong"));
        assert!(
            reply.starts_with("535 5.7.8 User name or password is wrong"),
            "{reply}"
        );
        began.elapsed()
    };
    assert!(took("alice@example.com") >= Duration::from_millis(60));
    assert!(
        took("nobody@example.com") >= Duration::from_millis(120),
        "whoever it is"
    );
}

#[test]
fn guessing_from_one_address_ends() {
    let world = World::new();
    world.account("alice@example.com", Some("geheim"));
    let mut setup = submission();
    setup.options.login_failures_per_address_max = 2;
    let server = world.serve(setup);
    for _ in 0..2 {
        let mut talker = Talker::connect(server.address).into_tls();
        assert!(
            talker
                .ask(&plain("alice@example.com", "wrong"))
                .starts_with("535 ")
        );
    }
    let mut talker = Talker::connect(server.address).into_tls();
    let reply = talker.ask(&plain("alice@example.com", "geheim"));
    assert!(reply.starts_with("421 4.7.0 "), "{reply}");
}

#[test]
fn one_cannot_log_in_as_another() {
    let world = World::new();
    world.account("alice@example.com", Some("geheim"));
    world.account("boss@example.com", None);
    let server = world.serve(submission());
    let mut talker = Talker::connect(server.address).into_tls();
    let both = sasl::encode("boss@example.com\0alice@example.com\0geheim");
    assert!(
        talker
            .ask(&format!("AUTH PLAIN {both}"))
            .starts_with("535 5.7.8 ")
    );
}

#[test]
fn a_login_that_is_taken_away_ends_the_session() {
    for change in ["suspension", "password", "second factor", "removal"] {
        let world = World::new();
        let (_server, mut talker) = alice(&world, submission());
        let (d, id) = (&world.directory, AccountId(1));
        let named = world.runtime.block_on(d.set_display_name(id, "Alice"));
        named.unwrap();
        assert!(talker.ask("NOOP").starts_with("250 "), "not for a name");
        assert!(talker.ask("MAIL FROM:<alice@example.com>").starts_with("250 "));
        let done = world.runtime.block_on(async {
            match change {
                "suspension" => d.suspend(id).await,
                "password" => d.set_password(id, None).await,
                "second factor" => {
                    let secret = d.new_totp_secret().unwrap();
                    d.set_second_factor(id, Some(secret)).await
                }
                _ => d.remove_account(id).await,
            }
        });
        done.unwrap();
        let reply = talker.ask("RCPT TO:<c@d.e>");
        assert!(
            reply.starts_with("421 4.7.0 This login has ended"),
            "{change}: {reply}"
        );
        assert_eq!(talker.line(), Ok(None), "{change}");
    }
}

#[test]
fn a_revoked_app_password_ends_its_sessions_after_the_message() {
    let world = World::new();
    let id = world.account("alice@example.com", None);
    let now = world.clock.now();
    let made = world
        .directory
        .add_app_password(id, "laptop", directory::Scopes::ALL, now);
    let app = world.runtime.block_on(made).unwrap();
    let server = world.serve(submission());
    let mut talker = Talker::connect(server.address).into_tls();
    let reply = talker.ask(&plain("alice@example.com", app.password.expose()));
    assert!(reply.starts_with("235 "), "{reply}");
    for line in ["MAIL FROM:<alice@example.com>", "RCPT TO:<c@d.e>", "DATA"] {
        let reply = talker.ask(line);
        assert!(reply.starts_with("250 ") || reply.starts_with("354 "), "{reply}");
    }
    talker.send(b"From: alice@example.com\r\n");
    let revoked = world.directory.revoke_app_password(id, app.record.id);
    world.runtime.block_on(revoked).unwrap();
    // A further one in the same breath is too late.
    let reply = talker.ask("\r\nx\r\n.\r\nMAIL FROM:<alice@example.com>");
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    let reply = talker.reply();
    assert!(reply.starts_with("421 4.7.0 "), "{reply}");
    assert_eq!(world.queued().len(), 1);
}
