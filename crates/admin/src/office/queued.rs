//! Queued mail: lists, one message with what comes next, and orders for many at once.
//!
//! Promises: one request does a bounded part of an order and says where to go on; what an order does to
//! a message stands in its journey, in the same commit, with who ordered it.

use super::{Office, QUEUE_ROWS_MAX};
use crate::words::{
    ErrandRow, OrderedStep, QueueDo, QueueOrder, QueuePage, QueueRow, QueueStatus, Refusal, Response,
};
use journey::{Event, Reply};
use letterbox::dsn::{Kind, Reported, Said};
use letterbox::explain::Replies;
use letterbox::{Failure, Letterbox, Original, Reporter};
use mail::delivery::ByMode;
use mail::{EnhancedStatus, QueueId, Timestamp};
use queue::{
    CONFLICT_RETRIES_MAX, End, Errand, ErrandState, FILTER_IDS_MAX, Filter, LastOutcome, Listed, Message,
    Met, Order, Past, Standing, Step, Suspension, Walk,
};
use store::{Batch, CommitError, Tables as _};

/// Who did it, in the journey, when nobody is named.
pub(super) const OPERATOR: &str = "the operator";
/// Octets of the name of whoever orders, and of a reason.
const WORDS_OCTETS_MAX: usize = 200;
/// Commits of one request; the rest by further requests. Each is of 500 errands.
const STEPS: usize = 20;
/// The same where each message is ended by a commit of its own.
const ENDING_STEPS: usize = 4;
/// Destinations that a status tells at most.
const DESTINATIONS_MAX: usize = 1_000;
/// Errands that a step of ending looks at.
const ENDING_ERRANDS: usize = 500;

impl Office {
    pub(super) async fn list_queue(&self, filter: &Filter, limit: usize) -> Result<Response, Refusal> {
        check(filter)?;
        let (now, limit) = (self.clock.now(), limit.clamp(1, QUEUE_ROWS_MAX));
        let page = self.queue.list_page_by(filter, &class_of, now, limit).await?;
        let suspended = self.suspensions_now().await?;
        let stats = self.queue.stats().await?;
        Ok(Response::Queue(QueuePage {
            rows: page
                .listed
                .iter()
                .map(|listed| row(listed, &suspended, now))
                .collect(),
            next: page.next,
            messages: stats.messages,
            errands: stats.errands,
        }))
    }

    pub(super) async fn show_queued(&self, id: QueueId) -> Result<Response, Refusal> {
        let Some(listed) = self.queue.show(id).await? else {
            return Err(not_queued(id));
        };
        let now = self.clock.now();
        let suspended = self.suspensions_now().await?;
        let mut shown = row(&listed, &suspended, now);
        for (row, errand) in shown.errands.iter_mut().zip(&listed.errands) {
            // When what is suspended goes on nobody knows.
            let past = past(errand, &listed.message).filter(|_| row.waits_for.is_none());
            let class = errand.last.as_ref().and_then(|last| last.class.as_deref());
            let schedule = self.queue.schedule_for(&listed.message, class);
            row.forecast = past.map(|past| schedule.forecast(&past, now));
        }
        Ok(Response::Message(shown))
    }

    pub(super) async fn queue_status(&self, destinations: usize) -> Result<Response, Refusal> {
        let destinations = destinations.min(DESTINATIONS_MAX);
        let counted = self
            .queue
            .count(&class_of, destinations, self.clock.now())
            .await?;
        Ok(Response::QueueStatus(Box::new(QueueStatus {
            counted,
            suspensions: self.suspensions_now().await?,
            webhooks: self.webhooks_now().await?,
        })))
    }

    /// Carries out a part of an order.
    pub(super) async fn order_queued(&self, order: &QueueOrder) -> Result<Response, Refusal> {
        check(&order.filter)?;
        let by = order.by.as_deref().unwrap_or(OPERATOR);
        plain("the name of who orders", by)?;
        if let ([id], None) = (&order.filter.ids[..], order.behind)
            && self.queue.message(*id).await?.is_none()
        {
            return Err(not_queued(*id));
        }
        let is_attempt = matches!(
            order.what,
            QueueDo::Retry | QueueDo::Resume | QueueDo::Release | QueueDo::Reroute { .. }
        );
        if is_attempt && !order.dry_run {
            self.queue.ask_at_once();
        }
        let mut sum = OrderedStep::default();
        let mut behind = order.behind;
        let steps = match order.what {
            QueueDo::Drop | QueueDo::Bounce { .. } => ENDING_STEPS,
            _ => STEPS,
        };
        for _ in 0..steps {
            let walk = Walk {
                filter: &order.filter,
                class_of: &class_of,
                behind,
                now: self.clock.now(),
            };
            let step = match (&order.what, changing(&order.what, by)) {
                (_, Some(change)) if order.dry_run => self.queue.order_would(walk, &change).await?,
                (what, Some(change)) => self.change(walk, what, &change, by).await?,
                (what, None) => self.end(walk, what, by, order.dry_run).await?,
            };
            sum.errands += step.errands;
            sum.messages += step.messages;
            sum.attempting += step.attempting;
            sum.looked_at += step.looked_at;
            behind = step.next;
            if behind.is_none() {
                break;
            }
        }
        sum.next = behind;
        Ok(Response::Ordered(sum))
    }

    async fn change(
        &self,
        walk: Walk<'_>,
        what: &QueueDo,
        change: &Order,
        by: &str,
    ) -> Result<Step, Refusal> {
        let action = action(what);
        let note = |batch: &mut Batch, id: QueueId, errands: &[Errand]| {
            self.note(batch, id, by, &action, errands, walk.now);
        };
        Ok(self.queue.order_step(walk, change, &note).await?)
    }

    /// Records an order in the journey of a message.
    fn note(
        &self,
        batch: &mut Batch,
        id: QueueId,
        by: &str,
        action: &str,
        errands: &[Errand],
        now: Timestamp,
    ) {
        let event = Event::OperatorAction {
            by: by.to_owned(),
            action: action.to_owned(),
            recipients: errands.iter().map(|errand| errand.recipient.clone()).collect(),
        };
        self.journey.record(batch, id, now, &event);
    }

    /// A step of dropping or sending back.
    async fn end(&self, walk: Walk<'_>, what: &QueueDo, by: &str, dry_run: bool) -> Result<Step, Refusal> {
        let is_drop = *what == QueueDo::Drop;
        // A message with a damaged errand can be dropped as a whole only.
        if let (true, [id]) = (is_drop && !dry_run, &walk.filter.ids[..])
            && *walk.filter == Filter::of(*id)
        {
            return self.drop_whole(*id, by, walk).await;
        }
        let window = self.queue.window(walk, ENDING_ERRANDS).await?;
        let mut step = window.counted(walk.behind, is_drop);
        if dry_run {
            return Ok(step);
        }
        (step.errands, step.messages) = (0, 0);
        for (id, met) in window.by_message() {
            let ended = match what {
                QueueDo::Bounce { why } => {
                    let failure = self.sent_back(by, why.as_deref())?;
                    self.end_one(walk, id, met, &Ending::Bounce(failure), by).await?
                }
                _ => self.end_one(walk, id, met, &Ending::Drop, by).await?,
            };
            step.errands += ended;
            step.messages += usize::from(ended > 0);
        }
        Ok(step)
    }

    async fn drop_whole(&self, id: QueueId, by: &str, walk: Walk<'_>) -> Result<Step, Refusal> {
        let note =
            |batch: &mut Batch, dropped: &[Errand]| self.note_dropped(batch, id, by, dropped, walk.now);
        let dropped = match self.queue.drop(id, by, walk.now, &note).await {
            Err(queue::Error::NotQueued) => return Err(not_queued(id)),
            result => result?,
        };
        Ok(Step {
            errands: dropped.len(),
            messages: 1,
            looked_at: dropped.len(),
            ..Step::default()
        })
    }

    fn note_dropped(&self, batch: &mut Batch, id: QueueId, by: &str, dropped: &[Errand], now: Timestamp) {
        for errand in dropped {
            let event = Event::Dropped {
                recipient: Some(errand.recipient.clone()),
                by: by.to_owned(),
            };
            self.journey.record(batch, id, now, &event);
        }
    }

    /// Ends errands of one message in one commit. Answers how many. When the queue changed meanwhile it
    /// looks anew.
    async fn end_one(
        &self,
        walk: Walk<'_>,
        id: QueueId,
        met: &[Met],
        ending: &Ending,
        by: &str,
    ) -> Result<usize, Refusal> {
        let of_it = Filter {
            ids: vec![id],
            ..walk.filter.clone()
        };
        let mut met = met.to_vec();
        for _ in 0..CONFLICT_RETRIES_MAX {
            let mut batch = Batch::new();
            // Its own moment: a step ends many messages, and what is told of each must not stand before
            // what happened to it meanwhile.
            let now = self.clock.now();
            let end = match ending {
                Ending::Drop => End::Dropped { by: by.to_owned() },
                Ending::Bounce(failure) => End::Bounced(LastOutcome {
                    at: now,
                    host: None,
                    reply: failure.reply(),
                    status: Some(failure.status),
                    class: None,
                }),
            };
            let ended = self.queue.end(&mut batch, id, &met, &end, now).await?;
            if ended.is_empty() {
                return Ok(0);
            }
            match ending {
                Ending::Drop => self.note_dropped(&mut batch, id, by, &ended, now),
                Ending::Bounce(failure) => self.report(&mut batch, id, &ended, failure, by, now).await?,
            }
            match self.store.commit(batch).await {
                Ok(_) => return Ok(ended.len()),
                Err(CommitError::Conflict { .. }) => {
                    let (filter, behind) = (&of_it, None);
                    let again = Walk {
                        filter,
                        behind,
                        ..walk
                    };
                    let window = self.queue.window(again, queue::ERRANDS_PER_MESSAGE_MAX).await?;
                    met = window.met;
                }
                Err(error) => return Err(Refusal::failed(error)),
            }
        }
        Err(Refusal::failed(queue::Error::Contended))
    }

    /// Why a message that the operator sends back failed.
    fn sent_back(&self, by: &str, why: Option<&str>) -> Result<Failure, Refusal> {
        let mut words = format!("{by} of {} gave it up before its time", self.hostname);
        if let Some(why) = why {
            plain("the reason", why)?;
            words = format!("{words}: {why}");
        }
        Ok(Failure::ours(554, EnhancedStatus::new(5, 4, 7), words))
    }

    /// Adds to a batch that errands failed by an order, with one report to their sender where it wants
    /// one (RFC 3461 §4.1; never without a reverse-path, RFC 5321 §6.1).
    async fn report(
        &self,
        batch: &mut Batch,
        id: QueueId,
        ended: &[Errand],
        failure: &Failure,
        by: &str,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Some(message) = self.queue.message(id).await? else {
            return Ok(());
        };
        self.note(batch, id, by, "send it back to its sender", ended, now);
        for errand in ended {
            let event = Event::Bounced {
                recipient: errand.recipient.clone(),
                reply: Reply {
                    code: failure.code,
                    status: Some(failure.status),
                    text: failure.words.clone(),
                },
                cause: None,
                remedy: None,
            };
            self.journey.record(batch, id, now, &event);
        }
        let wants = |errand: &&Errand| errand.notify.is_none_or(|notify| notify.failure);
        let wanting = ended.iter().filter(wants);
        let explanation = Replies::built_in().explain(failure);
        let said = Said::Failure {
            failure,
            explanation: &explanation,
        };
        let told: Vec<Reported<'_>> = wanting.map(|errand| reported(errand, said, now)).collect();
        if told.is_empty() || message.reverse_path.is_null() {
            return Ok(());
        }
        let reporter = Reporter {
            letterbox: Letterbox {
                directory: &self.directory,
                mailboxes: &self.mailboxes,
                queue: &self.queue,
                journey: &self.journey,
            },
            store: self.store.as_ref(),
            ids: &self.ids,
            host_name: &self.hostname,
        };
        let original = Original::of(&message);
        let added = reporter.add(batch, &original, Kind::Failed, &told, now).await;
        added.map_err(Refusal::failed)
    }
}

fn reported<'a>(errand: &'a Errand, said: Said<'a>, now: Timestamp) -> Reported<'a> {
    Reported {
        recipient: &errand.recipient,
        original_recipient: errand.original_recipient.as_ref(),
        said,
        last_attempt: now,
        attempts: errand.attempts,
    }
}

/// How errands are ended by an order.
enum Ending {
    Drop,
    Bounce(Failure),
}

/// The order as the queue takes it; `None` for those that end errands.
fn changing(what: &QueueDo, by: &str) -> Option<Order> {
    match what {
        QueueDo::Retry | QueueDo::Resume => Some(Order::Retry),
        QueueDo::Hold => Some(Order::Hold { by: by.to_owned() }),
        QueueDo::Release => Some(Order::Release),
        QueueDo::Reroute { via } => Some(Order::Reroute { via: via.clone() }),
        QueueDo::Drop | QueueDo::Bounce { .. } => None,
    }
}

/// An order in the words of the journey.
fn action(what: &QueueDo) -> String {
    match what {
        QueueDo::Retry => "retry now".to_owned(),
        QueueDo::Resume => "try it now, for it is not suspended any more".to_owned(),
        QueueDo::Hold => "hold it until it is released".to_owned(),
        QueueDo::Release => "release it".to_owned(),
        QueueDo::Reroute { via: Some(via) } => format!("send it to {via}"),
        QueueDo::Reroute { via: None } => "send it where the DNS and the routes say".to_owned(),
        QueueDo::Drop => "drop it".to_owned(),
        QueueDo::Bounce { .. } => "send it back to its sender".to_owned(),
    }
}

/// The class of what was said last (docs/DELIVERY-FAILURES.md); of what an older version recorded, the
/// enhanced status.
fn class_of(last: &LastOutcome) -> String {
    let status = || last.status.map(|status| status.to_string());
    let class = last.class.clone().or_else(status);
    class.unwrap_or_else(|| "unknown".to_owned())
}

fn check(filter: &Filter) -> Result<(), Refusal> {
    match filter.ids.len() > FILTER_IDS_MAX {
        true => Err(Refusal::invalid(format!(
            "more than {FILTER_IDS_MAX} messages are named; name fewer, or use --from, --to, --domain"
        ))),
        false => Ok(()),
    }
}

/// Words of an operator's that others will read.
pub(super) fn plain(what: &str, words: &str) -> Result<(), Refusal> {
    if words.is_empty() || words.len() > WORDS_OCTETS_MAX || words.chars().any(char::is_control) {
        return Err(Refusal::invalid(format!(
            "{what} must have 1 to {WORDS_OCTETS_MAX} octets and no control characters"
        )));
    }
    Ok(())
}

fn not_queued(id: QueueId) -> Refusal {
    Refusal::not_found(format!(
        "{id} is not in the queue (any more); its journey: posthaste trace {id}"
    ))
}

/// What the forecast of an errand goes by; `None` when it is not waiting for its time.
fn past(errand: &Errand, message: &Message) -> Option<Past> {
    let ErrandState::Waiting { next_attempt } = errand.state else {
        return None;
    };
    let is_wanted = !message.reverse_path.is_null() && errand.notify.is_none_or(|notify| notify.delay);
    Some(Past {
        attempts: errand.attempts,
        first_queued: errand.first_queued,
        next_attempt,
        delay_told: errand.delay_told || !is_wanted,
        deadline: message.deliver_by.map(|by| by.at),
        returns_at_deadline: message.deliver_by.is_some_and(|by| by.mode == ByMode::Return),
    })
}

fn row(listed: &Listed, suspended: &[Suspension], now: Timestamp) -> QueueRow {
    let message = &listed.message;
    let errand_row = |errand: &Errand| {
        let mut row = errand_row(errand, listed.attempting.contains(&errand.no), now);
        if errand.state.is_open() && row.waits_for.is_none() {
            row.waits_for = super::suspended::why(errand, message, suspended);
        }
        row
    };
    QueueRow {
        id: message.id,
        from: message.reverse_path.to_string(),
        received: message.received_at,
        octets: message.size(),
        asked: message.asked_in_words(),
        errands: listed.errands.iter().map(errand_row).collect(),
    }
}

fn errand_row(errand: &Errand, attempting: bool, now: Timestamp) -> ErrandRow {
    let (state, next_attempt) = in_words(errand, attempting, now);
    let waits_for = match &errand.state {
        ErrandState::Held { at, by } => Some(format!(
            "held by {by} since {}, until: posthaste queue release {}",
            mail::date::iso8601(*at),
            errand.message
        )),
        _ => None,
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
        class: errand.last.as_ref().map(class_of),
        via: errand.via.as_ref().map(ToString::to_string),
        waits_for,
        forecast: None,
    }
}

fn in_words(errand: &Errand, attempting: bool, now: Timestamp) -> (String, Option<Timestamp>) {
    let word = match &errand.state {
        ErrandState::Waiting { next_attempt } => {
            let word = match queue::standing(errand, attempting, now) {
                Standing::Waiting => "waiting",
                Standing::Attempting => "attempting",
                Standing::Held => "held",
                Standing::Suspended => "suspended",
            };
            return (word.to_owned(), Some(*next_attempt));
        }
        ErrandState::Held { .. } => "held",
        ErrandState::Delivered { .. } => "delivered",
        ErrandState::Relayed { .. } => "relayed",
        ErrandState::Bounced { .. } => "bounced",
        ErrandState::Expired { .. } => "expired",
        ErrandState::Dropped { by, .. } => return (format!("dropped by {by}"), None),
    };
    (word.to_owned(), None)
}
