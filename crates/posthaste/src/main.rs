//! The program: reads the command line, does what it says, and answers with an exit code that means
//! something. Everything else lives in the modules below and in the crates.

#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a program has no callers; its words are in --help and docs/"
)]

mod args;
mod cli;
mod demo;
mod serve;
mod settings;
mod users;
mod world;

use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(code) = as_sendmail() {
        return code;
    }
    let args = args::Args::parse();
    match cli::run(args) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("posthaste: {failure}");
            failure.exit_code()
        }
    }
}

/// Local programs call a link named `sendmail`; then the command line is that of sendmail(8).
fn as_sendmail() -> Option<ExitCode> {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let program = words.next()?;
    let called = program.rsplit('/').next()?.to_owned();
    cli::sendmail::LINK_NAMES.contains(&called.as_str()).then(|| {
        let rest: Vec<String> = words.collect();
        cli::sendmail::run(&args::Global::default(), &called, &rest)
    })
}
