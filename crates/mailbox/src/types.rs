//! The nouns of a mailbox: places, roles, flags, keywords, entries.

use crate::Error;
use mail::{AccountId, MailboxId, ModSeq, QueueId, Timestamp, Uid, UidValidity};
use std::fmt;
use store::BlobId;

/// Keywords on one message at most.
pub const KEYWORDS_PER_MESSAGE_MAX: usize = 64;
/// Octets of a keyword at most.
pub const KEYWORD_OCTETS_MAX: usize = 64;

/// Where a message stands: an account's mailbox. Both are needed to count and to wake.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    /// Whose mailbox.
    pub account: AccountId,
    /// Which mailbox.
    pub mailbox: MailboxId,
}

/// What a mailbox is for (RFC 6154 special-use). INBOX has a role too, so that it is found quickly.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// INBOX (RFC 3501 §5.1).
    Inbox,
    /// `\Sent`
    Sent,
    /// `\Drafts`
    Drafts,
    /// `\Junk`
    Junk,
    /// `\Trash`
    Trash,
    /// `\Archive`
    Archive,
}

impl Role {
    /// Every role, in the order in which an account's mailboxes are made.
    pub const ALL: [Role; 6] = [
        Role::Inbox,
        Role::Sent,
        Role::Drafts,
        Role::Junk,
        Role::Trash,
        Role::Archive,
    ];

    /// The name that the mailbox of this role has when we make it.
    #[must_use]
    pub const fn default_name(self) -> &'static str {
        match self {
            Role::Inbox => "INBOX",
            Role::Sent => "Sent",
            Role::Drafts => "Drafts",
            Role::Junk => "Junk",
            Role::Trash => "Trash",
            Role::Archive => "Archive",
        }
    }

    /// The attribute that LIST shows (RFC 6154 §2); INBOX has none.
    #[must_use]
    pub const fn attribute(self) -> Option<&'static str> {
        match self {
            Role::Inbox => None,
            Role::Sent => Some("\\Sent"),
            Role::Drafts => Some("\\Drafts"),
            Role::Junk => Some("\\Junk"),
            Role::Trash => Some("\\Trash"),
            Role::Archive => Some("\\Archive"),
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Role::Inbox => 1,
            Role::Sent => 2,
            Role::Drafts => 3,
            Role::Junk => 4,
            Role::Trash => 5,
            Role::Archive => 6,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.code() == code)
    }
}

/// One mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mailbox {
    /// Whose.
    pub account: AccountId,
    /// Which.
    pub id: MailboxId,
    /// The full name in UTF-8, levels divided by `/`. (Modified UTF-7 is the IMAP session's matter.)
    pub name: String,
    /// What it is for.
    pub role: Option<Role>,
    /// The validity value of its UIDs.
    pub uid_validity: UidValidity,
}

impl Mailbox {
    /// Where its messages stand.
    #[must_use]
    pub const fn place(&self) -> Place {
        Place {
            account: self.account,
            mailbox: self.id,
        }
    }
}

/// The numbers of one mailbox at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// Messages.
    pub messages: u64,
    /// Messages without `\Seen`.
    pub unseen: u64,
    /// Octets of all messages.
    pub octets: u64,
    /// What the next message's UID will be at least.
    pub uid_next: Uid,
    /// The validity value of the UIDs.
    pub uid_validity: UidValidity,
    /// The highest modification sequence; at least 1.
    pub highest_modseq: ModSeq,
    /// The first UID that no session was yet told of as `\Recent`.
    pub first_recent: Uid,
}

/// The system flags of a message (RFC 3501 §2.3.2). `\Recent` is not stored: it belongs to the
/// session that first saw the message, see [`crate::Mailboxes::claim_recent`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// `\Seen`
    pub const SEEN: Flags = Flags(1);
    /// `\Answered`
    pub const ANSWERED: Flags = Flags(2);
    /// `\Flagged`
    pub const FLAGGED: Flags = Flags(4);
    /// `\Deleted`
    pub const DELETED: Flags = Flags(8);
    /// `\Draft`
    pub const DRAFT: Flags = Flags(16);
    /// Every flag there is, with its name.
    pub const NAMES: [(Flags, &'static str); 5] = [
        (Flags::ANSWERED, "\\Answered"),
        (Flags::FLAGGED, "\\Flagged"),
        (Flags::DELETED, "\\Deleted"),
        (Flags::SEEN, "\\Seen"),
        (Flags::DRAFT, "\\Draft"),
    ];

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// These without `other`.
    #[must_use]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// The names of the set flags, as IMAP writes them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .filter(move |(f, _)| self.has(*f))
            .map(|(_, n)| n)
    }

    /// The flag of that name (`\Seen`; letter case does not matter).
    #[must_use]
    pub fn by_name(name: &str) -> Option<Flags> {
        Self::NAMES
            .into_iter()
            .find(|(_, n)| n.eq_ignore_ascii_case(name))
            .map(|(f, _)| f)
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// Bits that are no flag are an error of the stored value.
    pub(crate) const fn from_bits(bits: u8) -> Option<Flags> {
        if bits < 32 { Some(Flags(bits)) } else { None }
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// A keyword: a flag that users make (RFC 3501 §2.3.2). Kept as written, compared without case.
#[derive(Clone, Debug)]
pub struct Keyword(String);

impl Keyword {
    /// Reads a keyword: an IMAP atom of 1 to 64 octets (RFC 3501 §9 `flag-keyword`).
    ///
    /// # Errors
    /// [`Error::BadKeyword`] when it is none.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let allowed = |b: u8| b.is_ascii_graphic() && !b"(){%*\"\\]".contains(&b);
        if text.is_empty() || text.len() > KEYWORD_OCTETS_MAX || !text.bytes().all(allowed) {
            return Err(Error::BadKeyword);
        }
        Ok(Self(text.to_owned()))
    }

    /// The keyword as it was first written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Keyword {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Keyword {}

/// One message of a mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its identifier.
    pub uid: Uid,
    /// When it last changed.
    pub modseq: ModSeq,
    /// When it came into the mailbox.
    pub arrived_modseq: ModSeq,
    /// System flags.
    pub flags: Flags,
    /// Keywords, without repetition.
    pub keywords: Vec<Keyword>,
    /// Octets of the blob; the message is the prefix and then the blob.
    pub blob_len: u64,
    /// When it arrived (RFC 3501 §2.3.3).
    pub internal_date: Timestamp,
    /// The message's bytes.
    pub blob: BlobId,
    /// Header fields of this recipient alone, which stand before the blob.
    pub prefix: Vec<u8>,
    /// The transaction it came with; `None` for messages that a client appended.
    pub queue_id: Option<QueueId>,
    /// Whether its text was ever handed to a client. Not visible in IMAP; the journey tells of it.
    pub fetched: bool,
    /// The store's version of this entry, for preconditions.
    pub version: u64,
}

impl Entry {
    /// Octets of the whole message (RFC 3501 `RFC822.SIZE`).
    #[must_use]
    pub fn size(&self) -> u64 {
        self.prefix.len() as u64 + self.blob_len
    }
}
