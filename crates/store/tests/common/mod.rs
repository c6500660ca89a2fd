//! What the tests of the store share: a runtime of one thread's patience, and stores to test.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;
use std::time::Duration;
use store::{
    Batch, BlobId, CommitError, Key, KeyRange, LogStore, Options, Receipt, StagedBlob, Store, Versioned,
};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future without any runtime: the store must not need one.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Arc::new(Unpark(std::thread::current())).into();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(out) => return out,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Options under which rows stay in memory until the store closes.
pub fn lazy() -> Options {
    Options {
        apply_interval: Duration::from_secs(3600),
        reserve_octets: 4096,
        identity: Some(0x5eed),
        ..Options::default()
    }
}

/// Options under which every group goes to the index at once and segments are tiny.
pub fn eager() -> Options {
    Options {
        apply_octets: 1,
        segment_octets: 8192,
        ..lazy()
    }
}

pub fn open(path: &Path, options: Options) -> Arc<LogStore> {
    LogStore::open(path, options).unwrap()
}

pub fn key(n: u64) -> Key {
    Key::table(9).u64(n)
}

pub fn commit(store: &dyn Store, batch: Batch) -> Result<Receipt, CommitError> {
    wait(store.commit(batch))
}

pub fn put(store: &dyn Store, key: Key, value: &[u8]) -> Receipt {
    let mut batch = Batch::new();
    batch.put(key, value.to_vec());
    commit(store, batch).unwrap()
}

pub fn get(store: &dyn Store, key: &Key) -> Option<Versioned> {
    wait(wait(store.snapshot()).unwrap().get(key)).unwrap()
}

pub fn value(store: &dyn Store, key: &Key) -> Option<Vec<u8>> {
    get(store, key).map(|v| v.value.to_vec())
}

pub fn counter(store: &dyn Store, key: &Key) -> i64 {
    wait(wait(store.snapshot()).unwrap().counter(key)).unwrap()
}

pub fn scan(store: &dyn Store, range: &KeyRange) -> Vec<(Key, Versioned)> {
    wait(wait(store.snapshot()).unwrap().scan(range, usize::MAX)).unwrap()
}

pub fn stage(store: &dyn Store, bytes: &[u8]) -> StagedBlob {
    let mut writer = wait(store.stage(bytes.len() as u64)).unwrap();
    for piece in bytes.chunks(100_000) {
        wait(writer.write(piece)).unwrap();
    }
    wait(writer.finish()).unwrap()
}

/// Commits a blob under a key.
pub fn put_blob(store: &dyn Store, key: Key, bytes: &[u8]) -> BlobId {
    let staged = stage(store, bytes);
    let id = staged.id;
    let mut batch = Batch::new();
    batch.put_ref(key, b"has a blob".to_vec(), vec![id]);
    batch.blob(staged);
    commit(store, batch).unwrap();
    id
}

/// Octets that differ everywhere, so that a wrong offset shows.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut word = seed.wrapping_mul(2).wrapping_add(1);
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Copies a folder as a crash would leave it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
