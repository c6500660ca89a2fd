//! `[tls_reports]`: reports about TLS (RFC 8460), to others and from others.

use super::reference::{Key, key};
use mail::EmailAddress;
use serde::{Deserialize, Serialize};

/// `[tls_reports]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsReports {
    pub send: bool,
    pub read: bool,
    pub organization: String,
    pub contact: String,
    pub from: String,
    pub post_anywhere: bool,
}

impl Default for TlsReports {
    fn default() -> Self {
        Self {
            send: true,
            read: true,
            organization: String::new(),
            contact: String::new(),
            from: String::new(),
            post_anywhere: false,
        }
    }
}

impl TlsReports {
    /// What the service works with.
    pub fn options(&self) -> Result<deliver::TlsReportOptions, String> {
        if self.organization.chars().any(char::is_control) {
            return Err("tls_reports.organization holds control characters".to_owned());
        }
        let address = |key: &str, text: &str| match text {
            "" => Ok(None),
            text => EmailAddress::parse(text)
                .map(Some)
                .map_err(|e| format!("tls_reports.{key} = \"{text}\": {e}")),
        };
        let from = address("from", &self.from)?;
        if from.as_ref().is_some_and(|from| from.domain().is_none()) {
            return Err("tls_reports.from must be an address at a domain that is served here".to_owned());
        }
        Ok(deliver::TlsReportOptions {
            organization: Some(self.organization.clone()).filter(|name| !name.is_empty()),
            contact: address("contact", &self.contact)?,
            from,
        })
    }
}

/// The meaning of each key.
pub const KEYS: &[Key] = &[
    key(
        "tls_reports.send",
        "true",
        "Whether conversations with other domains' servers are counted, and reported once a day to the domains that ask for it in their `_smtp._tls` record (RFC 8460). Nothing is sent to anybody else, and a report says nothing about messages or people (docs/TLS-REPORTS.md).",
    ),
    key(
        "tls_reports.read",
        "true",
        "Whether reports that others send to `postmaster` of our domains are read for `posthaste tlsrpt`. The mail itself goes to the mailbox in any case.",
    ),
    key(
        "tls_reports.organization",
        "\"\"",
        "Who we are, in our reports. Empty: the domain that sends them.",
    ),
    key(
        "tls_reports.contact",
        "\"\"",
        "The address for questions about our reports. Empty: `postmaster` of the domain that sends them.",
    ),
    key(
        "tls_reports.from",
        "\"\"",
        "The address that our reports come from. Its domain must be served here, because its DKIM keys sign them. Empty: `tlsrpt-noreply` of the domain that is served longest.",
    ),
    key(
        "tls_reports.post_anywhere",
        "false",
        "Whether reports are also posted (`rua=https:`) to hosts at private and loopback addresses. For laboratories: the URI is named by strangers, who could mean a host that only this server reaches.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        let with = |from: &str, contact: &str| TlsReports {
            from: from.to_owned(),
            contact: contact.to_owned(),
            ..TlsReports::default()
        };
        assert!(TlsReports::default().options().unwrap().from.is_none());
        let good = with("reports@example.com", "mia@example.com").options().unwrap();
        assert_eq!(good.contact.unwrap().to_string(), "mia@example.com");
        for (from, contact, part) in [
            ("nobody", "", "tls_reports.from"),
            ("a@[192.0.2.1]", "", "tls_reports.from"),
            ("", "x y", "tls_reports.contact"),
        ] {
            let told = with(from, contact).options().unwrap_err();
            assert!(told.contains(part), "{told}");
        }
    }
}
