//! Journeys recorded, found, told and forgotten.
#![allow(clippy::unwrap_used)]

use journey::{AttemptOutcome, Cause, Check, Event, Journey, MxHost, Query, Reply, TlsUsed, tell};
use mail::{AccountId, EmailAddress, EnhancedStatus, MailboxId, QueueId, ReversePath, Timestamp};
use proptest::prelude::*;
use std::sync::Arc;
use store::memory::MemoryStore;
use store::{Batch, Tables as _};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn id(secs: u64, n: u16) -> QueueId {
    QueueId::from_parts(secs * 1_000_000, n)
}

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).unwrap()
}

fn reply(code: u16, status: (u8, u16, u16), text: &str) -> Reply {
    Reply {
        code,
        status: Some(EnhancedStatus::new(status.0, status.1, status.2)),
        text: text.to_owned(),
    }
}

fn received(service: &str, login: Option<&str>) -> Event {
    Event::Received {
        service: service.to_owned(),
        peer_ip: Some("192.0.2.7".parse().unwrap()),
        peer_name: None,
        helo: "laptop".to_owned(),
        tls: Some(TlsUsed {
            version: "TLSv1.3".into(),
            cipher: "TLS_AES_256_GCM_SHA384".into(),
            verified: None,
            resumed: false,
        }),
        login: login.map(str::to_owned),
        reverse_path: Some(ReversePath::Address(address("alice@gmail.com"))),
        recipients: vec![address("bob@example.com")],
        size: 321,
        message_id: Some("1@gmail.com".into()),
    }
}

struct Fixture {
    store: Arc<MemoryStore>,
    journey: Journey,
}

impl Fixture {
    fn new() -> Self {
        let store = MemoryStore::new();
        Self {
            journey: Journey::new(store.clone()),
            store,
        }
    }

    async fn record(&self, id: QueueId, events: &[(i64, Event)]) {
        let mut batch = Batch::new();
        let (alice, bob) = (address("alice@gmail.com"), address("Bob@example.com"));
        self.journey.index(
            &mut batch,
            id,
            at(events[0].0),
            Some("1@Gmail.com"),
            &[&alice, &bob, &alice],
        );
        for (secs, event) in events {
            self.journey.record(&mut batch, id, at(*secs), event);
        }
        self.store.commit(batch).await.unwrap();
    }

    async fn told(&self, id: QueueId) -> String {
        tell(&self.journey.events(id).await.unwrap()).to_string()
    }
}

#[tokio::test]
async fn a_journey_that_waits_and_arrives() {
    let f = Fixture::new();
    let refused = AttemptOutcome::Failed {
        stage: "connect".into(),
        error: "connection refused".into(),
    };
    let taken = AttemptOutcome::Accepted {
        reply: reply(250, (2, 0, 0), "OK, message queued"),
    };
    let attempt = |outcome, tls| Event::Attempt {
        recipients: vec![address("bob@example.com")],
        host: "mail.example.com".into(),
        ip: Some("192.0.2.25".parse().unwrap()),
        port: 25,
        source: None,
        helo: None,
        tls,
        outcome,
    };
    let tls = TlsUsed {
        version: "TLSv1.3".into(),
        cipher: String::new(),
        verified: Some("DANE-EE".into()),
        resumed: true,
    };
    f.record(
        id(0, 1),
        &[
            (0, received("submission", Some("alice@gmail.com"))),
            (
                0,
                Event::Signed {
                    domain: "gmail.com".into(),
                    selector: "s1".into(),
                    algorithm: "rsa-sha256".into(),
                },
            ),
            (0, Event::Accepted { local: 0, queued: 1 }),
            (
                0,
                Event::Queued {
                    recipient: address("bob@example.com"),
                    next_attempt: at(0),
                },
            ),
            (
                1,
                Event::Route {
                    domain: "example.com".into(),
                    hosts: vec![MxHost {
                        host: "mail.example.com".into(),
                        preference: 10,
                        addresses: vec!["192.0.2.25".parse().unwrap()],
                    }],
                    why: "its MX records".into(),
                },
            ),
            (2, attempt(refused, None)),
            (
                2,
                Event::Deferred {
                    recipient: address("bob@example.com"),
                    reply: reply(0, (4, 4, 1), "connection refused"),
                    next_attempt: at(302),
                    expires: at(432_000),
                    cause: None,
                    remedy: Some("wait: it is tried again by itself".into()),
                },
            ),
        ],
    )
    .await;
    assert!(
        f.told(id(0, 1))
            .await
            .starts_with("It was accepted: 1 recipient waiting in the queue.\n")
    );
    f.record(
        id(0, 1),
        &[
            (302, attempt(taken, Some(tls))),
            (
                302,
                Event::Relayed {
                    recipient: address("bob@example.com"),
                    host: "mail.example.com".into(),
                    reply: reply(250, (2, 0, 0), "OK, message queued"),
                },
            ),
        ],
    )
    .await;
    let expected = "\
It was accepted: 1 recipient handed to the next server.
  1970-01-01T00:00:00Z  It came in by submission from 192.0.2.7, sent by <alice@gmail.com>.
      it called itself \"laptop\"
      over TLSv1.3 with TLS_AES_256_GCM_SHA384
      logged in as alice@gmail.com
      to bob@example.com
      321 octets
      Message-ID <1@gmail.com>
  1970-01-01T00:00:00Z  It was signed for gmail.com with the key s1 (rsa-sha256).
  1970-01-01T00:00:00Z  It was accepted and is on stable storage: 0 for mailboxes here, 1 for other servers.
  1970-01-01T00:00:00Z  For bob@example.com it went into the queue; the first attempt is due 1970-01-01T00:00:00Z.
  1970-01-01T00:00:01Z  The way to example.com was looked up: its MX records.
      mail.example.com (preference 10) at 192.0.2.25
  1970-01-01T00:00:02Z  Delivery to mail.example.com at 192.0.2.25, port 25 was attempted: the conversation failed.
      for bob@example.com
      at connect: connection refused
  1970-01-01T00:00:02Z  For bob@example.com it waits and is tried again.
      the reason: 4.4.1 connection refused
      next attempt 1970-01-01T00:05:02Z, given up 1970-01-06T00:00:00Z
      what to change: wait: it is tried again by itself
  1970-01-01T00:05:02Z  Delivery to mail.example.com at 192.0.2.25, port 25 was attempted: it was accepted.
      for bob@example.com
      over TLSv1.3, verified by DANE-EE, session resumed
      it said: 250 2.0.0 OK, message queued
  1970-01-01T00:05:02Z  For bob@example.com it was handed to mail.example.com, which answers for it from now on.
      mail.example.com said: 250 2.0.0 OK, message queued
";
    assert_eq!(f.told(id(0, 1)).await, expected);
}

#[tokio::test]
async fn a_refusal_tells_the_rule_and_the_remedy() {
    let f = Fixture::new();
    let check = |name: &str, result: &str, because: &str| Check {
        name: name.into(),
        result: result.into(),
        because: because.into(),
    };
    let said = reply(550, (5, 7, 26), "refused by DMARC");
    f.record(
        id(5, 0),
        &[
            (
                5,
                Event::Judged {
                    checks: vec![check("spf", "fail", "-all decided"), check("dkim", "none", "")],
                    disposition: "550".into(),
                    rule: "DMARC reject".into(),
                    remedy: Some("sign with DKIM".into()),
                },
            ),
            (
                5,
                Event::Refused {
                    stage: "DATA".into(),
                    subject: None,
                    reply: said,
                    rule: "DMARC reject".into(),
                    remedy: Some("sign with DKIM".into()),
                },
            ),
        ],
    )
    .await;
    let expected = "\
It was refused.
  1970-01-01T00:00:05Z  It was judged: refused (550).
      spf: fail, because -all decided
      dkim: none
      the rule that decided: DMARC reject
      what to change: sign with DKIM
  1970-01-01T00:00:05Z  It was refused at DATA.
      we said: 550 5.7.26 refused by DMARC
      the rule that decided: DMARC reject
      what to change: sign with DKIM
";
    assert_eq!(f.told(id(5, 0)).await, expected);
}

#[test]
fn each_disposition_has_its_words() {
    for (disposition, words) in [
        ("accept", "accepted"),
        ("junk", "for the Junk mailbox"),
        ("refuse", "refused"),
        ("defer", "not decidable now; the sender is asked to try again"),
        ("550", "refused (550)"),
        ("451", "not now (451)"),
    ] {
        let event = Event::Judged {
            checks: Vec::new(),
            disposition: disposition.into(),
            rule: String::new(),
            remedy: None,
        };
        let story = tell(&[journey::Record { at: at(0), event }]);
        assert_eq!(story.steps[0].text, format!("It was judged: {words}."));
    }
}

#[tokio::test]
async fn ends_that_are_no_success() {
    let f = Fixture::new();
    let bob = address("bob@example.com");
    let last = reply(451, (4, 7, 1), "greylisted");
    f.record(
        id(6, 0),
        &[
            (6, Event::Accepted { local: 0, queued: 3 }),
            (
                7,
                Event::Bounced {
                    recipient: address("nobody@example.net"),
                    reply: reply(550, (5, 1, 1), "no such user"),
                    cause: Some(Cause {
                        class: "unknown-user".into(),
                        side: "the message or its addresses".into(),
                        problem: "The address does not exist there.".into(),
                    }),
                    remedy: None,
                },
            ),
            (
                8,
                Event::Expired {
                    recipient: bob.clone(),
                    attempts: 1,
                    reply: last,
                    cause: None,
                    remedy: None,
                },
            ),
            (
                8,
                Event::DsnSent {
                    kind: "failed".into(),
                    to: address("alice@gmail.com"),
                    report: None,
                },
            ),
            (
                9,
                Event::Dropped {
                    recipient: Some(address("eve@example.net")),
                    by: "admin".into(),
                },
            ),
        ],
    )
    .await;
    let expected = "\
It was accepted: 1 recipient refused elsewhere, and reported to the sender; 1 recipient given up after days, and reported to the sender; 1 recipient dropped by an order or a rule of the operator.
  1970-01-01T00:00:06Z  It was accepted and is on stable storage: 0 for mailboxes here, 3 for other servers.
  1970-01-01T00:00:07Z  For nobody@example.net it failed for good.
      the reason: 550 5.1.1 no such user
      it means (unknown-user): The address does not exist there. The move is that of the message or its addresses.
  1970-01-01T00:00:08Z  For bob@example.com it was given up after 1 attempt.
      the last reason: 451 4.7.1 greylisted
  1970-01-01T00:00:08Z  The sender alice@gmail.com was told of it: failed.
  1970-01-01T00:00:09Z  It was dropped for eve@example.net by admin; the sender was not told.
";
    assert_eq!(f.told(id(6, 0)).await, expected);
}

#[tokio::test]
async fn strangers_do_not_paint_on_the_terminal() {
    let f = Fixture::new();
    let refused = Event::Refused {
        stage: "RCPT".into(),
        subject: Some("x\u{1b}[2J".into()),
        reply: reply(451, (4, 3, 0), "try\r\nlater\u{7}"),
        rule: String::new(),
        remedy: Some("\u{9b}31m".into()),
    };
    f.record(id(4, 0), &[(4, refused)]).await;
    let expected = "\
It was not accepted for the moment; the sender tries again.
  1970-01-01T00:00:04Z  It was put off at RCPT for <x\u{fffd}[2J>.
      we said: 451 4.3.0 try\u{fffd}\u{fffd}later\u{fffd}
      what to change: \u{fffd}31m
";
    assert_eq!(f.told(id(4, 0)).await, expected);
}

#[tokio::test]
async fn delivered_here_and_fetched() {
    let f = Fixture::new();
    f.record(
        id(9, 0),
        &[
            (9, received("smtp", None)),
            (9, Event::Accepted { local: 1, queued: 0 }),
            (
                9,
                Event::DeliveredLocal {
                    recipient: address("bob@example.com"),
                    account: AccountId(1),
                    mailbox: MailboxId(2),
                    mailbox_name: "INBOX".into(),
                    why: None,
                },
            ),
            (
                10,
                Event::Retrieved {
                    account: AccountId(1),
                    address: Some(address("bob@example.com")),
                    protocol: "imap".into(),
                },
            ),
        ],
    )
    .await;
    let told = f.told(id(9, 0)).await;
    assert!(
        told.starts_with("It was accepted: 1 recipient delivered into a mailbox here.\n"),
        "{told}"
    );
    assert!(told.contains("It was delivered to bob@example.com, into INBOX."));
    assert!(told.ends_with("bob@example.com fetched it over IMAP.\n"));
}

#[tokio::test]
async fn found_by_what_people_know_newest_first() {
    let f = Fixture::new();
    for n in 0..3 {
        f.record(id(n, 0), &[(n as i64, received("smtp", None))]).await;
    }
    let newest_first = vec![id(2, 0), id(1, 0), id(0, 0)];
    for text in [
        "bob@example.com",
        "BOB@Example.com",
        "<1@gmail.com>",
        "1@gmail.com",
    ] {
        let query = Query::parse(text).unwrap();
        assert_eq!(f.journey.find(&query, 10).await.unwrap(), newest_first, "{text}");
    }
    let query = Query::parse("bob@example.com").unwrap();
    assert_eq!(f.journey.find(&query, 1).await.unwrap(), [id(2, 0)]);
    let by_id = Query::parse(&id(1, 0).to_string()).unwrap();
    assert_eq!(f.journey.find(&by_id, 10).await.unwrap(), [id(1, 0)]);
    assert_eq!(f.journey.find(&Query::Id(id(77, 0)), 10).await.unwrap(), []);
    assert_eq!(
        f.journey
            .find(&Query::Address(address("ob@example.com")), 10)
            .await
            .unwrap(),
        []
    );
    assert_eq!(Query::parse("nonsense"), None);
}

#[tokio::test]
async fn old_journeys_are_forgotten_whole_and_young_ones_stay() {
    let f = Fixture::new();
    f.record(id(1, 0), &[(1, received("smtp", None))]).await;
    // Began early, but something happened late.
    f.record(
        id(2, 0),
        &[
            (2, received("smtp", None)),
            (100, Event::Accepted { local: 1, queued: 0 }),
        ],
    )
    .await;
    f.record(id(60, 0), &[(60, received("smtp", None))]).await;
    assert_eq!(f.journey.prune(at(50), 10).await.unwrap(), 1);
    assert_eq!(f.journey.prune(at(50), 10).await.unwrap(), 0);
    let query = Query::parse("bob@example.com").unwrap();
    assert_eq!(f.journey.find(&query, 10).await.unwrap(), [id(60, 0), id(2, 0)]);
    assert!(f.journey.events(id(1, 0)).await.unwrap().is_empty());
    assert_eq!(f.journey.prune(at(1_000), 10).await.unwrap(), 2);
    let everything = store::Key::table(0x40).as_bytes()[0]..=0x4f;
    let snapshot = f.store.snapshot().await.unwrap();
    for table in everything {
        let rows = snapshot
            .scan(&store::Key::table(table).prefix_range(), 10)
            .await
            .unwrap();
        assert!(rows.is_empty(), "{rows:?}");
    }
}

#[tokio::test]
async fn damage_leaves_the_rest() {
    let f = Fixture::new();
    let accepted = Event::Accepted { local: 1, queued: 0 };
    f.record(id(3, 0), &[(3, accepted.clone())]).await;
    let mut batch = Batch::new();
    let events = store::Key::table(0x40).u64(id(3, 0).0);
    let good = "[7,0,{\"event\":\"accepted\",\"local\":1}]";
    let half = format!("\x02{{\n{good}\n[8,1");
    batch.put(events.clone().u64(1).u32(0), half.into_bytes());
    batch.put(events.u64(2).u32(0), b"\x09{}".to_vec());
    f.store.commit(batch).await.unwrap();
    let read = f.journey.events(id(3, 0)).await.unwrap();
    assert_eq!(read.len(), 2, "the line between two damaged ones is read");
    assert!(read.iter().all(|record| record.event == accepted));
}

#[tokio::test]
async fn what_one_batch_makes_true_shares_a_row_of_bounded_length() {
    let f = Fixture::new();
    let event = |n: usize| Event::OperatorAction {
        by: format!("{n}"),
        action: "x".repeat(200),
        recipients: Vec::new(),
    };
    let events: Vec<(i64, Event)> = (0..1_000).map(|n| (5, event(n))).collect();
    f.record(id(5, 0), &events).await;
    let snapshot = f.store.snapshot().await.unwrap();
    let rows = snapshot
        .scan(&store::Key::table(0x40).prefix_range(), 100)
        .await
        .unwrap();
    assert!((2..10).contains(&rows.len()), "{} rows", rows.len());
    assert!(rows.iter().all(|(_, row)| row.value.len() < 70_000));
    let read = f.journey.events(id(5, 0)).await.unwrap();
    let read: Vec<Event> = read.into_iter().map(|record| record.event).collect();
    let recorded: Vec<Event> = events.into_iter().map(|(_, event)| event).collect();
    assert_eq!(read, recorded);
}

#[tokio::test]
async fn the_index_is_bounded_and_texts_of_any_length_are_found() {
    let f = Fixture::new();
    let many: Vec<EmailAddress> = (0..journey::INDEXED_ADDRESSES_MAX + 1)
        .map(|n| address(&format!("u{n}@example.com")))
        .collect();
    let long = format!("{}\0@é.example", "x".repeat(2_000));
    let mut batch = Batch::new();
    let message = id(8, 0);
    let addresses: Vec<&EmailAddress> = many.iter().collect();
    f.journey
        .index(&mut batch, message, at(8), Some(&long), &addresses);
    let mut event = received("smtp", None);
    if let Event::Received { message_id, .. } = &mut event {
        *message_id = Some(long.clone());
    }
    f.journey.record(&mut batch, message, at(8), &event);
    f.journey.pack(&mut batch);
    f.store.commit(batch).await.unwrap();
    let find = async |query| f.journey.find(&query, 10).await.unwrap();
    assert_eq!(find(Query::MessageId(format!("<{long}>"))).await, [message]);
    let (last_known, beyond) = (&many[many.len() - 2], &many[many.len() - 1]);
    assert_eq!(find(Query::Address(last_known.clone())).await, [message]);
    assert_eq!(find(Query::Address(beyond.clone())).await, []);
    assert_eq!(f.journey.prune(at(9), 10).await.unwrap(), 1);
    let snapshot = f.store.snapshot().await.unwrap();
    for table in 0x40..0x50 {
        let range = store::Key::table(table).prefix_range();
        let left = snapshot.scan(&range, 10).await.unwrap();
        assert_eq!(left, [], "pruning finds every row again");
    }
}

#[tokio::test]
async fn a_message_id_is_found_newest_first_however_many_lie_between() {
    let f = Fixture::new();
    for n in 0..10_000u64 {
        let mut batch = Batch::new();
        let text = if n % 5_000 == 1 {
            "same@example.com".to_owned()
        } else {
            format!("{n}@example.com")
        };
        let mut event = received("smtp", None);
        if let Event::Received { message_id, .. } = &mut event {
            *message_id = Some(text.clone());
        }
        f.journey.index(&mut batch, id(n, 0), at(9), Some(&text), &[]);
        f.journey.record(&mut batch, id(n, 0), at(9), &event);
        f.store.commit(batch).await.unwrap();
    }
    let find = async |text: &str, limit| {
        let query = Query::MessageId(text.to_owned());
        f.journey.find(&query, limit).await.unwrap()
    };
    assert_eq!(find("<Same@example.com>", 10).await, [id(5_001, 0), id(1, 0)]);
    assert_eq!(find("same@example.com", 1).await, [id(5_001, 0)]);
    assert_eq!(find("0@example.com", 10).await, [id(0, 0)]);
    assert_eq!(find("none@example.com", 10).await, []);
}

proptest! {
    /// In whatever order they are committed, events come back by time, and those of one moment as
    /// they were recorded.
    #[test]
    fn events_come_back_in_order(times in proptest::collection::vec(0i64..6, 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let f = Fixture::new();
            for (n, secs) in (0u32..).zip(&times) {
                f.record(id(0, 0), &[(*secs, Event::Accepted { local: n, queued: 0 })]).await;
            }
            let mut expected: Vec<(i64, u32)> = times.iter().copied().zip(0u32..).collect();
            expected.sort_unstable();
            let read = f.journey.events(id(0, 0)).await.unwrap();
            let read: Vec<(i64, u32)> = read
                .iter()
                .map(|r| match r.event {
                    Event::Accepted { local, .. } => (r.at.secs(), local),
                    _ => panic!("{r:?}"),
                })
                .collect();
            assert_eq!(read, expected);
        });
    }
}

#[test]
fn a_record_of_an_earlier_version_lacks_fields() {
    let event: Event = serde_json::from_str(r#"{"event":"received","service":"smtp"}"#).unwrap();
    assert!(matches!(
        event,
        Event::Received {
            size: 0,
            tls: None,
            ..
        }
    ));
    let attempt = r#"{"event":"attempt","host":"mx","outcome":{"is":"teleported"}}"#;
    let event: Event = serde_json::from_str(attempt).unwrap();
    assert!(matches!(
        event,
        Event::Attempt {
            outcome: AttemptOutcome::Unknown,
            ..
        }
    ));
}

#[test]
fn an_event_of_a_later_version_is_still_read() {
    let event: Event = serde_json::from_str(r#"{"event":"teleported","to":"mars"}"#).unwrap();
    assert_eq!(event, Event::Unknown);
}
