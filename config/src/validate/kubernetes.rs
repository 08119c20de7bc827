//! Kubernetes objects: an API server has checked them, a file has not. Only what weft reads is checked.

use std::net::IpAddr;

use super::check::Check;
use super::values;
use crate::finding::code;
use crate::kubernetes::{EndpointSlice, Service, TRAFFIC_DISTRIBUTION_ANNOTATION, TrafficDistribution};

/// `addressType` of slices whose addresses are names; Istio does not use these.
const FQDN: &str = "FQDN";

/// Checks one Service.
pub(crate) fn check_service(check: &mut Check<'_>, service: &Service) {
    for (index, port) in service.spec.ports.iter().enumerate() {
        values::port(check, &format!("spec.ports[{index}].port"), u32::from(port.port));
    }
    if let Some(told) = service.spec.cluster_ip.as_deref() {
        cluster_ip(check, "spec.clusterIP", told);
    }
    for (index, told) in service.spec.cluster_ips.iter().enumerate() {
        cluster_ip(check, &format!("spec.clusterIPs[{index}]"), told);
    }
    let field = service.spec.traffic_distribution.as_deref();
    if let Some(word) = field.filter(|word| TrafficDistribution::of_field(word).is_none()) {
        ineffective(check, "spec.trafficDistribution", word);
    }
    let annotations = service.metadata.annotations.as_ref();
    traffic_distribution(
        check,
        annotations.and_then(|annotations| annotations.traffic_distribution.as_deref()),
    );
}

/// A virtual address of a service; nothing, or the word for a headless one, is none.
fn cluster_ip(check: &mut Check<'_>, path: &str, told: &str) {
    if !matches!(told, "" | "None") {
        ip(check, path, told);
    }
}

/// What has to be an address and not a name.
fn ip(check: &mut Check<'_>, path: &str, told: &str) {
    if told.parse::<IpAddr>().is_err() {
        check.bad(path, format!("`{told}` is not an IP address"), "write an IPv4 or IPv6 address");
    }
}

/// Checks the annotation that says which endpoints of a service or of a ServiceEntry are preferred.
pub(super) fn traffic_distribution(check: &mut Check<'_>, annotation: Option<&str>) {
    if let Some(word) = annotation.filter(|word| TrafficDistribution::of_annotation(word).is_none()) {
        ineffective(check, &format!("metadata.annotations[{TRAFFIC_DISTRIBUTION_ANNOTATION}]"), word);
    }
}

/// A word for which endpoints are preferred that there is not. Istio passes it over.
fn ineffective(check: &mut Check<'_>, path: &str, word: &str) {
    let what = format!("`{word}` prefers no endpoints: it has no effect");
    let remedy = "write PreferSameZone, PreferClose or PreferSameNode";
    check.warning(code::INEFFECTIVE_VALUE, path, what, remedy);
}

/// Checks one EndpointSlice.
pub(crate) fn check_endpoint_slice(check: &mut Check<'_>, slice: &EndpointSlice) {
    for (index, port) in slice.ports.iter().enumerate() {
        if port.port == Some(0) {
            values::port(check, &format!("ports[{index}].port"), 0);
        }
    }
    if slice.address_type.as_deref() == Some(FQDN) {
        return;
    }
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        for (number, address) in endpoint.addresses.iter().enumerate() {
            ip(check, &format!("endpoints[{index}].addresses[{number}]"), address);
        }
    }
}
