//! Bodies of answers: how long they are, and how they end before that (RFC 9112 sections 6, 7.1 and 8).

use super::{bad, cut, whole};
use crate::upstreams::AnswerCase;

/// An answer with these headers and what follows its head.
fn answer(headers: &str, rest: impl AsRef<[u8]>) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n").as_bytes(), rest.as_ref()].concat()
}

pub(crate) fn cases() -> Vec<AnswerCase> {
    [lengths(), framing(), chunked(), bodiless()].concat()
}

fn lengths() -> Vec<AnswerCase> {
    let not = |name, headers| bad(name, "6.3", answer(headers, "ok"));
    vec![
        whole("an answer with a length", "6.2", answer("content-length: 2", "ok"), (200, "ok")),
        whole("an answer of nothing", "6.2", answer("content-length: 0", ""), (200, "")),
        whole("an answer that ends with its connection", "6.3", answer("x-a: b", "ok"), (200, "ok")).closes(),
        cut("a body shorter than its length", "8", answer("content-length: 5", "ok")).closes(),
        cut("a length without an answer's body", "8", answer("content-length: 5", "")).closes(),
        whole("a body longer than its length", "6.3", answer("content-length: 2", "ok more"), (200, "ok")),
        whole(
            "a body longer than its length, and the end",
            "6.3",
            answer("content-length: 2", "ok more"),
            (200, "ok"),
        )
        .closes(),
        not("an answer's length that is no number", "content-length: x"),
        not("an answer's length with a plus", "content-length: +2"),
        not("an answer's length with a minus", "content-length: -2"),
        not("an answer's empty length", "content-length:"),
        not("an answer's list of different lengths", "content-length: 2, 3"),
        not("two different lengths of an answer", "content-length: 2\r\ncontent-length: 3"),
        not("two equal lengths of an answer", "content-length: 2\r\ncontent-length: 2"),
        not("an answer's list of equal lengths", "content-length: 2, 2"),
        not("an answer's length above 2^64", "content-length: 18446744073709551618"),
    ]
}

fn framing() -> Vec<AnswerCase> {
    let ok = "2\r\nok\r\n0\r\n\r\n";
    let not = |name, headers| bad(name, "6.1", answer(headers, ok));
    vec![
        whole("a chunked answer", "6.1", answer("transfer-encoding: chunked", ok), (200, "ok")),
        not("an answer with a length and chunked", "content-length: 2\r\ntransfer-encoding: chunked"),
        not("an answer chunked and with a length", "transfer-encoding: chunked\r\ncontent-length: 2"),
        not("an answer with a length of 0 and chunked", "content-length: 0\r\ntransfer-encoding: chunked"),
        not("an answer with gzip, then chunked", "transfer-encoding: gzip, chunked"),
        not("an answer chunked twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
        not("an answer with gzip as its coding", "transfer-encoding: gzip"),
        not("an answer with identity as its coding", "transfer-encoding: identity"),
        not("an answer with an empty coding", "transfer-encoding:"),
        not("an answer chunked, then gzip", "transfer-encoding: chunked, gzip"),
        bad(
            "a chunked answer of HTTP/1.0",
            "6.1",
            format!("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{ok}"),
        )
        .closes(),
    ]
}

fn chunked() -> Vec<AnswerCase> {
    let of = |body: &str| answer("transfer-encoding: chunked", body);
    let good = |name, body| whole(name, "7.1", of(body), (200, "ok"));
    let broken = |name, body| cut(name, "7.1", of(body));
    vec![
        good("an answer's chunk with an extension", "2;a=b\r\nok\r\n0\r\n\r\n"),
        good("a chunked answer with a trailer", "2\r\nok\r\n0\r\nx-a: b\r\n\r\n"),
        good("a chunked answer, and more", "2\r\nok\r\n0\r\n\r\nmore"),
        broken("an answer's chunk size that is no number", "2\r\nok\r\nx\r\n\r\n"),
        broken("an answer's empty chunk size", "2\r\nok\r\n\r\n\r\n"),
        broken("an answer's chunk size above 2^64", "2\r\nok\r\n10000000000000002\r\nok\r\n0\r\n\r\n"),
        broken("an answer's chunk longer than its size", "2\r\nokok\r\n0\r\n\r\n"),
        broken("an answer's chunk ended by an LF", "2\r\nok\n0\r\n\r\n"),
        broken("an answer's size ended by an LF", "2\r\nok\r\n2\nok\r\n0\r\n\r\n"),
        broken("an answer's extension with an LF", "2\r\nok\r\n2;a\nb\r\nok\r\n0\r\n\r\n"),
        broken("an answer's bad trailer", "2\r\nok\r\n0\r\nx a: b\r\n\r\n"),
        broken("a chunked answer that ends in a chunk", "2\r\nok\r\n5\r\nok").closes(),
        broken("a chunked answer that ends in a size", "2\r\nok\r\n5").closes(),
        broken("a chunked answer without a last chunk", "2\r\nok\r\n").closes(),
        broken("a chunked answer without a last line", "2\r\nok\r\n0\r\n").closes(),
        broken("a chunked answer that ends in its trailers", "2\r\nok\r\n0\r\nx-a: b\r\n").closes(),
    ]
}

fn bodiless() -> Vec<AnswerCase> {
    let with = |line: &str, rest: &str| format!("HTTP/1.1 {line}\r\n{rest}");
    vec![
        whole("204", "6.3", with("204 No Content", "\r\n"), (204, "")),
        whole(
            "204 with a length of 0",
            "6.3",
            with("204 No Content", "content-length: 0\r\n\r\n"),
            (204, ""),
        ),
        bad("204 with a body", "6.3", with("204 No Content", "content-length: 2\r\n\r\nok")),
        bad(
            "204 with a chunked body",
            "6.3",
            with("204 No Content", "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ),
        whole("304", "6.3", with("304 Not Modified", "content-length: 5\r\n\r\n"), (304, "")),
        whole("304 with a body", "6.3", with("304 Not Modified", "content-length: 2\r\n\r\nok"), (304, "")),
        whole(
            "205 with a body",
            "RFC 9110 15.3.6",
            with("205 Reset Content", "content-length: 2\r\n\r\nok"),
            (205, "ok"),
        ),
        whole("an answer to HEAD", "6.3", answer("content-length: 5", ""), (200, "")).to("HEAD"),
        whole("a chunked answer to HEAD", "6.3", answer("transfer-encoding: chunked", ""), (200, ""))
            .to("HEAD"),
        whole("an answer to HEAD with a body", "6.3", answer("content-length: 2", "ok"), (200, ""))
            .to("HEAD"),
        whole("an answer to HEAD without a length", "6.3", answer("x-a: b", ""), (200, "")).to("HEAD"),
        whole("an early answer", "9.3", answer("content-length: 2", "ok"), (200, "ok")).early(),
        whole(
            "an early error, and the end",
            "9.3",
            "HTTP/1.1 413 No\r\ncontent-length: 2\r\n\r\nok",
            (413, "ok"),
        )
        .early()
        .closes(),
        cut("an early answer that ends early", "9.3", answer("content-length: 5", "ok")).early().closes(),
        bad("an early end", "9.3", "").early().closes().terminates(),
        bad(
            "101 nobody asked for",
            "RFC 9110 15.2.2",
            with("101 Switching Protocols", "upgrade: x\r\nconnection: upgrade\r\n\r\n"),
        ),
    ]
}
