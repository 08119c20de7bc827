//! The Sidecar object of this workload, and what it says of all hosts together.
//!
//! One that selects the workload wins, then one of its namespace without a selector, then one of the root namespace; of
//! several of a kind the oldest. A gateway has none.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::clusters::{PASSTHROUGH, cluster_name};
use super::findings::Findings;
use super::targets::Serving;
use super::workload::WorkloadLabels;
use super::{Mode, Scope};
use crate::finding::{Severity, code};
use crate::istio::{CaptureMode, Sidecar, SidecarOutboundMode};
use crate::mesh::OutboundTrafficPolicy;
use crate::objects::Object;
use crate::origin::Origin;

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

/// What is said of a listener at a port that traffic is redirected to, and what to do.
pub(crate) fn is_where_traffic_comes(port: u32) -> (String, &'static str) {
    let what = format!("traffic is redirected to port {port} of the proxy: there is no such listener");
    (what, "choose another port, or `captureMode: IPTABLES`")
}

/// Finds that the listener at `path` of the Sidecar object is left out, because traffic is redirected to its port.
#[cold]
pub(super) fn find_redirected_to(scope: &Scope<'_>, path: &str, port: u32, findings: &mut Findings) {
    let Some(object) = of_proxy(scope) else { return };
    let (what, remedy) = is_where_traffic_comes(port);
    findings.add(object, path, Severity::Warning, code::CONFLICTING_LISTENER, what, remedy);
}

/// Finds ingress listeners that say where they bind and do not, because traffic is redirected to the proxy; those whose port is
/// the proxy's; and those that would lead back to it.
pub(super) fn find_idle(scope: &Scope<'_>, served: &[Serving<'_>], findings: &mut Findings) {
    let Some(object) = of_proxy(scope) else { return };
    let leads_back: BTreeSet<u32> =
        served.iter().filter(|port| port.leads_back).map(|port| u32::from(port.number)).collect();
    for (index, ingress) in object.spec.ingress.iter().enumerate() {
        let port = ingress.port.number;
        let is_own = u16::try_from(port).is_ok_and(|port| super::is_redirected_to(scope, port));
        if ingress.capture_mode == CaptureMode::None && is_own {
            find_redirected_to(scope, &format!("spec.ingress[{index}].port.number"), port, findings);
            continue;
        }
        let mut find = |field: &str, what: &str, remedy: &str| {
            let (path, severity) = (format!("spec.ingress[{index}].{field}"), Severity::Warning);
            findings.add(object, &path, severity, code::INEFFECTIVE_VALUE, what.to_owned(), remedy);
        };
        let binds = ingress.bind.as_deref().is_some_and(|bind| bind.parse::<IpAddr>().is_ok());
        if binds && ingress.capture_mode != CaptureMode::None && super::is_redirected(scope) {
            let what = "traffic is redirected to the proxy wherever it was going, so nothing binds there";
            find("bind", what, "write `captureMode: NONE`, or remove it");
        }
        if leads_back.contains(&ingress.port.number) {
            let what = "the proxy itself listens there, or has its console, so that nothing would ever get to the workload: the port is closed";
            find("defaultEndpoint", what, "write where the workload listens");
        }
    }
}

/// The cluster that gets traffic for hosts that no service has: where the client wanted to go, or the proxy that the
/// Sidecar object names; `None` when the Sidecar object, or else the mesh, lets none go.
pub(super) fn cluster_of_other_hosts(scope: &Scope<'_>) -> Option<String> {
    let told = of_proxy(scope).and_then(|object| object.spec.outbound_traffic_policy.as_ref());
    let goes_on = match told {
        Some(policy) => policy.mode == SidecarOutboundMode::AllowAny,
        None => scope.mesh.outbound_traffic_policy != Some(OutboundTrafficPolicy::RegistryOnly),
    };
    let proxy = told.and_then(|policy| policy.egress_proxy.as_ref()).map(|proxy| {
        let port = proxy.port.as_ref().map_or(0, |port| port.number);
        cluster_name(proxy.subset.as_deref().unwrap_or_default(), &proxy.host, port)
    });
    goes_on.then(|| proxy.unwrap_or_else(|| PASSTHROUGH.to_owned()))
}

/// The object that says so; the mesh where nobody else does.
pub(super) fn outbound_traffic_policy_origin(scope: &Scope<'_>) -> Origin {
    let object = of_proxy(scope).filter(|object| object.spec.outbound_traffic_policy.is_some());
    object
        .map_or_else(|| scope.objects.mesh_origin(), |object| object.origin_at("spec.outboundTrafficPolicy"))
}
