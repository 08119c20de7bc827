//! Several requests on a connection (RFC 9112 section 9.3).

use crate::case::{Case, forwarded, refused};

const A: &str = "GET /a HTTP/1.1\r\nhost: catalog\r\n\r\n";
const B: &str = "GET /b HTTP/1.1\r\nhost: other\r\n\r\n";

pub(crate) fn cases() -> Vec<Case> {
    let all = |name, parts: &[&str], reached: &[&str]| forwarded(name, "9.3.2", parts.concat(), reached);
    let (a, b) = ("GET catalog /a", "GET other /b");
    let body = "POST /c HTTP/1.1\r\nhost: catalog\r\ncontent-length: 3\r\n\r\nabc";
    let chunked =
        "POST /d HTTP/1.1\r\nhost: catalog\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let close = "GET /e HTTP/1.1\r\nhost: catalog\r\nconnection: close\r\n\r\n";
    let many: Vec<&str> = std::iter::repeat_n(A, 100).collect();
    vec![
        all("two requests", &[A, B], &[a, b]),
        all("a body between two requests", &[A, body, B], &[a, "POST catalog /c abc", b]),
        all("a chunked body between two requests", &[A, chunked, B], &[a, "POST catalog /d abc", b]),
        all("a hundred requests at once", &many, &[a; 100]),
        all("nothing after a request that closes", &[A, close, B], &[a, "GET catalog /e"]).closes(),
        all("a request after one that is refused", &["GET /a HTTP/1.1\r\n\r\n", B], &[])
            .answers(&[400])
            .closes(),
        all("a bad request after a good one", &[A, "GET /\x01 HTTP/1.1\r\n\r\n"], &[a])
            .answers(&[200, 400])
            .closes(),
        all("garbage after a request", &[A, "\x01\x02\x03\r\n\r\n"], &[a]).answers(&[200, 400]).closes(),
        all("half a request after one", &[A, "GET /b HTTP/1.1\r\nhost: ot"], &[a]).waits(),
        all("half a request", &["GET /b HTTP/1.1\r\nhost: ot"], &[]).waits(),
        all("half a first line", &["GET /b HT"], &[]).waits(),
        all("an empty line", &["\r\n"], &[]).waits(),
        all("a method", &["GET"], &[]).waits(),
        all("an LF before a request", &["\n", A], &[a]),
        refused("a CR before a request", "2.2", ["\r", A].concat(), 400),
        refused("a NUL before a request", "2.2", ["\0", A].concat(), 400),
    ]
}
