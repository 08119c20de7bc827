//! Header fields: names, values, colons, folds, line ends (RFC 9112 section 5).

use crate::case::{Case, forwarded, refused};

/// A GET with these lines after Host, without the last line's end.
fn with(lines: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET /a HTTP/1.1\r\nhost: catalog\r\n", lines.as_ref(), b"\r\n\r\n"].concat()
}

pub(crate) fn cases() -> Vec<Case> {
    [names(), values(), folds()].concat()
}

fn good(name: &'static str, lines: impl AsRef<[u8]>) -> Case {
    forwarded(name, "5", with(lines), &["GET catalog /a"])
}

fn bad(name: &'static str, lines: impl AsRef<[u8]>) -> Case {
    refused(name, "5", with(lines), 400)
}

fn names() -> Vec<Case> {
    vec![
        good("a header", "x-a: b").sees("x-a", "b"),
        good("a name of all token characters", "!#$%&'*+-.^_`|~09azAZ: b"),
        good("a name with an underscore", "x_a: b").sees("x_a", "b"),
        good("a name in capitals", "X-A: b").sees("x-a", "b"),
        bad("a space before the colon", "x-a : b"),
        bad("a tab before the colon", "x-a\t: b"),
        bad("no colon", "x-a"),
        bad("an empty name", ": b"),
        bad("a space for a name", " : b"),
        bad("a space in a name", "x a: b"),
        bad("a colon in front of a name", ":x-a: b"),
        bad("a pseudo-header", ":path: /b"),
        bad("brackets in a name", "x(a): b"),
        bad("a slash in a name", "x/a: b"),
        bad("an at sign in a name", "x@a: b"),
        bad("quotes around a name", "\"x-a\": b"),
        bad("a NUL in a name", "x\0a: b"),
        bad("a control character in a name", "x\x01a: b"),
        bad("a DEL in a name", "x\x7fa: b"),
        bad("a byte above ASCII in a name", b"x\xe9a: b"),
        bad("UTF-8 in a name", "x\u{212a}a: b"),
        bad("a CR in a name", "x\ra: b"),
        bad("a CR before the colon", "x-a\r: b"),
        bad("an LF in a name", "x\na: b"),
        bad("a request instead of a header", "GET /smuggled HTTP/1.1"),
    ]
}

fn values() -> Vec<Case> {
    vec![
        good("spaces around a value", "x-a: \t b c \t").sees("x-a", "b c"),
        good("no space after the colon", "x-a:b").sees("x-a", "b"),
        good("an empty value", "x-a:").sees("x-a", ""),
        good("a colon in a value", "x-a: b:c").sees("x-a", "b:c"),
        good("a tab in a value", "x-a: b\tc").sees("x-a", "b\tc"),
        good("bytes above ASCII in a value", b"x-a: \xe9\xff"),
        good("UTF-8 in a value", "x-a: \u{e9}").sees("x-a", "\u{e9}"),
        good("the same name twice", "x-a: b\r\nX-A: c"),
        good("an encoded line end in a value", "x-a: b%0d%0ax-b: c")
            .sees("x-a", "b%0d%0ax-b: c")
            .hides("x-b"),
        bad("a NUL in a value", "x-a: b\0c"),
        bad("a NUL at the end of a value", "x-a: b\0"),
        bad("a control character in a value", "x-a: b\x01c"),
        bad("an ESC in a value", "x-a: b\x1b[0m"),
        bad("a backspace in a value", "x-a: b\x08"),
        bad("a DEL in a value", "x-a: b\x7fc"),
        bad("a vertical tab in a value", "x-a: b\x0bc"),
        bad("a CR in a value", "x-a: b\rc"),
        bad("a CR that hides a header", "x-a: b\rtransfer-encoding: chunked"),
        bad("two CRs at the end of a value", "x-a: b\r"),
        refused("an LF in a value", "2.2", with("x-a: b\nc"), 400),
        good("a header ended by an LF", "x-a: b\nx-b: c").sees("x-a", "b").sees("x-b", "c"),
        good("a length after an LF", "x-a: b\ncontent-length: 5").reaches(&[]).answers(&[]).waits(),
        refused("an LF and a CR at the end of a value", "2.2", with("x-a: b\n\rx-b: c"), 400),
        good("an empty line of an LF", "x-a: b\n\nGET /b HTTP/1.1\r\nhost: catalog")
            .answers(&[200, 200])
            .reaches(&["GET catalog /a", "GET catalog /b"]),
        refused("an empty line of two CRs", "2.2", with("x-a: b\r\n\r\rx-b: c"), 400),
    ]
}

fn folds() -> Vec<Case> {
    let folded = |name, lines: &str| refused(name, "5.2", with(lines), 400);
    vec![
        folded("a value folded by a space", "x-a: b\r\n c"),
        folded("a value folded by a tab", "x-a: b\r\n\tc"),
        folded("a fold that hides a header", "x-a: b\r\n content-length: 5"),
        folded("a fold without a value before it", "x-a:\r\n b"),
        folded("a fold of nothing", "x-a: b\r\n "),
        folded("a folded length", "content-length:\r\n 5"),
        folded("a folded name", "x-\r\n a: b"),
        refused("a folded Host", "5.2", "GET /a HTTP/1.1\r\nhost: cata\r\n log\r\n\r\n", 400),
    ]
}
