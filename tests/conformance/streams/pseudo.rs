//! Pseudo-headers (RFC 9113 section 8.3).

use super::{Field, GET, forwarded, head, malformed, unreadable};
use crate::http2::StreamCase;

/// GET with another value of one pseudo-header; without it when there is none.
fn with(name: &[u8], value: Option<&[u8]>) -> Vec<u8> {
    let replaced = GET.iter().filter_map(|field| match (field.0 == name, value) {
        (false, _) => Some(*field),
        (true, value) => value.map(|value| (field.0, value)),
    });
    head(&replaced.collect::<Vec<Field<'_>>>())
}

/// GET with these fields behind its own.
fn and(fields: &[Field<'_>]) -> Vec<u8> {
    head(&[&GET[..], fields].concat())
}

pub(crate) fn cases() -> Vec<StreamCase> {
    [order(), method_and_scheme(), path(), authority(), connect()].concat()
}

fn order() -> Vec<StreamCase> {
    let bad = |name, bytes| malformed(name, "8.3", bytes);
    let none = |name, bytes| unreadable(name, "8.3", bytes);
    let [method, scheme, authority, path] = GET;
    vec![
        forwarded("GET by frames", "8.3.1", head(&GET), "GET catalog /a"),
        forwarded(
            "pseudo-headers in another order",
            "8.3",
            head(&[path, authority, scheme, method]),
            "GET catalog /a",
        ),
        bad("a pseudo-header behind a header", head(&[method, scheme, authority, (b"x-a", b"b"), path])),
        bad(":path behind all", head(&[method, scheme, authority, path, (b"x-a", b"b"), (b":path", b"/b")])),
        bad("two :method", and(&[(b":method", b"POST")])),
        bad("two :path", and(&[(b":path", b"/b")])),
        bad("two equal :path", and(&[(b":path", b"/a")])),
        bad("two :scheme", and(&[(b":scheme", b"https")])),
        bad("two :authority", and(&[(b":authority", b"other")])),
        none("an unknown pseudo-header", and(&[(b":x", b"y")])),
        bad(":status in a request", and(&[(b":status", b"200")])),
        bad(":protocol without leave", and(&[(b":protocol", b"websocket")])),
        none("a pseudo-header in capitals", and(&[(b":PATH", b"/b")])),
        none("a pseudo-header without a name", and(&[(b":", b"/b")])),
        bad("no :method", with(b":method", None)),
        bad("no :scheme", with(b":scheme", None)),
        bad("no :path", with(b":path", None)),
        bad("nothing at all", head(&[])),
        bad("only headers", head(&[(b"host", b"catalog")])),
    ]
}

fn method_and_scheme() -> Vec<StreamCase> {
    let method = |name, value| unreadable(name, "RFC 9110 9.1", with(b":method", Some(value)));
    let scheme = |name, value| malformed(name, "8.3.1", with(b":scheme", Some(value)));
    vec![
        method("an empty :method", b""),
        method("a :method with a space", b"GET /b"),
        method("a :method that is a first line", b"GET /b HTTP/1.1\r\nhost: catalog\r\n\r\nGET"),
        method("a :method with an LF", b"GET\n"),
        method("a :method with a NUL", b"GET\0"),
        method("a :method with a colon", b"GET:"),
        method("a :method with bytes above ASCII", b"G\xc3\x89T"),
        forwarded("a :method of ours", "RFC 9110 9.1", with(b":method", Some(b"BREW")), "BREW catalog /a"),
        forwarded(
            "a :method in small letters",
            "RFC 9110 9.1",
            with(b":method", Some(b"get")),
            "get catalog /a",
        ),
        scheme("an empty :scheme", b"").answered(400),
        scheme("a :scheme with a tilde", b"http~").answered(400),
        scheme("a :scheme of a tilde", b"~").answered(400),
        scheme("a :scheme that begins with a digit", b"1http").answered(400),
        forwarded(
            "a :scheme of all its characters",
            "8.3.1",
            with(b":scheme", Some(b"a1+-.")),
            "GET catalog /a",
        ),
        scheme("a :scheme with a space", b"http "),
        scheme("a :scheme with a line end", b"http\r\n"),
        scheme("a :scheme that is a URL", b"http://other/"),
        forwarded("another :scheme", "8.3.1", with(b":scheme", Some(b"ftp")), "GET catalog /a"),
        forwarded("https over plain text", "8.3.1", with(b":scheme", Some(b"https")), "GET catalog /a"),
    ]
}

fn path() -> Vec<StreamCase> {
    let good = |name, value, reached| forwarded(name, "8.3.1", with(b":path", Some(value)), reached);
    let bad = |name, value| malformed(name, "8.3.1", with(b":path", Some(value)));
    vec![
        good("a query", b"/a?b", "GET catalog /a?b"),
        good("percent-encoded line ends", b"/a%0d%0aX:%20y", "GET catalog /a%0d%0aX:%20y"),
        good("dot segments in :path", b"/b/../a", "GET catalog /a"),
        good("a fragment in :path", b"/a#b", "GET catalog /a"),
        bad("an empty :path", b""),
        bad("a :path without a slash", b"a"),
        bad("an asterisk as :path", b"*").answered(400),
        bad("a URL as :path", b"http://other/a"),
        bad("a query as :path", b"?b").answered(400),
        bad("a :path with a space", b"/a b"),
        bad("a :path with a first line", b"/a HTTP/1.1\r\nhost: catalog\r\n\r\nGET /smuggled"),
        bad("a :path with a CR", b"/a\rb"),
        bad("a :path with an LF", b"/a\nb"),
        bad("a :path with a NUL", b"/a\0b"),
        bad("a :path with a tab", b"/a\tb"),
        bad("a :path with a DEL", b"/a\x7fb"),
        bad("a :path with UTF-8", b"/\xc3\xa9").answered(400),
        bad("a :path with a byte above ASCII", b"/\xff").ends_connection(),
        bad("a :path with a space before it", b" /a"),
        bad("a quotation mark in :path's query", b"/a?b=\"c\""),
    ]
}

fn authority() -> Vec<StreamCase> {
    let good = |name, value, reached| forwarded(name, "8.3.1", with(b":authority", Some(value)), reached);
    let bad = |name, value| malformed(name, "8.3.1", with(b":authority", Some(value)));
    let [method, scheme, authority, path] = GET;
    let without = |host| head(&[method, scheme, path, (b"host", host)]);
    let two_hosts = |others: &[Field<'_>]| {
        head(&[&[method], others, &[(b"host", b"catalog"), (b"host", b"other")]].concat())
    };
    vec![
        good("an :authority with a port", b"catalog:8000", "GET catalog:8000 /a"),
        good("an :authority in capitals", b"CATALOG", "GET CATALOG /a"),
        good("an IPv6 :authority", b"[::1]:80", "GET [::1]:80 /a"),
        forwarded("a Host instead of :authority", "8.3.1", without(b"catalog"), "GET catalog /a"),
        forwarded("a Host that says the same", "8.3.1", and(&[(b"host", b"catalog")]), "GET catalog /a"),
        forwarded("a Host that says something else", "8.3.1", and(&[(b"host", b"other")]), "GET catalog /a"),
        malformed("a list of Hosts by frames", "8.3.1", without(b"catalog, other")).answered(400),
        malformed("two Hosts by frames", "RFC 9110 7.2", two_hosts(&[scheme, path])).answered(400),
        malformed("two Hosts beside :authority", "RFC 9110 7.2", two_hosts(&[scheme, authority, path]))
            .answered(400),
        malformed("neither :authority nor Host", "8.3.1", with(b":authority", None)).answered(400),
        bad("an empty :authority", b""),
        bad("an :authority with a user", b"user@catalog").answered(400),
        bad("an :authority with a path", b"catalog/a"),
        bad("an :authority with a query", b"catalog?a"),
        bad("an :authority with a space", b"cata log"),
        bad("an :authority with a header", b"catalog\r\nx-a: b"),
        bad("an :authority with an LF", b"catalog\n"),
        bad("an :authority with a NUL", b"cata\0log"),
        bad("an :authority with a backslash", b"catalog\\a"),
        bad("an :authority with bytes above ASCII", b"cata\xe9log").ends_connection(),
        good("an :authority with a bad port", b"catalog:port", "GET catalog:port /a")
            .deviates("characters are checked, not their order; as Envoy"),
        malformed("a Host with a header", "8.2.1", without(b"catalog\r\nx-a: b")).ends_connection(),
        malformed("a Host with a path, by frames", "8.3.1", without(b"catalog/a")).answered(400),
        malformed("a bad Host beside :authority", "8.3.1", and(&[(b"host", b"cata log")])).answered(400),
        malformed("an empty Host beside :authority", "8.3.1", and(&[(b"host", b"")])).answered(400),
        malformed("a Host with a user beside :authority", "8.3.1", and(&[(b"host", b"user@catalog")]))
            .answered(400),
        malformed("a space before a Host beside :authority", "8.3.1", and(&[(b"host", b" catalog")]))
            .answered(400),
        malformed("an empty Host by frames", "8.3.1", without(b"")).answered(400),
        malformed("a Host with a user, by frames", "8.3.1", without(b"user@catalog")).answered(400),
        malformed("a tab behind a Host, by frames", "8.3.1", without(b"catalog\t")).answered(400),
    ]
}

fn connect() -> Vec<StreamCase> {
    let [_, scheme, authority, path] = GET;
    let connect: Field<'_> = (b":method", b"CONNECT");
    vec![
        forwarded("CONNECT by frames", "8.5", head(&[connect, (b":authority", b"catalog:443")]), "")
            .answered(404),
        malformed("CONNECT with :path", "8.5", head(&[connect, authority, path])),
        malformed("CONNECT with :scheme", "8.5", head(&[connect, authority, scheme])),
        malformed("CONNECT with all", "8.5", head(&[connect, scheme, authority, path])),
        malformed("CONNECT without :authority", "8.5", head(&[connect])).answered(400),
        malformed(
            "CONNECT with :protocol",
            "RFC 8441 4",
            head(&[connect, (b":protocol", b"websocket"), scheme, authority, path]),
        ),
    ]
}
