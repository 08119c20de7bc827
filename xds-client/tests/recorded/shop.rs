//! The shop's YAML, edited as its mesh was while `web-updates` was recorded, and compiled for one of its proxies.

use std::collections::BTreeMap;

use config::Update;
use config::compile::{Mode, Proxy, Request, compile_as};
use config::objects::Objects;
use config::store::Store;
use serde_json::Value;

use crate::shared::Shared;

/// A change of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Requests to catalog go to both subsets alike.
    EvenWeights,
    /// One more endpoint of warehouse.
    Endpoint,
    /// One more service.
    Service,
    /// Another balancer of catalog.
    Balancer,
}

/// A service that comes and goes.
const QUOTES: &str = "
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: quotes, namespace: shop}
spec:
  hosts: [quotes.internal]
  addresses: [10.200.0.9]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 8000, name: http, protocol: HTTP}]
  endpoints: [{address: 10.200.2.1}]
";

impl Edit {
    fn apply(self, istio: &str) -> String {
        let replace = |from: &str, to: &str| {
            assert_eq!(istio.matches(from).count(), 1, "{self:?}: {from}");
            istio.replace(from, to)
        };
        match self {
            Edit::EvenWeights => replace("weight: 90", "weight: 50").replace("weight: 10\n", "weight: 50\n"),
            Edit::Endpoint => {
                let last = "  - {address: 10.200.1.2, ports: {tcp: 15432}}\n";
                replace(last, &format!("{last}  - {{address: 10.200.1.3}}\n"))
            }
            Edit::Service => format!("{}{QUOTES}", istio.trim_end()),
            Edit::Balancer => replace(
                "trafficPolicy:\n    loadBalancer: {simple: LEAST_REQUEST}",
                "trafficPolicy:\n    loadBalancer: {simple: RANDOM}",
            ),
        }
    }
}

/// The shop.
pub(crate) struct Shop {
    objects: Objects,
}

impl Shop {
    /// The shop with those changes.
    pub(crate) fn new(shared: &Shared, edits: &[Edit]) -> Shop {
        let mut store = Store::new();
        let mut read = |file: &str, text: &str| drop(store.read(file, text));
        for file in ["k8s.yaml", "pods.yaml"] {
            read(file, &shared.text(&format!("mesh/shop/{file}")));
        }
        let istio = shared.text("mesh/shop/istio.yaml");
        read("istio.yaml", &edits.iter().fold(istio, |text, edit| edit.apply(&text)));
        store.read_mesh("mesh.yaml", &shared.text("mesh/shop/mesh.yaml"));
        Shop { objects: store.objects() }
    }

    /// What compile makes of it for the proxy of that recording.
    pub(crate) fn compile(&self, shared: &Shared, recording: &str) -> Update {
        let node: Value = serde_json::from_str(&shared.text(&format!("xds/{recording}/node.json"))).unwrap();
        let text = |name: &str| node["metadata"][name].as_str().unwrap_or_default();
        let proxy = Proxy::of_pod(&self.objects, text("NAMESPACE"), text("NAME"), &BTreeMap::new());
        let is_router = node["id"].as_str().unwrap_or_default().starts_with("router~");
        let mode = if is_router { Mode::Gateway } else { Mode::Sidecar };
        let request = Request { mode, ..Request::default() };
        compile_as(&self.objects, &proxy.expect("the pod of the recording"), &request).update
    }
}
