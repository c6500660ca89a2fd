//! Runs the background scrub beside the services: a short read, a long rest, for ever.
//!
//! Never: in the way of mail; a step while the server stops.

use admin::Office;
use admin::scrub::{self, SAVED_EVERY, Scrub};
use mail::Timestamp;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// How long to wait when the store cannot be read.
const PAUSE: Duration = Duration::from_secs(600);
/// Before the first step: a start has other things to do.
const FIRST: Duration = Duration::from_secs(60);

/// Reads the whole store once in `days` days (0: never), until it is told to stop.
pub async fn run(office: Office, folder: PathBuf, days: u64, mut stopped: watch::Receiver<bool>) {
    if days == 0 {
        let _ = stopped.wait_for(|stop| *stop).await;
        return;
    }
    let mut state = match scrub::read(&office.store).await {
        Ok(state) => state.unwrap_or_default(),
        Err(error) => {
            tracing::warn!(%error, "where the scrub stood can't be read; it begins anew");
            Scrub::default()
        }
    };
    let mut saved = office.clock.now();
    let mut wait = FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stopped.wait_for(|stop| *stop) => break,
        }
        wait = step(&office, &folder, days, &mut state, &mut saved).await;
    }
    // A server that ran for a moment writes nothing.
    if state.began.is_some() {
        save(&office, &state).await;
    }
}

/// One step; how long to rest behind it.
async fn step(
    office: &Office,
    folder: &Path,
    days: u64,
    state: &mut Scrub,
    saved: &mut Timestamp,
) -> Duration {
    let (octets, every) = scrub::plan(octets_in(folder), days);
    let found = state.findings.len();
    match state.step(office, octets).await {
        Ok(ended) => {
            if ended && let Some(last) = &state.last {
                let (octets, findings) = (last.octets, last.findings.len());
                tracing::info!(octets, findings, "the scrub has read the whole store");
            }
            let now = office.clock.now();
            if ended || state.findings.len() > found || now.since(*saved) >= SAVED_EVERY {
                save(office, state).await;
                *saved = now;
            }
            every
        }
        Err(error) => {
            tracing::warn!(%error, "the scrub waits: the store can't be read");
            PAUSE
        }
    }
}

async fn save(office: &Office, state: &Scrub) {
    if let Err(error) = state.save(&office.store).await {
        tracing::warn!(%error, "where the scrub stands could not be written down");
    }
}

/// Octets of the files in a folder and its folders: what there is to read, about.
fn octets_in(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let octets = entries.flatten().map(|entry| match entry.metadata() {
        Ok(is) if is.is_dir() => octets_in(&entry.path()),
        Ok(is) => is.len(),
        Err(_) => 0,
    });
    octets.sum()
}
