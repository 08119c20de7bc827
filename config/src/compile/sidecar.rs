//! The Sidecar object of this workload: which services and virtual services it needs to know.
//!
//! One that selects the workload wins, then one of its namespace without a selector, then one of the root namespace; of
//! several of a kind the oldest. A gateway has none.

use std::collections::HashSet;
use std::sync::Arc;

use super::delegates::merged_rules;
use super::host::{complete, covers};
use super::visibility::sight;
use super::workload::WorkloadLabels;
use super::{Mode, Scope};
use crate::istio::{Destination, HttpRoute, Sidecar, SidecarOutboundMode, VirtualService};
use crate::mesh::OutboundTrafficPolicy;
use crate::objects::Object;

/// What the Sidecar object lets through.
#[derive(Default)]
pub(super) struct Imports<'a> {
    /// Namespaces and hosts; `None` when nothing is kept out.
    hosts: Option<Vec<(&'a str, &'a str)>>,
}

/// The Sidecar object for the proxy of `scope`.
pub(super) fn of_proxy<'a>(scope: &Scope<'a>) -> Option<&'a Object<Sidecar>> {
    if scope.mode == Mode::Gateway {
        return None;
    }
    let own = WorkloadLabels::of_proxy(scope);
    let mut objects: Vec<&'a Object<Sidecar>> =
        scope.objects.sidecars.values().map(|object| &**object).collect();
    objects.sort_by_key(|object| super::age(&object.metadata));
    let selector = |object: &Object<Sidecar>| {
        let selector = object.spec.workload_selector.as_ref()?;
        (!selector.labels.is_empty()).then(|| own.carries(&selector.labels))
    };
    let first = |namespace: &str, selects: Option<bool>| {
        objects.iter().copied().find(|it| **it.namespace() == *namespace && selector(it) == selects)
    };
    let namespace = &scope.proxy.namespace;
    first(namespace, Some(true))
        .or_else(|| first(namespace, None))
        .or_else(|| first(scope.root_namespace, None))
}

/// What happens to traffic for hosts that no service has: what the Sidecar object says, or else the mesh.
pub(super) fn outbound_traffic_policy(scope: &Scope<'_>) -> OutboundTrafficPolicy {
    let told = of_proxy(scope).and_then(|object| object.spec.outbound_traffic_policy.as_ref());
    match told.map(|policy| policy.mode) {
        Some(SidecarOutboundMode::RegistryOnly) => OutboundTrafficPolicy::RegistryOnly,
        Some(SidecarOutboundMode::AllowAny) => OutboundTrafficPolicy::AllowAny,
        None => scope.mesh.outbound_traffic_policy.unwrap_or(OutboundTrafficPolicy::AllowAny),
    }
}

impl<'a> Imports<'a> {
    /// What the proxy of `scope` is to know.
    pub(super) fn new(scope: &Scope<'a>) -> Imports<'a> {
        let object = of_proxy(scope).filter(|object| !object.spec.egress.is_empty());
        let hosts = object.map(|object| {
            let hosts = object.spec.egress.iter().flat_map(|egress| &egress.hosts);
            let scoped = hosts.filter_map(|host| host.split_once('/'));
            let own: &'a str = &scope.proxy.namespace;
            scoped.map(|(namespace, host)| (if namespace == "." { own } else { namespace }, host)).collect()
        });
        Imports { hosts }
    }

    /// Whether something is kept out.
    pub(super) fn trim(&self) -> bool {
        self.hosts.is_some()
    }

    /// Whether a service of `namespace` comes in.
    pub(super) fn service(&self, namespace: &str, host: &str) -> bool {
        self.any(namespace, |wanted| covers(wanted, host))
    }

    /// Whether a virtual service for `hosts` comes in: one of them is wanted, or among them is one that is.
    pub(super) fn virtual_service(&self, object: &Object<VirtualService>, scope: &Scope<'_>) -> bool {
        object.spec.hosts.iter().any(|host| {
            let host = complete(host, object.namespace(), &scope.proxy.dns_domain);
            self.any(object.namespace(), |wanted| covers(wanted, &host) || covers(&host, wanted))
        })
    }

    fn any(&self, namespace: &str, is_wanted: impl Fn(&str) -> bool) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        hosts.iter().any(|(of, host)| (*of == "*" || *of == namespace) && is_wanted(host))
    }

    /// Hosts to which virtual services that come in send traffic: these come in as well.
    pub(super) fn destinations(&self, scope: &Scope<'a>) -> HashSet<Arc<str>> {
        let mut hosts = HashSet::new();
        if !self.trim() {
            return hosts;
        }
        let default = &scope.mesh.default_virtual_service_export_to;
        for object in scope.objects.virtual_services.values() {
            let spec = &object.spec;
            let seen = sight(&spec.export_to, default, object.namespace(), &scope.proxy.namespace).is_some();
            if !seen || !self.virtual_service(object, scope) {
                continue;
            }
            let rules = merged_rules(object, scope);
            for rule in &rules {
                let of_rule = http_destinations(&rule.http);
                hosts.extend(of_rule.map(|it| full(it, rule.object.namespace(), scope)));
            }
            let tls = spec.tls.iter().flat_map(|rule| &rule.route);
            let layer4 = tls.chain(spec.tcp.iter().flat_map(|rule| &rule.route));
            hosts.extend(layer4.map(|entry| full(&entry.destination, object.namespace(), scope)));
        }
        hosts
    }
}

fn http_destinations(rule: &HttpRoute) -> impl Iterator<Item = &Destination> {
    let routes = rule.route.iter().map(|entry| &entry.destination);
    routes.chain(&rule.mirror).chain(rule.mirrors.iter().map(|mirror| &mirror.destination))
}

fn full(destination: &Destination, namespace: &str, scope: &Scope<'_>) -> Arc<str> {
    complete(&destination.host, namespace, &scope.proxy.dns_domain).as_ref().into()
}
