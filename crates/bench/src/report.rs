//! The tables of a comparison, from its figures: pure.
//!
//! Promises: medians with the smallest and largest beside them; a ratio only of figures of the same cell.
//! Never: a figure that the run did not give.

use crate::compare::Comparison;
use crate::disk::DiskRow;
use crate::measure::{Cell, Measurement};
use crate::quantile::Spread;
use crate::table::{NONE, Table, figure};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// How a table becomes text.
type Style = fn(&Table) -> String;

/// Everything, for the terminal.
pub fn text(found: &Comparison) -> String {
    whole(found, Table::text, "", "")
}

/// Everything, for a file.
pub fn markdown(found: &Comparison) -> String {
    whole(found, Table::markdown, "### ", "- ")
}

fn whole(found: &Comparison, style: Style, heading: &str, point: &str) -> String {
    let mut out = String::new();
    for line in &found.machine {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{point}{line}");
    }
    let _ = write!(out, "\n{heading}Servers\n\n{}", style(&servers(found)));
    if let Some(table) = ratios(found) {
        let _ = write!(out, "\n{heading}Ratios\n\n{}", style(&table));
    }
    let _ = write!(
        out,
        "\n{heading}The disk: group commit into one file\n\n{}",
        style(&disk(&found.disk))
    );
    let _ = writeln!(out);
    for note in &found.notes {
        let _ = writeln!(out, "{point}{note}");
    }
    out
}

/// Cells in the order of size, then sessions.
fn cells(found: &Comparison) -> BTreeSet<Cell> {
    found.measurements.iter().map(|m| m.cell).collect()
}

/// Servers in the order in which they were first measured.
fn names(found: &Comparison) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for m in &found.measurements {
        if !names.contains(&m.target.as_str()) {
            names.push(&m.target);
        }
    }
    names
}

fn spread(found: &Comparison, cell: Cell, name: &str, of: impl Fn(&Measurement) -> f64) -> Option<Spread> {
    let fitting = found
        .measurements
        .iter()
        .filter(|m| m.cell == cell && m.target == name);
    Spread::of(fitting.map(of))
}

fn rate(found: &Comparison, cell: Cell, name: &str) -> Option<Spread> {
    spread(found, cell, name, |m| m.load.per_second)
}

fn cpu(found: &Comparison, cell: Cell, name: &str) -> Option<Spread> {
    spread(found, cell, name, |m| m.cpu_seconds_per_1000)
}

fn median(spread: Option<Spread>) -> String {
    figure(spread.map(|s| s.median))
}

fn range(spread: Option<Spread>) -> String {
    spread.map_or(NONE.into(), |s| {
        format!("{}–{}", figure(Some(s.min)), figure(Some(s.max)))
    })
}

fn servers(found: &Comparison) -> Table {
    let mut table = Table::new(
        1,
        [
            "server",
            "KiB",
            "sessions",
            "messages/s",
            "min–max",
            "p50 ms",
            "p99 ms",
            "CPU s/1000",
            "min–max",
            "syncs/msg",
            "by strace",
            "flushes/msg",
            "written/octet",
            "MiB peak",
            "failed",
        ],
    );
    for cell in cells(found) {
        for name in names(found) {
            let of = |f: fn(&Measurement) -> f64| spread(found, cell, name, f);
            let latency = |f: fn(&crate::quantile::Latency) -> f64| {
                spread(found, cell, name, |m| {
                    m.load.latency_ms.as_ref().map_or(f64::NAN, f)
                })
            };
            let counts = found.counts.iter().find(|c| c.cell == cell && c.target == name);
            let written = counts
                .and_then(|c| c.written_per_octet)
                .or_else(|| Some(of(|m| m.device_per_octet.unwrap_or(f64::NAN))?.min));
            let failed: u64 = found
                .measurements
                .iter()
                .filter(|m| m.cell == cell && m.target == name)
                .map(|m| m.load.failed + m.load.unsent)
                .sum();
            table.row([
                name.to_owned(),
                (cell.size / 1024).to_string(),
                cell.sessions.to_string(),
                median(rate(found, cell, name)),
                range(rate(found, cell, name)),
                median(latency(|l| l.p50)),
                median(latency(|l| l.p99)),
                median(cpu(found, cell, name)),
                range(cpu(found, cell, name)),
                median(of(|m| m.syncs_per_message.unwrap_or(f64::NAN))),
                figure(counts.and_then(|c| c.syncs_per_message)),
                figure(counts.and_then(|c| c.flushes_per_message)),
                figure(written),
                figure(of(|m| m.memory_peak_octets as f64 / 1_048_576.0).map(|s| s.max)),
                failed.to_string(),
            ]);
        }
    }
    table
}

/// Posthaste's figures over the others', cell by cell; nothing when there is nobody to compare with.
fn ratios(found: &Comparison) -> Option<Table> {
    let names = names(found);
    let others: Vec<&str> = names.iter().copied().filter(|n| *n != "posthaste").collect();
    if others.is_empty() || !names.contains(&"posthaste") {
        return None;
    }
    let head = ["KiB".to_owned(), "sessions".to_owned()].into_iter();
    let rates = others.iter().map(|n| format!("messages/s ÷ {n}"));
    let cpus = others.iter().map(|n| format!("CPU ÷ {n}"));
    let mut table = Table::new(0, head.chain(rates).chain(cpus));
    for cell in cells(found) {
        let over = |of: fn(&Comparison, Cell, &str) -> Option<Spread>, name: &str| {
            let ours = of(found, cell, "posthaste")?.median;
            let theirs = of(found, cell, name)?.median;
            Some(ours / theirs)
        };
        let mut row = vec![(cell.size / 1024).to_string(), cell.sessions.to_string()];
        row.extend(others.iter().map(|n| figure(over(rate, n))));
        row.extend(others.iter().map(|n| figure(over(cpu, n))));
        table.row(row);
    }
    Some(table)
}

/// The disk probe: the rounds of each cell together.
fn disk(rows: &[DiskRow]) -> Table {
    let mut table = Table::new(
        1,
        [
            "file",
            "KiB",
            "producers",
            "records/s",
            "min–max",
            "records/sync",
            "p50 ms",
            "p99 ms",
        ],
    );
    let keys: BTreeSet<(usize, usize, bool)> =
        rows.iter().map(|r| (r.size, r.producers, r.recycled)).collect();
    for (size, producers, recycled) in keys {
        let of = |f: fn(&DiskRow) -> f64| {
            let fitting = rows
                .iter()
                .filter(|r| (r.size, r.producers, r.recycled) == (size, producers, recycled));
            Spread::of(fitting.map(f))
        };
        table.row([
            if recycled { "written over" } else { "appended" }.to_owned(),
            (size / 1024).to_string(),
            producers.to_string(),
            median(of(|r| r.per_second)),
            range(of(|r| r.per_second)),
            median(of(|r| r.per_sync)),
            median(of(|r| r.latency_ms.map_or(f64::NAN, |l| l.p50))),
            median(of(|r| r.latency_ms.map_or(f64::NAN, |l| l.p99))),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadReport;
    use crate::measure::Counts;
    use crate::quantile::Latency;

    fn one(target: &str, round: u16, per_second: f64, cpu: f64) -> Measurement {
        Measurement {
            target: target.into(),
            cell: Cell {
                size: 10_240,
                sessions: 64,
            },
            round,
            load: LoadReport {
                sessions: 64,
                opened: 64,
                connections: 64,
                messages: 1000,
                size: 10_240,
                accepted: 1000,
                failed: 0,
                unsent: 0,
                seconds: 1.0,
                per_second,
                latency_ms: Some(Latency {
                    p50: 2.0,
                    p90: 3.0,
                    p99: 4.0,
                    max: 5.0,
                }),
                errors: Default::default(),
                generator_cpu_seconds: 0.1,
            },
            cpu_seconds_per_1000: cpu,
            drain_seconds: 0.0,
            memory_peak_octets: 30 << 20,
            syncs_per_message: (target == "posthaste").then_some(0.05),
            device_per_octet: Some(2.0),
        }
    }

    fn sample() -> Comparison {
        Comparison {
            machine: vec!["a machine".into()],
            notes: vec!["a note".into()],
            measurements: vec![
                one("posthaste", 1, 9000.0, 0.2),
                one("postfix", 1, 900.0, 2.0),
                one("posthaste", 2, 11_000.0, 0.1),
                one("postfix", 2, 1100.0, 2.5),
                one("posthaste", 3, 10_000.0, 0.15),
                one("postfix", 3, 1000.0, 1.5),
            ],
            counts: vec![Counts {
                target: "postfix".into(),
                cell: Cell {
                    size: 10_240,
                    sessions: 64,
                },
                syncs_per_message: Some(1.0),
                written_per_octet: Some(2.2),
                flushes_per_message: Some(0.9),
            }],
            disk: Vec::new(),
        }
    }

    #[test]
    fn medians_ranges_and_counts_stand_in_their_columns() {
        let rows = markdown(&sample());
        assert!(
            rows.contains(
                "| posthaste | 10 | 64 | 10000 | 9000–11000 | 2.00 | 4.00 | 0.150 | 0.100–0.200 | 0.050 | – | – | 2.00 | 30.0 | 0 |"
            ),
            "{rows}"
        );
        assert!(
            rows.contains("| postfix | 10 | 64 | 1000 | 900–1100 | 2.00 | 4.00 | 2.00 | 1.50–2.50 | – | 1.00 | 0.900 | 2.20 |"),
            "{rows}"
        );
    }

    #[test]
    fn ratios_are_of_medians() {
        let rows = markdown(&sample());
        assert!(
            rows.contains("| KiB | sessions | messages/s ÷ postfix | CPU ÷ postfix |"),
            "{rows}"
        );
        assert!(rows.contains("| 10 | 64 | 10.0 | 0.075 |"), "{rows}");
        let alone = Comparison {
            measurements: vec![one("posthaste", 1, 1.0, 1.0)],
            ..Comparison::default()
        };
        assert!(ratios(&alone).is_none());
    }
}
