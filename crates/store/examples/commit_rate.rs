//! How many batches a second the engine makes durable on this machine's disk.
//!
//! `cargo run -p store --release --example commit_rate -- --producers 64 --size 10240 --seconds 5 --folder DIR`
//!
//! Each producer is a thread that stages a blob of `size` octets, commits it with three entries
//! and two allocated numbers (about what a delivery to a mailbox writes), and waits. Prints the
//! rate, batches per sync, octets written to the log per octet of blob, and the times of a commit, of opening and closing.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;
use std::time::{Duration, Instant};
use store::{Batch, Blobs, Key, LogStore, Options, Tables};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Arc::new(Unpark(std::thread::current())).into();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(out) => return out,
            Poll::Pending => std::thread::park(),
        }
    }
}

struct Settings {
    producers: usize,
    size: usize,
    seconds: u64,
    folder: PathBuf,
}

fn settings() -> Result<Settings, String> {
    let mut settings = Settings {
        producers: 64,
        size: 10_240,
        seconds: 5,
        folder: std::env::temp_dir().join(format!("commit-rate-{}", std::process::id())),
    };
    let mut words = std::env::args().skip(1);
    while let Some(name) = words.next() {
        let value = words.next().ok_or(format!("{name} needs a value"))?;
        let number = || value.parse::<usize>().map_err(|e| format!("{name}: {e}"));
        match name.as_str() {
            "--producers" => settings.producers = number()?,
            "--size" => settings.size = number()?,
            "--seconds" => settings.seconds = number()? as u64,
            "--folder" => settings.folder = value.into(),
            _ => return Err(format!("{name} is not known")),
        }
    }
    Ok(settings)
}

/// One delivery: the message, its place in a mailbox, its journey.
fn deliver(store: &LogStore, mailbox: u64, n: u64, message: &[u8]) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let mut writer = wait(store.stage(message.len() as u64)).map_err(|e| text(&e))?;
    wait(writer.write(message)).map_err(|e| text(&e))?;
    let staged = wait(writer.finish()).map_err(|e| text(&e))?;
    let mut batch = Batch::new();
    batch.alloc(Key::table(1).u64(mailbox), 1);
    batch.alloc(Key::table(2).u64(mailbox), 1);
    batch.put_ref(Key::table(3).u64(mailbox).u64(n), vec![0; 150], vec![staged.id]);
    batch.put(Key::table(4).u64(mailbox).u64(n), vec![0; 100]);
    batch.put(Key::table(5).u64(mailbox).u64(n), vec![0; 50]);
    batch.blob(staged);
    wait(store.commit(batch)).map_err(|e| text(&e))?;
    Ok(())
}

fn produce(store: &LogStore, mailbox: u64, size: usize, until: Instant) -> Result<Vec<Duration>, String> {
    let message: Vec<u8> = (0..size).map(|i| (i as u64 * 31 + mailbox) as u8).collect();
    let mut times = Vec::new();
    while Instant::now() < until {
        let begun = Instant::now();
        deliver(store, mailbox, times.len() as u64, &message)?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

fn main() -> Result<(), String> {
    let settings = settings()?;
    let opening = Instant::now();
    let store = LogStore::open(&settings.folder, Options::default()).map_err(|e| e.to_string())?;
    println!("opening took         {:.2?}", opening.elapsed());
    let begun = Instant::now();
    let until = begun + Duration::from_secs(settings.seconds);
    let results: Vec<Result<Vec<Duration>, String>> = std::thread::scope(|scope| {
        let store = &store;
        let size = settings.size;
        let start = |n| scope.spawn(move || produce(store, n as u64, size, until));
        let producers: Vec<_> = (0..settings.producers).map(start).collect();
        let join = |p: std::thread::ScopedJoinHandle<'_, _>| {
            p.join().unwrap_or(Err("a producer panicked".to_owned()))
        };
        producers.into_iter().map(join).collect()
    });
    let took = begun.elapsed().as_secs_f64();
    let mut times = Vec::new();
    for result in results {
        times.extend(result?);
    }
    times.sort_unstable();
    let stats = store.stats();
    let closing = Instant::now();
    store.close();
    let at = |share: f64| {
        times
            .get((times.len() as f64 * share) as usize)
            .copied()
            .unwrap_or_default()
    };
    let octets = (times.len() * settings.size) as f64;
    println!("commits/s            {:.0}", times.len() as f64 / took);
    println!(
        "syncs per commit     {:.3}",
        stats.groups as f64 / times.len().max(1) as f64
    );
    println!(
        "log octets per octet {:.2}",
        stats.log_octets as f64 / octets.max(1.0)
    );
    println!("p50                  {:.2?}", at(0.5));
    println!("p99                  {:.2?}", at(0.99));
    println!("closing took         {:.2?}", closing.elapsed());
    let opening = Instant::now();
    drop(LogStore::open(&settings.folder, Options::default()).map_err(|e| e.to_string())?);
    println!("opening again took   {:.2?}", opening.elapsed());
    std::fs::remove_dir_all(&settings.folder).map_err(|e| e.to_string())
}
