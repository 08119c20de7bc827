//! Counts the frames of an HTTP/2 connection that cost us work and carry nothing: the floods of PING, SETTINGS,
//! WINDOW_UPDATE, PRIORITY, RST_STREAM and empty frames that h2 answers as fast as they come.
//!
//! No I/O: bytes of either direction go in, a verdict comes out. A peer may send a burst of such frames; it earns more by
//! requests, answers and data, and by time. So a client that acknowledges every DATA frame, cancels calls it no longer
//! needs or pings every ten seconds never runs out, and one that does nothing else soon does. Semantics: Envoy's limits of
//! the same kinds (`max_inbound_window_update_frames_per_data_frame_sent` and its like), which have no part for time.

mod budget;
mod dependency;
mod owed;
mod unsent;

use config::Limits;

use super::h2_trailers::{Part, Trailers};
use budget::{Budget, CONTROL_FRAMES_PER_USEFUL};
use dependency::Dependency;
use owed::Owed;
use unsent::Unsent;

pub(crate) use budget::Flood;

/// Bytes of a frame header (RFC 9113 section 4.1).
const HEADER_BYTES: usize = 9;

/// Memory that a field takes, about, whatever it says. By HPACK's tables it may come as one byte.
pub(super) const FIELD_BYTES: usize = 128;

/// Frame types of RFC 9113 section 6 that are told apart here.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// The error code of a stream that is refused (RFC 9113 section 7).
const REFUSED_STREAM: [u8; 4] = 7_u32.to_be_bytes();

/// The error codes of streams that the library resets for what the peer did: that, PROTOCOL_ERROR, FLOW_CONTROL_ERROR and
/// STREAM_CLOSED. Nothing else here sends these, but for an upstream's refusal that is passed on.
const PEERS_ERRORS: [[u8; 4]; 4] =
    [REFUSED_STREAM, 1_u32.to_be_bytes(), 3_u32.to_be_bytes(), 5_u32.to_be_bytes()];

/// Flags: the end of a stream, on DATA and HEADERS, and of a header block, on HEADERS and CONTINUATION.
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// On HEADERS: a priority comes before the fields, of so many bytes.
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

/// On DATA and HEADERS: its payload begins with the length of what it ends with.
const PADDED: u8 = 0x8;

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    length: u32,
    kind: u8,
    flags: u8,
    /// 0 for one of the connection.
    pub(super) stream: u32,
}

impl Frame {
    fn of(header: [u8; HEADER_BYTES]) -> Frame {
        let [high, middle, low, kind, flags, stream @ ..] = header;
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        Frame { length: u32::from_be_bytes([0, high, middle, low]), kind, flags, stream }
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// As a part of a block of fields.
    fn part(self) -> Part {
        let begins = self.kind == HEADERS;
        Part {
            length: self.length as usize,
            is_padded: begins && self.has(PADDED),
            priority: if begins && self.has(PRIORITY) { PRIORITY_BYTES } else { 0 },
            is_last: self.has(END_HEADERS),
        }
    }

    /// How it ends its stream, if it does. `payload` is what of it has come with its header.
    fn end(self, payload: &[u8]) -> Option<Ended> {
        if !matches!(self.kind, DATA | HEADERS) || !self.has(END_STREAM) {
            return None;
        }
        let padding = payload.first().filter(|_| self.has(PADDED)).map_or(0, |length| 1 + u32::from(*length));
        Some(Ended { stream: self.stream, by_nothing: self.kind == DATA && self.length == padding })
    }
}

/// A stream that a peer has ended in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Which.
    pub(crate) stream: u32,
    /// Whether by a DATA frame without data.
    pub(crate) by_nothing: bool,
}

/// Finds the frame headers in the bytes of one direction, however these are cut.
#[derive(Debug)]
pub(super) struct Scanner {
    header: [u8; HEADER_BYTES],
    /// How much of the header is there.
    known: usize,
    /// Bytes to pass over before the next header.
    skip: usize,
}

impl Scanner {
    /// Of a direction in which `skip` bytes come before the first frame.
    pub(super) fn new(skip: usize) -> Scanner {
        Scanner { header: [0; HEADER_BYTES], known: 0, skip }
    }

    fn scan(&mut self, bytes: &[u8], mut each: impl FnMut(Frame, &[u8])) {
        self.scan_while(bytes, |frame, payload| {
            each(frame, payload);
            true
        });
    }

    /// Stops at a frame that `each` refuses, and returns how many bytes come before that: the frame is not whole with them,
    /// and is found again when the bytes that follow them are scanned. `each` is also given the bytes behind the header, as
    /// far as they are there.
    pub(super) fn scan_while(&mut self, bytes: &[u8], mut each: impl FnMut(Frame, &[u8]) -> bool) -> usize {
        let mut left = bytes;
        while !left.is_empty() {
            let skipped = self.skip.min(left.len());
            self.skip -= skipped;
            left = left.get(skipped..).unwrap_or_default();
            let wanted = HEADER_BYTES - self.known;
            let (head, rest) = left.split_at_checked(wanted).unwrap_or((left, &[]));
            for (to, from) in self.header.iter_mut().skip(self.known).zip(head) {
                *to = *from;
            }
            self.known += head.len();
            left = rest;
            if self.known == HEADER_BYTES {
                let frame = Frame::of(self.header);
                if !each(frame, rest) {
                    // Its last byte is left, whether the others came now or before.
                    self.known = HEADER_BYTES - 1;
                    return bytes.len() - rest.len() - 1;
                }
                self.known = 0;
                self.skip = frame.length as usize;
            }
        }
        bytes.len()
    }
}

/// Watches both directions of one connection.
#[derive(Debug)]
pub(crate) struct Watch {
    received: Scanner,
    sent: Scanner,
    budget: Budget,
    /// The peer has begun a header block and not ended it.
    in_header_block: bool,
    /// The last frame was a part of a header block.
    is_head: bool,
    /// Bytes of that block before its last frame, and of that.
    block: usize,
    last: usize,
    /// Streams that we have refused.
    refused: u32,
    /// The peer has reset a stream.
    has_seen_resets: bool,
    /// Heads of answers that the client does not take.
    unsent: Unsent,
    owed: Owed,
    /// The last stream that a client has begun.
    begun: u32,
    dependency: Dependency,
    /// Trailers that a client has sent, or heads that end answers of an upstream; and heads that came in several frames.
    trailers: Option<Box<Trailers>>,
}

impl Watch {
    /// Of a new connection. `preface_received` and `preface_sent` are the bytes that come before the first frame of each
    /// direction (RFC 9113 section 3.4).
    pub(crate) fn new(limits: &Limits, preface_received: usize, preface_sent: usize) -> Watch {
        Watch {
            received: Scanner::new(preface_received),
            sent: Scanner::new(preface_sent),
            budget: Budget::of(limits),
            in_header_block: false,
            is_head: false,
            block: 0,
            last: 0,
            refused: 0,
            has_seen_resets: false,
            unsent: Unsent::default(),
            owed: Owed::new(limits),
            begun: 0,
            dependency: Dependency::default(),
            trailers: None,
        }
    }

    /// The peer is an upstream: it may send heads of answers for requests only.
    pub(crate) fn bound_answers(mut self) -> Watch {
        self.budget.answers = Some(self.budget.answers_max);
        self
    }

    /// Bytes came from the peer.
    pub(crate) fn received(&mut self, bytes: &[u8]) -> Result<(), Flood> {
        self.received_at(bytes, || 0, |_| {})
    }

    /// The same, when nobody says that time passed: `seconds` tells how many have since it was last asked, and is asked when
    /// a budget is used up. `ended` is told of each stream that the peer ends in order.
    pub(crate) fn received_at(
        &mut self,
        bytes: &[u8],
        mut seconds: impl FnMut() -> u32,
        mut ended: impl FnMut(Ended),
    ) -> Result<(), Flood> {
        let Watch {
            received,
            budget,
            in_header_block,
            is_head,
            block,
            last,
            has_seen_resets,
            unsent,
            owed,
            begun,
            dependency,
            trailers,
            ..
        } = self;
        let mut is_misread = dependency.goes_on(bytes);
        if let Some(trailers) = trailers {
            trailers.goes_on(bytes);
        }
        let mut verdict = Ok(());
        received.scan(bytes, |frame, payload| {
            *is_head = matches!(frame.kind, HEADERS | CONTINUATION);
            if *is_head {
                *block = if frame.kind == HEADERS { 0 } else { block.saturating_add(*last) };
                *last = frame.length as usize;
                *in_header_block = !frame.has(END_HEADERS);
                // Streams of clients are numbered upwards: what is not new has had its head. What ends an upstream's answer may be
                // all of it.
                let is_client = budget.answers.is_none();
                let goes_on = if is_client { frame.stream > *begun } else { !frame.has(END_STREAM) };
                if frame.kind == HEADERS && goes_on {
                    *begun = frame.stream;
                    owed.begins(frame.stream, is_client && !frame.has(END_STREAM));
                    see_head(trailers, frame, payload);
                } else {
                    see_trailers(trailers, frame, payload);
                }
                if frame.kind == HEADERS && frame.has(PRIORITY) {
                    is_misread |= dependency.begins(frame, payload);
                }
            }
            if frame.kind == RST_STREAM {
                *has_seen_resets = true;
                unsent.remove(frame.stream);
                owed.ends(frame.stream);
            }
            if frame.kind == DATA {
                owed.came(frame.stream, frame.length);
            }
            if let Some(end) = frame.end(payload) {
                owed.ends(frame.stream);
                ended(end);
            }
            if verdict.is_ok() {
                verdict = budget.spend(frame).or_else(|_| {
                    budget.passed(seconds());
                    budget.spend(frame)
                });
            }
        });
        is_misread |= trailers.as_ref().is_some_and(|trailers| trailers.is_misread());
        if is_misread { Err(Flood::Misread) } else { verdict }
    }

    /// Bytes went to the peer. An answer's end earns a reset, since the peer may reset what it has not read to its end. A client
    /// that makes us reset its streams spends as many as if it had reset them.
    pub(crate) fn sent(&mut self, bytes: &[u8]) -> Result<(), Flood> {
        let budget = &mut self.budget;
        let (refused, unsent, owed) = (&mut self.refused, &mut self.unsent, &mut self.owed);
        let mut verdict = Ok(());
        self.sent.scan(bytes, |frame, payload| {
            if frame.kind == RST_STREAM
                && let Some(code) = payload.first_chunk()
                && PEERS_ERRORS.contains(code)
            {
                *refused = refused.saturating_add(u32::from(*code == REFUSED_STREAM));
                if budget.answers.is_none() && verdict.is_ok() {
                    verdict = budget.spend(frame);
                }
            }
            if matches!(frame.kind, DATA | HEADERS) {
                budget.earn(CONTROL_FRAMES_PER_USEFUL, u32::from(frame.has(END_STREAM)), 0);
            }
            if matches!(frame.kind, HEADERS | RST_STREAM) {
                unsent.remove(frame.stream);
            }
            match frame.kind {
                HEADERS => budget.asked(),
                DATA => owed.went(frame.stream),
                RST_STREAM => owed.ends(frame.stream),
                WINDOW_UPDATE => {
                    owed.read(frame.stream, payload.first_chunk().copied().map(u32::from_be_bytes));
                }
                _ => {}
            }
        });
        verdict
    }

    /// Whether the peer has reset a stream.
    pub(crate) fn has_seen_resets(&self) -> bool {
        self.has_seen_resets
    }

    /// The head of an answer on this stream is to be sent, and the client takes nothing.
    pub(crate) fn answer_waits(&mut self, stream: u32, bytes: u32) {
        self.unsent.add(stream, bytes);
    }

    /// Bytes of such heads that are still here.
    pub(crate) fn unsent_bytes(&self) -> u64 {
        self.unsent.bytes
    }

    /// How many streams we have refused since this was last asked. The library does so to streams beyond those that may be open
    /// at once; besides, it is what an upstream may end its answer with. One whose reset was written in two pieces within the
    /// code is not counted, here and above.
    pub(crate) fn take_refused(&mut self) -> u32 {
        std::mem::take(&mut self.refused)
    }

    /// How many fields the trailers had that came last on this stream, pseudo-headers counted; they are forgotten.
    pub(crate) fn take_trailer_fields(&mut self, stream: u32) -> Option<usize> {
        self.trailers.as_mut()?.take(stream)
    }

    /// Whether the head that h2 hands on now, of this stream and with so many fields, pseudo-headers counted, is known to have had
    /// another number of them. Those of a client are to be asked for in their order.
    pub(crate) fn has_left_out(&mut self, head: impl FnOnce() -> (u32, usize)) -> bool {
        let Some(trailers) = &mut self.trailers else { return false };
        let (stream, fields) = head();
        let heads = trailers.heads();
        let is_client = self.budget.answers.is_none();
        let sent = if is_client { heads.next(stream) } else { heads.remove(stream) };
        let has_left_out = sent.is_some_and(|sent| sent != fields);
        heads.malformed += usize::from(has_left_out);
        has_left_out
    }

    /// How many such heads there were.
    pub(crate) fn malformed_heads(&mut self) -> usize {
        self.trailers.as_mut().map_or(0, |trailers| trailers.heads().malformed)
    }

    /// Time passed.
    pub(crate) fn passed(&mut self, seconds: u32) {
        self.budget.passed(seconds);
        if let Some(trailers) = &mut self.trailers {
            trailers.passed(seconds);
        }
        self.owed.passed(seconds);
    }

    /// On how many streams the client has been waited for, for its request, since so many seconds ago.
    pub(crate) fn still(&self, seconds: u64) -> usize {
        self.owed.still(seconds)
    }

    /// Bytes that are held of a header block that the peer has begun and not ended. What has come of it in whole frames is
    /// fields by then, which take more than they came in, but no more than `fields_max`.
    pub(crate) fn head_bytes(&self, fields_max: usize) -> usize {
        if !self.in_header_block && (!self.is_head || self.received.skip == 0) {
            return 0;
        }
        let to_come = if self.is_head { self.received.skip.min(self.last) } else { 0 };
        let (whole, part) = if to_come == 0 {
            (self.block.saturating_add(self.last), 0)
        } else {
            (self.block, self.last - to_come)
        };
        whole.saturating_mul(FIELD_BYTES).min(fields_max).saturating_add(part)
    }

    /// Those that nobody has read, if any came.
    pub(super) fn trailers(&self) -> Option<&Trailers> {
        self.trailers.as_deref()
    }

    /// Whether the peer has begun a header block, or a frame header, and not ended it.
    pub(crate) fn is_head_open(&self) -> bool {
        self.in_header_block || self.received.known > 0 || self.is_head && self.received.skip > 0
    }
}

/// A head begins, or all of it has come. The latter is of interest where one in several frames came before on its stream.
fn see_head(trailers: &mut Option<Box<Trailers>>, frame: Frame, payload: &[u8]) {
    if !frame.has(END_HEADERS) {
        let trailers = trailers.get_or_insert_default();
        trailers.begin(frame.stream, true);
        trailers.frame(frame.part(), payload);
    } else if let Some(trailers) = trailers {
        trailers.heads().is_followed(frame.stream);
    }
}

/// A part of a block of fields has come that belongs to no new stream, unless it goes on with the head of one.
fn see_trailers(trailers: &mut Option<Box<Trailers>>, frame: Frame, payload: &[u8]) {
    if frame.kind == HEADERS {
        trailers.get_or_insert_default().begin(frame.stream, false);
    }
    if let Some(trailers) = trailers
        && trailers.is_open()
    {
        trailers.frame(frame.part(), payload);
    }
}

#[cfg(test)]
mod tests;
