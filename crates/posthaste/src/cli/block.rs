//! `posthaste block` and `posthaste account limit`: orders about limits, and their answers in words.

use super::out::outln;
use crate::args::block::Block;
use admin::Request;
use admin::words::{BlockOrder, LimitOrder};
use mail::{EmailAddress, date};

pub fn request(order: Block) -> Request {
    Request::Block(match order {
        Block::List => BlockOrder::List,
        Block::Add { subject, lasts, why } => BlockOrder::Add {
            subject,
            secs: lasts.as_secs(),
            why,
        },
        Block::Remove { subject } => BlockOrder::Remove { subject },
    })
}

pub fn limit(
    address: EmailAddress,
    messages: Option<u32>,
    first_recipients: Option<u32>,
    default: bool,
) -> Request {
    let order = match (messages, first_recipients) {
        _ if default => LimitOrder::Default,
        (None, None) => LimitOrder::Show,
        _ => LimitOrder::Set {
            messages,
            first_recipients,
        },
    };
    Request::AccountLimit { address, order }
}

/// The cells of a table of blocks, behind its headings.
pub const HEADINGS: [&str; 5] = ["WHO", "FROM", "UNTIL", "BY", "WHY"];

pub fn rows(blocks: &[limits::Block]) -> Vec<Vec<String>> {
    let row = |b: &limits::Block| {
        vec![
            b.subject.to_string(),
            date::iso8601(b.from),
            date::iso8601(b.until),
            b.by.clone(),
            b.why.clone(),
        ]
    };
    blocks.iter().map(row).collect()
}

pub fn today(address: &EmailAddress, today: &limits::Today) {
    let line = |what: &str, sent: u32, max: u32, own: bool| {
        let whose = if own {
            "its own limit"
        } else {
            "the limit for everybody"
        };
        match max {
            0 => outln!("{what}: {sent} today; no limit ({whose})"),
            _ => outln!("{what}: {sent} of {max} today ({whose})"),
        }
    };
    outln!(
        "{address}, to recipients elsewhere, until {}:",
        date::iso8601(today.until)
    );
    line(
        "messages",
        today.messages,
        today.messages_max,
        today.own.messages.is_some(),
    );
    line(
        "first-time recipients",
        today.first_recipients,
        today.first_recipients_max,
        today.own.first_recipients.is_some(),
    );
}
