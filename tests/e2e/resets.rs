//! HTTP/2 streams that are reset, by the client or for what it sends: they end, and those beside them do not, until there are
//! more than `http2_reset_frames_max`.

use support::frames::{self, Client, END_STREAM};
use support::{Mesh, TestBackend, TestProxy, eventually};

/// HTTP/2's CANCEL and ENHANCE_YOUR_CALM (RFC 9113 section 7).
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A stream that is open meanwhile.
const BYSTANDER: u32 = 1;

type Field = (&'static [u8], &'static [u8]);

const POST: [Field; 4] =
    [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"catalog"), (b":path", b"/a")];

struct Stage {
    _backend: TestBackend,
    proxy: TestProxy,
    client: Client,
}

impl Stage {
    /// A client that has begun a request, at a proxy where it may reset so many streams, or as many as by default.
    async fn new(resets_max: Option<u64>) -> Stage {
        let backend = TestBackend::echo("catalog").await;
        let mesh =
            Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
        let set = |settings: &mut weft::app::Settings| {
            if let Some(max) = resets_max {
                settings.limits.set("http2_reset_frames_max", max).expect("a limit");
            }
        };
        let proxy = TestProxy::of(mesh).set(set).listen("catalog", 8000).ready().await;
        let mut client = Client::connect(proxy.listener(0)).await;
        client.send(&[frames::hello(), frames::headers(BYSTANDER, 0, &POST)].concat()).await;
        Stage { _backend: backend, proxy, client }
    }

    /// Sends what `frames` makes of as many streams in one write.
    async fn send(&mut self, streams: u32, frames: impl Fn(u32) -> Vec<u8>) {
        let bytes: Vec<u8> = (1..=streams).flat_map(|stream| frames(BYSTANDER + 2 * stream)).collect();
        self.client.send(&bytes).await;
    }

    /// Ends the request that was begun; it is answered.
    async fn serves(&mut self) {
        self.client.send(&frames::data(BYSTANDER, END_STREAM, b"abc")).await;
        assert!(self.client.read_to_end(BYSTANDER, support::PATIENCE).await);
        assert_eq!((self.client.goaway, self.client.streams[&BYSTANDER].status), (None, Some(200)));
    }

    /// The connection ends, and it is said why.
    async fn ends_by(&mut self, limit: &str) {
        while !self.client.closed {
            assert!(self.client.read(support::PATIENCE).await, "it is not closed");
        }
        // What is not read of ours may reset the connection before we have read why.
        assert!(self.client.goaway.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{:?}", self.client.goaway);
        eventually("it is counted", || async {
            let counted = self.proxy.metric("weft_limit_reached_total", &[("limit", limit)]).await;
            counted.filter(|count| *count == 1.0)
        })
        .await;
        let all = self.proxy.metric("weft_limit_reached_total", &[]).await;
        assert_eq!(all, Some(1.0), "and nothing else");
    }
}

fn begun_and_reset(stream: u32) -> Vec<u8> {
    let reset = frames::frame(frames::kind::RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    [frames::headers(stream, END_STREAM, &POST), reset].concat()
}

/// A request that HTTP/2 does not have.
fn malformed(stream: u32) -> Vec<u8> {
    frames::headers(stream, END_STREAM, &[&POST[..], &[(b"connection", b"close")]].concat())
}

/// The same, whose head is cut within a field that is in order.
fn malformed_in_two_frames(stream: u32) -> Vec<u8> {
    let fields = [&POST[..], &[(b"connection", b"close"), (b"x-a", b"b")]].concat();
    let block = frames::block(&fields);
    let (first, second) = block.split_at(block.len() - 1);
    [
        frames::frame(frames::kind::HEADERS, END_STREAM, stream, first),
        frames::frame(frames::kind::CONTINUATION, frames::END_HEADERS, stream, second),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_resets_in_one_write_disturb_no_other_stream() {
    let mut stage = Stage::new(None).await;
    stage.send(900, begun_and_reset).await;
    stage.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_malformed_streams_disturb_no_other_one() {
    for frames in [malformed, malformed_in_two_frames] {
        let mut stage = Stage::new(None).await;
        stage.send(900, frames).await;
        stage.serves().await;
        let reset = stage.client.streams.values().filter(|stream| stream.reset == Some(1)).count();
        assert_eq!(reset, 900);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_end_the_connection_by_the_name_of_their_limit() {
    for frames in [begun_and_reset, malformed, malformed_in_two_frames] {
        let mut stage = Stage::new(Some(50)).await;
        stage.send(45, frames).await;
        stage.serves().await;
        let mut stage = Stage::new(Some(50)).await;
        stage.send(200, frames).await;
        stage.ends_by("http2_reset_frames_max").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_on_streams_that_were_answered_early_is_passed_over() {
    let mut stage = Stage::new(None).await;
    const ANSWERED: u32 = 400;
    // Nothing has this target, so that the answer waits for nobody.
    let early = [POST[0], POST[1], POST[2], (&b":path"[..], &b"*"[..])];
    stage.send(ANSWERED, |stream| frames::headers(stream, 0, &early)).await;
    let is_answered = |client: &Client| {
        let answered = client.streams.values().filter(|stream| stream.status == Some(400));
        answered.count() == ANSWERED as usize
    };
    while !is_answered(&stage.client) {
        assert!(stage.client.read(support::PATIENCE).await, "all are answered");
    }
    stage.send(ANSWERED, |stream| frames::data(stream, 0, b"late")).await;
    stage.serves().await;
}
