//! Orders about queued messages, and the telling of journeys.

use super::{Office, QUEUE_ROWS_MAX, RETRY_STEPS, STORIES_MAX};
use crate::words::{ErrandRow, QueuePage, QueueRow, Refusal, Response, RetriedStep, Told};
use journey::{Event, Query};
use mail::{QueueId, Timestamp};
use queue::{ErrandState, Filter, Listed};
use store::Batch;

/// Who did it, in the journey.
const OPERATOR: &str = "the operator";

impl Office {
    pub(super) async fn list_queue(&self, after: Option<QueueId>, limit: usize) -> Result<Response, Refusal> {
        let filter = Filter {
            after,
            ..Filter::default()
        };
        let page = self
            .queue
            .list_page(&filter, limit.clamp(1, QUEUE_ROWS_MAX))
            .await?;
        let stats = self.queue.stats().await?;
        Ok(Response::Queue(QueuePage {
            rows: page.listed.iter().map(row).collect(),
            next: page.next,
            messages: stats.messages,
            errands: stats.errands,
        }))
    }

    pub(super) async fn show_queued(&self, id: QueueId) -> Result<Response, Refusal> {
        match self.queue.show(id).await? {
            Some(listed) => Ok(Response::Message(row(&listed))),
            None => Err(not_queued(id)),
        }
    }

    pub(super) async fn retry(&self, id: QueueId) -> Result<Response, Refusal> {
        let now = self.clock.now();
        let note = |batch: &mut Batch| self.note_retry(batch, id, now);
        let errands = match self.queue.retry(id, now, &note).await {
            Err(queue::Error::NotQueued) => return Err(not_queued(id)),
            result => result?,
        };
        let deliveries = if errands == 1 { "delivery" } else { "deliveries" };
        Ok(Response::Done(format!(
            "tried now: {errands} {deliveries} of {id}"
        )))
    }

    pub(super) async fn retry_all(&self, mut behind: Option<(QueueId, u32)>) -> Result<Response, Refusal> {
        let now = self.clock.now();
        let note = |batch: &mut Batch, id: QueueId| self.note_retry(batch, id, now);
        let (mut errands, mut messages) = (0, 0);
        for _ in 0..RETRY_STEPS {
            let step = self.queue.retry_step(behind, now, &note).await?;
            errands += step.errands;
            messages += step.messages;
            behind = step.next;
            if behind.is_none() {
                break;
            }
        }
        Ok(Response::Retried(RetriedStep {
            errands,
            messages,
            next: behind,
        }))
    }

    fn note_retry(&self, batch: &mut Batch, id: QueueId, now: Timestamp) {
        let event = Event::OperatorAction {
            by: OPERATOR.to_owned(),
            action: "retry now".to_owned(),
        };
        self.journey.record(batch, id, now, &event);
    }

    pub(super) async fn drop_queued(&self, id: QueueId) -> Result<Response, Refusal> {
        let now = self.clock.now();
        let note = |batch: &mut Batch, dropped: &[queue::Errand]| {
            for errand in dropped {
                let recipient = Some(errand.recipient.clone());
                let event = Event::Dropped {
                    recipient,
                    by: OPERATOR.to_owned(),
                };
                self.journey.record(batch, id, now, &event);
            }
        };
        let dropped = self.queue.drop(id, OPERATOR, now, &note).await?;
        Ok(Response::Done(format!(
            "{id} is dropped, {} deliveries with it; its sender is not told",
            dropped.len()
        )))
    }

    pub(super) async fn trace(&self, what: &str, limit: usize) -> Result<Response, Refusal> {
        let query = Query::parse(what).ok_or_else(|| {
            Refusal::invalid(format!(
                "\"{what}\" is neither a queue id, a Message-ID nor an address"
            ))
        })?;
        let mut told = Vec::new();
        for id in self.journey.find(&query, limit.min(STORIES_MAX)).await? {
            let story = journey::tell(&self.journey.events(id).await?);
            let text = story.to_string();
            let story = serde_json::to_value(&story).map_err(Refusal::failed)?;
            told.push(Told { id, text, story });
        }
        if told.is_empty() {
            return Err(Refusal::not_found(format!(
                "no journey is known for \"{what}\": it was never seen here, or is forgotten by now"
            )));
        }
        Ok(Response::Stories(told))
    }
}

fn not_queued(id: QueueId) -> Refusal {
    Refusal::not_found(format!(
        "{id} is not in the queue (any more); its journey: posthaste trace {id}"
    ))
}

fn row(listed: &Listed) -> QueueRow {
    let message = &listed.message;
    QueueRow {
        id: message.id,
        from: message.reverse_path.to_string(),
        received: message.received_at,
        octets: message.size(),
        asked: message.asked_in_words(),
        errands: listed
            .errands
            .iter()
            .map(|errand| errand_row(errand, message.received_at))
            .collect(),
    }
}

fn errand_row(errand: &queue::Errand, received: Timestamp) -> ErrandRow {
    let (state, next_attempt) = match errand.held_until(received) {
        Some(release) => ("held".to_owned(), Some(release)),
        None => in_words(&errand.state),
    };
    ErrandRow {
        to: errand.recipient.to_string(),
        state,
        attempts: errand.attempts,
        next_attempt,
        last_outcome: errand.last.as_ref().map(|last| match &last.host {
            Some(host) => format!("{host}: {}", last.reply),
            None => last.reply.clone(),
        }),
    }
}

fn in_words(state: &ErrandState) -> (String, Option<Timestamp>) {
    match state {
        ErrandState::Waiting { next_attempt } => ("waiting".to_owned(), Some(*next_attempt)),
        ErrandState::Delivered { .. } => ("delivered".to_owned(), None),
        ErrandState::Relayed { .. } => ("relayed".to_owned(), None),
        ErrandState::Bounced { .. } => ("bounced".to_owned(), None),
        ErrandState::Expired { .. } => ("expired".to_owned(), None),
        ErrandState::Dropped { by, .. } => (format!("dropped by {by}"), None),
    }
}
