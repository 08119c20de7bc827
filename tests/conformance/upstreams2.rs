//! HTTP/2 upstreams that answer badly: as with HTTP/1, a client gets a clean error or a body that is seen to be cut, and
//! the clients beside it get their own answers.

mod in_frames;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use support::frames::{self, END_HEADERS, END_STREAM, data, frame, headers, kind};
use support::{Mesh, TestProxy};

use crate::cut;
use crate::script2::{Script, Upstream, good};
use crate::upstreams::{Seen, ask_http1, ask_http2};
use in_frames::{TAKEN_WHOLE, in_two_frames};

/// An answer of an upstream, and what the client makes of it.
struct Case {
    name: &'static str,
    rule: &'static str,
    script: Script,
    seen: Seen,
}

const PROTOCOL: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: protocol error";
const RESET: &str = "upstream connect error or disconnect/reset before headers. reset reason: remote reset";
const TERMINATION: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: connection termination";

/// An answer that reaches the client whole.
fn whole(
    name: &'static str,
    rule: &'static str,
    (status, body): (u16, &str),
    answer: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
) -> Case {
    let script = Script { answer: Arc::new(answer), closes: false };
    Case { name, rule, script, seen: Seen::Whole(status, body.to_owned()) }
}

/// One that is found bad before the client has anything of it.
fn bad(
    name: &'static str,
    rule: &'static str,
    answer: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
) -> Case {
    whole(name, rule, (502, PROTOCOL), answer)
}

/// One whose end does not come.
fn cut(
    name: &'static str,
    rule: &'static str,
    answer: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
) -> Case {
    Case { seen: Seen::Cut, ..whole(name, rule, (0, ""), answer) }
}

/// The upstream closes its connection after its frames.
fn closes(case: Case) -> Case {
    Case { script: Script { closes: true, ..case.script }, ..case }
}

type Field = (&'static [u8], &'static [u8]);

const OK: Field = (b":status", b"200");

/// A head with these fields, and the body `ok`.
fn head(fields: &'static [Field]) -> impl Fn(u32) -> Vec<u8> + Send + Sync + 'static {
    move |stream| [headers(stream, 0, fields), data(stream, END_STREAM, b"ok")].concat()
}

/// A head with so many fields behind its status, and the body `ok`.
fn many(count: usize) -> impl Fn(u32) -> Vec<u8> + Send + Sync + 'static {
    move |stream| {
        let fields = [vec![OK], vec![(&b"x-a"[..], &b"b"[..]); count]].concat();
        [headers(stream, 0, &fields), data(stream, END_STREAM, b"ok")].concat()
    }
}

/// A head, this body, and these fields behind it.
fn trailers(fields: &'static [Field]) -> impl Fn(u32) -> Vec<u8> + Send + Sync + 'static {
    move |stream| {
        [headers(stream, 0, &[OK]), data(stream, 0, b"ok"), headers(stream, END_STREAM, fields)].concat()
    }
}

/// The beginning of an answer, and a reset with this code.
fn reset(code: u32, begun: bool) -> impl Fn(u32) -> Vec<u8> + Send + Sync + 'static {
    move |stream| {
        let reset = frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes());
        if begun { [headers(stream, 0, &[OK]), data(stream, 0, b"o"), reset].concat() } else { reset }
    }
}

fn heads() -> Vec<Case> {
    let status = |name, fields| bad(name, "8.3.2", head(fields));
    let field = |name, fields| bad(name, "8.2", head(fields));
    vec![
        whole("an answer by frames", "8.1", (200, "ok"), good),
        whole("an unknown status by frames", "8.3.2", (299, "ok"), head(&[(b":status", b"299")])),
        status("no :status", &[(b"x-a", b"b")]),
        status("an empty :status", &[(b":status", b"")]),
        status("a :status of letters", &[(b":status", b"abc")]),
        status("a :status of two digits", &[(b":status", b"20")]),
        status("a :status of four digits", &[(b":status", b"2000")]),
        status("a :status of 0", &[(b":status", b"000")]),
        status("a :status with a reason", &[(b":status", b"200 OK")]),
        status("two of :status", &[OK, OK]),
        status("a :status behind a field", &[(b"x-a", b"b"), OK]),
        status("an unknown pseudo-header of an answer", &[OK, (b":x", b"y")]),
        // h2 leaves it out without a word.
        whole(TAKEN_WHOLE, "8.3", (200, "ok"), head(&[OK, (b":path", b"/")])),
        bad("a request's pseudo-header in an answer's head that is cut", "8.3", |stream| {
            let whole = head(&[OK, (b":path", b"/")])(stream);
            cut::first_head(&whole).expect("a head")
        }),
        status("101 by frames", &[(b":status", b"101")]),
        field("an answer's field in capitals", &[OK, (b"X-A", b"b")]),
        field("an answer's field with a line end", &[OK, (b"x-a", b"b\r\nx-b: c")]),
        field("an answer's field with a NUL", &[OK, (b"x-a", b"\0")]),
        field("an answer's field without a name", &[OK, (b"", b"b")]),
        field("an answer's field with a quotation mark in its name", &[OK, (b"x\"a", b"b")]),
        field("an answer's coding by frames", &[OK, (b"transfer-encoding", b"chunked")]),
        field("an answer's Connection by frames", &[OK, (b"connection", b"close")]),
        field("an answer's length that is none, by frames", &[OK, (b"content-length", b"x")]),
        field(
            "an answer's two lengths, by frames",
            &[OK, (b"content-length", b"2"), (b"content-length", b"3")],
        ),
        field(
            "an answer's two equal lengths, by frames",
            &[OK, (b"content-length", b"2"), (b"content-length", b"2")],
        ),
        whole("99 fields of an answer and its :status", "RFC 6585 5", (200, "ok"), many(99)),
        bad("100 fields of an answer and its :status", "RFC 6585 5", many(100)),
        bad("a hundred and fifty fields of an answer", "RFC 6585 5", many(150)),
        bad("100 MB of a head", "RFC 6585 5", |stream| {
            let first = frame(kind::HEADERS, 0, stream, &frames::block(&[OK]));
            let next = frame(kind::CONTINUATION, 0, stream, &frames::block(&[(b"x-a", &[b'b'; 16_000])]));
            [first, next.repeat(100_000_000 / 16_000)].concat()
        }),
    ]
}

fn bodies() -> Vec<Case> {
    let length = |value: &'static [u8]| {
        move |stream| {
            [headers(stream, 0, &[OK, (b"content-length", value)]), data(stream, END_STREAM, b"ok")].concat()
        }
    };
    vec![
        whole("an answer's length that fits", "8.1.1", (200, "ok"), length(b"2")),
        cut("an answer's length too large", "8.1.1", length(b"5")),
        cut("an answer's length too small", "8.1.1", length(b"1")),
        bad("an answer's length and no body", "8.1.1", |stream| {
            headers(stream, END_STREAM, &[OK, (b"content-length", b"5")])
        }),
        whole("204 by frames", "8.1.1", (204, ""), |stream| {
            headers(stream, END_STREAM, &[(b":status", b"204")])
        }),
        whole("an answer's trailer", "8.1", (200, "ok"), trailers(&[(b"x-a", b"b")])),
        cut("a quotation mark in an answer's trailer's name", "8.1", trailers(&[(b"x\"a", b"b")])),
        cut("an answer's length as a trailer", "8.1", trailers(&[(b"content-length", b"5")])),
        cut("an answer's coding as a trailer", "8.1", trailers(&[(b"transfer-encoding", b"chunked")])),
        cut("an answer's :status as a trailer", "8.1", trailers(&[OK])),
        cut(
            "a request's pseudo-header as an answer's trailer",
            "8.1",
            trailers(&[(b"x-a", b"b"), (b":path", b"/")]),
        ),
        cut("a pseudo-header as a trailer, in two frames", "8.1", |stream| {
            let fields = frames::block(&[OK, (b"x-a", b"b")]);
            let (first, second) = fields.split_at(1);
            [
                headers(stream, 0, &[OK]),
                data(stream, 0, b"ok"),
                frame(kind::HEADERS, END_STREAM, stream, first),
                frame(kind::CONTINUATION, END_HEADERS, stream, second),
            ]
            .concat()
        }),
        bad("a request's pseudo-header in an answer without a body", "8.3", |stream| {
            headers(stream, END_STREAM, &[OK, (b":path", b"/")])
        }),
        cut("an answer's trailer with a line end", "8.1", trailers(&[(b"x-a", b"b\r\n")])),
        cut("an answer's trailers that do not end it", "8.1", |stream| {
            [headers(stream, 0, &[OK]), data(stream, 0, b"ok"), headers(stream, 0, &[(b"x-a", b"b")])]
                .concat()
        }),
        closes(cut("an answer by frames that ends in its body", "8.1", |stream| {
            [headers(stream, 0, &[OK]), data(stream, 0, b"ok")].concat()
        })),
        closes(cut("an answer by frames that ends in a frame", "8.1", |stream| {
            let whole = good(stream);
            whole[..whole.len() - 1].to_vec()
        })),
        cut("an answer that is cancelled", "8.1", reset(8, true)),
        cut("an answer that fails", "8.1", reset(2, true)),
        cut("an answer that is reset without an error before its end", "8.1", reset(0, true)),
        whole("an answer that is reset without an error behind its end", "8.1", (200, "ok"), |stream| {
            [good(stream), frame(kind::RST_STREAM, 0, stream, &[0; 4])].concat()
        }),
        cut("more data than the window", "6.9.1", |stream| {
            [headers(stream, 0, &[OK]), data(stream, 0, &[b'x'; 16_384]).repeat(2_000)].concat()
        }),
    ]
}

fn out_of_place() -> Vec<Case> {
    vec![
        whole("103 by frames, then an answer", "RFC 9110 15.2", (200, "ok"), |stream| {
            [headers(stream, 0, &[(b":status", b"103")]), good(stream)].concat()
        }),
        bad("103 that is cut, then an answer, whole and cut", "6.10", |stream| {
            let early = headers(stream, 0, &[(b":status", b"103"), (b"link", b"</a>"), (b"link", b"</b>")]);
            let early = cut::first_head(&early).expect("a head");
            let cut = cut::first_head(&good(stream)).expect("a head");
            [early.clone(), early, if stream % 4 == 1 { cut } else { good(stream) }].concat()
        }),
        bad("103 that is cut, then an answer without a body", "6.10", |stream| {
            let early = cut::first_head(&headers(stream, 0, &[(b":status", b"103")])).expect("a head");
            [early, headers(stream, END_STREAM, &[OK])].concat()
        }),
        bad("a bad answer that is cut, then 103", "8.1", |stream| {
            let answer = head(&[OK, (b"connection", b"close")])(stream);
            [cut::first_head(&answer).expect("a head"), headers(stream, 0, &[(b":status", b"103")])].concat()
        }),
        bad("a bad 103 that is cut, then an answer", "6.10", |stream| {
            let early = headers(stream, 0, &[(b":status", b"103"), (b"connection", b"close")]);
            [cut::first_head(&early).expect("a head"), good(stream)].concat()
        }),
        bad("103 and a bad answer that is cut", "6.10", |stream| {
            let early = headers(stream, 0, &[(b":status", b"103"), (b"x-a", b"b")]);
            let answer = head(&[OK, (b"connection", b"close")])(stream);
            [early, cut::first_head(&answer).expect("a head")].concat()
        }),
        bad("103 by frames that ends the stream", "8.1", |stream| {
            headers(stream, END_STREAM, &[(b":status", b"103")])
        }),
        bad("DATA before an answer's head", "8.1", |stream| [data(stream, 0, b"ok"), good(stream)].concat()),
        whole("an answer and more data", "5.1", (200, "ok"), |stream| {
            [good(stream), data(stream, 0, b"more")].concat()
        }),
        whole("an answer and another", "5.1", (200, "ok"), |stream| [good(stream), good(stream)].concat()),
        bad("an answer on a stream that is none", "5.1", |stream| [good(stream + 2), good(stream)].concat()),
        bad("an answer on an even stream", "5.1.1", |stream| [good(2), good(stream)].concat()),
        bad("a promise nobody asked for", "8.4", |stream| {
            [frame(kind::PUSH_PROMISE, END_HEADERS, stream, b"\0\0\0\x02"), good(stream)].concat()
        }),
        bad("DATA of the connection, by an upstream", "6.1", |stream| {
            [data(0, 0, b"ok"), good(stream)].concat()
        }),
        bad("a head that HPACK cannot read, of an answer", "4.3", |stream| {
            frame(kind::HEADERS, END_HEADERS, stream, b"\xff\xff\xff")
        }),
        bad("a frame above the largest, by an upstream", "4.2", |stream| data(stream, 0, &[0; 20_000])),
        bad("HTTP/1 from an HTTP/2 upstream", "3.4", |_| {
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()
        }),
        whole("a stream that is reset", "5.4.2", (503, RESET), reset(2, false)),
        // Who has not looked at a request is asked again.
        whole("a stream that is refused", "8.7", (200, "ok"), reset(7, false)),
        closes(whole("an end without a word", "5.4.1", (503, TERMINATION), |_| Vec::new())),
        closes(whole("a GOAWAY that leaves the stream out", "6.8", (200, "ok"), |_| {
            frame(kind::GOAWAY, 0, 0, &[0; 8])
        })),
    ]
}

fn floods() -> Vec<Case> {
    let flood = |name, rule, frame: Vec<u8>| {
        whole(name, rule, (503, TERMINATION), move |stream| [frame.repeat(5_000), good(stream)].concat())
    };
    vec![
        flood("PINGs of an upstream", "10.5", frame(kind::PING, 0, 0, &[0; 8])),
        flood("SETTINGS of an upstream", "10.5", frame(kind::SETTINGS, 0, 0, b"")),
        flood("WINDOW_UPDATEs of an upstream", "10.5", frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        flood("PRIORITYs of an upstream", "10.5", frame(kind::PRIORITY, 0, 3, &[0; 5])),
        flood("unknown frames of an upstream", "10.5", frame(0xfe, 0, 0, b"")),
        whole("a few PINGs of an upstream", "10.5", (200, "ok"), |stream| {
            [frame(kind::PING, 0, 0, &[0; 8]).repeat(50), good(stream)].concat()
        }),
        whole("empty CONTINUATIONs of an upstream", "10.5", (503, TERMINATION), |stream| {
            let first = frame(kind::HEADERS, 0, stream, &frames::block(&[OK]));
            [first, frame(kind::CONTINUATION, 0, stream, b"").repeat(5_000)].concat()
        }),
        bad("CONTINUATIONs of an upstream without end", "10.5", |stream| {
            let first = frame(kind::HEADERS, 0, stream, &frames::block(&[OK]));
            let more = frame(kind::CONTINUATION, 0, stream, &frames::block(&[(b"a", b"b")]));
            [first, more.repeat(1_000)].concat()
        }),
        whole("informational answers of an upstream", "10.5", (200, "ok"), |stream| {
            [headers(stream, 0, &[(b":status", b"103")]).repeat(500), good(stream)].concat()
        }),
        flood(
            "too many informational answers of an upstream",
            "10.5",
            headers(1, 0, &[(b":status", b"103")]),
        ),
    ]
}

/// The clients beside it are served, also on the connection that is left.
async fn others_are_served(proxy: SocketAddr) -> Result<(), String> {
    for _ in 0..3 {
        let answer = support::Request::get("/other").try_send(proxy).await?;
        if answer.status != 200 || answer.text() != "ok" {
            return Err(format!("another client gets {} {}", answer.status, answer.text()));
        }
    }
    Ok(())
}

async fn stage() -> (Upstream, TestProxy) {
    let upstream = Upstream::new().await;
    let mesh =
        Mesh::new().service("catalog", "http2/8000").endpoint("catalog", "http2", "v1", upstream.address);
    // A refused stream would be asked for again.
    let mesh = mesh.with(
        "istio.yaml",
        &support::mesh::virtual_service(
            "catalog",
            "  - retries: {attempts: 0}\n    route: [{destination: {host: catalog}}]\n",
        ),
    );
    (upstream, TestProxy::of(mesh).listen("catalog", 8000).ready().await)
}

async fn check(cases: Vec<Case>) -> TestProxy {
    let (upstream, proxy) = stage().await;
    let (quiet, to) = (Duration::from_millis(1500), proxy.listener(0));
    let mut failures = Vec::new();
    for Case { name, rule, script, seen } in cases {
        upstream.play(&script);
        let one = ask_http1(("GET", false), to, quiet).await;
        let first = others_are_served(to).await;
        upstream.play(&script);
        let two = ask_http2(("GET", false), to, quiet).await;
        if one != seen || two != seen {
            failures.push(format!("{name} ({rule}): {one:?} and {two:?}, not {seen:?}"));
        }
        for others in [first, others_are_served(to).await] {
            failures.extend(others.err().map(|error| format!("{name}: {error}")));
        }
    }
    assert!(failures.is_empty(), "{} cases:\n  {}", failures.len(), failures.join("\n  "));
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_of_answers() {
    check(heads()).await;
    check(in_two_frames(heads()).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_answers() {
    check(bodies()).await;
    check(in_two_frames(bodies()).collect()).await;
}

/// RFC 9110 sections 9.3.2, 15.3.5 and 15.4.5: the head is the whole answer, and what comes behind it reaches nobody. A client
/// of HTTP/2 is told that something was wrong, as by Envoy; to one of HTTP/1 the answer is over.
#[tokio::test(flavor = "multi_thread")]
async fn data_behind_heads_that_are_whole_answers() {
    const INTERNAL_ERROR: u32 = 2;
    let (upstream, proxy) = stage().await;
    let (quiet, to) = (Duration::from_millis(1500), proxy.listener(0));
    let cases: [(&str, &'static [Field], u16); 5] = [
        ("GET", &[(b":status", b"204")], 204),
        ("GET", &[(b":status", b"304")], 304),
        ("GET", &[(b":status", b"304"), (b"content-length", b"2")], 304),
        ("GET", &[(b":status", b"304"), (b"content-length", b"5")], 304),
        ("HEAD", &[OK], 200),
    ];
    for (method, fields, status) in cases {
        let case = format!("{method} {status}");
        let script = Script { answer: Arc::new(head(fields)), closes: false };
        upstream.play(&script);
        let one = ask_http1((method, false), to, quiet).await;
        assert_eq!(one, Seen::Whole(status, String::new()), "{case}");
        others_are_served(to).await.expect(&case);
        upstream.play(&script);
        let request = [
            (&b":method"[..], method.as_bytes()),
            (b":scheme", b"http"),
            (b":authority", b"catalog"),
            (b":path", b"/"),
        ];
        let mut client = frames::Client::connect(to).await;
        client.send(&[frames::hello(), headers(1, END_STREAM, &request)].concat()).await;
        assert!(client.read_to_end(1, quiet).await, "{case}");
        let stream = &client.streams[&1];
        let seen = (stream.status, &stream.body[..], stream.reset);
        assert_eq!(seen, (Some(status), &b""[..], Some(INTERNAL_ERROR)), "{case}");
        others_are_served(to).await.expect(&case);
    }
}

/// What ends such a stream in order is no body, also where the head tells the length of one (RFC 9110 section 8.6).
#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_whole_answers_end_by_an_empty_frame_too() {
    let (upstream, proxy) = stage().await;
    let (quiet, to) = (Duration::from_millis(1500), proxy.listener(0));
    const LENGTH: Field = (b"content-length", b"5");
    let cases: [(&str, &'static [u8], u16); 3] =
        [("GET", b"204", 204), ("GET", b"304", 304), ("HEAD", b"200", 200)];
    for (method, code, status) in cases {
        for lengths in [vec![], vec![LENGTH]] {
            // As it is, and with padding.
            for (flags, payload) in [(END_STREAM, &b""[..]), (END_STREAM | frames::PADDED, b"\x02\0\0")] {
                let case = format!("{method} {status} {lengths:?} {flags}");
                let fields = [vec![(&b":status"[..], code)], lengths.clone()].concat();
                let answer =
                    move |stream| [headers(stream, 0, &fields), data(stream, flags, payload)].concat();
                let script = Script { answer: Arc::new(answer), closes: false };
                upstream.play(&script);
                let one = ask_http1((method, false), to, quiet).await;
                upstream.play(&script);
                let two = ask_http2((method, false), to, quiet).await;
                let whole = Seen::Whole(status, String::new());
                assert_eq!((&one, &two), (&whole, &whole), "{case}");
                others_are_served(to).await.expect(&case);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_out_of_place() {
    check(out_of_place()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_upstreams_end_their_connections() {
    let proxy = check(floods()).await;
    // Each flood was asked for over HTTP/1 and over HTTP/2.
    for (limit, count) in [
        ("http2_control_frames_max", 10.0),
        ("http2_empty_frames_max", 2.0),
        ("http2_answer_heads_max", 2.0),
        ("http2_library", 2.0),
    ] {
        assert_eq!(
            proxy.metric("weft_limit_reached_total", &[("limit", limit)]).await,
            Some(count),
            "{limit}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_frames_that_ends_at_any_byte_is_whole_only_at_its_end() {
    let (upstream, proxy) = stage().await;
    let answer = |stream| {
        [
            headers(stream, 0, &[(b":status", b"103")]),
            headers(stream, 0, &[OK]),
            data(stream, 0, b"o"),
            data(stream, 0, b"k"),
            headers(stream, END_STREAM, &[(b"x-a", b"b")]),
        ]
        .concat()
    };
    let (length, quiet, to) = (answer(1).len(), support::PATIENCE / 4, proxy.listener(0));
    for at in 0..=length {
        let script = Script { answer: Arc::new(move |stream| answer(stream)[..at].to_vec()), closes: true };
        upstream.play(&script);
        let one = ask_http1(("GET", false), to, quiet).await;
        upstream.play(&script);
        let two = ask_http2(("GET", false), to, quiet).await;
        for seen in [one, two] {
            match &seen {
                Seen::Whole(200, body) => assert!(at == length && body == "ok", "at {at}: {seen:?}"),
                Seen::Whole(502 | 503, _) | Seen::Cut => assert!(at < length, "at {at}: {seen:?}"),
                Seen::Whole(..) | Seen::Waiting => panic!("at {at}: {seen:?}"),
            }
        }
    }
    others_are_served(to).await.expect("others are served");
}
