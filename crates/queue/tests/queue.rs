//! The life of errands: exactly one end each, in order of their due times, fenced by leases.
#![allow(clippy::unwrap_used)]

use mail::{Domain, EmailAddress, EnhancedStatus, QueueId, ReversePath, Timestamp};
use proptest::prelude::*;
use queue::{
    Body, Claim, End, Errand, ErrandState, Error, Filter, LastOutcome, Message, NewErrand, Options, Order,
    Outcome, Queue, SenderIs, Settled, Walk,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use store::memory::MemoryStore;
use store::{
    Batch, BlobError, BlobId, BlobWriter, Blobs, BoxFuture, CommitError, Key, ReadError, Receipt, Snapshot,
    Tables, Topic, Watch,
};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn at(secs: u64) -> Timestamp {
    START.plus(Duration::from_secs(secs))
}

fn options() -> Options {
    Options {
        lease_for: Duration::from_secs(100),
        ..Options::default()
    }
}

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).unwrap()
}

fn errand(recipient: &str, due: Timestamp) -> NewErrand {
    NewErrand {
        recipient: address(recipient),
        original_recipient: None,
        notify: None,
        next_attempt: due,
    }
}

fn last(now: Timestamp) -> LastOutcome {
    LastOutcome {
        at: now,
        host: Some("mx.example.com".into()),
        reply: "451 4.7.1 later".into(),
        status: Some(EnhancedStatus::new(4, 7, 1)),
        class: None,
    }
}

async fn accept(
    store: &MemoryStore,
    queue: &Queue,
    id: u64,
    errands: &[NewErrand],
    now: Timestamp,
) -> Message {
    let mut writer = store.stage(5).await.unwrap();
    writer.write(b"hello").await.unwrap();
    let staged = writer.finish().await.unwrap();
    let message = Message {
        id: QueueId(id),
        reverse_path: ReversePath::Address(address("alice@gmail.com")),
        blob: staged.id,
        blob_len: staged.len,
        prefix: b"Received: \xff\r\n".to_vec(),
        received_at: now,
        message_id: Some("m@gmail.com".into()),
        login: Some("alice".into()),
        body: Body::EightBit,
        smtputf8: true,
        envid: None,
        ret: None,
        require_tls: false,
        deliver_by: None,
        priority: mail::delivery::Priority::NORMAL,
    };
    let mut batch = Batch::new();
    queue.accept(&mut batch, &message, errands).unwrap();
    if !batch.is_empty() {
        batch.blob(staged);
        store.commit(batch).await.unwrap();
    }
    message
}

async fn empty(store: &MemoryStore) {
    let snapshot = store.snapshot().await.unwrap();
    for table in 0x30..=0x3f {
        let rows = snapshot
            .scan(&Key::table(table).prefix_range(), 10)
            .await
            .unwrap();
        assert_eq!(rows, [], "table {table:#x}");
    }
}

fn nothing(_: &mut Batch) {}

async fn claim_all(queue: &Queue, now: Timestamp) -> Vec<Claim> {
    let due = queue.due(now, 1000).await.unwrap();
    queue.claim(&due, now).await.unwrap()
}

#[tokio::test]
async fn a_message_from_acceptance_to_its_end() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    let mut watch = queue.watch();
    let two = [
        errand("bob@example.com", at(0)),
        errand("carol@example.org", at(60)),
    ];
    let message = accept(&store, &queue, 5, &two, at(0)).await;
    assert!(watch.changed().await);
    let listed = queue.show(message.id).await.unwrap().unwrap();
    assert_eq!(listed.message, message, "the prefix too");
    assert_eq!(queue.next_due().await.unwrap(), Some(at(0)));
    let due = queue.due(at(0), 10).await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].domain.as_str(), due[0].no), ("example.com", 0));
    let claims = queue.claim(&due, at(0)).await.unwrap();
    assert_eq!(*claims[0].message, message);
    // A claimed errand is nobody else's, and not shown.
    assert_eq!(queue.claim(&due, at(0)).await.unwrap(), []);
    assert_eq!(queue.due(at(0), 10).await.unwrap(), []);
    let next = at(300);
    let deferred = Outcome::Deferred {
        next,
        last: last(at(1)),
        delay_told: true,
        deadline_told: false,
    };
    assert_eq!(
        queue.settle_now(&claims[0], &deferred, &nothing).await.unwrap(),
        Settled::MessageStays
    );
    assert_eq!(
        queue.settle_now(&claims[0], &deferred, &nothing).await,
        Err(Error::ClaimLost),
        "only once"
    );
    let shown = queue.show(message.id).await.unwrap().unwrap().errands;
    assert_eq!(shown[0].state, ErrandState::Waiting { next_attempt: next });
    assert_eq!((shown[0].attempts, shown[0].delay_told), (1, true));
    assert_eq!(shown[0].last, Some(last(at(1))));
    let claims = claim_all(&queue, at(300)).await;
    assert_eq!(
        claims.iter().map(|c| c.errand.no).collect::<Vec<_>>(),
        [1, 0],
        "the longest due first"
    );
    let relayed = Outcome::Relayed(last(at(301)));
    assert_eq!(
        queue.settle_now(&claims[0], &relayed, &nothing).await.unwrap(),
        Settled::MessageStays
    );
    let shown = queue.show(message.id).await.unwrap().unwrap().errands;
    assert_eq!(shown[1].state, ErrandState::Relayed { at: at(301) });
    let bounced = Outcome::Bounced(last(at(302)));
    assert_eq!(
        queue.settle_now(&claims[1], &bounced, &nothing).await.unwrap(),
        Settled::MessageGoes
    );
    assert_eq!(queue.show(message.id).await.unwrap(), None);
    assert!(
        store.read(message.blob, 0..5).await.is_err(),
        "the bytes went too"
    );
    empty(&store).await;
    assert_eq!(queue.stats().await.unwrap().errands, 0);
    assert_eq!(queue.next_due().await.unwrap(), None);
}

#[tokio::test]
async fn no_errand_no_message() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    accept(&store, &queue, 5, &[], at(0)).await;
    empty(&store).await;
}

#[tokio::test]
async fn one_id_one_message() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    let message = accept(&store, &queue, 5, &[errand("b@c.d", at(0))], at(0)).await;
    let mut batch = Batch::new();
    queue
        .accept(&mut batch, &message, &[errand("e@f.g", at(0))])
        .unwrap();
    assert!(matches!(
        store.commit(batch).await,
        Err(CommitError::Conflict { .. })
    ));
}

#[tokio::test]
async fn a_lapsed_claim_is_taken_over_and_fenced() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    accept(&store, &queue, 5, &[errand("b@c.d", at(0))], at(0)).await;
    let mut old = claim_all(&queue, at(0)).await.remove(0);
    assert!(claim_all(&queue, at(99)).await.is_empty());
    queue.renew(&mut old, at(50)).await.unwrap();
    assert!(claim_all(&queue, at(149)).await.is_empty(), "renewed until 150");
    let new = claim_all(&queue, at(150)).await.remove(0);
    let done = Outcome::Relayed(last(at(151)));
    assert_eq!(
        queue.settle_now(&old, &done, &nothing).await,
        Err(Error::ClaimLost)
    );
    assert_eq!(queue.renew(&mut old, at(151)).await, Err(Error::ClaimLost));
    assert_eq!(queue.release(&old, at(151)).await, Err(Error::ClaimLost));
    queue.release(&new, at(160)).await.unwrap();
    let third = claim_all(&queue, at(160)).await.remove(0);
    assert_eq!(third.errand.attempts, 0, "a released claim is no attempt");
    assert_eq!(
        queue.settle_now(&new, &done, &nothing).await,
        Err(Error::ClaimLost)
    );
    assert_eq!(
        queue.settle_now(&third, &done, &nothing).await.unwrap(),
        Settled::MessageGoes
    );
    empty(&store).await;
}

#[tokio::test]
async fn recovery_frees_what_a_stopped_process_held() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    let two = [errand("b@c.d", at(0)), errand("e@f.g", at(0))];
    accept(&store, &queue, 5, &two, at(0)).await;
    let held = claim_all(&queue, at(0)).await;
    assert_eq!(held.len(), 2);
    assert_eq!(queue.recover(at(10)).await.unwrap(), 2);
    assert_eq!(queue.recover(at(10)).await.unwrap(), 0);
    let done = Outcome::Delivered(last(at(11)));
    assert_eq!(
        queue.settle_now(&held[0], &done, &nothing).await,
        Err(Error::ClaimLost),
        "fenced off"
    );
    let claims = claim_all(&queue, at(10)).await;
    assert_eq!(claims.len(), 2);
    for claim in &claims {
        queue.settle_now(claim, &done, &nothing).await.unwrap();
    }
    empty(&store).await;
}

#[tokio::test]
async fn the_operator_retries_and_drops() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    let three = [
        errand("b@c.d", at(500)),
        errand("e@f.g", at(0)),
        errand("h@i.j", at(600)),
    ];
    accept(&store, &queue, 5, &three, at(0)).await;
    let under_way = claim_all(&queue, at(0)).await.remove(0);
    assert_eq!(queue.retry(QueueId(5), at(1), &nothing).await.unwrap(), 2);
    assert_eq!(queue.due(at(1), 10).await.unwrap().len(), 2);
    assert_eq!(
        queue.retry(QueueId(6), at(1), &nothing).await,
        Err(Error::NotQueued)
    );
    let dropped = queue.drop(QueueId(5), "admin", at(2), &|_, _| {}).await.unwrap();
    let by_admin = ErrandState::Dropped {
        at: at(2),
        by: "admin".into(),
    };
    assert!(dropped.len() == 3 && dropped.iter().all(|e| e.state == by_admin));
    let done = Outcome::Relayed(last(at(3)));
    assert_eq!(
        queue.settle_now(&under_way, &done, &nothing).await,
        Err(Error::ClaimLost)
    );
    assert_eq!(
        queue.drop(QueueId(5), "admin", at(2), &|_, _| {}).await,
        Err(Error::NotQueued)
    );
    empty(&store).await;
    assert_eq!(queue.stats().await.unwrap().messages, 0);
}

#[tokio::test]
async fn listing_filters_and_pages() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    for id in 1..=600u64 {
        let recipient = if id % 100 == 0 {
            "Bob@example.com"
        } else {
            "x@example.org"
        };
        accept(&store, &queue, id, &[errand(recipient, at(id))], at(0)).await;
    }
    let ids = |l: Vec<queue::Listed>| l.into_iter().map(|l| l.message.id.0).collect::<Vec<_>>();
    let filter = Filter {
        recipient: Some(address("bob@example.com")),
        ..Filter::default()
    };
    assert_eq!(ids(queue.list(&filter, 4).await.unwrap()), [100, 200, 300, 400]);
    let filter = Filter {
        after: Some(QueueId(400)),
        ..filter
    };
    assert_eq!(ids(queue.list(&filter, 4).await.unwrap()), [500, 600]);
    let filter = Filter {
        domain: Some(Domain::parse("example.org").unwrap()),
        ..Filter::default()
    };
    assert_eq!(queue.list(&filter, 1000).await.unwrap().len(), 594);
    let filter = Filter {
        sender: SenderIs::parse("nobody@gmail.com"),
        ..Filter::default()
    };
    assert_eq!(queue.list(&filter, 10).await.unwrap(), []);
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.messages, stats.errands), (600, 600));
    let json = serde_json::to_value(&queue.list(&Filter::default(), 1).await.unwrap()[0]).unwrap();
    assert_eq!(json["errands"][0]["state"]["is"], "waiting");
}

#[tokio::test]
async fn pages_hold_so_much_and_no_more() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    let many: Vec<NewErrand> = (0..6_000).map(|n| errand(&format!("u{n}@c.d"), at(9))).collect();
    for id in 1..=3 {
        accept(&store, &queue, id, &many, at(0)).await;
    }
    let mut filter = Filter::default();
    let mut pages = Vec::new();
    loop {
        let page = queue.list_page(&filter, 100).await.unwrap();
        pages.push(page.listed.iter().map(|l| l.message.id.0).collect::<Vec<_>>());
        filter.after = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(
        pages,
        [vec![1, 2], vec![3]],
        "20,000 errands are not held at once"
    );
    let all = queue.list(&Filter::default(), 100).await.unwrap();
    assert_eq!(all.len(), 3, "who asks for all gets all");
    let exact = queue.list_page(&Filter::default(), 3).await.unwrap();
    assert_eq!((exact.listed.len(), exact.next), (2, Some(QueueId(2))));
}

#[tokio::test]
async fn everything_is_tried_in_bounded_commits() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    for id in 1..=700u64 {
        let two = [errand("b@c.d", at(1_000)), errand("e@f.g", at(2_000 + id))];
        accept(&store, &queue, id, &two, at(0)).await;
    }
    // One is claimed, one is due already.
    let claimed = queue.due(at(1_000), 1).await.unwrap();
    let claim = queue.claim(&claimed, at(1_450)).await.unwrap().remove(0);
    let noted = std::sync::Mutex::new(Vec::new());
    let note = |_: &mut Batch, id: QueueId, _: &[Errand]| noted.lock().unwrap().push(id.0);
    let (mut errands, mut messages, mut steps, mut behind) = (0, 0, 0, None);
    let everything = Filter::default();
    loop {
        let step = queue.order_step(walk(&everything, behind, at(1_500)), &Order::Retry, &note);
        let step = step.await.unwrap();
        (errands, messages, steps) = (errands + step.errands, messages + step.messages, steps + 1);
        behind = step.next;
        if behind.is_none() {
            break;
        }
    }
    assert_eq!((errands, messages, steps), (1_399, 700, 3));
    let due = queue.due(at(1_500), 10_000).await.unwrap();
    assert_eq!(due.len(), 1_399, "all but the one under way");
    assert_eq!(
        queue.next_due().await.unwrap(),
        Some(at(1_000)),
        "what was due keeps its place"
    );
    let again = queue.order_step(walk(&everything, None, at(1_500)), &Order::Retry, &nothing_of);
    let again = again.await.unwrap();
    assert_eq!(
        (again.errands, again.messages),
        (497, 249),
        "up to a whole message"
    );
    let done = Outcome::Relayed(last(at(1_501)));
    queue.settle_now(&claim, &done, &nothing).await.unwrap();
    let noted = noted.into_inner().unwrap();
    assert_eq!(noted.len(), 700, "the journey of each is told once: {noted:?}");
}

fn nothing_of(_: &mut Batch, _: QueueId, _: &[Errand]) {}

fn walk(filter: &Filter, behind: Option<(QueueId, u32)>, now: Timestamp) -> Walk<'_> {
    Walk {
        filter,
        class_of: &|_| String::new(),
        behind,
        now,
    }
}

/// Sends back to the sender what of a message is not being attempted.
async fn send_back(store: &MemoryStore, queue: &Queue, id: u64, now: Timestamp) -> Vec<Errand> {
    let filter = Filter::of(QueueId(id));
    let window = queue.window(walk(&filter, None, now), 1_000).await.unwrap();
    let mut batch = Batch::new();
    let end = End::Bounced(last(now));
    let ended = queue.end(&mut batch, QueueId(id), &window.met, &end, now);
    let ended = ended.await.unwrap();
    if !ended.is_empty() {
        store.commit(batch).await.unwrap();
    }
    ended
}

#[tokio::test]
async fn what_is_held_waits_until_it_is_released() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    let three = [
        errand("b@c.d", at(0)),
        errand("e@f.g", at(500)),
        errand("h@i.j", at(0)),
    ];
    accept(&store, &queue, 5, &three, at(0)).await;
    let attempted = queue.due(at(0), 1).await.unwrap();
    let claim = queue.claim(&attempted, at(0)).await.unwrap().remove(0);
    let hold = Order::Hold { by: "ann".into() };
    let filter = Filter::of(QueueId(5));
    let told = std::sync::Mutex::new(Vec::new());
    let note = |_: &mut Batch, _: QueueId, held: &[Errand]| {
        told.lock().unwrap().extend(held.iter().map(|e| e.no));
    };
    let step = queue.order_step(walk(&filter, None, at(1)), &hold, &note).await;
    let step = step.unwrap();
    assert_eq!((step.errands, step.messages, step.attempting), (2, 1, 1));
    assert_eq!(*told.lock().unwrap(), [1, 2]);
    assert_eq!(queue.stats().await.unwrap().held, 2);
    let again = queue.order_step(walk(&filter, None, at(2)), &hold, &note).await;
    assert_eq!(again.unwrap().errands, 2, "they stand as ordered");
    assert_eq!(told.lock().unwrap().len(), 2, "and are not told again");
    // Neither time, nor a start, nor a retry lets them go.
    queue.recover(at(3)).await.unwrap();
    let retry = queue.order_step(walk(&filter, None, at(3)), &Order::Retry, &note);
    assert_eq!(retry.await.unwrap().errands, 1, "the other one");
    queue.retry(QueueId(5), at(3), &nothing).await.unwrap();
    let due = queue.due(at(999_999), 10).await.unwrap();
    assert_eq!(due.iter().map(|d| d.no).collect::<Vec<_>>(), [claim.errand.no]);
    let shown = queue.show(QueueId(5)).await.unwrap().unwrap();
    let held = ErrandState::Held {
        at: at(1),
        by: "ann".into(),
    };
    assert_eq!(shown.errands[1].state, held);
    let release = queue.order_step(walk(&filter, None, at(9)), &Order::Release, &note);
    assert_eq!(release.await.unwrap().errands, 2);
    assert_eq!(queue.due(at(9), 10).await.unwrap().len(), 3);
    assert_eq!(queue.stats().await.unwrap().held, 0);
}

#[tokio::test]
async fn what_is_sent_back_ends_and_the_rest_stays() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    let two = [errand("b@c.d", at(0)), errand("e@f.g", at(500))];
    accept(&store, &queue, 5, &two, at(0)).await;
    accept(&store, &queue, 6, &two[..1], at(0)).await;
    let claims = claim_all(&queue, at(0)).await;
    let ended = send_back(&store, &queue, 5, at(1)).await;
    assert_eq!(
        ended.iter().map(|e| e.no).collect::<Vec<_>>(),
        [1],
        "not the attempted one"
    );
    assert_eq!(send_back(&store, &queue, 6, at(1)).await, []);
    let shown = queue.show(QueueId(5)).await.unwrap().unwrap();
    assert_eq!(shown.errands[1].state, ErrandState::Bounced { at: at(1) });
    assert_eq!(shown.attempting, [0]);
    // The attempted ones still end by themselves, and take their messages away.
    for claim in &claims {
        let done = Outcome::Relayed(last(at(2)));
        let settled = queue.settle_now(claim, &done, &nothing).await.unwrap();
        assert_eq!(settled, Settled::MessageGoes);
    }
    let ledger = queue.ledger().await.unwrap();
    assert_eq!((ledger.bounced, ledger.relayed, ledger.in_flight), (1, 2, 0));
    empty(&store).await;
}

#[tokio::test]
async fn dropping_some_takes_them_from_their_attempt() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    let two = [errand("b@c.d", at(0)), errand("e@f.g", at(500))];
    accept(&store, &queue, 5, &two, at(0)).await;
    let claim = claim_all(&queue, at(0)).await.remove(0);
    let filter = Filter {
        domain: Some(Domain::parse("c.d").unwrap()),
        ..Filter::default()
    };
    let window = queue.window(walk(&filter, None, at(1)), 100).await.unwrap();
    let mut batch = Batch::new();
    let end = End::Dropped { by: "ann".into() };
    let ended = queue.end(&mut batch, QueueId(5), &window.met, &end, at(1));
    assert_eq!(ended.await.unwrap().len(), 1);
    store.commit(batch).await.unwrap();
    let done = Outcome::Relayed(last(at(2)));
    let lost = queue.settle_now(&claim, &done, &nothing).await;
    assert_eq!(lost, Err(Error::ClaimLost));
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.messages, stats.errands), (1, 1));
}

#[tokio::test]
async fn what_is_claimed_after_the_look_is_not_sent_back() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    let two = [errand("a@example.net", at(0)), errand("b@example.net", at(0))];
    accept(&store, &queue, 1, &two, at(0)).await;
    let filter = Filter::of(QueueId(1));
    let window = queue.window(walk(&filter, None, at(1)), 1_000).await.unwrap();
    // An attempt of the first one begins before the order comes to it.
    let due = queue.due(at(1), 1).await.unwrap();
    let claims = queue.claim(&due, at(1)).await.unwrap();
    let mut batch = Batch::new();
    let end = End::Bounced(last(at(1)));
    let ended = queue.end(&mut batch, QueueId(1), &window.met, &end, at(1)).await;
    let ended: Vec<u32> = ended.unwrap().iter().map(|errand| errand.no).collect();
    assert_eq!(ended, [1], "no report about mail that a server may have taken");
    store.commit(batch).await.unwrap();
    let relayed = Outcome::Relayed(last(at(2)));
    let settled = queue.settle_now(&claims[0], &relayed, &nothing).await.unwrap();
    assert_eq!(settled, Settled::MessageGoes);
}

#[tokio::test]
async fn a_step_ends_between_messages() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    let four: Vec<NewErrand> = (0..4).map(|n| errand(&format!("u{n}@c.d"), at(9))).collect();
    for id in 1..=4 {
        accept(&store, &queue, id, &four, at(0)).await;
    }
    let everything = Filter::default();
    let named = Filter {
        ids: vec![QueueId(4), QueueId(2), QueueId(9), QueueId(2)],
        ..Filter::default()
    };
    for (filter, limit, wanted) in [
        (&everything, 6, vec![4, 4, 4, 4]),
        (&everything, 3, vec![3, 1, 3, 1, 3, 1, 3, 1]),
        (&everything, 100, vec![16]),
        (&named, 5, vec![4, 4]),
        (&named, 4, vec![4, 4, 0]),
    ] {
        let (mut sizes, mut behind) = (Vec::new(), None);
        loop {
            let window = queue.window(walk(filter, behind, at(1)), limit).await.unwrap();
            sizes.push(window.met.len());
            behind = window.next;
            if behind.is_none() {
                break;
            }
        }
        assert_eq!(sizes, wanted, "{limit}");
    }
}

#[tokio::test]
async fn a_damaged_errand_does_not_come_up_again_and_again() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    accept(&store, &queue, 5, &[errand("b@c.d", at(0))], at(0)).await;
    let mut batch = Batch::new();
    batch.put(Key::table(0x31).u64(5).u32(0), vec![1, b'?']);
    store.commit(batch).await.unwrap();
    assert_eq!(claim_all(&queue, at(0)).await, []);
    assert_eq!(queue.next_due().await.unwrap(), Some(at(3600)));
    assert_eq!(queue.show(QueueId(5)).await.unwrap().unwrap().errands, []);
    assert_eq!(
        queue.drop(QueueId(5), "admin", at(1), &|_, _| {}).await.unwrap(),
        []
    );
    assert_eq!(
        claim_all(&queue, at(3600)).await,
        [],
        "the line that is left names nothing"
    );
    empty(&store).await;
}

#[tokio::test]
async fn recovery_keeps_the_line_of_a_damaged_errand() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    accept(&store, &queue, 5, &[errand("b@c.d", at(0))], at(0)).await;
    assert_eq!(claim_all(&queue, at(0)).await.len(), 1);
    let mut batch = Batch::new();
    batch.put(Key::table(0x31).u64(5).u32(0), vec![1, b'?']);
    store.commit(batch).await.unwrap();
    assert_eq!(queue.recover(at(10)).await.unwrap(), 0);
    assert_eq!(
        queue.next_due().await.unwrap(),
        Some(at(100)),
        "it comes up when the lease ends, for the operator to hear of it"
    );
}

/// A store in which the row of one key fails its checksum.
struct OneBadRow(Arc<MemoryStore>, Key);

struct OneBadRowView(Box<dyn Snapshot>, Key);

impl Snapshot for OneBadRowView {
    fn seq(&self) -> store::Seq {
        self.0.seq()
    }

    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<store::Versioned>, ReadError>> {
        if *key == self.1 {
            return Box::pin(async { Err(ReadError::Corrupt(key.clone())) });
        }
        self.0.get(key)
    }

    fn counter<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<i64, ReadError>> {
        self.0.counter(key)
    }

    fn counters<'a>(
        &'a self,
        range: &'a store::KeyRange,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Key, i64)>, ReadError>> {
        self.0.counters(range, limit)
    }

    fn scan<'a>(
        &'a self,
        range: &'a store::KeyRange,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Key, store::Versioned)>, ReadError>> {
        self.0.scan(range, limit)
    }

    fn scan_back<'a>(
        &'a self,
        range: &'a store::KeyRange,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Key, store::Versioned)>, ReadError>> {
        self.0.scan_back(range, limit)
    }
}

impl Tables for OneBadRow {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        self.0.commit(batch)
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, ReadError>> {
        Box::pin(async {
            let view = OneBadRowView(self.0.snapshot().await?, self.1.clone());
            Ok(Box::new(view) as Box<dyn Snapshot>)
        })
    }

    fn watch(&self, topic: &Topic) -> Watch {
        self.0.watch(topic)
    }
}

impl Blobs for OneBadRow {
    fn stage(&self, len_hint: u64) -> BoxFuture<'_, Result<Box<dyn BlobWriter>, BlobError>> {
        self.0.stage(len_hint)
    }

    fn read(&self, id: BlobId, range: Range<u64>) -> BoxFuture<'_, Result<bytes::Bytes, BlobError>> {
        self.0.read(id, range)
    }
}

#[tokio::test]
async fn a_bad_checksum_holds_up_its_own_errand_only() {
    let store = MemoryStore::new();
    let bad = Key::table(0x31).u64(5).u32(0);
    let queue = Queue::new(Arc::new(OneBadRow(store.clone(), bad)), options());
    for id in [5, 6] {
        accept(&store, &queue, id, &[errand("b@c.d", at(0))], at(0)).await;
    }
    let claims = claim_all(&queue, at(0)).await;
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].message.id, QueueId(6));
    assert!(queue.due(at(0), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn limits_leave_the_batch_alone() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    let mut message = accept(&store, &queue, 5, &[], at(0)).await;
    let many = vec![errand("b@c.d", at(0)); queue::ERRANDS_PER_MESSAGE_MAX + 1];
    let mut batch = Batch::new();
    assert!(matches!(
        queue.accept(&mut batch, &message, &many),
        Err(Error::Limit { .. })
    ));
    message.prefix = vec![0; queue::PREFIX_OCTETS_MAX + 1];
    assert!(matches!(
        queue.accept(&mut batch, &message, &many[..1]),
        Err(Error::Limit { .. })
    ));
    assert!(batch.is_empty());
}

/// Every reader lets the others go ahead between its snapshot and its commit.
struct Yielding(Arc<MemoryStore>);

impl Tables for Yielding {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        self.0.commit(batch)
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, ReadError>> {
        Box::pin(async {
            let snapshot = self.0.snapshot().await;
            tokio::task::yield_now().await;
            snapshot
        })
    }

    fn watch(&self, topic: &Topic) -> Watch {
        self.0.watch(topic)
    }
}

impl Blobs for Yielding {
    fn stage(&self, len_hint: u64) -> BoxFuture<'_, Result<Box<dyn BlobWriter>, BlobError>> {
        self.0.stage(len_hint)
    }

    fn read(&self, id: BlobId, range: Range<u64>) -> BoxFuture<'_, Result<bytes::Bytes, BlobError>> {
        self.0.read(id, range)
    }
}

#[tokio::test]
async fn errands_that_end_at_the_same_moment_take_the_message_once() {
    let store = MemoryStore::new();
    let queue = Queue::new(Arc::new(Yielding(store.clone())), options());
    let three = [
        errand("b@c.d", at(0)),
        errand("e@f.g", at(0)),
        errand("h@i.j", at(0)),
    ];
    accept(&store, &queue, 5, &three, at(0)).await;
    let claims = claim_all(&queue, at(0)).await;
    let done = Outcome::Relayed(last(at(1)));
    let (a, b, c) = tokio::join!(
        queue.settle_now(&claims[0], &done, &nothing),
        queue.settle_now(&claims[1], &done, &nothing),
        queue.settle_now(&claims[2], &done, &nothing),
    );
    let ends = [a.unwrap(), b.unwrap(), c.unwrap()];
    assert_eq!(ends.iter().filter(|s| **s == Settled::MessageGoes).count(), 1);
    empty(&store).await;
}

#[tokio::test]
async fn two_claimers_share_nothing() {
    let store = MemoryStore::new();
    let queue = Queue::new(Arc::new(Yielding(store.clone())), options());
    let many: Vec<NewErrand> = (0..20).map(|n| errand(&format!("u{n}@c.d"), at(0))).collect();
    accept(&store, &queue, 5, &many, at(0)).await;
    let due = queue.due(at(0), 100).await.unwrap();
    let (a, b) = tokio::join!(queue.claim(&due[..15], at(0)), queue.claim(&due[5..], at(0)));
    let mut numbers: Vec<u32> = a
        .unwrap()
        .iter()
        .chain(&b.unwrap())
        .map(|c| c.errand.no)
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
}

#[derive(Clone, Debug)]
enum Op {
    Accept { errands: Vec<u64> },
    Work { limit: usize, outcomes: Vec<u8> },
    Forget { limit: usize },
    Retry { which: usize },
    Drop { which: usize },
    Order { which: usize, order: Order },
    SendBack { which: usize },
    Recover,
    Pass { secs: u64 },
}

fn order() -> impl Strategy<Value = Order> {
    let via = queue::Via {
        host: "mx.example.net".into(),
        port: 2525,
    };
    prop_oneof![
        Just(Order::Retry),
        Just(Order::Hold { by: "ann".into() }),
        Just(Order::Release),
        Just(Order::Reroute { via: Some(via) }),
        Just(Order::Reroute { via: None }),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => proptest::collection::vec(0u64..300, 0..4).prop_map(|errands| Op::Accept { errands }),
        5 => (1usize..5, proptest::collection::vec(0u8..6, 5)).prop_map(|(limit, outcomes)| Op::Work { limit, outcomes }),
        1 => (1usize..3).prop_map(|limit| Op::Forget { limit }),
        1 => (0usize..10).prop_map(|which| Op::Retry { which }),
        1 => (0usize..10).prop_map(|which| Op::Drop { which }),
        2 => (0usize..10, order()).prop_map(|(which, order)| Op::Order { which, order }),
        1 => (0usize..10).prop_map(|which| Op::SendBack { which }),
        1 => Just(Op::Recover),
        4 => (1u64..200).prop_map(|secs| Op::Pass { secs }),
    ];
    proptest::collection::vec(op, 1..60)
}

#[derive(Default)]
struct Ledger {
    /// Open errands of each message.
    open: BTreeMap<u64, BTreeSet<u32>>,
    ended: usize,
    accepted: usize,
    next_id: u64,
}

impl Ledger {
    fn ended(&mut self, id: u64, no: u32) -> Settled {
        let errands = self
            .open
            .get_mut(&id)
            .expect("a message that ended does not end again");
        assert!(errands.remove(&no), "an errand ends once");
        self.ended += 1;
        if errands.is_empty() {
            self.open.remove(&id);
            return Settled::MessageGoes;
        }
        Settled::MessageStays
    }

    fn pick(&self, which: usize) -> Option<u64> {
        self.open.keys().nth(which % self.open.len().max(1)).copied()
    }
}

async fn work(queue: &Queue, ledger: &mut Ledger, now: Timestamp, limit: usize, outcomes: &[u8]) {
    let due = queue.due(now, limit).await.unwrap();
    assert!(
        due.windows(2).all(|w| w[0].at <= w[1].at),
        "the longest due first"
    );
    assert!(due.iter().all(|d| d.at <= now));
    let claims = queue.claim(&due, now).await.unwrap();
    assert_eq!(claims.len(), due.len(), "what is due can be claimed");
    for (claim, outcome) in claims.iter().zip(outcomes.iter().cycle()) {
        let (id, no) = (claim.errand.message.0, claim.errand.no);
        let outcome = match outcome {
            0 => Outcome::Delivered(last(now)),
            1 => Outcome::Relayed(last(now)),
            2 => Outcome::Bounced(last(now)),
            3 => Outcome::Expired(last(now)),
            4 => {
                queue
                    .release(claim, now.plus(Duration::from_secs(7)))
                    .await
                    .unwrap();
                continue;
            }
            _ => Outcome::Deferred {
                next: now.plus(Duration::from_secs(50)),
                last: last(now),
                delay_told: false,
                deadline_told: false,
            },
        };
        let settled = queue.settle_now(claim, &outcome, &nothing).await.unwrap();
        if matches!(outcome, Outcome::Deferred { .. }) {
            assert_eq!(settled, Settled::MessageStays);
        } else {
            assert_eq!(settled, ledger.ended(id, no));
        }
    }
}

async fn check(store: &MemoryStore, queue: &Queue, ledger: &Ledger, now: Timestamp) {
    let stats = queue.stats().await.unwrap();
    assert_eq!(stats.messages, ledger.open.len() as u64);
    let open: usize = ledger.open.values().map(BTreeSet::len).sum();
    assert_eq!(stats.errands, open as u64);
    assert_eq!(ledger.accepted, ledger.ended + open);
    let mut listed = BTreeMap::new();
    for l in queue.list(&Filter::default(), 1000).await.unwrap() {
        let open: BTreeSet<u32> = l
            .errands
            .iter()
            .filter(|e| e.state.is_open())
            .map(|e| e.no)
            .collect();
        listed.insert(l.message.id.0, open);
    }
    assert_eq!(listed, ledger.open);
    let kept = queue.ledger().await.unwrap();
    assert_eq!(kept.queued, ledger.accepted as i64);
    assert_eq!(kept.accounted_for(), kept.accepted(), "{kept:?}");
    assert_eq!(kept.accepted() - kept.in_flight, ledger.ended as i64);
    let mut found = Vec::new();
    let snapshot = store.snapshot().await.unwrap();
    let audited = queue::audit(snapshot.as_ref(), queue.options(), now, &mut |f| found.push(f)).await;
    assert_eq!(audited.unwrap().open, open as u64);
    // Late is not wrong: nobody works here but when the test says so.
    found.retain(|f| f.code != "errand-overdue" && f.code != "errand-too-old");
    assert_eq!(found, []);
}

#[tokio::test]
async fn the_ledger_tells_the_ends_apart() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    queue.recover(at(0)).await.unwrap();
    for id in 1..=6 {
        accept(&store, &queue, id, &[errand("b@c.d", at(0))], at(0)).await;
    }
    let mut batch = Batch::new();
    queue.settled_at_once(&mut batch, 3);
    store.commit(batch).await.unwrap();
    let claims = claim_all(&queue, at(1)).await;
    let outcomes = [
        Outcome::Delivered(last(at(1))),
        Outcome::Relayed(last(at(1))),
        Outcome::Bounced(last(at(1))),
        Outcome::Expired(last(at(1))),
    ];
    for (claim, outcome) in claims.iter().zip(&outcomes) {
        queue.settle_now(claim, outcome, &nothing).await.unwrap();
    }
    queue.drop(QueueId(6), "a rule", at(2), &|_, _| {}).await.unwrap();
    let kept = queue.ledger().await.unwrap();
    let expected = queue::Ledger {
        since: Some(at(0)),
        carried: 0,
        at_once: 3,
        queued: 6,
        delivered: 1,
        relayed: 1,
        bounced: 1,
        expired: 1,
        dropped: BTreeMap::from([("a rule".to_owned(), 1)]),
        in_flight: 1,
    };
    assert_eq!(kept, expected);
    assert_eq!((kept.accepted(), kept.accounted_for()), (9, 9));
}

#[tokio::test]
async fn a_ledger_that_begins_late_takes_over_what_is_queued() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), options());
    accept(
        &store,
        &queue,
        1,
        &[errand("b@c.d", at(0)), errand("e@c.d", at(0))],
        at(0),
    )
    .await;
    // As a version without a ledger left it.
    let mut batch = Batch::new();
    batch.delete(Key::table(0x36).u8(2));
    store.commit(batch).await.unwrap();
    queue.recover(at(5)).await.unwrap();
    queue.recover(at(6)).await.unwrap();
    let kept = queue.ledger().await.unwrap();
    assert_eq!((kept.since, kept.carried, kept.in_flight), (Some(at(5)), 2, 2));
    assert_eq!(kept.accounted_for(), kept.accepted());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_errand_ends_exactly_once(ops in ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = MemoryStore::new();
            let queue = Queue::new(store.clone(), options());
            let mut ledger = Ledger::default();
            let mut now = START;
            for op in ops {
                match op {
                    Op::Accept { errands } => {
                        ledger.next_id += 1;
                        let new: Vec<NewErrand> =
                            errands.iter().map(|s| errand("b@c.d", now.plus(Duration::from_secs(*s)))).collect();
                        accept(&store, &queue, ledger.next_id, &new, now).await;
                        ledger.accepted += new.len();
                        if !new.is_empty() {
                            ledger.open.insert(ledger.next_id, (0..new.len() as u32).collect());
                        }
                    }
                    Op::Work { limit, outcomes } => work(&queue, &mut ledger, now, limit, &outcomes).await,
                    Op::Forget { limit } => {
                        let due = queue.due(now, limit).await.unwrap();
                        queue.claim(&due, now).await.unwrap();
                    }
                    Op::Retry { which } => {
                        if let Some(id) = ledger.pick(which) {
                            queue.retry(QueueId(id), now, &nothing).await.unwrap();
                        }
                    }
                    Op::Drop { which } => {
                        if let Some(id) = ledger.pick(which) {
                            for e in queue.drop(QueueId(id), "admin", now, &|_, _| {}).await.unwrap() {
                                ledger.ended(id, e.no);
                            }
                        }
                    }
                    Op::Order { which, order } => {
                        if let Some(id) = ledger.pick(which) {
                            let filter = Filter::of(QueueId(id));
                            let step = queue.order_step(walk(&filter, None, now), &order, &nothing_of);
                            step.await.unwrap();
                        }
                    }
                    Op::SendBack { which } => {
                        if let Some(id) = ledger.pick(which) {
                            for e in send_back(&store, &queue, id, now).await {
                                ledger.ended(id, e.no);
                            }
                        }
                    }
                    Op::Recover => drop(queue.recover(now).await.unwrap()),
                    Op::Pass { secs } => now = now.plus(Duration::from_secs(secs)),
                }
                check(&store, &queue, &ledger, now).await;
            }
            // In the end everything comes due and is done: nothing was lost on the way.
            let everything = Filter::default();
            let release = queue.order_step(walk(&everything, None, now), &Order::Release, &nothing_of);
            release.await.unwrap();
            while let Some(next) = queue.next_due().await.unwrap() {
                now = now.max(next);
                work(&queue, &mut ledger, now, 100, &[1]).await;
            }
            assert_eq!((ledger.open.len(), ledger.ended), (0, ledger.accepted));
            empty(&store).await;
        });
    }
}
