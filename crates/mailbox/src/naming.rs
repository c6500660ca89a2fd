//! Mailbox names: what may be one, and how names are compared. Pure.

use crate::Error;

/// Octets of a full mailbox name at most.
pub const NAME_OCTETS_MAX: usize = 512;
/// Levels of a name at most.
pub(crate) const LEVELS_MAX: usize = 32;
/// Divides the levels of a name.
pub const SEPARATOR: char = '/';

/// The name as it is kept: INBOX in capitals, also as the first level (RFC 3501 §5.1).
///
/// # Errors
/// [`Error::BadName`] when it is empty, too long or deep, has an empty level, or holds a control
/// character or a LIST wildcard (RFC 9051 §5.1).
pub(crate) fn canonical(name: &str) -> Result<String, Error> {
    let name = name.strip_suffix(SEPARATOR).unwrap_or(name);
    if name.is_empty() {
        return Err(Error::BadName("it is empty"));
    }
    if name.len() > NAME_OCTETS_MAX {
        return Err(Error::BadName("it is longer than 512 octets"));
    }
    if name.chars().any(|c| c.is_control() || c == '%' || c == '*') {
        return Err(Error::BadName("it holds a control character, % or *"));
    }
    if name.split(SEPARATOR).any(str::is_empty) {
        return Err(Error::BadName("a level of it is empty"));
    }
    if name.split(SEPARATOR).count() > LEVELS_MAX {
        return Err(Error::BadName("it has more than 32 levels"));
    }
    let (first, rest) = match name.split_once(SEPARATOR) {
        Some((first, rest)) => (first, Some(rest)),
        None => (name, None),
    };
    if !first.eq_ignore_ascii_case("INBOX") {
        return Ok(name.to_owned());
    }
    Ok(match rest {
        Some(rest) => format!("INBOX{SEPARATOR}{rest}"),
        None => "INBOX".to_owned(),
    })
}

/// The superior names of a name, outermost first: `a` and `a/b` of `a/b/c`.
pub(crate) fn superiors(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices(SEPARATOR).map(|(at, _)| &name[..at])
}

/// What of `name` stands behind `superior` when it is inferior to it: `/c` of `a/b/c` below `a/b`.
pub(crate) fn inferior_part<'a>(name: &'a str, superior: &str) -> Option<&'a str> {
    name.strip_prefix(superior)
        .filter(|rest| rest.starts_with(SEPARATOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (given, kept) in [
            ("inbox", "INBOX"),
            ("Inbox/Work", "INBOX/Work"),
            ("inboxes", "inboxes"),
            ("a/b/", "a/b"),
            ("Entwürfe", "Entwürfe"),
        ] {
            assert_eq!(canonical(given).unwrap(), kept);
        }
        let long = "x".repeat(513);
        let deep = vec!["d"; 33].join("/");
        for bad in ["", "/", "/a", "a//b", "a\r\n", "a*", "50%", &long, &deep] {
            assert!(matches!(canonical(bad), Err(Error::BadName(_))), "{bad:?}");
        }
    }

    #[test]
    fn hierarchy() {
        assert_eq!(superiors("a/b/c").collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(superiors("a").count(), 0);
        assert_eq!(inferior_part("a/b/c", "a/b"), Some("/c"));
        assert_eq!(inferior_part("a/bc", "a/b"), None);
        assert_eq!(inferior_part("a/b", "a/b"), None);
    }
}
