//! Header blocks (HPACK, RFC 7541): reading any, writing few.
//!
//! What is written are header lists that are the same each time, so a block has two forms: the first on a connection
//! puts its headers into the peer's dynamic table, all later ones name them by index. That is what common clients do,
//! and what a proxy sees of a client that repeats itself. For a peer that keeps no such table there is a third form.

use std::collections::VecDeque;

use super::huffman;
use crate::response::Malformed;

/// Bytes of the dynamic table on both sides: what holds until something else is said.
pub(crate) const TABLE_BYTES: usize = 4096;

/// What an entry counts beyond its bytes.
const ENTRY_BYTES_OVER: usize = 32;

/// The static table; index 1 is the first.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Name and value.
type Entry = (Box<[u8]>, Box<[u8]>);

/// Reads the header blocks of one connection, each exactly once and in order: they change its table.
#[derive(Default)]
pub(crate) struct Decoder {
    dynamic: VecDeque<Entry>,
    bytes: usize,
    bytes_max: Option<usize>,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    /// Calls `each` with every header of a block, in order.
    pub(crate) fn decode(
        &mut self,
        mut block: &[u8],
        mut each: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Malformed> {
        while let Some(first) = block.first().copied() {
            let (prefix_bits, add) = match first {
                0x80.. => {
                    let index = integer(&mut block, 7)?;
                    let (name, value) = self.entry(index)?;
                    each(name, value);
                    continue;
                }
                0x20..0x40 => {
                    let size = integer(&mut block, 5)?;
                    if size > TABLE_BYTES {
                        return Err(Malformed("a dynamic table above the limit"));
                    }
                    self.bytes_max = Some(size);
                    self.evict(0);
                    continue;
                }
                0x40.. => (6, true),
                // Without indexing, or never indexed.
                _ => (4, false),
            };
            self.literal(&mut block, prefix_bits)?;
            each(&self.name, &self.value);
            if add {
                self.add();
            }
        }
        Ok(())
    }

    /// Reads a literal into `name` and `value`.
    fn literal(&mut self, block: &mut &[u8], prefix_bits: u32) -> Result<(), Malformed> {
        let (mut name, mut value) = (std::mem::take(&mut self.name), std::mem::take(&mut self.value));
        name.clear();
        value.clear();
        match integer(block, prefix_bits)? {
            0 => string(block, &mut name)?,
            index => name.extend_from_slice(self.entry(index)?.0),
        }
        string(block, &mut value)?;
        (self.name, self.value) = (name, value);
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), Malformed> {
        let index = index.checked_sub(1).ok_or(Malformed("index 0"))?;
        if let Some((name, value)) = STATIC.get(index) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let (name, value) =
            self.dynamic.get(index - STATIC.len()).ok_or(Malformed("an index beyond the table"))?;
        Ok((name, value))
    }

    fn add(&mut self) {
        let bytes = self.name.len() + self.value.len() + ENTRY_BYTES_OVER;
        self.evict(bytes);
        if bytes <= self.bytes_max() {
            self.bytes += bytes;
            self.dynamic.push_front((self.name.as_slice().into(), self.value.as_slice().into()));
        }
    }

    /// Makes room for `bytes` more.
    fn evict(&mut self, bytes: usize) {
        while self.bytes + bytes > self.bytes_max() {
            let Some((name, value)) = self.dynamic.pop_back() else { return };
            self.bytes -= name.len() + value.len() + ENTRY_BYTES_OVER;
        }
    }

    fn bytes_max(&self) -> usize {
        self.bytes_max.unwrap_or(TABLE_BYTES)
    }
}

/// Takes an integer whose first byte has `prefix_bits` for it.
fn integer(block: &mut &[u8], prefix_bits: u32) -> Result<usize, Malformed> {
    let unfinished = Malformed("an unfinished header block");
    let (first, mut rest) = block.split_first().ok_or(unfinished)?;
    let most = (1_usize << prefix_bits) - 1;
    let mut value = usize::from(*first) & most;
    if value == most {
        for shift in [0, 7, 14, 21] {
            let (byte, after) = rest.split_first().ok_or(unfinished)?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                *block = rest;
                return Ok(value);
            }
        }
        return Err(Malformed("a number above the limit"));
    }
    *block = rest;
    Ok(value)
}

/// Takes a string and appends it.
fn string(block: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let is_coded = block.first().is_some_and(|first| *first >= 0x80);
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Malformed("an unfinished header block"))?;
    *block = rest;
    if is_coded {
        return huffman::decode(text, out);
    }
    out.extend_from_slice(text);
    Ok(())
}

/// A header list in the form it has first on a connection, the one it has from then on, and the one without the peer's
/// table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Prepared {
    first: Vec<u8>,
    later: Vec<u8>,
    plain: Vec<u8>,
}

impl Prepared {
    /// Prepares a list. It must fit the dynamic table and be the only one that is put into it.
    pub(crate) fn new(headers: &[(&str, &str)]) -> Prepared {
        let added = headers.iter().filter(|header| !STATIC.contains(header)).count();
        // A table that is made smaller must be so by an instruction too.
        let (mut prepared, mut number) = (Prepared { plain: vec![0x20], ..Prepared::default() }, 0);
        for (name, value) in headers {
            if let Some(index) = STATIC.iter().position(|entry| entry == &(*name, *value)) {
                for block in [&mut prepared.first, &mut prepared.later, &mut prepared.plain] {
                    append_integer(block, 0x80, 7, index + 1);
                }
                continue;
            }
            append_unindexed(&mut prepared.plain, name, value);
            append_literal(&mut prepared.first, 0x40, 6, name, value);
            // The entry added last has the lowest index.
            append_integer(&mut prepared.later, 0x80, 7, STATIC.len() + added - number);
            number += 1;
        }
        prepared
    }

    /// The block, `first` on its connection or later.
    pub(crate) fn block(&self, first: bool) -> &[u8] {
        if first { &self.first } else { &self.later }
    }

    /// The block for a peer that keeps no table.
    pub(crate) fn plain(&self) -> &[u8] {
        &self.plain
    }
}

/// Appends a header that leaves no trace in the peer's table.
pub(crate) fn append_unindexed(out: &mut Vec<u8>, name: &str, value: &str) {
    append_literal(out, 0x00, 4, name, value);
}

fn append_literal(out: &mut Vec<u8>, pattern: u8, prefix_bits: u32, name: &str, value: &str) {
    match STATIC.iter().position(|(known, _)| *known == name) {
        Some(index) => append_integer(out, pattern, prefix_bits, index + 1),
        None => {
            out.push(pattern);
            append_string(out, name);
        }
    }
    append_string(out, value);
}

fn append_string(out: &mut Vec<u8>, text: &str) {
    append_integer(out, 0x00, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn append_integer(out: &mut Vec<u8>, pattern: u8, prefix_bits: u32, value: usize) {
    let most = (1_usize << prefix_bits) - 1;
    let low = |value: usize| u8::try_from(value & 0xff).unwrap_or(0);
    if value < most {
        return out.push(pattern | low(value));
    }
    out.push(pattern | low(most));
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(0x80 | low(rest & 0x7f));
        rest >>= 7;
    }
    out.push(low(rest));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<String, &'static str> {
        let mut text = String::new();
        let each = |name: &[u8], value: &[u8]| {
            text += &format!("{}={};", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        };
        decoder.decode(block, each).map(|()| text).map_err(|Malformed(reason)| reason)
    }

    fn check(decoder: &mut Decoder, hex: &str, expected: Result<&str, &str>) {
        let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
        let found = read(decoder, &bytes.collect::<Vec<_>>());
        assert_eq!(found.as_deref().map_err(|reason| *reason), expected, "{hex}");
    }

    /// RFC 7541 appendix C.4 and C.6: Huffman code, the dynamic table, eviction.
    #[test]
    fn blocks_are_read_one_after_the_other() {
        let requests = &mut Decoder::default();
        let common = ":method=GET;:scheme=http;:path=/;:authority=www.example.com;";
        check(requests, "828684418cf1e3c2e5f23a6ba0ab90f4ff", Ok(common));
        check(requests, "828684be5886a8eb10649cbf", Ok(&format!("{common}cache-control=no-cache;")));
        check(
            requests,
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
            Ok(
                ":method=GET;:scheme=https;:path=/index.html;:authority=www.example.com;custom-key=custom-value;",
            ),
        );
        let responses = &mut Decoder { bytes_max: Some(256), ..Decoder::default() };
        let date = "date=Mon, 21 Oct 2013 20:13:21 GMT;location=https://www.example.com;";
        check(
            responses,
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            Ok(&format!(":status=302;cache-control=private;{date}")),
        );
        check(responses, "4883640effc1c0bf", Ok(&format!(":status=307;cache-control=private;{date}")));
        assert_eq!((responses.dynamic.len(), responses.bytes), (4, 222));
    }

    #[test]
    fn what_is_no_block_is_found() {
        let fresh = Decoder::default;
        check(&mut fresh(), "80", Err("index 0"));
        check(&mut fresh(), "be", Err("an index beyond the table"));
        check(&mut fresh(), "4105", Err("an unfinished header block"));
        check(&mut fresh(), "ffffffffffff", Err("a number above the limit"));
        check(&mut fresh(), "3fe21f", Err("a dynamic table above the limit"));
        // A table of size 0 keeps nothing.
        check(&mut fresh(), "2040016101 62be".replace(' ', "").as_str(), Err("an index beyond the table"));
    }

    #[test]
    fn a_prepared_list_reads_the_same_first_and_later() {
        let long = "x".repeat(300);
        let headers = [(":method", "GET"), (":path", "/items/7"), ("x-user", "a"), ("accept", &long)];
        let prepared = Prepared::new(&headers);
        let expected: String = headers.iter().map(|(name, value)| format!("{name}={value};")).collect();
        let decoder = &mut Decoder::default();
        for first in [true, false, false] {
            assert_eq!(read(decoder, prepared.block(first)), Ok(expected.clone()));
        }
        assert!(prepared.block(false).len() <= 2 * headers.len());
        assert_eq!(read(&mut Decoder::default(), prepared.plain()), Ok(expected));
        let mut block = Vec::new();
        append_unindexed(&mut block, "x-user", "tester");
        append_unindexed(&mut block, ":path", "/a");
        assert_eq!(read(decoder, &block), Ok("x-user=tester;:path=/a;".to_owned()));
        assert_eq!(decoder.dynamic.len(), 3);
    }
}
