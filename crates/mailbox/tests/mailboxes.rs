//! Names, roles, subscriptions, reading, recency and races, one behaviour a test.
#![allow(clippy::unwrap_used)]

use mail::{AccountId, ModSeq, QueueId, Timestamp, Uid};
use mailbox::{
    Delivery, Entry, Error, ExpungeWhich, FlagChange, FlagOp, Flags, Keyword, Mailboxes, Place, Role,
};
use std::ops::Range;
use std::sync::Arc;
use store::memory::MemoryStore;
use store::{
    Batch, BlobError, BlobId, BlobWriter, Blobs, BoxFuture, CommitError, ReadError, Receipt, Snapshot,
    StagedBlob, Tables, Topic, Watch,
};

const ACCOUNT: AccountId = AccountId(1);
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

async fn fresh() -> (Arc<MemoryStore>, Mailboxes) {
    let store = MemoryStore::new();
    let boxes = Mailboxes::new(store.clone());
    let mut batch = Batch::new();
    boxes.create_defaults(&mut batch, ACCOUNT, NOW);
    store.commit(batch).await.unwrap();
    (store, boxes)
}

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

async fn stage(store: &MemoryStore, text: &str) -> StagedBlob {
    let mut writer = store.stage(text.len() as u64).await.unwrap();
    writer.write(text.as_bytes()).await.unwrap();
    writer.finish().await.unwrap()
}

fn delivery(staged: &StagedBlob) -> Delivery {
    Delivery {
        blob: staged.id,
        blob_len: staged.len,
        prefix: b"Return-Path: <a@example.net>\r\n".to_vec(),
        flags: Flags::NONE,
        keywords: Vec::new(),
        internal_date: NOW,
        queue_id: Some(QueueId(9)),
    }
}

async fn append(store: &MemoryStore, boxes: &Mailboxes, place: Place, text: &str) -> Uid {
    let staged = stage(store, text).await;
    let delivery = delivery(&staged);
    boxes.append(place, staged, delivery).await.unwrap().uid
}

async fn names(boxes: &Mailboxes) -> Vec<String> {
    boxes
        .list(ACCOUNT)
        .await
        .unwrap()
        .into_iter()
        .map(|m| m.name)
        .collect()
}

async fn inbox(boxes: &Mailboxes) -> Place {
    boxes.find(ACCOUNT, Role::Inbox).await.unwrap().unwrap().place()
}

#[tokio::test]
async fn defaults_once() {
    let (store, boxes) = fresh().await;
    assert_eq!(
        names(&boxes).await,
        ["INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"]
    );
    for role in Role::ALL {
        let found = boxes.find(ACCOUNT, role).await.unwrap().unwrap();
        assert_eq!(
            (found.name.as_str(), found.role),
            (role.default_name(), Some(role))
        );
        assert_eq!(boxes.by_id(ACCOUNT, found.id).await.unwrap(), Some(found));
    }
    let mut again = Batch::new();
    boxes.create_defaults(&mut again, ACCOUNT, NOW);
    assert!(matches!(
        store.commit(again).await,
        Err(CommitError::Conflict { .. })
    ));
    assert_eq!(
        boxes.list(AccountId(2)).await.unwrap(),
        [],
        "another account has none"
    );
    let status = boxes.status(inbox(&boxes).await).await.unwrap();
    assert_eq!((status.uid_next, status.highest_modseq), (Uid(1), ModSeq(1)));
}

#[tokio::test]
async fn create_makes_superiors_and_refuses_doubles() {
    let (_, boxes) = fresh().await;
    let made = boxes.create(ACCOUNT, "Work/2027/Taxes/", NOW).await.unwrap();
    assert_eq!(made.name, "Work/2027/Taxes");
    let all = names(&boxes).await;
    assert!(
        ["Work", "Work/2027", "Work/2027/Taxes"]
            .iter()
            .all(|n| all.contains(&(*n).to_owned()))
    );
    assert_eq!(boxes.create(ACCOUNT, "Work", NOW).await, Err(Error::Exists));
    assert_eq!(boxes.create(ACCOUNT, "inbox", NOW).await, Err(Error::Exists));
    assert!(matches!(
        boxes.create(ACCOUNT, "a//b", NOW).await,
        Err(Error::BadName(_))
    ));
}

#[tokio::test]
async fn a_name_made_again_has_a_higher_uidvalidity() {
    let (_, boxes) = fresh().await;
    let first = boxes.create(ACCOUNT, "x", NOW).await.unwrap();
    boxes.delete(ACCOUNT, "x").await.unwrap();
    let second = boxes.create(ACCOUNT, "x", NOW).await.unwrap();
    assert!(second.uid_validity > first.uid_validity, "even within one second");
    assert_ne!(first.id, second.id);
}

#[tokio::test]
async fn delete_takes_messages_and_leaves_inferiors() {
    let (store, boxes) = fresh().await;
    let parent = boxes.create(ACCOUNT, "p", NOW).await.unwrap();
    boxes.create(ACCOUNT, "p/child", NOW).await.unwrap();
    let staged = stage(&store, "hello").await;
    let blob = staged.id;
    let delivery = delivery(&staged);
    boxes
        .append(parent.place(), staged, delivery.clone())
        .await
        .unwrap();
    boxes.delete(ACCOUNT, "p").await.unwrap();
    assert_eq!(boxes.by_name(ACCOUNT, "p").await.unwrap(), None);
    assert!(boxes.by_name(ACCOUNT, "p/child").await.unwrap().is_some());
    assert_eq!(boxes.usage(ACCOUNT).await.unwrap(), 0);
    assert!(
        store.read(blob, 0..5).await.is_err(),
        "nobody refers to the bytes any more"
    );
    assert_eq!(boxes.delete(ACCOUNT, "p").await, Err(Error::NoSuchMailbox));
    assert!(matches!(
        boxes.delete(ACCOUNT, "Inbox").await,
        Err(Error::Forbidden(_))
    ));
    // A delivery that was on its way there does not vanish: it conflicts.
    let mut batch = Batch::new();
    let late = stage(&store, "late").await;
    boxes
        .deliver(
            &mut batch,
            parent.place(),
            Delivery {
                blob: late.id,
                ..delivery
            },
        )
        .unwrap();
    batch.blob(late);
    assert!(matches!(
        store.commit(batch).await,
        Err(CommitError::Conflict { .. })
    ));
}

#[tokio::test]
async fn rename_takes_inferiors_along() {
    let (store, boxes) = fresh().await;
    boxes.create(ACCOUNT, "a/b/c", NOW).await.unwrap();
    let ab = boxes.by_name(ACCOUNT, "a/b").await.unwrap().unwrap();
    let uid = append(&store, &boxes, ab.place(), "m").await;
    boxes.create(ACCOUNT, "taken", NOW).await.unwrap();
    assert_eq!(boxes.rename(ACCOUNT, "a", "taken", NOW).await, Err(Error::Exists));
    assert_eq!(
        boxes.rename(ACCOUNT, "nothing", "n", NOW).await,
        Err(Error::NoSuchMailbox)
    );
    assert!(matches!(
        boxes.rename(ACCOUNT, "a", "a/x", NOW).await,
        Err(Error::Forbidden(_))
    ));
    boxes.rename(ACCOUNT, "a", "new/z", NOW).await.unwrap();
    let all = names(&boxes).await;
    for name in ["new", "new/z", "new/z/b", "new/z/b/c"] {
        assert!(all.contains(&name.to_owned()), "{name}");
    }
    assert!(!all.iter().any(|n| n == "a" || n.starts_with("a/")));
    let renamed = boxes.by_name(ACCOUNT, "new/z/b").await.unwrap().unwrap();
    assert_eq!((renamed.id, renamed.uid_validity), (ab.id, ab.uid_validity));
    assert!(boxes.entry(renamed.place(), uid).await.unwrap().is_some());
}

#[tokio::test]
async fn rename_refuses_when_an_inferior_name_is_taken() {
    let (_, boxes) = fresh().await;
    boxes.create(ACCOUNT, "a/x", NOW).await.unwrap();
    boxes.create(ACCOUNT, "b/x", NOW).await.unwrap();
    boxes.delete(ACCOUNT, "b").await.unwrap();
    assert_eq!(boxes.rename(ACCOUNT, "a", "b", NOW).await, Err(Error::Exists));
}

#[tokio::test]
async fn rename_of_inbox_leaves_an_empty_one() {
    let (store, boxes) = fresh().await;
    let before = boxes.find(ACCOUNT, Role::Inbox).await.unwrap().unwrap();
    boxes.create(ACCOUNT, "INBOX/inferior", NOW).await.unwrap();
    append(&store, &boxes, before.place(), "m").await;
    boxes.rename(ACCOUNT, "inbox", "old-mail", NOW).await.unwrap();
    let old = boxes.by_name(ACCOUNT, "old-mail").await.unwrap().unwrap();
    let new = boxes.find(ACCOUNT, Role::Inbox).await.unwrap().unwrap();
    assert_eq!(boxes.status(old.place()).await.unwrap().messages, 1);
    assert_eq!(boxes.status(new.place()).await.unwrap().messages, 0);
    assert_eq!((old.id, old.role), (before.id, None));
    assert_eq!(new.name, "INBOX");
    assert!(new.uid_validity > before.uid_validity);
    assert!(boxes.by_name(ACCOUNT, "INBOX/inferior").await.unwrap().is_some());
}

#[tokio::test]
async fn roles_follow_and_come_back() {
    let (_, boxes) = fresh().await;
    boxes.rename(ACCOUNT, "Junk", "Spam", NOW).await.unwrap();
    assert_eq!(
        boxes.find(ACCOUNT, Role::Junk).await.unwrap().unwrap().name,
        "Spam"
    );
    boxes.delete(ACCOUNT, "Spam").await.unwrap();
    assert_eq!(boxes.find(ACCOUNT, Role::Junk).await.unwrap(), None);
    boxes.create(ACCOUNT, "Junk", NOW).await.unwrap();
    let adopted = boxes.find_or_create(ACCOUNT, Role::Junk, NOW).await.unwrap();
    assert_eq!((adopted.name.as_str(), adopted.role), ("Junk", Some(Role::Junk)));
    // An account that has nothing yet gets what is asked for.
    let made = boxes
        .find_or_create(AccountId(5), Role::Inbox, NOW)
        .await
        .unwrap();
    assert_eq!(made.name, "INBOX");
    // Its usual name is taken by another role.
    boxes.delete(ACCOUNT, "Sent").await.unwrap();
    boxes.rename(ACCOUNT, "Drafts", "Sent", NOW).await.unwrap();
    assert_eq!(
        boxes.find_or_create(ACCOUNT, Role::Sent, NOW).await.unwrap().name,
        "Sent 2"
    );
}

#[tokio::test]
async fn subscriptions_are_to_names() {
    let (_, boxes) = fresh().await;
    // A new account's own mailboxes are subscribed; most of them are put away here.
    for role in [Role::Inbox, Role::Drafts, Role::Junk, Role::Trash, Role::Archive] {
        boxes.unsubscribe(ACCOUNT, role.default_name()).await.unwrap();
    }
    assert_eq!(boxes.subscriptions(ACCOUNT).await.unwrap(), ["Sent"]);
    boxes.subscribe(ACCOUNT, "inbox").await.unwrap();
    boxes.subscribe(ACCOUNT, "not/there").await.unwrap();
    boxes.subscribe(ACCOUNT, "Sent").await.unwrap();
    boxes.delete(ACCOUNT, "Sent").await.unwrap();
    assert_eq!(
        boxes.subscriptions(ACCOUNT).await.unwrap(),
        ["INBOX", "Sent", "not/there"]
    );
    boxes.unsubscribe(ACCOUNT, "Sent").await.unwrap();
    boxes.unsubscribe(ACCOUNT, "Sent").await.unwrap();
    assert_eq!(
        boxes.subscriptions(ACCOUNT).await.unwrap(),
        ["INBOX", "not/there"]
    );
}

#[tokio::test]
async fn read_joins_prefix_and_blob() {
    let (store, boxes) = fresh().await;
    let place = inbox(&boxes).await;
    let uid = append(&store, &boxes, place, "Subject: hi\r\n\r\nbody").await;
    let entry = boxes.entry(place, uid).await.unwrap().unwrap();
    let whole = b"Return-Path: <a@example.net>\r\nSubject: hi\r\n\r\nbody";
    assert_eq!(entry.size(), whole.len() as u64);
    for start in 0..=whole.len() + 2 {
        for end in start..=whole.len() + 2 {
            let got = boxes.read(&entry, start as u64..end as u64).await.unwrap();
            let cut = |n: usize| n.min(whole.len());
            assert_eq!(&got[..], &whole[cut(start)..cut(end)]);
        }
    }
    assert_eq!(&boxes.read(&entry, 0..u64::MAX).await.unwrap()[..], whole);
}

#[tokio::test]
async fn recent_is_told_once() {
    let (store, boxes) = fresh().await;
    let place = inbox(&boxes).await;
    assert!(boxes.claim_recent(place).await.unwrap().is_empty());
    append(&store, &boxes, place, "1").await;
    append(&store, &boxes, place, "2").await;
    assert_eq!(boxes.status(place).await.unwrap().first_recent, Uid(1));
    assert_eq!(boxes.claim_recent(place).await.unwrap(), Uid(1)..Uid(3));
    assert!(boxes.claim_recent(place).await.unwrap().is_empty());
    append(&store, &boxes, place, "3").await;
    assert_eq!(boxes.claim_recent(place).await.unwrap(), Uid(3)..Uid(4));
}

#[tokio::test]
async fn fetched_is_marked_once_and_flags_survive() {
    let (store, boxes) = fresh().await;
    let place = inbox(&boxes).await;
    let uid = append(&store, &boxes, place, "m").await;
    let entry = boxes.entry(place, uid).await.unwrap().unwrap();
    let mut first = Batch::new();
    boxes.mark_fetched(&mut first, place, &entry);
    let mut second = Batch::new();
    boxes.mark_fetched(&mut second, place, &entry);
    store.commit(first).await.unwrap();
    assert!(matches!(
        store.commit(second).await,
        Err(CommitError::Conflict { .. })
    ));
    let now = boxes.entry(place, uid).await.unwrap().unwrap();
    assert!(now.fetched);
    assert_eq!(
        Entry {
            fetched: false,
            version: entry.version,
            ..now.clone()
        },
        entry
    );
    assert_eq!(
        &boxes.read(&now, 30..99).await.unwrap()[..],
        b"m",
        "the bytes are still referred to"
    );
}

#[tokio::test]
async fn unchanged_since_spares() {
    let (store, boxes) = fresh().await;
    let place = inbox(&boxes).await;
    let one = append(&store, &boxes, place, "1").await;
    let two = append(&store, &boxes, place, "2").await;
    let change = |unchanged_since| FlagChange {
        op: FlagOp::Add,
        flags: Flags::FLAGGED,
        keywords: vec![Keyword::parse("$Work").unwrap(), Keyword::parse("$WORK").unwrap()],
        unchanged_since,
    };
    let known = boxes.status(place).await.unwrap().highest_modseq;
    let done = boxes.store_flags(place, &[two], &change(None)).await.unwrap();
    assert_eq!(
        done.entries[0].keywords.len(),
        1,
        "keywords are compared without case"
    );
    let done = boxes
        .store_flags(place, &[two, one, one, Uid(99)], &change(Some(known)))
        .await
        .unwrap();
    assert_eq!(done.spared, [two]);
    assert_eq!(done.entries.iter().map(|e| e.uid).collect::<Vec<_>>(), [one]);
    let again = boxes.store_flags(place, &[one], &change(None)).await.unwrap();
    assert_eq!(
        again.entries[0].modseq, done.entries[0].modseq,
        "nothing changed, so the modseq stays"
    );
}

#[tokio::test]
async fn limits_are_errors() {
    let (store, boxes) = fresh().await;
    let place = inbox(&boxes).await;
    let staged = stage(&store, "x").await;
    let long = Delivery {
        prefix: vec![b'x'; mailbox::PREFIX_OCTETS_MAX + 1],
        ..delivery(&staged)
    };
    let mut batch = Batch::new();
    assert!(matches!(
        boxes.deliver(&mut batch, place, long),
        Err(Error::Limit { .. })
    ));
    assert!(batch.is_empty());
    let many = (0..=mailbox::KEYWORDS_PER_MESSAGE_MAX).map(|n| Keyword::parse(&format!("k{n}")).unwrap());
    let many = Delivery {
        keywords: many.collect(),
        ..delivery(&staged)
    };
    assert!(matches!(
        boxes.deliver(&mut batch, place, many),
        Err(Error::Limit { .. })
    ));
    let uids: Vec<Uid> = (1..=mailbox::MESSAGES_PER_COPY_MAX as u32 + 1).map(Uid).collect();
    assert!(matches!(
        boxes.copy(place, &uids, place).await,
        Err(Error::Limit { .. })
    ));
    for bad in ["", "a b", "a(b", "\\Seen", "a\"", "ä", &"x".repeat(65)] {
        assert_eq!(Keyword::parse(bad).err(), Some(Error::BadKeyword), "{bad}");
    }
    let nowhere = Place {
        mailbox: mail::MailboxId(999),
        ..place
    };
    assert_eq!(
        boxes.copy(place, &[Uid(1)], nowhere).await,
        Err(Error::NoSuchMailbox)
    );
    assert_eq!(boxes.status(nowhere).await, Err(Error::NoSuchMailbox));
}

#[tokio::test]
async fn two_deliveries_of_one_batch_into_one_mailbox() {
    let (store, boxes) = fresh().await;
    let place = inbox(&boxes).await;
    let staged = stage(&store, "once").await;
    let mut batch = Batch::new();
    let a = boxes.deliver(&mut batch, place, delivery(&staged)).unwrap();
    let b = boxes.deliver(&mut batch, place, delivery(&staged)).unwrap();
    batch.blob(staged);
    let mut watch = boxes.watch(place);
    let receipt = store.commit(batch).await.unwrap();
    assert_eq!((a.uid(&receipt), b.uid(&receipt)), (Uid(1), Uid(2)));
    assert!(b.modseq(&receipt) > a.modseq(&receipt));
    assert_eq!(
        boxes.entry(place, Uid(2)).await.unwrap().unwrap().modseq,
        b.modseq(&receipt)
    );
    assert!(watch.changed().await);
}

#[tokio::test]
async fn concurrent_sessions_agree() {
    let (store, _) = fresh().await;
    // Every reader lets the others go ahead between its snapshot and its commit.
    let boxes = Mailboxes::new(Arc::new(Yielding(store.clone())));
    let place = inbox(&boxes).await;
    let mut uids = Vec::new();
    for n in 0..20 {
        uids.push(append(&store, &boxes, place, &n.to_string()).await);
    }
    let trash = boxes.find(ACCOUNT, Role::Trash).await.unwrap().unwrap().place();
    let seen = FlagChange {
        op: FlagOp::Add,
        flags: Flags::SEEN,
        keywords: Vec::new(),
        unchanged_since: None,
    };
    let (a, b, c) = tokio::join!(
        boxes.move_(place, &uids, trash),
        boxes.expunge(place, &uids, ExpungeWhich::All),
        boxes.store_flags(place, &uids, &seen),
    );
    c.unwrap();
    assert_eq!(
        a.unwrap().uids.len() + b.unwrap().uids.len(),
        20,
        "each message went one way"
    );
    let left = boxes.status(place).await.unwrap();
    assert_eq!((left.messages, left.unseen, left.octets), (0, 0, 0));
}

#[tokio::test]
async fn an_account_goes_with_everything() {
    let (store, boxes) = fresh().await;
    append(&store, &boxes, inbox(&boxes).await, "m").await;
    boxes.subscribe(ACCOUNT, "INBOX").await.unwrap();
    boxes.delete_all(ACCOUNT).await.unwrap();
    boxes.sweep().await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    for table in 0x20..=0x2f {
        let rows = snapshot
            .scan(&store::Key::table(table).prefix_range(), 10)
            .await
            .unwrap();
        assert_eq!(rows, [], "table {table:#x}");
    }
    assert_eq!(boxes.usage(ACCOUNT).await.unwrap(), 0);
}

#[tokio::test]
async fn old_flag_changes_do_not_keep_expunges_from_being_forgotten() {
    let (store, boxes) = fresh().await;
    let place = inbox(&boxes).await;
    for n in 0..4 {
        append(&store, &boxes, place, &n.to_string()).await;
    }
    let seen = FlagChange {
        op: FlagOp::Add,
        flags: Flags::SEEN,
        keywords: Vec::new(),
        unchanged_since: None,
    };
    boxes.store_flags(place, &[Uid(1), Uid(2)], &seen).await.unwrap();
    boxes
        .expunge(place, &[Uid(3), Uid(4)], ExpungeWhich::All)
        .await
        .unwrap();
    let after = boxes.status(place).await.unwrap().highest_modseq;
    for forgotten in [1, 1, 0] {
        assert_eq!(boxes.prune_expunged(place, after, 1).await.unwrap(), forgotten);
    }
}

#[tokio::test]
async fn pruned_history_says_so() {
    let (store, boxes) = fresh().await;
    let place = inbox(&boxes).await;
    for n in 0..3 {
        append(&store, &boxes, place, &n.to_string()).await;
    }
    let before = boxes.status(place).await.unwrap().highest_modseq;
    boxes.expunge(place, &[Uid(1)], ExpungeWhich::All).await.unwrap();
    let after = boxes.status(place).await.unwrap().highest_modseq;
    assert!(boxes.changes_since(place, before, 10).await.unwrap().complete);
    assert_eq!(boxes.prune_expunged(place, after, 10).await.unwrap(), 1);
    assert_eq!(boxes.prune_expunged(place, after, 10).await.unwrap(), 0);
    assert!(!boxes.changes_since(place, before, 10).await.unwrap().complete);
    assert!(boxes.changes_since(place, after, 10).await.unwrap().complete);
}

#[tokio::test]
async fn the_change_log_has_one_line_per_message() {
    let (store, boxes) = fresh().await;
    let place = inbox(&boxes).await;
    let uid = append(&store, &boxes, place, "m").await;
    for flags in [Flags::SEEN, Flags::FLAGGED, Flags::ANSWERED] {
        let change = FlagChange {
            op: FlagOp::Replace,
            flags,
            keywords: Vec::new(),
            unchanged_since: None,
        };
        boxes.store_flags(place, &[uid], &change).await.unwrap();
    }
    let lines = async || {
        let snapshot = store.snapshot().await.unwrap();
        let log = store::Key::table(0x29).prefix_range();
        snapshot.scan(&log, 10).await.unwrap().len()
    };
    assert_eq!(lines().await, 1);
    boxes.expunge(place, &[uid], ExpungeWhich::All).await.unwrap();
    assert_eq!(lines().await, 1, "the expunge alone is left");
}

#[tokio::test]
async fn a_message_moved_or_expunged_by_two_goes_once() {
    let (store, _) = fresh().await;
    let boxes = Mailboxes::new(Arc::new(Yielding(store.clone())));
    let place = inbox(&boxes).await;
    let mut uids = Vec::new();
    for n in 0..10 {
        uids.push(append(&store, &boxes, place, &n.to_string()).await);
    }
    let (to_move, to_expunge) = uids.split_at(5);
    let place_of = async |role| boxes.find(ACCOUNT, role).await.unwrap().unwrap().place();
    let (trash, junk) = (place_of(Role::Trash).await, place_of(Role::Junk).await);
    let (a, b) = tokio::join!(
        boxes.move_(place, to_move, trash),
        boxes.move_(place, to_move, junk)
    );
    assert_eq!(a.unwrap().uids.len() + b.unwrap().uids.len(), 5);
    let (a, b) = tokio::join!(
        boxes.expunge(place, to_expunge, ExpungeWhich::All),
        boxes.expunge(place, to_expunge, ExpungeWhich::All)
    );
    assert_eq!(a.unwrap().uids.len() + b.unwrap().uids.len(), 5);
    let mut messages = 0;
    for p in [place, trash, junk] {
        messages += boxes.status(p).await.unwrap().messages;
    }
    assert_eq!(messages, 5);
    assert_eq!(boxes.status(place).await.unwrap().octets, 0);
}
