//! The letterbox: puts a message into mailboxes here, and a report on its way to its sender, within
//! the caller's batch.
//!
//! The one place where an errand ends in a mailbox: mail that is being accepted, errands of the
//! queue that turn out to lead here, and our own reports all come through [`Letterbox::put`]; and
//! the one place where a message is sent on, [`Letterbox::send_on`].
//! Promises: the entry, its record in the journey and its count in the ledger join one batch, so
//! that all are true or none; an account that is removed meanwhile fails the batch; the final
//! delivery puts a Return-Path on top (RFC 5321 §4.4).
//!
//! Never: a commit, a decision about where an address leads, a clock.

pub mod dsn;
pub mod explain;
pub mod failure;
mod notice;
mod onward;
mod report;

pub use failure::Failure;
pub use notice::{Notice, Noticed};
pub use onward::{DELIVERED_TO, Onward, keeps_sender};
pub use report::{Octets, Original, Reporter};

use directory::Directory;
use journey::{Event, Journey};
use mail::{AccountId, EmailAddress, EnhancedStatus, QueueId, ReversePath, Timestamp, trace};
use mailbox::{Delivery, Flags, Mailboxes, Role};
use queue::{Claim, LastOutcome, Outcome, Queue};
use store::{Batch, BlobId};

/// What the letterbox works with. All of one store.
#[derive(Clone, Copy)]
pub struct Letterbox<'a> {
    /// Whose accounts there are.
    pub directory: &'a Directory,
    /// Where the message goes.
    pub mailboxes: &'a Mailboxes,
    /// Where the errands are counted, and end.
    pub queue: &'a Queue,
    /// Where it is recorded.
    pub journey: &'a Journey,
}

/// A message on its way into mailboxes here.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// Its name.
    pub id: QueueId,
    /// Whom its Return-Path names.
    pub reverse_path: &'a ReversePath,
    /// Fields to put on top of the blob, below the Return-Path.
    pub prefix: &'a [u8],
    /// Its octets: in the store, or staged in the same batch.
    pub blob: BlobId,
    /// How many they are.
    pub blob_len: u64,
    /// Why it goes to Junk; without a reason it goes to INBOX.
    pub junk: Option<&'a str>,
}

/// One mailbox to reach: an account, and by which address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct To<'a> {
    /// The recipient that led to the account.
    pub recipient: &'a EmailAddress,
    /// Whose mailbox.
    pub account: AccountId,
}

/// Which errands end here.
#[derive(Clone, Copy, Debug)]
pub enum Errands<'a> {
    /// Those that this very batch accepts, one for each mailbox.
    New,
    /// One of the queue, by the claim that holds it, into however many mailboxes it leads to.
    Claimed(&'a Claim),
}

/// Why a message could not be put into the batch, which is of no use then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mailbox could not be found or made, or the message is over a limit of it.
    #[error(transparent)]
    Mailbox(#[from] mailbox::Error),
    /// The queue could not be read, or the claim is lost.
    #[error(transparent)]
    Queue(#[from] queue::Error),
    /// The directory could not be read.
    #[error(transparent)]
    Directory(#[from] directory::Error),
    /// A report could not be stored.
    #[error(transparent)]
    Blob(#[from] store::BlobError),
}

impl Letterbox<'_> {
    /// Ends the errands by adding to the batch that the message is in a mailbox of each account.
    /// A mailbox that is missing is made at once, in a commit of its own. Name each account once.
    ///
    /// On [`store::CommitError::Conflict`] an account or a mailbox went meanwhile, or the claim's
    /// errand changed: begin again with a fresh batch.
    ///
    /// # Errors
    /// [`Error`]; the batch may hold a part then and must not be committed.
    pub async fn put(
        &self,
        batch: &mut Batch,
        letter: &Letter<'_>,
        to: &[To<'_>],
        errands: Errands<'_>,
        now: Timestamp,
    ) -> Result<(), Error> {
        match errands {
            Errands::New => self.queue.settled_at_once(batch, to.len()),
            Errands::Claimed(claim) => {
                self.queue.settle(batch, claim, &delivered(now)).await?;
            }
        }
        for one in to {
            self.put_one(batch, letter, *one, now).await?;
        }
        Ok(())
    }

    async fn put_one(
        &self,
        batch: &mut Batch,
        letter: &Letter<'_>,
        to: To<'_>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let role = match letter.junk {
            Some(_) => Role::Junk,
            None => Role::Inbox,
        };
        let mailbox = self.mailboxes.find_or_create(to.account, role, now).await?;
        let mut prefix = trace::return_path(letter.reverse_path).into_bytes();
        prefix.extend_from_slice(letter.prefix);
        let delivery = Delivery {
            blob: letter.blob,
            blob_len: letter.blob_len,
            prefix,
            flags: Flags::NONE,
            keywords: Vec::new(),
            internal_date: now,
            queue_id: Some(letter.id),
        };
        // It may have been removed since its address was looked up.
        self.directory.require_account(batch, to.account);
        self.mailboxes.deliver(batch, mailbox.place(), delivery)?;
        let event = Event::DeliveredLocal {
            recipient: to.recipient.clone(),
            account: to.account,
            mailbox: mailbox.id,
            mailbox_name: mailbox.name,
            why: letter.junk.map(str::to_owned),
        };
        self.journey.record(batch, letter.id, now, &event);
        Ok(())
    }
}

/// How an errand of the queue ends here.
fn delivered(now: Timestamp) -> Outcome {
    Outcome::Delivered(LastOutcome {
        at: now,
        host: None,
        reply: "250 2.0.0 in the mailbox".to_owned(),
        status: Some(EnhancedStatus::new(2, 0, 0)),
        class: None,
    })
}
