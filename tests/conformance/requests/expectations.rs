//! Expect (RFC 9110 section 10.1.1).

use crate::case::{Case, forwarded, refused};

fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nhost: catalog\r\n{lines}\r\n\r\n{body}").into_bytes()
}

pub(crate) fn cases() -> Vec<Case> {
    // The upstream sees the expectation, as from Envoy; its own 100 is passed over.
    let good = |name, lines, body, reached| forwarded(name, "RFC 9110 10.1.1", post(lines, body), &[reached]);
    vec![
        good(
            "an expectation and its body",
            "expect: 100-continue\r\ncontent-length: 3",
            "abc",
            "POST catalog /a abc",
        ),
        good(
            "an expectation in capitals",
            "Expect: 100-CONTINUE\r\ncontent-length: 3",
            "abc",
            "POST catalog /a abc",
        ),
        good(
            "an expectation and a chunked body",
            "expect: 100-continue\r\ntransfer-encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\n",
            "POST catalog /a abc",
        ),
        good("an expectation without a body", "expect: 100-continue", "", "POST catalog /a"),
        good(
            "an expectation twice",
            "expect: 100-continue\r\nexpect: 100-continue\r\ncontent-length: 3",
            "abc",
            "POST catalog /a abc",
        ),
        forwarded(
            "an expectation whose body does not come",
            "RFC 9110 10.1.1",
            post("expect: 100-continue\r\ncontent-length: 3", ""),
            &[],
        )
        .waits(),
        good("another expectation", "expect: x\r\ncontent-length: 3", "abc", "POST catalog /a abc")
            .deviates("417 is allowed, not asked for; Envoy forwards it, too"),
        refused(
            "an expectation of what is refused, then a request instead of the body",
            "RFC 9110 10.1.1",
            "POST /a HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 46\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: catalog\r\n\r\n0123",
            400,
        ),
    ]
}
