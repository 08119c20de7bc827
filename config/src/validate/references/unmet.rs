//! HTTP rules that nothing can meet where their object is used: authorities that no host of it has, and gateways that speak
//! no HTTP.

use super::hosts::{Hosts, full_name, gateway_named};
use crate::finding::code;
use crate::istio::{HttpMatchRequest, Server, VirtualService};
use crate::objects::{Object, Objects};
use crate::validate::Check;
use crate::validate::names::is_ip;
use crate::validate::reachability::{Impossible, tell_impossible};
use crate::validate::virtual_service::is_for_mesh;

/// Warns of matches of an authority that no host of the object has.
pub(super) fn check_authorities(check: &mut Check<'_>, hosts: &Hosts<'_>, object: &Object<VirtualService>) {
    let spec = &object.spec;
    let has = |request: &HttpMatchRequest| {
        request.authority.as_ref().is_some_and(|authority| authority.exact.is_some())
    };
    let asks = spec.http.iter().flat_map(|route| &route.matches).any(has);
    // A delegate has no hosts of its own.
    if !asks || spec.hosts.is_empty() {
        return;
    }
    let names: Vec<_> =
        spec.hosts.iter().map(|host| full_name(host, object.namespace()).to_lowercase()).collect();
    if is_for_mesh(spec) && !names.iter().all(|host| hosts.is_asked_by_name(host)) {
        return;
    }
    for (index, route) in spec.http.iter().enumerate() {
        let never = |request: &HttpMatchRequest| {
            let exact = request.authority.as_ref()?.exact.as_deref()?;
            (!names.iter().any(|host| may_have(host, exact))).then(|| Impossible {
                field: "authority.exact".to_owned(),
                what: format!("no host of this object is asked for as `{exact}`"),
                remedy: "correct it, or add the host to `spec.hosts`",
            })
        };
        let never: Vec<_> = route.matches.iter().map(never).collect();
        tell_impossible(check, &format!("spec.http[{index}]"), &never);
    }
}

/// Whether requests with that authority may be for a full host: by its name, a shorter form of it, the name of one of its
/// pods, or an address, each with a port or without.
fn may_have(host: &str, authority: &str) -> bool {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    };
    let name = name.to_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    if name.starts_with('[') || is_ip(name) {
        return true;
    }
    let begins =
        |short: &str| host.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    match host.strip_prefix('*') {
        // Services of the mesh have shorter names, which a wildcard for them does not tell.
        Some(ending) => name.ends_with(ending) || ending.ends_with(".local"),
        None => {
            begins(name)
                || name.match_indices('.').any(|(at, _)| begins(name.get(at + 1..).unwrap_or_default()))
        }
    }
}

/// Warns of HTTP rules where all gateways that the object is for pass on what they get.
pub(super) fn check_gateways(check: &mut Check<'_>, objects: &Objects, object: &Object<VirtualService>) {
    let spec = &object.spec;
    if spec.http.is_empty() || spec.hosts.is_empty() || is_for_mesh(spec) {
        return;
    }
    for written in &spec.gateways {
        // One that is not there is told; it may come.
        let Some(gateway) = gateway_named(objects, written, object.namespace()) else { return };
        if gateway.spec.servers.iter().any(speaks_http) {
            return;
        }
    }
    let what = "the rules never match: no server of these gateways speaks HTTP or ends TLS of HTTPS";
    let remedy = "write the rules under `tcp` or `tls`, or let a server have the protocol HTTP or HTTPS";
    check.warning(code::UNREACHABLE_RULE, "spec.http", what, remedy);
}

/// Whether a server looks into HTTP, by itself or behind TLS.
fn speaks_http(server: &Server) -> bool {
    match server.port.protocol.to_ascii_uppercase().as_str() {
        "TCP" | "MONGO" | "TLS" => false,
        "HTTPS" => server.tls.as_ref().is_some_and(|tls| tls.mode.terminates()),
        _ => true,
    }
}
