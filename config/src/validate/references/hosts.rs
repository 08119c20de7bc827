//! Hosts of services, and which rules hold for them.

use std::collections::BTreeSet;

use crate::compile::{
    At, Sight, by_address, gateway_name, is_detected, may_be_http, may_be_told_http, sight,
};
use crate::hashed::{HashMap, HashSet};
use crate::istio::{DestinationRule, Gateway, HttpRoute, ServiceEntry, ServicePortEntry, VirtualService};
use crate::kubernetes::{EndpointSlice, Pod, Service, ServicePort};
use crate::mesh::MeshConfig;
use crate::objects::{Key, Object, Objects};
use crate::validate::host_set::HostSet;

/// The domain of services, as Istio has it unless told otherwise.
const SERVICE_DOMAIN: &str = "svc.cluster.local";
/// The namespace whose rules hold for the whole mesh, unless MeshConfig names another.
const ROOT_NAMESPACE: &str = "istio-system";
/// On this port rules also speak for hosts that no service has there.
const PORT_OF_FOREIGN_HOSTS: u16 = 80;

/// Rules by namespace and full host, or wildcard.
type RulesByHost<'o> = HashMap<&'o str, HashMap<String, Vec<&'o Object<DestinationRule>>>>;

/// What asks the rules of a VirtualService.
#[derive(Clone, Copy)]
pub(super) struct Asker<'o> {
    /// The object whose hosts and gateways they are for.
    pub(super) object: &'o Object<VirtualService>,
    /// The rule that delegates to them, which has to match as well.
    pub(super) by: Option<&'o HttpRoute>,
}

/// What is looked up by host.
#[derive(Default)]
pub(super) struct Hosts<'o> {
    services: HashMap<String, &'o Object<Service>>,
    /// Slices by namespace and name of their service.
    slices: HashMap<(&'o str, &'o str), Vec<&'o Object<EndpointSlice>>>,
    /// Pods that slices mean by their address alone.
    pods: HashMap<At<'o>, &'o Object<Pod>>,
    rules: RulesByHost<'o>,
    root_namespace: &'o str,
    /// Hosts that ServiceEntry objects declare.
    declared: HostSet,
    /// Ports of each of them, as it is written in lower case.
    entry_ports: HashMap<String, BTreeSet<u32>>,
    /// The objects of each of them, likewise.
    entries: HashMap<String, Vec<&'o Object<ServiceEntry>>>,
    /// Whether some of them are wildcards.
    has_wildcards: bool,
    /// Ports of listeners that Sidecar objects ask for.
    sidecar_ports: BTreeSet<u32>,
    /// What delegates to the VirtualService of that namespace and name.
    roots: HashMap<(&'o str, &'o str), Vec<Asker<'o>>>,
    /// Whether some services are names of others.
    has_aliases: bool,
    /// Whether there are Sidecar objects, which may hide services from those that use them.
    has_sidecars: bool,
    /// Whether HTTP is routed on the port of foreign hosts: some service may speak it there.
    routes_foreign: bool,
}

impl<'o> Hosts<'o> {
    pub(super) fn of(objects: &'o Objects) -> Hosts<'o> {
        let services = objects.services.values();
        let services = services
            .map(|service| (full_name(service.name(), service.namespace()), service.as_ref()))
            .collect();
        let mut slices: HashMap<_, Vec<_>> = HashMap::default();
        for slice in objects.endpoint_slices.values() {
            if let Some(service) = slice.service() {
                slices.entry((slice.namespace().as_ref(), service)).or_default().push(slice.as_ref());
            }
        }
        let root_namespace = objects.mesh.root_namespace.as_deref().unwrap_or(ROOT_NAMESPACE);
        let mut declared = HostSet::default();
        let (mut entry_ports, mut has_wildcards) = (HashMap::<_, BTreeSet<_>>::default(), false);
        let mut entries: HashMap<_, Vec<_>> = HashMap::default();
        for entry in objects.service_entries.values() {
            for host in &entry.spec.hosts {
                declared.insert(&host.to_lowercase());
                has_wildcards |= host.starts_with('*');
                let ports = entry.spec.ports.iter().map(|port| port.number);
                entry_ports.entry(host.to_lowercase()).or_default().extend(ports);
                entries.entry(host.to_lowercase()).or_default().push(entry.as_ref());
            }
        }
        let listeners = objects.sidecars.values().flat_map(|sidecar| &sidecar.spec.egress);
        let sidecar_ports = listeners.filter_map(|listener| Some(listener.port.as_ref()?.number)).collect();
        Hosts {
            services,
            pods: by_address(objects, slices.values().flatten().copied()),
            slices,
            rules: rules_by_host(objects),
            root_namespace,
            declared,
            entry_ports,
            entries,
            has_wildcards,
            sidecar_ports,
            roots: roots(objects),
            has_aliases: objects.services.values().any(|it| it.spec.spec.external_name.is_some()),
            has_sidecars: !objects.sidecars.is_empty(),
            routes_foreign: routes_foreign(objects),
        }
    }

    /// Whose hosts and gateways the rules of `object` are for: its own, or those of what delegates to it.
    pub(super) fn askers(&self, object: &'o Object<VirtualService>) -> Vec<Asker<'o>> {
        if !object.spec.hosts.is_empty() {
            return vec![Asker { object, by: None }];
        }
        self.roots.get(&(object.namespace().as_ref(), object.name().as_ref())).cloned().unwrap_or_default()
    }

    /// Whether HTTP rules of matches for `port` may hold whatever ports their hosts have: there they also speak for hosts
    /// that no service has.
    pub(super) fn is_of_foreign(&self, port: u32) -> bool {
        port == u32::from(PORT_OF_FOREIGN_HOSTS) && self.routes_foreign
    }

    /// Ports at which sidecars may be asked for that full host; `None` where they cannot be known.
    pub(super) fn ports(&self, host: &str) -> Option<BTreeSet<u32>> {
        let host = host.to_lowercase();
        let (service, entry) = (self.service(&host), self.entry_ports.get(&host));
        if host.starts_with('*') || self.has_wildcards || (service.is_none() && entry.is_none()) {
            return None;
        }
        let of_service = service.into_iter().flat_map(|service| &service.spec.spec.ports);
        let ports = of_service.map(|port| u32::from(port.port)).chain(entry.into_iter().flatten().copied());
        Some(ports.chain(self.sidecar_ports.iter().copied()).collect())
    }

    /// Ports of that full host at which sidecars may be asked for HTTP; `None` where they cannot be known, as where Sidecar
    /// objects say something of ports. Port 80 is among them only where the host has it.
    pub(super) fn http_ports(&self, host: &str) -> Option<BTreeSet<u32>> {
        let host = host.to_lowercase();
        self.ports(&host).filter(|_| self.sidecar_ports.is_empty())?;
        let of_service = self.service(&host).into_iter().flat_map(|service| &service.spec.spec.ports);
        let of_service = of_service.filter(|port| may_be_http(port)).map(|port| u32::from(port.port));
        let of_entries = self.entries(&host).iter().flat_map(|entry| &entry.spec.ports);
        let of_entries = of_entries.filter(|port| may_be_http_of_entry(port)).map(|port| port.number);
        Some(of_service.chain(of_entries).collect())
    }

    /// Only those services, with their slices, and all rules.
    pub(super) fn of_services(objects: &'o Objects, keys: &HashSet<Key>) -> Hosts<'o> {
        let wanted = keys.iter().filter_map(|key| objects.services.get(key));
        let services = wanted
            .map(|service| (full_name(service.name(), service.namespace()), service.as_ref()))
            .collect();
        let mut slices: HashMap<_, Vec<_>> = HashMap::default();
        let known: HashSet<(&str, &str)> =
            keys.iter().map(|(namespace, name)| (&**namespace, &**name)).collect();
        for slice in objects.endpoint_slices.values() {
            let key = slice.service().map(|service| (slice.namespace().as_ref(), service));
            if let Some(key) = key.filter(|key| known.contains(key)) {
                slices.entry(key).or_default().push(slice.as_ref());
            }
        }
        let root_namespace = objects.mesh.root_namespace.as_deref().unwrap_or(ROOT_NAMESPACE);
        let pods = by_address(objects, slices.values().flatten().copied());
        Hosts { services, slices, pods, rules: rules_by_host(objects), root_namespace, ..Hosts::default() }
    }

    /// The namespace whose objects are for the whole mesh.
    pub(super) fn root_namespace(&self) -> &'o str {
        self.root_namespace
    }

    /// The service of that full host.
    pub(super) fn service(&self, host: &str) -> Option<&'o Object<Service>> {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.services.get(host).copied()
    }

    /// Whether a ServiceEntry declares that host, or hosts that it stands for or among.
    pub(super) fn is_declared(&self, host: &str) -> bool {
        self.declared.overlapping(&host.to_lowercase()).is_some()
    }

    /// The ServiceEntry objects that declare just that full host.
    pub(super) fn entries(&self, host: &str) -> &[&'o Object<ServiceEntry>] {
        self.entries.get(&host.to_lowercase()).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether HTTP rules may hold for that full host: it has a port on which HTTP may be spoken, or is a foreign one to
    /// some client on the port where rules speak for such; so it is where its ports cannot be known.
    pub(super) fn may_speak_http(&self, host: &str, mesh: &MeshConfig) -> bool {
        let host = host.to_lowercase();
        let (service, entries) = (self.service(&host), self.entries(&host));
        let unknown = host.starts_with('*') || (service.is_none() && entries.is_empty());
        let is_told = |entry: &&Object<ServiceEntry>| entry.spec.ports.iter().any(may_be_http_of_entry);
        // What a Sidecar says of a port counts more than what the service does.
        unknown
            || self.has_wildcards
            || !self.sidecar_ports.is_empty()
            || service.is_some_and(|service| service.spec.spec.ports.iter().any(may_be_http))
            || entries.iter().any(is_told)
            || (self.routes_foreign && self.may_be_foreign(service, entries, mesh))
    }

    /// Whether the host of these may be one, to some client, that no service has on the port of foreign hosts.
    fn may_be_foreign(
        &self,
        service: Option<&Object<Service>>,
        entries: &[&Object<ServiceEntry>],
        mesh: &MeshConfig,
    ) -> bool {
        let default = &mesh.default_service_export_to;
        let all_see = |export_to: &[String], own: &str| {
            matches!(sight(export_to, default, own, own), Some(Sight::Public))
        };
        let has = |service: &Object<Service>| {
            let is_it = |it: &ServicePort| it.port == PORT_OF_FOREIGN_HOSTS && !is_udp(it);
            service.spec.spec.ports.iter().any(is_it)
                && all_see(&service.spec.export_to(), service.namespace())
        };
        let entry_has = |entry: &&Object<ServiceEntry>| {
            entry.spec.ports.iter().any(|it| it.number == u32::from(PORT_OF_FOREIGN_HOSTS))
                && all_see(&entry.spec.export_to, entry.namespace())
        };
        self.has_sidecars || !service.is_none_or(has) || !entries.iter().all(entry_has)
    }

    /// Whether sidecars ask the service of that full host for HTTP by its names alone: its ports of HTTP are told to be so,
    /// and nothing else stands for it. Behind a port whose protocol is detected, any authority is for its service.
    pub(super) fn is_asked_by_name(&self, host: &str) -> bool {
        let ports = self.service(host).map(|service| &service.spec.spec.ports);
        ports.is_some_and(|ports| !ports.iter().any(is_detected))
            && self.sidecar_ports.is_empty()
            && !self.has_aliases
    }

    /// Whether there are services of that full host and clients in the namespace `client` see none of them.
    pub(super) fn is_hidden(&self, host: &str, client: &str, mesh: &MeshConfig) -> bool {
        let default = &mesh.default_service_export_to;
        let (service, host) = (self.service(host), host.to_lowercase());
        let entries = self.entries(&host);
        let is_seen = |export_to: &[String], own: &str| sight(export_to, default, own, client).is_some();
        // What a wildcard declares is there under other names too.
        !self.has_wildcards
            && (service.is_some() || !entries.is_empty())
            && !service.is_some_and(|service| is_seen(&service.spec.export_to(), service.namespace()))
            && !entries.iter().any(|entry| is_seen(&entry.spec.export_to, entry.namespace()))
    }

    /// The rules of a namespace for just that full host.
    pub(super) fn rules_of(&self, namespace: &str, host: &str) -> &[&'o Object<DestinationRule>] {
        self.rules.get(namespace).and_then(|rules| rules.get(host)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Endpoint slices of a service.
    pub(super) fn slices<'a>(&'a self, service: &'a Object<Service>) -> &'a [&'o Object<EndpointSlice>] {
        let key = (service.namespace().as_ref(), service.name().as_ref());
        self.slices.get(&key).map(Vec::as_slice).unwrap_or_default()
    }

    /// The pod of that address behind an endpoint that names none.
    pub(super) fn pod_at(&self, place: At<'_>) -> Option<&'o Object<Pod>> {
        self.pods.get(&place).copied()
    }

    /// Subsets of all rules that may hold for `host`, whoever the client is.
    pub(super) fn subsets_anywhere(&self, host: &str) -> impl Iterator<Item = &'o str> {
        let hosts: Vec<_> = same_or_wider(host).collect();
        let rules = self.rules.values().flat_map(move |rules| {
            hosts.iter().filter_map(|host| rules.get(host)).flatten().copied().collect::<Vec<_>>()
        });
        rules.flat_map(|rule| &rule.spec.subsets).map(|subset| subset.name.as_str())
    }

    /// The rules that hold for `host`, whose service is in `service_namespace`, for clients in `client`: those of the
    /// most specific host in the first namespace that has any.
    pub(super) fn rules(
        &self,
        host: &str,
        service_namespace: &str,
        client: &str,
        default_export_to: &[String],
    ) -> Vec<&'o Object<DestinationRule>> {
        for namespace in [client, service_namespace, self.root_namespace] {
            let Some(rules) = self.rules.get(namespace) else { continue };
            let is_visible = |rule: &&&Object<DestinationRule>| {
                sight(&rule.spec.export_to, default_export_to, namespace, client).is_some()
            };
            let found = same_or_wider(host).find_map(|host| {
                let visible: Vec<_> = rules.get(&host)?.iter().filter(is_visible).copied().collect();
                (!visible.is_empty()).then_some(visible)
            });
            if let Some(found) = found {
                return found;
            }
        }
        Vec::new()
    }
}

/// The Gateway that an object in `namespace` names so.
pub(super) fn gateway_named<'o>(
    objects: &'o Objects,
    written: &str,
    namespace: &str,
) -> Option<&'o Object<Gateway>> {
    let full = gateway_name(written, namespace);
    let (namespace, name) = full.split_once('/')?;
    objects.gateways.get(&(namespace.into(), name.into())).map(|gateway| &**gateway)
}

/// What delegates, by what it delegates to.
fn roots(objects: &Objects) -> HashMap<(&str, &str), Vec<Asker<'_>>> {
    let mut roots: HashMap<_, Vec<_>> = HashMap::default();
    for object in objects.virtual_services.values().map(|object| &**object) {
        for rule in &object.spec.http {
            let Some(delegate) = &rule.delegate else { continue };
            roots
                .entry(delegate.target(object.namespace()))
                .or_default()
                .push(Asker { object, by: Some(rule) });
        }
    }
    roots
}

/// Whether some service may speak HTTP on the port of foreign hosts, whoever sees it.
fn routes_foreign(objects: &Objects) -> bool {
    let of_kubernetes = objects.services.values().flat_map(|service| &service.spec.spec.ports);
    let of_istio = objects.service_entries.values().flat_map(|entry| &entry.spec.ports);
    of_kubernetes.into_iter().any(|port| port.port == PORT_OF_FOREIGN_HOSTS && may_be_http(port))
        || of_istio
            .into_iter()
            .any(|port| port.number == u32::from(PORT_OF_FOREIGN_HOSTS) && may_be_http_of_entry(port))
}

fn may_be_http_of_entry(port: &ServicePortEntry) -> bool {
    may_be_told_http(port.protocol.as_deref().unwrap_or_default())
}

fn is_udp(port: &ServicePort) -> bool {
    port.protocol.as_deref() == Some("UDP")
}

fn rules_by_host(objects: &Objects) -> RulesByHost<'_> {
    let mut rules = RulesByHost::default();
    for rule in objects.destination_rules.values() {
        let host = full_name(&rule.spec.host, rule.namespace());
        rules.entry(rule.namespace().as_ref()).or_default().entry(host).or_default().push(rule.as_ref());
    }
    rules
}

/// `host`, which is no wildcard, and the wildcards that stand for it, the longest first.
fn same_or_wider(host: &str) -> impl Iterator<Item = String> {
    let ends = host.char_indices().map(|(at, _)| host.get(at..).unwrap_or_default()).chain([""]);
    std::iter::once(host.to_owned()).chain(ends.map(|end| format!("*{end}")))
}

/// A host as it is written in an object of `namespace`, in full.
pub(super) fn full_name(host: &str, namespace: &str) -> String {
    if host.contains(['.', '*']) { host.to_owned() } else { format!("{host}.{namespace}.{SERVICE_DOMAIN}") }
}

/// `host` with the domain of services behind it.
pub(super) fn with_domain(host: &str) -> String {
    format!("{}.{SERVICE_DOMAIN}", host.strip_suffix(".svc").unwrap_or(host))
}

/// The namespace of a host that can only be the name of a service of Kubernetes.
pub(super) fn namespace_of(host: &str) -> Option<&str> {
    let name = host.strip_suffix('.').unwrap_or(host).strip_suffix(SERVICE_DOMAIN)?.strip_suffix('.')?;
    name.split_once('.').map(|(_, namespace)| namespace).filter(|namespace| !namespace.contains('.'))
}

/// The key of an object of the same namespace as `object`.
pub(super) fn key<T>(object: &Object<T>, name: &str) -> Key {
    (object.namespace().clone(), name.into())
}
