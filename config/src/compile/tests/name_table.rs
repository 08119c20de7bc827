//! The name table: which hosts the DNS proxy answers.

use super::mesh::Mesh;

const SERVICES: &str = "\
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, ports: [{name: tcp, port: 3306}]}
---
kind: Service
metadata: {name: away, namespace: shop}
spec: {type: ExternalName, externalName: away.example.com, ports: [{name: tcp, port: 1}]}
---
kind: Pod
metadata: {name: db-0, namespace: shop}
spec: {hostname: db-0, subdomain: db}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
---
kind: Pod
metadata: {name: db-1, namespace: shop}
spec: {hostname: db-1, subdomain: db}
status: {podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}]}
---
kind: Pod
metadata: {name: db-x, namespace: shop}
spec: {}
status: {podIP: 10.0.0.3, podIPs: [{ip: 10.0.0.3}]}
---
kind: EndpointSlice
metadata: {name: db, namespace: shop, labels: {kubernetes.io/service-name: db}}
endpoints:
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: db-0}}
- {addresses: [10.0.0.2], conditions: {ready: false}, targetRef: {kind: Pod, name: db-1}}
- {addresses: [10.0.0.3], targetRef: {kind: Pod, name: db-x}}
ports: [{name: tcp, port: 3306}]
---
kind: ServiceEntry
metadata: {name: fixed, namespace: shop}
spec:
  hosts: [fixed.example.com, '*.wild.example.com']
  addresses: [10.1.0.1, 10.1.0.2]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
---
kind: ServiceEntry
metadata: {name: range, namespace: shop}
spec:
  hosts: [range.example.com]
  addresses: [10.2.0.0/16]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: NONE
---
kind: ServiceEntry
metadata: {name: asked, namespace: shop}
spec:
  hosts: [asked.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
";

#[test]
fn hosts_with_an_address_and_the_pods_of_headless_services() {
    let compiled = Mesh::sidecar(SERVICES).compile().compiled;
    let lines: Vec<String> = compiled
        .names
        .names
        .iter()
        .map(|(host, info)| {
            let addresses: Vec<String> = info.addresses.iter().map(ToString::to_string).collect();
            let short = info.kubernetes.as_ref().map_or_else(String::new, |kubernetes| {
                format!(" {}/{}", kubernetes.namespace, kubernetes.name)
            });
            format!("{host} {}{short}", addresses.join(","))
        })
        .collect();
    assert_eq!(
        lines,
        [
            "*.wild.example.com 10.1.0.1,10.1.0.2",
            "db-0.db.shop.svc.cluster.local 10.0.0.1 shop/db-0.db",
            "db.shop.svc.cluster.local 10.0.0.1,10.0.0.3 shop/db",
            "fixed.example.com 10.1.0.1,10.1.0.2",
            "web.shop.svc.cluster.local 10.96.0.1 shop/web",
        ]
    );
}
