//! What becomes of a connection when a drain begins, and of a large head while its body is read.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;
use crate::http::codec::{EmptyBody, Frame, StreamError};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// How many requests are answered of a client that has one answer, and has sent another request or not when the drain begins.
async fn answered(another: bool, closes_idle: bool) -> u32 {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
    let (stream, _) = server.accept().await.unwrap();
    let stream = stream.into_std().unwrap();
    let twin = stream.try_clone().unwrap();
    let stream = TcpStream::from_std(stream).unwrap();

    let (answered, draining) = (Cell::new(0), Cell::new(false));
    let handler = |_: RequestHead, _: RecvBody| {
        answered.set(answered.get() + 1);
        let head = ResponseHead { status: StatusCode::NO_CONTENT, headers: HeaderMap::new() };
        Some(async { (head, EmptyBody) })
    };
    let shutdown = poll_fn(|_| if draining.get() { Poll::Ready(()) } else { Poll::Pending });
    let limits = Limits::default();
    let mut serving = pin!(serve(Guarded::alone(stream.into()), &limits, handler, (shutdown, closes_idle)));

    client.write_all(REQUEST).await.unwrap();
    let mut answer = [0; 1024];
    tokio::select! {
        ended = &mut serving => panic!("it ended: {ended:?}"),
        read = client.read(&mut answer) => assert!(read.unwrap() > 0),
    }
    if another {
        // A copy of the socket that only now begins to be watched: when it can be read, so can the other.
        let twin = TcpStream::from_std(twin).unwrap();
        client.write_all(REQUEST).await.unwrap();
        twin.readable().await.unwrap();
    } else {
        drop(twin);
    }
    draining.set(true);
    let mut rest = Vec::new();
    let leaves = async {
        let read = client.read_to_end(&mut rest).await;
        drop(client);
        read
    };
    let (ended, read) = tokio::join!(serving, leaves);
    assert!(ended.is_ok() && read.is_ok(), "{ended:?} {read:?}");
    assert_eq!(rest.starts_with(b"HTTP/1.1 204"), another);
    answered.get()
}

/// Closing the connection before what has come is read would reset it under the client.
#[tokio::test]
async fn a_request_that_has_arrived_when_a_drain_begins_is_answered() {
    assert_eq!(answered(true, true).await, 2);
    assert_eq!(answered(true, false).await, 2);
    assert_eq!(answered(false, true).await, 1);
}

/// The value of a field, and what tells whether it is there.
struct Value(Vec<u8>, #[expect(dead_code, reason = "it is counted")] Arc<()>);

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A body that never ends and is never waited for.
struct Endless;

impl Body for Endless {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        Poll::Ready(Some(Ok(Frame::Data(Bytes::from_static(&[b'b'; 17_000])))))
    }

    fn is_end_stream(&self) -> bool {
        false
    }

    fn exact_length(&self) -> Option<u64> {
        None
    }
}

/// There is always some of such a body, if only the size of a chunk, that the client has not read.
#[tokio::test]
async fn a_large_head_goes_when_the_client_has_it_though_it_reads_the_body_slowly() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(4_096).unwrap();
    let mut client = client.connect(server.local_addr().unwrap()).await.unwrap();
    let (stream, _) = server.accept().await.unwrap();
    socket2::SockRef::from(&stream).set_send_buffer_size(4_096).unwrap();
    let used = Arc::new(());
    let handler = |_: RequestHead, _: RecvBody| {
        let value = Bytes::from_owner(Value(vec![b'v'; 50_000], used.clone()));
        let value = HeaderValue::from_maybe_shared(value).unwrap();
        let headers = HeaderMap::from_iter([(http::header::SERVER, value)]);
        Some(async { (ResponseHead { status: StatusCode::OK, headers }, Endless) })
    };
    let limits = Limits::default();
    let shutdown = (std::future::pending(), true);
    let mut serving = pin!(serve(Guarded::alone(stream.into()), &limits, handler, shutdown));
    client.write_all(REQUEST).await.unwrap();
    let mut answer = vec![0; 1_000_000];
    tokio::select! {
        ended = &mut serving => panic!("it ended: {ended:?}"),
        read = client.read_exact(&mut answer) => assert!(read.is_ok(), "{read:?}"),
    }
    assert_eq!(Arc::strong_count(&used), 1);
}
