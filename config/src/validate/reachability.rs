//! HTTP rules that can never match, because rules before them take all that they would.
//!
//! One match covers another when everything it asks for is asked for by the other too: only what is certain is
//! warned of. A match that no request can meet is told by itself. Of a delegate each rule may be left out where another
//! delegates to it, unless it matches all.

use std::collections::BTreeMap;

use super::check::Check;
use super::conditions::Conditions;
use super::names::JWT_CLAIM;
use super::virtual_service::MESH_GATEWAY;
use crate::compile::gateway_name;
use crate::finding::code;
use crate::istio::{HttpMatchRequest, HttpRoute, StringMatch, VirtualService};

/// Matches of one object that those after them are compared with.
const MATCHES_COMPARED_MAX: usize = 2_000;
/// Comparisons of two matches of one object; matches that would take more are taken to be reachable. 2,000 matches that
/// are all compared with each other take fewer.
const COMPARISONS_MAX: usize = 2_000_000;

/// Warns of matches and rules that have no effect.
pub(crate) fn check(check: &mut Check<'_>, spec: &VirtualService) {
    look(check, spec, &[]);
}

/// The same of what is behind rules whose delegates take all that they do; they are told by index.
pub(crate) fn check_behind(check: &mut Check<'_>, spec: &VirtualService, delegating: &[usize]) {
    if !delegating.is_empty() {
        look(check, spec, delegating);
    }
}

/// Where rules delegate, only what is behind them is told.
fn look(check: &mut Check<'_>, spec: &VirtualService, delegating: &[usize]) {
    let (routes, of_delegate) = (&spec.http, spec.hosts.is_empty());
    let namespace = check.namespace();
    // What earlier rules take, and which rule it is. A rule that delegates takes only what its delegate does.
    let mut taken: Vec<(usize, bool, &HttpMatchRequest)> = Vec::new();
    let mut room = COMPARISONS_MAX;
    let everything = [HttpMatchRequest::default()];
    for (index, route) in routes.iter().enumerate() {
        let matches = if route.matches.is_empty() { everything.as_slice() } else { &route.matches };
        let never: Vec<_> = matches.iter().map(|wanted| impossible(wanted, spec, namespace)).collect();
        let path = format!("spec.http[{index}]");
        if delegating.is_empty() {
            tell_impossible(check, &path, &never);
        }
        let mut covering: Vec<_> = matches
            .iter()
            .zip(&never)
            .map(|(wanted, never)| {
                if never.is_some() {
                    return None;
                }
                // One that a delegate takes too is told of without it.
                let among = |delegated: bool| {
                    let mut taken = taken.iter().take(room);
                    taken.position(|(_, by, earlier)| *by == delegated && covers(earlier, wanted))
                };
                let found = among(false).or_else(|| among(true));
                room = room.saturating_sub(found.map_or(taken.len(), |at| at + 1));
                found.and_then(|at| taken.get(at)).map(|(by, ..)| *by)
            })
            .collect();
        let name = |by| name(routes, by);
        let by_delegate = |by: &Option<usize>| by.is_some_and(|by| delegating.binary_search(&by).is_ok());
        let are_taken = covering.iter().all(Option::is_some) && covering.iter().any(by_delegate);
        if !delegating.is_empty() && !are_taken {
            covering.iter_mut().filter(|by| !by_delegate(by)).for_each(|by| *by = None);
        }
        tell_taken(check, "http", index, &covering, Taken { name: &name, of: "requests" });
        let may_be_left_out = of_delegate && !route.matches.is_empty();
        let delegates = route.delegate.is_some();
        let takes = !delegates || by_delegate(&Some(index));
        if takes && !may_be_left_out && taken.len() < MATCHES_COMPARED_MAX {
            let possible = matches.iter().zip(&never).filter(|(_, never)| never.is_none());
            taken.extend(possible.map(|(wanted, _)| (index, delegates, wanted)));
        }
    }
}

/// How to tell of what rules before another take.
pub(crate) struct Taken<'t> {
    /// What the rule of an index is called.
    pub(crate) name: &'t dyn Fn(usize) -> String,
    /// What they take.
    pub(crate) of: &'static str,
}

/// Warns of a rule, by the index of the rule before it that takes all that each of its matches would.
pub(crate) fn tell_taken(
    check: &mut Check<'_>,
    kind: &str,
    index: usize,
    by: &[Option<usize>],
    Taken { name, of }: Taken<'_>,
) {
    let path = || format!("spec.{kind}[{index}]");
    if let [Some(first), ..] = by
        && by.iter().all(Option::is_some)
    {
        let what = format!("the rule never matches: {} before it takes all its {of}", name(*first));
        check.warning(code::UNREACHABLE_RULE, &path(), what, "move it up, or remove it");
        return;
    }
    for (number, by) in by.iter().enumerate() {
        let Some(by) = by else { continue };
        let what = format!("the match has no effect: {} before it takes its {of}", name(*by));
        let path = format!("{}.match[{number}]", path());
        check.warning(code::INEFFECTIVE_MATCH, &path, what, "remove it");
    }
}

/// Warns of the matches of a rule that say why they can never hold.
pub(crate) fn tell_impossible(check: &mut Check<'_>, path: &str, never: &[Option<Impossible>]) {
    let all = never.iter().all(Option::is_some);
    for (number, why) in never.iter().enumerate() {
        let Some(Impossible { field, what, remedy }) = why else { continue };
        let path = format!("{path}.match[{number}].{field}");
        match all {
            true => check.warning(
                code::UNREACHABLE_RULE,
                &path,
                format!("the rule never matches: {what}"),
                *remedy,
            ),
            false => {
                check.warning(
                    code::INEFFECTIVE_MATCH,
                    &path,
                    format!("the match never holds: {what}"),
                    *remedy,
                );
            }
        }
    }
}

/// Why no request can meet a match.
pub(crate) struct Impossible {
    /// The field of the match.
    pub(crate) field: String,
    /// What is so.
    pub(crate) what: String,
    /// What to do.
    pub(crate) remedy: &'static str,
}

/// Why no request can meet a match of an object in `namespace`.
fn impossible(wanted: &HttpMatchRequest, spec: &VirtualService, namespace: &str) -> Option<Impossible> {
    let elsewhere = at_other_gateways(&wanted.gateways, spec, namespace);
    if elsewhere.is_some() {
        return elsewhere;
    }
    if let Some(uri) = &wanted.uri {
        // The target of OPTIONS may be `*`; all other paths are absolute.
        let begins = |text: &str| text.starts_with('/') || "*".starts_with(text);
        for (field, text) in [("exact", &uri.exact), ("prefix", &uri.prefix)] {
            let Some(text) = text.as_deref().filter(|text| !begins(text)) else { continue };
            return Some(Impossible {
                field: format!("uri.{field}"),
                what: format!("paths begin with `/`, and `{text}` does not"),
                remedy: "write `/` before it",
            });
        }
        for (field, text) in [("exact", &uri.exact), ("prefix", &uri.prefix)] {
            let Some(text) = text.as_deref().filter(|text| text.contains(['?', '#'])) else { continue };
            return Some(Impossible {
                field: format!("uri.{field}"),
                what: format!("`{text}` has a `?` or `#`, and what is compared is the path without query"),
                remedy: "write the path alone, and match the query by `queryParams`",
            });
        }
    }
    // A header that is not there is as an empty one, which such an expression takes. Claims are not looked at.
    let everything =
        |(name, without): &(&String, &StringMatch)| is_anything(without) && !name.starts_with(JWT_CLAIM);
    if let Some((name, _)) = wanted.without_headers.iter().find(everything) {
        return Some(Impossible {
            field: format!("withoutHeaders[{name}]"),
            what: format!(
                "it forbids each value of `{name}`, and a header that is not there counts as empty"
            ),
            remedy: "write `{}` if the header is not to be there",
        });
    }
    let both = wanted.headers.iter().find(|(name, value)| {
        any_header(&wanted.without_headers, name, |without| covers_string(without, value))
    });
    both.map(|(name, _)| Impossible {
        field: format!("withoutHeaders[{name}]"),
        what: format!("`headers` asks of `{name}` what `withoutHeaders` forbids"),
        remedy: "remove one of the two",
    })
}

/// Warns of matches of TLS and TCP rules for gateways that the object is not for.
pub(crate) fn check_layer4_gateways(check: &mut Check<'_>, spec: &VirtualService) {
    let namespace = check.namespace();
    let elsewhere = |gateways: &Vec<String>| at_other_gateways(gateways, spec, namespace);
    for (index, rule) in spec.tls.iter().enumerate() {
        let never: Vec<_> = rule.matches.iter().map(|wanted| elsewhere(&wanted.gateways)).collect();
        tell_impossible(check, &format!("spec.tls[{index}]"), &never);
    }
    for (index, rule) in spec.tcp.iter().enumerate() {
        let never: Vec<_> = rule.matches.iter().map(|wanted| elsewhere(&wanted.gateways)).collect();
        tell_impossible(check, &format!("spec.tcp[{index}]"), &never);
    }
}

/// That a match is for gateways that its object is not for.
fn at_other_gateways(wanted: &[String], spec: &VirtualService, namespace: &str) -> Option<Impossible> {
    // A delegate has no gateways of its own.
    let is_elsewhere = !spec.hosts.is_empty() && !is_for_one_of(wanted, &spec.gateways, namespace);
    is_elsewhere.then(|| Impossible {
        field: "gateways".to_owned(),
        what: "the object is for none of these gateways".to_owned(),
        remedy: "name them under `spec.gateways` too",
    })
}

/// Whether one of the gateways of a match is one that its object is for.
fn is_for_one_of(wanted: &[String], gateways: &[String], namespace: &str) -> bool {
    let mesh = [MESH_GATEWAY.to_owned()];
    let gateways = if gateways.is_empty() { mesh.as_slice() } else { gateways };
    let is_own = |name: &String| {
        let name = gateway_name(name, namespace);
        gateways.iter().any(|own| gateway_name(own, namespace) == name)
    };
    wanted.is_empty() || wanted.iter().any(is_own)
}

fn name(routes: &[HttpRoute], index: usize) -> String {
    match routes.get(index).and_then(|route| route.name.as_deref()) {
        Some(name) => format!("rule `{name}`"),
        None => format!("http[{index}]"),
    }
}

/// Whether every request that `later` wants is one that `earlier` wants too.
fn covers(earlier: &HttpMatchRequest, later: &HttpMatchRequest) -> bool {
    type Strings = BTreeMap<String, StringMatch>;
    let same = |a: &Option<StringMatch>, b: &Option<StringMatch>| match (a, b) {
        (None, _) => true,
        (Some(a), _) if is_anything(a) => true,
        (Some(a), Some(b)) => covers_string(a, b),
        (Some(_), None) => false,
    };
    let each = |wanted: &Strings, of: &Strings, covers: fn(&StringMatch, &StringMatch) -> bool| {
        wanted.iter().all(|(name, wanted)| any_header(of, name, |of| covers(wanted, of)))
    };
    let parameters = &later.query_params;
    same(&earlier.scheme, &later.scheme)
        && same(&earlier.method, &later.method)
        && same(&earlier.authority, &later.authority)
        && each(&earlier.headers, &later.headers, covers_string)
        // What forbids less wants more.
        && each(&earlier.without_headers, &later.without_headers, |less, more| forbids(more, less))
        && earlier.query_params.iter().all(|(name, wanted)| {
            parameters.get(name).is_some_and(|of| covers_string(wanted, of))
        })
        && Conditions::of_http(earlier).cover_anywhere(&Conditions::of_http(later))
        && covers_uri(earlier, later)
}

/// Whether a condition on this header is one that is looked for: case does not matter in its name.
fn any_header(of: &BTreeMap<String, StringMatch>, name: &str, is_it: impl Fn(&StringMatch) -> bool) -> bool {
    of.get(name).is_some_and(&is_it)
        || of.iter().any(|(other, of)| other.eq_ignore_ascii_case(name) && is_it(of))
}

/// Whether each value of what every request has meets this: a method, a scheme, an authority, a path.
fn is_anything(wanted: &StringMatch) -> bool {
    let Some(regex) = wanted.regex.as_deref() else { return false };
    // A match is one of the whole value, with anchors or without.
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    matches!(regex.strip_suffix('$').unwrap_or(regex), ".*" | ".*?" | "(.*)")
}

/// The same of a path, which begins with `/`.
fn is_any_path(wanted: &StringMatch) -> bool {
    let Some(regex) = wanted.regex.as_deref() else {
        return wanted.prefix.as_deref().is_some_and(|prefix| prefix == "/" || prefix.is_empty());
    };
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    is_anything(wanted)
        || matches!(
            regex.strip_suffix('$').unwrap_or(regex),
            "/.*" | "/.*?" | "/(.*)" | "(/.*)" | ".+" | "(.+)"
        )
}

/// What is asked of a value, as it is compiled: what is empty is asked for all the same.
#[derive(PartialEq)]
enum Asked<'a> {
    /// Only that there is one.
    Present,
    Exact(&'a str),
    Prefix(&'a str),
    Regex(&'a str),
}

impl Asked<'_> {
    fn of(wanted: &StringMatch) -> Asked<'_> {
        match wanted {
            StringMatch { exact: Some(exact), .. } => Asked::Exact(exact),
            StringMatch { prefix: Some(prefix), .. } => Asked::Prefix(prefix),
            StringMatch { regex: Some(regex), .. } if regex != "*" => Asked::Regex(regex),
            _ => Asked::Present,
        }
    }
}

/// Whether every value that `other` is met by meets `wanted` too. Regular expressions are only compared as they are written.
fn covers_string(wanted: &StringMatch, other: &StringMatch) -> bool {
    match (Asked::of(wanted), Asked::of(other)) {
        (wanted, other) if wanted == other => true,
        (Asked::Regex(_), _) | (_, Asked::Regex(_)) => false,
        (Asked::Present, _) => true,
        (Asked::Prefix(prefix), Asked::Exact(other) | Asked::Prefix(other)) => other.starts_with(prefix),
        _ => false,
    }
}

/// Whether `more` of `withoutHeaders` forbids all that `less` does. A header that is not there is as an empty one, except
/// where only its being there is asked.
fn forbids(more: &StringMatch, less: &StringMatch) -> bool {
    covers_string(more, less) && (Asked::of(less) != Asked::Exact("") || Asked::of(more) != Asked::Present)
}

fn covers_uri(earlier: &HttpMatchRequest, later: &HttpMatchRequest) -> bool {
    let Some(wanted) = &earlier.uri else { return true };
    // `*` of OPTIONS is told of only where it is what is asked for.
    let is_asterisk = |uri: &StringMatch| matches!(Asked::of(uri), Asked::Exact("*") | Asked::Prefix("*"));
    if is_any_path(wanted) && !later.uri.as_ref().is_some_and(is_asterisk) {
        return true;
    }
    let Some(other) = &later.uri else { return false };
    if earlier.ignore_uri_case == later.ignore_uri_case && wanted == other {
        return true;
    }
    // A match that ignores case wants more than one that does not.
    if later.ignore_uri_case && !earlier.ignore_uri_case {
        return false;
    }
    let fold = |text: &str| if earlier.ignore_uri_case { text.to_ascii_lowercase() } else { text.to_owned() };
    let starts = other.prefix.as_deref().or(other.exact.as_deref()).map(fold);
    match (&wanted.prefix, &wanted.exact, starts) {
        (Some(prefix), _, Some(starts)) => starts.starts_with(&fold(prefix)),
        (_, Some(exact), Some(starts)) => other.exact.is_some() && starts == fold(exact),
        _ => false,
    }
}
