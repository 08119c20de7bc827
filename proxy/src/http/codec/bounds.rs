//! What of a message may come beside its head and its data: limits of the process.

use config::Limits;
use http::{HeaderMap, HeaderName};

use super::StreamError;

/// What a field counts besides its name and value (RFC 9113 section 6.5.2).
pub(crate) const FIELD_BYTES: usize = 32;

/// Bytes of fields, as HTTP/2 counts them (RFC 9113 section 6.5.2).
pub(crate) fn field_bytes(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES).sum()
}

/// The same of fields that came over HTTP/2; `None` when one of the names is no token.
pub(crate) fn token_field_bytes(fields: &HeaderMap) -> Option<usize> {
    fields.iter().try_fold(0, |bytes, (name, value)| {
        is_token(name).then(|| bytes + name.as_str().len() + value.len() + FIELD_BYTES)
    })
}

/// Whether a name that h2 takes is a token (RFC 9110 section 5.6.2): it takes one with a quotation mark, too.
pub(super) fn is_token(name: &HeaderName) -> bool {
    // Eight bytes at a time: all names of all heads are looked at. A byte of the difference is 0 where there is one.
    const ONES: u64 = u64::MAX / 0xff;
    let (words, rest) = name.as_str().as_bytes().as_chunks();
    let has_mark = |word: &[u8; 8]| {
        let difference = u64::from_ne_bytes(*word) ^ (ONES * b'"' as u64);
        difference.wrapping_sub(ONES) & !difference & (ONES << 7) != 0
    };
    !rest.contains(&b'"') && !words.iter().any(has_mark)
}

/// Bounds of one body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyBounds {
    /// `chunk_extension_bytes_max`.
    pub(super) extension_bytes: u32,
    /// `trailer_bytes_max`.
    pub(super) trailer_bytes: u32,
    /// `trailers_max`.
    pub(super) trailers: u32,
}

impl BodyBounds {
    /// Of a process with these limits.
    pub(crate) fn of(limits: &Limits) -> BodyBounds {
        let whole = |limit| u32::try_from(limit).unwrap_or(u32::MAX);
        BodyBounds {
            extension_bytes: whole(limits.chunk_extension_bytes_max),
            trailer_bytes: whole(limits.trailer_bytes_max),
            trailers: whole(limits.trailers_max),
        }
    }

    /// Why these trailers of HTTP/2 are none, if they are not: they exceed a limit, or h2 takes what others would not.
    pub(super) fn refuse(&self, trailers: &HeaderMap) -> Option<StreamError> {
        if trailers.len() > self.trailers as usize {
            return Some(StreamError::Limit("trailers_max"));
        }
        match token_field_bytes(trailers) {
            None => Some(StreamError::Protocol("a bad name behind the body".to_owned())),
            Some(bytes) if bytes > self.trailer_bytes as usize => {
                Some(StreamError::Limit("trailer_bytes_max"))
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_are_counted_and_measured() {
        let limits = Limits { trailers_max: 2, trailer_bytes_max: 100, ..Limits::DEFAULT };
        let check = |values: &[usize], expected: Option<&'static str>| {
            let mut trailers = HeaderMap::new();
            for bytes in values {
                trailers.append("x", "a".repeat(*bytes).parse().expect("a value"));
            }
            let refused = BodyBounds::of(&limits).refuse(&trailers);
            assert_eq!(refused, expected.map(StreamError::Limit), "{values:?}");
        };
        check(&[], None);
        check(&[67], None);
        check(&[68], Some("trailer_bytes_max"));
        check(&[17, 17], None);
        check(&[17, 18], Some("trailer_bytes_max"));
        check(&[1, 1, 1], Some("trailers_max"));
    }

    #[test]
    fn a_name_with_a_quotation_mark_is_no_token() {
        for length in 1..=17 {
            assert!(is_token(&HeaderName::from_bytes(&vec![b'#'; length]).expect("a name")), "{length}");
            for at in 0..length {
                // One below and one above it beside it.
                let mut name: Vec<u8> = b"!#".iter().copied().cycle().take(length).collect();
                name[at] = b'"';
                // Heads of HTTP/2 are read with this.
                let name = HeaderName::from_lowercase(&name).expect("h2 takes it");
                assert!(!is_token(&name), "{name:?}");
            }
        }
    }
}
