//! XCLIENT: a proxy in front tells whom it speaks for. No RFC; the facts are those that Postfix
//! publishes in its XCLIENT_README.
//!
//! Promises: every value is decoded and of its kind, or the line is refused. Never: whether the client
//! may say it; that is decided by its address.

use crate::command::HELO_OCTETS_MAX;
use crate::replies;
use crate::reply::Reply;
use mail::delivery::xtext;
use std::net::IpAddr;

/// What EHLO offers, to those who may.
pub(crate) const OFFER: &str = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";

/// A value: told, or told to be unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told<T> {
    /// This is it.
    This(T),
    /// `[UNAVAILABLE]`: there is none.
    Unavailable,
    /// `[TEMPUNAVAIL]`: it could not be found out for now.
    TemporarilyUnavailable,
}

impl<T> Told<T> {
    /// The value, when there is one.
    pub fn known(self) -> Option<T> {
        match self {
            Told::This(value) => Some(value),
            Told::Unavailable | Told::TemporarilyUnavailable => None,
        }
    }
}

/// What one XCLIENT tells; what it does not name stays as it was.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attributes {
    /// The client's name in the DNS, as the proxy found it.
    pub name: Option<Told<String>>,
    /// The client's address.
    pub address: Option<Told<IpAddr>>,
    /// The client's port.
    pub port: Option<Told<u16>>,
    /// Whether the client said EHLO (`ESMTP`) rather than HELO (`SMTP`).
    pub extended: Option<bool>,
    /// What the client said in EHLO or HELO.
    pub helo: Option<Told<String>>,
    /// Who logged in at the proxy.
    pub login: Option<Told<String>>,
    /// The address that the client called.
    pub destination: Option<Told<IpAddr>>,
    /// The port that the client called.
    pub destination_port: Option<Told<u16>>,
}

/// Reads what stands behind the verb.
///
/// # Errors
/// The reply that says what is wrong.
pub(crate) fn parse(rest: &str) -> Result<Attributes, Reply> {
    let mut attributes = Attributes::default();
    let mut seen: Vec<String> = Vec::new();
    for word in rest.split_ascii_whitespace() {
        let (key, value) = word.split_once('=').ok_or(replies::XCLIENT_SYNTAX)?;
        let key = key.to_ascii_uppercase();
        if seen.contains(&key) {
            return Err(replies::PARAMETER_TWICE);
        }
        let value = xtext::decode(value).ok_or(replies::PARAMETER_VALUE)?;
        set(&mut attributes, &key, &value)?;
        seen.push(key);
    }
    if seen.is_empty() {
        return Err(replies::XCLIENT_SYNTAX);
    }
    Ok(attributes)
}

fn set(attributes: &mut Attributes, key: &str, value: &str) -> Result<(), Reply> {
    match key {
        "NAME" => attributes.name = Some(told(value, word)?),
        "ADDR" => attributes.address = Some(told(value, address)?),
        "PORT" => attributes.port = Some(told(value, |v| v.parse().ok())?),
        "PROTO" => {
            attributes.extended = Some(match value.to_ascii_uppercase().as_str() {
                "SMTP" => false,
                "ESMTP" => true,
                _ => return Err(replies::PARAMETER_VALUE),
            });
        }
        "HELO" => attributes.helo = Some(told(value, word)?),
        "LOGIN" => attributes.login = Some(told(value, word)?),
        "DESTADDR" => attributes.destination = Some(told(value, address)?),
        "DESTPORT" => attributes.destination_port = Some(told(value, |v| v.parse().ok())?),
        _ => return Err(replies::XCLIENT_SYNTAX),
    }
    Ok(())
}

fn told<T>(value: &str, read: impl Fn(&str) -> Option<T>) -> Result<Told<T>, Reply> {
    match value.to_ascii_uppercase().as_str() {
        "[UNAVAILABLE]" => Ok(Told::Unavailable),
        "[TEMPUNAVAIL]" => Ok(Told::TemporarilyUnavailable),
        _ => read(value).map(Told::This).ok_or(replies::PARAMETER_VALUE),
    }
}

/// As for EHLO: one printable word.
fn word(value: &str) -> Option<String> {
    let good = !value.is_empty()
        && value.len() <= HELO_OCTETS_MAX
        && !value.chars().any(|c| c.is_whitespace() || c.is_control());
    good.then(|| value.to_owned())
}

/// `192.0.2.1`, `IPv6:2001:db8::1`; the prefix may be missing.
fn address(value: &str) -> Option<IpAddr> {
    let bare = match value.get(..5) {
        Some(prefix) if prefix.eq_ignore_ascii_case("ipv6:") => &value[5..],
        _ => value,
    };
    bare.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told() {
        let a = parse("NAME=[UNAVAILABLE] ADDR=192.0.2.7 PORT=1025 proto=esmtp HELO=spike.example LOGIN=mia+40example.com DESTADDR=IPv6:2001:db8::1 DESTPORT=25").unwrap();
        assert_eq!(a.name, Some(Told::Unavailable));
        assert_eq!(
            a.address.and_then(Told::known),
            Some("192.0.2.7".parse().unwrap())
        );
        assert_eq!(a.port, Some(Told::This(1025)));
        assert_eq!(a.extended, Some(true));
        assert_eq!(a.login, Some(Told::This("mia@example.com".to_owned())));
        assert_eq!(a.destination, Some(Told::This("2001:db8::1".parse().unwrap())));
        let a = parse("ADDR=[tempunavail]").unwrap();
        assert_eq!(a.address, Some(Told::TemporarilyUnavailable));
    }

    #[test]
    fn what_is_refused() {
        for line in [
            "",
            "ADDR",
            "ADDR=",
            "ADDR=nowhere",
            "ADDR=1.2.3.4 ADDR=1.2.3.4",
            "PORT=65536",
            "PROTO=HTTP",
            "HELO=a+0D+0Ab",
            "HELO=a+20b",
            "HELO=+4",
            "COLOUR=red",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
