//! `[deliver]`: how mail leaves; `[[deliver.route]]` and `[[deliver.source]]` in it.

use super::pace;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// `[deliver]`: how mail leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deliver {
    pub port: u16,
    pub source_addresses: Vec<IpAddr>,
    pub source_choice: SourceChoice,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_roots: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replies: Option<PathBuf>,
    pub concurrency_max: usize,
    pub concurrency_per_domain_max: usize,
    pub mta_sts: bool,
    pub mta_sts_port: u16,
    pub messages_per_connection: usize,
    pub connection_idle_secs: u64,
    pub limit: Vec<pace::Limit>,
    pub route: Vec<Route>,
    pub source: Vec<Source>,
}

impl Deliver {
    pub(super) fn check(&self, hostname: &str) -> Result<(), String> {
        for limit in &self.limit {
            limit.limit(self.concurrency_per_domain_max)?;
        }
        if self.source.len() > ::deliver::source::SOURCES_MAX {
            return Err(format!(
                "deliver.source: {} at most",
                ::deliver::source::SOURCES_MAX
            ));
        }
        for source in &self.source {
            if let Err(why) = source.read(hostname) {
                return Err(format!("deliver.source {}: {why}", source.address));
            }
        }
        if !self.source.is_empty() && !self.source_addresses.is_empty() {
            return Err("deliver.source takes the place of deliver.source_addresses: set one of them".into());
        }
        for route in &self.route {
            let (spec, origin) = (route.spec(), ::deliver::Origin::Settings);
            if let Err(why) = ::deliver::Route::read(&route.domain, &spec, None, origin) {
                return Err(format!("deliver.route for \"{}\": {why}", route.domain));
            }
        }
        Ok(())
    }

    /// The files that it names, to be found from the folder of the settings.
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut Option<PathBuf>> {
        let passwords = self.route.iter_mut().map(|route| &mut route.password_file);
        [&mut self.extra_roots, &mut self.replies]
            .into_iter()
            .chain(passwords)
    }
}

impl Default for Deliver {
    fn default() -> Self {
        Self {
            port: 25,
            source_addresses: Vec::new(),
            source_choice: SourceChoice::default(),
            extra_roots: None,
            replies: None,
            concurrency_max: 200,
            mta_sts: true,
            concurrency_per_domain_max: 20,
            mta_sts_port: web::client::HTTPS_PORT,
            messages_per_connection: 100,
            connection_idle_secs: 5,
            limit: Vec::new(),
            route: Vec::new(),
            source: Vec::new(),
        }
    }
}

/// `[[deliver.route]]`: what is done with mail for a domain, whatever the DNS says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub domain: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mx: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lmtp: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discard: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RouteTls>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

impl Route {
    /// The same in the form in which the store has routes.
    pub fn spec(&self) -> directory::RouteSpec {
        directory::RouteSpec {
            hosts: self.host.iter().chain(&self.hosts).cloned().collect(),
            mx: self.mx.clone(),
            lmtp: self.lmtp.clone(),
            port: self.port,
            discard: self.discard,
            fail: self.fail.clone(),
            tls: self.tls.map(|tls| tls.name().to_owned()),
            user: self.user.clone(),
            password_file: self.password_file.clone(),
        }
    }
}

/// `[[deliver.source]]`: an address of ours from which other servers are called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub address: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helo: Option<String>,
    #[serde(default = "one")]
    pub weight: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
}

fn one() -> u32 {
    1
}

impl Source {
    /// The same as `deliver` takes it.
    pub fn read(&self, hostname: &str) -> Result<::deliver::source::Source, String> {
        let helo = self.helo.as_deref().unwrap_or(hostname);
        let helo = mail::Domain::parse(helo).map_err(|e| format!("helo = \"{helo}\": {e}"))?;
        let domains = self
            .domains
            .iter()
            .map(|text| ::deliver::RouteFor::parse(text).map_err(|e| format!("domains: \"{text}\": {e}")));
        Ok(::deliver::source::Source {
            address: self.address,
            helo: helo.to_string(),
            weight: self.weight,
            domains: domains.collect::<Result<_, _>>()?,
        })
    }
}

/// How a source address is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceChoice {
    #[default]
    Site,
    Random,
}

/// How a route uses TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteTls {
    #[default]
    Opportunistic,
    Encrypted,
    Required,
    Dane,
    Unchecked,
    Off,
}

impl RouteTls {
    fn name(self) -> &'static str {
        match self {
            RouteTls::Opportunistic => "opportunistic",
            RouteTls::Encrypted => "encrypted",
            RouteTls::Required => "required",
            RouteTls::Dane => "dane",
            RouteTls::Unchecked => "unchecked",
            RouteTls::Off => "off",
        }
    }
}
