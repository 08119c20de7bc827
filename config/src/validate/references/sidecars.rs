//! Listeners of Sidecar objects with sockets of their own at a port that traffic is redirected to: proxies leave them out.

use std::collections::BTreeMap;

use crate::compile::{INTERCEPTION_MODE, ROOT_NAMESPACE, effective_proxy_config, is_where_traffic_comes};
use crate::finding::{Finding, code};
use crate::istio::{CaptureMode, Sidecar};
use crate::labels::LabelSet;
use crate::mesh::InterceptionMode;
use crate::objects::{Object, Objects};
use crate::validate::Check;
use crate::yaml::Limits;

/// Warns of those that some workload's proxy leaves out.
pub(super) fn check(objects: &Objects, limits: &Limits) -> Vec<Finding> {
    let ports = [objects.mesh.inbound_port(), objects.mesh.outbound_port()].map(u32::from);
    let mut found = Vec::new();
    for object in objects.sidecars.values() {
        let has_socket = |mode: CaptureMode, port: u32| mode == CaptureMode::None && ports.contains(&port);
        let egress = object.spec.egress.iter().enumerate().filter_map(|(index, egress)| {
            let port = egress.port.as_ref()?.number;
            has_socket(egress.capture_mode, port).then(|| (format!("spec.egress[{index}]"), port))
        });
        let ingress = object.spec.ingress.iter().enumerate().filter_map(|(index, ingress)| {
            let port = ingress.port.number;
            has_socket(ingress.capture_mode, port)
                .then(|| (format!("spec.ingress[{index}].port.number"), port))
        });
        let listeners: Vec<(String, u32)> = egress.chain(ingress).collect();
        if listeners.is_empty() || !is_redirected(objects, object) {
            continue;
        }
        let mut check = Check::new(&object.metadata.object, &object.metadata.source, limits);
        for (path, port) in listeners {
            let (what, remedy) = is_where_traffic_comes(port);
            check.warning(code::CONFLICTING_LISTENER, &path, what, remedy);
        }
        found.extend(check.into_findings());
    }
    found
}

/// Whether traffic is redirected to the proxy of some workload that the object may be for. Where no pod is known, one with the
/// labels that it asks for would be.
fn is_redirected(objects: &Objects, object: &Object<Sidecar>) -> bool {
    let namespace = object.namespace();
    let selector = object.spec.workload_selector.as_ref().map(|it| &it.labels).filter(|it| !it.is_empty());
    let root = objects.mesh.root_namespace.as_deref().unwrap_or(ROOT_NAMESPACE);
    let is_for_all = selector.is_none() && **namespace == *root;
    let of_workload = |namespace: &str, labels: &BTreeMap<String, String>, pod: &str| {
        let effective = effective_proxy_config(objects, namespace, labels, pod, &[]);
        effective.metadata.get(INTERCEPTION_MODE).is_none_or(|mode| mode != InterceptionMode::None.name())
    };
    let mut pods = objects.pods.values().filter(|pod| {
        let carries = |(label, value): (&String, &String)| pod.metadata.labels.value(label) == Some(value);
        (is_for_all || pod.namespace() == namespace)
            && selector.is_none_or(|selector| selector.iter().all(carries))
    });
    let Some(first) = pods.next() else {
        return of_workload(namespace, selector.unwrap_or(&BTreeMap::new()), "");
    };
    std::iter::once(first)
        .chain(pods)
        .any(|pod| of_workload(pod.namespace(), &pod.metadata.labels.to_map(), pod.name()))
}
