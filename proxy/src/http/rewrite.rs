//! What a route changes in a request on its way to the upstream: path, authority, headers; and in the response.

use std::borrow::Cow;

use config::format::{FormatHeader, Operator};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};

use super::codec::{RequestHead, ResponseHead};
use super::headers::{ORIGINAL_HOST, ORIGINAL_PATH};
use super::record::{Record, request_header, value_of};
use crate::snapshot::{
    Destination, Forward, HeaderToAdd, HeaderValueTemplate, Mutations, PathRewrite, Route,
};
use crate::telemetry::format::{self, Message, Missing, Values};

/// A path that came out of a rewrite and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadRewrite;

/// Gives the request the path and authority the upstream is to see. What the client said is kept in
/// `x-envoy-original-path` and `x-envoy-original-host`; the latter, as in Envoy, only by the rule's own rewrite.
pub(crate) fn target(
    head: &mut RequestHead,
    route: &Route,
    forward: &Forward,
    destination: &Destination,
) -> Result<(), BadRewrite> {
    if let Some(host) = &destination.host_rewrite {
        head.authority = Some(host.clone());
    }
    if let Some(host) = &forward.host_rewrite
        && let Some(original) = head.authority.replace(host.clone())
    {
        head.headers.insert(ORIGINAL_HOST, original);
    }
    let (Some(rewrite), Some(path)) = (&forward.path_rewrite, &head.path) else { return Ok(()) };
    let rewritten = rewrite_path(rewrite, route, path).ok_or(BadRewrite)?;
    if let Ok(original) = HeaderValue::from_str(path.as_str()) {
        head.headers.insert(ORIGINAL_PATH, original);
    }
    head.path = Some(rewritten);
    Ok(())
}

/// The new path; `None` when it would not be one.
fn rewrite_path(rewrite: &PathRewrite, route: &Route, path: &PathAndQuery) -> Option<PathAndQuery> {
    let old = path.path();
    let mut new = match rewrite {
        PathRewrite::Prefix(prefix) => {
            let rest = old.get(route.matched_length(old)..)?;
            [prefix.as_bytes(), rest.as_bytes()].concat()
        }
        PathRewrite::Regex { pattern, substitution } => {
            pattern.replace_all(old.as_bytes(), &**substitution).into_owned()
        }
    };
    if !new.starts_with(b"/") {
        return None;
    }
    if let Some(query) = path.query() {
        new.push(b'?');
        new.extend_from_slice(query.as_bytes());
    }
    PathAndQuery::from_maybe_shared(bytes::Bytes::from(new)).ok()
}

/// Removes headers of a request, then writes headers, as one level of the configuration asks.
pub(crate) fn request_headers(head: &mut RequestHead, mutations: &Mutations, record: &Record) {
    for name in &mutations.request_remove {
        head.headers.remove(name);
    }
    for header in &mutations.request_add {
        let value = header_value(&header.value, &RequestValues { head, record });
        write(&mut head.headers, header, value);
    }
}

/// Removes headers of a response, then writes headers, as one level of the configuration asks.
pub(crate) fn response_headers(head: &mut ResponseHead, mutations: &Mutations, record: &Record) {
    for name in &mutations.response_remove {
        head.headers.remove(name);
    }
    for header in &mutations.response_add {
        let value = header_value(&header.value, &ResponseValues { head, record });
        write(&mut head.headers, header, value);
    }
}

fn write(headers: &mut HeaderMap, header: &HeaderToAdd, value: Option<HeaderValue>) {
    let Some(value) = value else { return };
    match header.action {
        config::HeaderAppendAction::AppendIfExistsOrAdd => {
            headers.append(&header.name, value);
        }
        config::HeaderAppendAction::OverwriteIfExistsOrAdd => {
            headers.insert(&header.name, value);
        }
    }
}

/// `None` when what was looked up is empty or cannot be a header value: the header is then left as it is.
fn header_value(template: &HeaderValueTemplate, values: &impl Values) -> Option<HeaderValue> {
    match template {
        HeaderValueTemplate::Literal(value) => Some(value.clone()),
        HeaderValueTemplate::Format(format) => {
            let mut out = Vec::new();
            format::write(format, values, Missing::Nothing, &mut out);
            HeaderValue::try_from(out).ok().filter(|value| !value.is_empty())
        }
    }
}

/// What operators mean while a request is on its way to the upstream.
struct RequestValues<'a> {
    head: &'a RequestHead,
    record: &'a Record,
}

impl Values for RequestValues<'_> {
    fn header(&self, message: Message, name: &FormatHeader) -> Option<Cow<'_, [u8]>> {
        (message == Message::Request).then(|| request_header(self.head, name)).flatten()
    }

    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        self.record.write(operator, out)
    }
}

/// What operators mean while a response is on its way to the client.
struct ResponseValues<'a> {
    head: &'a ResponseHead,
    record: &'a Record,
}

impl Values for ResponseValues<'_> {
    fn header(&self, message: Message, name: &FormatHeader) -> Option<Cow<'_, [u8]>> {
        match (message, name) {
            (Message::Response, FormatHeader::Header(name)) => value_of(&self.head.headers, name),
            _ => self.record.header(message, name),
        }
    }

    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        self.record.write(operator, out)
    }
}
