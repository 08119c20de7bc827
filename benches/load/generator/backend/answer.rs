//! What the backend answers, whichever version of HTTP asks.
//!
//! A body begins with the label of the address that was asked and what it has to say: the path that arrived, or with a
//! query parameter `echo=NAME` the value of that request header. The rest are dots.

/// Length of every body, unless `bytes=N` in the query asks for a longer one.
pub(crate) const BODY_BYTES: usize = 128;

/// What every body is made of, beyond its beginning.
const FILLER: [u8; 16 * 1024] = [b'.'; 16 * 1024];

/// What a request wants, by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted<'a> {
    /// When.
    pub(super) when: When,
    /// The header whose value is to be said.
    pub(super) echo: Option<&'a [u8]>,
    /// Length of the body.
    pub(super) bytes: u64,
}

/// When an answer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// At once.
    Now,
    /// When somebody releases those that are held: `hold` in the query.
    Held,
    /// At once, by the backend as a whole, not by this connection.
    Control(Control),
}

/// Paths that ask about the backend itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// `/-/state`: says how many requests are held and how many connections are open, as `HELD/CONNECTIONS`.
    State,
    /// `/-/release`: answers all that are held; says how many those were.
    Release,
}

impl<'a> Wanted<'a> {
    /// Reads a path with its query.
    pub(super) fn read(path: &'a [u8]) -> Wanted<'a> {
        let mut wanted = Wanted { when: When::Now, echo: None, bytes: BODY_BYTES as u64 };
        let Some(mark) = path.iter().position(|byte| *byte == b'?') else {
            wanted.when = match path {
                b"/-/state" => When::Control(Control::State),
                b"/-/release" => When::Control(Control::Release),
                _ => When::Now,
            };
            return wanted;
        };
        for parameter in path.get(mark + 1..).unwrap_or_default().split(|byte| *byte == b'&') {
            if let Some(name) = parameter.strip_prefix(b"echo=") {
                wanted.echo = Some(name);
            } else if let Some(digits) = parameter.strip_prefix(b"bytes=") {
                let bytes = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
                wanted.bytes = bytes.unwrap_or(0).max(BODY_BYTES as u64);
            } else if parameter == b"hold" {
                wanted.when = When::Held;
            }
        }
        wanted
    }
}

/// Appends the first [`BODY_BYTES`] of a body.
pub(super) fn append_opening(out: &mut Vec<u8>, label: &str, said: &[u8]) {
    let start = out.len();
    out.extend_from_slice(label.as_bytes());
    out.push(b' ');
    out.extend_from_slice(said);
    out.push(b' ');
    out.truncate(start + BODY_BYTES - 1);
    out.resize(start + BODY_BYTES - 1, b'.');
    out.push(b'\n');
}

/// Some of what follows the opening: at most `bytes`.
pub(super) fn filler(bytes: u64) -> &'static [u8] {
    let length = usize::try_from(bytes).unwrap_or(usize::MAX).min(FILLER.len());
    FILLER.get(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_is_wanted() {
        let check = |path: &str, when, echo: Option<&str>, bytes| {
            let expected = Wanted { when, echo: echo.map(str::as_bytes), bytes };
            assert_eq!(Wanted::read(path.as_bytes()), expected, "{path}");
        };
        check("/items/7", When::Now, None, 128);
        check("/a?b=1&echo=x-a", When::Now, Some("x-a"), 128);
        check("/a?bytes=1000000000", When::Now, None, 1_000_000_000);
        check("/a?bytes=5", When::Now, None, 128);
        check("/a?hold&echo=host", When::Held, Some("host"), 128);
        check("/-/state", When::Control(Control::State), None, 128);
        check("/-/release", When::Control(Control::Release), None, 128);
        check("/a?held", When::Now, None, 128);
    }

    #[test]
    fn an_opening_has_its_length_whatever_is_said() {
        for said in ["", "/items/7", &"x".repeat(300)] {
            let mut out = b"before".to_vec();
            append_opening(&mut out, "v1", said.as_bytes());
            assert_eq!(out.len(), 6 + BODY_BYTES);
            assert!(out.starts_with(b"beforev1 ") && out.ends_with(b"\n"));
        }
    }
}
