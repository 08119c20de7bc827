//! Which rule a request goes by.

use std::sync::Arc;

use config::{
    DirectResponse, HeaderMatch, HeaderMatcher, MatchedHeader, PathMatch, QueryParameterMatcher, Route,
    RouteAction, RouteConfiguration, RouteMatch, StringMatch, VirtualHost,
};
use http::{HeaderName, HeaderValue, StatusCode};
use weft::fuzz::{Request, Routes};

/// Rules of one input.
const LINES_MAX: usize = 64;

/// An input is a table of routes, an empty line and a request. Each line of the table begins with a letter and says more of
/// what is above it: `v` a virtual host and its domains, `p`, `e` and `r` a rule for a path (prefix, exact, regular
/// expression; a capital ignores case), `h` a header (name, value; `!` before it inverts, `?` takes it for empty where it is
/// missing; without value it must be there), `q` a query parameter.
///
/// The table is to find what a search from top to bottom finds, and case or port of the host make no difference.
pub fn route(bytes: &[u8]) {
    let end = bytes.windows(2).position(|two| two == b"\n\n");
    let Some((table, request)) = end.and_then(|end| bytes.split_at_checked(end)) else { return };
    let Ok(table) = std::str::from_utf8(table) else { return };
    let Some((request, _)) = Request::admitted(request.get(2..).unwrap_or_default()) else { return };
    let declared = parse(table);
    let routes = Routes::new(declared.clone());
    let found = routes.route(&request);
    assert_eq!(found, search(&declared, &request));

    let authority = request.authority().unwrap_or_default();
    if let Some(shouted) = request.with_authority(&authority.to_ascii_uppercase()) {
        let asks_for_it =
            declared.virtual_hosts.iter().flat_map(|host| &host.routes).any(|route| {
                route.matches.headers.iter().any(|header| header.name == MatchedHeader::Authority)
            });
        assert!(asks_for_it || routes.route(&shouted) == found, "case matters");
    }
}

fn parse(table: &str) -> RouteConfiguration {
    let mut hosts: Vec<VirtualHost> = Vec::new();
    for line in table.lines().take(LINES_MAX) {
        let Some((kind, text)) = line.split_at_checked(1) else { continue };
        if kind == "v" {
            hosts.push(VirtualHost {
                name: text.into(),
                domains: text.split_ascii_whitespace().map(|domain| domain.to_lowercase().into()).collect(),
                routes: Vec::new(),
                include_request_attempt_count: false,
            });
            continue;
        }
        let Some(host) = hosts.last_mut() else { continue };
        let path = match kind {
            "p" | "P" => PathMatch::Prefix(text.into()),
            "e" | "E" => PathMatch::Path(text.into()),
            "r" if config::pattern::full_match(text).is_ok() => PathMatch::SafeRegex(text.into()),
            _ => {
                if let Some(route) = host.routes.last_mut() {
                    condition(&mut route.matches, kind, text);
                }
                continue;
            }
        };
        let case_sensitive = kind.chars().all(char::is_lowercase);
        let matches = RouteMatch { path, case_sensitive, headers: Vec::new(), query_parameters: Vec::new() };
        host.routes.push(rule(matches));
    }
    RouteConfiguration {
        name: "fuzz".into(),
        virtual_hosts: hosts.into_iter().map(Arc::new).collect(),
        ignore_port_in_host_matching: true,
    }
}

fn rule(matches: RouteMatch) -> Route {
    let action =
        RouteAction::DirectResponse(DirectResponse { status: StatusCode::OK, body: [].into(), limit: None });
    let (headers, operation) = (None, "".into());
    Route { name: "".into(), matches, action, headers, operation, origin: None, delegation: None }
}

/// Adds a condition to a rule, if it is one.
fn condition(matches: &mut RouteMatch, kind: &str, text: &str) {
    let (name, value) = text.split_once(' ').map_or((text, None), |(name, value)| (name, Some(value)));
    match kind {
        "h" => {
            let flags = name.len() - name.trim_start_matches(['!', '?']).len();
            let (flags, name) = name.split_at(flags);
            let name = match name {
                ":method" => MatchedHeader::Method,
                ":authority" => MatchedHeader::Authority,
                ":scheme" => MatchedHeader::Scheme,
                _ => match HeaderName::try_from(name) {
                    Ok(name) => MatchedHeader::Header(name),
                    Err(_) => return,
                },
            };
            let value = value.map_or(HeaderMatch::Present, |value| HeaderMatch::Value(string(value)));
            let (invert, treat_missing_as_empty) = (flags.contains('!'), flags.contains('?'));
            matches.headers.push(HeaderMatcher { name, value, invert, treat_missing_as_empty });
        }
        "q" => matches
            .query_parameters
            .push(QueryParameterMatcher { name: name.into(), value: value.map(string) }),
        _ => {}
    }
}

/// `^TEXT` is a prefix, `~TEXT` a regular expression, if it is one; all else is exact.
fn string(text: &str) -> StringMatch {
    match (text.strip_prefix('^'), text.strip_prefix('~')) {
        (Some(prefix), _) => StringMatch::Prefix(prefix.into()),
        (_, Some(pattern)) if config::pattern::full_match(pattern).is_ok() => {
            StringMatch::SafeRegex(pattern.into())
        }
        _ => StringMatch::Exact(text.into()),
    }
}

/// The rule that a request goes by, found by looking at everything.
fn search(declared: &RouteConfiguration, request: &Request) -> Option<(usize, usize)> {
    let authority = request.authority().unwrap_or_default();
    let host = String::from_utf8_lossy(authority).to_ascii_lowercase();
    let has_port = host.rfind(':').filter(|colon| host.rfind(']').is_none_or(|end| end < *colon));
    let host = has_port.map_or(&*host, |colon| &host[..colon]);
    let mut best: Option<(usize, usize)> = None;
    for (index, virtual_host) in declared.virtual_hosts.iter().enumerate() {
        for domain in &virtual_host.domains {
            let rank = match domain.strip_prefix('*') {
                Some("") => 1,
                _ if host.len() > HOST_BYTES_MAX => continue,
                None if **domain == *host => usize::MAX,
                Some(suffix) if host.len() > suffix.len() && host.ends_with(suffix) => 1 + suffix.len(),
                _ => continue,
            };
            if best.is_none_or(|(known, _)| rank > known) {
                best = Some((rank, index));
            }
        }
    }
    let (_, index) = best?;
    let routes = &declared.virtual_hosts.get(index)?.routes;
    Some((index, routes.iter().position(|route| applies(&route.matches, request))?))
}

/// Longest host that a table looks up.
const HOST_BYTES_MAX: usize = 256;

fn applies(matches: &RouteMatch, request: &Request) -> bool {
    let Some(whole) = request.path() else { return false };
    let path = whole.path();
    let fold = |text: &str| {
        if matches.case_sensitive { text.to_owned() } else { text.to_ascii_lowercase() }
    };
    let path_matches = match &matches.path {
        PathMatch::Prefix(prefix) => fold(path).starts_with(&fold(prefix)),
        PathMatch::Path(exact) => fold(path) == fold(exact),
        PathMatch::SafeRegex(pattern) => is(&StringMatch::SafeRegex(pattern.clone()), path.as_bytes()),
    };
    let mut parameters = matches.query_parameters.iter().map(|wanted| {
        let pairs = whole.query().unwrap_or("").split('&');
        let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let value = pairs.find(|(name, _)| *name == &*wanted.name).map(|(_, value)| value);
        value.is_some_and(|value| wanted.value.as_ref().is_none_or(|wanted| is(wanted, value.as_bytes())))
    });
    path_matches
        && matches.headers.iter().all(|header| header_matches(header, request))
        && parameters.all(|holds| holds)
}

fn header_matches(wanted: &HeaderMatcher, request: &Request) -> bool {
    let values: Vec<&[u8]> = match &wanted.name {
        MatchedHeader::Method => vec![request.method().as_str().as_bytes()],
        MatchedHeader::Authority => request.authority().into_iter().collect(),
        MatchedHeader::Scheme => vec![request.scheme()],
        MatchedHeader::Header(name) => {
            request.headers().get_all(name).iter().map(HeaderValue::as_bytes).collect()
        }
    };
    match &wanted.value {
        HeaderMatch::Present => values.is_empty() == wanted.invert,
        HeaderMatch::Value(_) if values.is_empty() && !wanted.treat_missing_as_empty => false,
        HeaderMatch::Value(value) if values.is_empty() => is(value, b"") != wanted.invert,
        HeaderMatch::Value(value) => values.iter().any(|found| is(value, found)) != wanted.invert,
    }
}

fn is(wanted: &StringMatch, value: &[u8]) -> bool {
    match wanted {
        StringMatch::Exact(text) => value == text.as_bytes(),
        StringMatch::Prefix(text) => value.starts_with(text.as_bytes()),
        StringMatch::SafeRegex(pattern) => {
            config::pattern::full_match(pattern).is_ok_and(|pattern| pattern.is_match(value))
        }
    }
}
