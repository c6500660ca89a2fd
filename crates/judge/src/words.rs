//! Texts from outside, made fit to be shown to people and to stand in replies and headers.

/// Control characters become `?`; nothing is cut.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Printable ASCII only (the rest becomes `?`), cut at `octets_max` with an ellipsis.
pub(crate) fn ascii(text: &str, octets_max: usize) -> String {
    let mut out: String = text
        .chars()
        .map(|c| if matches!(c, ' '..='~') { c } else { '?' })
        .collect();
    if out.len() > octets_max {
        out.truncate(octets_max.saturating_sub(3));
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn made_fit() {
        assert_eq!(super::printable("a\r\nb\u{1b}é"), "a??b?é");
        assert_eq!(super::ascii("ä\tb", 9), "??b");
        assert_eq!(super::ascii("abcdefgh", 6), "abc...");
    }
}
