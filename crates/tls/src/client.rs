//! TLS towards others: what is asked of their certificate, and what was found.
//!
//! Between mail servers TLS is opportunistic (RFC 7435): any certificate is better than none, so the
//! handshake goes on whatever is shown. Whether it *would* have verified is still found out and kept,
//! for the journey and for the operator who thinks of requiring it. Where the receiving domain says what
//! the certificate must be, by DANE ([`Dane`]) or by asking for a verified one, that is required.

use crate::dane::{Dane, DaneUsage};
use crate::error::TlsError;
use crate::sessions::Sessions;
use crate::{pem, provider};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The certificate authorities that we believe.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// The public authorities (Mozilla's list, compiled in).
    #[must_use]
    pub fn public() -> Self {
        let anchors = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
        Self(Arc::new(RootCertStore {
            roots: anchors.collect(),
        }))
    }

    /// These and those of a PEM file besides: a private authority, or a self-signed certificate.
    ///
    /// # Errors
    /// When the file cannot be read or holds something that is no certificate.
    pub fn with_file(&self, path: &Path) -> Result<Self, TlsError> {
        let bytes = pem::read_file("the root certificates", path)?;
        self.with_certificates(pem::certificates(&bytes, path)?)
            .map_err(|e| TlsError::Damaged {
                path: path.to_owned(),
                reason: e.to_string(),
            })
    }

    /// These and the given ones besides.
    ///
    /// # Errors
    /// When one is not valid X.509.
    pub fn with_certificates(
        &self,
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, TlsError> {
        let mut store = RootCertStore::clone(&self.0);
        for certificate in certificates {
            store
                .add(certificate)
                .map_err(|e| TlsError::Crypto(e.to_string()))?;
        }
        Ok(Self(Arc::new(store)))
    }
}

/// What is asked of a peer's certificate.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Verification {
    /// Nothing: encryption with anybody is better than none (RFC 7435).
    Opportunistic,
    /// It must be valid for the host's name and issued by an authority that we believe.
    Required,
    /// It must be as the TLSA records say (RFC 7672); which authorities we believe does not matter.
    Dane(Arc<Dane>),
}

impl Verification {
    /// The same, which compares equal to what asks the same in another order.
    pub(crate) fn in_order(self) -> Self {
        match self {
            Verification::Dane(dane) => Verification::Dane(Arc::new(dane.in_order())),
            other => other,
        }
    }
}

/// What was found of a peer's certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Valid for the name and issued by an authority that we believe.
    Verified,
    /// As a TLSA record of this usage says.
    Dane(DaneUsage),
    /// Not so, and why.
    Unverified(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Verified => f.write_str("certificate verified"),
            Verdict::Dane(usage) => write!(f, "certificate verified by {usage}"),
            Verdict::Unverified(why) => write!(f, "certificate not verified: {why}"),
        }
    }
}

/// What kind of thing is wrong with a certificate, as reports tell it (RFC 8460 §4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// It has expired, or is not valid yet.
    NotInItsTime,
    /// It was issued for another name.
    OtherName,
    /// Its issuer is not an authority that counts here.
    UnknownIssuer,
    /// No TLSA record matches it.
    NoTlsaMatches,
    /// Something else.
    Other,
}

/// Tells the verdict of one handshake, after it.
#[derive(Clone, Debug, Default)]
pub struct VerdictHandle(Arc<OnceLock<(Verdict, Option<Flaw>)>>);

impl VerdictHandle {
    /// The verdict; `None` before the peer has shown its certificate.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.0.get().map(|(verdict, _)| verdict.clone())
    }

    /// The first verdict stands: a second certificate cannot come in one handshake.
    pub(crate) fn set(&self, found: (Verdict, Option<Flaw>)) {
        let _ = self.0.set(found);
    }

    /// What kind of thing is wrong, when the verdict is that it does not verify.
    #[must_use]
    pub fn flaw(&self) -> Option<Flaw> {
        self.0.get().and_then(|(_, flaw)| *flaw)
    }
}

/// Makes TLS settings for connections to others.
pub struct Client {
    pub(crate) base: ClientConfig,
    webpki: Arc<WebPkiServerVerifier>,
    pub(crate) sessions: Sessions,
}

impl Client {
    /// A client that believes these authorities.
    ///
    /// # Errors
    /// When there is not one authority.
    pub fn new(roots: &Roots) -> Result<Self, TlsError> {
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots.0), provider())
            .build()
            .map_err(|e| TlsError::Crypto(e.to_string()))?;
        let mut base = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|e| TlsError::Crypto(e.to_string()))?
            .with_webpki_verifier(Arc::clone(&webpki))
            .with_no_client_auth();
        // Only `meet` knows what a session proved.
        base.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            base,
            webpki,
            sessions: Sessions::default(),
        })
    }

    pub(crate) fn judge(&self, verification: Verification) -> Judge {
        Judge {
            webpki: Arc::clone(&self.webpki),
            verification,
        }
    }

    /// Settings for one connection, and the handle that tells its verdict. It resumes no session and keeps
    /// none; [`Client::meet`] does.
    #[must_use]
    pub fn config(&self, verification: Verification) -> (Arc<ClientConfig>, VerdictHandle) {
        let handle = VerdictHandle::default();
        let mut config = self.base.clone();
        config.dangerous().set_certificate_verifier(Arc::new(Remembering {
            judge: self.judge(verification),
            verdict: handle.clone(),
        }));
        (Arc::new(config), handle)
    }
}

/// The name of a host (or its IP address) in the type that a handshake takes.
///
/// # Errors
/// When the text is neither.
pub fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| TlsError::Crypto(format!("{host} is no host name that TLS knows")))
}

/// Verifies as the web does, or as TLSA records say, and lets pass what the policy lets pass.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) webpki: Arc<WebPkiServerVerifier>,
    verification: Verification,
}

impl Judge {
    /// What was found of a chain, and whether the handshake may go on.
    pub(crate) fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> ((Verdict, Option<Flaw>), Result<(), rustls::Error>) {
        if let Verification::Dane(dane) = &self.verification {
            return match dane.judge(end_entity, intermediates, now) {
                Ok(usage) => ((Verdict::Dane(usage), None), Ok(())),
                Err((flaw, why)) => {
                    let found = (Verdict::Unverified(why.clone()), Some(flaw));
                    (found, Err(Refused { why, flaw }.into()))
                }
            };
        }
        let result =
            self.webpki
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let found = match &result {
            Ok(_) => (Verdict::Verified, None),
            Err(e) => (Verdict::Unverified(in_words(e)), Some(flaw(e))),
        };
        let required = self.verification == Verification::Required;
        (
            found,
            result
                .map(|_| ())
                .or_else(|e| if required { Err(e) } else { Ok(()) }),
        )
    }
}

/// Why a certificate was not taken, as an error of the handshake carries it.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    why: String,
    flaw: Flaw,
}

impl Refused {
    /// Why a handshake failed, if it was because of the certificate.
    pub(crate) fn of(error: &rustls::Error) -> Option<(String, Flaw)> {
        let rustls::Error::InvalidCertificate(e) = error else {
            return None;
        };
        if let rustls::CertificateError::Other(other) = e
            && let Some(refused) = other.0.downcast_ref::<Refused>()
        {
            return Some((refused.why.clone(), refused.flaw));
        }
        Some((in_words(error), flaw(error)))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for rustls::Error {
    fn from(refused: Refused) -> Self {
        let other = rustls::OtherError(Arc::new(refused));
        rustls::CertificateError::Other(other).into()
    }
}

/// Judges for one connection, and remembers what came out.
#[derive(Debug)]
struct Remembering {
    judge: Judge,
    verdict: VerdictHandle,
}

impl ServerCertVerifier for Remembering {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let judged = self
            .judge
            .judge(end_entity, intermediates, server_name, ocsp_response, now);
        let (found, result) = judged;
        self.verdict.set(found);
        result.map(|()| ServerCertVerified::assertion())
    }

    // The signatures of the handshake are checked always: they cost the peer nothing and prove that
    // it holds the key of the certificate on which the verdict was given.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge
            .webpki
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge
            .webpki
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.webpki.supported_verify_schemes()
    }
}

pub(crate) fn flaw(e: &rustls::Error) -> Flaw {
    use rustls::CertificateError as C;
    let rustls::Error::InvalidCertificate(e) = e else {
        return Flaw::Other;
    };
    match e {
        C::UnknownIssuer => Flaw::UnknownIssuer,
        C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => {
            Flaw::NotInItsTime
        }
        C::NotValidForName | C::NotValidForNameContext { .. } => Flaw::OtherName,
        _ => Flaw::Other,
    }
}

pub(crate) fn in_words(e: &rustls::Error) -> String {
    use rustls::CertificateError as C;
    match e {
        rustls::Error::InvalidCertificate(c) => match c {
            C::UnknownIssuer => "its issuer is not an authority that we know (self-signed?)".to_owned(),
            C::Expired | C::ExpiredContext { .. } => "it has expired".to_owned(),
            C::NotValidYet | C::NotValidYetContext { .. } => "it is not valid yet".to_owned(),
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                "it was issued for another name".to_owned()
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}
