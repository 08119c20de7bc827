use super::budget::{ANSWER_HEADS_PER_REQUEST, CONTROL_FRAMES_PER_SECOND};
use super::*;

fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
    let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
    bytes.resize(HEADER_BYTES + usize::from(length), 0xff);
    bytes
}

fn watch() -> Watch {
    Watch::new(&Limits::default(), 0, 0)
}

/// How many of these frames it takes until the peer is a flood.
fn endured(watch: &mut Watch, bytes: &[u8]) -> (u64, Option<Flood>) {
    for count in 0..100_000 {
        if let Err(flood) = watch.received(bytes) {
            return (count, Some(flood));
        }
    }
    (100_000, None)
}

#[test]
fn floods_end_at_their_limit() {
    let limits = Limits::default();
    let control = Some(Flood::Control);
    for (kind, flags, length, max, flood) in [
        (6, 0, 8, limits.http2_control_frames_max, control),
        (4, 0, 0, limits.http2_control_frames_max, control),
        (8, 0, 4, limits.http2_control_frames_max, control),
        (2, 0, 5, limits.http2_control_frames_max, control),
        (99, 0, 0, limits.http2_control_frames_max, control),
        (RST_STREAM, 0, 4, limits.http2_reset_frames_max, Some(Flood::Reset)),
        (DATA, 0, 0, limits.http2_empty_frames_max, Some(Flood::Empty)),
        (HEADERS, 0, 0, limits.http2_empty_frames_max, Some(Flood::Empty)),
        (CONTINUATION, 0, 0, limits.http2_empty_frames_max, Some(Flood::Empty)),
    ] {
        assert_eq!(endured(&mut watch(), &frame(kind, flags, length)), (max, flood), "kind {kind}");
    }
}

#[test]
fn useful_frames_are_no_flood_and_earn_others() {
    for (kind, flags, length) in [(DATA, 0, 1), (DATA, END_STREAM, 0), (HEADERS, END_HEADERS, 0)] {
        assert_eq!(endured(&mut watch(), &frame(kind, flags, length)).1, None, "kind {kind}");
    }
    let mut request_and_pings = frame(HEADERS, END_HEADERS, 20);
    for _ in 0..CONTROL_FRAMES_PER_USEFUL {
        request_and_pings.extend(frame(6, 0, 8));
    }
    assert_eq!(endured(&mut watch(), &request_and_pings).1, None);
    let mut acknowledged = watch();
    for _ in 0..100_000 {
        acknowledged.sent(&frame(DATA, 0, 200)).unwrap();
        assert_eq!(acknowledged.received(&[frame(8, 0, 4), frame(8, 0, 4)].concat()), Ok(()));
    }
    let mut cancelled = watch();
    for _ in 0..100_000 {
        cancelled.sent(&frame(HEADERS, END_STREAM, 20)).unwrap();
        assert_eq!(cancelled.received(&frame(RST_STREAM, 0, 4)), Ok(()));
    }
}

#[test]
fn streams_that_a_peer_makes_us_reset_are_as_if_it_had() {
    let reset = |code: u32| [&frame(RST_STREAM, 0, 4)[..HEADER_BYTES], &code.to_be_bytes()].concat();
    let max = Limits::default().http2_reset_frames_max;
    for (code, spends) in [(1, true), (3, true), (5, true), (7, true), (0, false), (2, false), (8, false)] {
        let (mut client, mut upstream) = (watch(), watch().bound_answers());
        for _ in 0..max {
            assert_eq!(client.sent(&reset(code)), Ok(()), "{code}");
            assert_eq!(upstream.sent(&reset(code)), Ok(()), "{code}");
        }
        let expected = if spends { Err(Flood::Reset) } else { Ok(()) };
        assert_eq!(client.sent(&reset(code)), expected, "{code}");
        assert_eq!(upstream.sent(&reset(code)), Ok(()), "{code}");
    }
}

#[test]
fn time_earns() {
    let mut watch = watch();
    assert_eq!(endured(&mut watch, &frame(6, 0, 8)).1, Some(Flood::Control));
    watch.passed(1);
    assert_eq!(
        endured(&mut watch, &frame(6, 0, 8)),
        (CONTROL_FRAMES_PER_SECOND.into(), Some(Flood::Control))
    );
    watch.passed(u32::MAX);
    assert_eq!(endured(&mut watch, &frame(6, 0, 8)).0, Limits::default().http2_control_frames_max);
}

#[test]
fn time_is_asked_for_when_a_budget_is_used_up() {
    let (mut watch, mut asked) = (watch(), 0);
    let limit = Limits::default().http2_control_frames_max;
    for count in 0..5 * limit {
        let verdict = watch.received_at(
            &frame(6, 0, 8),
            || {
                asked += 1;
                3
            },
            |_| {},
        );
        assert_eq!(verdict, Ok(()), "{count}");
    }
    assert_eq!(asked, 4 * limit / u64::from(3 * CONTROL_FRAMES_PER_SECOND) + 1);
}

#[test]
fn heads_of_answers_are_earned_by_requests() {
    let head = frame(HEADERS, END_HEADERS, 3);
    let mut upstream = watch().bound_answers();
    let limit = Limits::default().http2_answer_heads_max;
    assert_eq!(endured(&mut upstream, &head), (limit, Some(Flood::Answer)));
    upstream.sent(&head).unwrap();
    assert_eq!(endured(&mut upstream, &head), (ANSWER_HEADS_PER_REQUEST.into(), Some(Flood::Answer)));
}

#[test]
fn ends_of_streams_are_told() {
    let mut ended = Vec::new();
    let padded = |padding| [&frame(DATA, END_STREAM | PADDED, 3)[..HEADER_BYTES], &[padding, 0, 0]].concat();
    for (bytes, by_nothing) in [
        (frame(DATA, END_STREAM, 2), false),
        (frame(DATA, END_STREAM, 0), true),
        (frame(HEADERS, END_STREAM, 0), false),
        (padded(2), true),
        (padded(1), false),
    ] {
        let bytes = [frame(HEADERS, END_HEADERS, 3), frame(DATA, 0, 0), bytes].concat();
        assert_eq!(watch().received_at(&bytes, || 0, |end| ended.push(end)), Ok(()));
        assert_eq!(std::mem::take(&mut ended), [Ended { stream: 1, by_nothing }]);
    }
}

#[test]
fn bytes_may_be_cut_anywhere() {
    let bytes: Vec<u8> = [frame(HEADERS, END_HEADERS, 30), frame(DATA, 0, 200), frame(6, 0, 8)].concat();
    for size in 1..bytes.len() {
        let mut found = Vec::new();
        let mut scanner = Scanner::new(24);
        let whole = [vec![0xaa; 24], bytes.clone()].concat();
        for piece in whole.chunks(size) {
            scanner.scan(piece, |frame, _| found.push((frame.kind, frame.length)));
        }
        assert_eq!(found, [(HEADERS, 30), (DATA, 200), (6, 8)], "pieces of {size}");
    }
}

#[test]
fn an_open_head_is_measured() {
    let mut watch = watch();
    let mut check = |bytes: &[u8], expected: usize| {
        watch.received(bytes).unwrap();
        // What comes on a stream that has had its head is trailers.
        watch.take_trailer_fields(1);
        assert_eq!(watch.head_bytes(5_000), expected);
    };
    // Whole at once, as mostly.
    check(&frame(HEADERS, END_HEADERS, 200), 0);
    let head = frame(HEADERS, END_HEADERS, 200);
    check(&head[..HEADER_BYTES], 0);
    check(&head[HEADER_BYTES..109], 100);
    check(&head[109..], 0);
    check(&frame(HEADERS, 0, 10), 10 * FIELD_BYTES);
    let more = frame(CONTINUATION, 0, 20);
    check(&more[..HEADER_BYTES + 5], 10 * FIELD_BYTES + 5);
    check(&more[HEADER_BYTES + 5..], 30 * FIELD_BYTES);
    check(&frame(CONTINUATION, 0, 100), 5_000);
    check(&frame(CONTINUATION, END_HEADERS, 1), 0);
    check(&frame(DATA, 0, 100)[..50], 0);
}

#[test]
fn trailers_that_nobody_has_read_are_measured() {
    let mut watch = watch();
    watch.received(&frame(HEADERS, END_HEADERS, 10)).unwrap();
    let held = |watch: &Watch| watch.trailers().map_or(0, Trailers::held);
    assert_eq!(held(&watch), 0);
    // Of others behind them on the stream nothing is kept.
    for _ in 0..2 {
        watch.received(&frame(HEADERS, END_HEADERS, 10)).unwrap();
        assert!(held(&watch) >= 10);
    }
    watch.take_trailer_fields(1);
    assert_eq!((held(&watch), watch.head_bytes(5_000)), (0, 0));
}

#[test]
fn an_open_head_is_seen() {
    let mut watch = watch();
    assert!(!watch.is_head_open());
    watch.received(&frame(HEADERS, 0, 10)).unwrap();
    assert!(watch.is_head_open());
    watch.received(&frame(CONTINUATION, END_HEADERS, 10)).unwrap();
    assert!(!watch.is_head_open());
    watch.received(&[0, 0]).unwrap();
    assert!(watch.is_head_open());
    watch.received(&frame(DATA, 0, 10)[2..15]).unwrap();
    assert!(!watch.is_head_open(), "a slow body is no head");
    watch.received(&[0; 4]).unwrap();
    watch.received(&frame(HEADERS, END_HEADERS, 10)[..15]).unwrap();
    assert!(watch.is_head_open());
}
