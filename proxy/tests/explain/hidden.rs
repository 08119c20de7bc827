//! Services that are there and that the workload does not see.

use super::{Config, URL, route};

/// It hides what no host of these stands for.
fn sidecar(egress: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: narrow, namespace: shop}}\nspec:\n  \
         workloadSelector: {{labels: {{app: web}}}}\n  egress: [{egress}]\n"
    )
}

const SIDECAR: &str = "Sidecar narrow sidecar.yaml:6";

fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: ops}}\nspec: {{{spec}}}\n")
}

fn entry(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: outside, namespace: ops}}\nspec: {{{spec}}}\n"
    )
}

/// Nobody hides a port of UDP: it is nothing that anybody is served.
#[test]
fn ports_of_udp() {
    let dns = service("dns", "clusterIP: 10.96.0.41, ports: [{name: dns, port: 8000, protocol: UDP}]");
    let out = entry(
        "hosts: [udp.example], addresses: [10.77.0.1], resolution: NONE, ports: [{number: 8000, name: udp, protocol: UDP}]",
    );
    let narrow = sidecar("{hosts: ['shop/*']}");
    for more in [None, Some(("sidecar.yaml", narrow.as_str()))] {
        let files = [("dns.yaml", dns.as_str()), ("entry.yaml", out.as_str())].into_iter().chain(more);
        let config = Config::of(&files.collect::<Vec<_>>());
        for (name, address) in [("dns.ops", "10.96.0.41:8000"), ("udp.example", "10.77.0.1:8000")] {
            let what = format!("no service that the workload sees has the host `{name}:8000` on port 8000");
            let url = format!("http://{name}:8000/");
            let asked = ["--destination", address, url.as_str()];
            config.check(&asked, "forwards", ("virtual_host", &what, ""));
            let told = config.check(&["--tcp", address], "passes_on", ("listener", "0.0.0.0_8000", ""));
            assert!(!told.to_string().contains("\"hidden\""), "{told:#}");
        }
    }
}

/// An address is the same however it is written, and one of several.
#[test]
fn addresses() {
    let of_service = |ips: &str| service("own", &format!("{ips}, ports: [{{name: tcp, port: 3306}}]"));
    let of_entry = |address: &str| {
        let port = "ports: [{number: 3306, name: tcp, protocol: TCP}]";
        entry(&format!("hosts: [db.example], addresses: ['{address}'], resolution: NONE, {port}"))
    };
    for (objects, address) in [
        (of_service("clusterIP: 10.96.0.41"), "10.96.0.41"),
        (of_service("clusterIP: 'fd00:0::8'"), "[fd00::8]"),
        (of_service("clusterIP: 10.96.0.41, clusterIPs: [10.96.0.41, 'fd00::8']"), "[fd00::8]"),
        (of_entry("10.77.0.0/24"), "10.77.0.7"),
        (of_entry("fd00:0::/64"), "[fd00::7]"),
    ] {
        let narrow = sidecar("{hosts: ['shop/*']}");
        let config = Config::of(&[("more.yaml", &objects), ("sidecar.yaml", &narrow)]);
        let step = ("hidden", "the workload's Sidecar does not let it see", SIDECAR);
        config.check(&["--tcp", &format!("{address}:3306")], "passes_on", step);
    }
}

/// A listener serves what the egress listener has that has its routes: not what another of the Sidecar lets in.
#[test]
fn of_several_egress_listeners_one_serves() {
    let pay = service("pay", "clusterIP: 10.96.0.41, ports: [{name: http, port: 8000}]");
    let narrow =
        sidecar("{port: {number: 8000, protocol: HTTP, name: http}, hosts: ['ops/*']}, {hosts: ['*/*']}");
    let config = Config::of(&[("pay.yaml", &pay), ("sidecar.yaml", &narrow)]);
    config.check(&[URL], "forwards", ("listener", "0.0.0.0_8000", ""));
    let what = "the workload's Sidecar does not let it see `catalog` there";
    config.check(&[URL], "forwards", ("virtual_host", what, SIDECAR));
    let bytes = ["--tcp", "10.96.0.11:8000"];
    config.check(&bytes, "passes_on", ("listener", "0.0.0.0_8000", ""));
    let what = "the workload's Sidecar does not let it see `catalog.shop.svc.cluster.local` there";
    config.check(&bytes, "passes_on", ("hidden", what, SIDECAR));
    let pay = ["http://pay.ops:8000/"];
    config.check(&pay, "answers 503 UH no_healthy_upstream", ("listener", "", "Service pay pay.yaml:1"));
    // One with an address of its own has what either lets in.
    let narrow =
        sidecar("{port: {number: 8000, protocol: TCP, name: tcp}, hosts: ['ops/*']}, {hosts: ['*/*']}");
    let config = Config::of(&[("sidecar.yaml", &narrow)]);
    let by = ("listener", "`10.96.0.12_8000`", "Service reviews kubernetes.yaml:14");
    config.check(&["--tcp", "10.96.0.12:8000"], "passes_on", by);
}

/// An address is that of all hosts of its ServiceEntry.
#[test]
fn one_host_of_a_service_entry() {
    let port = "ports: [{number: 3306, name: tcp, protocol: TCP}]";
    let out =
        entry(&format!("hosts: [a.example, b.example], addresses: [10.77.0.1], resolution: NONE, {port}"));
    let narrow = sidecar("{hosts: ['ops/b.example']}");
    let config = Config::of(&[("entry.yaml", &out), ("sidecar.yaml", &narrow)]);
    let by = ("listener", "`10.77.0.1_3306`", "ServiceEntry outside entry.yaml:1");
    config.check(&["--tcp", "10.77.0.1:3306"], "passes_on", by);
}

/// A wildcard has the names that end like it, and an ExternalName is another name of what it stands for.
#[test]
fn names_that_stand_for_others() {
    let port = "ports: [{number: 8000, name: http, protocol: HTTP}]";
    let wild = entry(&format!("hosts: ['*.wild.example'], resolution: NONE, exportTo: ['.'], {port}"));
    let config = Config::of(&[("entry.yaml", &wild)]);
    let what = "exportTo hides `a.wild.example` of namespace ops from namespace shop";
    let step = ("virtual_host", what, "ServiceEntry outside entry.yaml:4");
    config.check(&["http://a.wild.example:8000/"], "forwards", step);
    let what = "no service that the workload sees has the host `wild.example:8000` on port 8000";
    config.check(&["http://wild.example:8000/"], "forwards", ("virtual_host", what, ""));
    let alias = |name: &str, target: &str| {
        let alias =
            service(name, &format!("type: ExternalName, externalName: {target}, ports: [{{port: 8000}}]"));
        alias.replace("namespace: ops", "namespace: shop")
    };
    let aliases = [
        alias("one", "two.shop.svc.cluster.local"),
        alias("two", "catalog.shop.svc.cluster.local"),
        alias("loop", "loop"),
    ];
    let pay = service("pay", "clusterIP: 10.96.0.41, ports: [{name: http, port: 8000}]");
    let narrow = sidecar("{hosts: ['ops/*']}");
    let config = Config::of(&[
        ("aliases.yaml", &aliases.join("---\n")),
        ("pay.yaml", &pay),
        ("sidecar.yaml", &narrow),
    ]);
    let what = "the workload's Sidecar does not let it see `catalog.shop.svc.cluster.local` there";
    for name in ["one", "two.shop"] {
        let url = format!("http://{name}:8000/");
        config.check(&[&url], "forwards", ("virtual_host", what, SIDECAR));
    }
    config.check(&["http://loop:8000/"], "forwards", ("virtual_host", "the host `loop:8000`", ""));
}

/// Bytes for a host that has no address tell what hides it.
#[test]
fn a_host_without_an_address() {
    let out =
        entry("hosts: [db.example], resolution: DNS, ports: [{number: 3306, name: tcp, protocol: TCP}]");
    let narrow = sidecar("{hosts: ['shop/*']}");
    let config = Config::of(&[("entry.yaml", &out), ("sidecar.yaml", &narrow)]);
    let step = ("hidden", "the workload's Sidecar does not let it see `db.example` there", SIDECAR);
    config.check(&["http://db.example:3306/"], "passes_on", step);
}

/// What stands for a name, or has rules for it, makes it one of the mesh.
#[test]
fn names_of_wildcards_and_of_rules() {
    let port = "ports: [{number: 8000, name: http, protocol: HTTP}]";
    let wild = entry(&format!("hosts: ['*.wild.example'], resolution: NONE, {port}"));
    let rules = route("  - directResponse: {status: 299}\n")
        .replace("hosts: [catalog]", "hosts: ['*.rules.example']");
    let config = Config::of(&[("entry.yaml", &wild), ("route.yaml", &rules)]);
    for (name, why) in [
        ("a.wild.example", "is declared without an address"),
        ("a.rules.example", "is declared without an address"),
        ("wild.example", "is no name of the mesh"),
        ("other.example", "is no name of the mesh"),
    ] {
        let what = format!("{name} {why};");
        config.check(&[&format!("http://{name}:8000/")], "forwards", ("destination", &what, ""));
    }
}

/// Clients of a headless Service connect to its pods.
#[test]
fn a_headless_service() {
    let port = "{name: tcp, port: 3306}";
    let db = service("db", &format!("clusterIP: None, ports: [{port}]"));
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {name: db, namespace: ops, labels: {kubernetes.io/service-name: db}}\naddressType: IPv4\n\
                 endpoints: [{addresses: [10.244.1.77], conditions: {ready: true}}]\n";
    let slice = format!("{slice}ports: [{port}]\n");
    let config = Config::of(&[("db.yaml", &db), ("slice.yaml", &slice)]);
    let by = ("listener", "`10.244.1.77_3306`", "Service db db.yaml:1");
    config.check(&["--tcp", "10.244.1.77:3306"], "passes_on", by);
}

/// What no listener is made for has none: it is taken by the one for all else.
#[test]
fn the_listener_for_all_else_is_by_nobody() {
    let port = "ports: [{name: tcp, port: 3306}]";
    let both = service("pay", &format!("clusterIP: 10.96.0.41, clusterIPs: [10.96.0.41, 'fd00::8'], {port}"));
    let out = entry(
        "hosts: [db.example], addresses: ['fd00::9', 10.77.3.1], resolution: NONE, ports: [{number: 3306, name: tcp, protocol: TCP}]",
    );
    let config = Config::of(&[("pay.yaml", &both), ("entry.yaml", &out)]);
    for address in ["[fd00::8]:3306", "[fd00::9]:3306"] {
        config.check(&["--tcp", address], "passes_on", ("listener", "`virtualOutbound`", ""));
    }
    let by = ("listener", "`10.96.0.41_3306`", "Service pay pay.yaml:1");
    config.check(&["--tcp", "10.96.0.41:3306"], "closes UH no_healthy_upstream", by);
    // Of two ranges one serves: it is told by its chain.
    let range = |name: &str, range: &str| {
        let port = "ports: [{number: 3306, name: tcp, protocol: TCP}]";
        let spec = format!("hosts: [{name}.example], addresses: [{range}], resolution: NONE, {port}");
        entry(&spec).replace("outside", name)
    };
    let (wide, narrow) = (range("a", "10.77.0.0/16"), range("b", "10.77.1.0/24"));
    let config = Config::of(&[("wide.yaml", &wide), ("narrow.yaml", &narrow)]);
    let asked = |at: &'static str| ["--tcp", at];
    config.check(&asked("10.77.1.7:3306"), "passes_on", ("listener", "", ""));
    config.check(&asked("10.77.2.7:3306"), "passes_on", ("listener", "", "ServiceEntry a wide.yaml:1"));
}

/// TLS is told from other TLS by the server it asks for.
#[test]
fn hosts_of_tls() {
    let out = |more: &str| {
        let port = "ports: [{number: 443, name: tls, protocol: TLS}]";
        entry(&format!("hosts: [tls.example], resolution: NONE, exportTo: ['.'], {more}{port}"))
    };
    let asked = ["--tcp", "203.0.113.1:443", "--sni", "TLS.example"];
    let config = Config::of(&[("entry.yaml", &out(""))]);
    let what = "exportTo hides `tls.example` of namespace ops from namespace shop";
    config.check(&asked, "passes_on", ("hidden", what, "ServiceEntry outside entry.yaml:4"));
    // One with an address takes no connections to others.
    let config = Config::of(&[("entry.yaml", &out("addresses: [10.77.0.1], "))]);
    let told = config.json(&asked);
    assert!(!told.to_string().contains("\"hidden\""), "{told:#}");
}
