//! HTTP/2 frames as they are written and read, right or wrong: no library stands between a test and the wire.
//!
//! Headers are written as HPACK literals without Huffman coding and without indexing, so that any bytes can be in them. Of
//! what comes back, only what tests look at is understood: the status of an answer, the ends of streams and connections.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Frame types of RFC 9113 section 6.
pub mod kind {
    #![allow(missing_docs, reason = "they are named as in the RFC")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// On DATA and HEADERS: the stream ends.
pub const END_STREAM: u8 = 1;
/// On SETTINGS and PING: an acknowledgement.
pub const ACK: u8 = 1;
/// On HEADERS and CONTINUATION: the header block ends.
pub const END_HEADERS: u8 = 4;
/// On DATA and HEADERS: padding follows.
pub const PADDED: u8 = 8;

/// What a client says first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The setting that bounds the other side's HPACK table.
const HEADER_TABLE_SIZE: u16 = 1;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a payload").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block of these fields.
pub fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            integer(text.len(), &mut bytes);
            bytes.extend_from_slice(text);
        }
    }
    bytes
}

/// RFC 7541 section 5.1, with a prefix of seven bits and no flag before it.
fn integer(value: usize, bytes: &mut Vec<u8>) {
    let small = |value: usize| u8::try_from(value).expect("seven bits");
    if value < 127 {
        return bytes.push(small(value));
    }
    bytes.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        bytes.push(small(rest % 128) | 128);
        rest /= 128;
    }
    bytes.push(small(rest));
}

/// HEADERS that hold all of a header block.
pub fn headers(stream: u32, flags: u8, fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    frame(kind::HEADERS, flags | END_HEADERS, stream, &block(fields))
}

/// DATA.
pub fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flags, stream, payload)
}

/// The preface, and SETTINGS that ask for answers without HPACK's table, so that each stands for itself.
pub fn hello() -> Vec<u8> {
    let mut setting = HEADER_TABLE_SIZE.to_be_bytes().to_vec();
    setting.extend(0u32.to_be_bytes());
    [PREFACE, &frame(kind::SETTINGS, 0, 0, &setting)].concat()
}

/// A frame that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Takes one frame off the front of `bytes`, when all of it is there.
    pub fn take(bytes: &mut Vec<u8>) -> Option<Frame> {
        let [high, middle, low, kind, flags, stream @ ..] = *bytes.first_chunk::<9>()?;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        let payload = bytes.get(9..9 + length)?.to_vec();
        bytes.drain(..9 + length);
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, payload })
    }

    /// The error code of RST_STREAM or GOAWAY.
    fn code(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        let code = self.payload.get(at..at + 4).and_then(|code| code.try_into().ok());
        u32::from_be_bytes(code.unwrap_or([0xff; 4]))
    }
}

/// What came on one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    /// The status of the answer, 1xx left out.
    pub status: Option<u16>,
    /// Bytes of its body.
    pub body: Vec<u8>,
    /// It has ended in order.
    pub ended: bool,
    /// It was reset with this code.
    pub reset: Option<u32>,
}

/// A client of frames.
#[derive(Debug)]
pub struct Client {
    socket: TcpStream,
    unread: Vec<u8>,
    /// What came, by stream.
    pub streams: BTreeMap<u32, Stream>,
    /// Other frames that came, in order.
    pub frames: Vec<Frame>,
    /// The code of GOAWAY.
    pub goaway: Option<u32>,
    /// The last stream of each GOAWAY, in order.
    pub last_streams: Vec<u32>,
    /// The connection is closed.
    pub closed: bool,
}

impl Client {
    /// Connects and says nothing.
    pub async fn connect(to: SocketAddr) -> Client {
        Client::of(TcpStream::connect(to).await.expect("a connection"))
    }

    /// The same from this address.
    pub async fn connect_from(address: Ipv4Addr, to: SocketAddr) -> Client {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((address, 0).into()).expect("a port");
        Client::of(socket.connect(to).await.expect("a connection"))
    }

    fn of(socket: TcpStream) -> Client {
        socket.set_nodelay(true).expect("no delay");
        Client {
            socket,
            unread: Vec::new(),
            streams: BTreeMap::new(),
            frames: Vec::new(),
            goaway: None,
            last_streams: Vec::new(),
            closed: false,
        }
    }

    /// Sends bytes. That the other side has closed shows when it is read.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
    }

    /// Whether a stream has an end of some kind.
    pub fn is_over(&self, stream: u32) -> bool {
        let over = |stream: &Stream| stream.ended || stream.reset.is_some();
        let failed = self.goaway.is_some_and(|code| code != 0);
        self.closed || failed || self.streams.get(&stream).is_some_and(over)
    }

    /// Reads once, at most for `quiet`; `false` when nothing came.
    pub async fn read(&mut self, quiet: Duration) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        match tokio::time::timeout(quiet, self.socket.read(&mut buffer)).await {
            Ok(Ok(count)) if count > 0 => {
                self.unread.extend_from_slice(&buffer[..count]);
                while let Some(frame) = Frame::take(&mut self.unread) {
                    self.take(frame).await;
                }
                true
            }
            Ok(_) => {
                self.closed = true;
                true
            }
            Err(_) => false,
        }
    }

    /// Reads until the stream is over; `false` when nothing comes for `quiet` before it is.
    pub async fn read_to_end(&mut self, stream: u32, quiet: Duration) -> bool {
        while !self.is_over(stream) {
            if !self.read(quiet).await {
                return false;
            }
        }
        true
    }

    async fn take(&mut self, frame: Frame) {
        let stream = self.streams.entry(frame.stream);
        match frame.kind {
            kind::SETTINGS if frame.flags & ACK == 0 => {
                self.send(&self::frame(kind::SETTINGS, ACK, 0, b"")).await;
            }
            kind::HEADERS => {
                let stream = stream.or_default();
                if let Some(status) = status(&frame.payload).filter(|status| *status >= 200) {
                    stream.status = Some(status);
                }
                stream.ended |= frame.flags & END_STREAM != 0;
            }
            kind::DATA => {
                let stream = stream.or_default();
                stream.body.extend_from_slice(&frame.payload);
                stream.ended |= frame.flags & END_STREAM != 0;
                if let Some(read) = u32::try_from(frame.payload.len()).ok().filter(|read| *read > 0) {
                    // What was read may come again.
                    let windows = [0, frame.stream]
                        .map(|stream| self::frame(kind::WINDOW_UPDATE, 0, stream, &read.to_be_bytes()));
                    self.send(&windows.concat()).await;
                }
            }
            kind::RST_STREAM => stream.or_default().reset = Some(frame.code()),
            kind::GOAWAY => {
                self.goaway = Some(frame.code());
                let last = frame.payload.first_chunk().copied().map(u32::from_be_bytes);
                self.last_streams.extend(last);
            }
            _ => self.frames.push(frame),
        }
    }
}

/// The status at the beginning of a header block (RFC 7541): it is the first field of every answer.
fn status(block: &[u8]) -> Option<u16> {
    let mut block = block;
    // Updates of the table's size.
    while block.first().is_some_and(|byte| byte & 0xe0 == 0x20) {
        block = &block[1..];
    }
    let (first, rest) = block.split_first()?;
    if first & 0x80 != 0 {
        // Indexes 8 to 14 of the static table.
        let statuses = [200, 204, 206, 304, 400, 404, 500];
        return statuses.get(usize::from(first & 0x7f).checked_sub(8)?).copied();
    }
    let name = first & if first & 0x40 == 0 { 0x0f } else { 0x3f };
    let (length, value) = rest.split_first()?;
    let value = value.get(..usize::from(length & 0x7f))?;
    if !(8..15).contains(&name) {
        return None;
    }
    let digits = if length & 0x80 == 0 { value.to_vec() } else { huffman_digits(value) };
    String::from_utf8(digits).ok()?.parse().ok()
}

/// Digits in HPACK's Huffman code (RFC 7541 appendix B): 0 to 2 take five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> Vec<u8> {
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut rest, mut digits) = (bits.as_str(), Vec::new());
    while rest.len() >= 5 {
        let five = u8::from_str_radix(&rest[..5], 2).expect("bits");
        let six = rest.get(..6).and_then(|six| u8::from_str_radix(six, 2).ok());
        match (five, six) {
            (0..=2, _) => {
                digits.push(b'0' + five);
                rest = &rest[5..];
            }
            (_, Some(six @ 0x19..=0x1f)) => {
                digits.push(b'3' + six - 0x19);
                rest = &rest[6..];
            }
            _ => break,
        }
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks() {
        assert_eq!(block(&[(b"a", b"bc")]), b"\0\x01a\x02bc");
        let long = vec![b'x'; 300];
        let written = block(&[(b"a", &long)]);
        assert_eq!(written[..6], [0, 1, b'a', 127, 0x80 | 45, 1], "300 is 127 + 45 + 128");
    }

    #[test]
    fn frames_are_read_whole() {
        let mut bytes = [data(3, END_STREAM, b"abc"), vec![0, 0]].concat();
        let frame = Frame::take(&mut bytes).unwrap();
        assert_eq!((frame.kind, frame.flags, frame.stream, &frame.payload[..]), (0, 1, 3, &b"abc"[..]));
        assert_eq!(Frame::take(&mut bytes), None);
    }

    #[test]
    fn statuses() {
        for (block, expected) in [
            (&b"\x88"[..], 200),
            (b"\x20\x8d", 404),
            (b"\x08\x03503", 503),
            // 302 of RFC 7541 section C.6.1.
            (b"\x48\x82\x64\x02", 302),
            (b"\x48\x83\x64\x0e\xff", 307),
        ] {
            assert_eq!(status(block), Some(expected), "{block:?}");
        }
        assert_eq!(status(b"\0\x04name\x05value"), None);
    }
}
