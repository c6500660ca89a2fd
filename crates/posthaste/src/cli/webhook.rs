//! `posthaste webhook`: who hears of delivery events, whether they listen, and trying them.

use super::out::outln;
use super::print::{grouped, table, when};
use super::{Failure, office, settings};
use crate::args::{Global, Webhook};
use crate::serve::webhooks::Poster;
use crate::world;
use admin::Request;
use admin::words::WebhookRow;
use mail::Clock as _;
use std::process::ExitCode;
use webhook::Post as _;

/// Does what was ordered.
pub fn run(global: &Global, order: Webhook) -> Result<ExitCode, Failure> {
    match order {
        Webhook::List => office::run(global, Request::Webhooks),
        Webhook::Retry { name } => office::run(global, Request::WebhookRetry { name }),
        Webhook::Test { name } => test(global, &name),
    }
}

/// Sends a request with an event of the kind `test`, from here, and says what was answered.
fn test(global: &Global, name: &str) -> Result<ExitCode, Failure> {
    let settings = settings(global)?;
    let Some(webhook) = settings.webhook.iter().find(|w| w.name == name) else {
        return Err(Failure::No(format!(
            "the settings have no webhook \"{name}\"; see: posthaste webhook list"
        )));
    };
    let endpoint = webhook.endpoint().map_err(Failure::Settings)?;
    let now = world::SystemClock.now();
    let request = webhook::signed(&endpoint, webhook::test_body(name, now), now);
    let answer = world::block_on(async {
        let poster = Poster::new(world::web_client(&settings)?);
        Ok(poster.post(&request).await)
    })?;
    match answer {
        Ok(status @ 200..=299) => {
            outln!("{name}: {} answered with {status}", endpoint.url);
            Ok(ExitCode::SUCCESS)
        }
        Ok(status) => Err(Failure::No(format!(
            "{name}: {} answered with {status}; it must be 200 to 299",
            endpoint.url
        ))),
        Err(why) => Err(Failure::No(format!("{name}: {}: {why}", endpoint.url))),
    }
}

/// The webhooks as people read them.
pub fn in_words(rows: &[WebhookRow]) {
    if rows.is_empty() {
        return outln!("there is no webhook in the settings; see docs/WEBHOOKS.md");
    }
    let cells = rows.iter().map(|row| {
        let (waiting, standing) = (&row.waiting, row.standing.as_ref());
        let state = match standing {
            None => "no server runs".to_owned(),
            Some(s) if s.failures == 0 => "well".to_owned(),
            Some(s) => format!("failed {} times, again {}", s.failures, when(s.next_try)),
        };
        vec![
            row.name.clone(),
            row.url.clone(),
            grouped(waiting.waiting as u64),
            when(waiting.oldest),
            waiting.told.to_string(),
            waiting.thrown_away.to_string(),
            state,
            standing.and_then(|s| s.last_error.clone()).unwrap_or_default(),
        ]
    });
    let head = [
        "NAME",
        "URL",
        "WAITING",
        "OLDEST",
        "TOLD",
        "THROWN AWAY",
        "STATE",
        "LAST ERROR",
    ];
    table(&head, cells.collect());
}
