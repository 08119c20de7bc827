//! Sidecar: what Istio's own validation refuses, and what is not honoured yet.

use std::collections::BTreeSet;
use std::net::IpAddr;

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
        values::port(check, &format!("{path}.port.number"), ingress.port.number);
        if ingress.tls.is_some() {
            not_honoured(check, &format!("{path}.tls"), "the port is served without it");
        }
        bind(check, &path, ingress.bind.as_deref());
        if ingress.capture_mode == CaptureMode::None && ingress.default_endpoint.is_none() {
            let what = "nobody knows where the workload listens: what comes to the port goes nowhere";
            let remedy = "add `defaultEndpoint: 127.0.0.1:PORT`";
            check.warning(code::MISSING_FIELD, &format!("{path}.defaultEndpoint"), what, remedy);
        }
        let endpoint = ingress.default_endpoint.as_deref().unwrap_or_default();
        if endpoint.starts_with("unix://") {
            let instead = "connections to the port are closed";
            not_honoured(check, &format!("{path}.defaultEndpoint"), instead);
        }
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
    if let Some(bind) = bind.filter(|bind| bind.parse::<IpAddr>().is_err()) {
        check.bad(&format!("{path}.bind"), format!("`{bind}` is not an IP address"), "write an address");
    }
    let Some(port) = &egress.port else { return };
    values::port(check, &format!("{path}.port.number"), port.number);
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
        }
    }
}

/// Where an ingress listener binds. Whether it does at all depends on the workload too, and compiling says when it does not.
fn bind(check: &mut Check<'_>, path: &str, bind: Option<&str>) {
    let path = format!("{path}.bind");
    match bind.filter(|bind| !bind.is_empty()) {
        None => {}
        Some(bind) if bind.starts_with("unix://") => not_honoured(check, &path, "there is no such listener"),
        Some(bind) if bind.parse::<IpAddr>().is_err() => {
            check.bad(&path, format!("`{bind}` is not an IP address"), "write an address of the workload");
        }
        Some(_) => {}
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
