//! Letters that bear a DKIM signature, written before the clock starts: signing would cost the generator
//! more than sending.
//!
//! Promises: each letter has the size asked for, and its signature is good by the key that `record` publishes.
//! Never: a key that outlives the run.

use crate::corpus::{Corpus, Dice, Heading, Letter, SIZE_OCTETS_MIN};
use crate::load::{Load, Signed};
use crate::problem::{Outcome, Problem, Trying};
use judge::dkim::{KeyKind, Signer, SigningKey};
use mail::{Domain, Timestamp};
use std::sync::Arc;

/// The name of the key below the sender's domain.
pub const SELECTOR: &str = "bench";
/// Letters that are signed; they are sent in turn.
const LETTERS: u64 = 256;
/// Octets of one string in a zone file at most.
const STRING_OCTETS_MAX: usize = 255;

/// The sender's key.
#[derive(Debug)]
pub struct Signing {
    signer: Signer,
    record: String,
}

impl Signing {
    /// Makes a key for the sender's domain.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new(domain: &str) -> Outcome<Self> {
        let key = SigningKey::generate(KeyKind::Rsa2048).trying(|| "a DKIM key".into())?;
        let value = key.dns_record_value().trying(|| "a DKIM key".into())?;
        let strings: Vec<String> = value
            .as_bytes()
            .chunks(STRING_OCTETS_MAX)
            .map(|piece| format!("\"{}\"", String::from_utf8_lossy(piece)))
            .collect();
        let domain = Domain::parse(domain).trying(|| domain.to_owned())?;
        Ok(Self {
            signer: Signer::new(domain, SELECTOR, Arc::new(key)).trying(|| "a DKIM key".into())?,
            record: strings.join(" "),
        })
    }

    /// The TXT record's value, as a zone file has it.
    pub fn record(&self) -> &str {
        &self.record
    }

    /// Letters for this load.
    ///
    /// # Errors
    /// When the key fails, or the size leaves no room for a signature.
    pub fn letters(&self, load: &Load, now: Timestamp) -> Outcome<Signed> {
        let corpus = Corpus::new(load.size);
        let mut dice = Dice::new(now.micros());
        let date = mail::date::rfc5322(now);
        let run = format!("{:x}s", now.micros());
        let mut write = |number: u64, size: usize| {
            let heading = Heading {
                from: &load.from,
                to: &load.rcpt.replace("%d", &number.to_string()),
                date: &date,
                run: &run,
                number,
            };
            Letter::write(&heading, size, &corpus, &mut dice, &mut String::new())
        };
        // The key and the names decide how long a signature is, not the message.
        let field_octets = self.sign(&write(0, load.size), &corpus, now)?.len();
        let size = load
            .size
            .checked_sub(field_octets)
            .filter(|size| *size >= SIZE_OCTETS_MIN)
            .ok_or_else(|| Problem(format!("{} octets leave no room for a signature", load.size)))?;
        let mut letters = Vec::new();
        for number in 0..LETTERS {
            let mut letter = write(number, size);
            letter.head.insert_str(0, &self.sign(&letter, &corpus, now)?);
            letters.push(letter);
        }
        Ok(Signed { corpus, letters })
    }

    fn sign(&self, letter: &Letter, corpus: &Corpus, now: Timestamp) -> Outcome<String> {
        let tail = letter.tail.strip_suffix(b".\r\n").unwrap_or(letter.tail);
        let message = [letter.head.as_bytes(), corpus.at(letter.body.clone()), tail].concat();
        self.signer.sign(&message, now).trying(|| "signing".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn letters_have_their_size_and_one_signature() {
        let signing = Signing::new("sender.example").unwrap();
        let load = Load {
            to: "127.0.0.1:1".parse().unwrap(),
            unix: None,
            sessions: 1,
            messages: 1,
            size: 4096,
            per_connection: 0,
            recipients: 1,
            from: "load@sender.example".into(),
            rcpt: "user%d@bench.example".into(),
            users: 3,
            pipelining: false,
            timeout: Duration::from_secs(1),
            tls: None,
            letters: None,
        };
        let signed = signing
            .letters(&load, Timestamp::from_secs(1_800_000_000))
            .unwrap();
        for letter in &signed.letters {
            let octets = letter.head.len() + letter.body.len() + letter.tail.len();
            assert_eq!(octets, 4096 + 3, "the dot and its line end are not the message's");
            assert!(letter.head.starts_with("DKIM-Signature: v=1; a=rsa-sha256;"));
        }
        assert!(signing.record().starts_with("\"v=DKIM1; k=rsa; p="));
    }
}
