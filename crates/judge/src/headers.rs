//! Header fields that carry the results: Authentication-Results (RFC 8601) and Received-SPF
//! (RFC 7208 §9.1); and finding fields that claim to be ours.
//!
//! Promises: whatever a stranger put into an address, a name or a record, the field that is built
//! is one well-formed field. Never: decides whether a field is believed.

use crate::arc::ArcResult;
use crate::dmarc::DmarcResult;
use crate::evidence::Evidence;
use crate::spf::{Identity, SpfOutcome, SpfResult};
use crate::words;
use mail::header;
use std::ops::Range;

/// Columns at which a field is folded where it can be (RFC 5322 §2.1.1).
const COLUMNS: usize = 78;
/// Octets of a reason that are kept.
const REASON_OCTETS_MAX: usize = 200;
/// Octets of a property's value that are kept; a line stays below 998 octets (RFC 5322 §2.1.1).
const VALUE_OCTETS_MAX: usize = 400;

/// The whole `Authentication-Results` field with its line ending. `authserv_id` is our own name
/// (RFC 8601 §2.5).
#[must_use]
pub fn authentication_results(evidence: &Evidence, authserv_id: &str) -> String {
    folded(
        &format!("Authentication-Results: {}", value(authserv_id)),
        &results(evidence),
    )
}

/// The whole `ARC-Authentication-Results` field with its line ending (RFC 8617 §4.1.1).
pub(crate) fn arc_authentication_results(evidence: &Evidence, authserv_id: &str, instance: u32) -> String {
    folded(
        &format!("ARC-Authentication-Results: i={instance}; {}", value(authserv_id)),
        &results(evidence),
    )
}

/// The results, each a list of words that may be parted by folding.
fn results(evidence: &Evidence) -> Vec<Vec<String>> {
    let mut all = vec![iprev(evidence), spf(&evidence.spf)];
    all.extend(dkim(evidence));
    all.push(dmarc(evidence));
    if evidence.arc.result != ArcResult::None {
        all.push(arc(evidence));
    }
    all
}

fn iprev(evidence: &Evidence) -> Vec<String> {
    let iprev = &evidence.connection.iprev;
    let mut words = vec![format!("iprev={}", iprev.result)];
    if let Some(name) = &iprev.name {
        words.push(comment(name.as_str()));
    }
    words.push(format!("policy.iprev={}", value(&iprev.ip.to_string())));
    words
}

fn spf(spf: &SpfOutcome) -> Vec<String> {
    let (property, identity) = match spf.identity {
        Identity::MailFrom => ("smtp.mailfrom", &spf.sender),
        Identity::Helo => ("smtp.helo", &spf.domain),
    };
    let mut words = vec![format!("spf={}", spf.result)];
    if spf.result != SpfResult::Pass {
        words.push(reason(&spf.because()));
    }
    words.push(format!("{property}={}", value(identity)));
    words
}

fn dkim(evidence: &Evidence) -> Vec<Vec<String>> {
    let signatures = &evidence.dkim.signatures;
    if signatures.is_empty() {
        return vec![vec!["dkim=none".to_owned()]];
    }
    let of_one = |s: &crate::dkim::SignatureOutcome| {
        let mut words = vec![format!("dkim={}", s.result)];
        if let Some(problem) = &s.problem {
            words.push(reason(problem));
        }
        let properties = [
            ("d", s.domain.as_ref().map(ToString::to_string)),
            ("s", s.selector.clone()),
            ("a", s.algorithm.clone()),
            ("b", Some(s.signature_prefix.clone()).filter(|b| !b.is_empty())),
        ];
        for (name, content) in properties {
            if let Some(content) = content {
                words.push(format!("header.{name}={}", value(&content)));
            }
        }
        words
    };
    signatures.iter().map(of_one).collect()
}

fn dmarc(evidence: &Evidence) -> Vec<String> {
    let dmarc = &evidence.dmarc;
    let mut words = vec![format!("dmarc={}", dmarc.result)];
    if let (Some(published), Some(tag)) = (dmarc.published, dmarc.request_tag) {
        words.push(comment(&format!("{tag}={published}")));
    }
    if dmarc.result != DmarcResult::Pass {
        words.push(reason(&dmarc.because));
    }
    if let Some(author) = &dmarc.author_domain {
        words.push(format!("header.from={}", value(author.as_str())));
    }
    words
}

/// RFC 8617 §10.2 has the properties.
fn arc(evidence: &Evidence) -> Vec<String> {
    let arc = &evidence.arc;
    let mut words = vec![format!("arc={}", arc.result)];
    if let Some(sealer) = arc.last_sealer() {
        words.push(comment(&format!("i={} by {sealer}", arc.sets.len())));
    }
    if arc.result != ArcResult::Pass {
        words.push(reason(&arc.because()));
    }
    if let Some(oldest) = arc.oldest_pass {
        words.push(format!("header.oldest-pass={oldest}"));
    }
    words.push(format!("smtp.remote-ip={}", value(&evidence.ip.to_string())));
    words
}

/// The whole `Received-SPF` field with its line ending (RFC 7208 §9.1). `receiver` is our own name.
#[must_use]
pub fn received_spf(spf: &SpfOutcome, envelope_from: &str, receiver: &str) -> String {
    let pair = |key: &str, content: &str| format!("{key}={};", dot_atom_or_quoted(content));
    let mut words = vec![
        comment(&format!("{receiver}: {}", spf.because())),
        pair("client-ip", &spf.ip.to_string()),
        pair("envelope-from", envelope_from),
        pair("helo", &spf.helo),
        pair("receiver", receiver),
        pair("identity", spf.identity.as_str()),
    ];
    if let Some(decision) = &spf.decided_by {
        words.push(pair("mechanism", &decision.term));
    }
    if let (Some(problem), SpfResult::TempError | SpfResult::PermError) = (&spf.problem, spf.result) {
        words.push(pair("problem", problem));
    }
    let mut field = fold(&format!("Received-SPF: {}", spf.result), &words);
    if field.ends_with(';') {
        field.pop();
    }
    field.push_str("\r\n");
    field
}

fn folded(start: &str, results: &[Vec<String>]) -> String {
    let mut field = start.to_owned();
    for words in results {
        field.push_str(";\r\n\t");
        field.push_str(&fold("", words));
    }
    field.push_str("\r\n");
    field
}

/// Joins words by spaces, or by folds where a line would grow too long.
fn fold(start: &str, words: &[String]) -> String {
    let mut text = start.to_owned();
    let mut column = start.len();
    for word in words {
        if column == 0 {
            column = 8;
        } else if column + 1 + word.len() > COLUMNS {
            text.push_str("\r\n\t");
            column = 8;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text
}

fn reason(text: &str) -> String {
    format!("reason={}", quoted(&words::ascii(text, REASON_OCTETS_MAX)))
}

fn comment(text: &str) -> String {
    let safe: String = words::ascii(text, REASON_OCTETS_MAX)
        .chars()
        .map(|c| match c {
            '(' => '[',
            ')' => ']',
            '\\' => '/',
            c => c,
        })
        .collect();
    format!("({safe})")
}

/// A pvalue (RFC 8601 §2.2): a token, an address, or else a quoted string.
fn value(text: &str) -> String {
    let bare_address = text
        .rsplit_once('@')
        .is_some_and(|(local, domain)| is_dot_atom(local) && is_dot_atom(domain));
    if is_token(text) || bare_address {
        return text.to_owned();
    }
    quoted(&cut(text))
}

fn dot_atom_or_quoted(text: &str) -> String {
    if is_dot_atom(text) {
        text.to_owned()
    } else {
        quoted(&cut(text))
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(VALUE_OCTETS_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// RFC 2045 §5.1.
fn is_token(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b);
    (1..=VALUE_OCTETS_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// RFC 5322 §3.2.3.
fn is_dot_atom(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    text.len() <= VALUE_OCTETS_MAX
        && text
            .split('.')
            .all(|atom| !atom.is_empty() && atom.bytes().all(allowed))
}

/// The places of Authentication-Results and Received-SPF fields in `message` that claim to be ours,
/// which a receiver must remove before it adds its own (RFC 8601 §5). A field whose author cannot be
/// read counts when our name stands anywhere in it.
#[must_use]
pub fn forged(message: &[u8], authserv_id: &str) -> Vec<Range<usize>> {
    header::fields(message)
        .filter(|field| {
            (field.is("Authentication-Results") && claims_to_be(&field.value(), authserv_id))
                || (field.is("Received-SPF") && claims_receiver(&field.value(), authserv_id))
        })
        .map(|field| field.span())
        .collect()
}

fn claims_to_be(field_value: &str, authserv_id: &str) -> bool {
    match first_word(field_value) {
        Some(id) => is_our_name(&id, authserv_id),
        None => holds(field_value, authserv_id),
    }
}

/// Whether a Received-SPF field says that we wrote it: by `receiver=`, or by the comment that begins
/// with the receiver's name (RFC 7208 §9.1).
fn claims_receiver(field_value: &str, our_name: &str) -> bool {
    if holds(field_value, &format!("({our_name}:")) {
        return true;
    }
    let Some(text) = without_comments(field_value) else {
        return holds(field_value, our_name);
    };
    split_outside_quotes(&text).iter().any(|part| {
        // The first pair stands behind the result: `pass receiver=…`.
        let pair = part
            .split_once('=')
            .map(|(key, value)| (key.split_whitespace().last(), value.trim()));
        matches!(pair, Some((Some(key), value)) if key.eq_ignore_ascii_case("receiver")
            && is_our_name(value.trim_matches('"'), our_name))
    })
}

fn is_our_name(text: &str, our_name: &str) -> bool {
    text.strip_suffix('.')
        .unwrap_or(text)
        .eq_ignore_ascii_case(our_name)
}

fn holds(text: &str, part: &str) -> bool {
    text.to_ascii_lowercase().contains(&part.to_ascii_lowercase())
}

/// The first token or quoted string behind white space and comments.
fn first_word(text: &str) -> Option<String> {
    let rest = without_comments(text)?;
    let rest = rest.trim_start();
    let Some(inner) = rest.strip_prefix('"') else {
        let end = rest.find([' ', '\t', ';']).unwrap_or(rest.len());
        return Some(rest[..end].to_owned()).filter(|id| !id.is_empty());
    };
    let mut out = String::new();
    let mut chars = inner.chars();
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => out.push(chars.next()?),
            c => out.push(c),
        }
    }
}

/// The text with comments (RFC 5322 §3.2.2) replaced by a space; `None` when one is not closed.
pub(crate) fn without_comments(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut depth = 0u32;
    let mut in_quotes = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if depth > 0 => {
                chars.next();
            }
            '\\' if in_quotes => {
                out.push(c);
                out.extend(chars.next());
            }
            '"' if depth == 0 => {
                in_quotes = !in_quotes;
                out.push(c);
            }
            '(' if !in_quotes => depth += 1,
            ')' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    out.push(' ');
                }
            }
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    (depth == 0).then_some(out)
}

/// Whether recorded results claim this result for this method, outside comments and quotes.
pub(crate) fn claims(results: &str, method: &str, result: &str) -> bool {
    let Some(text) = without_comments(results) else {
        return false;
    };
    split_outside_quotes(&text).iter().any(|part| {
        let Some((name, rest)) = part.split_once('=') else {
            return false;
        };
        // RFC 8601 §2.2: the method may carry a version, `dmarc/1`.
        let name = name.split('/').next().unwrap_or_default().trim();
        let found = rest.trim_start().split([' ', '\t']).next().unwrap_or_default();
        name.eq_ignore_ascii_case(method) && found.eq_ignore_ascii_case(result)
    })
}

fn split_outside_quotes(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut in_quotes = false;
    let mut escaped = false;
    for c in text.chars() {
        if c == '"' && !escaped {
            in_quotes = !in_quotes;
        }
        escaped = c == '\\' && in_quotes && !escaped;
        if c == ';' && !in_quotes {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_injection_safe() {
        assert_eq!(value("a@b.c"), "a@b.c");
        assert_eq!(value("192.0.2.1"), "192.0.2.1");
        assert_eq!(value("2001:db8::1"), "\"2001:db8::1\"");
        assert_eq!(value("x; dmarc=pass"), "\"x; dmarc=pass\"");
        assert_eq!(value("\"a\\b\"@c.d"), "\"\\\"a\\\\b\\\"@c.d\"");
        assert_eq!(value("a\r\nX: y"), "\"a??X: y\"");
        assert_eq!(comment("a) x (b\\"), "(a] x [b/)");
        assert_eq!(value(""), "\"\"");
    }

    #[test]
    fn forged_fields_are_found() {
        let message = b"Authentication-Results: mx.example.com; spf=pass\r\n\
            Authentication-Results: other.example; spf=pass\r\n\
            authentication-results:\r\n (c (d) \\)) MX.example.com 1; none\r\n\
            Authentication-Results: \"mx.example.com\" ; none\r\n\
            Authentication-Results: (open mx.example.com; none\r\n\
            Authentication-Results: mx.example.com.evil; none\r\n\
            Authentication-Results: mx.example.com.; none\r\n\
            Received-SPF: pass client-ip=192.0.2.1; receiver=MX.example.com; helo=x\r\n\
            Received-SPF: pass (mx.example.com: so it is) helo=x\r\n\
            Received-SPF: pass receiver=\"mx.example.com\"\r\n\
            Received-SPF: pass (other.example: from us) helo=mx.example.com; receiver=other.example\r\n\
            Subject: mx.example.com\r\n\r\nAuthentication-Results: mx.example.com; none\r\n";
        let found = forged(message, "mx.example.com");
        let texts: Vec<String> = found
            .iter()
            .map(|r| String::from_utf8_lossy(&message[r.clone()]).into_owned())
            .collect();
        assert_eq!(texts.len(), 8, "{texts:?}");
        assert!(texts[0].ends_with("spf=pass\r\n"));
        assert!(texts[1].contains("MX.example.com 1"));
        assert!(texts[2].contains('"'));
        assert!(texts[3].contains("(open"));
        assert!(texts[4].contains("com.;"));
        assert!(
            texts[5..].iter().all(|t| t.starts_with("Received-SPF: pass ")),
            "{texts:?}"
        );
        assert!(!texts.iter().any(|t| t.contains("receiver=other")));
    }

    #[test]
    fn recorded_results_are_read() {
        let text = "mx.example; spf=fail (dmarc=pass) reason=\"x; dmarc=pass\"; DMARC/1 = pass x.y=z";
        assert!(claims(text, "dmarc", "pass"));
        let text = "mx.example; spf=fail (; dmarc=pass) reason=\"x; dmarc=pass\"; dmarc=fail";
        assert!(!claims(text, "dmarc", "pass"));
        let text = "mx.example; spf=fail smtp.mailfrom=\"a\\\"; dmarc=pass\"";
        assert!(!claims(text, "dmarc", "pass"), "an escaped quote does not close");
    }

    proptest! {
        #[test]
        fn any_value_stays_one_field(text in any::<String>()) {
            let built = value(&text);
            prop_assert!(!built.chars().any(char::is_control));
            if built.starts_with('"') {
                prop_assert_eq!(first_word(&built).map(|w| w.chars().count()), Some(cut(&text).chars().count()));
            } else {
                prop_assert!(!built.contains([';', ' ', '(']));
            }
            let _ = forged(text.as_bytes(), "x");
            let _ = without_comments(&text);
            let _ = claims(&text, "dmarc", "pass");
        }
    }
}
