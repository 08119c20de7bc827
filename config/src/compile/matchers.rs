//! HTTPMatchRequest to route matches.

use std::sync::Arc;

use http::HeaderName;

use crate::istio;
use crate::resource::{
    HeaderMatch, HeaderMatcher, MatchedHeader, PathMatch, QueryParameterMatcher, RouteMatch, StringMatch,
};

/// Beginning of header names that stand for claims of a verified token.
const CLAIM: &str = "@request.auth.claims";

/// What a match request becomes.
#[derive(Debug, PartialEq)]
pub(super) enum Translated {
    /// This match.
    Match(RouteMatch),
    /// Nothing matches it, because it asks for a claim of a token and no tokens are verified.
    Never,
    /// It names a header that cannot exist.
    Malformed {
        /// That name.
        header: String,
    },
}

/// The match that every path meets.
pub(super) fn any_path() -> RouteMatch {
    any_path_as("/".into())
}

/// The same, where the path's text is there already.
pub(super) fn any_path_as(slash: Arc<str>) -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix(slash),
        case_sensitive: true,
        headers: Vec::new(),
        query_parameters: Vec::new(),
    }
}

/// Whether nothing after a route with this match can be reached.
pub(super) fn catches_all(matched: &RouteMatch) -> bool {
    let path = match &matched.path {
        PathMatch::Prefix(prefix) => &**prefix == "/",
        PathMatch::SafeRegex(regex) => &**regex == ".*",
        PathMatch::Path(_) => false,
    };
    path && matched.headers.is_empty() && matched.query_parameters.is_empty()
}

/// What `request` asks of path, headers and query. Headers come first, sorted by name, then method, authority and
/// scheme, as istiod writes them.
pub(super) fn translate(request: &istio::HttpMatchRequest) -> Translated {
    let mut headers: Vec<(&str, &istio::StringMatch, bool)> = Vec::new();
    headers.extend(request.headers.iter().map(|(name, value)| (name.as_str(), value, false)));
    headers.extend(request.without_headers.iter().map(|(name, value)| (name.as_str(), value, true)));
    headers.sort_by_key(|(name, ..)| *name);
    let request_line =
        [(":method", &request.method), (":authority", &request.authority), (":scheme", &request.scheme)];
    for (name, value) in request_line {
        headers.extend(value.as_ref().map(|value| (name, value, false)));
    }

    let mut matchers = Vec::with_capacity(headers.len());
    for (name, value, invert) in headers {
        if name.starts_with(CLAIM) {
            if invert {
                continue;
            }
            return Translated::Never;
        }
        match header(name, value, invert) {
            Some(matcher) => matchers.push(matcher),
            None => return Translated::Malformed { header: name.to_owned() },
        }
    }
    Translated::Match(RouteMatch {
        path: request.uri.as_ref().map_or_else(|| PathMatch::Prefix("/".into()), path),
        case_sensitive: !request.ignore_uri_case,
        headers: matchers,
        query_parameters: request
            .query_params
            .iter()
            .map(|(name, value)| QueryParameterMatcher { name: name.as_str().into(), value: string(value) })
            .collect(),
    })
}

fn path(uri: &istio::StringMatch) -> PathMatch {
    match string(uri) {
        Some(StringMatch::Exact(path)) => PathMatch::Path(path),
        Some(StringMatch::Prefix(prefix)) => PathMatch::Prefix(prefix),
        Some(StringMatch::SafeRegex(regex)) => PathMatch::SafeRegex(regex),
        None => PathMatch::Prefix("/".into()),
    }
}

fn header(name: &str, value: &istio::StringMatch, invert: bool) -> Option<HeaderMatcher> {
    let value = string(value).map_or(HeaderMatch::Present, HeaderMatch::Value);
    Some(HeaderMatcher {
        name: match name.to_ascii_lowercase().as_str() {
            ":method" => MatchedHeader::Method,
            ":authority" | "host" => MatchedHeader::Authority,
            ":scheme" => MatchedHeader::Scheme,
            other => MatchedHeader::Header(HeaderName::from_bytes(other.as_bytes()).ok()?),
        },
        // `withoutHeaders` also holds when the header is missing.
        treat_missing_as_empty: invert && value != HeaderMatch::Present,
        value,
        invert,
    })
}

/// How a string is compared; `None` when it is enough that it is there. The regular expression `*` means that too,
/// although it is not one.
fn string(value: &istio::StringMatch) -> Option<StringMatch> {
    match value {
        istio::StringMatch { exact: Some(exact), .. } => Some(StringMatch::Exact(exact.as_str().into())),
        istio::StringMatch { prefix: Some(prefix), .. } => Some(StringMatch::Prefix(prefix.as_str().into())),
        istio::StringMatch { regex: Some(regex), .. } if regex != "*" => {
            Some(StringMatch::SafeRegex(regex.as_str().into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, expected: impl FnOnce(&mut RouteMatch)) {
        let request: istio::HttpMatchRequest = crate::testing::from_yaml(yaml).unwrap();
        let mut matched = any_path();
        expected(&mut matched);
        assert_eq!(translate(&request), Translated::Match(matched), "{yaml}");
    }

    fn value(name: MatchedHeader, value: StringMatch) -> HeaderMatcher {
        HeaderMatcher { name, value: HeaderMatch::Value(value), invert: false, treat_missing_as_empty: false }
    }

    fn plain(name: &'static str) -> MatchedHeader {
        MatchedHeader::Header(HeaderName::from_static(name))
    }

    #[test]
    fn paths() {
        check("{}", |_| {});
        check("{uri: {}}", |_| {});
        check("{uri: {exact: /a}}", |it| it.path = PathMatch::Path("/a".into()));
        check("{uri: {prefix: /a}, ignoreUriCase: true}", |it| {
            it.path = PathMatch::Prefix("/a".into());
            it.case_sensitive = false;
        });
        check("{uri: {regex: /a.*}}", |it| it.path = PathMatch::SafeRegex("/a.*".into()));
    }

    #[test]
    fn headers_are_sorted_and_the_request_line_comes_last() {
        let yaml = "{method: {exact: GET}, headers: {b: {exact: '1'}, d: {}}, withoutHeaders: {a: {prefix: x}, c: {}}}";
        check(yaml, |it| {
            let present = |name| HeaderMatcher {
                name: plain(name),
                value: HeaderMatch::Present,
                invert: false,
                treat_missing_as_empty: false,
            };
            it.headers = vec![
                HeaderMatcher {
                    invert: true,
                    treat_missing_as_empty: true,
                    ..value(plain("a"), StringMatch::Prefix("x".into()))
                },
                value(plain("b"), StringMatch::Exact("1".into())),
                HeaderMatcher { invert: true, ..present("c") },
                present("d"),
                value(MatchedHeader::Method, StringMatch::Exact("GET".into())),
            ];
        });
        check("{headers: {Host: {exact: a}}}", |it| {
            it.headers = vec![value(MatchedHeader::Authority, StringMatch::Exact("a".into()))];
        });
    }

    #[test]
    fn query_parameters() {
        check("{queryParams: {a: {regex: '*'}, b: {exact: ''}}}", |it| {
            let parameter = |name: &str, value| QueryParameterMatcher { name: name.into(), value };
            it.query_parameters =
                vec![parameter("a", None), parameter("b", Some(StringMatch::Exact("".into())))];
        });
    }

    #[test]
    fn claims_and_malformed_names() {
        let check = |yaml: &str, expected| {
            let request: istio::HttpMatchRequest = crate::testing::from_yaml(yaml).unwrap();
            assert_eq!(translate(&request), expected, "{yaml}");
        };
        check("{headers: {'@request.auth.claims.group': {exact: a}}}", Translated::Never);
        check("{withoutHeaders: {'@request.auth.claims[group]': {exact: a}}}", Translated::Match(any_path()));
        check("{headers: {'a b': {exact: a}}}", Translated::Malformed { header: "a b".into() });
    }

    #[test]
    fn what_catches_all() {
        let check = |yaml: &str, expected| {
            let request: istio::HttpMatchRequest = crate::testing::from_yaml(yaml).unwrap();
            let Translated::Match(matched) = translate(&request) else { panic!("{yaml}") };
            assert_eq!(catches_all(&matched), expected, "{yaml}");
        };
        check("{}", true);
        check("{uri: {regex: '.*'}}", true);
        check("{uri: {prefix: /a}}", false);
        check("{uri: {exact: /}}", false);
        check("{headers: {a: {}}}", false);
        check("{queryParams: {a: {}}}", false);
    }
}
