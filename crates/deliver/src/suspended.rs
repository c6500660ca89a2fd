//! Puts back what is due but suspended before it is chosen, and tells its journey why.

use crate::service::Context;
use journey::Event;
use mail::{QueueId, Timestamp};
use queue::{Due, Errand, Suspension};
use store::Batch;

/// What of these may be attempted; the rest is put back.
pub(crate) async fn put_back(ctx: &Context, due: Vec<Due>, now: Timestamp) -> Result<Vec<Due>, queue::Error> {
    let add = |batch: &mut Batch, id: QueueId, errands: &[Errand], by: &Suspension| {
        let event = Event::Suspended {
            recipients: errands.iter().map(|errand| errand.recipient.clone()).collect(),
            what: by.what.to_string(),
            by: by.by.clone(),
            until: by.until,
            why: by.why.clone(),
        };
        ctx.journey.record(batch, id, now, &event);
    };
    ctx.queue.put_back(due, now, &add).await
}
