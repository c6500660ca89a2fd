//! How long a store takes to open after a kill at full load, and what that depends on.
//!
//! For each size it starts a child that fills a store with that many octets of messages and goes on
//! at full load until it is killed; then it opens the store and tells how long that took, how much
//! of the log was replayed, and whether the last acknowledged message is there. At the end it opens
//! the store once more after a clean end, and once a new one.
//!
//! cargo run -p store --release --example recovery -- --sizes 100M,1G --folder /var/tmp --json
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake};
use std::thread::Thread;
use std::time::Instant;
use store::{Batch, Blobs, Key, LogStore, Options, Tables};

/// Sessions of the child.
const SESSIONS: u64 = 64;

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
    sizes: Vec<u64>,
    message_octets: u64,
    rows_each: u64,
    folder: PathBuf,
    json: bool,
    child: bool,
}

const USAGE: &str = "recovery [--sizes 100M,1G] [--message 10K] [--rows-each 6] [--folder DIR] [--json]";

fn octets(text: &str) -> u64 {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits
        .parse::<u64>()
        .unwrap_or_else(|_| panic!("{text}: a number, with K, M or G"))
        * factor
}

fn settings() -> Settings {
    let mut settings = Settings {
        sizes: vec![100 << 20, 1 << 30],
        message_octets: 10 << 10,
        rows_each: 6,
        folder: PathBuf::from("."),
        json: false,
        child: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{USAGE}"));
        match name.as_str() {
            "--sizes" => settings.sizes = value().split(',').map(octets).collect(),
            "--message" => settings.message_octets = octets(&value()).max(8),
            "--rows-each" => settings.rows_each = octets(&value()),
            "--folder" => settings.folder = PathBuf::from(value()),
            "--json" => settings.json = true,
            "--child" => settings.child = true,
            _ => panic!("{USAGE}"),
        }
    }
    settings
}

/// Octets that no disk compresses.
fn body(len: u64, seed: u64) -> Vec<u8> {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len as usize + 8);
    while (out.len() as u64) < len {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.truncate(len as usize);
    out
}

fn key(n: u64, row: u64) -> Key {
    Key::table(9).u64(n).u64(row)
}

fn accept(store: &LogStore, n: u64, settings: &Settings) {
    let mut writer = wait(store.stage(settings.message_octets)).unwrap();
    wait(writer.write(&body(settings.message_octets, n))).unwrap();
    let staged = wait(writer.finish()).unwrap();
    let mut batch = Batch::new();
    batch.put_ref(key(n, 0), vec![0; 100], vec![staged.id]);
    batch.blob(staged);
    for row in 1..settings.rows_each {
        batch.put(key(n, row), vec![row as u8; 60]);
    }
    wait(store.commit(batch)).unwrap();
}

/// Fills the store in the folder, and goes on until it is killed. Each line it prints is the number
/// of messages below which all are acknowledged.
fn child(settings: &Settings) {
    let store = LogStore::open(&settings.folder, Options::default()).unwrap();
    let done: Vec<AtomicU64> = (0..SESSIONS).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for session in 0..SESSIONS {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                for round in 0.. {
                    accept(store, round * SESSIONS + session, settings);
                    done[session as usize].store(round + 1, Ordering::Release);
                    if session == 0 && round % 8 == 0 {
                        let all = done.iter().map(|n| n.load(Ordering::Acquire)).min();
                        println!("{}", all.unwrap_or(0) * SESSIONS);
                        std::io::stdout().flush().unwrap();
                    }
                }
            });
        }
    });
}

struct Measured {
    messages: u64,
    log_octets: u64,
    index_octets: u64,
    opened_ms: f64,
    replayed_octets: u64,
    replayed_batches: u64,
    clean_ms: f64,
}

fn size_of(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

fn measure(size: u64, settings: &Settings) -> Measured {
    let folder = settings
        .folder
        .join(format!("recovery-{}-{size}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--child", "--folder"])
        .arg(&folder)
        .args(["--message", &settings.message_octets.to_string()])
        .args(["--rows-each", &settings.rows_each.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut messages = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        messages = line.unwrap().parse().unwrap();
        if std::io::stderr().is_terminal() {
            let written = (messages * settings.message_octets) >> 20;
            eprint!("\r{written} of {} MiB", size >> 20);
        }
        if messages * settings.message_octets >= size {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let log_octets = size_of(&folder.join("log"));
    let index_octets = std::fs::metadata(folder.join("index.redb")).map_or(0, |m| m.len());
    let begun = Instant::now();
    let store = LogStore::open(&folder, Options::default()).unwrap();
    let opened_ms = begun.elapsed().as_secs_f64() * 1000.0;
    let stats = store.stats();
    let view = wait(store.snapshot()).unwrap();
    for n in 0..messages {
        let there = wait(view.get(&key(n, 0))).unwrap();
        assert!(
            there.is_some(),
            "message {n} of {messages} was acknowledged and is lost"
        );
    }
    drop(view);
    store.close();
    drop(store);
    let begun = Instant::now();
    drop(LogStore::open(&folder, Options::default()).unwrap());
    let clean_ms = begun.elapsed().as_secs_f64() * 1000.0;
    std::fs::remove_dir_all(&folder).unwrap();
    Measured {
        messages,
        log_octets,
        index_octets,
        opened_ms,
        replayed_octets: stats.replayed_octets,
        replayed_batches: stats.replayed_batches,
        clean_ms,
    }
}

/// Time to open a store where there is none, the best of several.
fn fresh(settings: &Settings) -> f64 {
    let one = |n: u32| {
        let folder = settings
            .folder
            .join(format!("recovery-{}-new-{n}", std::process::id()));
        let begun = Instant::now();
        let store = LogStore::open(&folder, Options::default()).unwrap();
        let ms = begun.elapsed().as_secs_f64() * 1000.0;
        drop(store);
        std::fs::remove_dir_all(&folder).unwrap();
        ms
    };
    (0..5).map(one).fold(f64::INFINITY, f64::min)
}

fn main() {
    let settings = settings();
    if settings.child {
        child(&settings);
        return;
    }
    let all: Vec<(u64, Measured)> = settings
        .sizes
        .iter()
        .map(|size| (*size, measure(*size, &settings)))
        .collect();
    let new_ms = fresh(&settings);
    if settings.json {
        let rows = all.iter().map(|(size, m)| {
            format!(
                "{{\"size_octets\":{size},\"messages\":{},\"log_octets\":{},\"index_octets\":{},\"recovery_ms\":{:.1},\"replayed_octets\":{},\"replayed_batches\":{},\"clean_open_ms\":{:.1}}}",
                m.messages, m.log_octets, m.index_octets, m.opened_ms, m.replayed_octets, m.replayed_batches, m.clean_ms
            )
        });
        let rows: Vec<String> = rows.collect();
        println!("{{\"new_open_ms\":{new_ms:.1},\"stores\":[{}]}}", rows.join(","));
        return;
    }
    println!("   store      log    index   messages   replayed  batches   recovery   clean open");
    for (size, m) in &all {
        println!(
            "{:>6} M {:>6} M {:>6} M {:>10} {:>8.1} M {:>8} {:>7.0} ms {:>9.1} ms",
            size >> 20,
            m.log_octets >> 20,
            m.index_octets >> 20,
            m.messages,
            m.replayed_octets as f64 / 1_048_576.0,
            m.replayed_batches,
            m.opened_ms,
            m.clean_ms
        );
    }
    println!("a new store opens in {new_ms:.1} ms");
    println!("Every acknowledged message was there. What is replayed is the log behind the index, at most");
    println!("about a second of mail: compare its column, and that of the store's size, with the times.");
}
