//! The backend's side of an HTTP/2 connection. It reads no request bodies: it takes what the first window allows and
//! never widens it, so who sends a longer one stalls.

use super::answer::{BODY_BYTES, Control, Wanted, When, append_opening, filler};
use crate::http2::hpack::{Decoder, Prepared, TABLE_BYTES, append_unindexed};
use crate::http2::{
    FRAME_BYTES_MAX, Frame, Kind, PREFACE, WINDOW_BYTES, append, append_acknowledgement, append_head,
    append_settings, flag, setting,
};
use crate::response::Malformed;

/// What is known of a connection.
pub(super) struct Http2 {
    incoming: Vec<u8>,
    greeted: bool,
    decoder: Decoder,
    /// The head of the usual answer, and whether it was sent before.
    usual: Prepared,
    usual_was_sent: bool,
    /// The client keeps a table for it.
    table: bool,
    /// What may be sent on the connection, and on a new stream.
    window: i64,
    stream_window: i64,
    streams: Vec<Stream>,
    /// Of the request that is being read.
    request: Request,
}

/// A stream that was not answered to its end at once.
struct Stream {
    number: u32,
    window: i64,
    state: State,
}

enum State {
    /// The beginning of the body that was not sent yet, and how much filler follows.
    Answering(Vec<u8>, u64),
    /// What the answer will say and how long it will be, when it is released.
    Held(Vec<u8>, u64),
    /// A request body comes.
    Stalled,
}

#[derive(Default)]
struct Request {
    path: Vec<u8>,
    authority: Vec<u8>,
    echoed: Option<Vec<u8>>,
}

impl Http2 {
    /// A new connection; appends what a server begins with.
    pub(super) fn new(streams_max: u32, out: &mut Vec<u8>) -> Http2 {
        append_settings(out, &[(setting::MAX_CONCURRENT_STREAMS, streams_max)]);
        let length = BODY_BYTES.to_string();
        let usual = [(":status", "200"), ("content-type", "text/plain"), ("content-length", &length)];
        Http2 {
            incoming: Vec::new(),
            greeted: false,
            decoder: Decoder::default(),
            usual: Prepared::new(&usual),
            usual_was_sent: false,
            table: true,
            window: WINDOW_BYTES.into(),
            stream_window: WINDOW_BYTES.into(),
            streams: Vec::new(),
            request: Request::default(),
        }
    }

    /// Takes what came and appends answers; returns what is asked of the backend as a whole, and on which stream.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        label: &str,
        out: &mut Vec<u8>,
    ) -> Result<Option<(Control, u32)>, Malformed> {
        let mut incoming = std::mem::take(&mut self.incoming);
        incoming.extend_from_slice(bytes);
        let mut rest = incoming.as_slice();
        if !self.greeted {
            let Some(after) = rest.strip_prefix(PREFACE) else {
                self.incoming = incoming;
                return Ok(None);
            };
            (self.greeted, rest) = (true, after);
        }
        let mut control = None;
        while let Some(frame) = Frame::take(&mut rest)? {
            append_acknowledgement(out, &frame);
            match frame.kind {
                Kind::Headers => control = self.headers(&frame, label, out)?.or(control),
                Kind::Settings if !frame.has(flag::ACK) => self.settings(&frame),
                Kind::WindowUpdate => self.widen(frame.stream, frame.number().into()),
                Kind::RstStream => self.streams.retain(|stream| stream.number != frame.stream),
                Kind::Unsupported(_) => return Err(Malformed("a push or a header block of several frames")),
                Kind::Data | Kind::Settings | Kind::Ping | Kind::GoAway | Kind::Ignored(_) => {}
            }
        }
        let taken = incoming.len() - rest.len();
        incoming.drain(..taken);
        self.incoming = incoming;
        Ok(control)
    }

    fn settings(&mut self, frame: &Frame<'_>) {
        for (name, value) in frame.settings() {
            if name == setting::HEADER_TABLE_SIZE {
                self.table = value as usize >= TABLE_BYTES;
            }
            if name == setting::INITIAL_WINDOW_SIZE {
                let wider = i64::from(value) - self.stream_window;
                self.stream_window += wider;
                self.streams.iter_mut().for_each(|stream| stream.window += wider);
            }
        }
    }

    fn widen(&mut self, number: u32, bytes: i64) {
        if number == 0 {
            self.window += bytes;
        } else if let Some(stream) = self.streams.iter_mut().find(|stream| stream.number == number) {
            stream.window += bytes;
        }
    }

    fn headers(
        &mut self,
        frame: &Frame<'_>,
        label: &str,
        out: &mut Vec<u8>,
    ) -> Result<Option<(Control, u32)>, Malformed> {
        let mut request = std::mem::take(&mut self.request);
        request.clear();
        self.decoder.decode(frame.content()?, |name, value| request.header(name, value))?;
        let control = self.answer(frame, &request, label, out);
        self.request = request;
        Ok(control)
    }

    fn answer(
        &mut self,
        frame: &Frame<'_>,
        request: &Request,
        label: &str,
        out: &mut Vec<u8>,
    ) -> Option<(Control, u32)> {
        let number = frame.stream;
        if !frame.has(flag::END_STREAM) {
            self.keep(number, State::Stalled);
            return None;
        }
        let wanted = Wanted::read(&request.path);
        let said = request.said(&wanted);
        match wanted.when {
            When::Now => self.begin(number, label, said, wanted.bytes, out),
            When::Held => self.keep(number, State::Held(said.to_vec(), wanted.bytes)),
            When::Control(control) => return Some((control, number)),
        }
        None
    }

    fn keep(&mut self, number: u32, state: State) {
        self.streams.push(Stream { number, window: self.stream_window, state });
    }

    /// Appends an answer of the usual length.
    pub(super) fn append_answer(&mut self, number: u32, label: &str, said: &[u8], out: &mut Vec<u8>) {
        self.begin(number, label, said, BODY_BYTES as u64, out);
    }

    /// Appends the head of an answer, and the body if it is short and the windows allow it.
    fn begin(&mut self, number: u32, label: &str, said: &[u8], bytes: u64, out: &mut Vec<u8>) {
        let usual = BODY_BYTES as i64;
        if bytes == BODY_BYTES as u64 && self.window.min(self.stream_window) >= usual {
            self.append_usual_head(number, out);
            append_head(out, Kind::Data, flag::END_STREAM, number, BODY_BYTES);
            append_opening(out, label, said);
            self.window -= usual;
            return;
        }
        if bytes == BODY_BYTES as u64 {
            self.append_usual_head(number, out);
        } else {
            let mut block = Vec::new();
            append_unindexed(&mut block, ":status", "200");
            append_unindexed(&mut block, "content-length", &bytes.to_string());
            append(out, Kind::Headers, flag::END_HEADERS, number, &block);
        }
        let mut opening = Vec::new();
        append_opening(&mut opening, label, said);
        self.keep(number, State::Answering(opening, bytes - BODY_BYTES as u64));
    }

    fn append_usual_head(&mut self, number: u32, out: &mut Vec<u8>) {
        let first = !std::mem::replace(&mut self.usual_was_sent, true);
        let block = if self.table { self.usual.block(first) } else { self.usual.plain() };
        append(out, Kind::Headers, flag::END_HEADERS, number, block);
    }

    /// Whether more can be appended without anything having come.
    pub(super) fn has_more(&self) -> bool {
        self.window > 0 && self.streams.iter().any(Stream::has_more)
    }

    /// Appends one more frame of each body that its windows allow.
    pub(super) fn more(&mut self, out: &mut Vec<u8>) {
        for stream in &mut self.streams {
            stream.more(&mut self.window, out);
        }
        self.streams.retain(|stream| !stream.is_done());
    }

    /// How many requests are held.
    pub(super) fn held(&self) -> usize {
        self.streams.iter().filter(|stream| matches!(stream.state, State::Held(..))).count()
    }

    /// Answers what is held.
    pub(super) fn release(&mut self, label: &str, out: &mut Vec<u8>) {
        for stream in std::mem::take(&mut self.streams) {
            match stream.state {
                State::Held(said, bytes) => self.begin(stream.number, label, &said, bytes, out),
                State::Answering(..) | State::Stalled => self.streams.push(stream),
            }
        }
    }
}

impl Stream {
    fn has_more(&self) -> bool {
        self.window > 0 && matches!(self.state, State::Answering(..))
    }

    fn is_done(&self) -> bool {
        matches!(&self.state, State::Answering(opening, 0) if opening.is_empty())
    }

    fn more(&mut self, connection_window: &mut i64, out: &mut Vec<u8>) {
        let window = usize::try_from(self.window.min(*connection_window)).unwrap_or(0).min(FRAME_BYTES_MAX);
        let State::Answering(opening, left) = &mut self.state else { return };
        if window == 0 {
            return;
        }
        let opening_bytes = opening.len().min(window);
        let filler = filler((window - opening_bytes).min(usize::try_from(*left).unwrap_or(window)) as u64);
        *left -= filler.len() as u64;
        let ends = *left == 0 && opening_bytes == opening.len();
        let length = opening_bytes + filler.len();
        append_head(out, Kind::Data, if ends { flag::END_STREAM } else { 0 }, self.number, length);
        out.extend(opening.drain(..opening_bytes));
        out.extend_from_slice(filler);
        self.window -= length as i64;
        *connection_window -= length as i64;
    }
}

impl Request {
    fn clear(&mut self) {
        self.path.clear();
        self.authority.clear();
        self.echoed = None;
    }

    /// Takes note of a header; pseudo-headers come first.
    fn header(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b":path" => self.path.extend_from_slice(value),
            b":authority" => self.authority.extend_from_slice(value),
            _ => {
                if self.path.contains(&b'?')
                    && Wanted::read(&self.path).echo.is_some_and(|echo| echo.eq_ignore_ascii_case(name))
                {
                    self.echoed = Some(value.to_vec());
                }
            }
        }
    }

    /// What the body has to say. The authority counts as Host where there is none.
    fn said<'a>(&'a self, wanted: &Wanted<'a>) -> &'a [u8] {
        match (wanted.echo, &self.echoed) {
            (None, _) => &self.path,
            (Some(_), Some(value)) => value,
            (Some(b"host"), None) => &self.authority,
            (Some(_), None) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::append_window_update;

    /// A connection that got the preface, SETTINGS with this stream window, and a request for `path` on stream 1.
    fn asked(path: &str, window: u32, flags: u8) -> (Http2, Vec<u8>) {
        let mut out = Vec::new();
        let mut connection = Http2::new(9, &mut out);
        let mut bytes = PREFACE.to_vec();
        append_settings(&mut bytes, &[(setting::INITIAL_WINDOW_SIZE, window)]);
        let head = [(":method", "GET"), (":path", path), (":authority", "catalog"), ("x-a", "yes")];
        append(&mut bytes, Kind::Headers, flags | flag::END_HEADERS, 1, Prepared::new(&head).block(true));
        let (first, second) = bytes.split_at(30);
        assert!(connection.receive(first, "v1", &mut out).unwrap().is_none());
        assert!(connection.receive(second, "v1", &mut out).unwrap().is_none());
        (connection, out)
    }

    /// The body that was sent, and whether it ended.
    fn body(out: &[u8]) -> (Vec<u8>, bool) {
        let (mut body, mut ended, mut rest) = (Vec::new(), false, out);
        while let Some(frame) = Frame::take(&mut rest).unwrap() {
            if frame.kind == Kind::Data {
                body.extend_from_slice(frame.payload);
                ended = frame.has(flag::END_STREAM);
            }
        }
        (body, ended)
    }

    #[test]
    fn the_body_tells_what_arrived() {
        for (path, starts) in
            [("/a", "v1 /a .."), ("/a?echo=x-a", "v1 yes .."), ("/a?echo=host", "v1 catalog ..")]
        {
            let (body, ended) = body(&asked(path, WINDOW_BYTES, flag::END_STREAM).1);
            assert!(ended && body.len() == BODY_BYTES && body.starts_with(starts.as_bytes()), "{path}");
        }
    }

    #[test]
    fn a_body_goes_no_further_than_its_windows() {
        let (mut connection, mut out) = asked("/a?bytes=100000", 1000, flag::END_STREAM);
        let drain = |connection: &mut Http2, out: &mut Vec<u8>| {
            while connection.has_more() {
                connection.more(out);
            }
            (body(out).0.len(), body(out).1)
        };
        assert_eq!(drain(&mut connection, &mut out), (1000, false));
        let update = |connection: &mut Http2, stream| {
            let mut bytes = Vec::new();
            append_window_update(&mut bytes, stream, 1 << 20);
            connection.receive(&bytes, "v1", &mut Vec::new()).unwrap();
        };
        update(&mut connection, 1);
        assert_eq!(drain(&mut connection, &mut out), (WINDOW_BYTES as usize, false));
        update(&mut connection, 0);
        assert_eq!(drain(&mut connection, &mut out), (100_000, true));
        assert!(connection.streams.is_empty());
    }

    #[test]
    fn nothing_is_put_into_a_table_the_client_does_not_keep() {
        let mut out = Vec::new();
        let mut connection = Http2::new(9, &mut out);
        let mut bytes = PREFACE.to_vec();
        append_settings(&mut bytes, &[(setting::HEADER_TABLE_SIZE, 0)]);
        let head = Prepared::new(&[(":method", "GET"), (":path", "/a")]);
        for stream in [1, 3] {
            let flags = flag::END_STREAM | flag::END_HEADERS;
            append(&mut bytes, Kind::Headers, flags, stream, head.block(stream == 1));
        }
        connection.receive(&bytes, "v1", &mut out).unwrap();
        let (mut rest, mut heads) = (out.as_slice(), 0);
        while let Some(frame) = Frame::take(&mut rest).unwrap() {
            if frame.kind == Kind::Headers {
                Decoder::default().decode(frame.payload, |_, _| {}).unwrap();
                heads += 1;
            }
        }
        assert_eq!(heads, 2);
    }

    #[test]
    fn a_short_body_waits_for_its_window_too() {
        let (mut connection, mut out) = asked("/a", 100, flag::END_STREAM);
        connection.more(&mut out);
        assert_eq!((body(&out).0.len(), connection.has_more()), (100, false));
    }

    #[test]
    fn a_held_request_waits_and_a_request_body_is_not_read() {
        let (mut connection, mut out) = asked("/a?hold", WINDOW_BYTES, flag::END_STREAM);
        assert_eq!((connection.held(), body(&out).0.len()), (1, 0));
        connection.release("v1", &mut out);
        assert_eq!((connection.held(), body(&out).0.len()), (0, BODY_BYTES));
        let (mut connection, mut out) = asked("/a", WINDOW_BYTES, 0);
        let length = out.len();
        let mut bytes = Vec::new();
        append(&mut bytes, Kind::Data, 0, 1, &[0; 1000]);
        connection.receive(&bytes, "v1", &mut out).unwrap();
        assert_eq!((out.len(), connection.has_more()), (length, false));
    }
}
