//! Pods on one wire: each has a network of its own, and may have the rules that `weft redirect apply` makes and the binary as its
//! sidecar.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use support::{Namespace, Request, Weft, binary, metrics};
use tokio::runtime::Runtime;

use crate::redirect::{bare_namespace, redirect, run};

/// Becomes the user that the rules take for the proxy. It may read what only root may, as the sources may be in a place
/// like that.
pub(crate) const AS_PROXY: [&str; 8] = [
    "setpriv",
    "--reuid=1337",
    "--regid=1337",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
    "--no-new-privs",
    "--",
];

/// A wire, to which pods are joined by a bridge.
pub(crate) struct Network {
    test: &'static str,
    bridge: Namespace,
    weft: PathBuf,
    pods: AtomicU32,
}

/// A pod: a network of its own, and perhaps a sidecar.
pub(crate) struct Pod {
    /// Its name and namespace, as `weft run --as` takes them, where it has a sidecar.
    name: String,
    /// Where its applications run.
    runtime: Option<Runtime>,
    /// Ends before its network does.
    sidecar: Option<Weft>,
    _namespace: Namespace,
}

impl Network {
    /// A wire without pods. `None` when the test named `test` is skipped.
    pub(crate) fn new(test: &'static str) -> Option<Network> {
        let bridge = bare_namespace(test)?;
        ip("link add bridge0 type bridge", &bridge);
        ip("link set bridge0 up", &bridge);
        Some(Network { test, bridge, weft: binary::weft(), pods: AtomicU32::new(0) })
    }

    /// A pod with these addresses, without rules and without a sidecar. To it every address is on the wire; those that no
    /// pod has do not answer.
    pub(crate) fn pod(&self, name: &str, addresses: &[&str]) -> Pod {
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
        Pod { name: name.to_owned(), runtime, sidecar: None, _namespace: namespace }
    }

    /// Starts the proxy of a pod by `command`, in this mode and with these arguments.
    pub(crate) async fn start(&self, pod: &mut Pod, command: &[&str], mode: &str, more: &[&str]) {
        let arguments = ["--as", &pod.name, "--mode", mode, "--workers", "1"];
        let owned = |words: &[&str]| words.iter().copied().map(str::to_owned).collect::<Vec<String>>();
        let (command, arguments) = (owned(command), owned(&[&arguments[..], more].concat()));
        let weft = self.weft.clone();
        let started = pod.run(async move {
            let [command, arguments] =
                [&command, &arguments].map(|words| words.iter().map(String::as_str).collect::<Vec<&str>>());
            Weft::run_by(&command, &weft, &arguments).await
        });
        pod.sidecar = Some(started.await);
    }
}

/// Runs `ip` for a namespace.
#[track_caller]
fn ip(text: &str, namespace: &Namespace) {
    let words: Vec<&str> = ["-n", namespace.name()].into_iter().chain(text.split(' ')).collect();
    let output = run("ip", &words);
    assert!(output.status.success(), "ip {text}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Pod {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Does something in the pod, to its end.
    pub(crate) async fn run<F>(&self, inside: F) -> F::Output
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        match self.runtime().spawn(inside).await {
            Ok(output) => output,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }

    /// What is spawned on it is in the pod.
    pub(crate) fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there as long as the pod")
    }

    /// Has its traffic captured, by the rules that these arguments make.
    pub(crate) async fn redirect(&self, arguments: &[&str]) {
        let arguments: Vec<String> = ["apply"].iter().chain(arguments).copied().map(str::to_owned).collect();
        self.run(async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let (status, said) = redirect(&arguments);
            assert_eq!(status, 0, "{said}");
        })
        .await;
    }

    /// The pod's sidecar.
    pub(crate) fn sidecar(&self) -> &Weft {
        self.sidecar.as_ref().expect("it has one")
    }

    /// The same, to be told something.
    pub(crate) fn sidecar_mut(&mut self) -> &mut Weft {
        self.sidecar.as_mut().expect("it has one")
    }

    /// The sum of all series of a metric of the sidecar that carry these labels.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        metrics::sum(&self.page("/stats/prometheus").await, name, labels).unwrap_or_default()
    }

    /// A page of the sidecar's admin console.
    pub(crate) async fn page(&self, path: &str) -> String {
        let admin = self.sidecar().admin();
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
