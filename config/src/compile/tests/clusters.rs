//! Which rules shape clusters, and how.

use std::time::Duration;

use super::mesh::{Mesh, Output, service, service_in};
use crate::resource::{
    CircuitBreakers, DiscoveryType, HttpProtocol, LoadBalancingPolicy, OutlierDetection, SlowStart,
    TcpKeepalive, TransportSocket, UpstreamTlsMode,
};

pub(super) const WEB: &str = "outbound|80||web.shop.svc.cluster.local";

pub(super) fn rule(name: &str, namespace: &str, metadata: &str, spec: &str) -> String {
    format!(
        "kind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}{metadata}}}\nspec: {{{spec}}}\n---\n"
    )
}

pub(super) fn with_policy(policy: &str) -> Output {
    Mesh::new(&(service("web") + &rule("r", "shop", "", &format!("host: web, trafficPolicy: {{{policy}}}"))))
        .compile()
}

#[test]
fn balancers() {
    let check = |policy: &str, discovery: DiscoveryType, balancing| {
        let output = with_policy(policy);
        let cluster = output.cluster(WEB);
        assert_eq!((&cluster.discovery, cluster.load_balancing), (&discovery, balancing), "{policy}");
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
    check(&simple("PASSTHROUGH"), OriginalDst, LoadBalancingPolicy::ClusterProvided { port: None });
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
    assert_eq!(cluster.tcp_keepalive.as_deref(), Some(&TcpKeepalive { time, ..TcpKeepalive::default() }));

    assert_eq!((cluster.max_connection_duration, cluster.max_concurrent_streams), (None, None));

    let output = with_policy(
        "connectionPool: {tcp: {idleTimeout: 5s, maxConnectionDuration: 7s}, http: {idleTimeout: 6s}}",
    );
    assert_eq!(output.cluster(WEB).max_connection_duration, Some(Duration::from_secs(7)));
    assert_eq!(output.cluster(WEB).idle_timeout, Duration::from_secs(6));
    let output = with_policy("");
    let cluster = output.cluster(WEB);
    assert_eq!(cluster.idle_timeout, Duration::from_secs(3600));
    assert_eq!(cluster.connect_timeout, Duration::from_secs(10));
    assert_eq!((&cluster.tcp_keepalive, cluster.max_requests_per_connection), (&None, None));
}

#[test]
fn warm_up() {
    let check = |balancer: &str, expected: Option<(u64, f64, f64)>| {
        let output = with_policy(&format!("loadBalancer: {{{balancer}}}"));
        let expected = expected.map(|(seconds, aggression, min_weight_percent)| SlowStart {
            window: Duration::from_secs(seconds),
            aggression,
            min_weight_percent,
        });
        assert_eq!(output.cluster(WEB).slow_start.as_deref(), expected.as_ref(), "{balancer}");
    };
    check("simple: ROUND_ROBIN", None);
    check("simple: ROUND_ROBIN, warmup: {duration: 30s}", Some((30, 1.0, 10.0)));
    check("warmup: {duration: 30s, aggression: 2.5, minimumPercent: 0}", Some((30, 2.5, 0.0)));
    check("simple: LEAST_REQUEST, warmupDurationSecs: 5s", Some((5, 1.0, 10.0)));
    check("simple: RANDOM, warmup: {duration: 30s}", None);
    check("simple: PASSTHROUGH, warmup: {duration: 30s}", None);
    check("consistentHash: {useSourceIp: true}, warmup: {duration: 30s}", None);
}

#[test]
fn outlier_detection() {
    let check = |settings: &str, expected: OutlierDetection, panic: u32| {
        let output = with_policy(&format!("outlierDetection: {{{settings}}}"));
        let cluster = output.cluster(WEB);
        assert_eq!(cluster.outlier_detection.as_deref(), Some(&expected), "{settings}");
        assert_eq!(cluster.healthy_panic_percent, panic, "{settings}");
    };
    let nothing = OutlierDetection::default();
    check("", nothing, 0);
    check(
        "consecutive5xxErrors: 0, consecutiveGatewayErrors: 3, interval: 5s, baseEjectionTime: 1500ms, \
         maxEjectionPercent: 50, minHealthPercent: 40",
        OutlierDetection {
            consecutive_5xx: Some(0),
            consecutive_gateway_failure: Some(3),
            interval: Some(Duration::from_secs(5)),
            base_ejection_time: Some(Duration::from_millis(1500)),
            max_ejection_percent: Some(50),
            ..nothing
        },
        40,
    );
    check("maxEjectionPercent: 0, consecutiveLocalOriginFailures: 4", nothing, 0);
    let split = OutlierDetection { split_external_local_origin_errors: true, ..nothing };
    check("splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 0", split, 0);
    check(
        "splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 4",
        OutlierDetection { consecutive_local_origin_failure: Some(4), ..split },
        0,
    );
    assert_eq!(with_policy("").cluster(WEB).outlier_detection, None);
}

#[test]
fn keep_alive_is_what_the_kernel_takes() {
    let check =
        |written: &str, mesh: &str, (probes, time, interval): (Option<u32>, Option<u64>, Option<u64>)| {
            let policy = format!("connectionPool: {{tcp: {{tcpKeepalive: {{{written}}}}}}}");
            let text =
                service("web") + &rule("r", "shop", "", &format!("host: web, trafficPolicy: {{{policy}}}"));
            let mesh = crate::testing::from_yaml(&format!("{{{mesh}}}")).unwrap();
            let output = Mesh::new(&text).configure(|config| config.tcp_keepalive = Some(mesh)).compile();
            let seconds = |told: Option<u64>| told.map(Duration::from_secs);
            let wanted = TcpKeepalive { probes, time: seconds(time), interval: seconds(interval) };
            assert_eq!(output.cluster(WEB).tcp_keepalive.as_deref(), Some(&wanted), "{written}");
        };
    check("time: 10h, interval: 32768s, probes: 128", "", (Some(127), Some(32_767), Some(32_767)));
    check("time: 2500ms", "probes: 1000", (Some(127), Some(2), None));
    // istiod tells the cluster 0, and not what the mesh says.
    check("time: 500ms", "time: 9s, interval: 999ms", (None, None, None));
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
            mesh.tcp_keepalive = Some(crate::testing::from_yaml("{probes: 9, interval: 7s}").unwrap());
        })
        .compile();
    let interval = Some(Duration::from_secs(7));
    let merged = TcpKeepalive { probes: Some(3), time: None, interval };
    let cluster = output.cluster(WEB);
    assert_eq!((cluster.connect_timeout.as_secs(), cluster.tcp_keepalive.as_deref()), (4, Some(&merged)));
    assert_eq!(
        output.cluster("PassthroughCluster").tcp_keepalive.as_deref(),
        Some(&TcpKeepalive { probes: Some(9), ..merged })
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
fn concurrent_streams_are_bounded_where_the_port_is_http2() {
    let check = |port: &str, http: &str, expected| {
        let policy = format!(
            "host: web, trafficPolicy: {{connectionPool: {{http: {{maxConcurrentStreams: 9{http}}}}}}}"
        );
        let output =
            Mesh::new(&(service_in("web", "shop", port) + &rule("r", "shop", "", &policy))).compile();
        assert_eq!(output.cluster(WEB).max_concurrent_streams, expected, "{port} {http}");
    };
    check("http2", "", Some(9));
    check("grpc", ", h2UpgradePolicy: UPGRADE", Some(9));
    check("grpc", ", useClientProtocol: true", None);
    check("http", "", None);
    check("http", ", h2UpgradePolicy: UPGRADE", None);
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

#[test]
fn a_service_says_by_an_annotation_who_sees_it() {
    let check = |written: &str, default: &str, own: bool, far: bool| {
        let annotated = |namespace: &str| {
            let metadata = format!(
                "name: web, namespace: {namespace}, annotations: {{networking.istio.io/exportTo: '{written}'}}"
            );
            service_in("web", namespace, "http")
                .replace(&format!("name: web, namespace: {namespace}"), &metadata)
        };
        let mesh = Mesh::new(&(annotated("shop") + &annotated("ops")));
        let output =
            mesh.configure(|mesh| mesh.default_service_export_to = vec![default.to_owned()]).compile();
        let seen = [WEB, "outbound|80||web.ops.svc.cluster.local"].map(|name| output.has_cluster(name));
        assert_eq!(seen, [own, far], "{written:?} {default}");
        let routed = output.hosts().iter().any(|host| host.starts_with("web.ops."));
        assert_eq!(routed, far, "{written:?} {default}");
    };
    check("", "*", true, true);
    check("", ".", true, false);
    check("*", ".", true, true);
    check(".", "*", true, false);
    check("shop", "*", true, true);
    check("dev , shop", "*", true, true);
    check("dev", "*", false, false);
    check("~", "*", false, false);
    check("~,*", "*", true, true);
    check("~,shop", "*", false, false);
}
