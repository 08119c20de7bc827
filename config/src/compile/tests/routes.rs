//! What the rules of virtual services become.

use super::mesh::{Mesh, Output, service};
use crate::resource::{Destinations, PathRewrite, RouteAction, VirtualHost};

/// A virtual service of `namespace`; `rest` are fields of its metadata and then of its spec.
pub(super) fn virtual_service(name: &str, namespace: &str, metadata: &str, spec: &str) -> String {
    format!(
        "kind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}{metadata}}}\nspec: {{{spec}}}\n---\n"
    )
}

/// Each route as `name: path -> where`, with the headers, rewrites and weights that change what upstreams see.
pub(super) fn lines(host: &VirtualHost) -> Vec<String> {
    let line = |route: &crate::resource::Route| {
        let path = match &route.matches.path {
            crate::resource::PathMatch::Prefix(path) => format!("{path}*"),
            crate::resource::PathMatch::Path(path) | crate::resource::PathMatch::SafeRegex(path) => {
                path.to_string()
            }
        };
        let to = match &route.action {
            RouteAction::Forward(forward) => match &forward.destinations {
                Destinations::Cluster(cluster) => cluster.to_string(),
                Destinations::Weighted(clusters) => {
                    let one = |it: &crate::resource::WeightedCluster| format!("{} {}", it.weight, it.cluster);
                    clusters.iter().map(one).collect::<Vec<_>>().join(" + ")
                }
            },
            RouteAction::Redirect(redirect) => redirect.status.as_u16().to_string(),
            RouteAction::DirectResponse(response) => response.status.as_u16().to_string(),
        };
        format!("{}: {path} -> {to}", route.name)
    };
    host.routes.iter().map(line).collect()
}

#[track_caller]
fn check(spec: &str, expected: &[&str]) -> Output {
    let mesh = service("web") + &service("other") + &virtual_service("v", "shop", "", spec);
    let output = Mesh::new(&mesh).seen_by(|proxy| {
        proxy.labels.insert("app".to_owned(), "client".to_owned());
    });
    let output = output.compile();
    assert_eq!(lines(output.host("web.shop.svc.cluster.local")), expected, "{spec}");
    output
}

pub(super) const WEB: &str = "outbound|80||web.shop.svc.cluster.local";
pub(super) const OTHER: &str = "outbound|80||other.shop.svc.cluster.local";

#[test]
fn rules_in_order_until_one_catches_all() {
    let to = "route: [{destination: {host: other}}]";
    check(
        &format!(
            "hosts: [web], http: [\
             {{name: a, match: [{{uri: {{prefix: /a}}}}, {{name: m, uri: {{exact: /b}}}}], {to}}},\
             {{name: b, match: [{{uri: {{prefix: /c}}}}, {{uri: {{prefix: /}}}}, {{uri: {{prefix: /d}}}}], {to}}},\
             {{name: c, {to}}}]"
        ),
        &[
            &format!("a: /a* -> {OTHER}"),
            &format!("a.m: /b -> {OTHER}"),
            &format!("b: /c* -> {OTHER}"),
            &format!("b: /* -> {OTHER}"),
        ],
    );
    check(
        &format!("hosts: [web], http: [{{{to}}}, {{name: unreachable, {to}}}]"),
        &[&format!(": /* -> {OTHER}")],
    );
}

#[test]
fn matches_that_are_known_when_compiled() {
    let default = format!("default: /* -> {WEB}");
    let other = format!(": /* -> {OTHER}");
    let check = |condition: &str, holds: bool| {
        let spec = format!(
            "hosts: [web], http: [{{match: [{{{condition}}}], route: [{{destination: {{host: other}}}}]}}]"
        );
        check(&spec, &[if holds { &other } else { &default }]);
    };
    check("port: 80", true);
    check("port: 81", false);
    check("port: 0", true);
    check("sourceLabels: {app: client}", true);
    check("sourceLabels: {app: x}", false);
    check("sourceLabels: {topology.kubernetes.io/region: r1}", true);
    check("sourceNamespace: shop", true);
    check("sourceNamespace: ops", false);
    check("gateways: [mesh]", true);
    check("gateways: [public]", false);
    // Istio looks at the labels only where no gateways are given.
    check("gateways: [mesh], sourceLabels: {app: x}", true);
    check("headers: {'@request.auth.claims.sub': {exact: a}}", false);
}

#[test]
fn destinations() {
    let check = |route: &str, expected: &str| {
        check(&format!("hosts: [web], http: [{{route: [{route}]}}]"), &[&format!(": /* -> {expected}")]);
    };
    check("{destination: {host: other}, weight: 0}", OTHER);
    check(
        "{destination: {host: other.ops.svc.cluster.local, subset: v1, port: {number: 81}}}",
        "outbound|81|v1|other.ops.svc.cluster.local",
    );
    check("{destination: {host: nowhere}}", "outbound|80||nowhere.shop.svc.cluster.local");
    check(
        "{destination: {host: web}, weight: 3}, {destination: {host: x}, weight: 0}, {destination: {host: other}, weight: 1}",
        &format!("3 {WEB} + 1 {OTHER}"),
    );
}

#[test]
fn unusable_rules_are_left_out_and_found() {
    let check = |rule: &str, path: &str| {
        let output = check(&format!("hosts: [web], http: [{{{rule}}}]"), &[&format!("default: /* -> {WEB}")]);
        let [finding] = &output.compiled.findings[..] else { panic!("{:?}", output.compiled.findings) };
        assert_eq!((finding.code, finding.path.as_str()), ("unusable-rule", path));
    };
    check("route: []", "spec.http[0].route");
    check("route: [{destination: {host: web}}, {destination: {host: other}}]", "spec.http[0].route");
    check("redirect: {redirectCode: 200}", "spec.http[0].redirect.redirectCode");
    check("directResponse: {status: 99}", "spec.http[0].directResponse.status");
    check("match: [{headers: {'a b': {}}}], route: [{destination: {host: web}}]", "spec.http[0].match");
}

#[test]
fn headers_hosts_and_paths() {
    let output = check(
        "hosts: [web], http: [{\
         headers: {request: {set: {x-rule: a, host: rule.example}}},\
         rewrite: {uri: /new}, timeout: 2s, retries: {attempts: 0},\
         route: [{destination: {host: web}, headers: {request: {set: {x-rule: b, host: destination.example}}}}]}]",
        &[&format!(": /* -> {WEB}")],
    );
    let route = &output.host("web.shop.svc.cluster.local").routes[0];
    let values: Vec<&str> =
        route.headers.as_ref().unwrap().request_add.iter().map(|header| header.value.text()).collect();
    assert_eq!(values, ["a", "b"]);
    let RouteAction::Forward(forward) = &route.action else { panic!() };
    assert_eq!(&*forward.host_rewrite.as_ref().unwrap().literal, "rule.example");
    assert_eq!(forward.path_rewrite, Some(PathRewrite::Prefix("/new".into())));
    assert_eq!((forward.timeout.as_secs(), forward.max_grpc_timeout), (2, Some(forward.timeout)));
    assert_eq!(forward.retry_policy, None);

    let output = check(
        "hosts: [web], http: [{rewrite: {authority: rewrite.example}, route: [\
         {destination: {host: web}, weight: 1, headers: {request: {set: {host: destination.example}}}},\
         {destination: {host: other}, weight: 1}]}]",
        &[&format!(": /* -> 1 {WEB} + 1 {OTHER}")],
    );
    let RouteAction::Forward(forward) = &output.host("web.shop.svc.cluster.local").routes[0].action else {
        panic!()
    };
    let Destinations::Weighted(clusters) = &forward.destinations else { panic!() };
    assert_eq!(&*forward.host_rewrite.as_ref().unwrap().literal, "rewrite.example");
    assert_eq!(&*clusters[0].host_rewrite.as_ref().unwrap().literal, "destination.example");
}

#[test]
fn origins_name_the_object_and_the_line_it_begins_on() {
    let output =
        check("hosts: [web], http: [{route: [{destination: {host: web}}]}]", &[&format!(": /* -> {WEB}")]);
    let origin = output.host("web.shop.svc.cluster.local").routes[0].origin.clone().unwrap();
    assert_eq!(origin.to_string(), "VirtualService shop/v (mesh.yaml:11)");
}

#[test]
fn nothing_that_is_written_makes_it_fail() {
    let odd = "
kind: Service
metadata: {name: '', namespace: ''}
spec: {clusterIP: nonsense, clusterIPs: ['', x], ports: [{port: 0}, {port: 80, name: '-'}, {port: 80}]}
---
kind: Service
metadata: {name: '*', namespace: '*'}
spec: {type: ExternalName, externalName: '', ports: [{port: 80, name: http}]}
---
kind: EndpointSlice
metadata: {name: e, namespace: '', labels: {kubernetes.io/service-name: ''}}
endpoints: [{addresses: []}, {addresses: ['']}, {addresses: [1.2.3.4], targetRef: {kind: Pod}}]
ports: [{}, {port: 0}, {name: '-', port: 1}]
---
kind: Pod
metadata: {name: '', namespace: '', generateName: '', labels: {istio-locality: ///, pod-template-hash: ''}}
---
kind: DestinationRule
metadata: {name: d, namespace: ''}
spec:
  host: ''
  subsets: [{name: ''}, {name: a}, {name: a}]
  exportTo: ['', ., '*', '~']
---
kind: DestinationRule
metadata: {name: w, namespace: ''}
spec:
  host: '*'
  trafficPolicy:
    loadBalancer: {localityLbSetting: {distribute: [{from: '*', to: {'': 0}}, {}], failover: [{}], failoverPriority: ['', '=']}}
    outlierDetection: {}
    connectionPool: {tcp: {connectTimeout: 0s, maxConnections: -5}, http: {maxRequestsPerConnection: -1}}
    portLevelSettings: [{}, {port: {number: 4294967295}}]
---
kind: VirtualService
metadata: {name: v, namespace: ''}
spec:
  hosts: ['', '*', '*.', '**', ':', '[::1]', 'é', '*é']
  http:
  - {match: [{}], route: [{destination: {host: '', port: {number: 4294967295}}, weight: -1}]}
---
kind: VirtualService
metadata: {name: x, namespace: ''}
spec:
  hosts: ['*']
  http:
  - {delegate: {}}
  - {match: [{uri: {prefix: ''}}], redirect: {uri: '', port: 0}}
  - {match: [{uri: {regex: ''}}], directResponse: {status: 200, body: {}}, retries: {attempts: 2147483647, backoff: 2562047h}}
  - {route: []}
  - {}
";
    let mut mesh = Mesh::new(odd).seen_by(|proxy| {
        proxy.namespace = "".into();
        proxy.dns_domain = "".into();
        proxy.ips = Vec::new();
    });
    for target in ["", ".", "a..b", "é"] {
        mesh.listen_service(target, 0);
    }
    mesh.listen_outbound(0);
    let output = mesh.compile();
    // Envoy would refuse a route configuration that has a domain twice.
    for routes in &output.compiled.update.routes {
        let domains: Vec<&str> =
            routes.virtual_hosts.iter().flat_map(|host| &host.domains).map(|it| &**it).collect();
        let distinct: std::collections::HashSet<&str> = domains.iter().copied().collect();
        assert_eq!(distinct.len(), domains.len(), "{domains:?}");
        assert!(!distinct.contains(""));
    }
}
