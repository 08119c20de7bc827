//! HTTP/2 (RFC 9113) over plain connections with prior knowledge, as far as the load and the backend need it.
//!
//! Frames are read and written here, header blocks in [`hpack`]. What none of the peers sends within a measurement
//! (header blocks of several frames, pushes) is an error, not a surprise.

pub(crate) mod client;
pub(crate) mod hpack;
mod huffman;

use crate::response::Malformed;

/// What a client begins with.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The window of a stream and of a connection until something else is said.
pub(crate) const WINDOW_BYTES: u32 = 65_535;

/// The largest payload of a frame that may be sent to somebody who did not allow more.
pub(crate) const FRAME_BYTES_MAX: usize = 16_384;

/// Length of what stands before a payload.
pub(crate) const HEAD_BYTES: usize = 9;

/// Flags of frames.
pub(crate) mod flag {
    /// DATA, HEADERS: the last frame of its stream.
    pub(crate) const END_STREAM: u8 = 0x1;
    /// SETTINGS, PING: an acknowledgement.
    pub(crate) const ACK: u8 = 0x1;
    /// HEADERS: the block is complete.
    pub(crate) const END_HEADERS: u8 = 0x4;
    /// DATA, HEADERS: padded.
    pub(crate) const PADDED: u8 = 0x8;
    /// HEADERS: with a priority.
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Settings either side may send.
pub(crate) mod setting {
    /// Bytes of the dynamic table the sender's decoder keeps.
    pub(crate) const HEADER_TABLE_SIZE: u16 = 0x1;
    /// Whether the sender takes pushes.
    pub(crate) const ENABLE_PUSH: u16 = 0x2;
    /// Streams the sender takes at once.
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    /// Bytes the sender takes on a new stream.
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 0x4;
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes of a body.
    Data,
    /// A header block.
    Headers,
    /// The end of a stream by force.
    RstStream,
    /// Settings, or their acknowledgement.
    Settings,
    /// A question whether the peer is there, or the answer.
    Ping,
    /// The end of the connection is near.
    GoAway,
    /// More may be sent.
    WindowUpdate,
    /// PUSH_PROMISE or CONTINUATION, which nobody here reads.
    Unsupported(u8),
    /// PRIORITY and what RFC 9113 does not know: to be ignored.
    Ignored(u8),
}

impl Kind {
    fn from_code(code: u8) -> Kind {
        match code {
            0x0 => Kind::Data,
            0x1 => Kind::Headers,
            0x3 => Kind::RstStream,
            0x4 => Kind::Settings,
            0x6 => Kind::Ping,
            0x7 => Kind::GoAway,
            0x8 => Kind::WindowUpdate,
            0x5 | 0x9 => Kind::Unsupported(code),
            _ => Kind::Ignored(code),
        }
    }

    fn code(self) -> u8 {
        match self {
            Kind::Data => 0x0,
            Kind::Headers => 0x1,
            Kind::RstStream => 0x3,
            Kind::Settings => 0x4,
            Kind::Ping => 0x6,
            Kind::GoAway => 0x7,
            Kind::WindowUpdate => 0x8,
            Kind::Unsupported(code) | Kind::Ignored(code) => code,
        }
    }
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its flags.
    pub(crate) flags: u8,
    /// Its stream; 0 is the connection.
    pub(crate) stream: u32,
    /// What it carries.
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes the frame at the start of `bytes`; none while it is incomplete.
    pub(crate) fn take(bytes: &mut &'a [u8]) -> Result<Option<Frame<'a>>, Malformed> {
        let Some(([a, b, c, code, flags, stream @ ..], rest)) = bytes.split_first_chunk::<HEAD_BYTES>()
        else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(Malformed("a frame above the limit"));
        }
        let Some((payload, rest)) = rest.split_at_checked(length) else { return Ok(None) };
        *bytes = rest;
        let stream = u32::from_be_bytes(*stream) & (u32::MAX >> 1);
        Ok(Some(Frame { kind: Kind::from_code(*code), flags: *flags, stream, payload }))
    }

    /// Whether it has this flag.
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload of DATA or HEADERS without padding and priority.
    pub(crate) fn content(&self) -> Result<&'a [u8], Malformed> {
        let mut content = self.payload;
        if self.has(flag::PADDED) {
            let (padding, rest) = content.split_first().ok_or(Malformed("no length of padding"))?;
            let end = rest.len().checked_sub(usize::from(*padding)).ok_or(Malformed("too much padding"))?;
            content = rest.get(..end).unwrap_or_default();
        }
        if self.kind == Kind::Headers && self.has(flag::PRIORITY) {
            content = content.get(5..).ok_or(Malformed("no priority"))?;
        }
        Ok(content)
    }

    /// The one number RST_STREAM, WINDOW_UPDATE and (as second) GOAWAY carry.
    pub(crate) fn number(&self) -> u32 {
        let at = if self.kind == Kind::GoAway { 4 } else { 0 };
        let bytes = self.payload.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    /// The settings a SETTINGS frame carries.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (u16, u32)> {
        self.payload.chunks_exact(6).filter_map(|pair| {
            let (name, value) = pair.split_first_chunk()?;
            Some((u16::from_be_bytes(*name), u32::from_be_bytes(*value.first_chunk()?)))
        })
    }
}

/// Appends a frame. The payload must not be above [`FRAME_BYTES_MAX`].
pub(crate) fn append(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
    append_head(out, kind, flags, stream, payload.len());
    out.extend_from_slice(payload);
}

/// Appends the head of a frame whose payload of `length` bytes follows.
pub(crate) fn append_head(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, length: usize) {
    let [.., a, b, c] = (length as u64).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind.code(), flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// Appends SETTINGS.
pub(crate) fn append_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    append_head(out, Kind::Settings, 0, 0, settings.len() * 6);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends WINDOW_UPDATE.
pub(crate) fn append_window_update(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    append(out, Kind::WindowUpdate, 0, stream, &bytes.to_be_bytes());
}

/// Answers what must be answered whoever one is: SETTINGS and PING. Anything else appends nothing.
pub(crate) fn append_acknowledgement(out: &mut Vec<u8>, frame: &Frame<'_>) {
    match frame.kind {
        Kind::Settings if !frame.has(flag::ACK) => append(out, Kind::Settings, flag::ACK, 0, &[]),
        Kind::Ping if !frame.has(flag::ACK) => append(out, Kind::Ping, flag::ACK, 0, frame.payload),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_written_and_only_whole() {
        let mut bytes = Vec::new();
        append(&mut bytes, Kind::Data, flag::END_STREAM, 7, b"abc");
        append_settings(
            &mut bytes,
            &[(setting::MAX_CONCURRENT_STREAMS, 9), (setting::INITIAL_WINDOW_SIZE, 1)],
        );
        append_window_update(&mut bytes, 3, 1 << 20);
        let mut rest = bytes.as_slice();
        let data = Frame::take(&mut rest).unwrap().unwrap();
        assert_eq!((data.kind, data.stream, data.content()), (Kind::Data, 7, Ok(b"abc".as_slice())));
        let settings = Frame::take(&mut rest).unwrap().unwrap();
        assert_eq!(settings.settings().collect::<Vec<_>>(), [(3, 9), (4, 1)]);
        let update = Frame::take(&mut rest).unwrap().unwrap();
        assert_eq!((update.stream, update.number()), (3, 1 << 20));
        assert_eq!(Frame::take(&mut rest), Ok(None));
        for end in 0..HEAD_BYTES + 3 {
            assert_eq!(Frame::take(&mut bytes.get(..end).unwrap()), Ok(None));
        }
    }

    #[test]
    fn padding_and_priority_are_cut_off() {
        let content = |flags, payload| Frame { kind: Kind::Headers, flags, stream: 1, payload }.content();
        let both = flag::PADDED | flag::PRIORITY;
        assert_eq!(content(both, b"\x02pppppabcPP"), Ok(b"abc".as_slice()));
        assert_eq!(content(flag::PADDED, b"\x04abc"), Err(Malformed("too much padding")));
        assert_eq!(content(flag::PRIORITY, b"abc"), Err(Malformed("no priority")));
        assert_eq!(Frame::take(&mut [255; 9].as_slice()), Err(Malformed("a frame above the limit")));
    }

    #[test]
    fn only_questions_are_acknowledged() {
        let answer = |kind, flags| {
            let mut out = Vec::new();
            append_acknowledgement(&mut out, &Frame { kind, flags, stream: 0, payload: b"" });
            out.get(3..5).map(<[u8]>::to_vec)
        };
        assert_eq!(answer(Kind::Settings, 0), Some(vec![0x4, flag::ACK]));
        assert_eq!(answer(Kind::Ping, 0), Some(vec![0x6, flag::ACK]));
        assert_eq!(answer(Kind::Settings, flag::ACK), None);
        assert_eq!(answer(Kind::Data, 0), None);
    }
}
