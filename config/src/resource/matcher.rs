//! What a request must look like: Envoy's `RouteMatch` and its parts.

use std::sync::Arc;

use http::HeaderName;

/// How a string is compared. Envoy: `type.matcher.v3.StringMatcher`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringMatch {
    /// The whole string.
    Exact(Arc<str>),
    /// Its beginning.
    Prefix(Arc<str>),
    /// The whole string, by a regular expression in RE2 syntax.
    SafeRegex(Arc<str>),
}

/// What a path must be. The query does not take part. Envoy: `RouteMatch.path_specifier`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// Begins with this.
    Prefix(Arc<str>),
    /// Is this.
    Path(Arc<str>),
    /// Is matched as a whole by this regular expression in RE2 syntax.
    SafeRegex(Arc<str>),
}

/// What one header must be. Envoy: `config.route.v3.HeaderMatcher`.
///
/// A header that is not there does not match, whatever `invert` says, except for [`HeaderMatch::Present`] or when
/// `treat_missing_as_empty` is set. Several values of one header are compared joined by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatcher {
    /// Which header.
    pub name: MatchedHeader,
    /// What its value must be.
    pub value: HeaderMatch,
    /// The outcome is turned around.
    pub invert: bool,
    /// A missing header is compared as an empty string.
    pub treat_missing_as_empty: bool,
}

/// A header, or a part of the request line that Envoy addresses as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MatchedHeader {
    /// `:method`.
    Method,
    /// `:authority`, also under the name `host`.
    Authority,
    /// `:scheme`, as x-forwarded-proto tells it.
    Scheme,
    /// Any other header.
    Header(HeaderName),
}

/// What a header's value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderMatch {
    /// There with this value.
    Value(StringMatch),
    /// There, whatever its value.
    Present,
}

/// What one query parameter must be; of several with the same name the first counts.
/// Envoy: `config.route.v3.QueryParameterMatcher`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryParameterMatcher {
    /// Name as it stands in the URL after percent-decoding.
    pub name: Arc<str>,
    /// What its value must be; `None` when being there is enough.
    pub value: Option<StringMatch>,
}

/// All of this must hold. Envoy: `config.route.v3.RouteMatch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// Whether [`PathMatch::Prefix`] and [`PathMatch::Path`] tell upper from lower case.
    pub case_sensitive: bool,
    /// All of these.
    pub headers: Vec<HeaderMatcher>,
    /// All of these.
    pub query_parameters: Vec<QueryParameterMatcher>,
}
