//! `posthaste mta-sts`: what is known of other domains' MTA-STS policies, and the policy of our own.

use super::out::outln;
use super::{Failure, office, print, settings};
use crate::args::Global;
use crate::args::mta_sts::MtaSts;
use admin::words::{MtaSts as Page, MtaStsOrder, MtaStsView};
use admin::{Request, Response};
use mail::date;
use std::process::ExitCode;

/// Performs and prints.
pub fn run(global: &Global, order: MtaSts) -> Result<ExitCode, Failure> {
    let order = match order {
        MtaSts::List => return list(global),
        MtaSts::Show { domain } => MtaStsOrder::Show { domain },
        MtaSts::Refresh { domain } => MtaStsOrder::Refresh { domain },
        MtaSts::Policy { domain } => MtaStsOrder::Policy { domain },
    };
    office::run(global, Request::MtaSts(order))
}

/// All of them, asked for part by part.
fn list(global: &Global) -> Result<ExitCode, Failure> {
    let mut all = Vec::new();
    let first = Request::MtaSts(MtaStsOrder::List { after: None });
    office::converse(&settings(global)?, first, |response| {
        let Response::MtaSts(page) = response else {
            return Err(Failure::store("this is no answer to the question".to_owned()));
        };
        all.extend(page.rows);
        let after = page.next.map(Some);
        Ok(after.map(|after| Request::MtaSts(MtaStsOrder::List { after })))
    })?;
    let page = Page {
        rows: all,
        next: None,
    };
    print::response(&Response::MtaSts(page), global.json)?;
    Ok(ExitCode::SUCCESS)
}

/// The list as a table.
pub fn table(rows: &[MtaStsView]) {
    if rows.is_empty() {
        return outln!("no domain that mail went to has an MTA-STS record");
    }
    let cells = rows.iter().map(|row| {
        vec![
            row.entry.domain.to_string(),
            state(row),
            row.until.map_or_else(String::new, date::iso8601),
            row.entry.fault().map_or_else(String::new, ToString::to_string),
        ]
    });
    print::table(
        &["DOMAIN", "POLICY", "UNTIL", "LAST FETCH FAILED"],
        cells.collect(),
    );
}

fn state(row: &MtaStsView) -> String {
    match (&row.entry.held, row.holds) {
        (Some(held), true) => held.policy.mode.to_string(),
        (Some(held), false) => format!("{}, over", held.policy.mode),
        (None, _) => "none yet".to_owned(),
    }
}

/// One domain, in sentences.
pub fn in_words(row: &MtaStsView) {
    outln!("{}", row.entry.domain);
    match (&row.entry.held, row.until) {
        (Some(held), Some(until)) => {
            let holds = if row.holds { "holds until" } else { "was over at" };
            outln!(
                "  policy {}, fetched {}, {holds} {}",
                held.id,
                date::iso8601(held.fetched),
                date::iso8601(until)
            );
            for line in held.policy.lines() {
                outln!("    {line}");
            }
        }
        _ => outln!("  no policy was ever fetched: mail goes there as to a domain without one"),
    }
    match &row.entry.tried {
        Some(tried) => match &tried.fault {
            Some(fault) => outln!(
                "  last fetch {}: failed ({}): {fault}",
                date::iso8601(tried.at),
                fault.kind.result_type()
            ),
            None => outln!("  last fetch {}: good", date::iso8601(tried.at)),
        },
        None => outln!("  no fetch was tried"),
    }
    if let Some(at) = row.next_fetch {
        outln!(
            "  not tried again before {}; now: posthaste mta-sts refresh {}",
            date::iso8601(at),
            row.entry.domain
        );
    }
}
