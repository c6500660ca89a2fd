//! `[[webhook]]`: web addresses that hear of delivery events.

use super::reference::{Key, key};
use mail::{Domain, Secret};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use webhook::{ENDPOINTS_MAX, Endpoint, Kind, Url};

/// Octets of a secret at least and at most.
const SECRET_OCTETS: std::ops::RangeInclusive<usize> = 16..=1_000;

/// One web address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub name: String,
    pub url: String,
    pub secret_file: PathBuf,
    #[serde(default = "all_kinds")]
    pub events: Vec<Kind>,
    #[serde(default)]
    pub from_domains: Vec<Domain>,
}

fn all_kinds() -> Vec<Kind> {
    Kind::ALL.to_vec()
}

impl Webhook {
    /// What is wrong with it, without a look at its secret.
    pub fn check(&self) -> Result<Url, String> {
        if let Some(why) = Endpoint::name_problem(&self.name) {
            return Err(format!("webhook: {why}"));
        }
        let said = |what: &str| format!("webhook \"{}\": {what}", self.name);
        if self.events.is_empty() {
            return Err(said("events is empty: it would never hear of anything"));
        }
        Url::parse(&self.url).map_err(|why| said(&format!("url = {why}")))
    }

    /// The endpoint, with its secret.
    pub fn endpoint(&self) -> Result<Endpoint, String> {
        let url = self.check()?;
        Ok(Endpoint {
            name: self.name.clone(),
            url,
            secret: secret(&self.name, &self.secret_file)?,
            events: self.events.clone(),
            from_domains: self.from_domains.clone(),
        })
    }
}

/// What is wrong with all of them together.
pub fn check(webhooks: &[Webhook]) -> Result<(), String> {
    if webhooks.len() > ENDPOINTS_MAX {
        return Err(format!("webhook: there may be {ENDPOINTS_MAX} of them at most"));
    }
    for (i, webhook) in webhooks.iter().enumerate() {
        webhook.check()?;
        if webhooks[..i].iter().any(|other| other.name == webhook.name) {
            return Err(format!("webhook: two have the name \"{}\"", webhook.name));
        }
    }
    Ok(())
}

/// The endpoints with their secrets.
pub fn endpoints(webhooks: &[Webhook]) -> Result<Vec<Endpoint>, String> {
    webhooks.iter().map(Webhook::endpoint).collect()
}

/// The first line of a file, so that it stands in no settings file that somebody shows around.
fn secret(name: &str, file: &Path) -> Result<Secret, String> {
    let wrong = |what: &str| format!("webhook \"{name}\": secret_file = {}: {what}", file.display());
    let text = std::fs::read_to_string(file).map_err(|e| wrong(&e.to_string()))?;
    let line = text.lines().next().unwrap_or("").trim();
    match SECRET_OCTETS.contains(&line.len()) {
        true => Ok(Secret::new(line)),
        false => Err(wrong(
            "its first line must have 16 to 1,000 octets; make one with: openssl rand -hex 32",
        )),
    }
}

/// The keys inside a table, for who misspelt one.
pub const NAMES: &[&str] = &["name", "url", "secret_file", "events", "from_domains"];

/// Meaning and default.
pub const KEYS: &[Key] = &[key(
    "webhook",
    "[]",
    "Web addresses that hear of delivery events, four at most: tables `[[webhook]]` with `name` (lower-case letters, digits, hyphens), `url` (`https://…`; `http://` to this machine only), `secret_file` (its first line signs the requests), `events` (`[\"received\", \"delivered\", \"relayed\", \"deferred\", \"bounced\", \"expired\", \"dropped\"]`, all by default), `from_domains` (only of mail from these domains). `docs/WEBHOOKS.md` has the format and how to check the signature.",
)];

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use std::path::Path;

    fn parsed(text: &str) -> Result<Settings, String> {
        Settings::parse(text, Path::new("x")).map_err(|e| e.to_string())
    }

    #[test]
    fn three_keys_are_enough() {
        let text = "[[webhook]]\nname = \"crm\"\nurl = \"https://crm.example.com/x\"\nsecret_file = \"s\"\n";
        let settings = parsed(text).unwrap();
        assert_eq!(settings.webhook[0].events.len(), 7);
        let folder = tempfile::tempdir().unwrap();
        let mut webhook = settings.webhook[0].clone();
        webhook.secret_file = folder.path().join("s");
        assert!(webhook.endpoint().unwrap_err().contains("No such file"));
        std::fs::write(&webhook.secret_file, "short\n").unwrap();
        assert!(webhook.endpoint().unwrap_err().contains("openssl rand"));
        std::fs::write(&webhook.secret_file, "0123456789abcdef\nmore\n").unwrap();
        let secret = webhook.endpoint().unwrap().secret;
        assert_eq!(secret.expose(), "0123456789abcdef");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let one = |more: &str| {
            format!(
                "[[webhook]]\nname = \"crm\"\nurl = \"https://a.example/\"\nsecret_file = \"s\"\n{more}\n"
            )
        };
        for (text, part) in [
            (one("events = []"), "never hear"),
            (one("events = [\"opened\"]"), "opened"),
            (one("from_domain = []"), "from_domain"),
            (one("").replace("crm", "C R M"), "lower-case"),
            (one("").replace("https", "http"), "this machine"),
            (one("").repeat(2), "two have the name"),
        ] {
            let shown = parsed(&text).unwrap_err();
            assert!(shown.contains(part), "{text}: {shown}");
        }
    }
}
