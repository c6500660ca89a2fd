//! Real handshakes in memory between our server settings and our client settings.
#![allow(clippy::unwrap_used)]

use mail::{Domain, Timestamp};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tls::{
    CertificateFiles, CertificateSource, Certificates, Client, Roots, TlsError, TlsInfo, Verdict,
    Verification,
};

fn now() -> Timestamp {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_secs(since.as_secs() as i64)
}

fn self_signed(dir: &Path) -> CertificateSource {
    CertificateSource::SelfSigned {
        dir: dir.to_owned(),
        host_name: Domain::parse("mail.example.com").unwrap(),
        addresses: Vec::new(),
    }
}

/// Lets both sides talk until the handshake is done; what the client saw of it.
fn handshake(
    server: &Certificates,
    client: &Client,
    verification: Verification,
    name: &str,
) -> (Result<TlsInfo, rustls::Error>, Option<Verdict>) {
    let (config, verdict) = client.config(verification);
    let mut c = rustls::ClientConnection::new(config, tls::server_name(name).unwrap()).unwrap();
    let mut s = rustls::ServerConnection::new(server.server_config()).unwrap();
    let result = loop {
        let mut wire = Vec::new();
        c.write_tls(&mut wire).unwrap();
        s.read_tls(&mut wire.as_slice()).unwrap();
        if let Err(e) = s.process_new_packets() {
            break Err(e);
        }
        let mut wire = Vec::new();
        s.write_tls(&mut wire).unwrap();
        c.read_tls(&mut wire.as_slice()).unwrap();
        if let Err(e) = c.process_new_packets() {
            break Err(e);
        }
        if !c.is_handshaking() && !s.is_handshaking() {
            break Ok(tls::describe(&c));
        }
    };
    (result, verdict.verdict())
}

#[test]
fn a_first_start_makes_a_certificate_and_a_second_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("tls");
    let first = Certificates::open(self_signed(&home), now()).unwrap().describe();
    assert_eq!(
        first[0].names,
        ["mail.example.com", "localhost", "127.0.0.1", "::1"]
    );
    let mode = std::fs::metadata(home.join("self-signed.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(home.join("self-signed.pem")).unwrap();
    let public = std::fs::read_to_string(home.join("certificate.pem")).unwrap();
    assert!(!public.contains("PRIVATE"));

    Certificates::open(self_signed(&home), now()).unwrap();
    assert_eq!(std::fs::read(home.join("self-signed.pem")).unwrap(), before);

    // Close to its end it is made anew, for the same key: a TLSA record of it stays true.
    let host = Domain::parse("mail.example.com").unwrap();
    let published = Certificates::open(self_signed(&home), now()).unwrap().tlsa(&host);
    let later = now().plus(std::time::Duration::from_secs(800 * 86_400));
    let renewed = Certificates::open(self_signed(&home), later).unwrap();
    assert!(renewed.describe()[0].not_after > first[0].not_after);
    assert!(published.is_some() && renewed.tlsa(&host) == published);
}

#[test]
fn opportunistic_takes_any_certificate_and_tells_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let server = Certificates::open(self_signed(dir.path()), now()).unwrap();
    let public = Client::new(&Roots::public()).unwrap();
    let (result, verdict) = handshake(&server, &public, Verification::Opportunistic, "mail.example.com");
    let info = result.unwrap();
    assert_eq!(info.version, "TLSv1.3");
    assert!(info.cipher.starts_with("TLS_AES_"), "{info}");
    assert_eq!(info.group.as_deref(), Some("X25519MLKEM768"));
    assert!(matches!(verdict, Some(Verdict::Unverified(why)) if why.contains("issuer")));

    let (result, verdict) = handshake(&server, &public, Verification::Required, "mail.example.com");
    assert!(matches!(result, Err(rustls::Error::InvalidCertificate(_))));
    assert!(matches!(verdict, Some(Verdict::Unverified(_))));
}

#[test]
fn a_trusted_certificate_verifies_for_its_names_only() {
    let dir = tempfile::tempdir().unwrap();
    let server = Certificates::open(self_signed(dir.path()), now()).unwrap();
    let roots = Roots::public()
        .with_file(&dir.path().join("certificate.pem"))
        .unwrap();
    let client = Client::new(&roots).unwrap();
    for name in ["mail.example.com", "localhost", "127.0.0.1", "::1"] {
        let (result, verdict) = handshake(&server, &client, Verification::Required, name);
        assert!(result.is_ok(), "{name}: {result:?}");
        assert_eq!(verdict, Some(Verdict::Verified), "{name}");
    }
    let (result, verdict) = handshake(&server, &client, Verification::Opportunistic, "mx.example.net");
    assert!(result.is_ok());
    assert!(matches!(verdict, Some(Verdict::Unverified(why)) if why.contains("another name")));
}

fn write_pair(dir: &Path, name: &str, host: &str) -> CertificateFiles {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
    let files = CertificateFiles {
        chain: dir.join(format!("{name}.crt")),
        key: dir.join(format!("{name}.key")),
    };
    std::fs::write(&files.chain, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

#[test]
fn the_certificate_is_chosen_by_the_name_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let a = write_pair(dir.path(), "a", "mail.example.com");
    let b = write_pair(dir.path(), "b", "*.example.org");
    let roots = Roots::public()
        .with_file(&a.chain)
        .unwrap()
        .with_file(&b.chain)
        .unwrap();
    let server = Certificates::open(CertificateSource::Files(vec![a, b]), now()).unwrap();
    let client = Client::new(&roots).unwrap();
    for (name, verified) in [
        ("mail.example.com", true),
        ("MX.example.org", true),
        ("other.example.net", false),
    ] {
        let (result, verdict) = handshake(&server, &client, Verification::Opportunistic, name);
        assert!(result.is_ok(), "{name}");
        assert_eq!(verdict == Some(Verdict::Verified), verified, "{name}");
    }
}

#[test]
fn a_broken_new_file_keeps_the_old_certificate_and_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let files = write_pair(dir.path(), "a", "mail.example.com");
    let source = CertificateSource::Files(vec![files.clone()]);
    let server = Certificates::open(source, now()).unwrap();
    let before = server.describe();

    let other = write_pair(dir.path(), "b", "mail.example.com");
    std::fs::copy(&other.key, &files.key).unwrap();
    let mismatch = server.reload(now()).unwrap_err();
    assert!(matches!(&mismatch, TlsError::Mismatch { chain, .. } if *chain == files.chain));

    for (text, wanted) in [
        ("", "holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", "is damaged"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "not valid X.509",
        ),
    ] {
        std::fs::write(&files.chain, text).unwrap();
        let said = server.reload(now()).unwrap_err().to_string();
        assert!(said.contains(wanted) && said.contains("a.crt"), "{said}");
    }
    std::fs::remove_file(&files.chain).unwrap();
    let said = server.reload(now()).unwrap_err().to_string();
    assert!(said.contains("cannot be read"), "{said}");
    assert_eq!(server.describe(), before, "the old certificate stays");

    let fresh = write_pair(dir.path(), "a", "mx.example.com");
    server.reload(now()).unwrap();
    assert_eq!(server.describe()[0].names, ["mx.example.com"]);
    std::fs::set_permissions(&fresh.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(server.warnings(now()).iter().any(|w| w.contains("chmod 600")));
}

#[test]
fn an_empty_key_file_and_an_oversized_one_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let files = write_pair(dir.path(), "a", "mail.example.com");
    std::fs::write(&files.key, "").unwrap();
    let open = || {
        Certificates::open(CertificateSource::Files(vec![files.clone()]), now())
            .map(|_| ())
            .unwrap_err()
    };
    assert!(matches!(open(), TlsError::NoKey { .. }));
    std::fs::write(&files.key, vec![b'x'; (1 << 20) + 1]).unwrap();
    assert!(matches!(open(), TlsError::TooLarge { .. }));
    let nothing = Certificates::open(CertificateSource::Files(Vec::new()), now()).map(|_| ());
    assert_eq!(nothing, Err(TlsError::NothingConfigured));
}
