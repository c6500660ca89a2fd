//! The tables of a relay run, from its figures: pure.
//!
//! Promises: medians with the smallest and largest beside them; a ratio only of figures of the same cell.
//! Never: a figure that the run did not give.

use super::{Cell, Dead, Found, Run};
use crate::quantile::Spread;
use crate::table::{Table, figure};
use std::collections::BTreeSet;
use std::fmt::Write as _;

impl Found {
    /// For the terminal.
    pub fn text(&self) -> String {
        self.told(Table::text, "", "")
    }

    /// For a file.
    pub fn markdown(&self) -> String {
        self.told(Table::markdown, "### ", "- ")
    }

    fn told(&self, style: fn(&Table) -> String, heading: &str, point: &str) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        for line in &self.machine {
            let _ = writeln!(out, "{point}{line}");
        }
        for (name, table, empty) in [
            ("Relayed", self.relayed(), self.runs.is_empty()),
            (
                "Ratios: Posthaste to Postfix",
                self.ratios(),
                self.runs.is_empty(),
            ),
            (
                "With a dead destination",
                self.beside_dead(),
                self.dead.is_empty(),
            ),
        ] {
            if !empty {
                let _ = write!(out, "\n{heading}{name}\n\n{}", style(&table));
            }
        }
        let _ = writeln!(out);
        for note in &self.notes {
            let _ = writeln!(out, "{point}{note}");
        }
        out
    }

    fn cells(&self) -> BTreeSet<Cell> {
        self.runs.iter().map(|run| run.cell).collect()
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        let all = self.runs.iter().map(|run| &run.target);
        for name in all.chain(self.dead.iter().map(|dead| &dead.target)) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    fn spread(&self, cell: Cell, name: &str, of: impl Fn(&Run) -> f64) -> Option<Spread> {
        let fitting = self
            .runs
            .iter()
            .filter(|run| run.cell == cell && run.target == name);
        Spread::of(fitting.map(of))
    }

    fn relayed(&self) -> Table {
        let head = [
            "server",
            "messages",
            "domains",
            "relayed/s",
            "min–max",
            "accepted/s",
            "CPU s/1000",
            "min–max",
            "connections",
            "refused",
            "missing",
        ];
        let mut table = Table::new(1, head);
        for cell in self.cells() {
            for name in self.names() {
                let of = |of: &dyn Fn(&Run) -> f64| self.spread(cell, name, of);
                let rate = of(&|run| run.relayed_per_second);
                let cpu = of(&|run| run.cpu_seconds_per_1000);
                let sum = |count: fn(&Run) -> u64| {
                    let fitting = self
                        .runs
                        .iter()
                        .filter(|run| run.cell == cell && run.target == name);
                    fitting.map(count).sum::<u64>().to_string()
                };
                table.row([
                    name.to_owned(),
                    cell.messages.to_string(),
                    cell.domains.to_string(),
                    median(rate),
                    range(rate),
                    median(of(&|run| run.accepted_per_second)),
                    median(cpu),
                    range(cpu),
                    median(of(&|run| run.connections as f64)),
                    sum(|run| run.refused),
                    sum(|run| run.missing),
                ]);
            }
        }
        table
    }

    fn ratios(&self) -> Table {
        let mut table = Table::new(1, ["beside", "messages", "domains", "relayed/s", "CPU"]);
        for cell in self.cells() {
            for name in self.names().into_iter().filter(|name| *name != "posthaste") {
                let ratio = |of: fn(&Run) -> f64| {
                    let ours = self.spread(cell, "posthaste", of)?.median;
                    let theirs = self.spread(cell, name, of)?.median;
                    (theirs > 0.0).then(|| ours / theirs)
                };
                table.row([
                    name.to_owned(),
                    cell.messages.to_string(),
                    cell.domains.to_string(),
                    figure(ratio(|run| run.relayed_per_second)),
                    figure(ratio(|run| run.cpu_seconds_per_1000)),
                ]);
            }
        }
        table
    }

    fn beside_dead(&self) -> Table {
        let head = [
            "server",
            "queued for the dead",
            "relayed/s before",
            "relayed/s beside",
            "beside ÷ before",
            "CPU s/1000 dead",
            "missing",
        ];
        let mut table = Table::new(1, head);
        for name in self.names() {
            let fitting = || self.dead.iter().filter(|dead| dead.target == name);
            let of = |of: fn(&Dead) -> f64| Spread::of(fitting().map(of));
            table.row([
                name.to_owned(),
                median(of(|dead| dead.queued as f64)),
                median(of(|dead| dead.before)),
                median(of(|dead| dead.after)),
                median(of(|dead| dead.after / dead.before)),
                median(of(|dead| dead.cpu_seconds_per_1000)),
                fitting().map(|dead| dead.missing).sum::<u64>().to_string(),
            ]);
        }
        table
    }
}

fn median(spread: Option<Spread>) -> String {
    figure(spread.map(|spread| spread.median))
}

fn range(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || crate::table::NONE.to_owned(),
        |s| format!("{}–{}", figure(Some(s.min)), figure(Some(s.max))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(target: &str, round: u16, relayed_per_second: f64, cpu: f64) -> Run {
        Run {
            target: target.into(),
            cell: Cell {
                messages: 5_000,
                domains: 1,
            },
            round,
            accepted_per_second: 2.0 * relayed_per_second,
            seconds: 1.0,
            relayed_per_second,
            cpu_seconds_per_1000: cpu,
            refused: 0,
            missing: u64::from(round),
            connections: 5,
        }
    }

    #[test]
    fn medians_and_ratios() {
        let mut found = Found::default();
        for (round, rate) in [(1, 100.0), (2, 300.0), (3, 200.0)] {
            found.runs.push(run("posthaste", round, rate, 0.2));
            found.runs.push(run("postfix", round, rate / 10.0, 2.0));
        }
        let text = found.markdown();
        assert!(
            text.contains(
                "| posthaste | 5000 | 1 | 200 | 100–300 | 400 | 0.200 | 0.200–0.200 | 5.00 | 0 | 6 |"
            ),
            "{text}"
        );
        assert!(text.contains("| postfix | 5000 | 1 | 10.0 | 0.100 |"), "{text}");
        assert!(!text.contains("dead"));
        found.dead.push(Dead {
            target: "posthaste".into(),
            round: 1,
            queued: 1_000,
            before: 100.0,
            after: 90.0,
            missing: 0,
            cpu_seconds_per_1000: 0.1,
        });
        let text = found.markdown();
        assert!(
            text.contains("| posthaste | 1000 | 100 | 90.0 | 0.900 | 0.100 | 0 |"),
            "{text}"
        );
    }
}
