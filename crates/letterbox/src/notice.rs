//! Sends a message that this server writes by itself to somebody who asked for it, such as a report
//! about TLS: signed, with the null reverse-path, in the caller's batch.
//!
//! Promises: nobody is told when it cannot be delivered, so that no two servers write to each other for
//! ever; without a signature it is not sent.

use crate::Error;
use crate::report::{Ours, Reporter, leads_somewhere};
use mail::{Domain, EmailAddress, QueueId, Timestamp};
use store::Batch;

/// A message of our own making.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    /// Its name in the queue and the journey.
    pub id: QueueId,
    /// Whose keys sign it: the domain of its author.
    pub domain: &'a Domain,
    /// To whom.
    pub to: &'a EmailAddress,
    /// Its Message-ID, without brackets.
    pub message_id: &'a str,
    /// The whole message, every line ended by CR LF.
    pub message: &'a [u8],
    /// The time.
    pub now: Timestamp,
}

/// What became of a notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Noticed {
    /// The batch has it on its way.
    Sent,
    /// The recipient is an address here that leads nowhere; the batch is as it was.
    Nobody,
    /// The domain has no key that signs; the batch is as it was.
    Unsigned,
}

impl Reporter<'_> {
    /// Adds a notice to the batch.
    ///
    /// # Errors
    /// [`Error`]; the batch may hold a part then and must not be committed.
    pub async fn notice(&self, batch: &mut Batch, notice: &Notice<'_>) -> Result<Noticed, Error> {
        let directory = self.letterbox.directory;
        let resolution = directory.resolve_sender(notice.to, notice.now).await?;
        if !leads_somewhere(&resolution) {
            return Ok(Noticed::Nobody);
        }
        let fields = self.signatures(notice.domain, notice.message, notice.now).await?;
        if fields.is_empty() {
            return Ok(Noticed::Unsigned);
        }
        let ours = Ours {
            id: notice.id,
            to: notice.to,
            message_id: notice.message_id.to_owned(),
            smtputf8: notice.to.needs_smtputf8(),
            now: notice.now,
        };
        let message = [fields.as_bytes(), notice.message].concat();
        self.bring(batch, &ours, &message, resolution).await?;
        Ok(Noticed::Sent)
    }
}
