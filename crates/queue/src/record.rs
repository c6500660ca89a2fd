//! The nouns of the queue. Their serde form is what machines read in listings, and what version 1 of
//! the stored values was; see `codec` for the bytes that are stored now.

use mail::delivery::{ByMode, Notify, OriginalRecipient, Priority, Ret};
use mail::{EmailAddress, EnhancedStatus, QueueId, ReversePath, Timestamp, date};
use serde::{Deserialize, Serialize};
use store::BlobId;

/// Octets of a message's prefix at most.
pub const PREFIX_OCTETS_MAX: usize = 64 * 1024;

/// Errands of one message at most.
pub const ERRANDS_PER_MESSAGE_MAX: usize = 10_000;
/// Octets of a remote reply that are kept.
pub const REPLY_OCTETS_MAX: usize = 1024;

/// What the message's body needs to be carried (RFC 6152 BODY).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// Only ASCII.
    #[default]
    SevenBit,
    /// Octets above 127: the next server must say 8BITMIME.
    EightBit,
    /// Any octets, also line endings that are none (RFC 3030 §3): the next server must say BINARYMIME
    /// and CHUNKING.
    Binary,
}

/// By when a message is to be there (RFC 2852), as it is kept: the moment, not the time left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Deadline {
    /// The moment.
    pub at: Timestamp,
    /// What happens then.
    pub mode: ByMode,
    /// Whether each hand-over on the way is to be reported.
    pub trace: bool,
}

/// A queued message: the bytes, once, and their envelope.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Its name, from reception to the end.
    pub id: QueueId,
    /// Where failures are reported.
    pub reverse_path: ReversePath,
    /// The message's bytes.
    #[serde(with = "blob_text")]
    pub blob: BlobId,
    /// Their number.
    pub blob_len: u64,
    /// Header octets that stand before the blob, e.g. Received and DKIM-Signature. At most
    /// [`PREFIX_OCTETS_MAX`].
    #[serde(skip)]
    pub prefix: Vec<u8>,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// The Message-ID header field's id, without brackets, when there is one.
    #[serde(default)]
    pub message_id: Option<String>,
    /// The login that submitted it.
    #[serde(default)]
    pub login: Option<String>,
    /// What the body needs.
    #[serde(default)]
    pub body: Body,
    /// Whether header or envelope need SMTPUTF8 (RFC 6531).
    #[serde(default)]
    pub smtputf8: bool,
    /// The sender's envelope id (RFC 3461 §4.4 ENVID).
    #[serde(default)]
    pub envid: Option<String>,
    /// Whether the sender asked for headers only or the full text in reports (RFC 3461 §4.3 RET).
    #[serde(default, with = "ret_text")]
    pub ret: Option<Ret>,
    /// Whether it may only go over verified TLS to servers that promise the same (RFC 8689).
    #[serde(default)]
    pub require_tls: bool,
    /// By when it is to be there (RFC 2852 BY).
    #[serde(default)]
    pub deliver_by: Option<Deadline>,
    /// What goes first (RFC 6710 MT-PRIORITY); normal is 0.
    #[serde(default)]
    pub priority: Priority,
}

impl Message {
    /// Octets of the whole message: prefix and blob.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.prefix.len() as u64 + self.blob_len
    }

    /// Who sends, as a number by which senders take turns: the login, or the domain of the reverse-path
    /// (lists give each message an address of its own). 0 for reports.
    #[must_use]
    pub fn sender(&self) -> u32 {
        let who = match (&self.login, &self.reverse_path) {
            (Some(login), _) => login.to_ascii_lowercase(),
            (None, ReversePath::Address(address)) => address.host().to_string(),
            (None, ReversePath::Null) => return 0,
        };
        // FNV-1a: two that share a number share a turn, no more.
        let mix = |hash: u32, octet: u8| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193);
        who.bytes().fold(0x811c_9dc5, mix).max(1)
    }
}

/// What a sender may ask of a whole message, in words: for listings and for its journey.
impl Message {
    /// What the sender asked that changes how the message goes; empty for nearly every message.
    #[must_use]
    pub fn asked_in_words(&self) -> Vec<String> {
        let mut asked = Vec::new();
        if self.require_tls {
            asked.push("TLS all the way (REQUIRETLS)".to_owned());
        }
        if let Some(by) = self.deliver_by {
            let otherwise = match by.mode {
                ByMode::Return => "or back to the sender",
                ByMode::Notify => "or a notice to the sender",
            };
            asked.push(format!("delivery by {}, {otherwise}", date::iso8601(by.at)));
        }
        if self.priority != Priority::NORMAL {
            asked.push(format!("priority {}", self.priority));
        }
        if self.body == Body::Binary {
            asked.push("its octets unchanged (BINARYMIME)".to_owned());
        }
        asked
    }
}

/// An errand as it is handed in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewErrand {
    /// To whom.
    pub recipient: EmailAddress,
    /// The recipient that the sender named, when it said so (RFC 3461 §4.2 ORCPT).
    pub original_recipient: Option<OriginalRecipient>,
    /// The sender's wishes for reports, when it said any (RFC 3461 §4.1 NOTIFY).
    pub notify: Option<Notify>,
    /// When it is due: the time of acceptance for a first attempt at once; later for a message that is
    /// held until then (RFC 4865), whose time to expiry begins then.
    pub next_attempt: Timestamp,
}

impl NewErrand {
    /// An errand without wishes, for a first attempt at once when `due` is now.
    #[must_use]
    pub fn to(recipient: EmailAddress, due: Timestamp) -> Self {
        Self {
            recipient,
            original_recipient: None,
            notify: None,
            next_attempt: due,
        }
    }
}

/// How an errand stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum ErrandState {
    /// It has still to be done.
    Waiting {
        /// When it is due.
        next_attempt: Timestamp,
    },
    /// The operator keeps it: it is not tried until it is released.
    Held {
        /// Since when.
        at: Timestamp,
        /// Who.
        by: String,
    },
    /// It is in a mailbox here.
    Delivered {
        /// Since when.
        at: Timestamp,
    },
    /// The next server took it.
    Relayed {
        /// Since when.
        at: Timestamp,
    },
    /// It failed for good and the sender was told.
    Bounced {
        /// Since when.
        at: Timestamp,
    },
    /// It could not be done in time and the sender was told.
    Expired {
        /// Since when.
        at: Timestamp,
    },
    /// The operator dropped it.
    Dropped {
        /// Since when.
        at: Timestamp,
        /// Who.
        by: String,
    },
}

impl ErrandState {
    /// Whether there is still something to do.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, ErrandState::Waiting { .. } | ErrandState::Held { .. })
    }

    /// Whether the operator keeps it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self, ErrandState::Held { .. })
    }
}

/// The server to which the operator sends an errand, instead of the one that the DNS or a route names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Via {
    /// Its name, or its address in digits.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl std::fmt::Display for Via {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// What the last attempt brought.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LastOutcome {
    /// When.
    pub at: Timestamp,
    /// The server that was spoken to, when it came to that.
    #[serde(default)]
    pub host: Option<String>,
    /// Its reply in its words, or ours when there was none; cut after [`REPLY_OCTETS_MAX`].
    pub reply: String,
    /// The enhanced status that stands for it.
    #[serde(default)]
    pub status: Option<EnhancedStatus>,
    /// The class of the failure (`docs/DELIVERY-FAILURES.md`); none for a success, and for what an older
    /// version recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

/// One recipient's delivery.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Errand {
    /// Which message.
    pub message: QueueId,
    /// Which of its errands, from 0.
    pub no: u32,
    /// To whom.
    pub recipient: EmailAddress,
    /// See [`NewErrand::original_recipient`].
    #[serde(default, with = "orcpt_text")]
    pub original_recipient: Option<OriginalRecipient>,
    /// See [`NewErrand::notify`].
    #[serde(default, with = "notify_text")]
    pub notify: Option<Notify>,
    /// See [`Message::priority`].
    #[serde(default)]
    pub priority: Priority,
    /// See [`Message::sender`]. Kept in the due index, not with the errand: 0 in listings.
    #[serde(skip)]
    pub(crate) sender: u32,
    /// How it stands.
    pub state: ErrandState,
    /// Attempts made so far.
    #[serde(default)]
    pub attempts: u32,
    /// From when its time runs: when it entered the queue, or until when it is held.
    pub first_queued: Timestamp,
    /// What the last attempt brought.
    #[serde(default)]
    pub last: Option<LastOutcome>,
    /// Whether the sender was told of the delay.
    #[serde(default)]
    pub delay_told: bool,
    /// Whether the sender was told that the deadline passed (RFC 2852, mode N).
    #[serde(default)]
    pub deadline_told: bool,
    /// Where the operator sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// Whether it was put back untried because its destination or its sender is suspended.
    #[serde(default)]
    pub suspended: bool,
    /// The epoch of the last settled lease.
    #[serde(default)]
    pub(crate) epoch: u64,
}

impl Errand {
    pub(crate) fn new(message: &Message, no: u32, new: &NewErrand) -> Self {
        Self {
            message: message.id,
            no,
            recipient: new.recipient.clone(),
            original_recipient: new.original_recipient.clone(),
            notify: new.notify,
            priority: message.priority,
            sender: message.sender(),
            state: ErrandState::Waiting {
                next_attempt: new.next_attempt,
            },
            attempts: 0,
            first_queued: message.received_at.max(new.next_attempt),
            last: None,
            delay_told: false,
            deadline_told: false,
            via: None,
            suspended: false,
            epoch: 0,
        }
    }
}

impl Errand {
    /// Until when it is held (RFC 4865), when it has not been tried yet and that lies ahead of `now`.
    #[must_use]
    pub fn held_until(&self, now: Timestamp) -> Option<Timestamp> {
        match self.state {
            ErrandState::Waiting { next_attempt } => {
                (self.attempts == 0 && next_attempt == self.first_queued && next_attempt > now)
                    .then_some(next_attempt)
            }
            _ => None,
        }
    }
}

impl LastOutcome {
    /// The same with a reply of at most [`REPLY_OCTETS_MAX`].
    pub(crate) fn cut(&self) -> Self {
        let mut cut = self.clone();
        cut.reply
            .truncate(cut.reply.floor_char_boundary(REPLY_OCTETS_MAX));
        cut
    }
}

mod blob_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use store::BlobId;

    pub(super) fn serialize<S: Serializer>(id: &BlobId, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BlobId, D::Error> {
        let text = String::deserialize(d)?;
        BlobId::parse(&text).ok_or_else(|| D::Error::custom("not a blob id"))
    }
}

/// Optional parameter values as the text that the parameter has.
macro_rules! parameter_text {
    ($module:ident, $type:ty) => {
        mod $module {
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            pub(super) fn serialize<S: Serializer>(value: &Option<$type>, s: S) -> Result<S::Ok, S::Error> {
                match value {
                    Some(value) => s.serialize_some(&value.to_string()),
                    None => s.serialize_none(),
                }
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<$type>, D::Error> {
                let Some(text) = Option::<String>::deserialize(d)? else {
                    return Ok(None);
                };
                let value = <$type>::parse(&text);
                value
                    .map(Some)
                    .ok_or_else(|| D::Error::custom("not a value of the parameter"))
            }
        }
    };
}

parameter_text!(ret_text, mail::delivery::Ret);
parameter_text!(notify_text, mail::delivery::Notify);
parameter_text!(orcpt_text, mail::delivery::OriginalRecipient);
