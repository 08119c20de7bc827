//! Inbound: chains by mode and protocol, services of the workload, and what guards it.

use super::mesh::{Mesh, Output};
use crate::compile::Mode;
use crate::resource::{Inspector, Listener, NetworkFilter, TransportProtocol};

/// A service of each kind of port, and a pod behind it, which is the proxy's.
const SERVICE: &str = "
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.0.0.1
  selector: {app: web}
  ports: [{name: http, port: 80}, {name: tcp, port: 81}, {name: auto, port: 82}]
---
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: web}}
status: {podIP: 10.244.1.10}
---
kind: EndpointSlice
metadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}
endpoints: [{addresses: [10.244.1.10], targetRef: {kind: Pod, name: client}}]
ports: [{name: http, port: 8080}, {name: tcp, port: 8081}, {name: auto, port: 8082}]
---
";

fn mesh(objects: &str) -> Mesh {
    let labelled = |proxy: &mut crate::compile::Proxy| {
        proxy.labels.insert("app".to_owned(), "web".to_owned());
    };
    Mesh::sidecar(&(SERVICE.to_owned() + objects)).seen_by(labelled)
}

fn peer_authentication(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn inbound(output: &Output) -> &Listener {
    &output.resources.listeners["virtualInbound"]
}

/// The chains of a port as `TRANSPORT [PROTOCOLS] KIND`.
fn chains(output: &Output, port: Option<u16>) -> Vec<String> {
    let of_port = inbound(output).filter_chains.iter().filter(|it| it.chain_match.destination_port == port);
    let told = of_port.map(|chain| {
        let transport = match chain.chain_match.transport_protocol {
            Some(TransportProtocol::RawBuffer) => "raw",
            Some(TransportProtocol::Tls) => "tls",
            None => "any",
        };
        let filter = match &chain.filter {
            NetworkFilter::Http(_) => "http",
            NetworkFilter::TcpProxy(_) => "tcp",
            NetworkFilter::Closed(_) => "closed",
        };
        let mutual = if chain.tls.is_some() { "mutual " } else { "" };
        format!("{transport} [{}] {mutual}{filter}", chain.chain_match.application_protocols.join(" "))
    });
    told.collect()
}

#[test]
fn chains_by_mode_and_protocol() {
    let check = |mode: &str, port: u16, expected: &[&str]| {
        let output = mesh(&peer_authentication("a", "shop", &format!("mtls: {{mode: {mode}}}"))).compile();
        assert_eq!(chains(&output, Some(port)), expected, "{mode} {port}");
    };
    let istio = "[istio istio-peer-exchange istio-http/1.0 istio-http/1.1 istio-h2]";
    let http = "tls [istio-http/1.0 istio-http/1.1 istio-h2] mutual http";
    check("STRICT", 8080, &["tls [] mutual http"]);
    check("STRICT", 8081, &["tls [] mutual tcp"]);
    check("STRICT", 8082, &[http, "tls [] mutual tcp"]);
    check("PERMISSIVE", 8080, &[&format!("tls {istio} mutual http"), "raw [] http"]);
    check("PERMISSIVE", 8081, &[&format!("tls {istio} mutual tcp"), "tls [] tcp", "raw [] tcp"]);
    let of_auto = [
        http,
        "raw [http/1.1 h2c] http",
        "tls [istio-peer-exchange istio] mutual tcp",
        "raw [] tcp",
        "tls [] tcp",
    ];
    check("PERMISSIVE", 8082, &of_auto);
    check("DISABLE", 8080, &["raw [] http"]);
    check("DISABLE", 8081, &["raw [] tcp"]);
    check("DISABLE", 8082, &["raw [http/1.1 h2c] http", "raw [] tcp"]);
    check("UNSET", 8082, &of_auto);
}

#[test]
fn the_narrowest_and_oldest_policy_says_the_mode() {
    let check = |policies: &[String], ports: [&str; 2]| {
        let output = mesh(&policies.concat()).compile();
        let mode = |port| match &chains(&output, Some(port))[..] {
            [only] if only.starts_with("raw") => "DISABLE",
            [_] => "STRICT",
            _ => "PERMISSIVE",
        };
        assert_eq!([mode(8080), mode(8081)], ports, "{policies:?}");
    };
    let whole =
        |name, namespace, mode| peer_authentication(name, namespace, &format!("mtls: {{mode: {mode}}}"));
    let own = |name, rest: &str| {
        peer_authentication(name, "shop", &format!("selector: {{matchLabels: {{app: web}}}}, {rest}"))
    };
    check(&[], ["PERMISSIVE"; 2]);
    check(&[whole("m", "istio-system", "STRICT")], ["STRICT"; 2]);
    check(&[whole("m", "ops", "STRICT")], ["PERMISSIVE"; 2]);
    check(&[whole("m", "istio-system", "STRICT"), whole("n", "shop", "DISABLE")], ["DISABLE"; 2]);
    check(&[whole("m", "istio-system", "STRICT"), whole("n", "shop", "UNSET")], ["STRICT"; 2]);
    check(&[whole("a", "shop", "STRICT"), whole("b", "shop", "DISABLE")], ["STRICT"; 2]);
    check(&[whole("n", "shop", "STRICT"), own("w", "mtls: {mode: DISABLE}")], ["DISABLE"; 2]);
    let of_port = own("w", "mtls: {mode: STRICT}, portLevelMtls: {'8081': {mode: DISABLE}}");
    check(&[of_port], ["STRICT", "DISABLE"]);
    // Only the oldest policy of a workload counts, for its ports too.
    let older = own("a", "mtls: {mode: STRICT}");
    check(&[older, own("b", "portLevelMtls: {'8081': {mode: DISABLE}}")], ["STRICT"; 2]);
    let other =
        peer_authentication("w", "shop", "selector: {matchLabels: {app: other}}, mtls: {mode: STRICT}");
    check(&[other], ["PERMISSIVE"; 2]);
}

#[test]
fn what_guards_the_workload_closes_it_unless_the_user_takes_the_risk() {
    let check = |policy: &str, guarded: bool| {
        let open = mesh(policy);
        let allowing = Mesh { allow_unenforced_security: true, ..mesh(policy) };
        let (closed, allowed) = (open.compile(), allowing.compile());
        let is_closed = |output: &Output| {
            [None, Some(8080), Some(8081), Some(8082)]
                .into_iter()
                .flat_map(|port| chains(output, port))
                .all(|chain| chain.ends_with("closed"))
        };
        assert_eq!((is_closed(&closed), is_closed(&allowed)), (guarded, false), "{policy}");
        let expected: &[&str] = if guarded { &["security-not-enforced"] } else { &[] };
        assert_eq!((closed.codes(), allowed.codes()), (expected.to_vec(), expected.to_vec()), "{policy}");
        // The listener's own port is closed in any case.
        assert_eq!(chains(&closed, Some(15006)), ["any [] tcp"]);
    };
    let policy = |kind: &str, namespace: &str, spec: &str| {
        format!("\nkind: {kind}\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {{{spec}}}\n")
    };
    let authorization = |namespace: &str, spec: &str| policy("AuthorizationPolicy", namespace, spec);
    check(&authorization("shop", ""), true);
    check(&authorization("istio-system", "rules: [{}]"), true);
    check(&authorization("shop", "action: DENY, rules: [{}]"), true);
    check(&authorization("shop", "action: CUSTOM, provider: {name: x}, rules: [{}]"), true);
    check(&authorization("shop", "selector: {matchLabels: {app: web}}, rules: [{}]"), true);
    check(&authorization("ops", "rules: [{}]"), false);
    check(&authorization("shop", "selector: {matchLabels: {app: other}}"), false);
    check(&authorization("shop", "action: DENY"), false);
    check(&authorization("shop", "action: AUDIT, rules: [{}]"), false);
    check(&authorization("shop", "targetRefs: [{kind: Service, name: web}], rules: [{}]"), false);
    check(&policy("RequestAuthentication", "shop", "jwtRules: [{issuer: a}]"), true);
    check(&policy("RequestAuthentication", "shop", ""), false);
    let strict = Mesh {
        allow_unenforced_security: true,
        ..mesh(&peer_authentication("a", "shop", "mtls: {mode: STRICT}"))
    };
    assert_eq!(chains(&strict.compile(), Some(8080)), ["tls [] mutual http", "raw [] http"]);
}

#[test]
fn first_bytes_are_looked_at_where_a_chain_needs_it() {
    let check = |policy: &str, tls: Option<Inspector>, http: Option<Inspector>| {
        let output = mesh(policy).compile();
        let filters = &inbound(&output).listener_filters;
        assert_eq!((&filters.tls_inspector, &filters.http_inspector), (&tls, &http), "{policy}");
    };
    let but = |ports: &[u16]| Some(Inspector { disabled_on_ports: ports.to_vec(), only_on_ports: None });
    let only =
        |ports: &[u16]| Some(Inspector { disabled_on_ports: vec![], only_on_ports: Some(ports.to_vec()) });
    check("", but(&[15006]), but(&[8080, 8081, 15006]));
    check(&peer_authentication("a", "shop", "mtls: {mode: STRICT}"), but(&[15006]), None);
    check(&peer_authentication("a", "shop", "mtls: {mode: DISABLE}"), None, but(&[8080, 8081, 15006]));
    let of_port =
        "selector: {matchLabels: {app: web}}, mtls: {mode: DISABLE}, portLevelMtls: {'8081': {mode: STRICT}}";
    check(&peer_authentication("a", "shop", of_port), only(&[8081]), but(&[8080, 8081, 15006]));
    let of_port = "selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {'8082': {mode: PERMISSIVE}}";
    check(&peer_authentication("a", "shop", of_port), but(&[15006]), only(&[8082]));
}

#[test]
fn transparent_and_dual_stack() {
    let told = |proxy: &mut crate::compile::Proxy| {
        proxy.metadata.insert("INTERCEPTION_MODE".to_owned(), "TPROXY".to_owned());
        proxy.ips.push("fd00::10".parse().unwrap());
    };
    let output = mesh("").seen_by(told).compile();
    for (name, port) in [("virtualInbound", 15006), ("virtualOutbound", 15001)] {
        let listener = &output.resources.listeners[name];
        assert!(listener.transparent && listener.bind_to_port, "{name}");
        let mark = (name == "virtualInbound").then_some(1337);
        assert_eq!(listener.listener_filters.original_src, mark, "{name}");
        assert_eq!(listener.address, format!("0.0.0.0:{port}").parse().unwrap());
        assert_eq!(listener.additional_addresses, [format!("[::]:{port}").parse().unwrap()]);
    }
    let bound: Vec<std::net::IpAddr> = vec!["127.0.0.6".parse().unwrap(), "::6".parse().unwrap()];
    assert_eq!(output.cluster("inbound|8080||").bind_addresses[..], bound[..]);
    assert_eq!(output.cluster("InboundPassthroughCluster").bind_addresses[..], bound[..]);

    let only_v6 = |proxy: &mut crate::compile::Proxy| proxy.ips = vec!["fd00::10".parse().unwrap()];
    let output = mesh("").seen_by(only_v6).compile();
    let listener = inbound(&output);
    assert_eq!((listener.address, listener.transparent), ("[::]:15006".parse().unwrap(), false));
    assert_eq!(listener.listener_filters.original_src, None);
    assert_eq!(output.cluster("InboundPassthroughCluster").bind_addresses[..], bound[1..]);
}

#[test]
fn a_service_that_selects_the_workload_is_served_before_its_endpoints_are_there() {
    let service = SERVICE.split("---").next().unwrap();
    let mut mesh = Mesh::sidecar(service);
    mesh.proxy.labels.insert("app".to_owned(), "web".to_owned());
    assert_eq!(chains(&mesh.compile(), Some(80)).len(), 2);
    let targets = service
        .replace("port: 80}", "port: 80, targetPort: 8080}")
        .replace("port: 81}", "port: 81, targetPort: sql}");
    let pod = "---\nkind: Pod\nmetadata: {name: client, namespace: shop}\nspec: {containers: [{ports: [{name: sql, containerPort: 3306}]}]}\n";
    let of_pods = Mesh { proxy: mesh.proxy.clone(), ..Mesh::sidecar(&(targets + pod)) }.compile();
    assert_eq!([80, 8080, 81, 3306].map(|port| chains(&of_pods, Some(port)).len()), [0, 2, 0, 3]);
    mesh.proxy.labels.clear();
    assert!(chains(&mesh.compile(), Some(80)).is_empty());
    mesh.mode = Mode::Explicit;
    assert!(mesh.compile().resources.listeners.is_empty());
}

#[test]
fn a_service_is_served_whoever_sees_it() {
    let hidden = SERVICE.replacen(
        "namespace: shop}",
        "namespace: shop, annotations: {networking.istio.io/exportTo: '~'}}",
        1,
    );
    let output = Mesh::sidecar(&hidden).compile();
    assert!(!output.has_cluster("outbound|80||web.shop.svc.cluster.local"));
    assert_eq!([8080, 8081].map(|port| chains(&output, Some(port)).len()), [2, 3]);
    let entry = "---\nkind: ServiceEntry\nmetadata: {name: own, namespace: shop}\n\
                 spec: {hosts: [own.test], exportTo: ['~'], location: MESH_INTERNAL, resolution: STATIC, workloadSelector: {labels: {app: web}},\
                 \x20 ports: [{number: 7005, name: http, protocol: HTTP}]}\n";
    let mut mesh = Mesh::sidecar(&(hidden + entry));
    mesh.proxy.labels.insert("app".to_owned(), "web".to_owned());
    let output = mesh.compile();
    assert!(!output.has_cluster("outbound|7005||own.test"));
    assert_eq!(chains(&output, Some(7005)).len(), 2);
}
