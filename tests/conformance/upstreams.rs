//! Upstreams that answer badly: a client gets a clean error or a body that is seen to be cut, never one that only seems
//! whole, and never what was meant for somebody else.

use std::net::SocketAddr;
use std::time::Duration;

use support::frames::{self, END_STREAM};
use support::strict::{self, Framing, Read};
use support::{Mesh, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::answers;
use crate::script::{BAD, End, IDLE, Script, Upstream};

/// An answer of an upstream, and what the client makes of it.
#[derive(Debug, Clone)]
pub(crate) struct AnswerCase {
    /// What is special about it; unique.
    pub(crate) name: &'static str,
    /// The section that decides, of RFC 9112 where nothing else stands before it.
    pub(crate) rule: &'static str,
    /// What the upstream sends.
    pub(crate) script: Script,
    /// The request's method.
    pub(crate) method: &'static str,
    /// What the client gets.
    pub(crate) seen: Seen,
}

impl AnswerCase {
    /// The request's method, and whether it has a body.
    fn request(&self) -> (&str, bool) {
        (self.method, self.script.early)
    }
}

/// What a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A whole answer.
    Whole(u16, String),
    /// Not all of an answer, or none: the connection is closed, or the stream reset.
    Cut,
    /// Nothing yet.
    Waiting,
}

/// Asks for [`BAD`] over HTTP/1, by a method and perhaps with a body that does not come.
pub(crate) async fn ask_http1((method, body): (&str, bool), proxy: SocketAddr, quiet: Duration) -> Seen {
    let mut stream = TcpStream::connect(proxy).await.expect("a connection");
    let length = if body { "content-length: 100000000\r\n" } else { "" };
    let request = format!("{method} {BAD} HTTP/1.1\r\nhost: catalog\r\n{length}\r\n");
    stream.write_all(request.as_bytes()).await.expect("the request is sent");
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 256 * 1024]);
    loop {
        while let Ok(Read::Complete(answer, length)) = strict::response(&bytes, method == "HEAD") {
            let code: u16 = answer.first_line[1].parse().expect("three digits");
            if code >= 200 {
                // A body that ends with the connection may be cut anywhere.
                assert_ne!(answer.framing, Framing::Close, "{answer:?}");
                return Seen::Whole(code, answer.text());
            }
            bytes.drain(..length);
        }
        match tokio::time::timeout(quiet, stream.read(&mut buffer)).await {
            Ok(Ok(count)) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
            Ok(_) => return Seen::Cut,
            Err(_) => return Seen::Waiting,
        }
    }
}

/// The same over HTTP/2.
pub(crate) async fn ask_http2((method, body): (&str, bool), proxy: SocketAddr, quiet: Duration) -> Seen {
    let mut client = frames::Client::connect(proxy).await;
    let fields = [
        (&b":method"[..], method.as_bytes()),
        (b":scheme", b"http"),
        (b":authority", b"catalog"),
        (b":path", BAD.as_bytes()),
    ];
    let flags = if body { 0 } else { END_STREAM };
    client.send(&[frames::hello(), frames::headers(1, flags, &fields)].concat()).await;
    if !client.read_to_end(1, quiet).await {
        return Seen::Waiting;
    }
    match client.streams.get(&1) {
        Some(frames::Stream { status: Some(status), body, ended: true, .. }) => {
            Seen::Whole(*status, String::from_utf8_lossy(body).into_owned())
        }
        _ => Seen::Cut,
    }
}

/// Other clients get their own answers, whatever is left on the connection.
async fn others_are_served(proxy: SocketAddr, quiet: Duration) -> Result<(), String> {
    for number in 0..3 {
        let target = format!("/other-{number}");
        let mut stream = TcpStream::connect(proxy).await.expect("a connection");
        let request = format!("GET {target} HTTP/1.1\r\nhost: catalog\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the request is sent");
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(quiet, stream.read_to_end(&mut bytes)).await;
        match (read, strict::response(&bytes, false)) {
            (Ok(Ok(_)), Ok(Read::Complete(answer, _)))
                if answer.first_line[1] == "200" && answer.header("x-target") == target => {}
            _ => return Err(format!("another client gets {:?}", String::from_utf8_lossy(&bytes))),
        }
    }
    Ok(())
}

async fn stage() -> (Upstream, TestProxy) {
    let upstream = Upstream::new().await;
    let mesh =
        Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", upstream.address);
    (upstream, TestProxy::of(mesh).listen("catalog", 8000).ready().await)
}

async fn check(cases: Vec<AnswerCase>) {
    let (upstream, proxy) = stage().await;
    let quiet = Duration::from_millis(1500);
    let mut failures = Vec::new();
    for case in cases {
        upstream.play(&case.script);
        let one = ask_http1(case.request(), proxy.listener(0), quiet).await;
        let others = others_are_served(proxy.listener(0), quiet).await;
        let two = ask_http2(case.request(), proxy.listener(0), quiet).await;
        let wrong = [&one, &two].into_iter().any(|seen| *seen != case.seen);
        if wrong {
            failures.push(format!("{} ({}): {one:?} and {two:?}, not {:?}", case.name, case.rule, case.seen));
        }
        for others in [others, others_are_served(proxy.listener(0), quiet).await] {
            failures.extend(others.err().map(|error| format!("{}: {error}", case.name)));
        }
    }
    assert!(failures.is_empty(), "{} cases:\n  {}", failures.len(), failures.join("\n  "));
}

/// One test for each part of the table.
macro_rules! tables {
    ($($name:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                check(answers::$name::cases()).await;
            }
        )+
    };
}

tables!(heads, bodies, several);

/// Answers whose every byte counts.
const SHORT: [&str; 4] = [
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nx-a: b\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_ends_at_any_byte_is_whole_only_at_its_end() {
    let (upstream, proxy) = stage().await;
    let quiet = support::PATIENCE / 4;
    for answer in SHORT {
        for (at, ending) in (0..=answer.len()).flat_map(|at| [(at, End::Closes), (at, End::Resets)]) {
            let mut case = answers::whole("cut", "8", &answer[..at], (200, "ok"));
            case.script.end = ending;
            upstream.play(&case.script);
            for seen in [
                ask_http1(case.request(), proxy.listener(0), quiet).await,
                ask_http2(case.request(), proxy.listener(0), quiet).await,
            ] {
                let what = format!("{answer:?} at {at}, {ending:?}: {seen:?}");
                match seen {
                    Seen::Whole(200, body) => assert!(at == answer.len() && body == "ok", "{what}"),
                    Seen::Whole(502 | 503, _) | Seen::Cut => {
                        // A reset may overtake what was sent before it.
                        assert!(at < answer.len() || ending == End::Resets, "{what}");
                    }
                    Seen::Whole(..) | Seen::Waiting => panic!("{what}"),
                }
            }
        }
        others_are_served(proxy.listener(0), quiet).await.expect("others are served");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_on_an_idle_connection_is_nobodys_answer() {
    let (upstream, proxy) = stage().await;
    let stolen = b"HTTP/1.1 200 OK\r\nx-target: /stolen\r\ncontent-length: 6\r\n\r\nstolen";
    for bytes in [
        &stolen[..],
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 408 Request Timeout\r\n\r\n",
        b"\r\n",
        b"x",
    ] {
        for _ in 0..50 {
            let asked = support::Request::get(IDLE).send(proxy.listener(0)).await;
            assert_eq!(asked.header("x-target"), IDLE);
            let mut idle =
                eventually("the upstream has nothing more to do", || async { upstream.idle().pop() }).await;
            idle.write_all(bytes).await.expect("the bytes are sent");
            // The bytes are with the proxy now, whether or not it has looked.
            others_are_served(proxy.listener(0), support::PATIENCE)
                .await
                .expect("others get their own answers");
        }
    }
}
