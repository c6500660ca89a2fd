//! Opening a store: lock, superblock, index, replay of the log's tail, a clean end to append to.
//!
//! Order matters: what is replayed is synced before anything is built on it; the index learns of
//! it in durable transactions; the torn end is cut off before the first new group is written.
//! Never: a guess. Damage in front of acknowledged groups is an error, not a shorter log.

use super::applier::Applier;
use super::blobs::LargeFiles;
use super::committer::Committer;
use super::group::Position;
use super::index::Index;
use super::keeper::Keeper;
use super::log::{self, Replay, Segments, Writer};
use super::reserve::Reserve;
use super::shared::{ReplayFigures, Shared};
use super::state::State;
use super::supply::Supply;
use super::sync_pool::SyncPool;
use super::{Damage, OpenError, Options};
use crate::file::{Disk, Open};
use crate::overlay::Overlay;
use crate::rows;
use crate::tables::Seq;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::Arc;

/// First line of the superblock; the number is the version of the whole format.
pub(crate) const SUPERBLOCK: &str = "posthaste store 1";
/// That number.
const VERSION: u32 = 1;
/// What stands in its place while a backup is being restored.
pub(crate) const RESTORING: &str = "posthaste store: a backup is being restored into this folder\n";
/// Octets of a superblock at most.
const SUPERBLOCK_OCTETS_MAX: u64 = 256;
/// Replayed rows are put into the index whenever they have reached about this many octets.
const REPLAY_OCTETS: usize = 32 << 20;

/// A store ready to run.
pub(crate) struct Recovered {
    pub(crate) shared: Arc<Shared>,
    pub(crate) committer: Committer,
    pub(crate) applier: Applier,
    pub(crate) keeper: Keeper,
    pub(crate) lock: Box<dyn Send + Sync>,
    pub(crate) damage: Vec<Damage>,
    pub(crate) identity: u64,
    pub(crate) opening: u64,
}

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    path: &Path,
    options: Options,
    pool: Arc<SyncPool>,
) -> Result<Recovered, OpenError> {
    let (log_folder, large_folder) = (path.join("log"), path.join("large"));
    disk.create_dir(&log_folder)?;
    disk.create_dir(&large_folder)?;
    let lock = disk
        .lock(&path.join("lock"))
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => OpenError::Locked(path.to_owned()),
            _ => error.into(),
        })?;
    // The folders above may have been made just now, too: without its way down nothing is there.
    disk.sync_dir(path)?;
    for above in path
        .ancestors()
        .skip(1)
        .filter(|above| !above.as_os_str().is_empty())
    {
        match disk.sync_dir(above) {
            // The folder was made by someone else then.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            done => done?,
        }
    }
    let segments = Arc::new(Segments::new(disk.clone(), log_folder.clone()));
    let store = superblock(&*disk, path, &segments, &options)?;
    let index = Index::open(disk.clone(), path, options.index_cache_octets)?;
    match index.number("store")? {
        Some(known) if known != store => {
            return Err(OpenError::Format("the index belongs to another store".to_owned()));
        }
        _ => {}
    }
    let files = Arc::new(LargeFiles::new(disk.clone(), large_folder));
    let Replayed {
        end: position,
        damage,
        newest,
        figures,
    } = replay(&segments, &log_folder, &index, store, options.skip_damage)?;
    let opening = match index.number("opening")? {
        Some(opening) => opening.max(newest) + 1,
        // A new index: whatever names of blobs there are must not be given again.
        None => {
            files
                .list()?
                .into_iter()
                .map(super::opening_of)
                .fold(newest, u64::max)
                + 1
        }
    };
    index.apply(std::iter::empty(), &[("store", store), ("opening", opening)])?;
    // Behind the last group there is nothing that was acknowledged.
    for segment in segments.list()?.into_iter().filter(|n| *n > position.segment) {
        segments.remove(segment)?;
    }
    // A torn group in such a segment must not come back in front of later ones: opening the writer
    // syncs the folder, before the first new group.
    let supply = Supply::new(
        segments.clone(),
        position.segment,
        options.segment_octets,
        options.spare_segments,
    );
    let supply = Arc::new(supply);
    let writer = Writer::open(&segments, supply.clone(), position, options.segment_octets)?;
    let state = State {
        seq: Seq(position.next_seq - 1),
        active: Overlay::new_sync(),
        frozen: None,
        index: index.view()?,
    };
    let reserve = Reserve::new(disk, path.join("reserve"), options.reserve_octets);
    let shared = Arc::new(Shared::new(options, supply, files, reserve, pool, state, figures));
    Ok(Recovered {
        committer: Committer::new(shared.clone(), writer, store),
        applier: Applier::new(shared.clone(), index, position.segment, opening),
        keeper: Keeper::new(shared.clone(), store, position.segment),
        shared,
        lock,
        damage,
        identity: store,
        opening,
    })
}

/// Reads the store's number, or makes a new store. A superblock that was torn while the store was
/// being made is made again: nothing can have been acknowledged without it.
fn superblock(
    disk: &dyn Disk,
    path: &Path,
    segments: &Segments,
    options: &Options,
) -> Result<u64, OpenError> {
    let file = disk.open(&path.join("store"), Open::Write)?;
    let len = file.len()?.min(SUPERBLOCK_OCTETS_MAX);
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)?;
    let text = String::from_utf8_lossy(&bytes);
    if text == RESTORING {
        return Err(OpenError::Format(format!(
            "restoring a backup into it did not come to its end; remove {} and restore again",
            path.display()
        )));
    }
    let mut lines = text.lines();
    let format = lines.next().unwrap_or_default();
    if let Some(version) = version_of(format).filter(|version| *version != VERSION) {
        return Err(OpenError::Format(format!(
            "it is of version {version}, and this program reads version {VERSION}; start the program that wrote it, or a later one"
        )));
    }
    let number = lines
        .next()
        .filter(|n| n.len() == 16)
        .and_then(|n| u64::from_str_radix(n, 16).ok());
    match number {
        Some(number) if format == SUPERBLOCK => {
            // A process that was killed while it made the store may not have come to this.
            log::write_again(&*file, 0, bytes.len())?;
            return Ok(number);
        }
        Some(_) => return Err(OpenError::Format(format!("its superblock says {format:?}"))),
        None if !segments.list()?.is_empty() => {
            return Err(OpenError::Format(
                "there is a log, but its superblock can't be read".to_owned(),
            ));
        }
        None => {}
    }
    let number = options.identity.unwrap_or_else(random);
    file.set_len(0)?;
    file.write_all_at(format!("{SUPERBLOCK}\n{number:016x}\n").as_bytes(), 0)?;
    file.sync()?;
    disk.sync_dir(path)?;
    Ok(number)
}

/// The version that a superblock's first line names.
fn version_of(line: &str) -> Option<u32> {
    line.strip_prefix("posthaste store ")?.parse().ok()
}

/// The operating system's randomness, by way of the standard library's hash keys.
fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// What a replay came to.
struct Replayed {
    end: Position,
    damage: Vec<Damage>,
    /// The newest opening in which a replayed blob was staged.
    newest: u64,
    figures: ReplayFigures,
}

/// Brings the index up to the end of the log. Answers that end, damage, and the newest opening in
/// which a replayed blob was staged.
fn replay(
    segments: &Segments,
    folder: &Path,
    index: &Index,
    store: u64,
    skip_damage: bool,
) -> Result<Replayed, OpenError> {
    let start = index.position()?;
    let numbers = segments.list()?;
    if start == Position::START {
        if let Some(first) = numbers.first().filter(|n| **n > 1) {
            let what = "the index is lost, and so are the log's first segments";
            return Err(damaged(*first, what));
        }
    } else if !numbers.contains(&start.segment) {
        return Err(damaged(start.segment, "the segment is missing"));
    }
    if let Some(last) = numbers.last() {
        log::sync_replayed(segments, folder, start.segment, *last)?;
    }
    let mut replay = Replay::new(segments, store, start, skip_damage);
    let mut changed = Overlay::new_sync();
    let mut octets = 0;
    let mut newest = 0;
    while let Some(group) = replay.next_group()? {
        for (key, row) in group.rows {
            octets += key.len() + row.as_ref().map_or(0, |row| row.len());
            newest = newest.max(rows::blob_of_key(&key).map_or(0, super::opening_of));
            changed.insert_mut(key, row);
        }
        if octets >= REPLAY_OCTETS {
            replay.write_last_again()?;
            index.apply_to(changed.iter(), replay.position())?;
            (changed, octets) = (Overlay::new_sync(), 0);
        }
    }
    let end = replay.position();
    let mut damage = std::mem::take(&mut replay.damage);
    if end == start && is_cut(segments, start)? {
        damage.push(Damage {
            segment: start.segment,
            offset: start.offset,
            what: "the file ends before this place, to which acknowledged groups reached",
        });
    }
    if let Some(batches) = replay.begun()? {
        tracing::warn!(
            segment = end.segment,
            offset = end.offset,
            batches,
            "the last group of the log is not whole and is cut off: it was being written when the last run ended (or was damaged since)"
        );
    }
    if end != start {
        replay.write_last_again()?;
        index.apply_to(changed.iter(), end)?;
    }
    let figures = ReplayFigures {
        octets: replay.octets,
        batches: end.next_seq - start.next_seq,
    };
    Ok(Replayed {
        end,
        damage,
        newest,
        figures,
    })
}

/// Whether a segment's file is shorter than what the index knows of it.
fn is_cut(segments: &Segments, known: Position) -> Result<bool, OpenError> {
    if known == Position::START {
        return Ok(false);
    }
    Ok(segments.read(known.segment)?.len()? < known.offset)
}

fn damaged(segment: u64, what: &'static str) -> OpenError {
    OpenError::Damaged(Damage {
        segment,
        offset: 0,
        what,
    })
}
