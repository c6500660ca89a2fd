//! The internet in a box: DNS, a certificate authority, the servers of gmail.com and example.com.
//!
//! Promises: everything lives on loopback and in one temporary folder that is removed at the end;
//! the zones are what the servers themselves say is to be published.

use super::Broken;
use super::reel::{Happening, Reel};
use super::site::{Identity, Plan, Service, Site};
use lab::ca::Authority;
use lab::client::{Login, Trust};
use lab::dns::{Asked, DnsObserver, DnsServer, Zones, address_name, list_name};
use mail::Timestamp;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// gmail.com's server.
pub const GMAIL: Identity = Identity {
    domain: "gmail.com",
    hostname: "mail.gmail.com",
    ip: Ipv4Addr::new(127, 0, 1, 1),
};
/// example.com's server.
pub const EXAMPLE: Identity = Identity {
    domain: "example.com",
    hostname: "mail.example.com",
    ip: Ipv4Addr::new(127, 0, 2, 1),
};
/// Somebody whom gmail.com's SPF record does not name.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 3, 1);
/// Somebody who stands on the blocklist.
pub const LISTED: Ipv4Addr = Ipv4Addr::new(127, 0, 3, 2);
/// The port of SMTP where it is free, the same for both servers: an MX record names no port.
const SMTP_PORT: u16 = 2525;
/// The blocklist's zone.
pub const BLOCKLIST: &str = "blocklist.example";
/// What the blocklist says of [`LISTED`].
pub const LISTED_WHY: &str = "127.0.3.2 sent to spam traps; see https://blocklist.example/127.0.3.2";

/// Everything there is.
pub struct World {
    /// What the servers say and ask.
    pub reel: Arc<Reel>,
    /// The server that alice submits to.
    pub gmail: Site,
    /// The server that has bob's mailbox.
    pub example: Site,
    /// alice@gmail.com
    pub alice: Login,
    /// bob@example.com
    pub bob: Login,
    /// carol@gmail.com, who turns her second factor on.
    pub carol: Login,
    /// The authority's root certificate.
    pub root_file: PathBuf,
    dns: DnsServer,
    _first: Option<TcpListener>,
    // Last: the folder goes when everything in it is closed.
    _folder: tempfile::TempDir,
}

impl World {
    /// Builds it and starts everything.
    pub async fn build() -> Result<Self, Broken> {
        lab::ports::check_loopback(&[GMAIL.ip, EXAMPLE.ip, STRANGER, LISTED])?;
        let folder = tempfile::Builder::new().prefix("posthaste-demo-").tempdir()?;
        let reel = Arc::new(Reel::new());
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut dns = DnsServer::start(any, Zones::new(), watcher(GMAIL.domain, &reel)).await?;
        let dns_of_example = dns.listen(any, watcher(EXAMPLE.domain, &reel)).await?;

        let authority = Authority::new("Posthaste demo authority", now())?;
        let root_file = folder.path().join("authority.pem");
        std::fs::write(&root_file, authority.root_pem())?;
        let trust = Trust::roots(authority.roots()?)?;
        // Of several demos at the same time, the one that holds this gets the usual ports.
        let first = TcpListener::bind((STRANGER, SMTP_PORT)).ok();
        let usual_ports = first.is_some();
        let hosts = [IpAddr::V4(GMAIL.ip), IpAddr::V4(EXAMPLE.ip)];
        let smtp_port = super::site::port(SMTP_PORT, usual_ports, &hosts)?;
        let plan = |identity: Identity, dns| (identity, folder.path().join(identity.domain), dns);
        let mut sites = Vec::new();
        for (identity, site_folder, dns) in [plan(GMAIL, dns.addr()), plan(EXAMPLE, dns_of_example)] {
            let plan = Plan {
                identity,
                folder: &site_folder,
                dns,
                smtp_port,
                usual_ports,
                root: &root_file,
                authority: &authority,
            };
            let site = Site::open(plan, trust.clone(), Arc::clone(&reel)).await?;
            site.add_domain().await?;
            sites.push(site);
        }
        let (Some(example), Some(gmail)) = (sites.pop(), sites.pop()) else {
            return Err(Broken::said("two servers were to be started"));
        };
        let world = Self {
            alice: gmail.add_account("alice@gmail.com", "Alice").await?,
            bob: example.add_account("bob@example.com", "Bob").await?,
            carol: gmail.add_account("carol@gmail.com", "Carol").await?,
            reel,
            gmail,
            example,
            root_file,
            dns,
            _first: first,
            _folder: folder,
        };
        world.publish().await?;
        Ok(world)
    }

    /// Puts into the DNS what the servers say is to be published, and what others publish.
    async fn publish(&self) -> Result<(), Broken> {
        let mut texts = vec![
            self.gmail.zone().await?,
            self.example.zone().await?,
            blocklist(),
            reverse(),
        ];
        texts.push("$ORIGIN forger.example.\nmail A 127.0.3.1\n".to_owned());
        self.dns
            .change(|zones| texts.iter().try_for_each(|text| zones.add(text).map(|_| ())))?;
        Ok(())
    }

    /// Where the DNS answers, for people.
    pub fn dns_addr(&self) -> SocketAddr {
        self.dns.addr()
    }

    /// Ends everything and removes the folder.
    pub async fn close(mut self) {
        self.gmail.stop().await;
        self.example.stop().await;
        self.dns.shutdown().await;
    }

    /// bob's INBOX as it is now, read over IMAP with nobody watching: the raw messages, in order.
    pub async fn inbox_of_bob(&self) -> Result<Vec<String>, Broken> {
        use lab::client::{ImapClient, Watch};
        let target = self.example.target(Service::Imaps, None);
        let mut imap = ImapClient::connect(&target, Watch::nobody(), true).await?;
        imap.login(&self.bob).await?.success()?;
        let selected = imap.command("EXAMINE INBOX").await?.success()?;
        let empty = selected.untagged.iter().any(|line| line == "* 0 EXISTS");
        let messages = match empty {
            true => Vec::new(),
            false => imap.command("FETCH 1:* BODY.PEEK[]").await?.success()?.literals,
        };
        imap.logout().await?;
        Ok(messages
            .iter()
            .map(|octets| String::from_utf8_lossy(octets).into_owned())
            .collect())
    }
}

fn watcher(host: &'static str, reel: &Arc<Reel>) -> Option<DnsObserver> {
    let reel = Arc::clone(reel);
    Some(Arc::new(move |_, asked: &Asked| {
        reel.add(Happening::Asked {
            host,
            asked: asked.clone(),
        });
    }))
}

fn blocklist() -> String {
    // RFC 5782 §5: 127.0.0.2 is always on a list, so that it can be tested.
    let listed = list_name(IpAddr::V4(LISTED), BLOCKLIST);
    let test = list_name(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), BLOCKLIST);
    format!(
        "$ORIGIN {BLOCKLIST}.\n{listed}. A 127.0.0.2\n{listed}. TXT \"{LISTED_WHY}\"\n{test}. A 127.0.0.2\n"
    )
}

fn reverse() -> String {
    let ptr = |ip: Ipv4Addr, name: &str| format!("{}. PTR {name}.\n", address_name(IpAddr::V4(ip)));
    format!(
        "$ORIGIN 127.in-addr.arpa.\n{}{}{}",
        ptr(GMAIL.ip, GMAIL.hostname),
        ptr(EXAMPLE.ip, EXAMPLE.hostname),
        ptr(STRANGER, "mail.forger.example"),
    )
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_secs(i64::try_from(since.as_secs()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab::dns::Outcome;

    #[test]
    fn the_lists_and_the_reverse_zone_read() {
        let mut zones = Zones::parse(&blocklist()).unwrap();
        zones.add(&reverse()).unwrap();
        for (ip, found) in [
            (LISTED, true),
            (STRANGER, false),
            (Ipv4Addr::new(127, 0, 0, 2), true),
        ] {
            let name = list_name(IpAddr::V4(ip), BLOCKLIST);
            let outcome = zones.lookup(&name, "A".parse().unwrap());
            assert_eq!(matches!(outcome, Outcome::Records(_)), found, "{ip}");
        }
        let outcome = zones.lookup("1.1.0.127.in-addr.arpa", "PTR".parse().unwrap());
        assert!(matches!(outcome, Outcome::Records(_)));
    }
}
