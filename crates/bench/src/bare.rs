//! The bare receiver: the limit that an honest SMTP server on this machine can be compared with.
//!
//! It speaks just enough SMTP to read the same bytes over loopback, commits them in groups to one file
//! with one fdatasync a group, and answers 250. One thread reads and answers, one commits; while a group is
//! on its way to the disk the next one gathers.
//! Promises: no 250 before the fdatasync that covers the message has returned.
//! Never: judges, stores, indexes or delivers anything.

use crate::hub::{Bell, Hub, Keeper};
use crate::journal::{Growth, Journal};
use crate::problem::{Outcome, Problem, Trying};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Octets of the file that is written over round and round.
pub const FILE_OCTETS: u64 = 64 << 20;
/// Octets that may wait for the disk.
const WAITING_OCTETS_MAX: usize = 256 << 20;

/// Messages that wait for their commit.
#[derive(Default)]
struct Group {
    octets: Vec<u8>,
    sessions: Vec<u64>,
    over: bool,
}

#[derive(Default)]
struct Table {
    group: Mutex<Group>,
    news: Condvar,
}

/// What the bare receiver did.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct BareReport {
    /// Messages committed.
    pub messages: u64,
    /// Groups, each with one fdatasync.
    pub groups: u64,
}

struct Gatherer {
    table: Arc<Table>,
    journal: Arc<Mutex<Journal>>,
    buffer: Vec<u8>,
    sessions: Vec<u64>,
    alone: BareReport,
    failed: bool,
}

impl Keeper for Gatherer {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn took(&mut self, session: u64, alone: bool) -> bool {
        if !alone || !self.sessions.is_empty() {
            self.sessions.push(session);
            return false;
        }
        // Nobody to share a sync with: without a change of thread it is faster.
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        self.failed |= journal.commit(&self.buffer).is_err();
        self.buffer.clear();
        self.alone.messages += 1;
        self.alone.groups += 1;
        !self.failed
    }

    fn pause(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let mut group = self.table.group.lock().unwrap_or_else(PoisonError::into_inner);
        if group.octets.len() > WAITING_OCTETS_MAX {
            return;
        }
        if group.octets.is_empty() {
            std::mem::swap(&mut group.octets, &mut self.buffer);
        } else {
            group.octets.extend_from_slice(&self.buffer);
            self.buffer.clear();
        }
        group.sessions.append(&mut self.sessions);
        self.table.news.notify_one();
    }

    fn enough(&mut self) -> bool {
        self.failed
    }
}

/// Commits groups until it is told that it is over.
fn commit_groups(table: &Table, journal: &Mutex<Journal>, bell: &Bell) -> Outcome<BareReport> {
    let mut report = BareReport::default();
    let mut octets = Vec::new();
    loop {
        let mut sessions = {
            let mut group = table.group.lock().unwrap_or_else(PoisonError::into_inner);
            while group.sessions.is_empty() && !group.over {
                group = table.news.wait(group).unwrap_or_else(PoisonError::into_inner);
            }
            if group.sessions.is_empty() {
                return Ok(report);
            }
            std::mem::swap(&mut octets, &mut group.octets);
            std::mem::take(&mut group.sessions)
        };
        let done = journal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .commit(&octets);
        if let Err(error) = done {
            bell.end();
            return Err(Problem(format!("the bare receiver's file: {error}")));
        }
        octets.clear();
        report.groups += 1;
        report.messages += sessions.len() as u64;
        bell.safe(&mut sessions);
    }
}

/// Serves on `listener`, writing to a file in `folder`, until `bell` ends it.
///
/// # Errors
/// When the file cannot be made or written.
pub fn serve(listener: TcpListener, folder: &Path, bell: Bell) -> Outcome<BareReport> {
    let growth = Growth::Recycle { octets: FILE_OCTETS };
    let journal = Arc::new(Mutex::new(Journal::create(&folder.join("bare.log"), growth)?));
    let table = Arc::new(Table::default());
    let committer = std::thread::Builder::new()
        .name("commit".into())
        .spawn({
            let (table, journal, bell) = (table.clone(), journal.clone(), bell.clone());
            move || commit_groups(&table, &journal, &bell)
        })
        .trying(|| "thread".into())?;
    let gatherer = Gatherer {
        table: table.clone(),
        journal,
        buffer: Vec::new(),
        sessions: Vec::new(),
        alone: BareReport::default(),
        failed: false,
    };
    let served = Hub::new(listener, bell, gatherer).and_then(Hub::run);
    table.group.lock().unwrap_or_else(PoisonError::into_inner).over = true;
    table.news.notify_one();
    let shared = committer
        .join()
        .map_err(|_| Problem("the committing thread panicked".into()))??;
    let gatherer = served?;
    if gatherer.failed {
        return Err(Problem("the bare receiver's file could not be written".into()));
    }
    Ok(BareReport {
        messages: shared.messages + gatherer.alone.messages,
        groups: shared.groups + gatherer.alone.groups,
    })
}
