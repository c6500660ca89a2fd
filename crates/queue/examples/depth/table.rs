//! The figures as tables for people, or as one JSON object.

use crate::measure::Row;
use crate::start::Start;
use serde_json::{Value, json};

/// A figure of a row: its name, its unit, the figure.
type Figure = (&'static str, &'static str, f64);

fn figures(row: &Row) -> Vec<Figure> {
    let filled = row.filled.messages.max(1) as f64;
    let mut all = vec![
        (
            "fill: rate",
            "/s",
            filled / row.filled.wall.as_secs_f64().max(1e-9),
        ),
        (
            "fill: CPU a message",
            "µs",
            row.filled.cpu.as_secs_f64() * 1e6 / filled,
        ),
        (
            "fill: written a message",
            "octets",
            row.filled.written as f64 / filled,
        ),
    ];
    let (new, backlog) = (&row.new, &row.backlog);
    all.extend([
        ("new: accept one", "µs", new.accept),
        ("new: pick 200 due", "µs", new.pick),
        ("new: pick 200 due, CPU", "µs", new.pick_cpu),
        ("new: claim one", "µs", new.claim),
        ("new: settle one", "µs", new.settle),
        ("new: a whole life", "µs", new.life),
        ("new: a life, CPU", "µs", new.life_cpu),
        ("new: a life, written", "octets", new.life_written),
        ("backlog: accept one", "µs", backlog.accept),
        ("backlog: pick 200 due", "µs", backlog.pick),
        ("backlog: pick 200 due, CPU", "µs", backlog.pick_cpu),
        ("backlog: claim one", "µs", backlog.claim),
        ("backlog: settle one", "µs", backlog.settle),
        ("backlog: a whole life", "µs", backlog.life),
        ("backlog: a life, CPU", "µs", backlog.life_cpu),
        ("backlog: a life, written", "octets", backlog.life_written),
    ]);
    all.extend([
        ("when is the next due", "µs", row.next_due),
        ("release one", "µs", row.release),
        ("list the first 100", "µs", row.list),
        ("totals", "µs", row.stats),
        (
            "memory, anonymous",
            "MiB",
            row.memory.anonymous as f64 / 1_048_576.0,
        ),
        (
            "memory, resident",
            "MiB",
            row.memory.resident as f64 / 1_048_576.0,
        ),
        ("disk", "MiB", row.disk as f64 / 1_048_576.0),
    ]);
    all
}

/// Tells that a depth is done.
pub(crate) fn progress_row(row: &Row) {
    eprintln!(
        "{} messages: CPU of a life {:.0} µs for new mail, {:.0} µs in the backlog; {} of memory",
        grouped(row.depth),
        row.new.life_cpu,
        row.backlog.life_cpu,
        octets(row.memory.anonymous)
    );
}

/// Prints the tables.
pub(crate) fn print(rows: &[Row], starts: &[Start]) {
    let columns: Vec<Vec<Figure>> = rows.iter().map(figures).collect();
    print!("{:<28}{:>8}", "messages queued", "");
    for row in rows {
        print!("{:>14}", grouped(row.depth));
    }
    println!("{:>10}", "last/first");
    let (Some(first), Some(last)) = (columns.first(), columns.last()) else {
        return;
    };
    for (i, (name, unit, at_first)) in first.iter().enumerate() {
        print!("{name:<28}{unit:>8}");
        for column in &columns {
            print!("{:>14.1}", column[i].2);
        }
        println!("{:>10.2}", last[i].2 / at_first.max(1e-9));
    }
    println!();
    println!(
        "{:<34}{:>10}{:>10}{:>10}{:>10}{:>8}",
        "start, ms", "open", "recover", "pick", "all", "leases"
    );
    for s in starts {
        println!(
            "{:<34}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>8}",
            s.how, s.open, s.recover, s.pick, s.all, s.leases
        );
    }
}

/// The same as one object.
pub(crate) fn json(rows: &[Row], starts: &[Start]) -> Value {
    let of = |row: &Row| {
        let mut object = serde_json::Map::new();
        object.insert("messages".to_owned(), json!(row.depth));
        for (name, unit, figure) in figures(row) {
            object.insert(format!("{name} ({unit})"), json!(figure));
        }
        Value::Object(object)
    };
    let start = |s: &Start| json!({"how": s.how, "open_ms": s.open, "recover_ms": s.recover, "pick_ms": s.pick, "all_ms": s.all, "leases": s.leases});
    json!({
        "depths": rows.iter().map(of).collect::<Vec<_>>(),
        "starts": starts.iter().map(start).collect::<Vec<_>>(),
    })
}

/// 1000000 as 1,000,000.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Octets as people read them.
pub(crate) fn octets(n: u64) -> String {
    format!("{:.1} MiB", n as f64 / 1_048_576.0)
}
