//! Heads of answers: status lines, fields, sizes (RFC 9112 sections 4 and 5).

use super::{bad, whole};
use crate::upstreams::AnswerCase;

/// An answer `ok` with this status line.
fn status(line: &str) -> Vec<u8> {
    format!("{line}\r\ncontent-length: 2\r\n\r\nok").into_bytes()
}

/// An answer `ok` with these lines, without the last one's end.
fn with(lines: impl AsRef<[u8]>) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\n", lines.as_ref(), b"\r\ncontent-length: 2\r\n\r\nok"].concat()
}

pub(crate) fn cases() -> Vec<AnswerCase> {
    [lines(), fields(), sizes()].concat()
}

fn lines() -> Vec<AnswerCase> {
    let good = |name, line, code| whole(name, "4", status(line), (code, "ok"));
    let not = |name, line| bad(name, "4", status(line));
    vec![
        good("an answer", "HTTP/1.1 200 OK", 200),
        good("an answer without reason", "HTTP/1.1 200 ", 200),
        good("an answer without a space before its reason", "HTTP/1.1 200", 200),
        good("a long reason", "HTTP/1.1 200 It went very well, thank you", 200),
        good("an unknown status", "HTTP/1.1 299 Fine", 299),
        good("an error of the upstream", "HTTP/1.1 500 Oops", 500),
        good("a status of 599", "HTTP/1.1 599 Oops", 599),
        good("an answer of HTTP/1.0", "HTTP/1.0 200 OK", 200),
        not("a status of letters", "HTTP/1.1 abc OK"),
        not("a status of two digits", "HTTP/1.1 20 OK"),
        not("a status of four digits", "HTTP/1.1 2000 OK"),
        not("a status of 0", "HTTP/1.1 000 OK"),
        not("a status of 99", "HTTP/1.1 099 OK"),
        not("a negative status", "HTTP/1.1 -20 OK"),
        not("no status", "HTTP/1.1"),
        not("two spaces before the status", "HTTP/1.1  200 OK"),
        not("an answer of HTTP/2", "HTTP/2 200 OK"),
        not("an answer of HTTP/1.2", "HTTP/1.2 200 OK"),
        not("an answer of HTTP/0.9", "HTTP/0.9 200 OK"),
        not("an answer of another protocol", "ICY 200 OK"),
        not("a request as an answer", "GET / HTTP/1.1"),
        not("a NUL in the reason", "HTTP/1.1 200 O\0K"),
        not("a CR in the reason", "HTTP/1.1 200 O\rK"),
        not("an empty line before an answer", "\r\nHTTP/1.1 200 OK"),
        not("an LF before an answer", "\nHTTP/1.1 200 OK"),
        bad("an answer without a status line", "4", "content-length: 2\r\n\r\nok"),
        bad("garbage as an answer", "4", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n"),
        bad("a page as an answer", "4", "<html>ok</html>\r\n\r\n"),
        bad("nothing, and the end", "4", "").closes().terminates(),
        bad("half a status line, and the end", "4", "HTTP/1.1 20").closes().terminates(),
        bad("half a head, and the end", "4", "HTTP/1.1 200 OK\r\ncontent-le").closes().terminates(),
    ]
}

fn fields() -> Vec<AnswerCase> {
    let good = |name, lines: &[u8]| whole(name, "5", with(lines), (200, "ok"));
    let not = |name, lines: &[u8]| bad(name, "5", with(lines));
    vec![
        good("a header of an answer", b"x-a: b"),
        good("bytes above ASCII in a header of an answer", b"x-a: \xe9"),
        good("a Connection that names a header", b"connection: x-a\r\nx-a: b"),
        not("a space before an answer's colon", b"x-a : b"),
        not("a header of an answer without a colon", b"x-a"),
        not("a header of an answer without a name", b": b"),
        not("a NUL in a header of an answer", b"x-a: b\0"),
        not("a CR in a header of an answer", b"x-a: b\rc"),
        not("a control character in a header of an answer", b"x-a: \x01"),
        not("a folded header of an answer", b"x-a: b\r\n c"),
        not("a folded length of an answer", b"content-length:\r\n 5"),
        not("a byte above ASCII in an answer's name", b"x\xe9: b"),
    ]
}

fn sizes() -> Vec<AnswerCase> {
    let many = |count: usize| "x-a: b\r\n".repeat(count).trim_end().to_owned();
    let endless = |name, line: &[u8], begun: &[u8]| {
        bad(name, "RFC 6585 5", begun).behind(line, 100_000_000 / line.len())
    };
    vec![
        whole("ninety headers of an answer", "5", with(many(90)), (200, "ok")),
        whole(
            "a header of 50,000 bytes of an answer",
            "5",
            with(format!("x-a: {}", "b".repeat(50_000))),
            (200, "ok"),
        ),
        bad("a hundred and fifty headers of an answer", "5", with(many(150))),
        bad("a header of 90,000 bytes of an answer", "5", with(format!("x-a: {}", "b".repeat(90_000)))),
        endless("100 MB of one line", b"x", b""),
        endless("100 MB of empty lines", b"\r\n", b""),
    ]
}
