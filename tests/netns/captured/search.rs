//! web calls search, which is headless: by the address of a pod, and by its name.

use std::fs;

use support::netns::at;
use support::{Request, TestBackend, shared};

use super::network::Network;
use crate::pods::pod;

/// Runs a command with another list of DNS servers.
const WITH_RESOLVER: &str = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_headless_service_is_reached_by_address_and_by_name() {
    const TEST: &str = "netns::captured::search::a_headless_service_is_reached_by_address_and_by_name";
    let Some(shop) = shared::shop(TEST) else { return };
    let Some(network) = Network::new(TEST, &[&shop]) else { return };
    // The server is nobody's: whoever asks it is answered by the sidecar.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let resolver = directory.path().join("resolv.conf");
    let text = "nameserver 10.96.0.53\nsearch shop.svc.cluster.local svc.cluster.local\noptions ndots:5\n";
    fs::write(&resolver, text).expect("a file");
    let resolver = resolver.to_str().expect("a path in text");
    let mut web = network.pod("web-1.shop", &["10.244.1.10"]);
    web.redirect(&["--redirect-dns", "--capture-all-dns"]).await;
    let dns = ["--dns-port", "15053", "--resolv-conf", resolver];
    network.sidecar(&mut web, &[&dns[..], &["--allow-unenforced-security"]].concat()).await;
    let first = network.captured("search-0.shop", "10.244.1.61").await;
    let second = network.captured("search-1.shop", "10.244.2.62").await;
    let _apps = (
        web.run(TestBackend::echo_at(at("10.244.1.10", 8080), "web-1")).await,
        first.run(TestBackend::echo_at(at("10.244.1.61", 9200), "search-0")).await,
        second.run(TestBackend::echo_at(at("10.244.2.62", 9200), "search-1")).await,
    );

    // Whatever the pod, also that of the other zone: the client has chosen it.
    for (address, name) in [("10.244.1.61:9200", "search-0"), ("10.244.2.62:9200", "search-1")] {
        for host in [address, "search:9200"] {
            for _ in 0..5 {
                let answer = web.send(address, Request::get("/").host(host)).await;
                assert_eq!((answer.status.as_u16(), pod(&answer)), (200, name.to_owned()), "{host}");
            }
        }
    }

    // A program that asks DNS, by each of the names; and for itself, which goes out through its sidecar and in again.
    let search =
        ["search", "search.shop", "search.shop.svc.cluster.local"].map(|name| (name, 9200, "search-"));
    for (name, port, wanted) in search.into_iter().chain([("web.shop", 80, "web-1")]) {
        let resolver = resolver.to_owned();
        let url = format!("http://{name}:{port}/");
        let said = web.run(async move {
            let shell = ["--mount", "sh", "-c", WITH_RESOLVER, &resolver];
            let curl = ["curl", "-s", "-m", "10", "-w", "%{http_code}", &url];
            let output = tokio::process::Command::new("unshare").args(shell).args(curl).output().await;
            String::from_utf8_lossy(&output.expect("unshare can be run").stdout).into_owned()
        });
        let said = said.await;
        assert!(said.contains(wanted) && said.ends_with("200"), "{name}: {said}");
    }
    let inbound: &[(&str, &str)] = &[("reporter", "destination"), ("response_code", "200")];
    let mut total = 0.0;
    for pod in [&web, &first, &second] {
        total += pod.metric("istio_requests_total", inbound).await;
    }
    assert_eq!(total, 24.0);
}
