//! One mail server of the demo: its settings, its folder, and what is asked of it.
//!
//! Promises: it is the server that `posthaste serve` runs, started by the same function with
//! settings that stand in a file; nothing is done behind its back.

use super::reel::{Happening, Reel};
use super::{Broken, world};
use crate::serve::{Hooks, Server};
use crate::settings::{Listen, Settings};
use admin::{Request, Response};
use lab::client::{Target, Trust};
use mail::{Domain, EmailAddress};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Who a server is.
#[derive(Clone, Copy)]
pub struct Identity {
    /// The domain it takes mail for.
    pub domain: &'static str,
    /// Its own name.
    pub hostname: &'static str,
    /// Its address.
    pub ip: Ipv4Addr,
}

/// A service that clients connect to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// SMTP between servers.
    Smtp,
    /// Submission with STARTTLS.
    Submission,
    /// Submission with TLS from the first octet.
    Submissions,
    /// IMAP with STARTTLS.
    Imap,
    /// IMAP with TLS.
    Imaps,
    /// POP3 with STLS.
    Pop3,
    /// POP3 with TLS.
    Pop3s,
}

impl Service {
    /// All of them, with the name and the security that people know.
    pub const ALL: [(Service, &'static str, &'static str); 7] = [
        (Service::Smtp, "SMTP", "STARTTLS, for servers"),
        (Service::Submission, "submission", "STARTTLS"),
        (Service::Submissions, "submissions", "TLS"),
        (Service::Imap, "IMAP", "STARTTLS"),
        (Service::Imaps, "IMAPS", "TLS"),
        (Service::Pop3, "POP3", "STARTTLS"),
        (Service::Pop3s, "POP3S", "TLS"),
    ];
}

/// A server with its settings; it may be down.
pub struct Site {
    /// Who it is.
    pub identity: Identity,
    settings: Settings,
    /// Where the settings stand as a file.
    pub settings_file: PathBuf,
    trust: Trust,
    reel: Arc<Reel>,
    server: Option<Server>,
}

/// What a site is made of.
pub struct Plan<'a> {
    /// Who it is.
    pub identity: Identity,
    /// Its folder, made here.
    pub folder: &'a Path,
    /// The DNS server that it asks.
    pub dns: SocketAddr,
    /// The port at which servers are called, the same for all.
    pub smtp_port: u16,
    /// Whether the ports of the default settings may be taken.
    pub usual_ports: bool,
    /// The authority's root, which it trusts.
    pub root: &'a Path,
    /// The authority, which vouches for it.
    pub authority: &'a lab::ca::Authority,
}

impl Site {
    /// Writes certificate and settings, and starts the server.
    pub async fn open(plan: Plan<'_>, trust: Trust, reel: Arc<Reel>) -> Result<Self, Broken> {
        let Identity { domain, hostname, ip } = plan.identity;
        std::fs::create_dir_all(plan.folder)?;
        let (certificate, key) = (plan.folder.join("certificate.pem"), plan.folder.join("key.pem"));
        plan.authority
            .issue(&[hostname, domain], &[IpAddr::V4(ip)])?
            .write(&certificate, &key)?;
        let mut settings = Settings {
            hostname: hostname.to_owned(),
            data: plan.folder.join("data"),
            listen: listen(ip, plan.smtp_port, plan.usual_ports)?,
            ..Settings::default()
        };
        settings.tls.certificate = Some(certificate);
        settings.tls.key = Some(key);
        settings.dns.servers = vec![plan.dns];
        // Nothing is signed there, and its questions are told one by one.
        settings.dns.dnssec = crate::settings::Dnssec::Off;
        settings.judge.blocklists = vec![world::BLOCKLIST.to_owned()];
        settings.deliver.port = plan.smtp_port;
        settings.deliver.source_addresses = vec![IpAddr::V4(ip)];
        settings.deliver.extra_roots = Some(plan.root.to_owned());
        let settings_file = plan.folder.join(crate::settings::FILE_NAME);
        std::fs::write(&settings_file, toml::to_string(&settings).map_err(Broken::said)?)?;
        let mut site = Self {
            identity: plan.identity,
            settings,
            settings_file,
            trust,
            reel,
            server: None,
        };
        site.start().await?;
        Ok(site)
    }

    /// Starts the server anew, with the same settings and the same data.
    pub async fn start(&mut self) -> Result<(), Broken> {
        let tap = Arc::new(ReelTap {
            host: self.identity.domain,
            reel: Arc::clone(&self.reel),
        });
        let hooks = Hooks { smtp_tap: Some(tap) };
        let server = Server::start(&self.settings, hooks).await.map_err(Broken::said)?;
        self.server = Some(server);
        Ok(())
    }

    /// Ends the server cleanly; its data stays.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
    }

    /// Asks or orders what the command line can ask or order.
    pub async fn perform(&self, request: Request) -> Result<Response, Broken> {
        let server = self
            .server
            .as_ref()
            .ok_or_else(|| Broken::said("the server is down"))?;
        server.world.office.perform(request).await.map_err(Broken::said)
    }

    /// Adds the domain, so that mail for it is taken and signed.
    pub async fn add_domain(&self) -> Result<(), Broken> {
        let domain = Domain::parse(self.identity.domain).map_err(Broken::said)?;
        self.perform(Request::DomainAdd { domain }).await.map(|_| ())
    }

    /// Adds an account whose password the server makes up.
    pub async fn add_account(&self, address: &str, name: &str) -> Result<lab::client::Login, Broken> {
        let request = Request::AccountAdd {
            address: parse(address)?,
            name: name.to_owned(),
            password: None,
        };
        match self.perform(request).await? {
            Response::Password(made) => Ok(lab::client::Login {
                user: address.to_owned(),
                password: mail::Secret::new(made.password.unwrap_or_default()),
            }),
            _ => Err(Broken::said("adding an account gave no password")),
        }
    }

    /// The zone file that the operator would be told to publish.
    pub async fn zone(&self) -> Result<String, Broken> {
        let domain = Domain::parse(self.identity.domain).map_err(Broken::said)?;
        let addresses = vec![IpAddr::V4(self.identity.ip)];
        match self.perform(Request::Zone { domain, addresses }).await? {
            Response::Zone(text) => Ok(text),
            _ => Err(Broken::said("asking for the zone gave something else")),
        }
    }

    /// Where a service listens.
    pub fn addr(&self, service: Service) -> SocketAddr {
        let listen = &self.settings.listen;
        let addresses = match service {
            Service::Smtp => &listen.smtp,
            Service::Submission => &listen.submission,
            Service::Submissions => &listen.submissions,
            Service::Imap => &listen.imap,
            Service::Imaps => &listen.imaps,
            Service::Pop3 => &listen.pop3,
            Service::Pop3s => &listen.pop3s,
        };
        // `open` gave each service exactly one address.
        addresses[0]
    }

    /// A service as a client's target; `from` is the client's address when it matters.
    pub fn target(&self, service: Service, from: Option<Ipv4Addr>) -> Target {
        Target {
            addr: self.addr(service),
            name: self.identity.hostname.to_owned(),
            trust: self.trust.clone(),
            from: from.map(IpAddr::V4),
        }
    }
}

/// An address that the demo itself wrote.
pub fn parse(address: &str) -> Result<EmailAddress, Broken> {
    EmailAddress::parse(address).map_err(Broken::said)
}

/// One address for each service, no two the same.
fn listen(ip: Ipv4Addr, smtp_port: u16, usual_ports: bool) -> Result<Listen, Broken> {
    let mut taken = vec![smtp_port];
    let mut one = |default: &[SocketAddr]| -> Result<Vec<SocketAddr>, Broken> {
        let usual = default.first().map_or(0, SocketAddr::port);
        let mut port = port(usual, usual_ports, &[IpAddr::V4(ip)])?;
        while taken.contains(&port) {
            port = lab::ports::free_port(&[IpAddr::V4(ip)])?;
        }
        taken.push(port);
        Ok(vec![SocketAddr::from((ip, port))])
    };
    let default = Listen::default();
    Ok(Listen {
        smtp: vec![SocketAddr::from((ip, smtp_port))],
        submission: one(&default.submission)?,
        submissions: one(&default.submissions)?,
        imap: one(&default.imap)?,
        imaps: one(&default.imaps)?,
        pop3: one(&default.pop3)?,
        pop3s: one(&default.pop3s)?,
        ..default
    })
}

/// The usual port if it is ours to take and free on these addresses, else any that is free.
pub fn port(usual: u16, ours: bool, addresses: &[IpAddr]) -> Result<u16, Broken> {
    Ok(match ours {
        true => lab::ports::free_port_near(usual, addresses)?,
        false => lab::ports::free_port(addresses)?,
    })
}

/// Hears the server's SMTP sessions.
struct ReelTap {
    host: &'static str,
    reel: Arc<Reel>,
}

impl smtp::Tap for ReelTap {
    fn line(&self, session: &str, from_client: bool, line: &str) {
        self.reel.add(Happening::Line {
            host: self.host,
            session: session.to_owned(),
            from_client,
            text: line.to_owned(),
        });
    }
}
