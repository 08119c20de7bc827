//! Pods that are joined by a bridge.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use support::{Answer, Namespace, Request, Weft, binary};
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

/// The same with the right to send from addresses of others.
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
    test: &'static str,
    bridge: Namespace,
    weft: PathBuf,
    configuration: Vec<PathBuf>,
    pods: AtomicU32,
}

impl Network {
    /// A bridge without pods, for sidecars of these configurations. `None` when the test named `test` is skipped.
    pub(super) fn new(test: &'static str, configuration: &[&Path]) -> Option<Network> {
        let bridge = bare_namespace(test)?;
        ip("link add bridge0 type bridge", &bridge);
        ip("link set bridge0 up", &bridge);
        let configuration = configuration.iter().map(|path| path.to_path_buf()).collect();
        Some(Network { test, bridge, weft: binary::weft(), configuration, pods: AtomicU32::new(0) })
    }

    /// A pod with these addresses, without rules and without a sidecar. To it every address is on the wire; those that no
    /// pod has do not answer.
    pub(super) fn pod(&self, name: &'static str, addresses: &[&str]) -> Pod {
        let namespace = Namespace::new(self.test).expect("there was one before");
        let wire = format!("pod{}", self.pods.fetch_add(1, Ordering::Relaxed));
        let bridge = self.bridge.name();
        ip(&format!("link add eth0 type veth peer name {wire} netns {bridge}"), &namespace);
        ip(&format!("link set {wire} master bridge0 up"), &self.bridge);
        for address in addresses {
            let bits = if address.contains(':') { "128 nodad" } else { "32" };
            ip(&format!("address add {address}/{bits} dev eth0"), &namespace);
        }
        ip("link set eth0 up", &namespace);
        ip("-4 route add default dev eth0", &namespace);
        if addresses.iter().any(|address| address.contains(':')) {
            ip("-6 route add default dev eth0", &namespace);
        }
        let runtime = Some(namespace.event_loop());
        Pod { name, runtime, _namespace: namespace, sidecar: None }
    }

    /// A pod whose traffic is captured, and its sidecar, which sends and takes in plain text what asks for TLS.
    pub(super) async fn captured(&self, name: &'static str, address: &str) -> Pod {
        let mut pod = self.pod(name, &[address]);
        pod.redirect(&[]).await;
        self.sidecar(&mut pod, &["--allow-unenforced-security"]).await;
        pod
    }

    /// Starts the sidecar of a pod, with these arguments.
    pub(super) async fn sidecar(&self, pod: &mut Pod, more: &[&str]) {
        self.start(pod, &AS_PROXY, "sidecar", more).await;
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

    async fn start(&self, pod: &mut Pod, command: &[&'static str], mode: &'static str, more: &[&str]) {
        let mut arguments =
            vec!["--as".to_owned(), pod.name.to_owned(), "--mode".to_owned(), mode.to_owned()];
        arguments.extend(["--workers".to_owned(), "1".to_owned()]);
        for path in &self.configuration {
            arguments.extend(["--config".to_owned(), path.to_str().expect("a path in text").to_owned()]);
        }
        arguments.extend(more.iter().copied().map(str::to_owned));
        let (command, weft) = (command.to_vec(), self.weft.clone());
        let started = pod.run(async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            Weft::run_by(&command, &weft, &arguments).await
        });
        pod.sidecar = Some(Arc::new(started.await));
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
    /// Its name and namespace, as `weft run --as` takes them.
    name: &'static str,
    /// Where its applications run.
    runtime: Option<Runtime>,
    _namespace: Namespace,
    sidecar: Option<Arc<Weft>>,
}

impl Pod {
    /// Does something in the pod, to its end.
    pub(super) async fn run<F>(&self, inside: F) -> F::Output
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let runtime = self.runtime.as_ref().expect("it is there as long as the pod");
        match runtime.spawn(inside).await {
            Ok(output) => output,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }

    /// Has its traffic captured, by the rules that these arguments make.
    pub(super) async fn redirect(&self, arguments: &[&str]) {
        let arguments: Vec<String> = ["apply"].iter().chain(arguments).copied().map(str::to_owned).collect();
        self.run(async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let (status, said) = redirect(&arguments);
            assert_eq!(status, 0, "{said}");
        })
        .await;
    }

    /// Sends a request as an application of the pod.
    pub(super) async fn send(&self, to: &str, request: Request) -> Answer {
        self.try_send(to, request).await.unwrap_or_else(|why| panic!("{} to {to}: {why}", self.name))
    }

    /// The same, where it may fail.
    pub(super) async fn try_send(&self, to: &str, request: Request) -> Result<Answer, String> {
        let to = to.parse().expect("an address");
        self.run(request.try_send(to)).await
    }

    /// The pod's sidecar.
    pub(super) fn sidecar(&self) -> &Weft {
        self.sidecar.as_deref().expect("it has one")
    }

    /// The sum of all series of a metric of the sidecar that carry these labels.
    pub(super) async fn metric(
        &self,
        name: &'static str,
        labels: &'static [(&'static str, &'static str)],
    ) -> f64 {
        let sidecar = self.sidecar.clone().expect("it has one");
        self.run(async move { sidecar.metric(name, labels).await }).await.unwrap_or_default()
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
