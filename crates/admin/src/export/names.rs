//! Names of accounts and mailboxes as names of files: any name becomes one that no file system
//! takes for something else, and different names stay different. Pure.

use std::collections::HashSet;

/// Octets of a name at most: file systems allow 255, and what a mailbox adds needs room.
const NAME_OCTETS_MAX: usize = 200;

/// Whether an octet stands for itself. Letters of other scripts do: they are UTF-8 throughout.
fn is_plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-_+=@ ,".contains(&octet) || octet >= 0x80
}

/// One name: everything but letters, digits and a few signs as `%` and two hexadecimal digits; a
/// `.` stands for itself only between others.
pub(super) fn one(name: &str) -> String {
    escaped(name, true)
}

fn escaped(name: &str, dots: bool) -> String {
    let mut out = String::new();
    for (at, c) in name.char_indices() {
        let mut buffer = [0; 4];
        let octets = c.encode_utf8(&mut buffer).as_bytes();
        let inner_dot = dots && c == '.' && at > 0;
        // Control characters beyond ASCII are nothing to show in a listing either.
        if (octets.iter().all(|octet| is_plain(*octet)) && !c.is_control()) || inner_dot {
            out.push(c);
        } else {
            octets
                .iter()
                .for_each(|octet| out.push_str(&format!("%{octet:02X}")));
        }
    }
    if out.len() <= NAME_OCTETS_MAX {
        return out;
    }
    // Cut, and told apart by a checksum of the whole.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut cut = NAME_OCTETS_MAX - 17;
    while !out.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}~{hash:016x}", &out[..cut])
}

/// The folder of a mailbox in Maildir++, where `.` divides the levels: INBOX is the top.
pub(super) fn maildir(name: &str) -> String {
    if name == "INBOX" {
        return String::new();
    }
    let levels: Vec<String> = name.split('/').map(|level| escaped(level, false)).collect();
    let joined = format!(".{}", levels.join("."));
    match joined.len() <= NAME_OCTETS_MAX {
        true => joined,
        false => format!(".{}", escaped(name, false)),
    }
}

/// The file of a mailbox.
pub(super) fn mbox(name: &str) -> String {
    format!("{}.mbox", one(name))
}

/// The names that were given out in one folder.
#[derive(Default)]
pub(super) struct Taken(HashSet<String>);

impl Taken {
    /// The name, with a number behind it when a file system that knows no case has it already.
    pub(super) fn fresh(&mut self, name: String) -> String {
        let mut fresh = name.clone();
        let mut n = 1;
        while !self.0.insert(fresh.to_lowercase()) {
            n += 1;
            fresh = format!("{name}~{n}");
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_anywhere() {
        assert_eq!(one("bob@example.com"), "bob@example.com");
        assert_eq!(one("../../etc/passwd"), "%2E.%2F..%2Fetc%2Fpasswd");
        assert_eq!(one(".."), "%2E.");
        assert_eq!(one("a/b\\c:d\0e\"f"), "a%2Fb%5Cc%3Ad%00e%22f");
        assert_eq!(one("Entwürfe"), "Entwürfe");
        assert_eq!(maildir("INBOX"), "");
        assert_eq!(maildir("Lists/Rust.dev/.."), ".Lists.Rust%2Edev.%2E%2E");
        assert_eq!(mbox("Sent"), "Sent.mbox");
        let (a, b) = ("x".repeat(600), format!("{}y", "x".repeat(599)));
        assert!(one(&a).len() <= 200 && one(&a) != one(&b));
        let deep = vec!["ü/%".to_owned(); 60].join("/");
        assert!(maildir(&deep).len() <= 201);
        let mut taken = Taken::default();
        assert_eq!(taken.fresh("Mail".to_owned()), "Mail");
        assert_eq!(taken.fresh("mail".to_owned()), "mail~2");
    }
}
