//! What requests carry that are not answered yet, and answers that nobody reads: all together is bounded, and nobody keeps the
//! room by holding still.

use std::net::{Ipv4Addr, SocketAddr};

use support::mesh::destination_rule;
use support::{Mesh, Request, TestBackend, TestProxy, eventually, frames};

const ENHANCE_YOUR_CALM: u32 = 11;

/// A proxy with these limits, of a backend that never answers `/wait`, `/large` with a head of 70 KB, and
/// `/text` with a body.
async fn proxy(limits: &'static [(&'static str, u64)]) -> (TestProxy, TestBackend, SocketAddr) {
    proxy_with(limits, "  trafficPolicy: {}").await
}

/// The same with this rule for the backend.
async fn proxy_with(
    limits: &'static [(&'static str, u64)],
    pool: &str,
) -> (TestProxy, TestBackend, SocketAddr) {
    let backend = TestBackend::new(|request| async move {
        if request.uri().path() == "/wait" {
            std::future::pending::<()>().await;
        }
        let bytes = if request.uri().path() == "/large" { 70_000 } else { 0 };
        let answer = http::Response::builder().header("x-long", "a".repeat(bytes));
        let text = if request.uri().path() == "/text" { "ok" } else { "" };
        answer.body(http_body_util::Full::from(text)).expect("an answer")
    })
    .await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    // To the same, and the rule is not for it.
    let mesh = mesh.service("orders", "http/8000").endpoint("orders", "http", "v1", backend.address);
    let mesh = mesh.with("rule.yaml", &destination_rule("catalog", pool));
    let proxy =
        TestProxy::of(mesh).limits(limits).listen("catalog", 8000).listen("orders", 8000).ready().await;
    let to = proxy.listener(0);
    (proxy, backend, to)
}

/// A request on this stream, with a field of so many bytes.
fn get(stream: u32, path: &str, bytes: usize) -> Vec<u8> {
    let long = vec![b'a'; bytes];
    let fields: [(&[u8], &[u8]); 5] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", path.as_bytes()),
        (b":authority", b"catalog"),
        (b"x-long", &long),
    ];
    frames::headers(stream, frames::END_STREAM, &fields)
}

/// The heads of requests that wait for their answers.
#[tokio::test(flavor = "multi_thread")]
async fn heads_of_requests_in_flight_take_no_more_memory_than_they_may() {
    let (proxy, _backend, to) = proxy(&[("request_head_bytes_total_max", 200_000)]).await;
    let mut greedy = frames::Client::connect(to).await;
    greedy.send(&frames::hello()).await;
    for number in 0..30 {
        greedy.send(&get(2 * number + 1, "/wait", 10_000)).await;
    }
    assert!(greedy.read_to_end(59, support::PATIENCE).await);
    assert_eq!(greedy.streams[&59].status, Some(503), "{:?}", greedy.goaway);
    assert_eq!(greedy.streams.get(&1).and_then(|stream| stream.status), None, "it waits");
    proxy.reached("request_head_bytes_total_max").await;
    let errors = proxy.page("/errors").await;
    assert!(errors.contains("request_head_bytes_total_max 200000 of this process"), "{errors}");
    // A usual head is not concerned; nor is one of somebody who carries little.
    assert_eq!(Request::get("/").send(to).await.status, 200);
    let mut modest = frames::Client::connect(to).await;
    modest.send(&[frames::hello(), get(1, "/", 10_000)].concat()).await;
    assert!(modest.read_to_end(1, support::PATIENCE).await);
    assert_eq!(modest.streams[&1].status, Some(200));
    // Whoever carries more than may be had whatever others do is not refused for one who carries far more.
    modest.send(&[get(3, "/wait", 10_000), get(5, "/", 10_000)].concat()).await;
    assert!(modest.read_to_end(5, support::PATIENCE).await);
    assert_eq!(modest.streams[&5].status, Some(200), "{:?}", modest.goaway);
    while !greedy.closed {
        assert!(greedy.read(support::PATIENCE).await, "whoever carries most makes room");
    }
    assert_eq!(greedy.goaway.unwrap_or(ENHANCE_YOUR_CALM), ENHANCE_YOUR_CALM);
    // What was carried is let go.
    for number in 0..10 {
        modest.send(&get(2 * number + 7, "/wait", 10_000)).await;
    }
    modest.send(&get(27, "/", 10_000)).await;
    assert!(modest.read_to_end(27, support::PATIENCE).await);
    assert_eq!(modest.streams[&27].status, Some(200));
}

/// A cookie may come in many fields, each of which takes room, and few bytes.
#[tokio::test(flavor = "multi_thread")]
async fn cookies_count_as_the_fields_that_came() {
    let limits = &[("request_head_bytes_total_max", 200_000), ("headers_max", 1_000)];
    let (proxy, _backend, to) = proxy(limits).await;
    let head = [
        (&b":method"[..], &b"GET"[..]),
        (b":scheme", b"http"),
        (b":path", b"/wait"),
        (b":authority", b"catalog"),
    ];
    let crumbs = |count: usize| [&head[..], &vec![(&b"cookie"[..], &b"a"[..]); count]].concat();
    let mut greedy = frames::Client::connect(to).await;
    greedy.send(&frames::hello()).await;
    for number in 0..30 {
        greedy.send(&frames::headers(2 * number + 1, frames::END_STREAM, &crumbs(300))).await;
    }
    assert!(greedy.read_to_end(59, support::PATIENCE).await);
    assert_eq!(greedy.streams[&59].status, Some(503), "{:?}", greedy.goaway);
    proxy.reached("request_head_bytes_total_max").await;
    greedy.send(&frames::headers(61, frames::END_STREAM, &crumbs(997))).await;
    assert!(greedy.read_to_end(61, support::PATIENCE).await);
    assert_eq!(greedy.streams[&61].status, Some(431), "{:?}", greedy.goaway);
    proxy.reached("headers_max").await;
}

/// A request on this stream that brings trailers of so many bytes.
fn post(stream: u32, path: &str, bytes: usize) -> Vec<u8> {
    let long = vec![b'a'; bytes];
    let fields: [(&[u8], &[u8]); 4] = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.as_bytes()),
        (b":authority", b"catalog"),
    ];
    let trailers = frames::headers(stream, frames::END_STREAM, &[(b"x-long", &long)]);
    [frames::headers(stream, 0, &fields), trailers].concat()
}

/// What requests take that wait for their answers, however small they are.
#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_take_no_more_memory_than_they_may() {
    let (proxy, _backend, to) = proxy(&[("request_head_bytes_total_max", 200_000)]).await;
    let mut greedy = frames::Client::connect(to).await;
    greedy.send(&frames::hello()).await;
    for number in 0..60 {
        greedy.send(&get(2 * number + 1, "/wait", 0)).await;
    }
    assert!(greedy.read_to_end(119, support::PATIENCE).await);
    let refused = greedy.streams.values().filter(|stream| stream.status == Some(503)).count();
    // Four are not counted, and 24 have room.
    assert_eq!(refused, 60 - 28, "{:?}", greedy.goaway);
    proxy.reached("request_head_bytes_total_max").await;
    // Who has few is not concerned; for who has more, whoever has most makes room.
    let mut modest = frames::Client::connect(to).await;
    modest.send(&frames::hello()).await;
    for number in 0..8 {
        modest.send(&get(2 * number + 1, "/wait", 0)).await;
    }
    modest.send(&get(17, "/", 0)).await;
    assert!(modest.read_to_end(17, support::PATIENCE).await);
    assert_eq!(modest.streams[&17].status, Some(200), "{:?}", modest.goaway);
    while !greedy.closed {
        assert!(greedy.read(support::PATIENCE).await, "whoever has most makes room");
    }
    assert_eq!(modest.streams.values().filter(|stream| stream.status == Some(503)).count(), 0);
}

/// Many connections of one client, each of which carries less than a good client's, keep that one from nothing.
#[tokio::test(flavor = "multi_thread")]
async fn many_connections_from_one_address_are_one_client() {
    const EACH: u32 = 8;
    let (_proxy, _backend, to) = proxy(&[("request_head_bytes_total_max", 400_000)]).await;
    let mut modest = frames::Client::connect(to).await;
    modest.send(&frames::hello()).await;
    for number in 0..16 {
        modest.send(&get(2 * number + 1, "/wait", 0)).await;
    }
    let mut greedy = Vec::new();
    for _ in 0..20 {
        let mut client = frames::Client::connect_from(Ipv4Addr::new(127, 0, 0, 2), to).await;
        client.send(&frames::hello()).await;
        for number in 0..EACH {
            client.send(&get(2 * number + 1, "/wait", 0)).await;
        }
        // What it has sent is looked at once it has this answer; or it is refused, as what it waits for is.
        client.send(&get(2 * EACH + 1, "/", 0)).await;
        client.read_to_end(2 * EACH + 1, support::PATIENCE).await;
        greedy.push(client);
    }
    let refused = greedy.iter().flat_map(|client| client.streams.values());
    let refused = refused.filter(|stream| stream.status == Some(503)).count();
    assert!(refused > 20, "there is no room for {refused}");
    modest.send(&[get(33, "/wait", 0), get(35, "/", 0)].concat()).await;
    assert!(modest.read_to_end(35, support::PATIENCE).await, "{:?}", modest.goaway);
    assert_eq!(modest.streams[&35].status, Some(200), "{:?}", modest.goaway);
}

/// What requests take whose answers the client has no window for; it is refused by what needs none.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_take_no_more_memory_than_they_may() {
    let (proxy, _backend, to) = proxy(&[("request_head_bytes_total_max", 200_000)]).await;
    let mut deaf = frames::Client::connect(to).await;
    let no_window = [&[0, 4][..], &[0; 4]].concat();
    deaf.send(&[frames::hello(), frames::frame(frames::kind::SETTINGS, 0, 0, &no_window)].concat()).await;
    for number in 0..60 {
        let stream = 2 * number + 1;
        deaf.send(&get(stream, "/text", 0)).await;
        while deaf.streams.get(&stream).and_then(|stream| stream.status).is_none() {
            assert!(deaf.read(support::PATIENCE).await && !deaf.closed, "{stream}: {:?}", deaf.goaway);
        }
        let answer = &deaf.streams[&stream];
        // Four are not counted, and 24 have room.
        let expected = if number < 28 { (Some(200), false) } else { (Some(503), true) };
        assert_eq!((answer.status, answer.ended), expected, "{stream}");
    }
    proxy.reached("request_head_bytes_total_max").await;
    // What it takes is let go.
    let window = |stream| frames::frame(frames::kind::WINDOW_UPDATE, 0, stream, &100_u32.to_be_bytes());
    deaf.send(&(0..28).flat_map(|number| window(2 * number + 1)).collect::<Vec<_>>()).await;
    for number in 0..28 {
        assert!(deaf.read_to_end(2 * number + 1, support::PATIENCE).await);
        assert_eq!(deaf.streams[&(2 * number + 1)].body, b"ok");
    }
    deaf.send(&[get(121, "/text", 0), window(121)].concat()).await;
    assert!(deaf.read_to_end(121, support::PATIENCE).await);
    assert_eq!(deaf.streams[&121].status, Some(200));
}

/// Who does not go on with requests is parted with before who waits for answers, whoever has more of them.
#[tokio::test(flavor = "multi_thread")]
async fn who_holds_still_is_parted_with_first() {
    let (proxy, _backend, to) = proxy(&[("request_head_bytes_total_max", 545_000)]).await;
    // One that has most, and one that has far less than none of them and more than may be had whatever others do. Who gets an
    // answer has had its other requests seen.
    let mut waiting = Vec::new();
    for count in [30, 16] {
        let mut client = frames::Client::connect(to).await;
        client.send(&frames::hello()).await;
        client.send(&(0..count).flat_map(|number| get(2 * number + 1, "/wait", 0)).collect::<Vec<_>>()).await;
        assert_eq!(ask(&mut client, 2 * count + 1).await, Some(200));
        waiting.push(client);
    }
    // Each below what is closed for being much, for more than there is room for.
    let mut still = Vec::new();
    for _ in 0..5 {
        let mut client = frames::Client::connect(to).await;
        client.send(&frames::hello()).await;
        client.send(&(0..11).flat_map(|number| open(2 * number + 1, "/wait")).collect::<Vec<_>>()).await;
        assert!(ask(&mut client, 23).await.is_some());
        still.push(client);
    }
    let (mut modest, mut good) = (waiting.pop().expect("two"), waiting.pop().expect("two"));
    let mut stream = 35;
    let served = async {
        while ask(&mut modest, stream).await != Some(200) {
            stream += 2;
        }
    };
    tokio::time::timeout(support::PATIENCE, served).await.expect("who holds still does not keep the room");
    for client in &mut still[..4] {
        while !client.closed {
            assert!(client.read(support::PATIENCE).await);
        }
        assert_eq!(client.goaway.unwrap_or(ENHANCE_YOUR_CALM), ENHANCE_YOUR_CALM);
    }
    // Who waits for answers is not concerned.
    assert_eq!((ask(&mut good, 63).await, good.goaway), (Some(200), None));
    proxy.reached("request_head_bytes_total_max").await;
}

/// What a request on this stream is answered; the client is not parted with.
async fn ask(client: &mut frames::Client, stream: u32) -> Option<u16> {
    client.send(&get(stream, "/", 0)).await;
    assert!(client.read_to_end(stream, support::PATIENCE).await && !client.closed, "{:?}", client.goaway);
    client.streams[&stream].status
}

/// A request on this stream that is not whole.
fn open(stream: u32, path: &str) -> Vec<u8> {
    let fields: [(&[u8], &[u8]); 4] = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.as_bytes()),
        (b":authority", b"catalog"),
    ];
    frames::headers(stream, 0, &fields)
}

/// The trailers of requests that were sent and wait for their answers.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_requests_in_flight_take_no_more_memory_than_they_may() {
    let (proxy, _backend, to) = proxy(&[("request_head_bytes_total_max", 50_000)]).await;
    let mut greedy = frames::Client::connect(to).await;
    greedy.send(&frames::hello()).await;
    for stream in [1, 3, 5, 7] {
        greedy.send(&post(stream, "/wait", 15_000)).await;
    }
    assert!(greedy.read_to_end(7, support::PATIENCE).await);
    assert_eq!(greedy.streams[&7].status, Some(503), "{:?}", greedy.goaway);
    assert_eq!(greedy.streams.get(&1).and_then(|stream| stream.status), None, "it waits");
    proxy.reached("request_head_bytes_total_max").await;
    let errors = proxy.page("/errors").await;
    assert!(errors.contains("request_head_bytes_total_max 50000 of this process"), "{errors}");
    // What is over is let go.
    for number in 0..6 {
        let stream = 2 * number + 9;
        greedy.send(&post(stream, "/", 3_000)).await;
        assert!(greedy.read_to_end(stream, support::PATIENCE).await);
        assert_eq!(greedy.streams[&stream].status, Some(200));
    }
}

/// Trailers of requests that wait for a connection: nobody has read them.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_that_are_not_read_take_no_more_memory_than_they_may() {
    let pool = "  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}";
    let (proxy, backend, to) = proxy_with(&[("head_bytes_total_max", 100_000)], pool).await;
    // Those that are read, or that nobody will read, do not count for long.
    let mut client = frames::Client::connect(to).await;
    client.send(&frames::hello()).await;
    for number in 0..20 {
        let stream = 2 * number + 1;
        client.send(&post(stream, if number % 2 == 0 { "/" } else { "/none" }, 12_000)).await;
        assert!(client.read_to_end(stream, support::PATIENCE).await);
    }
    client.send(&get(41, "/wait", 0)).await;
    eventually("the only connection is taken", || async { (backend.served() > 20).then_some(()) }).await;
    for number in 0..20 {
        client.send(&post(2 * number + 43, "/", 12_000)).await;
    }
    while !client.closed {
        assert!(client.read(support::PATIENCE).await, "it is closed");
    }
    assert_eq!(client.goaway.unwrap_or(ENHANCE_YOUR_CALM), ENHANCE_YOUR_CALM);
    proxy.reached("head_bytes_total_max").await;
    eventually("who comes is served", || async {
        Request::get("/").try_send(to).await.ok().filter(|answer| answer.status == 200)
    })
    .await;
}

/// Clients that hold such trailers and hold still: who comes with a head in two parts is served beside them, and soon who comes with
/// trailers.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_that_are_not_read_keep_no_head_out() {
    let pool = "  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}";
    let limits = &[("head_bytes_total_max", 100_000), ("head_time_max_ms", 0)];
    let (proxy, backend, to) = proxy_with(limits, pool).await;
    let mut taker = frames::Client::connect(to).await;
    taker.send(&[frames::hello(), get(1, "/wait", 0)].concat()).await;
    eventually("the only connection is taken", || async { (backend.served() > 0).then_some(()) }).await;
    let ping = frames::frame(frames::kind::PING, 0, 0, &[0; 8]);
    let pinged = |client: &frames::Client| client.frames.iter().any(|frame| frame.kind == frames::kind::PING);
    let hold = || async {
        let mut client = frames::Client::connect(to).await;
        // Who holds no more than before stays, whatever it says.
        client.send(&[frames::hello(), post(1, "/", 12_000)].concat()).await;
        client.send(&ping).await;
        while !client.closed && !pinged(&client) {
            assert!(client.read(support::PATIENCE).await);
        }
        (!client.closed).then_some(client)
    };
    let mut holding = Vec::new();
    for _ in 0..12 {
        holding.extend(hold().await);
    }
    assert_eq!(holding.len(), 4, "half of the room is theirs");
    proxy.reached("head_bytes_total_max").await;
    // Of this, 100 bytes come first: they count 12,800.
    let head: [(&[u8], &[u8]); 5] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"orders"),
        (b"x-long", &[b'a'; 200]),
    ];
    let head = frames::block(&head);
    let (first, rest) = head.split_at(100);
    for _ in 0..3 {
        let mut client = frames::Client::connect(proxy.listener(1)).await;
        let first = frames::frame(frames::kind::HEADERS, frames::END_STREAM, 1, first);
        // Within a head, nothing else may be said: SETTINGS are acknowledged before.
        for part in [[&frames::hello()[..], &ping].concat(), [&ping[..], &first].concat()] {
            client.frames.clear();
            client.send(&part).await;
            while !client.closed && !pinged(&client) {
                assert!(client.read(support::PATIENCE).await);
            }
        }
        client.send(&frames::frame(frames::kind::CONTINUATION, frames::END_HEADERS, 1, rest)).await;
        assert!(client.read_to_end(1, support::PATIENCE).await);
        let status = client.streams.get(&1).and_then(|stream| stream.status);
        assert_eq!(status, Some(200), "{:?}", client.goaway);
    }
    let _newcomer = eventually("those that hold still make room", hold).await;
    for client in &mut holding {
        while !client.closed {
            assert!(client.read(support::PATIENCE).await, "it is closed");
        }
    }
}

/// The heads of answers that a client does not read: what it does not take lies here.
#[tokio::test(flavor = "multi_thread")]
async fn heads_of_answers_that_are_not_read_take_no_more_memory_than_they_may() {
    let (proxy, _backend, to) = proxy(&[("unread_bytes_total_max", 1_000_000)]).await;
    let mut deaf = frames::Client::connect(to).await;
    deaf.send(&frames::hello()).await;
    // Far more than the kernel keeps for it.
    for number in 0..1_000 {
        deaf.send(&get(2 * number + 1, "/large", 0)).await;
    }
    proxy.reached("unread_bytes_total_max").await;
    while !deaf.closed {
        assert!(deaf.read(support::PATIENCE).await, "it is closed");
    }
    eventually("nothing is held", || async {
        proxy.metric("weft_unread_bytes", &[]).await.filter(|bytes| *bytes == 0.0)
    })
    .await;
    // It was one connection.
    let reached = proxy.metric("weft_limit_reached_total", &[("limit", "unread_bytes_total_max")]).await;
    assert_eq!(reached, Some(1.0));
    // Who reads gets as much as that and more.
    let mut client = frames::Client::connect(to).await;
    client.send(&frames::hello()).await;
    for number in 0..40 {
        client.send(&get(2 * number + 1, "/large", 0)).await;
        assert!(client.read_to_end(2 * number + 1, support::PATIENCE).await);
    }
    assert!(client.streams.values().filter(|stream| stream.status == Some(200)).count() == 40);
}
