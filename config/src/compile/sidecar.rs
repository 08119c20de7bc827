//! The Sidecar object of this workload, and what it says of all hosts together.
//!
//! One that selects the workload wins, then one of its namespace without a selector, then one of the root namespace; of
//! several of a kind the oldest. A gateway has none.

use super::workload::WorkloadLabels;
use super::{Mode, Scope};
use crate::istio::{Sidecar, SidecarOutboundMode};
use crate::mesh::OutboundTrafficPolicy;
use crate::objects::Object;

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
