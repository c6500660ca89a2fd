//! The program itself: its commands, its answers in JSON, and one whole measurement of the bare receiver.
//!
//! Promises: counts agree, nothing is left behind. Never: looks at a time.
#![allow(clippy::unwrap_used)]

use bench::measure::{self, Cell, Manner};
use bench::target::bare::Bare;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::time::Duration;

const BENCH: &str = env!("CARGO_BIN_EXE_bench");

fn json(text: &[u8]) -> serde_json::Value {
    serde_json::from_slice(text).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(text)))
}

#[test]
fn load_and_sink_tell_the_same_count() {
    let mut sink = Command::new(BENCH)
        .args(["sink", "--json", "--messages", "40"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(sink.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    let address = first.trim().strip_prefix("smtp ").unwrap();
    let load = Command::new(BENCH)
        .args([
            "load",
            "--json",
            "--sessions",
            "3",
            "--messages",
            "40",
            "--size",
            "1024",
            "--to",
            address,
        ])
        .output()
        .unwrap();
    let report = json(&load.stdout);
    assert_eq!(report["accepted"], 40, "{report}");
    assert!(report["latency_ms"]["p99"].as_f64().unwrap() >= report["latency_ms"]["p50"].as_f64().unwrap());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(sink.wait().unwrap().success());
    let counted = json(rest.strip_prefix("ready\n").unwrap().as_bytes());
    assert_eq!(
        (&counted["messages"], &counted["octets"]),
        (&40.into(), &(40 * 1024).into())
    );
}

#[test]
fn a_far_address_is_refused_with_a_sentence() {
    for command in [
        ["load", "--to", "192.0.2.1:25"],
        ["sink", "--listen", "0.0.0.0:0"],
    ] {
        let output = Command::new(BENCH).args(command).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(
            words.starts_with("bench: ") && words.contains("loopback"),
            "{words}"
        );
    }
}

#[test]
fn one_measurement_counts_what_it_sent_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cell = Cell {
        size: 2048,
        sessions: 3,
    };
    let manner = Manner {
        per_connection: 0,
        pipelining: false,
        users: 5,
    };
    let target = Bare::of(BENCH.into());
    let time = Duration::from_millis(50);
    let one = measure::once(&target, folder.path(), cell, manner, 1, time, None).unwrap();
    assert_eq!(one.load.failed + one.load.unsent, 0, "{one:?}");
    assert_eq!(one.load.accepted, one.load.messages);
    assert!(
        one.cpu_seconds_per_1000 >= 0.0 && one.memory_peak_octets > 0,
        "{one:?}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
