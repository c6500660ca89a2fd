//! `posthaste mta-sts`, as clap reads it.

use clap::Subcommand;
use mail::Domain;

#[derive(Subcommand, Debug)]
pub enum MtaSts {
    /// List the domains whose policies are remembered, until when they hold, and what was wrong.
    List,
    /// Show what is remembered of a domain: its policy and the last fetch.
    Show { domain: Domain },
    /// Fetch a domain's policy now (the server must run).
    Refresh { domain: Domain },
    /// Print the policy that a domain of ours publishes, as it is served.
    Policy { domain: Domain },
}
