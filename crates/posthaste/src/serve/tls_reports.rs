//! TLS reports to https URIs, which the receiving domain names (RFC 8460 §3).
//!
//! Promises: only over verified TLS, to public addresses, in bounded time; no redirect is followed.

use deliver::tls_reports::Post;
use mail::Domain;
use std::net::IpAddr;
use std::time::Duration;
use store::BoxFuture;
use web::{Ask, AskError, Client};

/// For one report, all in all.
const WITHIN: Duration = Duration::from_secs(60);
/// Octets of an answer's body that are read; nobody looks at them.
const ANSWER_OCTETS_MAX: usize = 64 * 1024;

/// Posts them.
pub struct Poster {
    client: Client,
}

impl Poster {
    /// `anywhere`: to private addresses too, as in a laboratory.
    pub fn new(client: Client, anywhere: bool) -> Self {
        let client = match anywhere {
            true => client,
            false => client.public_only(),
        };
        Self { client }
    }
}

impl Post for Poster {
    fn post<'a>(
        &'a self,
        uri: &'a str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> BoxFuture<'a, Result<u16, String>> {
        Box::pin(async move {
            match self.client.ask(&ask(uri, content_type, body)?).await {
                Ok(answer) => Ok(answer.status),
                Err(AskError::TooLong { status, .. }) => Ok(status),
                Err(why) => Err(why.to_string()),
            }
        })
    }
}

fn ask(uri: &str, content_type: &str, body: Vec<u8>) -> Result<Ask, String> {
    let uri: hyper::Uri = uri.parse().map_err(|e| format!("{uri} is no URI: {e}"))?;
    let host = uri.host().unwrap_or_default();
    if host.parse::<IpAddr>().is_ok() {
        return Err(format!(
            "\"{host}\" is an address; a certificate is checked for a name"
        ));
    }
    Ok(Ask {
        host: Domain::parse(host).map_err(|e| format!("\"{host}\" is no host name: {e}"))?,
        port: uri.port_u16().unwrap_or(web::client::HTTPS_PORT),
        path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        body: Some((content_type.to_owned(), body)),
        headers: Vec::new(),
        answer_octets_max: ANSWER_OCTETS_MAX,
        within: WITHIN,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uri_says_where_to() {
        let told =
            |uri| ask(uri, "x/y", Vec::new()).map(|ask| format!("{}:{} {}", ask.host, ask.port, ask.path));
        for (uri, wanted) in [
            ("https://r.example", "r.example:443 /"),
            (
                "https://R.example/v1/tls?x=%201#f",
                "r.example:443 /v1/tls?x=%201",
            ),
            ("https://r.example:8443/t", "r.example:8443 /t"),
        ] {
            assert_eq!(told(uri).as_deref(), Ok(wanted));
        }
        for uri in [
            "https://192.0.2.1/",
            "https://[2001:db8::1]/",
            "https:///x",
            "https://-/",
            "",
        ] {
            assert!(told(uri).is_err(), "{uri}");
        }
    }
}
