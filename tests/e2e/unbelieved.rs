//! A client that is connected and not believed any more, as when the root of the mesh is replaced: it is parted with though
//! it asks for nothing, and in such a way that what it asks is served elsewhere. A client of ours does not wait for that.

#![allow(clippy::unwrap_used, reason = "in a test, what is not as expected ends the test")]

use std::net::SocketAddr;
use std::time::Duration;

use config::PrivateKey;
use support::frames::{END_STREAM, Frame, frame, headers, hello, kind};
use support::tls::{Ca, Files, Pem, believing, handshake};
use support::{PATIENCE, Request, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use weft::app::{Identity, IdentitySource, PushedIdentity, Pusher};

use crate::mutual::{CLIENT, SERVER, client, files, server, server_with};

pub(crate) const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The error code of RFC 9113 section 7 that says that nobody has looked at a stream.
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

/// A server, and who tells it who it is and whom to believe.
struct Server {
    proxy: TestProxy,
    pusher: Pusher,
    old: Ca,
    new: Ca,
}

impl Server {
    /// Believes an old root.
    async fn start(app: &TestBackend, log: &Files) -> Server {
        let (old, new) = (Ca::new("mesh"), Ca::new("mesh, renewed"));
        let (pusher, pushed) = PushedIdentity::new("a test");
        pusher.push(identity(&old.workload(SERVER), &old.pem));
        let log = log.path().join("log");
        let proxy = server_with(IdentitySource::Pushed(pushed), app, false, &log).await.ready().await;
        Server { proxy, pusher, old, new }
    }

    async fn becomes(&self, identity: Identity) {
        let before = self.proxy.generation().await;
        self.pusher.push(identity);
        self.proxy.generation_after(before).await;
    }

    async fn believes_both(&self) {
        let both = format!("{}{}", self.old.pem, self.new.pem);
        self.becomes(identity(&self.old.workload(SERVER), &both)).await;
    }

    async fn believes_the_new_one(&self) {
        self.becomes(identity(&self.new.workload(SERVER), &self.new.pem)).await;
    }

    /// A connection of a client of the old root.
    async fn connect(&self, alpn: &str) -> TlsStream<TcpStream> {
        connect(&self.old, self.proxy.listener(0), alpn).await
    }
}

/// A connection of a client with an identity from `ca`.
pub(crate) async fn connect(ca: &Ca, to: SocketAddr, alpn: &str) -> TlsStream<TcpStream> {
    let config = believing(ca, Some(&ca.workload(CLIENT)), &[alpn]);
    handshake(config, to, "outbound_.80_._.a.b").await.unwrap()
}

fn identity(pem: &Pem, roots: &str) -> Identity {
    Identity {
        chain: pem.chain.as_bytes().into(),
        key: PrivateKey::new(pem.key.as_bytes()),
        roots: roots.as_bytes().into(),
        revoked: None,
        bundles: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_believed_any_more_is_parted_with() {
    let (ca, other) = (Ca::new("mesh"), Ca::new("other"));
    let app = TestBackend::echo("app").await;
    let server = server(&ca, &app, false).await;
    let of_client = files(&ca, &ca.workload(CLIENT));
    of_client.write("roots.pem", &format!("{}{}", ca.pem, other.pem));
    let client = client(of_client, server.proxy.listener(0), SERVER).await;
    assert_eq!(Request::get("/").send(client.proxy.listener(0)).await.status, 200);
    let mut bytes = TcpStream::connect(client.proxy.listener(2)).await.unwrap();
    bytes.write_all(b"a").await.unwrap();
    let mut back = [0; 1];
    bytes.read_exact(&mut back).await.unwrap();
    // Another root besides changes nothing for them.
    server.renewed(|files| files.write("roots.pem", &format!("{}{}", ca.pem, other.pem))).await;
    bytes.write_all(b"a").await.unwrap();
    bytes.read_exact(&mut back).await.unwrap();
    let served = app.served();
    let only_the_other = |files: &Files| {
        files.show(&other.workload(SERVER));
        files.write("roots.pem", &other.pem);
    };
    server.renewed(only_the_other).await;
    // By an end or by a reset.
    let ended = tokio::time::timeout(PATIENCE, bytes.read(&mut back)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
    // The connection that is there is asked no more.
    assert_eq!(Request::get("/").send(client.proxy.listener(0)).await.status, 503);
    assert_eq!(app.served(), served);
}

/// What comes until the connection ends in order; `None` when it ends otherwise.
pub(crate) async fn rest(stream: &mut TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    ended.expect("the connection is still there").ok().map(|_| rest)
}

async fn is_answered(stream: &mut TlsStream<TcpStream>) -> bool {
    let asked = stream.write_all(ASK).await.is_ok();
    asked && stream.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0)
}

/// Whoever writes a file in two pieces takes so long, or the first counts by itself; a test that was slower begins anew.
const IN_TWO_PIECES: Duration = Duration::from_millis(200);

/// The first of two roots alone is as good to read as both; who is vouched for by the second is parted with only when it stays so.
#[tokio::test(flavor = "multi_thread")]
async fn roots_that_are_written_in_two_pieces_part_nobody() {
    let (ca, other) = (Ca::new("mesh"), Ca::new("other"));
    let app = TestBackend::echo("app").await;
    let files = files(&ca, &ca.workload(SERVER));
    let roots = files.path().join("roots.pem");
    let both = format!("{}{}", ca.pem, other.pem);
    files.write("roots.pem", &both);
    let log = files.path().join("log");
    let server = server_with(files.identity().into(), &app, false, &log).await.ready().await;
    let connect = async || {
        let config = believing(&ca, Some(&other.workload(CLIENT)), &["istio-http/1.1"]);
        handshake(config, server.listener(0), "outbound_.80_._.a.b").await.unwrap()
    };
    let mut stream = connect().await;
    assert!(is_answered(&mut stream).await);
    for attempt in 0.. {
        // What there is to say about another file tells that all were looked at.
        let looked = async |piece: &str| {
            let name = format!("{piece}-{attempt}.yaml");
            server.mesh.write(&name, "[");
            server.page_has("/findings", &name).await;
        };
        #[allow(clippy::disallowed_methods, reason = "the clock of the proxy is not that of its test")]
        let began = std::time::Instant::now();
        std::fs::write(&roots, &ca.pem).unwrap();
        looked("first").await;
        std::fs::write(&roots, &both).unwrap();
        if began.elapsed() < IN_TWO_PIECES {
            looked("second").await;
            assert!(is_answered(&mut stream).await, "it is believed now as before");
            break;
        }
        stream = eventually("it is believed again", || async {
            let mut again = connect().await;
            is_answered(&mut again).await.then_some(again)
        })
        .await;
    }
    std::fs::write(&roots, &ca.pem).unwrap();
    assert_eq!(rest(&mut stream).await.as_deref(), Some(&b""[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_of_http1_is_parted_with() {
    let app = TestBackend::echo("app").await;
    let log = Files::new(&Ca::new("nobody"));
    let server = Server::start(&app, &log).await;
    let mut asked = server.connect("istio-http/1.1").await;
    let mut never_asked = server.connect("istio-http/1.1").await;
    let ask = async |stream: &mut TlsStream<TcpStream>| {
        stream.write_all(ASK).await.unwrap();
        let mut heard = vec![0; 64 * 1024];
        let count = stream.read(&mut heard).await.unwrap();
        assert!(heard[..count].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&heard[..count]));
    };
    ask(&mut asked).await;
    // Other roots besides change nothing.
    server.believes_both().await;
    ask(&mut asked).await;
    server.believes_the_new_one().await;
    for stream in [&mut asked, &mut never_asked] {
        assert_eq!(rest(stream).await.as_deref(), Some(&b""[..]));
    }
    let closed = server.proxy.metric("weft_listener_connections_not_admitted_total", &[]).await;
    assert_eq!(closed, Some(2.0));
    assert_eq!(app.served(), 2);
}

/// A request of HTTP/1 that is not whole when its client is parted with is looked at by nobody, so that it can be asked elsewhere
/// without doing anything twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_meanwhile_gets_no_byte_of_an_answer() {
    let app = TestBackend::echo("app").await;
    let log = Files::new(&Ca::new("nobody"));
    let server = Server::start(&app, &log).await;
    let mut stream = server.connect("istio-http/1.1").await;
    stream.write_all(ASK).await.unwrap();
    let mut heard = vec![0; 64 * 1024];
    let count = stream.read(&mut heard).await.unwrap();
    assert!(heard[..count].starts_with(b"HTTP/1.1 200"));
    let (begin, end) = ASK.split_at(7);
    stream.write_all(begin).await.unwrap();
    server.becomes(identity(&server.new.workload(SERVER), &server.new.pem)).await;
    stream.write_all(end).await.unwrap();
    assert_eq!(rest(&mut stream).await.as_deref(), Some(&b""[..]));
    assert_eq!(app.served(), 1);
}

/// What is in flight of a client whose root is gone, or that is revoked, does not go on for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_cut() {
    let app = TestBackend::echo("app").await;
    let log = Files::new(&Ca::new("nobody"));
    let server = Server::start(&app, &log).await;
    let mut http1 = server.connect("istio-http/1.1").await;
    http1.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
    let mut http2 = server.connect("istio-h2").await;
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")];
    http2.write_all(&[hello(), headers(1, 0, &fields)].concat()).await.unwrap();
    eventually("both have come", || async { (app.served() == 2).then_some(()) }).await;
    server.believes_the_new_one().await;
    for stream in [&mut http1, &mut http2] {
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "the connection is still there");
    }
    let cause =
        "2 x no answer DC: the connection is not admitted any more: its certificate is not believed any more";
    eventually("it is told why", || async {
        server.proxy.page("/errors").await.contains(cause).then_some(())
    })
    .await;
}

/// A request of HTTP/2.
pub(crate) fn request(number: u32) -> Vec<u8> {
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")];
    headers(number, END_STREAM, &fields)
}

/// The next frame of that kind.
pub(crate) async fn next(stream: &mut TlsStream<TcpStream>, unread: &mut Vec<u8>, kind: u8) -> Frame {
    loop {
        while let Some(frame) = Frame::take(unread) {
            if frame.kind == kind {
                return frame;
            }
        }
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(unread)).await.expect("something comes");
        assert_ne!(read.unwrap(), 0, "the connection has ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http2_is_told_to_ask_elsewhere() {
    let app = TestBackend::echo("app").await;
    let log = Files::new(&Ca::new("nobody"));
    let server = Server::start(&app, &log).await;
    let mut stream = server.connect("istio-h2").await;
    stream.write_all(&[hello(), request(1)].concat()).await.unwrap();
    let unread = &mut Vec::new();
    assert_eq!(next(&mut stream, unread, kind::HEADERS).await.stream, 1);
    server.believes_the_new_one().await;
    // It is told before anything is refused, and by an end that is none yet: what is on its way is not lost.
    let told = next(&mut stream, unread, kind::GOAWAY).await;
    assert_eq!(told.payload[..8], [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    stream.write_all(&request(3)).await.unwrap();
    let refused = next(&mut stream, unread, kind::RST_STREAM).await;
    assert_eq!((refused.stream, &*refused.payload), (3, &REFUSED_STREAM[..]));
    // It does not answer the PING that came with it: it is not waited for.
    rest(&mut stream).await;
    assert_eq!(app.served(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_answers_the_last_ping_is_parted_with_at_once() {
    let app = TestBackend::echo("app").await;
    let log = Files::new(&Ca::new("nobody"));
    let server = Server::start(&app, &log).await;
    let mut stream = server.connect("istio-h2").await;
    stream.write_all(&hello()).await.unwrap();
    let unread = &mut Vec::new();
    next(&mut stream, unread, kind::SETTINGS).await;
    server.believes_the_new_one().await;
    let ping = next(&mut stream, unread, kind::PING).await;
    stream.write_all(&frame(kind::PING, support::frames::ACK, 0, &ping.payload)).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(1), rest(&mut stream)).await;
    ended.expect("it is not waited for its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_made_anew_when_another_authority_vouches_for_us() {
    let (old, new) = (Ca::new("mesh"), Ca::new("mesh, renewed"));
    let app = TestBackend::echo("app").await;
    let server = server(&old, &app, false).await;
    let client = client(files(&old, &old.workload(CLIENT)), server.proxy.listener(0), SERVER).await;
    let hashes = async || {
        let mut hashes = Vec::new();
        for index in [0, 1] {
            let answer = Request::get("/").send(client.proxy.listener(index)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let told = answer.json()["headers"]["x-forwarded-client-cert"][0].as_str().unwrap().to_owned();
            hashes.extend(told.split(';').find(|part| part.starts_with("Hash=")).map(str::to_owned));
        }
        hashes
    };
    let both = format!("{}{}", old.pem, new.pem);
    for side in [&server, &client] {
        side.renewed(|files| files.write("roots.pem", &both)).await;
    }
    let before = hashes().await;
    // What is connected stays connected when the same authority renews a certificate.
    client.renewed(|files| files.show(&old.workload(CLIENT))).await;
    assert_eq!(hashes().await, before);
    client.renewed(|files| files.show(&new.workload(CLIENT))).await;
    let after = hashes().await;
    assert!(after.iter().zip(&before).all(|(after, before)| after != before), "{after:?} {before:?}");
    // By then nobody shows the old one any more.
    let only_the_new = |files: &Files| {
        files.show(&new.workload(SERVER));
        files.write("roots.pem", &new.pem);
    };
    server.renewed(only_the_new).await;
    assert_eq!(hashes().await, after);
}

/// As the root of a mesh is that was made anew: whoever the one before signed is untrusted, and not malformed.
#[tokio::test(flavor = "multi_thread")]
async fn another_root_of_the_same_name_is_unknown() {
    let (ca, before) = (Ca::new("mesh"), Ca::new("mesh"));
    let app = TestBackend::echo("app").await;
    let files = files(&ca, &ca.workload(SERVER));
    let log = files.path().join("log");
    let server = server_with(files.identity().into(), &app, false, &log).await.ready().await;
    let config = believing(&ca, Some(&before.workload(CLIENT)), &["istio-http/1.1"]);
    // In TLS 1.3 a client hears of it when it reads.
    let stream = handshake(config, server.listener(0), "outbound_.80_._.a.b").await;
    eventually("it is counted", || async {
        let reason = [("reason", "certificate_unknown_issuer")];
        server.metric("weft_listener_tls_handshake_failures_total", &reason).await
    })
    .await;
    drop(stream);
    files.show(&before.workload(SERVER));
    server.page_has("/findings", "does not lead to the roots: none of them has signed it").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_shows_besides_its_chain_does_not_part_it() {
    let (ca, other) = (Ca::new("mesh"), Ca::new("other"));
    let app = TestBackend::echo("app").await;
    let server = server(&ca, &app, false).await;
    server.renewed(|files| files.write("roots.pem", &format!("{}{}", ca.pem, other.pem))).await;
    let mut shown = ca.workload(CLIENT);
    let unrelated = other.issue("old", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    shown.chain.push_str(&unrelated.chain);
    let config = believing(&ca, Some(&shown), &["istio-http/1.1"]);
    let mut stream = handshake(config, server.proxy.listener(0), "outbound_.80_._.a.b").await.unwrap();
    for roots in [&ca.pem, &format!("{}{}", ca.pem, other.pem), &ca.pem] {
        stream.write_all(ASK).await.unwrap();
        let mut heard = vec![0; 64 * 1024];
        let count = stream.read(&mut heard).await.unwrap();
        assert!(heard[..count].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&heard[..count]));
        server.renewed(|files| files.write("roots.pem", roots)).await;
    }
    stream.write_all(ASK).await.unwrap();
    assert!(stream.read(&mut [0; 64]).await.unwrap() > 0);
}
