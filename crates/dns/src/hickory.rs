//! The resolver that asks real name servers, on hickory with its cache.
//!
//! Promises: NXDOMAIN, "no such records" and "could not find out" stay apart, and whatever is not
//! plainly one of the first two is the third; an answer that fails validation is the third too. Asks
//! one server at a time, and the next one when a server is silent or fails. Never reads the hosts file
//! or a search list: mail names are absolute. Needs a tokio runtime.
//!
//! With DNSSEC ([`Checking`]) there are two resolvers in it: MX, A, AAAA and TLSA of host names, on
//! which the way of mail and its TLS hang, are checked; texts, names of addresses and what SPF asks are
//! not, because a zone whose signatures ran out must not make its senders fail SPF.

mod backend;

use crate::{Answer, DnsError, Dnssec, Mx, Name, NamedMx, Resolver, Result, Tlsa, reverse_name};
use backend::Backend;
use futures_util::future::BoxFuture;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError as WireError, NetError};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name as WireName, RData, Record, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use mail::Domain;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long an answer may at most be kept, whatever its owner says: one day.
pub const TTL_MAX: Duration = Duration::from_secs(TTL_SECS_MAX as u64);
const TTL_SECS_MAX: u32 = 86_400;
/// How long "there is none" may at most be kept (RFC 2308 §5 advises one to three hours).
pub const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(3_600);
/// How long "there is none" is said to last when its answer does not tell, in seconds.
pub const NEGATIVE_TTL_SECS_DEFAULT: u32 = 60;

/// In [`Checking::Auto`], after how many questions it is tried again whether validation works, once it
/// did not.
pub const PROBE_EVERY_QUESTIONS: usize = 256;

/// How answers about MX, A, AAAA and TLSA are checked by DNSSEC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checking {
    /// Not at all: every answer is insecure, and there is no DANE.
    #[default]
    Off,
    /// The name server is believed when it says that it validated (the AD bit), but only one on a
    /// loopback address: between it and us anybody else could set that bit. "There is none" is never
    /// secure then.
    TrustAd,
    /// Validated here, from the trust anchors down. The name server must pass signatures on; with one
    /// that does not, every answer is "could not find out".
    Validate,
    /// [`Checking::Validate`] as soon as the root's own signature came through the name server once,
    /// and from then on; [`Checking::Off`] before.
    Auto,
}

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
    /// DNSSEC. Default: off.
    pub checking: Checking,
    /// The root's keys that validation begins with, as DNSKEY records in zone-file form. `None`: those
    /// of the Internet's root (2017 and 2024), compiled in.
    pub trust_anchors: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(3),
            attempts: 1,
            cache_entries: 8_192,
            checking: Checking::Off,
            trust_anchors: None,
        }
    }
}

/// The resolver could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The system's resolver configuration cannot be read or names no server.
    #[error("the system's DNS configuration cannot be used ({0}); name the servers in the settings")]
    System(String),
    /// The trust anchors cannot be read.
    #[error(
        "the trust anchors cannot be read: {0}; they are DNSKEY records of the root, such as `. IN DNSKEY 257 3 8 AwEAA…`"
    )]
    TrustAnchors(String),
    /// The resolver refused its configuration.
    #[error("the DNS resolver cannot be built: {0}")]
    Build(String),
}

/// Asks real name servers. Cheap to clone; clones share the cache.
#[derive(Clone)]
pub struct HickoryResolver(Arc<Inner>);

struct Inner {
    plain: Servers,
    /// Which questions are checked by, if any are.
    checked: Option<Servers>,
    auto: Option<Auto>,
}

/// Whether validation works, in [`Checking::Auto`].
#[derive(Default)]
struct Auto {
    works: std::sync::atomic::AtomicBool,
    questions: AtomicUsize,
}

/// The name servers, asked in one manner.
struct Servers {
    /// One for each server: within one, a silent server would use up the time of the next.
    each: Vec<Backend>,
    /// The server that answered last.
    preferred: AtomicUsize,
}

impl HickoryResolver {
    /// A resolver with these options.
    ///
    /// # Errors
    /// When no servers are given and the system names none, or the trust anchors cannot be read.
    pub fn new(options: &Options) -> std::result::Result<Self, BuildError> {
        let servers = if options.servers.is_empty() {
            system_servers()?
        } else {
            options.servers.iter().map(server).collect()
        };
        let all = |make: &dyn Fn(NameServerConfig) -> std::result::Result<Backend, BuildError>| {
            let each: std::result::Result<Vec<_>, _> = servers.iter().cloned().map(make).collect();
            each.map(|each| Servers {
                each,
                preferred: AtomicUsize::new(0),
            })
        };
        let checked = match options.checking {
            Checking::Off => None,
            Checking::TrustAd => Some(all(&|server| Backend::trusting(server, options))?),
            Checking::Validate | Checking::Auto => {
                let anchors = Arc::new(anchors(options.trust_anchors.as_deref())?);
                Some(all(&|server| Backend::validating(server, options, &anchors))?)
            }
        };
        Ok(Self(Arc::new(Inner {
            plain: all(&|server| Backend::plain(server, options))?,
            checked,
            auto: (options.checking == Checking::Auto).then(Auto::default),
        })))
    }

    /// Whether answers are checked now. With [`Checking::Auto`] this asks the name servers, at times.
    pub async fn is_checking(&self) -> bool {
        let (Some(checked), Some(auto)) = (&self.0.checked, &self.0.auto) else {
            return self.0.checked.is_some();
        };
        if auto.works.load(Ordering::Relaxed) {
            return true;
        }
        let before = auto.questions.fetch_add(1, Ordering::Relaxed);
        if !before.is_multiple_of(PROBE_EVERY_QUESTIONS) {
            return false;
        }
        let works = checked.probe().await.is_ok();
        if works {
            auto.works.store(true, Ordering::Relaxed);
        }
        works
    }

    /// Whether signatures come through now: the root's own is asked for and checked.
    ///
    /// # Errors
    /// Why not, for people.
    pub async fn probe(&self) -> std::result::Result<(), String> {
        match &self.0.checked {
            Some(checked) => checked.probe().await,
            None => Err("DNSSEC is switched off".to_owned()),
        }
    }

    async fn ask<T>(
        &self,
        name: &str,
        record_type: RecordType,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Result<T> {
        let wire = wire_name(name).ok_or_else(|| DnsError::NoSuchName(name.to_owned()))?;
        self.0.plain.ask(name, &wire, record_type, take).await
    }

    /// The same, checked by DNSSEC as far as it is set.
    async fn ask_checked<T>(
        &self,
        name: &str,
        record_type: RecordType,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Result<T> {
        let wire = wire_name(name).ok_or_else(|| DnsError::NoSuchName(name.to_owned()))?;
        let is_checking = self.is_checking().await;
        let servers = match &self.0.checked {
            Some(checked) if is_checking => checked,
            _ => &self.0.plain,
        };
        servers.ask(name, &wire, record_type, take).await
    }
}

impl Servers {
    async fn probe(&self) -> std::result::Result<(), String> {
        let root = WireName::root();
        match self.ask(".", &root, RecordType::SOA, |_| Some(())).await {
            Ok(answer) if answer.dnssec.is_secure() => Ok(()),
            Ok(_) => Err("the answer about the root came without a word of DNSSEC".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn ask<T>(
        &self,
        name: &str,
        wire: &WireName,
        record_type: RecordType,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Result<T> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut trouble = None;
        for turn in 0..self.each.len() {
            let at = (first + turn) % self.each.len();
            let backend = &self.each[at];
            let result = match backend.lookup(wire, record_type).await {
                Ok(found) => answer(name, record_type, &found, backend.trusts_ad(), &take),
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
        Err(trouble.unwrap_or_else(|| unavailable(name, "there is no name server to ask")))
    }
}

fn unavailable(name: &str, reason: impl Into<String>) -> DnsError {
    DnsError::Unavailable {
        name: name.to_owned(),
        reason: reason.into(),
    }
}

fn anchors(text: Option<&str>) -> std::result::Result<TrustAnchors, BuildError> {
    let Some(text) = text else {
        return Ok(TrustAnchors::default());
    };
    let anchors: TrustAnchors = text
        .parse()
        .map_err(|e| BuildError::TrustAnchors(format!("{e}")))?;
    match anchors.is_empty() {
        true => Err(BuildError::TrustAnchors("no key of the root is there".to_owned())),
        false => Ok(anchors),
    }
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

fn wire_name(name: &str) -> Option<WireName> {
    let mut wire = WireName::from_labels(name.split('.').map(str::as_bytes)).ok()?;
    wire.set_fqdn(true);
    Some(wire)
}

fn answer<T>(
    name: &str,
    record_type: RecordType,
    found: &Lookup,
    trusts_ad: bool,
    take: &impl Fn(&RData) -> Option<T>,
) -> Result<T> {
    let of_type = |wanted: RecordType| {
        let records = found.answers().iter();
        records.filter(move |record| record.record_type() == wanted)
    };
    let proofs = || {
        of_type(record_type)
            .chain(of_type(RecordType::CNAME))
            .map(|r| r.proof)
    };
    if proofs().any(|proof| proof == Proof::Bogus) {
        return Err(unavailable(name, BOGUS));
    }
    // CNAMEs stand in the answer too, and with DNSSEC signatures: only what was asked for counts.
    let wanted: Vec<&Record> = of_type(record_type).collect();
    // A chain of CNAMEs may end at a name that does not exist (RFC 6604 §3).
    if wanted.is_empty() && found.message().metadata.response_code == ResponseCode::NXDomain {
        return Err(DnsError::NoSuchName(name.to_owned()));
    }
    let ttl_secs = wanted
        .iter()
        .map(|r| r.ttl)
        .min()
        .unwrap_or(NEGATIVE_TTL_SECS_DEFAULT);
    let validated = !wanted.is_empty() && proofs().all(|proof| proof == Proof::Secure);
    let believed = trusts_ad && !wanted.is_empty() && found.message().metadata.authentic_data;
    let is_alias = of_type(RecordType::CNAME).next().is_some();
    let owner = wanted.first().filter(|_| is_alias).map(|record| &record.name);
    Ok(Answer {
        records: wanted.iter().filter_map(|r| take(&r.data)).collect(),
        ttl_secs: ttl_secs.min(TTL_SECS_MAX),
        dnssec: match validated || believed {
            true => Dnssec::Secure,
            false => Dnssec::Insecure,
        },
        alias_of: owner.and_then(any_name),
    })
}

/// Why an answer that failed validation is none. The validator says the same when it could not fetch
/// the keys, which may be mended in a moment.
const BOGUS: &str = "its DNSSEC signatures do not verify, or the keys for them could not be fetched";

fn failure<T>(name: &str, error: &NetError) -> Result<T> {
    match error {
        NetError::Dns(WireError::NoRecordsFound(none)) => {
            let authorities = none.authorities.as_deref().unwrap_or_default();
            let dnssec = denial(authorities);
            if let Some(result) = nothing(name, none.response_code, none.negative_ttl, dnssec) {
                return result;
            }
        }
        // Insecure: NSEC3 with more iterations than are computed (RFC 9276 §3.2).
        NetError::Dns(WireError::Nsec { response, proof, .. }) if *proof == Proof::Insecure => {
            let code = response.metadata.response_code;
            if let Some(result) = nothing(name, code, None, Dnssec::Insecure) {
                return result;
            }
        }
        _ => {}
    }
    let reason = match error {
        NetError::Timeout => "no answer in time".to_owned(),
        NetError::NoConnections => "no name server can be reached".to_owned(),
        NetError::Dns(WireError::ResponseCode(code)) => format!("the name server answered {code}"),
        NetError::Dns(WireError::DnssecBogus | WireError::Nsec { .. }) => BOGUS.to_owned(),
        other => other.to_string(),
    };
    Err(unavailable(name, reason))
}

/// "No such name" or "no such records", if the code says one of them.
fn nothing<T>(name: &str, code: ResponseCode, ttl_secs: Option<u32>, dnssec: Dnssec) -> Option<Result<T>> {
    match code {
        ResponseCode::NXDomain => Some(Err(DnsError::NoSuchName(name.to_owned()))),
        ResponseCode::NoError => Some(Ok(Answer {
            records: Vec::new(),
            ttl_secs: ttl_secs.unwrap_or(NEGATIVE_TTL_SECS_DEFAULT),
            dnssec,
            alias_of: None,
        })),
        _ => None,
    }
}

/// Whether it is proved that there is nothing: by NSEC or NSEC3 records that validated (RFC 4035 §5.4).
fn denial(authorities: &[Record]) -> Dnssec {
    let mut proofs = authorities
        .iter()
        .filter(|record| matches!(record.record_type(), RecordType::NSEC | RecordType::NSEC3))
        .map(|record| record.proof)
        .peekable();
    match proofs.peek().is_some() && proofs.all(|proof| proof == Proof::Secure) {
        true => Dnssec::Secure,
        false => Dnssec::Insecure,
    }
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

fn take_tlsa(data: &RData) -> Option<Tlsa> {
    match data {
        RData::TLSA(tlsa) => Some(Tlsa {
            usage: tlsa.cert_usage.into(),
            selector: tlsa.selector.into(),
            matching: tlsa.matching.into(),
            data: tlsa.cert_data.clone(),
        }),
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
        Box::pin(async move {
            let each = |data: &RData| matches!(data, RData::MX(_)).then(|| take_mx(data));
            let answer = self.ask_checked(name.as_str(), RecordType::MX, each).await?;
            crate::usable(name, answer)
        })
    }
    fn txt<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(self.ask(name.as_str(), RecordType::TXT, take_txt))
    }
    fn a<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Ipv4Addr>> {
        Box::pin(self.ask_checked(name.as_str(), RecordType::A, take_a))
    }
    fn aaaa<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Ipv6Addr>> {
        Box::pin(self.ask_checked(name.as_str(), RecordType::AAAA, take_aaaa))
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
    fn tlsa<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Tlsa>> {
        Box::pin(self.ask_checked(name.as_str(), RecordType::TLSA, take_tlsa))
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
