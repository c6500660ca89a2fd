//! Policy hosts on loopback: ours, and ones that misbehave.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use dns::table::TableResolver;
use lab::ca::Authority;
use mail::{Domain, Timestamp};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use tls::{CertificateFiles, CertificateSource, Certificates, Roots};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

pub fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

pub fn now() -> Timestamp {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    Timestamp::from_secs(i64::try_from(since).unwrap())
}

pub fn authority(name: &str) -> Authority {
    Authority::new(name, now()).unwrap()
}

/// A certificate of that authority for these names.
pub fn certificates(folder: &Path, authority: &Authority, names: &[&str]) -> Arc<Certificates> {
    let (chain, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    authority.issue(names, &[]).unwrap().write(&chain, &key).unwrap();
    let source = CertificateSource::Files(vec![CertificateFiles { chain, key }]);
    Arc::new(Certificates::open(source, now()).unwrap())
}

/// A client that believes that authority, over a DNS where these hosts are on loopback.
pub fn client(folder: &Path, authority: &Authority, hosts: &[&str]) -> web::Client {
    let root = folder.join("root.pem");
    std::fs::write(&root, authority.root_pem()).unwrap();
    let roots = Roots::public().with_file(&root).unwrap();
    let tls = Arc::new(tls::Client::new(&roots).unwrap());
    let table = hosts.iter().fold(TableResolver::new(), |table, host| {
        table.with_address(host, Ipv4Addr::LOCALHOST)
    });
    web::Client::new(Arc::new(table), tls, "Test")
}

/// A server that hears a question to its end and says these octets, as often as it is asked; answers
/// what it heard last.
pub async fn says(certificates: Arc<Certificates>, answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(certificates.server_config());
            let Ok(mut tls) = acceptor.accept(tcp).await else {
                continue;
            };
            let mut heard = Vec::new();
            while !heard.ends_with(b"\r\n\r\n") {
                let mut octet = [0];
                if tls.read(&mut octet).await.unwrap_or(0) == 0 {
                    break;
                }
                heard.push(octet[0]);
            }
            let _ = tls.write_all(&answer).await;
            let _ = tls.shutdown().await;
        }
    });
    address
}
