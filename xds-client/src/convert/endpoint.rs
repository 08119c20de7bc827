//! `config.endpoint.v3.ClusterLoadAssignment`.

use std::collections::BTreeSet;
use std::sync::Arc;

use config::{
    ClusterLoadAssignment, DnsEndpoint, DnsLocality, Endpoint, EndpointMetadata, Locality, LocalityEndpoints,
};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use envoy_types::pb::envoy::config::endpoint::v3 as pb;

use super::Refused;
use super::address;
use super::at::At;
use super::metadata::metadata;
use super::table::{Choice, Message, Told, open, variants};
use super::values::{enumerated, needed, text, weight};

/// Highest number, and so the lowest, of the priorities. Envoy's bound.
pub const PRIORITY_MAX: u32 = 128;

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        pb::ClusterLoadAssignment::MESSAGE,
        pb::LocalityLbEndpoints::MESSAGE,
        pb::LbEndpoint::MESSAGE,
        pb::lb_endpoint::HostIdentifier::MESSAGE,
        HealthStatus::MESSAGE,
        pb::Endpoint::MESSAGE,
    ]
}

variants!(pb::lb_endpoint::HostIdentifier as "envoy.config.endpoint.v3.LbEndpoint.host_identifier" {
    honoured: Endpoint;
    refused: EndpointName;
});

variants!(HealthStatus as "envoy.config.core.v3.HealthStatus" {
    honoured: Unknown, Healthy;
    not_run:
        Unhealthy = "it is left out, and not used either when too few others are healthy",
        Draining = "it is left out, and not used either when too few others are healthy",
        Timeout = "it is left out, and not used either when too few others are healthy",
        Degraded = "it is used as any other";
});

/// Endpoints of one locality and priority, whatever their addresses are.
struct Group<E> {
    locality: Locality,
    priority: u32,
    weight: u32,
    endpoints: Vec<E>,
}

/// An endpoint, whatever its address is.
struct AnyEndpoint {
    address: Option<core::Address>,
    weight: u32,
    metadata: Arc<EndpointMetadata>,
}

/// A load assignment.
///
/// # Errors
///
/// The path of what cannot be honoured.
pub(super) fn load_assignment(
    told: pb::ClusterLoadAssignment,
    at: &At<'_>,
) -> Result<ClusterLoadAssignment, Refused> {
    let (name, groups) = groups(told, at, |told, at| {
        let address = address::socket(told.address, at)?;
        Ok(Endpoint { address, weight: told.weight, metadata: told.metadata })
    })?;
    let localities = groups.into_iter().map(|group| {
        let Group { locality, priority, weight, endpoints } = group;
        LocalityEndpoints { locality, priority, weight, endpoints }
    });
    Ok(ClusterLoadAssignment {
        cluster_name: text(name, &at.field("cluster_name"))?,
        localities: localities.collect(),
    })
}

/// The names that are written into a cluster.
pub(super) fn names(told: pb::ClusterLoadAssignment, at: &At<'_>) -> Result<Vec<DnsLocality>, Refused> {
    let (_, groups) = groups(told, at, |told, at| {
        let (host, port) = address::host_and_port(told.address, at)?;
        Ok(DnsEndpoint { host: host.into(), port, weight: told.weight, metadata: told.metadata })
    })?;
    let localities = groups.into_iter().map(|group| {
        let Group { locality, priority, weight, endpoints } = group;
        DnsLocality { locality, priority, weight, endpoints }
    });
    Ok(localities.collect())
}

/// Makes an endpoint of what is told of it.
type Make<E> = fn(AnyEndpoint, &At<'_>) -> Result<E, Refused>;

fn groups<E>(
    told: pb::ClusterLoadAssignment,
    at: &At<'_>,
    make: Make<E>,
) -> Result<(String, Vec<Group<E>>), Refused> {
    open!(told, at, pb::ClusterLoadAssignment as "envoy.config.endpoint.v3.ClusterLoadAssignment" {
        honoured: cluster_name, endpoints;
        refused: named_endpoints, policy;
    });
    let groups = endpoints.into_iter().enumerate().map(|(index, told)| {
        let at = at.index("endpoints", index);
        open!(told, at, pb::LocalityLbEndpoints as "envoy.config.endpoint.v3.LocalityLbEndpoints" {
            honoured: locality, lb_endpoints, load_balancing_weight, priority;
            harmless: metadata = "nothing in weft reads it";
            refused: proximity, lb_config;
        });
        let mut endpoints = Vec::with_capacity(lb_endpoints.len());
        for (index, told) in lb_endpoints.into_iter().enumerate() {
            endpoints.extend(endpoint(told, &at.index("lb_endpoints", index), make)?);
        }
        Ok(Group {
            locality: address::locality(locality, &at.field("locality"))?,
            priority,
            weight: weight(load_balancing_weight, &at.field("load_balancing_weight"))?,
            endpoints,
        })
    });
    let groups: Vec<Group<E>> = groups.collect::<Result<_, Refused>>()?;
    let priorities: BTreeSet<u32> = groups.iter().map(|group| group.priority).collect();
    if priorities.iter().zip(0..=PRIORITY_MAX).any(|(told, expected)| *told != expected)
        || priorities.last().is_some_and(|last| *last > PRIORITY_MAX)
    {
        return Err(at.refuse(format!("priorities are from 0 to {PRIORITY_MAX} at most, without gaps")));
    }
    Ok((cluster_name, groups))
}

/// `None` for one that is not to be used.
fn endpoint<E>(told: pb::LbEndpoint, at: &At<'_>, make: Make<E>) -> Result<Option<E>, Refused> {
    open!(told, at, pb::LbEndpoint as "envoy.config.endpoint.v3.LbEndpoint" {
        honoured: health_status, metadata, load_balancing_weight, host_identifier;
    });
    let at_health = at.field("health_status");
    let health = enumerated::<HealthStatus>(health_status, &at_health)?.choose(&at_health)?;
    let pb::lb_endpoint::HostIdentifier::Endpoint(told) = needed(host_identifier, at)?.choose(at)? else {
        return Err(at.not_honoured());
    };
    let said = self::metadata(metadata, &at.field("metadata"))?;
    let metadata = Arc::new(EndpointMetadata { tls_mode: said.tls_mode, workload: said.workload });
    let weight = weight(load_balancing_weight, &at.field("load_balancing_weight"))?;
    let at = at.field("endpoint");
    open!(told, at, pb::Endpoint as "envoy.config.endpoint.v3.Endpoint" {
        honoured: address;
        harmless:
            hostname = "it is for rewriting hosts to and for health checks, which are refused where they are asked for",
            observability_name = "endpoints are known by their addresses";
        refused: health_check_config, additional_addresses;
    });
    let made = make(AnyEndpoint { address, weight, metadata }, &at.field("address"))?;
    match health {
        HealthStatus::Unknown | HealthStatus::Healthy | HealthStatus::Degraded => Ok(Some(made)),
        HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout => Ok(None),
    }
}
