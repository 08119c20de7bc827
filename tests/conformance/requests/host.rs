//! The Host header (RFC 9112 section 3.2, RFC 9110 section 7.2).

use crate::case::{Case, forwarded, refused};

/// A GET with these lines and nothing else.
fn get(lines: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET /a HTTP/1.1\r\n", lines.as_ref(), b"\r\n\r\n"].concat()
}

pub(crate) fn cases() -> Vec<Case> {
    let good = |name, lines: &str, reached| forwarded(name, "RFC 9110 7.2", get(lines), &[reached]);
    let lax = |name, lines: &str, reached| {
        good(name, lines, reached).deviates("characters are checked, not their order; as Envoy")
    };
    let bad = |name, lines: &[u8]| refused(name, "3.2", get(lines), 400);
    vec![
        good("a Host with a port", "host: catalog:8000", "GET catalog:8000 /a"),
        good("a Host in capitals", "HOST: CATALOG", "GET CATALOG /a"),
        good("a Host that is an address", "host: 10.0.0.1", "GET 10.0.0.1 /a"),
        good("a Host that is an IPv6 address", "host: [::1]:8000", "GET [::1]:8000 /a"),
        good("a Host with a dot at the end", "host: catalog.", "GET catalog. /a"),
        good("a Host with an underscore", "host: cata_log", "GET cata_log /a"),
        good("an unknown Host", "host: nowhere.example", "GET nowhere.example /a"),
        refused("no Host", "3.2", "GET /a HTTP/1.1\r\n\r\n", 400),
        forwarded(
            "no Host, but an absolute target",
            "3.2",
            "GET http://catalog/a HTTP/1.1\r\n\r\n",
            &["GET catalog /a"],
        )
        .deviates("the target says who is asked, and the upstream gets a Host; as Envoy"),
        good("an empty Host", "host:", "GET  /a")
            .deviates("who has no authority sends an empty Host; as Envoy"),
        good("a Host of spaces", "host:  ", "GET  /a").deviates("as an empty one"),
        bad("two Hosts", b"host: catalog\r\nhost: other"),
        bad("two equal Hosts", b"host: catalog\r\nhost: catalog"),
        bad("two Hosts, the first empty", b"host:\r\nhost: catalog"),
        bad("two Hosts, the second empty", b"host: catalog\r\nhost:"),
        bad("a list of Hosts", b"host: catalog, other"),
        lax("a Host with a user", "host: user@catalog", "GET user@catalog /a"),
        bad("a Host with a path", b"host: catalog/a"),
        bad("a Host with a query", b"host: catalog?a"),
        bad("a Host with a fragment", b"host: catalog#a"),
        bad("a Host with a scheme", b"host: http://catalog"),
        bad("a Host with a space", b"host: cata log"),
        bad("a Host with a tab", b"host: cata\tlog"),
        bad("a Host with a NUL", b"host: cata\0log"),
        bad("a Host with a backslash", b"host: catalog\\a"),
        bad("a Host with bytes above ASCII", b"host: cata\xe9log"),
        lax("a Host with a bad port", "host: catalog:port", "GET catalog:port /a"),
        lax("a Host with a port too large", "host: catalog:70000", "GET catalog:70000 /a"),
        lax("a Host with two ports", "host: catalog:1:2", "GET catalog:1:2 /a"),
        lax("a Host with half an IPv6 address", "host: [::1", "GET [::1 /a"),
        bad("a space before the colon of Host", b"host : catalog"),
        refused(
            "two Hosts and an absolute target",
            "3.2",
            "GET http://catalog/a HTTP/1.1\r\nhost: catalog\r\nhost: other\r\n\r\n",
            400,
        ),
        forwarded(
            "an empty Host and an absolute target",
            "3.2.2",
            "GET http://catalog/a HTTP/1.1\r\nhost:\r\n\r\n",
            &["GET catalog /a"],
        ),
    ]
}
