//! Which rules shape clusters, and who their endpoints are.

use std::time::Duration;

use super::mesh::{Mesh, Output, service, service_in};
use crate::resource::{
    CircuitBreakers, DiscoveryType, HttpProtocol, LoadBalancingPolicy, TcpKeepalive, TransportSocket,
    UpstreamTlsMode,
};

const WEB: &str = "outbound|80||web.shop.svc.cluster.local";

fn rule(name: &str, namespace: &str, metadata: &str, spec: &str) -> String {
    format!(
        "kind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}{metadata}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn with_policy(policy: &str) -> Output {
    Mesh::new(&(service("web") + &rule("r", "shop", "", &format!("host: web, trafficPolicy: {{{policy}}}"))))
        .compile()
}

#[test]
fn balancers() {
    let check = |policy: &str, discovery, balancing| {
        let output = with_policy(policy);
        let cluster = output.cluster(WEB);
        assert_eq!((cluster.discovery, cluster.load_balancing), (discovery, balancing), "{policy}");
        assert_eq!(output.resources.endpoints.contains_key(WEB), discovery == Eds);
    };
    let simple = |name: &str| format!("loadBalancer: {{simple: {name}}}");
    use DiscoveryType::{Eds, OriginalDst};
    check("", Eds, LoadBalancingPolicy::LeastRequest);
    check(&simple("UNSPECIFIED"), Eds, LoadBalancingPolicy::LeastRequest);
    check(&simple("LEAST_CONN"), Eds, LoadBalancingPolicy::LeastRequest);
    check(&simple("LEAST_REQUEST"), Eds, LoadBalancingPolicy::LeastRequest);
    check(&simple("ROUND_ROBIN"), Eds, LoadBalancingPolicy::RoundRobin);
    check(&simple("RANDOM"), Eds, LoadBalancingPolicy::Random);
    check(&simple("PASSTHROUGH"), OriginalDst, LoadBalancingPolicy::ClusterProvided);
    check("loadBalancer: {consistentHash: {useSourceIp: true}}", Eds, LoadBalancingPolicy::LeastRequest);
}

#[test]
fn connection_pools() {
    let output = with_policy(
        "connectionPool: {tcp: {maxConnections: 7, connectTimeout: 3s, idleTimeout: 5s, tcpKeepalive: {time: 9s}}, \
         http: {http1MaxPendingRequests: 0, http2MaxRequests: 8, maxRetries: -1, maxRequestsPerConnection: 2}}",
    );
    let cluster = output.cluster(WEB);
    let breakers = CircuitBreakers { max_connections: 7, max_requests: 8, ..CircuitBreakers::default() };
    assert_eq!(cluster.circuit_breakers, breakers);
    assert_eq!(cluster.connect_timeout, Duration::from_secs(3));
    assert_eq!(cluster.idle_timeout, Duration::from_secs(5));
    assert_eq!(cluster.max_requests_per_connection, Some(2));
    let time = Some(Duration::from_secs(9));
    assert_eq!(cluster.tcp_keepalive, Some(TcpKeepalive { time, ..TcpKeepalive::default() }));

    let output = with_policy("connectionPool: {tcp: {idleTimeout: 5s}, http: {idleTimeout: 6s}}");
    assert_eq!(output.cluster(WEB).idle_timeout, Duration::from_secs(6));
    let output = with_policy("");
    let cluster = output.cluster(WEB);
    assert_eq!(cluster.idle_timeout, Duration::from_secs(3600));
    assert_eq!(cluster.connect_timeout, Duration::from_secs(10));
    assert_eq!((cluster.tcp_keepalive, cluster.max_requests_per_connection), (None, None));
}

#[test]
fn mesh_defaults_hold_where_rules_are_silent() {
    let text = service("web")
        + &rule(
            "r",
            "shop",
            "",
            "host: web, trafficPolicy: {connectionPool: {tcp: {tcpKeepalive: {probes: 3}}}}",
        );
    let output = Mesh::new(&text)
        .configure(|mesh| {
            mesh.connect_timeout = Some(crate::istio::GoDuration(Duration::from_secs(4)));
            mesh.tcp_keepalive = Some(serde_saphyr::from_str("{probes: 9, interval: 7s}").unwrap());
        })
        .compile();
    let interval = Some(Duration::from_secs(7));
    let merged = TcpKeepalive { probes: Some(3), time: None, interval };
    let cluster = output.cluster(WEB);
    assert_eq!((cluster.connect_timeout.as_secs(), cluster.tcp_keepalive), (4, Some(merged)));
    assert_eq!(
        output.cluster("PassthroughCluster").tcp_keepalive,
        Some(TcpKeepalive { probes: Some(9), ..merged })
    );
}

#[test]
fn protocols() {
    let check = |port: &str, http: &str, expected| {
        let policy = format!("host: web, trafficPolicy: {{connectionPool: {{http: {{{http}}}}}}}");
        let output =
            Mesh::new(&(service_in("web", "shop", port) + &rule("r", "shop", "", &policy))).compile();
        assert_eq!(output.cluster(WEB).protocol, expected, "{port} {http}");
    };
    check("http", "", HttpProtocol::Http1);
    check("tcp", "", HttpProtocol::Http1);
    check("grpc", "", HttpProtocol::Http2);
    check("x", "", HttpProtocol::Downstream);
    check("http", "useClientProtocol: true", HttpProtocol::Downstream);
    check("grpc", "useClientProtocol: true, h2UpgradePolicy: UPGRADE", HttpProtocol::Downstream);
    check("http", "h2UpgradePolicy: UPGRADE", HttpProtocol::Http2);
    check("x", "h2UpgradePolicy: UPGRADE", HttpProtocol::Http2);
    check("grpc", "h2UpgradePolicy: DO_NOT_UPGRADE", HttpProtocol::Http2);
}

#[test]
fn explicit_tls() {
    let check = |tls: &str, mode: UpstreamTlsMode, sni: &str| {
        let output = with_policy(&format!("tls: {{{tls}}}"));
        let cluster = output.cluster(WEB);
        assert!(cluster.transport_socket_matches.is_empty(), "{tls}");
        let TransportSocket::Tls(told) = &cluster.transport_socket else { panic!("{tls}") };
        assert_eq!((told.mode, &*told.sni), (mode, sni), "{tls}");
        assert_eq!(told.origin.as_ref().unwrap().object.to_string(), "DestinationRule shop/r");
    };
    check("mode: SIMPLE", UpstreamTlsMode::Simple, "");
    check("mode: SIMPLE, sni: a.b", UpstreamTlsMode::Simple, "a.b");
    check("mode: SIMPLE, credentialName: secret", UpstreamTlsMode::Simple, "");
    check("mode: MUTUAL, sni: a.b", UpstreamTlsMode::Mutual, "a.b");
    check("mode: ISTIO_MUTUAL", UpstreamTlsMode::IstioMutual, "outbound_.80_._.web.shop.svc.cluster.local");
    check("mode: ISTIO_MUTUAL, sni: a.b", UpstreamTlsMode::IstioMutual, "a.b");
    for tls in ["mode: DISABLE", ""] {
        let output = with_policy(&format!("tls: {{{tls}}}"));
        let cluster = output.cluster(WEB);
        assert_eq!(cluster.transport_socket, TransportSocket::RawBuffer);
        assert!(cluster.transport_socket_matches.is_empty());
    }
}

/// Which rule shapes `web.ops`, by the subset it brings; `rules` are name, namespace, metadata, spec.
#[track_caller]
fn check_rule(rules: &[(&str, &str, &str, &str)], expected: &[&str]) {
    let mut text = service_in("web", "ops", "http");
    for (name, namespace, metadata, spec) in rules {
        let subset = format!("subsets: [{{name: {name}}}], host: web.ops.svc.cluster.local, {spec}");
        text += &rule(name, namespace, metadata, &subset);
    }
    let output = Mesh::new(&text).seen_by(|proxy| {
        proxy.labels.insert("app".to_owned(), "client".to_owned());
    });
    let output = output.compile();
    let names = output.resources.clusters.keys().filter_map(|name| name.strip_prefix("outbound|80|"));
    let subsets = names.filter_map(|rest| rest.strip_suffix("|web.ops.svc.cluster.local"));
    assert_eq!(subsets.filter(|subset| !subset.is_empty()).collect::<Vec<_>>(), expected, "{rules:?}");
}

#[test]
fn which_rule_holds() {
    check_rule(&[], &[]);
    check_rule(&[("a", "other", "", "")], &[]);
    check_rule(&[("a", "istio-system", "", "")], &["a"]);
    check_rule(&[("a", "istio-system", "", ""), ("b", "ops", "", "")], &["b"]);
    check_rule(&[("a", "istio-system", "", ""), ("b", "ops", "", ""), ("c", "shop", "", "")], &["c"]);
    check_rule(&[("a", "istio-system", "", ""), ("b", "ops", "", "exportTo: [.]")], &["a"]);
    check_rule(&[("a", "ops", "", "exportTo: [other]")], &[]);
    check_rule(&[("a", "ops", "", "exportTo: [other, shop]")], &["a"]);
    check_rule(&[("a", "istio-system", "", "exportTo: [.]")], &[]);
    check_rule(&[("a", "shop", "", "exportTo: [ops]")], &[]);
}

#[test]
fn rules_of_one_host_are_merged() {
    check_rule(&[("a", "ops", "", ""), ("b", "ops", "", "")], &["a", "b"]);
    // Those that other namespaces see are not; of these, the last in order counts.
    check_rule(&[("a", "ops", "", "exportTo: [shop]"), ("b", "ops", "", "")], &["b"]);
    // A rule for some workloads counts only for those, and only in its namespace.
    let client = "workloadSelector: {matchLabels: {app: client}}";
    let server = "workloadSelector: {matchLabels: {app: server}}";
    check_rule(&[("a", "shop", "", ""), ("b", "shop", "", client)], &["b"]);
    check_rule(&[("a", "shop", "", ""), ("b", "shop", "", server)], &["a"]);
    check_rule(&[("b", "shop", "", server)], &[]);
    check_rule(&[("b", "ops", "", client)], &[]);
}

#[test]
fn of_merged_rules_the_oldest_says_the_policy() {
    let policy =
        |balancer: &str| format!("host: web, trafficPolicy: {{loadBalancer: {{simple: {balancer}}}}}");
    let text = service("web")
        + &rule("a", "shop", ", creationTimestamp: '2021-01-01T00:00:00Z'", &policy("RANDOM"))
        + &rule("b", "shop", ", creationTimestamp: '2020-01-01T00:00:00Z'", &policy("ROUND_ROBIN"))
        + &rule(
            "c",
            "shop",
            ", creationTimestamp: '2019-01-01T00:00:00Z'",
            "host: web, subsets: [{name: v1}]",
        );
    let output = Mesh::new(&text).compile();
    let cluster = output.cluster(WEB);
    assert_eq!(cluster.load_balancing, LoadBalancingPolicy::RoundRobin);
    assert_eq!(&*cluster.metadata.origin.as_ref().unwrap().object.name, "c");
}

#[test]
fn exact_rules_before_wildcards() {
    let text = service("web")
        + &rule("w", "shop", "", "host: '*.cluster.local', trafficPolicy: {loadBalancer: {simple: RANDOM}}")
        + &rule(
            "e",
            "shop",
            "",
            "host: web, subsets: [{name: v1, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}]",
        )
        + &service("other");
    let output = Mesh::new(&text).compile();
    let balancing = |name: &str| output.cluster(name).load_balancing;
    assert_eq!(balancing(WEB), LoadBalancingPolicy::LeastRequest);
    assert_eq!(balancing("outbound|80|v1|web.shop.svc.cluster.local"), LoadBalancingPolicy::RoundRobin);
    assert_eq!(balancing("outbound|80||other.shop.svc.cluster.local"), LoadBalancingPolicy::Random);
    let origin = output.cluster("outbound|80|v1|web.shop.svc.cluster.local").metadata.origin.clone().unwrap();
    assert_eq!(&*origin.object.name, "e");
}

#[test]
fn services_that_the_proxy_does_not_see_have_no_clusters() {
    let text = service("web") + &service_in("far", "ops", "http");
    let output =
        Mesh::new(&text).configure(|mesh| mesh.default_service_export_to = vec![".".to_owned()]).compile();
    assert!(output.has_cluster(WEB));
    assert!(!output.has_cluster("outbound|80||far.ops.svc.cluster.local"));
    assert_eq!(output.hosts(), ["web.shop.svc.cluster.local:80"]);
}

/// Endpoints of `web` (`pods` are name, node and further fields of the endpoint, and labels), as
/// `priority region/zone/subzone*weight: addresses`.
fn groups(
    pods: &[(&str, &str, &str, &str)],
    rest: &str,
    proxy: impl FnOnce(&mut crate::compile::Proxy),
) -> Vec<String> {
    let node = |name: &str, region: &str, zone: &str| {
        format!(
            "kind: Node\nmetadata: {{name: {name}, labels: {{topology.kubernetes.io/region: {region}, topology.kubernetes.io/zone: {zone}}}}}\n---\n"
        )
    };
    let mut text =
        service("web") + &node("n1", "r1", "r1-a") + &node("n2", "r1", "r1-b") + &node("n3", "r2", "r2-a");
    let mut endpoints = String::new();
    for (at, (name, node, endpoint, labels)) in pods.iter().enumerate() {
        text += &format!(
            "kind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}\nspec: {{nodeName: {node}}}\n---\n"
        );
        let address = at + 1;
        endpoints += &format!(
            "{{addresses: [10.0.0.{address}], targetRef: {{kind: Pod, name: {name}}}, {endpoint}}}, "
        );
    }
    text += &format!(
        "kind: EndpointSlice\nmetadata: {{name: web-x, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\n\
         endpoints: [{endpoints}]\nports: [{{name: http, port: 8080}}]\n---\n{rest}"
    );
    let output = Mesh::new(&text).seen_by(proxy).compile();
    let groups = output.endpoints(WEB).localities.iter().map(|group| {
        let addresses: Vec<String> = group.endpoints.iter().map(|it| it.address.ip().to_string()).collect();
        let addresses = addresses.join(" ").replace("10.0.0.", "");
        format!("{} {}*{}: {addresses}", group.priority, group.locality, group.weight)
    });
    groups.collect()
}

const PODS: [(&str, &str, &str, &str); 4] = [
    ("a", "n3", "", "v: '1'"),
    ("b", "n1", "", "v: '2'"),
    ("c", "n2", "", "v: '1'"),
    ("d", "n1", "", "v: '1'"),
];

#[track_caller]
fn check_groups(policy: &str, expected: &[&str]) {
    let rule = rule("r", "shop", "", &format!("host: web, trafficPolicy: {{{policy}}}"));
    let made = groups(&PODS, &rule, |proxy| {
        proxy.labels.insert("v".to_owned(), "1".to_owned());
    });
    assert_eq!(made, expected, "{policy}");
}

#[test]
fn localities() {
    let flat = ["0 r1/r1-a/*2: 2 4", "0 r1/r1-b/*1: 3", "0 r2/r2-a/*1: 1"];
    check_groups("", &flat);
    // Outlier detection turns on failover from the proxy's zone to its region to the rest.
    let by_distance = ["0 r1/r1-a/*2: 2 4", "1 r1/r1-b/*1: 3", "2 r2/r2-a/*1: 1"];
    check_groups("outlierDetection: {}", &by_distance);
    check_groups("outlierDetection: {}, loadBalancer: {localityLbSetting: {enabled: false}}", &flat);
    check_groups("loadBalancer: {localityLbSetting: {failover: [{from: r1, to: r2}]}}", &flat);
    let failover = "outlierDetection: {}, loadBalancer: {localityLbSetting: ";
    check_groups(&format!("{failover}{{failover: [{{from: r1, to: r3}}]}}}}"), &by_distance);
    check_groups(
        &format!("{failover}{{failoverPriority: [v]}}}}"),
        &["0 r1/r1-a/*1: 4", "1 r1/r1-a/*1: 2", "0 r1/r1-b/*1: 3", "0 r2/r2-a/*1: 1"],
    );
    check_groups(
        &format!("{failover}{{failoverPriority: [v=2, topology.kubernetes.io/region]}}}}"),
        &["0 r1/r1-a/*1: 2", "1 r1/r1-a/*1: 4", "1 r1/r1-b/*1: 3", "1 r2/r2-a/*1: 1"],
    );
    check_groups(
        "loadBalancer: {localityLbSetting: {distribute: [{from: 'r1/*', to: {'r1/*': 80, 'r2/*': 20}}]}}",
        &["0 r1/r1-a/*54: 2 4", "0 r1/r1-b/*27: 3", "0 r2/r2-a/*20: 1"],
    );
    check_groups(
        "loadBalancer: {localityLbSetting: {distribute: [{from: r1/r1-a, to: {r1/r1-a: 100}}]}}",
        &["0 r1/r1-a/*100: 2 4"],
    );
    check_groups("loadBalancer: {localityLbSetting: {distribute: [{from: r9, to: {r1/r1-a: 100}}]}}", &flat);
}

#[test]
fn priorities_have_no_gaps() {
    let pods = [("a", "n3", "", ""), ("b", "n2", "", "")];
    let rule = rule("r", "shop", "", "host: web, trafficPolicy: {outlierDetection: {}}");
    assert_eq!(groups(&pods, &rule, |_| {}), ["0 r1/r1-b/*1: 2", "1 r2/r2-a/*1: 1"]);
}

#[test]
fn localities_are_weighted_where_istiod_says_so() {
    let check = |policy: &str, expected| {
        assert_eq!(with_policy(policy).cluster(WEB).locality_weighted, expected, "{policy}");
    };
    check("outlierDetection: {}", false);
    check("loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}", false);
    check("outlierDetection: {}, loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}", true);
    check("outlierDetection: {}, loadBalancer: {localityLbSetting: {failoverPriority: [a]}}", true);
    check("loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 100}}]}}", true);
    check(
        "loadBalancer: {localityLbSetting: {enabled: false, distribute: [{from: a, to: {b: 100}}]}}",
        false,
    );
}

#[test]
fn which_endpoints_are_used() {
    let check = |endpoint: &str, labels: &str, rest: &str, expected: &[&str]| {
        assert_eq!(groups(&[("a", "n1", endpoint, labels)], rest, |_| {}), expected, "{endpoint}");
    };
    let used = ["0 r1/r1-a/*1: 1"];
    check("", "", "", &used);
    check("conditions: {ready: true}", "", "", &used);
    check("conditions: {ready: false}", "", "", &[]);
    let publish = service("web").replace("clusterIP", "publishNotReadyAddresses: true, clusterIP");
    check("conditions: {ready: false}", "", &publish, &used);
    check("", "istio-locality: r7.z8.s9", "", &["0 r7/z8/s9*1: 1"]);
}

#[test]
fn an_endpoint_whose_pod_is_missing_is_left_out_and_found() {
    let text = service("web")
        + "kind: EndpointSlice\nmetadata: {name: web-x, namespace: shop, labels: {kubernetes.io/service-name: web}}\n\
           endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: gone}}, {addresses: [10.0.0.2]}]\n\
           ports: [{name: http, port: 8080}]\n";
    let output = Mesh::new(&text).compile();
    assert_eq!(output.codes(), ["endpoint-without-pod"]);
    let [group] = &output.endpoints(WEB).localities[..] else { panic!() };
    let [endpoint] = &group.endpoints[..] else { panic!() };
    assert_eq!(endpoint.address.to_string(), "10.0.0.2:8080");
    assert_eq!(endpoint.metadata.tls_mode, None);
}

/// Clusters of a service with two pods, one with a sidecar.
fn two_pods(cluster_ip: &str, policy: &str, second: &str) -> Output {
    let pod = |name: &str, labels: &str| {
        format!("kind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}\n---\n")
    };
    let text = service("web").replace("10.0.0.1", cluster_ip)
        + &pod("a", "security.istio.io/tlsMode: istio, version: v1")
        + &pod("b", second)
        + "kind: EndpointSlice\nmetadata: {name: web-x, namespace: shop, labels: {kubernetes.io/service-name: web}}\n\
           endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: a}}, {addresses: [10.0.0.2], targetRef: {kind: Pod, name: b}}]\n\
           ports: [{name: http, port: 8080}]\n---\n"
        + &rule(
            "r",
            "shop",
            "",
            &format!(
                "host: web, trafficPolicy: {{{policy}}}, subsets: [{{name: v1, labels: {{version: v1}}}}]"
            ),
        );
    Mesh::new(&text).compile()
}

#[test]
fn endpoints_say_whether_they_accept_mutual_tls() {
    let check = |policy: &str, expected: &[Option<&str>]| {
        let output = two_pods("10.0.0.9", policy, "");
        let modes =
            output.endpoints(WEB).localities[0].endpoints.iter().map(|it| it.metadata.tls_mode.as_deref());
        assert_eq!(modes.collect::<Vec<_>>(), expected, "{policy}");
        let subset = output.endpoints("outbound|80|v1|web.shop.svc.cluster.local");
        assert_eq!(subset.localities[0].endpoints.len(), 1);
    };
    check("", &[Some("istio"), None]);
    check("tls: {mode: ISTIO_MUTUAL}", &[Some("istio"), None]);
    check("tls: {mode: DISABLE}", &[None, None]);
    check("tls: {mode: SIMPLE}", &[None, None]);
}

#[test]
fn to_endpoints_that_clients_choose_tls_is_spoken_by_all_or_none() {
    let check = |policy: &str, second: &str, cluster_ip: &str, expected: bool| {
        let output = two_pods(cluster_ip, policy, second);
        let cluster = output.cluster(WEB);
        assert_eq!(cluster.discovery, DiscoveryType::OriginalDst, "{policy} {second}");
        assert!(cluster.transport_socket_matches.is_empty());
        let is_tls = matches!(&cluster.transport_socket, TransportSocket::Tls(tls) if tls.origin.is_none());
        assert_eq!(is_tls, expected, "{policy} {second} {cluster_ip}");
    };
    let with_sidecar = "security.istio.io/tlsMode: istio";
    check("", with_sidecar, "None", true);
    check("", "", "None", false);
    check("", "security.istio.io/tlsMode: disabled", "None", false);
    check("loadBalancer: {simple: PASSTHROUGH}", with_sidecar, "10.0.0.9", true);
    check("loadBalancer: {simple: PASSTHROUGH}", "", "10.0.0.9", false);
}
