//! What of a message may come beside its head and its data: limits of the process.

use config::Limits;
use http::HeaderMap;

/// What a field counts besides its name and value (RFC 9113 section 6.5.2).
pub(crate) const FIELD_BYTES: usize = 32;

/// Bytes of fields, as HTTP/2 counts them (RFC 9113 section 6.5.2).
pub(crate) fn field_bytes(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES).sum()
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

    /// The limit that these trailers of HTTP/2 exceed, if they do.
    pub(super) fn exceeded_by(&self, trailers: &HeaderMap) -> Option<&'static str> {
        if trailers.len() > self.trailers as usize {
            return Some("trailers_max");
        }
        (field_bytes(trailers) > self.trailer_bytes as usize).then_some("trailer_bytes_max")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_are_counted_and_measured() {
        let limits = Limits { trailers_max: 2, trailer_bytes_max: 100, ..Limits::DEFAULT };
        let check = |values: &[usize], expected: Option<&str>| {
            let mut trailers = HeaderMap::new();
            for bytes in values {
                trailers.append("x", "a".repeat(*bytes).parse().expect("a value"));
            }
            assert_eq!(BodyBounds::of(&limits).exceeded_by(&trailers), expected, "{values:?}");
        };
        check(&[], None);
        check(&[67], None);
        check(&[68], Some("trailer_bytes_max"));
        check(&[17, 17], None);
        check(&[17, 18], Some("trailer_bytes_max"));
        check(&[1, 1, 1], Some("trailers_max"));
    }
}
