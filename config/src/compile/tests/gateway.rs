//! Gateways: servers, hosts with their scope, redirects, TLS that is passed through, ports of the workload.

mod families;

use super::mesh::{Mesh, Output, service_in};
use crate::compile::{Mode, Request, compile_as};
use crate::mesh::{ForwardClientCertDetails, GatewayTopology, ProxyProtocol};
use crate::resource::{
    ClientCertificates, FilterChain, Fingerprint, ForwardClientCert, Listener, NetworkFilter, RouteAction,
    SecretContent, TcpDestinations,
};

const PORTS: &str = "
kind: Service
metadata: {name: edge, namespace: istio-system}
spec: {clusterIP: 10.0.0.9, selector: {istio: edge}, ports: [{name: http, port: 80}, {name: tls, port: 443}]}
---
kind: EndpointSlice
metadata: {name: edge, namespace: istio-system, labels: {kubernetes.io/service-name: edge}}
endpoints: [{addresses: [10.244.1.10]}]
ports: [{name: http, port: 8080}, {name: tls, port: 8443}]
---
";

fn gateway(servers: &str) -> String {
    format!(
        "\nkind: Gateway\nmetadata: {{name: g, namespace: istio-system}}\nspec: {{selector: {{istio: edge}}, servers: [{servers}]}}\n---\n"
    )
}

fn http(hosts: &str) -> String {
    format!("{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{hosts}]}}")
}

fn bound(name: &str, namespace: &str, hosts: &str, rules: &str) -> String {
    format!(
        "\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{hosts: [{hosts}], gateways: [istio-system/g], {rules}}}\n---\n"
    )
}

fn compile(objects: &str) -> Output {
    mesh(objects).compile()
}

fn mesh(objects: &str) -> Mesh {
    let mut mesh = Mesh::sidecar(&(PORTS.to_owned() + &service_in("web", "shop", "http") + objects));
    mesh.mode = Mode::Gateway;
    mesh.proxy.namespace = "istio-system".into();
    mesh.proxy.labels.insert("istio".to_owned(), "edge".to_owned());
    mesh
}

/// The virtual hosts of port 80 as `NAME CLUSTER|REDIRECT ...`.
fn hosts(output: &Output) -> Vec<String> {
    let hosts = output.routes("http.8080").virtual_hosts.iter().map(|host| {
        let routes = host.routes.iter().map(|route| match &route.action {
            RouteAction::Forward(forward) => match &forward.destinations {
                crate::resource::Destinations::Cluster(cluster) => format!(" {cluster}"),
                crate::resource::Destinations::Weighted(_) => " weighted".to_owned(),
            },
            RouteAction::Redirect(redirect) => format!(" {}", redirect.scheme.as_deref().unwrap_or("?")),
            RouteAction::DirectResponse(_) => " answer".to_owned(),
        });
        format!("{}{}", host.name, routes.collect::<String>())
    });
    hosts.collect()
}

const TO_WEB: &str = "http: [{route: [{destination: {host: web.shop.svc.cluster.local}}]}]";
const WEB: &str = "outbound|80||web.shop.svc.cluster.local";

#[test]
fn hosts_of_servers_and_virtual_services() {
    let check = |server: &str, namespace: &str, wanted: &str, expected: &[&str]| {
        let expected: Vec<String> = match expected {
            [] => vec!["blackhole:80".to_owned()],
            hosts => hosts.iter().map(|host| format!("{host}:80 {WEB}")).collect(),
        };
        let output = compile(&(gateway(&http(server)) + &bound("v", namespace, wanted, TO_WEB)));
        assert_eq!(hosts(&output), expected, "{server} {namespace} {wanted}");
    };
    check("a.b", "shop", "a.b", &["a.b"]);
    check("'*.b'", "shop", "a.b, c.d", &["a.b"]);
    check("a.b", "shop", "'*.b'", &["a.b"]);
    check("'*'", "shop", "a.b, '*.c'", &["*.c", "a.b"]);
    check("'*'", "shop", "'*'", &["*"]);
    check("a.b", "shop", "c.d", &[]);
    check("shop/a.b", "shop", "a.b", &["a.b"]);
    check("ops/a.b", "shop", "a.b", &[]);
    check("'*/a.b'", "ops", "a.b", &["a.b"]);
    check("./a.b", "shop", "a.b", &[]);
    check("./a.b", "istio-system", "a.b", &["a.b"]);
}

#[test]
fn which_gateways_and_virtual_services_count() {
    let other = gateway(&http("a.b")).replace("istio: edge", "istio: other");
    assert!(compile(&other).resources.listeners.is_empty());
    let unbound = bound("v", "shop", "a.b", TO_WEB).replace("istio-system/g", "mesh");
    assert_eq!(hosts(&compile(&(gateway(&http("a.b")) + &unbound))), ["blackhole:80"]);
    let private = bound("v", "shop", "a.b", &format!("exportTo: [.], {TO_WEB}"));
    assert_eq!(hosts(&compile(&(gateway(&http("a.b")) + &private))), ["blackhole:80"]);
    // Rules of two objects follow each other, the older one's first.
    let rule =
        |prefix: &str| TO_WEB.replace("{route", &format!("{{match: [{{uri: {{prefix: {prefix}}}}}], route"));
    let two = bound("v", "shop", "a.b", &rule("/x")) + &bound("w", "shop", "a.b", &rule("/y"));
    assert_eq!(hosts(&compile(&(gateway(&http("a.b")) + &two))), [format!("a.b:80 {WEB} {WEB}")]);
    // Matches for other gateways and ports do not count.
    for wanted in ["gateways: [mesh]", "port: 81", "gateways: [istio-system/other]"] {
        let rule = TO_WEB.replace("{route", &format!("{{match: [{{{wanted}}}], route"));
        let output = compile(&(gateway(&http("a.b")) + &bound("v", "shop", "a.b", &rule)));
        assert_eq!(hosts(&output), ["blackhole:80"], "{wanted}");
    }
}

/// Rules of several objects for one host: what takes everything comes after all the others, which keep their order.
#[test]
fn what_takes_everything_comes_last() {
    let to = |path: &str, cluster: &str| {
        format!("{{match: [{{uri: {{{path}}}}}], route: [{{destination: {{host: {cluster}}}}}]}}")
    };
    let rules = |rules: &[String]| format!("http: [{}]", rules.join(", "));
    let check = |first: &str, all: &str, second: &str, server: &str, redirect: &str| {
        let first = rules(&[to(first, "a"), to(all, "all")]);
        let second = rules(&[to(second, "b"), "{route: [{destination: {host: rest}}]}".to_owned()]);
        let objects =
            gateway(server) + &bound("v", "shop", "a.b", &first) + &bound("w", "shop", "a.b", &second);
        let cluster = |name| format!(" outbound|80||{name}.shop.svc.cluster.local");
        let expected = ["a", "b", "all", "rest"].map(cluster).concat();
        assert_eq!(hosts(&compile(&objects)), [format!("a.b:80{redirect}{expected}")], "{all}");
    };
    check("exact: /", "prefix: /", "prefix: /b", &http("a.b"), "");
    check("prefix: /a", "regex: '.*'", "regex: '/.*'", &http("a.b"), "");
    let redirecting = http("a.b").replace("]}", "], tls: {httpsRedirect: true}}");
    check("prefix: /a", "prefix: /", "prefix: /b", &redirecting, " https");
}

#[test]
fn redirects_to_https() {
    let server = "{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.b], tls: {httpsRedirect: true}}";
    assert_eq!(hosts(&compile(&gateway(server))), ["a.b:80 https"]);
    // What a trusted proxy before it says has come by HTTPS goes on.
    let with_rules = compile(&(gateway(server) + &bound("v", "shop", "a.b", TO_WEB)));
    assert_eq!(hosts(&with_rules), [format!("a.b:80 https {WEB}")]);
    let first = &with_rules.routes("http.8080").virtual_hosts[0].routes[0];
    let told = crate::resource::MatchedHeader::Header(http::HeaderName::from_static("x-forwarded-proto"));
    assert!(matches!(&first.matches.headers[..], [header] if header.name == told && header.invert));
}

/// One server that redirects is enough for a host, whichever comes first.
#[test]
fn redirects_whatever_the_order_of_servers() {
    let (plain, redirecting) = (http("A.b"), http("A.b").replace("]}", "], tls: {httpsRedirect: true}}"));
    let rules = bound("v", "shop", "a.b", TO_WEB).replace("istio-system/g", "istio-system/g, istio-system/h");
    let check = |first: &str, second: &str| {
        let one = gateway(&format!("{first}, {second}"));
        let expected = [format!("a.b:80 https {WEB} {WEB}")];
        assert_eq!(hosts(&compile(&(one + &rules))), expected, "{first} {second}");
        let two = gateway(first) + &gateway(second).replace("name: g", "name: h");
        assert_eq!(hosts(&compile(&(two + &rules))), expected, "{first} {second}");
    };
    check(&plain, &redirecting);
    check(&redirecting, &plain);
    // A wider server's redirect is of its own virtual host only.
    let wider = redirecting.replace("A.b", "'*.b'");
    let output = compile(
        &(gateway(&plain)
            + &gateway(&wider).replace("name: g", "name: h")
            + &bound("v", "shop", "a.b", TO_WEB)),
    );
    assert_eq!(hosts(&output), ["*.b:80 https".to_owned(), format!("a.b:80 {WEB}")]);
    // A second one with `tls` for a host of the first is left out with all its hosts, though it terminates nothing.
    let more = redirecting.replace("A.b", "c.b, a.b");
    let output = compile(&gateway(&format!("{redirecting}, {more}")));
    assert_eq!(
        (hosts(&output), output.codes()),
        (vec!["a.b:80 https".to_owned()], vec!["conflicting-listener"])
    );
}

#[test]
fn ports_of_the_service_become_those_of_the_workload() {
    let output = compile(&gateway(
        "{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.b]}, \
         {port: {number: 9000, name: h, protocol: HTTP2}, bind: 10.0.0.1, hosts: [a.b]}",
    ));
    let listeners: Vec<_> = output.resources.listeners.keys().map(|name| &**name).collect();
    assert_eq!(listeners, ["0.0.0.0_8080", "10.0.0.1_9000"]);
    assert!(output.resources.routes.contains_key("http.9000.10.0.0.1"));
    let listener = &output.resources.listeners["0.0.0.0_8080"];
    assert!(listener.bind_to_port && listener.filter_chains[0].http().unwrap().use_remote_address);
}

/// Proxies before it are trusted as far as it is told, in Istio's words.
#[test]
fn who_stands_before_it() {
    let check = |topology: GatewayTopology, hops: u32, cert: ForwardClientCert| {
        let mut mesh = mesh(&(gateway(&http("a.b")) + &bound("v", "shop", "a.b", TO_WEB)));
        mesh.proxy.gateway_topology = topology;
        let output = mesh.compile();
        let manager = output.resources.listeners["0.0.0.0_8080"].filter_chains[0].http().unwrap();
        assert_eq!((manager.xff_num_trusted_hops, manager.forward_client_cert), (hops, cert));
    };
    let told = |num_trusted_proxies, forward_client_cert_details| GatewayTopology {
        num_trusted_proxies,
        forward_client_cert_details,
        ..GatewayTopology::default()
    };
    check(GatewayTopology::default(), 0, ForwardClientCert::SanitizeSet);
    check(told(2, ForwardClientCertDetails::Undefined), 2, ForwardClientCert::SanitizeSet);
    check(told(0, ForwardClientCertDetails::Sanitize), 0, ForwardClientCert::Sanitize);
    check(told(0, ForwardClientCertDetails::ForwardOnly), 0, ForwardClientCert::ForwardOnly);
    check(told(0, ForwardClientCertDetails::AppendForward), 0, ForwardClientCert::AppendForward);
    check(told(0, ForwardClientCertDetails::SanitizeSet), 0, ForwardClientCert::SanitizeSet);
    check(told(0, ForwardClientCertDetails::AlwaysForwardOnly), 0, ForwardClientCert::AlwaysForwardOnly);
}

/// The PROXY protocol is for all its listeners, before whoever looks at first bytes, and for no other proxy's.
#[test]
fn who_connects_by_way_of_a_balancer() {
    let tls = "{port: {number: 443, name: t, protocol: TLS}, hosts: ['*.b'], tls: {mode: PASSTHROUGH}}";
    let mut mesh = mesh(&gateway(&format!("{}, {tls}", http("a.b"))));
    let filters = |mesh: &Mesh| {
        let output = mesh.compile();
        let listeners = output.resources.listeners.values();
        listeners.map(|listener| listener.listener_filters.proxy_protocol).collect::<Vec<_>>()
    };
    assert!(filters(&mesh).iter().all(|told| !told));
    mesh.proxy.gateway_topology.proxy_protocol = Some(ProxyProtocol {});
    assert!(filters(&mesh).len() > 1 && filters(&mesh).iter().all(|told| *told));
}

/// What guards a gateway and is not enforced closes it, unless the user takes the risk.
#[test]
fn a_guarded_gateway_is_closed() {
    let objects = gateway(&http("'*'")) + &bound("v", "shop", "'*'", TO_WEB);
    let check = |policy: &str, expected: &str| {
        let output = compile(&(objects.clone() + policy));
        let chains = output.compiled.update.listeners.iter().flat_map(Listener::chains).map(told);
        assert_eq!(chains.collect::<Vec<_>>(), [expected], "{policy}");
    };
    let policy = |selector: &str| {
        format!(
            "\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: istio-system}}\n\
             spec: {{selector: {{matchLabels: {{istio: {selector}}}}}, rules: [{{}}]}}\n"
        )
    };
    check("", "[] http");
    check(&policy("other"), "[] http");
    check(&policy("edge"), "[] closed");
}

/// A chain as `[SERVER NAMES] CLUSTER`, or `closed`.
fn told(chain: &FilterChain) -> String {
    let to = match &chain.filter {
        NetworkFilter::TcpProxy(proxy) => match &proxy.destinations {
            TcpDestinations::Cluster(cluster) => cluster.to_string(),
            TcpDestinations::Weighted(_) => "weighted".to_owned(),
        },
        NetworkFilter::Http(_) => "http".to_owned(),
        NetworkFilter::Closed(_) => "closed".to_owned(),
    };
    format!("[{}] {to}", chain.chain_match.server_names.join(" "))
}

#[test]
fn tls_by_server_name() {
    let tls = |mode: &str, hosts: &str| {
        format!(
            "{{port: {{number: 443, name: {mode}, protocol: TLS}}, hosts: [{hosts}], tls: {{mode: {mode}}}}}"
        )
    };
    let rules = "tls: [{match: [{sniHosts: [a.b]}, {sniHosts: [c.b], port: 444}], route: [{destination: {host: web.shop.svc.cluster.local}}]}]";
    let compiled = |hosts: &str| {
        let servers = format!("{}, {}", tls("PASSTHROUGH", "'*.b'"), tls("SIMPLE", hosts));
        compile(&(gateway(&servers) + &bound("v", "shop", "a.b, c.b", rules)))
    };
    let output = compiled("'*.c', 'shop/*.b'");
    let listener = &output.resources.listeners["0.0.0.0_8443"];
    // The destination has one port, which is taken.
    let expected = [format!("[a.b] {WEB}"), "[*.c *.b] closed".to_owned()];
    assert_eq!(listener.filter_chains.iter().map(told).collect::<Vec<_>>(), expected);
    assert!(listener.listener_filters.tls_inspector.is_some());
    assert!(!listener.listener_filters.continue_on_timeout);
    // A server with one host that another has is left out whole, as istiod does.
    let output = compiled("'*.c', '*.B'");
    let chains = output.resources.listeners["0.0.0.0_8443"].filter_chains.iter().map(told);
    assert_eq!(chains.collect::<Vec<_>>(), expected[..1]);
    assert_eq!(output.codes(), ["conflicting-listener"]);
}

/// One `*` beside other names stands for all of them, in whichever place.
#[test]
fn any_server_name_beside_others() {
    let check = |tls: &str, hosts: &str, names: &str, expected: &str| {
        let server =
            format!("{{port: {{number: 443, name: t, protocol: HTTPS}}, hosts: [{hosts}], tls: {{{tls}}}}}");
        let rules = format!(
            "tls: [{{match: [{{sniHosts: [{names}]}}], route: [{{destination: {{host: web.shop.svc.cluster.local}}}}]}}]"
        );
        let output = compile(&(gateway(&server) + &bound("v", "shop", "'*'", &rules)));
        let chains = output.resources.listeners["0.0.0.0_8443"].filter_chains.iter().map(told);
        assert_eq!(chains.collect::<Vec<_>>(), [expected], "{tls} {hosts} {names}");
    };
    let simple = "mode: SIMPLE, credentialName: c";
    check(simple, "'*', a.b", "x", "[] http");
    check(simple, "a.b, 'shop/*'", "x", "[] http");
    check(simple, "a.b, c.b", "x", "[a.b c.b] http");
    check("mode: PASSTHROUGH", "'*'", "'*', x", &format!("[] {WEB}"));
    check("mode: PASSTHROUGH", "'*'", "x, '*'", &format!("[] {WEB}"));
    check("mode: PASSTHROUGH", "'*'", "x, Y", &format!("[x y] {WEB}"));
}

#[test]
fn tcp() {
    let server = "{port: {number: 5000, name: tcp, protocol: TCP}, hosts: ['*']}, {port: {number: 5000, name: h, protocol: HTTP}, hosts: ['*']}";
    let rules = "tcp: [{match: [{port: 1}], route: [{destination: {host: x}}]}, {route: [{destination: {host: web.shop.svc.cluster.local}}]}]";
    let output = compile(&(gateway(server) + &bound("v", "shop", "'*'", rules)));
    let chains = output.resources.listeners["0.0.0.0_5000"].filter_chains.iter().map(told);
    assert_eq!(chains.collect::<Vec<_>>(), [format!("[] {WEB}")]);
    assert_eq!(output.codes(), ["conflicting-listener"]);
}

/// Secrets by name, as what they hold or what is wrong with them.
fn secrets(output: &Output) -> Vec<String> {
    let told = output.resources.secrets.values().map(|secret| {
        let content = match &secret.content {
            Ok(SecretContent::Certificate { chain, key }) => {
                format!("{}+{}", String::from_utf8_lossy(chain), String::from_utf8_lossy(key.pem()))
            }
            Ok(SecretContent::Roots { roots, revoked, .. }) => {
                let revoked = revoked.as_deref().unwrap_or_default();
                format!("{}-{}", String::from_utf8_lossy(roots), String::from_utf8_lossy(revoked))
            }
            Ok(SecretContent::Revoked { lists }) => String::from_utf8_lossy(lists).into_owned(),
            Err(why) => why.to_string(),
        };
        format!("{} {content}", secret.name)
    });
    told.collect()
}

fn secret(name: &str, data: &str) -> String {
    format!("\nkind: Secret\nmetadata: {{name: {name}, namespace: istio-system}}\n{data}\n---\n")
}

#[test]
fn https_is_terminated_with_secrets() {
    let https = |mode: &str| {
        format!(
            "{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [a.b], tls: {{mode: {mode}, credentialName: c}}}}"
        )
    };
    let check = |mode: &str, objects: &str, expected: &[&str]| {
        let output = compile(&(gateway(&https(mode)) + objects));
        let chain = &output.resources.listeners["0.0.0.0_8443"].filter_chains[0];
        assert_eq!(told(chain), "[a.b] http", "{mode} {objects}");
        assert_eq!(chain.tls.as_ref().unwrap().certificates, ["kubernetes://c".into()]);
        assert!(output.resources.routes.contains_key("https.443.https.g.istio-system"));
        assert_eq!(secrets(&output), expected, "{mode} {objects}");
        // Nothing that is secret is shown.
        let shown = format!("{:?}", output.compiled);
        assert!(!shown.contains("SECRET") && !shown.contains("U0VDUkVU"), "{shown}");
    };
    let missing = "kubernetes://c there is no Secret c in namespace istio-system";
    check("SIMPLE", "", &[missing]);
    check("SIMPLE", &secret("c", "stringData: {tls.crt: C, tls.key: SECRET}"), &["kubernetes://c C+SECRET"]);
    check("SIMPLE", &secret("c", "data: {cert: Qw==, key: U0VDUkVU}"), &["kubernetes://c C+SECRET"]);
    let elsewhere = secret("c", "stringData: {tls.crt: C, tls.key: SECRET}").replace("istio-system", "shop");
    check("SIMPLE", &elsewhere, &[missing]);
    let half = secret("c", "stringData: {tls.crt: C}");
    check("SIMPLE", &half, &["kubernetes://c it has no `tls.key` and no `key`"]);
    let bad = secret("c", "data: {tls.crt: '?', tls.key: U0VDUkVU}");
    check("SIMPLE", &bad, &["kubernetes://c `data` has a `tls.crt` that is not base64"]);
    let own = secret("c", "stringData: {tls.crt: C, tls.key: SECRET, ca.crt: R, ca.crl: L}");
    check("MUTUAL", &own, &["kubernetes://c C+SECRET", "kubernetes://c-cacert R-L"]);
    let beside = own + &secret("c-cacert", "stringData: {cacert: S}");
    check("OPTIONAL_MUTUAL", &beside, &["kubernetes://c C+SECRET", "kubernetes://c-cacert S-"]);
}

/// Two objects may name their ports alike: each server has the routes of its own hosts.
#[test]
fn routes_behind_tls_are_told_apart() {
    let https = |host: &str| {
        format!(
            "{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [{host}], tls: {{mode: SIMPLE, credentialName: c}}}}"
        )
    };
    let objects = gateway(&https("a.b"))
        + &gateway(&https("c.d")).replace("name: g,", "name: h,")
        + &bound("v", "shop", "a.b", TO_WEB)
        + &bound("w", "shop", "c.d", TO_WEB).replace("istio-system/g", "istio-system/h");
    let output = compile(&objects);
    for (gateway, expected) in [("g", "a.b:443"), ("h", "c.d:443")] {
        let routes = output.routes(&format!("https.443.https.{gateway}.istio-system"));
        assert_eq!(routes.virtual_hosts.iter().map(|host| &*host.name).collect::<Vec<_>>(), [expected]);
    }
    assert_eq!(output.resources.listeners["0.0.0.0_8443"].filter_chains.len(), 2);
}

/// A chain that terminates TLS as `CHAIN CERTIFICATES ALPN CLIENTS`.
fn terminated(chain: &FilterChain) -> String {
    let Some(tls) = &chain.tls else { return told(chain) };
    let clients = match &tls.client_certificates {
        ClientCertificates::NotAsked => "anybody".to_owned(),
        ClientCertificates::Optional(trust) => format!("perhaps {}", trust.roots),
        ClientCertificates::Required(trust) => {
            let revoked = trust.revoked.as_deref().unwrap_or("nobody");
            format!("{} but {revoked} {}", trust.roots, trust.subject_alt_names.len())
        }
    };
    format!("{} {} {} {clients}", told(chain), tls.certificates.join("+"), tls.alpn.join(","))
}

#[test]
fn tls_with_files_and_with_the_identity_of_the_workload() {
    let check = |protocol: &str, tls: &str, identity: bool, expected: &[&str]| {
        let server =
            format!("{{port: {{number: 443, name: t, protocol: {protocol}}}, hosts: [a.b], tls: {{{tls}}}}}");
        let rules = "tcp: [{route: [{destination: {host: web.shop.svc.cluster.local}}]}]";
        let mesh = mesh(&(gateway(&server) + &bound("v", "shop", "a.b", rules)));
        let request = Request { mode: Mode::Gateway, identity, ..Request::default() };
        let listeners = compile_as(&mesh.objects, &mesh.proxy, &request).update.listeners;
        let chains: Vec<String> = listeners.iter().flat_map(Listener::chains).map(terminated).collect();
        assert_eq!(chains, expected, "{protocol} {tls} {identity}");
    };
    let bytes = format!("[a.b] {WEB}");
    let files = "serverCertificate: /c, privateKey: /k";
    let simple = "file-cert:/c~/k h2,http/1.1 anybody";
    check("HTTPS", &format!("mode: SIMPLE, {files}"), false, &[&format!("[a.b] http {simple}")]);
    check("TLS", &format!("mode: SIMPLE, {files}"), false, &[&format!("{bytes} {simple}")]);
    let mutual = format!("mode: MUTUAL, {files}, caCertificates: /r, caCrl: /l, subjectAltNames: [x]");
    let expected = "[a.b] http file-cert:/c~/k h2,http/1.1 file-root:/r but file-crl:/l 1";
    check("HTTPS", &mutual, false, &[expected]);
    let two = "mode: SIMPLE, tlsCertificates: [{serverCertificate: /c, privateKey: /k}, {serverCertificate: /d, privateKey: /l}]";
    check("HTTPS", two, false, &["[a.b] http file-cert:/c~/k+file-cert:/d~/l h2,http/1.1 anybody"]);
    let own = "mode: ISTIO_MUTUAL";
    check("HTTPS", own, true, &["[a.b] http default h2,http/1.1 ROOTCA but nobody 0"]);
    check(
        "TLS",
        own,
        true,
        &[&format!("{bytes} default istio-peer-exchange,h2,http/1.1 ROOTCA but nobody 0")],
    );
    let lists = format!("{own}, caCrl: /l, subjectAltNames: [x]");
    check("HTTPS", &lists, true, &["[a.b] http default h2,http/1.1 ROOTCA but file-crl:/l 1"]);
    // What cannot be as it was asked for is closed.
    check("HTTPS", own, false, &["[a.b] closed"]);
    for closed in [
        "mode: SIMPLE",
        "mode: SIMPLE, serverCertificate: /c",
        "mode: SIMPLE, serverCertificate: /c~, privateKey: /k",
        "mode: MUTUAL, serverCertificate: /c, privateKey: /k",
        "mode: MUTUAL, credentialName: c, insecureSkipVerify: true",
        "mode: MUTUAL, credentialName: c, verifyCertificateHash: [x]",
    ] {
        check("HTTPS", closed, true, &["[a.b] closed"]);
    }
}

#[test]
fn fingerprints_of_clients() {
    let hash = "00".repeat(32);
    let key = format!("{}=", "A".repeat(43));
    let tls = format!(
        "mode: MUTUAL, credentialName: c, verifyCertificateHash: ['{hash}'], verifyCertificateSpki: ['{key}']"
    );
    let server = format!("{{port: {{number: 443, name: t, protocol: HTTPS}}, hosts: [a.b], tls: {{{tls}}}}}");
    let output = compile(&gateway(&server));
    let tls = output.resources.listeners["0.0.0.0_8443"].filter_chains[0].tls.as_ref().unwrap();
    let trust = tls.client_certificates.trust().unwrap();
    assert_eq!(trust.fingerprints, [Fingerprint::Certificate([0; 32]), Fingerprint::PublicKey([0; 32])]);
}
