//! What Istio has and weft does not do yet: the one list of fields, to be shortened as weft learns them.
//!
//! Each field written gets a warning with its place; the rest of its object holds. Kinds are listed with the kinds
//! (`yaml::kinds`), fields of MeshConfig with its fields (`mesh::fields`).

use super::check::Check;
use super::http_route::RETRY_ON_NOT_HONOURED;
use crate::finding::code;
use crate::istio::{
    ConnectionPoolSettings, DestinationRule, HttpRetry, HttpRoute, LoadBalancerSettings, OutlierDetection,
    TrafficPolicy, VirtualService,
};

/// Warns of each of `fields` that is written: its name, whether it is, and what happens instead.
fn warn(check: &mut Check<'_>, path: &str, fields: &[(&str, bool, &str)]) {
    for (field, _, instead) in fields.iter().filter(|(_, written, _)| *written) {
        let what = format!("weft does not honour this field yet: {instead}");
        let remedy = "remove it, or keep Istio's own proxy where the mesh relies on it";
        check.warning(code::FIELD_NOT_HONOURED, &format!("{path}.{field}"), what, remedy);
    }
}

/// What a VirtualService says that is not honoured, by sidecars or by gateways.
pub(crate) fn virtual_service(check: &mut Check<'_>, spec: &VirtualService) {
    for (index, route) in spec.http.iter().enumerate() {
        http_route(check, &format!("spec.http[{index}]"), route);
    }
}

fn http_route(check: &mut Check<'_>, path: &str, route: &HttpRoute) {
    let no_copies = "requests are not mirrored";
    warn(
        check,
        path,
        &[
            ("fault", route.fault.is_some(), "no fault is injected"),
            ("mirror", route.mirror.is_some(), no_copies),
            ("mirrors", !route.mirrors.is_empty(), no_copies),
            ("mirrorPercent", route.mirror_percent.is_some(), no_copies),
            ("mirrorPercentage", route.mirror_percentage.is_some(), no_copies),
            ("corsPolicy", route.cors_policy.is_some(), "preflight requests go to the service"),
        ],
    );
    for (index, wanted) in route.matches.iter().enumerate() {
        let written = wanted.stat_prefix.is_some();
        warn(
            check,
            &format!("{path}.match[{index}]"),
            &[("statPrefix", written, "metrics have no such prefix")],
        );
    }
    if let Some(policy) = &route.retries {
        retries(check, &format!("{path}.retries"), policy);
    }
}

/// What is said about retries and not honoured, here and in MeshConfig.
pub(crate) fn retries(check: &mut Check<'_>, path: &str, retries: &HttpRetry) {
    let retry_on = retries.retry_on.as_deref().unwrap_or_default();
    for condition in RETRY_ON_NOT_HONOURED {
        let written = retry_on.split(',').any(|written| written == condition);
        let instead = format!("nothing is tried again for `{condition}`");
        warn(check, path, &[("retryOn", written, &instead)]);
    }
}

/// What a DestinationRule says that is not honoured.
pub(crate) fn destination_rule(check: &mut Check<'_>, spec: &DestinationRule) {
    if let Some(policy) = &spec.traffic_policy {
        traffic_policy(check, "spec.trafficPolicy", policy);
    }
    for (index, subset) in spec.subsets.iter().enumerate() {
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy(check, &format!("spec.subsets[{index}].trafficPolicy"), policy);
        }
    }
}

fn traffic_policy(check: &mut Check<'_>, path: &str, policy: &TrafficPolicy) {
    warn(
        check,
        path,
        &[
            ("tunnel", policy.tunnel.is_some(), "connections are made without a tunnel"),
            ("proxyProtocol", policy.proxy_protocol.is_some(), "no PROXY header is sent"),
            ("retryBudget", policy.retry_budget.is_some(), "retries are bounded by their number only"),
        ],
    );
    blocks(
        check,
        path,
        policy.load_balancer.as_ref(),
        policy.connection_pool.as_ref(),
        policy.outlier_detection.as_ref(),
    );
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        blocks(
            check,
            &format!("{path}.portLevelSettings[{index}]"),
            port.load_balancer.as_ref(),
            port.connection_pool.as_ref(),
            port.outlier_detection.as_ref(),
        );
    }
}

fn blocks(
    check: &mut Check<'_>,
    path: &str,
    load_balancer: Option<&LoadBalancerSettings>,
    pool: Option<&ConnectionPoolSettings>,
    outlier: Option<&OutlierDetection>,
) {
    if let Some(settings) = load_balancer {
        load_balancing(check, &format!("{path}.loadBalancer"), settings);
    }
    if let Some(pool) = pool {
        connection_pool(check, &format!("{path}.connectionPool"), pool);
    }
    if let Some(outlier) = outlier {
        let written = !outlier.outlier_detection_http_error_codes.is_empty();
        let path = format!("{path}.outlierDetection");
        let instead = "answers of 5xx count as errors, and no others";
        warn(check, &path, &[("outlierDetectionHttpErrorCodes", written, instead)]);
    }
}

fn load_balancing(check: &mut Check<'_>, path: &str, settings: &LoadBalancerSettings) {
    let no_hash = "endpoints are chosen by the fewest requests in flight, whatever the request";
    warn(
        check,
        path,
        &[
            ("consistentHash", settings.consistent_hash.is_some(), no_hash),
            ("zoneAwareLbSetting", settings.zone_aware_lb_setting.is_some(), "zones are not weighed"),
        ],
    );
}

fn connection_pool(check: &mut Check<'_>, path: &str, pool: &ConnectionPoolSettings) {
    if let Some(http) = &pool.http {
        let written = http.http2_keep_alive.is_some();
        let instead = "connections are not probed by PING";
        warn(check, &format!("{path}.http"), &[("http2KeepAlive", written, instead)]);
    }
}
