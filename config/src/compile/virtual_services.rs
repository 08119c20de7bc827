//! Which virtual services speak for sidecars and are seen by this proxy, with their delegates taken in.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::Scope;
use super::delegates::merged_rules;
use super::egress::Imports;
use super::host::{HostIndex, HostMap, complete, is_wildcard};
use super::registry::Registry;
use super::visibility::sight;
use crate::hashed::HashMap;
use crate::istio::{HttpRoute, VirtualService};
use crate::objects::Object;
use crate::origin::Origin;
use crate::resource::Delegation;

/// The gateway name that means sidecars.
pub(super) const MESH: &str = "mesh";

/// The virtual services for this proxy, those first that win a host which several claim: its own namespace's, then
/// those exported to it by name, then public ones; the oldest first in each.
pub(super) struct VirtualServices<'a> {
    in_order: Vec<MeshVirtualService<'a>>,
    /// The services that the virtual service at a place in that order speaks for because none names them more
    /// exactly. Empty when no virtual service has a wildcard.
    spoken_for: HashMap<usize, Vec<Arc<str>>>,
    /// Their places by each of their hosts.
    places: OnceCell<HostMap<Vec<usize>>>,
}

/// A virtual service for sidecars.
pub(super) struct MeshVirtualService<'a> {
    pub(super) object: &'a Object<VirtualService>,
    /// Complete hosts and wildcards, lower case.
    pub(super) hosts: Vec<Arc<str>>,
    pub(super) rules: Vec<Rule<'a>>,
    index: OnceCell<HostIndex>,
}

/// One HTTP rule, perhaps a delegate's.
pub(super) struct Rule<'a> {
    pub(super) http: Cow<'a, HttpRoute>,
    /// The object it is written in.
    pub(super) object: &'a Object<VirtualService>,
    index: usize,
    origin: OnceCell<Origin>,
    /// The rule that delegates to it, if one does.
    pub(super) delegation: Option<Box<Delegation>>,
}

impl MeshVirtualService<'_> {
    /// Its hosts by their endings.
    pub(super) fn host_index(&self) -> &HostIndex {
        self.index.get_or_init(|| HostIndex::new(&self.hosts))
    }

    fn has_wildcards(&self) -> bool {
        self.hosts.iter().any(|host| is_wildcard(host))
    }
}

impl<'a> Rule<'a> {
    /// Rule `index` of `object`, as it is written or as a delegate's became.
    pub(super) fn new(
        http: Cow<'a, HttpRoute>,
        object: &'a Object<VirtualService>,
        index: usize,
    ) -> Rule<'a> {
        Rule { http, object, index, origin: OnceCell::new(), delegation: None }
    }

    /// Its path in its object.
    pub(super) fn path(&self) -> String {
        format!("spec.http[{}]", self.index)
    }

    /// Where it is written.
    pub(super) fn origin(&self) -> &Origin {
        self.origin.get_or_init(|| self.object.origin_at(&self.path()))
    }
}

impl<'a> VirtualServices<'a> {
    /// The virtual services of `scope` that its proxy sees.
    /// `imports` lets in some of them.
    pub(super) fn new(
        scope: &Scope<'a>,
        registry: &Registry<'_>,
        imports: &Imports<'a>,
    ) -> VirtualServices<'a> {
        VirtualServices::bound(scope, registry, |object| {
            is_for_sidecars(&object.spec) && imports.virtual_service(object, scope)
        })
    }

    /// Those of `scope` that are bound to the Gateway of that `namespace/name`.
    pub(super) fn of_gateway(
        scope: &Scope<'a>,
        registry: &Registry<'_>,
        gateway: &str,
    ) -> VirtualServices<'a> {
        VirtualServices::bound(scope, registry, |object| {
            object.spec.gateways.iter().any(|it| *gateway_name(it, object.namespace()) == *gateway)
        })
    }

    fn bound(
        scope: &Scope<'a>,
        registry: &Registry<'_>,
        is_bound: impl Fn(&Object<VirtualService>) -> bool,
    ) -> VirtualServices<'a> {
        let mut seen: Vec<_> = scope
            .objects
            .virtual_services
            .values()
            .map(|object| &**object)
            .filter(|object| !object.spec.hosts.is_empty() && is_bound(object))
            .filter_map(|object| Some((sight_of(object, scope)?, object)))
            .collect();
        seen.sort_by_key(|(sight, object)| (*sight, super::age(&object.metadata)));
        let in_order = seen.into_iter().map(|(_, object)| {
            let hosts = object.spec.hosts.iter().filter(|host| !host.is_empty()).map(|host| {
                complete(host, object.namespace(), &scope.proxy.dns_domain).to_lowercase().into()
            });
            MeshVirtualService {
                object,
                hosts: hosts.collect(),
                rules: merged_rules(object, scope),
                index: OnceCell::new(),
            }
        });
        let in_order: Vec<MeshVirtualService<'a>> = in_order.collect();
        VirtualServices { spoken_for: spoken_for(&in_order, registry), in_order, places: OnceCell::new() }
    }

    /// All of them, with their places in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &MeshVirtualService<'a>)> {
        self.in_order.iter().enumerate()
    }

    /// Those with a host that is `host`, or a wildcard for it, in their order.
    pub(super) fn naming(&self, host: &str) -> impl Iterator<Item = &MeshVirtualService<'a>> {
        let places = self.places.get_or_init(|| places(&self.in_order));
        let found: BTreeSet<usize> = places.matching(host).flatten().copied().collect();
        found.into_iter().filter_map(|place| self.in_order.get(place))
    }

    /// The services that the virtual service at `place` speaks for by one of its wildcards: those that no other one
    /// names more exactly.
    pub(super) fn by_wildcard(&self, place: usize) -> &[Arc<str>] {
        self.spoken_for.get(&place).map_or(&[], Vec::as_slice)
    }
}

/// Their places by each of their hosts, in their order.
fn places(services: &[MeshVirtualService<'_>]) -> HostMap<Vec<usize>> {
    let mut places = HostMap::default();
    for (place, service) in services.iter().enumerate() {
        for host in &service.hosts {
            places.entry(host, Vec::new).push(place);
        }
    }
    places
}

fn spoken_for(services: &[MeshVirtualService<'_>], registry: &Registry<'_>) -> HashMap<usize, Vec<Arc<str>>> {
    let mut spoken_for: HashMap<usize, Vec<Arc<str>>> = HashMap::default();
    if !services.iter().any(MeshVirtualService::has_wildcards) {
        return spoken_for;
    }
    let mut owners: HostMap<usize> = HostMap::default();
    for (place, service) in services.iter().enumerate() {
        for host in &service.hosts {
            owners.entry(host, || place);
        }
    }
    for service in registry.services() {
        if let Some(owner) = owners.most_specific(&service.host) {
            spoken_for.entry(*owner).or_default().push(service.host.clone());
        }
    }
    spoken_for
}

/// The `namespace/name` of a Gateway as a virtual service of `namespace` writes it: `name`, `namespace/name`, or the old
/// `name.namespace.svc.cluster.local`.
pub(crate) fn gateway_name<'g>(written: &'g str, namespace: &str) -> Cow<'g, str> {
    if written == MESH || written.contains('/') {
        return Cow::Borrowed(written);
    }
    let mut parts = written.split('.');
    match (parts.next(), parts.next()) {
        (Some(name), Some(namespace)) => Cow::Owned(format!("{namespace}/{name}")),
        _ => Cow::Owned(format!("{namespace}/{written}")),
    }
}

fn is_for_sidecars(spec: &VirtualService) -> bool {
    spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == MESH)
}

fn sight_of(object: &Object<VirtualService>, scope: &Scope<'_>) -> Option<super::visibility::Sight> {
    let default = &scope.mesh.default_virtual_service_export_to;
    sight(&object.spec.export_to, default, object.namespace(), &scope.proxy.namespace)
}
