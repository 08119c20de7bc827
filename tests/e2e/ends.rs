//! Where a message ends, when its length is not said and its last piece says that it is the last.

use bytes::Bytes;
use support::{Mesh, TestBackend, TestProxy};
use tokio::net::TcpStream;

/// Over HTTP/2 the last piece and the end come in one frame; the HTTP/1 upstream must see the one before the other.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_request_comes_after_its_last_piece() {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let stream = TcpStream::connect(proxy.listener(0)).await.expect("a connection");
    let (client, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    // The pieces of the last are such that, in the wrong order, the upstream would be left in the middle of a chunk.
    for (number, pieces) in
        [vec![5_000usize], vec![1], vec![4_097], vec![10_000, 3], vec![4_096, 16_000]].iter().enumerate()
    {
        let mut client = client.clone().ready().await.expect("room for a request");
        let request = http::Request::post(format!("http://catalog/{number}")).body(()).expect("a request");
        let (answer, mut body) = client.send_request(request, false).expect("the head is sent");
        let mut sent = String::new();
        for (at, length) in pieces.iter().enumerate() {
            let piece = format!("{}\r\nfff", "x".repeat(length.saturating_sub(5)));
            sent += &piece;
            body.send_data(Bytes::from(piece), at + 1 == pieces.len()).expect("a piece is sent");
        }
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 200, "{pieces:?}");
        let mut read = Vec::new();
        let mut body = answer.into_body();
        while let Some(data) = body.data().await {
            read.extend_from_slice(&data.expect("the answer goes on"));
        }
        let saw: serde_json::Value = serde_json::from_slice(&read).expect("what the backend saw");
        assert_eq!(
            (saw["path"].as_str(), saw["body"].as_str()),
            (Some(&*format!("/{number}")), Some(&*sent))
        );
        assert_eq!(saw["headers"]["transfer-encoding"][0], "chunked", "{pieces:?}");
    }
}
