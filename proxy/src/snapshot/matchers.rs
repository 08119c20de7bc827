//! Matchers with their regular expressions compiled. Semantics: Envoy's `RouteMatch`, `HeaderMatcher`,
//! `QueryParameterMatcher`.

use std::sync::Arc;

use http::HeaderValue;
use regex::bytes::Regex;

use super::Mismatch;
use crate::http::codec::RequestHead;

/// A compiled [`config::StringMatch`].
#[derive(Debug)]
enum StringMatcher {
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Regex(Regex),
    /// A pattern that does not compile matches nothing; validation has refused it before it comes here.
    Never,
}

impl StringMatcher {
    fn resolve(declared: &config::StringMatch) -> StringMatcher {
        match declared {
            config::StringMatch::Exact(text) => StringMatcher::Exact(text.clone()),
            config::StringMatch::Prefix(text) => StringMatcher::Prefix(text.clone()),
            config::StringMatch::SafeRegex(pattern) => {
                config::pattern::full_match(pattern).map_or(StringMatcher::Never, StringMatcher::Regex)
            }
        }
    }

    fn matches(&self, value: &[u8]) -> bool {
        match self {
            StringMatcher::Exact(text) => value == text.as_bytes(),
            StringMatcher::Prefix(text) => value.starts_with(text.as_bytes()),
            StringMatcher::Regex(regex) => regex.is_match(value),
            StringMatcher::Never => false,
        }
    }
}

/// A compiled [`config::PathMatch`].
#[derive(Debug)]
enum PathMatcher {
    Prefix(Arc<str>),
    Path(Arc<str>),
    Regex(StringMatcher),
}

/// A compiled [`config::HeaderMatcher`].
#[derive(Debug)]
struct HeaderMatcher {
    name: config::MatchedHeader,
    /// `None` asks only that the header is there.
    value: Option<StringMatcher>,
    invert: bool,
    treat_missing_as_empty: bool,
}

/// A compiled [`config::QueryParameterMatcher`].
#[derive(Debug)]
struct QueryParameterMatcher {
    name: Arc<str>,
    /// `None` asks only that the parameter is there.
    value: Option<StringMatcher>,
}

/// A compiled [`config::RouteMatch`].
#[derive(Debug)]
pub(super) struct RouteMatcher {
    path: PathMatcher,
    case_sensitive: bool,
    headers: Box<[HeaderMatcher]>,
    query_parameters: Box<[QueryParameterMatcher]>,
}

/// The parts of a request that rules are matched against, taken apart once.
pub(crate) struct Subject<'a> {
    head: &'a RequestHead,
    path: &'a str,
    query: &'a str,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(head: &'a RequestHead) -> Subject<'a> {
        let path = head.path.as_ref().map_or("", |path| path.path());
        let query = head.path.as_ref().and_then(|path| path.query()).unwrap_or("");
        Subject { head, path, query }
    }

    /// The value of the first parameter of that name. Neither is percent-decoded, as in Envoy.
    fn query_parameter(&self, name: &str) -> Option<&'a str> {
        let pairs = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }
}

impl RouteMatcher {
    pub(super) fn resolve(declared: &config::RouteMatch) -> RouteMatcher {
        RouteMatcher {
            path: match &declared.path {
                config::PathMatch::Prefix(text) => PathMatcher::Prefix(text.clone()),
                config::PathMatch::Path(text) => PathMatcher::Path(text.clone()),
                config::PathMatch::SafeRegex(pattern) => PathMatcher::Regex(StringMatcher::resolve(
                    &config::StringMatch::SafeRegex(pattern.clone()),
                )),
            },
            case_sensitive: declared.case_sensitive,
            headers: declared.headers.iter().map(HeaderMatcher::resolve).collect(),
            query_parameters: declared
                .query_parameters
                .iter()
                .map(|declared| QueryParameterMatcher {
                    name: declared.name.clone(),
                    value: declared.value.as_ref().map(StringMatcher::resolve),
                })
                .collect(),
        }
    }

    /// Whether all conditions hold, or the first that does not.
    pub(super) fn matches(&self, subject: &Subject<'_>) -> Result<(), Mismatch> {
        if subject.head.path.is_none() {
            return Err(Mismatch::Connect);
        }
        if !self.path_matches(subject.path) {
            return Err(Mismatch::Path);
        }
        for (index, header) in self.headers.iter().enumerate() {
            if !header.matches(subject.head) {
                return Err(Mismatch::Header(index));
            }
        }
        for (index, parameter) in self.query_parameters.iter().enumerate() {
            let holds = match (subject.query_parameter(&parameter.name), &parameter.value) {
                (Some(value), Some(matcher)) => matcher.matches(value.as_bytes()),
                (Some(_), None) => true,
                (None, _) => false,
            };
            if !holds {
                return Err(Mismatch::QueryParameter(index));
            }
        }
        Ok(())
    }

    /// The part of `path` that a prefix rewrite or prefix redirect replaces: the prefix, or all of it.
    pub(super) fn matched_length(&self, path: &str) -> usize {
        match &self.path {
            PathMatcher::Prefix(prefix) => prefix.len().min(path.len()),
            PathMatcher::Path(_) | PathMatcher::Regex(_) => path.len(),
        }
    }

    fn path_matches(&self, path: &str) -> bool {
        let path = path.as_bytes();
        match &self.path {
            PathMatcher::Prefix(prefix) if self.case_sensitive => path.starts_with(prefix.as_bytes()),
            PathMatcher::Prefix(prefix) => {
                path.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
            }
            PathMatcher::Path(whole) if self.case_sensitive => path == whole.as_bytes(),
            PathMatcher::Path(whole) => path.eq_ignore_ascii_case(whole.as_bytes()),
            PathMatcher::Regex(regex) => regex.matches(path),
        }
    }
}

impl HeaderMatcher {
    fn resolve(declared: &config::HeaderMatcher) -> HeaderMatcher {
        HeaderMatcher {
            name: declared.name.clone(),
            value: match &declared.value {
                config::HeaderMatch::Present => None,
                config::HeaderMatch::Value(value) => Some(StringMatcher::resolve(value)),
            },
            invert: declared.invert,
            treat_missing_as_empty: declared.treat_missing_as_empty,
        }
    }

    /// A header that is there several times meets a condition when one of its values does (Envoy's
    /// `match_headers_individually`).
    fn matches(&self, head: &RequestHead) -> bool {
        match &self.name {
            config::MatchedHeader::Method => self.holds(std::iter::once(head.method.as_str().as_bytes())),
            config::MatchedHeader::Authority => self.holds(head.authority.iter().map(HeaderValue::as_bytes)),
            config::MatchedHeader::Scheme => self.holds(std::iter::once(scheme(head))),
            config::MatchedHeader::Header(name) => {
                self.holds(head.headers.get_all(name).iter().map(HeaderValue::as_bytes))
            }
        }
    }

    fn holds<'a>(&self, values: impl Iterator<Item = &'a [u8]>) -> bool {
        let mut values = values.peekable();
        let missing = values.peek().is_none();
        match &self.value {
            None => missing == self.invert,
            Some(matcher) if missing && self.treat_missing_as_empty => matcher.matches(b"") != self.invert,
            // A header that is missing never matches, whatever `invert` says.
            Some(_) if missing => false,
            Some(matcher) => values.any(|value| matcher.matches(value)) != self.invert,
        }
    }
}

/// The scheme as Envoy tells it: what the request says, or else x-forwarded-proto, which is set before routing.
pub(crate) fn scheme(head: &RequestHead) -> &[u8] {
    match &head.scheme {
        Some(scheme) => scheme.as_str().as_bytes(),
        None => head.headers.get("x-forwarded-proto").map_or(b"http", HeaderValue::as_bytes),
    }
}
