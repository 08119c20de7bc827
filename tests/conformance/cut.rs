//! Heads of HTTP/2 in several frames, cut within their fields: they are what they are in one.

use support::frames::{self, END_HEADERS, END_STREAM, Frame, PADDED, kind};
use support::{Mesh, Recorder, TestProxy};

use crate::http2::StreamCase;
use crate::streams::{Field, GET, POST};

/// On HEADERS: a priority comes before the fields (RFC 9113 section 6.2).
const PRIORITY: u8 = 0x20;

/// Heads with more bytes are at a limit, and get no field more.
const SMALL: usize = 500;

/// A head in two frames that are cut here.
pub(crate) fn head(stream: u32, flags: u8, block: &[u8], at: usize) -> Vec<u8> {
    let (first, second) = block.split_at(at);
    [
        frames::frame(kind::HEADERS, flags, stream, first),
        frames::frame(kind::CONTINUATION, END_HEADERS, stream, second),
    ]
    .concat()
}

/// These frames with the first, a head, cut within the last field: one more, or where it is large one of its own.
pub(crate) fn first_head(frames: &[u8]) -> Option<Vec<u8>> {
    let mut rest = frames.to_vec();
    let frame = Frame::take(&mut rest)?;
    if frame.kind != kind::HEADERS || frame.flags & (END_HEADERS | PADDED | PRIORITY) != END_HEADERS {
        return None;
    }
    let more = if frame.payload.len() > SMALL { Vec::new() } else { frames::block(&[(b"x-more", b"yes")]) };
    let block = [frame.payload, more].concat();
    let at = block.len().checked_sub(2)?;
    Some([head(frame.stream, frame.flags & !END_HEADERS, &block, at), rest].concat())
}

/// The same case with its first head cut so.
pub(crate) fn case(case: &StreamCase) -> Option<StreamCase> {
    Some(StreamCase { bytes: first_head(&case.bytes)?, ..case.clone() })
}

/// A proxy in front of an upstream that answers.
async fn stage() -> (Recorder, TestProxy) {
    let recorder = Recorder::new().await;
    let mesh =
        Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", recorder.address);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    (recorder, proxy)
}

/// Fields in the ways that HPACK has (RFC 7541 section 6): from its table, to be kept in it, and not; texts as they are and in its
/// code.
const IN_ALL_WAYS: &[u8] =
    b"\x82\x86\x41\x07catalog\x84\x7a\x03x/1\xbe\x40\x01a\x81\x1f\0\x01b\0\x10\x01c\x01d";

/// Heads that are served, and the status of their answers.
fn good() -> Vec<(Vec<u8>, u16)> {
    let [method, scheme, authority, path] = GET;
    let block = |fields: &[&[Field<'_>]]| frames::block(&fields.concat());
    let connect: Field<'_> = (b":method", b"CONNECT");
    vec![
        (block(&[&GET]), 200),
        (block(&[&POST, &[(b"x-a", b"b"), (b"x-a", b"c"), (b"content-length", b"0")]]), 200),
        (block(&[&[method, scheme, path, (b"host", b"catalog")]]), 200),
        (block(&[&[path, authority, scheme, method, (b"host", b"catalog"), (b"te", b"trailers")]]), 200),
        (block(&[&GET, &[(b"cookie", b"a=b"), (b"cookie", b"c=d"), (b"x-empty", b"")]]), 200),
        (block(&[&[connect, (b":authority", b"catalog:443")]]), 404),
        // Without anything that says where to.
        (block(&[&[method, scheme, path]]), 400),
        (block(&[&[connect]]), 400),
        ([b"\x20", &block(&[&GET])[..]].concat(), 200),
        (IN_ALL_WAYS.to_vec(), 200),
        // More than a frame may have.
        (block(&[&GET, &[(b"x-a", &[b'a'; 9_000]), (b"x-b", &[b'b'; 9_000])]]), 200),
    ]
}

const WAYS: usize = 7;

/// How a head may come that is cut here: in two frames, with an empty one between, with padding, with a priority, and in many.
fn ways(stream: u32, block: &[u8], at: usize) -> [Vec<u8>; WAYS] {
    let (first, second) = block.split_at(at);
    let begin = |flags: u8, payload: &[u8]| frames::frame(kind::HEADERS, flags | END_STREAM, stream, payload);
    let go_on = |flags, payload: &[u8]| frames::frame(kind::CONTINUATION, flags, stream, payload);
    let last = go_on(END_HEADERS, second);
    let all = PADDED | PRIORITY;
    let (middle, end) = second.split_at(second.len() / 2);
    [
        [begin(0, first), last.clone()].concat(),
        [begin(0, first), go_on(0, b""), last.clone()].concat(),
        [begin(0, first), go_on(0, second), go_on(END_HEADERS, b"")].concat(),
        [begin(PADDED, &[b"\x03", first, b"\0\0\0"].concat()), last.clone()].concat(),
        [begin(PRIORITY, &[b"\0\0\0\0\x0f", first].concat()), last.clone()].concat(),
        [begin(all, &[b"\x01\0\0\0\0\x0f", first, b"\0"].concat()), last].concat(),
        [begin(0, first), go_on(0, middle), go_on(END_HEADERS, end)].concat(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_head_may_be_cut_anywhere() {
    let (_recorder, proxy) = stage().await;
    for (block, status) in good() {
        // A head above the largest frame is cut by its first.
        let fits = |at: &usize| (*at).max(block.len() - at) < 16_000;
        let step = block.len().div_ceil(150);
        for at in (0..=block.len()).step_by(step).filter(fits) {
            let mut client = frames::Client::connect(proxy.listener(0)).await;
            let mut all = frames::hello();
            let streams = (1..).step_by(2).take(WAYS);
            for (way, stream) in streams.clone().enumerate() {
                all.extend_from_slice(&ways(stream, &block, at)[way]);
            }
            client.send(&all).await;
            for stream in streams {
                client.read_to_end(stream, support::PATIENCE).await;
                let seen = client.streams.get(&stream).map(|stream| (stream.status, stream.reset));
                assert_eq!(seen, Some((Some(status), None)), "{block:?} at {at}, stream {stream}");
            }
        }
    }
}

/// What h2 would read as something else, and would have its table wrong for other streams: a field without a name, plain, of which
/// it would read the length of the value in its code as another field, or one to be kept; and a stream that depends on itself.
#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_misread_ends_the_connection() {
    let (recorder, proxy) = stage().await;
    let get = frames::block(&GET);
    let cut = |field: &[u8]| {
        let first = [&get[..], field].concat();
        let last = frames::block(&[(b"x-c", b"d")]);
        [
            frames::frame(kind::HEADERS, END_STREAM, 1, &first),
            frames::frame(kind::CONTINUATION, END_HEADERS, 1, &last),
        ]
        .concat()
    };
    let on_itself = |flags, before: &[u8]| {
        let payload = [before, b"\0\0\0\x01\x0f", &get].concat();
        frames::frame(kind::HEADERS, flags | PRIORITY | END_HEADERS | END_STREAM, 1, &payload)
    };
    let nameless = [&b"\0\0\x85"[..], &[0x91; 5]].concat();
    for bytes in [cut(&nameless), cut(b"\x40\0\x01v"), on_itself(0, b""), on_itself(PADDED, b"\0")] {
        // However it comes, byte by byte or at once.
        for size in [1, bytes.len()] {
            let mut client = frames::Client::connect(proxy.listener(0)).await;
            client.send(&frames::hello()).await;
            for part in bytes.chunks(size) {
                client.send(part).await;
            }
            client.send(&frames::frame(kind::HEADERS, END_HEADERS | END_STREAM, 3, &get)).await;
            client.read_to_end(3, support::PATIENCE).await;
            let is_served = client.streams.values().any(|stream| stream.status.is_some());
            assert!(client.goaway.is_some() && !is_served, "{bytes:?}");
        }
    }
    assert!(recorder.take().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_head_is_refused_wherever_it_is_cut() {
    let (recorder, proxy) = stage().await;
    let [method, scheme, authority, path] = GET;
    let bad: [&[Field<'_>]; 6] = [
        &[(b":path", b"/b")],
        &[(b"x-a", b"b"), (b":path", b"/b")],
        &[(b"connection", b"close")],
        &[(b"te", b"gzip"), (b"upgrade", b"websocket")],
        &[(b"", b"b")],
        &[(b"transfer-encoding", b"chunked")],
    ];
    for fields in bad {
        let block = frames::block(&[&[method, scheme, authority, path], fields, &[(b"x-c", b"d")]].concat());
        for at in 0..=block.len() {
            let mut client = frames::Client::connect(proxy.listener(0)).await;
            client.send(&[frames::hello(), head(1, END_STREAM, &block, at)].concat()).await;
            assert!(client.read_to_end(1, support::PATIENCE).await, "{fields:?} at {at}");
            let status = client.streams.get(&1).and_then(|stream| stream.status);
            assert_eq!(status, None, "{fields:?} at {at}");
        }
    }
    assert!(recorder.take().is_empty());
}
