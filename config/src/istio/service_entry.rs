//! ServiceEntry and WorkloadEntry: services and workloads that Kubernetes does not know.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::kubernetes::TrafficDistribution;

/// `networking.istio.io` ServiceEntry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceEntry {
    /// Its hosts; each is a service of its own.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Its virtual addresses, or ranges of them.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Its ports.
    #[serde(default)]
    pub ports: Vec<ServicePortEntry>,
    /// Whether it is a part of the mesh.
    #[serde(default)]
    pub location: ServiceLocation,
    /// How its endpoints are found.
    #[serde(default)]
    pub resolution: ServiceResolution,
    /// Its endpoints.
    #[serde(default)]
    pub endpoints: Vec<WorkloadEntry>,
    /// The workload entries and pods of its namespace that are its endpoints.
    pub workload_selector: Option<LabelSelector>,
    /// Who sees it.
    #[serde(default)]
    pub export_to: Vec<String>,
    /// Names that its certificates may carry.
    #[serde(default)]
    pub subject_alt_names: Vec<String>,
    /// Which endpoints are preferred: its annotation `networking.istio.io/traffic-distribution`, as it is written.
    #[serde(skip)]
    pub traffic_distribution: Option<Box<str>>,
}

impl ServiceEntry {
    /// Which endpoints are preferred.
    pub fn traffic_distribution(&self) -> TrafficDistribution {
        let told = self.traffic_distribution.as_deref();
        told.and_then(TrafficDistribution::of_annotation).unwrap_or_default()
    }
}

/// A port of a [`ServiceEntry`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePortEntry {
    /// 1 to 65535.
    pub number: u32,
    /// What it speaks; detected when not given.
    pub protocol: Option<String>,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Port of the endpoints; `number` when not given.
    pub target_port: Option<u32>,
}

/// Whether a service is a part of the mesh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceLocation {
    /// It is not: nobody there has a sidecar.
    #[default]
    MeshExternal,
    /// It is.
    MeshInternal,
}

/// How the endpoints of a service are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceResolution {
    /// The client knows: connections go where it wanted to go.
    #[default]
    None,
    /// They are written.
    Static,
    /// DNS tells: every address is an endpoint.
    Dns,
    /// DNS tells: a new connection goes to the first address.
    DnsRoundRobin,
    /// DNS tells for the host of each request, of a wildcard host.
    DynamicDns,
}

/// Labels of workloads, as networking objects write them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// All of these.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// `networking.istio.io` WorkloadEntry; also an endpoint of a [`ServiceEntry`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadEntry {
    /// IP address, host name for DNS, or path of a Unix domain socket.
    #[serde(default)]
    pub address: String,
    /// Ports by name of the service's port, where they are others than the service says.
    #[serde(default)]
    pub ports: BTreeMap<String, u32>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The network it is in.
    pub network: Option<String>,
    /// Where it is: `region/zone/subzone`.
    pub locality: Option<String>,
    /// Its share; 1 when not given.
    pub weight: Option<u32>,
    /// Its service account; one that has one has a sidecar.
    pub service_account: Option<String>,
    /// Whether its health is checked, as its annotation `proxy.istio.io/health-checks-enabled` says, and its status does not
    /// say that it is healthy.
    #[serde(skip)]
    pub is_sick: bool,
}
