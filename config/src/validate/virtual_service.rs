//! VirtualService: what Istio's own validation refuses or warns of.

use super::check::Check;
use super::host_set::HostSet;
use super::names::{self, JWT_CLAIM};
use super::{http_route, layer4, reachability, taken};
use crate::finding::code;
use crate::istio::VirtualService;
use crate::yaml::Limits;

/// The name under which sidecars, as opposed to gateways, are bound.
pub(crate) const MESH_GATEWAY: &str = "mesh";

/// Each host gets the routes of all rules.
pub(super) fn check_products(check: &mut Check<'_>, spec: &VirtualService, limits: &Limits) {
    let routes: usize = spec.http.iter().map(|rule| rule.matches.len().max(1)).sum();
    let made = spec.hosts.len().saturating_mul(routes);
    check.products("spec.http", made, "routes are made of these rules, for each host all of them", limits);
}

/// Whether the object is for sidecars.
pub(crate) fn is_for_mesh(spec: &VirtualService) -> bool {
    spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == MESH_GATEWAY)
}

/// Checks one VirtualService.
pub(crate) fn check(check: &mut Check<'_>, spec: &VirtualService) {
    let delegate = spec.hosts.is_empty();
    if delegate {
        check_delegate(check, spec);
    }
    names::gateways(check, "spec.gateways", &spec.gateways);
    check_hosts(check, spec);
    if spec.http.is_empty() && spec.tcp.is_empty() && spec.tls.is_empty() {
        let what = "there is no rule: `http`, `tls` and `tcp` are all empty";
        check.error(code::MISSING_FIELD, "spec", what, "add a rule under `http`");
    }
    for (index, route) in spec.http.iter().enumerate() {
        http_route::check(check, &format!("spec.http[{index}]"), route, delegate);
    }
    if is_for_mesh(spec) {
        check_claims(check, spec);
    }
    let mut hosts = HostSet::default();
    spec.hosts.iter().for_each(|host| hosts.insert(host));
    for (index, route) in spec.tls.iter().enumerate() {
        layer4::check_tls(check, &format!("spec.tls[{index}]"), route, &hosts);
    }
    for (index, route) in spec.tcp.iter().enumerate() {
        layer4::check_tcp(check, &format!("spec.tcp[{index}]"), route);
    }
    names::export_to(check, &spec.export_to, false);
    reachability::check(check, spec);
    reachability::check_layer4_gateways(check, spec);
    taken::check(check, spec);
}

/// Without hosts it is a delegate, whose HTTP rules others take in.
fn check_delegate(check: &mut Check<'_>, spec: &VirtualService) {
    let fields =
        [("gateways", spec.gateways.is_empty()), ("tls", spec.tls.is_empty()), ("tcp", spec.tcp.is_empty())];
    for (field, _) in fields.iter().filter(|(_, empty)| !empty) {
        let what = format!("without `hosts` this is a delegate, which cannot have `{field}`");
        let remedy = format!("add `hosts`, or remove `{field}`");
        check.error(code::CONFLICTING_FIELDS, &format!("spec.{field}"), what, remedy);
    }
}

fn check_hosts(check: &mut Check<'_>, spec: &VirtualService) {
    let mut before = HostSet::default();
    for (index, host) in spec.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        if host == "*" && is_for_mesh(spec) {
            let what = "the host `*` is not allowed for sidecars";
            check.bad(&path, what, "name the hosts, or bind it to gateways other than `mesh` only");
        } else if !names::is_ip(host) {
            names::host(check, &path, host);
        }
        if let Some(before) = before.overlapping(host) {
            let what = format!("`{host}` and `{before}` stand for the same names");
            check.bad(&path, what, "keep one of them");
        }
        before.insert(host);
    }
}

/// Claims of a JWT can be matched at gateways only, because only there the token is verified before the route.
fn check_claims(check: &mut Check<'_>, spec: &VirtualService) {
    for (rule, route) in spec.http.iter().enumerate() {
        for (index, wanted) in route.matches.iter().enumerate() {
            let path = format!("spec.http[{rule}].match[{index}]");
            let fields = [("headers", &wanted.headers), ("withoutHeaders", &wanted.without_headers)];
            for (field, headers) in fields {
                for name in headers.keys().filter(|name| name.starts_with(JWT_CLAIM)) {
                    let what = format!("`{name}` stands for a claim of a JWT, which only gateways can match");
                    check.bad(&format!("{path}.{field}[{name}]"), what, "bind the object to a gateway only");
                }
            }
        }
    }
}
