//! The pods of the sample mesh: their addresses, and echo backends on them.

use std::path::PathBuf;

use support::{Answer, Namespace, TestBackend, netns::at, shared};

/// The pods that serve HTTP on port 8080, by name and address.
const PODS: [(&str, &str); 8] = [
    ("web-1", "10.244.1.10"),
    ("catalog-v1-1", "10.244.1.21"),
    ("catalog-v1-2", "10.244.2.22"),
    ("catalog-v2-1", "10.244.1.23"),
    ("reviews-v1-1", "10.244.1.31"),
    ("reviews-v2-1", "10.244.2.32"),
    ("reviews-v3-1", "10.244.3.33"),
    ("legacy-1", "10.244.1.71"),
];

/// The directory of the sample mesh, and a namespace with the addresses of its pods. `None` when the test named `test`
/// is skipped.
pub(super) fn shop(test: &str) -> Option<(PathBuf, Namespace)> {
    let shop = shared::shop(test)?;
    let namespace = Namespace::new(test)?;
    for (_, address) in PODS {
        namespace.add_address(address.parse().expect("an address"));
    }
    Some((shop, namespace))
}

/// An echo backend on every pod.
pub(super) struct Pods(Vec<(&'static str, TestBackend)>);

impl Pods {
    /// Starts them.
    pub(super) async fn start() -> Pods {
        let mut pods = Vec::new();
        for (name, address) in PODS {
            pods.push((name, TestBackend::echo_at(at(address, 8080), name).await));
        }
        Pods(pods)
    }

    /// Where a pod of this name listens; empty when there is none.
    pub(super) fn address(&self, name: &str) -> String {
        let pod = self.0.iter().find(|(pod, _)| *pod == name);
        pod.map(|(_, backend)| backend.address.to_string()).unwrap_or_default()
    }

    /// Requests that all pods have got whose name begins like this.
    pub(super) fn served(&self, name: &str) -> u64 {
        self.0.iter().filter(|(pod, _)| pod.starts_with(name)).map(|(_, backend)| backend.served()).sum()
    }
}

/// The pod that gave an answer; empty when none did.
pub(super) fn pod(answer: &Answer) -> String {
    let saw: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    saw["name"].as_str().unwrap_or_default().to_owned()
}

/// Checks that `count` of `total` draws is what a chance of `percent` gives: within five standard deviations, outside
/// of which it is once in two million.
pub(super) fn assert_share(count: usize, total: usize, percent: u32, what: &str) {
    let chance = f64::from(percent) / 100.0;
    let draws = f64::from(u32::try_from(total).expect("a small number"));
    let (expected, deviation) = (draws * chance, (draws * chance * (1.0 - chance)).sqrt());
    let distance = (f64::from(u32::try_from(count).expect("a small number")) - expected).abs();
    println!("{what}: {count} of {total}, expected {expected} within {:.0}", 5.0 * deviation);
    assert!(distance <= 5.0 * deviation, "{what}: {count} of {total}, expected {expected}");
}
