//! Kubernetes objects, only the fields that weft reads; all others are ignored, as every client of Kubernetes does. A mesh
//! has tens of thousands that never change, so lists and texts have no room to grow.

mod secret;

use std::net::IpAddr;

use serde::de::{IgnoredAny, Unexpected};
use serde::{Deserialize, Deserializer};

use crate::labels::Labels;
use crate::mesh::InterceptionMode;
pub use secret::{Secret, SecretData, Sensitive};

/// `v1` Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// What others want to know of it.
    pub metadata: ServiceMetadata,
    /// What is wanted.
    pub spec: ServiceSpec,
}

/// What the metadata of a [`Service`] say besides what all objects' do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceMetadata {
    /// Its annotations.
    pub annotations: Option<ServiceAnnotations>,
}

/// The annotations of a [`Service`] that Istio's control plane reads, as far as weft does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceAnnotations {
    /// Who sees it: namespaces, `.` for its own, `*` for all, `~` for nobody, separated by commas.
    #[serde(rename = "networking.istio.io/exportTo")]
    pub export_to: Option<Box<str>>,
    /// Which of its endpoints are preferred, where the field does not say it.
    #[serde(rename = "networking.istio.io/traffic-distribution")]
    pub traffic_distribution: Option<Box<str>>,
}

/// The annotation of services and of ServiceEntry objects that says which endpoints are preferred.
pub const TRAFFIC_DISTRIBUTION_ANNOTATION: &str = "networking.istio.io/traffic-distribution";

/// Which endpoints of a service are preferred. Kubernetes: `trafficDistribution`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrafficDistribution {
    /// None.
    #[default]
    Any,
    /// Those of the client's network, then region, then zone (`PreferClose`, `PreferSameZone`).
    SameZone,
    /// Also those of its sub-zone, then node (`PreferSameNode`).
    SameNode,
}

impl TrafficDistribution {
    /// What the field says by this word; `None` for one that there is not.
    pub fn of_field(word: &str) -> Option<TrafficDistribution> {
        match word {
            "PreferClose" | "PreferSameZone" => Some(TrafficDistribution::SameZone),
            "PreferSameNode" => Some(TrafficDistribution::SameNode),
            _ => None,
        }
    }

    /// The same of the annotation, in which case does not matter.
    pub fn of_annotation(word: &str) -> Option<TrafficDistribution> {
        let words = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        words
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(word))
            .and_then(TrafficDistribution::of_field)
    }
}

impl Service {
    /// Which endpoints are preferred: what the field says, or else the annotation.
    pub fn traffic_distribution(&self) -> TrafficDistribution {
        let field = self.spec.traffic_distribution.as_deref().and_then(TrafficDistribution::of_field);
        let annotation = self.metadata.annotations.as_ref().and_then(|it| it.traffic_distribution.as_deref());
        field.or_else(|| annotation.and_then(TrafficDistribution::of_annotation)).unwrap_or_default()
    }

    /// The entries of its annotation `networking.istio.io/exportTo`; none when it does not have it.
    pub fn export_to(&self) -> Vec<String> {
        let annotation = self.metadata.annotations.as_ref().and_then(|it| it.export_to.as_deref());
        let told = annotation.filter(|told| !told.is_empty());
        told.into_iter().flat_map(|told| told.split(',')).map(|entry| entry.trim().to_owned()).collect()
    }
}

/// What is wanted of a [`Service`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// Its virtual address; `None` (the word) makes it headless.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<Box<str>>,
    /// Its virtual addresses, one per family.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Box<[Box<str>]>,
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub service_type: Option<Box<str>>,
    /// What an `ExternalName` service stands for.
    pub external_name: Option<Box<str>>,
    /// Its ports.
    pub ports: Box<[ServicePort]>,
    /// Labels of its pods.
    pub selector: Labels,
    /// Whether endpoints that are not ready are used too.
    pub publish_not_ready_addresses: bool,
    /// `Cluster` or `Local`: the latter keeps to endpoints on the client's node.
    pub internal_traffic_policy: Option<Box<str>>,
    /// Which endpoints are preferred; see [`TrafficDistribution`].
    pub traffic_distribution: Option<Box<str>>,
}

/// One port of a [`Service`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Its name; Istio reads the protocol from its prefix.
    pub name: Option<Box<str>>,
    /// 1 to 65535.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`; TCP when not given.
    pub protocol: Option<Box<str>>,
    /// Protocol of the application; it wins over the name.
    pub app_protocol: Option<Box<str>>,
    /// Port of the pods; `port` when not given.
    pub target_port: Option<TargetPort>,
}

/// A port of pods. Kubernetes: `IntOrString`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name that a container gives it.
    Name(Box<str>),
}

impl<'de> Deserialize<'de> for TargetPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IntOrString;
        impl serde::de::Visitor<'_> for IntOrString {
            type Value = TargetPort;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a port from 1 to 65535 or the name of a container's port")
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<TargetPort, E> {
                let port = u16::try_from(number);
                port.map(TargetPort::Number)
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
            }
            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<TargetPort, E> {
                Ok(TargetPort::Name(name.into()))
            }
        }
        deserializer.deserialize_any(IntOrString)
    }
}

/// `discovery.k8s.io/v1` EndpointSlice. Its label `kubernetes.io/service-name` tells the service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: Option<Box<str>>,
    /// The endpoints.
    pub endpoints: Box<[SliceEndpoint]>,
    /// Ports that all of them serve.
    pub ports: Box<[SlicePort]>,
}

/// One endpoint of an [`EndpointSlice`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceEndpoint {
    /// Its addresses; the first counts.
    pub addresses: Box<[Box<str>]>,
    /// How it is.
    pub conditions: EndpointConditions,
    /// The pod behind it.
    pub target_ref: Option<TargetRef>,
    /// The node it is on.
    pub node_name: Option<Box<str>>,
}

impl SliceEndpoint {
    /// The address that counts, where it is that of a host.
    #[inline]
    pub fn ip(&self) -> Option<IpAddr> {
        self.addresses.first()?.parse().ok()
    }
}

/// How an endpoint is; `None` counts as ready, not serving apart from that, not terminating.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointConditions {
    /// It may get new requests.
    pub ready: Option<bool>,
    /// It answers, though it may be terminating.
    pub serving: Option<bool>,
    /// It is going away.
    pub terminating: Option<bool>,
}

/// The object behind an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetRef {
    /// `Pod`.
    pub kind: Option<Box<str>>,
    /// Its name.
    pub name: Option<Box<str>>,
    /// Its namespace; the slice's when not given.
    pub namespace: Option<Box<str>>,
}

/// One port of an [`EndpointSlice`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SlicePort {
    /// Name of the service's port.
    pub name: Option<Box<str>>,
    /// Port of the endpoints.
    pub port: Option<u16>,
    /// `TCP`, `UDP` or `SCTP`; TCP when not given.
    pub protocol: Option<Box<str>>,
}

/// `v1` Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// What others want to know of it.
    pub metadata: PodMetadata,
    /// What is wanted.
    pub spec: PodSpec,
    /// How it is.
    pub status: PodStatus,
    /// Its annotations that matter to a proxy; `None` when it has none of them, as most.
    #[serde(skip)]
    pub annotations: Option<Box<PodAnnotations>>,
}

/// What the metadata of a [`Pod`] say besides what all objects' do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodMetadata {
    /// Whether it is going away: `deletionTimestamp` is there.
    #[serde(rename = "deletionTimestamp", deserialize_with = "is_told")]
    pub is_deleted: bool,
}

fn is_told<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<IgnoredAny>::deserialize(deserializer)?.is_some())
}

/// Annotation of a pod: the ports that go through its proxy.
pub(crate) const INCLUDE_INBOUND_PORTS_ANNOTATION: &str = "traffic.sidecar.istio.io/includeInboundPorts";
/// Annotation of a pod: the ports that do not.
pub(crate) const EXCLUDE_INBOUND_PORTS_ANNOTATION: &str = "traffic.sidecar.istio.io/excludeInboundPorts";

/// The annotations of a [`Pod`] that matter to a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodAnnotations {
    /// `proxy.istio.io/config`: settings of its proxy, as YAML.
    pub proxy_config: Option<Box<str>>,
    /// `sidecar.istio.io/interceptionMode`: how its traffic comes to its proxy.
    pub interception_mode: Option<Box<str>>,
    /// `traffic.sidecar.istio.io/includeInboundPorts`: the ports that go through its proxy, `*` for all.
    pub include_inbound_ports: Option<Box<str>>,
    /// `traffic.sidecar.istio.io/excludeInboundPorts`: those that do not.
    pub exclude_inbound_ports: Option<Box<str>>,
}

impl PodAnnotations {
    /// Whether what comes to `port` goes through the pod's proxy.
    pub fn is_captured(&self, port: u16) -> bool {
        let has = |list: &str| list.split(',').any(|entry| entry.trim().parse() == Ok(port));
        let is_all = |list: &str| list.trim() == "*";
        let is_included = self.include_inbound_ports.as_deref().is_none_or(|list| is_all(list) || has(list));
        let is_excluded = self.exclude_inbound_ports.as_deref().is_some_and(has);
        let is_redirected = self.interception_mode.as_deref() != Some(InterceptionMode::None.name());
        is_included && !is_excluded && is_redirected
    }
}

impl Pod {
    /// Its annotation `proxy.istio.io/config`.
    pub fn proxy_config(&self) -> Option<&str> {
        self.annotations.as_ref().and_then(|annotations| annotations.proxy_config.as_deref())
    }

    /// Whether it may get requests. Of one that is written without conditions nobody says that it may not.
    pub fn is_ready(&self) -> bool {
        !self.metadata.is_deleted && !self.status.is_over && !self.status.is_unready
    }

    /// Whether it differs from `other` in nothing but whether it is ready; one that ran to its end is another.
    pub(crate) fn is_as(&self, other: &Pod) -> bool {
        self.spec == other.spec
            && self.annotations == other.annotations
            && self.status.pod_ip == other.status.pod_ip
            && self.status.pod_ips == other.status.pod_ips
            && self.status.is_over == other.status.is_over
    }

    /// The port that a container calls by this name; of several the first, as Kubernetes takes them.
    pub fn port_named(&self, name: &str) -> Option<u16> {
        let ports = self.spec.containers.iter().flat_map(|container| &container.ports);
        let mut named =
            ports.filter(|port| port.protocol == PortProtocol::Tcp && port.name.as_deref() == Some(name));
        named.find(|port| port.container_port > 0).map(|port| port.container_port)
    }

    /// Its annotation `sidecar.istio.io/interceptionMode`.
    pub fn interception_mode(&self) -> Option<&str> {
        self.annotations.as_ref().and_then(|annotations| annotations.interception_mode.as_deref())
    }
}

/// What is wanted of a [`Pod`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Its service account; `default` when not given.
    pub service_account_name: Option<Box<str>>,
    /// Node it runs on.
    pub node_name: Option<Box<str>>,
    /// Its name within its subdomain.
    pub hostname: Option<Box<str>>,
    /// Name of the headless service that its host name belongs to.
    pub subdomain: Option<Box<str>>,
    /// What runs in it.
    pub containers: Box<[Container]>,
}

/// A container of a [`Pod`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Ports it says it serves.
    pub ports: Box<[ContainerPort]>,
}

/// A port of a [`Container`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Its name.
    pub name: Option<Box<str>>,
    /// Its number.
    pub container_port: u16,
    /// What it speaks; TCP when not given.
    pub protocol: PortProtocol,
}

/// What a port of a [`Container`] speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum PortProtocol {
    /// TCP.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// Anything else.
    #[serde(other)]
    Other,
}

/// How a [`Pod`] is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Its address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<IpAddr>,
    /// Its addresses, one per family.
    #[serde(rename = "podIPs")]
    pub pod_ips: Box<[PodIp]>,
    /// Whether it ran to its end: `phase` is `Succeeded` or `Failed`.
    #[serde(rename = "phase", deserialize_with = "is_over")]
    pub is_over: bool,
    /// Whether there are conditions, and none says that it is `Ready`.
    #[serde(rename = "conditions", deserialize_with = "is_unready")]
    pub is_unready: bool,
}

impl PodStatus {
    /// All its addresses; the first may come twice.
    #[inline]
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.pod_ip.into_iter().chain(self.pod_ips.iter().map(|it| it.ip))
    }
}

fn is_over<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let phase = Option::<String>::deserialize(deserializer)?;
    Ok(matches!(phase.as_deref(), Some("Succeeded" | "Failed")))
}

fn is_unready<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let conditions = Option::<Vec<Condition>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(!conditions.is_empty() && !conditions.iter().any(|it| it.kind == "Ready" && it.status == "True"))
}

/// How a [`Pod`] is in one respect; only what is made of it is kept.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// One address of a [`Pod`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PodIp {
    /// The address.
    pub ip: IpAddr,
}

/// `v1` Node and `v1` Namespace: only their labels count, which are in the metadata.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct LabelsOnly {}
