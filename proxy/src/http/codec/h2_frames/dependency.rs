//! The priority in the head of a stream (RFC 7540 section 5.3.1), of which one thing matters: a stream cannot depend on itself. h2
//! resets such a stream without reading its fields, which HPACK's table is made of, and would misread those of others from then on.

use super::{Frame, PADDED};

/// Bytes of the number of a stream.
const NUMBER_BYTES: u8 = 4;

/// What is known of the last priority.
#[derive(Debug, Default)]
pub(super) struct Dependency {
    /// The stream that has it.
    of: u32,
    /// On which it depends, as far as that has come.
    on: u32,
    /// Bytes to come.
    left: u8,
    /// One comes before that tells the padding.
    is_padded: bool,
}

impl Dependency {
    /// A frame with a priority begins with these bytes. Whether it is on itself, if that is known.
    pub(super) fn begins(&mut self, frame: Frame, payload: &[u8]) -> bool {
        *self = Dependency { of: frame.stream, on: 0, left: NUMBER_BYTES, is_padded: frame.has(PADDED) };
        self.goes_on(payload)
    }

    /// The same with more bytes of it.
    pub(super) fn goes_on(&mut self, bytes: &[u8]) -> bool {
        if self.left == 0 {
            return false;
        }
        for byte in bytes {
            if std::mem::take(&mut self.is_padded) {
                continue;
            }
            self.on = self.on << 8 | u32::from(*byte);
            self.left -= 1;
            if self.left == 0 {
                return self.on & 0x7fff_ffff == self.of;
            }
        }
        false
    }
}
