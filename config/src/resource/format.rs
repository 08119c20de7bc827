//! Envoy's substitution format strings: `%COMMAND(ARGUMENT):LENGTH%` operators between literal text.
//!
//! Access logs and header values are written in it. The text is parsed once, here; the proxy only walks the
//! [`Operator`]s. Source: Envoy, "Access logging", command operators.

mod json;

use std::fmt;
use std::sync::Arc;

use http::HeaderName;

pub use json::{JsonFormat, JsonPiece};

/// A parsed format string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// As it was written.
    text: Arc<str>,
    /// What to write, in order.
    operators: Vec<Operator>,
}

/// How a line of an access log is written.
#[derive(Debug, Clone, PartialEq)]
pub enum LogFormat {
    /// As text, its line end included.
    Text(Format),
    /// As a JSON object.
    Json(JsonFormat),
}

impl LogFormat {
    /// All values that a line looks up, and the text between them where it is not JSON.
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        let formats = match self {
            LogFormat::Text(format) => vec![format],
            LogFormat::Json(format) => {
                let pieces = format.pieces().iter();
                pieces
                    .filter_map(
                        |piece| if let JsonPiece::Value(format) = piece { Some(format) } else { None },
                    )
                    .collect()
            }
        };
        formats.into_iter().flat_map(Format::operators)
    }
}

/// One piece of a format: text, or a value looked up when it is written. A value that is missing is written `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// Text as it is.
    Literal(Arc<str>),
    /// `%START_TIME%`: when the request began, `2026-11-22T10:11:12.345Z`.
    StartTime,
    /// `%REQ(X?Y):Z%`: a request header, or else the second.
    RequestHeader(HeaderOperand),
    /// `%RESP(X?Y):Z%`: a response header, or else the second.
    ResponseHeader(HeaderOperand),
    /// `%TRAILER(X?Y):Z%`: a response trailer, or else the second.
    ResponseTrailer(HeaderOperand),
    /// `%PROTOCOL%`: `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    Protocol,
    /// `%RESPONSE_CODE%`: the status, 0 when there was no answer.
    ResponseCode,
    /// `%RESPONSE_CODE_DETAILS%`: why that status, `via_upstream` when the upstream said it.
    ResponseCodeDetails,
    /// `%RESPONSE_FLAGS%`: Envoy's flags, `-` for none.
    ResponseFlags,
    /// `%CONNECTION_TERMINATION_DETAILS%`: why weft closed the connection.
    ConnectionTerminationDetails,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`: why TLS to the upstream failed.
    UpstreamTransportFailureReason,
    /// `%BYTES_RECEIVED%`: bytes of the request body.
    BytesReceived,
    /// `%BYTES_SENT%`: bytes of the response body.
    BytesSent,
    /// `%DURATION%`: milliseconds from the first byte of the request to the last of the response.
    Duration,
    /// `%UPSTREAM_HOST%`: address of the endpoint.
    UpstreamHost,
    /// `%UPSTREAM_CLUSTER%` and `%UPSTREAM_CLUSTER_RAW%`: name of the cluster.
    UpstreamCluster,
    /// `%UPSTREAM_LOCAL_ADDRESS%`: our end of the upstream connection.
    UpstreamLocalAddress,
    /// `%UPSTREAM_REQUEST_ATTEMPT_COUNT%`: attempts made.
    UpstreamRequestAttemptCount,
    /// `%DOWNSTREAM_LOCAL_ADDRESS%`: our end of the client's connection.
    DownstreamLocalAddress,
    /// `%DOWNSTREAM_REMOTE_ADDRESS%`: the client's address.
    DownstreamRemoteAddress,
    /// `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%`: the client's IP.
    DownstreamRemoteIp,
    /// `%REQUESTED_SERVER_NAME%`: SNI.
    RequestedServerName,
    /// Identity of the client, from its certificate.
    DownstreamPeerUriSan,
    /// Our own, from the certificate that the client was shown.
    DownstreamLocalUriSan,
    /// Version of TLS with the client.
    DownstreamTlsVersion,
    /// Cipher suite of TLS with the client.
    DownstreamTlsCipher,
    /// Identity of the endpoint, from its certificate.
    UpstreamPeerUriSan,
    /// Our own, from the certificate that the endpoint was shown.
    UpstreamLocalUriSan,
    /// Version of TLS with the endpoint.
    UpstreamTlsVersion,
    /// Cipher suite of TLS with the endpoint.
    UpstreamTlsCipher,
    /// `%ROUTE_NAME%`: name of the rule.
    RouteName,
    /// `%VIRTUAL_HOST_NAME%`: name of the virtual host.
    VirtualHostName,
}

/// The operand of a header operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderOperand {
    /// Which header.
    pub name: FormatHeader,
    /// Which header to take when that one is missing.
    pub alternative: Option<FormatHeader>,
    /// Characters after which the value is cut.
    pub max_length: Option<usize>,
}

/// A header as a format names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormatHeader {
    /// `:METHOD`.
    Method,
    /// `:PATH`.
    Path,
    /// `:AUTHORITY`.
    Authority,
    /// `:SCHEME`.
    Scheme,
    /// `:STATUS`.
    Status,
    /// Any other.
    Header(HeaderName),
}

/// Why a format string is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatError {
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for FormatError {}

impl Format {
    /// Parses `text`.
    ///
    /// # Errors
    ///
    /// When an operator is not closed, not known, or its argument is not what it takes.
    pub fn parse(text: &str) -> Result<Format, FormatError> {
        let mut operators = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let Some(end) = command_end(rest) else {
                return Err(FormatError {
                    what: format!("`%{rest}` is an operator without its closing `%`"),
                });
            };
            if !literal.is_empty() {
                operators.push(Operator::Literal(std::mem::take(&mut literal).into()));
            }
            operators.push(Operator::parse(&rest[..end])?);
            rest = &rest[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            operators.push(Operator::Literal(literal.into()));
        }
        Ok(Format { text: text.into(), operators })
    }

    /// The format that always writes `text`, whatever `%` signs it holds.
    pub fn literal(text: &str) -> Format {
        Format { text: text.replace('%', "%%").into(), operators: vec![Operator::Literal(text.into())] }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What to write, in order.
    pub fn operators(&self) -> &[Operator] {
        &self.operators
    }

    /// The text, when nothing in it has to be looked up.
    pub fn as_literal(&self) -> Option<&str> {
        match self.operators.as_slice() {
            [] => Some(""),
            [Operator::Literal(text)] => Some(text),
            _ => None,
        }
    }
}

/// Where the command that begins at the start of `text` ends: the first `%` outside parentheses.
fn command_end(text: &str) -> Option<usize> {
    let mut inside = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => inside = true,
            b')' => inside = false,
            b'%' if !inside => return Some(at),
            _ => {}
        }
    }
    None
}

impl Operator {
    /// Whether the value is a number, which in JSON is written as one.
    pub fn is_number(&self) -> bool {
        matches!(
            self,
            Operator::ResponseCode
                | Operator::BytesReceived
                | Operator::BytesSent
                | Operator::Duration
                | Operator::UpstreamRequestAttemptCount
        )
    }

    fn parse(command: &str) -> Result<Operator, FormatError> {
        let (name, argument) = match command.split_once('(') {
            Some((name, rest)) => (name, Some(rest)),
            None => (command, None),
        };
        if let Some(argument) = argument {
            let operand = || HeaderOperand::parse(command, argument);
            return match name {
                "REQ" => Ok(Operator::RequestHeader(operand()?)),
                "RESP" => Ok(Operator::ResponseHeader(operand()?)),
                "TRAILER" => Ok(Operator::ResponseTrailer(operand()?)),
                _ => Err(unknown(command)),
            };
        }
        Ok(match name {
            "START_TIME" => Operator::StartTime,
            "PROTOCOL" => Operator::Protocol,
            "RESPONSE_CODE" => Operator::ResponseCode,
            "RESPONSE_CODE_DETAILS" => Operator::ResponseCodeDetails,
            "RESPONSE_FLAGS" => Operator::ResponseFlags,
            "CONNECTION_TERMINATION_DETAILS" => Operator::ConnectionTerminationDetails,
            "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::UpstreamTransportFailureReason,
            "BYTES_RECEIVED" => Operator::BytesReceived,
            "BYTES_SENT" => Operator::BytesSent,
            "DURATION" => Operator::Duration,
            "UPSTREAM_HOST" => Operator::UpstreamHost,
            "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => Operator::UpstreamCluster,
            "UPSTREAM_LOCAL_ADDRESS" => Operator::UpstreamLocalAddress,
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Operator::UpstreamRequestAttemptCount,
            "DOWNSTREAM_LOCAL_ADDRESS" => Operator::DownstreamLocalAddress,
            "DOWNSTREAM_REMOTE_ADDRESS" => Operator::DownstreamRemoteAddress,
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::DownstreamRemoteIp,
            "REQUESTED_SERVER_NAME" => Operator::RequestedServerName,
            "DOWNSTREAM_PEER_URI_SAN" => Operator::DownstreamPeerUriSan,
            "DOWNSTREAM_LOCAL_URI_SAN" => Operator::DownstreamLocalUriSan,
            "DOWNSTREAM_TLS_VERSION" => Operator::DownstreamTlsVersion,
            "DOWNSTREAM_TLS_CIPHER" => Operator::DownstreamTlsCipher,
            "UPSTREAM_PEER_URI_SAN" => Operator::UpstreamPeerUriSan,
            "UPSTREAM_LOCAL_URI_SAN" => Operator::UpstreamLocalUriSan,
            "UPSTREAM_TLS_VERSION" => Operator::UpstreamTlsVersion,
            "UPSTREAM_TLS_CIPHER" => Operator::UpstreamTlsCipher,
            "ROUTE_NAME" => Operator::RouteName,
            "VIRTUAL_HOST_NAME" => Operator::VirtualHostName,
            _ => return Err(unknown(command)),
        })
    }
}

fn unknown(command: &str) -> FormatError {
    FormatError { what: format!("`%{command}%` is not an operator weft knows") }
}

impl HeaderOperand {
    /// Parses what follows the opening parenthesis of `command`: `NAME?ALTERNATIVE):LENGTH`.
    fn parse(command: &str, argument: &str) -> Result<HeaderOperand, FormatError> {
        let malformed = |what: &str| FormatError { what: format!("`%{command}%`: {what}") };
        let Some((names, after)) = argument.split_once(')') else {
            return Err(malformed("the parenthesis is not closed"));
        };
        let max_length = match after.strip_prefix(':') {
            Some(length) => {
                Some(length.parse().map_err(|_| malformed("the length after `:` is not a number"))?)
            }
            None if after.is_empty() => None,
            None => return Err(malformed("only `:LENGTH` may follow the parenthesis")),
        };
        let (name, alternative) = match names.split_once('?') {
            Some((name, alternative)) => (name, Some(alternative)),
            None => (names, None),
        };
        let header =
            |name: &str| FormatHeader::parse(name).ok_or_else(|| malformed("that is not a header name"));
        Ok(HeaderOperand {
            name: header(name)?,
            alternative: alternative.map(header).transpose()?,
            max_length,
        })
    }
}

impl FormatHeader {
    fn parse(name: &str) -> Option<FormatHeader> {
        Some(match name.to_ascii_lowercase().as_str() {
            ":method" => FormatHeader::Method,
            ":path" => FormatHeader::Path,
            ":authority" | "host" => FormatHeader::Authority,
            ":scheme" => FormatHeader::Scheme,
            ":status" => FormatHeader::Status,
            other => FormatHeader::Header(HeaderName::from_bytes(other.as_bytes()).ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[Operator]) {
        assert_eq!(Format::parse(text).unwrap().operators(), expected, "{text}");
    }

    fn literal(text: &str) -> Operator {
        Operator::Literal(text.into())
    }

    #[test]
    fn literals_and_escapes() {
        check("", &[]);
        check("plain", &[literal("plain")]);
        check("100%%", &[literal("100%")]);
        check("%%PROTOCOL%%", &[literal("%PROTOCOL%")]);
    }

    #[test]
    fn commands_between_literals() {
        check(
            "[%START_TIME%] %PROTOCOL%\n",
            &[literal("["), Operator::StartTime, literal("] "), Operator::Protocol, literal("\n")],
        );
    }

    #[test]
    fn header_with_alternative_and_length() {
        let path = HeaderName::from_static("x-envoy-original-path");
        check(
            "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH):10%",
            &[Operator::RequestHeader(HeaderOperand {
                name: FormatHeader::Header(path),
                alternative: Some(FormatHeader::Path),
                max_length: Some(10),
            })],
        );
    }

    #[test]
    fn what_is_refused() {
        for text in
            ["%PROTOCOL", "50%", "%NO_SUCH_THING%", "%REQ(a b)%", "%REQ(x):y%", "%REQ(x%", "%PROTOCOL(x)%"]
        {
            assert!(Format::parse(text).is_err(), "{text}");
        }
    }
}
