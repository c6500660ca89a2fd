//! Logins against a directory in memory.

use super::*;
use directory::{Argon2Cost, NewAccount, SystemRandom};
use mail::Domain;
use std::sync::Arc;
use store::{Batch, MemoryStore, Store};
use tokio::time::Instant;

const NOW: Timestamp = Timestamp::from_secs(1_795_439_053);

struct Fixed;
impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        NOW
    }
}

/// A directory with bob@example.com, whose password is `secret`.
async fn directory() -> Directory {
    let store: Arc<dyn Store> = MemoryStore::new();
    let cheap = directory::Options {
        argon2: Argon2Cost {
            memory_kib: 8,
            passes: 1,
            lanes: 1,
        },
        ..directory::Options::default()
    };
    let directory = Directory::new(store, cheap, Arc::new(SystemRandom)).unwrap();
    let domain = Domain::parse("example.com").unwrap();
    directory.add_domain(&domain, NOW).await.unwrap();
    let new = NewAccount {
        address: EmailAddress::parse("bob@example.com").unwrap(),
        display_name: String::new(),
        password: Some(directory.hash_password(&Secret::new("secret")).unwrap()),
    };
    let nothing = |_: &mut Batch, _| {};
    directory.add_account(new, NOW, &nothing).await.unwrap();
    directory
}

fn bob(peer: &str, protocol: Protocol, password: &str) -> Attempt<'static> {
    Attempt {
        peer: peer.parse().unwrap(),
        protocol,
        user: "bob@example.com",
        mechanism: "PLAIN",
        proof: Proof::Password(Secret::new(password)),
    }
}

fn limits(failures_per_address_max: u32) -> LoginLimits {
    LoginLimits {
        failures_per_address_max,
        failures_window: Duration::from_secs(60),
        ..LoginLimits::default()
    }
}

#[tokio::test]
async fn failures_count_for_all_protocols_together() {
    let (directory, logins) = (directory().await, Logins::new(limits(2)));
    let try_it = |peer, protocol, password| logins.log_in(&directory, &Fixed, bob(peer, protocol, password));
    let here = "192.0.2.1:4321";
    assert_eq!(try_it(here, Protocol::Smtp, "wrong").await, Login::Rejected);
    let welcome = try_it(here, Protocol::Imap, "secret").await;
    assert!(matches!(welcome, Login::Accepted { .. }), "{welcome:?}");
    assert_eq!(try_it(here, Protocol::Imap, "wrong").await, Login::Rejected);
    assert_eq!(
        try_it(here, Protocol::Pop3, "secret").await,
        Login::TooManyFailures
    );
    let elsewhere = try_it("192.0.2.2:4321", Protocol::Pop3, "secret").await;
    assert!(matches!(elsewhere, Login::Accepted { .. }), "{elsewhere:?}");
}

#[tokio::test]
async fn who_waits_for_a_turn_is_not_past_the_guard() {
    let directory = directory().await;
    let logins = Logins::new(LoginLimits {
        at_once_max: 1,
        ..limits(1)
    });
    let guess = || {
        let attempt = bob("192.0.2.1:4321", Protocol::Imap, "wrong");
        logins.log_in(&directory, &Fixed, attempt)
    };
    let came_to = tokio::join!(guess(), guess(), guess());
    assert_eq!(
        came_to,
        (Login::Rejected, Login::TooManyFailures, Login::TooManyFailures)
    );
}

#[test]
fn guessing_ends_and_is_forgiven_with_time() {
    let logins = Logins::new(limits(2));
    let ip: IpAddr = "192.0.2.1".parse().unwrap();
    let at = Timestamp::from_secs;
    logins.note_failure(ip, at(0));
    assert!(logins.may_try(ip, at(1)));
    logins.note_failure(ip, at(1));
    assert!(!logins.may_try(ip, at(2)));
    assert!(logins.may_try("192.0.2.2".parse().unwrap(), at(2)));
    assert!(logins.may_try(ip, at(60)));
    logins.note_failure(ip, at(61));
    assert!(logins.may_try(ip, at(62)), "a new window begins");
}

#[test]
fn the_memory_of_failures_is_bounded_and_the_newer_ones_stay() {
    let logins = Logins::new(limits(1));
    let ip = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
    let at = |n: usize| Timestamp(i64::try_from(n).unwrap());
    for n in 0..=NETWORKS_MAX {
        logins.note_failure(ip(n), at(n));
    }
    let known = logins.by_address.lock().unwrap().len();
    assert_eq!(known, NETWORKS_MAX / 2 + 1);
    let now = at(NETWORKS_MAX);
    assert!(logins.may_try(ip(0), now), "the oldest is forgotten");
    assert!(!logins.may_try(ip(NETWORKS_MAX - 1), now));
    assert!(!logins.may_try(ip(NETWORKS_MAX), now));
}

#[tokio::test(start_paused = true)]
async fn the_delay_doubles_up_to_a_limit_and_a_success_ends_it() {
    let (directory, logins) = (directory().await, Logins::new(limits(1)));
    let attempt = bob("192.0.2.1:4321", Protocol::Imap, "secret");
    let welcome = logins.log_in(&directory, &Fixed, attempt).await;
    assert!(matches!(welcome, Login::Accepted { .. }), "{welcome:?}");
    let mut delay = FailureDelay::new(Duration::from_secs(1));
    let mut took = Vec::new();
    let outcomes = [Login::AppPasswordRequired, Login::Unavailable]
        .into_iter()
        .chain(std::iter::repeat_n(Login::Rejected, 5))
        .chain([welcome, Login::TooManyFailures, Login::Rejected]);
    for outcome in outcomes {
        let began = Instant::now();
        delay.after(&outcome).await;
        took.push(began.elapsed().as_secs());
    }
    assert_eq!(took, [1, 0, 2, 4, 8, 16, 16, 0, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn an_address_waits_longer_the_more_it_fails() {
    let (directory, logins) = (directory().await, Logins::new(limits(100)));
    let mut took = Vec::new();
    for _ in 0..16 {
        let began = Instant::now();
        let attempt = bob("192.0.2.1:4321", Protocol::Imap, "wrong");
        assert_eq!(logins.log_in(&directory, &Fixed, attempt).await, Login::Rejected);
        took.push(began.elapsed().as_secs());
    }
    assert_eq!(took, [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 4, 4]);
}

#[tokio::test]
async fn failures_lead_to_a_block_and_blocked_logins_are_not_looked_at() {
    let options = limits::Options {
        failed_logins: limits::Rate {
            per_address: 2,
            ..limits::Rate::OFF
        },
        ..limits::Options::off()
    };
    let blocks = Limits::new(MemoryStore::new(), options);
    let directory = directory().await;
    let logins = Logins::new(limits(100)).with_limits(blocks.clone());
    let try_it = |peer, password| logins.log_in(&directory, &Fixed, bob(peer, Protocol::Imap, password));
    assert_eq!(try_it("192.0.2.1:1", "wrong").await, Login::Rejected);
    assert_eq!(try_it("192.0.2.1:1", "wrong").await, Login::Rejected);
    assert_eq!(try_it("192.0.2.1:1", "secret").await, Login::TooManyFailures);
    assert!(blocks.blocked("192.0.2.1".parse().unwrap(), NOW).is_some());
    assert!(matches!(
        try_it("192.0.2.2:1", "secret").await,
        Login::Accepted { .. }
    ));
    let block = Block {
        subject: "bob@example.com".parse().unwrap(),
        from: NOW,
        until: NOW.plus(Duration::from_secs(60)),
        why: "stolen".to_owned(),
        by: "operator".to_owned(),
    };
    blocks.block(block, NOW).await.unwrap();
    assert_eq!(try_it("192.0.2.2:1", "secret").await, Login::TooManyFailures);
}
