//! What is answered: pages that are there in full, and large ones that are made piece by piece while they are sent, so that
//! they take no more memory than a piece.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::iter::Peekable;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use config::envoy_json::Pieces;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;

use super::coding::{CODED_PIECE_BYTES, Coding, coded};
use crate::http::codec::{Body, Frame, ResponseHead, StreamError};
use crate::telemetry::printable;

/// What is made of a page before it is sent. A page that ends before is sent in full, with its length.
const PIECE_BYTES: usize = 64 * 1024;

/// A page that is plain text.
const TEXT: &str = "text/plain; charset=UTF-8";
/// A page that is JSON.
const JSON: &str = "application/json";

/// An answer.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) content: Content,
    /// The methods that are allowed, of a page that refuses another.
    pub(crate) allow: Option<&'static str>,
    /// How the content is coded.
    pub(crate) coding: Coding,
}

/// What a page says.
pub(crate) enum Content {
    /// All of it.
    Whole(Vec<u8>),
    /// It is made while it is sent. Making a piece must be quick: others are answered in between.
    Pieces(Parts),
}

/// A page in parts, which are made as they are taken.
pub(crate) type Parts = Box<dyn Iterator<Item = Vec<u8>>>;

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Whole(bytes) => f.debug_tuple("Whole").field(&bytes.len()).finish(),
            Content::Pieces(_) => f.write_str("Pieces"),
        }
    }
}

impl Page {
    /// What is sent as it is.
    pub(crate) fn plain(status: StatusCode, content_type: &'static str, content: Content) -> Page {
        Page { status, content_type, content, allow: None, coding: Coding::Fixed }
    }

    /// Metrics, piece by piece, coded as whoever asks for them takes them.
    pub(crate) fn metrics(content_type: &'static str, text: Parts, asked: &HeaderMap) -> Page {
        let (parts, coding) = coded(text, asked);
        Page { coding, ..Page::plain(StatusCode::OK, content_type, Content::Pieces(parts)) }
    }

    /// Text for people, without what their terminals would obey.
    pub(crate) fn text(status: StatusCode, body: String) -> Page {
        let content = Content::Whole(shown(body).into_bytes());
        Page::plain(status, TEXT, content)
    }

    /// The same, piece by piece.
    pub(super) fn lines(lines: impl Iterator<Item = String> + 'static) -> Page {
        let content = Content::Pieces(Box::new(lines.map(|line| shown(line).into_bytes())));
        Page::plain(StatusCode::OK, TEXT, content)
    }

    pub(super) fn json(value: &Value) -> Page {
        match serde_json::to_vec_pretty(value) {
            Ok(body) => {
                let content = Content::Whole(body);
                Page::plain(StatusCode::OK, JSON, content)
            }
            Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    /// JSON that is written piece by piece.
    pub(super) fn json_pieces(pieces: Pieces) -> Page {
        let content = Content::Pieces(Box::new(pieces.map(String::into_bytes)));
        Page::plain(StatusCode::OK, JSON, content)
    }

    /// JSON with a list in it, made entry by entry: `before`, the entries and `after` are the document.
    pub(super) fn json_list(
        before: &'static str,
        entries: impl Iterator<Item = Value> + 'static,
        after: &str,
    ) -> Page {
        let comma = |number| if number == 0 { "\n" } else { ",\n" };
        let entries = entries.enumerate().map(move |(number, entry)| format!("{}{entry:#}", comma(number)));
        let pieces = std::iter::once(before.to_owned()).chain(entries);
        Page::json_pieces(Box::new(pieces.chain(std::iter::once(format!("\n{after}\n")))))
    }

    /// What is refused because of its method.
    pub(crate) fn only(allow: &'static str, why: &str) -> Page {
        let mut page = Page::text(StatusCode::METHOD_NOT_ALLOWED, format!("{why}\n"));
        page.allow = Some(allow);
        page
    }

    /// As it is sent; of a page that would be one too many, that.
    pub(super) fn answer(
        self,
        method: &Method,
        (streams, sending): (&Streams, &Rc<Cell<bool>>),
    ) -> (ResponseHead, PageBody) {
        let Page { status, content_type, content, allow, coding } = self;
        let body = match content {
            Content::Whole(body) => PageBody::whole(body),
            Content::Pieces(pieces) => {
                let mut pieces = pieces.peekable();
                let piece_bytes = if coding == Coding::Gzip { CODED_PIECE_BYTES } else { PIECE_BYTES };
                let first = gather(&mut pieces, piece_bytes);
                if pieces.peek().is_none() {
                    PageBody::whole(first)
                } else if *method == Method::HEAD {
                    PageBody { ready: None, more: None, length_is_known: false }
                } else if let Some(stream) = streams.begin(sending) {
                    let more = Some(More { pieces, piece_bytes, paused: false, _stream: stream });
                    PageBody { ready: Some(first.into()), more, length_is_known: false }
                } else {
                    return too_many().answer(method, (streams, sending));
                }
            }
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
        // What is shown here is text that others wrote.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(length) = body.exact_length().filter(|_| body.length_is_known) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        if coding != Coding::Fixed {
            headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        }
        if let Some(name) = coding.name() {
            headers.insert(CONTENT_ENCODING, name);
        }
        if let Some(allow) = allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        let body = if *method == Method::HEAD { PageBody::whole(Vec::new()) } else { body };
        (ResponseHead { status, headers }, body)
    }
}

/// Text without what terminals would obey.
fn shown(text: String) -> String {
    let made = match printable(&text) {
        Cow::Borrowed(_) => None,
        Cow::Owned(made) => Some(made),
    };
    made.unwrap_or(text)
}

fn too_many() -> Page {
    let what = "as many large pages as page_streams_max allows are being sent; ask again when one has been read, or ask for \
                less of this one\n";
    Page::text(StatusCode::SERVICE_UNAVAILABLE, what.to_owned())
}

/// As much as is sent at once.
fn gather(pieces: &mut Peekable<Parts>, piece_bytes: usize) -> Vec<u8> {
    let mut gathered = Vec::new();
    while gathered.len() < piece_bytes {
        match pieces.next() {
            Some(piece) if gathered.is_empty() => gathered = piece,
            Some(piece) => gathered.extend_from_slice(&piece),
            None => break,
        }
    }
    gathered
}

/// The pages that are being made while they are sent.
pub(super) struct Streams {
    /// How many.
    now: Rc<Cell<usize>>,
    /// How many there may be: `page_streams_max`.
    max: usize,
    /// Told when there would be more.
    reached: Rc<dyn Fn(&'static str)>,
}

impl Streams {
    pub(super) fn new(max: usize, reached: Rc<dyn Fn(&'static str)>) -> Streams {
        Streams { now: Rc::default(), max, reached }
    }

    /// `None` when there are too many. While it lasts, `sending` is set.
    fn begin(&self, sending: &Rc<Cell<bool>>) -> Option<Stream> {
        if self.now.get() >= self.max {
            (self.reached)("page_streams_max");
            return None;
        }
        self.now.set(self.now.get() + 1);
        sending.set(true);
        Some(Stream { now: self.now.clone(), sending: sending.clone() })
    }
}

/// One of them, until it is dropped.
struct Stream {
    now: Rc<Cell<usize>>,
    sending: Rc<Cell<bool>>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.now.set(self.now.get().saturating_sub(1));
        self.sending.set(false);
    }
}

/// The body of a page.
pub(super) struct PageBody {
    /// What has been made and not been sent.
    ready: Option<Bytes>,
    more: Option<More>,
    length_is_known: bool,
}

/// What has not been made.
struct More {
    pieces: Peekable<Parts>,
    /// Bytes that are sent at once.
    piece_bytes: usize,
    /// The others had their turn since the last piece.
    paused: bool,
    _stream: Stream,
}

impl PageBody {
    fn whole(body: Vec<u8>) -> PageBody {
        PageBody { ready: Some(body.into()), more: None, length_is_known: true }
    }
}

impl Body for PageBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        if let Some(ready) = self.ready.take() {
            return Poll::Ready(Some(Ok(Frame::Data(ready))));
        }
        let Some(more) = &mut self.more else { return Poll::Ready(None) };
        if !more.paused {
            // A client that reads as fast as it is made for must not keep the thread to itself.
            more.paused = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        more.paused = false;
        let piece = gather(&mut more.pieces, more.piece_bytes);
        if more.pieces.peek().is_none() {
            self.more = None;
        }
        Poll::Ready(Some(Ok(Frame::Data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.more.is_none() && self.ready.as_ref().is_none_or(Bytes::is_empty)
    }

    fn exact_length(&self) -> Option<u64> {
        let ready = self.ready.as_ref().map_or(0, |ready| ready.len() as u64);
        self.more.is_none().then_some(ready)
    }
}

/// A body that is known in full.
pub(crate) struct FullBody(pub(crate) Option<Bytes>);

impl Body for FullBody {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        Poll::Ready(self.0.take().map(|body| Ok(Frame::Data(body))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Bytes::is_empty)
    }

    fn exact_length(&self) -> Option<u64> {
        Some(self.0.as_ref().map_or(0, |body| body.len() as u64))
    }
}
