//! `config.cluster.v3.Cluster`.

mod balancing;
mod dns;
mod http;
mod outlier;
mod socket;

use std::net::IpAddr;
use std::time::Duration;

use config::{CircuitBreakers, Cluster, ClusterMetadata, DiscoveryType, TcpKeepalive};
use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;

use super::at::At;
use super::table::{Choice, Message, Told, open, variants};
use super::values::{duration, enumerated, needed, number, text};
use super::{Refused, address, filters, metadata, source};

/// What Envoy bounds at once where nothing is said: connections, waiting requests and requests.
const BREAKER_DEFAULT: u32 = 1024;
/// What Envoy bounds retries by where nothing is said.
const RETRIES_DEFAULT: u32 = 3;
/// Envoy's default of `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    let mut tables = vec![
        pb::Cluster::MESSAGE,
        pb::cluster::ClusterDiscoveryType::MESSAGE,
        pb::cluster::DiscoveryType::MESSAGE,
        pb::cluster::EdsClusterConfig::MESSAGE,
        pb::CircuitBreakers::MESSAGE,
        pb::circuit_breakers::Thresholds::MESSAGE,
        pb::UpstreamConnectionOptions::MESSAGE,
        core::TcpKeepalive::MESSAGE,
        core::BindConfig::MESSAGE,
        core::ExtraSourceAddress::MESSAGE,
        pb::Filter::MESSAGE,
    ];
    for part in [balancing::tables(), dns::tables(), http::tables(), outlier::tables(), socket::tables()] {
        tables.extend(part);
    }
    tables
}

variants!(pb::cluster::ClusterDiscoveryType as "envoy.config.cluster.v3.Cluster.cluster_discovery_type" {
    honoured: Type;
    refused: ClusterType;
});

variants!(pb::cluster::DiscoveryType as "envoy.config.cluster.v3.Cluster.DiscoveryType" {
    honoured: Static, StrictDns, LogicalDns, Eds, OriginalDst;
});

/// A cluster.
///
/// # Errors
///
/// The path of what cannot be honoured.
pub(super) fn cluster(told: pb::Cluster, at: &At<'_>) -> Result<Cluster, Refused> {
    open!(told, at, pb::Cluster as "envoy.config.cluster.v3.Cluster" {
        honoured: transport_socket_matches, name, eds_cluster_config, connect_timeout, lb_policy, load_assignment,
            circuit_breakers, typed_extension_protocol_options, dns_refresh_rate, respect_dns_ttl, dns_lookup_family,
            typed_dns_resolver_config, outlier_detection, upstream_bind_config, common_lb_config, transport_socket,
            metadata, upstream_connection_options, filters, cluster_discovery_type, lb_config;
        harmless:
            alt_stat_name = "the name and `;`: says nothing that the name does not",
            per_connection_buffer_limit_bytes = "weft bounds what it holds of a connection by its own limits",
            dns_jitter = "spreads the questions of many proxies; weft asks when an answer is needed again",
            cleanup_interval = "weft keeps nothing for an original destination that nobody asks for",
            wait_for_warm_on_init = "weft serves a cluster when its endpoints are known";
        refused: transport_socket_matcher, stats_matcher, per_connection_buffer_high_watermark_timeout, health_checks,
            max_requests_per_connection, upstream_http_protocol_options, common_http_protocol_options,
            http_protocol_options, http2_protocol_options, dns_failure_refresh_rate, dns_resolvers,
            use_tcp_for_dns_lookups, dns_resolution_config, lb_subset_config, protocol_selection,
            close_connections_on_host_health_failure, ignore_health_on_host_removal, load_balancing_policy, lrs_server,
            lrs_report_endpoint_metrics, track_timeout_budgets, upstream_config, track_cluster_stats, preconnect_policy,
            connection_pool_per_downstream_connection, queuing_policies;
    });
    let said = metadata::metadata(metadata, &at.field("metadata"))?;
    let dns = dns::Told {
        load_assignment,
        refresh_rate: dns_refresh_rate,
        respect_ttl: respect_dns_ttl,
        family: dns_lookup_family,
        resolver: typed_dns_resolver_config,
        origin: said.origin.clone(),
    };
    let discovery = discovery(cluster_discovery_type, eds_cluster_config, &name, dns, at)?;
    for (index, filter) in filters.into_iter().enumerate() {
        upstream_filter(filter, &at.index("filters", index))?;
    }
    let balancing = balancing::balancing(lb_policy, lb_config, at)?;
    let common = balancing::common(common_lb_config, &at.field("common_lb_config"))?;
    let http = http::options(typed_extension_protocol_options, at)?;
    let mut sockets = socket::sockets(transport_socket_matches, transport_socket, said.origin.as_ref(), at)?;
    let all = sockets.matches.iter_mut().map(|matched| &mut matched.transport_socket);
    for socket in all.chain([&mut sockets.own]) {
        if let config::TransportSocket::Tls(tls) = socket {
            tls.by_request = http.by_request;
        }
    }
    let connect_timeout = duration(connect_timeout, &at.field("connect_timeout"))?.unwrap_or(CONNECT_TIMEOUT);
    Ok(Cluster {
        name: text(name, &at.field("name"))?,
        discovery,
        load_balancing: balancing.policy,
        slow_start: balancing.slow_start.map(Box::new),
        locality_weighted: common.locality_weighted,
        connect_timeout,
        circuit_breakers: breakers(circuit_breakers, &at.field("circuit_breakers"))?,
        outlier_detection: outlier::detection(outlier_detection, &at.field("outlier_detection"))?
            .map(Box::new),
        healthy_panic_percent: common.healthy_panic_percent,
        protocol: http.protocol,
        idle_timeout: http.idle_timeout,
        max_requests_per_connection: http.max_requests_per_connection,
        max_connection_duration: http.max_connection_duration,
        max_concurrent_streams: http.max_concurrent_streams,
        tcp_keepalive: keepalive(upstream_connection_options, &at.field("upstream_connection_options"))?
            .map(Box::new),
        bind_addresses: bind_addresses(upstream_bind_config, &at.field("upstream_bind_config"))?.into(),
        transport_socket_matches: sockets.matches,
        transport_socket: sockets.own,
        metadata: ClusterMetadata {
            services: said.services.into(),
            external: said.external,
            untold: said.untold,
            subset: said.subset,
            origin: said.origin.map(Box::new),
            told: config::Told::UNKNOWN,
            fields: None,
        },
    })
}

fn discovery(
    told: Option<pb::cluster::ClusterDiscoveryType>,
    eds: Option<pb::cluster::EdsClusterConfig>,
    name: &str,
    dns: dns::Told,
    at: &At<'_>,
) -> Result<DiscoveryType, Refused> {
    use pb::cluster::DiscoveryType as Told;
    let told = match told.map(|told| told.choose(at)).transpose()? {
        None => Told::Static,
        Some(pb::cluster::ClusterDiscoveryType::Type(told)) => enumerated(told, &at.field("type"))?,
        Some(pb::cluster::ClusterDiscoveryType::ClusterType(_)) => {
            return Err(at.field("cluster_type").not_honoured());
        }
    };
    if let Some(eds) = eds {
        eds_config(eds, name, &at.field("eds_cluster_config"))?;
    } else if told == Told::Eds {
        return Err(at.field("eds_cluster_config").refuse("it is missing"));
    }
    match told {
        Told::Eds => Ok(DiscoveryType::Eds),
        Told::OriginalDst => Ok(DiscoveryType::OriginalDst),
        Told::Static => {
            dns.expect_none(at)?;
            Ok(DiscoveryType::Static)
        }
        Told::StrictDns => Ok(DiscoveryType::StrictDns(dns.discovery(at)?)),
        Told::LogicalDns => Ok(DiscoveryType::LogicalDns(dns.discovery(at)?)),
    }
}

/// The endpoints come by the stream that the cluster came by, under the cluster's own name.
fn eds_config(told: pb::cluster::EdsClusterConfig, name: &str, at: &At<'_>) -> Result<(), Refused> {
    open!(told, at, pb::cluster::EdsClusterConfig as "envoy.config.cluster.v3.Cluster.EdsClusterConfig" {
        honoured: eds_config, service_name;
    });
    source::aggregated(eds_config, &at.field("eds_config"))?;
    if !service_name.is_empty() && service_name != name {
        return Err(at
            .field("service_name")
            .refuse("weft knows endpoints by the name of their cluster only"));
    }
    Ok(())
}

/// The thresholds of the default priority.
fn breakers(told: Option<pb::CircuitBreakers>, at: &At<'_>) -> Result<CircuitBreakers, Refused> {
    let mut breakers = CircuitBreakers {
        max_connections: BREAKER_DEFAULT,
        max_pending_requests: BREAKER_DEFAULT,
        max_requests: BREAKER_DEFAULT,
        max_retries: RETRIES_DEFAULT,
    };
    let Some(told) = told else { return Ok(breakers) };
    open!(told, at, pb::CircuitBreakers as "envoy.config.cluster.v3.CircuitBreakers" {
        honoured: thresholds;
        refused: per_host_thresholds;
    });
    for (index, told) in thresholds.into_iter().enumerate() {
        let at = at.index("thresholds", index);
        open!(told, at, pb::circuit_breakers::Thresholds as "envoy.config.cluster.v3.CircuitBreakers.Thresholds" {
            honoured: max_connections, max_pending_requests, max_requests, max_retries;
            harmless: track_remaining = "only a statistic: how much is left";
            refused: priority, retry_budget, max_connection_pools;
        });
        if index > 0 {
            return Err(at.refuse("the thresholds of this priority are told already"));
        }
        breakers = CircuitBreakers {
            max_connections: number(max_connections).unwrap_or(BREAKER_DEFAULT),
            max_pending_requests: number(max_pending_requests).unwrap_or(BREAKER_DEFAULT),
            max_requests: number(max_requests).unwrap_or(BREAKER_DEFAULT),
            max_retries: number(max_retries).unwrap_or(RETRIES_DEFAULT),
        };
    }
    Ok(breakers)
}

fn keepalive(
    told: Option<pb::UpstreamConnectionOptions>,
    at: &At<'_>,
) -> Result<Option<TcpKeepalive>, Refused> {
    let Some(told) = told else { return Ok(None) };
    open!(told, at, pb::UpstreamConnectionOptions as "envoy.config.cluster.v3.UpstreamConnectionOptions" {
        honoured: tcp_keepalive;
        refused: set_local_interface_name_on_upstream_connections, happy_eyeballs_config;
    });
    let Some(told) = tcp_keepalive else { return Ok(None) };
    let at = at.field("tcp_keepalive");
    open!(told, at, core::TcpKeepalive as "envoy.config.core.v3.TcpKeepalive" {
        honoured: keepalive_probes, keepalive_time, keepalive_interval;
    });
    let seconds = |told| number(told).map(|seconds| Duration::from_secs(seconds.into()));
    let keepalive = TcpKeepalive {
        probes: number(keepalive_probes),
        time: seconds(keepalive_time),
        interval: seconds(keepalive_interval),
    };
    Ok(Some(keepalive.bounded()))
}

fn bind_addresses(told: Option<core::BindConfig>, at: &At<'_>) -> Result<Vec<IpAddr>, Refused> {
    let Some(told) = told else { return Ok(Vec::new()) };
    open!(told, at, core::BindConfig as "envoy.config.core.v3.BindConfig" {
        honoured: source_address, extra_source_addresses;
        refused: freebind, socket_options, additional_source_addresses, local_address_selector,
            validate_network_namespaces;
    });
    let mut addresses = vec![address::source(source_address, &at.field("source_address"))?];
    for (index, told) in extra_source_addresses.into_iter().enumerate() {
        let at = at.index("extra_source_addresses", index);
        open!(told, at, core::ExtraSourceAddress as "envoy.config.core.v3.ExtraSourceAddress" {
            honoured: address;
            refused: socket_options;
        });
        addresses.push(address::source(address, &at.field("address"))?);
    }
    Ok(addresses)
}

/// A filter before the upstream: only metadata exchange.
fn upstream_filter(told: pb::Filter, at: &At<'_>) -> Result<(), Refused> {
    open!(told, at, pb::Filter as "envoy.config.cluster.v3.Filter" {
        honoured: typed_config;
        harmless: name = "the type of its configuration says what it is";
        refused: config_discovery;
    });
    let at = at.field("typed_config");
    filters::upstream_network(&needed(typed_config, &at)?, &at)
}
