//! The bare receiver as a process of its own: this program again.
//!
//! Promises: a fresh file for each start. Never: more than `bench bare` does.

use super::{Launch, Running, Stop, Target, start_until_ready};
use crate::problem::{Outcome, Trying};
use std::path::Path;

/// `bench bare`.
#[derive(Debug)]
pub struct Bare;

impl Target for Bare {
    fn name(&self) -> &str {
        "bare"
    }

    fn describe(&self) -> String {
        format!(
            "bare: `bench bare`, the same bytes read from loopback, one fdatasync a group into one file of {} MiB \
             that is written over; nothing is judged, parsed or delivered.",
            crate::bare::FILE_OCTETS >> 20
        )
    }

    fn start(&self, folder: &Path, launch: &Launch<'_>) -> Outcome<Running> {
        let program = std::env::current_exe().trying(|| "this program's own path".into())?;
        let mut command = launch.command(&program);
        command.args(["bare", "--dir"]).arg(folder);
        let started = start_until_ready(&mut command, &folder.join("stderr.log"))?;
        let address = started.address("smtp")?;
        Ok(Running::new(address, started.after, started.child, Stop::Term))
    }
}
