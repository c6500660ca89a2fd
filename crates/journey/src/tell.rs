//! The journey in words: each step a plain sentence, what decided it, and what would change it.

use crate::Record;
use mail::Timestamp;
use serde::Serialize;
use std::fmt;

/// One step in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Step {
    /// When.
    pub at: Timestamp,
    /// What happened: one sentence.
    pub text: String,
    /// What was known and which rule decided, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
    /// What would change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// A message's way in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Story {
    /// How it stands or ended, in one sentence.
    pub summary: String,
    /// The steps in order.
    pub steps: Vec<Step>,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = f;
        todo!()
    }
}

/// Tells the events of one message, in order.
#[must_use]
pub fn tell(records: &[Record]) -> Story {
    let _ = records;
    todo!()
}
