//! A client before the proxy and backends behind it: threads of their own, one request at a time, so that the proxy
//! meets its events always in the same order.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use weft::bench::Proxy;

use crate::{PATIENCE, TIMES, http2, mesh};

/// Bytes of a response's body.
pub(crate) const BODY_BYTES: usize = 128;

/// A client with [`TIMES`] requests, and the proxy that it waits for.
pub(crate) struct Exchanges {
    runtime: Runtime,
    proxy: Proxy,
    accepted: Option<TcpStream>,
    client: JoinHandle<usize>,
}

impl Exchanges {
    /// Serves the client to its end.
    pub(crate) fn run(mut self) -> Exchanges {
        let stream = self.accepted.take().expect("a connection");
        let served = LocalSet::new().block_on(&self.runtime, self.proxy.serve(stream));
        served.expect("the client is served");
        self
    }
}

/// A client that speaks HTTP/1.1.
pub(crate) fn http1() -> Exchanges {
    exchanges("", one_by_one)
}

/// A client that speaks HTTP/2, on one connection.
pub(crate) fn http2() -> Exchanges {
    exchanges("", http2::one_by_one)
}

/// A client that speaks HTTP/1.1, and an access log.
pub(crate) fn logged() -> Exchanges {
    exchanges(mesh::LOGGED, one_by_one)
}

/// Every request must have been answered.
pub(crate) fn check(exchanges: Exchanges) {
    let answered = exchanges.client.join().expect("the client ends");
    assert_eq!(answered, TIMES);
    // The writer of logs would wait for buffers that connections hold.
    std::mem::forget((exchanges.runtime, exchanges.proxy));
}

fn exchanges(mesh_config: &str, client: fn(TcpStream) -> usize) -> Exchanges {
    let proxy = crate::proxy(&mesh::five_rules(&backends().to_string()), mesh_config, mesh::catalog());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let client = std::thread::spawn(move || {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        client(stream)
    });
    let (accepted, _) = listener.accept().expect("a connection");
    accepted.set_nodelay(true).expect("an option");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    Exchanges { runtime, proxy, accepted: Some(accepted), client }
}

/// Sends one request after the other; returns how many were answered as they should.
fn one_by_one(mut stream: TcpStream) -> usize {
    let request =
        b"GET /v1/things/4711?page=2 HTTP/1.1\r\nhost: catalog\r\nuser-agent: bench\r\naccept: */*\r\n\r\n";
    let mut buffer = Vec::new();
    for number in 0..TIMES {
        stream.write_all(request).expect("a request is sent");
        if !read_message(&mut stream, &mut buffer, BODY_BYTES) || !buffer.starts_with(b"HTTP/1.1 200 OK\r\n")
        {
            return number;
        }
    }
    TIMES
}

/// Reads a head and so many bytes; `false` when the other side closes before.
fn read_message(stream: &mut TcpStream, buffer: &mut Vec<u8>, body_bytes: usize) -> bool {
    buffer.clear();
    let mut chunk = [0; 4096];
    loop {
        let end = buffer.windows(4).position(|window| window == b"\r\n\r\n");
        if end.is_some_and(|end| buffer.len() >= end + 4 + body_bytes) {
            return true;
        }
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => buffer.extend_from_slice(chunk.get(..count).expect("what was read")),
            _ => return false,
        }
    }
}

/// Two backends that answer every request alike, at one port of 127.0.0.1 and 127.0.0.2.
fn backends() -> SocketAddr {
    let first = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = first.local_addr().expect("an address");
    let second = TcpListener::bind(("127.0.0.2", address.port())).expect("the same port");
    for listener in [first, second] {
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                std::thread::spawn(move || serve(stream));
            }
        });
    }
    address
}

fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).expect("an option");
    let body = "x".repeat(BODY_BYTES);
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY_BYTES}\r\n\r\n{body}");
    let mut buffer = Vec::new();
    while read_message(&mut stream, &mut buffer, 0) && stream.write_all(answer.as_bytes()).is_ok() {}
}
