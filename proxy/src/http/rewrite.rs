//! What a route changes in a request on its way to the upstream: path, authority, headers; and in the response.

use std::borrow::Cow;

use config::format::{FormatHeader, Operator};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::codec::{RequestHead, ResponseHead};
use super::headers::{FORWARDED_PROTO, ORIGINAL_HOST, ORIGINAL_PATH};
use super::record::Record;
use crate::snapshot::{
    Destination, Forward, HeaderToAdd, HeaderValueTemplate, Mutations, PathRewrite, Route,
};
use crate::telemetry::format::{self, Message, Values};

/// Gives the request the path and authority the upstream is to see. What the client said is kept in
/// `x-envoy-original-path` and `x-envoy-original-host`.
pub(crate) fn target(head: &mut RequestHead, route: &Route, forward: &Forward, destination: &Destination) {
    if let Some(host) = destination.host_rewrite.as_ref().or(forward.host_rewrite.as_ref())
        && let Some(original) = head.authority.replace(host.clone())
    {
        head.headers.insert(ORIGINAL_HOST, original);
    }
    let (Some(rewrite), Some(path)) = (&forward.path_rewrite, &head.path) else { return };
    let Some(rewritten) = rewrite_path(rewrite, route, path) else { return };
    if let Ok(original) = HeaderValue::from_str(path.as_str()) {
        head.headers.insert(ORIGINAL_PATH, original);
    }
    head.path = Some(rewritten);
}

/// The new path; `None` when it would not be one, and the old one stays.
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

/// `None` when what was looked up cannot be a header value.
fn header_value(template: &HeaderValueTemplate, values: &impl Values) -> Option<HeaderValue> {
    match template {
        HeaderValueTemplate::Literal(value) => Some(value.clone()),
        HeaderValueTemplate::Format(format) => {
            let mut out = Vec::new();
            format::write(format, values, &mut out);
            HeaderValue::try_from(out).ok()
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
        let head = self.head;
        match (message, name) {
            (Message::Request, FormatHeader::Method) => Some(Cow::Borrowed(head.method.as_str().as_bytes())),
            (Message::Request, FormatHeader::Path) => {
                head.path.as_ref().map(|path| Cow::Borrowed(path.as_str().as_bytes()))
            }
            (Message::Request, FormatHeader::Authority) => {
                head.authority.as_ref().map(|authority| Cow::Borrowed(authority.as_bytes()))
            }
            (Message::Request, FormatHeader::Scheme) => value_of(&head.headers, &FORWARDED_PROTO),
            (Message::Request, FormatHeader::Header(name)) => value_of(&head.headers, name),
            _ => None,
        }
    }

    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        self.record.write(operator, out)
    }
}

/// What operators mean while a response is on its way to the client. Request headers are known as far as access logs
/// keep them.
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

fn value_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    headers.get(name).map(|value| Cow::Borrowed(value.as_bytes()))
}
