//! gRPC: answers with trailers cross, and failures are told in gRPC's way.

use std::net::TcpListener;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request as Head, Version};
use support::mesh::virtual_service;
use support::scripted::Peer;
use support::{Answer, H2, Log, Mesh, ScriptedBackend, Sides, TestProxy};

/// A server that does what the method's name says.
async fn server(peer: Peer) {
    let Ok(mut connection) = h2::server::handshake(peer.stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let head = || http::Response::builder().header("content-type", "application/grpc");
        match method.as_str() {
            "Refuse" => respond.send_reset(h2::Reason::REFUSED_STREAM),
            "Reset" => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            "Leave" => return,
            "Hang" => {
                tokio::spawn(async move {
                    let _kept = (request, respond);
                    std::future::pending::<()>().await;
                });
            }
            // A failure without a message: everything is said in the head.
            "TrailersOnly" => {
                let answer = head().header("grpc-status", "5").header("grpc-message", "no").body(());
                let _ = respond.send_response(answer.expect("an answer"), true);
            }
            // Answers a message for each that comes, then a status.
            _ => {
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    let Ok(mut answer) = respond.send_response(head().body(()).expect("an answer"), false)
                    else {
                        return;
                    };
                    while let Some(Ok(data)) = body.data().await {
                        let _ = body.flow_control().release_capacity(data.len());
                        let _ = answer.send_data(data, false);
                    }
                    let mut trailers = HeaderMap::new();
                    let status = if method == "Fail" { "13" } else { "0" };
                    trailers.insert("grpc-status", HeaderValue::from_static(status));
                    let _ = answer.send_trailers(trailers);
                });
            }
        }
    }
}

async fn shop() -> (ScriptedBackend, Sides) {
    let backend = ScriptedBackend::new(server).await;
    let nobody = TcpListener::bind(("127.9.9.5", 0)).expect("a port").local_addr().expect("an address");
    let rules = "  - {match: [{uri: {prefix: /absent}}], route: [{destination: {host: absent}}]}\n  \
                 - {match: [{uri: {prefix: /s/Hang}}], timeout: 200ms, route: [{destination: {host: server}}]}\n  \
                 - {match: [{uri: {prefix: /s/}}], route: [{destination: {host: server}}]}\n";
    let mesh = Mesh::new()
        .service("server", "grpc/8000")
        .endpoint("server", "grpc", "v1", backend.address)
        .service("nobody", "grpc/8000")
        .endpoint("nobody", "grpc", "v1", nobody)
        .service("empty", "grpc/8000")
        .with("rules.yaml", &virtual_service("server", rules));
    (backend, TestProxy::of(Log::configure(mesh, "")).listen_outbound(8000).both().await)
}

fn call(target: &str) -> Head<()> {
    Head::builder()
        .version(Version::HTTP_2)
        .method("POST")
        .uri(format!("http://{target}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request")
}

/// The status as a client finds it: in the trailers, or in a head without a body.
fn status(answer: &Answer) -> (String, String) {
    let from = answer.trailers.as_ref().unwrap_or(&answer.headers);
    let text =
        |name: &str| from.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    (text("grpc-status"), text("grpc-message"))
}

const RESET: &str = "upstream connect error or disconnect/reset before headers.";

#[tokio::test(flavor = "multi_thread")]
async fn statuses() {
    let (_backend, proxies) = shop().await;
    let latest = format!("{RESET} retried and the latest reset reason:");
    let before = "upstream_reset_before_response_started";
    let refused = format!("{before}{{remote_connection_failure|delayed_connect_error:_Connection_refused}}");
    // Host and method, gRPC status and message, and how it is logged.
    let table: &[(&str, &str, &str, &str)] = &[
        ("server/s/Echo", "0", "", "200 - via_upstream"),
        ("server/s/Fail", "13", "", "200 - via_upstream"),
        ("server/s/TrailersOnly", "5", "no", "200 - via_upstream"),
        ("server/s/Hang", "14", "upstream request timeout", "200 UT response_timeout"),
        (
            "server/s/Reset",
            "14",
            &format!("{RESET} reset reason: remote reset"),
            &format!("200 UR {before}{{remote_reset}}"),
        ),
        (
            "server/s/Refuse",
            "14",
            &format!("{latest} remote refused stream reset"),
            &format!("200 URX,UR {before}{{remote_refused_stream_reset}}"),
        ),
        (
            "server/s/Leave",
            "14",
            &format!("{RESET} reset reason: connection termination"),
            &format!("200 UC {before}{{connection_termination}}"),
        ),
        (
            "nobody/s/Echo",
            "14",
            &format!("{latest} remote connection failure"),
            &format!("200 URX,UF {refused}"),
        ),
        ("empty/s/Echo", "14", "no healthy upstream", "200 UH no_healthy_upstream"),
        ("server/absent", "14", "", "200 NC cluster_not_found"),
        ("server/nothing", "12", "", "200 NR route_not_found"),
    ];
    for side in proxies.each() {
        let mut client = H2::connect(side.listener(0)).await;
        for (target, code, message, _) in table {
            let mut stream = client.begin(call(target), false).await;
            // What needs no upstream may have been answered and ended already.
            let _ = stream.sender.send_data(Bytes::from_static(b"\0\0\0\0\0"), true);
            let answer = stream.answer().await;
            let case = format!("{}: {target}", side.name());
            assert_eq!(answer.status, 200, "{case}");
            assert_eq!(answer.header("content-type"), "application/grpc", "{case}");
            assert_eq!(status(&answer), ((*code).to_owned(), (*message).to_owned()), "{case}");
        }
        let mut log = Log::of(&proxies.weft.mesh, side);
        for (target, _, _, ending) in table {
            assert_eq!(log.next().await.ending(), *ending, "{}: {target}", side.name());
        }
    }
}

/// Messages cross one by one, both ways, and the status comes last.
#[tokio::test(flavor = "multi_thread")]
async fn streams() {
    let (_backend, proxies) = shop().await;
    for side in proxies.each() {
        let mut client = H2::connect(side.listener(0)).await;
        let mut stream = client.begin(call("server/s/Chat"), false).await;
        assert_eq!(stream.head().await.expect("a head").0, 200, "{}", side.name());
        for number in 0..100_u8 {
            let message = Bytes::from(vec![0, 0, 0, 0, 1, number]);
            stream.sender.send_data(message.clone(), false).expect("a message");
            assert_eq!(stream.data().await.expect("a message"), Some(message), "{}", side.name());
        }
        stream.sender.send_data(Bytes::new(), true).expect("an end");
        let mut last = stream.data().await.expect("an end");
        if last.as_deref() == Some(b"") {
            last = stream.data().await.expect("an end");
        }
        assert_eq!(last, None, "{}", side.name());
        let trailers = stream.trailers().await.expect("an orderly end").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0", "{}", side.name());
    }
}
