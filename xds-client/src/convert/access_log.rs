//! Access logs: `config.accesslog.v3.AccessLog` with a file behind it.

use config::AccessLog;
use config::format::{JsonFormat, LogFormat};
use envoy_types::pb::envoy::config::accesslog::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3 as file;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};
use serde_json::Value as Json;

use pb::access_log_filter::FilterSpecifier;

use super::at::At;
use super::table::{Choice, Message, Standing, Told, field, open, variants};
use super::values::{format, needed, text};
use super::{Refused, typed};

/// The flag of a connection that no filter chain serves.
const NO_ROUTE: &str = "NR";

const NOT_WRITTEN: &str = "the log is not written";
const NOT_RUN: Standing = Standing::NotRun(NOT_WRITTEN);

/// Whether a log of traffic has a filter.
const FILTERED: &str = "a log of requests, or of connections that are served, with a filter";

/// Loggers by the type of their configuration.
const LOGGERS: Message = Message {
    name: "access loggers, by type",
    fields: &[
        field("envoy.extensions.access_loggers.file.v3.FileAccessLog", Standing::Honoured),
        field("envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig", NOT_RUN),
        field("envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig", NOT_RUN),
        field("envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig", NOT_RUN),
        field("envoy.extensions.access_loggers.stream.v3.StdoutAccessLog", NOT_RUN),
        field(FILTERED, NOT_RUN),
        field("any other", Standing::Refused),
    ],
};

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        LOGGERS,
        pb::AccessLog::MESSAGE,
        pb::access_log::ConfigType::MESSAGE,
        pb::AccessLogFilter::MESSAGE,
        FilterSpecifier::MESSAGE,
        pb::ResponseFlagFilter::MESSAGE,
        file::FileAccessLog::MESSAGE,
        file::file_access_log::AccessLogFormat::MESSAGE,
        core::SubstitutionFormatString::MESSAGE,
        core::substitution_format_string::Format::MESSAGE,
        core::DataSource::MESSAGE,
        core::data_source::Specifier::MESSAGE,
    ]
}

variants!(pb::access_log::ConfigType as "envoy.config.accesslog.v3.AccessLog.config_type" {
    honoured: TypedConfig;
});

variants!(FilterSpecifier as "envoy.config.accesslog.v3.AccessLogFilter.filter_specifier" {
    honoured: ResponseFlagFilter;
    not_run:
        StatusCodeFilter = "the log is not written",
        DurationFilter = "the log is not written",
        NotHealthCheckFilter = "the log is not written",
        TraceableFilter = "the log is not written",
        RuntimeFilter = "the log is not written",
        AndFilter = "the log is not written",
        OrFilter = "the log is not written",
        HeaderFilter = "the log is not written",
        GrpcStatusFilter = "the log is not written",
        ExtensionFilter = "the log is not written",
        MetadataFilter = "the log is not written",
        LogTypeFilter = "the log is not written";
});

variants!(file::file_access_log::AccessLogFormat
    as "envoy.extensions.access_loggers.file.v3.FileAccessLog.access_log_format" {
    honoured: LogFormat;
    refused: Format, JsonFormat, TypedJsonFormat;
});

variants!(core::substitution_format_string::Format as "envoy.config.core.v3.SubstitutionFormatString.format" {
    honoured: TextFormat, JsonFormat, TextFormatSource;
});

variants!(core::data_source::Specifier as "envoy.config.core.v3.DataSource.specifier" {
    honoured: InlineBytes, InlineString;
    refused: Filename, EnvironmentVariable;
});

/// Logs of requests, or of connections that are served.
pub(super) fn of_traffic(told: Vec<pb::AccessLog>, at: &At<'_>) -> Result<Vec<AccessLog>, Refused> {
    logs(told, at, |filter, at| match filter {
        None => Ok(true),
        Some(told) => {
            if let FilterSpecifier::ResponseFlagFilter(_) = told {
                at.not_run((LOGGERS.name, FILTERED), NOT_WRITTEN, 1);
            }
            Ok(false)
        }
    })
}

/// Logs of connections that no filter chain serves.
pub(super) fn of_listener(told: Vec<pb::AccessLog>, at: &At<'_>) -> Result<Vec<AccessLog>, Refused> {
    logs(told, at, |filter, at| match filter {
        Some(FilterSpecifier::ResponseFlagFilter(told)) => {
            open!(told, at, pb::ResponseFlagFilter as "envoy.config.accesslog.v3.ResponseFlagFilter" {
                honoured: flags;
            });
            if flags == [NO_ROUTE] {
                return Ok(true);
            }
            Err(at.refuse("a listener logs connections that no filter chain serves, flag NR, and no others"))
        }
        Some(_) => Ok(false),
        None => {
            Err(at.refuse("a listener logs connections that no filter chain serves, flag NR, and no others"))
        }
    })
}

/// Whether a log with such a filter is written.
type IsWritten = fn(Option<FilterSpecifier>, &At<'_>) -> Result<bool, Refused>;

fn logs(told: Vec<pb::AccessLog>, at: &At<'_>, is_written: IsWritten) -> Result<Vec<AccessLog>, Refused> {
    let mut logs = Vec::with_capacity(told.len());
    for (index, told) in told.into_iter().enumerate() {
        let at = at.index("access_log", index);
        open!(told, at, pb::AccessLog as "envoy.config.accesslog.v3.AccessLog" {
            honoured: filter, config_type;
            harmless: name = "the type of its configuration says what it is";
        });
        let mut specifier = None;
        if let Some(told) = filter {
            let at = at.field("filter");
            open!(told, at, pb::AccessLogFilter as "envoy.config.accesslog.v3.AccessLogFilter" {
                honoured: filter_specifier;
            });
            specifier = Some(needed(filter_specifier, &at)?.choose(&at)?);
        }
        let written = is_written(specifier, &at.field("filter"))?;
        let pb::access_log::ConfigType::TypedConfig(config) = needed(config_type, &at)?.choose(&at)?;
        let at_config = at.field("typed_config");
        let kind = typed::type_name(&config, &at_config)?;
        let listed = LOGGERS.fields.iter().find(|field| field.name == kind && field.standing == NOT_RUN);
        if let Some(listed) = listed {
            at.not_run((LOGGERS.name, listed.name), NOT_WRITTEN, 1);
            continue;
        }
        let log = file(typed::decode(&config, &at_config)?, &at_config)?;
        logs.extend(written.then_some(log));
    }
    Ok(logs)
}

fn file(told: file::FileAccessLog, at: &At<'_>) -> Result<AccessLog, Refused> {
    open!(told, at, file::FileAccessLog as "envoy.extensions.access_loggers.file.v3.FileAccessLog" {
        honoured: path, access_log_format;
    });
    let format = needed(access_log_format, &at.field("log_format"))?.choose(at)?;
    let file::file_access_log::AccessLogFormat::LogFormat(told) = format else {
        return Err(at.not_honoured());
    };
    Ok(AccessLog { path: text(path, &at.field("path"))?, format: log_format(told, &at.field("log_format"))? })
}

fn log_format(told: core::SubstitutionFormatString, at: &At<'_>) -> Result<LogFormat, Refused> {
    use core::substitution_format_string::Format;
    open!(told, at, core::SubstitutionFormatString as "envoy.config.core.v3.SubstitutionFormatString" {
        honoured: format;
        harmless:
            content_type = "it is of answers, not of logs",
            formatters = "an operator that weft does not know is refused where it is used",
            json_format_options = "weft sorts keys, as istiod says";
        refused: omit_empty_values;
    });
    match needed(format, at)?.choose(at)? {
        Format::TextFormat(told) => Ok(LogFormat::Text(self::format(&told, &at.field("text_format"))?)),
        Format::TextFormatSource(told) => {
            let at = at.field("text_format_source");
            let bytes = data(told, &at)?;
            let told = String::from_utf8(bytes).map_err(|_| at.refuse("it is no text"))?;
            Ok(LogFormat::Text(self::format(&told, &at)?))
        }
        Format::JsonFormat(told) => {
            let at = at.field("json_format");
            let json = object(told, &at)?.to_string();
            let format = JsonFormat::parse(&json).map_err(|error| at.refuse(error.to_string()))?;
            Ok(LogFormat::Json(format))
        }
    }
}

/// Bytes that are written into the resource.
pub(super) fn data(told: core::DataSource, at: &At<'_>) -> Result<Vec<u8>, Refused> {
    open!(told, at, core::DataSource as "envoy.config.core.v3.DataSource" {
        honoured: specifier;
        refused: watched_directory;
    });
    match needed(specifier, at)?.choose(at)? {
        core::data_source::Specifier::InlineBytes(bytes) => Ok(bytes),
        core::data_source::Specifier::InlineString(text) => Ok(text.into_bytes()),
        _ => Err(at.not_honoured()),
    }
}

/// A `google.protobuf.Struct` as JSON. It is as deep as protobuf lets it be, which is bounded.
fn object(told: Struct, at: &At<'_>) -> Result<Json, Refused> {
    let fields = told.fields.into_iter().map(|(key, told)| Ok((key, value(told, at)?)));
    Ok(Json::Object(fields.collect::<Result<_, Refused>>()?))
}

fn value(told: Value, at: &At<'_>) -> Result<Json, Refused> {
    match told.kind {
        None | Some(Kind::NullValue(_)) => Ok(Json::Null),
        Some(Kind::BoolValue(told)) => Ok(Json::Bool(told)),
        Some(Kind::StringValue(told)) => Ok(Json::String(told)),
        Some(Kind::NumberValue(told)) => {
            let number = serde_json::Number::from_f64(told).map(Json::Number);
            number.ok_or_else(|| at.refuse(format!("{told} is no number of JSON")))
        }
        Some(Kind::StructValue(told)) => object(told, at),
        Some(Kind::ListValue(ListValue { values })) => {
            Ok(Json::Array(values.into_iter().map(|told| value(told, at)).collect::<Result<_, Refused>>()?))
        }
    }
}
