//! Orders about queued mail, as the command line gives them: what they change, what the journey and the
//! sender are told, and that the store balances afterwards.
#![allow(clippy::unwrap_used)]

use admin::audit::Pace;
use admin::words::{OrderedStep, QueueDo, QueueOrder, QueueRow};
use admin::{Office, RefusalKind, Request, Response};
use directory::{Argon2Cost, Directory, NewAccount, SystemRandom};
use journey::{Event, Journey};
use mail::{AccountId, Clock, Domain, EmailAddress, QueueId, ReversePath, Timestamp, Uid};
use mailbox::{Mailboxes, Role};
use queue::{Body, Filter, IdSource, Message, NewErrand, Outcome, Queue, SenderIs, Via};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use store::{Batch, Blobs as _, LogStore, Options, Tables as _};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A clock that stands until it is moved.
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

struct World {
    store: Arc<LogStore>,
    office: Office,
    clock: Arc<Hand>,
}

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).unwrap()
}

impl World {
    /// A server that was here before.
    async fn open(folder: &Path) -> Self {
        let store = LogStore::open(folder, Options::default()).unwrap();
        let clock = Arc::new(Hand(AtomicI64::new(START.0)));
        let cheap = directory::Options {
            argon2: Argon2Cost {
                memory_kib: 8,
                passes: 1,
                lanes: 1,
            },
            ..directory::Options::default()
        };
        let office = Office {
            store: store.clone(),
            directory: Directory::new(store.clone(), cheap, Arc::new(SystemRandom)).unwrap(),
            mailboxes: Mailboxes::new(store.clone()),
            queue: Queue::new(store.clone(), queue::Options::default()),
            journey: Journey::new(store.clone()),
            ids: Arc::new(IdSource::new(clock.clone())),
            limits: limits::Limits::new(store.clone(), limits::Options::off()),
            mta_sts: mtasts::Memory::new(store.clone()),
            policies: None,
            outbox: webhook::Outbox::new(store.clone(), Vec::new()),
            webhooks: None,
            clock: clock.clone(),
            hostname: Domain::parse("mail.example.org").unwrap(),
            auditing: Arc::default(),
            own_tlsa: None,
        };
        office.queue.recover(START).await.unwrap();
        Self { store, office, clock }
    }

    /// A server with the account mia@example.org.
    async fn begin(folder: &Path) -> Self {
        let world = Self::open(folder).await;
        let office = &world.office;
        let domain = Domain::parse("example.org").unwrap();
        office.directory.add_domain(&domain, START).await.unwrap();
        let new = NewAccount {
            address: address("mia@example.org"),
            display_name: String::new(),
            password: None,
        };
        let boxes = office.mailboxes.clone();
        let add = move |batch: &mut Batch, id: AccountId| boxes.create_defaults(batch, id, START);
        office.directory.add_account(new, START, &add).await.unwrap();
        world
    }

    fn pass(&self, secs: i64) {
        self.clock.0.fetch_add(secs * 1_000_000, Ordering::Relaxed);
    }

    /// Accepts a message as the server does.
    async fn accept(&self, from: &str, to: &[&str]) -> QueueId {
        let (id, now) = (self.office.ids.next_id(), self.clock.now());
        let text = format!("From: <{from}>\r\nSubject: Hello!\r\n\r\nHi\r\n");
        let mut writer = self.store.stage(text.len() as u64).await.unwrap();
        writer.write(text.as_bytes()).await.unwrap();
        let staged = writer.finish().await.unwrap();
        let message = Message {
            id,
            reverse_path: ReversePath::Address(address(from)),
            blob: staged.id,
            blob_len: staged.len,
            prefix: Vec::new(),
            received_at: now,
            message_id: None,
            login: None,
            body: Body::SevenBit,
            smtputf8: false,
            envid: None,
            ret: None,
            require_tls: false,
            deliver_by: None,
            priority: mail::delivery::Priority::NORMAL,
        };
        let errands: Vec<NewErrand> = to.iter().map(|to| NewErrand::to(address(to), now)).collect();
        let mut batch = Batch::new();
        batch.blob(staged);
        let queued = to.len() as u32;
        let accepted = Event::Accepted { local: 0, queued };
        self.office.journey.record(&mut batch, id, now, &accepted);
        self.office.queue.accept(&mut batch, &message, &errands).unwrap();
        for to in to {
            let event = Event::Queued {
                recipient: address(to),
                next_attempt: now,
            };
            self.office.journey.record(&mut batch, id, now, &event);
        }
        self.store.commit(batch).await.unwrap();
        id
    }

    async fn order(&self, what: QueueDo, filter: Filter, dry_run: bool) -> OrderedStep {
        let order = QueueOrder {
            what,
            filter,
            behind: None,
            dry_run,
            by: Some("ann".into()),
        };
        match self.office.perform(Request::Queue(Box::new(order))).await {
            Ok(Response::Ordered(step)) => step,
            _ => panic!("another answer"),
        }
    }

    async fn show(&self, id: QueueId) -> Option<QueueRow> {
        match self.office.perform(Request::QueueShow { id }).await {
            Ok(Response::Message(row)) => Some(row),
            Err(refusal) if refusal.kind == RefusalKind::NotFound => None,
            _ => panic!("another answer"),
        }
    }

    async fn states(&self, id: QueueId) -> Vec<String> {
        let row = self.show(id).await.unwrap();
        row.errands.into_iter().map(|errand| errand.state).collect()
    }

    async fn told(&self, id: QueueId) -> String {
        journey::tell(&self.office.journey.events(id).await.unwrap()).to_string()
    }

    async fn inbox(&self) -> Vec<String> {
        let boxes = &self.office.mailboxes;
        let inbox = boxes.find(AccountId(1), Role::Inbox).await.unwrap().unwrap();
        let mut texts = Vec::new();
        for entry in boxes.entries(inbox.place(), Uid(1), 100).await.unwrap() {
            let octets = boxes.read(&entry, 0..entry.size()).await.unwrap();
            texts.push(String::from_utf8(octets.to_vec()).unwrap());
        }
        texts
    }

    async fn balances(&self) {
        let report = self.office.audit(true, Pace::new(false)).await.unwrap();
        assert_eq!(report.findings, []);
        assert!(report.balanced);
    }
}

fn domain(name: &str) -> Filter {
    Filter {
        domain: Some(Domain::parse(name).unwrap()),
        ..Filter::default()
    }
}

#[tokio::test]
async fn held_mail_says_who_holds_it_and_survives_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::begin(folder.path()).await;
    let two = ["a@example.net", "b@example.com"];
    let id = world.accept("mia@example.org", &two).await;
    let would = world.order(QueueDo::Hold, domain("example.net"), true).await;
    assert_eq!((would.errands, would.messages, would.looked_at), (1, 1, 2));
    assert_eq!(
        world.states(id).await,
        ["waiting", "waiting"],
        "a dry run changes nothing"
    );
    world.order(QueueDo::Hold, domain("example.net"), false).await;
    assert_eq!(world.states(id).await, ["held", "waiting"]);
    world.balances().await;
    world.store.close();
    drop(world);
    let world = World::open(folder.path()).await;
    let row = world.show(id).await.unwrap();
    let why = row.errands[0].waits_for.clone().unwrap();
    assert!(why.starts_with("held by ann since 2027-01-15T08:00:00Z"), "{why}");
    let told = world.told(id).await;
    assert!(
        told.contains("An order of ann: hold it until it is released."),
        "{told}"
    );
    assert!(told.contains("for a@example.net"), "{told}");
    world.order(QueueDo::Release, Filter::of(id), false).await;
    assert_eq!(world.states(id).await, ["waiting", "waiting"]);
    world.balances().await;
}

#[tokio::test]
async fn mail_that_is_sent_back_is_reported_once_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::begin(folder.path()).await;
    let three = ["a@example.net", "b@example.net", "c@example.com"];
    let id = world.accept("mia@example.org", &three).await;
    let held = world.order(QueueDo::Hold, domain("example.net"), false).await;
    assert_eq!(held.errands, 2);
    let why = Some("the company is closed".to_owned());
    let done = world
        .order(QueueDo::Bounce { why }, domain("example.net"), false)
        .await;
    assert_eq!((done.errands, done.messages), (2, 1));
    assert_eq!(world.states(id).await, ["bounced", "bounced", "waiting"]);
    let inbox = world.inbox().await;
    assert_eq!(inbox.len(), 1, "one report for both");
    for text in [
        "a@example.net",
        "b@example.net",
        "the company is closed",
        "Status: 5.4.7",
    ] {
        assert!(inbox[0].contains(text), "{text} in {}", inbox[0]);
    }
    assert!(!inbox[0].contains("c@example.com"));
    let told = world.told(id).await;
    assert!(
        told.contains("An order of ann: send it back to its sender."),
        "{told}"
    );
    world.balances().await;
    // The last one takes the message with it, and a report about a report is never made.
    world
        .order(QueueDo::Bounce { why: None }, Filter::of(id), false)
        .await;
    assert!(world.show(id).await.is_none());
    assert_eq!(world.inbox().await.len(), 2);
    world.balances().await;
}

#[tokio::test]
async fn mail_is_dropped_by_sender_age_and_words() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::begin(folder.path()).await;
    let old = world.accept("mia@example.org", &["a@example.net"]).await;
    world.pass(600);
    let young = world
        .accept("mia@example.org", &["a@example.net", "b@example.com"])
        .await;
    let other = world.accept("noah@example.org", &["a@example.net"]).await;
    let by_mia = Filter {
        sender: SenderIs::parse("mia@example.org"),
        received_before: Some(START.plus(Duration::from_secs(300))),
        ..Filter::default()
    };
    let done = world.order(QueueDo::Drop, by_mia, false).await;
    assert_eq!((done.errands, done.messages, done.looked_at), (1, 1, 4));
    assert!(world.show(old).await.is_none());
    // One of them is refused for now, so that there are words to find.
    let now = world.clock.now();
    let due = world.office.queue.due(now, 1).await.unwrap();
    let claim = world.office.queue.claim(&due, now).await.unwrap().remove(0);
    let last = queue::LastOutcome {
        at: now,
        host: Some("mx.example.net".into()),
        reply: "451 4.7.1 Greylisted".into(),
        status: Some(mail::EnhancedStatus::new(4, 7, 1)),
        class: Some("greylisted".into()),
    };
    let deferred = Outcome::Deferred {
        next: now.plus(Duration::from_secs(300)),
        last,
        delay_told: false,
        deadline_told: false,
    };
    world
        .office
        .queue
        .settle_now(&claim, &deferred, &|_| {})
        .await
        .unwrap();
    let greylisted = Filter {
        error: Some("greylisted".into()),
        host: Some("example.net".into()),
        ..Filter::default()
    };
    let done = world.order(QueueDo::Drop, greylisted, false).await;
    assert_eq!((done.errands, done.messages), (1, 1));
    assert_eq!(world.states(young).await, ["dropped by ann", "waiting"]);
    let done = world.order(QueueDo::Drop, Filter::default(), false).await;
    assert_eq!((done.errands, done.messages), (2, 2));
    assert!(world.show(other).await.is_none());
    assert_eq!(world.inbox().await, Vec::<String>::new(), "nobody is told");
    let ledger = world.office.queue.ledger().await.unwrap();
    assert_eq!((ledger.dropped["ann"], ledger.in_flight), (4, 0));
    world.balances().await;
}

#[tokio::test]
async fn mail_is_sent_another_way_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::begin(folder.path()).await;
    let id = world.accept("mia@example.org", &["a@example.net"]).await;
    let via = Via {
        host: "relay.example.com".into(),
        port: 2525,
    };
    let there = QueueDo::Reroute { via: Some(via) };
    world.order(there, Filter::of(id), false).await;
    let row = world.show(id).await.unwrap();
    assert_eq!(row.errands[0].via.as_deref(), Some("relay.example.com:2525"));
    assert!(world.told(id).await.contains("send it to relay.example.com:2525"));
    let forecast = row.errands[0].forecast.clone().unwrap();
    assert_eq!(forecast.tries[0].from, START);
    assert_eq!(forecast.ends, START.plus(Duration::from_secs(5 * 86_400)));
    world
        .order(QueueDo::Reroute { via: None }, Filter::of(id), false)
        .await;
    assert_eq!(world.show(id).await.unwrap().errands[0].via, None);
}

#[tokio::test]
async fn what_is_not_there_or_too_much_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::begin(folder.path()).await;
    let refused = async |filter: Filter, by: &str| {
        let order = QueueOrder {
            what: QueueDo::Hold,
            filter,
            behind: None,
            dry_run: false,
            by: Some(by.to_owned()),
        };
        let answer = world.office.perform(Request::Queue(Box::new(order))).await;
        answer.err().unwrap().kind
    };
    let unknown = Filter::of(QueueId(77));
    assert_eq!(refused(unknown, "ann").await, RefusalKind::NotFound);
    let many = Filter {
        ids: vec![QueueId(1); queue::FILTER_IDS_MAX + 1],
        ..Filter::default()
    };
    assert_eq!(refused(many, "ann").await, RefusalKind::Invalid);
    assert_eq!(refused(Filter::default(), "a\nb").await, RefusalKind::Invalid);
}
