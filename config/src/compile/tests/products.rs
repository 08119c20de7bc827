//! What several objects would make together, and what becomes of it when it is too much.

use std::fmt::Write;

use http::StatusCode;

use super::mesh::{Mesh, Output};
use crate::finding::{Severity, code};
use crate::resource::RouteAction;

const PORTS: u16 = 4;
const RULES: usize = 10;
const SUBSETS: usize = 3;
const ENDPOINTS: usize = 5;

/// A service of several ports and endpoints, with rules that hold for each port and subsets.
fn objects() -> String {
    let mut text = String::from(
        "kind: Service\nmetadata: {name: web, namespace: shop}\nspec:\n  clusterIP: 10.1.0.1\n  ports:\n",
    );
    for port in 0..PORTS {
        writeln!(text, "  - {{name: http-{port}, port: {}}}", 80 + port).unwrap();
    }
    text += "---\nkind: EndpointSlice\nmetadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}\nports:\n";
    for port in 0..PORTS {
        writeln!(text, "- {{name: http-{port}, port: {}}}", 8080 + port).unwrap();
    }
    text += "endpoints:\n";
    for endpoint in 0..ENDPOINTS {
        writeln!(text, "- addresses: [10.2.0.{endpoint}]").unwrap();
    }
    text += "---\nkind: DestinationRule\nmetadata: {name: web, namespace: shop}\nspec:\n  host: web\n  subsets:\n";
    for subset in 0..SUBSETS {
        writeln!(text, "  - {{name: s{subset}}}").unwrap();
    }
    text +=
        "---\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\nspec:\n  hosts: [web]\n  http:\n";
    for rule in 0..RULES {
        writeln!(
            text,
            "  - {{match: [{{uri: {{prefix: /{rule}}}}}], route: [{{destination: {{host: web, subset: s0}}}}]}}"
        )
        .unwrap();
    }
    text
}

fn compile(products_max: Option<usize>) -> Output {
    let mut mesh = Mesh { products_max, ..Mesh::sidecar(&objects()) };
    mesh.allow_unenforced_security = true;
    mesh.compile()
}

/// The routes of each port of the service.
fn routes(output: &Output) -> Vec<usize> {
    (0..PORTS)
        .map(|port| {
            let table = &output.resources.routes[format!("{}", 80 + port).as_str()];
            let host =
                table.virtual_hosts.iter().find(|host| host.name.starts_with("web.")).expect("its host");
            if let [only] = host.routes.as_slice() {
                let RouteAction::DirectResponse(response) = &only.action else { panic!("{only:?}") };
                assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
            }
            host.routes.len()
        })
        .collect()
}

/// Objects that are found to make too much, with the path.
fn found(output: &Output) -> Vec<String> {
    let exceeded = output.compiled.findings.iter().filter(|finding| finding.code == code::LIMIT_EXCEEDED);
    exceeded
        .map(|finding| {
            assert_eq!(finding.severity, Severity::Error);
            assert_eq!(finding.limit(), Some("mesh_products_max"), "{finding}");
            format!("{} {}", finding.object.as_ref().expect("an object").kind, finding.path)
        })
        .collect()
}

#[test]
fn what_is_not_too_much_is_made() {
    for products_max in [None, Some(1_000)] {
        let output = compile(products_max);
        assert_eq!(routes(&output), [RULES; PORTS as usize]);
        assert_eq!(found(&output), [""; 0]);
    }
}

#[test]
fn rules_that_would_become_too_many_routes_refuse() {
    // Two ports have all of them, the others answer 503 rather than pass the rules over.
    let output = compile(Some(2 * RULES));
    assert_eq!(routes(&output), [RULES, RULES, 1, 1]);
    assert!(found(&output).contains(&"VirtualService spec.http".to_owned()), "{:?}", found(&output));
}

#[test]
fn clusters_and_endpoints_that_would_be_too_many_are_not_made() {
    let clusters = |output: &Output| {
        output.resources.clusters.keys().filter(|name| name.starts_with("outbound|")).count()
    };
    let all = compile(None);
    assert_eq!(clusters(&all), usize::from(PORTS) * (1 + SUBSETS));
    // A port makes four clusters of five endpoints.
    let of_port = (1 + SUBSETS) * (1 + ENDPOINTS);
    let few = compile(Some(2 * of_port));
    assert_eq!(clusters(&few), 2 * (1 + SUBSETS));
    assert_eq!(found(&few), ["Service spec.ports"]);
    let fewer = compile(Some(of_port + 2 * (1 + ENDPOINTS)));
    assert_eq!(clusters(&fewer), (1 + SUBSETS) + 2);
    let found = found(&fewer);
    assert!(found.contains(&"DestinationRule spec.subsets[1]".to_owned()), "{found:?}");
}
