//! `[login]`: how people may log in, and whose tokens count.

use super::Settings;
use super::reference::{Key, key};
use directory::{Issuer, IssuerKeys};
use sasl::{Mechanism, Mechanisms};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[login]`: who may log in, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Login {
    pub without_tls_on_loopback: bool,
    pub mechanisms: Vec<String>,
    pub issuer: Vec<TokenIssuer>,
}

impl Default for Login {
    fn default() -> Self {
        Self {
            without_tls_on_loopback: false,
            mechanisms: Mechanisms::default()
                .iter()
                .map(|m| m.name().to_owned())
                .collect(),
            issuer: Vec::new(),
        }
    }
}

/// `[[login.issuer]]`: whose tokens open accounts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenIssuer {
    pub issuer: String,
    pub audience: String,
    pub keys_file: PathBuf,
    #[serde(default = "email")]
    pub claim: String,
}

fn email() -> String {
    "email".to_owned()
}

impl Login {
    /// The issuers with their keys, read from their files.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn issuers(&self) -> Result<Vec<Issuer>, String> {
        let read = |issuer: &TokenIssuer| {
            let told = |why: &dyn std::fmt::Display| {
                format!(
                    "login.issuer: keys_file = \"{}\": {why}",
                    issuer.keys_file.display()
                )
            };
            let text = std::fs::read_to_string(&issuer.keys_file).map_err(|e| told(&e))?;
            Ok(Issuer {
                issuer: issuer.issuer.clone(),
                audience: issuer.audience.clone(),
                claim: issuer.claim.clone(),
                keys: IssuerKeys::parse(&text).map_err(|e| told(&e))?,
            })
        };
        self.issuer.iter().map(read).collect()
    }
}

impl Settings {
    /// The mechanisms that are offered: those named, and what issuers and client roots bring along.
    ///
    /// # Errors
    /// When a name is none.
    pub fn mechanisms(&self) -> Result<Mechanisms, String> {
        let mut all = Mechanisms::NONE;
        for name in &self.login.mechanisms {
            all = all.with(Mechanism::parse(name).ok_or_else(|| {
                let known: Mechanisms = Mechanism::ALL.into_iter().collect();
                format!("login.mechanisms: \"{name}\" is none; there are {known}")
            })?);
        }
        if !self.login.issuer.is_empty() {
            all = all.with(Mechanism::OAuthBearer).with(Mechanism::XOAuth2);
        }
        if self.tls.client_roots.is_some() {
            all = all.with(Mechanism::External);
        }
        Ok(all)
    }
}

/// The keys of this section beside `login.without_tls_on_loopback`.
pub const KEYS: &[Key] = &[
    key(
        "login.mechanisms",
        "[\"SCRAM-SHA-256-PLUS\", \"SCRAM-SHA-1-PLUS\", \"SCRAM-SHA-256\", \"SCRAM-SHA-1\", \"PLAIN\", \"LOGIN\"]",
        "The ways to log in that are offered, for SMTP, IMAP and POP3. Those that end in PLUS are shown only inside TLS. `login.issuer` adds OAUTHBEARER and XOAUTH2, `tls.client_roots` adds EXTERNAL. See docs/LOGINS.md.",
    ),
    key(
        "login.issuer",
        "[]",
        "Whose OAuth tokens open accounts: tables `[[login.issuer]]` with `issuer` (`iss`), `audience` (`aud`), `keys_file` (its JSON Web Key Set; `SIGHUP` reads it anew) and `claim`, the claim that names the address (`\"email\"`).",
    ),
];
