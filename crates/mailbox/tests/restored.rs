//! After a restore: messages keep their numbers, new ones get numbers that nobody saw.
#![allow(clippy::unwrap_used)]

use mail::{AccountId, Timestamp, Uid};
use mailbox::{Delivery, Flags, LEAP, Mailboxes, Role};
use store::memory::MemoryStore;
use store::{Batch, Tables as _};

#[tokio::test]
async fn numbers_leap_and_messages_stay() {
    let (account, now) = (AccountId(1), Timestamp::from_secs(1_800_000_000));
    let store = MemoryStore::new();
    let boxes = Mailboxes::new(store.clone());
    let mut batch = Batch::new();
    boxes.create_defaults(&mut batch, account, now);
    store.commit(batch).await.unwrap();
    let inbox = boxes.find(account, Role::Inbox).await.unwrap().unwrap().place();
    let add = || async {
        use store::Blobs as _;
        let staged = store.stage(0).await.unwrap().finish().await.unwrap();
        let delivery = Delivery {
            blob: staged.id,
            blob_len: staged.len,
            prefix: Vec::new(),
            internal_date: now,
            flags: Flags::SEEN,
            keywords: Vec::new(),
            queue_id: None,
        };
        boxes.append(inbox, staged, delivery).await.unwrap().uid
    };
    add().await;
    let seen = boxes.status(inbox).await.unwrap();
    let before = boxes.entries(inbox, Uid(0), 10).await.unwrap();
    assert_eq!(boxes.leap_ahead().await.unwrap(), Role::ALL.len() as u64);
    assert_eq!(boxes.entries(inbox, Uid(0), 10).await.unwrap(), before);
    let after = boxes.status(inbox).await.unwrap();
    assert_eq!(after.uid_validity, seen.uid_validity);
    assert_eq!(after.uid_next, Uid(seen.uid_next.0 + LEAP));
    assert_eq!(after.highest_modseq.0, seen.highest_modseq.0 + u64::from(LEAP));
    assert_eq!(add().await, after.uid_next);
    // A client from the lost time must compare; one that knows the leap need not.
    let lost = mail::ModSeq(seen.highest_modseq.0 + 7);
    assert!(!boxes.changes_since(inbox, lost, 10).await.unwrap().complete);
    let current = boxes.status(inbox).await.unwrap().highest_modseq;
    assert!(boxes.changes_since(inbox, current, 10).await.unwrap().complete);
}
