//! curl, wrk and h2load before a proxy.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use support::{Mesh, TestBackend, TestProxy};

use crate::tools::{Said, find, run};

/// What curl says after the body: version of HTTP, status, connections made.
const WRITE_OUT: &str = "\n%{http_version} %{http_code} %{num_connects}\n";

/// A number that two bodies have in common only when they are the same.
fn digest(body: &[u8]) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(body)
}

/// A body of so many bytes, no two stretches of which are the same.
pub(super) fn body(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// A backend that says which body it got: `length` and `digest`, and how it was framed.
async fn digesting() -> TestBackend {
    TestBackend::new(|request| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let header =
            |name| head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let said = json!({
            "length": body.len(),
            "digest": digest(&body),
            "content-length": header("content-length"),
            "transfer-encoding": header("transfer-encoding"),
            "expect": header("expect"),
        });
        Response::new(Full::new(Bytes::from(said.to_string())))
    })
    .await
}

async fn proxy_before(backend: &TestBackend) -> TestProxy {
    proxy_with(backend, |_| {}).await
}

async fn proxy_with(backend: &TestBackend, change: impl FnOnce(&mut weft::app::Settings)) -> TestProxy {
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    TestProxy::of(mesh).listen("catalog", 8000).set(change).ready().await
}

/// Runs curl for a path of the proxy. Returns what the backend said, and curl's own summary.
async fn curl(
    curl: &PathBuf,
    proxy: &TestProxy,
    path: &str,
    more: &[&str],
    input: &[u8],
) -> (String, String, Said) {
    let url = format!("http://{}{path}", proxy.listener(0));
    let arguments = ["--silent", "--show-error", "--verbose", "--write-out", WRITE_OUT, &url];
    let arguments = arguments.into_iter().chain(more.iter().copied());
    let said = run(curl, arguments, input).await;
    let text = said.text();
    let (body, summary) = text.trim_end().rsplit_once('\n').expect("a summary");
    (body.to_owned(), summary.to_owned(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_speaks_every_version() {
    let Some(tool) = find("curl", "interop::clients::curl_speaks_every_version") else { return };
    let backend = TestBackend::echo("catalog").await;
    let proxy = proxy_before(&backend).await;
    for (option, summary) in [("--http1.1", "1.1 200 1"), ("--http2-prior-knowledge", "2 200 1")] {
        let (body, said, _) =
            curl(&tool, &proxy, "/items?x=1", &[option, "--header", "x-user: tester"], b"").await;
        assert_eq!(said, summary);
        let saw: Value = serde_json::from_str(&body).expect("what the backend saw");
        assert_eq!((&saw["path"], &saw["headers"]["x-user"][0]), (&"/items?x=1".into(), &"tester".into()));
    }
    // An offer to change to HTTP/2 on the way is not taken up.
    let (_, said, _) = curl(&tool, &proxy, "/", &["--http2"], b"").await;
    assert_eq!(said, "1.1 200 1");
    // One connection for several requests, the first without a body in its answer.
    let again = format!("http://{}/again", proxy.listener(0));
    let (_, _, said) = curl(&tool, &proxy, "/", &["--head", &again], b"").await;
    assert_eq!(said.text().matches("1.1 200 1").count(), 1, "{}", said.text());
    assert_eq!(said.text().matches("1.1 200 0").count(), 1, "{}", said.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_speaks_http_1_0_where_it_is_allowed() {
    let Some(tool) = find("curl", "interop::clients::curl_speaks_http_1_0_where_it_is_allowed") else {
        return;
    };
    let backend = TestBackend::echo("catalog").await;
    let proxy = proxy_before(&backend).await;
    let (_, said, _) = curl(&tool, &proxy, "/", &["--http1.0"], b"").await;
    assert!(said.contains(" 426 "), "{said}");
    let allow = |settings: &mut weft::app::Settings| {
        settings.workload.metadata.insert("HTTP10".to_owned(), "1".to_owned());
    };
    let proxy = proxy_with(&backend, allow).await;
    let (body, said, _) = curl(&tool, &proxy, "/old", &["--http1.0"], b"").await;
    assert!(said.contains(" 200 "), "{said}");
    let saw: Value = serde_json::from_str(&body).expect("what the backend saw");
    assert_eq!((&saw["path"], &saw["version"]), (&"/old".into(), &"HTTP/1.1".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_uploads_by_length_and_in_chunks() {
    let Some(tool) = find("curl", "interop::clients::curl_uploads_by_length_and_in_chunks") else { return };
    let backend = digesting().await;
    let proxy = proxy_before(&backend).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("body");
    let chunked = "transfer-encoding: chunked";
    for length in [0, 1, 16_383, 16_384, 16_385, 65_535, 65_536, 1024 * 1024, 10 * 1024 * 1024] {
        let sent = body(length);
        std::fs::write(&file, &sent).expect("the body is written");
        let file = file.to_str().expect("a path in text");
        let ways: [(&[&str], &[u8]); 4] = [
            (&["--upload-file", file, "--header", "expect:"], b""),
            (&["--upload-file", file, "--header", "expect: 100-continue"], b""),
            (&["--upload-file", "-", "--header", chunked, "--header", "expect:"], &sent),
            (&["--upload-file", file, "--http2-prior-knowledge"], b""),
        ];
        for (way, input) in ways {
            let (said, _, curl) = curl(&tool, &proxy, "/upload", way, input).await;
            let saw: Value = serde_json::from_str(&said).expect("what the backend got");
            assert_eq!(saw["length"], length, "{way:?}");
            assert_eq!(saw["digest"], digest(&sent), "{way:?}");
            let expects = way.contains(&"expect: 100-continue") && length > 0;
            assert_eq!(curl.err.contains("HTTP/1.1 100 Continue"), expects, "{way:?} {length}: {}", curl.err);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrk_sees_no_error() {
    let Some(tool) = find("wrk", "interop::clients::wrk_sees_no_error") else { return };
    let backend = TestBackend::echo("catalog").await;
    let proxy = proxy_before(&backend).await;
    let url = format!("http://{}/items", proxy.listener(0));
    let said =
        run(&tool, ["--threads", "1", "--connections", "32", "--duration", "2s", &url], b"").await.text();
    println!("{said}");
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    assert!(said.contains("requests in"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn h2load_sees_no_error() {
    let Some(tool) = find("h2load", "interop::clients::h2load_sees_no_error") else { return };
    let backend = digesting().await;
    let proxy = proxy_before(&backend).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("body");
    std::fs::write(&file, body(40_000)).expect("the body is written");
    let file = format!("--data={}", file.display());
    let url = format!("http://{}/items", proxy.listener(0));
    let ways: [&[&str]; 4] = [
        &["--requests=3000", "--clients=4", "--max-concurrent-streams=50"],
        &["--requests=3000", "--clients=8", "--h1"],
        &["--requests=300", "--clients=4", "--max-concurrent-streams=20", &file],
        // Windows of 1 KiB: every answer waits for the client.
        &[
            "--requests=300",
            "--clients=4",
            "--max-concurrent-streams=20",
            "--window-bits=10",
            "--connection-window-bits=10",
        ],
    ];
    for way in ways {
        let said = run(&tool, way.iter().chain([&url.as_str()]), b"").await.text();
        let requests = way[0].trim_start_matches("--requests=");
        let all = format!("{requests} done, {requests} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(said.contains(&all), "{way:?}: {said}");
        assert!(said.contains(&format!("status codes: {requests} 2xx, 0 3xx")), "{way:?}: {said}");
    }
}
