//! Plays runs with cut connections until so many cuts were made, and prints the account:
//! `cargo run --release -p deliver --example cuts -- --cuts 100000 --seed 1`. A seed that fails is named,
//! and `--seed N --cuts 1` plays it again.
#![allow(clippy::unwrap_used)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/cutting/mod.rs"]
mod cutting;

use cutting::{Run, run};
use std::process::ExitCode;

fn argument(name: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)?.parse().ok()
}

fn main() -> ExitCode {
    let (wanted, first) = (
        argument("--cuts").unwrap_or(10_000),
        argument("--seed").unwrap_or(1),
    );
    let dir = tempfile::tempdir().unwrap();
    let tls = common::certificates(dir.path()).server_config();
    let mut all = Run::default();
    let mut seed = first;
    while all.cut() < wanted && all.account.wrong.is_empty() {
        // A world of its own, so that what one leaves behind ends with it.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        all.add(&runtime.block_on(run(seed, &tls)));
        seed += 1;
    }
    println!("seeds {first} to {}: {}", seed - 1, all.in_words());
    for wrong in &all.account.wrong {
        println!("WRONG {wrong}");
    }
    match all.account.wrong.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
