//! Bytes that nobody understands: passed on both ways, by weight, for as long as anybody has something to say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::{TcpDestinations, TcpWeightedCluster};
use support::declared::{any, chain, cluster, listener, log, tcp, to_http, to_tcp, update};
use support::{Mesh, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A server that answers all it was sent, once the client has said that there is no more.
async fn echo() -> (SocketAddr, JoinHandle<()>) {
    serve(|mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("it reads");
        stream.write_all(&all).await.expect("it writes");
    })
    .await
}

async fn serve<F>(each: impl Fn(TcpStream) -> F + Send + 'static) -> (SocketAddr, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = server.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = server.accept().await {
            tokio::spawn(each(stream));
        }
    });
    (address, task)
}

/// A proxy with one listener that passes bytes on to these servers, as the cluster `c`.
async fn proxy_to(addresses: &[SocketAddr]) -> TestProxy {
    let resources = update(vec![listener("tcp", vec![to_tcp(any(), "c")])], [cluster("c", addresses)]);
    TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await
}

async fn connect(proxy: &TestProxy) -> TcpStream {
    TcpStream::connect(proxy.listener(0)).await.expect("the proxy accepts")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_ends_by_itself_and_is_counted() {
    let (address, _server) = echo().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("log");
    let format =
        "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST% %UPSTREAM_CLUSTER% %PROTOCOL%";
    let filter = tcp(TcpDestinations::Cluster("c".into()), |proxy| proxy.access_log = log(&file, format));
    let resources = update(vec![listener("tcp", vec![chain(any(), filter)])], [cluster("c", &[address])]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    // More than all the buffers on the way hold.
    let said: Vec<u8> =
        (0..20_000_000_u32).map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]).collect();
    let mut client = connect(&proxy).await;
    client.write_all(&said).await.expect("it is taken");
    client.shutdown().await.expect("the end is told");
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.expect("it is answered");
    assert!(heard == said, "{} bytes of {}", heard.len(), said.len());
    let labels = [("request_protocol", "tcp"), ("reporter", "source"), ("response_flags", "-")];
    let bytes = f64::from(20_000_000_u32);
    let expected = [
        ("istio_tcp_connections_opened_total", 1.0),
        ("istio_tcp_connections_closed_total", 1.0),
        ("istio_tcp_received_bytes_total", bytes),
        ("istio_tcp_sent_bytes_total", bytes),
    ];
    for (name, value) in expected {
        eventually(name, || async { (proxy.metric(name, &labels).await == Some(value)).then_some(()) }).await;
    }
    let line = eventually("the log has its line", || async {
        std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'))
    });
    assert_eq!(line.await, format!("- 20000000 20000000 {address} c -\n"));
}

/// More connections than a worker has pipes, both ways at once, and nobody reads before he has to.
#[tokio::test(flavor = "multi_thread")]
async fn many_with_much_to_say_at_once_are_all_passed_on_whole() {
    const CONNECTIONS: u8 = 70;
    const SAID_BYTES: u32 = 600_000;
    let (address, _server) = serve(|stream| async move {
        let (mut reader, mut writer) = stream.into_split();
        tokio::io::copy(&mut reader, &mut writer).await.expect("it echoes");
    })
    .await;
    let proxy = proxy_to(&[address]).await;
    let talks = (0..CONNECTIONS).map(|number| {
        let connecting = TcpStream::connect(proxy.listener(0));
        tokio::spawn(async move {
            let said: Vec<u8> = (0..SAID_BYTES).map(|at| at.to_le_bytes()[1] ^ number).collect();
            let (mut reader, mut writer) = connecting.await.expect("the proxy accepts").into_split();
            let saying = {
                let said = said.clone();
                tokio::spawn(async move { writer.write_all(&said).await.expect("it is taken") })
            };
            let mut heard = Vec::new();
            reader.read_to_end(&mut heard).await.expect("it is answered");
            saying.await.expect("it was said");
            assert!(heard == said, "{} bytes of {}", heard.len(), said.len());
        })
    });
    for talk in talks.collect::<Vec<_>>() {
        talk.await.expect("it comes back whole");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_speak_while_the_client_listens() {
    let (address, _server) = serve(|mut stream| async move {
        stream.write_all(b"hello\n").await.expect("it writes");
        let mut said = [0; 3];
        stream.read_exact(&mut said).await.expect("it reads");
        stream.write_all(&said).await.expect("it writes");
    })
    .await;
    let proxy = proxy_to(&[address]).await;
    let mut client = connect(&proxy).await;
    let mut heard = [0; 6];
    client.read_exact(&mut heard).await.expect("a greeting");
    assert_eq!(&heard, b"hello\n");
    client.write_all(b"bye").await.expect("it is taken");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.expect("the end");
    assert_eq!(rest, b"bye");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_reset_is_told_by_a_reset() {
    let (address, _server) = serve(|mut stream| async move {
        stream.write_all(b"half").await.expect("it writes");
        let mut said = [0; 4];
        stream.read_exact(&mut said).await.expect("it reads");
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("it is set");
    })
    .await;
    let proxy = proxy_to(&[address]).await;
    let mut client = connect(&proxy).await;
    let mut heard = [0; 4];
    client.read_exact(&mut heard).await.expect("half of it");
    client.write_all(b"over").await.expect("it is taken");
    let end = client.read(&mut heard).await.expect_err("a reset");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Writing finds the reset first, and reading would find an end.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_reset_while_he_has_more_to_say_is_told_by_a_reset() {
    let vanish = Arc::<Notify>::default();
    let vanishes = vanish.clone();
    let (address, _server) = serve(move |mut stream| {
        let vanishes = vanishes.clone();
        async move {
            stream.write_all(b"half").await.expect("it writes");
            vanishes.notified().await;
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("it is set");
        }
    })
    .await;
    let proxy = proxy_to(&[address]).await;
    for _ in 0..5 {
        let mut client = connect(&proxy).await;
        let mut heard = [0; 4];
        client.read_exact(&mut heard).await.expect("half of it");
        // Until nobody on the way takes any more. Who would write after that would find the reset himself.
        let said = [0; 64 * 1024];
        while tokio::time::timeout(Duration::from_millis(200), client.write(&said)).await.is_ok() {}
        vanish.notify_one();
        let end = client.read(&mut heard).await.expect_err("half an answer is no whole one");
        assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_vanishes_after_one_side_has_ended_is_told_by_a_reset() {
    // One that answers half when the client has said all, and vanishes.
    let vanish = Arc::<Notify>::default();
    let vanishes = vanish.clone();
    let (address, _server) = serve(move |mut stream| {
        let vanishes = vanishes.clone();
        async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.expect("it reads");
            stream.write_all(b"half").await.expect("it writes");
            vanishes.notified().await;
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("it is set");
        }
    })
    .await;
    let proxy = proxy_to(&[address]).await;
    let mut client = connect(&proxy).await;
    client.write_all(b"all").await.expect("it is taken");
    client.shutdown().await.expect("the end is told");
    let mut heard = [0; 4];
    client.read_exact(&mut heard).await.expect("half an answer");
    assert_eq!(&heard, b"half");
    vanish.notify_one();
    let end = client.read(&mut heard).await.expect_err("half an answer is no whole one");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);

    // One that has said all, hears a part, and vanishes.
    let (address, _server) = serve(|mut stream| async move {
        stream.write_all(b"all").await.expect("it writes");
        stream.shutdown().await.expect("the end is told");
        let mut part = [0; 4];
        stream.read_exact(&mut part).await.expect("it reads");
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("it is set");
    })
    .await;
    let proxy = proxy_to(&[address]).await;
    let mut client = connect(&proxy).await;
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.expect("all of it");
    assert_eq!(heard, b"all");
    client.write_all(b"part").await.expect("it is taken");
    let is_told =
        || async { client.take_error().expect("it can be asked").or_else(|| client.try_write(b"x").err()) };
    let told = eventually("it is told that nobody hears it", is_told).await;
    assert!(
        matches!(told.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_drawn_by_weight() {
    let name = |text: &'static [u8]| {
        serve(move |mut stream| async move { stream.write_all(text).await.expect("it writes") })
    };
    let ((one, _one), (two, _two)) = (name(b"1").await, name(b"2").await);
    let weighted = |cluster: &str, weight| TcpWeightedCluster { cluster: cluster.into(), weight };
    let destinations = TcpDestinations::Weighted(vec![weighted("one", 1), weighted("two", 3)]);
    let chains = vec![chain(any(), tcp(destinations, |_| {}))];
    let resources = update(vec![listener("tcp", chains)], [cluster("one", &[one]), cluster("two", &[two])]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    let mut twos = 0;
    for _ in 0..400 {
        let mut heard = Vec::new();
        connect(&proxy).await.read_to_end(&mut heard).await.expect("a name");
        twos += u32::from(heard == b"2");
    }
    // 300 within five standard deviations.
    assert!((257..=343).contains(&twos), "{twos}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_a_connection() {
    let (address, _server) = echo().await;
    let idle = |proxy: &mut config::TcpProxy| proxy.idle_timeout = Some(Duration::from_millis(200));
    let filter = tcp(TcpDestinations::Cluster("c".into()), idle);
    let resources = update(vec![listener("tcp", vec![chain(any(), filter)])], [cluster("c", &[address])]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    let mut client = connect(&proxy).await;
    client.write_all(b"said").await.expect("it is taken");
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.expect("the end");
    assert_eq!(heard, b"");
}

/// Whatever passes on it, and while the upstream is still being connected to. Envoy's flag says so, and its termination details
/// do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_when_it_has_been_open_for_as_long_as_it_may() {
    let (address, _server) = serve(|stream| async move {
        let (mut reader, mut writer) = stream.into_split();
        // It ends as the proxy likes.
        drop(tokio::io::copy(&mut reader, &mut writer).await);
    })
    .await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("log");
    let format = "%RESPONSE_FLAGS% %CONNECTION_TERMINATION_DETAILS% %UPSTREAM_CLUSTER%";
    let filter = tcp(TcpDestinations::Cluster("c".into()), |proxy| {
        proxy.max_connection_duration = Some(Duration::from_millis(300));
        proxy.access_log = log(&file, format);
    });
    let resources = update(vec![listener("tcp", vec![chain(any(), filter)])], [cluster("c", &[address])]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    let mut client = connect(&proxy).await;
    let talks = async {
        let mut heard = [0; 1];
        while client.write_all(b"x").await.is_ok() && client.read(&mut heard).await.is_ok_and(|read| read > 0)
        {
        }
    };
    tokio::time::timeout(support::PATIENCE, talks).await.expect("it is closed in time");
    let line = eventually("the log has its line", || async {
        std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'))
    });
    assert_eq!(line.await, "DT - c\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_passed_on_is_closed_with_its_reason() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let mut full = cluster("full", &[gone]);
    full.0.circuit_breakers.max_connections = 0;
    let resources = update(
        ["gone", "none", "missing", "full"].map(|name| listener(name, vec![to_tcp(any(), name)])).into(),
        [cluster("gone", &[gone]), cluster("none", &[]), full],
    );
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    // By name.
    for (index, flag) in ["UO", "UF", "NC", "UH"].into_iter().enumerate() {
        let mut heard = Vec::new();
        let mut client = TcpStream::connect(proxy.listener(index)).await.expect("the proxy accepts");
        client.read_to_end(&mut heard).await.expect("the end");
        assert_eq!(heard, b"");
        let closed = "istio_tcp_connections_closed_total";
        eventually(flag, || async {
            (proxy.metric(closed, &[("response_flags", flag)]).await == Some(1.0)).then_some(())
        })
        .await;
    }
}

/// What watches HTTP connections for idleness does not lose one when a connection ends that it had let go.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_http_connection_is_closed_whatever_ends_before() {
    let (address, _server) = echo().await;
    let listeners =
        vec![listener("http", vec![to_http(any(), "c")]), listener("tcp", vec![to_tcp(any(), "c")])];
    let resources = update(listeners, [cluster("c", &[address])]);
    let settings = |settings: &mut weft::app::Settings| {
        settings.static_resources = resources;
        settings.limits.downstream_idle_time_max_ms = 2_000;
    };
    let proxy = TestProxy::of(Mesh::new()).set(settings).ready().await;
    let passed = TcpStream::connect(proxy.listener(1)).await.expect("the proxy accepts");
    let opened = "istio_tcp_connections_opened_total";
    eventually("it is passed on", || async { proxy.metric(opened, &[]).await.filter(|count| *count > 0.0) })
        .await;
    let mut idle = TcpStream::connect(proxy.listener(0)).await.expect("the proxy accepts");
    let active = "envoy_http_downstream_cx_active";
    eventually("it is served", || async { proxy.metric(active, &[]).await.filter(|count| *count > 0.0) })
        .await;
    drop(passed);
    let end = tokio::time::timeout(support::PATIENCE, idle.read(&mut [0; 1])).await;
    assert_eq!(end.expect("it is closed in time").expect("it ends well"), 0);
}
