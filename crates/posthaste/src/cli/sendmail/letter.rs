//! A local program's message made fit to submit: line ends, header section, whole addresses. Pure.

use mail::mime::{AddressItem, addresses};

/// The fields whose addresses are made whole.
const ADDRESS_FIELDS: [&str; 14] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Bcc",
    "Errors-To",
    "Return-Receipt-To",
    "Disposition-Notification-To",
];

/// What a program gave, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Letter {
    /// The header fields, each with its line ends.
    fields: Vec<Vec<u8>>,
    body: Vec<u8>,
}

impl Letter {
    /// Takes the octets of a program: LF, CR LF and CR all end a line; a first line as in an mbox is
    /// dropped; the header section ends at the first line that is no field.
    pub fn read(octets: &[u8], ignore_dots: bool) -> Self {
        let mut lines = lines(octets, ignore_dots);
        if lines.first().is_some_and(|line| line.starts_with(b"From ")) {
            lines.remove(0);
        }
        let mut fields: Vec<Vec<u8>> = Vec::new();
        let mut used = 0;
        for line in &lines {
            match fields.last_mut() {
                Some(field)
                    if matches!(line.first(), Some(b' ' | b'\t')) && !line.trim_ascii().is_empty() =>
                {
                    field.extend([line, &b"\r\n"[..]].concat());
                }
                _ if is_field(line) => fields.push([line, &b"\r\n"[..]].concat()),
                _ => break,
            }
            used += 1;
        }
        if lines.get(used).is_some_and(Vec::is_empty) {
            used += 1;
        }
        let body = lines[used..]
            .iter()
            .flat_map(|line| [line, &b"\r\n"[..]].concat())
            .collect();
        Self { fields, body }
    }

    /// The recipients that the message itself names, addresses without a domain made whole.
    pub fn recipients(&self, domain: &str) -> Vec<String> {
        let resent = self.fields.iter().any(|f| {
            let name = name(f).to_ascii_lowercase();
            matches!(name.as_str(), "resent-to" | "resent-cc" | "resent-bcc")
        });
        let wanted: [&str; 3] = if resent {
            ["resent-to", "resent-cc", "resent-bcc"]
        } else {
            ["to", "cc", "bcc"]
        };
        let named = self
            .fields
            .iter()
            .filter(|f| wanted.contains(&name(f).to_ascii_lowercase().as_str()));
        named
            .flat_map(|f| addresses(value(f)))
            .filter_map(|item| match item {
                AddressItem::Mailbox { local, host, .. } => Some(whole(&local, &host, domain)),
                _ => None,
            })
            .collect()
    }

    /// The message as it is submitted: addresses whole, the hidden recipients gone, an author there.
    pub fn submit(&self, domain: &str, author: &str) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.fields.iter().any(|f| name(f).eq_ignore_ascii_case("From")) {
            out.extend(format!("From: {author}\r\n").into_bytes());
        }
        for field in &self.fields {
            let name = name(field);
            if name.eq_ignore_ascii_case("Bcc") || name.eq_ignore_ascii_case("Resent-Bcc") {
                continue;
            }
            let is_list = ADDRESS_FIELDS
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name));
            match is_list.then(|| made_whole(value(field), domain)).flatten() {
                Some(list) => out.extend([name.as_bytes(), b": ", &list, b"\r\n"].concat()),
                None => out.extend_from_slice(field),
            }
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

/// The lines without their ends; none behind a line with one dot, unless dots are ignored.
fn lines(octets: &[u8], ignore_dots: bool) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let mut rest = octets;
    while !rest.is_empty() {
        let end = rest
            .iter()
            .position(|b| matches!(b, b'\n' | b'\r'))
            .unwrap_or(rest.len());
        let line = &rest[..end];
        let behind = if rest[end..].starts_with(b"\r\n") {
            end + 2
        } else {
            end + 1
        };
        rest = rest.get(behind..).unwrap_or_default();
        if line == b"." && !ignore_dots {
            break;
        }
        lines.push(line.to_vec());
    }
    lines
}

fn is_field(line: &[u8]) -> bool {
    let name = line.split(|b| *b == b':').next().unwrap_or_default();
    name.len() < line.len()
        && !name.trim_ascii_end().is_empty()
        && name.trim_ascii_end().iter().all(u8::is_ascii_graphic)
}

fn name(field: &[u8]) -> &str {
    let name = field.split(|b| *b == b':').next().unwrap_or_default();
    std::str::from_utf8(name).unwrap_or_default().trim_end()
}

fn value(field: &[u8]) -> &[u8] {
    field
        .iter()
        .position(|b| *b == b':')
        .map_or(&[], |at| &field[at + 1..])
}

/// An address list with every address whole; `None` when each is so already.
fn made_whole(value: &[u8], domain: &str) -> Option<Vec<u8>> {
    let items = addresses(value);
    let is_bare = |item: &AddressItem| matches!(item, AddressItem::Mailbox { host, .. } if host.is_empty());
    if !items.iter().any(is_bare) {
        return None;
    }
    let mut out = Vec::new();
    let mut separate = false;
    for item in items {
        match item {
            AddressItem::GroupEnd => {
                out.push(b';');
                separate = true;
                continue;
            }
            _ if separate => out.extend_from_slice(b",\r\n\t"),
            _ => {}
        }
        match item {
            AddressItem::GroupStart(name) => {
                out.extend(phrase(&name));
                out.extend_from_slice(b": ");
                separate = false;
            }
            AddressItem::Mailbox {
                name, local, host, ..
            } => {
                let address = whole(&local, &host, domain);
                match name {
                    Some(name) => out.extend([&phrase(&name)[..], b" <", address.as_bytes(), b">"].concat()),
                    None => out.extend(address.into_bytes()),
                }
                separate = true;
            }
            AddressItem::GroupEnd => {}
        }
    }
    Some(out)
}

/// A display name, quoted where it must be.
pub fn phrase(name: &[u8]) -> Vec<u8> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || *b >= 0x80 || b" !#$%&'*+-/=?^_`{|}~".contains(b);
    if name.iter().all(plain) {
        return name.to_vec();
    }
    quote(name)
}

fn quote(text: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    for b in text.iter().filter(|b| !b.is_ascii_control()) {
        if matches!(b, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*b);
    }
    out.push(b'"');
    out
}

/// An address with its domain; the local part quoted where it must be.
fn whole(local: &[u8], host: &[u8], domain: &str) -> String {
    let atom = |b: &u8| b.is_ascii_alphanumeric() || *b >= 0x80 || b"!#$%&'*+-/=?^_`{|}~.".contains(b);
    let dots_stand_well =
        !local.starts_with(b".") && !local.ends_with(b".") && !local.windows(2).any(|w| w == b"..");
    let local = if local.iter().all(atom) && dots_stand_well {
        local.to_vec()
    } else {
        quote(local)
    };
    let host = if host.is_empty() { domain.as_bytes() } else { host };
    String::from_utf8_lossy(&[&local[..], b"@", host].concat()).into_owned()
}

/// The addresses of a recipient argument, which may be a list.
pub fn argument(text: &str, domain: &str) -> Vec<String> {
    let items = addresses(text.as_bytes()).into_iter();
    items
        .filter_map(|item| match item {
            AddressItem::Mailbox { local, host, .. } => Some(whole(&local, &host, domain)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submitted(text: &str) -> String {
        let letter = Letter::read(text.as_bytes(), false);
        String::from_utf8(letter.submit("example.com", "me@example.com")).unwrap()
    }

    #[test]
    fn what_cron_writes() {
        let text = "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@host> date\n\nMon\n";
        assert_eq!(
            submitted(text),
            "From: Cron Daemon <root@example.com>\r\nTo: root@example.com\r\n\
             Subject: Cron <root@host> date\r\n\r\nMon\r\n"
        );
        assert_eq!(
            Letter::read(text.as_bytes(), false).recipients("example.com"),
            ["root@example.com"]
        );
    }

    #[test]
    fn header_sections_of_all_kinds() {
        for (text, expected) in [
            ("", "From: me@example.com\r\n\r\n"),
            ("just text\n", "From: me@example.com\r\n\r\njust text\r\n"),
            (
                "Subject: a\nno field\n",
                "From: me@example.com\r\nSubject: a\r\n\r\nno field\r\n",
            ),
            ("From x Mon\nFrom: a@b.c\n\nhi", "From: a@b.c\r\n\r\nhi\r\n"),
            (
                "From: a@b.c\nSubject: x\n y\n\nhi\n.\nlost\n",
                "From: a@b.c\r\nSubject: x\r\n y\r\n\r\nhi\r\n",
            ),
            (
                "From: a@b.c\r\n\r\na\rb\r\nc\n",
                "From: a@b.c\r\n\r\na\r\nb\r\nc\r\n",
            ),
            (
                "From: a@b.c\nBcc: d@e.f\n\n\nhi\n",
                "From: a@b.c\r\n\r\n\r\nhi\r\n",
            ),
            ("\nFrom: a@b.c\n", "From: me@example.com\r\n\r\nFrom: a@b.c\r\n"),
        ] {
            assert_eq!(submitted(text), expected, "{text:?}");
        }
        let dots = Letter::read(b"From: a@b.c\n\n.\n..\n", true);
        assert!(dots.submit("x", "y").ends_with(b"\r\n\r\n.\r\n..\r\n"));
    }

    #[test]
    fn recipients_of_the_message() {
        let text = "To: \"A, B\" <a@b.c>, root,\n Team: c@d.e, f;\nCC: g\nBcc: h@i.j\n\n";
        let letter = Letter::read(text.as_bytes(), false);
        let all = ["a@b.c", "root@x.y", "c@d.e", "f@x.y", "g@x.y", "h@i.j"];
        assert_eq!(letter.recipients("x.y"), all);
        let sent = String::from_utf8(letter.submit("x.y", "me@x.y")).unwrap();
        assert!(
            sent.contains("To: \"A, B\" <a@b.c>,\r\n\troot@x.y,\r\n\tTeam: c@d.e,\r\n\tf@x.y;\r\n"),
            "{sent}"
        );
        let resent = Letter::read(b"To: a@b.c\nResent-To: d@e.f\n\n", false);
        assert_eq!(resent.recipients("x.y"), ["d@e.f"]);
        assert_eq!(
            argument("a@b.c, root,\"x y\"@d.e", "x.y"),
            ["a@b.c", "root@x.y", "\"x y\"@d.e"]
        );
    }
}
