//! A wire whose pods have sidecars of one configuration.

use std::path::{Path, PathBuf};

use support::{Answer, Request};

use crate::network::{self, AS_PROXY};

pub(super) use crate::network::Pod;

/// Becomes the user that the rules take for the proxy, with the right to send from addresses of others.
const AS_PROXY_FOR_OTHERS: [&str; 8] = [
    "setpriv",
    "--reuid=1337",
    "--regid=1337",
    "--clear-groups",
    "--inh-caps=+dac_read_search,+net_admin",
    "--ambient-caps=+dac_read_search,+net_admin",
    "--no-new-privs",
    "--",
];

/// Tells the sidecar that connections come with their addresses as they are.
const TRANSPARENT: [&str; 2] = ["env", "ISTIO_META_INTERCEPTION_MODE=TPROXY"];

/// Becomes what the injector makes a sidecar that is to keep the addresses of clients: it is known by its group.
const AS_TRANSPARENT_PROXY: [&str; 5] = ["setpriv", "--reuid=0", "--regid=1337", "--clear-groups", "--"];

/// A mesh on the wire.
pub(super) struct Network {
    wire: network::Network,
    configuration: Vec<PathBuf>,
}

impl Network {
    /// A wire without pods, for sidecars of these configurations. `None` when the test named `test` is skipped.
    pub(super) fn new(test: &'static str, configuration: &[&Path]) -> Option<Network> {
        let configuration = configuration.iter().map(|path| path.to_path_buf()).collect();
        Some(Network { wire: network::Network::new(test)?, configuration })
    }

    /// A pod with these addresses, without rules and without a sidecar.
    pub(super) fn pod(&self, name: &str, addresses: &[&str]) -> Pod {
        self.wire.pod(name, addresses)
    }

    /// A pod whose traffic is captured, and its sidecar, which sends and takes in plain text what asks for TLS.
    pub(super) async fn captured(&self, name: &str, address: &str) -> Pod {
        let mut pod = self.pod(name, &[address]);
        pod.redirect(&[]).await;
        self.sidecar(&mut pod, &["--allow-unenforced-security"]).await;
        pod
    }

    /// Starts the sidecar of a pod, with these arguments.
    pub(super) async fn sidecar(&self, pod: &mut Pod, more: &[&str]) {
        self.start(pod, &AS_PROXY, "sidecar", more).await;
    }

    /// The same by a command that becomes what it is given, such as `env`.
    pub(super) async fn sidecar_by(&self, pod: &mut Pod, command: &[&str], more: &[&str]) {
        self.start(pod, &[command, &AS_PROXY].concat(), "sidecar", more).await;
    }

    /// The same for one that keeps the addresses of clients.
    pub(super) async fn transparent_sidecar(&self, pod: &mut Pod) {
        self.start(pod, &[&TRANSPARENT, &AS_TRANSPARENT_PROXY[..]].concat(), "sidecar", &[]).await;
    }

    /// The same as a user that the rules do not expect in that mode.
    pub(super) async fn mistaken_sidecar(&self, pod: &mut Pod) {
        self.start(pod, &[&TRANSPARENT, &AS_PROXY_FOR_OTHERS[..]].concat(), "sidecar", &[]).await;
    }

    /// Starts the gateway that a pod is.
    pub(super) async fn gateway(&self, pod: &mut Pod, more: &[&str]) {
        self.start(pod, &AS_PROXY, "gateway", more).await;
    }

    async fn start(&self, pod: &mut Pod, command: &[&str], mode: &str, more: &[&str]) {
        let paths = self.configuration.iter().map(|path| path.to_str().expect("a path in text"));
        let mut arguments: Vec<&str> = paths.flat_map(|path| ["--config", path]).collect();
        arguments.extend(more);
        self.wire.start(pod, command, mode, &arguments).await;
    }
}

impl Pod {
    /// Sends a request as an application of the pod.
    pub(super) async fn send(&self, to: &str, request: Request) -> Answer {
        self.try_send(to, request).await.unwrap_or_else(|why| panic!("{} to {to}: {why}", self.name()))
    }

    /// The same, where it may fail.
    pub(super) async fn try_send(&self, to: &str, request: Request) -> Result<Answer, String> {
        let to = to.parse().expect("an address");
        self.run(request.try_send(to)).await
    }
}
