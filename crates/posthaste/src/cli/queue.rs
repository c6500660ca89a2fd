//! `posthaste queue`: listings and orders that go through a queue of any length part by part, so that
//! neither the server nor this program holds more than one part.

use super::out::{out, outln};
use super::{Failure, office, print, settings};
use crate::args::{Global, Queue};
use crate::settings::Settings;
use admin::office::QUEUE_ROWS_MAX;
use admin::words::QueuePage;
use admin::{Request, Response};
use mail::QueueId;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

/// Messages that a table lists when nothing else is said.
const TABLE_ROWS: usize = 100;

/// Does what was ordered.
pub fn run(global: &Global, order: Queue) -> Result<ExitCode, Failure> {
    match order {
        Queue::List { limit, after } => {
            let limit = limit.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
            list(&settings(global)?, global.json, limit, after)
        }
        Queue::Show { id } => office::run(global, Request::QueueShow { id }),
        Queue::Retry { id: Some(id), .. } => office::run(global, Request::QueueRetry { id }),
        Queue::Retry { id: None, .. } => retry_all(global),
        Queue::Drop { id } => office::run(global, Request::QueueDrop { id }),
    }
}

/// Prints page by page. A reader that has seen enough may end this at any moment: nothing is changed.
pub fn list(
    settings: &Settings,
    json: bool,
    limit: Option<usize>,
    after: Option<QueueId>,
) -> Result<ExitCode, Failure> {
    let limit = limit.unwrap_or(if json { usize::MAX } else { TABLE_ROWS });
    let page_of = |after, left: usize| Request::QueueList {
        after,
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

/// Makes everything due, part by part.
fn retry_all(global: &Global) -> Result<ExitCode, Failure> {
    let (mut errands, mut messages) = (0, 0);
    let progress = std::io::stderr().is_terminal() && !global.json;
    let first = Request::QueueRetryAll { behind: None };
    office::converse(&settings(global)?, first, |response| {
        let Response::Retried(step) = response else {
            return Err(unexpected());
        };
        errands += step.errands;
        messages += step.messages;
        let next = step
            .next
            .map(|behind| Request::QueueRetryAll { behind: Some(behind) });
        if progress && next.is_some() {
            eprint!("\r{} messages", print::grouped(messages as u64));
            let _ = std::io::stderr().flush();
        }
        Ok(next)
    })?;
    if progress {
        eprint!("\r");
    }
    let count =
        |n: usize, one, many| format!("{} {}", print::grouped(n as u64), if n == 1 { one } else { many });
    let done = Response::Done(format!(
        "tried now: {} of {}",
        count(errands, "delivery", "deliveries"),
        count(messages, "message", "messages")
    ));
    print::response(&done, global.json)?;
    Ok(ExitCode::SUCCESS)
}

fn unexpected() -> Failure {
    Failure::store("the server answered something else; is it of the same version?".to_owned())
}
