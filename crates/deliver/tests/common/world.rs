//! One server's delivery with everything around it in memory, on tokio's paused clock.

use super::{Net, put_blob};
use bytes::Bytes;
use deliver::{Context, Dialer, Options, Parts, Route};
use directory::{Argon2Cost, Directory, NewAccount, Random, SystemRandom};
use dns::table::TableResolver;
use journey::{Event, Journey};
use mail::{AccountId, Clock, Domain, EmailAddress, QueueId, ReversePath, Timestamp, Uid};
use mailbox::{Mailboxes, Role};
use queue::{Body, IdSource, Listed, Message, NewErrand, Queue};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{
    Batch, BlobError, BlobId, BlobWriter, Blobs, BoxFuture, CommitError, MemoryStore, ReadError, Receipt,
    Snapshot, Store, Tables, Topic, Watch,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Monday, 23 November 2026.
pub const START: Timestamp = Timestamp::from_secs(1_795_439_053);

/// The time of mail is the time of tokio, which tests pause and move.
pub struct TokioClock {
    since: Instant,
    /// How far mail's time was moved beyond tokio's.
    ahead_secs: AtomicU64,
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let ahead = Duration::from_secs(self.ahead_secs.load(Ordering::Relaxed));
        START.plus(self.since.elapsed() + ahead)
    }
}

/// `mail.gmail.com` with the account alice@gmail.com.
pub struct World {
    pub net: Arc<Net>,
    pub store: Arc<MemoryStore>,
    /// The store as the service sees it.
    pub moody: Arc<Moody>,
    pub queue: Queue,
    pub journey: Journey,
    pub mailboxes: Mailboxes,
    pub directory: Directory,
    pub ids: Arc<IdSource>,
    pub clock: Arc<TokioClock>,
    pub alice: AccountId,
    pub tls_results: Arc<tlsrpt::Collector>,
    pub ctx: Arc<Context>,
    pub stop: watch::Sender<bool>,
    pub service: Option<JoinHandle<()>>,
}

/// What a world stands on.
pub struct Over {
    pub net: Arc<Net>,
    pub dialer: Arc<dyn Dialer>,
    pub random: Arc<dyn Random>,
    pub queue: queue::Options,
}

impl Default for Over {
    fn default() -> Self {
        let net = Arc::new(Net::default());
        Self {
            dialer: net.clone(),
            net,
            random: Arc::new(SystemRandom),
            queue: queue::Options::default(),
        }
    }
}

pub fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

pub fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).unwrap()
}

impl World {
    /// A world with this DNS, its service running.
    pub async fn new(resolver: TableResolver) -> Self {
        Self::with(resolver, Vec::new(), |_| {}).await
    }

    pub async fn with(
        resolver: TableResolver,
        routes: Vec<Route>,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        Self::over(resolver, routes, Over::default(), change).await
    }

    /// The same over another network, and with other dice.
    pub async fn over(
        resolver: TableResolver,
        routes: Vec<Route>,
        over: Over,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        Self::made(resolver, routes, over, change, &tls::Roots::public(), None).await
    }

    /// The same that believes these authorities, and heeds MTA-STS policies that are fetched so.
    pub async fn made(
        resolver: TableResolver,
        routes: Vec<Route>,
        over: Over,
        change: impl FnOnce(&mut Options),
        roots: &tls::Roots,
        fetch: Option<Arc<dyn mtasts::Fetch>>,
    ) -> Self {
        let Over {
            net,
            dialer,
            random,
            queue,
        } = over;
        let store = MemoryStore::new();
        let moody = Arc::new(Moody::over(store.clone()));
        let dynamic: Arc<dyn Store> = moody.clone();
        let clock = Arc::new(TokioClock {
            since: Instant::now(),
            ahead_secs: AtomicU64::new(0),
        });
        let cheap = directory::Options {
            argon2: Argon2Cost {
                memory_kib: 8,
                passes: 1,
                lanes: 1,
            },
            ..directory::Options::default()
        };
        let directory = Directory::new(dynamic.clone(), cheap, random.clone()).unwrap();
        let mailboxes = Mailboxes::new(dynamic.clone());
        directory.add_domain(&domain("gmail.com"), START).await.unwrap();
        let new = NewAccount {
            address: address("alice@gmail.com"),
            display_name: String::new(),
            password: None,
        };
        let boxes = mailboxes.clone();
        let add = move |batch: &mut Batch, id| boxes.create_defaults(batch, id, START);
        let alice = directory.add_account(new, START, &add).await.unwrap().id;
        let queue = Queue::new(dynamic.clone(), queue);
        let journey = Journey::new(dynamic.clone());
        let ids = Arc::new(IdSource::new(clock.clone()));
        let resolver: Arc<dyn dns::Resolver> = Arc::new(resolver);
        let policies =
            fetch.map(|fetch| mtasts::Policies::new(dynamic.clone(), resolver.clone(), fetch, clock.clone()));
        let parts = Parts {
            store: dynamic,
            queue: queue.clone(),
            journey: journey.clone(),
            mailboxes: mailboxes.clone(),
            directory: directory.clone(),
            resolver: resolver.clone(),
            dialer,
            tls: tls::Client::new(roots).unwrap(),
            ids: ids.clone(),
            clock: clock.clone(),
            random,
            tap: None,
        };
        let mut options = Options::new(domain("mail.gmail.com"));
        change(&mut options);
        let tls_results = Arc::new(tlsrpt::Collector::new(store.clone()));
        let context = Context::new(parts, options, routes).with_tls_results(tls_results.clone());
        let context = context.with_mta_sts(policies);
        let ctx = Arc::new(context);
        let (stop, stopped) = watch::channel(false);
        let service = tokio::spawn(deliver::run(ctx.clone(), stopped));
        Self {
            net,
            store,
            moody,
            queue,
            journey,
            mailboxes,
            directory,
            ids,
            clock,
            alice,
            tls_results,
            ctx,
            stop,
            service: Some(service),
        }
    }

    /// Moves mail's clock, not tokio's, and tells the service.
    pub fn jump(&self, by: Duration) {
        self.clock.ahead_secs.fetch_add(by.as_secs(), Ordering::Relaxed);
        self.ctx.wake();
    }

    /// Accepts a message as reception does.
    pub async fn submit(&self, from: &str, to: &[&str]) -> QueueId {
        self.submit_asking(from, to, "Hi Bob\r\n", |_, _| {}).await
    }

    /// The same with a text, and with what the sender asks.
    pub async fn submit_asking(
        &self,
        from: &str,
        to: &[&str],
        text: &str,
        ask: impl FnOnce(&mut Message, &mut Vec<NewErrand>),
    ) -> QueueId {
        let text = format!("From: {from}\r\nSubject: Hello!\r\nMessage-ID: <1@gmail.com>\r\n\r\n{text}");
        let (blob, blob_len) = put_blob(&self.store, &text).await;
        let now = self.clock.now();
        let mut message = Message {
            id: self.ids.next_id(),
            reverse_path: match from {
                "" => ReversePath::Null,
                from => ReversePath::Address(address(from)),
            },
            blob,
            blob_len,
            prefix: b"Received: by mail.gmail.com\r\n".to_vec(),
            received_at: now,
            message_id: Some("1@gmail.com".to_owned()),
            login: None,
            body: Body::SevenBit,
            smtputf8: false,
            envid: None,
            ret: None,
            require_tls: false,
            deliver_by: None,
            priority: mail::delivery::Priority::NORMAL,
        };
        let mut errands: Vec<NewErrand> = to
            .iter()
            .map(|to| NewErrand {
                recipient: address(to),
                original_recipient: None,
                notify: None,
                next_attempt: now,
            })
            .collect();
        ask(&mut message, &mut errands);
        let mut batch = Batch::new();
        self.queue.accept(&mut batch, &message, &errands).unwrap();
        let store: &dyn Store = self.store.as_ref();
        store.commit(batch).await.unwrap();
        message.id
    }

    pub async fn show(&self, id: QueueId) -> Option<Listed> {
        self.queue.show(id).await.unwrap()
    }

    /// Lets time pass (nothing waits for real) until the condition holds.
    pub async fn until<F: Future<Output = bool>>(&self, what: &str, mut condition: impl FnMut() -> F) {
        // Eight days, in steps that grow: a minute's events stay apart, days pass quickly.
        let mut step = Duration::from_millis(10);
        let end = Instant::now() + Duration::from_secs(8 * 86_400);
        while !condition().await {
            assert!(Instant::now() < end, "never came: {what}");
            tokio::time::sleep(step).await;
            step = (step * 2).min(Duration::from_secs(60));
        }
    }

    /// Until the message has left the queue.
    pub async fn until_gone(&self, id: QueueId) {
        self.until("the end of the message", || async {
            self.show(id).await.is_none()
        })
        .await;
    }

    /// One more account.
    pub async fn account(&self, of: &str) -> AccountId {
        let new = NewAccount {
            address: address(of),
            display_name: String::new(),
            password: None,
        };
        let boxes = self.mailboxes.clone();
        let add = move |batch: &mut Batch, id| boxes.create_defaults(batch, id, START);
        self.directory.add_account(new, START, &add).await.unwrap().id
    }

    /// The messages of alice's INBOX.
    pub async fn inbox(&self) -> Vec<String> {
        self.inbox_of(self.alice).await
    }

    /// The messages of somebody's INBOX.
    pub async fn inbox_of(&self, account: AccountId) -> Vec<String> {
        let inbox = self.mailboxes.find(account, Role::Inbox).await.unwrap().unwrap();
        let entries = self
            .mailboxes
            .entries(inbox.place(), Uid(1), 10_000)
            .await
            .unwrap();
        let mut texts = Vec::new();
        for entry in entries {
            let bytes = self.mailboxes.read(&entry, 0..entry.size()).await.unwrap();
            texts.push(String::from_utf8(bytes.to_vec()).unwrap());
        }
        texts
    }

    /// The journey of a message: the names of its events.
    pub async fn told(&self, id: QueueId) -> Vec<Event> {
        let records = self.journey.events(id).await.unwrap();
        records.into_iter().map(|r| r.event).collect()
    }

    pub async fn names(&self, id: QueueId) -> Vec<&'static str> {
        self.told(id).await.iter().map(name).collect()
    }

    /// Stops the service and waits for its end.
    pub async fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(service) = self.service.take() {
            service.await.unwrap();
        }
    }
}

fn name(event: &Event) -> &'static str {
    match event {
        Event::Route { .. } => "route",
        Event::Attempt { .. } => "attempt",
        Event::Relayed { .. } => "relayed",
        Event::Deferred { .. } => "deferred",
        Event::Bounced { .. } => "bounced",
        Event::Expired { .. } => "expired",
        Event::DsnSent { .. } => "report",
        Event::DeliveredLocal { .. } => "in the mailbox",
        Event::Received { .. } => "received",
        Event::Queued { .. } => "queued",
        Event::Dropped { .. } => "dropped",
        _ => "something else",
    }
}

/// A store that refuses some commits for a passing reason.
pub struct Moody {
    inner: Arc<MemoryStore>,
    /// Only every n-th commit is done; 0 for all.
    pub refuse_every: AtomicU64,
    /// Asked before each commit whether to refuse it.
    pub refuse_when: Mutex<Option<Refusal>>,
    /// The next commit panics.
    pub panics_next: AtomicBool,
    commits: AtomicU64,
}

/// Says whether a commit is refused.
pub type Refusal = Box<dyn FnMut() -> bool + Send>;

impl Moody {
    fn over(inner: Arc<MemoryStore>) -> Self {
        Self {
            inner,
            refuse_every: AtomicU64::new(0),
            refuse_when: Mutex::default(),
            panics_next: AtomicBool::new(false),
            commits: AtomicU64::new(0),
        }
    }
}

impl Tables for Moody {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        let n = self.commits.fetch_add(1, Ordering::Relaxed);
        assert!(!self.panics_next.swap(false, Ordering::Relaxed), "as ordered");
        if self
            .refuse_when
            .lock()
            .unwrap()
            .as_mut()
            .is_some_and(|refuses| refuses())
        {
            return Box::pin(async { Err(CommitError::Busy) });
        }
        match self.refuse_every.load(Ordering::Relaxed) {
            every if every > 0 && !n.is_multiple_of(every) => Box::pin(async { Err(CommitError::Busy) }),
            _ => self.inner.commit(batch),
        }
    }
    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, ReadError>> {
        self.inner.snapshot()
    }
    fn watch(&self, topic: &Topic) -> Watch {
        self.inner.watch(topic)
    }
}

impl Blobs for Moody {
    fn stage(&self, len_hint: u64) -> BoxFuture<'_, Result<Box<dyn BlobWriter>, BlobError>> {
        self.inner.stage(len_hint)
    }
    fn read(&self, id: BlobId, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, BlobError>> {
        self.inner.read(id, range)
    }
}
