//! Large messages while they come in: in a file without a name, so that slow large senders hold
//! little memory.
//!
//! What a message has brought beyond the limit for memory goes to the file in pieces, off the network
//! threads; at its end the whole is read back, within a budget of its own, to be judged and stored.
//! The files have no name (O_TMPFILE): they end with their message, and with the process. What they
//! hold was not promised to anybody, so nothing of it is synced.
//! Never: a cost for a message that is smaller.

use crate::MEMORY_UNIT;
use crate::session::Session;
use crate::transaction::Transaction;
use smtp::{Reply, Server, replies};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Octets that a message that has a file gathers in memory before they go there.
const PIECE_OCTETS: usize = 64 * 1024;

/// Where large messages go while they come in, and how much of them there may be.
#[derive(Clone, Debug)]
pub struct Spilling {
    /// The folder of the files; it must exist.
    pub folder: PathBuf,
    /// Octets that a message may have before it goes to a file. Default 1 MiB.
    pub over_octets: usize,
    /// Octets of all files; beyond it 452 is answered. Default 4 GiB.
    pub disk_max_octets: u64,
    /// Octets of such messages that are whole in memory at the same time; others wait for their turn.
    /// Must hold the largest message. Default 256 MiB.
    pub whole_max_octets: usize,
}

/// The room that [`Spilling`] gives.
pub(crate) struct Room {
    spilling: Spilling,
    disk: Arc<Semaphore>,
    whole: Arc<Semaphore>,
}

/// The part of a message that is in a file.
pub(crate) struct Spilled {
    file: Arc<File>,
    octets: usize,
    disk: Vec<OwnedSemaphorePermit>,
}

impl Room {
    pub(crate) fn new(spilling: Spilling) -> Self {
        let units = usize::try_from(spilling.disk_max_octets).unwrap_or(usize::MAX) / MEMORY_UNIT;
        Self {
            disk: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
            whole: Arc::new(Semaphore::new(spilling.whole_max_octets / MEMORY_UNIT)),
            spilling,
        }
    }
}

fn units_of(octets: usize) -> u32 {
    u32::try_from(octets.div_ceil(MEMORY_UNIT)).unwrap_or(u32::MAX)
}

impl Session {
    /// Whether the message holds more memory than it should.
    pub(crate) fn has_to_spill(&self) -> bool {
        let (Some(room), Some(transaction)) = (&self.ctx.spill, &self.transaction) else {
            return false;
        };
        let may_hold = match &transaction.spilled {
            Some(_) => PIECE_OCTETS,
            None => room.spilling.over_octets,
        };
        transaction.message.len() > may_hold
    }

    /// Moves what the message holds in memory to its file.
    pub(crate) async fn spill(&mut self, server: &mut Server) {
        let (Some(room), Some(transaction)) = (&self.ctx.spill, &mut self.transaction) else {
            return;
        };
        let piece = std::mem::take(&mut transaction.message);
        if let Err(reply) = write_piece(room, transaction, piece).await {
            transaction.spilled = None;
            server.refuse_message(reply);
        }
        transaction.memory.clear();
        transaction.memory_units = 0;
    }

    /// Makes the message whole again in memory, at its end.
    pub(crate) async fn make_whole(&self, transaction: &mut Transaction) -> Result<(), Reply> {
        let (Some(room), Some(spilled)) = (&self.ctx.spill, transaction.spilled.take()) else {
            return Ok(());
        };
        let octets = spilled.octets + transaction.message.len();
        let turn = room.whole.clone().acquire_many_owned(units_of(octets));
        let Ok(Ok(turn)) = timeout(self.ctx.options.gather_timeout, turn).await else {
            return Err(replies::BUSY);
        };
        let rest = std::mem::take(&mut transaction.message);
        let read = spawn_blocking(move || {
            let mut whole = Vec::with_capacity(octets);
            let mut file = spilled.file.as_ref();
            file.seek(SeekFrom::Start(0))?;
            file.take(spilled.octets as u64).read_to_end(&mut whole)?;
            if whole.len() < spilled.octets {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            whole.extend_from_slice(&rest);
            Ok(whole)
        });
        transaction.message = finished(read.await)?;
        transaction.memory.push(turn);
        Ok(())
    }
}

async fn write_piece(room: &Room, transaction: &mut Transaction, piece: Vec<u8>) -> Result<(), Reply> {
    let disk = room.disk.clone().try_acquire_many_owned(units_of(piece.len()));
    let disk = disk.map_err(|_| replies::BUSY)?;
    let (folder, octets) = (room.spilling.folder.clone(), piece.len());
    let known = transaction.spilled.as_ref().map(|s| s.file.clone());
    let written = spawn_blocking(move || {
        let file = match known {
            Some(file) => file,
            None => Arc::new(tempfile::tempfile_in(folder)?),
        };
        file.as_ref().write_all(&piece)?;
        Ok(file)
    });
    let file = finished(written.await)?;
    let spilled = transaction.spilled.get_or_insert_with(|| Spilled {
        file,
        octets: 0,
        disk: Vec::new(),
    });
    spilled.octets += octets;
    spilled.disk.push(disk);
    Ok(())
}

/// What came of work with the file, as a reply where it failed.
fn finished<T>(work: Result<io::Result<T>, tokio::task::JoinError>) -> Result<T, Reply> {
    let error = match work {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(error)) => error,
        Err(error) => io::Error::other(error),
    };
    tracing::error!(%error, "the file of a large message that is coming in");
    Err(match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => replies::DISK_FULL,
        _ => replies::STORE_FAILED,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_as_such() {
        let full = finished::<()>(Ok(Err(io::ErrorKind::StorageFull.into()))).unwrap_err();
        assert_eq!(full, replies::DISK_FULL);
        let broken = finished::<()>(Ok(Err(io::ErrorKind::NotFound.into()))).unwrap_err();
        assert_eq!(broken, replies::STORE_FAILED);
        assert_eq!(units_of(1), 1);
        assert_eq!(units_of(4_096), 4);
    }
}
