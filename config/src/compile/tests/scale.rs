//! A mesh of the size that compile must be at home with.

use std::fmt::Write;
use std::sync::Arc;

use super::mesh::Mesh;
use crate::hashed::HashMap;
use crate::resource::{Destinations, RouteAction};

const SERVICES: usize = 5_000;
const ROUTED: usize = 500;

/// 5,000 services with two endpoints each, of which 500 have two subsets and a virtual service.
fn mesh() -> Mesh {
    Mesh::new(&objects("http")).seen_by(|proxy| proxy.namespace = "load".into())
}

/// The objects; `port` is the name of the services' port.
fn objects(port: &str) -> String {
    let mut text = String::new();
    for at in 0..SERVICES {
        let (name, high, low) = (format!("svc-{at:05}"), at / 250, at % 250);
        write!(
            text,
            "kind: Service\nmetadata: {{name: {name}, namespace: load}}\n\
             spec: {{clusterIP: 10.1.{high}.{low}, ports: [{{name: {port}, port: 80}}]}}\n---\n\
             kind: EndpointSlice\n\
             metadata: {{name: {name}, namespace: load, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             endpoints: [{{addresses: [10.2.{high}.{low}]}}, {{addresses: [10.3.{high}.{low}]}}]\n\
             ports: [{{name: {port}, port: 8080}}]\n---\n"
        )
        .unwrap();
        if at < ROUTED {
            write!(
                text,
                "kind: DestinationRule\nmetadata: {{name: {name}, namespace: load}}\n\
                 spec: {{host: {name}, subsets: [{{name: v1}}, {{name: v2}}]}}\n---\n\
                 kind: VirtualService\nmetadata: {{name: {name}, namespace: load}}\n\
                 spec: {{hosts: [{name}], http: [\
                 {{match: [{{uri: {{prefix: /a}}}}], route: [{{destination: {{host: {name}, subset: v1}}}}]}},\
                 {{route: [{{destination: {{host: {name}, subset: v2}}}}]}}]}}\n---\n"
            )
            .unwrap();
        }
    }
    text
}

#[test]
fn a_sidecar_among_five_thousand_services() {
    let sidecar = |port| Mesh::sidecar(&objects(port)).seen_by(|proxy| proxy.namespace = "load".into());
    // One of all addresses, and the two that traffic is redirected to.
    assert_eq!(sidecar("http").compile().resources.listeners.len(), 3);
    let output = sidecar("auto").compile();
    assert_eq!(output.resources.listeners.len(), SERVICES + 2);
    assert_eq!(output.resources.routes.len(), SERVICES);
    assert_eq!(sidecar("tcp").compile().resources.listeners.len(), SERVICES + 2);
}

#[test]
fn five_thousand_services() {
    let output = mesh().compile();
    assert_eq!(output.resources.clusters.len(), SERVICES + 2 * ROUTED + 2);
    assert_eq!(output.resources.endpoints.len(), SERVICES + 2 * ROUTED);
    assert_eq!(output.hosts().len(), SERVICES);
    let routes: usize = output.routes("80").virtual_hosts.iter().map(|host| host.routes.len()).sum();
    assert_eq!(routes, SERVICES + ROUTED + 1);

    // Whoever names a cluster shares its name.
    let names: HashMap<&str, &Arc<str>> =
        output.compiled.update.clusters.iter().map(|it| (&*it.name, &it.name)).collect();
    for assignment in &output.compiled.update.endpoints {
        assert!(Arc::ptr_eq(names[&*assignment.cluster_name], &assignment.cluster_name));
    }
    for route in output.compiled.update.routes[0].virtual_hosts.iter().flat_map(|host| &host.routes) {
        let RouteAction::Forward(forward) = &route.action else { panic!() };
        let Destinations::Cluster(cluster) = &forward.destinations else { panic!() };
        assert!(Arc::ptr_eq(names[&**cluster], cluster));
    }
}
