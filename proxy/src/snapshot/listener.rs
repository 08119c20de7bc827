//! Listeners, resolved.

use std::collections::BTreeSet;
use std::sync::Arc;

use config::format::{FormatHeader, HeaderOperand, LogFormat, Operator};
use http::{HeaderName, HeaderValue};

use super::RouteTable;

/// A resolved [`config::Listener`].
#[derive(Debug)]
pub(crate) struct Listener {
    /// What it was resolved from.
    pub(crate) declared: Arc<config::Listener>,
    /// What serves its connections.
    pub(crate) manager: Manager,
}

/// A resolved [`config::HttpConnectionManager`].
#[derive(Debug)]
pub(crate) struct Manager {
    /// What it was resolved from.
    pub(crate) declared: Arc<config::HttpConnectionManager>,
    /// The routes; `None` when the route configuration it names does not exist, which is answered 404.
    pub(crate) routes: Option<Arc<RouteTable>>,
    /// The `server` header.
    pub(crate) server_name: HeaderValue,
    /// Where requests are logged.
    pub(crate) access_log: Box<[LogSink]>,
    /// The headers that access logs ask for.
    pub(crate) logged: Logged,
}

/// A resolved [`config::AccessLog`].
#[derive(Debug)]
pub(crate) struct LogSink {
    /// File to append to.
    pub(crate) path: Arc<str>,
    /// One line.
    pub(crate) format: LogFormat,
}

/// The headers that access logs ask for; no others are kept until the end of a request.
#[derive(Debug, Default)]
pub(crate) struct Logged {
    /// Of the request.
    pub(crate) request: Box<[HeaderName]>,
    /// Of the response.
    pub(crate) response: Box<[HeaderName]>,
    /// Of the response's trailers.
    pub(crate) trailers: Box<[HeaderName]>,
}

impl Listener {
    /// Resolves a listener with its connection manager and the table its routes are in.
    pub(super) fn resolve(
        declared: &Arc<config::Listener>,
        manager: &Arc<config::HttpConnectionManager>,
        routes: Option<Arc<RouteTable>>,
    ) -> Listener {
        let server_name =
            HeaderValue::from_str(&manager.server_name).unwrap_or(HeaderValue::from_static("envoy"));
        let access_log = manager.access_log.iter();
        let access_log: Box<[LogSink]> =
            access_log.map(|log| LogSink { path: log.path.clone(), format: log.format.clone() }).collect();
        let logged = Logged::by(&access_log);
        let manager = Manager { declared: manager.clone(), routes, server_name, access_log, logged };
        Listener { declared: declared.clone(), manager }
    }
}

impl Logged {
    fn by(sinks: &[LogSink]) -> Logged {
        let operators = || sinks.iter().flat_map(|sink| sink.format.operators());
        let names = |of: fn(&Operator) -> Option<&HeaderOperand>| {
            let operands = operators().filter_map(of);
            let headers =
                operands.flat_map(|operand| std::iter::once(&operand.name).chain(&operand.alternative));
            let names: BTreeSet<&str> = headers.filter_map(header_name).collect();
            names.into_iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()).collect()
        };
        Logged {
            request: names(|operator| match operator {
                Operator::RequestHeader(operand) => Some(operand),
                _ => None,
            }),
            response: names(|operator| match operator {
                Operator::ResponseHeader(operand) => Some(operand),
                _ => None,
            }),
            trailers: names(|operator| match operator {
                Operator::ResponseTrailer(operand) => Some(operand),
                _ => None,
            }),
        }
    }
}

/// The scheme is kept as the header that tells it; other pseudo-headers are kept apart.
fn header_name(header: &FormatHeader) -> Option<&str> {
    match header {
        FormatHeader::Header(name) => Some(name.as_str()),
        FormatHeader::Scheme => Some("x-forwarded-proto"),
        FormatHeader::Method | FormatHeader::Path | FormatHeader::Authority | FormatHeader::Status => None,
    }
}
