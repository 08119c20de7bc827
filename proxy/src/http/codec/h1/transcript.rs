//! What a connection's bytes are taken for, as text: for `tests/fuzz`, which reads the same bytes in more than one way and
//! compares.

use std::fmt::Debug;

use bytes::BytesMut;
use config::Limits;
use http::Method;

use super::Framing;
use super::decode::Decoder;
use super::encode;
use super::head::{HeadReader, Received};
use crate::http::codec::{BadMessage, BodyBounds, Frame, RequestHead};

/// The requests in `bytes`, which come in pieces of `size`: one line for each head, body, trailer section or refusal.
pub(crate) fn requests(bytes: &[u8], size: usize) -> Vec<String> {
    let limits = Limits::default();
    read(bytes, size, |heads, buffer| heads.request(buffer, &limits))
}

/// The same of responses, each of them to a request with `method`.
pub(crate) fn responses(bytes: &[u8], size: usize, method: &Method) -> Vec<String> {
    let limits = Limits::default();
    read(bytes, size, |heads, buffer| heads.response(buffer, &limits, method))
}

fn read<H: Debug>(
    bytes: &[u8],
    size: usize,
    mut head: impl FnMut(&mut HeadReader, &mut BytesMut) -> Result<Option<Received<H>>, BadMessage>,
) -> Vec<String> {
    let (mut heads, mut decoder) = (HeadReader::default(), None::<Decoder>);
    let bounds = BodyBounds::of(&Limits::DEFAULT);
    let (mut buffer, mut data, mut lines) = (BytesMut::new(), Vec::new(), Vec::new());
    for piece in bytes.chunks(size.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            let Some(body) = &mut decoder else {
                match head(&mut heads, &mut buffer) {
                    Ok(Some(received)) => {
                        decoder = Some(Decoder::new(received.framing));
                        lines.push(format!("{received:?}"));
                        continue;
                    }
                    Ok(None) => break,
                    Err(bad) => {
                        lines.push(format!("{bad:?}"));
                        return lines;
                    }
                }
            };
            match body.decode(&mut buffer, &bounds) {
                Ok(Some(Frame::Data(bytes))) => data.extend_from_slice(&bytes),
                Ok(Some(Frame::Trailers(trailers))) => lines.push(format!("{trailers:?}")),
                Ok(None) if body.is_ended() => {
                    lines.push(format!("{}", std::mem::take(&mut data).escape_ascii()));
                    decoder = None;
                }
                Ok(None) => break,
                Err(bad) => {
                    lines.push(bad.what.to_owned());
                    return lines;
                }
            }
        }
    }
    let whole = decoder.as_mut().map(Decoder::close);
    lines.push(format!("{} {whole:?} {}", data.escape_ascii(), buffer.escape_ascii()));
    lines
}

/// The first request in `bytes`, and whether it has a body.
pub(crate) fn request(bytes: &[u8]) -> Option<(RequestHead, bool)> {
    let received = HeadReader::default().request(&mut BytesMut::from(bytes), &Limits::default());
    received.ok().flatten().map(|received| (received.head, received.framing != Framing::Empty))
}

/// The head as an upstream gets it, with a body of so many bytes or of chunks, and as we would read it ourselves. `None`
/// when that is not one head and nothing else.
pub(crate) fn read_as_upstream(head: &RequestHead, length: Option<u64>) -> Option<RequestHead> {
    let framing = match length {
        None => Framing::Chunked,
        Some(0) => Framing::Empty,
        Some(length) => Framing::Length(length),
    };
    let mut written = Vec::new();
    encode::request(head, framing, &mut written);
    // What a client says fits; what is added to it is no more than a few lines.
    let limits = Limits { head_bytes_max: u64::MAX, headers_max: 1_000, ..Limits::default() };
    let mut buffer = BytesMut::from(&*written);
    let received = HeadReader::default().request(&mut buffer, &limits).ok()??;
    (received.framing == framing && buffer.is_empty()).then_some(received.head)
}
