//! A few threads for syncs of large blobs, so that no session's thread waits for a disk.
//!
//! Never: work in order (callers wait for their own), work after the store has closed.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Large blobs that can be synced at the same time.
const THREADS: usize = 4;

type Work = Box<dyn FnOnce() + Send>;

/// The threads' inbox.
pub(crate) struct SyncPool {
    inbox: Mutex<Option<Inbox>>,
}

/// Who does the work.
#[derive(Clone)]
enum Inbox {
    Threads(Sender<Work>),
    /// Whoever gives it, at once.
    #[cfg(feature = "simulated-disk")]
    Giver,
}

impl Inbox {
    fn give(self, work: Work) {
        match self {
            // The threads end only after the inbox is closed.
            Self::Threads(sender) => drop(sender.send(work)),
            #[cfg(feature = "simulated-disk")]
            Self::Giver => work(),
        }
    }
}

impl SyncPool {
    /// Starts the threads. They end when the pool is closed or dropped.
    pub(crate) fn start() -> std::io::Result<Arc<Self>> {
        let (sender, receiver) = channel::<Work>();
        let receiver = Arc::new(Mutex::new(receiver));
        for n in 0..THREADS {
            let receiver = receiver.clone();
            let name = format!("store-sync-{n}");
            std::thread::Builder::new()
                .name(name)
                .spawn(move || run(&receiver))?;
        }
        Ok(Arc::new(Self {
            inbox: Mutex::new(Some(Inbox::Threads(sender))),
        }))
    }

    /// A pool without threads: work is done by whoever gives it, before that returns.
    #[cfg(feature = "simulated-disk")]
    pub(crate) fn inline() -> Arc<Self> {
        Arc::new(Self {
            inbox: Mutex::new(Some(Inbox::Giver)),
        })
    }

    fn inbox(&self) -> Option<Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives some work to the pool, without waiting. A closed pool drops it.
    pub(crate) fn give(&self, work: impl FnOnce() + Send + 'static) {
        if let Some(inbox) = self.inbox() {
            inbox.give(Box::new(work));
        }
    }

    /// Runs some work on a thread of the pool; `None` when the pool is closed or the work panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let work = Box::new(move || {
            // The asker may have gone; dropping the result cleans up after it.
            let _ = reply.send(work());
        });
        self.inbox()?.give(work);
        answer.await.ok()
    }

    /// Takes no more work. What was given before is still done.
    pub(crate) fn close(&self) {
        drop(self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn run(receiver: &Mutex<Receiver<Work>>) {
    loop {
        let work = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(work) = work else { return };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
            tracing::error!("syncing a large blob panicked");
        }
    }
}
