//! Heads of HTTP/2 that come in several frames.
//!
//! Where such a frame ends within a field, h2 forgets that one before it made the head malformed (RFC 9113 sections 8.2.2 and
//! 8.3), and hands on the head without it. That shows by the number of fields, as with trailers.

use std::collections::VecDeque;

use http::{Method, Request};

/// Heads that are remembered until h2 hands them on: as many as a client may have streams by default. Much fewer are here, for
/// frames are given to h2 some streams at a time.
const CUT_MAX: usize = 1024;

/// The number of fields of a head that has none that could be right.
pub(super) const NO_NUMBER: usize = usize::MAX;

/// Heads of one connection that nobody has asked for.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Streams and the number of their fields, the first that came first.
    cut: VecDeque<(u32, usize)>,
    /// The last stream of which this was forgotten, because too many came behind it.
    lost: u32,
    /// Those of which h2 had left fields out.
    pub(super) malformed: usize,
}

impl Heads {
    /// The head of this stream has ended, and came in several frames. Where one came before it that did, nobody knows which of them
    /// h2 hands on.
    pub(super) fn add(&mut self, stream: u32, fields: usize) {
        let fields = if self.remove(stream).is_some() { NO_NUMBER } else { fields };
        if self.cut.len() == CUT_MAX
            && let Some((first, _)) = self.cut.pop_front()
        {
            self.lost = self.lost.max(first);
        }
        self.cut.push_back((stream, fields));
    }

    /// Another head of this stream came, whole.
    pub(super) fn is_followed(&mut self, stream: u32) {
        if let Some((_, fields)) = self.cut.iter_mut().find(|(of, _)| *of == stream) {
            *fields = NO_NUMBER;
        }
    }

    /// How many fields the head of this stream had, if it came in several frames; it is forgotten.
    pub(super) fn remove(&mut self, stream: u32) -> Option<usize> {
        let at = self.cut.iter().position(|(of, _)| *of == stream)?;
        let (_, fields) = self.cut.remove(at)?;
        self.has_fewer();
        Some(fields)
    }

    /// The same for streams that h2 hands on in their order: those before it were refused. What was lost may have been anything.
    pub(super) fn next(&mut self, stream: u32) -> Option<usize> {
        while self.cut.front().is_some_and(|(first, _)| *first < stream) {
            self.cut.pop_front();
        }
        let lost = (stream <= self.lost).then_some(NO_NUMBER);
        let fields = self.cut.pop_front_if(|(first, _)| *first == stream).map(|(_, fields)| fields);
        self.has_fewer();
        lost.or(fields)
    }

    /// Mostly no more come.
    fn has_fewer(&mut self) {
        if self.cut.is_empty() && self.cut.capacity() > 0 {
            self.cut = VecDeque::new();
        }
    }
}

/// How many fields h2 has handed on of the head of a request, pseudo-headers counted.
pub(super) fn fields_of<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let has_protocol = request.extensions().get::<h2::ext::Protocol>().is_some();
    // Without an authority it is not in the URI; h2 takes none with CONNECT, and no other request without one (RFC 9113
    // sections 8.3.1 and 8.5, RFC 8441 section 4).
    let has_scheme = *request.method() != Method::CONNECT || has_protocol;
    let others = [has_protocol, has_scheme, uri.authority().is_some(), !uri.path().is_empty()];
    // There is always a method.
    1 + others.into_iter().filter(|is_there| *is_there).count() + request.headers().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_requests_are_asked_for_in_order() {
        let mut heads = Heads::default();
        for stream in [1, 5, 7, 11] {
            heads.add(stream, stream as usize);
        }
        let asked = [3, 5, 9, 11, 13].map(|stream| heads.next(stream));
        assert_eq!(asked, [None, Some(5), None, Some(11), None]);
        assert_eq!(heads.cut.capacity(), 0);
    }

    #[test]
    fn those_of_answers_are_asked_for_in_any_order_and_there_is_one() {
        let mut heads = Heads::default();
        for (stream, fields) in [(1, 2), (3, 5), (1, 7), (7, 3)] {
            heads.add(stream, fields);
        }
        heads.is_followed(7);
        heads.is_followed(9);
        let asked = [5, 3, 1, 1, 7].map(|stream| heads.remove(stream));
        assert_eq!(asked, [None, Some(5), Some(NO_NUMBER), None, Some(NO_NUMBER)]);
        assert_eq!(heads.cut.capacity(), 0);
    }

    #[test]
    fn what_was_lost_is_in_no_order() {
        let mut heads = Heads::default();
        for stream in (1..).take(CUT_MAX + 10) {
            heads.add(stream, 4);
        }
        assert_eq!(heads.cut.len(), CUT_MAX);
        assert_eq!([1, 10, 11].map(|stream| heads.next(stream)), [Some(NO_NUMBER), Some(NO_NUMBER), Some(4)]);
    }

    #[test]
    fn fields_of_requests_are_counted() {
        let check = |method: &str, uri: &str, fields: &[(&str, &str)], count| {
            let mut request = Request::builder().method(method).uri(uri);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            assert_eq!(fields_of(&request.body(()).expect("a request")), count, "{method} {uri}");
        };
        check("GET", "http://a/b", &[], 4);
        check("GET", "/b?c", &[("host", "a")], 4);
        check("POST", "http://a/b", &[("cookie", "a"), ("cookie", "b"), ("x", "")], 7);
        check("OPTIONS", "*", &[], 3);
        check("CONNECT", "a:443", &[("x", "y")], 3);
    }
}
