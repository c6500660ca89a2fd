//! What can be asked and ordered, and what is answered: values that travel as JSON.

use crate::addresses::{AliasRow, DomainView, ExplanationView, GroupRow, Order};
use mail::{Domain, EmailAddress, QueueId, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// A question or an order.
#[derive(Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
#[allow(
    missing_docs,
    reason = "the variants say what the command line's help says of each"
)]
pub enum Request {
    DomainAdd {
        domain: Domain,
    },
    DomainList,
    DomainRemove {
        domain: Domain,
    },
    /// Without a password one is made up.
    AccountAdd {
        address: EmailAddress,
        name: String,
        password: Option<String>,
    },
    AccountList,
    AccountShow {
        address: EmailAddress,
    },
    /// Without a password one is made up.
    AccountPassword {
        address: EmailAddress,
        password: Option<String>,
    },
    AccountSuspend {
        address: EmailAddress,
        suspended: bool,
    },
    AccountRemove {
        address: EmailAddress,
    },
    AliasAdd {
        alias: EmailAddress,
        address: EmailAddress,
    },
    AliasRemove {
        alias: EmailAddress,
    },
    /// About where addresses lead, and who may send as whom.
    Addresses {
        order: Order,
    },
    SecondFactor {
        address: EmailAddress,
        on: bool,
    },
    AppPasswordAdd {
        address: EmailAddress,
        name: String,
        scopes: Vec<String>,
        /// For how long; for ever when it is absent.
        #[serde(default)]
        lasts_secs: Option<u64>,
    },
    /// The login log of an account; without one, of names that nobody has.
    LoginLog {
        #[serde(default)]
        address: Option<EmailAddress>,
    },
    AppPasswordRevoke {
        address: EmailAddress,
        number: u64,
    },
    /// A part of the queue, oldest first: at most `limit` messages. Where to go on is in the filter.
    QueueList {
        #[serde(default)]
        filter: Box<queue::Filter>,
        #[serde(default = "queue_rows_max")]
        limit: usize,
    },
    QueueShow {
        id: QueueId,
    },
    /// How the queue stands, with so many of the largest destinations.
    QueueStatus {
        destinations: usize,
    },
    /// A step of an order about queued mail.
    Queue(Box<QueueOrder>),
    /// Lets mail to a destination or from a sender wait.
    Suspend {
        what: queue::Suspended,
        /// For how long; until it is resumed when it is absent.
        #[serde(default)]
        secs: Option<u64>,
        #[serde(default)]
        why: Option<String>,
        #[serde(default)]
        by: Option<String>,
    },
    /// Lets it go on. What waited for it is retried by [`QueueDo::Resume`].
    Resume {
        what: queue::Suspended,
    },
    /// What is suspended.
    Suspensions,
    /// Who hears of delivery events, and whether they listen.
    Webhooks,
    /// Tries a webhook now.
    WebhookRetry {
        name: String,
    },
    Trace {
        what: String,
        limit: usize,
    },
    /// Checks the whole store against itself; with `deep` every octet of every blob.
    Audit {
        deep: bool,
    },
    /// Shows, adds or lifts blocks.
    Block(BlockOrder),
    /// About MTA-STS policies, of others and our own.
    MtaSts(MtaStsOrder),
    /// Shows or ends suppressions.
    Suppression(SuppressionOrder),
    /// Shows or changes the routes of the store.
    Routes(RouteOrder),
    /// Shows what an account has sent today, or gives it limits of its own.
    AccountLimit {
        address: EmailAddress,
        order: LimitOrder,
    },
    /// TLS reports that came, and what is counted for those that go.
    TlsReports(crate::tls_reports::TlsReportsOrder),
    Zone {
        domain: Domain,
        addresses: Vec<IpAddr>,
    },
    /// Writes a backup: into a folder or a file at an absolute path, or as octets of the answer.
    /// The files are those of the data folder that belong to it, in base64, by their paths.
    Backup {
        to: Option<PathBuf>,
        keep: usize,
        files: Vec<(String, String)>,
    },
    /// Writes mailboxes as plain files below a folder at an absolute path.
    Export {
        account: Option<EmailAddress>,
        folder: PathBuf,
        format: ExportFormat,
    },
    /// Signs a message (base64) with the store's keys of a domain, by default the author's.
    Sign {
        message: String,
        domain: Option<Domain>,
    },
}

/// An answer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each variant answers the request of its name")]
pub enum Response {
    /// Done; what was done, in words.
    Done(String),
    Domains(Vec<DomainRow>),
    Accounts(Vec<AccountRow>),
    Account(AccountView),
    Aliases(Vec<AliasRow>),
    Groups(Vec<GroupRow>),
    Domain(DomainView),
    Explanation(ExplanationView),
    /// Addresses, or domains as `@domain`.
    Grants(Vec<String>),
    /// A password; one that was made up is shown here and never again.
    Password(NewPassword),
    /// The secret for an authenticator, shown once.
    SecondFactor {
        address: EmailAddress,
        otpauth_url: String,
    },
    Queue(QueuePage),
    Ordered(OrderedStep),
    QueueStatus(Box<QueueStatus>),
    Suspensions(Vec<queue::Suspension>),
    Webhooks(Vec<WebhookRow>),
    Message(QueueRow),
    Stories(Vec<Told>),
    Audit(Box<crate::audit::AuditReport>),
    Zone(String),
    /// The DKIM-Signature fields that go on top of the message.
    Signatures(String),
    Backup(BackupView),
    Export(ExportView),
    LoginLog(Vec<LoginRow>),
    Blocks(Vec<limits::Block>),
    MtaSts(MtaSts),
    MtaStsOf(Box<MtaStsView>),
    /// The body of the policy that a domain of ours publishes.
    MtaStsPolicy(String),
    /// A page of suppressed addresses; the next one is behind the last. An empty one is the end.
    Suppressed(Vec<limits::Suppressed>),
    TlsReports(Vec<crate::tls_reports::ReceivedRow>),
    TlsOutgoing(crate::tls_reports::OutgoingView),
    Routes(Vec<RouteRow>),
    Today {
        address: EmailAddress,
        today: limits::Today,
    },
}

/// What is to be done about the routes of the store.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum RouteOrder {
    /// Show them.
    List,
    /// Set the route for `example.com`, `.example.com` or `*`, in place of one that was there.
    Set {
        /// For which domains.
        domain: String,
        /// What is done.
        spec: directory::RouteSpec,
    },
    /// Take a route away.
    Remove {
        /// For which domains.
        domain: String,
    },
}

/// A route of the store.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct RouteRow {
    /// For which domains.
    pub domain: String,
    /// What is done; nothing when it cannot be read.
    pub spec: Option<directory::RouteSpec>,
    /// Why it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

/// What is to be done about blocks.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum BlockOrder {
    /// Show those that are in force.
    List,
    /// Block an address, a network or a login.
    Add {
        /// Whom.
        subject: limits::Subject,
        /// For how long.
        secs: u64,
        /// Why, in words for the one who is blocked.
        why: String,
    },
    /// Lift a block.
    Remove {
        /// Whose.
        subject: limits::Subject,
    },
}

/// What is asked about MTA-STS.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum MtaStsOrder {
    /// The domains of which something is remembered, behind `after`.
    List {
        /// Where to go on.
        #[serde(default)]
        after: Option<Domain>,
    },
    /// What is remembered of one domain.
    Show {
        /// Of which.
        domain: Domain,
    },
    /// Fetch a domain's policy now.
    Refresh {
        /// Whose.
        domain: Domain,
    },
    /// The policy that a domain of ours publishes.
    Policy {
        /// Whose.
        domain: Domain,
    },
}

/// A part of what is remembered of other domains' policies.
#[derive(Serialize, Deserialize)]
pub struct MtaSts {
    /// The domains, in order.
    pub rows: Vec<MtaStsView>,
    /// Where to go on; none at the end.
    pub next: Option<Domain>,
}

/// What is remembered of a domain's policy.
#[derive(Serialize, Deserialize)]
pub struct MtaStsView {
    /// The policy, and the last fetch.
    #[serde(flatten)]
    pub entry: mtasts::Entry,
    /// Whether the policy holds now.
    pub holds: bool,
    /// Until when it holds, or held.
    pub until: Option<Timestamp>,
    /// When the policy may be fetched again, after a fetch that failed.
    pub next_fetch: Option<Timestamp>,
}

/// What is to be done about suppressed addresses.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum SuppressionOrder {
    /// Show them, page by page.
    List {
        /// The sender and the address behind which the page begins.
        behind: Option<(String, String)>,
    },
    /// Show what holds now for one login and one address.
    Find {
        /// The login.
        login: String,
        /// The address.
        address: EmailAddress,
    },
    /// End one.
    Remove {
        /// Which address.
        address: EmailAddress,
        /// For which sender: a login, or `@domain`; without one, for all.
        sender: Option<String>,
    },
}

/// What is to be done about an account's daily limits.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum LimitOrder {
    /// Show them.
    Show,
    /// Change those that are named.
    Set {
        /// Messages a day; 0: no limit.
        messages: Option<u32>,
        /// First-time recipients a day; 0: no limit.
        first_recipients: Option<u32>,
    },
    /// As for everybody again.
    Default,
}

/// As what mailboxes are exported.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum ExportFormat {
    /// Maildir++: a folder for each mailbox, a file for each message.
    Maildir,
    /// A file for each mailbox (RFC 4155, lines that begin with `From ` quoted).
    Mbox,
}

/// A backup that was made.
#[derive(Serialize, Deserialize)]
pub struct BackupView {
    /// The file that leads to it; none when it went into the answer.
    pub file: Option<PathBuf>,
    /// The number of the store, in hexadecimal digits.
    pub store: String,
    /// The commit up to which it sees.
    pub seq: u64,
    /// Entries in it.
    pub entries: u64,
    /// Counters in it.
    pub counters: u64,
    /// Message bodies in it.
    pub blobs: u64,
    /// Their octets.
    pub blob_octets: u64,
    /// Of these, the ones that were not in the folder yet.
    pub blobs_new: u64,
    /// Octets written.
    pub octets_written: u64,
    /// Files of the data folder in it.
    pub files: u64,
    /// Older backups that were removed.
    pub removed: u64,
    /// What is to be known about the folder.
    pub notes: Vec<String>,
    /// How much was damaged in the store and is not in the backup.
    pub damaged: u64,
    /// The first of it, in words.
    pub damage: Vec<String>,
}

/// Mailboxes that were exported.
#[derive(Serialize, Deserialize, Default)]
pub struct ExportView {
    /// Accounts.
    pub accounts: u64,
    /// Mailboxes.
    pub mailboxes: u64,
    /// Messages.
    pub messages: u64,
    /// Their octets.
    pub octets: u64,
    /// What could not be exported.
    pub damaged: u64,
    /// The first of it, in words; all of it is in the report file.
    pub damage: Vec<String>,
}

/// A domain.
#[derive(Serialize, Deserialize)]
pub struct DomainRow {
    /// Its name.
    pub domain: Domain,
    /// The selectors of its signing keys.
    pub selectors: Vec<String>,
}

/// An account, in a list.
#[derive(Serialize, Deserialize)]
pub struct AccountRow {
    /// Its primary address.
    pub address: EmailAddress,
    /// The owner's name.
    pub name: String,
    /// Whether every login is refused.
    pub suspended: bool,
    /// Whether the second factor is on.
    pub second_factor: bool,
}

/// An account with its particulars.
#[derive(Serialize, Deserialize)]
pub struct AccountView {
    /// As in the list.
    #[serde(flatten)]
    pub row: AccountRow,
    /// Its other addresses.
    pub aliases: Vec<EmailAddress>,
    /// What it may send as by the operator's word.
    #[serde(default)]
    pub may_send_as: Vec<String>,
    /// Octets that it may keep; none: any amount.
    #[serde(default)]
    pub quota_octets: Option<u64>,
    /// Octets that it keeps.
    #[serde(default)]
    pub used_octets: u64,
    /// Its app passwords, without the passwords.
    pub app_passwords: Vec<AppPasswordRow>,
    /// Its mailboxes.
    pub mailboxes: Vec<MailboxRow>,
}

/// An entry of the login log: one login, or several that went alike.
#[derive(Serialize, Deserialize)]
pub struct LoginRow {
    /// When it went so for the first time.
    pub first: Timestamp,
    /// When it went so for the last time.
    pub last: Timestamp,
    /// How often.
    pub count: u64,
    /// The name as the client gave it.
    pub user: String,
    /// From where.
    pub peer: std::net::IpAddr,
    /// To use what: smtp, imap or pop3.
    pub protocol: directory::Protocol,
    /// How, as the client named it.
    pub mechanism: String,
    /// Whether it was accepted.
    pub accepted: bool,
    /// What became of it, for programs.
    pub end: directory::LoginEnd,
    /// What became of it, in words.
    pub outcome: String,
    /// What to change, when there is something.
    pub advice: Option<String>,
}

impl From<directory::LoginEntry> for LoginRow {
    fn from(entry: directory::LoginEntry) -> Self {
        let what = entry.what;
        Self {
            first: entry.first,
            last: entry.last,
            count: entry.count,
            user: what.user,
            peer: what.peer,
            protocol: what.protocol,
            mechanism: what.mechanism,
            accepted: what.end.is_accepted(),
            outcome: what.end.words().into_owned(),
            advice: what.end.advice().map(str::to_owned),
            end: what.end,
        }
    }
}

/// An app password, without the password.
#[derive(Serialize, Deserialize)]
pub struct AppPasswordRow {
    /// By which it is revoked.
    pub number: u64,
    /// What it is for.
    pub name: String,
    /// What it opens.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it opens nothing any more.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// When it last opened something.
    pub last_used: Option<Timestamp>,
}

/// A mailbox, in numbers.
#[derive(Serialize, Deserialize)]
pub struct MailboxRow {
    /// Its name.
    pub name: String,
    /// Messages in it.
    pub messages: u64,
    /// Of these, not yet seen.
    pub unseen: u64,
    /// Octets of all messages.
    pub octets: u64,
}

/// A password and whose it is.
#[derive(Serialize, Deserialize)]
pub struct NewPassword {
    /// The account.
    pub address: EmailAddress,
    /// The password, when it was made up here; absent when the operator chose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// What it opens, in words.
    pub opens: String,
}

/// A part of the queue.
#[derive(Serialize, Deserialize)]
pub struct QueuePage {
    /// The messages.
    pub rows: Vec<QueueRow>,
    /// Where to go on; none at the end.
    pub next: Option<QueueId>,
    /// Messages in the queue, in all.
    pub messages: u64,
    /// Open errands, in all.
    pub errands: u64,
}

/// A webhook.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct WebhookRow {
    /// Its name.
    pub name: String,
    /// Where requests go.
    pub url: String,
    /// What it hears of.
    pub events: Vec<webhook::Kind>,
    /// Only of mail from these domains; none: from all.
    pub from_domains: Vec<Domain>,
    /// What waits for it, and what became of the rest.
    #[serde(flatten)]
    pub waiting: webhook::Waiting,
    /// Whether it listens; nothing when no server runs.
    #[serde(default)]
    pub standing: Option<webhook::Standing>,
}

/// How the queue stands.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct QueueStatus {
    /// In numbers.
    #[serde(flatten)]
    pub counted: queue::Counted,
    /// What is suspended.
    pub suspensions: Vec<queue::Suspension>,
    /// Delivery events that wait for webhooks.
    #[serde(default)]
    pub webhooks: Vec<WebhookRow>,
}

/// What is to be done with queued mail, and with which.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct QueueOrder {
    /// What.
    pub what: QueueDo,
    /// With which. Nothing said means everything.
    pub filter: queue::Filter,
    /// The errand behind which this step begins.
    #[serde(default)]
    pub behind: Option<(QueueId, u32)>,
    /// Only count.
    #[serde(default)]
    pub dry_run: bool,
    /// Who says so, for the journey; the operator when it is absent.
    #[serde(default)]
    pub by: Option<String>,
}

impl QueueOrder {
    /// An order about one message.
    #[must_use]
    pub fn about(id: QueueId, what: QueueDo) -> Self {
        Self {
            what,
            filter: queue::Filter::of(id),
            behind: None,
            dry_run: false,
            by: None,
        }
    }
}

/// What can be done with queued mail.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum QueueDo {
    /// Try it now.
    Retry,
    /// Try it now, for it is not suspended any more.
    Resume,
    /// Keep it until it is released.
    Hold,
    /// Let it go again.
    Release,
    /// Take it out without a word to its sender.
    Drop,
    /// Send it back to its sender.
    Bounce {
        /// Why, for the sender.
        why: Option<String>,
    },
    /// Send it to this server; without one, again where the DNS and the routes say.
    Reroute {
        /// The server.
        via: Option<queue::Via>,
    },
}

/// What a step of an order did.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OrderedStep {
    /// Errands that stand as ordered now (or would, in a dry run).
    pub errands: usize,
    /// Their messages.
    pub messages: usize,
    /// Errands that were passed over because they are being attempted.
    pub attempting: usize,
    /// Errands that were looked at.
    pub looked_at: usize,
    /// Where to go on; none at the end.
    pub next: Option<(QueueId, u32)>,
}

fn queue_rows_max() -> usize {
    crate::office::QUEUE_ROWS_MAX
}

/// A queued message.
#[derive(Serialize, Deserialize)]
pub struct QueueRow {
    /// Its id.
    pub id: QueueId,
    /// The reverse-path as `<…>`.
    pub from: String,
    /// When it was accepted.
    pub received: Timestamp,
    /// Octets.
    pub octets: u64,
    /// What the sender asked of it, in words: a deadline, a priority, TLS all the way.
    #[serde(default)]
    pub asked: Vec<String>,
    /// Its errands.
    pub errands: Vec<ErrandRow>,
}

/// One recipient's delivery.
#[derive(Serialize, Deserialize)]
pub struct ErrandRow {
    /// The recipient.
    pub to: String,
    /// Waiting, held, delivered, …
    pub state: String,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried again.
    pub next_attempt: Option<Timestamp>,
    /// What the last attempt met, word for word.
    pub last_outcome: Option<String>,
    /// The class of the last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The server that the operator chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Why it is not tried, in words, when that is not its schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// What comes next if every attempt fails for now; where one message is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<queue::Forecast>,
}

/// A message's journey.
#[derive(Serialize, Deserialize)]
pub struct Told {
    /// The message.
    pub id: QueueId,
    /// Its journey in words, for people.
    pub text: String,
    /// The same, for machines: a summary and the steps.
    pub story: serde_json::Value,
}

/// Why something was not done.
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Whose fault it is.
    pub kind: RefusalKind,
    /// What happened and what to change.
    pub text: String,
}

/// Whose fault a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// What was named is not there.
    NotFound,
    /// The order contradicts what is there, or is malformed.
    Invalid,
    /// The store or the world failed; the order may be given again.
    Failed,
}

impl Refusal {
    /// What was named is not there.
    #[must_use]
    pub fn not_found(text: impl Into<String>) -> Self {
        Self {
            kind: RefusalKind::NotFound,
            text: text.into(),
        }
    }

    /// The order cannot be carried out as given.
    #[must_use]
    pub fn invalid(text: impl Into<String>) -> Self {
        Self {
            kind: RefusalKind::Invalid,
            text: text.into(),
        }
    }

    /// The world failed.
    #[must_use]
    pub fn failed(text: impl std::fmt::Display) -> Self {
        Self {
            kind: RefusalKind::Failed,
            text: text.to_string(),
        }
    }
}
