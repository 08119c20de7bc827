//! Rules of a VirtualService for TLS that is passed through, and for TCP.

use std::net::IpAddr;

use super::check::Check;
use super::host_set::HostSet;
use super::{http_route, names, values};
use crate::finding::code;
use crate::istio::{RouteDestination, TcpRoute, TlsRoute};

/// Checks the TLS rule at `path`.
pub(crate) fn check_tls(check: &mut Check<'_>, path: &str, route: &TlsRoute, hosts: &HostSet) {
    if route.matches.is_empty() {
        check.error(code::MISSING_FIELD, path, "a TLS rule needs a `match`", "add one with `sniHosts`");
    }
    for (index, wanted) in route.matches.iter().enumerate() {
        let path = format!("{path}.match[{index}]");
        if wanted.sni_hosts.is_empty() {
            check.error(code::MISSING_FIELD, &path, "a TLS match needs `sniHosts`", "add the server names");
        }
        for (index, host) in wanted.sni_hosts.iter().enumerate() {
            check_sni(check, &format!("{path}.sniHosts[{index}]"), host, hosts);
        }
        check_subnets(check, &format!("{path}.destinationSubnets"), &wanted.destination_subnets);
        values::optional_port(check, &format!("{path}.port"), wanted.port);
        names::labels(check, &format!("{path}.sourceLabels"), &wanted.source_labels);
        names::gateways(check, &format!("{path}.gateways"), &wanted.gateways);
    }
    check_destinations(check, path, &route.route);
}

/// Checks the TCP rule at `path`.
pub(crate) fn check_tcp(check: &mut Check<'_>, path: &str, route: &TcpRoute) {
    for (index, wanted) in route.matches.iter().enumerate() {
        let path = format!("{path}.match[{index}]");
        check_subnets(check, &format!("{path}.destinationSubnets"), &wanted.destination_subnets);
        if wanted.source_subnet.as_deref().is_some_and(|subnet| !subnet.is_empty()) {
            let what = "Istio does not honour this field: the rule is for all sources";
            check.warning(code::INEFFECTIVE_VALUE, &format!("{path}.sourceSubnet"), what, "remove it");
        }
        values::optional_port(check, &format!("{path}.port"), wanted.port);
        names::labels(check, &format!("{path}.sourceLabels"), &wanted.source_labels);
        names::gateways(check, &format!("{path}.gateways"), &wanted.gateways);
    }
    check_destinations(check, path, &route.route);
}

/// A server name must be one of the hosts, or one that a wildcard among them stands for.
fn check_sni(check: &mut Check<'_>, path: &str, sni: &str, hosts: &HostSet) {
    if names::is_ip(sni) {
        let what = "most clients send no server name for an IP address";
        return check.warning(code::INEFFECTIVE_VALUE, path, what, "write a host name");
    }
    // istiod names gateways between clusters like this: `outbound_.80_._.reviews.prod.svc.cluster.local`.
    if !sni.starts_with("outbound_.") {
        names::host(check, path, sni);
    }
    if hosts.covering(sni).is_none() {
        let what = format!("`{sni}` is none of the object's hosts");
        check.bad(path, what, "add it to `hosts`, or correct it");
    }
}

fn check_subnets(check: &mut Check<'_>, path: &str, subnets: &[String]) {
    for (index, subnet) in subnets.iter().enumerate() {
        let (address, bits) = subnet.split_once('/').unwrap_or((subnet, ""));
        let good = address.parse().is_ok_and(|address: IpAddr| {
            let bits_max = if address.is_ipv4() { 32 } else { 128 };
            !subnet.contains('/') || bits.parse().is_ok_and(|bits: u8| bits <= bits_max)
        });
        if !good {
            let remedy = "write an address, or a range like `10.0.0.0/8`";
            check.bad(&format!("{path}[{index}]"), format!("`{subnet}` is not a range of addresses"), remedy);
        }
    }
}

fn check_destinations(check: &mut Check<'_>, path: &str, destinations: &[RouteDestination]) {
    if destinations.is_empty() {
        check.error(code::MISSING_FIELD, path, "the rule has no `route`", "add `route:` with a destination");
    }
    let weights: Vec<_> = destinations.iter().map(|destination| destination.weight).collect();
    http_route::check_weights(check, path, &weights);
    for (index, entry) in destinations.iter().enumerate() {
        http_route::destination(check, &format!("{path}.route[{index}].destination"), &entry.destination);
    }
}
