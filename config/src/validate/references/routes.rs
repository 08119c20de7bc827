//! What VirtualServices refer to.

use std::collections::BTreeSet;

use super::hosts::{Hosts, full_name, gateway_named, namespace_of, with_domain};
use super::served::Served;
use super::targets::{Routed, Targets, Wanted, dangling_host, listed, names};
use super::unmet;
use crate::compile::{gateway_name, is_taken_in, sight};
use crate::finding::{Finding, code};
use crate::istio::{Delegate, Destination, HttpMatchRequest, HttpRoute, Server, VirtualService};
use crate::objects::{Object, Objects};
use crate::validate::Check;
use crate::validate::conditions::told;
use crate::validate::host_set::HostSet;
use crate::validate::reachability;
use crate::validate::virtual_service::{MESH_GATEWAY, is_for_mesh};
use crate::yaml::{Limits, nearest};

/// Checks what the rules of one VirtualService refer to.
pub(super) fn check(
    objects: &Objects,
    hosts: &Hosts<'_>,
    object: &Object<VirtualService>,
    limits: &Limits,
    served: &mut Served<'_>,
) -> Vec<Finding> {
    let mut check = Check::new(&object.metadata.object, &object.metadata.source, limits);
    check_gateways(&mut check, objects, object);
    served.check(&mut check, object);
    unmet::check_gateways(&mut check, objects, object);
    unmet::check_authorities(&mut check, hosts, object);
    if is_for_mesh(&object.spec) {
        check_hosts(&mut check, objects, hosts, object);
    }
    let mut targets = Targets::new(objects, hosts, object);
    // Rules whose delegates take all that they do.
    let mut delegating = Vec::new();
    for (index, route) in object.spec.http.iter().enumerate() {
        let path = format!("spec.http[{index}]");
        let destinations = &route.route;
        // The weight of an only one does not count.
        let is_one = destinations.len() == 1;
        let destinations = destinations.iter().map(|entry| {
            let gets = is_one || entry.weight > 0;
            (&entry.destination, if gets { Routed::Requests } else { Routed::Nothing })
        });
        let named = named_clients(&route.matches);
        let ports: Vec<_> = route.matches.iter().map(|request| request.port).collect();
        let only = named_ports(ports.iter().copied());
        check_destinations(&mut check, &mut targets, (&path, &only, named.as_deref()), destinations);
        let is_foreign = |port: u32| hosts.is_of_foreign(port);
        check_matched_ports(&mut check, (objects, hosts), object, (&path, &ports), is_foreign);
        if let Some(delegate) = &route.delegate
            && check_delegate(&mut check, objects, &format!("{path}.delegate"), route, delegate)
        {
            delegating.push(index);
        }
    }
    reachability::check_behind(&mut check, &object.spec, &delegating);
    let spec = &object.spec;
    let tls = spec.tls.iter().enumerate().map(|(index, rule)| {
        let ports: Vec<_> = rule.matches.iter().map(|matched| matched.port).collect();
        let named = name_clients(rule.matches.iter().map(|it| &it.source_namespace));
        (format!("spec.tls[{index}]"), ports, named, &rule.route)
    });
    let tcp = spec.tcp.iter().enumerate().map(|(index, rule)| {
        let ports: Vec<_> = rule.matches.iter().map(|matched| matched.port).collect();
        let named = name_clients(rule.matches.iter().map(|it| &it.source_namespace));
        (format!("spec.tcp[{index}]"), ports, named, &rule.route)
    });
    for (path, ports, named, route) in tls.chain(tcp) {
        let is_one = route.len() == 1;
        let destinations = route.iter().map(|entry| {
            let gets = is_one || entry.weight > 0;
            (&entry.destination, if gets { Routed::Connections } else { Routed::Nothing })
        });
        let only = named_ports(ports.iter().copied());
        check_destinations(&mut check, &mut targets, (&path, &only, named.as_deref()), destinations);
        check_matched_ports(&mut check, (objects, hosts), object, (&path, &ports), |_| false);
    }
    check.into_findings()
}

/// Whether no Gateway is among those that the object is for.
pub(super) fn is_for_mesh_alone(spec: &VirtualService) -> bool {
    spec.gateways.iter().all(|gateway| gateway == MESH_GATEWAY)
}

/// Warns of Gateway objects that are not there.
fn check_gateways(check: &mut Check<'_>, objects: &Objects, object: &Object<VirtualService>) {
    for (index, written) in object.spec.gateways.iter().enumerate() {
        let full = gateway_name(written, object.namespace());
        let Some((namespace, name)) = full.split_once('/') else { continue };
        if objects.gateways.contains_key(&(namespace.into(), name.into())) {
            continue;
        }
        check.warning_with(code::DANGLING_GATEWAY, &format!("spec.gateways[{index}]"), || {
            let what = format!("there is no Gateway {full}; the rules hold at no gateway because of it");
            let elsewhere = || {
                let mut others = objects.gateways.keys().filter(|(_, other)| **other == *name);
                others.next().map(|(namespace, name)| format!("{namespace}/{name}"))
            };
            let near = nearest(name, &names(&objects.gateways, namespace));
            let near = near.map(|near| format!("{namespace}/{near}")).or_else(elsewhere);
            let remedy = near.map(|near| format!("did you mean `{near}`?"));
            (what, remedy.unwrap_or_else(|| "correct the name, or add the Gateway".to_owned()))
        });
    }
}

/// Warns of hosts that only services of the mesh can have, and none has; and of HTTP rules for ports that are all of TCP.
fn check_hosts(check: &mut Check<'_>, objects: &Objects, hosts: &Hosts<'_>, object: &Object<VirtualService>) {
    let mut may_speak_http = object.spec.http.is_empty() || !is_for_mesh_alone(&object.spec);
    for (index, written) in object.spec.hosts.iter().enumerate() {
        let host = full_name(written, object.namespace());
        may_speak_http |= hosts.may_speak_http(&host, &objects.mesh);
        if hosts.service(&host).is_some() || host.starts_with('*') {
            continue;
        }
        // Any other name may be one that clients ask for at other addresses.
        if namespace_of(&host).is_some() || hosts.service(&with_domain(&host)).is_some() {
            dangling_host(check, objects, hosts, (&format!("spec.hosts[{index}]"), written, &host));
        }
    }
    if !may_speak_http && !object.spec.hosts.is_empty() {
        let what = "the rules never match: all ports of these hosts are of TCP";
        let remedy = "name the ports `http-...` (or set `appProtocol: http`), or write the rules under `tcp`";
        check.warning(code::UNREACHABLE_RULE, "spec.http", what, remedy);
    }
}

/// The destinations of the rule at `path`, which is for those ports only if there are any, and for clients in namespaces that it
/// names or for all.
fn check_destinations<'d>(
    check: &mut Check<'_>,
    targets: &mut Targets<'_>,
    (path, ports, named): (&str, &[u32], Option<&[&str]>),
    destinations: impl Iterator<Item = (&'d Destination, Routed)>,
) {
    for (number, (destination, routed)) in destinations.enumerate() {
        let path = format!("{path}.route[{number}].destination");
        targets.check(check, Wanted { path: &path, destination, routed, ports, named });
    }
}

/// The namespaces that matches name, if requests meet them only from clients in those.
pub(super) fn named_clients(matches: &[HttpMatchRequest]) -> Option<Vec<&str>> {
    name_clients(matches.iter().map(|it| &it.source_namespace))
}

/// The namespaces that matches name, if there are some and all name one.
fn name_clients<'m>(namespaces: impl ExactSizeIterator<Item = &'m Option<String>>) -> Option<Vec<&'m str>> {
    let is_any = namespaces.len() > 0;
    let named = namespaces.map(|it| it.as_deref().filter(|namespace| !namespace.is_empty()));
    named.collect::<Option<_>>().filter(|_| is_any)
}

/// The ports of matches that all ask for one; none where some ask for any, as they do by 0.
pub(super) fn named_ports(ports: impl Iterator<Item = Option<u32>>) -> Vec<u32> {
    ports.map(told).collect::<Option<_>>().unwrap_or_default()
}

/// Warns of matches at `path` for ports that no service of these hosts has, but for those that need none (`is_foreign`), nor a
/// server of the gateways that the object is for. Hosts of objects for gateways and the mesh are those of either.
fn check_matched_ports(
    check: &mut Check<'_>,
    (objects, hosts): (&Objects, &Hosts<'_>),
    object: &Object<VirtualService>,
    (path, matched): (&str, &[Option<u32>]),
    is_foreign: impl Fn(u32) -> bool,
) {
    let spec = &object.spec;
    if spec.hosts.is_empty() || !matched.iter().any(|port| told(*port).is_some()) {
        return;
    }
    let Some(mut known) = ports_of_servers(objects, object) else { return };
    let is_for_mesh = is_for_mesh(spec);
    for host in spec.hosts.iter().filter(|_| is_for_mesh) {
        let Some(ports) = hosts.ports(&full_name(host, object.namespace())) else { return };
        known.extend(ports);
    }
    // That nobody has the hosts at all is told by itself.
    if known.is_empty() {
        return;
    }
    let nobody = match (is_for_mesh, is_for_mesh_alone(spec)) {
        (true, true) => "no service of these hosts has",
        (true, false) => "neither a service of these hosts nor a server of these gateways has",
        (false, _) => "no server that these gateways have for these hosts has",
    };
    for (number, port) in matched.iter().enumerate() {
        let is_known = |port: &u32| known.contains(port) || (is_for_mesh && is_foreign(*port));
        let Some(port) = told(*port).filter(|port| !is_known(port)) else { continue };
        check.warning_with(code::DANGLING_PORT, &format!("{path}.match[{number}].port"), || {
            let what = format!("the match never holds: {nobody} a port {port}");
            (what, format!("write one of their ports: {}", listed(&known)))
        });
    }
}

/// The ports of the servers that the gateways of an object have for its hosts; `None` where one of those is not there, which may
/// come.
fn ports_of_servers(objects: &Objects, object: &Object<VirtualService>) -> Option<BTreeSet<u32>> {
    let namespace = object.namespace();
    let mut hosts = HostSet::default();
    for host in &object.spec.hosts {
        hosts.insert(&full_name(host, namespace).to_lowercase());
    }
    let mut ports = BTreeSet::new();
    for written in object.spec.gateways.iter().filter(|written| *written != MESH_GATEWAY) {
        let gateway = gateway_named(objects, written, namespace)?;
        let has = |server: &&Server| {
            let mut scoped = server.scoped_hosts(gateway.namespace());
            scoped.any(|(scope, host)| {
                ["*", namespace].contains(&scope) && hosts.overlapping(&host.to_lowercase()).is_some()
            })
        };
        ports.extend(gateway.spec.servers.iter().filter(has).map(|server| server.port.number));
    }
    Some(ports)
}

/// Warns of a delegate that is not there, or of rules of it that are not taken in. Whether it takes all that the rule does.
fn check_delegate(
    check: &mut Check<'_>,
    objects: &Objects,
    path: &str,
    route: &HttpRoute,
    delegate: &Delegate,
) -> bool {
    let (namespace, name) = delegate.target(check.namespace());
    let default = &objects.mesh.default_virtual_service_export_to;
    let problem = match objects.virtual_services.get(&(namespace.into(), name.into())) {
        None => "does not exist",
        Some(found) if !found.spec.hosts.is_empty() => "has `hosts`, so it is not a delegate",
        Some(found) if sight(&found.spec.export_to, default, namespace, check.namespace()).is_none() => {
            "is not exported to this namespace"
        }
        Some(found) => {
            check_delegated(check, path, route, found);
            return found.spec.http.iter().any(|rule| rule.matches.is_empty());
        }
    };
    let what = format!("the VirtualService {namespace}/{name} {problem}; the rule has no effect");
    check.warning(code::DANGLING_DELEGATE, path, what, "correct `name` and `namespace`, or that object");
    false
}

/// Warns of rules of a delegate that are not taken in.
fn check_delegated(check: &mut Check<'_>, path: &str, route: &HttpRoute, delegate: &Object<VirtualService>) {
    for (number, rule) in delegate.spec.http.iter().enumerate() {
        if is_taken_in(route, rule) {
            continue;
        }
        check.warning_with(code::CONFLICTING_DELEGATE, path, || {
            let name = rule.name.as_deref().filter(|name| !name.is_empty());
            let name = name.map(|name| format!(" `{name}`")).unwrap_or_default();
            let what = format!(
                "rule http[{number}]{name} of the VirtualService {}/{} is left out: what it matches is no part of what this \
                 rule matches",
                delegate.namespace(),
                delegate.name()
            );
            (what, "let it match a part of it, without `regex` where both match the same".to_owned())
        });
    }
}
