//! Access logs: where and how the mesh asks for them.

use super::findings::Findings;
use crate::finding::{Severity, code};
use crate::mesh::{AccessLogEncoding, MeshConfig};
use crate::resource::AccessLog;
use crate::resource::format::{Format, FormatError, JsonFormat, LogFormat};

/// Istio's access log line when the mesh does not say another.
const ACCESS_LOG_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
);

/// The same as an object, for the encoding JSON.
const ACCESS_LOG_FIELDS: &[(&str, &str)] = &[
    ("authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("start_time", "%START_TIME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
];

/// The access logs of `mesh`; a format that cannot be written is found.
pub(super) fn access_log(mesh: &MeshConfig, findings: &mut Findings) -> Vec<AccessLog> {
    let Some(path) = mesh.access_log_file.as_deref().filter(|path| !path.is_empty()) else {
        return Vec::new();
    };
    let told = mesh.access_log_format.as_deref().filter(|format| !format.is_empty());
    let encoding = mesh.access_log_encoding;
    let format = match told.map(|text| log_format(encoding, text)) {
        Some(Ok(format)) => format,
        Some(Err(error)) => {
            let what = format!("accessLogFormat of the mesh configuration cannot be written: {error}");
            let remedy = "Correct it; until then lines have Istio's default format.";
            findings.add_general(Severity::Warning, code::ACCESS_LOG_FORMAT, what, remedy);
            default_format(encoding)
        }
        None => default_format(encoding),
    };
    vec![AccessLog { path: path.into(), format }]
}

fn log_format(encoding: AccessLogEncoding, text: &str) -> Result<LogFormat, FormatError> {
    Ok(match encoding {
        AccessLogEncoding::Text => {
            LogFormat::Text(Format::parse(&format!("{}\n", text.strip_suffix('\n').unwrap_or(text)))?)
        }
        AccessLogEncoding::Json => LogFormat::Json(JsonFormat::parse(text)?),
    })
}

fn default_format(encoding: AccessLogEncoding) -> LogFormat {
    let text = || Format::parse(ACCESS_LOG_FORMAT).unwrap_or_else(|_| Format::literal("\n"));
    match encoding {
        AccessLogEncoding::Text => LogFormat::Text(text()),
        AccessLogEncoding::Json => {
            JsonFormat::of_fields(ACCESS_LOG_FIELDS).map_or_else(|_| LogFormat::Text(text()), LogFormat::Json)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::format::Operator;

    #[test]
    fn the_default_format_is_one() {
        let LogFormat::Text(text) = default_format(AccessLogEncoding::Text) else { panic!() };
        assert_eq!(text.text(), ACCESS_LOG_FORMAT);
        // In JSON it has the same values, each under a key of its own.
        let json = default_format(AccessLogEncoding::Json);
        assert!(matches!(json, LogFormat::Json(_)));
        let values = |format: &LogFormat| {
            let looked_up = |operator: &&Operator| !matches!(operator, Operator::Literal(_));
            let mut values: Vec<String> =
                format.operators().filter(looked_up).map(|operator| format!("{operator:?}")).collect();
            values.sort();
            values
        };
        assert_eq!(values(&json), values(&LogFormat::Text(text)));
        assert_eq!(ACCESS_LOG_FIELDS.len(), 24);
    }
}
