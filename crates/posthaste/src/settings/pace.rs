//! `[[deliver.limit]]`: how much at most goes to some sites, and how fast.

use serde::{Deserialize, Serialize};

/// Connections to one site at most, whatever a limit says: more would be an attack.
const CONNECTIONS_MAX: usize = 1_000;

/// `[[deliver.limit]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    pub domain: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_minute: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_per_minute: Option<u32>,
}

impl Limit {
    /// The limit, where `connections` are allowed by default; or what is wrong with it.
    pub fn limit(&self, connections: usize) -> Result<deliver::SiteLimit, String> {
        let of = deliver::RouteFor::parse(&self.domain)
            .map_err(|e| format!("deliver.limit: domain = \"{}\": {e}", self.domain))?;
        let connections_max = self.connections.unwrap_or(connections);
        if !(1..=CONNECTIONS_MAX).contains(&connections_max) {
            return Err(format!(
                "deliver.limit for \"{}\": connections must be from 1 to {CONNECTIONS_MAX}",
                self.domain
            ));
        }
        if self.messages_per_minute == Some(0) || self.connections_per_minute == Some(0) {
            return Err(format!(
                "deliver.limit for \"{}\": a rate must be at least 1 a minute; leave it out for no limit",
                self.domain
            ));
        }
        Ok(deliver::SiteLimit {
            of,
            limits: deliver::control::Limits {
                connections_max,
                messages_per_minute: self.messages_per_minute,
                connections_per_minute: self.connections_per_minute,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_checked() {
        let read = |text: &str| toml::from_str::<Limit>(text).unwrap().limit(20);
        let limit = read("domain = \".google.com\"\nmessages_per_minute = 600").unwrap();
        assert_eq!(limit.of.to_string(), ".google.com");
        assert_eq!(
            (limit.limits.connections_max, limit.limits.messages_per_minute),
            (20, Some(600))
        );
        assert_eq!(
            read("domain = \"*\"\nconnections = 5")
                .unwrap()
                .limits
                .connections_max,
            5
        );
        for (text, word) in [
            ("domain = \"a b\"", "domain"),
            ("domain = \"*\"\nconnections = 0", "connections"),
            ("domain = \"*\"\nmessages_per_minute = 0", "rate"),
        ] {
            let wrong = read(text).unwrap_err();
            assert!(wrong.contains(word), "{wrong}");
        }
    }
}
