//! Start to listening with an empty store, and memory when idle.
//!
//! Promises: from the start of the process to its line `ready`, which it prints once all listeners are
//! bound; memory once it is quiet.
//! Never: counts the making of keys and accounts: that is done once, before.

use crate::account::Account;
use crate::args::Way;
use crate::measure::wait_until_quiet;
use crate::problem::{Outcome, Trying};
use crate::procfs;
use crate::quantile::Spread;
use crate::target::posthaste::{Installation, Posthaste};
use crate::target::{Launch, Target as _};
use serde::Serialize;
use std::path::Path;
use std::rc::Rc;

/// What the starts took.
#[derive(Debug, Clone, Serialize)]
pub struct StartReport {
    /// How often it was started.
    pub times: u16,
    /// From the start of the process to `ready`, in milliseconds.
    pub ready_ms: Option<Spread>,
    /// Resident memory when idle, program code and mapped files included, in octets.
    pub resident_octets: Option<Spread>,
    /// Resident memory when idle that no file is behind, in octets.
    pub private_octets: Option<Spread>,
}

/// Starts Posthaste `times` times.
///
/// # Errors
/// When it does not start.
pub fn run(program: &Path, folder: &Path, times: u16) -> Outcome<StartReport> {
    let installation = Rc::new(Installation::prepare(program, folder, 1)?);
    let server = Posthaste::new(&installation, Way::Plain);
    let (mut ready, mut resident, mut private) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..times {
        let place = tempfile::tempdir_in(folder).trying(|| folder.display().to_string())?;
        let account = Account::tree();
        let launch = Launch {
            account: &account,
            strace: None,
        };
        let running = server.start(place.path(), &launch)?;
        ready.push(running.ready_after.as_secs_f64() * 1e3);
        wait_until_quiet(&account, running.root());
        let status = format!("/proc/{}/status", running.root());
        let status = std::fs::read_to_string(&status).trying(|| status)?;
        let octets = |name| procfs::kib_line(&status, name).map_or(f64::NAN, |o| o as f64);
        resident.push(octets("VmRSS"));
        private.push(octets("RssAnon"));
        running.stop()?;
    }
    Ok(StartReport {
        times,
        ready_ms: Spread::of(ready),
        resident_octets: Spread::of(resident),
        private_octets: Spread::of(private),
    })
}
