//! Where a message ends, when its length is not said and its last piece says that it is the last.

use std::time::Duration;

use bytes::Bytes;
use support::{Mesh, TestBackend, TestProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

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

/// An answer that ends with its connection has no end when that is reset, also where writing the request finds the reset
/// first and reading would find an end.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_reset_ends_is_not_whole() {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = server.local_addr().expect("an address");
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", address);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    for _ in 0..5 {
        let (reset, is_reset) = oneshot::channel();
        let (mut reader, mut writer) =
            TcpStream::connect(proxy.listener(0)).await.expect("a connection").into_split();
        let asking = tokio::spawn(async move {
            let head = b"POST / HTTP/1.1\r\nhost: catalog\r\ncontent-length: 64000000\r\n\r\n";
            writer.write_all(head).await.expect("it is taken");
            // More than all the buffers on the way hold.
            let _ = writer.write_all(&vec![0; 64_000_000]).await;
            writer
        });
        let (mut stream, _) = server.accept().await.expect("the proxy connects");
        let answering = tokio::spawn(async move {
            stream.read_exact(&mut [0; 4]).await.expect("a request");
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf").await.expect("it is taken");
            is_reset.await.expect("it is told");
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("it is set");
        });
        let mut heard = Vec::new();
        while !heard.ends_with(b"half\r\n") {
            let read = reader.read_buf(&mut heard).await;
            assert!(read.is_ok_and(|count| count > 0), "{}", String::from_utf8_lossy(&heard));
        }
        reset.send(()).expect("it waits");
        // It ends by a reset, or without its last chunk.
        let _ = reader.read_to_end(&mut heard).await;
        assert!(!heard.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&heard));
        answering.await.expect("it answers");
        drop(asking.await);
    }
}
