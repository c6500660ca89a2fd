//! The journey in words: each step a plain sentence, what decided it, and what would change it.

use crate::{Event, Record, words};
use mail::{Timestamp, date};
use serde::Serialize;
use std::fmt;

/// One step in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Step {
    /// When.
    pub at: Timestamp,
    /// What happened: one sentence.
    pub text: String,
    /// What was known and which rule decided, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
    /// What would change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// A message's way in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Story {
    /// How it stands or ended, in one sentence.
    pub summary: String,
    /// The steps in order.
    pub steps: Vec<Step>,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary)?;
        for step in &self.steps {
            writeln!(f, "  {}  {}", date::iso8601(step.at), step.text)?;
            for line in &step.because {
                writeln!(f, "      {line}")?;
            }
            if let Some(remedy) = &step.remedy {
                writeln!(f, "      what to change: {remedy}")?;
            }
        }
        Ok(())
    }
}

/// Tells the events of one message, in order.
#[must_use]
pub fn tell(records: &[Record]) -> Story {
    Story {
        summary: summary(records),
        steps: records.iter().map(step).collect(),
    }
}

fn step(record: &Record) -> Step {
    let told = words::tell(&record.event);
    Step {
        at: record.at,
        text: printable(&told.text),
        because: told.because.iter().map(|line| printable(line)).collect(),
        remedy: told.remedy.as_deref().map(printable),
    }
}

/// Names and replies come from strangers: they must not paint on an operator's terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// How many recipients came to which end; the refusal, when the message never got in.
fn summary(records: &[Record]) -> String {
    let count = |is: fn(&Event) -> bool| records.iter().filter(|r| is(&r.event)).count();
    if records.is_empty() {
        return "Nothing is known of it.".to_owned();
    }
    // Our own reports are written here: nobody was told that they are accepted.
    let is_ours = count(|e| matches!(e, Event::Received { service, .. } if service == "local")) > 0;
    if count(|e| matches!(e, Event::Accepted { .. })) == 0 && !is_ours {
        let refused = records.iter().rev().find_map(|r| match &r.event {
            Event::Refused { reply, .. } => Some(reply.code),
            _ => None,
        });
        return match refused {
            Some(400..=499) => "It was not accepted for the moment; the sender tries again.".to_owned(),
            Some(_) => "It was refused.".to_owned(),
            None => "It was not accepted.".to_owned(),
        };
    }
    // A sender that wants no report, or has no address, gets none.
    let told = records
        .iter()
        .any(|r| matches!(&r.event, Event::DsnSent { kind, .. } if kind == "failed"));
    let (refused, given_up) = match told {
        true => (
            "refused elsewhere, and reported to the sender",
            "given up after days, and reported to the sender",
        ),
        false => (
            "refused elsewhere, without a report to the sender",
            "given up after days, without a report to the sender",
        ),
    };
    let ends = [
        (
            count(|e| matches!(e, Event::DeliveredLocal { .. })),
            "delivered into a mailbox here",
        ),
        (
            count(|e| matches!(e, Event::Relayed { .. })),
            "handed to the next server",
        ),
        (count(|e| matches!(e, Event::Bounced { .. })), refused),
        (count(|e| matches!(e, Event::Expired { .. })), given_up),
        (
            count(|e| matches!(e, Event::Dropped { .. })),
            "dropped by an order or a rule of the operator",
        ),
    ];
    let all = records.iter().find_map(|r| match r.event {
        Event::Accepted { local, queued } => Some((local + queued) as usize),
        _ => None,
    });
    let ended: usize = ends.iter().map(|(n, _)| n).sum();
    let queued = count(|e| matches!(e, Event::Queued { .. }));
    let waiting = all.unwrap_or(ended.max(queued)).saturating_sub(ended);
    let mut parts: Vec<String> = ends
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, end)| format!("{} {end}", recipients(*n)))
        .collect();
    if waiting > 0 {
        parts.push(format!("{} waiting in the queue", recipients(waiting)));
    }
    let what = if is_ours {
        "It is a report of this server"
    } else {
        "It was accepted"
    };
    if parts.is_empty() {
        return format!("{what}.");
    }
    format!("{what}: {}.", parts.join("; "))
}

fn recipients(n: usize) -> String {
    if n == 1 {
        "1 recipient".to_owned()
    } else {
        format!("{n} recipients")
    }
}
