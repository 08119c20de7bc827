use super::*;

const BOTH: Inspect = Inspect { tls: true, http: true };

/// Looks at bytes that come at once.
fn detect(bytes: &[u8], inspect: Inspect) -> Verdict {
    Detector::new(inspect).detect(bytes)
}

/// A ClientHello of a client that asks for these.
fn hello(server_name: Option<&str>, protocols: &[&str], padding: usize) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = server_name {
        let entry = [&[0], &*vector16(name.as_bytes())].concat();
        extension(&mut extensions, 0, &vector16(&entry));
    }
    if !protocols.is_empty() {
        let names: Vec<u8> = protocols.iter().flat_map(|name| vector8(name.as_bytes())).collect();
        extension(&mut extensions, 16, &vector16(&names));
    }
    for kind in (1000..).take(padding / 1000) {
        extension(&mut extensions, kind, &[0; 996]);
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend(vector8(&[9; 32]));
    body.extend(vector16(&[0x13, 0x01, 0x13, 0x02]));
    body.extend(vector8(&[0]));
    body.extend(vector16(&extensions));
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1], &length[1..], &body].concat()
}

fn vector8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn vector16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn extension(out: &mut Vec<u8>, kind: u16, content: &[u8]) {
    out.extend(kind.to_be_bytes());
    out.extend(vector16(content));
}

/// A handshake message in records of so many bytes.
fn records(message: &[u8], bytes: usize) -> Vec<u8> {
    message.chunks(bytes).flat_map(|part| [&[22, 3, 1], &*vector16(part)].concat()).collect()
}

fn tls(server_name: Option<&str>, protocols: &[&str]) -> Verdict {
    Verdict::Tls(ClientHello {
        server_name: server_name.map(Into::into),
        protocols: protocols.iter().map(|name| (*name).into()).collect(),
    })
}

#[test]
fn what_the_first_bytes_say() {
    let plain = |bytes: &[u8], expected| {
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(detect(bytes, BOTH), expected, "{text:?}");
    };
    plain(b"", Verdict::NeedMore);
    plain(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Verdict::Http11);
    plain(b"GET / HTTP/1.1\n", Verdict::Http11);
    plain(b"GET / HTTP/1.0\r\n", Verdict::Http10);
    plain(b"GET /\r\n", Verdict::Http10);
    plain(b"GET http://a/b HTTP/1.1\r\n", Verdict::Http11);
    plain(b"GET /\xc3\xa4 HTTP/1.1\r\n", Verdict::Http11);
    plain(b"OPTIONS * HTTP/1.1\r\n", Verdict::Http11);
    plain(b"MSEARCH * HTTP/1.1\r\n", Verdict::Http11);
    plain(b"CONNECT a:443 HTTP/1.1\r\n", Verdict::Http11);
    plain(b"CONNECT / HTTP/1.1\r\n", Verdict::Http11);
    plain(b"GET a+b://c HTTP/1.1\r\n", Verdict::Http11);
    plain(HTTP2_PREFACE, Verdict::Http2);
    plain(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", Verdict::Http2);
    plain(b"PRI * HTTP/2.0\r\n\r\nXX", Verdict::Http10);
    plain(b"PRI / HTTP/1.1\r\n", Verdict::Http11);
    // Any token is a method, whoever knows it.
    for method in ["get", "Get", "FOO", "QUERY", "M-SEARCH", "123", "*", "!#$%&'*+-.^_`|~"] {
        plain(format!("{method} /a HTTP/1.1\r\n").as_bytes(), Verdict::Http11);
        plain(method.as_bytes(), Verdict::NeedMore);
    }
    plain(b"get /key\r\n", Verdict::Http10);
    // White space of other kinds, and more of it.
    plain(b"GET\t/a\x0bHTTP/1.1\r\n", Verdict::Http11);
    plain(b"GET\r/ \0HTTP/1.1\x1c \r\n", Verdict::Http11);
    plain(b"GET /a\r HTTP/1.1\r\n", Verdict::Http11);
    plain(b"GET /a\t HTTP/1.1\r\n", Verdict::Http11);
    // What Envoy passes on, and a lenient server may serve.
    plain(b"GET /a b HTTP/1.1\r\n", Verdict::Http11);
    plain(b"GET /\x80\x7f\x01 HTTP/1.1\r\n", Verdict::Http11);
    // What only looks like them.
    plain(b"GET", Verdict::NeedMore);
    plain(b"GET\r\n", Verdict::Other);
    plain(b"GET  \r\n", Verdict::Other);
    plain(b"CONNECT \r\n", Verdict::Other);
    plain(b"GET / FTP/1.1\r\n", Verdict::Other);
    plain(b"GET / http/1.1\r\n", Verdict::Other);
    plain(b"GET / HTTP/1.10\r\n", Verdict::Other);
    plain(b"GET / HTTP/1.1 x\r\n", Verdict::Other);
    plain(b"GET / x HTTP/1.0\r\n", Verdict::Other);
    plain(b"GET rows HTTP/1.1\r\n", Verdict::Other);
    plain(b"GET rows", Verdict::NeedMore);
    plain(b"GET a/b", Verdict::Other);
    plain(b"GET ?", Verdict::Other);
    plain(b"GET http:a HTTP/1.1\r\n", Verdict::Other);
    plain(b"connect a:80 HTTP/1.1\r\n", Verdict::Other);
    plain(b"\r\nGET / HTTP/1.1\r\n", Verdict::Other);
    plain(b" GET / HTTP/1.1\r\n", Verdict::Other);
    plain(b"G@", Verdict::Other);
    plain(b"G\xc3", Verdict::Other);
    plain(b"GET\0/ HTTP/1.1\r\n", Verdict::Other);
    plain(b"HTTP/1.1 200 OK\r\n", Verdict::Other);
    plain(b"HELO mail\r\n", Verdict::Other);
    plain(b"PING\r\n", Verdict::Other);
    plain(b"set /key 0 0 5\r\n", Verdict::Other);
    plain(b"AMQP\0\0\x09\x01", Verdict::Other);
    plain(b"AMQP\x03\x01\0\0", Verdict::Other);
    plain(b"JRMI\0\x02K", Verdict::Other);
    plain(b"0\x0c\x02\x01\x01\x60", Verdict::Other);
    plain(b"*1\r\n$4\r\nPING\r\n", Verdict::Other);
    plain(b"\0\0\0\x08\x04\xd2\x16\x2f", Verdict::Other);
    plain(b"\x16", Verdict::NeedMore);
    plain(b"\x15\x03\x01", Verdict::Other);
    plain(b"\x16\x02\x01", Verdict::Other);
    plain(b"\x16\x03\x09", Verdict::NeedMore);
    plain(b"\x16\x03\x01\x00\x00", Verdict::NeedMore);
    plain(b"\x16\x03\x01\x00\x00\x15", Verdict::Other);
    plain(b"\x16\x03\x01\xff\xff", Verdict::Other);
    // A server's message.
    plain(b"\x16\x03\x03\x00\x10\x02", Verdict::Other);
}

#[test]
fn what_a_client_hello_asks_for() {
    let check = |server_name, protocols: &[&str]| {
        let bytes = records(&hello(server_name, protocols, 0), 16_384);
        assert_eq!(detect(&bytes, BOTH), tls(server_name, protocols));
    };
    check(None, &[]);
    check(Some("ledger.shop.svc.cluster.local"), &[]);
    check(Some("outbound_.8000_._.catalog.shop.svc.cluster.local"), &["istio-http/1.1", "istio", "h2"]);
    check(None, &["istio-peer-exchange"]);
    let upper = records(&hello(Some("Payments.SHOP"), &[], 0), 16_384);
    assert_eq!(detect(&upper, BOTH), tls(Some("payments.shop"), &[]));
    // Odd ones that name their server all the same.
    check(Some("caf\u{e9} bar.shop"), &[]);
    check(Some(".shop"), &[]);
    let odd = |what: &str, bytes: &[u8]| assert_eq!(detect(bytes, BOTH), tls(Some("a"), &[]), "{what}");
    odd("an empty protocol", &records(&hello(Some("a"), &[""], 0), 16_384));
    let mut bytes = records(&hello(Some("a"), &[], 0), 16_384);
    odd("an empty record before", &[&[22, 3, 1, 0, 0], &*bytes].concat());
    bytes[2] = 255;
    odd("a version that nobody knows", &bytes);
    for version in [[0, 0], [2, 0], [3, 0], [4, 0], [255, 255]] {
        let mut bytes = records(&hello(Some("a"), &[], 0), 16_384);
        bytes[5 + 4..5 + 4 + 2].copy_from_slice(&version);
        odd("a version of TLS that nobody speaks", &bytes);
    }
    // The only method of compression, after record, header, version, random, session, suites and its count.
    bytes[5 + 4 + 2 + 32 + 33 + 6 + 1] = 1;
    odd("a compression", &bytes);
    let bytes = hello(Some("\u{80}"), &[], 0);
    let broken: Vec<u8> = bytes.iter().map(|byte| if *byte == 0xc2 { 0xff } else { *byte }).collect();
    assert_eq!(detect(&records(&broken, 16_384), BOTH), tls(Some("\u{fffd}\u{fffd}"), &[]));
}

#[test]
fn a_malformed_client_hello_is_not_tls() {
    let check = |what: &str, message: &[u8]| {
        assert_eq!(detect(&records(message, 16_384), BOTH), Verdict::Other, "{what}");
    };
    check("an empty name", &hello(Some(""), &[], 0));
    check("a name with a zero", &hello(Some("a\0b"), &[], 0));
    check("a name of two lines", &hello(Some("a\nb"), &[], 0));
    let mut short = hello(Some("a"), &[], 0);
    short[3] -= 1;
    check("a body that is too short", &short);
    let mut suites = hello(None, &[], 0);
    // The count of suites, after header, version, random and session.
    suites[4 + 2 + 32 + 33 + 1] = 3;
    check("half a suite", &suites);
    // Of the same name, too.
    for name in [&b"a"[..], b"b"] {
        let mut entry = Vec::new();
        extension(&mut entry, 0, &vector16(&[&[0], &*vector16(name)].concat()));
        check("two names", &with(&hello(Some("a"), &[], 0), &entry));
    }
    let unknown = [0xfa, 0xfa, 0, 0];
    check("an unknown extension twice", &with(&hello(Some("a"), &[], 0), &unknown.repeat(2)));
}

/// The ClientHello `message`, which has a name of one letter and nothing else, with further extensions.
fn with(message: &[u8], extensions: &[u8]) -> Vec<u8> {
    let own = message.len() - (2 + 2 + 2 + 1 + 2 + 1);
    let body = [&message[4..own - 2], &vector16(&[&message[own..], extensions].concat())].concat();
    [&[1, 0], &*vector16(&body)].concat()
}

#[test]
fn each_cut_needs_more_and_never_says_something_else() {
    let message = hello(Some("catalog.shop"), &["istio", "h2"], 1_000);
    let whole = [
        (records(&message, 16_384), tls(Some("catalog.shop"), &["istio", "h2"])),
        (records(&message, 1), tls(Some("catalog.shop"), &["istio", "h2"])),
        (records(&message, 37), tls(Some("catalog.shop"), &["istio", "h2"])),
        (b"PATCH /a?b=c HTTP/1.1\r\n".to_vec(), Verdict::Http11),
        (b"m-search http://a HTTP/1.1\r\n".to_vec(), Verdict::Http11),
        (b"CHECKOUT / HTTP/1.0\n".to_vec(), Verdict::Http10),
        (HTTP2_PREFACE.to_vec(), Verdict::Http2),
    ];
    for (bytes, verdict) in whole {
        let mut as_they_come = Detector::new(BOTH);
        for end in 0..bytes.len() {
            assert_eq!(detect(&bytes[..end], BOTH), Verdict::NeedMore, "{end} of {verdict:?}");
            assert_eq!(as_they_come.detect(&bytes[..end]), Verdict::NeedMore, "{end} of {verdict:?}");
        }
        assert_eq!(as_they_come.detect(&bytes), verdict);
        assert_eq!(detect(&bytes, BOTH), verdict);
        let more = [&*bytes, b"and what follows"].concat();
        assert_eq!(detect(&more, BOTH), verdict);
    }
}

#[test]
fn bytes_that_are_wrong_do_no_harm() {
    // A verdict stays what it is however much more comes, whatever the bytes: one byte of each message is replaced by each
    // of several values.
    let message = records(&hello(Some("a.b"), &["h2"], 0), 50);
    let request = b"GET /items HTTP/1.1\r\n\r\n".to_vec();
    for bytes in [message, request] {
        for index in 0..bytes.len() {
            for value in [0, 1, b' ', b'\r', b'A', 0xff] {
                let mut bytes = bytes.clone();
                bytes[index] = value;
                let mut last = Verdict::NeedMore;
                let mut as_they_come = Detector::new(BOTH);
                for end in 0..=bytes.len() {
                    let verdict = detect(&bytes[..end], BOTH);
                    assert_eq!(as_they_come.detect(&bytes[..end]), verdict, "{index} {value} {end}");
                    assert!(last == Verdict::NeedMore || verdict == last, "{index} {value} {end}");
                    last = verdict;
                }
            }
        }
    }
}

#[test]
fn a_first_message_has_a_limit() {
    let announced = [&[22, 3, 1, 0x40, 0, 1, 1, 0, 0][..], &[0; 100]].concat();
    assert_eq!(detect(&announced, BOTH), Verdict::TooLarge);
    // As many tiny records as there may be, whose message is within its own limit.
    let tiny = records(&hello(None, &[], 20_000), 1);
    assert_eq!(detect(&tiny[..FIRST_BYTES_MAX - 1], BOTH), Verdict::NeedMore);
    assert_eq!(detect(&tiny[..FIRST_BYTES_MAX], BOTH), Verdict::TooLarge);
    let large = records(&hello(Some("a"), &[], 60_000), 16_384);
    assert_eq!(detect(&large, BOTH), tls(Some("a"), &[]));
    let line = [b"GET /", &*vec![b'a'; FIRST_BYTES_MAX]].concat();
    assert_eq!(detect(&line[..FIRST_BYTES_MAX - 1], BOTH), Verdict::NeedMore);
    assert_eq!(detect(&line[..FIRST_BYTES_MAX], BOTH), Verdict::TooLarge);
    assert_eq!(detect(&[b'F'; FIRST_BYTES_MAX], BOTH), Verdict::TooLarge);
}

#[test]
fn a_line_that_stays_without_its_end() {
    let check = |bytes: &[u8], ended, so_far| {
        let mut detector = Detector::new(BOTH);
        assert_eq!(detector.detect(bytes), Verdict::NeedMore);
        assert_eq!((detector.ended(bytes), detector.so_far(bytes)), (ended, so_far), "{bytes:?}");
    };
    check(b"GET /a HTTP/1.1", Verdict::Http11, Verdict::Http11);
    check(b"GET /a HT", Verdict::Other, Verdict::Http11);
    check(b"GET http://a", Verdict::Http10, Verdict::Http11);
    check(b"GET http", Verdict::Other, Verdict::Other);
    check(b"ruok", Verdict::Other, Verdict::Other);
    check(b"PRI * HTTP/2.0\r\n", Verdict::Http10, Verdict::Other);
    check(
        b"\x16\x03",
        Verdict::Unfinished("the client began a handshake of TLS and left in it"),
        Verdict::Unfinished("the client began a handshake of TLS and did not end it in time"),
    );
    let detector = Detector::new(Inspect { tls: true, http: false });
    assert_eq!(detector.ended(b"GET /a HTTP/1.1"), Verdict::Other);
}

#[test]
fn bytes_are_looked_at_once() {
    // What comes byte by byte is judged from where the last judgement left it.
    let tiny = records(&hello(Some("a"), &[], 10_000), 1);
    let mut detector = Detector::new(BOTH);
    for end in 0..tiny.len() {
        assert_eq!(detector.detect(&tiny[..end]), Verdict::NeedMore);
        assert!(detector.hello.passed() + 6 > end, "{} of {end}", detector.hello.passed());
    }
    assert_eq!(detector.detect(&tiny), tls(Some("a"), &[]));
    // A line of any bytes.
    let line = [&b"GET /"[..], &[0xc3; 1000], b" HTTP/1.1\r\n"].concat();
    let mut detector = Detector::new(BOTH);
    for end in 0..line.len() - 1 {
        assert_eq!(detector.detect(&line[..end]), Verdict::NeedMore);
        assert_eq!(detector.line, end);
    }
    assert_eq!(detector.detect(&line), Verdict::Http11);
}

#[test]
fn only_who_is_asked_looks() {
    let hello = records(&hello(None, &[], 0), 16_384);
    assert_eq!(detect(&hello, Inspect { tls: false, http: true }), Verdict::Other);
    assert_eq!(detect(b"GET / HTTP/1.1\r\n", Inspect { tls: true, http: false }), Verdict::Other);
    assert_eq!(detect(b"", Inspect { tls: false, http: false }), Verdict::Other);
}
