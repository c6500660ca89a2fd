//! Reading every row of one consistent state, in key order, page by page.
//!
//! Promises: each row of the state is told once, as good or as damaged, with its key; damage never
//! ends the walk; memory is one page. It is what verification, backup and export stand on.
//! Where even the index's own pages can't be read, the gap is told, and the walk goes on behind it.
//! Never: a write, a lock held between pages, a row of another state than the one it began with.
//!
//! A walk holds its state: rows that are replaced meanwhile stay in memory and in the index file
//! until the walk is dropped. Commits go on.

use super::index::{IndexRow, IndexView};
use super::state::State;
use crate::blob::BlobId;
use crate::key::Key;
use crate::overlay::Overlay;
use crate::rows::{self, BlobRow, Entry, Place, SegmentRow};
use crate::tables::{ReadError, Receipt, Seq};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

/// A page is ended when its rows have reached this many octets (1 MiB).
const PAGE_OCTETS: usize = 1 << 20;

/// A row of the state, or the place where one can't be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Walked {
    /// An entry that a caller put.
    Entry {
        /// The caller's key.
        key: Key,
        /// The commit that last wrote it.
        version: u64,
        /// The blobs that it refers to.
        refs: Vec<BlobId>,
        /// The value.
        value: Bytes,
    },
    /// A counter.
    Counter {
        /// The caller's key.
        key: Key,
        /// What it stands at.
        count: i64,
    },
    /// A blob.
    Blob {
        /// Its name.
        id: BlobId,
        /// How many references entries are said to hold.
        refs: u64,
        /// Octets.
        len: u64,
        /// The segment of the log and the offset in it; `None` when it has a file of its own.
        place: Option<(u64, u64)>,
    },
    /// What is said to live in a segment of the log.
    Segment {
        /// Its number.
        segment: u64,
        /// Living blobs.
        blobs: u64,
        /// Their octets.
        octets: u64,
    },
    /// The remembered receipt of a named batch.
    Receipt {
        /// The batch's name.
        id: u128,
        /// What it was answered.
        receipt: Receipt,
    },
    /// A place in the ring of remembered names.
    Ring {
        /// The place.
        slot: u32,
        /// The name that stands there.
        id: u128,
    },
    /// Which place of the ring is taken next.
    RingNext(i64),
    /// A row whose checksum does not hold, or whose octets are no row of its kind.
    Damaged {
        /// The row's key, its first octet being the space.
        row_key: Bytes,
        /// What is wrong.
        what: &'static str,
    },
    /// Rows that can't be read at all, because a page of the index is damaged.
    Gap {
        /// The row key behind which nothing could be read.
        behind: Bytes,
        /// The first row key from which reading was possible again; empty: not before the end.
        until: Bytes,
        /// What the index said.
        why: String,
    },
}

/// A row as it stands, for those who copy rows.
pub(crate) enum Raw {
    /// Key and row.
    Row(Bytes, Bytes),
    /// The row under this key is damaged.
    Damaged(Bytes),
    /// See [`Walked::Gap`].
    Gap {
        behind: Bytes,
        until: Bytes,
        why: String,
    },
}

/// A walk through the rows of one state.
pub struct Walk {
    state: Arc<State>,
    /// The first row key that was not yet told.
    next: Vec<u8>,
    /// The first row key behind the walk; empty: none.
    end: Vec<u8>,
    done: bool,
}

impl Walk {
    /// Through all rows.
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self::between(state, Vec::new(), Vec::new())
    }

    /// Through the rows from `start` (inclusive) to `end` (exclusive; empty: no end).
    pub(crate) fn between(state: Arc<State>, start: Vec<u8>, end: Vec<u8>) -> Self {
        Self {
            state,
            next: start,
            end,
            done: false,
        }
    }

    /// The commit up to which the walk sees.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.state.seq
    }

    /// The next rows, at most `rows_max` good ones and about 1 MiB; empty at the end. Damaged rows
    /// are told among them. Fails only when the index was closed under the walk: begin anew then.
    pub fn page(&mut self, rows_max: usize) -> Result<Vec<Walked>, ReadError> {
        let raw = self.raw_page(rows_max)?;
        Ok(raw.into_iter().map(decoded).collect())
    }

    /// [`Walk::page`], undecoded.
    pub(crate) fn raw_page(&mut self, rows_max: usize) -> Result<Vec<Raw>, ReadError> {
        let mut out = Vec::new();
        if self.done || rows_max == 0 {
            return Ok(out);
        }
        let state = self.state.clone();
        let mut upper = Upper::new(&state, &self.next, &self.end);
        let mut lower = Lower::new(&state.index, self.next.clone(), self.end.clone());
        let (mut rows, mut octets) = (0, 0);
        while rows < rows_max && octets < PAGE_OCTETS {
            let below = match lower.peek()? {
                Some(Raw::Row(key, _)) => Some(key.clone()),
                // Told at once, unless a newer row stands above it.
                Some(_) => {
                    out.extend(lower.take().filter(|raw| !is_hidden(&state, raw)));
                    continue;
                }
                None => None,
            };
            let (key, row) = match (upper.peek(), below) {
                (Some(above), below) if below.as_ref().is_none_or(|below| above <= *below) => {
                    if below.is_some_and(|below| below == above) {
                        lower.take();
                    }
                    upper.take(&above)
                }
                (_, Some(_)) => match lower.take() {
                    Some(Raw::Row(key, row)) => (key, Some(row)),
                    _ => continue,
                },
                _ => {
                    self.done = true;
                    break;
                }
            };
            self.next = key.to_vec();
            self.next.push(0);
            if let Some(row) = row {
                rows += 1;
                octets += key.len() + row.len();
                out.push(Raw::Row(key, row));
            }
        }
        Ok(out)
    }
}

/// Whether something newer stands above a damaged row of the index.
fn is_hidden(state: &State, raw: &Raw) -> bool {
    let Raw::Damaged(key) = raw else { return false };
    let frozen = state.frozen.as_ref();
    state.active.contains_key(key) || frozen.is_some_and(|frozen| frozen.contains_key(key))
}

/// The rows of one layer in memory, in order.
type Rows<'a> = Box<dyn Iterator<Item = (&'a Bytes, &'a Option<Bytes>)> + 'a>;

/// The rows in memory, the newer layer above the older.
struct Upper<'a> {
    layers: Vec<std::iter::Peekable<Rows<'a>>>,
}

impl<'a> Upper<'a> {
    fn new(state: &'a State, start: &[u8], end: &[u8]) -> Self {
        let overlays: Vec<&Overlay> = std::iter::once(&state.active).chain(&state.frozen).collect();
        let layer = |overlay: &'a Overlay| {
            let upper = match end {
                [] => Bound::Unbounded,
                end => Bound::Excluded(Bytes::copy_from_slice(end)),
            };
            let lower = Bound::Included(Bytes::copy_from_slice(start));
            let rows: Rows<'a> = match end.is_empty() || start < end {
                true => Box::new(overlay.range((lower, upper))),
                false => Box::new(std::iter::empty()),
            };
            rows.peekable()
        };
        Self {
            layers: overlays.into_iter().map(layer).collect(),
        }
    }

    fn peek(&mut self) -> Option<Bytes> {
        let heads = self.layers.iter_mut().filter_map(|layer| layer.peek());
        heads.map(|(key, _)| (*key).clone()).min()
    }

    /// Takes what stands under a key in every layer; the uppermost says what it is.
    fn take(&mut self, key: &Bytes) -> (Bytes, Option<Bytes>) {
        let mut found = None;
        for layer in &mut self.layers {
            if let Some((_, row)) = layer.next_if(|(head, _)| *head == key) {
                found.get_or_insert_with(|| row.clone());
            }
        }
        (key.clone(), found.flatten())
    }
}

/// The rows of the index, damage told.
struct Lower<'a> {
    view: &'a IndexView,
    rows: Option<Box<dyn Iterator<Item = IndexRow>>>,
    /// The last good key, or where the walk begins.
    at: Vec<u8>,
    end: Vec<u8>,
    head: VecDeque<Raw>,
}

impl<'a> Lower<'a> {
    fn new(view: &'a IndexView, start: Vec<u8>, end: Vec<u8>) -> Self {
        Self {
            view,
            rows: None,
            at: start,
            end,
            head: VecDeque::new(),
        }
    }

    fn peek(&mut self) -> Result<Option<&Raw>, ReadError> {
        if self.head.is_empty() {
            self.fill()?;
        }
        Ok(self.head.front())
    }

    fn take(&mut self) -> Option<Raw> {
        self.head.pop_front()
    }

    fn fill(&mut self) -> Result<(), ReadError> {
        if self.rows.is_none() {
            let from = self.at.clone();
            match self.view.rows_told(&from, &self.end) {
                Ok(rows) => self.rows = Some(rows),
                Err(why) => return self.skip(why),
            }
        }
        match self.rows.as_mut().and_then(Iterator::next) {
            Some(IndexRow::Row(key, row)) => {
                self.at = key.to_vec();
                self.head.push_back(Raw::Row(key, row));
            }
            Some(IndexRow::Damaged(key)) => self.head.push_back(Raw::Damaged(key)),
            Some(IndexRow::Unreadable(why)) => self.skip(why)?,
            None => {}
        }
        Ok(())
    }

    /// Finds the nearest place behind `at` from which the index can be read again.
    fn skip(&mut self, why: String) -> Result<(), ReadError> {
        if self.view.is_closed() {
            return Err(ReadError::Io(why));
        }
        let behind = Bytes::from(self.at.clone());
        for length in (1..=self.at.len()).rev() {
            let Some(from) = successor(&self.at[..length]) else {
                continue;
            };
            if !self.end.is_empty() && from >= self.end {
                break;
            }
            let Ok(mut rows) = self.view.rows_told(&from, &self.end) else {
                continue;
            };
            // The first step shows whether the place can be read.
            let first = match rows.next() {
                Some(IndexRow::Unreadable(_)) => continue,
                Some(IndexRow::Row(key, row)) => {
                    self.at = key.to_vec();
                    Some(Raw::Row(key, row))
                }
                Some(IndexRow::Damaged(key)) => {
                    self.at = from.clone();
                    Some(Raw::Damaged(key))
                }
                None => None,
            };
            self.rows = Some(rows);
            self.head.push_back(Raw::Gap {
                behind,
                until: from.into(),
                why,
            });
            self.head.extend(first);
            return Ok(());
        }
        self.rows = Some(Box::new(std::iter::empty()));
        self.head.push_back(Raw::Gap {
            behind,
            until: Bytes::new(),
            why,
        });
        Ok(())
    }
}

/// The first key that does not begin with this one; `None` when there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if last != 0xff {
            next.push(last + 1);
            return Some(next);
        }
    }
    None
}

/// A row as it is told.
pub(crate) fn decoded(raw: Raw) -> Walked {
    match raw {
        Raw::Row(key, row) => match known(&key, &row) {
            Some(walked) => walked,
            None => Walked::Damaged {
                row_key: key,
                what: "the checksum holds, but this is no row of its kind",
            },
        },
        Raw::Damaged(row_key) => Walked::Damaged {
            row_key,
            what: "the row's checksum does not hold",
        },
        Raw::Gap { behind, until, why } => Walked::Gap { behind, until, why },
    }
}

fn known(row_key: &Bytes, row: &Bytes) -> Option<Walked> {
    let rest = row_key.get(1..)?;
    let id = |octets: &[u8]| Some(u128::from_be_bytes(octets.try_into().ok()?));
    Some(match *row_key.first()? {
        rows::ENTRY => {
            let entry = Entry::decode(row)?;
            Walked::Entry {
                key: rows::key_of_entry(row_key),
                version: entry.version,
                refs: entry.refs,
                value: entry.value,
            }
        }
        rows::COUNTER => Walked::Counter {
            key: rows::key_of_entry(row_key),
            count: rows::decode_counter(row)?,
        },
        rows::BLOB => {
            let blob = BlobRow::decode(row)?;
            Walked::Blob {
                id: rows::blob_of_key(row_key)?,
                refs: blob.refs,
                len: blob.len,
                place: match blob.place {
                    Place::Log { segment, offset } => Some((segment, offset)),
                    Place::Own => None,
                },
            }
        }
        rows::SEGMENT => {
            let figures = SegmentRow::decode(row)?;
            Walked::Segment {
                segment: rows::segment_of_key(row_key)?,
                blobs: figures.blobs,
                octets: figures.octets,
            }
        }
        rows::RECEIPT => Walked::Receipt {
            id: id(rest)?,
            receipt: rows::decode_receipt(row)?,
        },
        rows::RING => Walked::Ring {
            slot: u32::from_be_bytes(rest.try_into().ok()?),
            id: id(row)?,
        },
        rows::RING_NEXT if rest.is_empty() => Walked::RingNext(rows::decode_counter(row)?),
        _ => return None,
    })
}
