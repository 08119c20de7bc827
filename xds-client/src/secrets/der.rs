//! DER: where one value ends and the next begins.

/// A sequence, which certificates are.
const SEQUENCE: u8 = 0x30;
/// The length follows in so many bytes, if this bit is set.
const LONG: u8 = 0x80;
/// Bytes of a length at most; that is up to 4 GiB.
const LENGTH_BYTES_MAX: usize = 4;

/// The sequences that stand one after the other; `None` when there is anything else.
pub(super) fn split(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (one, rest) = bytes.split_at_checked(length(bytes)?)?;
        found.push(one);
        bytes = rest;
    }
    Some(found)
}

/// Bytes of the sequence at the beginning, its head included (X.690, 8.1.3).
fn length(bytes: &[u8]) -> Option<usize> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if tag != SEQUENCE {
        return None;
    }
    if first & LONG == 0 {
        return Some(2 + usize::from(first));
    }
    let count = usize::from(first & !LONG);
    if count == 0 || count > LENGTH_BYTES_MAX {
        return None;
    }
    let content = rest.get(..count)?.iter().fold(0_usize, |length, byte| (length << 8) | usize::from(*byte));
    content.checked_add(2 + count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_one_after_the_other() {
        let check = |bytes: &[u8], expected: Option<&[usize]>| {
            let lengths = split(bytes).map(|found| found.iter().map(|one| one.len()).collect::<Vec<_>>());
            assert_eq!(lengths.as_deref(), expected, "{bytes:x?}");
        };
        check(b"", Some(&[]));
        check(b"\x30\x00", Some(&[2]));
        check(b"\x30\x01\x05\x30\x00", Some(&[3, 2]));
        check(b"\x30\x81\x02ab\x30\x82\x00\x01c", Some(&[5, 5]));
        for broken in [
            &b"\x30"[..],
            b"\x30\x01",
            b"\x31\x00",
            b"\x30\x80",
            b"\x30\x85\x00\x00\x00\x00\x01a",
            b"\x30\x00\x00",
        ] {
            check(broken, None);
        }
        check(b"\x30\x84\xff\xff\xff\xffa", None);
    }
}
