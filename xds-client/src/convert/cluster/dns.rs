//! Clusters whose endpoints DNS tells.

use std::sync::Arc;
use std::time::Duration;

use config::origin::Origin;
use config::{DnsDiscovery, DnsFamily};
use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use envoy_types::pb::google::protobuf;

use crate::convert::Refused;
use crate::convert::at::At;
use crate::convert::table::{Choice, Message, Told as _, open, variants};
use crate::convert::values::{duration, enumerated, needed};
use crate::convert::{endpoint, typed};

/// Envoy's `dns_refresh_rate` where nothing is said.
const REFRESH_RATE: Duration = Duration::from_secs(5);

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        pb::cluster::DnsLookupFamily::MESSAGE,
        core::TypedExtensionConfig::MESSAGE,
        CaresDnsResolverConfig::MESSAGE,
    ]
}

variants!(pb::cluster::DnsLookupFamily as "envoy.config.cluster.v3.Cluster.DnsLookupFamily" {
    honoured: V4Only, V6Only, All;
    refused: Auto, V4Preferred;
});

/// What a cluster says of names.
pub(super) struct Told {
    pub(super) load_assignment: Option<ClusterLoadAssignment>,
    pub(super) refresh_rate: Option<protobuf::Duration>,
    pub(super) respect_ttl: bool,
    pub(super) family: i32,
    pub(super) resolver: Option<core::TypedExtensionConfig>,
    pub(super) origin: Option<Origin>,
}

impl Told {
    /// Refuses endpoints that are written into a cluster which asks nobody for them.
    pub(super) fn expect_none(&self, at: &At<'_>) -> Result<(), Refused> {
        match &self.load_assignment {
            Some(told) if !told.endpoints.is_empty() => {
                Err(at.field("load_assignment").refuse("weft takes endpoints from EDS or DNS only"))
            }
            _ => Ok(()),
        }
    }

    /// The names, and how they are asked for.
    pub(super) fn discovery(self, at: &At<'_>) -> Result<Arc<DnsDiscovery>, Refused> {
        use pb::cluster::DnsLookupFamily;
        let at_family = at.field("dns_lookup_family");
        let family = match enumerated::<DnsLookupFamily>(self.family, &at_family)?.choose(&at_family)? {
            DnsLookupFamily::V4Only => DnsFamily::V4Only,
            DnsLookupFamily::V6Only => DnsFamily::V6Only,
            DnsLookupFamily::All => DnsFamily::All,
            DnsLookupFamily::Auto | DnsLookupFamily::V4Preferred => return Err(at_family.not_honoured()),
        };
        if let Some(told) = self.resolver {
            resolver(told, &at.field("typed_dns_resolver_config"))?;
        }
        let refresh_rate =
            duration(self.refresh_rate, &at.field("dns_refresh_rate"))?.unwrap_or(REFRESH_RATE);
        if refresh_rate.is_zero() {
            return Err(at.field("dns_refresh_rate").refuse("it is over 0"));
        }
        let at = at.field("load_assignment");
        Ok(Arc::new(DnsDiscovery {
            localities: endpoint::names(needed(self.load_assignment, &at)?, &at)?,
            refresh_rate,
            respect_ttl: self.respect_ttl,
            family,
            origin: self.origin,
        }))
    }
}

/// Which library asks makes no difference; which servers are asked does.
fn resolver(told: core::TypedExtensionConfig, at: &At<'_>) -> Result<(), Refused> {
    open!(told, at, core::TypedExtensionConfig as "envoy.config.core.v3.TypedExtensionConfig" {
        honoured: typed_config;
        harmless: name = "the type of its configuration says what it is";
    });
    let at = at.field("typed_config");
    let told: CaresDnsResolverConfig = typed::decode_only(typed_config, &at)?;
    open!(told, at, CaresDnsResolverConfig as "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig" {
        harmless:
            filter_unroutable_families = "an address that cannot be reached fails as any other",
            udp_max_queries = "weft uses a socket for each question",
            query_timeout_seconds = "weft gives up by the resolver configuration of the host",
            query_tries = "weft tries by the resolver configuration of the host",
            rotate_nameservers = "weft asks servers by the resolver configuration of the host",
            edns0_max_payload_size = "weft asks over TCP what does not fit",
            max_udp_channel_duration = "weft uses a socket for each question",
            qcache_max_ttl = "weft asks again by the time to live or the refresh rate",
            reinit_channel_on_timeout = "weft uses a socket for each question";
        refused: resolvers, use_resolvers_as_fallback, dns_resolver_options;
    });
    Ok(())
}
