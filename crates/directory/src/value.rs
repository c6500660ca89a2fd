//! Stored values: a version byte and JSON.

use crate::Error;
use serde::{Serialize, de::DeserializeOwned};
use store::{Key, KeyRange, Snapshot, Versioned};

const VERSION: u8 = 1;
/// Rows that are read at once where all are wanted.
const PAGE: usize = 1_000;

pub(crate) fn encode<T: Serialize>(key: &Key, record: &T) -> Result<Vec<u8>, Error> {
    let mut out = vec![VERSION];
    serde_json::to_writer(&mut out, record).map_err(|e| Error::Damaged {
        key: key.clone(),
        what: format!("it cannot be written: {e}"),
    })?;
    Ok(out)
}

pub(crate) fn decode<T: DeserializeOwned>(key: &Key, value: &[u8]) -> Result<T, Error> {
    let damaged = |what| Error::Damaged {
        key: key.clone(),
        what,
    };
    match value {
        [VERSION, json @ ..] => serde_json::from_slice(json).map_err(|e| damaged(e.to_string())),
        _ => Err(damaged("its version is unknown".to_owned())),
    }
}

/// All rows of a range, for what only operators ask.
pub(crate) async fn scan_all(
    snapshot: &dyn Snapshot,
    mut range: KeyRange,
) -> Result<Vec<(Key, Versioned)>, Error> {
    let mut all = Vec::new();
    loop {
        let rows = snapshot.scan(&range, PAGE).await?;
        let at_end = rows.len() < PAGE;
        if let Some((last, _)) = rows.last() {
            range = range.after(last);
        }
        all.extend(rows);
        if at_end {
            return Ok(all);
        }
    }
}
