//! A wire whose pods have sidecars that a kubelet asks.

use std::net::SocketAddr;
use std::path::Path;

use support::Request;

use crate::network::AS_PROXY;

pub(super) use crate::network::{Network, Pod};

/// The port where a kubelet asks.
const HEALTH_PORT: u16 = 15021;

impl Network {
    /// A pod of this name whose traffic is captured, with a sidecar of this configuration.
    pub(super) async fn captured(&self, name: &str, address: &str, mesh: &Path, more: &[&str]) -> Pod {
        let mut pod = self.pod(name, &[address]);
        pod.redirect(&[]).await;
        let (mesh, health) = (mesh.to_str().expect("a path in text"), HEALTH_PORT.to_string());
        let arguments = [&["--config", mesh, "--health-port", &health], more].concat();
        self.start(&mut pod, &AS_PROXY, "sidecar", &arguments).await;
        pod
    }

    /// A pod without a sidecar, of which nobody speaks.
    pub(super) fn stranger(&self, address: &str) -> Pod {
        self.pod("stranger", &[address])
    }
}

impl Pod {
    /// Whether a pod at this address is ready, as one that asks from this pod sees it.
    pub(super) async fn sees_ready(&self, address: &str) -> bool {
        let to = SocketAddr::new(address.parse().expect("an address"), HEALTH_PORT);
        let answer = self.run(Request::get("/healthz/ready").try_send(to)).await;
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// What its sidecar has said on stderr.
    pub(super) fn log(&self) -> String {
        self.sidecar().log()
    }
}
