//! The TXT record at `_mta-sts.<domain>` (RFC 8461 §3.1): says that there is a policy, and which.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The label below which the record stands.
pub const RECORD_LABEL: &str = "_mta-sts";
/// What a record begins with.
const VERSION: &[u8] = b"v=STSv1";
/// Characters of an id at most (RFC 8461 §3.1).
pub const ID_OCTETS_MAX: usize = 32;
/// Octets of the name of a field that we do not know, at most (RFC 8461 §3.1).
const EXTENSION_NAME_OCTETS_MAX: usize = 32;

/// Names one version of a domain's policy: 1 to [`ID_OCTETS_MAX`] letters and digits. It means
/// nothing but "another than before".
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl Id {
    /// Reads an id.
    ///
    /// # Errors
    /// When it is empty, too long, or holds something else than letters and digits.
    pub fn parse(text: &str) -> Result<Self, RecordFault> {
        let fits = (1..=ID_OCTETS_MAX).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(RecordFault::Id)
        }
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Id {
    type Error = RecordFault;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> String {
        id.0
    }
}

/// Why the records of a domain name no policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordFault {
    /// More than one record begins with `v=STSv1`.
    #[error("there are {0} TXT records that begin with v=STSv1; there must be one")]
    Several(usize),
    /// There is no `id=`.
    #[error("the TXT record has no id=")]
    NoId,
    /// The id is not 1 to 32 letters and digits.
    #[error("the id in the TXT record is not 1 to 32 letters and digits")]
    Id,
    /// Something between two semicolons is no `name=value`.
    #[error("the TXT record is not of the form v=STSv1; id=...;")]
    Syntax,
}

/// The id in the texts of one answer; `None` when no text is about MTA-STS. Texts that begin
/// otherwise do not count (RFC 8461 §3.1).
///
/// # Errors
/// When there are several records, or the one is malformed: then there is no policy to be found.
pub fn find<T: AsRef<[u8]>>(texts: &[T]) -> Result<Option<Id>, RecordFault> {
    let records: Vec<&[u8]> = texts.iter().filter_map(|text| fields(text.as_ref())).collect();
    match records.as_slice() {
        [] => Ok(None),
        [one] => id_in(one).map(Some),
        several => Err(RecordFault::Several(several.len())),
    }
}

/// What stands behind the first semicolon of a record; `None` when the text is none.
fn fields(text: &[u8]) -> Option<&[u8]> {
    let rest = text.strip_prefix(VERSION)?;
    trim(rest).strip_prefix(b";")
}

fn id_in(fields: &[u8]) -> Result<Id, RecordFault> {
    let mut id = None;
    let mut parts: Vec<&[u8]> = fields.split(|b| *b == b';').map(trim).collect();
    // The last field may be followed by a semicolon or not.
    if parts.last().is_some_and(|last| last.is_empty()) {
        parts.pop();
    }
    for part in parts {
        let at = part.iter().position(|b| *b == b'=').ok_or(RecordFault::Syntax)?;
        let (name, value) = (&part[..at], &part[at + 1..]);
        if name == b"id" {
            // RFC 8461 §3.1: of a field that stands twice the first counts.
            if id.is_none() {
                let text = std::str::from_utf8(value).map_err(|_| RecordFault::Id)?;
                id = Some(Id::parse(text)?);
            }
        } else if !is_extension(name, value) {
            return Err(RecordFault::Syntax);
        }
    }
    id.ok_or(RecordFault::NoId)
}

/// `sts-extension` of RFC 8461 §3.1.
fn is_extension(name: &[u8], value: &[u8]) -> bool {
    let first = name.first().is_some_and(u8::is_ascii_alphanumeric);
    let named = |b: &u8| b.is_ascii_alphanumeric() || b"_-.".contains(b);
    let valued = |b: &u8| (0x21..=0x7e).contains(b) && *b != b'=' && *b != b';';
    first
        && name.len() <= EXTENSION_NAME_OCTETS_MAX
        && name.iter().all(named)
        && !value.is_empty()
        && value.iter().all(valued)
}

pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_good_and_bad() {
        let id = |text: &str| Ok(Some(Id(text.to_owned())));
        for (texts, found) in [
            // RFC 8461 §3.1
            (&["v=STSv1; id=20160831085700Z;"][..], id("20160831085700Z")),
            (&["v=STSv1;id=1"], id("1")),
            (&["v=STSv1 ;\tid=1 ; "], id("1")),
            (&["v=STSv1; a.b_c-d=x!y; id=1"], id("1")),
            (&["v=STSv1; id=1; id=2;"], id("1")),
            (&["v=spf1 -all", "v=STSv1; id=1"], id("1")),
            (&["v=STSv2; id=1", "v=STSv1; id=1"], id("1")),
            (&[], Ok(None)),
            (&["v=spf1 -all"], Ok(None)),
            (&["V=STSv1; id=1"], Ok(None)),
            (&["v=STSv1"], Ok(None)),
            (&[" v=STSv1; id=1"], Ok(None)),
            (&["v=STSv10; id=1"], Ok(None)),
            (&["v=STSv1; id=1", "v=STSv1; id=1"], Err(RecordFault::Several(2))),
            (&["v=STSv1;"], Err(RecordFault::NoId)),
            (&["v=STSv1; ID=1"], Err(RecordFault::NoId)),
            (&["v=STSv1; id=1-2"], Err(RecordFault::Id)),
            (&["v=STSv1; id="], Err(RecordFault::Id)),
            (
                &["v=STSv1; id=123456789012345678901234567890123"],
                Err(RecordFault::Id),
            ),
            (&["v=STSv1; id"], Err(RecordFault::Syntax)),
            (&["v=STSv1; id=1;; x=y"], Err(RecordFault::Syntax)),
            (&["v=STSv1; id=1; x=a b"], Err(RecordFault::Syntax)),
            (&["v=STSv1; id=1; =y"], Err(RecordFault::Syntax)),
        ] {
            assert_eq!(find(texts), found, "{texts:?}");
        }
    }
}
