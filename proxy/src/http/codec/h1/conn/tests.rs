use std::collections::VecDeque;
use std::future::poll_fn;

use http::HeaderMap;

use super::*;
use crate::http::codec::Body;
use crate::http::codec::stuck::Stuck;

/// A body of these pieces. It knows that it has ended when its last piece has been taken, as HTTP/2's does, or only when it
/// is asked once more.
struct Pieces {
    frames: VecDeque<Frame>,
    knows: bool,
    asked: bool,
}

impl Body for Pieces {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        let frame = self.frames.pop_front();
        self.asked |= frame.is_none();
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.asked || self.knows && self.frames.is_empty()
    }

    fn exact_length(&self) -> Option<u64> {
        None
    }
}

fn piece(number: usize, length: usize) -> Bytes {
    (0..length).map(|at| b'a' + u8::try_from((at + number) % 26).unwrap()).collect::<Vec<u8>>().into()
}

/// What the other side reads when it leaves room for `room` bytes at a time.
async fn sent(framing: Framing, lengths: &[usize], trailers: bool, knows: bool, room: usize) -> Vec<u8> {
    let (near, mut far) = tokio::io::duplex(room);
    let reading = async {
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        read
    };
    let sending = async {
        let conn = Conn::new(near, &Limits::DEFAULT);
        let mut frames: VecDeque<Frame> =
            lengths.iter().enumerate().map(|(number, length)| Frame::Data(piece(number, *length))).collect();
        if trailers {
            frames.push_back(Frame::Trailers(HeaderMap::from_iter([(
                http::HeaderName::from_static("x-sum"),
                http::HeaderValue::from_static("1"),
            )])));
        }
        let mut body = Some(Pieces { frames, knows, asked: false });
        let mut sending = Sending::new(framing, false);
        poll_fn(|cx| sending.poll(&conn, &mut body, cx)).await.unwrap();
        assert!(body.unwrap().asked || trailers, "a body is polled to its end");
    };
    tokio::join!(reading, sending).0
}

#[tokio::test]
async fn pieces_arrive_in_their_order_however_little_is_taken_at_a_time() {
    for lengths in
        [&[5_000][..], &[1], &[10, 5_000, 3], &[5_000, 5_000], &[4_096, 4_097], &[70_000, 1, 70_000]]
    {
        let whole: Vec<u8> =
            lengths.iter().enumerate().flat_map(|(number, length)| piece(number, *length)).collect();
        for (room, knows, trailers) in [1, 2, 7, 1_000, 5_006, 5_007, 1_000_000]
            .into_iter()
            .flat_map(|room| [(room, false, false), (room, true, false), (room, false, true)])
        {
            let framing = Framing::Length(whole.len() as u64);
            assert_eq!(sent(framing, lengths, trailers, knows, room).await, whole, "{lengths:?} by {room}");
            let chunked = sent(Framing::Chunked, lengths, trailers, knows, room).await;
            let (mut decoder, mut buffer) = (Decoder::new(Framing::Chunked), BytesMut::from(&chunked[..]));
            let (mut data, mut sum) = (Vec::new(), false);
            while let Some(frame) = decoder.decode(&mut buffer, &BodyBounds::of(&Limits::DEFAULT)).unwrap() {
                match frame {
                    Frame::Data(bytes) => data.extend_from_slice(&bytes),
                    Frame::Trailers(trailers) => sum = trailers.contains_key("x-sum"),
                }
            }
            assert!(decoder.is_ended() && buffer.is_empty(), "{lengths:?} by {room}");
            assert_eq!((data == whole, sum), (true, trailers), "{lengths:?} by {room}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_said_fails() {
    for (framing, lengths) in [(Framing::Length(3), [4]), (Framing::Length(3), [2]), (Framing::Empty, [1])] {
        let (near, _far) = tokio::io::duplex(1_000);
        let conn = Conn::new(near, &Limits::DEFAULT);
        let frames = lengths.iter().map(|length| Frame::Data(piece(0, *length))).collect();
        let mut body = Some(Pieces { frames, knows: false, asked: false });
        let mut sending = Sending::new(framing, false);
        let outcome = poll_fn(|cx| sending.poll(&conn, &mut body, cx)).await;
        assert!(
            matches!(outcome, Err(SendFailure::Body(StreamError::BodyAborted))),
            "{framing:?} {lengths:?}"
        );
    }
}

#[tokio::test]
async fn what_was_written_is_let_go() {
    let (near, mut far) = tokio::io::duplex(1_000);
    let conn = Conn::new(near, &Limits::DEFAULT);
    let frames = (0..1_000).map(|number| Frame::Data(piece(number, 4_000))).collect();
    let mut body = Some(Pieces { frames, knows: false, asked: false });
    let mut sending = Sending::new(Framing::Chunked, false);
    let mut most = 0;
    let mut room = [0; 700];
    loop {
        let sent = poll_fn(|cx| Poll::Ready(sending.poll(&conn, &mut body, cx))).await;
        most = most.max(conn.state().out.len());
        if sent.is_ready() {
            break;
        }
        assert!(far.read(&mut room).await.unwrap() > 0);
    }
    assert!(most < OUT_BYTES_MAX + 2 * COPIED_BYTES_MAX, "{most}");
}

#[tokio::test]
async fn what_is_taken_and_not_written_does_not_grow_whenever_somebody_looks() {
    let conn = Conn::new(Stuck::default(), &Limits::DEFAULT);
    let frames = (0..1_000).map(|number| Frame::Data(piece(number, 4_000))).collect();
    let mut body = Some(Pieces { frames, knows: false, asked: false });
    let mut sending = Sending::new(Framing::Chunked, false);
    for _ in 0..100 {
        assert!(poll_fn(|cx| Poll::Ready(sending.poll(&conn, &mut body, cx))).await.is_pending());
    }
    let taken = conn.state().stream.taken;
    assert!(taken < reads::BYTES_MAX + OUT_BYTES_MAX + 2 * COPIED_BYTES_MAX, "{taken}");
}
