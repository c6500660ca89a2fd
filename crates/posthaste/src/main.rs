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
mod world;

use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match cli::run(args) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("posthaste: {failure}");
            failure.exit_code()
        }
    }
}
