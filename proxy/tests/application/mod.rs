//! An application beside the proxy, as its probes and its metrics show it: over HTTP, TLS and gRPC.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Bytes of the answer to `/big`.
pub(crate) const BIG_BYTES: usize = 20 * 1024;

/// Answers each connection's one request by its path, on threads that end with the process.
pub(crate) fn http() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || {
                let peer = stream.peer_addr().unwrap();
                answer(stream, peer);
            });
        }
    });
    address
}

/// The same over TLS, with a certificate for somebody else that nobody issued. `protocols` are those it offers by ALPN.
pub(crate) fn https(protocols: &[&str]) -> SocketAddr {
    let config = tls(protocols);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, config) = (stream.unwrap(), config.clone());
            std::thread::spawn(move || {
                let peer = stream.peer_addr().unwrap();
                answer(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), peer);
            });
        }
    });
    address
}

fn tls(protocols: &[&str]) -> Arc<ServerConfig> {
    let issued = rcgen::generate_simple_self_signed(["somebody.else".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A server of gRPC's health, whose services are `up`, `down` and `unknown`; on one for TLS it speaks HTTP/2 behind it, and
/// answers every GET with 200.
pub(crate) fn grpc(over_tls: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let acceptor = over_tls.then(|| tokio_rustls::TlsAcceptor::from(tls(&["h2"])));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::task::spawn_local(async move {
                    match acceptor {
                        Some(acceptor) => h2(acceptor.accept(stream).await.unwrap()).await,
                        None => h2(stream).await,
                    }
                });
            }
        });
    });
    address
}

async fn h2(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::task::spawn_local(async move {
            if request.method() == http::Method::GET {
                let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                body.send_data(request.uri().to_string().into(), true).unwrap();
                return;
            }
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(request.headers()["te"], "trailers");
            let mut body = request.into_body();
            let mut message = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                message.extend_from_slice(&data);
            }
            let response = http::Response::builder().header("content-type", "application/grpc");
            // Behind the prefix, the tag and the length.
            let (status, grpc_status): (&[u8], _) = match message.get(7..).unwrap_or_default() {
                b"" | b"up" => (b"\0\0\0\0\x02\x08\x01", "0"),
                b"down" => (b"\0\0\0\0\x02\x08\x02", "0"),
                b"silent" => std::future::pending().await,
                _ => (b"", "5"),
            };
            let mut body = respond.send_response(response.body(()).unwrap(), false).unwrap();
            body.send_data(bytes::Bytes::from_static(status), false).unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", grpc_status.parse().unwrap());
            body.send_trailers(trailers).unwrap();
        });
    }
}

/// One that accepts and says nothing.
pub(crate) fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let _kept: Vec<TcpStream> = listener.incoming().map_while(Result::ok).collect();
    });
    address
}

/// Where nobody listens, nor ever will: the tests beside take ports, too.
pub(crate) fn nobody() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}

fn answer(stream: impl Read + Write, peer: SocketAddr) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let (status, headers, body) = match path.as_str() {
        "/ok" => ("200 OK", String::new(), "fine".to_owned()),
        "/" => ("200 OK", String::new(), "root".to_owned()),
        "/none" => ("204 No Content", String::new(), String::new()),
        "/teapot" => ("418 I'm a teapot", String::new(), "short and stout".to_owned()),
        "/bad" => ("500 Internal Server Error", String::new(), "broken".to_owned()),
        "/unavailable" => ("503 Service Unavailable", String::new(), "later".to_owned()),
        "/big" => ("200 OK", String::new(), "x".repeat(BIG_BYTES)),
        "/peer" => ("200 OK", String::new(), peer.ip().to_string()),
        "/head" | "/head?a=b%20c" => ("200 OK", String::new(), head.clone()),
        "/to/ok" => ("302 Found", "location: /ok\r\n".to_owned(), String::new()),
        "/to/bad" => ("307 Temporary Redirect", "location: ../bad\r\n".to_owned(), String::new()),
        "/to/head" => ("301 Moved Permanently", "location: /head\r\n".to_owned(), String::new()),
        "/to/itself" => ("302 Found", "location: /to/itself\r\n".to_owned(), String::new()),
        "/to/elsewhere" => {
            ("302 Found", "location: http://elsewhere.example/bad\r\n".to_owned(), String::new())
        }
        "/to/nowhere" => ("302 Found", String::new(), "where?".to_owned()),
        "/metrics" => {
            ("200 OK", "content-type: text/plain; version=0.0.4\r\n".to_owned(), "app_up 1\n".to_owned())
        }
        "/open" => (
            "200 OK",
            "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n".to_owned(),
            "app_open 1\n# EOF\n".to_owned(),
        ),
        "/encoded" => ("200 OK", "content-encoding: gzip\r\n".to_owned(), "app_encoded 1\n".to_owned()),
        "/huge" => ("200 OK", String::new(), "app_huge 1\n".repeat(1024 * 1024)),
        "/echo" => ("200 OK", String::new(), head.lines().map(|line| format!("# {line}\n")).collect()),
        "/nonsense" => {
            let _ = reader.get_mut().write_all(b"nonsense\r\n\r\n");
            return;
        }
        "/cut" => {
            let _ = reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nfi");
            return;
        }
        "/chunked" => {
            let _ = reader.get_mut().write_all(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nfi\r\n2\r\nne\r\n0\r\n\r\n",
            );
            return;
        }
        // Until whoever asks leaves.
        "/silent" => return drop(reader.read_line(&mut head)),
        other => ("404 Not Found", String::new(), format!("no {other}")),
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}");
    // Whoever asks may have read enough.
    let _ = reader.get_mut().write_all(answer.as_bytes());
    let _ = reader.get_mut().flush();
}
