//! Services that ServiceEntry objects declare: one of each host.

use std::net::IpAddr;
use std::sync::Arc;

use super::Scope;
use super::protocol::Protocol;
use super::registry::{Aliases, Port, Resolution, Service, Source, reachable};
use super::visibility::sight;
use crate::hashed::{HashMap, HashSet};
use crate::istio::{ServiceEntry, ServiceResolution};
use crate::objects::Object;
use crate::resource::CidrRange;

/// Whether the proxy of `scope` sees an entry.
pub(super) fn is_seen(object: &Object<ServiceEntry>, scope: &Scope<'_>) -> bool {
    let default = &scope.mesh.default_service_export_to;
    sight(&object.spec.export_to, default, object.namespace(), &scope.proxy.namespace).is_some()
}

/// Hosts of entries of the proxy's own namespace, in lower case: there they come before Kubernetes' services of other
/// namespaces.
pub(super) fn own_hosts(scope: &Scope<'_>) -> HashSet<String> {
    let entries = scope.objects.service_entries.values();
    let own = entries.filter(|it| *it.namespace() == scope.proxy.namespace && is_seen(it, scope));
    own.flat_map(|entry| &entry.spec.hosts).map(|host| host.to_lowercase()).collect()
}

/// The services that are wanted. Of several for one host the oldest of the proxy's own namespace holds, or else the oldest,
/// and what is [merged](merge) into it; Kubernetes' services, whose `hosts` are given, come before them. Each takes what
/// stands for it from `aliases`.
pub(super) fn wanted<'a>(
    scope: &Scope<'a>,
    is_wanted: &dyn Fn(&Object<ServiceEntry>) -> bool,
    is_imported: &dyn Fn(&str, &str) -> bool,
    hosts: &HashSet<Arc<str>>,
    aliases: &mut Aliases,
) -> Vec<Service<'a>> {
    let objects = scope.objects.service_entries.values().map(|object| &**object);
    let mut objects: Vec<&'a Object<ServiceEntry>> = objects.filter(|object| is_wanted(object)).collect();
    let is_foreign = |object: &Object<ServiceEntry>| *object.namespace() != scope.proxy.namespace;
    objects.sort_by_key(|object| (is_foreign(object), super::age(&object.metadata)));
    let mut known: HashMap<Arc<str>, usize> = HashMap::default();
    let mut services: Vec<Service<'a>> = Vec::new();
    for object in objects {
        for host in &object.spec.hosts {
            let host: Arc<str> = host.to_lowercase().into();
            if hosts.contains(&host) || !is_imported(object.namespace(), &host) {
                continue;
            }
            match known.get(&host).and_then(|index| services.get_mut(*index)) {
                Some(service) => merge(service, object),
                None => {
                    known.insert(host.clone(), services.len());
                    let aliases = aliases.remove(&host).unwrap_or_default();
                    services.push(service(object, host, aliases, scope));
                }
            }
        }
    }
    services
}

/// How much of an entry counts besides an older one for its host that is seen as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merged {
    /// Nothing.
    Nothing,
    /// Its endpoints, for the ports that are known.
    Endpoints,
    /// Its endpoints and its ports.
    All,
}

/// How much of `object` counts besides `first`. Istio: those of one namespace and resolution share their endpoints, and their
/// ports where they are the same to whoever selects or sees them (`canMergeServices`).
pub(crate) fn merged(first: &Object<ServiceEntry>, object: &Object<ServiceEntry>) -> Merged {
    let (one, other) = (&first.spec, &object.spec);
    if first.namespace() != object.namespace() || one.resolution != other.resolution {
        return Merged::Nothing;
    }
    let selected = [one, other].map(|it| it.workload_selector.as_ref().map(|it| &it.labels));
    let is_same = first.metadata.labels == object.metadata.labels
        && selected[0] == selected[1]
        && one.export_to == other.export_to;
    if is_same { Merged::All } else { Merged::Endpoints }
}

/// Adds to a service what a younger entry for its host says.
fn merge<'a>(service: &mut Service<'a>, object: &'a Object<ServiceEntry>) {
    let Source::Entry(first) = service.source else { return };
    let is_first = std::ptr::eq(first, object) || service.others.iter().any(|it| std::ptr::eq(*it, object));
    let how = merged(first, object);
    if is_first || how == Merged::Nothing {
        return;
    }
    service.others.push(object);
    if how == Merged::All {
        for port in ports(&object.spec) {
            if service.port(port.number).is_none() {
                service.ports.push(port);
            }
        }
    }
}

/// Numbers and names of the ports of an entry, without those of UDP.
pub(crate) fn entry_ports(spec: &ServiceEntry) -> impl Iterator<Item = (u16, &str)> {
    ports(spec).map(|port| (port.number, port.name))
}

/// The ports of an entry, without those of UDP.
pub(super) fn ports(spec: &ServiceEntry) -> impl Iterator<Item = Port<'_>> {
    let port_number = |number: u32| u16::try_from(number).ok().filter(|number| *number > 0);
    let ports = spec.ports.iter().filter_map(move |port| {
        Some(Port {
            number: port_number(port.number)?,
            name: &port.name,
            protocol: Protocol::told(port.protocol.as_deref().unwrap_or_default()),
            target: port.target_port.and_then(port_number),
        })
    });
    ports.filter(|port| port.protocol != Protocol::Udp)
}

fn service<'a>(
    object: &'a Object<ServiceEntry>,
    host: Arc<str>,
    aliases: Vec<Arc<str>>,
    scope: &Scope<'a>,
) -> Service<'a> {
    let spec = &object.spec;
    let addresses: Vec<IpAddr> = spec.addresses.iter().filter_map(|address| single(address)).collect();
    let ranges = spec.addresses.iter().filter(|address| single(address).is_none());
    Service {
        source: Source::Entry(object),
        others: Vec::new(),
        host,
        resolution: match spec.resolution {
            ServiceResolution::Static => Resolution::ClientSide,
            ServiceResolution::Dns => Resolution::Dns,
            ServiceResolution::DnsRoundRobin => Resolution::DnsRoundRobin,
            ServiceResolution::None | ServiceResolution::DynamicDns => Resolution::Passthrough,
        },
        ports: ports(spec).collect(),
        addresses: reachable(addresses, &scope.proxy.ips),
        ranges: ranges.filter_map(|range| CidrRange::parse(range)).collect(),
        aliases,
    }
}

/// A range of one address is that address.
fn single(address: &str) -> Option<IpAddr> {
    let range = CidrRange::parse(address)?;
    (range == CidrRange::host(range.address())).then(|| range.address())
}
