//! The agent's port of a running proxy: probes as the kubelet sees them, metrics as Prometheus does, and what a caller of
//! this host may have done.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

mod application;
mod process;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use process::{Backend, Weft, answer, ask, eventually, get, mesh, send};
use serde_json::json;

/// A proxy with an agent's port on 127.0.0.1 and these variables.
fn start(variables: &[(&str, &str)]) -> (Weft, process::Bound, tempfile::TempDir) {
    let backend = Backend::start();
    let directory = tempfile::tempdir().unwrap();
    mesh(directory.path(), backend.address);
    let config = directory.path().to_str().unwrap().to_owned();
    let variables: Vec<(&str, &str)> =
        variables.iter().copied().chain([("INSTANCE_IP", "127.0.0.1"), ("POD_NAMESPACE", "shop")]).collect();
    let mut weft =
        Weft::run_with(&variables, &["--config", &config, "--status-port", "0", "--prometheus-port", "0"]);
    let bound = weft.ready();
    (weft, bound, directory)
}

/// Probes of one container each, by what they are called here.
fn probers(probes: &[(&str, serde_json::Value)]) -> String {
    let entries = probes.iter().map(|(name, probe)| (format!("/app-health/{name}/livez"), probe.clone()));
    serde_json::Value::Object(entries.collect()).to_string()
}

#[test]
fn probes_as_the_kubelet_sees_them() {
    let app = application::http();
    let tls = application::https(&[]);
    let tls_h1 = application::https(&["http/1.1"]);
    let tls_h2 = application::grpc(true);
    let grpc = application::grpc(false);
    let (silent, nobody) = (application::silent(), application::nobody());
    let http = |path: &str| json!({"httpGet": {"path": path, "port": app.port()}, "timeoutSeconds": 10});
    let https = |to: SocketAddr, path: &str| json!({"httpGet": {"path": path, "port": to.port(), "scheme": "HTTPS"}, "timeoutSeconds": 10});
    let health = |to: SocketAddr, service: serde_json::Value| json!({"grpc": {"port": to.port(), "service": service}, "timeoutSeconds": 10});
    let big = "x".repeat(10 * 1024);
    // Name, probe, status, body.
    let table = [
        ("ok", http("/ok"), 200, "fine"),
        ("no-slash", http("ok"), 200, "fine"),
        ("root", json!({"httpGet": {"port": app.port()}}), 200, "root"),
        ("no-content", http("/none"), 204, ""),
        ("teapot", http("/teapot"), 418, "short and stout"),
        ("bad", http("/bad"), 500, "broken"),
        ("unavailable", http("/unavailable"), 503, "later"),
        ("not-found", http("/what"), 404, "no /what"),
        ("big", http("/big"), 200, big.as_str()),
        ("chunked", http("/chunked"), 200, "fine"),
        ("from", http("/peer"), 200, "127.0.0.6"),
        ("redirected", http("/to/ok"), 200, "fine"),
        ("redirected-to-bad", http("/to/bad"), 500, "broken"),
        ("redirected-elsewhere", http("/to/elsewhere"), 200, ""),
        ("redirected-nowhere", http("/to/nowhere"), 200, ""),
        ("redirected-in-circles", http("/to/itself"), 500, ""),
        ("nonsense", http("/nonsense"), 500, ""),
        ("cut", http("/cut"), 500, ""),
        ("refused", json!({"httpGet": {"port": nobody.port()}}), 500, ""),
        (
            "too-late",
            json!({"httpGet": {"path": "/silent", "port": app.port()}, "timeoutSeconds": 1}),
            500,
            "",
        ),
        (
            "host-is-the-kubelets",
            json!({"httpGet": {"path": "/ok", "port": app.port(), "host": "h"}}),
            200,
            "fine",
        ),
        ("tls", https(tls, "/ok"), 200, "fine"),
        ("tls-teapot", https(tls_h1, "/teapot"), 418, "short and stout"),
        ("tls-over-http2", https(tls_h2, "/ok"), 200, "https://catalog/ok"),
        ("tls-not-spoken", https(app, "/ok"), 500, ""),
        (
            "tls-asked-in-plain",
            json!({"httpGet": {"path": "/ok", "port": tls.port()}, "timeoutSeconds": 10}),
            500,
            "",
        ),
        ("tcp", json!({"tcpSocket": {"port": silent.port()}, "timeoutSeconds": 10}), 200, ""),
        ("tcp-refused", json!({"tcpSocket": {"port": nobody.port()}}), 500, ""),
        ("grpc", health(grpc, json!(null)), 200, ""),
        ("grpc-up", health(grpc, json!("up")), 200, ""),
        ("grpc-down", health(grpc, json!("down")), 500, ""),
        ("grpc-unknown", health(grpc, json!("other")), 500, ""),
        ("grpc-refused", health(nobody, json!("up")), 500, ""),
        ("grpc-not-spoken", health(app, json!("up")), 500, ""),
        (
            "grpc-too-late",
            json!({"grpc": {"port": grpc.port(), "service": "silent"}, "timeoutSeconds": 1}),
            500,
            "",
        ),
        ("grpc-silent", json!({"grpc": {"port": silent.port()}}), 500, ""),
    ];
    let probes: Vec<(&str, serde_json::Value)> =
        table.iter().map(|(name, probe, ..)| (*name, probe.clone())).collect();
    let (_weft, bound, _directory) = start(&[("ISTIO_KUBE_APP_PROBERS", &probers(&probes))]);
    let agent = bound.agent.unwrap();
    for (name, probe, status, body) in &table {
        let answer = get(agent, &format!("/app-health/{name}/livez"));
        assert_eq!(answer, (*status, (*body).to_owned()), "{name}: {probe}");
    }
    let (status, why) = get(agent, "/app-health/other/livez");
    assert_eq!(
        (status, why.as_str()),
        (400, "ISTIO_KUBE_APP_PROBERS holds no probe `/app-health/other/livez`\n")
    );
    assert_eq!(get(agent, "/app-health/ok/readyz").0, 400);
    assert_eq!(get(agent, "/app-lifecycle/ok/livez").0, 400);
    assert_eq!(get(agent, "/other").0, 404);
}

#[test]
fn the_application_sees_the_kubelets_request() {
    let app = application::http();
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": app.port()}});
    let all = [("web", probe("/head?a=b%20c")), ("moved", probe("/to/head"))];
    let (_weft, bound, _directory) = start(&[("ISTIO_KUBE_APP_PROBERS", &probers(&all))]);
    let agent = bound.agent.unwrap();
    let seen = |container: &str, host: &str| {
        let head = format!(
            "GET /app-health/{container}/livez HTTP/1.1\r\nhost: {host}\r\nuser-agent: kube-probe/1.34\r\nx-token: a\r\n\
             x-token: b\r\nkeep-alive: 5\r\nconnection: close\r\n\r\n"
        );
        answer(&send(agent, &head)).1.to_ascii_lowercase()
    };
    // The agent's port in the Host becomes the application's; any other stays.
    let status_port = agent.port();
    let hosts = [
        (format!("10.0.0.1:{status_port}"), format!("10.0.0.1:{}", app.port())),
        (format!("[::1]:{status_port}"), format!("[::1]:{}", app.port())),
        ("web.example:1".to_owned(), "web.example:1".to_owned()),
        ("web.example".to_owned(), "web.example".to_owned()),
    ];
    for (told, expected) in &hosts {
        let head = seen("web", told);
        assert!(head.starts_with("get /head?a=b%20c http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nhost: {expected}\r\n")), "{told}: {head}");
        for part in ["\r\nuser-agent: kube-probe/1.34\r\n", "\r\nx-token: a\r\nx-token: b\r\n"] {
            assert!(head.contains(part), "{part}: {head}");
        }
        assert!(head.contains("\r\nconnection: close\r\n") && !head.contains("keep-alive"), "{head}");
    }
    let head = seen("moved", "web.example");
    assert!(head.contains("\r\nhost: web.example\r\n") && head.contains("x-token: a"), "{head}");
}

#[test]
fn metrics_of_the_proxy_and_of_the_application() {
    let app = application::http();
    let nobody = application::nobody();
    // Path, port, and what the page has and has not.
    let text = "text/plain; version=0.0.4; charset=utf-8";
    let open = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let table = [
        ("", app.port(), text, "app_up 1\n"),
        ("/open", app.port(), open, "app_open 1\n# EOF\n"),
        ("/echo", app.port(), text, "# accept: application/openmetrics-text\n"),
        ("/echo", app.port(), text, "# accept-encoding: identity\n"),
        ("/encoded", app.port(), text, ""),
        ("/huge", app.port(), text, ""),
        ("/bad", app.port(), text, ""),
        ("/cut", app.port(), text, ""),
        ("/metrics", nobody.port(), text, ""),
    ];
    for (path, port, content_type, expected) in table {
        let annotations = json!({"scrape": "true", "path": path, "port": port.to_string()}).to_string();
        let (_weft, bound, _directory) = start(&[("ISTIO_PROMETHEUS_ANNOTATIONS", &annotations)]);
        let agent = bound.agent.unwrap();
        let question = "GET /stats/prometheus HTTP/1.1\r\nhost: a\r\naccept: application/openmetrics-text\r\n\
                        connection: close\r\n\r\n";
        let (head, body) = answer(&send(agent, question));
        assert!(head.contains(&format!("\r\ncontent-type: {content_type}\r\n")), "{path}: {head}");
        assert!(body.contains("weft_config_generation 1\n"), "{path}: {body}");
        assert!(body.contains("istio_agent_scrapes_total 1\n"), "{path}: {body}");
        if expected.is_empty() {
            assert!(!body.contains("app_"), "{path}");
            let (_, body) = get(agent, "/metrics");
            let counted = "istio_agent_scrape_failures_total{type=\"application\"} 2\n";
            assert!(body.contains(counted), "{path}: {body}");
        } else {
            assert!(body.contains(expected), "{path}: {body}");
            assert!(
                body.matches("# EOF").count() <= 1 && (content_type == text || body.ends_with("# EOF\n"))
            );
            assert!(
                body.contains("istio_agent_scrape_failures_total{type=\"application\"} 0\n"),
                "{path}: {body}"
            );
        }
        let (status, own) = get(bound.prometheus.unwrap(), "/stats/prometheus");
        assert!(
            status == 200 && own.contains("weft_config_generation 1\n") && !own.contains("app_"),
            "{own}"
        );
        assert_eq!(get(bound.prometheus.unwrap(), "/other").0, 404);
    }
}

/// Each port that tells metrics understands what the console does, and refuses the rest.
#[test]
fn parameters_of_metrics() {
    let (_weft, bound, _directory) = start(&[]);
    for port in [bound.agent.unwrap(), bound.prometheus.unwrap(), bound.admin] {
        let page = |query: &str| get(port, &format!("/stats/prometheus{query}"));
        let (status, text) = page("?usedonly&filter=^weft_config_");
        assert!(status == 200 && text.contains("weft_config_generation 1\n"), "{text}");
        assert!(!text.contains("weft_build") && !text.contains("weft_config_refused 0"), "{text}");
        assert_eq!(page("?format=x"), (400, "`format` is not one of filter, usedonly\n".to_owned()));
        assert_eq!(page("?filter=("), (400, "filter: `(` is not a regular expression\n".to_owned()));
    }
}

/// Prometheus asks for gzip, and gets it on each port that tells metrics; the application is asked as ever.
#[test]
fn metrics_are_compressed_for_who_asks_for_it() {
    let app = application::http();
    let annotations =
        json!({"scrape": "true", "path": "/metrics", "port": app.port().to_string()}).to_string();
    let (_weft, bound, _directory) = start(&[("ISTIO_PROMETHEUS_ANNOTATIONS", &annotations)]);
    for (port, last) in
        [(bound.agent.unwrap(), "app_up 1\n"), (bound.prometheus.unwrap(), ""), (bound.admin, "")]
    {
        let question = "GET /stats/prometheus HTTP/1.1\r\nhost: localhost\r\naccept-encoding: gzip\r\n\
                        connection: close\r\n\r\n";
        let mut whole = Vec::new();
        send(port, question).read_to_end(&mut whole).unwrap();
        let end = whole.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&whole[..end]).to_ascii_lowercase();
        for field in ["content-encoding: gzip", "vary: accept-encoding"] {
            assert!(head.contains(&format!("\r\n{field}\r\n")), "{head}");
        }
        let mut text = String::new();
        flate2::read::GzDecoder::new(&whole[end..]).read_to_string(&mut text).unwrap();
        assert!(text.contains("weft_config_generation 1\n") && text.ends_with(last), "{text}");
        let (head, text) = answer(&send(port, &question.replace("gzip", "identity")));
        assert!(!head.contains("content-encoding") && head.contains("vary: accept-encoding"), "{head}");
        assert!(text.contains("weft_config_generation 1\n"), "{text}");
    }
}

#[test]
fn a_caller_of_this_host_ends_the_proxy_and_nobody_else() {
    let (mut weft, bound, _directory) = start(&[]);
    let agent = bound.agent.unwrap();
    assert_eq!(get(agent, "/healthz/ready"), (200, "ok\n".to_owned()));
    for page in ["/quitquitquit", "/drain"] {
        assert_eq!(get(agent, page).0, 405, "{page}");
        // From another address of this machine, if it has one that is not loopback.
        if let Some(address) = not_loopback() {
            assert_eq!(ask("POST", SocketAddr::new(address, agent.port()), page).0, 403, "{page}");
        }
        // As the proxy dials for a client elsewhere, where this port is captured too.
        assert_eq!(post_from([127, 0, 0, 6], agent, page), 403, "{page}");
    }
    assert_eq!(ask("POST", agent, "/drain"), (200, "OK\n".to_owned()));
    eventually("the log tells of the drain", || weft.log().contains("draining listeners").then_some(()));
    assert_eq!(get(agent, "/healthz/ready").0, 200);
    assert_eq!(ask("POST", agent, "/quitquitquit"), (200, "OK\n".to_owned()));
    assert_eq!(weft.ended().code(), Some(0), "{}", weft.log());
}

/// The status of a POST from an address of loopback.
fn post_from(own: [u8; 4], agent: SocketAddr, page: &str) -> u16 {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((own, 0)).into()).unwrap();
    socket.connect(&agent.into()).unwrap();
    let mut stream = std::net::TcpStream::from(socket);
    write!(stream, "POST {page} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The address by which this machine would reach another; no packet is sent.
fn not_loopback() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}

/// A gateway whose port somebody else has: nobody is sent there while it has no other, and both are told.
#[test]
fn a_gateway_without_its_port() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let free = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let port = taken.local_addr().unwrap().port();
    let directory = tempfile::tempdir().unwrap();
    let gateway = |ports: &[u16]| {
        let server = |port: &u16| {
            format!("{{port: {{number: {port}, name: http-{port}, protocol: HTTP}}, hosts: ['*']}}")
        };
        let servers: Vec<String> = ports.iter().map(server).collect();
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: edge-1, namespace: shop, labels: {{istio: edge}}}}\n\
             status: {{podIP: 127.0.0.1}}\n---\napiVersion: networking.istio.io/v1\nkind: Gateway\n\
             metadata: {{name: edge, namespace: shop}}\n\
             spec: {{selector: {{istio: edge}}, servers: [{}]}}\n",
            servers.join(", ")
        );
        std::fs::write(directory.path().join("gateway.yaml"), text).unwrap();
    };
    gateway(&[port]);
    let config = directory.path().to_str().unwrap();
    let arguments = ["--config", config, "--as", "edge-1.shop", "--mode", "gateway"];
    let pages = ["--status-port", "0", "--health-port", "0"];
    let mut weft = Weft::run_with(&[], &[arguments.as_slice(), &pages].concat());
    let bound = weft.ready();
    let not = format!("listener 0.0.0.0_{port} cannot listen on 0.0.0.0:{port}: Address already in use");
    for page in [bound.agent.unwrap(), bound.health.unwrap()] {
        let (status, text) = get(page, "/healthz/ready");
        assert!(status == 503 && text.contains(&not), "{text}");
    }
    assert_eq!(get(bound.admin, "/ready").0, 503);
    let (_, findings) = get(bound.admin, "/findings");
    assert!(findings.contains(&not) && findings.contains("end what has the port"), "{findings}");
    // With another port it serves somebody.
    gateway(&[port, free]);
    let ready = || get(bound.agent.unwrap(), "/healthz/ready").0 == 200;
    eventually("it serves at its other port", || ready().then_some(()));
    assert!(get(bound.admin, "/findings").1.contains(&not));
    let (_, text) = get(bound.admin, "/stats/prometheus?filter=weft_config_findings");
    assert!(text.contains("severity=\"error\"} 1\n"), "{text}");
    // What was in the way is gone; the next look at the configuration finds it so.
    drop(taken);
    gateway(&[free, port]);
    eventually("both are served", || get(bound.admin, "/findings").1.starts_with("nothing").then_some(()));
}

#[test]
fn what_cannot_be_is_said_at_the_start() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let check = |variables: &[(&str, &str)], arguments: &[&str], expected: &str| {
        let mut weft = Weft::run_with(variables, arguments);
        assert_eq!(weft.ended().code(), Some(1), "{arguments:?}");
        assert!(weft.log().contains(expected), "{arguments:?}: {}", weft.log());
    };
    for flag in ["--status-port", "--prometheus-port", "--health-port"] {
        let expected = format!(
            "cannot listen on port {port} of all addresses: Address already in use (os error 98); end \
                                what has it, or choose another with {flag}"
        );
        check(&[], &["--config", "/nowhere", flag, &port], &expected);
    }
    let arguments = ["--config", "/nowhere", "--status-port", "0"];
    check(&[("ISTIO_KUBE_APP_PROBERS", "[")], &arguments, "ISTIO_KUBE_APP_PROBERS holds no probes");
    let itself = r#"{"port": "15020"}"#;
    let arguments = ["--config", "/nowhere", "--status-port", "15020"];
    check(&[("ISTIO_PROMETHEUS_ANNOTATIONS", itself)], &arguments, "which would ask itself without end");
}
