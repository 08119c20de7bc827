//! Counts the fields of the trailers that a peer sends over HTTP/2, and of heads that it sends in several frames.
//!
//! h2 leaves pseudo-headers out of trailers without a word, which RFC 9113 section 8.1 calls malformed. What it has left out
//! shows by the number: how many fields there are can be told without knowing HPACK's tables or its code (RFC 7541 section 6).
//!
//! No I/O: payloads of frames go in, however they are cut.

use std::collections::VecDeque;

use super::h2_frames::FIELD_BYTES;
use super::h2_heads::{Heads, NO_NUMBER};

/// Trailers that are remembered until their body is read to its end. Of those that are forgotten nobody knows whether they are in
/// order.
const SEEN_MAX: usize = 1024;

/// The largest values of the prefixes of RFC 7541 section 5.1, by their bits.
const FOUR: u8 = 0x0f;
const FIVE: u8 = 0x1f;
const SIX: u8 = 0x3f;
const SEVEN: u8 = 0x7f;

/// Bits of a number behind its prefix that are looked at; a longer one is no length of anything that comes here.
const NUMBER_BITS_MAX: u32 = 28;

/// What is known of the trailers of one connection, and of heads that came in several frames.
#[derive(Debug, Default)]
pub(super) struct Trailers {
    /// The stream of the block that is being read.
    stream: u32,
    counter: Counter,
    /// It is the head of a message.
    is_head: bool,
    /// The block has not ended.
    is_open: bool,
    /// Of its present frame: bytes to come, whether the first of them tells the padding, how many come before the fields, and the
    /// padding, which comes last.
    left: usize,
    is_padded: bool,
    before: usize,
    padding: usize,
    /// The block ends with this frame.
    is_last: bool,
    /// Bytes of the block.
    bytes: usize,
    /// Those that nobody has read, the first of them first.
    seen: VecDeque<Seen>,
    /// How much memory all of those take.
    held: usize,
    /// Seconds that have passed.
    second: u32,
    heads: Heads,
}

/// Trailers that nobody has read.
#[derive(Debug)]
struct Seen {
    stream: u32,
    /// When they came.
    second: u32,
    fields: usize,
    /// About how much memory they take.
    held: usize,
}

/// A frame of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Bytes of its payload.
    pub(super) length: usize,
    /// It tells how it is padded.
    pub(super) is_padded: bool,
    /// Bytes of a priority are in it.
    pub(super) priority: usize,
    /// The block ends with it.
    pub(super) is_last: bool,
}

impl Trailers {
    /// Trailers of this stream begin, or a head.
    pub(super) fn begin(&mut self, stream: u32, is_head: bool) {
        (self.stream, self.counter, self.is_open) = (stream, Counter::default(), true);
        (self.is_head, self.bytes) = (is_head, 0);
    }

    /// Whether h2 reads something else than what is counted, if it is not told before: at a field without a name.
    pub(super) fn is_misread(&self) -> bool {
        self.counter.has_nameless
    }

    /// Heads that came in several frames.
    pub(super) fn heads(&mut self) -> &mut Heads {
        &mut self.heads
    }

    /// About how much memory those take that nobody has read.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// For how many seconds the first of those has waited, of which none may be whole.
    pub(super) fn seconds(&self) -> u32 {
        self.seen.front().map_or(0, |first| self.second.wrapping_sub(first.second))
    }

    /// Time passed.
    pub(super) fn passed(&mut self, seconds: u32) {
        self.second = self.second.wrapping_add(seconds);
    }

    /// Whether a block was begun and is not ended.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// A frame of the block begins; these bytes come behind its header.
    pub(super) fn frame(&mut self, part: Part, bytes: &[u8]) {
        (self.left, self.is_padded, self.before) = (part.length, part.is_padded, part.priority);
        (self.padding, self.is_last) = (0, part.is_last);
        self.bytes = self.bytes.saturating_add(part.length);
        self.goes_on(bytes);
    }

    /// More bytes of the frame have come, and perhaps of others behind it.
    pub(super) fn goes_on(&mut self, bytes: &[u8]) {
        if !self.is_open {
            return;
        }
        let mut rest = bytes.get(..self.left.min(bytes.len())).unwrap_or_default();
        while let Some((byte, others)) = rest.split_first() {
            let of_fields = !self.is_padded && self.before == 0;
            // Of a text nothing has to be known but its end.
            let most = if of_fields { self.left.saturating_sub(self.padding) } else { 0 };
            let text = self.counter.passes_over(most.min(rest.len()));
            if text > 0 {
                self.left -= text;
                rest = rest.get(text..).unwrap_or_default();
                continue;
            }
            self.left -= 1;
            rest = others;
            if self.is_padded {
                (self.is_padded, self.padding) = (false, usize::from(*byte));
            } else if self.before > 0 {
                self.before -= 1;
            } else if self.left >= self.padding {
                self.counter.take(*byte);
            }
        }
        if self.left == 0 && self.is_last {
            self.is_open = false;
            let fields = self.counter.number();
            if self.is_head {
                self.heads.add(self.stream, fields);
                return;
            }
            if self.seen.len() == SEEN_MAX
                && let Some(first) = self.seen.pop_front()
            {
                self.held -= first.held;
            }
            // Behind what ends a stream there is nothing: nobody knows which of both h2 hands on.
            let fields = if self.take(self.stream).is_some() { NO_NUMBER } else { fields };
            let held = self.bytes.saturating_add(self.counter.fields.saturating_mul(FIELD_BYTES));
            self.held += held;
            self.seen.push_back(Seen { stream: self.stream, second: self.second, fields, held });
        }
    }

    /// How many fields the trailers of this stream had; they are forgotten.
    pub(super) fn take(&mut self, stream: u32) -> Option<usize> {
        // Mostly they came last.
        let at = self.seen.iter().rposition(|seen| seen.stream == stream)?;
        let seen = self.seen.remove(at)?;
        self.held -= seen.held;
        Some(seen.fields)
    }
}

/// Counts fields, a byte at a time.
#[derive(Debug, Default)]
struct Counter {
    next: Next,
    fields: usize,
    /// A new size of the table came behind a field (RFC 7541 section 4.2), which h2 takes at the beginning of a frame.
    has_late_size: bool,
    /// A field had no name. Where its frame does not end the block h2 goes on in the middle of it.
    has_nameless: bool,
}

/// What comes next in a block.
#[derive(Debug, Default, Clone, Copy)]
enum Next {
    /// A field, or a new size of the table.
    #[default]
    Field,
    /// More of a number that nobody needs, and then this.
    Number(After),
    /// The length of a text, and then it.
    Length(Text),
    /// More of such a length.
    MoreLength(Text, usize, u32),
    /// So many bytes of a text.
    Bytes(Text, usize),
}

#[derive(Debug, Clone, Copy)]
enum After {
    /// A value.
    Value,
    /// Another field; this one is whole.
    Field,
    /// A field; this was none.
    Size,
}

#[derive(Debug, Clone, Copy)]
enum Text {
    Name,
    Value,
}

impl Counter {
    /// How many there were.
    fn number(&self) -> usize {
        if self.has_late_size { NO_NUMBER } else { self.fields }
    }

    /// Passes over what comes of a text, but for its last byte, so many bytes at most. How many.
    fn passes_over(&mut self, most: usize) -> usize {
        let Next::Bytes(text, left) = self.next else { return 0 };
        let count = most.min(left - 1);
        self.next = Next::Bytes(text, left - count);
        count
    }

    fn take(&mut self, byte: u8) {
        self.next = match self.next {
            Next::Field => self.begin(byte),
            Next::Number(after) if byte & !SEVEN != 0 => Next::Number(after),
            Next::Number(after) => self.then(after),
            Next::Length(text) if byte & SEVEN == SEVEN => Next::MoreLength(text, usize::from(SEVEN), 0),
            Next::Length(text) => {
                let length = usize::from(byte & SEVEN);
                self.has_nameless |= matches!(text, Text::Name) && length == 0;
                self.bytes(text, length)
            }
            Next::MoreLength(text, length, bits) => {
                let more = usize::from(byte & SEVEN) << bits.min(NUMBER_BITS_MAX);
                let length = length.saturating_add(more);
                if byte & !SEVEN != 0 {
                    Next::MoreLength(text, length, bits + 7)
                } else {
                    self.bytes(text, length)
                }
            }
            Next::Bytes(text, left) => self.bytes(text, left - 1),
        };
    }

    /// What this first byte of a field says of what follows it.
    fn begin(&mut self, byte: u8) -> Next {
        let (mask, after) = match byte {
            0x80.. => (SEVEN, After::Field),
            0x40.. => (SIX, After::Value),
            0x20.. => (FIVE, After::Size),
            _ => (FOUR, After::Value),
        };
        self.has_late_size |= matches!(after, After::Size) && self.fields > 0;
        match (byte & mask, after) {
            (0, After::Value) => Next::Length(Text::Name),
            (prefix, after) if prefix == mask => Next::Number(after),
            (_, after) => self.then(after),
        }
    }

    fn then(&mut self, after: After) -> Next {
        match after {
            After::Value => Next::Length(Text::Value),
            After::Size => Next::Field,
            After::Field => {
                self.fields += 1;
                Next::Field
            }
        }
    }

    /// So many bytes of a text are left.
    fn bytes(&mut self, text: Text, left: usize) -> Next {
        match (text, left) {
            (text, 1..) => Next::Bytes(text, left),
            (Text::Name, 0) => Next::Length(Text::Value),
            (Text::Value, 0) => self.then(After::Field),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However it is cut, this block has so many fields, as trailers and as a head.
    fn check(block: &[u8], fields: usize) {
        check_block(block, fields, false);
        check_block(block, fields, true);
    }

    fn check_block(block: &[u8], fields: usize, is_head: bool) {
        for cut in 0..=block.len() {
            for (before, after) in [(&b""[..], &b""[..]), (b"\x03", b"\0\0\0"), (b"\x02prior", b"\0\0")] {
                let mut trailers = Trailers::default();
                let (first, second) = block.split_at(cut);
                let first = [before, first, after].concat();
                let part = |length, is_last| Part { length, is_padded: false, priority: 0, is_last };
                trailers.begin(1, is_head);
                let padded = Part {
                    is_padded: !before.is_empty(),
                    priority: before.len().saturating_sub(1),
                    ..part(first.len(), false)
                };
                let (one, other) = first.split_at(first.len() / 2);
                trailers.frame(padded, one);
                trailers.goes_on(&[other, b"another frame"].concat());
                assert!(trailers.is_open());
                trailers.frame(part(second.len(), true), second);
                assert!(!trailers.is_open());
                assert_eq!(trailers.take(3), None);
                if is_head {
                    assert_eq!(trailers.heads().remove(3), None);
                    assert_eq!(trailers.heads().remove(1), Some(fields), "{block:?} cut at {cut}");
                    assert_eq!((trailers.held(), trailers.take(1)), (0, None));
                    continue;
                }
                let held = trailers.held();
                let known = if fields == NO_NUMBER { 0 } else { fields };
                assert!(held >= block.len() + known * FIELD_BYTES && held < 100_000, "{held}");
                assert_eq!(trailers.take(1), Some(fields), "{block:?} cut at {cut}");
                assert_eq!(trailers.held(), 0);
                assert_eq!(trailers.take(1), None);
            }
        }
    }

    #[test]
    fn fields_are_counted() {
        check(b"", 0);
        check(b"\x82\xc0", 2);
        check(b"\xff\x80\x01", 1);
        check(b"\x3f\xe1\x1f\x20", 0);
        check(b"\x20\x3f\xe1\x1f\x82", 1);
        check(b"\x82\x20", NO_NUMBER);
        check(b"\x20\0\x01a\0\x3f\xe1\x1f\x82", NO_NUMBER);
        check(b"\0\x01a\x02bc", 1);
        check(b"\0\x05:path\x02/b\0\x01a\0", 2);
        check(b"\x40\x01a\x00\x10\x01a\x01b", 2);
        check(b"\x44\x01a\x7f\x01\x01b\x0f\x31\x81x", 3);
        let long = [&b"\0\x01a\xff\xad\x01"[..], &[0; 300], b"\x82"].concat();
        check(&long, 2);
    }

    #[test]
    fn of_two_that_end_a_stream_none_is_known() {
        let mut trailers = Trailers::default();
        for _ in 0..2 {
            trailers.begin(1, false);
            trailers.frame(Part { length: 1, is_padded: false, priority: 0, is_last: true }, b"\x82");
        }
        assert_eq!((trailers.take(1), trailers.take(1), trailers.held()), (Some(NO_NUMBER), None, 0));
    }

    #[test]
    fn few_are_remembered() {
        let mut trailers = Trailers::default();
        for stream in 0..2_000 {
            trailers.begin(stream, false);
            trailers.frame(Part { length: 1, is_padded: false, priority: 0, is_last: true }, b"\x82");
        }
        assert_eq!(trailers.seen.len(), SEEN_MAX);
        assert_eq!(trailers.held(), SEEN_MAX * (1 + FIELD_BYTES));
        assert_eq!((trailers.take(1), trailers.take(1_999)), (None, Some(1)));
    }
}
