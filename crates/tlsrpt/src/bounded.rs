//! Reading JSON from strangers: of a list the first so many members, of a text the first octets; a
//! list where one text is written as such; numbers that are none as 0.

use crate::clean;
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

/// The first `MAX` members of a list; the others are read and forgotten.
pub(crate) fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(List::<T, MAX>(PhantomData))
}

struct List<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Vec<T>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < MAX {
            match members.next_element()? {
                Some(member) => kept.push(member),
                None => return Ok(kept),
            }
        }
        while members.next_element::<IgnoredAny>()?.is_some() {}
        Ok(kept)
    }
}

/// Texts: a list of them, or one alone, as the RFC's own example has it.
pub(crate) fn texts<'de, D, const MAX: usize>(deserializer: D) -> Result<Vec<String>, D::Error>
where
    D: Deserializer<'de>,
{
    let values: OneOrMany<MAX> = Deserialize::deserialize(deserializer)?;
    Ok(values.0)
}

struct OneOrMany<const MAX: usize>(Vec<String>);

impl<'de, const MAX: usize> Deserialize<'de> for OneOrMany<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts<const MAX: usize>;
        impl<'de, const MAX: usize> Visitor<'de> for Texts<MAX> {
            type Value = Vec<String>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_unit<E>(self) -> Result<Vec<String>, E> {
                Ok(Vec::new())
            }

            fn visit_str<E>(self, text: &str) -> Result<Vec<String>, E> {
                Ok(vec![clean(text)])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, members: A) -> Result<Vec<String>, A::Error> {
                let texts = List::<Text, MAX>(PhantomData).visit_seq(members)?;
                Ok(texts.into_iter().map(|text| text.0).collect())
            }
        }
        deserializer.deserialize_any(Texts::<MAX>).map(Self)
    }
}

/// A text, cleaned; anything else is none.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        optional(deserializer).map(|text| Self(text.unwrap_or_default()))
    }
}

/// A text, cleaned; `None` when there is none or something else stands there.
pub(crate) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    deserializer.deserialize_any(Scalar).map(|scalar| match scalar {
        Read::Text(text) if !text.is_empty() => Some(text),
        _ => None,
    })
}

/// A text, cleaned; empty when there is none.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    optional(deserializer).map(Option::unwrap_or_default)
}

/// An address; `None` when none that can be read stands there.
pub(crate) fn ip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    let text = optional(deserializer)?;
    Ok(text.and_then(|text| text.trim().trim_matches(['[', ']']).parse().ok()))
}

/// A count; some write it as a text. 0 when none stands there.
pub(crate) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(Scalar).map(|scalar| match scalar {
        Read::Number(n) => n,
        Read::Text(text) => text.trim().parse().unwrap_or(0),
        Read::Other => 0,
    })
}

enum Read {
    Text(String),
    Number(u64),
    Other,
}

struct Scalar;

impl<'de> Visitor<'de> for Scalar {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }

    fn visit_str<E>(self, text: &str) -> Result<Read, E> {
        Ok(Read::Text(clean(text)))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Read, E> {
        Ok(Read::Number(n))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Read, E> {
        Ok(Read::Number(u64::try_from(n).unwrap_or(0)))
    }

    fn visit_f64<E>(self, n: f64) -> Result<Read, E> {
        // Saturates; what is no number is 0.
        Ok(Read::Number(n as u64))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Read, E> {
        Ok(Read::Other)
    }

    fn visit_unit<E>(self) -> Result<Read, E> {
        Ok(Read::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Read, A::Error> {
        while members.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Read::Other)
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut members: A) -> Result<Read, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Read::Other)
    }
}
