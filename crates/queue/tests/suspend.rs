//! Suspended destinations and senders: what is put back, what is not, and how much is counted.
#![allow(clippy::unwrap_used)]

use mail::{Domain, EmailAddress, EnhancedStatus, QueueId, ReversePath, Timestamp};
use queue::{
    Body, Errand, Error, LastOutcome, Message, NewErrand, Options, Outcome, PUT_BACK_FOR, Queue,
    SUSPENSIONS_MAX, SenderIs, Suspended, Suspension,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::memory::MemoryStore;
use store::{Batch, Blobs, Tables};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn at(secs: u64) -> Timestamp {
    START.plus(Duration::from_secs(secs))
}

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).unwrap()
}

async fn accept(store: &MemoryStore, queue: &Queue, id: u64, from: &str, to: &[&str]) {
    let mut writer = store.stage(5).await.unwrap();
    writer.write(b"hello").await.unwrap();
    let staged = writer.finish().await.unwrap();
    let message = Message {
        id: QueueId(id),
        reverse_path: ReversePath::Address(address(from)),
        blob: staged.id,
        blob_len: staged.len,
        prefix: Vec::new(),
        received_at: at(0),
        message_id: None,
        login: Some("alice".into()),
        body: Body::SevenBit,
        smtputf8: false,
        envid: None,
        ret: None,
        require_tls: false,
        deliver_by: None,
        priority: mail::delivery::Priority::NORMAL,
    };
    let errands: Vec<NewErrand> = to.iter().map(|to| NewErrand::to(address(to), at(0))).collect();
    let mut batch = Batch::new();
    queue.accept(&mut batch, &message, &errands).unwrap();
    batch.blob(staged);
    store.commit(batch).await.unwrap();
}

fn suspension(what: &str, until: Option<Timestamp>) -> Suspension {
    Suspension {
        what: match what.contains(['@', ':', '<']) {
            true => Suspended::Sender(SenderIs::parse(what).unwrap()),
            false => Suspended::Destination(Domain::parse(what).unwrap()),
        },
        since: at(0),
        until,
        by: "ann".into(),
        why: None,
    }
}

/// Puts back what is due and suspended. Answers the rest, and what was told of.
async fn put_back(queue: &Queue, now: Timestamp) -> (Vec<(u64, u32)>, Vec<(u64, usize)>) {
    let told = Mutex::new(Vec::new());
    let add = |_: &mut Batch, id: QueueId, errands: &[Errand], _: &Suspension| {
        told.lock().unwrap().push((id.0, errands.len()));
    };
    let due = queue.due(now, 1_000).await.unwrap();
    let rest = queue.put_back(due, now, &add).await.unwrap();
    let rest = rest.iter().map(|due| (due.message.0, due.no)).collect();
    (rest, told.into_inner().unwrap())
}

async fn is_sound(store: &Arc<MemoryStore>, queue: &Queue, now: Timestamp) {
    let mut found = Vec::new();
    let snapshot = store.snapshot().await.unwrap();
    let audited = queue::audit(snapshot.as_ref(), queue.options(), now, &mut |f| found.push(f)).await;
    audited.unwrap();
    assert_eq!(found, []);
}

#[tokio::test]
async fn what_is_suspended_is_put_back_and_told_once() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), Options::default());
    accept(
        &store,
        &queue,
        1,
        "a@gmail.com",
        &["x@slow.example", "y@slow.example", "z@well.example"],
    )
    .await;
    accept(&store, &queue, 2, "spam@gmail.com", &["x@well.example"]).await;
    assert_eq!(put_back(&queue, at(0)).await.0.len(), 4, "nothing is suspended");
    for what in ["slow.example", "spam@gmail.com"] {
        queue.suspend(&suspension(what, None)).await.unwrap();
    }
    let (rest, told) = put_back(&queue, at(1)).await;
    assert_eq!(rest, [(1, 2)]);
    assert_eq!(told, [(1, 2), (2, 1)]);
    assert_eq!(queue.due(at(1), 10).await.unwrap().len(), 1);
    is_sound(&store, &queue, at(1)).await;
    let again = at(1).plus(PUT_BACK_FOR);
    let (rest, told) = put_back(&queue, again).await;
    assert_eq!(
        (rest.len(), told.len()),
        (1, 0),
        "looked at again, and not told again"
    );
    // A clone that was made before sees it; so does one that reads the store anew.
    let other = Queue::new(store.clone(), Options::default());
    assert_eq!(other.suspensions().await.unwrap().len(), 2);
    assert!(
        queue
            .resume(&suspension("slow.example", None).what)
            .await
            .unwrap()
    );
    let (rest, _) = put_back(&queue, again.plus(PUT_BACK_FOR)).await;
    assert_eq!(rest.len(), 3);
    let shown = queue.show(QueueId(2)).await.unwrap().unwrap();
    assert!(shown.errands[0].suspended);
    let counted = queue.count(&|_| String::new(), 10, at(2)).await.unwrap();
    assert_eq!(
        (counted.looked_at, counted.suspended, counted.is_sample),
        (4, 3, false)
    );
}

#[tokio::test]
async fn a_lapsed_lease_is_put_back_with_its_epoch() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), Options::default());
    accept(&store, &queue, 1, "a@gmail.com", &["x@slow.example"]).await;
    let due = queue.due(at(0), 1).await.unwrap();
    let claim = queue.claim(&due, at(0)).await.unwrap().remove(0);
    queue
        .suspend(&suspension("slow.example", Some(at(9_000))))
        .await
        .unwrap();
    let (rest, told) = put_back(&queue, at(1_900)).await;
    assert_eq!((rest.len(), told), (0, vec![(1, 1)]));
    is_sound(&store, &queue, at(1_900)).await;
    let done = Outcome::Relayed(LastOutcome {
        at: at(1_901),
        host: None,
        reply: "250 2.0.0 ok".into(),
        status: Some(EnhancedStatus::new(2, 0, 0)),
        class: None,
    });
    let late = queue.settle_now(&claim, &done, &|_| {}).await;
    assert_eq!(late, Err(Error::ClaimLost));
    // It ends by itself, to the moment.
    assert_eq!(queue.next_due().await.unwrap(), Some(at(9_000)));
    assert_eq!(put_back(&queue, at(9_000)).await.0, [(1, 0)]);
    let due = queue.due(at(9_000), 1).await.unwrap();
    let claim = queue.claim(&due, at(9_000)).await.unwrap().remove(0);
    queue.settle_now(&claim, &done, &|_| {}).await.unwrap();
}

#[tokio::test]
async fn there_are_only_so_many() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), Options::default());
    for n in 0..SUSPENSIONS_MAX {
        let until = (n == 7).then_some(at(10));
        let what = format!("d{n}.example");
        queue.suspend(&suspension(&what, until)).await.unwrap();
    }
    let one_more = suspension("login:bob", None);
    assert!(matches!(queue.suspend(&one_more).await, Err(Error::Limit { .. })));
    // One that is over makes room.
    let later = Suspension {
        since: at(11),
        ..one_more
    };
    queue.suspend(&later).await.unwrap();
    assert_eq!(queue.suspensions().await.unwrap().len(), SUSPENSIONS_MAX);
}

#[tokio::test]
async fn a_long_queue_is_sampled_and_says_so() {
    let store = MemoryStore::new();
    let queue = Queue::new(store.clone(), Options::default());
    let many: Vec<String> = (0..4_200).map(|n| format!("u{n}@d{}.example", n % 4)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for id in 1..=5 {
        accept(&store, &queue, id * 1_000_000, "a@gmail.com", &many).await;
    }
    let counted = queue.count(&|_| String::new(), 3, at(0)).await.unwrap();
    assert!(counted.is_sample);
    assert!(counted.looked_at <= queue::LOOKED_AT_MAX as u64);
    assert!(counted.looked_at > 1_000, "{}", counted.looked_at);
    assert_eq!(counted.stats.errands, 21_000, "a counter");
    assert_eq!(counted.destinations.len(), 3, "the largest");
    assert_eq!((counted.due_now, counted.and_more), (10_000, true));
    assert_eq!(counted.oldest, Some(at(0)));
}
