//! HTTP/1 and HTTP/2 on either side, in all four combinations.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request as Head, Version};
use support::scripted::Peer;
use support::{H2, Mesh, Request, ScriptedBackend, Sides, TestBackend, TestProxy};

/// `one` speaks HTTP/1 and `two` HTTP/2; both echo.
async fn shop() -> (TestBackend, Sides) {
    let backend = TestBackend::echo("echo").await;
    let mesh = Mesh::new()
        .service("one", "http/8000")
        .endpoint("one", "http", "v1", backend.address)
        .service("two", "grpc/8000")
        .endpoint("two", "grpc", "v1", backend.address);
    (backend, TestProxy::of(mesh).listen_outbound(8000).both().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_cross() {
    let (_backend, proxies) = shop().await;
    let long = "x".repeat(300_000);
    for side in proxies.each() {
        for (host, version) in [("one", "HTTP/1.1"), ("two", "HTTP/2.0")] {
            for http2 in [false, true] {
                for body in ["", "hello", &long] {
                    let method = if body.is_empty() { Method::GET } else { Method::POST };
                    let mut request =
                        Request::new(method.clone(), "/a/../b?x=1").host(host).body(body.to_owned());
                    if http2 {
                        request = request.http2();
                    }
                    let answer = request.header("x-a", "1").header("x-a", "2").send(side.listener(0)).await;
                    let case = format!("{} http2={http2} {host} {}", side.name(), body.len());
                    assert_eq!(answer.status, 200, "{case}");
                    assert_eq!(answer.header("server"), "envoy", "{case}");
                    assert!(!answer.header("date").is_empty(), "{case}");
                    assert!(!answer.header("x-envoy-upstream-service-time").is_empty(), "{case}");
                    let saw = answer.json();
                    assert_eq!(saw["version"], version, "{case}");
                    assert_eq!(saw["method"], method.as_str(), "{case}");
                    assert_eq!(saw["path"], "/b?x=1", "{case}");
                    assert_eq!(saw["body"], body, "{case}");
                    assert_eq!(saw["headers"]["x-a"], serde_json::json!(["1", "2"]), "{case}");
                    let authority =
                        if host == "one" { &saw["headers"]["host"][0] } else { &saw["authority"] };
                    assert_eq!(authority, host, "{case}");
                    let length = if body.is_empty() { None } else { Some(body.len().to_string()) };
                    let told = saw["headers"]["content-length"][0].as_str().map(str::to_owned);
                    assert_eq!(told, length, "{case}: the length stays known");
                }
            }
        }
    }
}

fn head(method: &str, uri: &str, headers: &[(&'static str, &str)]) -> Head<()> {
    // h2 lets a request without an authority out only if it says it was HTTP/1.1.
    let version = if uri.starts_with('/') { Version::HTTP_11 } else { Version::HTTP_2 };
    let mut request = Head::builder().version(version).method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_http_2_has() {
    let (_backend, proxies) = shop().await;
    for side in proxies.each() {
        let mut client = H2::connect(side.listener(0)).await;
        for host in ["one", "two"] {
            let case = format!("{} {host}", side.name());
            let uri = format!("http://{host}/");
            // Cookies may come in several fields; they are one again before anybody reads them.
            let answer = client.ask(head("GET", &uri, &[("cookie", "a=1"), ("cookie", "b=2")])).await;
            assert_eq!(answer.json()["headers"]["cookie"], serde_json::json!(["a=1; b=2"]), "{case}");
            // The authority counts, not a Host beside it.
            let answer = client.ask(head("GET", &uri, &[("host", "other")])).await;
            let saw = answer.json();
            let seen = if host == "one" { &saw["headers"]["host"] } else { &saw["authority"] };
            assert!(*seen == serde_json::json!([host]) || seen == host, "{case}: {saw}");
            // A scheme is for us to know; x-forwarded-proto tells it on.
            let answer = client.ask(head("GET", &format!("https://{host}/"), &[])).await;
            assert_eq!(answer.json()["headers"]["x-forwarded-proto"][0], "http", "{case}");
            let answer = client.ask(head("GET", &uri, &[("te", "trailers")])).await;
            assert_eq!(answer.json()["headers"]["te"][0], "trailers", "{case}");
        }
        let answer = client.ask(head("GET", "/", &[("host", "one")])).await;
        assert_eq!(answer.json()["headers"]["host"][0], "one", "{}: Host instead of :authority", side.name());
    }
}

/// Our own answers look the same in HTTP/2, and say when.
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_our_own() {
    let (_backend, proxies) = shop().await;
    for side in proxies.each() {
        let mut client = H2::connect(side.listener(0)).await;
        let table = [(head("GET", "http://unknown/", &[]), 503), (head("CONNECT", "one:80", &[]), 404)];
        for (request, status) in table {
            let case = format!("{} {request:?}", side.name());
            let answer = client.ask(request).await;
            assert_eq!(answer.status, status, "{case}");
            assert_eq!(answer.header("server"), "envoy", "{case}");
            assert!(answer.header("date").ends_with(" GMT"), "{case}: {:?}", answer.headers);
            assert_eq!(answer.header("connection"), "", "{case}: that is for HTTP/1");
        }
    }
}

/// An upstream of HTTP/2 that tells which trailers it got and sends some.
async fn trailers(peer: Peer) {
    let Ok(mut connection) = h2::server::handshake(peer.stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut length = 0;
            while let Some(Ok(data)) = body.data().await {
                length += data.len();
                let _ = body.flow_control().release_capacity(data.len());
            }
            let got = body.trailers().await.ok().flatten().unwrap_or_default();
            let mut got: Vec<&str> = got.keys().map(HeaderName::as_str).collect();
            got.sort_unstable();
            let got = got.join(" ");
            let answer = http::Response::builder().header("content-type", "application/grpc").body(());
            let Ok(mut stream) = respond.send_response(answer.expect("an answer"), false) else { return };
            let _ = stream.send_data(Bytes::from(format!("{length} {got}")), false);
            let mut trailers = HeaderMap::new();
            for name in ["grpc-status", "x-request-id", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id"] {
                trailers.insert(name, HeaderValue::from_static("0"));
            }
            let _ = stream.send_trailers(trailers);
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_cross_both_ways() {
    let backend = ScriptedBackend::new(trailers).await;
    let mesh = Mesh::new().service("two", "grpc/8000").endpoint("two", "grpc", "v1", backend.address);
    let proxies = TestProxy::of(mesh).listen_outbound(8000).both().await;
    for side in proxies.each() {
        let mut client = H2::connect(side.listener(0)).await;
        for body in ["", "hello"] {
            let mut stream = client.begin(head("POST", "http://two/", &[("te", "trailers")]), false).await;
            if !body.is_empty() {
                stream.sender.send_data(Bytes::from_static(body.as_bytes()), false).expect("a body");
            }
            let mut end = HeaderMap::new();
            end.insert("x-end", HeaderValue::from_static("end"));
            stream.sender.send_trailers(end).expect("trailers");
            let answer = stream.answer().await;
            assert_eq!(answer.text(), format!("{} x-end", body.len()), "{}", side.name());
            let trailers = answer.trailers.expect("trailers");
            assert_eq!(trailers["grpc-status"], "0", "{}", side.name());
        }
    }
}

/// What is taken off a head, or believed there, is no trailer.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_say_nothing_of_who_asks_or_answers() {
    let backend = ScriptedBackend::new(trailers).await;
    let mesh = Mesh::new().service("two", "grpc/8000").endpoint("two", "grpc", "v1", backend.address);
    let proxy = TestProxy::of(mesh).listen_outbound(8000).ready().await;
    let mut client = H2::connect(proxy.listener(0)).await;
    let mut stream = client.begin(head("POST", "http://two/", &[("te", "trailers")]), false).await;
    let mut end = HeaderMap::new();
    for name in [
        "authorization",
        "cookie",
        "forwarded",
        "host",
        "x-end",
        "x-envoy-external-address",
        "x-envoy-internal",
        "x-envoy-peer-metadata",
        "x-forwarded-client-cert",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
    ] {
        end.insert(name, HeaderValue::from_static("evil"));
    }
    stream.sender.send_trailers(end).expect("trailers");
    let answer = stream.answer().await;
    assert_eq!(answer.text(), "0 x-end");
    let trailers = answer.trailers.expect("trailers");
    let mut names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["grpc-status", "x-request-id"]);
}
