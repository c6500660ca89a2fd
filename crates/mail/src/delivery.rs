//! What a sender may ask about a message's delivery, as parameters of MAIL and RCPT: reports
//! (RFC 3461, RFC 6533), a deadline (RFC 2852), a later release (RFC 4865), a priority (RFC 6710).
//!
//! Promises: `parse` reads the parameter's value and nothing else; `Display` writes what `parse` reads
//! back as the same value; every text fits on a command line. Never: whether the wish is granted.

use crate::Timestamp;
use crate::date::parse_rfc3339;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Octets of an ENVID in its encoded form at most (RFC 3461 §4.4).
pub const ENVID_OCTETS_MAX: usize = 100;
/// Octets of an ORCPT in its encoded form at most (RFC 3461 §4.2).
pub const ORCPT_OCTETS_MAX: usize = 500;
/// Digits of a by-time or a hold time at most (RFC 2852 §4, RFC 4865 §3).
const SECONDS_DIGITS_MAX: usize = 9;

/// The `xtext` of RFC 3461 §4: octets outside `!` to `~`, and `+` and `=`, as `+XX`.
pub mod xtext {
    use std::fmt::Write as _;

    /// Writes any text as xtext.
    #[must_use]
    pub fn encode(text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for octet in text.bytes() {
            match octet {
                b'!'..=b'~' if octet != b'+' && octet != b'=' => out.push(char::from(octet)),
                _ => {
                    // Writing to a string cannot fail.
                    let _ = write!(out, "+{octet:02X}");
                }
            }
        }
        out
    }

    /// Reads xtext. `None` when it is ill-formed, or when what it stands for is not UTF-8.
    #[must_use]
    pub fn decode(text: &str) -> Option<String> {
        let mut out = Vec::with_capacity(text.len());
        let mut octets = text.bytes();
        while let Some(octet) = octets.next() {
            match octet {
                b'+' => {
                    let high = hex_digit(octets.next()?)?;
                    let low = hex_digit(octets.next()?)?;
                    out.push(high << 4 | low);
                }
                b'=' => return None,
                b'!'..=b'~' => out.push(octet),
                _ => return None,
            }
        }
        String::from_utf8(out).ok()
    }

    /// RFC 3461 §4 writes upper case; some clients write lower case and mean the same.
    fn hex_digit(octet: u8) -> Option<u8> {
        char::from(octet).to_digit(16).and_then(|d| u8::try_from(d).ok())
    }
}

/// Reads the value of ENVID (RFC 3461 §4.4): xtext of printable ASCII. `None` when it is none.
#[must_use]
pub fn parse_envid(value: &str) -> Option<String> {
    let fits = !value.is_empty() && value.len() <= ENVID_OCTETS_MAX;
    let envid = fits.then(|| xtext::decode(value))??;
    envid.bytes().all(|b| (b' '..=b'~').contains(&b)).then_some(envid)
}

/// How much of the message a report brings back (RFC 3461 §4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header only.
    Headers,
}

impl Ret {
    /// Reads the value of RET.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        match value.to_ascii_uppercase().as_str() {
            "FULL" => Some(Self::Full),
            "HDRS" => Some(Self::Headers),
            _ => None,
        }
    }
}

impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        })
    }
}

/// When the sender wants a report about a recipient (RFC 3461 §4.1). Nothing set means NEVER.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Notify {
    /// When the message has arrived.
    pub success: bool,
    /// When it cannot arrive.
    pub failure: bool,
    /// When it is late.
    pub delay: bool,
}

impl Notify {
    /// No report at all.
    pub const NEVER: Notify = Notify {
        success: false,
        failure: false,
        delay: false,
    };

    /// Reads the value of NOTIFY.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        if value.eq_ignore_ascii_case("NEVER") {
            return Some(Self::NEVER);
        }
        let mut notify = Self::NEVER;
        for word in value.split(',') {
            let wish = match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => &mut notify.success,
                "FAILURE" => &mut notify.failure,
                "DELAY" => &mut notify.delay,
                _ => return None,
            };
            if std::mem::replace(wish, true) {
                return None;
            }
        }
        Some(notify)
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wishes = [
            (self.success, "SUCCESS"),
            (self.failure, "FAILURE"),
            (self.delay, "DELAY"),
        ];
        let said: Vec<&str> = wishes.iter().filter(|w| w.0).map(|w| w.1).collect();
        f.write_str(if said.is_empty() { "NEVER" } else { "" })?;
        f.write_str(&said.join(","))
    }
}

/// The recipient that the first sender named (RFC 3461 §4.2, RFC 6533 §3).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OriginalRecipient {
    /// The address type, in lower case: `rfc822`, `utf-8` or another.
    pub addr_type: String,
    /// The address, decoded. Holds no control characters.
    pub address: String,
}

impl OriginalRecipient {
    /// Reads the value of ORCPT: `rfc822;Bob@big-bucks.com`. The type `utf-8` may hold characters
    /// beyond ASCII as they are (RFC 6533 §3).
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        if value.len() > ORCPT_OCTETS_MAX {
            return None;
        }
        let (addr_type, address) = value.split_once(';')?;
        let is_atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b);
        if addr_type.is_empty() || !addr_type.bytes().all(is_atom) {
            return None;
        }
        let addr_type = addr_type.to_ascii_lowercase();
        let address = match addr_type.as_str() {
            "utf-8" => unicode::decode(address)?,
            _ => xtext::decode(address)?,
        };
        let is_clean = !address.is_empty() && !address.chars().any(char::is_control);
        is_clean.then_some(Self { addr_type, address })
    }
}

impl fmt::Display for OriginalRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = match self.addr_type.as_str() {
            "utf-8" => unicode::encode(&self.address),
            _ => xtext::encode(&self.address),
        };
        write!(f, "{};{address}", self.addr_type)
    }
}

/// The address forms of the type `utf-8` (RFC 6533 §3): what is not plain ASCII as `\x{HEX}`.
mod unicode {
    use std::fmt::Write as _;

    fn is_plain(c: char) -> bool {
        c.is_ascii_graphic() && !matches!(c, '\\' | '+' | '=')
    }

    pub(super) fn encode(text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            if is_plain(c) {
                out.push(c);
            } else {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\x{{{:02X}}}", u32::from(c));
            }
        }
        out
    }

    pub(super) fn decode(text: &str) -> Option<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if c == '\\' {
                let (hex, behind) = rest.strip_prefix("\\x{")?.split_once('}')?;
                let is_point = (2..=6).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit());
                let point = is_point.then(|| u32::from_str_radix(hex, 16).ok())??;
                out.push(char::from_u32(point)?);
                rest = behind;
            } else if is_plain(c) || !c.is_ascii() {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            } else {
                return None;
            }
        }
        Some(out)
    }
}

/// What happens when the deadline passes (RFC 2852 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ByMode {
    /// The message comes back.
    Return,
    /// The sender is told of the delay, and it goes on.
    Notify,
}

/// By when the message is to be there (RFC 2852).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeliverBy {
    /// Seconds left; zero or less when the time is over already.
    pub seconds: i64,
    /// What happens then.
    pub mode: ByMode,
    /// Whether each hand-over on the way is to be reported.
    pub trace: bool,
}

impl DeliverBy {
    /// Reads the value of BY: `120;R`, `-10;NT`. A message that is to come back needs time left.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let (time, mode) = value.split_once(';')?;
        let (sign, digits) = match time.as_bytes().first()? {
            b'-' => (-1, &time[1..]),
            b'+' => (1, &time[1..]),
            _ => (1, time),
        };
        let seconds = sign * seconds(digits)?;
        let (mode, trace) = match mode.to_ascii_uppercase().as_str() {
            "R" => (ByMode::Return, false),
            "RT" => (ByMode::Return, true),
            "N" => (ByMode::Notify, false),
            "NT" => (ByMode::Notify, true),
            _ => return None,
        };
        let is_possible = seconds > 0 || mode == ByMode::Notify;
        is_possible.then_some(Self { seconds, mode, trace })
    }
}

impl fmt::Display for DeliverBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            ByMode::Return => "R",
            ByMode::Notify => "N",
        };
        let trace = if self.trace { "T" } else { "" };
        write!(f, "{};{mode}{trace}", self.seconds)
    }
}

/// The message transfer priority: −9 to 9, higher goes first (RFC 6710 §4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "i8", into = "i8")]
pub struct Priority(i8);

impl Priority {
    /// What a message has that asks for nothing.
    pub const NORMAL: Priority = Priority(0);

    /// `None` outside −9 to 9.
    #[must_use]
    pub fn new(value: i8) -> Option<Self> {
        (-9..=9).contains(&value).then_some(Self(value))
    }

    /// −9 to 9.
    #[must_use]
    pub const fn value(self) -> i8 {
        self.0
    }

    /// Reads the value of MT-PRIORITY: an optional minus and one digit.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let digits = value.strip_prefix('-').unwrap_or(value);
        let is_one_digit = digits.len() == 1 && digits.bytes().all(|b| b.is_ascii_digit());
        is_one_digit
            .then(|| value.parse().ok())
            .flatten()
            .and_then(Self::new)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl TryFrom<i8> for Priority {
    type Error = &'static str;

    fn try_from(value: i8) -> Result<Self, Self::Error> {
        Self::new(value).ok_or("a priority is -9 to 9")
    }
}

impl From<Priority> for i8 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

/// When a message that was handed in early is to go (RFC 4865).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// HOLDFOR: after so many seconds, at least 1.
    For(u64),
    /// HOLDUNTIL: then.
    Until(Timestamp),
}

impl Hold {
    /// Reads the value of HOLDFOR.
    #[must_use]
    pub fn parse_for(value: &str) -> Option<Self> {
        let seconds = u64::try_from(seconds(value)?).ok()?;
        (seconds > 0).then_some(Self::For(seconds))
    }

    /// Reads the value of HOLDUNTIL, a date and time of RFC 3339.
    #[must_use]
    pub fn parse_until(value: &str) -> Option<Self> {
        parse_rfc3339(value).map(Self::Until)
    }

    /// When that is.
    #[must_use]
    pub fn release(self, now: Timestamp) -> Timestamp {
        match self {
            Self::For(seconds) => now.plus(std::time::Duration::from_secs(seconds)),
            Self::Until(at) => at,
        }
    }
}

fn seconds(digits: &str) -> Option<i64> {
    let fits = !digits.is_empty() && digits.len() <= SECONDS_DIGITS_MAX;
    let is_number = fits && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn xtext_of_rfc_3461() {
        assert_eq!(xtext::encode("a+b=c d"), "a+2Bb+3Dc+20d");
        assert_eq!(xtext::decode("a+2Bb+3Dc+20d").as_deref(), Some("a+b=c d"));
        for bad in ["a+", "a+2", "a+2G", "a=b", "a b", "ü", "+FF"] {
            assert_eq!(xtext::decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn envelope_ids() {
        assert_eq!(parse_envid("QQ314159").as_deref(), Some("QQ314159"));
        assert_eq!(parse_envid("a+20b").as_deref(), Some("a b"));
        let long = "a".repeat(101);
        for bad in ["", "a+0D+0Ab", "a+C3+BC", &long] {
            assert_eq!(parse_envid(bad), None, "{bad}");
        }
    }

    #[test]
    fn wishes_for_reports() {
        for text in ["NEVER", "SUCCESS", "FAILURE,DELAY", "SUCCESS,FAILURE,DELAY"] {
            assert_eq!(Notify::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Notify::parse("delay,success").unwrap().to_string(),
            "SUCCESS,DELAY"
        );
        for bad in ["", "NEVER,DELAY", "SUCCESS,SUCCESS", "SUCCESS,", "MAYBE"] {
            assert_eq!(Notify::parse(bad), None, "{bad}");
        }
        assert_eq!(Ret::parse("hdrs"), Some(Ret::Headers));
        assert_eq!(Ret::parse("FULL").unwrap().to_string(), "FULL");
        assert_eq!(Ret::parse("HALF"), None);
    }

    #[test]
    fn original_recipients() {
        let o = OriginalRecipient::parse("RFC822;Bob+2Btag@big-bucks.com").unwrap();
        assert_eq!(
            (o.addr_type.as_str(), o.address.as_str()),
            ("rfc822", "Bob+tag@big-bucks.com")
        );
        assert_eq!(o.to_string(), "rfc822;Bob+2Btag@big-bucks.com");
        let o = OriginalRecipient::parse("utf-8;j\\x{F6}rg@example.com").unwrap();
        assert_eq!(o.address, "jörg@example.com");
        assert_eq!(OriginalRecipient::parse("utf-8;jörg@example.com").unwrap(), o);
        assert_eq!(o.to_string(), "utf-8;j\\x{F6}rg@example.com");
        for bad in [
            "rfc822",
            ";a@b",
            "rfc822;",
            "rfc 822;a@b",
            "rfc822;a+0A@b",
            "rfc822;ü@b",
            "utf-8;a\\x{D800}",
            "utf-8;a\\x{0A}",
            "utf-8;a b",
            "utf-8;\\x{",
        ] {
            assert_eq!(OriginalRecipient::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn deadlines_releases_priorities() {
        let by = DeliverBy::parse("120;RT").unwrap();
        assert_eq!((by.seconds, by.mode, by.trace), (120, ByMode::Return, true));
        assert_eq!(DeliverBy::parse("-10;n").unwrap().to_string(), "-10;N");
        for bad in ["", "120", "0;R", "-1;R", "1234567890;R", "1;T", ";R", "+;R"] {
            assert_eq!(DeliverBy::parse(bad), None, "{bad}");
        }
        assert_eq!(Hold::parse_for("60"), Some(Hold::For(60)));
        assert_eq!(Hold::parse_for("0"), None);
        let until = Hold::parse_until("2026-11-23T13:04:13Z").unwrap();
        assert_eq!(
            until.release(Timestamp(0)),
            parse_rfc3339("2026-11-23T13:04:13Z").unwrap()
        );
        assert_eq!(Priority::parse("-9").map(Priority::value), Some(-9));
        for bad in ["", "10", "+3", "--1", "-"] {
            assert_eq!(Priority::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(text in "[ -~]{1,30}", point in proptest::char::any()) {
            prop_assert_eq!(xtext::decode(&xtext::encode(&text)), Some(text.clone()));
            let address = format!("{text}{point}");
            let value = OriginalRecipient { addr_type: "utf-8".to_owned(), address };
            let back = OriginalRecipient::parse(&value.to_string());
            prop_assert_eq!(back, (!point.is_control()).then_some(value));
        }

        #[test]
        fn any_value_is_answered(value in ".{0,60}") {
            let _ = (Notify::parse(&value), Ret::parse(&value), DeliverBy::parse(&value), Priority::parse(&value));
            let _ = (Hold::parse_for(&value), Hold::parse_until(&value), parse_envid(&value));
            let _ = OriginalRecipient::parse(&value);
        }
    }
}
