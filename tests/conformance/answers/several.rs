//! More than one answer: informational ones, floods of them, and answers to nobody (RFC 9110 section 15.2).

use super::{bad, whole};
use crate::upstreams::AnswerCase;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const STOLEN: &str = "HTTP/1.1 200 OK\r\nx-target: /stolen\r\ncontent-length: 6\r\n\r\nstolen";

pub(crate) fn cases() -> Vec<AnswerCase> {
    let good = |name, parts: &[&str]| whole(name, "RFC 9110 15.2", parts.concat(), (200, "ok"));
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    vec![
        good("100, then an answer", &["HTTP/1.1 100 Continue\r\n\r\n", OK]),
        good("102, then an answer", &["HTTP/1.1 102 Processing\r\n\r\n", OK]),
        good("103, then an answer", &[hints, OK]),
        good(
            "103 with a length, then an answer",
            &["HTTP/1.1 103 Early Hints\r\ncontent-length: 50\r\n\r\n", OK],
        ),
        good("ten of 103, then an answer", &[&hints.repeat(10), OK]),
        bad("103, and the end", "RFC 9110 15.2", hints).closes().terminates(),
        good("thirty of 100", &[OK]).behind(b"HTTP/1.1 100 Continue\r\n\r\n", 30),
        bad("a thousand of 100", "10.5", OK).behind(b"HTTP/1.1 100 Continue\r\n\r\n", 1_000),
        bad("a hundred thousand of 103", "10.5", OK).behind(hints.as_bytes(), 100_000),
        good("two answers", &[OK, STOLEN]),
        good("two answers, and the end", &[OK, STOLEN]).closes(),
        good("a hundred answers", &[OK, &STOLEN.repeat(100)]),
        good("an answer and half another", &[OK, "HTTP/1.1 200 OK\r\nx-target: /st"]),
        good("an answer and an empty line", &[OK, "\r\n"]),
        good("an answer and garbage", &[OK, "\x16\x03\x01"]),
        whole(
            "an answer to HEAD, and a body that is an answer",
            "9.2",
            ["HTTP/1.1 200 OK\r\ncontent-length: 70\r\n\r\n", STOLEN].concat(),
            (200, ""),
        )
        .to("HEAD"),
        whole(
            "304, and a body that is an answer",
            "9.2",
            ["HTTP/1.1 304 Not Modified\r\ncontent-length: 70\r\n\r\n", STOLEN].concat(),
            (304, ""),
        ),
        whole("204, and an answer", "9.2", ["HTTP/1.1 204 No Content\r\n\r\n", STOLEN].concat(), (204, "")),
    ]
}
