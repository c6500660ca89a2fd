//! The queue as people read it: one message with what comes next, and how the whole stands.

use super::out::outln;
use super::print::{grouped, table, when};
use admin::words::{QueueRow, QueueStatus};
use mail::date;
use queue::{DestinationTally, Tally};

/// Reasons that stand beside a destination.
const REASONS_SHOWN: usize = 3;

/// One message with all its errands.
pub fn message(row: &QueueRow) {
    outln!(
        "{}: from {}, {} octets, accepted {}",
        row.id,
        row.from,
        row.octets,
        date::iso8601(row.received)
    );
    if !row.asked.is_empty() {
        outln!("  the sender asked: {}", row.asked.join("; "));
    }
    for e in &row.errands {
        outln!(
            "  to <{}>: {} after {} attempts; next {}",
            e.to,
            e.state,
            e.attempts,
            when(e.next_attempt)
        );
        if let Some(why) = &e.last_outcome {
            let class = e.class.as_ref().map(|class| format!(" ({class})"));
            outln!("    last: {why}{}", class.unwrap_or_default());
        }
        e.waits_for.iter().for_each(|why| outln!("    {why}"));
        e.via.iter().for_each(|via| outln!("    goes to {via}, by order"));
        if let Some(forecast) = &e.forecast {
            forecast_in_words(forecast)
                .iter()
                .for_each(|line| outln!("    {line}"));
        }
    }
    outln!("its journey: posthaste trace {}", row.id);
}

/// What comes next if every attempt fails for now.
fn forecast_in_words(forecast: &queue::Forecast) -> Vec<String> {
    const SHOWN_MAX: usize = 5;
    let tries: Vec<String> = forecast.tries.iter().take(SHOWN_MAX).map(span).collect();
    let more = forecast.tries.len().saturating_sub(SHOWN_MAX) + forecast.tries_left_out;
    let more = match more {
        0 => String::new(),
        more => format!(", and about {more} more"),
    };
    let mut lines = vec![format!("while it fails, it is tried: {}{more}", tries.join(", "))];
    if let Some(notice) = &forecast.delay_notice {
        lines.push(format!("the sender is told of the delay: {}", span(notice)));
    }
    lines.push(format!(
        "given up and back to the sender: {}",
        date::iso8601(forecast.ends)
    ));
    lines
}

/// From and to; the day once when it is the same.
fn span(span: &queue::Span) -> String {
    let (from, to) = (date::iso8601(span.from), date::iso8601(span.to));
    match (from == to, from.split_once('T'), to.split_once('T')) {
        (true, ..) => from,
        (_, Some((day, _)), Some((same, time))) if day == same => format!("{from} to {time}"),
        _ => format!("{from} to {to}"),
    }
}

/// What is suspended.
pub fn suspensions(rows: &[queue::Suspension]) {
    let cells = rows.iter().map(|s| {
        vec![
            s.what.to_string(),
            date::iso8601(s.since),
            s.until.map_or("resumed".to_owned(), date::iso8601),
            s.by.clone(),
            s.why.clone().unwrap_or_default(),
        ]
    });
    table(&["SUSPENDED", "SINCE", "UNTIL", "BY", "WHY"], cells.collect());
}

/// How the queue stands.
pub fn status(status: &QueueStatus) {
    let counted = &status.counted;
    let stats = &counted.stats;
    if stats.messages == 0 {
        outln!("the queue is empty");
    } else {
        outln!(
            "{} messages, {} deliveries; the oldest accepted {}; the next one comes due {}",
            grouped(stats.messages),
            grouped(stats.errands),
            when(counted.oldest),
            when(counted.next_due)
        );
        let more = if counted.and_more { " (at least)" } else { "" };
        outln!(
            "{} due now, {} being attempted{more}; {} held",
            grouped(counted.due_now as u64),
            grouped(counted.attempting as u64),
            grouped(stats.held)
        );
        shares(counted);
    }
    if !status.suspensions.is_empty() {
        outln!();
        suspensions(&status.suspensions);
    }
    for webhook in &status.webhooks {
        let waiting = &webhook.waiting;
        if waiting.waiting > 0 || waiting.thrown_away > 0 {
            outln!(
                "\nwebhook {}: {} events wait, {} were thrown away untold",
                webhook.name,
                grouped(waiting.waiting as u64),
                waiting.thrown_away
            );
        }
    }
}

/// Where it goes, and why it is still here.
fn shares(counted: &queue::Counted) {
    outln!();
    match counted.is_sample {
        true => outln!(
            "from a sample of {} deliveries, taken evenly over the time of acceptance:",
            grouped(counted.looked_at)
        ),
        false => outln!("of all {} deliveries:", grouped(counted.looked_at)),
    }
    if counted.suspended > 0 {
        outln!("{} wait because they are suspended", grouped(counted.suspended));
    }
    if !counted.reasons.is_empty() {
        let cells = counted.reasons.iter();
        let cells = cells.map(|tally| vec![tally.name.clone(), grouped(tally.errands)]);
        outln!();
        table(&["LAST FAILURE", "DELIVERIES"], cells.collect());
    }
    let cells = counted.destinations.iter().map(destination);
    outln!();
    table(&["DESTINATION", "DELIVERIES", "UNTRIED", "WHY"], cells.collect());
}

fn destination(of: &DestinationTally) -> Vec<String> {
    let reason = |tally: &Tally| format!("{} ({})", tally.name, grouped(tally.errands));
    let reasons: Vec<String> = of.reasons.iter().take(REASONS_SHOWN).map(reason).collect();
    vec![
        of.domain.clone(),
        grouped(of.errands),
        grouped(of.untried),
        reasons.join(", "),
    ]
}
