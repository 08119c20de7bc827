//! What DestinationRules and EndpointSlices refer to.

use super::hosts::{Hosts, full_name, key};
use super::targets::dangling_host;
use crate::finding::{Finding, code};
use crate::istio::DestinationRule;
use crate::kubernetes::{EndpointSlice, Service};
use crate::labels::Labels;
use crate::objects::{Object, Objects};
use crate::validate::Check;
use crate::yaml::Limits;

/// Checks the host and the subsets of one DestinationRule.
pub(super) fn check(
    objects: &Objects,
    hosts: &Hosts<'_>,
    object: &Object<DestinationRule>,
    limits: &Limits,
) -> Vec<Finding> {
    let mut check = Check::new(&object.metadata.object, &object.metadata.source, limits);
    let written = &object.spec.host;
    if written.starts_with('*') {
        return Vec::new();
    }
    let host = full_name(written, object.namespace());
    let Some(service) = hosts.service(&host) else {
        dangling_host(&mut check, objects, hosts, ("spec.host", written, &host));
        return check.into_findings();
    };
    let pods: Vec<_> = pods_of(objects, hosts, service).collect();
    for (index, subset) in object.spec.subsets.iter().enumerate() {
        let carries = |labels: &Option<&Labels>| {
            let value_of = |key: &str| labels.and_then(|labels| labels.get(key));
            subset.labels.iter().all(|(key, value)| value_of(key) == Some(value))
        };
        // Of a service without endpoints nothing can be said.
        if !pods.is_empty() && !pods.iter().any(carries) {
            let what = format!(
                "no endpoint of `{host}` carries the labels of subset `{}`; requests that go there are answered 503 UH",
                subset.name
            );
            let remedy = "correct the labels, or add pods that carry them";
            check.warning(code::EMPTY_SUBSET, &format!("spec.subsets[{index}].labels"), what, remedy);
        }
    }
    check.into_findings()
}

/// Labels of the pods behind the endpoints of a service; none for an endpoint without a pod.
fn pods_of<'o>(
    objects: &'o Objects,
    hosts: &Hosts<'o>,
    service: &Object<Service>,
) -> impl Iterator<Item = Option<&'o Labels>> {
    let slices = hosts.slices(service).to_vec();
    slices.into_iter().flat_map(move |slice| {
        slice.spec.endpoints.iter().map(move |endpoint| {
            let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
            let name = pod.and_then(|pod| pod.name.as_deref()).unwrap_or_default();
            objects.pods.get(&key(slice, name)).map(|pod| &pod.metadata.labels)
        })
    })
}

/// Checks that the service of an EndpointSlice exists.
pub(super) fn check_slice(
    objects: &Objects,
    object: &Object<EndpointSlice>,
    limits: &Limits,
) -> Vec<Finding> {
    let mut check = Check::new(&object.metadata.object, &object.metadata.source, limits);
    if let Some(service) = object.service()
        && !objects.services.contains_key(&key(object, service))
    {
        let what = format!("the service `{service}` of these endpoints does not exist in this namespace");
        let remedy = "add the Service, or correct the label `kubernetes.io/service-name`";
        check.warning(code::DANGLING_SERVICE, "metadata.labels", what, remedy);
    }
    check.into_findings()
}
