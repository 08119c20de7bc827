//! dig before the DNS proxy, over UDP and TCP.

use std::net::IpAddr;

use support::{Mesh, TestDns, TestProxy};

use crate::tools::{find, run};

#[tokio::test]
async fn dig_over_both_transports() {
    let Some(tool) = find("dig", "interop::dig::dig_over_both_transports") else { return };
    let dns = TestDns::start().await;
    dns.tell("www.example.org", 60, &[IpAddr::from([192, 0, 2, 7])]);
    let mesh = Mesh::new().service_at("web", "http/80", "10.96.0.7");
    mesh.write("resolv.conf", "search shop.svc.cluster.local\nnameserver 127.0.0.1\n");
    let (resolv_conf, server) = (mesh.file("resolv.conf"), dns.address);
    let start = TestProxy::of(mesh).set(|settings| {
        settings.dns_port = Some(0);
        settings.resolving.resolv_conf = resolv_conf;
        settings.resolving.servers = vec![server];
    });
    let proxy = start.ready().await;
    let port = proxy.dns().port().to_string();
    for transport in ["+notcp", "+tcp"] {
        let ask = async |name: &str, record_type: &str| {
            let arguments = ["@127.0.0.1", "-p", &port, transport, "+tries=1", name, record_type];
            run(&tool, arguments, b"").await.text()
        };
        let own = ask("web.shop", "A").await;
        assert!(own.contains("status: NOERROR") && own.contains("flags: qr aa rd ra;"), "{own}");
        assert!(own.contains("web.shop.\t\t30\tIN\tA\t10.96.0.7"), "{own}");
        assert!(own.contains("EDNS: version: 0"), "{own}");
        let other_family = ask("web.shop", "AAAA").await;
        assert!(
            other_family.contains("status: NOERROR") && other_family.contains("ANSWER: 0"),
            "{other_family}"
        );
        let expanded = ask("web.shop.svc.cluster.local.shop.svc.cluster.local", "A").await;
        assert!(expanded.contains("CNAME web.shop.svc.cluster.local."), "{expanded}");
        assert!(expanded.contains("ANSWER: 2"), "{expanded}");
        let elsewhere = ask("www.example.org", "A").await;
        assert!(elsewhere.contains("www.example.org.\t60\tIN\tA\t192.0.2.7"), "{elsewhere}");
        let nobody = ask("nobody.example.org", "A").await;
        assert!(nobody.contains("status: NXDOMAIN"), "{nobody}");
    }
}
