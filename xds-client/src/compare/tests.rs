//! What is found between two sets of resources.

use std::sync::Arc;
use std::time::Duration;

use config::origin::{ObjectRef, Origin, Place};
use config::{
    CircuitBreakers, Cluster, ClusterMetadata, DiscoveryType, HttpProtocol, LoadBalancingPolicy,
    TransportSocket, Update, UpstreamTls, UpstreamTlsMode,
};

use super::compare;

fn cluster(name: &str) -> Cluster {
    Cluster {
        name: name.into(),
        discovery: DiscoveryType::Static,
        load_balancing: LoadBalancingPolicy::Random,
        slow_start: None,
        locality_weighted: false,
        connect_timeout: Duration::from_secs(1),
        circuit_breakers: CircuitBreakers::default(),
        outlier_detection: None,
        healthy_panic_percent: 0,
        protocol: HttpProtocol::Http1,
        idle_timeout: Duration::from_secs(3600),
        max_requests_per_connection: None,
        max_connection_duration: None,
        max_concurrent_streams: None,
        tcp_keepalive: None,
        bind_addresses: Box::default(),
        transport_socket_matches: Vec::new(),
        transport_socket: TransportSocket::RawBuffer,
        metadata: ClusterMetadata::default(),
    }
}

fn tls(mode: UpstreamTlsMode) -> TransportSocket {
    let certificate = (mode == UpstreamTlsMode::IstioMutual).then(|| "default".into());
    TransportSocket::Tls(Box::new(UpstreamTls {
        mode,
        sni: "a".into(),
        by_request: config::ByRequest::default(),
        certificate,
        server: config::ServerCertificate::Any,
        alpn: [].into(),
        version_max: config::TlsVersion::V1_3,
        origin: None,
    }))
}

/// Differences between a cluster and the same with a change, `PATH TOLD COMPILED`.
fn check(change: impl FnOnce(&mut Cluster), expected: &[&str]) {
    let told = Update { clusters: vec![cluster("a")], ..Update::default() };
    let mut compiled = told.clone();
    change(&mut compiled.clusters[0]);
    let found: Vec<String> = compare(&told, &compiled).differences.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
}

#[test]
fn leaves_that_differ() {
    check(|_| {}, &[]);
    check(
        |it| it.connect_timeout = Duration::from_secs(2),
        &["Cluster a: connect_timeout\n  told:     \"1s\"\n  compiled: \"2s\""],
    );
    check(
        |it| it.max_requests_per_connection = Some(7),
        &[
            "Cluster a: typed_extension_protocol_options.envoy.extensions.upstreams.http.v3.HttpProtocolOptions.@type\n  \
             told:     nothing\n  compiled: \"type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"",
            "Cluster a: typed_extension_protocol_options.envoy.extensions.upstreams.http.v3.HttpProtocolOptions.\
             common_http_protocol_options.max_requests_per_connection\n  told:     nothing\n  compiled: 7",
            "Cluster a: typed_extension_protocol_options.envoy.extensions.upstreams.http.v3.HttpProtocolOptions.\
             explicit_http_config.http_protocol_options\n  told:     nothing\n  compiled: {}",
        ],
    );
    check(
        |it| it.name = "b".into(),
        &[
            "Cluster a\n  told:     \"a resource\"\n  compiled: nothing",
            "Cluster b\n  told:     nothing\n  compiled: \"a resource\"",
        ],
    );
}

/// The panic threshold of a cluster without services is in no JSON.
#[test]
fn what_json_does_not_show() {
    check(
        |it| it.healthy_panic_percent = 50,
        &["Cluster a: what Envoy's JSON does not show\n  told:     \"healthy_panic_percent: 0,\"\n  \
           compiled: \"healthy_panic_percent: 50,\""],
    );
}

#[test]
fn kinds_of_tls() {
    let mut told = Update { clusters: vec![cluster("a")], ..Update::default() };
    let mut compiled = told.clone();
    told.clusters[0].transport_socket = tls(UpstreamTlsMode::IstioMutual);
    compiled.clusters[0].transport_socket = tls(UpstreamTlsMode::Simple);
    let comparison = compare(&told, &compiled);
    assert!(comparison.differences.iter().any(|it| it.path == "Cluster a: tls_modes.own"), "{comparison:?}");
}

#[test]
fn places_are_dropped_and_counted() {
    let told = Update { clusters: vec![cluster("a")], ..Update::default() };
    let mut compiled = told.clone();
    let object = ObjectRef { kind: "DestinationRule".into(), namespace: "n".into(), name: "a".into() };
    let place = Place { file: Arc::from("a.yaml"), line: 3 };
    let mut of_xds = told.clone();
    of_xds.clusters[0].metadata.origin = Some(Box::new(Origin { object: object.clone(), place: None }));
    compiled.clusters[0].metadata.origin = Some(Box::new(Origin { object, place: Some(place) }));
    let comparison = compare(&of_xds, &compiled);
    assert!(comparison.is_equal(), "{comparison:?}");
    assert_eq!(comparison.dropped.get("Cluster.metadata.filter_metadata.weft.place"), Some(&1));
    // The object itself is compared.
    let differences = compare(&told, &compiled).differences;
    assert_eq!(differences[0].path, "Cluster a: metadata.filter_metadata.istio.config");
}

/// What an explanation names beside is nothing that a server would tell.
#[test]
fn who_told_what_is_no_difference() {
    let object = |kind: &str| ObjectRef { kind: kind.into(), namespace: "n".into(), name: "a".into() };
    let origin = |kind| Origin { object: object(kind), place: None };
    let redirect = |origin: Option<Origin>| config::RouteConfiguration {
        name: "http.80".into(),
        virtual_hosts: vec![Arc::new(config::VirtualHost {
            name: "a:80".into(),
            domains: vec!["a".into()],
            routes: vec![config::Route::to_https(origin.map(Box::new))],
            include_request_attempt_count: true,
        })],
        ignore_port_in_host_matching: true,
    };
    let mut told = Update { clusters: vec![cluster("a")], routes: vec![redirect(None)], ..Update::default() };
    told.clusters[0].metadata.origin = Some(Box::new(origin("DestinationRule")));
    let mut compiled = told.clone();
    compiled.routes = vec![redirect(Some(origin("Gateway")))];
    let fields = [(config::Setting::MaxConnections, origin("DestinationRule"))];
    compiled.clusters[0].metadata.fields = Some(Box::new(config::Fields(fields.into())));
    let comparison = compare(&told, &compiled);
    assert!(comparison.is_equal(), "{comparison:?}");
}
