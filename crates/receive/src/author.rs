//! Who the From field of a submitted message says wrote it. Pure.

use mail::EmailAddress;
use mail::mime::AddressItem;

/// The authors of a message: the mailboxes of its one From field (RFC 5322 §3.6.2). `None` when
/// there is not exactly one field, or it holds no address, or something that is none.
pub(crate) fn authors(from: &[Vec<u8>]) -> Option<Vec<EmailAddress>> {
    let [field] = from else { return None };
    let mut authors = Vec::new();
    for item in mail::mime::addresses(field) {
        let AddressItem::Mailbox { local, host, .. } = item else {
            continue;
        };
        authors.push(address(&local, &host)?);
    }
    (!authors.is_empty()).then_some(authors)
}

fn address(local: &[u8], host: &[u8]) -> Option<EmailAddress> {
    let quoted = std::str::from_utf8(local)
        .ok()?
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    let host = std::str::from_utf8(host).ok()?;
    EmailAddress::parse(&format!("\"{quoted}\"@{host}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(from: &[&str]) -> Option<String> {
        let from: Vec<Vec<u8>> = from.iter().map(|f| f.as_bytes().to_vec()).collect();
        Some(
            authors(&from)?
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        )
    }

    #[test]
    fn one_field_with_addresses() {
        assert_eq!(
            shown(&[" Alice <alice@gmail.com>"]).as_deref(),
            Some("alice@gmail.com")
        );
        assert_eq!(
            shown(&["a@b.c, \"d e\"@f.g"]).as_deref(),
            Some("a@b.c \"d e\"@f.g")
        );
        for bad in [
            &[][..],
            &["a@b.c", "d@e.f"][..],
            &[""][..],
            &["nobody"][..],
            &["Alice <alice>"][..],
        ] {
            assert_eq!(shown(bad), None, "{bad:?}");
        }
    }
}
