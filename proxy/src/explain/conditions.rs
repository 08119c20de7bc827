//! Conditions of rules in words: what was wanted, and what the request has instead.

use config::{HeaderMatch, HeaderMatcher, MatchedHeader, PathMatch, RouteMatch, StringMatch};
use http::HeaderValue;

use crate::http::codec::RequestHead;
use crate::snapshot::{Mismatch, scheme};

/// Why a rule does not apply.
pub(super) fn mismatch(why: Mismatch, wanted: &RouteMatch, head: &RequestHead) -> String {
    match why {
        Mismatch::Connect => "it does not take CONNECT".to_owned(),
        Mismatch::Path => {
            let path = head.path.as_ref().map_or("", |path| path.path());
            let (verb, text) = match &wanted.path {
                PathMatch::Prefix(text) => ("does not begin with", text),
                PathMatch::Path(text) => ("is not", text),
                PathMatch::SafeRegex(text) => ("does not match the regular expression", text),
            };
            format!("path `{path}` {verb} `{text}`")
        }
        Mismatch::Header(index) => {
            wanted.headers.get(index).map_or_else(String::new, |matcher| header(matcher, head))
        }
        Mismatch::QueryParameter(index) => {
            let Some(parameter) = wanted.query_parameters.get(index) else { return String::new() };
            let query = head.path.as_ref().and_then(|path| path.query()).unwrap_or("");
            let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let has = pairs.into_iter().find(|(name, _)| **name == *parameter.name);
            let name = &parameter.name;
            match (has, &parameter.value) {
                (Some((_, value)), Some(wanted)) => {
                    format!("query parameter `{name}` is `{value}`, not {}", string(wanted))
                }
                _ => format!("it has no query parameter `{name}`"),
            }
        }
    }
}

/// Whether a condition is on a header; the scheme may be told by one.
pub(super) fn is_of_header(matcher: &HeaderMatcher) -> bool {
    matches!(matcher.name, MatchedHeader::Scheme | MatchedHeader::Header(_))
}

/// Why a rule does not apply to a recorded request, of which no headers are known, and of a long path only the beginning: by
/// what is asked first that is not known, or something behind that.
pub(super) fn of_unknown(wanted: &RouteMatch, path_is_cut: bool) -> String {
    let mut named: Vec<String> = path_is_cut.then(|| "the path".to_owned()).into_iter().collect();
    let known = wanted.headers.iter().take_while(|matcher| !path_is_cut && !is_of_header(matcher)).count();
    named.extend(wanted.headers.iter().skip(known).map(|matcher| match &matcher.name {
        MatchedHeader::Header(name) => format!("header `{name}`"),
        MatchedHeader::Scheme => "the scheme".to_owned(),
        MatchedHeader::Method => "the method".to_owned(),
        MatchedHeader::Authority => "the authority".to_owned(),
    }));
    named.extend(wanted.query_parameters.iter().map(|it| format!("query parameter `{}`", it.name)));
    let long = if path_is_cut { ", nor is all of a path as long" } else { "" };
    format!("what it asks of {} does not hold; headers are not recorded{long}", named.join(" or "))
}

fn header(matcher: &HeaderMatcher, head: &RequestHead) -> String {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let field = |value: &HeaderValue| text(value.as_bytes());
    let (name, values): (&str, Vec<String>) = match &matcher.name {
        MatchedHeader::Method => ("method", vec![head.method.to_string()]),
        MatchedHeader::Authority => ("authority", head.authority.iter().map(field).collect()),
        MatchedHeader::Scheme => ("scheme", vec![text(scheme(head))]),
        MatchedHeader::Header(name) => {
            (name.as_str(), head.headers.get_all(name).iter().map(field).collect())
        }
    };
    let what = match &matcher.name {
        MatchedHeader::Header(_) => format!("header `{name}`"),
        _ => format!("the {name}"),
    };
    match (&matcher.value, values.as_slice()) {
        (HeaderMatch::Present, []) => format!("it has no {what}"),
        (HeaderMatch::Present, _) => format!("it has {what}, which must not be there"),
        (HeaderMatch::Value(wanted), []) if matcher.invert => {
            format!("it has no {what}, which counts as empty, and it must not be {}", string(wanted))
        }
        (HeaderMatch::Value(wanted), []) => format!("it has no {what}, which must be {}", string(wanted)),
        (HeaderMatch::Value(wanted), values) => {
            let not = if matcher.invert { "which it must not be:" } else { "not" };
            format!("{what} is `{}`, {not} {}", values.join("`, `"), string(wanted))
        }
    }
}

/// What a text must be.
fn string(wanted: &StringMatch) -> String {
    match wanted {
        StringMatch::Exact(text) => format!("`{text}`"),
        StringMatch::Prefix(text) => format!("something that begins with `{text}`"),
        StringMatch::SafeRegex(text) => format!("something that matches `{text}`"),
    }
}

/// What a rule asks for, in short.
pub(super) fn wanted(matches: &RouteMatch) -> String {
    let mut parts = Vec::new();
    match &matches.path {
        PathMatch::Prefix(text) if &**text == "/" => {}
        PathMatch::Prefix(text) => parts.push(format!("path begins with `{text}`")),
        PathMatch::Path(text) => parts.push(format!("path is `{text}`")),
        PathMatch::SafeRegex(text) => parts.push(format!("path matches `{text}`")),
    }
    for matcher in &matches.headers {
        let name = match &matcher.name {
            MatchedHeader::Method => "method".to_owned(),
            MatchedHeader::Authority => "authority".to_owned(),
            MatchedHeader::Scheme => "scheme".to_owned(),
            MatchedHeader::Header(name) => format!("header `{name}`"),
        };
        let not = if matcher.invert { "not " } else { "" };
        parts.push(match &matcher.value {
            HeaderMatch::Present => format!("{name} is {not}there"),
            HeaderMatch::Value(wanted) => format!("{name} is {not}{}", string(wanted)),
        });
    }
    for parameter in &matches.query_parameters {
        let name = &parameter.name;
        parts.push(match &parameter.value {
            Some(wanted) => format!("query parameter `{name}` is {}", string(wanted)),
            None => format!("query parameter `{name}` is there"),
        });
    }
    if parts.is_empty() { "takes everything".to_owned() } else { parts.join(", ") }
}
