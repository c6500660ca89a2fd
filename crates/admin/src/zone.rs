//! The DNS records that a domain must publish, as a zone file (RFC 1035 §5).

use dns::Tlsa;
use mail::Domain;
use mtasts::Policy;
use mtasts::hosted::record_of;
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
    /// The TLSA record of the server's certificate, where a server runs.
    pub tlsa: Option<&'a OwnTlsa>,
    /// The MTA-STS policy that the domain publishes.
    pub mta_sts: Option<&'a Policy>,
}

/// The TLSA record for the certificate that this server shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnTlsa {
    /// The record.
    pub record: Tlsa,
    /// Whether the certificate is renewed for the same key, so that the record stays true. Where somebody
    /// else renews it, that is for them to see to.
    pub keeps_key: bool,
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
        self.write_mta_sts(&mut out);
        if let Some(record) = tlsrpt::Record::of_ours(domain) {
            let _ = writeln!(
                out,
                "\n; TLS reports: other servers tell once a day whether their mail came over TLS: posthaste tlsrpt\n\
                 _smtp._tls IN TXT {}",
                character_strings(&record.to_string())
            );
        }
        out
    }

    fn write_mta_sts(&self, out: &mut String) {
        let Some(policy) = self.mta_sts else {
            let _ = writeln!(
                out,
                "\n; MTA-STS (mail to {0} only over verified TLS) is off; docs/MTA-STS.md. To begin:\n\
                 ;   posthaste domain set {0} --mta-sts testing",
                self.domain
            );
            return;
        };
        let _ = writeln!(
            out,
            "\n; MTA-STS ({}): the host of the policy, and which policy it is. When the policy changes, so does the id\n\
             mta-sts IN CNAME {}.\n\
             _mta-sts IN TXT \"{}\"",
            policy.mode,
            self.hostname,
            record_of(policy)
        );
    }

    fn spf(&self) -> &'static str {
        "v=spf1 mx -all"
    }

    /// The server's name within the zone; `None`: it belongs to another.
    fn host_name(&self) -> Option<String> {
        match self.hostname.as_str().strip_suffix(self.domain.as_str())? {
            "" => Some("@".to_owned()),
            front => front.strip_suffix('.').map(str::to_owned),
        }
    }

    fn write_host(&self, out: &mut String) {
        let Some(name) = self.host_name() else {
            let _ = writeln!(
                out,
                "; {} belongs to another zone: its A, AAAA and TLSA records stand there",
                self.hostname
            );
            return;
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
        self.write_tlsa(out, &name);
    }

    /// RFC 7672 §3.1.1: DANE-EE, of the key, by SHA-256.
    fn write_tlsa(&self, out: &mut String, host: &str) {
        let owner = match host {
            "@" => "_25._tcp".to_owned(),
            host => format!("_25._tcp.{host}"),
        };
        let _ = match self.tlsa {
            None => writeln!(
                out,
                "\n; DANE: the TLSA record of the certificate is printed here while the server runs"
            ),
            Some(tlsa) if tlsa.keeps_key => writeln!(
                out,
                "\n; DANE: the certificate's key. It counts only if this zone is signed (DNSSEC)\n{owner} IN TLSA {}",
                tlsa.record
            ),
            Some(tlsa) => writeln!(
                out,
                "\n; DANE: the certificate's key. Take the semicolon away only if this zone is signed (DNSSEC) and every\n\
                 ; renewal keeps the key (certbot --reuse-key): docs/TLS-BETWEEN-SERVERS.md\n;{owner} IN TLSA {}",
                tlsa.record
            ),
        };
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
        let policy = mtasts::hosted::policy("enforce", &[], 604_800, &hostname).unwrap();
        let id = mtasts::hosted::id_of(&policy);
        let text = Zone {
            domain: &domain,
            hostname: &hostname,
            addresses: &["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            dkim: &[("s1".into(), format!("v=DKIM1; k=rsa; p={}", "A".repeat(300)))],
            tlsa: Some(&own_tlsa(true)),
            mta_sts: Some(&policy),
        }
        .to_text();
        for line in [
            "$ORIGIN example.com.",
            "@ IN MX 10 mail.example.com.",
            "mail IN A 192.0.2.1",
            "mail IN AAAA 2001:db8::1",
            "_25._tcp.mail IN TLSA 3 1 1 0aff",
            "@ IN TXT \"v=spf1 mx -all\"",
            "_dmarc IN TXT \"v=DMARC1; p=reject; rua=mailto:postmaster@example.com\"",
            "mta-sts IN CNAME mail.example.com.",
            &format!("_mta-sts IN TXT \"v=STSv1; id={id};\""),
            "_smtp._tls IN TXT \"v=TLSRPTv1; rua=mailto:postmaster@example.com\"",
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
            tlsa: Some(&own_tlsa(true)),
            mta_sts: None,
        }
        .to_text();
        assert!(text.contains("--mta-sts testing"));
        assert!(text.contains("belongs to another zone"));
        assert!(!text.contains("192.0.2.1") && !text.contains("IN TLSA"));
    }

    fn own_tlsa(keeps_key: bool) -> OwnTlsa {
        OwnTlsa {
            record: Tlsa {
                usage: 3,
                selector: 1,
                matching: 1,
                data: vec![0x0a, 0xff],
            },
            keeps_key,
        }
    }

    /// A record that a renewal makes wrong would stop mail: it is not there to be pasted unread.
    #[test]
    fn the_record_of_a_key_that_others_renew_is_a_comment() {
        let domain = Domain::parse("example.com").unwrap();
        let text = |tlsa: Option<&OwnTlsa>| {
            let zone = Zone {
                domain: &domain,
                hostname: &domain,
                addresses: &[],
                dkim: &[],
                tlsa,
                mta_sts: None,
            };
            zone.to_text()
        };
        assert!(text(Some(&own_tlsa(false))).contains("\n;_25._tcp IN TLSA 3 1 1 0aff\n"));
        assert!(text(Some(&own_tlsa(true))).contains("\n_25._tcp IN TLSA 3 1 1 0aff\n"));
        assert!(!text(None).contains("IN TLSA"));
    }
}
