//! How much a resource may make of its bytes.
//!
//! Two bytes can be a message that takes a kilobyte when it is decoded, so a bound on bytes is none on memory. Messages can
//! only be told from texts by who knows their definitions; but what is no message at all does not become one. So everything
//! that could be a message is counted before anything is decoded.

use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};

/// Most fields with a length, at all depths, of a resource: messages, texts and lists of numbers. Routes of 5,000 services, as
/// istiod writes them, have 60,000.
pub const FIELDS_MAX: usize = 1_000_000;

/// Deeper than protobuf lets messages be.
const DEPTH_MAX: usize = 100;

/// Whether a resource has no more fields than it may.
pub(super) fn is_bounded(resource: &[u8]) -> bool {
    let mut count = Count { fields: 0 };
    count.message(resource, 0);
    count.fields <= FIELDS_MAX
}

struct Count {
    fields: usize,
}

impl Count {
    /// Counts what would be fields if these bytes were a message. What is counted of bytes that turn out to be none stays
    /// counted: texts that begin like a message are few.
    fn message(&mut self, mut bytes: &[u8], depth: usize) {
        while bytes.has_remaining() && self.fields <= FIELDS_MAX {
            let Ok((_, kind)) = decode_key(&mut bytes) else { return };
            let length = match kind {
                WireType::Varint => {
                    if decode_varint(&mut bytes).is_err() {
                        return;
                    }
                    continue;
                }
                WireType::ThirtyTwoBit => 4,
                WireType::SixtyFourBit => 8,
                WireType::LengthDelimited => match decode_varint(&mut bytes).map(usize::try_from) {
                    Ok(Ok(length)) => length,
                    _ => return,
                },
                // Nobody writes groups any more; their fields count as those of the message they are in.
                WireType::StartGroup | WireType::EndGroup => continue,
            };
            let Some((field, rest)) = bytes.split_at_checked(length) else { return };
            bytes = rest;
            if kind == WireType::LengthDelimited {
                self.fields += 1;
                if depth < DEPTH_MAX {
                    self.message(field, depth + 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_at_all_depths() {
        let check = |bytes: &[u8], expected: usize| {
            let mut count = Count { fields: 0 };
            count.message(bytes, 0);
            assert_eq!(count.fields, expected, "{bytes:?}");
        };
        check(&[], 0);
        check(&[0x08, 0x01], 0);
        check(&[0x0a, 0x00], 1);
        check(&[0x0a, 0x02, 0x0a, 0x00], 2);
        check(&[0x0a, 0x02, 0x0a, 0x00, 0x0a, 0x00], 3);
        // Cut.
        check(&[0x0a, 0x05, 0x0a], 0);
        check(&[0x0a, 0x00, 0xff], 1);
        check(&[0x0d, 0, 0, 0, 0, 0x0a, 0x00], 1);
    }

    #[test]
    fn many_empty_messages_are_refused_before_they_take_memory() {
        let few = [0x1a, 0x00].repeat(FIELDS_MAX);
        assert!(is_bounded(&few));
        let many = [0x1a, 0x00].repeat(FIELDS_MAX + 1);
        assert!(!is_bounded(&many));
        // The same within a field of a field.
        let mut nested = many;
        for _ in 0..2 {
            let mut outer = vec![0x0a];
            prost::encoding::encode_varint(nested.len() as u64, &mut outer);
            outer.extend(nested);
            nested = outer;
        }
        assert!(!is_bounded(&nested));
    }
}
