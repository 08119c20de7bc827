//! Endpoints: from endpoint slices, pods and entries to load assignments.
//!
//! Only endpoints that may get requests are declared. Istio also declares those that are not ready, marked
//! unhealthy; Envoy sends them nothing, but counts them when it spills from one priority to the next.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Scope;
use super::behind::{At, Behind, by_address, target};
use super::entries::Entries;
use super::findings::Findings;
use super::locality::{self, Group};
use super::peer_authentication::{self, Modes};
use super::registry::{Port, Service, Source};
use super::workload::{Instance, Instances};
use crate::finding::{Finding, Severity, code};
use crate::hashed::{HashMap, HashSet};
use crate::istio::ClientTlsMode;
use crate::kubernetes::{EndpointSlice, Pod, SliceEndpoint, SlicePort};
use crate::objects::{Key, Object, Objects};
use crate::resource::{
    ClusterLoadAssignment, DnsEndpoint, DnsLocality, Endpoint, EndpointMetadata, Locality, LocalityEndpoints,
    Workload,
};

/// Services whose endpoints are wanted.
pub(super) enum Wanted<'w> {
    /// All of them.
    All,
    /// Of those of Kubernetes these, by namespace and name.
    These(HashSet<(&'w str, &'w str)>),
}

impl Wanted<'_> {
    fn has(&self, key: (&str, &str)) -> bool {
        match self {
            Wanted::All => true,
            Wanted::These(wanted) => wanted.contains(&key),
        }
    }
}

/// The endpoints of services.
pub(super) struct Endpoints<'a> {
    /// By namespace and name of the service; IPv4 before IPv6, then by name.
    slices: HashMap<(&'a str, &'a str), Vec<&'a Object<EndpointSlice>>>,
    instances: Instances<'a>,
    /// Pods that slices mean by their address alone.
    by_address: HashMap<At<'a>, &'a Object<Pod>>,
    entries: Entries<'a>,
    /// Whether a PeerAuthentication turns mutual TLS off for any workload.
    disables: bool,
    /// Metadata of endpoints without a pod.
    unknown: Arc<EndpointMetadata>,
}

/// An endpoint of one port of a service.
#[derive(Clone, Copy)]
pub(super) struct Member<'e> {
    /// Where it listens; the address is of no use where it has a name.
    pub(super) address: SocketAddr,
    /// The name that DNS is asked for.
    pub(super) name: Option<&'e str>,
    pub(super) is_ready: bool,
    pub(super) pod: Option<&'e Instance<'e>>,
    /// The node that its endpoint slice says; empty where nobody says it.
    pub(super) node: &'e str,
}

impl<'e> Member<'e> {
    /// The value of a label of its pod; empty when it has none.
    pub(super) fn label(&self, label: &str) -> &'e str {
        self.pod.and_then(|pod| pod.labels().get(label)).unwrap_or_default()
    }

    /// Whether its pod carries `labels`.
    pub(super) fn carries(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.is_empty() || self.pod.is_some_and(|pod| pod.labels().carries(labels))
    }

    /// Whether it is on that node: where its pod runs, or else where its endpoint slice says.
    fn is_on(&self, node: &str) -> bool {
        self.pod.map_or(self.node, Instance::node) == node
    }

    /// Its share of the requests, against those of the others.
    pub(super) fn weight(&self) -> u32 {
        self.pod.map_or(1, |pod| pod.weight)
    }

    /// Namespace and service account of its workload.
    pub(super) fn account(&self) -> Option<(&'e str, &'e str)> {
        self.pod.and_then(|pod| pod.account)
    }

    /// Whether nothing says that it accepts TLS.
    pub(super) fn is_without_tls(&self) -> bool {
        self.pod.is_none_or(Instance::is_without_tls)
    }
}

/// What decides over the load assignment of one cluster, beside its endpoints.
pub(super) struct Assignment<'s> {
    pub(super) cluster_name: Arc<str>,
    /// Labels of its subset; empty for all endpoints.
    pub(super) subset: &'s BTreeMap<String, String>,
    /// The only node whose endpoints are used; `None` for all. Istio: `NodeLocal`.
    pub(super) node: Option<&'s str>,
    /// TLS mode that a DestinationRule says.
    pub(super) tls_mode: Option<ClientTlsMode>,
    /// How localities share.
    pub(super) locality: Option<locality::Holding<'s>>,
    /// Whether those are left out that are not spoken to with mutual TLS of the mesh.
    pub(super) mutual_alone: bool,
}

impl<'a> Endpoints<'a> {
    /// The endpoints of those services of `scope` that are `wanted`, and of all entries.
    #[inline]
    pub(super) fn new(scope: &Scope<'a>, wanted: &Wanted<'_>) -> Endpoints<'a> {
        let mut slices: HashMap<(&'a str, &'a str), Vec<&'a Object<EndpointSlice>>> = HashMap::default();
        for slice in scope.objects.endpoint_slices.values() {
            let Some(service) = slice.service() else { continue };
            let key: (&'a str, &'a str) = (slice.namespace(), service);
            if wanted.has(key) {
                slices.entry(key).or_default().push(slice);
            }
        }
        for slices in slices.values_mut() {
            slices.sort_by_key(|slice| slice.spec.address_type.as_deref() == Some("IPv6"));
        }
        let by_address = by_address(scope.objects, slices.values().flatten().copied());
        let instances = match wanted {
            Wanted::All => Instances::new(scope),
            Wanted::These(_) => {
                let meant = by_address.values().copied();
                Instances::of_slices(scope, slices.values().flatten().copied(), meant)
            }
        };
        let workload = Workload {
            name: Arc::default(),
            namespace: Arc::default(),
            canonical_name: Arc::default(),
            canonical_revision: Arc::default(),
            cluster_id: scope.proxy.cluster_id.clone(),
        };
        let unknown = Arc::new(EndpointMetadata { tls_mode: None, workload: Some(workload) });
        let disables = peer_authentication::any_disables(scope);
        Endpoints { slices, instances, by_address, entries: Entries::new(scope), disables, unknown }
    }

    /// What there is to say about slices, by their service. One that names a pod which is not there: the endpoint is left
    /// out, as nothing is known of it, not even whether it accepts TLS.
    pub(super) fn findings(&self) -> impl Iterator<Item = (Key, Vec<Finding>)> {
        self.slices.iter().filter_map(|((namespace, service), slices)| {
            let mut findings = Findings::default();
            slices.iter().for_each(|slice| find_missing_pods(slice, &self.instances, &mut findings));
            find_repeated(slices, &mut findings);
            let findings = findings.into_vec();
            (!findings.is_empty()).then(|| (((*namespace).into(), (*service).into()), findings))
        })
    }

    /// All endpoints of `port` of `service`, also those that are not ready.
    #[inline]
    pub(super) fn members(
        &self,
        service: &Service<'a>,
        port: &Port<'_>,
        scope: &Scope<'_>,
    ) -> Vec<Member<'_>> {
        let object = match service.source {
            Source::Kubernetes(object) => object,
            Source::Entry(object) => {
                return self.entries.members(object, service, port, &self.instances, scope);
            }
        };
        let publishes_not_ready = object.spec.spec.publish_not_ready_addresses;
        let key = (&**object.namespace(), &**object.name());
        let mut members = Vec::new();
        let mut addresses = HashSet::default();
        let mut families: HashMap<(&str, &str), bool> = HashMap::default();
        for slice in self.slices.get(&key).into_iter().flatten() {
            let Some(number) = number(&slice.spec.ports, port.name) else { continue };
            for endpoint in &slice.spec.endpoints {
                let Some(ip) = endpoint.ip() else { continue };
                let meant = || self.by_address.get(&(&**slice.namespace(), ip)).map(|pod| name_of(pod));
                let pod = match target(slice, endpoint).or_else(meant) {
                    None => None,
                    Some((namespace, name)) => {
                        let Some(instance) = self.instances.get(namespace, name) else { continue };
                        // A pod with both families is one endpoint.
                        if *families.entry((namespace, name)).or_insert(ip.is_ipv4()) != ip.is_ipv4() {
                            continue;
                        }
                        Some(instance)
                    }
                };
                if is_reachable(ip, &scope.proxy.ips) && addresses.insert(ip) {
                    let is_ready = publishes_not_ready || endpoint.conditions.ready != Some(false);
                    let address = SocketAddr::new(ip, number);
                    let node = endpoint.node_name.as_deref().unwrap_or_default();
                    members.push(Member { address, name: None, is_ready, pod, node });
                }
            }
        }
        members.extend(self.entries.of_kubernetes(object, port, scope));
        members
    }

    /// The workload of endpoints without a pod.
    pub(super) fn unknown_workload(&self) -> Option<&Workload> {
        self.unknown.workload.as_ref()
    }

    /// What is behind a member.
    pub(super) fn writer<'o>(&self, member: &Member<'_>, objects: &'o Objects) -> Behind<'o> {
        let Some(instance) = member.pod else { return Behind::default() };
        match self.instances.key_of(instance).and_then(|key| objects.pods.get(&key)) {
            Some(pod) => Behind { pod: Some(pod), origin: Some(pod.origin()) },
            None => Behind { pod: None, origin: self.entries.origin_of(instance, objects) },
        }
    }

    /// The load assignment of a cluster whose port has `members`.
    pub(super) fn assign(
        &self,
        members: &[Member<'_>],
        assignment: Assignment<'_>,
        scope: &Scope<'_>,
    ) -> ClusterLoadAssignment {
        let groups = self.groups(members, &assignment, scope);
        let localities = groups.into_iter().map(|group| LocalityEndpoints {
            locality: group.locality,
            priority: group.priority,
            weight: group.weight,
            endpoints: group.members.iter().map(|it| self.declare(it, assignment.tls_mode, scope)).collect(),
        });
        ClusterLoadAssignment { localities: localities.collect(), cluster_name: assignment.cluster_name }
    }

    /// The names of a cluster whose port has `members`.
    pub(super) fn names(
        &self,
        members: &[Member<'_>],
        assignment: &Assignment<'_>,
        scope: &Scope<'_>,
    ) -> Vec<DnsLocality> {
        let declare = |member: &Member<'_>| DnsEndpoint {
            host: member.name.map_or_else(|| member.address.ip().to_string().into(), Arc::from),
            port: member.address.port(),
            weight: member.weight(),
            metadata: self.metadata(member, assignment.tls_mode, scope),
        };
        let localities = self.groups(members, assignment, scope).into_iter().map(|group| DnsLocality {
            locality: group.locality,
            priority: group.priority,
            weight: group.weight,
            endpoints: group.members.iter().map(declare).collect(),
        });
        localities.collect()
    }

    fn declare(&self, member: &Member<'_>, tls_mode: Option<ClientTlsMode>, scope: &Scope<'_>) -> Endpoint {
        let metadata = self.metadata(member, tls_mode, scope);
        Endpoint { address: member.address, weight: member.weight(), metadata }
    }

    /// Its metadata.
    fn metadata(
        &self,
        member: &Member<'_>,
        tls_mode: Option<ClientTlsMode>,
        scope: &Scope<'_>,
    ) -> Arc<EndpointMetadata> {
        let metadata = match member.pod {
            None => &self.unknown,
            Some(pod) => pod.metadata(self.is_mutual(member, tls_mode, scope)),
        };
        metadata.clone()
    }

    /// Whether it is spoken to with mutual TLS of the mesh. A rule wins over what the workload accepts: its label, and
    /// policies that turn mutual TLS off.
    fn is_mutual(&self, member: &Member<'_>, tls_mode: Option<ClientTlsMode>, scope: &Scope<'_>) -> bool {
        if let Some(mode) = tls_mode {
            return mode == ClientTlsMode::IstioMutual;
        }
        let Some(pod) = member.pod else { return false };
        let is_off = |(namespace, _)| {
            let modes = Modes::of_workload(scope, namespace, &pod.labels());
            modes.of(member.address.port()).mode == peer_authentication::Mode::Disable
        };
        pod.accepts_mutual_tls() && !(self.disables && pod.account.is_some_and(is_off))
    }

    /// The ready endpoints of a subset, by locality and priority.
    fn groups<'m, 'e: 'm>(
        &self,
        members: &'m [Member<'e>],
        assignment: &Assignment<'_>,
        scope: &Scope<'_>,
    ) -> Vec<Group<'e>> {
        let is_mutual = |member: &Member<'_>| self.is_mutual(member, assignment.tls_mode, scope);
        let groups = by_locality(members.iter().filter(|member| {
            member.is_ready
                && member.carries(assignment.subset)
                && assignment.node.is_none_or(|node| member.is_on(node))
                && (!assignment.mutual_alone || is_mutual(member))
        }));
        match &assignment.locality {
            Some(holding) => locality::apply(groups, scope, holding),
            None => groups,
        }
    }
}

/// The port of that name in a slice.
fn number(ports: &[SlicePort], name: &str) -> Option<u16> {
    let port = ports.iter().find(|port| port.name.as_deref().unwrap_or_default() == name)?;
    port.port.filter(|number| *number > 0)
}

/// Namespace and name of a pod.
fn name_of(pod: &Object<Pod>) -> (&str, &str) {
    (pod.namespace(), pod.name())
}

/// Whether a proxy with these addresses has one of the family of `ip`.
pub(super) fn is_reachable(ip: IpAddr, proxy_ips: &[IpAddr]) -> bool {
    proxy_ips.is_empty() || proxy_ips.iter().any(|own| own.is_ipv4() == ip.is_ipv4())
}

/// Groups of equal locality, ordered as istiod orders them: by `region/zone/subzone` as one string.
fn by_locality<'m, 'e: 'm>(members: impl Iterator<Item = &'m Member<'e>>) -> Vec<Group<'e>> {
    let nowhere = Locality::default();
    let mut by_locality: BTreeMap<&Locality, Vec<Member<'e>>> = BTreeMap::new();
    for member in members {
        let locality = member.pod.map_or(&nowhere, |pod| &pod.locality);
        by_locality.entry(locality).or_default().push(*member);
    }
    let groups = by_locality.into_iter();
    let mut groups: Vec<Group<'e>> =
        groups.map(|(locality, members)| Group::new(locality.clone(), 0, members)).collect();
    groups.sort_by_cached_key(|group| group.locality.to_string());
    groups
}

/// Finds addresses that serve one port of a service by two numbers. Istio keeps the first, as one pod has one address.
fn find_repeated(slices: &[&Object<EndpointSlice>], findings: &mut Findings) {
    let mut known: HashMap<(&str, &str), u16> = HashMap::default();
    for slice in slices {
        for port in &slice.spec.ports {
            let (Some(number), name) = (port.port, port.name.as_deref().unwrap_or_default()) else {
                continue;
            };
            for address in slice.spec.endpoints.iter().filter_map(|endpoint| endpoint.addresses.first()) {
                let first = *known.entry((address, name)).or_insert(number);
                if first != number {
                    let what =
                        format!("{address} serves port `{name}` as {first} already; {number} is not used");
                    let remedy = "Give each pod an address of its own.";
                    findings.add(
                        slice,
                        "endpoints",
                        Severity::Warning,
                        code::REPEATED_ENDPOINT,
                        what,
                        remedy,
                    );
                }
            }
        }
    }
}

/// Finds that `service` keeps to the node of its client, where nobody knows which one that is.
pub(super) fn find_no_node(scope: &Scope<'_>, service: &Service<'_>, findings: &mut Findings) {
    if !service.is_node_local() || !scope.proxy.node().is_empty() {
        return;
    }
    let Source::Kubernetes(object) = service.source else { return };
    let what = "it has no endpoint here: nobody says on which node this proxy runs";
    let remedy = "Say it in the pod that weft stands beside (`spec.nodeName`), or by ISTIO_META_NODE_NAME.";
    let (path, severity) = ("spec.internalTrafficPolicy", Severity::Warning);
    findings.add(object, path, severity, code::INEFFECTIVE_VALUE, what.to_owned(), remedy);
}

fn find_missing_pods(slice: &Object<EndpointSlice>, instances: &Instances<'_>, findings: &mut Findings) {
    let missing = |endpoint: &&SliceEndpoint| {
        target(slice, endpoint).is_some_and(|(namespace, name)| instances.get(namespace, name).is_none())
    };
    let count = slice.spec.endpoints.iter().filter(missing).count();
    let Some((namespace, name)) = slice.spec.endpoints.iter().find(missing).and_then(|e| target(slice, e))
    else {
        return;
    };
    let what = match count {
        1 => format!("Pod {namespace}/{name}, which it names as an endpoint, is not there"),
        _ => format!("{count} pods that it names as endpoints are not there, among them {namespace}/{name}"),
    };
    findings.add(
        slice,
        "endpoints",
        Severity::Warning,
        code::ENDPOINT_WITHOUT_POD,
        what,
        "Add the Pod, or leave out `targetRef`; until then the endpoint is not used.",
    );
}
