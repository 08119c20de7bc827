//! Which services a workload does not see, and what hides them: to explain what cannot be seen in its configuration.

use std::net::{IpAddr, SocketAddr};

use super::egress::{Egress, Imports};
use super::endpoints::{Endpoints, Wanted};
use super::host::{complete, service_host};
use super::protocol::Protocol;
use super::registry::{Registry, Resolution, resolution};
use super::targets::targets;
use super::virtual_hosts::shorter;
use super::virtual_services::MESH;
use super::visibility::sight;
use super::{Mode, Proxy, Scope, service_entries, sidecar};
use crate::hashed::HashSet;
use crate::istio::{ServiceEntry, VirtualService};
use crate::kubernetes::Service;
use crate::objects::{Key, Object, Objects};
use crate::origin::Origin;
use crate::resource::CidrRange;

/// How many ExternalName services are followed of which one stands for the next.
const ALIASES_MAX: usize = 16;

/// Where a Service says to whom it is exported.
const EXPORT_TO: &str = "the annotation networking.istio.io/exportTo";

/// A service that is there, and that a workload does not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// Why, in words.
    pub why: String,
    /// What hides it.
    pub origin: Origin,
}

/// What the workload of a proxy sees.
pub struct View<'a> {
    scope: Scope<'a>,
    imports: Imports<'a>,
}

impl<'a> View<'a> {
    /// What the workload of `proxy`, a sidecar, sees of `objects`.
    pub fn new(objects: &'a Objects, proxy: &'a Proxy) -> View<'a> {
        let scope = Scope::new(objects, proxy, Mode::Sidecar, None);
        let imports = Imports::new(&scope);
        View { scope, imports }
    }

    /// The workload's own port behind `port` of its services, as listeners have it; `None` where they have no such port.
    pub fn target_port(&self, port: u16) -> Option<u16> {
        let Self { scope, imports } = self;
        let registry = Registry::of_workload(scope, imports).unwrap_or_else(|| Registry::new(scope, imports));
        let endpoints = Endpoints::new(scope, &Wanted::All);
        let targets = targets(scope, &registry, &endpoints);
        targets.values().flatten().find(|target| target.port.number == port).map(|target| target.number)
    }

    /// Whether the workload may call the service of the full host `full` by `name`, which is in lower case.
    pub fn calls(&self, full: &str, name: &str) -> bool {
        let proxy = self.scope.proxy;
        if let Some(ending) = full.strip_prefix('*') {
            return !ending.is_empty() && name.ends_with(&ending.to_lowercase());
        }
        let is_shorter = || shorter(full, &proxy.namespace, &proxy.dns_domain).iter().any(|it| **it == *name);
        full.eq_ignore_ascii_case(name) || is_shorter()
    }

    /// What hides the services that the workload calls by `name`, which is in lower case, from its requests to `port`;
    /// `None` where there are none, or it sees one.
    pub fn hides(&self, name: &str, port: u16) -> Option<Hidden> {
        let mut name = name.to_owned();
        for _ in 0..ALIASES_MAX {
            if let Some(hidden) = self.hides_itself(&name, port) {
                return Some(hidden);
            }
            name = self.stands_for(&name)?;
        }
        None
    }

    /// What the ExternalName service is another name of that the workload calls so, whoever sees it.
    fn stands_for(&self, name: &str) -> Option<String> {
        self.scope.objects.services.values().find_map(|service| {
            let Resolution::Alias(target) = resolution(&service.spec.spec) else { return None };
            let host = service_host(service.name(), service.namespace(), &self.scope.proxy.dns_domain);
            self.calls(&host, name).then(|| target.to_lowercase())
        })
    }

    fn hides_itself(&self, name: &str, port: u16) -> Option<Hidden> {
        let routes = self.imports.with_routes_of(port);
        let lets_in =
            |namespace: &str, host: &str| routes.is_some_and(|egress| egress.service(namespace, host));
        let objects = self.scope.objects;
        let services = objects.services.values().filter_map(|service| {
            let host = service_host(service.name(), service.namespace(), &self.scope.proxy.dns_domain);
            let is_alias = matches!(resolution(&service.spec.spec), Resolution::Alias(_));
            let is_it = self.calls(&host, name) && has_port(service, port) && !is_alias;
            is_it.then(|| self.why_not(service, lets_in(service.namespace(), &host), name))
        });
        let entries = objects.service_entries.values().filter_map(|entry| {
            let has_port = entry_has_port(entry, port);
            let host = entry.spec.hosts.iter().find(|host| has_port && self.calls(host, name))?;
            Some(self.why_entry_is_not(entry, lets_in(entry.namespace(), host), name))
        });
        let all: Option<Vec<Hidden>> = services.chain(entries).collect();
        all.and_then(|all| all.into_iter().next())
    }

    /// Whether an object declares what the workload calls by `name`, which is in lower case, or has rules for it, whoever sees
    /// it.
    pub fn is_declared(&self, name: &str) -> bool {
        let (domain, objects) = (&self.scope.proxy.dns_domain, self.scope.objects);
        let mut services = objects.services.values();
        let mut entries = objects.service_entries.values().flat_map(|entry| &entry.spec.hosts);
        let mut rules = objects.virtual_services.values().filter(|it| {
            let gateways = &it.spec.gateways;
            gateways.is_empty() || gateways.iter().any(|gateway| gateway == MESH)
        });
        let has_rules = |it: &Object<VirtualService>| {
            let mut hosts = it.spec.hosts.iter();
            hosts.any(|host| self.calls(&complete(host, it.namespace(), domain), name))
        };
        rules.any(|it| has_rules(it))
            || services.any(|it| self.calls(&service_host(it.name(), it.namespace(), domain), name))
            || entries.any(|host| self.calls(host, name))
    }

    /// The objects of the services of an address that the workload sees; where it sees none, what hides one. What comes to a
    /// listener for all addresses of the port (`is_shared`) sees what has its routes.
    pub fn services_at(&self, address: SocketAddr, is_shared: bool) -> Result<Vec<Origin>, Hidden> {
        let (ip, port) = (address.ip(), address.port());
        let of_port = |egress: &&Egress<'_>| egress.port.is_none_or(|told| told.number == port);
        let asked = if is_shared { 1 } else { usize::MAX };
        let is_let_in = |namespace: &str, host: &str| {
            let mut listeners = self.imports.listeners().iter().filter(of_port).take(asked);
            listeners.any(|egress| egress.service(namespace, host))
        };
        let objects = self.scope.objects;
        let slices = objects.endpoint_slices.values();
        let there = slices.filter(|slice| slice.spec.endpoints.iter().any(|it| it.ip() == Some(ip)));
        // Clients of a service without an address connect to its endpoints.
        let endpoint_of: HashSet<Key> = there.filter_map(|slice| slice.service_key()).collect();
        let is_headless_there = |service: &Object<Service>| {
            resolution(&service.spec.spec) == Resolution::Passthrough && endpoint_of.contains(&service.key())
        };
        let services = objects.services.values().filter_map(|service| {
            let is_it = has_port(service, port) && (has_address(service, ip) || is_headless_there(service));
            is_it.then(|| {
                let (name, namespace) = (service.name(), service.namespace());
                let host = service_host(name, namespace, &self.scope.proxy.dns_domain);
                let hidden = self.why_not(service, is_let_in(namespace, &host), &host);
                hidden.map_or_else(|| Ok(service.origin()), Err)
            })
        });
        let entries = objects.service_entries.values().filter_map(|entry| {
            let is_it = entry_has_port(entry, port) && entry_has_address(entry, ip);
            // One of its hosts is enough.
            let let_in = entry.spec.hosts.iter().find(|host| is_let_in(entry.namespace(), host));
            let host = let_in.or(entry.spec.hosts.first()).filter(|_| is_it)?;
            let hidden = self.why_entry_is_not(entry, let_in.is_some(), host);
            Some(hidden.map_or_else(|| Ok(entry.origin()), Err))
        });
        let (mut seen, mut hidden) = (Vec::new(), None);
        for found in services.chain(entries) {
            match found {
                Ok(origin) => seen.push(origin),
                Err(what) => hidden = hidden.or(Some(what)),
            }
        }
        hidden.filter(|_| seen.is_empty()).map_or(Ok(seen), Err)
    }

    /// What hides the services that TLS for the server `name`, in lower case, comes to wherever it goes.
    pub fn hides_from_tls(&self, name: &str, port: u16) -> Option<Hidden> {
        let egress = self.imports.with_routes_of(port);
        let is_tls = |entry: &Object<ServiceEntry>| {
            entry.spec.addresses.is_empty()
                && service_entries::ports(&entry.spec)
                    .any(|it| it.number == port && it.protocol == Protocol::Tls)
        };
        let entries = self.scope.objects.service_entries.values().filter_map(|entry| {
            let host = entry.spec.hosts.iter().find(|host| is_tls(entry) && self.calls(host, name))?;
            let is_let_in = egress.is_some_and(|egress| egress.service(entry.namespace(), host));
            Some(self.why_entry_is_not(entry, is_let_in, name))
        });
        let all: Option<Vec<Hidden>> = entries.collect();
        all.and_then(|all| all.into_iter().next())
    }

    fn why_not(&self, service: &Object<Service>, is_let_in: bool, name: &str) -> Option<Hidden> {
        let told = (EXPORT_TO, service.origin());
        self.why(service.namespace(), &service.spec.export_to(), told, is_let_in, name)
    }

    fn why_entry_is_not(&self, entry: &Object<ServiceEntry>, is_let_in: bool, name: &str) -> Option<Hidden> {
        let told = ("exportTo", entry.origin_at("spec.exportTo"));
        self.why(entry.namespace(), &entry.spec.export_to, told, is_let_in, name)
    }

    /// Why a service of `namespace` is hidden: by the namespaces it is exported to, which are told there, or by the Sidecar.
    fn why(
        &self,
        namespace: &str,
        export_to: &[String],
        told: (&str, Origin),
        is_let_in: bool,
        name: &str,
    ) -> Option<Hidden> {
        let (mesh, viewer) = (self.scope.mesh, &self.scope.proxy.namespace);
        if sight(export_to, &mesh.default_service_export_to, namespace, viewer).is_none() {
            let by_mesh = || ("defaultServiceExportTo", self.scope.objects.mesh_origin());
            let (by, origin) = if export_to.is_empty() { by_mesh() } else { told };
            let why = format!("{by} hides `{name}` of namespace {namespace} from namespace {viewer}");
            return Some(Hidden { why, origin });
        }
        let sidecar = sidecar::of_proxy(&self.scope).filter(|_| !is_let_in)?;
        let why = format!("the workload's Sidecar does not let it see `{name}` there");
        Some(Hidden { why, origin: sidecar.origin_at("spec.egress") })
    }
}

/// Whether an entry has a port. One of UDP is not served, whoever sees it.
fn entry_has_port(entry: &Object<ServiceEntry>, port: u16) -> bool {
    service_entries::ports(&entry.spec).any(|it| it.number == port)
}

/// Whether a service has a port, as above.
fn has_port(service: &Object<Service>, port: u16) -> bool {
    service.spec.spec.ports.iter().any(|it| it.port == port && Protocol::of(it) != Protocol::Udp)
}

fn entry_has_address(entry: &Object<ServiceEntry>, ip: IpAddr) -> bool {
    let mut ranges = entry.spec.addresses.iter().filter_map(|it| CidrRange::parse(it));
    ranges.any(|range| range.contains(ip))
}

fn has_address(service: &Object<Service>, ip: IpAddr) -> bool {
    let spec = &service.spec.spec;
    spec.cluster_ip.iter().chain(&spec.cluster_ips).any(|it| it.parse() == Ok(ip))
}
