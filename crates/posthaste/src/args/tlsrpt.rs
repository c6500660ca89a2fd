//! `posthaste tlsrpt`, as clap reads it.

use clap::Subcommand;

#[derive(Subcommand, Debug)]
pub enum Tlsrpt {
    /// List the reports that other servers sent about our domains, the newest first.
    List {
        /// About this domain alone.
        #[arg(long)]
        domain: Option<mail::Domain>,
        /// Reports to list at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
    /// Tell in words who could not deliver to us over TLS, how often, why, and what to change.
    Show {
        /// About this domain alone.
        #[arg(long)]
        domain: Option<mail::Domain>,
        /// Reports to look through at most, the newest first.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Tell also of the reports in which nothing failed.
        #[arg(long)]
        all: bool,
    },
    /// Show what was counted here of conversations with other servers, for the reports to them.
    Outgoing {
        /// Of today alone, not of past days whose reports are still due.
        #[arg(long)]
        today: bool,
        /// Domains to list at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
}
