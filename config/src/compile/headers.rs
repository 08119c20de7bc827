//! Header operations of virtual services.
//!
//! Headers that begin with `:` and `host` are no headers to Envoy: `:authority` and `host` to be set or added become
//! a rewrite of the host, everything else of that kind is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;

use crate::istio::{HeaderOperations, Headers};
use crate::resource::format::Format;
use crate::resource::{HeaderAppendAction, HeaderMutations, HeaderToAdd, HostRewrite};

/// What [`Headers`] become.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Translated {
    /// The headers to change.
    pub(super) mutations: HeaderMutations,
    /// The host, when it is to be rewritten.
    pub(super) host: Option<HostRewrite>,
    /// What could not be done: path below `headers`, and why.
    pub(super) refused: Vec<(String, String)>,
}

/// Translates `headers`; what is set comes before what is added, each by name.
pub(super) fn translate(headers: Option<&Headers>) -> Translated {
    let mut out = Translated::default();
    let Some(headers) = headers else { return out };
    if let Some(request) = &headers.request {
        let host = host(&request.set).or_else(|| host(&request.add));
        out.host = host.map(|literal| HostRewrite { literal });
        out.mutations.request_add = additions(request, "request", &mut out.refused);
        out.mutations.request_remove = removals(request, "request", &mut out.refused);
    }
    if let Some(response) = &headers.response {
        out.mutations.response_add = additions(response, "response", &mut out.refused);
        out.mutations.response_remove = removals(response, "response", &mut out.refused);
    }
    out
}

/// Appends `more` to `mutations`, as istiod does with the headers of a rule's only destination.
pub(super) fn append(mutations: &mut HeaderMutations, more: HeaderMutations) {
    mutations.request_add.extend(more.request_add);
    mutations.request_remove.extend(more.request_remove);
    mutations.response_add.extend(more.response_add);
    mutations.response_remove.extend(more.response_remove);
}

fn is_internal(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}

fn host(operations: &BTreeMap<String, String>) -> Option<Arc<str>> {
    let names_host =
        |name: &str| name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host");
    let (_, value) = operations.iter().find(|(name, value)| names_host(name) && !value.is_empty())?;
    Some(value.as_str().into())
}

fn additions(
    operations: &HeaderOperations,
    direction: &str,
    refused: &mut Vec<(String, String)>,
) -> Vec<HeaderToAdd> {
    let set = ("set", &operations.set, HeaderAppendAction::OverwriteIfExistsOrAdd);
    let add = ("add", &operations.add, HeaderAppendAction::AppendIfExistsOrAdd);
    let mut additions = Vec::with_capacity(operations.set.len() + operations.add.len());
    for (operation, headers, action) in [set, add] {
        for (name, value) in headers.iter().filter(|(name, _)| !is_internal(name)) {
            match header_name(name).and_then(|name| Ok((name, Format::parse(value).map_err(|e| e.what)?))) {
                Ok((name, value)) => additions.push(HeaderToAdd { name, value, action }),
                Err(why) => refused.push((format!("{direction}.{operation}.{name}"), why)),
            }
        }
    }
    additions
}

fn removals(
    operations: &HeaderOperations,
    direction: &str,
    refused: &mut Vec<(String, String)>,
) -> Vec<HeaderName> {
    let mut removals = Vec::with_capacity(operations.remove.len());
    for (index, name) in operations.remove.iter().enumerate().filter(|(_, name)| !is_internal(name)) {
        match header_name(name) {
            Ok(name) => removals.push(name),
            Err(why) => refused.push((format!("{direction}.remove[{index}]"), why)),
        }
    }
    removals
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a header name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, expected: &Translated) {
        let headers: Headers = crate::testing::from_yaml(yaml).unwrap();
        assert_eq!(translate(Some(&headers)), *expected, "{yaml}");
    }

    fn header(name: &'static str, value: &str, action: HeaderAppendAction) -> HeaderToAdd {
        HeaderToAdd { name: HeaderName::from_static(name), value: Format::parse(value).unwrap(), action }
    }

    #[test]
    fn set_before_add_by_name() {
        use HeaderAppendAction::{AppendIfExistsOrAdd as Append, OverwriteIfExistsOrAdd as Overwrite};
        let mutations = HeaderMutations {
            request_add: vec![
                header("x-a", "1", Overwrite),
                header("x-b", "%PROTOCOL%", Overwrite),
                header("x-a", "3", Append),
            ],
            response_remove: vec![HeaderName::from_static("x-c")],
            ..HeaderMutations::default()
        };
        check(
            "{request: {set: {x-b: '%PROTOCOL%', x-a: '1'}, add: {x-a: '3'}}, response: {remove: [X-C]}}",
            &Translated { mutations, ..Translated::default() },
        );
    }

    #[test]
    fn hosts_are_rewritten_and_internal_names_dropped() {
        let rewritten = |literal: &str| Translated {
            host: Some(HostRewrite { literal: literal.into() }),
            ..Translated::default()
        };
        check("{request: {set: {':authority': a.b}, add: {Host: c.d}}}", &rewritten("a.b"));
        check("{request: {add: {Host: c.d, ':path': /x}, remove: [host, ':method']}}", &rewritten("c.d"));
        check("{response: {set: {host: a, ':status': '1'}}}", &Translated::default());
    }

    #[test]
    fn what_is_refused() {
        let headers: Headers =
            crate::testing::from_yaml("{request: {set: {'a b': x, ok: '%NO%'}, remove: ['']}}").unwrap();
        let paths: Vec<String> =
            translate(Some(&headers)).refused.into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["request.set.a b", "request.set.ok", "request.remove[0]"]);
    }
}
