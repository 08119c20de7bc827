//! Heads that are too large (RFC 9110 section 15.5.15, RFC 6585 section 5).

use crate::case::{Case, forwarded, refused};

fn get(target: &str, lines: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: catalog\r\n{lines}\r\n").into_bytes()
}

pub(crate) fn cases() -> Vec<Case> {
    let bad = |name, bytes| refused(name, "RFC 6585 5", bytes, 431);
    let long = |length| "a".repeat(length);
    let path: &'static str = format!("/{}", long(30_000)).leak();
    let reached: &'static str = format!("GET catalog {path}").leak();
    vec![
        forwarded("a target of 30,000 bytes", "3", get(path, ""), &[reached]),
        forwarded(
            "a value of 50,000 bytes",
            "5",
            get("/a", &format!("x-a: {}\r\n", long(50_000))),
            &["GET catalog /a"],
        ),
        forwarded(
            "a name of 10,000 bytes",
            "5",
            get("/a", &format!("{}: b\r\n", long(10_000))),
            &["GET catalog /a"],
        ),
        forwarded("ninety headers", "5", get("/a", &"x-a: b\r\n".repeat(90)), &["GET catalog /a"]),
        bad("a hundred and fifty headers", get("/a", &"x-a: b\r\n".repeat(150))),
        bad("a hundred thousand headers", get("/a", &"a:\r\n".repeat(100_000))),
        bad("a value of 70,000 bytes", get("/a", &format!("x-a: {}\r\n", long(70_000)))),
        bad("a name of 70,000 bytes", get("/a", &format!("{}: b\r\n", long(70_000)))),
        bad(
            "a value that never ends",
            format!("GET /a HTTP/1.1\r\nhost: catalog\r\nx-a: {}", long(1_000_000)).into_bytes(),
        ),
        bad("a target of 70,000 bytes", get(&format!("/{}", long(70_000)), "")),
        bad("a target that never ends", format!("GET /{}", long(1_000_000)).into_bytes()),
        bad(
            "a Host of 70,000 bytes",
            format!("GET /a HTTP/1.1\r\nhost: {}\r\n\r\n", long(70_000)).into_bytes(),
        ),
        bad("many empty lines before a request", [b"\r\n".repeat(50_000), get("/a", "")].concat()),
    ]
}
