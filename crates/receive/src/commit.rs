//! The one batch that makes an accepted message true: its bytes, its deliveries here, its errands to
//! elsewhere, its journey.

use crate::asked::Wishes;
use crate::session::Session;
use crate::transaction::{Accepted, Target, Transaction};
use directory::Forward;
use journey::Event;
use letterbox::{Errands, Letter, Letterbox, Onward, To};
use mail::delivery::Notify;
use mail::{EmailAddress, ReversePath, Timestamp};
use queue::{Message, NewErrand};
use smtp::{Reply, replies};
use std::borrow::Cow;
use std::collections::HashSet;
use store::{Batch, BlobError, BlobId, CommitError};

/// A message that may be stored.
pub(crate) struct Ready {
    /// Fields to put on top.
    pub(crate) top: String,
    /// The message behind them.
    pub(crate) body: Vec<u8>,
    /// Its Message-ID, without brackets.
    pub(crate) message_id: Option<String>,
    /// Why it goes to Junk, when it does.
    pub(crate) junk: Option<String>,
    /// What was found out on the way.
    pub(crate) events: Vec<(Timestamp, Event)>,
    /// The filter that throws it away.
    pub(crate) discarded_by: Option<String>,
    /// What it reports about TLS to domains of ours.
    pub(crate) tls_reports: Vec<tlsrpt::Kept>,
}

impl Session {
    /// Stores the message and all that it causes. `Ok` means durable.
    pub(crate) async fn commit(&self, transaction: &Transaction, ready: Ready) -> Result<(), Reply> {
        let parts = &self.ctx.parts;
        let (id, now) = (transaction.id, parts.clock.now());
        let len = (ready.top.len() + ready.body.len()) as u64;
        let mut batch = Batch::new();
        let blob = self.stage(&mut batch, &ready).await?;

        self.record_arrival(&mut batch, transaction, ready.message_id.as_deref());
        for (at, event) in transaction.refusals.iter().chain(&ready.events) {
            parts.journey.record(&mut batch, id, *at, event);
        }
        let mut targets = Targets::of(transaction, ready.junk.is_some());
        self.make_room(&mut batch, transaction, &ready, &mut targets)
            .await?;
        let accepted = Event::Accepted {
            local: targets.local.len() as u32,
            queued: targets.queued.len() as u32,
        };
        parts.journey.record(&mut batch, id, now, &accepted);
        self.settle_here(
            &mut batch,
            transaction,
            &ready,
            Blob { id: blob, len },
            &targets.local,
        )
        .await?;
        self.queue(
            &mut batch,
            transaction,
            &ready,
            Blob { id: blob, len },
            &targets.queued,
        )?;
        if !targets.forwards.is_empty() {
            let blob = Blob { id: blob, len };
            self.send_on(&mut batch, transaction, &ready, blob, &targets.forwards)
                .await?;
        }
        if let Some(held) = &transaction.held {
            held.record(&mut batch);
        }
        if ready.junk.is_none() {
            self.keep_tls_reports(&mut batch, &ready.tls_reports).await;
        }
        parts.journey.pack(&mut batch);
        parts
            .store
            .commit(batch)
            .await
            .map(|_| ())
            .map_err(|error| commit_reply(&error))
    }

    async fn stage(&self, batch: &mut Batch, ready: &Ready) -> Result<BlobId, Reply> {
        let len = (ready.top.len() + ready.body.len()) as u64;
        let staged = async {
            let mut writer = self.ctx.parts.store.stage(len).await?;
            writer.write(ready.top.as_bytes()).await?;
            writer.write(&ready.body).await?;
            writer.finish().await
        };
        let staged = staged.await.map_err(|error| blob_reply(&error))?;
        let id = staged.id;
        batch.blob(staged);
        Ok(id)
    }

    /// Settles the recipients whose mailboxes are here, within the same batch. Should an account have
    /// gone since RCPT, the client comes again and hears so there.
    async fn settle_here(
        &self,
        batch: &mut Batch,
        transaction: &Transaction,
        ready: &Ready,
        blob: Blob,
        to: &[To<'_>],
    ) -> Result<(), Reply> {
        let letter = Letter {
            id: transaction.id,
            reverse_path: &transaction.reverse_path,
            prefix: &[],
            blob: blob.id,
            blob_len: blob.len,
            junk: ready.junk.as_deref(),
        };
        self.letterbox()
            .put(batch, &letter, to, Errands::New, self.ctx.parts.clock.now())
            .await
            .map_err(|error| store_failed(&error))
    }

    fn letterbox(&self) -> Letterbox<'_> {
        let parts = &self.ctx.parts;
        Letterbox {
            directory: &parts.directory,
            mailboxes: &parts.mailboxes,
            queue: &parts.queue,
            journey: &parts.journey,
        }
    }

    /// Accounts with a quota must have room when the batch is committed, whatever else comes in at
    /// the same time. An account without room gets the message from the queue, when there is room;
    /// when nobody is left who could have it now, it is not taken at all.
    async fn make_room<'a>(
        &self,
        batch: &mut Batch,
        transaction: &'a Transaction,
        ready: &Ready,
        targets: &mut Targets<'a>,
    ) -> Result<(), Reply> {
        let parts = &self.ctx.parts;
        let len = (ready.top.len() + ready.body.len()) as u64;
        let mut full = Vec::new();
        for to in &targets.local {
            let quota = parts.directory.quota(to.account).await;
            let Some(quota) = quota.map_err(|error| store_failed(&error))? else {
                continue;
            };
            let return_path = mail::trace::return_path(&transaction.reverse_path);
            match self.has_room(to.account, len + return_path.len() as u64).await? {
                true => parts.mailboxes.require_room(batch, to.account, quota),
                false => full.push(*to),
            }
        }
        if full.is_empty() {
            return Ok(());
        }
        targets.local.retain(|to| !full.contains(to));
        let nobody_else =
            targets.local.is_empty() && targets.queued.is_empty() && targets.forwards.is_empty();
        // The queue would not know that it is junk, nor that nobody is to be told of its end.
        if nobody_else || ready.junk.is_some() {
            return Err(replies::MAILBOXES_FULL);
        }
        for to in full {
            let account = parts.directory.account(to.account).await;
            let account = account.map_err(|error| store_failed(&error))?;
            let named = transaction.recipients.iter().find(|r| &r.address == to.recipient);
            let (Some(account), Some(named)) = (account, named) else {
                return Err(replies::STORE_FAILED);
            };
            targets.queued.push(Queued {
                address: Cow::Owned(account.address),
                wishes: &named.wishes,
            });
        }
        Ok(())
    }

    /// Adds the messages that are sent on to where recipients here lead.
    async fn send_on(
        &self,
        batch: &mut Batch,
        transaction: &Transaction,
        ready: &Ready,
        blob: Blob,
        forwards: &[(&Forward, &Wishes)],
    ) -> Result<(), Reply> {
        let parts = &self.ctx.parts;
        let now = parts.clock.now();
        let origin = self.message(transaction, ready, blob, now);
        let onward: Vec<Onward<'_>> = forwards
            .iter()
            .map(|(forward, wishes)| Onward {
                forward,
                // Whoever is named as the sender of junk has most likely not sent it.
                notify: if ready.junk.is_some() {
                    Some(Notify::NEVER)
                } else {
                    wishes.notify
                },
                original_recipient: wishes.original.as_ref(),
            })
            .collect();
        let keeps = letterbox::keeps_sender(self.is_ours(), &origin.reverse_path);
        let next_id = || parts.ids.next_id();
        self.letterbox()
            .send_on(batch, &origin, &onward, keeps, &next_id, now)
            .await
            .map_err(|error| store_failed(&error))
    }

    /// The message as the queue keeps it.
    fn message(&self, transaction: &Transaction, ready: &Ready, blob: Blob, now: Timestamp) -> Message {
        let asked = &transaction.asked;
        let is_ascii = ready.body.is_ascii() && ready.top.is_ascii();
        Message {
            id: transaction.id,
            reverse_path: transaction.reverse_path.clone(),
            blob: blob.id,
            blob_len: blob.len,
            prefix: Vec::new(),
            received_at: now,
            message_id: ready.message_id.clone(),
            login: self.is_ours().then(|| self.sender_name()),
            body: asked.body(is_ascii),
            smtputf8: transaction.smtputf8,
            envid: asked.envid.clone(),
            ret: asked.ret,
            require_tls: asked.require_tls,
            deliver_by: asked.deliver_by,
            priority: asked.priority,
        }
    }

    /// Adds an errand for each recipient whose mail is not settled in this batch.
    fn queue(
        &self,
        batch: &mut Batch,
        transaction: &Transaction,
        ready: &Ready,
        blob: Blob,
        recipients: &[Queued<'_>],
    ) -> Result<(), Reply> {
        let parts = &self.ctx.parts;
        let now = parts.clock.now();
        let due = due(transaction, now);
        let message = self.message(transaction, ready, blob, now);
        let errands: Vec<NewErrand> = recipients
            .iter()
            .map(|queued| queued.wishes.errand(&queued.address, due))
            .collect();
        parts
            .queue
            .accept(batch, &message, &errands)
            .map_err(|error| store_failed(&error))?;
        let what = message.asked_in_words();
        if !errands.is_empty() && !what.is_empty() {
            let event = Event::Asked { what };
            parts.journey.record(batch, transaction.id, now, &event);
        }
        for recipient in recipients {
            let event = Event::Queued {
                recipient: recipient.address.clone().into_owned(),
                next_attempt: due,
            };
            parts.journey.record(batch, transaction.id, now, &event);
        }
        Ok(())
    }
}

/// A staged blob, by name and length.
#[derive(Clone, Copy)]
struct Blob {
    id: BlobId,
    len: u64,
}

/// The recipients by where their mail goes. An account that several addresses lead to gets one copy.
struct Targets<'a> {
    local: Vec<To<'a>>,
    queued: Vec<Queued<'a>>,
    forwards: Vec<(&'a Forward, &'a Wishes)>,
}

/// Somebody who gets the message from the queue.
struct Queued<'a> {
    address: Cow<'a, EmailAddress>,
    wishes: &'a Wishes,
}

impl<'a> Targets<'a> {
    fn of(transaction: &'a Transaction, is_junk: bool) -> Self {
        let mut targets = Self {
            local: Vec::new(),
            queued: Vec::new(),
            forwards: Vec::new(),
        };
        let mut seen = HashSet::new();
        for recipient in &transaction.recipients {
            if recipient.target == Target::Remote || waits(transaction, recipient, is_junk) {
                targets.queued.push(Queued {
                    address: Cow::Borrowed(&recipient.address),
                    wishes: &recipient.wishes,
                });
                continue;
            }
            let (accounts, forwards) = recipient.target.places();
            let fresh = accounts.iter().filter(|account| seen.insert(**account));
            targets.local.extend(fresh.map(|account| To {
                recipient: &recipient.address,
                account: *account,
            }));
            let wishes = &recipient.wishes;
            targets.forwards.extend(forwards.iter().map(|f| (f, wishes)));
        }
        targets
    }
}

/// When what is queued is due: at once, unless it is held until later.
fn due(transaction: &Transaction, now: Timestamp) -> Timestamp {
    let held_until = transaction.asked.held_until;
    held_until.map_or(now, |until| until.max(now))
}

/// Whether a mailbox here gets its message by the queue: one that is held waits there, and the report of
/// success is made where errands end. Nobody is told of what goes to Junk: a success to report would
/// tell spammers who exists, and bother whom they pretend to be.
fn waits(transaction: &Transaction, recipient: &Accepted, is_junk: bool) -> bool {
    let reports = recipient.wishes.wants_success() && transaction.reverse_path != ReversePath::Null;
    transaction.asked.held_until.is_some() || (reports && !is_junk)
}

fn commit_reply(error: &CommitError) -> Reply {
    match error {
        CommitError::Full => replies::DISK_FULL,
        // Nothing is broken: too many commits wait.
        CommitError::Busy => replies::STORE_FAILED,
        _ => store_failed(error),
    }
}

fn blob_reply(error: &BlobError) -> Reply {
    match error {
        BlobError::Full => replies::DISK_FULL,
        _ => store_failed(error),
    }
}

fn store_failed(error: &dyn std::error::Error) -> Reply {
    tracing::error!(%error, "a message could not be stored");
    replies::STORE_FAILED
}
