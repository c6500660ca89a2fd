//! What is wrong with a settings file: where, what, and what was probably meant.

use super::reference;
use std::fmt;
use std::path::{Path, PathBuf};

/// A settings file that cannot be used.
#[derive(Debug)]
pub struct Problem {
    path: PathBuf,
    line: Option<(usize, String)>,
    text: String,
    hint: Option<String>,
}

impl std::error::Error for Problem {}

impl Problem {
    /// A problem without a line.
    pub fn said(path: &Path, text: String) -> Self {
        Self {
            path: path.to_owned(),
            line: None,
            text,
            hint: None,
        }
    }

    /// From the TOML reader's error: adds the line, and the nearest key when one is unknown.
    pub fn from_toml(path: &Path, source: &str, error: &toml::de::Error) -> Self {
        let line = error.span().map(|span| {
            let number = source.as_bytes()[..span.start.min(source.len())]
                .iter()
                .filter(|b| **b == b'\n')
                .count();
            (number + 1, source.lines().nth(number).unwrap_or("").to_owned())
        });
        let message = error.message();
        let unknown = message
            .strip_prefix("unknown field `")
            .and_then(|rest| rest.split('`').next());
        let hint = match unknown {
            Some(key) => nearest_key(key).map(|key| format!("did you mean `{key}`?")),
            None if message.contains("socket address") => {
                Some("write an address and a port, such as \"127.0.0.1:2525\" or \"[::]:25\"".to_owned())
            }
            None => None,
        };
        Self {
            path: path.to_owned(),
            line,
            text: message.to_owned(),
            hint,
        }
    }
}

fn nearest_key(unknown: &str) -> Option<&'static str> {
    reference::names()
        .map(|key| (strsim::damerau_levenshtein(unknown, key), key))
        .min()
        // In a short word three wrong letters are another word.
        .filter(|(distance, _)| *distance <= (unknown.len() / 3).clamp(1, 3))
        .map(|(_, key)| key)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((number, line)) = &self.line {
            write!(f, ", line {number}: {}\n    {}", self.text, line.trim())?;
        } else {
            write!(f, ": {}", self.text)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n    {hint}")?;
        }
        Ok(())
    }
}
