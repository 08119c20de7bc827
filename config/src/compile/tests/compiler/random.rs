//! Changes that a seed decides: after each, what is taken over is as if all had been compiled anew.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Changing, Made};
use crate::compile::behind::by_address;
use crate::compile::{ExplicitListener, ListenTarget, Mode, Proxy, Request};
use crate::finding::code;
use crate::resource::TrafficDirection;

const SEEDS: u64 = 60;
const CHANGES: usize = 40;

struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % count
    }

    fn one<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.below(texts.len())]
    }

    fn lists(&mut self, texts: &[&str], count: usize) -> String {
        (0..self.below(count + 1)).map(|_| self.one(texts)).collect::<Vec<_>>().join(", ")
    }
}

const NAMES: [&str; 4] = ["catalog", "web", "cart", "pay"];
const NAMESPACES: [&str; 2] = ["shop", "ops"];

fn head(api: &str, kind: &str, name: &str, namespace: &str, more: &str) -> String {
    format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}{more}}}\n")
}

fn service(random: &mut Random, name: &str, namespace: &str) -> String {
    let address = ["", "clusterIP: 10.1.0.1, ", "clusterIP: 10.1.0.2, ", "clusterIP: None, "];
    let aliases = [
        "type: ExternalName, externalName: web.shop.svc.cluster.local, ",
        "type: ExternalName, externalName: db.test, ",
    ];
    let kind = if random.below(10) == 0 { random.one(&aliases) } else { random.one(&address) };
    let local = random.one(&["", "", "", "internalTrafficPolicy: Local, "]);
    let ports = [
        "{name: http, port: 80}",
        "{name: http, port: 80}, {name: tcp-db, port: 3306}",
        "{name: http, port: 8080, targetPort: 80}",
        "{name: other, port: 80}, {name: http, port: 81}",
        // Of one number and address others are HTTP.
        "{name: tcp-db, port: 80}",
        "{name: tls-db, port: 80}, {name: mysql-db, port: 3306}",
        "{name: other, port: 3306}",
    ];
    let selector = random.one(&["", ", selector: {app: web}"]);
    let annotations = random.one(&["", "", "", ", annotations: {networking.istio.io/exportTo: .}"]);
    head("v1", "Service", name, namespace, annotations)
        + &format!("spec: {{{kind}{local}ports: [{}]{selector}}}\n", random.one(&ports))
}

fn slice(random: &mut Random, name: &str, namespace: &str) -> String {
    let of = random.one(&NAMES);
    let labels = format!(", labels: {{kubernetes.io/service-name: {of}}}");
    let endpoints = [
        "{addresses: [10.2.0.1], targetRef: {kind: Pod, name: catalog}}",
        "{addresses: [10.2.0.2], conditions: {ready: false}}",
        "{addresses: [10.2.0.3], targetRef: {kind: Pod, name: web}}",
        "{addresses: [10.2.0.4], targetRef: {kind: Pod, name: cart, namespace: ops}}",
        "{addresses: [10.2.0.9], targetRef: {kind: Pod, name: self, namespace: shop}}",
        "{addresses: [10.2.0.9]}",
        "{addresses: [10.2.0.5], nodeName: here}",
        "{addresses: [10.2.0.6], nodeName: there}",
        // Those of pods, which they do not name.
        "{addresses: [10.2.0.7]}",
        "{addresses: [10.2.0.8]}",
    ];
    head("discovery.k8s.io/v1", "EndpointSlice", name, namespace, &labels)
        + &format!(
            "endpoints: [{}]\nports: [{{name: {}, port: {}}}]\n",
            random.lists(&endpoints, 3),
            random.one(&["http", "http", "tcp-db", "tls-db", "other"]),
            random.one(&["80", "8080"]),
        )
}

fn pod(random: &mut Random, name: &str, namespace: &str) -> String {
    let labels = [
        "{app: web, version: v1}",
        "{app: web, version: v2, security.istio.io/tlsMode: istio}",
        "{app: pay, version: v1, security.istio.io/tlsMode: istio, istio-locality: a.b}",
    ];
    head("v1", "Pod", name, namespace, &format!(", labels: {}", random.one(&labels)))
        + &format!(
            "spec: {{serviceAccountName: {}, nodeName: {}, hostname: h, subdomain: {name}}}\nstatus: {{podIP: 10.2.0.{}{}}}\n",
            random.one(&["one", "two"]),
            random.one(&["here", "there"]),
            random.one(&["7", "8"]),
            random.one(&["", "", ", conditions: [{type: Ready, status: 'False'}]", ", phase: Succeeded"]),
        )
}

fn rule(random: &mut Random, name: &str, namespace: &str) -> String {
    let hosts =
        ["catalog", "web", "web.shop.svc.cluster.local", "\"*.shop.svc.cluster.local\"", "\"*\"", "db.test"];
    let policies = [
        "{}",
        "{tls: {mode: ISTIO_MUTUAL}}",
        "{tls: {mode: SIMPLE, credentialName: outside}}",
        "{tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 80}, tls: {mode: ISTIO_MUTUAL}}]}",
        "{outlierDetection: {maxEjectionPercent: 20}}",
        "{loadBalancer: {simple: PASSTHROUGH}}",
        "{connectionPool: {tcp: {maxConnections: 7}}}",
    ];
    let subsets = ["{name: v1, labels: {version: v1}}", "{name: v2, labels: {version: v2}}", "{name: all}"];
    let (host, export) = (random.one(&hosts), random.one(&["", "", ", exportTo: [.]"]));
    let policy = random.one(&policies);
    let subsets = random.lists(&subsets, 2);
    head("networking.istio.io/v1", "DestinationRule", name, namespace, "")
        + &format!("spec: {{host: {host}, trafficPolicy: {policy}, subsets: [{subsets}]{export}}}\n")
}

fn virtual_service(random: &mut Random, name: &str, namespace: &str) -> String {
    let hosts = ["catalog", "web", "web.shop", "\"*.example.com\"", "10.1.0.2"];
    let (host, to) = (random.one(&hosts), random.one(&NAMES));
    let route = format!("route: [{{destination: {{host: {to}, subset: {}}}}}]", random.one(&["v1", "v2"]));
    let rules = match random.below(6) {
        0 => format!("tcp: [{{match: [{{port: 3306}}], {route}}}]"),
        1 => format!("tls: [{{match: [{{port: 80, sniHosts: [{host}]}}], {route}}}]"),
        2 => format!("http: [{{match: [{{port: 81}}], {route}}}]"),
        _ => format!("http: [{{match: [{{uri: {{prefix: /{to}}}}}], {route}}}]"),
    };
    head("networking.istio.io/v1", "VirtualService", name, namespace, "")
        + &format!("spec: {{hosts: [{host}], {rules}}}\n")
}

fn entry(random: &mut Random, name: &str, namespace: &str) -> String {
    let hosts = ["db.test", "web.shop.svc.cluster.local", "web.ops.svc.cluster.local", "pay", "web"];
    let how = [
        "resolution: STATIC, endpoints: [{address: 10.3.0.1, serviceAccount: x}]",
        "resolution: DNS",
        "resolution: NONE",
        "resolution: STATIC, workloadSelector: {labels: {app: web}}",
    ];
    let (host, how) = (random.one(&hosts), random.one(&how));
    head("networking.istio.io/v1", "ServiceEntry", name, namespace, "")
        + &format!("spec: {{hosts: [{host}], ports: [{{number: 80, name: http, protocol: HTTP}}], {how}}}\n")
}

/// What changes seldom, and reaches far.
fn wide(random: &mut Random, name: &str, namespace: &str) -> String {
    let (istio, security) = ("networking.istio.io/v1", "security.istio.io/v1");
    match random.below(5) {
        0 => {
            let port = random.one(&["", "port: {number: 81, protocol: HTTP, name: http}, "]);
            head(istio, "Sidecar", name, namespace, "")
                + &format!("spec: {{egress: [{{{port}hosts: [./*]}}]}}\n")
        }
        1 => {
            head(security, "PeerAuthentication", name, namespace, "")
                + &format!("spec: {{mtls: {{mode: {}}}}}\n", random.one(&["DISABLE", "STRICT"]))
        }
        2 => {
            head(istio, "WorkloadEntry", name, namespace, "")
                + "spec: {address: 10.4.0.1, labels: {app: web}}\n"
        }
        3 => {
            let servers = [
                "{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}",
                "{port: {number: 15443, name: tls, protocol: TLS}, hosts: [\"*.local\"], tls: {mode: AUTO_PASSTHROUGH}}",
            ];
            head(istio, "Gateway", name, namespace, "")
                + &format!("spec: {{selector: {{}}, servers: [{}]}}\n", random.one(&servers))
        }
        _ => head("v1", "Secret", "outside", "shop", "") + "data: {}\n",
    }
}

/// Some objects of files, as they are now.
fn change(random: &mut Random) -> (String, String) {
    let (name, namespace) = (random.one(&NAMES), random.one(&NAMESPACES));
    type Make = fn(&mut Random, &str, &str) -> String;
    let kinds: [(&str, Make); 13] = [
        ("service", service),
        ("slice", slice),
        ("slice", slice),
        ("slice", slice),
        ("pod", pod),
        ("pod", pod),
        ("rule", rule),
        ("rule", rule),
        ("virtual-service", virtual_service),
        ("virtual-service", virtual_service),
        ("entry", entry),
        ("wide", wide),
        ("service", service),
    ];
    let (kind, make) = kinds[random.below(kinds.len())];
    let is_gone = random.below(5) == 0 || kind == "wide" && random.below(2) == 0;
    let text = if is_gone { String::new() } else { make(random, name, namespace) };
    (format!("{kind}-{namespace}-{name}.yaml"), text)
}

fn run(seed: u64, made: &mut BTreeMap<String, usize>) {
    let mut random = Random(seed);
    let modes = [Mode::Explicit, Mode::Sidecar, Mode::Gateway];
    let mode = modes[random.below(3)];
    let mut proxy = Proxy {
        namespace: "shop".into(),
        name: "self".into(),
        ips: vec!["10.2.0.9".parse().unwrap()],
        ..Proxy::default()
    };
    if random.below(2) == 0 {
        proxy.metadata.insert("NODE_NAME".into(), "here".into());
    }
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listener = ExplicitListener { address, target: ListenTarget::Outbound { port: 80 } };
    let request = Request {
        mode,
        listeners: vec![listener],
        identity: random.below(2) == 0,
        products_max: (random.below(4) == 0).then_some(12),
        ..Request::default()
    };
    let mut changing = Changing::new(proxy, request);
    for step in 0..CHANGES {
        // At first, and now and then, several at once.
        let count = if step == 0 { 30 } else { 1 + random.below(8) / 7 };
        let changes: Vec<(String, String)> = (0..count).map(|_| change(&mut random)).collect();
        let texts: Vec<(&str, &str)> = changes.iter().map(|(file, text)| (&**file, &**text)).collect();
        let how = changing.read(&texts, &format!("seed {seed}, step {step}, {mode:?}: {texts:#?}"));
        *made.entry(format!("{how:?}")).or_default() += 1;
        for shape in shapes(&changing) {
            *made.entry(format!("{shape}, {how:?}")).or_default() += 1;
        }
    }
}

/// Which of the shapes there are that are easily left out where little is made again.
fn shapes(changing: &Changing) -> Vec<&'static str> {
    let Changing { store, resources, .. } = changing;
    let objects = store.objects();
    let slices = objects.endpoint_slices.values();
    let mut any_service = objects.services.values().map(|service| &service.spec.spec);
    let is_entry = |name: &str| {
        objects.service_entries.values().any(|entry| entry.spec.hosts.iter().any(|it| it == name))
    };
    let shapes = [
        ("server names", resources.clusters.keys().any(|name| name.starts_with("outbound_."))),
        ("alias of an entry", any_service.any(|spec| spec.external_name.as_deref().is_some_and(is_entry))),
        ("pods by address", !by_address(&objects, slices.map(|slice| &**slice)).is_empty()),
        ("no node", changing.codes.contains(&code::INEFFECTIVE_VALUE)),
        ("conflict of ports", changing.codes.contains(&code::CONFLICTING_LISTENER)),
        (
            "merged chains",
            resources.listeners.values().any(|listener| {
                *listener.name != *"virtualOutbound"
                    && listener.traffic_direction == TrafficDirection::Outbound
                    && listener.filter_chains.len() > 1
            }),
        ),
    ];
    shapes.into_iter().filter(|(_, is_there)| *is_there).map(|(shape, _)| shape).collect()
}

#[test]
fn random_changes_make_what_a_compile_anew_makes() {
    let mut made = BTreeMap::new();
    (0..SEEDS).for_each(|seed| run(seed, &mut made));
    println!("{made:?}");
    // Else nothing was tried.
    for how in [Made::Anew, Made::Listeners, Made::Endpoints] {
        assert!(made.get(&format!("{how:?}")).is_some_and(|count| *count > 200), "{how:?}: {made:?}");
    }
    assert!(made.get("server names, Anew").is_some_and(|count| *count > 10), "{made:?}");
    for shape in ["alias of an entry", "pods by address", "no node", "conflict of ports", "merged chains"] {
        for how in [Made::Listeners, Made::Endpoints] {
            assert!(
                made.get(&format!("{shape}, {how:?}")).is_some_and(|count| *count > 10),
                "{shape}, {how:?}: {made:?}"
            );
        }
    }
}
