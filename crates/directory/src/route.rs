//! Routes in the store: what an operator ordered to be done with mail for domains elsewhere, whatever
//! the DNS says of them. What they mean is for `deliver` to say; here they are kept.

use crate::value::scan_all;
use crate::{CONFLICT_RETRIES_MAX, Directory, Error, keys, value};
use mail::Domain;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use store::{Batch, Require, Watch};

/// Routes in the store at most.
pub const ROUTES_MAX: usize = 10_000;
/// Servers of one route at most.
pub const ROUTE_HOSTS_MAX: usize = 20;
/// Octets of each text of a route at most.
pub const ROUTE_TEXT_OCTETS_MAX: usize = 512;

/// What an operator wrote of a route. Exactly one of `hosts`, `mx`, `lmtp`, `discard` and `fail`
/// is set.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteSpec {
    /// Servers, as `mx.example.net`, `mx.example.net:2525` or `10 mx.example.net` with a preference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// A domain whose mail exchangers take the mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mx: Option<String>,
    /// Where a server is that takes the mail by LMTP: `box.example.net:24` or the path of a socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lmtp: Option<String>,
    /// The port of servers that name none. Default 25.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The mail is thrown away.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub discard: bool,
    /// The mail fails with this reply, such as `550 5.1.1 nobody is here any more`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail: Option<String>,
    /// How TLS is used: `opportunistic` (the default), `required` or `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// The name of the login at the servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file whose first line is its password; the store has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

impl RouteSpec {
    /// Whether it says one thing, within the limits.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn check(&self) -> Result<(), String> {
        let actions = [
            !self.hosts.is_empty(),
            self.mx.is_some(),
            self.lmtp.is_some(),
            self.discard,
            self.fail.is_some(),
        ];
        if actions.into_iter().filter(|is_set| *is_set).count() != 1 {
            return Err("a route has exactly one of: hosts, mx, lmtp, discard, fail".to_owned());
        }
        if self.hosts.len() > ROUTE_HOSTS_MAX {
            return Err(format!("a route has {ROUTE_HOSTS_MAX} hosts at most"));
        }
        if self.lmtp.is_some() && self.port.is_some() {
            return Err("lmtp names the port itself: box.example.net:24".to_owned());
        }
        let relays = self.mx.is_some() || self.lmtp.is_some() || !self.hosts.is_empty();
        if !relays && (self.port.is_some() || self.tls.is_some() || self.user.is_some()) {
            return Err("port, tls and a login are for routes that lead to servers".to_owned());
        }
        if self.user.is_some() != self.password_file.is_some() {
            return Err("user and password_file go together".to_owned());
        }
        let texts = self.hosts.iter().chain(&self.mx).chain(&self.lmtp);
        let texts = texts.chain(&self.fail).chain(&self.tls).chain(&self.user);
        for text in texts {
            if text.len() > ROUTE_TEXT_OCTETS_MAX || text.chars().any(char::is_control) {
                return Err(format!(
                    "a text of a route has {ROUTE_TEXT_OCTETS_MAX} octets at most, and no control characters"
                ));
            }
        }
        // It ends up in replies and reports, which are ASCII.
        if self.fail.as_ref().is_some_and(|text| !text.is_ascii()) {
            return Err("the words of a failure are ASCII".to_owned());
        }
        Ok(())
    }
}

/// `example.com`, `.example.com` or `*`, as it is stored.
fn pattern(text: &str) -> Result<String, Error> {
    let (before, name) = match text.strip_prefix('.') {
        Some(name) => (".", name),
        None => ("", text),
    };
    if text == "*" {
        return Ok(text.to_owned());
    }
    let wrong = Error::Invalid("a route is for example.com, for .example.com (all below it) or for * (all)");
    Domain::parse(name)
        .map(|domain| format!("{before}{domain}"))
        .map_err(|_| wrong)
}

impl Directory {
    /// Sets the route for `example.com`, `.example.com` or `*`, in place of one that was there. It
    /// is in force as soon as it is durable.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Limit`]; otherwise what the store says.
    pub async fn set_route(&self, for_domains: &str, spec: &RouteSpec) -> Result<(), Error> {
        let key = keys::route(&pattern(for_domains)?);
        if spec.check().is_err() {
            return Err(Error::Invalid("the route says nothing, or two things at once"));
        }
        let value = value::encode(&key, spec)?;
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let is_new = snapshot.get(&key).await?.is_none();
            let range = keys::routes().prefix_range();
            if is_new && snapshot.scan(&range, ROUTES_MAX).await?.len() >= ROUTES_MAX {
                return Err(Error::Limit {
                    what: "routes",
                    max: ROUTES_MAX,
                });
            }
            drop(snapshot);
            let mut batch = Batch::new();
            batch.put(key.clone(), value.clone());
            batch.notify(keys::routes_topic());
            if self.commit_unless_conflict(batch).await? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    /// Takes a route away.
    ///
    /// # Errors
    /// [`Error::NoSuch`]; otherwise what the store says.
    pub async fn remove_route(&self, for_domains: &str) -> Result<(), Error> {
        let key = keys::route(&pattern(for_domains)?);
        let mut batch = Batch::new();
        batch.require(Require::KeyPresent(key.clone()));
        batch.delete(key);
        batch.notify(keys::routes_topic());
        match self.commit_unless_conflict(batch).await? {
            true => Ok(()),
            false => Err(Error::NoSuch("route in the store")),
        }
    }

    /// The routes of the store: for which domains, and what is done, or why that cannot be read.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn routes(&self) -> Result<Vec<(String, Result<RouteSpec, Error>)>, Error> {
        let snapshot = self.store.snapshot().await?;
        let rows = scan_all(snapshot.as_ref(), keys::routes().prefix_range()).await?;
        let read = |(key, stored): (store::Key, store::Versioned)| {
            let pattern = key.reader().text()?;
            Some((pattern, value::decode(&key, &stored.value)))
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// Tells when the routes have changed.
    #[must_use]
    pub fn watch_routes(&self) -> Watch {
        self.store.watch(&keys::routes_topic())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (text, stored) in [
            ("*", "*"),
            ("Example.COM", "example.com"),
            (".example.com", ".example.com"),
        ] {
            assert_eq!(pattern(text).unwrap(), stored);
        }
        for wrong in ["", ".", "a b", "*.example.com", "..example.com"] {
            assert!(pattern(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_route_says_one_thing() {
        let text = |text: &str| Some(text.to_owned());
        let mx = RouteSpec {
            mx: text("example.net"),
            ..RouteSpec::default()
        };
        let fail = RouteSpec {
            fail: text("550 gone"),
            ..RouteSpec::default()
        };
        assert_eq!((mx.check(), fail.check()), (Ok(()), Ok(())));
        for wrong in [
            RouteSpec::default(),
            RouteSpec {
                discard: true,
                ..mx.clone()
            },
            RouteSpec {
                port: Some(26),
                ..fail.clone()
            },
            RouteSpec {
                lmtp: text("box.example.net"),
                ..mx.clone()
            },
            RouteSpec {
                lmtp: text("box.example.net"),
                port: Some(24),
                ..RouteSpec::default()
            },
            RouteSpec {
                user: text("us"),
                ..mx.clone()
            },
            RouteSpec {
                fail: text("550 a\r\nb"),
                ..RouteSpec::default()
            },
            RouteSpec {
                fail: text("550 zu spät"),
                ..RouteSpec::default()
            },
            RouteSpec {
                hosts: vec!["a.example".to_owned(); ROUTE_HOSTS_MAX + 1],
                ..RouteSpec::default()
            },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_stored_form_stays_readable() {
        let spec: RouteSpec = serde_json::from_str(r#"{"hosts":["10 a.example"],"later":1}"#).unwrap();
        assert_eq!(spec.hosts, ["10 a.example"]);
        assert_eq!(
            serde_json::to_string(&spec).unwrap(),
            r#"{"hosts":["10 a.example"]}"#
        );
    }
}
