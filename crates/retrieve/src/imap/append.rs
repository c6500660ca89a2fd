//! APPEND: the message goes into the store piece by piece as it comes.

use super::Driver;
use super::refuse::refusal;
use super::selected::split_flags;
use ::imap::command::AppendHead;
use ::imap::session::ask;
use ::imap::{Code, Refusal, Ticket};
use mail::Timestamp;
use mailbox::{Delivery, Error, Flags, Keyword, Place};
use std::sync::{Mutex, PoisonError};
use store::BlobWriter;

/// A message that is coming.
pub(super) struct Incoming {
    place: Place,
    flags: Flags,
    keywords: Vec<Keyword>,
    internal_date: Timestamp,
    /// The blob, or why there is none; then the rest is taken and forgotten. Never locked: the
    /// mutex only lets the driver be shared between threads, which a writer cannot.
    writer: Result<Mutex<Box<dyn BlobWriter>>, Refusal>,
}

impl Driver {
    pub(super) async fn append_begins(&mut self, ticket: Ticket<ask::Append>, head: AppendHead, octets: u64) {
        match self.incoming(head, octets).await {
            Ok(incoming) => {
                self.incoming = Some(incoming);
                self.session.accept_append(ticket);
            }
            Err(r) => self.session.refuse_append(ticket, r),
        }
    }

    async fn incoming(&self, head: AppendHead, octets: u64) -> Result<Incoming, Refusal> {
        let mailbox = self
            .mailbox(head.mailbox.as_str())
            .await
            .map_err(|r| match r.code {
                // RFC 3501 §6.3.11
                Some(Code::NonExistent) => Refusal::try_create(),
                _ => r,
            })?;
        self.must_have_room(mailbox.place(), octets).await?;
        let (flags, keywords) = split_flags(&head.flags).map_err(|e| refusal(&e))?;
        let writer = self
            .ctx
            .store
            .stage(octets)
            .await
            .map_err(|e| refusal(&Error::Blob(e)))?;
        Ok(Incoming {
            place: mailbox.place(),
            flags,
            keywords,
            internal_date: head.internal_date.unwrap_or_else(|| self.ctx.clock.now()),
            writer: Ok(Mutex::new(writer)),
        })
    }

    /// The account's quota holds for what a client brings too (RFC 9208 §4.1.3 has the code).
    async fn must_have_room(&self, place: Place, octets: u64) -> Result<(), Refusal> {
        let quota = self.ctx.directory.quota(place.account).await;
        let Some(quota) = quota.map_err(|_| Refusal::unavailable())? else {
            return Ok(());
        };
        let used = self.ctx.mailboxes.usage(place.account).await;
        let used = used.map_err(|e| refusal(&e))?;
        match used.saturating_add(octets) <= quota {
            true => Ok(()),
            false => Err(Refusal::over_quota()),
        }
    }

    pub(super) async fn append_goes_on(&mut self, octets: &[u8]) {
        let Some(incoming) = &mut self.incoming else {
            return;
        };
        let Ok(writer) = &mut incoming.writer else { return };
        let writer = writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writer.write(octets).await {
            incoming.writer = Err(refusal(&Error::Blob(error)));
        }
    }

    pub(super) async fn append_ends(&mut self, ticket: Ticket<ask::Appended>) {
        match self.keep().await {
            Ok(appended) => {
                self.sync().await;
                self.session
                    .appended(ticket, Some((appended.uid_validity, appended.uid)));
            }
            Err(r) => self.session.refuse(ticket, r),
        }
    }

    async fn keep(&mut self) -> Result<mailbox::Appended, Refusal> {
        let incoming = self.incoming.take().ok_or_else(Refusal::unavailable)?;
        let writer = incoming
            .writer?
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let staged = writer.finish().await.map_err(|e| refusal(&Error::Blob(e)))?;
        let delivery = Delivery {
            blob: staged.id,
            blob_len: staged.len,
            prefix: Vec::new(),
            flags: incoming.flags,
            keywords: incoming.keywords,
            internal_date: incoming.internal_date,
            queue_id: None,
        };
        let appended = self.ctx.mailboxes.append(incoming.place, staged, delivery).await;
        appended.map_err(|e| match e {
            Error::NoSuchMailbox => Refusal::try_create(),
            e => refusal(&e),
        })
    }
}
