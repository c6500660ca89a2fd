//! `[mailbox]`: what an account may keep.

use serde::{Deserialize, Serialize};

/// `[mailbox]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mailbox {
    /// Octets; 0: any amount.
    pub quota_default_octets: u64,
}

impl Mailbox {
    /// The quota of accounts that have none of their own.
    pub fn quota_default(&self) -> Option<u64> {
        Some(self.quota_default_octets).filter(|octets| *octets > 0)
    }
}
