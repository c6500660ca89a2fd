//! The first time a message's text is handed to a client, its journey learns of it.

use crate::Context;
use mail::{AccountId, EmailAddress};
use mailbox::{Entry, Place};
use store::{Batch, CommitError};

/// Records that the text of these entries was handed out. Entries that were fetched before, and
/// those that a client appended, are passed over. A failure is logged and has no other effect.
pub(crate) async fn note(
    ctx: &Context,
    place: Place,
    account: AccountId,
    address: &EmailAddress,
    protocol: &str,
    entries: &[&Entry],
) {
    let now = ctx.clock.now();
    for entry in entries.iter().filter(|e| !e.fetched) {
        // One batch each: a flag that another session changed must not undo the others' records.
        let mut batch = Batch::new();
        ctx.mailboxes.mark_fetched(&mut batch, place, entry);
        if let Some(queue_id) = entry.queue_id {
            let event = journey::Event::Retrieved {
                account,
                address: Some(address.clone()),
                protocol: protocol.to_owned(),
            };
            ctx.journey.record(&mut batch, queue_id, now, &event);
        }
        match ctx.store.commit(batch).await {
            // The entry changed since it was read; the next fetch notes it.
            Ok(_) | Err(CommitError::Conflict { .. }) => {}
            Err(error) => tracing::warn!(%error, "the journey did not learn that a message was fetched"),
        }
    }
}
