//! Bodies over HTTP/2 that wait for an upstream, or for a client.

use std::cell::Cell;

use super::*;

/// An upstream that takes a connection and says nothing, a mesh with it, and one connection to it at most.
pub(super) async fn silent() -> (ScriptedBackend, Mesh) {
    let silent = ScriptedBackend::new(|peer| async move {
        let _open = peer;
        std::future::pending::<()>().await;
    })
    .await;
    let pool = "  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}";
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", silent.address)
        .with("rule.yaml", &destination_rule("catalog", pool));
    (silent, mesh)
}

/// However many streams a connection has, they have together what a connection may hold whatever others do.
#[tokio::test(flavor = "multi_thread")]
async fn small_bodies_of_many_streams_are_bounded_like_large_ones() {
    let (_silent, mesh) = silent().await;
    let limits = [("unread_bytes_total_max", 100_000)];
    let proxy = TestProxy::of(mesh).limits(&limits).listen("catalog", 8000).ready().await;
    let post: [(&[u8], &[u8]); 4] =
        [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"catalog")];
    let body = |stream| frames::data(stream, 0, &[b'x'; 5_000]);
    let mut many = frames::Client::connect(proxy.listener(0)).await;
    many.send(&frames::hello()).await;
    for stream in (1..80).step_by(2) {
        many.send(&frames::headers(stream, 0, &post)).await;
        many.send(&body(stream)).await;
    }
    let refused =
        |client: &frames::Client| client.streams.values().filter(|stream| stream.status == Some(503)).count();
    // One has the connection, and twenty fit.
    while refused(&many) < 19 {
        assert!(many.read(support::PATIENCE).await, "{:?}", many.goaway);
    }
    proxy.reached("unread_bytes_total_max").await;
    let unread = || async { proxy.metric("weft_unread_bytes", &[]).await.expect("it is counted") };
    assert!(unread().await <= 100_000.0, "{}", unread().await);
    // Another has its own 16 KiB beside them, for three bodies and for no fourth.
    let mut other = frames::Client::connect(proxy.listener(0)).await;
    other.send(&frames::hello()).await;
    for stream in (1..8).step_by(2) {
        other.send(&frames::headers(stream, 0, &post)).await;
        other.send(&body(stream)).await;
    }
    while refused(&other) < 1 {
        assert!(other.read(support::PATIENCE).await, "{:?}", other.goaway);
    }
    assert_eq!(refused(&other), 1);
    assert!((110_000.0..=116_384.0).contains(&unread().await), "{}", unread().await);
}

/// What comes between two looks at memory is bounded by what is free.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_take_no_memory_that_is_not_there_though_all_of_them_come_at_once() {
    let (_silent, mesh) = silent().await;
    let directory = mesh.directory().display().to_string();
    let arguments =
        ["--config", &directory, "--namespace", "shop", "--listen", "127.0.0.1:0=catalog.shop:8000"];
    // As much may be held as there is.
    let limits = ["memory_bytes_max=100000000", "unread_bytes_total_max=100000000"];
    let limits = ["--limit", limits[0], "--limit", limits[1], "--workers", "1"];
    let weft = Weft::run(&binary::weft(), &[&arguments[..], &limits].concat()).await;
    let (_clients, sent) = fill(weft.listener(0), 40);
    assert!(sent > 300_000_000);
    eventually("most of it is refused", || async {
        // The container may have a ninth more, the program itself among it.
        assert!(memory(weft.process()) < 111_000_000, "{} bytes", memory(weft.process()));
        let limit = [("limit", "unread_bytes_total_max")];
        weft.metric("weft_limit_reached_total", &limit).await.filter(|refused| *refused > 800.0)
    })
    .await;
}

/// A client that has the largest windows and reads nothing has weft keep no more of its answers than the room there is for all.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_a_client_has_windows_for_and_does_not_read_are_bounded_together() {
    const STREAMS: u32 = 100;
    let endless = ScriptedBackend::new(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
        for _ in 0..10_000 {
            peer.send(vec![b'a'; 100_000]).await;
        }
    })
    .await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", endless.address);
    let directory = mesh.directory().display().to_string();
    let arguments =
        ["--config", &directory, "--namespace", "shop", "--listen", "127.0.0.1:0=catalog.shop:8000"];
    let limits = ["--limit", "memory_bytes_max=100000000", "--workers", "1"];
    let weft = Weft::run(&binary::weft(), &[&arguments[..], &limits].concat()).await;
    let window = frames::frame(4, 0, 0, &[&4_u16.to_be_bytes()[..], &0x7fff_ffff_u32.to_be_bytes()].concat());
    let more = frames::frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes());
    let get: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"catalog")];
    let mut client = frames::Client::connect(weft.listener(0)).await;
    client.send(&[frames::hello(), window, more].concat()).await;
    for stream in (1..2 * STREAMS).step_by(2) {
        client.send(&frames::headers(stream, 1, &get)).await;
    }
    let untaken = || async { weft.metric("weft_untaken_bytes", &[]).await.unwrap_or(0.0) };
    eventually("all wait", || async { (endless.accepted() >= u64::from(STREAMS)).then_some(()) }).await;
    let least = f64::from(STREAMS) * 4096.0;
    let before = Cell::new(0.0);
    eventually("each has something here, and no more comes", || async {
        let bytes = untaken().await;
        (bytes >= least && before.replace(bytes) == bytes).then_some(())
    })
    .await;
    // An eighth of ninety millions, and a piece for each beside it.
    assert!(untaken().await < 11_250_000.0 + 2.0 * least, "{}", untaken().await);
    drop(client);
    eventually("nothing is held", || async { (untaken().await == 0.0).then_some(()) }).await;
}
