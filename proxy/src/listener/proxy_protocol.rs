//! The PROXY protocol, versions 1 and 2: what a load balancer before us says of whom it connects for, in front of what the
//! client says. Pure: bytes in, a verdict out, and the same bytes again with more behind them when it is
//! [`Header::NeedMore`].
//!
//! Semantics: Envoy's `proxy_protocol` listener filter without options, as istiod has it: either version is taken, and none
//! is an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What version 1 begins with.
const SIGNATURE_V1: &[u8] = b"PROXY ";

/// What version 2 begins with.
const SIGNATURE_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of a line of version 1, its end included. Envoy: the same.
const LINE_BYTES_MAX: usize = 108;

/// Bytes of what version 2 has before its addresses.
const FIXED_BYTES: usize = 16;

/// Bytes of a header: version 2 tells how many follow its first 16 in 16 bits.
pub(super) const HEADER_BYTES_MAX: usize = FIXED_BYTES + u16::MAX as usize;

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// Not enough to tell.
    NeedMore,
    /// It is whole.
    Whole {
        /// Its bytes.
        length: usize,
        /// Who connects to where; `None` when whoever sends it connects for itself, or does not know.
        ends: Option<Ends>,
    },
    /// It is none, for this reason.
    Malformed(&'static str),
}

/// Who connects to where, as whoever is before us saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    /// The client's end.
    pub(super) source: SocketAddr,
    /// Where the client connected to.
    pub(super) destination: SocketAddr,
}

/// Nobody sends one.
const NO_HEADER: Header = Header::Malformed("proxy_protocol_not_found");
const WRONG_LINE: Header = Header::Malformed("proxy_protocol_v1_malformed");
const WRONG_V2: Header = Header::Malformed("proxy_protocol_v2_malformed");

/// Reads a header.
pub(super) fn read(bytes: &[u8]) -> Header {
    if bytes.starts_with(SIGNATURE_V2) {
        read_v2(bytes)
    } else if bytes.starts_with(SIGNATURE_V1) {
        read_v1(bytes)
    } else if SIGNATURE_V1.starts_with(bytes) || SIGNATURE_V2.starts_with(bytes) {
        Header::NeedMore
    } else {
        NO_HEADER
    }
}

fn read_v1(bytes: &[u8]) -> Header {
    let line = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = line.windows(2).position(|two| two == b"\r\n") else {
        return if line.len() < LINE_BYTES_MAX { Header::NeedMore } else { WRONG_LINE };
    };
    let length = end.saturating_add(2);
    let words = line.get(..end).and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    let words: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
    let ends = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => return Header::Whole { length, ends: None },
        ["PROXY", "TCP4", source, destination, from, to] => {
            ends::<Ipv4Addr>((source, from), (destination, to))
        }
        ["PROXY", "TCP6", source, destination, from, to] => {
            ends::<Ipv6Addr>((source, from), (destination, to))
        }
        _ => None,
    };
    ends.map_or(WRONG_LINE, |ends| Header::Whole { length, ends: Some(ends) })
}

/// The ends, each an address of this family and a port.
fn ends<A: std::str::FromStr + Into<IpAddr>>(
    source: (&str, &str),
    destination: (&str, &str),
) -> Option<Ends> {
    let end = |(address, port): (&str, &str)| {
        let address: A = address.parse().ok()?;
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        Some(SocketAddr::new(address.into(), port.parse().ok().filter(|_| digits)?))
    };
    Ends { source: end(source)?, destination: end(destination)? }.checked()
}

fn read_v2(bytes: &[u8]) -> Header {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return Header::NeedMore };
    let [.., command, family, high, low] = *fixed;
    let behind = usize::from(u16::from_be_bytes([high, low]));
    let address_bytes = match (command, family) {
        // What a balancer that asks for itself says of addresses does not count.
        (0x20, _) => None,
        (0x21, 0x11 | 0x12) => Some(12),
        (0x21, 0x21 | 0x22) => Some(36),
        _ => return WRONG_V2,
    };
    if address_bytes.is_some_and(|addresses| behind < addresses) {
        return WRONG_V2;
    }
    let Some(rest) = rest.get(..behind) else { return Header::NeedMore };
    let length = FIXED_BYTES.saturating_add(behind);
    let Some(addresses) = address_bytes else { return Header::Whole { length, ends: None } };
    let (addresses, fields) = rest.split_at(addresses);
    match ends_v2(addresses).and_then(Ends::checked) {
        Some(ends) if are_fields(fields) => Header::Whole { length, ends: Some(ends) },
        _ => WRONG_V2,
    }
}

/// The addresses of version 2, by how many bytes they have.
fn ends_v2(addresses: &[u8]) -> Option<Ends> {
    let (hosts, ports) = addresses.split_at(addresses.len().checked_sub(4)?);
    let [from_high, from_low, to_high, to_low] = *<&[u8; 4]>::try_from(ports).ok()?;
    let (source, destination) = hosts.split_at(hosts.len() / 2);
    let address = |bytes: &[u8]| match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    };
    Some(Ends {
        source: SocketAddr::new(address(source)?, u16::from_be_bytes([from_high, from_low])),
        destination: SocketAddr::new(address(destination)?, u16::from_be_bytes([to_high, to_low])),
    })
}

/// Whether these are further fields, each a type, a length and as many bytes. What they say is not asked.
fn are_fields(mut bytes: &[u8]) -> bool {
    while let [_, high, low, rest @ ..] = bytes {
        match rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) {
            Some(more) => bytes = more,
            None => return false,
        }
    }
    bytes.is_empty()
}

impl Ends {
    /// Both are addresses of one host, as they are in TCP.
    fn checked(self) -> Option<Ends> {
        let is_one = |address: IpAddr| {
            let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
            !address.is_unspecified() && !address.is_multicast() && !broadcast
        };
        (is_one(self.source.ip()) && is_one(self.destination.ip())).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(length: usize, source: &str, destination: &str) -> Header {
        let address = |text: &str| text.parse().expect("an address");
        Header::Whole {
            length,
            ends: Some(Ends { source: address(source), destination: address(destination) }),
        }
    }

    /// What is expected of all bytes; of fewer, more are needed.
    fn check(bytes: &[u8], expected: Header) {
        let shown = bytes.escape_ascii();
        assert_eq!(read(bytes), expected, "{shown}");
        assert_eq!(read(&[bytes, b"GET /"].concat()), expected, "{shown} with more behind it");
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Header::NeedMore, "{shown}: the first {end}");
        }
    }

    #[test]
    fn version_1() {
        let v4 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
        check(v4, whole(v4.len(), "192.0.2.7:56324", "198.51.100.1:443"));
        let v6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n";
        check(v6, whole(v6.len(), "[2001:db8::7]:56324", "[2001:db8::1]:443"));
        check(b"PROXY UNKNOWN\r\n", Header::Whole { length: 15, ends: None });
        let unknown = b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n";
        check(unknown, Header::Whole { length: unknown.len(), ends: None });
        for wrong in [
            "PROXY TCP4 2001:db8::7 2001:db8::1 56324 443\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +56324 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 224.0.0.1 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.7 0.0.0.0 56324 443\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 56324 443\r\n",
            "PROXY \r\n",
        ] {
            check(wrong.as_bytes(), WRONG_LINE);
        }
        let endless = [b"PROXY UNKNOWN ", &[b'a'; 94][..]].concat();
        check(&endless, WRONG_LINE);
        assert_eq!(read(b"PROXY TCP4 \xff\xfe\r\n"), WRONG_LINE);
    }

    /// A header of version 2 with what is said in it of command and family, and what follows.
    fn v2(command: u8, family: u8, behind: &[u8]) -> Vec<u8> {
        let length = u16::try_from(behind.len()).expect("it fits").to_be_bytes();
        [SIGNATURE_V2, &[command, family][..], &length, behind].concat()
    }

    const V4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

    #[test]
    fn version_2() {
        check(&v2(0x21, 0x11, V4), whole(28, "192.0.2.7:56324", "198.51.100.1:443"));
        let ends: [Ipv6Addr; 2] =
            ["2001:db8::7", "2001:db8::1"].map(|text| text.parse().expect("an address"));
        let v6 = [&ends[0].octets()[..], &ends[1].octets(), &V4[8..]].concat();
        check(&v2(0x21, 0x21, &v6), whole(52, "[2001:db8::7]:56324", "[2001:db8::1]:443"));
        let fields = [V4, &[0x03, 0, 4, 1, 2, 3, 4, 0x04, 0, 0]].concat();
        check(&v2(0x21, 0x11, &fields), whole(38, "192.0.2.7:56324", "198.51.100.1:443"));
        // A balancer that looks whether we are there.
        check(&v2(0x20, 0x00, &[]), Header::Whole { length: 16, ends: None });
        check(&v2(0x20, 0x11, V4), Header::Whole { length: 28, ends: None });
        let largest = [V4, &[0xee, 0xff, 0xf0], &[0; 0xfff0]].concat();
        let header = v2(0x21, 0x11, &largest);
        assert_eq!(header.len(), HEADER_BYTES_MAX);
        assert_eq!(read(&header[..header.len() - 1]), Header::NeedMore);
        assert_eq!(read(&header), whole(HEADER_BYTES_MAX, "192.0.2.7:56324", "198.51.100.1:443"));
    }

    #[test]
    fn what_is_no_header_is_malformed() {
        let malformed = |bytes: &[u8], expected: Header| {
            assert_eq!(read(bytes), expected, "{}", bytes.escape_ascii());
        };
        for (command, family, behind) in [
            (0x11, 0x11, V4),
            (0x22, 0x11, V4),
            (0x21, 0x00, &[][..]),
            (0x21, 0x31, &[0; 216]),
            (0x21, 0x13, V4),
            (0x21, 0x11, &V4[..11]),
            (0x21, 0x21, V4),
            (0x21, 0x11, &[0; 12]),
        ] {
            malformed(&v2(command, family, behind), WRONG_V2);
        }
        for fields in [&[3][..], &[3, 0], &[3, 0, 4, 1, 2, 3], &[3, 0xff, 0xff]] {
            malformed(&v2(0x21, 0x11, &[V4, fields].concat()), WRONG_V2);
        }
        malformed(b"GET / HTTP/1.1\r\n", NO_HEADER);
        malformed(b"PROXYTCP4", NO_HEADER);
        malformed(b"\r\nGET", NO_HEADER);
        malformed(&[0x16, 0x03, 0x01], NO_HEADER);
    }
}
