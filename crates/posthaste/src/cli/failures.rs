//! `posthaste failures`: what another server's reply means, and the page about all classes of failures.

use super::Failure;
use super::out::{out, outln};
use crate::args::Global;
use deliver::explain::{Class, Explanation, Replies, page};
use mail::EnhancedStatus;
use serde_json::json;
use std::process::ExitCode;

/// Explains a reply or a class; without one, prints the page.
pub fn run(global: &Global, reply: &[String], host: &str) -> Result<ExitCode, Failure> {
    let replies = crate::world::replies(&super::settings(global)?)?;
    let text = reply.join(" ");
    let text = text.trim();
    if text.is_empty() {
        match global.json {
            true => outln!(
                "{:#}",
                json!(replies.classes().map(class_json).collect::<Vec<_>>())
            ),
            false => out!("{}", page(&replies)),
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(class) = replies.classes().find(|class| class.name == text) {
        match global.json {
            true => outln!("{:#}", class_json(class)),
            false => tell(class, &class.remedy),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let explanation = explain(&replies, text, host).ok_or_else(|| {
        Failure::Usage(format!(
            "\"{text}\" is neither a reply that begins with a code such as 550 or 451, nor a class; all classes: posthaste --json failures"
        ))
    })?;
    match global.json {
        true => outln!("{:#}", explanation_json(&explanation)),
        false => tell(&explanation.class, &explanation.remedy()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a reply as it stands in logs and reports: the code, perhaps the enhanced status, the words.
fn explain(replies: &Replies, text: &str, host: &str) -> Option<Explanation> {
    let (code, rest) = text.split_at_checked(3)?;
    let code: u16 = code.parse().ok().filter(|code| (400..=599).contains(code))?;
    let words = rest.trim_start_matches(['-', ' ']);
    let status = EnhancedStatus::parse_prefix(words).map(|(status, _)| status);
    let failure = deliver::Failure::of_peer(host, code, status, words);
    Some(replies.explain(&failure))
}

fn tell(class: &Class, remedy: &str) {
    outln!("class:       {}", class.name);
    outln!("problem:     {}", class.problem);
    outln!("whose move:  {}", class.side);
    outln!("what helps:  {remedy}");
}

fn class_json(class: &Class) -> serde_json::Value {
    json!({
        "class": class.name,
        "side": class.side.words(),
        "problem": class.problem,
        "remedy": class.remedy,
    })
}

fn explanation_json(explanation: &Explanation) -> serde_json::Value {
    let mut value = class_json(&explanation.class);
    value["remedy"] = json!(explanation.remedy());
    if let Some(listing) = &explanation.listing {
        value["list"] = json!({ "name": listing.name, "page": listing.page });
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_the_program_prints() {
        let written = include_str!("../../../../docs/DELIVERY-FAILURES.md");
        assert!(
            written == page(&Replies::built_in()),
            "docs/DELIVERY-FAILURES.md is stale: posthaste failures > docs/DELIVERY-FAILURES.md"
        );
    }

    #[test]
    fn a_reply_as_it_stands_in_a_log() {
        let replies = Replies::built_in();
        let class = |text: &str, host: &str| explain(&replies, text, host).map(|e| e.class.name.clone());
        assert_eq!(class("550-5.1.1 gone", "").as_deref(), Some("unknown-user"));
        assert_eq!(
            class(
                "550 5.4.1 Recipient address rejected: Access denied",
                "x.mail.protection.outlook.com"
            )
            .as_deref(),
            Some("unknown-user")
        );
        assert_eq!(class("250 2.0.0 ok", ""), None);
        assert_eq!(class("55", ""), None);
    }
}
