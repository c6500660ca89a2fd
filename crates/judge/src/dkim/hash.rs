//! Hashes and checks of signatures, shared by DKIM and ARC.

use super::canon::{self, Canon};
use super::key::PublicKey;
use aws_lc_rs::digest::{Context, SHA256, digest};
use aws_lc_rs::signature::{ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};
use mail::header::Field;
use std::collections::HashMap;

/// The hash of a canonical body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyHash {
    /// SHA-256 of the part that is signed.
    pub(crate) sha256: [u8; 32],
    /// Octets of the whole canonical body.
    pub(crate) octets: u64,
}

/// Hashes of one message's body, each way computed once.
pub(crate) struct BodyHashes<'a> {
    body: &'a [u8],
    known: HashMap<(Canon, Option<u64>), BodyHash>,
}

impl<'a> BodyHashes<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self {
            body,
            known: HashMap::new(),
        }
    }

    /// The hash of the first `length` octets of the canonical body; of all when `None`.
    pub(crate) fn of(&mut self, canon: Canon, length: Option<u64>) -> BodyHash {
        let body = self.body;
        *self
            .known
            .entry((canon, length))
            .or_insert_with(|| hash_body(body, canon, length))
    }
}

/// Hashes a body in one pass.
pub(crate) fn hash_body(body: &[u8], canon: Canon, length: Option<u64>) -> BodyHash {
    let mut context = Context::new(&SHA256);
    let mut octets = 0u64;
    canon::body(body, canon, &mut |piece| {
        let room = length.map_or(u64::MAX, |l| l.saturating_sub(octets));
        let take = usize::try_from(room).unwrap_or(usize::MAX).min(piece.len());
        context.update(&piece[..take]);
        octets += piece.len() as u64;
    });
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(context.finish().as_ref());
    BodyHash { sha256, octets }
}

/// The fields of a message by name, from which signatures take theirs bottom up (RFC 6376 §5.4.2).
pub(crate) struct FieldIndex<'m> {
    fields: Vec<Field<'m>>,
    by_name: HashMap<Vec<u8>, Vec<usize>>,
}

impl<'m> FieldIndex<'m> {
    pub(crate) fn new(message: &'m [u8]) -> Self {
        let fields: Vec<Field<'m>> = mail::header::fields(message).collect();
        let mut by_name: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (i, field) in fields.iter().enumerate() {
            by_name
                .entry(field.name.to_ascii_lowercase())
                .or_default()
                .push(i);
        }
        Self { fields, by_name }
    }

    /// All fields of that lower-case name, from the top.
    pub(crate) fn named(&self, name: &str) -> Vec<Field<'m>> {
        let places = self.by_name.get(name.as_bytes()).map_or(&[][..], Vec::as_slice);
        places.iter().map(|i| self.fields[*i]).collect()
    }

    /// What a signature signs: the named fields and, at the end, the signature's own field.
    pub(crate) fn signed_data(&self, names: &[String], own: &Field<'m>, canon: Canon) -> Vec<u8> {
        let mut out = Vec::new();
        let mut used: HashMap<&str, usize> = HashMap::new();
        for name in names {
            let places = self.by_name.get(name.as_bytes()).map_or(&[][..], Vec::as_slice);
            let count = used.entry(name.as_str()).or_default();
            if let Some(place) = self.nth_up(places, *count, own) {
                *count += 1;
                canon::field(&self.fields[place], canon, &mut out);
            }
        }
        canon::signature_field(own, canon, &mut out);
        out
    }

    /// The place of the `nth` field from the bottom, not counting `own`: a signature never signs
    /// itself by name.
    fn nth_up(&self, places: &[usize], nth: usize, own: &Field<'_>) -> Option<usize> {
        let own_at = places.binary_search_by_key(&own.offset, |i| self.fields[*i].offset);
        let from_top = places.len().checked_sub(nth + 1)?;
        match own_at {
            Ok(own_at) if from_top <= own_at => from_top.checked_sub(1).map(|i| places[i]),
            _ => Some(places[from_top]),
        }
    }
}

/// Whether `signature` over `data` is right for the key.
pub(crate) fn holds(key: &PublicKey, data: &[u8], signature: &[u8]) -> bool {
    match key {
        PublicKey::Rsa { der, .. } => {
            UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, der)
                .verify(data, signature)
                .is_ok()
        }
        // RFC 8463 §3: Ed25519 signs the SHA-256 hash of the data.
        PublicKey::Ed25519(raw) => UnparsedPublicKey::new(&ED25519, raw)
            .verify(digest(&SHA256, data).as_ref(), signature)
            .is_ok(),
    }
}
