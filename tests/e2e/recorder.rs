//! The flight recorder: how what has failed is told, found again, and counted.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body_util::Full;
use serde_json::Value;
use support::client::raw;
use support::declared::{any, cluster, listener, to_tcp, update};
use support::{Mesh, Request, TestBackend, TestProxy, eventually};

use crate::incidents::mesh;

/// What `/recorder` lists, newest first, once there are so many.
async fn recorded(proxy: &TestProxy, count: usize) -> Vec<Value> {
    eventually("it is recorded", || async {
        let page = proxy.page("/recorder?format=json").await;
        let page: Value = serde_json::from_str(&page).expect("JSON");
        let requests = page["requests"].as_array().expect("a list").clone();
        (requests.len() >= count).then_some(requests)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_told_with_where_it_wanted_to_go() {
    let nobody = TcpListener::bind(("127.9.9.9", 0)).expect("a port").local_addr().expect("an address");
    let resources =
        update(vec![listener("tcp", vec![to_tcp(any(), "ledger")])], [cluster("ledger", &[nobody])]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    let wanted = proxy.listener(0);
    raw(wanted, b"hello", Duration::from_secs(5)).await;
    let requests = recorded(&proxy, 1).await;
    assert_eq!(requests[0]["authority"], wanted.to_string());
    let (errors, to) = (proxy.page("/errors").await, format!(" to {wanted}, endpoint {nobody}, "));
    assert!(errors.contains(&to), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_recorded_with_its_answer() {
    let backend = TestBackend::echo("catalog").await;
    let mesh = mesh("http/8000", backend.address, "", "timeout: 5s");
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let large = format!("GET / HTTP/1.1\r\nx-large: {}\r\n\r\n", "a".repeat(70_000));
    for (index, bytes, status, cause) in [
        (0, large.as_bytes(), 431, "431 DPE: head_bytes_max 61440 of this process"),
        (1, b"\x01\x02hello\r\n\r\n", 400, "400 DPE: the client did not speak HTTP: invalid request line"),
    ] {
        let answer = raw(proxy.listener(0), bytes, Duration::from_secs(5)).await;
        assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{status}");
        let requests = recorded(&proxy, index + 1).await;
        let newest = &requests[0];
        assert_eq!((&newest["status"], &newest["cause"]), (&status.into(), &cause.into()), "{newest:#}");
        assert_eq!(newest["authority"], proxy.listener(0).to_string());
        assert!(newest["took_us"].as_u64().is_some_and(|took| took > 0), "{newest:#}");
    }
}

/// A call that fails is answered 200 all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_call_of_grpc_is_a_failure() {
    let backend = TestBackend::new(|request: http::Request<_>| {
        let mut response = Response::new(Full::<Bytes>::default());
        let status = request.uri().path().trim_start_matches('/').to_owned();
        let status = HeaderValue::from_str(&status).expect("a status");
        response.headers_mut().insert("grpc-status", status);
        std::future::ready(response)
    })
    .await;
    let proxy = serve(backend.address).await;
    for status in ["0", "5", "13", "14"] {
        let request = Request::new(http::Method::POST, &format!("/{status}")).http2();
        let answer = request.header("content-type", "application/grpc").send(proxy.listener(0)).await;
        assert_eq!(answer.status, 200);
    }
    // What is no gRPC may say what it likes.
    Request::get("/13").http2().send(proxy.listener(0)).await;
    recorded(&proxy, 2).await;
    let errors = proxy.page("/errors").await;
    assert!(errors.starts_with("2 failures in the last hour, by 2 causes\n"), "{errors}");
    for status in [13, 14] {
        let cause = format!("      1 x grpc-status {status}: the upstream's own answer, from cluster ");
        assert!(errors.contains(&cause), "no `{cause}` in\n{errors}");
    }
}

async fn serve(backend: SocketAddr) -> TestProxy {
    let mesh = mesh("grpc/8000", backend, "", "retries: {attempts: 0}");
    TestProxy::of(mesh).listen("catalog", 8000).ready().await
}
