//! From the name of a cluster to the endpoint.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use config::compile::BLACK_HOLE;
use config::origin::Origin;
use config::{ClusterMetadata, DiscoveryType, Setting};

use super::question::Understood;
use super::trace::Remembers;
use super::whereabouts::behind;
use super::{Step, World, settings, transport};
use crate::http::attempt;
use crate::http::codec::Version;
use crate::http::error::Refusal;
use crate::snapshot::{Cluster, Endpoint};
use crate::telemetry::flight::Flight;
use crate::time;
use crate::upstream::balancer::{self, Avoid, Balance, Conditions};
use crate::upstream::retry::Reset;
use crate::upstream::{self, Load};

/// Endpoints that are told one by one; of more of them the first ones, and the one that is chosen.
const ENDPOINTS_TOLD_MAX: usize = 50;

/// Where to.
pub(super) struct To<'t> {
    pub(super) cluster: &'t str,
    /// The rule that leads there.
    pub(super) route: Option<&'t Origin>,
    /// The random number.
    pub(super) pick: u64,
    /// The version of the request that goes there; `None` where bytes are passed on.
    pub(super) version: Option<Version>,
    /// How long a connection of which the bytes are passed on may be idle; `None` for ever.
    pub(super) idle_timeout: Option<Duration>,
    /// What is told of the cluster that bounds such a connection, if it is another one.
    pub(super) bounded_by: Option<&'t ClusterMetadata>,
}

/// Chooses an endpoint of a cluster.
pub(super) fn follow(
    world: &World<'_>,
    asked: &Understood,
    to: &To<'_>,
    steps: &mut Vec<Step>,
) -> Result<SocketAddr, Refusal> {
    let Some(cluster) = world.snapshot.clusters.get(to.cluster) else {
        steps.push(Step::new("cluster", missing(world, to.cluster)).by(to.route));
        return Err(Refusal::NoCluster);
    };
    let declared = &cluster.declared;
    steps.push(cluster_step(world, cluster, to));
    if let DiscoveryType::OriginalDst = declared.discovery {
        if !has_original_destination(world, asked) {
            steps.push(Step::new("endpoint", "none: nothing says where the client wanted to go"));
            return Err(Refusal::NoOriginalDestination);
        }
        let endpoint = cluster.endpoint_at(asked.destination, time::now());
        let what = if endpoint.address == asked.destination {
            format!("{}, where the client wanted to go", endpoint.address)
        } else {
            format!("{}, by targetPort instead of {}", endpoint.address, asked.destination)
        };
        steps.push(Step::new("endpoint", what));
        return carried(world, cluster, &endpoint, to, steps);
    }
    let now = if world.is_live { cluster.shared.process.age(time::now()) } else { Duration::ZERO };
    let mut balance = Balance::new(cluster, now, None, to.pick);
    let mut trace = Remembers::default();
    let conditions = Conditions { now, random: to.pick, tried: &[], avoid: Avoid::default() };
    let chosen = balancer::choose(cluster, &mut balance, &conditions, &mut trace);
    steps.push(candidates(world, cluster, &balance, chosen));
    let Some(endpoint) = chosen.and_then(|index| cluster.endpoints.get(index)) else {
        let whom = whom(world, cluster);
        // A rule leads there only where a policy refuses what it does not know.
        let what = match to.route.filter(|_| &**cluster.name() == BLACK_HOLE) {
            Some(_) => "none: no service that the workload sees has this address and port, and outboundTrafficPolicy \
                        REGISTRY_ONLY refuses it"
                .to_owned(),
            None => nobody(world, cluster),
        };
        steps.push(Step::new("endpoint", what).by(whom.as_ref().or(to.route)));
        return Err(Refusal::no_endpoint(&declared.discovery));
    };
    steps.push(Step::new("endpoint", picked(cluster, endpoint, &trace, to.pick)));
    carried(world, cluster, endpoint, to, steps)
}

/// Whether the cluster of what was recorded is as it was then, or was not there and is not.
fn is_as_recorded(world: &World<'_>, flight: &Flight) -> bool {
    let known = flight.cluster.as_ref().and_then(|name| world.snapshot.clusters.get(name));
    match known {
        Some(cluster) => !flight.is_clusterless() && cluster.since <= flight.generation,
        None => flight.cluster.is_none() || flight.is_clusterless(),
    }
}

/// The cluster of what was recorded as far as it was recorded, or that it was not there; why, unless that `is_past`.
pub(super) fn remembered(world: &World<'_>, flight: &Flight, is_past: bool) -> Option<Step> {
    let name = flight.cluster.as_ref()?;
    if flight.is_clusterless() {
        let what = if is_past { format!("there was no cluster `{name}`") } else { missing(world, name) };
        return Some(Step::new("cluster", what).by(flight.route_origin.as_ref()));
    }
    let is_same = is_as_recorded(world, flight);
    let what = if is_same { format!("`{name}`") } else { format!("`{name}`, which is not as it was then") };
    let known = world.snapshot.clusters.get(name).filter(|_| is_same);
    let service = known.and_then(|cluster| world.service_of(&cluster.declared));
    Some(Step::new("cluster", what).by(flight.cluster_origin.as_ref().or(service.as_ref())))
}

/// The cluster of a recorded request, and who could get it now.
pub(super) fn recorded(world: &World<'_>, flight: &Flight, is_past: bool) -> Vec<Step> {
    let cluster = flight.cluster.as_ref().and_then(|name| world.snapshot.clusters.get(name));
    let Some(cluster) = cluster.filter(|_| is_as_recorded(world, flight)) else {
        return remembered(world, flight, is_past).into_iter().collect();
    };
    let declared = &cluster.declared;
    let mut step = named(world, cluster);
    step.steps = settings::of_cluster(declared);
    step.steps.push(settings::idle_of_requests(declared));
    step.steps.extend(settings::breakers(declared, None));
    if let DiscoveryType::OriginalDst = declared.discovery {
        return vec![step];
    }
    let balance = Balance::new(cluster, cluster.shared.process.age(time::now()), None, 0);
    let candidates = candidates(world, cluster, &balance, None);
    let now = Step::new("endpoints_now", candidates.what).with(candidates.steps);
    vec![step, now]
}

/// Whether it gets there: the bytes can be carried, and no limit is in the way.
fn carried(
    world: &World<'_>,
    cluster: &Cluster,
    endpoint: &Endpoint,
    to: &To<'_>,
    steps: &mut Vec<Step>,
) -> Result<SocketAddr, Refusal> {
    let address = transport::reachable(world, cluster, endpoint, steps)?;
    let load = match to.version {
        None => Load::Bytes,
        Some(version) if attempt::is_http2(cluster.declared.protocol, version) => Load::Http2,
        Some(_) => Load::Http1,
    };
    // Without a proxy nobody counts.
    match upstream::next_meets(cluster, load).filter(|_| world.is_live) {
        None => Ok(address),
        Some(limit) => {
            let metadata = &cluster.declared.metadata;
            let origin = limit.setting().map_or(metadata.shaped_by(), |it| metadata.origin_of(it));
            let reason = limit.describe(cluster);
            steps.push(Step::new("breaker", format!("{reason}: FULL")).by(origin));
            Err(Refusal::Reset { reset: Reset::Overflow(limit), reason: Some(reason), retried: false })
        }
    }
}

/// A listener that traffic is not redirected to knows no original destination.
fn has_original_destination(world: &World<'_>, asked: &Understood) -> bool {
    let listeners = &world.snapshot.listeners;
    match &asked.listener {
        Some(name) => listeners.get(name.as_str()).is_some_and(|it| !it.declared.bind_to_port),
        None => listeners.contains_key("virtualOutbound") || listeners.contains_key("virtualInbound"),
    }
}

fn cluster_step(world: &World<'_>, cluster: &Cluster, to: &To<'_>) -> Step {
    let declared = &cluster.declared;
    let mut step = named(world, cluster);
    let shared = &cluster.shared;
    let counts = world.is_live.then(|| {
        [shared.connections.get(), shared.pending_requests.get(), shared.requests.get(), shared.retries.get()]
    });
    step.steps = settings::of_cluster(declared);
    step.steps.push(match to.version {
        None => settings::idle_of_bytes(to.bounded_by.unwrap_or(&declared.metadata), to.idle_timeout),
        Some(_) => settings::idle_of_requests(declared),
    });
    step.steps.extend(settings::breakers(declared, counts));
    step
}

fn named(world: &World<'_>, cluster: &Cluster) -> Step {
    let declared = &cluster.declared;
    let mut what = format!("`{}`", declared.name);
    if !declared.metadata.subset.is_empty() {
        let _ = write!(what, ", subset {}", declared.metadata.subset);
    }
    let origin = declared.metadata.shaped_by().cloned().or_else(|| world.service_of(declared));
    Step::new("cluster", what).by(origin.as_ref())
}

/// Why there is no cluster of that name.
fn missing(world: &World<'_>, name: &str) -> String {
    let parts: Vec<&str> = name.split('|').collect();
    let [_, port, subset, host] = parts[..] else { return format!("there is no cluster `{name}`") };
    let clusters = &world.snapshot.clusters;
    let has = |what: &str| clusters.contains_key(what);
    let suffix = format!("||{host}");
    let why = if !subset.is_empty() && has(&format!("outbound|{port}||{host}")) {
        let prefix = format!("outbound|{port}|");
        let known = clusters.values().map(|cluster| &cluster.declared);
        let mut subsets: Vec<&str> = known
            .filter(|declared| declared.name.starts_with(&prefix) && declared.name.ends_with(host))
            .map(|declared| &*declared.metadata.subset)
            .filter(|subset| !subset.is_empty())
            .collect();
        subsets.sort_unstable();
        match subsets.as_slice() {
            [] => format!("no DestinationRule gives {host} the subset `{subset}`"),
            known => {
                format!("no DestinationRule gives {host} the subset `{subset}`; it has {}", known.join(", "))
            }
        }
    } else if clusters.keys().any(|known| known.ends_with(&suffix)) {
        format!("{host} has no port {port}")
    } else {
        format!("no service that the workload sees has the host {host}")
    };
    format!("there is no cluster `{name}`: {why}")
}

/// Who could get it: priorities, their endpoints, and how they are.
fn candidates(world: &World<'_>, cluster: &Cluster, balance: &Balance, chosen: Option<usize>) -> Step {
    let count = cluster.endpoints.len();
    let healthy = cluster.endpoints.iter().filter(|endpoint| cluster.is_healthy(endpoint)).count();
    let mut step = Step::new("endpoints", format!("{count}, of which {healthy} are healthy"));
    let mut told: Vec<(usize, &Endpoint)> = Vec::new();
    for (index, priority) in cluster.priorities.iter().enumerate() {
        for at in priority.range.clone() {
            let Some(endpoint) = cluster.endpoints.get(at) else { continue };
            if told.len() < ENDPOINTS_TOLD_MAX || chosen == Some(at) {
                told.push((index, endpoint));
            }
        }
    }
    let endpoints: Vec<&Endpoint> = told.iter().map(|(_, endpoint)| *endpoint).collect();
    let of_priority =
        told.iter().zip(behind(world, cluster, &endpoints)).map(|((index, endpoint), behind)| {
            (*index, candidate(world, cluster, endpoint, behind.origin.as_ref()))
        });
    let mut of_priority = of_priority.peekable();
    for index in 0..cluster.priorities.len() {
        let share = balance.share(index);
        let panic = if balance.is_in_panic(index) { ", in panic: all are used, healthy or not" } else { "" };
        let mut priority = Step::new("priority", format!("{index}, {share} % of requests{panic}"));
        while let Some((_, candidate)) = of_priority.next_if(|(of, _)| *of == index) {
            priority.steps.push(candidate);
        }
        step.steps.push(priority);
    }
    let told = told.len();
    if count > told {
        step.steps.push(Step::new("and", format!("{} more", count - told)));
    }
    step
}

fn candidate(world: &World<'_>, cluster: &Cluster, endpoint: &Endpoint, origin: Option<&Origin>) -> Step {
    let mut what = format!("{}, weight {}", endpoint.address, endpoint.weight);
    let locality = endpoint.locality.to_string();
    if locality != "//" {
        let _ = write!(what, ", in {}", locality.trim_end_matches('/'));
    }
    if world.is_live {
        let _ = write!(what, ", {} in flight", endpoint.shared.active_requests.get());
    }
    match endpoint.shared.health.ledger().ejection {
        Some(ejection) if cluster.declared.outlier_detection.is_some() => {
            let age = cluster.shared.process.age(time::now()).saturating_sub(ejection.at);
            let _ = write!(what, ", EJECTED {}s ago for {}", age.as_secs(), ejection.reason.name());
        }
        _ => what.push_str(", healthy"),
    }
    Step::new("candidate", what).by(origin)
}

fn picked(cluster: &Cluster, endpoint: &Endpoint, trace: &Remembers, random: u64) -> String {
    let mut what = endpoint.address.to_string();
    let (priority, in_panic) = trace.priority.unwrap_or_default();
    if cluster.priorities.len() > 1 {
        let _ = write!(what, " of priority {priority}");
    }
    if in_panic {
        what.push_str(" in panic");
    }
    match (trace.compared, cluster.declared.load_balancing) {
        (Some((first, second)), _) => {
            let name = |index: usize| cluster.endpoints.get(index).map(|it| it.address.to_string());
            let active =
                |index: usize| cluster.endpoints.get(index).map_or(0, |it| it.shared.active_requests.get());
            let of = |index| format!("{} with {}", name(index).unwrap_or_default(), active(index));
            let _ = write!(what, ", of two drawn by {random} ({}, {}) in flight", of(first), of(second));
        }
        (None, config::LoadBalancingPolicy::RoundRobin) => {
            what.push_str("; each worker takes turns of its own, so another may be next");
        }
        (None, _) => {
            let _ = write!(what, ", by the random number {random}");
        }
    }
    what
}

/// Why nobody can get it.
fn nobody(world: &World<'_>, cluster: &Cluster) -> String {
    if let DiscoveryType::StrictDns(_) | DiscoveryType::LogicalDns(_) = cluster.declared.discovery
        && cluster.endpoints.is_empty()
    {
        let who =
            if world.is_live { "and it has told none" } else { "which is not asked here; --live tells them" };
        return format!("none is known: DNS tells the endpoints, {who}");
    }
    let ejected = cluster.endpoints.iter().filter(|endpoint| !cluster.is_healthy(endpoint)).count();
    match (cluster.endpoints.len(), ejected) {
        (0, _) if cluster.declared.metadata.subset.is_empty() => {
            "none: the cluster has no endpoint that is ready".to_owned()
        }
        (0, _) => {
            let subset = &cluster.declared.metadata.subset;
            format!("none: no ready endpoint has the labels of subset {subset}")
        }
        (all, ejected) if all == ejected => {
            format!("none: all {all} are ejected by outlierDetection, and minHealthPercent is not above 0")
        }
        (all, _) => format!("none of {all}"),
    }
}

/// The object to look at when nobody can get it.
fn whom(world: &World<'_>, cluster: &Cluster) -> Option<Origin> {
    let metadata = &cluster.declared.metadata;
    let ejecting = (!cluster.endpoints.is_empty()).then(|| metadata.origin_of(Setting::OutlierDetection));
    let rule = ejecting.unwrap_or_else(|| metadata.shaped_by());
    let rule = rule.cloned().filter(|_| !metadata.subset.is_empty() || !cluster.endpoints.is_empty());
    rule.or_else(|| world.service_of(&cluster.declared))
}
