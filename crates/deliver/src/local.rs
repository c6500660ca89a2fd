//! Mail for mailboxes of this server: the same path for queued messages and for our own reports.

use crate::errand::Trouble;
use crate::service::Context;
use directory::Resolution;
use journey::Event;
use mail::{AccountId, EmailAddress, QueueId, ReversePath, Timestamp};
use mailbox::{Delivery, Flags, Mailbox, Role};
use store::{Batch, BlobId};

/// A message on its way into mailboxes here.
pub(crate) struct Local<'a> {
    pub(crate) id: QueueId,
    pub(crate) reverse_path: &'a ReversePath,
    pub(crate) recipient: &'a EmailAddress,
    pub(crate) prefix: &'a [u8],
    pub(crate) blob: BlobId,
    pub(crate) blob_len: u64,
    pub(crate) why: Option<&'a str>,
}

/// The INBOX of each account.
pub(crate) async fn inboxes(
    ctx: &Context,
    accounts: &[AccountId],
    now: Timestamp,
) -> Result<Vec<Mailbox>, Trouble> {
    let mut found = Vec::with_capacity(accounts.len());
    for account in accounts {
        found.push(ctx.mailboxes.find_or_create(*account, Role::Inbox, now).await?);
    }
    Ok(found)
}

/// Adds the message and its record to a batch, once per mailbox.
pub(crate) fn deliver(
    ctx: &Context,
    batch: &mut Batch,
    inboxes: &[Mailbox],
    message: &Local<'_>,
    now: Timestamp,
) -> Result<(), Trouble> {
    let mut prefix = mail::trace::return_path(message.reverse_path).into_bytes();
    prefix.extend_from_slice(message.prefix);
    for inbox in inboxes {
        let delivery = Delivery {
            blob: message.blob,
            blob_len: message.blob_len,
            prefix: prefix.clone(),
            flags: Flags::NONE,
            keywords: Vec::new(),
            internal_date: now,
            queue_id: Some(message.id),
        };
        ctx.directory.require_account(batch, inbox.account);
        ctx.mailboxes.deliver(batch, inbox.place(), delivery)?;
        let event = Event::DeliveredLocal {
            recipient: message.recipient.clone(),
            account: inbox.account,
            mailbox: inbox.id,
            mailbox_name: inbox.name.clone(),
            why: message.why.map(str::to_owned),
        };
        ctx.journey.record(batch, message.id, now, &event);
    }
    Ok(())
}

/// Where an address leads.
pub(crate) async fn resolve(ctx: &Context, address: &EmailAddress) -> Result<Resolution, Trouble> {
    Ok(ctx.directory.resolve(address).await?)
}
