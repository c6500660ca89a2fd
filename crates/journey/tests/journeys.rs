//! Journeys recorded, found, told and forgotten.
#![allow(clippy::unwrap_used)]

use journey::{AttemptOutcome, Check, Event, Journey, MxHost, Query, Reply, TlsUsed, tell};
use mail::{AccountId, EmailAddress, EnhancedStatus, MailboxId, QueueId, ReversePath, Timestamp};
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
        self.journey
            .index(&mut batch, id, Some("1@Gmail.com"), &[&alice, &bob, &alice]);
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
        tls,
        outcome,
    };
    let tls = TlsUsed {
        version: "TLSv1.3".into(),
        cipher: String::new(),
        verified: Some("not verified".into()),
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
      over TLSv1.3, not verified
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
    let told = f.told(id(5, 0)).await;
    for line in [
        "It was refused.\n",
        "It was judged: refused (550).\n      spf: fail, because -all decided\n      dkim: none\n",
        "It was refused at DATA.\n      we said: 550 5.7.26 refused by DMARC\n",
        "      what to change: sign with DKIM\n",
    ] {
        assert!(told.contains(line), "{line}\nis not in\n{told}");
    }
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

#[test]
fn an_event_of_a_later_version_is_still_read() {
    let event: Event = serde_json::from_str(r#"{"event":"teleported","to":"mars"}"#).unwrap();
    assert_eq!(event, Event::Unknown);
}
