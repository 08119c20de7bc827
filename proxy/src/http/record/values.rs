//! What the operators of access logs and header values mean for a record.

use std::borrow::Cow;

use config::format::{FormatHeader, Operator};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::super::codec::RequestHead;
use super::super::headers;
use super::Record;
use crate::telemetry::format::{self, Message, Values, address, text};
use crate::time;
use crate::upstream::request_body::RequestBody;

impl Values for Record {
    fn header(&self, message: Message, name: &FormatHeader) -> Option<Cow<'_, [u8]>> {
        if let (Message::Request, Some(head)) = (message, &self.request_head) {
            return request_header(head, name);
        }
        let captured = self.captured.as_ref()?;
        match (message, name) {
            (Message::Request, FormatHeader::Method) => {
                Some(Cow::Borrowed(captured.method.as_str().as_bytes()))
            }
            (Message::Request, FormatHeader::Path) => {
                captured.path.as_ref().map(|path| Cow::Borrowed(path.as_str().as_bytes()))
            }
            (Message::Request, FormatHeader::Authority) => {
                self.authority.as_ref().map(|authority| Cow::Borrowed(authority.as_bytes()))
            }
            (Message::Request, FormatHeader::Scheme) => find(&captured.request, &headers::FORWARDED_PROTO),
            (Message::Request, FormatHeader::Header(name)) if *name == headers::ORIGINAL_PATH => {
                captured.original_path.as_ref().map(|path| Cow::Borrowed(path.as_bytes()))
            }
            (Message::Request, FormatHeader::Header(name)) => find(&captured.request, name),
            (Message::Response, FormatHeader::Header(name)) => find(&captured.response, name),
            (Message::Response, FormatHeader::Status) => {
                self.status.map(|status| Cow::Owned(status.as_str().as_bytes().to_vec()))
            }
            (Message::Trailers, FormatHeader::Header(name)) => find(&captured.trailers, name),
            _ => None,
        }
    }

    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        match operator {
            Operator::StartTime => match &self.captured {
                Some(captured) => format::timestamp(captured.wall, out),
                None => format::timestamp(time::wall(), out),
            },
            Operator::Protocol => out.extend_from_slice(self.version.name().as_bytes()),
            Operator::ResponseCode => {
                format::number(self.status.map_or(0, |status| status.as_u16().into()), out);
            }
            Operator::ResponseCodeDetails if !self.details.is_empty() => {
                out.extend_from_slice(self.details.as_bytes());
            }
            Operator::ResponseFlags => out.extend_from_slice(self.flags.text().as_bytes()),
            Operator::UpstreamTransportFailureReason => return text(self.transport_failure.as_deref(), out),
            Operator::BytesReceived => {
                format::number(self.request_body.as_ref().map_or(0, RequestBody::received), out);
            }
            Operator::BytesSent => format::number(self.bytes_sent, out),
            Operator::Duration => format::milliseconds_since(self.started, out),
            Operator::UpstreamHost => {
                return address(self.endpoint.as_ref().map(|endpoint| endpoint.address), out);
            }
            Operator::UpstreamCluster => {
                return text(self.upstream.as_ref().map(|view| &**view.cluster.name()), out);
            }
            Operator::UpstreamLocalAddress => return address(self.reached.local_address(), out),
            Operator::UpstreamRequestAttemptCount => format::number(self.attempts.into(), out),
            Operator::DownstreamLocalAddress => return address(Some(self.downstream.local_address), out),
            Operator::DownstreamRemoteAddress => return address(Some(self.client), out),
            Operator::DownstreamRemoteIp => {
                out.extend_from_slice(self.client.ip().to_string().as_bytes());
            }
            Operator::RequestedServerName => return text(self.downstream.server_name.as_deref(), out),
            Operator::RouteName => {
                let name = self.route.as_ref().map(|handle| handle.route.name());
                return text(name.filter(|name| !name.is_empty()), out);
            }
            Operator::VirtualHostName => {
                return text(self.route.as_ref().map(|handle| &*handle.route.virtual_host().name), out);
            }
            // Headers and literals are not asked for here; the others have no value without TLS.
            operator => {
                let client = self.downstream.tls.as_ref().and_then(|session| session.value(operator));
                if client.is_some() {
                    return text(client, out);
                }
                let upstream = self.reached.ends();
                return text(upstream.as_ref().and_then(|ends| ends.upstream_value(operator)), out);
            }
        }
        true
    }
}

/// A header of a request as formats name it.
pub(crate) fn request_header<'a>(head: &'a RequestHead, name: &FormatHeader) -> Option<Cow<'a, [u8]>> {
    match name {
        FormatHeader::Method => Some(Cow::Borrowed(head.method.as_str().as_bytes())),
        FormatHeader::Path => head.path.as_ref().map(|path| Cow::Borrowed(path.as_str().as_bytes())),
        FormatHeader::Authority => {
            head.authority.as_ref().map(|authority| Cow::Borrowed(authority.as_bytes()))
        }
        FormatHeader::Scheme => value_of(&head.headers, &headers::FORWARDED_PROTO),
        FormatHeader::Header(name) => value_of(&head.headers, name),
        FormatHeader::Status => None,
    }
}

/// The first value of a header.
pub(crate) fn value_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    headers.get(name).map(|value| Cow::Borrowed(value.as_bytes()))
}

fn find<'a>(headers: &'a [(HeaderName, HeaderValue)], name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| Cow::Borrowed(value.as_bytes()))
}
