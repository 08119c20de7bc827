//! Envoy's JSON of a mesh that uses everything compile makes.

use regex::Regex;
use serde_json::{Value, json};

use super::mesh::{Mesh, Output};
use crate::mesh::{Normalization, OutboundTrafficPolicy};
use crate::resource::envoy_json::{
    DumpPart, DumpSelection, StaticOptions, config_dump, route_configuration, static_bootstrap,
};

const EVERYTHING: &str = "
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: detected, port: 81}]}
---
kind: Service
metadata: {name: headless, namespace: shop}
spec: {clusterIP: None, ports: [{name: grpc, port: 80}]}
---
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {security.istio.io/tlsMode: istio}}
---
kind: EndpointSlice
metadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}
endpoints: [{addresses: [127.0.0.1], targetRef: {kind: Pod, name: web-1}}, {addresses: [127.0.0.2]}]
ports: [{name: http, port: 8080}, {name: detected, port: 8081}]
---
kind: EndpointSlice
metadata: {name: web-6, namespace: shop, labels: {kubernetes.io/service-name: web}}
endpoints: [{addresses: ['::1']}]
ports: [{name: http, port: 8080}]
---
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec:
  host: web
  trafficPolicy:
    outlierDetection: {}
    loadBalancer: {simple: RANDOM, localityLbSetting: {failover: [{from: r1, to: r2}]}}
    connectionPool:
      tcp: {tcpKeepalive: {probes: 3, time: 9s, interval: 2s}, connectTimeout: 250ms}
      http: {idleTimeout: 30s, maxRequestsPerConnection: 9, useClientProtocol: true}
    portLevelSettings: [{port: {number: 81}, tls: {mode: SIMPLE, sni: web.example}}]
  subsets:
  - {name: v1, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, tls: {mode: ISTIO_MUTUAL}}}
---
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - name: matches
    match:
    - uri: {prefix: /A}
      ignoreUriCase: true
      method: {regex: 'GET|HEAD'}
      scheme: {exact: http}
      authority: {prefix: web}
      headers: {x-a: {exact: a}, x-b: {prefix: b}, x-c: {regex: c+}, x-d: {}}
      withoutHeaders: {x-e: {exact: e}, x-f: {}}
      queryParams: {q: {regex: '[0-9]+'}, r: {}}
    route: [{destination: {host: web}}]
    headers: {request: {set: {x-g: '%PROTOCOL%'}, add: {x-h: h}, remove: [x-i]}, response: {add: {x-j: '100%%'}, remove: [x-k]}}
    rewrite: {uri: /b, authority: web.example}
    timeout: 1.5s
    retries: {attempts: 1, perTryTimeout: 1us, retryOn: '503,reset', backoff: 10ms, retryRemoteLocalities: true, retryIgnorePreviousHosts: false}
  - match: [{uri: {regex: /r/.*}}]
    rewrite: {uriRegexRewrite: {match: '^/r', rewrite: ''}}
    route:
    - {destination: {host: web, subset: v1}, weight: 1, headers: {request: {set: {host: v1.example}}, response: {set: {x-v: v1}}}}
    - {destination: {host: headless}, weight: 2}
  - {match: [{uri: {exact: /s}}], redirect: {uri: '/t?u=v', authority: a.b, scheme: https, port: 8443, redirectCode: 303}}
  - {match: [{uri: {prefix: /p/}}], redirect: {uri: '%PREFIX()%/q/', derivePort: FROM_REQUEST_PORT, redirectCode: 307}}
  - {match: [{uri: {exact: /d}}], directResponse: {status: 503, body: {string: later}}}
  - {match: [{uri: {exact: /b}}], directResponse: {status: 200, body: {bytes: /w==}}}
  - {directResponse: {status: 204}}
";

fn everything() -> Output {
    let mut mesh = Mesh::new(EVERYTHING).configure(|mesh| {
        mesh.path_normalization = Some(Normalization::DecodeAndMergeSlashes);
        mesh.outbound_traffic_policy = Some(OutboundTrafficPolicy::RegistryOnly);
        mesh.access_log_file = Some("/dev/stdout".to_owned());
        mesh.default_config.proxy_metadata.insert("ISTIO_META_HTTP10".to_owned(), "1".to_owned());
    });
    mesh.proxy.ips.push("::1".parse().unwrap());
    mesh.listen_service("web", 81);
    mesh.listen_service("absent", 80);
    let output = mesh.compile();
    assert_eq!(output.codes(), ["security-not-enforced", "unknown-listen-service", "never-ejects"]);
    output
}

/// The object in `list` whose `name` is that.
fn named<'v>(list: &'v Value, name: &str) -> &'v Value {
    let found = list.as_array().unwrap().iter().find(|value| value["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list:#}"))
}

const WEB: &str = "outbound|80||web.shop.svc.cluster.local";

#[test]
fn a_bootstrap_needs_no_control_plane() {
    let output = everything();
    let plain = static_bootstrap(&output.resources, StaticOptions::default());
    assert_eq!(plain.get("admin"), None);
    let text = plain.to_string();
    for word in
        ["\"ads\"", "\"EDS\"", "\"rds\"", "transport_socket_matches", "UpstreamTlsContext", "access_log"]
    {
        assert!(!text.contains(word), "{word}");
    }
    let resources = &plain["static_resources"];
    let cluster = named(&resources["clusters"], WEB);
    assert_eq!(cluster["type"], "STATIC");
    let endpoints = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
    assert_eq!(endpoints.as_array().unwrap().len(), 3);
    assert_eq!(
        named(&resources["clusters"], "outbound|80||headless.shop.svc.cluster.local")["type"],
        "ORIGINAL_DST"
    );
    let manager =
        &named(&resources["listeners"], "127.0.0.1_0")["filter_chains"][0]["filters"][0]["typed_config"];
    let host = named(&manager["route_config"]["virtual_hosts"], "web.shop.svc.cluster.local:80");
    assert_eq!(host["routes"].as_array().unwrap().len(), 7);

    let admin = Some("127.0.0.1:15000".parse().unwrap());
    let full = static_bootstrap(&output.resources, StaticOptions { admin, tls: true, access_log: true });
    assert_eq!(full["admin"]["address"]["socket_address"]["port_value"], 15000);
    let text = full.to_string();
    assert!(text.contains("transport_socket_matches") && text.contains("FileAccessLog"));
}

/// A dump of version 7, of all its pieces.
fn dump(resources: &crate::resource::Resources, wanted: &DumpSelection) -> Value {
    let proxy = crate::compile::Proxy::default();
    let text: String = config_dump(resources, &proxy, "7", wanted).collect();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_config_dump_has_envoys_shape() {
    let output = everything();
    let dump = dump(&output.resources, &DumpSelection::default());
    let parts = [
        ("envoy.admin.v3.ClustersConfigDump", "dynamic_active_clusters", "/cluster/name"),
        ("envoy.admin.v3.ListenersConfigDump", "dynamic_listeners", "/active_state/listener/name"),
        ("envoy.admin.v3.RoutesConfigDump", "dynamic_route_configs", "/route_config/name"),
        ("envoy.admin.v3.EndpointsConfigDump", "dynamic_endpoint_configs", "/endpoint_config/cluster_name"),
    ];
    let resources = &output.resources;
    let counts = [
        resources.clusters.len(),
        resources.listeners.len(),
        resources.routes.len(),
        resources.endpoints.len(),
    ];
    for ((at, (kind, list, name)), count) in parts.into_iter().enumerate().zip(counts) {
        let part = &dump["configs"][at + 1];
        assert_eq!(part["@type"], format!("type.googleapis.com/{kind}"));
        let list = part[list].as_array().unwrap();
        assert_eq!(list.len(), count, "{kind}");
        assert!(list.iter().all(|one| one.pointer(name).is_some_and(Value::is_string)), "{kind}");
        assert!(list.iter().all(|one| one.to_string().contains("\"version_info\":\"7\"")), "{kind}");
    }
}

/// What stands in memory at once is one entry, and of routes one virtual host.
#[test]
fn a_config_dump_is_made_in_pieces() {
    let resources = everything().resources;
    let routes = resources.routes.values().next().unwrap();
    let wanted = |part| DumpSelection {
        part: Some(part),
        name: Some(Regex::new(&format!("^{}$", routes.name)).unwrap()),
    };
    let found = dump(&resources, &wanted(DumpPart::Routes));
    let mut whole = route_configuration(routes);
    whole["@type"] = json!("type.googleapis.com/envoy.config.route.v3.RouteConfiguration");
    assert_eq!(found, json!({ "configs": [{ "version_info": "7", "route_config": whole }] }));
    let proxy = crate::compile::Proxy::default();
    let longest =
        config_dump(&resources, &proxy, "7", &wanted(DumpPart::Routes)).map(|piece| piece.len()).max();
    let hosts = &found["configs"][0]["route_config"]["virtual_hosts"];
    let host = hosts.as_array().unwrap().iter().map(|host| format!("{host:#}").len()).max();
    assert_eq!(longest, host, "a piece is longer than the longest virtual host");
    let none = dump(&resources, &DumpSelection { part: None, name: Some(Regex::new("^nothing$").unwrap()) });
    let fields = DumpPart::ALL.into_iter().zip(none["configs"].as_array().unwrap());
    for (part, config) in fields.skip(1) {
        assert_eq!(config[part.field()], json!([]), "{part:?}");
    }
}

#[test]
fn origins_stand_in_the_metadata() {
    let output = everything();
    let dump = dump(&output.resources, &DumpSelection::default());
    let clusters = dump["configs"][1]["dynamic_active_clusters"].as_array().unwrap();
    let cluster = clusters.iter().map(|it| &it["cluster"]).find(|it| it["name"] == WEB).unwrap();
    let metadata = &cluster["metadata"]["filter_metadata"];
    assert_eq!(
        metadata["istio"]["config"],
        "/apis/networking.istio.io/v1/namespaces/shop/destination-rule/web"
    );
    assert_eq!(metadata["weft"], json!({ "place": "mesh.yaml:23" }));
}
