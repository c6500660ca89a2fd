//! Tag lists: the `name=value; name=value` form of DKIM, ARC and DMARC (RFC 6376 §3.2).

/// A tag list that keeps the grammar of RFC 6376 §3.2, its values without surrounding white space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tags<'a> {
    list: Vec<(&'a str, &'a str)>,
}

impl<'a> Tags<'a> {
    /// Reads a tag list. Folds may stand in it.
    ///
    /// # Errors
    /// In words: no `=`, a name that is none, a value with characters that no value may hold, a
    /// name that stands twice, an empty tag other than behind the last semicolon.
    pub(crate) fn parse(text: &'a str) -> Result<Self, String> {
        let mut list: Vec<(&str, &str)> = Vec::new();
        let mut specs: Vec<&str> = text.split(';').collect();
        if specs
            .last()
            .is_some_and(|last| last.trim_matches(is_fws).is_empty())
        {
            specs.pop();
        }
        if specs.is_empty() {
            return Err("there are no tags".to_owned());
        }
        for spec in specs {
            let (name, value) = spec
                .split_once('=')
                .ok_or_else(|| format!("\"{}\" is no tag=value", spec.trim_matches(is_fws)))?;
            let (name, value) = (name.trim_matches(is_fws), value.trim_matches(is_fws));
            check(name, value)?;
            list.push((name, value));
        }
        let mut names: Vec<&str> = list.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        // RFC 6376 §3.2: a list with the same name twice is invalid.
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("the tag {}= stands twice", pair[0])),
            None => Ok(Self { list }),
        }
    }

    /// The value of a tag. Names are compared with case (RFC 6376 §3.2).
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.list.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    /// The value of a tag that has to be there.
    pub(crate) fn require(&self, name: &str) -> Result<&'a str, String> {
        self.get(name)
            .ok_or_else(|| format!("the tag {name}= is missing"))
    }

    /// The first tag.
    pub(crate) fn first(&self) -> Option<(&'a str, &'a str)> {
        self.list.first().copied()
    }
}

fn check(name: &str, value: &str) -> Result<(), String> {
    let name_ok = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !name_ok {
        return Err(format!("\"{}\" is no tag name", name.escape_debug()));
    }
    // tval is printable ASCII; RFC 8616 §4 adds UTF-8. Folds may part it.
    let value_ok = |c: char| is_fws(c) || matches!(c, '!'..='~') || !c.is_ascii();
    if !value.chars().all(value_ok) {
        return Err(format!(
            "the value of {name}= holds a character that is not allowed"
        ));
    }
    Ok(())
}

/// White space of RFC 6376 §2.8, folds included.
pub(crate) fn is_fws(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// The text without any white space.
pub(crate) fn compact(text: &str) -> String {
    text.chars().filter(|c| !is_fws(*c)).collect()
}

/// Decodes base64 with white space in it (RFC 6376 §2.10). Missing padding is tolerated, bits that
/// must be zero are not looked at, as other verifiers do.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    use base64::alphabet::STANDARD;
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    LENIENT.decode(compact(text)).ok()
}

/// Encodes base64 with padding.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists() {
        let tags = Tags::parse(" v=1 ; a = x y\r\n\tz;e=; b_2=a=b;\r\n ").unwrap();
        assert_eq!(tags.first(), Some(("v", "1")));
        assert_eq!(tags.get("a"), Some("x y\r\n\tz"));
        assert_eq!(tags.get("e"), Some(""));
        assert_eq!(tags.get("b_2"), Some("a=b"));
        assert_eq!(tags.get("V"), None);
        assert!(tags.require("q").is_err());
        for bad in [
            "", " ", ";", "v=1;;a=b", "v", "=1", "1v=1", "v=1; v=2", "v=\u{1}", "a b=c", "v=1;;",
        ] {
            assert!(Tags::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(base64(" aG\r\n k ="), Some(b"hi".to_vec()));
        assert_eq!(base64("aGk"), Some(b"hi".to_vec()));
        assert_eq!(base64("a"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            let _ = Tags::parse(&text);
            let _ = base64(&text);
        }
    }
}
