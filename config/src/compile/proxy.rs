//! Which workload a proxy stands beside: what the injector and the Istio agent tell istiod of a pod.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Mode;
use super::texts::Texts;
use super::workload::{first_label, label_locality, node_locality, workload, workload_of};
use crate::mesh::GatewayTopology;
use crate::objects::Objects;
use crate::resource::{Locality, Workload};

/// Domain of cluster-local names, unless somebody says another.
const DNS_DOMAIN: &str = "cluster.local";

/// ID of a mesh's only cluster.
const CLUSTER_ID: &str = "Kubernetes";

/// Trust domain of a mesh that names none.
const TRUST_DOMAIN: &str = "cluster.local";

/// What a proxy is in the mesh: the first part of the ID of its node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NodeType {
    /// It stands beside a workload.
    #[default]
    Sidecar,
    /// It is a gateway.
    Router,
}

impl NodeType {
    /// Istio's name of it.
    pub fn name(self) -> &'static str {
        match self {
            NodeType::Sidecar => "sidecar",
            NodeType::Router => "router",
        }
    }
}

impl From<Mode> for NodeType {
    fn from(mode: Mode) -> NodeType {
        match mode {
            Mode::Explicit | Mode::Sidecar => NodeType::Sidecar,
            Mode::Gateway => NodeType::Router,
        }
    }
}

/// The workload this proxy stands beside: what istiod learns from a node's identity and metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// What it is in the mesh.
    pub node_type: NodeType,
    /// Name of the pod or workload; may be empty.
    pub name: Arc<str>,
    /// Its namespace: what short host names are completed with, and what visibility is judged by.
    pub namespace: Arc<str>,
    /// Its labels: what selectors and `sourceLabels` are compared with.
    pub labels: BTreeMap<String, String>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Where it runs: what localities of endpoints are compared with.
    pub locality: Locality,
    /// Domain of cluster-local names; `cluster.local`.
    pub dns_domain: Arc<str>,
    /// ID of its cluster; `Kubernetes`.
    pub cluster_id: Arc<str>,
    /// Trust domain of its identity; `cluster.local`.
    pub trust_domain: Arc<str>,
    /// Node metadata, such as `HTTP10`.
    pub metadata: BTreeMap<String, String>,
    /// Who stands before it, if it is a gateway.
    pub gateway_topology: GatewayTopology,
}

impl Default for Proxy {
    /// Nobody in particular: no name, no labels, no addresses.
    fn default() -> Proxy {
        Proxy {
            node_type: NodeType::default(),
            name: "".into(),
            namespace: "default".into(),
            labels: BTreeMap::new(),
            service_account: "default".into(),
            ips: Vec::new(),
            locality: Locality::default(),
            dns_domain: DNS_DOMAIN.into(),
            cluster_id: CLUSTER_ID.into(),
            trust_domain: TRUST_DOMAIN.into(),
            metadata: BTreeMap::new(),
            gateway_topology: GatewayTopology::default(),
        }
    }
}

impl Proxy {
    /// The node that its pod runs on; empty where nobody says it.
    pub(super) fn node(&self) -> &str {
        self.metadata.get("NODE_NAME").map_or("", String::as_str)
    }

    /// The proxy beside a pod; `None` when there is no such pod. `metadata` wins over what the pod tells.
    pub fn of_pod(
        objects: &Objects,
        namespace: &str,
        name: &str,
        metadata: &BTreeMap<String, String>,
    ) -> Option<Proxy> {
        let pod = objects.pods.get(&(namespace.into(), name.into()))?;
        let workload = workload(&pod.metadata, CLUSTER_ID, &Texts::default());
        let told =
            [("WORKLOAD_NAME", Some(&*workload.name)), ("NODE_NAME", pod.spec.spec.node_name.as_deref())];
        let told = told.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
        let status = &pod.spec.status;
        let addresses = if status.pod_ips.is_empty() {
            status.pod_ip.into_iter().collect()
        } else {
            status.pod_ips.iter().map(|address| address.ip).collect()
        };
        let mut proxy = Proxy {
            name: pod.name().clone(),
            namespace: pod.namespace().clone(),
            labels: pod.metadata.labels.to_map(),
            service_account: pod.spec.spec.service_account_name.as_deref().unwrap_or("default").into(),
            ips: addresses,
            metadata: told.chain(metadata.clone()).collect(),
            ..Proxy::default()
        };
        proxy.locate(objects);
        Some(proxy)
    }

    /// Finds out where it runs: what its label says, or else its node. And in which cluster: what its metadata says.
    pub fn locate(&mut self, objects: &Objects) {
        let node = self.node();
        let node = objects.nodes.get(&("".into(), node.into())).map(|node| node_locality(node));
        self.locality = label_locality(&self.labels).or(node).unwrap_or_default();
        if let Some(cluster) = self.metadata.get("CLUSTER_ID").filter(|cluster| !cluster.is_empty()) {
            self.cluster_id = cluster.as_str().into();
        }
    }

    /// Its identity in the mesh, as certificates say it (SPIFFE).
    pub fn principal(&self) -> String {
        let Proxy { trust_domain, namespace, service_account, .. } = self;
        format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
    }

    /// The ID of its node, as the Istio agent makes it.
    pub fn node_id(&self) -> String {
        let ip = self.ips.first().map(ToString::to_string).unwrap_or_default();
        let Proxy { name, namespace, dns_domain, .. } = self;
        let node_type = self.node_type.name();
        format!("{node_type}~{ip}~{name}.{namespace}~{namespace}.svc.{dns_domain}")
    }

    /// The workload as metrics name it; what is not known is empty.
    pub fn workload(&self) -> Workload {
        let name = self.metadata.get("WORKLOAD_NAME").map_or(&*self.name, String::as_str);
        workload_of(name.into(), &self.labels, self.namespace.clone(), &self.cluster_id, &Texts::default())
    }

    /// The value of one of its labels.
    pub fn label(&self, key: &str) -> Option<&str> {
        first_label(&self.labels, &[key])
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::mesh;
    use super::*;

    const MESH: &str = "\
apiVersion: v1
kind: Node
metadata: {name: n, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z}}
---
apiVersion: v1
kind: Pod
metadata:
  name: web-7d9c-x
  namespace: shop
  generateName: web-7d9c-
  labels: {app: web, version: v2, pod-template-hash: 7d9c}
  ownerReferences: [{kind: ReplicaSet, name: web-7d9c, controller: true}]
spec: {serviceAccountName: web, nodeName: n}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}
";

    #[test]
    fn of_a_pod() {
        let mut objects = Objects::default();
        mesh::load(&mut objects, "mesh.yaml", MESH);
        let metadata = BTreeMap::from([("HTTP10".to_owned(), "1".to_owned())]);
        let proxy = Proxy::of_pod(&objects, "shop", "web-7d9c-x", &metadata).unwrap();
        assert_eq!(&*proxy.service_account, "web");
        assert_eq!(proxy.ips.len(), 2);
        assert_eq!(proxy.locality.to_string(), "r/z/");
        assert_eq!(proxy.metadata["HTTP10"], "1");
        assert_eq!(proxy.metadata["NODE_NAME"], "n");
        let workload = proxy.workload();
        assert_eq!(
            (&*workload.name, &*workload.canonical_name, &*workload.canonical_revision),
            ("web", "web", "v2")
        );
        assert_eq!(proxy.principal(), "spiffe://cluster.local/ns/shop/sa/web");
        assert!(Proxy::of_pod(&objects, "shop", "other", &metadata).is_none());
    }

    #[test]
    fn ids_of_nodes() {
        let check = |mode: Mode, expected: &str| {
            let proxy = Proxy {
                node_type: mode.into(),
                name: "web-1".into(),
                namespace: "shop".into(),
                ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
                ..Proxy::default()
            };
            assert_eq!(proxy.node_id(), expected);
        };
        check(Mode::Explicit, "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local");
        check(Mode::Sidecar, "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local");
        check(Mode::Gateway, "router~10.0.0.1~web-1.shop~shop.svc.cluster.local");
    }

    #[test]
    fn where_it_runs() {
        let mut objects = Objects::default();
        mesh::load(&mut objects, "mesh.yaml", MESH);
        let check = |label: &str, node: &str, expected: &str| {
            let pairs = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
            let labels = pairs("istio-locality", label);
            let mut proxy = Proxy { labels, metadata: pairs("NODE_NAME", node), ..Proxy::default() };
            proxy.locate(&objects);
            assert_eq!(proxy.locality.to_string(), expected, "{label} {node}");
        };
        check("", "n", "r/z/");
        check("a.b.c", "n", "a/b/c");
        check("", "other", Locality::default().to_string().as_str());
    }

    #[test]
    fn of_nobody() {
        let workload = Proxy::default().workload();
        assert_eq!((&*workload.name, &*workload.canonical_name, &*workload.namespace), ("", "", "default"));
    }
}
