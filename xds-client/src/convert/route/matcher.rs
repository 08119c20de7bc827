//! `config.route.v3.RouteMatch`: what a request must look like.

use config::{
    HeaderMatch, HeaderMatcher, MatchedHeader, PathMatch, QueryParameterMatcher, RouteMatch, StringMatch,
};
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;

use matcher::string_matcher::MatchPattern;
use pb::header_matcher::HeaderMatchSpecifier;
use pb::query_parameter_matcher::QueryParameterMatchSpecifier;
use pb::route_match::PathSpecifier;

use crate::convert::Refused;
use crate::convert::at::At;
use crate::convert::table::{Choice, Message, Told, open, variants};
use crate::convert::values::{header_name, needed, regex, text};

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        pb::RouteMatch::MESSAGE,
        PathSpecifier::MESSAGE,
        pb::HeaderMatcher::MESSAGE,
        HeaderMatchSpecifier::MESSAGE,
        pb::QueryParameterMatcher::MESSAGE,
        QueryParameterMatchSpecifier::MESSAGE,
        matcher::StringMatcher::MESSAGE,
        MatchPattern::MESSAGE,
        matcher::RegexMatcher::MESSAGE,
    ]
}

variants!(PathSpecifier as "envoy.config.route.v3.RouteMatch.path_specifier" {
    honoured: Prefix, Path, SafeRegex;
    refused: ConnectMatcher, PathSeparatedPrefix, PathMatchPolicy;
});

variants!(HeaderMatchSpecifier as "envoy.config.route.v3.HeaderMatcher.header_match_specifier" {
    honoured: ExactMatch, SafeRegexMatch, PresentMatch, PrefixMatch, StringMatch;
    refused: RangeMatch, SuffixMatch, ContainsMatch;
});

variants!(QueryParameterMatchSpecifier
    as "envoy.config.route.v3.QueryParameterMatcher.query_parameter_match_specifier" {
    honoured: StringMatch, PresentMatch;
});

variants!(MatchPattern as "envoy.type.matcher.v3.StringMatcher.match_pattern" {
    honoured: Exact, Prefix, SafeRegex;
    refused: Suffix, Contains, Custom;
});

pub(super) fn route_match(told: pb::RouteMatch, at: &At<'_>) -> Result<RouteMatch, Refused> {
    open!(told, at, pb::RouteMatch as "envoy.config.route.v3.RouteMatch" {
        honoured: case_sensitive, headers, query_parameters, path_specifier;
        refused: runtime_fraction, cookies, grpc, tls_context, dynamic_metadata, filter_state;
    });
    let path = match needed(path_specifier, at)?.choose(at)? {
        PathSpecifier::Prefix(told) => PathMatch::Prefix(told.into()),
        PathSpecifier::Path(told) => PathMatch::Path(told.into()),
        PathSpecifier::SafeRegex(told) => PathMatch::SafeRegex(regex(told, &at.field("safe_regex"))?),
        _ => return Err(at.not_honoured()),
    };
    let headers = headers.into_iter().enumerate();
    let headers = headers.map(|(index, told)| header(told, &at.index("headers", index)));
    let parameters = query_parameters.into_iter().enumerate();
    let parameters = parameters.map(|(index, told)| parameter(told, &at.index("query_parameters", index)));
    Ok(RouteMatch {
        path,
        case_sensitive: case_sensitive.is_none_or(|told| told.value),
        headers: headers.collect::<Result<_, Refused>>()?,
        query_parameters: parameters.collect::<Result<_, Refused>>()?,
    })
}

fn header(told: pb::HeaderMatcher, at: &At<'_>) -> Result<HeaderMatcher, Refused> {
    open!(told, at, pb::HeaderMatcher as "envoy.config.route.v3.HeaderMatcher" {
        honoured: name, invert_match, treat_missing_header_as_empty, header_match_specifier;
    });
    let matched = match name.to_ascii_lowercase().as_str() {
        ":method" => MatchedHeader::Method,
        ":authority" | "host" => MatchedHeader::Authority,
        ":scheme" => MatchedHeader::Scheme,
        name => MatchedHeader::Header(header_name(name, &at.field("name"))?),
    };
    let mut invert = invert_match;
    let value = match header_match_specifier.map(|told| told.choose(at)).transpose()? {
        None => HeaderMatch::Present,
        Some(HeaderMatchSpecifier::PresentMatch(present)) => {
            // To be absent is the contrary of being present.
            invert ^= !present;
            HeaderMatch::Present
        }
        Some(HeaderMatchSpecifier::StringMatch(told)) => {
            HeaderMatch::Value(string(told, &at.field("string_match"))?)
        }
        Some(HeaderMatchSpecifier::ExactMatch(told)) => HeaderMatch::Value(StringMatch::Exact(told.into())),
        Some(HeaderMatchSpecifier::PrefixMatch(told)) => HeaderMatch::Value(StringMatch::Prefix(told.into())),
        Some(HeaderMatchSpecifier::SafeRegexMatch(told)) => {
            HeaderMatch::Value(StringMatch::SafeRegex(regex(told, &at.field("safe_regex_match"))?))
        }
        Some(_) => return Err(at.not_honoured()),
    };
    Ok(HeaderMatcher { name: matched, value, invert, treat_missing_as_empty: treat_missing_header_as_empty })
}

fn parameter(told: pb::QueryParameterMatcher, at: &At<'_>) -> Result<QueryParameterMatcher, Refused> {
    open!(told, at, pb::QueryParameterMatcher as "envoy.config.route.v3.QueryParameterMatcher" {
        honoured: name, query_parameter_match_specifier;
    });
    let value = match query_parameter_match_specifier.map(|told| told.choose(at)).transpose()? {
        None | Some(QueryParameterMatchSpecifier::PresentMatch(true)) => None,
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
            return Err(at.field("present_match").refuse("weft knows no parameter that must be absent"));
        }
        Some(QueryParameterMatchSpecifier::StringMatch(told)) => {
            Some(string(told, &at.field("string_match"))?)
        }
    };
    Ok(QueryParameterMatcher { name: text(name, &at.field("name"))?, value })
}

/// How a string is compared.
pub(in crate::convert) fn string(told: matcher::StringMatcher, at: &At<'_>) -> Result<StringMatch, Refused> {
    open!(told, at, matcher::StringMatcher as "envoy.type.matcher.v3.StringMatcher" {
        honoured: match_pattern;
        refused: ignore_case;
    });
    match needed(match_pattern, at)?.choose(at)? {
        MatchPattern::Exact(told) => Ok(StringMatch::Exact(told.into())),
        MatchPattern::Prefix(told) => Ok(StringMatch::Prefix(told.into())),
        MatchPattern::SafeRegex(told) => Ok(StringMatch::SafeRegex(regex(told, &at.field("safe_regex"))?)),
        _ => Err(at.not_honoured()),
    }
}
