//! What is known of one mail transaction, from MAIL to its end.

use crate::asked::{Asked, Wishes};
use directory::Spread;
use journey::Event;
use mail::delivery::Notify;
use mail::{AccountId, EmailAddress, QueueId, ReversePath, Timestamp};
use smtp::Reply;
use smtp::command::MailFrom;
use tokio::sync::OwnedSemaphorePermit;

/// Refusals of one transaction that its journey keeps at most; the others were answered all the same.
pub(crate) const REFUSALS_KEPT_MAX: usize = 20;

/// Where a recipient's mail goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// Into mailboxes here.
    Local(Vec<AccountId>),
    /// Into mailboxes here, and on to addresses elsewhere.
    Spread(Box<Spread>),
    /// To another server, through the queue.
    Remote,
}

/// An accepted recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Accepted {
    pub(crate) address: EmailAddress,
    pub(crate) target: Target,
    pub(crate) wishes: Wishes,
}

/// A transaction.
pub(crate) struct Transaction {
    pub(crate) id: QueueId,
    pub(crate) began: Timestamp,
    pub(crate) helo: String,
    pub(crate) reverse_path: ReversePath,
    pub(crate) smtputf8: bool,
    pub(crate) asked: Asked,
    /// Octets of the message, as the client said (RFC 1870); 0 when it said nothing.
    pub(crate) declared_octets: u64,
    pub(crate) recipients: Vec<Accepted>,
    /// In LMTP: which recipient each accepted RCPT named, by its place. The message is answered once
    /// for each of them.
    pub(crate) answers_due: Vec<usize>,
    /// Refused recipients and other refusals, for the journey.
    pub(crate) refusals: Vec<(Timestamp, Event)>,
    /// Addresses that were refused, by which the journey can be found.
    pub(crate) refused_addresses: Vec<EmailAddress>,
    /// How it came (RFC 3848), once the message begins.
    pub(crate) protocol: &'static str,
    pub(crate) message: Vec<u8>,
    /// Octets of the message that came in; they are told even when the message itself is gone.
    pub(crate) octets: u64,
    /// Memory that the message holds.
    pub(crate) memory: Vec<OwnedSemaphorePermit>,
    pub(crate) memory_units: usize,
    /// The part of the message that is in a file, before what is in memory.
    pub(crate) spilled: Option<crate::spill::Spilled>,
    /// What it has taken of the login's day.
    pub(crate) held: Option<limits::Held>,
}

impl Transaction {
    /// Nobody hears what becomes of the message.
    pub(crate) fn report_to_nobody(&mut self) {
        for recipient in &mut self.recipients {
            recipient.wishes.notify = Some(Notify::NEVER);
        }
    }

    pub(crate) fn new(id: QueueId, began: Timestamp, helo: &str, mail: &MailFrom) -> Self {
        Self {
            id,
            began,
            helo: helo.to_owned(),
            reverse_path: mail.path.clone(),
            smtputf8: mail.smtputf8,
            asked: Asked::of(mail, began),
            declared_octets: 0,
            recipients: Vec::new(),
            answers_due: Vec::new(),
            refusals: Vec::new(),
            refused_addresses: Vec::new(),
            protocol: "ESMTP",
            message: Vec::new(),
            octets: 0,
            memory: Vec::new(),
            memory_units: 0,
            spilled: None,
            held: None,
        }
    }

    /// Adds a recipient unless it was named before: who is named twice gets one message. Gives its
    /// place.
    pub(crate) fn add(&mut self, recipient: Accepted) -> usize {
        let known = self
            .recipients
            .iter()
            .position(|r| r.address == recipient.address);
        known.unwrap_or_else(|| {
            self.recipients.push(recipient);
            self.recipients.len() - 1
        })
    }

    /// Keeps a refusal for the journey.
    pub(crate) fn note_refusal(&mut self, at: Timestamp, refusal: Refusal<'_>) {
        if self.refusals.len() >= REFUSALS_KEPT_MAX {
            return;
        }
        if let Some(address) = refusal.address {
            self.refused_addresses.push(address.clone());
        }
        self.refusals.push((at, refusal.event()));
    }
}

/// A refusal on its way into the journey.
pub(crate) struct Refusal<'a> {
    /// At which command.
    pub(crate) stage: &'static str,
    /// Which address, when it is about one.
    pub(crate) address: Option<&'a EmailAddress>,
    /// What was said.
    pub(crate) reply: &'a Reply,
    /// By which rule.
    pub(crate) rule: &'a str,
    /// What would change it.
    pub(crate) remedy: Option<String>,
}

impl Refusal<'_> {
    pub(crate) fn event(&self) -> Event {
        Event::Refused {
            stage: self.stage.to_owned(),
            subject: self.address.map(ToString::to_string),
            reply: journey_reply(self.reply),
            rule: self.rule.to_owned(),
            remedy: self.remedy.clone(),
        }
    }
}

/// A reply as the journey keeps it.
pub(crate) fn journey_reply(reply: &Reply) -> journey::Reply {
    journey::Reply {
        code: reply.code,
        status: reply.status,
        text: reply.text.to_string(),
    }
}
