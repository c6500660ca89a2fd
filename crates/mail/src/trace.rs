//! Trace header fields (RFC 5321 §4.4): Received and Return-Path, and how they are folded.

use crate::address::{Recipient, ReversePath};
use crate::date;
use crate::ids::QueueId;
use crate::time::Timestamp;
use std::net::IpAddr;

/// What a Received field says.
#[derive(Clone, Debug)]
pub struct Received<'a> {
    /// The name that the client gave in EHLO or HELO.
    pub helo: &'a str,
    /// The client's address.
    pub peer: IpAddr,
    /// The name that the client's address resolves to and back (iprev, RFC 8601 §3), when it does.
    pub peer_name: Option<&'a str>,
    /// Our own name.
    pub by: &'a str,
    /// How it came: SMTP, ESMTP, ESMTPS, ESMTPSA, UTF8SMTPS… (RFC 3848, RFC 6531 §4.3).
    pub with: &'a str,
    /// TLS version and cipher, when there was TLS.
    pub tls: Option<&'a str>,
    /// The transaction's id.
    pub id: QueueId,
    /// The recipient, only when there is exactly one: others must not learn of each other.
    pub only_recipient: Option<&'a Recipient>,
    /// When.
    pub at: Timestamp,
}

impl Received<'_> {
    /// The whole field with its line ending.
    #[must_use]
    pub fn to_field(&self) -> String {
        let literal = match self.peer {
            IpAddr::V4(ip) => format!("[{ip}]"),
            IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
        };
        let tcp_info = match self.peer_name {
            Some(name) => format!("{} {literal}", printable(name)),
            None => literal,
        };
        let tls = self
            .tls
            .map(|t| format!("\r\n\t(using {})", printable(t)))
            .unwrap_or_default();
        let for_clause = self
            .only_recipient
            .map(|r| format!("\r\n\tfor {r}"))
            .unwrap_or_default();
        format!(
            "Received: from {} ({tcp_info}){tls}\r\n\tby {} with {} id {}{for_clause};\r\n\t{}\r\n",
            printable(self.helo),
            self.by,
            self.with,
            self.id,
            date::rfc5322(self.at)
        )
    }
}

/// `Return-Path: <…>` with its line ending; added at final delivery only (RFC 5321 §4.4).
#[must_use]
pub fn return_path(reverse_path: &ReversePath) -> String {
    format!("Return-Path: {reverse_path}\r\n")
}

/// A text from outside made fit to stand in a header: control characters and parentheses become `?`.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() || matches!(c, '(' | ')' | '\\') {
                '?'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received() {
        let field = Received {
            helo: "gmail.com\r\nX: y",
            peer: "192.0.2.1".parse().unwrap(),
            peer_name: None,
            by: "mail.example.com",
            with: "ESMTPS",
            tls: Some("TLSv1.3"),
            id: QueueId(7),
            only_recipient: None,
            at: Timestamp::from_secs(0),
        }
        .to_field();
        assert_eq!(
            field,
            "Received: from gmail.com??X: y ([192.0.2.1])\r\n\t(using TLSv1.3)\r\n\tby mail.example.com \
             with ESMTPS id 0000000000007;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
    }
}
