//! `posthaste tlsrpt`: TLS reports that came, and what is counted for those that go, in words.

use super::out::{out, outln};
use super::{Failure, office, print, settings};
use crate::args::Global;
use crate::args::tlsrpt::Tlsrpt;
use admin::tls_reports::{OutgoingRow, OutgoingView, ReceivedRow, TlsReportsOrder};
use admin::{Request, Response};
use mail::date;
use std::process::ExitCode;

/// Does what was ordered.
pub fn run(global: &Global, order: Tlsrpt) -> Result<ExitCode, Failure> {
    let received = |domain, limit: u16| {
        let limit = usize::from(limit);
        Request::TlsReports(TlsReportsOrder::Received { domain, limit })
    };
    match order {
        Tlsrpt::List { domain, limit } => office::run(global, received(domain, limit)),
        Tlsrpt::Outgoing { today, limit } => {
            let limit = usize::from(limit);
            let order = TlsReportsOrder::Outgoing { today, limit };
            office::run(global, Request::TlsReports(order))
        }
        Tlsrpt::Show { domain, limit, all } => {
            let response = office::perform(&settings(global)?, received(domain, limit))?;
            match (&response, global.json) {
                (Response::TlsReports(rows), false) => show(rows, all),
                _ => print::response(&response, global.json)?,
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The reports that came, a line each.
pub fn list(rows: &[ReceivedRow]) {
    if rows.is_empty() {
        return nothing_came();
    }
    let cells = |row: &ReceivedRow| {
        vec![
            row.day.clone(),
            row.domain.to_string(),
            who(row),
            row.successful.to_string(),
            row.failed.to_string(),
            reasons(&row.reasons),
        ]
    };
    let head = ["DAY", "ABOUT", "FROM", "TLS GOOD", "FAILED", "WHY"];
    print::table(&head, rows.iter().map(cells).collect());
}

/// The same in words.
fn show(rows: &[ReceivedRow], all: bool) {
    if rows.is_empty() {
        return nothing_came();
    }
    let good: u64 = rows.iter().fold(0, |sum, row| sum.saturating_add(row.successful));
    let failed: u64 = rows.iter().fold(0, |sum, row| sum.saturating_add(row.failed));
    outln!(
        "{} reports: {} conversations with TLS as it should be, {} not.",
        rows.len(),
        print::grouped(good),
        print::grouped(failed)
    );
    if failed == 0 && !all {
        outln!("Nothing to change. (--all tells of each report)");
        return;
    }
    for row in rows.iter().filter(|row| all || row.failed > 0) {
        outln!();
        outln!("{} told by {}, signed by {}", row.day, who(row), row.signed_by);
        out!("{}", row.text);
        if row.details_left_out > 0 {
            outln!(
                "  ({} further kinds of failure were not kept)",
                row.details_left_out
            );
        }
        let contact = Some(row.contact.as_str()).filter(|contact| !contact.is_empty());
        outln!(
            "  questions to: {}; the mail it came with: posthaste trace {}",
            contact.unwrap_or("(no contact given)"),
            row.message
        );
    }
}

fn nothing_came() {
    outln!(
        "no TLS report came in the last 60 days; others send them once the _smtp._tls record stands in the DNS: posthaste dns records <domain>"
    );
}

fn who(row: &ReceivedRow) -> String {
    match row.organization.trim() {
        "" => row.signed_by.clone(),
        named => named.to_owned(),
    }
}

/// What was counted here.
pub fn outgoing(view: &OutgoingView) {
    if view.rows.is_empty() {
        outln!("nothing is counted: no conversation with another domain's servers since the last reports");
        return;
    }
    let cells = |row: &OutgoingRow| {
        vec![
            row.day.clone(),
            row.domain.clone(),
            row.successful.to_string(),
            row.failed.to_string(),
            date::iso8601(row.due),
            reasons(&row.reasons),
        ]
    };
    let head = ["DAY", "DOMAIN", "TLS GOOD", "FAILED", "REPORT DUE", "WHY"];
    print::table(&head, view.rows.iter().map(cells).collect());
    if view.more {
        outln!("there are more: --limit");
    }
}

fn reasons(reasons: &[(String, u64)]) -> String {
    let texts: Vec<String> = reasons.iter().map(|(word, n)| format!("{word} ({n})")).collect();
    texts.join(", ")
}
