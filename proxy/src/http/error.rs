//! Failures and what the client is told of them: one place that turns a reason into status, response flag, details
//! and text. Words and codes are Envoy's, so that dashboards and habits keep working.

use std::borrow::Cow;

use http::StatusCode;

use super::codec::{REQUEST_HEAD_BYTES_TOTAL_MAX, StreamError};
use crate::telemetry::flags::Flag;
use crate::upstream::ConnectError;
use crate::upstream::retry::Reset;

/// Why weft answers by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A method that nobody knows.
    UnknownMethod,
    /// A target that is none, or none of this method.
    BadTarget,
    /// A Host that cannot be one.
    BadAuthority,
    /// A Connection header that would take off what says who asks whom.
    BadConnection,
    /// An HTTP/2 message that would be no HTTP/1 message.
    BadMessaging,
    /// A body in a transfer coding other than chunked.
    UnknownTransferCoding,
    /// HTTP/1.0, which is not accepted here.
    LowVersion,
    /// The process has too much to do.
    Overloaded,
    /// All requests of the process have more bytes of heads than allowed.
    TooManyHeads,
    /// More headers than allowed.
    TooManyHeaders,
    /// An HTTP/2 head of more bytes than allowed.
    HeadTooLarge,
    /// HTTP/1.1 without a Host.
    MissingHost,
    /// A path that cannot be forwarded.
    BadPath,
    /// A protocol upgrade that is not done here.
    UpgradeRefused,
    /// The rule's rewrite makes a path that is none.
    BadRewrite,
    /// No rule matches.
    NoRoute,
    /// The rule's cluster does not exist.
    NoCluster,
    /// The cluster has no endpoint.
    NoHealthyUpstream,
    /// The cluster's endpoint is where the client wanted to go, and nothing says where that is.
    NoOriginalDestination,
    /// The endpoint asks for TLS with the identity of the workload, which has none.
    TlsNotEnforced(config::UpstreamTlsMode),
    /// The upstream did not answer.
    Reset {
        /// How it failed.
        reset: Reset,
        /// The system's words, if it had any.
        reason: Option<String>,
        /// Whether this was not the first attempt.
        retried: bool,
    },
    /// The client did not send its request in full, or not as a body is sent.
    /// Or it was given up because too much waits already.
    RequestFailed(StreamError),
    /// The upstream took longer than the route allows.
    RouteTimeout,
}

/// What the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// The flag, where Envoy has one.
    pub(crate) flag: Option<Flag>,
    /// Envoy's response code details.
    pub(crate) details: Cow<'static, str>,
    /// The body.
    pub(crate) body: Cow<'static, str>,
    /// Whether an HTTP/1 connection is of no use any more.
    pub(crate) close: bool,
}

impl Refusal {
    /// That a cluster which finds its endpoints this way has none for the request.
    pub(crate) fn no_endpoint(discovery: &config::DiscoveryType) -> Refusal {
        match discovery {
            config::DiscoveryType::OriginalDst => Refusal::NoOriginalDestination,
            config::DiscoveryType::Eds
            | config::DiscoveryType::Static
            | config::DiscoveryType::StrictDns(_)
            | config::DiscoveryType::LogicalDns(_) => Refusal::NoHealthyUpstream,
        }
    }

    /// That TLS cannot be spoken to an endpoint, for want of what it is spoken with; in the words that Envoy has for it.
    pub(crate) fn tls_unusable(retried: bool) -> Refusal {
        let reason = Some(ConnectError::tls_words("Secret is not supplied by SDS"));
        Refusal::Reset { reset: Reset::ConnectFailure, reason, retried }
    }

    /// What the client is told.
    pub(crate) fn answer(&self) -> Answer {
        let of = |status, flag, details: &'static str, body: &'static str| Answer {
            status,
            flag,
            details: details.into(),
            body: body.into(),
            close: false,
        };
        let closing = |status, flag, details, body| Answer { close: true, ..of(status, flag, details, body) };
        let broken = Some(Flag::DownstreamProtocolError);
        match self {
            Refusal::Overloaded => closing(
                StatusCode::SERVICE_UNAVAILABLE,
                Some(Flag::OverloadManager),
                "overload",
                "envoy overloaded",
            ),
            Refusal::TooManyHeads => of(
                StatusCode::SERVICE_UNAVAILABLE,
                Some(Flag::OverloadManager),
                "overload{request_head_bytes_total_max}",
                "envoy overloaded",
            ),
            Refusal::TooManyHeaders => closing(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Some(Flag::DownstreamProtocolError),
                "too_many_headers",
                "",
            ),
            Refusal::HeadTooLarge => of(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Some(Flag::DownstreamProtocolError),
                "request_headers_too_large",
                "",
            ),
            Refusal::UnknownMethod => {
                closing(StatusCode::BAD_REQUEST, broken, "http1.codec_error", "Bad Request")
            }
            Refusal::BadConnection => {
                closing(StatusCode::BAD_REQUEST, broken, "http1.connection_header_rejected", "Bad Request")
            }
            Refusal::BadMessaging => {
                closing(StatusCode::BAD_REQUEST, broken, "http2.violation.of.messaging.rule", "Bad Request")
            }
            Refusal::BadTarget => {
                closing(StatusCode::BAD_REQUEST, broken, "http1.invalid_url", "Bad Request")
            }
            Refusal::BadAuthority => {
                closing(StatusCode::BAD_REQUEST, broken, "http.invalid_authority", "Bad Request")
            }
            Refusal::UnknownTransferCoding => closing(
                StatusCode::NOT_IMPLEMENTED,
                broken,
                "http1.invalid_transfer_encoding",
                "Not Implemented",
            ),
            Refusal::LowVersion => {
                closing(StatusCode::UPGRADE_REQUIRED, None, "low_version", "Upgrade Required")
            }
            Refusal::MissingHost => closing(StatusCode::BAD_REQUEST, None, "missing_host_header", ""),
            Refusal::BadPath => closing(StatusCode::BAD_REQUEST, None, "path_normalization_failed", ""),
            Refusal::UpgradeRefused => closing(StatusCode::FORBIDDEN, None, "upgrade_failed", ""),
            Refusal::BadRewrite => of(StatusCode::BAD_REQUEST, None, "rewritten_path_invalid", ""),
            Refusal::NoRoute => of(StatusCode::NOT_FOUND, Some(Flag::NoRouteFound), "route_not_found", ""),
            Refusal::NoCluster => {
                of(StatusCode::SERVICE_UNAVAILABLE, Some(Flag::NoClusterFound), "cluster_not_found", "")
            }
            Refusal::NoHealthyUpstream => no_healthy("no_healthy_upstream", "no healthy upstream"),
            Refusal::NoOriginalDestination => no_healthy(
                "no_healthy_upstream{no_original_destination}",
                "no healthy upstream: this listener does not know where the client wanted to go",
            ),
            Refusal::TlsNotEnforced(mode) => tls_not_enforced(*mode),
            Refusal::Reset { reset, reason, retried } => reset_answer(*reset, reason.as_deref(), *retried),
            // Nobody is there to be answered, unless it was a body that is none.
            Refusal::RequestFailed(StreamError::Protocol(_)) => {
                closing(StatusCode::BAD_REQUEST, broken, "http1.codec_error", "Bad Request")
            }
            Refusal::RequestFailed(StreamError::Overloaded) => closing(
                StatusCode::SERVICE_UNAVAILABLE,
                Some(Flag::OverloadManager),
                "overload{unread_bytes_total_max}",
                "envoy overloaded",
            ),
            Refusal::RequestFailed(StreamError::Limit(REQUEST_HEAD_BYTES_TOTAL_MAX)) => {
                Answer { details: past(REQUEST_HEAD_BYTES_TOTAL_MAX), ..Refusal::TooManyHeads.answer() }
            }
            Refusal::RequestFailed(StreamError::Limit(limit)) => {
                Answer { details: past(limit), ..closing(status_past(limit), broken, "", "") }
            }
            Refusal::RequestFailed(_) => closing(StatusCode::BAD_REQUEST, None, "", ""),
            Refusal::RouteTimeout => timeout("response_timeout"),
        }
    }
}

/// What is said of a request whose body exceeds the limit of this name.
pub(crate) fn past(limit: &str) -> Cow<'static, str> {
    format!("codec_error{{{limit}}}").into()
}

/// The limit that such details name.
pub(crate) fn exceeded(details: &str) -> Option<&str> {
    details.strip_prefix("codec_error{")?.strip_suffix('}')
}

/// What such a request is answered with: trailers are fields.
fn status_past(limit: &str) -> StatusCode {
    match limit {
        "trailer_bytes_max" | "trailers_max" => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn no_healthy(details: &'static str, body: &'static str) -> Answer {
    Answer {
        status: StatusCode::SERVICE_UNAVAILABLE,
        flag: Some(Flag::NoHealthyUpstream),
        details: details.into(),
        body: body.into(),
        close: false,
    }
}

fn timeout(details: &'static str) -> Answer {
    Answer {
        status: StatusCode::GATEWAY_TIMEOUT,
        flag: Some(Flag::UpstreamRequestTimeout),
        details: details.into(),
        body: "upstream request timeout".into(),
        close: false,
    }
}

fn tls_not_enforced(mode: config::UpstreamTlsMode) -> Answer {
    let mode = match mode {
        config::UpstreamTlsMode::Simple => "SIMPLE TLS",
        config::UpstreamTlsMode::Mutual => "MUTUAL TLS",
        config::UpstreamTlsMode::IstioMutual => "Istio mutual TLS",
    };
    Answer {
        status: StatusCode::SERVICE_UNAVAILABLE,
        flag: Some(Flag::UpstreamConnectionFailure),
        details: "upstream_tls_not_enforced".into(),
        body: format!(
            "upstream asks for {mode}, for which this workload has no identity; \
             --allow-unenforced-security sends in plain text instead"
        )
        .into(),
        close: false,
    }
}

fn reset_answer(reset: Reset, reason: Option<&str>, retried: bool) -> Answer {
    let name = reset.name();
    let (status, flag) = match reset {
        Reset::ConnectFailure | Reset::ConnectTimeout => {
            (StatusCode::SERVICE_UNAVAILABLE, Flag::UpstreamConnectionFailure)
        }
        Reset::ConnectionTermination => {
            (StatusCode::SERVICE_UNAVAILABLE, Flag::UpstreamConnectionTermination)
        }
        Reset::Remote | Reset::RemoteRefused => (StatusCode::SERVICE_UNAVAILABLE, Flag::UpstreamRemoteReset),
        Reset::Unsendable => return Refusal::BadAuthority.answer(),
        Reset::Protocol => (StatusCode::BAD_GATEWAY, Flag::UpstreamProtocolError),
        Reset::PerTryTimeout => return timeout("upstream_per_try_timeout"),
        Reset::Overflow(_) => (StatusCode::SERVICE_UNAVAILABLE, Flag::UpstreamOverflow),
    };
    let mut details = format!("upstream_reset_before_response_started{{{name}");
    if let Some(reason) = reason {
        details.push('|');
        details.push_str(reason);
    }
    details.push('}');
    let latest = if retried { "retried and the latest " } else { "" };
    Answer {
        status,
        flag: Some(flag),
        details: details.replace(' ', "_").into(),
        body: format!(
            "upstream connect error or disconnect/reset before headers. {latest}reset reason: {name}"
        )
        .into(),
        close: false,
    }
}
