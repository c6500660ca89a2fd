//! The rows of a backup: what the catalogue, the entries and the counters of one state become.
//!
//! Never: a row that can't be read back; a reference that leads nowhere without a word about it.

use super::frame::FrameWriter;
use super::ids::IdSet;
use super::record::{self, BlobHead, FRAME_OCTETS, Totals};
use super::{DataFile, Findings};
use crate::blob::BlobId;
use crate::engine::Walk;
use crate::engine::dump::Held;
use crate::engine::walk::Raw;
use crate::rows::{self, BlobRow, Entry};
use crate::tables::ReadError;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Rows that are read at once.
pub(super) const PAGE_ROWS: usize = 4096;

/// Why rows could not be written.
pub(super) enum RowsError {
    /// The rows can't be read.
    Read(ReadError),
    /// The backup can't be written.
    Write(io::Error),
    /// The one who asked has gone.
    Stopped,
}

impl From<ReadError> for RowsError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<io::Error> for RowsError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// Writes the rows of a state behind whatever stands in the file already.
pub(super) struct RowsWriter<'a, W: Write> {
    pub(super) frames: &'a mut FrameWriter<W>,
    /// Blobs that could not be read, and why.
    pub(super) damaged: &'a BTreeMap<BlobId, String>,
    /// What is in the catalogue.
    listed: IdSet,
    /// Blobs that entries refer to and that are not there, told already.
    told: IdSet,
    pub(super) totals: Totals,
    pub(super) findings: &'a mut Findings,
}

impl<'a, W: Write> RowsWriter<'a, W> {
    pub(super) fn new(
        frames: &'a mut FrameWriter<W>,
        damaged: &'a BTreeMap<BlobId, String>,
        findings: &'a mut Findings,
    ) -> Self {
        Self {
            frames,
            damaged,
            listed: IdSet::default(),
            told: IdSet::default(),
            totals: Totals::default(),
            findings,
        }
    }

    /// Writes everything. `tell` is told how many rows were written and says whether to go on.
    pub(super) fn write(
        &mut self,
        held: &Held<'_>,
        files: &[DataFile],
        tell: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), RowsError> {
        self.catalogue(held.walk(rows::BLOB))?;
        for (id, why) in self.damaged {
            self.damage(Some(*id), &format!("blob {id}: {why}"))?;
        }
        self.rows(held.walk(rows::ENTRY), record::ENTRIES, tell)?;
        self.rows(held.walk(rows::COUNTER), record::COUNTERS, tell)?;
        for file in files {
            let path = record::encode_file(&file.path);
            self.frames.frame(record::FILE, &[&path, &file.octets])?;
            self.totals.files += 1;
        }
        Ok(())
    }

    fn catalogue(&mut self, mut walk: Walk) -> Result<(), RowsError> {
        let mut frame = Vec::with_capacity(FRAME_OCTETS);
        loop {
            let page = walk.raw_page(PAGE_ROWS)?;
            if page.is_empty() {
                break;
            }
            for raw in page {
                // What is damaged was told while the blobs were read.
                let Raw::Row(key, row) = raw else { continue };
                let (Some(id), Some(blob)) = (rows::blob_of_key(&key), BlobRow::decode(&row)) else {
                    continue;
                };
                if self.damaged.contains_key(&id) {
                    continue;
                }
                let head = BlobHead {
                    id,
                    len: blob.len,
                    check: blob.check,
                };
                frame.extend_from_slice(&head.encode());
                self.listed.add(id);
                self.totals.blobs += 1;
                self.totals.blob_octets += blob.len;
                if frame.len() + record::CATALOGUE_ITEM > FRAME_OCTETS {
                    self.frames.frame(record::CATALOGUE, &[&frame])?;
                    frame.clear();
                }
            }
        }
        self.listed.settle();
        if !frame.is_empty() {
            self.frames.frame(record::CATALOGUE, &[&frame])?;
        }
        Ok(())
    }

    fn rows(
        &mut self,
        mut walk: Walk,
        kind: u32,
        tell: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), RowsError> {
        let mut frame = Vec::with_capacity(FRAME_OCTETS);
        loop {
            let page = walk.raw_page(PAGE_ROWS)?;
            if page.is_empty() {
                break;
            }
            for raw in page {
                match raw {
                    Raw::Row(key, row) => {
                        if !self.row_is_good(&key, &row, kind)? {
                            continue;
                        }
                        // Without the octet of the space, which the frame's kind tells.
                        record::add_row(&mut frame, key.get(1..).unwrap_or_default(), &row);
                        if frame.len() >= FRAME_OCTETS {
                            self.frames.frame(kind, &[&frame])?;
                            frame.clear();
                        }
                    }
                    Raw::Damaged(key) => self.damage(None, &damaged_row(&key))?,
                    Raw::Gap { behind, until, why } => self.damage(None, &gap(&behind, &until, &why))?,
                }
            }
            if !tell(self.totals.entries + self.totals.counters) {
                return Err(RowsError::Stopped);
            }
        }
        if !frame.is_empty() {
            self.frames.frame(kind, &[&frame])?;
        }
        Ok(())
    }

    /// Counts a row, or tells that it is none.
    fn row_is_good(&mut self, key: &Bytes, row: &Bytes, kind: u32) -> io::Result<bool> {
        if kind == record::COUNTERS {
            if rows::decode_counter(row).is_none() {
                self.damage(None, &damaged_row(key))?;
                return Ok(false);
            }
            self.totals.counters += 1;
            return Ok(true);
        }
        let Some(entry) = Entry::decode(row) else {
            self.damage(None, &damaged_row(key))?;
            return Ok(false);
        };
        for id in entry.refs {
            if !self.listed.contains(id) && !self.damaged.contains_key(&id) && !self.told.contains(id) {
                let what = format!(
                    "blob {id}: the store does not know it, but {} refers to it",
                    in_words(key)
                );
                self.damage(Some(id), &what)?;
                self.told.add(id);
                self.told.settle();
            }
        }
        self.totals.entries += 1;
        Ok(true)
    }

    /// Puts a finding into the backup and into the report: an id (zeros: none), then words.
    fn damage(&mut self, id: Option<BlobId>, what: &str) -> io::Result<()> {
        let id = id.unwrap_or(BlobId([0; 16]));
        self.frames.frame(record::DAMAGE, &[&id.0, what.as_bytes()])?;
        self.totals.damaged += 1;
        self.findings.add(|| what.to_owned());
        Ok(())
    }
}

/// A row's key in words.
pub(super) fn in_words(row_key: &[u8]) -> String {
    let space = match row_key.first() {
        Some(&rows::ENTRY) => "entry",
        Some(&rows::COUNTER) => "counter",
        Some(&rows::BLOB) => "the row of blob",
        _ => "row",
    };
    let rest = row_key.get(1..).unwrap_or_default();
    let table = rest
        .first()
        .map_or(String::new(), |table| format!(" of table 0x{table:02x}"));
    match space {
        "the row of blob" => format!("{space} {}", hex(rest)),
        _ => format!("{space} {}{table}", hex(rest)),
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn damaged_row(row_key: &[u8]) -> String {
    format!("{}: damaged in the store", in_words(row_key))
}

fn gap(behind: &[u8], until: &[u8], why: &str) -> String {
    let until = match until {
        [] => "the end".to_owned(),
        until => hex(until),
    };
    format!("rows behind {} up to {until} can't be read: {why}", hex(behind))
}
