//! The author's domain: what the From field says (RFC 9989 §5.3.1, RFC 5322 §3.6.2).
//!
//! Promises: exactly one domain, or the reason why there is none or more than one. Quoting,
//! comments, groups, display names and old routes are read as RFC 5322 says, so that what is
//! checked is the address and never a name beside it.

use mail::Domain;
use mail::header;

/// Octets of a From field that are read.
const FROM_OCTETS_MAX: usize = 32 * 1024;

/// Stands for a host without a name: an address literal, or none at all. It is no domain.
const NO_NAME: &str = "[]";

/// Why a message has no single author domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthorProblem {
    /// No From field.
    #[error("the message has no From field")]
    NoFrom,
    /// More than one From field.
    #[error("the message has {0} From fields, and only one is allowed")]
    ManyFroms(usize),
    /// The field holds no address with a domain.
    #[error("the From field holds no address with a domain name")]
    NoAddress,
    /// The field breaks the grammar of addresses.
    #[error("the From field is malformed")]
    Malformed,
    /// Addresses of different domains.
    #[error("the From field names addresses of more than one domain ({0} and {1})")]
    ManyDomains(Domain, Domain),
}

/// The one domain of the From field.
///
/// # Errors
/// When there is none, or more than one; see [`AuthorProblem`].
pub fn author_domain(message: &[u8]) -> Result<Domain, AuthorProblem> {
    let froms: Vec<_> = header::fields(message).filter(|f| f.is("From")).collect();
    let field = match froms.as_slice() {
        [] => return Err(AuthorProblem::NoFrom),
        [one] => one,
        many => return Err(AuthorProblem::ManyFroms(many.len())),
    };
    if field.raw_value.len() > FROM_OCTETS_MAX {
        return Err(AuthorProblem::Malformed);
    }
    let hosts = hosts(&field.value()).ok_or(AuthorProblem::Malformed)?;
    let mut found: Option<Domain> = None;
    for host in hosts {
        // An address literal is no domain, and neither is a host without a dot-separated name.
        let domain = Domain::parse(&host).map_err(|_| AuthorProblem::NoAddress)?;
        match &found {
            Some(first) if *first != domain => {
                return Err(AuthorProblem::ManyDomains(first.clone(), domain));
            }
            _ => found = Some(domain),
        }
    }
    found.ok_or(AuthorProblem::NoAddress)
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Token<'a> {
    /// An atom, with inner dots.
    Word(&'a str),
    Quoted,
    Literal,
    Special(char),
}

/// The host of every address in a field body; `None` when it cannot be read.
fn hosts(text: &str) -> Option<Vec<String>> {
    let tokens = tokens(text)?;
    let mut hosts = Vec::new();
    let mut rest = tokens.as_slice();
    // A group is a name, a colon, addresses and a semicolon: its brackets may be dropped.
    while !rest.is_empty() {
        let end = address_end(rest);
        let (address, after) = rest.split_at(end);
        rest = after.get(1..).unwrap_or_default();
        let address = match address.iter().rposition(|t| *t == Token::Special(':')) {
            Some(colon) if !address.contains(&Token::Special('<')) => &address[colon + 1..],
            _ => address,
        };
        if !address.is_empty() {
            hosts.push(host_of(address)?);
        }
    }
    Some(hosts)
}

/// Where an address ends: at a comma or semicolon that is not inside angle brackets.
fn address_end(tokens: &[Token<'_>]) -> usize {
    let mut in_angle = false;
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Token::Special('<') => in_angle = true,
            Token::Special('>') => in_angle = false,
            Token::Special(',' | ';') if !in_angle => return i,
            _ => {}
        }
    }
    tokens.len()
}

/// The host of one mailbox: `name <local@host>` or `local@host`.
fn host_of(tokens: &[Token<'_>]) -> Option<String> {
    let spec = match tokens.iter().position(|t| *t == Token::Special('<')) {
        Some(open) => {
            let inner = &tokens[open + 1..];
            let close = inner.iter().position(|t| *t == Token::Special('>'))?;
            // Nothing but a comment may follow, and one address is in the brackets.
            if close + 1 != inner.len() || inner[..close].contains(&Token::Special('<')) {
                return None;
            }
            without_route(&inner[..close])
        }
        None => tokens,
    };
    match spec {
        [
            Token::Word(_) | Token::Quoted,
            Token::Special('@'),
            Token::Word(host),
        ] => Some((*host).to_owned()),
        [
            Token::Word(_) | Token::Quoted,
            Token::Special('@'),
            Token::Literal,
        ] => Some(NO_NAME.to_owned()),
        // `<>` and `MAILER-DAEMON`, as some servers write in their reports: nothing that could lie.
        _ if !spec.contains(&Token::Special('@')) => Some(NO_NAME.to_owned()),
        _ => host_of_obsolete(spec),
    }
}

/// RFC 5322 §4.4: words of the local part and labels may be parted by dots with white space.
fn host_of_obsolete(spec: &[Token<'_>]) -> Option<String> {
    let at = spec.iter().rposition(|t| *t == Token::Special('@'))?;
    let (local, host) = (&spec[..at], &spec[at + 1..]);
    let local_ok = !local.is_empty()
        && local.iter().all(|t| matches!(t, Token::Word(_) | Token::Quoted))
        && local
            .windows(2)
            .all(|pair| dotted(pair[0], true) || dotted(pair[1], false));
    let host_ok = host
        .windows(2)
        .all(|pair| dotted(pair[0], true) || dotted(pair[1], false));
    let mut out = String::new();
    for token in host {
        match token {
            Token::Word(word) => out.push_str(word),
            _ => return None,
        }
    }
    (local_ok && host_ok && !out.is_empty()).then_some(out)
}

/// Whether a token ends (or begins) with a dot, so that it may join its neighbour.
fn dotted(token: Token<'_>, at_end: bool) -> bool {
    match token {
        Token::Word(word) if at_end => word.ends_with('.'),
        Token::Word(word) => word.starts_with('.'),
        _ => false,
    }
}

/// RFC 5322 §4.4: a route `@a,@b:` before the address.
fn without_route<'t, 'a>(spec: &'t [Token<'a>]) -> &'t [Token<'a>] {
    if spec.first() != Some(&Token::Special('@')) {
        return spec;
    }
    match spec.iter().position(|t| *t == Token::Special(':')) {
        Some(colon) => &spec[colon + 1..],
        None => spec,
    }
}

fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut out = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => {}
            '(' => skip_comment(&mut chars)?,
            '"' => {
                skip_until(&mut chars, '"')?;
                out.push(Token::Quoted);
            }
            '[' => {
                skip_until(&mut chars, ']')?;
                out.push(Token::Literal);
            }
            '<' | '>' | '@' | ',' | ';' | ':' => out.push(Token::Special(c)),
            ')' | ']' | '\\' => return None,
            c if c.is_control() => return None,
            _ => {
                let is_word = |c: char| !c.is_control() && !" \t()<>@,;:\\\"[]".contains(c);
                let mut end = start + c.len_utf8();
                while let Some((at, next)) = chars.next_if(|(_, next)| is_word(*next)) {
                    end = at + next.len_utf8();
                }
                out.push(Token::Word(&text[start..end]));
            }
        }
    }
    Some(out)
}

type Chars<'a> = std::iter::Peekable<std::str::CharIndices<'a>>;

fn skip_comment(chars: &mut Chars<'_>) -> Option<()> {
    let mut depth = 1u32;
    while depth > 0 {
        match chars.next()?.1 {
            '(' => depth += 1,
            ')' => depth -= 1,
            '\\' => {
                chars.next()?;
            }
            _ => {}
        }
    }
    Some(())
}

fn skip_until(chars: &mut Chars<'_>, end: char) -> Option<()> {
    loop {
        match chars.next()?.1 {
            '\\' => {
                chars.next()?;
            }
            c if c == end => return Some(()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(from: &str) -> Result<String, AuthorProblem> {
        author_domain(format!("Subject: x\r\nFrom: {from}\r\n\r\n").as_bytes()).map(|d| d.to_string())
    }

    #[test]
    fn one_domain() {
        for (from, domain) in [
            ("alice@Gmail.com", "gmail.com"),
            ("Alice <alice@gmail.com>", "gmail.com"),
            ("\"bob@bank.example\" <alice@gmail.com>", "gmail.com"),
            ("bob@bank.example <alice@gmail.com>", "gmail.com"),
            ("(bob@bank.example) alice@gmail.com (c (d))", "gmail.com"),
            ("\"a@b\\\"c\"@gmail.com", "gmail.com"),
            ("a@gmail.com, B <b@GMAIL.com>", "gmail.com"),
            ("<@relay.example,@b.example:alice@gmail.com>", "gmail.com"),
            ("Friends: a@gmail.com, b@gmail.com;", "gmail.com"),
            ("Alice\r\n <alice@gmail.com>", "gmail.com"),
            ("=?utf-8?q?bob=40bank?= <alice@gmail.com>", "gmail.com"),
            ("alice@b\u{fc}cher.example", "xn--bcher-kva.example"),
            ("alice . b @ mail . gmail.com", "mail.gmail.com"),
            (", alice@gmail.com,", "gmail.com"),
        ] {
            assert_eq!(of(from), Ok(domain.to_owned()), "{from}");
        }
    }

    #[test]
    fn none_or_many() {
        use AuthorProblem::{Malformed, ManyDomains, ManyFroms, NoAddress, NoFrom};
        let d = |s: &str| Domain::parse(s).unwrap();
        for (from, problem) in [
            ("", NoAddress),
            ("undisclosed:;", NoAddress),
            ("alice@[192.0.2.1]", NoAddress),
            ("alice@-x.example", NoAddress),
            ("alice", NoAddress),
            ("<>", NoAddress),
            ("Mail Delivery System <MAILER-DAEMON>", NoAddress),
            ("MAILER-DAEMON, alice@gmail.com", NoAddress),
            ("alice@", Malformed),
            ("@gmail.com", Malformed),
            ("a@bank.example b@gmail.com", Malformed),
            ("a@bank.example@gmail.com", Malformed),
            ("<a@bank.example> <b@gmail.com>", Malformed),
            ("<a@bank.example>b@gmail.com", Malformed),
            ("Alice <alice@gmail.com", Malformed),
            ("\"Alice <alice@gmail.com>", Malformed),
            ("a@b.example\0", Malformed),
            (
                "a@b.example, c@d.example",
                ManyDomains(d("b.example"), d("d.example")),
            ),
            (
                "g: a@b.example;, c@d.example",
                ManyDomains(d("b.example"), d("d.example")),
            ),
        ] {
            assert_eq!(of(from), Err(problem), "{from}");
        }
        assert_eq!(author_domain(b"To: a@b.c\r\n\r\nFrom: a@b.c\r\n"), Err(NoFrom));
        assert_eq!(
            author_domain(b"From: a@b.c\r\nfrom : a@b.c\r\n\r\n"),
            Err(ManyFroms(2))
        );
    }

    proptest! {
        #[test]
        fn any_field_is_answered(text in any::<String>(), odd in "[a-z@<>,;:()\\\\\" .\\[\\]]{0,40}") {
            let _ = of(&text);
            let _ = of(&odd);
        }
    }
}
