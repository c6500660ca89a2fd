//! `posthaste suppression`: the addresses that are not tried again for a sender, page by page.

use super::out::{out, outln};
use super::{Failure, office, print, settings};
use crate::args::Global;
use crate::args::block::Suppression;
use admin::words::SuppressionOrder;
use admin::{Request, Response};
use limits::Suppressed;
use mail::date;
use std::process::ExitCode;

/// The headings of the table.
pub const HEADINGS: [&str; 6] = ["ADDRESS", "FOR", "FROM", "UNTIL", "SERVER", "SAID"];

/// The cells below them.
pub fn rows(suppressed: &[Suppressed]) -> Vec<Vec<String>> {
    let row = |s: &Suppressed| {
        vec![
            s.recipient.clone(),
            s.sender.clone(),
            date::iso8601(s.from),
            date::iso8601(s.until),
            s.host.clone(),
            s.reply
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect(),
        ]
    };
    suppressed.iter().map(row).collect()
}

/// Does what was ordered.
pub fn run(global: &Global, order: Suppression) -> Result<ExitCode, Failure> {
    match order {
        Suppression::List => list(global),
        Suppression::Remove { address, sender } => {
            let order = SuppressionOrder::Remove { address, sender };
            office::run(global, Request::Suppression(order))
        }
    }
}

fn list(global: &Global) -> Result<ExitCode, Failure> {
    let page_behind = |behind| Request::Suppression(SuppressionOrder::List { behind });
    let mut listed = 0;
    office::converse(&settings(global)?, page_behind(None), |response| {
        let Response::Suppressed(page) = response else {
            let what = "the server answered something else; is it of the same version?";
            return Err(Failure::store(what.to_owned()));
        };
        let Some(last) = page.last() else {
            return Ok(None);
        };
        let behind = (last.sender.clone(), last.recipient.clone());
        if global.json {
            print_rows(&page, listed)?;
        } else {
            print::response(&Response::Suppressed(page.clone()), false)?;
        }
        listed += page.len();
        Ok(Some(page_behind(Some(behind))))
    })?;
    match (global.json, listed) {
        (true, 0) => outln!("[]"),
        (true, _) => outln!("\n]"),
        (false, 0) => outln!("no address is suppressed"),
        (false, _) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// One array over all pages, a line for each address.
fn print_rows(page: &[Suppressed], listed: usize) -> Result<(), Failure> {
    for (i, row) in page.iter().enumerate() {
        let text = serde_json::to_string(row).map_err(|e| Failure::store(e.to_string()))?;
        out!("{}{text}", if listed + i == 0 { "[\n" } else { ",\n" });
    }
    Ok(())
}
