//! AUTO_PASSTHROUGH: which services, ports and subsets are passed on by name, to whom, and by which endpoints.

use super::mesh::{Mesh, Output};
use crate::compile::Mode;
use crate::resource::{NetworkFilter, TcpDestinations, TransportSocket};

/// Pods of `web`: two of the mesh, of which one turns mutual TLS off, and one beside it. Services that are not passed on.
const OBJECTS: &str = "
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: tcp-x, port: 90}, {name: dns, port: 53, protocol: UDP}]}
---
kind: EndpointSlice
metadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}
endpoints:
- {addresses: [10.244.1.1], targetRef: {kind: Pod, name: a}}
- {addresses: [10.244.1.2], targetRef: {kind: Pod, name: b}}
- {addresses: [10.244.1.3], targetRef: {kind: Pod, name: c}}
ports: [{name: http, port: 8080}, {name: tcp-x, port: 9090}]
---
kind: Pod
metadata: {name: a, namespace: shop, labels: {security.istio.io/tlsMode: istio, v: '1'}}
spec: {serviceAccountName: web}
---
kind: Pod
metadata: {name: b, namespace: shop, labels: {v: '1'}}
spec: {serviceAccountName: web}
---
kind: Pod
metadata: {name: c, namespace: shop, labels: {security.istio.io/tlsMode: istio, app: off}}
spec: {serviceAccountName: web}
---
kind: PeerAuthentication
metadata: {name: off, namespace: shop}
spec: {selector: {matchLabels: {app: off}}, mtls: {mode: DISABLE}}
---
kind: ServiceEntry
metadata: {name: outside, namespace: shop}
spec: {hosts: [outside.shop], location: MESH_EXTERNAL, resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}]}
---
kind: ServiceEntry
metadata: {name: any, namespace: shop}
spec: {hosts: ['*.any.shop'], location: MESH_INTERNAL, ports: [{number: 80, name: http, protocol: HTTP}]}
---
kind: Service
metadata: {name: alias, namespace: shop}
spec: {type: ExternalName, externalName: web.shop.svc.cluster.local}
---
kind: Service
metadata: {name: other, namespace: ops}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
---
";

const RULE: &str = "
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, subsets: [{name: one, labels: {v: '1'}}], trafficPolicy: {connectionPool: {tcp: {idleTimeout: 7s}}, POLICY}}
---
";

fn server(port: u32, hosts: &str) -> String {
    format!(
        "{{port: {{number: {port}, name: tls, protocol: TLS}}, hosts: [{hosts}], tls: {{mode: AUTO_PASSTHROUGH}}}}"
    )
}

fn compile(servers: &str, more: &str) -> Output {
    let gateway = format!(
        "kind: Gateway\nmetadata: {{name: g, namespace: istio-system}}\n\
         spec: {{selector: {{istio: edge}}, servers: [{servers}]}}\n---\n"
    );
    let mut mesh = Mesh::sidecar(&(OBJECTS.to_owned() + &gateway + more));
    mesh.mode = Mode::Gateway;
    mesh.proxy.namespace = "istio-system".into();
    mesh.proxy.labels.insert("istio".to_owned(), "edge".to_owned());
    mesh.compile()
}

/// The server names of a listener's chains, each of which leads to the cluster of that name.
fn names(output: &Output, listener: &str) -> Vec<String> {
    let listener = &output.resources.listeners[listener];
    let chains = listener.filter_chains.iter().map(|chain| {
        let NetworkFilter::TcpProxy(proxy) = &chain.filter else { panic!("{chain:?}") };
        let TcpDestinations::Cluster(cluster) = &proxy.destinations else { panic!("{proxy:?}") };
        assert_eq!(chain.chain_match.server_names, std::slice::from_ref(cluster));
        assert!(output.has_cluster(cluster), "{cluster}");
        let offered = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];
        assert_eq!(
            chain.chain_match.application_protocols.iter().map(|it| &**it).collect::<Vec<_>>(),
            offered
        );
        assert!(chain.tls.is_none());
        cluster.to_string()
    });
    chains.collect()
}

fn addresses(output: &Output, cluster: &str) -> Vec<String> {
    let groups = &output.endpoints(cluster).localities;
    groups.iter().flat_map(|group| &group.endpoints).map(|it| it.address.to_string()).collect()
}

const WEB: &str = "outbound_.80_._.web.shop.svc.cluster.local";
const WEB_TCP: &str = "outbound_.90_._.web.shop.svc.cluster.local";
const WEB_ONE: &str = "outbound_.80_.one_.web.shop.svc.cluster.local";
const WEB_ONE_TCP: &str = "outbound_.90_.one_.web.shop.svc.cluster.local";
const OTHER: &str = "outbound_.80_._.other.ops.svc.cluster.local";

#[test]
fn services_that_the_hosts_cover_are_passed_on() {
    let check = |hosts: &str, expected: &[&str]| {
        let output = compile(&server(15443, hosts), "");
        assert_eq!(names(&output, "0.0.0.0_15443"), expected, "{hosts}");
        let filters = &output.resources.listeners["0.0.0.0_15443"].listener_filters;
        assert_eq!(filters.tls_inspector.is_some(), !expected.is_empty(), "{hosts}");
        // For what it would send itself.
        assert_eq!(output.codes(), ["security-not-enforced"]);
    };
    check("'*'", &[OTHER, WEB, WEB_TCP]);
    check("'*.cluster.local'", &[OTHER, WEB, WEB_TCP]);
    check("'*.Shop.svc.cluster.local'", &[WEB, WEB_TCP]);
    // istiod compares hosts alone here.
    check("ops/web.shop.svc.cluster.local", &[WEB, WEB_TCP]);
    check("other.ops.svc.cluster.local, a.b", &[OTHER]);
    check("'*.elsewhere'", &[]);
    // A name is asked for once, whoever covers it first.
    let two = format!("{}, {}", server(15443, "'*.ops.svc.cluster.local'"), server(15443, "'*'"));
    assert_eq!(names(&compile(&two, ""), "0.0.0.0_15443"), [OTHER, WEB, WEB_TCP]);
}

#[test]
fn subsets_are_passed_on_with_their_settings() {
    let output = compile(&server(15443, "'*.shop.svc.cluster.local'"), &RULE.replace(", POLICY", ""));
    assert_eq!(names(&output, "0.0.0.0_15443"), [WEB, WEB_ONE, WEB_TCP, WEB_ONE_TCP]);
    for chain in &output.resources.listeners["0.0.0.0_15443"].filter_chains {
        let NetworkFilter::TcpProxy(proxy) = &chain.filter else { panic!("{chain:?}") };
        assert_eq!(proxy.idle_timeout, Some(std::time::Duration::from_secs(7)));
        let origin = proxy.origin.as_ref().unwrap().to_string();
        assert!(origin.contains("Gateway istio-system/g"), "{origin}");
    }
    let cluster = output.cluster(WEB_ONE);
    assert_eq!(&*cluster.metadata.subset, "one");
    assert_eq!(&*cluster.metadata.services[0].name, "web");
}

#[test]
fn only_endpoints_that_speak_mutual_tls_are_passed_on_to_and_it_is_their_own() {
    let check = |policy: &str, one: &[&str], all: &[&str]| {
        let rule = match policy {
            "" => RULE.replace(", POLICY", ""),
            policy => RULE.replace("POLICY", policy),
        };
        let output = compile(&server(15443, "'*'"), &rule);
        assert_eq!(addresses(&output, WEB_ONE), one, "{policy}");
        assert_eq!(addresses(&output, WEB), all, "{policy}");
        for name in [WEB, WEB_ONE, WEB_TCP, OTHER] {
            let cluster = output.cluster(name);
            assert_eq!(cluster.transport_socket, TransportSocket::RawBuffer);
            assert!(cluster.transport_socket_matches.is_empty());
        }
        // For routes of the gateway's own, all are there.
        let whole = addresses(&output, "outbound|80||web.shop.svc.cluster.local");
        assert_eq!(whole.len(), 3);
    };
    let [a, b, c] = ["10.244.1.1:8080", "10.244.1.2:8080", "10.244.1.3:8080"];
    check("", &[a], &[a]);
    // What the rule says of all wins over what is known of the workload, as it does for clients.
    check("tls: {mode: ISTIO_MUTUAL}", &[a], &[a, b, c]);
    check("tls: {mode: DISABLE}", &[a], &[]);
}

#[test]
fn without_such_a_server_nobody_is_known_by_a_server_name() {
    let simple = "{port: {number: 443, name: tls, protocol: TLS}, hosts: ['*'], tls: {mode: PASSTHROUGH}}";
    assert!(!compile(simple, "").has_cluster(WEB));
    let elsewhere = compile(&server(15443, "'*'"), "");
    assert!(elsewhere.has_cluster(WEB));
}
