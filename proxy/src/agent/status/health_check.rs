//! gRPC's standard question for health, `grpc.health.v1.Health/Check`. Both of its messages have one field, so that they are
//! read and written here.

use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use config::Limits;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::net::TcpStream;

use crate::admin::FullBody;
use crate::http::codec::{Body as _, Frame, RequestHead, StreamError, Unread, Version, h2_client};

/// Largest answer that is read: a byte of flags, four of length, and a number.
const ANSWER_BYTES_MAX: usize = 1024;

/// The status that means health.
const SERVING: u64 = 1;

/// Asks on `stream`.
///
/// # Errors
///
/// When the service is not known to serve: why.
pub(super) async fn check(
    stream: TcpStream,
    to: SocketAddr,
    service: &str,
    user_agent: Option<&HeaderValue>,
) -> Result<(), String> {
    let connected = h2_client::connect(stream, &Limits::default(), &Unread::unbounded()).await;
    let (mut client, connection) = connected.map_err(|error| error.to_string())?;
    let exchange = async {
        client.ready().await?;
        let (head, mut body) = client.send(request(to, user_agent), message(service)).await?;
        let (mut answer, mut trailers) = (BytesMut::new(), None);
        while let Some(frame) = std::future::poll_fn(|cx| body.poll_frame(cx)).await {
            match frame? {
                Frame::Data(data) if answer.len() + data.len() <= ANSWER_BYTES_MAX => {
                    answer.extend_from_slice(&data);
                }
                Frame::Data(_) => {
                    return Err(StreamError::Protocol("an answer that is too large".to_owned()));
                }
                Frame::Trailers(came) => trailers = Some(came),
            }
        }
        Ok((head, answer.freeze(), trailers))
    };
    let outcome = tokio::select! {
        biased;
        outcome = exchange => outcome,
        _ = connection => Err(StreamError::ConnectionClosed),
    };
    let (head, answer, trailers) = outcome.map_err(|error| error.to_string())?;
    if head.status != StatusCode::OK {
        return Err(format!("HTTP status {}", head.status));
    }
    grpc_status(trailers.as_ref().unwrap_or(&head.headers))?;
    match serving_status(answer) {
        Some(SERVING) => Ok(()),
        Some(other) => Err(format!("the service's status is {other}, not {SERVING} (SERVING)")),
        None => Err("the answer is no HealthCheckResponse".to_owned()),
    }
}

fn request(to: SocketAddr, user_agent: Option<&HeaderValue>) -> RequestHead {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if let Some(user_agent) = user_agent {
        headers.insert(USER_AGENT, user_agent.clone());
    }
    RequestHead {
        method: Method::POST,
        version: Version::Http2,
        authority: HeaderValue::from_str(&to.to_string()).ok(),
        scheme: Some(Scheme::HTTP),
        path: Some(PathAndQuery::from_static("/grpc.health.v1.Health/Check")),
        headers,
    }
}

/// `HealthCheckRequest`, whose first field is the service, behind gRPC's prefix.
fn message(service: &str) -> FullBody {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    // A service's name comes from a variable, which is shorter by far.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    FullBody(Some(framed.freeze()))
}

fn grpc_status(told: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| told.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        Some("0") => Ok(()),
        Some("12") => Err("the server does not know grpc.health.v1.Health".to_owned()),
        Some(code) => Err(format!("gRPC status {code}: {}", text("grpc-message").unwrap_or_default())),
        None => Err("there is no gRPC status".to_owned()),
    }
}

/// The status in a `HealthCheckResponse`, which is its first field; 0 when it is left out.
fn serving_status(mut answer: Bytes) -> Option<u64> {
    let compressed = answer.try_get_u8().ok()?;
    let length = usize::try_from(answer.try_get_u32().ok()?).ok()?;
    if compressed != 0 || answer.len() != length {
        return None;
    }
    let mut status = 0;
    while answer.has_remaining() {
        let key = take_varint(&mut answer)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = take_varint(&mut answer)?,
            // A field of a later version.
            (_, 0) => drop(take_varint(&mut answer)?),
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut answer)?).ok()?;
                if length > answer.len() {
                    return None;
                }
                answer.advance(length);
            }
            _ => return None,
        }
    }
    Some(status)
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        // The low seven bits, and that there is more.
        out.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}

fn take_varint(from: &mut Bytes) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = from.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_answers() {
        let check = |bytes: &'static [u8], expected: Option<u64>| {
            assert_eq!(serving_status(Bytes::from_static(bytes)), expected, "{bytes:?}");
        };
        check(b"\0\0\0\0\x02\x08\x01", Some(1));
        check(b"\0\0\0\0\x02\x08\x02", Some(2));
        check(b"\0\0\0\0\0", Some(0));
        check(b"\0\0\0\0\x05\x12\x01a\x08\x01", Some(1));
        check(b"\0\0\0\0\x03\x08\x81\x01", Some(129));
        check(b"", None);
        check(b"\0\0\0\0\x02\x08", None);
        check(b"\x01\0\0\0\x02\x08\x01", None);
        check(b"\0\0\0\0\x01\x08", None);
        check(b"\0\0\0\0\x03\x12\x09a", None);
        check(b"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None);
    }

    #[test]
    fn questions() {
        let bytes = |service: &str| message(service).0.unwrap();
        assert_eq!(&bytes("")[..], b"\0\0\0\0\0");
        assert_eq!(&bytes("ab")[..], b"\0\0\0\0\x04\x0a\x02ab");
        assert_eq!(&bytes(&"a".repeat(200))[..8], b"\0\0\0\0\xcb\x0a\xc8\x01");
    }
}
