//! The store under test and the messages that are put into it.
//!
//! Messages have 1 to 2 KiB and one recipient at one of 5,000 domains, a few of which have most of
//! the mail. New mail is due at once. The backlog is due at some moment of the five days after its
//! acceptance, at random, which is the hardest order for an index: real retries come in about the
//! order in which the messages came.

use crate::machine;
use mail::{EmailAddress, QueueId, ReversePath, Timestamp};
use queue::{Body, Message, NewErrand, Options, Queue};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::{Batch, Blobs, CommitError, LogStore, Tables};
use tokio::task::JoinSet;

/// Clients that accept at the same time; commits are shared between them.
pub(crate) const PRODUCERS: u64 = 256;
/// Within this time after its acceptance an errand is due.
const HORIZON: Duration = Duration::from_secs(5 * 86_400);
const DOMAINS: u64 = 5_000;
/// Messages between two looks at the clock of the progress bar.
const STRIDE: u64 = 5_000;
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// When the errands of new messages are due.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// At once: new mail.
    AtOnce,
    /// At some moment of the next five days: the backlog.
    Spread,
}

/// What filling took.
#[derive(Clone, Copy, Default)]
pub(crate) struct Filled {
    pub(crate) messages: u64,
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) written: u64,
}

/// The store, its queue, and our own clock.
pub(crate) struct World {
    pub(crate) store: Arc<LogStore>,
    pub(crate) queue: Queue,
    /// Where the store is.
    pub(crate) folder: PathBuf,
    /// The moment that this program says it is.
    pub(crate) now: Timestamp,
    /// Messages accepted so far; the next one's number.
    made: Arc<AtomicU64>,
}

impl World {
    pub(crate) fn open(folder: &Path) -> Result<Self, String> {
        let store = LogStore::open(folder, store::Options::default()).map_err(|e| e.to_string())?;
        Ok(Self {
            queue: Queue::new(store.clone(), Options::default()),
            store,
            folder: folder.to_owned(),
            now: START,
            made: Arc::default(),
        })
    }

    /// The same for a process that goes on where another was: its ids must not meet the other's.
    pub(crate) fn go_on(folder: &Path, run: u64) -> Result<Self, String> {
        let world = Self::open(folder)?;
        world.made.store(run << 32, Ordering::Relaxed);
        Ok(world)
    }

    /// Accepts until so many wait.
    pub(crate) async fn fill_to(&mut self, depth: u64) -> Result<Filled, String> {
        let waiting = self.queue.stats().await.map_err(|e| e.to_string())?.messages;
        let mut filled = Filled::default();
        let (cpu, written, begun) = (machine::cpu_process(), machine::written(), Instant::now());
        let wanted = depth.saturating_sub(waiting);
        while filled.messages < wanted {
            let part = STRIDE.min(wanted - filled.messages);
            self.accept(part, When::Spread).await?;
            filled.messages += part;
            progress(waiting + filled.messages, depth, filled.messages, begun.elapsed());
        }
        filled.wall = begun.elapsed();
        filled.cpu = machine::cpu_process().saturating_sub(cpu);
        filled.written = machine::written() - written;
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
        Ok(filled)
    }

    /// Accepts messages, many at a time.
    pub(crate) async fn accept(&self, count: u64, when: When) -> Result<(), String> {
        let last = self.made.load(Ordering::Relaxed) + count;
        let mut producers = JoinSet::new();
        for _ in 0..PRODUCERS.min(count) {
            let (store, queue) = (self.store.clone(), self.queue.clone());
            let (made, now) = (self.made.clone(), self.now);
            producers.spawn(async move {
                loop {
                    let n = made.fetch_add(1, Ordering::Relaxed);
                    if n >= last {
                        return Ok(());
                    }
                    accept_one(&store, &queue, n, now, when).await?;
                }
            });
        }
        let done = all(producers).await;
        self.made.store(last, Ordering::Relaxed);
        done
    }
}

/// Waits for tasks; the first failure counts.
pub(crate) async fn all(mut tasks: JoinSet<Result<(), String>>) -> Result<(), String> {
    while let Some(done) = tasks.join_next().await {
        done.map_err(|e| e.to_string())??;
    }
    Ok(())
}

async fn accept_one(
    store: &LogStore,
    queue: &Queue,
    n: u64,
    now: Timestamp,
    when: When,
) -> Result<(), String> {
    loop {
        let mut batch = Batch::new();
        let (message, errand) = message(store, n, now, when, &mut batch).await?;
        queue
            .accept(&mut batch, &message, &[errand])
            .map_err(|e| e.to_string())?;
        match store.commit(batch).await {
            Ok(_) => return Ok(()),
            // The index lags behind; what a client does then.
            Err(CommitError::Busy) => tokio::task::yield_now().await,
            Err(e) => return Err(e.to_string()),
        }
    }
}

async fn message(
    store: &LogStore,
    n: u64,
    now: Timestamp,
    when: When,
    batch: &mut Batch,
) -> Result<(Message, NewErrand), String> {
    let random = mixed(n);
    let octets = 1024 + random % 1024;
    let body = vec![b'a' + (random % 26) as u8; octets as usize];
    let text = |e: store::BlobError| e.to_string();
    let mut writer = store.stage(octets).await.map_err(text)?;
    writer.write(&body).await.map_err(text)?;
    let staged = writer.finish().await.map_err(text)?;
    let id = QueueId::from_parts(START.micros() + n, 0);
    // Squared, so that few domains have most of the mail.
    let place = mixed(random) % (DOMAINS * DOMAINS);
    let domain = DOMAINS - 1 - place.isqrt();
    let address = |text: String| EmailAddress::parse(&text).map_err(|e| e.to_string());
    let message = Message {
        id,
        reverse_path: ReversePath::Address(address(format!("sender{}@example.org", random % 1_000))?),
        blob: staged.id,
        blob_len: staged.len,
        prefix: format!(
            "Received: from client{n}.example.org (client{n}.example.org [192.0.2.{}])\r\n\
             \tby mail.example.com with ESMTPSA id {id} (TLS 1.3 cipher TLS13_AES_256_GCM_SHA384);\r\n\
             \tFri, 15 Jan 2027 08:00:00 +0000\r\n",
            n % 250
        )
        .into_bytes(),
        received_at: now,
        message_id: Some(format!("{random:016x}.{n}@example.org")),
        login: Some(format!("sender{}@example.org", random % 1_000)),
        body: Body::EightBit,
        smtputf8: false,
        envid: None,
        ret: None,
        require_tls: false,
        deliver_by: None,
        priority: mail::delivery::Priority::NORMAL,
    };
    let errand = NewErrand {
        recipient: address(format!("user{}@d{domain}.example.net", random % 100_000))?,
        original_recipient: None,
        notify: None,
        next_attempt: match when {
            When::AtOnce => now,
            // Never at once: what is due then is new mail only.
            When::Spread => now.plus(Duration::from_micros(
                1 + mixed(random ^ 1) % HORIZON.as_micros() as u64,
            )),
        },
    };
    batch.blob(staged);
    Ok((message, errand))
}

/// A number that looks random, always the same for the same `n`.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn progress(waiting: u64, depth: u64, made: u64, took: Duration) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let width = 40;
    let done = (waiting * width / depth.max(1)) as usize;
    let rate = made as f64 / took.as_secs_f64().max(1e-9);
    eprint!(
        "\r[{}{}] {waiting} of {depth}, {rate:.0}/s   ",
        "#".repeat(done),
        ".".repeat(width as usize - done)
    );
    let _ = std::io::stderr().flush();
}
