//! The one batch that makes an accepted message true: its bytes, its deliveries here, its errands to
//! elsewhere, its journey.

use crate::session::Session;
use crate::transaction::{Accepted, Target, Transaction};
use journey::Event;
use letterbox::{Errands, Letter, Letterbox, To};
use mail::{ReversePath, Timestamp};
use queue::{Message, NewErrand};
use smtp::{Reply, replies};
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
        let targets = Targets::of(transaction, ready.junk.is_some());
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
        if let Some(held) = &transaction.held {
            held.record(&mut batch);
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
        let parts = &self.ctx.parts;
        let letterbox = Letterbox {
            directory: &parts.directory,
            mailboxes: &parts.mailboxes,
            queue: &parts.queue,
            journey: &parts.journey,
        };
        let letter = Letter {
            id: transaction.id,
            reverse_path: &transaction.reverse_path,
            prefix: &[],
            blob: blob.id,
            blob_len: blob.len,
            junk: ready.junk.as_deref(),
        };
        letterbox
            .put(batch, &letter, to, Errands::New, parts.clock.now())
            .await
            .map_err(|error| store_failed(&error))
    }

    /// Adds an errand for each recipient whose mail is not settled in this batch.
    fn queue(
        &self,
        batch: &mut Batch,
        transaction: &Transaction,
        ready: &Ready,
        blob: Blob,
        recipients: &[&Accepted],
    ) -> Result<(), Reply> {
        let parts = &self.ctx.parts;
        let (now, asked) = (parts.clock.now(), &transaction.asked);
        let due = asked.held_until.map_or(now, |until| until.max(now));
        let is_ascii = ready.body.is_ascii() && ready.top.is_ascii();
        let message = Message {
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
        };
        let errands: Vec<NewErrand> = recipients
            .iter()
            .map(|accepted| accepted.wishes.errand(&accepted.address, due))
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
                recipient: recipient.address.clone(),
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
    queued: Vec<&'a Accepted>,
}

impl<'a> Targets<'a> {
    fn of(transaction: &'a Transaction, is_junk: bool) -> Self {
        let (mut local, mut queued) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for recipient in &transaction.recipients {
            match &recipient.target {
                Target::Remote => queued.push(recipient),
                Target::Local(_) if waits(transaction, recipient, is_junk) => queued.push(recipient),
                Target::Local(accounts) => {
                    let fresh = accounts.iter().filter(|account| seen.insert(**account));
                    local.extend(fresh.map(|account| To {
                        recipient: &recipient.address,
                        account: *account,
                    }));
                }
            }
        }
        Self { local, queued }
    }
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
