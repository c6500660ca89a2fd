//! `[sockets]` and `[sendmail]`: the ways in for programs of this machine; and the lists of networks
//! that may speak for others.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[sockets]`: services at Unix sockets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sockets {
    pub smtp: Vec<PathBuf>,
    pub submission: Vec<PathBuf>,
    pub lmtp: Vec<PathBuf>,
    pub mode: String,
}

impl Default for Sockets {
    fn default() -> Self {
        Self {
            smtp: Vec::new(),
            submission: Vec::new(),
            lmtp: Vec::new(),
            mode: "0660".to_owned(),
        }
    }
}

impl Sockets {
    /// The file mode of the sockets.
    pub fn mode_bits(&self) -> Result<u32, String> {
        u32::from_str_radix(&self.mode, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| {
                format!(
                    "sockets.mode = \"{}\": write it as chmod takes it, for example \"0660\"",
                    self.mode
                )
            })
    }
}

/// `[sendmail]`: programs that send without a login, through `posthaste sendmail`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sendmail {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    pub user: Vec<SendmailUser>,
}

/// `[[sendmail.user]]`: a user of this machine who may send.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendmailUser {
    pub name: String,
    #[serde(default)]
    pub from: Vec<String>,
}

impl Sendmail {
    /// Whether what stands there can be meant.
    pub fn check(&self) -> Result<(), String> {
        if let Some(domain) = &self.domain
            && let Err(e) = mail::Domain::parse(domain)
        {
            return Err(format!("sendmail.domain = \"{domain}\": {e}"));
        }
        for user in &self.user {
            for from in &user.from {
                pattern(from).map_err(|e| format!("sendmail.user \"{}\": {e}", user.name))?;
            }
        }
        Ok(())
    }
}

/// Reads `shop@example.com`, or `@example.com` for all of a domain.
pub fn pattern(text: &str) -> Result<receive::SenderPattern, String> {
    let told = |e: &dyn std::fmt::Display| format!("from = \"{text}\": {e}");
    match text.strip_prefix('@') {
        Some(domain) => mail::Domain::parse(domain)
            .map(receive::SenderPattern::Domain)
            .map_err(|e| told(&e)),
        None => mail::EmailAddress::parse(text)
            .map(receive::SenderPattern::Address)
            .map_err(|e| told(&e)),
    }
}

/// Reads a list of networks that are trusted; `key` is for the message. A network that is written with
/// an address inside it is refused: whether the one address was meant or all of them is not ours to guess.
pub fn networks(key: &str, texts: &[String]) -> Result<Vec<limits::Network>, String> {
    let read = |text: &String| {
        let network: limits::Network = text.parse().map_err(|e| format!("{key}: {e}"))?;
        let written = text.split('/').next().and_then(|ip| ip.parse().ok());
        match written.map(|ip: std::net::IpAddr| limits::Network::new(ip, u8::MAX)) {
            Some(one) if one.ip() != network.ip() => Err(format!(
                "{key} = \"{text}\": write \"{network}\" for the whole network, or \"{one}\" for the one address"
            )),
            _ => Ok(network),
        }
    };
    texts.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_patterns() {
        assert_eq!(Sockets::default().mode_bits(), Ok(0o660));
        for mode in ["rw", "7777", "", "-1"] {
            let sockets = Sockets {
                mode: mode.to_owned(),
                ..Sockets::default()
            };
            assert!(sockets.mode_bits().is_err(), "{mode}");
        }
        assert!(pattern("@example.com").is_ok() && pattern("a@example.com").is_ok());
        assert!(pattern("a b").is_err());
        assert!(networks("x", &["10.0.0.0/8".to_owned()]).is_ok());
        let told = networks("listen.proxy_from", &["10".to_owned()]).unwrap_err();
        assert!(told.starts_with("listen.proxy_from: "), "{told}");
        for (inside, remedy) in [("10.0.0.1/8", "10.0.0.0/8"), ("2001:db8::1/32", "2001:db8::/32")] {
            let told = networks("x", &[inside.to_owned()]).unwrap_err();
            assert!(told.contains(remedy), "{told}");
        }
    }
}
