//! TLS towards upstreams, as a DestinationRule asks for it: what is asked of the server, who is believed, and what clients
//! get when it fails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use std::net::SocketAddr;

use support::declared;
use support::mesh::destination_rule;
use support::tls::{Ca, Files, Pem, TlsServer};
use support::{Answer, Log, Mesh, PATIENCE, Request, Side, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The service `catalog`, whose endpoint is `server`, with a rule for it: `DIR` stands for where the files are.
async fn proxy_of(server: &TlsServer, port: &str, tls: &str, files: &Files) -> TestProxy {
    let name = port.split('/').next().unwrap();
    let mesh = Mesh::new().service("catalog", port).endpoint("catalog", name, "v1", server.address);
    let start = TestProxy::of(mesh.with("rule.yaml", &rule(tls, files))).listen("catalog", 8000);
    start.ready().await
}

fn rule(tls: &str, files: &Files) -> String {
    let tls = tls.replace("DIR", &files.path().display().to_string());
    destination_rule("catalog", &format!("  trafficPolicy: {{tls: {{{tls}}}}}"))
}

async fn ask(proxy: &TestProxy) -> Answer {
    Request::get("/a").host("shop.example").send(proxy.listener(0)).await
}

const ROOTS: &str = "mode: SIMPLE, caCertificates: DIR/roots.pem";

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_rule_believes() {
    let (ca, stranger) = (Ca::new("shop"), Ca::new("stranger"));
    let backend = TestBackend::echo("catalog").await;
    let uri = "spiffe://cluster.local/ns/shop/sa/catalog";
    let named = ca.issue("shop.example", |_| {});
    let wildcard = ca.issue("*.example", |_| {});
    let expired = ca.issue("shop.example", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let future = ca.issue("shop.example", |params| params.not_before = rcgen::date_time_ymd(2100, 1, 1));
    let unknown = stranger.issue("shop.example", |_| {});
    let workload = ca.workload(uri);
    let roots = |more: &str| format!("{ROOTS}{more}");
    // What the server shows, what the rule says, and why the handshake fails, if it does.
    let cases = [
        (&named, roots(", sni: a.b"), None),
        (&named, roots(""), None),
        (&wildcard, roots(""), None),
        (&workload, roots(""), Some("certificate_not_of_a_wanted_name")),
        (&workload, roots(", sni: a.b"), None),
        (&workload, roots(&format!(", subjectAltNames: ['{uri}']")), None),
        (&named, roots(", subjectAltNames: [SHOP.example, other]"), None),
        (&wildcard, roots(", subjectAltNames: [a.shop.example]"), Some("certificate_not_of_a_wanted_name")),
        (&named, roots(", subjectAltNames: [other]"), Some("certificate_not_of_a_wanted_name")),
        (&expired, roots(""), Some("certificate_expired")),
        (&future, roots(""), Some("certificate_not_yet_valid")),
        (&unknown, roots(""), Some("certificate_unknown_issuer")),
        // The roots of the operating system do not know ours.
        (&named, "mode: SIMPLE".to_owned(), Some("certificate_unknown_issuer")),
        (&unknown, "mode: SIMPLE, insecureSkipVerify: true".to_owned(), None),
    ];
    let files = Files::new(&ca);
    for (shown, tls, failure) in cases {
        let server = TlsServer::new(backend.address, shown, None, &[]).await;
        let proxy = proxy_of(&server, "http/8000", &tls, &files).await;
        let answer = ask(&proxy).await;
        let Some(reason) = failure else {
            assert_eq!(answer.status, 200, "{tls}: {}", answer.text());
            let said = server.said();
            let asked = if tls.contains("a.b") { "a.b" } else { "shop.example" };
            assert_eq!(said.len(), 1, "{tls}");
            assert_eq!(
                (&*said[0].server_name, said[0].alpn.join(",")),
                (asked, "http/1.1".to_owned()),
                "{tls}"
            );
            continue;
        };
        assert_eq!(answer.status, 503, "{tls}");
        let text = answer.text();
        assert!(text.contains("remote connection failure") || text.contains("connection failure"), "{text}");
        let labels = [("reason", reason)];
        let failures = || proxy.metric("weft_cluster_tls_handshake_failures_total", &labels);
        eventually(reason, || async { failures().await.filter(|failures| *failures > 0.0) }).await;
        // It was tried again, in vain.
        let flags = [("response_flags", "URX,UF")];
        eventually("the flags", || async { proxy.metric("istio_requests_total", &flags).await }).await;
        let told = proxy.page("/errors").await;
        assert!(told.contains(&format!("TLS error: {}", reason.replace('_', " "))), "{tls}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_is_spoken_and_connections_are_kept() {
    let ca = Ca::new("shop");
    let backend = TestBackend::echo("catalog").await;
    let shown = ca.issue("shop.example", |_| {});
    let files = Files::new(&ca);
    for (port, version, alpn) in [("http/8000", "HTTP/1.1", "http/1.1"), ("http2/8000", "HTTP/2.0", "h2")] {
        let server = TlsServer::new(backend.address, &shown, None, &["h2", "http/1.1"]).await;
        let proxy = proxy_of(&server, port, ROOTS, &files).await;
        for _ in 0..3 {
            let answer =
                Request::get("/").host("shop.example").body(vec![7; 200_000]).send(proxy.listener(0));
            assert_eq!(answer.await.json()["version"], version);
        }
        let said = server.said();
        assert_eq!(said.len(), 1, "{port}");
        assert_eq!(said[0].alpn, [alpn]);
        let handshakes = proxy.metric("envoy_cluster_ssl_handshake", &[]).await;
        assert_eq!(handshakes, Some(1.0), "{port}");
        // Another host is another server, unless the rule says which.
        let other = Request::get("/").host("other.example").send(proxy.listener(0)).await;
        assert_eq!(other.status, 503, "{port}");
        proxy.publish("rule.yaml", &rule(&format!("{ROOTS}, sni: shop.example"), &files)).await;
        let other = Request::get("/").host("other.example").send(proxy.listener(0)).await;
        assert_eq!(other.status, 200, "{port}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_show_certificates_and_ours_is_renewed_in_files() {
    let ca = Ca::new("shop");
    let backend = TestBackend::echo("catalog").await;
    let server = TlsServer::new(backend.address, &ca.issue("shop.example", |_| {}), Some(&ca), &[]).await;
    let files = Files::new(&ca);
    let mutual = "mode: MUTUAL, caCertificates: DIR/roots.pem, clientCertificate: DIR/chain.pem, \
                  privateKey: DIR/key.pem, sni: shop.example";
    let proxy = proxy_of(&server, "http/8000", mutual, &files).await;
    let answer = ask(&proxy).await;
    assert_eq!(answer.status, 503);
    assert!(proxy.page("/findings").await.contains("key.pem cannot be read"));
    let (first, second) = (ca.issue("one", |_| {}), ca.issue("two", |_| {}));
    files.show(&first);
    eventually("the certificate is shown", || async { (ask(&proxy).await.status == 200).then_some(()) })
        .await;
    // A key that is another's changes nothing.
    files.write("key.pem", &second.key);
    eventually("that is found", || async {
        proxy.page("/findings").await.contains("what was last good of it serves").then_some(())
    })
    .await;
    assert_eq!(ask(&proxy).await.status, 200);
    files.write("chain.pem", &second.chain);
    eventually("it serves again", || async {
        (!proxy.page("/findings").await.contains("unusable-secret")).then_some(())
    })
    .await;
    // The connection that was made stays; the next one shows what is there now.
    assert_eq!(ask(&proxy).await.status, 200);
    let shown = |number: usize| server.said().get(number).and_then(|said| said.certificate.clone());
    let der = |pem: &Pem| Some(pem.parsed().0[0].to_vec());
    assert_eq!((server.said().len(), shown(0)), (1, der(&first)));
    let asked = (0..8).map(|_| Request::get("/").host("shop.example").send(proxy.listener(0)));
    let mut together: tokio::task::JoinSet<Answer> = asked.collect();
    while let Some(answer) = together.join_next().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    if server.said().len() > 1 {
        assert_eq!(shown(1), der(&second));
    }
    // Other roots are another trust: no connection of before serves.
    files.write("roots.pem", &Ca::new("other").pem);
    eventually("nobody is believed", || async { (ask(&proxy).await.status == 503).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_the_namespace_is_shown_and_believed() {
    let ca = Ca::new("shop");
    let backend = TestBackend::echo("catalog").await;
    let server = TlsServer::new(backend.address, &ca.issue("shop.example", |_| {}), Some(&ca), &[]).await;
    let files = Files::new(&ca);
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", server.address);
    let mesh = mesh.with("rule.yaml", &rule("mode: MUTUAL, credentialName: shop", &files));
    let format = "%UPSTREAM_TRANSPORT_FAILURE_REASON% %RESPONSE_CODE_DETAILS%\\n";
    let start = TestProxy::of(Log::configure(mesh, &format!("accessLogFormat: \"{format}\"\n")));
    let proxy = start.listen("catalog", 8000).ready().await;
    assert_eq!(ask(&proxy).await.status, 503);
    let line = Log::of(&proxy.mesh, Side::Weft(&proxy)).next_text().await;
    let words = "TLS_error:_Secret_is_not_supplied_by_SDS";
    assert!(line.starts_with(&format!("{words} ")) && line.ends_with(&format!("|{words}}}")), "{line}");
    let own = ca.issue("client", |_| {});
    let indented = |text: &str| text.trim_end().replace('\n', "\n    ");
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: shop, namespace: shop}}\nstringData:\n  tls.crt: |\n    {}\n  \
         tls.key: |\n    {}\n  ca.crt: |\n    {}\n",
        indented(&own.chain),
        indented(&own.key),
        indented(&ca.pem)
    );
    proxy.publish("secret.yaml", &secret).await;
    assert_eq!(ask(&proxy).await.status, 200);
    assert_eq!(server.said()[0].certificate, Some(own.parsed().0[0].to_vec()));
    for page in ["/config_dump", "/findings"] {
        assert!(!proxy.page(page).await.contains("PRIVATE"), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_nobody_verified_is_nobody() {
    let ca = Ca::new("shop");
    let backend = TestBackend::echo("catalog").await;
    let uri = "spiffe://cluster.local/ns/shop/sa/catalog";
    let server = TlsServer::new(backend.address, &ca.workload(uri), Some(&ca), &[]).await;
    let files = Files::new(&ca);
    files.show(&ca.workload("spiffe://cluster.local/ns/shop/sa/client"));
    let mutual = "mode: MUTUAL, clientCertificate: DIR/chain.pem, privateKey: DIR/key.pem, sni: shop.example";
    for (more, principal) in
        [(", caCertificates: DIR/roots.pem", uri), (", insecureSkipVerify: true", "unknown")]
    {
        let proxy = proxy_of(&server, "http/8000", &format!("{mutual}{more}"), &files).await;
        let answer = ask(&proxy).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let labels = [("reporter", "source"), ("destination_principal", principal)];
        eventually(principal, || async { proxy.metric("istio_requests_total", &labels).await }).await;
    }
}

/// Where a rule names nobody the names of the ServiceEntry count, besides the host where no server name is told. Semantics:
/// istiod's.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_service_entry_count_where_a_rule_has_none() {
    let ca = Ca::new("shop");
    let backend = TestBackend::echo("shop").await;
    let server = TlsServer::new(backend.address, &ca.issue("shop.example", |_| {}), None, &[]).await;
    let files = Files::new(&ca);
    for (names, tls, expected) in [
        ("[shop.example]", "", 200),
        ("[shop.example]", ", sni: a.b", 200),
        ("[other.example]", ", sni: a.b", 503),
        ("[other.example]", "", 503),
        ("[other.example]", ", subjectAltNames: [shop.example]", 200),
        ("[]", ", sni: a.b", 200),
    ] {
        let entry = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: shop, namespace: shop}}\nspec:\n\
             \x20 hosts: [shop.example]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  subjectAltNames: {names}\n\
             \x20 ports: [{{number: 8000, name: http, protocol: HTTP}}]\n\
             \x20 endpoints: [{{address: {}, ports: {{http: {}}}}}]\n",
            server.address.ip(),
            server.address.port(),
        );
        let rule = rule(&format!("{ROOTS}{tls}"), &files).replace("catalog", "shop.example");
        let mesh = Mesh::new().with("entry.yaml", &entry).with("rule.yaml", &rule);
        let proxy = TestProxy::of(mesh).listen_outbound(8000).ready().await;
        let answer = ask(&proxy).await;
        assert_eq!(answer.status, expected, "{names} {tls}: {}", answer.text());
        assert!(!proxy.page("/findings").await.contains("field-not-honoured"), "{names} {tls}");
    }
}

/// A server of TLS 1.3 reads our certificate when the handshake is over for us. What it has against it is told nevertheless, of
/// requests and of bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_us_behind_the_handshake_is_told() {
    let (ca, stranger) = (Ca::new("shop"), Ca::new("stranger"));
    let backend = TestBackend::echo("catalog").await;
    let server = TlsServer::new(backend.address, &ca.issue("shop.example", |_| {}), Some(&ca), &[]).await;
    let files = Files::new(&ca);
    files.show(&stranger.issue("client", |_| {}));
    let mutual = "mode: MUTUAL, caCertificates: DIR/roots.pem, clientCertificate: DIR/chain.pem, \
                  privateKey: DIR/key.pem, sni: shop.example";
    let format = "%RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON% %RESPONSE_CODE_DETAILS%";
    let words = "TLS_error:_server_refused";
    let details = format!("upstream_reset_before_response_started{{connection_termination|{words}}}");
    let raw_log = files.path().join("raw.log");
    for (port, times) in [("http/8000", 1.0), ("http2/8000", 2.0)] {
        let name = port.split('/').next().unwrap();
        let mesh = Mesh::new().service("catalog", port).endpoint("catalog", name, "v1", server.address);
        let mesh = mesh.with("rule.yaml", &rule(mutual, &files));
        let mesh = Log::configure(mesh, &format!("accessLogFormat: \"{format}\\n\"\n"));
        let cluster =
            config::TcpDestinations::Cluster("outbound|8000||catalog.shop.svc.cluster.local".into());
        let raw = declared::tcp(cluster, |proxy| proxy.access_log = declared::log(&raw_log, format));
        let raw = declared::listener("raw", vec![declared::chain(declared::any(), raw)]);
        let start = TestProxy::of(mesh).listen("catalog", 8000);
        let start = start.set(|settings| settings.static_resources = declared::update(vec![raw], []));
        let proxy = start.ready().await;
        let answer = ask(&proxy).await;
        assert_eq!(answer.status, 503, "{port}");
        assert!(answer.text().ends_with("reset reason: connection termination"), "{}", answer.text());
        let line = Log::of(&proxy.mesh, Side::Weft(&proxy)).next_text().await;
        assert_eq!(line, format!("UC {words} {details}"), "{port}");
        let labels = [("reason", "server_refused")];
        let failures = || proxy.metric("weft_cluster_tls_handshake_failures_total", &labels);
        assert_eq!(failures().await, Some(1.0), "{port}");
        // Bytes have no answer that could say it, and as with Envoy no flag.
        let mut stream = TcpStream::connect(proxy.listener(1)).await.unwrap();
        ends(&mut stream, port).await;
        let lines = || async { std::fs::read_to_string(&raw_log).ok() };
        let line = format!("- {words} -\n");
        let logged = || async { lines().await.filter(|lines| lines.matches(&line).count() as f64 == times) };
        eventually("the end of the bytes is logged", logged).await;
        assert_eq!(failures().await, Some(2.0), "{port}");
        let errors = proxy.page("/errors").await;
        let of = ", cluster outbound|8000||catalog.shop.svc.cluster.local of DestinationRule shop/catalog";
        for cause in ["503 UC", "TCP -"] {
            assert!(errors.contains(&format!("1 x {cause}: TLS error: server refused{of}")), "{errors}");
        }
    }
}

/// Bytes have but one connection: it ends when its server would not be believed any more, or not be spoken to in plain text.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_end_when_their_server_is_not_trusted_any_more() {
    let ca = Ca::new("shop");
    let backend = TestBackend::echo("catalog").await;
    let shown = ca.issue("shop.example", |params| params.serial_number = Some(vec![1].into()));
    let server = TlsServer::new(backend.address, &shown, None, &[]).await;
    let files = Files::new(&ca);
    files.write("revoked.pem", &ca.revoke(&[]));
    let trusting = format!("{ROOTS}, caCrl: DIR/revoked.pem, sni: shop.example");
    let proxy = passing(server.address, &rule(&trusting, &files)).await;
    let another = format!("{}{}", ca.pem, Ca::new("other").pem);
    let named = |name: &str| rule(&format!("{trusting}, subjectAltNames: [{name}]"), &files);
    let changes: [(&str, bool, &dyn Fn()); 4] = [
        ("a root besides", true, &|| files.write("roots.pem", &another)),
        ("its name is asked for", true, &|| proxy.mesh.write("rule.yaml", &named("shop.example"))),
        ("its certificate is revoked", false, &|| files.write("revoked.pem", &ca.revoke(&[1]))),
        ("another name is asked for", false, &|| proxy.mesh.write("rule.yaml", &named("other.example"))),
    ];
    for (what, stands, change) in changes {
        let mut stream = passed(&proxy).await;
        let before = proxy.generation().await;
        change();
        proxy.generation_after(before).await;
        match stands {
            true => asks(&mut stream).await,
            false => ends(&mut stream, what).await,
        }
        files.write("revoked.pem", &ca.revoke(&[]));
        proxy.mesh.write("rule.yaml", &rule(&trusting, &files));
        eventually("it is believed again", || async { answers(&proxy).await.then_some(()) }).await;
    }
    let mut stream = passed(&proxy).await;
    files.write("roots.pem", &Ca::new("other").pem);
    ends(&mut stream, "its root is gone").await;
    let closed = proxy.metric("weft_listener_connections_not_admitted_total", &[]).await;
    assert_eq!(closed, Some(3.0));
    let errors = proxy.page("/errors").await;
    assert!(errors.contains("3 x TCP -: its server's certificate is not believed any more, "), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_in_plain_text_end_when_tls_is_asked_for() {
    let backend = TestBackend::echo("catalog").await;
    let files = Files::new(&Ca::new("shop"));
    let proxy = passing(backend.address, &rule("mode: DISABLE", &files)).await;
    let mut stream = passed(&proxy).await;
    proxy.mesh.write("rule.yaml", &rule(ROOTS, &files));
    ends(&mut stream, "TLS is asked for").await;
}

/// A proxy that passes bytes on to the service `catalog`, whose endpoint is there, by its second listener.
async fn passing(to: SocketAddr, rule: &str) -> TestProxy {
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", to);
    let raw = declared::to_tcp(declared::any(), "outbound|8000||catalog.shop.svc.cluster.local");
    let resources = declared::update(vec![declared::listener("raw", vec![raw])], []);
    let start = TestProxy::of(mesh.with("rule.yaml", rule)).listen("catalog", 8000);
    start.set(|settings| settings.static_resources = resources).ready().await
}

const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A connection whose bytes are passed on.
async fn passed(proxy: &TestProxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.listener(1)).await.unwrap();
    asks(&mut stream).await;
    stream
}

async fn asks(stream: &mut TcpStream) {
    stream.write_all(ASK).await.unwrap();
    let count = stream.read(&mut vec![0; 64 * 1024]).await.unwrap();
    assert_ne!(count, 0, "it has ended");
}

/// Whether a new connection gets an answer.
async fn answers(proxy: &TestProxy) -> bool {
    let Ok(mut stream) = TcpStream::connect(proxy.listener(1)).await else { return false };
    let _ = stream.write_all(ASK).await;
    stream.read(&mut vec![0; 64 * 1024]).await.is_ok_and(|count| count > 0)
}

/// Waits for the end, by an end or by a reset.
async fn ends(stream: &mut TcpStream, what: &str) {
    let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 64])).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{what}: {ended:?}");
}
