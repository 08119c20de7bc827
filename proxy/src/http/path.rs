//! Path normalization: what happens to a path before anything looks at it.
//!
//! Semantics: Envoy's `normalize_path`, `merge_slashes` and `path_with_escaped_slashes_action`, in the order Envoy
//! applies them. Normalization is that of browsers: dot segments go (RFC 3986 section 5.2.4), also in percent-encoded
//! form; unreserved characters are decoded (section 6.2.2.2); characters that do not belong into a path are encoded;
//! a backslash is a slash. The query is never touched.

use std::borrow::Cow;

use config::{EscapedSlashes, PathNormalization};
use http::uri::PathAndQuery;

/// A path that cannot be forwarded: it holds an encoded NUL, or cannot be written after normalization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadPath;

/// The normalized form of `path`, or `None` when it is normalized already.
pub(crate) fn normalize(
    path: &PathAndQuery,
    how: PathNormalization,
) -> Result<Option<PathAndQuery>, BadPath> {
    if !how.normalize_path || is_plain(path.path(), how) {
        return Ok(None);
    }
    let original = path.path();
    let mut text = original.to_owned();
    if how.escaped_slashes == EscapedSlashes::UnescapeAndForward {
        text = unescape_slashes(&text);
    }
    text = canonical(&text)?;
    if how.merge_slashes {
        text = merge_slashes(&text);
    }
    if text == original {
        return Ok(None);
    }
    if let Some(query) = path.query() {
        text.push('?');
        text.push_str(query);
    }
    PathAndQuery::try_from(text).map(Some).map_err(|_| BadPath)
}

/// Whether normalization surely changes nothing: the usual case, decided without allocating.
fn is_plain(path: &str, how: PathNormalization) -> bool {
    // No byte stands before the slash a path begins with.
    let mut before = 0;
    path.bytes().all(|byte| {
        let plain = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => true,
            b'.' => before != b'/',
            b'/' => before != b'/' || !how.merge_slashes,
            _ => !needs_encoding(byte) && byte != b'%' && byte != b'\\',
        };
        before = byte;
        plain
    })
}

/// Characters that are percent-encoded in a path.
fn needs_encoding(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}') || !byte.is_ascii_graphic()
}

/// Characters that need not be percent-encoded (RFC 3986 section 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `%2F` and `%5C` become what they stand for.
fn unescape_slashes(path: &str) -> String {
    path.replace("%2F", "/").replace("%2f", "/").replace("%5C", "\\").replace("%5c", "\\")
}

/// Splits off one character: the byte it stands for, and how it is written. `decoded` tells whether it was
/// percent-encoded.
struct Character {
    byte: u8,
    length: usize,
    decoded: bool,
}

fn character(path: &[u8]) -> Option<Character> {
    let first = *path.first()?;
    let hex = |index: usize| path.get(index).and_then(|digit| char::from(*digit).to_digit(16));
    match (first, hex(1), hex(2)) {
        // Two hexadecimal digits make at most 255.
        (b'%', Some(high), Some(low)) => {
            let byte = u8::try_from(high * 16 + low).unwrap_or(u8::MAX);
            Some(Character { byte, length: 3, decoded: true })
        }
        _ => Some(Character { byte: first, length: 1, decoded: false }),
    }
}

fn canonical(path: &str) -> Result<String, BadPath> {
    let path = without_dot_parameters(path);
    let mut out = Canonical { text: Vec::with_capacity(path.len() + 8), stray: None };
    let mut rest = path.as_bytes();
    while !rest.is_empty() {
        // At the beginning of a segment: is it a dot segment?
        if out.text.last() == Some(&b'/')
            && let Some((dots, length)) = dot_segment(rest)
        {
            if dots == 2 {
                remove_last_segment(&mut out.text);
            }
            rest = rest.get(length..).unwrap_or_default();
            continue;
        }
        rest = copy_segment(rest, &mut out)?;
    }
    // Everything written is ASCII.
    String::from_utf8(out.text).map_err(|_| BadPath)
}

/// Some servers ignore a parameter of a dot segment (`..;x`), so it goes. As in Envoy it reaches to the next slash, which
/// a backslash is not yet, and the dots must be plain.
fn without_dot_parameters(path: &str) -> Cow<'_, str> {
    if !path.contains(".;") {
        return Cow::Borrowed(path);
    }
    let segments = path.split('/').map(|segment| match segment.split_once(';') {
        Some((dots @ ("." | ".."), _)) => dots,
        _ => segment,
    });
    Cow::Owned(segments.collect::<Vec<_>>().join("/"))
}

/// A path as it is written.
struct Canonical {
    text: Vec<u8>,
    /// Where the last `%` stands that begins no escape.
    stray: Option<usize>,
}

impl Canonical {
    /// Writes a character that was escaped. If a stray `%` before it would become an escape of something else, that is
    /// encoded: what is decoded once must not be decoded twice. `next` is what follows.
    fn push_decoded(&mut self, byte: u8, next: Option<&u8>) {
        self.text.push(byte);
        let Some(stray) = self.stray else { return };
        // Its place may have gone with a segment that was removed.
        let is_escape = match self.text.get(stray..) {
            Some([b'%', high]) => high.is_ascii_hexdigit() && next.is_some_and(u8::is_ascii_hexdigit),
            Some([b'%', high, low]) => high.is_ascii_hexdigit() && low.is_ascii_hexdigit(),
            _ => false,
        };
        if is_escape {
            self.text.splice(stray..=stray, *b"%25");
            self.stray = None;
        }
    }
}

/// Copies up to and including the next slash; returns what is left.
fn copy_segment<'a>(mut rest: &'a [u8], out: &mut Canonical) -> Result<&'a [u8], BadPath> {
    while let Some(next) = character(rest) {
        let written = rest.get(..next.length).unwrap_or_default();
        rest = rest.get(next.length..).unwrap_or_default();
        match next {
            Character { byte: 0, .. } => return Err(BadPath),
            Character { byte: b'/' | b'\\', decoded: false, .. } => {
                out.text.push(b'/');
                return Ok(rest);
            }
            Character { byte, decoded: true, .. } if is_unreserved(byte) => {
                out.push_decoded(byte, rest.first());
            }
            Character { decoded: true, .. } => out.text.extend_from_slice(written),
            Character { byte, decoded: false, .. } if needs_encoding(byte) => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
                out.text.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
            }
            Character { byte, .. } => {
                if byte == b'%' {
                    out.stray = Some(out.text.len());
                }
                out.text.push(byte);
            }
        }
    }
    Ok(rest)
}

/// Whether `rest` begins with a segment of one or two dots: how many, and the length with the slash after it.
fn dot_segment(rest: &[u8]) -> Option<(u8, usize)> {
    let (mut dots, mut length) = (0, 0);
    loop {
        match character(rest.get(length..).unwrap_or_default()) {
            Some(Character { byte: b'.', length: width, .. }) if dots < 2 => {
                dots += 1;
                length += width;
            }
            None if dots > 0 => return Some((dots, length)),
            Some(Character { byte: b'/' | b'\\', decoded: false, .. }) if dots > 0 => {
                return Some((dots, length + 1));
            }
            _ => return None,
        }
    }
}

/// Takes the last segment off `out`, which ends with a slash; the first slash stays.
fn remove_last_segment(out: &mut Vec<u8>) {
    if out.len() > 1 {
        out.pop();
        let keep = out.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        out.truncate(keep);
    }
}

/// Several slashes in a row become one. Of a path of nothing but slashes two stay, as in Envoy, which keeps the first
/// and the last.
fn merge_slashes(path: &str) -> String {
    if path.len() > 1 && path.bytes().all(|byte| byte == b'/') {
        return "//".to_owned();
    }
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: PathNormalization = PathNormalization {
        normalize_path: true,
        merge_slashes: false,
        escaped_slashes: EscapedSlashes::KeepUnchanged,
    };
    const MERGE: PathNormalization = PathNormalization { merge_slashes: true, ..BASE };
    const DECODE: PathNormalization =
        PathNormalization { escaped_slashes: EscapedSlashes::UnescapeAndForward, ..MERGE };
    const NONE: PathNormalization = PathNormalization { normalize_path: false, ..BASE };

    fn check(how: PathNormalization, path: &str, expected: &str) {
        let parsed = PathAndQuery::try_from(path).unwrap();
        let normalized = normalize(&parsed, how).unwrap().unwrap_or(parsed);
        assert_eq!(normalized.as_str(), expected, "{path}");
    }

    /// What Envoy 1.40 forwards for the same paths.
    #[test]
    fn as_envoy() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/../..", "/"),
            ("/..", "/"),
            ("/.", "/"),
            ("/a/.", "/a/"),
            ("/./a", "/a"),
            ("/../a/", "/a/"),
            ("/a//../b", "/a/b"),
            ("/a//..//b", "/a//b"),
            ("/a/b/../c/", "/a/c/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/b/%2e./%2E/..", "/"),
            ("/a/%2e", "/a/"),
            ("/a/b/.%2E", "/a/"),
            ("/a/...", "/a/..."),
            ("/a/..b", "/a/..b"),
            ("/a/b..", "/a/b.."),
            ("/a/.b/..c/", "/a/.b/..c/"),
            ("/a%2e%2e/b", "/a../b"),
            ("/%2e%2e%2fx", "/..%2fx"),
            ("/%zz", "/%zz"),
            ("/%", "/%"),
            ("/a%4", "/a%4"),
            ("//a", "//a"),
            ("/a/..;/b", "/b"),
            ("/a/..;x/b", "/b"),
            ("/a/.;/b", "/a/b"),
            ("/a/..;", "/"),
            ("/a/.;x", "/a/"),
            ("/a/.;/..;/c", "/c"),
            ("/a/%2e%2e;/b", "/a/..;/b"),
            ("/a/..%3b/b", "/a/..%3b/b"),
            ("/a/...;/b", "/a/...;/b"),
            ("/a/b;c/d", "/a/b;c/d"),
            ("/a/.;b\\..\\c/d", "/a/d"),
            ("/a\\..;b", "/a/..;b"),
            ("/%2%41", "/%252A"),
            ("/%a%41", "/%25aA"),
            ("/%%41b", "/%25Ab"),
            ("/%%41g", "/%Ag"),
            ("/%%34%31", "/%2541"),
            ("/%a%25b", "/%a%25b"),
            ("/?/../x", "/?/../x"),
            ("/a/..?q", "/?q"),
            ("/a/%2fb", "/a/%2fb"),
            ("/a%5cb", "/a%5cb"),
            ("/c%41%2e%2fX?y=%41", "/cA.%2fX?y=%41"),
            ("/x%2Dy%7e%5F", "/x-y~_"),
            ("/x%20y%2By", "/x%20y%2By"),
            ("/a|b^c{d}\\e", "/a%7Cb%5Ec%7Bd%7D/e"),
            ("/!$&'()*+,-.:;=@_~", "/!$&'()*+,-.:;=@_~"),
        ] {
            check(BASE, path, expected);
        }
    }

    #[test]
    fn backslashes_are_slashes() {
        check(BASE, "/a\\..\\b", "/b");
        check(DECODE, "/a%5C..%5cb", "/b");
        check(DECODE, "/a%2F%2fb?x=%2F", "/a/b?x=%2F");
    }

    #[test]
    fn slashes_merge_where_asked() {
        check(MERGE, "//a///b/?c//d", "/a/b/?c//d");
        check(BASE, "//a///b", "//a///b");
        check(MERGE, "/a/./%2f", "/a/%2f");
        check(MERGE, "//", "//");
        check(MERGE, "////?x", "//?x");
    }

    #[test]
    fn nothing_where_not_asked() {
        check(NONE, "/a/../b%41", "/a/../b%41");
    }

    #[test]
    fn an_encoded_nul_is_refused() {
        assert_eq!(normalize(&PathAndQuery::from_static("/a%00"), BASE), Err(BadPath));
    }

    #[test]
    fn normalized_paths_stay() {
        for path in ["/", "/items/7", "/a.b/c-d_e~f", "/a//b", "/v1/items?x=/../y"] {
            assert_eq!(normalize(&PathAndQuery::from_static(path), BASE), Ok(None), "{path}");
        }
    }
}
