//! How a page is coded for whoever asks for it (RFC 9110 section 12.5.3): as it is, or by gzip. Envoy's port of metrics does
//! the same by its compressor, which knows brotli and zstd, too.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

use super::answer::Parts;

/// Of fewer bytes nothing is saved. Envoy: `min_content_length`.
const CODED_BYTES_MIN: usize = 30;

/// What is sent at once of a page that is coded: much more than this is made for it.
pub(super) const CODED_PIECE_BYTES: usize = 8 * 1024;

/// The coding that is offered, and its old name.
const GZIP: [&str; 2] = ["gzip", "x-gzip"];

/// How a page is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As it is, for everybody.
    Fixed,
    /// As it is, for who asks for that.
    Identity,
    /// By gzip.
    Gzip,
}

/// A page in the coding that these headers of a request ask for.
pub(super) fn coded(parts: Parts, asked: &HeaderMap) -> (Parts, Coding) {
    let mut parts = parts.peekable();
    let is_short = parts.peek().is_none_or(|first| first.len() < CODED_BYTES_MIN);
    if is_short || !takes_gzip(asked) {
        return (Box::new(parts), Coding::Identity);
    }
    // Numbers are alike: the fastest level takes off nine tenths of them, and others wait meanwhile.
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    (Box::new(Gzip { parts: Box::new(parts), encoder: Some(encoder) }), Coding::Gzip)
}

/// Parts that are compressed as they are taken.
struct Gzip {
    parts: Parts,
    /// `None` at the end.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Iterator for Gzip {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let encoder = self.encoder.as_mut()?;
        for part in self.parts.by_ref() {
            // Writing to memory does not fail.
            encoder.write_all(&part).ok()?;
            if !encoder.get_ref().is_empty() {
                return Some(std::mem::take(encoder.get_mut()));
            }
        }
        self.encoder.take()?.finish().ok()
    }
}

/// Whether gzip is taken, and not less gladly than what is not coded.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let values = asked.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let told: Vec<(&str, f32)> = values.flat_map(|value| value.split(',')).filter_map(weighed).collect();
    let weight = |names: &[&str]| {
        let is_named = |(name, _): &&(&str, f32)| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        told.iter().find(is_named).map(|(_, weight)| *weight)
    };
    let gzip = weight(&GZIP).or_else(|| weight(&["*"])).unwrap_or(0.0);
    gzip > 0.0 && gzip >= weight(&["identity"]).unwrap_or(0.0)
}

/// A coding and how gladly it is taken; `None` when it is not written so.
fn weighed(part: &str) -> Option<(&str, f32)> {
    let (name, parameters) = part.split_once(';').unwrap_or((part, "q=1"));
    let (key, weight) = parameters.split_once('=')?;
    let weight = weight.trim().parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?;
    key.trim().eq_ignore_ascii_case("q").then_some((name.trim(), weight))
}

impl Coding {
    /// What `content-encoding` says.
    pub(super) fn name(self) -> Option<HeaderValue> {
        (self == Coding::Gzip).then(|| HeaderValue::from_static("gzip"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn who_asks_for_gzip_gets_it() {
        let check = |asked: &[&'static str], expected: Coding| {
            let mut headers = HeaderMap::new();
            for value in asked {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_static(value));
            }
            let parts = vec![b"envoy_cluster_upstream_rq_total 1\n".repeat(100); 10];
            let text = parts.concat();
            let (parts, coding) = coded(Box::new(parts.into_iter()), &headers);
            let bytes = parts.collect::<Vec<_>>().concat();
            assert_eq!(coding, expected, "{asked:?}");
            if coding == Coding::Gzip {
                let mut told = Vec::new();
                flate2::read::GzDecoder::new(&*bytes).read_to_end(&mut told).expect("gzip");
                assert!(bytes.len() * 10 < text.len() && told == text, "{} bytes", bytes.len());
            } else {
                assert_eq!(bytes, text);
            }
        };
        check(&[], Coding::Identity);
        check(&[""], Coding::Identity);
        check(&["gzip"], Coding::Gzip);
        check(&["GZIP;q=0.5, br"], Coding::Gzip);
        check(&["br", "zstd, x-gzip ; Q=0.1"], Coding::Gzip);
        check(&["*"], Coding::Gzip);
        check(&["identity"], Coding::Identity);
        check(&["gzip;q=0, *"], Coding::Identity);
        check(&["gzip;q=0.5, identity;q=0.8"], Coding::Identity);
        check(&["gzip;q=2"], Coding::Identity);
        check(&["gzip;q=NaN"], Coding::Identity);
        check(&["gzipped, deflate"], Coding::Identity);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let short = b"short".to_vec();
        let (parts, coding) = coded(Box::new([short.clone()].into_iter()), &headers);
        assert_eq!((parts.collect::<Vec<_>>(), coding), (vec![short], Coding::Identity));
    }
}
