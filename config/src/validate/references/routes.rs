//! What VirtualServices refer to, and where two of them collide.

use std::collections::BTreeMap;

use super::hosts::{Hosts, exported_to, full_name, is_exported, with_domain};
use crate::finding::{Finding, code};
use crate::istio::{Delegate, Destination, VirtualService};
use crate::kubernetes::Service;
use crate::objects::{Object, Objects};
use crate::validate::Check;
use crate::validate::virtual_service::is_for_mesh;
use crate::yaml::Limits;

/// Checks what the rules of one VirtualService refer to.
pub(super) fn check(
    objects: &Objects,
    hosts: &Hosts<'_>,
    object: &Object<VirtualService>,
    limits: &Limits,
) -> Vec<Finding> {
    let mut check = Check::new(&object.metadata.object, &object.metadata.source, limits);
    if !is_for_mesh(&object.spec) {
        return Vec::new();
    }
    let asked = asked_ports(hosts, object);
    for (index, route) in object.spec.http.iter().enumerate() {
        let path = format!("spec.http[{index}]");
        for (number, entry) in route.route.iter().enumerate() {
            let path = format!("{path}.route[{number}].destination");
            check_destination(&mut check, objects, hosts, &path, &entry.destination, &asked);
        }
        if let Some(delegate) = &route.delegate {
            check_delegate(&mut check, objects, &format!("{path}.delegate"), delegate);
        }
    }
    check.into_findings()
}

fn check_destination(
    check: &mut Check<'_>,
    objects: &Objects,
    hosts: &Hosts<'_>,
    path: &str,
    destination: &Destination,
    asked: &[u32],
) {
    if destination.host.starts_with('*') {
        return;
    }
    let host = full_name(&destination.host, check.namespace());
    let Some(service) = hosts.service(&host) else {
        return dangling_host(check, hosts, path, &destination.host, &host);
    };
    check_port(check, path, destination, &host, &service.spec, asked);
    let Some(subset) = destination.subset.as_deref().filter(|subset| !subset.is_empty()) else { return };
    let default = &objects.mesh.default_destination_rule_export_to;
    let rules = hosts.rules(&host, service.namespace(), check.namespace(), default);
    let known: Vec<_> =
        rules.iter().flat_map(|rule| &rule.spec.subsets).map(|subset| subset.name.as_str()).collect();
    if !known.contains(&subset) {
        let what = format!("no DestinationRule that holds here for `{host}` has a subset `{subset}`");
        let remedy = match known.as_slice() {
            [] => "write a DestinationRule for that host with this subset, or remove `subset`".to_owned(),
            known => crate::yaml::remedy(subset, known),
        };
        check.warning(code::DANGLING_SUBSET, &format!("{path}.subset"), answered_503(&what), remedy);
    }
}

/// What a dangling reference does to requests; Envoy's flag for a cluster that is not there is NC.
fn answered_503(what: &str) -> String {
    format!("{what}; requests that go there are answered 503 NC")
}

/// Warns of a host that no service has.
pub(super) fn dangling_host(check: &mut Check<'_>, hosts: &Hosts<'_>, path: &str, written: &str, host: &str) {
    if hosts.is_declared(host) {
        return;
    }
    let completed = with_domain(written);
    let remedy = if written.contains('.') && hosts.service(&completed).is_some() {
        format!("write `{completed}`; only a name without a point is completed")
    } else if written == host {
        "correct the name, or add the Service or ServiceEntry".to_owned()
    } else {
        format!("correct the name, add the Service, or name its namespace; it is taken to be `{host}`")
    };
    let what = format!("no service has the host `{written}`");
    check.warning(code::DANGLING_HOST, &format!("{path}.host"), what, remedy);
}

/// Ports that clients of the hosts of `object` can ask for, as far as services tell.
fn asked_ports(hosts: &Hosts<'_>, object: &Object<VirtualService>) -> Vec<u32> {
    let services =
        object.spec.hosts.iter().filter_map(|host| hosts.service(&full_name(host, object.namespace())));
    services.flat_map(|service| ports_of(&service.spec)).collect()
}

fn ports_of(service: &Service) -> Vec<u32> {
    service.spec.ports.iter().map(|port| u32::from(port.port)).collect()
}

/// Without a port, istiod takes the only one of the service, or else the one that the client asked for.
fn check_port(
    check: &mut Check<'_>,
    path: &str,
    destination: &Destination,
    host: &str,
    service: &Service,
    asked: &[u32],
) {
    let ports = ports_of(service);
    let listed = ports.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    match &destination.port {
        Some(port) if !ports.contains(&port.number) => {
            let what = format!("`{host}` has no port {}", port.number);
            let remedy = format!("write one of its ports: {listed}");
            check.warning(code::DANGLING_PORT, &format!("{path}.port"), answered_503(&what), remedy);
        }
        None if ports.len() > 1 && (asked.is_empty() || asked.iter().any(|port| !ports.contains(port))) => {
            let what = format!(
                "`{host}` has several ports ({listed}) and none is named: the port that the client asked for is taken, \
                 which may not be one of them"
            );
            check.warning(code::AMBIGUOUS_PORT, path, what, "add `port: {number: ...}`");
        }
        _ => {}
    }
}

fn check_delegate(check: &mut Check<'_>, objects: &Objects, path: &str, delegate: &Delegate) {
    let namespace = delegate.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    let namespace = namespace.unwrap_or(check.namespace());
    let name = delegate.name.as_deref().unwrap_or_default();
    let default = &objects.mesh.default_virtual_service_export_to;
    let problem = match objects.virtual_services.get(&(namespace.into(), name.into())) {
        None => "does not exist",
        Some(found) if !found.spec.hosts.is_empty() => "has `hosts`, so it is not a delegate",
        Some(found) if !is_exported(&found.spec.export_to, default, namespace, check.namespace()) => {
            "is not exported to this namespace"
        }
        Some(_) => return,
    };
    let what = format!("the VirtualService {namespace}/{name} {problem}; the rule has no effect");
    check.warning(code::DANGLING_DELEGATE, path, what, "correct `name` and `namespace`, or that object");
}

/// Warns of hosts that several VirtualServices speak for. For sidecars Istio merges nothing: the oldest holds.
pub(super) fn check_collisions(objects: &Objects, limits: &Limits) -> Vec<Finding> {
    /// One entry of `hosts`: its number and its object.
    type Claim<'o> = (usize, &'o Object<VirtualService>);
    let mut by_host: BTreeMap<String, Vec<Claim<'_>>> = BTreeMap::new();
    for object in objects.virtual_services.values().filter(|object| is_for_mesh(&object.spec)) {
        for (index, host) in object.spec.hosts.iter().enumerate() {
            by_host.entry(full_name(host, object.namespace())).or_default().push((index, object));
        }
    }
    let mut findings = Vec::new();
    for (host, mut claims) in by_host {
        claims.sort_by_key(|(_, object)| age(object));
        for (position, (index, object)) in claims.iter().enumerate() {
            let mut older = claims.iter().take(position).map(|(_, older)| older);
            let Some(older) = older.find(|older| is_seen_together(objects, older, object)) else { continue };
            let mut check = Check::new(&object.metadata.object, &object.metadata.source, limits);
            let what =
                format!("{} is older and holds for `{host}`; this one has no effect on it", older.origin());
            let remedy = "write the rules of one host in one VirtualService, or delegate to several";
            check.warning(code::CONFLICTING_HOST, &format!("spec.hosts[{index}]"), what, remedy);
            findings.extend(check.into_findings());
        }
    }
    findings
}

/// istiod's order: by time of creation, objects without one last, then by name and namespace.
fn age(object: &Object<VirtualService>) -> (bool, Option<Box<str>>, String) {
    let created = object.metadata.creation_timestamp.clone();
    (created.is_none(), created, format!("{}.{}", object.name(), object.namespace()))
}

/// Whether some namespace sees both.
fn is_seen_together(objects: &Objects, a: &Object<VirtualService>, b: &Object<VirtualService>) -> bool {
    let default = &objects.mesh.default_virtual_service_export_to;
    let seen = |object: &Object<VirtualService>| -> Vec<String> {
        let names = exported_to(&object.spec.export_to, default);
        names
            .iter()
            .map(|name| if name == "." { object.namespace().to_string() } else { name.clone() })
            .collect()
    };
    let (a, b) = (seen(a), seen(b));
    let all = |names: &[String]| names.iter().any(|name| name == "*");
    all(&a) || all(&b) || a.iter().any(|name| b.contains(name))
}
