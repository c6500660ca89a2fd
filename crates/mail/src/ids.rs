//! Identifiers, each a type of its own so that none can stand in for another.

use std::fmt;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// An account of the directory. Never reused.
    AccountId(u64)
);
number_id!(
    /// A mailbox (folder). Never reused, so a renamed mailbox keeps its messages.
    MailboxId(u64)
);
number_id!(
    /// A unique identifier of a message within its mailbox (RFC 3501 §2.3.1.1). From 1, only rises.
    Uid(u32)
);
number_id!(
    /// The validity value of a mailbox's UIDs (RFC 3501 §2.3.1.1).
    UidValidity(u32)
);
number_id!(
    /// A modification sequence (RFC 7162 §3.1). Below 2^63; only rises within a mailbox.
    ModSeq(u64)
);

/// The name of one mail transaction and, once accepted, of its message: what the reply to DATA,
/// the log, the queue and the journey all say. It sorts by time.
///
/// Shown as 13 characters of Crockford's base 32 (no I, L, O, U), for example `6JX2M0V4T8K3Q`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueId(pub u64);

const BASE32: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl QueueId {
    /// An id from the time (microseconds since 1970; 52 bits are kept, enough until 2112) and 12
    /// bits that tell apart ids of the same microsecond.
    #[must_use]
    pub const fn from_parts(micros: u64, discriminator: u16) -> Self {
        Self((micros << 12) | (discriminator as u64 & 0xfff))
    }

    /// Reads the 13 characters; lower case is accepted.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 13 {
            return None;
        }
        let mut value: u64 = 0;
        for b in text.bytes() {
            let digit = BASE32.iter().position(|x| *x == b.to_ascii_uppercase())?;
            value = value.checked_mul(32)?.checked_add(digit as u64)?;
        }
        Some(Self(value))
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'0'; 13];
        let mut rest = self.0;
        for slot in text.iter_mut().rev() {
            *slot = BASE32[(rest % 32) as usize];
            rest /= 32;
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or("?"))
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for QueueId {
    type Err = &'static str;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::parse(s).ok_or("not a queue id (13 characters, such as 6JX2M0V4T8K3Q)")
    }
}

impl TryFrom<String> for QueueId {
    type Error = &'static str;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<QueueId> for String {
    fn from(id: QueueId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_id_reads_back() {
        for n in [0, 1, 4095, u64::MAX, 1_795_000_000_000_000 << 12] {
            let id = QueueId(n);
            assert_eq!(QueueId::parse(&id.to_string()), Some(id));
            assert_eq!(QueueId::parse(&id.to_string().to_lowercase()), Some(id));
        }
        assert_eq!(QueueId::parse("ZZZZZZZZZZZZZ"), None, "beyond 64 bits");
    }
}
