//! Calls of every shape, and how they end: well, with an error, too late, given up.

use std::time::Duration;

use bytes::Bytes;
use support::{Mesh, TestBackend, TestProxy, eventually};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use support::grpc::{
    Client, DETAILS, EchoServer, FAIL, FAILURE, UNARY, WAIT, numbered, proxy_before, read_numbered,
};

/// A request with metadata that only needs to be there.
fn asking(metadata: &'static str) -> Request<Bytes> {
    let mut request = Request::new(Bytes::from_static(b"x"));
    request.metadata_mut().insert(metadata, MetadataValue::from_static("1"));
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shape_of_call_crosses() {
    let server = EchoServer::start();
    let proxy = proxy_before(&server).await;
    let mut client = Client::connect(proxy.listener(0)).await;

    let reply = client.unary(Request::new(Bytes::from_static(b"hello"))).await.expect("a reply");
    assert_eq!(reply.get_ref(), &Bytes::from_static(b"hello"));
    assert_eq!(reply.metadata().get("server").map(|value| value.as_bytes()), Some(b"envoy".as_slice()));

    let count = client.count(tokio_stream::iter((0..1000).map(numbered))).await.expect("a reply");
    assert_eq!(count.get_ref(), &Bytes::from_static(b"1000"));

    let mut replies = client.repeat(1000).await.expect("a stream");
    assert_eq!(read_numbered(&mut replies).await, 1000);

    let mut replies = client.chat(tokio_stream::iter((0..1000).map(numbered))).await.expect("a stream");
    assert_eq!(read_numbered(&mut replies).await, 1000);

    let big = Bytes::from(vec![7; 3 * 1024 * 1024]);
    let reply = client.unary(Request::new(big.clone())).await.expect("a reply");
    assert!(reply.get_ref() == &big, "three megabytes come back as they went");

    let labels = [("request_protocol", "grpc"), ("response_code", "200"), ("grpc_response_status", "0")];
    assert_eq!(proxy.metric("istio_requests_total", &labels).await, Some(5.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_keeps_its_message_details_and_metadata() {
    let server = EchoServer::start();
    let proxy = proxy_before(&server).await;
    let mut client = Client::connect(proxy.listener(0)).await;
    let check = |status: Status| {
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), FAILURE);
        assert_eq!(status.details(), DETAILS);
        let hint = status.metadata().get("x-hint").expect("the server's own metadata");
        assert_eq!(hint.as_bytes(), b"again");
    };
    // Without a message before it, the status is in the head of the answer; after messages it is in the trailers.
    check(client.unary(asking(FAIL)).await.expect_err("an error"));
    let mut replies = client.repeat(-10).await.expect("a stream");
    for n in 0..10 {
        assert_eq!(replies.message().await.expect("a message"), Some(numbered(n)));
    }
    check(replies.message().await.expect_err("an error"));
    let labels = [("response_code", "200"), ("grpc_response_status", "9")];
    assert_eq!(proxy.metric("istio_requests_total", &labels).await, Some(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_reaches_nobody_fails_in_grpcs_way() {
    let proxy = TestProxy::of(Mesh::new().service("echo", "grpc/9090")).listen("echo", 9090).ready().await;
    let mut client = Client::connect(proxy.listener(0)).await;
    let status = client.unary(Request::new(Bytes::new())).await.expect_err("an error");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "no healthy upstream"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_reaches_the_server_and_ends_the_call() {
    let server = EchoServer::start();
    let proxy = proxy_before(&server).await;
    let mut client = Client::connect(proxy.listener(0)).await;
    let mut request = asking(WAIT);
    request.set_timeout(Duration::from_millis(300));
    let status = client.unary(request).await.expect_err("too late");
    // Client, proxy and server all watch the clock, and any of them may be first.
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled | Code::Unavailable),
        "{status:?}"
    );
    assert_eq!(server.seen.deadlines(), 1);
    eventually("the server's call is given up", || async { (server.seen.waiting() == 0).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_keeps_a_deadline_though_nobody_else_does() {
    let silent = TestBackend::new(|_| std::future::pending()).await;
    let mesh = Mesh::new().service("echo", "grpc/9090").endpoint("echo", "grpc", "v1", silent.address);
    let proxy = TestProxy::of(mesh).listen("echo", 9090).ready().await;
    let request = support::Request::new(http::Method::POST, UNARY).http2().host("echo");
    let request = request
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "200m");
    let answer = request.send(proxy.listener(0)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("grpc-status"), "14");
    assert_eq!(answer.header("grpc-message"), "upstream request timeout");
    let labels = [("response_code", "200"), ("response_flags", "UT"), ("grpc_response_status", "14")];
    assert_eq!(proxy.metric("istio_requests_total", &labels).await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_sees_that_a_client_has_given_up() {
    let server = EchoServer::start();
    let proxy = proxy_before(&server).await;
    let mut client = Client::connect(proxy.listener(0)).await;

    let mut waiting = client.clone();
    let call = tokio::spawn(async move { waiting.unary(asking(WAIT)).await.map(drop) });
    eventually("the call waits", || async { (server.seen.waiting() == 1).then_some(()) }).await;
    call.abort();
    eventually("the server knows that the call is given up", || async {
        (server.seen.waiting() == 0).then_some(())
    })
    .await;

    // A stream that would go on for ever.
    let mut replies = client.repeat(i64::MAX).await.expect("a stream");
    assert_eq!(replies.message().await.expect("a message"), Some(numbered(0)));
    assert_eq!(server.seen.repeating(), 1);
    drop(replies);
    eventually("the server knows that the stream is given up", || async {
        (server.seen.repeating() == 0).then_some(())
    })
    .await;

    // The connection was for others, too.
    client.unary(Request::new(Bytes::new())).await.expect("a reply");
    assert_eq!(proxy.metric("envoy_cluster_upstream_cx_total", &[]).await, Some(1.0));
}
