//! Sends a message on: to the addresses elsewhere that aliases and groups here lead to.
//!
//! A queued message has one reverse-path, so what is sent on is a message of its own, with a number
//! of its own, that shares the bytes: one for each domain that sends it on. Its reverse-path is
//! rewritten to that domain, so that SPF passes at the next server and bounces come back here; its
//! bytes stay as they are, so that signatures hold; on top stands a `Delivered-To` field (RFC 9228)
//! for each address that sent it on, by which a message that comes back is known.

use crate::{Error, Letterbox};
use directory::Forward;
use journey::Event;
use mail::delivery::{Notify, OriginalRecipient};
use mail::{Domain, EmailAddress, QueueId, ReversePath, Timestamp};
use queue::{Message, NewErrand};
use std::collections::BTreeMap;
use store::Batch;

/// The name of the field that says who sent a message on (RFC 9228).
pub const DELIVERED_TO: &str = "Delivered-To";

/// Somebody to send a message on to.
#[derive(Clone, Copy, Debug)]
pub struct Onward<'a> {
    /// To whom, and by which address here.
    pub forward: &'a Forward,
    /// The sender's wishes for reports about the address that it named (RFC 3461 §5.2.7).
    pub notify: Option<Notify>,
    /// The recipient that the sender named.
    pub original_recipient: Option<&'a OriginalRecipient>,
}

/// What one domain sends on.
#[derive(Default)]
struct Part<'a> {
    by: Vec<&'a EmailAddress>,
    errands: Vec<NewErrand>,
}

impl Letterbox<'_> {
    /// Adds to the batch that a message is sent on. `origin` is the message as it would be queued
    /// itself; with `keeps_sender` its reverse-path is kept: only for one that is known to be ours.
    /// The errands are due at `due`. Who is named twice gets one message.
    ///
    /// # Errors
    /// [`Error`]; the batch may hold a part then and must not be committed.
    pub async fn send_on(
        &self,
        batch: &mut Batch,
        origin: &Message,
        onward: &[Onward<'_>],
        keeps_sender: bool,
        next_id: &(dyn Fn() -> QueueId + Send + Sync),
        due: Timestamp,
    ) -> Result<(), Error> {
        for (domain, part) in parts(onward, due) {
            let id = next_id();
            let reverse_path = match keeps_sender {
                true => origin.reverse_path.clone(),
                false => {
                    let sender = &origin.reverse_path;
                    let now = origin.received_at;
                    self.directory.forward_sender(batch, sender, domain, now).await?
                }
            };
            let fields = part.by.iter().map(|by| format!("{DELIVERED_TO}: {by}\r\n"));
            let mut prefix = fields.collect::<String>().into_bytes();
            prefix.extend_from_slice(&origin.prefix);
            let message = Message {
                id,
                reverse_path,
                prefix,
                login: None,
                ..origin.clone()
            };
            self.queue.accept(batch, &message, &part.errands)?;
            self.tell(batch, origin, &message, &part);
        }
        Ok(())
    }

    /// Both journeys tell of each other.
    fn tell(&self, batch: &mut Batch, origin: &Message, message: &Message, part: &Part<'_>) {
        let now = origin.received_at;
        let to: Vec<EmailAddress> = part.errands.iter().map(|e| e.recipient.clone()).collect();
        let by: Vec<EmailAddress> = part.by.iter().map(|by| (*by).clone()).collect();
        let event = Event::SentOn {
            by: by.clone(),
            to: to.clone(),
            message: message.id,
        };
        self.journey.record(batch, origin.id, now, &event);
        let addresses: Vec<&EmailAddress> = message.reverse_path.address().into_iter().chain(&to).collect();
        let message_id = message.message_id.as_deref();
        self.journey.index(batch, message.id, now, message_id, &addresses);
        let begin = Event::SentOnFrom {
            message: origin.id,
            by,
            sender: origin.reverse_path.to_string(),
            reverse_path: message.reverse_path.to_string(),
        };
        self.journey.record(batch, message.id, now, &begin);
        let accepted = Event::Accepted {
            local: 0,
            queued: u32::try_from(part.errands.len()).unwrap_or(u32::MAX),
        };
        self.journey.record(batch, message.id, now, &accepted);
        for errand in &part.errands {
            let event = Event::Queued {
                recipient: errand.recipient.clone(),
                next_attempt: errand.next_attempt,
            };
            self.journey.record(batch, message.id, now, &event);
        }
    }
}

/// By the domain that sends it on; who is named twice is in it once.
fn parts<'a>(onward: &[Onward<'a>], due: Timestamp) -> BTreeMap<&'a Domain, Part<'a>> {
    let mut parts: BTreeMap<&Domain, Part<'_>> = BTreeMap::new();
    for one in onward {
        // An address here always has a domain.
        let Some(domain) = one.forward.by.domain() else {
            continue;
        };
        let part = parts.entry(domain).or_default();
        if !part.by.contains(&&one.forward.by) {
            part.by.push(&one.forward.by);
        }
        let folded = one.forward.to.folded();
        if part.errands.iter().all(|e| e.recipient.folded() != folded) {
            part.errands.push(NewErrand {
                recipient: one.forward.to.clone(),
                original_recipient: one.original_recipient.cloned(),
                notify: one.notify,
                next_attempt: due,
            });
        }
    }
    parts
}

/// Whether a reverse-path may stay what it is when a message is sent on: the sender was logged in,
/// so it is ours, and so is the domain by which the next server judges it.
#[must_use]
pub fn keeps_sender(is_logged_in: bool, reverse_path: &ReversePath) -> bool {
    is_logged_in || reverse_path.is_null()
}
