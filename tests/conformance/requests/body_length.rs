//! How long a body is: Content-Length, Transfer-Encoding, both, several (RFC 9112 section 6).

use crate::case::{Case, forwarded, refused};

/// A request with these framing headers, and what follows the head.
fn post(headers: &str, rest: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nhost: catalog\r\n{headers}\r\n\r\n{rest}").into_bytes()
}

pub(crate) fn cases() -> Vec<Case> {
    [lengths(), codings(), both()].concat()
}

fn lengths() -> Vec<Case> {
    let good = |name, headers, rest, reached| forwarded(name, "6.2", post(headers, rest), &[reached]);
    let bad = |name, headers, rest| refused(name, "6.3", post(headers, rest), 400);
    vec![
        good("a body with its length", "content-length: 3", "abc", "POST catalog /a abc"),
        good("a body of length 0", "content-length: 0", "", "POST catalog /a"),
        good("a POST without framing has no body", "x: y", "", "POST catalog /a"),
        good("leading zeros in a length", "content-length: 0003", "abc", "POST catalog /a abc"),
        good("spaces around a length", "content-length: \t 3 \t", "abc", "POST catalog /a abc"),
        good("a length in capitals", "CONTENT-LENGTH: 3", "abc", "POST catalog /a abc"),
        forwarded(
            "a GET with a length has a body",
            "RFC 9110 9.3.1",
            "GET /a HTTP/1.1\r\nhost: catalog\r\ncontent-length: 3\r\n\r\nabc",
            &["GET catalog /a abc"],
        ),
        forwarded(
            "a HEAD with a length has a body",
            "RFC 9110 9.3.2",
            "HEAD /a HTTP/1.1\r\nhost: catalog\r\ncontent-length: 3\r\n\r\nabc",
            &["HEAD catalog /a abc"],
        )
        .head(),
        forwarded(
            "a DELETE with a length has a body",
            "RFC 9110 9.3.5",
            "DELETE /a HTTP/1.1\r\nhost: catalog\r\ncontent-length: 3\r\n\r\nabc",
            &["DELETE catalog /a abc"],
        ),
        forwarded(
            "what follows a body is the next request",
            "6.3",
            post("content-length: 3", "abcGET /b HTTP/1.1\r\nhost: catalog\r\n\r\n"),
            &["POST catalog /a abc", "GET catalog /b"],
        ),
        forwarded(
            "what follows a GET without length is the next request",
            "6.3",
            "GET /a HTTP/1.1\r\nhost: catalog\r\n\r\nGET /b HTTP/1.1\r\nhost: catalog\r\n\r\n",
            &["GET catalog /a", "GET catalog /b"],
        ),
        refused("a body nobody announced is no request", "6.3", post("x: y", "abc\r\n\r\n"), 400)
            .answers(&[200, 400])
            .reaches(&["POST catalog /a"]),
        bad("a length with a plus", "content-length: +3", "abc"),
        bad("a length with a minus", "content-length: -3", "abc"),
        bad("an empty length", "content-length:", "abc"),
        bad("a length of spaces", "content-length:   ", "abc"),
        bad("a length in hexadecimal", "content-length: 0x3", "abc"),
        bad("a length with letters", "content-length: 3a", "abc"),
        bad("a length with a fraction", "content-length: 3.0", "abc"),
        bad("a length in two words", "content-length: 3 3", "abc"),
        bad("a length in quotes", "content-length: \"3\"", "abc"),
        bad("a length with an exponent", "content-length: 3e0", "abc"),
        bad("a length in full-width digits", "content-length: \u{ff13}", "abc"),
        bad("a length with an underscore", "content-length: 1_0", "0123456789"),
        bad("a length of 2^64", "content-length: 18446744073709551616", "abc"),
        bad("a length of thirty digits", "content-length: 100000000000000000000000000000", "abc"),
        bad("two different lengths", "content-length: 3\r\ncontent-length: 4", "abcd"),
        bad("two different lengths, the second 0", "content-length: 3\r\ncontent-length: 0", "abc"),
        bad("two equal lengths", "content-length: 3\r\ncontent-length: 3", "abc"),
        bad("a list of different lengths", "content-length: 3, 4", "abcd"),
        bad("a list of equal lengths", "content-length: 3, 3", "abc"),
        bad("a list of a length and nothing", "content-length: 3,", "abc"),
        bad("two lengths, the second empty", "content-length: 3\r\ncontent-length:", "abc"),
        bad("two lengths, the second no number", "content-length: 3\r\ncontent-length: x", "abc"),
        bad(
            "a length that Connection names, twice",
            "content-length: 3\r\nconnection: content-length\r\ncontent-length: 4",
            "abcd",
        ),
        forwarded("a body that ends early", "6.3", post("content-length: 10", "abc"), &[]).waits(),
        forwarded("a length without a body", "6.3", post("content-length: 10", ""), &[]).waits(),
        forwarded(
            "a huge length and little body",
            "6.3",
            post("content-length: 4611686018427387904", "abc"),
            &[],
        )
        .waits(),
        forwarded("a length of 2^64 - 1", "6.3", post("content-length: 18446744073709551615", "abc"), &[])
            .waits(),
    ]
}

fn codings() -> Vec<Case> {
    let good = |name, headers, rest, reached| forwarded(name, "6.1", post(headers, rest), &[reached]);
    let bad = |name, headers| refused(name, "6.1", post(headers, "3\r\nabc\r\n0\r\n\r\n"), 400);
    let unknown = |name, headers| refused(name, "6.1", post(headers, "3\r\nabc\r\n0\r\n\r\n"), 501);
    let body = "3\r\nabc\r\n0\r\n\r\n";
    vec![
        good("a chunked body", "transfer-encoding: chunked", body, "POST catalog /a abc"),
        good("chunked in capitals", "Transfer-Encoding: CHUNKED", body, "POST catalog /a abc"),
        good("spaces around chunked", "transfer-encoding: \t chunked\t ", body, "POST catalog /a abc"),
        forwarded(
            "a GET with a chunked body",
            "6.1",
            format!("GET /a HTTP/1.1\r\nhost: catalog\r\ntransfer-encoding: chunked\r\n\r\n{body}"),
            &["GET catalog /a abc"],
        ),
        forwarded(
            "what follows a chunked body is the next request",
            "6.3",
            post("transfer-encoding: chunked", &format!("{body}GET /b HTTP/1.1\r\nhost: catalog\r\n\r\n")),
            &["POST catalog /a abc", "GET catalog /b"],
        ),
        unknown("gzip, then chunked", "transfer-encoding: gzip, chunked"),
        unknown("gzip, then chunked, on two lines", "transfer-encoding: gzip\r\ntransfer-encoding: chunked"),
        unknown("identity, then chunked", "transfer-encoding: identity, chunked"),
        unknown("an unknown coding, then chunked", "transfer-encoding: x, chunked"),
        unknown("gzip alone", "transfer-encoding: gzip"),
        unknown("identity alone", "transfer-encoding: identity"),
        unknown("an empty coding", "transfer-encoding:"),
        unknown("chunked, then gzip", "transfer-encoding: chunked, gzip"),
        unknown("chunked, then identity", "transfer-encoding: chunked, identity"),
        unknown(
            "chunked, then identity, on two lines",
            "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        ),
        unknown("chunked twice", "transfer-encoding: chunked, chunked"),
        unknown("chunked twice, on two lines", "transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
        unknown("chunked, then nothing", "transfer-encoding: chunked,"),
        unknown("nothing, then chunked", "transfer-encoding: ,chunked"),
        unknown("chunked with a parameter", "transfer-encoding: chunked;q=1"),
        unknown("chunked in quotes", "transfer-encoding: \"chunked\""),
        unknown("chunked in two words", "transfer-encoding: chunked x"),
        unknown("a word before chunked", "transfer-encoding: x chunked"),
        unknown("chunked misspelt", "transfer-encoding: chunke"),
        unknown("chunked with a letter more", "transfer-encoding: chunkedd"),
        unknown("chunked with a Kelvin sign", "transfer-encoding: chun\u{212a}ed"),
        bad("a space before the colon of the coding", "transfer-encoding : chunked"),
        bad("a vertical tab before chunked", "transfer-encoding: \x0bchunked"),
        bad("a form feed after chunked", "transfer-encoding: chunked\x0c"),
        bad("a NUL after chunked", "transfer-encoding: chunked\0"),
        unknown("a no-break space after chunked", "transfer-encoding: chunked\u{a0}"),
        bad("a coding on a folded line", "transfer-encoding:\r\n chunked"),
        refused(
            "a coding in HTTP/1.0",
            "6.1",
            format!("POST /a HTTP/1.0\r\nhost: catalog\r\ntransfer-encoding: chunked\r\n\r\n{body}"),
            400,
        ),
        forwarded(
            "a name like the coding's is none",
            "6.1",
            post("transfer_encoding: chunked\r\ncontent-length: 3", "abc"),
            &["POST catalog /a abc"],
        ),
        forwarded(
            "a chunked body of nothing",
            "7.1",
            post("transfer-encoding: chunked", "0\r\n\r\n"),
            &["POST catalog /a"],
        ),
    ]
}

fn both() -> Vec<Case> {
    let bad = |name, headers, rest| refused(name, "6.3", post(headers, rest), 400);
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: catalog\r\n\r\n";
    vec![
        bad(
            "a length, then a coding",
            "content-length: 13\r\ntransfer-encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        bad(
            "a coding, then a length",
            "transfer-encoding: chunked\r\ncontent-length: 13",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        bad("a length of 0 and a coding", "content-length: 0\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
        bad(
            "a length and a coding that disagree",
            "content-length: 4\r\ntransfer-encoding: chunked",
            smuggled,
        ),
        bad(
            "a coding and a length that disagree",
            "transfer-encoding: chunked\r\ncontent-length: 4",
            smuggled,
        ),
        bad(
            "a length in between codings",
            "transfer-encoding: chunked\r\ncontent-length: 5\r\ntransfer-encoding: chunked",
            smuggled,
        ),
        bad("a length and an unknown coding", "content-length: 3\r\ntransfer-encoding: x", "abc"),
        bad("a coding and a bad length", "transfer-encoding: chunked\r\ncontent-length: x", smuggled),
        bad(
            "a coding and two lengths",
            "transfer-encoding: chunked\r\ncontent-length: 3\r\ncontent-length: 4",
            smuggled,
        ),
        bad(
            "a length that Connection names, and a coding",
            "connection: content-length\r\ncontent-length: 4\r\ntransfer-encoding: chunked",
            smuggled,
        ),
        bad(
            "a coding that Connection names, and a length",
            "connection: transfer-encoding\r\ncontent-length: 3\r\ntransfer-encoding: chunked",
            "abc",
        ),
    ]
}
