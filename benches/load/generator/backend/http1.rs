//! The backend's side of an HTTP/1.1 connection. It reads no request bodies: who sends one stalls.

use std::io::{self, ErrorKind};

use super::answer::{BODY_BYTES, Control, Wanted, When, append_opening, filler};

/// The longest request head it takes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What is known of a connection.
#[derive(Default)]
pub(super) struct Http1 {
    incoming: Vec<u8>,
    state: State,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    /// A request may come.
    #[default]
    Free,
    /// Bytes of the body that still have to be made.
    Answering(u64),
    /// What the answer will say and how long it will be, when it is released.
    Held(Vec<u8>, u64),
    /// A request body comes, and is not read.
    Stalled,
}

impl Http1 {
    /// Takes what came and appends answers; returns what is asked of the backend as a whole.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        label: &str,
        out: &mut Vec<u8>,
    ) -> io::Result<Option<Control>> {
        self.incoming.extend_from_slice(bytes);
        let mut taken = 0;
        let mut control = None;
        while self.state == State::Free && control.is_none() {
            let Some(head) = head(self.incoming.get(taken..).unwrap_or_default()) else { break };
            taken += head.len();
            (self.state, control) = request(head, label, out)?;
        }
        self.incoming.drain(..taken);
        if self.is_stalled() {
            // What came of the body with the head.
            self.incoming = Vec::new();
        }
        if self.incoming.len() > HEAD_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(control)
    }

    /// Whether more can be appended without anything having come.
    pub(super) fn has_more(&self) -> bool {
        matches!(self.state, State::Answering(_))
    }

    /// Appends more of the body.
    pub(super) fn more(&mut self, out: &mut Vec<u8>) {
        if let State::Answering(left) = self.state {
            let filler = filler(left);
            out.extend_from_slice(filler);
            self.state = answering(left - filler.len() as u64);
        }
    }

    /// Whether it must not be read now.
    pub(super) fn is_stalled(&self) -> bool {
        self.state == State::Stalled
    }

    /// How many requests are held.
    pub(super) fn held(&self) -> usize {
        usize::from(matches!(self.state, State::Held(..)))
    }

    /// Answers what is held.
    pub(super) fn release(&mut self, label: &str, out: &mut Vec<u8>) {
        if let State::Held(said, bytes) = std::mem::take(&mut self.state) {
            self.state = answer(label, &said, bytes, out);
        }
    }
}

/// The request head at the start of `bytes`, its empty line included; none while it is incomplete.
fn head(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    bytes.get(..end + 4)
}

/// Answers a request, if it is to be answered here and now.
fn request(head: &[u8], label: &str, out: &mut Vec<u8>) -> io::Result<(State, Option<Control>)> {
    let mut words = head.split(|byte| *byte == b' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match method {
        b"GET" => {}
        b"POST" => return Ok((State::Stalled, None)),
        _ => return Err(ErrorKind::Unsupported.into()),
    }
    let wanted = Wanted::read(path);
    let said = match wanted.echo {
        Some(name) => header(head, name).unwrap_or_default(),
        None => path,
    };
    Ok(match wanted.when {
        When::Now => (answer(label, said, wanted.bytes, out), None),
        When::Held => (State::Held(said.to_vec(), wanted.bytes), None),
        When::Control(control) => (State::Free, Some(control)),
    })
}

/// Appends an answer, a long one only in its beginning.
pub(super) fn append_answer(label: &str, said: &[u8], out: &mut Vec<u8>) {
    answer(label, said, BODY_BYTES as u64, out);
}

fn answer(label: &str, said: &[u8], bytes: u64, out: &mut Vec<u8>) -> State {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: ");
    out.extend_from_slice(bytes.to_string().as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    append_opening(out, label, said);
    answering(bytes - BODY_BYTES as u64)
}

fn answering(left: u64) -> State {
    if left == 0 { State::Free } else { State::Answering(left) }
}

fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let value = line.get(name.len()..)?.strip_prefix(b":")?;
        line.get(..name.len())?.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &str, starts: &str) {
        let mut out = Vec::new();
        assert_eq!(Http1::default().receive(request.as_bytes(), "v1", &mut out).unwrap(), None);
        let text = String::from_utf8(out).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.len(), BODY_BYTES);
        assert!(body.starts_with(starts) && body.ends_with('\n'), "{body:?}");
    }

    #[test]
    fn the_body_tells_what_arrived() {
        check("GET /items/7 HTTP/1.1\r\nHost: a\r\n\r\n", "v1 /items/7 ..");
        check("GET /a?b=1 HTTP/1.1\r\n\r\n", "v1 /a?b=1 ..");
        check("GET /a?b=1&echo=x-a HTTP/1.1\r\nX-A: yes \r\n\r\nrest", "v1 yes ..");
        check("GET /a?echo=x-a HTTP/1.1\r\nx-ab: no\r\n\r\n", "v1  ..");
        check(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(300)), "v1 /xxx");
    }

    #[test]
    fn only_whole_heads_are_answered() {
        let mut out = Vec::new();
        let mut half = Http1::default();
        half.receive(b"GET / HTTP/1.1\r\nHost: a\r\n", "v1", &mut out).unwrap();
        assert!(out.is_empty());
        half.receive(b"\r\n", "v1", &mut out).unwrap();
        assert!(out.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(Http1::default().receive(b"PUT / HTTP/1.1\r\n\r\n", "v1", &mut out).is_err());
        assert!(Http1::default().receive(&[b'x'; HEAD_BYTES_MAX + 1], "v1", &mut out).is_err());
    }

    #[test]
    fn a_long_body_comes_piece_by_piece_and_the_next_request_waits_for_it() {
        let mut out = Vec::new();
        let mut connection = Http1::default();
        let requests = b"GET /a?bytes=50000 HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
        connection.receive(requests, "v1", &mut out).unwrap();
        while connection.has_more() {
            connection.more(&mut out);
        }
        let body = out.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(out.len() - body, 50_000);
        connection.receive(b"", "v1", &mut out).unwrap();
        assert_eq!(out.len() - body, 50_000 + body - 2 + BODY_BYTES);
    }

    #[test]
    fn a_held_request_waits_and_a_body_stalls() {
        let mut out = Vec::new();
        let mut connection = Http1::default();
        connection.receive(b"GET /a?hold HTTP/1.1\r\n\r\n", "v1", &mut out).unwrap();
        assert_eq!((connection.held(), out.len()), (1, 0));
        connection.release("v1", &mut out);
        assert_eq!(connection.held(), 0);
        assert!(out.ends_with(b"\n"));
        let mut post = b"POST /a HTTP/1.1\r\ncontent-length: 99999\r\n\r\n".to_vec();
        post.resize(60_000, b'x');
        connection.receive(&post, "v1", &mut out).unwrap();
        assert!(connection.is_stalled());
        let state = Http1::default().receive(b"GET /-/state HTTP/1.1\r\n\r\n", "v1", &mut out).unwrap();
        assert_eq!(state, Some(Control::State));
    }
}
