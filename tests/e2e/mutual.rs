//! Mutual TLS between two proxies, each with the identity of its workload: who gets through, what the application learns of
//! its client, and that certificates are renewed under load.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use config::{
    ByRequest, ClientCertificates, Cluster, ClusterLoadAssignment, DownstreamTls, FilterChain,
    FilterChainMatch, ForwardClientCert, HttpProtocol, OWN_CERTIFICATE, OWN_ROOTS, PeerMetadata,
    ServerCertificate, StringMatch, TrafficDirection, TransportProtocol, TransportSocket, Trust, UpstreamTls,
    UpstreamTlsMode,
};
use rcgen::SanType;
use support::declared::{
    self, any, cluster, http, listener, log, manager, sniffing, tcp, terminates, to_tcp, update,
};
use support::proxy::Start;
use support::tls::{Ca, Files, Pem, believing, handshake};
use support::{Mesh, Request, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use weft::app::IdentitySource;

/// Who the server is.
pub(crate) const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/server";
/// Who the client is.
pub(crate) const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";

/// How an inbound listener of a sidecar terminates mutual TLS, as compile has it.
fn terminated(alpn: &[&str]) -> Option<Arc<DownstreamTls>> {
    let clients = ClientCertificates::Required(Trust {
        roots: OWN_ROOTS.into(),
        revoked: None,
        subject_alt_names: vec![StringMatch::Prefix("spiffe://cluster.local/".into())],
        fingerprints: Vec::new(),
    });
    Some(Arc::new(DownstreamTls {
        cipher_suites: vec!["ECDHE-ECDSA-AES128-GCM-SHA256".into(), "AES128-GCM-SHA256".into()],
        forwards_certificate: false,
        ..terminates(OWN_CERTIFICATE, clients, alpn)
    }))
}

fn offering(alpn: &[&str]) -> FilterChainMatch {
    FilterChainMatch {
        transport_protocol: Some(TransportProtocol::Tls),
        application_protocols: alpn.iter().copied().map(Arc::from).collect(),
        ..any()
    }
}

/// The chains of a port whose protocol is detected: of STRICT, or of PERMISSIVE.
pub(crate) fn chains(permissive: bool, log_file: &std::path::Path) -> Vec<FilterChain> {
    let mut manager = manager("app");
    manager.access_log =
        log(log_file, "%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_LOCAL_URI_SAN% %DOWNSTREAM_TLS_VERSION%");
    manager.forward_client_cert = ForwardClientCert::AppendForward;
    manager.peer_metadata = PeerMetadata::INBOUND;
    let web = config::NetworkFilter::Http(Arc::new(manager));
    let bytes = || {
        tcp(config::TcpDestinations::Cluster("raw".into()), |tcp| {
            tcp.access_log = log(log_file, "raw %CONNECTION_TERMINATION_DETAILS%");
        })
    };
    let chain = |chain_match, filter, tls| FilterChain { name: "".into(), chain_match, tls, filter };
    let of_http = offering(&["istio-http/1.0", "istio-http/1.1", "istio-h2"]);
    let mut chains = vec![chain(of_http, web.clone(), terminated(&["h2", "http/1.1"]))];
    let mutual_tcp = terminated(&["istio-peer-exchange", "h2", "http/1.1"]);
    if permissive {
        chains.push(chain(http(), web, None));
        chains.push(chain(offering(&["istio-peer-exchange", "istio"]), bytes(), mutual_tcp));
        let raw = FilterChainMatch { transport_protocol: Some(TransportProtocol::RawBuffer), ..any() };
        chains.extend([to_tcp(raw, "raw"), to_tcp(offering(&[]), "raw")]);
    } else {
        chains.push(chain(offering(&[]), bytes(), mutual_tcp));
    }
    chains
}

/// A server that says back what it hears.
async fn echo() -> SocketAddr {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// A workload with a proxy beside it, and the files of its identity.
pub(crate) struct Side {
    pub(crate) proxy: TestProxy,
    files: Files,
    /// Where connections are logged.
    pub(crate) log: std::path::PathBuf,
}

impl Side {
    /// The certificate that it shows.
    pub(crate) fn shown(&self) -> Vec<u8> {
        let pem = std::fs::read(self.files.path().join("chain.pem")).unwrap();
        CertificateDer::from_pem_slice(&pem).unwrap().to_vec()
    }

    /// Changes its files, and waits until it has taken them over.
    pub(crate) async fn renewed(&self, change: impl FnOnce(&Files)) {
        let before = self.proxy.generation().await;
        change(&self.files);
        self.proxy.generation_after(before).await;
    }
}

/// Who a proxy says that it stands beside.
fn workload(of: &mut weft::app::Workload, app: &str, version: &str) {
    let labels = [("app", app), ("version", version)];
    of.labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    of.metadata.insert("WORKLOAD_NAME".to_owned(), format!("{app}-{version}"));
}

pub(crate) fn files(ca: &Ca, pem: &Pem) -> Files {
    let files = Files::new(ca);
    files.show(pem);
    files
}

pub(crate) async fn server(ca: &Ca, app: &TestBackend, permissive: bool) -> Side {
    let files = files(ca, &ca.workload(SERVER));
    let log = files.path().join("log");
    let start = server_with(files.identity().into(), app, permissive, &log).await;
    Side { proxy: start.ready().await, files, log }
}

/// A proxy before `app` that terminates TLS with an identity from there.
pub(crate) async fn server_with(
    identity: IdentitySource,
    app: &TestBackend,
    permissive: bool,
    log: &std::path::Path,
) -> Start {
    let mut inbound = sniffing("inbound", chains(permissive, log), None);
    inbound.traffic_direction = TrafficDirection::Inbound;
    let clusters = [cluster("app", &[app.address]), cluster("raw", &[echo().await])];
    let resources = update(vec![inbound], clusters);
    TestProxy::of(Mesh::new()).set(|settings| {
        settings.static_resources = resources;
        settings.workload.service_account = "server".to_owned();
        settings.workload.environment.identity = Some(identity);
        workload(&mut settings.workload, "server", "v2");
    })
}

/// A cluster that is spoken to with the identity of the workload, and must be `identity`.
fn mutual(
    name: &str,
    address: SocketAddr,
    protocol: HttpProtocol,
    identity: &str,
) -> (Cluster, ClusterLoadAssignment) {
    let (mut cluster, endpoints) = cluster(name, &[address]);
    cluster.protocol = protocol;
    cluster.transport_socket = TransportSocket::Tls(Box::new(UpstreamTls {
        mode: UpstreamTlsMode::IstioMutual,
        sni: "outbound_.8000_.v1_.catalog.shop.svc.cluster.local".into(),
        by_request: ByRequest::default(),
        certificate: Some(OWN_CERTIFICATE.into()),
        server: ServerCertificate::Verified(Trust {
            roots: OWN_ROOTS.into(),
            revoked: None,
            subject_alt_names: vec![StringMatch::Exact(identity.into())],
            fingerprints: Vec::new(),
        }),
        alpn: ["istio-peer-exchange".into(), "istio".into()].into(),
        version_max: config::TlsVersion::V1_3,
        origin: None,
    }));
    (cluster, endpoints)
}

pub(crate) async fn client(files: Files, to: SocketAddr, identity: &str) -> Side {
    let log = files.path().join("log");
    let proxy = client_logging(files.identity().into(), to, identity, Some(&log)).ready().await;
    Side { proxy, files, log }
}

/// A proxy that speaks HTTP/1.1, HTTP/2 and bytes to `to`, which must be `identity`, by listeners in this order; with an
/// identity from there.
pub(crate) fn client_with(own: IdentitySource, to: SocketAddr, identity: &str) -> Start {
    client_logging(own, to, identity, None)
}

fn client_logging(
    own: IdentitySource,
    to: SocketAddr,
    identity: &str,
    log_file: Option<&std::path::Path>,
) -> Start {
    let names = ["http1", "http2", "raw"];
    let listeners = names.map(|name| match name {
        "raw" => listener(name, vec![to_tcp(any(), name)]),
        name => {
            let mut manager = manager(name);
            manager.peer_metadata = PeerMetadata::OUTBOUND;
            let format = "%UPSTREAM_PEER_URI_SAN% %UPSTREAM_LOCAL_URI_SAN% %UPSTREAM_TLS_VERSION%";
            manager.access_log = log_file.map(|file| log(file, format)).unwrap_or_default();
            listener(name, vec![declared::chain(any(), config::NetworkFilter::Http(Arc::new(manager)))])
        }
    });
    let protocols = [HttpProtocol::Http1, HttpProtocol::Http2, HttpProtocol::Http1];
    let clusters = names.into_iter().zip(protocols).map(|(name, it)| mutual(name, to, it, identity));
    let resources = update(listeners.to_vec(), clusters);
    TestProxy::of(Mesh::new()).set(|settings| {
        settings.static_resources = resources;
        settings.workload.environment.identity = Some(own);
        workload(&mut settings.workload, "client", "v1");
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_passes_and_the_application_learns_who_asks() {
    let ca = Ca::new("mesh");
    let app = TestBackend::echo("app").await;
    for permissive in [false, true] {
        let server = server(&ca, &app, permissive).await;
        let client = client(files(&ca, &ca.workload(CLIENT)), server.proxy.listener(0), SERVER).await;
        for (index, version) in [(0, "HTTP/1.1"), (1, "HTTP/2.0")] {
            let request = Request::get("/a").header("x-forwarded-client-cert", "URI=spiffe://liar");
            let answer = request.body(vec![b'a'; 100_000]).send(client.proxy.listener(index)).await;
            assert_eq!(answer.status, 200, "{permissive} {version}: {}", answer.text());
            let json = answer.json();
            assert_eq!(json["version"], "HTTP/1.1", "the application speaks what its cluster says");
            let told = json["headers"]["x-forwarded-client-cert"].as_array().unwrap();
            assert_eq!(told.len(), 1);
            let told = told[0].as_str().unwrap();
            let begin = format!("By={SERVER};Hash=");
            let end = format!(";Subject=\"\";URI={CLIENT}");
            assert!(told.starts_with(&begin) && told.ends_with(&end), "{told}");
        }
        let mut bytes = TcpStream::connect(client.proxy.listener(2)).await.unwrap();
        bytes.write_all(&[7; 300_000]).await.unwrap();
        let mut back = vec![0; 300_000];
        bytes.read_exact(&mut back).await.unwrap();
        assert!(back.iter().all(|byte| *byte == 7));
        bytes.shutdown().await.unwrap();
        assert_eq!(bytes.read(&mut back).await.unwrap(), 0);
        let policy = [("reporter", "destination"), ("connection_security_policy", "mutual_tls")];
        for metric in ["istio_requests_total", "istio_tcp_connections_closed_total"] {
            eventually(metric, || async { server.proxy.metric(metric, &policy).await }).await;
        }
        let line = format!("{CLIENT} {SERVER} TLSv1.3");
        eventually("the log tells who asked", || async {
            let text = std::fs::read_to_string(&server.log).unwrap_or_default();
            text.lines().next().filter(|first| *first == line).map(drop)
        })
        .await;
        let expiry = server.proxy.metric("weft_certificate_expiry_timestamp_seconds", &[("name", "default")]);
        assert!(expiry.await.is_some_and(|expiry| expiry > 1e9));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_is_refused_where_it_must_be_and_never_looks_like_somebody() {
    let ca = Ca::new("mesh");
    let app = TestBackend::echo("app").await;
    let strict = server(&ca, &app, false).await;
    let mut plain = TcpStream::connect(strict.proxy.listener(0)).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    // By an end or by a reset.
    let _ = plain.read_to_end(&mut heard).await;
    assert!(heard.is_empty());
    assert_eq!(app.served(), 0);
    let permissive = server(&ca, &app, true).await;
    let request = Request::get("/").header("x-forwarded-client-cert", &format!("URI={CLIENT}"));
    let answer = request.send(permissive.proxy.listener(0)).await;
    assert_eq!(answer.status, 200);
    assert!(answer.json()["headers"].get("x-forwarded-client-cert").is_none(), "{}", answer.text());
    let policy = [("reporter", "destination"), ("connection_security_policy", "none")];
    let counted = || permissive.proxy.metric("istio_requests_total", &policy);
    eventually("it is counted as plain text", || async { counted().await }).await;
}

/// What a client shows and offers, and what it is answered or why not.
type Handshake<'h> = (Option<&'h Pem>, &'h [&'h str], Result<&'h str, &'h str>);

/// Makes a handshake with what it shows and offers, and asks over HTTP/1.1.
async fn asks(to: SocketAddr, ca: &Ca, shown: Option<&Pem>, alpn: &[&str]) -> Result<String, String> {
    // Whom a sidecar shows is not the question here: a server of any name will do.
    let mut stream = handshake(believing(ca, shown, alpn), to, "outbound_.80_._.a.b").await?;
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    asked.map_err(|error| error.to_string())?;
    let mut heard = [0; 12];
    stream.read_exact(&mut heard).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gets_through_and_why_others_do_not() {
    let (ca, stranger) = (Ca::new("mesh"), Ca::new("stranger"));
    let app = TestBackend::echo("app").await;
    let uris = |ca: &Ca, uris: &[&str]| {
        ca.issue("workload", |params| {
            let names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
            params.subject_alt_names = names.collect();
        })
    };
    let good = ca.workload(CLIENT);
    let two = uris(&ca, &[CLIENT, "spiffe://cluster.local/ns/shop/sa/other"]);
    let elsewhere = uris(&ca, &["spiffe://other.local/ns/shop/sa/client"]);
    let not_spiffe = uris(&ca, &["https://cluster.local/"]);
    let nameless = uris(&ca, &[]);
    let untrusted = uris(&stranger, &[CLIENT]);
    let aged = |change: fn(&mut rcgen::CertificateParams)| {
        ca.issue("workload", |params| {
            params.subject_alt_names = vec![SanType::URI(CLIENT.try_into().unwrap())];
            change(params);
        })
    };
    let expired = aged(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let future = aged(|params| params.not_before = rcgen::date_time_ymd(2100, 1, 1));
    const HTTP: &[&str] = &["istio-http/1.1", "istio", "http/1.1"];
    for permissive in [false, true] {
        let server = server(&ca, &app, permissive).await;
        let to = server.proxy.listener(0);
        // What is shown and offered, and whether HTTP is served, bytes are, or why nothing is.
        let cases: [Handshake<'_>; 13] = [
            (Some(&good), HTTP, Ok("HTTP/1.1 200")),
            (Some(&good), &["istio-http/1.1"], Ok("HTTP/1.1 200")),
            (Some(&good), &["istio"], Ok("GET / HTTP/")),
            // It is told first who serves it.
            (Some(&good), &["istio-peer-exchange", "istio"], Ok("=#\u{4}g\0\0")),
            (None, HTTP, Err("certificate_missing")),
            (Some(&two), HTTP, Err("certificate_not_of_a_workload")),
            (Some(&not_spiffe), HTTP, Err("certificate_not_of_a_workload")),
            (Some(&nameless), HTTP, Err("certificate_not_of_a_workload")),
            (Some(&elsewhere), HTTP, Err("certificate_not_of_a_wanted_name")),
            (Some(&elsewhere), &["istio"], Err("certificate_not_of_a_wanted_name")),
            (Some(&untrusted), HTTP, Err("certificate_unknown_issuer")),
            (Some(&expired), HTTP, Err("certificate_expired")),
            (Some(&future), HTTP, Err("certificate_not_yet_valid")),
        ];
        for (index, (shown, alpn, expected)) in cases.into_iter().enumerate() {
            let reason = expected.err().unwrap_or("none");
            let labels = [("reason", reason)];
            let metric = "weft_listener_tls_handshake_failures_total";
            let before = server.proxy.metric(metric, &labels).await.unwrap_or(0.0);
            let heard = asks(to, &ca, shown, alpn).await;
            match expected {
                Ok(begin) => {
                    let heard = heard.unwrap_or_else(|error| panic!("{permissive} {index}: {error}"));
                    assert!(heard.starts_with(begin), "{permissive} {index}: {heard}");
                }
                Err(reason) => {
                    assert!(heard.is_err(), "{permissive} {index} {reason}: {heard:?}");
                    eventually(reason, || async {
                        server.proxy.metric(metric, &labels).await.filter(|failures| *failures > before)
                    })
                    .await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_takes_no_other_server() {
    let ca = Ca::new("mesh");
    let app = TestBackend::echo("app").await;
    let server = server(&ca, &app, false).await;
    let other = "spiffe://cluster.local/ns/shop/sa/other";
    let client = client(files(&ca, &ca.workload(CLIENT)), server.proxy.listener(0), other).await;
    for index in [0, 1] {
        let answer = Request::get("/").send(client.proxy.listener(index)).await;
        assert_eq!(answer.status, 503);
    }
    assert_eq!(app.served(), 0);
    let labels = [("reason", "certificate_not_of_a_wanted_name")];
    let failures = client.proxy.metric("weft_cluster_tls_handshake_failures_total", &labels).await;
    assert_eq!(failures, Some(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_roots_are_renewed_under_load() {
    const ROTATIONS: usize = 10;
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let app = TestBackend::echo("app").await;
    let server = server(&old, &app, false).await;
    let client = client(files(&old, &old.workload(CLIENT)), server.proxy.listener(0), SERVER).await;
    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for worker in 0..4 {
        let (to, over) = (client.proxy.listener(worker % 2), over.clone());
        let answered = answered.clone();
        load.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let answer = Request::get("/").send(to).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let goes_on = async || {
        let before = answered.load(Ordering::Relaxed);
        eventually("requests go on", || async {
            (answered.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
    };
    for _ in 0..ROTATIONS {
        client.renewed(|files| files.show(&old.workload(CLIENT))).await;
        server.renewed(|files| files.show(&old.workload(SERVER))).await;
        goes_on().await;
    }
    // Both roots are believed, then both show certificates of the new one, then the old one goes.
    let both = format!("{}{}", old.pem, new.pem);
    for side in [&client, &server] {
        side.renewed(|files| files.write("roots.pem", &both)).await;
    }
    goes_on().await;
    client.renewed(|files| files.show(&new.workload(CLIENT))).await;
    server.renewed(|files| files.show(&new.workload(SERVER))).await;
    eventually("the key is that of the certificate", || async {
        let pages = [client.proxy.page("/findings").await, server.proxy.page("/findings").await];
        pages.iter().all(|page| !page.contains("unusable-secret")).then_some(())
    })
    .await;
    goes_on().await;
    // Nobody shows one of the old root any more, so that it does not matter who lets go of it first.
    for side in [&server, &client] {
        side.renewed(|files| files.write("roots.pem", &new.pem)).await;
        goes_on().await;
    }
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_none_is_not_shown() {
    let ca = Ca::new("mesh");
    let app = TestBackend::echo("app").await;
    let server = server(&ca, &app, false).await;
    let expired = ca.issue("workload", |params| {
        params.subject_alt_names = vec![SanType::URI(CLIENT.try_into().unwrap())];
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    for (pem, why) in [(ca.issue("a.b", |_| {}), "not exactly one URI"), (expired, "holds no longer")] {
        let files = files(&ca, &pem);
        let mut client = client_with(files.identity().into(), server.proxy.listener(0), SERVER).start();
        client.page_has("/ready", why).await;
        let findings = client.page("/findings").await;
        assert!(findings.contains(why) && findings.contains("unusable-secret"), "{findings}");
        // What is good is taken at once, and what is worse than it never.
        files.show(&ca.workload(CLIENT));
        client.becomes_ready().await;
        let is_well = async || Request::get("/").send(client.listener(0)).await.status == 200;
        assert!(is_well().await);
        files.show(&pem);
        client.page_has("/findings", "what was last good of it serves").await;
        assert!(is_well().await);
    }
}
