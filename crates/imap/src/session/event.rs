//! The questions of a session and the tickets that belong to them.

use crate::command::{AppendHead, StatusItem, StoreMode, Tag};
use crate::fetch::FetchItem;
use crate::flag::Flag;
use crate::list::Pattern;
use crate::name::MailboxName;
use crate::search::SearchKey;
use crate::view::Targets;
use sasl::{Mechanism, Request};
use std::marker::PhantomData;

/// Belongs to one question; handing it back answers it. `Of` names the kind of question, so that
/// an answer cannot be given to another kind.
#[must_use = "the session waits until the ticket is handed back"]
#[derive(Debug)]
pub struct Ticket<Of> {
    pub(super) tag: Tag,
    pub(super) info: Info,
    of: PhantomData<Of>,
}

impl<Of> Ticket<Of> {
    pub(super) fn new(tag: Tag, info: Info) -> Self {
        Self {
            tag,
            info,
            of: PhantomData,
        }
    }
}

/// What the answer has to know of the question.
#[derive(Clone, Debug, Default)]
pub(super) struct Info {
    /// The words of the tagged OK.
    pub(super) done: &'static str,
    /// Whether it was a UID command.
    pub(super) uid: bool,
    /// Whether EXPUNGE must not be told with the answer (RFC 3501 §7.4.1).
    pub(super) no_expunge: bool,
    /// Whether the answer is one of LSUB.
    pub(super) lsub: bool,
    pub(super) read_only: bool,
    pub(super) deselects: bool,
    pub(super) pattern: Option<Pattern>,
    pub(super) mailbox: Option<MailboxName>,
    pub(super) items: Vec<StatusItem>,
    pub(super) literal: u64,
    pub(super) waits: bool,
    pub(super) is_move: bool,
}

/// Kinds of questions.
pub mod ask {
    /// A request of a login: [`Session::login`](crate::session::Session::login).
    #[derive(Debug)]
    pub struct Login(());
    /// Open a mailbox: [`Session::selected`](crate::session::Session::selected).
    #[derive(Debug)]
    pub struct Select(());
    /// Which mailboxes are there: [`Session::listed`](crate::session::Session::listed).
    #[derive(Debug)]
    pub struct List(());
    /// The numbers of a mailbox: [`Session::status`](crate::session::Session::status).
    #[derive(Debug)]
    pub struct StatusOf(());
    /// Which messages match: [`Session::found`](crate::session::Session::found).
    #[derive(Debug)]
    pub struct Search(());
    /// Copy or move: [`Session::copied`](crate::session::Session::copied).
    #[derive(Debug)]
    pub struct Copy(());
    /// May a message come: [`Session::accept_append`](crate::session::Session::accept_append).
    #[derive(Debug)]
    pub struct Append(());
    /// Keep the message: [`Session::appended`](crate::session::Session::appended).
    #[derive(Debug)]
    pub struct Appended(());
    /// Anything answered by "done": [`Session::done`](crate::session::Session::done).
    #[derive(Debug)]
    pub struct Task(());
}

/// What the session wants next.
#[derive(Debug)]
pub enum Event {
    /// Write the output, then feed more bytes.
    NeedInput,
    /// Write the output, then go on.
    Flush,
    /// A question is not answered yet; a driver that asks on has a bug.
    Waiting,
    /// Write the output, shake hands, then call [`crate::Session::tls_started`].
    StartTls,
    /// Write the output, then close.
    Close,
    /// What LOGIN or AUTHENTICATE must know of accounts. Answer with
    /// [`Session::login`](crate::session::Session::login).
    Login {
        /// For the answer.
        ticket: Ticket<ask::Login>,
        /// How it came; the command LOGIN counts as the mechanism of that name.
        mechanism: Mechanism,
        /// What is asked: whether a login is good, or what comes before.
        request: Request,
    },
    /// Open a mailbox. Whatever was selected is not any more.
    Select {
        /// For the answer.
        ticket: Ticket<ask::Select>,
        /// Which.
        mailbox: MailboxName,
        /// Whether nothing may change.
        read_only: bool,
    },
    /// Which mailboxes and subscriptions are there?
    List(Ticket<ask::List>),
    /// The numbers of a mailbox.
    Status {
        /// For the answer.
        ticket: Ticket<ask::StatusOf>,
        /// Which mailbox.
        mailbox: MailboxName,
    },
    /// Which messages match? Sets of sequence numbers are those of [`crate::Session::view`].
    Search {
        /// For the answer.
        ticket: Ticket<ask::Search>,
        /// What is sought.
        key: SearchKey,
    },
    /// Copy messages, or move them; durable before the answer.
    Copy {
        /// For the answer.
        ticket: Ticket<ask::Copy>,
        /// Which messages.
        targets: Targets,
        /// Where to.
        mailbox: MailboxName,
        /// Whether they leave this mailbox.
        is_move: bool,
    },
    /// May a message come? Refusing now spares both sides the bytes.
    Append {
        /// For the answer.
        ticket: Ticket<ask::Append>,
        /// Where to, and as what.
        head: AppendHead,
        /// How many octets.
        octets: u64,
    },
    /// Octets of the message of an accepted APPEND.
    AppendChunk(Vec<u8>),
    /// The message is complete. Durable before the answer.
    AppendEnd(Ticket<ask::Appended>),
    /// The message did not end as it must; forget it. The client is told already.
    AppendBroken,
    /// Something else to do.
    Task {
        /// For the answer.
        ticket: Ticket<ask::Task>,
        /// What.
        task: Task,
    },
}

/// Things to do that are answered by "done".
#[derive(Debug)]
pub enum Task {
    /// Nothing but to look for news (NOOP, CHECK).
    Sync,
    /// Make a mailbox.
    Create(MailboxName),
    /// Delete a mailbox.
    Delete(MailboxName),
    /// Rename a mailbox.
    Rename {
        /// The name now.
        from: MailboxName,
        /// The name afterwards.
        to: MailboxName,
    },
    /// Subscribe to a name.
    Subscribe(MailboxName),
    /// End a subscription.
    Unsubscribe(MailboxName),
    /// Write the responses of [`crate::fetch::respond`] for these messages.
    Fetch {
        /// Which messages.
        targets: Targets,
        /// What of each.
        items: Vec<FetchItem>,
        /// Whether the mailbox may change: `\Seen` is set only then.
        may_set_seen: bool,
    },
    /// Change flags; durable before the answer.
    Store {
        /// Which messages.
        targets: Targets,
        /// How.
        mode: StoreMode,
        /// Whether the client wants to hear the new flags.
        silent: bool,
        /// The flags.
        flags: Vec<Flag>,
    },
    /// Remove those of these messages that have `\Deleted`; durable before the answer.
    Expunge(Targets),
    /// The mailbox is about to be deselected. When `expunge`, remove its deleted messages first;
    /// no EXPUNGE is told (RFC 3501 §6.4.2).
    Deselect {
        /// CLOSE in a mailbox that may change.
        expunge: bool,
    },
}
