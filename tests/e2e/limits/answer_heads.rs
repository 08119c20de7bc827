//! Large heads and trailers of answers, all of which come at once.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;

use super::*;

/// How many of the answers are held at once.
const REQUESTS: u32 = 30;

/// An upstream that says `answer` where it is asked for `/large` once this says so, and waits for the other side to leave; it
/// answers all else at once.
struct Together {
    backend: ScriptedBackend,
    asked: Arc<AtomicU32>,
    says: watch::Sender<bool>,
    proxy: TestProxy,
}

impl Together {
    async fn of(answer: String) -> Together {
        let (says, said) = watch::channel(false);
        let asked = Arc::new(AtomicU32::new(0));
        let (answer, counted): (Arc<str>, _) = (answer.into(), asked.clone());
        let backend = ScriptedBackend::new(move |mut peer| {
            let (answer, mut said, counted) = (answer.clone(), said.clone(), counted.clone());
            async move {
                while let Some(head) = peer.head().await {
                    if !head.starts_with("GET /large ") {
                        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                        continue;
                    }
                    counted.fetch_add(1, Ordering::Relaxed);
                    if said.wait_for(|says| *says).await.is_err() {
                        return;
                    }
                    peer.send(&*answer).await;
                }
            }
        })
        .await;
        let mesh =
            Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
        let limits = [("answer_head_bytes_total_max", 400_000)];
        let proxy = TestProxy::of(mesh).limits(&limits).listen("catalog", 8000).ready().await;
        Together { backend, asked, says, proxy }
    }

    /// A client that has asked for all the answers, which are on their way.
    async fn ask(&self) -> frames::Client {
        let before = self.asked.load(Ordering::Relaxed);
        let mut client = frames::Client::connect(self.proxy.listener(0)).await;
        client.send(&frames::hello()).await;
        for number in 0..REQUESTS {
            client.send(&get(2 * number + 1)).await;
        }
        eventually("all wait", || async {
            (self.asked.load(Ordering::Relaxed) == before + REQUESTS).then_some(())
        })
        .await;
        self.says.send(true).expect("it listens");
        client
    }

    async fn held(&self) -> f64 {
        self.proxy.metric("weft_answer_head_bytes", &[]).await.expect("it is counted")
    }

    async fn holds_nothing(&self) {
        eventually("nothing is held", || async { (self.held().await == 0.0).then_some(()) }).await;
    }

    async fn serves(&self) {
        assert_eq!(Request::get("/").send(self.proxy.listener(0)).await.status, 200);
    }
}

fn get(stream: u32) -> Vec<u8> {
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/large"), (b":authority", b"catalog")];
    frames::headers(stream, frames::END_STREAM, &fields)
}

/// Fields of a thousand bytes each.
fn fields(count: usize) -> String {
    (0..count).map(|number| format!("x-{number}: {}\r\n", "a".repeat(990))).collect()
}

fn with_status(client: &frames::Client, status: u16) -> u32 {
    client.streams.values().map(|stream| u32::from(stream.status == Some(status))).sum()
}

/// Answers whose heads, informational or not, do not end.
#[tokio::test(flavor = "multi_thread")]
async fn heads_of_answers_that_do_not_end_take_no_more_memory_than_they_may() {
    let begun = format!("HTTP/1.1 200 OK\r\n{}", fields(50));
    let informs = format!("HTTP/1.1 103 Early Hints\r\n{}\r\nHTTP/1.1 103 Early Hints\r\n{0}", fields(50));
    for answer in [begun, informs] {
        let stage = Together::of(answer).await;
        let mut client = stage.ask().await;
        // Each of them takes 64 KiB by then.
        while with_status(&client, 502) < REQUESTS - 6 {
            assert!(client.read(support::PATIENCE).await && !client.closed, "{:?}", client.goaway);
        }
        stage.proxy.reached("answer_head_bytes_total_max").await;
        let errors = stage.proxy.page("/errors").await;
        assert!(
            errors.contains("answer_head_bytes_total_max 400000 of this process, by the upstream"),
            "{errors}"
        );
        assert!((1.0..=400_000.0).contains(&stage.held().await), "{}", stage.held().await);
        stage.serves().await;
        drop(client);
        stage.holds_nothing().await;
        // The same of upstreams that leave.
        let _client = stage.ask().await;
        eventually("some is held", || async { (stage.held().await > 0.0).then_some(()) }).await;
        let Together { backend, proxy, .. } = stage;
        drop(backend);
        eventually("nothing is held", || async {
            proxy.metric("weft_answer_head_bytes", &[]).await.filter(|bytes| *bytes == 0.0)
        })
        .await;
    }
}

/// Answers that are whole: those that there is room for are taken by their client, and count no more then.
#[tokio::test(flavor = "multi_thread")]
async fn heads_of_answers_count_until_their_client_has_them() {
    let body = "content-length: 2\r\n\r\nok";
    let stage = Together::of(format!("HTTP/1.1 200 OK\r\n{}{body}", fields(50))).await;
    let mut client = stage.ask().await;
    for number in 0..REQUESTS {
        assert!(client.read_to_end(2 * number + 1, support::PATIENCE).await, "{:?}", client.goaway);
    }
    assert!(with_status(&client, 200) >= 6, "{}", with_status(&client, 200));
    assert_eq!(with_status(&client, 200) + with_status(&client, 502), REQUESTS);
    // The client is there.
    stage.holds_nothing().await;
    // One after the other they have all the room they need, over both protocols.
    for number in REQUESTS..REQUESTS + 20 {
        client.send(&get(2 * number + 1)).await;
        assert!(client.read_to_end(2 * number + 1, support::PATIENCE).await);
        assert_eq!(client.streams[&(2 * number + 1)].status, Some(200));
        let answer = Request::get("/large").send(stage.proxy.listener(0)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["x-49"].len(), 990);
    }
    stage.holds_nothing().await;
}

/// What a client of HTTP/1 does not read counts, too.
#[tokio::test(flavor = "multi_thread")]
async fn heads_that_a_client_does_not_read_count_until_it_leaves() {
    let stage = Together::of(format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\nok", fields(70))).await;
    stage.says.send(true).expect("it listens");
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut client = socket.connect(stage.proxy.listener(0)).await.unwrap();
    client.write_all(&b"GET /large HTTP/1.1\r\nhost: catalog\r\n\r\n".repeat(100)).await.unwrap();
    eventually("a head is held", || async { (stage.held().await > 60_000.0).then_some(()) }).await;
    // It was not only on its way.
    let asked = stage.asked.load(Ordering::Relaxed);
    assert!(asked < 100, "{asked}");
    stage.serves().await;
    assert!(stage.held().await > 60_000.0);
    drop(client);
    stage.holds_nothing().await;
}

/// Trailers that do not end.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_answers_that_do_not_end_take_no_more_memory_than_they_may() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n";
    let stage = Together::of(format!("{head}{}", fields(15))).await;
    let client = stage.ask().await;
    stage.proxy.reached("answer_head_bytes_total_max").await;
    assert!((1.0..=400_000.0).contains(&stage.held().await), "{}", stage.held().await);
    stage.serves().await;
    drop(client);
    stage.holds_nothing().await;
}

/// Trailers that are whole count until the client has them.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_answers_pass_and_count_no_more() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n";
    let stage = Together::of(format!("{head}{}\r\n", fields(15))).await;
    stage.says.send(true).expect("it listens");
    let mut client = frames::Client::connect(stage.proxy.listener(0)).await;
    client.send(&frames::hello()).await;
    for number in 0..REQUESTS {
        client.send(&get(2 * number + 1)).await;
        assert!(client.read_to_end(2 * number + 1, support::PATIENCE).await, "{:?}", client.goaway);
    }
    assert_eq!(with_status(&client, 200), REQUESTS);
    stage.holds_nothing().await;
    assert_eq!(stage.proxy.metric("weft_limit_reached_total", &[]).await, None);
}
