//! How a page is coded for whoever asks for it (RFC 9110 section 12.5.3): as it is, or by gzip. Envoy's port of metrics does
//! the same by its compressor, which knows brotli and zstd, too.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

/// Of fewer bytes nothing is saved. Envoy: `min_content_length`.
const CODED_BYTES_MIN: usize = 30;

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

/// A page's bytes in the coding that these headers of a request ask for.
pub(crate) fn coded(bytes: Vec<u8>, asked: &HeaderMap) -> (Vec<u8>, Coding) {
    if bytes.len() < CODED_BYTES_MIN || !takes_gzip(asked) {
        return (bytes, Coding::Identity);
    }
    // Numbers are alike: the fastest level takes off nine tenths of them, and others wait meanwhile.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    match encoder.write_all(&bytes).and_then(|()| encoder.finish()) {
        Ok(coded) => (coded, Coding::Gzip),
        // Writing to memory does not fail.
        Err(_) => (bytes, Coding::Identity),
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
            let text = b"envoy_cluster_upstream_rq_total 1\n".repeat(1000);
            let (bytes, coding) = coded(text.clone(), &headers);
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
        assert_eq!(coded(b"short".to_vec(), &headers), (b"short".to_vec(), Coding::Identity));
    }
}
