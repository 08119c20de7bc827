//! Which pods are behind the endpoints of slices. Istio: `getPod`.

use std::net::IpAddr;
use std::sync::Arc;

use crate::hashed::{HashMap, HashSet};
use crate::istio::WorkloadEntry;
use crate::kubernetes::{EndpointSlice, Pod, SliceEndpoint};
use crate::labels::LabelSet;
use crate::objects::{Object, Objects};
use crate::origin::Origin;
use crate::resource::ServiceRef;

/// A namespace, and an address of one of its pods.
pub(crate) type At<'o> = (&'o str, IpAddr);

/// Namespace and name of the pod that `endpoint` of `slice` says is behind it.
pub(crate) fn target<'s>(
    slice: &'s Object<EndpointSlice>,
    endpoint: &'s SliceEndpoint,
) -> Option<(&'s str, &'s str)> {
    let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"))?;
    Some((target.namespace.as_deref().unwrap_or(slice.namespace()), target.name.as_deref()?))
}

/// Where the pod behind `endpoint` is, which names none: in the namespace of its slice.
pub(crate) fn place<'s>(slice: &'s Object<EndpointSlice>, endpoint: &SliceEndpoint) -> Option<At<'s>> {
    // Most name one, and their addresses are not parsed here.
    if target(slice, endpoint).is_some() {
        return None;
    }
    Some((slice.namespace(), endpoint.ip()?))
}

/// The pods whose addresses are those of endpoints of `slices` that name none. Of those that share an address, as they do on
/// the network of their node, nobody knows which it is; the first by name counts.
pub(crate) fn by_address<'o>(
    objects: &'o Objects,
    slices: impl Iterator<Item = &'o Object<EndpointSlice>>,
) -> HashMap<At<'o>, &'o Object<Pod>> {
    let of_slice =
        |slice: &'o Object<EndpointSlice>| slice.spec.endpoints.iter().filter_map(|it| place(slice, it));
    let places: HashSet<At<'o>> = slices.flat_map(of_slice).collect();
    let mut found: HashMap<At<'o>, &'o Object<Pod>> = HashMap::default();
    if places.is_empty() {
        return found;
    }
    // The address of one that ran to its end is given to others.
    for pod in objects.pods.values().filter(|pod| !pod.spec.status.is_over) {
        for place in addresses(pod).filter(|place| places.contains(place)) {
            found.entry(place).or_insert(pod);
        }
    }
    found
}

/// The pod that slices of `service` say is behind their endpoint at `ip`.
pub fn pod_behind<'o>(
    objects: &'o Objects,
    service: &ServiceRef,
    ip: IpAddr,
) -> Option<&'o Arc<Object<Pod>>> {
    let is_of = |slice: &&Arc<Object<EndpointSlice>>| {
        *slice.namespace() == service.namespace && slice.service() == Some(&service.name)
    };
    let mut slices = objects.endpoint_slices.values().filter(is_of);
    slices.find_map(|slice| {
        let mut there = slice.spec.endpoints.iter().filter(|endpoint| endpoint.ip() == Some(ip));
        let (namespace, name) = there.find_map(|endpoint| target(slice, endpoint))?;
        objects.pods.get(&(namespace.into(), name.into()))
    })
}

/// What wrote the endpoint of `service` at `ip`, where no slice did: the ServiceEntry of it, or a WorkloadEntry that is selected.
pub fn entry_behind(objects: &Objects, service: &ServiceRef, ip: IpAddr) -> Option<Origin> {
    let is_there = |entry: &WorkloadEntry| entry.address.parse() == Ok(ip);
    let key = (service.namespace.clone(), service.name.clone());
    let of_kubernetes = objects.services.get(&key).map(|it| &it.spec.spec.selector);
    let mut entries = objects.service_entries.values().filter(|entry| {
        let mut hosts = entry.spec.hosts.iter();
        *entry.namespace() == service.namespace && hosts.any(|host| host.eq_ignore_ascii_case(&service.host))
    });
    let mut workloads = objects
        .workload_entries
        .values()
        .filter(|it| *it.namespace() == service.namespace && is_there(&it.spec) && !it.spec.is_sick);
    let selected = of_kubernetes.filter(|it| !it.is_empty()).and_then(|selector| {
        workloads.clone().find(|it| selector.iter().all(|(label, value)| it.value(label) == Some(value)))
    });
    if let Some(workload) = selected {
        return Some(workload.origin());
    }
    entries.find_map(|entry| {
        if let Some(index) = entry.spec.endpoints.iter().position(is_there) {
            return Some(entry.origin_at(&format!("spec.endpoints[{index}]")));
        }
        let selector = &entry.spec.workload_selector.as_ref()?.labels;
        let is_selected = |it: &&Arc<Object<WorkloadEntry>>| {
            !selector.is_empty() && selector.iter().all(|(label, value)| it.value(label) == Some(value))
        };
        workloads.find(is_selected).map(|it| it.origin())
    })
}

fn addresses(pod: &Object<Pod>) -> impl Iterator<Item = At<'_>> {
    pod.spec.status.ips().map(|ip| (&**pod.namespace(), ip))
}

/// Pods, by name and by address.
pub(crate) struct Pods<'o> {
    names: HashSet<(&'o str, &'o str)>,
    places: HashSet<At<'o>>,
}

impl<'o> Pods<'o> {
    /// These; of one that changed both states count.
    pub(crate) fn of(pods: impl Iterator<Item = &'o Object<Pod>>) -> Pods<'o> {
        let mut known = Pods { names: HashSet::default(), places: HashSet::default() };
        for pod in pods {
            known.names.insert((pod.namespace(), pod.name()));
            known.places.extend(addresses(pod));
        }
        known
    }

    /// Namespaces and names.
    pub(crate) fn names(&self) -> &HashSet<(&'o str, &'o str)> {
        &self.names
    }

    /// Whether some are behind endpoints of `slice`.
    pub(crate) fn are_behind(&self, slice: &Object<EndpointSlice>) -> bool {
        let mut endpoints = slice.spec.endpoints.iter();
        endpoints.any(|endpoint| match target(slice, endpoint) {
            Some(name) => self.names.contains(&name),
            None => place(slice, endpoint).is_some_and(|place| self.places.contains(&place)),
        })
    }
}
