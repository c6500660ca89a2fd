//! The first time a message's text is handed to a client, its journey learns of it.

use crate::Context;
use mail::{AccountId, EmailAddress};
use mailbox::{Entry, Place};
use store::{Batch, CommitError};

/// Records that the text of these entries was handed out. Entries that were fetched before are
/// passed over. A failure is logged and has no other effect.
pub(crate) async fn note(
    ctx: &Context,
    place: Place,
    account: AccountId,
    address: &EmailAddress,
    protocol: &str,
    entries: &[&Entry],
) {
    let first_time: Vec<&Entry> = entries.iter().copied().filter(|e| !e.fetched).collect();
    if first_time.is_empty() {
        return;
    }
    let event = journey::Event::Retrieved {
        account,
        address: Some(address.clone()),
        protocol: protocol.to_owned(),
    };
    let now = ctx.clock.now();
    let add = |batch: &mut Batch, entry: &Entry| {
        ctx.mailboxes.mark_fetched(batch, place, entry);
        if let Some(queue_id) = entry.queue_id {
            ctx.journey.record(batch, queue_id, now, &event);
        }
    };
    let mut together = Batch::new();
    first_time.iter().for_each(|e| add(&mut together, e));
    let outcome = ctx.store.commit(together).await;
    if !matches!(outcome, Err(CommitError::Conflict { .. })) {
        return log(outcome);
    }
    // Some entry changed since it was read; the others' records stand all the same.
    for entry in first_time {
        let mut alone = Batch::new();
        add(&mut alone, entry);
        log(ctx.store.commit(alone).await);
    }
}

fn log(outcome: Result<store::Receipt, CommitError>) {
    match outcome {
        // The next fetch of that message notes it.
        Ok(_) | Err(CommitError::Conflict { .. }) => {}
        Err(error) => tracing::warn!(%error, "the journey did not learn that a message was fetched"),
    }
}
