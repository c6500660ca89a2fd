//! The sender rewriting scheme: a reverse-path of ours that leads bounces of forwarded mail back to
//! whoever sent it.
//!
//! Who sends a message on is asked by SPF whether it may send for the domain of the reverse-path, and
//! may not, unless that domain is its own. So the reverse-path `user@host` becomes
//!
//! ```text
//! SRS0=tag=day=host=user@ours             the sender itself
//! SRS1=tag=host==tag=day=host=user@ours   a sender that `host` has rewritten already
//! ```
//!
//! and mail to that address is sent to the sender, if the tag says that we made it. Pure: no store, no
//! clock.
//!
//! The tag is the first 30 bits of HMAC-SHA-256 in base32, over everything that decides where the
//! mail goes, letters folded, because mail servers on the way may change their case. The day is that
//! of the Unix era modulo 1024. A rewritten sender stays good for [`VALID_DAYS`]; one that was
//! rewritten twice has no day of ours, as the first one's does for both.

use aws_lc_rs::hmac;
use mail::{Domain, EmailAddress, Host, LocalPart, Timestamp};

/// Days for which a rewritten sender leads back: longer than any queue keeps mail.
pub const VALID_DAYS: u32 = 21;
/// Characters of a tag.
const TAG_LEN: usize = 6;
/// Days after which the number of a day comes again.
const DAYS: u32 = 1_024;
const DAY_SECS: i64 = 86_400;
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Characters that may divide `SRS0` from the rest; we write the first.
const DIVIDERS: [char; 3] = ['=', '+', '-'];
/// Stands for the host where a sender is too long to be written out and is kept instead.
const KEPT: &str = "*";

/// Why a rewritten sender leads nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SrsError {
    /// It has the form's beginning and not the rest.
    #[error("it is not complete")]
    Malformed,
    /// Nobody here made it.
    #[error("its tag is wrong")]
    WrongTag,
    /// It was made too long ago.
    #[error("it is older than {VALID_DAYS} days")]
    TooOld,
}

/// The secret that makes tags.
pub struct SrsKey(hmac::Key);

/// A sender, rewritten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rewritten {
    /// The reverse-path to use.
    Whole(EmailAddress),
    /// The sender is too long for that: this is the reverse-path, and the sender must be kept under
    /// the number.
    Kept(EmailAddress, KeptSender),
}

/// Under which number a sender is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeptSender {
    /// The day, counted from 1970.
    pub day: u32,
    /// Which of that day.
    pub number: u64,
}

/// Whose a rewritten sender is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Original {
    /// This one's.
    Sender(EmailAddress),
    /// It is kept under this number.
    Kept(KeptSender),
}

/// Whether a local part has the form of a rewritten sender.
#[must_use]
pub fn is_rewritten(local: &LocalPart) -> bool {
    split(local.as_str()).is_some()
}

/// The form's digit, and what follows `SRS0` with its divider.
fn split(local: &str) -> Option<(u8, &str)> {
    let head = local.get(..4)?;
    let digit = match head {
        _ if head.eq_ignore_ascii_case("SRS0") => 0,
        _ if head.eq_ignore_ascii_case("SRS1") => 1,
        _ => return None,
    };
    let rest = &local[4..];
    rest.starts_with(DIVIDERS).then_some((digit, rest))
}

impl SrsKey {
    /// The key of a secret.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The reverse-path at `domain` under which mail of `sender` is sent on.
    #[must_use]
    pub fn rewrite(&self, sender: &EmailAddress, domain: &Domain, now: Timestamp) -> Rewritten {
        let day = day_of(now);
        let host = sender.host().to_string();
        let local = match split(sender.local().as_str()) {
            // The opaque part keeps its divider.
            Some((0, rest)) => self.second(&host, rest),
            // The first one to have rewritten it stays the one to go back to.
            Some((_, rest)) => match rest[1..]
                .split_once('=')
                .and_then(|(_, rest)| rest.split_once('='))
            {
                Some((first, opaque)) if Domain::parse(first).is_ok() => self.second(first, opaque),
                _ => self.first(&host, sender.local().as_str(), day),
            },
            None => self.first(&host, sender.local().as_str(), day),
        };
        let host = || Host::Domain(domain.clone());
        let whole = as_local(&local).map(|local| EmailAddress::new(local, host()));
        if let Some(address) = whole.filter(fits) {
            return Rewritten::Whole(address);
        }
        let kept = KeptSender {
            day,
            number: self.number(sender, day),
        };
        let text = format!("{:013}", base32(kept.number, 13));
        let local = self.first(KEPT, &text, day);
        // Always short enough: 5 + 6 + 1 + 2 + 1 + 1 + 1 + 13 octets.
        let local = as_local(&local).unwrap_or_else(|| sender.local().clone());
        Rewritten::Kept(EmailAddress::new(local, host()), kept)
    }

    /// Whose a rewritten sender is.
    ///
    /// # Errors
    /// [`SrsError`]: mail to it must be refused.
    pub fn original(&self, local: &LocalPart, now: Timestamp) -> Result<Original, SrsError> {
        let (digit, rest) = split(local.as_str()).ok_or(SrsError::Malformed)?;
        let (tag, rest) = rest[1..].split_once('=').ok_or(SrsError::Malformed)?;
        let (a, b) = rest.split_once('=').ok_or(SrsError::Malformed)?;
        if digit == 1 {
            self.verify(tag, &[b"SRS1", a.as_bytes(), b.as_bytes()])?;
            let local = as_local(&format!("SRS0{b}")).ok_or(SrsError::Malformed)?;
            return sender(local, a);
        }
        let (host, user) = b.split_once('=').ok_or(SrsError::Malformed)?;
        self.verify(tag, &[b"SRS0", a.as_bytes(), host.as_bytes(), user.as_bytes()])?;
        let made = from_base32(a).ok_or(SrsError::Malformed)?;
        let today = day_of(now);
        let age = (today + DAYS - u32::try_from(made).unwrap_or(0)) % DAYS;
        // A day of grace for a clock that went back.
        if age > VALID_DAYS && age != DAYS - 1 {
            return Err(SrsError::TooOld);
        }
        if host == KEPT {
            let number = from_base32(user).ok_or(SrsError::Malformed)?;
            let day = if age == DAYS - 1 {
                today + 1
            } else {
                today.saturating_sub(age)
            };
            return Ok(Original::Kept(KeptSender { day, number }));
        }
        sender(as_local(user).ok_or(SrsError::Malformed)?, host)
    }

    fn first(&self, host: &str, user: &str, day: u32) -> String {
        let day = base32(u64::from(day % DAYS), 2);
        let tag = self.tag(&[b"SRS0", day.as_bytes(), host.as_bytes(), user.as_bytes()]);
        format!("SRS0={tag}={day}={host}={user}")
    }

    fn second(&self, host: &str, opaque: &str) -> String {
        let tag = self.tag(&[b"SRS1", host.as_bytes(), opaque.as_bytes()]);
        format!("SRS1={tag}={host}={opaque}")
    }

    fn verify(&self, tag: &str, parts: &[&[u8]]) -> Result<(), SrsError> {
        let right = self.tag(parts);
        let tag = tag.to_ascii_lowercase();
        match mail::secret::constant_time_eq(tag.as_bytes(), right.as_bytes()) {
            true => Ok(()),
            false => Err(SrsError::WrongTag),
        }
    }

    fn tag(&self, parts: &[&[u8]]) -> String {
        base32(self.mac(parts) >> (64 - 5 * TAG_LEN), TAG_LEN)
    }

    fn number(&self, sender: &EmailAddress, day: u32) -> u64 {
        self.mac(&[b"kept", &day.to_be_bytes(), sender.to_string().as_bytes()])
    }

    fn mac(&self, parts: &[&[u8]]) -> u64 {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            // Each part's length in front, so that no two lists look alike.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(&part.to_ascii_lowercase());
        }
        let mac = context.sign();
        mac.as_ref()
            .iter()
            .take(8)
            .fold(0, |n, octet| n << 8 | u64::from(*octet))
    }
}

/// The day of a time, counted from 1970.
pub(crate) fn day_of(now: Timestamp) -> u32 {
    u32::try_from(now.secs().div_euclid(DAY_SECS)).unwrap_or(0)
}

fn sender(local: LocalPart, host: &str) -> Result<Original, SrsError> {
    let host = Host::parse(host).map_err(|_| SrsError::Malformed)?;
    let address = EmailAddress::new(local, host);
    // The parts were checked one by one; together they may be too long.
    EmailAddress::parse(&address.to_string())
        .map(Original::Sender)
        .map_err(|_| SrsError::Malformed)
}

/// A local part of any text, quoted where it must be.
fn as_local(text: &str) -> Option<LocalPart> {
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    LocalPart::parse(&format!("\"{quoted}\"")).ok()
}

fn fits(address: &EmailAddress) -> bool {
    EmailAddress::parse(&address.to_string()).is_ok()
}

/// The lowest `len` × 5 bits, the highest first.
fn base32(n: u64, len: usize) -> String {
    (0..len)
        .rev()
        .map(|i| char::from(BASE32[(n >> (5 * i) & 31) as usize]))
        .collect()
}

fn from_base32(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 13 {
        return None;
    }
    text.bytes().try_fold(0u64, |n, octet| {
        let octet = octet.to_ascii_lowercase();
        let digit = BASE32.iter().position(|b| *b == octet)?;
        n.checked_mul(32)?.checked_add(digit as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn address(text: &str) -> EmailAddress {
        EmailAddress::parse(text).unwrap()
    }

    fn key() -> SrsKey {
        SrsKey::new(b"a secret of thirty-two octets ..")
    }

    fn ours() -> Domain {
        Domain::parse("ours.example").unwrap()
    }

    fn whole(key: &SrsKey, sender: &str, at: &str) -> EmailAddress {
        match key.rewrite(&address(sender), &Domain::parse(at).unwrap(), NOW) {
            Rewritten::Whole(address) => address,
            Rewritten::Kept(address, _) => panic!("{address} is kept"),
        }
    }

    fn later(days: i64) -> Timestamp {
        Timestamp::from_secs(NOW.secs() + days * DAY_SECS)
    }

    #[test]
    fn there_and_back() {
        let rewritten = whole(&key(), "Bob@example.net", "ours.example");
        let text = rewritten.to_string();
        assert!(
            text.starts_with("SRS0=") && text.ends_with("=example.net=Bob@ours.example"),
            "{text}"
        );
        assert!(is_rewritten(rewritten.local()));
        let back = key().original(rewritten.local(), later(21)).unwrap();
        assert_eq!(back, Original::Sender(address("Bob@example.net")));
        let folded = LocalPart::parse(&rewritten.local().as_str().to_lowercase()).unwrap();
        let back = key().original(&folded, NOW).unwrap();
        assert_eq!(
            back,
            Original::Sender(address("bob@example.net")),
            "folded on the way"
        );
    }

    #[test]
    fn what_leads_nowhere() {
        let good = whole(&key(), "bob@example.net", "ours.example");
        let local = |text: &str| LocalPart::parse(text).unwrap();
        let text = good.local().as_str().to_owned();
        for (local, now, expected) in [
            (good.local().clone(), later(22), SrsError::TooOld),
            (good.local().clone(), later(-2), SrsError::TooOld),
            (local(&text.replace("bob", "eve")), NOW, SrsError::WrongTag),
            (
                local(&text.replace("example.net", "example.org")),
                NOW,
                SrsError::WrongTag,
            ),
            (local("SRS0=aaaaaa=aa=example.net=bob"), NOW, SrsError::WrongTag),
            (local("SRS0==aa=example.net=bob"), NOW, SrsError::WrongTag),
            (local("SRS0=aaaaaa"), NOW, SrsError::Malformed),
            (local("SRS1=aaaaaa=example.net==x"), NOW, SrsError::WrongTag),
        ] {
            assert_eq!(key().original(&local, now), Err(expected), "{local}");
        }
        let other = SrsKey::new(b"another secret");
        assert_eq!(other.original(good.local(), NOW), Err(SrsError::WrongTag));
        assert!(!is_rewritten(&local("srs0")) && !is_rewritten(&local("srs0x=a")));
    }

    #[test]
    fn many_hops_come_back_to_the_first() {
        let (first, second, third) = (SrsKey::new(b"1"), SrsKey::new(b"2"), SrsKey::new(b"3"));
        let one = whole(&first, "bob@a.example", "b.example");
        let two = whole(&second, &one.to_string(), "c.example");
        assert!(two.to_string().starts_with("SRS1="), "{two}");
        let three = whole(&third, &two.to_string(), "d.example");
        assert!(three.to_string().contains("=b.example=="), "{three}");
        for (key, address) in [(&second, two), (&third, three)] {
            assert_eq!(
                key.original(address.local(), later(500)).unwrap(),
                Original::Sender(one.clone())
            );
        }
    }

    #[test]
    fn a_long_sender_is_kept() {
        let long = address(&format!("{}@{}.example", "a".repeat(40), "b".repeat(40)));
        let Rewritten::Kept(rewritten, kept) = key().rewrite(&long, &ours(), NOW) else {
            panic!("it does not fit");
        };
        assert!(rewritten.local().as_str().len() <= 64);
        for days in [0, 21] {
            let original = key().original(rewritten.local(), later(days)).unwrap();
            assert_eq!(original, Original::Kept(kept));
        }
    }

    proptest! {
        #[test]
        fn any_sender_comes_back(text in "[!-~]{1,30}@[a-z]{1,12}\\.(net|example)", days in 0i64..=21) {
            if let Ok(sender) = EmailAddress::parse(&text) {
                match key().rewrite(&sender, &ours(), NOW) {
                    Rewritten::Whole(address) => {
                        prop_assert_eq!(&EmailAddress::parse(&address.to_string()).unwrap(), &address);
                        let back = key().original(address.local(), later(days)).unwrap();
                        prop_assert_eq!(back, Original::Sender(sender));
                    }
                    Rewritten::Kept(address, kept) => {
                        let back = key().original(address.local(), later(days)).unwrap();
                        prop_assert_eq!(back, Original::Kept(kept));
                    }
                }
            }
        }

        #[test]
        fn any_local_part_is_answered(text in "(?i)srs[01][=+-]\\PC{0,40}") {
            if let Some(local) = as_local(&text) {
                prop_assert!(key().original(&local, NOW).is_err());
            }
        }
    }
}
