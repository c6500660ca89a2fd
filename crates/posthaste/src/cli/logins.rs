//! `posthaste account log`, as people read it.

use super::out::outln;
use admin::words::LoginRow;
use mail::date;

/// Prints a login log: a line for each entry, and below it what to change.
pub fn log(rows: &[LoginRow]) {
    if rows.is_empty() {
        return outln!("no login is recorded");
    }
    for row in rows {
        let protocol = match row.protocol {
            directory::Protocol::Smtp => "smtp",
            directory::Protocol::Imap => "imap",
            directory::Protocol::Pop3 => "pop3",
        };
        let often = match row.count {
            1 => String::new(),
            n => format!(" ({n} times since {})", date::iso8601(row.first)),
        };
        outln!(
            "{} {} {protocol} {} {}: {}{often}",
            date::iso8601(row.last),
            row.peer,
            mail::trace::printable(&row.mechanism),
            mail::trace::printable(&row.user),
            mail::trace::printable(&row.outcome),
        );
        if let Some(advice) = &row.advice {
            outln!("    {advice}");
        }
    }
}
