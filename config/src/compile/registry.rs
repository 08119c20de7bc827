//! Services as istiod's registry sees them: host, ports with their protocols, addresses, aliases.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::egress::Imports;
use super::host::service_host;
use super::protocol::Protocol;
use super::service_entries;
use super::visibility::sight;
use super::{Scope, has_both_families};
use crate::hashed::{HashMap, HashSet};
use crate::istio::{ServiceEntry, ServiceLocation};
use crate::kubernetes;
use crate::kubernetes::{TargetPort, TrafficDistribution};
use crate::objects::{Key, Metadata, Object};
use crate::resource::CidrRange;

/// The services that the proxy sees, by host.
pub(super) struct Registry<'a> {
    services: Vec<Service<'a>>,
    by_host: HashMap<Arc<str>, usize>,
    by_port: HashMap<u16, Vec<usize>>,
}

/// A service.
pub(super) struct Service<'a> {
    pub(super) source: Source<'a>,
    /// Further entries of its namespace and resolution for its host: their endpoints are its own.
    pub(super) others: Vec<&'a Object<ServiceEntry>>,
    pub(super) host: Arc<str>,
    pub(super) resolution: Resolution,
    /// Without those of UDP.
    pub(super) ports: Vec<Port<'a>>,
    /// Virtual addresses that the proxy can reach.
    pub(super) addresses: Vec<IpAddr>,
    /// Ranges of virtual addresses.
    pub(super) ranges: Vec<CidrRange>,
    /// Hosts of `ExternalName` services that stand for this one.
    pub(super) aliases: Vec<Arc<str>>,
}

/// Hosts of `ExternalName` services, by the host they stand for.
pub(super) type Aliases = HashMap<Arc<str>, Vec<Arc<str>>>;

/// The object that a service is written in.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// Kubernetes'.
    Kubernetes(&'a Object<kubernetes::Service>),
    /// Istio's.
    Entry(&'a Object<ServiceEntry>),
}

/// Where the endpoints of a service are found. Istio: `Resolution`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resolution {
    /// Known to the proxy, which balances.
    ClientSide,
    /// Headless, or nobody says: the client chooses the endpoint by its address.
    Passthrough,
    /// DNS tells all addresses of a name.
    Dns,
    /// DNS tells the address of the next connection.
    DnsRoundRobin,
    /// Nowhere: the service is another name of this host.
    Alias(Arc<str>),
}

/// A port of a [`Service`].
#[derive(Clone, Copy)]
pub(super) struct Port<'a> {
    pub(super) number: u16,
    /// What endpoint slices call it; may be empty.
    pub(super) name: &'a str,
    pub(super) protocol: Protocol,
    /// Port of the endpoints, where the service itself says it by number.
    pub(super) target: Option<u16>,
}

impl<'a> Registry<'a> {
    /// The services of `scope` that its proxy sees and that `imports` lets in.
    pub(super) fn new(scope: &Scope<'a>, imports: &Imports<'a>) -> Registry<'a> {
        let mut services = services(
            scope,
            &|service| is_seen(service, scope),
            &|entry| service_entries::is_seen(entry, scope),
            Some(imports),
        );
        if imports.trim() {
            services.retain_mut(|service| {
                let (namespace, host) = (service.namespace(), service.host.clone());
                let had_ports = !service.ports.is_empty();
                service.ports.retain(|port| imports.port(namespace, &host, port.number));
                !(had_ports && service.ports.is_empty())
            });
        }
        Registry::of(services)
    }

    /// Those of Kubernetes' services of `keys` that are there and that the proxy sees, without their aliases.
    pub(super) fn of_keys(scope: &Scope<'a>, keys: &BTreeSet<Key>) -> Registry<'a> {
        let services = keys.iter().filter_map(|key| scope.objects.services.get(key));
        let seen = services.filter(|service| is_seen(service, scope));
        Registry::of(seen.map(|service| Service::new(service, scope, &mut HashMap::default())).collect())
    }

    /// The services of the proxy's namespace that its workload may be an endpoint of, whoever sees them and whatever the
    /// workload may reach; `None` where [`Registry::new`] has them all.
    pub(super) fn of_workload(scope: &Scope<'a>, imports: &Imports<'a>) -> Option<Registry<'a>> {
        let is_own = |namespace: &str| *namespace == *scope.proxy.namespace;
        let mut of_kubernetes = scope.objects.services.values();
        let mut of_istio = scope.objects.service_entries.values();
        let hides = of_kubernetes.any(|it| is_own(it.namespace()) && !is_seen(it, scope))
            || of_istio.any(|it| is_own(it.namespace()) && !service_entries::is_seen(it, scope));
        if !imports.trim() && !hides {
            return None;
        }
        Some(Registry::of(services(scope, &|it| is_own(it.namespace()), &|it| is_own(it.namespace()), None)))
    }

    /// Services whoever sees them, without their aliases: of Kubernetes' those of `keys` or else all, of Istio's those of
    /// the mesh.
    pub(super) fn of_everybody(scope: &Scope<'a>, keys: Option<&HashSet<Key>>) -> Vec<Service<'a>> {
        let (objects, mut none) = (scope.objects, Aliases::default());
        let named = keys.map(|keys| keys.iter().filter_map(|key| objects.services.get(key)));
        let all = keys.is_none().then(|| objects.services.values());
        let of_kubernetes = named.into_iter().flatten().chain(all.into_iter().flatten());
        let mut services: Vec<Service<'a>> =
            of_kubernetes.map(|service| Service::new(service, scope, &mut none)).collect();
        let is_internal = |entry: &Object<ServiceEntry>| entry.spec.location == ServiceLocation::MeshInternal;
        let of_istio =
            service_entries::wanted(scope, &is_internal, &|_, _| true, &HashSet::default(), &mut none);
        services.extend(of_istio.into_iter().filter(|service| !is_of_kubernetes(scope, &service.host)));
        services
    }

    fn of(mut services: Vec<Service<'a>>) -> Registry<'a> {
        services.sort_by(|one, other| one.host.cmp(&other.host));

        let mut by_host = crate::hashed::map(services.len());
        let mut by_port: HashMap<u16, Vec<usize>> = HashMap::default();
        for (index, service) in services.iter().enumerate() {
            by_host.insert(service.host.clone(), index);
            for port in service.distinct_ports() {
                by_port.entry(port.number).or_default().push(index);
            }
        }
        Registry { services, by_host, by_port }
    }

    /// All services, by host.
    pub(super) fn services(&self) -> &[Service<'a>] {
        &self.services
    }

    /// The service of that host.
    pub(super) fn service(&self, host: &str) -> Option<&Service<'a>> {
        self.by_host.get(host).and_then(|index| self.services.get(*index))
    }

    /// How many services have that port.
    pub(super) fn count_with_port(&self, number: u16) -> usize {
        self.by_port.get(&number).map_or(0, Vec::len)
    }

    /// The services that have that port, by host.
    pub(super) fn with_port(&self, number: u16) -> impl Iterator<Item = (&Service<'a>, &Port<'a>)> {
        self.by_port
            .get(&number)
            .into_iter()
            .flatten()
            .filter_map(|index| self.services.get(*index))
            .filter_map(move |service| Some((service, service.port(number)?)))
    }
}

/// Whether a service of Kubernetes has that host.
fn is_of_kubernetes(scope: &Scope<'_>, host: &str) -> bool {
    let short = host.strip_suffix(&*scope.proxy.dns_domain).and_then(|host| host.strip_suffix(".svc."));
    let parts = short.and_then(|short| short.split_once('.'));
    parts.is_some_and(|(name, namespace)| {
        scope.objects.services.contains_key(&(namespace.into(), name.into()))
    })
}

/// Whether the proxy of `scope` sees a service.
fn is_seen(service: &Object<kubernetes::Service>, scope: &Scope<'_>) -> bool {
    let default = &scope.mesh.default_service_export_to;
    sight(&service.spec.export_to(), default, service.namespace(), &scope.proxy.namespace).is_some()
}

/// Those of Kubernetes' services and of Istio's that are wanted, each with its aliases, as far as `imports` lets them in. Of
/// a host in several namespaces the proxy's own holds.
fn services<'a>(
    scope: &Scope<'a>,
    is_wanted: &dyn Fn(&Object<kubernetes::Service>) -> bool,
    is_entry_wanted: &dyn Fn(&Object<ServiceEntry>) -> bool,
    imports: Option<&Imports<'a>>,
) -> Vec<Service<'a>> {
    let imports = imports.filter(|imports| imports.trim());
    let is_imported =
        |namespace: &str, host: &str| imports.is_none_or(|imports| imports.service(namespace, host));
    let taken = service_entries::own_hosts(scope);
    let holds = |service: &Object<kubernetes::Service>| {
        let is_own = *service.namespace() == scope.proxy.namespace;
        if imports.is_none() && (is_own || taken.is_empty()) {
            return true;
        }
        let host = service_host(service.name(), service.namespace(), &scope.proxy.dns_domain);
        let is_taken = !is_own && taken.contains(&*host) && is_imported(&scope.proxy.namespace, &host);
        !is_taken && is_imported(service.namespace(), &host)
    };
    let mut aliases = aliases(scope);
    let wanted = scope.objects.services.values().filter(|service| is_wanted(service) && holds(service));
    let mut services: Vec<Service<'a>> =
        wanted.map(|service| Service::new(service, scope, &mut aliases)).collect();
    let hosts: HashSet<Arc<str>> = services.iter().map(|service| service.host.clone()).collect();
    services.extend(service_entries::wanted(scope, is_entry_wanted, &is_imported, &hosts, &mut aliases));
    services
}

impl<'a> Service<'a> {
    fn new(object: &'a Object<kubernetes::Service>, scope: &Scope<'a>, aliases: &mut Aliases) -> Service<'a> {
        let spec = &object.spec.spec;
        let host = service_host(object.name(), object.namespace(), &scope.proxy.dns_domain);
        // Of other pods than the proxy's own their endpoint slices tell what a name stands for.
        let own = || {
            let key = (object.namespace().clone(), scope.proxy.name.clone());
            scope.objects.pods.get(&key).map(|pod| &pod.spec)
        };
        let ports = spec.ports.iter().map(|port| Port {
            number: port.port,
            name: port.name.as_deref().unwrap_or_default(),
            protocol: Protocol::of(port),
            target: target_number(port.target_port.as_ref(), own),
        });
        Service {
            source: Source::Kubernetes(object),
            others: Vec::new(),
            resolution: resolution(spec),
            ports: ports.filter(|port| port.protocol != Protocol::Udp).collect(),
            addresses: addresses(spec, &scope.proxy.ips),
            ranges: Vec::new(),
            aliases: aliases.remove(&host).unwrap_or_default(),
            host,
        }
    }

    /// The first port of that number.
    pub(super) fn port(&self, number: u16) -> Option<&Port<'a>> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Its ports, of several with the same number the first.
    pub(super) fn distinct_ports(&self) -> impl Iterator<Item = &Port<'a>> {
        let mut seen = HashSet::default();
        self.ports.iter().filter(move |port| seen.insert(port.number))
    }

    /// Its short name; a service of Istio's has none but its host.
    pub(super) fn name(&self) -> &Arc<str> {
        match self.source {
            Source::Kubernetes(object) => object.name(),
            Source::Entry(_) => &self.host,
        }
    }

    pub(super) fn namespace(&self) -> &'a Arc<str> {
        &self.metadata().object.namespace
    }

    /// Who its object is.
    pub(super) fn metadata(&self) -> &'a Metadata {
        match self.source {
            Source::Kubernetes(object) => &object.metadata,
            Source::Entry(object) => &object.metadata,
        }
    }

    /// Whether workloads of namespace `viewer` see it.
    pub(super) fn is_seen_in(&self, scope: &Scope<'_>, viewer: &str) -> bool {
        let default = &scope.mesh.default_service_export_to;
        let seen = |export_to: &[String]| sight(export_to, default, self.namespace(), viewer).is_some();
        match self.source {
            Source::Kubernetes(object) => seen(&object.spec.export_to()),
            Source::Entry(object) => seen(&object.spec.export_to),
        }
    }

    /// Which of its endpoints are preferred.
    pub(super) fn traffic_distribution(&self) -> TrafficDistribution {
        match self.source {
            Source::Kubernetes(object) => object.spec.traffic_distribution(),
            Source::Entry(object) => object.spec.traffic_distribution(),
        }
    }

    /// Whether only endpoints on the client's own node are used.
    pub(super) fn is_node_local(&self) -> bool {
        match self.source {
            Source::Kubernetes(object) => {
                object.spec.spec.internal_traffic_policy.as_deref() == Some("Local")
            }
            Source::Entry(_) => false,
        }
    }

    /// Whether nobody there has a sidecar.
    pub(super) fn is_external(&self) -> bool {
        match self.source {
            Source::Kubernetes(_) => false,
            Source::Entry(object) => object.spec.location == ServiceLocation::MeshExternal,
        }
    }
}

/// The port of pods, where the service says it by number, or by a name that this `pod` has, which is asked for then.
fn target_number<'p>(
    told: Option<&TargetPort>,
    pod: impl FnOnce() -> Option<&'p kubernetes::Pod>,
) -> Option<u16> {
    match told? {
        TargetPort::Number(number) => Some(*number).filter(|number| *number > 0),
        TargetPort::Name(name) => pod()?.port_named(name),
    }
}

/// The numbers of the ports of a service, without those of UDP, and the port of `pod`, which it selects, that each leads to.
pub(crate) fn ports_of_pod(service: &kubernetes::ServiceSpec, pod: &kubernetes::Pod) -> Vec<(u16, u16)> {
    let mut ports: Vec<(u16, u16)> = Vec::new();
    for port in service.ports.iter().filter(|port| Protocol::of(port) != Protocol::Udp) {
        let target = target_number(port.target_port.as_ref(), || Some(pod));
        if ports.iter().all(|(number, _)| *number != port.port) {
            ports.push((port.port, target.unwrap_or(port.port)));
        }
    }
    ports
}

/// A service without `clusterIP` is not headless: the API server would have given it an address.
pub(super) fn resolution(spec: &kubernetes::ServiceSpec) -> Resolution {
    match &spec.external_name {
        Some(name) if spec.service_type.as_deref() == Some("ExternalName") && !name.is_empty() => {
            Resolution::Alias((&**name).into())
        }
        _ if spec.cluster_ip.as_deref() == Some("None") => Resolution::Passthrough,
        _ => Resolution::ClientSide,
    }
}

/// The addresses of the families that the proxy has.
fn addresses(spec: &kubernetes::ServiceSpec, proxy_ips: &[IpAddr]) -> Vec<IpAddr> {
    let told = if spec.cluster_ips.is_empty() {
        spec.cluster_ip.iter().filter_map(|ip| ip.parse().ok()).collect()
    } else {
        spec.cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect()
    };
    reachable(told, proxy_ips)
}

/// Of addresses of one service those of the families that the proxy has, in their order. Of a proxy of which nobody knows
/// it, IPv4 where there is such. Where none is of its family, all of them, as istiod tells one that cannot be reached too.
pub(super) fn reachable(told: Vec<IpAddr>, proxy_ips: &[IpAddr]) -> Vec<IpAddr> {
    if has_both_families(proxy_ips) {
        return told;
    }
    let of = |wanted: fn(&IpAddr) -> bool| -> Vec<IpAddr> {
        if !proxy_ips.is_empty() && !proxy_ips.iter().any(wanted) {
            return Vec::new();
        }
        told.iter().copied().filter(wanted).collect()
    };
    for family in [of(IpAddr::is_ipv4), of(IpAddr::is_ipv6)] {
        if !family.is_empty() {
            return family;
        }
    }
    told
}

/// The `ExternalName` services by the host they finally stand for. One that stands for itself, perhaps by way of
/// others, stands for nothing.
fn aliases(scope: &Scope<'_>) -> Aliases {
    let pairs = scope.objects.services.values().filter_map(|service| {
        let Resolution::Alias(target) = resolution(&service.spec.spec) else { return None };
        Some((service_host(service.name(), service.namespace(), &scope.proxy.dns_domain), target))
    });
    let pairs: Vec<(Arc<str>, Arc<str>)> = pairs.collect();
    let next: HashMap<&Arc<str>, &Arc<str>> = pairs.iter().map(|(alias, target)| (alias, target)).collect();
    let mut aliases = Aliases::default();
    for (alias, target) in &pairs {
        let mut target = target;
        let mut seen = HashSet::from_iter([alias]);
        while let Some(further) = next.get(target) {
            if !seen.insert(target) {
                break;
            }
            target = further;
        }
        if !next.contains_key(target) {
            aliases.entry(target.clone()).or_default().push(alias.clone());
        }
    }
    aliases
}
