//! Sidecar: what Istio's own validation refuses, and what is not honoured yet.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::check::Check;
use super::{http_route, names, values};
use crate::finding::code;
use crate::istio::{
    CaptureMode, Destination, EgressListener, Sidecar, SidecarOutboundMode, SidecarOutboundTrafficPolicy,
};

/// Checks one Sidecar.
pub(crate) fn check(check: &mut Check<'_>, spec: &Sidecar) {
    if let Some(selector) = &spec.workload_selector {
        names::selector(check, "spec.workloadSelector.labels", &selector.labels);
    }
    for (index, egress) in spec.egress.iter().enumerate() {
        let path = format!("spec.egress[{index}]");
        if egress.hosts.is_empty() {
            let what = "an egress listener needs hosts";
            check.error(code::MISSING_FIELD, &format!("{path}.hosts"), what, "add them, or `*/*` for all");
        }
        for (index, host) in egress.hosts.iter().enumerate() {
            scoped_host(check, &format!("{path}.hosts[{index}]"), host);
        }
        egress_listener(check, &path, egress);
    }
    only_once(check, &spec.egress);
    for (index, ingress) in spec.ingress.iter().enumerate() {
        let path = format!("spec.ingress[{index}]");
        values::port_entry(check, &format!("{path}.port"), ingress.port.number, &ingress.port.protocol);
        if spec.ingress.iter().take(index).any(|before| before.port.number == ingress.port.number) {
            let what = format!("port {} has a listener before this one", ingress.port.number);
            check.error(code::CONFLICTING_FIELDS, &format!("{path}.port.number"), what, "keep one of them");
        }
        if ingress.tls.is_some() {
            not_honoured(check, &format!("{path}.tls"), "the port is served without it");
        }
        bind(check, &path, ingress.bind.as_deref());
        if ingress.capture_mode == CaptureMode::None && ingress.default_endpoint.is_none() {
            let what = "nobody knows where the workload listens: what comes to the port goes nowhere";
            let remedy = "add `defaultEndpoint: 127.0.0.1:PORT`";
            check.warning(code::MISSING_FIELD, &format!("{path}.defaultEndpoint"), what, remedy);
        }
        default_endpoint(check, &format!("{path}.defaultEndpoint"), ingress.default_endpoint.as_deref());
    }
    if let Some(SidecarOutboundTrafficPolicy { mode, egress_proxy: Some(proxy) }) =
        &spec.outbound_traffic_policy
    {
        egress_proxy(check, *mode, proxy);
    }
}

/// The proxy that gets all traffic for hosts that no service has.
fn egress_proxy(check: &mut Check<'_>, mode: SidecarOutboundMode, proxy: &Destination) {
    let path = "spec.outboundTrafficPolicy.egressProxy";
    if mode != SidecarOutboundMode::AllowAny {
        let what = "nothing gets to the proxy, as traffic for hosts that no service has does not go on";
        check.error(code::CONFLICTING_FIELDS, path, what, "write `mode: ALLOW_ANY`");
    }
    http_route::destination(check, path, proxy);
    if !proxy.host.contains('.') {
        let what = format!("`{}` is not a full host", proxy.host);
        check.bad(&format!("{path}.host"), what, "write it with its namespace and domain");
    }
    if proxy.port.is_none() {
        let what = "nobody knows at which port the proxy is";
        check.error(code::MISSING_FIELD, &format!("{path}.port"), what, "add it");
    }
}

/// What an egress listener says of itself.
fn egress_listener(check: &mut Check<'_>, path: &str, egress: &EgressListener) {
    let bind = egress.bind.as_deref().filter(|bind| !bind.is_empty());
    if bind.is_some_and(|bind| bind.starts_with("unix://")) {
        return not_honoured(check, &format!("{path}.bind"), "there is no such listener");
    }
    values::bind(check, path, bind);
    let Some(port) = &egress.port else { return };
    values::port_entry(check, &format!("{path}.port"), port.number, &port.protocol);
    if port.protocol.eq_ignore_ascii_case("HTTP_PROXY") {
        not_honoured(check, &format!("{path}.port.protocol"), "there is no such listener");
    }
}

/// Each port has one listener, and so has everything else.
fn only_once(check: &mut Check<'_>, egress: &[EgressListener]) {
    let mut seen = BTreeSet::new();
    for (index, egress) in egress.iter().enumerate() {
        let port = egress.port.as_ref().map(|port| port.number);
        if !seen.insert(port) {
            let (path, what) = match port {
                Some(port) => (".port.number", format!("port {port} has a listener before this one")),
                None => ("", "there is a listener without a port before this one".to_owned()),
            };
            let remedy = "put all hosts into one of them";
            check.error(code::CONFLICTING_FIELDS, &format!("spec.egress[{index}]{path}"), what, remedy);
        } else if seen.len() > 1 && egress.port.is_some() && seen.contains(&None) {
            let what = "a listener without a port stands before this one, and must be the last";
            check.error(
                code::CONFLICTING_FIELDS,
                &format!("spec.egress[{index}]"),
                what,
                "move it to the end",
            );
        }
    }
}

/// Where an ingress listener binds. Whether it does at all depends on the workload too, and compiling says when it does not.
fn bind(check: &mut Check<'_>, path: &str, bind: Option<&str>) {
    match bind.is_some_and(|bind| bind.starts_with("unix://")) {
        true => not_honoured(check, &format!("{path}.bind"), "there is no such listener"),
        false => values::bind(check, path, bind),
    }
}

/// Where the workload listens: on loopback, or on its own address. Nobody is to be led to another machine.
fn default_endpoint(check: &mut Check<'_>, path: &str, endpoint: Option<&str>) {
    let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_empty()) else { return };
    if endpoint.starts_with("unix://") {
        return not_honoured(check, path, "connections to the port are closed");
    }
    let is_own = endpoint.parse::<SocketAddr>().is_ok_and(|address| {
        (address.ip().is_loopback() || address.ip().is_unspecified()) && address.port() != 0
    });
    if !is_own {
        let remedy = "write `127.0.0.1:PORT`, or `0.0.0.0:PORT` for the workload's own address";
        check.bad(path, format!("`{endpoint}` is no port of the workload"), remedy);
    }
}

fn not_honoured(check: &mut Check<'_>, path: &str, instead: &str) {
    let what = format!("weft does not honour this field yet: {instead}");
    let remedy = "remove it, or keep Istio's own proxy where the mesh relies on it";
    check.warning(code::FIELD_NOT_HONOURED, path, what, remedy);
}

/// `namespace/host`.
fn scoped_host(check: &mut Check<'_>, path: &str, host: &str) {
    let Some((namespace, name)) = host.split_once('/') else {
        let what = format!("`{host}` says no namespace");
        return check.bad(path, what, "write `namespace/host`; `./host` is the own namespace, `*/host` all");
    };
    if !matches!(namespace, "." | "*" | "~") && !names::is_dns_label(namespace) {
        check.bad(path, format!("`{namespace}` is not a namespace"), "write a namespace, `.`, `*` or `~`");
    }
    if name != "*" {
        names::host(check, path, name);
    }
}
