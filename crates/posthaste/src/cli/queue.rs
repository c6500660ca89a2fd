//! `posthaste queue`: listings and orders that go through a queue of any length part by part, so that
//! neither the server nor this program holds more than one part.

use super::long::Line;
use super::out::{out, outln};
use super::{Failure, office, print, settings};
use crate::args::Global;
use crate::args::queue::{Order, Queue};
use crate::settings::Settings;
use crate::world::SystemClock;
use ::queue::{Filter, Standing, Suspended};
use admin::office::QUEUE_ROWS_MAX;
use admin::words::{OrderedStep, QueueDo, QueueOrder, QueuePage};
use admin::{Request, Response};
use mail::{Clock as _, QueueId};
use std::process::ExitCode;

/// Messages that a table lists when nothing else is said.
const TABLE_ROWS: usize = 100;

/// Does what was ordered.
pub fn run(global: &Global, order: Queue) -> Result<ExitCode, Failure> {
    match order {
        Queue::List { which, limit, after } => {
            let limit = limit.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
            let filter = Filter {
                after,
                ..which.filter(SystemClock.now())
            };
            list(&settings(global)?, global.json, limit, filter)
        }
        Queue::Status { top } => office::run(global, Request::QueueStatus { destinations: top }),
        Queue::Show { id } => office::run(global, Request::QueueShow { id }),
        Queue::Retry { order } => carry_out(global, order, QueueDo::Retry, "tried now"),
        Queue::Hold { order } => carry_out(global, order, QueueDo::Hold, "held"),
        Queue::Release { order } => carry_out(global, order, QueueDo::Release, "released"),
        Queue::Drop { order } => carry_out(
            global,
            order,
            QueueDo::Drop,
            "dropped, without a word to the sender",
        ),
        Queue::Bounce { order, why } => {
            carry_out(global, order, QueueDo::Bounce { why }, "sent back to the sender")
        }
        Queue::Reroute { order, via, .. } => {
            let said = match &via {
                Some(via) => format!("sent to {via}"),
                None => "sent where the DNS and the routes say".to_owned(),
            };
            carry_out(global, order, QueueDo::Reroute { via }, &said)
        }
        Queue::Suspend { what, lasts, why, by } => {
            let request = Request::Suspend {
                what: what.what().ok_or_else(whose)?,
                secs: lasts.map(|lasts| lasts.as_secs()),
                why,
                by,
            };
            office::run(global, request)
        }
        Queue::Resume { what } => resume(global, what.what().ok_or_else(whose)?),
    }
}

fn whose() -> Failure {
    Failure::Usage("say --domain or --from".to_owned())
}

/// Ends a suspension, then makes due what waited for it.
fn resume(global: &Global, what: Suspended) -> Result<ExitCode, Failure> {
    let settings = settings(global)?;
    office::perform(&settings, Request::Resume { what: what.clone() })?;
    let filter = Filter {
        standing: Some(Standing::Suspended),
        ..match &what {
            Suspended::Destination(domain) => Filter {
                domain: Some(domain.clone()),
                ..Filter::default()
            },
            Suspended::Sender(sender) => Filter {
                sender: Some(sender.clone()),
                ..Filter::default()
            },
        }
    };
    let order = QueueOrder {
        what: QueueDo::Resume,
        filter,
        behind: None,
        dry_run: false,
        by: None,
    };
    step_by_step(global, &settings, &order, &format!("{what} goes on; tried now"))
}

/// Prints page by page. A reader that has seen enough may end this at any moment: nothing is changed.
pub fn list(
    settings: &Settings,
    json: bool,
    limit: Option<usize>,
    filter: Filter,
) -> Result<ExitCode, Failure> {
    let limit = limit.unwrap_or(if json { usize::MAX } else { TABLE_ROWS });
    let (after, is_everything) = (filter.after, filter.is_everything());
    let page_of = |after, left: usize| Request::QueueList {
        filter: Box::new(Filter {
            after,
            ..filter.clone()
        }),
        limit: left.min(QUEUE_ROWS_MAX),
    };
    let mut listed = 0;
    office::converse(settings, page_of(after, limit), |response| {
        let Response::Queue(page) = response else {
            return Err(unexpected());
        };
        if json {
            print_rows(&page, listed)?;
        } else {
            print::queue(&page.rows, listed == 0);
        }
        listed += page.rows.len();
        match page.next {
            Some(next) if listed < limit => return Ok(Some(page_of(Some(next), limit - listed))),
            next if !json && !is_everything && next.is_none() => found(listed),
            next if !json => conclude(&page, listed, after, next),
            _ => {}
        }
        Ok(None)
    })?;
    if json {
        outln!("{}", if listed == 0 { "[]" } else { "\n]" });
    }
    Ok(ExitCode::SUCCESS)
}

/// One array over all pages, a line for each message.
fn print_rows(page: &QueuePage, listed: usize) -> Result<(), Failure> {
    for (i, row) in page.rows.iter().enumerate() {
        let text = serde_json::to_string(row).map_err(|e| Failure::store(e.to_string()))?;
        out!("{}{text}", if listed + i == 0 { "[\n" } else { ",\n" });
    }
    Ok(())
}

/// The line below the table.
fn conclude(page: &QueuePage, listed: usize, after: Option<QueueId>, next: Option<QueueId>) {
    if page.messages == 0 && listed == 0 {
        outln!("the queue is empty");
        return;
    }
    if after.is_none() && next.is_none() {
        return;
    }
    outln!(
        "showing {} of {} messages ({} deliveries)",
        print::grouped(listed as u64),
        print::grouped(page.messages),
        print::grouped(page.errands)
    );
    if let Some(next) = next {
        outln!("the next ones: posthaste queue list --after {next}");
    }
}

/// The line below the table of a filter.
fn found(listed: usize) {
    match listed {
        0 => outln!("no message in the queue is meant by this"),
        _ => outln!("{}", count(listed, "message", "messages")),
    }
}

fn count(n: usize, one: &str, many: &str) -> String {
    format!("{} {}", print::grouped(n as u64), if n == 1 { one } else { many })
}

/// Carries an order out part by part, and says how far it is.
fn carry_out(global: &Global, order: Order, what: QueueDo, said: &str) -> Result<ExitCode, Failure> {
    let filter = order.which.filter(SystemClock.now());
    if filter.is_everything() != order.all {
        return Err(Failure::Usage(match order.all {
            true => "--all means everything: leave it out, or what else is said".to_owned(),
            false => {
                "which mail? Name queue ids, or --from, --to, --domain and the like, or --all".to_owned()
            }
        }));
    }
    let done = if order.dry_run { "would be " } else { "" };
    let said = format!("{done}{said}");
    let order = QueueOrder {
        what,
        filter,
        behind: None,
        dry_run: order.dry_run,
        by: order.by,
    };
    step_by_step(global, &settings(global)?, &order, &said)
}

fn step_by_step(
    global: &Global,
    settings: &Settings,
    order: &QueueOrder,
    said: &str,
) -> Result<ExitCode, Failure> {
    let request = |behind| {
        let order = order.clone();
        Request::Queue(Box::new(QueueOrder { behind, ..order }))
    };
    let mut sum = OrderedStep::default();
    let mut line = Line::new(global.json);
    office::converse(settings, request(None), |response| {
        let Response::Ordered(step) = response else {
            return Err(unexpected());
        };
        sum = OrderedStep {
            errands: sum.errands + step.errands,
            messages: sum.messages + step.messages,
            attempting: sum.attempting + step.attempting,
            looked_at: sum.looked_at + step.looked_at,
            next: None,
        };
        line.draw(&format!(
            "{} of {} deliveries looked at",
            print::grouped(sum.errands as u64),
            print::grouped(sum.looked_at as u64)
        ));
        Ok(step.next.map(|behind| request(Some(behind))))
    })?;
    line.clear();
    match global.json {
        true => print::response(&Response::Ordered(sum), true)?,
        false => tell(&sum, said),
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(sum: &OrderedStep, said: &str) {
    outln!(
        "{said}: {} of {}",
        count(sum.errands, "delivery", "deliveries"),
        count(sum.messages, "message", "messages")
    );
    if sum.attempting > 0 {
        outln!(
            "{} being attempted at this moment and passed over; give the order again to reach what is left of them",
            count(sum.attempting, "delivery was", "deliveries were")
        );
    }
}

fn unexpected() -> Failure {
    Failure::store("the server answered something else; is it of the same version?".to_owned())
}
