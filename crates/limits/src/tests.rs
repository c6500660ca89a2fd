//! Limits on a store in memory, on a clock that the test moves.

use super::*;
use mail::EmailAddress;
use store::{MemoryStore, Tables};

const NOW: Timestamp = Timestamp::from_secs(1_795_439_053);
const HOUR: Duration = Duration::from_secs(3_600);
const ALICE: AccountId = AccountId(7);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).unwrap()
}

fn limits_on(store: &Arc<MemoryStore>, options: Options) -> Limits {
    Limits::new(store.clone(), options)
}

#[test]
fn connections_by_address_and_by_network() {
    let options = Options {
        connections: Rate {
            per_address: 2,
            per_network: 3,
            ..Rate::OFF
        },
        ..Options::default()
    };
    let limits = limits_on(&MemoryStore::new(), options);
    let over = |client: &str| match limits.connect(ip(client), NOW) {
        Err(Refused::TooOften(over)) => Some(over.scope),
        Err(other) => panic!("{other:?}"),
        Ok(()) => None,
    };
    assert_eq!(over("192.0.2.1"), None);
    assert_eq!(over("192.0.2.1"), None);
    assert_eq!(over("192.0.2.1"), Some(Scope::Address));
    assert_eq!(over("192.0.2.2"), None);
    assert_eq!(over("192.0.2.3"), Some(Scope::Network));
    assert_eq!(over("192.0.3.1"), None);
    for _ in 0..10 {
        assert_eq!(over("127.0.0.1"), None, "this machine is trusted");
    }
}

#[test]
fn messages_by_login_and_when_to_come_again() {
    let options = Options {
        messages: Rate {
            per_login: 1,
            ..Rate::OFF
        },
        ..Options::default()
    };
    let limits = limits_on(&MemoryStore::new(), options);
    let here = ip("192.0.2.1");
    assert_eq!(limits.message(here, Some("mia@example.com"), NOW), Ok(()));
    let over = limits.message(here, Some("Mia@Example.com"), NOW).unwrap_err();
    assert_eq!((over.scope, over.max), (Scope::Login, 1));
    assert_eq!(over.until, NOW.plus(Duration::from_secs(60)));
    assert_eq!(limits.message(here, None, NOW), Ok(()), "strangers have no login");
    assert_eq!(limits.message(here, Some("mia@example.com"), over.until), Ok(()));
}

#[tokio::test]
async fn failed_logins_lead_to_a_block_that_a_restart_keeps() {
    let store = MemoryStore::new();
    let options = Options {
        failed_logins: Rate {
            per_address: 3,
            per_network: 5,
            per_login: 0,
            window: HOUR,
        },
        ..Options::default()
    };
    let limits = limits_on(&store, options.clone());
    let guess = async |from: &str| limits.failed_login(ip(from), "mia@example.com", NOW).await;
    assert_eq!(guess("192.0.2.1").await, None);
    assert_eq!(guess("192.0.2.1").await, None);
    assert_eq!(limits.failed_logins_of(ip("192.0.2.1"), NOW), 2);
    let block = guess("192.0.2.1").await.unwrap();
    assert_eq!(block.subject.to_string(), "192.0.2.1");
    assert!(
        block.sentence().starts_with("blocked until 2026-11-23T"),
        "{}",
        block.sentence()
    );
    assert_eq!(guess("192.0.2.2").await, None);
    let wider = guess("192.0.2.3").await.unwrap();
    assert_eq!(wider.subject.to_string(), "192.0.2.0/24");

    let again = limits_on(&store, options);
    assert!(again.blocked(ip("192.0.2.9"), NOW).is_none(), "not read yet");
    again.load(NOW).await.unwrap();
    assert!(matches!(
        again.connect(ip("192.0.2.9"), NOW),
        Err(Refused::Blocked(_))
    ));
    let over = NOW.plus(HOUR);
    assert!(again.blocked(ip("192.0.2.9"), over).is_none());
    assert_eq!(again.blocks().await.unwrap().len(), 2);
    again.forget(over).await.unwrap();
    assert!(again.blocks().await.unwrap().is_empty());
}

#[tokio::test]
async fn unknown_recipients_lead_to_a_block_and_the_operator_lifts_it() {
    let options = Options {
        unknown_recipients: Rate {
            per_address: 2,
            ..Rate::OFF
        },
        ..Options::default()
    };
    let limits = limits_on(&MemoryStore::new(), options);
    let here = ip("2001:db8::1");
    assert_eq!(limits.unknown_recipient(here, NOW).await, None);
    // The same /64.
    let block = limits.unknown_recipient(ip("2001:db8::2"), NOW).await.unwrap();
    assert_eq!(block.subject.to_string(), "2001:db8::/64");
    assert!(limits.blocked(here, NOW).is_some());
    assert!(limits.lift(&block.subject).await.unwrap());
    assert!(!limits.lift(&block.subject).await.unwrap());
    assert!(limits.blocked(here, NOW).is_none());
    assert_eq!(limits.unknown_recipient(here, NOW).await, None, "it counts anew");
}

#[tokio::test]
async fn a_longer_block_of_the_operators_is_not_cut_short() {
    let options = Options {
        unknown_recipients: Rate {
            per_address: 1,
            ..Rate::OFF
        },
        ..Options::default()
    };
    let limits = limits_on(&MemoryStore::new(), options);
    let here = ip("192.0.2.1");
    let ordered = Block {
        subject: "192.0.2.1".parse().unwrap(),
        from: NOW,
        until: NOW.plus(30 * 24 * HOUR),
        why: "a scanner".to_owned(),
        by: "operator".to_owned(),
    };
    limits.block(ordered.clone(), NOW).await.unwrap();
    // A session that was open before goes on asking.
    assert_eq!(limits.unknown_recipient(here, NOW).await, Some(ordered.clone()));
    assert_eq!(limits.blocked(here, NOW), Some(ordered.clone()));
    assert_eq!(limits.blocks().await.unwrap(), [ordered]);
}

fn daily(messages: u32, first_recipients: u32) -> Options {
    Options {
        account: Daily {
            messages,
            first_recipients,
        },
        ..Options::off()
    }
}

#[tokio::test]
async fn a_day_of_messages_ends_at_midnight_and_survives_a_restart() {
    let store = MemoryStore::new();
    let limits = limits_on(&store, daily(2, 0));
    let mut held = limits.hold(ALICE, NOW).await.unwrap();
    assert_eq!(held.take(&address("a@far.example")).await.unwrap(), Ok(()));
    assert_eq!(held.take(&address("b@far.example")).await.unwrap(), Ok(()));
    let midnight = Timestamp::from_secs((NOW.secs() / 86_400 + 1) * 86_400);
    let full = Err(Exceeded::Messages {
        max: 2,
        until: midnight,
    });
    assert_eq!(held.take(&address("c@far.example")).await.unwrap(), full);
    let mut other = limits.hold(ALICE, NOW).await.unwrap();
    assert_eq!(
        other.take(&address("c@far.example")).await.unwrap(),
        full,
        "also at the same time"
    );
    drop(other);
    let mut batch = Batch::new();
    held.record(&mut batch);
    store.commit(batch).await.unwrap();
    held.keep();

    let again = limits_on(&store, daily(2, 0));
    assert_eq!(again.today(ALICE, NOW).await.unwrap().messages, 2);
    let mut held = again.hold(ALICE, NOW).await.unwrap();
    assert_eq!(held.take(&address("c@far.example")).await.unwrap(), full);
    drop(held);
    let mut tomorrow = again.hold(ALICE, midnight).await.unwrap();
    assert_eq!(tomorrow.take(&address("c@far.example")).await.unwrap(), Ok(()));
    drop(tomorrow);
    again.forget(midnight).await.unwrap();
    assert_eq!(again.today(ALICE, NOW).await.unwrap().messages, 0, "forgotten");
}

#[tokio::test]
async fn what_was_not_sent_is_given_back() {
    let store = MemoryStore::new();
    let limits = limits_on(&store, daily(1, 1));
    for _ in 0..3 {
        let mut held = limits.hold(ALICE, NOW).await.unwrap();
        assert_eq!(held.take(&address("a@far.example")).await.unwrap(), Ok(()));
    }
    assert_eq!(limits.today(ALICE, NOW).await.unwrap().messages, 0);
}

#[tokio::test]
async fn who_was_written_to_before_is_no_first_recipient() {
    let store = MemoryStore::new();
    let limits = limits_on(&store, daily(0, 1));
    let send = async |limits: &Limits, to: &str, at: Timestamp| {
        let mut held = limits.hold(ALICE, at).await.unwrap();
        let taken = held.take(&address(to)).await.unwrap();
        if taken.is_ok() {
            let mut batch = Batch::new();
            held.record(&mut batch);
            store.commit(batch).await.unwrap();
            held.keep();
        }
        taken
    };
    assert_eq!(send(&limits, "a@far.example", NOW).await, Ok(()));
    assert_eq!(send(&limits, "A@far.example", NOW).await, Ok(()), "known by now");
    let refused = send(&limits, "b@far.example", NOW).await.unwrap_err();
    assert!(
        matches!(refused, Exceeded::FirstRecipients { max: 1, .. }),
        "{refused:?}"
    );
    let again = limits_on(&store, daily(0, 1));
    assert_eq!(
        send(&again, "a@far.example", NOW).await,
        Ok(()),
        "known from the store"
    );
    let own = OwnDaily {
        messages: Some(4),
        first_recipients: Some(2),
    };
    again.set_own(ALICE, own).await.unwrap();
    assert_eq!(
        send(&again, "b@far.example", NOW).await,
        Ok(()),
        "the account's own limit"
    );
    let full = send(&again, "b@far.example", NOW).await.unwrap_err();
    assert!(matches!(full, Exceeded::Messages { max: 4, .. }), "{full:?}");
    let year = NOW.plus(Duration::from_secs(86_400 * 367));
    again.forget(year).await.unwrap();
    assert_eq!(
        again.today(ALICE, year).await.unwrap().own,
        own,
        "orders are not forgotten"
    );
}
