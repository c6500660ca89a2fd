//! The steps of a message's way. Names and fields are stored: add with a default, never rename.

use mail::{AccountId, EmailAddress, EnhancedStatus, MailboxId, QueueId, ReversePath, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A reply: ours or another server's.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// The three digits; 0 when there was no reply (connection lost, DNS).
    #[serde(default)]
    pub code: u16,
    /// The enhanced status, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<EnhancedStatus>,
    /// The words, lines joined by a space.
    #[serde(default)]
    pub text: String,
}

/// What a failure means (`docs/DELIVERY-FAILURES.md`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Cause {
    /// Its class, such as `mailbox-full`.
    #[serde(default)]
    pub class: String,
    /// Whose move it is, in words.
    #[serde(default)]
    pub side: String,
    /// What is wrong, in words.
    #[serde(default)]
    pub problem: String,
}

/// The TLS of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TlsUsed {
    /// E.g. `TLS 1.3`.
    pub version: String,
    /// E.g. `TLS13_AES_256_GCM_SHA384`.
    #[serde(default)]
    pub cipher: String,
    /// For connections we made: by what the peer's certificate was verified (`WebPKI`, `DANE-EE`, `DANE-TA`,
    /// `MTA-STS`), `None` when it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<String>,
    /// For connections we made: whether an earlier session with that server was resumed, which showed no
    /// certificate anew. `verified` is then what its first handshake found.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
}

/// One check of the judgement.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Check {
    /// `spf`, `dkim`, `dmarc`, `arc`, `iprev`, `dnsbl`, …
    pub name: String,
    /// `pass`, `fail`, `softfail`, `none`, `temperror`, … (RFC 8601 §2.7)
    pub result: String,
    /// What decided it, in words.
    #[serde(default)]
    pub because: String,
}

/// A server that a domain's mail goes to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MxHost {
    /// Its name.
    pub host: String,
    /// Its preference; the lowest is tried first.
    #[serde(default)]
    pub preference: u16,
    /// Its addresses, in the order in which they will be tried.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// What one attempt came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The server took the message.
    Accepted {
        /// Its reply.
        reply: Reply,
    },
    /// The server said no, for now or for good as its reply says.
    Refused {
        /// At which command or moment: `connect`, `EHLO`, `MAIL`, `RCPT`, `DATA`, …
        stage: String,
        /// Its reply.
        reply: Reply,
    },
    /// There was no conversation, or it broke.
    Failed {
        /// At which moment.
        stage: String,
        /// What went wrong, in words.
        error: String,
    },
    /// A kind of outcome that this version does not know.
    #[serde(other)]
    Unknown,
}

/// One step of a message's way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A message (or the attempt to give one) came in.
    Received {
        /// `smtp`, `submission`, `submissions`, `imap-append`, `local`, …
        service: String,
        /// The client's address; none for messages that we made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer_ip: Option<IpAddr>,
        /// Its name by reverse and forward DNS.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer_name: Option<String>,
        /// What it called itself.
        #[serde(default)]
        helo: String,
        /// The connection's TLS.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls: Option<TlsUsed>,
        /// The login.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        login: Option<String>,
        /// The reverse-path; none when the client did not get that far.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reverse_path: Option<ReversePath>,
        /// The recipients that were accepted.
        #[serde(default)]
        recipients: Vec<EmailAddress>,
        /// Octets of the message; 0 when it was not sent.
        #[serde(default)]
        size: u64,
        /// Its Message-ID, without brackets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message_id: Option<String>,
    },
    /// The message was judged.
    Judged {
        /// What was checked.
        #[serde(default)]
        checks: Vec<Check>,
        /// `accept`, `junk`, `refuse`, `defer`.
        disposition: String,
        /// The rule that decided.
        #[serde(default)]
        rule: String,
        /// What would change it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remedy: Option<String>,
    },
    /// We refused the message, a recipient or the client.
    Refused {
        /// At which command or moment: `connect`, `AUTH`, `MAIL`, `RCPT`, `DATA`, …
        stage: String,
        /// Whom or what, e.g. the recipient.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        /// Our reply.
        reply: Reply,
        /// The rule that decided.
        #[serde(default)]
        rule: String,
        /// What would change it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remedy: Option<String>,
    },
    /// A content filter saw it.
    Filtered {
        /// Its name in the settings.
        filter: String,
        /// What it decided, in words.
        #[serde(default)]
        verdict: String,
        /// What it changed, in words.
        #[serde(default)]
        changes: Vec<String>,
    },
    /// The message was DKIM-signed.
    Signed {
        /// For which domain.
        domain: String,
        /// With which key.
        selector: String,
        /// `rsa-sha256` or `ed25519-sha256`.
        #[serde(default)]
        algorithm: String,
    },
    /// The message is on stable storage, and the client was told so.
    Accepted {
        /// Recipients served by this server's mailboxes.
        #[serde(default)]
        local: u32,
        /// Recipients queued for other servers.
        #[serde(default)]
        queued: u32,
    },
    /// It is in a mailbox here.
    DeliveredLocal {
        /// To whom it was addressed.
        recipient: EmailAddress,
        /// Whose mailbox.
        account: AccountId,
        /// Which mailbox.
        mailbox: MailboxId,
        /// The mailbox's name at that time.
        #[serde(default)]
        mailbox_name: String,
        /// Why it went there, when it is not INBOX.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// It was sent on to addresses elsewhere, as a message of its own.
    SentOn {
        /// The addresses here that lead there.
        #[serde(default)]
        by: Vec<EmailAddress>,
        /// Where to.
        #[serde(default)]
        to: Vec<EmailAddress>,
        /// The message that goes there.
        message: QueueId,
    },
    /// It is a message that is sent on.
    SentOnFrom {
        /// The message that came in.
        message: QueueId,
        /// The addresses here that sent it on.
        #[serde(default)]
        by: Vec<EmailAddress>,
        /// The reverse-path with which it came, as `<…>`.
        #[serde(default)]
        sender: String,
        /// The one with which it goes.
        #[serde(default)]
        reverse_path: String,
    },
    /// An errand was queued.
    Queued {
        /// To whom.
        recipient: EmailAddress,
        /// When it is due.
        next_attempt: Timestamp,
    },
    /// The sender asked for something about the delivery.
    Asked {
        /// What, in words.
        what: Vec<String>,
    },
    /// The way to a recipient's domain was found, or not.
    Route {
        /// Whose way.
        domain: String,
        /// The servers, in the order in which they will be tried.
        #[serde(default)]
        hosts: Vec<MxHost>,
        /// How it was found: `MX records`, `no MX: the domain's own address`, `route setting`, …
        #[serde(default)]
        why: String,
    },
    /// One server was tried.
    Attempt {
        /// For whom.
        #[serde(default)]
        recipients: Vec<EmailAddress>,
        /// Its name.
        host: String,
        /// Its address, when one was found.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ip: Option<IpAddr>,
        /// Its port.
        #[serde(default)]
        port: u16,
        /// The address of ours, where a pool of addresses chose it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<IpAddr>,
        /// Our name in EHLO, where it came with that address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        helo: Option<String>,
        /// The connection's TLS.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls: Option<TlsUsed>,
        /// What it came to.
        outcome: AttemptOutcome,
    },
    /// It did not work for now and will be tried again.
    Deferred {
        /// For whom.
        recipient: EmailAddress,
        /// The last reply, or our words for what went wrong.
        reply: Reply,
        /// When it will be tried again.
        next_attempt: Timestamp,
        /// When we will give up.
        expires: Timestamp,
        /// What it means.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
        /// What would help.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remedy: Option<String>,
    },
    /// The next server took it.
    Relayed {
        /// For whom.
        recipient: EmailAddress,
        /// Which server.
        host: String,
        /// Its reply.
        reply: Reply,
    },
    /// It failed for good.
    Bounced {
        /// For whom.
        recipient: EmailAddress,
        /// The reply that decided.
        reply: Reply,
        /// What it means.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
        /// What would help.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remedy: Option<String>,
    },
    /// It could not be done in time.
    Expired {
        /// For whom.
        recipient: EmailAddress,
        /// Attempts made.
        #[serde(default)]
        attempts: u32,
        /// The last reply.
        reply: Reply,
        /// What it means.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
        /// What would help.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remedy: Option<String>,
    },
    /// The sender was told.
    DsnSent {
        /// `failed`, `delayed`, `delivered`, `relayed`, `expanded`.
        kind: String,
        /// Who was told.
        to: EmailAddress,
        /// The report's own queue id, when it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<mail::QueueId>,
    },
    /// The operator or a rule of the operator dropped it.
    Dropped {
        /// For whom; none when all of the message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recipient: Option<EmailAddress>,
        /// Who or which rule.
        by: String,
    },
    /// Its owner's program fetched it.
    Retrieved {
        /// Whose.
        account: AccountId,
        /// The account's address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<EmailAddress>,
        /// `imap` or `pop3`.
        protocol: String,
    },
    /// It was due, and waits because its destination or sender is suspended.
    Suspended {
        /// For whom.
        #[serde(default)]
        recipients: Vec<EmailAddress>,
        /// What is suspended, such as `mail to example.com`.
        what: String,
        /// By whom.
        #[serde(default)]
        by: String,
        /// Until when, when that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// The operator did something to it.
    OperatorAction {
        /// Who.
        by: String,
        /// What, e.g. `asked for another attempt now`.
        action: String,
        /// For whom; nobody named: for all of the message.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        recipients: Vec<EmailAddress>,
    },
    /// A kind of step that this version does not know.
    #[serde(other)]
    Unknown,
}
