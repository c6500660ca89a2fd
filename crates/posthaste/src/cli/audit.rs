//! `posthaste audit`: the proof that nothing is lost, from a running server or a stopped store.
//!
//! Exit codes: 0 balanced; 1 something was found; 4 (or 3, 2) it could not be done.

use super::out::outln;
use super::{Failure, office, print, settings};
use crate::args::Global;
use crate::settings::Settings;
use crate::world::{self, World};
use admin::audit::{AuditReport, FindingRow, Pace, STAGES, Standing};
use admin::scrub::Scrub;
use admin::{Office, Refusal, Request, Response};
use mail::date;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

/// How often the bar is drawn anew.
const DRAWN_EVERY: Duration = Duration::from_millis(250);
/// Columns of the bar.
const BAR_COLUMNS: u64 = 30;
/// Findings that are printed in full; the others are in the JSON.
const PRINTED_MAX: usize = 50;

/// Audits and prints.
pub fn run(global: &Global, deep: bool) -> Result<ExitCode, Failure> {
    let settings = settings(global)?;
    let mut bar = Bar::new(!global.json);
    let answer = ask(&settings, deep, &mut bar);
    bar.clear();
    let report = answer?;
    if global.json {
        print::response(&Response::Audit(Box::new(report.clone())), true)?;
    } else {
        report_in_words(&report);
    }
    Ok(match report.balanced {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    })
}

fn ask(settings: &Settings, deep: bool, bar: &mut Bar) -> Result<AuditReport, Failure> {
    let request = Request::Audit { deep };
    if let Some(answer) = office::ask_server(settings, &request, &mut |standing| bar.draw(standing))? {
        return match answer? {
            Response::Audit(report) => Ok(*report),
            _ => Err(Failure::store(
                "the server answered something else; it may be of another version",
            )),
        };
    }
    office::must_be_there(settings)?;
    world::block_on(async {
        let (world, damaged) = World::open_told(settings)?;
        let report = watched(&world.office, deep, bar).await;
        world.close().await;
        let mut report = report?;
        report.balanced &= damaged == 0;
        Ok(report)
    })
}

/// Audits here, with nobody else at work.
async fn watched(office: &Office, deep: bool, bar: &mut Bar) -> Result<AuditReport, Refusal> {
    let pace = Pace::new(false);
    let mut work = std::pin::pin!(office.audit(deep, pace.clone()));
    let mut ticks = tokio::time::interval(DRAWN_EVERY);
    loop {
        tokio::select! {
            report = &mut work => return report,
            _ = ticks.tick() => bar.draw(&pace.standing()),
        }
    }
}

/// A bar on standard error, for a person.
struct Bar {
    shown: bool,
    drawn: bool,
}

impl Bar {
    fn new(wanted: bool) -> Self {
        Self {
            shown: wanted && std::io::stderr().is_terminal(),
            drawn: false,
        }
    }

    fn draw(&mut self, standing: &Standing) {
        if self.shown {
            self.drawn = true;
            eprint!("\r\x1b[K{}", line(standing));
            let _ = std::io::stderr().flush();
        }
    }

    fn clear(&mut self) {
        if self.drawn {
            eprint!("\r\x1b[K");
        }
    }
}

fn line(standing: &Standing) -> String {
    let stage = usize::try_from(standing.stage).unwrap_or(usize::MAX);
    let name = STAGES.get(stage).copied().unwrap_or_default();
    let steps = format!("{}/{} {name}", standing.stage + 1, STAGES.len());
    if standing.of == 0 {
        return format!("{steps}: {}", standing.done);
    }
    let part = |of: u64| standing.done.min(standing.of).saturating_mul(of) / standing.of;
    let full = part(BAR_COLUMNS) as usize;
    let bar = format!("{}{}", "#".repeat(full), "-".repeat(BAR_COLUMNS as usize - full));
    format!("[{bar}] {:>3} %  {steps}", part(100))
}

/// The answer for people.
pub fn report_in_words(report: &AuditReport) {
    let ledger = &report.ledger;
    outln!(
        "{}: the store at commit {}, {}",
        date::iso8601(report.at),
        report.commit,
        match report.deep {
            true => "every octet read",
            false => "without reading the messages (--deep reads every octet)",
        }
    );
    if let Some(since) = ledger.since {
        outln!("\nerrands since {}", date::iso8601(since));
        let dropped = ledger
            .dropped
            .iter()
            .map(|(by, n)| (format!("dropped by {by}"), *n));
        let rows: Vec<(String, i64)> = [
            ("accepted".to_owned(), report.accepted),
            ("delivered".to_owned(), ledger.delivered_in_all()),
            ("relayed".to_owned(), ledger.relayed),
            ("bounced".to_owned(), ledger.bounced),
            ("expired".to_owned(), ledger.expired),
        ]
        .into_iter()
        .chain(dropped)
        .chain([("in flight".to_owned(), ledger.in_flight)])
        .collect();
        for (i, (what, n)) in rows.iter().enumerate() {
            let sign = match i {
                0 => " ",
                1 => "=",
                _ => "+",
            };
            outln!("  {sign} {n:>12}  {what}");
        }
        if report.accepted != report.accounted_for {
            outln!(
                "  these do not balance: the ends and what is in flight come to {}",
                report.accounted_for
            );
        }
    }
    checked(report);
    for row in report.findings.iter().take(PRINTED_MAX) {
        finding(row);
    }
    let more = report.findings.len().saturating_sub(PRINTED_MAX) as u64 + report.findings_left_out;
    if more > 0 {
        outln!("\n… and {more} findings more (--json has the first 1,000)");
    }
    for what in &report.unchecked {
        outln!("\nnot checked: {what}");
    }
    scrubbed(report.scrub.as_ref());
    match report.balanced {
        true => outln!("\nbalanced: nothing is lost, nothing is twice"),
        false => outln!("\nNOT in order: docs/AUDIT.md explains each finding by its name"),
    }
}

fn checked(report: &AuditReport) {
    let counted = &report.counted;
    outln!(
        "\nchecked: {} accounts, {} mailboxes with {} messages, {} queued messages with {} open errands,\n\
         {} journeys recipient by recipient, {} rows, {} blobs of {} octets{}",
        counted.accounts,
        counted.mailboxes,
        counted.messages,
        counted.queued_messages,
        counted.open_errands,
        counted.journeys,
        counted.entries,
        counted.blobs,
        counted.blob_octets,
        match report.deep {
            true => format!(", {} read", counted.blobs_read),
            false => String::new(),
        }
    );
}

fn finding(row: &FindingRow) {
    outln!("\n{} {} ({}): {}", row.severity, row.code, row.area, row.place);
    outln!("  {}", row.what);
    for who in &row.concerns {
        outln!("  concerns: {who}");
    }
    outln!("  what to do: {}", row.remedy);
}

fn scrubbed(scrub: Option<&Scrub>) {
    let Some(scrub) = scrub else {
        outln!("\nthe background scrub has not run yet");
        return;
    };
    match &scrub.last {
        Some(last) => outln!(
            "\nthe background scrub read all of {} octets until {} and found {}",
            last.octets,
            date::iso8601(last.ended),
            damage(last.findings.len())
        ),
        None => outln!("\nthe background scrub is in its first round"),
    }
    if !scrub.findings.is_empty() {
        outln!(
            "its present round has found {} so far",
            damage(scrub.findings.len())
        );
    }
    let last = scrub.last.iter().flat_map(|last| &last.findings);
    for row in scrub.findings.iter().chain(last) {
        outln!("  {}: {}: {}", row.code, row.place, row.what);
    }
}

fn damage(findings: usize) -> String {
    match findings {
        0 => "no damage".to_owned(),
        1 => "damage in 1 place".to_owned(),
        n => format!("damage in {n} places"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_long_as_the_work_done() {
        let at = |done, of| line(&Standing { stage: 1, done, of });
        assert_eq!(
            at(0, 100),
            format!("[{}]   0 %  2/6 octets of the blobs", "-".repeat(30))
        );
        assert_eq!(
            at(50, 100),
            format!(
                "[{}{}]  50 %  2/6 octets of the blobs",
                "#".repeat(15),
                "-".repeat(15)
            )
        );
        assert_eq!(
            at(300, 100),
            format!("[{}] 100 %  2/6 octets of the blobs", "#".repeat(30))
        );
        assert_eq!(at(7, 0), "2/6 octets of the blobs: 7");
    }
}
