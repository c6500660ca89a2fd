//! Printing answers to standard output, for pipes too: a reader that has seen enough (`| head`) ends
//! the program without a complaint; any other failure to write ends it with one. To be used when the
//! work is done and the store closed.

use std::fmt;
use std::io::{ErrorKind, Write as _};

/// `print!`, without its panic.
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::out::write(format_args!($($text)*)) };
}

/// `println!`, without its panic.
macro_rules! outln {
    () => { $crate::cli::out::write(format_args!("\n")) };
    ($($text:tt)*) => { $crate::cli::out::write(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {out, outln};

/// Writes to standard output.
pub fn write(text: fmt::Arguments<'_>) {
    match std::io::stdout().write_fmt(text) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => {
            eprintln!("posthaste: standard output: {e}");
            std::process::exit(4);
        }
    }
}
