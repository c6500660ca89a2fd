//! The resolver that asks real name servers, on hickory with its cache.
//!
//! Promises: NXDOMAIN, "no such records" and "could not find out" stay apart, and whatever is not
//! plainly one of the first two is the third. Asks one server at a time, and the next one when a
//! server is silent or fails. Never reads the hosts file or a search list: mail names are absolute.
//! Needs a tokio runtime.

use crate::{Answer, DnsError, Dnssec, Mx, Name, NamedMx, Resolver, Result, reverse_name};
use futures_util::future::BoxFuture;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as WireError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name as WireName, RData, Record, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use mail::Domain;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long an answer may at most be kept, whatever its owner says: one day.
pub const TTL_MAX: Duration = Duration::from_secs(86_400);
/// How long "there is none" may at most be kept (RFC 2308 §5 advises one to three hours).
pub const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(3_600);
/// How long "there is none" is said to last when its answer does not tell, in seconds.
pub const NEGATIVE_TTL_SECS_DEFAULT: u32 = 60;

/// How to ask.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name servers to ask over UDP and TCP. The next one is asked when one does not answer or
    /// fails, and the one that answered last is asked first. Empty: those of the system's
    /// configuration.
    pub servers: Vec<SocketAddr>,
    /// How long to wait for one answer. Default 3 s.
    pub timeout: Duration,
    /// How often one server is asked again before the next. Default 1.
    pub attempts: usize,
    /// How many answers of one server are kept in memory at most; 0 keeps none. Default 8,192.
    pub cache_entries: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(3),
            attempts: 1,
            cache_entries: 8_192,
        }
    }
}

/// The resolver could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The system's resolver configuration cannot be read or names no server.
    #[error("the system's DNS configuration cannot be used ({0}); name the servers in the settings")]
    System(String),
    /// The resolver refused its configuration.
    #[error("the DNS resolver cannot be built: {0}")]
    Build(String),
}

/// Asks real name servers. Cheap to clone; clones share the cache.
#[derive(Clone)]
pub struct HickoryResolver {
    /// One for each server: within one, a silent server would use up the time of the next.
    servers: Arc<[TokioResolver]>,
    /// The server that answered last.
    preferred: Arc<AtomicUsize>,
}

impl HickoryResolver {
    /// A resolver with these options.
    ///
    /// # Errors
    /// When no servers are given and the system names none.
    pub fn new(options: &Options) -> std::result::Result<Self, BuildError> {
        let servers = if options.servers.is_empty() {
            system_servers()?
        } else {
            options.servers.iter().map(server).collect()
        };
        let built: std::result::Result<Vec<_>, _> =
            servers.into_iter().map(|server| build(server, options)).collect();
        Ok(Self {
            servers: built?.into(),
            preferred: Arc::default(),
        })
    }

    async fn ask<T>(
        &self,
        name: &str,
        record_type: RecordType,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Result<T> {
        let wire = wire_name(name).ok_or_else(|| DnsError::NoSuchName(name.to_owned()))?;
        let first = self.preferred.load(Ordering::Relaxed);
        let mut trouble = None;
        for turn in 0..self.servers.len() {
            let at = (first + turn) % self.servers.len();
            let result = match self.servers[at].lookup(wire.clone(), record_type).await {
                Ok(found) => answer(name, record_type, &found, &take),
                Err(error) => failure(name, &error),
            };
            match result {
                Err(error) if error.is_temporary() => trouble = Some(error),
                final_result => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return final_result;
                }
            }
        }
        Err(trouble.unwrap_or_else(|| DnsError::Unavailable {
            name: name.to_owned(),
            reason: "there is no name server to ask".to_owned(),
        }))
    }
}

fn build(server: NameServerConfig, options: &Options) -> std::result::Result<TokioResolver, BuildError> {
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = wire_options(options);
    builder.build().map_err(|e| BuildError::Build(e.to_string()))
}

/// Only the servers are taken from the system: a search list would turn an absent name of a
/// stranger into one of ours.
fn system_servers() -> std::result::Result<Vec<NameServerConfig>, BuildError> {
    let (config, _) = read_system_conf().map_err(|e| BuildError::System(e.to_string()))?;
    let (_, _, servers) = config.into_parts();
    if servers.is_empty() {
        return Err(BuildError::System("it names no server".to_owned()));
    }
    Ok(servers)
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    NameServerConfig::new(
        address.ip(),
        true,
        vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())],
    )
}

fn wire_options(options: &Options) -> ResolverOpts {
    let mut wire = ResolverOpts::default();
    wire.ndots = 0;
    wire.timeout = options.timeout;
    wire.attempts = options.attempts;
    wire.cache_size = options.cache_entries;
    wire.use_hosts_file = ResolveHosts::Never;
    // Asking two at once lets the first error win over a later answer.
    wire.num_concurrent_reqs = 1;
    // A lost or mangled UDP answer is worth a try over TCP.
    wire.try_tcp_on_error = true;
    wire.positive_max_ttl = Some(TTL_MAX);
    wire.negative_max_ttl = Some(NEGATIVE_TTL_MAX);
    wire
}

fn wire_name(name: &str) -> Option<WireName> {
    let mut wire = WireName::from_labels(name.split('.').map(str::as_bytes)).ok()?;
    wire.set_fqdn(true);
    Some(wire)
}

fn answer<T>(
    name: &str,
    record_type: RecordType,
    found: &Lookup,
    take: &impl Fn(&RData) -> Option<T>,
) -> Result<T> {
    // CNAMEs stand in the answer too, and with DNSSEC signatures: only what was asked for counts.
    let wanted: Vec<&Record> = found
        .answers()
        .iter()
        .filter(|record| record.record_type() == record_type)
        .collect();
    // A chain of CNAMEs may end at a name that does not exist (RFC 6604 §3).
    if wanted.is_empty() && found.message().metadata.response_code == ResponseCode::NXDomain {
        return Err(DnsError::NoSuchName(name.to_owned()));
    }
    let ttl_secs = wanted
        .iter()
        .map(|r| r.ttl)
        .min()
        .unwrap_or(NEGATIVE_TTL_SECS_DEFAULT);
    Ok(Answer {
        records: wanted.iter().filter_map(|r| take(&r.data)).collect(),
        ttl_secs,
        dnssec: Dnssec::Insecure,
    })
}

fn failure<T>(name: &str, error: &NetError) -> Result<T> {
    if let NetError::Dns(WireError::NoRecordsFound(none)) = error {
        match none.response_code {
            ResponseCode::NXDomain => return Err(DnsError::NoSuchName(name.to_owned())),
            ResponseCode::NoError => {
                return Ok(Answer {
                    records: Vec::new(),
                    ttl_secs: none.negative_ttl.unwrap_or(NEGATIVE_TTL_SECS_DEFAULT),
                    dnssec: Dnssec::Insecure,
                });
            }
            _ => {}
        }
    }
    let reason = match error {
        NetError::Timeout => "no answer in time".to_owned(),
        NetError::NoConnections => "no name server can be reached".to_owned(),
        NetError::Dns(WireError::ResponseCode(code)) => format!("the name server answered {code}"),
        other => other.to_string(),
    };
    Err(DnsError::Unavailable {
        name: name.to_owned(),
        reason,
    })
}

/// Any name out of an answer; `None` when a label holds a dot or what is not text.
fn any_name(wire: &WireName) -> Option<Name> {
    let labels: Option<Vec<&str>> = wire
        .iter()
        .map(|l| std::str::from_utf8(l).ok().filter(|l| !l.contains('.')))
        .collect();
    Name::parse(&labels?.join(".")).ok()
}

fn take_mx(data: &RData) -> Option<Mx> {
    take_named_mx(data)?.to_mx()
}

fn take_named_mx(data: &RData) -> Option<NamedMx> {
    let RData::MX(mx) = data else { return None };
    let exchange = if mx.exchange.is_root() {
        None
    } else {
        Some(any_name(&mx.exchange)?)
    };
    Some(NamedMx {
        preference: mx.preference,
        exchange,
    })
}

fn take_txt(data: &RData) -> Option<Vec<u8>> {
    match data {
        RData::TXT(txt) => Some(txt.txt_data.concat()),
        _ => None,
    }
}

fn take_a(data: &RData) -> Option<Ipv4Addr> {
    match data {
        RData::A(a) => Some(a.0),
        _ => None,
    }
}

fn take_aaaa(data: &RData) -> Option<Ipv6Addr> {
    match data {
        RData::AAAA(aaaa) => Some(aaaa.0),
        _ => None,
    }
}

fn take_ptr(data: &RData) -> Option<Domain> {
    match data {
        RData::PTR(ptr) => any_name(&ptr.0)?.to_domain(),
        _ => None,
    }
}

impl Resolver for HickoryResolver {
    fn mx<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Mx>> {
        Box::pin(self.ask(name.as_str(), RecordType::MX, take_mx))
    }
    fn txt<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(self.ask(name.as_str(), RecordType::TXT, take_txt))
    }
    fn a<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Ipv4Addr>> {
        Box::pin(self.ask(name.as_str(), RecordType::A, take_a))
    }
    fn aaaa<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Ipv6Addr>> {
        Box::pin(self.ask(name.as_str(), RecordType::AAAA, take_aaaa))
    }
    fn ptr(&self, ip: IpAddr) -> BoxFuture<'_, Result<Domain>> {
        Box::pin(async move {
            let name = reverse_name(ip);
            if ip.to_canonical().is_loopback() {
                // hickory answers `localhost` without asking anybody (RFC 6761 §6.3), which would
                // look like a name that does not resolve back.
                return Err(DnsError::NoSuchName(name));
            }
            self.ask(&name, RecordType::PTR, take_ptr).await
        })
    }
    fn mx_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<NamedMx>> {
        Box::pin(self.ask(name.as_str(), RecordType::MX, take_named_mx))
    }
    fn txt_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(self.ask(name.as_str(), RecordType::TXT, take_txt))
    }
    fn a_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Ipv4Addr>> {
        Box::pin(self.ask(name.as_str(), RecordType::A, take_a))
    }
    fn aaaa_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Ipv6Addr>> {
        Box::pin(self.ask(name.as_str(), RecordType::AAAA, take_aaaa))
    }
}
