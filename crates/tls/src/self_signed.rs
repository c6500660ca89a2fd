//! The certificate that a server makes for itself on its first start, so that TLS is there at once.
//!
//! Key and certificate stand in one file (`self-signed.pem`, mode 0600) that is renamed into place, so
//! that no crash can part them. `certificate.pem` beside it is a copy without the key, to hand to
//! clients that shall trust this server.

use crate::error::TlsError;
use crate::pem;
use mail::Timestamp;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Days a self-signed certificate is valid. Some clients refuse more than 825, even when told to trust.
pub const SELF_SIGNED_VALID_DAYS: u64 = 820;
/// Days before its end at which a start or reload makes a new one.
pub const SELF_SIGNED_RENEW_DAYS: u64 = 30;

const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn identity_path(dir: &Path) -> PathBuf {
    dir.join("self-signed.pem")
}

/// Makes key and certificate and puts both files into `dir`, which is created when missing.
pub(crate) fn make(dir: &Path, names: &[String], now: Timestamp) -> Result<(), TlsError> {
    let crypto = |e: rcgen::Error| TlsError::Crypto(e.to_string());
    // The key stays when the certificate is renewed, so that a TLSA record of it stays true.
    let key = match kept_key(dir) {
        Some(key) => key,
        None => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(crypto)?,
    };
    let certificate = params(names, now)
        .map_err(crypto)?
        .self_signed(&key)
        .map_err(crypto)?
        .pem();
    std::fs::create_dir_all(dir).map_err(|e| write_error(dir, &e))?;
    let both = format!("{}{certificate}", key.serialize_pem());
    write_renamed(&identity_path(dir), both.as_bytes(), 0o600)?;
    write_renamed(&dir.join("certificate.pem"), certificate.as_bytes(), 0o644)
}

/// The key of the identity in `dir`, if one is there that can be read.
fn kept_key(dir: &Path) -> Option<KeyPair> {
    let path = identity_path(dir);
    let bytes = pem::read_file("the certificate", &path).ok()?;
    let key = pem::private_key(&bytes, &path).ok()?;
    KeyPair::try_from(&key).ok()
}

fn params(names: &[String], now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    let common_name = names.first().map_or("localhost", String::as_str);
    // RFC 5280 appendix A: a common name has 64 characters at most; clients go by the SANs anyway.
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(
        DnType::CommonName,
        common_name.chars().take(64).collect::<String>(),
    );
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Whole days are what rcgen takes; a day early helps clients whose clock is behind.
    let day = |at: Timestamp| {
        let c = mail::date::civil(at);
        rcgen::date_time_ymd(i32::try_from(c.year).unwrap_or(i32::MAX), c.month, c.day)
    };
    params.not_before = day(Timestamp::from_secs(now.secs() - DAY.as_secs() as i64));
    params.not_after = day(now.plus(DAY * SELF_SIGNED_VALID_DAYS as u32));
    Ok(params)
}

/// Writes beside the goal, syncs, renames: the goal holds the old or the new text, never half of one.
fn write_renamed(goal: &Path, text: &[u8], mode: u32) -> Result<(), TlsError> {
    let beside = goal.with_extension("pem.new");
    let written = (|| {
        // What an earlier crash left may have other permissions.
        match std::fs::remove_file(&beside) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&beside, goal)?;
        match goal.parent() {
            Some(dir) => std::fs::File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    })();
    written.map_err(|e| write_error(goal, &e))
}

fn write_error(path: &Path, e: &std::io::Error) -> TlsError {
    TlsError::Write {
        path: path.to_owned(),
        reason: e.to_string(),
    }
}

/// Whether the identity in `dir` is there, whole, for these names, and not about to end.
pub(crate) fn is_usable(dir: &Path, names: &[String], now: Timestamp) -> bool {
    let path = identity_path(dir);
    let Ok(bytes) = pem::read_file("the certificate", &path) else {
        return false;
    };
    let (Ok(chain), Ok(_)) = (pem::certificates(&bytes, &path), pem::private_key(&bytes, &path)) else {
        return false;
    };
    let Some(info) = chain.first().and_then(crate::certificates::info_of) else {
        return false;
    };
    let renew_at = now.plus(DAY * SELF_SIGNED_RENEW_DAYS as u32);
    info.not_after > renew_at && names.iter().all(|name| info.names.contains(name))
}
