//! `config.core.v3.Http1ProtocolOptions` and `Http2ProtocolOptions`, of clusters and of connection managers.

use envoy_types::pb::envoy::config::core::v3 as core;

use super::Refused;
use super::at::At;
use super::table::{Message, Told, open};
use super::values::number;

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![core::Http1ProtocolOptions::MESSAGE, core::Http2ProtocolOptions::MESSAGE]
}

/// Whether requests of HTTP/1.0 are served.
pub(super) fn http1(told: Option<core::Http1ProtocolOptions>, at: &At<'_>) -> Result<bool, Refused> {
    let Some(told) = told else { return Ok(false) };
    open!(told, at, core::Http1ProtocolOptions as "envoy.config.core.v3.Http1ProtocolOptions" {
        honoured: accept_http_10;
        harmless:
            default_host_for_http_10 = "a request without Host is matched as one without an authority",
            use_balsa_parser = "weft has one parser";
        not_run: header_key_format = "names of headers are written in lower case";
        refused: allow_absolute_url, enable_trailers, allow_chunked_length,
            override_stream_error_on_invalid_http_message, send_fully_qualified_url, allow_custom_methods,
            ignore_http_11_upgrade;
    });
    Ok(accept_http_10)
}

/// Requests at once on one connection, where they are bounded.
pub(super) fn http2(told: Option<core::Http2ProtocolOptions>, at: &At<'_>) -> Result<Option<u32>, Refused> {
    let Some(told) = told else { return Ok(None) };
    open!(told, at, core::Http2ProtocolOptions as "envoy.config.core.v3.Http2ProtocolOptions" {
        honoured: max_concurrent_streams;
        harmless:
            hpack_table_size = "a matter of memory, which weft bounds by its own limits",
            initial_stream_window_size = "a matter of memory, which weft bounds by its own limits",
            initial_connection_window_size = "a matter of memory, which weft bounds by its own limits",
            max_outbound_frames = "weft bounds what waits by its own limits",
            max_outbound_control_frames = "weft bounds what waits by its own limits",
            max_consecutive_inbound_frames_with_empty_payload = "weft bounds floods by its own limits",
            max_inbound_priority_frames_per_stream = "weft bounds floods by its own limits",
            max_inbound_window_update_frames_per_data_frame_sent = "weft bounds floods by its own limits",
            use_oghttp2_codec = "weft has one codec",
            enable_huffman_encoding = "both ways to write a header say the same",
            stream_reset_burst = "weft bounds floods by its own limits",
            stream_reset_rate = "weft bounds floods by its own limits";
        not_run: connection_keepalive = "no PING is sent on idle connections yet";
        refused: allow_connect, allow_metadata, stream_error_on_invalid_http_messaging,
            override_stream_error_on_invalid_http_message, custom_settings_parameters, max_metadata_size,
            max_header_field_size_kb, disallow_obs_text;
    });
    Ok(number(max_concurrent_streams))
}
