//! Every refusal ends with a reference, and what it refers to is told, whether a message was begun or not.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Setup, Talker, World};
use mail::QueueId;
use smtp::Role;
use std::time::Duration;

/// What is told of the reference that a reply ends with.
fn told(world: &World, reply: &str) -> String {
    let id = reply
        .rsplit_once("(reference ")
        .and_then(|(_, id)| QueueId::parse(id.strip_suffix(')')?));
    let id = id.unwrap_or_else(|| panic!("no reference: {reply}"));
    let records = world.runtime.block_on(world.journey.events(id)).unwrap();
    journey::tell(&records).to_string()
}

fn holds(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
}

#[test]
fn outside_a_transaction_it_is_the_sessions() {
    let world = World::new();
    let mut setup = Setup::default();
    setup.options.smtp.errors_max = 2;
    setup.options.connections_per_address_max = 1;
    let serving = world.serve(setup);
    let mut client = Talker::connect(serving.address);
    client.reply();
    let crowd = Talker::connect(serving.address).reply();
    holds(
        &told(&world, &crowd),
        &["at connect", "127.0.0.1", "smtp.connections_per_address_max"],
    );
    let helo = client.ask("EHLO a b");
    holds(&told(&world, &helo), &["refused at EHLO", "127.0.0.1"]);
    client.ask("WHAT");
    client.send(b"WHAT\r\n");
    let (unknown, last) = (client.reply(), client.reply());
    assert!(last.starts_with("421 "), "{last}");
    let all = told(&world, &last);
    holds(
        &all,
        &["No such command", "refused commands of a session are limited"],
    );
    assert_eq!(told(&world, &unknown), all, "one reference for all of a session");
}

#[test]
fn early_talkers_and_wrong_logins() {
    let world = World::new();
    world.account("mia@example.com", Some("right"));
    let mut early = Setup::default();
    early.options.greeting_delay = Duration::from_secs(20);
    let serving = world.serve(early);
    let mut client = Talker::connect(serving.address);
    let said = client.ask("EHLO client.example.net");
    assert!(said.starts_with("554 "), "{said}");
    holds(
        &told(&world, &said),
        &["refused at connect", "waits for the greeting"],
    );

    let mut setup = Setup {
        role: Role::Submission,
        ..Setup::default()
    };
    setup.options.smtp.auth_failures_max = 1;
    let serving = world.serve(setup);
    let mut client = Talker::connect(serving.address).into_tls();
    let said = client.ask("MAIL FROM:<mia@example.com>");
    holds(
        &told(&world, &said),
        &["refused at MAIL", "submission needs a login", "over TLS"],
    );
    client.send(b"AUTH PLAIN AG1pYUBleGFtcGxlLmNvbQB3cm9uZw==\r\n");
    let (wrong, last) = (client.reply(), client.reply());
    assert!(
        wrong.starts_with("535 ") && last.starts_with("421 "),
        "{wrong} {last}"
    );
    holds(
        &told(&world, &last),
        &["refused at AUTH", "535 5.7.8", "421 4.7.0"],
    );
}

#[test]
fn within_a_transaction_it_joins_the_transactions() {
    let world = World::new();
    world.account("mia@example.com", None);
    let serving = world.serve(Setup::default());
    let mut client = Talker::connect(serving.address);
    client.reply();
    client.ask("EHLO client.example.net");
    client.ask("MAIL FROM:<a@example.net>");
    let syntax = client.ask("RCPT TO:<bad address>");
    let unknown = client.ask("RCPT TO:<nobody@example.com>");
    client.ask("RSET");
    let all = told(&world, &syntax);
    holds(
        &all,
        &[
            "a@example.net",
            "This is not an address",
            "There is no nobody@example.com",
        ],
    );
    assert_eq!(told(&world, &unknown), all);

    client.ask("MAIL FROM:<a@example.net>");
    client.ask("RCPT TO:<mia@example.com>");
    client.ask("DATA");
    let bare = client.ask("a line\nand another\r\n.");
    assert!(bare.starts_with("554 5.6.0"), "{bare}");
    holds(&told(&world, &bare), &["refused at DATA", "can smuggle messages"]);
}

#[test]
fn the_budget_bounds_what_is_written() {
    let world = World::new();
    let mut setup = Setup::default();
    setup.options.refusals_recorded_per_second = 0;
    let serving = world.serve(setup);
    let mut client = Talker::connect(serving.address);
    client.reply();
    let said = client.ask("WHAT");
    assert_eq!(told(&world, &said), "Nothing is known of it.\n");
}
