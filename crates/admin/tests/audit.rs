//! The audit of a whole store: balanced while it works; each damage named, and nothing else.
#![allow(clippy::unwrap_used)]

use admin::Office;
use admin::audit::{AuditReport, Pace};
use admin::scrub::Scrub;
use directory::{Account, Argon2Cost, Directory, NewAccount, SystemRandom};
use journey::{Event, Journey, Reply};
use mail::{AccountId, Clock, Domain, EmailAddress, QueueId, ReversePath, Timestamp};
use mailbox::{Delivery, ExpungeWhich, FlagChange, FlagOp, Flags, Mailboxes, Role};
use queue::{Body, Claim, LastOutcome, Message, NewErrand, Outcome, Queue};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use store::{Batch, Blobs as _, Key, LogStore, Options, Tables as _};

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
    ids: AtomicU64,
}

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).unwrap()
}

fn options() -> Options {
    Options {
        segment_octets: 64 * 1024,
        apply_octets: 4 * 1024,
        reserve_octets: 4096,
        identity: Some(7),
        ..Options::default()
    }
}

fn open(folder: &Path) -> World {
    let store = LogStore::open(folder, options()).unwrap();
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
        ids: Arc::new(queue::IdSource::new(clock.clone())),
        limits: limits::Limits::new(store.clone(), limits::Options::off()),
        mta_sts: mtasts::Memory::new(store.clone()),
        policies: None,
        outbox: webhook::Outbox::new(store.clone(), Vec::new()),
        webhooks: None,
        clock: clock.clone(),
        hostname: Domain::parse("mail.example.org").unwrap(),
        own_tlsa: None,
        auditing: Arc::default(),
    };
    World {
        store,
        office,
        clock,
        ids: AtomicU64::new(0),
    }
}

impl World {
    /// A server with two accounts, whose ledger has begun.
    async fn begin(folder: &Path) -> Self {
        let world = open(folder);
        world.office.queue.recover(START).await.unwrap();
        let domain = Domain::parse("example.org").unwrap();
        world.office.directory.add_domain(&domain, START).await.unwrap();
        for name in ["mia", "noah"] {
            world.account(&format!("{name}@example.org")).await;
        }
        world
    }

    async fn account(&self, name: &str) -> Account {
        let new = NewAccount {
            address: address(name),
            display_name: String::new(),
            password: None,
        };
        let boxes = self.office.mailboxes.clone();
        let add = move |batch: &mut Batch, id: AccountId| boxes.create_defaults(batch, id, START);
        self.office.directory.add_account(new, START, &add).await.unwrap()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn pass(&self, time: Duration) {
        let micros = i64::try_from(time.as_micros()).unwrap();
        self.clock.0.fetch_add(micros, Ordering::Relaxed);
    }

    fn id(&self) -> QueueId {
        let n = self.ids.fetch_add(1, Ordering::Relaxed);
        QueueId(QueueId::from_parts(self.now().micros(), 0).0 + n)
    }

    /// Accepts a message as the server does: for accounts here and recipients elsewhere.
    async fn accept(&self, here: &[u64], away: &[&str]) -> QueueId {
        let (id, now) = (self.id(), self.now());
        let text = format!("Subject: {id}\r\n\r\n{}\r\n", "text ".repeat(200));
        let mut writer = self.store.stage(text.len() as u64).await.unwrap();
        writer.write(text.as_bytes()).await.unwrap();
        let staged = writer.finish().await.unwrap();
        let (blob, blob_len) = (staged.id, staged.len);
        let mut batch = Batch::new();
        batch.blob(staged);
        let accepted = Event::Accepted {
            local: here.len() as u32,
            queued: away.len() as u32,
        };
        self.office.journey.record(&mut batch, id, now, &accepted);
        self.office.queue.settled_at_once(&mut batch, here.len());
        for account in here {
            let inbox = self.office.mailboxes.find(AccountId(*account), Role::Inbox).await;
            let inbox = inbox.unwrap().unwrap();
            let delivery = Delivery {
                blob,
                blob_len,
                prefix: b"Return-Path: <>\r\n".to_vec(),
                flags: Flags::NONE,
                keywords: Vec::new(),
                internal_date: now,
                queue_id: Some(id),
            };
            self.office
                .mailboxes
                .deliver(&mut batch, inbox.place(), delivery)
                .unwrap();
            let event = Event::DeliveredLocal {
                recipient: address(&format!("{account}@example.org")),
                account: AccountId(*account),
                mailbox: inbox.id,
                mailbox_name: inbox.name.clone(),
                why: None,
            };
            self.office.journey.record(&mut batch, id, now, &event);
        }
        let message = Message {
            id,
            reverse_path: ReversePath::Null,
            blob,
            blob_len,
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
        let errands: Vec<NewErrand> = away
            .iter()
            .map(|to| NewErrand {
                recipient: address(to),
                original_recipient: None,
                notify: None,
                next_attempt: now,
            })
            .collect();
        self.office.queue.accept(&mut batch, &message, &errands).unwrap();
        for to in away {
            let event = Event::Queued {
                recipient: address(to),
                next_attempt: now,
            };
            self.office.journey.record(&mut batch, id, now, &event);
        }
        self.store.commit(batch).await.unwrap();
        id
    }

    async fn claim_all(&self) -> Vec<Claim> {
        let due = self.office.queue.due(self.now(), 1000).await.unwrap();
        self.office.queue.claim(&due, self.now()).await.unwrap()
    }

    /// Ends a claimed errand as relayed, recorded.
    async fn relay(&self, claim: &Claim) {
        let (id, now) = (claim.message.id, self.now());
        let last = LastOutcome {
            at: now,
            host: Some("mx.example.net".to_owned()),
            reply: "250 2.0.0 taken".to_owned(),
            status: None,
            class: None,
        };
        let event = Event::Relayed {
            recipient: claim.errand.recipient.clone(),
            host: "mx.example.net".to_owned(),
            reply: Reply::default(),
        };
        let journey = &self.office.journey;
        let add = |batch: &mut Batch| journey.record(batch, id, now, &event);
        self.office
            .queue
            .settle_now(claim, &Outcome::Relayed(last), &add)
            .await
            .unwrap();
    }

    async fn audit(&self) -> AuditReport {
        self.office.audit(true, Pace::new(false)).await.unwrap()
    }

    /// A store with every kind of thing in it.
    async fn sample(folder: &Path) -> (Self, QueueId) {
        let world = Self::begin(folder).await;
        for _ in 0..20 {
            world.accept(&[1, 2], &["x@example.net"]).await;
        }
        for claim in world.claim_all().await {
            world.relay(&claim).await;
        }
        world.accept(&[1], &[]).await;
        let inbox = world
            .office
            .mailboxes
            .find(AccountId(1), Role::Inbox)
            .await
            .unwrap()
            .unwrap();
        let seen = FlagChange {
            op: FlagOp::Add,
            flags: Flags::SEEN,
            keywords: Vec::new(),
            unchanged_since: None,
        };
        let uids = [mail::Uid(2), mail::Uid(3)];
        world
            .office
            .mailboxes
            .store_flags(inbox.place(), &uids, &seen)
            .await
            .unwrap();
        let which = ExpungeWhich::All;
        world
            .office
            .mailboxes
            .expunge(inbox.place(), &[mail::Uid(5)], which)
            .await
            .unwrap();
        let waiting = world.accept(&[], &["a@example.net", "b@example.net"]).await;
        (world, waiting)
    }
}

fn codes(report: &AuditReport) -> Vec<&str> {
    let mut codes: Vec<&str> = report.findings.iter().map(|f| f.code.as_str()).collect();
    codes.sort_unstable();
    codes
}

#[tokio::test]
async fn a_store_in_order_balances() {
    let folder = tempfile::tempdir().unwrap();
    let (world, _) = World::sample(folder.path()).await;
    let report = world.audit().await;
    assert_eq!(report.findings, []);
    assert!(report.balanced && report.deep);
    assert_eq!((report.accepted, report.accounted_for), (41 + 22, 63));
    let ledger = &report.ledger;
    assert_eq!((ledger.at_once, ledger.relayed, ledger.in_flight), (41, 20, 2));
    let counted = &report.counted;
    assert_eq!(
        (counted.accounts, counted.mailboxes, counted.messages),
        (2, 12, 40)
    );
    assert_eq!((counted.queued_messages, counted.open_errands), (1, 2));
    assert_eq!((counted.journeys, counted.blobs), (22, 22));
    assert_eq!(counted.blobs, counted.blobs_read);
    assert_eq!(report.unchecked, Vec::<String>::new());
}

/// Load that the audit must not take for damage: the store changes under it all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_busy_store_balances() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::begin(folder.path()).await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = tokio::task::JoinSet::new();
    for lane in 0..3u64 {
        let (world, stop) = (world.clone(), stop.clone());
        load.spawn(async move {
            let boxes = &world.office.mailboxes;
            let place = boxes
                .find(AccountId(1), Role::Inbox)
                .await
                .unwrap()
                .unwrap()
                .place();
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                turn += 1;
                world.accept(&[1, 2], &["x@example.net", "y@example.net"]).await;
                if lane == 0 {
                    for claim in world.claim_all().await {
                        world.relay(&claim).await;
                    }
                }
                if lane == 1 && turn % 5 == 0 {
                    let uids: Vec<mail::Uid> = boxes
                        .entries(place, mail::Uid(1), 20)
                        .await
                        .unwrap()
                        .iter()
                        .map(|e| e.uid)
                        .collect();
                    boxes.expunge(place, &uids, ExpungeWhich::All).await.unwrap();
                }
            }
        });
    }
    for _ in 0..8 {
        let report = world.audit().await;
        assert_eq!(report.findings, []);
        assert_eq!(report.accepted, report.accounted_for);
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    let report = world.audit().await;
    assert!(report.balanced, "{:?}", report.findings);
}

/// Does one thing to a sample store behind everybody's back, and audits.
async fn harmed(harm: impl AsyncFnOnce(&World, QueueId, &mut Batch)) -> AuditReport {
    let folder = tempfile::tempdir().unwrap();
    let (world, waiting) = World::sample(folder.path()).await;
    let mut batch = Batch::new();
    harm(&world, waiting, &mut batch).await;
    world.store.commit(batch).await.unwrap();
    let report = world.audit().await;
    assert!(!report.balanced);
    assert!(
        report
            .findings
            .iter()
            .all(|f| !f.remedy.is_empty() && !f.what.is_empty())
    );
    report
}

#[tokio::test]
async fn a_deleted_due_line_is_named() {
    let report = harmed(async |world, waiting, batch| {
        let now = world.now();
        batch.delete(Key::table(0x32).u64(now.micros()).u64(waiting.0).u32(1));
    })
    .await;
    assert_eq!(codes(&report), ["due-line-missing"]);
    assert!(
        report.findings[0].place.contains("b@example.net"),
        "{:?}",
        report.findings
    );
}

#[tokio::test]
async fn a_lost_errand_is_named_with_its_recipient() {
    let report = harmed(async |world, waiting, batch| {
        let now = world.now();
        batch.delete(Key::table(0x31).u64(waiting.0).u32(0));
        batch.delete(Key::table(0x32).u64(now.micros()).u64(waiting.0).u32(0));
    })
    .await;
    assert_eq!(
        codes(&report),
        ["errand-lost", "open-count-wrong", "queue-count-wrong"]
    );
    let lost = report.findings.iter().find(|f| f.code == "errand-lost").unwrap();
    assert_eq!(
        lost.place,
        format!("message {} to a@example.net", waiting_of(&report))
    );
}

/// The message that a finding names.
fn waiting_of(report: &AuditReport) -> String {
    let lost = report.findings.iter().find(|f| f.code == "errand-lost").unwrap();
    lost.place.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn a_lost_message_is_named() {
    let report = harmed(async |_, waiting, batch| batch.delete(Key::table(0x30).u64(waiting.0))).await;
    assert_eq!(
        codes(&report),
        [
            "errand-without-message",
            "errand-without-message",
            "open-count-wrong",
            "queue-count-wrong",
            "queue-count-wrong",
        ]
    );
}

#[tokio::test]
async fn changed_counters_are_named() {
    let report = harmed(async |_, _, batch| {
        batch.add(Key::table(0x35).u8(1), 1);
        batch.add(Key::table(0x36).u8(4), 1);
        batch.add(Key::table(0x27).u64(2), -5);
        batch.add(Key::table(0x26).u64(1).u8(3), 1);
        batch.add(Key::table(0x26).u64(999).u8(3), 1);
    })
    .await;
    assert_eq!(
        codes(&report),
        [
            "ledger-unbalanced",
            "mailbox-count-wrong",
            "mailbox-left-over",
            "queue-count-wrong",
            "usage-wrong",
        ]
    );
    let usage = report.findings.iter().find(|f| f.code == "usage-wrong").unwrap();
    assert_eq!(usage.place, "octets of all mail of noah@example.org");
}

#[tokio::test]
async fn a_ledger_that_forgot_is_named() {
    let report = harmed(async |_, _, batch| {
        // Both sides alike: the sum still balances.
        batch.add(Key::table(0x36).u8(2), -3);
        batch.add(Key::table(0x36).u8(4), -3);
    })
    .await;
    assert_eq!(codes(&report), ["ledger-short"]);
}

#[tokio::test]
async fn a_deleted_entry_is_named() {
    let report = harmed(async |world, _, batch| {
        let inbox = world
            .office
            .mailboxes
            .find(AccountId(1), Role::Inbox)
            .await
            .unwrap()
            .unwrap();
        batch.delete(Key::table(0x28).u64(inbox.id.0).u32(2));
    })
    .await;
    // Messages and octets, the account's usage, and the change that told of its flags.
    assert_eq!(
        codes(&report),
        [
            "change-wrong",
            "mailbox-count-wrong",
            "mailbox-count-wrong",
            "usage-wrong"
        ]
    );
}

#[tokio::test]
async fn a_uid_beyond_the_next_is_named() {
    let report = harmed(async |world, _, batch| {
        let inbox = world
            .office
            .mailboxes
            .find(AccountId(2), Role::Inbox)
            .await
            .unwrap()
            .unwrap();
        batch.add(Key::table(0x26).u64(inbox.id.0).u8(1), -1);
        batch.add(Key::table(0x26).u64(inbox.id.0).u8(2), -1);
    })
    .await;
    assert_eq!(codes(&report), ["modseq-wrong", "uid-wrong"]);
}

#[tokio::test]
async fn a_lost_account_and_a_lost_address_are_named() {
    let report = harmed(async |_, _, batch| {
        batch.delete(Key::table(0x11).u64(2));
        batch.delete(Key::table(0x12).text("mia@example.org"));
    })
    .await;
    assert_eq!(
        codes(&report),
        [
            "account-left-over",
            "address-missing",
            "address-without-account",
            "mailboxes-without-account",
        ]
    );
}

#[tokio::test]
async fn an_errand_that_ended_twice_is_named() {
    let report = harmed(async |world, waiting, batch| {
        let event = Event::Relayed {
            recipient: address("a@example.net"),
            host: "mx.example.net".to_owned(),
            reply: Reply::default(),
        };
        world.office.journey.record(batch, waiting, world.now(), &event);
        batch.add(Key::table(0x36).u8(4), 1);
        batch.add(Key::table(0x36).u8(2), 1);
    })
    .await;
    assert_eq!(codes(&report), ["errand-ended-twice"]);
}

#[tokio::test]
async fn a_queued_message_without_a_journey_is_named_unless_it_may_be_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (world, waiting) = World::sample(folder.path()).await;
    let mut batch = Batch::new();
    let journey = Key::table(0x40).u64(waiting.0).prefix_range();
    let snapshot = world.store.snapshot().await.unwrap();
    for (key, _) in snapshot.scan(&journey, 100).await.unwrap() {
        batch.delete(key);
    }
    assert!(!batch.is_empty());
    world.store.commit(batch).await.unwrap();
    let report = world.audit().await;
    assert_eq!(codes(&report), ["journey-missing"]);
    assert!(!report.balanced);
    let missing = &report.findings[0];
    assert_eq!(missing.place, format!("message {waiting}"));
    assert!(missing.what.contains("a@example.net and 1 more"), "{missing:?}");
    // As old as journeys are kept: it cannot be told from a forgotten one.
    world.pass(admin::audit::JOURNEYS_KEPT - Duration::from_micros(1));
    assert!(codes(&world.audit().await).contains(&"journey-missing"));
    world.pass(Duration::from_secs(1));
    assert!(!codes(&world.audit().await).contains(&"journey-missing"));
}

#[tokio::test]
async fn what_makes_no_progress_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (world, _) = World::sample(folder.path()).await;
    world.claim_all().await;
    world.pass(Duration::from_secs(30 * 60 + 3_500));
    assert_eq!(
        codes(&world.audit().await),
        Vec::<&str>::new(),
        "the lease and an hour are no delay"
    );
    world.pass(Duration::from_secs(600));
    let late = world.audit().await;
    assert_eq!(codes(&late), ["errand-overdue", "errand-overdue"]);
    assert!(
        late.findings[0].what.contains("lease lapsed"),
        "{:?}",
        late.findings
    );
    world.pass(Duration::from_secs(7 * 86_400));
    let codes = world.audit().await;
    assert_eq!(
        codes
            .findings
            .iter()
            .filter(|f| f.code == "errand-too-old")
            .count(),
        2
    );
}

#[tokio::test]
async fn a_ledger_that_has_not_begun_is_said_to_be_unchecked() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path());
    let report = world.audit().await;
    assert!(report.balanced);
    assert!(
        report.unchecked[0].contains("not begun"),
        "{:?}",
        report.unchecked
    );
}

#[tokio::test]
async fn an_audit_can_be_stopped_and_only_one_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (world, _) = World::sample(folder.path()).await;
    let pace = Pace::new(false);
    pace.stop();
    let stopped = world.office.audit(false, pace).await.unwrap_err();
    assert!(stopped.text.contains("stopped"));
    let _running = world.office.auditing.clone().lock_owned().await;
    let refused = world.office.audit(false, Pace::new(false)).await.unwrap_err();
    assert!(refused.text.contains("another audit"));
}

#[tokio::test]
async fn the_scrub_finds_rot_and_remembers_it() {
    let folder = tempfile::tempdir().unwrap();
    let (world, _) = World::sample(folder.path()).await;
    world.store.close();
    let log = folder.path().join("log/0000000000000001.log");
    let mut file = std::fs::read(&log).unwrap();
    let at = (0..file.len())
        .find(|at| file[*at..].starts_with(b"Subject: "))
        .unwrap();
    file[at + 100] ^= 1;
    std::fs::write(&log, file).unwrap();
    let world = open(folder.path());
    let mut scrub = Scrub::default();
    let mut steps = 1;
    while !scrub.step(&world.office, 4_096).await.unwrap() {
        steps += 1;
        // As over a restart.
        scrub.save(&world.store).await.unwrap();
        scrub = admin::scrub::read(&world.store).await.unwrap().unwrap();
    }
    assert!(steps > 5, "{steps} steps");
    scrub.save(&world.store).await.unwrap();
    let report = world.audit().await;
    let last = report.scrub.as_ref().unwrap().last.as_ref().unwrap();
    assert_eq!(last.findings.len(), 1);
    assert_eq!(last.findings[0].code, "blob-damaged");
    // The audit names the same blob, and who has it.
    assert_eq!(codes(&report), ["blob-damaged"]);
    assert_eq!(report.findings[0].place, last.findings[0].place);
    assert!(report.findings[0].concerns[0].starts_with("message in INBOX of mia@example.org, UID "));
}

/// Every code in the sources stands in docs/AUDIT.md, and no other.
#[test]
fn every_finding_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/AUDIT.md")).unwrap();
    let explained: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next())
        .flat_map(|cell| cell.split(", ").map(|code| code.trim_matches('`')))
        .collect();
    let sources = [
        "store/src/engine/verify.rs",
        "store/src/engine/scrub.rs",
        "queue/src/audit.rs",
        "mailbox/src/audit.rs",
        "directory/src/audit.rs",
        "journey/src/audit.rs",
        "admin/src/audit.rs",
    ];
    let mut found = BTreeSet::new();
    for source in sources {
        let text = std::fs::read_to_string(root.join("crates").join(source)).unwrap();
        for word in text.split('"').filter(|word| word.contains('-')) {
            if word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
                found.insert(word.to_owned());
            }
        }
    }
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert!(found.len() > 30, "{found:?}");
    assert_eq!(found, explained);
}
