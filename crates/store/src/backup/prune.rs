//! Keeping a folder of backups small: old backups go, and with them the blobs that no other needs.
//!
//! A pack in which less than half is needed is written anew without the rest; small packs are put
//! together. Promises: nothing goes before what takes its place is on stable storage; when a backup
//! that stays can't be read, or a pack is damaged, nothing of it goes.
//! Never: a touch on the backups of another store.

use super::frame::{Found, FrameReader, NotReadable};
use super::ids::IdSet;
use super::pack::{self, BlobOut as _, NEW, PackFile, PackSet};
use super::record::{self, BlobHead};
use super::write::{BackupError, Plan};
use crate::blob::BlobId;
use crate::file::{Disk, Open};
use std::io;
use std::path::{Path, PathBuf};

/// A pack of fewer octets is small.
const SMALL: u64 = 16 << 20;
/// When there are this many small packs they are put together.
const SMALL_PACKS_MAX: usize = 16;

/// A file of rows in a folder.
#[derive(Clone, Debug)]
pub(super) struct RowsFile {
    pub(super) store: u64,
    pub(super) number: u32,
    pub(super) path: PathBuf,
}

/// The files of rows of a folder, in the order of their numbers.
pub(super) fn rows_files(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<RowsFile>> {
    let names = disk.list(folder)?;
    let file = |name: &String| {
        let mut parts = name.strip_suffix(".rows")?.splitn(3, '-');
        Some(RowsFile {
            store: u64::from_str_radix(parts.next()?, 16).ok()?,
            number: u32::from_str_radix(parts.next()?, 16).ok()?,
            path: folder.join(name),
        })
    };
    let mut files: Vec<RowsFile> = names.iter().filter_map(file).collect();
    files.sort_unstable_by_key(|file| (file.store, file.number));
    Ok(files)
}

/// The number for the next file of rows of a store.
pub(super) fn next_number(disk: &dyn Disk, folder: &Path, store: u64) -> io::Result<u32> {
    let files = rows_files(disk, folder)?;
    let last = files
        .iter()
        .filter(|file| file.store == store)
        .map(|file| file.number)
        .max();
    Ok(last.map_or(1, |last| last.saturating_add(1)))
}

/// Removes what an interrupted backup left behind.
pub(super) fn remove_unfinished(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    for name in disk.list(folder)? {
        if name.ends_with(NEW) {
            disk.remove(&folder.join(name))?;
        }
    }
    Ok(())
}

/// The blobs of a store that are in the packs of a folder, and the number for the next pack.
pub(super) fn known(
    disk: &dyn Disk,
    folder: &Path,
    store: u64,
    notes: &mut Vec<String>,
) -> io::Result<(IdSet, u32)> {
    let mut have = IdSet::default();
    let mut next = 1;
    let mut others = 0;
    for pack in pack::list(disk, folder)? {
        if pack.store != store {
            others += 1;
            continue;
        }
        next = next.max(pack.number.saturating_add(1));
        match pack::index(disk, &pack)? {
            Some((items, _)) => items.into_iter().for_each(|(id, _)| have.add(id)),
            None => notes.push(format!(
                "{}: its index can't be read; what is in it is written anew",
                pack.path.display()
            )),
        }
    }
    if others > 0 {
        notes.push(format!(
            "{} also holds {others} packs of another store (from before a restore?); they are left alone",
            folder.display()
        ));
    }
    have.settle();
    Ok((have, next))
}

/// Removes the backups beyond the newest `plan.keep`, and what only they needed. Answers how many.
pub(super) fn prune(
    disk: &dyn Disk,
    folder: &Path,
    store: u64,
    plan: &Plan,
    notes: &mut Vec<String>,
) -> Result<u64, BackupError> {
    let (rows_at, packs_at) = (folder.join("rows"), folder.join("packs"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| BackupError::io(&path, &error)
    };
    let mut files = rows_files(disk, &rows_at).map_err(failed(&rows_at))?;
    files.retain(|file| file.store == store);
    let old = files.len().saturating_sub(plan.keep.max(1));
    let kept = files.split_off(old);
    for file in &files {
        disk.remove(&file.path).map_err(failed(&file.path))?;
    }
    // The backups are gone for good before their blobs go.
    disk.sync_dir(&rows_at).map_err(failed(&rows_at))?;
    let mut needed = IdSet::default();
    for file in &kept {
        if let Err(why) = add_catalogue(disk, &file.path, &mut needed) {
            let path = file.path.display();
            notes.push(format!("{path}: {why}; no blobs are dropped while it is there"));
            return Ok(files.len() as u64);
        }
    }
    needed.settle();
    sweep(disk, &packs_at, store, plan.time, &needed, notes).map_err(failed(&packs_at))?;
    Ok(files.len() as u64)
}

fn add_catalogue(disk: &dyn Disk, path: &Path, needed: &mut IdSet) -> Result<(), String> {
    let file = disk.open(path, Open::Read).map_err(|error| error.to_string())?;
    let mut frames = FrameReader::open(file).map_err(|error: NotReadable| error.to_string())?;
    loop {
        match frames.next().map_err(|error| error.to_string())? {
            Found::Frame {
                kind: record::CATALOGUE,
                payload,
            } => {
                let items = record::decode_catalogue(&payload).ok_or("its catalogue is damaged")?;
                items.into_iter().for_each(|item| needed.add(item.id));
            }
            Found::Frame { .. } => {}
            Found::Damage { what, .. } => return Err(what),
            Found::Nothing => return Ok(()),
        }
    }
}

fn sweep(
    disk: &dyn Disk,
    folder: &Path,
    store: u64,
    time: i64,
    needed: &IdSet,
    notes: &mut Vec<String>,
) -> io::Result<()> {
    let mut packs = pack::list(disk, folder)?;
    packs.retain(|pack| pack.store == store);
    let next = packs
        .iter()
        .map(|pack| pack.number)
        .max()
        .unwrap_or(0)
        .saturating_add(1);
    let (mut dead, mut worn, mut small) = (Vec::new(), Vec::new(), Vec::new());
    for pack in packs {
        let Some((items, octets)) = pack::index(disk, &pack)? else {
            continue;
        };
        let all: u64 = items.iter().map(|(_, len)| len + 1).sum();
        let live = items.iter().filter(|(id, _)| needed.contains(*id));
        let live: u64 = live.map(|(_, len)| len + 1).sum();
        match () {
            () if live == 0 => dead.push(pack),
            () if live < all / 2 => worn.push(pack),
            () if octets < SMALL => small.push(pack),
            () => {}
        }
    }
    if small.len() >= SMALL_PACKS_MAX {
        worn.append(&mut small);
    }
    let mut fresh = PackSet::new(disk, folder.to_owned(), store, time, next);
    for pack in worn {
        match copy_needed(disk, &pack, needed, &mut fresh)? {
            true => dead.push(pack),
            false => notes.push(format!(
                "{}: it is damaged, and stays as it is",
                pack.path.display()
            )),
        }
    }
    fresh.finish()?;
    for pack in &dead {
        disk.remove(&pack.path)?;
    }
    disk.sync_dir(folder)
}

/// Copies what is needed of a pack. `false`: it is damaged.
fn copy_needed(disk: &dyn Disk, pack: &PackFile, needed: &IdSet, out: &mut PackSet<'_>) -> io::Result<bool> {
    let Ok(mut frames) = FrameReader::open(disk.open(&pack.path, Open::Read)?) else {
        return Ok(false);
    };
    // The blob that is being copied, and how many of its octets are.
    let mut current: Option<(BlobHead, u64)> = None;
    loop {
        let (id, at, octets): (BlobId, u64, u64) = match frames.next()? {
            Found::Frame {
                kind: record::BLOB,
                payload,
            } => {
                let Some((head, first)) = record::BlobHead::decode(&payload) else {
                    return Ok(false);
                };
                current = needed.contains(head.id).then_some((head, 0));
                if current.is_some() {
                    out.blob(head, first)?;
                }
                (head.id, 0, first.len() as u64)
            }
            Found::Frame {
                kind: record::MORE,
                payload,
            } => {
                let Some((id, at, piece)) = record::decode_more(&payload) else {
                    return Ok(false);
                };
                if current.is_some_and(|(head, done)| head.id == id && done == at) {
                    out.more(id, at, piece)?;
                }
                (id, at, piece.len() as u64)
            }
            Found::Frame { .. } => continue,
            Found::Damage { .. } => return Ok(false),
            Found::Nothing => return Ok(true),
        };
        if let Some((head, done)) = &mut current
            && head.id == id
            && *done == at
        {
            *done += octets;
            if *done == head.len {
                out.done(*head);
                current = None;
            }
        }
    }
}
