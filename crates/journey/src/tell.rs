//! The journey in words: each step a plain sentence, what decided it, and what would change it.
//! Pure: the same records always tell the same story.

use crate::words::{step_of, summary_of};
use crate::{Event, Record};
use mail::{Timestamp, date};
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
    /// The event that is told, for machines.
    pub event: Event,
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
    /// Lines for people: the summary, then each step with its time, its reasons and what to change
    /// indented below it. What strangers wrote holds no control characters here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary)?;
        for step in &self.steps {
            writeln!(f, "{}  {}", date::iso8601(step.at), step.text)?;
            for because in &step.because {
                writeln!(f, "    because: {because}")?;
            }
            if let Some(remedy) = &step.remedy {
                writeln!(f, "    to change this: {remedy}")?;
            }
        }
        Ok(())
    }
}

/// Tells the events of one message, in order.
#[must_use]
pub fn tell(records: &[Record]) -> Story {
    Story {
        summary: summary_of(records),
        steps: records.iter().map(step_of).collect(),
    }
}
