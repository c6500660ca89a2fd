//! The bytes of stored values. Every value begins with a version byte.
//!
//! An entry, version 1 (numbers big-endian):
//!
//! | offset | octets | what |
//! |---|---|---|
//! | 0 | 1 | version |
//! | 1 | 1 | system flags |
//! | 2 | 1 | bit 0: fetched |
//! | 3 | 8 | modseq, patched at commit |
//! | 11 | 8 | modseq of arrival, patched at commit |
//! | 19 | 8 | octets of the blob |
//! | 27 | 8 | internal date, microseconds |
//! | 35 | 16 | blob |
//! | 51 | 8 | queue id, 0 for none |
//! | 59 | 2 | octets of the prefix, then the prefix |
//! | … | 1 | number of keywords, then each: its length, its octets |

use crate::Error;
use crate::types::{Entry, Flags, Keyword, Role};
use mail::{MailboxId, ModSeq, QueueId, Timestamp, Uid, UidValidity};
use store::{BlobId, Key, Versioned};

const VERSION: u8 = 1;
const FETCHED: u8 = 1;
/// Offset of the modseq in an entry's value.
pub(crate) const MODSEQ_OFFSET: usize = 3;
/// Offset of the modseq of arrival in an entry's value.
pub(crate) const ARRIVED_OFFSET: usize = 11;

/// A mailbox's stored record; its account and id stand in the key.
pub(crate) struct MailboxRecord {
    pub(crate) role: Option<Role>,
    pub(crate) uid_validity: UidValidity,
    pub(crate) name: String,
}

/// What a line of the change log says happened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Flags = 1,
    Expunged = 2,
}

pub(crate) fn encode_entry(e: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(62 + e.prefix.len() + e.keywords.len() * 16);
    out.push(VERSION);
    out.push(e.flags.bits());
    out.push(if e.fetched { FETCHED } else { 0 });
    out.extend_from_slice(&e.modseq.0.to_be_bytes());
    out.extend_from_slice(&e.arrived_modseq.0.to_be_bytes());
    out.extend_from_slice(&e.blob_len.to_be_bytes());
    out.extend_from_slice(&e.internal_date.0.to_be_bytes());
    out.extend_from_slice(&e.blob.0);
    out.extend_from_slice(&e.queue_id.map_or(0, |q| q.0).to_be_bytes());
    // Both lengths fit: deliveries and changes are checked against the limits before.
    out.extend_from_slice(&(e.prefix.len() as u16).to_be_bytes());
    out.extend_from_slice(&e.prefix);
    out.push(e.keywords.len() as u8);
    for k in &e.keywords {
        out.push(k.as_str().len() as u8);
        out.extend_from_slice(k.as_str().as_bytes());
    }
    out
}

pub(crate) fn decode_entry(key: &Key, stored: &Versioned) -> Result<Entry, Error> {
    let damaged = |what| Error::Damaged {
        key: key.clone(),
        what,
    };
    let mut k = key.reader();
    let uid = k
        .u64()
        .and_then(|_| k.u32())
        .ok_or_else(|| damaged("the key holds no UID"))?;
    let mut r = Reader(&stored.value);
    if r.u8() != Some(VERSION) {
        return Err(damaged("its version is unknown"));
    }
    decode_entry_body(&mut r, Uid(uid), stored.version).ok_or_else(|| damaged("it is not an entry"))
}

fn decode_entry_body(r: &mut Reader<'_>, uid: Uid, version: u64) -> Option<Entry> {
    let flags = Flags::from_bits(r.u8()?)?;
    let bits = r.u8()?;
    let modseq = ModSeq(r.u64()?);
    let arrived_modseq = ModSeq(r.u64()?);
    let blob_len = r.u64()?;
    let internal_date = Timestamp(r.u64()?.cast_signed());
    let blob = BlobId(*r.array::<16>()?);
    let queue_id = r.u64()?;
    let prefix_len = u16::from_be_bytes(*r.array::<2>()?);
    let prefix = r.take(usize::from(prefix_len))?.to_vec();
    let mut keywords = Vec::new();
    for _ in 0..r.u8()? {
        let len = r.u8()?;
        let text = std::str::from_utf8(r.take(usize::from(len))?).ok()?;
        keywords.push(Keyword::parse(text).ok()?);
    }
    r.0.is_empty().then_some(Entry {
        uid,
        modseq,
        arrived_modseq,
        flags,
        keywords,
        blob_len,
        internal_date,
        blob,
        prefix,
        queue_id: (queue_id != 0).then_some(QueueId(queue_id)),
        fetched: bits & FETCHED != 0,
        version,
    })
}

pub(crate) fn encode_mailbox(r: &MailboxRecord) -> Vec<u8> {
    let mut out = vec![VERSION, r.role.map_or(0, Role::code)];
    out.extend_from_slice(&r.uid_validity.0.to_be_bytes());
    out.extend_from_slice(r.name.as_bytes());
    out
}

pub(crate) fn decode_mailbox(key: &Key, value: &[u8]) -> Result<(MailboxId, MailboxRecord), Error> {
    let decode = || {
        let mut k = key.reader();
        let id = k.u64().and_then(|_| k.u64())?;
        let mut r = Reader(value);
        (r.u8()? == VERSION).then_some(())?;
        let role = match r.u8()? {
            0 => None,
            code => Some(Role::from_code(code)?),
        };
        let uid_validity = UidValidity(r.u32()?);
        let name = std::str::from_utf8(r.0).ok()?.to_owned();
        Some((
            MailboxId(id),
            MailboxRecord {
                role,
                uid_validity,
                name,
            },
        ))
    };
    decode().ok_or_else(|| Error::Damaged {
        key: key.clone(),
        what: "it is not a mailbox",
    })
}

/// Offset of the number in a value of [`encode_u64`].
pub(crate) const NUMBER_OFFSET: usize = 1;

pub(crate) fn encode_u64(n: u64) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&n.to_be_bytes());
    out
}

pub(crate) fn decode_u64(key: &Key, value: &[u8]) -> Result<u64, Error> {
    let mut r = Reader(value);
    match (r.u8(), r.u64(), r.0) {
        (Some(VERSION), Some(n), []) => Ok(n),
        _ => Err(Error::Damaged {
            key: key.clone(),
            what: "it is not a number",
        }),
    }
}

pub(crate) fn encode_change(kind: ChangeKind) -> Vec<u8> {
    vec![VERSION, kind as u8]
}

pub(crate) fn decode_change(key: &Key, value: &[u8]) -> Result<(ModSeq, Uid, ChangeKind), Error> {
    let decode = || {
        let mut k = key.reader();
        let modseq = k.u64().and_then(|_| k.u64())?;
        let uid = k.u32()?;
        let kind = match value {
            [VERSION, 1] => ChangeKind::Flags,
            [VERSION, 2] => ChangeKind::Expunged,
            _ => return None,
        };
        Some((ModSeq(modseq), Uid(uid), kind))
    };
    decode().ok_or_else(|| Error::Damaged {
        key: key.clone(),
        what: "it is not a change",
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(front)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|a| a[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.array::<4>().map(|a| u32::from_be_bytes(*a))
    }

    fn u64(&mut self) -> Option<u64> {
        self.array::<8>().map(|a| u64::from_be_bytes(*a))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(value: Vec<u8>) -> Versioned {
        Versioned {
            value: value.into(),
            version: 7,
        }
    }

    proptest! {
        #[test]
        fn entries_read_back(
            numbers in any::<(u32, u64, u64, u64, i64, u64)>(), flags in 0u8..32, fetched in any::<bool>(),
            blob in any::<[u8; 16]>(), prefix in proptest::collection::vec(any::<u8>(), 0..300),
            keywords in proptest::collection::vec("[a-z$]{1,64}", 0..4),
        ) {
            let (uid, modseq, arrived, blob_len, date, queue) = numbers;
            let entry = Entry {
                uid: Uid(uid), modseq: ModSeq(modseq), arrived_modseq: ModSeq(arrived),
                flags: Flags::from_bits(flags).unwrap(),
                keywords: keywords.iter().map(|k| Keyword::parse(k).unwrap()).collect(),
                blob_len, internal_date: Timestamp(date), blob: BlobId(blob), prefix,
                queue_id: (queue != 0).then_some(QueueId(queue)), fetched, version: 7,
            };
            let key = crate::keys::entry(MailboxId(3), Uid(uid));
            let bytes = encode_entry(&entry);
            prop_assert_eq!(decode_entry(&key, &stored(bytes.clone())).unwrap(), entry);
            for cut in 0..bytes.len() {
                prop_assert!(decode_entry(&key, &stored(bytes[..cut].to_vec())).is_err());
            }
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let key = Key::table(0x20).u64(1).u64(2);
            let _ = decode_mailbox(&key, &bytes);
            let _ = decode_change(&key, &bytes);
            let _ = decode_u64(&key, &bytes);
            let _ = decode_entry(&key, &stored(bytes));
        }
    }

    #[test]
    fn errors_name_the_key() {
        let key = crate::keys::entry(MailboxId(3), Uid(9));
        let error = decode_entry(&key, &stored(vec![9])).unwrap_err();
        assert_eq!(
            error,
            Error::Damaged {
                key,
                what: "its version is unknown"
            }
        );
    }
}
