//! The sample mesh as a pod of it sees it that does not know of its sidecar: it calls services by their addresses, and
//! what it sends is redirected.

use config::compile::Mode;
use support::netns::at;
use support::{Mesh, TestBackend, TestProxy};
use tokio::net::TcpListener;

use crate::capture::{app, listen_to, named, run};
use crate::pods::shop;

/// Redirects what the app sends, except to itself.
fn redirect() {
    for services in ["10.96.0.0/16", "10.200.0.0/24"] {
        run("ip", &format!("route add {services} dev lo"));
    }
    run("iptables", "-w -t nat -A OUTPUT -p tcp -m owner --uid-owner 2000 -j REDIRECT --to-ports 15001");
}

#[test]
fn services_are_reached_by_their_addresses() {
    let Some((shop, namespace)) = shop("netns::sidecar::services_are_reached_by_their_addresses") else {
        return;
    };
    for address in ["10.244.1.51", "10.244.1.61", "10.200.1.1", "10.200.1.2", "10.244.9.9"] {
        namespace.add_address(address.parse().expect("an address"));
    }
    namespace.run(|| async {
        redirect();
        let _catalog = TestBackend::echo_at(at("10.244.1.21", 8080), "catalog-v1").await;
        let _catalog2 = TestBackend::echo_at(at("10.244.1.23", 8080), "catalog-v2").await;
        let _search = TestBackend::echo_at(at("10.244.1.61", 9200), "search-0").await;
        let _ledger = named(at("10.244.1.51", 3306), "ledger").await;
        let _warehouse = named(at("10.200.1.1", 5432), "warehouse").await;
        let _other = named(at("10.200.1.2", 15432), "warehouse").await;
        let stranger = named(at("10.244.9.9", 2525), "stranger").await;
        let settings = |settings: &mut weft::app::Settings| {
            settings.config_directories = vec![shop];
            settings.workload.pod = Some(("web-1".to_owned(), "shop".to_owned()));
            settings.mode = Mode::Sidecar;
            settings.allow_unenforced_security = true;
        };
        let proxy = TestProxy::of(Mesh::new()).set(settings).ready().await;

        let get = |url: &'static str| async move { app("curl", &["-s", "-m", "10", "-i", url]).await };
        let catalog = get("http://10.96.0.11:8000/items").await;
        assert!(catalog.starts_with("HTTP/1.1 200") && catalog.contains("catalog-v"), "{catalog}");
        let host = ["-s", "-m", "10", "-H", "Host: catalog", "http://10.96.0.11:8000/items"];
        assert!(app("curl", &host).await.contains("catalog-v"), "by its rules");
        assert!(get("http://10.244.1.61:9200/").await.contains("search-0"), "a pod of a headless service");
        // The server speaks first, and nobody waits for the client.
        assert!(listen_to(at("10.96.0.14", 3306)).await.starts_with("ledger "));
        assert!(listen_to(at("10.200.0.5", 5432)).await.starts_with("warehouse "));
        assert!(listen_to(stranger).await.starts_with("stranger "), "outboundTrafficPolicy ALLOW_ANY");
        let taken = TcpListener::bind("0.0.0.0:15006").await.expect_err("weft has it");
        assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
        let by = [("destination_service_name", "ledger"), ("request_protocol", "tcp")];
        assert_eq!(proxy.metric("istio_tcp_connections_opened_total", &by).await, Some(1.0));
    });
}
