//! Pods on one wire: each has a network of its own, the rules that `weft redirect apply` makes, and the binary as its
//! sidecar.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use support::{Namespace, Request, Weft, binary, metrics};
use tokio::runtime::Runtime;

use crate::redirect::{bare_namespace, redirect, run};

/// Becomes the user that the rules take for the proxy. It may read what only root may, as the sources may be in a place
/// like that.
const AS_PROXY: [&str; 8] = [
    "setpriv",
    "--reuid=1337",
    "--regid=1337",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
    "--no-new-privs",
    "--",
];

/// The port where a kubelet asks.
const HEALTH_PORT: u16 = 15021;

/// A wire without pods.
pub(super) struct Network {
    test: &'static str,
    bridge: Namespace,
    weft: PathBuf,
    pods: AtomicU32,
}

impl Network {
    /// `None` when the test named `test` is skipped.
    pub(super) fn new(test: &'static str) -> Option<Network> {
        let bridge = bare_namespace(test)?;
        ip("link add bridge0 type bridge", &bridge);
        ip("link set bridge0 up", &bridge);
        Some(Network { test, bridge, weft: binary::weft(), pods: AtomicU32::new(0) })
    }

    /// A pod without rules and without a sidecar. To it every address is on the wire; those that no pod has do not answer.
    pub(super) fn pod(&self, address: &str) -> Pod {
        let namespace = Namespace::new(self.test).expect("there was one before");
        let wire = format!("pod{}", self.pods.fetch_add(1, Ordering::Relaxed));
        let bridge = self.bridge.name();
        ip(&format!("link add eth0 type veth peer name {wire} netns {bridge}"), &namespace);
        ip(&format!("link set {wire} master bridge0 up"), &self.bridge);
        ip(&format!("address add {address}/32 dev eth0"), &namespace);
        ip("link set eth0 up", &namespace);
        ip("-4 route add default dev eth0", &namespace);
        let runtime = Some(namespace.event_loop());
        Pod { runtime, _namespace: namespace, sidecar: None }
    }

    /// A pod of this name whose traffic is captured, with a sidecar of this configuration.
    pub(super) async fn captured(&self, name: &str, address: &str, mesh: &Path, more: &[&str]) -> Pod {
        let mut pod = self.pod(address);
        pod.run(async {
            let (status, said) = redirect(&["apply"]);
            assert_eq!(status, 0, "{said}");
        })
        .await;
        let mesh = mesh.to_str().expect("a path in text");
        let health = HEALTH_PORT.to_string();
        let arguments = ["--as", name, "--mode", "sidecar", "--workers", "1", "--config", mesh];
        let arguments = [&arguments[..], &["--health-port", &health], more].concat();
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let weft = self.weft.clone();
        let started = pod.run(async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            Weft::run_by(&AS_PROXY, &weft, &arguments).await
        });
        pod.sidecar = Some(started.await);
        pod
    }
}

/// Runs `ip` for a namespace.
#[track_caller]
fn ip(text: &str, namespace: &Namespace) {
    let words: Vec<&str> = ["-n", namespace.name()].into_iter().chain(text.split(' ')).collect();
    let output = run("ip", &words);
    assert!(output.status.success(), "ip {text}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A pod: a network of its own, and perhaps a sidecar.
pub(super) struct Pod {
    /// Where its applications run.
    runtime: Option<Runtime>,
    /// Ends before its network does.
    sidecar: Option<Weft>,
    _namespace: Namespace,
}

impl Pod {
    /// Does something in the pod, to its end.
    pub(super) async fn run<F>(&self, inside: F) -> F::Output
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        match self.runtime().spawn(inside).await {
            Ok(output) => output,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }

    /// What is spawned on it is in the pod.
    pub(super) fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there as long as the pod")
    }

    /// Whether a pod at this address is ready, as one that asks from this pod sees it.
    pub(super) async fn sees_ready(&self, address: &str) -> bool {
        let to = SocketAddr::new(address.parse().expect("an address"), HEALTH_PORT);
        let answer = self.run(Request::get("/healthz/ready").try_send(to)).await;
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// The pod's sidecar.
    pub(super) fn sidecar(&mut self) -> &mut Weft {
        self.sidecar.as_mut().expect("it has one")
    }

    /// What its sidecar has said on stderr.
    pub(super) fn log(&self) -> String {
        self.sidecar.as_ref().expect("it has one").log()
    }

    /// The sum of all series of a metric of the sidecar that carry these labels.
    pub(super) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        metrics::sum(&self.page("/stats/prometheus").await, name, labels).unwrap_or_default()
    }

    /// A page of the sidecar's admin console.
    pub(super) async fn page(&self, path: &str) -> String {
        let admin = self.sidecar.as_ref().expect("it has one").admin();
        self.run(Request::get(path).send(admin)).await.text()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // It is dropped inside of another event loop, which must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
