//! Into mailboxes here: new mail, an errand of the queue; what goes wrong changes nothing.
#![allow(clippy::unwrap_used)]

use directory::{Argon2Cost, Directory, NewAccount, SystemRandom};
use journey::{Event, Journey};
use letterbox::{Errands, Error, Letter, Letterbox, To};
use mail::{AccountId, Domain, EmailAddress, QueueId, ReversePath, Timestamp, Uid};
use mailbox::{Entry, Mailboxes, Role};
use queue::{Body, Claim, Message, NewErrand, Queue};
use std::sync::Arc;
use std::time::Duration;
use store::{Batch, BlobId, Blobs as _, CommitError, MemoryStore, Store, Tables as _};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const TEXT: &[u8] = b"Subject: hello\r\n\r\nhello\r\n";

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).unwrap()
}

/// example.org with mia and noah, whose ledger has begun.
struct World {
    store: Arc<MemoryStore>,
    directory: Directory,
    mailboxes: Mailboxes,
    queue: Queue,
    journey: Journey,
    mia: AccountId,
    noah: AccountId,
}

impl World {
    async fn new() -> Self {
        let store = MemoryStore::new();
        let any: Arc<dyn Store> = store.clone();
        let cheap = directory::Options {
            argon2: Argon2Cost {
                memory_kib: 8,
                passes: 1,
                lanes: 1,
            },
            ..directory::Options::default()
        };
        let directory = Directory::new(any.clone(), cheap, Arc::new(SystemRandom)).unwrap();
        let mailboxes = Mailboxes::new(any.clone());
        let queue = Queue::new(any.clone(), queue::Options::default());
        queue.recover(NOW).await.unwrap();
        let domain = Domain::parse("example.org").unwrap();
        directory.add_domain(&domain, NOW).await.unwrap();
        let mut ids = Vec::new();
        for name in ["mia@example.org", "noah@example.org"] {
            let new = NewAccount {
                address: address(name),
                display_name: String::new(),
                password: None,
            };
            let boxes = mailboxes.clone();
            let add = move |batch: &mut Batch, id| boxes.create_defaults(batch, id, NOW);
            ids.push(directory.add_account(new, NOW, &add).await.unwrap().id);
        }
        Self {
            store,
            directory,
            mailboxes,
            queue,
            journey: Journey::new(any),
            mia: ids[0],
            noah: ids[1],
        }
    }

    fn letterbox(&self) -> Letterbox<'_> {
        Letterbox {
            directory: &self.directory,
            mailboxes: &self.mailboxes,
            queue: &self.queue,
            journey: &self.journey,
        }
    }

    /// A batch with a message of [`TEXT`].
    async fn batch(&self) -> (Batch, BlobId) {
        let mut writer = self.store.stage(TEXT.len() as u64).await.unwrap();
        writer.write(TEXT).await.unwrap();
        let staged = writer.finish().await.unwrap();
        let id = staged.id;
        let mut batch = Batch::new();
        batch.blob(staged);
        (batch, id)
    }

    async fn messages(&self, account: AccountId, role: Role) -> Vec<Entry> {
        let found = self.mailboxes.find(account, role).await.unwrap().unwrap();
        let all = self.mailboxes.entries(found.place(), Uid(1), 100).await;
        all.unwrap()
    }

    /// Queues a message to an address that leads here, and claims its errand.
    async fn claimed(&self, id: QueueId, to: &EmailAddress) -> Claim {
        let (mut batch, blob) = self.batch().await;
        let message = Message {
            id,
            reverse_path: ReversePath::Address(address("bob@example.net")),
            blob,
            blob_len: TEXT.len() as u64,
            prefix: b"Received: by mail.example.org\r\n".to_vec(),
            received_at: NOW,
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
        let errand = NewErrand {
            recipient: to.clone(),
            original_recipient: None,
            notify: None,
            next_attempt: NOW,
        };
        self.queue.accept(&mut batch, &message, &[errand]).unwrap();
        self.store.commit(batch).await.unwrap();
        let due = self.queue.due(NOW, 10).await.unwrap();
        self.queue.claim(&due, NOW).await.unwrap().remove(0)
    }
}

/// What the journey says of each delivery: the account, the mailbox, why.
async fn told(world: &World, id: QueueId) -> Vec<(AccountId, String, Option<String>)> {
    let events = world.journey.events(id).await.unwrap();
    let told = events.into_iter().filter_map(|record| match record.event {
        Event::DeliveredLocal {
            account,
            mailbox_name,
            why,
            ..
        } => Some((account, mailbox_name, why)),
        _ => None,
    });
    told.collect()
}

#[tokio::test]
async fn new_mail_ends_in_every_mailbox_and_is_counted_once_for_each() {
    let world = World::new().await;
    let (list, sender) = (address("all@example.org"), address("bob@example.net"));
    let (mut batch, blob) = world.batch().await;
    let letter = Letter {
        id: QueueId(7),
        reverse_path: &ReversePath::Address(sender),
        prefix: &[],
        blob,
        blob_len: TEXT.len() as u64,
        junk: None,
    };
    let to = [world.mia, world.noah].map(|account| To {
        recipient: &list,
        account,
    });
    let put = world.letterbox();
    put.put(&mut batch, &letter, &to, Errands::New, NOW)
        .await
        .unwrap();
    world.store.commit(batch).await.unwrap();
    for account in [world.mia, world.noah] {
        let all = world.messages(account, Role::Inbox).await;
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].prefix, b"Return-Path: <bob@example.net>\r\n");
        assert_eq!((all[0].blob, all[0].queue_id), (blob, Some(QueueId(7))));
    }
    let inbox = || "INBOX".to_owned();
    let expected = [(world.mia, inbox(), None), (world.noah, inbox(), None)];
    assert_eq!(told(&world, QueueId(7)).await, expected);
    let ledger = world.queue.ledger().await.unwrap();
    assert_eq!((ledger.at_once, ledger.queued, ledger.delivered), (2, 0, 0));
    assert_eq!(ledger.accepted(), ledger.accounted_for());
}

#[tokio::test]
async fn junk_goes_to_junk_with_its_reason() {
    let world = World::new().await;
    let mia = address("mia@example.org");
    let (mut batch, blob) = world.batch().await;
    let letter = Letter {
        id: QueueId(8),
        reverse_path: &ReversePath::Null,
        prefix: &[],
        blob,
        blob_len: TEXT.len() as u64,
        junk: Some("the sender's policy says so"),
    };
    let to = [To {
        recipient: &mia,
        account: world.mia,
    }];
    let put = world.letterbox();
    put.put(&mut batch, &letter, &to, Errands::New, NOW)
        .await
        .unwrap();
    world.store.commit(batch).await.unwrap();
    assert_eq!(world.messages(world.mia, Role::Inbox).await.len(), 0);
    let junk = world.messages(world.mia, Role::Junk).await;
    assert_eq!(junk[0].prefix, b"Return-Path: <>\r\n");
    let why = Some("the sender's policy says so".to_owned());
    assert_eq!(
        told(&world, QueueId(8)).await,
        [(world.mia, "Junk".to_owned(), why)]
    );
}

#[tokio::test]
async fn an_errand_of_the_queue_ends_as_delivered() {
    let world = World::new().await;
    let mia = address("mia@example.org");
    let claim = world.claimed(QueueId(9), &mia).await;
    let letter = Letter {
        id: claim.message.id,
        reverse_path: &claim.message.reverse_path,
        prefix: &claim.message.prefix,
        blob: claim.message.blob,
        blob_len: claim.message.blob_len,
        junk: None,
    };
    let to = [To {
        recipient: &mia,
        account: world.mia,
    }];
    let (put, errands) = (world.letterbox(), Errands::Claimed(&claim));
    let mut batch = Batch::new();
    put.put(&mut batch, &letter, &to, errands, NOW).await.unwrap();
    world.store.commit(batch).await.unwrap();
    let all = world.messages(world.mia, Role::Inbox).await;
    let prefix = b"Return-Path: <bob@example.net>\r\nReceived: by mail.example.org\r\n";
    assert_eq!(all[0].prefix, prefix);
    assert!(world.queue.show(QueueId(9)).await.unwrap().is_none());
    let ledger = world.queue.ledger().await.unwrap();
    assert_eq!((ledger.at_once, ledger.queued, ledger.delivered), (0, 1, 1));
    // Whoever comes with the same claim again comes too late.
    let again = put.put(&mut Batch::new(), &letter, &to, errands, NOW).await;
    assert!(matches!(again, Err(Error::Queue(queue::Error::ClaimLost))));
    assert_eq!(world.messages(world.mia, Role::Inbox).await.len(), 1);
}

#[tokio::test]
async fn an_account_that_went_meanwhile_keeps_the_whole_batch_from_coming_true() {
    let world = World::new().await;
    let list = address("all@example.org");
    let (mut batch, blob) = world.batch().await;
    let letter = Letter {
        id: QueueId(10),
        reverse_path: &ReversePath::Null,
        prefix: &[],
        blob,
        blob_len: TEXT.len() as u64,
        junk: None,
    };
    let to = [world.mia, world.noah].map(|account| To {
        recipient: &list,
        account,
    });
    let put = world.letterbox();
    let now = NOW.plus(Duration::from_secs(1));
    put.put(&mut batch, &letter, &to, Errands::New, now)
        .await
        .unwrap();
    world.directory.remove_account(world.noah).await.unwrap();
    let refused = world.store.commit(batch).await;
    assert!(matches!(refused, Err(CommitError::Conflict { .. })));
    assert_eq!(world.messages(world.mia, Role::Inbox).await.len(), 0);
    assert_eq!(told(&world, QueueId(10)).await, []);
    assert_eq!(world.queue.ledger().await.unwrap().at_once, 0);
}
