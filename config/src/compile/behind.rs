//! Which pods are behind the endpoints of slices, which Istio calls `getPod`, and what wrote the others.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::clusters::cluster_name;
use super::egress::Imports;
use super::endpoints::{Endpoints, Member, Wanted};
use super::registry::Registry;
use super::transport::sni;
use super::{Mode, NodeType, Proxy, Scope};
use crate::hashed::{HashMap, HashSet};
use crate::kubernetes::{EndpointSlice, Pod, SliceEndpoint};
use crate::objects::{Object, Objects};
use crate::origin::Origin;
use crate::resource::{Cluster, DiscoveryType, EndpointMetadata};

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

/// What is behind an endpoint of a cluster, and says where it is.
#[derive(Debug, Clone, Default)]
pub struct Behind<'o> {
    /// The pod, if it is one's as its slice or selector says.
    pub pod: Option<&'o Arc<Object<Pod>>>,
    /// What wrote it, if it is known which object that is: the pod, or where a slice or an entry says it.
    pub origin: Option<Origin>,
}

/// What is behind `endpoints` of the cluster of a service, as `proxy` sees it: address and metadata of each. Nothing where it is
/// not known, or could be one of several.
pub fn behind<'o>(
    objects: &'o Objects,
    proxy: &Proxy,
    cluster: &Cluster,
    endpoints: &[(SocketAddr, &EndpointMetadata)],
) -> Vec<Behind<'o>> {
    let nothing = || endpoints.iter().map(|_| Behind::default()).collect();
    let Some(host) = cluster.metadata.services.first().map(|service| &service.host) else { return nothing() };
    let mode = if proxy.node_type == NodeType::Router { Mode::Gateway } else { Mode::Sidecar };
    let scope = Scope::new(objects, proxy, mode, None);
    let registry = Registry::new(&scope, &Imports::new(&scope));
    let Some(service) = registry.service(host) else { return nothing() };
    let own: (&str, &str) = (service.namespace(), service.name());
    let known = Endpoints::new(&scope, &Wanted::These([own].into_iter().collect()));
    let subset = &cluster.metadata.subset;
    let port = service.distinct_ports().find(|port| {
        let number = port.number.into();
        let names =
            [cluster_name(subset, &service.host, number), sni(subset, &service.host, number).to_string()];
        names.iter().any(|name| **name == *cluster.name)
    });
    let Some(port) = port else { return nothing() };
    let members = known.members(service, port, &scope);
    let by_client = cluster.discovery == DiscoveryType::OriginalDst;
    let of_endpoint = |(address, metadata): &(SocketAddr, &EndpointMetadata)| {
        let is_at = |member: &&Member<'_>| match member.name {
            // Which addresses a name has is not known here.
            Some(_) => member.address.port() == address.port() && metadata.workload.is_some(),
            None if by_client => member.address.ip() == address.ip(),
            None => member.address == *address,
        };
        let is_it = |member: &&Member<'_>| {
            let has = member.pod.map_or_else(|| known.unknown_workload(), |pod| pod.workload());
            is_at(member) && metadata.workload.as_ref().is_none_or(|wanted| has == Some(wanted))
        };
        let mut found = members.iter().filter(is_it);
        match (found.next(), found.next()) {
            (Some(member), None) if member.pod.is_none() && member.name.is_none() => {
                Behind { pod: None, origin: slice_of(objects, own, member.address) }
            }
            (Some(member), None) => known.writer(member, objects),
            _ => Behind::default(),
        }
    };
    endpoints.iter().map(of_endpoint).collect()
}

/// Where the only endpoint slice of a service that has an address says so.
fn slice_of(objects: &Objects, service: (&str, &str), address: SocketAddr) -> Option<Origin> {
    let is_its = |slice: &&Arc<Object<EndpointSlice>>| {
        &**slice.namespace() == service.0 && slice.service() == Some(service.1)
    };
    let mut found = objects.endpoint_slices.values().filter(is_its).filter_map(|slice| {
        let index = slice.spec.endpoints.iter().position(|it| it.ip() == Some(address.ip()))?;
        Some(slice.origin_at(&format!("endpoints[{index}]")))
    });
    found.next().filter(|_| found.next().is_none())
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
