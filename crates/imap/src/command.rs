//! The commands of a client, as values.

use crate::fetch::FetchItem;
use crate::flag::Flag;
use crate::list::Pattern;
use crate::name::MailboxName;
use crate::search::SearchKey;
use crate::sequence::{MessageSet, SequenceSet};
use mail::{Secret, Timestamp, Uid};
use sasl::Mechanism;
use std::fmt;

/// Octets of a tag at most.
pub const TAG_OCTETS_MAX: usize = 128;

/// What the client puts before a command, to find its answer again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Tag(pub(crate) String);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How STORE changes flags (RFC 3501 §6.4.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreMode {
    /// `FLAGS`: these and no others.
    Replace,
    /// `+FLAGS`
    Add,
    /// `-FLAGS`
    Remove,
}

/// What STATUS can tell (RFC 3501 §6.3.10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatusItem {
    /// Number of messages.
    Messages,
    /// Number of messages that no session has seen yet.
    Recent,
    /// The next UID.
    UidNext,
    /// The validity value of the UIDs.
    UidValidity,
    /// Number of messages without `\Seen`.
    Unseen,
}

/// The part of APPEND before the message (RFC 3501 §6.3.11).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppendHead {
    /// Where to.
    pub mailbox: MailboxName,
    /// The flags that the message gets.
    pub flags: Vec<Flag>,
    /// Its internal date, when the client names one.
    pub internal_date: Option<Timestamp>,
}

/// A command without its tag.
#[derive(Clone, Debug)]
pub enum Command {
    /// CAPABILITY
    Capability,
    /// NOOP
    Noop,
    /// LOGOUT
    Logout,
    /// STARTTLS
    StartTls,
    /// AUTHENTICATE
    Authenticate {
        /// Which mechanism; as it was named when it is none that we speak.
        mechanism: Result<Mechanism, String>,
        /// The initial response (RFC 4959), still in base64, or `=`.
        initial: Option<Secret>,
    },
    /// LOGIN
    Login {
        /// The user name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// SELECT, or EXAMINE when `read_only`.
    Select {
        /// Which mailbox.
        mailbox: MailboxName,
        /// EXAMINE.
        read_only: bool,
    },
    /// CREATE
    Create(MailboxName),
    /// DELETE
    Delete(MailboxName),
    /// RENAME
    Rename {
        /// The name now.
        from: MailboxName,
        /// The name afterwards.
        to: MailboxName,
    },
    /// SUBSCRIBE
    Subscribe(MailboxName),
    /// UNSUBSCRIBE
    Unsubscribe(MailboxName),
    /// LIST; `None` for the empty pattern, which asks for the separator.
    List(Option<Pattern>),
    /// LSUB
    Lsub(Pattern),
    /// STATUS
    Status {
        /// Which mailbox.
        mailbox: MailboxName,
        /// What is asked.
        items: Vec<StatusItem>,
    },
    /// CHECK
    Check,
    /// CLOSE
    Close,
    /// UNSELECT (RFC 3691)
    Unselect,
    /// EXPUNGE, or UID EXPUNGE of a set (RFC 4315).
    Expunge(Option<SequenceSet<Uid>>),
    /// SEARCH and UID SEARCH
    Search {
        /// Whether UIDs are wanted.
        uid: bool,
        /// What is sought.
        key: SearchKey,
    },
    /// SEARCH with a charset that we don't know.
    SearchBadCharset,
    /// FETCH and UID FETCH
    Fetch {
        /// Which messages.
        set: MessageSet,
        /// What of them; UID is among them in the UID form.
        items: Vec<FetchItem>,
    },
    /// STORE and UID STORE
    Store {
        /// Which messages.
        set: MessageSet,
        /// How the flags change.
        mode: StoreMode,
        /// Whether the new flags are not to be told.
        silent: bool,
        /// The flags.
        flags: Vec<Flag>,
    },
    /// COPY and UID COPY
    Copy {
        /// Which messages.
        set: MessageSet,
        /// Where to.
        mailbox: MailboxName,
    },
    /// MOVE and UID MOVE (RFC 6851)
    Move {
        /// Which messages.
        set: MessageSet,
        /// Where to.
        mailbox: MailboxName,
    },
    /// IDLE (RFC 2177)
    Idle,
    /// NAMESPACE (RFC 2342)
    Namespace,
    /// ID (RFC 2971): what the client says of itself.
    Id(Vec<(String, String)>),
    /// ENABLE (RFC 5161)
    Enable,
}
