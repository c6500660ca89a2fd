//! The clients against scripted servers, over TCP, STARTTLS and TLS with the lab's authority.
#![allow(clippy::unwrap_used)]

use lab::ca::Authority;
use lab::client::{
    ClientError, Heard, ImapClient, Login, Pop3Client, SmtpClient, Speaker, Target, Trust, Watch,
};
use mail::{Secret, Timestamp};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

/// A time within the certificate's validity would need a clock in rustls; the real one is used, so
/// the authority is made for the real day.
fn today() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Timestamp::from_secs(since.as_secs() as i64)
}

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}
type Stream = BufStream<Box<dyn Both>>;

fn acceptor(ca: &Authority) -> TlsAcceptor {
    let issued = ca.issue(&["mail.example.com"], &[]).unwrap();
    let cert = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.expose().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Plays a script: `C: line` expects that line, `S: text` sends it, `TLS` shakes hands.
async fn play(stream: TcpStream, acceptor: TlsAcceptor, script: &'static [&'static str]) {
    let mut stream: Stream = BufStream::new(Box::new(stream));
    for step in script {
        if let Some(expected) = step.strip_prefix("C: ") {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(line, format!("{expected}\r\n"));
        } else if let Some(text) = step.strip_prefix("S: ") {
            stream.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        } else {
            let tls = acceptor.accept(stream.into_inner()).await.unwrap();
            stream = BufStream::new(Box::new(tls));
        }
    }
}

struct Stage {
    target: Target,
    watch: Watch,
    heard: Arc<Mutex<Vec<Heard>>>,
    play: tokio::task::JoinHandle<()>,
}

async fn stage(script: &'static [&'static str]) -> Stage {
    let ca = Authority::new("Lab test authority", today()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let acceptor = acceptor(&ca);
    let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
    let sink = Arc::clone(&heard);
    Stage {
        target: Target {
            addr: listener.local_addr().unwrap(),
            name: "mail.example.com".to_owned(),
            trust: Trust::roots(ca.roots().unwrap()).unwrap(),
            from: None,
        },
        watch: Watch {
            conversation: "test".to_owned(),
            observer: Some(Arc::new(move |h: &Heard| sink.lock().unwrap().push(h.clone()))),
        },
        heard,
        play: tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            play(stream, acceptor, script).await;
        }),
    }
}

impl Stage {
    /// What the observer heard, after the server has played its part to the end.
    async fn transcript(self) -> String {
        self.play.await.unwrap();
        let lines = self.heard.lock().unwrap();
        lines
            .iter()
            .map(|h| {
                let mark = match h.speaker {
                    Speaker::Client => "C",
                    Speaker::Server => "S",
                    Speaker::Event => "*",
                };
                format!("{mark}: {}\n", h.text)
            })
            .collect()
    }
}

fn login() -> Login {
    Login {
        user: "alice@gmail.com".to_owned(),
        password: Secret::new("open \"sesame"),
    }
}

#[tokio::test]
async fn smtp_over_starttls() {
    let stage = stage(&[
        "S: 220 mail.example.com ESMTP ready",
        "C: EHLO client",
        "S: 250-mail.example.com",
        "S: 250-STARTTLS",
        "S: 250 SIZE 1000",
        "C: STARTTLS",
        "S: 220 2.0.0 ready",
        "TLS",
        "C: AUTH PLAIN AGFsaWNlQGdtYWlsLmNvbQBvcGVuICJzZXNhbWU=",
        "S: 535 5.7.8 no",
        "C: AUTH LOGIN",
        "S: 334 VXNlcm5hbWU6",
        "C: YWxpY2VAZ21haWwuY29t",
        "S: 334 UGFzc3dvcmQ6",
        "C: b3BlbiAic2VzYW1l",
        "S: 235 2.7.0 welcome",
        "C: DATA",
        "S: 354 go",
        "C: Subject: x",
        "C: ",
        "C: ..dot",
        "C: .",
        "S: 250 2.0.0 kept",
        "C: QUIT",
        "S: 221 2.0.0 bye",
    ])
    .await;
    let mut smtp = SmtpClient::connect(&stage.target, stage.watch.clone(), false)
        .await
        .unwrap();
    let ehlo = smtp.command("EHLO client").await.unwrap();
    assert!(ehlo.offers("starttls") && ehlo.offers("SIZE") && !ehlo.offers("AUTH"));
    let mut smtp = smtp.start_tls().await.unwrap();
    assert!(smtp.auth_plain(&login()).await.unwrap().is(535, "5.7.8"));
    assert_eq!(smtp.auth_login(&login()).await.unwrap().code, 235);
    assert_eq!(smtp.data("Subject: x\n\n.dot\n").await.unwrap().code, 250);
    smtp.quit().await.unwrap().ok().unwrap();
    let transcript = stage.transcript().await;
    assert!(
        transcript.contains("C: AUTH PLAIN ********\nS: 535 5.7.8 no\n"),
        "{transcript}"
    );
    assert!(
        transcript.contains("S: 334 UGFzc3dvcmQ6\nC: ********\n"),
        "{transcript}"
    );
    assert!(transcript.contains("*: TLS handshake: TLSv1.3"), "{transcript}");
    assert!(
        transcript.contains("C: \nC: .dot\nC: .\n"),
        "shown unstuffed: {transcript}"
    );
    assert!(!transcript.contains("b3BlbiAi") && !transcript.contains("sesame"));
}

#[tokio::test]
async fn imap_over_tls_with_literals() {
    let stage = stage(&[
        "TLS",
        "S: * OK ready",
        "C: a1 LOGIN \"alice@gmail.com\" \"open \\\"sesame\"",
        "S: a1 OK in",
        "C: a2 FETCH 1 BODY[]",
        "S: * 1 FETCH (BODY[] {14}\r\nSubject: x\r\n\r\n)",
        "S: a2 OK done",
        "C: a3 SELECT none",
        "S: a3 NO [NONEXISTENT] no such mailbox",
        "C: a4 LOGOUT",
        "S: * BYE",
        "S: a4 OK bye",
    ])
    .await;
    let mut imap = ImapClient::connect(&stage.target, stage.watch.clone(), true)
        .await
        .unwrap();
    imap.login(&login()).await.unwrap().success().unwrap();
    let fetched = imap.command("FETCH 1 BODY[]").await.unwrap().success().unwrap();
    assert_eq!(fetched.literals, [b"Subject: x\r\n\r\n".to_vec()]);
    assert_eq!(fetched.untagged.len(), 1);
    let refused = imap.command("SELECT none").await.unwrap();
    assert!(matches!(refused.success(), Err(ClientError::Refused(text)) if text.starts_with("NO ")));
    imap.logout().await.unwrap().success().unwrap();
    let transcript = stage.transcript().await;
    assert!(
        transcript.contains("C: a1 LOGIN \"alice@gmail.com\" ********\n"),
        "{transcript}"
    );
    assert!(!transcript.contains("sesame"));
}

#[tokio::test]
async fn pop3_over_stls() {
    let stage = stage(&[
        "S: +OK ready",
        "C: STLS",
        "S: +OK begin",
        "TLS",
        "C: USER alice@gmail.com",
        "S: +OK",
        "C: PASS open \"sesame",
        "S: +OK 1 message",
        "C: RETR 1",
        "S: +OK 9 octets\r\nA: b\r\n\r\n..dot\r\n.",
        "C: RETR 2",
        "S: -ERR no such message",
        "C: QUIT",
        "S: +OK bye",
    ])
    .await;
    let pop3 = Pop3Client::connect(&stage.target, stage.watch.clone(), false)
        .await
        .unwrap();
    let mut pop3 = pop3.start_tls().await.unwrap();
    pop3.login(&login()).await.unwrap().success().unwrap();
    let message = pop3.multi_line("RETR 1").await.unwrap().success().unwrap();
    assert_eq!(message.lines.join(&b'\n'), b"A: b\n\n.dot");
    assert!(!pop3.multi_line("RETR 2").await.unwrap().ok);
    pop3.quit().await.unwrap().success().unwrap();
    let transcript = stage.transcript().await;
    assert!(transcript.contains("C: PASS ********\n"), "{transcript}");
    assert!(!transcript.contains("sesame"));
}

#[tokio::test]
async fn a_certificate_of_another_name_or_authority_is_not_believed() {
    // The server's side of the handshake fails, so its task is left alone.
    let stage_one = stage(&["TLS"]).await;
    let mut target = stage_one.target.clone();
    target.name = "mail.example.net".to_owned();
    let error = SmtpClient::connect(&target, Watch::nobody(), true).await.err();
    assert!(matches!(error, Some(ClientError::Tls(_))), "{error:?}");

    let stage_two = stage(&["TLS"]).await;
    let mut target = stage_two.target.clone();
    let other = Authority::new("Another authority", today()).unwrap();
    target.trust = Trust::roots(other.roots().unwrap()).unwrap();
    let error = SmtpClient::connect(&target, Watch::nobody(), true).await.err();
    assert!(matches!(error, Some(ClientError::Tls(_))), "{error:?}");
}

#[tokio::test]
async fn what_a_server_says_before_the_handshake_counts_for_nothing() {
    let stage = stage(&["S: 220 ready", "C: STARTTLS", "S: 220 go\r\n250 injected"]).await;
    let smtp = SmtpClient::connect(&stage.target, Watch::nobody(), false)
        .await
        .unwrap();
    let error = smtp.start_tls().await.err();
    assert!(matches!(error, Some(ClientError::Protocol(_))), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_ends_or_talks_nonsense_is_an_error() {
    for (script, closed) in [(&["S: 220-unfinished"][..], true), (&["S: hello"][..], false)] {
        let stage = stage(script).await;
        let error = SmtpClient::connect(&stage.target, Watch::nobody(), false)
            .await
            .err();
        match closed {
            true => assert!(matches!(error, Some(ClientError::Closed)), "{error:?}"),
            false => assert!(matches!(error, Some(ClientError::Protocol(_))), "{error:?}"),
        }
    }
}

#[cfg(unix)]
#[test]
fn files_and_rights() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("Lab test authority", NOW).unwrap();
    let issued = ca.issue(&["localhost"], &["127.0.0.1".parse().unwrap()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    issued.write(&cert, &key).unwrap();
    assert!(
        std::fs::read_to_string(&cert)
            .unwrap()
            .starts_with("-----BEGIN CERTIFICATE-----")
    );
    assert!(std::fs::read_to_string(&key).unwrap().contains("PRIVATE KEY"));
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(ca.root_pem().starts_with("-----BEGIN CERTIFICATE-----"));
}
