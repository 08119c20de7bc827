//! Streams of many small messages, which are many small frames.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use support::grpc::{Client, EchoServer, numbered, proxy_before, read_numbered};

/// How long a stream may take.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_messages_of_one_byte_both_ways() {
    const MESSAGES: u64 = 100_000;
    let server = EchoServer::start();
    let proxy = proxy_before(&server).await;
    let mut client = Client::connect(proxy.listener(0)).await;
    let exchange = async {
        let mut replies =
            client.chat(tokio_stream::iter((0..MESSAGES).map(numbered))).await.expect("a stream");
        read_numbered(&mut replies).await
    };
    let count = timeout(PATIENCE, exchange).await.expect("in time");
    assert_eq!(count, MESSAGES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_streams_of_a_thousand_messages_on_one_connection() {
    let server = EchoServer::start();
    let proxy = proxy_before(&server).await;
    let client = Client::connect(proxy.listener(0)).await;
    let mut streams = JoinSet::new();
    for _ in 0..100 {
        let mut client = client.clone();
        streams.spawn(async move {
            let mut replies =
                client.chat(tokio_stream::iter((0..1000).map(numbered))).await.expect("a stream");
            read_numbered(&mut replies).await
        });
    }
    let counts = timeout(PATIENCE, streams.join_all()).await.expect("in time");
    assert_eq!(counts, vec![1000; 100]);
}
