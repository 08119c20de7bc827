//! What clients may do to TLS on the wire, at a gateway that is a process of its own: each is refused or ended by a rule that
//! has a name, in its time, and told in the metrics, in the logs and by `weft errors`. Somebody who behaves is served beside
//! them, and nothing is held for them afterwards.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use config::{ClientCertificates, DownstreamTls, FilterChain};
use support::declared::{any, cluster, listener, terminates, to_tcp, update};
use support::gateway::Edge;
use support::log::Line;
use support::tls::{Ca, certificate};
use support::{Log, Mesh, ScriptedBackend, TestBackend, TestProxy, Weft, binary, eventually};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion};

const HOST: &str = "a.example";

/// How long a client may take for a ClientHello, and for all of its handshake.
const TIME_MAX_MS: u64 = 1_000;

/// Time after which a connection has ended that breaks a rule. The clock of connections ticks once a second.
const ENDED_WITHIN: Duration = Duration::from_secs(6);

/// How often all of it happens at once, when it is about memory.
const AT_ONCE: usize = 20;

/// Bytes that a process may have more after all of that once more.
const GROWTH_MAX: usize = 4_000_000;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
const HALF_A_BODY: &[u8] = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000\r\n\r\nhalf";
const GARBAGE: &[u8] = &[0x67; 400];
/// A record as it should be, but that nobody has encrypted it.
const RECORD: &[u8] = &[
    23, 3, 3, 0, 32, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7,
];

static ONLY_12: [&SupportedProtocolVersion; 1] = [&TLS12];
static BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// A record that says it is longer than records are.
    OversizedRecord,
    /// A ClientHello that says it has 16 MiB.
    OversizedHello,
    /// A ClientHello in records of one byte, which are more than are looked at.
    TinyRecords,
    /// A third of a ClientHello, and no more.
    PartOfAHello,
    /// A ClientHello, and no more.
    OnlyAHello,
    /// A ClientHello and no TLS right behind it, which the TLS library does not look at before it hears more.
    HelloAndGarbage,
    /// A ClientHello, and no TLS when it was answered.
    GarbageForAnAnswer,
    /// After the handshake, no TLS.
    GarbageBehind,
    /// After the handshake, a record that cannot be read, in each version.
    CorruptRecord(&'static [&'static SupportedProtocolVersion]),
    /// The same in the middle of a request.
    CorruptInBody,
    /// The end of TLS in the middle of a request.
    LeavesInBody,
    /// HTTP in plain text.
    PlainHttp,
    /// The ClientHello of SSL 2.
    Ssl2,
}

/// What is counted of it, the beginning of its cause, and what the access log says of it.
type Told = (&'static str, &'static [(&'static str, &'static str)], &'static str, &'static str);

const NO_CHAIN: Told = (
    "envoy_listener_no_filter_chain_match",
    &[],
    "TCP NR: no filter chain takes the connection",
    " 0 NR filter_chain_not_found ",
);
const TOO_LONG: Told = (
    "weft_limit_reached_total",
    &[("limit", "first_bytes_max")],
    "TCP NR: what the client says first exceeds first_bytes_max",
    " 0 NR first_bytes_max ",
);
const BROKEN: &str = "weft_listener_tls_broken_total";
const FAILURES: &str = "weft_listener_tls_handshake_failures_total";
const TIMEOUT: Told = (
    FAILURES,
    &[("reason", "timeout")],
    "TCP NR: the handshake of TLS failed: timeout, by Gateway",
    " 0 NR timeout ",
);
const CORRUPT: &[(&str, &str)] = &[("reason", "corrupt_record")];

const TABLE: [(Does, Told); 14] = [
    (Does::OversizedRecord, NO_CHAIN),
    (Does::OversizedHello, TOO_LONG),
    (Does::TinyRecords, TOO_LONG),
    (
        Does::PartOfAHello,
        (
            "weft_limit_reached_total",
            &[("limit", "head_time_max_ms")],
            "TCP NR: what the client says first exceeds head_time_max_ms",
            " 0 NR head_time_max_ms ",
        ),
    ),
    (Does::OnlyAHello, TIMEOUT),
    (Does::HelloAndGarbage, TIMEOUT),
    (
        Does::GarbageForAnAnswer,
        (
            FAILURES,
            &[("reason", "malformed")],
            "TCP NR: the handshake of TLS failed: malformed, by Gateway",
            " 0 NR malformed ",
        ),
    ),
    (Does::GarbageBehind, (BROKEN, &[("reason", "malformed")], "TLS with the client broke: malformed", "")),
    (Does::CorruptRecord(&ONLY_12), (BROKEN, CORRUPT, "TLS with the client broke: corrupt_record", "")),
    (Does::CorruptRecord(&BOTH), (BROKEN, CORRUPT, "TLS with the client broke: corrupt_record", "")),
    (Does::CorruptInBody, (BROKEN, CORRUPT, "TLS with the client broke: corrupt_record", " 0 DC ")),
    (Does::LeavesInBody, ("istio_requests_total", &[("response_flags", "DC")], "DC", " 0 DC ")),
    (Does::PlainHttp, NO_CHAIN),
    (Does::Ssl2, NO_CHAIN),
];

struct Stage {
    weft: Weft,
    to: SocketAddr,
    ca: Ca,
    log: PathBuf,
    _mesh: Mesh,
    _backend: TestBackend,
}

/// A client that says nothing but what TLS says for it.
fn config(ca: &Ca, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_protocol_versions(versions);
    Arc::new(builder.with_root_certificates(ca.store()).with_no_client_auth())
}

fn name() -> ServerName<'static> {
    ServerName::try_from(HOST).unwrap()
}

fn hello(ca: &Ca) -> Vec<u8> {
    let mut hello = Vec::new();
    ClientConnection::new(config(ca, &BOTH), name()).unwrap().write_tls(&mut hello).unwrap();
    hello
}

impl Stage {
    async fn start() -> Stage {
        let ca = Ca::new("shop");
        let backend = TestBackend::echo("catalog").await;
        let edge = Edge::new().server(HOST, "mode: SIMPLE, credentialName: own").secret(
            "own",
            &ca.issue(HOST, |_| {}),
            None,
        );
        let mesh =
            Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
        let mesh = Log::configure(edge.of(mesh), "");
        let log = mesh.file("logs").join("access.log");
        let directory = mesh.directory().display().to_string();
        let times = ["head_time_max_ms", "tls_handshake_time_max_ms"];
        let [head, handshake] = times.map(|name| format!("{name}={TIME_MAX_MS}"));
        let arguments = ["--config", &directory, "--namespace", "shop", "--labels", "app=client"];
        let mode = ["--mode", "gateway", "--workers", "1", "--log", "info,weft=debug"];
        let limits = ["--limit", &head, "--limit", &handshake];
        let weft = Weft::run(&binary::weft(), &[&arguments[..], &mode, &limits].concat()).await;
        Stage { weft, to: edge.address, ca, log, _mesh: mesh, _backend: backend }
    }

    async fn secured(&self, versions: &[&'static SupportedProtocolVersion]) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.to).await.unwrap();
        TlsConnector::from(config(&self.ca, versions)).connect(name(), stream).await.unwrap()
    }

    async fn logged(&self, wanted: &str) -> usize {
        let text = tokio::fs::read_to_string(&self.log).await.unwrap_or_default();
        text.lines().filter(|line| line.contains(wanted)).count()
    }

    /// How often it was counted, named as a cause, and logged.
    async fn told(&self, (metric, labels, cause, logged): Told) -> (f64, u64, usize) {
        let counted = self.weft.metric(metric, labels).await.unwrap_or(0.0);
        let causes = self.weft.json("/errors?format=json").await;
        let causes = causes["causes"].as_array().unwrap().iter();
        let of_cause = causes.filter(|it| it["cause"].as_str().unwrap().contains(cause));
        (counted, of_cause.filter_map(|it| it["count"].as_u64()).sum(), self.logged(logged).await)
    }
}

impl Does {
    /// What a client says that makes no handshake.
    fn bytes(self, ca: &Ca) -> Option<Vec<u8>> {
        let hello = || hello(ca);
        Some(match self {
            Does::OversizedRecord => [&[22, 3, 1, 0xff, 0xff, 1, 0][..], GARBAGE].concat(),
            Does::OversizedHello => [&[22, 3, 1, 2, 0, 1, 0xff, 0xff, 0xff, 3, 3][..], GARBAGE].concat(),
            Does::TinyRecords => {
                let message = [&[1, 0, 0xf0, 0][..], &[3; 0xf000]].concat();
                message.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect()
            }
            Does::PartOfAHello => hello()[..80].to_vec(),
            Does::OnlyAHello | Does::GarbageForAnAnswer => hello(),
            Does::HelloAndGarbage => [&hello(), GARBAGE].concat(),
            Does::PlainHttp => GET.to_vec(),
            // Its length, its type, its version, one cipher suite, no session, 16 bytes of challenge.
            Does::Ssl2 => [&[0x80, 28, 1, 0, 2, 0, 3, 0, 0, 0, 16, 1, 0, 0x80][..], &[7; 16]].concat(),
            Does::GarbageBehind | Does::CorruptRecord(_) | Does::CorruptInBody | Does::LeavesInBody => {
                return None;
            }
        })
    }

    /// Does it, and waits until the connection has ended: by an alert and an end, or by a reset.
    async fn happen(self, stage: &Stage) {
        let mut stream = match self.bytes(&stage.ca) {
            Some(bytes) => {
                let mut stream = TcpStream::connect(stage.to).await.unwrap();
                // The end may come before all is said.
                let _ = stream.write_all(&bytes).await;
                if self == Does::GarbageForAnAnswer {
                    stream.readable().await.unwrap();
                    let _ = stream.write_all(GARBAGE).await;
                }
                stream
            }
            None => self.behind(stage).await,
        };
        let mut heard = Vec::new();
        let ended = tokio::time::timeout(ENDED_WITHIN, stream.read_to_end(&mut heard)).await;
        assert!(ended.is_ok(), "{self:?}: the connection is still there");
        assert!(!String::from_utf8_lossy(&heard).contains("HTTP/1.1 200"), "{self:?}");
    }

    /// What is done behind a handshake.
    async fn behind(self, stage: &Stage) -> TcpStream {
        let versions = if let Does::CorruptRecord(versions) = self { versions } else { &BOTH };
        let mut stream = stage.secured(versions).await;
        if matches!(self, Does::CorruptInBody | Does::LeavesInBody) {
            stream.write_all(HALF_A_BODY).await.unwrap();
            stream.flush().await.unwrap();
            // What comes together with a record that cannot be read is not looked at.
            eventually("a request is on its way", || async {
                let clusters = stage.weft.page("/clusters").await;
                let mut active = clusters.lines().filter(|line| line.contains("::rq_active::"));
                active.any(|line| !line.ends_with("::0")).then_some(())
            })
            .await;
        }
        if self == Does::LeavesInBody {
            stream.shutdown().await.unwrap();
        }
        let (mut stream, _) = stream.into_inner();
        let said = if self == Does::GarbageBehind { GARBAGE } else { RECORD };
        if self != Does::LeavesInBody {
            stream.write_all(said).await.unwrap();
        }
        stream
    }
}

/// Asks, and reads the answer's head.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    stream.write_all(GET).await.unwrap();
    stream.flush().await.unwrap();
    let mut heard = Vec::new();
    // The backend's answer is JSON that ends so.
    while !heard.ends_with(b"}") {
        let read = tokio::time::timeout(support::PATIENCE, stream.read_buf(&mut heard)).await;
        assert!(read.unwrap().unwrap() > 0, "{}", String::from_utf8_lossy(&heard));
    }
    assert!(heard.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&heard));
}

/// Writes one byte at a time, each as a segment of its own.
struct Trickling(TcpStream);

impl AsyncRead for Trickling {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Trickling {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &bytes[..bytes.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Bytes of memory that the process has of its own.
fn memory(weft: &Weft) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", weft.process())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_do_to_tls_is_ended_and_told() {
    let stage = Stage::start().await;
    let mut bystander = stage.secured(&BOTH).await;
    ask(&mut bystander).await;
    let stream = TcpStream::connect(stage.to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let connecting = TlsConnector::from(config(&stage.ca, &BOTH)).connect(name(), Trickling(stream));
    ask(&mut connecting.await.unwrap()).await;
    for (does, told) in TABLE {
        let before = stage.told(told).await;
        does.happen(&stage).await;
        let is_logged = usize::from(!told.3.is_empty());
        let what = format!("{does:?} is told once: {told:?}");
        eventually(&what, || async {
            let now = stage.told(told).await;
            let is_told = now.0 == before.0 + 1.0 && now.1 == before.1 + 1;
            (is_told && (is_logged == 0 || now.2 == before.2 + 1)).then_some(())
        })
        .await;
        ask(&mut bystander).await;
        ask(&mut stage.secured(&BOTH).await).await;
    }
    let logged = tokio::fs::read_to_string(&stage.log).await.unwrap();
    let slow = logged.lines().find(|line| line.contains(TIMEOUT.3)).map(Line::parse).unwrap();
    assert!(slow.field("duration").parse::<u64>().unwrap() >= TIME_MAX_MS / 2, "{slow:?}");
    let log = stage.weft.log();
    for said in ["a handshake of TLS failed", "reason=\"malformed\"", "TLS with the client broke: "] {
        assert!(log.contains(said), "{said}: {log}");
    }
    let errors = tokio::process::Command::new(binary::weft())
        .args(["errors", "--admin", &stage.weft.admin().to_string()])
        .output()
        .await
        .unwrap();
    let errors = String::from_utf8_lossy(&errors.stdout).into_owned();
    for (_, (_, _, cause, _)) in TABLE {
        assert!(errors.contains(cause), "{cause}: {errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_held_for_who_broke_tls() {
    let stage = Arc::new(Stage::start().await);
    let mut bystander = stage.secured(&BOTH).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut together = JoinSet::new();
        for (does, _) in TABLE.iter().cycle().take(AT_ONCE * TABLE.len()) {
            let (stage, does) = (stage.clone(), *does);
            together.spawn(async move { does.happen(&stage).await });
        }
        while let Some(ended) = together.join_next().await {
            ended.unwrap();
        }
        ask(&mut bystander).await;
        eventually("only the bystander is left", || async {
            (stage.weft.metric("weft_worker_connections", &[]).await == Some(1.0)).then_some(())
        })
        .await;
        held.push(memory(&stage.weft));
    }
    println!("{} connections each time, then {held:?} bytes", AT_ONCE * TABLE.len());
    // What was needed at once may stay with the process; the same again needs no more.
    assert!(held[3] < held[1] + GROWTH_MAX, "{held:?}");
}

/// Where bytes are passed on, a record that cannot be read is no end of what was said: the upstream sees a reset.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_behind_tls_that_breaks_end_by_a_reset() {
    let ca = Ca::new("shop");
    let (says, mut said) = tokio::sync::mpsc::unbounded_channel();
    let upstream = ScriptedBackend::new(move |mut peer| {
        let says = says.clone();
        async move {
            let mut heard = Vec::new();
            let ended = peer.stream.read_to_end(&mut heard).await;
            says.send((heard, ended.map_err(|error| error.kind()))).unwrap();
        }
    })
    .await;
    let tls =
        DownstreamTls { forwards_certificate: false, ..terminates("own", ClientCertificates::NotAsked, &[]) };
    let chain = FilterChain { tls: Some(Arc::new(tls)), ..to_tcp(any(), "bytes") };
    let mut resources = update(vec![listener("edge", vec![chain])], [cluster("bytes", &[upstream.address])]);
    resources.secrets = vec![certificate("own", &ca.issue(HOST, |_| {}))];
    let start = TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources);
    let proxy = start.ready().await;
    let mut hear = async || tokio::time::timeout(support::PATIENCE, said.recv()).await.unwrap().unwrap();
    for breaks in [false, true] {
        let stream = TcpStream::connect(proxy.listener(0)).await.unwrap();
        let mut stream = TlsConnector::from(config(&ca, &BOTH)).connect(name(), stream).await.unwrap();
        stream.write_all(b"half").await.unwrap();
        if breaks {
            stream.flush().await.unwrap();
            let (mut stream, _) = stream.into_inner();
            stream.write_all(RECORD).await.unwrap();
            let (heard, ended) = hear().await;
            assert!(heard == b"half" || heard.is_empty(), "{heard:?}");
            assert_eq!(ended, Err(io::ErrorKind::ConnectionReset));
        } else {
            stream.shutdown().await.unwrap();
            assert_eq!(hear().await, (b"half".to_vec(), Ok(4)));
        }
    }
    eventually("it is counted", || async { proxy.metric(BROKEN, CORRUPT).await }).await;
    let errors = proxy.page("/errors").await;
    assert!(errors.contains("TCP DPE: corrupt record"), "{errors}");
}
