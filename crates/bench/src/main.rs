//! `bench`: the command line's way in. All work is in the library.

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match bench::cli::run(&bench::args::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench: {problem}");
            ExitCode::FAILURE
        }
    }
}
