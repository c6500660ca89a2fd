//! How one name server is asked: plainly, with its word taken for validation, or validating here.
//!
//! Promises: each manner has its own cache, so that nothing unchecked is ever taken for checked.

use super::{BuildError, NEGATIVE_TTL_MAX, NEGATIVE_TTL_SECS_DEFAULT, Options, TTL_MAX};
use hickory_resolver::caching_client::CachingClient;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, RetryDnsHandle};
use hickory_resolver::proto::dnssec::TrustAnchors;
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, Query};
use hickory_resolver::proto::rr::{Name as WireName, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig, TokioResolver};
use std::sync::Arc;
use std::time::Duration;

type Pool = RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>;

/// One name server, asked in one manner.
pub(super) enum Backend {
    Hickory(TokioResolver),
    Trusting {
        client: CachingClient<WithAd<Pool>>,
        options: DnsRequestOptions,
        /// Whether its AD bit counts.
        is_near: bool,
    },
}

impl Backend {
    /// Asked without DNSSEC.
    pub(super) fn plain(server: NameServerConfig, options: &Options) -> Result<Self, BuildError> {
        let mut builder = builder(server);
        *builder.options_mut() = wire_options(options);
        builder.build().map(Self::Hickory).map_err(failed)
    }

    /// Asked with all signatures, which are checked from these anchors down.
    pub(super) fn validating(
        server: NameServerConfig,
        options: &Options,
        anchors: &Arc<TrustAnchors>,
    ) -> Result<Self, BuildError> {
        let mut builder = builder(server);
        let wire = builder.options_mut();
        *wire = wire_options(options);
        wire.validate = true;
        // hickory forgets how long a validated "there is none" may be kept, and would ask for each
        // message anew.
        wire.negative_min_ttl = Some(Duration::from_secs(u64::from(NEGATIVE_TTL_SECS_DEFAULT)));
        let builder = builder.with_trust_anchor(Arc::clone(anchors));
        builder.build().map(Self::Hickory).map_err(failed)
    }

    /// Asked whether it validated the answer.
    pub(super) fn trusting(server: NameServerConfig, options: &Options) -> Result<Self, BuildError> {
        let wire = wire_options(options);
        let mut asking = DnsRequestOptions::default();
        asking.use_edns = wire.edns0;
        asking.edns_payload_len = wire.edns_payload_len;
        asking.recursion_desired = wire.recursion_desired;
        asking.case_randomization = wire.case_randomization;
        let is_near = server.ip.to_canonical().is_loopback();
        let attempts = wire.attempts;
        let context = Arc::new(PoolContext::new(wire, TlsConfig::new().map_err(failed)?));
        let pool = NameServerPool::from_config([server], context, TokioRuntimeProvider::default());
        let handle = WithAd(RetryDnsHandle::new(pool, attempts));
        Ok(Self::Trusting {
            client: CachingClient::new(options.cache_entries, handle, true),
            options: asking,
            is_near,
        })
    }

    /// Whether the AD bit of its answers counts.
    pub(super) fn trusts_ad(&self) -> bool {
        matches!(self, Self::Trusting { is_near: true, .. })
    }

    pub(super) async fn lookup(&self, name: &WireName, kind: RecordType) -> Result<Lookup, NetError> {
        match self {
            Self::Hickory(resolver) => resolver.lookup(name.clone(), kind).await,
            Self::Trusting { client, options, .. } => {
                let query = Query::query(name.clone(), kind);
                client.lookup(query, *options).await
            }
        }
    }
}

fn builder(server: NameServerConfig) -> hickory_resolver::ResolverBuilder<TokioRuntimeProvider> {
    let config = ResolverConfig::from_name_servers(vec![server]);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
}

fn failed(e: NetError) -> BuildError {
    BuildError::Build(e.to_string())
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

/// Asks with the AD bit set: "tell me whether you validated it" (RFC 6840 §5.7).
#[derive(Clone)]
pub(super) struct WithAd<H>(H);

impl<H: DnsHandle> DnsHandle for WithAd<H> {
    type Response = H::Response;
    type Runtime = H::Runtime;

    fn send(&self, mut request: DnsRequest) -> Self::Response {
        request.metadata.authentic_data = true;
        self.0.send(request)
    }
}
