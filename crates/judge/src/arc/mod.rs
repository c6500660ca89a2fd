//! Authenticated Received Chain (RFC 8617): what earlier handlers saw, vouched for link by link.
//!
//! Promises: the chain is judged whole, by RFC 8617 §5.2: structure, then the newest message
//! signature, then every seal. Never: more than [`SETS_MAX`] sets. A chain that passes says only
//! that its sealers said so; whom to believe is policy ([`crate::judgement::Policy`]).

mod seal;
mod set;
mod verify;

pub use seal::{SealError, Sealer};
pub use verify::verify;

use mail::Domain;
use std::fmt;

/// ARC sets of one message at most (RFC 8617 §4.2.1).
pub const SETS_MAX: u32 = 50;

/// A result of ARC (RFC 8617 §4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ArcResult {
    /// No chain.
    None,
    /// The chain is whole.
    Pass,
    /// The chain is broken.
    Fail,
    /// A key could not be fetched; trying later can help.
    TempError,
}

impl ArcResult {
    /// The name of the result in header fields.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ArcResult::None => "none",
            ArcResult::Pass => "pass",
            ArcResult::Fail => "fail",
            ArcResult::TempError => "temperror",
        }
    }
}

impl fmt::Display for ArcResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One ARC set: who sealed it and what was found.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct ArcSetOutcome {
    /// Its number in the chain, from 1.
    pub instance: u32,
    /// The domain of the seal (`d=` of ARC-Seal).
    pub sealer: Option<Domain>,
    /// What the sealer found of the chain before (`cv=`).
    pub chain_validation: Option<String>,
    /// The authentication results that the sealer recorded, without the instance tag.
    pub authentication_results: String,
    /// Whether the message signature holds; `None` when it was not looked at.
    pub message_signature_holds: Option<bool>,
    /// Whether the seal holds; `None` when it was not looked at.
    pub seal_holds: Option<bool>,
}

/// A result and all that led to it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct ArcOutcome {
    /// The result.
    pub result: ArcResult,
    /// The sets, oldest first, as far as they could be told apart.
    pub sets: Vec<ArcSetOutcome>,
    /// The oldest set whose message signature still holds without a gap to the newest; 0 when
    /// all do (RFC 8617 §5.2 step 5).
    pub oldest_pass: Option<u32>,
    /// What is wrong with the chain, in words.
    pub problem: Option<String>,
    /// What was done, in words and in order.
    pub steps: Vec<String>,
}

impl ArcOutcome {
    /// The domain of the newest seal.
    #[must_use]
    pub fn last_sealer(&self) -> Option<&Domain> {
        self.sets.last().and_then(|s| s.sealer.as_ref())
    }

    /// Why the result is what it is, as one sentence without a full stop.
    #[must_use]
    pub fn because(&self) -> String {
        match (&self.problem, self.result) {
            (Some(problem), _) => crate::words::printable(problem),
            (None, ArcResult::None) => "there is no chain".to_owned(),
            (None, _) => format!(
                "all {} seals and the newest message signature hold",
                self.sets.len()
            ),
        }
    }

    /// The whole way to the result, in lines for people.
    #[must_use]
    pub fn explain(&self) -> Vec<String> {
        let mut lines = vec![format!("ARC: {}", self.result)];
        lines.extend(
            self.steps
                .iter()
                .map(|s| format!("  {}", crate::words::printable(s))),
        );
        lines.push(format!("  {} because {}", self.result, self.because()));
        lines
    }
}
