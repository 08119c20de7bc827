//! Settings in force, each with who told it.

use std::time::Duration;

use config::origin::Origin;
use config::{Cluster, ClusterMetadata, LoadBalancingPolicy, OutlierDetection, RulePart, Setting, ToldBy};

use super::Step;
use crate::http::timeout::Timeouts;
use crate::snapshot::{Forward, Route};

/// Timeout and retries of a rule.
pub(super) fn of_rule(route: &Route, forward: &Forward, timeouts: &Timeouts) -> Vec<Step> {
    let origin = |part| origin_of(route, part);
    let told = match route.declared().map(|declared| &declared.action) {
        Some(config::RouteAction::Forward(forward)) => forward.told,
        _ => config::Told::default(),
    };
    let timeout = timeouts.route.map_or_else(|| "none".to_owned(), time);
    let retries = match &forward.retry_policy {
        Some(policy) => {
            let mut on: Vec<String> = policy.retry_on.iter().map(|on| on.name().to_owned()).collect();
            on.extend(policy.retriable_status_codes.iter().map(|code| code.as_u16().to_string()));
            let per_try = timeouts.per_try.map(|limit| format!(", each within {}", time(limit)));
            format!("{} on {}{}", policy.num_retries, on.join(","), per_try.unwrap_or_default())
        }
        None => "none".to_owned(),
    };
    let timeout = match timeouts.route_is_clients {
        true => Step::new("timeout", format!("{timeout}, by the client's grpc-timeout")),
        false => Step::new("timeout", timeout).told(told.by(Setting::Timeout), origin(RulePart::Timeout)),
    };
    vec![timeout, Step::new("retries", retries).told(told.by(Setting::Retries), origin(RulePart::Retries))]
}

/// What wrote this part of a rule.
pub(super) fn origin_of(route: &Route, part: RulePart) -> Option<&Origin> {
    route.declared().and_then(|declared| declared.origin_of(part))
}

/// Settings of a cluster.
pub(super) fn of_cluster(cluster: &Cluster) -> Vec<Step> {
    let metadata = &cluster.metadata;
    let step = |name: &str, what: String, setting| {
        Step::new(name, what).told(metadata.told.by(setting), metadata.origin_of(setting))
    };
    let policy = match cluster.load_balancing {
        LoadBalancingPolicy::RoundRobin => "ROUND_ROBIN",
        LoadBalancingPolicy::LeastRequest => "LEAST_REQUEST",
        LoadBalancingPolicy::Random => "RANDOM",
        LoadBalancingPolicy::ClusterProvided { .. } => "where the client wanted to go",
    };
    let protocol = match cluster.protocol {
        config::HttpProtocol::Http1 => "HTTP/1.1",
        config::HttpProtocol::Http2 => "HTTP/2",
        config::HttpProtocol::Downstream => "what the client speaks",
    };
    let mut steps = vec![
        step("load_balancing", policy.to_owned(), Setting::LoadBalancing),
        step("connect_timeout", time(cluster.connect_timeout), Setting::ConnectTimeout),
        step("protocol", protocol.to_owned(), Setting::Protocol),
    ];
    if let Some(outlier) = &cluster.outlier_detection {
        let parts = of_outlier_detection(outlier, cluster.healthy_panic_percent);
        steps.push(step("outlier_detection", "on".to_owned(), Setting::OutlierDetection).with(parts));
    }
    steps
}

/// When an endpoint is left out; what is not told is Envoy's default.
fn of_outlier_detection(outlier: &OutlierDetection, min_health_percent: u32) -> Vec<Step> {
    let errors = |count: u32| if count == 0 { "off".to_owned() } else { count.to_string() };
    let percent = |percent: u32| format!("{percent} %");
    let told = |name: &str, told: Option<String>, default: String| match told {
        Some(what) => Step::new("detection", format!("{name} {what}")),
        None => Step::new("detection", format!("{name} {default}")).default_of("Istio default"),
    };
    let (default, o) = (OutlierDetection::DEFAULTS, outlier);
    let mut steps = vec![
        told("consecutive5xxErrors", o.consecutive_5xx.map(errors), errors(default.consecutive_5xx)),
        told(
            "consecutiveGatewayErrors",
            o.consecutive_gateway_failure.map(errors),
            errors(default.consecutive_gateway_failure),
        ),
        told("interval", o.interval.map(time), time(default.interval)),
        told("baseEjectionTime", o.base_ejection_time.map(time), time(default.base_ejection_time)),
        told(
            "maxEjectionPercent",
            o.max_ejection_percent.map(percent),
            percent(default.max_ejection_percent),
        ),
        // 0 is the same as nothing told.
        told(
            "minHealthPercent",
            (min_health_percent > 0).then(|| percent(min_health_percent)),
            percent(min_health_percent),
        ),
    ];
    if outlier.split_external_local_origin_errors {
        let local = outlier.consecutive_local_origin_failure.map(errors);
        let default = errors(default.consecutive_local_origin_failure);
        steps.insert(2, told("consecutiveLocalOriginFailures", local, default));
    }
    steps
}

/// How long what is idle is kept; zero means for ever.
fn idle(timeout: Option<Duration>) -> String {
    timeout.filter(|timeout| !timeout.is_zero()).map_or_else(|| "none".to_owned(), time)
}

/// How long a connection of which the bytes are passed on may be idle, by what is told of the cluster that bounds it.
pub(super) fn idle_of_bytes(told: &ClusterMetadata, timeout: Option<Duration>) -> Step {
    let setting = Setting::TcpIdleTimeout;
    Step::new("idle_timeout", idle(timeout)).told(told.told.by(setting), told.origin_of(setting))
}

/// How long a connection without requests is kept.
pub(super) fn idle_of_requests(cluster: &Cluster) -> Step {
    let (setting, metadata) = (Setting::IdleTimeout, &cluster.metadata);
    let step = Step::new("idle_timeout", idle(Some(cluster.idle_timeout)));
    step.told(metadata.told.by(setting), metadata.origin_of(setting))
}

/// Limits of a cluster with their counts, where a proxy counts.
pub(super) fn breakers(cluster: &Cluster, counts: Option<[u32; 4]>) -> Vec<Step> {
    let (metadata, told) = (&cluster.metadata, cluster.metadata.told);
    let limits = &cluster.circuit_breakers;
    let all = [
        ("maxConnections", limits.max_connections, Setting::MaxConnections),
        ("http1MaxPendingRequests", limits.max_pending_requests, Setting::MaxPendingRequests),
        ("http2MaxRequests", limits.max_requests, Setting::MaxRequests),
        ("maxRetries", limits.max_retries, Setting::MaxRetries),
    ];
    let limit = |(index, (name, max, setting)): (usize, (&str, u32, Setting))| {
        let max_text = if max == u32::MAX { "no limit".to_owned() } else { max.to_string() };
        let what = match counts.and_then(|counts| counts.get(index).copied()) {
            // Connections that are there may be free for the next request.
            Some(count) if count >= max && index == 0 => {
                format!("{name} {count} of {max_text}: no more are opened")
            }
            Some(count) if count >= max => format!("{name} {count} of {max_text}: FULL"),
            Some(count) => format!("{name} {count} of {max_text}"),
            None => format!("{name} {max_text}"),
        };
        Step::new("limit", what).told(told.by(setting), metadata.origin_of(setting))
    };
    let is_told = |setting| told.by(setting) != ToldBy::Nobody;
    if counts.is_none() && !all.iter().any(|(_, max, setting)| is_told(*setting) || *max != u32::MAX) {
        return vec![Step::new("limits", "none").default_of("Istio default")];
    }
    all.into_iter().enumerate().map(limit).collect()
}

pub(super) fn time(time: Duration) -> String {
    format!("{time:?}")
}
