//! The request target: its four forms, and the characters in it (RFC 9112 section 3.2, RFC 3986).

use crate::case::{Case, forwarded, refused};

/// A GET of this target.
fn get(target: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET ", target.as_ref(), b" HTTP/1.1\r\nhost: catalog\r\n\r\n"].concat()
}

pub(crate) fn cases() -> Vec<Case> {
    [forms(), characters()].concat()
}

fn forms() -> Vec<Case> {
    let good = |name, target: &str, reached| forwarded(name, "3.2", get(target), &[reached]);
    let bad = |name, target: &str| refused(name, "3.2", get(target), 400);
    vec![
        good("a path and a query", "/a?b=c&d", "GET catalog /a?b=c&d"),
        good("an empty query", "/a?", "GET catalog /a?"),
        good("a question mark in a query", "/a?b?c", "GET catalog /a?b?c"),
        good("an absolute target", "http://catalog/a", "GET catalog /a"),
        good("an absolute target with a port", "http://catalog:8000/a?b", "GET catalog:8000 /a?b"),
        good("an absolute target without a path", "http://catalog", "GET catalog /"),
        bad("an absolute target without a path, with a query", "http://catalog?b").deviates(
            "whether its path is empty or the root is not agreed upon; no route of Envoy matches it",
        ),
        good("an absolute target of another host than Host", "http://other/a", "GET other /a"),
        good("an absolute target in capitals", "HTTP://CATALOG/a", "GET CATALOG /a"),
        good("a path that holds an absolute target", "/http://other/a", "GET catalog /http://other/a"),
        good("a path of two slashes", "//a", "GET catalog //a"),
        good("a colon in a path", "/a:b", "GET catalog /a:b"),
        good("dot segments", "/a/./b/../c", "GET catalog /a/c"),
        good("dot segments above the root", "/../../a", "GET catalog /a"),
        good("encoded dot segments", "/a/%2e%2E/b", "GET catalog /b"),
        good("an absolute target with a user", "http://user@catalog/a", "GET catalog /a"),
        good("an absolute target with a user and password", "http://user:secret@catalog/a", "GET catalog /a"),
        bad("an absolute target without a host", "http:///a"),
        bad("an absolute target of another scheme", "ftp://catalog/a"),
        bad("an absolute target with a scheme only", "http:"),
        bad("an absolute target with a bad port", "http://catalog:port/a"),
        bad("an absolute target with a fragment behind its host", "http://catalog#a"),
        bad("an absolute target with a fragment that looks like a path", "http://catalog:8000#x/a?b"),
        bad("an absolute target with two users", "http://a@b@catalog/a"),
        bad("an absolute target with a user only", "http://user@/a"),
        bad("an absolute target with a port only", "http://:8000/a"),
        good("an absolute target with an address", "http://[::1]:8000/a", "GET [::1]:8000 /a"),
        bad("an absolute target with brackets around no address", "http://[zz]/a"),
        bad("an absolute target with an underscore in its host", "http://cata_log/a"),
        bad("an absolute target with sub-delimiters in its host", "http://cata,log/a"),
        bad("an absolute target with a tilde in its host", "http://cata~log/a"),
        bad("an authority as the target of a GET", "catalog:8000"),
        bad("a word as a target", "a"),
        bad("a relative target", "a/b"),
        bad("an asterisk as the target of a GET", "*"),
        bad("a query only", "?b"),
        bad("a scheme without a colon", "http//catalog/a"),
        forwarded("OPTIONS of an asterisk", "3.2.4", "OPTIONS * HTTP/1.1\r\nhost: catalog\r\n\r\n", &[])
            .answers(&[404])
            .deviates("no rule matches an asterisk; as Envoy"),
        refused("CONNECT", "3.2.3", "CONNECT catalog:443 HTTP/1.1\r\nhost: catalog:443\r\n\r\n", 404),
        refused("CONNECT of a path", "3.2.3", "CONNECT /a HTTP/1.1\r\nhost: catalog\r\n\r\n", 400),
        refused("CONNECT without a port", "3.2.3", "CONNECT catalog HTTP/1.1\r\nhost: catalog\r\n\r\n", 400),
        refused(
            "CONNECT with a body that is a request",
            "RFC 9110 9.3.6",
            "CONNECT catalog:443 HTTP/1.1\r\nhost: catalog:443\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: catalog\r\n\r\n",
            404,
        ),
    ]
}

fn characters() -> Vec<Case> {
    let good = |name, target: &str, reached: &str| forwarded(name, "RFC 3986 2", get(target), &[reached]);
    let bad = |name, target: &[u8]| refused(name, "RFC 3986 2", get(target), 400);
    let cut = |name, target, reached| {
        good(name, target, reached).deviates("it is cut off before anything is decided; as Envoy under Istio")
    };
    vec![
        good("percent-encoding", "/%61%2Fb%20c", "GET catalog /a%2Fb%20c"),
        good("percent-encoding in the query", "/?%61%00", "GET catalog /?%61%00"),
        good("an encoded line end", "/a%0d%0aX:%20y", "GET catalog /a%0d%0aX:%20y"),
        good("sub-delimiters", "/!$&'()*+,;=", "GET catalog /!$&'()*+,;="),
        good("a backslash", "/a\\b", "GET catalog /a/b"),
        good("characters that ought to be encoded", "/a|b^c{d}", "GET catalog /a%7Cb%5Ec%7Bd%7D"),
        bad("a backquote", b"/a`b").deviates("it is no character of a target; Envoy encodes it"),
        good("a quotation mark", "/a\"b", "GET catalog /a%22b"),
        bad("angle brackets", b"/<a>").deviates("they are no characters of a target; Envoy encodes them"),
        good("brackets", "/a[b]", "GET catalog /a[b]"),
        good("a percent sign alone", "/a%", "GET catalog /a%"),
        good("a percent sign before no digits", "/%zz", "GET catalog /%zz"),
        bad("an encoded NUL", b"/a%00"),
        cut("a fragment", "/a#b", "GET catalog /a"),
        cut("an empty fragment", "/a#", "GET catalog /a"),
        cut("a fragment after a query", "/a?b#c", "GET catalog /a?b"),
        cut("a fragment in an absolute target", "http://catalog/a#b", "GET catalog /a"),
        bad("a fragment alone", b"#a"),
        bad("a NUL", b"/a\0b"),
        bad("a DEL", b"/a\x7fb"),
        bad("a control character", b"/a\x01b"),
        bad("a form feed", b"/a\x0cb"),
        bad("a byte above ASCII", b"/a\xffb"),
        bad("UTF-8", "/\u{e9}".as_bytes()),
        bad("an overlong UTF-8 slash", b"/\xc0\xaf"),
        bad("an LF in the target", b"/a\nb"),
        bad("a CR in the target", b"/a\rb"),
        bad("a CR LF in the target", b"/a\r\nx: y"),
    ]
}
