//! The Huffman code of HPACK (RFC 7541 appendix B), for reading only.
//!
//! The code is canonical: of two symbols the one with the shorter code, or of equal length the smaller symbol, has the
//! smaller code. So the lengths are all there is to know.

use crate::response::Malformed;

/// The bytes, and last the end of string.
const SYMBOLS: u16 = 257;

/// Bits of the code of each symbol.
const CODE_BITS: [u8; SYMBOLS as usize] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

/// The longest code.
const BITS_MAX: usize = 30;

/// The code by length: the codes of `bits` bits start at `first` and stand for `symbols` from `offset` on.
struct Table {
    lengths: [Length; BITS_MAX + 1],
    symbols: [u16; CODE_BITS.len()],
}

#[derive(Clone, Copy)]
struct Length {
    first: u32,
    count: u32,
    offset: usize,
}

static TABLE: Table = table();

const fn table() -> Table {
    let mut lengths = [Length { first: 0, count: 0, offset: 0 }; BITS_MAX + 1];
    let mut symbols = [0; CODE_BITS.len()];
    let (mut bits, mut code, mut filled) = (0, 0, 0);
    while bits <= BITS_MAX {
        let (mut symbol, mut count) = (0, 0);
        lengths[bits].offset = filled;
        while symbol < SYMBOLS {
            if CODE_BITS[symbol as usize] as usize == bits {
                symbols[filled] = symbol;
                filled += 1;
                count += 1;
            }
            symbol += 1;
        }
        lengths[bits].first = code;
        lengths[bits].count = count;
        code = (code + count) << 1;
        bits += 1;
    }
    Table { lengths, symbols }
}

/// Appends what `coded` stands for.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let (mut code, mut bits) = (0_u32, 0_usize);
    for byte in coded {
        for shift in (0..8).rev() {
            code = code << 1 | u32::from(byte >> shift & 1);
            bits += 1;
            let length = TABLE.lengths.get(bits).ok_or(Malformed("no such Huffman code"))?;
            let index = code.wrapping_sub(length.first);
            if index < length.count {
                let symbol = TABLE.symbols.get(length.offset + index as usize).copied();
                let symbol = symbol.and_then(|symbol| u8::try_from(symbol).ok());
                out.push(symbol.ok_or(Malformed("an end of string inside a string"))?);
                (code, bits) = (0, 0);
            }
        }
    }
    // What is left over must be the start of the end of string: ones, fewer than a byte.
    if bits < 8 && code + 1 == 1 << bits { Ok(()) } else { Err(Malformed("wrong Huffman padding")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hex: &str, expected: Result<&str, &str>) {
        let coded: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let mut out = Vec::new();
        let found = decode(&coded, &mut out).map(|()| String::from_utf8(out).unwrap());
        assert_eq!(found.as_deref().map_err(|Malformed(reason)| *reason), expected, "{hex}");
    }

    /// The examples of RFC 7541 appendix C.
    #[test]
    fn strings_are_decoded() {
        check("f1e3c2e5f23a6ba0ab90f4ff", Ok("www.example.com"));
        check("a8eb10649cbf", Ok("no-cache"));
        check("25a849e95bb8e8b4bf", Ok("custom-value"));
        check("6402", Ok("302"));
        check("d07abe941054d444a8200595040b8166e082a62d1bff", Ok("Mon, 21 Oct 2013 20:13:21 GMT"));
        check("9d29ad171863c78f0b97c8e9ae82ae43d3", Ok("https://www.example.com"));
        check("", Ok(""));
    }

    #[test]
    fn bad_endings_are_found() {
        check("a8eb10649cbfff", Err("wrong Huffman padding"));
        check("a8eb10649cbe", Err("wrong Huffman padding"));
        check("ffffffff", Err("an end of string inside a string"));
    }

    #[test]
    fn the_code_is_complete() {
        let left: u64 = (1 << BITS_MAX)
            - CODE_BITS.iter().map(|bits| 1_u64 << (BITS_MAX - usize::from(*bits))).sum::<u64>();
        assert_eq!(left, 0);
    }
}
