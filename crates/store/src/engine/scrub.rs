//! Looking at a whole store little by little, for years: one short step at a time, from a cursor.
//!
//! A step reads the next rows of the state as it is now, and every octet of the blobs among them.
//! So rot is found while a backup still has what it ate. Promises: a step holds no state beyond its
//! end and reads about as much as it is allowed (one blob more at most); the cursor is a plain
//! value that survives restarts and any change of the store. Never: counts, which need one whole
//! state (see `verify`); a write.

use super::shared::Shared;
use super::verify::{Read, place_of, read_whole};
use super::walk::{Raw, Walk, Walked, decoded};
use crate::finding::{Finding, Severity, Tell, Where};
use crate::tables::ReadError;
use std::convert::Infallible;

/// Rows of one step at most.
const STEP_ROWS: usize = 500;

const RESTORE: &str = "check the disk, then restore what is named from a backup; posthaste audit --deep names the messages that suffer";

/// What a step did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scrubbed {
    /// Where the next step begins; `None`: the end was reached.
    pub next: Option<Vec<u8>>,
    /// Rows that were looked at.
    pub rows: u64,
    /// Octets that were read, of rows and of blobs.
    pub octets: u64,
}

pub(crate) fn step(
    shared: &Shared,
    from: &[u8],
    octets_max: u64,
    tell: Tell<'_>,
) -> Result<Scrubbed, ReadError> {
    let mut walk = Walk::between(shared.state(), from.to_vec(), Vec::new());
    let page = walk.raw_page(STEP_ROWS)?;
    // The state may go: what a blob's row says is looked up anew.
    drop(walk);
    let mut done = Scrubbed::default();
    for raw in page {
        if done.octets >= octets_max {
            return Ok(done);
        }
        if let Raw::Row(key, row) = &raw {
            done.rows += 1;
            done.octets += (key.len() + row.len()) as u64;
            let mut next = key.to_vec();
            next.push(0);
            done.next = Some(next);
        }
        match decoded(raw) {
            Walked::Blob { id, .. } => {
                let mut count = |octets: u64| {
                    done.octets += octets;
                    Ok::<(), Infallible>(())
                };
                if let Ok(Read::Bad(place, what)) = read_whole(shared, id, &mut count) {
                    let place = Where::Blob(id, place);
                    tell(Finding::new(
                        Severity::Error,
                        "blob-damaged",
                        place,
                        what,
                        RESTORE,
                    ));
                }
            }
            Walked::Damaged { row_key, what } => {
                let place = place_of(&row_key);
                tell(Finding::new(Severity::Error, "row-damaged", place, what, RESTORE));
            }
            Walked::Gap { behind, why, .. } => {
                let place = place_of(&behind);
                let what = format!("rows can't be read behind here: {why}");
                tell(Finding::new(
                    Severity::Error,
                    "index-unreadable",
                    place,
                    what,
                    RESTORE,
                ));
            }
            _ => {}
        }
    }
    if done.rows == 0 {
        done.next = None;
    }
    Ok(done)
}
