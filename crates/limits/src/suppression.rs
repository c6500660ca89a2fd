//! Suppression: an address that a server refused as unknown is not tried again for the sender that wrote
//! to it, for some days. For bulk senders, whose standing suffers from such mail; off unless it is set.
//!
//! Promises: what is suppressed is in the batch that ends the errand, so both are true or neither; it
//! ends by itself. Never: a decision about what a reply means.

use crate::usage::{decode, encode};
use crate::{Error, Limits, PAGE, WHY_OCTETS_MAX, keys};
use mail::{EmailAddress, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use store::Batch;

/// Entries that a listing answers at once at most.
pub const SUPPRESSED_ROWS_MAX: usize = 1_000;

/// For whom addresses are suppressed, and how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suppression {
    /// Logins such as `news@example.com`, each with a list of its own; domains such as `@example.com`,
    /// whose logins share one; `*` for every login, each with its own. Default: none.
    pub senders: Vec<String>,
    /// How long. Default 30 days.
    pub lasts: Duration,
}

impl Default for Suppression {
    fn default() -> Self {
        Self {
            senders: Vec::new(),
            lasts: Duration::from_secs(30 * 86_400),
        }
    }
}

impl Suppression {
    /// Whose list holds for a login; none where nothing is suppressed for it.
    #[must_use]
    pub fn list_of(&self, login: &str) -> Option<String> {
        let login = login.to_lowercase();
        let named = |what: &str| self.senders.iter().any(|sender| sender.to_lowercase() == what);
        if named(&login) {
            return Some(login);
        }
        let domain = login.rfind('@').map(|at| login[at..].to_owned());
        match domain.filter(|domain| named(domain)) {
            Some(domain) => Some(domain),
            None => named("*").then_some(login),
        }
    }
}

/// An address that is not written to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Suppressed {
    /// Whose list it is on: a login, or `@domain`.
    pub sender: String,
    /// The address.
    pub recipient: String,
    /// Since when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// The server that refused it.
    pub host: String,
    /// Its words.
    pub reply: String,
}

impl Limits {
    /// Adds to the batch that an address is suppressed for a login; nothing where that is off.
    ///
    /// # Errors
    /// When it could not be written as a value.
    pub fn suppress(
        &self,
        batch: &mut Batch,
        login: &str,
        recipient: &EmailAddress,
        (host, reply): (&str, &str),
        now: Timestamp,
    ) -> Result<(), Error> {
        let rules = &self.shared.options.suppression;
        let Some(sender) = rules.list_of(login) else {
            return Ok(());
        };
        let key = keys::suppressed(&sender, &recipient.folded());
        let suppressed = Suppressed {
            sender,
            recipient: recipient.to_string(),
            from: now,
            until: now.plus(rules.lasts),
            host: cut(host),
            reply: cut(reply),
        };
        batch.put(key.clone(), encode(&key, &suppressed)?);
        Ok(())
    }

    /// Whether an address is suppressed for a login now.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn suppressed(
        &self,
        login: &str,
        recipient: &EmailAddress,
        now: Timestamp,
    ) -> Result<Option<Suppressed>, Error> {
        let Some(sender) = self.shared.options.suppression.list_of(login) else {
            return Ok(None);
        };
        let key = keys::suppressed(&sender, &recipient.folded());
        let Some(stored) = self.shared.store.snapshot().await?.get(&key).await? else {
            return Ok(None);
        };
        let found: Suppressed = decode(&key, &stored.value)?;
        Ok(Some(found).filter(|found| found.until > now))
    }

    /// Some of what is suppressed, by sender and address, behind one of them; with those that are over.
    /// At most [`SUPPRESSED_ROWS_MAX`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn suppressions(&self, behind: Option<(&str, &str)>) -> Result<Vec<Suppressed>, Error> {
        let mut range = keys::suppressions().prefix_range();
        if let Some((sender, recipient)) = behind {
            range = range.after(&keys::suppressed(sender, &folded(recipient)));
        }
        let snapshot = self.shared.store.snapshot().await?;
        let rows = snapshot.scan(&range, SUPPRESSED_ROWS_MAX).await?;
        rows.iter()
            .map(|(key, stored)| decode(key, &stored.value))
            .collect()
    }

    /// Ends the suppression of an address, for one sender or for all. How many there were.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn unsuppress(&self, sender: Option<&str>, recipient: &EmailAddress) -> Result<usize, Error> {
        let mut batch = Batch::new();
        let wanted = recipient.folded();
        let mut count = 0;
        let mut take = |key| {
            batch.delete(key);
            count += 1;
        };
        if let Some(sender) = sender {
            let key = keys::suppressed(&sender.to_lowercase(), &wanted);
            if self.shared.store.snapshot().await?.get(&key).await?.is_some() {
                take(key);
            }
        } else {
            let mut behind: Option<(String, String)> = None;
            loop {
                let page = self
                    .suppressions(behind.as_ref().map(|(s, r)| (s.as_str(), r.as_str())))
                    .await?;
                let Some(last) = page.last() else { break };
                behind = Some((last.sender.clone(), last.recipient.clone()));
                for one in page.iter().filter(|one| folded(&one.recipient) == wanted) {
                    take(keys::suppressed(&one.sender, &wanted));
                }
            }
        }
        if count > 0 {
            self.shared.store.commit(batch).await?;
        }
        Ok(count)
    }

    /// Forgets what is over.
    pub(crate) async fn forget_suppressed(&self, now: Timestamp) -> Result<(), Error> {
        let snapshot = self.shared.store.snapshot().await?;
        let mut range = keys::suppressions().prefix_range();
        loop {
            let rows = snapshot.scan(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            range = range.after(last);
            let mut batch = Batch::new();
            for (key, stored) in &rows {
                let one: Suppressed = decode(key, &stored.value)?;
                if one.until <= now {
                    batch.delete(key.clone());
                }
            }
            if !batch.is_empty() {
                self.shared.store.commit(batch).await?;
            }
        }
    }
}

fn folded(recipient: &str) -> String {
    EmailAddress::parse(recipient).map_or_else(|_| recipient.to_owned(), |address| address.folded())
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(WHY_OCTETS_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use store::{MemoryStore, Tables as _};

    fn address(text: &str) -> EmailAddress {
        EmailAddress::parse(text).unwrap()
    }

    #[test]
    fn whose_list_holds() {
        let rules = |senders: &[&str]| Suppression {
            senders: senders.iter().map(|s| (*s).to_owned()).collect(),
            ..Suppression::default()
        };
        for (senders, login, wanted) in [
            (&[][..], "news@example.com", None),
            (
                &["News@example.com"],
                "news@Example.com",
                Some("news@example.com"),
            ),
            (&["news@example.com"], "bob@example.com", None),
            (&["@example.com"], "bob@example.com", Some("@example.com")),
            (&["@example.com"], "bob@sub.example.com", None),
            (
                &["@example.com", "news@example.com"],
                "news@example.com",
                Some("news@example.com"),
            ),
            (&["*"], "bob@example.com", Some("bob@example.com")),
        ] {
            assert_eq!(
                rules(senders).list_of(login).as_deref(),
                wanted,
                "{senders:?} {login}"
            );
        }
    }

    #[tokio::test]
    async fn an_entry_holds_and_ends() {
        let store = MemoryStore::new();
        let options = Options {
            suppression: Suppression {
                senders: vec!["@example.com".to_owned()],
                lasts: Duration::from_secs(100),
            },
            ..Options::default()
        };
        let limits = Limits::new(store.clone(), options);
        let at = Timestamp::from_secs;
        let gone = address("Gone@Example.net");
        let mut batch = Batch::new();
        let said = ("mx.example.net", "550 5.1.1 no such user");
        limits
            .suppress(&mut batch, "news@example.com", &gone, said, at(0))
            .unwrap();
        limits
            .suppress(&mut batch, "eve@example.org", &gone, said, at(0))
            .unwrap();
        store.commit(batch).await.unwrap();
        let found = limits
            .suppressed("bob@example.com", &address("gone@example.net"), at(99))
            .await;
        let found = found.unwrap().unwrap();
        assert_eq!(
            (found.sender.as_str(), found.host.as_str()),
            ("@example.com", "mx.example.net")
        );
        for (login, recipient, now) in [
            ("bob@example.com", "gone@example.net", 100),
            ("eve@example.org", "gone@example.net", 1),
            ("bob@example.com", "there@example.net", 1),
        ] {
            let found = limits
                .suppressed(login, &address(recipient), at(now))
                .await
                .unwrap();
            assert_eq!(found, None, "{login} {recipient} {now}");
        }
        assert_eq!(limits.suppressions(None).await.unwrap().len(), 1);
        assert_eq!(
            limits.unsuppress(Some("bob@example.com"), &gone).await.unwrap(),
            0
        );
        assert_eq!(limits.unsuppress(None, &gone).await.unwrap(), 1);
        assert!(limits.suppressions(None).await.unwrap().is_empty());
        // What is over is forgotten.
        let mut batch = Batch::new();
        limits
            .suppress(&mut batch, "news@example.com", &gone, said, at(0))
            .unwrap();
        store.commit(batch).await.unwrap();
        limits.forget(at(99)).await.unwrap();
        assert_eq!(limits.suppressions(None).await.unwrap().len(), 1);
        limits.forget(at(100)).await.unwrap();
        assert!(limits.suppressions(None).await.unwrap().is_empty());
    }
}
