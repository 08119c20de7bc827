//! What the proxies of a mesh tell each other of the workloads beside them: by headers, and before the bytes of TCP
//! connections; that nobody else gets to see it, and that metrics at both ends tell who the peer is.

#![allow(clippy::unwrap_used, reason = "in a test, what is not as expected ends the test")]

use std::net::SocketAddr;
use std::sync::Arc;

use config::compile::Mode;
use config::{EndpointMetadata, NetworkFilter, PeerMetadata, TrafficDirection, Update, Workload};
use data_encoding::BASE64;
use envoy_types::pb::google::protobuf::{Any, Struct, Value, value::Kind};
use http::StatusCode;
use prost::Message;
use support::declared::{any, chain, cluster, listener, manager, update};
use support::tls::{Ca, Pem, believing, handshake};
use support::{Mesh, Request, ScriptedBackend, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::mutual::{CLIENT, SERVER, client, files, server};

pub(crate) const METADATA: &str = "x-envoy-peer-metadata";
const ID: &str = "x-envoy-peer-metadata-id";

/// What begins the exchange over TCP.
const MAGIC: [u8; 4] = [0x3d, 0x23, 0x04, 0x67];

pub(crate) fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

pub(crate) fn object(members: &[(&str, Value)]) -> Struct {
    Struct { fields: members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect() }
}

fn nested(members: &[(&str, Value)]) -> Value {
    Value { kind: Some(Kind::StructValue(object(members))) }
}

/// What some other proxy says of its workload.
fn cart() -> Struct {
    let labels = nested(&[("app", text("cart")), ("service.istio.io/canonical-name", text("cart"))]);
    object(&[
        ("NAMESPACE", text("elsewhere")),
        ("WORKLOAD_NAME", text("cart-v7")),
        ("CLUSTER_ID", text("east")),
        ("LABELS", labels),
    ])
}

pub(crate) fn header(object: &Struct) -> String {
    BASE64.encode(&object.encode_to_vec())
}

/// Waits until something is counted under these labels.
async fn counted(proxy: &TestProxy, metric: &str, labels: &[(&str, &str)]) {
    let what = format!("{metric} {labels:?}");
    eventually(&what, || async { proxy.metric(metric, labels).await.filter(|count| *count > 0.0) }).await;
}

/// The labels of who asks and who answers, of the sides of [`server`] and [`client`].
const BOTH: [(&str, &str); 16] = [
    ("source_workload", "client-v1"),
    ("source_canonical_service", "client"),
    ("source_canonical_revision", "v1"),
    ("source_workload_namespace", "shop"),
    ("source_principal", CLIENT),
    ("source_app", "client"),
    ("source_version", "v1"),
    ("source_cluster", "Kubernetes"),
    ("destination_workload", "server-v2"),
    ("destination_workload_namespace", "shop"),
    ("destination_principal", SERVER),
    ("destination_app", "server"),
    ("destination_version", "v2"),
    ("destination_canonical_service", "server"),
    ("destination_canonical_revision", "v2"),
    ("destination_cluster", "Kubernetes"),
];

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_know_who_they_talk_to() {
    let ca = Ca::new("mesh");
    let app = TestBackend::echo("app").await;
    let server = server(&ca, &app, false).await;
    let client = client(files(&ca, &ca.workload(CLIENT)), server.proxy.listener(0), SERVER).await;
    for index in [0, 1] {
        let answer = Request::get("/").send(client.proxy.listener(index)).await;
        assert_eq!(answer.status, 200);
        for name in [METADATA, ID] {
            assert!(answer.json()["headers"].get(name).is_none(), "{name} reaches the application");
            assert!(!answer.headers.contains_key(name), "{name} reaches who asked");
        }
    }
    let mut bytes = TcpStream::connect(client.proxy.listener(2)).await.unwrap();
    bytes.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    bytes.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
    drop(bytes);
    let reporters = [(&client.proxy, "source", "unknown"), (&server.proxy, "destination", "mutual_tls")];
    for (proxy, reporter, policy) in reporters {
        let of = [("reporter", reporter), ("connection_security_policy", policy)];
        let labels = [&of[..], &BOTH].concat();
        for metric in [
            "istio_requests_total",
            "istio_request_duration_milliseconds_count",
            "istio_tcp_connections_opened_total",
            "istio_tcp_connections_closed_total",
        ] {
            counted(proxy, metric, &labels).await;
        }
        for metric in ["istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total"] {
            // What is told first of oneself is none of the connection's bytes.
            assert_eq!(proxy.metric(metric, &labels).await, Some(5.0), "{reporter} {metric}");
        }
        // Nobody is counted as somebody else.
        assert_eq!(proxy.metric("istio_requests_total", &of).await, Some(2.0), "{reporter}");
    }
    let line = format!("{SERVER} {CLIENT} TLSv1.3");
    eventually("the log tells who answered", || async {
        let text = std::fs::read_to_string(&client.log).unwrap_or_default();
        text.lines().next().filter(|first| *first == line).map(drop)
    })
    .await;
}

/// A proxy with one listener in front of `to`.
async fn proxy(to: SocketAddr, peers: PeerMetadata, direction: TrafficDirection, gateway: bool) -> TestProxy {
    proxy_of(update(Vec::new(), [cluster("to", &[to])]), peers, direction, gateway).await
}

/// The same in front of the cluster `to` of `resources`.
async fn proxy_of(
    mut resources: Update,
    peers: PeerMetadata,
    direction: TrafficDirection,
    gateway: bool,
) -> TestProxy {
    let mut manager = manager("to");
    manager.peer_metadata = peers;
    manager.use_remote_address = gateway;
    let mut listener = listener("it", vec![chain(any(), NetworkFilter::Http(Arc::new(manager)))]);
    listener.traffic_direction = direction;
    resources.listeners.push(listener);
    let settings = |settings: &mut weft::app::Settings| {
        settings.static_resources = resources;
        settings.mode = if gateway { Mode::Gateway } else { Mode::Explicit };
    };
    TestProxy::of(Mesh::new()).set(settings).ready().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_answers_who_it_is_where_it_is_told_who_asks() {
    let app = TestBackend::echo("app").await;
    let proxy = proxy(app.address, PeerMetadata::INBOUND, TrafficDirection::Inbound, false).await;
    let (cart, id) = (header(&cart()), "sidecar~10.0.0.7~cart-1.elsewhere~x");
    for (metadata, with_id) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut request = Request::get("/");
        if metadata {
            request = request.header(METADATA, &cart);
        }
        if with_id {
            request = request.header(ID, id);
        }
        let answer = request.send(proxy.listener(0)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers.contains_key(METADATA), metadata);
        assert_eq!(answer.headers.contains_key(ID), with_id);
        assert!(
            answer.json()["headers"].get(METADATA).is_none() && answer.json()["headers"].get(ID).is_none()
        );
        if metadata {
            let said = BASE64.decode(answer.header(METADATA).as_bytes()).unwrap();
            let said = Struct::decode(said.as_slice()).unwrap();
            assert_eq!(said.fields["NAMESPACE"], text("shop"));
            assert_eq!(said.fields["CLUSTER_ID"], text("Kubernetes"));
            let labels =
                nested(&[("app", text("client")), ("service.istio.io/canonical-name", text("client"))]);
            assert_eq!(said.fields["LABELS"], labels);
        }
        if with_id {
            assert_eq!(answer.header(ID), "sidecar~10.244.1.10~.shop~shop.svc.cluster.local");
        }
    }
    let labels = [
        ("reporter", "destination"),
        ("source_workload", "cart-v7"),
        ("source_workload_namespace", "elsewhere"),
        ("source_principal", "unknown"),
        ("source_cluster", "east"),
        ("connection_security_policy", "none"),
    ];
    counted(&proxy, "istio_requests_total", &labels).await;
    assert_eq!(proxy.metric("istio_requests_total", &labels).await, Some(2.0));
    assert_eq!(proxy.metric("istio_requests_total", &[("source_workload", "unknown")]).await, Some(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_proxys_own_says_who_it_is_too() {
    let nobody = update(Vec::new(), [cluster("to", &[])]);
    let proxy = proxy_of(nobody, PeerMetadata::INBOUND, TrafficDirection::Inbound, false).await;
    let answer = Request::get("/").header(METADATA, &header(&cart())).send(proxy.listener(0)).await;
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains_key(METADATA) && !answer.headers.contains_key(ID));
    counted(&proxy, "istio_requests_total", &[("source_workload", "cart-v7"), ("response_flags", "UH")])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_values_do_no_harm() {
    let app = TestBackend::echo("app").await;
    let proxy = proxy(app.address, PeerMetadata::INBOUND, TrafficDirection::Inbound, false).await;
    let deep = (0..200).fold(text("x"), |inner, _| nested(&[("LABELS", inner)]));
    let wrong = object(&[
        ("WORKLOAD_NAME", nested(&[])),
        ("NAMESPACE", Value { kind: Some(Kind::NumberValue(1.0)) }),
    ]);
    let long = object(&[("WORKLOAD_NAME", text(&"x".repeat(20_000)))]);
    let values: [String; 7] = [
        "!".to_owned(),
        "====".to_owned(),
        header(&object(&[("LABELS", deep)])),
        header(&wrong),
        header(&long),
        BASE64.encode(&[0xff; 300]),
        String::new(),
    ];
    for value in &values {
        let answer = Request::get("/").header(METADATA, value).send(proxy.listener(0)).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.json()["headers"].get(METADATA).is_none());
    }
    let unknown = [("source_workload", "unknown"), ("source_canonical_revision", "latest")];
    eventually("all are counted as nobody", || async {
        let count = proxy.metric("istio_requests_total", &unknown).await;
        count.filter(|count| *count == 7.0)
    })
    .await;
    let limit = [("limit", "peer_metadata_bytes_max")];
    assert_eq!(proxy.metric("weft_limit_reached_total", &limit).await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_ever_new_names_is_counted_as_one() {
    const NAMES: usize = 40;
    let app = TestBackend::echo("app").await;
    let mut manager = manager("to");
    manager.peer_metadata = PeerMetadata::INBOUND;
    let mut listener = listener("it", vec![chain(any(), NetworkFilter::Http(Arc::new(manager)))]);
    listener.traffic_direction = TrafficDirection::Inbound;
    let resources = update(vec![listener], [cluster("to", &[app.address])]);
    let proxy = TestProxy::of(Mesh::new()).set(|settings| {
        settings.static_resources = resources;
        settings.limits.peers_max = 10;
        settings.limits.peer_metadata_values_max = 5;
    });
    let proxy = proxy.ready().await;
    for index in 0..NAMES {
        let named = object(&[("WORKLOAD_NAME", text(&format!("w{index}")))]);
        let answer = Request::get("/").header(METADATA, &header(&named)).send(proxy.listener(0)).await;
        assert_eq!(answer.status, 200);
    }
    let overflow = [("source_workload", "overflow"), ("source_app", "overflow")];
    eventually("those past the limit are one", || async {
        proxy.metric("istio_requests_total", &overflow).await.filter(|count| *count == 30.0)
    })
    .await;
    assert_eq!(proxy.metric("istio_requests_total", &[("source_workload", "w9")]).await, Some(1.0));
    assert!(proxy.metric("weft_limit_reached_total", &[("limit", "peers_max")]).await.unwrap() >= 30.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_believes_nobody_outside_and_tells_who_it_is() {
    let app = TestBackend::echo("app").await;
    let gateway = proxy(app.address, PeerMetadata::OUTBOUND, TrafficDirection::Outbound, true).await;
    let liar = Request::get("/").header(METADATA, &header(&cart())).header(ID, "liar");
    let answer = liar.send(gateway.listener(0)).await;
    let told = &answer.json()["headers"];
    assert_eq!(told[ID][0], "router~10.244.1.10~.shop~shop.svc.cluster.local");
    let said = BASE64.decode(told[METADATA][0].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(Struct::decode(said.as_slice()).unwrap().fields["NAMESPACE"], text("shop"));
    assert_eq!(told[METADATA].as_array().unwrap().len(), 1);
    let page = gateway.page("/stats/prometheus").await;
    assert!(!page.contains("cart-v7"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_of_the_mesh_nobody_is_told() {
    let app = TestBackend::echo("app").await;
    for (mesh_only, external, untold, expected) in [
        (false, true, false, true),
        (true, false, false, true),
        (true, true, false, false),
        (false, false, true, false),
    ] {
        let peers = PeerMetadata { tells_mesh_only: mesh_only, ..PeerMetadata::OUTBOUND };
        let (mut declared, endpoints) = cluster("to", &[app.address]);
        (declared.metadata.external, declared.metadata.untold) = (external, untold);
        let resources = update(Vec::new(), [(declared, endpoints)]);
        let proxy = proxy_of(resources, peers, TrafficDirection::Outbound, false).await;
        // What the application says in the proxy's place goes nowhere either.
        let answer = Request::get("/").header(METADATA, "mine").send(proxy.listener(0)).await;
        let told = answer.json()["headers"][METADATA][0].as_str().map(ToOwned::to_owned);
        assert_eq!(told.is_some(), expected, "{mesh_only} {external} {untold}");
        assert!(told.is_none_or(|told| told != "mine"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_believes_what_the_answer_says_before_what_it_was_told_of_the_endpoint() {
    let value = header(&cart());
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{METADATA}: {value}\r\n{ID}: a\r\n\r\n");
    let upstream = ScriptedBackend::answers(Box::leak(answer.into_bytes().into_boxed_slice())).await;
    let (declared, mut endpoints) = cluster("to", &[upstream.address]);
    let told = Workload {
        name: "told".into(),
        namespace: "told".into(),
        canonical_name: "told".into(),
        canonical_revision: "told".into(),
        cluster_id: "told".into(),
    };
    let metadata = EndpointMetadata { tls_mode: None, workload: Some(told) };
    endpoints.localities[0].endpoints[0].metadata = Arc::new(metadata);
    let resources = update(Vec::new(), [(declared, endpoints)]);
    let proxy = proxy_of(resources, PeerMetadata::OUTBOUND, TrafficDirection::Outbound, false).await;
    let answer = Request::get("/").send(proxy.listener(0)).await;
    assert!(!answer.headers.contains_key(METADATA) && !answer.headers.contains_key(ID));
    let labels = [("destination_workload", "cart-v7"), ("destination_workload_namespace", "elsewhere")];
    counted(&proxy, "istio_requests_total", &labels).await;
}

/// A connection to a proxy that has agreed on the exchange.
async fn exchanging(to: SocketAddr, ca: &Ca, shown: &Pem) -> TlsStream<TcpStream> {
    let config = believing(ca, Some(shown), &["istio-peer-exchange", "istio"]);
    let stream = handshake(config, to, "outbound_.80_._.a.b").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"istio-peer-exchange"[..]));
    stream
}

/// What comes first on a connection that has agreed on the exchange: the magic number and the length, checked byte by
/// byte, and what follows them.
async fn greeting(stream: &mut TlsStream<TcpStream>) -> Struct {
    let mut head = [0; 8];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[..4], MAGIC);
    let length = u32::from_be_bytes(head[4..].try_into().unwrap());
    let mut message = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut message).await.unwrap();
    let any = Any::decode(message.as_slice()).unwrap();
    assert_eq!(any.type_url, "type.googleapis.com/google.protobuf.Struct");
    assert_eq!(any.encode_to_vec(), message, "nothing stands beside it");
    let said = Struct::decode(any.value.as_slice()).unwrap();
    // The members in their order: the metadata, then the ID.
    let at = |text: &str| any.value.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    assert!(at(&format!("{METADATA}\u{12}")) < at(ID));
    said
}

/// What a proxy says first of the workload `cart`.
fn greets() -> Vec<u8> {
    let said = object(&[
        (METADATA, Value { kind: Some(Kind::StructValue(cart())) }),
        (ID, text("sidecar~10.0.0.7~cart-1.elsewhere~x")),
    ]);
    let any = Any {
        type_url: "type.googleapis.com/google.protobuf.Struct".to_owned(),
        value: said.encode_to_vec(),
    };
    let any = any.encode_to_vec();
    [&MAGIC, &u32::try_from(any.len()).unwrap().to_be_bytes()[..], &any].concat()
}

async fn echoed(stream: &mut TlsStream<TcpStream>, expected: &[u8]) {
    let mut back = vec![0; expected.len()];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(back, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_says_first_who_it_is() {
    let ca = Ca::new("mesh");
    let app = TestBackend::echo("app").await;
    let server = server(&ca, &app, false).await;
    let (to, shown) = (server.proxy.listener(0), ca.workload(CLIENT));
    let mut stream = exchanging(to, &ca, &shown).await;
    let said = greeting(&mut stream).await;
    let mut members: Vec<&str> = said.fields.keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, [METADATA, ID]);
    assert_eq!(said.fields[ID], text("sidecar~10.244.1.10~.shop~shop.svc.cluster.local"));
    let Some(Kind::StructValue(metadata)) = &said.fields[METADATA].kind else { panic!("{said:?}") };
    assert_eq!(metadata.fields["WORKLOAD_NAME"], text("server-v2"));
    // One byte at a time, and what follows right behind.
    for byte in [greets(), b"hello".to_vec()].concat() {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    echoed(&mut stream, b"hello").await;
    let labels = [
        ("reporter", "destination"),
        ("source_workload", "cart-v7"),
        // What the certificate says comes before what the peer does.
        ("source_workload_namespace", "shop"),
        ("source_principal", CLIENT),
        ("destination_principal", SERVER),
        ("source_app", "cart"),
        ("connection_security_policy", "mutual_tls"),
    ];
    // It is counted as soon as it is known, not when it ends.
    counted(&server.proxy, "istio_tcp_connections_opened_total", &labels).await;
    assert_eq!(server.proxy.metric("istio_tcp_received_bytes_total", &labels).await, Some(5.0));
    // All at once, with more behind it.
    let mut stream = exchanging(to, &ca, &shown).await;
    stream.write_all(&[greets(), vec![7; 100_000]].concat()).await.unwrap();
    greeting(&mut stream).await;
    echoed(&mut stream, &[7; 100_000]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_say_it_is_served_all_the_same() {
    let ca = Ca::new("mesh");
    let app = TestBackend::echo("app").await;
    let server = server(&ca, &app, false).await;
    let (to, shown) = (server.proxy.listener(0), ca.workload(CLIENT));
    let long = [&MAGIC[..], &100_000_u32.to_be_bytes(), &[0; 100_000]].concat();
    let garbage = [&MAGIC[..], &4_u32.to_be_bytes(), &[0xff; 4]].concat();
    // What is sent, and what of it the application gets.
    let cases: [(&[u8], &[u8]); 5] = [
        (b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n"),
        (b"a", b"a"),
        (b"\x3d\x23\x04\x68abcd", b"\x3d\x23\x04\x68abcd"),
        (&[&long, &b"hello"[..]].concat(), b"hello"),
        (&[&garbage, &b"hello"[..]].concat(), b"hello"),
    ];
    for (sent, expected) in cases {
        let mut stream = exchanging(to, &ca, &shown).await;
        greeting(&mut stream).await;
        stream.write_all(sent).await.unwrap();
        echoed(&mut stream, expected).await;
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
    // Who leaves in the middle of it, or at once, has sent nothing.
    for sent in [&MAGIC[..2], &[&MAGIC[..], &[0, 0, 0, 9, 1]].concat(), b""] {
        let mut stream = exchanging(to, &ca, &shown).await;
        greeting(&mut stream).await;
        stream.write_all(sent).await.unwrap();
        stream.shutdown().await.unwrap();
        let held: &[u8] = if sent.len() == 2 { sent } else { b"" };
        echoed(&mut stream, held).await;
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
    let labels = [("source_workload", "unknown"), ("source_principal", CLIENT)];
    eventually("all are counted", || async {
        let closed = server.proxy.metric("istio_tcp_connections_closed_total", &labels).await;
        closed.filter(|closed| *closed == 8.0)
    })
    .await;
    assert_eq!(server.proxy.metric("istio_tcp_connections_opened_total", &labels).await, Some(8.0));
    let limit = [("limit", "peer_metadata_bytes_max")];
    assert_eq!(server.proxy.metric("weft_limit_reached_total", &limit).await, Some(1.0));
}
