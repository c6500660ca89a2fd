//! The DNS records that a domain must publish, as a zone file (RFC 1035 §5).

use mail::Domain;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Octets of one character-string in a TXT record at most (RFC 1035 §3.3).
const STRING_OCTETS_MAX: usize = 255;

/// What the zone says.
pub struct Zone<'a> {
    /// The domain that mail is addressed to.
    pub domain: &'a Domain,
    /// The server's own name.
    pub hostname: &'a Domain,
    /// The server's public addresses; may be empty.
    pub addresses: &'a [IpAddr],
    /// Selectors with the values of their DKIM key records.
    pub dkim: &'a [(String, String)],
}

impl Zone<'_> {
    /// The zone file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let domain = self.domain;
        let mut out = format!("; What to publish in the DNS for {domain}\n$ORIGIN {domain}.\n$TTL 3600\n");
        let _ = writeln!(
            out,
            "\n; Where mail for {domain} goes\n@ IN MX 10 {}.",
            self.hostname
        );
        self.write_host(&mut out);
        let _ = writeln!(
            out,
            "\n; SPF: only the mail servers of the domain send for it\n@ IN TXT \"{}\"",
            self.spf()
        );
        out.push_str("\n; DKIM: the public halves of the signing keys\n");
        for (selector, value) in self.dkim {
            let _ = writeln!(out, "{selector}._domainkey IN TXT {}", character_strings(value));
        }
        let _ = writeln!(
            out,
            "\n; DMARC: what fails both is to be refused, and reported to the postmaster\n\
             _dmarc IN TXT \"v=DMARC1; p=reject; rua=mailto:postmaster@{domain}\""
        );
        out
    }

    fn spf(&self) -> &'static str {
        "v=spf1 mx -all"
    }

    fn write_host(&self, out: &mut String) {
        let name = match self.hostname.as_str().strip_suffix(self.domain.as_str()) {
            Some("") => "@".to_owned(),
            Some(front) if front.ends_with('.') => front.trim_end_matches('.').to_owned(),
            _ => {
                let _ = writeln!(
                    out,
                    "; {} belongs to another zone: its A and AAAA records stand there",
                    self.hostname
                );
                return;
            }
        };
        if self.addresses.is_empty() {
            let _ = writeln!(
                out,
                "; {name} IN A <the server's IPv4 address>\n; {name} IN AAAA <its IPv6 address>"
            );
        }
        for address in self.addresses {
            let kind = if address.is_ipv4() { "A" } else { "AAAA" };
            let _ = writeln!(out, "{name} IN {kind} {address}");
        }
    }
}

/// A text as one or more quoted character-strings; several stand in parentheses.
fn character_strings(text: &str) -> String {
    let quote = |part: &[u8]| {
        format!(
            "\"{}\"",
            String::from_utf8_lossy(part)
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
        )
    };
    let parts: Vec<String> = text.as_bytes().chunks(STRING_OCTETS_MAX).map(quote).collect();
    match parts.as_slice() {
        [only] => only.clone(),
        several => format!("( {} )", several.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_zone() {
        let domain = Domain::parse("example.com").unwrap();
        let hostname = Domain::parse("mail.example.com").unwrap();
        let text = Zone {
            domain: &domain,
            hostname: &hostname,
            addresses: &["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            dkim: &[("s1".into(), format!("v=DKIM1; k=rsa; p={}", "A".repeat(300)))],
        }
        .to_text();
        for line in [
            "$ORIGIN example.com.",
            "@ IN MX 10 mail.example.com.",
            "mail IN A 192.0.2.1",
            "mail IN AAAA 2001:db8::1",
            "@ IN TXT \"v=spf1 mx -all\"",
            "_dmarc IN TXT \"v=DMARC1; p=reject; rua=mailto:postmaster@example.com\"",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        let key = text.lines().find(|l| l.starts_with("s1._domainkey")).unwrap();
        assert!(key.contains("\" \""), "longer than 255 octets is cut: {key}");
    }

    #[test]
    fn a_host_of_another_zone_is_left_to_it() {
        let text = Zone {
            domain: &Domain::parse("example.org").unwrap(),
            hostname: &Domain::parse("mail.example.com").unwrap(),
            addresses: &["192.0.2.1".parse().unwrap()],
            dkim: &[],
        }
        .to_text();
        assert!(text.contains("belongs to another zone"));
        assert!(!text.contains("192.0.2.1"));
    }
}
