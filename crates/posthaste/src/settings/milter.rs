//! `[[milter]]`: content filters, in the order in which they are asked.

use super::reference::{Key, key};
use receive::{Filter, FilterAddress};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One content filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Milter {
    pub name: String,
    pub address: String,
    #[serde(default = "services")]
    pub services: Vec<Service>,
    #[serde(default)]
    pub on_failure: OnFailure,
    #[serde(default)]
    pub when: When,
    #[serde(default = "connect_timeout_secs")]
    pub connect_timeout_secs: u64,
    #[serde(default = "command_timeout_secs")]
    pub command_timeout_secs: u64,
    #[serde(default = "content_timeout_secs")]
    pub content_timeout_secs: u64,
}

/// A service whose mail is filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    Smtp,
    Submission,
    Submissions,
    Lmtp,
}

/// What a filter's failure means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    #[default]
    Defer,
    Accept,
    Refuse,
}

/// When a filter sees a stranger's message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    #[default]
    Before,
    After,
}

fn services() -> Vec<Service> {
    vec![Service::Smtp, Service::Submission, Service::Submissions]
}

fn connect_timeout_secs() -> u64 {
    10
}

fn command_timeout_secs() -> u64 {
    30
}

fn content_timeout_secs() -> u64 {
    300
}

impl Milter {
    /// The filter as reception takes it, or what is wrong with it.
    pub fn filter(&self) -> Result<Filter, String> {
        let said = |what: &str| Err(format!("milter \"{}\": {what}", self.name));
        if self.name.is_empty() || self.name.chars().any(char::is_control) {
            return Err("milter: name must not be empty, nor hold control characters".to_owned());
        }
        if self.services.is_empty() {
            return said("services is empty: it would never be asked");
        }
        // A client waits ten minutes for the answer to its message (RFC 5321 §4.5.3.2.6).
        let timeouts = [
            ("connect_timeout_secs", self.connect_timeout_secs, 300),
            ("command_timeout_secs", self.command_timeout_secs, 150),
            ("content_timeout_secs", self.content_timeout_secs, 300),
        ];
        for (key, secs, secs_max) in timeouts {
            if !(1..=secs_max).contains(&secs) {
                return said(&format!("{key} must be from 1 to {secs_max}"));
            }
        }
        let address = match FilterAddress::parse(&self.address) {
            Ok(address) => address,
            Err(why) => return said(&format!("address = \"{}\": {why}", self.address)),
        };
        let roles = self.services.iter().map(|service| match service {
            Service::Smtp => smtp::Role::Mta,
            Service::Submission => smtp::Role::Submission,
            Service::Submissions => smtp::Role::Submissions,
            Service::Lmtp => smtp::Role::Lmtp,
        });
        Ok(Filter {
            roles: roles.collect(),
            on_failure: match self.on_failure {
                OnFailure::Defer => receive::OnFailure::Defer,
                OnFailure::Accept => receive::OnFailure::Accept,
                OnFailure::Refuse => receive::OnFailure::Refuse,
            },
            when: match self.when {
                When::Before => receive::When::Before,
                When::After => receive::When::After,
            },
            connect_timeout: Duration::from_secs(self.connect_timeout_secs),
            command_timeout: Duration::from_secs(self.command_timeout_secs),
            content_timeout: Duration::from_secs(self.content_timeout_secs),
            ..Filter::new(self.name.clone(), address)
        })
    }
}

/// The keys inside a table, for who misspelt one.
pub const NAMES: &[&str] = &[
    "name",
    "address",
    "services",
    "on_failure",
    "when",
    "connect_timeout_secs",
    "command_timeout_secs",
    "content_timeout_secs",
];

/// Meaning and default.
pub const KEYS: &[Key] = &[key(
    "milter",
    "[]",
    "Content filters, asked in this order: tables `[[milter]]` with `name`, `address` (`\"inet:host:port\"` or `\"unix:/path\"`), `services` (`[\"smtp\", \"submission\", \"submissions\"]`; also `\"lmtp\"`), `on_failure` (`\"defer\"`, `\"accept\"` or `\"refuse\"` when the filter cannot be asked), `when` (`\"before\"` our own judging of strangers' mail, or `\"after\"`), `connect_timeout_secs` (10), `command_timeout_secs` (30), `content_timeout_secs` (300). `docs/MILTERS.md` has recipes for rspamd, OpenDKIM and ClamAV.",
)];

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;
    use std::path::Path;

    fn parsed(text: &str) -> Result<Vec<Milter>, String> {
        Settings::parse(text, Path::new("x"))
            .map(|s| s.milter)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn two_keys_are_enough() {
        let text = "[[milter]]\nname = \"rspamd\"\naddress = \"inet:localhost:11332\"\n";
        let milters = parsed(text).unwrap();
        let filter = milters[0].filter().unwrap();
        let address = FilterAddress::parse("inet:localhost:11332").unwrap();
        let expected = Filter::new("rspamd", address);
        assert_eq!(
            format!("{filter:?}"),
            format!("{expected:?}"),
            "the same defaults"
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (key, part) in [
            ("address = \"localhost:1\"", "inet:host:port"),
            ("address = \"inet:a:1\"\nservices = []", "never be asked"),
            (
                "address = \"inet:a:1\"\ncontent_timeout_secs = 301",
                "from 1 to 300",
            ),
            ("address = \"inet:a:1\"\non_failure = \"ignore\"", "on_failure"),
            ("address = \"inet:a:1\"\nservices = [\"imap\"]", "imap"),
            ("address = \"inet:a:1\"\nfoo = 1", "foo"),
        ] {
            let shown = parsed(&format!("[[milter]]\nname = \"x\"\n{key}\n")).unwrap_err();
            assert!(shown.contains(part), "{key}: {shown}");
        }
    }
}
