//! `posthaste block` and `posthaste suppression`, as clap reads them.

use clap::Subcommand;
use mail::EmailAddress;
use std::time::Duration;

#[derive(Subcommand, Debug)]
pub enum Block {
    /// List the blocks that are in force.
    List,
    /// Shut an address, a network or a login out for a time.
    Add {
        /// 192.0.2.1, 192.0.2.0/24, 2001:db8::/64 or user@example.com
        subject: limits::Subject,
        /// For how long: a number with s, m, h or d behind it.
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = duration)]
        lasts: Duration,
        /// Why; whoever is shut out is told.
        #[arg(long, default_value = "by order of the operator")]
        why: String,
    },
    /// Let it in again, and forget what had led to the block.
    Remove {
        /// As `block list` shows it.
        subject: limits::Subject,
    },
}

#[derive(Subcommand, Debug)]
pub enum Suppression {
    /// List the suppressed addresses, with the server that refused each and its words.
    List,
    /// Let an address be tried again.
    Remove {
        address: EmailAddress,
        /// For that login or @domain alone, as `suppression list` shows it.
        #[arg(long)]
        sender: Option<String>,
    },
}

/// Reads `90s`, `15m`, `1h`, `7d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and s, m, h or d, such as 90s, 15m, 1h or 7d".to_owned();
    let (digits, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let secs = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let n: u64 = digits.parse().map_err(|_| wrong())?;
    n.checked_mul(secs).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, secs) in [("90s", 90), ("15m", 900), ("1h", 3_600), ("7d", 604_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(secs)));
        }
        for wrong in ["", "h", "1", "1w", "-1h", "1.5h", "99999999999999999999d", "1é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
