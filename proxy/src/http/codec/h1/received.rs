//! The head of a request as a server takes it off the wire: for explanations, which have no connection.

use bytes::BytesMut;
use config::Limits;
use http::StatusCode;
use http::header::HOST;

use super::head::HeadReader;
use crate::http::codec::RequestHead;

/// Writes a head as a client does, and reads it as a server does: framing is taken off, what is no head is refused.
///
/// # Errors
///
/// When a server refuses it: with which status, and why.
pub(crate) fn received(
    head: &RequestHead,
    limits: &Limits,
) -> Result<RequestHead, (StatusCode, &'static str)> {
    let mut bytes = BytesMut::new();
    let authority = || head.authority.as_ref().and_then(|authority| authority.to_str().ok());
    let target = head.path.as_ref().map(|path| path.as_str()).or_else(authority).unwrap_or("/");
    bytes.extend_from_slice(format!("{} {target} HTTP/1.1\r\n", head.method).as_bytes());
    let host = head.authority.as_ref().map(|authority| (&HOST, authority));
    for (name, value) in host.into_iter().chain(&head.headers) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    match HeadReader::default().request(&mut bytes, limits) {
        Ok(Some(received)) => Ok(received.head),
        Ok(None) => Err((StatusCode::BAD_REQUEST, "incomplete head")),
        Err(bad) => Err((bad.status, bad.what)),
    }
}
