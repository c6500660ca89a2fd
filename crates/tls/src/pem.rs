//! Reads certificates and keys from PEM files of bounded size.

use crate::error::TlsError;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Read;
use std::path::Path;

/// Octets of a PEM file at most. The largest real ones, bundles of all public roots, have a quarter.
pub(crate) const PEM_FILE_BYTES_MAX: u64 = 1 << 20;

pub(crate) fn read_file(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |e: std::io::Error| TlsError::Read {
        what,
        path: path.to_owned(),
        reason: e.to_string(),
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(PEM_FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > PEM_FILE_BYTES_MAX {
        return Err(TlsError::TooLarge {
            path: path.to_owned(),
            limit_bytes: PEM_FILE_BYTES_MAX,
        });
    }
    Ok(bytes)
}

/// All certificates of a PEM text, at least one.
pub(crate) fn certificates(bytes: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| damaged(path, &e))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(chain)
}

/// The first private key of a PEM text.
pub(crate) fn private_key(bytes: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|e| match e {
        pem::Error::NoItemsFound => TlsError::NoKey {
            path: path.to_owned(),
        },
        e => damaged(path, &e),
    })
}

fn damaged(path: &Path, e: &pem::Error) -> TlsError {
    TlsError::Damaged {
        path: path.to_owned(),
        reason: format!("{e:?}"),
    }
}
