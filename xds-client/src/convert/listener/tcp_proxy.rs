//! `extensions.filters.network.tcp_proxy.v3.TcpProxy`.

use std::time::Duration;

use config::{TcpDestinations, TcpProxy, TcpWeightedCluster};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as pb;
use envoy_types::pb::envoy::r#type::v3::HashPolicy;
use envoy_types::pb::envoy::r#type::v3::hash_policy::{PolicySpecifier, SourceIp};

use pb::tcp_proxy::weighted_cluster::ClusterWeight;
use pb::tcp_proxy::{ClusterSpecifier, WeightedCluster};

use crate::convert::at::At;
use crate::convert::table::{Choice, Message, Told, open, variants};
use crate::convert::values::{duration, needed, text};
use crate::convert::{Refused, access_log};

/// Envoy's default of `idle_timeout`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        pb::TcpProxy::MESSAGE,
        ClusterSpecifier::MESSAGE,
        WeightedCluster::MESSAGE,
        ClusterWeight::MESSAGE,
        HashPolicy::MESSAGE,
        PolicySpecifier::MESSAGE,
        SourceIp::MESSAGE,
    ]
}

variants!(ClusterSpecifier as "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.cluster_specifier" {
    honoured: Cluster, WeightedClusters;
});

variants!(PolicySpecifier as "envoy.type.v3.HashPolicy.policy_specifier" {
    honoured: SourceIp;
    refused: FilterState;
});

pub(super) fn tcp_proxy(told: pb::TcpProxy, at: &At<'_>) -> Result<TcpProxy, Refused> {
    open!(told, at, pb::TcpProxy as "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" {
        honoured: stat_prefix, idle_timeout, max_downstream_connection_duration, access_log, hash_policy,
            cluster_specifier;
        refused: on_demand, metadata_match, downstream_idle_timeout, upstream_idle_timeout, max_connect_attempts,
            backoff_options, tunneling_config, max_downstream_connection_duration_jitter_percentage, access_log_flush_interval,
            flush_access_log_on_connected, access_log_options, proxy_protocol_tlvs, proxy_protocol_tlv_merge_policy,
            upstream_connect_mode, max_early_data_bytes, check_drain_close;
    });
    let destinations = match needed(cluster_specifier, at)?.choose(at)? {
        ClusterSpecifier::Cluster(cluster) => TcpDestinations::Cluster(text(cluster, &at.field("cluster"))?),
        ClusterSpecifier::WeightedClusters(told) => weighted(told, &at.field("weighted_clusters"))?,
    };
    let mut hash_source_ip = false;
    for (index, told) in hash_policy.into_iter().enumerate() {
        let at = at.index("hash_policy", index);
        open!(told, at, HashPolicy as "envoy.type.v3.HashPolicy" { honoured: policy_specifier; });
        if let PolicySpecifier::SourceIp(told) = needed(policy_specifier, &at)?.choose(&at)? {
            open!(told, at, SourceIp as "envoy.type.v3.HashPolicy.SourceIp" {});
            hash_source_ip = true;
        }
    }
    let idle_timeout = duration(idle_timeout, &at.field("idle_timeout"))?.unwrap_or(IDLE_TIMEOUT);
    let age = at.field("max_downstream_connection_duration");
    let max_connection_duration = duration(max_downstream_connection_duration, &age)?;
    Ok(TcpProxy {
        stat_prefix: stat_prefix.into(),
        destinations,
        idle_timeout: Some(idle_timeout).filter(|timeout| !timeout.is_zero()),
        max_connection_duration: max_connection_duration.filter(|duration| !duration.is_zero()),
        hash_source_ip,
        access_log: access_log::of_traffic(access_log, at)?,
        origin: None,
    })
}

fn weighted(told: WeightedCluster, at: &At<'_>) -> Result<TcpDestinations, Refused> {
    open!(told, at, WeightedCluster as "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster" {
        honoured: clusters;
    });
    let clusters = clusters.into_iter().enumerate().map(|(index, told)| {
        let at = at.index("clusters", index);
        open!(told, at, ClusterWeight
            as "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight" {
            honoured: name, weight;
            refused: metadata_match;
        });
        if weight == 0 {
            return Err(at.field("weight").refuse("a weight is over 0"));
        }
        Ok(TcpWeightedCluster { cluster: text(name, &at.field("name"))?, weight })
    });
    let clusters: Vec<TcpWeightedCluster> = clusters.collect::<Result<_, Refused>>()?;
    let sum: Option<u32> = clusters.iter().try_fold(0, |sum: u32, cluster| sum.checked_add(cluster.weight));
    if clusters.is_empty() || sum.is_none() {
        return Err(at.refuse("the sum of all weights is over 0 and below 2^32"));
    }
    Ok(TcpDestinations::Weighted(clusters))
}
