//! Bodies: bytes to frames.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use httparse::Status;

use super::Framing;
use crate::http::codec::{BadMessage, BodyBounds, Frame, reserved};

/// A piece up to this size is copied, so that the buffer it came in can be used again; a larger one is not.
const COPIED_BYTES_MAX: usize = 4096;

/// Chunks up to this size are joined to what is before them, to one piece of up to [`COPIED_BYTES_MAX`], or somewhat more.
const SMALL_CHUNK_BYTES_MAX: u64 = 1024;

/// Digits of a size below [`COPIED_BYTES_MAX`]. Chunks of so few are joined where they are there whole: each would be copied in
/// any case.
const COPIED_CHUNK_DIGITS: usize = 3;

/// Digits of a chunk's size: more than 64 bits of them are an overflow.
const CHUNK_SIZE_DIGITS_MAX: u8 = 16;

/// Extensions are ignored, and to be limited (RFC 9112 section 7.1.1).
const EXTENSIONS_TOO_LARGE: BadMessage = BadMessage {
    limit: Some("chunk_extension_bytes_max"),
    ..BadMessage::request("chunk extensions too large")
};

const TRAILERS_TOO_LARGE: BadMessage = BadMessage::too_large("trailers too large", "trailer_bytes_max");

const TOO_MANY_TRAILERS: BadMessage = BadMessage::too_large("too many trailers", "trailers_max");

const BAD_TRAILERS: BadMessage = BadMessage::request("invalid trailers");

/// Takes a body apart.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    extension_bytes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ended,
    /// So many bytes to come.
    Length(u64),
    UntilClose,
    /// In the digits of a chunk's size.
    Size {
        size: u64,
        digits: u8,
    },
    /// In the spaces that may follow them.
    Space {
        size: u64,
    },
    /// After them.
    Extension {
        size: u64,
    },
    /// Before the line feed after a chunk's size.
    SizeEnd {
        size: u64,
    },
    /// In a chunk: so many bytes to come.
    Chunk(u64),
    /// After a chunk's bytes.
    ChunkEnd,
    /// Before the line feed after a chunk.
    ChunkLineFeed,
    /// After the last chunk.
    Trailers,
}

impl Decoder {
    /// Of a body with this framing.
    pub(super) fn new(framing: Framing) -> Decoder {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::Ended,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { size: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Decoder { state, extension_bytes: 0 }
    }

    /// Whether the body has ended.
    pub(super) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Bytes still to come, where that is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Ended => Some(0),
            State::Length(length) => Some(length),
            _ => None,
        }
    }

    /// The connection has ended; whether the body is whole.
    pub(super) fn close(&mut self) -> bool {
        if self.state == State::UntilClose {
            self.state = State::Ended;
        }
        self.is_ended()
    }

    /// The next piece; `None` when more bytes are needed, or when the body has ended.
    pub(super) fn decode(
        &mut self,
        buffer: &mut BytesMut,
        bounds: &BodyBounds,
    ) -> Result<Option<Frame>, BadMessage> {
        loop {
            match self.state {
                State::Ended => return Ok(None),
                _ if buffer.is_empty() => return Ok(None),
                State::UntilClose => return Ok(Some(Frame::Data(take(buffer, u64::MAX).0))),
                State::Length(left) => {
                    let (data, left) = take(buffer, left);
                    self.state = if left == 0 { State::Ended } else { State::Length(left) };
                    return Ok(Some(Frame::Data(data)));
                }
                State::Chunk(left) if is_small(left, buffer) => {
                    return self.small_chunks(buffer, bounds).map(|data| Some(Frame::Data(data)));
                }
                State::Chunk(left) => {
                    let (data, left) = take(buffer, left);
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    return Ok(Some(Frame::Data(data)));
                }
                State::Trailers => return self.trailers(buffer, bounds),
                state => self.state = self.step(state, buffer.get_u8(), bounds)?,
            }
        }
    }

    /// Small chunks that are there whole, as one piece: what comes in chunks of a byte must not cost us a frame for each, nor the
    /// next server. (Envoy's codec collects them, too.)
    fn small_chunks(&mut self, buffer: &mut BytesMut, bounds: &BodyBounds) -> Result<Bytes, BadMessage> {
        let mut data = Vec::new();
        while data.len() < COPIED_BYTES_MAX {
            match self.state {
                State::Chunk(left) if is_small(left, buffer) => {
                    let length = usize::try_from(left).unwrap_or_default();
                    data.extend_from_slice(buffer.get(..length).unwrap_or_default());
                    buffer.advance(length);
                    self.state = State::ChunkEnd;
                }
                State::Chunk(_) | State::Trailers => break,
                State::Size { digits: 0, .. } => {
                    let taken = plain_chunks(buffer, &mut data);
                    buffer.advance(taken);
                    // What is left is read byte by byte.
                    if buffer.is_empty() || data.len() >= COPIED_BYTES_MAX {
                        break;
                    }
                    self.state = self.step(self.state, buffer.get_u8(), bounds)?;
                }
                _ if buffer.is_empty() => break,
                state => self.state = self.step(state, buffer.get_u8(), bounds)?,
            }
        }
        Ok(data.into())
    }

    /// One byte of the lines around chunks.
    fn step(&mut self, state: State, byte: u8, bounds: &BodyBounds) -> Result<State, BadMessage> {
        let bad = |what| Err(BadMessage::request(what));
        Ok(match (state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == CHUNK_SIZE_DIGITS_MAX {
                    return bad("chunk size too large");
                }
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return bad("invalid chunk size"),
            (State::Size { size, .. } | State::Space { size }, b'\r') => State::SizeEnd { size },
            (State::Size { size, .. } | State::Space { size }, b';') => State::Extension { size },
            (State::Size { size, .. } | State::Space { size }, b' ' | b'\t') => {
                self.pass_over(bounds)?;
                State::Space { size }
            }
            (State::Size { .. } | State::Space { .. }, _) => return bad("invalid chunk size"),
            (State::Extension { size }, b'\r') => State::SizeEnd { size },
            (State::Extension { .. }, 0..=8 | 10..=31 | 0x7f) => return bad("invalid chunk extension"),
            (State::Extension { size }, _) => {
                self.pass_over(bounds)?;
                State::Extension { size }
            }
            (State::SizeEnd { size: 0 }, b'\n') => State::Trailers,
            (State::SizeEnd { size }, b'\n') => State::Chunk(size),
            (State::ChunkEnd, b'\r') => State::ChunkLineFeed,
            (State::ChunkLineFeed, b'\n') => State::Size { size: 0, digits: 0 },
            _ => return bad("invalid chunk line"),
        })
    }

    /// One byte of what is ignored.
    fn pass_over(&mut self, bounds: &BodyBounds) -> Result<(), BadMessage> {
        if self.extension_bytes == bounds.extension_bytes {
            return Err(EXTENSIONS_TOO_LARGE);
        }
        self.extension_bytes += 1;
        Ok(())
    }

    fn trailers(&mut self, buffer: &mut BytesMut, bounds: &BodyBounds) -> Result<Option<Frame>, BadMessage> {
        // Most often there are none.
        if buffer.starts_with(b"\r\n") {
            buffer.advance(2);
            self.state = State::Ended;
            return Ok(None);
        }
        let bytes_max = bounds.trailer_bytes as usize;
        // No line is shorter than `a:` and its end.
        let mut room = vec![httparse::EMPTY_HEADER; (bounds.trailers as usize).min(bytes_max / 4)];
        let (length, trailers) = match httparse::parse_headers(buffer, &mut room) {
            Ok(Status::Complete((length, _))) if length > bytes_max => return Err(TRAILERS_TOO_LARGE),
            // Who wants both bytes of a line's end would see another end of the body, and another request behind it.
            Ok(Status::Complete((length, _)))
                if has_bare_line_feed(buffer.get(..length).unwrap_or_default()) =>
            {
                return Err(BAD_TRAILERS);
            }
            Ok(Status::Complete((length, parsed))) => (length, collect(parsed)?),
            Ok(Status::Partial) if buffer.len() > bytes_max => return Err(TRAILERS_TOO_LARGE),
            Ok(Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(TOO_MANY_TRAILERS),
            Err(_) => return Err(BAD_TRAILERS),
        };
        buffer.advance(length);
        self.state = State::Ended;
        Ok((!trailers.is_empty()).then_some(Frame::Trailers(trailers)))
    }
}

/// Whether one of these lines, all of which have ended, ends without a carriage return.
fn has_bare_line_feed(lines: &[u8]) -> bool {
    lines.split_inclusive(|byte| *byte == b'\n').any(|line| !line.ends_with(b"\r\n"))
}

fn collect(parsed: &[httparse::Header<'_>]) -> Result<HeaderMap, BadMessage> {
    let mut trailers = HeaderMap::new();
    for header in parsed {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| BAD_TRAILERS)?;
        let value = HeaderValue::from_bytes(header.value).map_err(|_| BAD_TRAILERS)?;
        if !reserved::is_of_heads(&name) {
            trailers.append(name, value);
        }
    }
    Ok(trailers)
}

/// Appends the data of the chunks below [`COPIED_BYTES_MAX`] at the start of `buffer` that are there whole and are written as
/// everybody writes them, without spaces and extensions, until there is enough; how many bytes they take. It goes over the
/// bytes once, at less than a tenth of what the steps of a [`Decoder`] take.
fn plain_chunks(buffer: &[u8], data: &mut Vec<u8>) -> usize {
    let mut taken = 0;
    while data.len() < COPIED_BYTES_MAX {
        let rest = buffer.get(taken..).unwrap_or_default();
        let digits =
            rest.iter().take(COPIED_CHUNK_DIGITS + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = rest
            .iter()
            .take(digits)
            .fold(0, |size, digit| size << 4 | (*digit as char).to_digit(16).unwrap_or_default() as usize);
        if !(1..=COPIED_CHUNK_DIGITS).contains(&digits) || size == 0 {
            break;
        }
        let (from, to) = (digits + 2, digits + 2 + size);
        if rest.get(digits..from) != Some(b"\r\n") || rest.get(to..to + 2) != Some(b"\r\n") {
            break;
        }
        data.extend_from_slice(rest.get(from..to).unwrap_or_default());
        taken += to + 2;
    }
    taken
}

/// Whether a chunk of which so many bytes are left is in the buffer to its end, and small.
fn is_small(left: u64, buffer: &BytesMut) -> bool {
    left <= SMALL_CHUNK_BYTES_MAX && left <= buffer.len() as u64
}

/// At most `left` bytes of the buffer, and how many are then left.
fn take(buffer: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    let data = if length <= COPIED_BYTES_MAX {
        let data = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        buffer.advance(length);
        data
    } else {
        buffer.split_to(length).freeze()
    };
    (data, left - length as u64)
}

#[cfg(test)]
mod tests {
    use config::Limits;

    use super::*;

    /// What a body decodes to when it comes in pieces of any size: its bytes, its trailers, whether it ended, and what is
    /// left behind it.
    #[derive(Debug, PartialEq, Eq)]
    struct Decoded {
        data: String,
        trailers: Vec<(String, String)>,
        ended: bool,
        rest: String,
    }

    #[test]
    fn chunks_of_a_byte_come_as_one_piece() {
        let mut buffer = BytesMut::from(&[&b"1\r\nx\r\n".repeat(2_000)[..], b"0\r\n\r\n"].concat()[..]);
        let mut decoder = Decoder::new(Framing::Chunked);
        let mut pieces = Vec::new();
        while let Some(Frame::Data(data)) =
            decoder.decode(&mut buffer, &BodyBounds::of(&Limits::DEFAULT)).expect("a body")
        {
            pieces.push(data.len());
        }
        assert_eq!(pieces, [2_000]);
        assert!(decoder.is_ended() && buffer.is_empty());
    }

    fn decode(framing: Framing, bytes: &[u8], size: usize) -> Result<Decoded, &'static str> {
        decode_within(&Limits::DEFAULT, framing, bytes, size).map_err(|bad| bad.what)
    }

    fn decode_within(
        limits: &Limits,
        framing: Framing,
        bytes: &[u8],
        size: usize,
    ) -> Result<Decoded, BadMessage> {
        let bounds = BodyBounds::of(limits);
        let mut decoder = Decoder::new(framing);
        let (mut data, mut trailers) = (Vec::new(), Vec::new());
        let mut buffer = BytesMut::new();
        for piece in bytes.chunks(size) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = decoder.decode(&mut buffer, &bounds)? {
                match frame {
                    Frame::Data(bytes) => data.extend_from_slice(&bytes),
                    Frame::Trailers(map) => trailers.extend(map.iter().map(|(name, value)| {
                        (name.to_string(), value.to_str().unwrap_or_default().to_owned())
                    })),
                }
            }
        }
        Ok(Decoded {
            data: String::from_utf8_lossy(&data).into_owned(),
            trailers,
            ended: decoder.is_ended(),
            rest: String::from_utf8_lossy(&buffer).into_owned(),
        })
    }

    fn check(framing: Framing, bytes: &str, data: &str, trailers: &[(&str, &str)], ended: bool, rest: &str) {
        let expected = Decoded {
            data: data.to_owned(),
            trailers: trailers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            ended,
            rest: rest.to_owned(),
        };
        for size in 1..=bytes.len() {
            assert_eq!(
                decode(framing, bytes.as_bytes(), size).as_ref(),
                Ok(&expected),
                "{bytes:?} by {size}"
            );
        }
    }

    #[test]
    fn bodies_end_where_they_say() {
        check(Framing::Length(5), "helloGET", "hello", &[], true, "GET");
        check(Framing::Length(6), "hello", "hello", &[], false, "");
        check(Framing::UntilClose, "hello", "hello", &[], false, "");
        check(Framing::Chunked, "5\r\nhello\r\n0\r\n\r\nGET", "hello", &[], true, "GET");
        check(Framing::Chunked, "5;a=b\r\nhello\r\n1 \r\n!\r\n000\r\n\r\n", "hello!", &[], true, "");
        check(Framing::Chunked, "A\r\n0123456789\r\n", "0123456789", &[], false, "");
        check(
            Framing::Chunked,
            "1\r\na\r\n0\r\nX-A: 1\r\nx-b:2\r\n\r\nZ",
            "a",
            &[("x-a", "1"), ("x-b", "2")],
            true,
            "Z",
        );
        check(
            Framing::Chunked,
            "0\r\nContent-Length: 5\r\nHost: x\r\nKeep-Alive: 5\r\n\r\n",
            "",
            &[],
            true,
            "",
        );
        check(Framing::Chunked, "1 ;a\r\n!\r\n0\r\n\r\nGET / HTTP/1.1\n", "!", &[], true, "GET / HTTP/1.1\n");
    }

    #[test]
    fn chunks_are_read_strictly() {
        for (bytes, why) in [
            ("\r\n", "invalid chunk size"),
            ("g\r\n", "invalid chunk size"),
            ("-1\r\n", "invalid chunk size"),
            ("0x1\r\na", "invalid chunk size"),
            ("1\na\r\n", "invalid chunk size"),
            ("1\r\r\na", "invalid chunk line"),
            ("1 a\r\n", "invalid chunk size"),
            ("1 0\r\n", "invalid chunk size"),
            ("1;a\nb\r\n", "invalid chunk extension"),
            ("1;\0\r\n", "invalid chunk extension"),
            ("1\r\naX", "invalid chunk line"),
            ("1\r\na\n0\r\n\r\n", "invalid chunk line"),
            ("1\r\nab\r\n", "invalid chunk line"),
            ("00000000000000001\r\na", "chunk size too large"),
            ("0\r\nno colon\r\n\r\n", "invalid trailers"),
            ("0\r\na : b\r\n\r\n", "invalid trailers"),
            ("0\r\n\n", "invalid trailers"),
            ("0\r\na: b\n\r\n", "invalid trailers"),
            ("0\r\na: b\r\n\n", "invalid trailers"),
        ] {
            for size in 1..=bytes.len() {
                assert_eq!(decode(Framing::Chunked, bytes.as_bytes(), size), Err(why), "{bytes:?} by {size}");
            }
        }
    }

    #[test]
    fn what_is_ignored_is_limited() {
        let limits = Limits {
            chunk_extension_bytes_max: 100,
            trailer_bytes_max: 1_024,
            trailers_max: 3,
            ..Limits::DEFAULT
        };
        let check = |bytes: String, size: usize, limit: Option<&str>| {
            let decoded = decode_within(&limits, Framing::Chunked, bytes.as_bytes(), size);
            assert_eq!(decoded.err().map(|bad| bad.limit), limit.map(Some), "{bytes:.50}");
        };
        for (count, limit) in [(100, None), (101, Some("chunk_extension_bytes_max"))] {
            check(format!("1;{}\r\na\r\n", "x".repeat(count)), 9, limit);
            check(format!("1{}\r\na\r\n", " ".repeat(count)), 9, limit);
            check("1;x\r\na\r\n".repeat(count), 4096, limit);
        }
        for (count, limit) in [(1_020, None), (1_021, Some("trailer_bytes_max"))] {
            let trailers = format!("0\r\nx:{}\r\n\r\n", "x".repeat(count - 2));
            check(trailers.clone(), 4096, limit);
            check(trailers, 9, limit);
        }
        check(format!("0\r\nx: {}", "x".repeat(2_000)), 1_100, Some("trailer_bytes_max"));
        for (count, limit) in [(3, None), (4, Some("trailers_max"))] {
            check(format!("0\r\n{}\r\n", "x: y\r\n".repeat(count)), 9, limit);
        }
    }

    #[test]
    fn only_a_body_until_close_is_ended_by_it() {
        for (framing, whole) in [
            (Framing::UntilClose, true),
            (Framing::Empty, true),
            (Framing::Length(1), false),
            (Framing::Chunked, false),
        ] {
            assert_eq!(Decoder::new(framing).close(), whole, "{framing:?}");
        }
    }
}
