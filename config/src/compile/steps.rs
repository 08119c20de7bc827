//! The steps of a compile in their order: of all there is, or of what changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::changes::{Changes, clusters_of};
use super::clusters::Clusters;
use super::compiler::{Last, Since};
use super::destination_rules::DestinationRules;
use super::egress::Imports;
use super::endpoints::{Endpoints, Wanted};
use super::findings::Findings;
use super::listeners::{Listeners, Tables};
use super::noted::Noted;
use super::registry::{Registry, Resolution, Service, resolution};
use super::targets::{Serving, Target, serving, targets};
use super::virtual_hosts::OfServices;
use super::virtual_services::VirtualServices;
use super::{
    Compiled, Mode, Proxy, Request, Scope, closed, gateway, guards, inbound, inbound_clusters, managers,
    name_table, outbound, peer_authentication, sidecar, tcp,
};
use crate::finding::Finding;
use crate::hashed::{HashMap, HashSet};
use crate::objects::Objects;
use crate::resource::{Listener, NameTable, RouteConfiguration, Secret, Update};

/// Compiles what `last` has not already, or everything. What comes with it is for the next compile; `None` when that must
/// take nothing over.
pub(super) fn compile_after(
    objects: &Objects,
    proxy: &Proxy,
    request: &Request,
    last: Option<Last>,
) -> (Compiled, Option<Last>) {
    let scope = || Scope::of(objects, proxy, request);
    let changed = last.and_then(|last| {
        let scope = scope();
        let changes = Changes::between(&last.objects, &scope).ok()?;
        let compile = if changes.listeners { changed } else { only_endpoints };
        compile(&scope, request, last, &changes)
    });
    changed.unwrap_or_else(|| anew(&scope(), request))
}

/// Everything.
fn anew(scope: &Scope<'_>, request: &Request) -> (Compiled, Option<Last>) {
    let imports = Imports::new(scope);
    let registry = Registry::new(scope, &imports);
    let rules = DestinationRules::new(scope);
    let endpoints = Endpoints::new(scope, &Wanted::All);
    let seen =
        Seen { scope, request, imports: &imports, registry: &registry, rules: &rules, endpoints: &endpoints };
    let of_workload = Registry::of_workload(scope, &imports);
    let targets = seen.targets(of_workload.as_ref().unwrap_or(&registry));
    let served = serving(scope, &targets);
    let mut made = Making { clusters: Clusters::new(scope), ..Making::default() };
    made.services(scope, registry.services(), (&rules, &endpoints));
    made.clusters.add_common(scope);
    if scope.mode == Mode::Sidecar {
        inbound_clusters::add(&mut made.clusters, scope, &rules, &served);
    }
    let listening = seen.listen(&made.clusters, &targets, &served, &HashMap::default());
    let names = name_table::name_table(scope, &registry, &endpoints);
    let is_kept = !imports.trim() && !scope.endpoints.are_too_many();
    let (mut compiled, last) = made.finish(scope, request, Some(listening), None);
    compiled.names = names;
    (compiled, is_kept.then_some(last))
}

/// Listeners and routes, and clusters and endpoints of the services that `changes` are about.
fn changed(
    scope: &Scope<'_>,
    request: &Request,
    last: Last,
    changes: &Changes,
) -> Option<(Compiled, Option<Last>)> {
    let imports = Imports::new(scope);
    let registry = Registry::new(scope, &imports);
    let rules = DestinationRules::new(scope);
    let hosts = changes.hosts(scope, registry.services().iter().map(|service| &service.host)).ok()?;
    let endpoints = Endpoints::new(scope, &Wanted::These(wanted(scope, changes, &registry, &hosts)));
    let seen =
        Seen { scope, request, imports: &imports, registry: &registry, rules: &rules, endpoints: &endpoints };
    let of_workload = Registry::of_workload(scope, &imports);
    let targets = seen.targets(of_workload.as_ref().unwrap_or(&registry));
    let served = serving(scope, &targets);
    let (mut made, mut of_services) = Making::after(scope, last, changes, &hosts);
    let again = registry.services().iter().filter(|service| hosts.contains(&service.host));
    made.services(scope, again, (&rules, &endpoints));
    if scope.endpoints.are_too_many() {
        return None;
    }
    if scope.mode == Mode::Sidecar {
        inbound_clusters::add(&mut made.clusters, scope, &rules, &served);
    }
    let removed = made.remove(&hosts, scope.mode == Mode::Sidecar);
    of_services.values_mut().for_each(|of_port| of_port.retain(|host, _| !hosts.contains(host)));
    let listening = seen.listen(&made.clusters, &targets, &served, &of_services);
    let names = changes.names.then(|| name_table::name_table(scope, &registry, &endpoints));
    let since = Since { removed, same_listeners: false, same_names: names.is_none() };
    let (mut compiled, last) = made.finish(scope, request, Some(listening), Some(since));
    compiled.names = names.unwrap_or_default();
    Some((compiled, Some(last)))
}

/// Clusters and endpoints of the services that `changes` are about, and nothing else.
fn only_endpoints(
    scope: &Scope<'_>,
    request: &Request,
    last: Last,
    changes: &Changes,
) -> Option<(Compiled, Option<Last>)> {
    let mut hosts = changes.hosts(scope, std::iter::empty()).ok()?;
    let registry = Registry::of_keys(scope, &changes.keys);
    // Where Kubernetes has no service that the proxy sees, the host may be that of an entry, which is as it was.
    hosts.retain(|host| registry.service(host).is_some());
    let rules = DestinationRules::of_hosts(scope, Some(&hosts));
    let endpoints = Endpoints::new(scope, &Wanted::These(keys(changes).collect()));
    let secrets = changes.ruled.then(|| last.noted.secrets());
    let (mut made, of_services) = Making::after(scope, last, changes, &hosts);
    made.services(scope, registry.services(), (&rules, &endpoints));
    // Secrets are told with listeners.
    let same_secrets = secrets.is_none_or(|secrets| secrets == made.noted.secrets());
    if scope.endpoints.are_too_many() || !same_secrets {
        return None;
    }
    let removed = if changes.ruled { made.remove(&hosts, false) } else { Vec::new() };
    let since = Since { removed, same_listeners: true, same_names: true };
    let (compiled, last) = made.finish(scope, request, None, Some(since));
    Some((compiled, Some(Last { of_services, ..last })))
}

/// Services of Kubernetes that `changes` are about, by namespace and name.
fn keys(changes: &Changes) -> impl Iterator<Item = (&str, &str)> {
    changes.keys.iter().map(|(namespace, name)| (&**namespace, &**name))
}

/// The services of Kubernetes whose endpoints listeners and names depend on, and those of `hosts` and `changes`.
fn wanted<'w>(
    scope: &Scope<'w>,
    changes: &'w Changes,
    registry: &Registry<'w>,
    hosts: &HashSet<Arc<str>>,
) -> HashSet<(&'w str, &'w str)> {
    let of_hosts = registry.services().iter().filter(|service| hosts.contains(&service.host));
    let of_hosts = of_hosts.map(|service| &service.metadata().object);
    let objects = scope.objects.services.values().filter(|service| {
        let is_own = scope.mode != Mode::Explicit && *service.namespace() == scope.proxy.namespace;
        is_own || resolution(&service.spec.spec) == Resolution::Passthrough
    });
    let objects = objects.map(|service| &service.metadata.object);
    let of_objects = objects.chain(of_hosts).map(|object| (&*object.namespace, &*object.name));
    keys(changes).chain(of_objects).collect()
}

/// Clusters and endpoints on their way.
#[derive(Default)]
struct Making {
    clusters: Clusters,
    noted: Noted,
    findings: Findings,
    /// What there was to say about listeners and routes.
    of_listeners: Vec<Finding>,
}

impl Making {
    /// What `last` leaves of the services that are not of `hosts`, and its virtual hosts.
    fn after(
        scope: &Scope<'_>,
        last: Last,
        changes: &Changes,
        hosts: &HashSet<Arc<str>>,
    ) -> (Making, HashMap<u16, OfServices>) {
        let Last { names, mut noted, findings, of_services, .. } = last;
        noted.forget(&changes.keys, hosts);
        scope.endpoints.add(noted.products());
        let clusters = Clusters::named(names);
        (Making { clusters, noted, findings: Findings::default(), of_listeners: findings }, of_services)
    }

    /// Makes clusters and endpoints of `services`.
    fn services<'s, 'a: 's>(
        &mut self,
        scope: &Scope<'_>,
        services: impl IntoIterator<Item = &'s Service<'a>>,
        (rules, endpoints): (&DestinationRules<'_>, &Endpoints<'_>),
    ) {
        self.noted.slices(endpoints);
        for service in services {
            self.clusters.add_service(
                scope,
                service,
                (rules, endpoints),
                &mut self.noted,
                &mut self.findings,
            );
        }
    }

    /// Takes out the clusters of `hosts` that were not made again, and says which those are.
    fn remove(&mut self, hosts: &HashSet<Arc<str>>, inbound: bool) -> Vec<Arc<str>> {
        let made: HashSet<&Arc<str>> = self.clusters.clusters.iter().map(|cluster| &cluster.name).collect();
        let before = clusters_of(self.clusters.names(), hosts, inbound);
        let mut removed: Vec<Arc<str>> = before.filter(|name| !made.contains(name)).cloned().collect();
        removed.sort();
        self.clusters.forget(&removed);
        removed
    }

    /// All of it, and what it leaves to the next compile. Without `listening`, that is as it was.
    fn finish(
        self,
        scope: &Scope<'_>,
        request: &Request,
        listening: Option<Listening>,
        since: Option<Since>,
    ) -> (Compiled, Last) {
        let Making { clusters, noted, mut findings, of_listeners } = self;
        closed::find(scope, &mut findings);
        noted.tell(&mut findings);
        let is_told = listening.is_some();
        let Listening { listeners, routes, mut secrets, findings: found, of_services } =
            listening.unwrap_or_else(|| Listening { findings: of_listeners, ..Listening::default() });
        found.iter().for_each(|finding| findings.add_finding(finding.clone()));
        if is_told {
            secrets.extend(noted.secrets());
        }
        let (clusters, endpoints, names) = clusters.into_sorted();
        let secrets = secrets.into_values().collect();
        let update = Update { listeners, routes, clusters, endpoints, secrets };
        let (objects, proxy, request) = (scope.objects.clone(), scope.proxy.clone(), request.clone());
        let last = Last { objects, proxy, request, names, noted, findings: found, of_services };
        let compiled = Compiled { update, findings: findings.into_vec(), names: NameTable::default(), since };
        (compiled, last)
    }
}

/// Listeners, and what comes with them.
#[derive(Default)]
struct Listening {
    listeners: Vec<Listener>,
    routes: Vec<RouteConfiguration>,
    secrets: BTreeMap<Arc<str>, Secret>,
    findings: Vec<Finding>,
    of_services: HashMap<u16, OfServices>,
}

/// What listeners are made from.
struct Seen<'s> {
    scope: &'s Scope<'s>,
    request: &'s Request,
    imports: &'s Imports<'s>,
    registry: &'s Registry<'s>,
    rules: &'s DestinationRules<'s>,
    endpoints: &'s Endpoints<'s>,
}

impl<'s> Seen<'s> {
    /// What the workload serves, which does not depend on what it may reach.
    fn targets(&self, registry: &'s Registry<'s>) -> BTreeMap<u16, Vec<Target<'s>>> {
        match self.scope.mode {
            Mode::Explicit => BTreeMap::new(),
            Mode::Sidecar | Mode::Gateway => targets(self.scope, registry, self.endpoints),
        }
    }

    /// The listeners and their routes; virtual hosts of services are taken over from those of `before`.
    fn listen(
        &self,
        clusters: &Clusters,
        targets: &BTreeMap<u16, Vec<Target<'_>>>,
        served: &[Serving<'_>],
        before: &HashMap<u16, OfServices>,
    ) -> Listening {
        let Seen { scope, request, imports, registry, rules, endpoints } = *self;
        let mut findings = Findings::default();
        let virtual_services = VirtualServices::new(scope, registry, imports);
        let common = managers::Common::new(scope, &mut findings);
        let maker = Listeners {
            scope,
            registry,
            clusters,
            virtual_services: &virtual_services,
            imports,
            common: &common,
            before,
        };
        let mut tables = Tables::default();
        let mut listeners = maker.make(&request.listeners, &mut tables, &mut findings);
        let virtual_services = &virtual_services;
        let tcp = tcp::Tcp { scope, registry, clusters, rules, virtual_services, common: &common };
        match request.mode {
            Mode::Explicit => {}
            Mode::Sidecar => {
                let outbound = outbound::Outbound { scope, listeners: &maker, endpoints, tcp: &tcp };
                listeners.extend(outbound.make(&mut tables, &mut findings));
                sidecar::find_idle(scope, served, &mut findings);
                listeners.extend(self.inbound(clusters, &common, served, &mut findings));
            }
            Mode::Gateway => {
                let gateways = gateway::Gateways { tcp: &tcp, targets, identity: request.identity };
                let guard = guards::find(scope, request.allow_unenforced_security, &mut findings);
                let made = gateways.make(&mut tables, &mut findings).into_iter();
                listeners.extend(made.map(|listener| guards::close(listener, guard.as_ref())));
            }
        }
        let of_services = tables.by_port.into_iter().map(|(port, made)| (port, made.of_services));
        Listening {
            listeners,
            routes: tables.configurations.into_values().collect(),
            secrets: tables.secrets,
            findings: findings.into_vec(),
            of_services: of_services.collect(),
        }
    }

    fn inbound(
        &self,
        clusters: &Clusters,
        common: &managers::Common,
        served: &[Serving<'_>],
        findings: &mut Findings,
    ) -> Vec<Listener> {
        let Seen { scope, request, .. } = *self;
        let modes = peer_authentication::Modes::new(scope);
        if !request.identity {
            modes.find_without_identity(findings);
        }
        let inbound = inbound::Inbound {
            scope,
            clusters,
            common,
            modes: &modes,
            guard: guards::find(scope, request.allow_unenforced_security, findings),
            allow_plain_text: request.allow_unenforced_security && !request.identity,
            tls: inbound::MutualTls::new(scope),
        };
        inbound.make(served)
    }
}
