//! `config.route.v3.RouteAction`: forwarding.

use std::sync::Arc;
use std::time::Duration;

use config::{Destinations, Forward, HostRewrite, PathRewrite, RegexRewrite, WeightedCluster};
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use pb::route_action::{ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration, RequestMirrorPolicy};
use pb::weighted_cluster::ClusterWeight;
use pb::weighted_cluster::cluster_weight::HostRewriteSpecifier as WeightedHostRewrite;

use super::{headers, retry};
use crate::convert::Refused;
use crate::convert::at::At;
use crate::convert::table::{Choice, Message, Told, open, variants};
use crate::convert::values::{duration, needed, number, search_regex, text};

/// Envoy's `timeout` where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        pb::RouteAction::MESSAGE,
        ClusterSpecifier::MESSAGE,
        HostRewriteSpecifier::MESSAGE,
        MaxStreamDuration::MESSAGE,
        RequestMirrorPolicy::MESSAGE,
        pb::WeightedCluster::MESSAGE,
        ClusterWeight::MESSAGE,
        WeightedHostRewrite::MESSAGE,
        RegexMatchAndSubstitute::MESSAGE,
    ]
}

variants!(ClusterSpecifier as "envoy.config.route.v3.RouteAction.cluster_specifier" {
    honoured: Cluster, WeightedClusters;
    refused: ClusterHeader, ClusterSpecifierPlugin, InlineClusterSpecifierPlugin;
});

variants!(HostRewriteSpecifier as "envoy.config.route.v3.RouteAction.host_rewrite_specifier" {
    honoured: HostRewriteLiteral;
    refused: AutoHostRewrite, HostRewriteHeader, HostRewritePathRegex, HostRewrite;
});

variants!(WeightedHostRewrite as "envoy.config.route.v3.WeightedCluster.ClusterWeight.host_rewrite_specifier" {
    honoured: HostRewriteLiteral;
});

pub(super) fn forward(told: pb::RouteAction, at: &At<'_>) -> Result<Forward, Refused> {
    open!(told, at, pb::RouteAction as "envoy.config.route.v3.RouteAction" {
        honoured: prefix_rewrite, regex_rewrite, timeout, retry_policy, request_mirror_policies, max_grpc_timeout,
            max_stream_duration, cluster_specifier, host_rewrite_specifier;
        not_run:
            append_x_forwarded_host = "the host before a rewrite is not told the upstream",
            hash_policy = "the least loaded of two endpoints is chosen, whatever the hash";
        refused: cluster_not_found_response_code, metadata_match, path_rewrite_policy, path_rewrite, idle_timeout,
            flush_timeout, early_data_policy, retry_policy_typed_config, priority, rate_limits, include_vh_rate_limits,
            cors, grpc_timeout_offset, upgrade_configs, internal_redirect_policy, internal_redirect_action,
            max_internal_redirects, hedge_policy;
    });
    for (index, told) in request_mirror_policies.into_iter().enumerate() {
        mirror(told, &at.index("request_mirror_policies", index))?;
    }
    let of_grpc = duration(max_grpc_timeout, &at.field("max_grpc_timeout"))?;
    let at_stream = at.field("max_stream_duration");
    let of_stream = max_stream_duration.map(|told| grpc_timeout(told, &at_stream)).transpose()?.flatten();
    if of_grpc.is_some() && of_stream.is_some() {
        return Err(at_stream.refuse("max_grpc_timeout says it already"));
    }
    let destinations = match needed(cluster_specifier, at)?.choose(at)? {
        ClusterSpecifier::Cluster(cluster) => Destinations::Cluster(text(cluster, &at.field("cluster"))?),
        ClusterSpecifier::WeightedClusters(told) => weighted(told, &at.field("weighted_clusters"))?,
        _ => return Err(at.not_honoured()),
    };
    let host_rewrite = match host_rewrite_specifier.map(|told| told.choose(at)).transpose()? {
        Some(HostRewriteSpecifier::HostRewriteLiteral(literal)) => Some(literal),
        _ => None,
    };
    Ok(Forward {
        destinations,
        timeout: duration(timeout, &at.field("timeout"))?.unwrap_or(TIMEOUT),
        max_grpc_timeout: of_grpc.or(of_stream),
        retry_policy: retry_policy.map(|told| retry::policy(told, &at.field("retry_policy"))).transpose()?,
        path_rewrite: rewrite(prefix_rewrite, regex_rewrite, at)?,
        host_rewrite: host_rewrite.map(host),
        told: config::Told::UNKNOWN,
    })
}

fn host(literal: String) -> HostRewrite {
    HostRewrite { literal: literal.into() }
}

/// A copy of requests that is sent elsewhere: not sent yet.
fn mirror(told: RequestMirrorPolicy, at: &At<'_>) -> Result<(), Refused> {
    open!(told, at, RequestMirrorPolicy as "envoy.config.route.v3.RouteAction.RequestMirrorPolicy" {
        not_run:
            cluster = "no copy of a request is sent yet",
            runtime_fraction = "no copy of a request is sent yet",
            trace_sampled = "no copy of a request is sent yet",
            disable_shadow_host_suffix_append = "no copy of a request is sent yet",
            host_rewrite_literal = "no copy of a request is sent yet";
        refused: cluster_header, request_headers_mutations;
    });
    Ok(())
}

/// The bound on the timeout that gRPC asks for; a bound on the whole stream is not honoured.
fn grpc_timeout(told: MaxStreamDuration, at: &At<'_>) -> Result<Option<Duration>, Refused> {
    open!(told, at, MaxStreamDuration as "envoy.config.route.v3.RouteAction.MaxStreamDuration" {
        honoured: max_stream_duration, grpc_timeout_header_max;
        refused: grpc_timeout_header_offset;
    });
    let at_whole = at.field("max_stream_duration");
    if duration(max_stream_duration, &at_whole)?.is_some_and(|whole| !whole.is_zero()) {
        return Err(at_whole.refuse("weft lets a stream last for ever: only 0s is honoured"));
    }
    duration(grpc_timeout_header_max, &at.field("grpc_timeout_header_max"))
}

fn rewrite(
    prefix: String,
    regex: Option<RegexMatchAndSubstitute>,
    at: &At<'_>,
) -> Result<Option<PathRewrite>, Refused> {
    match (prefix.is_empty(), regex) {
        (true, None) => Ok(None),
        (false, None) => Ok(Some(PathRewrite::Prefix(prefix.into()))),
        (true, Some(told)) => Ok(Some(PathRewrite::Regex(substitution(told, &at.field("regex_rewrite"))?))),
        (false, Some(_)) => Err(at.field("regex_rewrite").refuse("prefix_rewrite says another path")),
    }
}

fn substitution(told: RegexMatchAndSubstitute, at: &At<'_>) -> Result<RegexRewrite, Refused> {
    open!(told, at, RegexMatchAndSubstitute as "envoy.type.matcher.v3.RegexMatchAndSubstitute" {
        honoured: pattern, substitution;
    });
    let at = at.field("pattern");
    Ok(RegexRewrite { pattern: search_regex(needed(pattern, &at)?, &at)?, substitution: substitution.into() })
}

fn weighted(told: pb::WeightedCluster, at: &At<'_>) -> Result<Destinations, Refused> {
    open!(told, at, pb::WeightedCluster as "envoy.config.route.v3.WeightedCluster" {
        honoured: clusters, total_weight;
        harmless: runtime_key_prefix = "there is no runtime that could say otherwise";
        refused: random_value_specifier;
    });
    let clusters = clusters.into_iter().enumerate().map(|(index, told)| {
        let at = at.index("clusters", index);
        cluster(told, &at)
    });
    let clusters: Vec<WeightedCluster> = clusters.collect::<Result<_, Refused>>()?;
    let sum = clusters.iter().try_fold(0_u32, |sum, cluster| sum.checked_add(cluster.weight));
    match (sum, number(total_weight)) {
        (Some(sum), told) if sum > 0 && told.is_none_or(|told| told == sum) => {
            Ok(Destinations::Weighted(clusters))
        }
        (Some(sum), Some(told)) if sum > 0 => {
            Err(at.field("total_weight").refuse(format!("it is {told}, and the sum of all weights is {sum}")))
        }
        _ => Err(at.refuse("the sum of all weights is over 0 and below 2^32")),
    }
}

fn cluster(told: ClusterWeight, at: &At<'_>) -> Result<WeightedCluster, Refused> {
    open!(told, at, ClusterWeight as "envoy.config.route.v3.WeightedCluster.ClusterWeight" {
        honoured: name, weight, request_headers_to_add, request_headers_to_remove, response_headers_to_add,
            response_headers_to_remove, host_rewrite_specifier;
        refused: cluster_header, metadata_match, typed_per_filter_config;
    });
    let changes = headers::Told {
        request_add: request_headers_to_add,
        request_remove: request_headers_to_remove,
        response_add: response_headers_to_add,
        response_remove: response_headers_to_remove,
    };
    let host_rewrite =
        host_rewrite_specifier.map(|WeightedHostRewrite::HostRewriteLiteral(literal)| host(literal));
    let cluster: Arc<str> = text(name, &at.field("name"))?;
    Ok(WeightedCluster {
        cluster,
        weight: number(weight).unwrap_or_default(),
        headers: headers::mutations(changes, at)?,
        host_rewrite,
    })
}
